/* SPDX-License-Identifier: MIT */
/*
 * Lowers: where the files of a volume live. A lower gives a root directory fd; everything above works beneath
 * it. Life functions: keeper, one thread, may block, fill struct error. Reached only through these wrappers
 * (a NULL slot of the table has the documented default).
 */
#ifndef CKRFS_LOWER_H
#define CKRFS_LOWER_H

#include "error.h"
#include <stdbool.h>

struct lower;

struct lower_params {
	int kind;           /* enum config_lower */
	const char *source; /* absolute path */
	bool read_only;
	bool shared;  /* other mounts of the same volume are allowed, if they are shared too */
	bool copying; /* reads everything for a copy: allows only mounts that are read-only beside it */
};

/*
 * Opens the source and takes the volume's lock. Statuses: 10 for a missing source, 1 not a directory or no
 * access, 11 (-EBUSY) when another mount has it and the two do not go together (docs/locking.md, "The
 * volume's lock"): one that may write goes only with shared ones, read-only ones go with each other. With
 * CAP_SYS_ADMIN the root is a private clone of the mount (open_tree(2)): mounts made on top of or below the
 * source later do not show in the volume, and the source's own mount may go away.
 */
int lower_open(const struct lower_params *params, struct lower **ret, struct error *err);

/* Is nobody else using the volume any more, not even read-only? If so, it stays that way until lower_close().
 * -EBUSY: somebody is; what was locked is locked no more. */
int lower_lock_alone(struct lower *l);

/* The root directory, O_PATH or O_RDONLY; borrowed, valid until lower_close(). */
int lower_root(const struct lower *l);

/* "directory" */
const char *lower_name(const struct lower *l);

/* Has the volume's root a private mount (see lower_open)? For `status`. */
bool lower_private(const struct lower *l);

/* Releases everything, the lock with it. NULL is fine. */
void lower_close(struct lower *l);

#endif
