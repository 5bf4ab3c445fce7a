/* SPDX-License-Identifier: MIT */
#include "mount_list.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "cleanup.h"
#include "control_client.h"

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

static int list_add(struct mount_list *list, const struct message_status *one)
{
	struct message_status *more = reallocarray(list->items, list->n + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	more[list->n++] = *one;
	list->items = more;
	return 0;
}

int mount_list_all(struct mount_list *ret, struct error *err)
{
	automount_list struct mount_list list = {0};
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
			r = list_add(&list, &one);
	}
	runtime_names_free(names);
	runtime_close(&rt);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot list the mounts");
	*ret = (struct mount_list){steal_ptr(&list.items), list.n};
	return 0;
}

int mount_list_one(const char *what, struct mount_list *ret, struct error *err)
{
	struct control_mount m = CONTROL_MOUNT_NONE;
	struct mount_list list = {0};
	struct message_status one;
	int r = control_client_find(what, &m, err);

	if (r < 0)
		return r;
	if (m.runtime.mounts_fd < 0)
		fill_silent(m.name, &m.record, "unknown", &one);
	else
		r = ask(&m.runtime, m.name, m.alive, &m.record, &one, err);
	control_client_close(&m);
	if (r == 0 && list_add(&list, &one) < 0)
		r = error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot show the status");
	if (r == 0)
		*ret = list;
	return r;
}

void mount_list_free(struct mount_list *list)
{
	free(list->items);
	*list = (struct mount_list){0};
}
