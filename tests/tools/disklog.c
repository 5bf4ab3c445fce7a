/* SPDX-License-Identifier: MIT */
/*
 * disklog IMAGE LOG MOUNTPOINT: a file system with two files. "disk" is IMAGE, and what is written to it and
 * each fsync(2) goes into LOG as well: with a loop device on it, LOG is what a disk saw, in its order. What
 * is written to "mark" only goes into LOG. Runs in the foreground.
 */
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* tests/e2e/powerfail.py knows this layout. */
enum { WRITE = 1, FLUSH = 2, MARK = 3 };
struct head {
	uint32_t type, size;
	uint64_t offset;
};

static int image, logfile;

static int record(uint32_t type, const char *data, size_t size, off_t offset)
{
	struct head head = {type, (uint32_t)size, (uint64_t)offset};
	struct iovec parts[2] = {{&head, sizeof(head)}, {(void *)(uintptr_t)data, size}};

	/* O_APPEND: one call, one record, also from several threads. */
	return writev(logfile, parts, 2) == (ssize_t)(sizeof(head) + size) ? 0 : -EIO;
}

static int disk_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	if (strcmp(path, "/disk") == 0)
		return fstat(image, st) < 0 ? -errno : 0;
	memset(st, 0, sizeof(*st));
	st->st_mode = strcmp(path, "/") == 0 ? S_IFDIR | 0755 : S_IFREG | 0600;
	st->st_nlink = 1;
	return strcmp(path, "/") == 0 || strcmp(path, "/mark") == 0 ? 0 : -ENOENT;
}

static int disk_open(const char *path, struct fuse_file_info *fi)
{
	fi->fh = strcmp(path, "/disk") == 0;
	fi->direct_io = !fi->fh;
	fi->keep_cache = 1;
	return 0;
}

static int disk_read(const char *path, char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
	ssize_t n = fi->fh ? pread(image, buf, size, offset) : 0;

	return n < 0 ? -errno : (int)n;
}

static int disk_write(const char *path, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
	int r = record(fi->fh ? WRITE : MARK, buf, size, offset);

	if (r == 0 && fi->fh && pwrite(image, buf, size, offset) != (ssize_t)size)
		r = -EIO;
	return r < 0 ? r : (int)size;
}

static int disk_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
	return fi->fh ? record(FLUSH, NULL, 0, 0) : 0;
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
	char option[] = "-f", single[] = "-s";
	char *args[] = {argv[0], option, single, argc == 4 ? argv[3] : NULL, NULL};

	if (argc != 4) {
		fprintf(stderr, "usage: disklog IMAGE LOG MOUNTPOINT\n");
		return 2;
	}
	image = open(argv[1], O_RDWR | O_CLOEXEC);
	logfile = open(argv[2], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (image < 0 || logfile < 0) {
		perror("disklog");
		return 1;
	}
	return fuse_main(4, args, &operations, NULL);
}
