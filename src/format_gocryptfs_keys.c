/* SPDX-License-Identifier: MIT */
#include "format_gocryptfs_keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "config.h"
#include "format_gocryptfs.h"
#include "store.h"

#define CONF_TMP GCFS_CONF_FILE ".tmp"

enum { DEFAULT_LOG_N = 16, LOCK_TRIES = 1200, LOCK_WAIT_NS = 50000000 };

struct volume_keys {
	struct format *format; /* opened, never started: keeps the master key */
	int root_fd;           /* borrowed */
	int lock_fd;           /* gocryptfs.conf, locked; -1: nothing may be changed */
	bool passphrase;       /* the key that opened was one */
	bool digits;           /* and it was the master key's own digits */
};

static struct gocryptfs *volume_of(const struct volume_keys *keys)
{
	return gocryptfs_of(keys->format);
}

/* -ENOENT, with err untouched, when the volume has no slots. */
static int read_slots(int root_fd, struct gcfs_slots *ret, struct error *err)
{
	autofree char *text = malloc(GCFS_SLOTS_SIZE_MAX + 1);
	ssize_t n;

	if (!text)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot read " GCFS_SLOTS_FILE);
	n = store_read_file(root_fd, GCFS_SLOTS_FILE, text, GCFS_SLOTS_SIZE_MAX + 1);
	if (n == -ENOENT)
		return -ENOENT;
	if (n == -EINVAL || n == -ELOOP || n == -ENXIO)
		return error_set(err, -EINVAL, EXIT_STATUS_FAILED, GCFS_SLOTS_FILE " is not a regular file");
	if (n < 0)
		return error_errno(err, n == -ENOKEY ? -EIO : (int)n, EXIT_STATUS_FAILED,
				   "cannot read " GCFS_SLOTS_FILE);
	return gcfs_slots_parse(text, (size_t)n, ret, err);
}

/* Is key the master key that the slots are of? */
static bool is_master_of(const struct gcfs_slots *slots, const struct secret *key)
{
	char identifier[33];

	return gcfs_key_identifier(key, identifier) == 0 && strcmp(identifier, slots->volume) == 0;
}

int gocryptfs_unlock_slots(struct gocryptfs *g, const struct key *key, struct secret **ret_master,
			   struct error *err)
{
	const struct gcfs_slot *slot = NULL;
	struct gcfs_slots slots;
	int r;

	if (g->config.flags & GCFS_PLAINTEXT_NAMES ||
	    (!key->passphrase && secret_size(key->bytes) != GCFS_SLOT_KEY))
		return -ENOKEY;
	r = read_slots(g->root_fd, &slots, err);
	if (r == -ENOENT)
		return -ENOKEY;
	if (r < 0) {
		error_prefix(err, "%s, and the key slots cannot be read",
			     key->passphrase ? "wrong passphrase for " GCFS_CONF_FILE
					     : "cannot check the key");
		return r;
	}
	r = gcfs_slots_unwrap(&slots, key->bytes, key->passphrase, g->scrypt_memory, ret_master, &slot, err);
	if (r == 0)
		snprintf(g->slot, sizeof(g->slot), "%s", slot->name);
	if (r != -EKEYREJECTED || key->passphrase)
		return r;
	/* An empty volume takes any master key, but not one that another is known to be. */
	if (is_master_of(&slots, key->bytes))
		return -ENOKEY;
	return error_set(err, -EKEYREJECTED, EXIT_STATUS_WRONG_KEY,
			 "wrong key: it is neither in a key slot nor the master key");
}

/* ---- the lock ---- */

/* The lock is the file's, and the file is replaced when its passphrase is changed: who waited for it may have
 * the lock of a file that is no longer there. */
static int lock_config(int root_fd, int *ret_fd, struct error *err)
{
	struct timespec wait = {.tv_nsec = LOCK_WAIT_NS};
	struct stat locked, named;
	int r;

	for (int i = 0; i < LOCK_TRIES; i++) {
		autofd int fd = store_open(root_fd, GCFS_CONF_FILE, O_RDONLY | O_NONBLOCK, 0);

		if (fd < 0)
			return 0; /* format_open() says it better */
		r = store_stat_fd(fd, &locked);
		if (r < 0 || !S_ISREG(locked.st_mode))
			return 0;
		r = store_lock(fd);
		if (r < 0 && r != -EAGAIN)
			return error_errno(err, r, EXIT_STATUS_FAILED, "cannot lock " GCFS_CONF_FILE);
		if (r == -EAGAIN) {
			nanosleep(&wait, NULL);
			continue;
		}
		if (store_stat(root_fd, GCFS_CONF_FILE, &named) == 0 && named.st_ino == locked.st_ino &&
		    named.st_dev == locked.st_dev) {
			*ret_fd = steal_fd(&fd);
			return 0;
		}
	}
	return error_set(err, -EBUSY, EXIT_STATUS_BUSY, "somebody else holds the lock on " GCFS_CONF_FILE);
}

