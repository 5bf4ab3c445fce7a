/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "afs_token.h"
#include "crypto.h"
#include "crypto_wrap.h"
#include "unit.h"
#include "util.h"

/*
 * Computed with Python, where parity() sets odd parity:
 *   parity(hmac.new(key, bytes([1]) + b"rxkad\0" + struct.pack(">I", 64), hashlib.md5).digest()[:8])
 * of the keys 01 02 03 ...
 */
static const struct {
	size_t size;
	const char *derived;
} vectors[] = {
	{8, "1cce0767b63ea183"},
	{16, "805d9dba5d08c28c"},
	{24, "0b62cdec4f7ca464"},
	{32, "08589ece019d9db3"},
};

/* What hmac_md5() answers instead, one digest a call, until none is left. */
static uint8_t instead[256][16];
static size_t n_instead, asked;

int __real_hmac_md5(const struct secret *key, const void *data, size_t size, uint8_t ret[16]);
int __wrap_hmac_md5(const struct secret *key, const void *data, size_t size, uint8_t ret[16]);

int __wrap_hmac_md5(const struct secret *key, const void *data, size_t size, uint8_t ret[16])
{
	if (asked < n_instead) {
		assert_int_equal(((const uint8_t *)data)[0], asked + 1);
		memcpy(ret, instead[asked++], 16);
		return 0;
	}
	return __real_hmac_md5(key, data, size, ret);
}

static struct secret *numbers(size_t size)
{
	struct secret *s;

	assert_int_equal(secret_new(size, &s), 0);
	for (size_t i = 0; i < size; i++)
		secret_data(s)[i] = (uint8_t)(i + 1);
	return s;
}

static struct secret *derived(enum afs_key_kind kind, struct secret *key)
{
	struct secret *s;

	assert_int_equal(afs_token_derive(kind, key, &s), 0);
	assert_int_equal(secret_size(s), AFS_SESSION_KEY_SIZE);
	return s;
}

static void test_vectors(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
		struct secret *key = numbers(vectors[i].size), *s = derived(AFS_KEY_OTHER, key);
		char hex[17];

		hex_encode(secret_data(s), 8, hex);
		assert_string_equal(hex, vectors[i].derived);
		secret_free(s);
		secret_free(key);
	}
}

static void test_des_stays(void **state)
{
	struct secret *key = numbers(8), *s = derived(AFS_KEY_DES, key), *none = NULL;

	assert_true(secret_equal(s, key));
	secret_free(s);
	secret_free(key);
	key = numbers(16);
	assert_int_equal(afs_token_derive(AFS_KEY_DES, key, &none), -EINVAL);
	assert_int_equal(afs_token_derive(AFS_KEY_DES3, key, &none), -EINVAL);
	assert_null(none);
	secret_free(key);
}

static uint8_t odd(uint8_t byte)
{
	return (uint8_t)((byte & 0xfe) | !__builtin_parity(byte & 0xfe));
}

/* RFC 3961, section 6.3.1, forwards: 21 random bytes make a key of 24. */
static struct secret *des3_key(const struct secret *bits)
{
	struct secret *s;

	assert_int_equal(secret_new(24, &s), 0);
	for (size_t part = 0; part < 3; part++) {
		const uint8_t *in = secret_data(bits) + 7 * part;
		uint8_t *out = secret_data(s) + 8 * part, last = 0;

		for (int i = 6; i >= 0; i--) {
			out[i] = odd(in[i]);
			last = (uint8_t)(last << 1 | (in[i] & 1));
		}
		out[7] = odd((uint8_t)(last << 1));
	}
	return s;
}

static void test_des3_is_derived_of_its_random_bytes(void **state)
{
	for (unsigned seed = 0; seed < 1000; seed++) {
		struct secret *bits = numbers(21), *key, *a, *b;

		for (size_t i = 0; i < 21; i++)
			secret_data(bits)[i] = (uint8_t)((seed * 2654435761u + i * 40503u) >> (i % 13));
		key = des3_key(bits);
		a = derived(AFS_KEY_DES3, key);
		b = derived(AFS_KEY_OTHER, bits);
		assert_true(secret_equal(a, b));
		secret_free(a);
		secret_free(b);
		secret_free(key);
		secret_free(bits);
	}
}

