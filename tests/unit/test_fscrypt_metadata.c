/* SPDX-License-Identifier: MIT */
/* The fscrypt tool's metadata: files that the tool (0.3.3) wrote give the key, every change of them does not.
 */
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "crypto.h"
#include "crypto_wrap.h"
#include "fscrypt_metadata.h"
#include "fskey.h"
#include "util.h"

/* `fscrypt encrypt --source=raw_key` with the bytes 0 to 31, and --source=custom_passphrase with "correct
 * horse" at costs of time 2, memory 256 KiB, parallelism 2. */
#define RAW_POLICY                                                                                           \
	"0a206638346233363637653839303837333565646362653565323439353962386662120808201001180420021a8a010a"   \
	"106261663730663161373562303130303012760a104aaa5cdcfabb0653f827caa9d64999751240d3e02c3afe51aa138a"   \
	"24e13f6c463e55bfac41e3ce9108feb6803d5aa820e6efddb9a2185cdc6ce8b0fe9925c6ba63c623aee203162f0a28ec"   \
	"3890f9016e79ac1a20b3b4e084cfb899a79b6e1743c4bd6669c4095065011e1284fd32739ff1d448b1"
#define RAW_PROTECTOR                                                                                        \
	"0a106261663730663161373562303130303010031a01723a560a100930d84b910d3c971d6aa1c1e046c9dd1220ddc04f"   \
	"f7a615a8a0aed7646f9d531f085eeb563f37e84364706be2048a5111051a206a2c14a7d130aa00b9276cac7dbec2dc44"   \
	"5d39ed3e9ae023ca939835b79ab8c0"
#define PASS_POLICY                                                                                          \
	"0a203236336532383031383964303366623634326565626334343838653239353130120808201001180420021a8a010a"   \
	"103634303831656161636533623633373812760a1065a9aa13e6617a899861ead06769384812402221a9831572d978ad"   \
	"7f44b0d559860e3c89dca100423edc5057c1258a1013c48294db3c3646f6212ef4836a9723974a8e9057f6b3de263593"   \
	"c40bd081a6b1a91a201395e9f2cab69510a5f63ee566c91a14fa950c8f717787c5ba3c8c78187de526"
#define PASS_PROTECTOR                                                                                       \
	"0a103634303831656161636533623633373810021a01702207100218800220022a1081c88737a6a47462a0c52e8589d5"   \
	"44b63a560a108a9a83acc7736da936e8bd88d305e0fd12207073eebab173735c26a1e63dbafebc7260665aae9eef9ba8"   \
	"6aad1a9857b8e82c1a203b22cc84c3c83466e560f0a6c28ed6ebd9e5794a9bc62f292bb68b2c2dcfab2b"

#define RAW_ID "f84b3667e8908735edcbe5e24959b8fb"
#define PASS_ID "263e280189d03fb642eebc4488e29510"

/* What Python (hashlib) and openssl(1) unwrap of RAW_POLICY. */
#define RAW_KEY                                                                                              \
	"94c5d770f0f17768d845aff9eb9c4a8d3e884d4aa69f4b913e5c3e4630e1a257"                                   \
	"9288f8f3bd2630166d63a96b558f822facffd2dff12857ead4e2b847c1fc3af0"

enum { FILE_MAX = 512, MEMORY = 1 << 20 };

struct file {
	uint8_t bytes[FILE_MAX];
	size_t size;
};

static struct file file_of(const char *hex)
{
	struct file f = {.size = strlen(hex) / 2};

	assert_true(f.size <= FILE_MAX);
	for (size_t i = 0; i < f.size; i++) {
		char digits[3] = {hex[2 * i], hex[2 * i + 1], 0};

		f.bytes[i] = (uint8_t)strtoul(digits, NULL, 16);
	}
	return f;
}

static struct secret *secret_of(const char *hex)
{
	struct file f = file_of(hex);
	struct secret *s = NULL;

	assert_int_equal(secret_new_from(f.bytes, f.size, &s), 0);
	return s;
}

static struct secret *text_secret(const char *text)
{
	struct secret *s = NULL;

	assert_int_equal(secret_new_from(text, strlen(text), &s), 0);
	return s;
}

static void check_hex(const struct secret *s, const char *hex)
{
	char text[2 * 64 + 1];

	assert_true(secret_size(s) <= 64);
	hex_encode(secret_data(s), secret_size(s), text);
	assert_string_equal(text, hex);
}

