/* SPDX-License-Identifier: MIT */
/* What sandbox.c, sandbox_front.c and sandbox_seccomp.c share. */
#ifndef CKRFS_SANDBOX_IMPL_H
#define CKRFS_SANDBOX_IMPL_H

#include "error.h"
#include <sys/types.h>

/* Forbids this thread and those it will make all system calls but those that serving files takes;
 * no_new_privs must be set. -errno: -EINVAL where the kernel has no seccomp filters */
int sandbox_seccomp_server(void);

/* Forbids this thread, those it will make and the programs they run what no part of a keeper does: to look
 * into other processes, and to change the kernel, the clock or the machine. As above. */
int sandbox_seccomp_keeper(void);

/* The same with those that answering clients of an open socket takes. */
int sandbox_seccomp_front(void);

/* Namespaces of its own for IPC and network, where they can be had. */
void sandbox_own_namespaces(unsigned *protections);

/* A root directory with nothing in it, in a mount namespace of its own. -errno */
int sandbox_empty_root(void);

/* Ties the process to its parent: it is killed with it. */
int sandbox_die_with(pid_t parent, struct error *err);

/* No file but below root_fd; -1: none at all. 0 also where the kernel has no Landlock. -errno */
int sandbox_landlock(int root_fd, unsigned *protections);

#endif
