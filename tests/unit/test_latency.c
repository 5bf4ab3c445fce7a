/* SPDX-License-Identifier: MIT */
#include "latency.h"
#include "unit.h"
#include "util.h"

static void each_time_has_its_bucket(void **state)
{
	static const struct {
		uint64_t ns;
		int bucket;
	} cases[] = {
		{0, 0},       {10000, 0},   {10001, 1},       {50000, 1},       {1000000, 4},
		{1000001, 5}, {5000001, 6}, {5000000000, 11}, {5000000001, 12}, {UINT64_C(1) << 62, 12},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct latency l = {0};
		uint64_t counts[LATENCY_BUCKETS], total;

		latency_add(&l, cases[i].ns);
		latency_read(&l, counts, &total);
		assert_int_equal(total, cases[i].ns);
		for (int k = 0; k < LATENCY_BUCKETS; k++)
			assert_int_equal(counts[k], k == cases[i].bucket);
	}
}

static void bounds_go_up(void **state)
{
	for (int i = 1; i < LATENCY_BUCKETS - 1; i++)
		assert_true(latency_bounds_ns[i] > latency_bounds_ns[i - 1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_time_has_its_bucket),
		cmocka_unit_test(bounds_go_up),
	};

	return cmocka_run_group_tests_name("latency", tests, NULL, NULL);
}
