/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "diagnosis.h"
#include "unit.h"
#include "util.h"

static void the_status_is_that_of_all(void **state)
{
	static const struct {
		enum exit_status statuses[3];
		size_t n;
		enum exit_status want;
	} cases[] = {
		{{0}, 0, EXIT_STATUS_DONE},
		{{EXIT_STATUS_CONFIG}, 1, EXIT_STATUS_CONFIG},
		{{EXIT_STATUS_CONFIG, EXIT_STATUS_CONFIG}, 2, EXIT_STATUS_CONFIG},
		{{EXIT_STATUS_CONFIG, EXIT_STATUS_NO_KEY}, 2, EXIT_STATUS_FAILED},
		{{EXIT_STATUS_CONFIG, EXIT_STATUS_NO_KEY, EXIT_STATUS_NO_KEY}, 3, EXIT_STATUS_FAILED},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct diagnosis d = {0};

		diagnosis_add(&d, "a", DIAGNOSIS_NOTE, 0, NULL, "a note");
		diagnosis_add(&d, "b", DIAGNOSIS_OK, 0, NULL, "fine");
		for (size_t k = 0; k < cases[i].n; k++)
			diagnosis_add(&d, "c", DIAGNOSIS_PROBLEM, cases[i].statuses[k], NULL, "a problem");
		assert_int_equal(diagnosis_status(&d), cases[i].want);
		assert_int_equal(diagnosis_count(&d, DIAGNOSIS_PROBLEM), cases[i].n);
		diagnosis_free(&d);
	}
}

static void findings_are_json(void **state)
{
	struct diagnosis d = {0};
	struct error err = ERROR_NONE;
	autofree char *text = NULL;

	error_set(&err, -EPERM, EXIT_STATUS_CONFIG, "not \"good\"");
	error_hint(&err, "chmod 600 /a");
	diagnosis_add(&d, "a\nb", DIAGNOSIS_OK, 0, NULL, "%s", "\033[31mred");
	diagnosis_add_error(&d, "key web", &err);
	assert_int_equal(diagnosis_json(&d, &text), 0);
	assert_non_null(strstr(text, "\"problems\": 1"));
	assert_non_null(strstr(text, "\"check\": \"a\\\\x0ab\""));
	assert_non_null(strstr(text, "\"text\": \"\\\\x1b[31mred\""));
	assert_non_null(strstr(text, "\"text\": \"not \\\"good\\\"\""));
	assert_non_null(strstr(text, "\"try\": \"chmod 600 /a\""));
	diagnosis_free(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_status_is_that_of_all),
		cmocka_unit_test(findings_are_json),
	};

	return cmocka_run_group_tests_name("diagnosis", tests, NULL, NULL);
}
