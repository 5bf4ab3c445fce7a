/* SPDX-License-Identifier: MIT */
/* Findings as text, the quarantine and its way back. The check itself is tested end to end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "finding.h"
#include "quarantine.h"
#include "scratch_dir.h"
#include "store.h"
#include "unit.h"
#include "util.h"

static struct scratch dir;

static int setup(void **state)
{
	return scratch_make(&dir) < 0 || store_init_proc() < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	scratch_remove(&dir);
	return 0;
}

static void each_kind_has_words_of_its_own(void **state)
{
	for (int i = 0; i < FINDING_KINDS; i++) {
		assert_non_null(finding_word((enum finding_kind)i));
		assert_non_null(finding_what((enum finding_kind)i));
		assert_non_null(finding_meaning((enum finding_kind)i));
		for (int j = 0; j < i; j++)
			assert_string_not_equal(finding_word((enum finding_kind)i),
						finding_word((enum finding_kind)j));
	}
}

static void findings_survive_json(void **state)
{
	static const struct finding cases[] = {
		{.kind = FINDING_BLOCKS,
		 .path = "a/b",
		 .name = "plain/name",
		 .name_complete = true,
		 .first_block = 1,
		 .blocks = UINT64_C(1) << 40},
		{.kind = FINDING_FOREIGN, .path = "new\nline \\ \x1b\xff", .name = "<x>"},
		{.kind = FINDING_XATTR, .path = ".", .name = ".", .attribute = "user.gocryptfs.\x80"},
		{.kind = FINDING_UNREADABLE, .path = "x", .name = "x", .code = -EIO},
		{.kind = FINDING_HEADER_ONLY, .path = "\"", .name = "\"", .name_complete = true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct finding *f = &cases[i];
		struct finding_summary unused;
		struct finding back;
		char *line;

		assert_int_equal(finding_format(f, &line), 0);
		assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
		for (const char *p = line; *p != '\n'; p++)
			assert_in_range(*p, ' ', '~');
		assert_int_equal(finding_parse(line, strlen(line), &back, &unused), 0);
		assert_int_equal(back.kind, f->kind);
		assert_string_equal(back.path, f->path);
		assert_int_equal(back.first_block, f->first_block);
		assert_int_equal(back.blocks, f->blocks);
		assert_int_equal(back.code, f->code);
		assert_int_equal(back.name_complete, f->name_complete);
		if (f->attribute)
			assert_string_equal(back.attribute, f->attribute);
		else
			assert_null(back.attribute);
		finding_wipe(&back);
		free(line);
	}
}

static void summary_survives_json(void **state)
{
	struct finding_summary s = {1, 2, 3, 4, UINT64_C(1) << 50, 5, 6, true}, back;
	struct finding unused;
	char *line;

	assert_int_equal(finding_summary_format(&s, &line), 0);
	assert_int_equal(finding_parse(line, strlen(line), &unused, &back), 1);
	assert_memory_equal(&s, &back, offsetof(struct finding_summary, complete));
	assert_true(back.complete);
	free(line);
}

static void foreign_lines_are_refused(void **state)
{
	static const char *const lines[] = {
		"",
		"[]",
		"{}",
		"nothing",
		"{\"kind\":\"other\",\"path\":\"x\",\"name\":\"x\"}",
		"{\"kind\":1,\"path\":\"x\",\"name\":\"x\"}",
		"{\"kind\":\"name\",\"name\":\"x\"}",
		"{\"kind\":\"name\",\"path\":\"\\\\x0\",\"name\":\"x\"}",
		"{\"kind\":\"name\",\"path\":\"\\\\x00\",\"name\":\"x\"}",
		"{\"kind\":[[[[[[[[[[[[]]]]]]]]]]]]}",
		"{\"files\":\"many\"}",
	};
	struct finding f;
	struct finding_summary s;

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		assert_int_equal(finding_parse(lines[i], strlen(lines[i]), &f, &s), -EBADMSG);
}

static bool exists(const char *name)
{
	struct stat st;

	return store_stat(dir.fd, name, &st) == 0;
}

static void undo(unsigned want_done, unsigned want_left)
{
	struct error err = ERROR_NONE;
	unsigned done = 99, left = 99;
	int fd = store_open_dir(dir.fd, "q");

	assert_int_equal(quarantine_undo(dir.fd, fd, QUARANTINE_LOG, &done, &left, &err), 0);
	assert_int_equal(done, want_done);
	assert_int_equal(left, want_left);
	close(fd);
}

static void quarantine_goes_there_and_back(void **state)
{
	struct quarantine *q;

	assert_int_equal(quarantine_new(dir.fd, dir.fd, "q", "where/q", &q), 0);
	assert_null(quarantine_log(q));
	assert_int_equal(quarantine_move(q, "missing"), -ENOENT);
	assert_int_equal(quarantine_move(q, "../x"), -EINVAL);
	assert_int_equal(quarantine_move(q, "."), -EINVAL);
	assert_false(exists("q")); /* nothing was done */
	assert_int_equal(store_mkdir(dir.fd, "d", 0700), 0);
	assert_int_equal(store_write_file(dir.fd, "a", "1", 1, 0600, false), 0);
	assert_int_equal(store_write_file(dir.fd, "b", "2", 1, 0600, false), 0);
	assert_int_equal(quarantine_rename(q, "a", "d/moved"), 0);
	assert_int_equal(quarantine_rename(q, "b", "d/moved"), -EEXIST);
	assert_int_equal(quarantine_move(q, "d"), 0);
	assert_int_equal(quarantine_create(q, "new", "text"), 0);
	assert_int_equal(quarantine_create(q, "b", "text"), -EEXIST);
	assert_string_equal(quarantine_log(q), "where/q/log");
	assert_true(exists("new") && exists("b") && !exists("a") && !exists("d"));
	quarantine_free(q);
	undo(3, 1); /* the second "b" is not what would have been created: told of, and left */
	assert_true(exists("a") && exists("d") && exists("b") && !exists("new"));
}

