/* SPDX-License-Identifier: MIT */
/* Contents of the gocryptfs format: known answers made by gocryptfs 2.3, sizes, holes, damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "crypto.h"
#include "gcfs_content.h"
#include "util.h"

enum {
	FLAGS = GCFS_HKDF | GCFS_GCMIV128 | GCFS_DIRIV | GCFS_RAW64,
	OVERHEAD = 32,
	C_BLOCK = GCFS_BLOCK + OVERHEAD
};

static struct gcfs_content *content;
static uint8_t file_id[GCFS_FILE_ID];

static int content_for(unsigned flags, struct gcfs_content **ret)
{
	autosecret struct secret *master = NULL;

	assert_int_equal(secret_new(GCFS_MASTER_KEY_SIZE, &master), 0);
	for (int i = 0; i < GCFS_MASTER_KEY_SIZE; i++)
		secret_data(master)[i] = (uint8_t)i;
	return gcfs_content_new(master, flags, ret);
}

static void test_known_answer(void **state)
{
	static const uint8_t block[] = {0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09,
					0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10, 0x2b, 0x98,
					0xe0, 0x5a, 0xfb, 0x21, 0x5f, 0x43, 0x54, 0x1f, 0xb8,
					0x74, 0xd5, 0x37, 0x32, 0xc4, 0xae, 0x35};
	uint8_t plain[sizeof(block)];
	uint64_t bad = 99;
	size_t size;

	assert_int_equal(gcfs_overhead(content), OVERHEAD);
	assert_int_equal(gcfs_decrypt_blocks(content, file_id, 1, block, sizeof(block), plain, &size, &bad),
			 0);
	assert_int_equal(size, 2);
	assert_memory_equal(plain, "hi", 2);
	assert_int_equal(bad, 99);
	/* It is bound to its place and its file. */
	assert_int_equal(gcfs_decrypt_blocks(content, file_id, 0, block, sizeof(block), plain, &size, &bad),
			 -EBADMSG);
	assert_int_equal(bad, 0);
	file_id[3] ^= 1;
	assert_int_equal(gcfs_decrypt_blocks(content, file_id, 1, block, sizeof(block), plain, &size, &bad),
			 -EBADMSG);
	assert_int_equal(bad, 1);
	assert_int_equal(size, 0);
	file_id[3] ^= 1;
}

static void test_ciphers(void **state)
{
	struct gcfs_content *c = NULL;

	assert_int_equal(content_for(FLAGS | GCFS_AESSIV, &c), -ENOTSUP);
	assert_int_equal(content_for(GCFS_HKDF | GCFS_XCHACHA, &c), -ENOTSUP);
	assert_int_equal(content_for(GCFS_HKDF, &c), -ENOTSUP);
	assert_null(c);
	gcfs_content_free(NULL);
}

static void test_sizes(void **state)
{
	static const struct {
		uint64_t plain, cipher;
	} whole[] = {{0, 0},
		     {1, 51},
		     {2, 52},
		     {4095, 4145},
		     {4096, 4146},
		     {4097, 4179},
		     {8192, 8274},
		     {1 << 20, 18 + 256 * 4128},
		     {UINT64_C(1) << 40, 18 + (UINT64_C(1) << 28) * 4128},
		     {INT64_MAX / 2, UINT64_C(4647714815446351889)}};
	uint64_t cipher = 7;

	for (size_t i = 0; i < ARRAY_SIZE(whole); i++) {
		assert_int_equal(gcfs_cipher_size(content, whole[i].plain, &cipher), 0);
		assert_int_equal(cipher, whole[i].cipher);
		assert_int_equal(gcfs_plain_size(content, whole[i].cipher), whole[i].plain);
	}
	cipher = 7;
	assert_int_equal(gcfs_cipher_size(content, (uint64_t)INT64_MAX / 2 + 1, &cipher), -EFBIG);
	assert_int_equal(gcfs_cipher_size(content, UINT64_MAX, &cipher), -EFBIG);
	assert_int_equal(cipher, 7);
}