int volume_keys_open(int root_fd, uint64_t scrypt_memory, bool write, struct volume_keys **ret,
		     struct error *err)
{
	struct format_params params = {
		.kind = CONFIG_FORMAT_GOCRYPTFS, .root_fd = root_fd, .scrypt_memory = scrypt_memory};
	struct volume_keys *keys = calloc(1, sizeof(*keys));
	int r = 0;

	if (!keys)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot open the volume");
	keys->root_fd = root_fd;
	keys->lock_fd = -1;
	if (write)
		r = lock_config(root_fd, &keys->lock_fd, err);
	if (r == 0)
		r = format_open(&params, &keys->format, err);
	if (r < 0) {
		volume_keys_free(keys);
		return r;
	}
	*ret = keys;
	return 0;
}

void volume_keys_free(struct volume_keys *keys)
{
	if (!keys)
		return;
	format_free(keys->format);
	cleanup_close(&keys->lock_fd);
	free(keys);
}

int volume_keys_slots(struct volume_keys *keys, struct gcfs_slots *ret, struct error *err)
{
	return volume_keys_slots_of(keys->format, ret, err);
}

int volume_keys_slots_of(const struct format *volume, struct gcfs_slots *ret, struct error *err)
{
	const struct gocryptfs *g = gocryptfs_of(volume);
	/* With plain names a file of that name is somebody's own. */
	int r = gocryptfs_plain_names(g) ? -ENOENT : read_slots(g->root_fd, ret, err);

	if (r == -ENOENT)
		*ret = (struct gcfs_slots){0};
	return r == -ENOENT ? 0 : r;
}

/* ---- the way in ---- */

int volume_keys_unlock(struct volume_keys *keys, struct key *key, struct error *err)
{
	autosecret struct secret *digits = NULL;
	int r;

	keys->passphrase = key->passphrase;
	if (key->passphrase && secret_size(key->bytes) == 2 * GCFS_MASTER_KEY_SIZE &&
	    secret_from_hex(key->bytes, &digits) < 0)
		digits = NULL;
	r = format_unlock(keys->format, key, err);
	if (r < 0)
		return r;
	keys->digits = digits && secret_equal(digits, volume_of(keys)->master);
	return 0;
}

enum volume_keys_way volume_keys_way(const struct volume_keys *keys, const char **ret_slot)
{
	const struct gocryptfs *g = volume_of(keys);

	*ret_slot = g->slot;
	if (g->slot[0])
		return VOLUME_KEYS_SLOT;
	return keys->passphrase ? VOLUME_KEYS_CONFIG : VOLUME_KEYS_MASTER;
}

const char *volume_keys_identifier(const struct volume_keys *keys)
{
	return format_key_identifier(keys->format);
}

bool volume_keys_raw_master(const struct volume_keys *keys)
{
	return keys->digits || (!keys->passphrase && !volume_of(keys)->slot[0]);
}

/* ---- writing ---- */

static int check_writable(const struct volume_keys *keys, struct error *err)
{
	if (keys->lock_fd < 0 || !volume_of(keys)->master)
		return error_set(err, -EPERM, EXIT_STATUS_FAILED, "the volume's keys are not unlocked");
	return 0;
}

/* What a crash left. A directory may have been put there on purpose. */
static int remove_leftover(int root_fd, const char *name, struct error *err)
{
	int r = store_unlink(root_fd, name);

	if (r == -EISDIR || r == -EPERM)
		r = store_rmdir(root_fd, name);
	if (r < 0 && r != -ENOENT)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot remove the leftover \"%s\"", name);
	return 0;
}

/* The new file belongs to whom the config belongs, whoever runs the command. */
static int give_to_owner(const struct volume_keys *keys, int fd)
{
	struct stat st, own;
	int r = store_stat_fd(keys->lock_fd, &st);

	if (r == 0)
		r = store_stat_fd(fd, &own);
	if (r == 0 && (own.st_uid != st.st_uid || own.st_gid != st.st_gid))
		r = store_chown(fd, st.st_uid, st.st_gid);
	if (r == -EPERM && own.st_uid == st.st_uid)
		r = 0; /* a group that the owner is not in any more */
	if (r == 0)
		r = store_chmod(fd, st.st_mode & 0777);
	return r == 0 ? store_fsync(fd, false) : r;
}

