/* SPDX-License-Identifier: MIT */
#include "message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "jsontext.h"
#include "util.h"

enum { DEPTH_MAX = 8 };

/* ---- members of struct message_status, once for both directions ---- */

enum member_type { MEMBER_TEXT, MEMBER_WORDS, MEMBER_INT, MEMBER_COUNT, MEMBER_COUNTS, MEMBER_BOOL };

struct member {
	const char *name;
	enum member_type type;
	size_t offset, size;
	bool later; /* added later: keepers that run since before do not send it */
};

#define MEMBER_ROW(name, type, later)                                                                        \
	{                                                                                                    \
#name, type, offsetof(struct message_status, name),                                          \
			sizeof(((struct message_status *)0)->name), later                                    \
	}
#define MEMBER(name, type) MEMBER_ROW(name, type, false)
#define MEMBER_LATER(name, type) MEMBER_ROW(name, type, true)

static const struct member members[] = {
	MEMBER(name, MEMBER_TEXT),
	MEMBER(state, MEMBER_TEXT),
	MEMBER(source, MEMBER_TEXT),
	MEMBER(target, MEMBER_TEXT),
	MEMBER(lower, MEMBER_TEXT),
	MEMBER(format, MEMBER_TEXT),
	MEMBER(read_only, MEMBER_BOOL),
	MEMBER(shared, MEMBER_BOOL),
	MEMBER(owner, MEMBER_INT),
	MEMBER(key_identifier, MEMBER_TEXT),
	MEMBER(key_source, MEMBER_TEXT),
	MEMBER(keyring, MEMBER_INT),
	MEMBER(since, MEMBER_INT),
	MEMBER(requests, MEMBER_COUNT),
	MEMBER(read_bytes, MEMBER_COUNT),
	MEMBER(written_bytes, MEMBER_COUNT),
	MEMBER(errors, MEMBER_COUNT),
	MEMBER(damages, MEMBER_COUNT),
	MEMBER(keeper_pid, MEMBER_INT),
	MEMBER(server_pid, MEMBER_INT),
	MEMBER(secret_memory, MEMBER_TEXT),
	MEMBER(protections, MEMBER_WORDS),
	MEMBER(passthrough, MEMBER_TEXT),
	MEMBER(expires, MEMBER_INT),
	MEMBER(next_refresh, MEMBER_INT),
	MEMBER(key_watch, MEMBER_TEXT),
	MEMBER(last_error, MEMBER_TEXT),
	MEMBER_LATER(ephemeral, MEMBER_BOOL),
	MEMBER_LATER(missing, MEMBER_WORDS),
	MEMBER_LATER(latency, MEMBER_COUNTS),
	MEMBER_LATER(latency_ns, MEMBER_COUNT),
	MEMBER_LATER(refreshes, MEMBER_COUNT),
	MEMBER_LATER(refresh_failures, MEMBER_COUNT),
};

static struct json_object *words_to_json(const char *text)
{
	struct json_object *list = json_object_new_array();

	while (list && *text) {
		size_t n = strcspn(text, " ");

		json_object_array_add(list, json_object_new_string_len(text, (int)n));
		text += n + (text[n] == ' ');
	}
	return list;
}

static struct json_object *counts_to_json(const uint64_t *counts, size_t n)
{
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; list && i < n; i++)
		json_object_array_add(list, json_object_new_uint64(counts[i]));
	return list;
}

static struct json_object *member_to_json(const struct member *m, const struct message_status *s)
{
	const void *at = (const char *)s + m->offset;

	switch (m->type) {
	case MEMBER_TEXT:
		return json_object_new_string(at);
	case MEMBER_WORDS:
		return words_to_json(at);
	case MEMBER_INT:
		return json_object_new_int64(*(const int64_t *)at);
	case MEMBER_COUNT:
		return json_object_new_uint64(*(const uint64_t *)at);
	case MEMBER_COUNTS:
		return counts_to_json(at, m->size / sizeof(uint64_t));
	default:
		return json_object_new_boolean(*(const bool *)at);
	}
}

static struct json_object *status_to_json(const struct message_status *s)
{
	struct json_object *o = json_object_new_object();

	for (size_t i = 0; o && i < ARRAY_SIZE(members); i++)
		json_object_object_add(o, members[i].name, member_to_json(&members[i], s));
	return o;
}

static int words_from_json(struct json_object *list, char *text, size_t size)
{
	size_t used = 0;

	if (!json_object_is_type(list, json_type_array))
		return -EBADMSG;
	text[0] = '\0';
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *word = json_object_array_get_idx(list, i);
		size_t n;

		if (!json_object_is_type(word, json_type_string))
			return -EBADMSG;
		n = strlen(json_object_get_string(word));
		if (used + n + 2 > size)
			return -EBADMSG;
		used += (size_t)snprintf(text + used, size - used, "%s%s", i ? " " : "",
					 json_object_get_string(word));
	}
	return 0;
}

