/* SPDX-License-Identifier: MIT */
/*
 * The threads that answer requests. For one client, one thread that stays hot is much faster than several
 * that take turns (each turn is a wake-up on another CPU); for many, more must help. So one thread reads and
 * answers; another is woken only
 *  - when requests keep waiting behind those that are read, or one waits behind a large one, or
 *  - by the watchdog, when nobody has come back to read for a millisecond: a slow disk, fsync(2), a large
 * write. A thread that finds nothing to do while another one reads goes to sleep again.
 *
 * While requests follow closely on each other, processors are kept from sleeping (cpu_latency.h) where the
 * mount may do that: the client has to be woken for each answer.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "cpu_latency.h"
#include "fs_impl.h"
#include "util.h"

enum {
	BACKLOG_FOR_HELP = 3,
	SPIN_NS = 30000, /* look for the next request so long ... */
	SOON_NS = 60000, /* ... after one has come within this time ... */
	EAGER = 3,       /* ... until it was in vain so often */
	STREAM = 32,     /* so many requests, each soon after the other, are a stream */
	WATCHDOG_NS = 1000000,
	WATCHDOG_IDLE_TICKS = 50,
	LATENCY_IDLE_TICKS = 3,
	WIPED_STACK = 65536,
	STOP_RETRY_NS = 5000000,
	WIPE_RETRY_NS = 200000,
	WAKE_SIGNAL = SIGUSR1
};

struct fs_loop {
	struct fs *fs;
	pthread_mutex_t lock; /* guards the members up to `result` */
	pthread_cond_t wake;  /* parked workers */
	pthread_cond_t watch; /* the watchdog */
	pthread_cond_t ended; /* fs_loop_run() */
	unsigned threads, started, running, parked, calls;
	unsigned unwiped; /* threads that have still to wipe */
	bool watching;    /* the watchdog is awake */
	int result;
	_Atomic bool stop;
	_Atomic unsigned wipes;    /* how often all were told to wipe */
	_Atomic unsigned reading;  /* threads that wait for a request, or are about to */
	_Atomic uint64_t answered; /* requests, for the watchdog to see progress */
	_Atomic bool armed;        /* copy of `watching` that workers read without the lock */
	_Atomic bool held;         /* processors are kept from sleeping */
	pthread_t *ids;
	pthread_t watchdog;
};

/* What a worker has to itself. */
static _Thread_local struct worker {
	struct fuse_buf request;
	bool has_request;
	struct format_io io;
	unsigned eager;   /* how often looking ahead may still fail */
	unsigned backlog; /* requests in a row that had another one waiting behind them */
	unsigned stream;  /* requests in a row that came soon */
	unsigned wipes;   /* how often it has wiped */
	uint64_t came_ns; /* when the request was read */
	uint64_t done_ns; /* when the last one was answered; 0: not lately */
} worker;

struct format_io *fs_loop_io(void)
{
	if (!worker.io.plain)
		worker.io.plain = malloc(FORMAT_IO_ROOM);
	if (!worker.io.disk)
		worker.io.disk = malloc(FORMAT_IO_ROOM);
	return worker.io.plain && worker.io.disk ? &worker.io : NULL;
}

const struct fuse_buf *fs_loop_request(void)
{
	return worker.has_request ? &worker.request : NULL;
}

static void worker_free(void)
{
	free_wiped(worker.request.mem);
	free_wiped(worker.io.plain);
	free(worker.io.disk);
	memset(&worker, 0, sizeof(worker));
}

/* What calls have left behind on the stack: names, targets of links. */
static void __attribute__((noinline)) wipe_stack(void)
{
	char below[WIPED_STACK];

	explicit_bzero(below, sizeof(below));
}

