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
#include "latency.h"
#include "secret.h"
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
	struct latency latency;         /* of requests, from being read to being answered */
	_Atomic unsigned passthrough;   /* enum fs_passthrough */
	_Atomic int64_t lower_expires;  /* seconds since 1970, when the lower's key ends; 0: not known */
};

/* Do reads and writes go past the server, and why not? */
enum fs_passthrough {
	FS_PASSTHROUGH_OFF, /* not wanted */
	FS_PASSTHROUGH_ACTIVE,
	FS_PASSTHROUGH_FORMAT,    /* contents are not what is on disk */
	FS_PASSTHROUGH_LOWER,     /* not on such a file system */
	FS_PASSTHROUGH_KERNEL,    /* the kernel does not offer it */
	FS_PASSTHROUGH_PRIVILEGE, /* needs CAP_SYS_ADMIN */
};

struct fs_params {
	int fuse_fd;            /* /dev/fuse, mounted already; goes over to the fs */
	int root_fd;            /* of the lower; borrowed */
	struct format *format;  /* started; borrowed */
	struct fs_stats *stats; /* borrowed */
	unsigned threads;       /* at least 1 */
	int latency_fd;         /* of cpu_latency.h, -1: none; borrowed */
	bool writeback;
	bool passthrough;        /* where it can be had */
	bool passthrough_needed; /* fs_serve() ends with -EOPNOTSUPP without */
	bool shared;             /* others change the volume too: caches are not trusted */
	bool lower_let_go;       /* while it is locked nothing of the lower is kept open */
	bool lower_decides;      /* who may do what: not modes and owners */
	bool lower_remote;  /* what is closed is stored first; its key can end (fs_stats.lower_expires) */
	bool act_as_caller; /* new objects belong to the caller (root with allow_other) */
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

/*
 * Lock and unlock: one thread at a time, none that serves. A lock has two steps, between which the caller may
 * have the kernel write back what is dirty (syncfs(2)): from the first one on, that is all that is answered.
 *
 * fs_lock_begin(): refusal is the errno (ENOKEY, EIO) that is answered from now on. -ETIMEDOUT requests in
 * flight do not end, -EOPNOTSUPP (15) files are open by kernel passthrough. fs_lock_finish(): whatever could
 * not be written back in time is counted and lost; then the kernel has no plaintext, and the format no key.
 * -ETIMEDOUT as above. On failure all is served as before. On a locked fs they do nothing.
 */
struct fs_lock_report {
	uint64_t unflushed; /* cached writes that failed or were refused */
	bool timed_out;     /* there were more when the time was over */
};
int fs_lock_begin(struct fs *fs, int refusal, uint64_t timeout_ms, struct error *err);
int fs_lock_finish(struct fs *fs, uint64_t timeout_ms, struct fs_lock_report *ret, struct error *err);
/* key: of format_hand_over(). root_fd: of the lower, if nothing of it was kept open; borrowed. *ret_late:
 * cached writes that have come to nothing by the lock, in all. 12 as in format_restart(). */
int fs_unlock(struct fs *fs, const struct secret *key, int root_fd, uint64_t *ret_late, struct error *err);
/* The lower has another key: what is open is opened anew with it, and stored, while requests are served. 1
 * what could not be, and goes on with the old key. Like lock and unlock one thread at a time. */
int fs_renew(struct fs *fs, struct error *err);

#endif
