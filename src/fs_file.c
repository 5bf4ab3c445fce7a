/* SPDX-License-Identifier: MIT */
/* The fs layer: regular files. All handles of an inode share one open file of the lower, and with it one lock
 * and one file ID. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "fs_impl.h"
#include "store.h"
#include "util.h"

/* Bytes copied by one request, which nobody can interrupt. */
enum { COPY_MAX = 128 << 20 };

/* ---- the inode's file ---- */

/* Counts a use of the file if the inode has one. Lock held. */
static struct format_file *file_count(struct node *node)
{
	if (node->private.file)
		node->private.opens++;
	return node->private.file;
}

struct format_file *fs_file_if_open(struct fs *fs, struct node *node)
{
	struct format_file *file = NULL;

	if (!S_ISREG(node->type))
		return NULL;
	node_lock(fs->nodes);
	file = file_count(node);
	node_unlock(fs->nodes);
	return file;
}

/* Makes file the inode's, unless it has one by now: then that is used, and file freed. */
static struct format_file *file_install(struct fs *fs, struct node *node, struct format_file *file)
{
	struct format_file *there;

	node_lock(fs->nodes);
	there = file_count(node);
	if (!there) {
		node->private.file = file;
		node->private.opens = 1;
	}
	node_unlock(fs->nodes);
	if (!there)
		return file;
	format_file_free(file);
	return there;
}

static int file_make_writable(struct fs *fs, struct node *node, struct format_file *file)
{
	int fd;

	if (format_file_writable(file))
		return 0;
	fd = node_open(fs->nodes, node, O_RDWR);
	if (fd < 0)
		return fd;
	format_file_upgrade(file, fd);
	return 0;
}

int fs_file_get(struct fs *fs, struct node *node, bool writable, struct format_file **ret)
{
	struct format_file *file = fs_file_if_open(fs, node);
	int fd, r;

	if (!file) {
		fd = node_open(fs->nodes, node,
			       format_open_flags(fs->p.format, writable ? O_RDWR : O_RDONLY));
		if (fd < 0)
			return fd;
		r = format_file_new(fs->p.format, fd, writable, &file);
		if (r < 0)
			return r;
		file = file_install(fs, node, file);
	}
	r = writable ? file_make_writable(fs, node, file) : 0;
	if (r < 0) {
		fs_file_put(fs, node);
		return r;
	}
	*ret = file;
	return 0;
}

int fs_file_adopt(struct fs *fs, struct node *node, int fd, struct format_file **ret)
{
	struct format_file *file;
	int r = format_file_new(fs->p.format, fd, true, &file);

	if (r < 0)
		return r;
	file = file_install(fs, node, file);
	r = file_make_writable(fs, node, file);
	if (r < 0)
		fs_file_put(fs, node);
	else
		*ret = file;
	return r;
}

/* Takes the time that is kept, if there is one, to be set again. It stays kept while a write goes on that
 * will move the lower's. Lock held. */
static bool mtime_take(struct node *node, struct timespec *ret_mtime)
{
	bool held = node->private.holds_mtime;

	*ret_mtime = node->private.mtime;
	node->private.holds_mtime = held && node->cached_writes > 0;
	return held;
}

static int mtime_set(struct format_file *file, const struct timespec *mtime)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, *mtime};
	int r = store_utimens(format_file_fd(file), times);

	format_file_fd_done(file);
	return r;
}

/* Sets the time again that cached writes have moved. */
static int mtime_restore(struct fs *fs, struct node *node, struct format_file *file)
{
	struct timespec mtime;
	bool held;

	node_lock(fs->nodes);
	held = mtime_take(node, &mtime);
	node_unlock(fs->nodes);
	return held ? mtime_set(file, &mtime) : 0;
}

static void restore_time(struct fs *fs, uint64_t id)
{
	struct node *node = node_get(fs->nodes, id);
	struct format_file *file = node && S_ISREG(node->type) ? fs_file_if_open(fs, node) : NULL;

	/* As in fs_file_put(), an error has nobody to go to. */
	if (file) {
		mtime_restore(fs, node, file);
		fs_file_put(fs, node);
	}
	node_put(fs->nodes, node);
}

void fs_file_restore_times(struct fs *fs)
{
	uint64_t ids[64];
	uint32_t at = 0;
	size_t n;

	while ((n = node_ids(fs->nodes, &at, ids, ARRAY_SIZE(ids))))
		for (size_t i = 0; i < n; i++)
			restore_time(fs, ids[i]);
}

struct fs_write_mark fs_file_write_mark(struct fs *fs, struct node *node)
{
	struct fs_write_mark mark;

