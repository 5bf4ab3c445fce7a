/* SPDX-License-Identifier: MIT */
#include "format_gocryptfs_redo.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "format_gocryptfs.h"
#include "gcfs_names.h"
#include "store.h"
#include "util.h"

#define REDO_FILE GCFS_LONG_PREFIX GOCRYPTFS_REDO ".1" GCFS_LONG_SUFFIX

enum {
	LOG_SIZE = 8 << 20,
	LOG_MAX = LOG_SIZE + FORMAT_IO_ROOM,
	STEP = 512,
	WALK_DEPTH = 200,
	SYNC_SECONDS = 1,
	SHRINK = 1
};

/* Read by the machine that wrote it: the log does not outlive a crash by more than the next mount. A record
 * begins at a multiple of STEP. */
struct record {
	uint8_t magic[8];
	uint64_t generation, serial, ino, first, old_size;
	uint32_t size, flags;
	uint8_t id[GCFS_FILE_ID];
	uint8_t blocks[];
};

static const uint8_t MAGIC[8] = {'c', 'k', 'r', 'e', 'd', 'o', 0, 1};

void gocryptfs_redo_init(struct gocryptfs_redo *redo)
{
	redo->fd = -1;
	redo->root_fd = -1;
	pthread_rwlock_init(&redo->lock, NULL);
	pthread_mutex_init(&redo->create_lock, NULL);
	pthread_cond_init(&redo->wake, NULL);
}

/*
 * The log comes and goes without a trace in the root directory's time: it is not the user's doing. Whoever
 * changes the root at that very moment may find the time from before.
 */
static int root_mtime(int root_fd, struct timespec ret_times[2])
{
	struct stat st;
	int r = store_stat_fd(root_fd, &st);

	if (r < 0)
		return r;
	ret_times[0] = (struct timespec){.tv_nsec = UTIME_OMIT};
	ret_times[1] = st.st_mtim;
	return 0;
}

static int log_open_new(int root_fd)
{
	struct timespec times[2];
	int r = root_mtime(root_fd, times), fd;

	fd = store_open(root_fd, REDO_FILE, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd >= 0 && r == 0)
		store_utimens(root_fd, times);
	return fd;
}

static void log_remove(int root_fd)
{
	struct timespec times[2];
	int r = root_mtime(root_fd, times);

	if (store_unlink(root_fd, REDO_FILE) == 0 && r == 0)
		store_utimens(root_fd, times);
}

void gocryptfs_redo_free(struct gocryptfs_redo *redo)
{
	if (redo->has_syncer) {
		pthread_mutex_lock(&redo->create_lock);
		redo->stop = true;
		pthread_cond_signal(&redo->wake);
		pthread_mutex_unlock(&redo->create_lock);
		pthread_join(redo->syncer, NULL);
	}
	if (redo->fd >= 0) {
		log_remove(redo->root_fd);
		close(redo->fd);
	}
	pthread_rwlock_destroy(&redo->lock);
	pthread_mutex_destroy(&redo->create_lock);
	pthread_cond_destroy(&redo->wake);
}

/* ---- writing ---- */

/*
 * Room for blocks behind what is there, filled with zeros: syncing it later is then a write of data alone.
 * One that grew would make the lower commit its journal, and ext4 (data=ordered) would send the very blocks
 * that are logged to the disk before the log is certain to be there.
 */
static int log_fill(int fd, uint64_t from)
{
	size_t size = (size_t)(LOG_MAX - from);
	autofree uint8_t *zeros = calloc(1, size);
	/* Where there is no room, nobody else shall find the disk full for it meanwhile. */
	int r = store_fallocate(fd, 0, 0, LOG_MAX);

	if (r == -EOPNOTSUPP)
		r = 0;
	if (r == 0)
		r = !zeros ? -ENOMEM : store_pwrite(fd, zeros, size, from) == (ssize_t)size ? 0 : -ENOSPC;
	if (r == 0)
		r = store_fsync(fd, false);
	if (r < 0)
		store_truncate(fd, from);
	return r;
}

/* The lower writes blocks back on its own, seconds after they came; the log has to be there before. */
static void *log_syncer(void *ctx)
{
	struct gocryptfs_redo *redo = ctx;
	struct timespec until;

	pthread_mutex_lock(&redo->create_lock);
	while (!redo->stop) {
		if (atomic_load(&redo->synced) >= atomic_load(&redo->added)) {
			pthread_cond_wait(&redo->wake, &redo->create_lock);
			continue;
		}
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += SYNC_SECONDS;
		while (!redo->stop &&
		       pthread_cond_timedwait(&redo->wake, &redo->create_lock, &until) != ETIMEDOUT)
			;
		pthread_mutex_unlock(&redo->create_lock);
		gocryptfs_redo_sync(redo);
		pthread_mutex_lock(&redo->create_lock);
	}
	pthread_mutex_unlock(&redo->create_lock);
	return NULL;
}

