/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "scratch_dir.h"
#include "unit.h"
#include "util.h"

static struct scratch scratch;

static int make(void **state)
{
	return scratch_make(&scratch);
}

static int clean(void **state)
{
	log_close();
	scratch_remove(&scratch);
	return 0;
}

static char *path_of(const char *name, char path[100])
{
	snprintf(path, 100, "%s/%s", scratch.path, name);
	return path;
}

static char *text_of(const char *name)
{
	int fd = openat(scratch.fd, name, O_RDONLY | O_CLOEXEC);
	char *text = calloc(1, 1 << 20);

	assert_true(fd >= 0);
	assert_non_null(text);
	assert_true(read_full(fd, text, (1 << 20) - 1) >= 0);
	close(fd);
	return text;
}

static void test_levels(void **state)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};
	enum log_level level = LOG_LEVEL_ERROR;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		assert_int_equal(log_level_parse(names[i], &level), 0);
		assert_int_equal(level, i);
		assert_string_equal(log_level_name(level), names[i]);
	}
	assert_int_equal(log_level_parse("verbose", &level), -EINVAL);
	assert_int_equal(log_level_parse("", &level), -EINVAL);
}

static void test_file(void **state)
{
	char path[100], pattern[200], *text;
	struct stat st;
	regex_t regex;

	assert_int_equal(log_open(path_of("log", path), LOG_LEVEL_INFO, NULL), 0);
	errno = ENOTTY;
	log_msg(LOG_LEVEL_WARNING, "a %s\n", "b\x1b");
	assert_int_equal(errno, ENOTTY);
	log_msg(LOG_LEVEL_DEBUG, "too much");
	log_close();
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	snprintf(pattern, sizeof(pattern),
		 "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z warning %d: a "
		 "b\\\\x1b\\\\x0a\n$",
		 (int)getpid());
	assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
	text = text_of("log");
	assert_int_equal(regexec(&regex, text, 0, NULL, 0), 0);
	regfree(&regex);
	free(text);
}

static void test_refused(void **state)
{
	struct error err = ERROR_NONE;
	char path[100];

	assert_int_equal(symlinkat("elsewhere", scratch.fd, "link"), 0);
	assert_int_equal(log_open(path_of("link", path), LOG_LEVEL_INFO, &err), -ELOOP);
	assert_non_null(strstr(err.text, "cannot open the log "));
	assert_int_equal(log_open("relative", LOG_LEVEL_INFO, &err), -EINVAL);
	assert_string_equal(err.text, "log \"relative\" is neither stderr nor syslog nor an absolute path");
	assert_int_equal(err.status, EXIT_STATUS_CONFIG);
}

static void test_stderr(void **state)
{
	struct error err;
	char path[100], *text;
	int saved = dup(STDERR_FILENO), fd;

	fd = open(path_of("stderr", path), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(saved >= 0 && fd >= 0);
	assert_int_equal(log_open("stderr", LOG_LEVEL_ERROR, NULL), 0);
	dup2(fd, STDERR_FILENO);
	log_msg(LOG_LEVEL_INFO, "too much");
	log_msg(LOG_LEVEL_ERROR, "one");
	error_set(&err, -EIO, EXIT_STATUS_FAILED, "two");
	log_error(&err);
	error_hint(&err, "three");
	log_error(&err);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(fd);
	text = text_of("stderr");
	assert_string_equal(text, "ckrfs: one\nckrfs: two [CK100]\nckrfs: two (try: three) [CK100]\n");
	free(text);
}

static void sink_keep(void *ctx, enum log_level level, const char *line)
{
	snprintf(ctx, 1100, "%d %s", (int)level, line);
}

static void test_sink(void **state)
{
	char got[1100] = "", longer[2000];

	assert_int_equal(log_open("stderr", LOG_LEVEL_WARNING, NULL), 0);
	log_set_sink(sink_keep, got);
	log_msg(LOG_LEVEL_INFO, "too much");
	assert_string_equal(got, "");
	log_msg(LOG_LEVEL_WARNING, "heard");
	assert_string_equal(got, "1 heard");
	memset(longer, 'a', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	log_msg(LOG_LEVEL_ERROR, "%s", longer);
	assert_int_equal(strlen(got), strlen("0 ") + 1000);
}

/* Whatever the level is, and as one line. */
static void test_audit(void **state)
{
	char got[1100] = "", longer[2000];

	assert_int_equal(log_open("stderr", LOG_LEVEL_ERROR, NULL), 0);
	log_set_sink(sink_keep, got);
	errno = ENOTTY;
	log_audit("lock by \"%s\"", "a\nb\x1b");
	assert_int_equal(errno, ENOTTY);
	assert_string_equal(got, "2 audit: lock by \"a\\x0ab\\x1b\"");
	memset(longer, 'a', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	log_audit("%s", longer);
	assert_int_equal(strlen(got), strlen("0 ") + 1000);
}

static void *write_many(void *letter)
{
	for (int i = 0; i < 500; i++)
		log_msg(LOG_LEVEL_INFO, "%c%0200d", *(const char *)letter, 0);
	return NULL;
}

/* Lines of two threads never mix. */
static void test_threads(void **state)
{
	static char letters[] = "xy";
	char path[100], *text, *line, *save = NULL;
	pthread_t threads[2];
	size_t lines = 0;

	assert_int_equal(log_open(path_of("threads", path), LOG_LEVEL_INFO, NULL), 0);
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, write_many, &letters[i]), 0);
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	log_close();
	text = text_of("threads");
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		const char *words = strstr(line, ": ");

		assert_non_null(words);
		assert_int_equal(strlen(words), 2 + 201);
		assert_int_equal(strspn(words + 3, "0"), 200);
		lines++;
	}
	assert_int_equal(lines, 1000);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_levels),  cmocka_unit_test(test_file), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_stderr),  cmocka_unit_test(test_sink), cmocka_unit_test(test_audit),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests_name("log", tests, make, clean);
}
