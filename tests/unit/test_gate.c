/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "gate.h"
#include "unit.h"

static void who_passes_in_which_state(void **state)
{
	static const struct {
		enum gate_state state;
		bool ordinary, flush;
	} cases[] = {{GATE_OPEN, true, true}, {GATE_SHUTTING, false, true}, {GATE_SHUT, false, false}};
	struct gate g;

	gate_init(&g);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		gate_set(&g, cases[i].state);
		assert_int_equal(gate_state(&g), cases[i].state);
		assert_int_equal(gate_enter(&g, GATE_ORDINARY), cases[i].ordinary);
		assert_int_equal(gate_enter(&g, GATE_FLUSH), cases[i].flush);
		if (cases[i].ordinary)
			gate_leave(&g, GATE_ORDINARY);
		if (cases[i].flush)
			gate_leave(&g, GATE_FLUSH);
	}
	gate_set(&g, GATE_OPEN);
	assert_true(gate_enter(&g, GATE_ORDINARY));
	gate_leave(&g, GATE_ORDINARY);
	gate_destroy(&g);
}

static void waits_for_those_who_are_not_let_in(void **state)
{
	struct gate g;

	gate_init(&g);
	assert_true(gate_enter(&g, GATE_ORDINARY));
	assert_true(gate_enter(&g, GATE_FLUSH));
	gate_set(&g, GATE_SHUTTING);
	assert_int_equal(gate_wait(&g, 1), -ETIMEDOUT);
	gate_leave(&g, GATE_ORDINARY);
	assert_int_equal(gate_wait(&g, 0), 0);
	gate_set(&g, GATE_SHUT);
	assert_int_equal(gate_wait(&g, 1), -ETIMEDOUT);
	gate_leave(&g, GATE_FLUSH);
	assert_int_equal(gate_wait(&g, 0), 0);
	gate_destroy(&g);
}

/* Something that only those inside may touch, and that goes away when the gate is shut. */
static struct crowd {
	struct gate gate;
	int *_Atomic thing;
	_Atomic bool end;
	_Atomic uint64_t passed, refused;
} crowd;

static void *visitor(void *arg)
{
	enum gate_kind kind = *(const enum gate_kind *)arg;

	while (!atomic_load(&crowd.end)) {
		if (!gate_enter(&crowd.gate, kind)) {
			atomic_fetch_add(&crowd.refused, 1);
			continue;
		}
		if (*atomic_load_explicit(&crowd.thing, memory_order_relaxed) != 7)
			atomic_store(&crowd.end, true);
		gate_leave(&crowd.gate, kind);
		atomic_fetch_add(&crowd.passed, 1);
	}
	return NULL;
}

static void wait_for_more(const _Atomic uint64_t *count)
{
	uint64_t before = atomic_load(count);

	while (atomic_load(count) == before && !atomic_load(&crowd.end))
		;
}

static void nobody_is_inside_a_shut_gate(void **state)
{
	static enum gate_kind kinds[] = {GATE_ORDINARY, GATE_FLUSH, GATE_ORDINARY, GATE_FLUSH};
	pthread_t threads[4];
	int good = 7;

	gate_init(&crowd.gate);
	atomic_store(&crowd.thing, &good);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, visitor, &kinds[i]), 0);
	for (int i = 0; i < 200 && !atomic_load(&crowd.end); i++) {
		wait_for_more(&crowd.passed);
		gate_set(&crowd.gate, GATE_SHUTTING);
		assert_int_equal(gate_wait(&crowd.gate, 60000), 0);
		gate_set(&crowd.gate, GATE_SHUT);
		assert_int_equal(gate_wait(&crowd.gate, 60000), 0);
		/* A plain write: a thread still inside would be a data race, and see it. */
		good = 8;
		wait_for_more(&crowd.refused);
		good = 7;
		gate_set(&crowd.gate, GATE_OPEN);
	}
	assert_false(atomic_load(&crowd.end));
	atomic_store(&crowd.end, true);
	for (size_t i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	gate_destroy(&crowd.gate);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_passes_in_which_state),
		cmocka_unit_test(waits_for_those_who_are_not_let_in),
		cmocka_unit_test(nobody_is_inside_a_shut_gate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
