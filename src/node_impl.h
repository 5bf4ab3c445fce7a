/* SPDX-License-Identifier: MIT */
/* What node.c (the table) and node_place.c (finding an inode again where there are no file handles) share. */
#ifndef CKRFS_NODE_IMPL_H
#define CKRFS_NODE_IMPL_H

#include "node.h"
#include "slots.h"
#include <pthread.h>

struct node_table {
	pthread_mutex_t lock;
	struct slots slots;
	struct node **buckets;
	uint32_t n_buckets; /* a power of two */
	uint32_t count, peak;
	struct node *root;
	int mount_fd; /* the root, opened for open_by_handle_at(2), which takes no O_PATH fd */
	bool handles;
	uint64_t moves;   /* counts places that changed */
	uint64_t *cached; /* ids of directories that hold an fd, as a clock */
	unsigned n_cached, hand;
	void (*release)(void *ctx, struct node *n); /* before it is freed */
	void *release_ctx;
};

/* What identifies an inode of the lower. */
struct node_key {
	struct store_handle handle; /* without handles: its time of birth */
	uint64_t dev, ino;
	uint32_t hash;
};

/* Where an inode is found again. A node without one, and without a handle, keeps its fd. */
struct node_place {
	struct node *dir; /* counted in its children */
	char name[];      /* as it stands on disk */
};

/* ---- node.c ---- */

/* The key of what is open, and its attributes. */
int node_key_of(struct node_table *t, int fd, struct node_key *ret, struct stat *ret_st);
bool node_key_matches(const struct node_key *key, const struct node *n);
/* Lock held. */
struct node *node_find(struct node_table *t, const struct node_key *key);
/* Takes n out when nobody needs it any more, and the directories that only it needed: a list for
 * node_dropped(). Lock held. */
struct node *node_drop(struct node_table *t, struct node *n);
/* Frees what node_drop() took out. Lock not held. */
void node_dropped(struct node_table *t, struct node *list);
/* Keeps fd as the node's own, if there is room and no other thread was faster. Returns the fd to use. */
int node_cache_offer(struct node_table *t, struct node *n, int fd, bool *ret_owned);

/* The fd that the node has may be closed when others need the room. */
void node_cache_own(struct node_table *t, struct node *n);

/* ---- node_place.c ---- */

/* NULL without memory. */
struct node_place *node_place_new(struct node *dir, const char *name);
/* Is that where it is, as far as n knows? Lock held. */
bool node_place_is(const struct node *n, const struct node *dir, const char *name);
/* Takes place, which may be NULL. Lock held; returns a list for node_dropped(). */
struct node *node_place_change(struct node_table *t, struct node *n, struct node_place *place);
/* An O_PATH fd of the node by its place; -ESTALE when it is not there any more. */
int node_place_open(struct node_table *t, struct node *n);
/* What a node with a place need not hold on to, when nobody uses it: the fd to close, -1. Lock held. */
int node_place_spare_fd(struct node *n);

#endif
