/* SPDX-License-Identifier: MIT */
#include "format.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "config.h"
#include "format_impl.h"
#include "store.h"
#include "util.h"

/* By enum config_format. */
static const struct format_ops *const formats[] = {
	[CONFIG_FORMAT_GOCRYPTFS] = &format_gocryptfs_ops,
	[CONFIG_FORMAT_PLAIN] = &format_plain_ops,
};

static struct format *format_new(int kind)
{
	struct format *f = calloc(1, sizeof(*f));

	assert((size_t)kind < ARRAY_SIZE(formats));
	if (f)
		f->ops = formats[kind];
	return f;
}

int format_open(const struct format_params *params, struct format **ret, struct error *err)
{
	struct format *f = format_new(params->kind);
	int r = 0;

	if (!f)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot open the volume");
	if (f->ops->open)
		r = f->ops->open(params, &f->state, err);
	if (r < 0) {
		free(f);
		return r;
	}
	*ret = f;
	return 0;
}

int format_make(const struct format_params *params, struct format **ret, struct error *err)
{
	struct format *f = format_new(params->kind);
	int r;

	if (!f)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot make a volume");
	r = f->ops->make ? f->ops->make(params, &f->state, err)
			 : error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED,
				     "the format \"%s\" has no keys", f->ops->name);
	if (r < 0) {
		free(f);
		return r;
	}
	*ret = f;
	return 0;
}

const char *format_name(const struct format *f)
{
	return f->ops->name;
}

bool format_needs_key(const struct format *f)
{
	return f->ops->needs_key;
}

bool format_owns_content(const struct format *f)
{
	return f->ops->owns_content;
}

int format_unlock(struct format *f, struct key *key, struct error *err)
{
	return f->ops->unlock ? f->ops->unlock(f->state, key, err) : 0;
}

const char *format_key_identifier(const struct format *f)
{
	return f->ops->key_identifier ? f->ops->key_identifier(f->state) : "-";
}

int format_start(struct format *f, format_damage_fn *damage, void *damage_ctx, struct error *err)
{
	f->damage = damage;
	f->damage_ctx = damage_ctx;
	return f->ops->start ? f->ops->start(f, err) : 0;
}

void format_lock(struct format *f)
{
	if (f->ops->lock)
		f->ops->lock(f);
}

void format_hand_over(const struct format *f, struct secret *room)
{
	assert(secret_size(room) == FORMAT_KEY_SIZE);
	if (f->ops->hand_over)
		f->ops->hand_over(f->state, room);
}

int format_restart(struct format *f, const struct secret *room, struct error *err)
{
	assert(secret_size(room) == FORMAT_KEY_SIZE);
	return f->ops->restart ? f->ops->restart(f, room, err) : 0;
}

void format_let_go(struct format *f)
{
	if (f->ops->let_go)
		f->ops->let_go(f);
}

void format_take(struct format *f)
{
	if (f->ops->take)
		f->ops->take(f);
}

void format_free(struct format *f)
{
	if (!f)
		return;
	if (f->ops->free)
		f->ops->free(f->state);
	free(f);
}

int format_no_source(const struct format *f, struct error *err)
{
	return f->ops->no_source ? f->ops->no_source(f->state, err) : 0;
}

int format_init(const struct format_init_params *params, struct error *err)
{
	const struct format_ops *ops = formats[params->kind];

	if (!ops->init)
		return error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED,
				 "format \"%s\" has nothing to initialise", ops->name);
	return ops->init(params, err);
}

void format_report(struct format *f, int fd, const char *entry, const char *what)
{
	char where[PATH_MAX + NAME_MAX + 2];
	size_t n;

	if (!f->damage)
		return;
	if (store_path(fd, where, PATH_MAX) < 0)
		snprintf(where, sizeof(where), "?");
	if (entry) {
		n = strlen(where);
		snprintf(where + n, sizeof(where) - n, "%s%s", n && where[n - 1] == '/' ? "" : "/", entry);
	}
	f->damage(f->damage_ctx, what, where);
}

/* ---- names and directories ---- */

int format_dir_iv(struct format *f, int dir_fd, uint8_t ret_iv[16])
{
	if (f->ops->dir_iv)
		return f->ops->dir_iv(f, dir_fd, ret_iv);
	memset(ret_iv, 0, 16);
	return 0;
}

int format_name_encode(struct format *f, const struct format_dir *dir, const char *name,
		       struct format_name *ret)
{
	if (f->ops->name_encode)
		return f->ops->name_encode(f, dir, name, ret);
	if (strlen(name) >= sizeof(ret->disk))
		return -ENAMETOOLONG;
	strcpy(ret->disk, name);
	ret->text[0] = '\0';
	return 0;
}

int format_name_decode(struct format *f, const struct format_dir *dir, const char *disk, char *ret_name)
{
	if (f->ops->name_decode)
		return f->ops->name_decode(f, dir, disk, ret_name);
	if (strlen(disk) > NAME_MAX)
		return -ENOENT;
	strcpy(ret_name, disk);
	return 0;
}

