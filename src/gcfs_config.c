/* SPDX-License-Identifier: MIT */
/*
 * The order of the checks: JSON, each member by itself, the rules between members. Tables hold flags and
 * rules.
 */
#include "gcfs_config.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "cleanup.h"
#include "crypto.h"
#include "gcfs_json.h"
#include "util.h"
#include "version.h"

enum {
	JSON_DEPTH = 16,
	IV_SIZE_HKDF = 16,
	IV_SIZE_OLD = 12,
	KEK_SIZE = 32,
	SALT_SIZE = 32,
	SCRYPT_N_MIN = 1024,
	SCRYPT_R = 8,
	SCRYPT_P = 1,
};

#define refuse(err, fmt, ...)                                                                                \
	error_set(err, -EINVAL, EXIT_STATUS_FAILED, "gocryptfs.conf: " fmt, ##__VA_ARGS__)

/* In the order in which gocryptfs writes them. */
static const struct {
	const char *name;
	unsigned flag;
} flag_names[] = {
	{"HKDF", GCFS_HKDF},          {"XChaCha20Poly1305", GCFS_XCHACHA},
	{"GCMIV128", GCFS_GCMIV128},  {"PlaintextNames", GCFS_PLAINTEXT_NAMES},
	{"DirIV", GCFS_DIRIV},        {"LongNameMax", GCFS_LONG_NAME_MAX},
	{"EMENames", GCFS_EME_NAMES}, {"LongNames", GCFS_LONG_NAMES},
	{"Raw64", GCFS_RAW64},        {"AESSIV", GCFS_AESSIV},
	{"FIDO2", GCFS_FIDO2},
};

/* Combinations that gocryptfs refuses: all of set, none of unset. */
static const struct {
	unsigned set, unset;
	const char *why;
} illegal[] = {
	{GCFS_XCHACHA | GCFS_AESSIV, 0, "XChaCha20Poly1305 and AESSIV exclude each other"},
	{GCFS_XCHACHA | GCFS_GCMIV128, 0, "XChaCha20Poly1305 and GCMIV128 exclude each other"},
	{GCFS_XCHACHA, GCFS_HKDF, "XChaCha20Poly1305 needs HKDF"},
	{GCFS_AESSIV, GCFS_GCMIV128, "AESSIV needs GCMIV128"},
	{0, GCFS_XCHACHA | GCFS_GCMIV128, "AES-GCM needs GCMIV128 (volumes before gocryptfs 0.7 lack it)"},
	{GCFS_PLAINTEXT_NAMES | GCFS_EME_NAMES, 0, "PlaintextNames and EMENames exclude each other"},
	{GCFS_PLAINTEXT_NAMES | GCFS_DIRIV, 0, "PlaintextNames and DirIV exclude each other"},
	{GCFS_PLAINTEXT_NAMES | GCFS_LONG_NAMES, 0, "PlaintextNames and LongNames exclude each other"},
	{GCFS_PLAINTEXT_NAMES | GCFS_RAW64, 0, "PlaintextNames and Raw64 exclude each other"},
	{GCFS_PLAINTEXT_NAMES | GCFS_LONG_NAME_MAX, 0, "PlaintextNames and LongNameMax exclude each other"},
};

/* As Go's decoder: upper and lower case alike, the last one counts, null is as good as absent. */
static struct json_object *member(struct json_object *object, const char *name)
{
	struct json_object *found = NULL;

	if (object) {
		json_object_object_foreach(object, key, value)
		{
			if (value && strcasecmp(key, name) == 0)
				found = value;
		}
	}
	return found;
}

/* where: the object's name and a dot, for words. Absent is 0. */
static int read_number(struct json_object *object, const char *where, const char *name, uint64_t max,
		       uint64_t *ret, struct error *err)
{
	struct json_object *value = member(object, name);

	if (!value) {
		*ret = 0;
		return 0;
	}
	if (!json_object_is_type(value, json_type_int))
		return refuse(err, "%s%s is not a whole number", where, name);
	if (json_object_get_int64(value) < 0 || json_object_get_uint64(value) > max)
		return refuse(err, "%s%s is %s, not between 0 and %" PRIu64, where, name,
			      json_object_get_string(value), max);
	*ret = json_object_get_uint64(value);
	return 0;
}

/* Base64 of at most max bytes; absent is empty. */
static int read_bytes(struct json_object *object, const char *where, const char *name, uint8_t *buf,
		      size_t max, size_t *ret_size, struct error *err)
{
	struct json_object *value = member(object, name);
	ssize_t n;

	if (!value) {
		*ret_size = 0;
		return 0;
	}
	if (!json_object_is_type(value, json_type_string))
		return refuse(err, "%s%s is not a string", where, name);
	n = base64_decode(BASE64_STD, json_object_get_string(value),
			  (size_t)json_object_get_string_len(value), buf, max);
	if (n == -ENOSPC)
		return refuse(err, "%s%s is longer than %zu bytes", where, name, max);
	if (n < 0)
		return refuse(err, "%s%s is not base64", where, name);
	*ret_size = (size_t)n;
	return 0;
}

static int read_creator(struct json_object *top, struct gcfs_config *cfg, struct error *err)
{
	struct json_object *value = member(top, "Creator");

	if (value && !json_object_is_type(value, json_type_string))
		return refuse(err, "Creator is not a string");
	printable(value ? json_object_get_string(value) : "", cfg->creator, sizeof(cfg->creator));
	return 0;
}

static int read_flag(struct json_object *value, unsigned *flags, struct error *err)
{
	const char *name = json_object_get_string(value);

	if (!json_object_is_type(value, json_type_string))
		return refuse(err, "FeatureFlags holds something that is not a string");
	/* The length too: a NUL may follow. */
	for (size_t i = 0; i < ARRAY_SIZE(flag_names); i++) {
		if (strcmp(name, flag_names[i].name) == 0 &&
		    strlen(name) == (size_t)json_object_get_string_len(value)) {
			*flags |= flag_names[i].flag;
			return 0;
		}
	}
	return refuse(err, "unknown feature flag \"%s\"", name);
}

static int read_flags(struct json_object *top, struct gcfs_config *cfg, struct error *err)
{
	struct json_object *list = member(top, "FeatureFlags");

	if (!list)
		return 0;
	if (!json_object_is_type(list, json_type_array))
		return refuse(err, "FeatureFlags is not a list");
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		int r = read_flag(json_object_array_get_idx(list, i), &cfg->flags, err);

		if (r < 0)
			return r;
	}
	return 0;
}

