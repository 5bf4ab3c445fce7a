/* SPDX-License-Identifier: MIT */
#include "mount.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "crypto.h"
#include "log.h"
#include "mount_lower.h"
#include "mountinfo.h"
#include "sandbox.h"
#include "server.h"
#include "user_limits.h"
#include "util.h"

enum { CLAIM_TRIES = 100, CLAIM_WAIT_NS = 10000000 };
enum { READ_AHEAD_KIB = 1024 };

int mount_new(struct config *cfg, uid_t owner, struct mount **ret, struct error *err)
{
	struct mount *m = calloc(1, sizeof(*m));

	if (!m)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot mount \"%s\"", cfg->name);
	m->config = cfg;
	m->owner = owner;
	m->runtime = RUNTIME_NONE;
	m->claim = CLAIM_NONE;
	m->fuse = FUSEMOUNT_NONE;
	m->place = EPHEMERAL_NONE;
	m->server_channel = -1;
	m->keys_fd = -1;
	m->netns_fd = -1;
	*ret = m;
	return 0;
}

/* ---- the way up ---- */

/* Is the mount of this name gone already, and only its keeper about to end? */
static bool is_ending(const struct mount *m)
{
	struct record record;
	bool alive;

	return runtime_look(&m->runtime, m->config->name, &alive, &record) == 0 && alive &&
	       record.target[0] && !mountinfo_is_ours(record.target, m->config->name);
}

/* umount(8) returns when the mount is gone, a moment before its keeper: who mounts again at once is not told
 * that it is mounted. */
static int claim_name(struct mount *m, struct error *err)
{
	int r = runtime_open(true, &m->runtime, err);

	if (r < 0)
		return r;
	for (int tries = 0; tries < CLAIM_TRIES; tries++) {
		struct timespec t = {.tv_nsec = CLAIM_WAIT_NS};

		r = runtime_claim(&m->runtime, m->config->name, &m->claim, err);
		if (r != -EBUSY || !is_ending(m))
			break;
		nanosleep(&t, NULL);
	}
	if (r == 0)
		*err = ERROR_NONE;
	return r;
}

/* "none", "inherit" or a serial. */
static int manager_ring(const char *word, int32_t *ret, struct error *err)
{
	uint64_t serial;

	if (!word || strcmp(word, "none") == 0)
		*ret = 0;
	else if (strcmp(word, "inherit") == 0)
		*ret = KEYRING_INHERIT;
	else if (parse_u64(word, INT32_MAX, &serial) == 0 && serial > 0)
		*ret = (int32_t)serial;
	else
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "keyring \"%s\" is neither none nor inherit nor a serial number", word);
	return 0;
}

static int open_keyring(struct mount *m, struct error *err)
{
	int32_t manager = 0;
	int r = manager_ring(m->config->keyring, &manager, err);

	if (r < 0)
		return r;
	return keyring_open(&m->ring, manager, m->config->keyring_search == CONFIG_SEARCH_FIRST, err);
}

static int parse_sources(struct mount *m, struct error *err)
{
	int r = 0;

	m->keysources = calloc(m->config->n_keys + 1, sizeof(struct keysource *));
	if (!m->keysources)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot read the key sources");
	for (size_t i = 0; r == 0 && i < m->config->n_keys; i++)
		r = keysource_parse(m->config->keys[i], &m->keysources[i], err);
	if (r < 0 && err->status == EXIT_STATUS_CONFIG)
		error_prefix(err, "%s", config_origin(m->config, "key"));
	return r;
}

/* The source is in use: by which mount, as far as this runtime directory knows? command: what helps. */
static void name_user_of_source(struct mount *m, const char *command, struct error *err)
{
	char **names;
	struct stat source, other;
	bool alive;

	if (stat(m->config->source, &source) < 0 || runtime_names(&m->runtime, &names) < 0)
		return;
	for (char **name = names; *name; name++) {
		struct record record;

		if ((m->claim.dir_fd >= 0 && strcmp(*name, m->config->name) == 0) ||
		    runtime_look(&m->runtime, *name, &alive, &record) < 0 || !alive || record.ephemeral ||
		    stat(record.source, &other) < 0 || other.st_ino != source.st_ino ||
		    other.st_dev != source.st_dev)
			continue;
		error_set(err, -EBUSY, EXIT_STATUS_BUSY, "source %s is in use: \"%s\" is mounted on %s",
			  m->config->source, *name, record.target);
		error_hint(err, "ckrfs %s %s", command, *name);
		break;
	}
	runtime_names_free(names);
}

