/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "node.h"
#include "scratch_dir.h"
#include "unit.h"

static struct scratch dir;
static struct node_table *table;
static struct node *root;
static struct rlimit limit;

static int setup(void **state)
{
	if (scratch_make(&dir) < 0 || store_init_proc() < 0 || node_table_new(dir.fd, 4, &table) < 0)
		return -1;
	root = node_get(table, 1);
	return 0;
}

static int teardown(void **state)
{
	node_put(table, root);
	node_table_free(table);
	scratch_remove(&dir);
	return 0;
}

/* As somebody who may not open by handle. */
static int setup_without_handles(void **state)
{
	struct rlimit few = {64, 64};

	if (scratch_make(&dir) < 0 || store_init_proc() < 0 || fchown(dir.fd, 1000, 1000) < 0 ||
	    getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return -1;
	few.rlim_max = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &few) < 0 || (geteuid() == 0 && seteuid(1000) < 0) ||
	    prctl(PR_SET_DUMPABLE, 1) < 0 || node_table_new(dir.fd, 4, &table) < 0)
		return -1;
	root = node_get(table, 1);
	return 0;
}

static int teardown_without_handles(void **state)
{
	if (getuid() == 0 && seteuid(0) < 0)
		return -1;
	setrlimit(RLIMIT_NOFILE, &limit);
	return teardown(state);
}

static uint64_t lookup(const char *name)
{
	struct stat st;
	uint64_t id;

	assert_int_equal(node_lookup(table, root, dir.fd, name, &st, &id), 0);
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

	assert_int_equal(node_lookup(table, root, dir.fd, ".", &st, &id), 0);
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
		if (node_lookup(table, root, dir.fd, name, &st, &id) < 0)
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

/* ---- without handles ---- */

static struct node *look(struct node *in, const char *name)
{
	struct node_fd fd;
	struct stat st;
	struct node *n;
	uint64_t id;

	assert_int_equal(node_fd(table, in, &fd), 0);
	assert_int_equal(node_lookup(table, in, fd.fd, name, &st, &id), 0);
	node_fd_done(&fd);
	n = node_get(table, id);
	assert_non_null(n);
	return n;
}

/* What is in the file that the node is: its first byte, or the error. */
static int content(struct node *n)
{
	int fd = node_open(table, n, O_RDONLY);
	char byte = 0;

	if (fd < 0)
		return fd;
	assert_int_equal(store_pread(fd, &byte, 1, 0), 1);
	close(fd);
	return byte;
}

/* As the fs layer does it. */
static int rename_node(struct node *in, const char *name, struct node *to, const char *new_name,
		       unsigned flags)
{
	struct node *moved, *replaced;
	struct node_fd fd, new_fd;
	int r;

	assert_int_equal(node_fd(table, in, &fd), 0);
	assert_int_equal(node_fd(table, to, &new_fd), 0);
	moved = node_leaving(table, in, fd.fd, name);
	replaced = node_leaving(table, to, new_fd.fd, new_name);
	r = store_rename(fd.fd, name, new_fd.fd, new_name, flags);
	node_settle(table, to, new_fd.fd, new_name, replaced);
	node_settle(table, in, fd.fd, name, moved);
	node_fd_done(&fd);
	node_fd_done(&new_fd);
	return r;
}

static int unlink_node(const char *name)
{
	struct node *left = node_leaving(table, root, dir.fd, name);
	int r = store_unlink(dir.fd, name);

	node_settle(table, root, dir.fd, name, left);
	return r;
}

enum { MANY = 1000 };

static void many_take_few_fds(void **state)
{
	static struct node *nodes[MANY];
	int before = open_fds();
	char name[16];

	assert_false(node_table_has_handles(table));
	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "%c%d", 'a' + i % 26, i);
		make_file(name);
		nodes[i] = look(root, name);
	}
	assert_true(open_fds() <= before + 4);
	for (int i = 0; i < MANY; i++) {
		assert_int_equal(content(nodes[i]), 'a' + i % 26);
		node_put(table, nodes[i]);
		node_forget(table, nodes[i]->id, 1);
	}
	assert_int_equal(node_table_count(table), 1);
	assert_true(open_fds() <= before + 4);
}

/* More directories than fds are kept, each in the one before. */
static void finds_the_way_down_again(void **state)
{
	enum { DEEP = 40 };
	struct node *at[DEEP + 1], *file;

	at[0] = node_get(table, 1);
	for (int i = 0; i < DEEP; i++) {
		struct node_fd fd;

		assert_int_equal(node_fd(table, at[i], &fd), 0);
		assert_int_equal(store_mkdir(fd.fd, "d", 0700), 0);
		if (i == DEEP - 1)
			assert_int_equal(store_write_file(fd.fd, "f", "x", 1, 0600, false), 0);
		node_fd_done(&fd);
		at[i + 1] = look(at[i], "d");
	}
	file = look(at[DEEP - 1], "f");
	for (int i = 0; i <= DEEP; i++)
		node_put(table, at[i]);
	assert_int_equal(content(file), 'x');
	/* A move above it takes it along. */
	assert_int_equal(rename_node(root, "d", root, "moved", 0), 0);
	assert_int_equal(content(file), 'x');
	node_put(table, file);
}

