/* SPDX-License-Identifier: MIT */
/*
 * Lowers: where the files of a volume live. A lower gives a root directory fd; everything above works beneath
 * it. Life functions: keeper, one thread, may block, fill struct error. Reached only through these wrappers
 * (a NULL slot of the table has the documented default).
 *
 * Life of a lower that needs a key (fscrypt): lower_open(), lower_unlock(), then its files can be read.
 * Locked: lower_let_go(), lower_lock(), lower_take(); unlocked: lower_unlock(). lower_close() locks it too.
 * One whose key is exchanged while it is used (afs): lower_unlock() again, what is open is opened anew,
 * lower_renewed().
 */
#ifndef CKRFS_LOWER_H
#define CKRFS_LOWER_H

#include "error.h"
#include "keysource.h"
#include <stdbool.h>
#include <stdint.h>

struct lower;

struct lower_params {
	int kind;            /* enum config_lower */
	const char *source;  /* absolute path; afs: %CELL:VOLUME or #CELL:VOLUME */
	int source_fd;       /* directory: that instead of what source leads to; borrowed; 0: none */
	const char *subtree; /* directory on the block device or AFS volume that source is, NULL: its root */
	const char *servers; /* afs: addresses, "," between them, NULL: found by the kernel; borrowed */
	int netns_fd;        /* afs: network namespace to be in, negative: the caller's; borrowed */
	const struct keyring *ring; /* afs: the mount's, where its key goes; borrowed */
	bool hide;                  /* source is a block device, to be mounted where nobody else sees it */
	bool read_only;
	bool shared;     /* other mounts of the same volume are allowed, if they are shared too */
	bool copying;    /* reads everything for a copy: allows only mounts that are read-only beside it */
	int claims_fd;   /* directory where mounts tell each other which keys they use (borrowed); 0: none */
	uint64_t memory; /* bytes that a passphrase may take; 0: no passphrase */
};

/*
 * Opens the source and takes the volume's lock. Statuses: 10 for a missing source, 1 not a directory or no
 * access, 11 (-EBUSY) when another mount has it and the two do not go together (docs/locking.md, "The
 * volume's lock"): one that may write goes only with shared ones, read-only ones go with each other. With
 * CAP_SYS_ADMIN the root is a private clone of the mount (open_tree(2)): mounts made on top of or below the
 * source later do not show in the volume, and the source's own mount may go away.
 */
int lower_open(const struct lower_params *params, struct lower **ret, struct error *err);

/* Opens a source, or with dir_fd a directory beneath it, which nothing leads out of. It is the manager's
 * word: symbolic links on the way are followed, magic links (/proc/PID/root ...) are not. The fd; 10 and 1 as
 * above. */
int lower_source_open(int dir_fd, const char *path, struct error *err);

/* Is nobody else using the volume any more, not even read-only? If so, it stays that way until lower_close().
 * -EBUSY: somebody is; what was locked is locked no more. */
int lower_lock_alone(struct lower *l);

/* The root directory, O_PATH or O_RDONLY; borrowed, valid until lower_let_go() or lower_close(). */
int lower_root(const struct lower *l);

/* "directory" */
const char *lower_name(const struct lower *l);

/* Has the volume's root a private mount (see lower_open)? For `status`. */
bool lower_private(const struct lower *l);

/* Are its files locked without a key of its own? Default: no. */
bool lower_needs_key(const struct lower *l);
/* Of that key, for `status`; "-". */
const char *lower_key_identifier(const struct lower *l);

/*
 * Gives it the key, which is checked before the kernel gets to see it: 12 a wrong one, and then nothing has
 * changed. The key's bytes stay the caller's. What was done holds also when a child of the caller does it.
 */
int lower_unlock(struct lower *l, const struct key *key, struct error *err);

/* Is its key exchanged while it is used? Then lower_unlock() of one that has a key gives it another, by which
 * it is used from then on, but for what is open: good: that was opened anew, and the old key is revoked;
 * not good: the old key stays until it ends. -EKEYEXPIRED from lower_unlock(): it does not live longer. */
bool lower_renews(const struct lower *l);
int lower_renewed(struct lower *l, bool good);
/* How long its key can be used, UINT64_MAX: nobody knows. */
uint64_t lower_key_left_ms(const struct lower *l);

/* It ends: what is mounted for it alone is unmounted while its key is good. lower_lock() and lower_close()
 * follow. */
void lower_unmount(struct lower *l);

/* The AFS cell that it lies in, NULL: none. */
const char *lower_cell(const struct lower *l);

/* What is left of a key after lower_lock(). */
enum lower_left {
	LOWER_LEFT_BUSY = 1 << 0,  /* files are in use by others: they stay readable until they are closed */
	LOWER_LEFT_USERS = 1 << 1, /* other users of the file system have it */
	LOWER_LEFT_FOREIGN = 1 << 2, /* this user had given it to the kernel before any mount did */
	LOWER_LEFT_MOUNTS = 1 << 3,  /* other mounts use it */
};

/* Closes the root and what else keeps files of the volume in use, the volume's lock with it. Never blocks. */
void lower_let_go(struct lower *l);
/* Takes the key from the kernel, and tries for timeout_ms while files are busy. *ret_left: enum lower_left. A
 * child of the caller may do it. */
int lower_lock(struct lower *l, uint64_t timeout_ms, unsigned *ret_left, struct error *err);
/* For a process of its own, after LOWER_LEFT_BUSY: closes all other fds but the standard ones, and tries
 * again until the files are closed or somebody gives the key again. Returns then. */
void lower_linger(struct lower *l);
/* Opens the (locked) root again after lower_let_go(), and takes the volume's lock. */
int lower_take(struct lower *l, struct error *err);

/* In words: why the key stays; "" when it does not or only for other mounts. */
const char *lower_left_words(unsigned left);

/*
 * What a keeper that was killed has left of the key of params->source, if no other mount uses it, is taken
 * from the kernel; so is what was busy when it was locked. Nothing left, or nothing to be found, is no error.
 */
int lower_clean(const struct lower_params *params, uint64_t timeout_ms, unsigned *ret_left);

/* Releases everything, the lock and the key with it. NULL is fine. */
void lower_close(struct lower *l);

#endif
