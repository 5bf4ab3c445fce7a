/* SPDX-License-Identifier: MIT */
/* ckrfs status: what is mounted. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "command.h"
#include "control_client.h"
#include "util.h"

struct status_args {
	bool json, names;
};

struct list {
	struct message_status *items;
	size_t n;
};

static int status_args_set(void *ctx, const char *name, const char *value, struct error *err)
{
	struct status_args *a = ctx;

	if (strcmp(name, "json") == 0)
		a->json = true;
	else if (strcmp(name, "names") == 0)
		a->names = true;
	return 0;
}

/* ---- asking ---- */

/* A mount whose keeper says nothing. */
static void fill_silent(const char *name, const struct record *record, const char *state,
			struct message_status *ret)
{
	*ret = (struct message_status){.keeper_pid = record->keeper};
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	snprintf(ret->state, sizeof(ret->state), "%s", state);
	snprintf(ret->source, sizeof(ret->source), "%s", record->source);
	snprintf(ret->target, sizeof(ret->target), "%s", record->target);
}

static int ask(const struct runtime *rt, const char *name, bool alive, const struct record *record,
	       struct message_status *ret, struct error *err)
{
	struct message_request request = {.command = MESSAGE_STATUS};
	int r;

	if (!alive) {
		fill_silent(name, record, "dead", ret);
		return 0;
	}
	r = control_client_ask(rt, name, &request, CONTROL_CLIENT_TIMEOUT_MS, ret, err);
	if (r == -ECONNREFUSED || r == -ENOENT) {
		/* No socket: it is about to begin, or has just ended. */
		fill_silent(name, record, "starting", ret);
		return 0;
	}
	if (r == -ETIMEDOUT) {
		fill_silent(name, record, "silent", ret);
		return 0;
	}
	return r;
}

