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

	if (index / SLOTS_CHUNK >= s->n_chunks)
		return NULL;
	slot = slot_at(s, index);
	return slot->item && slot->generation == id >> 32 ? slot : NULL;
}

static int slots_grow(struct slots *s)
{
	struct slot **chunks;
	struct slot *chunk;
	uint32_t base = s->n_chunks * SLOTS_CHUNK;

	if (s->n_chunks >= UINT32_MAX / SLOTS_CHUNK - 1)
		return -ENFILE;
	chunks = reallocarray(s->chunks, s->n_chunks + 1, sizeof(*chunks));
	if (!chunks)
		return -ENOMEM;
	s->chunks = chunks;
	chunk = calloc(SLOTS_CHUNK, sizeof(*chunk));
	if (!chunk)
		return -ENOMEM;
	for (uint32_t i = 0; i < SLOTS_CHUNK; i++)
		chunk[i].next_free = i + 1 < SLOTS_CHUNK ? base + i + 2 : 0;
	s->chunks[s->n_chunks++] = chunk;
	s->free = base + 1;
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

void slots_each(const struct slots *s, void (*fn)(void *ctx, void *item), void *ctx)
{
	for (uint32_t c = 0; c < s->n_chunks; c++)
		for (uint32_t i = 0; i < SLOTS_CHUNK; i++)
			if (s->chunks[c][i].item)
				fn(ctx, s->chunks[c][i].item);
}

size_t slots_ids(const struct slots *s, uint32_t *at, uint64_t *ret_ids, size_t max)
{
	size_t n = 0;

	for (; n < max && *at / SLOTS_CHUNK < s->n_chunks; (*at)++) {
		const struct slot *slot = slot_at(s, *at);

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