/* The log is ahead of what was done: going back passes over that. */
static void undo_after_a_crash(void **state)
{
	static const char log[] = "{\"action\":\"move\",\"path\":\"a\",\"to\":\"1\"}\n"
				  "{\"action\":\"rename\",\"path\":\"a\",\"to\":\"z\"}\n"
				  "{\"action\":\"create\",\"path\":\"c\",\"text\":\"t\"}\n"
				  "{\"action\":\"mo";
	int fd;

	assert_int_equal(store_write_file(dir.fd, "a", "1", 1, 0600, false), 0);
	assert_int_equal(store_mkdir(dir.fd, "q", 0700), 0);
	fd = store_open_dir(dir.fd, "q");
	assert_int_equal(store_write_file(fd, QUARANTINE_LOG, log, strlen(log), 0600, false), 0);
	close(fd);
	undo(0, 0);
	assert_true(exists("a") && !exists("q/log"));
}

static void no_log_is_an_error(void **state)
{
	struct error err = ERROR_NONE;
	unsigned done, left;

	assert_int_equal(quarantine_undo(dir.fd, dir.fd, "log", &done, &left, &err), -ENOENT);
	assert_int_equal(store_write_file(dir.fd, "log", "text\n", 5, 0600, false), 0);
	assert_int_equal(quarantine_undo(dir.fd, dir.fd, "log", &done, &left, &err), -EBADMSG);
	assert_int_equal(err.status, EXIT_STATUS_FAILED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_kind_has_words_of_its_own),
		cmocka_unit_test(findings_survive_json),
		cmocka_unit_test(summary_survives_json),
		cmocka_unit_test(foreign_lines_are_refused),
		cmocka_unit_test_setup_teardown(quarantine_goes_there_and_back, setup, teardown),
		cmocka_unit_test_setup_teardown(undo_after_a_crash, setup, teardown),
		cmocka_unit_test_setup_teardown(no_log_is_an_error, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
