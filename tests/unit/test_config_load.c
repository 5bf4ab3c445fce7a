/* SPDX-License-Identifier: MIT */
/* Configuration on disk: which files are read, in which order, and which are refused. */
#include "cleanup.h"
#include "config_impl.h"
#include "scratch_dir.h"
#include "unit.h"
#include "util.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static struct scratch scratch;
static const char *const dir = scratch.path;

static char *path(const char *name)
{
	char *p;

	assert_true(asprintf(&p, "%s/%s", dir, name) > 0);
	return p;
}

static void file_write(const char *name, const char *text, mode_t mode)
{
	autofree char *p = path(name);
	FILE *f = fopen(p, "we");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(p, mode), 0);
}

static int setup(void **state)
{
	return scratch_make(&scratch) < 0 || mkdirat(scratch.fd, "conf.d", 0755) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	scratch_remove(&scratch);
	return 0;
}

static struct config *volume(const struct config_set *set, const char *name)
{
	struct config *cfg = NULL;

	assert_int_equal(config_volume(set, name, &cfg, NULL), 0);
	return cfg;
}

static int load(const char *name, struct config_set **ret, struct error *err)
{
	autofree char *p = path(name);

	return config_load(p, getuid(), ret, err);
}

static void test_load(void **state)
{
	autoconfig_set struct config_set *set = NULL;
	autoconfig struct config *cfg = NULL;
	struct error err = ERROR_NONE;
	autofree char *want = path("conf.d/b.conf:2");

	file_write("main.conf", "[defaults]\nthreads = 1\n[volume m]\nsource = /m\n", 0644);
	file_write("conf.d/b.conf", "[defaults]\nthreads = 3\n", 0600);
	file_write("conf.d/a.conf", "[defaults]\nthreads = 2\nshared = yes\n[volume a]\nsource = /a\n", 0644);
	file_write("conf.d/.c.conf", "nonsense\n", 0644);
	file_write("conf.d/d.txt", "nonsense\n", 0644);
	assert_int_equal(load("main.conf", &set, &err), 0);
	assert_string_equal(config_volumes(set)[0], "a");
	assert_string_equal(config_volumes(set)[1], "m");
	cfg = volume(set, "m");
	assert_int_equal(cfg->threads, 3);
	assert_true(cfg->shared);
	assert_string_equal(config_origin(cfg, "threads"), want);
}

static void load_refused(const char *name, const char *file, const char *words, const char *hint)
{
	struct config_set *set = NULL;
	struct error err = ERROR_NONE;
	autofree char *p = path(file);
	autofree char *want = NULL, *want_hint = NULL;

	assert_true(asprintf(&want, "%s%s", p, words) > 0);
	assert_true(asprintf(&want_hint, "%s%s", hint ? hint : "", hint ? p : "") >= 0);
	assert_true(load(name, &set, &err) < 0);
	assert_string_equal(err.text, want);
	assert_string_equal(err.hint, want_hint);
	assert_int_equal(err.status, EXIT_STATUS_CONFIG);
	assert_null(set);
}

static void test_load_refused(void **state)
{
	autofree char *conf_d = path("conf.d");
	autofree char *link = path("link.conf");
	autofree char *fifo = path("conf.d/a.conf");

	load_refused("missing.conf", "missing.conf", " does not exist", NULL);
	load_refused("conf.d", "conf.d", " is not a regular file", NULL);
	file_write("main.conf", "", 0666);
	load_refused("main.conf", "main.conf", " can be written by others (mode 0666)", "chmod go-w ");
	file_write("main.conf", "", 0664);
	load_refused("main.conf", "main.conf", " can be written by others (mode 0664)", "chmod go-w ");
	file_write("main.conf", "", 0644);
	assert_int_equal(symlink("main.conf", link), 0);
	load_refused("link.conf", "link.conf", " is a symbolic link: not followed", NULL);
	assert_int_equal(chmod(conf_d, 01777), 0);
	load_refused("main.conf", "conf.d", " can be written by others (mode 1777)", "chmod go-w ");
	assert_int_equal(chmod(conf_d, 0755), 0);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	load_refused("main.conf", "conf.d/a.conf", " is not a regular file", NULL);
	assert_int_equal(unlink(fifo), 0);
	file_write("conf.d/a.conf", "[volume x]\n", 0644);
	file_write("conf.d/b.conf", "#\n#\n[volume x]\n", 0644);
	{
		autofree char *words = NULL;

		assert_true(asprintf(&words, ":3: volume \"x\" is already in %s:1", fifo) > 0);
		load_refused("main.conf", "conf.d/b.conf", words, NULL);
	}
}

static void test_load_directory(void **state)
{
	struct error err = ERROR_NONE;
	struct config_set *set = NULL;
	char want[128];

	file_write("main.conf", "", 0644);
	assert_int_equal(chmod(dir, 0775), 0);
	assert_int_equal(load("main.conf", &set, &err), -EPERM);
	snprintf(want, sizeof(want), "%s can be written by others (mode 0775)", dir);
	assert_string_equal(err.text, want);
	/* above the directory: conf.d as the place of a file */
	file_write("conf.d/a.conf", "", 0644);
	err = ERROR_NONE;
	assert_int_equal(load("conf.d/a.conf", &set, &err), -EPERM);
	assert_string_equal(err.text, want);
	assert_int_equal(chmod(dir, 01777), 0);
	assert_int_equal(load("conf.d/a.conf", &set, &err), 0);
	config_set_free(set);
}

static void test_load_owner(void **state)
{
	struct error err = ERROR_NONE;
	struct config_set *set = NULL;
	autofree char *p = path("main.conf");
	char want[128];

	if (geteuid() != 0)
		skip();
	file_write("main.conf", "", 0644);
	if (chown(p, 12345, 0) < 0)
		skip(); /* a user namespace without that user */
	assert_int_equal(load("main.conf", &set, &err), -EPERM);
	snprintf(want, sizeof(want), "%s belongs to uid 12345, not to root or to uid 0", p);
	assert_string_equal(err.text, want);
	assert_string_equal(strncmp(err.hint, "chown root ", 11) ? err.hint : "chown", "chown");
	assert_int_equal(config_load(p, 12345, &set, &err), 0);
	config_set_free(set);
}

static void test_load_large(void **state)
{
	struct error err = ERROR_NONE;
	struct config_set *set = NULL;
	autofree char *p = path("main.conf");
	char want[128];

	file_write("main.conf", "", 0644);
	assert_int_equal(truncate(p, (1 << 20) + 1), 0);
	assert_int_equal(load("main.conf", &set, &err), -EFBIG);
	snprintf(want, sizeof(want), "%s is larger than 1 MiB", p);
	assert_string_equal(err.text, want);
	assert_int_equal(err.status, EXIT_STATUS_CONFIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_load, setup, teardown),
		cmocka_unit_test_setup_teardown(test_load_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_load_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_load_owner, setup, teardown),
		cmocka_unit_test_setup_teardown(test_load_large, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
