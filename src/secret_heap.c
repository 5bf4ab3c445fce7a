/* SPDX-License-Identifier: MIT */
/*
 * The heap lives in one reserved stretch of addresses, divided into units. So whether a pointer is the heap's
 * is one comparison, without a lock, for the many foreign pointers a library frees. A unit belongs to an
 * arena (chunks of size bins), to an allocation too large for one, or, after fork, to the parent. The
 * pages are shared with the parent then, so a child neither writes nor wipes there.
 */
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "secret.h"
#include "secret_impl.h"
#include "util.h"

enum {
	UNIT_SIZE = 256 << 10,
	UNITS_MAX = 1 << 16, /* 16 GiB of addresses, no memory */
	UNITS_LEAST = 1 << 8,
	CHUNK_MAX = 64 << 10,
	BINS = 23,
	BIN_LARGE = 0xffff,
};

enum unit { UNIT_FREE, UNIT_ARENA, UNIT_LARGE, UNIT_INHERITED, UNIT_LOST };

/* In front of what the heap hands out. 32 bytes keep that aligned. */
struct chunk {
	size_t size; /* asked for; 0: free */
	size_t mapped;
	struct chunk *next_free;
	uint64_t bin;
};

static struct {
	pthread_mutex_t lock; /* all below but base, size and unit[], which are read without it */
	_Atomic uintptr_t base;
	size_t units;
	_Atomic uint8_t unit[UNITS_MAX];
	uint32_t arena_used[UNITS_MAX];
	struct chunk *free[BINS];
} heap = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void fork_prepare(void)
{
	pthread_mutex_lock(&heap.lock);
}

static void fork_parent(void)
{
	pthread_mutex_unlock(&heap.lock);
}

static void fork_child(void)
{
	for (size_t i = 0; i < heap.units; i++) {
		if (heap.unit[i] == UNIT_ARENA || heap.unit[i] == UNIT_LARGE)
			heap.unit[i] = UNIT_INHERITED;
	}
	memset(heap.free, 0, sizeof(heap.free));
	pthread_mutex_unlock(&heap.lock);
}

/* 64, 96, 128, 192, 256 ... with the header. */
static size_t bin_size(size_t bin)
{
	return (size_t)(bin % 2 ? 3 : 2) << (5 + bin / 2);
}

static bool heap_reserve(void)
{
	void *p = MAP_FAILED;
	size_t units = UNITS_MAX;

	if (heap.base)
		return true;
	for (; p == MAP_FAILED && units >= UNITS_LEAST; units /= 2)
		p = mmap(NULL, units * UNIT_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			 0);
	if (p == MAP_FAILED)
		return false;
	/* gcore(1) writes mappings that nobody can read as zeros. */
	madvise(p, units * 2 * UNIT_SIZE, MADV_DONTDUMP);
	pthread_atfork(fork_prepare, fork_parent, fork_child);
	heap.units = units * 2;
	heap.base = (uintptr_t)p;
	return true;
}

static uint8_t *heap_address(size_t unit)
{
	return (uint8_t *)(uintptr_t)heap.base + unit * UNIT_SIZE;
}

static size_t heap_unit(const void *p)
{
	return ((uintptr_t)p - heap.base) / UNIT_SIZE;
}

/* The first of n free units in a row, or heap.units. */
static size_t heap_find(size_t n)
{
	size_t run = 0;

	for (size_t i = 0; i < heap.units; i++) {
		run = heap.unit[i] == UNIT_FREE ? run + 1 : 0;
		if (run == n)
			return i + 1 - n;
	}
	return heap.units;
}

static void heap_mark(size_t unit, size_t n, enum unit what)
{
	for (size_t i = 0; i < n; i++)
		heap.unit[unit + i] = (uint8_t)what;
}

/* Maps n units for what. Pages are made elsewhere and moved: a mapping that fails halfway over the reserved
 * addresses would leave a hole that another thread's mapping may fall into. NULL: no memory or no addresses.
 */
static void *heap_map(size_t n, enum unit what)
{
	size_t unit = heap_reserve() ? heap_find(n) : heap.units;
	enum secret_pages kind;
	void *p, *at;

	if (unit == heap.units)
		return NULL;
	p = secret_pages_map(n * UNIT_SIZE, &kind);
	if (!p)
		return NULL;
	at = mremap(p, n * UNIT_SIZE, n * UNIT_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, heap_address(unit));
	if (at == MAP_FAILED) {
		heap_mark(unit, n, UNIT_LOST);
		munmap(p, n * UNIT_SIZE);
		return NULL;
	}
	if (what == UNIT_ARENA)
		secret_pages_note(kind);
	heap_mark(unit, n, what);
	return at;
}

