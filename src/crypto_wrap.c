/* SPDX-License-Identifier: MIT */
/* HMAC, CTR and HKDF-SHA512 through OpenSSL: looked up once, as in crypto.c. */
#include "crypto_wrap.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <pthread.h>
#include <string.h>

#include "cleanup.h"
#include "crypto_impl.h"

enum { INFO_MAX = 64, CTR_MAX = 1 << 16 };

static struct {
	const struct crypto_ciphers *ciphers;
	EVP_KDF *hkdf;
	EVP_MAC *hmac;
} alg;

static int hkdf_run(uint8_t *key, size_t key_size, void *info, size_t info_size, size_t size, uint8_t *out)
{
	char digest[] = "SHA512";
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, key, key_size),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, info_size),
		OSSL_PARAM_construct_end(),
	};
	EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(alg.hkdf);
	int r = ctx && EVP_KDF_derive(ctx, out, size, params) == 1 ? 0 : -ENOMEM;

	EVP_KDF_CTX_free(ctx);
	if (r < 0)
		ERR_clear_error();
	return r;
}

static int hmac_run(char *digest, const uint8_t *key, size_t key_size, const void *data, size_t size,
		    uint8_t *ret, size_t ret_size)
{
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_end(),
	};
	EVP_MAC_CTX *ctx = EVP_MAC_CTX_new(alg.hmac);
	size_t n;
	int r = ctx && EVP_MAC_init(ctx, key, key_size, params) == 1 &&
				EVP_MAC_update(ctx, data, size) == 1 &&
				EVP_MAC_final(ctx, ret, &n, ret_size) == 1 && n == ret_size
			? 0
			: -ENOMEM;

	EVP_MAC_CTX_free(ctx);
	if (r < 0)
		ERR_clear_error();
	return r;
}

/* Both look up others inside OpenSSL: what they cache at first is to be ordinary memory, as in crypto.c. */
static void alg_fetch(void)
{
	uint8_t text[] = "warm up", out[32];
	char sha256[] = "SHA256", md5[] = "MD5";
	EVP_KDF *hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);

	alg.hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	alg.hkdf = hkdf;
	if (hkdf && alg.hmac && hkdf_run(text, sizeof(text), text, sizeof(text), sizeof(out), out) == 0 &&
	    hmac_run(sha256, text, sizeof(text), text, sizeof(text), out, 32) == 0 &&
	    /* Where MD5 is forbidden, only those who want it are told. */
	    (hmac_run(md5, text, sizeof(text), text, sizeof(text), out, 16) == 0 || true))
		alg.ciphers = crypto_ciphers();
}

/* Must be called outside the key scope. */
static int alg_need(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, alg_fetch);
	return alg.ciphers ? 0 : -ENOMEM;
}

int hkdf_sha512(const struct secret *ikm, const void *info, size_t info_size, size_t size,
		struct secret **ret)
{
	autosecret struct secret *out = NULL;
	uint8_t copy[INFO_MAX]; /* OSSL_PARAM has no const */
	int r = alg_need();

	if (r < 0)
		return r;
	if (info_size > sizeof(copy) || size > (size_t)255 * 64)
		return -EINVAL;
	memcpy(copy, info, info_size);
	r = secret_new(size, &out);
	if (r < 0)
		return r;
	crypto_scope_enter();
	r = hkdf_run(secret_data(ikm), secret_size(ikm), copy, info_size, size, secret_data(out));
	crypto_scope_leave();
	if (r < 0)
		return r;
	*ret = steal_ptr(&out);
	return 0;
}

static int hmac(const char *name, const struct secret *key, const void *data, size_t size, uint8_t *ret,
		size_t ret_size)
{
	uint8_t out[32];
	char digest[16];
	int r = alg_need();

	if (r < 0)
		return r;
	strcpy(digest, name);
	crypto_scope_enter();
	r = hmac_run(digest, secret_data(key), secret_size(key), data, size, out, ret_size);
	crypto_scope_leave();
	if (r == 0)
		memcpy(ret, out, ret_size);
	explicit_bzero(out, sizeof(out));
	return r;
}

int hmac_sha256(const struct secret *key, const void *data, size_t size, uint8_t ret[32])
{
	return hmac("SHA256", key, data, size, ret, 32);
}

int hmac_md5(const struct secret *key, const void *data, size_t size, uint8_t ret[16])
{
	return hmac("MD5", key, data, size, ret, 16);
}

static int ctr_run(const struct secret *key, const uint8_t iv[16], const void *in, size_t size, uint8_t *out)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int n;
	int r = ctx && EVP_EncryptInit_ex2(ctx, alg.ciphers->ctr, secret_data(key), iv, NULL) == 1 &&
				EVP_EncryptUpdate(ctx, out, &n, in, (int)size) == 1 && (size_t)n == size
			? 0
			: -ENOMEM;

	EVP_CIPHER_CTX_free(ctx);
	if (r < 0)
		ERR_clear_error();
	return r;
}

int aes_ctr(const struct secret *key, const uint8_t iv[16], const void *in, size_t size, struct secret **ret)
{
	autosecret struct secret *out = NULL;
	int r = alg_need();

	if (r < 0)
		return r;
	if (secret_size(key) != 32 || !size || size > CTR_MAX)
		return -EINVAL;
	r = secret_new(size, &out);
	if (r < 0)
		return r;
	crypto_scope_enter();
	r = ctr_run(key, iv, in, size, secret_data(out));
	crypto_scope_leave();
	if (r < 0)
		return r;
	*ret = steal_ptr(&out);
	return 0;
}
