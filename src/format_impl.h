/* SPDX-License-Identifier: MIT */
/* What a format implements: included by format*.c only. Contracts of the slots are those of the wrappers of
 * the same name in format.h. */
#ifndef CKRFS_FORMAT_IMPL_H
#define CKRFS_FORMAT_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "format.h"

struct format_ops {
	const char *name;
	bool needs_key;
	bool owns_content; /* nobody changes the lower behind the mount: caches may be trusted */

	/* life; NULL: nothing to do */
	int (*open)(const struct format_params *params, void **ret_state, struct error *err);
	int (*unlock)(void *state, struct key *key, struct error *err);
	int (*start)(struct format *f, struct error *err);
	void (*lock)(struct format *f);
	void (*hand_over)(const void *state, struct secret *room);
	int (*restart)(struct format *f, const struct secret *room, struct error *err);
	void (*let_go)(struct format *f);
	void (*take)(struct format *f);
	void (*free)(void *state);
	int (*no_source)(const void *state, struct error *err);
	int (*init)(const struct format_init_params *params, struct error *err);
	int (*make)(const struct format_params *params, void **ret_state, struct error *err);
	const char *(*key_identifier)(const void *state);

	/* data path; NULL: the call on the lower as it is, names as they are */
	int (*dir_iv)(struct format *f, int dir_fd, uint8_t ret_iv[16]);
	int (*name_encode)(struct format *f, const struct format_dir *dir, const char *name,
			   struct format_name *ret);
	int (*name_decode)(struct format *f, const struct format_dir *dir, const char *disk, char *ret_name);
	void (*attr)(struct format *f, int fd, struct stat *st);
	int (*create)(struct format *f, const struct format_dir *dir, const struct format_name *name,
		      int flags, mode_t mode);
	int (*mknod)(struct format *f, const struct format_dir *dir, const struct format_name *name,
		     mode_t mode, dev_t rdev);
	int (*mkdir)(struct format *f, const struct format_dir *dir, const struct format_name *name,
		     mode_t mode);
	int (*symlink)(struct format *f, const char *target, const struct format_dir *dir,
		       const struct format_name *name);
	int (*link)(struct format *f, int fd, const struct format_dir *dir, const struct format_name *name);
	int (*unlink)(struct format *f, const struct format_dir *dir, const struct format_name *name);
	int (*rmdir)(struct format *f, const struct format_dir *dir, const struct format_name *name);
	int (*rename)(struct format *f, const struct format_dir *dir, const struct format_name *name,
		      const struct format_dir *new_dir, const struct format_name *new_name, unsigned flags);
	int (*readlink)(struct format *f, int fd, char *ret_target, size_t size);
	ssize_t (*read)(struct format *f, struct format_file *file, struct format_io *io, size_t size,
			uint64_t offset, const uint8_t **ret_data);
	ssize_t (*write)(struct format *f, struct format_file *file, struct format_io *io, const void *buf,
			 size_t size, uint64_t offset);
	int (*truncate)(struct format *f, struct format_file *file, struct format_io *io, uint64_t size);
	int (*fallocate)(struct format *f, struct format_file *file, struct format_io *io, int mode,
			 uint64_t offset, uint64_t length);
	int (*fsync)(struct format *f, struct format_file *file, bool data_only);
	int (*seek)(struct format *f, struct format_file *file, uint64_t offset, int whence,
		    uint64_t *ret_offset);
	/* NULL: -ENOSYS */
	ssize_t (*copy)(struct format *f, struct format_file *file, uint64_t offset,
			struct format_file *to_file, uint64_t to, size_t size);
	ssize_t (*getxattr)(struct format *f, int fd, const char *name, void *buf, size_t size);
	ssize_t (*listxattr)(struct format *f, int fd, char *buf, size_t size);
	int (*setxattr)(struct format *f, int fd, const char *name, const void *value, size_t size,
			int flags);
	int (*removexattr)(struct format *f, int fd, const char *name);
};

extern const struct format_ops format_gocryptfs_ops;
extern const struct format_ops format_plain_ops;

struct format {
	const struct format_ops *ops;
	void *state;
	format_damage_fn *damage;
	void *damage_ctx;
};

struct format_file {
	/* Contents: readers share it, whoever changes blocks, size or fd has it alone. Held across calls on
	 * the lower: a block is read, changed and written as one step (docs/locking.md). */
	pthread_rwlock_t lock;
	int fd;
	bool writable;
	uint32_t renewal;        /* format_file_renew() that opened the fd */
	_Atomic int sync_failed; /* format_fsync(), for good; 0: not */
	bool id_known;           /* gocryptfs: id holds the file's ID */
	uint8_t id[16];
};

/* Tells the log of damage at fd, or at an entry of the directory fd (entry may be NULL). */
void format_report(struct format *f, int fd, const char *entry, const char *what);

#endif
