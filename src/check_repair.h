/* SPDX-License-Identifier: MIT */
/*
 * Repairs what a check found, without ever guessing: what is damaged goes into a quarantine (quarantine.h) as
 * it is, and what an interrupted operation left is mended where only one outcome is possible. Nobody else may
 * have the volume open. One thread.
 */
#ifndef CKRFS_CHECK_REPAIR_H
#define CKRFS_CHECK_REPAIR_H

#include "finding.h"
#include "format.h"
#include "quarantine.h"

enum check_action {
	CHECK_LEFT,     /* nothing was done */
	CHECK_MOVED,    /* into the quarantine, by itself or with a directory above it */
	CHECK_PUT_BACK, /* the parked IV is in its directory again */
	CHECK_RESTORED, /* the .name file was written anew */
	CHECK_REMOVED,  /* the attribute is in the log only */
};

/* "left", "moved", ... */
const char *check_action_word(enum check_action action);

struct check_repair;

/* Can the quarantine be in the volume, where nobody sees it? Not where names are not encrypted. */
bool check_repair_hidden(const struct format *format);

/* root_fd: of the volume, in the mount that the quarantine is in. Both and the started format are borrowed.
 */
int check_repair_new(struct format *format, int root_fd, struct quarantine *q, struct check_repair **ret);
void check_repair_free(struct check_repair *r);

/* Remembers a copy. -ENOMEM; -ENOSPC: there are too many to repair at once, this one is left. */
int check_repair_add(struct check_repair *r, const struct finding *f);

/* Repairs, and says of each finding, sorted by path, what was done; *ret_left: damages that are still there,
 * *ret_done: findings that are not. What could not be done for an error is left, and err has the first. */
void check_repair_run(struct check_repair *r,
		      void (*said)(void *ctx, const struct finding *f, enum check_action action), void *ctx,
		      uint64_t *ret_done, uint64_t *ret_left, struct error *err);

#endif
