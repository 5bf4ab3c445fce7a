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

enum { FLAGS = GCFS_HKDF | GCFS_GCMIV128 | GCFS_DIRIV | GCFS_RAW64, OVERHEAD_MAX = 40 };

/* Every test runs for each cipher: what setup_*() made. */
static struct gcfs_content *content;
static unsigned flags;
static size_t iv_size, overhead, c_block;
static uint8_t file_id[GCFS_FILE_ID];

static size_t from_hex(const char *hex, uint8_t *out)
{
	size_t n = strlen(hex) / 2;

	for (size_t i = 0; i < n; i++) {
		char pair[3] = {hex[2 * i], hex[2 * i + 1], '\0'};

		out[i] = (uint8_t)strtoul(pair, NULL, 16);
	}
	return n;
}

static int content_for(unsigned kind, struct gcfs_content **ret)
{
	autosecret struct secret *master = NULL;

	assert_int_equal(secret_new(GCFS_MASTER_KEY_SIZE, &master), 0);
	for (int i = 0; i < GCFS_MASTER_KEY_SIZE; i++)
		secret_data(master)[i] = (uint8_t)i;
	return gcfs_content_new(master, kind, ret);
}

/* Block 1 of "hi" in the file 11..11, for the master key 00..1f: made by gocryptfs 2.3, but for the last two.
 */
