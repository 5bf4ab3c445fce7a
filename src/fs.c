/* SPDX-License-Identifier: MIT */
#include "fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "fs_impl.h"
#include "store.h"
#include "util.h"

enum { CACHED_DIRS_MAX = 1024, CACHED_DIRS_PART = 4, BACKGROUND = 64 };

/* ---- inodes and directories of a request ---- */

int fs_inode_get(struct fs *fs, fuse_ino_t ino, struct fs_inode *ret)
{
	int r;

	ret->node = node_get(fs->nodes, ino);
	if (!ret->node)
		return -ESTALE;
	r = node_fd(fs->nodes, ret->node, &ret->fd);
	if (r < 0)
		node_put(fs->nodes, ret->node);
	return r;
}

void fs_inode_put(struct fs *fs, struct fs_inode *inode)
{
	node_fd_done(&inode->fd);
	node_put(fs->nodes, inode->node);
}

/* The directory's IV, from the node if it is known there. */
static int directory_iv(struct fs *fs, struct fs_inode *inode, uint8_t iv[16])
{
	struct node *n = inode->node;
	bool known;
	int r;

	node_lock(fs->nodes);
	known = n->iv_known;
	if (known)
		memcpy(iv, n->private.iv, 16);
	node_unlock(fs->nodes);
	if (known)
		return 0;
	r = format_dir_iv(fs->p.format, inode->fd.fd, iv);
	if (r < 0)
		return r;
	node_lock(fs->nodes);
	memcpy(n->private.iv, iv, 16);
	n->iv_known = true;
	node_unlock(fs->nodes);
	return 0;
}

int fs_directory_get(struct fs *fs, fuse_ino_t ino, struct fs_directory *ret)
{
	int r = fs_inode_get(fs, ino, &ret->inode);

	if (r < 0)
		return r;
	r = S_ISDIR(ret->inode.node->type) ? directory_iv(fs, &ret->inode, ret->iv) : -ENOTDIR;
	if (r < 0) {
		fs_inode_put(fs, &ret->inode);
		return r;
	}
	ret->dir = (struct format_dir){.fd = ret->inode.fd.fd, .iv = ret->iv, .root = ino == FUSE_ROOT_ID};
	return 0;
}

void fs_directory_put(struct fs *fs, struct fs_directory *dir)
{
	fs_inode_put(fs, &dir->inode);
}

/* ---- entries and attributes ---- */

void fs_attr(struct fs *fs, struct fs_inode *inode, struct stat *st)
{
	format_attr(fs->p.format, inode->fd.fd, st);
	fs_ids_show(fs, st);
}

static int entry_finish(struct fs *fs, const struct stat *st, uint64_t id, struct fuse_entry_param *ret)
{
	struct fs_inode inode;
	int r;

	*ret = (struct fuse_entry_param){
		.ino = id,
		.attr = *st,
		.attr_timeout = fs->attr_timeout,
		.entry_timeout = fs->entry_timeout,
	};
	if (!format_attr_needs_fd(fs->p.format, st->st_mode)) {
		format_attr(fs->p.format, -1, &ret->attr);
		fs_ids_show(fs, &ret->attr);
		return 0;
	}
	r = fs_inode_get(fs, id, &inode);
	if (r < 0) {
		node_forget(fs->nodes, id, 1);
		return r;
	}
	fs_attr(fs, &inode, &ret->attr);
	fs_inode_put(fs, &inode);
	return 0;
}

int fs_entry(struct fs *fs, const struct fs_directory *dir, const char *disk, struct fuse_entry_param *ret)
{
	struct stat st;
	uint64_t id;
	int r = node_lookup(fs->nodes, dir->inode.node, dir->dir.fd, disk, &st, &id);

	return r < 0 ? r : entry_finish(fs, &st, id, ret);
}

int fs_entry_fd(struct fs *fs, int fd, const struct fs_directory *dir, const char *disk,
		struct fuse_entry_param *ret)
{
	struct stat st;
	uint64_t id;
	int r = node_lookup_fd(fs->nodes, fd, dir ? dir->inode.node : NULL, disk, &st, &id);

	return r < 0 ? r : entry_finish(fs, &st, id, ret);
}

/* ---- replies ---- */

void fs_reply_err(fuse_req_t req, int r)
{
	r = fs_lower_errno(fs_of(req), r);
	if (r == -EIO)
		atomic_fetch_add_explicit(&fs_of(req)->p.stats->errors, 1, memory_order_relaxed);
	fuse_reply_err(req, -r);
}

void fs_reply_entry(fuse_req_t req, int r, const struct fuse_entry_param *entry)
{
	struct fs *fs = fs_of(req);

	if (r < 0) {
		fs_reply_err(req, r);
		return;
	}
	/* A request that was interrupted is gone: the kernel has not learnt of this lookup. */
	if (fuse_reply_entry(req, entry) < 0)
		node_forget(fs->nodes, entry->ino, 1);
}

