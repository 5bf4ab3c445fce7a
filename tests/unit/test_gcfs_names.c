/* SPDX-License-Identifier: MIT */
/* Names of the gocryptfs format: known answers made by gocryptfs 2.3, every rule of decoding, all lengths. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "crypto.h"
#include "gcfs_names.h"
#include "util.h"

enum {
	DEFAULT_FLAGS = GCFS_HKDF | GCFS_GCMIV128 | GCFS_DIRIV | GCFS_EME_NAMES | GCFS_LONG_NAMES | GCFS_RAW64
};

static const uint8_t iv[GCFS_IV_SIZE] = {0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
					 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf};
static const uint8_t other_iv[GCFS_IV_SIZE] = {1};
static struct gcfs_names *names;

static struct gcfs_names *names_for(unsigned flags, unsigned long_name_max)
{
	autosecret struct secret *master = NULL;
	struct gcfs_names *n = NULL;

	assert_int_equal(secret_new(GCFS_MASTER_KEY_SIZE, &master), 0);
	for (int i = 0; i < GCFS_MASTER_KEY_SIZE; i++)
		secret_data(master)[i] = (uint8_t)i;
	assert_int_equal(gcfs_names_new(master, flags, long_name_max, &n), 0);
	return n;
}

/* n times c. */
static const char *repeated(char c, size_t n)
{
	static char buf[600];

	memset(buf, c, n);
	buf[n] = '\0';
	return buf;
}

static void test_known_answer(void **state)
{
	char text[GCFS_NAME_TEXT_MAX + 1], name[NAME_MAX + 1];

	assert_int_equal(gcfs_name_encrypt(names, iv, "hello.txt", text), 0);
	assert_string_equal(text, "uw4M2OY_tUE2dJU4O053Vg");
	assert_int_equal(gcfs_name_decrypt(names, iv, text, name), 0);
	assert_string_equal(name, "hello.txt");
	assert_false(gcfs_name_is_long(names, text));
}

static void test_known_long_answer(void **state)
{
	char text[GCFS_NAME_TEXT_MAX + 1], disk[NAME_MAX + 1];

	assert_int_equal(gcfs_name_encrypt(names, iv, repeated('x', 176), text), 0);
	assert_true(gcfs_name_is_long(names, text));
	assert_int_equal(gcfs_name_hash(names, text, disk), 0);
	assert_string_equal(disk, "gocryptfs.longname.MFIbCR7iZZ33kkNU_kMbIUfNKjNEfNeYJGVeRcTVEPg");
}

static void test_known_xattr_answer(void **state)
{
	char disk[GCFS_XATTR_NAME_MAX + 1], name[GCFS_XATTR_NAME_MAX + 1];

	assert_int_equal(gcfs_xattr_name_encrypt(names, "user.test", disk), 0);
	assert_string_equal(disk, "user.gocryptfs.CDds60qmBYFon9HA5Iky-g");
	assert_int_equal(gcfs_xattr_name_decrypt(names, disk, name), 0);
	assert_string_equal(name, "user.test");
}

/* Lengths of the text, with and without padding of base64: the table of the format. */
static void test_text_lengths(void **state)
{
	static const struct {
		size_t name, raw, padded;
	} table[] = {{1, 22, 24},     {15, 22, 24},    {16, 43, 44},    {31, 43, 44},    {32, 64, 64},
		     {175, 235, 236}, {176, 256, 256}, {239, 320, 320}, {240, 342, 344}, {255, 342, 344}};
	struct gcfs_names *padded = names_for(DEFAULT_FLAGS & ~GCFS_RAW64, 0);
	char text[GCFS_NAME_TEXT_MAX + 1];

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const char *name = repeated('n', table[i].name);

		assert_int_equal(gcfs_name_encrypt(names, iv, name, text), 0);
		assert_int_equal(strlen(text), table[i].raw);
		assert_int_equal(gcfs_name_is_long(names, text), table[i].name >= 176);
		assert_int_equal(gcfs_name_encrypt(padded, iv, name, text), 0);
		assert_int_equal(strlen(text), table[i].padded);
	}
	gcfs_names_free(padded);
}

