/* SPDX-License-Identifier: MIT */
/* The fs layer: directories, and what has a name and no contents. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs_impl.h"
#include "store.h"

enum { DENTS_SIZE = 32768, TARGET_SIZE = PATH_MAX };

/* A name in a directory, as a request gives it. */
struct place {
	struct fs_directory dir;
	struct format_name name;
};

static int place_get(struct fs *fs, fuse_ino_t parent, const char *name, struct place *ret)
{
	int r = fs_directory_get(fs, parent, &ret->dir);

	if (r < 0)
		return r;
	r = format_name_encode(fs->p.format, &ret->dir.dir, name, &ret->name);
	if (r < 0)
		fs_directory_put(fs, &ret->dir);
	return r;
}

static void place_put(struct fs *fs, struct place *place)
{
	fs_directory_put(fs, &place->dir);
}

/* The inode that has the name, before it loses it; then what has it. */
static struct node *place_leaving(struct fs *fs, const struct place *place)
{
	return node_leaving(fs->nodes, place->dir.inode.node, place->dir.dir.fd, place->name.disk);
}

static void place_settle(struct fs *fs, const struct place *place, struct node *left)
{
	node_settle(fs->nodes, place->dir.inode.node, place->dir.dir.fd, place->name.disk, left);
}

/* ---- making things ---- */

/* What is to be made at a place. */
struct making {
	int (*make)(struct format *f, const struct place *at, const struct making *what);
	mode_t mode;
	dev_t rdev;
	const char *target;
	int fd;
};

static int make_node(struct format *f, const struct place *at, const struct making *what)
{
	return format_mknod(f, &at->dir.dir, &at->name, what->mode, what->rdev);
}

static int make_dir(struct format *f, const struct place *at, const struct making *what)
{
	return format_mkdir(f, &at->dir.dir, &at->name, what->mode);
}

static int make_symlink(struct format *f, const struct place *at, const struct making *what)
{
	return format_symlink(f, what->target, &at->dir.dir, &at->name);
}

static int make_link(struct format *f, const struct place *at, const struct making *what)
{
	return format_link(f, what->fd, &at->dir.dir, &at->name);
}

static void make(fuse_req_t req, fuse_ino_t parent, const char *name, const struct making *what)
{
	struct fs *fs = fs_of(req);
	struct fuse_entry_param entry;
	struct place at;
	int r = place_get(fs, parent, name, &at);

	if (r == 0) {
		r = fs_act(req);
		if (r == 0) {
			r = what->make(fs->p.format, &at, what);
			fs_act_done();
		}
		if (r == 0)
			r = fs_entry(fs, &at.dir, at.name.disk, &entry);
		place_put(fs, &at);
	}
	fs_reply_entry(req, r, &entry);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	make(req, parent, name, &(struct making){.make = make_node, .mode = mode, .rdev = rdev});
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	make(req, parent, name, &(struct making){.make = make_dir, .mode = mode});
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	make(req, parent, name, &(struct making){.make = make_symlink, .target = target});
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fs_of(req);
	struct fs_inode inode;
	int r = fs_inode_get(fs, ino, &inode);

	if (r < 0) {
		fs_reply_err(req, r);
		return;
	}
	make(req, parent, name, &(struct making){.make = make_link, .fd = inode.fd.fd});
	fs_inode_put(fs, &inode);
}

/* ---- removing and renaming ---- */

static void remove_at(fuse_req_t req, fuse_ino_t parent, const char *name,
		      int (*removed)(struct format *f, const struct format_dir *dir,
				     const struct format_name *name))
{
	struct fs *fs = fs_of(req);
	struct place at;
	int r = place_get(fs, parent, name, &at);

	if (r == 0) {
		struct node *node = place_leaving(fs, &at);

		r = removed(fs->p.format, &at.dir.dir, &at.name);
		place_settle(fs, &at, node);
		place_put(fs, &at);
	}
	fs_reply_err(req, r);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_at(req, parent, name, format_unlink);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_at(req, parent, name, format_rmdir);
}

