/* SPDX-License-Identifier: MIT */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audit.h"
#include "cleanup.h"
#include "control.h"
#include "keeper_life.h"
#include "keeper_lock.h"
#include "log.h"
#include "mount.h"
#include "mount_lower.h"
#include "notify.h"
#include "sandbox.h"
#include "server.h"
#include "util.h"

/* For writing back what is dirty, if a lock does not say. */
enum { LOCK_TIMEOUT_MS = 30000 };

struct keeper {
	struct mount *m;
	struct control_handler handler;
	struct control *control;
	struct keeper_lock lock;
	struct keeper_life life;
	int signal_fd, report_fd; /* report_fd -1: in the foreground */
	pid_t unmounting;         /* child that unmounts, 0: none */
	bool lazy;                /* ... lazily */
	bool lazy_wanted;         /* if it is busy, try again lazily */
	uint64_t deadline;        /* MOUNT_STOPPING: when open files are cut off; 0: never */
	uint64_t watchdog_ms;     /* how often the manager wants to hear of us; 0: never */
	uint64_t watchdog_next;   /* ... and when next; 0: never */
	bool checking;            /* the server checks the volume */
	bool ended;
	int exit_status;
};

/* What passes from a starting keeper to the command that waits for it. */
struct report {
	enum keeper_event event;
	char stage[KEEPER_STAGE_MAX];
	struct error error;
};

/* ---- ends ---- */

/* Is it mounted and served, with its key or locked? */
static bool is_up(const struct keeper *k)
{
	return k->m->state == MOUNT_UNLOCKED || k->m->state == MOUNT_LOCKED;
}

static void stopping(struct keeper *k)
{
	if (k->m->state == MOUNT_STOPPING)
		return;
	k->m->state = MOUNT_STOPPING;
	k->deadline = monotonic_ms() + k->m->config->stop_timeout_ms;
	notify_send("STOPPING=1\nSTATUS=unmounted");
	log_msg(LOG_LEVEL_INFO, "\"%s\" is unmounted from %s", k->m->config->name, k->m->config->target);
}

static void answer_umount(struct keeper *k, int r)
{
	const char *name = k->m->config->name;
	struct error err = ERROR_NONE;

	if (r == -EBUSY) {
		error_set(&err, r, EXIT_STATUS_BUSY, "cannot unmount \"%s\": %s is busy", name,
			  k->m->config->target);
		error_hint(&err, "ckrfs umount --lazy %s", name);
	} else if (r < 0) {
		error_errno(&err, r, EXIT_STATUS_FAILED, "cannot unmount \"%s\"", name);
	}
	control_answer(k->control, MESSAGE_UMOUNT, &err);
}

static void unmount_begin(struct keeper *k, bool lazy)
{
	int r;

	if (k->unmounting) {
		k->lazy_wanted |= lazy;
		return;
	}
	k->lazy = lazy;
	r = fusemount_unmount_begin(&k->m->fuse, lazy, &k->unmounting);
	if (r < 0)
		answer_umount(k, r);
}

static void unmount_done(struct keeper *k, int r)
{
	k->unmounting = 0;
	if (r == -EBUSY && k->lazy_wanted && !k->lazy) {
		unmount_begin(k, true);
		return;
	}
	/* -EINVAL: somebody else was faster. */
	if (r == 0 || r == -EINVAL) {
		stopping(k);
		r = 0;
	} else {
		log_msg(LOG_LEVEL_WARNING, "cannot unmount %s: %s [CK101]", k->m->config->target,
			strerror(-r));
	}
	answer_umount(k, r);
}

static void stop_by_signal(struct keeper *k, int signal)
{
	log_msg(LOG_LEVEL_INFO, "stopping \"%s\": %s", k->m->config->name, strsignal(signal));
	/* Somebody insists, or nothing is left that could be waited for. */
	if (!is_up(k) || (k->unmounting && k->lazy_wanted)) {
		k->ended = true;
		return;
	}
	k->lazy_wanted = true;
	unmount_begin(k, false);
}

