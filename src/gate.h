/* SPDX-License-Identifier: MIT */
/*
 * A gate that requests pass on their way in and out: open, or shut in two steps. While it is shutting, only
 * what brings back dirty data still passes; when it is shut, nothing does. Whoever shuts it can wait for
 * those who are inside. Any thread; entering and leaving an open gate is one atomic operation each.
 *
 * What a gate guards may be taken away once it is shut and gate_wait() has returned 0.
 */
#ifndef CKRFS_GATE_H
#define CKRFS_GATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum gate_state { GATE_OPEN, GATE_SHUTTING, GATE_SHUT };

/* Who wants to pass: everybody else, or what flushes. */
enum gate_kind { GATE_ORDINARY, GATE_FLUSH };

struct gate {
	_Atomic uint64_t word; /* state and how many of each kind are inside, see gate.c */
	pthread_mutex_t lock;  /* for sleeping only */
	pthread_cond_t left;
};

/* An open gate. gate_destroy(): nobody is inside or will come. */
void gate_init(struct gate *g);
void gate_destroy(struct gate *g);

/* May it pass? Then gate_leave() must follow. Never waits. */
bool gate_enter(struct gate *g, enum gate_kind kind);
void gate_leave(struct gate *g, enum gate_kind kind);

void gate_set(struct gate *g, enum gate_state state);
enum gate_state gate_state(const struct gate *g);

/* Waits until nobody is inside whom the state does not let in: ordinary ones while it is shutting, all when
 * it is shut. -ETIMEDOUT after timeout_ms. */
int gate_wait(struct gate *g, uint64_t timeout_ms);

#endif
