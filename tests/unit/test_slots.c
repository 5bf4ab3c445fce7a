/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "slots.h"
#include "unit.h"

static void ids_are_never_zero_or_root(void **state)
{
	struct slots s = SLOTS_EMPTY;
	int item;

	for (int i = 0; i < 1000; i++) {
		uint64_t id;

		assert_int_equal(slots_add(&s, &item, &id), 0);
		assert_true(id > UINT32_MAX);
	}
	assert_int_equal(s.used, 1000);
	slots_free(&s);
}

static void finds_what_was_added(void **state)
{
	struct slots s = SLOTS_EMPTY;
	static int items[5000];
	static uint64_t ids[5000];

	for (int i = 0; i < 5000; i++)
		assert_int_equal(slots_add(&s, &items[i], &ids[i]), 0);
	for (int i = 0; i < 5000; i++)
		assert_ptr_equal(slots_get(&s, ids[i]), &items[i]);
	for (int i = 0; i < 5000; i += 2)
		assert_ptr_equal(slots_remove(&s, ids[i]), &items[i]);
	for (int i = 0; i < 5000; i++)
		assert_ptr_equal(slots_get(&s, ids[i]), i % 2 ? &items[i] : NULL);
	slots_free(&s);
}

static void stale_ids_are_not_found(void **state)
{
	struct slots s = SLOTS_EMPTY;
	int old_item, new_item;
	uint64_t old_id, new_id;

	slots_add(&s, &old_item, &old_id);
	slots_remove(&s, old_id);
	slots_add(&s, &new_item, &new_id);
	assert_int_equal((uint32_t)old_id, (uint32_t)new_id); /* the place is used again ... */
	assert_int_not_equal(old_id, new_id);                 /* ... under another id */
	assert_null(slots_get(&s, old_id));
	assert_null(slots_remove(&s, old_id));
	assert_ptr_equal(slots_get(&s, new_id), &new_item);
	slots_free(&s);
}

static void foreign_ids_are_not_found(void **state)
{
	static const uint64_t ids[] = {0, 1, 255, 256, UINT32_MAX, 1ull << 32, (1ull << 32) + 77, UINT64_MAX};
	struct slots s = SLOTS_EMPTY;
	uint64_t id;
	int item;

	for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++)
		assert_null(slots_get(&s, ids[i]));
	slots_add(&s, &item, &id);
	for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++)
		if (ids[i] != id)
			assert_null(slots_get(&s, ids[i]));
	slots_free(&s);
}

static void count_one(void *ctx, void *item)
{
	++*(int *)ctx;
}

static void each_visits_all(void **state)
{
	struct slots s = SLOTS_EMPTY;
	uint64_t id;
	int item, n = 0;

	for (int i = 0; i < 300; i++)
		slots_add(&s, &item, &id);
	slots_remove(&s, id);
	slots_each(&s, count_one, &n);
	assert_int_equal(n, 299);
	slots_free(&s);
}

static void ids_are_given_in_parts(void **state)
{
	struct slots s = SLOTS_EMPTY;
	static uint64_t ids[1000];
	uint64_t part[7];
	uint32_t at = 0;
	size_t seen = 0, n;
	int item;

	assert_int_equal(slots_ids(&s, &at, part, 7), 0);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(slots_add(&s, &item, &ids[i]), 0);
	for (int i = 0; i < 1000; i += 3)
		slots_remove(&s, ids[i]);
	while ((n = slots_ids(&s, &at, part, 7)))
		for (size_t i = 0; i < n; i++) {
			seen += seen % 3 == 0; /* those are gone */
			assert_int_equal(part[i], ids[seen++]);
		}
	assert_int_equal(seen, 999);
	/* Those in memory that was given back are passed over. */
	for (int i = 0; i < 999; i++)
		if (i % 3)
			slots_remove(&s, ids[i]);
	slots_trim(&s);
	at = 0;
	assert_int_equal(slots_ids(&s, &at, part, 7), 0);
	assert_int_equal(slots_add(&s, &item, &ids[0]), 0);
	at = 0;
	assert_int_equal(slots_ids(&s, &at, part, 7), 1);
	assert_int_equal(part[0], ids[0]);
	slots_free(&s);
}

static void memory_comes_back_and_ids_do_not(void **state)
{
	enum { MANY = 2000, STAYS = 700 };
	static uint64_t ids[MANY], later[MANY];
	struct slots s = SLOTS_EMPTY;
	int item;

	for (int i = 0; i < MANY; i++)
		assert_int_equal(slots_add(&s, &item, &ids[i]), 0);
	for (int i = 0; i < MANY; i++)
		if (i != STAYS)
			assert_ptr_equal(slots_remove(&s, ids[i]), &item);
	slots_trim(&s);
	assert_int_equal(s.n_missing, s.n_chunks - 1);
	assert_ptr_equal(slots_get(&s, ids[STAYS]), &item);
	for (int i = 0; i < MANY; i++)
		assert_int_equal(slots_add(&s, &item, &later[i]), 0);
	assert_int_equal(s.n_missing, 0);
	for (int i = 0; i < MANY; i++) {
		assert_ptr_equal(slots_get(&s, later[i]), &item);
		if (i != STAYS)
			assert_null(slots_get(&s, ids[i]));
	}
	assert_int_equal(s.used, MANY + 1);
	slots_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_comes_back_and_ids_do_not),
		cmocka_unit_test(ids_are_never_zero_or_root),
		cmocka_unit_test(finds_what_was_added),
		cmocka_unit_test(stale_ids_are_not_found),
		cmocka_unit_test(foreign_ids_are_not_found),
		cmocka_unit_test(each_visits_all),
		cmocka_unit_test(ids_are_given_in_parts),
	};

	return cmocka_run_group_tests_name("slots", tests, NULL, NULL);
}
