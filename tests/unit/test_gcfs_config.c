/* SPDX-License-Identifier: MIT */
/* gocryptfs.conf: a real one opens, every refusal with its words, and what is written reads back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "crypto.h"
#include "gcfs_config.h"
#include "util.h"
#include "version.h"

#define KEY64 "PBor8NKJVpiLnj68VewMyFZmT0+5ogvEnpfNnTmUcThJqJ1O73t1VEbEg7GwXYpu+nRryOAMC0yjkFg09F9vRA=="
#define SALT32 "FyXQlKUNXkHE4QVmYRg2VCgita5VT3huZearDzV+v/A="
#define KEY60 "/RPUQid+3DNGEsL4aFiJsVTUEdLxLDSNXEIvWXDlOlO64FSZNBearS8WiJomP9ORnCRNqsZvWPemdDTC"

/* Made by gocryptfs 2.3 with the passphrase "vector-password". */
static const char real[] = "{\n"
			   "\t\"Creator\": \"gocryptfs 2.3\",\n"
			   "\t\"EncryptedKey\": \"" KEY64 "\",\n"
			   "\t\"ScryptObject\": {\n"
			   "\t\t\"Salt\": \"" SALT32 "\",\n"
			   "\t\t\"N\": 1024,\n"
			   "\t\t\"R\": 8,\n"
			   "\t\t\"P\": 1,\n"
			   "\t\t\"KeyLen\": 32\n"
			   "\t},\n"
			   "\t\"Version\": 2,\n"
			   "\t\"FeatureFlags\": [\n"
			   "\t\t\"HKDF\",\n"
			   "\t\t\"GCMIV128\",\n"
			   "\t\t\"DirIV\",\n"
			   "\t\t\"EMENames\",\n"
			   "\t\t\"LongNames\",\n"
			   "\t\t\"Raw64\"\n"
			   "\t]\n"
			   "}\n";
static const char real_master[] = "2312499f049392799bf89bec1481016a84147f64c36137c64764700a71249ddc";

/* The parts of a config that tests replace. */
#define SCRYPT "{\"Salt\":\"" SALT32 "\",\"N\":1024,\"R\":8,\"P\":1,\"KeyLen\":32}"
#define FLAGS "\"HKDF\",\"GCMIV128\",\"DirIV\",\"EMENames\",\"LongNames\",\"Raw64\""
#define CONFIG(key, scrypt, version, flags, more)                                                            \
	"{\"EncryptedKey\":\"" key "\",\"ScryptObject\":" scrypt ",\"Version\":" version                     \
	",\"FeatureFlags\":[" flags "]" more "}"
#define WITH_SCRYPT(scrypt) CONFIG(KEY64, scrypt, "2", FLAGS, "")
#define WITH_FLAGS(flags) CONFIG(KEY64, SCRYPT, "2", flags, "")
#define WITH_MORE(more) CONFIG(KEY64, SCRYPT, "2", FLAGS, more)

struct refusal {
	const char *json, *text;
};

static void assert_refused(const struct refusal *table, size_t n, enum exit_status status, int code)
{
	for (size_t i = 0; i < n; i++) {
		struct gcfs_config cfg = {.creator = "untouched"};
		struct error err = ERROR_NONE;

		assert_int_equal(gcfs_config_parse(table[i].json, strlen(table[i].json), &cfg, &err), code);
		assert_string_equal(err.text, table[i].text);
		assert_int_equal(err.code, code);
		assert_int_equal(err.status, status);
		assert_string_equal(cfg.creator, "untouched");
	}
}

static void parse_real(struct gcfs_config *cfg)
{
	struct error err = ERROR_NONE;

	assert_int_equal(gcfs_config_parse(real, strlen(real), cfg, &err), 0);
}

static struct secret *secret_of_text(const char *text)
{
	struct secret *s = NULL;

	assert_int_equal(secret_new_from(text, strlen(text), &s), 0);
	return s;
}

static void test_real(void **state)
{
	autosecret struct secret *pass = secret_of_text("vector-password"), *master = NULL;
	struct error err = ERROR_NONE;
	struct gcfs_config cfg;
	char hex[65];

	parse_real(&cfg);
	assert_string_equal(cfg.creator, "gocryptfs 2.3");
	assert_int_equal(cfg.flags, GCFS_HKDF | GCFS_GCMIV128 | GCFS_DIRIV | GCFS_EME_NAMES |
					    GCFS_LONG_NAMES | GCFS_RAW64);
	assert_int_equal(cfg.long_name_max, 0);
	assert_int_equal(cfg.encrypted_key_size, 64);
	assert_int_equal(cfg.salt_size, 32);
	assert_int_equal(cfg.scrypt_n, 1024);
	assert_int_equal(cfg.scrypt_r, 8);
	assert_int_equal(cfg.scrypt_p, 1);
	assert_int_equal(gcfs_config_unwrap(&cfg, pass, 1 << 20, &master, &err), 0);
	hex_encode(secret_data(master), secret_size(master), hex);
	assert_string_equal(hex, real_master);
}

