/* SPDX-License-Identifier: MIT */
/*
 * Random operations on one file against a model in memory: read, write, truncate, mapped read and write (by a
 * mapping of the moment and by one that stays), fallocate, punch, zero, copy_file_range, O_DIRECT, fsync,
 * close and open again; by two handles in turn. The same seed gives the same run. Stops at the first
 * difference and says which operation showed it. usage: fsx FILE SEED OPERATIONS MAXSIZE
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SPAN_MAX = 200000, LOG_SIZE = 40, HANDLES = 2, ALIGNMENT = 4096 };

struct fsx {
	const char *path;
	int fds[HANDLES], fd; /* fd: the one of this operation */
	int direct;           /* -1: the file system has no O_DIRECT */
	uint8_t *map;         /* of max bytes, and stays */
	uint8_t *model;       /* what the file must hold; zeros above size */
	uint8_t *buffer;      /* aligned for O_DIRECT */
	size_t size, max;
	uint64_t random;
	unsigned long step;
	char log[LOG_SIZE][96]; /* the last operations */
};

static uint64_t random_next(struct fsx *x)
{
	x->random ^= x->random << 13;
	x->random ^= x->random >> 7;
	x->random ^= x->random << 17;
	return x->random;
}

static size_t random_below(struct fsx *x, size_t limit)
{
	return limit ? (size_t)(random_next(x) % limit) : 0;
}

static void die(const struct fsx *x, const char *what)
{
	unsigned long first = x->step > LOG_SIZE ? x->step - LOG_SIZE : 0;

	fprintf(stderr, "fsx: step %lu: %s: %s; the last operations:\n", x->step, what, strerror(errno));
	for (unsigned long i = first; i <= x->step; i++)
		fprintf(stderr, "  %lu %s\n", i, x->log[i % LOG_SIZE]);
	exit(1);
}

static void note(struct fsx *x, const char *what, size_t offset, size_t size)
{
	snprintf(x->log[x->step % LOG_SIZE], sizeof(x->log[0]), "%s offset %zu size %zu (file %zu)", what,
		 offset, size, x->size);
}

/* Offsets and sizes near block borders are where errors live: half of the numbers are put there. */
static size_t random_offset(struct fsx *x, size_t limit)
{
	size_t offset = random_below(x, limit);

	if (random_next(x) % 2) {
		offset = (offset & ~(size_t)4095) + random_below(x, 5);
		offset = offset >= 2 ? offset - 2 : offset;
	}
	return offset < limit ? offset : limit;
}

static size_t random_span(struct fsx *x, size_t room)
{
	size_t limit = random_next(x) % 3 ? 9000 : SPAN_MAX;
	size_t size = 1 + random_below(x, limit);

	return size < room ? size : room;
}

static void model_resize(struct fsx *x, size_t size)
{
	if (size < x->size)
		memset(x->model + size, 0, x->size - size);
	x->size = size;
}

static void compare(struct fsx *x, const uint8_t *got, size_t offset, size_t size, const char *how)
{
	for (size_t i = 0; i < size; i++) {
		if (got[i] != x->model[offset + i]) {
			fprintf(stderr, "fsx: %s: byte %zu is %02x, should be %02x\n", how, offset + i,
				got[i], x->model[offset + i]);
			errno = 0;
			die(x, "difference");
		}
	}
}

static void fill(struct fsx *x, uint8_t *to, size_t size)
{
	for (size_t i = 0; i < size; i++)
		to[i] = (uint8_t)(random_next(x) >> 11);
}

static void do_read(struct fsx *x)
{
	size_t offset = random_offset(x, x->size + 5000);
	size_t size = random_span(x, SPAN_MAX);
	size_t expect = offset >= x->size ? 0 : x->size - offset < size ? x->size - offset : size;
	ssize_t got;

	note(x, "read", offset, size);
	got = pread(x->fd, x->buffer, size, (off_t)offset);
	if (got < 0 || (size_t)got != expect)
		die(x, "read gave another number of bytes");
	compare(x, x->buffer, offset, expect, "read");
}

static void do_write(struct fsx *x)
{
	size_t offset = random_offset(x, x->max - 1);
	size_t size = random_span(x, x->max - offset);

	note(x, "write", offset, size);
	fill(x, x->buffer, size);
	if (pwrite(x->fd, x->buffer, size, (off_t)offset) != (ssize_t)size)
		die(x, "write");
	memcpy(x->model + offset, x->buffer, size);
	if (offset + size > x->size)
		x->size = offset + size;
}

static void do_truncate(struct fsx *x)
{
	size_t size = random_next(x) % 16 ? random_offset(x, x->max) : 0;

	note(x, "truncate", size, 0);
	if (ftruncate(x->fd, (off_t)size) < 0)
		die(x, "truncate");
	model_resize(x, size);
}

