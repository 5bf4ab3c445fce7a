/* SPDX-License-Identifier: MIT */
/* JSON from outside, by json-c: a text is one object or an error. Any thread. */
#ifndef CKRFS_JSONTEXT_H
#define CKRFS_JSONTEXT_H

#include <json-c/json.h>
#include <stddef.h>

/* One object, strictly as RFC 8259 has it and no deeper than depth, and nothing behind it but blanks. *ret is
 * the caller's. The caller bounds size, in bytes. -EBADMSG, -ENOMEM */
int jsontext_object(const char *buf, size_t size, int depth, struct json_object **ret);

void jsontext_put(struct json_object **o);
#define autojson __attribute__((cleanup(jsontext_put)))

#endif