/* What gocryptfs asks of the parameters, and what makes it panic. How much memory they may take is the
 * caller's choice: gcfs_config_unwrap(). */
static int check_scrypt(const struct gcfs_config *cfg, uint64_t key_len, struct error *err)
{
	uint64_t n = cfg->scrypt_n, r = cfg->scrypt_r, p = cfg->scrypt_p;

	if (n < SCRYPT_N_MIN || (n & (n - 1)))
		return refuse(err, "ScryptObject.N is %" PRIu64 ", not a power of two of at least %d", n,
			      SCRYPT_N_MIN);
	if (r < SCRYPT_R)
		return refuse(err, "ScryptObject.R is %" PRIu64 ", less than %d", r, SCRYPT_R);
	if (p < SCRYPT_P)
		return refuse(err, "ScryptObject.P is %" PRIu64 ", less than %d", p, SCRYPT_P);
	/* RFC 7914 section 2; and 128*N*R must be a number of bytes. */
	if (r * p >= 1 << 30 || n > INT64_MAX / 128 / r)
		return refuse(err, "ScryptObject.N, R and P are together too large for scrypt");
	if (cfg->salt_size < SALT_SIZE)
		return refuse(err, "ScryptObject.Salt is %zu bytes, less than %d", cfg->salt_size, SALT_SIZE);
	if (key_len != KEK_SIZE)
		return refuse(err, "ScryptObject.KeyLen is %" PRIu64 ", not %d", key_len, KEK_SIZE);
	return 0;
}