/* A volume of gocryptfs 1.2, whose key is wrapped without HKDF. */
static void test_unwrap_old(void **state)
{
	static const char old[] = CONFIG(
		KEY60,
		"{\"Salt\":\"t2enOIVAN3pTIj5dkzLV8p7VGWbnliHAi+fMPxOleTo=\",\"N\":1024,\"R\":8,\"P\":1,"
		"\"KeyLen\":32}",
		"2", "\"GCMIV128\",\"DirIV\",\"EMENames\",\"LongNames\"", "");
	autosecret struct secret *pass = secret_of_text("vector-password"), *master = NULL;
	struct error err = ERROR_NONE;
	struct gcfs_config cfg;

	assert_int_equal(gcfs_config_parse(old, strlen(old), &cfg, &err), 0);
	assert_int_equal(gcfs_config_unwrap(&cfg, pass, 1 << 20, &master, &err), 0);
	assert_int_equal(secret_size(master), GCFS_MASTER_KEY_SIZE);
}

static void test_wrong_passphrase(void **state)
{
	static const char *const wrong[] = {"vector-passwore", "vector-password\n", "x"};
	struct gcfs_config cfg;

	parse_real(&cfg);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		autosecret struct secret *pass = secret_of_text(wrong[i]), *master = NULL;
		struct error err = ERROR_NONE;

		assert_int_equal(gcfs_config_unwrap(&cfg, pass, 1 << 20, &master, &err), -EKEYREJECTED);
		assert_int_equal(err.status, EXIT_STATUS_WRONG_KEY);
		assert_string_equal(err.text, "wrong passphrase");
		assert_null(master);
	}
}

/* Every bit of the wrapped key is authenticated. */
static void test_damaged_key(void **state)
{
	autosecret struct secret *pass = secret_of_text("vector-password"), *master = NULL;
	struct gcfs_config cfg;

	parse_real(&cfg);
	for (size_t i = 0; i < cfg.encrypted_key_size; i += 9) {
		struct error err = ERROR_NONE;

		cfg.encrypted_key[i] ^= 1;
		assert_int_equal(gcfs_config_unwrap(&cfg, pass, 1 << 20, &master, &err), -EKEYREJECTED);
		cfg.encrypted_key[i] ^= 1;
	}
	assert_null(master);
}

static void test_scrypt_memory(void **state)
{
	autosecret struct secret *pass = secret_of_text("vector-password"), *master = NULL;
	struct error err = ERROR_NONE;
	struct gcfs_config cfg;

	parse_real(&cfg);
	assert_int_equal(gcfs_config_unwrap(&cfg, pass, (1 << 20) - 1, &master, &err), -ENOMEM);
	assert_int_equal(err.status, EXIT_STATUS_UNSUPPORTED);
	assert_string_equal(err.text, "scrypt needs 1048576 bytes of memory for this volume; the option "
				      "scrypt-memory allows 1048575");
	assert_null(master);
}

/* What Go's decoder takes, so must we. */
static void test_accepted(void **state)
{
	static const char *const good[] = {
		WITH_FLAGS(FLAGS),
		WITH_FLAGS(FLAGS ",\"HKDF\",\"Raw64\""),
		WITH_FLAGS(
			"\"Raw64\",\"DirIV\",\"GCMIV128\",\"HKDF\""), /* order; LongNames, EMENames unasked */
		WITH_MORE(",\"Unknown\":{\"a\":[1,2,{\"b\":null}]}"),
		WITH_MORE(",\"Creator\":null,\"FIDO2\":null,\"LongNameMax\":0"),
		WITH_MORE(",\"version\":2"),
		WITH_MORE(",\"version\":null"),
		WITH_MORE(",\"Creator\":\"it's N I \\\" ' \\\\\""),
		"\n\t " WITH_FLAGS(FLAGS) " \r\n",
		"{\"ENCRYPTEDKEY\":\"" KEY64 "\",\"scryptobject\":{\"sALT\":\"" SALT32
		"\",\"n\":1024,\"r\":8,\"p\":1,\"keylen\":32},\"VERSION\":2,\"featureflags\":[" FLAGS "]}",
		WITH_SCRYPT("{\"Salt\":\"" SALT32 "\",\"N\":1073741824,\"R\":16,\"P\":4,\"KeyLen\":32}"),
	};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct error err = ERROR_NONE;
		struct gcfs_config cfg;

		gcfs_config_parse(good[i], strlen(good[i]), &cfg, &err);
		assert_string_equal(err.text, "");
		assert_int_equal(cfg.encrypted_key_size, 64);
	}
}

