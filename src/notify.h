/* SPDX-License-Identifier: MIT */
/* sd_notify(3)'s protocol: tells the service manager that started us how things stand. */
#ifndef CKRFS_NOTIFY_H
#define CKRFS_NOTIFY_H

/* Sends lines such as "READY=1" to $NOTIFY_SOCKET. Does nothing without one; best effort. */
void notify_send(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
