/* SPDX-License-Identifier: MIT */
/*
 * The control socket of one mount: one request and one answer a connection (message.h). Only root and the
 * mount's owner are answered. Nothing a client does or leaves undone makes the keeper wait: all is
 * non-blocking, bounded in number, size and time; when there are too many, the oldest make room, root's last.
 * What clients have the keeper do is told to an audit (log_audit()). One thread.
 */
#ifndef CKRFS_CONTROL_H
#define CKRFS_CONTROL_H

#include "error.h"
#include "message.h"
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { CONTROL_CLIENTS_MAX = 16, CONTROL_POLL_MAX = CONTROL_CLIENTS_MAX + 1, CONTROL_TIMEOUT_MS = 5000 };

/* What the keeper does for a client. */
struct control_handler {
	const char *name; /* of the mount, for the audit; borrowed */
	void (*status)(void *ctx, struct message_status *ret);
	/* Answered later, by control_answer(). */
	void (*umount)(void *ctx, bool lazy);
	/* The other commands, for a client with that uid. 1: answered later, by control_answer(); 0: done; or
	 * the error. */
	int (*command)(void *ctx, const struct message_request *request, uid_t uid, struct error *err);
	/* Begins a check that tells its findings through the pipe fd, which it takes. */
	int (*check)(void *ctx, int fd, struct error *err);
};

struct control;

/* Makes the socket "control" in dir_fd (0600, of owner). handler is borrowed. */
int control_open(int dir_fd, uid_t owner, const struct control_handler *handler, void *ctx,
		 struct control **ret, struct error *err);

/* Fills in what to poll(2) for, at most CONTROL_POLL_MAX; the number. */
size_t control_poll(struct control *c, struct pollfd *fds);

/* Milliseconds until some client's time is up, -1: none. */
int control_timeout(const struct control *c);

/* Does what can be done after poll(2) on what control_poll() filled in. */
void control_serve(struct control *c, const struct pollfd *fds, size_t n);

/* Answers everybody who waits for this command: err->code 0 is success. */
void control_answer(struct control *c, enum message_command command, const struct error *err);

/* Sends what is ready to be sent, and closes everything. NULL is fine. */
void control_close(struct control *c);

#endif
