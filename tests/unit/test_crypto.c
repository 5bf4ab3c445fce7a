/* SPDX-License-Identifier: MIT */
/* crypto.c against the vectors of its standards; and that keys stay in secret memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "crypto.h"
#include "util.h"

static size_t from_hex(const char *hex, uint8_t *out)
{
	size_t n = strlen(hex) / 2;

	for (size_t i = 0; i < n; i++) {
		char pair[3] = {hex[2 * i], hex[2 * i + 1], '\0'};

		out[i] = (uint8_t)strtoul(pair, NULL, 16);
	}
	return n;
}

static struct secret *secret_of_hex(const char *hex)
{
	struct secret *s = NULL;
	uint8_t buf[128];
	size_t n = from_hex(hex, buf);

	assert_int_equal(secret_new_from(buf, n, &s), 0);
	return s;
}

static struct secret *secret_of_text(const char *text)
{
	struct secret *s = NULL;

	assert_int_equal(secret_new_from(text, strlen(text), &s), 0);
	return s;
}

static void assert_hex(const void *data, size_t size, const char *want)
{
	char hex[257];

	assert_in_range(size, 0, 128);
	hex_encode(data, size, hex);
	assert_string_equal(hex, want);
}

/*
 * NIST's GCM vectors 13 to 16 for AES-256; draft-irtf-cfrg-xchacha-03, A.3.1; and of each cipher a block of
 * the gocryptfs format.
 */
static const struct {
	enum aead_kind kind;
	const char *key, *iv, *aad, *plain, *cipher, *tag;
} vectors[] = {
	{AEAD_AES_256_GCM, "0000000000000000000000000000000000000000000000000000000000000000",
	 "000000000000000000000000", "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
	{AEAD_AES_256_GCM, "0000000000000000000000000000000000000000000000000000000000000000",
	 "000000000000000000000000", "", "00000000000000000000000000000000",
	 "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919"},
	{AEAD_AES_256_GCM, "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
	 "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
	 "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525"
	 "b16aedf5aa0de657ba637b39",
	 "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838"
	 "c5f61e6393ba7a0abcc9f662",
	 "76fc6ece0f4e1768cddf8853bb2d551b"},
	{AEAD_AES_256_GCM, "17df772cfec9d28b9ede3c753d0010ba9f199655acfc3b78dd3b61b5dd5f36c5",
	 "0102030405060708090a0b0c0d0e0f10", "000000000000000111111111111111111111111111111111", "6869",
	 "2b98", "e05afb215f43541fb874d53732c4ae35"},
	{AEAD_AES_256_SIV,
	 "90be6449231c24d9d308f1772b47953b6acf97f9e7876a16172e019977f3b7e0"
	 "2419aaf86d684593cf2b43008422ad6726b83aaf0897186fb8a8cbd04854bd3c",
	 "0102030405060708090a0b0c0d0e0f10", "000000000000000111111111111111111111111111111111", "6869",
	 "b4cb", "83bc48dd03eac368f57fbbcde9e426b8"},
	{AEAD_XCHACHA20_POLY1305, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
	 "404142434445464748494a4b4c4d4e4f5051525354555657", "50515253c0c1c2c3c4c5c6c7",
	 "4c616469657320616e642047656e746c656d656e206f662074686520636c617373206f66202739393a20496620492063"
	 "6f756c64206f6666657220796f75206f6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73"
	 "637265656e20776f756c642062652069742e",
	 "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39"
	 "ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
	 "21f9664c97637da9768812f615c68b13b52e",
	 "c0875924c1c7987947deafd8780acf49"},
	{AEAD_XCHACHA20_POLY1305, "957caa5a8d2a9189b77f2fcb17707c1fc6ce862c0061f9d1db29a3b71eb7ca0d",
	 "0102030405060708090a0b0c0d0e0f101112131415161718",
	 "000000000000000111111111111111111111111111111111", "6869", "1d90",
	 "e9b0c7f5c493cedaab1a60470fe98b49"},
};

/* Every cipher with its key of the gocryptfs format, for tests of what they have in common. */
static const struct {
	enum aead_kind kind;
	size_t iv_size;
} kinds[] = {
	{AEAD_AES_256_GCM, 12},
	{AEAD_AES_256_GCM, 16},
	{AEAD_AES_256_SIV, 16},
	{AEAD_XCHACHA20_POLY1305, 24},
};

static struct secret *key_for(enum aead_kind kind)
{
	struct secret *key = NULL;

	assert_int_equal(secret_new(aead_key_size(kind), &key), 0);
	for (size_t i = 0; i < secret_size(key); i++)
		secret_data(key)[i] = (uint8_t)(i * 7 + 1);
	return key;
}

static void test_aead_vectors(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
		autosecret struct secret *key = secret_of_hex(vectors[i].key);
		uint8_t iv[24], aad[64], text[128], out[128], tag[AEAD_TAG_SIZE];
		size_t iv_size = from_hex(vectors[i].iv, iv), aad_size = from_hex(vectors[i].aad, aad),
		       size = from_hex(vectors[i].plain, text);
		struct aead *a = NULL;
		struct aead_ctx *ctx;

		assert_int_equal(aead_new(vectors[i].kind, key, iv_size, &a), 0);
		ctx = aead_get(a);
		/* Twice: the second time the context is used. */
		for (int round = 0; round < 2; round++) {
			assert_int_equal(aead_seal(ctx, iv, aad, aad_size, text, size, out, tag), 0);
			assert_hex(out, size, vectors[i].cipher);
			assert_hex(tag, sizeof(tag), vectors[i].tag);
			assert_int_equal(aead_open(ctx, iv, aad, aad_size, out, size, tag, out), 0);
			assert_hex(out, size, vectors[i].plain);
		}
		aead_put(a, ctx);
		aead_free(a);
	}
}

