/* SPDX-License-Identifier: MIT */
#include "gcfs_slots.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "crypto.h"
#include "gcfs_config.h"
#include "gcfs_json.h"
#include "util.h"

enum {
	VERSION = 1,
	JSON_DEPTH = 4,
	IV_SIZE = 12,
	LOG_N_MIN = 10,
	LOG_N_MAX = 28,
	SCRYPT_R = 8,
	SCRYPT_P = 1,
	ABOUT_SIZE = 512, /* of what a slot says of itself, as text */
};

#define refuse(err, fmt, ...)                                                                                \
	error_set(err, -EINVAL, EXIT_STATUS_FAILED, GCFS_SLOTS_FILE ": " fmt, ##__VA_ARGS__)

bool gcfs_slot_name_valid(const char *name)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t n = strspn(name, letters);

	return n >= 1 && n <= GCFS_SLOT_NAME_MAX && name[n] == '\0';
}

static const char *kind_word(bool passphrase)
{
	return passphrase ? "passphrase" : "key";
}

/* ---- reading ---- */

/* A member of that type, or NULL with err filled. */
static struct json_object *member(struct json_object *object, const char *name, enum json_type type,
				  struct error *err)
{
	struct json_object *value = NULL;

	if (!json_object_object_get_ex(object, name, &value)) {
		refuse(err, "%s is missing", name);
		return NULL;
	}
	if (!json_object_is_type(value, type)) {
		refuse(err, "%s is not of type %s", name, json_type_to_name(type));
		return NULL;
	}
	return value;
}

static int read_number(struct json_object *object, const char *name, uint64_t *ret, struct error *err)
{
	struct json_object *value = member(object, name, json_type_int, err);

	if (!value)
		return -EINVAL;
	if (json_object_get_int64(value) < 0)
		return refuse(err, "%s is negative", name);
	*ret = (uint64_t)json_object_get_int64(value);
	return 0;
}

/* The string is inside the JSON object; no NUL in it. */
static int read_string(struct json_object *object, const char *name, const char **ret, struct error *err)
{
	struct json_object *value = member(object, name, json_type_string, err);
	const char *text;

	if (!value)
		return -EINVAL;
	text = json_object_get_string(value);
	if (strlen(text) != (size_t)json_object_get_string_len(value))
		return refuse(err, "%s holds a NUL", name);
	*ret = text;
	return 0;
}

static int read_bytes(struct json_object *object, const char *name, uint8_t *ret, size_t size,
		      struct error *err)
{
	uint8_t bytes[GCFS_SLOT_WRAPPED];
	const char *text;
	ssize_t n;
	int r = read_string(object, name, &text, err);

	if (r < 0)
		return r;
	n = base64_decode(BASE64_STD, text, strlen(text), bytes, sizeof(bytes));
	if (n != (ssize_t)size)
		return refuse(err, "%s is not %zu bytes in base64", name, size);
	memcpy(ret, bytes, size);
	return 0;
}

static int read_cost(struct json_object *object, struct gcfs_slot *slot, struct error *err)
{
	uint64_t n = 0;
	int r = read_number(object, "N", &n, err);

	if (r < 0)
		return r;
	if (n < UINT64_C(1) << LOG_N_MIN || n > UINT64_C(1) << LOG_N_MAX || (n & (n - 1)))
		return refuse(err, "N is %" PRIu64 ", not a power of two from 2^%d to 2^%d", n, LOG_N_MIN,
			      LOG_N_MAX);
	slot->scrypt_n = n;
	return 0;
}

static int read_slot(struct json_object *object, struct gcfs_slots *slots, struct error *err)
{
	struct gcfs_slot *slot = &slots->slots[slots->n];
	const char *name, *kind;
	uint64_t created = 0;
	int r;

	if (!json_object_is_type(object, json_type_object))
		return refuse(err, "Slots holds something that is not an object");
	r = read_string(object, "Name", &name, err);
	if (r == 0 && (!gcfs_slot_name_valid(name) || gcfs_slots_find(slots, name)))
		r = refuse(err, "the name of a slot is not valid, or there twice");
	if (r == 0)
		r = read_string(object, "Kind", &kind, err);
	if (r < 0)
		return r;
	strcpy(slot->name, name);
	slot->passphrase = strcmp(kind, kind_word(true)) == 0;
	if (!slot->passphrase && strcmp(kind, kind_word(false)) != 0)
		return refuse(err, "Kind is neither \"passphrase\" nor \"key\"");
	r = read_number(object, "Created", &created, err);
	slot->created = (int64_t)created;
	if (r == 0 && slot->passphrase)
		r = read_cost(object, slot, err);
	if (r == 0)
		r = read_bytes(object, "Salt", slot->salt, sizeof(slot->salt), err);
	if (r == 0)
		r = read_bytes(object, "WrappedKey", slot->wrapped, sizeof(slot->wrapped), err);
	if (r == 0)
		slots->n++;
	return r;
}

