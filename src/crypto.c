/* SPDX-License-Identifier: MIT */
/*
 * OpenSSL 3 through EVP. Two things shape this file. Where OpenSSL keeps keys: its allocator is hooked, and a
 * thread that is inside the key scope gets secret memory. And speed: looking up an algorithm, making a
 * context and expanding a key each cost more than a block of 4 KiB, so all three are done once and kept.
 */
#include "crypto.h"

#include <errno.h>
#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "crypto_gcm.h"

/* How deep this thread is in calls that give OpenSSL a key: what it allocates then is secret. */
static _Thread_local unsigned key_scope;

static void *hook_malloc(size_t size, const char *file, int line)
{
	return key_scope ? secret_heap_alloc(size ? size : 1) : malloc(size);
}

static void hook_free(void *p, const char *file, int line)
{
	if (!p)
		return;
	if (secret_heap_owns(p))
		secret_heap_free(p);
	else
		free(p);
}

/* OpenSSL hands NULL and 0 through to this. Memory stays of the kind it was born. */
static void *hook_realloc(void *p, size_t size, const char *file, int line)
{
	if (!p)
		return hook_malloc(size, file, line);
	if (size == 0) {
		hook_free(p, file, line);
		return NULL;
	}
	return secret_heap_owns(p) ? secret_heap_realloc(p, size) : realloc(p, size);
}

/* Looked up once: a fetch per use would cost more than the work, and would cache itself in the secret heap.
 */
static struct {
	EVP_CIPHER *gcm, *ecb;
	EVP_KDF *hkdf, *scrypt;
	EVP_MD *sha256;
	bool ready;
} alg;

/* params hold pointers into secrets; OpenSSL copies what they point to, hence the scope. */
static int kdf_run(EVP_KDF *kdf, const OSSL_PARAM *params, size_t size, uint8_t *out)
{
	EVP_KDF_CTX *ctx;
	int r;

	key_scope++;
	ctx = EVP_KDF_CTX_new(kdf);
	r = ctx && EVP_KDF_derive(ctx, out, size, params) == 1 ? 0 : -ENOMEM;
	EVP_KDF_CTX_free(ctx);
	key_scope--;
	if (r < 0)
		ERR_clear_error();
	return r;
}

/* Both functions look up others inside OpenSSL; done once before any key is there, the caches that come of it
 * are ordinary memory. */
static bool kdf_warm_up(void)
{
	char digest[] = "SHA256", text[] = "warm up";
	uint64_t n = 2, memory = 1 << 20;
	uint32_t one = 1;
	uint8_t out[32];
	OSSL_PARAM hkdf[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, text, sizeof(text)),
		OSSL_PARAM_construct_end(),
	};
	OSSL_PARAM scrypt[] = {
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PASSWORD, text, sizeof(text)),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, text, sizeof(text)),
		OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_N, &n),
		OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_R, &one),
		OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_P, &one),
		OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_MAXMEM, &memory),
		OSSL_PARAM_construct_end(),
	};
	EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(alg.hkdf);
	bool ok = ctx && EVP_KDF_derive(ctx, out, sizeof(out), hkdf) == 1;

	EVP_KDF_CTX_free(ctx);
	ctx = EVP_KDF_CTX_new(alg.scrypt);
	ok = ok && ctx && EVP_KDF_derive(ctx, out, sizeof(out), scrypt) == 1;
	EVP_KDF_CTX_free(ctx);
	return ok;
}

static void alg_fetch(void)
{
	alg.gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	alg.ecb = EVP_CIPHER_fetch(NULL, "AES-256-ECB", NULL);
	alg.hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	alg.scrypt = EVP_KDF_fetch(NULL, "SCRYPT", NULL);
	alg.sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	alg.ready = alg.gcm && alg.ecb && alg.hkdf && alg.scrypt && alg.sha256 && kdf_warm_up();
	if (!alg.ready)
		ERR_clear_error();
}

/* Must be called outside the key scope. */
static int alg_need(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, alg_fetch);
	return alg.ready ? 0 : -ENOMEM;
}

