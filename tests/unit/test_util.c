/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "unit.h"
#include "util.h"

static void test_numbers(void **state)
{
	static const struct {
		const char *text;
		uint64_t max;
		int result;
		uint64_t value;
	} cases[] = {
		{"0", 10, 0, 0},
		{"10", 10, 0, 10},
		{"11", 10, -ERANGE, 0},
		{"010", 10, 0, 10},
		{"0x1F", 100, 0, 31},
		{"0xffffffffffffffff", UINT64_MAX, 0, UINT64_MAX},
		{"18446744073709551615", UINT64_MAX, 0, UINT64_MAX},
		{"18446744073709551616", UINT64_MAX, -ERANGE, 0},
		{"0x10000000000000000", UINT64_MAX, -ERANGE, 0},
		{"", 10, -EINVAL, 0},
		{"0x", 10, -EINVAL, 0},
		{"-1", 10, -EINVAL, 0},
		{"+1", 10, -EINVAL, 0},
		{" 1", 10, -EINVAL, 0},
		{"1 ", 10, -EINVAL, 0},
		{"1a", 10, -EINVAL, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t value = 77;

		assert_int_equal(parse_u64(cases[i].text, cases[i].max, &value), cases[i].result);
		assert_int_equal(value, cases[i].result < 0 ? 77 : cases[i].value);
	}
}

static void test_bools(void **state)
{
	static const char *const yes[] = {"yes", "true", "on", "1"}, *const no[] = {"no", "false", "off",
										    "0"};
	static const char *const bad[] = {"", "Yes", "2", "y", "yes "};
	bool value;

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		value = false;
		assert_int_equal(parse_bool(yes[i], &value), 0);
		assert_true(value);
		assert_int_equal(parse_bool(no[i], &value), 0);
		assert_false(value);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(parse_bool(bad[i], &value), -EINVAL);
}

static void test_units(void **state)
{
	static const struct {
		int (*parse)(const char *text, uint64_t *ret);
		const char *text;
		int result;
		uint64_t value;
	} cases[] = {
		{parse_duration_ms, "30", 0, 30000},
		{parse_duration_ms, "30s", 0, 30000},
		{parse_duration_ms, "5m", 0, 300000},
		{parse_duration_ms, "2h", 0, 7200000},
		{parse_duration_ms, "1d", 0, 86400000},
		{parse_duration_ms, "250ms", 0, 250},
		{parse_duration_ms, "5 m", -EINVAL, 0},
		{parse_duration_ms, "m", -EINVAL, 0},
		{parse_duration_ms, "5mm", -EINVAL, 0},
		{parse_duration_ms, "18446744073709551615", -ERANGE, 0},
		{parse_size, "4096", 0, 4096},
		{parse_size, "64K", 0, 65536},
		{parse_size, "512M", 0, 536870912},
		{parse_size, "1G", 0, 1073741824},
		{parse_size, "17179869184G", -ERANGE, 0},
		{parse_size, "1KB", -EINVAL, 0},
		{parse_size, "", -EINVAL, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t value = 77;

		assert_int_equal(cases[i].parse(cases[i].text, &value), cases[i].result);
		assert_int_equal(value, cases[i].result < 0 ? 77 : cases[i].value);
	}
}

static void test_nearest_word(void **state)
{
	static const char *const list[] = {"file", "keyring", "unix", "exec", NULL};
	static const struct {
		const char *word, *nearest;
	} cases[] = {
		{"fil", "file"},   {"flie", NULL},  {"keyrnig", "keyring"},
		{"kyerign", NULL}, {"unx", "unix"}, {"exec", "exec"},
		{"zzzz", NULL},    {"", NULL},      {"files", "file"},
	};
	char huge[200];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *found = nearest_word(cases[i].word, list);

		if (cases[i].nearest)
			assert_string_equal(found, cases[i].nearest);
		else
			assert_null(found);
	}
	memset(huge, 'f', sizeof(huge));
	huge[sizeof(huge) - 1] = '\0';
	assert_null(nearest_word(huge, list));
}

static void test_printable(void **state)
{
	static const struct {
		const char *in, *strict, *text;
	} cases[] = {
		{"plain", "plain", "plain"},
		{"a\\b", "a\\x5cb", "a\\b"},
		{"\x1b[31m\n", "\\x1b[31m\\x0a", "\\x1b[31m\\x0a"},
		{"gr\xc3\xbc\xc3\x9f", "gr\\xc3\\xbc\\xc3\\x9f", "gr\xc3\xbc\xc3\x9f"},
		{"\xf0\x9f\x94\x91", "\\xf0\\x9f\\x94\\x91", "\xf0\x9f\x94\x91"},
		/* C1 control, overlong slash, surrogate, right-to-left override, cut sequence, lone byte */
		{"\xc2\x9b", "\\xc2\\x9b", "\\xc2\\x9b"},
		{"\xc0\xaf", "\\xc0\\xaf", "\\xc0\\xaf"},
		{"\xed\xa0\x80", "\\xed\\xa0\\x80", "\\xed\\xa0\\x80"},
		{"\xe2\x80\xae", "\\xe2\\x80\\xae", "\\xe2\\x80\\xae"},
		{"a\xe2\x82", "a\\xe2\\x82", "a\\xe2\\x82"},
		{"\xff\x7f", "\\xff\\x7f", "\\xff\\x7f"},
	};
	char out[64], again[64];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		printable(cases[i].in, out, sizeof(out));
		assert_string_equal(out, cases[i].strict);
		printable_text(cases[i].in, out, sizeof(out));
		assert_string_equal(out, cases[i].text);
		printable_text(out, again, sizeof(again));
		assert_string_equal(again, out);
	}
}