/* p: where the page of offset is mapped. */
static void use_map(struct fsx *x, uint8_t *p, size_t offset, size_t size, int write)
{
	size_t in_page = offset % ALIGNMENT;

	compare(x, p + in_page, offset, size, "map");
	if (!write)
		return;
	fill(x, p + in_page, size);
	memcpy(x->model + offset, p + in_page, size);
	if (random_next(x) % 8 == 0 && msync(p, in_page + size, MS_SYNC) < 0)
		die(x, "msync");
}

static void do_map(struct fsx *x, int write)
{
	size_t offset = random_offset(x, x->size), start = offset - offset % ALIGNMENT;
	size_t size = random_span(x, x->size - offset), length = offset - start + size;
	int stays = random_next(x) % 2;
	uint8_t *p;

	note(x,
	     write   ? stays ? "write by the old map" : "mapped write"
	     : stays ? "read by the old map"
		     : "mapped read",
	     offset, size);
	if (size == 0)
		return;
	if (stays) {
		use_map(x, x->map + start, offset, size, write);
		return;
	}
	p = mmap(NULL, length, write ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, x->fd, (off_t)start);
	if (p == MAP_FAILED)
		die(x, "mmap");
	use_map(x, p, offset, size, write);
	munmap(p, length);
}

static void do_map_read(struct fsx *x)
{
	do_map(x, 0);
}

static void do_map_write(struct fsx *x)
{
	do_map(x, 1);
}

static void do_allocate(struct fsx *x)
{
	size_t offset = random_offset(x, x->max - 1);
	size_t size = random_span(x, x->max - offset);
	int keep = random_next(x) % 2 ? FALLOC_FL_KEEP_SIZE : 0;

	note(x, keep ? "allocate, keep size" : "allocate", offset, size);
	if (fallocate(x->fd, keep, (off_t)offset, (off_t)size) < 0) {
		if (errno != EOPNOTSUPP)
			die(x, "fallocate");
		return;
	}
	if (!keep && offset + size > x->size)
		model_resize(x, offset + size);
}

/* Where the lower cannot, it must say so and change nothing. */
static void make_zero(struct fsx *x, int mode, const char *what)
{
	size_t offset = random_offset(x, x->max - 1);
	size_t size = random_span(x, x->max - offset);

	note(x, what, offset, size);
	if (fallocate(x->fd, mode, (off_t)offset, (off_t)size) < 0) {
		if (errno != EOPNOTSUPP)
			die(x, what);
		return;
	}
	memset(x->model + offset, 0, size);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && offset + size > x->size)
		x->size = offset + size;
}

static void do_punch(struct fsx *x)
{
	make_zero(x, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, "punch");
}

static void do_zero(struct fsx *x)
{
	if (random_next(x) % 2)
		make_zero(x, FALLOC_FL_ZERO_RANGE, "zero");
	else
		make_zero(x, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, "zero, keep size");
}

/* From one part of the file to another that does not overlap it. */
static void do_copy(struct fsx *x)
{
	size_t from = random_offset(x, x->size), to = random_offset(x, x->max - 1);
	size_t size = random_span(x, x->size - from);
	off_t in = (off_t)from, out = (off_t)to;
	ssize_t n;

	if (size > x->max - to)
		size = x->max - to;
	if (size > (from > to ? from - to : to - from))
		size = from > to ? from - to : to - from;
	note(x, "copy", from, size);
	if (size == 0)
		return;
	n = copy_file_range(x->fd, &in, x->fds[0], &out, size, 0);
	if (n < 0)
		die(x, "copy_file_range");
	memcpy(x->model + to, x->model + from, (size_t)n);
	if (n && to + (size_t)n > x->size)
		x->size = to + (size_t)n;
}

static void do_direct_read(struct fsx *x)
{
	size_t offset = random_offset(x, x->size + 5000) & ~(size_t)(ALIGNMENT - 1);
	size_t size = (random_span(x, SPAN_MAX) & ~(size_t)(ALIGNMENT - 1)) + ALIGNMENT;
	size_t expect = offset >= x->size ? 0 : x->size - offset < size ? x->size - offset : size;

	note(x, "direct read", offset, size);
	if (x->direct < 0)
		return;
	if (pread(x->direct, x->buffer, size, (off_t)offset) != (ssize_t)expect)
		die(x, "direct read gave another number of bytes");
	compare(x, x->buffer, offset, expect, "direct read");
}

static void do_direct_write(struct fsx *x)
{
	size_t offset = random_offset(x, x->max - 1) & ~(size_t)(ALIGNMENT - 1);
	size_t size = (random_span(x, x->max - offset) & ~(size_t)(ALIGNMENT - 1));

	note(x, "direct write", offset, size);
	if (x->direct < 0 || size == 0)
		return;
	fill(x, x->buffer, size);
	if (pwrite(x->direct, x->buffer, size, (off_t)offset) != (ssize_t)size)
		die(x, "direct write");
	memcpy(x->model + offset, x->buffer, size);
	if (offset + size > x->size)
		x->size = offset + size;
}

