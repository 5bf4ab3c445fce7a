/* SPDX-License-Identifier: MIT */
/*
 * Preloaded into ckrfs by test_life.py, for what it cannot bring about from outside:
 *   CKRFS_TEST_RING=DESC=CONTENTS   a key that is in the mount's own ring from the beginning
 *   CKRFS_TEST_WATCH=FIFO           a kernel with watch_queue(7): notifications come through that FIFO
 */
#include <errno.h>
#include <fcntl.h>
#include <keyutils.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WATCH_SET_SIZE _IO('W', 0x60)

key_serial_t keyctl_join_session_keyring(const char *name)
{
	key_serial_t ring = (key_serial_t)syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name);
	const char *text = getenv("CKRFS_TEST_RING"), *is = text ? strchr(text, '=') : NULL;
	char desc[64];

	if (ring >= 0 && is && snprintf(desc, sizeof(desc), "%.*s", (int)(is - text), text) > 0)
		add_key("user", desc, is + 1, strlen(is + 1), ring);
	return ring;
}

int pipe2(int fds[2], int flags)
{
	const char *fifo = getenv("CKRFS_TEST_WATCH");

	if (!fifo || !(flags & O_EXCL))
		return (int)syscall(SYS_pipe2, fds, flags);
	fds[0] = open(fifo, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	fds[1] = fds[0] < 0 ? -1 : fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
	return fds[1] < 0 ? -1 : 0;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (getenv("CKRFS_TEST_WATCH") && request == WATCH_SET_SIZE)
		return 0;
	return (int)syscall(SYS_ioctl, fd, request, arg);
}

long keyctl_watch_key(key_serial_t key, int queue, int id)
{
	if (getenv("CKRFS_TEST_WATCH"))
		return 0;
	return syscall(SYS_keyctl, KEYCTL_WATCH_KEY, key, queue, id);
}
