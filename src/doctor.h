/* SPDX-License-Identifier: MIT */
/*
 * The parts of `ckrfs doctor`, in the order in which they are told. Each adds findings and changes nothing on
 * the machine; what has to enter namespaces or keyrings does it in a child. One thread.
 */
#ifndef CKRFS_DOCTOR_H
#define CKRFS_DOCTOR_H

#include "config.h"
#include "diagnosis.h"

/* doctor_kernel.c: what the kernel has and lets us use. */
void doctor_kernel(struct diagnosis *d);

/* doctor_system.c: fuse.conf, the runtime directory, mounts that are there. */
void doctor_system(struct diagnosis *d);

/* doctor_engine.c: what container engines have been told of ckrfs. */
void doctor_engine(struct diagnosis *d);

/* doctor_volume.c: one volume of the configuration: its options, its directories, whether its key could be
 * had. Key sources are looked at, not read. */
void doctor_volume(struct diagnosis *d, const struct config_set *set, const char *name);

#endif