/* OpenSSL's own AES-SIV, slow and right: strings are what is authenticated, IV, text. */
static void siv_reference(const struct secret *key, const uint8_t *iv, const uint8_t *aad, size_t aad_size,
			  const uint8_t *in, size_t size, uint8_t *out, uint8_t *ret_tag)
{
	EVP_CIPHER *siv = EVP_CIPHER_fetch(NULL, "AES-256-SIV", NULL);
	EVP_CIPHER_CTX *evp = EVP_CIPHER_CTX_new();
	int n;

	assert_true(siv && evp);
	assert_int_equal(EVP_EncryptInit_ex(evp, siv, NULL, secret_data(key), NULL), 1);
	assert_int_equal(EVP_EncryptUpdate(evp, NULL, &n, aad, (int)aad_size), 1);
	assert_int_equal(EVP_EncryptUpdate(evp, NULL, &n, iv, 16), 1);
	assert_int_equal(EVP_EncryptUpdate(evp, out, &n, in, (int)size), 1);
	assert_int_equal(EVP_EncryptFinal_ex(evp, out, &n), 1);
	assert_int_equal(EVP_CIPHER_CTX_ctrl(evp, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_SIZE, ret_tag), 1);
	EVP_CIPHER_CTX_free(evp);
	EVP_CIPHER_free(siv);
}

static void test_siv_reference(void **state)
{
	enum { MAX = 9000 };
	static uint8_t text[MAX], out[MAX], want[MAX];
	autosecret struct secret *key = key_for(AEAD_AES_256_SIV);
	uint8_t iv[16], aad[100], tag[AEAD_TAG_SIZE], want_tag[AEAD_TAG_SIZE];
	struct aead *a = NULL;
	struct aead_ctx *ctx;

	assert_int_equal(aead_new(AEAD_AES_256_SIV, key, 16, &a), 0);
	ctx = aead_get(a);
	assert_int_equal(crypto_random(text, sizeof(text)), 0);
	assert_int_equal(crypto_random(aad, sizeof(aad)), 0);
	/* Every length around the edges of a block, and of what is authenticated at one go. */
	for (size_t size = 1; size < MAX; size += size < 80 || (size > 4060 && size < 4200) ? 1 : 97) {
		size_t aad_size = 1 + size % sizeof(aad);

		assert_int_equal(crypto_random(iv, sizeof(iv)), 0);
		siv_reference(key, iv, aad, aad_size, text, size, want, want_tag);
		assert_int_equal(aead_seal(ctx, iv, aad, aad_size, text, size, out, tag), 0);
		assert_memory_equal(out, want, size);
		assert_memory_equal(tag, want_tag, sizeof(tag));
		assert_int_equal(aead_open(ctx, iv, aad, aad_size, out, size, tag, out), 0);
		assert_memory_equal(out, text, size);
	}
	aead_put(a, ctx);
	aead_free(a);
}

