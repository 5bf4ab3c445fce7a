/* SPDX-License-Identifier: MIT */
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "audit.h"
#include "cleanup.h"
#include "util.h"

enum client_state { CLIENT_NONE, CLIENT_ASKING, CLIENT_WAITING, CLIENT_ANSWERED };

struct client {
	enum client_state state;
	enum message_command command; /* CLIENT_WAITING: for its end */
	struct audit_peer peer;
	int fd;
	uint64_t serial; /* in the order in which they came */
	int passed_fd;   /* that came with the request; -1: none */
	uint64_t deadline;
	char *in; /* MESSAGE_MAX bytes */
	size_t in_used;
	char *out; /* what is left is at out_sent */
	size_t out_size, out_sent;
};

struct control {
	int fd;
	uid_t owner;
	const struct control_handler *handler;
	void *ctx;
	uint64_t serial; /* of the client that came last */
	struct audit audit;
	struct client clients[CONTROL_CLIENTS_MAX];
};

/* ---- the socket ---- */

/* By the directory's fd: a path may be longer than an address holds. */
static int bind_socket(int fd, int dir_fd)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	mode_t mask;
	int r;

	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/control", dir_fd);
	unlinkat(dir_fd, "control", 0);
	mask = umask(0177);
	r = bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	umask(mask);
	return r;
}

static int control_listen(struct control *c, int dir_fd)
{
	int r;

	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd < 0)
		return -errno;
	r = bind_socket(c->fd, dir_fd);
	if (r < 0)
		return r;
	if (c->owner != geteuid() &&
	    fchownat(dir_fd, "control", c->owner, (gid_t)-1, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return listen(c->fd, SOMAXCONN) < 0 ? -errno : 0;
}

int control_open(int dir_fd, uid_t owner, const struct control_handler *handler, void *ctx,
		 struct control **ret, struct error *err)
{
	struct control *c = calloc(1, sizeof(*c));
	int r = -ENOMEM;

	if (c) {
		c->owner = owner;
		c->handler = handler;
		c->audit.name = handler->name;
		c->ctx = ctx;
		r = control_listen(c, dir_fd);
	}
	if (r < 0) {
		control_close(c);
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot make the control socket");
	}
	*ret = c;
	return 0;
}

/* ---- one client ---- */

static void client_free(struct client *cl)
{
	close(cl->fd);
	cleanup_close(&cl->passed_fd);
	free(cl->in);
	free(cl->out);
	*cl = (struct client){.fd = -1, .passed_fd = -1};
}

/* Whoever leaves before the answer has had it done all the same. */
static void client_leave(struct control *c, struct client *cl)
{
	if (cl->state == CLIENT_WAITING)
		audit_command(&c->audit, &cl->peer, cl->command, NULL);
	client_free(cl);
}

static void client_send(struct client *cl)
{
	ssize_t n;

	do
		n = send(cl->fd, cl->out + cl->out_sent, cl->out_size - cl->out_sent, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n > 0)
		cl->out_sent += (size_t)n;
	if (n < 0 || cl->out_sent == cl->out_size)
		client_free(cl);
}

/* Takes the text; NULL: there was no memory for it. */
static void client_answer(struct client *cl, char *text)
{
	if (!text) {
		client_free(cl);
		return;
	}
	cl->state = CLIENT_ANSWERED;
	cl->out = text;
	cl->out_size = strlen(text);
	cl->deadline = monotonic_ms() + CONTROL_TIMEOUT_MS;
	client_send(cl);
}

static void client_refuse(struct client *cl, const struct error *err)
{
	char *text = NULL;

	message_format_error(err, &text);
	client_answer(cl, text);
}

/* The answer to a command that is done, or has failed. */
static void client_end(struct control *c, struct client *cl, const struct error *err)
{
	char *text = NULL;

	audit_command(&c->audit, &cl->peer, cl->command, err);
	if (err->code < 0)
		message_format_error(err, &text);
	else
		message_format_done(&text);
	client_answer(cl, text);
}

static void client_check(struct control *c, struct client *cl)
{
	struct error err = ERROR_NONE;

	if (cl->passed_fd < 0)
		error_set(&err, -EBADMSG, EXIT_STATUS_FAILED, "no pipe came with the request");
	else
		c->handler->check(c->ctx, steal_fd(&cl->passed_fd), &err);
	client_end(c, cl, &err);
}

static void client_do(struct control *c, struct client *cl, const struct message_request *request)
{
	struct message_status status;
	struct error err = ERROR_NONE;
	char *text = NULL;
	int r;

	cl->command = request->command;
	switch (request->command) {
	case MESSAGE_STATUS:
		c->handler->status(c->ctx, &status);
		message_format_status(&status, &text);
		client_answer(cl, text);
		break;
	case MESSAGE_UMOUNT:
		cl->state = CLIENT_WAITING;
		c->handler->umount(c->ctx, request->lazy);
		break;
	case MESSAGE_CHECK:
		client_check(c, cl);
		break;
	default:
		cl->state = CLIENT_WAITING;
		r = c->handler->command(c->ctx, request, cl->peer.uid, &err);
		/* It may have ended, and been answered, already. */
		if (r <= 0 && cl->state == CLIENT_WAITING)
			client_end(c, cl, &err);
	}
}

/* The request is there when its line has ended. */
static void client_parse(struct control *c, struct client *cl)
{
	const char *end = memchr(cl->in, '\n', cl->in_used);
	struct message_request request;
	struct error err = ERROR_NONE;

	if (!end && cl->in_used < MESSAGE_MAX)
		return;
	if (!end)
		error_set(&err, -EMSGSIZE, EXIT_STATUS_FAILED, "the request is longer than %d bytes",
			  MESSAGE_MAX);
	else if (message_request_parse(cl->in, (size_t)(end - cl->in) + 1, &request, &err) == 0) {
		client_do(c, cl, &request);
		return;
	}
	client_refuse(cl, &err);
}

/* Keeps the first of the descriptors that came along, and closes the others. */
static void client_take_fds(struct client *cl, struct msghdr *msg)
{
	for (struct cmsghdr *cm = CMSG_FIRSTHDR(msg); cm; cm = CMSG_NXTHDR(msg, cm)) {
		size_t n = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cm) + i * sizeof(fd), sizeof(fd));
			if (cl->passed_fd < 0)
				cl->passed_fd = fd;
			else
				close(fd);
		}
	}
}

