/* SPDX-License-Identifier: MIT */
/*
 * The authenticated ciphers. OpenSSL 3.0 has AES-SIV, but takes a key schedule and a call per 16 bytes for
 * each message; and it has no XChaCha20. Both are put together here from what it does fast.
 */
#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "crypto_gcm.h"
#include "crypto_impl.h"

enum {
	BLOCK = 16,
	GCM_SEAL = 0,
	GCM_OPEN = 1,
	SIV_CBC = 0,
	SIV_CTR = 1,
	XCHACHA_SEAL = 0,
	XCHACHA_OPEN = 1,
	XCHACHA_STREAM = 2,
	XCHACHA_IV = 24,
	CHACHA_BLOCK = 64,
};

/* What of CMAC depends on the key alone: its two masks, and the CMAC of sixteen zeros. */
struct siv_masks {
	uint8_t whole[BLOCK], padded[BLOCK], of_zeros[BLOCK];
};

struct aead {
	struct crypto_pool pool; /* first: a context leads back here, ctx_aead() */
	enum aead_kind kind;
	struct gcm *gcm;      /* faster than OpenSSL; NULL where there is none */
	struct secret *masks; /* SIV: struct siv_masks */
};

static const struct aead *ctx_aead(const struct aead_ctx *ctx)
{
	return (const struct aead *)ctx->pool;
}

/* What came out before the tag was checked is not to be trusted. */
static int reject(void *out, size_t size)
{
	if (size)
		explicit_bzero(out, size);
	ERR_clear_error();
	return -EBADMSG;
}

/* ---- ciphers that OpenSSL has as they are wanted: the IV is set, and for ChaCha20 the key ---- */

static int evp_seal(EVP_CIPHER_CTX *evp, const void *aad, size_t aad_size, const void *in, size_t size,
		    void *out, uint8_t *ret_tag)
{
	uint8_t none[EVP_MAX_BLOCK_LENGTH];
	int n;

	if ((!aad_size || EVP_CipherUpdate(evp, NULL, &n, aad, (int)aad_size) == 1) &&
	    (!size || EVP_CipherUpdate(evp, out, &n, in, (int)size) == 1) &&
	    EVP_CipherFinal_ex(evp, none, &n) == 1 &&
	    EVP_CIPHER_CTX_ctrl(evp, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_SIZE, ret_tag) == 1)
		return 0;
	ERR_clear_error();
	return -EIO;
}

static int evp_open(EVP_CIPHER_CTX *evp, const void *aad, size_t aad_size, const void *in, size_t size,
		    const uint8_t *tag, void *out)
{
	uint8_t none[EVP_MAX_BLOCK_LENGTH], want[AEAD_TAG_SIZE];
	int n;

	memcpy(want, tag, sizeof(want));
	if ((!aad_size || EVP_CipherUpdate(evp, NULL, &n, aad, (int)aad_size) == 1) &&
	    (!size || EVP_CipherUpdate(evp, out, &n, in, (int)size) == 1) &&
	    EVP_CIPHER_CTX_ctrl(evp, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG_SIZE, want) == 1 &&
	    EVP_CipherFinal_ex(evp, none, &n) == 1)
		return 0;
	return reject(out, size);
}

static EVP_CIPHER_CTX *gcm_begin(struct aead_ctx *ctx, unsigned slot, const uint8_t *iv)
{
	EVP_CIPHER_CTX *evp = crypto_ctx_evp(ctx, slot);

	return evp && EVP_CipherInit_ex(evp, NULL, NULL, NULL, iv, -1) == 1 ? evp : NULL;
}

/* ---- XChaCha20-Poly1305: a key made of the IV's first part (HChaCha20), then RFC 8439 with the rest ---- */

/*
 * HChaCha20 is ChaCha20's block function without its last step, which adds the input: subtracting the eight
 * words that it keeps and that the caller knows undoes the step.
 */
static bool hchacha20(struct aead_ctx *ctx, const uint8_t *iv, uint8_t subkey[32])
{
	static const uint8_t zero[CHACHA_BLOCK], constants[BLOCK] = "expand 32-byte k";
	EVP_CIPHER_CTX *evp = crypto_ctx_evp(ctx, XCHACHA_STREAM);
	uint8_t *stream = secret_data(ctx->room) + 32;
	int n;

	if (!evp || EVP_CipherInit_ex(evp, NULL, NULL, NULL, iv, -1) != 1 ||
	    EVP_CipherUpdate(evp, stream, &n, zero, CHACHA_BLOCK) != 1)
		return false;
	for (int i = 0; i < 8; i++) {
		const uint8_t *input = i < 4 ? constants + 4 * i : iv + 4 * (i - 4);
		uint32_t word, known;

		memcpy(&word, stream + 4 * (i < 4 ? i : i + 8), sizeof(word));
		memcpy(&known, input, sizeof(known));
		word = htole32(le32toh(word) - le32toh(known));
		memcpy(subkey + 4 * i, &word, sizeof(word));
	}
	return true;
}

