/* SPDX-License-Identifier: MIT */
/*
 * The volumes, who has asked what of them, and what is being done. One job at a time changes a volume;
 * whoever asks meanwhile waits for its end, at most answer_ms.
 *
 * Mounts are counted, not their IDs: podman sends the same for all containers. A Mount counts when its answer
 * is about to be sent; should that not arrive, it is taken back. Between the two it is in the state as
 * unanswered: after a crash, the engine that asks again with that ID gets the same mount, counted once.
 * An Unmount counts before anything is unmounted, so that repeating it does no harm.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "log.h"
#include "util.h"
#include "volume_plugin_impl.h"

/* Of requests there are fewer, by far, unless what reads them is not ours any more. */
enum { VOLUMES_MAX = 1024, ASKED_MAX = 1024 };

struct volume {
	struct volume *next; /* sorted by name */
	struct plugin_volume def;
	struct tally tally;
	struct job job;      /* changes it */
	struct job look;     /* for Get */
	bool mounted;        /* as far as is known */
	uint64_t idle_since; /* mounted for nobody since then; 0: it is not */
};

/* A request that is not delivered. */
struct asked {
	struct asked *next;
	uint64_t serial, deadline;
	bool answered;
	bool counted; /* a Mount that is in the count */
	struct plugin_request request;
	struct job job; /* Create */
};

struct volumes {
	struct volumes_params params;
	struct volume *list;
	size_t n;
	struct asked *asked; /* in the order in which they came */
};

/* ---- lists ---- */

static struct volume *find(const struct volumes *vs, const char *name)
{
	for (struct volume *v = vs->list; v; v = v->next)
		if (strcmp(v->def.name, name) == 0)
			return v;
	return NULL;
}

static struct volume *add(struct volumes *vs, const struct plugin_volume *def)
{
	struct volume *v = calloc(1, sizeof(*v)), **at = &vs->list;

	if (!v)
		return NULL;
	v->def = *def;
	v->job = v->look = JOB_NONE;
	while (*at && strcmp((*at)->def.name, def->name) < 0)
		at = &(*at)->next;
	v->next = *at;
	*at = v;
	vs->n++;
	return v;
}

static void volume_free(struct volume *v)
{
	job_kill(&v->job);
	job_kill(&v->look);
	cleanup_close(&v->job.fd);
	cleanup_close(&v->look.fd);
	free(v);
}

static void drop(struct volumes *vs, struct volume *v)
{
	for (struct volume **at = &vs->list; *at; at = &(*at)->next)
		if (*at == v) {
			*at = v->next;
			break;
		}
	vs->n--;
	volume_free(v);
}

static void asked_free(struct volumes *vs, struct asked *a)
{
	for (struct asked **at = &vs->asked; *at; at = &(*at)->next)
		if (*at == a) {
			*at = a->next;
			break;
		}
	job_kill(&a->job);
	cleanup_close(&a->job.fd);
	free(a);
}

static bool waits(const struct asked *a, const struct volume *v, enum plugin_command command)
{
	return !a->answered && a->request.command == command &&
	       strcmp(a->request.volume.name, v->def.name) == 0;
}

static bool somebody_waits(const struct volumes *vs, const struct volume *v, enum plugin_command command)
{
	for (const struct asked *a = vs->asked; a; a = a->next)
		if (waits(a, v, command))
			return true;
	return false;
}

/* ---- answers ---- */

static void log_answer(const struct asked *a, const struct error *err)
{
	static const char *const words[] = {
		[PLUGIN_CREATE] = "create", [PLUGIN_REMOVE] = "remove",   [PLUGIN_MOUNT] = "mount",
		[PLUGIN_PATH] = "path",     [PLUGIN_UNMOUNT] = "unmount", [PLUGIN_GET] = "get",
	};
	const char *word = a->request.command < ARRAY_SIZE(words) ? words[a->request.command] : NULL;

	if (word && err->code < 0)
		log_msg(a->request.command == PLUGIN_GET ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARNING,
			"%s volume \"%s\": %s", word, a->request.volume.name, err->text);
	else if (word)
		log_msg(a->request.command >= PLUGIN_PATH ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO,
			"%s volume \"%s\": done", word, a->request.volume.name);
}

static void give(struct volumes *vs, struct asked *a, const struct plugin_answer *answer)
{
	log_answer(a, &answer->error);
	a->answered = true;
	vs->params.answer(vs->params.ctx, a->serial, answer);
}

static void give_error(struct volumes *vs, struct asked *a, const struct error *err)
{
	struct plugin_answer answer = {.error = *err};

	give(vs, a, &answer);
}