static ssize_t client_read(struct client *cl)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {cl->in + cl->in_used, MESSAGE_MAX - cl->in_used};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.room,
			     .msg_controllen = sizeof(control.room)};
	ssize_t n = recvmsg(cl->fd, &msg, MSG_CMSG_CLOEXEC);

	if (n >= 0)
		client_take_fds(cl, &msg);
	return n;
}

static void client_receive(struct control *c, struct client *cl)
{
	ssize_t n;
	char rest;

	/* Whoever waits for its answer has nothing more to say: only its end is looked for. */
	if (cl->state != CLIENT_ASKING)
		n = recv(cl->fd, &rest, 1, 0);
	else
		n = client_read(cl);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		client_leave(c, cl);
		return;
	}
	if (cl->state == CLIENT_ASKING) {
		cl->in_used += (size_t)n;
		client_parse(c, cl);
	}
}

/* ---- who comes ---- */

static bool peer_allowed(const struct control *c, const struct audit_peer *peer)
{
	return peer->uid == 0 || peer->uid == c->owner;
}

/* Does a have to go before b? Who has not said what it wants, or does not read, goes before who waits; root
 * goes last; then it is by age. */
static bool goes_before(const struct client *a, const struct client *b)
{
	if ((a->peer.uid == 0) != (b->peer.uid == 0))
		return a->peer.uid != 0;
	if ((a->state == CLIENT_WAITING) != (b->state == CLIENT_WAITING))
		return a->state != CLIENT_WAITING;
	return a->serial < b->serial;
}