/* From one buffer to another, and in itself, is the same; also of nothing. */
static void test_aead_in_place(void **state)
{
	static const size_t sizes[] = {0, 1, 15, 16, 17, 64, 4096, 5000};
	static uint8_t text[5000], apart[5000], within[5000];

	assert_int_equal(crypto_random(text, sizeof(text)), 0);
	for (size_t i = 0; i < ARRAY_SIZE(kinds) * ARRAY_SIZE(sizes); i++) {
		size_t k = i / ARRAY_SIZE(sizes), size = sizes[i % ARRAY_SIZE(sizes)];
		autosecret struct secret *key = key_for(kinds[k].kind);
		uint8_t iv[24] = {9}, tag[AEAD_TAG_SIZE], other[AEAD_TAG_SIZE];
		struct aead *a = NULL;
		struct aead_ctx *ctx;

		assert_int_equal(aead_new(kinds[k].kind, key, kinds[k].iv_size, &a), 0);
		ctx = aead_get(a);
		memcpy(within, text, sizeof(text));
		assert_int_equal(aead_seal(ctx, iv, "aad", 3, text, size, apart, tag), 0);
		assert_int_equal(aead_seal(ctx, iv, "aad", 3, within, size, within, other), 0);
		assert_memory_equal(tag, other, sizeof(tag));
		assert_int_equal(memcmp(apart, within, size), 0);
		assert_int_equal(aead_open(ctx, iv, "aad", 3, within, size, tag, within), 0);
		assert_memory_equal(within, text, sizeof(text));
		aead_put(a, ctx);
		aead_free(a);
	}
}

static void test_aead_refuses(void **state)
{
	static const struct {
		enum aead_kind kind;
		size_t key_size, iv_size;
	} table[] = {
		{AEAD_AES_256_GCM, 32, 0},         {AEAD_AES_256_GCM, 32, 24},
		{AEAD_AES_256_GCM, 31, 16},        {AEAD_AES_256_GCM, 64, 16},
		{AEAD_AES_256_SIV, 32, 16},        {AEAD_AES_256_SIV, 64, 12},
		{AEAD_AES_256_SIV, 64, 0},         {AEAD_XCHACHA20_POLY1305, 32, 12},
		{AEAD_XCHACHA20_POLY1305, 32, 16}, {AEAD_XCHACHA20_POLY1305, 64, 24},
	};
	struct aead *a = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		autosecret struct secret *key = NULL;

		assert_int_equal(secret_new(table[i].key_size, &key), 0);
		assert_int_equal(aead_new(table[i].kind, key, table[i].iv_size, &a), -EINVAL);
	}
	assert_null(a);
	aead_free(NULL);
}

