/* SPDX-License-Identifier: MIT */
#include "keeper_lock.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "log.h"
#include "mount_lower.h"
#include "notify.h"
#include "util.h"

/* How long the server may take beyond the time that was given for dirty data; and who opens a volume beyond
 * what its key sources take: scrypt. */
enum { SERVER_GRACE_MS = 30000, SCRYPT_GRACE_MS = 120000 };
/* For writing back what is dirty when a key has ended. */
enum { AUTOMATIC_TIMEOUT_MS = 30000 };

/* What the child that locks the lower tells. */
struct lower_report {
	struct error error;
	unsigned left; /* enum lower_left */
};

/* For files of the lower that others have open. */
enum { LOWER_BUSY_MS = 1000 };

/* What the child that reads the key tells. */
struct key_report {
	struct error error; /* code 0: the key is in the key room */
	size_t index;       /* which of the sources configured */
	char source[256];
};

/* ---- ends ---- */

static void child_end(struct keeper_lock *l)
{
	cleanup_close(&l->child_fd);
	l->child_fd = -1;
	if (l->child > 0)
		kill(l->child, SIGKILL);
	l->child = 0;
}

static bool is_locking(const struct keeper_lock *l)
{
	return l->step >= KEEPER_LOCK_OPENING && l->step <= KEEPER_LOCK_LOWER;
}

static bool is_reading(const struct keeper_lock *l)
{
	return l->step == KEEPER_LOCK_READING_KEY || l->step == KEEPER_LOCK_REFRESHING;
}

static enum message_command command_of(const struct keeper_lock *l)
{
	if (l->step == KEEPER_LOCK_REFRESHING || l->step == KEEPER_LOCK_RENEWING)
		return MESSAGE_REFRESH;
	return is_locking(l) ? MESSAGE_LOCK : MESSAGE_UNLOCK;
}

bool keeper_lock_is_busy(const struct keeper_lock *l)
{
	return l->step != KEEPER_LOCK_IDLE && command_of(l) != MESSAGE_REFRESH;
}

static const char *const verbs[] = {
	[MESSAGE_LOCK] = "lock", [MESSAGE_UNLOCK] = "unlock", [MESSAGE_REFRESH] = "refresh"};

/* Prefixes what failed, and tells. */
static void end(struct keeper_lock *l, struct error *err)
{
	enum message_command command = command_of(l);
	const char *name = l->m->config->name;

	child_end(l);
	l->step = KEEPER_LOCK_IDLE;
	l->patience = 0;
	explicit_bzero(secret_data(l->m->key_room), secret_size(l->m->key_room));
	if (err->code < 0 && err->status != EXIT_STATUS_PARTLY)
		error_prefix(err, "cannot %s \"%s\"", verbs[command], name);
	/* Of what the key's life does, it tells itself. */
	if (err->code < 0 && !l->automatic)
		log_msg(LOG_LEVEL_WARNING, "%s [CK112]", err->text);
	if (l->m->state == MOUNT_LOCKED) {
		runtime_mark_key(&l->m->claim, false); /* it only counts as one too many otherwise */
		notify_send("STATUS=locked");
	} else if (l->m->state == MOUNT_UNLOCKED)
		notify_send("STATUS=mounted on %s", l->m->config->target);
	l->done(l->ctx, command, err);
	free(steal_ptr(&l->spec));
	l->automatic = false;
}

static int child_begin(struct keeper_lock *l, void (*run)(struct keeper_lock *l, int fd, const void *arg),
		       const void *arg);

/* The lower is locked by a child, as the kernel writes back what is dirty; nothing of it is open here then.
 */
static void run_lower(struct keeper_lock *l, int fd, const void *arg)
{
	struct lower_report report = {0};

	lower_lock(l->m->lower, LOWER_BUSY_MS, &report.left, &report.error);
	if (send(fd, &report, sizeof(report), MSG_NOSIGNAL) < 0)
		_exit(EXIT_STATUS_FAILED);
}

static void end_lingerer(struct keeper_lock *l)
{
	if (l->lingerer > 0)
		kill(l->lingerer, SIGKILL);
	l->lingerer = 0;
}