static void server_failed(struct keeper *k, int status)
{
	struct mount *m = k->m;
	const char *name = m->config->name;

	if (WIFSIGNALED(status))
		log_msg(LOG_LEVEL_ERROR, "the server of \"%s\" was killed: %s [CK102]", name,
			strsignal(WTERMSIG(status)));
	else
		log_msg(LOG_LEVEL_ERROR, "the server of \"%s\" exited with status %d [CK103]", name,
			WEXITSTATUS(status));
	k->exit_status = EXIT_STATUS_FAILED;
	mount_cut(m);
	mount_lower_lock(m);
	m->state = MOUNT_FAILED;
	keeper_lock_server(&k->lock, NULL);
	/* The dead mount stays, so that nobody writes into the directory below it; but a service manager is
	 * to start us again, and that takes the target. */
	k->ended = k->report_fd < 0;
	notify_send("STATUS=the server died");
}

static void server_ended(struct keeper *k, int status)
{
	k->m->server_pid = 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		k->ended = true;
	else if (k->m->state == MOUNT_STOPPING)
		k->ended = true;
	else
		server_failed(k, status);
}

/* ---- what can happen ---- */

static void on_channel(struct keeper *k)
{
	struct server_message msg;
	int r;

	while (k->m->server_channel >= 0 &&
	       (r = server_receive(k->m->server_channel, false, &msg)) != -EAGAIN) {
		if (r <= 0) {
			/* Its exit status comes as a signal. */
			close(k->m->server_channel);
			k->m->server_channel = -1;
		} else if (msg.type == SERVER_LOG) {
			log_msg((enum log_level)msg.log.level, "%s", msg.log.line);
		} else if (msg.type == SERVER_FAILED) {
			log_error(&msg.error);
		} else if (msg.type == SERVER_DONE) {
			keeper_lock_server(&k->lock, &msg);
		} else if (msg.type == SERVER_CHECKED) {
			k->checking = false;
		}
	}
}

static void reap(struct keeper *k)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == k->unmounting) {
			unmount_done(k, fusemount_unmount_result(status));
		} else if (pid == k->lock.child) {
			k->lock.child = 0; /* what it has said is in its channel */
		} else if (pid == k->lock.lingerer) {
			keeper_lock_lingered(&k->lock);
		} else if (pid == k->m->server_pid) {
			on_channel(k);
			server_ended(k, status);
		}
	}
}

static void on_signal(struct keeper *k)
{
	struct signalfd_siginfo info;

	while (read(k->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			reap(k);
		else
			stop_by_signal(k, (int)info.ssi_signo);
	}
}

static void on_status(void *ctx, struct message_status *ret)
{
	struct keeper *k = ctx;

	keeper_life_look(&k->life);
	mount_status(k->m, ret);
	keeper_life_status(&k->life, ret);
}

static void on_umount(void *ctx, bool lazy)
{
	struct keeper *k = ctx;

	switch (k->m->state) {
	case MOUNT_UNLOCKED:
	case MOUNT_LOCKED:
		unmount_begin(k, lazy);
		break;
	case MOUNT_FAILED:
		/* Nothing can be lost any more; mount_stop() unmounts it. */
		k->ended = true;
		answer_umount(k, 0);
		break;
	default:
		answer_umount(k, 0);
	}
}

/* A source is read by the keeper, as who it is: naming another one is not for those whom it serves. */
static bool may_name_key(uid_t uid)
{
	return uid == 0 || uid == geteuid();
}

static int lock(struct keeper *k, uint64_t timeout_ms, struct error *err)
{
	int r = keeper_lock(&k->lock, timeout_ms, err);

	if (r == 0)
		keeper_life_hold(&k->life);
	return r;
}

static int on_command(void *ctx, const struct message_request *request, uid_t uid, struct error *err)
{
	struct keeper *k = ctx;

	if (request->command == MESSAGE_LOCK)
		return lock(k, request->timeout_ms ? request->timeout_ms : LOCK_TIMEOUT_MS, err);
	if (request->command == MESSAGE_REFRESH)
		return keeper_refresh(&k->lock, err);
	if (*request->key && !may_name_key(uid)) {
		error_set(err, -EPERM, EXIT_STATUS_FAILED,
			  "cannot unlock \"%s\": only who mounted it may name another key source",
			  k->m->config->name);
		error_hint(err, "ckrfs unlock %s", k->m->config->name);
		return -EPERM;
	}
	return keeper_unlock(&k->lock, *request->key ? request->key : NULL, err);
}

/* A refresh that fails is told by the key's life itself. */
static void audit_automatic(const struct keeper *k, enum message_command command, const struct error *err)
{
	struct audit audit = {.name = k->m->config->name};

	if (k->lock.automatic && command != MESSAGE_REFRESH && err->code != -ECANCELED)
		audit_life(&audit, command, err, k->life.last_error);
}

static void on_locked(void *ctx, enum message_command command, const struct error *err)
{
	struct keeper *k = ctx;

	audit_automatic(k, command, err);
	keeper_life_done(&k->life, command, err);
	/* Nobody waits for what the key's life has begun: whoever comes meanwhile asks for something of his
	 * own. */
	if (!k->lock.automatic)
		control_answer(k->control, command, err);
}

/* Only a pipe is passed on: writing to it can be waited for, and concerns nobody else. */
static int on_check(void *ctx, int fd, struct error *err)
{
	struct keeper *k = ctx;
	const char *name = k->m->config->name;
	autofd int pipe_fd = fd;
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode))
		return error_set(err, -EINVAL, EXIT_STATUS_FAILED, "what came with the request is no pipe");
	if (k->m->config->format == CONFIG_FORMAT_PLAIN)
		return error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED,
				 "there is nothing to check in the format \"plain\"");
	if (k->m->state == MOUNT_LOCKED) {
		error_set(err, -ENOKEY, EXIT_STATUS_NO_KEY, "\"%s\" is locked", name);
		error_hint(err, "ckrfs unlock %s", name);
		return -ENOKEY;
	}
	if (k->m->state != MOUNT_UNLOCKED || k->m->server_channel < 0)
		return error_set(err, -ENOTCONN, EXIT_STATUS_NO_VOLUME, "\"%s\" is not served any more",
				 name);
	if (keeper_lock_is_busy(&k->lock))
		return error_set(err, -EBUSY, EXIT_STATUS_BUSY, "\"%s\" is being locked", name);
	if (k->checking)
		return error_set(err, -EBUSY, EXIT_STATUS_BUSY, "\"%s\" is being checked already", name);
	r = server_ask_check(k->m->server_channel, pipe_fd);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot ask the server for a check");
	k->checking = true;
	return 0;
}

