/* SPDX-License-Identifier: MIT */
/*
 * The mount's kernel keyring, and the only file that includes keyutils.h. keyrings(7), session-keyring(7).
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
 * -ENOKEY none there; -EACCES found, no permission; -EKEYEXPIRED, -EKEYREVOKED; -EOPNOTSUPP a type that user
 * space cannot read (logon, fscrypt-provisioning); -EMSGSIZE over max. ret_where (may be NULL): "mount" or
 * "manager".
 */
int keyring_read(const struct keyring *ring, const char *type, const char *desc, size_t max,
		 struct secret **ret, const char **ret_where);

/* The serial of such a key, without reading it: for system calls that take serials. Errors as above. */
int keyring_find_serial(const struct keyring *ring, const char *type, const char *desc, int32_t *ret_serial);

/* For a child between fork and exec: leaves the mount's ring for a fresh, empty, anonymous session keyring.
 * Async-signal-safe. Negative errno. */
int keyring_leave(void);

#endif