/* Only the thread itself may: the kernel writes into its buffer at any time. */
static void worker_wipe(struct fs_loop *loop)
{
	unsigned wipes = atomic_load(&loop->wipes);

	if (worker.wipes == wipes)
		return;
	worker.wipes = wipes;
	free_wiped(steal_ptr(&worker.request.mem));
	if (worker.io.plain)
		explicit_bzero(worker.io.plain, FORMAT_IO_ROOM);
	wipe_stack();
	pthread_mutex_lock(&loop->lock);
	loop->unwiped--;
	pthread_mutex_unlock(&loop->lock);
}

static bool is_waiting(struct fs_loop *loop)
{
	struct pollfd p = {.fd = fuse_session_fd(loop->fs->session), .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

bool fs_loop_is_asked(struct fs_loop *loop)
{
	return is_waiting(loop);
}

/* Calls one parked worker, if there is one. */
static void call_worker(struct fs_loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	if (loop->parked > loop->calls) {
		loop->calls++;
		pthread_cond_signal(&loop->wake);
	}
	pthread_mutex_unlock(&loop->lock);
}

static void call_watchdog(struct fs_loop *loop)
{
	if (atomic_load_explicit(&loop->armed, memory_order_relaxed))
		return;
	pthread_mutex_lock(&loop->lock);
	loop->watching = true;
	atomic_store_explicit(&loop->armed, true, memory_order_relaxed);
	pthread_cond_signal(&loop->watch);
	pthread_mutex_unlock(&loop->lock);
}

/* Sleeps until called. */
static void park(struct fs_loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	loop->parked++;
	while (!loop->calls && !atomic_load(&loop->stop) && worker.wipes == atomic_load(&loop->wipes))
		pthread_cond_wait(&loop->wake, &loop->lock);
	if (loop->calls)
		loop->calls--;
	loop->parked--;
	pthread_mutex_unlock(&loop->lock);
}

static void loop_end(struct fs_loop *loop, int result)
{
	pthread_mutex_lock(&loop->lock);
	if (!atomic_exchange(&loop->stop, true))
		loop->result = result;
	pthread_cond_broadcast(&loop->wake);
	pthread_cond_signal(&loop->watch);
	pthread_cond_signal(&loop->ended);
	pthread_mutex_unlock(&loop->lock);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/*
 * Looks for the next request for a moment before sleeping. Being woken costs a client who asks one thing
 * after the other more than the answer, most of all in a virtual machine. Only as long as it succeeds: after
 * a failure it is tried again when a request has come that soon by itself.
 */
static void look_ahead(struct fs_loop *loop)
{
	uint64_t start;

	if (!worker.eager)
		return;
	start = worker.done_ns ? worker.done_ns : now_ns();
	do {
		if (is_waiting(loop))
			return;
	} while (now_ns() - start < SPIN_NS);
	worker.eager--;
}

static void latency_hold(struct fs_loop *loop)
{
	if (loop->fs->p.latency_fd < 0 || atomic_load_explicit(&loop->held, memory_order_relaxed))
		return;
	if (!atomic_exchange(&loop->held, true))
		cpu_latency_hold(loop->fs->p.latency_fd);
}

/* By the watchdog, which runs as long as requests come. */
static void latency_release(struct fs_loop *loop)
{
	if (atomic_load(&loop->held)) {
		cpu_latency_release(loop->fs->p.latency_fd);
		atomic_store(&loop->held, false);
	}
}

/* A request has come after waiting so long for it. */
static void take_pace(struct fs_loop *loop, uint64_t waited_ns)
{
	if (waited_ns >= SOON_NS) {
		worker.stream = 0;
		return;
	}
	worker.eager = EAGER;
	if (++worker.stream >= STREAM)
		latency_hold(loop);
}

/* Reads one request: 1, 0 try again, or the loop has ended (negative). */
static int receive(struct fs_loop *loop)
{
	uint64_t start;
	int n;

	atomic_fetch_add(&loop->reading, 1);
	look_ahead(loop);
	worker.done_ns = 0;
	start = now_ns();
	n = fuse_session_receive_buf(loop->fs->session, &worker.request);
	atomic_fetch_sub(&loop->reading, 1);
	worker.came_ns = now_ns();
	take_pace(loop, worker.came_ns - start);
	if (n > 0)
		return 1;
	if (n == -EINTR || n == -EAGAIN)
		return 0;
	/* 0 and -ENODEV: unmounted. */
	loop_end(loop, n == -ENODEV ? 0 : n);
	return -ENODEV;
}

/*
 * Is help wanted while this thread answers? Not for a FORGET that trails a request: it will be read next
 * anyway, and a wake-up costs more than answering it.
 */
static bool wants_help(bool large, bool waiting)
{
	worker.backlog = waiting ? worker.backlog + 1 : 0;
	return waiting && (large || worker.backlog >= BACKLOG_FOR_HELP);
}

static void answer(struct fs_loop *loop)
{
	bool large = fs_transport_is_large(&worker.request);
	struct fs_passage passage;
	bool changes;

	if (wants_help(large, is_waiting(loop)))
		call_worker(loop);
	call_watchdog(loop);
	atomic_fetch_add_explicit(&loop->fs->p.stats->requests, 1, memory_order_relaxed);
	if (fs_lock_admit(loop->fs, &worker.request, &passage)) {
		changes = fs_change_begin(loop->fs, &worker.request);
		worker.has_request = true;
		fuse_session_process_buf(loop->fs->session, &worker.request);
		worker.has_request = false;
		if (changes)
			fs_change_end(loop->fs);
		fs_lock_passed(loop->fs, &passage);
	} else {
		/* A lock leaves no plaintext behind: neither does what comes after it. */
		explicit_bzero(worker.request.mem, worker.request.size);
	}
	worker.done_ns = now_ns();
	latency_add(&loop->fs->p.stats->latency, worker.done_ns - worker.came_ns);
	atomic_fetch_add_explicit(&loop->answered, 1, memory_order_relaxed);
}

/* Is there nothing to do that the thread which reads now would not do as well? */
static bool is_spare(struct fs_loop *loop)
{
	return atomic_load(&loop->reading) > 0 && !is_waiting(loop);
}

static void *worker_run(void *arg)
{
	struct fs_loop *loop = arg;
	unsigned wipes;

	while (!atomic_load(&loop->stop)) {
		worker_wipe(loop);
		if (is_spare(loop)) {
			park(loop);
			worker.done_ns = 0;
			continue;
		}
		if (receive(loop) > 0)
			answer(loop);
	}
	worker_wipe(loop);
	wipes = worker.wipes;
	worker_free();
	pthread_mutex_lock(&loop->lock);
	loop->running--;
	loop->unwiped -= wipes != atomic_load(&loop->wipes);
	pthread_mutex_unlock(&loop->lock);
	return NULL;
}

static void sleep_ns(long ns)
{
	struct timespec t = {.tv_nsec = ns};

	nanosleep(&t, NULL);
}

/* Waits until there is something to watch. */
static void watchdog_sleep(struct fs_loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	loop->watching = false;
	atomic_store_explicit(&loop->armed, false, memory_order_relaxed);
	while (!loop->watching && !atomic_load(&loop->stop))
		pthread_cond_wait(&loop->watch, &loop->lock);
	pthread_mutex_unlock(&loop->lock);
}

static void *watchdog_run(void *arg)
{
	struct fs_loop *loop = arg;
	uint64_t before = 0, now;
	int idle = 0;

	while (!atomic_load(&loop->stop)) {
		sleep_ns(WATCHDOG_NS);
		now = atomic_load_explicit(&loop->answered, memory_order_relaxed);
		if (atomic_load(&loop->reading) == 0) {
			if (now == before)
				call_worker(loop);
			idle = 0;
		} else if (now == before) {
			if (++idle == LATENCY_IDLE_TICKS)
				latency_release(loop);
			if (idle >= WATCHDOG_IDLE_TICKS) {
				watchdog_sleep(loop);
				idle = 0;
			}
		} else {
			idle = 0;
		}
		before = now;
	}
	return NULL;
}

/* A thread that waits in read(2) comes out of it by a signal; one that is just about to enter it needs
 * another one. */
static void ignore_signal(int signal) {}

static void drain_workers(struct fs_loop *loop)
{
	unsigned running;

	for (;;) {
		pthread_mutex_lock(&loop->lock);
		running = loop->running;
		pthread_cond_broadcast(&loop->wake);
		pthread_mutex_unlock(&loop->lock);
		if (!running)
			break;
		for (unsigned i = 0; i < loop->started; i++)
			pthread_kill(loop->ids[i], WAKE_SIGNAL);
		sleep_ns(STOP_RETRY_NS);
	}
	for (unsigned i = 0; i < loop->started; i++)
		pthread_join(loop->ids[i], NULL);
	pthread_join(loop->watchdog, NULL);
}

static int start_threads(struct fs_loop *loop)
{
	struct sigaction action = {.sa_handler = ignore_signal};
	int r;

	sigaction(WAKE_SIGNAL, &action, NULL);
	r = pthread_create(&loop->watchdog, NULL, watchdog_run, loop);
	if (r)
		return -r;
	while (loop->started < loop->threads) {
		pthread_mutex_lock(&loop->lock);
		loop->running++;
		pthread_mutex_unlock(&loop->lock);
		r = pthread_create(&loop->ids[loop->started], NULL, worker_run, loop);
		if (r) {
			pthread_mutex_lock(&loop->lock);
			loop->running--;
			pthread_mutex_unlock(&loop->lock);
			break;
		}
		loop->started++;
	}
	/* Fewer threads than wanted serve too; none do not. */
	if (loop->started)
		return 0;
	loop_end(loop, -r);
	pthread_join(loop->watchdog, NULL);
	return -r;
}

void fs_loop_wipe(struct fs_loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	loop->unwiped = loop->running;
	atomic_fetch_add(&loop->wipes, 1);
	pthread_cond_broadcast(&loop->wake);
	while (loop->unwiped) {
		/* With the lock: as long as one of them runs, none is joined. */
		for (unsigned i = 0; i < loop->started; i++)
			pthread_kill(loop->ids[i], WAKE_SIGNAL);
		pthread_mutex_unlock(&loop->lock);
		sleep_ns(WIPE_RETRY_NS);
		pthread_mutex_lock(&loop->lock);
	}
	pthread_mutex_unlock(&loop->lock);
}

int fs_loop_run(struct fs_loop *loop)
{
	int r = start_threads(loop);

	if (r < 0)
		return r;
	pthread_mutex_lock(&loop->lock);
	while (!atomic_load(&loop->stop))
		pthread_cond_wait(&loop->ended, &loop->lock);
	pthread_mutex_unlock(&loop->lock);
	drain_workers(loop);
	return loop->result;
}

void fs_loop_stop(struct fs_loop *loop)
{
	loop_end(loop, 0);
}

void fs_loop_fail(struct fs_loop *loop, int result)
{
	loop_end(loop, result);
}

int fs_loop_new(struct fs *fs, unsigned threads, struct fs_loop **ret)
{
	struct fs_loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return -ENOMEM;
	loop->ids = calloc(threads, sizeof(*loop->ids));
	if (!loop->ids) {
		free(loop);
		return -ENOMEM;
	}
	loop->fs = fs;
	loop->threads = threads;
	loop->watching = true;
	atomic_store(&loop->armed, true);
	pthread_mutex_init(&loop->lock, NULL);
	pthread_cond_init(&loop->wake, NULL);
	pthread_cond_init(&loop->watch, NULL);
	pthread_cond_init(&loop->ended, NULL);
	*ret = loop;
	return 0;
}

void fs_loop_free(struct fs_loop *loop)
{
	if (!loop)
		return;
	pthread_cond_destroy(&loop->ended);
	pthread_cond_destroy(&loop->watch);
	pthread_cond_destroy(&loop->wake);
	pthread_mutex_destroy(&loop->lock);
	free(loop->ids);
	free(loop);
}
