/* SPDX-License-Identifier: MIT */
/*
 * The keeper: the process that a mount belongs to. It starts the mount (mount.h), and then waits for signals,
 * control requests and the server's end in one event loop with one thread.
 */
#ifndef CKRFS_KEEPER_H
#define CKRFS_KEEPER_H

#include "config.h"
#include "error.h"
#include <sys/types.h>

enum { KEEPER_STAGE_MAX = 64 };

enum keeper_event {
	KEEPER_QUIET,  /* nothing in that time */
	KEEPER_STAGE,  /* something that may take long begins */
	KEEPER_DONE,   /* the mount answers */
	KEEPER_FAILED, /* err says why */
};

/* Starts a keeper in the background, from a process with one thread. Takes cfg over. cfg->target must be
 * canonical. *ret_fd is for keeper_wait(). */
int keeper_spawn(struct config *cfg, uid_t owner, int *ret_fd, struct error *err);

/* Waits at most timeout_ms for the next event; stage: KEEPER_STAGE_MAX bytes, set at KEEPER_STAGE. */
enum keeper_event keeper_wait(int fd, int timeout_ms, char *stage, struct error *err);

/* Is the keeper itself, until the mount has ended. Takes cfg over: the exit status, or a negative errno with
 * err when it does not start. */
int keeper_run(struct config *cfg, uid_t owner, struct error *err);

#endif