static EVP_CIPHER_CTX *xchacha_begin(struct aead_ctx *ctx, unsigned slot, const uint8_t *iv)
{
	EVP_CIPHER_CTX *evp = crypto_ctx_evp(ctx, slot);
	uint8_t *subkey = secret_data(ctx->room), rest[12] = {0};
	bool ok;

	memcpy(rest + 4, iv + 16, 8);
	crypto_scope_enter();
	ok = evp && hchacha20(ctx, iv, subkey) && EVP_CipherInit_ex(evp, NULL, NULL, subkey, rest, -1) == 1;
	crypto_scope_leave();
	return ok ? evp : NULL;
}

/* ---- AES-SIV, RFC 5297: the IV of CTR is a CMAC over everything ---- */

/* Times 2 in GF(2^128), byte 15 the least significant. Without a branch on the carry. */
static void siv_double(uint8_t x[BLOCK])
{
	uint8_t carry = x[0] >> 7;

	for (int i = 0; i < BLOCK - 1; i++)
		x[i] = (uint8_t)(x[i] << 1) | x[i + 1] >> 7;
	x[BLOCK - 1] = (uint8_t)(x[BLOCK - 1] << 1) ^ (uint8_t)(0x87 & -carry);
}

static void siv_xor(uint8_t *to, const uint8_t *with)
{
	for (int i = 0; i < BLOCK; i++)
		to[i] ^= with[i];
}

/* Runs whole blocks through CBC: out is the last one that comes of it, and untouched if there is none. */
static bool siv_chain(EVP_CIPHER_CTX *cbc, const uint8_t *in, size_t size, uint8_t out[BLOCK])
{
	uint8_t scratch[4096];
	int n;

	while (size) {
		size_t part = size < sizeof(scratch) ? size : sizeof(scratch);

		if (EVP_CipherUpdate(cbc, scratch, &n, in, (int)part) != 1)
			return false;
		memcpy(out, scratch + part - BLOCK, BLOCK);
		in += part;
		size -= part;
	}
	return true;
}

/* CMAC of head, whole blocks, and behind it the last bytes: up to 31, none only where head is empty, too. */
static bool siv_cmac(const struct siv_masks *masks, EVP_CIPHER_CTX *cbc, const uint8_t *head,
		     size_t head_size, const uint8_t *last, size_t last_size, uint8_t out[BLOCK])
{
	static const uint8_t zero[BLOCK];
	uint8_t end[2 * BLOCK] = {0};
	size_t end_size = last_size <= BLOCK ? BLOCK : 2 * BLOCK;
	bool ok;

	if (last_size)
		memcpy(end, last, last_size);
	if (last_size < end_size)
		end[last_size] = 0x80;
	siv_xor(end + end_size - BLOCK, last_size < end_size ? masks->padded : masks->whole);
	ok = EVP_CipherInit_ex(cbc, NULL, NULL, NULL, zero, -1) == 1 &&
	     siv_chain(cbc, head, head_size, out) && siv_chain(cbc, end, end_size, out);
	explicit_bzero(end, sizeof(end));
	return ok;
}

/* A string of any length. */
static bool siv_cmac_all(const struct siv_masks *masks, EVP_CIPHER_CTX *cbc, const uint8_t *data, size_t size,
			 uint8_t out[BLOCK])
{
	size_t head = size ? (size - 1) / BLOCK * BLOCK : 0;

	return siv_cmac(masks, cbc, data, head, data + head, size - head, out);
}

