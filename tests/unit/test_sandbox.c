/* SPDX-License-Identifier: MIT */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sandbox.h"
#include "sandbox_impl.h"
#include "secret.h"
#include "util.h"

static const struct {
	const char *name;
	long number;
	long arguments[5];
} forbidden[] = {
	{"socket", SYS_socket, {AF_UNIX, SOCK_STREAM}},
	{"execve", SYS_execve, {(long)"/bin/true"}},
	{"fork by clone", SYS_clone, {SIGCHLD}},
	{"clone3", SYS_clone3, {0}},
	{"thread in a new user namespace", SYS_clone, {CLONE_THREAD | CLONE_NEWUSER}},
	{"unshare user namespace", SYS_unshare, {CLONE_NEWUSER}},
	{"unshare mounts", SYS_unshare, {CLONE_FS | CLONE_NEWNS}},
	{"setns", SYS_setns, {0}},
	{"mount", SYS_mount, {0}},
	{"ptrace", SYS_ptrace, {PTRACE_TRACEME}},
	{"process_vm_readv", SYS_process_vm_readv, {1}},
	{"keyctl", SYS_keyctl, {0}},
	{"add_key", SYS_add_key, {0}},
	{"request_key", SYS_request_key, {0}},
	{"bpf", SYS_bpf, {0}},
	{"io_uring_setup", SYS_io_uring_setup, {0}},
	{"kill", SYS_kill, {1, 0}},
	{"pidfd_open", SYS_pidfd_open, {1}},
	{"setuid", SYS_setuid, {0}},
	{"prctl dumpable", SYS_prctl, {PR_SET_DUMPABLE, 1}},
	{"ioctl on a terminal", SYS_ioctl, {0, 0x5412 /* TIOCSTI */}},
	{"ioctl for a key", SYS_ioctl, {0, 0xc0506617 /* FS_IOC_ADD_ENCRYPTION_KEY */}},
};

/* In the child: exit status 0, or which line fails. */
static void *in_thread(void *arg)
{
	return unshare(CLONE_FS) == 0 ? arg : NULL;
}

static int allowed_works(int dir)
{
	struct secret *s = NULL;
	pthread_t thread;
	void *seen = NULL;
	char buf[4] = "";
	int fd;

	fd = openat(dir, "f", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || pwrite(fd, "abc", 3, 0) != 3 || pread(fd, buf, 3, 0) != 3 || fsync(fd) < 0)
		return 1;
	if (renameat2(dir, "f", dir, "g", 1) < 0 || unlinkat(dir, "g", 0) < 0)
		return 2;
	if (secret_new(4096, &s) < 0)
		return 3;
	secret_free(s);
	if (pthread_create(&thread, NULL, in_thread, buf) || pthread_join(thread, &seen) || seen != buf)
		return 4;
	return 0;
}

static int all_forbidden(int (*enter)(void))
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return 100;
	if (enter() < 0)
		return 101;
	for (size_t i = 0; i < ARRAY_SIZE(forbidden); i++) {
		const long *a = forbidden[i].arguments;

		errno = 0;
		if (syscall(forbidden[i].number, a[0], a[1], a[2], a[3], a[4]) != -1 || errno != ENOSYS)
			return 10 + (int)i;
	}
	return 0;
}

static int confined(int dir)
{
	int r = all_forbidden(sandbox_seccomp_server);

	return r ? r : allowed_works(dir);
}

/* Sockets and memory, but no files, threads or ids. */
static int confined_front(int dir)
{
	int sv[2], r;
	char byte = 'x';
	void *p;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return 1;
	r = all_forbidden(sandbox_seccomp_front);
	if (r)
		return r;
	if (send(sv[0], &byte, 1, 0) != 1 || recv(sv[1], &byte, 1, 0) != 1)
		return 2;
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED || munmap(p, 4096) < 0)
		return 3;
	if (openat(dir, "f", O_RDWR | O_CREAT, 0600) != -1 || errno != ENOSYS)
		return 4;
	if (syscall(SYS_clone, CLONE_THREAD | CLONE_VM | CLONE_SIGHAND, 0) != -1 || errno != ENOSYS)
		return 5;
	if (syscall(SYS_setfsuid, 0) != -1 || errno != ENOSYS || unlinkat(dir, "f", 0) != -1 ||
	    errno != ENOSYS)
		return 6;
	return mprotect(&byte, 1, PROT_EXEC) == -1 && errno == ENOSYS ? 0 : 7;
}

static void run_confined(int (*what)(int dir))
{
	char path[] = "/tmp/ckrfs-unit-XXXXXX";
	int dir, status;
	pid_t pid;

	assert_non_null(mkdtemp(path));
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(dir >= 0);
	pid = fork();
	if (pid == 0)
		_exit(what(dir));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(dir);
	rmdir(path);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) >= 10 && WEXITSTATUS(status) < 10 + (int)ARRAY_SIZE(forbidden))
		print_error("not forbidden: %s\n", forbidden[WEXITSTATUS(status) - 10].name);
	assert_int_equal(WEXITSTATUS(status), 0);
}

static bool refused(long number, long a, long b)
{
	errno = 0;
	return syscall(number, a, b, 0, 0) == -1 && errno == EPERM;
}

/* What a keeper does not do is refused, to the programs that it runs too; what it does goes on. */
static int as_keeper(void)
{
	struct timespec t = {0};
	unsigned protections = 0;

	if (sandbox_keeper(SANDBOX_STRICT, false, &protections, NULL) < 0)
		return 1;
	if (protections != (SANDBOX_KEEPER_CAPABILITIES | SANDBOX_KEEPER_SECCOMP))
		return 2;
	if (!refused(SYS_ptrace, PTRACE_TRACEME, 0) || !refused(SYS_settimeofday, (long)&t, 0) ||
	    !refused(SYS_delete_module, (long)"none", 0) || !refused(SYS_bpf, 0, 0))
		return 3;
	if (prctl(PR_CAPBSET_READ, CAP_SYS_PTRACE) != 0 || prctl(PR_CAPBSET_READ, CAP_SYS_MODULE) != 0 ||
	    prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN) != 1)
		return 4;
	return system("test \"$(sed -n 's/^Seccomp:.//p' /proc/self/status)\" = 2") == 0 ? 0 : 5;
}

static void keeper_is_narrow(void **state)
{
	int status;
	pid_t pid;

	if (geteuid() != 0)
		skip();
	pid = fork();
	if (pid == 0)
		_exit(as_keeper());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void seccomp_allows_what_serving_takes(void **state)
{
	run_confined(confined);
}

static void seccomp_allows_what_a_front_takes(void **state)
{
	run_confined(confined_front);
}

static void words_of_protections(void **state)
{
	char text[256], small[8];

	sandbox_words(0, text, sizeof(text));
	assert_string_equal(text, "");
	sandbox_words(SANDBOX_NO_CORE | SANDBOX_SECCOMP, text, sizeof(text));
	assert_string_equal(text, "no-core seccomp");
	sandbox_words(~0u, small, sizeof(small));
	assert_string_equal(small, "no-core");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(seccomp_allows_what_serving_takes),
		cmocka_unit_test(keeper_is_narrow),
		cmocka_unit_test(seccomp_allows_what_a_front_takes),
		cmocka_unit_test(words_of_protections),
	};

	return cmocka_run_group_tests_name("sandbox", tests, NULL, NULL);
}
