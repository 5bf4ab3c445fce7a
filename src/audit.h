/* SPDX-License-Identifier: MIT */
/*
 * Who had a mount do what, with what result, for log_audit(). Lines that users can cause are limited in
 * number, so that nobody can fill the log; root's are not. One thread.
 */
#ifndef CKRFS_AUDIT_H
#define CKRFS_AUDIT_H

#include "error.h"
#include "message.h"
#include <stdint.h>
#include <sys/types.h>

struct audit_peer {
	uid_t uid;
	pid_t pid;     /* in our pid namespace; 0: in none that we see */
	char comm[64]; /* printable, without quotes; "?": it was gone, or another one, by then */
};

struct audit {
	const char *name; /* of the mount, borrowed */
	uint64_t since;   /* monotonic_ms() of the first of the lines that are counted */
	unsigned lines, left_out;
};

/* Who is at the other end of a connected socket, when it connected. */
int audit_peer(int fd, struct audit_peer *ret);

/* err->code 0: done; NULL: it goes on, but the peer has left. A status is not told. */
void audit_command(struct audit *a, const struct audit_peer *peer, enum message_command command,
		   const struct error *err);

/* A peer that may not ask for anything. */
void audit_refused(struct audit *a, const struct audit_peer *peer);

/* What the key's life did, and why. */
void audit_life(const struct audit *a, enum message_command command, const struct error *err,
		const char *why);

#endif
