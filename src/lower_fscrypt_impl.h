/* SPDX-License-Identifier: MIT */
/* The lower `fscrypt` in its parts: lower_fscrypt.c (life), lower_fscrypt_claim.c (who uses a key),
 * lower_fscrypt_secret.c (from what the user gives to the key). */
#ifndef CKRFS_LOWER_FSCRYPT_IMPL_H
#define CKRFS_LOWER_FSCRYPT_IMPL_H

#include "fskey.h"
#include "lower_impl.h"
#include <stdbool.h>

/* ---- lower_fscrypt_claim.c ---- */

/*
 * One use of one key on one file system, told to all mounts with the same runtime directory: a file whose
 * bytes are locked (fcntl(2), F_OFD_SETLK), so that a claim ends with the process that has it, however that
 * ends. The kernel counts users, not uses.
 */
struct fscrypt_claim {
	int dir_fd; /* borrowed */
	int fd;     /* -1: none, nothing is counted */
	char name[64];
};
#define FSCRYPT_CLAIM_NONE ((struct fscrypt_claim){.dir_fd = -1, .fd = -1})

/* create: else -ENOENT when nobody uses or has left the key. dir_fd -1: counts nothing. */
int fscrypt_claim_open(int dir_fd, uint64_t dev, const struct fskey_policy *policy, bool create,
		       struct fscrypt_claim *ret);
/* Between the two nobody else adds or removes this key. -ETIMEDOUT */
int fscrypt_claim_enter(struct fscrypt_claim *c);
void fscrypt_claim_leave(struct fscrypt_claim *c);
/* In between: uses the key; uses it no more. */
int fscrypt_claim_set(struct fscrypt_claim *c);
void fscrypt_claim_drop(struct fscrypt_claim *c);
/* Is the key in use by others? */
bool fscrypt_claim_others(const struct fscrypt_claim *c);
/* Was the key in the kernel before the first of us? Kept in the file until the key is removed. */
enum fscrypt_origin { FSCRYPT_ORIGIN_NONE, FSCRYPT_ORIGIN_OURS, FSCRYPT_ORIGIN_FOREIGN };
enum fscrypt_origin fscrypt_claim_origin(const struct fscrypt_claim *c);
void fscrypt_claim_set_origin(struct fscrypt_claim *c, enum fscrypt_origin origin);
/* Removes the file if nobody has it open. */
void fscrypt_claim_close(struct fscrypt_claim *c);
/* Those of a file system that is gone, left by keepers that were killed. */
void fscrypt_claim_sweep(int dir_fd, uint64_t dev);

/* ---- lower_fscrypt_secret.c ---- */

/*
 * The policy's key: what was given is that key itself, or opens a protector of the fscrypt tool in the
 * metadata of top_fd, the root of the mount. 12: it does not. memory: for passphrases.
 */
int fscrypt_secret_find(int top_fd, const struct fskey_policy *policy, const struct key *key, uint64_t memory,
			const char *source, struct secret **ret, struct error *err);

#endif