#define C "gocryptfs.conf: "

static void test_refused_json(void **state)
{
	static const struct refusal table[] = {
		{"", C "is not JSON: it ends too early"},
		{"{", C "is not JSON: it ends too early"},
		{"[]", C "is not a JSON object"},
		{"null ", C "is not a JSON object"},
		{"2", C "is not JSON: it ends too early"},
		{WITH_FLAGS(FLAGS) "x", C "is not JSON: unexpected character"},
		{WITH_FLAGS(FLAGS) "{}", C "is not JSON: unexpected character"},
		{WITH_MORE(","), C "is not JSON: unexpected character"},
		{WITH_MORE(",'a':1"), C "is not JSON"},
		{WITH_MORE(",\"a\":NaN"), C "is not JSON"},
		{WITH_MORE(",\"a\":-Infinity"), C "is not JSON"},
		{WITH_MORE(",\"a\":\"\n\""), C "is not JSON"},
		{WITH_MORE(",/**/\"a\":1"), C "is not JSON: quoted object property name expected"},
		{"[[[[[[[[[[[[[[[[[[[[", C "is not JSON: nesting too deep"},
	};

	assert_refused(table, ARRAY_SIZE(table), EXIT_STATUS_FAILED, -EINVAL);
}

static void test_refused_bytes(void **state)
{
	char with_nul[sizeof(real) + 1];
	autofree char *big = calloc(1, GCFS_CONFIG_MAX + 1);
	struct error err = ERROR_NONE;
	struct gcfs_config cfg;

	memcpy(with_nul, real, sizeof(real));
	with_nul[sizeof(real)] = '\n';
	assert_int_equal(gcfs_config_parse(with_nul, sizeof(with_nul), &cfg, &err), -EINVAL);
	assert_string_equal(err.text, C "is not JSON");
	memset(big, ' ', GCFS_CONFIG_MAX + 1);
	memcpy(big, real, strlen(real));
	assert_int_equal(gcfs_config_parse(big, GCFS_CONFIG_MAX, &cfg, &err), 0);
	assert_int_equal(gcfs_config_parse(big, GCFS_CONFIG_MAX + 1, &cfg, &err), -EINVAL);
	assert_string_equal(err.text, C "is 1048577 bytes long, more than the 1048576 that are read");
	/* No NUL needed, and none read past the end. */
	assert_int_equal(gcfs_config_parse(real, strlen(real) - 2, &cfg, &err), -EINVAL);
}