static int read_top(struct json_object *top, struct gcfs_slots *slots, struct error *err)
{
	struct json_object *list;
	uint64_t version;
	const char *volume;
	int r = read_number(top, "Version", &version, err);

	if (r < 0)
		return r;
	if (version != VERSION)
		return error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED,
				 GCFS_SLOTS_FILE ": Version is %" PRIu64 "; this version of ckrfs knows %d",
				 version, VERSION);
	r = read_string(top, "Volume", &volume, err);
	if (r < 0)
		return r;
	if (strlen(volume) != 32 || strspn(volume, "0123456789abcdef") != 32)
		return refuse(err, "Volume is not a key identifier");
	strcpy(slots->volume, volume);
	list = member(top, "Slots", json_type_array, err);
	if (!list)
		return -EINVAL;
	if (json_object_array_length(list) > GCFS_SLOTS_MAX)
		return refuse(err, "has more than %d slots", GCFS_SLOTS_MAX);
	for (size_t i = 0; r == 0 && i < json_object_array_length(list); i++)
		r = read_slot(json_object_array_get_idx(list, i), slots, err);
	return r;
}

int gcfs_slots_parse(const char *buf, size_t size, struct gcfs_slots *ret, struct error *err)
{
	struct gcfs_slots slots = {0};
	struct json_object *top = NULL;
	int r = gcfs_json_read(GCFS_SLOTS_FILE, buf, size, GCFS_SLOTS_SIZE_MAX, JSON_DEPTH, &top, err);

	if (r < 0)
		return r;
	r = read_top(top, &slots, err);
	json_object_put(top);
	if (r == 0)
		*ret = slots;
	return r;
}

/* ---- writing ---- */

static int print_slot(const struct gcfs_slot *slot, FILE *to)
{
	char salt[(GCFS_SLOT_SALT + 2) / 3 * 4 + 1], wrapped[(GCFS_SLOT_WRAPPED + 2) / 3 * 4 + 1];

	base64_encode(BASE64_STD, slot->salt, sizeof(slot->salt), salt);
	base64_encode(BASE64_STD, slot->wrapped, sizeof(slot->wrapped), wrapped);
	fprintf(to,
		"\t\t{\n\t\t\t\"Name\": \"%s\",\n\t\t\t\"Kind\": \"%s\",\n\t\t\t\"Created\": %" PRId64 ",\n",
		slot->name, kind_word(slot->passphrase), slot->created);
	if (slot->passphrase)
		fprintf(to, "\t\t\t\"N\": %" PRIu64 ",\n", slot->scrypt_n);
	return fprintf(to, "\t\t\t\"Salt\": \"%s\",\n\t\t\t\"WrappedKey\": \"%s\"\n\t\t}", salt, wrapped);
}

int gcfs_slots_format(const struct gcfs_slots *slots, char **ret_text, size_t *ret_size)
{
	char *text = NULL;
	size_t size = 0;
	FILE *to = open_memstream(&text, &size);

	if (!to)
		return -ENOMEM;
	fprintf(to, "{\n\t\"Version\": %d,\n\t\"Volume\": \"%s\",\n\t\"Slots\": [", VERSION, slots->volume);
	for (size_t i = 0; i < slots->n; i++) {
		fputs(i ? ",\n" : "\n", to);
		print_slot(&slots->slots[i], to);
	}
	fputs(slots->n ? "\n\t]\n}\n" : "]\n}\n", to);
	if (fclose(to) != 0) {
		free(text);
		return -ENOMEM;
	}
	*ret_text = text;
	*ret_size = size;
	return 0;
}

/* ---- wrapping ---- */

/* What a slot says of itself: its wrapped key is bound to every word of it (AAD). */
static int about_slot(const struct gcfs_slots *slots, const struct gcfs_slot *slot, char ret[ABOUT_SIZE])
{
	char salt[2 * GCFS_SLOT_SALT + 1];

	hex_encode(slot->salt, sizeof(slot->salt), salt);
	return snprintf(
		ret, ABOUT_SIZE, "ckrfs key slot %d\n%s\n%s\n%s\n%" PRIu64 " %d %d\n%s\n%" PRId64 "\n",
		VERSION, slots->volume, slot->name, kind_word(slot->passphrase), slot->scrypt_n,
		slot->passphrase ? SCRYPT_R : 0, slot->passphrase ? SCRYPT_P : 0, salt, slot->created);
}

