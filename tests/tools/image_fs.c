/* SPDX-License-Identifier: MIT */
#include "image_fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int image_fs_image = -1;
const char *image_fs_other;

int image_fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	if (strcmp(path, "/disk") == 0)
		return fstat(image_fs_image, st) < 0 ? -errno : 0;
	memset(st, 0, sizeof(*st));
	st->st_mode = strcmp(path, "/") == 0 ? S_IFDIR | 0755 : S_IFREG | 0600;
	st->st_nlink = 1;
	return strcmp(path, "/") == 0 || strcmp(path, image_fs_other) == 0 ? 0 : -ENOENT;
}

int image_fs_read(const char *path, char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
	ssize_t n = fi->fh ? pread(image_fs_image, buf, size, offset) : 0;

	return n < 0 ? -errno : (int)n;
}

int image_fs_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
	return 0;
}

int image_fs_main(char *program, const char *image, char *mountpoint, int single,
		  const struct fuse_operations *operations)
{
	char foreground[] = "-f", alone[] = "-s";
	char *args[] = {program, foreground, mountpoint, single ? alone : NULL, NULL};

	image_fs_image = open(image, O_RDWR | O_CLOEXEC);
	if (image_fs_image < 0) {
		perror(image);
		return 1;
	}
	return fuse_main(single ? 4 : 3, args, operations, NULL);
}