static void test_refused_members(void **state)
{
	static const struct refusal table[] = {
		{"{}", C "Version is 0, not 2"},
		{CONFIG(KEY64, SCRYPT, "1", FLAGS, ""), C "Version is 1, not 2"},
		{CONFIG(KEY64, SCRYPT, "3", FLAGS, ""), C "Version is 3, not 2"},
		{CONFIG(KEY64, SCRYPT, "null", FLAGS, ""), C "Version is 0, not 2"},
		{CONFIG(KEY64, SCRYPT, "\"2\"", FLAGS, ""), C "Version is not a whole number"},
		{CONFIG(KEY64, SCRYPT, "2.0", FLAGS, ""), C "Version is not a whole number"},
		{CONFIG(KEY64, SCRYPT, "-2", FLAGS, ""),
		 C "Version is -2, not between 0 and 9223372036854775807"},
		{CONFIG("", SCRYPT, "2", FLAGS, ""), C "EncryptedKey is 0 bytes, not 64"},
		{CONFIG(KEY60, SCRYPT, "2", FLAGS, ""), C "EncryptedKey is 60 bytes, not 64"},
		{CONFIG(KEY64, SCRYPT, "2", "\"GCMIV128\"", ""), C "EncryptedKey is 64 bytes, not 60"},
		{CONFIG("*", SCRYPT, "2", FLAGS, ""), C "EncryptedKey is not base64"},
		{CONFIG("AAA", SCRYPT, "2", FLAGS, ""), C "EncryptedKey is not base64"},
		{CONFIG(KEY60 KEY60, SCRYPT, "2", FLAGS, ""), C "EncryptedKey is longer than 64 bytes"},
		{WITH_MORE(",\"EncryptedKey\":5"), C "EncryptedKey is not a string"},
		{WITH_MORE(",\"Creator\":5"), C "Creator is not a string"},
		{WITH_MORE(",\"FIDO2\":5"), C "FIDO2 is not an object"},
		{WITH_MORE(",\"FeatureFlags\":\"HKDF\""), C "FeatureFlags is not a list"},
		{WITH_FLAGS(FLAGS ",5"), C "FeatureFlags holds something that is not a string"},
		{WITH_FLAGS(FLAGS ",null"), C "FeatureFlags holds something that is not a string"},
		{WITH_FLAGS(FLAGS ",\"Raw65\""), C "unknown feature flag \"Raw65\""},
		{WITH_FLAGS(FLAGS ",\"hkdf\""), C "unknown feature flag \"hkdf\""},
		{WITH_FLAGS(FLAGS ",\"\""), C "unknown feature flag \"\""},
		{WITH_FLAGS(FLAGS ",\"HKDF\\u0000\""), C "unknown feature flag \"HKDF\""},
		{WITH_MORE(",\"LongNameMax\":100"),
		 C "LongNameMax is 100, but the feature flag \"LongNameMax\" is missing"},
		{WITH_MORE(",\"LongNameMax\":256"), C "LongNameMax is 256, not between 0 and 255"},
		{WITH_FLAGS(FLAGS ",\"LongNameMax\""),
		 C "has the feature flag \"LongNameMax\", but no LongNameMax"},
		{WITH_FLAGS(FLAGS ",\"FIDO2\""), C "has the feature flag \"FIDO2\", but no FIDO2"},
		{WITH_MORE(",\"FIDO2\":{\"CredentialID\":1}"), C "FIDO2.CredentialID is not a string"},
		{WITH_MORE(",\"FIDO2\":{\"HMACSalt\":\"*\"}"), C "FIDO2.HMACSalt is not base64"},
		{WITH_MORE(",\"FIDO2\":{\"HMACSalt\":\"" KEY64 "AAAA\"}"), C "FIDO2.HMACSalt is not base64"},
		{WITH_MORE(",\"FIDO2\":{\"AssertOptions\":{}}"), C "FIDO2.AssertOptions is not a list"},
		{WITH_MORE(",\"FIDO2\":{\"AssertOptions\":[\"a\",1]}"),
		 C "FIDO2.AssertOptions holds something that is not a string"},
	};

	assert_refused(table, ARRAY_SIZE(table), EXIT_STATUS_FAILED, -EINVAL);
}

static void test_refused_scrypt(void **state)
{
#define S(n, r, p, len) "{\"Salt\":\"" SALT32 "\",\"N\":" n ",\"R\":" r ",\"P\":" p ",\"KeyLen\":" len "}"
	static const char too_large[] = C "ScryptObject.N, R and P are together too large for scrypt";
	static const struct refusal table[] = {
		{WITH_SCRYPT("5"), C "ScryptObject is not an object"},
		{WITH_SCRYPT("{}"), C "ScryptObject.N is 0, not a power of two of at least 1024"},
		{WITH_SCRYPT("null"), C "ScryptObject.N is 0, not a power of two of at least 1024"},
		{WITH_SCRYPT(S("1000", "8", "1", "32")),
		 C "ScryptObject.N is 1000, not a power of two of at least 1024"},
		{WITH_SCRYPT(S("512", "8", "1", "32")),
		 C "ScryptObject.N is 512, not a power of two of at least 1024"},
		{WITH_SCRYPT(S("1025", "8", "1", "32")),
		 C "ScryptObject.N is 1025, not a power of two of at least 1024"},
		{WITH_SCRYPT(S("-1024", "8", "1", "32")),
		 C "ScryptObject.N is -1024, not between 0 and 9223372036854775807"},
		{WITH_SCRYPT(S("1024.0", "8", "1", "32")), C "ScryptObject.N is not a whole number"},
		{WITH_SCRYPT(S("1e4", "8", "1", "32")), C "ScryptObject.N is not a whole number"},
		{WITH_SCRYPT(S("1024", "7", "1", "32")), C "ScryptObject.R is 7, less than 8"},
		{WITH_SCRYPT(S("1024", "8", "0", "32")), C "ScryptObject.P is 0, less than 1"},
		{WITH_SCRYPT(S("1024", "8", "1", "16")), C "ScryptObject.KeyLen is 16, not 32"},
		{WITH_SCRYPT(S("1024", "8", "1", "64")), C "ScryptObject.KeyLen is 64, not 32"},
		{WITH_SCRYPT(S("1024", "32768", "32768", "32")), too_large},
		{WITH_SCRYPT(S("4611686018427387904", "8", "1", "32")), too_large},
		{WITH_SCRYPT(S("18014398509481984", "8", "1", "32")), too_large},
		{WITH_SCRYPT(S("1024", "4294967296", "1", "32")),
		 C "ScryptObject.R is 4294967296, not between 0 and 4294967295"},
		{WITH_SCRYPT("{\"Salt\":\"AAAA\",\"N\":1024,\"R\":8,\"P\":1,\"KeyLen\":32}"),
		 C "ScryptObject.Salt is 3 bytes, less than 32"},
		{WITH_SCRYPT("{\"Salt\":7,\"N\":1024,\"R\":8,\"P\":1,\"KeyLen\":32}"),
		 C "ScryptObject.Salt is not a string"},
	};
#undef S

	assert_refused(table, ARRAY_SIZE(table), EXIT_STATUS_FAILED, -EINVAL);
}