/* Not before the lower is locked: a key that is not possessed cannot be revoked. */
static void clear_ring(struct keeper_lock *l, struct error *err)
{
	int r = keyring_clear(&l->m->ring);

	if (r < 0 && err->code == 0)
		error_errno(err, r, EXIT_STATUS_PARTLY, "\"%s\" is locked, but its keyring cannot be emptied",
			    l->m->config->name);
}

static void lower_begin(struct keeper_lock *l, enum keeper_lock_step step, const struct error *outcome)
{
	struct error err = *outcome;
	int r;

	if (!lower_needs_key(l->m->lower)) {
		if (step == KEEPER_LOCK_LOWER)
			clear_ring(l, &err);
		end(l, &err);
		return;
	}
	child_end(l);
	end_lingerer(l);
	l->step = step;
	l->outcome = err;
	l->patience = max_u64(l->end, monotonic_ms()) + SERVER_GRACE_MS;
	lower_let_go(l->m->lower);
	r = child_begin(l, run_lower, NULL);
	if (r < 0) {
		error_errno(&err, r, EXIT_STATUS_PARTLY, "\"%s\" is locked, but its key stays in the kernel",
			    l->m->config->name);
		clear_ring(l, &err);
		end(l, &err);
	}
}

/* The first thing that went wrong is what is told. */
static void lower_ended(struct keeper_lock *l, const struct lower_report *report)
{
	const char *name = l->m->config->name, *words = lower_left_words(report->left);
	struct error err = l->outcome, again = ERROR_NONE;

	if (err.code == 0 && report->error.code < 0)
		error_set(&err, report->error.code, EXIT_STATUS_PARTLY, "\"%s\" is locked, but %s", name,
			  report->error.text);
	else if (err.code == 0 && *words)
		error_set(&err, -EBUSY, EXIT_STATUS_PARTLY,
			  "\"%s\" is locked, but its key stays in the kernel: %s", name, words);
	if (l->step == KEEPER_LOCK_LOWER)
		clear_ring(l, &err);
	if (report->left & LOWER_LEFT_BUSY && !l->outcome.code)
		error_hint(&err, "fuser -vm %s", l->m->config->source);
	if (report->left & LOWER_LEFT_BUSY)
		l->lingerer = mount_lower_linger(l->m, false);
	/* As long as the key is there, our having it open would keep the directory in use. */
	if (!report->left && lower_take(l->m->lower, &again) < 0)
		log_error(&again);
	end(l, &err);
}

static void on_lower(struct keeper_lock *l)
{
	struct lower_report report = {0};
	ssize_t n = recv(l->child_fd, &report, sizeof(report), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != (ssize_t)sizeof(report))
		error_set(&report.error, -EIO, EXIT_STATUS_FAILED,
			  "the process that takes its key from the kernel died");
	lower_ended(l, &report);
}

/* What a child has given to the lower is taken away again. */
static void end_unlock(struct keeper_lock *l, struct error *err)
{
	if (l->step == KEEPER_LOCK_READING_KEY || l->step == KEEPER_LOCK_UNLOCKING)
		lower_begin(l, KEEPER_LOCK_LOWER_AGAIN, err);
	else
		end(l, err);
}

static void fail(struct keeper_lock *l, int code, const char *what)
{
	struct error err = ERROR_NONE;

	error_errno(&err, code, EXIT_STATUS_FAILED, "%s", what);
	end_unlock(l, &err);
}

static void locked(struct keeper_lock *l, const struct server_message *msg)
{
	struct mount *m = l->m;
	struct error err = ERROR_NONE;

	if (m->state == MOUNT_UNLOCKED)
		m->state = MOUNT_LOCKED;
	m->degraded = false;
	m->since = time(NULL);
	log_msg(LOG_LEVEL_INFO, "\"%s\" is locked", m->config->name);
	if (msg->done.unflushed || msg->done.timed_out)
		error_set(&err, -EIO, EXIT_STATUS_PARTLY,
			  "\"%s\" is locked; cached writes that could not be stored and are lost%s: %" PRIu64,
			  m->config->name, msg->done.timed_out ? ", as the time was over" : "",
			  msg->done.unflushed);
	lower_begin(l, KEEPER_LOCK_LOWER, &err);
}