static int list_add(struct list *list, const struct message_status *one)
{
	struct message_status *more = reallocarray(list->items, list->n + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	more[list->n++] = *one;
	list->items = more;
	return 0;
}

static int ask_all(struct list *list, struct error *err)
{
	struct runtime rt;
	char **names = NULL;
	int r = runtime_open(false, &rt, err);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = runtime_names(&rt, &names);
	for (size_t i = 0; r == 0 && names[i]; i++) {
		struct message_status one;
		struct record record = {0};
		bool alive;

		/* Those of other users are not shown. */
		if (runtime_look(&rt, names[i], &alive, &record) == 0 &&
		    ask(&rt, names[i], alive, &record, &one, NULL) == 0)
			r = list_add(list, &one);
	}
	runtime_names_free(names);
	runtime_close(&rt);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot list the mounts") : 0;
}

static int ask_one(const char *what, struct list *list, struct error *err)
{
	struct control_mount m = CONTROL_MOUNT_NONE;
	struct message_status one;
	int r = control_client_find(what, &m, err);

	if (r < 0)
		return r;
	if (m.runtime.mounts_fd < 0)
		fill_silent(m.name, &m.record, "unknown", &one);
	else
		r = ask(&m.runtime, m.name, m.alive, &m.record, &one, err);
	control_client_close(&m);
	if (r == 0 && list_add(list, &one) < 0)
		r = error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot show the status");
	return r;
}

/* ---- showing ---- */

enum { COLUMNS = 7 };

/* One row of the table; texts live as long as s and since. */
static void row_of(const struct message_status *s, char since[32], const char *row[COLUMNS])
{
	time_t when = (time_t)s->since;
	struct tm tm;

	since[0] = '\0';
	if (s->since && localtime_r(&when, &tm))
		strftime(since, 32, "%Y-%m-%d %H:%M", &tm);
	row[0] = s->name;
	row[1] = s->state;
	row[2] = s->format;
	row[3] = s->lower;
	row[4] = s->target;
	row[5] = s->key_source;
	row[6] = since;
}

static void widen(int width[COLUMNS], const char *const row[COLUMNS])
{
	for (int i = 0; i < COLUMNS; i++)
		width[i] = (int)max_u64((uint64_t)width[i], strlen(row[i]));
}

static void print_row(const int width[COLUMNS], const char *const row[COLUMNS])
{
	for (int i = 0; i < COLUMNS; i++) {
		char shown[4096 * 4];

		printable_text(*row[i] ? row[i] : "-", shown, sizeof(shown));
		if (i + 1 < COLUMNS)
			printf("%-*s  ", width[i], shown);
		else
			printf("%s\n", shown);
	}
}

static void show_table(const struct list *list)
{
	static const char *const head[COLUMNS] = {"NAME",   "STATE", "FORMAT", "LOWER",
						  "TARGET", "KEY",   "SINCE"};
	const char *row[COLUMNS];
	int width[COLUMNS] = {0};
	char since[32];

	if (list->n == 0) {
		puts("nothing is mounted");
		return;
	}
	widen(width, head);
	for (size_t i = 0; i < list->n; i++) {
		row_of(&list->items[i], since, row);
		widen(width, row);
	}
	print_row(width, head);
	for (size_t i = 0; i < list->n; i++) {
		row_of(&list->items[i], since, row);
		print_row(width, row);
	}
}

static void show_text(const char *name, const char *value)
{
	char shown[4096 * 4];

	printable_text(*value ? value : "-", shown, sizeof(shown));
	printf("%-16s%s\n", name, shown);
}

static void show_count(const char *name, uint64_t value)
{
	printf("%-16s%" PRIu64 "\n", name, value);
}

static void show_number(const char *name, int64_t value)
{
	if (value)
		printf("%-16s%" PRId64 "\n", name, value);
	else
		show_text(name, "-");
}

static void show_time(const char *name, int64_t seconds)
{
	char text[64] = "";
	time_t when = (time_t)seconds;
	struct tm tm;

	if (seconds && localtime_r(&when, &tm))
		strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S %z", &tm);
	show_text(name, text);
}

static void show_one(const struct message_status *s)
{
	show_text("name:", s->name);
	show_text("state:", s->state);
	show_text("source:", s->source);
	show_text("target:", s->target);
	show_text("lower:", s->lower);
	show_text("format:", s->format);
	show_text("read-only:", s->read_only ? "yes" : "no");
	show_text("shared:", s->shared ? "yes" : "no");
	show_text("key:", s->key_identifier);
	show_text("key source:", s->key_source);
	show_text("key memory:", s->secret_memory);
	show_number("keyring:", s->keyring);
	show_text("key watched:", s->key_watch);
	show_time("key expires:", s->expires);
	show_time("next refresh:", s->next_refresh);
	show_text("last error:", s->last_error);
	show_time("since:", s->since);
	show_count("requests:", s->requests);
	show_count("bytes read:", s->read_bytes);
	show_count("bytes written:", s->written_bytes);
	show_count("errors:", s->errors);
	show_count("damages:", s->damages);
	printf("%-16s%" PRId64 "\n", "owner:", s->owner);
	show_number("keeper:", s->keeper_pid);
	show_number("server:", s->server_pid);
	show_text("passthrough:", s->passthrough);
	show_text("protections:", s->protections);
	show_text("missing:", s->missing);
	if (strcmp(s->state, "dead") == 0 || strcmp(s->state, "failed") == 0)
		printf("  try: ckrfs umount %s\n", s->name);
}

static int show_json(const struct list *list, struct error *err)
{
	autofree char *text = NULL;
	int r = message_format_list(list->items, list->n, &text);

	if (r < 0) {
		text = NULL;
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot show the status");
	}
	fputs(text, stdout);
	return 0;
}

static int show(const struct list *list, const struct status_args *a, bool one, struct error *err)
{
	int r = 0;

	if (a->json) {
		r = show_json(list, err);
	} else if (a->names) {
		for (size_t i = 0; i < list->n; i++)
			puts(list->items[i].name);
	} else if (one) {
		show_one(&list->items[0]);
	} else {
		show_table(list);
	}
	if (r == 0 && fflush(stdout) == EOF)
		r = error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot write to standard output");
	return r;
}

int cmd_status(const struct front *front, int argc, char **argv)
{
	const struct command *cmd = command_find("status");
	struct status_args a = {0};
	struct list list = {0};
	struct error err = ERROR_NONE;
	int first, r = command_parse(cmd, argc, argv, status_args_set, &a, &first);

	if (r < 0)
		return r == -ECANCELED ? EXIT_STATUS_DONE : EXIT_STATUS_USAGE;
	if (argc - first > 1)
		return command_usage(cmd, "unexpected \"%s\"", argv[first + 1]);
	if (a.json && a.names)
		return command_usage(cmd, "either --json or --names");
	r = first < argc ? ask_one(argv[first], &list, &err) : ask_all(&list, &err);
	if (r == 0)
		r = show(&list, &a, first < argc, &err);
	free(list.items);
	return r < 0 ? command_fail(&err) : EXIT_STATUS_DONE;
}
