/* SPDX-License-Identifier: MIT */
/*
 * Ownership by scope: a variable marked with one of these attributes is released when its scope
 * ends. Initialise it where it is declared; hand it over with steal_fd() or steal_ptr().
 * Does not hide control flow: no macro here returns, jumps or exits.
 */
#ifndef CKRFS_CLEANUP_H
#define CKRFS_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* Closes *fd if it is open; errno is kept. */
static inline void cleanup_close(int *fd)
{
	if (*fd >= 0) {
		int saved = errno;

		close(*fd);
		errno = saved;
	}
}

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_closedir(DIR **d)
{
	if (*d)
		closedir(*d);
}

#define autofd __attribute__((cleanup(cleanup_close)))
#define autofree __attribute__((cleanup(cleanup_free)))
#define autodir __attribute__((cleanup(cleanup_closedir)))

/* Takes the fd out of a variable whose scope would close it. */
static inline int steal_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

/* Takes the pointer out of a variable whose scope would free it; keeps its type. */
#define steal_ptr(p)                                                                                         \
	({                                                                                                   \
		__typeof__(*(p)) t_ = *(p);                                                                  \
		*(p) = NULL;                                                                                 \
		t_;                                                                                          \
	})

#endif
