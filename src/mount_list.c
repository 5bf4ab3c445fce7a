/* SPDX-License-Identifier: MIT */
#include "mount_list.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "cleanup.h"
#include "control_client.h"

/* A mount whose keeper says nothing. */
static void fill_silent(const char *name, const struct record *record, const char *state,
			struct message_status *ret)
{
	*ret = (struct message_status){.keeper_pid = record->keeper, .ephemeral = record->ephemeral};
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	snprintf(ret->state, sizeof(ret->state), "%s", state);
	snprintf(ret->source, sizeof(ret->source), "%s", record->source);
	snprintf(ret->target, sizeof(ret->target), "%s", record->target);
}

/* Its lock is held and it does not answer, or no longer: it begins, or ends while we ask. */
static int look_again(const struct runtime *rt, const char *name, const char *state,
		      struct message_status *ret)
{
	struct record record = {0};
	bool alive;
	int r = runtime_look(rt, name, &alive, &record);

	if (r == 0)
		fill_silent(name, &record, alive ? state : "dead", ret);
	return r;
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
	switch (r) {
	case -ECONNREFUSED:
	case -ENOENT:
		return look_again(rt, name, "starting", ret);
	case -ECONNRESET:
	case -EPIPE:
		return look_again(rt, name, "silent", ret);
	case -ETIMEDOUT:
		fill_silent(name, record, "silent", ret);
		return 0;
	default:
		return r;
	}
}

/* ---- all of them ---- */

/* A keeper that is stopped costs the whole time limit: several are asked at a time. */
enum { ASKERS = 16 };

struct survey {
	const struct runtime *rt;
	char *const *names;
	size_t n;
	_Atomic size_t next;
	struct message_status *answers; /* of each name */
	bool *shown;
};

static void *survey_run(void *arg)
{
	struct survey *s = arg;
	size_t i;

	while ((i = atomic_fetch_add(&s->next, 1)) < s->n) {
		struct record record = {0};
		bool alive;

		/* Those of other users are not shown. */
		s->shown[i] = runtime_look(s->rt, s->names[i], &alive, &record) == 0 &&
			      ask(s->rt, s->names[i], alive, &record, &s->answers[i], NULL) == 0;
	}
	return NULL;
}

/* With as many threads as can be had, and this one. */
static void survey_all(struct survey *s)
{
	pthread_t threads[ASKERS];
	size_t started = 0;

	while (started < ASKERS - 1 && started + 1 < s->n &&
	       pthread_create(&threads[started], NULL, survey_run, s) == 0)
		started++;
	survey_run(s);
	for (size_t i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
}

/* Takes out what is not shown. */
static size_t survey_pack(struct survey *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n; i++) {
		if (!s->shown[i])
			continue;
		if (n != i)
			s->answers[n] = s->answers[i];
		n++;
	}
	return n;
}

static int ask_each(const struct runtime *rt, char *const *names, struct mount_list *ret)
{
	struct survey s = {.rt = rt, .names = names};
	autofree bool *shown = NULL;

	while (names[s.n])
		s.n++;
	s.answers = calloc(s.n + 1, sizeof(*s.answers));
	shown = calloc(s.n + 1, sizeof(*shown));
	if (!s.answers || !shown) {
		free(s.answers);
		return -ENOMEM;
	}
	s.shown = shown;
	survey_all(&s);
	*ret = (struct mount_list){s.answers, survey_pack(&s)};
	return 0;
}

int mount_list_all(struct mount_list *ret, struct error *err)
{
	struct runtime rt;
	char **names = NULL;
	int r = runtime_open(false, &rt, err);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = runtime_names(&rt, &names);
	if (r == 0)
		r = ask_each(&rt, names, ret);
	runtime_names_free(names);
	runtime_close(&rt);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot list the mounts") : 0;
}

int mount_list_one(const char *what, struct mount_list *ret, struct error *err)
{
	struct control_mount m = CONTROL_MOUNT_NONE;
	struct message_status *one;
	int r = control_client_find(what, &m, err);

	if (r < 0)
		return r;
	one = calloc(1, sizeof(*one));
	if (!one)
		r = error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot show the status");
	else if (m.runtime.mounts_fd < 0)
		fill_silent(m.name, &m.record, "unknown", one);
	else
		r = ask(&m.runtime, m.name, m.alive, &m.record, one, err);
	control_client_close(&m);
	if (r < 0)
		free(one);
	else
		*ret = (struct mount_list){one, 1};
	return r;
}

void mount_list_free(struct mount_list *list)
{
	free(list->items);
	*list = (struct mount_list){0};
}