static void unlocked(struct keeper_lock *l, const struct server_message *msg)
{
	struct mount *m = l->m;
	struct error err = ERROR_NONE;

	if (m->state == MOUNT_LOCKED)
		m->state = MOUNT_UNLOCKED;
	m->since = time(NULL);
	log_msg(LOG_LEVEL_INFO, "\"%s\" is unlocked", m->config->name);
	if (msg->done.unflushed)
		log_msg(LOG_LEVEL_WARNING, "\"%s\": the lock has cost %" PRIu64 " cached writes [CK113]",
			m->config->name, msg->done.unflushed);
	end(l, &err);
}

/* What could not be opened anew keeps the old key alive. */
static void renewed(struct keeper_lock *l, const struct error *from_server)
{
	struct error none = ERROR_NONE;
	int r = lower_renewed(l->m->lower, from_server->code == 0);

	if (from_server->code < 0)
		log_msg(LOG_LEVEL_WARNING, "the token of \"%s\" was renewed, but: %s [CK116]",
			l->m->config->name, from_server->text);
	if (r < 0)
		log_msg(LOG_LEVEL_WARNING, "\"%s\": the old token cannot be revoked: %s [CK117]",
			l->m->config->name, strerror(-r));
	end(l, &none);
}

/* ---- the server's part ---- */

static void command(struct keeper_lock *l, enum server_command_type type, enum keeper_lock_step step)
{
	uint64_t now = monotonic_ms();
	struct server_command cmd = {
		.type = type, .refusal = l->refusal, .timeout_ms = l->end > now ? l->end - now : 0};
	int r;

	l->step = step;
	l->patience = now + cmd.timeout_ms + SERVER_GRACE_MS;
	r = server_send(l->m->server_channel, &cmd,
			type == SERVER_UNLOCK && lower_needs_key(l->m->lower) ? lower_root(l->m->lower) : -1);
	if (r < 0)
		fail(l, r, "the server cannot be told");
}

static void after_begin(struct keeper_lock *l)
{
	/* Without the child, or when it dies meanwhile, only files' times may be less exact. */
	if (l->child_fd < 0 || send(l->child_fd, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
		command(l, SERVER_LOCK_FINISH, KEEPER_LOCK_FINISHING);
		return;
	}
	l->step = KEEPER_LOCK_SYNCING;
	l->patience = max_u64(l->end, monotonic_ms() + 1);
}

void keeper_lock_server(struct keeper_lock *l, const struct server_message *msg)
{
	struct error err = msg ? msg->done.error : ERROR_NONE;

	if (l->step == KEEPER_LOCK_IDLE)
		return;
	if (!msg) {
		fail(l, -ENOTCONN, "the server died");
		return;
	}
	if (l->step == KEEPER_LOCK_RENEWING && msg->done.command == SERVER_RENEW) {
		renewed(l, &err);
		return;
	}
	if (err.code < 0) {
		if (err.code == -EOPNOTSUPP)
			error_hint(&err, "ckrfs mount %s -o passthrough=no", l->m->config->name);
		end_unlock(l, &err);
		return;
	}
	if (msg->done.command == SERVER_LOCK_BEGIN && l->step == KEEPER_LOCK_BEGINNING)
		after_begin(l);
	else if (msg->done.command == SERVER_LOCK_FINISH && l->step == KEEPER_LOCK_FINISHING)
		locked(l, msg);
	else if (msg->done.command == SERVER_UNLOCK && l->step == KEEPER_LOCK_UNLOCKING)
		unlocked(l, msg);
}

/* ---- children ---- */

/* What a child of the keeper must not keep alive or take part in. */
static void child_shed(struct keeper_lock *l)
{
	sigset_t signals;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != l->m->keeper_pid)
		_exit(EXIT_STATUS_FAILED);
	cleanup_close(&l->m->fuse.fuse_fd);
	cleanup_close(&l->m->server_channel);
	signal(SIGPIPE, SIG_DFL);
	mount_signals(&signals);
	sigprocmask(SIG_UNBLOCK, &signals, NULL);
}

