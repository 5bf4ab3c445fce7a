/* SPDX-License-Identifier: MIT */
/* ckrfs lock, ckrfs unlock and ckrfs refresh. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "control_client.h"
#include "holders.h"
#include "util.h"

/* The keeper has limits of its own for each step; this is for one that is stopped. */
enum { LOCK_GRACE_MS = 120000, UNLOCK_WAIT_MS = 3600000, TIMEOUT_MAX_MS = INT32_MAX / 2 };

struct lock_args {
	struct message_request request;
	bool all, report, wait;
};

static int lock_args_set(void *ctx, const char *name, const char *value, struct error *err)
{
	struct lock_args *a = ctx;

	if (strcmp(name, "all") == 0) {
		a->all = true;
	} else if (strcmp(name, "report") == 0) {
		a->report = true;
	} else if (strcmp(name, "wait") == 0) {
		a->wait = true;
	} else if (strcmp(name, "timeout") == 0) {
		if (parse_duration_ms(value, &a->request.timeout_ms) < 0 || !a->request.timeout_ms ||
		    a->request.timeout_ms > TIMEOUT_MAX_MS)
			return error_set(err, -EINVAL, EXIT_STATUS_USAGE,
					 "--timeout %s is not a time such as 30s", value);
	} else if (strlen(value) >= sizeof(a->request.key) || !*value) {
		return error_set(err, -EINVAL, EXIT_STATUS_USAGE, "--key is not a key source");
	} else {
		strcpy(a->request.key, value);
	}
	return 0;
}

/* ---- one mount ---- */

static const char *verb(const struct lock_args *a)
{
	switch (a->request.command) {
	case MESSAGE_LOCK:
		return "lock";
	case MESSAGE_REFRESH:
		return "refresh";
	default:
		return "unlock";
	}
}

static int no_keeper(const struct control_mount *m, const struct lock_args *a, struct error *err)
{
	error_set(err, -ENOTCONN, EXIT_STATUS_FAILED, "cannot %s \"%s\": its keeper %s", verb(a), m->name,
		  m->runtime.mounts_fd < 0 ? "is one of another runtime directory" : "died");
	if (m->runtime.mounts_fd >= 0)
		error_hint(err, "ckrfs umount %s", m->name);
	return err->code;
}

static int lock_one(const struct control_mount *m, const struct lock_args *a, struct error *err)
{
	uint64_t wait = UNLOCK_WAIT_MS;

	if (m->runtime.mounts_fd < 0 || !m->alive)
		return no_keeper(m, a, err);
	if (a->request.command == MESSAGE_LOCK)
		wait = a->request.timeout_ms + LOCK_GRACE_MS;
	return control_client_ask(&m->runtime, m->name, &a->request, (int)wait, NULL, err);
}

static int lock_found(const struct control_mount *m, const struct lock_args *a)
{
	struct error err = ERROR_NONE;
	int r = lock_one(m, a, &err), status = r < 0 ? command_fail(&err) : EXIT_STATUS_DONE;

	if (a->report && (r == 0 || status == EXIT_STATUS_PARTLY) && m->record.target[0])
		holders_print(stdout, m->record.target);
	return status;
}

static int lock_named(const char *what, const struct lock_args *a)
{
	struct control_mount m = CONTROL_MOUNT_NONE;
	struct error err = ERROR_NONE;
	int status;

	if (control_client_find(what, &m, &err) < 0)
		return command_fail(&err);
	status = lock_found(&m, a);
	control_client_close(&m);
	return status;
}

/* ---- several ---- */

static int lock_all(const struct lock_args *a)
{
	struct control_mount m = CONTROL_MOUNT_NONE;
	struct error err = ERROR_NONE;
	int r = runtime_open(false, &m.runtime, &err), status = EXIT_STATUS_DONE;
	char **names;
	size_t n = 0;

	if (r == -ENOENT)
		return EXIT_STATUS_DONE;
	if (r < 0)
		return command_fail(&err);
	if (runtime_names(&m.runtime, &names) == 0) {
		for (size_t i = 0; names[i]; i++) {
			snprintf(m.name, sizeof(m.name), "%s", names[i]);
			/* Those of others are not for us; the dead have no key. */
			if (runtime_look(&m.runtime, m.name, &m.alive, &m.record) == 0 && m.alive)
				status = command_join_status(status, lock_found(&m, a), n++);
		}
		runtime_names_free(names);
	}
	runtime_close(&m.runtime);
	return status;
}

static int lock_list(char *const *list, const struct lock_args *a)
{
	int status = EXIT_STATUS_DONE;

	for (size_t i = 0; list[i]; i++)
		status = command_join_status(status, lock_named(list[i], a), i);
	return status;
}

int cmd_lock(const struct front *front, int argc, char **argv)
{
	const struct command *cmd = command_find("lock");
	struct lock_args a = {.request = {.command = MESSAGE_LOCK}};
	int first, r = command_parse(cmd, argc, argv, lock_args_set, &a, &first);

	if (r < 0)
		return r == -ECANCELED ? EXIT_STATUS_DONE : EXIT_STATUS_USAGE;
	if (a.all && first < argc)
		return command_usage(cmd, "--all takes no names");
	if (!a.all && first == argc)
		return command_usage(cmd, "which mount? A name, a target or --all is needed");
	if (a.wait && a.request.timeout_ms)
		return command_usage(cmd, "--wait and --timeout exclude each other");
	if (a.wait)
		a.request.timeout_ms = TIMEOUT_MAX_MS; /* twelve days */
	return a.all ? lock_all(&a) : lock_list(argv + first, &a);
}

/* Of mounts that are named. */
static int each_named(enum message_command command, int argc, char **argv)
{
	const struct command *cmd = command_find(argv[0]);
	struct lock_args a = {.request = {.command = command}};
	int first, r = command_parse(cmd, argc, argv, lock_args_set, &a, &first);

	if (r < 0)
		return r == -ECANCELED ? EXIT_STATUS_DONE : EXIT_STATUS_USAGE;
	if (first == argc)
		return command_usage(cmd, "which mount? A name or a target is needed");
	return lock_list(argv + first, &a);
}

int cmd_unlock(const struct front *front, int argc, char **argv)
{
	return each_named(MESSAGE_UNLOCK, argc, argv);
}

int cmd_refresh(const struct front *front, int argc, char **argv)
{
	return each_named(MESSAGE_REFRESH, argc, argv);
}
