/* SPDX-License-Identifier: MIT */
/*
 * What keepers say of their mounts, in the text format of Prometheus (version 0.0.4 of "Exposition formats").
 * Tells of a mount its name and nothing else that says what or where it is: no path, no key source. What a
 * keeper says is not trusted to be well formed. One thread; the stream is the caller's.
 */
#ifndef CKRFS_METRICS_H
#define CKRFS_METRICS_H

#include "message.h"
#include <stdio.h>

/* now: seconds since 1970. Errors are those of the stream. */
void metrics_write(const struct message_status *list, size_t n, int64_t now, FILE *to);

#endif
