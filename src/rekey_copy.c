/* SPDX-License-Identifier: MIT */
/*
 * Copying. An object is made from nothing, and gets its times last of all: so one that has the times of the
 * old one is whole, and a later run lets it be. Only if the old one was changed since (its ctime is later),
 * or nothing but its time is right, it is made anew.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "rekey_impl.h"
#include "store.h"
#include "tree_remove.h"
#include "util.h"

bool copy_same_stat(const struct stat *old_st, const struct stat *new_st)
{
	return old_st->st_mode == new_st->st_mode && old_st->st_uid == new_st->st_uid &&
	       old_st->st_gid == new_st->st_gid && old_st->st_rdev == new_st->st_rdev &&
	       (S_ISDIR(old_st->st_mode) || old_st->st_size == new_st->st_size) &&
	       old_st->st_mtim.tv_sec == new_st->st_mtim.tv_sec &&
	       old_st->st_mtim.tv_nsec == new_st->st_mtim.tv_nsec;
}

bool copy_has_name(struct rekey *k, const struct walk_entry *e)
{
	struct format_dir dir = walk_new(e->dir);
	char name[NAME_MAX + 1];

	return format_name_decode(k->fresh, &dir, e->new_name.disk, name) == 0 && strcmp(name, e->name) == 0;
}

static bool later(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec > b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec > b->tv_nsec);
}

/* Did an earlier run copy it, and nobody change it since? */
static bool is_copied(struct rekey *k, const struct walk_entry *e)
{
	autofd int fd = store_open(e->dir->new_fd, e->new_name.disk, O_PATH, 0);
	struct stat st;

	if (fd < 0 || store_stat_fd(fd, &st) < 0)
		return false;
	format_attr(k->fresh, fd, &st);
	return copy_same_stat(&e->st, &st) && !later(&e->st.st_ctim, &st.st_ctim) &&
	       (e->st.st_nlink > 1 || st.st_nlink == 1) && copy_has_name(k, e);
}

/* ---- metadata ---- */

static int copy_xattrs(struct rekey *k, int old_fd, int new_fd)
{
	struct generation_xattrs want, have;
	int r = generation_xattrs_read(k->old, old_fd, &want);

	if (r < 0)
		return r;
	r = generation_xattrs_read(k->fresh, new_fd, &have);
	if (r == 0)
		r = generation_xattrs_write(k->fresh, new_fd, &have, &want);
	generation_xattrs_free(&want);
	generation_xattrs_free(&have);
	return r;
}

int copy_metadata(struct rekey *k, int old_fd, const struct stat *st, int new_fd)
{
	const struct timespec times[2] = {st->st_atim, st->st_mtim};
	struct stat now;
	int r = store_stat_fd(new_fd, &now);

	/* In this order: a change of the owner takes away set-user-ID and capabilities, an ACL sets bits of
	 * the mode, and a mode without writing allows no more attributes. */
	if (r == 0 && (now.st_uid != st->st_uid || now.st_gid != st->st_gid))
		r = store_chown(new_fd, st->st_uid, st->st_gid);
	if (r == 0)
		r = copy_xattrs(k, old_fd, new_fd);
	if (r == 0 && !S_ISLNK(st->st_mode))
		r = store_chmod(new_fd, st->st_mode & 07777);
	return r < 0 ? r : store_utimens(new_fd, times);
}

/* ---- contents ---- */

int copy_open_old(struct rekey *k, const struct walk_entry *e, struct format_file **ret)
{
	/* O_NONBLOCK: nobody may have put a FIFO there meanwhile, but a volume's owner is not to be trusted.
	 */
	int flags = O_RDONLY | O_NONBLOCK;
	autofd int fd = store_open(e->dir->old_fd, e->old_disk, flags | O_NOATIME, 0);
	struct stat st;
	int r;

	if (fd == -EPERM)
		fd = store_open(e->dir->old_fd, e->old_disk, flags, 0);
	r = fd < 0 ? fd : store_stat_fd(fd, &st);
	if (r < 0)
		return r;
	if (st.st_ino != e->st.st_ino || st.st_dev != e->st.st_dev)
		return -ESTALE;
	return format_file_new(k->old, steal_fd(&fd), false, ret);
}

int copy_next_data(struct format *f, struct format_file *file, uint64_t offset, uint64_t *ret)
{
	int r = format_seek(f, file, offset, SEEK_DATA, ret);

	if (r == -ENXIO)
		*ret = UINT64_MAX;
	else if (r == -EINVAL || r == -EOPNOTSUPP)
		*ret = offset; /* the lower knows no holes */
	else
		return r;
	return 0;
}

