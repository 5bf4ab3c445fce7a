/* SPDX-License-Identifier: MIT */
/* ckrfs umount, and umount.ckrfs for umount(8). */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "command.h"
#include "config.h"
#include "control_client.h"
#include "crypto.h"
#include "ephemeral.h"
#include "fusemount.h"
#include "holders.h"
#include "lower.h"
#include "mountinfo.h"
#include "progress.h"

/* mount(8), "EXIT STATUS". */
enum { HELPER_USAGE = 1, HELPER_FAILED = 32 };

/* After a lazy unmount: nothing may be open, and then all is over at once. CLEAN_MS: for files that are in
 * use below the source by what is about to end. */
enum { LAZY_WAIT_MS = 300, TICK_MS = 1000, END_WAIT_MS = 10000, CLEAN_MS = 1000 };

struct umount_args {
	bool lazy, all;
};

static int umount_args_set(void *ctx, const char *name, const char *value, struct error *err)
{
	struct umount_args *a = ctx;

	if (strcmp(name, "lazy") == 0)
		a->lazy = true;
	else if (strcmp(name, "all") == 0)
		a->all = true;
	return 0;
}

/* ---- one mount ---- */

static int umount_failed(const struct control_mount *m, int r, struct error *err)
{
	if (r == -EBUSY) {
		error_set(err, r, EXIT_STATUS_BUSY, "cannot unmount \"%s\": %s is busy", m->name,
			  m->record.target);
		error_hint(err, "ckrfs umount --lazy %s", m->name);
		return r;
	}
	return error_errno(err, r, EXIT_STATUS_FAILED, "cannot unmount \"%s\"", m->name);
}

/* Nobody serves it any more: there is nothing that could be lost, or to wait for. */
static int umount_dead(struct control_mount *m, struct error *err)
{
	int r = m->record.target[0] ? fusemount_unmount_path(m->record.target, m->name, true) : 0;

	if (r < 0 && r != -EINVAL)
		return umount_failed(m, r, err);
	r = runtime_remove_dead(&m->runtime, m->name);
	return r < 0 && r != -ENOENT ? umount_failed(m, r, err) : 0;
}

static void wait_for_end(const struct control_mount *m, int watch_fd, bool lazy)
{
	struct progress progress = {0};

	if (lazy) {
		runtime_wait_gone(&m->runtime, m->name, watch_fd, LAZY_WAIT_MS);
		return;
	}
	/* It ends after stop-timeout, also when a container still has the mount. */
	progress_begin(&progress, m->record.ephemeral ? "waiting for its files to be removed"
						      : "waiting for files that are open elsewhere");
	while (runtime_wait_gone(&m->runtime, m->name, watch_fd, TICK_MS) < 0)
		progress_tick(&progress);
	progress_end(&progress);
}

struct automount_search {
	const char *target;
	bool found;
};

static bool compare_automount(void *ctx, const struct mountinfo *m)
{
	struct automount_search *s = ctx;

	s->found = strcmp(m->type, "autofs") == 0 && strcmp(m->target, s->target) == 0;
	return !s->found;
}

/* autofs lets only the process group of its daemon, which we are in when that runs us, come near to what it
 * lets expire: the keeper, whom we would wait for, would wait for that (autofs_d_manage()). */
static bool is_automount(const char *target)
{
	struct automount_search s = {.target = target};

	return geteuid() == 0 && mountinfo_each(compare_automount, &s) == 0 && s.found;
}

static int umount_ourselves(const struct control_mount *m, int watch_fd, bool lazy, struct error *err)
{
	int r = fusemount_unmount_path(m->record.target, m->name, lazy);

	if (r < 0 && r != -EINVAL)
		return umount_failed(m, r, err);
	wait_for_end(m, watch_fd, lazy);
	return 0;
}

static int umount_alive(struct control_mount *m, bool lazy, struct error *err)
{
	struct message_request request = {.command = MESSAGE_UMOUNT, .lazy = lazy};
	autofd int watch_fd = runtime_watch(&m->runtime, m->name);
	bool alive;
	int r;

	if (is_automount(m->record.target))
		return umount_ourselves(m, watch_fd, lazy, err);
	r = control_client_ask(&m->runtime, m->name, &request, CONTROL_CLIENT_UMOUNT_MS, NULL, err);
	if (r == 0) {
		wait_for_end(m, watch_fd, lazy);
		return 0;
	}
	if (r != -ECONNREFUSED && r != -ECONNRESET && r != -ENOENT)
		return r;
	/* It ended while we came. */
	runtime_wait_gone(&m->runtime, m->name, watch_fd, END_WAIT_MS);
	r = runtime_look(&m->runtime, m->name, &alive, NULL);
	if (r == -ENOENT) {
		*err = ERROR_NONE;
		return 0;
	}
	return r == 0 && !alive ? umount_dead(m, err) : err->code;
}

/* A key that the lower had in the kernel is gone; but what a keeper that was killed has left, and what was in
 * use then, is for us. */
