/* SPDX-License-Identifier: MIT */
/*
 * diskfail IMAGE MOUNTPOINT: a file system with two files. "disk" is IMAGE, for a loop device. What is
 * written to "control" says what fails from then on with EIO: "r" reads, "w" writes, "s" fsync(2), any of
 * them; "" or
 * "-" nothing. Runs in the foreground.
 */
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int image;
static _Atomic bool fails_read, fails_write, fails_sync;

static int disk_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	if (strcmp(path, "/disk") == 0)
		return fstat(image, st) < 0 ? -errno : 0;
	memset(st, 0, sizeof(*st));
	st->st_mode = strcmp(path, "/") == 0 ? S_IFDIR | 0755 : S_IFREG | 0600;
	st->st_nlink = 1;
	return strcmp(path, "/") == 0 || strcmp(path, "/control") == 0 ? 0 : -ENOENT;
}

static int disk_open(const char *path, struct fuse_file_info *fi)
{
	fi->fh = strcmp(path, "/disk") == 0;
	fi->direct_io = 1; /* or the cache of this file system hides what fails */
	return 0;
}

static int disk_read(const char *path, char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
	ssize_t n = fi->fh ? pread(image, buf, size, offset) : 0;

	if (fi->fh && fails_read)
		return -EIO;
	return n < 0 ? -errno : (int)n;
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
	n = pwrite(image, buf, size, offset);
	return n < 0 ? -errno : (int)n;
}

static int disk_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
	return fi->fh && fails_sync ? -EIO : 0;
}

static int disk_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
	return 0;
}

static const struct fuse_operations operations = {
	.getattr = disk_getattr,
	.open = disk_open,
	.read = disk_read,
	.write = disk_write,
	.fsync = disk_fsync,
	.truncate = disk_truncate,
};

int main(int argc, char **argv)
{
	char option[] = "-f";
	char *args[] = {argv[0], option, argc == 3 ? argv[2] : NULL, NULL};

	if (argc != 3) {
		fprintf(stderr, "usage: diskfail IMAGE MOUNTPOINT\n");
		return 2;
	}
	image = open(argv[1], O_RDWR | O_CLOEXEC);
	if (image < 0) {
		perror("diskfail");
		return 1;
	}
	return fuse_main(3, args, &operations, NULL);
}
