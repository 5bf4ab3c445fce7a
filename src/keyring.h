/* SPDX-License-Identifier: MIT */
/*
 * The mount's kernel keyring; only keyring*.c include keyutils.h. keyrings(7), session-keyring(7).
 * Joining is per thread: keyring_open() runs before the first pthread_create().
 */
#ifndef CKRFS_KEYRING_H
#define CKRFS_KEYRING_H

#include "error.h"
#include "secret.h"
#include <stdbool.h>
#include <stdint.h>

struct keyring {
	int32_t mount;      /* serial of the anonymous session keyring, possessor-only */
	int32_t manager;    /* serial of the ring that was handed over, 0: none */
	bool manager_first; /* keyring-search = first */
};

/* manager: 0 none, KEYRING_INHERIT the caller's session keyring, else a serial. */
enum { KEYRING_INHERIT = -1 };

/*
 * Joins a fresh anonymous session keyring with possessor-only permissions and links the manager's ring into
 * it. -EACCES, -ENOKEY, -EKEYREVOKED, -EKEYEXPIRED for the manager's ring, with the words a person can act
 * on; -EDQUOT. On failure the calling process still has its old session keyring or a fresh empty one, never a
 * ring by name.
 */
int keyring_open(struct keyring *ring, int32_t manager, bool manager_first, struct error *err);

/* Removes all keys from the mount's ring; the manager's ring stays linked. */
int keyring_clear(const struct keyring *ring);

/* Clears and revokes the mount's ring (not the manager's). */
void keyring_close(struct keyring *ring);

/*
 * Looks for a key by type and description in both rings, in the order configured, and reads it into a secret.
 * -ENOKEY none there; -EACCES found, no permission (Search is enough to read, keyctl_read(3)); -EKEYEXPIRED,
 * -EKEYREVOKED; -EOPNOTSUPP a type that user space cannot read (logon, fscrypt-provisioning); -EMSGSIZE over
 * max. ret_where (may be NULL): "mount" or "manager".
 */
int keyring_read(const struct keyring *ring, const char *type, const char *desc, size_t max,
		 struct secret **ret, const char **ret_where);

/* The serial of such a key, without reading it: for system calls that take serials. Errors as above. */
int keyring_find_serial(const struct keyring *ring, const char *type, const char *desc, int32_t *ret_serial);
/*
 * What there is to see of a key without taking it: finds it as keyring_read() does, with its errors;
 * -EKEYREJECTED if its contents are too long to be compared. room (starts as NULL, the caller's to free) is
 * for keeping memory from one look to the next; after the look it holds nothing but the salt of the digests,
 * which are the same for the same contents as long as it is the same room.
 */
struct keyring_sight {
	int32_t serial;
	uint8_t digest[32];
};
int keyring_look(const struct keyring *ring, const char *type, const char *desc, struct secret **room,
		 struct keyring_sight *ret);

/*
 * How long the key lives, at least and at most, in milliseconds (both UINT64_MAX: for ever), from /proc/keys,
 * which is not exact above a minute. -ENOENT where that does not show it: a key that does not grant View.
 */
int keyring_left(int32_t key, uint64_t *ret_min_ms, uint64_t *ret_max_ms);

/* Gives the key a life of that length from now on. -EACCES: it does not grant Setattr. */
int keyring_set_timeout(int32_t key, uint64_t ms);

/*
 * A pipe that becomes readable when something happens to the key or to the manager's ring, where it must be
 * (watch_queue, Linux 5.8): -EOPNOTSUPP, -ENOPKG and others where that cannot be had. Only that a key's time
 * is over is not told. keyring_watch_read() empties it: was there anything?
 */
struct keyring_watch {
	int fd, other_fd; /* -1: not open */
};
#define KEYRING_WATCH_NONE ((struct keyring_watch){-1, -1})
int keyring_watch_open(const struct keyring *ring, int32_t key, struct keyring_watch *ret);
bool keyring_watch_read(const struct keyring_watch *watch);
void keyring_watch_close(struct keyring_watch *watch);

/*
 * A token of AFS (key type rxrpc, description afs@CELL) in the mount's ring, possessor-only, in the network
 * namespace of the caller. add: -ENODEV the kernel has no such type, -EINVAL it does not take the payload,
 * -EKEYEXPIRED; a token that was there stays valid for what was opened with it, until one of the others ends
 * that: settle (the new one is good: the old one is revoked), undo (the new one is revoked, the old one is
 * used again). revoke: both. Whoever has the mount's session keyring may call them.
 */
enum { KEYRING_CELL_MAX = 253 };
struct keyring_token {
	int32_t serial;    /* 0: none */
	int32_t old, park; /* the one before, and the ring it is in; 0: none */
};
int keyring_add_rxrpc(const struct keyring *ring, const char *cell, const struct secret *payload,
		      struct keyring_token *token);
int keyring_settle_rxrpc(const struct keyring *ring, struct keyring_token *token);
int keyring_undo_rxrpc(const struct keyring *ring, struct keyring_token *token);
int keyring_revoke_rxrpc(const struct keyring *ring, struct keyring_token *token);

/* For a child between fork and exec: leaves the mount's ring for a fresh, empty, anonymous session keyring.
 * Async-signal-safe. Negative errno. */
int keyring_leave(void);

#endif
