/* SPDX-License-Identifier: MIT */
/* Key slots: a file computed by Python (hashlib, hmac, cryptography) opens, every change of it is refused. */
#include "unit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "crypto.h"
#include "gcfs_slots.h"
#include "util.h"

#define MASTER_ID "f202e88d812529206bc6a75dd985fac7"
#define SALT_A "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define SALT_B "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
#define WRAPPED_A "AAECAwQFBgcICQoLQVznSxe4z5pNqfn9Si3K8iuio0ftnDhwBxk69VGCmRgLJ3knTk+3zjouoEDyuWyv"
#define WRAPPED_B "MjM0NTY3ODk6Ozw9LPO+lXiNTJpjOjUsSmVj3w4GLIlxcZN3ksYpmN0TO5JBWqVyptzN4kkIAoX6K2yX"
#define ID_A "a20aff7f15d4148fc5a33355655d2a1c"
#define ID_B "a64715fb2768cd84dabf7caa0985792b"

#define SLOT(name, kind, created, more, salt, wrapped)                                                       \
	"{\"Name\":" name ",\"Kind\":" kind ",\"Created\":" created more ",\"Salt\":" salt                   \
	",\"WrappedKey\":" wrapped "}"
#define SLOT_A                                                                                               \
	SLOT("\"office\"", "\"passphrase\"", "1700000000", ",\"N\":1024", "\"" SALT_A "\"",                  \
	     "\"" WRAPPED_A "\"")
#define SLOT_B SLOT("\"hsm.1\"", "\"key\"", "1700000001", "", "\"" SALT_B "\"", "\"" WRAPPED_B "\"")
#define FILE_OF(version, volume, slots)                                                                      \
	"{\"Version\":" version ",\"Volume\":" volume ",\"Slots\":[" slots "]}"
#define REAL FILE_OF("1", "\"" MASTER_ID "\"", SLOT_A "," SLOT_B)
#define WITH(slot) FILE_OF("1", "\"" MASTER_ID "\"", slot)

enum { MEMORY = 1 << 20 };

static struct secret *secret_of(const void *data, size_t size)
{
	struct secret *s = NULL;

	assert_int_equal(secret_new_from(data, size, &s), 0);
	return s;
}

static struct secret *counting(uint8_t first)
{
	uint8_t bytes[32];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(first + i);
	return secret_of(bytes, sizeof(bytes));
}

static struct secret *text_secret(const char *text)
{
	return secret_of(text, strlen(text));
}

static void parse_real(struct gcfs_slots *ret)
{
	struct error err = ERROR_NONE;

	assert_int_equal(gcfs_slots_parse(REAL, strlen(REAL), ret, &err), 0);
}

/* The slot that opens, or NULL for a refusal as wrong key. */
static const struct gcfs_slot *opener(const struct gcfs_slots *slots, const struct secret *key,
				      bool passphrase)
{
	autosecret struct secret *master = NULL, *right = counting(0);
	const struct gcfs_slot *slot = NULL;
	struct error err = ERROR_NONE;
	int r = gcfs_slots_unwrap(slots, key, passphrase, 4 * MEMORY, &master, &slot, &err);

	if (r < 0) {
		assert_int_equal(r, -EKEYREJECTED);
		assert_int_equal(err.status, EXIT_STATUS_WRONG_KEY);
		assert_null(master);
		assert_null(slot);
		return NULL;
	}
	assert_true(secret_equal(master, right));
	return slot;
}

static void test_real(void **state)
{
	autosecret struct secret *pass = text_secret("vector-password"), *key = counting(100);
	struct gcfs_slots slots;
	char id[33];

	parse_real(&slots);
	assert_int_equal(slots.n, 2);
	assert_string_equal(opener(&slots, pass, true)->name, "office");
	assert_string_equal(opener(&slots, key, false)->name, "hsm.1");
	assert_int_equal(gcfs_slot_identifier(&slots, &slots.slots[0], id), 0);
	assert_string_equal(id, ID_A);
	assert_int_equal(gcfs_slot_identifier(&slots, &slots.slots[1], id), 0);
	assert_string_equal(id, ID_B);
	/* A passphrase is no key, and the other way round. */
	assert_null(opener(&slots, key, true));
	assert_null(opener(&slots, pass, false));
}

static void test_wrong_key(void **state)
{
	autosecret struct secret *pass = text_secret("vector-Password"), *key = counting(101);
	struct gcfs_slots slots;

	parse_real(&slots);
	assert_null(opener(&slots, pass, true));
	assert_null(opener(&slots, key, false));
}

