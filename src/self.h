/* SPDX-License-Identifier: MIT */
/*
 * Runs another command of ckrfs, for the commands that mount for others: `ckrfs mount` and `ckrfs umount` as
 * somebody would type them. Ends with its caller's thread (PR_SET_PDEATHSIG); a keeper that it has started
 * stays. May block. From processes with one thread.
 */
#ifndef CKRFS_SELF_H
#define CKRFS_SELF_H

#include "error.h"
#include <stdbool.h>
#include <stddef.h>

enum { SELF_SAID_MAX = 2048, SELF_ARGS_MAX = 48 };

/* The words of a command line, behind "ckrfs". Starts as zeros. */
struct self_args {
	char *list[SELF_ARGS_MAX + 2]; /* owned, but the first, which self_run() sets */
	size_t n;
	bool failed; /* a word did not fit, or there was no memory: self_run() will say so */
};

void self_add(struct self_args *a, const char *word);
/* Takes the word, malloc'ed; NULL: there was no memory. */
void self_take(struct self_args *a, char *word);
void self_args_free(struct self_args *a);

/* The exit status, or negative errno; and what it said on both outputs, cut. */
int self_run(struct self_args *a, char said[SELF_SAID_MAX]);

/* The error that it said, with its exit status; fallback: words where it said none. Negative errno. */
int self_error(int status, const char *said, const char *fallback, struct error *err);

#define autoself __attribute__((cleanup(self_args_free)))

#endif
