/* SPDX-License-Identifier: MIT */
#include "ephemeral.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "crypto.h"
#include "lower.h"
#include "store.h"
#include "util.h"

enum { TRIES = 100, RANDOM_SIZE = 8, ID_SIZE = 32, MARK_SIZE = 256 };

#define PREFIX "ckrfs-ephemeral-"
#define MARK "mark"
#define VOLUME "volume"

/* ---- the mark ---- */

static int read_id(const char *path, char ret[ID_SIZE])
{
	autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	ssize_t n = fd < 0 ? -errno : read_full(fd, ret, ID_SIZE);

	if (n < 0)
		return (int)n;
	return n == ID_SIZE && strspn(ret, "0123456789abcdef-") >= ID_SIZE ? 0 : -ENODATA;
}

/* machine-id(5); where there is none, as in containers, what lasts until the next boot. */
static int machine(char ret[ID_SIZE + 1])
{
	ret[ID_SIZE] = '\0';
	return read_id("/etc/machine-id", ret) == 0 ? 0 : read_id("/proc/sys/kernel/random/boot_id", ret);
}

/* The ID itself is not to be seen by others who use a network file system. */
static int mark_text(const char *name, char ret[MARK_SIZE])
{
	char id[ID_SIZE + 1], all[MARK_SIZE], hex[65];
	uint8_t digest[32];
	int n, r = machine(id);

	if (r < 0)
		return r;
	n = snprintf(all, sizeof(all), "ckrfs ephemeral volume\n%s\n%s\n", name, id);
	r = sha256(all, (size_t)n, digest);
	if (r < 0)
		return r;
	hex_encode(digest, sizeof(digest), hex);
	snprintf(ret, MARK_SIZE,
		 "The key of this volume is nowhere but in its mount: ckrfs-volumes(7), \"Ephemeral "
		 "volumes\"\n"
		 "%s\n",
		 hex);
	return 0;
}

static bool is_marked(int dir_fd, const char *name)
{
	char right[MARK_SIZE], found[MARK_SIZE];
	ssize_t n = store_read_file(dir_fd, MARK, found, sizeof(found));

	return n > 0 && mark_text(name, right) == 0 && (size_t)n == strlen(right) &&
	       memcmp(found, right, (size_t)n) == 0;
}

/* ---- directories ---- */

static bool is_name(const char *name)
{
	size_t n = strlen(PREFIX);

	return strncmp(name, PREFIX, n) == 0 && strlen(name) == n + 2 * RANDOM_SIZE &&
	       strspn(name + n, "0123456789abcdef") == 2 * RANDOM_SIZE;
}

/* Opens it if this user has made it; the set-group-ID bit may come from the source. */
static int open_own(int source_fd, const char *name)
{
	autofd int fd = store_open_here(source_fd, name, O_RDONLY | O_DIRECTORY);
	struct stat st, source;
	int r = fd < 0 ? fd : store_stat_fd(fd, &st);

	if (r == 0)
		r = store_stat_fd(source_fd, &source);
	if (r < 0)
		return r;
	if (st.st_uid != geteuid() || (st.st_mode & 0777) != 0700 || st.st_dev != source.st_dev)
		return -EPERM;
	return steal_fd(&fd);
}

/* The mark goes last: what is interrupted goes on another time. */
static int remove_marked(int source_fd, int dir_fd, const char *name, const struct tree_remove *how)
{
	const struct tree_remove but_mark = {.keep = MARK, .removed = how->removed, .ctx = how->ctx};
	int r = tree_remove_contents(dir_fd, &but_mark);

	if (r == 0)
		r = store_unlink(dir_fd, MARK);
	return r < 0 && r != -ENOENT ? r : store_rmdir(source_fd, name);
}

/* One that has no mark yet is removed if it is empty: who makes it was killed, or finds that out and makes
 * another. */
static int remove_leftover(int source_fd, const char *name, const struct tree_remove *how)
{
	autofd int fd = open_own(source_fd, name);

	if (fd < 0 || store_lock(fd) < 0)
		return 0;
	if (is_marked(fd, name))
		return remove_marked(source_fd, fd, name, how);
	store_rmdir(source_fd, name);
	return 0;
}

