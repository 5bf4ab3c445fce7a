/* SPDX-License-Identifier: MIT */
/*
 * Checks of a volume while it is mounted: in the server, which has the key, by a thread of low priority. Each
 * finding is a line of JSON (finding.h) into the pipe that came with the request; about every second comes
 * how far it is, and at the end the summary. Who reads slowly slows the check, who reads no more ends it;
 * requests of the mount are never held up.
 */
#ifndef CKRFS_SERVER_CHECK_H
#define CKRFS_SERVER_CHECK_H

#include "error.h"
#include "format.h"

struct server_check;

struct server_check_params {
	struct format *format; /* borrowed */
	int root_fd;
	void (*ended)(void *ctx); /* told of the end of each check */
	void *ctx;
};

/* Starts a thread that waits for server_check_begin(). */
int server_check_start(const struct server_check_params *params, struct server_check **ret,
		       struct error *err);

/* Begins a check that writes into the pipe fd, which it takes; ended() is told also when it cannot. */
void server_check_begin(struct server_check *s, int fd);

/* Ends a check that is under way or was asked for, at once, and waits for that. */
void server_check_cancel(struct server_check *s);

/* Ends it, and a check that is under way, at once. NULL is fine. */
void server_check_stop(struct server_check *s);

#endif
