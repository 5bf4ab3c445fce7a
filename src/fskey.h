/* SPDX-License-Identifier: MIT */
/*
 * Encryption policies and keys of file systems that encrypt (ext4, f2fs, ubifs, ceph): the ioctls of
 * Documentation/filesystems/fscrypt.rst. Any thread, negative errno. Keys go in as secrets, and no further
 * than into the kernel.
 */
#ifndef CKRFS_FSKEY_H
#define CKRFS_FSKEY_H

#include "secret.h"
#include <stdbool.h>
#include <stdint.h>

enum { FSKEY_DESCRIPTOR_SIZE = 8, FSKEY_IDENTIFIER_SIZE = 16, FSKEY_MIN = 16, FSKEY_MAX = 64 };

/* How a directory is encrypted. */
struct fskey_policy {
	int version;                       /* 1 or 2 */
	uint8_t contents, names, flags;    /* as in linux/fscrypt.h */
	uint8_t id[FSKEY_IDENTIFIER_SIZE]; /* of the key: v1 a descriptor of 8 bytes, v2 an identifier */
};
size_t fskey_id_size(const struct fskey_policy *p);
/* Lower-case hex; ret holds 33. */
void fskey_id_text(const struct fskey_policy *p, char ret[33]);
/* The same policy: the same key, and the same way to use it? */
bool fskey_same_key(const struct fskey_policy *a, const struct fskey_policy *b);

/* fd: not O_PATH. -ENODATA: not encrypted; -EOPNOTSUPP: not this file system as it is made; -ENOTTY: no such
 * file system, or no such kernel; -EINVAL: a policy that is not known here. */
int fskey_get_policy(int fd, struct fskey_policy *ret);
/* v2 only, on an empty directory. -ENOTEMPTY, -EEXIST: another policy; -EINVAL: not together, not here. */
int fskey_set_policy(int fd, const struct fskey_policy *p);

/* What the kernel will call the key; v1: what all tools call it. p->id is set. */
int fskey_identify(const struct secret *key, struct fskey_policy *p);

/* fd: anything on the file system. The key is counted for this user once. v1 needs CAP_SYS_ADMIN. */
int fskey_add(int fd, const struct fskey_policy *p, const struct secret *key);
/* A key of type fscrypt-provisioning, which only the kernel reads: its identifier is in p->id then (v2). */
int fskey_add_by_serial(int fd, int32_t serial, struct fskey_policy *p);

enum fskey_left {
	FSKEY_LEFT_BUSY = 1 << 0,  /* files are in use, and stay readable */
	FSKEY_LEFT_USERS = 1 << 1, /* other users have added the key too: all stays readable */
};
/* Takes this user's key away, and with the last one the files that were read with it; again: tries the busy
 * ones again. Waits for dirty data. -ENOKEY: it is gone; -EUSERS: only others have added it. */
int fskey_remove(int fd, const struct fskey_policy *p, unsigned *ret_left);

enum fskey_state { FSKEY_ABSENT, FSKEY_PRESENT, FSKEY_LEAVING /* removed but for busy files */ };
/* ret_self: added by this user. */
int fskey_status(int fd, const struct fskey_policy *p, enum fskey_state *ret, bool *ret_self);

/* Names of what linux/fscrypt.h numbers, for options and messages; NULL-terminated, and the numbers. */
extern const char *const fskey_contents_words[], *const fskey_names_words[];
extern const uint8_t fskey_contents_modes[], fskey_names_modes[];
extern const char *const fskey_iv_words[];
extern const uint8_t fskey_iv_flags[];
/* Bytes that names are padded to, as a flag: 4, 8, 16, 32. -EINVAL */
int fskey_padding_flag(unsigned padding);

#endif