static int rename_places(fuse_req_t req, const struct place *from, const struct place *to, unsigned flags)
{
	struct fs *fs = fs_of(req);
	struct node *moved, *replaced;
	int r = fs_act(req);

	if (r < 0)
		return r;
	moved = place_leaving(fs, from);
	replaced = place_leaving(fs, to);
	r = format_rename(fs->p.format, &from->dir.dir, &from->name, &to->dir.dir, &to->name, flags);
	fs_act_done();
	/* The new name first: where the one that moved has it, it is not lost. */
	place_settle(fs, to, replaced);
	place_settle(fs, from, moved);
	return r;
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
		      const char *new_name, unsigned flags)
{
	struct fs *fs = fs_of(req);
	struct place from, to;
	int r = place_get(fs, parent, name, &from);

	if (r == 0) {
		r = place_get(fs, new_parent, new_name, &to);
		if (r == 0) {
			r = rename_places(req, &from, &to, flags);
			place_put(fs, &to);
		}
		place_put(fs, &from);
	}
	fs_reply_err(req, r);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct fs *fs = fs_of(req);
	struct fs_inode inode;
	char target[TARGET_SIZE];
	int r = fs_inode_get(fs, ino, &inode);

	if (r == 0) {
		r = format_readlink(fs->p.format, inode.fd.fd, target, sizeof(target));
		fs_inode_put(fs, &inode);
	}
	if (r < 0)
		fs_reply_err(req, r);
	else
		fuse_reply_readlink(req, target);
}

/* ---- reading directories ---- */

static int open_stream(struct fs *fs, struct node *node, struct fuse_file_info *fi)
{
	struct fs_handle *h;
	int r = fs_handle_new(fs, node, &h, &fi->fh);

	if (r < 0) {
		node_put(fs->nodes, node);
		return r;
	}
	h->fd = node_open(fs->nodes, node, O_RDONLY | O_DIRECTORY);
	if (h->fd >= 0)
		return 0;
	r = h->fd;
	fs_handle_free(fs, fs_handle_remove(fs, fi->fh));
	return r;
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct fs_directory dir;
	struct node *node;
	int r = fs_directory_get(fs, ino, &dir); /* a directory whose IV is damaged does not open */

	if (r == 0) {
		node = node_get(fs->nodes, ino);
		r = open_stream(fs, node, fi);
		fs_directory_put(fs, &dir);
	}
	if (r < 0)
		fs_reply_err(req, r);
	else if (fuse_reply_open(req, fi) < 0)
		fs_handle_free(fs, fs_handle_remove(fs, fi->fh));
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct fs_handle *h = fs_handle_remove(fs, fi->fh);

	if (h)
		fs_handle_free(fs, h);
	fuse_reply_err(req, 0);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct fs_handle *h = fs_handle_get(fs_of(req), fi->fh);

	fs_reply_err(req, h && h->fd >= 0 ? store_fsync(h->fd, datasync != 0) : -EBADF);
}

/* One answer to readdir: a buffer that fills up. */
struct listing {
	fuse_req_t req;
	struct fs *fs;
	struct fs_directory *dir;
	bool plus;
	char *buf;
	size_t size, used;
};

/* Records from the cookie `offset` on are in the handle's buffer; *ret_end: there are none. */
static int stream_fill(struct fs_handle *h, off_t offset, bool *ret_end)
{
	ssize_t n;

	*ret_end = false;
	if (!h->dents) {
		h->dents = malloc(DENTS_SIZE);
		if (!h->dents)
			return -ENOMEM;
	}
	if ((uint64_t)offset != h->next) {
		if (lseek(h->fd, offset, SEEK_SET) < 0)
			return -errno;
		h->at = h->end = 0;
		h->next = (uint64_t)offset;
	}
	if (h->at < h->end)
		return 0;
	n = store_getdents(h->fd, h->dents, DENTS_SIZE);
	if (n < 0)
		return (int)n;
	h->at = 0;
	h->end = (size_t)n;
	*ret_end = n == 0;
	return 0;
}

