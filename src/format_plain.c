/* SPDX-License-Identifier: MIT */
/* The format `plain`: names, attributes and contents are those of the lower. Everything that is not here is
 * the default of format.c. */
#include <errno.h>

#include "format_impl.h"
#include "store.h"

static ssize_t plain_read(struct format *f, struct format_file *file, struct format_io *io, size_t size,
			  uint64_t offset, const uint8_t **ret_data)
{
	ssize_t n;

	pthread_rwlock_rdlock(&file->lock);
	n = store_pread(file->fd, io->plain, size, offset);
	pthread_rwlock_unlock(&file->lock);
	*ret_data = io->plain;
	return n;
}

/* Writes of one file do not exclude each other here: the lower does what is needed. The lock only keeps the
 * fd. */
static ssize_t plain_write(struct format *f, struct format_file *file, struct format_io *io, const void *buf,
			   size_t size, uint64_t offset)
{
	ssize_t n;

	pthread_rwlock_rdlock(&file->lock);
	n = store_pwrite(file->fd, buf, size, offset);
	pthread_rwlock_unlock(&file->lock);
	return n;
}

static int plain_truncate(struct format *f, struct format_file *file, struct format_io *io, uint64_t size)
{
	int r;

	pthread_rwlock_rdlock(&file->lock);
	r = store_truncate(file->fd, size);
	pthread_rwlock_unlock(&file->lock);
	return r;
}

static int plain_fallocate(struct format *f, struct format_file *file, struct format_io *io, int mode,
			   uint64_t offset, uint64_t length)
{
	int r;

	pthread_rwlock_rdlock(&file->lock);
	r = store_fallocate(file->fd, mode, offset, length);
	pthread_rwlock_unlock(&file->lock);
	return r;
}

static int plain_seek(struct format *f, struct format_file *file, uint64_t offset, int whence,
		      uint64_t *ret_offset)
{
	int r;

	/* The fd's position is shared, but nothing here depends on it. */
	pthread_rwlock_rdlock(&file->lock);
	r = store_seek(file->fd, offset, whence, ret_offset);
	pthread_rwlock_unlock(&file->lock);
	return r;
}

/* Whoever holds one of the locks alone asks for no other, and those who wait for that do not hold up others
 * who share it: the order of the two does not matter. */
static ssize_t plain_copy(struct format *f, struct format_file *file, uint64_t offset,
			  struct format_file *to_file, uint64_t to, size_t size)
{
	ssize_t n;

	pthread_rwlock_rdlock(&file->lock);
	if (to_file != file)
		pthread_rwlock_rdlock(&to_file->lock);
	n = store_copy(file->fd, offset, to_file->fd, to, size);
	if (to_file != file)
		pthread_rwlock_unlock(&to_file->lock);
	pthread_rwlock_unlock(&file->lock);
	return n;
}

const struct format_ops format_plain_ops = {
	.name = "plain",
	.read = plain_read,
	.write = plain_write,
	.truncate = plain_truncate,
	.fallocate = plain_fallocate,
	.seek = plain_seek,
	.copy = plain_copy,
};
