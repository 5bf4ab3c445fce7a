/* SPDX-License-Identifier: MIT */
/*
 * Kernel passthrough (Linux 6.9): reads, writes and mmaps of a file go from the kernel straight to the file
 * of the lower. For formats that leave contents as they are only: what is passed through is not decrypted.
 * An open file that is passed through cannot be taken back.
 *
 * Each inode has one backing id, made at its first open and kept until the inode is forgotten, or has neither
 * a name nor an open file (it would keep the blocks from being free): the kernel wants all opens of an inode
 * at a time to be of the same kind, and the same backing file (fs/fuse/iomode.c).
 *
 * Files with set-user-ID, set-group-ID or file capabilities are read and written by the server, which clears
 * those as Linux does. One that gets them while it is passed through loses them at the next write by anybody,
 * root included: the kernel writes with the credentials that registered the file, and these lack CAP_FSETID.
 */
#include <errno.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#include "capability.h"
#include "fs_impl.h"
#include "store.h"
#include "util.h"

/* linux/fuse.h of Debian 12 is older than these. */
struct backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define BACKING_OPEN _IOW(229, 1, struct backing_map)
#define BACKING_CLOSE _IOW(229, 2, uint32_t)

/* An inode that is served by reads and writes, because the kernel would not pass it through. */
enum { BACKING_NEVER = -1 };

/* Backing file systems that are known to do with reads by whoever uses the mount; a network file system may
 * need a key at each open, which the container has not. Depth is what stacks: with 2 the backing may be an
 * overlay itself, but then nothing can be stacked on the mount. */
static const struct {
	unsigned long magic;
	unsigned depth;
} allowed[] = {
	{EXT4_SUPER_MAGIC, 1},     {XFS_SUPER_MAGIC, 1}, {BTRFS_SUPER_MAGIC, 1},
	{F2FS_SUPER_MAGIC, 1},     {TMPFS_MAGIC, 1},     {0xca451a4e /* bcachefs */, 1},
	{EROFS_SUPER_MAGIC_V1, 1}, {SQUASHFS_MAGIC, 1},  {OVERLAYFS_SUPER_MAGIC, 2},
};

static unsigned depth_of(int root_fd)
{
	struct statfs st;

	if (fstatfs(root_fd, &st) < 0)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
		if ((unsigned long)st.f_type == allowed[i].magic)
			return allowed[i].depth;
	return 0;
}

static void set_state(struct fs *fs, enum fs_passthrough state)
{
	atomic_store(&fs->p.stats->passthrough, state);
}

void fs_passthrough_init(struct fs *fs)
{
	fs->passthrough_depth = 0;
	if (!fs->p.passthrough) {
		set_state(fs, FS_PASSTHROUGH_OFF);
	} else if (format_owns_content(fs->p.format)) {
		set_state(fs, FS_PASSTHROUGH_FORMAT);
	} else {
		fs->passthrough_depth = depth_of(fs->p.root_fd);
		set_state(fs, fs->passthrough_depth ? FS_PASSTHROUGH_KERNEL : FS_PASSTHROUGH_LOWER);
	}
}

unsigned fs_passthrough_offered(struct fs *fs, bool by_kernel)
{
	if (!by_kernel || !fs->passthrough_depth)
		return 0;
	fs->passthrough = true;
	set_state(fs, FS_PASSTHROUGH_ACTIVE);
	return fs->passthrough_depth;
}

/* A new id, or a negative errno. */
static int backing_register(struct fs *fs, int fd)
{
	struct backing_map map = {.fd = fd};
	int id = ioctl(fs->p.fuse_fd, BACKING_OPEN, &map);

	return id < 0 ? -errno : id;
}

/* The kernel looks at privileges first, and then at the file, which is none here. */
void fs_passthrough_probe(struct fs *fs)
{
	if (fs->passthrough && backing_register(fs, -1) == -EPERM) {
		fs->passthrough = false;
		set_state(fs, FS_PASSTHROUGH_PRIVILEGE);
	}
}

/* A new id or BACKING_NEVER. */
static int32_t backing_open(struct fs *fs, int fd)
{
	int id;

	if (capability_fsetid(false) < 0)
		return BACKING_NEVER;
	id = backing_register(fs, fd);
	capability_fsetid(true);
	if (id <= 0)
		return BACKING_NEVER;
	atomic_fetch_add(&fs->backings, 1);
	return id;
}

static void backing_close(struct fs *fs, int32_t id)
{
	uint32_t arg = (uint32_t)id;

	if (id <= 0)
		return;
	ioctl(fs->p.fuse_fd, BACKING_CLOSE, &arg);
	atomic_fetch_sub(&fs->backings, 1);
}

bool fs_passthrough_any(const struct fs *fs)
{
	return atomic_load(&fs->backings) > 0;
}

/* Does a write change more than contents? */
static bool has_privilege(int fd)
{
	struct stat st;

	if (store_stat_fd(fd, &st) < 0 || st.st_mode & (S_ISUID | S_ISGID))
		return true;
	return st.st_mode & (S_IXUSR | S_IXGRP | S_IXOTH) &&
	       store_getxattr(fd, "security.capability", NULL, 0) != -ENODATA;
}

/* The id of the inode, made if there is none yet. */
static int32_t backing_of(struct fs *fs, struct node *node, int fd)
{
	int32_t id, own;

	node_lock(fs->nodes);
	id = node->private.backing;
	node_unlock(fs->nodes);
	if (id)
		return id;
	own = backing_open(fs, fd);
	node_lock(fs->nodes);
	id = node->private.backing;
	if (!id)
		id = node->private.backing = own;
	node_unlock(fs->nodes);
	if (id != own)
		backing_close(fs, own);
	return id;
}

int32_t fs_passthrough_backing(struct fs *fs, struct node *node, struct format_file *file)
{
	int32_t id = 0;
	bool chosen, passes;
	int fd;

	if (!fs->passthrough)
		return 0;
	node_lock(fs->nodes);
	chosen = node->private.io_chosen;
	node_unlock(fs->nodes);
	if (!chosen) {
		fd = format_file_fd(file);
		id = has_privilege(fd) ? 0 : backing_of(fs, node, fd);
		format_file_fd_done(file);
	}
	/* Who comes second takes what the first one chose. */
	node_lock(fs->nodes);
	if (!node->private.io_chosen) {
		node->private.io_chosen = true;
		node->private.io_passes = id > 0;
	}
	passes = node->private.io_passes;
	id = node->private.backing;
	node_unlock(fs->nodes);
	return passes ? id : 0;
}

void fs_passthrough_let_go(struct fs *fs, struct node *node)
{
	int32_t id = 0;

	if (!S_ISREG(node->type))
		return;
	node_lock(fs->nodes);
	if (!node->private.opens && node->private.backing > 0) {
		id = node->private.backing;
		node->private.backing = 0;
	}
	node_unlock(fs->nodes);
	backing_close(fs, id);
}

void fs_passthrough_unlinked(struct fs *fs, struct node *node)
{
	if (!S_ISREG(node->type))
		return;
	node_lock(fs->nodes);
	node->private.unlinked = true;
	node_unlock(fs->nodes);
	fs_passthrough_let_go(fs, node);
}

void fs_passthrough_forget(void *ctx, struct node *node)
{
	if (S_ISREG(node->type))
		backing_close(ctx, node->private.backing);
}