static struct client *client_free_slot(struct control *c)
{
	for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (c->clients[i].state == CLIENT_NONE)
			return &c->clients[i];
	return NULL;
}

static struct client *client_slot(struct control *c)
{
	struct client *slot = client_free_slot(c), *first = c->clients;

	if (slot)
		return slot;
	/* What somebody has said by now is heard first. */
	for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (c->clients[i].state == CLIENT_ASKING)
			client_receive(c, &c->clients[i]);
	slot = client_free_slot(c);
	if (slot)
		return slot;
	for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (goes_before(&c->clients[i], first))
			first = &c->clients[i];
	client_leave(c, first);
	return first;
}

static void client_begin(struct control *c, int fd)
{
	struct client *cl = client_slot(c);
	struct error err = ERROR_NONE;

	*cl = (struct client){.state = CLIENT_ASKING,
			      .fd = fd,
			      .passed_fd = -1,
			      .serial = ++c->serial,
			      .deadline = monotonic_ms() + CONTROL_TIMEOUT_MS,
			      .in = malloc(MESSAGE_MAX)};
	if (!cl->in || audit_peer(fd, &cl->peer) < 0) {
		client_free(cl);
	} else if (!peer_allowed(c, &cl->peer)) {
		error_set(&err, -EPERM, EXIT_STATUS_FAILED, "only root and the mount's owner may do that");
		audit_refused(&c->audit, &cl->peer);
		client_refuse(cl, &err);
	}
}

/* As many as are there, but not for ever. */
static void client_accept(struct control *c)
{
	for (int i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0)
			return;
		client_begin(c, fd);
	}
}

/* ---- all of them ---- */

size_t control_poll(struct control *c, struct pollfd *fds)
{
	size_t n = 0;

	for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		const struct client *cl = &c->clients[i];

		if (cl->state != CLIENT_NONE)
			fds[n++] = (struct pollfd){
				.fd = cl->fd,
				.events = cl->state == CLIENT_ANSWERED ? POLLOUT : POLLIN,
			};
	}
	fds[n++] = (struct pollfd){.fd = c->fd, .events = POLLIN};
	return n;
}

int control_timeout(const struct control *c)
{
	uint64_t now = monotonic_ms();
	int least = -1;

	for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		const struct client *cl = &c->clients[i];
		int left;

		if (cl->state != CLIENT_ASKING && cl->state != CLIENT_ANSWERED)
			continue;
		left = cl->deadline > now ? (int)(cl->deadline - now) : 0;
		if (least < 0 || left < least)
			least = left;
	}
	return least;
}

static void client_event(struct control *c, int fd, short events)
{
	if (fd == c->fd) {
		client_accept(c);
		return;
	}
	for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		struct client *cl = &c->clients[i];

		if (cl->state == CLIENT_NONE || cl->fd != fd)
			continue;
		if (events & POLLOUT)
			client_send(cl);
		else
			client_receive(c, cl);
		return;
	}
}

void control_serve(struct control *c, const struct pollfd *fds, size_t n)
{
	uint64_t now = monotonic_ms();

	/* The socket itself is the last: who comes may take the place, and the number, of somebody who goes.
	 */
	for (size_t i = 0; i < n; i++)
		if (fds[i].revents)
			client_event(c, fds[i].fd, fds[i].revents);
	for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		struct client *cl = &c->clients[i];

		if ((cl->state == CLIENT_ASKING || cl->state == CLIENT_ANSWERED) && cl->deadline <= now)
			client_free(cl);
	}
}

void control_answer(struct control *c, enum message_command command, const struct error *err)
{
	for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (c->clients[i].state == CLIENT_WAITING && c->clients[i].command == command)
			client_end(c, &c->clients[i], err);
}

void control_close(struct control *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (c->clients[i].state != CLIENT_NONE)
			client_free(&c->clients[i]);
	if (c->fd >= 0)
		close(c->fd);
	free(c);
}
