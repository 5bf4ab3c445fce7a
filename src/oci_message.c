/* SPDX-License-Identifier: MIT */
#include "oci_message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "config.h"
#include "jsontext.h"
#include "plugin_message_impl.h"
#include "util.h"

#define OCI_PREFIX "io.ckrfs."

enum { STATE_DEPTH_MAX = 8, CONFIG_DEPTH_MAX = 32, SHORT_ID = 12, LONG_ID = 64 };

/* ---- one annotation ---- */

/* Slashes single and none at the end; -EINVAL: it is not a path of a place in a container. */
static int copy_path(const char *path, size_t size, char ret[OCI_PATH_SIZE])
{
	size_t used = 0;

	if (size == 0 || path[0] != '/' || size >= OCI_PATH_SIZE)
		return -EINVAL;
	for (size_t i = 0; i < size;) {
		size_t start = i += path[i] == '/';

		while (i < size && path[i] != '/')
			i++;
		if (i == start)
			continue;
		if (path[start] == '.' && (i - start == 1 || (i - start == 2 && path[start + 1] == '.')))
			return -EINVAL;
		ret[used++] = '/';
		memcpy(ret + used, path + start, i - start);
		used += i - start;
	}
	ret[used] = '\0';
	return used ? 0 : -EINVAL;
}

static int take_option(const char *word, size_t n, struct oci_volume *v)
{
	static const char *const words[] = {"rw", "ro", "exec", "noexec"};
	size_t i = 0;

	while (i < ARRAY_SIZE(words) && (strlen(words[i]) != n || strncmp(words[i], word, n) != 0))
		i++;
	if (i == ARRAY_SIZE(words))
		return -EINVAL;
	if (i < 2)
		v->read_only = i == 1;
	else
		v->no_exec = i == 3;
	return 0;
}

int oci_volume_parse(const char *name, const char *value, struct oci_volume *ret, struct error *err)
{
	struct oci_volume v = {.read_only = false};
	size_t path = strcspn(value, ":,");

	if (!config_name_valid(name))
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "annotation " OCI_ANNOTATION "%s does not end with a volume's name", name);
	memcpy(v.name, name, strlen(name) + 1);
	if (!plugin_text_fine(value) || copy_path(value, path, v.path) < 0)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "annotation " OCI_ANNOTATION "%s is not an absolute path in the container, "
				 "or a path and options, as in /data:ro",
				 name);
	for (const char *word = value + path; *word;) {
		size_t n = strcspn(++word, ":,");

		if (take_option(word, n, &v) < 0)
			return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
					 "annotation " OCI_ANNOTATION
					 "%s has an option that is none of ro, rw, "
					 "exec and noexec",
					 name);
		word += n;
	}
	*ret = v;
	return 0;
}

int oci_mount_name(const char *volume, const char *id, char ret[OCI_NAME_SIZE], struct error *err)
{
	char name[OCI_NAME_SIZE];
	size_t n = strlen(id);

	if (n == LONG_ID && strspn(id, "0123456789abcdef") == n)
		n = SHORT_ID;
	if (snprintf(name, sizeof(name), "%s@%.*s", volume, (int)n, id) >= (int)sizeof(name) ||
	    !config_mount_name_valid(name))
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "\"%s@%.*s\" is not a name that a mount can have: 1 to 64 letters, digits, "
				 "\".\", \"_\" and \"-\", and the \"@\"",
				 volume, (int)n, id);
	memcpy(ret, name, sizeof(name));
	return 0;
}

/* ---- annotations ---- */

static int add_volume(struct oci_volumes *to, const struct oci_volume *v, struct error *err)
{
	for (uint32_t i = 0; i < to->n; i++)
		if (strcmp(to->list[i].path, v->path) == 0)
			return error_set(err, -EEXIST, EXIT_STATUS_CONFIG,
					 "volumes \"%s\" and \"%s\" have the same place in the container: %s",
					 to->list[i].name, v->name, v->path);
	if (to->n == OCI_VOLUMES_MAX)
		return error_set(err, -E2BIG, EXIT_STATUS_CONFIG, "more than %d volumes for one container",
				 OCI_VOLUMES_MAX);
	to->list[to->n++] = *v;
	return 0;
}

/* Parents before what is mounted below them. */
static int compare_paths(const void *a, const void *b)
{
	return strcmp(((const struct oci_volume *)a)->path, ((const struct oci_volume *)b)->path);
}

static int parse_annotation(const char *key, struct json_object *value, struct oci_volumes *to,
			    struct error *err)
{
	size_t prefix = strlen(OCI_ANNOTATION);
	struct oci_volume v;
	const char *text;
	int r;

	if (strncmp(key, OCI_PREFIX, strlen(OCI_PREFIX)) != 0)
		return 0;
	if (strncmp(key, OCI_ANNOTATION, prefix) != 0)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "unknown annotation %s (those of ckrfs are " OCI_ANNOTATION "NAME)", key);
	text = json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;
	/* A NUL in it would hide what follows. */
	if (!text || strlen(text) != (size_t)json_object_get_string_len(value))
		return error_set(err, -EBADMSG, EXIT_STATUS_CONFIG, "annotation %s is not a text", key);
	r = oci_volume_parse(key + prefix, text, &v, err);
	return r < 0 ? r : add_volume(to, &v, err);
}

