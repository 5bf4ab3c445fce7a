/* SPDX-License-Identifier: MIT */
/* ckrfs key: the keys of a volume. No action shows a key, and none gives out the master key. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "command.h"
#include "config.h"
#include "crypto.h"
#include "format_gocryptfs_keys.h"
#include "mount.h"
#include "store.h"
#include "util.h"

enum { KEYS_MAX = 16, SCRYPT_N_MIN = 10, SCRYPT_N_MAX = 28 };

struct key_args {
	const char *config_file, *options, *new_key;
	const char *keys[KEYS_MAX];
	size_t n_keys;
	unsigned log_n;
	bool json;
	const char *volume, *name; /* operands */
};

/* What an action works with. */
struct work {
	const struct key_args *args;
	struct volume_keys *keys;
	struct key new_key;
};

struct action {
	const char *name;
	bool names;     /* has the operand KEYNAME */
	bool needs_key; /* opens the volume */
	bool needs_new;
	bool writes;
	const char *attempt; /* for errors: "cannot ... of" */
	int (*run)(struct work *w, struct error *err);
};

static int key_args_set(void *ctx, const char *name, const char *value, struct error *err)
{
	struct key_args *a = ctx;
	uint64_t n;

	if (strcmp(name, "config") == 0) {
		a->config_file = value;
	} else if (strcmp(name, "options") == 0) {
		a->options = value;
	} else if (strcmp(name, "new-key") == 0) {
		a->new_key = value;
	} else if (strcmp(name, "json") == 0) {
		a->json = true;
	} else if (strcmp(name, "key") == 0) {
		if (a->n_keys == KEYS_MAX)
			return error_set(err, -E2BIG, EXIT_STATUS_USAGE, "more than %d times --key",
					 KEYS_MAX);
		a->keys[a->n_keys++] = value;
	} else if (strcmp(name, "scrypt-n") == 0) {
		if (parse_u64(value, SCRYPT_N_MAX, &n) < 0 || n < SCRYPT_N_MIN)
			return error_set(err, -EINVAL, EXIT_STATUS_USAGE,
					 "--scrypt-n must be %d to %d, not \"%s\"", SCRYPT_N_MIN,
					 SCRYPT_N_MAX, value);
		a->log_n = (unsigned)n;
	}
	return 0;
}

/* ---- actions ---- */

static int run_change(struct work *w, struct error *err)
{
	int r = volume_keys_change(w->keys, &w->new_key, w->args->log_n, err);

	if (r < 0)
		return r;
	printf("changed the passphrase of gocryptfs.conf\n");
	printf("copies of the old gocryptfs.conf still open the volume with the old passphrase\n");
	if (volume_keys_raw_master(w->keys))
		printf("the key that was given is the master key itself: it opens the volume as before\n");
	return 0;
}

static int run_add(struct work *w, struct error *err)
{
	int r = volume_keys_add(w->keys, w->args->name, &w->new_key, w->args->log_n, err);

	if (r == 0)
		printf("added the key \"%s\"\n", w->args->name);
	return r;
}

static int run_remove(struct work *w, struct error *err)
{
	int r = volume_keys_remove(w->keys, w->args->name, err);

	if (r == 0)
		printf("removed the key \"%s\"\n", w->args->name);
	return r;
}

static int run_verify(struct work *w, struct error *err)
{
	const char *slot;

	switch (volume_keys_way(w->keys, &slot)) {
	case VOLUME_KEYS_CONFIG:
		printf("the key opens the volume: passphrase of gocryptfs.conf\n");
		break;
	case VOLUME_KEYS_SLOT:
		printf("the key opens the volume: key slot \"%s\"\n", slot);
		break;
	case VOLUME_KEYS_MASTER:
		printf("the key opens the volume: it is taken as the master key\n");
		break;
	}
	printf("key identifier: %s\n", volume_keys_identifier(w->keys));
	return 0;
}

static unsigned log_2(uint64_t n)
{
	return n ? 63 - (unsigned)__builtin_clzll(n) : 0;
}

