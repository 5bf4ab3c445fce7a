/* SPDX-License-Identifier: MIT */
/* What a lower implements: included by lower*.c only. */
#ifndef CKRFS_LOWER_IMPL_H
#define CKRFS_LOWER_IMPL_H

#include "lower.h"

struct lower {
	const struct lower_ops *ops;
	int root_fd;
	int lock_fd; /* holds the volume's lock as long as it is open */
	bool private_mount;
};

struct lower_ops {
	const char *name;
	int (*lock_alone)(struct lower *l);
	/* Fills root_fd, lock_fd and private_mount; what it opened before a failure, lower_close() closes. */
	int (*open)(struct lower *l, const struct lower_params *params, struct error *err);
};

extern const struct lower_ops lower_directory_ops;

#endif
