/* SPDX-License-Identifier: MIT */
/*
 * diskfail IMAGE MOUNTPOINT: a file system with two files. "disk" is IMAGE, for a loop device. What is
 * written to "control" says what fails from then on with EIO: "r" reads, "w" writes, "s" fsync(2), any of
 * them; "" or "-" nothing. Runs in the foreground.
 */
#include "image_fs.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static _Atomic bool fails_read, fails_write, fails_sync;

static int disk_open(const char *path, struct fuse_file_info *fi)
{
	fi->fh = strcmp(path, "/disk") == 0;
	fi->direct_io = 1; /* or the cache of this file system hides what fails */
	return 0;
}

static int disk_read(const char *path, char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
	return fi->fh && fails_read ? -EIO : image_fs_read(path, buf, size, offset, fi);
}

static int disk_write(const char *path, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
	ssize_t n;

	if (!fi->fh) {
		fails_read = memchr(buf, 'r', size) != NULL;
		fails_write = memchr(buf, 'w', size) != NULL;
		fails_sync = memchr(buf, 's', size) != NULL;
		return (int)size;
	}
	if (fails_write)
		return -EIO;
	n = pwrite(image_fs_image, buf, size, offset);
	return n < 0 ? -errno : (int)n;
}

static int disk_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
	return fi->fh && fails_sync ? -EIO : 0;
}

static const struct fuse_operations operations = {
	.getattr = image_fs_getattr,
	.open = disk_open,
	.read = disk_read,
	.write = disk_write,
	.fsync = disk_fsync,
	.truncate = image_fs_truncate,
};

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: diskfail IMAGE MOUNTPOINT\n");
		return 2;
	}
	image_fs_other = "/control";
	return image_fs_main(argv[0], argv[1], argv[2], 0, &operations);
}
