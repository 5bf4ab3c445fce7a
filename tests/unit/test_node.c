/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "node.h"
#include "scratch_dir.h"
#include "unit.h"

static struct scratch dir;
static struct node_table *table;

static int setup(void **state)
{
	if (scratch_make(&dir) < 0 || store_init_proc() < 0)
		return -1;
	return node_table_new(dir.fd, 4, &table);
}

static int teardown(void **state)
{
	node_table_free(table);
	scratch_remove(&dir);
	return 0;
}

static uint64_t lookup(const char *name)
{
	struct stat st;
	uint64_t id;

	assert_int_equal(node_lookup(table, dir.fd, name, &st, &id), 0);
	return id;
}

static void make_file(const char *name)
{
	assert_int_equal(store_write_file(dir.fd, name, name, strlen(name), 0600, false), 0);
}

static void one_inode_is_one_node(void **state)
{
	uint64_t id;

	make_file("a");
	id = lookup("a");
	assert_int_equal(lookup("a"), id);
	assert_int_equal(store_rename(dir.fd, "a", dir.fd, "b", 0), 0);
	assert_int_equal(lookup("b"), id);
	make_file("a");
	assert_int_not_equal(lookup("a"), id);
	assert_int_equal(node_table_count(table), 3); /* with the root */
}

static void forgotten_when_all_lookups_are(void **state)
{
	struct node *n;
	uint64_t id;

	make_file("a");
	id = lookup("a");
	lookup("a");
	node_forget(table, id, 1);
	n = node_get(table, id);
	assert_non_null(n);
	node_forget(table, id, 1); /* still referenced */
	assert_int_equal(node_table_count(table), 2);
	node_put(table, n);
	assert_int_equal(node_table_count(table), 1);
	assert_null(node_get(table, id));
	node_forget(table, id, 1);         /* unknown ids do nothing */
	node_forget(table, 1, UINT64_MAX); /* and the root stays */
	n = node_get(table, 1);
	assert_non_null(n);
	node_put(table, n);
}

static void the_root_is_one(void **state)
{
	struct stat st;
	uint64_t id;

	assert_int_equal(node_lookup(table, dir.fd, ".", &st, &id), 0);
	assert_int_equal(id, 1);
}

static void an_inode_number_used_again_is_another_node(void **state)
{
	struct node *n;
	uint64_t first;
	int fd;

	if (!node_table_has_handles(table))
		skip();
	make_file("a");
	first = lookup("a");
	assert_int_equal(store_unlink(dir.fd, "a"), 0);
	for (int i = 0; i < 50; i++) {
		make_file("a");
		assert_int_not_equal(lookup("a"), first);
		assert_int_equal(store_unlink(dir.fd, "a"), 0);
	}
	n = node_get(table, first);
	fd = node_open(table, n, O_RDONLY);
	assert_int_equal(fd, -ESTALE);
	node_put(table, n);
}

static void opens_what_it_looked_up(void **state)
{
	char buf[8];
	struct node *n;
	int fd;

	make_file("a");
	n = node_get(table, lookup("a"));
	assert_int_equal(store_rename(dir.fd, "a", dir.fd, "moved", 0), 0);
	make_file("a");
	fd = node_open(table, n, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(store_pread(fd, buf, sizeof(buf), 0), 1);
	assert_int_equal(buf[0], 'a');
	close(fd);
	node_put(table, n);
}

static int open_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void directories_keep_few_fds(void **state)
{
	int before = open_fds();
	char name[16];

	if (!node_table_has_handles(table))
		skip();
	for (int i = 0; i < 100; i++) {
		struct node_fd fd;
		struct node *n;

		snprintf(name, sizeof(name), "d%d", i);
		assert_int_equal(store_mkdir(dir.fd, name, 0700), 0);
		n = node_get(table, lookup(name));
		assert_int_equal(node_fd(table, n, &fd), 0);
		assert_int_equal(store_mkdir(fd.fd, "inside", 0700), 0);
		node_fd_done(&fd);
		node_put(table, n);
	}
	assert_true(open_fds() <= before + 4);
}

static void all_in_use_are_not_taken_away(void **state)
{
	struct node *nodes[20];
	struct node_fd fds[20];
	struct stat st;
	char name[16];

	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		assert_int_equal(store_mkdir(dir.fd, name, 0700), 0);
		nodes[i] = node_get(table, lookup(name));
		assert_int_equal(node_fd(table, nodes[i], &fds[i]), 0);
	}
	for (int i = 0; i < 20; i++) {
		assert_int_equal(store_stat_fd(fds[i].fd, &st), 0);
		assert_int_equal(st.st_ino, nodes[i]->ino);
		node_fd_done(&fds[i]);
		node_put(table, nodes[i]);
	}
}

/* For the thread sanitizer as much as for the count at the end. */
static void *churn(void *failed)
{
	for (int i = 0; i < 2000; i++) {
		char name[8];
		struct node_fd fd;
		struct stat st;
		struct node *n;
		uint64_t id;

		snprintf(name, sizeof(name), "d%d", i % 16);
		if (node_lookup(table, dir.fd, name, &st, &id) < 0)
			return failed;
		n = node_get(table, id);
		if (!n || node_fd(table, n, &fd) < 0)
			return failed;
		node_fd_done(&fd);
		node_put(table, n);
		node_forget(table, id, 1);
	}
	return NULL;
}

static void threads_share_the_table(void **state)
{
	pthread_t ids[4];
	char name[8];

	for (int i = 0; i < 16; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		assert_int_equal(store_mkdir(dir.fd, name, 0700), 0);
	}
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&ids[i], NULL, churn, table), 0);
	for (int i = 0; i < 4; i++) {
		void *failed;

		pthread_join(ids[i], &failed);
		assert_null(failed);
	}
	assert_int_equal(node_table_count(table), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_inode_is_one_node, setup, teardown),
		cmocka_unit_test_setup_teardown(forgotten_when_all_lookups_are, setup, teardown),
		cmocka_unit_test_setup_teardown(the_root_is_one, setup, teardown),
		cmocka_unit_test_setup_teardown(an_inode_number_used_again_is_another_node, setup, teardown),
		cmocka_unit_test_setup_teardown(opens_what_it_looked_up, setup, teardown),
		cmocka_unit_test_setup_teardown(directories_keep_few_fds, setup, teardown),
		cmocka_unit_test_setup_teardown(all_in_use_are_not_taken_away, setup, teardown),
		cmocka_unit_test_setup_teardown(threads_share_the_table, setup, teardown),
	};

	return cmocka_run_group_tests_name("node", tests, NULL, NULL);
}
