/* SPDX-License-Identifier: MIT */
/* What the commands about one volume that is not being mounted have in common: --config, --options, --key,
 * and the volume they name. */
#ifndef CKRFS_VOLUME_ARGS_H
#define CKRFS_VOLUME_ARGS_H

#include "config.h"
#include "error.h"
#include <stdbool.h>
#include <stddef.h>

enum { VOLUME_ARGS_KEYS_MAX = 16 };

/* Texts are borrowed from argv. */
struct volume_args {
	const char *config_file, *options;
	const char *keys[VOLUME_ARGS_KEYS_MAX];
	size_t n_keys;
};

/* Takes an option that is one of them; others are left alone. -E2BIG: more keys than there is room for. */
int volume_args_set(struct volume_args *a, const char *name, const char *value, struct error *err);

enum volume_operand {
	VOLUME_DIRECTORY, /* always a path */
	/* A path has a slash, or is "." or ".."; else it is a name of the configuration. */
	VOLUME_NAME_OR_PATH,
	/* The same, but a name that is not configured may be a path that exists. */
	VOLUME_NAME_OR_PATH_THERE,
};

/* The volume's configuration with all of that applied. what: its name where the files have none for it. */
int volume_args_config(const struct volume_args *a, const char *what, const char *volume,
		       enum volume_operand kind, struct config **ret, struct error *err);

#endif
