/* SPDX-License-Identifier: MIT */
/* The lower `directory`: a directory of a file system that is mounted already. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lower_impl.h"

enum { LOCK_TRIES = 50, LOCK_WAIT_NS = 10000000 };

/* The source is the manager's word: symbolic links on the way are followed, magic links (/proc/PID/root ...)
 * are not. */
static int open_source(const char *path, struct error *err)
{
	struct open_how how = {
		.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_NO_MAGICLINKS,
	};
	int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
	int code = -errno;

	if (fd >= 0)
		return fd;
	switch (code) {
	case -ENOENT:
		error_set(err, code, EXIT_STATUS_NO_VOLUME, "source %s does not exist", path);
		break;
	case -ENOTDIR:
		error_set(err, code, EXIT_STATUS_FAILED, "source %s is not a directory", path);
		break;
	default:
		error_errno(err, code, EXIT_STATUS_FAILED, "cannot open source %s", path);
	}
	return code;
}

/* flock(2) on the directory itself: it holds for everybody on this machine, whatever runtime directory or
 * namespace, and ends with the mount, however that ends. */
static int lock_source(int fd, const struct lower_params *params, struct error *err)
{
	/* umount(8) returns when the mount is gone, a moment before the last process of it has ended. */
	for (int tries = 0; tries < LOCK_TRIES; tries++) {
		struct timespec t = {.tv_nsec = LOCK_WAIT_NS};

		if (flock(fd, (params->shared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0)
			return 0;
		if (errno != EWOULDBLOCK)
			break;
		nanosleep(&t, NULL);
	}
	if (errno != EWOULDBLOCK)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot lock source %s", params->source);
	error_set(err, -EBUSY, EXIT_STATUS_BUSY, "source %s is in use by another mount", params->source);
	error_hint(err, "ckrfs status");
	return -EBUSY;
}

/* A private, detached mount of the directory alone. Where that is not allowed (no CAP_SYS_ADMIN) the
 * directory itself serves. */
static int clone_root(int fd)
{
	return open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

static int directory_open(struct lower *l, const struct lower_params *params, struct error *err)
{
	int r;

	l->lock_fd = open_source(params->source, err);
	if (l->lock_fd < 0)
		return l->lock_fd;
	r = lock_source(l->lock_fd, params, err);
	if (r < 0)
		return r;
	l->root_fd = clone_root(l->lock_fd);
	l->private_mount = l->root_fd >= 0;
	if (l->root_fd < 0)
		l->root_fd = fcntl(l->lock_fd, F_DUPFD_CLOEXEC, 0);
	if (l->root_fd < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot open source %s", params->source);
	return 0;
}

const struct lower_ops lower_directory_ops = {
	.name = "directory",
	.open = directory_open,
};