static int open_format(struct mount *m, bool may_repair, struct error *err)
{
	struct format_params format = {
		.kind = m->config->format,
		.scrypt_memory = m->config->scrypt_memory,
		.root_fd = lower_root(m->lower),
		.may_repair = may_repair,
	};
	int r = m->config->ephemeral ? format_make(&format, &m->format, err)
				     : format_open(&format, &m->format, err);

	return r < 0 ? error_prefix(err, "source %s", m->config->source) : 0;
}

struct keysource_env mount_key_env(const struct mount *m)
{
	return (struct keysource_env){
		.ring = &m->ring,
		.check_files = m->config->key_file_check,
		.timeout_ms = (int)min_u64(m->config->key_timeout_ms, INT32_MAX),
		.volume = m->config->name,
		.cell = lower_cell(m->lower),
		.uid = getuid(),
	};
}

static int read_key(struct mount *m, struct error *err)
{
	const struct config *cfg = m->config;
	struct keysource_env env = mount_key_env(m);
	int r = keysource_read_first(m->keysources, cfg->n_keys, &env, &m->key, err);

	if (r < 0 && cfg->n_keys == 0 && cfg->target)
		error_hint(err, "ckrfs mount %s %s --key file:/path/to/key", cfg->name, cfg->target);
	return r;
}

/* What the format has on the lower can be read only with the lower's key. */
static int open_volume(struct mount *m, bool shared, void (*stage)(void *ctx, const char *what), void *ctx,
		       struct error *err)
{
	int r = mount_lower_make_place(m, stage, ctx, err);

	if (r == 0)
		r = mount_lower_open(m, shared, err);
	if (r == 0)
		r = mount_lower_unlock(m, stage, ctx, err);
	return r < 0 ? r : open_format(m, !m->config->read_only && !shared, err);
}

static int unlock(struct mount *m, void (*stage)(void *ctx, const char *what), void *ctx, struct error *err)
{
	int r;

	/* It was made with its key. */
	if (!format_needs_key(m->format) || m->config->ephemeral)
		return 0;
	m->key.index = 0;
	stage(ctx, "waiting for the key");
	r = m->config->n_keys ? 0 : format_no_source(m->format, err);
	if (r == 0)
		r = read_key(m, err);
	if (r < 0)
		return r;
	stage(ctx, m->key.passphrase ? "opening the volume (scrypt)" : "opening the volume");
	return format_unlock(m->format, &m->key, err);
}

/* The only one instead of those configured. */
static int replace_sources(struct mount *m, const char *spec, struct error *err)
{
	struct keysource *source;
	int r = keysource_parse(spec, &source, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < m->config->n_keys; i++)
		keysource_free(steal_ptr(&m->keysources[i]));
	m->keysources[0] = source; /* there is room for the NULL behind the last */
	m->config->n_keys = 1;
	/* Of a format without a key it is the lower's. */
	if (m->config->format == CONFIG_FORMAT_PLAIN)
		free(steal_ptr(&m->config->lower_key));
	return 0;
}

/* That of the lower, where the format has none. */
static const char *key_identifier(const struct mount *m)
{
	return format_needs_key(m->format) ? format_key_identifier(m->format)
					   : lower_key_identifier(m->lower);
}

/* Files of one volume under two keys would be the end of both. */
static int check_same_key(const struct mount *m, struct error *err)
{
	if (!m->key_identifier[0] || strcmp(m->key_identifier, key_identifier(m)) == 0)
		return 0;
	return error_set(err, -EKEYREJECTED, EXIT_STATUS_WRONG_KEY,
			 "wrong key: %s opens the volume with another key than the one it was mounted with",
			 m->key.source);
}

static void no_stage(void *ctx, const char *what) {}

/* Before its key is asked for. */
static int begin_within_limits(struct mount *m, struct error *err)
{
	bool key = format_needs_key(m->format) || lower_needs_key(m->lower);
	int r = runtime_mark_key(&m->claim, key);

	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot write to %s/%s", m->runtime.path,
				   m->config->name);
	return user_limits_check(m, key, err);
}

int mount_read_key_again(struct mount *m, const char *spec, struct error *err)
{
	int r = spec ? replace_sources(m, spec, err) : 0;

	if (r == 0)
		r = mount_lower_unlock(m, no_stage, NULL, err);
	/* What it was opened with goes on. */
	if (r == 0 && m->state == MOUNT_UNLOCKED && lower_renews(m->lower))
		return 0;
	if (r == 0)
		r = open_format(m, false, err);
	if (r == 0 && m->state == MOUNT_LOCKED)
		r = begin_within_limits(m, err);
	if (r == 0)
		r = unlock(m, no_stage, NULL, err);
	if (r == 0)
		r = check_same_key(m, err);
	if (r == 0)
		format_hand_over(m->format, m->key_room);
	format_free(steal_ptr(&m->format));
	return r;
}