int crypto_init(void)
{
	static bool hooked;

	if (!hooked && CRYPTO_set_mem_functions(hook_malloc, hook_realloc, hook_free) != 1)
		return -EINVAL;
	hooked = true;
	/* No openssl.cnf: it can load code into the process that holds the keys. No atexit handler: a
	 * server's threads may still use OpenSSL then. */
	if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL) != 1)
		return -ENOMEM;
	return alg_need();
}

int crypto_random(void *buf, size_t size)
{
	uint8_t *p = buf;

	while (size) {
		int n = size > INT_MAX ? INT_MAX : (int)size;

		if (RAND_bytes(p, n) != 1) {
			ERR_clear_error();
			return -EIO;
		}
		p += n;
		size -= (size_t)n;
	}
	return 0;
}

/* One key for both directions. The contexts are made when they are first needed, which many never are. */
struct aead_ctx {
	struct aead_ctx *next; /* in the pool */
	struct pool *pool;
	EVP_CIPHER_CTX *encrypt, *decrypt;
};

struct pool {
	const EVP_CIPHER *cipher;
	struct secret *key;
	size_t iv_size; /* 0: the cipher has none */
	pthread_mutex_t lock;
	const struct gcm *gcm; /* of an aead: takes the place of the contexts */
	struct aead_ctx *idle; /* last in, first out: the warm one; under lock */
};

struct aead {
	struct pool pool;
	struct gcm *gcm; /* faster than OpenSSL; NULL where there is none */
};

struct ecb {
	struct pool pool;
};

static int pool_setup(struct pool *pool, const EVP_CIPHER *cipher, const struct secret *key, size_t iv_size)
{
	if (secret_size(key) != (size_t)EVP_CIPHER_get_key_length(cipher))
		return -EINVAL;
	pool->cipher = cipher;
	pool->iv_size = iv_size;
	pthread_mutex_init(&pool->lock, NULL);
	return secret_new_from(secret_data(key), secret_size(key), &pool->key);
}

/* Nobody may hold a context any more. */
static void pool_clear(struct pool *pool)
{
	while (pool->idle) {
		struct aead_ctx *ctx = pool->idle;

		pool->idle = ctx->next;
		EVP_CIPHER_CTX_free(ctx->encrypt);
		EVP_CIPHER_CTX_free(ctx->decrypt);
		free(ctx);
	}
	secret_free(pool->key);
	pthread_mutex_destroy(&pool->lock);
}

static struct aead_ctx *pool_get(struct pool *pool)
{
	struct aead_ctx *ctx;

	pthread_mutex_lock(&pool->lock);
	ctx = pool->idle;
	if (ctx)
		pool->idle = ctx->next;
	pthread_mutex_unlock(&pool->lock);
	if (ctx)
		return ctx;
	ctx = calloc(1, sizeof(*ctx));
	if (ctx)
		ctx->pool = pool;
	return ctx;
}

static void pool_put(struct pool *pool, struct aead_ctx *ctx)
{
	pthread_mutex_lock(&pool->lock);
	ctx->next = pool->idle;
	pool->idle = ctx;
	pthread_mutex_unlock(&pool->lock);
}

/* The IV length must be set before the key: GCM would otherwise take an IV of 12 bytes with it. Padding is
 * for ciphers without an IV, where one call is any number of whole blocks. */
static EVP_CIPHER_CTX *evp_new(const struct pool *pool, bool encrypt)
{
	EVP_CIPHER_CTX *evp;

	key_scope++;
	evp = EVP_CIPHER_CTX_new();
	if (!evp || EVP_CipherInit_ex(evp, pool->cipher, NULL, NULL, NULL, encrypt) != 1 ||
	    (pool->iv_size &&
	     EVP_CIPHER_CTX_ctrl(evp, EVP_CTRL_AEAD_SET_IVLEN, (int)pool->iv_size, NULL) != 1) ||
	    EVP_CipherInit_ex(evp, NULL, NULL, secret_data(pool->key), NULL, encrypt) != 1 ||
	    (!pool->iv_size && EVP_CIPHER_CTX_set_padding(evp, 0) != 1)) {
		EVP_CIPHER_CTX_free(evp);
		ERR_clear_error();
		evp = NULL;
	}
	key_scope--;
	return evp;
}

