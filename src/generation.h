/* SPDX-License-Identifier: MIT */
/*
 * Generations of a gocryptfs volume: while `ckrfs rekey` copies one under a new master key into a second one,
 * a state file in the root of the new one says what it is. gocryptfs ignores a file of that name, and it is
 * never shown. Life functions, one thread; each write of the state is complete on disk when it returns, and
 * leaves the times of the directory as they are.
 */
#ifndef CKRFS_GENERATION_H
#define CKRFS_GENERATION_H

#include "error.h"
#include "format.h"
#include "keysource.h"
#include <stdbool.h>
#include <stdint.h>

#define GENERATION_FILE "gocryptfs.longname.ckrfs-rekey.name"

enum generation_role {
	GENERATION_UNFINISHED, /* a copy that is being made: mounting it is refused */
	GENERATION_COMPLETE,   /* the copy is whole and was compared; the old one may be there still */
	GENERATION_RETIRED,    /* to be removed: an old generation, or a copy that was given up */
};

struct generation {
	enum generation_role role;
	char old_key[33], new_key[33]; /* gcfs_key_identifier() */
	char old_config[65];           /* digest of the old generation's gocryptfs.conf, "-" until complete */
};

/* -ENOENT: none there. -EBADMSG: damaged, or of another version. */
int generation_read(int root_fd, struct generation *ret);
/* Replaces what is there in one step. */
int generation_write(int root_fd, const struct generation *g);
int generation_remove(int root_fd);

/* Which volume is in this directory: SHA-256 of its gocryptfs.conf. -ENOENT */
int generation_config_digest(int root_fd, char ret[65]);

/*
 * Makes a volume of the same kind as old (which is open) in root_fd: cipher, names, scrypt cost. key is a
 * passphrase (the master key is random then) or the 32 bytes of the master key itself; it stays the
 * caller's. Writes g, with the new key's identifier filled in, before the volume, whose configuration comes
 * last.
 */
int generation_create(const struct format *old, int root_fd, const struct key *key, uint64_t scrypt_memory,
		      struct generation *g, struct error *err);

/* ---- data path ---- */

/* All attributes of an inode that belong to the volume, decrypted; file capabilities too, which mounts hide.
 * What is not the volume's (labels of the host ...) is left out. */
struct generation_xattr {
	char *name;
	void *value;
	size_t size;
};
struct generation_xattrs {
	struct generation_xattr *list; /* sorted by name */
	size_t n;
};
/* -EIO: a name or value does not authenticate. */
int generation_xattrs_read(struct format *f, int fd, struct generation_xattrs *ret);
bool generation_xattrs_equal(const struct generation_xattrs *a, const struct generation_xattrs *b);
/* Makes those of fd, which has `have`, the same as want. */
int generation_xattrs_write(struct format *f, int fd, const struct generation_xattrs *have,
			    const struct generation_xattrs *want);
void generation_xattrs_free(struct generation_xattrs *x);

#endif
