/* SPDX-License-Identifier: MIT */
#include "control_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "config.h"
#include "mountinfo.h"
#include "util.h"

/* How long to wait for a keeper that starts. */
enum { START_WAIT_MS = 10000, START_TICK_NS = 10000000 };

/* ---- asking ---- */

/* By the directory's fd: a path may be longer than an address holds. */
static int connect_to(const struct runtime *rt, const char *name)
{
	autofd int dir_fd = openat(rt->mounts_fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	autofd int fd = -1;

	if (dir_fd < 0)
		return -errno;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/control", dir_fd);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	return steal_fd(&fd);
}

/* Nobody listens. Does a keeper live all the same, that has not begun to or is about to end? */
static bool is_between(const struct runtime *rt, const char *name, int r)
{
	bool alive;

	return (r == -ENOENT || r == -ECONNREFUSED) && runtime_look(rt, name, &alive, NULL) == 0 && alive;
}

/* The mount is in the mount table before its keeper listens. -EBUSY: it still does not. */
static int connect_patiently(const struct runtime *rt, const char *name)
{
	uint64_t end = monotonic_ms() + START_WAIT_MS;

	for (;;) {
		struct timespec t = {.tv_nsec = START_TICK_NS};
		int r = connect_to(rt, name);

		if (!is_between(rt, name, r))
			return r;
		if (monotonic_ms() > end)
			return -EBUSY;
		nanosleep(&t, NULL);
	}
}

/* With the first bytes, if pass_fd is not negative. */
static ssize_t send_with_fd(int fd, const char *text, size_t size, int pass_fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {.room = {0}};
	struct iovec iov = {(void *)(uintptr_t)text, size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (pass_fd >= 0) {
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.head), &pass_fd, sizeof(pass_fd));
		msg.msg_control = control.room;
		msg.msg_controllen = sizeof(control.room);
	}
	return sendmsg(fd, &msg, MSG_NOSIGNAL);
}

static int send_text(int fd, const char *text, int pass_fd)
{
	size_t size = strlen(text);

	while (size > 0) {
		ssize_t n = send_with_fd(fd, text, size, pass_fd);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			text += n;
			size -= (size_t)n;
			pass_fd = -1;
		}
	}
	return 0;
}

/* Up to the end of the line: the number of bytes. */
static ssize_t receive_line(int fd, char *buf, size_t size, int timeout_ms)
{
	uint64_t end = monotonic_ms() + (uint64_t)timeout_ms;
	size_t used = 0;

	while (used < size && !memchr(buf, '\n', used)) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		uint64_t now = monotonic_ms();
		ssize_t n;

		if (now >= end || poll(&p, 1, (int)(end - now)) == 0)
			return -ETIMEDOUT;
		n = recv(fd, buf + used, size - used, 0);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return -ECONNRESET;
		if (n > 0)
			used += (size_t)n;
	}
	return (ssize_t)used;
}

static int ask_failed(int r, const char *name, int timeout_ms, struct error *err)
{
	if (r == -ETIMEDOUT)
		return error_set(err, r, EXIT_STATUS_FAILED,
				 "the keeper of \"%s\" does not answer within %d s", name, timeout_ms / 1000);
	if (r == -EACCES)
		return error_set(err, r, EXIT_STATUS_FAILED,
				 "cannot control \"%s\": only root and the mount's owner may do that", name);
	return error_errno(err, r, EXIT_STATUS_FAILED, "cannot reach the keeper of \"%s\"", name);
}

static int ask(const struct runtime *rt, const char *name, const struct message_request *request, int pass_fd,
	       int timeout_ms, struct message_status *ret_status, struct error *err)
{
	autofree char *text = NULL, *answer = malloc(MESSAGE_MAX);
	autofd int fd = -1;
	ssize_t n;
	int r = answer ? message_request_format(request, &text) : -ENOMEM;

	if (r < 0) {
		text = NULL;
		return ask_failed(r, name, timeout_ms, err);
	}
	fd = request->command == MESSAGE_STATUS ? connect_to(rt, name) : connect_patiently(rt, name);
	if (fd == -EBUSY)
		return error_set(err, -EBUSY, EXIT_STATUS_BUSY, "\"%s\" is still being mounted", name);
	r = fd < 0 ? fd : send_text(fd, text, pass_fd);
	/* Who is refused has the answer before he asks. */
	if (r < 0 && (fd < 0 || r != -EPIPE))
		return ask_failed(r, name, timeout_ms, err);
	n = receive_line(fd, answer, MESSAGE_MAX, timeout_ms);
	if (n < 0)
		return ask_failed((int)n, name, timeout_ms, err);
	return message_response_parse(answer, (size_t)n, ret_status, err);
}

int control_client_ask(const struct runtime *rt, const char *name, const struct message_request *request,
		       int timeout_ms, struct message_status *ret_status, struct error *err)
{
	return ask(rt, name, request, -1, timeout_ms, ret_status, err);
}

int control_client_check(const struct runtime *rt, const char *name, int fd, struct error *err)
{
	struct message_request request = {.command = MESSAGE_CHECK};

	return ask(rt, name, &request, fd, CONTROL_CLIENT_TIMEOUT_MS, NULL, err);
}

