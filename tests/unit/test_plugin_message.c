/* SPDX-License-Identifier: MIT */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "plugin_message.h"
#include "util.h"
#include "volume_plugin_impl.h"

static void paths_are_commands(void **state)
{
	static const char *const wrong[] = {"",
					    "/",
					    "Plugin.Activate",
					    "/plugin.activate",
					    "/VolumeDriver.",
					    "/VolumeDriver.Mount/",
					    "/VolumeDriver.Mountx"};
	enum plugin_command command;

	assert_int_equal(plugin_message_command("/Plugin.Activate", &command), 0);
	assert_int_equal(command, PLUGIN_ACTIVATE);
	assert_int_equal(plugin_message_command("/VolumeDriver.Mount", &command), 0);
	assert_int_equal(command, PLUGIN_MOUNT);
	assert_int_equal(plugin_message_command("/VolumeDriver.List", &command), 0);
	assert_int_equal(command, PLUGIN_LIST);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(plugin_message_command(wrong[i], &command), -ENOENT);
}

static void requests_are_read(void **state)
{
	static const char create[] = "{\"Name\":\"v\",\"Opts\":{\"source\":\"/s\",\"format\":\"plain\"}}\n";
	static const char mount[] = "{\"Name\":\"v\",\"ID\":\"abc\",\"More\":[1]}";
	struct plugin_request r;
	struct error err = ERROR_NONE;

	assert_int_equal(plugin_message_parse(PLUGIN_CREATE, create, strlen(create), &r, &err), 0);
	assert_string_equal(r.volume.name, "v");
	assert_int_equal(r.volume.n_options, 2);
	assert_string_equal(r.volume.options[0].name, "format"); /* sorted */
	assert_string_equal(plugin_volume_option(&r.volume, "source"), "/s");
	assert_null(plugin_volume_option(&r.volume, "key"));
	assert_true(plugin_message_sound(&r));

	assert_int_equal(plugin_message_parse(PLUGIN_MOUNT, mount, strlen(mount), &r, &err), 0);
	assert_string_equal(r.id, "abc");
	assert_int_equal(r.volume.n_options, 0);
	/* Where nothing is to be said, nothing is read. */
	assert_int_equal(plugin_message_parse(PLUGIN_LIST, "", 0, &r, &err), 0);
	assert_int_equal(plugin_message_parse(PLUGIN_ACTIVATE, "\xff", 1, &r, &err), 0);
	assert_true(plugin_message_sound(&r));
}

