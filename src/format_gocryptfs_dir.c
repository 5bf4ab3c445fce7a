/* SPDX-License-Identifier: MIT */
/* The format `gocryptfs`: names, directories, links. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "crypto.h"
#include "format_gocryptfs.h"
#include "store.h"
#include "util.h"

/* The name of a long name's text file. */
struct text_file {
	char name[256 + sizeof(GCFS_LONG_SUFFIX)];
};

static struct text_file text_file(const struct format_name *name)
{
	struct text_file t;

	snprintf(t.name, sizeof(t.name), "%s" GCFS_LONG_SUFFIX, name->disk);
	return t;
}

static bool is_long(const struct format_name *name)
{
	return name->text[0] != '\0';
}

int gocryptfs_read_iv(const struct gocryptfs *g, int dir_fd, uint8_t ret_iv[GCFS_IV_SIZE],
		      const char **ret_why)
{
	static const uint8_t zero[GCFS_IV_SIZE];
	uint8_t iv[GCFS_IV_SIZE + 1];
	ssize_t n;

	if (!gocryptfs_has_iv(g)) {
		memset(ret_iv, 0, GCFS_IV_SIZE);
		return 0;
	}
	n = store_read_file(dir_fd, GCFS_DIRIV_FILE, iv, sizeof(iv));
	if (n == -ENOENT)
		*ret_why = GCFS_DIRIV_FILE " is missing";
	else if (n < 0)
		*ret_why = GCFS_DIRIV_FILE " cannot be read";
	else if (n != GCFS_IV_SIZE)
		*ret_why = GCFS_DIRIV_FILE " has not 16 bytes";
	else if (memcmp(iv, zero, sizeof(zero)) == 0)
		*ret_why = GCFS_DIRIV_FILE " is all zero";
	else {
		memcpy(ret_iv, iv, GCFS_IV_SIZE);
		return 0;
	}
	return -EIO;
}

int gocryptfs_dir_iv(struct format *f, int dir_fd, uint8_t ret_iv[16])
{
	const char *why;
	int r = gocryptfs_read_iv(gocryptfs_of(f), dir_fd, ret_iv, &why);

	if (r < 0)
		r = gocryptfs_repair_iv(gocryptfs_of(f), dir_fd, ret_iv);
	if (r < 0)
		format_report(f, dir_fd, NULL, why);
	return r;
}

int gocryptfs_name_encode(struct format *f, const struct format_dir *dir, const char *name,
			  struct format_name *ret)
{
	struct gocryptfs *g = gocryptfs_of(f);
	char text[GCFS_NAME_TEXT_MAX + 1];
	int r = gcfs_name_encrypt(g->names, dir->iv, name, text);

	if (r < 0)
		return r;
	/* In clear, a name could be that of the volume's own file. */
	if (gcfs_name_kind(g->names, text, dir->root) == GCFS_NAME_INTERNAL)
		return -EPERM;
	if (gcfs_name_is_long(g->names, text)) {
		strcpy(ret->text, text);
		return gcfs_name_hash(g->names, text, ret->disk);
	}
	ret->text[0] = '\0';
	strcpy(ret->disk, text);
	return 0;
}

/* The text that the long name disk stands for. */
static int read_text(struct format *f, const struct format_dir *dir, const char *disk,
		     char text[GCFS_NAME_TEXT_MAX + 1])
{
	struct format_name name = {.disk = ""};
	char buf[GCFS_NAME_TEXT_MAX + 1];
	struct text_file file;
	ssize_t n;

	snprintf(name.disk, sizeof(name.disk), "%s", disk);
	file = text_file(&name);
	n = store_read_file(dir->fd, file.name, buf, sizeof(buf));
	if (n <= 0 || n > GCFS_NAME_TEXT_MAX) {
		format_report(f, dir->fd, disk,
			      n == -ENOENT ? "the .name file of a long name is missing; the entry is hidden"
					   : "the .name file of a long name is damaged; the entry is hidden");
		return -ENOENT;
	}
	memcpy(text, buf, (size_t)n);
	text[n] = '\0';
	return 0;
}