/* There and back for every length, in all combinations of flags that touch names. */
static void test_round_trip(void **state)
{
	static const unsigned flags[] = {DEFAULT_FLAGS, DEFAULT_FLAGS & ~GCFS_RAW64,
					 DEFAULT_FLAGS & ~GCFS_HKDF,
					 DEFAULT_FLAGS & ~(GCFS_RAW64 | GCFS_HKDF | GCFS_DIRIV)};
	char text[GCFS_NAME_TEXT_MAX + 1], back[NAME_MAX + 1], name[NAME_MAX + 1] = "";

	for (size_t f = 0; f < ARRAY_SIZE(flags); f++) {
		struct gcfs_names *n = names_for(flags[f], 0);

		for (size_t size = 1; size <= NAME_MAX; size++) {
			for (size_t i = 0; i < size; i++)
				name[i] = (char)(0x80 + (i * 7 + size) % 128); /* any byte is allowed */
			name[size] = '\0';
			assert_int_equal(gcfs_name_encrypt(n, iv, name, text), 0);
			assert_int_equal(gcfs_name_decrypt(n, iv, text, back), 0);
			assert_string_equal(back, name);
			/* Another IV may by chance leave a padding that is right, but never the name. */
			if (gcfs_name_decrypt(n, other_iv, text, back) == 0)
				assert_string_not_equal(back, name);
		}
		gcfs_names_free(n);
	}
}

static void test_encrypt_refuses(void **state)
{
	static const struct {
		const char *name;
		int want;
	} table[] = {{"", -EINVAL},    {".", -EINVAL},        {"..", -EINVAL},
		     {"a/b", -EINVAL}, {"/", -EINVAL},        {"...", 0},
		     {".a", 0},        {"gocryptfs.conf", 0}, {"gocryptfs.diriv", 0}};
	char text[GCFS_NAME_TEXT_MAX + 1];

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		assert_int_equal(gcfs_name_encrypt(names, iv, table[i].name, text), table[i].want);
	assert_int_equal(gcfs_name_encrypt(names, iv, repeated('x', 255), text), 0);
	assert_int_equal(gcfs_name_encrypt(names, iv, repeated('x', 256), text), -ENAMETOOLONG);
	assert_int_equal(gcfs_name_encrypt(names, iv, repeated('x', 500), text), -ENAMETOOLONG);
}

/* Variants of "uw4M2OY_tUE2dJU4O053Vg", which decrypts: only one text per name is taken. */
static void test_malformed_text(void **state)
{
	static const char *const bad[] = {
		"",
		"A",
		"uw4M2OY_tUE2dJU4O053V",    /* no whole number of bytes */
		"uw4M2OY_tUE2dJU4O053Vh",   /* bits behind the last byte */
		"uw4M2OY_tUE2dJU4O053Vg==", /* padding in a volume without */
		"uw4M2OY_tUE2dJU4O053Vg=",
		"uw4M2OY_tUE2dJU4O053Vg\n",
		"uw4M2OY_tUE2\r\ndJU4O053Vg",
		"uw4M2OY/tUE2dJU4O053Vg", /* the other alphabet */
		" uw4M2OY_tUE2dJU4O053Vg",
		"uw4M2OY_tUE2dJU4O053Vg ",
		"uw4M2OY_tUE2dJU4O053V\xc3",
		"uw4M2OY_tUE2dJU4O053VgAA", /* 18 bytes */
		"uw4M2OY_tUE2dJU4O05w",     /* 15 bytes */
		"gocryptfs.diriv",
	};
	char name[NAME_MAX + 1] = "untouched";

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(gcfs_name_decrypt(names, iv, bad[i], name), -EBADMSG);
	assert_int_equal(gcfs_name_decrypt(names, iv, repeated('A', GCFS_NAME_TEXT_MAX), name), -EBADMSG);
	assert_int_equal(gcfs_name_decrypt(names, iv, repeated('A', 590), name), -EBADMSG);
	assert_string_equal(name, "untouched");
}

