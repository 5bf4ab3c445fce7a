/* SPDX-License-Identifier: MIT */
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "config.h"
#include "oci_message.h"
#include "util.h"

#define ID64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void annotations_are_read(void **state)
{
	static const struct {
		const char *value, *path; /* NULL: refused */
		bool read_only, no_exec;
	} vectors[] = {
		{"/data", "/data", false, false},
		{"/data:ro", "/data", true, false},
		{"/data,ro", "/data", true, false},
		{"/data:ro,noexec", "/data", true, true},
		{"/data:ro:noexec", "/data", true, true},
		{"/data:ro:rw", "/data", false, false},
		{"/data:noexec,exec", "/data", false, false},
		{"//a///b/", "/a/b", false, false},
		{"/a b/\xc3\xa9", "/a b/\xc3\xa9", false, false},
		{"/...", "/...", false, false},
		{"/.a/..b", "/.a/..b", false, false},
		{"", NULL, false, false},
		{"/", NULL, false, false},
		{"//", NULL, false, false},
		{":ro", NULL, false, false},
		{"data", NULL, false, false},
		{"/a/../b", NULL, false, false},
		{"/a/..", NULL, false, false},
		{"/a/./b", NULL, false, false},
		{"/data:", NULL, false, false},
		{"/data:r", NULL, false, false},
		{"/data:roo", NULL, false, false},
		{"/data:ro,", NULL, false, false},
		{"/data:suid", NULL, false, false},
		{"/a\nb", NULL, false, false},
		{"/a\xff", NULL, false, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
		struct oci_volume v;
		struct error err = ERROR_NONE;
		int r = oci_volume_parse("web", vectors[i].value, &v, &err);

		assert_int_equal(r, vectors[i].path ? 0 : -EINVAL);
		assert_int_equal(err.status, vectors[i].path ? 0 : EXIT_STATUS_CONFIG);
		if (r < 0)
			continue;
		assert_string_equal(v.name, "web");
		assert_string_equal(v.path, vectors[i].path);
		assert_int_equal(v.read_only, vectors[i].read_only);
		assert_int_equal(v.no_exec, vectors[i].no_exec);
	}
}

static void long_paths(void **state)
{
	char path[OCI_PATH_SIZE + 1];
	struct oci_volume v;

	memset(path, 'a', sizeof(path));
	path[0] = '/';
	path[OCI_PATH_SIZE - 1] = '\0';
	assert_int_equal(oci_volume_parse("web", path, &v, NULL), 0);
	assert_int_equal(strlen(v.path), OCI_PATH_SIZE - 1);
	path[OCI_PATH_SIZE - 1] = 'a';
	path[OCI_PATH_SIZE] = '\0';
	assert_int_equal(oci_volume_parse("web", path, &v, NULL), -EINVAL);
}

static void names_of_mounts(void **state)
{
	static const struct {
		const char *volume, *id, *name; /* NULL: refused */
	} vectors[] = {
		{"web", "c1", "web@c1"},
		{"web", ID64, "web@0123456789ab"},
		{"web", "0123456789abcdef", "web@0123456789abcdef"},
		{"a-very-long-name-of-a-volume-that-fits-with-id-short", ID64, NULL},
		{"a-long-name-of-a-volume-that-fits-with-an-id-short", ID64,
		 "a-long-name-of-a-volume-that-fits-with-an-id-short@0123456789ab"},
		{"web", "a+b", NULL},
		{"web", "a:b", NULL},
		{"web", "", NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
		char name[OCI_NAME_SIZE];
		int r = oci_mount_name(vectors[i].volume, vectors[i].id, name, NULL);

		assert_int_equal(r, vectors[i].name ? 0 : -EINVAL);
		if (r == 0)
			assert_string_equal(name, vectors[i].name);
	}
}

static void names_that_mounts_can_have(void **state)
{
	static const char *const right[] = {"web", "web@c1", "a.b_c-d@-x", "w@."};
	static const char *const wrong[] = {"",     "@",    "web@", "@c1",   "a@b@c",
					    ".a@b", "-a@b", "a b",  "a/b@c", "a@b/c"};
	char name[80];

	for (size_t i = 0; i < ARRAY_SIZE(right); i++)
		assert_true(config_mount_name_valid(right[i]));
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_false(config_mount_name_valid(wrong[i]));
	memset(name, 'a', sizeof(name));
	name[3] = '@';
	name[64] = '\0';
	assert_true(config_mount_name_valid(name));
	name[64] = 'a';
	name[65] = '\0';
	assert_false(config_mount_name_valid(name));
}

static struct oci_state *parse_state(const char *text, int expected)
{
	struct oci_state *s = calloc(1, sizeof(*s));
	struct error err = ERROR_NONE;
	int r;

	assert_non_null(s);
	r = oci_state_parse(text, strlen(text), s, &err);
	assert_int_equal(r, expected);
	assert_int_equal(err.text[0] != '\0', expected < 0);
	return s;
}

/* As crun 1.8, runc 1.1 and podman 4.3 send them. */
static void states_are_read(void **state)
{
	autofree struct oci_state *crun =
		parse_state("{\"ociVersion\":\"1.0\",\"id\":\"x1\",\"pid\":18059,\"root\":\"/b/"
			    "rootfs\",\"bundle\":\"/b\","
			    "\"status\":\"created\",\"annotations\":{\"io.ckrfs.volume.web\":\"/data,ro\"}}",
			    0);
	autofree struct oci_state *runc = parse_state(
		"{\"ociVersion\":\"1.0.2-dev\",\"id\":\"x1\",\"status\":\"stopped\",\"bundle\":\"/b\","
		"\"annotations\":{\"org.example\":\"x\"}}",
		0);
	autofree struct oci_state *bare =
		parse_state(" {\"id\":\"a\",\"bundle\":\"/b\",\"annotations\":null}\n ", 0);

	assert_string_equal(crun->id, "x1");
	assert_string_equal(crun->bundle, "/b");
	assert_int_equal(crun->pid, 18059);
	assert_true(crun->has_annotations);
	assert_int_equal(crun->volumes.n, 1);
	assert_string_equal(crun->volumes.list[0].name, "web");
	assert_true(crun->volumes.list[0].read_only);
	assert_int_equal(runc->pid, 0);
	assert_int_equal(runc->volumes.n, 0);
	assert_true(runc->has_annotations);
	assert_false(bare->has_annotations);
}

static void parents_come_first(void **state)
{
	autofree struct oci_state *s = parse_state(
		"{\"id\":\"a\",\"bundle\":\"/b\",\"annotations\":{\"io.ckrfs.volume.b\":\"/d/e/f\","
		"\"io.ckrfs.volume.c\":\"/d\",\"io.ckrfs.volume.a\":\"/d/e\"}}",
		0);

	assert_int_equal(s->volumes.n, 3);
	assert_string_equal(s->volumes.list[0].name, "c");
	assert_string_equal(s->volumes.list[1].name, "a");
	assert_string_equal(s->volumes.list[2].name, "b");
}

static void hostile_states_are_refused(void **state)
{
	static const struct {
		const char *text;
		int code;
	} vectors[] = {
		{"", -EBADMSG},
		{"{", -EBADMSG},
		{"[]", -EBADMSG},
		{"1", -EBADMSG},
		{"null", -EBADMSG},
		{"{} x", -EBADMSG},
		{"{}", -EBADMSG},
		{"{\"id\":\"a\"}", -EBADMSG},
		{"{\"id\":\"\",\"bundle\":\"/b\"}", -EBADMSG},
		{"{\"id\":\".a\",\"bundle\":\"/b\"}", -EBADMSG},
		{"{\"id\":\"a/b\",\"bundle\":\"/b\"}", -EBADMSG},
		{"{\"id\":\"a\\u0000b\",\"bundle\":\"/b\"}", -EBADMSG},
		{"{\"id\":7,\"bundle\":\"/b\"}", -EBADMSG},
		{"{\"id\":\"a\",\"bundle\":\"b\"}", -EBADMSG},
		{"{\"id\":\"a\",\"bundle\":\"/b\\u0000c\"}", -EBADMSG},
		{"{\"id\":\"a\",\"bundle\":\"/b\",\"pid\":-1}", -EBADMSG},
		{"{\"id\":\"a\",\"bundle\":\"/b\",\"pid\":4294967297}", -EBADMSG},
		{"{\"id\":\"a\",\"bundle\":\"/b\",\"pid\":\"1\"}", -EBADMSG},
		{"{\"id\":\"a\",\"bundle\":\"/b\",\"annotations\":[]}", -EBADMSG},
		{"{\"id\":\"a\",\"bundle\":\"/b\",\"annotations\":{\"io.ckrfs.volume.web\":1}}", -EBADMSG},
		{"{\"id\":\"a\",\"bundle\":\"/b\",\"annotations\":{\"io.ckrfs.volume.web\":\"/"
		 "a\\u0000:ro\"}}",
		 -EBADMSG},
		{"{\"id\":\"a\",\"bundle\":\"/b\",\"annotations\":{\"io.ckrfs.volume.\":\"/a\"}}", -EINVAL},
		{"{\"id\":\"a\",\"bundle\":\"/b\",\"annotations\":{\"io.ckrfs.volume.a@b\":\"/a\"}}",
		 -EINVAL},
		{"{\"id\":\"a\",\"bundle\":\"/b\",\"annotations\":{\"io.ckrfs.x\":\"/a\"}}", -EINVAL},
		{"{\"id\":\"a\",\"bundle\":\"/b\",\"annotations\":{\"io.ckrfs.volume.a\":\"/a\","
		 "\"io.ckrfs.volume.b\":\"/a/\"}}",
		 -EEXIST},
		{"{\"id\":\"a\",\"bundle\":\"/b\",\"x\":[[[[[[[[[[]]]]]]]]]]}", -EBADMSG},
	};

	for (size_t i = 0; i < ARRAY_SIZE(vectors); i++)
		free(parse_state(vectors[i].text, vectors[i].code));
}

static void sizes_are_limited(void **state)
{
	autofree char *text = malloc(OCI_CONFIG_MAX + 1);
	autofree struct oci_config *c = calloc(1, sizeof(*c));
	autofree struct oci_state *s = calloc(1, sizeof(*s));
	static const char config[] = "{\"root\":{\"path\":\"r\"}}",
			  some[] = "{\"id\":\"a\",\"bundle\":\"/b\"}";

	assert_non_null(text);
	assert_non_null(c);
	assert_non_null(s);
	memset(text, ' ', OCI_CONFIG_MAX + 1);
	memcpy(text, config, strlen(config));
	assert_int_equal(oci_config_parse(text, OCI_CONFIG_MAX, c, NULL), 0);
	assert_int_equal(oci_config_parse(text, OCI_CONFIG_MAX + 1, c, NULL), -E2BIG);
	memset(text, ' ', OCI_CONFIG_MAX + 1);
	memcpy(text, some, strlen(some));
	assert_int_equal(oci_state_parse(text, OCI_STATE_MAX, s, NULL), 0);
	assert_int_equal(oci_state_parse(text, OCI_STATE_MAX + 1, s, NULL), -E2BIG);
}

static void configs_are_read(void **state)
{
	static const char right[] =
		"{\"root\":{\"path\":\"rootfs\",\"readonly\":true},\"mounts\":[{\"a\":[1]}],"
		"\"annotations\":{\"io.ckrfs.volume.web\":\"/d\"}}";
	static const char *const wrong[] = {"{}", "{\"root\":\"r\"}", "{\"root\":{}}",
					    "{\"root\":{\"path\":\"\"}}",
					    "{\"root\":{\"path\":\"a\\u0000b\"}}"};
	autofree struct oci_config *c = calloc(1, sizeof(*c));

	assert_non_null(c);
	assert_int_equal(oci_config_parse(right, strlen(right), c, NULL), 0);
	assert_string_equal(c->root, "rootfs");
	assert_int_equal(c->volumes.n, 1);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(oci_config_parse(wrong[i], strlen(wrong[i]), c, NULL), -EBADMSG);
	/* Untouched by failures. */
	assert_string_equal(c->root, "rootfs");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(annotations_are_read),
		cmocka_unit_test(long_paths),
		cmocka_unit_test(names_of_mounts),
		cmocka_unit_test(names_that_mounts_can_have),
		cmocka_unit_test(states_are_read),
		cmocka_unit_test(parents_come_first),
		cmocka_unit_test(hostile_states_are_refused),
		cmocka_unit_test(sizes_are_limited),
		cmocka_unit_test(configs_are_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
