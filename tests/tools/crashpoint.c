/* SPDX-License-Identifier: MIT */
/*
 * LD_PRELOAD library: kills the process with SIGKILL before its n-th system call that changes the lower. The
 * test sets n in a small file that is shared with it; so every step of an operation can be the last one.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096 };

/* tests/e2e/crash.py knows this layout. */
static struct control {
	_Atomic int64_t countdown; /* 0: off */
	_Atomic int64_t seen;      /* changes counted */
	_Atomic int64_t tear;      /* the call is done by halves if it writes more than a page */
	_Atomic int64_t syncs;     /* fsync and fdatasync calls, counted apart */
} * control;

static void __attribute__((constructor)) begin(void)
{
	const char *path = getenv("CKRFS_CRASH_CONTROL");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *p = fd < 0 ? MAP_FAILED : mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (fd >= 0)
		close(fd);
	if (p != MAP_FAILED)
		control = p;
}

static void end_here(void)
{
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

/* Is this call the last one? */
static int last(void)
{
	if (!control)
		return 0;
	atomic_fetch_add(&control->seen, 1);
	return atomic_load(&control->countdown) > 0 && atomic_fetch_sub(&control->countdown, 1) == 1;
}

static void step(void)
{
	if (last())
		end_here();
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define WRAP(type, name, parameters, arguments)                                                              \
	type name parameters                                                                                 \
	{                                                                                                    \
		step();                                                                                      \
		return REAL(name) arguments;                                                                 \
	}

WRAP(int, mkdirat, (int fd, const char *name, mode_t mode), (fd, name, mode))
WRAP(int, mknodat, (int fd, const char *name, mode_t mode, dev_t dev), (fd, name, mode, dev))
WRAP(int, symlinkat, (const char *target, int fd, const char *name), (target, fd, name))
WRAP(int, linkat, (int fd, const char *name, int to, const char *new_name, int flags),
     (fd, name, to, new_name, flags))
WRAP(int, unlinkat, (int fd, const char *name, int flags), (fd, name, flags))
WRAP(int, renameat2, (int fd, const char *name, int to, const char *new_name, unsigned flags),
     (fd, name, to, new_name, flags))
WRAP(int, fchmodat, (int fd, const char *name, mode_t mode, int flags), (fd, name, mode, flags))
WRAP(int, ftruncate64, (int fd, off64_t size), (fd, size))
WRAP(int, fallocate64, (int fd, int mode, off64_t offset, off64_t size), (fd, mode, offset, size))
WRAP(int, setxattr, (const char *path, const char *name, const void *value, size_t size, int flags),
     (path, name, value, size, flags))

int fsync(int fd)
{
	if (control)
		atomic_fetch_add(&control->syncs, 1);
	step();
	return REAL(fsync)(fd);
}

int fdatasync(int fd)
{
	if (control)
		atomic_fetch_add(&control->syncs, 1);
	step();
	return REAL(fdatasync)(fd);
}

ssize_t pwrite64(int fd, const void *buf, size_t size, off64_t offset)
{
	ssize_t (*real)(int, const void *, size_t, off64_t) = REAL(pwrite64);

	if (!last())
		return real(fd, buf, size, offset);
	/* What SIGKILL or a power failure does in the middle of it: whole pages of the file are new. */
	if (atomic_load(&control->tear)) {
		off64_t end = (offset + (off64_t)size / 2) / PAGE * PAGE;

		if (end <= offset)
			end = (offset / PAGE + 1) * PAGE;
		if (end < offset + (off64_t)size)
			real(fd, buf, (size_t)(end - offset), offset);
	}
	end_here();
	return -1;
}

ssize_t write(int fd, const void *buf, size_t size)
{
	struct stat st;

	/* The log is appended to, and pipes and devices are no part of the lower. */
	if (control && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && !(fcntl(fd, F_GETFL) & O_APPEND))
		step();
	return REAL(write)(fd, buf, size);
}

/* store.c opens by openat2(2), which has no wrapper in the C library. */
long syscall(long number, ...)
{
	long a[6];
	va_list ap;

	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (number == SYS_openat2 && ((const struct open_how *)a[2])->flags & O_CREAT)
		step();
	return REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
