/* SPDX-License-Identifier: MIT */
#include "runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "config.h"
#include "mountinfo.h"
#include "util.h"

#define RUNTIME_SYSTEM "/run/ckrfs"

enum { PATH_LENGTH_MAX = 3000 };

static int runtime_path(char *path, size_t size, struct error *err)
{
	const char *own = getenv("CKRFS_RUNTIME_DIR"), *xdg = getenv("XDG_RUNTIME_DIR");
	int n;

	if (own && *own)
		n = snprintf(path, size, "%s", own);
	else if (geteuid() == 0 && !(xdg && *xdg && namespace_is_partial()))
		n = snprintf(path, size, RUNTIME_SYSTEM);
	else if (xdg && *xdg)
		n = snprintf(path, size, "%s/ckrfs", xdg);
	else
		return error_set(err, -ENOENT, EXIT_STATUS_CONFIG,
				 "there is no runtime directory: neither XDG_RUNTIME_DIR nor "
				 "CKRFS_RUNTIME_DIR is set");
	if (n < 0 || (size_t)n >= size || path[0] != '/')
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "the runtime directory %s is not a usable absolute path", path);
	return 0;
}

/* Who else could write there could put a socket or a lock of his own into it. */
static int check_private(int fd, const char *path, struct error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot look at %s", path);
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return error_set(err, -EPERM, EXIT_STATUS_CONFIG,
				 "the runtime directory %s belongs to uid %u", path, (unsigned)st.st_uid);
	if (st.st_mode & 022) {
		error_set(err, -EPERM, EXIT_STATUS_CONFIG,
			  "the runtime directory %s can be written by others (mode %04o)", path,
			  (unsigned)st.st_mode & 07777);
		error_hint(err, "chmod go-w %s", path);
		return -EPERM;
	}
	return 0;
}

