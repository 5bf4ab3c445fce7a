/* SPDX-License-Identifier: MIT */
/*
 * What passes over the control socket: one JSON object, one line, at most MESSAGE_MAX bytes. docs/control.md
 * has the members. Buffers in, buffers out; no socket here. No message carries a key.
 */
#ifndef CKRFS_MESSAGE_H
#define CKRFS_MESSAGE_H

#include "error.h"
#include "latency.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MESSAGE_MAX = 65536, MESSAGE_VERSION = 1 };

enum message_command {
	MESSAGE_STATUS,
	MESSAGE_UMOUNT,
	MESSAGE_LOCK,
	MESSAGE_UNLOCK,
	MESSAGE_CHECK,
	MESSAGE_REFRESH
};

struct message_request {
	enum message_command command;
	bool lazy;           /* umount: also when busy */
	uint64_t timeout_ms; /* lock: for writing back what is dirty; 0: the default */
	char key[4096];      /* unlock: a key source instead of those configured; "": those */
};

/* What there is to know of a mount. */
struct message_status {
	char name[65], state[16], source[4096], target[4096], lower[16], format[16];
	char key_identifier[64], key_source[256];
	char secret_memory[16];
	char passthrough[64];  /* "active", "off", or why not */
	char protections[256]; /* words with a blank between them */
	char missing[256];     /* words: protections and features that it has not */
	char key_watch[16];    /* how the key is watched: "kernel", "poll", "-" */
	char last_error[512];  /* why the key could not be had again; empty: nothing failed since */
	int64_t since;         /* seconds since 1970 when it got into its state; 0: never unlocked */
	int64_t expires;       /* when the key ends, as above; 0: not known */
	int64_t next_refresh;  /* when its source is asked again; 0: never */
	int64_t keyring;       /* serial of the mount's keyring, 0: none */
	uint64_t requests, read_bytes, written_bytes, errors, damages;
	uint64_t latency[LATENCY_BUCKETS], latency_ns;
	uint64_t refreshes, refresh_failures;  /* of the key, since it was mounted */
	int64_t owner, keeper_pid, server_pid; /* pids 0: none */
	bool read_only, shared, ephemeral;
};

/* buf needs no NUL. Malformed: -EBADMSG; another version: -EPROTO; unknown command: -EOPNOTSUPP, all with
 * words. */
int message_request_parse(const char *buf, size_t size, struct message_request *ret, struct error *err);

/* Texts are malloc'ed and end with a newline. -ENOMEM */
int message_request_format(const struct message_request *request, char **ret_text);
int message_format_done(char **ret_text);
int message_format_status(const struct message_status *status, char **ret_text);
int message_format_error(const struct error *error, char **ret_text);

/* The other side: 0, with *ret_status filled if it is not NULL (-EBADMSG if there is none); or the error that
 * was answered, in err. */
int message_response_parse(const char *buf, size_t size, struct message_status *ret_status,
			   struct error *err);

/* `ckrfs status --json`: {"mounts": [...]}. */
int message_format_list(const struct message_status *list, size_t n, char **ret_text);

#endif
