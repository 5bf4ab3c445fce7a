/* SPDX-License-Identifier: MIT */
/* cmocka.h needs these before it, in any order but in front. */
#ifndef CKRFS_TEST_UNIT_H
#define CKRFS_TEST_UNIT_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#endif
