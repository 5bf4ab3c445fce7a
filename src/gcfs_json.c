/* SPDX-License-Identifier: MIT */
#include "gcfs_json.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdbool.h>

#define refuse(err, fmt, ...) error_set(err, -EINVAL, EXIT_STATUS_FAILED, "%s: " fmt, file, ##__VA_ARGS__)

/*
 * json-c's strict mode still takes 'single quotes', NaN, Infinity and control characters in strings, which
 * are not JSON and which gocryptfs refuses.
 */
static bool text_is_plain_json(const char *buf, size_t size)
{
	bool in_string = false;

	for (size_t i = 0; i < size; i++) {
		unsigned char c = (unsigned char)buf[i];

		if (c == '"') {
			in_string = !in_string;
		} else if (in_string) {
			if (c < ' ')
				return false;
			if (c == '\\')
				i++;
		} else if (c == '\0' || c == '\'' || c == 'N' || c == 'I') {
			return false;
		}
	}
	return true;
}

int gcfs_json_read(const char *file, const char *buf, size_t size, size_t max_size, int max_depth,
		   struct json_object **ret, struct error *err)
{
	struct json_tokener *tok;
	struct json_object *top;
	enum json_tokener_error why;

	if (size > max_size)
		return refuse(err, "is %zu bytes long, more than the %zu that are read", size, max_size);
	if (!text_is_plain_json(buf, size))
		return refuse(err, "is not JSON");
	tok = json_tokener_new_ex(max_depth);
	if (!tok)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "%s", file);
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT);
	top = json_tokener_parse_ex(tok, buf, (int)size);
	why = json_tokener_get_error(tok);
	json_tokener_free(tok);
	if (why == json_tokener_success && json_object_is_type(top, json_type_object)) {
		*ret = top;
		return 0;
	}
	json_object_put(top);
	if (why == json_tokener_continue)
		return refuse(err, "is not JSON: it ends too early");
	if (why != json_tokener_success)
		return refuse(err, "is not JSON: %s", json_tokener_error_desc(why));
	return refuse(err, "is not a JSON object");
}
