/* SPDX-License-Identifier: MIT */
#include "mountinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"

static void close_file(FILE **f)
{
	if (*f)
		fclose(*f);
}

/* Blank, tab, newline and backslash stand as \ooo. */
static void unescape(const char *from, char *to, size_t size)
{
	size_t used = 0;

	while (*from && used + 1 < size) {
		unsigned byte;

		if (*from == '\\' && sscanf(from + 1, "%3o", &byte) == 1) {
			to[used++] = (char)byte;
			from += strnlen(from, 4);
		} else {
			to[used++] = *from++;
		}
	}
	to[used] = '\0';
}

/* 36 35 98:0 /root /target options optional... - type source superoptions */
static int parse_line(char *line, struct mountinfo *ret)
{
	char *fields[5], *save, *behind = strstr(line, " - ");
	char *type, *source, *super, *user;
	const char *optional;

	if (!behind)
		return -EBADMSG;
	*behind = '\0';
	for (int i = 0; i < 5; i++) {
		fields[i] = strtok_r(i ? NULL : line, " ", &save);
		if (!fields[i])
			return -EBADMSG;
	}
	/* Options, and behind them what is optional. */
	optional = strchr(save, ' ') ? strchr(save, ' ') : "";
	type = strtok_r(behind + 3, " ", &save);
	source = strtok_r(NULL, " ", &save);
	ret->shared = strstr(optional, "shared:");
	if (sscanf(fields[0], "%u", &ret->id) != 1 || sscanf(fields[1], "%u", &ret->parent) != 1)
		return -EBADMSG;
	if (!type || !source || sscanf(fields[2], "%u:%u", &ret->major, &ret->minor) != 2)
		return -EBADMSG;
	super = strtok_r(NULL, " ", &save);
	user = super ? strstr(super, "user_id=") : NULL;
	if (!user || sscanf(user, "user_id=%u", &ret->user) != 1)
		ret->user = (unsigned)-1;
	snprintf(ret->type, sizeof(ret->type), "%s", type);
	unescape(source, ret->source, sizeof(ret->source));
	unescape(fields[4], ret->target, sizeof(ret->target));
	return 0;
}

static int each_line(FILE *f, bool (*each)(void *ctx, const struct mountinfo *m), void *ctx)
{
	autofree char *line = NULL;
	struct mountinfo one;
	size_t room = 0;

	while (getline(&line, &room, f) > 0)
		if (parse_line(line, &one) == 0 && !each(ctx, &one))
			break;
	return ferror(f) ? -EIO : 0;
}

int mountinfo_each(bool (*each)(void *ctx, const struct mountinfo *m), void *ctx)
{
	__attribute__((cleanup(close_file))) FILE *f = fopen("/proc/self/mountinfo", "re");

	return f ? each_line(f, each, ctx) : -errno;
}

struct search {
	const char *target;
	struct mountinfo *found;
	bool any;
};

/* Later lines lie on top. */
static bool compare_target(void *ctx, const struct mountinfo *m)
{
	struct search *s = ctx;

	if (strcmp(m->target, s->target) == 0) {
		*s->found = *m;
		s->any = true;
	}
	return true;
}

int mountinfo_find(const char *target, struct mountinfo *ret)
{
	struct search s = {.target = target, .found = ret};
	int r = mountinfo_each(compare_target, &s);

	return r < 0 ? r : s.any ? 0 : -ENOENT;
}

/* A mountinfo file that stays open, from its beginning. */
static FILE *open_again(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	FILE *f = copy < 0 ? NULL : fdopen(copy, "r");

	if (f)
		rewind(f);
	else
		cleanup_close(&copy);
	return f;
}

int mountinfo_each_at(int fd, bool (*each)(void *ctx, const struct mountinfo *m), void *ctx)
{
	__attribute__((cleanup(close_file))) FILE *f = open_again(fd);

	return f ? each_line(f, each, ctx) : -ENOMEM;
}

int mountinfo_find_at(int fd, const char *target, struct mountinfo *ret)
{
	__attribute__((cleanup(close_file))) FILE *f = open_again(fd);
	struct search s = {.target = target, .found = ret};
	int r = f ? each_line(f, compare_target, &s) : -ENOMEM;

	return r < 0 ? r : s.any ? 0 : -ENOENT;
}

static bool compare_device(void *ctx, const struct mountinfo *m)
{
	struct mountinfo *wanted = ctx;

	if (m->major != wanted->major || m->minor != wanted->minor)
		return true;
	*wanted = *m;
	return false;
}

bool mountinfo_has_device(int fd, unsigned major, unsigned minor)
{
	__attribute__((cleanup(close_file))) FILE *f = open_again(fd);
	struct mountinfo wanted = {.major = major, .minor = minor};

	return !f || each_line(f, compare_device, &wanted) < 0 || wanted.target[0];
}

bool mountinfo_is_ours(const char *target, const char *name)
{
	struct mountinfo m;

	return mountinfo_find(target, &m) == 0 && strcmp(m.type, MOUNTINFO_TYPE) == 0 &&
	       strcmp(m.source, name) == 0;
}
