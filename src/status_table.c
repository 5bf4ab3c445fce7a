/* SPDX-License-Identifier: MIT */
#include "status_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "util.h"

enum { COLUMNS = 7, GAP = 2, TEXT_MAX = 4096 * 4, DOTS = 3 };
enum { NAME, STATE, FORMAT, LOWER, TARGET, KEY, SINCE };

static const char *const head[COLUMNS] = {"NAME", "STATE", "FORMAT", "LOWER", "TARGET", "KEY", "SINCE"};

/* What gives way where the terminal is too narrow, in turns, and down to which width. */
static const struct {
	int column;
	size_t least;
} giving[] = {{KEY, 12}, {TARGET, 16}, {NAME, 12}};

struct row {
	const char *text[COLUMNS];
	char since[32];
};

/* Bytes that go on with a character of UTF-8 take no column. */
static bool begins_character(char c)
{
	return ((unsigned char)c & 0xc0) != 0x80;
}

static size_t width_of(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += begins_character(*text);
	return n;
}

/* Behind the first n characters. */
static const char *skip(const char *text, size_t n)
{
	while (*text && (n > 0 || !begins_character(*text))) {
		n -= begins_character(*text);
		text++;
	}
	return text;
}

void status_table_cut(const char *text, size_t width, bool path, char *dst, size_t size)
{
	size_t have = width_of(text), kept = width > DOTS ? width - DOTS : 0;

	if (have <= width)
		snprintf(dst, size, "%s", text);
	else if (path)
		snprintf(dst, size, "...%s", skip(text, have - kept));
	else
		snprintf(dst, size, "%.*s...", (int)(skip(text, kept) - text), text);
}

static void row_of(const struct message_status *s, struct row *row)
{
	time_t when = (time_t)s->since;
	struct tm tm;

	row->since[0] = '\0';
	if (s->since && localtime_r(&when, &tm))
		strftime(row->since, sizeof(row->since), "%Y-%m-%d %H:%M", &tm);
	row->text[NAME] = s->name;
	row->text[STATE] = s->state;
	row->text[FORMAT] = s->format;
	row->text[LOWER] = s->lower;
	row->text[TARGET] = s->target;
	row->text[KEY] = s->key_source;
	row->text[SINCE] = row->since;
}

static void show_text(const struct row *row, int column, char *shown)
{
	printable_text(*row->text[column] ? row->text[column] : "-", shown, TEXT_MAX);
}

static void widen(size_t width[COLUMNS], const struct row *row, char *room)
{
	for (int i = 0; i < COLUMNS; i++) {
		show_text(row, i, room);
		width[i] = max_u64(width[i], width_of(room));
	}
}

/* Takes from the columns that may give way until a line fits, or nothing is left to take. */
static void narrow(size_t width[COLUMNS], size_t room)
{
	size_t all = GAP * (COLUMNS - 1);

	for (int i = 0; i < COLUMNS; i++)
		all += width[i];
	for (size_t i = 0; i < ARRAY_SIZE(giving) && all > room; i++) {
		size_t *w = &width[giving[i].column];
		size_t take = *w > giving[i].least ? min_u64(*w - giving[i].least, all - room) : 0;

		*w -= take;
		all -= take;
	}
}

static void print_row(const size_t width[COLUMNS], const struct row *row, char *room, FILE *to)
{
	char cut[TEXT_MAX];

	for (int i = 0; i < COLUMNS; i++) {
		show_text(row, i, room);
		status_table_cut(room, width[i], i == TARGET, cut, sizeof(cut));
		fputs(cut, to);
		if (i + 1 < COLUMNS)
			fprintf(to, "%*s", (int)(width[i] - width_of(cut) + GAP), "");
	}
	putc('\n', to);
}

static bool is_well(const struct message_status *s)
{
	return strcmp(s->state, "unlocked") == 0;
}

/* ret: room for all of them. */
static void sort(const struct mount_list *list, bool trouble_first, const struct message_status **ret)
{
	size_t n = 0;

	for (size_t i = 0; i < list->n; i++)
		if (!trouble_first || !is_well(&list->items[i]))
			ret[n++] = &list->items[i];
	for (size_t i = 0; i < list->n && n < list->n; i++)
		if (is_well(&list->items[i]))
			ret[n++] = &list->items[i];
}

void status_table_summary(const struct mount_list *list, char *dst, size_t size)
{
	static const char *const states[] = {"unlocked", "degraded", "locked", "stopping", "failed",
					     "dead",     "starting", "silent", "unknown"};
	const char *between = ":";
	size_t used;

	if (list->n == 0) {
		snprintf(dst, size, "nothing is mounted");
		return;
	}
	used = (size_t)snprintf(dst, size, "%zu mount%s", list->n, list->n == 1 ? "" : "s");
	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		size_t n = 0;

		for (size_t k = 0; k < list->n; k++)
			n += strcmp(list->items[k].state, states[i]) == 0;
		if (n && used < size)
			used += (size_t)snprintf(dst + used, size - used, "%s %zu %s", between, n, states[i]);
		if (n)
			between = ",";
	}
}

static void print_rows(const struct status_table *t, const struct message_status **sorted, size_t n,
		       char *room, FILE *to)
{
	struct row row = {0};
	size_t width[COLUMNS] = {0};

	memcpy(row.text, head, sizeof(head));
	widen(width, &row, room);
	for (size_t i = 0; i < n; i++) {
		row_of(sorted[i], &row);
		widen(width, &row, room);
	}
	if (t->width)
		narrow(width, t->width);
	memcpy(row.text, head, sizeof(head));
	print_row(width, &row, room, to);
	for (size_t i = 0; i < n; i++) {
		row_of(sorted[i], &row);
		print_row(width, &row, room, to);
	}
}

int status_table_print(const struct status_table *t, const struct mount_list *list, FILE *to)
{
	autofree const struct message_status **sorted = calloc(list->n + 1, sizeof(const void *));
	autofree char *room = malloc(TEXT_MAX);
	size_t n = t->rows ? min_u64(t->rows, list->n) : list->n;
	char summary[256];

	if (!sorted || !room)
		return -ENOMEM;
	if (list->n > 0) {
		sort(list, t->trouble_first, sorted);
		print_rows(t, sorted, n, room, to);
	}
	if (n < list->n)
		fprintf(to, "... and %zu more\n", list->n - n);
	status_table_summary(list, summary, sizeof(summary));
	/* One line says it all by itself. */
	if (list->n != 1)
		fprintf(to, "%s\n", summary);
	return 0;
}