static void test_malformed_padded_text(void **state)
{
	static const char *const bad[] = {
		"uw4M2OY_tUE2dJU4O053Vg",   "uw4M2OY_tUE2dJU4O053Vg=",    "uw4M2OY_tUE2dJU4O053Vg===",
		"uw4M2OY_tUE2dJU4O053Vh==", "uw4M2OY_tUE2dJU4O053Vg==\n", "===="};
	struct gcfs_names *padded = names_for(DEFAULT_FLAGS & ~GCFS_RAW64, 0);
	char name[NAME_MAX + 1];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(gcfs_name_decrypt(padded, iv, bad[i], name), -EBADMSG);
	assert_int_equal(gcfs_name_decrypt(padded, iv, "uw4M2OY_tUE2dJU4O053Vg==", name), 0);
	assert_string_equal(name, "hello.txt");
	gcfs_names_free(padded);
}

static void double_reference(uint8_t x[16])
{
	bool carry = x[15] & 0x80;

	for (int i = 15; i > 0; i--)
		x[i] = (uint8_t)(x[i] << 1 | x[i - 1] >> 7);
	x[0] = (uint8_t)(x[0] << 1 ^ (carry ? 0x87 : 0));
}

static void xor_reference(uint8_t *to, const uint8_t *with)
{
	for (int i = 0; i < 16; i++)
		to[i] ^= with[i];
}

/*
 * EME encryption written once more, step by step from the draft's formulas: makes texts whose plaintext
 * gcfs_name_encrypt() would never produce.
 */
static void eme_reference(const uint8_t tweak[16], const char *plain, int blocks, char *ret_text)
{
	uint8_t l[16] = {0}, m[16], mp[16], mc[16], x[16][16];
	autosecret struct secret *master = NULL, *key = NULL;
	struct ecb *e = NULL;

	assert_int_equal(secret_new(GCFS_MASTER_KEY_SIZE, &master), 0);
	for (int i = 0; i < GCFS_MASTER_KEY_SIZE; i++)
		secret_data(master)[i] = (uint8_t)i;
	assert_int_equal(hkdf_sha256(master, "EME filename encryption", 32, &key), 0);
	assert_int_equal(ecb_new(key, &e), 0);
	memcpy(x, plain, (size_t)blocks * 16);
	memcpy(mp, tweak, 16);
	ecb_crypt(e, true, l, 1, l);
	for (int j = 0; j < blocks; j++) {
		double_reference(l);
		xor_reference(x[j], l);
		ecb_crypt(e, true, x[j], 1, x[j]);
		xor_reference(mp, x[j]);
	}
	ecb_crypt(e, true, mp, 1, mc);
	memcpy(m, mp, 16);
	xor_reference(m, mc);
	memcpy(x[0], mc, 16);
	xor_reference(x[0], tweak);
	for (int j = 1; j < blocks; j++) {
		double_reference(m);
		xor_reference(x[j], m);
		xor_reference(x[0], x[j]);
	}
	memset(l, 0, 16);
	ecb_crypt(e, true, l, 1, l);
	for (int j = 0; j < blocks; j++) {
		double_reference(l);
		ecb_crypt(e, true, x[j], 1, x[j]);
		xor_reference(x[j], l);
	}
	base64_encode(BASE64_URL_RAW, x, (size_t)blocks * 16, ret_text);
	ecb_free(e);
}

