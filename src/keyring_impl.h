/* SPDX-License-Identifier: MIT */
/* For keyring*.c only. */
#ifndef CKRFS_KEYRING_IMPL_H
#define CKRFS_KEYRING_IMPL_H

#include "keyring.h"

/* The key's serial, in the order of the rings that is configured, or why there is none: keyring_read(). */
int32_t keyring_find(const struct keyring *ring, const char *type, const char *desc);

#endif