/* A config with those flags, and what must come with them. */
static void flags_to_json(unsigned flags, char *buf, size_t size)
{
	static const char *const names[] = {"HKDF",           "GCMIV128", "AESSIV",   "XChaCha20Poly1305",
					    "PlaintextNames", "DirIV",    "EMENames", "LongNames",
					    "LongNameMax",    "Raw64",    "FIDO2"};
	char list[300] = "";

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (flags & 1U << i)
			snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s\"%s\"",
				 *list ? "," : "", names[i]);
	snprintf(buf, size,
		 "{\"EncryptedKey\":\"%s\",\"ScryptObject\":" SCRYPT
		 ",\"Version\":2,\"FeatureFlags\":[%s]%s%s}",
		 flags & GCFS_HKDF ? KEY64 : KEY60, list,
		 flags & GCFS_LONG_NAME_MAX ? ",\"LongNameMax\":100" : "",
		 flags & GCFS_FIDO2 ? ",\"FIDO2\":{\"CredentialID\":\"AAAA\"}" : "");
}

/* The words for what is wrong with flags, the first that applies; NULL for legal ones. */
static const char *illegal_words(unsigned flags)
{
	const bool xchacha = flags & GCFS_XCHACHA, siv = flags & GCFS_AESSIV, iv128 = flags & GCFS_GCMIV128,
		   plain = flags & GCFS_PLAINTEXT_NAMES;

	if (xchacha && siv)
		return "XChaCha20Poly1305 and AESSIV exclude each other";
	if (xchacha && iv128)
		return "XChaCha20Poly1305 and GCMIV128 exclude each other";
	if (xchacha && !(flags & GCFS_HKDF))
		return "XChaCha20Poly1305 needs HKDF";
	if (siv && !iv128)
		return "AESSIV needs GCMIV128";
	if (!xchacha && !iv128)
		return "AES-GCM needs GCMIV128 (volumes before gocryptfs 0.7 lack it)";
	if (plain && flags & GCFS_EME_NAMES)
		return "PlaintextNames and EMENames exclude each other";
	if (plain && flags & GCFS_DIRIV)
		return "PlaintextNames and DirIV exclude each other";
	if (plain && flags & GCFS_LONG_NAMES)
		return "PlaintextNames and LongNames exclude each other";
	if (plain && flags & GCFS_RAW64)
		return "PlaintextNames and Raw64 exclude each other";
	if (plain && flags & GCFS_LONG_NAME_MAX)
		return "PlaintextNames and LongNameMax exclude each other";
	return NULL;
}

/* All 2048 combinations: 330 of them are volumes that gocryptfs 2.3 mounts, and so do we; measured with it.
 */
static void test_flags(void **state)
{
	unsigned legal = 0;

	for (unsigned flags = 0; flags < 1 << 11; flags++) {
		const char *why = illegal_words(flags);
		struct gcfs_config cfg = {.flags = 0};
		struct error err = ERROR_NONE;
		char json[1000], want[200];
		int r;

		flags_to_json(flags, json, sizeof(json));
		r = gcfs_config_parse(json, strlen(json), &cfg, &err);
		snprintf(want, sizeof(want), "%s%s", why ? C "feature flags: " : "", why ? why : "");
		assert_string_equal(err.text, want);
		assert_int_equal(r, why ? -EINVAL : 0);
		assert_int_equal(err.status, why ? EXIT_STATUS_FAILED : EXIT_STATUS_DONE);
		if (!why) {
			legal++;
			assert_int_equal(cfg.flags, flags);
			assert_int_equal(cfg.long_name_max, flags & GCFS_LONG_NAME_MAX ? 100 : 0);
		}
	}
	assert_int_equal(legal, 2 * 165);
}