/* The log, made by the first write: a mount that changes nothing leaves nothing. */
static int log_fd(struct gocryptfs_redo *redo)
{
	pthread_mutex_lock(&redo->create_lock);
	if (redo->fd < 0 && !redo->useless) {
		redo->fd = log_open_new(redo->root_fd);
		redo->useless = redo->fd < 0;
	}
	pthread_mutex_unlock(&redo->create_lock);
	return redo->fd;
}

/* Before the first block is rewritten; notes need none of it. */
static bool log_takes_blocks(struct gocryptfs_redo *redo)
{
	if (redo->takes_blocks || redo->no_room)
		return redo->takes_blocks;
	pthread_rwlock_wrlock(&redo->lock);
	if (!redo->takes_blocks && !redo->no_room) {
		redo->no_room = log_fill(redo->fd, min_u64(redo->end, LOG_SIZE)) < 0;
		redo->takes_blocks = !redo->no_room;
		redo->has_syncer =
			redo->takes_blocks && pthread_create(&redo->syncer, NULL, log_syncer, redo) == 0;
	}
	pthread_rwlock_unlock(&redo->lock);
	return redo->takes_blocks;
}

/* The log is full: once everything it is about is on disk, it begins anew. */
static void log_restart(struct gocryptfs_redo *redo)
{
	pthread_rwlock_wrlock(&redo->lock);
	if (atomic_load(&redo->end) >= LOG_SIZE) {
		store_syncfs(redo->fd);
		redo->generation++;
		atomic_store(&redo->end, 0);
	}
	pthread_rwlock_unlock(&redo->lock);
}

static void record_added(struct gocryptfs_redo *redo)
{
	if (atomic_fetch_add(&redo->added, 1) != atomic_load(&redo->synced))
		return;
	pthread_mutex_lock(&redo->create_lock);
	pthread_cond_signal(&redo->wake);
	pthread_mutex_unlock(&redo->create_lock);
}

/* Where the record goes. Returns with the lock held for reading. */
static uint64_t take_room(struct gocryptfs_redo *redo, size_t blocks)
{
	uint64_t room = (sizeof(struct record) + blocks + STEP - 1) / STEP * STEP, at;

	for (;;) {
		pthread_rwlock_rdlock(&redo->lock);
		at = atomic_fetch_add(&redo->end, room);
		if (at < LOG_SIZE)
			return at;
		pthread_rwlock_unlock(&redo->lock);
		log_restart(redo);
	}
}

void gocryptfs_redo_begin(struct gocryptfs_redo *redo, const struct gocryptfs_redo_write *w)
{
	struct record head = {
		.ino = w->ino,
		.first = w->first,
		.old_size = w->old_size,
		.flags = w->shrink ? SHRINK : 0,
	};
	int fd = redo->root_fd < 0 ? -1 : log_fd(redo);
	uint64_t at;

	if (fd < 0) {
		pthread_rwlock_rdlock(&redo->lock);
		return;
	}
	/* Where there is no room for blocks, it is noted that there was a write. */
	head.size = w->size && log_takes_blocks(redo) ? (uint32_t)w->size : 0;
	at = take_room(redo, head.size);
	memcpy(head.magic, MAGIC, sizeof(MAGIC));
	memcpy(head.id, w->id, GCFS_FILE_ID);
	head.generation = redo->generation;
	head.serial = atomic_fetch_add(&redo->serial, 1);
	/* The head last: a record that has one is whole. */
	if ((!head.size || store_pwrite(fd, w->blocks, head.size, at + sizeof(head)) == (ssize_t)head.size) &&
	    store_pwrite(fd, &head, sizeof(head), at) == sizeof(head) && redo->takes_blocks &&
	    (head.size || w->shrink))
		record_added(redo);
}

void gocryptfs_redo_end(struct gocryptfs_redo *redo)
{
	pthread_rwlock_unlock(&redo->lock);
}

int gocryptfs_redo_sync(struct gocryptfs_redo *redo)
{
	uint64_t added = atomic_load(&redo->added), synced = atomic_load(&redo->synced);
	int r;

	if (synced >= added)
		return 0;
	r = store_fsync(redo->fd, true);
	/* Another thread may have come further. */
	while (r == 0 && synced < added && !atomic_compare_exchange_weak(&redo->synced, &synced, added))
		;
	return r;
}

/* ---- playing back ---- */