static int parse_annotations(struct json_object *o, struct oci_volumes *to, struct error *err)
{
	if (!json_object_is_type(o, json_type_object))
		return error_set(err, -EBADMSG, EXIT_STATUS_FAILED, "annotations are not a JSON object");
	json_object_object_foreach(o, key, value)
	{
		int r = parse_annotation(key, value, to, err);

		if (r < 0)
			return r;
	}
	qsort(to->list, to->n, sizeof(to->list[0]), compare_paths);
	return 0;
}

/* ---- documents ---- */

static int bad(struct error *err, const char *what, const char *why)
{
	return error_set(err, -EBADMSG, EXIT_STATUS_FAILED, "%s %s", what, why);
}

static int parse_object(const char *buf, size_t size, size_t max, int depth, const char *what,
			struct json_object **ret, struct error *err)
{
	int r;

	if (size > max)
		return error_set(err, -E2BIG, EXIT_STATUS_FAILED, "%s is larger than %zu MiB", what,
				 max >> 20);
	r = jsontext_object(buf, size, depth, ret);
	if (r == -ENOMEM)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot read %s", what);
	return r < 0 ? bad(err, what, "is not a JSON object") : 0;
}

/* A text without NUL and control characters. -ENOENT: there is none; -EBADMSG. */
static int get_text(struct json_object *o, const char *key, char *ret, size_t size)
{
	struct json_object *value;
	const char *text;

	if (!json_object_object_get_ex(o, key, &value))
		return -ENOENT;
	if (!json_object_is_type(value, json_type_string))
		return -EBADMSG;
	text = json_object_get_string(value);
	if (strlen(text) != (size_t)json_object_get_string_len(value) || strlen(text) >= size ||
	    !plugin_text_fine(text))
		return -EBADMSG;
	memcpy(ret, text, strlen(text) + 1);
	return 0;
}

static bool id_fine(const char *id)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+-:";

	return id[0] && id[0] != '.' && strspn(id, allowed) == strlen(id);
}

static int parse_state(struct json_object *o, struct oci_state *s, struct error *err)
{
	static const char what[] = "the container's state";
	struct json_object *value;
	int64_t pid = 0;

	if (get_text(o, "id", s->id, sizeof(s->id)) < 0 || !id_fine(s->id))
		return bad(err, what,
			   "has no ID of 1 to 128 letters, digits, \".\", \"_\", \"+\", \"-\" and \":\"");
	if (get_text(o, "bundle", s->bundle, sizeof(s->bundle)) < 0 || s->bundle[0] != '/')
		return bad(err, what, "has no absolute path of a bundle");
	if (json_object_object_get_ex(o, "pid", &value)) {
		pid = json_object_is_type(value, json_type_int) ? json_object_get_int64(value) : -1;
		if (pid < 0 || pid > INT32_MAX)
			return bad(err, what, "has a pid that is none");
	}
	s->pid = (pid_t)pid;
	s->has_annotations = json_object_object_get_ex(o, "annotations", &value) && value;
	return s->has_annotations ? parse_annotations(value, &s->volumes, err) : 0;
}

int oci_state_parse(const char *buf, size_t size, struct oci_state *ret, struct error *err)
{
	autojson struct json_object *o = NULL;
	autofree struct oci_state *s = calloc(1, sizeof(*s));
	int r = s ? parse_object(buf, size, OCI_STATE_MAX, STATE_DEPTH_MAX, "the container's state", &o, err)
		  : error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot read the container's state");

	if (r == 0)
		r = parse_state(o, s, err);
	if (r == 0)
		*ret = *s;
	return r;
}

static int parse_config(struct json_object *o, struct oci_config *c, struct error *err)
{
	struct json_object *value;

	if (!json_object_object_get_ex(o, "root", &value) || !json_object_is_type(value, json_type_object) ||
	    get_text(value, "path", c->root, sizeof(c->root)) < 0 || !c->root[0])
		return bad(err, "the container's config.json", "has no path of a root");
	return json_object_object_get_ex(o, "annotations", &value) && value
		       ? parse_annotations(value, &c->volumes, err)
		       : 0;
}

int oci_config_parse(const char *buf, size_t size, struct oci_config *ret, struct error *err)
{
	autojson struct json_object *o = NULL;
	autofree struct oci_config *c = calloc(1, sizeof(*c));
	int r = c ? parse_object(buf, size, OCI_CONFIG_MAX, CONFIG_DEPTH_MAX, "the container's config.json",
				 &o, err)
		  : error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot read the container's config.json");

	if (r == 0)
		r = parse_config(o, c, err);
	if (r == 0)
		*ret = *c;
	return r;
}
