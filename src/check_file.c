/* SPDX-License-Identifier: MIT */
/* A check's look at contents: files, link targets, extended attributes. */
#include "check_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "store.h"
#include "util.h"

enum {
	LARGE_CHUNKS = 32, /* files from that size on are shared by all threads */
	TURN_CHUNKS = 4,   /* taken at once of a file */
	RUNS_MAX = 65536,  /* runs of damaged blocks that are kept apart */
	LIVE_ROUNDS = 50,  /* looks at blocks that change all the time */
	LINK_TEXT_MAX = 4096,
};

struct run {
	uint64_t first, count;
	int code; /* 0: does not authenticate; else why it cannot be read */
};

/* One file that is being read, by one thread or by several. */
struct check_file {
	struct check_node *dir; /* a reference */
	char *disk, *name;
	int fd;
	uint64_t size;
	uint8_t id[GCFS_FILE_ID];
	uint64_t blocks; /* that can be read: without a tail that is shorter than any block */
	bool cut;        /* there is such a tail */
	bool sparse;
	_Atomic unsigned shares; /* threads that still read it */
	pthread_mutex_t lock;    /* guards the members below */
	uint64_t next;           /* first block that nobody has taken */
	bool tail_seen;
	struct run *runs;
	size_t n_runs, runs_room;
};

/* ---- damaged blocks ---- */

