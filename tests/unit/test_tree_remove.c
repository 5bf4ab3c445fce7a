/* SPDX-License-Identifier: MIT */
/* What is removed, what stays, and trees that are deeper than a process may have files open. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "scratch_dir.h"
#include "store.h"
#include "tree_remove.h"

enum { DEPTH = 400, NOFILE = 120, FILES = 1500 };

static int setup(void **state)
{
	static struct scratch s;

	*state = &s;
	return store_init_proc() < 0 ? -1 : scratch_make(&s);
}

static int teardown(void **state)
{
	scratch_remove(*state);
	return 0;
}

static void touch(int dir_fd, const char *name)
{
	int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	close(fd);
}

static bool is_there(int dir_fd, const char *name)
{
	return faccessat(dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* One below the other, with a file in each; an fd of the innermost. */
static int make_deep(int dir_fd, unsigned depth)
{
	int fd = dup(dir_fd);

	for (unsigned i = 0; i < depth; i++) {
		int next;

		touch(fd, "file");
		assert_int_equal(mkdirat(fd, "d", 0700), 0);
		next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_true(next >= 0);
		close(fd);
		fd = next;
	}
	return fd;
}

static void count(void *ctx)
{
	++*(unsigned *)ctx;
}

static void deeper_than_open_files(void **state)
{
	const struct scratch *s = *state;
	struct rlimit old, low;
	unsigned n = 0;
	struct tree_remove how = {.removed = count, .ctx = &n};

	close(make_deep(s->fd, DEPTH));
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = (struct rlimit){NOFILE, old.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	assert_int_equal(tree_remove_contents(s->fd, &how), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(n, DEPTH);
	assert_false(is_there(s->fd, "d"));
	assert_false(is_there(s->fd, "file"));
}

static void long_directories(void **state)
{
	const struct scratch *s = *state;
	char name[32];

	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "%u", i);
		if (i % 3)
			touch(s->fd, name);
		else
			assert_int_equal(mkdirat(s->fd, name, 0), 0); /* nobody may even look into it */
	}
	assert_int_equal(tree_remove_contents(s->fd, NULL), 0);
	assert_int_equal(tree_remove_entry(s->fd, "1"), 0);
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "%u", i);
		assert_false(is_there(s->fd, name));
	}
}

static void keeps_a_name_in_the_directory_alone(void **state)
{
	const struct scratch *s = *state;
	struct tree_remove how = {.keep = "keep"};

	touch(s->fd, "keep");
	assert_int_equal(mkdirat(s->fd, "d", 0700), 0);
	touch(s->fd, "d/keep");
	assert_int_equal(tree_remove_contents(s->fd, &how), 0);
	assert_true(is_there(s->fd, "keep"));
	assert_false(is_there(s->fd, "d"));
	assert_int_equal(tree_remove_entry(s->fd, "keep"), 0);
}

static void follows_no_link(void **state)
{
	const struct scratch *s = *state;

	assert_int_equal(mkdirat(s->fd, "tree", 0700), 0);
	assert_int_equal(mkdirat(s->fd, "other", 0700), 0);
	touch(s->fd, "other/file");
	assert_int_equal(symlinkat("../other", s->fd, "tree/link"), 0);
	assert_int_equal(symlinkat("other", s->fd, "link"), 0);
	assert_int_equal(tree_remove_entry(s->fd, "tree"), 0);
	assert_int_equal(tree_remove_entry(s->fd, "link"), 0);
	assert_false(is_there(s->fd, "tree"));
	assert_false(is_there(s->fd, "link"));
	assert_true(is_there(s->fd, "other/file"));
	assert_int_equal(tree_remove_entry(s->fd, "other"), 0);
}

/* chattr(1) +i, where the file system of the tests has it. */
static bool set_immutable(int dir_fd, const char *name, bool on)
{
	autofd int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	int flags = 0;

	if (fd < 0 || ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0)
		return false;
	flags = on ? flags | FS_IMMUTABLE_FL : flags & ~FS_IMMUTABLE_FL;
	return ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
}

/* What cannot be removed is told, and the rest goes; below the depth that stays open too. */
static void goes_on_behind_a_failure(void **state)
{
	const struct scratch *s = *state;
	autofd int deep = -1;

	deep = make_deep(s->fd, DEPTH);
	touch(deep, "stays");
	touch(deep, "goes");
	touch(s->fd, "zzz");
	if (!set_immutable(deep, "stays", true)) {
		print_message("[  NOTE  ] this file system cannot make a file immutable\n");
		return;
	}
	assert_int_equal(tree_remove_contents(s->fd, NULL), -EPERM);
	assert_true(is_there(deep, "stays"));
	assert_false(is_there(deep, "goes"));
	assert_true(set_immutable(deep, "stays", false));
	assert_int_equal(tree_remove_contents(s->fd, NULL), 0);
	assert_false(is_there(s->fd, "d"));
	assert_false(is_there(s->fd, "zzz"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(deeper_than_open_files, setup, teardown),
		cmocka_unit_test_setup_teardown(long_directories, setup, teardown),
		cmocka_unit_test_setup_teardown(keeps_a_name_in_the_directory_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(follows_no_link, setup, teardown),
		cmocka_unit_test_setup_teardown(goes_on_behind_a_failure, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
