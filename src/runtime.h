/* SPDX-License-Identifier: MIT */
/*
 * The runtime directory: what is mounted now. $CKRFS_RUNTIME_DIR, else /run/ckrfs for root,
 * $XDG_RUNTIME_DIR/ckrfs for others, and for root of a user namespace if that is set. Below it:
 *   mounts/NAME/lock     locked by the keeper as long as it lives, which tells a live mount from a dead one
 *   mounts/NAME/mount    target, source and keeper's pid, for cleaning up after a keeper that was killed
 *   mounts/NAME/control  the control socket
 *   mounts/NAME/key      while the mount has a key
 *   keys/FS-KEY          who uses a key that the kernel keeps for a file system (lower = fscrypt)
 * All by fd. A directory that others could write to is refused. Life functions: one thread.
 */
#ifndef CKRFS_RUNTIME_H
#define CKRFS_RUNTIME_H

#include "error.h"
#include <stdbool.h>
#include <sys/types.h>

enum { RUNTIME_NAME_MAX = 64 };

struct runtime {
	int mounts_fd;   /* -1: not open */
	char path[3072]; /* of mounts/, for messages and the socket's address */
};

/* create: make what is missing. Without it -ENOENT (err untouched) means that nothing is mounted. */
int runtime_open(bool create, struct runtime *ret, struct error *err);
/* Root's, whoever asks: for the owner of a mount that root made. -ENOENT (err untouched) as above. */
int runtime_open_system(struct runtime *ret, struct error *err);
void runtime_close(struct runtime *rt);

#define RUNTIME_NONE ((struct runtime){.mounts_fd = -1})

/* The directory where mounts tell each other which keys of file systems they use: an fd, negative errno. */
int runtime_open_keys(const struct runtime *rt, bool create);

/* One mount's directory, claimed by its keeper. */
struct claim {
	int dir_fd, lock_fd; /* -1: not claimed */
};

#define CLAIM_NONE ((struct claim){-1, -1})

/* -EBUSY with status 11 and what to do when the name is mounted, or its dead mount is still there. What a
 * killed keeper left without a mount is removed. */
int runtime_claim(struct runtime *rt, const char *name, struct claim *ret, struct error *err);

/* What is to be known of the mount when its keeper is dead. */
struct record {
	pid_t keeper;
	bool fscrypt;   /* the lower has a key in the kernel */
	bool ephemeral; /* its files are to be removed */
	char target[4096], source[4096];
};
int runtime_record(const struct claim *claim, const struct record *record);

/* Marks the mount as one that has a key, or not. */
int runtime_mark_key(const struct claim *claim, bool has_key);
/* Is the mount of this name alive and known to have none? */
bool runtime_has_no_key(const struct runtime *rt, const char *name, const char *target);

/* Removes the directory. The lock stays until the process ends, so that who waits for it waits for that. */
void runtime_release(struct runtime *rt, const char *name, struct claim *claim);

/* Is there a mount of this name, and does its keeper live? -ENOENT; -EACCES: somebody else's. record may be
 * NULL. */
int runtime_look(const struct runtime *rt, const char *name, bool *ret_alive, struct record *ret_record);

/* Sorted names of all, malloc'ed each and as a whole, NULL-terminated; runtime_names_free(). */
int runtime_names(const struct runtime *rt, char ***ret_names);
void runtime_names_free(char **names);

/* Removes what a dead keeper left: -EBUSY if it lives. Its mount must be gone already. */
int runtime_remove_dead(struct runtime *rt, const char *name);

/* To be called before the keeper is told to end: an fd of its lock, or -errno. */
int runtime_watch(const struct runtime *rt, const char *name);

/* Waits until the keeper has ended, at most so long (negative: for ever). -ETIMEDOUT. watch_fd is what
 * runtime_watch() gave; without one, as with somebody else's lock, the directory's end is waited for. */
int runtime_wait_gone(const struct runtime *rt, const char *name, int watch_fd, int timeout_ms);

#endif