static int counts_from_json(struct json_object *list, uint64_t *counts, size_t n)
{
	if (!json_object_is_type(list, json_type_array) || json_object_array_length(list) != n)
		return -EBADMSG;
	for (size_t i = 0; i < n; i++) {
		struct json_object *count = json_object_array_get_idx(list, i);

		if (!json_object_is_type(count, json_type_int))
			return -EBADMSG;
		counts[i] = json_object_get_uint64(count);
	}
	return 0;
}

static int member_from_json(const struct member *m, struct json_object *value, struct message_status *s)
{
	void *at = (char *)s + m->offset;

	switch (m->type) {
	case MEMBER_TEXT:
		if (!json_object_is_type(value, json_type_string) ||
		    strlen(json_object_get_string(value)) >= m->size)
			return -EBADMSG;
		strcpy(at, json_object_get_string(value));
		return 0;
	case MEMBER_WORDS:
		return words_from_json(value, at, m->size);
	case MEMBER_COUNTS:
		return counts_from_json(value, at, m->size / sizeof(uint64_t));
	case MEMBER_INT:
	case MEMBER_COUNT:
		if (!json_object_is_type(value, json_type_int))
			return -EBADMSG;
		if (m->type == MEMBER_INT)
			*(int64_t *)at = json_object_get_int64(value);
		else
			*(uint64_t *)at = json_object_get_uint64(value);
		return 0;
	default:
		if (!json_object_is_type(value, json_type_boolean))
			return -EBADMSG;
		*(bool *)at = json_object_get_boolean(value);
		return 0;
	}
}

static int status_from_json(struct json_object *o, struct message_status *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		struct json_object *value;
		int r = members[i].later ? 0 : -EBADMSG;

		if (json_object_object_get_ex(o, members[i].name, &value))
			r = member_from_json(&members[i], value, ret);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- parsing ---- */

static int parse_object(const char *buf, size_t size, struct json_object **ret, struct error *err)
{
	int r = size <= MESSAGE_MAX ? jsontext_object(buf, size, DEPTH_MAX, ret) : -EBADMSG;

	if (r == -ENOMEM)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot read a message");
	return r < 0 ? error_set(err, r, EXIT_STATUS_FAILED, "the message is not a JSON object") : 0;
}

static int check_version(struct json_object *o, struct error *err)
{
	struct json_object *version;

	if (!json_object_object_get_ex(o, "version", &version) ||
	    !json_object_is_type(version, json_type_int))
		return error_set(err, -EBADMSG, EXIT_STATUS_FAILED, "the message has no version");
	if (json_object_get_int64(version) != MESSAGE_VERSION)
		return error_set(err, -EPROTO, EXIT_STATUS_FAILED,
				 "message version %lld is not known here; %d is",
				 (long long)json_object_get_int64(version), MESSAGE_VERSION);
	return 0;
}

static const char *const commands[] = {
	[MESSAGE_STATUS] = "status", [MESSAGE_UMOUNT] = "umount", [MESSAGE_LOCK] = "lock",
	[MESSAGE_UNLOCK] = "unlock", [MESSAGE_CHECK] = "check",   [MESSAGE_REFRESH] = "refresh",
};

static int parse_command(struct json_object *o, enum message_command *ret, struct error *err)
{
	struct json_object *command;

	if (!json_object_object_get_ex(o, "command", &command) ||
	    !json_object_is_type(command, json_type_string))
		return error_set(err, -EBADMSG, EXIT_STATUS_FAILED, "the message has no command");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (strcmp(json_object_get_string(command), commands[i]) == 0) {
			*ret = (enum message_command)i;
			return 0;
		}
	return error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED, "there is no command \"%.64s\"",
			 json_object_get_string(command));
}

static int parse_options(struct json_object *o, struct message_request *ret, struct error *err)
{
	struct json_object *lazy, *timeout, *key;

	if (json_object_object_get_ex(o, "lazy", &lazy)) {
		if (!json_object_is_type(lazy, json_type_boolean))
			return error_set(err, -EBADMSG, EXIT_STATUS_FAILED,
					 "the member \"lazy\" is not a boolean");
		ret->lazy = json_object_get_boolean(lazy);
	}
	if (json_object_object_get_ex(o, "timeout_ms", &timeout)) {
		int64_t ms = json_object_get_int64(timeout);

		if (!json_object_is_type(timeout, json_type_int) || ms < 0 || ms > INT32_MAX)
			return error_set(err, -EBADMSG, EXIT_STATUS_FAILED,
					 "the member \"timeout_ms\" is not a number of milliseconds");
		ret->timeout_ms = (uint64_t)ms;
	}
	if (json_object_object_get_ex(o, "key", &key)) {
		if (!json_object_is_type(key, json_type_string) ||
		    strlen(json_object_get_string(key)) >= sizeof(ret->key))
			return error_set(err, -EBADMSG, EXIT_STATUS_FAILED,
					 "the member \"key\" is not a key source");
		strcpy(ret->key, json_object_get_string(key));
	}
	return 0;
}

int message_request_parse(const char *buf, size_t size, struct message_request *ret, struct error *err)
{
	autojson struct json_object *o = NULL;
	struct message_request request = {0};
	int r = parse_object(buf, size, &o, err);

	if (r == 0)
		r = check_version(o, err);
	if (r == 0)
		r = parse_command(o, &request.command, err);
	if (r == 0)
		r = parse_options(o, &request, err);
	if (r < 0)
		return r;
	*ret = request;
	return 0;
}

