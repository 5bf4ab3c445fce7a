/* SPDX-License-Identifier: MIT */
/* Who keeps a mount busy. Asks /proc only, and never the mounted file system, which may not answer. */
#ifndef CKRFS_HOLDERS_H
#define CKRFS_HOLDERS_H

#include <stdio.h>

/* Prints "  held by: PID (COMMAND) WHAT PATH" lines, at most 10, and how many more there are; nothing when
 * nobody is found. target: the mount point, canonical. */
void holders_print(FILE *to, const char *target);

#endif
