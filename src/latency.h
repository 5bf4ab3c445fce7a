/* SPDX-License-Identifier: MIT */
/*
 * How long requests take, as a histogram that several threads add to and another process reads. No lock: a
 * reader may see a request in the sum and not yet in its bucket. Never fails.
 */
#ifndef CKRFS_LATENCY_H
#define CKRFS_LATENCY_H

#include <stdatomic.h>
#include <stdint.h>

enum { LATENCY_BUCKETS = 13 }; /* the last one has no bound */

struct latency {
	_Atomic uint64_t counts[LATENCY_BUCKETS]; /* of each bucket alone */
	_Atomic uint64_t total_ns;
};

/* Upper ends, inclusive; part of docs/cli-abi.md. */
extern const uint64_t latency_bounds_ns[LATENCY_BUCKETS - 1];

/* Any thread. */
void latency_add(struct latency *l, uint64_t ns);

/* Any process that shares the memory; ret_counts has room for LATENCY_BUCKETS. */
void latency_read(const struct latency *l, uint64_t *ret_counts, uint64_t *ret_total_ns);

#endif