static int write_all(struct rekey *k, struct format_file *out, const uint8_t *data, size_t size,
		     uint64_t offset)
{
	while (size) {
		ssize_t n = format_write(k->fresh, out, &k->io[1], data, size, offset);

		if (n < 0)
			return (int)n;
		data += n;
		size -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int copy_range(struct rekey *k, struct format_file *in, struct format_file *out, uint64_t offset,
		      uint64_t end)
{
	while (offset < end) {
		size_t want = (size_t)min_u64(end - offset, FORMAT_IO_MAX);
		const uint8_t *data;
		ssize_t n = format_read(k->old, in, &k->io[0], want, offset, &data);
		int r;

		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		r = write_all(k, out, data, (size_t)n, offset);
		if (r < 0)
			return r;
		offset += (uint64_t)n;
		rekey_count(k, 0, (uint64_t)n);
	}
	return 0;
}

static int copy_content(struct rekey *k, struct format_file *in, struct format_file *out, uint64_t size)
{
	uint64_t offset = 0, end;
	int r = 0;

	while (r == 0 && offset < size) {
		r = copy_next_data(k->old, in, offset, &offset);
		if (r < 0 || offset >= size)
			break;
		if (format_seek(k->old, in, offset, SEEK_HOLE, &end) < 0 || end <= offset)
			end = size;
		r = copy_range(k, in, out, offset, min_u64(end, size));
		offset = end;
	}
	return r < 0 ? r : format_truncate(k->fresh, out, &k->io[1], size);
}

/* ---- objects ---- */

static int make_file(struct rekey *k, const struct walk_entry *e)
{
	struct format_file *in = NULL, *out = NULL;
	struct format_dir dir = walk_new(e->dir);
	int fd, r = copy_open_old(k, e, &in);

	if (r < 0)
		return r;
	fd = format_create(k->fresh, &dir, &e->new_name, O_RDWR | O_CREAT | O_EXCL, 0600);
	r = fd < 0 ? fd : format_file_new(k->fresh, fd, true, &out);
	if (r == 0)
		r = copy_content(k, in, out, (uint64_t)e->st.st_size);
	format_file_free(in);
	if (out)
		format_file_free(out);
	return r;
}

static int make_symlink(struct rekey *k, const struct walk_entry *e)
{
	struct format_dir dir = walk_new(e->dir);
	char target[PATH_MAX];
	int r = format_readlink(k->old, e->old_fd, target, sizeof(target));

	return r < 0 ? r : format_symlink(k->fresh, target, &dir, &e->new_name);
}

static int make_object(struct rekey *k, const struct walk_entry *e)
{
	struct format_dir dir = walk_new(e->dir);
	autofd int fd = -1;
	int r;

	if (S_ISREG(e->st.st_mode))
		r = make_file(k, e);
	else if (S_ISLNK(e->st.st_mode))
		r = make_symlink(k, e);
	else
		r = format_mknod(k->fresh, &dir, &e->new_name, (e->st.st_mode & S_IFMT) | 0600,
				 e->st.st_rdev);
	if (r < 0)
		return r;
	fd = store_open(dir.fd, e->new_name.disk, O_PATH, 0);
	return fd < 0 ? fd : copy_metadata(k, e->old_fd, &e->st, fd);
}

/* ---- hard links ---- */

/* The entry's path in the new generation, as on disk, malloc'ed. */
static char *new_path(const struct walk_entry *e)
{
	size_t size = strlen(e->new_name.disk) + 1;
	char *path, *at;

	for (const struct walk_dir *d = e->dir; d->up; d = d->up)
		size += strlen(d->new_disk) + 1;
	path = malloc(size);
	if (!path)
		return NULL;
	at = path + size - strlen(e->new_name.disk) - 1;
	strcpy(at, e->new_name.disk);
	for (const struct walk_dir *d = e->dir; d->up; d = d->up) {
		*--at = '/';
		at -= strlen(d->new_disk);
		memcpy(at, d->new_disk, strlen(d->new_disk));
	}
	return path;
}

/* One component after the other: such a path may be longer than the kernel takes. */
static int open_path(int root_fd, const char *path)
{
	autofd int fd = store_open(root_fd, ".", O_PATH | O_DIRECTORY, 0);

	while (fd >= 0 && *path) {
		char name[NAME_MAX + 1];
		size_t n = strcspn(path, "/");
		int next;

		snprintf(name, sizeof(name), "%.*s", (int)n, path);
		next = store_open(fd, name, O_PATH, 0);
		close(fd);
		fd = next;
		path += n + (path[n] == '/');
	}
	return steal_fd(&fd);
}

/* One more name for what was copied under another. */
static int make_link(struct rekey *k, const struct walk_entry *e, const struct link *link)
{
	struct format_dir dir = walk_new(e->dir);
	autofd int fd = -1;
	struct stat st;
	int r;

	if (store_stat(dir.fd, e->new_name.disk, &st) == 0 && st.st_ino == link->new_ino &&
	    copy_has_name(k, e))
		return 0;
	r = tree_remove_entry(dir.fd, e->new_name.disk);
	if (r < 0)
		return r;
	fd = open_path(k->new_root, link->path);
	return fd < 0 ? fd : format_link(k->fresh, fd, &dir, &e->new_name);
}

static int remember_link(struct rekey *k, const struct walk_entry *e)
{
	struct stat st;
	char *path;
	int r = store_stat(e->dir->new_fd, e->new_name.disk, &st);

	if (r < 0)
		return r;
	path = new_path(e);
	return path ? links_add(&k->links, e->st.st_ino, st.st_ino, path) : -ENOMEM;
}

static int copy_file(struct rekey *k, const struct walk_entry *e)
{
	const struct link *link = e->st.st_nlink > 1 ? links_find(&k->links, e->st.st_ino) : NULL;
	int r = 0;

	if (link) {
		r = make_link(k, e, link);
		return r < 0 ? walk_fail(k, e->dir, e->name, "link", r) : 0;
	}
	if (!is_copied(k, e)) {
		r = tree_remove_entry(e->dir->new_fd, e->new_name.disk);
		if (r == 0)
			r = make_object(k, e);
	}
	if (r == 0 && e->st.st_nlink > 1)
		r = remember_link(k, e);
	return r < 0 ? walk_fail(k, e->dir, e->name, "copy", r) : 0;
}

/* ---- directories ---- */

/* What an earlier run made, if it is good: it may have its mode already. */
static int reopen_dir(struct rekey *k, const struct walk_entry *e)
{
	autofd int path_fd = store_open(e->dir->new_fd, e->new_name.disk, O_PATH | O_DIRECTORY, 0);
	autofd int fd = -1;
	uint8_t iv[16];

	if (path_fd < 0)
		return path_fd;
	store_chmod(path_fd, 0700);
	fd = store_open_dir(e->dir->new_fd, e->new_name.disk);
	if (fd >= 0 && (format_dir_iv(k->fresh, fd, iv) < 0 || !copy_has_name(k, e)))
		return -ENOTDIR;
	return steal_fd(&fd);
}

static int copy_enter(struct rekey *k, const struct walk_entry *e)
{
	struct format_dir dir = walk_new(e->dir);
	int fd = reopen_dir(k, e), r;

	if (fd >= 0)
		return fd;
	r = tree_remove_entry(dir.fd, e->new_name.disk);
	if (r == 0)
		r = format_mkdir(k->fresh, &dir, &e->new_name, 0700);
	if (r < 0)
		return walk_fail(k, e->dir, e->name, "copy", r);
	return store_open_dir(dir.fd, e->new_name.disk);
}

static int drop_extra(struct rekey *k, const struct walk_dir *d, const char *disk)
{
	char text[NAME_MAX + 8];
	int r = tree_remove_entry(d->new_fd, disk);

	if (r == 0 && strncmp(disk, "gocryptfs.longname.", 19) == 0) {
		snprintf(text, sizeof(text), "%s.name", disk);
		store_unlink(d->new_fd, text);
	}
	return r;
}

/* The root gets its owner and mode when all is done: until then nobody else comes in. */
static int copy_leave(struct rekey *k, const struct walk_dir *d)
{
	int r = k->resumed ? walk_extras(k, d, drop_extra) : 0;

	if (r == 0 && d->up)
		r = copy_metadata(k, d->old_fd, &d->st, d->new_fd);
	return r < 0 ? walk_fail(k, d->up, d->name, "copy", r) : 0;
}

int copy_tree(struct rekey *k)
{
	static const struct walk_ops ops = {copy_file, copy_enter, copy_leave};

	links_free(&k->links);
	k->phase = REKEY_COPYING;
	return walk(k, &ops);
}