static int clean_lower(const struct control_mount *m, struct error *err)
{
	autofd int keys_fd = runtime_open_keys(&m->runtime, false);
	struct lower_params params = {
		.kind = CONFIG_LOWER_FSCRYPT,
		.source = m->record.source,
		.claims_fd = keys_fd,
	};
	unsigned left;

	/* Somebody else's key, a source that is gone: nothing that could be done here. */
	if (!m->record.fscrypt || lower_clean(&params, CLEAN_MS, &left) < 0 || !(left & LOWER_LEFT_BUSY))
		return 0;
	error_set(err, -EBUSY, EXIT_STATUS_PARTLY, "\"%s\" is unmounted, but its key stays in the kernel: %s",
		  m->name, lower_left_words(left));
	error_hint(err, "fuser -vm %s", m->record.source);
	return -EBUSY;
}

/* So are the files of an ephemeral volume. */
static int clean_ephemeral(const struct control_mount *m, struct error *err)
{
	const struct tree_remove silently = {.removed = NULL};
	struct ephemeral place;
	int r;

	/* A source that is gone has nothing left. */
	if (!m->record.ephemeral || crypto_init() < 0 || ephemeral_open(m->record.source, &place, NULL) < 0)
		return 0;
	r = ephemeral_sweep(&place, &silently);
	ephemeral_close(&place);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_PARTLY,
				   "\"%s\" is unmounted and its key is gone, but not all of its files can be "
				   "removed from %s",
				   m->name, m->record.source)
		     : 0;
}

static int umount_one(struct control_mount *m, bool lazy, struct error *err)
{
	int r;

	if (m->runtime.mounts_fd < 0) {
		r = fusemount_unmount_path(m->record.target, m->name, lazy);
		return r < 0 ? umount_failed(m, r, err) : 0;
	}
	r = m->alive ? umount_alive(m, lazy, err) : umount_dead(m, err);
	if (r == 0 && !m->alive)
		r = clean_ephemeral(m, err);
	return r == 0 ? clean_lower(m, err) : r;
}

int umount_remains(const char *name, const char *target, struct error *err)
{
	struct control_mount m = CONTROL_MOUNT_NONE;
	int r = control_client_find(name, &m, NULL);

	r = r == 0 && m.runtime.mounts_fd >= 0 && !m.alive && strcmp(m.record.target, target) == 0
		    ? umount_dead(&m, err)
		    : 0;
	control_client_close(&m);
	return r;
}

/* The error with who is to blame between its two lines. */
static int fail_umount(const struct control_mount *m, struct error *err)
{
	fprintf(stderr, "ckrfs: %s\n", err->text);
	if (err->status == EXIT_STATUS_BUSY && m->record.target[0])
		holders_print(stderr, m->record.target);
	if (err->hint[0])
		fprintf(stderr, "  try: %s\n", err->hint);
	return err->status ? (int)err->status : EXIT_STATUS_FAILED;
}

static int umount_named(const char *what, bool lazy)
{
	struct control_mount m = CONTROL_MOUNT_NONE;
	struct error err = ERROR_NONE;
	int status = EXIT_STATUS_DONE;

	if (control_client_find(what, &m, &err) < 0)
		return command_fail(&err);
	if (umount_one(&m, lazy, &err) < 0)
		status = fail_umount(&m, &err);
	control_client_close(&m);
	return status;
}

/* ---- several ---- */

static int umount_list(char *const *list, bool lazy)
{
	int status = EXIT_STATUS_DONE;

	for (size_t i = 0; list[i]; i++)
		status = command_join_status(status, umount_named(list[i], lazy), i);
	return status;
}

static int umount_all(bool lazy)
{
	struct runtime runtime;
	struct error err = ERROR_NONE;
	char **names;
	int r = runtime_open(false, &runtime, &err), status = EXIT_STATUS_DONE;
	size_t n = 0;

	if (r == -ENOENT)
		return EXIT_STATUS_DONE;
	if (r < 0)
		return command_fail(&err);
	if (runtime_names(&runtime, &names) == 0) {
		for (size_t i = 0; names[i]; i++) {
			bool alive;

			if (runtime_look(&runtime, names[i], &alive, NULL) == 0)
				status = command_join_status(status, umount_named(names[i], lazy), n++);
		}
		runtime_names_free(names);
	}
	runtime_close(&runtime);
	return status;
}

int cmd_umount(const struct front *front, int argc, char **argv)
{
	const struct command *cmd = command_find("umount");
	struct umount_args a = {0};
	int first, r = command_parse(cmd, argc, argv, umount_args_set, &a, &first);

	if (r < 0)
		return r == -ECANCELED ? EXIT_STATUS_DONE : EXIT_STATUS_USAGE;
	if (a.all && first < argc)
		return command_usage(cmd, "--all takes no names");
	if (!a.all && first == argc)
		return command_usage(cmd, "which mount? A name, a target or --all is needed");
	return a.all ? umount_all(a.lazy) : umount_list(argv + first, a.lazy);
}

/* ---- umount.ckrfs TARGET [-flnrv] ---- */

int cmd_umount_helper(int argc, char **argv)
{
	bool lazy = false;
	int c;

	optind = 1;
	opterr = 0;
	while ((c = getopt(argc, argv, "flnrvN:t:i")) != -1) {
		if (c == 'l')
			lazy = true;
		else if (c == '?')
			return HELPER_USAGE;
	}
	if (argc - optind != 1) {
		fprintf(stderr, "umount.ckrfs: one target is needed\n  try: umount TARGET\n");
		return HELPER_USAGE;
	}
	return umount_named(argv[optind], lazy) == EXIT_STATUS_DONE ? 0 : HELPER_FAILED;
}