/* A tail that cannot hold a byte counts as one. */
static void test_damaged_sizes(void **state)
{
	static const struct {
		uint64_t cipher, plain;
	} table[] = {{0, 0},
		     {1, 0},
		     {17, 0},
		     {18, 0},
		     {19, 1},
		     {18 + 31, 1},
		     {18 + 32, 1},
		     {18 + 33, 1},
		     {18 + 34, 2},
		     {18 + 4127, 4095},
		     {18 + 4128, 4096},
		     {18 + 4128 + 1, 4097},
		     {18 + 4128 + 32, 4097},
		     {18 + 4128 + 33, 4097},
		     {18 + 4128 + 34, 4098},
		     {UINT64_C(18) + 4128 * UINT64_C(1000000) + 5, UINT64_C(4096000001)},
		     /* Nothing overflows: 2^64 - 19 = 4128 * 4468688002352120 + 237 */
		     {UINT64_MAX, UINT64_C(4468688002352120) * 4096 + 237 - 32}};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		assert_int_equal(gcfs_plain_size(content, table[i].cipher), table[i].plain);
}

static void test_block_offset(void **state)
{
	assert_int_equal(gcfs_block_offset(0, OVERHEAD), 18);
	assert_int_equal(gcfs_block_offset(1, OVERHEAD), 18 + 4128);
	assert_int_equal(gcfs_block_offset(UINT64_C(1) << 40, OVERHEAD), 18 + (UINT64_C(1) << 40) * 4128);
}

static void test_header(void **state)
{
	uint8_t a[GCFS_HEADER], b[GCFS_HEADER], id[GCFS_FILE_ID];

	assert_int_equal(gcfs_header_new(a), 0);
	assert_int_equal(gcfs_header_new(b), 0);
	assert_memory_not_equal(a + 2, b + 2, GCFS_FILE_ID);
	assert_int_equal(a[0], 0);
	assert_int_equal(a[1], 2);
	assert_int_equal(gcfs_header_parse(a, id), 0);
	assert_memory_equal(id, a + 2, GCFS_FILE_ID);
	a[0] = 1;
	assert_int_equal(gcfs_header_parse(a, id), -EBADMSG);
	a[0] = 0;
	a[1] = 3;
	assert_int_equal(gcfs_header_parse(a, id), -EBADMSG);
	memset(a, 0, sizeof(a));
	assert_int_equal(gcfs_header_parse(a, id), -EBADMSG);
	a[1] = 2;
	assert_int_equal(gcfs_header_parse(a, id), -EBADMSG);
	a[17] = 1;
	assert_int_equal(gcfs_header_parse(a, id), 0);
}

struct run {
	uint8_t *plain, *cipher, *back;
	size_t size, cipher_size;
};

static void run_encrypt(struct run *r, size_t size, uint64_t first)
{
	r->size = size;
	r->plain = malloc(size);
	r->cipher = malloc(size + (size / GCFS_BLOCK + 1) * OVERHEAD);
	r->back = malloc(size + (size / GCFS_BLOCK + 1) * OVERHEAD);
	assert_true(r->plain && r->cipher && r->back);
	assert_int_equal(crypto_random(r->plain, size), 0);
	assert_int_equal(
		gcfs_encrypt_blocks(content, file_id, first, r->plain, size, r->cipher, &r->cipher_size), 0);
}

static void run_free(struct run *r)
{
	free(r->plain);
	free(r->cipher);
	free(r->back);
}

static void test_round_trip(void **state)
{
	/* 256 blocks are one draw of IVs. */
	static const size_t sizes[] = {1,    2,     4095,       4096,       4097,           8191,
				       8192, 12289, 255 * 4096, 256 * 4096, 256 * 4096 + 1, 257 * 4096};
	static const uint64_t firsts[] = {0, 1, UINT64_C(1) << 51};

	for (size_t i = 0; i < ARRAY_SIZE(sizes) * ARRAY_SIZE(firsts); i++) {
		uint64_t first = firsts[i % ARRAY_SIZE(firsts)], bad, want;
		struct run r;
		size_t size;

		run_encrypt(&r, sizes[i / ARRAY_SIZE(firsts)], first);
		assert_int_equal(gcfs_cipher_size(content, r.size, &want), 0);
		assert_int_equal(r.cipher_size, want - GCFS_HEADER);
		assert_int_equal(gcfs_decrypt_blocks(content, file_id, first, r.cipher, r.cipher_size, r.back,
						     &size, &bad),
				 0);
		assert_int_equal(size, r.size);
		assert_memory_equal(r.back, r.plain, size);
		run_free(&r);
	}
}

/* All IVs of a long run differ, from each other and from the next run's. */
static void test_fresh_ivs(void **state)
{
	enum { BLOCKS = 300 };
	struct run a, b;

	run_encrypt(&a, BLOCKS * GCFS_BLOCK, 0);
	run_encrypt(&b, BLOCKS * GCFS_BLOCK, 0);
	for (size_t i = 0; i < BLOCKS; i++) {
		assert_memory_not_equal(a.cipher + i * C_BLOCK, b.cipher + i * C_BLOCK, 16);
		for (size_t j = 0; j < i; j++)
			assert_memory_not_equal(a.cipher + i * C_BLOCK, a.cipher + j * C_BLOCK, 16);
	}
	run_free(&a);
	run_free(&b);
}

