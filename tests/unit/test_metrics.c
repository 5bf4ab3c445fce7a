/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "metrics.h"
#include "unit.h"
#include "util.h"

static char *written(const struct message_status *list, size_t n)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	assert_non_null(f);
	metrics_write(list, n, 1000, f);
	assert_int_equal(fclose(f), 0);
	return text;
}

static void has_line(const char *text, const char *line)
{
	const char *at = strstr(text, line);

	if (!at || (at != text && at[-1] != '\n') || at[strlen(line)] != '\n')
		fail_msg("no line %s in:\n%s", line, text);
}

static void members_become_samples(void **state)
{
	const struct message_status one = {
		.name = "web",
		.state = "degraded",
		.format = "gocryptfs",
		.lower = "directory",
		.requests = UINT64_MAX,
		.refresh_failures = 3,
		.since = 900,
		.expires = 1060,
		.latency = {1, 2, [LATENCY_BUCKETS - 1] = 4},
		.latency_ns = 5000000002,
	};
	autofree char *text = written(&one, 1);

	has_line(text, "# TYPE ckrfs_requests_total counter");
	has_line(text, "ckrfs_requests_total{name=\"web\"} 18446744073709551615");
	has_line(text, "ckrfs_key_refresh_failures_total{name=\"web\"} 3");
	has_line(text, "ckrfs_mount_state{name=\"web\",state=\"degraded\"} 1");
	has_line(text, "ckrfs_mount_state{name=\"web\",state=\"unlocked\"} 0");
	has_line(text, "ckrfs_key_expires_in_seconds{name=\"web\"} 60");
	has_line(text, "ckrfs_key_expiry_timestamp_seconds{name=\"web\"} 1060");
	has_line(text, "ckrfs_request_duration_seconds_bucket{name=\"web\",le=\"1e-05\"} 1");
	has_line(text, "ckrfs_request_duration_seconds_bucket{name=\"web\",le=\"5e-05\"} 3");
	has_line(text, "ckrfs_request_duration_seconds_bucket{name=\"web\",le=\"5\"} 3");
	has_line(text, "ckrfs_request_duration_seconds_bucket{name=\"web\",le=\"+Inf\"} 7");
	has_line(text, "ckrfs_request_duration_seconds_sum{name=\"web\"} 5.000000002");
	has_line(text, "ckrfs_request_duration_seconds_count{name=\"web\"} 7");
}

/* An end that has passed is not negative; a mount that says nothing has a state alone. */
static void what_is_not_known_is_not_told(void **state)
{
	const struct message_status two[] = {
		{.name = "a", .state = "locked", .format = "plain", .lower = "directory", .expires = 10},
		{.name = "b", .state = "dead"},
	};
	autofree char *text = written(two, ARRAY_SIZE(two));

	has_line(text, "ckrfs_mounts 2");
	has_line(text, "ckrfs_key_expires_in_seconds{name=\"a\"} 0");
	has_line(text, "ckrfs_mount_state{name=\"b\",state=\"dead\"} 1");
	assert_null(strstr(text, "_total{name=\"b\""));
	assert_null(strstr(text, "ckrfs_mount_since_timestamp_seconds{"));
}

/* From a keeper that says what no keeper of ours says. */
static void labels_are_escaped(void **state)
{
	const struct message_status one = {
		.name = "a\"b\\c\nd\xff", .state = "unlocked", .format = "x\"\n\\", .lower = "-"};
	autofree char *text = written(&one, 1);

	has_line(text, "ckrfs_requests_total{name=\"a\\\"b\\\\c\\\\x0ad\\\\xff\"} 0");
	has_line(text,
		 "ckrfs_mount_info{name=\"a\\\"b\\\\c\\\\x0ad\\\\xff\",format=\"x\\\"\\n\\\\\",lower=\"-\","
		 "read_only=\"0\"} 1");
}

static void paths_and_keys_are_not_told(void **state)
{
	const struct message_status one = {
		.name = "web",
		.state = "unlocked",
		.format = "gocryptfs",
		.lower = "directory",
		.source = "/secret-source",
		.target = "/secret-target",
		.key_source = "file:/secret-key",
		.key_identifier = "secret-identifier",
		.last_error = "secret-error",
	};
	autofree char *text = written(&one, 1);

	assert_null(strstr(text, "secret"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(members_become_samples),
		cmocka_unit_test(what_is_not_known_is_not_told),
		cmocka_unit_test(labels_are_escaped),
		cmocka_unit_test(paths_and_keys_are_not_told),
	};

	return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
