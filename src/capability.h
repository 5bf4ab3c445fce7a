/* SPDX-License-Identifier: MIT */
/* The capabilities of server and keeper: capabilities(7). */
#ifndef CKRFS_CAPABILITY_H
#define CKRFS_CAPABILITY_H

#include <stdbool.h>

/* Drops all that full POSIX behaviour for many users does not take, for ever; system_admin keeps
 * CAP_SYS_ADMIN besides. One thread, before there are others. -errno */
int capability_keep_for_serving(bool system_admin);

/* Drops all that a keeper does not take, for ever, for the programs too that it runs: what is left mounts and
 * unmounts, goes to other namespaces, reads key files, and runs key sources as other users. One thread.
 * -errno */
int capability_keep_for_keeping(void);

/* No program that is run gets any, for ever; and: drops all. One thread. -errno */
int capability_bound_none(void);
int capability_drop_all(void);

/* Takes CAP_FSETID from this thread, or gives it back: without it, whatever writes to a file clears its
 * set-user-ID bit. -errno */
int capability_fsetid(bool on);

#endif