/*
 * Somebody else unmounted it, by umount(8). A dead mount has nothing left to keep then; a living one may be
 * held in another mount namespace, and ends like one that we unmounted: a key does not outlive its mount by
 * more than stop-timeout.
 */
static void on_mounts_changed(struct keeper *k)
{
	if (k->m->state == MOUNT_FAILED && !fusemount_is_there(&k->m->fuse))
		k->ended = true;
	else if (is_up(k) && !k->unmounting && !fusemount_is_anywhere(&k->m->fuse))
		stopping(k);
}

/* Milliseconds until deadline (0: none), or timeout if that is sooner. */
static int sooner(int timeout, uint64_t deadline)
{
	uint64_t now = monotonic_ms(), left;

	if (!deadline)
		return timeout;
	left = deadline > now ? min_u64(deadline - now, INT32_MAX) : 0;
	return timeout < 0 || left < (uint64_t)timeout ? (int)left : timeout;
}

static int loop_timeout(const struct keeper *k)
{
	int timeout = sooner(control_timeout(k->control), k->lock.patience);

	timeout = sooner(timeout, k->watchdog_next);
	return k->m->state == MOUNT_STOPPING ? sooner(timeout, k->deadline) : timeout;
}

static void watchdog(struct keeper *k)
{
	uint64_t now = monotonic_ms();

	if (!k->watchdog_ms || now < k->watchdog_next)
		return;
	notify_send("WATCHDOG=1");
	k->watchdog_next = now + k->watchdog_ms;
}

static void on_time(struct keeper *k)
{
	watchdog(k);
	keeper_lock_timeout(&k->lock);
	if (k->m->state != MOUNT_STOPPING || !k->deadline || monotonic_ms() < k->deadline)
		return;
	log_msg(LOG_LEVEL_WARNING,
		"files of \"%s\" are still open %" PRIu64 " ms after it was unmounted: cut off [CK104]",
		k->m->config->name, k->m->config->stop_timeout_ms);
	k->ended = true;
}

enum { POLL_SIGNAL, POLL_CHANNEL, POLL_MOUNTS, POLL_LOCK, POLL_TIMER, POLL_WATCH, POLL_CONTROL };

