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

static int open_failed(const char *path, int code, struct error *err)
{
	switch (code) {
	case -ENOENT:
		return error_set(err, code, EXIT_STATUS_NO_VOLUME, "source %s does not exist", path);
	case -ENOTDIR:
		return error_set(err, code, EXIT_STATUS_FAILED, "source %s is not a directory", path);
	default:
		return error_errno(err, code, EXIT_STATUS_FAILED, "cannot open source %s", path);
	}
}

int lower_source_open(int dir_fd, const char *path, struct error *err)
{
	struct open_how how = {
		.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_NO_MAGICLINKS | (dir_fd == AT_FDCWD ? 0 : RESOLVE_IN_ROOT),
	};
	int fd = (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));

	return fd < 0 ? open_failed(path, -errno, err) : fd;
}

int lower_directory_find(const struct lower *l, struct error *err)
{
	if (l->params.source_fd > 0)
		return lower_source_open(l->params.source_fd, ".", err);
	if (l->mount_fd < 0)
		return lower_source_open(AT_FDCWD, l->params.source, err);
	return lower_source_open(l->mount_fd, l->params.subtree ? l->params.subtree : ".", err);
}

/* Bytes of the directory that carry marks, beside the flock: docs/locking.md. */
enum mark { MARK_WRITES, MARK_READS, MARK_COPIES, N_MARKS };

/* What one kind of user of a volume locks. */
struct use {
	int flock;
	unsigned marks, excludes; /* sets of enum mark */
};

static struct use use_of(const struct lower_params *params)
{
	static const unsigned writes = 1 << MARK_WRITES, reads = 1 << MARK_READS, copies = 1 << MARK_COPIES;

	if (params->copying)
		return (struct use){LOCK_SH, reads | copies, writes | copies};
	if (params->shared)
		return params->read_only ? (struct use){LOCK_SH, 0, 0} : (struct use){LOCK_SH, writes, reads};
	/* It trusts what it read: nobody may write beside it. */
	return params->read_only ? (struct use){LOCK_SH, reads, writes} : (struct use){LOCK_EX, 0, 0};
}

static struct flock mark_range(short type, int mark)
{
	return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = mark, .l_len = 1};
}

/* A mark is a read lock: a directory cannot be opened for writing, and several may have the same one. */
static int set_marks(int fd, unsigned marks, short type)
{
	for (int i = 0; i < N_MARKS; i++) {
		struct flock l = mark_range(type, i);

		if (marks & 1U << i && fcntl(fd, F_OFD_SETLK, &l) < 0)
			return -errno;
	}
	return 0;
}

/* -EWOULDBLOCK when somebody else has one of the marks: asking whether one could write shows the readers. */
static int find_marks(int fd, unsigned marks)
{
	for (int i = 0; i < N_MARKS; i++) {
		struct flock l = mark_range(F_WRLCK, i);

		if (!(marks & 1U << i))
			continue;
		if (fcntl(fd, F_OFD_GETLK, &l) < 0)
			return -errno;
		if (l.l_type != F_UNLCK)
			return -EWOULDBLOCK;
	}
	return 0;
}

/* First says what it does, then looks at what others say: of two that begin at once at least one sees the
 * other. */
static int try_use(int fd, const struct use *use)
{
	int r;

	if (flock(fd, use->flock | LOCK_NB) < 0)
		return -errno;
	r = set_marks(fd, use->marks, F_RDLCK);
	if (r == 0)
		r = find_marks(fd, use->excludes);
	if (r < 0) {
		set_marks(fd, use->marks, F_UNLCK);
		flock(fd, LOCK_UN);
	}
	return r;
}

/* Locks on the directory itself: they hold for everybody on this machine, whatever runtime directory or
 * namespace, and end with the mount, however that ends. */
static int lock_source(int fd, const struct lower_params *params, struct error *err)
{
	struct use use = use_of(params);
	struct timespec t = {.tv_nsec = LOCK_WAIT_NS};
	int r = try_use(fd, &use);

	/* umount(8) returns when the mount is gone, a moment before the last process of it has ended. */
	for (int tries = 1; r == -EWOULDBLOCK && tries < LOCK_TRIES; tries++) {
		nanosleep(&t, NULL);
		r = try_use(fd, &use);
	}
	if (r == 0)
		return 0;
	if (r != -EWOULDBLOCK)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot lock source %s", params->source);
	error_set(err, -EBUSY, EXIT_STATUS_BUSY, "source %s is in use by another mount", params->source);
	error_hint(err, "ckrfs status");
	return -EBUSY;
}

int lower_directory_lock_alone(struct lower *l)
{
	return flock(l->lock_fd, LOCK_EX | LOCK_NB) == 0 ? 0 : errno == EWOULDBLOCK ? -EBUSY : -errno;
}

/* A private, detached mount of the directory alone. Where that is not allowed (no CAP_SYS_ADMIN) the
 * directory itself serves. */
static int clone_root(int fd)
{
	return open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

int lower_directory_adopt(struct lower *l, int fd, struct error *err)
{
	int r;

	l->lock_fd = fd;
	r = lock_source(l->lock_fd, &l->params, err);
	if (r < 0)
		return r;
	l->root_fd = clone_root(l->lock_fd);
	l->private_mount = l->root_fd >= 0;
	/* Opened anew: the server keeps it, and the lock is the keeper's. */
	if (l->root_fd < 0)
		l->root_fd = openat(l->lock_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (l->root_fd < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot open source %s",
				   l->params.source);
	return 0;
}

int lower_directory_open(struct lower *l, struct error *err)
{
	int fd;

	if (l->params.hide) {
		l->mount_fd = lower_device_mount(l->params.source, l->params.read_only, err);
		if (l->mount_fd < 0)
			return l->mount_fd;
	}
	fd = lower_directory_find(l, err);
	return fd < 0 ? fd : lower_directory_adopt(l, fd, err);
}

const struct lower_ops lower_directory_ops = {
	.name = "directory",
	.open = lower_directory_open,
	.lock_alone = lower_directory_lock_alone,
};
