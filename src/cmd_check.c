/* SPDX-License-Identifier: MIT */
/* ckrfs check: looks for damage in a volume. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "cleanup.h"
#include "command.h"
#include "mount.h"
#include "progress.h"
#include "sandbox.h"
#include "store.h"
#include "util.h"

enum { KEYS_MAX = 16, TICK_NS = 200000000 };

struct check_args {
	const char *config_file, *options;
	const char *keys[KEYS_MAX];
	size_t n_keys;
	bool json;
};

static int check_args_set(void *ctx, const char *name, const char *value, struct error *err)
{
	struct check_args *a = ctx;

	if (strcmp(name, "config") == 0)
		a->config_file = value;
	else if (strcmp(name, "options") == 0)
		a->options = value;
	else if (strcmp(name, "key") == 0 && a->n_keys < KEYS_MAX)
		a->keys[a->n_keys++] = value;
	else if (strcmp(name, "json") == 0)
		a->json = true;
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

/* ---- output ---- */

struct output {
	pthread_mutex_t lock; /* findings come from any thread; so does the progress */
	struct progress progress;
	struct check *check; /* NULL: there is none yet */
	_Atomic bool done;
	bool json;
	uint64_t printed;
	pthread_t ticker;
	bool ticking;
};

static void print_blocks(const struct finding *f)
{
	if (f->blocks == 1)
		printf(": block %" PRIu64, f->first_block);
	else if (f->blocks > 1)
		printf(": blocks %" PRIu64 " to %" PRIu64, f->first_block, f->first_block + f->blocks - 1);
}

static void print_text(const char *before, const char *text, const char *behind)
{
	size_t size = 4 * strlen(text) + 1;
	autofree char *shown = malloc(size);

	if (shown)
		printable_text(text, shown, size);
	printf("%s%s%s", before, shown ? shown : "?", behind);
}

static void print_finding(const struct finding *f)
{
	print_text(finding_is_note(f) ? "note: " : "damage: ", f->name, ": ");
	fputs(finding_what(f->kind), stdout);
	print_blocks(f);
	if (f->attribute)
		print_text(": ", f->attribute, "");
	if (f->code)
		printf(": %s", strerror(-f->code));
	print_text("\n  on disk: ", f->path, "\n");
	printf("  %s\n", finding_meaning(f->kind));
}

static void print_json(struct output *o, const struct finding *f)
{
	autofree char *line = NULL;

	if (finding_format(f, &line) < 0) {
		line = NULL;
		return;
	}
	printf("%s    %.*s", o->printed ? ",\n" : "\n", (int)strcspn(line, "\n"), line);
}

static void output_finding(void *ctx, const struct finding *f)
{
	struct output *o = ctx;

	pthread_mutex_lock(&o->lock);
	progress_hide(&o->progress);
	if (o->json)
		print_json(o, f);
	else
		print_finding(f);
	o->printed++;
	pthread_mutex_unlock(&o->lock);
}

static const char *plural(uint64_t n, const char *one, const char *more)
{
	return n == 1 ? one : more;
}

static void print_summary(const struct finding_summary *s)
{
	char size[32];

	progress_bytes(s->bytes, size, sizeof(size));
	printf("checked %" PRIu64 " %s, %" PRIu64 " %s, %" PRIu64 " %s (%s): ", s->files,
	       plural(s->files, "file", "files"), s->directories,
	       plural(s->directories, "directory", "directories"), s->links,
	       plural(s->links, "link", "links"), size);
	if (s->damages)
		printf("%" PRIu64 " %s", s->damages, plural(s->damages, "damage", "damages"));
	else
		printf("no damage");
	if (s->notes)
		printf(", %" PRIu64 " %s", s->notes, plural(s->notes, "note", "notes"));
	putchar('\n');
}

static void output_begin(struct output *o, const char *volume)
{
	autofree char *quoted = NULL;

	if (!o->json)
		return;
	quoted = finding_quote(volume);
	printf("{\n  \"volume\": %s,\n  \"findings\": [", quoted ? quoted : "\"\"");
}