/* Forks; run never returns in the child, which has fd. */
static int child_begin(struct keeper_lock *l, void (*run)(struct keeper_lock *l, int fd, const void *arg),
		       const void *arg)
{
	int sv[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		close(sv[0]);
		child_shed(l);
		run(l, sv[1], arg);
		_exit(EXIT_STATUS_DONE);
	}
	close(sv[1]);
	if (pid < 0) {
		int code = -errno;

		close(sv[0]);
		return code;
	}
	l->child = pid;
	l->child_fd = sv[0];
	return 0;
}

/* Opens the root while it can still be opened, and writes back what is dirty when told so: with the times
 * that the kernel keeps for cached writes, which dropping pages does not bring. */
static void run_sync(struct keeper_lock *l, int fd, const void *arg)
{
	autofd int root = fusemount_open_root(&l->m->fuse);
	char go;

	if (root < 0 || send(fd, "", 1, MSG_NOSIGNAL) < 0 || recv(fd, &go, 1, 0) != 1)
		return;
	syncfs(root);
}

static void run_key(struct keeper_lock *l, int fd, const void *arg)
{
	struct key_report report = {0};

	prctl(PR_SET_NAME, "ckrfs-key");
	mount_read_key_again(l->m, arg, &report.error);
	report.index = l->m->key.index;
	snprintf(report.source, sizeof(report.source), "%s", l->m->key.source);
	if (send(fd, &report, sizeof(report), MSG_NOSIGNAL) < 0)
		_exit(EXIT_STATUS_FAILED);
}

static void on_key(struct keeper_lock *l)
{
	struct key_report report = {0};
	ssize_t n = recv(l->child_fd, &report, sizeof(report), MSG_DONTWAIT);
	int r;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != (ssize_t)sizeof(report)) {
		fail(l, -EIO, "the process that reads the key died");
		return;
	}
	if (report.error.code < 0) {
		end_unlock(l, &report.error);
		return;
	}
	/* What has no key has no source. */
	r = report.source[0]
		    ? mount_remember_source(l->m, l->spec ? l->spec : l->m->config->keys[report.index])
		    : 0;
	if (r < 0) {
		fail(l, r, "keeping the key's source");
		return;
	}
	memcpy(l->m->key.source, report.source, sizeof(report.source));
	if (l->step == KEEPER_LOCK_REFRESHING && lower_renews(l->m->lower))
		command(l, SERVER_RENEW, KEEPER_LOCK_RENEWING);
	else if (l->step == KEEPER_LOCK_REFRESHING)
		end(l, &report.error);
	else
		command(l, SERVER_UNLOCK, KEEPER_LOCK_UNLOCKING);
}

void keeper_lock_event(struct keeper_lock *l)
{
	char ready;
	ssize_t n;

	if (is_reading(l)) {
		on_key(l);
		return;
	}
	if (l->step == KEEPER_LOCK_LOWER || l->step == KEEPER_LOCK_LOWER_AGAIN) {
		on_lower(l);
		return;
	}
	n = recv(l->child_fd, &ready, 1, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != 1)
		child_end(l);
	if (l->step == KEEPER_LOCK_OPENING)
		command(l, SERVER_LOCK_BEGIN, KEEPER_LOCK_BEGINNING);
	else if (l->step == KEEPER_LOCK_SYNCING)
		command(l, SERVER_LOCK_FINISH, KEEPER_LOCK_FINISHING);
}

/* ---- begin ---- */

static int not_serving(const struct mount *m, const char *what, struct error *err)
{
	return error_set(err, -ENOTCONN, EXIT_STATUS_FAILED, "cannot %s \"%s\": %s", what, m->config->name,
			 m->state == MOUNT_FAILED ? "its server died" : "it is being unmounted");
}

static int busy(const struct mount *m, const char *what, const char *other, struct error *err)
{
	return error_set(err, -EBUSY, EXIT_STATUS_BUSY, "cannot %s \"%s\": %s is under way", what,
			 m->config->name, other);
}

