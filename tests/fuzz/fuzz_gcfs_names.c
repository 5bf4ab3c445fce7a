/* SPDX-License-Identifier: MIT */
/*
 * Names from a stranger's directory. A text that decrypts must be the only text of its name: encrypting it
 * again gives the same. The first byte of the input chooses the flags, the rest is the text; it is also taken
 * as a plaintext name, since a text that decrypts is rarely hit upon.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gcfs_names.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t iv[GCFS_IV_SIZE] = {0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
					 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf};

static void must(int ok)
{
	if (!ok)
		abort();
}

/* The highest choices: names in clear. */
static bool is_plain(uint8_t choice)
{
	return choice >= 0xf8;
}

/* With and without each of HKDF, Raw64 and DirIV, for the master key 00..1f. */
static struct gcfs_names *names_for(uint8_t choice)
{
	static const unsigned flags[] = {GCFS_HKDF, GCFS_RAW64, GCFS_DIRIV};
	static struct gcfs_names *cache[16];
	struct gcfs_names **n = &cache[choice % 8 + (is_plain(choice) ? 8 : 0)];
	struct secret *master = NULL;
	unsigned chosen = 0;

	if (*n)
		return *n;
	for (int i = 0; i < 3; i++)
		if (choice % 8 & 1 << i)
			chosen |= flags[i];
	if (is_plain(choice))
		chosen = (chosen & GCFS_HKDF) | GCFS_PLAINTEXT_NAMES;
	must(secret_new(GCFS_MASTER_KEY_SIZE, &master) == 0);
	for (int i = 0; i < GCFS_MASTER_KEY_SIZE; i++)
		secret_data(master)[i] = (uint8_t)i;
	must(gcfs_names_new(master, chosen, 0, n) == 0);
	secret_free(master);
	return *n;
}

static void check_name(struct gcfs_names *n, const char *text)
{
	char name[NAME_MAX + 1], again[GCFS_NAME_TEXT_MAX + 1];

	if (gcfs_name_decrypt(n, iv, text, name) == 0) {
		must(gcfs_name_encrypt(n, iv, name, again) == 0);
		must(strcmp(text, again) == 0);
	}
	if (gcfs_name_encrypt(n, iv, text, again) == 0) {
		must(gcfs_name_decrypt(n, iv, again, name) == 0);
		must(strcmp(text, name) == 0);
	}
}

static void check_xattr(struct gcfs_names *n, const char *text)
{
	char name[GCFS_XATTR_NAME_MAX + 1], disk[GCFS_XATTR_NAME_MAX + 1];

	if (gcfs_xattr_name_decrypt(n, text, name) == 0 && strlen(name) <= 175) {
		must(gcfs_xattr_name_encrypt(n, name, disk) == 0);
		must(strcmp(text, disk) == 0);
	}
	if (gcfs_xattr_name_encrypt(n, text, disk) == 0) {
		must(gcfs_xattr_name_decrypt(n, disk, name) == 0);
		must(strcmp(text, name) == 0);
	}
}

static void check_kind(struct gcfs_names *n, const char *text)
{
	char name[NAME_MAX + 1], disk[NAME_MAX + 1];

	/* What belongs to the format can never be the text of a name. */
	if (gcfs_name_kind(n, text, true) != GCFS_NAME_ORDINARY)
		must(gcfs_name_decrypt(n, iv, text, name) < 0);
	if (gcfs_name_kind(n, text, false) != GCFS_NAME_ORDINARY)
		must(gcfs_name_kind(n, text, true) == gcfs_name_kind(n, text, false));
	must(gcfs_name_hash(n, text, disk) == 0);
	must(gcfs_name_kind(n, disk, false) == GCFS_NAME_LONG);
	must(gcfs_name_is_long(n, text) == (strlen(text) > 255));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gcfs_names *n;
	char *text;

	if (size == 0 || size > 1000)
		return 0;
	n = names_for(data[0]);
	text = strndup((const char *)data + 1, size - 1);
	must(text != NULL);
	check_name(n, text);
	check_xattr(n, text);
	if (!is_plain(data[0]))
		check_kind(n, text);
	free(text);
	return 0;
}
