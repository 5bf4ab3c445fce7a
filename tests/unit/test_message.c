/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "message.h"
#include "unit.h"
#include "util.h"

static void requests_go_around(void **state)
{
	static const struct message_request cases[] = {
		{.command = MESSAGE_STATUS},
		{.command = MESSAGE_UMOUNT},
		{.command = MESSAGE_UMOUNT, .lazy = true},
		{.command = MESSAGE_LOCK},
		{.command = MESSAGE_LOCK, .timeout_ms = INT32_MAX},
		{.command = MESSAGE_UNLOCK},
		{.command = MESSAGE_REFRESH},
		{.command = MESSAGE_UNLOCK, .key = "file:/k \"e\"?fmt=raw"}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		autofree char *text = NULL;
		struct message_request got;
		struct error err = ERROR_NONE;

		assert_int_equal(message_request_format(&cases[i], &text), 0);
		assert_int_equal(text[strlen(text) - 1], '\n');
		assert_int_equal(message_request_parse(text, strlen(text), &got, &err), 0);
		assert_int_equal(got.command, cases[i].command);
		assert_int_equal(got.lazy, cases[i].lazy);
		assert_int_equal(got.timeout_ms, cases[i].timeout_ms);
		assert_string_equal(got.key, cases[i].key);
	}
}

