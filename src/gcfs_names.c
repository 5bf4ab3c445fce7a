/* SPDX-License-Identifier: MIT */
/*
 * EME makes two passes of AES over all blocks of a name with a mixing step between them, so that every bit of
 * the text depends on every bit of the name. Both passes are one call to crypto.c each; nothing is allocated.
 */
#include "gcfs_names.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "crypto.h"
#include "util.h"

enum {
	BLOCK = 16,
	BLOCKS_MAX = 16, /* 255 bytes and their padding */
	NAME_BYTES_MAX = BLOCKS_MAX * BLOCK,
	XATTR_PLAIN_MAX = 175, /* more would not fit into an attribute's name */
	LONG_NAME_MAX_DEFAULT = 255,
};

/* Not secret: part of the format. */
static const uint8_t xattr_tweak[GCFS_IV_SIZE] = {'x', 'a', 't', 't', 'r', '_', 'n', 'a',
						  'm', 'e', '_', 'i', 'v', '_', 'x', 'x'};

struct gcfs_names {
	unsigned flags;
	unsigned long_name_max;
	enum base64_kind base64;
	struct ecb *ecb;
	struct secret *masks; /* EME's L[1] to L[16] */
};

/* Times 2 in GF(2^128) with byte 0 the least significant (EME's order; CMAC has the opposite one). Without a
 * branch on the carry: masks are secret. */
static void eme_double(const uint8_t in[BLOCK], uint8_t out[BLOCK])
{
	uint8_t carry = 0;

	for (int i = 0; i < BLOCK; i++) {
		uint8_t byte = in[i];

		out[i] = (uint8_t)(byte << 1) | carry;
		carry = byte >> 7;
	}
	out[0] ^= (uint8_t)(0x87 & -carry);
}

static void xor_bytes(uint8_t *to, const uint8_t *with, size_t size)
{
	for (size_t i = 0; i < size; i++)
		to[i] ^= with[i];
}

/* They depend on the key only: kept, they save an AES call and up to 16 doublings a name. */
static int masks_fill(struct gcfs_names *n)
{
	uint8_t *mask;
	int r = secret_new(NAME_BYTES_MAX, &n->masks);

	if (r < 0)
		return r;
	mask = secret_data(n->masks);
	r = ecb_crypt(n->ecb, true, mask, 1, mask); /* of zeros, as a new secret is */
	if (r < 0)
		return r;
	eme_double(mask, mask);
	for (int i = 1; i < BLOCKS_MAX; i++)
		eme_double(mask + (i - 1) * BLOCK, mask + i * BLOCK);
	return 0;
}

static int name_key(const struct secret *master, unsigned flags, struct secret **ret)
{
	if (flags & GCFS_HKDF)
		return hkdf_sha256(master, "EME filename encryption", 32, ret);
	return secret_new_from(secret_data(master), secret_size(master), ret);
}

int gcfs_names_new(const struct secret *master, unsigned flags, unsigned long_name_max,
		   struct gcfs_names **ret)
{
	autosecret struct secret *key = NULL;
	struct gcfs_names *n = calloc(1, sizeof(*n));
	int r;

	if (!n)
		return -ENOMEM;
	n->flags = flags;
	n->long_name_max = long_name_max ? long_name_max : LONG_NAME_MAX_DEFAULT;
	n->base64 = flags & GCFS_RAW64 ? BASE64_URL_RAW : BASE64_URL_PADDED;
	r = name_key(master, flags, &key);
	if (r == 0)
		r = ecb_new(key, &n->ecb);
	if (r == 0)
		r = masks_fill(n);
	if (r < 0) {
		gcfs_names_free(n);
		return r;
	}
	*ret = n;
	return 0;
}

void gcfs_names_free(struct gcfs_names *n)
{
	if (!n)
		return;
	ecb_free(n->ecb);
	secret_free(n->masks);
	free(n);
}

