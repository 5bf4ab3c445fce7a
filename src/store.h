/* SPDX-License-Identifier: MIT */
/*
 * The system calls on the lower, all relative to a directory fd or on an fd, and the only place that makes
 * them. A `name` is always one component as it stands on disk; nothing here follows a symlink or leaves the
 * directory (openat2(2), RESOLVE_BENEATH and O_NOFOLLOW). Data path: any thread, negative errno. Numbers of
 * system calls matter here; each function says what it costs if it is more than one.
 */
#ifndef CKRFS_STORE_H
#define CKRFS_STORE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <time.h>

/*
 * Opens /proc/self/fd for the functions that need a path to an fd (marked PROC). Once per process that uses
 * them, before /proc goes out of reach, single thread.
 */
int store_init_proc(void);

/* Takes that back: for a process that forks others, whose own it must be. */
void store_close_proc(void);

/* Makes /proc/self/fd the working directory: extended attributes of O_PATH fds have no *at() call before
 * Linux 6.13. After the sandbox, before the first thread. */
int store_enter_proc(void);

/* ---- acting for a caller: per thread, and kept until changed ---- */

/*
 * From here on this thread creates objects as uid:gid under umask mask (setfsuid(2); CLONE_FS is unshared
 * once per thread). Capabilities stay, which the server sees to by SECBIT_NO_SETUID_FIXUP. Repeating the same
 * caller costs no system call. Fails only where unshare(2) does.
 */
int store_act_as(uid_t uid, gid_t gid, mode_t mask);
/* Back to the server's own ids (the mask stays: every creating request sets it). */
void store_act_as_self(void);

/* ---- opening ---- */

int store_open(int dir_fd, const char *name, int flags, mode_t mode); /* O_CLOEXEC|O_NOFOLLOW added; the fd */
int store_open_dir(int dir_fd, const char *name);                     /* O_RDONLY|O_DIRECTORY */
int store_open_here(int dir_fd, const char *name, int flags); /* as store_open(); -EXDEV: a mount is on it */
int store_open_parent(int dir_fd);   /* "..", for who knows which inode that must be; O_RDONLY */
int store_reopen(int fd, int flags); /* PROC: the same inode with other flags */
int store_path(int fd, char *ret_path, size_t size); /* PROC: where it lies, for messages only */

/* File handles, name_to_handle_at(2). */
enum { STORE_HANDLE_MAX = 128 };
struct store_handle {
	int32_t type;
	uint32_t size;
	uint8_t bytes[STORE_HANDLE_MAX];
};
int store_handle(int dir_fd, const char *name,
		 struct store_handle *ret); /* name "": the fd itself. -EOPNOTSUPP */
int store_open_handle(int mount_fd, const struct store_handle *h, int flags);

/* ---- attributes ---- */

int store_stat(int dir_fd, const char *name, struct stat *ret);
int store_stat_fd(int fd, struct stat *ret);
int store_access(int fd, int mask);            /* access(2) by the ids that are in effect */
int store_birth(int fd, struct timespec *ret); /* -EOPNOTSUPP where the file system does not keep it */
int store_chmod(int fd, mode_t mode);          /* PROC */
int store_chown(int fd, uid_t uid, gid_t gid);
int store_utimens(int fd, const struct timespec times[2]); /* PROC */
/* Is this a file system that is known to overwrite what is allocated where it is? */
bool store_overwrites(int fd);
int store_statvfs(int fd, struct statvfs *ret);

/* ---- changing directories ---- */

int store_mkdir(int dir_fd, const char *name, mode_t mode);
int store_mknod(int dir_fd, const char *name, mode_t mode, dev_t rdev);
int store_symlink(const char *target, int dir_fd, const char *name);
int store_link(int fd, int dir_fd, const char *name); /* PROC: fd gets one more name */
int store_unlink(int dir_fd, const char *name);
int store_rmdir(int dir_fd, const char *name);
int store_rename(int dir_fd, const char *name, int new_dir_fd, const char *new_name, unsigned flags);
ssize_t store_readlink(int fd, char *ret_target, size_t size); /* of an O_PATH fd; not terminated */

/* getdents64(2) as it is: linux_dirent64 records from the fd's position on. */
ssize_t store_getdents(int fd, void *buf, size_t size);

/* getdents64(2) begins anew. */
int store_rewind(int fd);

/* A whole small file: at most size bytes; the bytes read. Regular files only: -EINVAL otherwise. */
ssize_t store_read_file(int dir_fd, const char *name, void *buf, size_t size);
/* Creates it with exactly these contents (O_EXCL); on failure it is gone again. sync: fsync before close. */
int store_write_file(int dir_fd, const char *name, const void *buf, size_t size, mode_t mode, bool sync);

/* ---- contents ---- */

ssize_t store_pread(int fd, void *buf, size_t size,
		    uint64_t offset); /* to the end of file or size; goes on after short reads */
ssize_t
store_pwrite(int fd, const void *buf, size_t size,
	     uint64_t offset); /* all, or the error; what was written before an error is counted: > 0 */
int store_truncate(int fd, uint64_t size);
int store_fallocate(int fd, int mode, uint64_t offset, uint64_t length);
int store_seek(int fd, uint64_t offset, int whence, uint64_t *ret_offset);
/* copy_file_range(2): as much as the lower copies at once, without the bytes passing through here. */
ssize_t store_copy(int fd, uint64_t offset, int to_fd, uint64_t to, size_t size);
int store_fsync(int fd, bool data_only);
/* flock(2), exclusive, without waiting: -EAGAIN. Ends with the last fd of this open. */
int store_lock(int fd);
int store_syncfs(int fd); /* everything of the file system that fd is on */

/* ---- extended attributes, PROC: the fd may be O_PATH, also of a symlink or device ---- */

ssize_t store_getxattr(int fd, const char *name, void *buf, size_t size);
ssize_t store_listxattr(int fd, char *buf, size_t size);
/* A whole value, or with name NULL the list of names; malloc'ed, with a NUL behind it. It may grow while it
 * is read. The bytes. -ENOMEM */
ssize_t store_read_xattr(int fd, const char *name, char **ret);
int store_setxattr(int fd, const char *name, const void *value, size_t size, int flags);
int store_removexattr(int fd, const char *name);

#endif