/* ---- tampering ---- */

static void swap_names(struct gcfs_slots *s)
{
	strcpy(s->slots[0].name, "hsm.1");
	strcpy(s->slots[1].name, "office");
}
static void rename_one(struct gcfs_slots *s)
{
	s->slots[0].name[0] = 'O';
	s->slots[1].name[0] = 'H';
}
static void change_volume(struct gcfs_slots *s)
{
	s->volume[31] = '8';
}
static void change_created(struct gcfs_slots *s)
{
	s->slots[0].created++;
	s->slots[1].created--;
}
static void change_salt(struct gcfs_slots *s)
{
	s->slots[0].salt[31] ^= 1;
	s->slots[1].salt[0] ^= 0x80;
}
static void change_cost(struct gcfs_slots *s)
{
	s->slots[0].scrypt_n *= 2;
	s->slots[1].scrypt_n = 1024;
}
static void swap_kinds(struct gcfs_slots *s)
{
	s->slots[0].passphrase = false;
	s->slots[1].passphrase = true;
	s->slots[1].scrypt_n = 1024;
}
static void swap_wrapped(struct gcfs_slots *s)
{
	uint8_t held[GCFS_SLOT_WRAPPED];

	memcpy(held, s->slots[0].wrapped, sizeof(held));
	memcpy(s->slots[0].wrapped, s->slots[1].wrapped, sizeof(held));
	memcpy(s->slots[1].wrapped, held, sizeof(held));
}

static void test_tampering(void **state)
{
	static void (*const changes[])(struct gcfs_slots * s) = {
		swap_names,  rename_one,  change_volume, change_created,
		change_salt, change_cost, swap_kinds,    swap_wrapped,
	};
	autosecret struct secret *pass = text_secret("vector-password"), *key = counting(100);

	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		struct gcfs_slots slots;

		parse_real(&slots);
		changes[i](&slots);
		assert_null(opener(&slots, pass, true));
		assert_null(opener(&slots, key, false));
	}
}

static void test_every_wrapped_byte(void **state)
{
	autosecret struct secret *key = counting(100);

	for (size_t i = 0; i < GCFS_SLOT_WRAPPED; i++) {
		struct gcfs_slots slots;

		parse_real(&slots);
		slots.slots[1].wrapped[i] ^= 1;
		assert_null(opener(&slots, key, false));
	}
}

/* ---- refusals ---- */

static void test_refused(void **state)
{
	static const char *const files[] = {
		"",
		"{",
		"[]",
		"null",
		"{\"Version\":1}",
		REAL "x",
		"[[[[[[[[[[[[[[[[[[[[[[[[",
		FILE_OF("\"1\"", "\"" MASTER_ID "\"", ""),
		FILE_OF("-1", "\"" MASTER_ID "\"", ""),
		FILE_OF("1", "\"f202\"", ""),
		FILE_OF("1", "\"F202e88d812529206bc6a75dd985fac7\"", ""),
		FILE_OF("1", "\"" MASTER_ID "0\"", ""),
		FILE_OF("1", "7", ""),
		WITH("1"),
		WITH("[[]]"),
		WITH("{}"),
		WITH(SLOT_A "," SLOT_A),
		WITH(SLOT("\"\"", "\"key\"", "1", "", "\"" SALT_B "\"", "\"" WRAPPED_B "\"")),
		WITH(SLOT("\"a/b\"", "\"key\"", "1", "", "\"" SALT_B "\"", "\"" WRAPPED_B "\"")),
		WITH(SLOT("\"a\\u0000\"", "\"key\"", "1", "", "\"" SALT_B "\"", "\"" WRAPPED_B "\"")),
		WITH(SLOT("\"a\"", "\"Key\"", "1", "", "\"" SALT_B "\"", "\"" WRAPPED_B "\"")),
		WITH(SLOT("\"a\"", "\"key\"", "-1", "", "\"" SALT_B "\"", "\"" WRAPPED_B "\"")),
		WITH(SLOT("\"a\"", "\"key\"", "1.5", "", "\"" SALT_B "\"", "\"" WRAPPED_B "\"")),
		WITH(SLOT("\"a\"", "\"key\"", "1", "", "\"\"", "\"" WRAPPED_B "\"")),
		WITH(SLOT("\"a\"", "\"key\"", "1", "", "\"" WRAPPED_B "\"", "\"" WRAPPED_B "\"")),
		WITH(SLOT("\"a\"", "\"key\"", "1", "", "\"" SALT_B "\"", "\"" SALT_B "\"")),
		WITH(SLOT("\"a\"", "\"key\"", "1", "", "\"" SALT_B "\"", "\"" WRAPPED_B "AAAA\"")),
		WITH(SLOT("\"a\"", "\"key\"", "1", "", "\"!\"", "\"" WRAPPED_B "\"")),
		WITH(SLOT("\"a\"", "\"passphrase\"", "1", "", "\"" SALT_B "\"", "\"" WRAPPED_B "\"")),
		WITH(SLOT("\"a\"", "\"passphrase\"", "1", ",\"N\":512", "\"" SALT_B "\"",
			  "\"" WRAPPED_B "\"")),
		WITH(SLOT("\"a\"", "\"passphrase\"", "1", ",\"N\":1025", "\"" SALT_B "\"",
			  "\"" WRAPPED_B "\"")),
		WITH(SLOT("\"a\"", "\"passphrase\"", "1", ",\"N\":536870912", "\"" SALT_B "\"",
			  "\"" WRAPPED_B "\"")),
		WITH(SLOT("\"a\"", "\"passphrase\"", "1", ",\"N\":18446744073709551616", "\"" SALT_B "\"",
			  "\"" WRAPPED_B "\"")),
		/* json-c would take it, other readers would not */
		FILE_OF("1", "'" MASTER_ID "'", ""),
	};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		struct gcfs_slots slots = {.n = 7};
		struct error err = ERROR_NONE;

		assert_int_equal(gcfs_slots_parse(files[i], strlen(files[i]), &slots, &err), -EINVAL);
		assert_int_equal(err.status, EXIT_STATUS_FAILED);
		assert_true(strncmp(err.text, GCFS_SLOTS_FILE, strlen(GCFS_SLOTS_FILE)) == 0);
		assert_int_equal(slots.n, 7);
	}
}

