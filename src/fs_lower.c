/* SPDX-License-Identifier: MIT */
/*
 * A lower with a key of its own (fscrypt) drops its files when that is taken away, but for those that are in
 * use. So a locked mount keeps none of them open: nodes and handles stay, and find their files again by the
 * node's handle or place. What is asked of the root meanwhile is answered from a copy.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "fs_impl.h"
#include "store.h"
#include "util.h"

enum { IDS = 64 };

/* ---- the root while it is away ---- */

void fs_lower_remember(struct fs *fs)
{
	struct stat st = {0};
	struct statvfs statvfs = {0};

	if (!fs->p.lower_let_go)
		return;
	store_stat_fd(fs->p.root_fd, &st);
	store_statvfs(fs->p.root_fd, &statvfs);
	pthread_mutex_lock(&fs->root_lock);
	fs->root_stat = st;
	fs->root_statvfs = statvfs;
	pthread_mutex_unlock(&fs->root_lock);
}

void fs_lower_root_stat(struct fs *fs, struct stat *ret)
{
	pthread_mutex_lock(&fs->root_lock);
	*ret = fs->root_stat;
	pthread_mutex_unlock(&fs->root_lock);
}

void fs_lower_root_statvfs(struct fs *fs, struct statvfs *ret)
{
	pthread_mutex_lock(&fs->root_lock);
	*ret = fs->root_statvfs;
	pthread_mutex_unlock(&fs->root_lock);
}

/* ---- directory streams ---- */

/* Calls each for all handles with an id; -errno of the first that fails, after all. */
static int for_handles(struct fs *fs, int (*each)(struct fs *fs, uint64_t id))
{
	uint64_t ids[IDS];
	uint32_t at = 0;
	size_t n;
	int r = 0;

	do {
		pthread_mutex_lock(&fs->handles_lock);
		n = slots_ids(&fs->handles, &at, ids, IDS);
		pthread_mutex_unlock(&fs->handles_lock);
		for (size_t i = 0; i < n; i++) {
			int one = each(fs, ids[i]);

			r = r ? r : one;
		}
	} while (n);
	return r;
}

/* Its place in the directory stays; the names that were read ahead do not. The handle may be released at any
 * time, but not while it is in the table and we have the table's lock. */
static int let_stream_go(struct fs *fs, uint64_t id)
{
	char *dents = NULL;
	struct fs_handle *h;
	int fd = -1;

	pthread_mutex_lock(&fs->handles_lock);
	h = slots_get(&fs->handles, id);
	if (h && !h->file) {
		fd = steal_fd(&h->fd);
		dents = steal_ptr(&h->dents);
		h->at = h->end = 0;
	}
	pthread_mutex_unlock(&fs->handles_lock);
	free_wiped(dents);
	cleanup_close(&fd);
	return 0;
}

/* A stream that cannot be opened again answers EBADF. */
static int take_stream(struct fs *fs, uint64_t id)
{
	struct node *node = NULL;
	struct fs_handle *h;
	autofd int fd = -1;

	pthread_mutex_lock(&fs->handles_lock);
	h = slots_get(&fs->handles, id);
	if (h && !h->file && h->fd < 0)
		node = node_get(fs->nodes, h->node->id);
	pthread_mutex_unlock(&fs->handles_lock);
	if (!node)
		return 0;
	fd = node_open(fs->nodes, node, O_RDONLY | O_DIRECTORY);
	pthread_mutex_lock(&fs->handles_lock);
	h = slots_get(&fs->handles, id);
	if (h && fd >= 0 && lseek(fd, (off_t)h->next, SEEK_SET) >= 0)
		h->fd = steal_fd(&fd);
	pthread_mutex_unlock(&fs->handles_lock);
	node_put(fs->nodes, node);
	return 0;
}

/* ---- files ---- */

/* Calls each for all inodes that the kernel knows; -errno of the first that fails, after all. */
static int for_nodes(struct fs *fs, int (*each)(struct fs *fs, struct node *node))
{
	uint64_t ids[IDS];
	uint32_t at = 0;
	size_t n;
	int r = 0;

	while ((n = node_ids(fs->nodes, &at, ids, IDS))) {
		for (size_t i = 0; i < n; i++) {
			struct node *node = node_get(fs->nodes, ids[i]);
			int one = node ? each(fs, node) : 0;

			node_put(fs->nodes, node);
			r = r ? r : one;
		}
	}
	return r;
}

static int let_file_go(struct fs *fs, struct node *node)
{
	struct format_file *file = fs_file_if_open(fs, node);

	if (!file) {
		fs_passthrough_let_go(fs, node);
		return 0;
	}
	format_file_let_go(file);
	fs_file_put(fs, node);
	return 0;
}

static int open_again(struct fs *fs, struct node *node, struct format_file *file)
{
	int fd;

	if (!format_file_is_away(file))
		return 0;
	fd = node_open(fs->nodes, node, format_file_writable(file) ? O_RDWR : O_RDONLY);
	/* Somebody has removed it below us: that is for whoever uses it. */
	if (fd == -ESTALE)
		return 0;
	if (fd < 0)
		return fd;
	format_file_take(file, fd);
	return 0;
}

