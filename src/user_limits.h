/* SPDX-License-Identifier: MIT */
/*
 * How many mounts and keys a user may have: max-mounts and max-keys, which root sets. Mounts are counted in
 * the mount table, so that it does not matter where a user has his runtime directory; each is taken to have a
 * key unless it is known to have none. Who comes says so before he counts: of two that come together none
 * slips through.
 */
#ifndef CKRFS_USER_LIMITS_H
#define CKRFS_USER_LIMITS_H

#include "error.h"
#include "mount.h"

/* May this mount, which is counted whether it is there yet or not, be? key: with a key. -EDQUOT */
int user_limits_check(const struct mount *m, bool key, struct error *err);

#endif