int gocryptfs_name_decode(struct format *f, const struct format_dir *dir, const char *disk, char *ret_name)
{
	struct gocryptfs *g = gocryptfs_of(f);
	char text[GCFS_NAME_TEXT_MAX + 1];
	int r;

	switch (gcfs_name_kind(g->names, disk, dir->root)) {
	case GCFS_NAME_ORDINARY:
		r = gcfs_name_decrypt(g->names, dir->iv, disk, ret_name);
		break;
	case GCFS_NAME_LONG:
		r = read_text(f, dir, disk, text);
		if (r < 0)
			return r;
		r = gcfs_name_decrypt(g->names, dir->iv, text, ret_name);
		break;
	default:
		return -ENOENT;
	}
	if (r == 0)
		return 0;
	format_report(f, dir->fd, disk, "a name cannot be decrypted; the entry is hidden");
	return -ENOENT;
}

/* ---- the .name files of long names ---- */

/*
 * Before an object gets a long name, its text file is on disk: an object without it could not be listed.
 * *ret_made: it is new, and must go if the object does not come. One that a crash left behind is used if it
 * says the right thing, and replaced if not: the hash in its name allows only one text.
 */
static int name_prepare(const struct format_dir *dir, const struct format_name *name, bool *ret_made)
{
	struct text_file file;
	char old[GCFS_NAME_TEXT_MAX + 1];
	size_t size = strlen(name->text);
	int r;

	*ret_made = false;
	if (!is_long(name))
		return 0;
	file = text_file(name);
	r = store_write_file(dir->fd, file.name, name->text, size, 0444, true);
	if (r == -EEXIST) {
		if (store_read_file(dir->fd, file.name, old, sizeof(old)) == (ssize_t)size &&
		    memcmp(old, name->text, size) == 0)
			return 0;
		r = store_unlink(dir->fd, file.name);
		if (r == 0)
			r = store_write_file(dir->fd, file.name, name->text, size, 0444, true);
	}
	*ret_made = r == 0;
	return r;
}

static void name_forget(const struct format_dir *dir, const struct format_name *name)
{
	if (is_long(name))
		store_unlink(dir->fd, text_file(name).name);
}

/* Ends what name_prepare() began: result is what making the object gave. */
static int name_finish(const struct format_dir *dir, const struct format_name *name, bool made, int result)
{
	if (result < 0 && made && result != -EEXIST)
		name_forget(dir, name);
	return result;
}

int gocryptfs_create(struct format *f, const struct format_dir *dir, const struct format_name *name,
		     int flags, mode_t mode)
{
	bool made;
	int r = name_prepare(dir, name, &made);

	if (r < 0)
		return r;
	return name_finish(dir, name, made, store_open(dir->fd, name->disk, flags, mode));
}

int gocryptfs_mknod(struct format *f, const struct format_dir *dir, const struct format_name *name,
		    mode_t mode, dev_t rdev)
{
	bool made;
	int r = name_prepare(dir, name, &made);

	if (r < 0)
		return r;
	return name_finish(dir, name, made, store_mknod(dir->fd, name->disk, mode, rdev));
}

int gocryptfs_link(struct format *f, int fd, const struct format_dir *dir, const struct format_name *name)
{
	bool made;
	int r = name_prepare(dir, name, &made);

	if (r < 0)
		return r;
	return name_finish(dir, name, made, store_link(fd, dir->fd, name->disk));
}

int gocryptfs_symlink(struct format *f, const char *target, const struct format_dir *dir,
		      const struct format_name *name)
{
	struct gocryptfs *g = gocryptfs_of(f);
	autofree char *text = NULL;
	bool made;
	int r;

	if (gocryptfs_plain_names(g))
		return store_symlink(target, dir->fd, name->disk);
	r = gcfs_symlink_encrypt(g->content, target, &text);
	if (r == 0)
		r = name_prepare(dir, name, &made);
	if (r < 0)
		return r;
	return name_finish(dir, name, made, store_symlink(text, dir->fd, name->disk));
}