/* An escape or a letter is never cut in two. */
static void test_printable_cut(void **state)
{
	char out[8];

	printable("abcd\n", out, sizeof(out));
	assert_string_equal(out, "abcd");
	printable("abc\n", out, sizeof(out));
	assert_string_equal(out, "abc\\x0a");
	printable_text("abcdef\xc3\xbc", out, sizeof(out));
	assert_string_equal(out, "abcdef");
	printable_text("abcde\xc3\xbc", out, sizeof(out));
	assert_string_equal(out, "abcde\xc3\xbc");
	printable("x", out, 1);
	assert_string_equal(out, "");
}

static void test_utf8(void **state)
{
	static const struct {
		const char *in;
		size_t length;
		uint32_t c;
	} cases[] = {
		{"a", 1, 'a'},
		{"\x7f", 1, 0x7f},
		{"\xc3\xbc.", 2, 0xfc},
		{"\xe2\x82\xac", 3, 0x20ac},
		{"\xf4\x8f\xbf\xbf", 4, 0x10ffff},
		/* a byte that goes on, overlong slash in 2 to 4 bytes, surrogate, beyond Unicode, cut, no
		   such byte */
		{"\x80", 0, 0},
		{"\xc0\xaf", 0, 0},
		{"\xe0\x80\xaf", 0, 0},
		{"\xf0\x80\x80\xaf", 0, 0},
		{"\xed\xa0\x80", 0, 0},
		{"\xf4\x90\x80\x80", 0, 0},
		{"\xe2\x82", 0, 0},
		{"\xff", 0, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint32_t c = 0;

		assert_int_equal(utf8_decode(cases[i].in, &c), cases[i].length);
		assert_int_equal(c, cases[i].c);
	}
}

static void test_json_string(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{"", "\"\""},
		{"web/a b@EXAMPLE.ORG", "\"web/a b@EXAMPLE.ORG\""},
		{"say \"\\\"", "\"say \\\"\\\\\\\"\""},
		{"a\nb\t\x1b[2J\x7f", "\"a\\u000ab\\u0009\\u001b[2J\\u007f\""},
		{"zo\xc3\xab \xe2\x82\xac \xf0\x9f\x94\x91", "\"zo\xc3\xab \xe2\x82\xac \xf0\x9f\x94\x91\""},
		/* C1 control, a lone byte, overlong slash, a surrogate, a letter that is cut */
		{"\xc2\x9b", "\"\\u009b\""},
		{"a\xff\x62", "\"a\\ufffdb\""},
		{"\xc0\xaf", "\"\\ufffd\\ufffd\""},
		{"\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\""},
		{"zo\xc3", "\"zo\\ufffd\""},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char out[64] = "";
		FILE *to = fmemopen(out, sizeof(out), "w");

		assert_non_null(to);
		print_json_string(to, cases[i].in);
		assert_int_equal(fclose(to), 0);
		assert_string_equal(out, cases[i].out);
	}
}

static void test_local_time(void **state)
{
	char out[64];

	setenv("TZ", "EST5", 1);
	tzset();
	local_time_text(1000000000, out, sizeof(out));
	assert_string_equal(out, "2001-09-08 20:46:40 -0500");
	local_time_text(INT64_MAX, out, sizeof(out));
	assert_string_equal(out, "9223372036854775807");
	local_time_text(1000000000, out, 11);
	assert_string_equal(out, "1000000000");
	unsetenv("TZ");
	tzset();
}