int ephemeral_sweep(const struct ephemeral *e, const struct tree_remove *how)
{
	int fd = store_open_dir(e->source_fd, "."), first = 0;
	autodir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;

	if (!dir) {
		cleanup_close(&fd);
		return fd < 0 ? fd : -ENOMEM;
	}
	while ((entry = readdir(dir))) {
		int r = is_name(entry->d_name) ? remove_leftover(e->source_fd, entry->d_name, how) : 0;

		first = first ? first : r;
	}
	return first;
}

/* ---- making ---- */

int ephemeral_open(const char *source, struct ephemeral *ret, struct error *err)
{
	autofd int fd = lower_source_open(AT_FDCWD, source, err);
	struct stat st;
	int r = fd < 0 ? fd : store_init_proc();

	if (fd < 0)
		return r;
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot open /proc/self/fd");
	if (store_stat(fd, "gocryptfs.conf", &st) == 0)
		return error_set(err, -EEXIST, EXIT_STATUS_CONFIG,
				 "source %s is a volume, of which ephemeral = yes would show nothing: it "
				 "takes a directory that new volumes can be made in",
				 source);
	*ret = EPHEMERAL_NONE;
	ret->source_fd = steal_fd(&fd);
	return 0;
}

/* -EAGAIN when somebody who removes leftovers was faster. */
static int try_make(struct ephemeral *e)
{
	uint8_t random[RANDOM_SIZE];
	autofd int fd = -1;
	struct stat st;
	int r = crypto_random(random, sizeof(random));

	if (r < 0)
		return r;
	strcpy(e->name, PREFIX);
	hex_encode(random, sizeof(random), e->name + strlen(PREFIX));
	r = store_mkdir(e->source_fd, e->name, 0700);
	if (r < 0)
		return r == -EEXIST ? -EAGAIN : r;
	fd = open_own(e->source_fd, e->name);
	r = fd < 0 ? fd : store_lock(fd);
	if (r == 0)
		r = store_stat_fd(fd, &st);
	if (r == -ENOENT || r == -EAGAIN || (r == 0 && st.st_nlink == 0))
		return -EAGAIN;
	if (r < 0)
		store_rmdir(e->source_fd, e->name);
	else
		e->dir_fd = steal_fd(&fd);
	return r;
}

/* As the source is, so is the root of the volume: what it is to be can be chosen there. */
static int make_volume(struct ephemeral *e)
{
	autofd int fd = -1;
	struct stat st;
	int r = store_stat_fd(e->source_fd, &st);

	if (r == 0)
		r = store_mkdir(e->dir_fd, VOLUME, 0700);
	if (r < 0)
		return r;
	fd = store_open_dir(e->dir_fd, VOLUME);
	r = fd < 0 ? fd : 0;
	if (r == 0 && geteuid() == 0)
		r = store_chown(fd, st.st_uid, st.st_gid);
	if (r == 0)
		r = store_chmod(fd, (st.st_mode & 07777) | 0700);
	if (r == 0)
		e->volume_fd = steal_fd(&fd);
	return r;
}

int ephemeral_make(struct ephemeral *e, struct error *err)
{
	char mark[MARK_SIZE];
	int r = -EAGAIN;

	for (int tries = 0; r == -EAGAIN && tries < TRIES; tries++)
		r = try_make(e);
	if (r == 0)
		r = mark_text(e->name, mark);
	if (r == 0)
		r = store_write_file(e->dir_fd, MARK, mark, strlen(mark), 0400, false);
	if (r == 0)
		r = make_volume(e);
	store_close_proc();
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot make a volume in it") : 0;
}

int ephemeral_remove(struct ephemeral *e, const struct tree_remove *how)
{
	int r = 0;

	cleanup_close(&e->volume_fd);
	e->volume_fd = -1;
	/* Without it only fewer things can be removed. */
	store_init_proc();
	if (e->dir_fd >= 0)
		r = remove_marked(e->source_fd, e->dir_fd, e->name, how);
	ephemeral_close(e);
	return r;
}

void ephemeral_close(struct ephemeral *e)
{
	cleanup_close(&e->volume_fd);
	cleanup_close(&e->dir_fd);
	cleanup_close(&e->source_fd);
	store_close_proc();
	*e = EPHEMERAL_NONE;
}