/* ---- what it is built of ---- */

static void test_argon2id(void **state)
{
	/* phc-winner-argon2, src/test.c: version 0x13, "password", "somesalt" */
	static const struct {
		struct argon2_cost cost;
		const char *hash;
	} cases[] = {
		{{2, 256, 1}, "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"},
		{{2, 256, 2}, "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037"},
	};
	autosecret struct secret *password = text_secret("password");

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		autosecret struct secret *out = NULL;

		assert_int_equal(argon2id_derive(password, "somesalt", 8, &cases[i].cost, MEMORY, &out), 0);
		check_hex(out, cases[i].hash);
	}
}

static void test_argon2id_limits(void **state)
{
	static const struct argon2_cost large = {1, 1025, 1}, none[] = {{0, 256, 1}, {1, 256, 0}, {1, 15, 2}};
	autosecret struct secret *password = text_secret("password");
	struct secret *out = NULL;

	assert_int_equal(argon2id_derive(password, "somesalt", 8, &large, MEMORY, &out), -ENOMEM);
	for (size_t i = 0; i < ARRAY_SIZE(none); i++)
		assert_int_equal(argon2id_derive(password, "somesalt", 8, &none[i], MEMORY, &out), -EINVAL);
	assert_int_equal(
		argon2id_derive(password, "short", 5, &(struct argon2_cost){1, 256, 1}, MEMORY, &out),
		-EINVAL);
	assert_null(out);
}