/* A key needs no stretching: HKDF with the salt in its info gives each slot a cipher key of its own. */
static int slot_cipher(const struct gcfs_slot *slot, const struct secret *key, uint64_t max_memory,
		       struct aead **ret)
{
	autosecret struct secret *stretched = NULL, *kek = NULL;
	char salt[2 * GCFS_SLOT_SALT + 1], info[sizeof("ckrfs key slot ") + sizeof(salt)];
	int r = 0;

	hex_encode(slot->salt, sizeof(slot->salt), salt);
	snprintf(info, sizeof(info), "ckrfs key slot %s", salt);
	if (slot->passphrase)
		r = scrypt_derive(key, slot->salt, sizeof(slot->salt), slot->scrypt_n, SCRYPT_R, SCRYPT_P,
				  max_memory, &stretched);
	if (r == 0)
		r = hkdf_sha256(stretched ? stretched : key, info, GCFS_SLOT_KEY, &kek);
	return r < 0 ? r : aead_new(AEAD_AES_256_GCM, kek, IV_SIZE, ret);
}

static int slot_run(const struct gcfs_slots *slots, struct gcfs_slot *slot, const struct secret *key,
		    bool wrap, uint64_t max_memory, const struct secret *master)
{
	uint8_t *iv = slot->wrapped, *text = iv + IV_SIZE, *tag = text + GCFS_MASTER_KEY_SIZE;
	struct aead *aead = NULL;
	struct aead_ctx *ctx;
	char about[ABOUT_SIZE];
	size_t n = (size_t)about_slot(slots, slot, about);
	int r = slot_cipher(slot, key, max_memory, &aead);

	if (r < 0)
		return r;
	ctx = aead_get(aead);
	if (!ctx)
		r = -ENOMEM;
	else if (wrap)
		r = aead_seal(ctx, iv, about, n, secret_data(master), GCFS_MASTER_KEY_SIZE, text, tag);
	else
		r = aead_open(ctx, iv, about, n, text, GCFS_MASTER_KEY_SIZE, tag, secret_data(master));
	if (ctx)
		aead_put(aead, ctx);
	aead_free(aead);
	return r;
}

const struct gcfs_slot *gcfs_slots_find(const struct gcfs_slots *slots, const char *name)
{
	for (size_t i = 0; i < slots->n; i++)
		if (strcmp(slots->slots[i].name, name) == 0)
			return &slots->slots[i];
	return NULL;
}

static int check_add(const struct gcfs_slots *slots, const char *name, const struct secret *key,
		     bool passphrase, unsigned log_n, struct error *err)
{
	if (!gcfs_slot_name_valid(name))
		return error_set(err, -EINVAL, EXIT_STATUS_USAGE,
				 "\"%s\" is not a name: 1 to %d letters, digits, \".\", \"_\" or \"-\"", name,
				 GCFS_SLOT_NAME_MAX);
	if (gcfs_slots_find(slots, name))
		return error_set(err, -EEXIST, EXIT_STATUS_FAILED, "there is a key \"%s\" already", name);
	if (slots->n == GCFS_SLOTS_MAX)
		return error_set(err, -ENOSPC, EXIT_STATUS_FAILED, "all %d slots are taken", GCFS_SLOTS_MAX);
	if (!passphrase && secret_size(key) != GCFS_SLOT_KEY)
		return error_set(err, -EINVAL, EXIT_STATUS_WRONG_KEY,
				 "a key has %d bytes, not %zu (a passphrase needs ?fmt=pass)", GCFS_SLOT_KEY,
				 secret_size(key));
	if (passphrase && (log_n < LOG_N_MIN || log_n > LOG_N_MAX))
		return error_set(err, -EINVAL, EXIT_STATUS_FAILED, "scrypt cost is 2^%u, not 2^%d to 2^%d",
				 log_n, LOG_N_MIN, LOG_N_MAX);
	return 0;
}

int gcfs_slots_add(struct gcfs_slots *slots, const char *name, const struct secret *key, bool passphrase,
		   unsigned log_n, int64_t created, const struct secret *master, uint64_t max_memory,
		   struct error *err)
{
	struct gcfs_slot slot = {.passphrase = passphrase, .created = created};
	int r = check_add(slots, name, key, passphrase, log_n, err);

