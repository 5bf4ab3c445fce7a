/* SPDX-License-Identifier: MIT */
#include "slots.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { SLOTS_CHUNK = 256 };

static struct slot *slot_at(const struct slots *s, uint32_t index)
{
	return &s->chunks[index / SLOTS_CHUNK][index % SLOTS_CHUNK];
}

/* The place of an id that is in use, or NULL. */
static struct slot *slot_of(const struct slots *s, uint64_t id)
{
	uint32_t index = (uint32_t)id;
	struct slot *slot;

	if (index / SLOTS_CHUNK >= s->n_chunks || !s->chunks[index / SLOTS_CHUNK])
		return NULL;
	slot = slot_at(s, index);
	return slot->item && slot->generation == id >> 32 ? slot : NULL;
}

/* The places of a chunk that are free become the first ones of the free list. */
static void chunk_link(struct slots *s, uint32_t c)
{
	for (uint32_t i = SLOTS_CHUNK; i-- > 0;) {
		struct slot *slot = &s->chunks[c][i];

		if (slot->item)
			continue;
		slot->next_free = s->free;
		s->free = c * SLOTS_CHUNK + i + 1;
	}
}

/* Where a chunk is missing, or behind the last one. */
static int chunk_place(struct slots *s, uint32_t *ret)
{
	struct slot **chunks;

	for (uint32_t c = 0; s->n_missing && c < s->n_chunks; c++)
		if (!s->chunks[c]) {
			*ret = c;
			return 0;
		}
	if (s->n_chunks >= UINT32_MAX / SLOTS_CHUNK - 1)
		return -ENFILE;
	chunks = reallocarray(s->chunks, s->n_chunks + 1, sizeof(*chunks));
	if (!chunks)
		return -ENOMEM;
	chunks[s->n_chunks] = NULL;
	s->chunks = chunks;
	s->n_missing++;
	*ret = s->n_chunks++;
	return 0;
}

static int slots_grow(struct slots *s)
{
	struct slot *chunk;
	uint32_t c;
	int r = chunk_place(s, &c);

	if (r < 0)
		return r;
	chunk = calloc(SLOTS_CHUNK, sizeof(*chunk));
	if (!chunk)
		return -ENOMEM;
	for (uint32_t i = 0; i < SLOTS_CHUNK; i++)
		chunk[i].generation = s->generation;
	s->chunks[c] = chunk;
	s->n_missing--;
	chunk_link(s, c);
	return 0;
}

int slots_add(struct slots *s, void *item, uint64_t *ret_id)
{
	struct slot *slot;
	uint32_t index;

	assert(item);
	if (!s->free) {
		int r = slots_grow(s);

		if (r < 0)
			return r;
	}
	index = s->free - 1;
	slot = slot_at(s, index);
	s->free = slot->next_free;
	s->used++;
	slot->item = item;
	/* 0 never occurs: an id is at least 1 << 32, so neither 0 nor FUSE_ROOT_ID. */
	if (++slot->generation == 0)
		slot->generation = 1;
	*ret_id = (uint64_t)slot->generation << 32 | index;
	return 0;
}

void *slots_get(const struct slots *s, uint64_t id)
{
	struct slot *slot = slot_of(s, id);

	return slot ? slot->item : NULL;
}

void *slots_remove(struct slots *s, uint64_t id)
{
	struct slot *slot = slot_of(s, id);
	void *item;

	if (!slot)
		return NULL;
	item = slot->item;
	slot->item = NULL;
	slot->next_free = s->free;
	s->free = (uint32_t)id + 1;
	s->used--;
	return item;
}

/* Frees the chunk if no place of it is in use. */
static void chunk_trim(struct slots *s, uint32_t c)
{
	uint32_t highest = s->generation;

	for (uint32_t i = 0; i < SLOTS_CHUNK; i++) {
		if (s->chunks[c][i].item)
			return;
		if (s->chunks[c][i].generation > highest)
			highest = s->chunks[c][i].generation;
	}
	/* Ids that were given out for these places must not come again. */
	s->generation = highest;
	free(s->chunks[c]);
	s->chunks[c] = NULL;
	s->n_missing++;
}

void slots_trim(struct slots *s)
{
	s->free = 0;
	for (uint32_t c = s->n_chunks; c-- > 0;) {
		if (s->chunks[c])
			chunk_trim(s, c);
		if (s->chunks[c])
			chunk_link(s, c);
	}
}

void slots_each(const struct slots *s, void (*fn)(void *ctx, void *item), void *ctx)
{
	for (uint32_t c = 0; c < s->n_chunks; c++)
		for (uint32_t i = 0; s->chunks[c] && i < SLOTS_CHUNK; i++)
			if (s->chunks[c][i].item)
				fn(ctx, s->chunks[c][i].item);
}

size_t slots_ids(const struct slots *s, uint32_t *at, uint64_t *ret_ids, size_t max)
{
	size_t n = 0;

	for (; n < max && *at / SLOTS_CHUNK < s->n_chunks; (*at)++) {
		const struct slot *slot;

		if (!s->chunks[*at / SLOTS_CHUNK]) {
			*at |= SLOTS_CHUNK - 1;
			continue;
		}
		slot = slot_at(s, *at);
		if (slot->item)
			ret_ids[n++] = (uint64_t)slot->generation << 32 | *at;
	}
	return n;
}

void slots_free(struct slots *s)
{
	for (uint32_t c = 0; c < s->n_chunks; c++)
		free(s->chunks[c]);
	free(s->chunks);
	*s = SLOTS_EMPTY;
}
