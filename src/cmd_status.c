/* SPDX-License-Identifier: MIT */
/* ckrfs status: what is mounted. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "command.h"
#include "mount_list.h"
#include "status_table.h"
#include "util.h"

struct status_args {
	bool json, names;
	uint64_t watch_ms; /* 0: once */
};

enum { WATCH_MS = 2000, WATCH_MAX_MS = 86400000, AROUND_TABLE = 5 };

static int status_args_set(void *ctx, const char *name, const char *value, struct error *err)
{
	struct status_args *a = ctx;

	if (strcmp(name, "json") == 0)
		a->json = true;
	else if (strcmp(name, "names") == 0)
		a->names = true;
	else if (strcmp(name, "watch") == 0 && !value)
		a->watch_ms = WATCH_MS;
	else if (strcmp(name, "watch") == 0 &&
		 (parse_duration_ms(value, &a->watch_ms) < 0 || !a->watch_ms || a->watch_ms > WATCH_MAX_MS))
		return error_set(err, -EINVAL, EXIT_STATUS_USAGE, "--watch=%s is not a time such as 2s",
				 value);
	return 0;
}

/* ---- showing ---- */

/* All 0 where standard output is no terminal. */
static struct winsize terminal_size(void)
{
	struct winsize size = {0};

	if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0)
		size = (struct winsize){0};
	return size;
}

static int show_table(const struct mount_list *list, const struct status_table *table, struct error *err)
{
	int r = status_table_print(table, list, stdout);

	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot show the status") : 0;
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

	if (seconds)
		local_time_text(seconds, text, sizeof(text));
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
	show_text("ephemeral:", s->ephemeral ? "yes" : "no");
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
	show_count("refreshes:", s->refreshes);
	show_count("refresh errors:", s->refresh_failures);
	printf("%-16s%" PRId64 "\n", "owner:", s->owner);
	show_number("keeper:", s->keeper_pid);
	show_number("server:", s->server_pid);
	show_text("passthrough:", s->passthrough);
	show_text("protections:", s->protections);
	show_text("missing:", s->missing);
	if (strcmp(s->state, "dead") == 0 || strcmp(s->state, "failed") == 0)
		printf("  try: ckrfs umount %s\n", s->name);
}

static int show_json(const struct mount_list *list, struct error *err)
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

static int show(const struct mount_list *list, const struct status_args *a, bool one, struct error *err)
{
	struct status_table table = {.width = terminal_size().ws_col};
	int r = 0;

	if (a->json) {
		r = show_json(list, err);
	} else if (a->names) {
		for (size_t i = 0; i < list->n; i++)
			puts(list->items[i].name);
	} else if (one) {
		show_one(&list->items[0]);
	} else {
		r = show_table(list, &table, err);
	}
	if (r == 0 && fflush(stdout) == EOF)
		r = error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot write to standard output");
	return r;
}

static int get(const char *what, struct mount_list *ret, struct error *err)
{
	return what ? mount_list_one(what, ret, err) : mount_list_all(ret, err);
}

/* ---- watching ---- */

/* Once more, in the place of what was there; not on a terminal, below it. */
static int show_again(const struct mount_list *list, bool one, struct error *err)
{
	struct winsize size = terminal_size();
	/* Time, head, "and more", summary, and where the cursor stays. */
	struct status_table table = {.width = size.ws_col, .trouble_first = true};
	time_t now = time(NULL);
	char when[32] = "";
	struct tm tm;
	int r = 0;

	if (size.ws_row)
		table.rows = size.ws_row > AROUND_TABLE ? size.ws_row - AROUND_TABLE : 1;
	if (localtime_r(&now, &tm))
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	printf("%s%s\n", size.ws_row ? "\033[H\033[2J" : "", when);
	if (one)
		show_one(&list->items[0]);
	else
		r = show_table(list, &table, err);
	if (r == 0 && fflush(stdout) == EOF)
		r = error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot write to standard output");
	return r;
}

/* Until a signal ends it, or a mount that was named has gone. */
static int watch(const char *what, const struct status_args *a, struct error *err)
{
	struct timespec pause = {(time_t)(a->watch_ms / 1000), (long)(a->watch_ms % 1000) * 1000000};

	for (;;) {
		automount_list struct mount_list list = {0};
		int r = get(what, &list, err);

		if (r == 0)
			r = show_again(&list, what != NULL, err);
		if (r < 0)
			return r;
		nanosleep(&pause, NULL);
	}
}

int cmd_status(const struct front *front, int argc, char **argv)
{
	const struct command *cmd = command_find("status");
	automount_list struct mount_list list = {0};
	struct status_args a = {0};
	struct error err = ERROR_NONE;
	int first, r = command_parse(cmd, argc, argv, status_args_set, &a, &first);
	const char *what;

	if (r < 0)
		return r == -ECANCELED ? EXIT_STATUS_DONE : EXIT_STATUS_USAGE;
	if (argc - first > 1)
		return command_usage(cmd, "unexpected \"%s\"", argv[first + 1]);
	if (a.json + a.names + (a.watch_ms > 0) > 1)
		return command_usage(cmd, "one of --json, --names and --watch");
	what = first < argc ? argv[first] : NULL;
	if (a.watch_ms) {
		r = watch(what, &a, &err);
	} else {
		r = get(what, &list, &err);
		if (r == 0)
			r = show(&list, &a, what != NULL, &err);
	}
	return r < 0 ? command_fail(&err) : EXIT_STATUS_DONE;
}