/* Every number of blocks, against the reference. */
static void test_reference(void **state)
{
	char text[GCFS_NAME_TEXT_MAX + 1], want[GCFS_NAME_TEXT_MAX + 1], plain[256];

	for (int blocks = 1; blocks <= 16; blocks++) {
		memset(plain, 'r', sizeof(plain));
		plain[blocks * 16 - 1] = 1;
		eme_reference(iv, plain, blocks, want);
		plain[blocks * 16 - 1] = '\0';
		assert_int_equal(gcfs_name_encrypt(names, iv, plain, text), 0);
		assert_string_equal(text, want);
	}
}

static void test_malformed_plaintext(void **state)
{
	static const struct {
		const char *plain; /* 16 bytes */
		int want;
	} table[] = {
		{"hello.txt\7\7\7\7\7\7\7", 0},
		{"0123456789abcde\1", 0},
		{"0123456789abcdef", -EBADMSG},                                 /* pad 'f' */
		{"0123456789abcde\0", -EBADMSG},                                /* pad 0 */
		{"0123456789abcd\1\2", -EBADMSG},                               /* not alike */
		{"0123456789abcde\21", -EBADMSG},                               /* pad 17 */
		{"\20\20\20\20\20\20\20\20\20\20\20\20\20\20\20\20", -EBADMSG}, /* empty */
		{"a\17\17\17\17\17\17\17\17\17\17\17\17\17\17\17", 0},
		{".\17\17\17\17\17\17\17\17\17\17\17\17\17\17\17", -EBADMSG},
		{"..\16\16\16\16\16\16\16\16\16\16\16\16\16\16", -EBADMSG},
		{"...\15\15\15\15\15\15\15\15\15\15\15\15\15", 0},
		{"a/b\15\15\15\15\15\15\15\15\15\15\15\15\15", -EBADMSG},
		{"a\0b\15\15\15\15\15\15\15\15\15\15\15\15\15", -EBADMSG},
	};
	char text[GCFS_NAME_TEXT_MAX + 1], name[NAME_MAX + 1], plain[32];

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		eme_reference(iv, table[i].plain, 1, text);
		assert_int_equal(gcfs_name_decrypt(names, iv, text, name), table[i].want);
	}
	eme_reference(iv, "hello.txt\7\7\7\7\7\7\7", 1, text);
	assert_string_equal(text, "uw4M2OY_tUE2dJU4O053Vg");
	/* Padding longer than a block. */
	memset(plain, 16, sizeof(plain));
	memcpy(plain, "0123456789abcdef", 16);
	eme_reference(iv, plain, 2, text);
	assert_int_equal(gcfs_name_decrypt(names, iv, text, name), 0);
	memset(plain + 15, 17, 17);
	eme_reference(iv, plain, 2, text);
	assert_int_equal(gcfs_name_decrypt(names, iv, text, name), -EBADMSG);
}

static void test_long_name_max(void **state)
{
	struct gcfs_names *n = names_for(DEFAULT_FLAGS | GCFS_LONG_NAME_MAX, 100);

	assert_false(gcfs_name_is_long(n, repeated('a', 100)));
	assert_true(gcfs_name_is_long(n, repeated('a', 101)));
	assert_false(gcfs_name_is_long(names, repeated('a', 255)));
	assert_true(gcfs_name_is_long(names, repeated('a', 256)));
	gcfs_names_free(n);
}