static int read_back(int root_fd, const char *name, const char *text, size_t size)
{
	autofree char *back = malloc(size + 1);
	ssize_t n;

	if (!back)
		return -ENOMEM;
	n = store_read_file(root_fd, name, back, size + 1);
	if (n < 0)
		return (int)n;
	return (size_t)n == size && memcmp(back, text, size) == 0 ? 0 : -EIO;
}

/* A new file under a name for the time being, on disk and read back; *ret_fd has the lock of it. */
static int write_tmp(const struct volume_keys *keys, const char *name, const char *text, size_t size,
		     int *ret_fd, struct error *err)
{
	autofd int fd = -1;
	int r = remove_leftover(keys->root_fd, name, err);

	if (r < 0)
		return r;
	r = store_write_file(keys->root_fd, name, text, size, 0400, false);
	if (r == 0)
		r = fd = store_open(keys->root_fd, name, O_RDONLY | O_NONBLOCK, 0);
	if (r >= 0)
		r = store_lock(fd);
	if (r == 0)
		r = give_to_owner(keys, fd);
	if (r == 0)
		r = read_back(keys->root_fd, name, text, size);
	if (r < 0) {
		store_unlink(keys->root_fd, name);
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot write \"%s\"", name);
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

/* ---- the passphrase of gocryptfs.conf ---- */

/* The text as a mount will read it opens with the new passphrase, and is of the same volume. */
static int check_config(const struct gocryptfs *g, const char *text, size_t size,
			const struct secret *passphrase, struct error *err)
{
	autosecret struct secret *master = NULL;
	struct gcfs_config config;
	int r = gcfs_config_parse(text, size, &config, err);

	if (r == 0)
		r = gcfs_config_unwrap(&config, passphrase, g->scrypt_memory, &master, err);
	if (r < 0)
		return error_prefix(err, "the new config, read back");
	if (!secret_equal(master, g->master) || config.flags != g->config.flags ||
	    config.long_name_max != g->config.long_name_max)
		return error_set(err, -EIO, EXIT_STATUS_FAILED,
				 "the new config, read back, is not the volume's");
	return 0;
}

/*
 * The two files change places: at no moment is there none, and the old one is kept until the new one was read
 * under its own name. File systems without RENAME_EXCHANGE replace the file, which is atomic too: the new one
 * was read back under its other name.
 */
static int exchange_config(const struct volume_keys *keys, const char *text, size_t size, struct error *err)
{
	int root = keys->root_fd, r = store_rename(root, CONF_TMP, root, GCFS_CONF_FILE, RENAME_EXCHANGE);
	bool kept = r == 0;

	if (r == -EINVAL || r == -ENOSYS || r == -EOPNOTSUPP)
		r = store_rename(root, CONF_TMP, root, GCFS_CONF_FILE, 0);
	if (r < 0) {
		store_unlink(root, CONF_TMP);
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot replace " GCFS_CONF_FILE);
	}
	r = store_fsync(root, false);
	if (r == 0)
		r = read_back(root, GCFS_CONF_FILE, text, size);
	if (r < 0) {
		if (kept && store_rename(root, CONF_TMP, root, GCFS_CONF_FILE, RENAME_EXCHANGE) == 0)
			store_unlink(root, CONF_TMP);
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot read the new " GCFS_CONF_FILE);
	}
	if (!kept)
		return 0;
	r = store_unlink(root, CONF_TMP);
	if (r == 0)
		r = store_fsync(root, false);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED,
				   "the passphrase is changed, but " CONF_TMP
				   " still opens with the old one and cannot be removed");
	return 0;
}

static int check_change(const struct volume_keys *keys, const struct key *key, struct error *err)
{
	if (!key->passphrase)
		return error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED,
				 GCFS_CONF_FILE
				 " takes a passphrase only; `ckrfs key add` adds a key of %d bytes, and "
				 "the master key itself stays what it is",
				 GCFS_SLOT_KEY);
	if (volume_of(keys)->config.flags & GCFS_FIDO2)
		return error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED,
				 "the volume opens with a FIDO2 token: it has no passphrase to change");
	return check_writable(keys, err);
}