static void give_done(struct volumes *vs, struct asked *a)
{
	give_error(vs, a, &ERROR_NONE);
}

static void give_all(struct volumes *vs, const struct volume *v, enum plugin_command command,
		     const struct error *err)
{
	for (struct asked *a = vs->asked; a; a = a->next)
		if (waits(a, v, command))
			give_error(vs, a, err);
}

static void give_missing(struct volumes *vs, struct asked *a)
{
	const char *name = a->request.volume.name;
	struct error err = ERROR_NONE;

	if (plugin_store_has_file(vs->params.env.store, name))
		error_set(&err, -EBADMSG, EXIT_STATUS_CONFIG,
			  "what %s has of volume \"%s\" is damaged: remove it, or create it again",
			  vs->params.env.store->volumes_path, name);
	else
		error_set(&err, -ENOENT, EXIT_STATUS_NO_VOLUME, "there is no volume \"%s\"", name);
	give_error(vs, a, &err);
}

static void fill_mountpoint(const struct volumes *vs, const struct volume *v, struct plugin_answer *answer)
{
	if (v->mounted)
		plugin_target(vs->params.env.store, v->def.name, answer->mountpoint);
}

/* ---- counting ---- */

static int put_count(const struct volumes *vs, const struct volume *v, struct error *err)
{
	return plugin_store_put_count(vs->params.env.store, v->def.name, &v->tally.count, err);
}

/* The count has changed and there is no way back. */
static void keep_count(const struct volumes *vs, const struct volume *v)
{
	struct error err = ERROR_NONE;

	if (put_count(vs, v, &err) < 0)
		log_error(&err);
}

static void look_idle(struct volume *v)
{
	/* One that may be unanswered may as well have been answered: somebody may use it. */
	if (!v->mounted || v->tally.count.mounts > 0)
		v->idle_since = 0;
	else if (!v->idle_since)
		v->idle_since = monotonic_ms();
}

/* ---- what is to be done next ---- */

static void begin(struct volumes *vs, struct volume *v, enum job_kind kind, enum plugin_command for_whom)
{
	struct error err = ERROR_NONE;

	if (job_start(&v->job, kind, &vs->params.env, &v->def, tally_users(&v->tally) > 0, &err) < 0)
		give_all(vs, v, for_whom, &err);
}

static void step(struct volumes *vs, struct volume *v)
{
	if (v->job.pid)
		return;
	if (somebody_waits(vs, v, PLUGIN_MOUNT)) {
		begin(vs, v, JOB_MOUNT, PLUGIN_MOUNT);
	} else if (somebody_waits(vs, v, PLUGIN_REMOVE)) {
		begin(vs, v, JOB_REMOVE, PLUGIN_REMOVE);
	} else if (somebody_waits(vs, v, PLUGIN_UNMOUNT)) {
		if (v->tally.count.mounts == 0)
			begin(vs, v, JOB_UNMOUNT, PLUGIN_UNMOUNT);
		else
			give_all(vs, v, PLUGIN_UNMOUNT, &ERROR_NONE);
	}
	if (!v->job.pid)
		look_idle(v);
}

/* ---- ends of jobs ---- */

/* An engine that does not see the mount would give its container the empty directory below it, and what is
 * written there would be in clear. */
static void refuse_blind(struct volumes *vs, const struct volume *v)
{
	struct error err = ERROR_NONE;

	for (struct asked *a = vs->asked; a; a = a->next) {
		if (!waits(a, v, PLUGIN_MOUNT) ||
		    plugin_target_seen(vs->params.env.store, v->def.name, a->request.peer))
			continue;
		error_set(&err, -EXDEV, EXIT_STATUS_FAILED,
			  "volume \"%s\" is mounted, but process %d, which asks, does not see it: its mount "
			  "namespace gets no mounts from ours",
			  v->def.name, (int)a->request.peer);
		error_hint(&err, "mount --make-rshared /");
		give_error(vs, a, &err);
	}
}

static void mounted(struct volumes *vs, struct volume *v, const struct error *failed)
{
	struct plugin_answer answer = {.error = *failed};

	if (failed->code == 0) {
		refuse_blind(vs, v);
		for (struct asked *a = vs->asked; a; a = a->next)
			if (waits(a, v, PLUGIN_MOUNT)) {
				tally_mount(&v->tally, a->request.id);
				v->idle_since = 0;
				a->counted = true;
			}
		put_count(vs, v, &answer.error);
	}
	fill_mountpoint(vs, v, &answer);
	for (struct asked *a = vs->asked; a; a = a->next) {
		if (!waits(a, v, PLUGIN_MOUNT))
			continue;
		if (answer.error.code < 0 && a->counted) {
			tally_delivered(&v->tally, a->request.id, false);
			a->counted = false;
		}
		give(vs, a, &answer);
	}
}