/* S2V of three strings: what is authenticated, the IV, the text. */
static bool siv_vector(struct aead_ctx *ctx, const uint8_t *iv, const uint8_t *aad, size_t aad_size,
		       const uint8_t *text, size_t size, uint8_t ret[BLOCK])
{
	const struct siv_masks *masks = (const void *)secret_data(ctx_aead(ctx)->masks);
	EVP_CIPHER_CTX *cbc = crypto_ctx_evp(ctx, SIV_CBC);
	size_t head = size < BLOCK ? 0 : (size - BLOCK) / BLOCK * BLOCK, rest = size - head;
	uint8_t d[BLOCK], one[BLOCK], last[2 * BLOCK] = {0};
	bool ok;

	memcpy(d, masks->of_zeros, BLOCK);
	siv_double(d);
	if (!cbc || !siv_cmac_all(masks, cbc, aad, aad_size, one))
		return false;
	siv_xor(d, one);
	siv_double(d);
	if (!siv_cmac_all(masks, cbc, iv, BLOCK, one))
		return false;
	siv_xor(d, one);
	if (rest)
		memcpy(last, text + head, rest);
	if (size < BLOCK) {
		siv_double(d);
		last[size] = 0x80;
		siv_xor(last, d);
		rest = BLOCK;
	} else {
		siv_xor(last + rest - BLOCK, d);
	}
	ok = siv_cmac(masks, cbc, text, head, last, rest, ret);
	explicit_bzero(last, sizeof(last));
	return ok;
}

/* Both directions. */
static bool siv_stream(struct aead_ctx *ctx, const uint8_t *tag, const void *in, size_t size, void *out)
{
	EVP_CIPHER_CTX *ctr = crypto_ctx_evp(ctx, SIV_CTR);
	uint8_t iv[BLOCK];
	int n;

	memcpy(iv, tag, BLOCK);
	iv[8] &= 0x7f;
	iv[12] &= 0x7f;
	return ctr && EVP_CipherInit_ex(ctr, NULL, NULL, NULL, iv, -1) == 1 &&
	       (!size || EVP_CipherUpdate(ctr, out, &n, in, (int)size) == 1);
}

static int siv_seal(struct aead_ctx *ctx, const uint8_t *iv, const void *aad, size_t aad_size, const void *in,
		    size_t size, void *out, uint8_t *ret_tag)
{
	uint8_t tag[BLOCK];

	if (!siv_vector(ctx, iv, aad, aad_size, in, size, tag) || !siv_stream(ctx, tag, in, size, out)) {
		ERR_clear_error();
		return -EIO;
	}
	memcpy(ret_tag, tag, sizeof(tag));
	return 0;
}

static int siv_open(struct aead_ctx *ctx, const uint8_t *iv, const void *aad, size_t aad_size, const void *in,
		    size_t size, const uint8_t *tag, void *out)
{
	uint8_t want[BLOCK], real[BLOCK];

	memcpy(want, tag, sizeof(want)); /* out may reach over it */
	if (siv_stream(ctx, want, in, size, out) && siv_vector(ctx, iv, aad, aad_size, out, size, real) &&
	    crypto_equal(real, want, sizeof(real)))
		return 0;
	return reject(out, size);
}

/* CMAC's masks come of the encrypted zero block. */
static int siv_setup(struct aead *a)
{
	static const uint8_t zero[BLOCK];
	struct aead_ctx *ctx;
	struct siv_masks *masks;
	EVP_CIPHER_CTX *cbc;
	int r = secret_new(sizeof(*masks), &a->masks);

	if (r < 0)
		return r;
	ctx = crypto_pool_get(&a->pool);
	if (!ctx)
		return -ENOMEM;
	masks = (void *)secret_data(a->masks);
	cbc = crypto_ctx_evp(ctx, SIV_CBC);
	if (cbc && EVP_CipherInit_ex(cbc, NULL, NULL, NULL, zero, -1) == 1 &&
	    siv_chain(cbc, zero, BLOCK, masks->whole)) {
		siv_double(masks->whole);
		memcpy(masks->padded, masks->whole, BLOCK);
		siv_double(masks->padded);
		r = siv_cmac_all(masks, cbc, zero, BLOCK, masks->of_zeros) ? 0 : -EIO;
	} else {
		r = -ENOMEM;
	}
	crypto_pool_put(&a->pool, ctx);
	if (r < 0)
		ERR_clear_error();
	return r;
}

/* ---- all of them ---- */

size_t aead_key_size(enum aead_kind kind)
{
	return kind == AEAD_AES_256_SIV ? 64 : 32;
}

static bool iv_size_fits(enum aead_kind kind, size_t iv_size)
{
	switch (kind) {
	case AEAD_AES_256_GCM:
		return iv_size == 12 || iv_size == 16;
	case AEAD_AES_256_SIV:
		return iv_size == BLOCK;
	case AEAD_XCHACHA20_POLY1305:
		return iv_size == XCHACHA_IV;
	}
	return false;
}

