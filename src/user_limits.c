/* SPDX-License-Identifier: MIT */
#include "user_limits.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "mountinfo.h"

/* More cannot be told apart; nobody has a limit as high. */
enum { DEVICES_MAX = 4096 };

struct count {
	const struct mount *m;
	uid_t uid;
	size_t mounts, keys; /* of others than m */
	uint64_t devices[DEVICES_MAX];
};

/* The same file system may be mounted in several places, as a bind mount. */
static bool is_new(struct count *c, const struct mountinfo *info)
{
	uint64_t device = (uint64_t)info->major << 32 | info->minor;

	for (size_t i = 0; i < c->mounts && i < DEVICES_MAX; i++)
		if (c->devices[i] == device)
			return false;
	if (c->mounts < DEVICES_MAX)
		c->devices[c->mounts] = device;
	return true;
}

static bool is_own(const struct mount *m, const struct mountinfo *info)
{
	return m->fuse.mountinfo_fd >= 0 && info->major == m->fuse.dev_major &&
	       info->minor == m->fuse.dev_minor;
}

static bool count_one(void *ctx, const struct mountinfo *info)
{
	struct count *c = ctx;

	if (strcmp(info->type, MOUNTINFO_TYPE) != 0 || info->user != c->uid || is_own(c->m, info) ||
	    !is_new(c, info))
		return true;
	c->mounts++;
	if (!runtime_has_no_key(&c->m->runtime, info->source, info->target))
		c->keys++;
	return true;
}

static int too_many(const struct count *c, size_t n, const char *what, const char *option, unsigned max,
		    struct error *err)
{
	return error_set(err, -EDQUOT, EXIT_STATUS_FAILED,
			 "uid %u has %zu %s, and may have no more than %u (%s in %s)", (unsigned)c->uid, n,
			 what, max, option, CONFIG_FILE_DEFAULT);
}

int user_limits_check(const struct mount *m, bool key, struct error *err)
{
	const struct config *cfg = m->config;
	struct count c = {.m = m, .uid = getuid()};
	int r;

	if (c.uid == 0 || (!cfg->max_mounts && !cfg->max_keys))
		return 0;
	/* The keeper has a mount namespace of its own once it has mounted. */
	r = m->fuse.mountinfo_fd < 0 ? mountinfo_each(count_one, &c)
				     : mountinfo_each_at(m->fuse.mountinfo_fd, count_one, &c);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot count the mounts of uid %u",
				   (unsigned)c.uid);
	if (cfg->max_mounts && c.mounts >= cfg->max_mounts)
		return too_many(&c, c.mounts, "mounts", "max-mounts", cfg->max_mounts, err);
	if (cfg->max_keys && key && c.keys >= cfg->max_keys)
		return too_many(&c, c.keys, "keys in use", "max-keys", cfg->max_keys, err);
	return 0;
}
