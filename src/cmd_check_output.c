/* SPDX-License-Identifier: MIT */
/* What `ckrfs check` prints, for people or as JSON, and its progress. */
#include "cmd_check_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "util.h"

enum { TICK_NS = 200000000 };

/* ---- findings ---- */

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

static void print_json(struct check_output *o, const struct finding *f)
{
	autofree char *line = NULL;

	if (finding_format(f, &line) < 0) {
		line = NULL;
		return;
	}
	printf("%s    %.*s", o->printed ? ",\n" : "\n", (int)strcspn(line, "\n"), line);
}

void check_output_finding(void *ctx, const struct finding *f)
{
	struct check_output *o = ctx;

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

static void print_quoted(const char *before, const char *text, const char *behind)
{
	autofree char *quoted = finding_quote(text);

	printf("%s%s%s", before, quoted ? quoted : "\"\"", behind);
}

void check_output_repairs(struct check_output *o)
{
	if (o->json)
		printf("%s],\n  \"repairs\": [", o->printed ? "\n  " : "");
	o->printed = 0;
}

void check_output_repair(void *ctx, const struct finding *f, enum check_action action)
{
	struct check_output *o = ctx;
	autofree char *path = NULL;

	if (!o->json) {
		printf("%s: ", check_action_word(action));
		print_text("", f->path, ": ");
		puts(finding_what(f->kind));
		return;
	}
	path = finding_escape(f->path);
	print_quoted(o->printed++ ? ",\n    {\"path\":" : "\n    {\"path\":", path ? path : "?", ",");
	printf("\"kind\":\"%s\",\"action\":\"%s\"}", finding_word(f->kind), check_action_word(action));
}

void check_output_begin(struct check_output *o, const char *volume)
{
	if (o->json)
		print_quoted("{\n  \"volume\": ", volume, ",\n  \"findings\": [");
}

int check_output_end(struct check_output *o, const struct finding_summary *s, struct error *err)
{
	autofree char *line = NULL;

	if (!o->json) {
		print_summary(s);
		if (o->log)
			print_text("log of the repair: ", o->log, "\n");
	} else if (finding_summary_format(s, &line) == 0) {
		printf("%s],\n", o->printed ? "\n  " : "");
		if (o->log)
			print_quoted("  \"log\": ", o->log, ",\n");
		printf("  \"summary\": %.*s\n}\n", (int)strcspn(line, "\n"), line);
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
	struct check_output *o = arg;
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

void check_output_stage(void *ctx, const char *what)
{
	struct check_output *o = ctx;

	pthread_mutex_lock(&o->lock);
	progress_begin(&o->progress, what);
	pthread_mutex_unlock(&o->lock);
}

void check_output_start(struct check_output *o)
{
	pthread_mutex_init(&o->lock, NULL);
	o->progress.terminal = isatty(STDERR_FILENO);
	o->ticking = o->progress.terminal && pthread_create(&o->ticker, NULL, tick, o) == 0;
}

void check_output_stop(struct check_output *o)
{
	atomic_store(&o->done, true);
	if (o->ticking)
		pthread_join(o->ticker, NULL);
	progress_end(&o->progress);
}
