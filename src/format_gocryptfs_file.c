/* SPDX-License-Identifier: MIT */
/*
 * The format `gocryptfs`: contents of files. A block is rewritten as a whole, with a new IV; what must not
 * happen is that old data is lost because the disk filled up in the middle of it. So blocks that exist
 * already are only written where their space is certain (write_run()), and what was appended in vain is cut
 * off again. format_gocryptfs_space.c has holes.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>

#include "format_gocryptfs_access.h"
#include "store.h"
#include "util.h"

static void report_block(const struct access *a, uint64_t block)
{
	char what[80];

	snprintf(what, sizeof(what), "block %llu of a file is damaged; it cannot be read",
		 (unsigned long long)block);
	format_report(a->f, a->file->fd, NULL, what);
}

static int take_header(struct access *a, const uint8_t *header)
{
	int r = gcfs_header_parse(header, a->file->id);

	if (r < 0) {
		format_report(a->f, a->file->fd, NULL, "the header of a file is damaged; it cannot be read");
		return -EIO;
	}
	a->file->id_known = true;
	return 0;
}

int gocryptfs_access_begin(struct access *a, struct format *f, struct format_file *file, struct format_io *io)
{
	uint8_t header[GCFS_HEADER];
	struct stat st;
	ssize_t n;
	int r = store_stat_fd(file->fd, &st);

	if (r < 0)
		return r;
	*a = (struct access){.f = f, .g = gocryptfs_of(f), .file = file, .io = io};
	a->overhead = gcfs_overhead(a->g->content);
	a->disk_size = (uint64_t)st.st_size;
	a->ino = st.st_ino;
	a->size = gcfs_plain_size(a->g->content, a->disk_size);
	a->sparse = (uint64_t)st.st_blocks * 512 < a->disk_size;
	if (a->disk_size <= GCFS_HEADER || file->id_known)
		return 0;
	n = store_pread(file->fd, header, sizeof(header), 0);
	if (n < 0)
		return (int)n;
	return n == sizeof(header) ? take_header(a, header) : -EIO;
}

/* ---- reading ---- */

/* Decrypts size bytes of whole blocks, the first one being number first, to io->plain. */
static ssize_t decrypt(struct access *a, uint64_t first, const uint8_t *disk, size_t size)
{
	size_t plain = 0;
	uint64_t bad = first;
	int r = gcfs_decrypt_blocks(a->g->content, a->file->id, first, disk, size, a->io->plain, &plain,
				    &bad);

	if (r == -EBADMSG) {
		report_block(a, bad);
		return -EIO;
	}
	return r < 0 ? r : (ssize_t)plain;
}

/* The first read of a file that begins at its first block gets the header along. */
static ssize_t read_with_header(struct access *a, size_t size)
{
	ssize_t n = store_pread(a->file->fd, a->io->disk, GCFS_HEADER + size, 0);
	int r;

	if (n <= GCFS_HEADER)
		return n < 0 ? n : 0;
	r = take_header(a, a->io->disk);
	return r < 0 ? r : decrypt(a, 0, a->io->disk + GCFS_HEADER, (size_t)n - GCFS_HEADER);
}

static ssize_t read_blocks(struct access *a, uint64_t first, uint64_t count)
{
	size_t size = count * gocryptfs_disk_block(a);
	uint8_t header[GCFS_HEADER + 1];
	ssize_t n;
	int r;

	if (!a->file->id_known) {
		if (first == 0)
			return read_with_header(a, size);
		n = store_pread(a->file->fd, header, sizeof(header), 0);
		if (n <= GCFS_HEADER)
			return n < 0 ? n : 0;
		r = take_header(a, header);
		if (r < 0)
			return r;
	}
	n = store_pread(a->file->fd, a->io->disk, size, gcfs_block_offset(first, a->overhead));
	return n <= 0 ? n : decrypt(a, first, a->io->disk, (size_t)n);
}

void gocryptfs_lock_for_read(struct format_file *file)
{
	pthread_rwlock_rdlock(&file->lock);
	if (file->id_known)
		return;
	pthread_rwlock_unlock(&file->lock);
	pthread_rwlock_wrlock(&file->lock);
}

