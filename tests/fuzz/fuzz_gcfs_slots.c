/* SPDX-License-Identifier: MIT */
/*
 * Key slots from a stranger: parsing must end, what it takes must be within the limits of gcfs_slots.h and
 * survive being written and read again, and a key that fits no slot must be refused.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "crypto.h"
#include "gcfs_slots.h"

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

static void check_limits(const struct gcfs_slots *slots)
{
	must(slots->n <= GCFS_SLOTS_MAX && strlen(slots->volume) == 32);
	for (size_t i = 0; i < slots->n; i++) {
		const struct gcfs_slot *slot = &slots->slots[i];

		must(gcfs_slot_name_valid(slot->name) && slot->created >= 0);
		must(gcfs_slots_find(slots, slot->name) == slot);
		must(slot->passphrase ? slot->scrypt_n >= 1024 && slot->scrypt_n <= 1 << 28
				      : !slot->scrypt_n);
	}
}

static void check_rewrite(const struct gcfs_slots *slots)
{
	autofree char *text = NULL;
	struct gcfs_slots again;
	size_t size;

	if (gcfs_slots_format(slots, &text, &size) < 0)
		return;
	must(size <= GCFS_SLOTS_SIZE_MAX);
	must(gcfs_slots_parse(text, size, &again, NULL) == 0);
	must(again.n == slots->n && strcmp(again.volume, slots->volume) == 0);
	must(memcmp(again.slots, slots->slots, slots->n * sizeof(*slots->slots)) == 0);
}

/* max_memory 0: no scrypt. */
static void check_unwrap(const struct gcfs_slots *slots)
{
	autosecret struct secret *key = NULL, *master = NULL;
	const struct gcfs_slot *slot;
	struct error err = ERROR_NONE;

	if (secret_new(GCFS_SLOT_KEY, &key) < 0)
		return;
	must(gcfs_slots_unwrap(slots, key, false, 0, &master, &slot, &err) < 0 && err.text[0]);
	must(gcfs_slots_unwrap(slots, key, true, 0, &master, &slot, &err) < 0 && err.text[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error err = ERROR_NONE;
	struct gcfs_slots slots;
	int r = gcfs_slots_parse((const char *)data, size, &slots, &err);

	must(r <= 0);
	if (r < 0) {
		must(err.code == r && err.text[0] && err.status != EXIT_STATUS_DONE);
		return 0;
	}
	check_limits(&slots);
	check_rewrite(&slots);
	check_unwrap(&slots);
	return 0;
}
