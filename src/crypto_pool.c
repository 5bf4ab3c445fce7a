/* SPDX-License-Identifier: MIT */
/* Making a context and expanding a key each cost more than a block of 4 KiB: both are done once and kept. */
#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>

#include "crypto_impl.h"

int crypto_pool_setup(struct crypto_pool *pool, const struct secret *key, size_t key_size)
{
	if (secret_size(key) != key_size)
		return -EINVAL;
	pthread_mutex_init(&pool->lock, NULL);
	return secret_new_from(secret_data(key), secret_size(key), &pool->key);
}

static void ctx_free(struct aead_ctx *ctx)
{
	for (unsigned i = 0; i < CRYPTO_SLOTS; i++)
		EVP_CIPHER_CTX_free(ctx->evp[i]);
	secret_free(ctx->room);
	free(ctx);
}

void crypto_pool_clear(struct crypto_pool *pool)
{
	while (pool->idle) {
		struct aead_ctx *ctx = pool->idle;

		pool->idle = ctx->next;
		ctx_free(ctx);
	}
	secret_free(pool->key);
	pthread_mutex_destroy(&pool->lock);
}

static struct aead_ctx *ctx_new(struct crypto_pool *pool)
{
	struct aead_ctx *ctx = calloc(1, sizeof(*ctx));

	if (!ctx)
		return NULL;
	ctx->pool = pool;
	if (pool->room_size && secret_new(pool->room_size, &ctx->room) < 0) {
		free(ctx);
		return NULL;
	}
	return ctx;
}

struct aead_ctx *crypto_pool_get(struct crypto_pool *pool)
{
	struct aead_ctx *ctx;

	pthread_mutex_lock(&pool->lock);
	ctx = pool->idle;
	if (ctx)
		pool->idle = ctx->next;
	pthread_mutex_unlock(&pool->lock);
	return ctx ? ctx : ctx_new(pool);
}

void crypto_pool_put(struct crypto_pool *pool, struct aead_ctx *ctx)
{
	pthread_mutex_lock(&pool->lock);
	ctx->next = pool->idle;
	pool->idle = ctx;
	pthread_mutex_unlock(&pool->lock);
}

/* Modes that pad: here one call is any number of whole blocks. */
static bool pads(const EVP_CIPHER *cipher)
{
	int mode = EVP_CIPHER_get_mode(cipher);

	return mode == EVP_CIPH_ECB_MODE || mode == EVP_CIPH_CBC_MODE;
}

/* The IV length must be set before the key: GCM would otherwise take an IV of 12 bytes with it. */
static EVP_CIPHER_CTX *evp_new(const struct crypto_slot *slot, const struct secret *key)
{
	const uint8_t *bytes = slot->keyless ? NULL : secret_data(key) + slot->key_offset;
	EVP_CIPHER_CTX *evp;

	crypto_scope_enter();
	evp = EVP_CIPHER_CTX_new();
	if (!evp || EVP_CipherInit_ex(evp, slot->cipher, NULL, NULL, NULL, slot->encrypt) != 1 ||
	    (slot->iv_size &&
	     EVP_CIPHER_CTX_ctrl(evp, EVP_CTRL_AEAD_SET_IVLEN, (int)slot->iv_size, NULL) != 1) ||
	    (bytes && EVP_CipherInit_ex(evp, NULL, NULL, bytes, NULL, slot->encrypt) != 1) ||
	    (pads(slot->cipher) && EVP_CIPHER_CTX_set_padding(evp, 0) != 1)) {
		EVP_CIPHER_CTX_free(evp);
		ERR_clear_error();
		evp = NULL;
	}
	crypto_scope_leave();
	return evp;
}

EVP_CIPHER_CTX *crypto_ctx_evp(struct aead_ctx *ctx, unsigned slot)
{
	if (!ctx->evp[slot])
		ctx->evp[slot] = evp_new(&ctx->pool->slots[slot], ctx->pool->key);
	return ctx->evp[slot];
}
