/* SPDX-License-Identifier: MIT */
#include "plugin_message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "config.h"
#include "jsontext.h"
#include "plugin_message_impl.h"
#include "util.h"

enum { DEPTH_MAX = 4 };

static const char *const paths[] = {
	[PLUGIN_ACTIVATE] = "/Plugin.Activate",   [PLUGIN_CAPABILITIES] = "/VolumeDriver.Capabilities",
	[PLUGIN_CREATE] = "/VolumeDriver.Create", [PLUGIN_REMOVE] = "/VolumeDriver.Remove",
	[PLUGIN_MOUNT] = "/VolumeDriver.Mount",   [PLUGIN_UNMOUNT] = "/VolumeDriver.Unmount",
	[PLUGIN_PATH] = "/VolumeDriver.Path",     [PLUGIN_GET] = "/VolumeDriver.Get",
	[PLUGIN_LIST] = "/VolumeDriver.List",
};

int plugin_message_command(const char *path, enum plugin_command *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		if (strcmp(path, paths[i]) == 0) {
			*ret = (enum plugin_command)i;
			return 0;
		}
	return -ENOENT;
}

static bool has_name(enum plugin_command command)
{
	return command != PLUGIN_ACTIVATE && command != PLUGIN_CAPABILITIES && command != PLUGIN_LIST;
}

/* ---- parsing ---- */

static int bad(struct error *err, const char *what)
{
	return error_set(err, -EBADMSG, EXIT_STATUS_FAILED, "the request %s", what);
}

static int parse_object(const char *buf, size_t size, struct json_object **ret, struct error *err)
{
	int r = size <= PLUGIN_BODY_MAX ? jsontext_object(buf, size, DEPTH_MAX, ret) : -EBADMSG;

	if (r == -ENOMEM)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot read the request");
	return r < 0 ? bad(err, "is not a JSON object") : 0;
}

/* Without control characters, and without a NUL in it. -EBADMSG: no such string; -E2BIG. */
static int get_text(struct json_object *o, char *ret, size_t size)
{
	const char *text = json_object_get_string(o);

	if (!json_object_is_type(o, json_type_string) ||
	    strlen(text) != (size_t)json_object_get_string_len(o))
		return -EBADMSG;
	if (strlen(text) >= size)
		return -E2BIG;
	if (!plugin_text_fine(text))
		return -EBADMSG;
	memcpy(ret, text, strlen(text) + 1);
	return 0;
}

static int parse_name(struct json_object *o, struct plugin_request *ret, struct error *err)
{
	char name[PLUGIN_NAME_SIZE];
	struct json_object *value;

	if (!json_object_object_get_ex(o, "Name", &value))
		return bad(err, "has no name of a volume");
	if (get_text(value, name, sizeof(name)) < 0 || !config_name_valid(name))
		return bad(err, "has no name that a volume can have: 1 to 64 letters, digits, \".\", \"_\" "
				"and \"-\", "
				"the first not \".\" or \"-\"");
	memcpy(ret->volume.name, name, sizeof(name));
	return 0;
}

static int parse_id(struct json_object *o, struct plugin_request *ret, struct error *err)
{
	struct json_object *value;

	if (!json_object_object_get_ex(o, "ID", &value) || !value)
		return 0;
	if (get_text(value, ret->id, sizeof(ret->id)) < 0 || !plugin_id_valid(ret->id))
		return bad(err, "has an ID that is not up to 128 letters, digits and punctuation");
	return 0;
}

/* Says what an option can be without repeating what came. */
static int option_unknown(const char *name, struct error *err)
{
	static const char *const usual[] = {"volume", "source", "format", "lower", "lower-key", "key", NULL};
	const char *near = nearest_word(name, usual);

	error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
		  "an option has a name that is none of ckrfs.conf(5)%s%s%s", near ? " (did you mean \"" : "",
		  near ? near : "", near ? "\"?)" : "");
	return -EINVAL;
}

static int parse_option(const char *name, struct json_object *value, struct plugin_volume *v,
			struct error *err)
{
	struct plugin_option *o = &v->options[v->n_options];
	int r;

	if (!plugin_option_known(name))
		return option_unknown(name, err);
	if (v->n_options == PLUGIN_OPTIONS_MAX)
		return error_set(err, -E2BIG, EXIT_STATUS_CONFIG, "there are more than %d options",
				 PLUGIN_OPTIONS_MAX);
	r = get_text(value, o->value, sizeof(o->value));
	if (r == -E2BIG)
		return error_set(err, r, EXIT_STATUS_CONFIG, "the value of %s is longer than %d bytes", name,
				 PLUGIN_VALUE_SIZE - 1);
	if (r < 0)
		return error_set(err, r, EXIT_STATUS_CONFIG, "the value of %s is not a line of text", name);
	if (plugin_looks_like_key(name, o->value)) {
		error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
			  "what %s holds looks like a key: options say where a key is, and the engine "
			  "keeps them readable",
			  name);
		error_hint(err, "-o key=file:/PATH/OF/THE/KEY");
		return -EINVAL;
	}
	memcpy(o->name, name, strlen(name) + 1); /* known names fit */
	v->n_options++;
	return 0;
}

static int compare_options(const void *a, const void *b)
{
	return strcmp(((const struct plugin_option *)a)->name, ((const struct plugin_option *)b)->name);
}

