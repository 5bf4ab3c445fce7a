/* SPDX-License-Identifier: MIT */
/* What the files about contents share: format_gocryptfs_file.c (blocks, sizes) and _space.c (holes). Data
 * path: any thread; the file's lock (struct format_file) is held. */
#ifndef CKRFS_FORMAT_GOCRYPTFS_ACCESS_H
#define CKRFS_FORMAT_GOCRYPTFS_ACCESS_H

#include "format_gocryptfs.h"

/* One change or question of a file, its lock held. */
struct access {
	struct format *f;
	struct gocryptfs *g;
	struct format_file *file;
	struct format_io *io;
	size_t overhead;
	uint64_t disk_size, size; /* ciphertext, plaintext bytes */
	uint64_t ino;
	bool sparse;     /* the lower may have holes in it */
	bool keeps_old;  /* what is overwritten has to be put back when the disk is full */
	bool new_header; /* io->disk begins with a header that is not on disk yet */
};

static inline size_t gocryptfs_disk_block(const struct access *a)
{
	return GCFS_BLOCK + a->overhead;
}

/* Takes the lock: shared among readers once the ID is known, which the first one has to find out alone. */
void gocryptfs_lock_for_read(struct format_file *file);
/* Sizes and ID of the file; needs the lock for writing unless the ID is known. io NULL: for questions. */
int gocryptfs_access_begin(struct access *a, struct format *f, struct format_file *file,
			   struct format_io *io);

/* Writes plaintext; what the blocks at both ends have besides stays. A last block before offset must be
 * whole. The bytes written: fewer where the disk is full. */
ssize_t gocryptfs_write_at(struct access *a, const uint8_t *buf, size_t size, uint64_t offset);
/* size: above the present one. On failure a last block may have been padded. */
int gocryptfs_grow(struct access *a, uint64_t size);

#endif
