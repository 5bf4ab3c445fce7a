/* SPDX-License-Identifier: MIT */
/* What the files of a check share: check.c (life, queue, findings), check_walk.c (directories and names),
 * check_file.c (contents, links, attributes). */
#ifndef CKRFS_CHECK_IMPL_H
#define CKRFS_CHECK_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "check.h"
#include "format_gocryptfs.h"

enum { CHECK_CHUNK = 64 }; /* blocks read at once: one bit each of a uint64_t */
enum { CHECK_CHUNK_ROOM = CHECK_CHUNK * (GCFS_BLOCK + GCFS_OVERHEAD_MAX) };

/* Names of one directory that did not decrypt, before it is known whether its IV is to blame. */
enum { CHECK_SUSPECTS_MAX = 64 };

/* One directory. Its jobs and those of everything below it hold references; the last one frees it. */
struct check_node {
	struct check_node *parent; /* NULL: the volume's root */
	_Atomic unsigned refs;
	int fd;            /* -1: not kept open, see check_node_open() */
	char *disk, *name; /* last component; name NULL: not known */
	bool iv_known;
	uint8_t iv[GCFS_IV_SIZE];
	_Atomic uint64_t good_names;
	/* guarded by check.lock */
	uint64_t bad_names;
	bool iv_wrong;  /* decided: bad names are no findings */
	bool iv_judged; /* decided: they are */
	char *suspects[CHECK_SUSPECTS_MAX];
	unsigned n_suspects;
};

struct check_file;

struct check_job {
	struct check_job *next;
	struct check_node *node; /* a reference; NULL: file */
	int64_t position;        /* in the directory; 0: its beginning */
	struct check_file *file;
};

/* What one thread works with. */
struct check_worker {
	struct check *c;
	uint8_t *cipher, *again, *plain; /* CHECK_CHUNK_ROOM each */
	char *entries;                   /* room for getdents64(2) */
};

struct check {
	struct check_params params;
	const struct gocryptfs *volume;
	size_t overhead, block; /* of a block on disk */
	unsigned threads;
	_Atomic bool stop;
	_Atomic int failed; /* negative errno */
	_Atomic unsigned open_dirs, open_dirs_max;
	_Atomic uint64_t files, directories, links, others, bytes, damages, notes;

	pthread_mutex_t lock; /* guards the queue and the suspects of nodes */
	pthread_cond_t wake;
	struct check_job *jobs; /* last in, first out: so the queue stays short */
	unsigned busy;
	pthread_mutex_t found_lock; /* one finding at a time */
};

static inline bool check_stopped(const struct check *c)
{
	return atomic_load_explicit(&c->stop, memory_order_relaxed);
}

static inline bool check_has(const struct check *c, unsigned flag)
{
	return c->volume->config.flags & flag;
}

/* Puts a job on the queue, which takes it; NULL (no memory for it) ends the check. */
void check_push(struct check *c, struct check_job *job);

/* The check cannot go on. */
void check_fail(struct check *c, int code);

/* Lets time pass between two looks at something that may be changing; false: there is no such doubt, or the
 * check was stopped. */
bool check_pause(struct check *c);

/* Reports an entry of a directory; disk NULL: the directory itself. f needs no path and no name; name: of the
 * entry, NULL: not known. */
void check_found(struct check *c, const struct check_node *dir, const char *disk, const char *name,
		 struct finding *f);

/* The same for what could not be read. What has gone meanwhile is nothing to report. */
void check_unreadable(struct check *c, const struct check_node *dir, const char *disk, const char *name,
		      int code);

struct check_node *check_node_ref(struct check_node *node);
void check_node_unref(struct check *c, struct check_node *node);

/* check_walk.c */
int check_walk_begin(struct check *c);
void check_walk_job(struct check_worker *w, struct check_job *job);
/* The names of a directory have all been seen. */
void check_walk_judge(struct check *c, struct check_node *node);

/* check_file.c: an entry of dir, name NULL: not known. */
void check_regular(struct check_worker *w, struct check_node *dir, int dir_fd, const char *disk,
		   const char *name);
void check_symlink(struct check_worker *w, const struct check_node *dir, int dir_fd, const char *disk,
		   const char *name);
/* fd: of the entry; may be O_PATH. */
void check_xattrs(struct check_worker *w, const struct check_node *dir, int fd, const char *disk,
		  const char *name);
/* Helps with a large file; drops the job's share of it. */
void check_file_job(struct check_worker *w, struct check_file *file);

#endif
