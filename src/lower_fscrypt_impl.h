/* SPDX-License-Identifier: MIT */
/* The lower `fscrypt` in its parts: lower_fscrypt.c (life), lower_fscrypt_claim.c (who uses a key),
 * lower_fscrypt_kernel.c (what the kernel does
 * with it), lower_fscrypt_secret.c (from what the user gives to the key), lower_fscrypt_init.c. */
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

/* ---- lower_fscrypt_kernel.c ---- */

/* Why a policy could not be read resp. a key not be added, in words. */
int fscrypt_kernel_no_policy(const char *source, int fd, int code, struct error *err);
int fscrypt_kernel_key_failed(const char *source, int code, struct error *err);

/* Has this user given the key to the kernel already? */
bool fscrypt_kernel_has(int fd, const struct fskey_policy *policy);

/*
 * What key a serial stands for only the kernel can tell, by taking it: it does so as a user that nobody is,
 * and so takes nothing away from anybody when it is taken back. 0, -EKEYREJECTED with what it is in given.
 */
int fscrypt_kernel_try(int fd, int32_t serial, const struct fskey_policy *policy, struct fskey_policy *given);

/* Between fscrypt_claim_enter() and _leave(): adds the key (secret NULL: by serial), and claims it. */
int fscrypt_kernel_add(int fd, const struct fskey_policy *policy, const struct secret *secret, int32_t serial,
		       struct fscrypt_claim *claim);
/* The same: takes it away if nobody claims it any more, the caller neither; *ret_left: enum lower_left. Tries
 * for timeout_ms while files are in use. */
int fscrypt_kernel_remove(int fd, const struct fskey_policy *policy, struct fscrypt_claim *claim,
			  uint64_t timeout_ms, unsigned *ret_left);

/* ---- lower_fscrypt_secret.c ---- */

/*
 * The policy's key: what was given is that key itself, or opens a protector of the fscrypt tool in the
 * metadata of top_fd, the root of the mount. 12: it does not. memory: for passphrases.
 */
int fscrypt_secret_find(int top_fd, const struct fskey_policy *policy, const struct key *key, uint64_t memory,
			const char *source, struct secret **ret, struct error *err);

#endif
