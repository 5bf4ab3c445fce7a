/* SPDX-License-Identifier: MIT */
/* What a lower implements: included by lower*.c only. */
#ifndef CKRFS_LOWER_IMPL_H
#define CKRFS_LOWER_IMPL_H

#include "lower.h"

struct lower {
	const struct lower_ops *ops;
	struct lower_params params; /* strings are the two below */
	char *source, *subtree;
	int root_fd;
	int lock_fd;  /* holds the volume's lock as long as it is open */
	int mount_fd; /* of what is mounted here alone (a block device, AFS), else -1 */
	bool private_mount;
	void *state; /* the lower's own */
};

struct lower_ops {
	const char *name;
	int (*lock_alone)(struct lower *l);
	/* Fills root_fd, lock_fd and private_mount; what it opened before a failure, lower_close() closes. */
	int (*open)(struct lower *l, struct error *err);
	/* NULL, all of them: it needs no key. */
	const char *(*key_identifier)(const struct lower *l);
	int (*unlock)(struct lower *l, const struct key *key, struct error *err);
	int (*lock)(struct lower *l, uint64_t timeout_ms, unsigned *ret_left, struct error *err);
	void (*linger)(struct lower *l);
	int (*take)(struct lower *l, struct error *err);
	/* NULL: its key is not exchanged while it is used. */
	int (*renewed)(struct lower *l, bool good);
	uint64_t (*key_left_ms)(const struct lower *l);
	const char *(*cell)(const struct lower *l);
	/* NULL: nothing. */
	void (*unmount)(struct lower *l);
	int (*clean)(const struct lower_params *params, uint64_t timeout_ms, unsigned *ret_left);
	/* Frees the state; root_fd and lock_fd are closed already. */
	void (*close)(struct lower *l);
};

extern const struct lower_ops lower_afs_ops, lower_directory_ops, lower_fscrypt_ops;

/* ---- lower_directory.c ---- */

/* The source as an fd that can be read, no lock taken. */
int lower_directory_find(const struct lower *l, struct error *err);
/* Takes fd over: the volume's lock on it, and the root. */
int lower_directory_adopt(struct lower *l, int fd, struct error *err);
int lower_directory_open(struct lower *l, struct error *err);
int lower_directory_lock_alone(struct lower *l);

/* ---- lower_device.c ---- */

/* Mounts the block device, without giving it a place in any namespace: an fd of its root. */
int lower_device_mount(const char *device, bool read_only, struct error *err);

#endif
