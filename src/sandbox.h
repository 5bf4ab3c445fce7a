/* SPDX-License-Identifier: MIT */
/*
 * What keeper and server give up. Each protection that took effect is one bit, shown by `ckrfs status`; what
 * a kernel does not have is left out and not claimed. Process start, single thread.
 */
#ifndef CKRFS_SANDBOX_H
#define CKRFS_SANDBOX_H

#include "error.h"
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum sandbox_protection {
	SANDBOX_NO_CORE =
		1 << 0, /* RLIMIT_CORE 0 and not dumpable: no core file, no ptrace by the same user */
	SANDBOX_NO_NEW_PRIVS = 1 << 1, /* no_new_privs */
	SANDBOX_CAPABILITIES = 1 << 2, /* only those that serving files needs */
	SANDBOX_EMPTY_ROOT = 1 << 3,   /* private mount namespace, its root an empty read-only directory */
	SANDBOX_PRIVATE_IPC = 1 << 4,  /* own IPC namespace */
	SANDBOX_PRIVATE_NET = 1 << 5,  /* own network namespace without any interface up */
	SANDBOX_DIES_WITH_KEEPER = 1 << 6,
	SANDBOX_PRIVATE_LOWER = 1 << 7, /* the volume's root is a mount of its own */
	SANDBOX_LANDLOCK = 1 << 8,      /* no file can be opened but below the volume's root; landlock(7) */
	SANDBOX_SECCOMP = 1 << 9,       /* only the system calls that serving files takes; seccomp(2) */
	SANDBOX_KEEPER_CAPABILITIES = 1 << 10, /* the keeper has only those that it takes */
	SANDBOX_KEEPER_SECCOMP = 1 << 11,      /* ... cannot look into processes or change the machine */
};

enum sandbox_level {
	SANDBOX_AUTO,   /* all that can be had */
	SANDBOX_STRICT, /* all, or the mount fails */
	SANDBOX_OFF,    /* only NO_CORE and DIES_WITH_KEEPER: for finding errors */
};

/* For keeper and server: first thing in the process. */
int sandbox_no_core(unsigned *protections, struct error *err);

struct sandbox_params {
	enum sandbox_level level;
	pid_t keeper;      /* its parent, which it must not outlive */
	int root_fd;       /* directory below which it may work */
	bool root_private; /* ... is the root of a mount of its own */
	bool root_let_go; /* ... must not stay in use when it is locked: Landlock keeps what its rules name */
	bool system_admin; /* keep CAP_SYS_ADMIN: trusted.* attributes of a volume without a key */
};

/* For the server. Fds that are open stay usable. As somebody else than root what needs privileges is left
 * out. */
int sandbox_enter(const struct sandbox_params *params, unsigned *protections, struct error *err);

/* The last step, before the first thread: no system call but those that serving files takes. With STRICT
 * fails if any protection is missing. */
int sandbox_close(const struct sandbox_params *params, unsigned *protections, struct error *err);

/*
 * For the keeper, once the mount is served; the programs that it runs as key sources are bound by it too.
 * by_helper: fusermount3 is to unmount for it, and needs to gain privileges. With STRICT fails if something
 * is missing.
 */
int sandbox_keeper(enum sandbox_level level, bool by_helper, unsigned *protections, struct error *err);

/*
 * For a process that reads what others send and hands it on: nobody's user, no capability, empty root, no
 * file, no program, no new socket. What is open stays usable. As somebody else than root what needs
 * privileges is left out. One thread.
 */
int sandbox_front(pid_t parent, unsigned *protections, struct error *err);

/* The words for a set of protections, with blanks between. */
void sandbox_words(unsigned protections, char *text, size_t size);

#endif