static void unmounted(struct volumes *vs, struct volume *v, const struct error *failed)
{
	if (failed->code < 0 && !somebody_waits(vs, v, PLUGIN_UNMOUNT))
		log_error(failed);
	v->idle_since = 0;
	give_all(vs, v, PLUGIN_UNMOUNT, failed);
}

/* Frees the volume, unless that failed. */
static void removed(struct volumes *vs, struct volume *v, struct error *failed)
{
	if (failed->code == 0)
		plugin_store_remove_volume(vs->params.env.store, v->def.name, failed);
	give_all(vs, v, PLUGIN_REMOVE, failed);
	if (failed->code < 0) {
		step(vs, v);
		return;
	}
	for (struct asked *a = vs->asked; a; a = a->next)
		if (!a->answered && a->request.command != PLUGIN_CREATE &&
		    strcmp(a->request.volume.name, v->def.name) == 0)
			give_missing(vs, a);
	drop(vs, v);
}

static void job_ended(struct volumes *vs, struct volume *v)
{
	enum job_kind kind = v->job.kind;
	struct job_result result;

	job_end(&v->job, &result);
	v->mounted = result.mounted;
	if (kind == JOB_REMOVE) {
		removed(vs, v, &result.error);
		return;
	}
	if (kind == JOB_MOUNT)
		mounted(vs, v, &result.error);
	else
		unmounted(vs, v, &result.error);
	step(vs, v);
}

static void look_ended(struct volumes *vs, struct volume *v)
{
	struct plugin_answer answer = {.created = v->def.created};
	struct job_result result;

	job_end(&v->look, &result);
	answer.error = result.error;
	answer.status = result.status;
	answer.status.mounts = v->tally.count.mounts;
	if (!v->job.pid && result.error.code == 0)
		v->mounted = result.mounted;
	if (v->job.pid && v->job.kind == JOB_MOUNT && !result.mounted)
		snprintf(answer.status.state, sizeof(answer.status.state), "mounting");
	fill_mountpoint(vs, v, &answer);
	for (struct asked *a = vs->asked; a; a = a->next)
		if (waits(a, v, PLUGIN_GET))
			give(vs, a, &answer);
}

/* ---- Create ---- */

/* One volume of the configuration is mounted once: two names for it would be in each other's way. */
static int check_unique(const struct volumes *vs, const struct plugin_volume *def, struct error *err)
{
	const char *volume = plugin_volume_option(def, "volume");

	if (vs->n >= VOLUMES_MAX)
		return error_set(err, -ENOSPC, EXIT_STATUS_FAILED, "there are %d volumes already",
				 VOLUMES_MAX);
	for (const struct volume *v = vs->list; volume && v; v = v->next) {
		const char *other = plugin_volume_option(&v->def, "volume");

		if (!other || strcmp(other, volume) != 0)
			continue;
		error_set(err, -EEXIST, EXIT_STATUS_BUSY,
			  "volume \"%s\" has that volume of the configuration", v->def.name);
		return -EEXIST;
	}
	return 0;
}

static int create(struct volumes *vs, const struct plugin_volume *def, struct error *err)
{
	const struct volume *there = find(vs, def->name);
	int r;

	if (there && plugin_volume_same_options(&there->def, def))
		return 0;
	if (there)
		return error_set(err, -EEXIST, EXIT_STATUS_BUSY,
				 "there is a volume \"%s\" with other options", def->name);
	r = check_unique(vs, def, err);
	if (r == 0)
		r = plugin_store_put_volume(vs->params.env.store, def, err);
	if (r == 0 && !add(vs, def))
		r = error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot create the volume");
	return r;
}

static void create_ended(struct volumes *vs, struct asked *a)
{
	struct job_result result;

	job_end(&a->job, &result);
	if (a->answered)
		return;
	if (result.error.code == 0)
		create(vs, &a->request.volume, &result.error);
	give_error(vs, a, &result.error);
}

static void begin_create(struct volumes *vs, struct asked *a)
{
	struct plugin_volume *def = &a->request.volume;
	struct error err = ERROR_NONE;

	/* Without options: the volume of the configuration that has this name. */
	if (def->n_options == 0) {
		def->n_options = 1;
		snprintf(def->options[0].name, sizeof(def->options[0].name), "volume");
		snprintf(def->options[0].value, sizeof(def->options[0].value), "%s", def->name);
	}
	def->created = (int64_t)time(NULL);
	if (job_start(&a->job, JOB_CHECK, &vs->params.env, def, false, &err) < 0)
		give_error(vs, a, &err);
}

