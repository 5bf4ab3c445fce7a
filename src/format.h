/* SPDX-License-Identifier: MIT */
/*
 * Formats: what user space does to names and contents. `plain` does nothing; `gocryptfs` is the gocryptfs v2
 * on-disk format.
 *
 * Life functions (keeper or start-up; one thread; may block; fill struct error) and data path functions (any
 * thread; negative errno, nothing else) never mix. All are reached through the wrappers here; a NULL slot in
 * a format's table (format_impl.h) means the documented default, which is what `plain` does.
 *
 * Life of a format: keeper: format_open(), format_unlock(); fork; server: format_start(), data path,
 * format_free(); keeper: format_free() once the server has started. Locked and unlocked in between:
 * format_lock(); keeper: format_open(), format_unlock(), format_hand_over(); server: format_restart().
 */
#ifndef CKRFS_FORMAT_H
#define CKRFS_FORMAT_H

#include "error.h"
#include "keysource.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct format;

struct format_params {
	int kind;               /* enum config_format */
	int root_fd;            /* of the lower; borrowed, must stay open as long as the format */
	uint64_t scrypt_memory; /* bytes opening may take */
	bool unfinished;        /* take also what rekey has not finished (generation.h) */
	bool may_repair;        /* the data path may mend what a crash left: writes, and is alone */
};

/* What the data path found damaged, for the log: once for each place. what: words; where: path in the lower,
 * with ciphertext names. Any thread. */
typedef void format_damage_fn(void *ctx, const char *what, const char *where);

/* ---- life ---- */

/* Reads and checks the volume's own configuration. 1 damaged or not a volume, 15 a kind of volume that is not
 * supported. */
int format_open(const struct format_params *params, struct format **ret, struct error *err);
/*
 * Makes a new volume in the empty root directory, of the kind that format_init() makes by default, with a
 * random key that nobody else has: nothing of it is written, and no other process ever opens the volume. It
 * is as behind format_unlock() then. 15 for a format without keys.
 */
int format_make(const struct format_params *params, struct format **ret, struct error *err);
const char *format_name(const struct format *f);
bool format_needs_key(const struct format *f);
/* May caches trust that only this mount changes the files (writeback cache)? Not so where the lower is used
 * beside it. */
bool format_owns_content(const struct format *f);

/* Takes the key (its bytes go over to the format, key->bytes becomes NULL). 12 when it does not open the
 * volume. */
int format_unlock(struct format *f, struct key *key, struct error *err);

/* Identifier of the volume's key, "-" for formats without. ckrfs(8), "status". */
const char *format_key_identifier(const struct format *f);

/* In the server, before the first request: derives the working keys, forgets the volume key. */
int format_start(struct format *f, format_damage_fn *damage, void *damage_ctx, struct error *err);

/* Lock and unlock: forgets the working keys; the data path must not be used until format_restart(), but for
 * format_file_free(), format_file_fd() and format_attr() of directories. Handles and files live on. */
void format_lock(struct format *f);
/* Unlocked and not started: writes the volume's key into room, of FORMAT_KEY_SIZE bytes (nothing without a
 * key). In the locked format of another process it is taken from there. 12 when it is another volume's. */
enum { FORMAT_KEY_SIZE = 32 };
void format_hand_over(const struct format *f, struct secret *room);
int format_restart(struct format *f, const struct secret *room, struct error *err);

/* Locked: keeps nothing of the lower open, so that its own key can be taken away too; and the reverse, after
 * format_restart(). The volume's root has the same fd again. Files: format_file_let_go(). */
void format_let_go(struct format *f);
void format_take(struct format *f);

void format_free(struct format *f);

/* No key source is configured: what the volume wants, if that is more than the general words would say. 0, or
 * a failure. */
int format_no_source(const struct format *f, struct error *err);

enum format_cipher { FORMAT_CIPHER_AES_GCM, FORMAT_CIPHER_AES_SIV, FORMAT_CIPHER_XCHACHA };
enum format_names { FORMAT_NAMES_ENCRYPTED, FORMAT_NAMES_DETERMINISTIC, FORMAT_NAMES_PLAINTEXT };

/* Zeros are the defaults, but for root_fd and key. */
struct format_init_params {
	int kind;               /* enum config_format; only gocryptfs can be made */
	int root_fd;            /* an empty directory */
	const struct key *key;  /* passphrase or 32 bytes: the master key itself is then random resp. given */
	unsigned log_n;         /* scrypt cost */
	uint64_t scrypt_memory; /* bytes it may take */
	enum format_cipher cipher;
	enum format_names names;
	unsigned long_name_max; /* of encrypted names: 62..254 */
};

/* Makes a new volume: there whole or not at all. */
int format_init(const struct format_init_params *params, struct error *err);

/* ---- data path: any thread, negative errno ---- */

/* A directory that names are meant in. */
struct format_dir {
	int fd;            /* may be O_PATH */
	const uint8_t *iv; /* what format_dir_iv() gave */
	bool root;         /* of the volume */
};

/* How a name stands on disk. */
struct format_name {
	char disk[256];
	char text[345]; /* the full encrypted name where disk is only its hash, else empty */
};

/* One open inode, shared by all its handles. */
struct format_file;