static void test_hmac_and_ctr(void **state)
{
	/* RFC 4231, test case 2; NIST SP 800-38A, F.5.5 */
	static const char data[] = "what do ya want for nothing?";
	autosecret struct secret *jefe = text_secret("Jefe"), *text = NULL;
	autosecret struct secret *key =
		secret_of("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
	struct file iv = file_of("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"),
		    in = file_of("6bc1bee22e409f96e93d7e117393172a");
	char hex[65];
	uint8_t mac[32];

	assert_int_equal(hmac_sha256(jefe, data, strlen(data), mac), 0);
	hex_encode(mac, 32, hex);
	assert_string_equal(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
	assert_int_equal(aes_ctr(key, iv.bytes, in.bytes, in.size, &text), 0);
	check_hex(text, "601ec313775789a5b7a7f504bbf3d228");
	assert_int_equal(aes_ctr(jefe, iv.bytes, in.bytes, in.size, &text), -EINVAL);
}

/* ---- what a key is called ---- */

static void test_identifiers(void **state)
{
	static const struct {
		const char *key;
		int version;
		const char *id;
	} cases[] = {
		{RAW_KEY, 2, RAW_ID},
		{RAW_KEY, 1, "4a3d22c65c6e8880"},
		{"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
		 "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f",
		 2, "8699c2c53707405da5aba5ae4d8583c0"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fskey_policy p = {.version = cases[i].version}, other;
		autosecret struct secret *key = secret_of(cases[i].key);
		char id[33];

		assert_int_equal(fskey_identify(key, &p), 0);
		fskey_id_text(&p, id);
		assert_string_equal(id, cases[i].id);
		other = p;
		assert_true(fskey_same_key(&p, &other));
		other.id[0] ^= 1;
		assert_false(fskey_same_key(&p, &other));
		other = p;
		other.version = 3 - p.version;
		assert_false(fskey_same_key(&p, &other));
	}
}

static void test_padding(void **state)
{
	assert_int_equal(fskey_padding_flag(4), 0);
	assert_int_equal(fskey_padding_flag(8), 1);
	assert_int_equal(fskey_padding_flag(16), 2);
	assert_int_equal(fskey_padding_flag(32), 3);
	assert_int_equal(fskey_padding_flag(0), -EINVAL);
	assert_int_equal(fskey_padding_flag(64), -EINVAL);
}

/* ---- files ---- */

static void unwrap_policy(const struct secret *wrapping, const struct fscrypt_protector *protector,
			  const char *policy_hex, struct secret **ret)
{
	struct file f = file_of(policy_hex);
	autosecret struct secret *protector_key = NULL;
	struct fscrypt_policy_data policy;

	assert_int_equal(fscrypt_policy_parse(f.bytes, f.size, &policy), 0);
	assert_int_equal(policy.n, 1);
	assert_string_equal(policy.keys[0].protector, protector->descriptor);
	assert_int_equal(fscrypt_unwrap(wrapping, &protector->key, &protector_key), 0);
	assert_int_equal(fscrypt_unwrap(protector_key, &policy.keys[0].key, ret), 0);
}

static void test_raw_key(void **state)
{
	struct file f = file_of(RAW_PROTECTOR);
	autosecret struct secret *wrapping =
		secret_of("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
	autosecret struct secret *wrong =
		secret_of("010102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
	autosecret struct secret *key = NULL;
	struct fscrypt_protector p;
	struct secret *none = NULL;

	assert_int_equal(fscrypt_protector_parse(f.bytes, f.size, &p), 0);
	assert_int_equal(p.source, FSCRYPT_SOURCE_RAW);
	assert_string_equal(p.descriptor, "baf70f1a75b01000");
	unwrap_policy(wrapping, &p, RAW_POLICY, &key);
	check_hex(key, RAW_KEY);
	assert_int_equal(fscrypt_unwrap(wrong, &p.key, &none), -EKEYREJECTED);
	assert_null(none);
}

static void test_passphrase(void **state)
{
	struct file f = file_of(PASS_PROTECTOR);
	autosecret struct secret *passphrase = text_secret("correct horse"), *wrapping = NULL, *key = NULL;
	struct fskey_policy id = {.version = 2};
	struct fscrypt_protector p;
	char text[33];

	assert_int_equal(fscrypt_protector_parse(f.bytes, f.size, &p), 0);
	assert_int_equal(p.source, FSCRYPT_SOURCE_PASSPHRASE);
	assert_int_equal(p.cost.time, 2);
	assert_int_equal(p.cost.memory_kib, 256);
	assert_int_equal(p.cost.lanes, 2);
	assert_int_equal(argon2id_derive(passphrase, p.salt, sizeof(p.salt), &p.cost, MEMORY, &wrapping), 0);
	unwrap_policy(wrapping, &p, PASS_POLICY, &key);
	assert_int_equal(fskey_identify(key, &id), 0);
	fskey_id_text(&id, text);
	assert_string_equal(text, PASS_ID);
}

/* Whatever bit changes: the file is refused, or the key does not come out. */
static void test_every_bit_counts(void **state)
{
	struct file f = file_of(RAW_PROTECTOR);
	autosecret struct secret *wrapping =
		secret_of("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
	size_t begin = f.size - 0x56; /* the message WrappedKeyData is the end of the file */

	for (size_t i = begin * 8; i < f.size * 8; i++) {
		struct file changed = f;
		struct secret *key = NULL;
		struct fscrypt_protector p;

		changed.bytes[i / 8] ^= (uint8_t)(1 << i % 8);
		if (fscrypt_protector_parse(changed.bytes, changed.size, &p) == 0)
			assert_int_equal(fscrypt_unwrap(wrapping, &p.key, &key), -EKEYREJECTED);
		assert_null(key);
	}
}

static void test_every_cut_is_refused(void **state)
{
	struct file protector = file_of(PASS_PROTECTOR), policy = file_of(PASS_POLICY);
	struct fscrypt_protector p;

	for (size_t n = 0; n < protector.size; n++)
		assert_int_equal(fscrypt_protector_parse(protector.bytes, n, &p), -EBADMSG);
	/* Where it ends behind a field, it is a policy without protectors. */
	for (size_t n = 0; n < policy.size; n++) {
		struct fscrypt_policy_data data;
		int r = fscrypt_policy_parse(policy.bytes, n, &data);

		assert_true(r == -EBADMSG || (r == 0 && data.n == 0));
	}
}

#define ID_FIELD "0a1030303030303030303030303030303030"
#define SALT_FIELD "2a1000000000000000000000000000000000"
#define KEY_FIELD                                                                                            \
	"3a560a1000000000000000000000000000000000"                                                           \
	"12200000000000000000000000000000000000000000000000000000000000000000"                               \
	"1a200000000000000000000000000000000000000000000000000000000000000000"
#define COST_FIELD "2207100218800220022a"

static void test_protectors(void **state)
{
	static const struct {
		const char *hex;
		int result;
	} cases[] = {
		{ID_FIELD "1003" KEY_FIELD, 0},
		/* the last one of a field counts */
		{ID_FIELD "1002"
			  "1003" KEY_FIELD,
		 0},
		/* fields that are not known, of all kinds */
		{ID_FIELD "1003" KEY_FIELD "f83f7f"
			  "6561626364"
			  "616162636465666768"
			  "5203616263",
		 0},
		/* a known number with another kind of value is no such field */
		{ID_FIELD "1003" KEY_FIELD "0801", 0},
		{ID_FIELD "1002"
			  "2206100218800220"
			  "01" SALT_FIELD KEY_FIELD,
		 -EBADMSG},
		{ID_FIELD "1002"
			  "22071002188002"
			  "2001" SALT_FIELD KEY_FIELD,
		 0},
		/* parallelism of old versions: 257 is 1, and 256 is none */
		{ID_FIELD "1002"
			  "22081002188002"
			  "208102" SALT_FIELD KEY_FIELD,
		 0},
		{ID_FIELD "1002"
			  "22081002188002"
			  "208002" SALT_FIELD KEY_FIELD,
		 -EBADMSG},
		{ID_FIELD "1002"
			  "220a1002188002"
			  "208102"
			  "2801" SALT_FIELD KEY_FIELD,
		 -EBADMSG},
		/* a passphrase without salt, without costs, with too little memory for its lanes */
		{ID_FIELD "1002"
			  "22071002188002"
			  "2001" KEY_FIELD,
		 -EBADMSG},
		{ID_FIELD "1002" SALT_FIELD KEY_FIELD, -EBADMSG},
		{ID_FIELD "1002"
			  "220610021807"
			  "2001" SALT_FIELD KEY_FIELD,
		 -EBADMSG},
		{"1003" KEY_FIELD, -EBADMSG},
		{ID_FIELD KEY_FIELD, -EBADMSG},
		{ID_FIELD "1003", -EBADMSG},
		{ID_FIELD "1004" KEY_FIELD, -EBADMSG},
		/* names of files: nothing but hex */
		{"0a102e2e2f2e2e2f2e2e2f6574632f78787878"
		 "1003" KEY_FIELD,
		 -EBADMSG},
		{"0a1030303030303030303030303030303000"
		 "1003" KEY_FIELD,
		 -EBADMSG},
		/* varints without an end, of 70 bits, lengths beyond the file, groups, field number 0 */
		{ID_FIELD "10ffffffffffffffffffff7f", -EBADMSG},
		{ID_FIELD "1080808080808080808002", -EBADMSG},
		{ID_FIELD "3affffffffffffffff7f", -EBADMSG},
		{ID_FIELD "13", -EBADMSG},
		{ID_FIELD "0000", -EBADMSG},
		{"", -EBADMSG},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct file f = file_of(cases[i].hex);
		struct fscrypt_protector p;
		int r = fscrypt_protector_parse(f.bytes, f.size, &p);

		if (r != cases[i].result)
			print_error("case %zu\n", i);
		assert_int_equal(r, cases[i].result);
	}
}

static void test_more_protectors_than_fit(void **state)
{
	static uint8_t text[FSCRYPT_METADATA_MAX + 1];
	struct file policy = file_of(RAW_POLICY);
	struct fscrypt_policy_data *data = calloc(1, sizeof(*data));
	size_t head = 2 + 32 + 2 + 8, one = policy.size - head, n = head;

	assert_non_null(data);
	memcpy(text, policy.bytes, policy.size);
	for (n = policy.size; n + one < sizeof(text); n += one)
		memcpy(text + n, policy.bytes + head, one);
	assert_true((n - head) / one > FSCRYPT_PROTECTORS_MAX);
	assert_int_equal(fscrypt_policy_parse(text, head + one * FSCRYPT_PROTECTORS_MAX, data), 0);
	assert_int_equal(data->n, FSCRYPT_PROTECTORS_MAX);
	assert_int_equal(fscrypt_policy_parse(text, n, data), -E2BIG);
	assert_int_equal(fscrypt_policy_parse(text, sizeof(text), data), -EBADMSG);
	free(data);
}

static int setup(void **state)
{
	return crypto_init();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_argon2id),
		cmocka_unit_test(test_argon2id_limits),
		cmocka_unit_test(test_hmac_and_ctr),
		cmocka_unit_test(test_identifiers),
		cmocka_unit_test(test_padding),
		cmocka_unit_test(test_raw_key),
		cmocka_unit_test(test_passphrase),
		cmocka_unit_test(test_every_bit_counts),
		cmocka_unit_test(test_every_cut_is_refused),
		cmocka_unit_test(test_protectors),
		cmocka_unit_test(test_more_protectors_than_fit),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