static void test_holes(void **state)
{
	struct run r;
	size_t size;
	uint64_t bad;

	run_encrypt(&r, 3 * GCFS_BLOCK + 5, 0);
	memset(r.cipher + C_BLOCK, 0, C_BLOCK);
	memset(r.plain + GCFS_BLOCK, 0, GCFS_BLOCK);
	assert_int_equal(
		gcfs_decrypt_blocks(content, file_id, 0, r.cipher, r.cipher_size, r.back, &size, &bad), 0);
	assert_int_equal(size, r.size);
	assert_memory_equal(r.back, r.plain, size);

	/* One byte that is not zero, anywhere: damage. */
	for (size_t i = 0; i < C_BLOCK; i += 43) {
		r.cipher[C_BLOCK + i] = 1;
		assert_int_equal(gcfs_decrypt_blocks(content, file_id, 0, r.cipher, r.cipher_size, r.back,
						     &size, &bad),
				 -EBADMSG);
		assert_int_equal(bad, 1);
		r.cipher[C_BLOCK + i] = 0;
	}
	/* A short block of zeros is no hole, whatever its length. */
	for (size_t n = 1; n < C_BLOCK; n++) {
		assert_int_equal(
			gcfs_decrypt_blocks(content, file_id, 1, r.cipher + C_BLOCK, n, r.back, &size, &bad),
			-EBADMSG);
		assert_int_equal(bad, 1);
		assert_int_equal(size, 0);
	}
	run_free(&r);
}

static void test_damage(void **state)
{
	static const size_t places[] = {0, 15, 16, 2000, 4111, 4112, 4127};
	struct run r;
	size_t size;
	uint64_t bad;

	run_encrypt(&r, 4 * GCFS_BLOCK + 100, 7);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		r.cipher[2 * C_BLOCK + places[i]] ^= 0x10;
		memset(r.back, 0xff, 3 * GCFS_BLOCK);
		assert_int_equal(gcfs_decrypt_blocks(content, file_id, 7, r.cipher, r.cipher_size, r.back,
						     &size, &bad),
				 -EBADMSG);
		assert_int_equal(bad, 9);
		assert_int_equal(size, 2 * GCFS_BLOCK);
		assert_memory_equal(r.back, r.plain, size);
		for (size_t j = 0; j < GCFS_BLOCK; j++)
			assert_int_equal(r.back[size + j], 0); /* nothing unauthenticated */
		r.cipher[2 * C_BLOCK + places[i]] ^= 0x10;
	}
	run_free(&r);
}

/* Cut anywhere: whole blocks before the cut are good, the rest is bad. */
static void test_cut(void **state)
{
	struct run r;

	run_encrypt(&r, GCFS_BLOCK + 100, 0);
	for (size_t n = 0; n <= r.cipher_size; n++) {
		uint64_t bad = 99;
		size_t size = 99;
		bool whole = n == 0 || n == C_BLOCK || n == r.cipher_size;
		int got = gcfs_decrypt_blocks(content, file_id, 0, r.cipher, n, r.back, &size, &bad);

		assert_int_equal(got, whole ? 0 : -EBADMSG);
		assert_int_equal(bad, whole ? 99 : n / C_BLOCK);
		assert_int_equal(size, n == r.cipher_size ? r.size : n / C_BLOCK * GCFS_BLOCK);
	}
	run_free(&r);
}

static void test_values(void **state)
{
	static const size_t sizes[] = {1, 16, 4096, 5000, 65536};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		autofree uint8_t *plain = malloc(sizes[i]), *cipher = NULL, *back = NULL, *no = NULL;
		size_t cipher_size, size;

		memset(plain, 'v', sizes[i]);
		assert_int_equal(gcfs_value_encrypt(content, plain, sizes[i], &cipher, &cipher_size), 0);
		assert_int_equal(cipher_size, sizes[i] + OVERHEAD);
		assert_int_equal(gcfs_value_decrypt(content, cipher, cipher_size, &back, &size), 0);
		assert_int_equal(size, sizes[i]);
		assert_memory_equal(back, plain, size);
		cipher[cipher_size - 1] ^= 1;
		assert_int_equal(gcfs_value_decrypt(content, cipher, cipher_size, &no, &size), -EBADMSG);
		assert_null(no);
	}
}

