/* SPDX-License-Identifier: MIT */
/* The kernel says what it offers in the first request, FUSE_INIT of fuse(4), which nobody answers here. */
#include "fs_probe.h"

#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

#include "util.h"

/* Bits 37 and 40 of newer headers. */
enum { PROBE_PASSTHROUGH_2 = 1 << (37 - 32), PROBE_IDMAP_2 = 1 << (40 - 32), PROBE_WAIT_MS = 5000 };

static int probe_mount(int fuse_fd)
{
	char data[64];

	snprintf(data, sizeof(data), "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse_fd);
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("ckrfs-probe", "/proc", "fuse", MS_NOSUID | MS_NODEV, data) < 0)
		return -errno;
	return 0;
}

int fs_probe(int fuse_fd, unsigned *ret_features)
{
	/* The kernel wants room for any request. */
	static union {
		char bytes[1 << 17];
		struct {
			struct fuse_in_header head;
			struct fuse_init_in init;
		} request;
	} room;
	struct pollfd p = {.fd = fuse_fd, .events = POLLIN};
	int r = probe_mount(fuse_fd);
	unsigned features = 0;

	if (r < 0)
		return r;
	if (poll(&p, 1, PROBE_WAIT_MS) != 1)
		return -ETIMEDOUT;
	if (read(fuse_fd, &room, sizeof(room)) < (ssize_t)sizeof(room.request))
		return -EPROTO;
	if (room.request.init.flags & FUSE_WRITEBACK_CACHE)
		features |= FS_FEATURE_WRITEBACK;
	if (room.request.init.flags & FUSE_INIT_EXT && room.request.init.flags2 & PROBE_PASSTHROUGH_2)
		features |= FS_FEATURE_PASSTHROUGH;
	if (room.request.init.flags & FUSE_INIT_EXT && room.request.init.flags2 & PROBE_IDMAP_2)
		features |= FS_FEATURE_IDMAP;
	*ret_features = features;
	return 0;
}