/* A FIDO2 volume as gocryptfs writes it, with every member kept; its "passphrase" is bytes, zeros too. */
static void test_fido2(void **state)
{
	static const char with_fido2[] = "\n\t\t\"FIDO2\"\n\t],\n\t\"FIDO2\": {\n"
					 "\t\t\"CredentialID\": \"AAECAwQFBgc=\",\n"
					 "\t\t\"HMACSalt\": \"" SALT32 "\",\n"
					 "\t\t\"AssertOptions\": [\"up=true\",\"pin=/a\\\"b\"]\n"
					 "\t},\n\t\"LongNameMax\": 100\n}\n";
	autosecret struct secret *hmac = NULL, *wrong = NULL, *master = NULL, *back = NULL;
	struct gcfs_kind kind = GCFS_KIND_DEFAULT;
	autofree char *text = NULL, *again = NULL;
	struct gcfs_config cfg, parsed;
	struct error err = ERROR_NONE;
	size_t size;

	assert_int_equal(secret_new(32, &hmac), 0);
	assert_int_equal(secret_new(32, &wrong), 0);
	secret_data(hmac)[31] = 9;
	assert_int_equal(secret_new(GCFS_MASTER_KEY_SIZE, &master), 0);
	kind.flags |= GCFS_LONG_NAME_MAX;
	kind.long_name_max = 100;
	assert_int_equal(gcfs_config_create(&kind, hmac, master, 10, 1 << 20, &cfg, &err), 0);
	cfg.flags |= GCFS_FIDO2;
	cfg.fido2 = (struct gcfs_fido2){.present = true, .credential_id_size = 8, .hmac_salt_size = 32};
	for (uint8_t i = 0; i < 8; i++)
		cfg.fido2.credential_id[i] = i;
	base64_decode(BASE64_STD, SALT32, strlen(SALT32), cfg.fido2.hmac_salt, 32);
	strcpy(cfg.fido2.assert_options, "[\"up=true\",\"pin=/a\\\"b\"]");
	assert_int_equal(gcfs_config_format(&cfg, &text, &size), 0);
	assert_string_equal(strstr(text, "\n\t\t\"FIDO2\"\n"), with_fido2);
	assert_int_equal(gcfs_config_parse(text, size, &parsed, &err), 0);
	assert_memory_equal(&parsed.fido2, &cfg.fido2, sizeof(cfg.fido2));
	assert_int_equal(gcfs_config_unwrap(&parsed, wrong, 1 << 20, &back, &err), -EKEYREJECTED);
	assert_string_equal(err.text, "wrong hmac-secret");
	assert_int_equal(gcfs_config_unwrap(&parsed, hmac, 1 << 20, &back, &err), 0);
	/* Another wrapping leaves them alone. */
	assert_int_equal(gcfs_config_rewrap(&parsed, wrong, master, 0, 1 << 20, &err), 0);
	assert_int_equal(gcfs_config_format(&parsed, &again, &size), 0);
	assert_string_equal(strstr(again, "\n\t\t\"FIDO2\"\n"), with_fido2);
}

/* The longest that are taken, one more than that, and without the flag. */
static void test_fido2_limits(void **state)
{
	char bytes[4 * 400], json[4000];
	struct error err = ERROR_NONE;
	struct gcfs_config cfg;

	memset(bytes, 'A', sizeof(bytes));
	snprintf(json, sizeof(json),
		 WITH_MORE(",\"FIDO2\":{\"CredentialID\":\"%.1364s\",\"HMACSalt\":\"%.84s\"}"), bytes, bytes);
	assert_int_equal(gcfs_config_parse(json, strlen(json), &cfg, &err), 0);
	assert_true(cfg.fido2.present);
	assert_int_equal(cfg.fido2.credential_id_size, 1023);
	snprintf(json, sizeof(json), WITH_MORE(",\"FIDO2\":{\"CredentialID\":\"%.1368s\"}"), bytes);
	assert_int_equal(gcfs_config_parse(json, strlen(json), &cfg, &err), -EINVAL);
	assert_string_equal(err.text, C "FIDO2.CredentialID is longer than 1024 bytes");
	snprintf(json, sizeof(json), WITH_MORE(",\"FIDO2\":{\"AssertOptions\":[\"%.508s\"]}"), bytes);
	assert_int_equal(gcfs_config_parse(json, strlen(json), &cfg, &err), -EINVAL);
	assert_string_equal(err.text, C "FIDO2.AssertOptions is longer than 511 bytes");
}

/* Formatting what was parsed gives the file that gocryptfs wrote, byte for byte. */
static void test_format(void **state)
{
	autofree char *text = NULL;
	struct gcfs_config cfg;
	size_t size;

	parse_real(&cfg);
	assert_int_equal(gcfs_config_format(&cfg, &text, &size), 0);
	assert_string_equal(text, real);
	assert_int_equal(size, strlen(real));
}

