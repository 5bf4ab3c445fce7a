/* SPDX-License-Identifier: MIT */
#include "audit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "log.h"
#include "util.h"

/* Linux 6.5; the C library of Debian 12 does not know it. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* Of users other than root, in so long. */
enum { LINES_MAX = 60, LINES_MS = 60000 };

static const char *const commands[] = {
	[MESSAGE_STATUS] = "status", [MESSAGE_UMOUNT] = "umount", [MESSAGE_LOCK] = "lock",
	[MESSAGE_UNLOCK] = "unlock", [MESSAGE_CHECK] = "check",   [MESSAGE_REFRESH] = "refresh",
};

/* ---- who ---- */

/* A pidfd of the peer: by it one can tell that the number is still that process's. */
static int peer_pidfd(int fd, pid_t pid)
{
	socklen_t size = sizeof(int);
	int pidfd;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) == 0)
		return pidfd;
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* The name is the process's own choice: nothing in it may look like a part of the line. */
static void read_comm(pid_t pid, char *comm, size_t size)
{
	char path[64], raw[32];
	autofd int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read_full(fd, raw, sizeof(raw) - 1);
	if (n <= 0)
		return;
	raw[n] = '\0';
	raw[strcspn(raw, "\n")] = '\0';
	for (char *c = raw; *c; c++)
		if (*c == '"')
			*c = '_';
	printable(raw, comm, size);
}

int audit_peer(int fd, struct audit_peer *ret)
{
	struct audit_peer peer = {.comm = "?"};
	struct ucred cred;
	socklen_t size = sizeof(cred);
	autofd int pidfd = -1;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0)
		return -errno;
	peer.uid = cred.uid;
	peer.pid = cred.pid;
	pidfd = cred.pid > 0 ? peer_pidfd(fd, cred.pid) : -1;
	if (pidfd >= 0)
		read_comm(cred.pid, peer.comm, sizeof(peer.comm));
	/* It may have ended before its name was read, and the number be another's. */
	if (pidfd >= 0 && syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) < 0 && errno == ESRCH)
		strcpy(peer.comm, "?");
	*ret = peer;
	return 0;
}

/* ---- what ---- */

static bool may_tell(struct audit *a, const struct audit_peer *peer)
{
	uint64_t now = monotonic_ms();

	if (peer->uid == 0)
		return true;
	if (!a->since || now - a->since > LINES_MS) {
		if (a->left_out)
			log_audit("\"%s\": %u lines were left out", a->name, a->left_out);
		a->since = now;
		a->lines = 0;
		a->left_out = 0;
	}
	if (a->lines >= LINES_MAX) {
		a->left_out++;
		return false;
	}
	a->lines++;
	return true;
}

void audit_command(struct audit *a, const struct audit_peer *peer, enum message_command command,
		   const struct error *err)
{
	const char *result = !err ? "goes on without it" : err->code == 0 ? "done" : "failed: ";

	if (command == MESSAGE_STATUS || !may_tell(a, peer))
		return;
	log_audit("%s \"%s\" by uid=%u pid=%d comm=\"%s\": %s%s", commands[command], a->name,
		  (unsigned)peer->uid, (int)peer->pid, peer->comm, result,
		  err && err->code < 0 ? err->text : "");
}

void audit_refused(struct audit *a, const struct audit_peer *peer)
{
	if (may_tell(a, peer))
		log_audit("control \"%s\" by uid=%u pid=%d comm=\"%s\": refused", a->name,
			  (unsigned)peer->uid, (int)peer->pid, peer->comm);
}

void audit_life(const struct audit *a, enum message_command command, const struct error *err, const char *why)
{
	log_audit("%s \"%s\" by its key's life: %s%s%s%s", commands[command], a->name,
		  err->code == 0 ? "done" : "failed: ", err->code == 0 ? "" : err->text, *why ? ": " : "",
		  why);
}
