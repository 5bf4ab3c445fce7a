/* SPDX-License-Identifier: MIT */
/*
 * Metadata of the fscrypt tool from a stranger: parsing must end, what it takes must be within the limits of
 * fscrypt_metadata.h and name files by hex digits alone, and must not open by a key that did not make it.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "crypto.h"
#include "fscrypt_metadata.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	must(crypto_init() == 0);
	return 0;
}

static int is_hex(const char *text, size_t length)
{
	return strlen(text) == length && strspn(text, "0123456789abcdef") == length;
}

/* Its HMAC could not be right for this key but by finding a collision. */
static void check_wrapped(const struct fscrypt_wrapped *w, size_t size)
{
	autosecret struct secret *key = NULL, *out = NULL;

	must(w->size == size);
	if (secret_new(32, &key) < 0)
		return;
	must(fscrypt_unwrap(key, w, &out) == -EKEYREJECTED && !out);
}

static void check_protector(const uint8_t *data, size_t size)
{
	struct fscrypt_protector p;
	int r = fscrypt_protector_parse(data, size, &p);

	must(r == 0 || r == -EBADMSG);
	if (r < 0)
		return;
	must(is_hex(p.descriptor, FSCRYPT_DESCRIPTOR_LENGTH));
	must(p.source >= FSCRYPT_SOURCE_LOGIN && p.source <= FSCRYPT_SOURCE_RAW);
	if (p.source != FSCRYPT_SOURCE_RAW)
		must(p.cost.time && p.cost.lanes && p.cost.lanes <= 255 &&
		     p.cost.memory_kib >= 8 * p.cost.lanes);
	check_wrapped(&p.key, 32);
}

static void check_policy(const uint8_t *data, size_t size)
{
	autofree struct fscrypt_policy_data *p = calloc(1, sizeof(*p));
	int r = p ? fscrypt_policy_parse(data, size, p) : -EBADMSG;

	must(r == 0 || r == -EBADMSG || r == -E2BIG);
	if (r < 0)
		return;
	must(p->n <= FSCRYPT_PROTECTORS_MAX && (is_hex(p->key_id, 16) || is_hex(p->key_id, 32)));
	for (size_t i = 0; i < p->n; i++) {
		must(is_hex(p->keys[i].protector, FSCRYPT_DESCRIPTOR_LENGTH));
		check_wrapped(&p->keys[i].key, 64);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_protector(data, size);
	check_policy(data, size);
	return 0;
}
