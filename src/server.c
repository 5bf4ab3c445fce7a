/* SPDX-License-Identifier: MIT */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "cpu_latency.h"
#include "idmap.h"
#include "log.h"
#include "sandbox.h"
#include "server_check.h"
#include "store.h"
#include "util.h"

/* Places that were logged once already: more than that are counted only. */
enum { DAMAGES_REMEMBERED = 4096, THREADS_MIN = 2, THREADS_MAX = 8, FEW_PROCESSORS = 4 };

struct server {
	const struct mount *mount;
	int channel;
	int latency_fd; /* -1: none */
	unsigned protections, features;
	struct fs *fs; /* while it serves */
	struct server_check *check;
	struct idmap *uid_map, *gid_map; /* NULL: none; live as long as the process */
	pthread_t commander;             /* takes the keeper's commands */
	pthread_mutex_t lock;            /* guards the members below */
	size_t n_damages;
	uint64_t damages[DAMAGES_REMEMBERED];
};

/* ---- what the keeper is told ---- */

/* What comes from the server is not believed to end. */
static void error_end(struct error *err)
{
	err->text[sizeof(err->text) - 1] = '\0';
	err->hint[sizeof(err->hint) - 1] = '\0';
}

int server_receive(int channel, bool wait, struct server_message *ret)
{
	ssize_t n;

	do
		n = recv(channel, ret, sizeof(*ret), wait ? 0 : MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n > 0 && (size_t)n < sizeof(*ret))
		return -EBADMSG;
	if (ret->type == SERVER_FAILED)
		error_end(&ret->error);
	else if (ret->type == SERVER_LOG)
		ret->log.line[sizeof(ret->log.line) - 1] = '\0';
	else if (ret->type == SERVER_DONE)
		error_end(&ret->done.error);
	return (int)n;
}

static void send_message(int channel, const struct server_message *msg, int flags)
{
	/* Without a keeper there is nobody to tell; the kernel ends this process then. */
	(void)!send(channel, msg, sizeof(*msg), MSG_NOSIGNAL | flags);
}

/* A keeper that does not read must not stop requests: then lines are lost. */
static void send_line(void *ctx, enum log_level level, const char *line)
{
	const struct server *s = ctx;
	struct server_message msg = {.type = SERVER_LOG};

	msg.log.level = (int)level;
	snprintf(msg.log.line, sizeof(msg.log.line), "%s", line);
	send_message(s->channel, &msg, MSG_DONTWAIT);
}

