/* SPDX-License-Identifier: MIT */
/*
 * The old tree, and the new one in step with it. Directories are read as a stream, and kept on a list of
 * their own, not on the stack: neither their size nor the depth of the tree is bounded but by the number of
 * fds (two for each level).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "rekey_impl.h"
#include "store.h"

struct format_dir walk_old(const struct walk_dir *d)
{
	return (struct format_dir){.fd = d->old_fd, .iv = d->old_iv, .root = !d->up};
}

struct format_dir walk_new(const struct walk_dir *d)
{
	return (struct format_dir){.fd = d->new_fd, .iv = d->new_iv, .root = !d->up};
}

/* ---- errors ---- */

/* Puts "/name" before what stands at *at in buf, or "..." when there is no room. false: no more. */
static bool path_prepend(char *buf, char **at, const char *name, bool slash)
{
	size_t n = strlen(name);

	if ((size_t)(*at - buf) < n + 5) {
		*at -= 4;
		memcpy(*at, ".../", 4);
		return false;
	}
	if (slash)
		*--*at = '/';
	*at -= n;
	memcpy(*at, name, n);
	return true;
}

int walk_fail(struct rekey *k, const struct walk_dir *d, const char *name, const char *verb, int code)
{
	char buf[512], *at = buf + sizeof(buf) - 1;
	bool more = true;

	if (k->err->code < 0)
		return code;
	*at = '\0';
	if (name)
		more = path_prepend(buf, &at, name, false);
	for (; more && d && d->up; d = d->up)
		more = path_prepend(buf, &at, d->name, *at != '\0');
	if (code == -EIO) {
		error_set(k->err, code, EXIT_STATUS_FAILED, "cannot %s \"%s\": it is damaged", verb, at);
		error_hint(k->err, "ckrfs check %s", k->params->source);
	} else if (code == -ENOSPC || code == -EDQUOT) {
		error_errno(
			k->err, code, EXIT_STATUS_FAILED,
			"cannot %s \"%s\": the volume is as it was, and rekey goes on once there is space",
			verb, at);
		error_hint(k->err, "ckrfs rekey --abort %s   (or make space, and run it again)",
			   k->params->source);
	} else {
		error_errno(k->err, code, EXIT_STATUS_FAILED, "cannot %s \"%s\"", verb, at);
	}
	return code;
}

/* ---- levels ---- */

static void dir_free(struct walk_dir *d)
{
	if (d->old_fd >= 0)
		close(d->old_fd);
	if (d->new_fd >= 0)
		close(d->new_fd);
	free(d);
}

/* Takes the fds. */
static int dir_new(struct rekey *k, int old_fd, int new_fd, struct walk_dir *up, const char *name,
		   struct walk_dir **ret)
{
	struct walk_dir *d = calloc(1, sizeof(*d));
	int r;

	if (!d) {
		close(old_fd);
		close(new_fd);
		return -ENOMEM;
	}
	d->up = up;
	d->old_fd = old_fd;
	d->new_fd = new_fd;
	snprintf(d->name, sizeof(d->name), "%s", name);
	r = store_stat_fd(old_fd, &d->st);
	if (r == 0)
		r = format_dir_iv(k->old, old_fd, d->old_iv);
	if (r == 0)
		r = format_dir_iv(k->fresh, new_fd, d->new_iv);
	if (r < 0)
		dir_free(d);
	else
		*ret = d;
	return r;
}

static int root_new(struct rekey *k, struct walk_dir **ret)
{
	autofd int old_fd = store_open_dir(k->old_root, "."), new_fd = store_open_dir(k->new_root, ".");

	if (old_fd < 0 || new_fd < 0)
		return old_fd < 0 ? old_fd : new_fd;
	return dir_new(k, steal_fd(&old_fd), steal_fd(&new_fd), NULL, "", ret);
}

/* ---- entries ---- */

static bool is_state(const struct walk_dir *d, const char *disk)
{
	return !d->up && strncmp(disk, "gocryptfs.longname.ckrfs-", 25) == 0;
}

/* Names that can be nobody's: encrypted ones have no dot. */
static bool is_internal(const char *disk)
{
	return strncmp(disk, "gocryptfs.", 10) == 0 && strncmp(disk, "gocryptfs.longname.", 19) != 0;
}

/* 1: not to be copied. What is hidden because it is damaged would be lost, so that is an error. */
static int decode(struct rekey *k, struct walk_dir *d, const char *disk, char name[NAME_MAX + 1])
{
	struct format_dir dir = walk_old(d);
	int r;

	if (is_state(d, disk))
		return 1;
	k->old_damaged = false;
	r = format_name_decode(k->old, &dir, disk, name);
	if (r != -ENOENT)
		return r < 0 ? walk_fail(k, d, disk, "read the name", r) : 0;
	if (!k->old_damaged || is_internal(disk))
		return 1;
	return walk_fail(k, d, disk, "read the name", -EIO);
}