static void renames_keep_it_right(void **state)
{
	struct node *a, *b, *d;

	make_file("a");
	make_file("b");
	assert_int_equal(store_mkdir(dir.fd, "d", 0700), 0);
	a = look(root, "a");
	b = look(root, "b");
	d = look(root, "d");
	assert_int_equal(rename_node(root, "a", d, "c", 0), 0);
	assert_int_equal(content(a), 'a');
	assert_int_equal(rename_node(d, "c", root, "b", RENAME_EXCHANGE), 0);
	assert_int_equal(content(a), 'a');
	assert_int_equal(content(b), 'b');
	/* One that fails changes nothing. */
	assert_int_equal(rename_node(root, "b", d, "c", RENAME_NOREPLACE), -EEXIST);
	assert_int_equal(content(a), 'a');
	assert_int_equal(content(b), 'b');
	/* What is replaced has no name, and is there as long as it is used. */
	assert_int_equal(rename_node(root, "b", d, "c", 0), 0);
	assert_int_equal(content(a), 'a');
	assert_int_equal(content(b), 'b');
	node_put(table, a);
	node_put(table, b);
	node_put(table, d);
}

static void unlinked_is_still_there(void **state)
{
	struct node *n, *other;

	make_file("a");
	n = look(root, "a");
	assert_int_equal(unlink_node("a"), 0);
	assert_int_equal(content(n), 'a');
	make_file("a");
	other = look(root, "a");
	assert_ptr_not_equal(n, other);
	assert_int_equal(content(n), 'a');
	node_put(table, n);
	node_put(table, other);
}

static void other_names_are_known_when_seen(void **state)
{
	int before = open_fds();
	char name[16], second[16];

	for (int i = 0; i < 100; i++) {
		struct node *n;
		int fd;

		snprintf(name, sizeof(name), "a%d", i);
		snprintf(second, sizeof(second), "b%d", i);
		make_file(name);
		n = look(root, name);
		fd = node_open(table, n, O_RDONLY);
		assert_true(fd >= 0);
		assert_int_equal(store_link(fd, dir.fd, second), 0);
		close(fd);
		assert_int_equal(unlink_node(name), 0);
		assert_int_equal(content(n), 'a');
		if (i % 2) {
			assert_ptr_equal(look(root, second), n);
			node_put(table, n);
		}
		node_put(table, n);
	}
	/* The kernel knows them all, and has not looked for the names of half of them. */
	assert_true(open_fds() <= before + 4);
}

static void what_others_move_is_stale(void **state)
{
	struct node *n;

	make_file("a");
	n = look(root, "a");
	assert_int_equal(store_rename(dir.fd, "a", dir.fd, "b", 0), 0);
	assert_int_equal(node_open(table, n, O_RDONLY), -ESTALE);
	make_file("a");
	assert_int_equal(node_open(table, n, O_RDONLY), -ESTALE);
	assert_ptr_equal(look(root, "b"), n);
	assert_int_equal(content(n), 'a');
	node_put(table, n);
	node_put(table, n);
}

/* Readers of a file in a directory that is renamed all the time: it is never lost. */
static void *rename_often(void *failed)
{
	for (int i = 0; i < 500; i++)
		if (rename_node(root, i % 2 ? "y" : "x", root, i % 2 ? "x" : "y", 0) < 0)
			return failed;
	return NULL;
}

static void *read_often(void *node)
{
	for (int i = 0; i < 1000; i++) {
		int fd = node_open(table, node, O_RDONLY);

		if (fd < 0)
			return node;
		close(fd);
	}
	return NULL;
}

static void renames_do_not_lose_readers(void **state)
{
	struct node *x, *file;
	struct node_fd fd;
	pthread_t ids[3];

	assert_int_equal(store_mkdir(dir.fd, "x", 0700), 0);
	x = look(root, "x");
	assert_int_equal(node_fd(table, x, &fd), 0);
	assert_int_equal(store_write_file(fd.fd, "f", "f", 1, 0600, false), 0);
	node_fd_done(&fd);
	file = look(x, "f");
	node_put(table, x);
	assert_int_equal(pthread_create(&ids[0], NULL, rename_often, file), 0);
	for (int i = 1; i < 3; i++)
		assert_int_equal(pthread_create(&ids[i], NULL, read_often, file), 0);
	for (int i = 0; i < 3; i++) {
		void *failed;

		pthread_join(ids[i], &failed);
		assert_null(failed);
	}
	node_put(table, file);
}

#define WITHOUT_HANDLES(test)                                                                                \
	cmocka_unit_test_setup_teardown(test, setup_without_handles, teardown_without_handles)

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
		WITHOUT_HANDLES(many_take_few_fds),
		WITHOUT_HANDLES(finds_the_way_down_again),
		WITHOUT_HANDLES(renames_keep_it_right),
		WITHOUT_HANDLES(unlinked_is_still_there),
		WITHOUT_HANDLES(other_names_are_known_when_seen),
		WITHOUT_HANDLES(what_others_move_is_stale),
		WITHOUT_HANDLES(threads_share_the_table),
		WITHOUT_HANDLES(renames_do_not_lose_readers),
	};

	return cmocka_run_group_tests_name("node", tests, NULL, NULL);
}