/* What comes out of the first layer: X becomes Y in place. */
static int eme_mix(struct gcfs_names *n, bool encrypt, const uint8_t tweak[BLOCK], uint8_t *x, size_t nblocks)
{
	uint8_t mp[BLOCK], mc[BLOCK], m[BLOCK];
	int r;

	memcpy(mp, tweak, BLOCK);
	for (size_t j = 0; j < nblocks; j++)
		xor_bytes(mp, x + j * BLOCK, BLOCK);
	r = ecb_crypt(n->ecb, encrypt, mp, 1, mc);
	if (r < 0)
		return r;
	memcpy(m, mp, BLOCK);
	xor_bytes(m, mc, BLOCK);
	memcpy(x, mc, BLOCK);
	xor_bytes(x, tweak, BLOCK);
	for (size_t j = 1; j < nblocks; j++) {
		eme_double(m, m);
		xor_bytes(x + j * BLOCK, m, BLOCK);
		xor_bytes(x, x + j * BLOCK, BLOCK);
	}
	return 0;
}

/* EME on whole blocks, in place; the steps are those of the Halevi-Rogaway draft. */
static int eme_crypt(struct gcfs_names *n, bool encrypt, const uint8_t tweak[BLOCK], uint8_t *text,
		     size_t size)
{
	uint8_t x[NAME_BYTES_MAX];
	const uint8_t *masks = secret_data(n->masks);
	int r;

	memcpy(x, text, size);
	xor_bytes(x, masks, size);
	r = ecb_crypt(n->ecb, encrypt, x, size / BLOCK, x);
	if (r == 0)
		r = eme_mix(n, encrypt, tweak, x, size / BLOCK);
	if (r == 0)
		r = ecb_crypt(n->ecb, encrypt, x, size / BLOCK, x);
	if (r == 0) {
		xor_bytes(x, masks, size);
		memcpy(text, x, size);
	}
	explicit_bzero(x, sizeof(x)); /* text ^ mask would give the masks away */
	return r;
}

/* Bytes, up to 255 -> padding -> EME -> base64. */
static int text_encrypt(struct gcfs_names *n, const uint8_t tweak[BLOCK], const char *plain, size_t size,
			char *ret_text)
{
	uint8_t bytes[NAME_BYTES_MAX];
	size_t pad = BLOCK - size % BLOCK;
	int r;

	memcpy(bytes, plain, size);
	memset(bytes + size, (int)pad, pad);
	r = eme_crypt(n, true, tweak, bytes, size + pad);
	if (r == 0)
		base64_encode(n->base64, bytes, size + pad, ret_text);
	return r;
}

/* Length without PKCS#7 padding, at least 1; -EBADMSG */
static ssize_t unpadded_size(const uint8_t *bytes, size_t size)
{
	size_t pad = bytes[size - 1];

	if (pad == 0 || pad > BLOCK || pad >= size)
		return -EBADMSG;
	for (size_t i = size - pad; i < size; i++)
		if (bytes[i] != pad)
			return -EBADMSG;
	return (ssize_t)(size - pad);
}

/* The way back: a string of 1 to 255 bytes. */
static int text_decrypt(struct gcfs_names *n, const uint8_t tweak[BLOCK], const char *text,
			char ret_plain[NAME_MAX + 1])
{
	uint8_t bytes[NAME_BYTES_MAX];
	ssize_t size = base64_decode(n->base64, text, strlen(text), bytes, sizeof(bytes));
	int r;

	if (size <= 0 || size % BLOCK)
		return -EBADMSG;
	r = eme_crypt(n, false, tweak, bytes, (size_t)size);
	if (r < 0)
		return r;
	size = unpadded_size(bytes, (size_t)size);
	if (size < 0 || memchr(bytes, '\0', (size_t)size))
		return -EBADMSG;
	memcpy(ret_plain, bytes, (size_t)size);
	ret_plain[size] = '\0';
	return 0;
}

static bool name_is_component(const char *name)
{
	return *name && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && !strchr(name, '/');
}

