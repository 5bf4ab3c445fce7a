/* SPDX-License-Identifier: MIT */
#include "volume_args.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"

int volume_args_set(struct volume_args *a, const char *name, const char *value, struct error *err)
{
	if (strcmp(name, "config") == 0)
		a->config_file = value;
	else if (strcmp(name, "options") == 0)
		a->options = value;
	else if (strcmp(name, "key") != 0)
		return 0;
	else if (a->n_keys == VOLUME_ARGS_KEYS_MAX)
		return error_set(err, -E2BIG, EXIT_STATUS_USAGE, "more than %d times --key",
				 VOLUME_ARGS_KEYS_MAX);
	else
		a->keys[a->n_keys++] = value;
	return 0;
}

static bool is_path(const char *volume)
{
	return strchr(volume, '/') || strcmp(volume, ".") == 0 || strcmp(volume, "..") == 0;
}

static int base_config(const struct config_set *set, const char *what, const char *volume,
		       enum volume_operand kind, struct config **ret, struct error *err)
{
	int r;

	if (kind != VOLUME_DIRECTORY && !is_path(volume)) {
		r = config_volume(set, volume, ret, err);
		if (r != -ENOENT || kind != VOLUME_NAME_OR_PATH_THERE || access(volume, F_OK) < 0)
			return r;
		*err = ERROR_NONE;
	}
	r = config_anonymous(set, what, ret, err);
	return r < 0 ? r : config_set_option(*ret, "source", volume, "the command line", err);
}

/* Nothing but its mount can open an ephemeral volume, and without a mount there is none. */
static int check_lasting(const struct config *cfg, const char *what, const char *volume, struct error *err)
{
	if (!cfg->ephemeral)
		return 0;
	if (strcmp(what, "init") == 0)
		return error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED,
				 "an ephemeral volume needs no init: it is made when it is mounted");
	error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED,
		  "cannot %s \"%s\": it is ephemeral, and nothing but its mount has its key",
		  strcmp(what, "key") == 0 ? "change or list the keys of" : what, volume);
	if (strcmp(what, "check") == 0)
		error_hint(err, "ckrfs check --online %s", volume);
	return -EOPNOTSUPP;
}

int volume_args_config(const struct volume_args *a, const char *what, const char *volume,
		       enum volume_operand kind, struct config **ret, struct error *err)
{
	autoconfig_set struct config_set *set = NULL;
	autoconfig struct config *cfg = NULL;
	int r = config_load(a->config_file, getuid(), &set, err);

	if (r == 0)
		r = base_config(set, what, volume, kind, &cfg, err);
	if (r == 0 && a->options)
		r = config_apply_options(cfg, a->options, "-o", err);
	for (size_t i = 0; r == 0 && i < a->n_keys; i++)
		r = config_set_option(cfg, "key", a->keys[i], "--key", err);
	if (r == 0)
		r = config_volume_finish(cfg, err);
	if (r == 0)
		r = check_lasting(cfg, what, volume, err);
	if (r == 0)
		*ret = steal_ptr(&cfg);
	return r;
}