static void bad_requests_leave_the_result_alone(void **state)
{
	static const struct {
		const char *text;
		int code;
	} cases[] = {
		{"", -EBADMSG},
		{"{", -EBADMSG},
		{"[]", -EBADMSG},
		{"{} x", -EBADMSG},
		{"{\"Name\":null}", -EBADMSG},
		{"{\"Name\":\"-v\"}", -EBADMSG},
		{"{\"Name\":\"v/w\"}", -EBADMSG},
		{"{\"Name\":\"v\",\"Opts\":7}", -EBADMSG},
		{"{\"Name\":\"v\",\"Opts\":{\"volume\":null}}", -EBADMSG},
		{"{\"Name\":\"v\",\"Opts\":{\"volume\":\"a\\u001bb\"}}", -EBADMSG},
		{"{\"Name\":\"v\",\"Opts\":{\"target\":\"/etc\"}}", -EINVAL},
		{"{\"Name\":\"v\",\"Opts\":{\"max-mounts\":\"1\"}}", -EINVAL},
		{"{\"Name\":\"v\",\"Opts\":{\"key\":\"hunter2\"}}", -EINVAL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct plugin_request r = {.command = PLUGIN_GET, .from = 7};
		struct error err = ERROR_NONE;

		assert_int_equal(
			plugin_message_parse(PLUGIN_CREATE, cases[i].text, strlen(cases[i].text), &r, &err),
			cases[i].code);
		assert_true(*err.text);
		assert_null(strstr(err.text, "hunter2"));
		assert_int_equal(r.command, PLUGIN_GET);
		assert_int_equal(r.from, 7);
	}
}

static void keys_are_told_from_references(void **state)
{
	static const struct {
		const char *name, *value;
		bool key;
	} cases[] = {
		{"key", "file:/root/web.key?fmt=raw", false},
		{"key", "cred:web", false},
		{"key", "keyring:user:ckrfs-photos", false},
		{"key", "exec:/usr/bin/age -d /root/k", false},
		{"key", "file:/k/0123456789abcdef0123456789abcdef", false},
		{"key", "keyring:user:ckrfs-Photos-2026-ProductionVolume1", false},
		{"key", "unix:@ABCDEFGHIJKLMNOPQRSTUVWXYZ", false},
		{"key", "hunter2", true},
		{"key", "", true},
		{"key", "keyring:fscrypt:0123456789abcdef", false},
		{"key", "raw:0123456789abcdef0123456789abcdef", true},
		{"key", "hex:0123456789ABCDEF0123456789ABCDEF?fmt=hex", true},
		{"key", "b:c2VjcmV0IGJ5dGVzIHRoYXQgYXJlIGEga2V5ISE=", true},
		{"lower-key", "hunter2", true},
		{"source", "/srv/c2VjcmV0IGJ5dGVzIHRoYXQgYXJlIGEga2V5ISE=", false},
		{"source", "c2VjcmV0IGJ5dGVzIHRoYXQgYXJlIGEga2V5ISE=", true},
		{"log-level", "information", false},
		{"uid-map", "0:100000:65536", false},
		{"volume", "0123456789abcdef0123456789abcdef", false}, /* only what exists is kept */
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(plugin_looks_like_key(cases[i].name, cases[i].value), cases[i].key);
}

static void answers_have_the_protocols_form(void **state)
{
	static const struct plugin_entry entries[] = {{"a", true}, {"b", false}};
	struct plugin_request r = {.command = PLUGIN_GET, .volume = {.name = "v"}};
	struct plugin_answer a = {
		.mountpoint = "/run/v",
		.created = 1700000000,
		.status = {.state = "unlocked", .format = "plain", .expires = 1700003600, .mounts = 2}};
	struct error err = ERROR_NONE;
	autofree char *get = NULL, *list = NULL, *failed = NULL, *plain = NULL;

	assert_int_equal(plugin_message_format(&r, &a, NULL, 0, &get), 0);
	assert_string_equal(get, "{\"Volume\":{\"Name\":\"v\",\"Mountpoint\":\"/run/v\","
				 "\"CreatedAt\":\"2023-11-14T22:13:20Z\",\"Status\":{\"state\":\"unlocked\","
				 "\"format\":\"plain\",\"expires\":\"2023-11-14T23:13:20Z\",\"mounts\":2}},"
				 "\"Err\":\"\"}\n");
	r.command = PLUGIN_LIST;
	assert_int_equal(plugin_message_format(&r, &a, entries, 2, &list), 0);
	assert_string_equal(list, "{\"Volumes\":[{\"Name\":\"a\",\"Mountpoint\":\"/run/v/a\"},"
				  "{\"Name\":\"b\",\"Mountpoint\":\"\"}],\"Err\":\"\"}\n");
	error_set(&err, -EIO, EXIT_STATUS_FAILED, "cannot \"x\"");
	assert_int_equal(plugin_message_format_error(&err, &plain), 0);
	assert_string_equal(plain, "{\"Err\":\"ckrfs: cannot \\\"x\\\"\"}\n");
	error_hint(&err, "ckrfs status");
	assert_int_equal(plugin_message_format_error(&err, &failed), 0);
	assert_string_equal(failed, "{\"Err\":\"ckrfs: cannot \\\"x\\\"\\n  try: ckrfs status\"}\n");
}

/* What the process that reads the requests could send if it were somebody else's. */
static void unsound_messages_are_seen(void **state)
{
	static const struct plugin_request good = {
		.command = PLUGIN_CREATE,
		.volume = {.name = "v", .n_options = 2, .options = {{"format", "plain"}, {"source", "/s"}}}};
	struct plugin_request r = good;

	assert_true(plugin_message_sound(&r));
	r.command = (enum plugin_command)99;
	assert_false(plugin_message_sound(&r));
	r = good;
	memset(r.volume.name, 'a', sizeof(r.volume.name));
	assert_false(plugin_message_sound(&r));
	r = good;
	memset(r.id, 'a', sizeof(r.id));
	assert_false(plugin_message_sound(&r));
	r = good;
	snprintf(r.volume.name, sizeof(r.volume.name), "../etc");
	assert_false(plugin_message_sound(&r));
	r = good;
	r.volume.n_options = 1u << 31;
	assert_false(plugin_message_sound(&r));
	r = good;
	memset(r.volume.options[1].value, 'a', sizeof(r.volume.options[1].value));
	assert_false(plugin_message_sound(&r));
	r = good;
	snprintf(r.volume.options[1].value, sizeof(r.volume.options[1].value), "a\nb");
	assert_false(plugin_message_sound(&r));
	r = good;
	snprintf(r.volume.options[1].name, sizeof(r.volume.options[1].name), "target");
	assert_false(plugin_message_sound(&r));
	r = good;
	snprintf(r.volume.options[1].name, sizeof(r.volume.options[1].name), "format"); /* twice */
	assert_false(plugin_message_sound(&r));
}

static void records_go_around(void **state)
{
	static const struct plugin_volume v = {.name = "v",
					       .created = 1700000000,
					       .n_options = 2,
					       .options = {{"format", "plain"}, {"source", "/a=b c"}}};
	static const struct plugin_count c = {.mounts = 3, .n_unanswered = 2, .unanswered = {"a", ""}};
	autofree char *text = NULL, *count = NULL;
	struct plugin_volume got;
	struct plugin_count got_count;

	assert_int_equal(plugin_volume_format(&v, &text), 0);
	assert_string_equal(text, "ckrfs plugin volume 1\nname v\ncreated 1700000000\noption format=plain\n"
				  "option source=/a=b c\nend\n");
	assert_int_equal(plugin_volume_parse(text, strlen(text), &got), 0);
	assert_string_equal(got.name, "v");
	assert_int_equal(got.created, 1700000000);
	assert_true(plugin_volume_same_options(&v, &got));
	/* Cut anywhere, it is none. */
	for (size_t n = 0; n < strlen(text); n++)
		assert_int_equal(plugin_volume_parse(text, n, &got), -EBADMSG);

	assert_int_equal(plugin_count_format(&c, &count), 0);
	assert_int_equal(plugin_count_parse(count, strlen(count), &got_count), 0);
	assert_int_equal(got_count.mounts, 3);
	assert_int_equal(got_count.n_unanswered, 2);
	assert_string_equal(got_count.unanswered[0], "a");
	assert_string_equal(got_count.unanswered[1], "");
	for (size_t n = 0; n < strlen(count); n++)
		assert_int_equal(plugin_count_parse(count, n, &got_count), -EBADMSG);
}

static void odd_counts_are_refused(void **state)
{
	static const char *const texts[] = {
		"ckrfs plugin count 1\nmounts 1\nunanswered a\nunanswered b\nend\n",
		"ckrfs plugin count 1\nmounts 4294967296\nend\n",
		"ckrfs plugin count 1\nmounts -1\nend\n",
		"ckrfs plugin count 1\nmounts 1\nunanswered a b\nend\n",
		"ckrfs plugin count 1\nmounts 1\nend\nend\n",
		"ckrfs plugin count 2\nmounts 1\nend\n",
	};
	struct plugin_count c;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		assert_int_equal(plugin_count_parse(texts[i], strlen(texts[i]), &c), -EBADMSG);
}

static void mounts_are_counted(void **state)
{
	struct tally t = {.n_stale = 0};

	tally_unmount(&t, "a");
	assert_int_equal(t.count.mounts, 0);
	tally_mount(&t, "a");
	tally_mount(&t, "a"); /* podman's ID is one constant */
	assert_int_equal(t.count.mounts, 2);
	assert_int_equal(t.count.n_unanswered, 2);
	tally_delivered(&t, "a", true);
	assert_int_equal(t.count.n_unanswered, 1);
	tally_delivered(&t, "a", false);
	assert_int_equal(t.count.mounts, 1);
	assert_int_equal(t.count.n_unanswered, 0);
	tally_unmount(&t, "b"); /* IDs are not looked at */
	assert_int_equal(t.count.mounts, 0);
}

/* As read after a crash: of three mounts, those of a and b may never have been answered. */
static void a_repeated_mount_counts_once(void **state)
{
	static const struct tally crashed = {
		.count = {.mounts = 3, .n_unanswered = 2, .unanswered = {"a", "b"}}, .n_stale = 2};
	struct tally t = crashed;

	assert_int_equal(tally_users(&t), 1);
	tally_mount(&t, "b");
	assert_int_equal(t.count.mounts, 3);
	assert_int_equal(t.n_stale, 1);
	assert_int_equal(tally_users(&t), 2);
	tally_mount(&t, "b"); /* a second one is another one */
	assert_int_equal(t.count.mounts, 4);
	tally_delivered(&t, "b", true);
	tally_delivered(&t, "b", true);
	tally_delivered(&t, "a", true); /* not asked of us */
	assert_int_equal(t.n_stale, 1);
	tally_unmount(&t, "a");
	assert_int_equal(t.n_stale, 0);
	assert_int_equal(t.count.mounts, 3);

	t = crashed;
	for (int i = 0; i < 4; i++)
		tally_unmount(&t, "c");
	assert_int_equal(t.count.mounts, 0);
	assert_int_equal(t.count.n_unanswered, 0);
	assert_int_equal(t.n_stale, 0);

	t = crashed;
	assert_true(tally_forget(&t));
	assert_int_equal(t.count.mounts, 1);
	assert_int_equal(t.count.n_unanswered, 0);
	assert_false(tally_forget(&t));
}

static void many_unanswered_are_counted_all_the_same(void **state)
{
	struct tally t = {.n_stale = 0};

	for (uint32_t i = 0; i < PLUGIN_UNANSWERED_MAX + 10; i++)
		tally_mount(&t, "a");
	assert_int_equal(t.count.mounts, PLUGIN_UNANSWERED_MAX + 10);
	for (uint32_t i = 0; i < PLUGIN_UNANSWERED_MAX + 10; i++)
		tally_delivered(&t, "a", false);
	assert_int_equal(t.count.mounts, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_are_commands),
		cmocka_unit_test(requests_are_read),
		cmocka_unit_test(bad_requests_leave_the_result_alone),
		cmocka_unit_test(keys_are_told_from_references),
		cmocka_unit_test(answers_have_the_protocols_form),
		cmocka_unit_test(unsound_messages_are_seen),
		cmocka_unit_test(records_go_around),
		cmocka_unit_test(odd_counts_are_refused),
		cmocka_unit_test(mounts_are_counted),
		cmocka_unit_test(a_repeated_mount_counts_once),
		cmocka_unit_test(many_unanswered_are_counted_all_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
