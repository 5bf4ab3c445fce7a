/* SPDX-License-Identifier: MIT */
/* ckrfs check: looks for damage in a volume. */
#include "cmd_check_impl.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "sandbox.h"
#include "store.h"

static int check_args_set(void *ctx, const char *name, const char *value, struct error *err)
{
	struct check_args *a = ctx;

	if (strcmp(name, "config") == 0)
		a->config_file = value;
	else if (strcmp(name, "options") == 0)
		a->options = value;
	else if (strcmp(name, "key") == 0 && a->n_keys < CHECK_KEYS_MAX)
		a->keys[a->n_keys++] = value;
	else if (strcmp(name, "json") == 0)
		a->json = true;
	else if (strcmp(name, "repair") == 0)
		a->repair = true;
	else if (strcmp(name, "online") == 0)
		a->online = true;
	else if (strcmp(name, "quarantine") == 0)
		a->quarantine = value;
	else if (strcmp(name, "undo") == 0)
		a->undo = value;
	return 0;
}

/* ---- the volume ---- */

static bool is_path(const char *operand)
{
	return strchr(operand, '/') || strcmp(operand, ".") == 0 || strcmp(operand, "..") == 0;
}

/* A name of the configuration, or else a directory. */
static int base_config(const struct config_set *set, const char *operand, struct config **ret,
		       struct error *err)
{
	int r;

	if (!is_path(operand)) {
		r = config_volume(set, operand, ret, err);
		if (r != -ENOENT || access(operand, F_OK) < 0)
			return r;
		*err = ERROR_NONE;
	}
	r = config_anonymous(set, "check", ret, err);
	return r < 0 ? r : config_set_option(*ret, "source", operand, "the command line", err);
}

static int build_config(const struct check_args *a, const char *operand, struct config **ret,
			struct error *err)
{
	autoconfig_set struct config_set *set = NULL;
	autoconfig struct config *cfg = NULL;
	int r = config_load(a->config_file, getuid(), &set, err);

	if (r == 0)
		r = base_config(set, operand, &cfg, err);
	if (r == 0 && a->options)
		r = config_apply_options(cfg, a->options, "-o", err);
	for (size_t i = 0; r == 0 && i < a->n_keys; i++)
		r = config_set_option(cfg, "key", a->keys[i], "--key", err);
	if (r == 0)
		r = config_volume_finish(cfg, err);
	if (r == 0)
		*ret = steal_ptr(&cfg);
	return r;
}

/* ---- checking ---- */

/* With a mender findings are for it too. An exit status, or negative errno. */
static int run_check(struct mount *m, struct check_output *o, bool live, struct check_mender *mender,
		     struct finding_summary *ret, struct error *err)
{
	struct check_params params = {
		.format = m->format,
		.root_fd = lower_root(m->lower),
		.threads = m->config->threads,
		.live = live,
		.found = mender ? check_mender_finding : check_output_finding,
		.ctx = mender ? (void *)mender : o,
	};
	struct check *check = NULL;
	int r = check_new(&params, &check, err);

	if (r < 0)
		return r;
	check_output_begin(o, m->config->source);
	check_output_stage(o, "checking");
	pthread_mutex_lock(&o->lock);
	o->check = check;
	pthread_mutex_unlock(&o->lock);
	r = check_run(check, err);
	check_summary(check, ret);
	pthread_mutex_lock(&o->lock);
	o->check = NULL;
	pthread_mutex_unlock(&o->lock);
	check_free(check);
	if (r < 0)
		return r;
	return ret->damages ? EXIT_STATUS_DAMAGED : EXIT_STATUS_DONE;
}

static int check_open_volume(struct mount *m, const struct check_args *a, struct check_output *o, bool live,
			     struct error *err)
{
	struct check_mender mender = CHECK_MENDER_NONE;
	struct finding_summary summary = {.complete = false};
	int r = 0, status = 0;

	if (a->repair)
		r = check_mender_open(m, a, o, &mender, err);
	if (r == 0)
		r = status = run_check(m, o, live, a->repair ? &mender : NULL, &summary, err);
	check_output_stop(o);
	if (r >= 0 && a->repair)
		r = status = check_mender_run(&mender, err);
	if (r >= 0)
		r = check_output_end(o, &summary, err);
	check_mender_close(&mender);
	return r < 0 ? r : status;
}

static int check_volume(struct mount *m, const struct check_args *a, struct error *err)
{
	struct check_output o = {.json = a->json};
	unsigned protections = 0;
	bool live = false;
	int r = sandbox_no_core(&protections, err);

	if (r == 0)
		r = store_init_proc();
	if (r < 0)
		return r;
	check_output_start(&o);
	r = mount_open_volume(m, a->repair, check_output_stage, &o, &live, err);
	if (r == 0)
		return check_open_volume(m, a, &o, live, err);
	check_output_stop(&o);
	return r;
}

static int run_offline(const struct check_args *a, const char *operand, struct error *err)
{
	struct config *cfg = NULL;
	struct mount *m = NULL;
	int r = build_config(a, operand, &cfg, err);

	if (r == 0)
		r = mount_new(cfg, getuid(), &m, err);
	if (r < 0)
		return r;
	r = a->undo ? check_undo(a, cfg, err) : check_volume(m, a, err);
	mount_stop(m);
	mount_free(m);
	return r < 0 ? error_prefix(err, "cannot %s \"%s\"",
				    a->undo     ? "undo the repair of"
				    : a->repair ? "repair"
						: "check",
				    operand)
		     : r;
}

int cmd_check(const struct front *front, int argc, char **argv)
{
	const struct command *cmd = command_find("check");
	struct check_args a = {.config_file = front->config_file};
	struct error err = ERROR_NONE;
	int first, r = command_parse(cmd, argc, argv, check_args_set, &a, &first);

	if (r < 0)
		return r == -ECANCELED ? EXIT_STATUS_DONE : EXIT_STATUS_USAGE;
	if (argc - first != 1)
		return command_usage(cmd, "one volume is needed");
	if (a.undo && (a.repair || a.json || a.quarantine))
		return command_usage(cmd, "--undo takes no other option of a check");
	if (a.quarantine && !a.repair)
		return command_usage(cmd, "--quarantine is for --repair");
	if (a.online && (a.repair || a.undo || a.n_keys || a.options))
		return command_usage(cmd, "--online takes no other option but --json");
	r = a.online ? check_online(&a, argv[first], &err) : run_offline(&a, argv[first], &err);
	return r < 0 ? command_fail(&err) : r;
}
