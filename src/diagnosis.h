/* SPDX-License-Identifier: MIT */
/*
 * What `ckrfs doctor` finds: a list of findings and its form as JSON (docs/cli-abi.md). No file access, no
 * printing. A finding holds no key. One thread.
 */
#ifndef CKRFS_DIAGNOSIS_H
#define CKRFS_DIAGNOSIS_H

#include "error.h"
#include <stdbool.h>
#include <stddef.h>

enum diagnosis_level {
	DIAGNOSIS_OK,
	DIAGNOSIS_NOTE,    /* works, but not with all that there could be */
	DIAGNOSIS_PROBLEM, /* something does not work */
};

struct diagnosis_finding {
	char check[80]; /* stable: "fuse-device", "source web" */
	enum diagnosis_level level;
	enum exit_status status; /* of a problem */
	char text[600], mend[512];
};

struct diagnosis {
	struct diagnosis_finding *items; /* owned */
	size_t n;
	bool out_of_memory; /* some are missing */
};

/* mend: a command, or NULL. Bytes that are not printable are shown as \xNN in both. status: of a problem,
 * else 0. */
void diagnosis_add(struct diagnosis *d, const char *check, enum diagnosis_level level,
		   enum exit_status status, const char *mend, const char *fmt, ...)
	__attribute__((format(printf, 6, 7)));

/* An error as a problem, with its hint. */
void diagnosis_add_error(struct diagnosis *d, const char *check, const struct error *err);

const char *diagnosis_level_word(enum diagnosis_level level);

/* 0 without problems; the status that all of them have; else 1. */
enum exit_status diagnosis_status(const struct diagnosis *d);
size_t diagnosis_count(const struct diagnosis *d, enum diagnosis_level level);

/* malloc'ed, ends with a newline. -ENOMEM */
int diagnosis_json(const struct diagnosis *d, char **ret_text);

void diagnosis_free(struct diagnosis *d);

#endif
