/* SPDX-License-Identifier: MIT */
/*
 * A volume under a new master key: everything is copied through the format into a second directory beside
 * it, compared, and then the two directories change places in one step. docs/design.md, "Rekey". Life
 * functions: one thread, blocking for as long as copying takes. May be killed at any point: the next run of
 * rekey_open() finds out how far it was, and goes on.
 *
 * Order: rekey_open(); rekey_unlock() where rekey_needs_keys(); rekey_run(); rekey_free().
 */
#ifndef CKRFS_REKEY_H
#define CKRFS_REKEY_H

#include "error.h"
#include "keysource.h"
#include <stdbool.h>
#include <stdint.h>

struct rekey;

enum rekey_phase { REKEY_COPYING, REKEY_COMPARING, REKEY_REMOVING };

struct rekey_params {
	const char *source; /* the volume's directory, absolute */
	int lower, format;  /* enum config_lower, enum config_format */
	uint64_t scrypt_memory;
	bool keep_old;   /* the old generation stays as SOURCE.old-DATE */
	bool drop_slots; /* key slots may be lost */
	/* Told often. bytes and files of this phase. May be NULL. */
	void (*progress)(void *ctx, enum rekey_phase phase, uint64_t files, uint64_t bytes);
	void *progress_ctx;
};

enum { REKEY_SLOTS_ROOM = 512 };

struct rekey_result {
	uint64_t files, bytes; /* in the volume; 0 when only an earlier run was finished */
	char old_key[33], new_key[33];
	char kept[256]; /* where the old generation is still, beside the volume; empty if it is gone */
	char dropped[REKEY_SLOTS_ROOM]; /* key slots that were lost, in words */
	bool in_use;                    /* it is there because a read-only mount uses it */
	bool resumed;
};

/* Locks the volume and looks at what an earlier run left. 11 when it is in use by a mount that may write, or
 * by another rekey. Changes nothing. params must stay valid. */
int rekey_open(const struct rekey_params *params, struct rekey **ret, struct error *err);

/* Or is it only the old generation that an earlier run has left to remove? */
bool rekey_needs_keys(const struct rekey *k);

/* Takes the bytes of both keys. fresh->bytes NULL: the same passphrase as before. 12 for a wrong key. */
int rekey_unlock(struct rekey *k, struct key *old, struct key *fresh, struct error *err);

int rekey_run(struct rekey *k, struct rekey_result *ret, struct error *err);

/* Instead of the others: removes what an unfinished run has made. 10 when there is no such thing. */
int rekey_abort(const struct rekey_params *params, struct error *err);

void rekey_free(struct rekey *k);

#endif
