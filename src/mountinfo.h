/* SPDX-License-Identifier: MIT */
/* /proc/self/mountinfo, proc_pid_mountinfo(5): asking it never touches a mount, so that a dead one cannot
 * hang us. */
#ifndef CKRFS_MOUNTINFO_H
#define CKRFS_MOUNTINFO_H

#include <stdbool.h>
#include <stddef.h>

/* Type that a ckrfs mount has in mount tables. */
#define MOUNTINFO_TYPE "fuse.ckrfs"

struct mountinfo {
	unsigned id, parent; /* of the mount, and of the one that it is mounted on */
	bool shared;         /* what is mounted or unmounted on it is so in other namespaces, too */
	unsigned major, minor;
	unsigned user; /* who mounted a FUSE file system, else -1 */
	char type[64], source[256], target[4096];
};

/* The topmost mount on target (absolute, canonical). -ENOENT */
int mountinfo_find(const char *target, struct mountinfo *ret);

/* The same from a mountinfo file that is open already, which may be that of another namespace. */
int mountinfo_find_at(int fd, const char *target, struct mountinfo *ret);

/* Is this file system mounted anywhere in the table of an open mountinfo file? True also when the table
 * cannot be read. */
bool mountinfo_has_device(int fd, unsigned major, unsigned minor);

/* Calls each for every mount, in the order of the table, until it returns false. -errno if it cannot be read
 */
int mountinfo_each(bool (*each)(void *ctx, const struct mountinfo *m), void *ctx);

/* The same for a mountinfo file that is open already. */
int mountinfo_each_at(int fd, bool (*each)(void *ctx, const struct mountinfo *m), void *ctx);

/* Is the topmost mount on target a ckrfs mount of that name? */
bool mountinfo_is_ours(const char *target, const char *name);

#endif