static int read_scrypt(struct json_object *top, struct gcfs_config *cfg, struct error *err)
{
	static const char where[] = "ScryptObject.";
	struct json_object *object = member(top, "ScryptObject");
	uint64_t r = 0, p = 0, key_len = 0;
	int res;

	if (object && !json_object_is_type(object, json_type_object))
		return refuse(err, "ScryptObject is not an object");
	res = read_bytes(object, where, "Salt", cfg->salt, sizeof(cfg->salt), &cfg->salt_size, err);
	if (res == 0)
		res = read_number(object, where, "N", INT64_MAX, &cfg->scrypt_n, err);
	if (res == 0)
		res = read_number(object, where, "R", UINT32_MAX, &r, err);
	if (res == 0)
		res = read_number(object, where, "P", UINT32_MAX, &p, err);
	if (res == 0)
		res = read_number(object, where, "KeyLen", INT64_MAX, &key_len, err);
	if (res < 0)
		return res;
	cfg->scrypt_r = (uint32_t)r;
	cfg->scrypt_p = (uint32_t)p;
	return check_scrypt(cfg, key_len, err);
}

static int read_long_name_max(struct json_object *top, struct gcfs_config *cfg, struct error *err)
{
	uint64_t max = 0;
	int r = read_number(top, "", "LongNameMax", 255, &max, err);

	if (r < 0)
		return r;
	cfg->long_name_max = (unsigned)max;
	if (max && !(cfg->flags & GCFS_LONG_NAME_MAX))
		return refuse(err, "LongNameMax is %u, but the feature flag \"LongNameMax\" is missing",
			      cfg->long_name_max);
	if (!max && cfg->flags & GCFS_LONG_NAME_MAX)
		return refuse(err, "has the feature flag \"LongNameMax\", but no LongNameMax");
	return 0;
}

/* Volumes before 1.3 used the scrypt result itself as key, with a shorter IV. */
static size_t wrap_iv_size(const struct gcfs_config *cfg)
{
	return cfg->flags & GCFS_HKDF ? IV_SIZE_HKDF : IV_SIZE_OLD;
}

static size_t wrapped_size(const struct gcfs_config *cfg)
{
	return wrap_iv_size(cfg) + GCFS_MASTER_KEY_SIZE + AEAD_TAG_SIZE;
}

/* The rules between members. */
static int check_legal(const struct gcfs_config *cfg, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(illegal); i++)
		if ((cfg->flags & illegal[i].set) == illegal[i].set && !(cfg->flags & illegal[i].unset))
			return refuse(err, "feature flags: %s", illegal[i].why);
	if (cfg->encrypted_key_size != wrapped_size(cfg))
		return refuse(err, "EncryptedKey is %zu bytes, not %zu", cfg->encrypted_key_size,
			      wrapped_size(cfg));
	return 0;
}

/* The list is kept as it is written, so that it can be written again. */
static int read_assert_options(struct json_object *object, struct gcfs_fido2 *fido2, struct error *err)
{
	struct json_object *list = member(object, "AssertOptions");
	const char *text;

	if (!list)
		return 0;
	if (!json_object_is_type(list, json_type_array))
		return refuse(err, "FIDO2.AssertOptions is not a list");
	for (size_t i = 0; i < json_object_array_length(list); i++)
		if (!json_object_is_type(json_object_array_get_idx(list, i), json_type_string))
			return refuse(err, "FIDO2.AssertOptions holds something that is not a string");
	text = json_object_to_json_string_ext(list, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
	if (!text)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "gocryptfs.conf");
	if (strlen(text) >= sizeof(fido2->assert_options))
		return refuse(err, "FIDO2.AssertOptions is longer than %zu bytes",
			      sizeof(fido2->assert_options) - 1);
	strcpy(fido2->assert_options, text);
	return 0;
}

