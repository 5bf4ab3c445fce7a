/* SPDX-License-Identifier: MIT */
#include "gate.h"

#include <assert.h>
#include <errno.h>
#include <time.h>

/* The word: bits 0-30 ordinary ones inside, 31-61 flushing ones, 62-63 the state. */
enum { FLUSH_SHIFT = 31, STATE_SHIFT = 62 };
#define COUNT_MASK ((UINT64_C(1) << FLUSH_SHIFT) - 1)
#define STATE_MASK (UINT64_C(3) << STATE_SHIFT)

static uint64_t one_of(enum gate_kind kind)
{
	return kind == GATE_FLUSH ? UINT64_C(1) << FLUSH_SHIFT : 1;
}

static enum gate_state state_of(uint64_t word)
{
	return (enum gate_state)(word >> STATE_SHIFT);
}

static bool lets_in(uint64_t word, enum gate_kind kind)
{
	return state_of(word) == GATE_OPEN || (state_of(word) == GATE_SHUTTING && kind == GATE_FLUSH);
}

/* Is anybody inside who would not be let in now? */
static bool holds_others(uint64_t word)
{
	uint64_t flushing = word >> FLUSH_SHIFT & COUNT_MASK;

	return word & COUNT_MASK || (state_of(word) == GATE_SHUT && flushing);
}

void gate_init(struct gate *g)
{
	pthread_condattr_t attr;

	atomic_init(&g->word, 0);
	pthread_mutex_init(&g->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&g->left, &attr);
	pthread_condattr_destroy(&attr);
}

void gate_destroy(struct gate *g)
{
	pthread_cond_destroy(&g->left);
	pthread_mutex_destroy(&g->lock);
}

bool gate_enter(struct gate *g, enum gate_kind kind)
{
	/* Looked at before: those who are refused all the time must not keep gate_wait() from seeing 0. */
	if (!lets_in(atomic_load_explicit(&g->word, memory_order_relaxed), kind))
		return false;
	if (lets_in(atomic_fetch_add(&g->word, one_of(kind)), kind))
		return true;
	gate_leave(g, kind);
	return false;
}

void gate_leave(struct gate *g, enum gate_kind kind)
{
	uint64_t word = atomic_fetch_sub(&g->word, one_of(kind)) - one_of(kind);

	if (state_of(word) == GATE_OPEN)
		return;
	/* Who waits looks at the word with the lock held: it sees this one gone, or is woken. */
	pthread_mutex_lock(&g->lock);
	pthread_cond_broadcast(&g->left);
	pthread_mutex_unlock(&g->lock);
}

void gate_set(struct gate *g, enum gate_state state)
{
	uint64_t word = atomic_load(&g->word);

	while (!atomic_compare_exchange_weak(&g->word, &word,
					     (word & ~STATE_MASK) | (uint64_t)state << STATE_SHIFT))
		;
}

enum gate_state gate_state(const struct gate *g)
{
	return state_of(atomic_load(&g->word));
}

int gate_wait(struct gate *g, uint64_t timeout_ms)
{
	struct timespec end;
	int r = 0;

	assert(gate_state(g) != GATE_OPEN);
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += (time_t)(timeout_ms / 1000);
	end.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (end.tv_nsec >= 1000000000) {
		end.tv_nsec -= 1000000000;
		end.tv_sec++;
	}
	pthread_mutex_lock(&g->lock);
	while (r == 0 && holds_others(atomic_load(&g->word)))
		r = pthread_cond_timedwait(&g->left, &g->lock, &end);
	/* The last one may have left with the time. */
	r = holds_others(atomic_load(&g->word)) ? -ETIMEDOUT : 0;
	pthread_mutex_unlock(&g->lock);
	return r;
}