bool format_attr_needs_fd(const struct format *f, mode_t mode)
{
	return f->ops->attr && S_ISLNK(mode);
}

void format_attr(struct format *f, int fd, struct stat *st)
{
	if (f->ops->attr)
		f->ops->attr(f, fd, st);
}

int format_create(struct format *f, const struct format_dir *dir, const struct format_name *name, int flags,
		  mode_t mode)
{
	if (f->ops->create)
		return f->ops->create(f, dir, name, flags, mode);
	return store_open(dir->fd, name->disk, flags, mode);
}

int format_mknod(struct format *f, const struct format_dir *dir, const struct format_name *name, mode_t mode,
		 dev_t rdev)
{
	if (f->ops->mknod)
		return f->ops->mknod(f, dir, name, mode, rdev);
	return store_mknod(dir->fd, name->disk, mode, rdev);
}

int format_mkdir(struct format *f, const struct format_dir *dir, const struct format_name *name, mode_t mode)
{
	if (f->ops->mkdir)
		return f->ops->mkdir(f, dir, name, mode);
	return store_mkdir(dir->fd, name->disk, mode);
}

int format_symlink(struct format *f, const char *target, const struct format_dir *dir,
		   const struct format_name *name)
{
	if (f->ops->symlink)
		return f->ops->symlink(f, target, dir, name);
	return store_symlink(target, dir->fd, name->disk);
}

int format_link(struct format *f, int fd, const struct format_dir *dir, const struct format_name *name)
{
	if (f->ops->link)
		return f->ops->link(f, fd, dir, name);
	return store_link(fd, dir->fd, name->disk);
}

int format_unlink(struct format *f, const struct format_dir *dir, const struct format_name *name)
{
	if (f->ops->unlink)
		return f->ops->unlink(f, dir, name);
	return store_unlink(dir->fd, name->disk);
}

int format_rmdir(struct format *f, const struct format_dir *dir, const struct format_name *name)
{
	if (f->ops->rmdir)
		return f->ops->rmdir(f, dir, name);
	return store_rmdir(dir->fd, name->disk);
}

int format_rename(struct format *f, const struct format_dir *dir, const struct format_name *name,
		  const struct format_dir *new_dir, const struct format_name *new_name, unsigned flags)
{
	if (f->ops->rename)
		return f->ops->rename(f, dir, name, new_dir, new_name, flags);
	return store_rename(dir->fd, name->disk, new_dir->fd, new_name->disk, flags);
}

int format_readlink(struct format *f, int fd, char *ret_target, size_t size)
{
	ssize_t n;

	if (f->ops->readlink)
		return f->ops->readlink(f, fd, ret_target, size);
	n = store_readlink(fd, ret_target, size - 1);
	if (n < 0)
		return (int)n;
	ret_target[n] = '\0';
	return 0;
}

/* ---- files ---- */

int format_open_flags(const struct format *f, int flags)
{
	bool writes = (flags & O_ACCMODE) != O_RDONLY;

	/* The writeback cache reads what a handle that only writes does not cover, so that writing always
	 * needs both. What else open(2) takes (O_APPEND, O_DIRECT, O_SYNC, O_TRUNC) is the kernel's business
	 * above us. */
	return writes ? O_RDWR : O_RDONLY;
}

int format_file_new(struct format *f, int fd, bool writable, struct format_file **ret)
{
	struct format_file *file = calloc(1, sizeof(*file));

	if (!file) {
		close(fd);
		return -ENOMEM;
	}
	pthread_rwlock_init(&file->lock, NULL);
	file->fd = fd;
	file->writable = writable;
	*ret = file;
	return 0;
}

void format_file_free(struct format_file *file)
{
	if (!file)
		return;
	cleanup_close(&file->fd);
	pthread_rwlock_destroy(&file->lock);
	free(file);
}

void format_file_upgrade(struct format_file *file, int fd)
{
	int old;

	pthread_rwlock_wrlock(&file->lock);
	old = file->fd;
	file->fd = fd;
	file->writable = true;
	file->renewal = 0;
	pthread_rwlock_unlock(&file->lock);
	close(old);
}

/* Linux 6.1, kAFS: a file that could not be stored for want of a valid token is stored by the next fsync(2)
 * as it was before, which is told to have gone well. */
static int sync_remember(struct format_file *file, int r)
{
	switch (r) {
	case -EACCES:
	case -EPERM:
	case -ENOKEY:
	case -EKEYEXPIRED:
	case -EKEYREVOKED:
	case -EKEYREJECTED:
		atomic_store(&file->sync_failed, r);
		break;
	default:
		break;
	}
	return r;
}