/* Texts are names; nothing of the format can be in the way but the config. Attributes are encrypted. */
static void test_plaintext_names(void **state)
{
	static const struct {
		const char *name;
		enum gcfs_name_kind root;
	} table[] = {
		{"hello.txt", GCFS_NAME_ORDINARY},
		{"gocryptfs.longname.MFIb", GCFS_NAME_ORDINARY},
		{"gocryptfs.longname.MFIb.name", GCFS_NAME_ORDINARY},
		{"gocryptfs.diriv", GCFS_NAME_ORDINARY},
		{"gocryptfs.diriv.rmdir.17", GCFS_NAME_ORDINARY},
		{"gocryptfs.diriv.mkdir.17", GCFS_NAME_ORDINARY},
		{"gocryptfs.conf", GCFS_NAME_INTERNAL},
	};
	struct gcfs_names *n = names_for(GCFS_HKDF | GCFS_GCMIV128 | GCFS_PLAINTEXT_NAMES, 0);
	char text[GCFS_NAME_TEXT_MAX + 1], name[NAME_MAX + 1];

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		assert_int_equal(gcfs_name_encrypt(n, iv, table[i].name, text), 0);
		assert_string_equal(text, table[i].name);
		assert_int_equal(gcfs_name_decrypt(n, iv, text, name), 0);
		assert_string_equal(name, table[i].name);
		assert_int_equal(gcfs_name_kind(n, text, true), table[i].root);
		assert_int_equal(gcfs_name_kind(n, text, false), GCFS_NAME_ORDINARY);
	}
	assert_int_equal(gcfs_name_encrypt(n, iv, repeated('x', 255), text), 0);
	assert_false(gcfs_name_is_long(n, text));
	assert_int_equal(gcfs_name_encrypt(n, iv, repeated('x', 256), text), -ENAMETOOLONG);
	assert_int_equal(gcfs_name_encrypt(n, iv, "..", text), -EINVAL);
	assert_int_equal(gcfs_name_decrypt(n, iv, repeated('x', 256), name), -EBADMSG);
	assert_int_equal(gcfs_name_decrypt(n, iv, "..", name), -EBADMSG);
	assert_int_equal(gcfs_xattr_name_encrypt(n, "user.test", text), 0);
	assert_string_equal(text, "user.gocryptfs.CDds60qmBYFon9HA5Iky-g==");
	gcfs_names_free(n);
}

static void test_hash_padded(void **state)
{
	struct gcfs_names *n = names_for(DEFAULT_FLAGS & ~GCFS_RAW64, 0);
	char raw[NAME_MAX + 1], padded[NAME_MAX + 1];

	assert_int_equal(gcfs_name_hash(names, "abc", raw), 0);
	assert_string_equal(raw, "gocryptfs.longname.ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
	assert_int_equal(gcfs_name_hash(n, "abc", padded), 0);
	assert_string_equal(padded, "gocryptfs.longname.ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0=");
	gcfs_names_free(n);
}

static void test_kinds(void **state)
{
	static const struct {
		const char *disk;
		enum gcfs_name_kind root, below, without_diriv;
	} table[] = {
#define ALL(k) k, k, k
		{"uw4M2OY_tUE2dJU4O053Vg", ALL(GCFS_NAME_ORDINARY)},
		{"gocryptfs.longname.MFIb", ALL(GCFS_NAME_LONG)},
		{"gocryptfs.longname.MFIb.name", ALL(GCFS_NAME_LONG_TEXT)},
		{"gocryptfs.longname.", ALL(GCFS_NAME_LONG)},
		{"gocryptfs.longname", ALL(GCFS_NAME_ORDINARY)},
		{"x.name", ALL(GCFS_NAME_ORDINARY)},
		{"gocryptfs.conf", GCFS_NAME_INTERNAL, GCFS_NAME_ORDINARY, GCFS_NAME_INTERNAL},
		{"gocryptfs.conf.bak", ALL(GCFS_NAME_ORDINARY)},
		{"gocryptfs.diriv", GCFS_NAME_INTERNAL, GCFS_NAME_INTERNAL, GCFS_NAME_ORDINARY},
		{"gocryptfs.diriv.rmdir.17", GCFS_NAME_INTERNAL, GCFS_NAME_INTERNAL, GCFS_NAME_ORDINARY},
		{"gocryptfs.diriv.mkdir.0a", GCFS_NAME_INTERNAL, GCFS_NAME_INTERNAL, GCFS_NAME_ORDINARY},
		{"gocryptfs.diriv2", ALL(GCFS_NAME_ORDINARY)},
		{"", ALL(GCFS_NAME_ORDINARY)},
#undef ALL
	};
	struct gcfs_names *n = names_for(DEFAULT_FLAGS & ~GCFS_DIRIV, 0);

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		assert_int_equal(gcfs_name_kind(names, table[i].disk, true), table[i].root);
		assert_int_equal(gcfs_name_kind(names, table[i].disk, false), table[i].below);
		assert_int_equal(gcfs_name_kind(n, table[i].disk, true), table[i].without_diriv);
	}
	gcfs_names_free(n);
}