/* ---- requests ---- */

static void begin_unmount(struct volumes *vs, struct volume *v, struct asked *a)
{
	tally_unmount(&v->tally, a->request.id);
	keep_count(vs, v);
	if (v->tally.count.mounts > 0 || somebody_waits(vs, v, PLUGIN_MOUNT))
		give_done(vs, a);
	else
		step(vs, v);
}

static void begin_get(struct volumes *vs, struct volume *v, struct asked *a)
{
	struct error err = ERROR_NONE;

	if (!v->look.pid && job_start(&v->look, JOB_LOOK, &vs->params.env, &v->def, false, &err) < 0)
		give_error(vs, a, &err);
}

static void begin_volume(struct volumes *vs, struct volume *v, struct asked *a)
{
	struct plugin_answer answer = {.error = ERROR_NONE};

	switch (a->request.command) {
	case PLUGIN_UNMOUNT:
		begin_unmount(vs, v, a);
		break;
	case PLUGIN_GET:
		begin_get(vs, v, a);
		break;
	case PLUGIN_PATH:
		fill_mountpoint(vs, v, &answer);
		give(vs, a, &answer);
		break;
	default:
		step(vs, v);
	}
}

static void give_list(struct volumes *vs, struct asked *a)
{
	struct plugin_answer answer = {.error = ERROR_NONE};
	const struct volume *v = vs->list;

	for (uint32_t i = 0; v && i < a->request.from; i++)
		v = v->next;
	for (; v && answer.n_entries < PLUGIN_PAGE; v = v->next) {
		struct plugin_entry *e = &answer.entries[answer.n_entries++];

		memcpy(e->name, v->def.name, sizeof(e->name));
		e->mounted = v->mounted;
	}
	answer.more = v;
	snprintf(answer.mountpoint, sizeof(answer.mountpoint), "%s", vs->params.env.store->mounts_path);
	give(vs, a, &answer);
}

static void begin_request(struct volumes *vs, struct asked *a)
{
	struct volume *v;

	if (a->request.command == PLUGIN_CREATE) {
		begin_create(vs, a);
		return;
	}
	if (a->request.command == PLUGIN_LIST) {
		give_list(vs, a);
		return;
	}
	v = find(vs, a->request.volume.name);
	if (v) {
		begin_volume(vs, v, a);
	} else if (a->request.command == PLUGIN_REMOVE) {
		/* Gone, as was wanted; a file that is damaged, too. */
		struct error err = ERROR_NONE;

		plugin_store_remove_volume(vs->params.env.store, a->request.volume.name, &err);
		give_error(vs, a, &err);
	} else {
		give_missing(vs, a);
	}
}

void volumes_request(struct volumes *vs, uint64_t serial, const struct plugin_request *request)
{
	struct asked *a = NULL, **last = &vs->asked;
	size_t n = 0;

	for (; *last; last = &(*last)->next)
		n++;
	if (n < ASKED_MAX)
		a = calloc(1, sizeof(*a));
	if (!a) {
		struct plugin_answer answer = {.error = ERROR_NONE};

		error_errno(&answer.error, n < ASKED_MAX ? -ENOMEM : -EBUSY, EXIT_STATUS_BUSY,
			    "cannot handle the request");
		vs->params.answer(vs->params.ctx, serial, &answer);
		return;
	}
	a->serial = serial;
	a->request = *request;
	a->deadline = monotonic_ms() + vs->params.answer_ms;
	a->job = JOB_NONE;
	*last = a;
	begin_request(vs, a);
}

static void asked_end(struct volumes *vs, struct asked *a, bool done)
{
	struct volume *v = a->counted ? find(vs, a->request.volume.name) : NULL;

	if (v) {
		tally_delivered(&v->tally, a->request.id, done);
		keep_count(vs, v);
	}
	asked_free(vs, a);
	if (v)
		step(vs, v);
}

void volumes_delivered(struct volumes *vs, uint64_t serial, bool done)
{
	for (struct asked *a = vs->asked; a; a = a->next)
		if (a->serial == serial) {
			asked_end(vs, a, done);
			return;
		}
}

void volumes_hang_up(struct volumes *vs)
{
	while (vs->asked)
		asked_end(vs, vs->asked, false);
}

