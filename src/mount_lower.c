/* SPDX-License-Identifier: MIT */
#include "mount_lower.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cleanup.h"
#include "log.h"
#include "mountinfo.h"
#include "netns.h"
#include "notify.h"
#include "util.h"

/* For files below the source that are in use by processes that are about to end. */
enum { LOWER_LOCK_MS = 2000 };
/* How often a service manager hears of files that are removed, and for how long that is to be enough. */
enum { REMOVING_TELL_MS = 1000, REMOVING_EXTEND_MS = 30000 };

struct device_search {
	struct stat st;
	char target[4096]; /* where it is mounted, "": nowhere */
};

static bool is_other_device(void *ctx, const struct mountinfo *mi)
{
	struct device_search *s = ctx;

	if (mi->major != major(s->st.st_rdev) || mi->minor != minor(s->st.st_rdev))
		return true;
	snprintf(s->target, sizeof(s->target), "%s", mi->target);
	return false;
}

/* A directory can be reached by whoever could reach it before, and so can a device that is mounted. */
static int check_hidden(const struct config *cfg, struct error *err)
{
	struct device_search s = {.target = ""};

	if (!cfg->hide_lower || stat(cfg->source, &s.st) < 0)
		return 0;
	if (!S_ISBLK(s.st.st_mode))
		return error_set(
			err, -EINVAL, EXIT_STATUS_CONFIG,
			"hide-lower = yes: source %s is no block device (a directory on one is named "
			"by subtree)",
			cfg->source);
	if (mountinfo_each(is_other_device, &s) < 0 || !s.target[0])
		return 0;
	error_set(err, -EBUSY, EXIT_STATUS_BUSY, "source %s is mounted on %s: it would not be hidden",
		  cfg->source, s.target);
	error_hint(err, "umount %s", s.target);
	return -EBUSY;
}

/* A service manager does not wait for ever, unless it hears that something happens. */
static void still_removing(void *ctx)
{
	uint64_t *next = ctx, now = monotonic_ms();

	if (now < *next)
		return;
	*next = now + REMOVING_TELL_MS;
	notify_send("EXTEND_TIMEOUT_USEC=%d\nWATCHDOG=1", REMOVING_EXTEND_MS * 1000);
}

int mount_lower_make_place(struct mount *m, void (*stage)(void *ctx, const char *what), void *ctx,
			   struct error *err)
{
	const struct config *cfg = m->config;
	uint64_t next = 0;
	struct tree_remove how = {.removed = still_removing, .ctx = &next};
	int r;

	if (!cfg->ephemeral)
		return 0;
	r = ephemeral_open(cfg->source, &m->place, err);
	if (r < 0)
		return r;
	stage(ctx, "removing what killed mounts have left");
	r = ephemeral_sweep(&m->place, &how);
	if (r < 0)
		log_msg(LOG_LEVEL_WARNING,
			"\"%s\": what a killed mount left in %s cannot be removed: %s [CK115]", cfg->name,
			cfg->source, strerror(-r));
	r = ephemeral_make(&m->place, err);
	return r < 0 ? error_prefix(err, "source %s", cfg->source) : 0;
}

void mount_lower_remove_place(struct mount *m)
{
	char name[EPHEMERAL_NAME_SIZE];
	uint64_t next = 0;
	struct tree_remove how = {.removed = still_removing, .ctx = &next};
	int r;

	if (m->place.source_fd < 0)
		return;
	notify_send("STATUS=removing the files");
	memcpy(name, m->place.name, sizeof(name));
	r = ephemeral_remove(&m->place, &how);
	if (r < 0)
		log_msg(LOG_LEVEL_WARNING,
			"\"%s\": not all of %s/%s can be removed, but its key is gone: %s [CK115]",
			m->config->name, m->config->source, name, strerror(-r));
}

int mount_lower_open_keys(struct mount *m, struct error *err)
{
	int r;

	if (m->config->lower != CONFIG_LOWER_FSCRYPT || m->keys_fd >= 0)
		return 0;
	r = m->runtime.mounts_fd >= 0 ? 0 : runtime_open(true, &m->runtime, err);
	if (r < 0)
		return r;
	m->keys_fd = runtime_open_keys(&m->runtime, true);
	return m->keys_fd < 0 ? error_errno(err, m->keys_fd, EXIT_STATUS_FAILED,
					    "cannot open the directory keys in the runtime directory")
			      : 0;
}

