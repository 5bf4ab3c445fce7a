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
	bool shared; /* other mounts of the same volume are allowed, if they are shared too */
};

/*
 * Opens the source and takes the volume's lock. Statuses: 10 for a missing source, 1 not a directory or no
 * access, 11 (-EBUSY) when another mount has it and not both are shared. With CAP_SYS_ADMIN the root is a
 * private clone of the mount (open_tree(2)): mounts made on top of or below the source later do not show in
 * the volume, and the source's own mount may go away.
 */
int lower_open(const struct lower_params *params, struct lower **ret, struct error *err);

/* The root directory, O_PATH or O_RDONLY; borrowed, valid until lower_close(). */
int lower_root(const struct lower *l);

/* "directory" */
const char *lower_name(const struct lower *l);

/* Has the volume's root a private mount (see lower_open)? For `status`. */
bool lower_private(const struct lower *l);

/* Releases everything, the lock with it. NULL is fine. */
void lower_close(struct lower *l);

#endif
