/* SPDX-License-Identifier: MIT */
/*
 * disklog IMAGE LOG MOUNTPOINT: a file system with two files. "disk" is IMAGE, and what is written to it and
 * each fsync(2) goes into LOG as well: with a loop device on it, LOG is what a disk saw, in its order. What
 * is written to "mark" only goes into LOG. Runs in the foreground.
 */
#include "image_fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* tests/e2e/powerfail.py knows this layout. */
enum { WRITE = 1, FLUSH = 2, MARK = 3 };
struct head {
	uint32_t type, size;
	uint64_t offset;
};

static int logfile;

static int record(uint32_t type, const char *data, size_t size, off_t offset)
{
	struct head head = {type, (uint32_t)size, (uint64_t)offset};
	struct iovec parts[2] = {{&head, sizeof(head)}, {(void *)(uintptr_t)data, size}};

	/* O_APPEND: one call, one record, also from several threads. */
	return writev(logfile, parts, 2) == (ssize_t)(sizeof(head) + size) ? 0 : -EIO;
}

static int disk_open(const char *path, struct fuse_file_info *fi)
{
	fi->fh = strcmp(path, "/disk") == 0;
	fi->direct_io = !fi->fh;
	fi->keep_cache = 1;
	return 0;
}

static int disk_write(const char *path, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
	int r = record(fi->fh ? WRITE : MARK, buf, size, offset);

	if (r == 0 && fi->fh && pwrite(image_fs_image, buf, size, offset) != (ssize_t)size)
		r = -EIO;
	return r < 0 ? r : (int)size;
}

static int disk_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
	return fi->fh ? record(FLUSH, NULL, 0, 0) : 0;
}

static const struct fuse_operations operations = {
	.getattr = image_fs_getattr,
	.open = disk_open,
	.read = image_fs_read,
	.write = disk_write,
	.fsync = disk_fsync,
	.truncate = image_fs_truncate,
};

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: disklog IMAGE LOG MOUNTPOINT\n");
		return 2;
	}
	logfile = open(argv[2], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (logfile < 0) {
		perror(argv[2]);
		return 1;
	}
	image_fs_other = "/mark";
	return image_fs_main(argv[0], argv[1], argv[3], 1, &operations);
}