static void test_xattr_names(void **state)
{
	struct gcfs_names *padded = names_for(DEFAULT_FLAGS & ~GCFS_RAW64, 0);
	char disk[GCFS_XATTR_NAME_MAX + 1], name[GCFS_XATTR_NAME_MAX + 1];

	for (size_t size = 1; size <= 175; size++) {
		assert_int_equal(gcfs_xattr_name_encrypt(padded, repeated('a', size), disk), 0);
		assert_in_range(strlen(disk), 1, GCFS_XATTR_NAME_MAX);
		assert_int_equal(gcfs_xattr_name_decrypt(padded, disk, name), 0);
		assert_string_equal(name, repeated('a', size));
	}
	assert_int_equal(gcfs_xattr_name_encrypt(padded, repeated('a', 176), disk), -ERANGE);
	assert_int_equal(gcfs_xattr_name_encrypt(padded, "", disk), -ERANGE);
	gcfs_names_free(padded);

	/* No rule but that there is no NUL. */
	assert_int_equal(gcfs_xattr_name_encrypt(names, "user./..", disk), 0);
	assert_int_equal(gcfs_xattr_name_decrypt(names, disk, name), 0);
	assert_string_equal(name, "user./..");
}

static void test_xattr_malformed(void **state)
{
	static const char *const bad[] = {"",
					  "user.test",
					  "user.gocryptfs.",
					  "user.gocryptfs",
					  "trusted.gocryptfs.CDds60qmBYFon9HA5Iky-g",
					  "user.gocryptfs.CDds60qmBYFon9HA5Iky-h",
					  "user.gocryptfs.CDds60qmBYFon9HA5Iky-g==",
					  "user.gocryptfs.uw4M2OY_tUE2dJU4O053Vg"};
	char name[GCFS_XATTR_NAME_MAX + 1], disk[GCFS_XATTR_NAME_MAX + 1];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(gcfs_xattr_name_decrypt(names, bad[i], name), -EBADMSG);
	/* Nothing but padding. */
	strcpy(disk, GCFS_XATTR_PREFIX);
	eme_reference((const uint8_t *)"xattr_name_iv_xx", "\20\20\20\20\20\20\20\20\20\20\20\20\20\20\20\20",
		      1, disk + strlen(disk));
	assert_int_equal(gcfs_xattr_name_decrypt(names, disk, name), -EBADMSG);
}

static int setup(void **state)
{
	names = names_for(DEFAULT_FLAGS, 0);
	return 0;
}

static int teardown(void **state)
{
	gcfs_names_free(names);
	gcfs_names_free(NULL);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_answer),        cmocka_unit_test(test_known_long_answer),
		cmocka_unit_test(test_known_xattr_answer),  cmocka_unit_test(test_text_lengths),
		cmocka_unit_test(test_round_trip),          cmocka_unit_test(test_encrypt_refuses),
		cmocka_unit_test(test_malformed_text),      cmocka_unit_test(test_malformed_padded_text),
		cmocka_unit_test(test_malformed_plaintext), cmocka_unit_test(test_reference),
		cmocka_unit_test(test_long_name_max),       cmocka_unit_test(test_plaintext_names),
		cmocka_unit_test(test_hash_padded),         cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_xattr_names),         cmocka_unit_test(test_xattr_malformed),
	};

	if (crypto_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("gcfs_names", tests, setup, teardown);
}
