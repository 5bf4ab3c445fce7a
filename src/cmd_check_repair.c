/* SPDX-License-Identifier: MIT */
/* ckrfs check --repair and --undo. */
#include "cmd_check_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "gcfs_names.h"
#include "store.h"

static int open_path(const char *path, struct error *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot open %s", path) : fd;
}

/* Which directory the quarantine is made in, and its name there. */
struct place {
	char *parent, *name, *where;
};

static void place_free(struct place *p)
{
	free(p->parent);
	free(p->name);
	free(p->where);
}

/*
 * In the volume's root under a name that gocryptfs takes for a file of a long name, and shows to nobody;
 * where names are not encrypted there is no such name, and it is beside the volume.
 */
static int choose_place(const struct mount *m, const struct check_args *a, struct place *ret)
{
	char stamp[48], date[32] = "";
	time_t now = time(NULL);
	struct tm tm;
	int r;

	*ret = (struct place){NULL, NULL, NULL};
	if (gmtime_r(&now, &tm))
		strftime(date, sizeof(date), "%Y%m%dT%H%M%SZ", &tm);
	snprintf(stamp, sizeof(stamp), "%s-%d", date, (int)getpid());
	ret->parent = strdup(a->quarantine ? a->quarantine : m->config->source);
	if (!ret->parent)
		return -ENOMEM;
	if (a->quarantine) {
		r = asprintf(&ret->name, "ckrfs-quarantine-%s", stamp);
	} else if (check_repair_hidden(m->format)) {
		r = asprintf(&ret->name, GCFS_LONG_PREFIX "ckrfs-quarantine-%s" GCFS_LONG_SUFFIX, stamp);
	} else {
		char *slash = strrchr(ret->parent, '/');

		r = asprintf(&ret->name, "%s.quarantine-%s", slash + 1, stamp);
		slash[slash == ret->parent] = '\0';
	}
	if (r >= 0)
		r = asprintf(&ret->where, "%s/%s", ret->parent, ret->name);
	return r < 0 ? -ENOMEM : 0;
}

/* What is to be moved must not cross a mount: the volume's private one neither. */
int check_mender_open(struct mount *m, const struct check_args *a, struct check_output *o,
		      struct check_mender *ret, struct error *err)
{
	struct place place;
	int r;

	ret->output = o;
	ret->root_fd = open_path(m->config->source, err);
	if (ret->root_fd < 0)
		return ret->root_fd;
	r = choose_place(m, a, &place);
	if (r == 0) {
		ret->parent_fd = open_path(place.parent, err);
		if (ret->parent_fd < 0) {
			place_free(&place);
			return ret->parent_fd;
		}
		r = quarantine_new(ret->root_fd, ret->parent_fd, place.name, place.where, &ret->quarantine);
	}
	place_free(&place);
	if (r == 0)
		r = check_repair_new(m->format, ret->root_fd, ret->quarantine, &ret->repair);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot prepare the repair") : 0;
}

void check_mender_close(struct check_mender *mender)
{
	check_repair_free(mender->repair);
	quarantine_free(mender->quarantine);
	cleanup_close(&mender->root_fd);
	cleanup_close(&mender->parent_fd);
}

void check_mender_finding(void *ctx, const struct finding *f)
{
	struct check_mender *mender = ctx;

	if (check_repair_add(mender->repair, f) == -ENOMEM)
		mender->out_of_memory = true;
	check_output_finding(mender->output, f);
}

int check_mender_run(struct check_mender *mender, struct error *err)
{
	struct error first = ERROR_NONE;
	uint64_t done = 0, left = 0;

	if (mender->out_of_memory)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot remember what was found");
	check_output_repairs(mender->output);
	check_repair_run(mender->repair, check_output_repair, mender->output, &done, &left, &first);
	mender->output->log = quarantine_log(mender->quarantine);
	if (first.code < 0) {
		fflush(stdout);
		error_print(stderr, &first);
	}
	if (left)
		return EXIT_STATUS_DAMAGED;
	return done ? EXIT_STATUS_REPAIRED : EXIT_STATUS_DONE;
}

/* ---- the way back ---- */

static int undo(int root_fd, const char *path, struct error *err)
{
	autofree char *dir = strdup(path);
	char *slash = dir ? strrchr(dir, '/') : NULL;
	const char *log = slash ? slash + 1 : path;
	unsigned done = 0, left = 0;
	autofd int fd = -1;
	int r;

	if (!dir)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot read %s", path);
	if (slash)
		*slash = '\0';
	fd = open_path(!slash ? "." : *dir ? dir : "/", err);
	if (fd < 0)
		return fd;
	r = quarantine_undo(root_fd, fd, log, &done, &left, err);
	if (r < 0)
		return error_prefix(err, "%s", path);
	printf("took back %u %s\n", done, done == 1 ? "change" : "changes");
	if (left)
		return error_set(err, -EEXIST, EXIT_STATUS_FAILED,
				 "%u could not be taken back: something else is in their place", left);
	/* Its own directory is of no use any more; one that has anything else stays. */
	if (slash)
		rmdir(dir);
	return EXIT_STATUS_DONE;
}

int check_undo(const struct check_args *a, const struct config *cfg, struct error *err)
{
	struct lower_params params = {.kind = cfg->lower, .source = cfg->source};
	struct lower *lower = NULL;
	autofd int fd = -1;
	int r = store_init_proc();

	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot open /proc/self/fd");
	r = lower_open(&params, &lower, err);
	if (r < 0)
		return r;
	fd = open_path(cfg->source, err);
	r = fd < 0 ? fd : undo(fd, a->undo, err);
	lower_close(lower);
	return r;
}