static int make_key_room(struct mount *m, struct error *err)
{
	int r = secret_new(FORMAT_KEY_SIZE, &m->key_room);

	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot get memory for a key") : 0;
}

static int make_stats(struct mount *m, struct error *err)
{
	void *p = mmap(NULL, sizeof(*m->stats), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot get memory for counters");
	m->stats = p;
	return 0;
}

void mount_signals(sigset_t *ret)
{
	sigemptyset(ret);
	sigaddset(ret, SIGTERM);
	sigaddset(ret, SIGINT);
	sigaddset(ret, SIGHUP);
	sigaddset(ret, SIGCHLD);
}

static int mount_target(struct mount *m, struct error *err)
{
	struct record record = {.keeper = getpid()};
	sigset_t signals;
	int r;

	/* From here on there is something to undo: signals wait for the keeper's loop. */
	mount_signals(&signals);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	r = fusemount_mount(m->config, &m->fuse, err);
	if (r < 0)
		return r;
	snprintf(record.target, sizeof(record.target), "%s", m->config->target);
	snprintf(record.source, sizeof(record.source), "%s", m->config->source);
	record.fscrypt = m->config->lower == CONFIG_LOWER_FSCRYPT;
	record.ephemeral = m->config->ephemeral;
	r = runtime_record(&m->claim, &record);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot write to %s/%s", m->runtime.path,
				   m->config->name);
	return fusemount_leave_namespace(&m->fuse, err);
}

static int wait_for_server(struct mount *m, struct error *err)
{
	struct server_message msg;
	int r;

	while ((r = server_receive(m->server_channel, true, &msg)) > 0 && msg.type == SERVER_LOG)
		log_msg((enum log_level)msg.log.level, "%s", msg.log.line);
	if (r > 0 && msg.type == SERVER_READY) {
		m->protections |= msg.protections;
		m->features = msg.features;
		return 0;
	}
	if (r > 0 && msg.type == SERVER_FAILED && msg.error.code < 0) {
		*err = msg.error;
		return msg.error.code;
	}
	return error_set(err, -EIO, EXIT_STATUS_FAILED, "the server died before it had started");
}

static int start_server(struct mount *m, struct error *err)
{
	int r = server_fork(m, err);

	if (r == 0)
		r = wait_for_server(m, err);
	if (r < 0)
		return r;
	fusemount_read_ahead(&m->fuse, READ_AHEAD_KIB);
	snprintf(m->key_identifier, sizeof(m->key_identifier), "%s", key_identifier(m));
	snprintf(m->secret_memory, sizeof(m->secret_memory), "%s", secret_protection());
	/* The server has what it needs: here nobody needs the key any more. */
	format_free(steal_ptr(&m->format));
	m->since = time(NULL);
	m->state = MOUNT_UNLOCKED;
	return 0;
}

static int prepare_keys(struct mount *m, struct error *err)
{
	int r = crypto_init();

	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot set up the cryptography");
	r = open_keyring(m, err);
	return r < 0 ? r : parse_sources(m, err);
}

int mount_get_key(struct mount *m, struct error *err)
{
	int r = prepare_keys(m, err);

	return r < 0 ? r : read_key(m, err);
}

int mount_get_lower_key(struct mount *m, struct error *err)
{
	int r = prepare_keys(m, err);

	if (r == 0)
		r = mount_lower_open_keys(m, err);
	return r < 0 ? r : mount_lower_read_key(m, &m->key, err);
}

int mount_probe_sources(struct mount *m,
			void (*said)(void *ctx, size_t index, int result, const struct error *err), void *ctx,
			struct error *err)
{
	struct keysource *lower_key = NULL;
	struct keysource_env env;
	int r = prepare_keys(m, err);

	if (r == 0 && m->config->lower_key)
		r = keysource_parse(m->config->lower_key, &lower_key, err);
	if (r < 0)
		return r;
	env = mount_key_env(m);
	for (size_t i = 0; i < m->config->n_keys + (lower_key != NULL); i++) {
		struct error one = ERROR_NONE;

		r = keysource_probe(i < m->config->n_keys ? m->keysources[i] : lower_key, &env, &one);
		said(ctx, i, r, &one);
	}
	keysource_free(lower_key);
	return 0;
}

/* The lock is shared where nothing is changed, so that others may read too. Whoever shares it already may be
 * changing the volume. */