static void list_json(const struct gcfs_slots *slots, char identifiers[][33])
{
	if (slots->volume[0])
		printf("{\"key_identifier\": \"%s\", \"keys\": [", slots->volume);
	else
		printf("{\"key_identifier\": \"-\", \"keys\": [");
	for (size_t i = 0; i < slots->n; i++)
		printf("%s\n  {\"name\": \"%s\", \"kind\": \"%s\", \"identifier\": \"%s\", \"created\": "
		       "%" PRId64 ", \"scrypt_n\": %u}",
		       i ? "," : "", slots->slots[i].name, slots->slots[i].passphrase ? "passphrase" : "key",
		       identifiers[i], slots->slots[i].created, log_2(slots->slots[i].scrypt_n));
	printf("%s]}\n", slots->n ? "\n" : "");
}

static void list_table(const struct gcfs_slots *slots, char identifiers[][33])
{
	int width = (int)strlen("(gocryptfs.conf)");

	for (size_t i = 0; i < slots->n; i++)
		width = (int)max_u64((uint64_t)width, strlen(slots->slots[i].name));
	printf("%-*s  %-10s  %-16s  %s\n", width, "NAME", "KIND", "CREATED", "IDENTIFIER");
	printf("%-*s  %-10s  %-16s  %s\n", width, "(gocryptfs.conf)", "passphrase", "-", "-");
	for (size_t i = 0; i < slots->n; i++) {
		time_t when = (time_t)slots->slots[i].created;
		char since[32] = "-";
		struct tm tm;

		if (localtime_r(&when, &tm))
			strftime(since, sizeof(since), "%Y-%m-%d %H:%M", &tm);
		printf("%-*s  %-10s  %-16s  %s\n", width, slots->slots[i].name,
		       slots->slots[i].passphrase ? "passphrase" : "key", since, identifiers[i]);
	}
}

static int run_list(struct work *w, struct error *err)
{
	char identifiers[GCFS_SLOTS_MAX][33];
	struct gcfs_slots slots;
	int r = volume_keys_slots(w->keys, &slots, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < slots.n; i++)
		if (gcfs_slot_identifier(&slots, &slots.slots[i], identifiers[i]) < 0)
			return error_set(err, -EIO, EXIT_STATUS_FAILED, "cannot compute an identifier");
	if (w->args->json)
		list_json(&slots, identifiers);
	else
		list_table(&slots, identifiers);
	return 0;
}

static const struct action actions[] = {
	{"change", false, true, true, true, "change the passphrase of", run_change},
	{"add", true, true, true, true, "add a key to", run_add},
	{"remove", true, true, false, true, "remove a key of", run_remove},
	{"list", false, false, false, false, "list the keys of", run_list},
	{"verify", false, true, false, false, "open", run_verify},
};

/* ---- the volume ---- */

/* As `ckrfs mount` has it: a directory has a slash, a configured name has none. */
static bool is_path(const char *operand)
{
	return strchr(operand, '/') || strcmp(operand, ".") == 0 || strcmp(operand, "..") == 0;
}

static int build_config(const struct key_args *a, struct config **ret, struct error *err)
{
	autoconfig_set struct config_set *set = NULL;
	autoconfig struct config *cfg = NULL;
	int r = config_load(a->config_file, getuid(), &set, err);

	if (r == 0 && is_path(a->volume)) {
		r = config_anonymous(set, "key", &cfg, err);
		if (r == 0)
			r = config_set_option(cfg, "source", a->volume, "the command line", err);
	} else if (r == 0) {
		r = config_volume(set, a->volume, &cfg, err);
	}
	if (r == 0 && a->options)
		r = config_apply_options(cfg, a->options, "-o", err);
	for (size_t i = 0; r == 0 && i < a->n_keys; i++)
		r = config_set_option(cfg, "key", a->keys[i], "--key", err);
	if (r == 0)
		r = config_volume_finish(cfg, err);
	if (r == 0 && cfg->format != CONFIG_FORMAT_GOCRYPTFS)
		r = error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED,
			      "a volume of the format \"plain\" has no key");
	if (r == 0)
		*ret = steal_ptr(&cfg);
	return r;
}

