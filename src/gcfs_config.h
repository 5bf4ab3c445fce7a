/* SPDX-License-Identifier: MIT */
/*
 * gocryptfs.conf: reading, checking, writing, and the master key in it. Facts: the gocryptfs v2 format as
 * measured against gocryptfs 2.3 (docs/design.md, "gocryptfs format"). No file access: buffers in, buffers
 * out. Life functions: one thread, may take seconds (scrypt).
 */
#ifndef CKRFS_GCFS_CONFIG_H
#define CKRFS_GCFS_CONFIG_H

#include "error.h"
#include "secret.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	GCFS_MASTER_KEY_SIZE = 32,
	GCFS_CONFIG_MAX = 1 << 20,
	GCFS_PASSPHRASE_MAX = 2048,
	GCFS_FIDO2_SECRET_MIN = 32,
};

enum gcfs_flag {
	GCFS_HKDF = 1 << 0,
	GCFS_GCMIV128 = 1 << 1,
	GCFS_AESSIV = 1 << 2,
	GCFS_XCHACHA = 1 << 3,
	GCFS_PLAINTEXT_NAMES = 1 << 4,
	GCFS_DIRIV = 1 << 5,
	GCFS_EME_NAMES = 1 << 6,
	GCFS_LONG_NAMES = 1 << 7,
	GCFS_LONG_NAME_MAX = 1 << 8,
	GCFS_RAW64 = 1 << 9,
	GCFS_FIDO2 = 1 << 10,
};

/* What a FIDO2 token is asked with. Nothing here is computed with it: it is kept for who asks the token. */
struct gcfs_fido2 {
	bool present;
	uint8_t credential_id[1024];
	size_t credential_id_size;
	uint8_t hmac_salt[64];
	size_t hmac_salt_size;
	char assert_options[512]; /* JSON list of strings; empty: there is none */
};

struct gcfs_config {
	char creator[64];       /* printable, for status only */
	unsigned flags;         /* enum gcfs_flag */
	unsigned long_name_max; /* 0: the default, 255 */
	uint8_t encrypted_key[64];
	size_t encrypted_key_size;
	uint8_t salt[256];
	size_t salt_size;
	uint64_t scrypt_n;
	uint32_t scrypt_r, scrypt_p;
	struct gcfs_fido2 fido2;
};

/*
 * Parses and checks a config. Status EXIT_STATUS_FAILED for what is damaged or what gocryptfs itself refuses,
 * saying which member or which flags, and why. JSON depth and size are bounded. buf needs no NUL.
 */
int gcfs_config_parse(const char *buf, size_t size, struct gcfs_config *ret, struct error *err);

/*
 * Passphrase -> master key. With GCFS_FIDO2 the passphrase is the hmac-secret that the token gives, at least
 * GCFS_FIDO2_SECRET_MIN bytes. EXIT_STATUS_WRONG_KEY (-EKEYREJECTED) when it does not open the volume;
 * -ENOMEM with EXIT_STATUS_UNSUPPORTED when scrypt would take more than max_memory bytes, naming the number
 * and the option.
 */
int gcfs_config_unwrap(const struct gcfs_config *cfg, const struct secret *passphrase, uint64_t max_memory,
		       struct secret **ret_master, struct error *err);

/* What kind of volume: as in struct gcfs_config; a legal one, without GCFS_FIDO2. */
struct gcfs_kind {
	unsigned flags;
	unsigned long_name_max;
};
#define GCFS_KIND_DEFAULT                                                                                    \
	((struct gcfs_kind){                                                                                 \
		GCFS_HKDF | GCFS_GCMIV128 | GCFS_DIRIV | GCFS_EME_NAMES | GCFS_LONG_NAMES | GCFS_RAW64, 0})

/* A config for a new volume of that kind, wrapping master with passphrase at scrypt cost 2^log_n (10..28). */
int gcfs_config_create(const struct gcfs_kind *kind, const struct secret *passphrase,
		       const struct secret *master, unsigned log_n, uint64_t max_memory,
		       struct gcfs_config *ret, struct error *err);

/* The same volume with another passphrase: new salt, new IV, the rest stays. log_n 0 keeps the cost. cfg is
 * untouched on failure. */
int gcfs_config_rewrap(struct gcfs_config *cfg, const struct secret *passphrase, const struct secret *master,
		       unsigned log_n, uint64_t max_memory, struct error *err);

/* The JSON text as gocryptfs writes it (tabs, final newline), malloc'ed. -ENOMEM */
int gcfs_config_format(const struct gcfs_config *cfg, char **ret_text, size_t *ret_size);

/* Identifier of a master key, for people: hex of the first 16 bytes of HKDF-SHA256(master, info "ckrfs key
 * identifier"). Tells nothing about the key. ret holds 33 bytes. */
int gcfs_key_identifier(const struct secret *master, char ret[33]);

#endif
