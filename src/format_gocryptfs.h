/* SPDX-License-Identifier: MIT */
/* What the files of the format `gocryptfs` share: format_gocryptfs.c (life), _make.c (new volumes), _dir.c
 * (names and directories), _file.c (contents), _xattr.c. */
#ifndef CKRFS_FORMAT_GOCRYPTFS_H
#define CKRFS_FORMAT_GOCRYPTFS_H

#include "format_gocryptfs_redo.h"
#include "format_impl.h"
#include "gcfs_config.h"
#include "gcfs_content.h"
#include "gcfs_names.h"
#include "gcfs_slots.h"

struct gocryptfs {
	struct gcfs_config config;
	int root_fd; /* borrowed */
	uint64_t scrypt_memory;
	struct secret *master; /* between unlock and start */
	char identifier[33];
	char slot[GCFS_SLOT_NAME_MAX + 1]; /* the key slot that opened it; "": another way */
	struct gcfs_names *names;          /* from start on */
	struct gcfs_content *content;
	bool moves_blocks; /* the lower does not overwrite in place: that may need room */
	int ballast;       /* fd, -1: none. repair_lock is for it too */
	bool no_ballast;   /* the lower has no such files */
	bool may_repair;   /* the mount may write, and nobody else does */
	pthread_mutex_t repair_lock;
	struct gocryptfs_redo redo;
};

/* One without configuration and key; NULL without memory. */
struct gocryptfs *gocryptfs_new(const struct format_params *params);
void gocryptfs_free(void *state);

int gocryptfs_init(const struct format_init_params *params, struct error *err);
int gocryptfs_make(const struct format_params *params, void **ret_state, struct error *err);

static inline struct gocryptfs *gocryptfs_of(const struct format *f)
{
	return f->state;
}

/* Has each directory an IV of its own? Else names are deterministic, or in clear. */
static inline bool gocryptfs_has_iv(const struct gocryptfs *g)
{
	return g->config.flags & GCFS_DIRIV;
}

static inline bool gocryptfs_plain_names(const struct gocryptfs *g)
{
	return g->config.flags & GCFS_PLAINTEXT_NAMES;
}

/* The directory's IV, zeros where it has none; -EIO where it is missing or damaged, *ret_why says how. */
int gocryptfs_read_iv(const struct gocryptfs *g, int dir_fd, uint8_t ret_iv[GCFS_IV_SIZE],
		      const char **ret_why);

/* Opens the volume with one of its key slots (format_gocryptfs_keys.c). -ENOKEY, with err untouched: go on as
 * if there were none. Leaves key's bytes. */
int gocryptfs_unlock_slots(struct gocryptfs *g, const struct key *key, struct secret **ret_master,
			   struct error *err);

/* The passphrase of gocryptfs.conf where the key is the master key itself. */
int gocryptfs_hex_passphrase(const struct secret *key, struct secret **ret);

/*
 * Names for what is not finished: gocryptfs takes them for the text of a long name whose object is gone, and
 * skips them without a word (its own parked IVs make its -fsck complain). No base64url has a dot, so that no
 * long name is among them.
 */
#define GOCRYPTFS_MAKING "mkdir"                           /* a directory that has no IV yet */
#define GOCRYPTFS_REMOVING "rmdir"                         /* a directory that nobody sees any more */
#define GOCRYPTFS_PARKED "diriv"                           /* an IV on its way */
#define GOCRYPTFS_PARKED_FOREIGN GCFS_DIRIV_FILE ".rmdir." /* and gocryptfs's own name for it */
#define GOCRYPTFS_REDO "redo"                              /* the log of blocks that are rewritten */
int gocryptfs_temporary_name(const char *what, char ret_name[NAME_MAX + 1]);

enum gocryptfs_leftover {
	GOCRYPTFS_LEFTOVER_NONE,
	GOCRYPTFS_LEFTOVER_MAKING,
	GOCRYPTFS_LEFTOVER_REMOVING,
	GOCRYPTFS_LEFTOVER_PARKED,
	GOCRYPTFS_LEFTOVER_REDO, /* in the root */
};
/* What a name is of those above, gocryptfs's own included. */
enum gocryptfs_leftover gocryptfs_leftover_kind(const char *disk);

