/* SPDX-License-Identifier: MIT */
/* Mounts as a table for people. Prints to a stream that the caller owns; one thread. */
#ifndef CKRFS_STATUS_TABLE_H
#define CKRFS_STATUS_TABLE_H

#include "mount_list.h"
#include <stdio.h>

struct status_table {
	unsigned width;     /* columns of the terminal; 0: nothing is cut */
	unsigned rows;      /* of the table at most; 0: all */
	bool trouble_first; /* what is not unlocked stands before the rest */
};

/* Text that is wider than width, with "..." in its place: of a path the end stays, of other words the
 * beginning. One column a character. dst holds size bytes; cut to fit. */
void status_table_cut(const char *text, size_t width, bool path, char *dst, size_t size);

/* A line of words as "5 mounts: 3 unlocked, 2 locked". */
void status_table_summary(const struct mount_list *list, char *dst, size_t size);

/* -ENOMEM */
int status_table_print(const struct status_table *t, const struct mount_list *list, FILE *to);

#endif
