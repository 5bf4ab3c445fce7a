/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "scratch_dir.h"
#include "store.h"
#include "unit.h"

static struct scratch dir;

static int setup(void **state)
{
	return scratch_make(&dir) < 0 || store_init_proc() < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	scratch_remove(&dir);
	return 0;
}

static void opens_one_component_only(void **state)
{
	static const struct {
		const char *name;
		int flags, want;
	} cases[] = {
		{"plain", O_RDONLY, 0},
		{"missing", O_RDONLY, -ENOENT},
		{"link", O_RDONLY, -ELOOP},
		{"dirlink/inside", O_RDONLY, -ELOOP},
		{"../etc", O_RDONLY, -EXDEV},
		{"/etc/passwd", O_RDONLY, -EXDEV},
		{"plain", O_RDONLY | O_DIRECTORY, -ENOTDIR},
		{"sub", O_RDWR, -EISDIR},
		{"link", O_PATH, 0},
	};

	assert_int_equal(store_write_file(dir.fd, "plain", "x", 1, 0600, false), 0);
	assert_int_equal(store_symlink("plain", dir.fd, "link"), 0);
	assert_int_equal(store_mkdir(dir.fd, "sub", 0700), 0);
	assert_int_equal(store_symlink("sub", dir.fd, "dirlink"), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		int fd = store_open(dir.fd, cases[i].name, cases[i].flags, 0);

		if (cases[i].want == -ELOOP && cases[i].flags == O_RDONLY)
			assert_true(fd == -ELOOP);
		else if (cases[i].want)
			assert_int_equal(fd, cases[i].want);
		else
			assert_true(fd >= 0);
		if (fd >= 0) {
			assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
			close(fd);
		}
	}
}

static void small_files_whole_or_not_at_all(void **state)
{
	char buf[8];

	assert_int_equal(store_write_file(dir.fd, "f", "12345", 5, 0444, true), 0);
	assert_int_equal(store_write_file(dir.fd, "f", "other", 5, 0444, false), -EEXIST);
	assert_int_equal(store_read_file(dir.fd, "f", buf, sizeof(buf)), 5);
	assert_memory_equal(buf, "12345", 5);
	assert_int_equal(store_read_file(dir.fd, "f", buf, 3), 3);
	assert_int_equal(store_mknod(dir.fd, "fifo", S_IFIFO | 0600, 0), 0);
	assert_int_equal(store_read_file(dir.fd, "fifo", buf, sizeof(buf)),
			 -EINVAL); /* and it did not wait */
	assert_int_equal(store_mkdir(dir.fd, "d", 0700), 0);
	assert_int_equal(store_read_file(dir.fd, "d", buf, sizeof(buf)), -EINVAL);
}

