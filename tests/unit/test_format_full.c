/* SPDX-License-Identifier: MIT */
/*
 * The format gocryptfs on a lower that has no room left (ENOSPC, EDQUOT), at every point of an operation: old
 * data stay. The lower is a model of one that writes in place or to new places, with and without
 * fallocate(2), put by the linker in front of the real one (meson.build).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>

#include "format_fixture.h"

enum { SIZE = 120000, ROOM = 200000, STEP = 1031, UNLIMITED = 1 << 30 };

/* The lower, as far as room is concerned. */
static struct lower_model {
	const char *name;
	bool moves; /* what is overwritten needs room again, once for each operation */
	bool fallocates;
	bool flushes; /* before it says no: then nothing is written just now any more (btrfs with a quota) */
} models[] = {
	{"in place", false, true, false},
	{"in place, no fallocate", false, false, false},
	{"to new places", true, true, false},
	{"to new places, no fallocate", true, false, false},
	{"to new places, after a flush", true, true, true},
};

static const struct lower_model *model;
static ino_t watched; /* the file that room counts for; 0: none */
static long room;
static bool held; /* somebody holds room by another file */
static bool none_to_hold;
static bool allocated[ROOM], fresh[ROOM];

ssize_t __real_store_pwrite(int fd, const void *buf, size_t size, uint64_t offset);
ssize_t __wrap_store_pwrite(int fd, const void *buf, size_t size, uint64_t offset);
int __real_store_fallocate(int fd, int mode, uint64_t offset, uint64_t length);
int __wrap_store_fallocate(int fd, int mode, uint64_t offset, uint64_t length);
int __wrap_store_syncfs(int fd);
bool __wrap_store_overwrites(int fd);

static bool is_watched(int fd)
{
	struct stat st;

	return watched && fstat(fd, &st) == 0 && st.st_ino == watched;
}

ssize_t __wrap_store_pwrite(int fd, const void *buf, size_t size, uint64_t offset)
{
	size_t n = 0;

	if (!is_watched(fd))
		return __real_store_pwrite(fd, buf, size, offset);
	for (; n < size; n++) {
		uint64_t at = offset + n;

		assert_true(at < ROOM);
		if (!allocated[at] || (model->moves && !fresh[at])) {
			if (!room)
				break;
			room--;
		}
		allocated[at] = fresh[at] = true;
	}
	if (n < size && model->flushes)
		memset(fresh, false, sizeof(fresh));
	return n ? __real_store_pwrite(fd, buf, n, offset) : -EDQUOT;
}

/* What was held is let go of. */
int __wrap_store_syncfs(int fd)
{
	assert_true(held);
	held = false;
	room += 10000;
	return 0;
}

int __wrap_store_fallocate(int fd, int mode, uint64_t offset, uint64_t length)
{
	long want = 0;

	if (!is_watched(fd)) {
		assert_int_equal(mode, 0);
		if (none_to_hold)
			return -EDQUOT;
		held = true;
		return __real_store_fallocate(fd, mode, offset, length);
	}
	assert_int_equal(mode, FALLOC_FL_KEEP_SIZE);
	assert_true(offset + length <= ROOM);
	if (!model->fallocates)
		return -EOPNOTSUPP;
	for (uint64_t at = offset; at < offset + length; at++)
		want += !allocated[at];
	if (want > room)
		return -EDQUOT;
	room -= want;
	memset(allocated + offset, true, length);
	return 0;
}

bool __wrap_store_overwrites(int fd)
{
	return !model->moves;
}

struct operation {
	const char *name;
	size_t offset, size; /* of a write; size 0: truncate to offset */
};
static const struct operation operations[] = {
	{"overwrite in the middle", 5000, 30000}, {"overwrite whole blocks", 8192, 16384},
	{"overwrite all and more", 0, 130000},    {"grow the last block", SIZE, 1000},
	{"append blocks", SIZE, 20000},           {"write behind the end", SIZE + 20000, 10000},
	{"write in a hole", 45000, 9000},         {"cut in a block", 50001, 0},
	{"cut in the last block", SIZE - 10, 0},  {"grow", SIZE + 30000, 0},
};

static size_t changed(const struct operation *op, const uint8_t *old, uint8_t *want)
{
	memset(want, 0, ROOM);
	memcpy(want, old, op->size || op->offset > SIZE ? SIZE : op->offset);
	if (!op->size)
		return op->offset;
	memset(want + op->offset, 'n', op->size);
	return max_u64(SIZE, op->offset + op->size);
}

/* A file of data, a hole and data. */
static struct format_file *prepare(const char *name, uint8_t *old)
{
	struct format_file *file = create(name);
	struct stat st;

