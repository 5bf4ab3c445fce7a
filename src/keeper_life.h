/* SPDX-License-Identifier: MIT */
/*
 * The life of the mount's key, as the keeper follows it. Its source is asked again in time (keylife.h); a key
 * of the kernel is watched besides, by its description: revoked, unlinked, expired, exchanged. What follows
 * is on-expire's: a lock that ends by itself when the source gives the key again, or none. All in the
 * keeper's loop: nothing here blocks, reading a key is left to keeper_lock.c.
 */
#ifndef CKRFS_KEEPER_LIFE_H
#define CKRFS_KEEPER_LIFE_H

#include "keeper_lock.h"
#include "keylife.h"
#include "keysource.h"
#include "message.h"
#include "mount.h"

struct keeper_life {
	struct mount *m;          /* borrowed */
	struct keeper_lock *lock; /* borrowed */
	struct keylife life;
	struct keysource *source;   /* that served; NULL: there is no key */
	struct secret *room;        /* of keyring_look() */
	struct keyring_sight had;   /* the key that the mount has */
	struct keyring_sight tried; /* what did not open the volume */
	struct keyring_watch watch;
	int timer_fd;
	uint64_t look, look_at_times, lock_again; /* when, in boottime_ms(); 0: never */
	bool missing;                             /* it was not there when we looked last */
	bool waiting;                             /* locked until the key is there again */
	char last_error[512];
	uint64_t refreshes, failures; /* of asking its source again */
};

#define KEEPER_LIFE_NONE ((struct keeper_life){.watch = {-1, -1}, .timer_fd = -1})

/* For a mount that has just started. */
int keeper_life_open(struct keeper_life *l, struct mount *m, struct keeper_lock *lock, struct error *err);
void keeper_life_close(struct keeper_life *l);

/* There is input on timer_fd or watch.fd (-1: none): does what is due. */
void keeper_life_event(struct keeper_life *l);

/* A lock, unlock or refresh has ended so; l->lock->automatic is still set. */
void keeper_life_done(struct keeper_life *l, enum message_command command, const struct error *err);

/* Somebody wants it locked that is locked already: it stays so. */
void keeper_life_hold(struct keeper_life *l);

/* Looks at the key now, for somebody who wants to know. */
void keeper_life_look(struct keeper_life *l);

/* Fills in what it knows. */
void keeper_life_status(const struct keeper_life *l, struct message_status *s);

#endif