/* Every member at its longest, and a creator that needs escapes. */
static void test_format_extremes(void **state)
{
	struct gcfs_config cfg = {.flags = (1 << 11) - 1,
				  .long_name_max = 255,
				  .encrypted_key_size = 64,
				  .salt_size = 256,
				  .scrypt_n = UINT64_C(1) << 62,
				  .scrypt_r = UINT32_MAX,
				  .scrypt_p = UINT32_MAX};
	autofree char *text = NULL;
	size_t size;

	memset(cfg.creator, '"', sizeof(cfg.creator) - 1);
	cfg.fido2 = (struct gcfs_fido2){
		.present = true,
		.credential_id_size = sizeof(cfg.fido2.credential_id),
		.hmac_salt_size = sizeof(cfg.fido2.hmac_salt),
	};
	memset(cfg.fido2.assert_options, ' ', sizeof(cfg.fido2.assert_options) - 1);
	assert_int_equal(gcfs_config_format(&cfg, &text, &size), 0);
	assert_int_equal(size, strlen(text));
	assert_non_null(strstr(text, "\t\"Creator\": \"\\\"\\\""));
	assert_non_null(strstr(text, "  \n\t},\n\t\"LongNameMax\": 255\n}\n"));
}

static void test_create(void **state)
{
	autosecret struct secret *pass = secret_of_text("a new passphrase"), *master = NULL, *back = NULL,
				 *wrong = secret_of_text("another one");
	struct gcfs_config cfg, again, parsed;
	struct error err = ERROR_NONE;
	autofree char *text = NULL;
	size_t size;

	assert_int_equal(secret_new(GCFS_MASTER_KEY_SIZE, &master), 0);
	assert_int_equal(crypto_random(secret_data(master), GCFS_MASTER_KEY_SIZE), 0);
	assert_int_equal(gcfs_config_create(&GCFS_KIND_DEFAULT, pass, master, 10, 1 << 20, &cfg, &err), 0);
	assert_int_equal(gcfs_config_create(&GCFS_KIND_DEFAULT, pass, master, 10, 1 << 20, &again, &err), 0);
	assert_memory_not_equal(cfg.salt, again.salt, 32);
	assert_memory_not_equal(cfg.encrypted_key, again.encrypted_key, 16);
	assert_int_equal(gcfs_config_format(&cfg, &text, &size), 0);
	assert_int_equal(gcfs_config_parse(text, size, &parsed, &err), 0);
	assert_string_equal(parsed.creator, "ckrfs " CKRFS_VERSION);
	assert_int_equal(parsed.scrypt_n, 1024);
	assert_int_equal(gcfs_config_unwrap(&parsed, wrong, 1 << 20, &back, &err), -EKEYREJECTED);
	assert_int_equal(gcfs_config_unwrap(&parsed, pass, 1 << 20, &back, &err), 0);
	assert_true(secret_equal(master, back));
}

/* A kind that could not be mounted is not made. */
static void test_create_kinds(void **state)
{
	static const struct {
		struct gcfs_kind kind;
		bool legal;
	} table[] = {
		{{GCFS_HKDF | GCFS_XCHACHA | GCFS_PLAINTEXT_NAMES, 0}, true},
		{{GCFS_HKDF | GCFS_GCMIV128 | GCFS_AESSIV | GCFS_RAW64 | GCFS_LONG_NAME_MAX, 62}, true},
		{{GCFS_GCMIV128, 0}, true},
		{{GCFS_HKDF | GCFS_XCHACHA | GCFS_GCMIV128, 0}, false},
		{{GCFS_HKDF | GCFS_GCMIV128 | GCFS_PLAINTEXT_NAMES | GCFS_LONG_NAME_MAX, 62}, false},
	};
	autosecret struct secret *pass = secret_of_text("p"), *master = NULL, *back = NULL;

	assert_int_equal(secret_new(GCFS_MASTER_KEY_SIZE, &master), 0);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct gcfs_config cfg, parsed;
		struct error err = ERROR_NONE;
		autofree char *text = NULL;
		size_t size;

		assert_int_equal(gcfs_config_create(&table[i].kind, pass, master, 10, 1 << 20, &cfg, &err),
				 table[i].legal ? 0 : -EINVAL);
		if (!table[i].legal)
			continue;
		assert_int_equal(gcfs_config_format(&cfg, &text, &size), 0);
		assert_int_equal(gcfs_config_parse(text, size, &parsed, &err), 0);
		assert_int_equal(parsed.flags, table[i].kind.flags);
		assert_int_equal(parsed.long_name_max, table[i].kind.long_name_max);
		assert_int_equal(gcfs_config_unwrap(&parsed, pass, 1 << 20, &back, &err), 0);
		secret_free(steal_ptr(&back));
	}
}