int server_send(int channel, const struct server_command *command, int fd)
{
	struct server_command copy = *command;
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {.room = {0}};
	struct iovec iov = {&copy, sizeof(copy)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (channel < 0)
		return -EPIPE;
	if (fd >= 0) {
		msg.msg_control = control.room;
		msg.msg_controllen = sizeof(control.room);
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	}
	return sendmsg(channel, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

int server_ask_check(int channel, int fd)
{
	struct server_command command = {.type = SERVER_CHECK};

	return server_send(channel, &command, fd);
}

static void send_checked(void *ctx)
{
	const struct server *s = ctx;
	struct server_message msg = {.type = SERVER_CHECKED};

	send_message(s->channel, &msg, 0);
}

static void send_ready(void *ctx)
{
	const struct server *s = ctx;
	struct server_message msg = {.type = SERVER_READY};

	msg.protections = s->protections;
	msg.features = s->features;
	send_message(s->channel, &msg, 0);
}

/* ---- damage ---- */

static uint64_t hash_text(uint64_t h, const char *text)
{
	while (*text)
		h = (h ^ (unsigned char)*text++) * 1099511628211u; /* FNV-1a */
	return h;
}

/* Is this place new? */
static bool damage_remember(struct server *s, uint64_t hash)
{
	bool known = false;

	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->n_damages && !known; i++)
		known = s->damages[i] == hash;
	if (!known && s->n_damages < DAMAGES_REMEMBERED)
		s->damages[s->n_damages++] = hash;
	else
		known = true;
	pthread_mutex_unlock(&s->lock);
	return !known;
}

static void damage_found(void *ctx, const char *what, const char *where)
{
	struct server *s = ctx;

	if (!damage_remember(s, hash_text(hash_text(14695981039346656037u, what), where)))
		return;
	atomic_fetch_add(&s->mount->stats->damages, 1);
	log_msg(LOG_LEVEL_WARNING, "damaged: %s: %s [CK120]", where, what);
}

/* ---- start ---- */

/* Closes all fds but the standard ones and those of keep (sorted here). */
static int close_others(int *keep, size_t n)
{
	unsigned from = STDERR_FILENO + 1;

	for (size_t i = 0; i < n; i++)
		for (size_t j = i + 1; j < n; j++)
			if (keep[j] < keep[i]) {
				int t = keep[i];

				keep[i] = keep[j];
				keep[j] = t;
			}
	for (size_t i = 0; i < n; i++) {
		if ((unsigned)keep[i] > from && close_range(from, (unsigned)keep[i] - 1, 0) < 0)
			return -errno;
		from = (unsigned)keep[i] + 1;
	}
	return close_range(from, ~0U, 0) < 0 ? -errno : 0;
}

static void raise_fd_limit(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) == 0) {
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
}

/* The keeper's terminal or pipes are not the server's. */
static int detach_stdio(void)
{
	autofd int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		if (null < 0 || dup2(null, fd) < 0)
			return -errno;
	return 0;
}

/* All processors that have nothing to do spin while they are kept from sleeping: with a few, most of which
 * serve the client anyway, that costs little; with many it would. */
static bool wants_low_latency(const struct config *cfg)
{
	if (cfg->low_latency == CONFIG_AUTO)
		return sysconf(_SC_NPROCESSORS_ONLN) <= FEW_PROCESSORS;
	return cfg->low_latency == CONFIG_YES;
}

static int shed(struct server *s, struct error *err)
{
	const struct mount *m = s->mount;
	int keep[] = {s->channel, m->fuse.fuse_fd, lower_root(m->lower)};
	int r;

	log_set_sink(send_line, s);
	r = close_others(keep, ARRAY_SIZE(keep));
	if (r == 0 && wants_low_latency(m->config))
		s->latency_fd = cpu_latency_open(); /* without it the mount is slower, no more */
	if (r == 0)
		r = detach_stdio();
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot close what the server must not have")
		     : 0;
}

static int shut_in(struct server *s, struct error *err)
{
	const struct mount *m = s->mount;
	struct sandbox_params params = {
		.level = mount_sandbox_level(m),
		.keeper = m->keeper_pid,
		.root_fd = lower_root(m->lower),
		.root_private = lower_private(m->lower),
		.root_let_go = lower_needs_key(m->lower),
		.system_admin = m->config->format == CONFIG_FORMAT_PLAIN,
	};
	int r = store_init_proc();

	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot open /proc/self/fd");
	r = sandbox_no_core(&s->protections, err);
	if (r == 0)
		r = sandbox_enter(&params, &s->protections, err);
	if (r < 0)
		return r;
	r = store_enter_proc();
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot enter /proc/self/fd");
	return sandbox_close(&params, &s->protections, err);
}

static unsigned thread_count(const struct config *cfg)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (cfg->threads)
		return cfg->threads;
	return (unsigned)min_u64(THREADS_MAX, max_u64(THREADS_MIN, cpus > 0 ? (uint64_t)cpus : 1));
}

/* ---- the keeper's commands ---- */

static int unlock(struct server *s, int root_fd, uint64_t *ret_late, struct error *err)
{
	struct secret *room = s->mount->key_room;
	int r = fs_unlock(s->fs, room, root_fd, ret_late, err);

	explicit_bzero(secret_data(room), secret_size(room));
	return r;
}

