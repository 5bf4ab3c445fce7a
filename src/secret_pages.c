/* SPDX-License-Identifier: MIT */
#include "secret_impl.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "secret.h"

/* Unmapping a page from the kernel costs about 30 us: half a second for a table of scrypt's usual 64 MiB,
 * which lives for a moment. Memory above this is locked only. */
enum { SECRETMEM_MAX = 4 << 20 };

static unsigned process_generation;
static atomic_int weakest = SECRET_PAGES_UNKNOWN;
static atomic_bool secretmem_missing;

static void fork_child(void)
{
	process_generation++;
}

static void fork_watch(void)
{
	pthread_atfork(NULL, NULL, fork_child);
}

unsigned secret_pages_generation(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, fork_watch);
	return process_generation;
}

size_t secret_pages_round(size_t size)
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

void *secret_pages_map(size_t size, enum secret_pages *ret_kind)
{
	void *p = size <= SECRETMEM_MAX ? pages_map_secretmem(size) : NULL;
	enum secret_pages kind = SECRET_PAGES_SECRETMEM;

	if (!p) {
		p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			return NULL;
		kind = mlock(p, size) == 0 ? SECRET_PAGES_LOCKED : SECRET_PAGES_PLAIN;
	}
	madvise(p, size, MADV_DONTDUMP);
	*ret_kind = kind;
	return p;
}

/* Not inlined: the room must be below the caller's frame. */
__attribute__((noinline)) void secret_stack(void)
{
	static _Thread_local uintptr_t lowest;
	static _Thread_local unsigned generation; /* locks do not pass through fork(2) */
	uintptr_t here = (uintptr_t)__builtin_frame_address(0), page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t from = (here - SECRET_STACK) & ~(page - 1), to = (here + page - 1) & ~(page - 1);
	volatile char room[SECRET_STACK + 2 * (4 << 10)];

	if (lowest && from >= lowest && generation == secret_pages_generation())
		return;
	/* The main thread's stack grows when it is touched only. */
	for (size_t i = sizeof(room); i-- > 0;)
		room[i] = 0;
	mlock((void *)from, to - from);
	madvise((void *)from, to - from, MADV_DONTDUMP);
	generation = secret_pages_generation();
	lowest = from;
}

__attribute__((noinline)) void secret_stack_wipe(void)
{
	char below[SECRET_STACK];

	explicit_bzero(below, sizeof(below));
}

void secret_pages_note(enum secret_pages kind)
{
	int seen = weakest;

	while (seen < (int)kind && !atomic_compare_exchange_weak(&weakest, &seen, (int)kind))
		;
}

enum secret_pages secret_pages_weakest(void)
{
	return (enum secret_pages)weakest;
}
