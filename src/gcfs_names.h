/* SPDX-License-Identifier: MIT */
/*
 * Names of the gocryptfs format: EME (Halevi-Rogaway), base64url, long names, names of extended attributes.
 * Strings in, strings out; no file access. Data path: any thread, negative errno only.
 *
 * Three kinds, by flags: with DirIV each directory has its own IV; without it (deterministic names) the IV is
 * GCFS_IV_SIZE zeros everywhere; with PlaintextNames texts are the names, and only those of extended
 * attributes are encrypted.
 */
#ifndef CKRFS_GCFS_NAMES_H
#define CKRFS_GCFS_NAMES_H

#include "gcfs_config.h"
#include "secret.h"
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

enum {
	GCFS_IV_SIZE = 16,
	GCFS_NAME_TEXT_MAX = 344, /* longest encrypted name as text: 255 bytes -> 256 -> base64 */
	GCFS_XATTR_NAME_MAX = 255,
};

#define GCFS_DIRIV_FILE "gocryptfs.diriv"
#define GCFS_CONF_FILE "gocryptfs.conf"
#define GCFS_LONG_PREFIX "gocryptfs.longname."
#define GCFS_LONG_SUFFIX ".name"
#define GCFS_XATTR_PREFIX "user.gocryptfs."

struct gcfs_names;

/* flags and long_name_max as in struct gcfs_config. Derives the name key from the master key. */
int gcfs_names_new(const struct secret *master, unsigned flags, unsigned long_name_max,
		   struct gcfs_names **ret);
void gcfs_names_free(struct gcfs_names *n);

/* Encrypts one component, 1..255 bytes. -ENAMETOOLONG, -EINVAL (empty, ".", "..", '/'). ret_text holds
 * GCFS_NAME_TEXT_MAX + 1. */
int gcfs_name_encrypt(struct gcfs_names *n, const uint8_t iv[GCFS_IV_SIZE], const char *name, char *ret_text);

/* Decrypts the text of one component (strict, all the rules of the format). -EBADMSG. ret_name holds NAME_MAX
 * + 1. */
int gcfs_name_decrypt(struct gcfs_names *n, const uint8_t iv[GCFS_IV_SIZE], const char *text, char *ret_name);

/* Does this text not fit into a directory entry, so that the object is stored under its hash? */
bool gcfs_name_is_long(const struct gcfs_names *n, const char *text);

/* The on-disk name for a long text: "gocryptfs.longname." + base64url(SHA-256(text)). ret_disk holds NAME_MAX
 * + 1. */
int gcfs_name_hash(struct gcfs_names *n, const char *text, char *ret_disk);

enum gcfs_name_kind {
	GCFS_NAME_ORDINARY,  /* text of an encrypted name, or something foreign */
	GCFS_NAME_LONG,      /* "gocryptfs.longname.X": an object */
	GCFS_NAME_LONG_TEXT, /* "gocryptfs.longname.X.name": holds the text of X */
	GCFS_NAME_INTERNAL,  /* gocryptfs.diriv, gocryptfs.conf in the root, gocryptfs.diriv.rmdir.N: never
				shown */
};
enum gcfs_name_kind gcfs_name_kind(const struct gcfs_names *n, const char *disk, bool in_root);

/* Names of extended attributes, with their namespace: "user.test" <-> "user.gocryptfs.XXXX". -ERANGE over 175
 * bytes, -EBADMSG. ret_* hold GCFS_XATTR_NAME_MAX + 1. */
int gcfs_xattr_name_encrypt(struct gcfs_names *n, const char *name, char *ret_disk);
int gcfs_xattr_name_decrypt(struct gcfs_names *n, const char *disk, char *ret_name);

#endif
