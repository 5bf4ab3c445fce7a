/* SPDX-License-Identifier: MIT */
/* The format `gocryptfs`: space that is allocated, punched out, or asked for. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>

#include "format_gocryptfs_access.h"
#include "store.h"
#include "util.h"

static int allocate(struct access *a, int mode, uint64_t offset, uint64_t length)
{
	uint64_t start, end;
	int r = gcfs_cipher_size(a->g->content, offset + length, &end);

	if (r < 0)
		return r;
	start = offset / GCFS_BLOCK ? gcfs_block_offset(offset / GCFS_BLOCK, a->overhead) : 0;
	end = gcfs_block_offset((offset + length - 1) / GCFS_BLOCK + 1, a->overhead);
	r = store_fallocate(a->file->fd, FALLOC_FL_KEEP_SIZE, start, end - start);
	if (r == 0 && !(mode & FALLOC_FL_KEEP_SIZE) && offset + length > a->size)
		r = gocryptfs_grow(a, offset + length);
	return r;
}

/* Zeros in a part of one block. */
static int zero_part(struct access *a, uint64_t start, uint64_t end)
{
	static const uint8_t zeros[GCFS_BLOCK];
	ssize_t n = start < end ? gocryptfs_write_at(a, zeros, (size_t)(end - start), start) : 0;

	return n < 0 ? (int)n : 0;
}

/* Whole blocks become holes of the lower, which the format reads as zeros; what is left at both ends is
 * written. */
static int punch(struct access *a, uint64_t offset, uint64_t length)
{
	uint64_t end = min_u64(offset + length, a->size), first, last;
	int r = 0;

	if (offset >= a->size)
		return 0;
	first = (offset + GCFS_BLOCK - 1) / GCFS_BLOCK;
	last = end / GCFS_BLOCK;
	if (first > last)
		return zero_part(a, offset, end);
	if (first < last)
		r = store_fallocate(a->file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    gcfs_block_offset(first, a->overhead),
				    (last - first) * gocryptfs_disk_block(a));
	a->sparse = true;
	if (r == 0)
		r = zero_part(a, offset, first * GCFS_BLOCK);
	return r < 0 ? r : zero_part(a, last * GCFS_BLOCK, end);
}

static int change_space(struct access *a, int mode, uint64_t offset, uint64_t length)
{
	int r = 0;

	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		r = punch(a, offset, length);
	return r < 0 || mode & FALLOC_FL_PUNCH_HOLE ? r : allocate(a, mode, offset, length);
}

int gocryptfs_fallocate(struct format *f, struct format_file *file, struct format_io *io, int mode,
			uint64_t offset, uint64_t length)
{
	struct access a;
	int r;

	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		return -EOPNOTSUPP;
	pthread_rwlock_wrlock(&file->lock);
	r = gocryptfs_access_begin(&a, f, file, io);
	if (r == 0)
		r = change_space(&a, mode, offset, length);
	pthread_rwlock_unlock(&file->lock);
	return r;
}

/*
 * Blocks begin at odd places of the ciphertext, so that a hole of the lower ends or begins inside one: the
 * first block that lies wholly behind the lower's answer is the first one of the kind asked for.
 */
static int seek_in(struct access *a, uint64_t offset, int whence, uint64_t *ret_offset)
{
	uint64_t at, start, block;
	int r;

	if (offset >= a->size)
		return -ENXIO;
	start = gcfs_block_offset(offset / GCFS_BLOCK, a->overhead);
	r = store_seek(a->file->fd, start, whence, &at);
	if (r < 0)
		return r;
	if (at <= start) {
		*ret_offset = offset;
		return 0;
	}
	block = (at - GCFS_HEADER + gocryptfs_disk_block(a) - 1) / gocryptfs_disk_block(a);
	if (block * GCFS_BLOCK >= a->size && whence == SEEK_DATA)
		return -ENXIO;
	*ret_offset = min_u64(block * GCFS_BLOCK, a->size);
	return 0;
}

int gocryptfs_seek(struct format *f, struct format_file *file, uint64_t offset, int whence,
		   uint64_t *ret_offset)
{
	struct access a;
	int r;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	gocryptfs_lock_for_read(file);
	r = gocryptfs_access_begin(&a, f, file, NULL);
	if (r == 0)
		r = seek_in(&a, offset, whence, ret_offset);
	pthread_rwlock_unlock(&file->lock);
	return r;
}