int gcfs_name_encrypt(struct gcfs_names *n, const uint8_t iv[GCFS_IV_SIZE], const char *name, char *ret_text)
{
	size_t size = strnlen(name, NAME_MAX + 1);

	if (size > NAME_MAX)
		return -ENAMETOOLONG;
	if (!name_is_component(name))
		return -EINVAL;
	if (n->flags & GCFS_PLAINTEXT_NAMES) {
		strcpy(ret_text, name);
		return 0;
	}
	return text_encrypt(n, iv, name, size, ret_text);
}

int gcfs_name_decrypt(struct gcfs_names *n, const uint8_t iv[GCFS_IV_SIZE], const char *text, char *ret_name)
{
	char name[NAME_MAX + 1];
	int r = 0;

	if (!(n->flags & GCFS_PLAINTEXT_NAMES))
		r = text_decrypt(n, iv, text, name);
	else if (strlen(text) <= NAME_MAX)
		strcpy(name, text);
	else
		r = -EBADMSG;
	if (r < 0)
		return r;
	if (!name_is_component(name))
		return -EBADMSG;
	strcpy(ret_name, name);
	return 0;
}

bool gcfs_name_is_long(const struct gcfs_names *n, const char *text)
{
	return !(n->flags & GCFS_PLAINTEXT_NAMES) && strlen(text) > n->long_name_max;
}

int gcfs_name_hash(struct gcfs_names *n, const char *text, char *ret_disk)
{
	uint8_t hash[32];
	int r = sha256(text, strlen(text), hash);

	if (r < 0)
		return r;
	strcpy(ret_disk, GCFS_LONG_PREFIX);
	base64_encode(n->base64, hash, sizeof(hash), ret_disk + strlen(GCFS_LONG_PREFIX));
	return 0;
}

static bool has_prefix(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

static bool has_suffix(const char *s, const char *suffix)
{
	size_t size = strlen(s), suffix_size = strlen(suffix);

	return size >= suffix_size && strcmp(s + size - suffix_size, suffix) == 0;
}

/* Files of directory IVs: the one in use, one on its way out of a removed directory, and the temporary
 * directories in which ckrfs makes new ones. */
static bool is_diriv(const char *disk)
{
	return strcmp(disk, GCFS_DIRIV_FILE) == 0 || has_prefix(disk, GCFS_DIRIV_FILE ".rmdir.") ||
	       has_prefix(disk, GCFS_DIRIV_FILE ".mkdir.");
}

enum gcfs_name_kind gcfs_name_kind(const struct gcfs_names *n, const char *disk, bool in_root)
{
	if (!(n->flags & GCFS_PLAINTEXT_NAMES) && has_prefix(disk, GCFS_LONG_PREFIX))
		return has_suffix(disk, GCFS_LONG_SUFFIX) ? GCFS_NAME_LONG_TEXT : GCFS_NAME_LONG;
	if (in_root && strcmp(disk, GCFS_CONF_FILE) == 0)
		return GCFS_NAME_INTERNAL;
	if (n->flags & GCFS_DIRIV && is_diriv(disk))
		return GCFS_NAME_INTERNAL;
	return GCFS_NAME_ORDINARY;
}

int gcfs_xattr_name_encrypt(struct gcfs_names *n, const char *name, char *ret_disk)
{
	size_t size = strnlen(name, XATTR_PLAIN_MAX + 1);
	char text[GCFS_NAME_TEXT_MAX + 1];
	int r;

	if (size == 0 || size > XATTR_PLAIN_MAX)
		return -ERANGE;
	r = text_encrypt(n, xattr_tweak, name, size, text);
	if (r < 0)
		return r;
	strcpy(ret_disk, GCFS_XATTR_PREFIX);
	strcat(ret_disk, text); /* 15 + 236 at most */
	return 0;
}

int gcfs_xattr_name_decrypt(struct gcfs_names *n, const char *disk, char *ret_name)
{
	if (!has_prefix(disk, GCFS_XATTR_PREFIX))
		return -EBADMSG;
	return text_decrypt(n, xattr_tweak, disk + strlen(GCFS_XATTR_PREFIX), ret_name);
}
