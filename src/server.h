/* SPDX-License-Identifier: MIT */
/*
 * The server: the process that answers FUSE requests. It is forked from the keeper, keeps of it only what
 * serving takes (the root fd, the FUSE device, the format with its key, shared counters, one socket) and then
 * shuts itself in.
 */
#ifndef CKRFS_SERVER_H
#define CKRFS_SERVER_H

#include "mount.h"

enum server_message_type { SERVER_READY, SERVER_FAILED, SERVER_LOG };

enum server_feature {
	SERVER_FILE_HANDLES = 1 << 0, /* inodes are found by handle */
	SERVER_CALLER_IDS = 1 << 1,   /* what is created belongs to who creates it */
};

/* What the server tells its keeper: one packet each. */
struct server_message {
	enum server_message_type type;
	union {
		struct {                      /* READY */
			unsigned protections; /* enum sandbox_protection */
			unsigned features;    /* enum server_feature */
		};
		struct error error; /* FAILED */
		struct {
			int level; /* enum log_level */
			char line[1008];
		} log;
	};
};

/* Forks it; m->server_pid and m->server_channel are set. The caller has one thread. */
int server_fork(struct mount *m, struct error *err);

/* Takes one message: its size, 0 when the server is gone, -EAGAIN when wait is false and there is none,
 * -EBADMSG. */
int server_receive(int channel, bool wait, struct server_message *ret);

#endif
