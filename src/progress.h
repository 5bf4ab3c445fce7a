/* SPDX-License-Identifier: MIT */
/* One line on a terminal about what takes longer than a second; it is gone when that is done. */
#ifndef CKRFS_PROGRESS_H
#define CKRFS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	char what[64];
	uint64_t start;
	bool terminal, shown;
};

void progress_begin(struct progress *p, const char *what);
/* To be called about every second. */
void progress_tick(struct progress *p);
void progress_end(struct progress *p);

#endif
