/* SPDX-License-Identifier: MIT */
/*
 * Contents of the gocryptfs format: header, blocks, sizes, and the small values (symlink targets, extended
 * attributes). Buffers in, buffers out; no file access. Data path: any thread, negative errno only.
 */
#ifndef CKRFS_GCFS_CONTENT_H
#define CKRFS_GCFS_CONTENT_H

#include "gcfs_config.h"
#include "secret.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	GCFS_BLOCK = 4096, /* plaintext bytes of a whole block */
	GCFS_HEADER = 18,  /* 00 02, then the file ID */
	GCFS_FILE_ID = 16,
	GCFS_OVERHEAD_MAX = 40, /* ciphertext bytes a block has more than plaintext, any cipher */
};

struct gcfs_content;

/* Derives the content key of the cipher that flags say (legal ones, gcfs_config.h); -EINVAL for others. */
int gcfs_content_new(const struct secret *master, unsigned flags, struct gcfs_content **ret);
void gcfs_content_free(struct gcfs_content *c);

/* IV + tag bytes of a block: 32 for GCM and SIV, 40 for XChaCha. */
size_t gcfs_overhead(const struct gcfs_content *c);

/* Sizes of whole files, as the format defines them, damaged tails included. Never overflow: cipher size of a
 * plain size over INT64_MAX/2 is -EFBIG. */
int gcfs_cipher_size(const struct gcfs_content *c, uint64_t plain, uint64_t *ret_cipher);
uint64_t gcfs_plain_size(const struct gcfs_content *c, uint64_t cipher);

/* Offset in the ciphertext file at which block n begins. */
static inline uint64_t gcfs_block_offset(uint64_t block, size_t overhead)
{
	return GCFS_HEADER + block * (GCFS_BLOCK + overhead);
}

int gcfs_header_new(uint8_t ret_header[GCFS_HEADER]); /* random ID, never all zero; -EIO */
int gcfs_header_parse(const uint8_t header[GCFS_HEADER], uint8_t ret_id[GCFS_FILE_ID]); /* -EBADMSG */

/*
 * Encrypts size > 0 plaintext bytes that begin at block first: whole blocks, the last one maybe shorter. out
 * holds size + overhead for each block begun. Fresh IVs drawn for the run. Returns 0, -EIO, -ENOMEM.
 */
int gcfs_encrypt_blocks(struct gcfs_content *c, const uint8_t id[GCFS_FILE_ID], uint64_t first,
			const uint8_t *plain, size_t size, uint8_t *ret_cipher, size_t *ret_size);

/*
 * Decrypts a run of ciphertext blocks that begins at block first; the last may be shorter. A whole block of
 * zero bytes is a hole and gives zeros. -EBADMSG at the first block that does not authenticate or is too
 * short: *ret_bad is its number, and *ret_size tells how many plaintext bytes before it are good. ret_plain
 * holds size (room for the decrypted bytes is enough).
 */
int gcfs_decrypt_blocks(struct gcfs_content *c, const uint8_t id[GCFS_FILE_ID], uint64_t first,
			const uint8_t *cipher, size_t size, uint8_t *ret_plain, size_t *ret_size,
			uint64_t *ret_bad);

/* Small values: block 0 without a file ID. Empty stays empty. ret_* are malloc'ed; -ENOMEM, -EBADMSG, -EIO.
 */
int gcfs_value_encrypt(struct gcfs_content *c, const void *plain, size_t size, uint8_t **ret_cipher,
		       size_t *ret_size);
int gcfs_value_decrypt(struct gcfs_content *c, const void *cipher, size_t size, uint8_t **ret_plain,
		       size_t *ret_size);

/* Symlink targets: a value as base64url text. Target of at least 1 byte; -ENAMETOOLONG when the text is over
 * 4095: 3039 bytes with GCM or SIV and Raw64. */
int gcfs_symlink_encrypt(struct gcfs_content *c, const char *target, char **ret_text);
int gcfs_symlink_decrypt(struct gcfs_content *c, const char *text, char **ret_target);

#endif
