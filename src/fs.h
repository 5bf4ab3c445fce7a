/* SPDX-License-Identifier: MIT */
/*
 * The FUSE server: requests of the kernel -> format -> lower. Nothing here knows of key sources, sockets or
 * configuration files. fs_new() and fs_free(): one thread. The threads that serve are made by fs_serve().
 */
#ifndef CKRFS_FS_H
#define CKRFS_FS_H

#include "error.h"
#include "format.h"
#include "idmap.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Lives in memory that keeper and server share; the server counts, the keeper reads. */
struct fs_stats {
	_Atomic uint64_t requests;
	_Atomic uint64_t read_bytes;    /* plaintext bytes handed to the kernel */
	_Atomic uint64_t written_bytes; /* plaintext bytes taken from the kernel */
	_Atomic uint64_t errors;        /* requests answered with EIO */
	_Atomic uint64_t damages;       /* places found damaged */
};

struct fs_params {
	int fuse_fd;            /* /dev/fuse, mounted already; goes over to the fs */
	int root_fd;            /* of the lower; borrowed */
	struct format *format;  /* started; borrowed */
	struct fs_stats *stats; /* borrowed */
	unsigned threads;       /* at least 1 */
	int latency_fd;         /* of cpu_latency.h, -1: none; borrowed */
	bool writeback;
	bool shared;                           /* others change the volume too: caches are not trusted */
	bool act_as_caller;                    /* new objects belong to the caller (root with allow_other) */
	const struct idmap *uid_map, *gid_map; /* NULL: ids are those of the lower; borrowed */
	bool one_owner;                        /* everything belongs to owner_uid and owner_gid */
	uid_t owner_uid;
	gid_t owner_gid;
	bool idmapped; /* the mount may be idmapped by others, mount_setattr(2) */
	uint64_t attr_timeout_ms, entry_timeout_ms, negative_timeout_ms;
	void (*ready)(void *ctx); /* called once, when the kernel's INIT was answered; any thread */
	void *ready_ctx;
};

struct fs;

int fs_new(const struct fs_params *params, struct fs **ret, struct error *err);

/* Are inodes found by handle? The lower may have none, or it may not be allowed. */
bool fs_has_handles(const struct fs *fs);

/* Serves until the file system is unmounted (0), fs_stop() (0), or the device fails (negative errno). */
int fs_serve(struct fs *fs);

/* Ends fs_serve(): any thread, not in a signal handler. Requests in flight are answered. */
void fs_stop(struct fs *fs);

void fs_free(struct fs *fs);

#endif
