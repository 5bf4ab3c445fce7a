/* SPDX-License-Identifier: MIT */
/*
 * The keys of a gocryptfs volume: the passphrase of gocryptfs.conf, and the slots beside it (gcfs_slots.h).
 * Opening with a slot is part of mounting; changing is for `ckrfs key`, and may be done while the volume is
 * mounted: a mount reads both files once, at its beginning. Life functions: one thread, may take seconds.
 */
#ifndef CKRFS_FORMAT_GOCRYPTFS_KEYS_H
#define CKRFS_FORMAT_GOCRYPTFS_KEYS_H

#include "error.h"
#include "gcfs_slots.h"
#include "keysource.h"
#include <stdbool.h>
#include <stdint.h>

struct format;
struct volume_keys;

enum volume_keys_way { VOLUME_KEYS_CONFIG, VOLUME_KEYS_SLOT, VOLUME_KEYS_MASTER };

/*
 * Opens the keys of the volume in root_fd (O_RDONLY, borrowed). store_init_proc() and crypto_init() were
 * called. write: takes the lock of those who change keys, flock(2) on gocryptfs.conf; -EBUSY with
 * EXIT_STATUS_BUSY when another has it for a minute. Without it nothing can be changed.
 */
int volume_keys_open(int root_fd, uint64_t scrypt_memory, bool write, struct volume_keys **ret,
		     struct error *err);
void volume_keys_free(struct volume_keys *keys);

/* Reads the slots; none where there is no file. Needs no key, and believes what the file says. */
int volume_keys_slots(struct volume_keys *keys, struct gcfs_slots *ret, struct error *err);
/* The same for a volume that is open as a format. */
int volume_keys_slots_of(const struct format *volume, struct gcfs_slots *ret, struct error *err);

/* Opens the volume with key, as a mount would; takes its bytes. Needed before anything is changed. 12 */
int volume_keys_unlock(struct volume_keys *keys, struct key *key, struct error *err);
/* After that: which way in it was, and the slot's name ("" for another way). */
enum volume_keys_way volume_keys_way(const struct volume_keys *keys, const char **ret_slot);
const char *volume_keys_identifier(const struct volume_keys *keys);
/* Was the volume made with a raw key, as far as the key says that was given? The key's digits, or the master
 * key itself, open it whatever passphrase it has. */
bool volume_keys_raw_master(const struct volume_keys *keys);

/*
 * Another passphrase in gocryptfs.conf; log_n 0 keeps the cost. At every moment one valid gocryptfs.conf is
 * there. EXIT_STATUS_UNSUPPORTED for a new key that is no passphrase.
 */
int volume_keys_change(struct volume_keys *keys, const struct key *key, unsigned log_n, struct error *err);

/* One slot more or less. Either the old file or the new one is there. log_n 0: the default. */
int volume_keys_add(struct volume_keys *keys, const char *name, const struct key *key, unsigned log_n,
		    struct error *err);
int volume_keys_remove(struct volume_keys *keys, const char *name, struct error *err);

#endif
