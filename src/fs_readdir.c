/* SPDX-License-Identifier: MIT */
/*
 * The fs layer: reading directories. A client who reads a long one is as busy with each answer (the kernel
 * makes inodes of it) as the server was with making it. So the server goes on with the next answer while
 * nobody asks for anything: both are busy at once then. What it has made that way counts only while it cannot
 * be told from an answer made when it is asked for: nothing has been changed through the mount since, and it
 * is fresh.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs_impl.h"
#include "store.h"
#include "util.h"

enum {
	DENTS_SIZE = 32768,
	AHEAD_ROOM = 65536,
	AHEAD_STEP = 8, /* entries between two looks whether somebody asks for something */
	AHEAD_MS = 50
};

/* ---- streams ---- */

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

/* ---- one answer ---- */

/* A buffer that fills up. */
struct listing {
	fuse_req_t req; /* libfuse takes it and does not look at it: NULL when there is none */
	struct fs *fs;
	struct fs_directory *dir;
	bool plus;
	bool ahead; /* nobody waits for it yet */
	unsigned n;
	char *buf;
	size_t size, used;
};

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

/* *ret_done: no more fits in, or there is no more. */
static int list(struct listing *l, struct fs_handle *h, off_t offset, bool *ret_done)
{
	*ret_done = false;
	for (;;) {
		int r = stream_fill(h, offset, ret_done);

		if (r < 0 || *ret_done)
			return l->used ? 0 : r;
		while (h->at < h->end) {
			const struct dirent64 *e = (const void *)(h->dents + h->at);

			if (l->ahead && l->n++ % AHEAD_STEP == 0 && fs_loop_is_asked(l->fs->loop))
				return 0;
			if (list_one(l, e)) {
				*ret_done = true;
				return 0;
			}
			h->at += e->d_reclen;
			h->next = (uint64_t)e->d_off;
			offset = e->d_off;
		}
	}
}

/* ---- what changes ---- */

/* Requests after which everything else is as it was. Reading a file is not one of them: it moves a time. */
static bool is_harmless(uint32_t opcode)
{
	switch (opcode) {
	case FUSE_LOOKUP:
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_GETATTR:
	case FUSE_STATFS:
	case FUSE_GETXATTR:
	case FUSE_LISTXATTR:
	case FUSE_OPENDIR:
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
	case FUSE_RELEASEDIR:
	case FUSE_FSYNCDIR:
	case FUSE_ACCESS:
	case FUSE_INTERRUPT:
	case FUSE_LSEEK:
		return true;
	default:
		return false;
	}
}

bool fs_change_begin(struct fs *fs, const struct fuse_buf *request)
{
	const struct fuse_in_header *in = request->mem;

	if (is_harmless(in->opcode))
		return false;
	atomic_fetch_add(&fs->changes_begun, 1);
	return true;
}

void fs_change_end(struct fs *fs)
{
	atomic_fetch_add(&fs->changes_ended, 1);
}

/* False while a change is under way, or when the kernel may change files by itself. */
static bool changes_watch(struct fs *fs, uint64_t *ret_since)
{
	*ret_since = atomic_load(&fs->changes_ended);
	return atomic_load(&fs->changes_begun) == *ret_since &&
	       !(atomic_load(&fs->passthrough) && atomic_load(&fs->files_open));
}

static bool changed_since(struct fs *fs, uint64_t since)
{
	return atomic_load(&fs->changes_begun) != since;
}

/* ---- looking ahead; lock of the handle held ---- */

/* Entries that the kernel will not be told of. */
static void forget_entries(struct fs *fs, const struct fs_ahead *a)
{
	const struct fuse_direntplus *e;

	for (size_t at = 0; at < a->used; at += FUSE_DIRENTPLUS_SIZE(e)) {
		e = (const void *)(a->buf + at);
		if (e->entry_out.nodeid)
			node_forget(fs->nodes, e->entry_out.nodeid, 1);
	}
}

void fs_ahead_drop(struct fs *fs, struct fs_handle *h)
{
	struct fs_ahead *a = &h->ahead;

	if (a->made) {
		forget_entries(fs, a);
		explicit_bzero(a->buf, a->used);
		a->in_vain = true;
	}
	a->made = false;
	a->used = 0;
}

static void drop_one(void *ctx, void *item)
{
	fs_ahead_drop(ctx, item);
}

void fs_ahead_drop_all(struct fs *fs)
{
	pthread_mutex_lock(&fs->handles_lock);
	slots_each(&fs->handles, drop_one, fs);
	pthread_mutex_unlock(&fs->handles_lock);
}

/* Is what was made the beginning of the answer to that? */
static bool ahead_fits(struct fs *fs, const struct fs_ahead *a, size_t size, uint64_t offset)
{
	return a->made && a->offset == offset && a->used <= size && !changed_since(fs, a->changes) &&
	       monotonic_ms() - a->begun_ms <= AHEAD_MS;
}

/*
 * Begins the next answer, and goes on until it is full or somebody asks for something. Only for those who
 * read on: once it was in vain, the stream is left alone.
 */
static void look_further(struct fs *fs, struct fs_handle *h, struct fs_directory *dir, size_t size)
{
	struct fs_ahead *a = &h->ahead;
	struct listing l = {.fs = fs, .dir = dir, .plus = true, .ahead = true};

	if (a->in_vain || fs->p.shared || !changes_watch(fs, &a->changes))
		return;
	if (!a->buf)
		a->buf = malloc(AHEAD_ROOM);
	if (!a->buf)
		return;
	l.buf = a->buf;
	l.size = min_u64(size, AHEAD_ROOM);
	a->offset = h->next;
	a->begun_ms = monotonic_ms();
	a->made = true;
	/* What fails is tried again by the request. */
	list(&l, h, (off_t)h->next, &a->done);
	a->used = l.used;
}

/* ---- requests ---- */

/* The answer in ret->buf; continues what was made ahead. */
static int list_from(struct listing *l, struct fs_handle *h, off_t offset)
{
	struct fs_ahead *a = &h->ahead;
	bool done;

	if (!l->plus || !ahead_fits(l->fs, a, l->size, (uint64_t)offset)) {
		fs_ahead_drop(l->fs, h);
		return list(l, h, offset, &done);
	}
	memcpy(l->buf, a->buf, a->used);
	l->used = a->used;
	a->made = false;
	return a->done ? 0 : list(l, h, (off_t)h->next, &done);
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
	r = list_from(&l, h, offset);
	if (r < 0)
		fs_reply_err(req, r);
	else
		fuse_reply_buf(req, l.buf, l.used);
	/* Held across the reply: whoever releases the handle now waits. */
	if (r == 0 && plus && l.used)
		look_further(fs, h, &dir, size);
	pthread_mutex_unlock(&h->lock);
	fs_directory_put(fs, &dir);
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

void fs_readdir_operations(struct fuse_lowlevel_ops *ops)
{
	ops->opendir = op_opendir;
	ops->readdir = op_readdir;
	ops->readdirplus = op_readdirplus;
	ops->releasedir = op_releasedir;
	ops->fsyncdir = op_fsyncdir;
}