/* A log that was left, and the file being looked at. */
struct playback {
	struct gcfs_content *content;
	uint8_t *log;
	const struct record **records; /* in the order of their writing */
	size_t n;
	size_t overhead;
	int fd;
	uint64_t ino, size;
	uint8_t id[GCFS_FILE_ID];
	int failed; /* what kept something from being played back; 0 */
};

static void play_failed(struct playback *p, int r)
{
	if (!p->failed)
		p->failed = r;
}

static int compare_records(const void *a, const void *b)
{
	const struct record *x = *(const struct record *const *)a, *y = *(const struct record *const *)b;

	return x->serial < y->serial ? -1 : x->serial > y->serial;
}

/* All records of the last generation. */
static int find_records(struct playback *p, size_t size)
{
	uint64_t generation = 0;

	p->records = calloc(size / STEP + 1, sizeof(*p->records));
	if (!p->records)
		return -ENOMEM;
	for (size_t at = 0; at + sizeof(struct record) <= size; at += STEP) {
		const struct record *rec = (const void *)(p->log + at);

		if (memcmp(rec->magic, MAGIC, sizeof(MAGIC)) != 0 || rec->generation < generation ||
		    rec->size > size - at - sizeof(*rec))
			continue;
		if (rec->generation > generation)
			p->n = 0;
		generation = rec->generation;
		p->records[p->n++] = rec;
	}
	qsort(p->records, p->n, sizeof(*p->records), compare_records);
	return 0;
}

static bool block_good(const struct playback *p, uint64_t block, const uint8_t *disk, size_t size)
{
	uint8_t plain[GCFS_BLOCK + GCFS_OVERHEAD_MAX];
	size_t n;
	uint64_t bad;

	return size && gcfs_decrypt_blocks(p->content, p->id, block, disk, size, plain, &n, &bad) == 0;
}

/* Is the block good as it stands in the file? */
static bool block_good_on_disk(const struct playback *p, uint64_t block)
{
	uint8_t disk[GCFS_BLOCK + GCFS_OVERHEAD_MAX];
	ssize_t n = store_pread(p->fd, disk, GCFS_BLOCK + p->overhead, gcfs_block_offset(block, p->overhead));

	return n > 0 && block_good(p, block, disk, (size_t)n);
}

static void cut(struct playback *p, uint64_t size)
{
	int r = store_truncate(p->fd, size);

	if (r < 0)
		play_failed(p, r);
}

/* Blocks from limit on were cut off the file after the record was made. */
static void play_record(struct playback *p, const struct record *rec, uint64_t limit)
{
	size_t step = GCFS_BLOCK + p->overhead;

	for (size_t at = 0; at < rec->size; at += step) {
		uint64_t block = rec->first + at / step, offset = gcfs_block_offset(block, p->overhead);
		size_t size = (size_t)min_u64(step, rec->size - at);
		ssize_t n;

		if (block >= limit)
			break;
		if (block_good_on_disk(p, block) || !block_good(p, block, rec->blocks + at, size))
			continue;
		n = store_pwrite(p->fd, rec->blocks + at, size, offset);
		if (n != (ssize_t)size)
			play_failed(p, n < 0 ? (int)n : -ENOSPC);
		else if (rec->flags & SHRINK && at + size == rec->size)
			cut(p, offset + size);
	}
}

/* What was appended and came only in part goes. */
static void cut_tail(struct playback *p, uint64_t old_size)
{
	struct stat st;
	uint64_t size, plain, start;

	if (store_stat_fd(p->fd, &st) < 0 || (uint64_t)st.st_size <= old_size)
		return;
	size = (uint64_t)st.st_size;
	plain = gcfs_plain_size(p->content, size);
	if (!plain || block_good_on_disk(p, (plain - 1) / GCFS_BLOCK))
		return;
	start = gcfs_block_offset((plain - 1) / GCFS_BLOCK, p->overhead);
	if (start == GCFS_HEADER)
		start = 0;
	cut(p, max_u64(start, old_size));
}

/* The file has the ID that the record tells, or had none when it was written. */
static bool is_file_of(const struct playback *p, const struct record *rec)
{
	return rec->ino == p->ino && memcmp(rec->id, p->id, GCFS_FILE_ID) == 0;
}

/* Blocks in so many bytes of ciphertext. */
static uint64_t blocks_in(const struct playback *p, uint64_t size)
{
	return (gcfs_plain_size(p->content, size) + GCFS_BLOCK - 1) / GCFS_BLOCK;
}

/* What blocks older records may still tell of. */
static uint64_t limit_before(const struct playback *p, const struct record *rec, uint64_t limit)
{
	if (rec->flags & SHRINK)
		limit = min_u64(limit, rec->first + (rec->size ? 1 : 0));
	return min_u64(limit, blocks_in(p, rec->old_size));
}