static int look(struct rekey *k, struct walk_entry *e)
{
	struct format_dir dir = walk_new(e->dir);
	int r;

	e->old_fd = store_open(e->dir->old_fd, e->old_disk, O_PATH, 0);
	r = e->old_fd < 0 ? e->old_fd : store_stat_fd(e->old_fd, &e->st);
	if (r == 0 && e->st.st_dev != e->dir->st.st_dev)
		r = -EXDEV;
	if (r == 0 && S_ISDIR(e->st.st_mode)) {
		close(e->old_fd);
		e->old_fd = store_open_dir(e->dir->old_fd, e->old_disk);
		r = e->old_fd < 0 ? e->old_fd : store_stat_fd(e->old_fd, &e->st);
	}
	if (r == 0) {
		format_attr(k->old, e->old_fd, &e->st);
		r = format_name_encode(k->fresh, &dir, e->name, &e->new_name);
	}
	return r < 0 ? walk_fail(k, e->dir, e->name, "read", r) : 0;
}

/* *top becomes the directory. */
static int go_into(struct rekey *k, const struct walk_ops *ops, struct walk_entry *e, struct walk_dir **top)
{
	int new_fd = ops->enter(k, e), r;

	if (new_fd < 0)
		return new_fd == -ENOENT && k->err->code == 0 ? 0
							      : walk_fail(k, e->dir, e->name, "copy", new_fd);
	r = dir_new(k, steal_fd(&e->old_fd), new_fd, e->dir, e->name, top);
	if (r < 0)
		return walk_fail(k, e->dir, e->name, "read", r);
	snprintf((*top)->new_disk, sizeof((*top)->new_disk), "%s", e->new_name.disk);
	return 0;
}

static int visit(struct rekey *k, const struct walk_ops *ops, const char *disk, struct walk_dir **top)
{
	struct walk_entry e = {.dir = *top, .old_disk = disk, .old_fd = -1};
	int r;

	if (strcmp(disk, ".") == 0 || strcmp(disk, "..") == 0)
		return 0;
	r = decode(k, e.dir, disk, e.name);
	if (r != 0)
		return r < 0 ? r : 0;
	r = look(k, &e);
	if (r == 0 && S_ISDIR(e.st.st_mode))
		r = go_into(k, ops, &e, top);
	else if (r == 0)
		r = ops->file(k, &e);
	if (e.old_fd >= 0)
		close(e.old_fd);
	if (r == 0)
		rekey_count(k, 1, 0);
	return r;
}

static int step(struct rekey *k, const struct walk_ops *ops, struct walk_dir **top)
{
	struct walk_dir *d = *top;
	const struct dirent64 *e;
	int r;

	if (d->at >= d->n) {
		d->n = store_getdents(d->old_fd, d->entries, sizeof(d->entries));
		d->at = 0;
	}
	if (d->n < 0)
		return walk_fail(k, d, NULL, "read", (int)d->n);
	if (d->n == 0) {
		r = ops->leave(k, d);
		*top = d->up;
		dir_free(d);
		return r;
	}
	e = (const void *)(d->entries + d->at);
	d->at += e->d_reclen;
	return visit(k, ops, e->d_name, top);
}

int walk(struct rekey *k, const struct walk_ops *ops)
{
	struct walk_dir *top = NULL;
	int r = root_new(k, &top);

	k->files = k->bytes = 0;
	if (r < 0)
		return walk_fail(k, NULL, "/", "read", r);
	while (r == 0 && top)
		r = step(k, ops, &top);
	while (top) {
		struct walk_dir *up = top->up;

		dir_free(top);
		top = up;
	}
	return r;
}

/* ---- what only the new tree has ---- */

/* Left by a run that was killed: the text of a long name without its object, a directory that was being made.
 */
static bool is_leftover(const struct walk_dir *d, const char *disk)
{
	char object[NAME_MAX + 1];
	size_t n = strlen(disk);
	struct stat st;

	if (strncmp(disk, "gocryptfs.diriv.", 16) == 0)
		return true;
	if (strncmp(disk, "gocryptfs.longname.", 19) != 0 || n < 5 || strcmp(disk + n - 5, ".name") != 0)
		return false;
	snprintf(object, sizeof(object), "%.*s", (int)(n - 5), disk);
	return store_stat(d->new_fd, object, &st) == -ENOENT;
}

static bool is_extra(struct rekey *k, const struct walk_dir *d, const char *disk)
{
	struct format_dir old = walk_old(d), fresh = walk_new(d);
	char name[NAME_MAX + 1];
	struct format_name there;
	struct stat st;

	if (strcmp(disk, ".") == 0 || strcmp(disk, "..") == 0 || is_state(d, disk))
		return false;
	/* What is no name: a leftover, or what the format keeps there. */
	if (format_name_decode(k->fresh, &fresh, disk, name) < 0)
		return is_leftover(d, disk) || strncmp(disk, "gocryptfs.", 10) != 0;
	return format_name_encode(k->old, &old, name, &there) < 0 ||
	       store_stat(d->old_fd, there.disk, &st) == -ENOENT;
}

int walk_extras(struct rekey *k, const struct walk_dir *d,
		int (*found)(struct rekey *k, const struct walk_dir *d, const char *disk))
{
	autofd int fd = store_open_dir(d->new_fd, ".");
	_Alignas(8) char buf[4096];
	ssize_t n = fd < 0 ? fd : 0;
	int r = 0;

	if (n < 0)
		return (int)n;
	while (r == 0 && (n = store_getdents(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t at = 0; r == 0 && at < n;) {
			const struct dirent64 *e = (const void *)(buf + at);

			if (is_extra(k, d, e->d_name))
				r = found(k, d, e->d_name);
			at += e->d_reclen;
		}
	}
	return r < 0 ? r : (int)n;
}