	for (size_t i = 0; i < SIZE; i++)
		old[i] = i / 4096 >= 9 && i / 4096 < 15 ? 0 : (uint8_t)('a' + i % 23);
	assert_int_equal(format_write(format, file, &io, old, 9 * 4096, 0), 9 * 4096);
	assert_int_equal(format_write(format, file, &io, old + 15 * 4096, SIZE - 15 * 4096, 15 * 4096),
			 SIZE - 15 * 4096);
	assert_int_equal(store_stat_fd(format_file_fd(file), &st), 0);
	format_file_fd_done(file);
	memset(fresh, false, sizeof(fresh));
	memset(allocated, false, sizeof(allocated));
	memset(allocated, true, (size_t)st.st_size);
	memset(allocated + 18 + 9 * 4128, false, 6 * 4128);
	watched = st.st_ino;
	return file;
}

static ssize_t run(struct format_file *file, const struct operation *op, const uint8_t *want)
{
	return op->size ? format_write(format, file, &io, want + op->offset, op->size, op->offset)
			: format_truncate(format, file, &io, op->offset);
}

/* Each block is old or new, or zeros behind the old end; nothing is damaged. */
static void check_blocks(struct format_file *file, const uint8_t *old, const uint8_t *want, size_t done)
{
	static uint8_t seen[ROOM], was[ROOM];
	struct stat st;
	const uint8_t *data;

	assert_int_equal(store_stat_fd(format_file_fd(file), &st), 0);
	format_file_fd_done(file);
	format_attr(format, -1, &st);
	assert_true((size_t)st.st_size >= done && st.st_size <= ROOM);
	memset(seen, 0, sizeof(seen));
	for (size_t at = 0; at < (size_t)st.st_size; at += 4096) {
		ssize_t n = format_read(format, file, &io, 4096, at, &data);

		assert_int_equal(n, min_u64(4096, (uint64_t)st.st_size - at));
		memcpy(seen + at, data, (size_t)n);
	}
	memset(was, 0, sizeof(was));
	memcpy(was, old, SIZE);
	for (size_t at = 0; at < (size_t)st.st_size; at += 4096) {
		size_t n = min_u64(4096, (uint64_t)st.st_size - at);

		assert_true(memcmp(seen + at, was + at, n) == 0 || memcmp(seen + at, want + at, n) == 0);
	}
	assert_int_equal(damages, 0);
}

/* Room for so many bytes. Returns whether that was enough. */
static bool try_with(const struct operation *op, long bytes)
{
	static uint8_t old[ROOM], want[ROOM];
	struct format_file *file = prepare("f", old);
	struct format_name name = encode("f");
	size_t size = changed(op, old, want);
	ssize_t n;

	room = bytes;
	n = run(file, op, want);
	assert_true(n >= 0 || n == -EDQUOT);
	check_blocks(file, old, want, n > 0 ? op->offset + (size_t)n : 0);
	/* What could not be written can be, once there is room. */
	room = UNLIMITED;
	memset(fresh, false, sizeof(fresh));
	if (op->size || n < 0)
		assert_int_equal(run(file, op, want), op->size);
	assert_contents(file, want, size);
	watched = 0;
	format_file_free(file);
	assert_int_equal(format_unlink(format, &root, &name), 0);
	return n == (ssize_t)op->size;
}

static void old_data_stay(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(operations); i++) {
		bool done = false;

		for (long bytes = 0; !done && bytes < 2 * ROOM; bytes += STEP)
			done = try_with(&operations[i], bytes);
		assert_true(done);
	}
}

/* Where no room can be held for putting back, what is there is not touched; appending goes on. */
static void nothing_is_overwritten_without_a_way_back(void **state)
{
	static uint8_t old[ROOM], new[10000];
	struct format_file *file = prepare("f", old);

	memset(new, 'n', sizeof(new));
	room = UNLIMITED;
	none_to_hold = true;
	assert_int_equal(format_write(format, file, &io, new, sizeof(new), 5000), -EDQUOT);
	assert_contents(file, old, SIZE);
	none_to_hold = false;
	assert_int_equal(format_write(format, file, &io, new, sizeof(new), 5000), sizeof(new));
	memcpy(old + 5000, new, sizeof(new));
	assert_contents(file, old, SIZE);
	watched = 0;
	format_file_free(file);
}

static int setup_model(void **state)
{
	model = *state;
	return setup(state);
}

int main(void)
{
	struct CMUnitTest tests[ARRAY_SIZE(models) + 1];

	for (size_t i = 0; i < ARRAY_SIZE(models); i++)
		tests[i] =
			(struct CMUnitTest){models[i].name, old_data_stay, setup_model, teardown, &models[i]};
	tests[ARRAY_SIZE(models)] = (struct CMUnitTest){"nothing_is_overwritten_without_a_way_back",
							nothing_is_overwritten_without_a_way_back,
							setup_model, teardown, &models[2]};
	if (crypto_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("format_full", tests, NULL, NULL);
}
