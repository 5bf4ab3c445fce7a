/* SPDX-License-Identifier: MIT */
/* A mount and its lower: opened, given its key, and rid of it. Keeper, or a child of it; one thread. */
#ifndef CKRFS_MOUNT_LOWER_H
#define CKRFS_MOUNT_LOWER_H

#include "mount.h"

/* m->keys_fd: the directory where mounts tell each other which keys they use, if this one's lower has one. */
int mount_lower_open_keys(struct mount *m, struct error *err);

/* Of an ephemeral volume: m->place, without what killed mounts have left beside it. stage as for
 * mount_start(). */
int mount_lower_make_place(struct mount *m, void (*stage)(void *ctx, const char *what), void *ctx,
			   struct error *err);
/* The files are removed; what cannot be is in the log. May take long: nothing else is left to do. */
void mount_lower_remove_place(struct mount *m);

/* m->lower. 11 and 14 where it could not be hidden. */
int mount_lower_open(struct mount *m, bool shared, struct error *err);

/* The lower's key: from a source of its own, or from the volume's if its format needs none. */
int mount_lower_read_key(struct mount *m, struct key *ret_key, struct error *err);

/* Reads it, if one is needed, and gives it to m->lower. stage as for mount_start(). */
int mount_lower_unlock(struct mount *m, void (*stage)(void *ctx, const char *what), void *ctx,
		       struct error *err);

/* The key is taken from the kernel, if nobody else uses it: nothing is served any more. Nobody waits for what
 * is said: it is in the log, and `ckrfs umount` looks again. */
void mount_lower_lock(struct mount *m);

/* Starts a process that goes on taking it away while files are in use: its pid. Without parent it outlives
 * this one. */
pid_t mount_lower_linger(struct mount *m, bool without_parent);

void mount_lower_close(struct mount *m);

#endif