static int open_unmounted(struct mount *m, bool change, void (*stage)(void *ctx, const char *what), void *ctx,
			  bool *ret_live, struct error *err)
{
	int r;

	*ret_live = m->config->shared;
	r = open_volume(m, false, stage, ctx, err);
	if (r == 0 && change)
		return 0;
	if (r == 0) {
		format_free(steal_ptr(&m->format));
		lower_close(steal_ptr(&m->lower));
	} else if (r == -EBUSY && !m->lower && !change) {
		*ret_live = true;
	} else {
		return r;
	}
	return open_volume(m, true, stage, ctx, err);
}

int mount_open_volume(struct mount *m, bool change, void (*stage)(void *ctx, const char *what), void *ctx,
		      bool *ret_live, struct error *err)
{
	bool live = true;
	int r = prepare_keys(m, err);

	if (r == 0)
		r = open_unmounted(m, change, stage, ctx, &live, err);
	if (r == -EBUSY && !m->lower &&
	    (m->runtime.mounts_fd >= 0 || runtime_open(false, &m->runtime, NULL) == 0))
		name_user_of_source(m, change ? "umount" : "check --online", err);
	if (r == 0)
		r = unlock(m, stage, ctx, err);
	if (r == 0)
		r = format_start(m->format, NULL, NULL, err);
	if (r == 0)
		*ret_live = live;
	return r;
}

int mount_get_other_key(struct mount *m, const char *spec, struct key *ret_key, struct error *err)
{
	struct keysource_env env = mount_key_env(m);
	struct keysource *source = NULL;
	int r = keysource_parse(spec, &source, err);

	if (r < 0)
		return r;
	r = keysource_read(source, &env, ret_key, err);
	keysource_free(source);
	return r;
}

int mount_remember_source(struct mount *m, const char *spec)
{
	char *copy = strdup(spec);

	if (!copy)
		return -ENOMEM;
	free(m->key_spec);
	m->key_spec = copy;
	return 0;
}

static int remember_configured(struct mount *m, struct error *err)
{
	int r = m->key.source[0] ? mount_remember_source(m, m->config->keys[m->key.index]) : 0;

	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot keep the key's source") : 0;
}

static int start_steps(struct mount *m, void (*stage)(void *ctx, const char *what), void *ctx,
		       struct error *err)
{
	int r = crypto_init();

	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot set up the cryptography");
	r = claim_name(m, err);
	if (r == 0)
		r = open_keyring(m, err);
	if (r == 0)
		r = parse_sources(m, err);
	if (r == 0)
		r = open_volume(m, m->config->shared, stage, ctx, err);
	if (r == -EBUSY && !m->lower)
		name_user_of_source(m, "umount", err);
	if (r == 0)
		r = begin_within_limits(m, err);
	if (r == 0)
		r = unlock(m, stage, ctx, err);
	if (r == 0)
		r = remember_configured(m, err);
	if (r == 0)
		r = make_stats(m, err);
	if (r == 0)
		r = make_key_room(m, err);
	if (r == 0)
		r = mount_target(m, err);
	/* Again, as others may have begun meanwhile. */
	if (r == 0)
		r = user_limits_check(m, m->key_spec || m->config->ephemeral, err);
	if (r < 0)
		return r;
	stage(ctx, "starting");
	return start_server(m, err);
}

int mount_start(struct mount *m, void (*stage)(void *ctx, const char *what), void *ctx, struct error *err)
{
	int r;

	m->keeper_pid = getpid();
	r = start_steps(m, stage, ctx, err);
	if (r < 0) {
		error_prefix(err, "cannot mount \"%s\"", m->config->name);
		mount_stop(m);
	}
	return r;
}

/* ---- the way down ---- */

void mount_cut(struct mount *m)
{
	if (m->server_pid > 0) {
		kill(m->server_pid, SIGKILL);
		while (waitpid(m->server_pid, NULL, 0) < 0 && errno == EINTR)
			;
		m->server_pid = 0;
	}
	cleanup_close(&m->fuse.fuse_fd);
	m->fuse.fuse_fd = -1;
	cleanup_close(&m->server_channel);
	m->server_channel = -1;
}

