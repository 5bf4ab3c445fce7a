/* SPDX-License-Identifier: MIT */
/*
 * Inodes without file handles: found again by the directory they are in and their name there, and known by
 * device, inode number and time of birth. So the number of open fds is bounded. A name that goes away or
 * moves through this mount takes its node along; one that others move is found to be stale.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "node_impl.h"
#include "util.h"

enum { PLACE_TRIES = 64, WAY_ROOM = 8 };

struct node_place *node_place_new(struct node *dir, const char *name)
{
	size_t size = strlen(name) + 1;
	struct node_place *place = malloc(sizeof(*place) + size);

	if (!place)
		return NULL;
	place->dir = dir;
	memcpy(place->name, name, size);
	return place;
}

bool node_place_is(const struct node *n, const struct node *dir, const char *name)
{
	return n->place && n->place->dir == dir && strcmp(n->place->name, name) == 0;
}

struct node *node_place_change(struct node_table *t, struct node *n, struct node_place *place)
{
	struct node_place *old = n->place;
	struct node *gone;

	n->place = place;
	if (place)
		place->dir->children++;
	if (!old)
		return NULL;
	t->moves++;
	old->dir->children--;
	gone = node_drop(t, old->dir);
	free(old);
	return gone;
}

int node_place_spare_fd(struct node *n)
{
	return n->place && !n->refs && !n->fd_cached ? steal_fd(&n->fd) : -1;
}

/* ---- opening ---- */

/* From a directory that has an fd down to the node that is wanted, which is the first step. */
struct way {
	struct node *base;
	int base_fd;
	size_t n, room;
	struct step {
		struct node *node; /* a reference */
		char name[256];
	} * steps;
};

static int way_add(struct way *w, struct node *n)
{
	size_t length = strlen(n->place->name);

	if (w->n == w->room) {
		size_t room = w->room ? w->room * 2 : WAY_ROOM;
		struct step *steps = reallocarray(w->steps, room, sizeof(*steps));

		if (!steps)
			return -ENOMEM;
		w->steps = steps;
		w->room = room;
	}
	if (length >= sizeof(w->steps->name))
		return -ENAMETOOLONG;
	memcpy(w->steps[w->n].name, n->place->name, length + 1);
	w->steps[w->n++].node = n;
	n->refs++;
	return 0;
}

static int way_climb(struct node_table *t, struct node *n, struct way *w, uint64_t *ret_moves)
{
	int r = 0;

	node_lock(t);
	*ret_moves = t->moves;
	while (r == 0 && n->fd < 0) {
		r = n->place ? way_add(w, n) : -ESTALE;
		if (r == 0)
			n = n->place->dir;
	}
	if (r == 0) {
		w->base = n;
		w->base_fd = n->fd;
		n->refs++;
	}
	node_unlock(t);
	return r;
}

/* Opens a step's name, if it is still that inode. */
static int step_open(struct node_table *t, int dir_fd, const struct step *step)
{
	autofd int fd = store_open(dir_fd, step->name, O_PATH, 0);
	struct node_key key;
	struct stat st;
	int r;

	if (fd < 0)
		return fd;
	r = node_key_of(t, fd, &key, &st);
	if (r < 0)
		return r;
	return node_key_matches(&key, step->node) ? steal_fd(&fd) : -ESTALE;
}

static int way_descend(struct node_table *t, const struct way *w)
{
	int fd = w->base_fd;
	bool owned = false;

	/* Another thread was faster: its fd is the node's. */
	if (w->n == 0)
		return store_reopen(fd, O_PATH);
	for (size_t i = w->n; i-- > 0 && fd >= 0;) {
		int next = step_open(t, fd, &w->steps[i]);

		if (owned)
			close(fd);
		owned = true;
		fd = next;
		if (i > 0 && fd >= 0)
			fd = node_cache_offer(t, w->steps[i].node, fd, &owned);
	}
	return fd;
}

static int open_once(struct node_table *t, struct node *n, uint64_t *ret_moves)
{
	struct way w = {0};
	int r = way_climb(t, n, &w, ret_moves);

	if (r == 0)
		r = way_descend(t, &w);
	for (size_t i = 0; i < w.n; i++)
		node_put(t, w.steps[i].node);
	node_put(t, w.base);
	free(w.steps);
	return r;
}

int node_place_open(struct node_table *t, struct node *n)
{
	for (int tries = 0; tries < PLACE_TRIES; tries++) {
		uint64_t moves;
		bool moved;
		int r = open_once(t, n, &moves);

		if (r != -ENOENT && r != -ESTALE && r != -ENOTDIR && r != -ELOOP)
			return r;
		/* Gone, or did it move while we were looking? */
		node_lock(t);
		moved = t->moves != moves;
		node_unlock(t);
		if (!moved)
			break;
	}
	return -ESTALE;
}

/* ---- names that change ---- */

struct node *node_leaving(struct node_table *t, struct node *dir, int dir_fd, const char *name)
{
	struct node *n = NULL, *gone = NULL;
	autofd int fd = -1;
	struct node_key key;
	struct stat st;

	if (t->handles)
		return NULL;
	fd = store_open(dir_fd, name, O_PATH, 0);
	if (fd < 0 || node_key_of(t, fd, &key, &st) < 0)
		return NULL;
	node_lock(t);
	n = node_find(t, &key);
	if (n && n != t->root && (!n->place || node_place_is(n, dir, name))) {
		if (n->fd < 0)
			n->fd = steal_fd(&fd);
		n->fd_cached = false;
		n->refs++;
		gone = node_place_change(t, n, NULL);
	} else {
		n = NULL; /* it is found by another name */
	}
	node_unlock(t);
	node_dropped(t, gone);
	return n;
}

/* Whatever has the name now is to be found there. */
static void find_there(struct node_table *t, struct node *dir, int dir_fd, const char *name)
{
	autofd int fd = store_open(dir_fd, name, O_PATH, 0), spare = -1;
	struct node_place *place = fd < 0 ? NULL : node_place_new(dir, name);
	struct node *n, *gone = NULL;
	struct node_key key;
	struct stat st;

	/* Without a place it keeps its fd. */
	if (!place || node_key_of(t, fd, &key, &st) < 0) {
		free(place);
		return;
	}
	node_lock(t);
	n = node_find(t, &key);
	if (n && n != t->root && n != dir) {
		gone = node_place_change(t, n, steal_ptr(&place));
		spare = node_place_spare_fd(n);
	}
	node_unlock(t);
	node_dropped(t, gone);
	free(place);
}

/* It has other names, which we do not know: a lookup will tell. Until then its fd is one of those that may be
 * closed. What has no name any more keeps it. */
static void may_lose_fd(struct node_table *t, struct node *n)
{
	bool lost;
	struct stat st;

	node_lock(t);
	lost = !n->place;
	node_unlock(t);
	/* While it has no place, its fd stays. */
	if (lost && store_stat_fd(n->fd, &st) == 0 && st.st_nlink > 0 && !S_ISDIR(st.st_mode))
		node_cache_own(t, n);
}

void node_settle(struct node_table *t, struct node *dir, int dir_fd, const char *name, struct node *left)
{
	if (t->handles)
		return;
	find_there(t, dir, dir_fd, name);
	if (left)
		may_lose_fd(t, left);
	node_put(t, left);
}