static void test_empty_value(void **state)
{
	autofree uint8_t *cipher = NULL, *plain = NULL;
	size_t size = 9;

	assert_int_equal(gcfs_value_encrypt(content, "", 0, &cipher, &size), 0);
	assert_int_equal(size, 0);
	assert_non_null(cipher);
	size = 9;
	assert_int_equal(gcfs_value_decrypt(content, cipher, 0, &plain, &size), 0);
	assert_int_equal(size, 0);
	assert_non_null(plain);
}

/* Old volumes have values of attributes as base64 text. */
static void test_value_as_text(void **state)
{
	for (int padded = 0; padded < 2; padded++) {
		autofree uint8_t *cipher = NULL, *back = NULL;
		struct gcfs_content *c = NULL;
		char text[200];
		size_t n, size;

		assert_int_equal(content_for(padded ? FLAGS & ~GCFS_RAW64 : FLAGS, &c), 0);
		assert_int_equal(gcfs_value_encrypt(c, "old", 3, &cipher, &n), 0);
		n = base64_encode(padded ? BASE64_URL_PADDED : BASE64_URL_RAW, cipher, n, text);
		assert_int_equal(gcfs_value_decrypt(c, text, n, &back, &size), 0);
		assert_int_equal(size, 3);
		assert_memory_equal(back, "old", 3);
		gcfs_content_free(c);
	}
}

/* Sizes that cannot be, and zeros, which are a hole only in a file. */
static void test_malformed_values(void **state)
{
	static const size_t sizes[] = {1, 16, 31, 32, 33, 100, C_BLOCK};
	static const uint8_t zero[C_BLOCK];

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint8_t *plain = NULL;
		size_t size;

		assert_int_equal(gcfs_value_decrypt(content, zero, sizes[i], &plain, &size), -EBADMSG);
		assert_null(plain);
	}
}

/* An IV of zeros is refused even where it authenticates, as gocryptfs does. */
static void test_zero_iv(void **state)
{
	static const uint8_t aad[8 + GCFS_FILE_ID] = {[8] = 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,
						      0x11,       0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11};
	autosecret struct secret *master = NULL, *key = NULL;
	uint8_t block[OVERHEAD + 3] = {0}, *plain = NULL, back[sizeof(block)];
	struct aead *a = NULL;
	struct aead_ctx *ctx;
	uint64_t bad;
	size_t size;

	assert_int_equal(secret_new(GCFS_MASTER_KEY_SIZE, &master), 0);
	for (int i = 0; i < GCFS_MASTER_KEY_SIZE; i++)
		secret_data(master)[i] = (uint8_t)i;
	assert_int_equal(hkdf_sha256(master, "AES-GCM file content encryption", 32, &key), 0);
	assert_int_equal(aead_new(AEAD_AES_256_GCM, key, 16, &a), 0);
	ctx = aead_get(a);
	assert_int_equal(aead_seal(ctx, block, aad, 8, "abc", 3, block + 16, block + 19), 0);
	assert_int_equal(gcfs_value_decrypt(content, block, sizeof(block), &plain, &size), -EBADMSG);
	assert_int_equal(aead_seal(ctx, block, aad, sizeof(aad), "abc", 3, block + 16, block + 19), 0);
	assert_int_equal(gcfs_decrypt_blocks(content, file_id, 0, block, sizeof(block), back, &size, &bad),
			 -EBADMSG);
	/* The same with another IV is good, so it is the IV that was refused. */
	block[0] = 1;
	assert_int_equal(aead_seal(ctx, block, aad, sizeof(aad), "abc", 3, block + 16, block + 19), 0);
	assert_int_equal(gcfs_decrypt_blocks(content, file_id, 0, block, sizeof(block), back, &size, &bad),
			 0);
	assert_int_equal(aead_seal(ctx, block, aad, 8, "abc", 3, block + 16, block + 19), 0);
	assert_int_equal(gcfs_value_decrypt(content, block, sizeof(block), &plain, &size), 0);
	free(plain);
	aead_put(a, ctx);
	aead_free(a);
}

static void test_symlinks(void **state)
{
	static const size_t sizes[] = {1, 13, 255, 3038, 3039};
	char target[5001];

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		autofree char *text = NULL, *back = NULL;

		memset(target, 't', sizes[i]);
		target[sizes[i]] = '\0';
		assert_int_equal(gcfs_symlink_encrypt(content, target, &text), 0);
		assert_in_range(strlen(text), 1, 4095);
		assert_int_equal(gcfs_symlink_decrypt(content, text, &back), 0);
		assert_string_equal(back, target);
	}
}

