/* SPDX-License-Identifier: MIT */
/*
 * What the files over OpenSSL share: crypto.c (its memory, digests, derivation), crypto_pool.c (contexts),
 * crypto_aead.c (ciphers). Any thread, unless said otherwise.
 */
#ifndef CKRFS_CRYPTO_IMPL_H
#define CKRFS_CRYPTO_IMPL_H

#include <openssl/evp.h>
#include <pthread.h>

#include "crypto.h"

/* While a thread is between the two, what OpenSSL allocates for it is secret memory. They nest. */
void crypto_scope_enter(void);
void crypto_scope_leave(void);

/* Looked up once: a fetch per use would cost more than the work, and would cache itself in the secret heap.
 */
struct crypto_ciphers {
	EVP_CIPHER *gcm, *ecb, *cbc, *ctr, *chacha, *chacha_poly;
};

/* NULL when OpenSSL could not be set up. Must be called outside the scope. */
const struct crypto_ciphers *crypto_ciphers(void);

/*
 * Contexts that are ready for use: a thread takes one, sets only what changes with each message, and puts it
 * back. One has a slot for each way in which the pool's key is used; a slot is filled when it is first
 * needed, which many never are.
 */
enum { CRYPTO_SLOTS = 3 };

struct crypto_slot {
	const EVP_CIPHER *cipher;
	bool encrypt;
	bool keyless;      /* the user sets the key, for each message */
	size_t key_offset; /* where in the pool's key this one begins */
	size_t iv_size;    /* 0: the cipher's own */
};

struct aead_ctx {
	struct aead_ctx *next; /* in the pool */
	struct crypto_pool *pool;
	EVP_CIPHER_CTX *evp[CRYPTO_SLOTS];
	struct secret *room; /* the pool's room_size bytes, NULL if it has none */
};

struct crypto_pool {
	struct crypto_slot slots[CRYPTO_SLOTS];
	struct secret *key;
	size_t room_size; /* secret memory that each context brings along */
	pthread_mutex_t lock;
	struct aead_ctx *idle; /* last in, first out: the warm one; under lock */
};

/* pool is zeroed but for slots and room_size; -EINVAL when the key has not key_size bytes, -ENOMEM. */
int crypto_pool_setup(struct crypto_pool *pool, const struct secret *key, size_t key_size);
/* Nobody may hold a context any more. Takes a pool that was not set up, too. */
void crypto_pool_clear(struct crypto_pool *pool);

struct aead_ctx *crypto_pool_get(struct crypto_pool *pool); /* NULL: out of memory */
void crypto_pool_put(struct crypto_pool *pool, struct aead_ctx *ctx);

/* The OpenSSL context in a slot; NULL: out of memory. ctx belongs to the caller, so that no lock is needed.
 */
EVP_CIPHER_CTX *crypto_ctx_evp(struct aead_ctx *ctx, unsigned slot);

#endif
