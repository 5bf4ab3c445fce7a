/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "idmap.h"
#include "unit.h"

static void maps_both_ways(void **state)
{
	static const struct {
		uint32_t inside, lower;
	} pairs[] = {
		{0, 100000}, {1, 100001}, {65535, 165535}, {70000, 5}, {4294967294u, 4294967293u},
	};
	static const uint32_t not_inside[] = {65536, 69999, 70001, 4294967293u, IDMAP_NONE};
	static const uint32_t not_lower[] = {0, 4, 6, 99999, 165536, 4294967294u, IDMAP_NONE};
	struct idmap *m;

	assert_int_equal(idmap_parse(" 0:100000:65536, 70000:5:1\t,4294967294:4294967293:1", &m, NULL), 0);
	for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
		assert_int_equal(idmap_lower(m, pairs[i].inside), pairs[i].lower);
		assert_int_equal(idmap_inside(m, pairs[i].lower), pairs[i].inside);
	}
	for (size_t i = 0; i < sizeof(not_inside) / sizeof(*not_inside); i++)
		assert_int_equal(idmap_lower(m, not_inside[i]), IDMAP_NONE);
	for (size_t i = 0; i < sizeof(not_lower) / sizeof(*not_lower); i++)
		assert_int_equal(idmap_inside(m, not_lower[i]), IDMAP_NONE);
	idmap_free(m);
}

static void without_a_map_nothing_changes(void **state)
{
	assert_int_equal(idmap_lower(NULL, 1234), 1234);
	assert_int_equal(idmap_inside(NULL, 0), 0);
}

