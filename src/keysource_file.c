/* SPDX-License-Identifier: MIT */
/* file:PATH, fd:N and cred:NAME (systemd.exec(5), CREDENTIALS). */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "keysource_impl.h"
#include "util.h"

/* Not to be opened, or not a file; NULL: fine. A FIFO is where a process substitution or a helper hands a key
 * over. */
static const char *file_wrong_kind(mode_t mode, bool fifo)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return NULL;
	case S_IFIFO:
		return fifo ? NULL : "FIFO";
	case S_IFDIR:
		return "directory";
	case S_IFSOCK:
		return "socket";
	default:
		return "device";
	}
}

/* A path that a shell takes as it is: hints are made to be pasted. */
static bool path_plain(const char *path)
{
	return path[strspn(path,
			   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._+:,@%=-")] ==
	       '\0';
}

/* Whoever can read the file has the key, whoever can write it chooses it. Root's group is no exception. */
static int file_check_access(const struct keysource *src, const struct stat *st, uid_t uid, struct error *err)
{
	unsigned mode = st->st_mode & 07777;

	if (st->st_uid != 0 && st->st_uid != uid) {
		return error_set(err, -EPERM, EXIT_STATUS_NO_KEY, KEYSOURCE_FILE_OWNER, src->spec, st->st_uid,
				 uid);
	}
	if (!(mode & 077))
		return 0;
	if (mode & 044)
		error_set(err, -EPERM, EXIT_STATUS_NO_KEY, KEYSOURCE_FILE_READABLE, src->spec, mode);
	else
		error_set(err, -EPERM, EXIT_STATUS_NO_KEY, KEYSOURCE_FILE_OPEN, src->spec, mode);
	if (path_plain(src->body))
		error_hint(err, "chmod 600 %s", src->body);
	return -EPERM;
}

/*
 * Opens a path below dir (AT_FDCWD for absolute ones). Symbolic links are followed: secrets are often handed
 * over behind some. The first look keeps us from opening a device, which may act on it; the second one
 * decides.
 */
static int file_open(const struct keysource *src, int dir, bool fifo, struct stat *ret_st, struct error *err)
{
	const char *wrong;
	autofd int fd = -1;
	struct stat st;

	if (fstatat(dir, src->body, &st, 0) < 0)
		return keysource_error(src, -errno, 0, err);
	wrong = file_wrong_kind(st.st_mode, fifo);
	if (wrong)
		return error_set(err, -EINVAL, EXIT_STATUS_NO_KEY, KEYSOURCE_FILE_KIND, src->spec, wrong);
	/* O_NONBLOCK: a FIFO nobody writes to is waited for in secret_read(), which has a time limit. */
	fd = openat(dir, src->body, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return keysource_error(src, -errno, 0, err);
	wrong = file_wrong_kind(st.st_mode, fifo);
	if (wrong)
		return error_set(err, -EINVAL, EXIT_STATUS_NO_KEY, KEYSOURCE_FILE_KIND, src->spec, wrong);
	*ret_st = st;
	return steal_fd(&fd);
}

static int file_read(const struct keysource *src, const struct keysource_env *env, struct secret **ret,
		     struct error *err)
{
	autofd int fd = -1;
	struct stat st;
	int r;

	fd = file_open(src, AT_FDCWD, true, &st, err);
	if (fd < 0)
		return fd;
	if (env->check_files) {
		r = file_check_access(src, &st, env->uid, err);
		if (r < 0)
			return r;
	}
	return keysource_read_fd(src, fd, env->timeout_ms, ret, err);
}

static int probe_at(const struct keysource *src, int dir, bool fifo, struct stat *ret_st, struct error *err)
{
	const char *wrong;

	if (fstatat(dir, src->body, ret_st, 0) < 0)
		return keysource_error(src, -errno, 0, err);
	wrong = file_wrong_kind(ret_st->st_mode, fifo);
	if (wrong)
		return error_set(err, -EINVAL, EXIT_STATUS_NO_KEY, KEYSOURCE_FILE_KIND, src->spec, wrong);
	if (faccessat(dir, src->body, R_OK, AT_EACCESS) < 0)
		return keysource_error(src, -errno, 0, err);
	if (S_ISREG(ret_st->st_mode) && ret_st->st_size == 0)
		return keysource_error(src, -ENODATA, 0, err);
	return 0;
}

static int file_probe(const struct keysource *src, const struct keysource_env *env, struct error *err)
{
	struct stat st;
	int r = probe_at(src, AT_FDCWD, true, &st, err);

	return r == 0 && env->check_files ? file_check_access(src, &st, env->uid, err) : r;
}

static int cred_check(const struct keysource *src, struct error *err)
{
	const char *name = src->body;

	if (!*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, KEYSOURCE_NOT_CREDENTIAL, src->spec);
	return 0;
}

/* No look at the mode: systemd made the directory, for this unit only. */
static int cred_read(const struct keysource *src, const struct keysource_env *env, struct secret **ret,
		     struct error *err)
{
	const char *path = secure_getenv("CREDENTIALS_DIRECTORY");
	autofd int dir = -1, fd = -1;
	struct stat st;

	if (!path || path[0] != '/')
		return error_set(err, -ENOENT, EXIT_STATUS_NO_KEY, KEYSOURCE_NO_CREDENTIALS, src->spec);
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return keysource_error(src, -errno, 0, err);
	fd = file_open(src, dir, false, &st, err);
	if (fd < 0)
		return fd;
	return keysource_read_fd(src, fd, env->timeout_ms, ret, err);
}

/* Outside its unit, nobody can tell. */
static int cred_probe(const struct keysource *src, const struct keysource_env *env, struct error *err)
{
	const char *path = secure_getenv("CREDENTIALS_DIRECTORY");
	autofd int dir = path && path[0] == '/' ? open(path, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	struct stat st;

	return dir < 0 ? 1 : probe_at(src, dir, false, &st, err);
}

/* 1 and 2 are where messages go. */
static int fd_number(const struct keysource *src, int *ret)
{
	uint64_t n;

	if (parse_u64(src->body, 1 << 20, &n) < 0 || n == 1 || n == 2)
		return -EINVAL;
	*ret = (int)n;
	return 0;
}

static int fd_check(const struct keysource *src, struct error *err)
{
	int fd;

	if (fd_number(src, &fd) < 0)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, KEYSOURCE_NOT_DESCRIPTOR, src->spec);
	return 0;
}

/* No child shall inherit it. Standard input stays open, on nothing, so that no later open() takes its place.
 */
static void fd_consume(int fd)
{
	autofd int null = fd == STDIN_FILENO ? open("/dev/null", O_RDONLY | O_CLOEXEC) : -1;

	if (null < 0 || dup2(null, fd) < 0)
		close(fd);
}

static int fd_read(const struct keysource *src, const struct keysource_env *env, struct secret **ret,
		   struct error *err)
{
	int fd = -1, flags, r;

	if (fd_number(src, &fd) < 0)
		return keysource_error(src, -EINVAL, 0, err);
	/* Our own descriptors are all born O_CLOEXEC; one that was handed over by exec cannot be. So a number
	 * that was read before and is in use again for something else is not read. */
	flags = fcntl(fd, F_GETFD);
	if (flags < 0 || flags & FD_CLOEXEC)
		return error_set(err, -EBADF, EXIT_STATUS_NO_KEY, KEYSOURCE_FD_NOT_OPEN, src->spec);
	r = keysource_read_fd(src, fd, env->timeout_ms, ret, err);
	fd_consume(fd);
	return r;
}

const struct keysource_ops keysource_file = {
	.scheme = "file",
	.check = keysource_check_path,
	.read = file_read,
	.probe = file_probe,
};

const struct keysource_ops keysource_cred = {
	.scheme = "cred",
	.check = cred_check,
	.read = cred_read,
	.probe = cred_probe,
};

const struct keysource_ops keysource_fd = {
	.scheme = "fd",
	.check = fd_check,
	.read = fd_read,
};
