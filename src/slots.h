/* SPDX-License-Identifier: MIT */
/*
 * A table of pointers reached by number: an index and a generation in one 64-bit id, never 0 and never 1
 * (FUSE's root). An id that was removed is not found any more, also when its place is used again: what the
 * kernel sends back is checked, not believed. No lock: the caller serialises.
 */
#ifndef CKRFS_SLOTS_H
#define CKRFS_SLOTS_H

#include <stddef.h>
#include <stdint.h>

struct slot {
	void *item;          /* NULL: free */
	uint32_t generation; /* counts the uses of this place, starts at 1 */
	uint32_t next_free;  /* index + 1 of the next free place, 0: none */
};

struct slots {
	struct slot **chunks; /* of SLOTS_CHUNK places each; a place never moves. NULL: given back */
	uint32_t n_chunks;
	uint32_t n_missing; /* chunks that were given back */
	uint32_t free;      /* index + 1 of the first free place, 0: none */
	uint32_t used;
	uint32_t generation; /* the highest of places that were given back */
};

#define SLOTS_EMPTY ((struct slots){0})

/* Stores item (not NULL). -ENOMEM, -ENFILE when four thousand million places are full. */
int slots_add(struct slots *s, void *item, uint64_t *ret_id);

/* The item, or NULL for an id that is not in use (any more). */
void *slots_get(const struct slots *s, uint64_t id);

/* Takes the item out and returns it; NULL as above. */
void *slots_remove(struct slots *s, uint64_t id);

/* Gives back the memory of places that are free. */
void slots_trim(struct slots *s);

/* Calls fn for each item. */
void slots_each(const struct slots *s, void (*fn)(void *ctx, void *item), void *ctx);

/* Ids in use from the place *at on (0: the first), at most max: how many, 0 at the end. *at moves on. Ids
 * added or removed between two calls may be among them or not; all others are given once. */
size_t slots_ids(const struct slots *s, uint32_t *at, uint64_t *ret_ids, size_t max);

/* Frees the table, not the items. */
void slots_free(struct slots *s);

#endif
