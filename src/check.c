/* SPDX-License-Identifier: MIT */
/* The life of a check, its threads and their queue, and how findings get their paths. */
#include "check_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "config.h"
#include "util.h"

enum { THREADS_MAX = 64, ENTRIES_ROOM = 32768, PAUSE_MS = 100, PAUSE_STEP_MS = 10, OPEN_DIRS_MAX = 4096 };

/* ---- findings ---- */

/* Puts one component in front of the path at *at. Decrypted, what has no name stands in <>. */
static void put_component(char **at, const char *disk, const char *name, bool decrypted, bool *complete)
{
	const char *word = decrypted && name ? name : disk;
	bool unknown = decrypted && !name;
	size_t size = strlen(word);

	if (**at)
		*--*at = '/';
	if (unknown)
		*--*at = '>';
	*at -= size;
	memcpy(*at, word, size);
	if (unknown)
		*--*at = '<';
	*complete &= !unknown;
}

/* As on disk or decrypted; malloc'ed. */
static char *path_of(const struct check_node *dir, const char *disk, const char *name, bool decrypted,
		     bool *ret_complete)
{
	const size_t around = strlen("<>/");
	size_t size = 2;
	char *path, *at;

	for (const struct check_node *n = dir; n->parent; n = n->parent)
		size += max_u64(strlen(n->disk), n->name ? strlen(n->name) : 0) + around;
	if (disk)
		size += max_u64(strlen(disk), name ? strlen(name) : 0) + around;
	path = malloc(size);
	if (!path)
		return NULL;
	/* From the end, as each node knows only what is above it. */
	at = path + size - 1;
	*at = '\0';
	*ret_complete = true;
	if (disk)
		put_component(&at, disk, name, decrypted, ret_complete);
	for (const struct check_node *n = dir; n->parent; n = n->parent)
		put_component(&at, n->disk, n->name, decrypted, ret_complete);
	if (!*at)
		*--at = '.';
	memmove(path, at, strlen(at) + 1);
	return path;
}

void check_found(struct check *c, const struct check_node *dir, const char *disk, const char *name,
		 struct finding *f)
{
	autofree char *path = NULL, *plain = NULL;
	bool unused, complete;

	path = path_of(dir, disk, NULL, false, &unused);
	plain = path_of(dir, disk, name, true, &complete);
	if (!path || !plain) {
		check_fail(c, -ENOMEM);
		return;
	}
	f->path = path;
	f->name = plain;
	f->name_complete = complete;
	atomic_fetch_add(finding_is_note(f) ? &c->notes : &c->damages, 1);
	pthread_mutex_lock(&c->found_lock);
	c->params.found(c->params.ctx, f);
	pthread_mutex_unlock(&c->found_lock);
}

/* Removed, or something else is in its place, since the directory was read. */
static bool is_gone(int code)
{
	return code == -ENOENT || code == -ESTALE || code == -ELOOP || code == -ENOTDIR || code == -ENXIO;
}

void check_unreadable(struct check *c, const struct check_node *dir, const char *disk, const char *name,
		      int code)
{
	struct finding f = {.kind = FINDING_UNREADABLE, .code = code};

	if (code == -ENOMEM)
		check_fail(c, code);
	else if (!is_gone(code))
		check_found(c, dir, disk, name, &f);
}

bool check_pause(struct check *c)
{
	struct timespec step = {.tv_nsec = PAUSE_STEP_MS * 1000000};

	if (!c->params.live)
		return false;
	for (int ms = 0; ms < PAUSE_MS && !check_stopped(c); ms += PAUSE_STEP_MS)
		nanosleep(&step, NULL);
	return !check_stopped(c);
}

/* ---- nodes ---- */

struct check_node *check_node_ref(struct check_node *node)
{
	atomic_fetch_add(&node->refs, 1);
	return node;
}

void check_node_unref(struct check *c, struct check_node *node)
{
	/* Not by recursion: the tree may be deeper than the stack. */
	while (node && atomic_fetch_sub(&node->refs, 1) == 1) {
		struct check_node *parent = node->parent;

		check_walk_judge(c, node);
		if (node->fd >= 0) {
			close(node->fd);
			atomic_fetch_sub(&c->open_dirs, 1);
		}
		for (unsigned i = 0; i < node->n_suspects; i++)
			free(node->suspects[i]);
		free(node->disk);
		free(node->name);
		free(node);
		node = parent;
	}
}

/* ---- the queue ---- */