/* What is in a directory that has no entries. */
struct gocryptfs_remains {
	bool iv;        /* its own */
	bool leftovers; /* of interrupted operations */
};
/* -ENOTEMPTY when a directory has anything else. dir_fd: O_RDONLY. */
int gocryptfs_check_removable(int dir_fd, struct gocryptfs_remains *ret);
/* Removes the leftovers; no system call where none were seen. -ENOTEMPTY as above; then some of them may be
 * gone. What comes meanwhile is rmdir(2)'s to find. */
int gocryptfs_remove_leftovers(int dir_fd, const struct gocryptfs_remains *remains);

/* Writes the IV of a new directory, durably. 5 system calls. */
int gocryptfs_write_iv(int dir_fd, const uint8_t iv[GCFS_IV_SIZE]);
/* Before anything is overwritten on a lower that moves blocks: room is held for putting it back. -ENOSPC,
 * -EDQUOT: there is none, and nothing may be overwritten. No system call while it is held. */
int gocryptfs_ballast_take(struct gocryptfs *g);
/* Lets go of it; the room is there when this returns. fd: a file of the lower. False: none was held. */
bool gocryptfs_ballast_drop(struct gocryptfs *g, int fd);

/* A directory without a good IV that is empty gets a new one: no name depends on it. -EIO for any other, and
 * where nothing may be repaired. */
int gocryptfs_repair_iv(struct gocryptfs *g, int dir_fd, uint8_t ret_iv[GCFS_IV_SIZE]);

void gocryptfs_attr(struct format *f, int fd, struct stat *st);
int gocryptfs_dir_iv(struct format *f, int dir_fd, uint8_t ret_iv[16]);
int gocryptfs_name_encode(struct format *f, const struct format_dir *dir, const char *name,
			  struct format_name *ret);
int gocryptfs_name_decode(struct format *f, const struct format_dir *dir, const char *disk, char *ret_name);
int gocryptfs_create(struct format *f, const struct format_dir *dir, const struct format_name *name,
		     int flags, mode_t mode);
int gocryptfs_mknod(struct format *f, const struct format_dir *dir, const struct format_name *name,
		    mode_t mode, dev_t rdev);
int gocryptfs_mkdir(struct format *f, const struct format_dir *dir, const struct format_name *name,
		    mode_t mode);
int gocryptfs_symlink(struct format *f, const char *target, const struct format_dir *dir,
		      const struct format_name *name);
int gocryptfs_link(struct format *f, int fd, const struct format_dir *dir, const struct format_name *name);
int gocryptfs_unlink(struct format *f, const struct format_dir *dir, const struct format_name *name);
int gocryptfs_rmdir(struct format *f, const struct format_dir *dir, const struct format_name *name);
int gocryptfs_rename(struct format *f, const struct format_dir *dir, const struct format_name *name,
		     const struct format_dir *new_dir, const struct format_name *new_name, unsigned flags);
int gocryptfs_readlink(struct format *f, int fd, char *ret_target, size_t size);

ssize_t gocryptfs_read(struct format *f, struct format_file *file, struct format_io *io, size_t size,
		       uint64_t offset, const uint8_t **ret_data);
ssize_t gocryptfs_write(struct format *f, struct format_file *file, struct format_io *io, const void *buf,
			size_t size, uint64_t offset);
int gocryptfs_truncate(struct format *f, struct format_file *file, struct format_io *io, uint64_t size);
int gocryptfs_fallocate(struct format *f, struct format_file *file, struct format_io *io, int mode,
			uint64_t offset, uint64_t length);
int gocryptfs_fsync(struct format *f, struct format_file *file, bool data_only);
int gocryptfs_seek(struct format *f, struct format_file *file, uint64_t offset, int whence,
		   uint64_t *ret_offset);

ssize_t gocryptfs_getxattr(struct format *f, int fd, const char *name, void *buf, size_t size);
ssize_t gocryptfs_listxattr(struct format *f, int fd, char *buf, size_t size);
int gocryptfs_setxattr(struct format *f, int fd, const char *name, const void *value, size_t size, int flags);
int gocryptfs_removexattr(struct format *f, int fd, const char *name);

#endif
