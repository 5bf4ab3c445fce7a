/* SPDX-License-Identifier: MIT */
#include "tree_remove.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "store.h"

/* OPEN_LEVELS: levels that have an fd; those further up are opened again when it is their turn. */
enum { OPEN_LEVELS = 64, ENTRIES_SIZE = 4096 };

/* A directory that is being emptied. */
struct level {
	struct level *up;
	int fd; /* -1: far up */
	dev_t dev;
	ino_t ino;
	bool removed; /* something, since it was read from its beginning */
	bool over;    /* what is left cannot be removed */
	ssize_t at, n;
	char *entries; /* NULL without fd */
	char name[];
};

struct walk {
	const struct tree_remove *how;
	struct level *top; /* the innermost one */
	int failed;        /* the first failure */
};

static void level_close(struct level *l)
{
	cleanup_close(&l->fd);
	l->fd = -1;
	free(steal_ptr(&l->entries));
	l->at = l->n = 0;
}

static void level_free(struct level *l)
{
	level_close(l);
	free(l);
}

/* Takes fd. */
static int level_open(struct level *l, int fd)
{
	if (fd < 0)
		return fd;
	l->fd = fd;
	l->entries = malloc(ENTRIES_SIZE);
	return l->entries ? 0 : -ENOMEM;
}

/* Is it the directory that it was when it was found? */
static int level_reopen(struct level *l, int below_fd)
{
	struct stat st;
	int r = level_open(l, store_open_parent(below_fd));

	if (r == 0)
		r = store_stat_fd(l->fd, &st);
	return r == 0 && (st.st_dev != l->dev || st.st_ino != l->ino) ? -ESTALE : r;
}

static void close_far(struct level *l)
{
	for (int i = 0; l && i < OPEN_LEVELS; i++)
		l = l->up;
	if (l && l->fd >= 0)
		level_close(l);
}

static int push(struct walk *w, int dir_fd, const char *name)
{
	autofd int fd = store_open_here(dir_fd, name, O_PATH | O_DIRECTORY);
	struct level *l;
	struct stat st;
	int r = fd < 0 ? fd : store_stat_fd(fd, &st);

	if (r == 0 && w->top && st.st_dev != w->top->dev)
		r = -EXDEV;
	if (r < 0)
		return r;
	/* For those who are not root. */
	if ((st.st_mode & 0700) != 0700)
		store_chmod(fd, 0700);
	l = calloc(1, sizeof(*l) + strlen(name) + 1);
	if (!l)
		return -ENOMEM;
	strcpy(l->name, name);
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	l->fd = -1;
	r = level_open(l, store_open_dir(fd, "."));
	if (r < 0) {
		level_free(l);
		return r;
	}
	l->up = w->top;
	w->top = l;
	close_far(l);
	return 0;
}

static void note(struct walk *w, int r)
{
	if (r < 0 && !w->failed)
		w->failed = r;
}

/* The innermost directory is empty, or as empty as it gets. Fails where the way back is lost. */
static int pop(struct walk *w)
{
	struct level *l = w->top, *up = l->up;
	bool far = up && up->fd < 0;
	int r = far ? level_reopen(up, l->fd) : 0;

	w->top = up;
	if (r == 0 && up) {
		int left = store_rmdir(up->fd, l->name);

		note(w, left);
		up->removed |= left == 0;
		/* It is read from its beginning, and would be entered again and again. */
		up->over |= far && left < 0;
	}
	level_free(l);
	return r;
}

/* The next entry, NULL at the end. What was removed may have hidden others: then it begins anew. */
static int next_entry(struct level *l, const struct dirent64 **ret)
{
	*ret = NULL;
	while (l->at >= l->n) {
		l->n = l->over ? 0 : store_getdents(l->fd, l->entries, ENTRIES_SIZE);
		l->at = 0;
		if (l->n < 0)
			return (int)l->n;
		if (l->n > 0)
			break;
		if (!l->removed || l->over)
			return 0;
		l->removed = false;
		store_rewind(l->fd);
	}
	*ret = (const void *)(l->entries + l->at);
	l->at += (*ret)->d_reclen;
	return 0;
}

static bool stays(const struct walk *w, const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
	       (!w->top->up && w->how && w->how->keep && strcmp(name, w->how->keep) == 0);
}

static void remove_file(struct walk *w, const struct dirent64 *e)
{
	struct level *l = w->top;
	int r = e->d_type == DT_DIR ? -EISDIR : store_unlink(l->fd, e->d_name);

	if (r == -EISDIR || r == -EPERM) {
		int deeper = push(w, l->fd, e->d_name);

		note(w, deeper == -ENOTDIR ? r : deeper);
		return;
	}
	if (r == 0 && w->how && w->how->removed)
		w->how->removed(w->how->ctx);
	l->removed |= r == 0;
	note(w, r == -ENOENT ? 0 : r);
}

/* One step: an entry less, or one level deeper, or one level up. */
static int step(struct walk *w)
{
	const struct dirent64 *e;

	note(w, next_entry(w->top, &e));
	if (!e)
		return pop(w);
	if (!stays(w, e->d_name))
		remove_file(w, e);
	return 0;
}

int tree_remove_contents(int dir_fd, const struct tree_remove *how)
{
	struct walk w = {.how = how};
	int r = push(&w, dir_fd, ".");

	while (r == 0 && w.top)
		r = step(&w);
	while (w.top) {
		struct level *l = steal_ptr(&w.top);

		w.top = l->up;
		level_free(l);
	}
	return w.failed ? w.failed : r;
}

int tree_remove_entry(int dir_fd, const char *name)
{
	autofd int fd = -1;
	int r = store_unlink(dir_fd, name);

	if (r == -ENOENT)
		return 0;
	if (r != -EISDIR && r != -EPERM)
		return r;
	fd = store_open_here(dir_fd, name, O_PATH | O_DIRECTORY);
	if (fd < 0)
		return fd == -ENOTDIR ? r : fd;
	r = tree_remove_contents(fd, NULL);
	return r < 0 ? r : store_rmdir(dir_fd, name);
}