ssize_t gocryptfs_read(struct format *f, struct format_file *file, struct format_io *io, size_t size,
		       uint64_t offset, const uint8_t **ret_data)
{
	struct access a = {.f = f, .g = gocryptfs_of(f), .file = file, .io = io};
	uint64_t first = offset / GCFS_BLOCK;
	size_t skip = offset % GCFS_BLOCK;
	ssize_t n;

	if (!size)
		return 0;
	a.overhead = gcfs_overhead(a.g->content);
	gocryptfs_lock_for_read(file);
	n = read_blocks(&a, first, (offset + size - 1) / GCFS_BLOCK - first + 1);
	pthread_rwlock_unlock(&file->lock);
	if (n < 0)
		return n;
	*ret_data = io->plain + skip;
	return (size_t)n <= skip ? 0 : (ssize_t)min_u64((size_t)n - skip, size);
}

/* ---- writing ---- */

/* Plaintext bytes that the file has in a block now. */
static size_t block_length(const struct access *a, uint64_t block)
{
	uint64_t start = block * GCFS_BLOCK;

	return start >= a->size ? 0 : (size_t)min_u64(a->size - start, GCFS_BLOCK);
}

/* The old plaintext of one block. */
static int read_block(struct access *a, uint64_t block, uint8_t plain[GCFS_BLOCK])
{
	uint8_t disk[GCFS_BLOCK + GCFS_OVERHEAD_MAX];
	size_t size, want = block_length(a, block);
	uint64_t bad;
	ssize_t n = store_pread(a->file->fd, disk, gocryptfs_disk_block(a),
				gcfs_block_offset(block, a->overhead));
	int r;

	if (n < 0)
		return (int)n;
	r = gcfs_decrypt_blocks(a->g->content, a->file->id, block, disk, (size_t)n, plain, &size, &bad);
	if (r == -EBADMSG || (r == 0 && size != want)) {
		report_block(a, block);
		return -EIO;
	}
	return r;
}

/*
 * What a block is after n bytes of buf at from: the old bytes around them, zeros where there were none.
 * Returns its length. plain may be where buf points to only if nothing else is needed.
 */
static ssize_t merge_block(struct access *a, uint64_t block, size_t from, const uint8_t *buf, size_t n,
			   uint8_t plain[GCFS_BLOCK])
{
	size_t old = block_length(a, block);

	if (old && (from > 0 || n < old)) {
		int r = read_block(a, block, plain);

		if (r < 0)
			return r;
	} else {
		old = 0;
	}
	if (from > old)
		memset(plain + old, 0, from - old);
	memcpy(plain + from, buf, n);
	return (ssize_t)max_u64(old, from + n);
}

/* A file that had nothing gets its header in front of the first run. */
static int prepare_header(struct access *a)
{
	int r;

	if (a->disk_size > GCFS_HEADER)
		return 0;
	r = gcfs_header_new(a->io->disk);
	if (r == 0)
		r = gcfs_header_parse(a->io->disk, a->file->id);
	if (r < 0)
		return r;
	/* Known once it is on disk: header_written(). */
	a->file->id_known = false;
	a->new_header = true;
	return 0;
}

static void header_written(struct access *a)
{
	a->new_header = false;
	a->file->id_known = true;
}

/* Is there room for these bytes of the ciphertext, before anything that exists is overwritten? */
static int reserve(struct access *a, uint64_t start, size_t size)
{
	int r;

	/* Behind the end nothing can be lost, and what is allocated stays so. */
	if (start >= a->disk_size || (start + size <= a->disk_size && !a->sparse))
		return 0;
	r = store_fallocate(a->file->fd, FALLOC_FL_KEEP_SIZE, start, size);
	if (r != -EOPNOTSUPP && r != -ENOSYS)
		return r;
	a->keeps_old = true;
	return 0;
}

/* The disk may be full in the middle of blocks that exist: a copy of them, in io->plain. */
static ssize_t keep_old(struct access *a, uint64_t start, size_t size)
{
	int r;

	if (start >= a->disk_size || !(a->keeps_old || a->g->moves_blocks))
		return 0;
	r = a->g->moves_blocks ? gocryptfs_ballast_take(a->g) : 0;
	if (r < 0)
		return r;
	return store_pread(a->file->fd, a->io->plain, (size_t)min_u64(size, a->disk_size - start), start);
}