static bool is_dot(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* With attributes, so that the kernel needs no lookup. What cannot be looked up is listed without: its own
 * lookup will tell why. */
static size_t add_plus(struct listing *l, const struct dirent64 *e, const char *name, const struct stat *st)
{
	struct fuse_entry_param entry = {.attr = *st};
	size_t n;
	int r = -ENOENT;

	if (!is_dot(e->d_name)) {
		r = fs_entry(l->fs, l->dir, e->d_name, &entry);
		if (r == -ENOENT)
			return 0;
		if (r < 0)
			entry = (struct fuse_entry_param){.attr = *st};
	}
	n = fuse_add_direntry_plus(l->req, l->buf + l->used, l->size - l->used, name, &entry, e->d_off);
	if (n > l->size - l->used && r == 0)
		node_forget(l->fs->nodes, entry.ino, 1);
	return n;
}

/* 1: the buffer is full and the record was not used. */
static int list_one(struct listing *l, const struct dirent64 *e)
{
	struct stat st = {.st_ino = e->d_ino, .st_mode = (mode_t)DTTOIF(e->d_type)};
	char name[NAME_MAX + 1];
	size_t n;

	if (is_dot(e->d_name))
		strcpy(name, e->d_name);
	else if (format_name_decode(l->fs->p.format, &l->dir->dir, e->d_name, name) < 0)
		return 0;
	if (l->plus)
		n = add_plus(l, e, name, &st);
	else
		n = fuse_add_direntry(l->req, l->buf + l->used, l->size - l->used, name, &st, e->d_off);
	if (n > l->size - l->used)
		return 1;
	l->used += n;
	return 0;
}

static int list(struct listing *l, struct fs_handle *h, off_t offset)
{
	bool end = false;

	for (;;) {
		int r = stream_fill(h, offset, &end);

		if (r < 0 || end)
			return l->used ? 0 : r;
		while (h->at < h->end) {
			const struct dirent64 *e = (const void *)(h->dents + h->at);

			if (list_one(l, e))
				return 0;
			h->at += e->d_reclen;
			h->next = (uint64_t)e->d_off;
			offset = e->d_off;
		}
	}
}

static void read_directory(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
			   struct fuse_file_info *fi, bool plus)
{
	struct fs *fs = fs_of(req);
	struct fs_handle *h = fs_handle_get(fs, fi->fh);
	struct format_io *io = fs_loop_io();
	struct listing l = {.req = req, .fs = fs, .plus = plus};
	struct fs_directory dir;
	int r = h && io ? fs_directory_get(fs, ino, &dir) : h ? -ENOMEM : -EBADF;

	if (r < 0) {
		fs_reply_err(req, r);
		return;
	}
	l.dir = &dir;
	l.buf = (char *)io->plain;
	l.size = size < FORMAT_IO_MAX ? size : FORMAT_IO_MAX;
	pthread_mutex_lock(&h->lock);
	r = list(&l, h, offset);
	pthread_mutex_unlock(&h->lock);
	fs_directory_put(fs, &dir);
	if (r < 0)
		fs_reply_err(req, r);
	else
		fuse_reply_buf(req, l.buf, l.used);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	read_directory(req, ino, size, offset, fi, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
			   struct fuse_file_info *fi)
{
	read_directory(req, ino, size, offset, fi, true);
}

void fs_dir_operations(struct fuse_lowlevel_ops *ops)
{
	ops->mknod = op_mknod;
	ops->mkdir = op_mkdir;
	ops->symlink = op_symlink;
	ops->link = op_link;
	ops->unlink = op_unlink;
	ops->rmdir = op_rmdir;
	ops->rename = op_rename;
	ops->readlink = op_readlink;
	ops->opendir = op_opendir;
	ops->readdir = op_readdir;
	ops->readdirplus = op_readdirplus;
	ops->releasedir = op_releasedir;
	ops->fsyncdir = op_fsyncdir;
}
