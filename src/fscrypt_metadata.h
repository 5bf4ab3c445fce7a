/* SPDX-License-Identifier: MIT */
/*
 * What the fscrypt tool keeps below .fscrypt in the root of a file system: for each policy how its key is
 * wrapped, by protectors that a passphrase or a raw key opens. Protocol buffers (proto3, metadata.proto of
 * google/fscrypt); fields that are not known are passed over. Buffers in, structs out: any bytes may come.
 */
#ifndef CKRFS_FSCRYPT_METADATA_H
#define CKRFS_FSCRYPT_METADATA_H

#include "crypto_wrap.h"
#include "secret.h"
#include <stddef.h>
#include <stdint.h>

enum {
	FSCRYPT_METADATA_MAX = 16384, /* the tool's own limit for a file */
	FSCRYPT_DESCRIPTOR_LENGTH = 16,
	FSCRYPT_WRAPPED_MAX = 64,
	FSCRYPT_PROTECTORS_MAX = 64, /* of a policy: more do not fit into a file by much */
};

struct fscrypt_wrapped {
	uint8_t iv[16], hmac[32];
	uint8_t key[FSCRYPT_WRAPPED_MAX];
	size_t size; /* of key: 32 for a protector's, 64 for a policy's */
};

enum fscrypt_source { FSCRYPT_SOURCE_LOGIN = 1, FSCRYPT_SOURCE_PASSPHRASE = 2, FSCRYPT_SOURCE_RAW = 3 };

struct fscrypt_protector {
	char descriptor[FSCRYPT_DESCRIPTOR_LENGTH + 1]; /* hex */
	enum fscrypt_source source;
	struct argon2_cost cost; /* not for RAW */
	uint8_t salt[16];
	struct fscrypt_wrapped key;
};

struct fscrypt_wrapped_policy {
	char protector[FSCRYPT_DESCRIPTOR_LENGTH + 1]; /* which opens it */
	struct fscrypt_wrapped key;
};

struct fscrypt_policy_data {
	char key_id[33]; /* hex: 16 digits of a v1 descriptor, 32 of a v2 identifier */
	size_t n;
	struct fscrypt_wrapped_policy keys[FSCRYPT_PROTECTORS_MAX];
};

/* -EBADMSG: not of that form. -E2BIG: more protectors than fit. */
int fscrypt_protector_parse(const void *buf, size_t size, struct fscrypt_protector *ret);
int fscrypt_policy_parse(const void *buf, size_t size, struct fscrypt_policy_data *ret);

/* The key that is wrapped by wrapping, of 32 bytes. -EKEYREJECTED: by another one. */
int fscrypt_unwrap(const struct secret *wrapping, const struct fscrypt_wrapped *w, struct secret **ret);

#endif
