/* SPDX-License-Identifier: MIT */
/*
 * The format `gocryptfs`: room that is held for putting back. A lower that writes to new places (btrfs) may
 * say "no space" or "quota exceeded" in the middle of a block, and again when the old bytes are to come back:
 * seen with a quota of btrfs, which writes everything out before it refuses. So a file without a name keeps
 * some room, and is let go of then. A name would not do: such a lower may want room for ftruncate(2) too.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "cleanup.h"
#include "crypto.h"
#include "format_gocryptfs.h"
#include "store.h"

/* Pages of one block, and what the lower writes of its own trees for them. */
enum { BALLAST_SIZE = 512 << 10 };

static int ballast_fill(int fd)
{
	autofree uint8_t *bytes = NULL;
	int r = store_fallocate(fd, 0, 0, BALLAST_SIZE);

	if (r == -EOPNOTSUPP || r == -ENOSYS) {
		bytes = malloc(BALLAST_SIZE);
		/* Zeros could be compressed. */
		r = bytes ? crypto_random(bytes, BALLAST_SIZE) : -ENOMEM;
		if (r == 0 && store_pwrite(fd, bytes, BALLAST_SIZE, 0) != BALLAST_SIZE)
			r = -ENOSPC;
	}
	return r < 0 ? r : store_fsync(fd, false);
}

static int ballast_open(int root_fd)
{
	autofd int fd = store_open(root_fd, ".", O_TMPFILE | O_RDWR, 0600);
	int r = fd < 0 ? fd : ballast_fill(fd);

	return r < 0 ? r : steal_fd(&fd);
}

int gocryptfs_ballast_take(struct gocryptfs *g)
{
	int r = 0;

	pthread_mutex_lock(&g->repair_lock);
	if (g->ballast < 0 && !g->no_ballast) {
		r = ballast_open(g->root_fd);
		if (r >= 0)
			g->ballast = r;
		else if (r != -ENOSPC && r != -EDQUOT)
			g->no_ballast = true; /* it has no files without a name */
	}
	pthread_mutex_unlock(&g->repair_lock);
	return r == -ENOSPC || r == -EDQUOT ? r : 0;
}

bool gocryptfs_ballast_drop(struct gocryptfs *g, int fd)
{
	bool had;

	pthread_mutex_lock(&g->repair_lock);
	had = g->ballast >= 0;
	cleanup_close(&g->ballast);
	g->ballast = -1;
	pthread_mutex_unlock(&g->repair_lock);
	/* btrfs has the room again when the change is on disk. */
	return had && store_syncfs(fd) == 0;
}
