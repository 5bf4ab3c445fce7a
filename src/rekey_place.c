/* SPDX-License-Identifier: MIT */
/* Where the generations lie: the volume, and a directory beside it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "rekey_impl.h"
#include "store.h"

#define SIDE_SUFFIX ".rekey"
#define PROBE_A "gocryptfs.longname.ckrfs-rekey-a.name"
#define PROBE_B "gocryptfs.longname.ckrfs-rekey-b.name"

/* A bind mount of the same file system has the same device: the mount's id tells it. */
static int check_mount_point(const struct place *p, struct error *err)
{
	struct statx base, parent;
	int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;

	if (statx(p->parent_fd, p->base, flags, STATX_MNT_ID, &base) < 0 ||
	    statx(p->parent_fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &parent) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot look at %s/%s", p->path, p->base);
	if (base.stx_mnt_id == parent.stx_mnt_id)
		return 0;
	return error_set(err, -EBUSY, EXIT_STATUS_UNSUPPORTED,
			 "%s/%s is a mount point, and cannot change places with a new generation: put the "
			 "volume into a directory below it",
			 p->path, p->base);
}

static int split(const char *source, struct place *p, struct error *err)
{
	char *slash;
	int n;

	if (!realpath(source, p->path)) {
		int code = -errno;

		return error_errno(err, code, code == -ENOENT ? EXIT_STATUS_NO_VOLUME : EXIT_STATUS_FAILED,
				   "cannot find %s", source);
	}
	slash = strrchr(p->path, '/');
	if (!slash[1])
		return error_set(err, -EBUSY, EXIT_STATUS_UNSUPPORTED,
				 "the root directory has nothing beside it");
	n = snprintf(p->side, sizeof(p->side), "%s" SIDE_SUFFIX, slash + 1);
	if (n >= (int)sizeof(p->side))
		return error_set(err, -ENAMETOOLONG, EXIT_STATUS_FAILED,
				 "the name of %s is too long for one with \"" SIDE_SUFFIX "\" beside it",
				 source);
	snprintf(p->base, sizeof(p->base), "%s", slash + 1);
	slash[slash == p->path] = '\0';
	return 0;
}

int place_open(const char *source, struct place *ret, struct error *err)
{
	struct place p = PLACE_NONE;
	int r = split(source, &p, err);

	if (r < 0)
		return r;
	p.parent_fd = open(p.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (p.parent_fd < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot open %s", p.path);
	r = check_mount_point(&p, err);
	if (r < 0)
		place_close(&p);
	else
		*ret = p;
	return r;
}

void place_close(struct place *p)
{
	if (p->parent_fd >= 0)
		close(p->parent_fd);
	p->parent_fd = -1;
}

int place_side_path(const struct place *p, char ret[PATH_MAX], struct error *err)
{
	if (snprintf(ret, PATH_MAX, "%s/%s", p->path, p->side) < PATH_MAX)
		return 0;
	return error_set(err, -ENAMETOOLONG, EXIT_STATUS_FAILED, "the path of %s is too long", p->side);
}

bool place_is(const struct place *p, const char *name, int fd)
{
	struct stat a, b;

	return store_stat(p->parent_fd, name, &a) == 0 && store_stat_fd(fd, &b) == 0 && a.st_ino == b.st_ino;
}

int place_check_exchange(int dir_fd, struct error *err)
{
	int r;

	store_unlink(dir_fd, PROBE_A);
	store_unlink(dir_fd, PROBE_B);
	r = store_write_file(dir_fd, PROBE_A, "", 0, 0600, false);
	if (r == 0)
		r = store_write_file(dir_fd, PROBE_B, "", 0, 0600, false);
	if (r == 0)
		r = store_rename(dir_fd, PROBE_A, dir_fd, PROBE_B, RENAME_EXCHANGE);
	store_unlink(dir_fd, PROBE_A);
	store_unlink(dir_fd, PROBE_B);
	if (r == -EINVAL || r == -ENOSYS)
		return error_set(err, r, EXIT_STATUS_UNSUPPORTED,
				 "this file system cannot let two directories change places in one step "
				 "(renameat2(2), RENAME_EXCHANGE)");
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot write beside the volume") : 0;
}

int place_exchange(const struct place *p, struct error *err)
{
	int r = store_rename(p->parent_fd, p->base, p->parent_fd, p->side, RENAME_EXCHANGE);

	if (r == 0)
		r = store_fsync(p->parent_fd, false);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot let %s and %s change places", p->base,
				   p->side)
		     : 0;
}

int place_is_empty(int dir_fd)
{
	autofd int fd = store_open_dir(dir_fd, ".");
	_Alignas(8) char buf[4096];
	ssize_t n = fd;

	while (n >= 0 && (n = store_getdents(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t at = 0; at < n;) {
			const struct dirent64 *e = (const void *)(buf + at);

			if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
			    strncmp(e->d_name, "gocryptfs.longname.ckrfs-rekey", 30) != 0)
				return 0;
			at += e->d_reclen;
		}
	}
	return n < 0 ? (int)n : 1;
}
