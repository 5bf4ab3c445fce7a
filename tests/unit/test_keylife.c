/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "keylife.h"
#include "unit.h"
#include "util.h"

#define S UINT64_C(1000)
#define M (60 * S)
#define H (60 * M)

/* Also where a clock may stand: just booted, after years, and near the end of its range. */
static const uint64_t starts[] = {1, 5 * M, UINT64_C(20) * 365 * 24 * H, UINT64_MAX - H};

static struct keylife with(const char *refresh, uint64_t lifetime)
{
	struct keylife l = {.default_ms = lifetime};

	assert_int_equal(keylife_parse(refresh, &l), 0);
	return l;
}

static void test_parse(void **state)
{
	static const char *const bad[] = {
		"", "yes", "never", "0", "999ms", "-5", "5 m", "auto ", "99999999999999999999"};
	struct keylife l = {0};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(keylife_parse(bad[i], &l), -EINVAL);
	assert_int_equal(with("no", 0).refresh, KEYLIFE_NEVER);
	assert_int_equal(with("auto", 0).refresh, KEYLIFE_AUTO);
	l = with("90", 0);
	assert_int_equal(l.refresh, KEYLIFE_EVERY);
	assert_int_equal(l.every_ms, 90 * S);
}

/* When it is asked for, and when it ends; relative to the beginning, 0: never. */
static void test_schedule(void **state)
{
	static const struct {
		const char *refresh;
		uint64_t lifetime, left, next, expires;
	} cases[] = {
		{"auto", 0, KEYLIFE_FOREVER, 0, 0},
		{"auto", 0, 10 * M, 5 * M, 10 * M},
		{"auto", 2 * M, KEYLIFE_FOREVER, M, 2 * M},
		{"auto", 2 * M, 10 * M, 5 * M, 10 * M}, /* the source's word counts */
		{"no", 0, 10 * M, 0, 10 * M},
		{"no", M, KEYLIFE_FOREVER, 0, M},
		{"30s", 0, KEYLIFE_FOREVER, 30 * S, 0},
		{"30s", 0, 10 * M, 30 * S, 10 * M},
		{"30s", 0, 30 * S, 15 * S, 30 * S}, /* before it ends */
		{"1h", 0, M, 30 * S, M},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		for (size_t j = 0; j < ARRAY_SIZE(starts); j++) {
			struct keylife l = with(cases[i].refresh, cases[i].lifetime);
			uint64_t now = starts[j];

			keylife_given(&l, now, cases[i].left, cases[i].left);
			assert_int_equal(l.next, cases[i].next ? now + cases[i].next : 0);
			assert_int_equal(l.expires, cases[i].expires ? now + cases[i].expires : 0);
			assert_int_equal(keylife_due(&l, now), KEYLIFE_NOTHING);
			if (l.next) {
				assert_int_equal(keylife_wake(&l), l.next);
				assert_int_equal(keylife_due(&l, l.next - 1), KEYLIFE_NOTHING);
				assert_int_equal(keylife_due(&l, l.next), KEYLIFE_ASK);
			}
			if (l.expires) {
				assert_int_equal(keylife_due(&l, l.expires - 1),
						 l.next ? KEYLIFE_ASK : KEYLIFE_NOTHING);
				assert_int_equal(keylife_due(&l, l.expires), KEYLIFE_EXPIRED);
				assert_int_equal(keylife_due(&l, UINT64_MAX), KEYLIFE_EXPIRED);
			}
		}
}

static void test_expired_when_given(void **state)
{
	struct keylife l = with("auto", 0);

	keylife_given(&l, 5 * M, 0, 0);
	assert_int_equal(keylife_due(&l, 5 * M), KEYLIFE_EXPIRED);
}

/* A life that is too long to be counted does not end at once. */
static void test_absurd_times(void **state)
{
	struct keylife l = with("auto", 0);

	keylife_given(&l, UINT64_MAX - 10, UINT64_MAX - 1, UINT64_MAX - 1);
	assert_int_equal(l.expires, UINT64_MAX);
	assert_int_equal(keylife_due(&l, UINT64_MAX - 5), KEYLIFE_NOTHING);
	keylife_given(&l, 0, 0, 0);
	assert_int_not_equal(l.expires, 0);
}

static void test_backoff(void **state)
{
	static const uint32_t randoms[] = {0, 1, 12345, UINT32_MAX};
	static const uint64_t delays[] = {S, 2 * S, 4 * S, 8 * S, 16 * S, 32 * S, M, M, M, M};

	for (size_t r = 0; r < ARRAY_SIZE(randoms); r++) {
		struct keylife l = with("auto", 0);
		uint64_t now = M;

		keylife_given(&l, now, 1000 * H, 1000 * H);
		for (size_t i = 0; i < ARRAY_SIZE(delays); i++) {
			keylife_failed(&l, now, randoms[r]);
			assert_in_range(l.next - now, delays[i] * 3 / 4, delays[i] * 5 / 4);
			now = l.next;
			assert_int_equal(keylife_due(&l, now), KEYLIFE_ASK);
		}
		assert_int_equal(l.failures, ARRAY_SIZE(delays));
		keylife_given(&l, now, 1000 * H, 1000 * H);
		assert_int_equal(l.failures, 0);
	}
}

/* Those who failed together do not come again together. */
static void test_jitter(void **state)
{
	struct keylife a = with("auto", 0), b = a;

	keylife_failed(&a, M, 7);
	keylife_failed(&b, M, 400);
	assert_int_not_equal(a.next, b.next);
}

/* However many fail, it is tried again before the end, more and more often, but not all the time. */
static void test_tries_before_the_end(void **state)
{
	struct keylife l = with("auto", 0);
	uint64_t now = M, end = now + M;
	unsigned tries = 0;

	keylife_given(&l, now, M, M);
	for (now = l.next; now < end; now = l.next, tries++) {
		assert_int_equal(keylife_due(&l, now), KEYLIFE_ASK);
		keylife_failed(&l, now, 0);
		assert_in_range(l.next - now, 180, M);
	}
	assert_in_range(tries, 5, 40);
	assert_int_equal(keylife_due(&l, end), KEYLIFE_EXPIRED);
}

static void test_lost(void **state)
{
	struct keylife l = with("auto", 0);

	keylife_given(&l, M, 10 * M, 10 * M);
	keylife_lost(&l, 2 * M);
	assert_int_equal(keylife_due(&l, 2 * M), KEYLIFE_NOTHING);
	assert_int_equal(keylife_due(&l, l.next), KEYLIFE_ASK);
	/* It has ended once: not again. */
	assert_int_equal(keylife_due(&l, 20 * M), KEYLIFE_ASK);
	assert_int_equal(keylife_wake(&l), l.next);
	keylife_failed(&l, 20 * M, 0);
	assert_in_range(l.next, 20 * M, 21 * M);
	keylife_given(&l, 30 * M, M, M);
	assert_int_equal(keylife_due(&l, 31 * M), KEYLIFE_EXPIRED);
}

static void test_never_asked(void **state)
{
	struct keylife l = with("no", M);

	keylife_given(&l, M, KEYLIFE_FOREVER, KEYLIFE_FOREVER);
	keylife_lost(&l, 2 * M);
	assert_int_equal(keylife_wake(&l), 0);
	keylife_failed(&l, 2 * M, 5);
	assert_int_equal(keylife_wake(&l), 0);
	assert_int_equal(keylife_due(&l, UINT64_MAX), KEYLIFE_NOTHING);
}

static void test_over(void **state)
{
	struct keylife l = with("30s", M);

	keylife_given(&l, M, KEYLIFE_FOREVER, KEYLIFE_FOREVER);
	keylife_over(&l);
	assert_int_equal(keylife_wake(&l), 0);
	assert_int_equal(keylife_due(&l, UINT64_MAX), KEYLIFE_NOTHING);
	assert_int_equal(l.refresh, KEYLIFE_EVERY);
}

/* What somebody who looks at a key of the kernel learns. */
static void test_seen(void **state)
{
	struct keylife l = with("auto", 0);
	uint64_t now = H;

	/* It had no end, and has one. */
	keylife_given(&l, now, KEYLIFE_FOREVER, KEYLIFE_FOREVER);
	assert_int_equal(keylife_seen(&l, now, UINT64_MAX, UINT64_MAX), KEYLIFE_SAME);
	assert_int_equal(keylife_seen(&l, now, 10 * M, 11 * M), KEYLIFE_MOVED);
	assert_int_equal(l.expires, now + 10 * M);
	/* The end comes nearer, and is known better. */
	now += 30 * S;
	assert_int_equal(keylife_seen(&l, now, 10 * M, 11 * M), KEYLIFE_SAME);
	assert_int_equal(l.expires, now + 10 * M);
	now += 9 * M + 35 * S;
	assert_int_equal(keylife_seen(&l, now, 24 * S, 25 * S), KEYLIFE_SAME);
	assert_int_equal(l.expires, now + 25 * S);
	/* Renewed, and cut short. */
	assert_int_equal(keylife_seen(&l, now, H, 2 * H), KEYLIFE_MOVED);
	assert_int_equal(l.span, H);
	assert_int_equal(l.next, now + H / 2);
	assert_int_equal(keylife_seen(&l, now, 5 * S, 6 * S), KEYLIFE_MOVED);
	assert_int_equal(l.expires, now + 5 * S);
	/* An update took it away: nothing is changed here. */
	assert_int_equal(keylife_seen(&l, now, UINT64_MAX, UINT64_MAX), KEYLIFE_CLEARED);
	assert_int_equal(l.expires, now + 5 * S);
	assert_int_equal(l.span, 5 * S);
}

/* An end that is ours is not cleared by a source that knows none, but gives way to the source's own. */
static void test_seen_with_an_end_of_ours(void **state)
{
	struct keylife l = with("auto", 10 * M);

	keylife_given(&l, H, KEYLIFE_FOREVER, KEYLIFE_FOREVER);
	assert_int_equal(keylife_seen(&l, H, UINT64_MAX, UINT64_MAX), KEYLIFE_SAME);
	assert_int_equal(l.expires, H + 10 * M);
	assert_int_equal(keylife_seen(&l, H, 10 * M, 11 * M), KEYLIFE_MOVED);
	assert_int_equal(keylife_seen(&l, H, UINT64_MAX, UINT64_MAX), KEYLIFE_CLEARED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_schedule),
		cmocka_unit_test(test_expired_when_given),
		cmocka_unit_test(test_absurd_times),
		cmocka_unit_test(test_backoff),
		cmocka_unit_test(test_jitter),
		cmocka_unit_test(test_tries_before_the_end),
		cmocka_unit_test(test_lost),
		cmocka_unit_test(test_never_asked),
		cmocka_unit_test(test_over),
		cmocka_unit_test(test_seen),
		cmocka_unit_test(test_seen_with_an_end_of_ours),
	};

	return cmocka_run_group_tests_name("keylife", tests, NULL, NULL);
}
