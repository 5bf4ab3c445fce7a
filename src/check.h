/* SPDX-License-Identifier: MIT */
/*
 * Checks a volume of the format `gocryptfs`: walks the ciphertext with several threads, decrypts every name,
 * block, link target and extended attribute, and reports what does not authenticate or does not belong there.
 * Changes nothing (check_repair.h does) and prints nothing. What the format does not authenticate it cannot
 * see: files that were exchanged as a whole, cut at a block's end, or put back to an older state.
 *
 * The volume is hostile: nothing is followed, nothing blocks (FIFOs), the depth of the tree has no limit, and
 * memory does not grow with the number of files.
 */
#ifndef CKRFS_CHECK_H
#define CKRFS_CHECK_H

#include "finding.h"
#include "format.h"

struct check_params {
	struct format *format; /* started; borrowed */
	int root_fd;           /* of the volume; borrowed */
	unsigned threads;      /* 0: one a processor */
	/* Others change the volume meanwhile: damage counts only if the same bytes are still there, and still
	 * damaged, some time later. */
	bool live;
	/* Called for each finding, by one thread at a time; f is valid until it returns. */
	void (*found)(void *ctx, const struct finding *f);
	void *ctx;
};

struct check;

/* 15 if the format has nothing to check. */
int check_new(const struct check_params *params, struct check **ret, struct error *err);

/* Until everything was looked at, or check_stop(). 0 whatever was found; -ENOMEM and the like when the walk
 * could not go on. */
int check_run(struct check *c, struct error *err);

/* From any thread, or a signal handler: check_run() returns soon. */
void check_stop(struct check *c);

/* How far it is, from any thread; after check_run() the result. */
void check_summary(struct check *c, struct finding_summary *ret);

void check_free(struct check *c);

#endif