int format_file_renew(struct format_file *file, uint32_t renewal)
{
	int fd = -1, r = 0;

	pthread_rwlock_wrlock(&file->lock);
	if (file->fd >= 0 && file->renewal != renewal) {
		fd = store_reopen(file->fd, file->writable ? O_RDWR : O_RDONLY);
		r = fd < 0 ? fd : 0;
		if (file->writable)
			sync_remember(file, store_fsync(fd < 0 ? file->fd : fd, false));
	}
	if (fd >= 0) {
		/* While nothing is dirty: then kAFS forgets the old token. With Linux 6.1 one that ends while
		 * it is stored with, and is the last that is known, makes the kernel follow a null pointer.
		 */
		close(file->fd);
		file->fd = fd;
		file->renewal = renewal;
	}
	pthread_rwlock_unlock(&file->lock);
	return r;
}

bool format_file_let_go(struct format_file *file)
{
	struct stat st;
	bool named;
	int fd;

	pthread_rwlock_wrlock(&file->lock);
	named = file->fd < 0 || (store_stat_fd(file->fd, &st) == 0 && st.st_nlink > 0);
	fd = named ? steal_fd(&file->fd) : -1;
	pthread_rwlock_unlock(&file->lock);
	cleanup_close(&fd);
	return named;
}

bool format_file_is_away(struct format_file *file)
{
	bool away;

	pthread_rwlock_rdlock(&file->lock);
	away = file->fd < 0;
	pthread_rwlock_unlock(&file->lock);
	return away;
}

void format_file_take(struct format_file *file, int fd)
{
	pthread_rwlock_wrlock(&file->lock);
	file->fd = fd;
	pthread_rwlock_unlock(&file->lock);
}

bool format_file_writable(struct format_file *file)
{
	bool writable;

	pthread_rwlock_rdlock(&file->lock);
	writable = file->writable;
	pthread_rwlock_unlock(&file->lock);
	return writable;
}

int format_file_fd(struct format_file *file)
{
	pthread_rwlock_rdlock(&file->lock);
	return file->fd;
}

void format_file_fd_done(struct format_file *file)
{
	pthread_rwlock_unlock(&file->lock);
}

ssize_t format_read(struct format *f, struct format_file *file, struct format_io *io, size_t size,
		    uint64_t offset, const uint8_t **ret_data)
{
	if (size > FORMAT_IO_MAX || offset > (uint64_t)INT64_MAX - size)
		return -EINVAL;
	return f->ops->read(f, file, io, size, offset, ret_data);
}

ssize_t format_write(struct format *f, struct format_file *file, struct format_io *io, const void *buf,
		     size_t size, uint64_t offset)
{
	if (size > FORMAT_IO_MAX)
		return -EINVAL;
	if (offset > (uint64_t)INT64_MAX - size)
		return -EFBIG;
	return size ? f->ops->write(f, file, io, buf, size, offset) : 0;
}

int format_truncate(struct format *f, struct format_file *file, struct format_io *io, uint64_t size)
{
	if (size > INT64_MAX)
		return -EFBIG;
	return f->ops->truncate(f, file, io, size);
}

int format_fallocate(struct format *f, struct format_file *file, struct format_io *io, int mode,
		     uint64_t offset, uint64_t length)
{
	if (!length || offset > (uint64_t)INT64_MAX - length)
		return length ? -EFBIG : -EINVAL;
	return f->ops->fallocate(f, file, io, mode, offset, length);
}

int format_fsync(struct format *f, struct format_file *file, bool data_only)
{
	int r = atomic_load(&file->sync_failed);

	if (r < 0)
		return r;
	if (f->ops->fsync)
		return sync_remember(file, f->ops->fsync(f, file, data_only));
	r = store_fsync(format_file_fd(file), data_only);
	format_file_fd_done(file);
	return sync_remember(file, r);
}

int format_seek(struct format *f, struct format_file *file, uint64_t offset, int whence, uint64_t *ret_offset)
{
	return f->ops->seek(f, file, offset, whence, ret_offset);
}

ssize_t format_copy(struct format *f, struct format_file *file, uint64_t offset, struct format_file *to_file,
		    uint64_t to, size_t size)
{
	if (offset > (uint64_t)INT64_MAX - size || to > (uint64_t)INT64_MAX - size)
		return -EFBIG;
	return f->ops->copy ? f->ops->copy(f, file, offset, to_file, to, size) : -ENOSYS;
}

/* ---- extended attributes ---- */

ssize_t format_getxattr(struct format *f, int fd, const char *name, void *buf, size_t size)
{
	return f->ops->getxattr ? f->ops->getxattr(f, fd, name, buf, size)
				: store_getxattr(fd, name, buf, size);
}

ssize_t format_listxattr(struct format *f, int fd, char *buf, size_t size)
{
	return f->ops->listxattr ? f->ops->listxattr(f, fd, buf, size) : store_listxattr(fd, buf, size);
}

int format_setxattr(struct format *f, int fd, const char *name, const void *value, size_t size, int flags)
{
	if (f->ops->setxattr)
		return f->ops->setxattr(f, fd, name, value, size, flags);
	return store_setxattr(fd, name, value, size, flags);
}

int format_removexattr(struct format *f, int fd, const char *name)
{
	return f->ops->removexattr ? f->ops->removexattr(f, fd, name) : store_removexattr(fd, name);
}