	node_lock(fs->nodes);
	mark = (struct fs_write_mark){.writing = node->cached_writes > 0, .begun = node->cached_begun};
	node_unlock(fs->nodes);
	return mark;
}

void fs_file_mtime_told(struct fs *fs, struct node *node, struct fs_write_mark mark,
			const struct timespec *mtime)
{
	if (!S_ISREG(node->type))
		return;
	node_lock(fs->nodes);
	node->private.holds_mtime = mark.writing || node->cached_begun != mark.begun;
	node->private.mtime = *mtime;
	node_unlock(fs->nodes);
}

void fs_file_put(struct fs *fs, struct node *node)
{
	struct format_file *last = NULL;
	struct timespec mtime;
	bool held = false, unlinked = false;

	node_lock(fs->nodes);
	if (--node->private.opens == 0) {
		last = node->private.file;
		node->private.file = NULL;
		node->private.io_chosen = false;
		held = mtime_take(node, &mtime);
		unlinked = node->private.unlinked;
	}
	node_unlock(fs->nodes);
	/* An error here has nobody to go to: close(2) was answered long ago. The time is then that of the
	 * last write. */
	if (held)
		mtime_set(last, &mtime);
	format_file_free(last);
	if (unlinked)
		fs_passthrough_let_go(fs, node);
}

/* ---- opening ---- */

static bool writes(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY;
}

/* A handle for the node, whose reference and file it takes over; on failure both are released. */
static int handle_for_file(struct fs *fs, struct node *node, struct format_file *file,
			   struct fuse_file_info *fi)
{
	struct fs_handle *h;
	int32_t backing;
	int r = fs_handle_new(fs, node, &h, &fi->fh);

	if (r < 0) {
		fs_file_put(fs, node);
		node_put(fs->nodes, node);
		return r;
	}
	h->file = file;
	atomic_fetch_add(&fs->files_open, 1);
	backing = fs_passthrough_backing(fs, node, file);
	fs_transport_set_backing(backing);
	fi->keep_cache = fs->keep_cache && !backing;
	return 0;
}

static int empty_file(struct fs *fs, struct node *node, struct format_file *file)
{
	struct format_io *io = fs_loop_io();
	int r = io ? format_truncate(fs->p.format, file, io, 0) : -ENOMEM;

	if (r == 0 && fs_transport_kills_suidgid())
		r = fs_kill_suidgid(fs, node->id, file);
	return r;
}

static int open_node(struct fs *fs, struct node *node, struct fuse_file_info *fi)
{
	bool writable = writes(fi->flags) || fi->flags & O_TRUNC;
	struct format_file *file;
	int r = fs_file_get(fs, node, writable, &file);

	if (r == 0 && fi->flags & O_TRUNC) {
		r = empty_file(fs, node, file);
		if (r < 0)
			fs_file_put(fs, node);
	}
	if (r < 0) {
		node_put(fs->nodes, node);
		return r;
	}
	return handle_for_file(fs, node, file, fi);
}

static void release(struct fs *fs, uint64_t id)
{
	struct fs_handle *h = fs_handle_remove(fs, id);

	if (h)
		fs_handle_free(fs, h);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct node *node = node_get(fs->nodes, ino);
	int r = node ? S_ISREG(node->type) ? open_node(fs, node, fi) : -EINVAL : -ESTALE;

	if (node && !S_ISREG(node->type))
		node_put(fs->nodes, node);
	if (r < 0)
		fs_reply_err(req, r);
	else if (fuse_reply_open(req, fi) < 0)
		release(fs, fi->fh); /* interrupted: no RELEASE will come */
}

/* The new file as the kernel is told of it, and its handle. */
static int create_finish(struct fs *fs, int fd, const struct fs_directory *dir, const char *disk,
			 struct fuse_file_info *fi, struct fuse_entry_param *ret_entry)
{
	autofd int own = fd;
	struct format_file *file;
	struct node *node;
	int r = fs_entry_fd(fs, fd, dir, disk, ret_entry);

	if (r < 0)
		return r;
	node = S_ISREG(ret_entry->attr.st_mode) ? node_get(fs->nodes, ret_entry->ino) : NULL;
	if (!node) {
		/* Somebody put another thing there since the kernel looked. */
		node_forget(fs->nodes, ret_entry->ino, 1);
		return -EEXIST;
	}
	r = fs_file_adopt(fs, node, steal_fd(&own), &file);
	/* It was there already, after all. A new one is left alone: its times have been told. */
	if (r == 0 && fi->flags & O_TRUNC && ret_entry->attr.st_size > 0) {
		r = empty_file(fs, node, file);
		ret_entry->attr.st_size = 0;
		ret_entry->attr_timeout = 0;
	}
	if (r == 0)
		return handle_for_file(fs, node, file, fi);
	node_put(fs->nodes, node);
	node_forget(fs->nodes, ret_entry->ino, 1);
	return r;
}