void check_fail(struct check *c, int code)
{
	int none = 0;

	atomic_compare_exchange_strong(&c->failed, &none, code);
	check_stop(c);
}

void check_push(struct check *c, struct check_job *job)
{
	if (!job) {
		check_fail(c, -ENOMEM);
		return;
	}
	pthread_mutex_lock(&c->lock);
	job->next = c->jobs;
	c->jobs = job;
	pthread_cond_signal(&c->wake);
	pthread_mutex_unlock(&c->lock);
}

/* The next job, or NULL when all is done. Until the worker comes again it is busy: it may add jobs. */
static struct check_job *next_job(struct check *c, bool first)
{
	struct check_job *job;

	pthread_mutex_lock(&c->lock);
	if (!first && --c->busy == 0)
		pthread_cond_broadcast(&c->wake);
	while (!c->jobs && c->busy)
		pthread_cond_wait(&c->wake, &c->lock);
	job = c->jobs;
	if (job) {
		c->jobs = job->next;
		c->busy++;
	}
	pthread_mutex_unlock(&c->lock);
	return job;
}

/* Once stopped, jobs do nothing but end. */
static void run_job(struct check_worker *w, struct check_job *job)
{
	if (job->file) {
		check_file_job(w, job->file);
	} else {
		if (!check_stopped(w->c))
			check_walk_job(w, job);
		check_node_unref(w->c, job->node);
	}
	free(job);
}

static void worker_free(struct check_worker *w)
{
	free(w->cipher);
	free(w->again);
	free(w->plain);
	free(w->entries);
}

static void *work(void *arg)
{
	struct check_worker w = {.c = arg};
	struct check_job *job;

	w.cipher = malloc(CHECK_CHUNK_ROOM);
	w.again = malloc(CHECK_CHUNK_ROOM);
	w.plain = malloc(CHECK_CHUNK_ROOM);
	w.entries = malloc(ENTRIES_ROOM);
	if (!w.cipher || !w.again || !w.plain || !w.entries)
		check_fail(w.c, -ENOMEM);
	for (bool first = true; (job = next_job(w.c, first)); first = false)
		run_job(&w, job);
	worker_free(&w);
	return NULL;
}

/* ---- life ---- */

static unsigned thread_count(unsigned wanted)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (!wanted)
		wanted = cpus > 0 ? (unsigned)cpus : 1;
	return (unsigned)min_u64(wanted, THREADS_MAX);
}

/* Directories that may stay open: most of what the process may have, less what files take. */
static unsigned open_dirs_max(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
		return 0;
	return (unsigned)min_u64(OPEN_DIRS_MAX, lim.rlim_cur / 4);
}

int check_new(const struct check_params *params, struct check **ret, struct error *err)
{
	struct check *c;

	if (strcmp(format_name(params->format), "gocryptfs") != 0)
		return error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED,
				 "there is nothing to check in the format \"%s\"",
				 format_name(params->format));
	c = calloc(1, sizeof(*c));
	if (!c)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot check the volume");
	c->params = *params;
	c->volume = gocryptfs_of(params->format);
	c->overhead = gcfs_overhead(c->volume->content);
	c->block = GCFS_BLOCK + c->overhead;
	c->threads = thread_count(params->threads);
	c->open_dirs_max = open_dirs_max();
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->found_lock, NULL);
	pthread_cond_init(&c->wake, NULL);
	*ret = c;
	return 0;
}

int check_run(struct check *c, struct error *err)
{
	pthread_t threads[THREADS_MAX];
	unsigned n = 0;
	int r = check_walk_begin(c);

	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot read the volume");
	while (n + 1 < c->threads && pthread_create(&threads[n], NULL, work, c) == 0)
		n++;
	work(c);
	while (n > 0)
		pthread_join(threads[--n], NULL);
	r = atomic_load(&c->failed);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot check the volume to the end") : 0;
}

void check_stop(struct check *c)
{
	atomic_store(&c->stop, true);
}

void check_summary(struct check *c, struct finding_summary *ret)
{
	*ret = (struct finding_summary){
		.files = atomic_load(&c->files),
		.directories = atomic_load(&c->directories),
		.links = atomic_load(&c->links),
		.others = atomic_load(&c->others),
		.bytes = atomic_load(&c->bytes),
		.damages = atomic_load(&c->damages),
		.notes = atomic_load(&c->notes),
		.complete = !check_stopped(c),
	};
}

void check_free(struct check *c)
{
	if (!c)
		return;
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->found_lock);
	pthread_cond_destroy(&c->wake);
	free(c);
}