/* For writing, also where the mode keeps an owner without privilege from that. */
static int open_to_write(int dir_fd, const char *disk)
{
	autofd int path = -1;
	struct stat st;
	int fd = store_open(dir_fd, disk, O_RDWR | O_NONBLOCK, 0);

	if (fd != -EACCES)
		return fd;
	path = store_open(dir_fd, disk, O_PATH, 0);
	if (path < 0 || store_stat_fd(path, &st) < 0 || !S_ISREG(st.st_mode) ||
	    store_chmod(path, (st.st_mode & 07777) | S_IRUSR | S_IWUSR) < 0)
		return fd;
	fd = store_reopen(path, O_RDWR | O_NONBLOCK);
	store_chmod(path, st.st_mode & 07777);
	return fd;
}

/* Newest first: what a newer record made good, an older one leaves alone. */
static void play_file(struct playback *p, int dir_fd, const char *disk)
{
	autofd int fd = open_to_write(dir_fd, disk);
	uint8_t header[GCFS_HEADER];
	struct stat st;
	uint64_t old_size = UINT64_MAX, limit;
	int r;

	/* Gone meanwhile, or something else that has got the number. */
	if (fd == -ENOENT || fd == -ELOOP || fd == -EISDIR || fd == -ENXIO)
		return;
	if (fd < 0)
		play_failed(p, fd);
	if (fd < 0 || store_stat_fd(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_ino != p->ino ||
	    store_pread(fd, header, sizeof(header), 0) != sizeof(header) ||
	    gcfs_header_parse(header, p->id) < 0)
		return;
	p->fd = fd;
	limit = blocks_in(p, (uint64_t)st.st_size);
	for (size_t i = p->n; i-- > 0;) {
		if (!is_file_of(p, p->records[i]))
			continue;
		if (old_size == UINT64_MAX)
			old_size = p->records[i]->old_size;
		play_record(p, p->records[i], limit);
		limit = limit_before(p, p->records[i], limit);
	}
	if (old_size != UINT64_MAX)
		cut_tail(p, old_size);
	r = store_fsync(fd, false);
	if (r < 0)
		play_failed(p, r);
}

static bool is_wanted(const struct playback *p, uint64_t ino)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->records[i]->ino == ino)
			return true;
	return false;
}

/* The log knows inode numbers: names change. One getdents(2) a directory, and an open of what is found. */
static void play_directory(struct playback *p, int dir_fd, const char *name, int depth)
{
	autofd int fd = store_open_dir(dir_fd, name);
	autofree char *buf = malloc(32768);
	ssize_t n;

	/* What may not be looked into was not changed by a mount with these rights. */
	if (fd < 0 && fd != -EACCES && fd != -ENOENT && fd != -ENOTDIR && fd != -ELOOP)
		play_failed(p, fd);
	if (!buf)
		play_failed(p, -ENOMEM);
	if (fd < 0 || !buf || depth > WALK_DEPTH)
		return;
	while ((n = store_getdents(fd, buf, 32768)) > 0) {
		for (ssize_t at = 0; at < n;) {
			const struct dirent64 *e = (const void *)(buf + at);

			at += e->d_reclen;
			if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
				continue;
			if (is_wanted(p, e->d_ino)) {
				p->ino = e->d_ino;
				play_file(p, fd, e->d_name);
			}
			if (e->d_type == DT_DIR || e->d_type == DT_UNKNOWN)
				play_directory(p, fd, e->d_name, depth + 1);
		}
	}
	if (n < 0)
		play_failed(p, (int)n);
}

static int play_back(struct playback *p, int root_fd)
{
	autofree uint8_t *log = malloc(LOG_MAX);
	ssize_t n;
	int r;

	if (!log)
		return -ENOMEM;
	n = store_read_file(root_fd, REDO_FILE, log, LOG_MAX);
	if (n == -EINVAL || n == -ELOOP || n == -ENXIO)
		return 0; /* somebody else's, no log */
	if (n < 0)
		return (int)n;
	p->log = log;
	r = find_records(p, (size_t)n);
	if (r == 0 && p->n)
		play_directory(p, root_fd, ".", 0);
	free(p->records);
	return r < 0 ? r : p->failed;
}

int gocryptfs_redo_start(struct gocryptfs_redo *redo, int root_fd, struct gcfs_content *content)
{
	struct playback p = {.content = content, .overhead = gcfs_overhead(content), .fd = -1};
	struct stat st;
	int r;

	redo->root_fd = root_fd;
	if (store_stat(root_fd, REDO_FILE, &st) < 0)
		return 0;
	r = play_back(&p, root_fd);
	if (r == 0)
		log_remove(root_fd);
	else
		redo->root_fd = -1;
	return r;
}