static int open_directory(const char *directory, struct error *err)
{
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return error_errno(err, -errno, EXIT_STATUS_NO_VOLUME, "source %s", directory);
	if (fd < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "source %s", directory);
	return fd;
}

/* Both keys, before anything is locked: a source may take long. */
static int get_keys(struct mount *m, const struct action *action, struct work *w, struct error *err)
{
	int r = crypto_init();

	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot set up the cryptography");
	r = store_init_proc();
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot open /proc/self/fd");
	if (action->needs_key)
		r = mount_get_key(m, err);
	if (r == 0 && action->needs_new) {
		r = mount_get_other_key(m, w->args->new_key, &w->new_key, err);
		if (r < 0)
			error_prefix(err, "--new-key");
	}
	return r;
}

static int work_on(struct mount *m, const struct action *action, struct work *w, struct error *err)
{
	autofd int fd = open_directory(m->config->source, err);
	int r = fd < 0 ? fd : get_keys(m, action, w, err);

	if (r == 0)
		r = volume_keys_open(fd, m->config->scrypt_memory, action->writes, &w->keys, err);
	if (r == 0 && action->needs_key)
		r = volume_keys_unlock(w->keys, &m->key, err);
	if (r == 0)
		r = action->run(w, err);
	key_wipe(&w->new_key);
	volume_keys_free(steal_ptr(&w->keys));
	return r;
}

static int run_key(const struct action *action, const struct key_args *a, struct error *err)
{
	struct work w = {.args = a};
	struct config *cfg = NULL;
	struct mount *m = NULL;
	int r = build_config(a, &cfg, err);

	if (r < 0)
		return r;
	r = mount_new(cfg, getuid(), &m, err);
	if (r < 0) {
		config_free(cfg);
		return r;
	}
	r = work_on(m, action, &w, err);
	if (r < 0)
		error_prefix(err, "cannot %s \"%s\"", action->attempt, a->volume);
	mount_stop(m);
	mount_free(m);
	return r;
}

static const struct action *find_action(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
		if (strcmp(actions[i].name, name) == 0)
			return &actions[i];
	return NULL;
}

static int check_operands(const struct command *cmd, const struct action *action, const struct key_args *a,
			  int n)
{
	if (n != 2 + action->names)
		return command_usage(cmd,
				     action->names ? "%s needs a volume and the name of a key"
						   : "%s needs one volume",
				     action->name);
	if (action->needs_new && !a->new_key)
		return command_usage(cmd, "%s needs --new-key", action->name);
	if (!action->needs_new && (a->new_key || a->log_n))
		return command_usage(cmd, "%s takes no --new-key and no --scrypt-n", action->name);
	if (!action->needs_key && a->n_keys)
		return command_usage(cmd, "%s takes no --key", action->name);
	if (a->json && action->run != run_list)
		return command_usage(cmd, "%s takes no --json", action->name);
	if (action->names && !gcfs_slot_name_valid(a->name))
		return command_usage(cmd,
				     "\"%s\" is not a name: 1 to %d letters, digits, \".\", \"_\" or \"-\"",
				     a->name, GCFS_SLOT_NAME_MAX);
	return 0;
}

int cmd_key(const struct front *front, int argc, char **argv)
{
	const struct command *cmd = command_find("key");
	struct key_args a = {.config_file = front->config_file};
	struct error err = ERROR_NONE;
	const struct action *action;
	int first, r = command_parse(cmd, argc, argv, key_args_set, &a, &first);

	if (r < 0)
		return r == -ECANCELED ? EXIT_STATUS_DONE : EXIT_STATUS_USAGE;
	if (first == argc)
		return command_usage(cmd, "an action is needed: change, add, remove, list or verify");
	action = find_action(argv[first]);
	if (!action)
		return command_usage(cmd, "unknown action \"%s\"", argv[first]);
	a.volume = argc - first > 1 ? argv[first + 1] : NULL;
	a.name = argc - first > 2 ? argv[first + 2] : "";
	r = check_operands(cmd, action, &a, argc - first);
	if (r)
		return r;
	return run_key(action, &a, &err) < 0 ? command_fail(&err) : EXIT_STATUS_DONE;
}
