/* SPDX-License-Identifier: MIT */
/* ckrfs volume-plugin: options, the socket, the front's process, and the loop between it and the volumes. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "command.h"
#include "log.h"
#include "notify.h"
#include "util.h"
#include "volume_plugin_impl.h"

#define SOCKET_DEFAULT "/run/docker/plugins/ckrfs.sock"

enum { LISTEN_FD = 3 /* sd_listen_fds(3) */ };

/* A front that dies again and again is no accident. */
enum { FRONT_DEATHS_MAX = 5, FRONT_DEATHS_MS = 10000 };

struct plugin_args {
	const char *config_file, *socket, *group, *state;
	uint64_t answer_ms, linger_ms;
	bool print_spec;
};

struct waiting_message {
	struct waiting_message *next;
	struct front_message message;
};

struct plugin {
	struct plugin_args args;
	struct plugin_store store;
	struct volumes *volumes;
	int listen_fd, channel_fd;
	dev_t socket_dev; /* of the socket that we made; 0: somebody else did */
	ino_t socket_ino;
	pid_t front;
	struct waiting_message *out, **out_end; /* what the front has not taken yet */
	uint64_t deaths_since;
	unsigned deaths;
	bool stopping, ended, failed;
};

static volatile sig_atomic_t signalled_stop, signalled_child;

static int plugin_args_set(void *ctx, const char *name, const char *value, struct error *err)
{
	struct plugin_args *a = ctx;
	uint64_t *time_ms = NULL;

	if (strcmp(name, "config") == 0)
		a->config_file = value;
	else if (strcmp(name, "socket") == 0)
		a->socket = value;
	else if (strcmp(name, "group") == 0)
		a->group = value;
	else if (strcmp(name, "state") == 0)
		a->state = value;
	else if (strcmp(name, "print-spec") == 0)
		a->print_spec = true;
	else if (strcmp(name, "answer") == 0)
		time_ms = &a->answer_ms;
	else if (strcmp(name, "linger") == 0)
		time_ms = &a->linger_ms;
	if (time_ms && (parse_duration_ms(value, time_ms) < 0 || *time_ms == 0 || *time_ms > INT32_MAX))
		return error_set(err, -EINVAL, EXIT_STATUS_USAGE,
				 "--%s \"%s\" is not a time like 4s or 500ms", name, value);
	return 0;
}

/* ---- the socket ---- */

/* A socket of systemd: LISTEN_FDS, sd_listen_fds(3). 1: there is one. */
static int inherit_socket(struct plugin *p, struct error *err)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	int listening = 0;
	socklen_t size = sizeof(listening);
	uint64_t number;

	if (!pid || !fds || parse_u64(pid, INT32_MAX, &number) < 0 || (pid_t)number != getpid())
		return 0;
	if (strcmp(fds, "1") != 0)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "one socket is needed, not %s", fds);
	if (getsockopt(LISTEN_FD, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0 || !listening)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "what came as socket (LISTEN_FDS) does not listen");
	if (fcntl(LISTEN_FD, F_SETFD, FD_CLOEXEC) < 0 || fcntl(LISTEN_FD, F_SETFL, O_NONBLOCK) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot use the socket of LISTEN_FDS");
	p->listen_fd = LISTEN_FD;
	return 1;
}

/* What an earlier plugin left is removed; one that answers is not. */
static int remove_old(const struct sockaddr_un *address, struct error *err)
{
	autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;

	if (lstat(address->sun_path, &st) < 0)
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return error_set(err, -EEXIST, EXIT_STATUS_FAILED, "%s is there, and is no socket",
				 address->sun_path);
	if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN)
		return error_set(err, -EADDRINUSE, EXIT_STATUS_BUSY, "another plugin answers at %s",
				 address->sun_path);
	unlink(address->sun_path);
	return 0;
}

static int allow_group(const char *path, const char *name, struct error *err)
{
	const struct group *group = getgrnam(name);

	if (!group)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "there is no group \"%s\"", name);
	if (chown(path, (uid_t)-1, group->gr_gid) < 0 || chmod(path, 0660) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot let group \"%s\" use %s", name,
				   path);
	return 0;
}

static void make_above(const char *path)
{
	autofree char *copy = strdup(path);

	for (char *p = copy ? copy + 1 : NULL; p && (p = strchr(p, '/')); *p++ = '/') {
		*p = '\0';
		mkdir(copy, 0755); /* if it fails, so will bind() */
	}
}

