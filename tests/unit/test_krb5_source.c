/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "krb5_source.h"
#include "unit.h"
#include "util.h"

static const char *const good[] = {
	"krb5:keytab=/etc/krb5.keytab,principal=web@EXAMPLE.ORG",
	"krb5:principal=web/host@EXAMPLE.ORG,keytab=/a",
	"krb5:keytab=/a\\,b,principal=a\\\\b",
	"krb5:ccache=/tmp/krb5cc_0",
	"krb5:ccache=FILE:/tmp/krb5cc_0",
	"krb5:ccache=DIR:/run/cc",
	"krb5:ccache=DIR::/run/cc/tkt",
	"krb5:ccache=KEYRING:persistent:0",
	"krb5:ccache=KCM:0",
};

static const struct {
	const char *spec, *words;
} bad[] = {
	{"", "a ticket comes from krb5:"},
	{"krb5", "a ticket comes from krb5:"},
	{"file:/etc/krb5.keytab", "a ticket comes from krb5:"},
	{"krb5:", "is not NAME=VALUE"},
	{"krb5:keytab", "is not NAME=VALUE"},
	{"krb5:keytab=", "is not NAME=VALUE"},
	{"krb5:keytab=/a,", "is not NAME=VALUE"},
	{"krb5:keytab=/a", "keytab needs a principal"},
	{"krb5:principal=a", "needs a keytab or a ccache"},
	{"krb5:keytab=/a,ccache=/b,principal=c", "and not both"},
	{"krb5:ccache=/b,principal=c", "the ccache's own"},
	{"krb5:keytab=a,principal=c", "is not an absolute path"},
	{"krb5:keytab=/a,keytab=/b,principal=c", "two times \"keytab\""},
	{"krb5:keytab=/a,principle=c", "did you mean \"principal\"?"},
	{"krb5:xyz=/a", "has no \"xyz\""},
	{"krb5:ccache=MEMORY:x", "is not FILE:/path"},
	{"krb5:ccache=FILE:x", "is not FILE:/path"},
	{"krb5:ccache=krb5cc_0", "is not FILE:/path"},
};

static void test_good(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct error err = ERROR_NONE;
		struct krb5_source *src;

		if (krb5_source_parse(good[i], &src, &err) < 0)
			fail_msg("%s: %s", good[i], err.text);
		krb5_source_free(src);
	}
}

static void test_bad(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error err = ERROR_NONE;
		struct krb5_source *src = NULL;

		assert_int_equal(krb5_source_parse(bad[i].spec, &src, &err), -EINVAL);
		assert_int_equal(err.status, EXIT_STATUS_CONFIG);
		if (!strstr(err.text, bad[i].words))
			fail_msg("%s: %s", bad[i].spec, err.text);
		assert_null(src);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
	};

	return cmocka_run_group_tests_name("krb5_source", tests, NULL, NULL);
}