static void loop(struct keeper *k)
{
	struct pollfd fds[POLL_CONTROL + CONTROL_POLL_MAX];

	/* Who waits for an unmount that is under way is answered. */
	while (!k->ended || k->unmounting) {
		size_t n;

		fds[POLL_SIGNAL] = (struct pollfd){.fd = k->signal_fd, .events = POLLIN};
		fds[POLL_CHANNEL] = (struct pollfd){.fd = k->m->server_channel, .events = POLLIN};
		fds[POLL_MOUNTS] = (struct pollfd){.fd = k->m->fuse.mountinfo_fd, .events = POLLPRI};
		fds[POLL_LOCK] = (struct pollfd){.fd = k->lock.child_fd, .events = POLLIN};
		fds[POLL_TIMER] = (struct pollfd){.fd = k->life.timer_fd, .events = POLLIN};
		fds[POLL_WATCH] = (struct pollfd){.fd = k->life.watch.fd, .events = POLLIN};
		n = control_poll(k->control, fds + POLL_CONTROL);
		if (poll(fds, POLL_CONTROL + n, loop_timeout(k)) < 0 && errno != EINTR)
			break;
		if (fds[POLL_CHANNEL].revents)
			on_channel(k);
		if (fds[POLL_SIGNAL].revents)
			on_signal(k);
		if (fds[POLL_MOUNTS].revents)
			on_mounts_changed(k);
		if (fds[POLL_LOCK].revents && fds[POLL_LOCK].fd == k->lock.child_fd)
			keeper_lock_event(&k->lock);
		if (fds[POLL_TIMER].revents || fds[POLL_WATCH].revents)
			keeper_life_event(&k->life);
		control_serve(k->control, fds + POLL_CONTROL, n);
		on_time(k);
	}
}

/* ---- start ---- */

/* Is there still somebody who waits? */
static bool report(const struct keeper *k, enum keeper_event event, const char *stage,
		   const struct error *err)
{
	struct report message = {.event = event};

	if (k->report_fd < 0)
		return true;
	if (stage)
		snprintf(message.stage, sizeof(message.stage), "%s", stage);
	if (err)
		message.error = *err;
	return send(k->report_fd, &message, sizeof(message), MSG_NOSIGNAL) == (ssize_t)sizeof(message);
}

static void on_stage(void *ctx, const char *what)
{
	report(ctx, KEEPER_STAGE, what, NULL);
	notify_send("STATUS=%s", what);
	log_msg(LOG_LEVEL_DEBUG, "%s", what);
}

static int open_signals(struct keeper *k, struct error *err)
{
	sigset_t signals;

	mount_signals(&signals);
	k->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	return k->signal_fd < 0 ? error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot listen to signals")
				: 0;
}

/* Lets go of what the caller lent: terminal, working directory, standard streams. */
static int detach(const struct config *cfg, struct error *err)
{
	int last = strcmp(cfg->log, "stderr") == 0 ? STDOUT_FILENO : STDERR_FILENO;
	autofd int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0 || setsid() < 0 || chdir("/") < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot go into the background");
	for (int fd = 0; fd <= last; fd++)
		if (dup2(null, fd) < 0)
			return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot go into the background");
	return 0;
}

/* All descriptors of our own are O_CLOEXEC: what is not came from the caller, and has been read by now. */
static void close_inherited(void)
{
	autodir DIR *dir = opendir("/proc/self/fd");
	struct dirent *e;
	uint64_t fd;

	while (dir && (e = readdir(dir)))
		if (parse_u64(e->d_name, INT32_MAX, &fd) == 0 && fd > STDERR_FILENO &&
		    fcntl((int)fd, F_GETFD) == 0)
			close((int)fd);
}

/* What follows once the mount answers. */
static int open_keeper(struct keeper *k, struct error *err)
{
	struct mount *m = k->m;
	int r = open_signals(k, err);

	k->handler = (struct control_handler){.name = m->config->name,
					      .status = on_status,
					      .umount = on_umount,
					      .check = on_check,
					      .command = on_command};
	k->lock = KEEPER_LOCK_NONE;
	k->lock.m = m;
	k->lock.done = on_locked;
	k->lock.ctx = k;
	close_inherited();
	if (r == 0)
		r = keeper_life_open(&k->life, m, &k->lock, err);
	if (r == 0)
		r = control_open(m->claim.dir_fd, m->owner, &k->handler, k, &k->control, err);
	if (r == 0 && k->report_fd >= 0)
		r = detach(m->config, err);
	if (r < 0)
		error_prefix(err, "cannot mount \"%s\"", m->config->name);
	return r;
}

