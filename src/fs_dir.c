/* SPDX-License-Identifier: MIT */
/* The fs layer: names in directories, and what has a name and no contents. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs_impl.h"
#include "store.h"

enum { TARGET_SIZE = PATH_MAX };

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

/* The id of the regular file that the name is the only one of, if the kernel may have a backing file of it,
 * which keeps its blocks from being free; else 0. It counts as looked up until place_freed(). */
static uint64_t place_backed(struct fs *fs, const struct place *place)
{
	struct stat st;
	uint64_t id;

	if (!fs_passthrough_any(fs) ||
	    node_lookup(fs->nodes, place->dir.inode.node, place->dir.dir.fd, place->name.disk, &st, &id) < 0)
		return 0;
	if (S_ISREG(st.st_mode) && st.st_nlink == 1)
		return id;
	node_forget(fs->nodes, id, 1);
	return 0;
}

/* On a full disk whoever has removed a file writes the next one at once. */
static void place_freed(struct fs *fs, uint64_t id, bool removed)
{
	struct node *node = id ? node_get(fs->nodes, id) : NULL;

	if (node && removed)
		fs_passthrough_unlinked(fs, node);
	node_put(fs->nodes, node);
	if (id)
		node_forget(fs->nodes, id, 1);
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
		uint64_t backed = place_backed(fs, &at);

		r = removed(fs->p.format, &at.dir.dir, &at.name);
		place_freed(fs, backed, r == 0);
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
	uint64_t backed;
	int r = fs_act(req);

	if (r < 0)
		return r;
	backed = flags & (RENAME_EXCHANGE | RENAME_NOREPLACE) ? 0 : place_backed(fs, to);
	moved = place_leaving(fs, from);
	replaced = place_leaving(fs, to);
	r = format_rename(fs->p.format, &from->dir.dir, &from->name, &to->dir.dir, &to->name, flags);
	fs_act_done();
	place_freed(fs, backed, r == 0);
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
}
