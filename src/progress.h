/* SPDX-License-Identifier: MIT */
/* One line on a terminal about what takes longer than a second; it is gone when that is done. */
#ifndef CKRFS_PROGRESS_H
#define CKRFS_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
	char what[64], detail[96];
	uint64_t start;
	bool terminal, shown;
};

void progress_begin(struct progress *p, const char *what);
/* To be called about every second. */
void progress_tick(struct progress *p);
/* How far it is, instead of the seconds: shown at the next tick. */
void progress_count(struct progress *p, uint64_t files, uint64_t bytes);
/* Takes the line away until the next tick, so that something else can be printed. */
void progress_hide(struct progress *p);
void progress_end(struct progress *p);

/* "0 B", "1.5 MiB", ... */
void progress_bytes(uint64_t bytes, char *text, size_t size);

#endif