static int parse_options(struct json_object *o, struct plugin_volume *v, struct error *err)
{
	struct json_object_iterator it, end;
	struct json_object *options;
	int r = 0;

	if (!json_object_object_get_ex(o, "Opts", &options) || !options)
		return 0;
	if (!json_object_is_type(options, json_type_object))
		return bad(err, "has options that are no JSON object");
	it = json_object_iter_begin(options);
	end = json_object_iter_end(options);
	for (; r == 0 && !json_object_iter_equal(&it, &end); json_object_iter_next(&it))
		r = parse_option(json_object_iter_peek_name(&it), json_object_iter_peek_value(&it), v, err);
	qsort(v->options, v->n_options, sizeof(*v->options), compare_options);
	return r;
}

int plugin_message_parse(enum plugin_command command, const char *buf, size_t size,
			 struct plugin_request *ret, struct error *err)
{
	autojson struct json_object *o = NULL;
	struct plugin_request request = {.command = command};
	int r = 0;

	if (size > PLUGIN_BODY_MAX)
		return error_set(err, -EMSGSIZE, EXIT_STATUS_FAILED, "the request is longer than %d bytes",
				 PLUGIN_BODY_MAX);
	/* Engines differ in what they send where nothing is to be said. */
	if (!has_name(command)) {
		*ret = request;
		return 0;
	}
	r = parse_object(buf, size, &o, err);
	if (r == 0)
		r = parse_name(o, &request, err);
	if (r == 0 && (command == PLUGIN_MOUNT || command == PLUGIN_UNMOUNT))
		r = parse_id(o, &request, err);
	if (r == 0 && command == PLUGIN_CREATE)
		r = parse_options(o, &request.volume, err);
	if (r < 0)
		return r;
	*ret = request;
	return 0;
}

/* ---- formatting ---- */

/* The object as text; takes it. */
static int to_text(struct json_object *o, char **ret_text)
{
	const char *json =
		o ? json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)
		  : NULL;
	int r = json && asprintf(ret_text, "%s\n", json) >= 0 ? 0 : -ENOMEM;

	json_object_put(o);
	return r;
}

static void add_text(struct json_object *o, const char *name, const char *value)
{
	json_object_object_add(o, name, json_object_new_string(value));
}

static void add_time(struct json_object *o, const char *name, int64_t seconds)
{
	time_t when = (time_t)seconds;
	char text[32];
	struct tm tm;

	if (seconds > 0 && gmtime_r(&when, &tm) && strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm))
		add_text(o, name, text);
}

static struct json_object *status_to_json(const struct plugin_status *s)
{
	struct json_object *o = json_object_new_object();

	if (!o)
		return NULL;
	add_text(o, "state", s->state);
	if (*s->format)
		add_text(o, "format", s->format);
	if (*s->lower)
		add_text(o, "lower", s->lower);
	add_time(o, "expires", s->expires);
	if (*s->last_error)
		add_text(o, "last-error", s->last_error);
	json_object_object_add(o, "mounts", json_object_new_int64(s->mounts));
	return o;
}

static void add_volume(struct json_object *o, const char *name, const struct plugin_answer *a)
{
	struct json_object *v = json_object_new_object();

	if (!v)
		return;
	add_text(v, "Name", name);
	add_text(v, "Mountpoint", a->mountpoint);
	add_time(v, "CreatedAt", a->created);
	json_object_object_add(v, "Status", status_to_json(&a->status));
	json_object_object_add(o, "Volume", v);
}

static void add_list(struct json_object *o, const char *directory, const struct plugin_entry *entries,
		     size_t n)
{
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; list && i < n; i++) {
		struct json_object *v = json_object_new_object();
		char path[sizeof(((struct plugin_answer *)0)->mountpoint) + PLUGIN_NAME_SIZE];

		if (!v)
			continue;
		snprintf(path, sizeof(path), "%s/%s", directory, entries[i].name);
		add_text(v, "Name", entries[i].name);
		add_text(v, "Mountpoint", entries[i].mounted ? path : "");
		json_object_array_add(list, v);
	}
	json_object_object_add(o, "Volumes", list);
}

static void add_activation(struct json_object *o)
{
	struct json_object *list = json_object_new_array();

	if (list)
		json_object_array_add(list, json_object_new_string("VolumeDriver"));
	json_object_object_add(o, "Implements", list);
}

static void add_capabilities(struct json_object *o)
{
	struct json_object *c = json_object_new_object();

	if (c)
		add_text(c, "Scope", "local");
	json_object_object_add(o, "Capabilities", c);
}

int plugin_message_format(const struct plugin_request *request, const struct plugin_answer *answer,
			  const struct plugin_entry *entries, size_t n_entries, char **ret_text)
{
	struct json_object *o = json_object_new_object();

	if (!o)
		return -ENOMEM;
	switch (request->command) {
	case PLUGIN_ACTIVATE:
		add_activation(o);
		return to_text(o, ret_text);
	case PLUGIN_CAPABILITIES:
		add_capabilities(o);
		return to_text(o, ret_text);
	case PLUGIN_MOUNT:
	case PLUGIN_PATH:
		add_text(o, "Mountpoint", answer->mountpoint);
		break;
	case PLUGIN_GET:
		add_volume(o, request->volume.name, answer);
		break;
	case PLUGIN_LIST:
		add_list(o, answer->mountpoint, entries, n_entries);
		break;
	default:
		break;
	}
	add_text(o, "Err", "");
	return to_text(o, ret_text);
}

int plugin_message_format_error(const struct error *err, char **ret_text)
{
	struct json_object *o = json_object_new_object();
	char text[sizeof(err->text) + sizeof(err->hint) + 32];

	if (!o)
		return -ENOMEM;
	snprintf(text, sizeof(text), "ckrfs: %s%s%s", err->text, *err->hint ? "\n  try: " : "", err->hint);
	add_text(o, "Err", text);
	return to_text(o, ret_text);
}
