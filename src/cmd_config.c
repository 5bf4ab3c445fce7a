/* SPDX-License-Identifier: MIT */
/* ckrfs config: what the configuration files say, without mounting anything. */
#include "cleanup.h"
#include "command.h"
#include "config.h"
#include "keysource.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>

struct config_args {
	const char *file;
	const char *show; /* volume */
	const char *options;
	bool check, list, json;
};

static int config_args_set(void *ctx, const char *name, const char *value, struct error *err)
{
	struct config_args *a = ctx;

	if (!strcmp(name, "config"))
		a->file = value;
	else if (!strcmp(name, "show"))
		a->show = value;
	else if (!strcmp(name, "options"))
		a->options = value;
	else if (!strcmp(name, "check"))
		a->check = true;
	else if (!strcmp(name, "list"))
		a->list = true;
	else if (!strcmp(name, "json"))
		a->json = true;
	else
		return error_set(err, -EINVAL, EXIT_STATUS_USAGE, "option --%s is not known here", name);
	return 0;
}

static int show_volume(const struct config_set *set, const struct config_args *a, struct error *err)
{
	autoconfig struct config *cfg = NULL;
	int r = config_volume(set, a->show, &cfg, err);

	if (r == 0 && a->options)
		r = config_apply_options(cfg, a->options, "-o", err);
	if (r == 0)
		r = config_volume_finish(cfg, err);
	if (r < 0)
		return r;
	r = config_show(cfg, stdout, a->json);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot show volume \"%s\"", a->show) : 0;
}

static int list_volumes(const struct config_set *set)
{
	for (const char *const *name = config_volumes(set); *name; name++)
		puts(*name);
	return 0;
}

/* What the configuration itself cannot know: whether the key sources are such. */
static int check_keys(const struct config *cfg, struct error *err)
{
	for (size_t i = 0; i < cfg->n_keys; i++) {
		struct keysource *src = NULL;
		int r = keysource_parse(cfg->keys[i], &src, err);

		if (r < 0) {
			error_prefix(err, "%s", config_origin(cfg, "key"));
			return r;
		}
		keysource_free(src);
	}
	return 0;
}

/* Each volume as `ckrfs mount` would take it: the first error counts. */
static int check_volumes(const struct config_set *set, struct error *err)
{
	size_t n = 0;

	for (const char *const *name = config_volumes(set); *name; name++, n++) {
		autoconfig struct config *cfg = NULL;
		int r = config_volume(set, *name, &cfg, err);

		if (r == 0)
			r = config_volume_finish(cfg, err);
		if (r == 0)
			r = check_keys(cfg, err);
		if (r < 0)
			return r;
	}
	printf("%s: %zu volume%s, no errors\n", config_place(set), n, n == 1 ? "" : "s");
	return 0;
}

int cmd_config(const struct front *front, int argc, char **argv)
{
	const struct command *cmd = command_find("config");
	struct config_args a = {.file = front->config_file};
	autoconfig_set struct config_set *set = NULL;
	struct error err = ERROR_NONE;
	int first, r;

	r = command_parse(cmd, argc, argv, config_args_set, &a, &first);
	if (r < 0)
		return r == -ECANCELED ? EXIT_STATUS_DONE : EXIT_STATUS_USAGE;
	if (first < argc)
		return command_usage(cmd, "unexpected \"%s\"", argv[first]);
	if (!!a.show + a.check + a.list != 1)
		return command_usage(cmd, "one of --show, --check and --list is needed");
	if (!a.show && (a.json || a.options))
		return command_usage(cmd, "--json and -o belong to --show");
	r = config_load(a.file, getuid(), &set, &err);
	if (r == 0)
		r = a.show    ? show_volume(set, &a, &err)
		    : a.check ? check_volumes(set, &err)
			      : list_volumes(set);
	if (r < 0)
		return command_fail(&err);
	if (fflush(stdout) == EOF) {
		error_errno(&err, -errno, EXIT_STATUS_FAILED, "cannot write to standard output");
		return command_fail(&err);
	}
	return EXIT_STATUS_DONE;
}