/* Weak and semi-weak ones, whatever their parity bits were. */
static void test_weak_keys_are_passed_over(void **state)
{
	static const char *const weak[] = {
		"0101010101010101", "fefefefefefefefe", "e0e0e0e0f1f1f1f1", "1f1f1f1f0e0e0e0e",
		"011f011f010e010e", "1f011f010e010e01", "01e001e001f101f1", "e001e001f101f101",
		"01fe01fe01fe01fe", "fe01fe01fe01fe01", "1fe01fe00ef10ef1", "e01fe01ff10ef10e",
		"1ffe1ffe0efe0efe", "fe1ffe1ffe0efe0e", "e0fee0fef1fef1fe", "fee0fee0fef1fef1",
	};
	static const uint8_t good[] = {0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe};
	struct secret *key = numbers(32), *s, *none = NULL;

	n_instead = ARRAY_SIZE(weak) + 1;
	asked = 0;
	for (size_t i = 0; i < ARRAY_SIZE(weak); i++)
		for (size_t j = 0; j < 8; j++) {
			unsigned byte;

			assert_int_equal(sscanf(weak[i] + 2 * j, "%2x", &byte), 1);
			instead[i][j] = (uint8_t)(byte ^ (i & 1));
		}
	memcpy(instead[ARRAY_SIZE(weak)], good, 8);
	s = derived(AFS_KEY_OTHER, key);
	assert_int_equal(asked, n_instead);
	for (size_t j = 0; j < 8; j++)
		assert_int_equal(secret_data(s)[j], odd(good[j]));
	secret_free(s);

	n_instead = 255;
	asked = 0;
	memset(instead, 0, sizeof(instead));
	assert_int_equal(afs_token_derive(AFS_KEY_OTHER, key, &none), -EDOM);
	n_instead = 0;
	secret_free(key);
}

static void test_payload(void **state)
{
	static const uint8_t ticket[] = {0x61, 0x03, 'a', 'b', 'c'};
	struct secret *key = numbers(8), *s;
	const uint8_t *at;
	uint32_t word;
	uint16_t half;

	assert_int_equal(afs_token_payload(key, ticket, sizeof(ticket), 4102444800, &s), 0);
	assert_int_equal(secret_size(s), 24 + sizeof(ticket));
	at = secret_data(s);
	memcpy(&word, at, 4);
	assert_int_equal(word, 1);
	memcpy(&half, at + 4, 2);
	assert_int_equal(half, 2);
	memcpy(&half, at + 6, 2);
	assert_int_equal(half, sizeof(ticket));
	memcpy(&word, at + 8, 4);
	assert_int_equal(word, 4102444800);
	memcpy(&word, at + 12, 4);
	assert_int_equal(word, 256);
	assert_memory_equal(at + 16, secret_data(key), 8);
	assert_memory_equal(at + 24, ticket, sizeof(ticket));
	secret_free(s);
	secret_free(key);
}

static void test_payload_refuses(void **state)
{
	static uint8_t ticket[AFS_TICKET_MAX + 1];
	struct secret *key = numbers(8), *wrong = numbers(16), *s = NULL;

	assert_int_equal(afs_token_payload(key, ticket, sizeof(ticket), 1, &s), -EMSGSIZE);
	assert_int_equal(afs_token_payload(key, ticket, 0, 1, &s), -EINVAL);
	assert_int_equal(afs_token_payload(wrong, ticket, 10, 1, &s), -EINVAL);
	assert_int_equal(afs_token_payload(key, ticket, 10, 0, &s), -ERANGE);
	assert_int_equal(afs_token_payload(key, ticket, 10, INT64_C(1) << 32, &s), -ERANGE);
	assert_null(s);
	assert_int_equal(afs_token_payload(key, ticket, AFS_TICKET_MAX, 1, &s), 0);
	secret_free(s);
	secret_free(key);
	secret_free(wrong);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_des_stays),
		cmocka_unit_test(test_des3_is_derived_of_its_random_bytes),
		cmocka_unit_test(test_weak_keys_are_passed_over),
		cmocka_unit_test(test_payload),
		cmocka_unit_test(test_payload_refuses),
	};

	if (crypto_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("afs_token", tests, NULL, NULL);
}