static void command_do(struct server *s, const struct server_command *command, int fd)
{
	struct server_message msg = {.type = SERVER_DONE};
	struct fs_lock_report report = {0};

	msg.done.command = command->type;
	switch (command->type) {
	case SERVER_LOCK_BEGIN:
		server_check_cancel(s->check); /* it uses the key */
		fs_lock_begin(s->fs, command->refusal, command->timeout_ms, &msg.done.error);
		break;
	case SERVER_LOCK_FINISH:
		fs_lock_finish(s->fs, command->timeout_ms, &report, &msg.done.error);
		msg.done.unflushed = report.unflushed;
		msg.done.timed_out = report.timed_out;
		break;
	case SERVER_UNLOCK:
		unlock(s, fd, &msg.done.unflushed, &msg.done.error);
		break;
	case SERVER_RENEW:
		fs_renew(s->fs, &msg.done.error);
		break;
	case SERVER_CHECK:
		return;
	}
	send_message(s->channel, &msg, 0);
}

/* The size of the command; 0: there will be none any more. *ret_fd: what came along, or -1. */
static size_t command_receive(int channel, struct server_command *ret, int *ret_fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {ret, sizeof(*ret)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.room,
			     .msg_controllen = sizeof(control.room)};
	struct cmsghdr *cm;
	ssize_t n;

	do
		n = recvmsg(channel, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	cm = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
	*ret_fd = -1;
	if (cm && cm->cmsg_type == SCM_RIGHTS && cm->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(ret_fd, CMSG_DATA(cm), sizeof(int));
	return n > 0 ? (size_t)n : 0;
}

/* A thread of its own, as these wait for requests to be served. Ends with the channel. */
static void *commander_run(void *arg)
{
	struct server *s = arg;
	struct server_command command;
	size_t n;
	int fd;

	while ((n = command_receive(s->channel, &command, &fd)) > 0) {
		if (n == sizeof(command) && command.type != SERVER_CHECK)
			command_do(s, &command, fd);
		else if (n == sizeof(command) && fd >= 0)
			server_check_begin(s->check, steal_fd(&fd));
		cleanup_close(&fd);
	}
	return NULL;
}

static int serve_commanded(struct server *s)
{
	int r = pthread_create(&s->commander, NULL, commander_run, s);

	if (r)
		return -r;
	r = fs_serve(s->fs);
	shutdown(s->channel, SHUT_RD);
	pthread_join(s->commander, NULL);
	return r;
}

static const char *const passthrough_words[] = {
	[FS_PASSTHROUGH_OFF] = "off",
	[FS_PASSTHROUGH_ACTIVE] = "active",
	[FS_PASSTHROUGH_FORMAT] = "not with this format",
	[FS_PASSTHROUGH_LOWER] = "not on this type of file system",
	[FS_PASSTHROUGH_KERNEL] = "the kernel does not offer it (Linux 6.9 does)",
	[FS_PASSTHROUGH_PRIVILEGE] = "needs CAP_SYS_ADMIN",
};

const char *server_passthrough(const struct fs_stats *stats)
{
	unsigned state = atomic_load(&stats->passthrough);

	return state < ARRAY_SIZE(passthrough_words) ? passthrough_words[state] : "?";
}

static int no_passthrough(const struct mount *m, struct error *err)
{
	error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED, "passthrough = yes cannot be done: %s",
		  server_passthrough(m->stats));
	error_hint(err, "ckrfs mount %s -o passthrough=auto", m->config->name);
	return -EOPNOTSUPP;
}

/* Whose things are. The texts were checked when they were set. */
static int identity_fill(struct server *s, struct fs_params *params, struct error *err)
{
	const struct config *cfg = s->mount->config;
	int r = 0;

	if (cfg->uid_map)
		r = idmap_parse(cfg->uid_map, &s->uid_map, NULL);
	if (r == 0 && cfg->gid_map)
		r = idmap_parse(cfg->gid_map, &s->gid_map, NULL);
	if (r == 0 && cfg->present_owner)
		r = idmap_parse_owner(cfg->present_owner, &params->owner_uid, &params->owner_gid);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot set up the maps of ids");
	params->uid_map = s->uid_map;
	params->gid_map = s->gid_map;
	params->one_owner = cfg->present_owner;
	params->idmapped = cfg->idmap;
	/* All that is made belongs to who mounts. */
	params->act_as_caller = geteuid() == 0 && !params->one_owner && !params->lower_decides;
	return 0;
}

static int serve_error(const struct mount *m, int r, struct error *err)
{
	if (r == -EOPNOTSUPP && m->config->passthrough == CONFIG_YES &&
	    atomic_load(&m->stats->passthrough) > FS_PASSTHROUGH_ACTIVE)
		return no_passthrough(m, err);
	if (r == -EOPNOTSUPP && m->config->idmap)
		return error_set(err, r, EXIT_STATUS_UNSUPPORTED,
				 "idmap = yes: the kernel's FUSE has no idmapped mounts, Linux 6.12 has");
	return error_errno(err, r, EXIT_STATUS_FAILED, "the FUSE device failed");
}

static int serve(struct server *s, struct error *err)
{
	const struct mount *m = s->mount;
	const struct config *cfg = m->config;
	struct fs_params params = {
		.fuse_fd = m->fuse.fuse_fd,
		.root_fd = lower_root(m->lower),
		.format = m->format,
		.stats = m->stats,
		.threads = thread_count(cfg),
		.latency_fd = s->latency_fd,
		.writeback = cfg->writeback,
		/* An open file that is passed through cannot be locked. */
		.passthrough = cfg->passthrough == CONFIG_YES ||
			       (cfg->passthrough == CONFIG_AUTO && !lower_needs_key(m->lower)),
		.passthrough_needed = cfg->passthrough == CONFIG_YES,
		.shared = cfg->shared,
		.lower_let_go = lower_needs_key(m->lower),
		.lower_decides = config_lower_decides(cfg),
		.lower_remote = lower_renews(m->lower),
		.attr_timeout_ms = cfg->attr_timeout_ms,
		.entry_timeout_ms = cfg->entry_timeout_ms,
		.negative_timeout_ms = cfg->negative_timeout_ms,
		.ready = send_ready,
		.ready_ctx = s,
	};
	struct server_check_params check_params = {
		.format = m->format,
		.root_fd = lower_root(m->lower),
		.ended = send_checked,
		.ctx = s,
	};
	int r = format_start(m->format, damage_found, s, err);

	if (r == 0)
		r = identity_fill(s, &params, err);
	if (r == 0)
		r = fs_new(&params, &s->fs, err);
	if (r < 0)
		return r;
	s->features = (fs_has_handles(s->fs) ? SERVER_FILE_HANDLES : 0) |
		      (params.act_as_caller ? SERVER_CALLER_IDS : 0);
	r = server_check_start(&check_params, &s->check, err);
	if (r < 0) {
		fs_free(s->fs);
		return r;
	}
	r = serve_commanded(s);
	server_check_stop(s->check);
	fs_free(s->fs);
	return r < 0 ? serve_error(m, r, err) : 0;
}

static void __attribute__((noreturn)) server_run(const struct mount *m, int channel)
{
	struct server *s = calloc(1, sizeof(*s));
	struct server_message msg = {.type = SERVER_FAILED};
	struct error err = ERROR_NONE;
	int r;

	if (!s)
		_exit(EXIT_STATUS_FAILED);
	s->mount = m;
	s->channel = channel;
	s->latency_fd = -1;
	pthread_mutex_init(&s->lock, NULL);
	prctl(PR_SET_NAME, "ckrfs-server");
	umask(0);
	raise_fd_limit();
	r = shed(s, &err);
	if (r == 0)
		r = shut_in(s, &err);
	if (r == 0)
		r = serve(s, &err);
	format_free(m->format);
	if (r == 0)
		_exit(EXIT_STATUS_DONE);
	msg.error = err;
	send_message(channel, &msg, 0);
	_exit(EXIT_STATUS_FAILED);
}

int server_fork(struct mount *m, struct error *err)
{
	int sv[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot make a channel to the server");
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		server_run(m, sv[1]);
	close(sv[1]);
	if (pid < 0) {
		int code = -errno;

		close(sv[0]);
		return error_errno(err, code, EXIT_STATUS_FAILED, "cannot start the server");
	}
	m->server_pid = pid;
	m->server_channel = sv[0];
	return 0;
}