static int open_dir(int at, const char *name, bool create, mode_t mode)
{
	int fd;

	if (create && mkdirat(at, name, mode) < 0 && errno != EEXIST)
		return -errno;
	fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int open_path(const char *path, bool create, struct runtime *ret, struct error *err)
{
	autofd int base = -1;
	mode_t mode = geteuid() == 0 ? 0755 : 0700;
	int fd, r;

	base = open_dir(AT_FDCWD, path, create, mode);
	if (base == -ENOENT && !create)
		return -ENOENT;
	if (base < 0)
		return error_errno(err, base, EXIT_STATUS_FAILED, "cannot open the runtime directory %s",
				   path);
	r = check_private(base, path, err);
	if (r < 0)
		return r;
	fd = open_dir(base, "mounts", create, mode);
	if (fd == -ENOENT && !create)
		return -ENOENT;
	if (fd < 0)
		return error_errno(err, fd, EXIT_STATUS_FAILED, "cannot open %s/mounts", path);
	ret->mounts_fd = fd;
	snprintf(ret->path, sizeof(ret->path), "%s/mounts", path);
	return 0;
}

int runtime_open(bool create, struct runtime *ret, struct error *err)
{
	char path[PATH_LENGTH_MAX];
	int r = runtime_path(path, sizeof(path), err);

	if (r == -ENOENT && !create) {
		if (err)
			*err = ERROR_NONE;
		return r;
	}
	return r < 0 ? r : open_path(path, create, ret, err);
}

int runtime_open_system(struct runtime *ret, struct error *err)
{
	return open_path(RUNTIME_SYSTEM, false, ret, err);
}

void runtime_close(struct runtime *rt)
{
	if (rt->mounts_fd >= 0)
		close(rt->mounts_fd);
	rt->mounts_fd = -1;
}

int runtime_open_keys(const struct runtime *rt, bool create)
{
	return open_dir(rt->mounts_fd, "../keys", create, 0700);
}

/* ---- one mount's directory ---- */

static void empty_dir(int dir_fd)
{
	static const char *const files[] = {"control", "mount", "mount.tmp", "key", "lock"};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		unlinkat(dir_fd, files[i], 0);
}

/* Opens and locks the lock file, and makes sure that it is the one with that name still: another process may
 * have removed it in between. */
static int lock_dir(int dir_fd, int *ret_fd)
{
	for (;;) {
		autofd int fd = openat(dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		struct stat st;

		if (fd < 0)
			return -errno;
		if (fcntl(fd, F_OFD_SETLK, &(struct flock){.l_type = F_WRLCK}) < 0)
			return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
		if (fstat(fd, &st) < 0)
			return -errno;
		if (st.st_nlink > 0) {
			*ret_fd = steal_fd(&fd);
			return 0;
		}
	}
}

static int parse_record(char *text, struct record *ret)
{
	struct record record = {0};

	for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *value = strchr(line, '=');
		uint64_t pid;

		if (!value)
			return -EBADMSG;
		*value++ = '\0';
		if (strcmp(line, "keeper") == 0 && parse_u64(value, INT32_MAX, &pid) == 0)
			record.keeper = (pid_t)pid;
		else if (strcmp(line, "target") == 0)
			snprintf(record.target, sizeof(record.target), "%s", value);
		else if (strcmp(line, "lower") == 0)
			record.fscrypt = strcmp(value, "fscrypt") == 0;
		else if (strcmp(line, "ephemeral") == 0)
			record.ephemeral = strcmp(value, "yes") == 0;
		else if (strcmp(line, "source") == 0)
			snprintf(record.source, sizeof(record.source), "%s", value);
	}
	*ret = record;
	return 0;
}

static int read_record(int dir_fd, struct record *ret)
{
	autofd int fd = openat(dir_fd, "mount", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	char text[sizeof(*ret) + 64];
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read_full(fd, text, sizeof(text) - 1);
	if (n < 0)
		return (int)n;
	text[n] = '\0';
	return parse_record(text, ret);
}

int runtime_record(const struct claim *claim, const struct record *record)
{
	autofd int fd = openat(claim->dir_fd, "mount.tmp",
			       O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	char text[sizeof(*record) + 64];
	int n, r;

	if (fd < 0)
		return -errno;
	/* A path with a newline cannot be told apart; such a mount is cleaned up by umount(8) alone. */
	if (strchr(record->target, '\n') || strchr(record->source, '\n'))
		return -EINVAL;
	n = snprintf(text, sizeof(text), "keeper=%d\nsource=%s\ntarget=%s\n%s%s", (int)record->keeper,
		     record->source, record->target, record->fscrypt ? "lower=fscrypt\n" : "",
		     record->ephemeral ? "ephemeral=yes\n" : "");
	r = write_full(fd, text, (size_t)n);
	if (r == 0 && renameat(claim->dir_fd, "mount.tmp", claim->dir_fd, "mount") < 0)
		r = -errno;
	return r;
}

int runtime_mark_key(const struct claim *claim, bool has_key)
{
	int fd;

	if (!has_key)
		return unlinkat(claim->dir_fd, "key", 0) < 0 && errno != ENOENT ? -errno : 0;
	fd = openat(claim->dir_fd, "key", O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

bool runtime_has_no_key(const struct runtime *rt, const char *name, const char *target)
{
	autofd int dir_fd = open_dir(rt->mounts_fd, name, false, 0);
	struct record record;
	bool alive;

	return dir_fd >= 0 && runtime_look(rt, name, &alive, &record) == 0 && alive &&
	       strcmp(record.target, target) == 0 &&
	       faccessat(dir_fd, "key", F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

/* The name's directory is there, and nobody has it: may it be used again? */
static int check_leftover(int dir_fd, const char *name, struct error *err)
{
	struct record record;

	if (read_record(dir_fd, &record) < 0 || !mountinfo_is_ours(record.target, name))
		return 0;
	error_set(err, -EBUSY, EXIT_STATUS_BUSY, "the keeper of \"%s\" is dead, and its mount is still on %s",
		  name, record.target);
	error_hint(err, "ckrfs umount %s", name);
	return -EBUSY;
}

static int claim_busy(int dir_fd, const char *name, struct error *err)
{
	struct record record = {.target = "?"};

	if (read_record(dir_fd, &record) < 0)
		error_set(err, -EBUSY, EXIT_STATUS_BUSY, "\"%s\" is being mounted already", name);
	else
		error_set(err, -EBUSY, EXIT_STATUS_BUSY, "\"%s\" is already mounted on %s", name,
			  record.target);
	error_hint(err, "ckrfs umount %s", name);
	return -EBUSY;
}

int runtime_claim(struct runtime *rt, const char *name, struct claim *ret, struct error *err)
{
	autofd int dir_fd = open_dir(rt->mounts_fd, name, true, 0755);
	autofd int lock_fd = -1;
	int r;

	if (dir_fd < 0)
		return error_errno(err, dir_fd, EXIT_STATUS_FAILED, "cannot make %s/%s", rt->path, name);
	r = lock_dir(dir_fd, &lock_fd);
	if (r == -EBUSY)
		return claim_busy(dir_fd, name, err);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot lock %s/%s", rt->path, name);
	r = check_leftover(dir_fd, name, err);
	if (r < 0)
		return r;
	*ret = (struct claim){steal_fd(&dir_fd), steal_fd(&lock_fd)};
	return 0;
}

void runtime_release(struct runtime *rt, const char *name, struct claim *claim)
{
	if (claim->dir_fd < 0)
		return;
	empty_dir(claim->dir_fd);
	unlinkat(rt->mounts_fd, name, AT_REMOVEDIR);
	close(claim->dir_fd);
	*claim = CLAIM_NONE;
}

int runtime_watch(const struct runtime *rt, const char *name)
{
	autofd int dir_fd = open_dir(rt->mounts_fd, name, false, 0);
	int fd;

	if (dir_fd < 0)
		return dir_fd;
	fd = openat(dir_fd, "lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

/* Asking takes no lock, and so cannot get in the way of a keeper that starts. */
static int is_locked(int lock_fd, bool *ret)
{
	struct flock lock = {.l_type = F_WRLCK};

	if (fcntl(lock_fd, F_OFD_GETLK, &lock) < 0)
		return -errno;
	*ret = lock.l_type != F_UNLCK;
	return 0;
}

int runtime_look(const struct runtime *rt, const char *name, bool *ret_alive, struct record *ret_record)
{
	autofd int dir_fd = open_dir(rt->mounts_fd, name, false, 0);
	autofd int lock_fd = dir_fd < 0 ? -1 : openat(dir_fd, "lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct record record = {0};
	int r;

	if (dir_fd < 0)
		return dir_fd;
	if (lock_fd < 0)
		return -errno;
	r = is_locked(lock_fd, ret_alive);
	if (r < 0)
		return r;
	/* A start that was killed before there was a mount: the next one takes it over. */
	if (read_record(dir_fd, &record) < 0 && !*ret_alive)
		return -ENOENT;
	if (ret_record)
		*ret_record = record;
	return 0;
}

int runtime_remove_dead(struct runtime *rt, const char *name)
{
	autofd int dir_fd = open_dir(rt->mounts_fd, name, false, 0);
	autofd int lock_fd = -1;
	int r;

	if (dir_fd < 0)
		return dir_fd;
	r = lock_dir(dir_fd, &lock_fd);
	if (r < 0)
		return r;
	empty_dir(dir_fd);
	return unlinkat(rt->mounts_fd, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

/* -ENOENT when the keeper has ended. */
static int look_for_end(const struct runtime *rt, const char *name, int watch_fd)
{
	bool locked = true;
	int r;

	if (watch_fd < 0)
		return faccessat(rt->mounts_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0 ? -ENOENT : 0;
	r = is_locked(watch_fd, &locked);
	return r == 0 && !locked ? -ENOENT : 0;
}

int runtime_wait_gone(const struct runtime *rt, const char *name, int watch_fd, int timeout_ms)
{
	uint64_t start = monotonic_ms();

	while (look_for_end(rt, name, watch_fd) == 0) {
		struct timespec t = {.tv_nsec = 2000000};

		if (timeout_ms >= 0 && monotonic_ms() - start > (uint64_t)timeout_ms)
			return -ETIMEDOUT;
		nanosleep(&t, NULL);
	}
	return 0;
}

/* ---- all of them ---- */

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int runtime_names(const struct runtime *rt, char ***ret_names)
{
	autodir DIR *dir = NULL;
	char **names = calloc(1, sizeof(*names));
	struct dirent *e;
	size_t n = 0;
	int fd = openat(rt->mounts_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0 && !(dir = fdopendir(fd)))
		close(fd);
	while (names && dir && (e = readdir(dir))) {
		char **more;

		if (!config_mount_name_valid(e->d_name))
			continue;
		more = reallocarray(names, n + 2, sizeof(*names));
		if (!more || !(more[n] = strdup(e->d_name))) {
			runtime_names_free(more ? more : names);
			return -ENOMEM;
		}
		names = more;
		names[++n] = NULL;
	}
	if (!names || !dir) {
		free(names);
		return -ENOMEM;
	}
	qsort(names, n, sizeof(*names), compare_names);
	*ret_names = names;
	return 0;
}

void runtime_names_free(char **names)
{
	for (size_t i = 0; names && names[i]; i++)
		free(names[i]);
	free(names);
}