	if (r < 0)
		return r;
	strcpy(slot.name, name);
	if (passphrase)
		slot.scrypt_n = UINT64_C(1) << log_n;
	r = crypto_random(slot.salt, sizeof(slot.salt));
	if (r == 0)
		r = crypto_random(slot.wrapped, IV_SIZE);
	if (r == 0)
		r = slot_run(slots, &slot, key, true, max_memory, master);
	if (r == -ENOMEM && passphrase)
		return error_set(err, r, EXIT_STATUS_UNSUPPORTED,
				 "scrypt needs %" PRIu64 " bytes of memory for this cost; the option "
				 "scrypt-memory allows %" PRIu64,
				 128 * SCRYPT_R * slot.scrypt_n, max_memory);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot encrypt the master key");
	slots->slots[slots->n++] = slot;
	return 0;
}

int gcfs_slots_remove(struct gcfs_slots *slots, const char *name, struct error *err)
{
	const struct gcfs_slot *slot = gcfs_slots_find(slots, name);
	size_t i;

	if (!slot)
		return error_set(err, -ENOENT, EXIT_STATUS_FAILED, "there is no key \"%s\"", name);
	i = (size_t)(slot - slots->slots);
	slots->n--;
	memmove(&slots->slots[i], &slots->slots[i + 1], (slots->n - i) * sizeof(*slot));
	memset(&slots->slots[slots->n], 0, sizeof(*slot));
	return 0;
}

/* Takes its memory from *budget; false: the slot is left out. */
static bool may_try(const struct gcfs_slot *slot, uint64_t max_memory, uint64_t *budget)
{
	uint64_t need = 128 * SCRYPT_R * slot->scrypt_n; /* as crypto.c counts it, N is 2^28 at most */

	if (!slot->passphrase)
		return true;
	if (need > max_memory || need > *budget)
		return false;
	*budget -= need;
	return true;
}

/* A master key whose identifier is another one is none of this file's. */
static int check_identifier(const struct gcfs_slots *slots, const struct secret *master)
{
	char identifier[33];
	int r = gcfs_key_identifier(master, identifier);

	return r < 0 ? r : strcmp(identifier, slots->volume) == 0 ? 0 : -EBADMSG;
}

int gcfs_slots_unwrap(const struct gcfs_slots *slots, const struct secret *key, bool passphrase,
		      uint64_t max_memory, struct secret **ret_master, const struct gcfs_slot **ret_slot,
		      struct error *err)
{
	autosecret struct secret *master = NULL;
	uint64_t budget =
		max_memory > UINT64_MAX / GCFS_SLOTS_WORK ? UINT64_MAX : GCFS_SLOTS_WORK * max_memory;
	unsigned left_out = 0;
	int r = secret_new(GCFS_MASTER_KEY_SIZE, &master);

	for (size_t i = 0; r == 0 && i < slots->n; i++) {
		struct gcfs_slot slot = slots->slots[i]; /* slot_run() could write */

		if (slot.passphrase != passphrase || (!passphrase && secret_size(key) != GCFS_SLOT_KEY))
			continue;
		if (!may_try(&slot, max_memory, &budget)) {
			left_out++;
			continue;
		}
		r = slot_run(slots, &slot, key, false, max_memory, master);
		if (r == 0)
			r = check_identifier(slots, master);
		if (r == 0) {
			*ret_slot = &slots->slots[i];
			*ret_master = steal_ptr(&master);
			return 0;
		}
		r = r == -EBADMSG ? 0 : r;
	}
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot try the key slots");
	if (left_out)
		return error_set(
			err, -ENOMEM, EXIT_STATUS_UNSUPPORTED,
			"wrong passphrase for the slots that were tried; %u were not: scrypt would need "
			"more memory than the option scrypt-memory allows",
			left_out);
	return error_set(err, -EKEYREJECTED, EXIT_STATUS_WRONG_KEY,
			 passphrase ? "wrong passphrase" : "wrong key: no slot takes it");
}

int gcfs_slot_identifier(const struct gcfs_slots *slots, const struct gcfs_slot *slot, char ret[33])
{
	uint8_t text[ABOUT_SIZE + GCFS_SLOT_WRAPPED], hash[32];
	size_t n = (size_t)about_slot(slots, slot, (char *)text);
	int r;

	memcpy(text + n, slot->wrapped, GCFS_SLOT_WRAPPED);
	r = sha256(text, n + GCFS_SLOT_WRAPPED, hash);
	if (r < 0)
		return r;
	hex_encode(hash, 16, ret);
	return 0;
}