static void test_other_version(void **state)
{
	static const char text[] = FILE_OF("2", "\"" MASTER_ID "\"", "");
	struct error err = ERROR_NONE;
	struct gcfs_slots slots;

	assert_int_equal(gcfs_slots_parse(text, strlen(text), &slots, &err), -EOPNOTSUPP);
	assert_int_equal(err.status, EXIT_STATUS_UNSUPPORTED);
}

static void test_too_large(void **state)
{
	autofree char *text = calloc(1, GCFS_SLOTS_SIZE_MAX + 1);
	struct error err = ERROR_NONE;
	struct gcfs_slots slots;

	assert_non_null(text);
	memset(text, ' ', GCFS_SLOTS_SIZE_MAX + 1);
	assert_int_equal(gcfs_slots_parse(text, GCFS_SLOTS_SIZE_MAX + 1, &slots, &err), -EINVAL);
	assert_non_null(strstr(err.text, "more than the 65536 that are read"));
}

static void test_names(void **state)
{
	char name[GCFS_SLOT_NAME_MAX + 2];

	memset(name, 'a', sizeof(name));
	name[GCFS_SLOT_NAME_MAX + 1] = '\0';
	assert_false(gcfs_slot_name_valid(name));
	name[GCFS_SLOT_NAME_MAX] = '\0';
	assert_true(gcfs_slot_name_valid(name));
	assert_true(gcfs_slot_name_valid("A-z_0.9"));
	assert_false(gcfs_slot_name_valid(""));
	assert_false(gcfs_slot_name_valid("a b"));
	assert_false(gcfs_slot_name_valid("a\n"));
	assert_false(gcfs_slot_name_valid("\xc3\xa4"));
}

/* ---- adding and removing ---- */

static int add(struct gcfs_slots *slots, const char *name, const struct secret *key, bool passphrase,
	       struct error *err)
{
	autosecret struct secret *master = counting(0);

	return gcfs_slots_add(slots, name, key, passphrase, 10, 1700000000, master, MEMORY * 2, err);
}

static void reread(struct gcfs_slots *slots)
{
	autofree char *text = NULL;
	struct gcfs_slots back;
	struct error err = ERROR_NONE;
	size_t size;

	assert_int_equal(gcfs_slots_format(slots, &text, &size), 0);
	assert_int_equal(gcfs_slots_parse(text, size, &back, &err), 0);
	assert_int_equal(back.n, slots->n);
	assert_memory_equal(back.slots, slots->slots, slots->n * sizeof(*slots->slots));
	assert_string_equal(back.volume, slots->volume);
	*slots = back;
}