/* RFC 4648, section 10, and the two characters in which the alphabets differ. */
static void test_base64(void **state)
{
	static const struct {
		const char *plain, *std, *raw;
	} cases[] = {
		{"", "", ""},
		{"f", "Zg==", "Zg"},
		{"fo", "Zm8=", "Zm8"},
		{"foo", "Zm9v", "Zm9v"},
		{"foob", "Zm9vYg==", "Zm9vYg"},
		{"fooba", "Zm9vYmE=", "Zm9vYmE"},
		{"foobar", "Zm9vYmFy", "Zm9vYmFy"},
		{"\xfb\xff\xfe", "+//+", "-__-"},
	};
	char text[32], bytes[32];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *plain = cases[i].plain;
		size_t n = strlen(plain);

		assert_int_equal(base64_encode(BASE64_STD, plain, n, text), strlen(cases[i].std));
		assert_string_equal(text, cases[i].std);
		assert_int_equal(base64_decode(BASE64_STD, text, strlen(text), bytes, sizeof(bytes)), n);
		assert_memory_equal(bytes, plain, n);
		base64_encode(BASE64_URL_RAW, plain, n, text);
		assert_string_equal(text, cases[i].raw);
		assert_int_equal(base64_decode(BASE64_URL_RAW, text, strlen(text), bytes, sizeof(bytes)), n);
		assert_memory_equal(bytes, plain, n);
		base64_encode(BASE64_URL_PADDED, plain, n, text);
		assert_int_equal(strlen(text), strlen(cases[i].std));
		assert_int_equal(base64_decode(BASE64_URL_PADDED, text, strlen(text), bytes, n), n);
	}
}

static void test_base64_strict(void **state)
{
	static const struct {
		enum base64_kind kind;
		const char *text;
	} bad[] = {
		{BASE64_STD, "Zg"},         {BASE64_STD, "Zg="},  {BASE64_STD, "Zh=="},
		{BASE64_STD, "Zm9="},       {BASE64_STD, "-__-"}, {BASE64_URL_RAW, "+//+"},
		{BASE64_URL_RAW, "Zg=="},   {BASE64_STD, "===="}, {BASE64_URL_RAW, "Zm9vY"},
		{BASE64_STD, "Zm9v\nZg="},  {BASE64_STD, "Z==="}, {BASE64_STD, "=Zg="},
		{BASE64_URL_PADDED, "Zm8"},
	};
	char bytes[32];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(
			base64_decode(bad[i].kind, bad[i].text, strlen(bad[i].text), bytes, sizeof(bytes)),
			-EINVAL);
	assert_int_equal(base64_decode(BASE64_STD, "Zm9v", 4, bytes, 2), -ENOSPC);
}

static void test_hex(void **state)
{
	char text[9];

	hex_encode("\x00\x7f\xab\xff", 4, text);
	assert_string_equal(text, "007fabff");
}

/* A writer that dribbles; the reader gets all of it. */
static void test_transfer(void **state)
{
	static const char sent[] = "in three pieces";
	char got[32] = "";
	int ends[2];
	pid_t pid;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		for (size_t i = 0; i < 3; i++) {
			struct timespec pause = {.tv_nsec = 20000000};

			nanosleep(&pause, NULL);
			write_full(ends[1], sent + i * 5, 5);
		}
		_exit(0);
	}
	close(ends[1]);
	assert_int_equal(read_full(ends[0], got, sizeof(got)), 15);
	assert_string_equal(got, sent);
	close(ends[0]);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(read_full(-1, got, 1), -EBADF);
	assert_int_equal(write_full(-1, got, 1), -EBADF);
}

static void test_positioned(void **state)
{
	char path[] = "/tmp/ckrfs-unit-XXXXXX", got[8] = "";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	unlink(path);
	assert_int_equal(pwrite_full(fd, "abcdef", 6, 100), 0);
	assert_int_equal(pread_full(fd, got, 4, 102), 4);
	assert_string_equal(got, "cdef");
	assert_int_equal(pread_full(fd, got, sizeof(got), 104), 2);
	assert_int_equal(pread_full(fd, got, sizeof(got), 106), 0);
	assert_int_equal(pwrite_full(-1, "a", 1, 0), -EBADF);
	close(fd);
}

static void test_clock(void **state)
{
	struct timespec pause = {.tv_nsec = 30000000};
	uint64_t before = monotonic_ms(), after;

	nanosleep(&pause, NULL);
	after = monotonic_ms();
	assert_in_range(after - before, 29, 5000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),    cmocka_unit_test(test_bools),
		cmocka_unit_test(test_units),      cmocka_unit_test(test_nearest_word),
		cmocka_unit_test(test_printable),  cmocka_unit_test(test_printable_cut),
		cmocka_unit_test(test_base64),     cmocka_unit_test(test_base64_strict),
		cmocka_unit_test(test_hex),        cmocka_unit_test(test_transfer),
		cmocka_unit_test(test_positioned), cmocka_unit_test(test_clock),
		cmocka_unit_test(test_utf8),       cmocka_unit_test(test_json_string),
		cmocka_unit_test(test_local_time),
	};

	return cmocka_run_group_tests_name("util", tests, NULL, NULL);
}