static int make_socket(struct plugin *p, struct error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *path = p->args.socket;
	struct stat st;
	mode_t mask;
	int r;

	if (path[0] != '/' || strlen(path) >= sizeof(address.sun_path))
		return error_set(err, -EINVAL, EXIT_STATUS_USAGE,
				 "--socket is not an absolute path of less than %zu bytes",
				 sizeof(address.sun_path));
	memcpy(address.sun_path, path, strlen(path) + 1);
	make_above(path);
	r = remove_old(&address, err);
	if (r < 0)
		return r;
	p->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mask = umask(0177);
	r = p->listen_fd < 0 || bind(p->listen_fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno
												     : 0;
	umask(mask);
	if (r == 0 && lstat(path, &st) == 0) {
		p->socket_dev = st.st_dev;
		p->socket_ino = st.st_ino;
	}
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot make the socket %s", path);
	r = p->args.group ? allow_group(path, p->args.group, err) : 0;
	if (r == 0 && listen(p->listen_fd, SOMAXCONN) < 0)
		r = error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot listen at %s", path);
	return r;
}

/* Only the one that we made. */
static void remove_socket(struct plugin *p)
{
	struct stat st;

	cleanup_close(&p->listen_fd);
	p->listen_fd = -1;
	if (p->socket_ino && lstat(p->args.socket, &st) == 0 && st.st_dev == p->socket_dev &&
	    st.st_ino == p->socket_ino)
		unlink(p->args.socket);
	p->socket_ino = 0;
}

/* ---- the front ---- */

static int start_front(struct plugin *p, struct error *err)
{
	pid_t self = getpid();
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot start the plugin's front");
	fflush(NULL);
	p->front = fork();
	if (p->front == 0) {
		prctl(PR_SET_NAME, "ckrfs-front");
		signal(SIGTERM, SIG_IGN); /* its end is the plugin's business */
		signal(SIGINT, SIG_IGN);
		plugin_store_close(&p->store);
		close(fds[0]);
		_exit(front_main(p->listen_fd, fds[1], self));
	}
	close(fds[1]);
	if (p->front < 0) {
		close(fds[0]);
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot start the plugin's front");
	}
	p->channel_fd = fds[0];
	return 0;
}

static void drop_messages(struct plugin *p)
{
	while (p->out) {
		struct waiting_message *w = p->out;

		p->out = w->next;
		free(w);
	}
	p->out_end = &p->out;
}

/* The front takes what it can, and never keeps us waiting. */
static void flush_messages(struct plugin *p)
{
	while (p->out && p->channel_fd >= 0) {
		struct waiting_message *w = p->out;

		if (send(p->channel_fd, &w->message, sizeof(w->message), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			return; /* its end is seen by its exit */
		p->out = w->next;
		if (!p->out)
			p->out_end = &p->out;
		free(w);
	}
}

static void tell_front(struct plugin *p, const struct front_message *message)
{
	struct waiting_message *w = malloc(sizeof(*w));

	if (!w) {
		/* Who waits for this is cut off. */
		cleanup_close(&p->channel_fd);
		p->channel_fd = -1;
		return;
	}
	w->next = NULL;
	w->message = *message;
	*p->out_end = w;
	p->out_end = &w->next;
	flush_messages(p);
}

static void on_answer(void *ctx, uint64_t serial, const struct plugin_answer *answer)
{
	static struct front_message message; /* large, and all of it is sent */

	memset(&message, 0, sizeof(message));
	message.kind = FRONT_ANSWER;
	message.serial = serial;
	message.answer = *answer;
	tell_front(ctx, &message);
}

/* A front that does not keep to the form is not ours any more. */
static void front_is_odd(struct plugin *p)
{
	log_msg(LOG_LEVEL_ERROR, "what reads the requests sends something else: it is ended [CK130]");
	kill(p->front, SIGKILL);
	cleanup_close(&p->channel_fd);
	p->channel_fd = -1;
}

static void on_channel(struct plugin *p)
{
	static struct front_message message;
	int r;

	while (p->channel_fd >= 0 && (r = front_receive(p->channel_fd, &message)) != -EAGAIN) {
		if (r == 1 && message.kind == FRONT_REQUEST && plugin_message_sound(&message.request)) {
			volumes_request(p->volumes, message.serial, &message.request);
		} else if (r == 1 && message.kind == FRONT_DELIVERED) {
			volumes_delivered(p->volumes, message.serial, message.done);
		} else if (r == 0 || r == -ECONNRESET) {
			cleanup_close(&p->channel_fd);
			p->channel_fd = -1;
		} else {
			front_is_odd(p);
		}
	}
}

static void front_ended(struct plugin *p, int status)
{
	struct error err = ERROR_NONE;
	uint64_t now = monotonic_ms();

	on_channel(p); /* what it had said before */
	cleanup_close(&p->channel_fd);
	p->channel_fd = -1;
	p->front = 0;
	drop_messages(p);
	volumes_hang_up(p->volumes);
	if (p->stopping) {
		p->ended = true;
		return;
	}
	log_msg(LOG_LEVEL_ERROR, "what reads the requests has ended (%s %d): starting it again [CK131]",
		WIFSIGNALED(status) ? "signal" : "status",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	if (now - p->deaths_since > FRONT_DEATHS_MS)
		p->deaths = 0;
	if (p->deaths++ == 0)
		p->deaths_since = now;
	if (p->deaths > FRONT_DEATHS_MAX || start_front(p, &err) < 0) {
		if (err.code)
			log_error(&err);
		p->failed = p->ended = true;
	}
}

/* ---- the loop ---- */

static void on_signal(int signal)
{
	if (signal == SIGCHLD)
		signalled_child = 1;
	else
		signalled_stop = 1;
}

static void reap(struct plugin *p)
{
	int status;
	pid_t pid;

	signalled_child = 0;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == p->front)
			front_ended(p, status);
		else
			volumes_child(p->volumes, pid);
	}
}

/* Those whose request is there are served; then the front ends. */
static void stop(struct plugin *p)
{
	static const struct front_message message = {.kind = FRONT_STOP};

	p->stopping = true;
	notify_send("STOPPING=1\nSTATUS=answering what was asked");
	log_msg(LOG_LEVEL_INFO, "stopping: mounts stay mounted");
	remove_socket(p);
	if (p->front > 0)
		tell_front(p, &message);
	else
		p->ended = true;
}

static void loop(struct plugin *p)
{
	sigset_t none;

	sigemptyset(&none);
	while (!p->ended) {
		struct pollfd fd = {.fd = p->channel_fd, .events = (short)(POLLIN | (p->out ? POLLOUT : 0))};
		int timeout = volumes_timeout(p->volumes);
		struct timespec t = {timeout / 1000, timeout % 1000 * 1000000L};

		/* Signals come in here and nowhere else. */
		if (ppoll(&fd, 1, timeout < 0 ? NULL : &t, &none) < 0)
			fd.revents = 0;
		if (fd.revents & POLLOUT)
			flush_messages(p);
		if (fd.revents & ~POLLOUT)
			on_channel(p);
		if (signalled_child)
			reap(p);
		if (signalled_stop && !p->stopping)
			stop(p);
		volumes_time(p->volumes);
	}
}

/* ---- start ---- */

static void block_signals(void)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGCHLD};
	struct sigaction action = {.sa_handler = on_signal};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		sigaddset(&set, signals[i]);
		sigaction(signals[i], &action, NULL);
	}
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* The configuration as it is now: it is read anew for each job. */
static int open_config(const struct plugin *p, struct error *err)
{
	autoconfig_set struct config_set *set = NULL;
	autoconfig struct config *cfg = NULL;
	int r = config_load(p->args.config_file, getuid(), &set, err);

	if (r == 0)
		r = policy_check_rules(set, err);
	if (r == 0)
		r = config_anonymous(set, "volume-plugin", &cfg, err);
	if (r < 0)
		return r;
	/* In the foreground stderr is the log, which is the journal under systemd. */
	return log_open(strcmp(cfg->log, "syslog") == 0 ? "stderr" : cfg->log, (enum log_level)cfg->log_level,
			err);
}

