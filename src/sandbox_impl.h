/* SPDX-License-Identifier: MIT */
/* For sandbox.c: what has a file of its own. */
#ifndef CKRFS_SANDBOX_IMPL_H
#define CKRFS_SANDBOX_IMPL_H

/* Forbids this thread and those it will make all system calls but those that serving files takes;
 * no_new_privs must be set. -errno: -EINVAL where the kernel has no seccomp filters */
int sandbox_seccomp_server(void);

/* Forbids this thread, those it will make and the programs they run what no part of a keeper does: to look
 * into other processes, and to change the kernel, the clock or the machine. As above. */
int sandbox_seccomp_keeper(void);

#endif
