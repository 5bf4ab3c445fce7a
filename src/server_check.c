/* SPDX-License-Identifier: MIT */
/* Two threads: one takes what is asked for, tells how far the check is, and sees when nobody reads any more;
 * the other one checks. */
#include "server_check.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ioprio.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"
#include "cleanup.h"
#include "log.h"
#include "util.h"

enum {
	POLL_MS = 200,
	WRITE_MS = 20,
	TELL_MS = 1000,
	NICE = 19,
	IO_CLASS_BEST_EFFORT = 2,
	IO_LEVEL_LOWEST = 7,
	ASK_NOTHING = -1,
	ASK_CANCEL = -2,
	ASK_END = -3
};

struct server_check {
	struct server_check_params params;
	pthread_t listener, checker;
	_Atomic bool stop;
	int asked[2];    /* a pipe of ints: what to begin with, or ASK_CANCEL, ASK_END */
	sem_t cancelled; /* ASK_CANCEL was done */
	/* the check under way; the listener's, but for what is marked */
	bool running;
	_Atomic bool done; /* set by the checker as its last thing */
	struct check *check;
	int pipe_fd;
	uint64_t told;
	pthread_mutex_t write_lock; /* whole lines into the pipe */
};

/* ---- the pipe ---- */

/* Waits for the reader; gives up with the check. */
static int write_bytes(struct server_check *s, const char *line, size_t size)
{
	struct finding_summary summary;

	while (size > 0) {
		struct pollfd p = {.fd = s->pipe_fd, .events = POLLOUT};
		ssize_t n = write(s->pipe_fd, line, size);

		check_summary(s->check, &summary);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (n > 0) {
			line += n;
			size -= (size_t)n;
		} else if (atomic_load(&s->stop) || !summary.complete) {
			return -ECANCELED;
		} else {
			poll(&p, 1, WRITE_MS);
		}
	}
	return 0;
}

static void on_finding(void *ctx, const struct finding *f)
{
	struct server_check *s = ctx;
	char *line = NULL;
	int r = finding_format(f, &line);

	if (r == 0) {
		pthread_mutex_lock(&s->write_lock);
		r = write_bytes(s, line, strlen(line));
		pthread_mutex_unlock(&s->write_lock);
		free(line);
	}
	if (r < 0)
		check_stop(s->check);
}

/* How far it is, if that can be said without waiting. */
static void tell_progress(struct server_check *s)
{
	struct finding_summary summary;
	struct pollfd p = {.fd = s->pipe_fd, .events = POLLOUT};
	uint64_t now = monotonic_ms();
	char *line = NULL;

	if (now - s->told < TELL_MS || pthread_mutex_trylock(&s->write_lock) != 0)
		return;
	s->told = now;
	check_summary(s->check, &summary);
	summary.complete = false;
	/* A pipe that can be written to takes a line of up to PIPE_BUF bytes whole. */
	if (poll(&p, 1, 0) == 1 && p.revents == POLLOUT && finding_summary_format(&summary, &line) == 0) {
		write_bytes(s, line, strlen(line));
		free(line);
	}
	pthread_mutex_unlock(&s->write_lock);
}

static void tell_end(struct server_check *s)
{
	struct finding_summary summary;
	char *line = NULL;

	check_summary(s->check, &summary);
	log_msg(LOG_LEVEL_INFO, "check %s: %llu damages, %llu notes", summary.complete ? "done" : "stopped",
		(unsigned long long)summary.damages, (unsigned long long)summary.notes);
	if (!summary.complete || finding_summary_format(&summary, &line) < 0)
		return;
	pthread_mutex_lock(&s->write_lock);
	write_bytes(s, line, strlen(line));
	pthread_mutex_unlock(&s->write_lock);
	free(line);
}

/* ---- the checker ---- */

static void *run_check(void *arg)
{
	struct server_check *s = arg;
	struct error err = ERROR_NONE;
	pid_t self = (pid_t)syscall(SYS_gettid);

	setpriority(PRIO_PROCESS, (id_t)self, NICE);
	syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, self,
		IO_CLASS_BEST_EFFORT << 13 | IO_LEVEL_LOWEST);
	log_msg(LOG_LEVEL_INFO, "checking the volume");
	if (check_run(s->check, &err) < 0)
		log_error(&err);
	/* First: whoever reads the end may ask for the next check at once. */
	s->params.ended(s->params.ctx);
	tell_end(s);
	atomic_store(&s->done, true);
	return NULL;
}