int volume_keys_change(struct volume_keys *keys, const struct key *key, unsigned log_n, struct error *err)
{
	struct gocryptfs *g = volume_of(keys);
	struct gcfs_config config = g->config;
	autofree char *text = NULL;
	autofd int fd = -1;
	size_t size = 0;
	int r = check_change(keys, key, err);

	if (r == 0)
		r = gcfs_config_rewrap(&config, key->bytes, g->master, log_n, g->scrypt_memory, err);
	if (r < 0)
		return r;
	r = gcfs_config_format(&config, &text, &size);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot write " GCFS_CONF_FILE);
	r = write_tmp(keys, CONF_TMP, text, size, &fd, err);
	if (r < 0)
		return r;
	/* What was read back is text, byte for byte. */
	r = check_config(g, text, size, key->bytes, err);
	if (r < 0) {
		store_unlink(keys->root_fd, CONF_TMP);
		return r;
	}
	r = exchange_config(keys, text, size, err);
	if (r == 0)
		g->config = config;
	return r;
}

/* ---- slots ---- */

/* The slots of this volume, to be changed. */
static int own_slots(struct volume_keys *keys, struct gcfs_slots *ret, struct error *err)
{
	const struct gocryptfs *g = volume_of(keys);
	int r = check_writable(keys, err);

	if (r == 0 && g->config.flags & GCFS_PLAINTEXT_NAMES)
		r = error_set(
			err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED,
			"a volume with plain names has one key: there is no name for a file of keys that "
			"gocryptfs would not show");
	if (r == 0)
		r = volume_keys_slots(keys, ret, err);
	if (r < 0)
		return r;
	if (ret->volume[0] && strcmp(ret->volume, g->identifier) != 0)
		return error_set(err, -EINVAL, EXIT_STATUS_FAILED,
				 GCFS_SLOTS_FILE " belongs to another master key: remove it");
	snprintf(ret->volume, sizeof(ret->volume), "%s", g->identifier);
	return 0;
}

static int write_slots(const struct volume_keys *keys, const struct gcfs_slots *slots, struct error *err)
{
	autofree char *text = NULL;
	autofd int fd = -1;
	struct gcfs_slots back;
	size_t size = 0;
	int root = keys->root_fd, r = gcfs_slots_format(slots, &text, &size);

	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot write " GCFS_SLOTS_FILE);
	r = gcfs_slots_parse(text, size, &back, err);
	if (r == 0)
		r = write_tmp(keys, GCFS_SLOTS_TMP, text, size, &fd, err);
	if (r < 0)
		return r;
	r = store_rename(root, GCFS_SLOTS_TMP, root, GCFS_SLOTS_FILE, 0);
	if (r < 0)
		store_unlink(root, GCFS_SLOTS_TMP);
	else
		r = store_fsync(root, false);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot replace " GCFS_SLOTS_FILE) : 0;
}

/* The slot as it will be written opens with the key: one more stretching, and nobody is locked out later. */
static int check_slot(const struct gcfs_slots *slots, const struct key *key, const struct gocryptfs *g,
		      struct error *err)
{
	autosecret struct secret *master = NULL;
	const struct gcfs_slot *slot;
	struct gcfs_slots one = *slots;
	int r;

	one.slots[0] = slots->slots[slots->n - 1];
	one.n = 1;
	r = gcfs_slots_unwrap(&one, key->bytes, key->passphrase, g->scrypt_memory, &master, &slot, err);
	if (r == 0 && !secret_equal(master, g->master))
		r = error_set(err, -EIO, EXIT_STATUS_FAILED, "the new slot holds another key");
	return r;
}

int volume_keys_add(struct volume_keys *keys, const char *name, const struct key *key, unsigned log_n,
		    struct error *err)
{
	const struct gocryptfs *g = volume_of(keys);
	struct gcfs_slots slots;
	int r = own_slots(keys, &slots, err);

	if (r == 0)
		r = gcfs_slots_add(&slots, name, key->bytes, key->passphrase, log_n ? log_n : DEFAULT_LOG_N,
				   (int64_t)time(NULL), g->master, g->scrypt_memory, err);
	if (r == 0)
		r = check_slot(&slots, key, g, err);
	return r < 0 ? r : write_slots(keys, &slots, err);
}

int volume_keys_remove(struct volume_keys *keys, const char *name, struct error *err)
{
	struct gcfs_slots slots;
	int r = own_slots(keys, &slots, err);

	if (r == 0)
		r = gcfs_slots_remove(&slots, name, err);
	return r < 0 ? r : write_slots(keys, &slots, err);
}
