/* SPDX-License-Identifier: MIT */
/*
 * A block is IV, ciphertext, tag (with SIV: IV, tag, ciphertext); its number and the file's ID are
 * authenticated with it, so that blocks cannot change places. What the format does not authenticate is the
 * length of a file and that a hole is one.
 */
#include "gcfs_content.h"

#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "crypto.h"
#include "util.h"

enum {
	IV_MAX = 24,
	VERSION = 2,
	RANDOM_RUN = 256,        /* blocks whose IVs are drawn with one call */
	SYMLINK_TEXT_MAX = 4095, /* what symlink(2) takes */
};

/* The content ciphers. hkdf_info: for what the key is derived from the master key. */
struct cipher {
	enum aead_kind kind;
	const char *hkdf_info;
	size_t iv_size;
	bool tag_first; /* in a block */
};

static const struct cipher aes_gcm = {AEAD_AES_256_GCM, "AES-GCM file content encryption", 16, false};
static const struct cipher aes_siv = {AEAD_AES_256_SIV, "AES-SIV file content encryption", 16, true};
static const struct cipher xchacha = {AEAD_XCHACHA20_POLY1305, "XChaCha20-Poly1305 file content encryption",
				      24, false};

struct gcfs_content {
	struct aead *aead;
	size_t iv_size;
	bool tag_first;
	enum base64_kind base64;
};

/* What is authenticated besides the text: the block's number, and which file it belongs to. */
struct block_aad {
	uint8_t bytes[8 + GCFS_FILE_ID];
	size_t size;
};

static void aad_init(struct block_aad *aad, const uint8_t *id)
{
	memset(aad->bytes, 0, 8);
	aad->size = 8;
	if (id) {
		memcpy(aad->bytes + 8, id, GCFS_FILE_ID);
		aad->size = sizeof(aad->bytes);
	}
}

static void aad_set_block(struct block_aad *aad, uint64_t block)
{
	uint64_t be = htobe64(block);

	memcpy(aad->bytes, &be, sizeof(be));
}

static const struct cipher *choose_cipher(unsigned flags)
{
	switch (flags & (GCFS_AESSIV | GCFS_XCHACHA | GCFS_GCMIV128)) {
	case GCFS_GCMIV128:
		return &aes_gcm;
	case GCFS_AESSIV | GCFS_GCMIV128:
		return &aes_siv;
	case GCFS_XCHACHA:
		return flags & GCFS_HKDF ? &xchacha : NULL;
	default:
		return NULL;
	}
}

/* Volumes before gocryptfs 1.3 have no HKDF: the master key serves as it is, hashed where it is too short. */
static int content_key(const struct secret *master, unsigned flags, const struct cipher *cipher,
		       struct secret **ret)
{
	if (flags & GCFS_HKDF)
		return hkdf_sha256(master, cipher->hkdf_info, aead_key_size(cipher->kind), ret);
	if (cipher->kind == AEAD_AES_256_SIV)
		return sha512_secret(master, ret);
	return secret_new_from(secret_data(master), secret_size(master), ret);
}

