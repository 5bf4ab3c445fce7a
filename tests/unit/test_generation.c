/* SPDX-License-Identifier: MIT */
/* The state file of a generation: what is written is read, anything else is damaged. */
#include "generation.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "scratch_dir.h"
#include "store.h"
#include "unit.h"

#define KEY_A "00112233445566778899aabbccddeeff"
#define KEY_B "ffeeddccbbaa99887766554433221100"
#define HEAD "ckrfs rekey 1\nrole "
#define TAIL "\nold " KEY_A "\nnew " KEY_B "\nconfig -\n"

static void state_is_read_as_written(void **state)
{
	struct generation g = {.old_key = KEY_A, .new_key = KEY_B}, seen;
	struct timespec times[2] = {{1, 2}, {3, 4}};
	struct scratch s;
	struct stat st;

	assert_int_equal(scratch_make(&s), 0);
	assert_int_equal(store_init_proc(), 0);
	assert_int_equal(generation_read(s.fd, &seen), -ENOENT);
	assert_int_equal(store_utimens(s.fd, times), 0);
	for (int role = GENERATION_UNFINISHED; role <= GENERATION_RETIRED; role++) {
		g.role = (enum generation_role)role;
		memset(g.old_config, 'a' + role, role ? 64 : 0);
		assert_int_equal(generation_write(s.fd, &g), 0);
		assert_int_equal(generation_read(s.fd, &seen), 0);
		assert_int_equal(seen.role, g.role);
		assert_string_equal(seen.old_key, KEY_A);
		assert_string_equal(seen.new_key, KEY_B);
		assert_string_equal(seen.old_config, role ? g.old_config : "-");
	}
	assert_int_equal(generation_remove(s.fd), 0);
	assert_int_equal(generation_read(s.fd, &seen), -ENOENT);
	/* The directory is the root of a volume: its times are the user's. */
	assert_int_equal(store_stat_fd(s.fd, &st), 0);
	assert_int_equal(st.st_mtim.tv_sec, 3);
	assert_int_equal(st.st_mtim.tv_nsec, 4);
	scratch_remove(&s);
}

static void damaged_state_is_told(void **state)
{
	static const struct {
		const char *text;
		int result;
	} cases[] = {
		{HEAD "unfinished" TAIL, 0},
		{HEAD "complete" TAIL, 0},
		{"", -EBADMSG},
		{HEAD "finished" TAIL, -EBADMSG},
		{HEAD "unfinished", -EBADMSG},
		{HEAD "unfinished\nold " KEY_A "\nnew " KEY_B "\nconfig -", -EBADMSG},
		{HEAD "unfinished\nold " KEY_A "0\nnew " KEY_B "\nconfig -\n", -EBADMSG},
		{"ckrfs rekey 2\nrole unfinished" TAIL, -EBADMSG},
	};
	struct generation g;
	struct scratch s;

	assert_int_equal(scratch_make(&s), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(store_write_file(s.fd, GENERATION_FILE, cases[i].text, strlen(cases[i].text),
						  0600, false),
				 0);
		assert_int_equal(generation_read(s.fd, &g), cases[i].result);
		assert_int_equal(store_unlink(s.fd, GENERATION_FILE), 0);
	}
	/* What is no file at all never blocks. */
	assert_int_equal(store_mknod(s.fd, GENERATION_FILE, S_IFIFO | 0600, 0), 0);
	assert_int_equal(generation_read(s.fd, &g), -EBADMSG);
	assert_int_equal(store_unlink(s.fd, GENERATION_FILE), 0);
	assert_int_equal(store_symlink("/dev/zero", s.fd, GENERATION_FILE), 0);
	assert_int_equal(generation_read(s.fd, &g), -EBADMSG);
	scratch_remove(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(state_is_read_as_written),
		cmocka_unit_test(damaged_state_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
