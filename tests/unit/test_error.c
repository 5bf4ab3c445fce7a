/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "unit.h"

static void test_set(void **state)
{
	struct error err = ERROR_NONE;

	error_hint(&err, "stale");
	assert_int_equal(error_set(&err, -ENOKEY, EXIT_STATUS_NO_KEY, "no key in %s", "here"), -ENOKEY);
	assert_int_equal(err.code, -ENOKEY);
	assert_int_equal(err.status, EXIT_STATUS_NO_KEY);
	assert_string_equal(err.text, "no key in here");
	assert_string_equal(err.hint, "");
	assert_int_equal(error_set(NULL, -EIO, EXIT_STATUS_FAILED, "nobody listens"), -EIO);
	assert_int_equal(error_errno(NULL, -EIO, EXIT_STATUS_FAILED, "nobody listens"), -EIO);
	error_hint(NULL, "nobody listens");
	assert_true(error_prefix(NULL, "nobody listens") < 0);
}

static void test_errno(void **state)
{
	struct error err;

	assert_int_equal(error_errno(&err, -ENOENT, EXIT_STATUS_CONFIG, "cannot read %s", "x"), -ENOENT);
	assert_string_equal(err.text, "cannot read x: No such file or directory");
	assert_int_equal(err.status, EXIT_STATUS_CONFIG);
}

static void test_prefix(void **state)
{
	struct error err;

	error_set(&err, -EBUSY, EXIT_STATUS_BUSY, "it is in use");
	error_hint(&err, "lsof %s", "/mnt");
	assert_int_equal(error_prefix(&err, "cannot unmount \"%s\"", "photos"), -EBUSY);
	assert_string_equal(err.text, "cannot unmount \"photos\": it is in use");
	assert_string_equal(err.hint, "lsof /mnt");
	assert_int_equal(err.status, EXIT_STATUS_BUSY);
}

/* A file name must not reach the terminal as commands to it; doing it twice changes nothing. */
static void test_unprintable(void **state)
{
	struct error err;

	error_set(&err, -EIO, EXIT_STATUS_FAILED, "%s", "a\x1b[2J\n\xff b\xc3\xbc\\");
	assert_string_equal(err.text, "a\\x1b[2J\\x0a\\xff b\xc3\xbc\\");
	error_prefix(&err, "\r");
	assert_string_equal(err.text, "\\x0d: a\\x1b[2J\\x0a\\xff b\xc3\xbc\\");
	error_hint(&err, "rm \x07");
	assert_string_equal(err.hint, "rm \\x07");
}

static void test_cut(void **state)
{
	char longer[3000];
	struct error err;

	memset(longer, 'a', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	error_errno(&err, -EIO, EXIT_STATUS_FAILED, "%s", longer);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	error_prefix(&err, "%s", longer);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	error_hint(&err, "%s", longer);
	assert_int_equal(strlen(err.hint), sizeof(err.hint) - 1);
	/* a letter of two bytes across the end */
	longer[sizeof(err.text) - 2] = '\xc3';
	longer[sizeof(err.text) - 1] = '\xbc';
	error_set(&err, -EIO, EXIT_STATUS_FAILED, "%s", longer);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 2);
}

static void check_printed(const struct error *err, const char *want)
{
	char *text = NULL;
	size_t size = 0;
	FILE *to = open_memstream(&text, &size);

	assert_non_null(to);
	error_print(to, err);
	fclose(to);
	assert_string_equal(text, want);
	free(text);
}

static void test_print(void **state)
{
	struct error err;

	error_set(&err, -ENOKEY, EXIT_STATUS_NO_KEY, "cannot unlock");
	check_printed(&err, "ckrfs: cannot unlock\n");
	error_hint(&err, "ckrfs unlock photos");
	check_printed(&err, "ckrfs: cannot unlock\n  try: ckrfs unlock photos\n");
	err = (struct error){.code = -EIO};
	check_printed(&err, "ckrfs: Input/output error\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set),    cmocka_unit_test(test_errno),
		cmocka_unit_test(test_prefix), cmocka_unit_test(test_unprintable),
		cmocka_unit_test(test_cut),    cmocka_unit_test(test_print),
	};

	return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