static void test_symlink_limits(void **state)
{
	static const size_t sizes[] = {0, 3040, 3041, 4095, 4096, 5000};
	char target[5001], *text = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		memset(target, 't', sizes[i]);
		target[sizes[i]] = '\0';
		assert_int_equal(gcfs_symlink_encrypt(content, target, &text), -ENAMETOOLONG);
	}
	assert_null(text);
}

/* Padding takes two bytes from the longest target. */
static void test_symlink_padded(void **state)
{
	struct gcfs_content *c = NULL;
	autofree char *text = NULL, *back = NULL;
	char target[3039], *none = NULL;

	assert_int_equal(content_for(FLAGS & ~GCFS_RAW64, &c), 0);
	memset(target, 't', sizeof(target));
	target[3038] = '\0';
	assert_int_equal(gcfs_symlink_encrypt(c, target, &none), -ENAMETOOLONG);
	target[3037] = '\0';
	assert_int_equal(gcfs_symlink_encrypt(c, target, &text), 0);
	assert_int_equal(strlen(text) % 4, 0);
	assert_int_equal(gcfs_symlink_decrypt(c, text, &back), 0);
	assert_string_equal(back, target);
	gcfs_content_free(c);
}

static void test_malformed_symlinks(void **state)
{
	autofree char *good = NULL, *back = NULL;
	autofree uint8_t *cipher = NULL;
	char text[200];
	size_t n;

	assert_int_equal(gcfs_symlink_encrypt(content, "target", &good), 0);
	assert_int_equal(gcfs_symlink_decrypt(content, "", &back), -EBADMSG);
	assert_int_equal(gcfs_symlink_decrypt(content, "/etc/passwd", &back), -EBADMSG);
	n = strlen(good);
	memcpy(text, good, n + 1);
	strcat(text, "=");
	assert_int_equal(gcfs_symlink_decrypt(content, text, &back), -EBADMSG);
	text[n] = '\0';
	text[n / 2] = text[n / 2] == 'A' ? 'B' : 'A';
	assert_int_equal(gcfs_symlink_decrypt(content, text, &back), -EBADMSG);
	/* A target cannot hold a NUL. */
	assert_int_equal(gcfs_value_encrypt(content, "a\0b", 3, &cipher, &n), 0);
	base64_encode(BASE64_URL_RAW, cipher, n, text);
	assert_int_equal(gcfs_symlink_decrypt(content, text, &back), -EBADMSG);
	assert_null(back);
}

/* NULL when all went well: cmocka's asserts belong to the main thread. */
static void *use_content(void *arg)
{
	uint8_t plain[10000], cipher[10000 + 3 * OVERHEAD], back[sizeof(cipher)];
	size_t cipher_size, size;
	uint64_t bad;
	bool ok = true;

	for (uint64_t i = 0; i < 100 && ok; i++)
		ok = crypto_random(plain, sizeof(plain)) == 0 &&
		     gcfs_encrypt_blocks(content, file_id, i, plain, sizeof(plain), cipher, &cipher_size) ==
			     0 &&
		     gcfs_decrypt_blocks(content, file_id, i, cipher, cipher_size, back, &size, &bad) == 0 &&
		     size == sizeof(plain) && memcmp(plain, back, size) == 0;
	return ok ? NULL : arg;
}

static void test_threads(void **state)
{
	pthread_t threads[4];

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, use_content, threads), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
		void *failed;

		assert_int_equal(pthread_join(threads[i], &failed), 0);
		assert_null(failed);
	}
}

static int setup(void **state)
{
	memset(file_id, 0x11, sizeof(file_id));
	return content_for(FLAGS, &content);
}

static int teardown(void **state)
{
	gcfs_content_free(content);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_answer),
		cmocka_unit_test(test_ciphers),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_damaged_sizes),
		cmocka_unit_test(test_block_offset),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_fresh_ivs),
		cmocka_unit_test(test_holes),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_empty_value),
		cmocka_unit_test(test_value_as_text),
		cmocka_unit_test(test_malformed_values),
		cmocka_unit_test(test_symlinks),
		cmocka_unit_test(test_zero_iv),
		cmocka_unit_test(test_symlink_limits),
		cmocka_unit_test(test_symlink_padded),
		cmocka_unit_test(test_malformed_symlinks),
		cmocka_unit_test(test_threads),
	};

	if (crypto_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("gcfs_content", tests, setup, teardown);
}