/* ---- acting for the caller ---- */

int fs_act(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return fs_ids_act(fs_of(req), ctx->uid, ctx->gid, ctx->umask);
}

void fs_act_done(void)
{
	store_act_as_self();
}

int fs_kill_suidgid(struct fs *fs, uint64_t id, struct format_file *file)
{
	int fd = format_file_fd(file), r;
	mode_t kill = S_ISUID;
	struct stat st;

	r = store_stat_fd(fd, &st);
	if (r == 0 && st.st_mode & S_IXGRP)
		kill |= S_ISGID;
	if (r == 0 && st.st_mode & kill) {
		r = store_chmod(fd, st.st_mode & 07777 & ~kill);
		if (r == 0)
			fs_lock_forget_attributes(fs, id);
	}
	format_file_fd_done(file);
	return r;
}

int fs_kill_suidgid_for(fuse_req_t req, uint64_t id, struct format_file *file)
{
	return fuse_req_ctx(req)->uid == 0 ? 0 : fs_kill_suidgid(fs_of(req), id, file);
}

/* ---- handles ---- */

int fs_handle_new(struct fs *fs, struct node *node, struct fs_handle **ret, uint64_t *ret_id)
{
	struct fs_handle *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return -ENOMEM;
	h->node = node;
	h->fd = -1;
	pthread_mutex_init(&h->lock, NULL);
	pthread_mutex_lock(&fs->handles_lock);
	r = slots_add(&fs->handles, h, ret_id);
	pthread_mutex_unlock(&fs->handles_lock);
	if (r < 0) {
		pthread_mutex_destroy(&h->lock);
		free(h);
		return r;
	}
	*ret = h;
	return 0;
}

struct fs_handle *fs_handle_get(struct fs *fs, uint64_t id)
{
	struct fs_handle *h;

	pthread_mutex_lock(&fs->handles_lock);
	h = slots_get(&fs->handles, id);
	pthread_mutex_unlock(&fs->handles_lock);
	return h;
}

struct fs_handle *fs_handle_remove(struct fs *fs, uint64_t id)
{
	struct fs_handle *h;

	pthread_mutex_lock(&fs->handles_lock);
	h = slots_remove(&fs->handles, id);
	pthread_mutex_unlock(&fs->handles_lock);
	return h;
}

void fs_handle_free(struct fs *fs, struct fs_handle *h)
{
	/* A thread that looks ahead may still have it. */
	pthread_mutex_lock(&h->lock);
	fs_ahead_drop(fs, h);
	pthread_mutex_unlock(&h->lock);
	free(h->ahead.buf);
	if (h->file) {
		atomic_fetch_sub(&fs->files_open, 1);
		fs_file_put(fs, h->node);
	}
	node_put(fs->nodes, h->node);
	if (h->fd >= 0)
		close(h->fd);
	free(h->dents);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

/* ---- operations ---- */

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct fs *fs = userdata;

	conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	/* The second version, which fs_transport.c negotiates, saves a question per write. */
	conn->want &= ~(unsigned)FUSE_CAP_HANDLE_KILLPRIV;
#ifdef FUSE_CAP_SETXATTR_EXT
	conn->want &= ~(unsigned)FUSE_CAP_SETXATTR_EXT; /* fs_compat.c does it, with every libfuse */
#endif
	conn->want |= conn->capable & FUSE_CAP_DONT_MASK;
	/* With those the kernel would decide by modes and owners again. */
	if (!fs->p.lower_decides)
		conn->want |= conn->capable & FUSE_CAP_POSIX_ACL;
	if (fs->writeback)
		conn->want |= conn->capable & FUSE_CAP_WRITEBACK_CACHE;
	fs->writeback = conn->want & FUSE_CAP_WRITEBACK_CACHE;
	if (fs->keep_cache)
		conn->want |= conn->capable & FUSE_CAP_CACHE_SYMLINKS;
	conn->max_write = FORMAT_IO_MAX;
	conn->max_background = BACKGROUND;
	conn->congestion_threshold = BACKGROUND * 3 / 4;
	conn->time_gran = 1;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fs_of(req);
	struct fuse_entry_param entry;
	struct fs_directory dir;
	struct format_name disk;
	int r = fs_directory_get(fs, parent, &dir);

	if (r == 0) {
		r = format_name_encode(fs->p.format, &dir.dir, name, &disk);
		if (r == 0)
			r = fs_entry(fs, &dir, disk.disk, &entry);
		fs_directory_put(fs, &dir);
	}
	if (r == -ENOENT && fs->negative_timeout > 0) {
		entry = (struct fuse_entry_param){.entry_timeout = fs->negative_timeout};
		r = 0;
	}
	fs_reply_entry(req, r, &entry);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	node_forget(fs_of(req)->nodes, ino, nlookup);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		node_forget(fs_of(req)->nodes, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static int set_size(struct fs *fs, struct node *node, uint64_t size)
{
	struct format_io *io = fs_loop_io();
	struct format_file *file;
	int r;

	if (!io)
		return -ENOMEM;
	if (!S_ISREG(node->type))
		return S_ISDIR(node->type) ? -EISDIR : -EINVAL;
	r = fs_file_get(fs, node, true, &file);
	if (r < 0)
		return r;
	r = format_truncate(fs->p.format, file, io, size);
	if (r == 0 && fs_transport_kills_suidgid())
		r = fs_kill_suidgid(fs, node->id, file);
	fs_file_put(fs, node);
	return r;
}

static int set_times(int fd, const struct stat *attr, int to_set)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};

	if (to_set & FUSE_SET_ATTR_ATIME_NOW)
		times[0].tv_nsec = UTIME_NOW;
	else if (to_set & FUSE_SET_ATTR_ATIME)
		times[0] = attr->st_atim;
	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		times[1].tv_nsec = UTIME_NOW;
	else if (to_set & FUSE_SET_ATTR_MTIME)
		times[1] = attr->st_mtim;
	return store_utimens(fd, times);
}