int gocryptfs_unlink(struct format *f, const struct format_dir *dir, const struct format_name *name)
{
	int r = store_unlink(dir->fd, name->disk);

	if (r == 0)
		name_forget(dir, name);
	return r;
}

/* ---- symlinks ---- */

static int read_target(struct format *f, int fd, char **ret_target)
{
	struct gocryptfs *g = gocryptfs_of(f);
	char text[4097];
	ssize_t n = store_readlink(fd, text, sizeof(text) - 1);
	int r;

	if (n < 0)
		return (int)n;
	text[n] = '\0';
	if (gocryptfs_plain_names(g)) {
		*ret_target = strdup(text);
		return *ret_target ? 0 : -ENOMEM;
	}
	r = gcfs_symlink_decrypt(g->content, text, ret_target);
	return r == -EBADMSG ? -EIO : r;
}

int gocryptfs_readlink(struct format *f, int fd, char *ret_target, size_t size)
{
	autowiped char *target = NULL;
	int r = read_target(f, fd, &target);

	if (r == -EIO)
		format_report(f, fd, NULL, "the target of a symbolic link is damaged");
	if (r < 0)
		return r;
	if (strlen(target) >= size)
		return -ENAMETOOLONG;
	strcpy(ret_target, target);
	return 0;
}

void gocryptfs_attr(struct format *f, int fd, struct stat *st)
{
	if (S_ISREG(st->st_mode)) {
		st->st_size = (off_t)gcfs_plain_size(gocryptfs_of(f)->content, (uint64_t)st->st_size);
	} else if (S_ISLNK(st->st_mode)) {
		autowiped char *target = NULL;

		/* One that cannot be decrypted still has attributes: readlink(2) is what fails. */
		st->st_size = read_target(f, fd, &target) == 0 ? (off_t)strlen(target) : 0;
	}
}

/* ---- directories ---- */

/* Writes the IV into a new directory, and gives it the mode it is to have. */
static int dir_complete(const struct format_dir *dir, const char *disk, mode_t mode)
{
	autofd int fd = -1;
	uint8_t iv[GCFS_IV_SIZE];
	struct stat st;
	int r;

	fd = store_open_dir(dir->fd, disk);
	if (fd < 0)
		return fd;
	r = crypto_random(iv, sizeof(iv));
	if (r == 0)
		r = gocryptfs_write_iv(fd, iv);
	if (r < 0 || (mode & 0700) == 0700)
		return r;
	/* What mkdir(2) made of the mode (set-group-ID inherited, umask or default ACL taken into account)
	 * without the owner's bits that were only needed to write the IV. */
	r = store_stat_fd(fd, &st);
	if (r == 0)
		r = store_chmod(fd, (st.st_mode & 07777) & ~(~mode & 0700));
	if (r < 0)
		store_unlink(fd, GCFS_DIRIV_FILE);
	return r;
}

/* Renames without replacing, also where the lower has no RENAME_NOREPLACE. */
static int rename_new(const struct format_dir *dir, const char *from, const char *to)
{
	struct stat st;
	int r = store_rename(dir->fd, from, dir->fd, to, RENAME_NOREPLACE);

	if (r != -EINVAL && r != -ENOSYS)
		return r;
	r = store_stat(dir->fd, to, &st);
	if (r != -ENOENT)
		return r == 0 ? -EEXIST : r;
	return store_rename(dir->fd, from, dir->fd, to, 0);
}

static void dir_undo(const struct format_dir *dir, const char *disk)
{
	autofd int fd = store_open_dir(dir->fd, disk);

	if (fd >= 0)
		store_unlink(fd, GCFS_DIRIV_FILE);
	store_rmdir(dir->fd, disk);
}

/* The directory is made under another name and renamed once it has its IV: nobody ever sees one without. */
static int make_dir(const struct format_dir *dir, const char *disk, mode_t mode)
{
	char making[NAME_MAX + 1];
	struct stat st;
	int r = store_stat(dir->fd, disk, &st);

	if (r != -ENOENT)
		return r == 0 ? -EEXIST : r;
	r = gocryptfs_temporary_name(GOCRYPTFS_MAKING, making);
	if (r == 0)
		r = store_mkdir(dir->fd, making, mode | 0700);
	if (r < 0)
		return r;
	r = dir_complete(dir, making, mode);
	if (r == 0)
		r = rename_new(dir, making, disk);
	if (r < 0)
		dir_undo(dir, making);
	return r;
}