/* As much as there is room for; *ret_why: what keeps more from being written (ENOSPC, EDQUOT), which a short
 * write does not tell. */
static size_t put_bytes(struct access *a, const uint8_t *buf, size_t size, uint64_t offset, int *ret_why)
{
	size_t done = 0;

	*ret_why = 0;
	while (done < size) {
		ssize_t n = store_pwrite(a->file->fd, buf + done, size - done, offset + done);

		if (n <= 0) {
			*ret_why = n < 0 ? (int)n : -ENOSPC;
			break;
		}
		done += (size_t)n;
	}
	return done;
}

/* The old bytes of a block come back. A lower that moves blocks may want room for that too. */
static void restore(struct access *a, const uint8_t *old, size_t size, uint64_t offset)
{
	int why;

	if (put_bytes(a, old, size, offset, &why) != size && gocryptfs_ballast_drop(a->g, a->file->fd))
		put_bytes(a, old, size, offset, &why);
}

/* The disk filled up in blocks that were there: those that are whole are new ones, the one after them becomes
 * the old one again. Bytes of new blocks, or why there are none. */
static ssize_t put_back(struct access *a, uint64_t start, size_t written, size_t kept, int why)
{
	size_t whole = written / gocryptfs_disk_block(a) * gocryptfs_disk_block(a), torn = written - whole;
	uint64_t end = max_u64(a->disk_size, start + whole);

	if (torn && kept > whole)
		restore(a, a->io->plain + whole, (size_t)min_u64(torn, kept - whole), start + whole);
	if (start + written > end)
		store_truncate(a->file->fd, end);
	return whole ? (ssize_t)whole : why;
}

/* The disk filled up behind the old end: what came after the last whole block goes. Bytes of blocks that
 * stay. */
static size_t cut_off(struct access *a, uint64_t start, size_t written)
{
	size_t blocks = written / gocryptfs_disk_block(a) * gocryptfs_disk_block(a);
	uint64_t end = blocks ? start + blocks : a->disk_size;

	/* If this fails too, the block that was cut is damaged at the end of the file; what was there before
	 * is not. */
	store_truncate(a->file->fd, end);
	return blocks;
}

/* The log has the blocks that are there already, before they are touched. */
static void redo_begin(struct access *a, uint64_t first, size_t size, bool shrink)
{
	uint64_t blocks = (a->size + GCFS_BLOCK - 1) / GCFS_BLOCK;
	struct gocryptfs_redo_write w = {
		.ino = a->ino,
		.id = a->file->id,
		.first = first,
		.old_size = a->disk_size,
		.blocks = a->io->disk + GCFS_HEADER,
		.shrink = shrink,
	};

	if (first < blocks)
		w.size = (size_t)min_u64(size, (blocks - first) * gocryptfs_disk_block(a));
	gocryptfs_redo_begin(&a->g->redo, &w);
}

static int put_header(struct access *a)
{
	int why;

	if (put_bytes(a, a->io->disk, GCFS_HEADER, 0, &why) != GCFS_HEADER) {
		store_truncate(a->file->fd, 0);
		return why;
	}
	header_written(a);
	return 0;
}

/*
 * Writes size bytes of encrypted blocks, which stand in io->disk behind room for a header; the first block is
 * number first. Returns how many bytes of whole blocks are on disk: all, or fewer when the disk filled up.
 */
static ssize_t put_run(struct access *a, uint64_t first, size_t size)
{
	uint64_t start = gcfs_block_offset(first, a->overhead);
	size_t header = a->new_header && first == 0 ? GCFS_HEADER : 0, n;
	ssize_t kept = reserve(a, start, size);
	int why = 0;

	if (kept == 0)
		kept = keep_old(a, start, size);
	if (kept < 0)
		return kept;
	if (a->new_header && first != 0)
		why = put_header(a);
	if (why < 0)
		return why;
	n = put_bytes(a, a->io->disk + GCFS_HEADER - header, size + header, start - header, &why);
	if (n == size + header) {
		if (header)
			header_written(a);
		return (ssize_t)size;
	}
	if (start < a->disk_size)
		return put_back(a, start, n, (size_t)kept, why);
	size = cut_off(a, start, n > header ? n - header : 0);
	if (size && header)
		header_written(a);
	return size ? (ssize_t)size : why;
}

