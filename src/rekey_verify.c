/* SPDX-License-Identifier: MIT */
/* Comparing: both trees are decrypted, and nothing may differ. What does is removed from the new one. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "rekey_impl.h"
#include "store.h"
#include "tree_remove.h"
#include "util.h"

/* ---- what one object has: 1 the same, 0 not, negative errno of the old one ---- */

static int same_xattrs(struct rekey *k, int old_fd, int new_fd)
{
	struct generation_xattrs a, b;
	int r = generation_xattrs_read(k->old, old_fd, &a);

	if (r < 0)
		return r;
	r = 0;
	if (generation_xattrs_read(k->fresh, new_fd, &b) == 0) {
		r = generation_xattrs_equal(&a, &b);
		generation_xattrs_free(&b);
	}
	generation_xattrs_free(&a);
	return r;
}

static int same_range(struct rekey *k, struct format_file *a, struct format_file *b, uint64_t offset,
		      size_t size)
{
	const uint8_t *x = NULL, *y = NULL;
	ssize_t n = format_read(k->old, a, &k->io[0], size, offset, &x), m;

	if (n < 0)
		return (int)n;
	if ((size_t)n != size)
		return -EIO;
	m = format_read(k->fresh, b, &k->io[1], size, offset, &y);
	rekey_count(k, 0, size);
	return m == n && memcmp(x, y, size) == 0;
}

/* Where both have a hole there is nothing to compare. */
static int same_content(struct rekey *k, struct format_file *a, struct format_file *b, uint64_t size)
{
	uint64_t offset = 0, x, y;
	int r = 1;

	while (r == 1 && offset < size) {
		r = copy_next_data(k->old, a, offset, &x);
		if (r < 0)
			return r;
		if (copy_next_data(k->fresh, b, offset, &y) < 0)
			return 0;
		offset = min_u64(x, y);
		if (offset >= size)
			return 1;
		r = same_range(k, a, b, offset, (size_t)min_u64(FORMAT_IO_MAX, size - offset));
		offset += FORMAT_IO_MAX;
	}
	return r;
}

static int same_file(struct rekey *k, const struct walk_entry *e)
{
	struct format_file *a = NULL, *b = NULL;
	int fd = store_open(e->dir->new_fd, e->new_name.disk, O_RDONLY | O_NONBLOCK, 0), r;

	if (fd < 0)
		return 0;
	r = format_file_new(k->fresh, fd, false, &b);
	if (r == 0)
		r = copy_open_old(k, e, &a);
	if (r == 0)
		r = same_content(k, a, b, (uint64_t)e->st.st_size);
	if (a)
		format_file_free(a);
	if (b)
		format_file_free(b);
	return r;
}

static int same_target(struct rekey *k, const struct walk_entry *e, int new_fd)
{
	char a[PATH_MAX], b[PATH_MAX];
	int r = format_readlink(k->old, e->old_fd, a, sizeof(a));

	if (r < 0)
		return r;
	return format_readlink(k->fresh, new_fd, b, sizeof(b)) == 0 && strcmp(a, b) == 0;
}

/* ---- hard links ---- */

/* 1: another name of an inode that was compared under its first one. 0: not the same; 2: to be compared. */
static int check_link(struct rekey *k, const struct walk_entry *e, const struct stat *new_st)
{
	struct link *link;
	int r;

	if (e->st.st_nlink == 1)
		return new_st->st_nlink == 1 ? 2 : 0;
	link = links_find(&k->links, e->st.st_ino);
	if (link) {
		link->seen++;
		return link->new_ino == new_st->st_ino;
	}
	r = links_add(&k->links, e->st.st_ino, new_st->st_ino, NULL);
	if (r < 0)
		return r;
	links_find(&k->links, e->st.st_ino)->names = new_st->st_nlink;
	return 2;
}

/* ---- the walk ---- */

static int same_object(struct rekey *k, const struct walk_entry *e)
{
	autofd int fd = store_open(e->dir->new_fd, e->new_name.disk, O_PATH, 0);
	struct stat st;
	int r;

	if (fd < 0 || store_stat_fd(fd, &st) < 0 || !copy_has_name(k, e))
		return 0;
	r = check_link(k, e, &st);
	if (r != 2)
		return r;
	format_attr(k->fresh, fd, &st);
	if (!copy_same_stat(&e->st, &st))
		return 0;
	r = same_xattrs(k, e->old_fd, fd);
	if (r == 1 && S_ISREG(e->st.st_mode))
		r = same_file(k, e);
	else if (r == 1 && S_ISLNK(e->st.st_mode))
		r = same_target(k, e, fd);
	return r;
}

static int verify_file(struct rekey *k, const struct walk_entry *e)
{
	int r = same_object(k, e);

	if (r < 0)
		return walk_fail(k, e->dir, e->name, "compare", r);
	if (r == 1)
		return 0;
	k->mismatches++;
	r = tree_remove_entry(e->dir->new_fd, e->new_name.disk);
	return r < 0 ? walk_fail(k, e->dir, e->name, "remove the bad copy of", r) : 0;
}

static int verify_enter(struct rekey *k, const struct walk_entry *e)
{
	autofd int fd = store_open_dir(e->dir->new_fd, e->new_name.disk);
	uint8_t iv[16];

	if (fd >= 0 && copy_has_name(k, e) && format_dir_iv(k->fresh, fd, iv) == 0)
		return steal_fd(&fd);
	k->mismatches++;
	return -ENOENT;
}

static int count_extra(struct rekey *k, const struct walk_dir *d, const char *disk)
{
	k->mismatches++;
	return 0;
}

static int same_dir(struct rekey *k, const struct walk_dir *d)
{
	struct stat st;
	int r = store_stat_fd(d->new_fd, &st);

	if (r < 0 || !copy_same_stat(&d->st, &st))
		return r < 0 ? r : 0;
	return same_xattrs(k, d->old_fd, d->new_fd);
}

static int verify_leave(struct rekey *k, const struct walk_dir *d)
{
	int r = walk_extras(k, d, count_extra);

	if (r == 0)
		r = d->up ? same_dir(k, d) : 1;
	if (r == 0)
		k->mismatches++; /* copying sets it anyway */
	return r < 0 ? walk_fail(k, d->up, d->name, "compare", r) : 0;
}

int verify_tree(struct rekey *k)
{
	static const struct walk_ops ops = {verify_file, verify_enter, verify_leave};

	links_free(&k->links);
	k->phase = REKEY_COMPARING;
	k->mismatches = 0;
	return walk(k, &ops);
}