static void test_add_remove(void **state)
{
	autosecret struct secret *pass = text_secret("x"), *key = counting(7);
	struct gcfs_slots slots = {.volume = MASTER_ID};
	struct error err = ERROR_NONE;

	reread(&slots); /* none */
	assert_int_equal(add(&slots, "one", pass, true, &err), 0);
	assert_int_equal(add(&slots, "two", key, false, &err), 0);
	reread(&slots);
	assert_string_equal(opener(&slots, pass, true)->name, "one");
	assert_string_equal(opener(&slots, key, false)->name, "two");
	assert_int_equal(gcfs_slots_remove(&slots, "three", &err), -ENOENT);
	assert_int_equal(gcfs_slots_remove(&slots, "one", &err), 0);
	reread(&slots);
	assert_null(opener(&slots, pass, true));
	assert_string_equal(opener(&slots, key, false)->name, "two");
	assert_int_equal(gcfs_slots_remove(&slots, "two", &err), 0);
	reread(&slots);
	assert_null(opener(&slots, key, false));
}

static void test_same_key_twice(void **state)
{
	autosecret struct secret *key = counting(7);
	struct gcfs_slots slots = {.volume = MASTER_ID};
	struct error err = ERROR_NONE;

	assert_int_equal(add(&slots, "one", key, false, &err), 0);
	assert_int_equal(add(&slots, "two", key, false, &err), 0);
	assert_memory_not_equal(slots.slots[0].salt, slots.slots[1].salt, GCFS_SLOT_SALT);
	assert_memory_not_equal(slots.slots[0].wrapped, slots.slots[1].wrapped, GCFS_SLOT_WRAPPED);
}

static void test_add_refuses(void **state)
{
	autosecret struct secret *pass = text_secret("x"), *key = counting(7);
	struct gcfs_slots slots = {.volume = MASTER_ID};
	struct error err = ERROR_NONE;
	char name[8];

	assert_int_equal(add(&slots, "a b", key, false, &err), -EINVAL);
	assert_int_equal(add(&slots, "short", pass, false, &err), -EINVAL);
	assert_int_equal(err.status, EXIT_STATUS_WRONG_KEY);
	for (int i = 0; i < GCFS_SLOTS_MAX; i++) {
		snprintf(name, sizeof(name), "k%d", i);
		assert_int_equal(add(&slots, name, key, false, &err), 0);
		assert_int_equal(add(&slots, name, key, false, &err), -EEXIST);
	}
	assert_int_equal(add(&slots, "more", key, false, &err), -ENOSPC);
	assert_int_equal(slots.n, GCFS_SLOTS_MAX);
	reread(&slots);
}

/* A stranger's file asks for no more work than the limits say. */
static void test_work_is_bounded(void **state)
{
	autosecret struct secret *pass = text_secret("x"), *master = NULL;
	const struct gcfs_slot *slot = NULL;
	struct gcfs_slots slots = {.volume = MASTER_ID};
	struct error err = ERROR_NONE;

	assert_int_equal(add(&slots, "last", pass, true, &err), 0);
	slots.n = 6;
	slots.slots[5] = slots.slots[0];
	for (int i = 0; i < 5; i++) {
		slots.slots[i] = slots.slots[5];
		snprintf(slots.slots[i].name, sizeof(slots.slots[i].name), "k%d", i);
		slots.slots[i].scrypt_n = UINT64_C(1) << 28; /* 256 GiB each */
	}
	assert_int_equal(gcfs_slots_unwrap(&slots, pass, true, MEMORY, &master, &slot, &err), 0);
	assert_string_equal(slot->name, "last");
	secret_free(steal_ptr(&master));
	for (int i = 0; i < 5; i++)
		slots.slots[i].scrypt_n = 1024; /* 1 MiB each; four are tried */
	assert_int_equal(gcfs_slots_unwrap(&slots, pass, true, MEMORY, &master, &slot, &err), -ENOMEM);
	assert_int_equal(err.status, EXIT_STATUS_UNSUPPORTED);
	assert_non_null(strstr(err.text, "2 were not"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_real),        cmocka_unit_test(test_wrong_key),
		cmocka_unit_test(test_tampering),   cmocka_unit_test(test_every_wrapped_byte),
		cmocka_unit_test(test_refused),     cmocka_unit_test(test_other_version),
		cmocka_unit_test(test_too_large),   cmocka_unit_test(test_names),
		cmocka_unit_test(test_add_remove),  cmocka_unit_test(test_same_key_twice),
		cmocka_unit_test(test_add_refuses), cmocka_unit_test(test_work_is_bounded),
	};

	if (crypto_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("gcfs_slots", tests, NULL, NULL);
}
