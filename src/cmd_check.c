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

	if (strcmp(name, "json") == 0)
		a->json = true;
	else if (strcmp(name, "repair") == 0)
		a->repair = true;
	else if (strcmp(name, "online") == 0)
		a->online = true;
	else if (strcmp(name, "quarantine") == 0)
		a->quarantine = value;
	else if (strcmp(name, "undo") == 0)
		a->undo = value;
	return volume_args_set(&a->volume, name, value, err);
}

/* ---- the volume ---- */

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
	int r = volume_args_config(&a->volume, "check", operand, VOLUME_NAME_OR_PATH_THERE, &cfg, err);

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
	struct check_args a = {.volume.config_file = front->config_file};
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
	if (a.online && (a.repair || a.undo || a.volume.n_keys || a.volume.options))
		return command_usage(cmd, "--online takes no other option but --json");
	r = a.online ? check_online(&a, argv[first], &err) : run_offline(&a, argv[first], &err);
	return r < 0 ? command_fail(&err) : r;
}
