/* SPDX-License-Identifier: MIT */
/*
 * What the files of `ckrfs volume-plugin` share. Two processes:
 *   the front   (volume_plugin_front.c) reads HTTP and JSON of the engines, confined, as nobody. It can ask
 *               the other one for what the protocol has, in messages of a fixed size, and nothing else;
 *   the plugin  (volume_plugin.c) keeps the volumes (volume_plugin_volumes.c) and their state
 *               (volume_plugin_store.c). What may block it leaves to a child for each job
 *               (volume_plugin_job.c): that one reads the configuration, looks at paths, mounts.
 * Each is single-threaded.
 */
#ifndef CKRFS_VOLUME_PLUGIN_IMPL_H
#define CKRFS_VOLUME_PLUGIN_IMPL_H

#include "config.h"
#include "plugin_message.h"
#include <sys/types.h>

/* ---- the channel, SOCK_SEQPACKET ---- */

enum front_kind {
	FRONT_REQUEST,   /* front -> plugin */
	FRONT_DELIVERED, /* front -> plugin: the client has the answer, or (done false) is gone */
	FRONT_ANSWER,    /* plugin -> front */
	FRONT_STOP,      /* plugin -> front: no new clients; ends when the others have been served */
};

struct front_message {
	enum front_kind kind;
	uint64_t serial; /* of the request, given by the front */
	bool done;
	union {
		struct plugin_request request;
		struct plugin_answer answer;
	};
};

/* 1: got one; 0: the other side has ended; negative errno. -EBADMSG: not such a message. */
int front_receive(int fd, struct front_message *ret);

/* The front's process: serves until FRONT_STOP and its clients' end. listen_fd is listening. Its exit
 * status. */
int front_main(int listen_fd, int channel_fd, pid_t parent);

/* ---- what is allowed ---- */

/* May the volume be created or mounted, now? Builds the values with which it would be mounted. Asks the file
 * system about its paths: may block. */
int policy_check(const struct config_set *set, const struct plugin_volume *v, struct config **ret,
		 struct error *err);

/* Is plugin-allow itself sound? */
int policy_check_rules(const struct config_set *set, struct error *err);

/* ---- the state on disk ---- */

struct plugin_store {
	int volumes_fd; /* definitions: they stay */
	int counts_fd;  /* counts: until the next boot */
	char volumes_path[PLUGIN_PATH_SIZE], counts_path[PLUGIN_PATH_SIZE];
	char mounts_path[PLUGIN_PATH_SIZE]; /* where volumes are mounted, each below its name */
};

/* NULL: the default places. Makes what is missing; a directory that others can write to is refused. */
int plugin_store_open(const char *volumes_path, struct plugin_store *ret, struct error *err);
void plugin_store_close(struct plugin_store *s);

/* Calls each for every definition and its count (zero if there is none). A file that is damaged is left out,
 * and said with a warning in the log. */
int plugin_store_load(const struct plugin_store *s,
		      int (*each)(void *ctx, const struct plugin_volume *v, const struct plugin_count *c),
		      void *ctx, struct error *err);

/* All of these: whole or not at all, on disk before they return. */
int plugin_store_put_volume(const struct plugin_store *s, const struct plugin_volume *v, struct error *err);
int plugin_store_remove_volume(const struct plugin_store *s, const char *name, struct error *err);
int plugin_store_put_count(const struct plugin_store *s, const char *name, const struct plugin_count *c,
			   struct error *err);
/* Is there a file of that name that is damaged? */
bool plugin_store_has_file(const struct plugin_store *s, const char *name);

/* ---- how often a volume is mounted ---- */

struct tally {
	struct plugin_count count;
	uint32_t n_stale; /* the first of the unanswered: from before this process */
};

/* Without those that may never have got their answer. */
uint32_t tally_users(const struct tally *t);
/* One mount more, unless it is one that was counted before a crash. */
void tally_mount(struct tally *t, const char *id);
/* The answer to a Mount that was counted has arrived, or (done false) never will: one mount less. */
void tally_delivered(struct tally *t, const char *id, bool done);
/* One mount less; none less than none. */
void tally_unmount(struct tally *t, const char *id);
/* Takes away those from before a crash; true: there were any. */
bool tally_forget(struct tally *t);

/* ---- where a volume is mounted ---- */

enum { PLUGIN_TARGET_SIZE = PLUGIN_PATH_SIZE + PLUGIN_NAME_SIZE };

void plugin_target(const struct plugin_store *s, const char *name, char ret[PLUGIN_TARGET_SIZE]);
/* Is a ckrfs mount there, in our mount namespace? */
bool plugin_target_mounted(const struct plugin_store *s, const char *name);
/* Is the same file system there for that process? True also if that cannot be told. */
bool plugin_target_seen(const struct plugin_store *s, const char *name, pid_t peer);

/* ---- jobs ---- */

enum job_kind { JOB_CHECK, JOB_MOUNT, JOB_UNMOUNT, JOB_REMOVE, JOB_LOOK };

struct job_result {
	struct error error;
	struct plugin_status status; /* JOB_LOOK */
	bool mounted;                /* is it mounted now? */
};

struct job {
	pid_t pid; /* 0: none */
	int fd;    /* the result comes through it */
	enum job_kind kind;
};
#define JOB_NONE ((struct job){.fd = -1})

struct job_env {
	const char *config_file;
	const struct plugin_store *store;
};

/* Starts a child for it, which ends with this process. in_use: for JOB_REMOVE, engines have it mounted. */
int job_start(struct job *job, enum job_kind kind, const struct job_env *env, const struct plugin_volume *v,
	      bool in_use, struct error *err);
/* After its end. */
void job_end(struct job *job, struct job_result *ret);
/* Ends it: what it had begun undoes itself. */
void job_kill(struct job *job);

/* ---- volumes ---- */

struct volumes;

struct volumes_params {
	struct job_env env;
	uint64_t answer_ms; /* within which Mount and all others are answered */
	uint64_t linger_ms; /* how long a volume stays mounted for nobody */
	/* Gives an answer to the client of that request; false: it is gone. */
	void (*answer)(void *ctx, uint64_t serial, const struct plugin_answer *answer);
	void *ctx;
};

int volumes_new(const struct volumes_params *params, struct volumes **ret, struct error *err);
void volumes_free(struct volumes *vs);

/* Each is answered once, now or later. The request is sound. */
void volumes_request(struct volumes *vs, uint64_t serial, const struct plugin_request *request);
/* The answer to it has arrived, or its client is gone. */
void volumes_delivered(struct volumes *vs, uint64_t serial, bool done);
/* All clients are gone: what they asked for is given up, and what they were told has not arrived. */
void volumes_hang_up(struct volumes *vs);
/* A child has ended: true if it was one of theirs. */
bool volumes_child(struct volumes *vs, pid_t pid);
/* Milliseconds until volumes_time() has something to do; -1: nothing. */
int volumes_timeout(const struct volumes *vs);
void volumes_time(struct volumes *vs);
/* Is any job under way that somebody waits for? */
bool volumes_busy(const struct volumes *vs);

#endif