static int open_plugin(struct plugin *p, struct error *err)
{
	struct volumes_params params = {
		.env = {p->args.config_file, &p->store},
		.answer_ms = p->args.answer_ms,
		.linger_ms = p->args.linger_ms,
		.answer = on_answer,
		.ctx = p,
	};
	int r = open_config(p, err);

	block_signals();
	if (r == 0)
		r = plugin_store_open(p->args.state, &p->store, err);
	if (r == 0)
		r = volumes_new(&params, &p->volumes, err);
	if (r == 0)
		r = inherit_socket(p, err);
	if (r == 0)
		r = make_socket(p, err);
	return r < 0 ? r : start_front(p, err);
}

static void close_plugin(struct plugin *p)
{
	remove_socket(p);
	if (p->front > 0)
		kill(p->front, SIGKILL);
	cleanup_close(&p->channel_fd);
	drop_messages(p);
	volumes_free(p->volumes);
	plugin_store_close(&p->store);
}

static int run(const struct plugin_args *args, struct error *err)
{
	struct plugin p = {.args = *args,
			   .store = {.volumes_fd = -1, .counts_fd = -1},
			   .listen_fd = -1,
			   .channel_fd = -1};
	int r;

	p.out_end = &p.out;
	r = open_plugin(&p, err);
	if (r == 0) {
		log_msg(LOG_LEVEL_INFO, "serving volumes at %s", args->socket);
		notify_send("READY=1\nSTATUS=serving volumes");
		loop(&p);
		r = p.failed ? EXIT_STATUS_FAILED : EXIT_STATUS_DONE;
	}
	close_plugin(&p);
	return r;
}

int cmd_volume_plugin(const struct front *front, int argc, char **argv)
{
	const struct command *cmd = command_find("volume-plugin");
	struct plugin_args a = {.config_file = front->config_file,
				.socket = SOCKET_DEFAULT,
				.answer_ms = 4000,
				.linger_ms = 30000};
	struct error err = ERROR_NONE;
	int first, r = command_parse(cmd, argc, argv, plugin_args_set, &a, &first);

	if (r < 0)
		return r == -ECANCELED ? EXIT_STATUS_DONE : EXIT_STATUS_USAGE;
	if (first < argc)
		return command_usage(cmd, "unexpected \"%s\"", argv[first]);
	if (a.print_spec) {
		printf("unix://%s\n", a.socket);
		return EXIT_STATUS_DONE;
	}
	r = run(&a, &err);
	return r < 0 ? command_fail(&err) : r;
}