/* ctx belongs to the caller alone, so that no lock is needed. */
static EVP_CIPHER_CTX *ctx_evp(struct aead_ctx *ctx, bool encrypt)
{
	EVP_CIPHER_CTX **evp = encrypt ? &ctx->encrypt : &ctx->decrypt;

	if (!*evp)
		*evp = evp_new(ctx->pool, encrypt);
	return *evp;
}

int aead_new(enum aead_kind kind, const struct secret *key, size_t iv_size, struct aead **ret)
{
	struct aead *a;
	int r = alg_need();

	if (r < 0)
		return r;
	if (kind != AEAD_AES_256_GCM || (iv_size != 12 && iv_size != 16))
		return -EINVAL;
	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	r = pool_setup(&a->pool, alg.gcm, key, iv_size);
	if (r < 0) {
		free(a);
		return r;
	}
	r = gcm_new(key, iv_size, &a->gcm);
	if (r < 0 && r != -ENOTSUP) {
		aead_free(a);
		return r;
	}
	a->pool.gcm = a->gcm;
	*ret = a;
	return 0;
}

void aead_free(struct aead *a)
{
	if (!a)
		return;
	gcm_free(a->gcm);
	pool_clear(&a->pool);
	free(a);
}

struct aead_ctx *aead_get(struct aead *a)
{
	return pool_get(&a->pool);
}

void aead_put(struct aead *a, struct aead_ctx *ctx)
{
	pool_put(&a->pool, ctx);
}

/* Everything of a message but its end: the IV, what is only authenticated, and the text. */
static bool gcm_start(EVP_CIPHER_CTX *evp, const uint8_t *iv, const void *aad, size_t aad_size,
		      const void *in, size_t size, void *out)
{
	int n;

	return EVP_CipherInit_ex(evp, NULL, NULL, NULL, iv, -1) == 1 &&
	       (!aad_size || EVP_CipherUpdate(evp, NULL, &n, aad, (int)aad_size) == 1) &&
	       (!size || EVP_CipherUpdate(evp, out, &n, in, (int)size) == 1);
}

int aead_seal(struct aead_ctx *ctx, const uint8_t *iv, const void *aad, size_t aad_size, const void *in,
	      size_t size, void *out, uint8_t *ret_tag)
{
	uint8_t none[EVP_MAX_BLOCK_LENGTH];
	EVP_CIPHER_CTX *evp;
	int n;

	if (size > INT_MAX || aad_size > INT_MAX)
		return -EINVAL;
	if (ctx->pool->gcm) {
		gcm_seal(ctx->pool->gcm, iv, aad, aad_size, in, size, out, ret_tag);
		return 0;
	}
	evp = ctx_evp(ctx, true);
	if (!evp)
		return -ENOMEM;
	if (!gcm_start(evp, iv, aad, aad_size, in, size, out) || EVP_CipherFinal_ex(evp, none, &n) != 1 ||
	    EVP_CIPHER_CTX_ctrl(evp, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_SIZE, ret_tag) != 1) {
		ERR_clear_error();
		return -EIO;
	}
	return 0;
}

int aead_open(struct aead_ctx *ctx, const uint8_t *iv, const void *aad, size_t aad_size, const void *in,
	      size_t size, const uint8_t *tag, void *out)
{
	uint8_t none[EVP_MAX_BLOCK_LENGTH], want[AEAD_TAG_SIZE];
	EVP_CIPHER_CTX *evp;
	int n;

	if (size > INT_MAX || aad_size > INT_MAX)
		return -EINVAL;
	if (ctx->pool->gcm)
		return gcm_open(ctx->pool->gcm, iv, aad, aad_size, in, size, tag, out);
	evp = ctx_evp(ctx, false);
	if (!evp)
		return -ENOMEM;
	memcpy(want, tag, sizeof(want));
	if (gcm_start(evp, iv, aad, aad_size, in, size, out) &&
	    EVP_CIPHER_CTX_ctrl(evp, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG_SIZE, want) == 1 &&
	    EVP_CipherFinal_ex(evp, none, &n) == 1)
		return 0;
	/* GCM decrypts before it knows: what came out is not to be trusted. */
	if (size)
		explicit_bzero(out, size);
	ERR_clear_error();
	return -EBADMSG;
}

