/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "status_table.h"
#include "unit.h"
#include "util.h"

static void texts_are_cut(void **state)
{
	static const struct {
		const char *text;
		size_t width;
		bool path;
		const char *want;
	} cases[] = {
		{"/srv/web", 8, true, "/srv/web"}, {"/srv/web", 7, true, ".../web"},
		{"file:/k", 6, false, "fil..."},   {"file:/k", 7, false, "file:/k"},
		{"äöü€", 4, true, "äöü€"},         {"/äöü/äöü", 6, true, "...äöü"},
		{"äöü/äöü", 5, false, "äö..."},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char got[64];

		status_table_cut(cases[i].text, cases[i].width, cases[i].path, got, sizeof(got));
		assert_string_equal(got, cases[i].want);
	}
}

static const struct message_status mounts[] = {
	{.name = "a",
	 .state = "unlocked",
	 .format = "plain",
	 .lower = "directory",
	 .target = "/a",
	 .key_source = "-"},
	{.name = "b",
	 .state = "locked",
	 .format = "gocryptfs",
	 .lower = "directory",
	 .target = "/srv/a/long/path/b",
	 .key_source = "keyring:user:ckrfs-b"},
	{.name = "c",
	 .state = "unlocked",
	 .format = "plain",
	 .lower = "directory",
	 .target = "/c",
	 .key_source = "-"},
};

static char *table(struct status_table t, size_t n)
{
	struct mount_list list = {(struct message_status *)(uintptr_t)mounts, n};
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	assert_int_equal(status_table_print(&t, &list, f), 0);
	assert_int_equal(fclose(f), 0);
	return text;
}

static void tables_are_wide_enough(void **state)
{
	autofree char *text = table((struct status_table){0}, 3);

	assert_string_equal(
		text,
		"NAME  STATE     FORMAT     LOWER      TARGET              KEY                   SINCE\n"
		"a     unlocked  plain      directory  /a                  -                     -\n"
		"b     locked    gocryptfs  directory  /srv/a/long/path/b  keyring:user:ckrfs-b  -\n"
		"c     unlocked  plain      directory  /c                  -                     -\n"
		"3 mounts: 2 unlocked, 1 locked\n");
}

static void a_narrow_terminal_is_kept_to(void **state)
{
	autofree char *text = table((struct status_table){.width = 76}, 3);

	assert_string_equal(text,
			    "NAME  STATE     FORMAT     LOWER      TARGET             KEY           SINCE\n"
			    "a     unlocked  plain      directory  /a                 -             -\n"
			    "b     locked    gocryptfs  directory  .../a/long/path/b  keyring:u...  -\n"
			    "c     unlocked  plain      directory  /c                 -             -\n"
			    "3 mounts: 2 unlocked, 1 locked\n");
}

static void trouble_comes_first(void **state)
{
	autofree char *text = table((struct status_table){.rows = 1, .trouble_first = true}, 3);

	assert_string_equal(
		text, "NAME  STATE   FORMAT     LOWER      TARGET              KEY                   SINCE\n"
		      "b     locked  gocryptfs  directory  /srv/a/long/path/b  keyring:user:ckrfs-b  -\n"
		      "... and 2 more\n"
		      "3 mounts: 2 unlocked, 1 locked\n");
}

static void few_need_no_summary(void **state)
{
	autofree char *none = table((struct status_table){0}, 0), *one = table((struct status_table){0}, 1);

	assert_string_equal(none, "nothing is mounted\n");
	assert_string_equal(one, "NAME  STATE     FORMAT  LOWER      TARGET  KEY  SINCE\n"
				 "a     unlocked  plain   directory  /a      -    -\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts_are_cut),
		cmocka_unit_test(tables_are_wide_enough),
		cmocka_unit_test(a_narrow_terminal_is_kept_to),
		cmocka_unit_test(trouble_comes_first),
		cmocka_unit_test(few_need_no_summary),
	};

	return cmocka_run_group_tests_name("status_table", tests, NULL, NULL);
}