static void handles_find_the_inode_again(void **state)
{
	struct store_handle h;
	struct stat a, b;
	int fd, r;

	assert_int_equal(store_write_file(dir.fd, "f", "x", 1, 0600, false), 0);
	r = store_handle(dir.fd, "f", &h);
	if (r == -EOPNOTSUPP || geteuid() != 0)
		skip();
	assert_int_equal(r, 0);
	assert_int_equal(store_rename(dir.fd, "f", dir.fd, "g", 0), 0);
	fd = store_open_handle(dir.fd, &h, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(store_stat_fd(fd, &a), 0);
	assert_int_equal(store_stat(dir.fd, "g", &b), 0);
	assert_int_equal(a.st_ino, b.st_ino);
	close(fd);
	assert_int_equal(store_unlink(dir.fd, "g"), 0);
	assert_int_equal(store_open_handle(dir.fd, &h, O_RDONLY), -ESTALE);
}

static void works_on_path_fds(void **state)
{
	const struct timespec times[2] = {{1, 2}, {3, 4}};
	char buf[16];
	struct stat st;
	int fd, again;

	assert_int_equal(store_write_file(dir.fd, "f", "abc", 3, 0600, false), 0);
	fd = store_open(dir.fd, "f", O_PATH, 0);
	assert_true(fd >= 0);
	assert_int_equal(store_chmod(fd, 0640), 0);
	assert_int_equal(store_utimens(fd, times), 0);
	assert_int_equal(store_setxattr(fd, "user.a", "v", 1, 0), 0);
	assert_int_equal(store_getxattr(fd, "user.a", buf, sizeof(buf)), 1);
	assert_int_equal(store_listxattr(fd, buf, sizeof(buf)), sizeof("user.a"));
	assert_int_equal(store_removexattr(fd, "user.a"), 0);
	assert_int_equal(store_getxattr(fd, "user.a", buf, sizeof(buf)), -ENODATA);
	assert_int_equal(store_link(fd, dir.fd, "second"), 0);
	assert_int_equal(store_stat_fd(fd, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(st.st_nlink, 2);
	assert_int_equal(st.st_mtim.tv_nsec, 4);
	again = store_reopen(fd, O_RDWR);
	assert_true(again >= 0);
	assert_int_equal(store_pread(again, buf, sizeof(buf), 1), 2);
	assert_int_equal(store_pwrite(again, "XY", 2, 1), 2);
	assert_int_equal(store_truncate(again, 2), 0);
	assert_int_equal(store_fsync(again, false), 0);
	close(again);
	close(fd);
}

static void renames_without_replacing(void **state)
{
	store_write_file(dir.fd, "a", "a", 1, 0600, false);
	store_write_file(dir.fd, "b", "b", 1, 0600, false);
	assert_int_equal(store_rename(dir.fd, "a", dir.fd, "b", RENAME_NOREPLACE), -EEXIST);
	assert_int_equal(store_rename(dir.fd, "a", dir.fd, "b", RENAME_EXCHANGE), 0);
	assert_int_equal(store_rename(dir.fd, "a", dir.fd, "c", RENAME_NOREPLACE), 0);
}

/* In a child: what is changed belongs to the process. */
static void make_as_caller(void)
{
	struct stat st;

	if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) < 0)
		_exit(10);
	umask(0);
	if (store_act_as(1234, 2345, 027) < 0 || store_mkdir(dir.fd, "theirs", 0777) < 0)
		_exit(11);
	store_act_as_self();
	if (store_act_as(0, 0, 0) < 0 || store_mkdir(dir.fd, "ours", 0777) < 0)
		_exit(12);
	if (store_stat(dir.fd, "theirs", &st) < 0 || st.st_uid != 1234 || st.st_gid != 2345 ||
	    (st.st_mode & 07777) != 0750)
		_exit(13);
	if (store_stat(dir.fd, "ours", &st) < 0 || st.st_uid != 0 || (st.st_mode & 07777) != 0777)
		_exit(14);
	_exit(0);
}

static void creates_as_the_caller(void **state)
{
	int status;
	pid_t pid;

	if (geteuid() != 0)
		skip();
	/* The directory belongs to root alone: that the caller could not write it himself is not the store's
	 * question. */
	pid = fork();
	if (pid == 0)
		make_as_caller();
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void tells_where_an_fd_lies(void **state)
{
	char path[4096];

	assert_int_equal(store_path(dir.fd, path, sizeof(path)), 0);
	assert_string_equal(path, dir.path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(opens_one_component_only, setup, teardown),
		cmocka_unit_test_setup_teardown(small_files_whole_or_not_at_all, setup, teardown),
		cmocka_unit_test_setup_teardown(handles_find_the_inode_again, setup, teardown),
		cmocka_unit_test_setup_teardown(works_on_path_fds, setup, teardown),
		cmocka_unit_test_setup_teardown(renames_without_replacing, setup, teardown),
		cmocka_unit_test_setup_teardown(creates_as_the_caller, setup, teardown),
		cmocka_unit_test_setup_teardown(tells_where_an_fd_lies, setup, teardown),
	};

	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