int gocryptfs_mkdir(struct format *f, const struct format_dir *dir, const struct format_name *name,
		    mode_t mode)
{
	bool made;
	int r = name_prepare(dir, name, &made);

	if (r < 0)
		return r;
	if (!gocryptfs_has_iv(gocryptfs_of(f)))
		return name_finish(dir, name, made, store_mkdir(dir->fd, name->disk, mode));
	return name_finish(dir, name, made, make_dir(dir, name->disk, mode));
}

/*
 * Takes the IV out of an empty directory, so that the lower can remove or replace it; it is kept beside the
 * directory until that is done. *ret_fd: the directory, -1 if there was nothing to take out.
 */
static int iv_park(const struct format_dir *dir, const char *disk, int *ret_fd, char parked[NAME_MAX + 1])
{
	autofd int fd = -1;
	struct gocryptfs_remains remains;
	int r;

	fd = store_open_dir(dir->fd, disk);
	if (fd < 0)
		return fd;
	r = gocryptfs_check_removable(fd, &remains);
	if (r == 0)
		r = gocryptfs_remove_leftovers(fd, &remains);
	*ret_fd = -1;
	if (r < 0 || !remains.iv)
		return r;
	r = gocryptfs_temporary_name(GOCRYPTFS_PARKED, parked);
	if (r == 0)
		r = store_rename(fd, GCFS_DIRIV_FILE, dir->fd, parked, 0);
	if (r == 0)
		*ret_fd = steal_fd(&fd);
	return r;
}

/* Ends iv_park(): removes the parked IV, or puts it back when the directory is still there. */
static void iv_unpark(const struct format_dir *dir, int fd, const char *parked, bool gone)
{
	if (fd < 0)
		return;
	if (gone)
		store_unlink(dir->fd, parked);
	else
		store_rename(dir->fd, parked, fd, GCFS_DIRIV_FILE, 0);
}

/* Where a directory cannot be renamed (overlayfs): it is without IV for a moment. */
static int remove_parked(const struct format_dir *dir, const char *disk)
{
	autofd int fd = -1;
	char parked[NAME_MAX + 1];
	int r = iv_park(dir, disk, &fd, parked);

	if (r < 0)
		return r;
	r = store_rmdir(dir->fd, disk);
	iv_unpark(dir, fd, parked, r == 0);
	return r;
}

/* Removes what is in a directory that was moved out of sight, and the directory; all or nothing of what
 * matters. */
static int remove_moved(const struct format_dir *dir, const char *disk, int fd,
			const struct gocryptfs_remains *remains)
{
	uint8_t iv[GCFS_IV_SIZE + 1];
	ssize_t n;
	int r = gocryptfs_remove_leftovers(fd, remains);

	if (r < 0)
		return r;
	n = store_read_file(fd, GCFS_DIRIV_FILE, iv, sizeof(iv));
	if (n < 0 && n != -ENOENT)
		return (int)n;
	r = n >= 0 ? store_unlink(fd, GCFS_DIRIV_FILE) : 0;
	if (r == 0)
		r = store_rmdir(dir->fd, disk);
	/* Somebody who uses the lower beside us has put something into it meanwhile. */
	if (r < 0 && n >= 0)
		store_write_file(fd, GCFS_DIRIV_FILE, iv, (size_t)n, 0444, true);
	return r;
}

/* One rename takes the directory out of sight, with its IV: it is there whole or not at all. */
static int remove_dir(const struct format_dir *dir, const char *disk)
{
	autofd int fd = -1;
	struct gocryptfs_remains remains;
	char moved[NAME_MAX + 1];
	int r;

	fd = store_open_dir(dir->fd, disk);
	if (fd < 0)
		return fd;
	r = gocryptfs_check_removable(fd, &remains);
	if (r == 0)
		r = gocryptfs_temporary_name(GOCRYPTFS_REMOVING, moved);
	if (r == 0)
		r = store_rename(dir->fd, disk, dir->fd, moved, 0);
	if (r == -EXDEV)
		return remove_parked(dir, disk);
	if (r < 0)
		return r;
	r = remove_moved(dir, moved, fd, &remains);
	if (r < 0)
		store_rename(dir->fd, moved, dir->fd, disk, 0);
	return r;
}

