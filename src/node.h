/* SPDX-License-Identifier: MIT */
/*
 * The inodes that the kernel knows of. A node is reached by the id that FUSE carries (an index with a
 * generation, slots.h), and is found again by what the lower says an inode is: its file handle where the file
 * system has handles, else by its place: its directory and name, checked by device, inode number and time of
 * birth (node_place.c). Few fds are held. Any thread. One lock (docs/locking.md), never held across a system
 * call.
 */
#ifndef CKRFS_NODE_H
#define CKRFS_NODE_H

#include "store.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct node_table;

/* What a format keeps with an inode; the node table does not look into it. */
union node_private {
	uint8_t iv[16]; /* directories, when iv_known */
	struct {
		void *file; /* regular files: shared by all opens, see fs_file.c */
		uint32_t opens : 28;
		uint32_t unlinked : 1;    /* the backing file is let go of when nobody has it open */
		uint32_t holds_mtime : 1; /* cached writes have moved the lower's time, which is to be mtime
					     again */
		uint32_t io_chosen : 1;   /* how those who have it open read and write ... */
		uint32_t io_passes : 1;   /* ... is by kernel passthrough */
		int32_t backing;          /* for kernel passthrough: an id, 0 none yet, -1 never */
		struct timespec mtime;
	};
};

struct node {
	uint64_t id;
	uint64_t lookups;  /* how often the kernel was told of it and has not forgotten */
	uint32_t refs;     /* requests and handles that use it now */
	uint32_t children; /* nodes whose place is in it */
	uint32_t hash;
	/* Being done now, and begun so far; fs_file.c counts them, with the table's lock. */
	uint16_t cached_writes, cached_begun;
	struct node *next;        /* in the hash bucket */
	struct node_place *place; /* without handles: where it is found again */
	uint64_t dev, ino;
	union node_private private;
	int fd;        /* O_PATH, or -1: directories in use, and what has neither handle nor place */
	uint16_t type; /* S_IFMT bits of the mode */
	bool iv_known;
	bool fd_cached; /* fd counts in the table's cache and may be closed when refs is 0 */
	int16_t handle_type;
	uint8_t handle_size;
	uint8_t handle[];
};

/* root_fd: borrowed. max_cached_fds: directories kept open. -ENOMEM and what opening the root gives. */
int node_table_new(int root_fd, unsigned max_cached_fds, struct node_table **ret);
/* What is to be done with the private part of each node that goes; no lock is held then. Before the first
 * lookup. */
void node_table_set_release(struct node_table *t, void (*release)(void *ctx, struct node *n), void *ctx);
void node_table_free(struct node_table *t);
bool node_table_has_handles(const struct node_table *t);
uint32_t node_table_count(struct node_table *t);

/* A reference to the node of an id (1: the root), NULL for ids that are not (any more) in use. */
struct node *node_get(struct node_table *t, uint64_t id);
void node_put(struct node_table *t, struct node *n);

/*
 * Finds the inode that name is in dir_fd, an fd of dir, or makes a node for it; counts one lookup by the
 * kernel and returns attributes. The kernel forgets it by node_forget(); a caller who cannot tell the kernel
 * undoes with node_forget(t, *ret_id, 1). The caller has a reference to dir. 3 system calls; 4 when there are
 * no handles.
 */
int node_lookup(struct node_table *t, struct node *dir, int dir_fd, const char *name, struct stat *ret_st,
		uint64_t *ret_id);
/* The same for what is open already under that name, NULL: under none; the fd stays the caller's. */
int node_lookup_fd(struct node_table *t, int fd, struct node *dir, const char *name, struct stat *ret_st,
		   uint64_t *ret_id);

/*
 * A name that is about to be removed, replaced or moved away. Without handles the inode that has it keeps an
 * fd from here on; it is returned with a reference, or NULL. When that was done, or has failed, node_settle()
 * follows for each name that was or may have become one (left: what node_leaving() gave for it, is put): what
 * has the name then is found there. With handles both do nothing.
 */
struct node *node_leaving(struct node_table *t, struct node *dir, int dir_fd, const char *name);
void node_settle(struct node_table *t, struct node *dir, int dir_fd, const char *name, struct node *left);

void node_forget(struct node_table *t, uint64_t id, uint64_t lookups);

/* An O_PATH fd of a node: the node's own, or one made for this use. */
struct node_fd {
	int fd;
	bool owned;
};
#define NODE_FD_NONE ((struct node_fd){-1, false})

/* Valid while the caller holds a reference to the node; node_fd_done() must follow. Directories keep theirs
 * in a cache. */
int node_fd(struct node_table *t, struct node *n, struct node_fd *ret);
void node_fd_done(const struct node_fd *fd);

/* Opens the node anew with flags: the fd, which belongs to the caller. -ESTALE when it is gone. */
int node_open(struct node_table *t, struct node *n, int flags);

/* The ids that the kernel may know, as slots_ids() gives them; short, so that others can go on between. */
size_t node_ids(struct node_table *t, uint32_t *at, uint64_t *ret_ids, size_t max);
/* Is a file open by kernel passthrough? */
bool node_any_passes(struct node_table *t);

/*
 * For a lower that must not be in use while it is locked: closes all fds that can be opened again, by handle
 * or by place. Requests that use an fd must not be under way; forgetting goes on.
 * node_take(): the root again, by an fd that stays the caller's.
 */
void node_let_go(struct node_table *t);
int node_take(struct node_table *t, int root_fd);

/* The table's lock, for what a format keeps in private: short, no system call. */
void node_lock(struct node_table *t);
void node_unlock(struct node_table *t);

#endif