/* Owner before mode: chown(2) clears bits that chmod(2) may set. */
static int set_attributes(const struct fs *fs, int fd, const struct stat *attr, int to_set)
{
	int r = 0;

	if (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
		r = fs_ids_chown(fs, fd, attr, to_set & FUSE_SET_ATTR_UID, to_set & FUSE_SET_ATTR_GID);
	if (r == 0 && to_set & FUSE_SET_ATTR_MODE)
		r = store_chmod(fd, attr->st_mode & 07777);
	if (r == 0 && to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME |
				FUSE_SET_ATTR_MTIME_NOW))
		r = set_times(fd, attr, to_set);
	return r;
}

static void tell_mtime(struct fs *fs, struct node *node, struct fs_write_mark mark, const struct stat *attr,
		       int to_set)
{
	struct timespec now;

	if (to_set & FUSE_SET_ATTR_MTIME_NOW) {
		clock_gettime(CLOCK_REALTIME, &now);
		fs_file_mtime_told(fs, node, mark, &now);
	} else if (to_set & FUSE_SET_ATTR_MTIME) {
		fs_file_mtime_told(fs, node, mark, &attr->st_mtim);
	}
}

/* Sets what is to be set, and asks for what it is now: by the open file if there is one, so that the inode
 * may be unlinked; else by one fd for both, since the kernel sends this at each change of a name while the
 * writeback cache is on. */
static int set_and_ask(struct fs *fs, struct node *node, const struct stat *attr, int to_set,
		       struct stat *ret_st)
{
	struct fs_write_mark mark = fs_file_write_mark(fs, node);
	struct format_file *file = fs_file_if_open(fs, node);
	struct fs_inode inode = {.node = node, .fd = NODE_FD_NONE};
	int r;

	if (file)
		inode.fd.fd = format_file_fd(file);
	else if ((r = node_fd(fs->nodes, node, &inode.fd)) < 0)
		return r;
	r = set_attributes(fs, inode.fd.fd, attr, to_set);
	if (r == 0)
		tell_mtime(fs, node, mark, attr, to_set);
	if (r == 0)
		r = store_stat_fd(inode.fd.fd, ret_st);
	if (r == 0) {
		fs_attr(fs, &inode, ret_st);
		fs_compat_take_birth(inode.fd.fd);
	}
	if (file) {
		format_file_fd_done(file);
		fs_file_put(fs, node);
	}
	node_fd_done(&inode.fd);
	return r;
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct node *node = node_get(fs->nodes, ino);
	struct stat st;
	int r = 0;

	if (fs_lock_by_copy())
		fs_lower_root_stat(fs, &st);
	else
		r = node ? set_and_ask(fs, node, NULL, 0, &st) : -ESTALE;
	if (r < 0)
		fs_reply_err(req, r);
	else
		fuse_reply_attr(req, &st, fs->attr_timeout);
	node_put(fs->nodes, node);
}

/* The change time is sent by the kernel's writeback cache alone, with the time of writing or without. */
static bool is_time_of_cache(int to_set)
{
	return to_set & FUSE_SET_ATTR_CTIME && !(to_set & ~(FUSE_SET_ATTR_CTIME | FUSE_SET_ATTR_MTIME));
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		       struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct node *node = node_get(fs->nodes, ino);
	struct stat st;
	int r = 0;

	if (!node) {
		fs_reply_err(req, -ESTALE);
		return;
	}
	if (to_set & FUSE_SET_ATTR_SIZE)
		r = set_size(fs, node, (uint64_t)attr->st_size);
	if (r == 0)
		r = set_and_ask(fs, node, attr, to_set, &st);
	/* The writeback cache tells times of what is gone since; syncfs(2) must not fail for that. */
	if (r == -ESTALE && is_time_of_cache(to_set)) {
		st = (struct stat){.st_mode = node->type};
		r = 0;
	}
	if (r < 0)
		fs_reply_err(req, r);
	else
		fuse_reply_attr(req, &st, fs->attr_timeout);
	node_put(fs->nodes, node);
}

