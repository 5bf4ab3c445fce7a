/* SPDX-License-Identifier: MIT */
#include "lower.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "config.h"
#include "lower_impl.h"
#include "util.h"

/* By enum config_lower. */
static const struct lower_ops *const lowers[] = {
	[CONFIG_LOWER_DIRECTORY] = &lower_directory_ops,
};

int lower_open(const struct lower_params *params, struct lower **ret, struct error *err)
{
	struct lower *l = calloc(1, sizeof(*l));
	int r;

	assert((size_t)params->kind < ARRAY_SIZE(lowers));
	if (!l)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot open %s", params->source);
	l->ops = lowers[params->kind];
	l->root_fd = l->lock_fd = -1;
	r = l->ops->open(l, params, err);
	if (r < 0) {
		lower_close(l);
		return r;
	}
	*ret = l;
	return 0;
}

int lower_lock_alone(struct lower *l)
{
	return l->ops->lock_alone ? l->ops->lock_alone(l) : 0;
}

int lower_root(const struct lower *l)
{
	return l->root_fd;
}

const char *lower_name(const struct lower *l)
{
	return l->ops->name;
}

bool lower_private(const struct lower *l)
{
	return l->private_mount;
}

void lower_close(struct lower *l)
{
	if (!l)
		return;
	if (l->root_fd >= 0)
		close(l->root_fd);
	if (l->lock_fd >= 0)
		close(l->lock_fd);
	free(l);
}
