/* SPDX-License-Identifier: MIT */
#include "jsontext.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

void jsontext_put(struct json_object **o)
{
	json_object_put(*o);
}

int jsontext_object(const char *buf, size_t size, int depth, struct json_object **ret)
{
	struct json_tokener *tok;
	struct json_object *o;
	size_t used;

	if (size > INT_MAX)
		return -EBADMSG;
	tok = json_tokener_new_ex(depth);
	if (!tok)
		return -ENOMEM;
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT);
	o = json_tokener_parse_ex(tok, buf, (int)size);
	used = json_tokener_get_parse_end(tok);
	json_tokener_free(tok);
	while (used < size && memchr(" \t\r\n", buf[used], 4))
		used++;
	if (!json_object_is_type(o, json_type_object) || used < size) {
		json_object_put(o);
		return -EBADMSG;
	}
	*ret = o;
	return 0;
}
