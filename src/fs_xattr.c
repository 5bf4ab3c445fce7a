/* SPDX-License-Identifier: MIT */
/* The fs layer: extended attributes. */
#include <errno.h>
#include <linux/limits.h>
#include <string.h>

#include "fs_impl.h"
#include "store.h"

#define XATTR_TRUSTED "trusted."

/* Does the answer fit into what a request may ask for? XATTR_SIZE_MAX and XATTR_LIST_MAX are the kernel's own
 * limits. */
_Static_assert(XATTR_SIZE_MAX <= FORMAT_IO_MAX && XATTR_LIST_MAX <= FORMAT_IO_MAX,
	       "xattrs fit into a request");

static void reply_sized(fuse_req_t req, ssize_t n, const void *buf, size_t size)
{
	if (n < 0)
		fs_reply_err(req, (int)n);
	else if (size == 0)
		fuse_reply_xattr(req, (size_t)n);
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct fs *fs = fs_of(req);
	struct format_io *io = fs_loop_io();
	struct fs_inode inode;
	ssize_t n = io ? fs_inode_get(fs, ino, &inode) : -ENOMEM;

	if (size > FORMAT_IO_MAX)
		size = FORMAT_IO_MAX;
	if (n == 0) {
		n = format_getxattr(fs->p.format, inode.fd.fd, name, io->plain, size);
		if (n > 0 && size > 0 && fs_ids_in_xattr(fs, name))
			idmap_acl_show(fs->p.uid_map, fs->p.gid_map, io->plain, (size_t)n);
		fs_inode_put(fs, &inode);
	}
	reply_sized(req, n, io ? io->plain : NULL, size);
}

/* Takes the names out that file systems list only for whoever may read them (xattr(7)); the new size. */
static ssize_t hide_trusted(char *list, size_t size)
{
	size_t used = 0;

	for (size_t at = 0, n; at < size; at += n) {
		n = strnlen(list + at, size - at - 1) + 1;
		if (strncmp(list + at, XATTR_TRUSTED, strlen(XATTR_TRUSTED)) == 0)
			continue;
		memmove(list + used, list + at, n);
		used += n;
	}
	return (ssize_t)used;
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct fs *fs = fs_of(req);
	struct format_io *io = fs_loop_io();
	struct fs_inode inode;
	ssize_t n = io ? fs_inode_get(fs, ino, &inode) : -ENOMEM;

	if (n == 0) {
		n = format_listxattr(fs->p.format, inode.fd.fd, (char *)io->plain, FORMAT_IO_MAX);
		fs_inode_put(fs, &inode);
	}
	if (n > 0 && fuse_req_ctx(req)->uid != 0)
		n = hide_trusted((char *)io->plain, (size_t)n);
	if (size && n > (ssize_t)size)
		n = -ERANGE;
	reply_sized(req, n, io ? io->plain : NULL, size);
}

static int kill_sgid(int fd)
{
	struct stat st;
	int r = store_stat_fd(fd, &st);

	if (r < 0 || !(st.st_mode & S_ISGID))
		return r;
	return store_chmod(fd, st.st_mode & 07777 & ~(mode_t)S_ISGID);
}

/* The value of a request with the lower's ids, in the thread's room. */
static int value_map(struct fs *fs, const char **value, size_t size)
{
	struct format_io *io = fs_loop_io();

	if (!io)
		return -ENOMEM;
	if (size > FORMAT_IO_MAX)
		return -E2BIG;
	memcpy(io->plain, *value, size);
	*value = (const char *)io->plain;
	return idmap_acl_set(fs->p.uid_map, fs->p.gid_map, io->plain, size);
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
			int flags)
{
	struct fs *fs = fs_of(req);
	struct fs_inode inode;
	int r = fs_ids_in_xattr(fs, name) ? value_map(fs, &value, size) : 0;

	if (r == 0)
		r = fs_inode_get(fs, ino, &inode);
	if (r == 0) {
		r = format_setxattr(fs->p.format, inode.fd.fd, name, value, size, flags);
		if (r == 0 && fs_compat_kills_sgid())
			r = kill_sgid(inode.fd.fd);
		fs_inode_put(fs, &inode);
	}
	fs_reply_err(req, r);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct fs *fs = fs_of(req);
	struct fs_inode inode;
	int r = fs_inode_get(fs, ino, &inode);

	if (r == 0) {
		r = format_removexattr(fs->p.format, inode.fd.fd, name);
		fs_inode_put(fs, &inode);
	}
	fs_reply_err(req, r);
}

void fs_xattr_operations(struct fuse_lowlevel_ops *ops)
{
	ops->getxattr = op_getxattr;
	ops->listxattr = op_listxattr;
	ops->setxattr = op_setxattr;
	ops->removexattr = op_removexattr;
}