/* Asked only where the lower decides. */
static void op_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
	struct fs *fs = fs_of(req);
	struct fs_inode inode;
	int r = fs->p.lower_decides ? fs_inode_get(fs, ino, &inode) : -ENOSYS;

	if (r == 0) {
		r = store_access(inode.fd.fd, mask);
		fs_inode_put(fs, &inode);
	}
	fs_reply_err(req, r);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct fs *fs = fs_of(req);
	struct statvfs st;
	int r = 0;

	if (fs_lock_by_copy())
		fs_lower_root_statvfs(fs, &st);
	else
		r = store_statvfs(fs->p.root_fd, &st);
	if (r < 0) {
		fs_reply_err(req, r);
		return;
	}
	if (format_owns_content(fs->p.format))
		st.f_namemax = 255; /* long names are stored by their hash */
	fuse_reply_statfs(req, &st);
}

/* ---- life ---- */

static unsigned cached_dirs(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
		return 16;
	return (unsigned)max_u64(16, min_u64(CACHED_DIRS_MAX, lim.rlim_cur / CACHED_DIRS_PART));
}

static int session_new(struct fs *fs, struct error *err)
{
	struct fuse_lowlevel_ops ops = {
		.init = op_init,
		.lookup = op_lookup,
		.forget = op_forget,
		.forget_multi = op_forget_multi,
		.getattr = op_getattr,
		.setattr = op_setattr,
		.access = op_access,
		.statfs = op_statfs,
	};
	char name[] = "ckrfs";
	char *argv[] = {name, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	int r;

	fs_dir_operations(&ops);
	fs_readdir_operations(&ops);
	fs_file_operations(&ops);
	fs_xattr_operations(&ops);
	fs->session = fuse_session_new(&args, &ops, sizeof(ops), fs);
	fuse_opt_free_args(&args);
	if (!fs->session)
		return error_set(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot make a FUSE session");
	r = fs_transport_attach(fs, fs->p.fuse_fd);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot attach to the FUSE device") : 0;
}

int fs_new(const struct fs_params *params, struct fs **ret, struct error *err)
{
	struct fs *fs = calloc(1, sizeof(*fs));
	int r;

	if (!fs)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot start the file system");
	fs->p = *params;
	pthread_mutex_init(&fs->handles_lock, NULL);
	pthread_mutex_init(&fs->root_lock, NULL);
	gate_init(&fs->gate);
	fs->attr_timeout = (double)params->attr_timeout_ms / 1000;
	fs->entry_timeout = (double)params->entry_timeout_ms / 1000;
	fs->negative_timeout = (double)params->negative_timeout_ms / 1000;
	fs->keep_cache = !params->shared;
	fs->writeback = params->writeback && !params->shared && format_owns_content(params->format);
	fs->self_uid = geteuid();
	fs->self_gid = getegid();
	r = node_table_new(params->root_fd, cached_dirs(), &fs->nodes);
	if (r < 0)
		error_errno(err, r, EXIT_STATUS_FAILED, "cannot open the volume's root directory");
	if (r == 0) {
		node_table_set_release(fs->nodes, fs_passthrough_forget, fs);
		fs_passthrough_init(fs);
		r = session_new(fs, err);
	}
	if (r == 0)
		r = fs_loop_new(fs, params->threads, &fs->loop);
	if (r < 0) {
		fs_free(fs);
		return r;
	}
	*ret = fs;
	return 0;
}

bool fs_has_handles(const struct fs *fs)
{
	return node_table_has_handles(fs->nodes);
}

int fs_serve(struct fs *fs)
{
	return fs_loop_run(fs->loop);
}

void fs_stop(struct fs *fs)
{
	fs_loop_stop(fs->loop);
}

static void free_handle(void *ctx, void *item)
{
	fs_handle_free(ctx, item);
}

void fs_free(struct fs *fs)
{
	if (!fs)
		return;
	fs_loop_free(fs->loop);
	if (fs->session)
		fuse_session_destroy(fs->session);
	slots_each(&fs->handles, free_handle, fs);
	slots_free(&fs->handles);
	node_table_free(fs->nodes);
	pthread_mutex_destroy(&fs->handles_lock);
	pthread_mutex_destroy(&fs->root_lock);
	gate_destroy(&fs->gate);
	free(fs);
}
