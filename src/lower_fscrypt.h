/* SPDX-License-Identifier: MIT */
/* Making a directory one that lower = fscrypt takes: `ckrfs init --lower fscrypt`. Life function. */
#ifndef CKRFS_LOWER_FSCRYPT_H
#define CKRFS_LOWER_FSCRYPT_H

#include "error.h"
#include "fskey.h"
#include "keysource.h"

/*
 * Gives the empty directory a v2 policy of the key, which is raw or a serial. how: modes and flags; how->id
 * is filled in. The kernel has the key only meanwhile, unless it had it before or another mount uses it.
 * claims_fd as in struct lower_params. 15: not on this file system; 1: not empty, or has another policy.
 */
int lower_fscrypt_init(int dir_fd, const char *directory, const struct key *key, int claims_fd,
		       struct fskey_policy *how, struct error *err);

#endif