static int read_fido2(struct json_object *top, struct gcfs_config *cfg, struct error *err)
{
	static const char where[] = "FIDO2.";
	struct json_object *object = member(top, "FIDO2");
	struct gcfs_fido2 *fido2 = &cfg->fido2;
	int r;

	if (!object && cfg->flags & GCFS_FIDO2)
		return refuse(err, "has the feature flag \"FIDO2\", but no FIDO2");
	if (!object)
		return 0;
	if (!json_object_is_type(object, json_type_object))
		return refuse(err, "FIDO2 is not an object");
	r = read_bytes(object, where, "CredentialID", fido2->credential_id, sizeof(fido2->credential_id),
		       &fido2->credential_id_size, err);
	if (r == 0)
		r = read_bytes(object, where, "HMACSalt", fido2->hmac_salt, sizeof(fido2->hmac_salt),
			       &fido2->hmac_salt_size, err);
	if (r == 0)
		r = read_assert_options(object, fido2, err);
	fido2->present = r == 0;
	return r;
}

static int read_members(struct json_object *top, struct gcfs_config *cfg, struct error *err)
{
	uint64_t version;
	int r = read_number(top, "", "Version", INT64_MAX, &version, err);

	if (r < 0)
		return r;
	if (version != 2)
		return refuse(err, "Version is %" PRIu64 ", not 2", version);
	r = read_creator(top, cfg, err);
	if (r == 0)
		r = read_scrypt(top, cfg, err);
	if (r == 0)
		r = read_flags(top, cfg, err);
	if (r == 0)
		r = read_long_name_max(top, cfg, err);
	if (r == 0)
		r = read_fido2(top, cfg, err);
	if (r == 0)
		r = read_bytes(top, "", "EncryptedKey", cfg->encrypted_key, sizeof(cfg->encrypted_key),
			       &cfg->encrypted_key_size, err);
	return r;
}

int gcfs_config_parse(const char *buf, size_t size, struct gcfs_config *ret, struct error *err)
{
	struct gcfs_config cfg = {0};
	struct json_object *top = NULL;
	int r = gcfs_json_read("gocryptfs.conf", buf, size, GCFS_CONFIG_MAX, JSON_DEPTH, &top, err);

	if (r < 0)
		return r;
	r = read_members(top, &cfg, err);
	json_object_put(top);
	if (r == 0)
		r = check_legal(&cfg, err);
	if (r < 0)
		return r;
	*ret = cfg;
	return 0;
}

static int scrypt_failed(const struct gcfs_config *cfg, uint64_t max_memory, int r, struct error *err)
{
	uint64_t need = UINT64_C(128) * cfg->scrypt_r * (cfg->scrypt_n + cfg->scrypt_p - 1);

	if (r == -ENOMEM && need > max_memory)
		return error_set(err, r, EXIT_STATUS_UNSUPPORTED,
				 "scrypt needs %" PRIu64 " bytes of memory for this volume; the option "
				 "scrypt-memory allows %" PRIu64,
				 need, max_memory);
	return error_errno(err, r, EXIT_STATUS_FAILED, "cannot run scrypt with %" PRIu64 " bytes of memory",
			   need);
}

/* The cipher that wraps the master key: AES-GCM whatever the content cipher is. */
static int wrap_cipher(const struct gcfs_config *cfg, const struct secret *passphrase, uint64_t max_memory,
		       struct aead **ret, struct error *err)
{
	autosecret struct secret *kek = NULL, *derived = NULL;
	int r = scrypt_derive(passphrase, cfg->salt, cfg->salt_size, cfg->scrypt_n, cfg->scrypt_r,
			      cfg->scrypt_p, max_memory, &kek);

	if (r < 0)
		return scrypt_failed(cfg, max_memory, r, err);
	if (cfg->flags & GCFS_HKDF)
		r = hkdf_sha256(kek, "AES-GCM file content encryption", KEK_SIZE, &derived);
	if (r == 0)
		r = aead_new(AEAD_AES_256_GCM, derived ? derived : kek, wrap_iv_size(cfg), ret);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot set up the key encryption");
	return 0;
}

/* Both directions; the master key is block 0 of no file. encrypted is IV, ciphertext, tag. */
static int wrap_run(struct aead *aead, size_t iv_size, bool wrap, uint8_t *encrypted,
		    const struct secret *master)
{
	static const uint8_t aad[8];
	uint8_t *text = encrypted + iv_size, *tag = text + GCFS_MASTER_KEY_SIZE;
	struct aead_ctx *ctx = aead_get(aead);
	int r;

	if (!ctx)
		return -ENOMEM;
	if (wrap)
		r = aead_seal(ctx, encrypted, aad, sizeof(aad), secret_data(master), GCFS_MASTER_KEY_SIZE,
			      text, tag);
	else
		r = aead_open(ctx, encrypted, aad, sizeof(aad), text, GCFS_MASTER_KEY_SIZE, tag,
			      secret_data(master));
	aead_put(aead, ctx);
	return r;
}

