/* SPDX-License-Identifier: MIT */
/*
 * The cryptography the formats need; OpenSSL is behind it. Keys go in as struct
 * secret; whatever OpenSSL allocates for a key (contexts, key schedules, scrypt's table) comes from the
 * secret heap (secret.h) and is wiped when freed.
 *
 * Contexts: an aead or ecb object holds one key and a pool of ready contexts, so that a thread takes one,
 * sets only the IV per block, and puts it back. Objects are used by any number of threads; new and free by
 * one.
 */
#ifndef CKRFS_CRYPTO_H
#define CKRFS_CRYPTO_H

#include "secret.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Must run before anything else touches OpenSSL and before the first thread: routes its allocations. -ENOMEM,
 * -EINVAL */
int crypto_init(void);

/* Random bytes from the kernel's generator through OpenSSL's; never fails silently: -EIO. */
int crypto_random(void *buf, size_t size);

enum aead_kind { AEAD_AES_256_GCM, AEAD_AES_256_SIV, AEAD_XCHACHA20_POLY1305 };
enum { AEAD_TAG_SIZE = 16 };

struct aead;
struct aead_ctx;

/* 64 bytes for SIV, 32 for the others. */
size_t aead_key_size(enum aead_kind kind);

/* iv_size: GCM 12 or 16, SIV 16, XChaCha 24; others, and keys of another size, are -EINVAL. */
int aead_new(enum aead_kind kind, const struct secret *key, size_t iv_size, struct aead **ret);
void aead_free(struct aead *a);

/* Takes a context from the pool for a run of blocks; NULL when out of memory. Give it back with aead_put().
 */
struct aead_ctx *aead_get(struct aead *a);
void aead_put(struct aead *a, struct aead_ctx *ctx);

/*
 * One message. out holds size bytes and may be in itself (exactly, not overlapping otherwise); tag is
 * AEAD_TAG_SIZE bytes. size may be 0. open: -EBADMSG when the tag does not fit (compared in constant time),
 * and then out is zeroed: nothing unauthenticated leaves.
 */
int aead_seal(struct aead_ctx *ctx, const uint8_t *iv, const void *aad, size_t aad_size, const void *in,
	      size_t size, void *out, uint8_t *ret_tag);
int aead_open(struct aead_ctx *ctx, const uint8_t *iv, const void *aad, size_t aad_size, const void *in,
	      size_t size, const uint8_t *tag, void *out);

/* AES-256 on single blocks (for EME): nblocks 16-byte blocks, each on its own; out may be in. */
struct ecb;
int ecb_new(const struct secret *key, struct ecb **ret);
void ecb_free(struct ecb *e);
int ecb_crypt(struct ecb *e, bool encrypt, const void *in, size_t nblocks, void *out);

/* HKDF-SHA256 (RFC 5869), empty salt; info is ASCII without its NUL; size bytes into a new secret. */
int hkdf_sha256(const struct secret *ikm, const char *info, size_t size, struct secret **ret);

/*
 * scrypt (RFC 7914) -> 32 bytes. -ENOMEM when 128*n*r is over max_memory or cannot be had; -EINVAL for
 * parameters scrypt does not have (n not a power of two, p*r too large).
 */
int scrypt_derive(const struct secret *password, const void *salt, size_t salt_size, uint64_t n, uint32_t r,
		  uint32_t p, uint64_t max_memory, struct secret **ret);

int sha256(const void *data, size_t size, uint8_t ret[32]);

/* Of the first size bytes of a secret; nothing of them stays on the stack. */
int sha256_secret(const struct secret *data, size_t size, uint8_t ret[32]);

/* SHA-512 of a secret, as a new one of 64 bytes. */
int sha512_secret(const struct secret *data, struct secret **ret);

/* Compares without telling where they differ by its time. */
bool crypto_equal(const void *a, const void *b, size_t size);

#endif
