/* SPDX-License-Identifier: MIT */
/* A directory of its own for a test, removed with all that is in it. */
#ifndef CKRFS_TEST_SCRATCH_DIR_H
#define CKRFS_TEST_SCRATCH_DIR_H

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct scratch {
	char path[64];
	int fd;
};

static inline int scratch_make(struct scratch *s)
{
	snprintf(s->path, sizeof(s->path), "/tmp/ckrfs-unit-XXXXXX");
	if (!mkdtemp(s->path))
		return -1;
	s->fd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return s->fd < 0 ? -1 : 0;
}

static inline int scratch_remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return remove(path);
}

static inline void scratch_remove(struct scratch *s)
{
	close(s->fd);
	nftw(s->path, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