int gcfs_config_unwrap(const struct gcfs_config *cfg, const struct secret *passphrase, uint64_t max_memory,
		       struct secret **ret_master, struct error *err)
{
	autosecret struct secret *master = NULL;
	struct gcfs_config copy = *cfg; /* wrap_run() could write */
	struct aead *aead = NULL;
	int r;

	if (cfg->encrypted_key_size != wrapped_size(cfg))
		return check_legal(cfg, err);
	r = wrap_cipher(cfg, passphrase, max_memory, &aead, err);
	if (r < 0)
		return r;
	r = secret_new(GCFS_MASTER_KEY_SIZE, &master);
	if (r == 0)
		r = wrap_run(aead, wrap_iv_size(cfg), false, copy.encrypted_key, master);
	aead_free(aead);
	if (r == -EBADMSG)
		return error_set(err, -EKEYREJECTED, EXIT_STATUS_WRONG_KEY, "wrong %s",
				 cfg->flags & GCFS_FIDO2 ? "hmac-secret" : "passphrase");
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot decrypt the master key");
	*ret_master = steal_ptr(&master);
	return 0;
}

/* A drawn value is never all zero: gocryptfs refuses such an IV. */
static int random_iv(uint8_t *iv, size_t size)
{
	static const uint8_t zero[IV_SIZE_HKDF];
	int r;

	do
		r = crypto_random(iv, size);
	while (r == 0 && memcmp(iv, zero, size) == 0);
	return r;
}

static int check_create(const struct secret *passphrase, const struct secret *master, unsigned log_n,
			struct error *err)
{
	if (log_n && (log_n < 10 || log_n > 28))
		return error_set(err, -EINVAL, EXIT_STATUS_FAILED, "scrypt cost is 2^%u, not 2^10 to 2^28",
				 log_n);
	if (secret_size(master) != GCFS_MASTER_KEY_SIZE)
		return error_set(err, -EINVAL, EXIT_STATUS_FAILED, "a master key has %d bytes, not %zu",
				 GCFS_MASTER_KEY_SIZE, secret_size(master));
	if (secret_size(passphrase) > GCFS_PASSPHRASE_MAX)
		return error_set(err, -EINVAL, EXIT_STATUS_FAILED,
				 "passphrase is %zu bytes long; gocryptfs takes at most %d",
				 secret_size(passphrase), GCFS_PASSPHRASE_MAX);
	return 0;
}

int gcfs_config_rewrap(struct gcfs_config *cfg, const struct secret *passphrase, const struct secret *master,
		       unsigned log_n, uint64_t max_memory, struct error *err)
{
	struct gcfs_config new = *cfg;
	struct aead *aead = NULL;
	int r = check_create(passphrase, master, log_n, err);

	if (r < 0)
		return r;
	if (log_n)
		new.scrypt_n = UINT64_C(1) << log_n;
	new.salt_size = SALT_SIZE;
	new.encrypted_key_size = wrapped_size(&new);
	r = crypto_random(new.salt, new.salt_size);
	if (r == 0)
		r = random_iv(new.encrypted_key, wrap_iv_size(&new));
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot get random bytes");
	r = wrap_cipher(&new, passphrase, max_memory, &aead, err);
	if (r < 0)
		return r;
	r = wrap_run(aead, wrap_iv_size(&new), true, new.encrypted_key, master);
	aead_free(aead);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot encrypt the master key");
	*cfg = new;
	return 0;
}

