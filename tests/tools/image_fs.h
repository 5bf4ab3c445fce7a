/* SPDX-License-Identifier: MIT */
/* A file system with two files, for programs that stand in for a disk: "disk" is an image, for a loop device;
 * what the other one does is the program's. */
#ifndef CKRFS_TEST_IMAGE_FS_H
#define CKRFS_TEST_IMAGE_FS_H

#include <fuse.h>

extern int image_fs_image;         /* fd */
extern const char *image_fs_other; /* path of the other file, "/NAME" */

/* For fuse_operations; fi->fh is 1 for "disk". */
int image_fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi);
int image_fs_read(const char *path, char *buf, size_t size, off_t offset, struct fuse_file_info *fi);
int image_fs_truncate(const char *path, off_t size, struct fuse_file_info *fi);

/* Serves in the foreground until it is unmounted: the exit status. single: one request at a time. */
int image_fs_main(char *program, const char *image, char *mountpoint, int single,
		  const struct fuse_operations *operations);

#endif