bool volumes_child(struct volumes *vs, pid_t pid)
{
	for (struct asked *a = vs->asked; a; a = a->next)
		if (a->job.pid == pid) {
			create_ended(vs, a);
			return true;
		}
	for (struct volume *v = vs->list; v; v = v->next) {
		if (v->job.pid == pid) {
			job_ended(vs, v);
			return true;
		}
		if (v->look.pid == pid) {
			look_ended(vs, v);
			return true;
		}
	}
	return false;
}

bool volumes_busy(const struct volumes *vs)
{
	return vs->asked;
}

/* ---- time ---- */

int volumes_timeout(const struct volumes *vs)
{
	uint64_t now = monotonic_ms(), first = UINT64_MAX;

	for (const struct asked *a = vs->asked; a; a = a->next)
		if (!a->answered)
			first = min_u64(first, a->deadline);
	for (const struct volume *v = vs->list; v; v = v->next)
		if (v->idle_since && !v->job.pid)
			first = min_u64(first, v->idle_since + vs->params.linger_ms);
	if (first == UINT64_MAX)
		return -1;
	return first > now ? (int)min_u64(first - now, INT32_MAX) : 0;
}

/* Whoever asked has to be told something, as its patience ends. What is being done goes on. */
static void give_late(struct volumes *vs, struct asked *a)
{
	const char *name = a->request.volume.name;
	const struct volume *v = find(vs, name);
	double seconds = (double)vs->params.answer_ms / 1000;
	struct error err = ERROR_NONE;

	if (a->request.command == PLUGIN_UNMOUNT && v &&
	    !plugin_target_mounted(vs->params.env.store, v->def.name)) {
		/* It is; what is open through other mount namespaces is served for stop-timeout. */
	} else if (a->request.command == PLUGIN_MOUNT) {
		error_set(&err, -ETIMEDOUT, EXIT_STATUS_FAILED,
			  "volume \"%s\" is still unlocking after %g s: once it is done, the next attempt "
			  "finds it ready",
			  name, seconds);
		error_hint(&err, "ckrfs status");
	} else if (a->request.command == PLUGIN_UNMOUNT || a->request.command == PLUGIN_REMOVE) {
		error_set(&err, -ETIMEDOUT, EXIT_STATUS_BUSY,
			  "volume \"%s\" is still being unmounted after %g s, and that goes on", name,
			  seconds);
		error_hint(&err, "ckrfs status");
	} else {
		error_set(&err, -ETIMEDOUT, EXIT_STATUS_FAILED,
			  "what volume \"%s\" needs does not answer within %g s", name, seconds);
	}
	job_kill(&a->job);
	give_error(vs, a, &err);
}

void volumes_time(struct volumes *vs)
{
	uint64_t now = monotonic_ms();

	for (struct asked *a = vs->asked; a; a = a->next)
		if (!a->answered && a->deadline <= now)
			give_late(vs, a);
	for (struct volume *v = vs->list; v; v = v->next) {
		if (!v->idle_since || v->job.pid || v->idle_since + vs->params.linger_ms > now)
			continue;
		log_msg(LOG_LEVEL_INFO, "volume \"%s\" is mounted for nobody: unmounting it", v->def.name);
		/* Should it fail, the next attempt is as far away. */
		v->idle_since = now;
		begin(vs, v, JOB_UNMOUNT, PLUGIN_UNMOUNT);
	}
}

/* ---- start and end ---- */

static int load_one(void *ctx, const struct plugin_volume *def, const struct plugin_count *count)
{
	struct volumes *vs = ctx;
	struct volume *v;

	if (vs->n >= VOLUMES_MAX)
		return -E2BIG;
	v = add(vs, def);
	if (!v)
		return -ENOMEM;
	v->tally = (struct tally){.count = *count, .n_stale = count->n_unanswered};
	v->mounted = plugin_target_mounted(vs->params.env.store, v->def.name);
	/* An answer that did not arrive, to a mount that is not there. */
	if (!v->mounted && tally_forget(&v->tally))
		keep_count(vs, v);
	look_idle(v);
	return 0;
}

int volumes_new(const struct volumes_params *params, struct volumes **ret, struct error *err)
{
	struct volumes *vs = calloc(1, sizeof(*vs));
	int r;

	if (!vs)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot read the volumes");
	vs->params = *params;
	r = plugin_store_load(params->env.store, load_one, vs, err);
	if (r < 0) {
		volumes_free(vs);
		return r;
	}
	*ret = vs;
	return 0;
}

void volumes_free(struct volumes *vs)
{
	if (!vs)
		return;
	while (vs->asked)
		asked_free(vs, vs->asked);
	while (vs->list)
		drop(vs, vs->list);
	free(vs);
}