/* Room for one request: the caller's, used by one request at a time. */
enum { FORMAT_IO_MAX = 1 << 20, FORMAT_IO_ROOM = FORMAT_IO_MAX + (FORMAT_IO_MAX >> 6) + 16384 };
struct format_io {
	uint8_t *plain, *disk; /* FORMAT_IO_ROOM bytes each */
};

/* What encrypting names in a directory needs; -EIO when it is damaged. Asked once per directory, then kept
 * with its node. */
int format_dir_iv(struct format *f, int dir_fd, uint8_t ret_iv[16]);

int format_name_encode(struct format *f, const struct format_dir *dir, const char *name,
		       struct format_name *ret);
/* For readdir: -ENOENT for what is not to be shown. ret_name holds 256. */
int format_name_decode(struct format *f, const struct format_dir *dir, const char *disk, char *ret_name);

/* Makes attributes of the lower those of the volume: sizes. fd: an O_PATH fd of it, needed for symlinks only
 * (see format_attr_needs_fd). */
void format_attr(struct format *f, int fd, struct stat *st);
bool format_attr_needs_fd(const struct format *f, mode_t mode);

int format_create(struct format *f, const struct format_dir *dir, const struct format_name *name, int flags,
		  mode_t mode);
int format_mknod(struct format *f, const struct format_dir *dir, const struct format_name *name, mode_t mode,
		 dev_t rdev);
int format_mkdir(struct format *f, const struct format_dir *dir, const struct format_name *name, mode_t mode);
int format_symlink(struct format *f, const char *target, const struct format_dir *dir,
		   const struct format_name *name);
int format_link(struct format *f, int fd, const struct format_dir *dir, const struct format_name *name);
int format_unlink(struct format *f, const struct format_dir *dir, const struct format_name *name);
int format_rmdir(struct format *f, const struct format_dir *dir, const struct format_name *name);
int format_rename(struct format *f, const struct format_dir *dir, const struct format_name *name,
		  const struct format_dir *new_dir, const struct format_name *new_name, unsigned flags);
/* Terminated; size 4096 is enough. */
int format_readlink(struct format *f, int fd, char *ret_target, size_t size);

/* Flags to open the lower with for a handle opened with flags: a format may have to read where the caller
 * only writes. */
int format_open_flags(const struct format *f, int flags);
/* Takes the fd. -ENOMEM (the fd is closed then) */
int format_file_new(struct format *f, int fd, bool writable, struct format_file **ret);
void format_file_free(struct format_file *file);
/* Exchanges the fd for one that can write. Takes it. */
void format_file_upgrade(struct format_file *file, int fd);
bool format_file_writable(struct format_file *file);
/* Closes the fd, but that of a file without a name, which could not be opened again: false. Reading and
 * writing fail until format_file_take(), which takes an fd opened as format_file_writable() says. */
bool format_file_let_go(struct format_file *file);
bool format_file_is_away(struct format_file *file);
void format_file_take(struct format_file *file, int fd);
/* For a lower whose key is exchanged: opens the fd anew, stores what was written through the old one, and
 * closes that. Not twice for the same renewal. What could not be stored format_fsync() goes on telling. */
int format_file_renew(struct format_file *file, uint32_t renewal);
/* For calls that concern the inode as a whole (fstat, fsync): valid until format_file_fd_done(). */
int format_file_fd(struct format_file *file);
void format_file_fd_done(struct format_file *file);

/* *ret_data points into io; the bytes read, 0 at the end. size <= FORMAT_IO_MAX */
ssize_t format_read(struct format *f, struct format_file *file, struct format_io *io, size_t size,
		    uint64_t offset, const uint8_t **ret_data);
/* Bytes written: fewer than size only when the disk is full behind them. */
ssize_t format_write(struct format *f, struct format_file *file, struct format_io *io, const void *buf,
		     size_t size, uint64_t offset);
int format_truncate(struct format *f, struct format_file *file, struct format_io *io, uint64_t size);
int format_fallocate(struct format *f, struct format_file *file, struct format_io *io, int mode,
		     uint64_t offset, uint64_t length);
/* What was written is on disk; data_only as fdatasync(2). Once it was not for want of a right or a key, it
 * fails until the file is closed: the lower may have dropped what it could not store. */
int format_fsync(struct format *f, struct format_file *file, bool data_only);
int format_seek(struct format *f, struct format_file *file, uint64_t offset, int whence,
		uint64_t *ret_offset);

/* Bytes copied between two files of the volume by the lower itself, fewer than size allowed; -ENOSYS for
 * formats that cannot. */
ssize_t format_copy(struct format *f, struct format_file *file, uint64_t offset, struct format_file *to_file,
		    uint64_t to, size_t size);

/* Like xattr(7); fd may be O_PATH. size 0 asks for the size needed; -ERANGE when it does not fit. */
ssize_t format_getxattr(struct format *f, int fd, const char *name, void *buf, size_t size);
ssize_t format_listxattr(struct format *f, int fd, char *buf, size_t size);
int format_setxattr(struct format *f, int fd, const char *name, const void *value, size_t size, int flags);
int format_removexattr(struct format *f, int fd, const char *name);

#endif