static ssize_t write_run(struct access *a, uint64_t first, size_t size)
{
	ssize_t n;

	redo_begin(a, first, size, false);
	n = put_run(a, first, size);
	gocryptfs_redo_end(&a->g->redo);
	return n;
}

/* Where the next block goes in io->disk. */
struct run {
	uint8_t *out;
};

static int run_add(struct access *a, struct run *run, uint64_t block, const uint8_t *plain, size_t size)
{
	size_t n = 0;
	int r = gcfs_encrypt_blocks(a->g->content, a->file->id, block, plain, size, run->out, &n);

	run->out += n;
	return r;
}

static int run_add_merged(struct access *a, struct run *run, uint64_t block, size_t from, const uint8_t *buf,
			  size_t size)
{
	ssize_t n = merge_block(a, block, from, buf, size, a->io->plain);

	return n < 0 ? (int)n : run_add(a, run, block, a->io->plain, (size_t)n);
}

/* Encrypts the blocks that buf touches. */
static int run_fill(struct access *a, struct run *run, const uint8_t *buf, size_t size, uint64_t offset)
{
	uint64_t block = offset / GCFS_BLOCK;
	size_t skip = offset % GCFS_BLOCK, n;
	int r;

	if (skip || size < GCFS_BLOCK) {
		n = (size_t)min_u64(GCFS_BLOCK - skip, size);
		r = run_add_merged(a, run, block++, skip, buf, n);
		if (r < 0)
			return r;
		buf += n;
		size -= n;
	}
	n = size / GCFS_BLOCK * GCFS_BLOCK;
	if (n) {
		r = run_add(a, run, block, buf, n);
		if (r < 0)
			return r;
		block += n / GCFS_BLOCK;
		buf += n;
		size -= n;
	}
	return size ? run_add_merged(a, run, block, 0, buf, size) : 0;
}

ssize_t gocryptfs_write_at(struct access *a, const uint8_t *buf, size_t size, uint64_t offset)
{
	struct run run = {a->io->disk + GCFS_HEADER};
	uint64_t first = offset / GCFS_BLOCK, end;
	ssize_t n, want;
	int r = prepare_header(a);

	if (r == 0)
		r = run_fill(a, &run, buf, size, offset);
	if (r < 0)
		return r;
	want = run.out - (a->io->disk + GCFS_HEADER);
	n = write_run(a, first, (size_t)want);
	if (n < 0 || n == want)
		return n < 0 ? n : (ssize_t)size;
	end = (first + (size_t)n / gocryptfs_disk_block(a)) * GCFS_BLOCK;
	return end > offset ? (ssize_t)(end - offset) : -ENOSPC;
}

/* A last block that is to have others behind it must be whole: a partial one is never followed by a hole. */
static int pad_last(struct access *a, uint64_t offset)
{
	static const uint8_t zero;
	uint64_t last;
	ssize_t n;

	if (a->size % GCFS_BLOCK == 0 || offset / GCFS_BLOCK <= (a->size - 1) / GCFS_BLOCK)
		return 0;
	last = (a->size - 1) / GCFS_BLOCK;
	n = gocryptfs_write_at(a, &zero, 1, last * GCFS_BLOCK + GCFS_BLOCK - 1);
	if (n < 0)
		return (int)n;
	a->size = (last + 1) * GCFS_BLOCK;
	a->disk_size = gcfs_block_offset(last + 1, a->overhead);
	return 0;
}

