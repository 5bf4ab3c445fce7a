/* SPDX-License-Identifier: MIT */
/*
 * The log of a running keeper and server. Called by layers 5 and 6 only; what layers 0 to 4 have
 * to say goes to them through return values and callbacks. Never given key bytes.
 * Any thread may call log_msg() once log_open() or log_set_sink() has returned.
 */
#ifndef CKRFS_LOG_H
#define CKRFS_LOG_H

#include "error.h"
#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* "error", "warning", "info", "debug"; -EINVAL for other words. */
int log_level_parse(const char *word, enum log_level *ret_level);
const char *log_level_name(enum log_level level);

/*
 * Where lines go: "stderr", "syslog" (which is the journal under systemd), or an absolute path of a
 * file to append to (created 0600, O_NOFOLLOW). Process start, single thread. -EINVAL, or what open said.
 */
int log_open(const char *target, enum log_level level, struct error *err);

/* Sends every line to sink instead (the server's lines go to its keeper). sink must be thread-safe. */
void log_set_sink(void (*sink)(void *ctx, enum log_level level, const char *line), void *ctx);

/*
 * One line; unprintable bytes shown as \xNN, cut at 1000 bytes. errno is kept. Warnings and errors end with
 * an identifier, "[CK102]", that stays the same when the words change: docs/troubleshooting.md has each, and
 * a test (tests/checks/messages.py) sees to that.
 */
void log_msg(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * Who did what, with what result: whatever the level is. With "syslog" it goes to the facility authpriv,
 * elsewhere among the other lines; it begins with "audit: ".
 */
void log_audit(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* An error as a line, with its hint behind it. */
void log_error(const struct error *err);

void log_close(void);

#endif