static int start(struct keeper *k, struct error *err)
{
	static const int reset[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD};
	const struct config *cfg = k->m->config;
	/* In the foreground stderr is the log, which is the journal under systemd. */
	const char *log = k->report_fd < 0 && strcmp(cfg->log, "syslog") == 0 ? "stderr" : cfg->log;
	unsigned protections = 0;
	int r;

	prctl(PR_SET_NAME, "ckrfs-keeper");
	/* What is ignored does not reach a signalfd, and ignored children leave no status. */
	for (size_t i = 0; i < ARRAY_SIZE(reset); i++)
		signal(reset[i], SIG_DFL);
	r = sandbox_no_core(&protections, err);
	if (r == 0)
		r = log_open(log, (enum log_level)cfg->log_level, err);
	if (r < 0)
		return r;
	r = mount_start(k->m, on_stage, k, err);
	if (r < 0) {
		log_error(err);
		log_audit("mount \"%s\" by uid=%u: failed: %s", cfg->name, (unsigned)getuid(), err->text);
		return r;
	}
	r = open_keeper(k, err);
	if (r == 0) {
		r = sandbox_keeper(mount_sandbox_level(k->m), k->m->fuse.by_helper, &k->m->protections, err);
		if (r < 0) {
			error_prefix(err, "cannot mount \"%s\"", cfg->name);
			control_close(k->control);
		}
	}
	if (r < 0) {
		keeper_life_close(&k->life);
		mount_stop(k->m);
	}
	return r;
}

static void run(struct keeper *k)
{
	const struct config *cfg = k->m->config;

	signal(SIGPIPE, SIG_IGN);
	log_msg(LOG_LEVEL_INFO, "\"%s\" is mounted on %s", cfg->name, cfg->target);
	log_audit("mount \"%s\" by uid=%u, owner uid=%u: done", cfg->name, (unsigned)getuid(),
		  (unsigned)k->m->owner);
	notify_send("READY=1\nSTATUS=mounted on %s", cfg->target);
	k->watchdog_ms = notify_watchdog_ms();
	watchdog(k);
	loop(k);
	if (k->m->state != MOUNT_STOPPING)
		notify_send("STOPPING=1");
	keeper_lock_stop(&k->lock);
	keeper_life_close(&k->life);
	mount_stop(k->m);
	control_close(k->control);
	close(k->signal_fd);
	log_msg(LOG_LEVEL_INFO, "\"%s\" has ended", cfg->name);
}

/* Takes cfg over. */
static int keeper_main(struct config *cfg, uid_t owner, int report_fd, struct error *err)
{
	struct keeper k = {.report_fd = report_fd, .signal_fd = -1, .life = KEEPER_LIFE_NONE};
	int r = mount_new(cfg, owner, &k.m, err);

	if (r == 0)
		r = start(&k, err);
	if (r < 0) {
		report(&k, KEEPER_FAILED, NULL, err);
	} else {
		/* A mount that nobody was told of would stay for ever. */
		k.ended = !report(&k, KEEPER_DONE, NULL, NULL);
		if (k.report_fd >= 0)
			shutdown(k.report_fd, SHUT_RDWR);
		run(&k);
		r = k.exit_status;
	}
	mount_free(k.m);
	return r;
}

int keeper_run(struct config *cfg, uid_t owner, struct error *err)
{
	return keeper_main(cfg, owner, -1, err);
}

int keeper_spawn(struct config *cfg, uid_t owner, int *ret_fd, struct error *err)
{
	struct error local = ERROR_NONE;
	int sv[2] = {-1, -1}, r = 0;
	pid_t pid = -1;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) == 0) {
		fflush(NULL);
		pid = fork();
	}
	if (pid == 0) {
		close(sv[0]);
		r = keeper_main(cfg, owner, sv[1], &local);
		_exit(r < 0 ? (int)local.status : r);
	}
	if (pid < 0)
		r = error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot start a keeper");
	else
		*ret_fd = steal_fd(&sv[0]);
	cleanup_close(&sv[0]);
	cleanup_close(&sv[1]);
	config_free(cfg);
	return r;
}

enum keeper_event keeper_wait(int fd, int timeout_ms, char *stage, struct error *err)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct report message;

	if (poll(&p, 1, timeout_ms) <= 0)
		return KEEPER_QUIET;
	if (recv(fd, &message, sizeof(message), 0) != (ssize_t)sizeof(message)) {
		error_set(err, -EIO, EXIT_STATUS_FAILED, "the keeper died before the mount was there");
		return KEEPER_FAILED;
	}
	if (message.event == KEEPER_STAGE)
		memcpy(stage, message.stage, KEEPER_STAGE_MAX);
	if (message.event == KEEPER_FAILED)
		*err = message.error;
	return message.event;
}
