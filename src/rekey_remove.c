/* SPDX-License-Identifier: MIT */
/* Removing trees of ciphertext: with the names as they are on disk, whatever they are. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "rekey_impl.h"
#include "store.h"

/* A directory that is being emptied; the innermost one first. */
struct level {
	struct level *up;
	int fd;
	char name[NAME_MAX + 1];
	bool keep_state;
	bool removed; /* something, since it was read from its beginning */
	ssize_t at, n;
	_Alignas(8) char entries[4096];
};

static int push(struct level **top, int dir_fd, const char *name, dev_t dev)
{
	autofd int fd = store_open(dir_fd, name, O_PATH | O_DIRECTORY, 0);
	struct level *l;
	struct stat st;
	int r = fd < 0 ? fd : store_stat_fd(fd, &st);

	if (r < 0)
		return r;
	if (st.st_dev != dev)
		return -EXDEV;
	/* For those who are not root. */
	if ((st.st_mode & 0700) != 0700)
		store_chmod(fd, 0700);
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->fd = store_open_dir(dir_fd, name);
	snprintf(l->name, sizeof(l->name), "%s", name);
	l->up = *top;
	*top = l;
	return l->fd < 0 ? l->fd : 0;
}

static void pop(struct level **top)
{
	struct level *l = *top;

	*top = l->up;
	if (l->fd >= 0)
		close(l->fd);
	free(l);
}

/* The next entry, NULL at the end. What was removed may have hidden others: then it begins anew. */
static int next_entry(struct level *l, const struct dirent64 **ret)
{
	uint64_t start;

	while (l->at >= l->n) {
		l->n = store_getdents(l->fd, l->entries, sizeof(l->entries));
		l->at = 0;
		if (l->n < 0)
			return (int)l->n;
		if (l->n > 0)
			break;
		if (!l->removed) {
			*ret = NULL;
			return 0;
		}
		l->removed = false;
		store_seek(l->fd, 0, SEEK_SET, &start);
	}
	*ret = (const void *)(l->entries + l->at);
	l->at += (*ret)->d_reclen;
	return 0;
}

static bool stays(const struct level *l, const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
	       (l->keep_state && strcmp(name, GENERATION_FILE) == 0);
}

/* One step: an entry less, or one level deeper, or one level up. */
static int step(struct level **top, dev_t dev, struct rekey *k)
{
	const struct dirent64 *e;
	struct level *l = *top;
	int r = next_entry(l, &e);

	if (r < 0)
		return r;
	if (!e) {
		r = l->up ? store_rmdir(l->up->fd, l->name) : 0;
		pop(top);
		return r;
	}
	if (stays(l, e->d_name))
		return 0;
	l->removed = true;
	r = e->d_type == DT_DIR ? -EISDIR : store_unlink(l->fd, e->d_name);
	if (r == -EISDIR || r == -EPERM)
		r = push(top, l->fd, e->d_name, dev);
	else if (r == 0 && k)
		rekey_count(k, 1, 0);
	return r;
}

static int remove_all(int dir_fd, bool keep_state, struct rekey *k)
{
	struct level *top = NULL;
	struct stat st;
	int r = store_stat_fd(dir_fd, &st);

	if (r == 0)
		r = push(&top, dir_fd, ".", st.st_dev);
	if (r == 0)
		top->keep_state = keep_state;
	while (r == 0 && top)
		r = step(&top, st.st_dev, k);
	while (top)
		pop(&top);
	return r;
}

int remove_contents(int dir_fd, struct rekey *k)
{
	return remove_all(dir_fd, true, k);
}

int remove_entry(int dir_fd, const char *name, struct rekey *k)
{
	autofd int fd = -1;
	int r = store_unlink(dir_fd, name);

	if (r == -ENOENT)
		return 0;
	if (r != -EISDIR && r != -EPERM)
		return r;
	fd = store_open(dir_fd, name, O_PATH | O_DIRECTORY, 0);
	if (fd < 0)
		return fd == -ENOTDIR ? r : fd;
	r = remove_all(fd, false, k);
	return r < 0 ? r : store_rmdir(dir_fd, name);
}