static int create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi,
		  struct fuse_entry_param *ret_entry)
{
	struct fs *fs = fs_of(req);
	struct fs_directory dir;
	struct format_name disk;
	int fd, r = fs_directory_get(fs, parent, &dir);

	if (r < 0)
		return r;
	r = format_name_encode(fs->p.format, &dir.dir, name, &disk);
	if (r == 0)
		r = fs_act(req);
	if (r == 0) {
		fd = format_create(fs->p.format, &dir.dir, &disk, O_RDWR | O_CREAT | (fi->flags & O_EXCL),
				   mode);
		fs_act_done();
		r = fd < 0 ? fd : create_finish(fs, fd, &dir, disk.disk, fi, ret_entry);
	}
	fs_directory_put(fs, &dir);
	return r;
}

/* O_TMPFILE: a file that no directory has; link(2) may give it a name later. */
static int create_unnamed(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi,
			  struct fuse_entry_param *ret_entry)
{
	struct fs *fs = fs_of(req);
	struct fs_inode dir;
	int fd, r = fs_inode_get(fs, parent, &dir);

	if (r < 0)
		return r;
	r = fs_act(req);
	if (r == 0) {
		fd = store_open(dir.fd.fd, ".", O_RDWR | O_TMPFILE, mode);
		fs_act_done();
		r = fd < 0 ? fd : create_finish(fs, fd, NULL, NULL, fi, ret_entry);
	}
	fs_inode_put(fs, &dir);
	return r;
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct fuse_entry_param entry;
	int r = fs_compat_is_tmpfile() ? create_unnamed(req, parent, mode, fi, &entry)
				       : create(req, parent, name, mode, fi, &entry);

	if (r < 0) {
		fs_reply_err(req, r);
	} else if (fuse_reply_create(req, &entry, fi) < 0) {
		release(fs, fi->fh);
		node_forget(fs->nodes, entry.ino, 1);
	}
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	release(fs_of(req), fi->fh);
	fuse_reply_err(req, 0);
}

/* ---- contents ---- */

/* The file of a handle, or NULL for one that is none. */
static struct format_file *file_of(struct fs *fs, const struct fuse_file_info *fi)
{
	struct fs_handle *h = fs_handle_get(fs, fi->fh);

	return h ? h->file : NULL;
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct format_file *file = file_of(fs, fi);
	struct format_io *io = fs_loop_io();
	const uint8_t *data = NULL;
	ssize_t n;

	if (!file || !io) {
		fs_reply_err(req, file ? -ENOMEM : -EBADF);
		return;
	}
	n = format_read(fs->p.format, file, io, size, (uint64_t)offset, &data);
	if (n < 0) {
		fs_reply_err(req, (int)n);
		return;
	}
	atomic_fetch_add_explicit(&fs->p.stats->read_bytes, (uint64_t)n, memory_order_relaxed);
	fuse_reply_buf(req, (const char *)data, (size_t)n);
}

/*
 * A write of the writeback cache (without it those of mappings seem to be, and are not) happened when the
 * kernel took it, which keeps the time itself and does not always send it once more (Linux 6.18, after
 * ftruncate(2)). So the lower's time from before the first such write is kept, and set again when the file is
 * synced or closed, unless the kernel has sent another one by then (fs_file_mtime_told()). The kernel does
 * not wait for a write before it sends a time, so the writes that go on are counted: what was sent counts
 * after them too.
 */
static int cached_write_begin(struct fs *fs, struct node *node, struct format_file *file)
{
	struct stat st;
	bool held;
	int r;

	node_lock(fs->nodes);
	node->cached_writes++;
	node->cached_begun++;
	held = node->private.holds_mtime;
	node_unlock(fs->nodes);
	if (held)
		return 0;
	r = store_stat_fd(format_file_fd(file), &st);
	format_file_fd_done(file);
	node_lock(fs->nodes);
	if (r < 0) {
		node->cached_writes--;
	} else if (!node->private.holds_mtime) {
		node->private.holds_mtime = true;
		node->private.mtime = st.st_mtim;
	}
	node_unlock(fs->nodes);
	return r;
}

static void cached_write_end(struct fs *fs, struct node *node)
{
	node_lock(fs->nodes);
	node->cached_writes--;
	node_unlock(fs->nodes);
}

/* What the kernel has taken into its cache it will not bring again: of that, a part is nothing. A disk that
 * fills up says why when it is asked for the rest (fs/fuse/file.c does not look at how much was written). */