static int take_file(struct fs *fs, struct node *node)
{
	struct format_file *file = fs_file_if_open(fs, node);
	int r = file ? open_again(fs, node, file) : 0;

	if (file)
		fs_file_put(fs, node);
	return r;
}

/* ---- a key that ends ---- */

/* How often what was in use just now is tried again. */
enum { RENEW_TRIES = 100, RENEW_WAIT_NS = 20000000 };

static int sync_file(struct fs *fs, struct node *node)
{
	struct format_file *file = fs_file_if_open(fs, node);
	int r = 0;

	if (!file)
		return 0;
	if (format_file_writable(file) && !format_file_is_away(file))
		r = format_fsync(fs->p.format, file, false);
	fs_file_put(fs, node);
	if (r < 0)
		atomic_fetch_add(&fs->unflushed, 1);
	return r;
}

uint64_t fs_lower_sync(struct fs *fs)
{
	uint64_t before = atomic_load(&fs->unflushed);

	if (!fs->p.lower_remote)
		return 0;
	for_nodes(fs, sync_file);
	return atomic_load(&fs->unflushed) - before;
}

int fs_lower_errno(const struct fs *fs, int r)
{
	int64_t expires = atomic_load_explicit(&fs->p.stats->lower_expires, memory_order_relaxed);

	if (!fs->p.lower_remote)
		return r;
	switch (r) {
	case -EKEYEXPIRED:
	case -EKEYREVOKED:
	case -EKEYREJECTED:
		return -ENOKEY;
	case -EACCES:
	case -EPERM:
		/* Whoever has a token that has ended is a stranger to the server. */
		return expires && time(NULL) >= expires ? -ENOKEY : r;
	default:
		return r;
	}
}

static int renew_file(struct fs *fs, struct node *node)
{
	struct format_file *file = fs_file_if_open(fs, node);
	int r = 0;

	if (!file)
		return 0;
	r = format_file_renew(file, fs->renewals);
	fs_file_put(fs, node);
	return r;
}

/* The number of the fd stays. Whoever reads the directory just now is not disturbed: -EAGAIN. */
static int renew_stream(struct fs *fs, uint64_t id)
{
	struct fs_handle *h;
	int fd, r = 0;

	pthread_mutex_lock(&fs->handles_lock);
	h = slots_get(&fs->handles, id);
	if (h && !h->file && h->fd >= 0) {
		r = -pthread_mutex_trylock(&h->lock);
		if (r == -EBUSY)
			r = -EAGAIN;
		if (r == 0) {
			fd = store_reopen(h->fd, O_RDONLY | O_DIRECTORY);
			if (fd < 0 || lseek(fd, lseek(h->fd, 0, SEEK_CUR), SEEK_SET) < 0 ||
			    dup3(fd, h->fd, O_CLOEXEC) < 0)
				r = fd < 0 ? fd : -errno;
			cleanup_close(&fd);
			pthread_mutex_unlock(&h->lock);
		}
	}
	pthread_mutex_unlock(&fs->handles_lock);
	return r;
}

int fs_renew(struct fs *fs, struct error *err)
{
	struct timespec wait = {.tv_nsec = RENEW_WAIT_NS};
	int r = 0, streams = -EAGAIN;

	if (gate_state(&fs->gate) == GATE_SHUT)
		return 0;
	fs->renewals = fs->renewals == UINT32_MAX ? 1 : fs->renewals + 1;
	for (int tries = 0; tries < RENEW_TRIES && streams == -EAGAIN; tries++) {
		if (tries)
			nanosleep(&wait, NULL);
		r = for_nodes(fs, renew_file);
		streams = for_handles(fs, renew_stream);
	}
	/* What was being opened when the new key came may be among them only now. */
	if (r == 0)
		r = for_nodes(fs, renew_file);
	r = r < 0 ? r : streams;
	return r < 0 ? error_errno(
			       err, r, EXIT_STATUS_FAILED,
			       "files that are open cannot be opened with the new key, and go on with the "
			       "old one until that ends")
		     : 0;
}

/* ---- all of it ---- */

/* The number of the root's fd is known in many places, and stays taken. */
static int replace_root(struct fs *fs, int fd)
{
	return dup3(fd, fs->p.root_fd, O_CLOEXEC) < 0 ? -errno : 0;
}

void fs_lower_let_go(struct fs *fs)
{
	if (!fs->p.lower_let_go)
		return;
	format_let_go(fs->p.format);
	for_nodes(fs, let_file_go);
	for_handles(fs, let_stream_go);
	node_let_go(fs->nodes);
	/* /dev/null, which is all that the server has for standard streams */
	replace_root(fs, STDIN_FILENO);
}

int fs_lower_take(struct fs *fs, int root_fd)
{
	int r = fs->p.lower_let_go && root_fd >= 0 ? replace_root(fs, root_fd) : 0;

	if (!fs->p.lower_let_go || r < 0)
		return r;
	r = node_take(fs->nodes, root_fd);
	if (r == 0)
		r = for_nodes(fs, take_file);
	if (r == 0)
		r = for_handles(fs, take_stream);
	return r;
}
