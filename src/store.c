/* SPDX-License-Identifier: MIT */
#include "store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "cleanup.h"
#include "util.h"

static int proc_fd = -1;
static bool proc_is_cwd;

/* The process's own ids, asked once: geteuid(2) is a system call each time. */
static uid_t self_uid;
static gid_t self_gid;

/* What this thread acts as now, so that a caller who comes again costs no system call. */
static _Thread_local struct {
	bool ready; /* fs state is this thread's own, the members below are true */
	uid_t uid;
	gid_t gid;
	mode_t mask;
} acting;

int store_init_proc(void)
{
	if (proc_fd >= 0)
		return 0;
	self_uid = geteuid();
	self_gid = getegid();
	proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return proc_fd < 0 ? -errno : 0;
}

void store_close_proc(void)
{
	cleanup_close(&proc_fd);
	proc_fd = -1;
}

int store_enter_proc(void)
{
	if (fchdir(proc_fd) < 0)
		return -errno;
	proc_is_cwd = true;
	return 0;
}

struct fd_name {
	char text[32];
};

/* The name of an fd below proc_fd. */
static struct fd_name fd_name(int fd)
{
	struct fd_name n;

	snprintf(n.text, sizeof(n.text), "%d", fd);
	return n;
}

/* A path to an fd for calls that take nothing but a path. */
static struct fd_name fd_path(int fd)
{
	struct fd_name n;

	snprintf(n.text, sizeof(n.text), proc_is_cwd ? "%d" : "/proc/self/fd/%d", fd);
	return n;
}

/* umask(2) belongs to what threads share: takes a copy for this one. */
static int acting_begin(void)
{
	if (unshare(CLONE_FS) < 0)
		return -errno;
	acting.mask = umask(0);
	umask(acting.mask);
	acting.uid = self_uid;
	acting.gid = self_gid;
	acting.ready = true;
	return 0;
}

int store_act_as(uid_t uid, gid_t gid, mode_t mask)
{
	if (!acting.ready) {
		int r = acting_begin();

		if (r < 0)
			return r;
	}
	if (acting.mask != mask)
		umask(mask);
	if (acting.gid != gid)
		setfsgid(gid);
	if (acting.uid != uid)
		setfsuid(uid);
	acting.mask = mask;
	acting.gid = gid;
	acting.uid = uid;
	return 0;
}

void store_act_as_self(void)
{
	if (acting.ready)
		store_act_as(self_uid, self_gid, acting.mask);
}

static int open_resolved(int dir_fd, const char *name, int flags, mode_t mode, uint64_t resolve)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY),
		.mode = (flags & (O_CREAT | O_TMPFILE)) ? mode & 07777 : 0,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | resolve,
	};
	int fd;

	/* O_PATH takes no part of an open (openat2(2) refuses O_NOCTTY with it). */
	if (flags & O_PATH)
		how.flags &= ~(uint64_t)O_NOCTTY;
	/* -EAGAIN: a rename elsewhere raced with RESOLVE_BENEATH; "try again" is the documented answer. */
	do {
		fd = (int)syscall(SYS_openat2, dir_fd, name, &how, sizeof(how));
	} while (fd < 0 && (errno == EAGAIN || errno == EINTR));
	return fd < 0 ? -errno : fd;
}

int store_open(int dir_fd, const char *name, int flags, mode_t mode)
{
	return open_resolved(dir_fd, name, flags, mode, 0);
}

int store_open_here(int dir_fd, const char *name, int flags)
{
	return open_resolved(dir_fd, name, flags, 0, RESOLVE_NO_XDEV);
}

