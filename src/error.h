/* SPDX-License-Identifier: MIT */
/*
 * What the control path says when it fails: one line of what was attempted on what and why not,
 * and, where we know one, a command that helps. Plain data of a fixed size, so that a keeper can
 * write it into a pipe and the command that started it can print it.
 * Does not print: only main programs speak (error_print() is called by src/cmd_*.c and keeper.c).
 * The data path never uses it: there a negative errno is all there is.
 */
#ifndef CKRFS_ERROR_H
#define CKRFS_ERROR_H

#include <stdarg.h>
#include <stdio.h>

/* Exit statuses of the ckrfs command, docs/cli-abi.md. */
enum exit_status {
	EXIT_STATUS_DONE = 0,
	EXIT_STATUS_FAILED = 1,
	EXIT_STATUS_USAGE = 2,
	EXIT_STATUS_PARTLY = 3,
	EXIT_STATUS_DAMAGED = 4,    /* check: damage was found, and is still there */
	EXIT_STATUS_REPAIRED = 5,   /* check --repair: all that was found was repaired */
	EXIT_STATUS_NO_VOLUME = 10, /* no such volume, or not mounted */
	EXIT_STATUS_BUSY = 11,
	EXIT_STATUS_WRONG_KEY = 12,
	EXIT_STATUS_NO_KEY = 13,
	EXIT_STATUS_CONFIG = 14,
	EXIT_STATUS_UNSUPPORTED = 15,
};

struct error {
	int code; /* negative errno, 0 while nothing failed */
	enum exit_status status;
	char text[1024]; /* first line, without "ckrfs: " */
	char hint[512];  /* a command to paste, or empty */
};

#define ERROR_NONE ((struct error){0})

/*
 * Fills err (which may be NULL) and returns code, a negative errno: `return error_set(err, ...)`.
 * The text is cut, never overrun. Bytes that are not printable are shown as \xNN, so that a file
 * name cannot send escape sequences to somebody's terminal.
 */
int error_set(struct error *err, int code, enum exit_status status, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Like error_set(), with ": " and the words of the errno appended. */
int error_errno(struct error *err, int code, enum exit_status status, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Puts words and ": " before the text: `cannot mount "photos": ` + what was there. Returns err->code. */
int error_prefix(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The `try:` line. Replaces an earlier one. */
void error_hint(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Writes "ckrfs: TEXT\n" and, where there is one, "  try: HINT\n". */
void error_print(FILE *to, const struct error *err);

#endif