ssize_t gocryptfs_write(struct format *f, struct format_file *file, struct format_io *io, const void *buf,
			size_t size, uint64_t offset)
{
	struct access a;
	uint64_t end;
	ssize_t n;

	pthread_rwlock_wrlock(&file->lock);
	n = gocryptfs_access_begin(&a, f, file, io);
	if (n == 0)
		n = gcfs_cipher_size(a.g->content, offset + size, &end);
	if (n == 0)
		n = pad_last(&a, offset);
	if (n == 0)
		n = gocryptfs_write_at(&a, buf, size, offset);
	pthread_rwlock_unlock(&file->lock);
	return n;
}

/* ---- sizes ---- */

/* The file ends in the middle of a block: shorter, it goes to its place, and then what is behind it goes.
 * Between the two it cannot be read, so that it has to be on disk in the log. */
static int shrink_in_block(struct access *a, uint64_t block, size_t keep, uint64_t disk_size)
{
	struct run run = {a->io->disk + GCFS_HEADER};
	size_t size = keep + a->overhead;
	ssize_t n;
	int r = read_block(a, block, a->io->plain);

	if (r == 0)
		r = run_add(a, &run, block, a->io->plain, keep);
	if (r < 0)
		return r;
	redo_begin(a, block, size, true);
	r = gocryptfs_redo_sync(&a->g->redo);
	n = r == 0 ? put_run(a, block, size) : r;
	r = n < 0 ? (int)n : store_truncate(a->file->fd, disk_size);
	gocryptfs_redo_end(&a->g->redo);
	return r;
}

static int shrink(struct access *a, uint64_t size)
{
	uint64_t disk_size;
	int r = gcfs_cipher_size(a->g->content, size, &disk_size);

	if (r < 0)
		return r;
	if (size % GCFS_BLOCK)
		return shrink_in_block(a, size / GCFS_BLOCK, size % GCFS_BLOCK, disk_size);
	/* What the log knows of the blocks that go must not come back. */
	redo_begin(a, size / GCFS_BLOCK, 0, true);
	r = gocryptfs_redo_sync(&a->g->redo);
	if (r == 0)
		r = store_truncate(a->file->fd, disk_size);
	gocryptfs_redo_end(&a->g->redo);
	return r;
}

int gocryptfs_grow(struct access *a, uint64_t size)
{
	static const uint8_t zero;
	uint64_t disk_size;
	ssize_t n;
	int r = gcfs_cipher_size(a->g->content, size, &disk_size);

	if (r == 0)
		r = pad_last(a, size);
	if (r < 0)
		return r;
	if (size % GCFS_BLOCK) {
		n = gocryptfs_write_at(a, &zero, 1, size - 1);
		return n < 0 ? (int)n : 0;
	}
	r = prepare_header(a);
	if (r == 0 && a->new_header)
		r = put_header(a);
	return r < 0 ? r : store_truncate(a->file->fd, disk_size);
}

static int set_size(struct access *a, uint64_t size)
{
	uint64_t old = a->size;
	int r;

	/* Nothing changes, and so the time must not: the kernel, which keeps it, does not change it either.
	 */
	if (size == a->size && (size || !a->disk_size))
		return 0;
	if (size == 0) {
		r = store_truncate(a->file->fd, 0);
		if (r == 0)
			a->file->id_known = false; /* the next write makes a new ID */
		return r;
	}
	if (size < old)
		return shrink(a, size);
	r = gocryptfs_grow(a, size);
	/* What the lower refuses leaves the file as it was, without the padding. */
	if (r < 0 && old && old < a->size)
		shrink(a, old);
	return r;
}

int gocryptfs_fsync(struct format *f, struct format_file *file, bool data_only)
{
	int r = gocryptfs_redo_sync(&gocryptfs_of(f)->redo);

	if (r < 0)
		return r;
	r = store_fsync(format_file_fd(file), data_only);
	format_file_fd_done(file);
	return r;
}

int gocryptfs_truncate(struct format *f, struct format_file *file, struct format_io *io, uint64_t size)
{
	struct access a;
	int r;

	pthread_rwlock_wrlock(&file->lock);
	/* A file whose header is damaged can still be emptied. */
	r = gocryptfs_access_begin(&a, f, file, io);
	if (r == 0 || (r == -EIO && size == 0))
		r = set_size(&a, size);
	pthread_rwlock_unlock(&file->lock);
	return r;
}