int ecb_new(const struct secret *key, struct ecb **ret)
{
	struct ecb *e;
	int r = alg_need();

	if (r < 0)
		return r;
	e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	r = pool_setup(&e->pool, alg.ecb, key, 0);
	if (r < 0) {
		free(e);
		return r;
	}
	*ret = e;
	return 0;
}

void ecb_free(struct ecb *e)
{
	if (!e)
		return;
	pool_clear(&e->pool);
	free(e);
}

int ecb_crypt(struct ecb *e, bool encrypt, const void *in, size_t nblocks, void *out)
{
	struct aead_ctx *ctx;
	EVP_CIPHER_CTX *evp;
	int n, r = 0;

	if (nblocks > INT_MAX / 16)
		return -EINVAL;
	ctx = pool_get(&e->pool);
	if (!ctx)
		return -ENOMEM;
	evp = ctx_evp(ctx, encrypt);
	if (!evp)
		r = -ENOMEM;
	else if (nblocks && EVP_CipherUpdate(evp, out, &n, in, (int)nblocks * 16) != 1)
		r = -EIO;
	pool_put(&e->pool, ctx);
	return r;
}

int hkdf_sha256(const struct secret *ikm, const char *info, size_t size, struct secret **ret)
{
	autosecret struct secret *out = NULL;
	char digest[] = "SHA256";
	OSSL_PARAM params[4], *p = params;
	autofree char *info_copy = strdup(info); /* OSSL_PARAM has no const */
	int r = alg_need();

	if (r < 0)
		return r;
	if (!info_copy)
		return -ENOMEM;
	if (size > 255 * 32)
		return -EINVAL;
	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, secret_data(ikm), secret_size(ikm));
	if (*info)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info_copy, strlen(info));
	*p = OSSL_PARAM_construct_end();
	r = secret_new(size, &out);
	if (r == 0)
		r = kdf_run(alg.hkdf, params, size, secret_data(out));
	if (r < 0)
		return r;
	*ret = steal_ptr(&out);
	return 0;
}

/* RFC 7914 section 2, and that the products below do not overflow. */
static bool scrypt_has(uint64_t n, uint32_t r, uint32_t p)
{
	return n > 1 && (n & (n - 1)) == 0 && r > 0 && p > 0 && (uint64_t)r * p < 1 << 30 &&
	       n <= (uint64_t)INT64_MAX / 128 / r && (r >= 4 || n >> (16 * r) == 0);
}

int scrypt_derive(const struct secret *password, const void *salt, size_t salt_size, uint64_t n, uint32_t r,
		  uint32_t p, uint64_t max_memory, struct secret **ret)
{
	autosecret struct secret *out = NULL;
	autofree uint8_t *salt_copy = malloc(salt_size + 1); /* OSSL_PARAM has no const */
	uint64_t no_limit = SIZE_MAX;
	int res = alg_need();

	if (res < 0)
		return res;
	if (!scrypt_has(n, r, p))
		return -EINVAL;
	/* The table, and the p blocks before it: with p = 1 that is 128*n*r. */
	if (!salt_copy || UINT64_C(128) * r * (n + p - 1) > max_memory)
		return -ENOMEM;
	if (salt_size)
		memcpy(salt_copy, salt, salt_size);
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PASSWORD, secret_data(password),
						  secret_size(password)),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, salt_copy, salt_size),
		OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_N, &n),
		OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_R, &r),
		OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_P, &p),
		OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_MAXMEM, &no_limit),
		OSSL_PARAM_construct_end(),
	};
	res = secret_new(32, &out);
	if (res == 0)
		res = kdf_run(alg.scrypt, params, secret_size(out), secret_data(out));
	if (res < 0)
		return res;
	*ret = steal_ptr(&out);
	return 0;
}

int sha256(const void *data, size_t size, uint8_t ret[32])
{
	int r = alg_need();

	if (r < 0)
		return r;
	return EVP_Digest(data, size, ret, NULL, alg.sha256, NULL) == 1 ? 0 : -ENOMEM;
}

bool crypto_equal(const void *a, const void *b, size_t size)
{
	return CRYPTO_memcmp(a, b, size) == 0;
}
