/* SPDX-License-Identifier: MIT */
/*
 * LD_PRELOAD library: kills `ckrfs volume-plugin` with SIGKILL before its n-th step: a call that changes its
 * state, starts or ends a child, or says something to its other process. Not in its children. The test sets n
 * in a small file that is shared with it.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* tests/e2e/test_volume_plugin.py knows this layout. */
static struct control {
	_Atomic int64_t countdown; /* 0: off */
	_Atomic int64_t seen;      /* steps counted */
} * control;

static pid_t plugin;

static int is_plugin(void)
{
	char text[4096];
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	return n > 0 && strcmp(text + strlen(text) + 1, "volume-plugin") == 0;
}

static void __attribute__((constructor)) begin(void)
{
	const char *path = getenv("CKRFS_CRASH_CONTROL");
	int fd = path && is_plugin() ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *p = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (fd >= 0)
		close(fd);
	if (p == MAP_FAILED)
		return;
	plugin = getpid();
	control = p;
}

static void step(void)
{
	if (!control || getpid() != plugin)
		return;
	atomic_fetch_add(&control->seen, 1);
	if (atomic_load(&control->countdown) > 0 && atomic_fetch_sub(&control->countdown, 1) == 1)
		kill(plugin, SIGKILL);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define WRAP(type, name, parameters, arguments)                                                              \
	type name parameters                                                                                 \
	{                                                                                                    \
		step();                                                                                      \
		return REAL(name) arguments;                                                                 \
	}

WRAP(pid_t, fork, (void), ())
WRAP(int, fsync, (int fd), (fd))
WRAP(int, renameat2, (int fd, const char *name, int to, const char *new_name, unsigned flags),
     (fd, name, to, new_name, flags))
WRAP(int, unlinkat, (int fd, const char *name, int flags), (fd, name, flags))
WRAP(ssize_t, send, (int fd, const void *buf, size_t size, int flags), (fd, buf, size, flags))

pid_t waitpid(pid_t pid, int *status, int options)
{
	pid_t r = REAL(waitpid)(pid, status, options);

	if (r > 0)
		step();
	return r;
}