/* The error that the other side reports. */
static int error_from_json(struct json_object *o, struct error *err)
{
	struct json_object *code, *status, *text, *hint;
	int r;

	if (!json_object_object_get_ex(o, "code", &code) ||
	    !json_object_object_get_ex(o, "status", &status) ||
	    !json_object_object_get_ex(o, "text", &text) || !json_object_is_type(text, json_type_string))
		return error_set(err, -EBADMSG, EXIT_STATUS_FAILED, "the answer has no error members");
	r = json_object_get_int(code);
	r = error_set(err, r < 0 ? r : -EIO, (enum exit_status)json_object_get_int(status), "%s",
		      json_object_get_string(text));
	if (json_object_object_get_ex(o, "hint", &hint) && *json_object_get_string(hint))
		error_hint(err, "%s", json_object_get_string(hint));
	return r;
}

int message_response_parse(const char *buf, size_t size, struct message_status *ret_status, struct error *err)
{
	autojson struct json_object *o = NULL;
	struct message_status status = {0};
	struct json_object *ok, *part;
	int r = parse_object(buf, size, &o, err);

	if (r == 0)
		r = check_version(o, err);
	if (r < 0)
		return r;
	if (!json_object_object_get_ex(o, "ok", &ok) || !json_object_is_type(ok, json_type_boolean))
		return error_set(err, -EBADMSG, EXIT_STATUS_FAILED, "the answer has no \"ok\"");
	if (!json_object_get_boolean(ok)) {
		if (json_object_object_get_ex(o, "error", &part) &&
		    json_object_is_type(part, json_type_object))
			return error_from_json(part, err);
		return error_set(err, -EBADMSG, EXIT_STATUS_FAILED, "the answer has no error members");
	}
	if (!ret_status)
		return 0;
	if (!json_object_object_get_ex(o, "status", &part) || !json_object_is_type(part, json_type_object) ||
	    status_from_json(part, &status) < 0)
		return error_set(err, -EBADMSG, EXIT_STATUS_FAILED,
				 "the answer has no status that is understood");
	*ret_status = status;
	return 0;
}

/* ---- formatting ---- */

/* The object as text; takes it. */
static int to_text(struct json_object *o, int flags, char **ret_text)
{
	const char *json =
		o ? json_object_to_json_string_ext(o, flags | JSON_C_TO_STRING_NOSLASHESCAPE) : NULL;
	int r = json && asprintf(ret_text, "%s\n", json) >= 0 ? 0 : -ENOMEM;

	json_object_put(o);
	return r;
}

static struct json_object *new_message(void)
{
	struct json_object *o = json_object_new_object();

	if (o)
		json_object_object_add(o, "version", json_object_new_int(MESSAGE_VERSION));
	return o;
}

static struct json_object *new_response(bool ok)
{
	struct json_object *o = new_message();

	if (o)
		json_object_object_add(o, "ok", json_object_new_boolean(ok));
	return o;
}

int message_request_format(const struct message_request *request, char **ret_text)
{
	struct json_object *o = new_message();

	if (o) {
		json_object_object_add(o, "command", json_object_new_string(commands[request->command]));
		if (request->command == MESSAGE_UMOUNT)
			json_object_object_add(o, "lazy", json_object_new_boolean(request->lazy));
		if (request->timeout_ms)
			json_object_object_add(o, "timeout_ms", json_object_new_uint64(request->timeout_ms));
		if (*request->key)
			json_object_object_add(o, "key", json_object_new_string(request->key));
	}
	return to_text(o, JSON_C_TO_STRING_PLAIN, ret_text);
}

int message_format_done(char **ret_text)
{
	return to_text(new_response(true), JSON_C_TO_STRING_PLAIN, ret_text);
}

int message_format_status(const struct message_status *status, char **ret_text)
{
	struct json_object *o = new_response(true);

	if (o)
		json_object_object_add(o, "status", status_to_json(status));
	return to_text(o, JSON_C_TO_STRING_PLAIN, ret_text);
}

int message_format_error(const struct error *error, char **ret_text)
{
	struct json_object *o = new_response(false), *e = json_object_new_object();

	if (o && e) {
		json_object_object_add(e, "code", json_object_new_int(error->code));
		json_object_object_add(e, "status", json_object_new_int((int)error->status));
		json_object_object_add(e, "text", json_object_new_string(error->text));
		json_object_object_add(e, "hint", json_object_new_string(error->hint));
		json_object_object_add(o, "error", e);
	}
	return to_text(o, JSON_C_TO_STRING_PLAIN, ret_text);
}

int message_format_list(const struct message_status *list, size_t n, char **ret_text)
{
	struct json_object *o = json_object_new_object(), *mounts = json_object_new_array();

	for (size_t i = 0; mounts && i < n; i++)
		json_object_array_add(mounts, status_to_json(&list[i]));
	if (o)
		json_object_object_add(o, "mounts", mounts);
	return to_text(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED, ret_text);
}
