/* SPDX-License-Identifier: MIT */
/*
 * Two users of the same pages: struct secret has pages of its own; the heap cuts them into chunks.
 *
 * The heap lives in one reserved stretch of addresses, divided into units. So whether a pointer is the heap's
 * is one comparison, without a lock, for the many foreign pointers a library frees. A unit belongs to an
 * arena (chunks of size bins), to an allocation too large for one, or, after fork, to the parent. The
 * pages are shared with the parent then, so a child neither writes nor wipes there.
 */
#include "secret.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "util.h"

/* Kept in the order of strength: the weakest so far is reported. */
enum protection { PROTECTION_UNKNOWN, PROTECTION_SECRETMEM, PROTECTION_LOCKED, PROTECTION_NONE };

struct secret {
	uint8_t *data;
	size_t size;
	size_t mapped;
	unsigned generation; /* of the process that made it */
};

/* Unmapping a page from the kernel costs about 30 us: half a second for a table of scrypt's usual 64 MiB,
 * which lives for a moment. Memory above this is locked only. */
enum { SECRETMEM_MAX = 4 << 20 };

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

static unsigned process_generation;
static atomic_int weakest = PROTECTION_UNKNOWN;
static atomic_bool secretmem_missing;

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
	process_generation++;
	for (size_t i = 0; i < heap.units; i++) {
		if (heap.unit[i] == UNIT_ARENA || heap.unit[i] == UNIT_LARGE)
			heap.unit[i] = UNIT_INHERITED;
	}
	memset(heap.free, 0, sizeof(heap.free));
	pthread_mutex_unlock(&heap.lock);
}

static void fork_watch(void)
{
	pthread_atfork(fork_prepare, fork_parent, fork_child);
}

static size_t pages_round(size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (size + page - 1) / page * page;
}

static void *pages_map_secretmem(size_t size)
{
	autofd int fd = -1;
	void *p;

	if (secretmem_missing)
		return NULL;
#ifdef SYS_memfd_secret
	fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);
#endif
	if (fd < 0) {
		secretmem_missing = true;
		return NULL;
	}
	if (ftruncate(fd, (off_t)size) < 0)
		return NULL;
	/* Fails above RLIMIT_MEMLOCK. */
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

/* Zeroed pages; size is a multiple of the page size. Shared in each case, so that a fork never copies them.
 */
static void *pages_map(size_t size, enum protection *ret_protection)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	void *p = size <= SECRETMEM_MAX ? pages_map_secretmem(size) : NULL;
	enum protection protection = PROTECTION_SECRETMEM;

	pthread_once(&once, fork_watch);
	if (!p) {
		p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			return NULL;
		protection = mlock(p, size) == 0 ? PROTECTION_LOCKED : PROTECTION_NONE;
	}
	madvise(p, size, MADV_DONTDUMP);
	*ret_protection = protection;
	return p;
}

static void weakest_note(enum protection protection)
{
	int seen = weakest;

	while (seen < (int)protection && !atomic_compare_exchange_weak(&weakest, &seen, (int)protection))
		;
}

const char *secret_protection(void)
{
	static const char *const names[] = {
		[PROTECTION_UNKNOWN] = "plain",
		[PROTECTION_SECRETMEM] = "memfd_secret",
		[PROTECTION_LOCKED] = "mlock",
		[PROTECTION_NONE] = "plain",
	};

	if (weakest == PROTECTION_UNKNOWN) {
		struct secret *probe;

		if (secret_new(1, &probe) == 0)
			secret_free(probe);
	}
	return names[weakest];
}

/* Without the limit: a read asks for one byte more. */
static int secret_map(size_t size, struct secret **ret)
{
	struct secret *s = calloc(1, sizeof(*s));
	enum protection protection;

	if (!s)
		return -ENOMEM;
	s->size = size;
	s->mapped = pages_round(size);
	s->data = pages_map(s->mapped, &protection);
	if (!s->data) {
		free(s);
		return -ENOMEM;
	}
	s->generation = process_generation;
	weakest_note(protection);
	*ret = s;
	return 0;
}