static void bad_requests_are_named(void **state)
{
	static const struct {
		const char *text;
		int code;
		const char *words;
	} cases[] = {
		{"", -EBADMSG, "the message is not a JSON object"},
		{"\n", -EBADMSG, "the message is not a JSON object"},
		{"status", -EBADMSG, "the message is not a JSON object"},
		{"[]", -EBADMSG, "the message is not a JSON object"},
		{"{\"version\":1,\"command\":\"status\"} x", -EBADMSG, "the message is not a JSON object"},
		{"{\"version\":1,\"command\":\"status\"", -EBADMSG, "the message is not a JSON object"},
		{"{\"a\":[[[[[[[[[[1]]]]]]]]]]}", -EBADMSG, "the message is not a JSON object"},
		{"{\"command\":\"status\"}", -EBADMSG, "the message has no version"},
		{"{\"version\":\"1\",\"command\":\"status\"}", -EBADMSG, "the message has no version"},
		{"{\"version\":2,\"command\":\"status\"}", -EPROTO,
		 "message version 2 is not known here; 1 is"},
		{"{\"version\":1}", -EBADMSG, "the message has no command"},
		{"{\"version\":1,\"command\":7}", -EBADMSG, "the message has no command"},
		{"{\"version\":1,\"command\":\"key\"}", -EOPNOTSUPP, "there is no command \"key\""},
		{"{\"version\":1,\"command\":\"umount\",\"lazy\":1}", -EBADMSG,
		 "the member \"lazy\" is not a boolean"},
		{"{\"version\":1,\"command\":\"lock\",\"timeout_ms\":-1}", -EBADMSG,
		 "the member \"timeout_ms\" is not a number of milliseconds"},
		{"{\"version\":1,\"command\":\"lock\",\"timeout_ms\":2147483648}", -EBADMSG,
		 "the member \"timeout_ms\" is not a number of milliseconds"},
		{"{\"version\":1,\"command\":\"lock\",\"timeout_ms\":\"1\"}", -EBADMSG,
		 "the member \"timeout_ms\" is not a number of milliseconds"},
		{"{\"version\":1,\"command\":\"unlock\",\"key\":[]}", -EBADMSG,
		 "the member \"key\" is not a key source"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct message_request got = {.command = MESSAGE_UMOUNT, .lazy = true};
		struct error err = ERROR_NONE;

		assert_int_equal(message_request_parse(cases[i].text, strlen(cases[i].text), &got, &err),
				 cases[i].code);
		assert_string_equal(err.text, cases[i].words);
		assert_true(got.lazy); /* untouched */
	}
}

static void a_giant_is_refused(void **state)
{
	size_t size = MESSAGE_MAX + 1;
	autofree char *text = malloc(size);
	struct message_request got;
	struct error err = ERROR_NONE;

	memset(text, ' ', size);
	memcpy(text, "{\"version\":1,\"command\":\"status\"}", 32);
	assert_int_equal(message_request_parse(text, size, &got, &err), -EBADMSG);
	assert_int_equal(message_request_parse(text, MESSAGE_MAX, &got, &err), 0);
}

static const struct message_status example = {
	.name = "web",
	.state = "unlocked",
	.source = "/srv/we\"b\\\n",
	.target = "/srv/web",
	.lower = "directory",
	.format = "gocryptfs",
	.key_identifier = "0123456789abcdef0123456789abcdef",
	.key_source = "file:/k?fmt=hex",
	.secret_memory = "memfd_secret",
	.passthrough = "not with this format",
	.protections = "no-core empty-root",
	.missing = "landlock file-handles",
	.key_watch = "poll",
	.last_error = "no key in \"x\"",
	.since = 1790000000,
	.expires = 1790000100,
	.next_refresh = 1790000050,
	.keyring = 123456,
	.requests = 1,
	.read_bytes = UINT64_MAX,
	.written_bytes = 1ull << 40,
	.latency = {1, 0, UINT64_MAX, [LATENCY_BUCKETS - 1] = 4},
	.latency_ns = 12345,
	.refreshes = 3,
	.refresh_failures = 2,
	.owner = 1000,
	.keeper_pid = 12,
	.server_pid = 13,
	.read_only = true,
};

static void status_goes_around(void **state)
{
	autofree char *text = NULL;
	struct message_status got = {0};
	struct error err = ERROR_NONE;

	assert_int_equal(message_format_status(&example, &text), 0);
	assert_int_equal(message_response_parse(text, strlen(text), &got, &err), 0);
	assert_memory_equal(&got, &example, sizeof(got));
}

/* A keeper that runs since before the member was added. */
static void an_older_keeper_is_understood(void **state)
{
	static const char member[] = ",\"missing\":[\"landlock\",\"file-handles\"]";
	static const char last[] =
		",\"latency\":[1,0,18446744073709551615,0,0,0,0,0,0,0,0,0,4],\"latency_ns\":12345,"
		"\"refreshes\":3,\"refresh_failures\":2";
	autofree char *text = NULL;
	struct message_status got = {.missing = "?"};
	struct error err = ERROR_NONE;
	char *at;

	assert_int_equal(message_format_status(&example, &text), 0);
	at = strstr(text, member);
	assert_non_null(at);
	memmove(at, at + strlen(member), strlen(at + strlen(member)) + 1);
	at = strstr(text, last);
	assert_non_null(at);
	memmove(at, at + strlen(last), strlen(at + strlen(last)) + 1);
	assert_int_equal(message_response_parse(text, strlen(text), &got, &err), 0);
	assert_string_equal(got.missing, "");
	assert_int_equal(got.latency[0] + got.latency_ns + got.refreshes + got.refresh_failures, 0);
	assert_string_equal(got.name, "web");
}

static void errors_go_around(void **state)
{
	autofree char *text = NULL;
	struct message_status got;
	struct error err = ERROR_NONE, sent = ERROR_NONE;

	error_set(&sent, -EBUSY, EXIT_STATUS_BUSY, "\"web\" is busy");
	error_hint(&sent, "ckrfs umount --lazy web");
	assert_int_equal(message_format_error(&sent, &text), 0);
	assert_int_equal(message_response_parse(text, strlen(text), &got, &err), -EBUSY);
	assert_int_equal(err.status, EXIT_STATUS_BUSY);
	assert_string_equal(err.text, sent.text);
	assert_string_equal(err.hint, sent.hint);
}

static void done_carries_no_status(void **state)
{
	autofree char *text = NULL;
	struct message_status got;
	struct error err = ERROR_NONE;

	assert_int_equal(message_format_done(&text), 0);
	assert_int_equal(message_response_parse(text, strlen(text), NULL, &err), 0);
	assert_int_equal(message_response_parse(text, strlen(text), &got, &err), -EBADMSG);
}

static void bad_answers_are_refused(void **state)
{
	static const char *const cases[] = {
		"",
		"{}",
		"{\"version\":1}",
		"{\"version\":1,\"ok\":1}",
		"{\"version\":1,\"ok\":false}",
		"{\"version\":1,\"ok\":false,\"error\":{}}",
		"{\"version\":1,\"ok\":true,\"status\":{}}",
		"{\"version\":1,\"ok\":true,\"status\":{\"name\":7}}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct message_status got;
		struct error err = ERROR_NONE;

		assert_int_equal(message_response_parse(cases[i], strlen(cases[i]), &got, &err), -EBADMSG);
	}
}

/* A peer that sends a name longer than there is room for must not write behind it. */
static void members_too_long_are_refused(void **state)
{
	autofree char *text = NULL, *longer = NULL;
	struct message_status got;
	struct error err = ERROR_NONE;
	char *at;

	assert_int_equal(message_format_status(&example, &text), 0);
	at = strstr(text, "\"unlocked\"");
	assert_non_null(at);
	assert_true(asprintf(&longer, "%.*s\"unlocked-and-more-than-sixteen\"%s", (int)(at - text), text,
			     at + 10) > 0);
	assert_int_equal(message_response_parse(longer, strlen(longer), &got, &err), -EBADMSG);
}

/* One member of another type, or missing. */
static void members_of_wrong_type_are_refused(void **state)
{
	static const char *const changes[][2] = {
		{"\"state\":\"unlocked\"", "\"state\":7"},
		{"\"state\":\"unlocked\"", "\"stat\":\"unlocked\""},
		{"\"since\":1790000000", "\"since\":\"1790000000\""},
		{"\"read_only\":true", "\"read_only\":1"},
		{"\"protections\":[\"no-core\",\"empty-root\"]", "\"protections\":\"no-core\""},
		{"\"protections\":[\"no-core\",\"empty-root\"]", "\"protections\":[1]"},
		{"\"latency\":[1,", "\"latency\":[\"1\","},
		{"\"latency\":[1,", "\"latency\":["},
		{"\"latency\":[1,", "\"latency\":[1,1,"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		autofree char *text = NULL, *changed = NULL;
		struct message_status got;
		char *at;

		assert_int_equal(message_format_status(&example, &text), 0);
		at = strstr(text, changes[i][0]);
		if (!at)
			fail_msg("no %s in %s", changes[i][0], text);
		assert_true(asprintf(&changed, "%.*s%s%s", (int)(at - text), text, changes[i][1],
				     at + strlen(changes[i][0])) > 0);
		if (message_response_parse(changed, strlen(changed), &got, NULL) != -EBADMSG)
			fail_msg("%s was taken", changes[i][1]);
	}
}

/* Bytes that JSON escapes take six each: also then the longest paths there are fit into one message. */
static void the_largest_status_fits(void **state)
{
	struct message_status status = example, got = {0};
	autofree char *text = NULL;

	memset(status.source, 1, sizeof(status.source) - 1);
	memset(status.target, 1, sizeof(status.target) - 1);
	assert_int_equal(message_format_status(&status, &text), 0);
	assert_true(strlen(text) <= MESSAGE_MAX);
	assert_int_equal(message_response_parse(text, strlen(text), &got, NULL), 0);
	assert_memory_equal(&got, &status, sizeof(got));
}

/* Exactly as many bytes as there are: a sanitizer sees one that is read behind them. */
static void nothing_behind_the_request_is_read(void **state)
{
	static const char text[] = "{\"version\":1,\"command\":\"status\"}";
	autofree char *exact = malloc(strlen(text));
	struct message_request got;

	memcpy(exact, text, strlen(text));
	assert_int_equal(message_request_parse(exact, strlen(text), &got, NULL), 0);
}

static void lists_are_json(void **state)
{
	struct message_status two[2] = {example, example};
	autofree char *none = NULL, *text = NULL;

	assert_int_equal(message_format_list(NULL, 0, &none), 0);
	assert_non_null(strstr(none, "\"mounts\""));
	assert_int_equal(message_format_list(two, 2, &text), 0);
	assert_non_null(strstr(text, "\"/srv/we\\\"b\\\\\\n\""));
	assert_non_null(strstr(text, "\"empty-root\""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_go_around),
		cmocka_unit_test(bad_requests_are_named),
		cmocka_unit_test(a_giant_is_refused),
		cmocka_unit_test(status_goes_around),
		cmocka_unit_test(an_older_keeper_is_understood),
		cmocka_unit_test(errors_go_around),
		cmocka_unit_test(done_carries_no_status),
		cmocka_unit_test(bad_answers_are_refused),
		cmocka_unit_test(members_too_long_are_refused),
		cmocka_unit_test(members_of_wrong_type_are_refused),
		cmocka_unit_test(the_largest_status_fits),
		cmocka_unit_test(nothing_behind_the_request_is_read),
		cmocka_unit_test(lists_are_json),
	};

	return cmocka_run_group_tests_name("message", tests, NULL, NULL);
}