static ssize_t write_cached(struct fs *fs, struct format_file *file, struct format_io *io, const char *buf,
			    size_t size, uint64_t offset)
{
	size_t done = 0;
	ssize_t n = 0;

	while (done < size) {
		n = format_write(fs->p.format, file, io, buf + done, size - done, offset + done);
		if (n <= 0)
			return n < 0 ? n : -EIO;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static ssize_t write_for(struct fs *fs, struct node *node, struct format_file *file, const char *buf,
			 size_t size, uint64_t offset)
{
	struct format_io *io = fs_loop_io();
	ssize_t n;

	if (!io)
		return -ENOMEM;
	if (!fs_transport_is_cached_write())
		return format_write(fs->p.format, file, io, buf, size, offset);
	if (!fs->writeback)
		return write_cached(fs, file, io, buf, size, offset);
	n = cached_write_begin(fs, node, file);
	if (n < 0)
		return n;
	n = write_cached(fs, file, io, buf, size, offset);
	cached_write_end(fs, node);
	return n;
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct fs_handle *h = fs_handle_get(fs, fi->fh);
	ssize_t n = h && h->file ? write_for(fs, h->node, h->file, buf, size, (uint64_t)offset) : -EBADF;
	int r;

	if (n >= 0 && fs_transport_kills_suidgid()) {
		r = fs_kill_suidgid(fs, ino, h->file);
		n = r < 0 ? r : n;
	}
	if (n < 0) {
		if (fs_transport_is_cached_write())
			atomic_fetch_add(&fs->unflushed, 1);
		fs_reply_err(req, (int)n);
		return;
	}
	atomic_fetch_add_explicit(&fs->p.stats->written_bytes, (uint64_t)n, memory_order_relaxed);
	fuse_reply_write(req, (size_t)n);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct format_file *file = file_of(fs, fi);
	int r = -EBADF;

	if (file) {
		r = mtime_restore(fs, fs_handle_get(fs, fi->fh)->node, file);
		if (r == 0)
			r = format_fsync(fs->p.format, file, datasync != 0);
	}
	fs_reply_err(req, r);
}

/* close(2): what is stored on another machine may fail there, which nobody is told later. */
static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct format_file *file = file_of(fs, fi);
	int r = -ENOSYS;

	if (fs->p.lower_remote)
		r = !file ? -EBADF : format_file_writable(file) ? format_fsync(fs->p.format, file, false) : 0;
	fs_reply_err(req, r);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
			 struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct format_file *file = file_of(fs, fi);
	struct format_io *io = fs_loop_io();
	int r = -EBADF;

	if (file)
		r = io ? format_fallocate(fs->p.format, file, io, mode, (uint64_t)offset, (uint64_t)length)
		       : -ENOMEM;
	if (r == 0)
		r = fs_kill_suidgid_for(req, ino, file);
	fs_reply_err(req, r);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct format_file *file = file_of(fs, fi);
	uint64_t found = 0;
	int r = -EBADF;

	if (file)
		r = format_seek(fs->p.format, file, (uint64_t)offset, whence, &found);
	if (r < 0)
		fs_reply_err(req, r);
	else
		fuse_reply_lseek(req, (off_t)found);
}

static void op_copy_file_range(fuse_req_t req, fuse_ino_t ino, off_t offset, struct fuse_file_info *fi,
			       fuse_ino_t to_ino, off_t to, struct fuse_file_info *to_fi, size_t size,
			       int flags)
{
	struct fs *fs = fs_of(req);
	struct format_file *file = file_of(fs, fi), *to_file = file_of(fs, to_fi);
	ssize_t n = -EBADF;
	int r;

	if (file && to_file)
		n = format_copy(fs->p.format, file, (uint64_t)offset, to_file, (uint64_t)to,
				min_u64(size, COPY_MAX));
	if (n >= 0) {
		r = fs_kill_suidgid_for(req, to_ino, to_file);
		n = r < 0 ? r : n;
	}
	if (n < 0)
		fs_reply_err(req, (int)n);
	else
		fuse_reply_write(req, (size_t)n);
}

void fs_file_operations(struct fuse_lowlevel_ops *ops)
{
	ops->open = op_open;
	ops->create = op_create;
	ops->release = op_release;
	ops->read = op_read;
	ops->write = op_write;
	ops->fsync = op_fsync;
	ops->flush = op_flush;
	ops->fallocate = op_fallocate;
	ops->lseek = op_lseek;
	ops->copy_file_range = op_copy_file_range;
	/* A directory of a local file system has nothing to say at close(2): flush answers ENOSYS, and the
	 * kernel stops asking. No locks: the kernel's own are right for a mount that is on one machine. */
}
