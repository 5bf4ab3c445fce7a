/* SPDX-License-Identifier: MIT */
/*
 * Key slots: more keys of a gocryptfs volume, each wrapping the same master key, in a file of our own beside
 * gocryptfs.conf. Its name is one that gocryptfs takes for the text of a long name whose object is missing,
 * and never shows. The format is in ckrfs-volumes(7), KEY SLOTS. No file access: buffers in, buffers out.
 * Life functions: one thread, may take seconds (scrypt).
 */
#ifndef CKRFS_GCFS_SLOTS_H
#define CKRFS_GCFS_SLOTS_H

#include "error.h"
#include "secret.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GCFS_SLOTS_FILE "gocryptfs.longname.ckrfs-keys.name"
#define GCFS_SLOTS_TMP "gocryptfs.longname.ckrfs-keys.tmp.name"

enum {
	GCFS_SLOTS_MAX = 32,
	GCFS_SLOTS_SIZE_MAX = 1 << 16,
	GCFS_SLOT_NAME_MAX = 64,
	GCFS_SLOT_SALT = 32,
	GCFS_SLOT_WRAPPED = 12 + 32 + 16, /* IV, master key, tag */
	GCFS_SLOT_KEY = 32,               /* bytes of a key that is no passphrase */
	GCFS_SLOTS_WORK = 4,              /* all trials together: so many times max_memory */
};

struct gcfs_slot {
	char name[GCFS_SLOT_NAME_MAX + 1];
	bool passphrase;   /* or a key */
	uint64_t scrypt_n; /* passphrase only; r is 8, p is 1 */
	int64_t created;   /* seconds since 1970 */
	uint8_t salt[GCFS_SLOT_SALT];
	uint8_t wrapped[GCFS_SLOT_WRAPPED];
};

struct gcfs_slots {
	char volume[33]; /* gcfs_key_identifier() of the master key */
	size_t n;
	struct gcfs_slot slots[GCFS_SLOTS_MAX];
};

/* 1 to 64 of [A-Za-z0-9._-]. */
bool gcfs_slot_name_valid(const char *name);

/* Parses and checks; buf needs no NUL. Status EXIT_STATUS_FAILED, saying what and why.
 * EXIT_STATUS_UNSUPPORTED for another version of the format. Depth, size and numbers are bounded. */
int gcfs_slots_parse(const char *buf, size_t size, struct gcfs_slots *ret, struct error *err);

/* The text, malloc'ed. -ENOMEM */
int gcfs_slots_format(const struct gcfs_slots *slots, char **ret_text, size_t *ret_size);

/* The slot of that name; NULL. */
const struct gcfs_slot *gcfs_slots_find(const struct gcfs_slots *slots, const char *name);

/*
 * Wraps master with key in a new slot. slots->volume must be master's identifier. log_n: scrypt cost of a
 * passphrase, 10 to 28. -EEXIST, -ENOSPC (all slots taken), -EINVAL (not the size of a key, the name).
 */
int gcfs_slots_add(struct gcfs_slots *slots, const char *name, const struct secret *key, bool passphrase,
		   unsigned log_n, int64_t created, const struct secret *master, uint64_t max_memory,
		   struct error *err);

/* -ENOENT */
int gcfs_slots_remove(struct gcfs_slots *slots, const char *name, struct error *err);

/*
 * Tries key against all slots of its kind; *ret_slot is the one that opened. EXIT_STATUS_WRONG_KEY
 * (-EKEYREJECTED) when none does. There is no cheaper trial than scrypt itself: so all trials together are
 * bounded by GCFS_SLOTS_WORK times max_memory, and no single one takes more than max_memory; when slots were
 * left out for that, it is -ENOMEM with EXIT_STATUS_UNSUPPORTED.
 */
int gcfs_slots_unwrap(const struct gcfs_slots *slots, const struct secret *key, bool passphrase,
		      uint64_t max_memory, struct secret **ret_master, const struct gcfs_slot **ret_slot,
		      struct error *err);

/* Identifier of a slot, for people: hex of the first 16 bytes of SHA-256 over what the slot says of itself
 * and the wrapped key. Tells nothing about the key. */
int gcfs_slot_identifier(const struct gcfs_slots *slots, const struct gcfs_slot *slot, char ret[33]);

#endif