static int run_order(const void *a, const void *b)
{
	const struct run *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

/* Sorts, and joins what touches; threads bring them nearly in order. */
static void runs_join(struct check_file *file)
{
	size_t n = 0;

	if (file->n_runs == 0)
		return;
	qsort(file->runs, file->n_runs, sizeof(*file->runs), run_order);
	for (size_t i = 1; i < file->n_runs; i++) {
		struct run *last = &file->runs[n];
		const struct run *r = &file->runs[i];

		if (last->first + last->count == r->first && last->code == r->code)
			last->count += r->count;
		else
			file->runs[++n] = *r;
	}
	file->n_runs = n + 1;
}

/* lock is held. */
static int runs_grow(struct check_file *file)
{
	size_t room = file->runs_room ? 2 * file->runs_room : 4;
	struct run *more;

	if (file->n_runs < file->runs_room)
		return 0;
	if (file->runs_room >= RUNS_MAX) {
		runs_join(file);
		return file->n_runs < file->runs_room ? 0 : -ENOSPC;
	}
	more = reallocarray(file->runs, room, sizeof(*more));
	if (!more)
		return -ENOMEM;
	file->runs = more;
	file->runs_room = room;
	return 0;
}

static void add_run(struct check *c, struct check_file *file, uint64_t first, uint64_t count, int code)
{
	struct run *last;
	int r;

	pthread_mutex_lock(&file->lock);
	last = file->n_runs ? &file->runs[file->n_runs - 1] : NULL;
	if (last && last->first + last->count == first && last->code == code) {
		last->count += count;
	} else {
		r = runs_grow(file);
		if (r == 0)
			file->runs[file->n_runs++] = (struct run){first, count, code};
		else if (r == -ENOMEM)
			check_fail(c, r);
		else if (first > last->first) /* too many to tell apart: the rest is one */
			last->count = first + count - last->first;
	}
	pthread_mutex_unlock(&file->lock);
}

/* ---- one chunk ---- */

static uint64_t bit(size_t i)
{
	return (uint64_t)1 << i;
}

/* Which of the blocks in size bytes of ciphertext are damaged. */
static uint64_t bad_blocks(struct check_worker *w, const uint8_t *id, uint64_t first, const uint8_t *cipher,
			   size_t size)
{
	struct check *c = w->c;
	uint64_t bad = first, mask = 0;
	size_t at = 0, unused;

	while (at * c->block < size) {
		int r = gcfs_decrypt_blocks(c->volume->content, id, first + at, cipher + at * c->block,
					    size - at * c->block, w->plain, &unused, &bad);

		if (r == 0)
			break;
		if (r != -EBADMSG) {
			check_fail(c, r);
			break;
		}
		mask |= bit(bad - first);
		at = bad - first + 1;
	}
	return mask;
}

/* How many bytes of count blocks from first on a file of that size has. */
static size_t chunk_size(const struct check *c, uint64_t file_size, uint64_t first, uint64_t count)
{
	uint64_t offset = gcfs_block_offset(first, c->overhead);

	return file_size > offset ? min_u64(count * c->block, file_size - offset) : 0;
}

/* Reads a chunk anew into again, with the file's ID and size as they are now: its bytes, 0 if it is gone. */
static size_t read_again(struct check_worker *w, const struct check_file *file, uint64_t first,
			 uint64_t count, uint8_t id[GCFS_FILE_ID])
{
	uint8_t header[GCFS_HEADER];
	struct stat st;
	size_t size;

	if (store_pread(file->fd, header, sizeof(header), 0) != GCFS_HEADER ||
	    store_stat_fd(file->fd, &st) < 0)
		return 0;
	memcpy(id, header + 2, GCFS_FILE_ID);
	size = chunk_size(w->c, (uint64_t)st.st_size, first, count);
	if (store_pread(file->fd, w->again, size, gcfs_block_offset(first, w->c->overhead)) != (ssize_t)size)
		return 0;
	return size;
}

/* Which blocks are the same in cipher (old bytes) and again (now bytes). */
static uint64_t same_blocks(const struct check_worker *w, size_t old, size_t now)
{
	size_t block = w->c->block;
	uint64_t same = 0;

	for (size_t i = 0; i * block < old && i * block < now; i++) {
		size_t size = min_u64(block, old - i * block);

		if (size == min_u64(block, now - i * block) &&
		    memcmp(w->cipher + i * block, w->again + i * block, size) == 0)
			same |= bit(i);
	}
	return same;
}

/* Of the damaged blocks in size bytes, those that are the same some time later. Others are being written. */
static uint64_t still_bad(struct check_worker *w, const struct check_file *file, uint64_t first,
			  uint64_t count, size_t size, uint64_t mask)
{
	uint8_t id[GCFS_FILE_ID], now_id[GCFS_FILE_ID] = {0};
	uint64_t bad = 0;

	memcpy(id, file->id, sizeof(id));
	for (int round = 0; mask && round < LIVE_ROUNDS && check_pause(w->c); round++) {
		size_t now = read_again(w, file, first, count, now_id);
		uint64_t same = memcmp(id, now_id, sizeof(id)) == 0 ? same_blocks(w, size, now) : 0;

		if (!now)
			break;
		bad |= mask & same;
		mask &= ~same;
		memcpy(w->cipher, w->again, now);
		memcpy(id, now_id, sizeof(id));
		size = now;
		if (mask)
			mask &= bad_blocks(w, id, first, w->cipher, size);
	}
	return bad;
}

static void add_bad(struct check *c, struct check_file *file, uint64_t first, uint64_t mask)
{
	for (size_t i = 0; mask; i++, mask >>= 1)
		if (mask & 1)
			add_run(c, file, first + i, 1, 0);
}

/* -errno of the read, or 0. */
static int check_chunk(struct check_worker *w, struct check_file *file, uint64_t first, uint64_t count)
{
	struct check *c = w->c;
	uint64_t offset = gcfs_block_offset(first, c->overhead), mask;
	size_t size = chunk_size(c, file->size, first, count);
	ssize_t n = store_pread(file->fd, w->cipher, size, offset);

	if (n < 0)
		return (int)n;
	atomic_fetch_add(&c->bytes, (uint64_t)n);
	if ((size_t)n < size) /* made shorter meanwhile: what is left is whole blocks, or was changed */
		size = (size_t)n - (size_t)n % c->block;
	mask = size ? bad_blocks(w, file->id, first, w->cipher, size) : 0;
	if (mask && c->params.live)
		mask = still_bad(w, file, first, count, size, mask);
	add_bad(c, file, first, mask);
	return 0;
}

static void check_blocks(struct check_worker *w, struct check_file *file, uint64_t first, uint64_t count)
{
	while (count && !check_stopped(w->c)) {
		uint64_t n = min_u64(count, CHECK_CHUNK);
		int r = check_chunk(w, file, first, n);

		/* The disk's error is in one place; the rest can be read. */
		for (uint64_t i = 0; r < 0 && i < n; i++) {
			int one = check_chunk(w, file, first + i, 1);

			if (one < 0)
				add_run(w->c, file, first + i, 1, one);
		}
		first += n;
		count -= n;
	}
}

/* The next blocks to look at, past holes: whole blocks of zeros are what they should be. lock is held. */
static uint64_t take_blocks(const struct check *c, struct check_file *file, uint64_t *ret_first)
{
	uint64_t data, count;

	if (file->sparse && file->next < file->blocks) {
		int r = store_seek(file->fd, gcfs_block_offset(file->next, c->overhead), SEEK_DATA, &data);

		if (r == -ENXIO)
			file->next = file->blocks;
		else if (r == 0 && data > GCFS_HEADER)
			file->next = max_u64(file->next, (data - GCFS_HEADER) / c->block);
	}
	/* The last block is never a hole. */
	if (file->next >= file->blocks && !file->tail_seen && file->blocks) {
		file->tail_seen = true;
		*ret_first = file->blocks - 1;
		return 1;
	}
	if (file->next >= file->blocks)
		return 0;
	count = min_u64(TURN_CHUNKS * CHECK_CHUNK, file->blocks - file->next);
	*ret_first = file->next;
	file->next += count;
	file->tail_seen |= file->next == file->blocks;
	return count;
}

static void read_file(struct check_worker *w, struct check_file *file)
{
	while (!check_stopped(w->c)) {
		uint64_t first = 0, count;

		pthread_mutex_lock(&file->lock);
		count = take_blocks(w->c, file, &first);
		pthread_mutex_unlock(&file->lock);
		if (!count)
			break;
		check_blocks(w, file, first, count);
	}
}

/* ---- files ---- */

static void file_report(struct check *c, struct check_file *file)
{
	runs_join(file);
	for (size_t i = 0; i < file->n_runs; i++) {
		struct finding f = {.kind = file->runs[i].code ? FINDING_UNREADABLE : FINDING_BLOCKS,
				    .first_block = file->runs[i].first,
				    .blocks = file->runs[i].count,
				    .code = file->runs[i].code};

		check_found(c, file->dir, file->disk, file->name, &f);
	}
	if (file->cut) {
		struct finding f = {.kind = FINDING_CUT, .first_block = file->blocks, .blocks = 1};

		check_found(c, file->dir, file->disk, file->name, &f);
	}
}

static void file_unref(struct check *c, struct check_file *file)
{
	if (atomic_fetch_sub(&file->shares, 1) != 1)
		return;
	file_report(c, file);
	close(file->fd);
	check_node_unref(c, file->dir);
	pthread_mutex_destroy(&file->lock);
	free(file->disk);
	free(file->name);
	free(file->runs);
	free(file);
}

/* Takes the fd. */
static struct check_file *file_new(struct check *c, struct check_node *dir, const char *disk,
				   const char *name, int fd, const struct stat *st)
{
	struct check_file *file = calloc(1, sizeof(*file));
	uint64_t body = (uint64_t)st->st_size - GCFS_HEADER, tail = body % c->block;

	if (!file)
		return NULL;
	file->disk = strdup(disk);
	file->name = name ? strdup(name) : NULL;
	if (!file->disk || (name && !file->name)) {
		free(file->disk);
		free(file->name);
		free(file);
		return NULL;
	}
	file->dir = check_node_ref(dir);
	file->fd = fd;
	file->size = (uint64_t)st->st_size;
	file->cut = tail && tail <= c->overhead;
	file->blocks = body / c->block + (tail > c->overhead);
	file->sparse = (uint64_t)st->st_blocks * 512 < file->size;
	file->shares = 1;
	pthread_mutex_init(&file->lock, NULL);
	return file;
}

/* All threads that have nothing better to do help with a large one. */
static void share_file(struct check *c, struct check_file *file)
{
	if (file->blocks < LARGE_CHUNKS * CHECK_CHUNK)
		return;
	for (unsigned i = 1; i < c->threads; i++) {
		struct check_job *job = calloc(1, sizeof(*job));

		if (!job)
			return; /* it goes without */
		atomic_fetch_add(&file->shares, 1);
		job->file = file;
		check_push(c, job);
	}
}

void check_file_job(struct check_worker *w, struct check_file *file)
{
	read_file(w, file);
	file_unref(w->c, file);
}

/* Never waits: for a FIFO that was put in its place, or for a lease. */
static int open_file(int dir_fd, const char *disk)
{
	int fd = store_open(dir_fd, disk, O_RDONLY | O_NONBLOCK | O_NOATIME, 0);

	return fd == -EPERM ? store_open(dir_fd, disk, O_RDONLY | O_NONBLOCK, 0) : fd;
}

/* The ID in the header: 0, -EBADMSG, -ENODATA: no contents, or what reading says. */
static int read_header(int fd, uint8_t id[GCFS_FILE_ID], struct stat *st)
{
	uint8_t header[GCFS_HEADER];
	ssize_t n;
	int r = store_stat_fd(fd, st);

	if (r < 0)
		return r;
	if (st->st_size <= GCFS_HEADER)
		return -ENODATA;
	n = store_pread(fd, header, sizeof(header), 0);
	if (n < 0)
		return (int)n;
	return n < GCFS_HEADER ? -ENODATA : gcfs_header_parse(header, id);
}

/* A file without contents, or none that can be read. */
static void report_header(struct check *c, struct check_node *dir, const char *disk, const char *name, int r,
			  const struct stat *st)
{
	struct finding f = {.kind = r == -EBADMSG ? FINDING_HEADER : FINDING_HEADER_ONLY};

	if (r == -EBADMSG || (r == -ENODATA && st->st_size > 0))
		check_found(c, dir, disk, name, &f);
	else if (r != -ENODATA)
		check_unreadable(c, dir, disk, name, r);
}

/* Sizes that are between two states are so for a moment only. */
static bool settled(struct check *c, int fd, uint8_t id[GCFS_FILE_ID], struct stat *st, int r)
{
	struct stat before = *st;
	uint64_t tail = ((uint64_t)st->st_size - GCFS_HEADER) % c->block;

	if (r == 0 && (tail == 0 || tail > c->overhead))
		return true;
	if (r == -ENODATA && st->st_size == 0)
		return true;
	return !check_pause(c) || (read_header(fd, id, st) == r && st->st_size == before.st_size);
}

void check_regular(struct check_worker *w, struct check_node *dir, int dir_fd, const char *disk,
		   const char *name)
{
	struct check *c = w->c;
	struct check_file *file;
	autofd int fd = open_file(dir_fd, disk);
	uint8_t id[GCFS_FILE_ID];
	struct stat st;
	int r = fd;

	if (fd < 0) {
		check_unreadable(c, dir, disk, name, r);
		return;
	}
	atomic_fetch_add(&c->files, 1);
	do
		r = read_header(fd, id, &st);
	while (!settled(c, fd, id, &st, r) && !check_stopped(c));
	if (!S_ISREG(st.st_mode))
		return; /* exchanged meanwhile */
	check_xattrs(w, dir, fd, disk, name);
	if (r < 0) {
		report_header(c, dir, disk, name, r, &st);
		return;
	}
	file = file_new(c, dir, disk, name, fd, &st);
	if (!file) {
		check_fail(c, -ENOMEM);
		return;
	}
	steal_fd(&fd);
	memcpy(file->id, id, sizeof(id));
	share_file(c, file);
	read_file(w, file);
	file_unref(c, file);
}

/* ---- links ---- */

void check_symlink(struct check_worker *w, const struct check_node *dir, int dir_fd, const char *disk,
		   const char *name)
{
	struct finding f = {.kind = FINDING_SYMLINK};
	autofd int fd = store_open(dir_fd, disk, O_PATH, 0);
	autofree char *target = NULL;
	char text[LINK_TEXT_MAX + 1];
	ssize_t n = fd < 0 ? fd : store_readlink(fd, text, LINK_TEXT_MAX);
	int r;

	if (n == -EINVAL) /* exchanged meanwhile */
		return;
	if (n < 0) {
		check_unreadable(w->c, dir, disk, name, (int)n);
		return;
	}
	atomic_fetch_add(&w->c->links, 1);
	if (check_has(w->c, GCFS_PLAINTEXT_NAMES)) /* targets are in clear too: any is as good */
		return;
	text[n] = '\0';
	r = gcfs_symlink_decrypt(w->c->volume->content, text, &target);
	if (r == -EBADMSG)
		check_found(w->c, dir, disk, name, &f);
	else if (r < 0)
		check_fail(w->c, r);
}

/* ---- extended attributes ---- */

static bool value_is_bad(struct check *c, const void *value, size_t size)
{
	autofree uint8_t *plain = NULL;
	size_t plain_size;
	int r = gcfs_value_decrypt(c->volume->content, value, size, &plain, &plain_size);

	if (r < 0)
		plain = NULL;
	if (r < 0 && r != -EBADMSG)
		check_fail(c, r);
	return r == -EBADMSG;
}

static void check_xattr(struct check *c, const struct check_node *dir, int fd, const char *disk,
			const char *name, const char *attribute)
{
	struct finding f = {.kind = FINDING_XATTR, .attribute = attribute};
	char plain[GCFS_XATTR_NAME_MAX + 1];
	autofree char *value = NULL;
	ssize_t n;

	if (gcfs_xattr_name_decrypt(c->volume->names, attribute, plain) < 0) {
		check_found(c, dir, disk, name, &f);
		return;
	}
	n = store_read_xattr(fd, attribute, &value);
	if (n == -ENODATA)
		return;
	if (n < 0)
		check_unreadable(c, dir, disk, name, (int)n);
	else if (value_is_bad(c, value, (size_t)n))
		check_found(c, dir, disk, name, &f);
}

void check_xattrs(struct check_worker *w, const struct check_node *dir, int fd, const char *disk,
		  const char *name)
{
	autofree char *list = NULL;
	ssize_t n = store_read_xattr(fd, NULL, &list);

	if (n == -EOPNOTSUPP || n == 0)
		return;
	if (n < 0) {
		check_unreadable(w->c, dir, disk, name, (int)n);
		return;
	}
	for (const char *a = list; a < list + n; a += strlen(a) + 1)
		if (strncmp(a, GCFS_XATTR_PREFIX, strlen(GCFS_XATTR_PREFIX)) == 0)
			check_xattr(w->c, dir, fd, disk, name, a);
}