/* Each bit that is authenticated, flipped once; nothing of the plaintext may come out. */
static void test_aead_damage(void **state)
{
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		autosecret struct secret *key = key_for(kinds[k].kind);
		size_t iv_size = kinds[k].iv_size, all = iv_size + 8 + 40 + AEAD_TAG_SIZE;
		uint8_t whole[24 + 8 + 40 + AEAD_TAG_SIZE], *iv = whole, *aad = iv + iv_size, *text = aad + 8,
							    *tag = text + 40;
		uint8_t out[40], zero[40] = {0};
		struct aead *a = NULL;
		struct aead_ctx *ctx;

		assert_int_equal(aead_new(kinds[k].kind, key, iv_size, &a), 0);
		ctx = aead_get(a);
		memset(whole, 0x5a, sizeof(whole));
		assert_int_equal(aead_seal(ctx, iv, aad, 8, text, 40, text, tag), 0);
		for (size_t bit = 0; bit < all * 8; bit++) {
			whole[bit / 8] ^= (uint8_t)(1 << bit % 8);
			memset(out, 0xff, sizeof(out));
			assert_int_equal(aead_open(ctx, iv, aad, 8, text, 40, tag, out), -EBADMSG);
			assert_memory_equal(out, zero, sizeof(out));
			whole[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
		assert_int_equal(aead_open(ctx, iv, aad, 8, text, 40, tag, out), 0);
		assert_int_equal(out[39], 0x5a);
		aead_put(a, ctx);
		aead_free(a);
	}
}

/* FIPS 197 C.3; and blocks are independent of each other. */
static void test_ecb(void **state)
{
	autosecret struct secret *key =
		secret_of_hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
	uint8_t buf[48];
	struct ecb *e = NULL;

	assert_int_equal(ecb_new(key, &e), 0);
	for (int i = 0; i < 3; i++)
		from_hex("00112233445566778899aabbccddeeff", buf + 16 * i);
	assert_int_equal(ecb_crypt(e, true, buf, 3, buf), 0);
	for (int i = 0; i < 3; i++)
		assert_hex(buf + 16 * i, 16, "8ea2b7ca516745bfeafc49904b496089");
	assert_int_equal(ecb_crypt(e, false, buf, 3, buf), 0);
	assert_hex(buf + 32, 16, "00112233445566778899aabbccddeeff");
	assert_int_equal(ecb_crypt(e, true, buf, 0, buf), 0);
	ecb_free(e);
	ecb_free(NULL);
}

/* RFC 5869 test case 3 (no salt, no info), and the keys of the gocryptfs format for master key 00..1f. */
static void test_hkdf(void **state)
{
	static const char master[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
	static const struct {
		const char *ikm, *info, *okm;
	} table[] = {
		{"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "",
		 "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"},
		{master, "EME filename encryption",
		 "59366f708e4d4ed892d6bd6ca0de6e927040808b21bd0e1a2753ea365aeaf6c9"},
		{master, "AES-GCM file content encryption",
		 "17df772cfec9d28b9ede3c753d0010ba9f199655acfc3b78dd3b61b5dd5f36c5"},
		{master, "XChaCha20-Poly1305 file content encryption",
		 "957caa5a8d2a9189b77f2fcb17707c1fc6ce862c0061f9d1db29a3b71eb7ca0d"},
		{master, "AES-SIV file content encryption",
		 "90be6449231c24d9d308f1772b47953b6acf97f9e7876a16172e019977f3b7e0"
		 "2419aaf86d684593cf2b43008422ad6726b83aaf0897186fb8a8cbd04854bd3c"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		autosecret struct secret *ikm = secret_of_hex(table[i].ikm), *okm = NULL;

		assert_int_equal(hkdf_sha256(ikm, table[i].info, strlen(table[i].okm) / 2, &okm), 0);
		assert_hex(secret_data(okm), secret_size(okm), table[i].okm);
	}
}

static void test_hkdf_too_long(void **state)
{
	autosecret struct secret *ikm = secret_of_text("x"), *okm = NULL;

	assert_int_equal(hkdf_sha256(ikm, "", 255 * 32 + 1, &okm), -EINVAL);
	assert_null(okm);
}

/* RFC 7914 section 12, the first 32 bytes. */
static void test_scrypt(void **state)
{
	static const struct {
		const char *password, *salt;
		uint64_t n;
		uint32_t r, p;
		const char *want;
	} table[] = {
		{"password", "NaCl", 1024, 8, 16,
		 "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"},
		{"pleaseletmein", "SodiumChloride", 16384, 8, 1,
		 "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		autosecret struct secret *password = secret_of_text(table[i].password), *out = NULL;

		assert_int_equal(scrypt_derive(password, table[i].salt, strlen(table[i].salt), table[i].n,
					       table[i].r, table[i].p, 64 << 20, &out),
				 0);
		assert_hex(secret_data(out), secret_size(out), table[i].want);
	}
}

static void test_scrypt_limits(void **state)
{
	static const struct {
		uint64_t n;
		uint32_t r, p;
		uint64_t memory;
		int want;
	} table[] = {
		{1024, 8, 1, 1 << 20, 0},
		{1024, 8, 1, (1 << 20) - 1, -ENOMEM},
		{1024, 8, 2, 1 << 20, -ENOMEM}, /* the second block counts */
		{0, 8, 1, 1 << 20, -EINVAL},
		{1, 8, 1, 1 << 20, -EINVAL},
		{1000, 8, 1, 1 << 20, -EINVAL},
		{1024, 0, 1, 1 << 20, -EINVAL},
		{1024, 8, 0, 1 << 20, -EINVAL},
		{1024, 1 << 15, 1 << 15, UINT64_MAX, -EINVAL},  /* r * p = 2^30 */
		{UINT64_C(1) << 63, 8, 1, UINT64_MAX, -EINVAL}, /* 128*n*r overflows */
		{UINT64_C(1) << 54, 8, 1, UINT64_MAX, -EINVAL},
		{UINT64_C(1) << 40, 8, 1, 1 << 30, -ENOMEM},
		{2, UINT32_C(1) << 29, 1, 1 << 30, -ENOMEM}, /* 128*r does not fit 32 bits */
	};
	autosecret struct secret *password = secret_of_text("password");

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		autosecret struct secret *out = NULL;

		assert_int_equal(scrypt_derive(password, "salt", 4, table[i].n, table[i].r, table[i].p,
					       table[i].memory, &out),
				 table[i].want);
		assert_int_equal(out != NULL, table[i].want == 0);
	}
}

static void test_sha256(void **state)
{
	uint8_t hash[32];

	assert_int_equal(sha256("abc", 3, hash), 0);
	assert_hex(hash, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_int_equal(sha256("", 0, hash), 0);
	assert_hex(hash, 32, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

/* FIPS 180-2, C.1: "abc". */
static void test_sha512(void **state)
{
	autosecret struct secret *abc = secret_of_text("abc"), *hash = NULL;

	assert_int_equal(sha512_secret(abc, &hash), 0);
	assert_hex(secret_data(hash), secret_size(hash),
		   "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
		   "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f");
}

static void test_equal(void **state)
{
	assert_true(crypto_equal("abcd", "abcd", 4));
	assert_true(crypto_equal("abcd", "abcx", 3));
	assert_false(crypto_equal("abcd", "abcx", 4));
	assert_false(crypto_equal("abcd", "xbcd", 4));
	assert_true(crypto_equal("a", "b", 0));
}

static void test_random(void **state)
{
	uint8_t a[64], b[64], untouched[64];

	memset(untouched, 0xa5, sizeof(untouched));
	memcpy(a, untouched, sizeof(a));
	memcpy(b, untouched, sizeof(b));
	assert_int_equal(crypto_random(a, 32), 0);
	assert_int_equal(crypto_random(b, 32), 0);
	assert_memory_not_equal(a, untouched, 32);
	assert_memory_not_equal(a, b, 32);
	assert_memory_equal(a + 32, untouched, 32);
	assert_int_equal(crypto_random(a, 0), 0);
}

enum { THREADS = 4, ROUNDS = 400 };

struct shared {
	struct aead *aead;
	struct ecb *ecb;
};

/* NULL when all went well: cmocka's asserts belong to the main thread. */
static void *use_shared(void *arg)
{
	struct shared *s = arg;
	uint8_t iv[24], text[600], copy[600], tag[AEAD_TAG_SIZE];
	bool ok = true;

	for (int i = 0; i < ROUNDS && ok; i++) {
		struct aead_ctx *ctx = aead_get(s->aead);

		ok = ctx && crypto_random(iv, sizeof(iv)) == 0 && crypto_random(text, sizeof(text)) == 0 &&
		     aead_seal(ctx, iv, iv, 8, text, sizeof(text), copy, tag) == 0 &&
		     aead_open(ctx, iv, iv, 8, copy, sizeof(copy), tag, copy) == 0 &&
		     memcmp(text, copy, sizeof(text)) == 0;
		if (ctx)
			aead_put(s->aead, ctx);
		ok = ok && ecb_crypt(s->ecb, true, text, 37, copy) == 0 &&
		     ecb_crypt(s->ecb, false, copy, 37, copy) == 0 && memcmp(text, copy, 37 * 16) == 0;
	}
	return ok ? NULL : arg;
}

static void test_threads(void **state)
{
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		autosecret struct secret *key = key_for(kinds[k].kind), *ecb_key = key_for(AEAD_AES_256_GCM);
		struct shared s = {0};
		pthread_t threads[THREADS];

		assert_int_equal(aead_new(kinds[k].kind, key, kinds[k].iv_size, &s.aead), 0);
		assert_int_equal(ecb_new(ecb_key, &s.ecb), 0);
		for (int i = 0; i < THREADS; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, use_shared, &s), 0);
		for (int i = 0; i < THREADS; i++) {
			void *failed;

			assert_int_equal(pthread_join(threads[i], &failed), 0);
			assert_null(failed);
		}
		aead_free(s.aead);
		ecb_free(s.ecb);
	}
}

/* Is one mapping, ordinary memory, free of needle? Read through /proc: sanitizers watch direct reads. */
static bool mapping_holds(int mem, unsigned long from, unsigned long to, const struct secret *needle)
{
	enum { STEP = 1 << 16 };
	static uint8_t buf[STEP + 64];
	size_t overlap = secret_size(needle);

	for (unsigned long at = from; at < to; at += STEP) {
		size_t want = min_u64(to - at, STEP + overlap);
		ssize_t n = pread(mem, buf, want, (off_t)at);

		if (n > 0 && memmem(buf, (size_t)n, secret_data(needle), secret_size(needle)))
			return true;
	}
	return false;
}

/*
 * Looks through all writable memory of this process that a core file would hold ("dd" in VmFlags marks what
 * is left out: secrets, and the sanitizers' shadow). Counts mappings that hold needle; *ret_seen all looked
 * at.
 */
static int ordinary_memory_with(const struct secret *needle, int *ret_seen)
{
	FILE *maps = fopen("/proc/self/smaps", "re");
	autofd int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	unsigned long from = 0, to = 0, a, b;
	char line[512], perms[5], mode[5] = "";
	int found = 0;

	assert_non_null(maps);
	assert_true(mem >= 0);
	*ret_seen = 0;
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx %4s", &a, &b, perms) == 3) {
			from = a;
			to = b;
			memcpy(mode, perms, sizeof(mode));
		} else if (strncmp(line, "VmFlags:", 8) == 0 && strncmp(mode, "rw", 2) == 0 &&
			   !strstr(line, " dd") && to - from < 1UL << 30) {
			(*ret_seen)++;
			found += mapping_holds(mem, from, to, needle);
		}
	}
	fclose(maps);
	return found;
}

/*
 * The first bytes of an AES key schedule are the key, and ChaCha20 keeps its key as it is: had OpenSSL's
 * contexts been ordinary memory, it would be found. part is a key of 32 bytes that occurs in the cipher's.
 */
static void use_all_ciphers(const struct secret *part)
{
	uint8_t iv[24] = {1}, text[64] = {0}, tag[AEAD_TAG_SIZE];

	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		autosecret struct secret *key = NULL;
		struct aead *a = NULL;
		struct aead_ctx *ctx;
		int seen;

		assert_int_equal(secret_new(aead_key_size(kinds[k].kind), &key), 0);
		for (size_t at = 0; at < secret_size(key); at += 32)
			memcpy(secret_data(key) + at, secret_data(part), 32);
		assert_int_equal(aead_new(kinds[k].kind, key, kinds[k].iv_size, &a), 0);
		ctx = aead_get(a);
		assert_int_equal(aead_seal(ctx, iv, NULL, 0, text, sizeof(text), text, tag), 0);
		assert_int_equal(aead_open(ctx, iv, NULL, 0, text, sizeof(text), tag, text), 0);
		aead_put(a, ctx);
		assert_int_equal(ordinary_memory_with(part, &seen), 0);
		assert_true(seen > 3);
		aead_free(a);
	}
}

static void test_keys_stay_secret(void **state)
{
	autosecret struct secret *key = NULL, *derived = NULL, *hash = NULL;
	uint8_t text[64] = {0};
	struct ecb *e = NULL;
	char *planted;
	int seen;

	if (strcmp(secret_protection(), "plain") == 0)
		skip();
	assert_int_equal(secret_new(32, &key), 0);
	assert_int_equal(crypto_random(secret_data(key), 32), 0);
	use_all_ciphers(key);
	assert_int_equal(ecb_new(key, &e), 0);
	assert_int_equal(scrypt_derive(key, "salt", 4, 1024, 8, 1, 1 << 20, &derived), 0);
	assert_int_equal(sha512_secret(key, &hash), 0);
	assert_int_equal(ecb_crypt(e, true, text, 4, text), 0);
	assert_int_equal(ecb_crypt(e, false, text, 4, text), 0);
	assert_int_equal(ordinary_memory_with(key, &seen), 0);
	assert_int_equal(ordinary_memory_with(derived, &seen), 0);
	assert_int_equal(ordinary_memory_with(hash, &seen), 0);

	/* The search finds what is there. */
	planted = malloc(32);
	assert_non_null(planted);
	memcpy(planted, secret_data(key), 32);
	assert_true(ordinary_memory_with(key, &seen) > 0);
	explicit_bzero(planted, 32);
	free(planted);
	ecb_free(e);
}

struct derivation {
	struct secret *password;
	atomic_bool stop, failed;
	atomic_int runs;
};

static void *derive_on(void *arg)
{
	struct derivation *d = arg;

	while (!d->stop && !d->failed) {
		autosecret struct secret *out = NULL;

		if (scrypt_derive(d->password, "salt", 4, 4096, 8, 1, 1 << 24, &out) < 0)
			d->failed = true;
		d->runs++;
	}
	return NULL;
}

/* OpenSSL copies the password for as long as scrypt runs: looked for from another thread. */
static void test_password_stays_secret(void **state)
{
	struct derivation d = {0};
	pthread_t thread;
	int found = 0, seen;

	if (strcmp(secret_protection(), "plain") == 0)
		skip();
	assert_int_equal(secret_new(32, &d.password), 0);
	assert_int_equal(crypto_random(secret_data(d.password), 32), 0);
	assert_int_equal(pthread_create(&thread, NULL, derive_on, &d), 0);
	while (d.runs < 10 && !d.failed)
		found += ordinary_memory_with(d.password, &seen);
	d.stop = true;
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_false(d.failed);
	assert_int_equal(found, 0);
	secret_free(d.password);
}

static void test_init_again(void **state)
{
	assert_int_equal(crypto_init(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keys_stay_secret),
		cmocka_unit_test(test_password_stays_secret),
		cmocka_unit_test(test_aead_vectors),
		cmocka_unit_test(test_siv_reference),
		cmocka_unit_test(test_aead_in_place),
		cmocka_unit_test(test_aead_refuses),
		cmocka_unit_test(test_aead_damage),
		cmocka_unit_test(test_ecb),
		cmocka_unit_test(test_hkdf),
		cmocka_unit_test(test_hkdf_too_long),
		cmocka_unit_test(test_scrypt),
		cmocka_unit_test(test_scrypt_limits),
		cmocka_unit_test(test_sha256),
		cmocka_unit_test(test_sha512),
		cmocka_unit_test(test_equal),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_init_again),
	};

	if (crypto_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("crypto", tests, NULL, NULL);
}