static void test_known_answers(void **state)
{
	static const struct {
		unsigned flags;
		const char *block;
	} table[] = {
		{FLAGS, "0102030405060708090a0b0c0d0e0f102b98e05afb215f43541fb874d53732c4ae35"},
		{FLAGS | GCFS_AESSIV, "0102030405060708090a0b0c0d0e0f1083bc48dd03eac368f57fbbcde9e426b8b4cb"},
		{GCFS_HKDF | GCFS_XCHACHA,
		 "0102030405060708090a0b0c0d0e0f1011121314151617181d90e9b0c7f5c493cedaab"
		 "1a60470fe98b49"},
		/* Without HKDF, by another implementation (Python's cryptography). */
		{GCFS_GCMIV128, "0102030405060708090a0b0c0d0e0f108fec56cd1341904f808f09afad93ce1d1102"},
		{GCFS_GCMIV128 | GCFS_AESSIV,
		 "0102030405060708090a0b0c0d0e0f10a5d78c044ca5751771149a1798f2db1873d4"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		uint8_t block[64], plain[64], other[GCFS_FILE_ID];
		struct gcfs_content *c = NULL;
		uint64_t bad = 99;
		size_t size, n = from_hex(table[i].block, block);

		assert_int_equal(content_for(table[i].flags, &c), 0);
		assert_int_equal(gcfs_overhead(c), n - 2);
		assert_int_equal(gcfs_decrypt_blocks(c, file_id, 1, block, n, plain, &size, &bad), 0);
		assert_int_equal(size, 2);
		assert_memory_equal(plain, "hi", 2);
		assert_int_equal(bad, 99);
		/* It is bound to its place and its file. */
		assert_int_equal(gcfs_decrypt_blocks(c, file_id, 0, block, n, plain, &size, &bad), -EBADMSG);
		assert_int_equal(bad, 0);
		memcpy(other, file_id, sizeof(other));
		other[3] ^= 1;
		assert_int_equal(gcfs_decrypt_blocks(c, other, 1, block, n, plain, &size, &bad), -EBADMSG);
		assert_int_equal(bad, 1);
		assert_int_equal(size, 0);
		gcfs_content_free(c);
	}
}

/* Only what is legal in gocryptfs.conf. */
static void test_no_cipher(void **state)
{
	static const unsigned wrong[] = {GCFS_HKDF,
					 GCFS_HKDF | GCFS_AESSIV,
					 GCFS_XCHACHA,
					 GCFS_HKDF | GCFS_XCHACHA | GCFS_GCMIV128,
					 GCFS_HKDF | GCFS_XCHACHA | GCFS_AESSIV,
					 FLAGS | GCFS_XCHACHA | GCFS_AESSIV};
	struct gcfs_content *c = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(content_for(wrong[i], &c), -EINVAL);
	assert_null(c);
	gcfs_content_free(NULL);
}

static void test_sizes(void **state)
{
	static const struct {
		uint64_t plain, blocks;
	} whole[] = {{0, 0},
		     {1, 1},
		     {2, 1},
		     {4095, 1},
		     {4096, 1},
		     {4097, 2},
		     {8192, 2},
		     {1 << 20, 256},
		     {UINT64_C(1) << 40, UINT64_C(1) << 28},
		     {INT64_MAX / 2, UINT64_C(1) << 50}};
	uint64_t cipher = 7;

	for (size_t i = 0; i < ARRAY_SIZE(whole); i++) {
		uint64_t want = whole[i].plain ? 18 + whole[i].plain + whole[i].blocks * overhead : 0;

		assert_int_equal(gcfs_cipher_size(content, whole[i].plain, &cipher), 0);
		assert_int_equal(cipher, want);
		assert_int_equal(gcfs_plain_size(content, want), whole[i].plain);
	}
	cipher = 7;
	assert_int_equal(gcfs_cipher_size(content, (uint64_t)INT64_MAX / 2 + 1, &cipher), -EFBIG);
	assert_int_equal(gcfs_cipher_size(content, UINT64_MAX, &cipher), -EFBIG);
	assert_int_equal(cipher, 7);
}

/* A tail that cannot hold a byte counts as one. */
static void test_damaged_sizes(void **state)
{
	uint64_t last = (UINT64_MAX - 18) % c_block;
	const struct {
		uint64_t cipher, plain;
	} table[] = {{0, 0},
		     {1, 0},
		     {17, 0},
		     {18, 0},
		     {19, 1},
		     {18 + overhead - 1, 1},
		     {18 + overhead, 1},
		     {18 + overhead + 1, 1},
		     {18 + overhead + 2, 2},
		     {18 + c_block - 1, 4095},
		     {18 + c_block, 4096},
		     {18 + c_block + 1, 4097},
		     {18 + c_block + overhead, 4097},
		     {18 + c_block + overhead + 1, 4097},
		     {18 + c_block + overhead + 2, 4098},
		     {UINT64_C(18) + c_block * UINT64_C(1000000) + 5, UINT64_C(4096000001)},
		     /* Nothing overflows. */
		     {UINT64_MAX, (UINT64_MAX - 18) / c_block * 4096 + last - overhead}};

	assert_true(last > overhead);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		assert_int_equal(gcfs_plain_size(content, table[i].cipher), table[i].plain);
}

static void test_block_offset(void **state)
{
	assert_int_equal(gcfs_block_offset(0, overhead), 18);
	assert_int_equal(gcfs_block_offset(1, overhead), 18 + c_block);
	assert_int_equal(gcfs_block_offset(UINT64_C(1) << 40, overhead), 18 + (UINT64_C(1) << 40) * c_block);
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
	r->cipher = malloc(size + (size / GCFS_BLOCK + 1) * overhead);
	r->back = malloc(size + (size / GCFS_BLOCK + 1) * overhead);
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
		assert_memory_not_equal(a.cipher + i * c_block, b.cipher + i * c_block, iv_size);
		for (size_t j = 0; j < i; j++)
			assert_memory_not_equal(a.cipher + i * c_block, a.cipher + j * c_block, iv_size);
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
	memset(r.cipher + c_block, 0, c_block);
	memset(r.plain + GCFS_BLOCK, 0, GCFS_BLOCK);
	assert_int_equal(
		gcfs_decrypt_blocks(content, file_id, 0, r.cipher, r.cipher_size, r.back, &size, &bad), 0);
	assert_int_equal(size, r.size);
	assert_memory_equal(r.back, r.plain, size);

	/* One byte that is not zero, anywhere: damage. */
	for (size_t i = 0; i < c_block; i += 43) {
		r.cipher[c_block + i] = 1;
		assert_int_equal(gcfs_decrypt_blocks(content, file_id, 0, r.cipher, r.cipher_size, r.back,
						     &size, &bad),
				 -EBADMSG);
		assert_int_equal(bad, 1);
		r.cipher[c_block + i] = 0;
	}
	/* A short block of zeros is no hole, whatever its length. */
	for (size_t n = 1; n < c_block; n++) {
		assert_int_equal(
			gcfs_decrypt_blocks(content, file_id, 1, r.cipher + c_block, n, r.back, &size, &bad),
			-EBADMSG);
		assert_int_equal(bad, 1);
		assert_int_equal(size, 0);
	}
	run_free(&r);
}

static void test_damage(void **state)
{
	const size_t places[] = {0, 15, 16, 31, 32, 2000, c_block - 17, c_block - 16, c_block - 1};
	struct run r;
	size_t size;
	uint64_t bad;

	run_encrypt(&r, 4 * GCFS_BLOCK + 100, 7);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		r.cipher[2 * c_block + places[i]] ^= 0x10;
		memset(r.back, 0xff, 3 * GCFS_BLOCK);
		assert_int_equal(gcfs_decrypt_blocks(content, file_id, 7, r.cipher, r.cipher_size, r.back,
						     &size, &bad),
				 -EBADMSG);
		assert_int_equal(bad, 9);
		assert_int_equal(size, 2 * GCFS_BLOCK);
		assert_memory_equal(r.back, r.plain, size);
		for (size_t j = 0; j < GCFS_BLOCK; j++)
			assert_int_equal(r.back[size + j], 0); /* nothing unauthenticated */
		r.cipher[2 * c_block + places[i]] ^= 0x10;
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
		bool whole = n == 0 || n == c_block || n == r.cipher_size;
		int got = gcfs_decrypt_blocks(content, file_id, 0, r.cipher, n, r.back, &size, &bad);

		assert_int_equal(got, whole ? 0 : -EBADMSG);
		assert_int_equal(bad, whole ? 99 : n / c_block);
		assert_int_equal(size, n == r.cipher_size ? r.size : n / c_block * GCFS_BLOCK);
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
		assert_int_equal(cipher_size, sizes[i] + overhead);
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

		assert_int_equal(content_for(padded ? flags & ~GCFS_RAW64 : flags, &c), 0);
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
	const size_t sizes[] = {1, 16, 31, 32, 33, 40, 41, 100, c_block};
	static const uint8_t zero[GCFS_BLOCK + OVERHEAD_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint8_t *plain = NULL;
		size_t size;

		assert_int_equal(gcfs_value_decrypt(content, zero, sizes[i], &plain, &size), -EBADMSG);
		assert_null(plain);
	}
}

/* A block as the format has it, sealed with any IV: GCM only, whose key is easily had. */
static void seal_block(struct aead *a, const uint8_t *iv, size_t aad_size, uint8_t block[16 + 3 + 16])
{
	static const uint8_t aad[8 + GCFS_FILE_ID] = {[8] = 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,
						      0x11,       0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11};
	struct aead_ctx *ctx = aead_get(a);

	memcpy(block, iv, 16);
	assert_int_equal(aead_seal(ctx, iv, aad, aad_size, "abc", 3, block + 16, block + 19), 0);
	aead_put(a, ctx);
}

/* An IV of zeros is refused even where it authenticates, as gocryptfs does. */
static void test_zero_iv(void **state)
{
	static const uint8_t zero[16], one[16] = {1};
	autosecret struct secret *master = NULL, *key = NULL;
	uint8_t block[35], *plain = NULL, back[sizeof(block)];
	struct gcfs_content *c = NULL;
	struct aead *a = NULL;
	uint64_t bad;
	size_t size;

	assert_int_equal(content_for(FLAGS, &c), 0);
	assert_int_equal(secret_new(GCFS_MASTER_KEY_SIZE, &master), 0);
	for (int i = 0; i < GCFS_MASTER_KEY_SIZE; i++)
		secret_data(master)[i] = (uint8_t)i;
	assert_int_equal(hkdf_sha256(master, "AES-GCM file content encryption", 32, &key), 0);
	assert_int_equal(aead_new(AEAD_AES_256_GCM, key, 16, &a), 0);
	seal_block(a, zero, 8, block);
	assert_int_equal(gcfs_value_decrypt(c, block, sizeof(block), &plain, &size), -EBADMSG);
	seal_block(a, zero, 24, block);
	assert_int_equal(gcfs_decrypt_blocks(c, file_id, 0, block, sizeof(block), back, &size, &bad),
			 -EBADMSG);
	/* The same with another IV is good, so it is the IV that was refused. */
	seal_block(a, one, 24, block);
	assert_int_equal(gcfs_decrypt_blocks(c, file_id, 0, block, sizeof(block), back, &size, &bad), 0);
	seal_block(a, one, 8, block);
	assert_int_equal(gcfs_value_decrypt(c, block, sizeof(block), &plain, &size), 0);
	free(plain);
	aead_free(a);
	gcfs_content_free(c);
}

static void test_symlinks(void **state)
{
	const size_t longest = 4095 * 3 / 4 - overhead, sizes[] = {1, 13, 255, longest - 1, longest};
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
	const size_t longest = 4095 * 3 / 4 - overhead,
		     sizes[] = {0, longest + 1, longest + 2, 4095, 4096, 5000};
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
	const size_t longest = 4092 / 4 * 3 - overhead;
	char target[4096], *none = NULL;

	assert_int_equal(content_for(flags & ~GCFS_RAW64, &c), 0);
	memset(target, 't', sizeof(target));
	target[longest + 1] = '\0';
	assert_int_equal(gcfs_symlink_encrypt(c, target, &none), -ENAMETOOLONG);
	target[longest] = '\0';
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
	uint8_t plain[10000], cipher[10000 + 3 * OVERHEAD_MAX], back[sizeof(cipher)];
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

static int setup(unsigned kind)
{
	memset(file_id, 0x11, sizeof(file_id));
	flags = kind;
	iv_size = kind & GCFS_XCHACHA ? 24 : 16;
	overhead = iv_size + 16;
	c_block = GCFS_BLOCK + overhead;
	return content_for(kind, &content);
}

static int setup_gcm(void **state)
{
	return setup(FLAGS);
}

static int setup_siv(void **state)
{
	return setup(FLAGS | GCFS_AESSIV);
}

static int setup_xchacha(void **state)
{
	return setup(GCFS_HKDF | GCFS_XCHACHA | GCFS_DIRIV | GCFS_RAW64);
}

static int teardown(void **state)
{
	gcfs_content_free(content);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_answers),  cmocka_unit_test(test_no_cipher),
		cmocka_unit_test(test_zero_iv),        cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_damaged_sizes),  cmocka_unit_test(test_block_offset),
		cmocka_unit_test(test_header),         cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_fresh_ivs),      cmocka_unit_test(test_holes),
		cmocka_unit_test(test_damage),         cmocka_unit_test(test_cut),
		cmocka_unit_test(test_values),         cmocka_unit_test(test_empty_value),
		cmocka_unit_test(test_value_as_text),  cmocka_unit_test(test_malformed_values),
		cmocka_unit_test(test_symlinks),       cmocka_unit_test(test_symlink_limits),
		cmocka_unit_test(test_symlink_padded), cmocka_unit_test(test_malformed_symlinks),
		cmocka_unit_test(test_threads),
	};

	if (crypto_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("gcfs_content, AES-GCM", tests, setup_gcm, teardown) +
	       cmocka_run_group_tests_name("gcfs_content, AES-SIV", tests, setup_siv, teardown) +
	       cmocka_run_group_tests_name("gcfs_content, XChaCha20-Poly1305", tests, setup_xchacha,
					   teardown);
}
