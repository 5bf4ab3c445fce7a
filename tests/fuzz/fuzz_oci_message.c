/* SPDX-License-Identifier: MIT */
/* The first byte says what the rest is: 'c' a config.json, 'a' the value of an annotation, else a state. What
 * parses must keep what oci_message.h says of it: no path leads up, no name or ID has a slash. */
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "oci_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_volume(const struct oci_volume *v)
{
	if (!config_name_valid(v->name) || v->path[0] != '/' || !v->path[1] || strstr(v->path, "//"))
		abort();
	for (const char *p = v->path; *p; p += 1 + strcspn(p + 1, "/")) {
		size_t n = strcspn(p + 1, "/");

		if (n == 0 || (n == 1 && p[1] == '.') || (n == 2 && p[1] == '.' && p[2] == '.'))
			abort();
	}
}

static void check_volumes(const struct oci_volumes *v)
{
	if (v->n > OCI_VOLUMES_MAX)
		abort();
	for (uint32_t i = 0; i < v->n; i++) {
		check_volume(&v->list[i]);
		for (uint32_t k = 0; k < i; k++)
			if (strcmp(v->list[i].path, v->list[k].path) == 0 ||
			    strcmp(v->list[i].name, v->list[k].name) == 0)
				abort();
	}
}

static void check_state(const char *text, size_t size)
{
	static struct oci_state s;
	struct error err = ERROR_NONE;
	char name[OCI_NAME_SIZE];

	if (oci_state_parse(text, size, &s, &err) < 0) {
		if (!*err.text)
			abort();
		return;
	}
	if (!s.id[0] || s.id[0] == '.' || strchr(s.id, '/') || s.bundle[0] != '/' || s.pid < 0)
		abort();
	check_volumes(&s.volumes);
	if (s.volumes.n && oci_mount_name(s.volumes.list[0].name, s.id, name, NULL) == 0 &&
	    !config_mount_name_valid(name))
		abort();
}

static void check_config(const char *text, size_t size)
{
	static struct oci_config c;
	struct error err = ERROR_NONE;

	if (oci_config_parse(text, size, &c, &err) < 0) {
		if (!*err.text)
			abort();
		return;
	}
	if (!c.root[0])
		abort();
	check_volumes(&c.volumes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data + 1;
	struct oci_volume v;
	char *value;

	if (size == 0)
		return 0;
	if (data[0] == 'a') {
		value = strndup(text, size - 1);
		if (value && oci_volume_parse("web", value, &v, NULL) == 0)
			check_volume(&v);
		free(value);
	} else if (data[0] == 'c') {
		check_config(text, size - 1);
	} else {
		check_state(text, size - 1);
	}
	return 0;
}