/* A chunk never used before, from an arena that has room or a new one. */
static struct chunk *arena_cut(size_t bin)
{
	size_t size = bin_size(bin), unit;
	uint8_t *arena;

	for (unit = 0; unit < heap.units; unit++) {
		if (heap.unit[unit] == UNIT_FREE)
			break; /* a new arena goes here; none was ever behind, but for holes of large ones */
		if (heap.unit[unit] == UNIT_ARENA && heap.arena_used[unit] + size <= UNIT_SIZE)
			goto cut;
	}
	arena = heap_map(1, UNIT_ARENA);
	if (!arena)
		return NULL;
	unit = heap_unit(arena);
	heap.arena_used[unit] = 0;
cut:
	heap.arena_used[unit] += (uint32_t)size;
	return (struct chunk *)(heap_address(unit) + heap.arena_used[unit] - size);
}

static struct chunk *heap_take(size_t size)
{
	size_t bin = 0;
	struct chunk *c;

	while (bin_size(bin) < size + sizeof(*c))
		bin++;
	c = heap.free[bin];
	if (c)
		heap.free[bin] = c->next_free;
	else
		c = arena_cut(bin);
	if (c)
		*c = (struct chunk){.size = size, .bin = bin};
	return c;
}

static struct chunk *heap_take_large(size_t size)
{
	size_t n = (size + sizeof(struct chunk) + UNIT_SIZE - 1) / UNIT_SIZE;
	struct chunk *c = heap_map(n, UNIT_LARGE);

	if (c)
		*c = (struct chunk){.size = size, .bin = BIN_LARGE, .mapped = n * UNIT_SIZE};
	return c;
}

void *secret_heap_alloc(size_t size)
{
	struct chunk *c;

	if (!size || size > (size_t)UNITS_MAX * UNIT_SIZE)
		return NULL;
	pthread_mutex_lock(&heap.lock);
	c = size > CHUNK_MAX ? heap_take_large(size) : heap_take(size);
	pthread_mutex_unlock(&heap.lock);
	return c ? c + 1 : NULL;
}

bool secret_heap_owns(const void *p)
{
	uintptr_t base = heap.base, at = (uintptr_t)p - base;
	uint8_t what;

	if (!base || (uintptr_t)p < base || at / UNIT_SIZE >= heap.units)
		return false;
	what = heap.unit[at / UNIT_SIZE];
	return what == UNIT_ARENA || what == UNIT_LARGE || what == UNIT_INHERITED;
}

/* Gives the pages back to the system and keeps the addresses. */
static void heap_release_large(struct chunk *c)
{
	size_t unit = heap_unit(c), mapped = c->mapped;
	void *p;

	explicit_bzero(c, c->size + sizeof(*c));
	pthread_mutex_lock(&heap.lock);
	p = mmap(c, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	if (p != MAP_FAILED)
		madvise(p, mapped, MADV_DONTDUMP);
	heap_mark(unit, mapped / UNIT_SIZE, p == MAP_FAILED ? UNIT_LOST : UNIT_FREE);
	pthread_mutex_unlock(&heap.lock);
}

void secret_heap_free(void *p)
{
	struct chunk *c;

	if (!p)
		return;
	assert(secret_heap_owns(p));
	if (heap.unit[heap_unit(p)] == UNIT_INHERITED)
		return;
	c = (struct chunk *)p - 1;
	assert(c->size > 0); /* not freed twice */
	if (c->bin == BIN_LARGE) {
		heap_release_large(c);
		return;
	}
	explicit_bzero(p, c->size);
	pthread_mutex_lock(&heap.lock);
	c->size = 0;
	c->next_free = heap.free[c->bin];
	heap.free[c->bin] = c;
	pthread_mutex_unlock(&heap.lock);
}

/* Whether p can stay where it is with another size; wipes what it loses. */
static bool heap_resize(void *p, size_t size)
{
	struct chunk *c = (struct chunk *)p - 1;
	size_t room;

	if (heap.unit[heap_unit(p)] == UNIT_INHERITED)
		return false;
	room = (c->bin == BIN_LARGE ? c->mapped : bin_size(c->bin)) - sizeof(*c);
	if (size > room)
		return false;
	if (size < c->size)
		explicit_bzero((uint8_t *)p + size, c->size - size);
	c->size = size;
	return true;
}

void *secret_heap_realloc(void *p, size_t size)
{
	size_t old;
	void *moved;

	if (!p || !size) {
		secret_heap_free(p);
		return secret_heap_alloc(size);
	}
	if (heap_resize(p, size))
		return p;
	moved = secret_heap_alloc(size);
	if (!moved)
		return NULL;
	old = ((struct chunk *)p - 1)->size;
	memcpy(moved, p, min_u64(old, size));
	secret_heap_free(p);
	return moved;
}