/* Nobody waits for what is said here: it is in the log, and `ckrfs umount` looks again. */
void mount_stop(struct mount *m)
{
	bool mounted = m->fuse.mountinfo_fd >= 0;

	mount_cut(m);
	if (mounted && fusemount_is_there(&m->fuse))
		fusemount_unmount(&m->fuse, true);
	fusemount_close(&m->fuse);
	if (m->stats)
		munmap(m->stats, sizeof(*m->stats));
	m->stats = NULL;
	secret_free(steal_ptr(&m->key_room));
	format_free(steal_ptr(&m->format));
	key_wipe(&m->key);
	mount_lower_close(m);
	if (m->ring.mount)
		keyring_close(&m->ring);
	runtime_release(&m->runtime, m->config->name, &m->claim);
	runtime_close(&m->runtime);
	/* The name is free again, and only who waits for the keeper's end waits for this. */
	mount_lower_remove_place(m);
}

void mount_free(struct mount *m)
{
	if (!m)
		return;
	for (size_t i = 0; m->keysources && i < m->config->n_keys; i++)
		keysource_free(m->keysources[i]);
	free(m->keysources);
	free(m->key_spec);
	config_free(m->config);
	free(m);
}

/* ---- what there is to see ---- */

enum sandbox_level mount_sandbox_level(const struct mount *m)
{
	static const enum sandbox_level levels[] = {
		[CONFIG_SANDBOX_AUTO] = SANDBOX_AUTO,
		[CONFIG_SANDBOX_STRICT] = SANDBOX_STRICT,
		[CONFIG_SANDBOX_OFF] = SANDBOX_OFF,
	};

	return levels[m->config->sandbox];
}

static const char *state_word(const struct mount *m)
{
	static const char *const words[] = {
		[MOUNT_STARTING] = "starting", [MOUNT_UNLOCKED] = "unlocked", [MOUNT_LOCKED] = "locked",
		[MOUNT_STOPPING] = "stopping", [MOUNT_FAILED] = "failed",
	};

	return m->state == MOUNT_UNLOCKED && m->degraded ? "degraded" : words[m->state];
}

/* What a mount made by root on a recent kernel has, and this one has not. */
static void missing_words(const struct mount *m, char *text, size_t size)
{
	const struct {
		bool there;
		const char *word;
	} features[] = {
		{m->features & SERVER_FILE_HANDLES, "file-handles"},
		{m->features & SERVER_CALLER_IDS, "caller-ids"},
		{m->config->allow_other, "other-users"},
		{strcmp(m->secret_memory, "memfd_secret") == 0, "secret-memory"},
	};
	size_t used;

	text[0] = '\0';
	if (m->state == MOUNT_STARTING)
		return;
	sandbox_words(~m->protections, text, size);
	used = strlen(text);
	for (size_t i = 0; i < ARRAY_SIZE(features); i++)
		if (!features[i].there && used < size)
			used += (size_t)snprintf(text + used, size - used, "%s%s", used ? " " : "",
						 features[i].word);
}

void mount_status(const struct mount *m, struct message_status *ret)
{
	const struct config *cfg = m->config;
	struct message_status s = {
		.since = m->since,
		.keyring = m->ring.mount,
		.requests = atomic_load(&m->stats->requests),
		.read_bytes = atomic_load(&m->stats->read_bytes),
		.written_bytes = atomic_load(&m->stats->written_bytes),
		.errors = atomic_load(&m->stats->errors),
		.damages = atomic_load(&m->stats->damages),
		.owner = m->owner,
		.keeper_pid = m->keeper_pid,
		.server_pid = m->server_pid,
		.read_only = cfg->read_only,
		.shared = cfg->shared,
		.ephemeral = cfg->ephemeral,
	};

	snprintf(s.name, sizeof(s.name), "%s", cfg->name);
	snprintf(s.state, sizeof(s.state), "%s", state_word(m));
	snprintf(s.source, sizeof(s.source), "%s", cfg->source);
	snprintf(s.target, sizeof(s.target), "%s", cfg->target);
	snprintf(s.lower, sizeof(s.lower), "%s", lower_name(m->lower));
	snprintf(s.format, sizeof(s.format), "%s",
		 cfg->format == CONFIG_FORMAT_PLAIN ? "plain" : "gocryptfs");
	snprintf(s.key_identifier, sizeof(s.key_identifier), "%s", m->key_identifier);
	snprintf(s.key_source, sizeof(s.key_source), "%s",
		 m->key.source[0] ? m->key.source
		 : cfg->ephemeral ? "ephemeral"
				  : "-");
	snprintf(s.secret_memory, sizeof(s.secret_memory), "%s", m->secret_memory);
	snprintf(s.passthrough, sizeof(s.passthrough), "%s", server_passthrough(m->stats));
	sandbox_words(m->protections, s.protections, sizeof(s.protections));
	missing_words(m, s.missing, sizeof(s.missing));
	latency_read(&m->stats->latency, s.latency, &s.latency_ns);
	*ret = s;
}
