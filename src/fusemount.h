/* SPDX-License-Identifier: MIT */
/*
 * Mounting and unmounting the FUSE target: mount(2) as root, the protocol of fusermount3(1) for others.
 * Nothing here asks the mounted file system anything, so that one which does not answer cannot hang the
 * keeper.
 */
#ifndef CKRFS_FUSEMOUNT_H
#define CKRFS_FUSEMOUNT_H

#include "config.h"
#include "error.h"
#include <stdbool.h>
#include <sys/types.h>

struct fusemount {
	int fuse_fd;      /* /dev/fuse */
	int namespace_fd; /* mount namespace that the target is in; -1: the caller's own */
	int mountinfo_fd; /* mount table of that namespace */
	bool by_helper;   /* fusermount3 made it */
	unsigned dev_major, dev_minor;
	char target[4096]; /* canonical */
	char name[65];
};

#define FUSEMOUNT_NONE ((struct fusemount){.fuse_fd = -1, .namespace_fd = -1, .mountinfo_fd = -1})

/* The target's canonical path. Missing: status 1 with a hint; not a directory; a ckrfs mount already:
 * status 11. */
int fusemount_check_target(const char *target, char ret_canonical[4096], struct error *err);

/* cfg->target must be canonical. On failure nothing is mounted. */
int fusemount_mount(const struct config *cfg, struct fusemount *ret, struct error *err);

/* Moves the caller into a private mount namespace (root only; others stay where they are): what it mounts
 * from now on nobody else sees, and the copies of ckrfs mounts there are let go. Single thread. */
int fusemount_leave_namespace(struct fusemount *m, struct error *err);

/* Is it mounted still, where it was mounted? */
bool fusemount_is_there(const struct fusemount *m);
/* Is it mounted anywhere in the namespace of its target (moved, bound to another place)? */
bool fusemount_is_anywhere(const struct fusemount *m);

/*
 * Unmounting in the target's namespace is done by a child, so that the caller can go on serving while dirty
 * pages are written back: fusemount_unmount_result() of its wait status is 0, -EBUSY, -EINVAL (not mounted
 * any more) or another errno. fusemount_unmount() waits itself.
 */
int fusemount_unmount_begin(const struct fusemount *m, bool lazy, pid_t *ret_pid);
int fusemount_unmount_result(int wait_status);
int fusemount_unmount(const struct fusemount *m, bool lazy);

/* For a child of the caller: goes to the target's namespace and opens the mounted root, which the file system
 * is asked for. -EINVAL: something else is there. */
int fusemount_open_root(const struct fusemount *m);

/* Raises the read-ahead of the mount: large reads are what decrypting is fast at. Best effort. After INIT was
 * answered. */
void fusemount_read_ahead(const struct fusemount *m, unsigned kib);

/* Closes the fds; what is mounted stays. */
void fusemount_close(struct fusemount *m);

/* Unmounts whatever ckrfs mount of that name is on target, in the caller's namespace. */
int fusemount_unmount_path(const char *target, const char *name, bool lazy);

#endif