/* Waits for the checker, and lets go of its pipe. */
static void finish(struct server_check *s)
{
	if (!s->running)
		return;
	pthread_join(s->checker, NULL);
	s->running = false;
	check_free(steal_ptr(&s->check));
	close(s->pipe_fd);
	s->pipe_fd = -1;
}

/* Takes the fd. */
static void begin(struct server_check *s, int fd)
{
	struct check_params params = {
		.format = s->params.format,
		.root_fd = s->params.root_fd,
		.threads = 1,
		.live = true,
		.found = on_finding,
		.ctx = s,
	};
	struct error err = ERROR_NONE;

	finish(s);
	atomic_store(&s->done, false);
	if (fcntl(fd, F_SETFL, O_WRONLY | O_NONBLOCK) == 0 && check_new(&params, &s->check, &err) == 0) {
		s->pipe_fd = fd;
		s->running = pthread_create(&s->checker, NULL, run_check, s) == 0;
		if (s->running)
			return;
		check_free(steal_ptr(&s->check));
		s->pipe_fd = -1;
	}
	log_msg(LOG_LEVEL_ERROR, "cannot begin a check: %s [CK121]", err.code ? err.text : "no thread");
	s->params.ended(s->params.ctx);
	close(fd);
}

/* ---- the listener ---- */

static int receive(struct server_check *s)
{
	int what;

	return read(s->asked[0], &what, sizeof(what)) == (ssize_t)sizeof(what) ? what : ASK_NOTHING;
}

/* Less than PIPE_BUF bytes go whole. */
static void ask(struct server_check *s, int what)
{
	while (write(s->asked[1], &what, sizeof(what)) < 0 && errno == EINTR)
		;
}

static void cancel(struct server_check *s)
{
	if (s->running)
		check_stop(s->check);
	finish(s);
}

static void *listen_to_keeper(void *arg)
{
	struct server_check *s = arg;
	int what = ASK_NOTHING;

	while (what != ASK_END) {
		struct pollfd fds[2] = {{.fd = s->asked[0], .events = POLLIN},
					{.fd = s->running ? s->pipe_fd : -1}};

		poll(fds, 2, s->running ? POLL_MS : -1);
		if (s->running && fds[1].revents & POLLERR)
			check_stop(s->check);
		if (s->running && !atomic_load(&s->done))
			tell_progress(s);
		if (atomic_load(&s->done))
			finish(s);
		what = fds[0].revents ? receive(s) : ASK_NOTHING;
		if (what >= 0)
			begin(s, what);
		if (what == ASK_CANCEL) {
			cancel(s);
			sem_post(&s->cancelled);
		}
	}
	cancel(s);
	return NULL;
}

void server_check_begin(struct server_check *s, int fd)
{
	ask(s, fd);
}

void server_check_cancel(struct server_check *s)
{
	ask(s, ASK_CANCEL);
	while (sem_wait(&s->cancelled) < 0 && errno == EINTR)
		;
}

static void server_check_free(struct server_check *s)
{
	cleanup_close(&s->asked[0]);
	cleanup_close(&s->asked[1]);
	sem_destroy(&s->cancelled);
	pthread_mutex_destroy(&s->write_lock);
	free(s);
}

int server_check_start(const struct server_check_params *params, struct server_check **ret, struct error *err)
{
	struct server_check *s = calloc(1, sizeof(*s));
	sigset_t all, old;
	int r;

	if (!s)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot start the server");
	s->params = *params;
	s->pipe_fd = s->asked[0] = s->asked[1] = -1;
	pthread_mutex_init(&s->write_lock, NULL);
	sem_init(&s->cancelled, 0, 0);
	r = pipe2(s->asked, O_CLOEXEC) < 0 ? -errno : 0;
	if (r < 0) {
		server_check_free(s);
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot start the server");
	}
	/* A reader that has gone is an error of write(2), and no signal. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&s->listener, NULL, listen_to_keeper, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r != 0) {
		server_check_free(s);
		return error_errno(err, -r, EXIT_STATUS_FAILED, "cannot start the server");
	}
	*ret = s;
	return 0;
}

void server_check_stop(struct server_check *s)
{
	if (!s)
		return;
	atomic_store(&s->stop, true);
	ask(s, ASK_END);
	pthread_join(s->listener, NULL);
	server_check_free(s);
}
