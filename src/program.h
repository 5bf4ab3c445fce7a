/* SPDX-License-Identifier: MIT */
/*
 * Where the other executables of ckrfs are: in the directory of the one that runs, if it is there and the
 * same user's, as in a build directory; else where it was configured to be installed. Any thread.
 */
#ifndef CKRFS_PROGRAM_H
#define CKRFS_PROGRAM_H

#include <limits.h>

/* What takes libmicrohttpd or libkrb5, companion.h. */
#define PROGRAM_NET "ckrfs-net"

/* directory: where it is installed. A path that is too long is cut, and then not there. */
void program_path(const char *name, const char *directory, char ret[PATH_MAX]);

#endif