/* What somebody asks for goes before what the key's life tries to read, and a lock before any refresh. */
static void give_way(struct keeper_lock *l, bool lock)
{
	bool unlocking = l->step == KEEPER_LOCK_READING_KEY;
	struct error err = ERROR_NONE;

	if (!is_reading(l) || (!l->automatic && !(lock && l->step == KEEPER_LOCK_REFRESHING)))
		return;
	error_set(&err, -ECANCELED, EXIT_STATUS_BUSY, "it had to make way for another command");
	end(l, &err);
	/* The child may have given the lower its key already. */
	if (unlocking)
		mount_lower_lock(l->m);
}

static void lock_begin(struct keeper_lock *l, uint64_t timeout_ms, int refusal)
{
	l->refusal = refusal;
	l->end = monotonic_ms() + timeout_ms;
	l->patience = l->end;
	l->step = KEEPER_LOCK_OPENING;
	notify_send("STATUS=locking");
	if (child_begin(l, run_sync, NULL) < 0)
		command(l, SERVER_LOCK_BEGIN, KEEPER_LOCK_BEGINNING);
}

/* Its key is in the mount's memory alone: without it the lock would be the end of the data, and with it no
 * lock. */
static int not_lockable(const struct mount *m, struct error *err)
{
	error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED,
		  "cannot lock \"%s\": it is ephemeral, and its data would be lost with its key",
		  m->config->name);
	error_hint(err, "ckrfs umount %s", m->config->name);
	return -EOPNOTSUPP;
}

int keeper_lock(struct keeper_lock *l, uint64_t timeout_ms, struct error *err)
{
	if (l->m->config->ephemeral)
		return not_lockable(l->m, err);
	give_way(l, true);
	if (is_locking(l)) {
		l->automatic = false;
		return 1;
	}
	if (l->step != KEEPER_LOCK_IDLE)
		return busy(l->m, "lock", l->step == KEEPER_LOCK_RENEWING ? "a refresh" : "an unlock", err);
	if (l->m->state == MOUNT_LOCKED)
		return 0;
	if (l->m->state != MOUNT_UNLOCKED)
		return not_serving(l->m, "lock", err);
	lock_begin(l, timeout_ms, ENOKEY);
	return 1;
}

/* If it could not be opened again after the lock: somebody else had it for that moment. */
static int take_lower(struct keeper_lock *l, struct error *err)
{
	struct mount *m = l->m;
	int r = lower_root(m->lower) >= 0 ? 0 : lower_take(m->lower, err);

	if (r == 0)
		return 0;
	lower_let_go(m->lower);
	if (err)
		error_prefix(err, "cannot unlock \"%s\"", m->config->name);
	return r;
}

static int read_begin(struct keeper_lock *l, enum keeper_lock_step step, const char *spec)
{
	const struct config *cfg = l->m->config;
	int r;

	l->spec = spec ? strdup(spec) : NULL;
	if (spec && !l->spec)
		return -ENOMEM;
	/* The root is for who opens the volume anew. */
	end_lingerer(l);
	r = step == KEEPER_LOCK_READING_KEY ? take_lower(l, NULL) : 0;
	if (r < 0) {
		free(steal_ptr(&l->spec));
		return r;
	}
	l->end = 0;
	l->patience = monotonic_ms() + SCRYPT_GRACE_MS +
		      min_u64(cfg->key_timeout_ms, INT32_MAX) * max_u64(cfg->n_keys, 1);
	l->step = step;
	r = child_begin(l, run_key, l->spec);
	if (r < 0) {
		l->step = KEEPER_LOCK_IDLE;
		l->patience = 0;
		free(steal_ptr(&l->spec));
	}
	return r;
}

/* For somebody who asks. */
static int read_asked(struct keeper_lock *l, enum keeper_lock_step step, const char *spec, struct error *err)
{
	int r = read_begin(l, step, spec);

	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot %s \"%s\"",
				   step == KEEPER_LOCK_REFRESHING ? "refresh" : "unlock", l->m->config->name);
	return 1;
}

void keeper_lock_lingered(struct keeper_lock *l)
{
	struct error err = ERROR_NONE;

	l->lingerer = 0;
	if (l->m->state == MOUNT_LOCKED && l->step == KEEPER_LOCK_IDLE && lower_root(l->m->lower) < 0 &&
	    lower_take(l->m->lower, &err) < 0)
		log_error(&err);
}