int gcfs_content_new(const struct secret *master, unsigned flags, struct gcfs_content **ret)
{
	const struct cipher *cipher = choose_cipher(flags);
	autosecret struct secret *key = NULL;
	struct gcfs_content *c;
	int r;

	if (!cipher)
		return -EINVAL;
	r = content_key(master, flags, cipher, &key);
	if (r < 0)
		return r;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->iv_size = cipher->iv_size;
	c->tag_first = cipher->tag_first;
	c->base64 = flags & GCFS_RAW64 ? BASE64_URL_RAW : BASE64_URL_PADDED;
	r = aead_new(cipher->kind, key, c->iv_size, &c->aead);
	if (r < 0) {
		free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void gcfs_content_free(struct gcfs_content *c)
{
	if (!c)
		return;
	aead_free(c->aead);
	free(c);
}

size_t gcfs_overhead(const struct gcfs_content *c)
{
	return c->iv_size + AEAD_TAG_SIZE;
}

int gcfs_cipher_size(const struct gcfs_content *c, uint64_t plain, uint64_t *ret_cipher)
{
	uint64_t blocks;

	if (plain > INT64_MAX / 2)
		return -EFBIG;
	blocks = plain / GCFS_BLOCK + (plain % GCFS_BLOCK != 0);
	*ret_cipher = plain ? GCFS_HEADER + plain + gcfs_overhead(c) * blocks : 0;
	return 0;
}

uint64_t gcfs_plain_size(const struct gcfs_content *c, uint64_t cipher)
{
	uint64_t overhead = gcfs_overhead(c), tail;

	if (cipher <= GCFS_HEADER)
		return 0;
	cipher -= GCFS_HEADER;
	tail = cipher % (GCFS_BLOCK + overhead);
	/* A tail too short for one byte is damaged; it counts as one, so that reading it fails. */
	if (tail)
		tail = tail > overhead ? tail - overhead : 1;
	return cipher / (GCFS_BLOCK + overhead) * GCFS_BLOCK + tail;
}

/* Each byte equals the next, and the first is zero: memcmp() is the fastest loop there is. */
static bool is_zero(const uint8_t *p, size_t size)
{
	return size == 0 || (p[0] == 0 && memcmp(p, p + 1, size - 1) == 0);
}

/* count random values of size bytes; none of them all zero, which would read as a hole. */
static int random_nonzero(uint8_t *buf, size_t size, size_t count)
{
	int r = crypto_random(buf, size * count);

	for (size_t i = 0; r == 0 && i < count; i++)
		while (r == 0 && is_zero(buf + i * size, size))
			r = crypto_random(buf + i * size, size);
	return r;
}

int gcfs_header_new(uint8_t ret_header[GCFS_HEADER])
{
	uint8_t id[GCFS_FILE_ID];
	int r = random_nonzero(id, sizeof(id), 1);

	if (r < 0)
		return r;
	ret_header[0] = 0;
	ret_header[1] = VERSION;
	memcpy(ret_header + 2, id, sizeof(id));
	return 0;
}

int gcfs_header_parse(const uint8_t header[GCFS_HEADER], uint8_t ret_id[GCFS_FILE_ID])
{
	if (header[0] != 0 || header[1] != VERSION || is_zero(header + 2, GCFS_FILE_ID))
		return -EBADMSG;
	memcpy(ret_id, header + 2, GCFS_FILE_ID);
	return 0;
}

/* Where in a block the text begins, and where the tag. */
static size_t text_offset(const struct gcfs_content *c)
{
	return c->iv_size + (c->tag_first ? AEAD_TAG_SIZE : 0);
}

static size_t tag_offset(const struct gcfs_content *c, size_t text_size)
{
	return c->iv_size + (c->tag_first ? 0 : text_size);
}

/* One block. out holds size + overhead. */
static int block_seal(const struct gcfs_content *c, struct aead_ctx *ctx, const struct block_aad *aad,
		      const uint8_t *iv, const uint8_t *plain, size_t size, uint8_t *out)
{
	memcpy(out, iv, c->iv_size);
	return aead_seal(ctx, iv, aad->bytes, aad->size, plain, size, out + text_offset(c),
			 out + tag_offset(c, size));
}

/* size is more than the overhead. */
static int block_open(const struct gcfs_content *c, struct aead_ctx *ctx, const struct block_aad *aad,
		      const uint8_t *block, size_t size, uint8_t *out)
{
	size_t text_size = size - gcfs_overhead(c);

	return aead_open(ctx, block, aad->bytes, aad->size, block + text_offset(c), text_size,
			 block + tag_offset(c, text_size), out);
}

int gcfs_encrypt_blocks(struct gcfs_content *c, const uint8_t id[GCFS_FILE_ID], uint64_t first,
			const uint8_t *plain, size_t size, uint8_t *ret_cipher, size_t *ret_size)
{
	uint8_t ivs[RANDOM_RUN * IV_MAX], *out = ret_cipher;
	size_t left = size, blocks = size / GCFS_BLOCK + (size % GCFS_BLOCK != 0);
	struct aead_ctx *ctx = aead_get(c->aead);
	struct block_aad aad;
	int r = 0;

	if (!ctx)
		return -ENOMEM;
	aad_init(&aad, id);
	for (size_t i = 0; i < blocks && r == 0; i++) {
		size_t n = min_u64(left, GCFS_BLOCK), slot = i % RANDOM_RUN;

		if (slot == 0)
			r = random_nonzero(ivs, c->iv_size, min_u64(blocks - i, RANDOM_RUN));
		if (r < 0)
			break;
		aad_set_block(&aad, first + i);
		r = block_seal(c, ctx, &aad, ivs + slot * c->iv_size, plain, n, out);
		plain += n;
		left -= n;
		out += n + gcfs_overhead(c);
	}
	aead_put(c->aead, ctx);
	if (r < 0)
		return r;
	*ret_size = (size_t)(out - ret_cipher);
	return 0;
}

/* A hole, or one block: its plaintext bytes, or -EBADMSG. */
static ssize_t block_read(const struct gcfs_content *c, struct aead_ctx *ctx, const struct block_aad *aad,
			  const uint8_t *block, size_t size, uint8_t *out)
{
	int r;

	if (size <= gcfs_overhead(c))
		return -EBADMSG;
	if (is_zero(block, c->iv_size)) {
		/* Only a whole block can be a hole: files end in a written one. */
		if (size < GCFS_BLOCK + gcfs_overhead(c) || !is_zero(block, size))
			return -EBADMSG;
		memset(out, 0, GCFS_BLOCK);
		return GCFS_BLOCK;
	}
	r = block_open(c, ctx, aad, block, size, out);
	return r < 0 ? r : (ssize_t)(size - gcfs_overhead(c));
}

int gcfs_decrypt_blocks(struct gcfs_content *c, const uint8_t id[GCFS_FILE_ID], uint64_t first,
			const uint8_t *cipher, size_t size, uint8_t *ret_plain, size_t *ret_size,
			uint64_t *ret_bad)
{
	struct aead_ctx *ctx = aead_get(c->aead);
	struct block_aad aad;
	size_t good = 0;
	ssize_t n = 0;

	if (!ctx)
		return -ENOMEM;
	aad_init(&aad, id);
	while (size) {
		size_t block = min_u64(size, GCFS_BLOCK + gcfs_overhead(c));

		aad_set_block(&aad, first);
		n = block_read(c, ctx, &aad, cipher, block, ret_plain + good);
		if (n < 0)
			break;
		good += (size_t)n;
		cipher += block;
		size -= block;
		first++;
	}
	aead_put(c->aead, ctx);
	if (n < 0 && n != -EBADMSG)
		return (int)n;
	*ret_size = good;
	if (n == -EBADMSG)
		*ret_bad = first;
	return n < 0 ? (int)n : 0;
}

/* An empty value stays empty, but is allocated: callers free it without asking. */
int gcfs_value_encrypt(struct gcfs_content *c, const void *plain, size_t size, uint8_t **ret_cipher,
		       size_t *ret_size)
{
	uint8_t iv[IV_MAX];
	autofree uint8_t *out = malloc(size + gcfs_overhead(c));
	struct aead_ctx *ctx;
	struct block_aad aad;
	int r = 0;

	if (!out)
		return -ENOMEM;
	if (size) {
		ctx = aead_get(c->aead);
		if (!ctx)
			return -ENOMEM;
		aad_init(&aad, NULL);
		r = random_nonzero(iv, c->iv_size, 1);
		if (r == 0)
			r = block_seal(c, ctx, &aad, iv, plain, size, out);
		aead_put(c->aead, ctx);
	}
	if (r < 0)
		return r;
	*ret_size = size ? size + gcfs_overhead(c) : 0;
	*ret_cipher = steal_ptr(&out);
	return 0;
}

/* A value that is not empty, into out of at least size bytes. Nothing unauthenticated: no holes here. */
static int value_open(struct gcfs_content *c, const uint8_t *cipher, size_t size, uint8_t *out)
{
	struct block_aad aad;
	struct aead_ctx *ctx;
	int r;

	if (size <= gcfs_overhead(c))
		return -EBADMSG;
	ctx = aead_get(c->aead);
	if (!ctx)
		return -ENOMEM;
	aad_init(&aad, NULL);
	r = is_zero(cipher, c->iv_size) ? -EBADMSG : block_open(c, ctx, &aad, cipher, size, out);
	aead_put(c->aead, ctx);
	return r;
}

/* A value as text, in symlinks and in the attributes of old volumes. out holds size bytes. */
static int value_open_text(struct gcfs_content *c, const char *text, size_t size, uint8_t *out,
			   size_t *ret_size)
{
	autofree uint8_t *cipher = malloc(size + 1);
	ssize_t n;
	int r;

	if (!cipher)
		return -ENOMEM;
	n = base64_decode(c->base64, text, size, cipher, size + 1);
	if (n < 0)
		return -EBADMSG;
	r = value_open(c, cipher, (size_t)n, out);
	if (r < 0)
		return r;
	*ret_size = (size_t)n - gcfs_overhead(c);
	return 0;
}

int gcfs_value_decrypt(struct gcfs_content *c, const void *cipher, size_t size, uint8_t **ret_plain,
		       size_t *ret_size)
{
	autowiped uint8_t *out = malloc(size + 1);
	size_t plain_size = size > gcfs_overhead(c) ? size - gcfs_overhead(c) : 0;
	int r = 0;

	if (!out)
		return -ENOMEM;
	if (size) {
		r = value_open(c, cipher, size, out);
		if (r == -EBADMSG)
			r = value_open_text(c, cipher, size, out, &plain_size);
	}
	if (r < 0)
		return r;
	*ret_size = plain_size;
	*ret_plain = steal_ptr(&out);
	return 0;
}

int gcfs_symlink_encrypt(struct gcfs_content *c, const char *target, char **ret_text)
{
	size_t target_size = strlen(target), size;
	autofree uint8_t *cipher = NULL;
	autofree char *text = NULL;
	int r;

	if (target_size == 0 || target_size > SYMLINK_TEXT_MAX)
		return -ENAMETOOLONG;
	r = gcfs_value_encrypt(c, target, target_size, &cipher, &size);
	if (r < 0)
		return r;
	text = malloc(base64_encoded_size(size));
	if (!text)
		return -ENOMEM;
	if (base64_encode(c->base64, cipher, size, text) > SYMLINK_TEXT_MAX)
		return -ENAMETOOLONG;
	*ret_text = steal_ptr(&text);
	return 0;
}

int gcfs_symlink_decrypt(struct gcfs_content *c, const char *text, char **ret_target)
{
	size_t size = strlen(text);
	autowiped char *target = malloc(size + 1);
	int r;

	if (!target)
		return -ENOMEM;
	r = value_open_text(c, text, size, (uint8_t *)target, &size);
	if (r < 0)
		return r;
	if (memchr(target, '\0', size))
		return -EBADMSG;
	target[size] = '\0';
	*ret_target = steal_ptr(&target);
	return 0;
}