static int output_end(struct output *o, const struct finding_summary *s, struct error *err)
{
	autofree char *line = NULL;

	if (!o->json) {
		print_summary(s);
	} else if (finding_summary_format(s, &line) == 0) {
		printf("%s],\n  \"summary\": %.*s\n}\n", o->printed ? "\n  " : "", (int)strcspn(line, "\n"),
		       line);
	} else {
		line = NULL;
	}
	if (fflush(stdout) == EOF || ferror(stdout))
		return error_errno(err, -EIO, EXIT_STATUS_FAILED, "cannot write to standard output");
	return 0;
}

/* ---- progress ---- */

static void *tick(void *arg)
{
	struct output *o = arg;
	struct timespec step = {.tv_nsec = TICK_NS};

	while (!atomic_load(&o->done)) {
		struct finding_summary s;

		nanosleep(&step, NULL);
		pthread_mutex_lock(&o->lock);
		if (o->check) {
			check_summary(o->check, &s);
			progress_count(&o->progress, s.files, s.bytes);
		}
		progress_tick(&o->progress);
		pthread_mutex_unlock(&o->lock);
	}
	return NULL;
}

static void on_stage(void *ctx, const char *what)
{
	struct output *o = ctx;

	pthread_mutex_lock(&o->lock);
	progress_begin(&o->progress, what);
	pthread_mutex_unlock(&o->lock);
}

static void ticker_start(struct output *o)
{
	o->ticking = o->progress.terminal && pthread_create(&o->ticker, NULL, tick, o) == 0;
}

static void ticker_stop(struct output *o)
{
	atomic_store(&o->done, true);
	if (o->ticking)
		pthread_join(o->ticker, NULL);
	progress_end(&o->progress);
}

/* ---- checking ---- */

static int run_check(struct mount *m, struct output *o, bool live, struct finding_summary *ret,
		     struct error *err)
{
	struct check_params params = {
		.format = m->format,
		.root_fd = lower_root(m->lower),
		.threads = m->config->threads,
		.live = live,
		.found = output_finding,
		.ctx = o,
	};
	struct check *check = NULL;
	int r = check_new(&params, &check, err);

	if (r < 0)
		return r;
	output_begin(o, m->config->source);
	on_stage(o, "checking");
	pthread_mutex_lock(&o->lock);
	o->check = check;
	pthread_mutex_unlock(&o->lock);
	r = check_run(check, err);
	check_summary(check, ret);
	pthread_mutex_lock(&o->lock);
	o->check = NULL;
	pthread_mutex_unlock(&o->lock);
	check_free(check);
	return r;
}

static int check_volume(struct mount *m, const struct check_args *a, struct finding_summary *ret,
			struct error *err)
{
	struct output o = {.json = a->json, .progress.terminal = isatty(STDERR_FILENO)};
	unsigned protections = 0;
	bool live = false;
	int r;

	pthread_mutex_init(&o.lock, NULL);
	r = sandbox_no_core(&protections, err);
	if (r == 0)
		r = store_init_proc();
	if (r < 0)
		return r;
	ticker_start(&o);
	r = mount_open_volume(m, false, on_stage, &o, &live, err);
	if (r == 0)
		r = run_check(m, &o, live, ret, err);
	ticker_stop(&o);
	return r < 0 ? r : output_end(&o, ret, err);
}

static int run_offline(const struct check_args *a, const char *operand, struct error *err)
{
	struct finding_summary summary = {.complete = false};
	struct config *cfg = NULL;
	struct mount *m = NULL;
	int r = build_config(a, operand, &cfg, err);

	if (r == 0)
		r = mount_new(cfg, getuid(), &m, err);
	if (r < 0)
		return r;
	r = check_volume(m, a, &summary, err);
	mount_stop(m);
	mount_free(m);
	if (r < 0)
		return error_prefix(err, "cannot check \"%s\"", operand);
	return summary.damages ? EXIT_STATUS_DAMAGED : EXIT_STATUS_DONE;
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
	r = run_offline(&a, argv[first], &err);
	return r < 0 ? command_fail(&err) : r;
}
