/* SPDX-License-Identifier: MIT */
#include "afs_token.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "cleanup.h"
#include "crypto_wrap.h"
#include "util.h"

enum { DES_KEY = 8, DES3_KEY = 24, KDF_TRIES = 255 };
enum { PAYLOAD_VERSION = 1, SECURITY_RXKAD = 2, KVNO_KERBEROS_5 = 256 };

/* FIPS 74 and RFC 3961, section 6.2: weak and semi-weak keys, parity included. */
static const uint8_t weak_keys[][DES_KEY] = {
	{0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01}, {0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe},
	{0xe0, 0xe0, 0xe0, 0xe0, 0xf1, 0xf1, 0xf1, 0xf1}, {0x1f, 0x1f, 0x1f, 0x1f, 0x0e, 0x0e, 0x0e, 0x0e},
	{0x01, 0x1f, 0x01, 0x1f, 0x01, 0x0e, 0x01, 0x0e}, {0x1f, 0x01, 0x1f, 0x01, 0x0e, 0x01, 0x0e, 0x01},
	{0x01, 0xe0, 0x01, 0xe0, 0x01, 0xf1, 0x01, 0xf1}, {0xe0, 0x01, 0xe0, 0x01, 0xf1, 0x01, 0xf1, 0x01},
	{0x01, 0xfe, 0x01, 0xfe, 0x01, 0xfe, 0x01, 0xfe}, {0xfe, 0x01, 0xfe, 0x01, 0xfe, 0x01, 0xfe, 0x01},
	{0x1f, 0xe0, 0x1f, 0xe0, 0x0e, 0xf1, 0x0e, 0xf1}, {0xe0, 0x1f, 0xe0, 0x1f, 0xf1, 0x0e, 0xf1, 0x0e},
	{0x1f, 0xfe, 0x1f, 0xfe, 0x0e, 0xfe, 0x0e, 0xfe}, {0xfe, 0x1f, 0xfe, 0x1f, 0xfe, 0x0e, 0xfe, 0x0e},
	{0xe0, 0xfe, 0xe0, 0xfe, 0xf1, 0xfe, 0xf1, 0xfe}, {0xfe, 0xe0, 0xfe, 0xe0, 0xfe, 0xf1, 0xfe, 0xf1},
};

/* The lowest bit of each byte makes the number of ones odd. No table, no branch by key bits. */
static void set_odd_parity(uint8_t key[DES_KEY])
{
	for (size_t i = 0; i < DES_KEY; i++) {
		uint8_t ones = key[i] >> 1;

		ones ^= ones >> 4;
		ones ^= ones >> 2;
		ones ^= ones >> 1;
		key[i] = (uint8_t)((key[i] & 0xfe) | (~ones & 1));
	}
}

static bool is_weak(const uint8_t key[DES_KEY])
{
	uint8_t found = 0;

	for (size_t i = 0; i < ARRAY_SIZE(weak_keys); i++) {
		uint8_t difference = 0;

		for (size_t j = 0; j < DES_KEY; j++)
			difference |= key[j] ^ weak_keys[i][j];
		found |= difference == 0;
	}
	return found;
}

/*
 * The inverse of RFC 3961, section 6.3.1: of each 8 bytes the last holds the lowest bits of the 7 others,
 * where they have their parity.
 */
static int without_parity(const struct secret *key, struct secret **ret)
{
	const uint8_t *in = secret_data(key);
	struct secret *s;
	uint8_t *out;
	int r = secret_new(DES3_KEY / 8 * 7, &s);

	if (r < 0)
		return r;
	out = secret_data(s);
	for (size_t part = 0; part < DES3_KEY; part += 8)
		for (size_t i = 0; i < 7; i++)
			*out++ = (uint8_t)((in[part + i] & 0xfe) | (in[part + 7] >> (i + 1) & 1));
	*ret = s;
	return 0;
}

static int derive_try(const struct secret *key, uint8_t number, uint8_t ret[DES_KEY])
{
	/* counter, label, zero, length of the result in bits */
	const uint8_t input[] = {number, 'r', 'x', 'k', 'a', 'd', 0, 0, 0, 0, 0x40};
	uint8_t mac[16];
	int r = hmac_md5(key, input, sizeof(input), mac);

	if (r == 0) {
		memcpy(ret, mac, DES_KEY);
		set_odd_parity(ret);
	}
	explicit_bzero(mac, sizeof(mac));
	return r;
}

static int derive(const struct secret *key, struct secret **ret)
{
	autosecret struct secret *s = NULL;
	int r = secret_new(DES_KEY, &s);

	for (unsigned i = 1; r == 0 && i <= KDF_TRIES; i++) {
		r = derive_try(key, (uint8_t)i, secret_data(s));
		if (r == 0 && !is_weak(secret_data(s))) {
			*ret = steal_ptr(&s);
			return 0;
		}
	}
	return r < 0 ? r : -EDOM;
}

int afs_token_derive(enum afs_key_kind kind, const struct secret *key, struct secret **ret)
{
	autosecret struct secret *bits = NULL;
	int r;

	switch (kind) {
	case AFS_KEY_DES:
		return secret_size(key) == DES_KEY ? secret_new_from(secret_data(key), DES_KEY, ret)
						   : -EINVAL;
	case AFS_KEY_DES3:
		if (secret_size(key) != DES3_KEY)
			return -EINVAL;
		r = without_parity(key, &bits);
		return r < 0 ? r : derive(bits, ret);
	default:
		return derive(key, ret);
	}
}

static uint8_t *put_u16(uint8_t *at, uint16_t value)
{
	memcpy(at, &value, sizeof(value));
	return at + sizeof(value);
}

static uint8_t *put_u32(uint8_t *at, uint32_t value)
{
	memcpy(at, &value, sizeof(value));
	return at + sizeof(value);
}

int afs_token_payload(const struct secret *session_key, const void *ticket, size_t size, int64_t expires,
		      struct secret **ret)
{
	struct secret *s;
	uint8_t *at;
	int r;

	if (secret_size(session_key) != AFS_SESSION_KEY_SIZE || size == 0)
		return -EINVAL;
	if (size > AFS_TICKET_MAX)
		return -EMSGSIZE;
	if (expires <= 0 || expires > UINT32_MAX)
		return -ERANGE;
	r = secret_new(AFS_PAYLOAD_HEAD + size, &s);
	if (r < 0)
		return r;
	at = put_u32(secret_data(s), PAYLOAD_VERSION);
	at = put_u16(at, SECURITY_RXKAD);
	at = put_u16(at, (uint16_t)size);
	at = put_u32(at, (uint32_t)expires);
	at = put_u32(at, KVNO_KERBEROS_5);
	memcpy(at, secret_data(session_key), AFS_SESSION_KEY_SIZE);
	memcpy(at + AFS_SESSION_KEY_SIZE, ticket, size);
	*ret = s;
	return 0;
}
