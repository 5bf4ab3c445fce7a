/* SPDX-License-Identifier: MIT */
/*
 * What the fscrypt tool wraps keys with, and what kernel and AFS derive keys and identifiers with. Any
 * thread. As in crypto.h keys are secrets, and so is what comes of them.
 */
#ifndef CKRFS_CRYPTO_WRAP_H
#define CKRFS_CRYPTO_WRAP_H

#include "secret.h"
#include <stddef.h>
#include <stdint.h>

/* HKDF-SHA512 (RFC 5869), empty salt; info may hold any bytes. */
int hkdf_sha512(const struct secret *ikm, const void *info, size_t info_size, size_t size,
		struct secret **ret);

int hmac_sha256(const struct secret *key, const void *data, size_t size, uint8_t ret[32]);

/* HMAC-MD5 (RFC 2104), which AFS derives its session keys with; for nothing else. */
int hmac_md5(const struct secret *key, const void *data, size_t size, uint8_t ret[16]);

/* AES-256-CTR, key of 32 bytes; encrypts and decrypts. */
int aes_ctr(const struct secret *key, const uint8_t iv[16], const void *in, size_t size, struct secret **ret);

/* What Argon2 costs (RFC 9106): passes, KiB, lanes. */
struct argon2_cost {
	uint32_t time, memory_kib, lanes;
};

/* Argon2id -> 32 bytes. -ENOMEM when it takes more than max_memory or that cannot be had; -EINVAL for costs
 * that Argon2 does not have. Takes threads of its own, as many as there are lanes and processors. */
int argon2id_derive(const struct secret *password, const void *salt, size_t salt_size,
		    const struct argon2_cost *cost, uint64_t max_memory, struct secret **ret);

#endif