int store_open_parent(int dir_fd)
{
	int fd = openat(dir_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int store_open_dir(int dir_fd, const char *name)
{
	return store_open(dir_fd, name, O_RDONLY | O_DIRECTORY, 0);
}

int store_reopen(int fd, int flags)
{
	int r = openat(proc_fd, fd_name(fd).text, (flags & ~O_NOFOLLOW) | O_CLOEXEC | O_NOCTTY);

	return r < 0 ? -errno : r;
}

int store_path(int fd, char *ret_path, size_t size)
{
	ssize_t n = readlinkat(proc_fd, fd_name(fd).text, ret_path, size - 1);

	if (n < 0)
		return -errno;
	ret_path[n] = '\0';
	return 0;
}

/* The kernel's struct with room behind it. */
union handle_buffer {
	struct file_handle head;
	uint8_t room[sizeof(struct file_handle) + STORE_HANDLE_MAX];
};

int store_handle(int dir_fd, const char *name, struct store_handle *ret)
{
	union handle_buffer buf;
	int mount_id;

	buf.head.handle_bytes = STORE_HANDLE_MAX;
	if (name_to_handle_at(dir_fd, name, &buf.head, &mount_id, *name ? 0 : AT_EMPTY_PATH) < 0)
		return -errno;
	ret->type = buf.head.handle_type;
	ret->size = buf.head.handle_bytes;
	memcpy(ret->bytes, buf.head.f_handle, ret->size);
	return 0;
}

int store_open_handle(int mount_fd, const struct store_handle *h, int flags)
{
	union handle_buffer buf;
	int fd;

	buf.head.handle_bytes = h->size;
	buf.head.handle_type = h->type;
	memcpy(buf.head.f_handle, h->bytes, h->size);
	fd = open_by_handle_at(mount_fd, &buf.head, flags | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

int store_stat(int dir_fd, const char *name, struct stat *ret)
{
	return fstatat(dir_fd, name, ret, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0 ? -errno : 0;
}

int store_stat_fd(int fd, struct stat *ret)
{
	return fstat(fd, ret) < 0 ? -errno : 0;
}

int store_access(int fd, int mask)
{
	return syscall(SYS_faccessat2, fd, "", mask, AT_EMPTY_PATH | AT_EACCESS) < 0 ? -errno : 0;
}

int store_birth(int fd, struct timespec *ret)
{
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_BTIME, &st) < 0)
		return -errno;
	if (!(st.stx_mask & STATX_BTIME))
		return -EOPNOTSUPP;
	*ret = (struct timespec){st.stx_btime.tv_sec, st.stx_btime.tv_nsec};
	return 0;
}

int store_chmod(int fd, mode_t mode)
{
	return fchmodat(proc_fd, fd_name(fd).text, mode, 0) < 0 ? -errno : 0;
}

int store_chown(int fd, uid_t uid, gid_t gid)
{
	return fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

int store_utimens(int fd, const struct timespec times[2])
{
	return utimensat(proc_fd, fd_name(fd).text, times, 0) < 0 ? -errno : 0;
}

bool store_overwrites(int fd)
{
	struct statfs st;

	return fstatfs(fd, &st) == 0 &&
	       (st.f_type == EXT4_SUPER_MAGIC || st.f_type == XFS_SUPER_MAGIC || st.f_type == TMPFS_MAGIC);
}

int store_statvfs(int fd, struct statvfs *ret)
{
	return fstatvfs(fd, ret) < 0 ? -errno : 0;
}

int store_mkdir(int dir_fd, const char *name, mode_t mode)
{
	return mkdirat(dir_fd, name, mode) < 0 ? -errno : 0;
}

int store_mknod(int dir_fd, const char *name, mode_t mode, dev_t rdev)
{
	return mknodat(dir_fd, name, mode, rdev) < 0 ? -errno : 0;
}

int store_symlink(const char *target, int dir_fd, const char *name)
{
	return symlinkat(target, dir_fd, name) < 0 ? -errno : 0;
}

int store_link(int fd, int dir_fd, const char *name)
{
	return linkat(proc_fd, fd_name(fd).text, dir_fd, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

int store_unlink(int dir_fd, const char *name)
{
	return unlinkat(dir_fd, name, 0) < 0 ? -errno : 0;
}

int store_rmdir(int dir_fd, const char *name)
{
	return unlinkat(dir_fd, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

int store_rename(int dir_fd, const char *name, int new_dir_fd, const char *new_name, unsigned flags)
{
	return renameat2(dir_fd, name, new_dir_fd, new_name, flags) < 0 ? -errno : 0;
}

ssize_t store_readlink(int fd, char *ret_target, size_t size)
{
	ssize_t n = readlinkat(fd, "", ret_target, size);

	return n < 0 ? -errno : n;
}

ssize_t store_getdents(int fd, void *buf, size_t size)
{
	ssize_t n = getdents64(fd, buf, size);

	return n < 0 ? -errno : n;
}

int store_rewind(int fd)
{
	return lseek(fd, 0, SEEK_SET) < 0 ? -errno : 0;
}

ssize_t store_read_file(int dir_fd, const char *name, void *buf, size_t size)
{
	autofd int fd = -1;
	struct stat st;

	/* O_NONBLOCK: somebody may have put a FIFO there. */
	fd = store_open(dir_fd, name, O_RDONLY | O_NONBLOCK, 0);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	return read_full(fd, buf, size);
}

int store_write_file(int dir_fd, const char *name, const void *buf, size_t size, mode_t mode, bool sync)
{
	autofd int fd = -1;
	int r;

	fd = store_open(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL, mode);
	if (fd < 0)
		return fd;
	r = write_full(fd, buf, size);
	if (r == 0 && sync)
		r = store_fsync(fd, false);
	if (r < 0)
		store_unlink(dir_fd, name);
	return r;
}

ssize_t store_pread(int fd, void *buf, size_t size, uint64_t offset)
{
	return pread_full(fd, buf, size, (off_t)offset);
}

ssize_t store_pwrite(int fd, const void *buf, size_t size, uint64_t offset)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = pwrite(fd, (const uint8_t *)buf + done, size - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return done ? (ssize_t)done : n < 0 ? -errno : -ENOSPC;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int store_truncate(int fd, uint64_t size)
{
	return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

int store_fallocate(int fd, int mode, uint64_t offset, uint64_t length)
{
	int r;

	do {
		r = fallocate(fd, mode, (off_t)offset, (off_t)length);
	} while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

int store_seek(int fd, uint64_t offset, int whence, uint64_t *ret_offset)
{
	off_t r = lseek(fd, (off_t)offset, whence);

	if (r < 0)
		return -errno;
	*ret_offset = (uint64_t)r;
	return 0;
}

ssize_t store_copy(int fd, uint64_t offset, int to_fd, uint64_t to, size_t size)
{
	off_t from_at = (off_t)offset, to_at = (off_t)to;
	ssize_t n;

	do {
		n = copy_file_range(fd, &from_at, to_fd, &to_at, size, 0);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

int store_fsync(int fd, bool data_only)
{
	return (data_only ? fdatasync(fd) : fsync(fd)) < 0 ? -errno : 0;
}

int store_lock(int fd)
{
	return flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
}

int store_syncfs(int fd)
{
	return syncfs(fd) < 0 ? -errno : 0;
}

ssize_t store_getxattr(int fd, const char *name, void *buf, size_t size)
{
	ssize_t n = getxattr(fd_path(fd).text, name, buf, size);

	return n < 0 ? -errno : n;
}

ssize_t store_listxattr(int fd, char *buf, size_t size)
{
	ssize_t n = listxattr(fd_path(fd).text, buf, size);

	return n < 0 ? -errno : n;
}

ssize_t store_read_xattr(int fd, const char *name, char **ret)
{
	for (;;) {
		ssize_t size = name ? store_getxattr(fd, name, NULL, 0) : store_listxattr(fd, NULL, 0), n;
		autofree char *buf = NULL;

		if (size < 0)
			return size;
		buf = malloc((size_t)size + 2);
		if (!buf)
			return -ENOMEM;
		/* Size 0 would ask for the size once more. */
		n = name ? store_getxattr(fd, name, buf, (size_t)size + 1)
			 : store_listxattr(fd, buf, (size_t)size + 1);
		if (n == -ERANGE)
			continue;
		if (n >= 0) {
			buf[n] = '\0';
			*ret = steal_ptr(&buf);
		}
		return n;
	}
}

int store_setxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
	return setxattr(fd_path(fd).text, name, value, size, flags) < 0 ? -errno : 0;
}

int store_removexattr(int fd, const char *name)
{
	return removexattr(fd_path(fd).text, name) < 0 ? -errno : 0;
}
