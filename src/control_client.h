/* SPDX-License-Identifier: MIT */
/* The other end of the control sockets: finds mounts by name or place, and asks their keepers. */
#ifndef CKRFS_CONTROL_CLIENT_H
#define CKRFS_CONTROL_CLIENT_H

#include "error.h"
#include "message.h"
#include "runtime.h"
#include <stdbool.h>

enum { CONTROL_CLIENT_TIMEOUT_MS = 5000, CONTROL_CLIENT_UMOUNT_MS = 600000 };

/* A mount that somebody named. */
struct control_mount {
	struct runtime runtime; /* not open: the mount is there, but no keeper that we know of has it */
	char name[RUNTIME_NAME_MAX + 1];
	bool alive;           /* the keeper lives */
	struct record record; /* target and source, as far as we may know them */
};

#define CONTROL_MOUNT_NONE ((struct control_mount){.runtime = RUNTIME_NONE})

/* what: a name, or a path (with a slash in it). Not mounted: -ENOENT, status 10. */
int control_client_find(const char *what, struct control_mount *ret, struct error *err);
void control_client_close(struct control_mount *m);

/* One request and its answer. ret_status may be NULL; only a status has one. Somebody else's mount: -EACCES;
 * a keeper that has gone: -ECONNREFUSED or -ENOENT; one that does not answer in time: -ETIMEDOUT. A keeper
 * that starts is waited for, but not for its status: -EBUSY if it takes too long. */
int control_client_ask(const struct runtime *rt, const char *name, const struct message_request *request,
		       int timeout_ms, struct message_status *ret_status, struct error *err);

/* Asks for a check whose findings come through the pipe fd (its end for writing, borrowed). Errors as above,
 * and 11 when one is under way. */
int control_client_check(const struct runtime *rt, const char *name, int fd, struct error *err);

#endif
