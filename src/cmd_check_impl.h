/* SPDX-License-Identifier: MIT */
/* What the files of `ckrfs check` share: cmd_check.c (options, checking), cmd_check_output.c,
 * cmd_check_repair.c. */
#ifndef CKRFS_CMD_CHECK_IMPL_H
#define CKRFS_CMD_CHECK_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "check.h"
#include "check_repair.h"
#include "command.h"
#include "mount.h"
#include "progress.h"

enum { CHECK_KEYS_MAX = 16 };

struct check_args {
	const char *config_file, *options, *quarantine, *undo;
	const char *keys[CHECK_KEYS_MAX];
	size_t n_keys;
	bool json, repair, online;
};

struct check_output {
	pthread_mutex_t lock; /* findings come from any thread; so does the progress */
	struct progress progress;
	struct check *check; /* whose counts are shown; NULL: there is none */
	_Atomic bool done;
	bool json;
	uint64_t printed;
	const char *log; /* of a repair, or NULL */
	pthread_t ticker;
	bool ticking;
};

/* cmd_check_output.c, in the order of use. A finding may come from any thread. */
void check_output_start(struct check_output *o);
void check_output_stage(void *ctx, const char *what);
void check_output_begin(struct check_output *o, const char *volume);
void check_output_finding(void *ctx, const struct finding *f);
void check_output_repairs(struct check_output *o);
void check_output_repair(void *ctx, const struct finding *f, enum check_action action);
void check_output_stop(struct check_output *o);
int check_output_end(struct check_output *o, const struct finding_summary *s, struct error *err);

/* cmd_check_repair.c: what --repair does besides checking. */
struct check_mender {
	struct check_output *output;
	int root_fd, parent_fd;
	struct quarantine *quarantine;
	struct check_repair *repair;
	bool out_of_memory;
};
#define CHECK_MENDER_NONE ((struct check_mender){.root_fd = -1, .parent_fd = -1})

int check_mender_open(struct mount *m, const struct check_args *a, struct check_output *o,
		      struct check_mender *ret, struct error *err);
/* Remembers a finding and prints it: a check's `found`. */
void check_mender_finding(void *ctx, const struct finding *f);
/* An exit status, or negative errno. */
int check_mender_run(struct check_mender *mender, struct error *err);
void check_mender_close(struct check_mender *mender);

/* Takes back what the log a->undo tells: an exit status, or negative errno. cfg: the volume. */
int check_undo(const struct check_args *a, const struct config *cfg, struct error *err);

/* cmd_check_online.c: a mount, by its name or target. An exit status, or negative errno. */
int check_online(const struct check_args *a, const char *operand, struct error *err);

#endif
