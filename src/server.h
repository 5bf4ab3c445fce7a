/* SPDX-License-Identifier: MIT */
/*
 * The server: the process that answers FUSE requests. It is forked from the keeper, keeps of it only what
 * serving takes (the root fd, the FUSE device, the format with its key, shared counters, one socket) and then
 * shuts itself in.
 */
#ifndef CKRFS_SERVER_H
#define CKRFS_SERVER_H

#include "mount.h"

enum server_message_type { SERVER_READY, SERVER_FAILED, SERVER_LOG, SERVER_DONE, SERVER_CHECKED };

/* What the keeper asks the server to do: one packet each, one at a time, answered by SERVER_DONE; but a
 * check, which goes on beside, by SERVER_CHECKED when it has ended. */
enum server_command_type {
	SERVER_LOCK_BEGIN,  /* fs_lock_begin() */
	SERVER_LOCK_FINISH, /* fs_lock_finish() */
	SERVER_UNLOCK, /* fs_unlock() with the key in m->key_room, which is wiped; the lower's root may come
			  along */
	SERVER_RENEW,  /* fs_renew() */
	SERVER_CHECK,  /* the pipe comes along */
};
struct server_command {
	enum server_command_type type;
	int refusal; /* LOCK_BEGIN */
	uint64_t timeout_ms;
};

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
		struct {
			enum server_command_type command;
			struct error error; /* code 0: done */
			uint64_t unflushed; /* cached writes that came to nothing */
			bool timed_out;     /* ... and there are more */
		} done;
	};
};

/* Forks it; m->server_pid and m->server_channel are set. The caller has one thread. */
int server_fork(struct mount *m, struct error *err);

/* What has become of kernel passthrough, in words for people. */
const char *server_passthrough(const struct fs_stats *stats);
/* Asks it for a check that tells its findings through the pipe fd (borrowed); SERVER_CHECKED says that it has
 * ended. server_check.h has the other side. */
int server_ask_check(int channel, int fd);

/* fd goes along, unless it is negative; borrowed. -EPIPE: it is gone. Never waits. */
int server_send(int channel, const struct server_command *command, int fd);

/* Takes one message: its size, 0 when the server is gone, -EAGAIN when wait is false and there is none,
 * -EBADMSG. */
int server_receive(int channel, bool wait, struct server_message *ret);

#endif