static void do_sync(struct fsx *x)
{
	note(x, "fsync", 0, 0);
	if (fsync(x->fd) < 0)
		die(x, "fsync");
}

static void reopen(struct fsx *x, int *fd, int flags)
{
	if (*fd >= 0 && close(*fd) < 0)
		die(x, "close");
	*fd = open(x->path, O_RDWR | O_CLOEXEC | flags, 0644);
	if (*fd < 0 && !(flags & O_DIRECT && errno == EINVAL))
		die(x, "open");
}

static void map_again(struct fsx *x)
{
	if (x->map)
		munmap(x->map, x->max);
	x->map = mmap(NULL, x->max, PROT_READ | PROT_WRITE, MAP_SHARED, x->fds[0], 0);
	if (x->map == MAP_FAILED)
		die(x, "mmap of the whole");
}

/* One handle of them, or all, so that nobody has it open for a moment. */
static void do_reopen(struct fsx *x)
{
	size_t which = random_below(x, HANDLES + 2);

	note(x, "close and open", which, 0);
	if (which < HANDLES) {
		reopen(x, &x->fds[which], 0);
		return;
	}
	if (which == HANDLES) {
		reopen(x, &x->direct, O_DIRECT);
		return;
	}
	munmap(x->map, x->max);
	x->map = NULL;
	for (int i = 0; i < HANDLES; i++) {
		close(x->fds[i]);
		x->fds[i] = -1;
	}
	if (x->direct >= 0)
		close(x->direct);
	x->direct = -1;
	for (int i = 0; i < HANDLES; i++)
		reopen(x, &x->fds[i], 0);
	reopen(x, &x->direct, O_DIRECT);
	map_again(x);
}

static void check_size(struct fsx *x)
{
	struct stat st;

	if (fstat(x->fd, &st) < 0)
		die(x, "fstat");
	if ((size_t)st.st_size != x->size) {
		fprintf(stderr, "fsx: the size is %lld, should be %zu\n", (long long)st.st_size, x->size);
		errno = 0;
		die(x, "size");
	}
}

static void check_all(struct fsx *x)
{
	for (size_t offset = 0; offset < x->size; offset += SPAN_MAX) {
		size_t size = x->size - offset < SPAN_MAX ? x->size - offset : SPAN_MAX;

		if (pread(x->fd, x->buffer, size, (off_t)offset) != (ssize_t)size)
			die(x, "read of the whole");
		compare(x, x->buffer, offset, size, "read of the whole");
	}
}

static void (*const operations[])(struct fsx *) = {
	do_read,     do_read,     do_read,      do_write,     do_write,       do_write,
	do_truncate, do_map_read, do_map_write, do_map_write, do_allocate,    do_punch,
	do_sync,     do_reopen,   do_zero,      do_copy,      do_direct_read, do_direct_write,
};

static void fsx_run(struct fsx *x, unsigned long steps)
{
	for (x->step = 0; x->step < steps; x->step++) {
		size_t which = random_below(x, sizeof(operations) / sizeof(operations[0]));

		x->fd = x->fds[random_below(x, HANDLES)];
		operations[which](x);
		x->fd = x->fds[random_below(x, HANDLES)];
		check_size(x);
		if (x->step % 500 == 499)
			check_all(x);
	}
	x->step = steps ? steps - 1 : 0;
	for (int i = 0; i < HANDLES; i++)
		reopen(x, &x->fds[i], 0);
	x->fd = x->fds[0];
	check_all(x);
}

int main(int argc, char **argv)
{
	struct fsx x = {.fds = {-1, -1}, .direct = -1};
	unsigned long steps;

	if (argc != 5) {
		fputs("usage: fsx FILE SEED OPERATIONS MAXSIZE\n", stderr);
		return 2;
	}
	x.path = argv[1];
	x.random = strtoull(argv[2], NULL, 10) * 0x9e3779b97f4a7c15 + 1;
	steps = strtoul(argv[3], NULL, 10);
	x.max = strtoul(argv[4], NULL, 10);
	x.model = calloc(1, x.max + SPAN_MAX);
	x.buffer = aligned_alloc(ALIGNMENT, (SPAN_MAX / ALIGNMENT + 2) * ALIGNMENT);
	if (!x.model || !x.buffer)
		die(&x, "memory");
	for (int i = 0; i < HANDLES; i++)
		reopen(&x, &x.fds[i], i ? 0 : O_CREAT | O_TRUNC);
	reopen(&x, &x.direct, O_DIRECT);
	map_again(&x);
	fsx_run(&x, steps);
	printf("%lu operations%s, %zu bytes at the end\n", steps, x.direct < 0 ? " without O_DIRECT" : "",
	       x.size);
	return 0;
}
