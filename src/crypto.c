/* SPDX-License-Identifier: MIT */
/*
 * OpenSSL 3 through EVP: where it keeps keys (its allocator is hooked, and a thread that is inside the key
 * scope gets secret memory), which of its algorithms are used, and those that are no AEAD.
 */
#include <errno.h>
#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "crypto_impl.h"

/* How deep this thread is in calls that give OpenSSL a key: what it allocates then is secret. */
static _Thread_local unsigned key_scope;

void crypto_scope_enter(void)
{
	secret_stack();
	key_scope++;
}

void crypto_scope_leave(void)
{
	key_scope--;
}

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

static struct {
	struct crypto_ciphers ciphers;
	EVP_KDF *hkdf, *scrypt;
	EVP_MD *sha256, *sha512;
	bool ready;
} alg;

/* params hold pointers into secrets; OpenSSL copies what they point to, hence the scope. */
static int kdf_run(EVP_KDF *kdf, const OSSL_PARAM *params, size_t size, uint8_t *out)
{
	EVP_KDF_CTX *ctx;
	int r;

	crypto_scope_enter();
	ctx = EVP_KDF_CTX_new(kdf);
	r = ctx && EVP_KDF_derive(ctx, out, size, params) == 1 ? 0 : -ENOMEM;
	EVP_KDF_CTX_free(ctx);
	crypto_scope_leave();
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

static bool ciphers_fetch(struct crypto_ciphers *c)
{
	c->gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	c->ecb = EVP_CIPHER_fetch(NULL, "AES-256-ECB", NULL);
	c->cbc = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
	c->ctr = EVP_CIPHER_fetch(NULL, "AES-256-CTR", NULL);
	c->chacha = EVP_CIPHER_fetch(NULL, "ChaCha20", NULL);
	c->chacha_poly = EVP_CIPHER_fetch(NULL, "ChaCha20-Poly1305", NULL);
	return c->gcm && c->ecb && c->cbc && c->ctr && c->chacha && c->chacha_poly;
}

static void alg_fetch(void)
{
	alg.hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	alg.scrypt = EVP_KDF_fetch(NULL, "SCRYPT", NULL);
	alg.sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	alg.sha512 = EVP_MD_fetch(NULL, "SHA512", NULL);
	alg.ready = ciphers_fetch(&alg.ciphers) && alg.hkdf && alg.scrypt && alg.sha256 && alg.sha512 &&
		    kdf_warm_up();
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

const struct crypto_ciphers *crypto_ciphers(void)
{
	return alg_need() == 0 ? &alg.ciphers : NULL;
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

enum { ECB_DECRYPT, ECB_ENCRYPT };

struct ecb {
	struct crypto_pool pool;
};

int ecb_new(const struct secret *key, struct ecb **ret)
{
	struct ecb *e;
	int r = alg_need();

	if (r < 0)
		return r;
	e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	e->pool.slots[ECB_DECRYPT] = (struct crypto_slot){.cipher = alg.ciphers.ecb};
	e->pool.slots[ECB_ENCRYPT] = (struct crypto_slot){.cipher = alg.ciphers.ecb, .encrypt = true};
	r = crypto_pool_setup(&e->pool, key, 32);
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
	crypto_pool_clear(&e->pool);
	free(e);
}

int ecb_crypt(struct ecb *e, bool encrypt, const void *in, size_t nblocks, void *out)
{
	struct aead_ctx *ctx;
	EVP_CIPHER_CTX *evp;
	int n, r = 0;

	if (nblocks > INT_MAX / 16)
		return -EINVAL;
	ctx = crypto_pool_get(&e->pool);
	if (!ctx)
		return -ENOMEM;
	evp = crypto_ctx_evp(ctx, encrypt ? ECB_ENCRYPT : ECB_DECRYPT);
	if (!evp)
		r = -ENOMEM;
	else if (nblocks && EVP_CipherUpdate(evp, out, &n, in, (int)nblocks * 16) != 1)
		r = -EIO;
	crypto_pool_put(&e->pool, ctx);
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

int sha256_secret(const struct secret *data, size_t size, uint8_t ret[32])
{
	int r;

	crypto_scope_enter();
	r = sha256(secret_data(data), size, ret);
	crypto_scope_leave();
	secret_stack_wipe();
	return r;
}

int sha512_secret(const struct secret *data, struct secret **ret)
{
	autosecret struct secret *out = NULL;
	int r = alg_need();

	if (r == 0)
		r = secret_new(64, &out);
	if (r < 0)
		return r;
	crypto_scope_enter();
	if (EVP_Digest(secret_data(data), secret_size(data), secret_data(out), NULL, alg.sha512, NULL) != 1)
		r = -ENOMEM;
	crypto_scope_leave();
	if (r < 0)
		return r;
	*ret = steal_ptr(&out);
	return 0;
}

bool crypto_equal(const void *a, const void *b, size_t size)
{
	return CRYPTO_memcmp(a, b, size) == 0;
}