int keeper_unlock(struct keeper_lock *l, const char *spec, struct error *err)
{
	int r;

	give_way(l, false);
	if (l->step == KEEPER_LOCK_REFRESHING || l->step == KEEPER_LOCK_RENEWING)
		return busy(l->m, "unlock", "a refresh", err);
	if (l->step != KEEPER_LOCK_IDLE)
		return busy(l->m, "unlock", is_locking(l) ? "a lock" : "another unlock", err);
	if (l->m->state == MOUNT_UNLOCKED)
		return 0;
	if (l->m->state != MOUNT_LOCKED)
		return not_serving(l->m, "unlock", err);
	r = take_lower(l, err);
	return r < 0 ? r : read_asked(l, KEEPER_LOCK_READING_KEY, spec, err);
}

int keeper_refresh(struct keeper_lock *l, struct error *err)
{
	const char *name = l->m->config->name;

	give_way(l, false);
	if (l->step != KEEPER_LOCK_IDLE)
		return busy(l->m, "refresh",
			    is_locking(l)                      ? "a lock"
			    : command_of(l) == MESSAGE_REFRESH ? "another refresh"
							       : "an unlock",
			    err);
	if (l->m->state == MOUNT_LOCKED) {
		error_set(err, -ENOKEY, EXIT_STATUS_NO_KEY, "cannot refresh \"%s\": it is locked", name);
		error_hint(err, "ckrfs unlock %s", name);
		return -ENOKEY;
	}
	if (l->m->state != MOUNT_UNLOCKED)
		return not_serving(l->m, "refresh", err);
	if (!l->m->key_spec)
		return error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED, "cannot refresh \"%s\": %s", name,
				 l->m->config->ephemeral ? "it is ephemeral, and its key has no source"
							 : "it has no key");
	return read_asked(l, KEEPER_LOCK_REFRESHING, l->m->key_spec, err);
}

int keeper_lock_begin_automatic(struct keeper_lock *l, enum message_command command, int refusal)
{
	int r = 0;

	if (l->step != KEEPER_LOCK_IDLE)
		return -EBUSY;
	l->automatic = true;
	if (command == MESSAGE_LOCK)
		lock_begin(l, AUTOMATIC_TIMEOUT_MS, refusal);
	else
		r = read_begin(l,
			       command == MESSAGE_UNLOCK ? KEEPER_LOCK_READING_KEY : KEEPER_LOCK_REFRESHING,
			       l->m->key_spec);
	if (r < 0)
		l->automatic = false;
	return r;
}

void keeper_lock_timeout(struct keeper_lock *l)
{
	struct error err = ERROR_NONE;
	struct lower_report report = {0};

	if (!l->patience || monotonic_ms() < l->patience)
		return;
	l->patience = 0;
	switch (l->step) {
	case KEEPER_LOCK_OPENING:
		child_end(l);
		command(l, SERVER_LOCK_BEGIN, KEEPER_LOCK_BEGINNING);
		break;
	case KEEPER_LOCK_SYNCING:
		child_end(l);
		command(l, SERVER_LOCK_FINISH, KEEPER_LOCK_FINISHING);
		break;
	case KEEPER_LOCK_READING_KEY:
	case KEEPER_LOCK_REFRESHING:
		fail(l, -ETIMEDOUT, "reading the key");
		break;
	case KEEPER_LOCK_LOWER:
	case KEEPER_LOCK_LOWER_AGAIN:
		error_set(&report.error, -ETIMEDOUT, EXIT_STATUS_FAILED,
			  "the kernel does not come to an end with its key (is the disk slow?)");
		lower_ended(l, &report);
		break;
	default:
		/* The server hangs in the lower. Nobody waits any more, but its answer counts when it comes.
		 */
		error_set(&err, -ETIMEDOUT, EXIT_STATUS_FAILED,
			  "cannot %s \"%s\": the server does not come to an end (is the disk slow?)",
			  verbs[command_of(l)], l->m->config->name);
		l->done(l->ctx, command_of(l), &err);
	}
}

void keeper_lock_stop(struct keeper_lock *l)
{
	child_end(l);
	end_lingerer(l);
	free(steal_ptr(&l->spec));
	l->step = KEEPER_LOCK_IDLE;
}