static void refuses_with_words(void **state)
{
	static const struct {
		const char *text, *takes;
	} bad[] = {
		{"", "at least one range"},
		{" ,", "at least one range"},
		{"0", "INSIDE:LOWER:COUNT"},
		{"0:1", "INSIDE:LOWER:COUNT"},
		{"0:1:", "INSIDE:LOWER:COUNT"},
		{"0:1:2:3", "INSIDE:LOWER:COUNT"},
		{"0:1:2x", "INSIDE:LOWER:COUNT"},
		{"-1:1:2", "INSIDE:LOWER:COUNT"},
		{"0:+1:2", "INSIDE:LOWER:COUNT"},
		{"0x0:1:2", "INSIDE:LOWER:COUNT"},
		{"0:1:4294967296", "INSIDE:LOWER:COUNT"},
		{"0:99999999999999999999:1", "INSIDE:LOWER:COUNT"},
		{"0:1:0", "at least one id"},
		{"0:0:4294967295 0:0:1", "do not overlap"},
		{"1:0:4294967295", "below 4294967295"},
		{"0:4294967295:1", "below 4294967295"},
		{"0:100:10 9:200:1", "do not overlap"},
		{"0:100:10,20:109:1", "do not overlap"},
		{"5:5:1 0:100:10", "do not overlap"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		const char *takes = "";
		struct idmap *m = NULL;

		assert_int_equal(idmap_parse(bad[i].text, &m, &takes), -EINVAL);
		assert_null(m);
		if (!strstr(takes, bad[i].takes))
			fail_msg("\"%s\": %s", bad[i].text, takes);
	}
}

static void has_a_last_range(void **state)
{
	char text[IDMAP_RANGES_MAX * 16 + 32] = "";
	const char *takes = "";
	struct idmap *m;
	size_t used = 0;

	for (int i = 0; i < IDMAP_RANGES_MAX; i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%d:%d:1 ", i, 1000 + i);
	assert_int_equal(idmap_parse(text, &m, NULL), 0);
	assert_int_equal(idmap_lower(m, IDMAP_RANGES_MAX - 1), 1000 + IDMAP_RANGES_MAX - 1);
	idmap_free(m);
	snprintf(text + used, sizeof(text) - used, "5000:5000:1");
	assert_int_equal(idmap_parse(text, &m, &takes), -EINVAL);
	assert_non_null(strstr(takes, "340"));
}

static void one_owner(void **state)
{
	static const char *const bad[] = {"",  ":",  "1:",         ":1",          "1:2:3",
					  "a", "1 ", "4294967295", "1:4294967295"};
	uint32_t uid = 7, gid = 7;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(idmap_parse_owner(bad[i], &uid, &gid), -EINVAL);
	assert_int_equal(uid, 7);
	assert_int_equal(idmap_parse_owner("1000", &uid, &gid), 0);
	assert_int_equal(uid, 1000);
	assert_int_equal(gid, 1000);
	assert_int_equal(idmap_parse_owner("0:4294967294", &uid, &gid), 0);
	assert_int_equal(uid, 0);
	assert_int_equal(gid, 4294967294u);
}

/* u::rw-, u:100000:rwx, g::r--, g:100005:r--, m::rwx, o::--- */
static const uint8_t acl[] = {
	2,    0, 0, 0,                         /* version */
	1,    0, 6, 0, 0xff, 0xff, 0xff, 0xff, /* user_obj */
	2,    0, 7, 0, 0xa0, 0x86, 0x01, 0x00, /* user 100000 */
	4,    0, 4, 0, 0xff, 0xff, 0xff, 0xff, /* group_obj */
	8,    0, 4, 0, 0xa5, 0x86, 0x01, 0x00, /* group 100005 */
	0x10, 0, 7, 0, 0xff, 0xff, 0xff, 0xff, /* mask */
	0x20, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, /* other */
};

static void acls_both_ways(void **state)
{
	struct idmap *uids, *gids;
	uint8_t shown[sizeof(acl)];

	assert_int_equal(idmap_parse("0:100000:10", &uids, NULL), 0);
	assert_int_equal(idmap_parse("50:100000:10", &gids, NULL), 0);
	memcpy(shown, acl, sizeof(acl));
	idmap_acl_show(uids, gids, shown, sizeof(shown));
	assert_int_equal(shown[16], 0);
	assert_int_equal(shown[17], 0);
	assert_int_equal(shown[32], 55);
	assert_int_equal(idmap_acl_set(uids, gids, shown, sizeof(shown)), 0);
	assert_memory_equal(shown, acl, sizeof(acl));
	/* A user whom nobody is: seen without rights, and not to be set. */
	idmap_acl_show(gids, uids, shown, 12);
	idmap_free(uids);
	assert_int_equal(idmap_parse("0:7:1", &uids, NULL), 0);
	idmap_acl_show(uids, gids, shown, sizeof(shown));
	assert_int_equal(shown[14], 0);
	assert_int_equal(shown[16], 0xfe);
	assert_int_equal(shown[17], 0xff);
	assert_int_equal(shown[18], 0);
	assert_int_equal(shown[32], 55);
	assert_int_equal(idmap_acl_set(uids, gids, shown, sizeof(shown)), -EINVAL);
	idmap_free(uids);
	idmap_free(gids);
}

static void what_is_no_acl_stays(void **state)
{
	uint8_t buf[sizeof(acl)];
	struct idmap *m;

	assert_int_equal(idmap_parse("0:7:1", &m, NULL), 0);
	for (size_t size = 0; size <= 4; size++) {
		memcpy(buf, acl, sizeof(buf));
		idmap_acl_show(m, m, buf, size);
		assert_memory_equal(buf, acl, sizeof(acl));
	}
	buf[0] = 3; /* another version */
	assert_int_equal(idmap_acl_set(m, m, buf, sizeof(buf)), 0);
	assert_memory_equal(buf + 4, acl + 4, sizeof(acl) - 4);
	idmap_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(maps_both_ways),
		cmocka_unit_test(without_a_map_nothing_changes),
		cmocka_unit_test(refuses_with_words),
		cmocka_unit_test(has_a_last_range),
		cmocka_unit_test(one_owner),
		cmocka_unit_test(acls_both_ways),
		cmocka_unit_test(what_is_no_acl_stays),
	};

	return cmocka_run_group_tests_name("idmap", tests, NULL, NULL);
}
