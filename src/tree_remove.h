/* SPDX-License-Identifier: MIT */
/*
 * Removing trees of the lower: by fds, with the names as they are on disk. No symbolic link is followed, and
 * nothing is entered that is mounted there or is another file system: -EXDEV. Depth and number of entries are
 * bounded by neither fds nor memory, but for about 300 bytes a level. What cannot be removed does not keep
 * the rest from being removed; the first failure is returned. Life functions: one thread, may take long.
 * store_init_proc() was called.
 */
#ifndef CKRFS_TREE_REMOVE_H
#define CKRFS_TREE_REMOVE_H

struct tree_remove {
	const char *keep;           /* a name that stays in the directory itself; NULL: none */
	void (*removed)(void *ctx); /* told of each entry that is no directory; may be NULL */
	void *ctx;
};

/* Everything in the directory. how may be NULL. */
int tree_remove_contents(int dir_fd, const struct tree_remove *how);

/* One entry, with all beneath it; -ENOENT is success. */
int tree_remove_entry(int dir_fd, const char *name);

#endif
