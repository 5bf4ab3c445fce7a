/* SPDX-License-Identifier: MIT */
/*
 * Where the files of an ephemeral volume lie, below the source:
 *
 *	ckrfs-ephemeral-RANDOM/		0700, locked (flock(2)) by the keeper as long as it lives
 *		mark			made on which machine, and under which name
 *		volume/			the files
 *
 * The source may be a directory where others write, such as /tmp. What is removed is only what this user has
 * made on this machine and nobody has locked: owner and mode say that nobody else could have put anything
 *into it, the mark that it is what the name says, wherever it was renamed or copied from; that of another
 *machine may be in use there, as not every network file system has locks that hold everywhere. Keeper, or
 *`ckrfs umount` for one that was killed; one thread; may take long.
 */
#ifndef CKRFS_EPHEMERAL_H
#define CKRFS_EPHEMERAL_H

#include "error.h"
#include "tree_remove.h"

enum { EPHEMERAL_NAME_SIZE = 40 };

struct ephemeral {
	int source_fd;
	int dir_fd;    /* holds the lock; -1: nothing was made */
	int volume_fd; /* O_RDONLY */
	char name[EPHEMERAL_NAME_SIZE];
};
#define EPHEMERAL_NONE ((struct ephemeral){-1, -1, -1, ""})

/* Statuses as lower_open(); 14 for a directory that is a volume itself. */
int ephemeral_open(const char *source, struct ephemeral *ret, struct error *err);

/* Removes what killed keepers have left. 0, or the first failure: the rest is removed all the same. how: who
 * is told of each file (its keep is not used). */
int ephemeral_sweep(const struct ephemeral *e, const struct tree_remove *how);

/* Makes the directory, and volume/ with mode, owner and group of the source. */
int ephemeral_make(struct ephemeral *e, struct error *err);

/* Removes it, with all that can be removed of it: 0, or the first failure. how as above. */
int ephemeral_remove(struct ephemeral *e, const struct tree_remove *how);

void ephemeral_close(struct ephemeral *e);

#endif
