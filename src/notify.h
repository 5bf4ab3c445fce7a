/* SPDX-License-Identifier: MIT */
/* sd_notify(3)'s protocol: tells the service manager that started us how things stand. */
#ifndef CKRFS_NOTIFY_H
#define CKRFS_NOTIFY_H

#include <stdint.h>

/* Sends lines such as "READY=1" to $NOTIFY_SOCKET. Does nothing without one; best effort. */
void notify_send(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/*
 * Milliseconds from one "WATCHDOG=1" to the next that the manager asks this process for: half of
 * $WATCHDOG_USEC, see sd_watchdog_enabled(3). 0: it asks for none, or asks another process.
 */
uint64_t notify_watchdog_ms(void);

#endif
