/* SPDX-License-Identifier: MIT */
/*
 * Another network namespace for a few calls: what is made there (sockets, keys, mounts of network file
 * systems) stays in it. network_namespaces(7). The calling thread only; needs CAP_SYS_ADMIN.
 */
#ifndef CKRFS_NETNS_H
#define CKRFS_NETNS_H

#include "error.h"

/* The namespace that the file path stands for, as an fd. 10 missing, 14 something else. */
int netns_open(const char *path, struct error *err);

/* Goes there; *ret_back leads back: netns_leave(). fd negative: stays, and *ret_back is negative. -errno */
int netns_enter(int fd, int *ret_back);
/* -errno: the thread is still there, and must not go on as if it were not. */
int netns_leave(int *back);

#endif
