/* SPDX-License-Identifier: MIT */
/*
 * Lock and unlock as the keeper does them: a sequence of steps that each wait for a child or the server,
 * while the keeper's loop goes on. What may block (the mounted file system, key sources) is done by children.
 *
 *   lock:    open the root (child) -> gate shuts (server) -> syncfs(2) (child) -> pages dropped, key
 *            forgotten (server) -> the lower's key taken away (child)
 *   unlock:  key read and checked (child) -> handed over, gate opens (server); if that fails, what the lower
 *            got of it is taken away again (child)
 *   refresh: key read and checked (child); a lower whose key is exchanged: what is open is opened anew
 *            (server), the old key revoked
 *
 * They are asked for by somebody, or by the key's life (keeper_life.h): what that one has begun to read gives
 * way to whatever somebody asks for.
 */
#ifndef CKRFS_KEEPER_LOCK_H
#define CKRFS_KEEPER_LOCK_H

#include "message.h"
#include "mount.h"
#include "server.h"

enum keeper_lock_step {
	KEEPER_LOCK_IDLE,
	KEEPER_LOCK_OPENING,
	KEEPER_LOCK_BEGINNING,
	KEEPER_LOCK_SYNCING,
	KEEPER_LOCK_FINISHING,
	KEEPER_LOCK_LOWER,
	KEEPER_LOCK_READING_KEY,
	KEEPER_LOCK_UNLOCKING,
	KEEPER_LOCK_LOWER_AGAIN,
	KEEPER_LOCK_REFRESHING,
	KEEPER_LOCK_RENEWING,
};

struct keeper_lock {
	struct mount *m; /* borrowed */
	/* Told once for each of them that did not end at once; err->code 0: done. automatic is still set. */
	void (*done)(void *ctx, enum message_command command, const struct error *err);
	void *ctx;
	enum keeper_lock_step step;
	bool automatic;       /* the key's life has begun it */
	int refusal;          /* locking: errno that is answered from then on */
	char *spec;           /* reading a key: the source that was named, owned; NULL: those configured */
	pid_t child;          /* 0: none; who reaps it sets 0 */
	int child_fd;         /* to be polled for input; -1: none */
	uint64_t end;         /* locking: when the client's time is over */
	uint64_t patience;    /* when to go on without whom we wait for, 0: never */
	struct error outcome; /* what is told when the lower is locked */
	pid_t lingerer;       /* goes on while files of the lower are in use, 0: none; who reaps it sets 0 */
};

#define KEEPER_LOCK_NONE ((struct keeper_lock){.child_fd = -1})

/* 1: done() will tell; 0: it is locked resp. unlocked already; 11 while another of them is under way. spec:
 * a key source instead of those configured, or NULL. A refresh asks the source that served; of what is locked
 * it is -ENOKEY. */
int keeper_lock(struct keeper_lock *l, uint64_t timeout_ms, struct error *err);
int keeper_unlock(struct keeper_lock *l, const char *spec, struct error *err);
int keeper_refresh(struct keeper_lock *l, struct error *err);

/* For the key's life: begins one of these if nothing is under way (else -EBUSY), with the source that served.
 */
int keeper_lock_begin_automatic(struct keeper_lock *l, enum message_command command, int refusal);

/* Is a lock or an unlock under way? */
bool keeper_lock_is_busy(const struct keeper_lock *l);

/* There is input on child_fd; the server has answered a command (or is gone: NULL); patience is over. */
void keeper_lock_event(struct keeper_lock *l);
void keeper_lock_server(struct keeper_lock *l, const struct server_message *msg);
void keeper_lock_timeout(struct keeper_lock *l);

/* The lingerer has ended. */
void keeper_lock_lingered(struct keeper_lock *l);

/* The keeper ends. */
void keeper_lock_stop(struct keeper_lock *l);

#endif
