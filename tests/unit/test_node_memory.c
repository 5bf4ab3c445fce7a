/* SPDX-License-Identifier: MIT */
/* What a million inodes cost, and that the memory comes back: the lower is made up (ld --wrap). */
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node.h"
#include "unit.h"

enum { MANY = 1000000, BYTES_MAX = 250, LEFT_MAX = 256 * 1024 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { COUNTS = 0 };
#else
enum { COUNTS = 1 };
#endif

static bool made_up;
static uint64_t next_ino;

int __real_store_stat_fd(int fd, struct stat *ret);
int __wrap_store_stat_fd(int fd, struct stat *ret);
int __real_store_handle(int dir_fd, const char *name, struct store_handle *ret);
int __wrap_store_handle(int dir_fd, const char *name, struct store_handle *ret);

int __wrap_store_stat_fd(int fd, struct stat *ret)
{
	if (!made_up)
		return __real_store_stat_fd(fd, ret);
	*ret = (struct stat){.st_ino = ++next_ino, .st_dev = 7, .st_mode = S_IFREG | 0600};
	return 0;
}

/* As large as those of Btrfs, the largest of the usual ones. */
int __wrap_store_handle(int dir_fd, const char *name, struct store_handle *ret)
{
	if (!made_up)
		return __real_store_handle(dir_fd, name, ret);
	*ret = (struct store_handle){.type = 0x4d, .size = 40};
	memcpy(ret->bytes, &next_ino, sizeof(next_ino));
	return 0;
}

static void a_million(void **state)
{
	uint64_t *ids = calloc(MANY, sizeof(*ids));
	struct node_table *table;
	struct stat st;
	size_t before, full, after;

	assert_non_null(ids);
	assert_int_equal(node_table_new(AT_FDCWD, 4, &table), 0);
	if (!node_table_has_handles(table))
		skip();
	before = mallinfo2().uordblks + mallinfo2().hblkhd;
	made_up = true;
	for (int i = 0; i < MANY; i++)
		assert_int_equal(node_lookup_fd(table, -1, NULL, NULL, &st, &ids[i]), 0);
	full = mallinfo2().uordblks + mallinfo2().hblkhd;
	assert_int_equal(node_table_count(table), MANY + 1);
	for (int i = 0; i < MANY; i++)
		node_forget(table, ids[i], 1);
	made_up = false;
	after = mallinfo2().uordblks + mallinfo2().hblkhd;
	assert_int_equal(node_table_count(table), 1);
	print_message("%zu bytes an inode, %zd left of %zu\n", (full - before) / MANY,
		      (ssize_t)(after - before), full - before);
	if (COUNTS) {
		assert_true((full - before) / MANY < BYTES_MAX);
		assert_true(after < before + LEFT_MAX);
	}
	/* Ids that were used once are not those of others now. */
	made_up = true;
	for (int i = 0; i < 1000; i++) {
		uint64_t id;

		assert_int_equal(node_lookup_fd(table, -1, NULL, NULL, &st, &id), 0);
		assert_null(node_get(table, ids[i]));
	}
	made_up = false;
	node_table_free(table);
	free(ids);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(a_million)};

	return cmocka_run_group_tests_name("node_memory", tests, NULL, NULL);
}
