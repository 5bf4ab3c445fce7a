/* SPDX-License-Identifier: MIT */
#include "lower.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "config.h"
#include "lower_impl.h"
#include "util.h"

/* For files that are in use still, by processes that are about to end. */
enum { CLOSE_MS = 2000 };

/* By enum config_lower. */
static const struct lower_ops *const lowers[] = {
	[CONFIG_LOWER_DIRECTORY] = &lower_directory_ops,
	[CONFIG_LOWER_FSCRYPT] = &lower_fscrypt_ops,
	[CONFIG_LOWER_AFS] = &lower_afs_ops,
};

static struct lower *lower_new(const struct lower_params *params)
{
	struct lower *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	assert((size_t)params->kind < ARRAY_SIZE(lowers));
	l->ops = lowers[params->kind];
	l->root_fd = l->lock_fd = l->mount_fd = -1;
	l->params = *params;
	l->params.source = l->source = strdup(params->source);
	l->params.subtree = l->subtree = params->subtree ? strdup(params->subtree) : NULL;
	if (l->source && (l->subtree || !params->subtree))
		return l;
	lower_close(l);
	return NULL;
}

int lower_open(const struct lower_params *params, struct lower **ret, struct error *err)
{
	struct lower *l = lower_new(params);
	int r;

	if (!l)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot open %s", params->source);
	r = l->ops->open(l, err);
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

bool lower_needs_key(const struct lower *l)
{
	return l->ops->unlock;
}

const char *lower_key_identifier(const struct lower *l)
{
	return l->ops->key_identifier ? l->ops->key_identifier(l) : "-";
}

int lower_unlock(struct lower *l, const struct key *key, struct error *err)
{
	return l->ops->unlock ? l->ops->unlock(l, key, err) : 0;
}

bool lower_renews(const struct lower *l)
{
	return l->ops->renewed;
}

int lower_renewed(struct lower *l, bool good)
{
	return l->ops->renewed ? l->ops->renewed(l, good) : 0;
}

uint64_t lower_key_left_ms(const struct lower *l)
{
	return l->ops->key_left_ms ? l->ops->key_left_ms(l) : UINT64_MAX;
}

void lower_unmount(struct lower *l)
{
	if (l && l->ops->unmount)
		l->ops->unmount(l);
}

const char *lower_cell(const struct lower *l)
{
	return l && l->ops->cell ? l->ops->cell(l) : NULL;
}

void lower_let_go(struct lower *l)
{
	cleanup_close(&l->root_fd);
	cleanup_close(&l->lock_fd);
	l->root_fd = l->lock_fd = -1;
}

int lower_lock(struct lower *l, uint64_t timeout_ms, unsigned *ret_left, struct error *err)
{
	*ret_left = 0;
	return l->ops->lock ? l->ops->lock(l, timeout_ms, ret_left, err) : 0;
}

void lower_linger(struct lower *l)
{
	if (l->ops->linger)
		l->ops->linger(l);
}

int lower_take(struct lower *l, struct error *err)
{
	return l->ops->take ? l->ops->take(l, err) : 0;
}

const char *lower_left_words(unsigned left)
{
	if (left & LOWER_LEFT_USERS)
		return "other users of the file system have given it to the kernel too";
	if (left & LOWER_LEFT_FOREIGN)
		return "it was given to the kernel before it was mounted, not by ckrfs";
	if (left & LOWER_LEFT_BUSY)
		return "files below the source are in use, and stay readable until they are closed";
	return "";
}

int lower_clean(const struct lower_params *params, uint64_t timeout_ms, unsigned *ret_left)
{
	const struct lower_ops *ops = lowers[params->kind];

	*ret_left = 0;
	return ops->clean ? ops->clean(params, timeout_ms, ret_left) : 0;
}

void lower_close(struct lower *l)
{
	unsigned left;

	if (!l)
		return;
	lower_let_go(l);
	if (l->state)
		lower_lock(l, CLOSE_MS, &left, NULL);
	if (l->ops->close)
		l->ops->close(l);
	cleanup_close(&l->mount_fd);
	free(l->source);
	free(l->subtree);
	free(l);
}
