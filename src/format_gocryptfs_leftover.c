/* SPDX-License-Identifier: MIT */
/*
 * The format `gocryptfs`: what interrupted operations leave behind, and directories that lost their IV. The
 * order of every operation is in docs/crash-safety.md; what is certainly garbage is told here.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "crypto.h"
#include "format_gocryptfs.h"
#include "store.h"

/* Deeper garbage than two crashes inside each other make is not ours. */
enum { DEPTH_MAX = 8 };

#define MKDIR_OLD GCFS_DIRIV_FILE ".mkdir."

/* A walk over a directory that is to have nothing but its IV and leftovers. */
struct sweep {
	int depth;
	bool remove; /* them, instead of only looking */
	bool iv;     /* there is one */
	bool found;  /* there are leftovers */
};

int gocryptfs_temporary_name(const char *what, char ret_name[NAME_MAX + 1])
{
	uint64_t n;
	int r = crypto_random(&n, sizeof(n));

	if (r == 0)
		snprintf(ret_name, NAME_MAX + 1, GCFS_LONG_PREFIX "%s.%" PRIu64 GCFS_LONG_SUFFIX, what, n);
	return r;
}

/* prefix, a decimal number, suffix */
static bool is_numbered(const char *disk, const char *prefix, const char *suffix)
{
	if (strncmp(disk, prefix, strlen(prefix)) != 0)
		return false;
	disk += strlen(prefix);
	if (!isdigit((unsigned char)*disk))
		return false;
	while (isdigit((unsigned char)*disk))
		disk++;
	return strcmp(disk, suffix) == 0;
}

enum gocryptfs_leftover gocryptfs_leftover_kind(const char *disk)
{
	if (is_numbered(disk, GCFS_LONG_PREFIX GOCRYPTFS_MAKING ".", GCFS_LONG_SUFFIX) ||
	    is_numbered(disk, MKDIR_OLD, ""))
		return GOCRYPTFS_LEFTOVER_MAKING;
	if (is_numbered(disk, GCFS_LONG_PREFIX GOCRYPTFS_REMOVING ".", GCFS_LONG_SUFFIX))
		return GOCRYPTFS_LEFTOVER_REMOVING;
	if (is_numbered(disk, GCFS_LONG_PREFIX GOCRYPTFS_PARKED ".", GCFS_LONG_SUFFIX) ||
	    is_numbered(disk, GOCRYPTFS_PARKED_FOREIGN, ""))
		return GOCRYPTFS_LEFTOVER_PARKED;
	if (is_numbered(disk, GCFS_LONG_PREFIX GOCRYPTFS_REDO ".", GCFS_LONG_SUFFIX))
		return GOCRYPTFS_LEFTOVER_REDO;
	return GOCRYPTFS_LEFTOVER_NONE;
}

static bool is_temporary(const char *disk)
{
	enum gocryptfs_leftover kind = gocryptfs_leftover_kind(disk);

	return kind != GOCRYPTFS_LEFTOVER_NONE && kind != GOCRYPTFS_LEFTOVER_REDO;
}

/* The text of a long name whose object is not there. */
static bool is_orphan(int dir_fd, const char *disk)
{
	char object[NAME_MAX + 1];
	size_t size = strlen(disk), suffix = strlen(GCFS_LONG_SUFFIX);
	struct stat st;

	if (strncmp(disk, GCFS_LONG_PREFIX, strlen(GCFS_LONG_PREFIX)) != 0 ||
	    size <= strlen(GCFS_LONG_PREFIX) + suffix || strcmp(disk + size - suffix, GCFS_LONG_SUFFIX) != 0)
		return false;
	snprintf(object, sizeof(object), "%.*s", (int)(size - suffix), disk);
	return store_stat(dir_fd, object, &st) == -ENOENT;
}

static int sweep_directory(struct sweep *s, int fd);

/* A directory that was being made or removed: it has at most its IV, and leftovers of its own. */
static int sweep_unfinished(const struct sweep *s, int dir_fd, const char *disk)
{
	struct sweep below = {.depth = s->depth + 1, .remove = s->remove};
	autofd int fd = -1;
	int r;

	if (below.depth > DEPTH_MAX)
		return -ENOTEMPTY;
	fd = store_open_dir(dir_fd, disk);
	if (fd < 0)
		return fd;
	r = sweep_directory(&below, fd);
	if (r < 0 || !s->remove)
		return r;
	if (below.iv)
		r = store_unlink(fd, GCFS_DIRIV_FILE);
	return r < 0 ? r : store_rmdir(dir_fd, disk);
}