/* ---- finding ---- */

static int look_for_name(struct control_mount *m, struct error *err)
{
	int r = m->runtime.mounts_fd < 0 ? -ENOENT
					 : runtime_look(&m->runtime, m->name, &m->alive, &m->record);

	/* Somebody else's, who may have made us its owner: asking will tell. */
	if (r == -EACCES) {
		m->alive = true;
		r = 0;
	}
	if (r == -ENOENT || r == 0)
		return r;
	return error_errno(err, r, EXIT_STATUS_FAILED, "cannot look at %s/%s", m->runtime.path, m->name);
}

/* Is some mount of this runtime directory on target? Then its name is taken. */
static int look_for_target(struct control_mount *m, const char *target)
{
	char **names;
	int r = -ENOENT;

	if (m->runtime.mounts_fd < 0 || runtime_names(&m->runtime, &names) < 0)
		return -ENOENT;
	for (size_t i = 0; names[i] && r < 0; i++) {
		struct record record = {0};
		bool alive;

		if (runtime_look(&m->runtime, names[i], &alive, &record) < 0 ||
		    strcmp(record.target, target) != 0)
			continue;
		snprintf(m->name, sizeof(m->name), "%s", names[i]);
		m->alive = alive;
		m->record = record;
		r = 0;
	}
	runtime_names_free(names);
	return r;
}

/* Like realpath(3), but does not ask the last component: that may be a dead mount. */
static int canonical_path(const char *path, char ret[4096])
{
	autofree char *copy = strdup(path);
	char parent[4096], *slash;

	if (realpath(path, ret))
		return 0;
	if (!copy)
		return -ENOMEM;
	while ((slash = strrchr(copy, '/')) && slash != copy && !slash[1])
		*slash = '\0';
	if (!slash || !slash[1])
		return -ENOENT;
	*slash = '\0';
	if (!realpath(*copy ? copy : "/", parent))
		return -errno;
	if (snprintf(ret, 4096, "%s/%s", parent[1] ? parent : "", slash + 1) >= 4096)
		return -ENAMETOOLONG;
	return 0;
}

static int find_path(const char *path, struct control_mount *m, struct error *err)
{
	struct mountinfo info;
	char target[4096];
	int r;

	if (canonical_path(path, target) < 0)
		return -ENOENT;
	if (mountinfo_find(target, &info) < 0 || strcmp(info.type, MOUNTINFO_TYPE) != 0 ||
	    !config_mount_name_valid(info.source))
		return look_for_target(m, target);
	memcpy(m->name, info.source, strlen(info.source) + 1); /* a valid name fits */
	r = look_for_name(m, err);
	/* It is there, but its keeper is of another runtime directory. */
	if (r == -ENOENT || (r == 0 && m->record.target[0] && strcmp(m->record.target, target) != 0))
		r = -EXDEV;
	snprintf(m->record.target, sizeof(m->record.target), "%s", target);
	return r;
}

static int find_here(const char *what, struct control_mount *m, struct error *err)
{
	if (strchr(what, '/'))
		return find_path(what, m, err);
	if (!config_mount_name_valid(what))
		return -ENOENT;
	snprintf(m->name, sizeof(m->name), "%s", what);
	return look_for_name(m, err);
}

static int not_mounted(const struct control_mount *m, const char *what, struct error *err)
{
	char **names = NULL;
	const char *near = NULL;

	if (strchr(what, '/'))
		return error_set(err, -ENOENT, EXIT_STATUS_NO_VOLUME, "nothing of ckrfs is mounted on %s",
				 what);
	if (m->runtime.mounts_fd >= 0 && runtime_names(&m->runtime, &names) == 0)
		near = nearest_word(what, (const char *const *)names);
	if (near)
		error_set(err, -ENOENT, EXIT_STATUS_NO_VOLUME, "\"%s\" is not mounted (did you mean \"%s\"?)",
			  what, near);
	else
		error_set(err, -ENOENT, EXIT_STATUS_NO_VOLUME, "\"%s\" is not mounted", what);
	runtime_names_free(names);
	return -ENOENT;
}

int control_client_find(const char *what, struct control_mount *ret, struct error *err)
{
	struct control_mount own = CONTROL_MOUNT_NONE, system = CONTROL_MOUNT_NONE;
	int r = runtime_open(false, &own.runtime, err);

	if (r < 0 && r != -ENOENT)
		return r;
	r = find_here(what, &own, err);
	/* What root has mounted for us. */
	if ((r == -ENOENT || r == -EXDEV) && geteuid() != 0 &&
	    runtime_open_system(&system.runtime, NULL) == 0 && find_here(what, &system, NULL) == 0) {
		control_client_close(&own);
		*ret = system;
		return 0;
	}
	control_client_close(&system);
	if (r == -ENOENT)
		r = not_mounted(&own, what, err);
	if (r < 0)
		control_client_close(&own);
	if (r < 0 && r != -EXDEV)
		return r;
	*ret = own;
	return 0;
}

void control_client_close(struct control_mount *m)
{
	runtime_close(&m->runtime);
}