int secret_new(size_t size, struct secret **ret)
{
	assert(size > 0);
	return size > SECRET_MAX ? -EMSGSIZE : secret_map(size, ret);
}

int secret_new_from(const void *data, size_t size, struct secret **ret)
{
	struct secret *s;
	int r = secret_new(size, &s);

	if (r < 0)
		return r;
	memcpy(s->data, data, size);
	*ret = s;
	return 0;
}

void secret_free(struct secret *s)
{
	if (!s)
		return;
	if (s->generation == process_generation)
		explicit_bzero(s->data, s->mapped);
	munmap(s->data, s->mapped);
	free(s);
}

uint8_t *secret_data(const struct secret *s)
{
	return s->data;
}

size_t secret_size(const struct secret *s)
{
	return s->size;
}

void secret_truncate(struct secret *s, size_t size)
{
	assert(size > 0 && size <= s->size);
	explicit_bzero(s->data + size, s->size - size);
	s->size = size;
}

bool secret_equal(const struct secret *a, const struct secret *b)
{
	volatile uint8_t differ = 0;

	if (a->size != b->size)
		return false;
	for (size_t i = 0; i < a->size; i++)
		differ |= a->data[i] ^ b->data[i];
	return differ == 0;
}

/* Puts a larger one in the place of *s. */
static int secret_grow(struct secret **s, size_t size)
{
	struct secret *larger;
	int r = secret_map(size, &larger);

	if (r < 0)
		return r;
	memcpy(larger->data, (*s)->data, (*s)->size);
	secret_free(*s);
	*s = larger;
	return 0;
}

