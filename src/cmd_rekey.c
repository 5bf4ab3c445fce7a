/* SPDX-License-Identifier: MIT */
/* ckrfs rekey: a volume under a new master key. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cleanup.h"
#include "command.h"
#include "config.h"
#include "crypto.h"
#include "mount.h"
#include "progress.h"
#include "rekey.h"
#include "store.h"
#include "util.h"
#include "volume_args.h"

enum { NOFILE_WANTED = 1 << 20 };

struct rekey_args {
	struct volume_args volume;
	const char *new_key;
	bool keep_old, drop_slots, abort;
};

static int rekey_args_set(void *ctx, const char *name, const char *value, struct error *err)
{
	struct rekey_args *a = ctx;

	if (strcmp(name, "new-key") == 0)
		a->new_key = value;
	else if (strcmp(name, "keep-old") == 0)
		a->keep_old = true;
	else if (strcmp(name, "drop-slots") == 0)
		a->drop_slots = true;
	else if (strcmp(name, "abort") == 0)
		a->abort = true;
	return volume_args_set(&a->volume, name, value, err);
}

/* ---- what is seen meanwhile ---- */

struct show {
	struct progress progress;
	uint64_t next_ms;
	int phase;
};

static void show_progress(void *ctx, enum rekey_phase phase, uint64_t files, uint64_t bytes)
{
	static const char *const words[] = {
		[REKEY_COPYING] = "copying",
		[REKEY_COMPARING] = "comparing",
		[REKEY_REMOVING] = "removing the old generation",
	};
	struct show *s = ctx;
	uint64_t now = monotonic_ms();

	if (s->phase != (int)phase)
		progress_begin(&s->progress, words[phase]);
	else if (now < s->next_ms)
		return;
	s->phase = (int)phase;
	s->next_ms = now + 500;
	snprintf(s->progress.what, sizeof(s->progress.what), "%s: %" PRIu64 " files, %" PRIu64 " MiB",
		 words[phase], files, bytes >> 20);
	progress_tick(&s->progress);
}

/* A level of the tree needs two. */
static void raise_nofile(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return;
	l.rlim_cur = l.rlim_max;
	setrlimit(RLIMIT_NOFILE, &l);
	if (l.rlim_max >= NOFILE_WANTED)
		return;
	l.rlim_cur = l.rlim_max = NOFILE_WANTED; /* root may */
	setrlimit(RLIMIT_NOFILE, &l);
}

static void say_done(const char *source, bool copied, const struct rekey_result *result)
{
	if (!copied)
		printf("finished what an earlier rekey of %s had left to do; to change the key once more, "
		       "run it again\n",
		       source);
	else
		printf("%s has a new master key: %" PRIu64 " files, %" PRIu64 " bytes copied and compared\n",
		       source, result->files, result->bytes);
	printf("key identifier: %s (was %s)\n", result->new_key, result->old_key);
	if (result->dropped[0])
		printf("lost with the old master key: the keys (slots) %s\n"
		       "add them anew with: ckrfs key add\n",
		       result->dropped);
	if (result->in_use)
		printf("the old generation is still mounted read-only, and stays as %s beside it\n"
		       "remove it after unmounting with: ckrfs rekey %s\n",
		       result->kept, source);
	else if (result->kept[0])
		printf("the old generation is kept as %s beside it\n", result->kept);
}

/* ---- doing it ---- */

static int unlock(struct mount *m, const struct rekey_args *a, struct rekey *k, struct error *err)
{
	struct key fresh = {0};
	int r = mount_get_key(m, err);

	if (r == 0 && a->new_key)
		r = mount_get_other_key(m, a->new_key, &fresh, err);
	if (r == 0)
		r = rekey_unlock(k, &m->key, &fresh, err);
	key_wipe(&fresh);
	return r;
}

static int rekey_volume(struct mount *m, const struct rekey_args *a, struct rekey_result *result,
			struct error *err)
{
	struct show show = {.phase = -1};
	struct rekey_params params = {
		.source = m->config->source,
		.lower = m->config->lower,
		.format = m->config->format,
		.scrypt_memory = m->config->scrypt_memory,
		.keep_old = a->keep_old,
		.drop_slots = a->drop_slots,
		.progress = show_progress,
		.progress_ctx = &show,
	};
	struct rekey *k = NULL;
	bool copied;
	int r = store_init_proc();

	if (r == 0)
		r = crypto_init();
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot begin");
	if (a->abort) {
		r = rekey_abort(&params, err);
		progress_end(&show.progress);
		return r;
	}
	r = rekey_open(&params, &k, err);
	if (r < 0)
		return r;
	copied = rekey_needs_keys(k);
	if (copied)
		r = unlock(m, a, k, err);
	if (r == 0)
		r = rekey_run(k, result, err);
	progress_end(&show.progress);
	rekey_free(k);
	if (r == 0)
		say_done(params.source, copied, result);
	return r;
}

static int run_rekey(const struct rekey_args *a, const char *volume, struct error *err)
{
	struct rekey_result result = {0};
	struct config *cfg = NULL;
	struct mount *m = NULL;
	int r = volume_args_config(&a->volume, "rekey", volume, VOLUME_NAME_OR_PATH, &cfg, err);

	if (r == 0)
		r = mount_new(cfg, getuid(), &m, err);
	if (r < 0)
		return r;
	raise_nofile();
	r = rekey_volume(m, a, &result, err);
	if (r < 0)
		error_prefix(err, a->abort ? "cannot give up rekeying \"%s\"" : "cannot rekey \"%s\"",
			     volume);
	else if (a->abort)
		printf("removed the unfinished new generation of %s; the volume is as it was\n", cfg->source);
	mount_stop(m);
	mount_free(m);
	return r < 0 ? r : result.in_use;
}

int cmd_rekey(const struct front *front, int argc, char **argv)
{
	const struct command *cmd = command_find("rekey");
	struct rekey_args a = {.volume.config_file = front->config_file};
	struct error err = ERROR_NONE;
	int first, r = command_parse(cmd, argc, argv, rekey_args_set, &a, &first);

	if (r < 0)
		return r == -ECANCELED ? EXIT_STATUS_DONE : EXIT_STATUS_USAGE;
	if (argc - first != 1)
		return command_usage(cmd, "one volume is needed");
	r = run_rekey(&a, argv[first], &err);
	if (r < 0)
		return command_fail(&err);
	return r ? EXIT_STATUS_PARTLY : EXIT_STATUS_DONE;
}
