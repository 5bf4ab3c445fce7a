/* SPDX-License-Identifier: MIT */
/* What the kernel's FUSE offers, asked of itself. */
#ifndef CKRFS_FS_PROBE_H
#define CKRFS_FS_PROBE_H

enum fs_feature {
	FS_FEATURE_PASSTHROUGH = 1 << 0,
	FS_FEATURE_IDMAP = 1 << 1,
	FS_FEATURE_WRITEBACK = 1 << 2,
};

/* Mounts and asks, in a mount namespace of its own: for a child, with one thread, of root. fuse_fd:
 * /dev/fuse, not mounted yet, borrowed. Negative errno. */
int fs_probe(int fuse_fd, unsigned *ret_features);

#endif