static int open_netns(struct mount *m, struct error *err)
{
	int fd;

	if (m->config->lower != CONFIG_LOWER_AFS || !m->config->netns || m->netns_fd >= 0)
		return 0;
	fd = netns_open(m->config->netns, err);
	if (fd >= 0)
		m->netns_fd = fd;
	return fd < 0 ? fd : 0;
}

int mount_lower_open(struct mount *m, bool shared, struct error *err)
{
	const struct config *cfg = m->config;
	struct lower_params lower = {
		.kind = cfg->lower,
		.source = cfg->source,
		.source_fd = m->place.volume_fd,
		.subtree = cfg->subtree,
		.hide = cfg->hide_lower,
		.read_only = cfg->read_only,
		.shared = shared,
		.servers = cfg->afs_servers,
		.netns_fd = -1,
		.ring = &m->ring,
		.memory = cfg->scrypt_memory,
	};
	int r = check_hidden(cfg, err);

	if (r == 0)
		r = mount_lower_open_keys(m, err);
	if (r == 0)
		r = open_netns(m, err);
	lower.netns_fd = m->netns_fd;
	lower.claims_fd = m->keys_fd;
	return r < 0 ? r : lower_open(&lower, &m->lower, err);
}

static int read_key(struct mount *m, struct key *ret_key, struct error *err)
{
	const struct config *cfg = m->config;
	struct keysource_env env = mount_key_env(m);
	struct keysource *source = NULL;
	int r;

	env.kernel_keys = true;
	if (!cfg->lower_key) {
		r = keysource_read_first(m->keysources, cfg->n_keys, &env, ret_key, err);
		if (r < 0 && cfg->n_keys == 0 && cfg->target)
			error_hint(err, "ckrfs mount %s %s --key file:/path/to/key", cfg->name, cfg->target);
		return r;
	}
	r = keysource_parse(cfg->lower_key, &source, err);
	if (r == 0)
		r = keysource_read(source, &env, ret_key, err);
	keysource_free(source);
	return r < 0 ? error_prefix(err, "lower-key") : 0;
}

/* Tickets are got where the servers are. */
int mount_lower_read_key(struct mount *m, struct key *ret_key, struct error *err)
{
	int back, left, r = netns_enter(m->netns_fd, &back);

	if (r == 0) {
		r = read_key(m, ret_key, err);
		left = netns_leave(&back);
		if (left == 0)
			return r;
		if (r == 0)
			key_wipe(ret_key);
		r = left;
	}
	return error_errno(err, r, EXIT_STATUS_FAILED, "cannot change the network namespace");
}

int mount_lower_unlock(struct mount *m, void (*stage)(void *ctx, const char *what), void *ctx,
		       struct error *err)
{
	struct key key = {0};
	int r;

	if (!lower_needs_key(m->lower))
		return 0;
	stage(ctx, "waiting for the key");
	r = mount_lower_read_key(m, &key, err);
	if (r < 0)
		return r;
	stage(ctx, key.passphrase ? "unlocking the directory (Argon2)" : "unlocking the directory");
	r = lower_unlock(m->lower, &key, err);
	key_wipe(&key);
	if (r == 0 && !m->config->lower_key) {
		snprintf(m->key.source, sizeof(m->key.source), "%s", key.source);
		m->key.index = key.index;
	}
	return r;
}

pid_t mount_lower_linger(struct mount *m, bool without_parent)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid != 0)
		return pid;
	prctl(PR_SET_NAME, "ckrfs-linger");
	if (!without_parent)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	lower_linger(m->lower);
	_exit(EXIT_STATUS_DONE);
}

void mount_lower_lock(struct mount *m)
{
	struct error err = ERROR_NONE;
	unsigned left = 0;

	if (!m->lower || !lower_needs_key(m->lower))
		return;
	lower_let_go(m->lower);
	if (lower_lock(m->lower, LOWER_LOCK_MS, &left, &err) < 0)
		log_error(&err);
	else if (*lower_left_words(left))
		log_msg(LOG_LEVEL_WARNING, "the key of \"%s\" stays in the kernel: %s [CK114]",
			m->config->name, lower_left_words(left));
	if (left & LOWER_LEFT_BUSY)
		mount_lower_linger(m, true);
}

void mount_lower_close(struct mount *m)
{
	lower_unmount(m->lower);
	mount_lower_lock(m);
	lower_close(steal_ptr(&m->lower));
	cleanup_close(&m->keys_fd);
	m->keys_fd = -1;
	cleanup_close(&m->netns_fd);
	m->netns_fd = -1;
}
