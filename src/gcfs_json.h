/* SPDX-License-Identifier: MIT */
/*
 * Text of a volume's own files (gocryptfs.conf, the key slots) to a JSON object. The text is a stranger's:
 * its size and depth are bounded. Members are the callers' to check. Takes what Go's encoding/json takes, and
 * nothing that only json-c takes.
 */
#ifndef CKRFS_GCFS_JSON_H
#define CKRFS_GCFS_JSON_H

#include "error.h"
#include <stddef.h>

struct json_object;

/* buf needs no NUL. *ret: json_object_put() it. file: its name, for the words of err. EXIT_STATUS_FAILED */
int gcfs_json_read(const char *file, const char *buf, size_t size, size_t max_size, int max_depth,
		   struct json_object **ret, struct error *err);

#endif