static int sweep_entry(struct sweep *s, int dir_fd, const char *disk)
{
	struct stat st;
	bool temporary = is_temporary(disk);
	int r;

	if (strcmp(disk, ".") == 0 || strcmp(disk, "..") == 0)
		return 0;
	if (strcmp(disk, GCFS_DIRIV_FILE) == 0) {
		s->iv = true;
		return 0;
	}
	if (!temporary && !is_orphan(dir_fd, disk))
		return -ENOTEMPTY;
	r = store_stat(dir_fd, disk, &st);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	s->found = true;
	if (S_ISDIR(st.st_mode))
		return temporary ? sweep_unfinished(s, dir_fd, disk) : -ENOTEMPTY;
	if (!S_ISREG(st.st_mode))
		return -ENOTEMPTY;
	return s->remove ? store_unlink(dir_fd, disk) : 0;
}

static int sweep_directory(struct sweep *s, int fd)
{
	_Alignas(8) char buf[4096];
	ssize_t n;
	int r;

	r = store_rewind(fd);
	if (r < 0)
		return r;
	while ((n = store_getdents(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t at = 0; at < n;) {
			const struct dirent64 *e = (const void *)(buf + at);

			r = sweep_entry(s, fd, e->d_name);
			if (r < 0)
				return r;
			at += e->d_reclen;
		}
	}
	return (int)n;
}

int gocryptfs_check_removable(int dir_fd, struct gocryptfs_remains *ret)
{
	struct sweep s = {0};
	int r = sweep_directory(&s, dir_fd);

	if (r == 0)
		*ret = (struct gocryptfs_remains){.iv = s.iv, .leftovers = s.found};
	return r;
}

int gocryptfs_remove_leftovers(int dir_fd, const struct gocryptfs_remains *remains)
{
	struct sweep s = {.remove = true};

	return remains->leftovers ? sweep_directory(&s, dir_fd) : 0;
}

int gocryptfs_write_iv(int dir_fd, const uint8_t iv[GCFS_IV_SIZE])
{
	/*
	 * On disk before anything names the directory. fsync(2) of a new file makes its entry durable as well
	 * on ext4, XFS, btrfs and f2fs; where it does not, a crash leaves an empty directory without IV,
	 * which gocryptfs_repair_iv() knows how to mend.
	 */
	return store_write_file(dir_fd, GCFS_DIRIV_FILE, iv, GCFS_IV_SIZE, 0444, true);
}

/* Puts a new IV where there is none or a damaged one. */
static int replace_iv(int fd, bool damaged, uint8_t iv[GCFS_IV_SIZE])
{
	char name[NAME_MAX + 1];
	int r = crypto_random(iv, GCFS_IV_SIZE);

	if (!damaged)
		return r < 0 ? r : gocryptfs_write_iv(fd, iv);
	if (r == 0)
		r = gocryptfs_temporary_name(GOCRYPTFS_PARKED, name);
	if (r == 0)
		r = store_write_file(fd, name, iv, GCFS_IV_SIZE, 0444, true);
	if (r < 0)
		return r;
	r = store_rename(fd, name, fd, GCFS_DIRIV_FILE, 0);
	if (r < 0)
		store_unlink(fd, name);
	return r;
}

int gocryptfs_repair_iv(struct gocryptfs *g, int dir_fd, uint8_t ret_iv[GCFS_IV_SIZE])
{
	autofd int fd = -1;
	uint8_t iv[GCFS_IV_SIZE];
	struct gocryptfs_remains remains;
	const char *why;
	int r;

	if (!g->may_repair)
		return -EIO;
	fd = store_open_dir(dir_fd, ".");
	if (fd < 0)
		return -EIO;
	pthread_mutex_lock(&g->repair_lock);
	/* Somebody else may have been first: two IVs for one directory would be the end of its names. */
	r = gocryptfs_read_iv(g, fd, iv, &why);
	if (r < 0)
		r = gocryptfs_check_removable(fd, &remains);
	else
		goto out;
	r = r < 0 ? -EIO : replace_iv(fd, remains.iv, iv);
out:
	pthread_mutex_unlock(&g->repair_lock);
	if (r == 0)
		memcpy(ret_iv, iv, sizeof(iv));
	return r < 0 ? -EIO : 0;
}