/* Waits for fd until deadline (0: for ever). */
static int secret_wait(int fd, uint64_t deadline)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	for (;;) {
		uint64_t now = monotonic_ms();
		int wait = -1, n;

		if (deadline)
			wait = deadline > now ? (int)(deadline - now) : 0;
		n = poll(&p, 1, wait);
		if (n > 0)
			return p.revents & POLLNVAL ? -EBADF : 0;
		if (n == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

int secret_read(int fd, size_t max, int timeout_ms, struct secret **ret)
{
	uint64_t deadline = timeout_ms < 0 ? 0 : monotonic_ms() + (uint64_t)timeout_ms;
	autosecret struct secret *s = NULL;
	size_t used = 0;
	int r;

	assert(max > 0 && max <= SECRET_MAX);
	r = secret_map(min_u64(max + 1, pages_round(1)), &s);
	while (r == 0) {
		ssize_t n;

		if (used > max)
			return -EMSGSIZE;
		if (used == s->size && (r = secret_grow(&s, min_u64(max + 1, 2 * used))) < 0)
			break;
		r = secret_wait(fd, deadline);
		if (r < 0)
			break;
		n = read(fd, s->data + used, s->size - used);
		if (n == 0)
			break;
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		used += n > 0 ? (size_t)n : 0;
	}
	if (r < 0)
		return r;
	if (!used)
		return -ENODATA;
	secret_truncate(s, used);
	*ret = steal_ptr(&s);
	return 0;
}

/* All ones where lo <= c <= hi, else zero, without a branch. All three are below 256. */
static uint32_t mask_range(uint32_t c, uint32_t lo, uint32_t hi)
{
	return 0U - (((lo - 1 - c) & (c - hi - 1)) >> 31);
}

/* Only how long the text is decides here, which is no secret. */
static size_t text_length(const struct secret *text)
{
	size_t n = text->size;

	while (n && strchr(" \t\r\n", text->data[n - 1]) && text->data[n - 1])
		n--;
	return n;
}

/* The value of a digit; *bad collects ones where it is none. */
static uint32_t hex_value(uint32_t c, uint32_t *bad)
{
	uint32_t digit = mask_range(c, '0', '9'), lower = mask_range(c, 'a', 'f'),
		 upper = mask_range(c, 'A', 'F');

	*bad |= ~(digit | lower | upper);
	return (digit & (c - '0')) | (lower & (c - 'a' + 10)) | (upper & (c - 'A' + 10));
}

int secret_from_hex(const struct secret *text, struct secret **ret)
{
	autosecret struct secret *s = NULL;
	size_t n = text_length(text);
	uint32_t bad = 0;
	int r;

	if (!n || n % 2)
		return -EINVAL;
	r = secret_new(n / 2, &s);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i += 2)
		s->data[i / 2] =
			(uint8_t)(hex_value(text->data[i], &bad) << 4 | hex_value(text->data[i + 1], &bad));
	if (bad)
		return -EINVAL;
	*ret = steal_ptr(&s);
	return 0;
}

struct base64_seen {
	uint32_t bad, std, url; /* ones where a byte was no digit, one of the standard, of the URL alphabet */
};

static uint32_t base64_value(uint32_t c, struct base64_seen *seen)
{
	uint32_t upper = mask_range(c, 'A', 'Z'), lower = mask_range(c, 'a', 'z'),
		 digit = mask_range(c, '0', '9');
	uint32_t plus = mask_range(c, '+', '+'), slash = mask_range(c, '/', '/');
	uint32_t minus = mask_range(c, '-', '-'), under = mask_range(c, '_', '_');

	seen->std |= plus | slash;
	seen->url |= minus | under;
	seen->bad |= ~(upper | lower | digit | plus | slash | minus | under);
	return (upper & (c - 'A')) | (lower & (c - 'a' + 26)) | (digit & (c - '0' + 52)) |
	       ((plus | minus) & 62) | ((slash | under) & 63);
}

/* Length without the padding; -EINVAL when it cannot be that of base64. */
static ssize_t base64_text_length(const struct secret *text)
{
	size_t n = text_length(text), padded = n;

	while (n && padded - n < 2 && text->data[n - 1] == '=')
		n--;
	if (!n || n % 4 == 1 || (padded != n && padded % 4))
		return -EINVAL;
	return (ssize_t)n;
}

int secret_from_base64(const struct secret *text, struct secret **ret)
{
	autosecret struct secret *s = NULL;
	struct base64_seen seen = {0};
	ssize_t n = base64_text_length(text);
	uint32_t bits = 0, n_bits = 0;
	size_t used = 0;
	int r;

	if (n < 0)
		return (int)n;
	r = secret_new((size_t)n * 3 / 4, &s);
	if (r < 0)
		return r;
	for (size_t i = 0; i < (size_t)n; i++) {
		bits = (bits << 6 | base64_value(text->data[i], &seen)) & 0xfff;
		n_bits += 6;
		if (n_bits >= 8) {
			n_bits -= 8;
			s->data[used++] = (uint8_t)(bits >> n_bits);
		}
	}
	seen.bad |= (seen.std & seen.url) | (bits & ((1U << n_bits) - 1));
	if (seen.bad)
		return -EINVAL;
	*ret = steal_ptr(&s);
	return 0;
}

int secret_first_line(const struct secret *text, struct secret **ret)
{
	const uint8_t *end = memchr(text->data, '\n', text->size);
	size_t n = end ? (size_t)(end - text->data) : text->size;

	return n ? secret_new_from(text->data, n, ret) : -ENODATA;
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
	enum protection protection;
	void *p, *at;

	if (unit == heap.units)
		return NULL;
	p = pages_map(n * UNIT_SIZE, &protection);
	if (!p)
		return NULL;
	at = mremap(p, n * UNIT_SIZE, n * UNIT_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, heap_address(unit));
	if (at == MAP_FAILED) {
		heap_mark(unit, n, UNIT_LOST);
		munmap(p, n * UNIT_SIZE);
		return NULL;
	}
	if (what == UNIT_ARENA)
		weakest_note(protection);
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
