/* SPDX-License-Identifier: MIT */
/*
 * Contents from a stranger's file, symbolic link and attribute, for every cipher. What does not authenticate
 * gives nothing, what does is bound to its file, and what we encrypt ourselves comes back unless a bit of it
 * changes. Of the input, the first byte chooses the cipher, the second where the first block is, or which bit
 * changes; the rest is the file, the text and the value.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "gcfs_content.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 3 * (GCFS_BLOCK + GCFS_OVERHEAD_MAX), ROOM = INPUT_MAX + 4 * GCFS_OVERHEAD_MAX };

static void must(int ok)
{
	if (!ok)
		abort();
}

/* For the master key 00..1f. */
static struct gcfs_content *content_for(uint8_t choice)
{
	static const unsigned flags[] = {
		GCFS_HKDF | GCFS_GCMIV128 | GCFS_RAW64, GCFS_HKDF | GCFS_GCMIV128 | GCFS_AESSIV | GCFS_RAW64,
		GCFS_HKDF | GCFS_XCHACHA, GCFS_GCMIV128, GCFS_GCMIV128 | GCFS_AESSIV};
	static struct gcfs_content *cache[5];
	struct gcfs_content **c = &cache[choice % 5];
	struct secret *master = NULL;

	if (*c)
		return *c;
	must(secret_new(GCFS_MASTER_KEY_SIZE, &master) == 0);
	for (int i = 0; i < GCFS_MASTER_KEY_SIZE; i++)
		secret_data(master)[i] = (uint8_t)i;
	must(gcfs_content_new(master, flags[choice % 5], c) == 0);
	secret_free(master);
	return *c;
}

static int is_zero(const uint8_t *p, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (p[i])
			return 0;
	return 1;
}

static void check_file(struct gcfs_content *c, uint64_t first, const uint8_t *data, size_t size)
{
	static uint8_t plain[ROOM];
	uint8_t id[GCFS_FILE_ID];
	size_t n = 0, again = 0;
	uint64_t bad = 0;
	int r;

	if (size < GCFS_HEADER || gcfs_header_parse(data, id) < 0)
		return;
	must(!is_zero(id, sizeof(id)));
	memset(plain, 0xee, sizeof(plain));
	r = gcfs_decrypt_blocks(c, id, first, data + GCFS_HEADER, size - GCFS_HEADER, plain, &n, &bad);
	must(r == 0 || r == -EBADMSG);
	must(n <= size);
	if (r == 0)
		must(n == gcfs_plain_size(c, size));
	else
		must(n % GCFS_BLOCK == 0 && bad == first + n / GCFS_BLOCK);
	/* Behind what is good there is nothing, or what was there before. */
	for (size_t i = n; i < sizeof(plain); i++)
		must(plain[i] == 0 || plain[i] == 0xee);
	if (r < 0)
		return;
	/* What is good in one file is not in another, but for holes. */
	id[0] ^= 1;
	if (gcfs_decrypt_blocks(c, id, first, data + GCFS_HEADER, size - GCFS_HEADER, plain, &again, &bad) ==
	    0)
		must(is_zero(plain, again));
	must(again <= n && is_zero(plain, again));
}

static void check_value(struct gcfs_content *c, const uint8_t *data, size_t size)
{
	autofree uint8_t *plain = NULL;
	autofree char *text = strndup((const char *)data, size), *target = NULL;
	size_t n = 0;

	must(text != NULL);
	if (gcfs_value_decrypt(c, data, size, &plain, &n) == 0)
		must(plain != NULL && (size == 0 ? n == 0 : n < size));
	else
		must(plain == NULL);
	if (gcfs_symlink_decrypt(c, text, &target) == 0)
		must(strlen(target) > 0 && strlen(target) < strlen(text));
	else
		must(target == NULL);
}

/* Our own blocks, and with one bit changed. */
static void check_round_trip(struct gcfs_content *c, uint8_t which, const uint8_t *data, size_t size)
{
	static const uint8_t id[GCFS_FILE_ID] = {7};
	static uint8_t cipher[ROOM], plain[ROOM];
	size_t cipher_size = 0, n = 0, at;
	uint64_t bad, want;

	if (!size)
		return;
	must(gcfs_encrypt_blocks(c, id, which, data, size, cipher, &cipher_size) == 0);
	must(gcfs_cipher_size(c, size, &want) == 0 && cipher_size == want - GCFS_HEADER);
	must(gcfs_decrypt_blocks(c, id, which, cipher, cipher_size, plain, &n, &bad) == 0);
	must(n == size && memcmp(plain, data, size) == 0);
	at = (size_t)which * 37 % cipher_size;
	cipher[at] ^= (uint8_t)(1 << which % 8);
	must(gcfs_decrypt_blocks(c, id, which, cipher, cipher_size, plain, &n, &bad) == -EBADMSG);
	must(bad == which + at / (GCFS_BLOCK + gcfs_overhead(c)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gcfs_content *c;

	if (size < 2 || size > INPUT_MAX)
		return 0;
	c = content_for(data[0]);
	check_file(c, data[1], data + 2, size - 2);
	check_value(c, data + 2, size - 2);
	check_round_trip(c, data[1], data + 2, size - 2);
	return 0;
}