/* The old passphrase opens nothing any more, the new one the same master key; the kind of volume stays. */
static void test_rewrap(void **state)
{
	autosecret struct secret *pass = secret_of_text("the old one"), *master = NULL, *back = NULL,
				 *next = secret_of_text("the new one");
	struct gcfs_config cfg, old;
	struct error err = ERROR_NONE;

	assert_int_equal(secret_new(GCFS_MASTER_KEY_SIZE, &master), 0);
	assert_int_equal(crypto_random(secret_data(master), GCFS_MASTER_KEY_SIZE), 0);
	assert_int_equal(gcfs_config_create(&GCFS_KIND_DEFAULT, pass, master, 11, 4 << 20, &cfg, &err), 0);
	old = cfg;
	assert_int_equal(gcfs_config_rewrap(&cfg, next, master, 0, 1 << 20, &err), -ENOMEM);
	assert_memory_equal(&cfg, &old, sizeof(cfg));
	assert_int_equal(gcfs_config_rewrap(&cfg, next, master, 0, 4 << 20, &err), 0);
	assert_int_equal(cfg.scrypt_n, 2048);
	assert_int_equal(cfg.flags, old.flags);
	assert_memory_not_equal(cfg.salt, old.salt, 32);
	assert_int_equal(gcfs_config_unwrap(&cfg, pass, 4 << 20, &back, &err), -EKEYREJECTED);
	assert_int_equal(gcfs_config_unwrap(&cfg, next, 4 << 20, &back, &err), 0);
	assert_true(secret_equal(master, back));
	assert_int_equal(gcfs_config_rewrap(&cfg, next, master, 10, 4 << 20, &err), 0);
	assert_int_equal(cfg.scrypt_n, 1024);
}

static void test_create_refuses(void **state)
{
	autosecret struct secret *pass = secret_of_text("p"), *master = NULL, *small = NULL, *large = NULL;
	struct error err = ERROR_NONE;
	struct gcfs_config cfg;

	assert_int_equal(secret_new(GCFS_MASTER_KEY_SIZE, &master), 0);
	assert_int_equal(secret_new(16, &small), 0);
	assert_int_equal(secret_new(GCFS_PASSPHRASE_MAX + 1, &large), 0);
	assert_int_equal(gcfs_config_create(&GCFS_KIND_DEFAULT, pass, master, 9, 1 << 20, &cfg, &err),
			 -EINVAL);
	assert_string_equal(err.text, "scrypt cost is 2^9, not 2^10 to 2^28");
	assert_int_equal(gcfs_config_create(&GCFS_KIND_DEFAULT, pass, master, 29, 1 << 20, &cfg, &err),
			 -EINVAL);
	assert_int_equal(gcfs_config_create(&GCFS_KIND_DEFAULT, pass, small, 10, 1 << 20, &cfg, &err),
			 -EINVAL);
	assert_string_equal(err.text, "a master key has 32 bytes, not 16");
	assert_int_equal(gcfs_config_create(&GCFS_KIND_DEFAULT, large, master, 10, 1 << 20, &cfg, &err),
			 -EINVAL);
	assert_string_equal(err.text, "passphrase is 2049 bytes long; gocryptfs takes at most 2048");
	assert_int_equal(gcfs_config_create(&GCFS_KIND_DEFAULT, pass, master, 11, 1 << 20, &cfg, &err),
			 -ENOMEM);
	assert_int_equal(err.status, EXIT_STATUS_UNSUPPORTED);
}

/* HKDF-SHA256 of key 00..1f, computed with another implementation (Python's hmac). */
static void test_identifier(void **state)
{
	autosecret struct secret *master = NULL;
	char id[33];

	assert_int_equal(secret_new(GCFS_MASTER_KEY_SIZE, &master), 0);
	for (int i = 0; i < GCFS_MASTER_KEY_SIZE; i++)
		secret_data(master)[i] = (uint8_t)i;
	assert_int_equal(gcfs_key_identifier(master, id), 0);
	assert_string_equal(id, "f202e88d812529206bc6a75dd985fac7");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_real),
		cmocka_unit_test(test_unwrap_old),
		cmocka_unit_test(test_wrong_passphrase),
		cmocka_unit_test(test_damaged_key),
		cmocka_unit_test(test_scrypt_memory),
		cmocka_unit_test(test_accepted),
		cmocka_unit_test(test_refused_json),
		cmocka_unit_test(test_refused_bytes),
		cmocka_unit_test(test_refused_members),
		cmocka_unit_test(test_refused_scrypt),
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_fido2),
		cmocka_unit_test(test_fido2_limits),
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_format_extremes),
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_create_kinds),
		cmocka_unit_test(test_rewrap),
		cmocka_unit_test(test_create_refuses),
		cmocka_unit_test(test_identifier),
	};

	if (crypto_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("gcfs_config", tests, NULL, NULL);
}