/* Without IVs there are leftovers of long names only; a file with an IV's name is somebody else's. */
static int remove_deterministic(const struct format_dir *dir, const char *disk)
{
	autofd int fd = -1;
	struct gocryptfs_remains remains;
	int r = store_rmdir(dir->fd, disk);

	if (r != -ENOTEMPTY && r != -EEXIST)
		return r;
	fd = store_open_dir(dir->fd, disk);
	if (fd < 0)
		return fd;
	r = gocryptfs_check_removable(fd, &remains);
	if (r == 0)
		r = remains.iv ? -ENOTEMPTY : gocryptfs_remove_leftovers(fd, &remains);
	return r == 0 ? store_rmdir(dir->fd, disk) : r;
}

int gocryptfs_rmdir(struct format *f, const struct format_dir *dir, const struct format_name *name)
{
	int r;

	if (gocryptfs_has_iv(gocryptfs_of(f)))
		r = remove_dir(dir, name->disk);
	else if (gocryptfs_plain_names(gocryptfs_of(f)))
		r = store_rmdir(dir->fd, name->disk);
	else
		r = remove_deterministic(dir, name->disk);
	if (r == 0)
		name_forget(dir, name);
	return r;
}

/* A directory over an empty one: to the lower the target is empty only without its IV. */
static int rename_over_dir(const struct format_dir *dir, const struct format_name *name,
			   const struct format_dir *new_dir, const struct format_name *new_name,
			   unsigned flags)
{
	autofd int fd = -1;
	char parked[NAME_MAX + 1];
	struct stat st;
	int r = store_stat(dir->fd, name->disk, &st);

	if (r < 0)
		return r;
	if (!S_ISDIR(st.st_mode))
		return -EISDIR;
	r = iv_park(new_dir, new_name->disk, &fd, parked);
	if (r < 0)
		return r;
	r = store_rename(dir->fd, name->disk, new_dir->fd, new_name->disk, flags);
	iv_unpark(new_dir, fd, parked, r == 0);
	return r;
}

static int rename_objects(const struct format_dir *dir, const struct format_name *name,
			  const struct format_dir *new_dir, const struct format_name *new_name,
			  unsigned flags)
{
	int r = store_rename(dir->fd, name->disk, new_dir->fd, new_name->disk, flags);

	if ((r == -ENOTEMPTY || r == -EEXIST) && !(flags & (RENAME_NOREPLACE | RENAME_EXCHANGE)))
		r = rename_over_dir(dir, name, new_dir, new_name, flags);
	return r;
}

int gocryptfs_rename(struct format *f, const struct format_dir *dir, const struct format_name *name,
		     const struct format_dir *new_dir, const struct format_name *new_name, unsigned flags)
{
	struct stat st;
	bool made = false;
	int r = 0;

	/* Both names stay in use: their text files are there already. */
	if (flags & RENAME_EXCHANGE)
		return store_rename(dir->fd, name->disk, new_dir->fd, new_name->disk, flags);
	r = name_prepare(new_dir, new_name, &made);
	if (r < 0)
		return r;
	if (gocryptfs_has_iv(gocryptfs_of(f)))
		r = rename_objects(dir, name, new_dir, new_name, flags);
	else
		r = store_rename(dir->fd, name->disk, new_dir->fd, new_name->disk, flags);
	r = name_finish(new_dir, new_name, made, r);
	if (r < 0)
		return r;
	/* Two links of one inode: rename(2) did nothing, and the old name is still in use. So it is with a
	 * whiteout. */
	if (is_long(name) && store_stat(dir->fd, name->disk, &st) == -ENOENT)
		name_forget(dir, name);
	return 0;
}