int gcfs_config_create(const struct gcfs_kind *kind, const struct secret *passphrase,
		       const struct secret *master, unsigned log_n, uint64_t max_memory,
		       struct gcfs_config *ret, struct error *err)
{
	struct gcfs_config cfg = {
		.creator = "ckrfs " CKRFS_VERSION,
		.flags = kind->flags,
		.long_name_max = kind->long_name_max,
		.scrypt_r = SCRYPT_R,
		.scrypt_p = SCRYPT_P,
	};
	int r;

	if (!log_n)
		return error_set(err, -EINVAL, EXIT_STATUS_FAILED, "a new volume needs a scrypt cost");
	r = gcfs_config_rewrap(&cfg, passphrase, master, log_n, max_memory, err);
	if (r == 0)
		r = check_legal(&cfg, err);
	if (r == 0)
		*ret = cfg;
	return r;
}

/* printable() left no quote escaped: JSON needs it. dst holds twice the length. */
static void escape_string(const char *src, char *dst)
{
	for (; *src; src++) {
		if (*src == '"' || *src == '\\')
			*dst++ = '\\';
		*dst++ = *src;
	}
	*dst = '\0';
}

/* The lines of the list. */
static void flag_list(unsigned flags, char *buf, size_t size)
{
	size_t used = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(flag_names); i++)
		if (flags & flag_names[i].flag && used < size)
			used += (size_t)snprintf(buf + used, size - used, "%s\n\t\t\"%s\"", used ? "," : "",
						 flag_names[i].name);
}

/* Between FeatureFlags and LongNameMax. */
static void fido2_text(const struct gcfs_fido2 *fido2, char *buf, size_t size)
{
	char id[1400], salt[100];

	buf[0] = '\0';
	if (!fido2->present)
		return;
	base64_encode(BASE64_STD, fido2->credential_id, fido2->credential_id_size, id);
	base64_encode(BASE64_STD, fido2->hmac_salt, fido2->hmac_salt_size, salt);
	snprintf(buf, size,
		 ",\n\t\"FIDO2\": {\n\t\t\"CredentialID\": \"%s\",\n\t\t\"HMACSalt\": \"%s\"%s%s\n\t}", id,
		 salt, fido2->assert_options[0] ? ",\n\t\t\"AssertOptions\": " : "", fido2->assert_options);
}

int gcfs_config_format(const struct gcfs_config *cfg, char **ret_text, size_t *ret_size)
{
	char creator[2 * sizeof(cfg->creator)], key[100], salt[350], flags[300], long_name_max[40] = "",
										 fido2[2100];
	char *text;
	int n;

	escape_string(cfg->creator, creator);
	base64_encode(BASE64_STD, cfg->encrypted_key, cfg->encrypted_key_size, key);
	base64_encode(BASE64_STD, cfg->salt, cfg->salt_size, salt);
	flag_list(cfg->flags, flags, sizeof(flags));
	fido2_text(&cfg->fido2, fido2, sizeof(fido2));
	if (cfg->long_name_max)
		snprintf(long_name_max, sizeof(long_name_max), ",\n\t\"LongNameMax\": %u",
			 cfg->long_name_max);
	n = asprintf(&text,
		     "{\n\t\"Creator\": \"%s\",\n\t\"EncryptedKey\": \"%s\",\n\t\"ScryptObject\": {\n"
		     "\t\t\"Salt\": \"%s\",\n\t\t\"N\": %" PRIu64 ",\n\t\t\"R\": %" PRIu32
		     ",\n\t\t\"P\": %" PRIu32 ",\n\t\t\"KeyLen\": %d\n\t},\n"
		     "\t\"Version\": 2,\n\t\"FeatureFlags\": [%s\n\t]%s%s\n}\n",
		     creator, key, salt, cfg->scrypt_n, cfg->scrypt_r, cfg->scrypt_p, KEK_SIZE, flags, fido2,
		     long_name_max);
	if (n < 0)
		return -ENOMEM;
	*ret_text = text;
	*ret_size = (size_t)n;
	return 0;
}

int gcfs_key_identifier(const struct secret *master, char ret[33])
{
	autosecret struct secret *id = NULL;
	int r = hkdf_sha256(master, "ckrfs key identifier", 16, &id);

	if (r < 0)
		return r;
	hex_encode(secret_data(id), secret_size(id), ret);
	return 0;
}
