/* SPDX-License-Identifier: MIT */
#include "latency.h"

const uint64_t latency_bounds_ns[LATENCY_BUCKETS - 1] = {
	10000,    50000,    100000,    500000,    1000000,    5000000,
	10000000, 50000000, 100000000, 500000000, 1000000000, 5000000000,
};

void latency_add(struct latency *l, uint64_t ns)
{
	int i = 0;

	while (i < LATENCY_BUCKETS - 1 && ns > latency_bounds_ns[i])
		i++;
	atomic_fetch_add_explicit(&l->counts[i], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&l->total_ns, ns, memory_order_relaxed);
}

void latency_read(const struct latency *l, uint64_t *ret_counts, uint64_t *ret_total_ns)
{
	for (int i = 0; i < LATENCY_BUCKETS; i++)
		ret_counts[i] = atomic_load_explicit(&l->counts[i], memory_order_relaxed);
	*ret_total_ns = atomic_load_explicit(&l->total_ns, memory_order_relaxed);
}
