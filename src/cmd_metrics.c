/* SPDX-License-Identifier: MIT */
/* ckrfs metrics: all mounts, for Prometheus. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "command.h"
#include "metrics.h"
#include "mount_list.h"
#include "util.h"

struct metrics_args {
	const char *output; /* NULL: standard output */
};

static int metrics_args_set(void *ctx, const char *name, const char *value, struct error *err)
{
	struct metrics_args *a = ctx;

	if (strcmp(name, "output") != 0)
		return 0;
	a->output = value;
	return *value ? 0 : error_set(err, -EINVAL, EXIT_STATUS_USAGE, "--output is empty");
}

static int make_text(const struct mount_list *list, char **ret_text, size_t *ret_size)
{
	FILE *f = open_memstream(ret_text, ret_size);
	bool failed;

	if (!f)
		return -errno;
	metrics_write(list->items, list->n, time(NULL), f);
	failed = ferror(f);
	if (fclose(f) == EOF || failed)
		return -ENOMEM;
	return 0;
}

static int write_temporary(int fd, const char *text, size_t size)
{
	int r = write_full(fd, text, size);

	/* For whoever collects it; mkostemp(3) made it 0600. */
	if (r == 0 && fchmod(fd, 0644) < 0)
		r = -errno;
	return r;
}

/* In one step: who reads it never sees half of it. The name does not end in ".prom" before it is whole. */
static int write_file(const char *path, const char *text, size_t size)
{
	autofree char *temporary = NULL;
	autofd int fd = -1;
	int r;

	if (asprintf(&temporary, "%s.XXXXXX", path) < 0) {
		temporary = NULL;
		return -ENOMEM;
	}
	fd = mkostemp(temporary, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = write_temporary(fd, text, size);
	if (r == 0 && rename(temporary, path) < 0)
		r = -errno;
	if (r < 0)
		unlink(temporary);
	return r;
}

static int show(const struct mount_list *list, const char *output, struct error *err)
{
	autofree char *text = NULL;
	size_t size = 0;
	int r = make_text(list, &text, &size);

	if (r == 0)
		r = output ? write_file(output, text, size) : write_full(STDOUT_FILENO, text, size);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot write the metrics to %s",
				   output ? output : "standard output")
		     : 0;
}

int cmd_metrics(const struct front *front, int argc, char **argv)
{
	const struct command *cmd = command_find("metrics");
	automount_list struct mount_list list = {0};
	struct metrics_args a = {0};
	struct error err = ERROR_NONE;
	int first, r = command_parse(cmd, argc, argv, metrics_args_set, &a, &first);

	if (r < 0)
		return r == -ECANCELED ? EXIT_STATUS_DONE : EXIT_STATUS_USAGE;
	if (first < argc)
		return command_usage(cmd, "unexpected \"%s\"", argv[first]);
	r = mount_list_all(&list, &err);
	if (r == 0)
		r = show(&list, a.output, &err);
	return r < 0 ? command_fail(&err) : EXIT_STATUS_DONE;
}