static void choose_slots(struct aead *a, const struct crypto_ciphers *c, size_t iv_size)
{
	struct crypto_slot *slots = a->pool.slots;

	switch (a->kind) {
	case AEAD_AES_256_GCM:
		slots[GCM_SEAL] = (struct crypto_slot){.cipher = c->gcm, .encrypt = true, .iv_size = iv_size};
		slots[GCM_OPEN] = (struct crypto_slot){.cipher = c->gcm, .iv_size = iv_size};
		break;
	case AEAD_AES_256_SIV:
		slots[SIV_CBC] = (struct crypto_slot){.cipher = c->cbc, .encrypt = true};
		slots[SIV_CTR] = (struct crypto_slot){.cipher = c->ctr, .encrypt = true, .key_offset = 32};
		break;
	case AEAD_XCHACHA20_POLY1305:
		slots[XCHACHA_SEAL] =
			(struct crypto_slot){.cipher = c->chacha_poly, .encrypt = true, .keyless = true};
		slots[XCHACHA_OPEN] = (struct crypto_slot){.cipher = c->chacha_poly, .keyless = true};
		slots[XCHACHA_STREAM] = (struct crypto_slot){.cipher = c->chacha, .encrypt = true};
		a->pool.room_size = 32 + CHACHA_BLOCK;
		break;
	}
}

/* Where Intel's library has it, OpenSSL's contexts are never made. */
static int gcm_setup(struct aead *a, const struct secret *key, size_t iv_size)
{
	int r = gcm_new(key, iv_size, &a->gcm);

	return r == -ENOTSUP ? 0 : r;
}

int aead_new(enum aead_kind kind, const struct secret *key, size_t iv_size, struct aead **ret)
{
	const struct crypto_ciphers *ciphers = crypto_ciphers();
	struct aead *a;
	int r;

	if (!ciphers)
		return -ENOMEM;
	if (!iv_size_fits(kind, iv_size) || secret_size(key) != aead_key_size(kind))
		return -EINVAL;
	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->kind = kind;
	choose_slots(a, ciphers, iv_size);
	r = crypto_pool_setup(&a->pool, key, aead_key_size(kind));
	if (r == 0 && kind == AEAD_AES_256_GCM)
		r = gcm_setup(a, key, iv_size);
	if (r == 0 && kind == AEAD_AES_256_SIV)
		r = siv_setup(a);
	if (r < 0) {
		aead_free(a);
		return r;
	}
	*ret = a;
	return 0;
}

void aead_free(struct aead *a)
{
	if (!a)
		return;
	gcm_free(a->gcm);
	secret_free(a->masks);
	crypto_pool_clear(&a->pool);
	free(a);
}

struct aead_ctx *aead_get(struct aead *a)
{
	return crypto_pool_get(&a->pool);
}

void aead_put(struct aead *a, struct aead_ctx *ctx)
{
	crypto_pool_put(&a->pool, ctx);
}

int aead_seal(struct aead_ctx *ctx, const uint8_t *iv, const void *aad, size_t aad_size, const void *in,
	      size_t size, void *out, uint8_t *ret_tag)
{
	const struct aead *a = ctx_aead(ctx);
	EVP_CIPHER_CTX *evp;

	if (size > INT_MAX || aad_size > INT_MAX)
		return -EINVAL;
	if (a->gcm) {
		gcm_seal(a->gcm, iv, aad, aad_size, in, size, out, ret_tag);
		return 0;
	}
	if (a->kind == AEAD_AES_256_SIV)
		return siv_seal(ctx, iv, aad, aad_size, in, size, out, ret_tag);
	evp = a->kind == AEAD_AES_256_GCM ? gcm_begin(ctx, GCM_SEAL, iv)
					  : xchacha_begin(ctx, XCHACHA_SEAL, iv);
	return evp ? evp_seal(evp, aad, aad_size, in, size, out, ret_tag) : -ENOMEM;
}

int aead_open(struct aead_ctx *ctx, const uint8_t *iv, const void *aad, size_t aad_size, const void *in,
	      size_t size, const uint8_t *tag, void *out)
{
	const struct aead *a = ctx_aead(ctx);
	EVP_CIPHER_CTX *evp;

	if (size > INT_MAX || aad_size > INT_MAX)
		return -EINVAL;
	if (a->gcm)
		return gcm_open(a->gcm, iv, aad, aad_size, in, size, tag, out);
	if (a->kind == AEAD_AES_256_SIV)
		return siv_open(ctx, iv, aad, aad_size, in, size, tag, out);
	evp = a->kind == AEAD_AES_256_GCM ? gcm_begin(ctx, GCM_OPEN, iv)
					  : xchacha_begin(ctx, XCHACHA_OPEN, iv);
	return evp ? evp_open(evp, aad, aad_size, in, size, tag, out) : -ENOMEM;
}
