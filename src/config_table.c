/* SPDX-License-Identifier: MIT */
/* The table of options, the table of mount(8)'s words, and how a value becomes text and back. */
#include "cleanup.h"
#include "config_impl.h"
#include "idmap.h"
#include "keylife.h"
#include "log.h"
#include "util.h"
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

static const char *const lower_words[] = {"directory", "fscrypt", "afs", NULL};
static const char *const format_words[] = {"gocryptfs", "plain", NULL};
static const char *const sandbox_words[] = {"auto", "strict", "off", NULL};
static const char *const auto_words[] = {"auto", "yes", "no", NULL};
static const char *const search_words[] = {"first", "last", NULL};
static const char *const expire_words[] = {"lock", "eio", "keep", NULL};
static const char *const scope_words[] = {"mount", "container", NULL};
static const char *const level_words[] = {"error", "warning", "info", "debug", NULL};

static const char *check_keyring(const char *value)
{
	uint64_t serial;

	if (!strcmp(value, "none") || !strcmp(value, "inherit"))
		return NULL;
	/* parse_u64() takes 0x too; keyctl(1) prints serials in decimal */
	if (strspn(value, "0123456789") == strlen(value) && !parse_u64(value, INT32_MAX, &serial) && serial)
		return NULL;
	return "none, inherit or the serial number of a keyring";
}

static const char *check_log(const char *value)
{
	if (!strcmp(value, "syslog") || !strcmp(value, "stderr") || value[0] == '/')
		return NULL;
	return "syslog, stderr or the absolute path of a file";
}

static const char *check_map(const char *value)
{
	const char *takes = NULL;
	struct idmap *map = NULL;
	int r = idmap_parse(value, &map, &takes);

	idmap_free(map);
	return r == -EINVAL ? takes : NULL;
}

static const char *check_owner(const char *value)
{
	uint32_t uid, gid;

	return idmap_parse_owner(value, &uid, &gid) < 0 ? "UID or UID:GID, numbers below 4294967295" : NULL;
}

static const char *check_servers(const char *value)
{
	size_t length = strlen(value);

	/* It becomes a word of a line that the kernel reads, and which looks at the addresses. */
	if (strspn(value, "0123456789abcdefABCDEF.:,") != length || value[length - 1] == ',' || *value == ',')
		return "IP addresses with \",\" between them";
	return NULL;
}

static const char *check_refresh(const char *value)
{
	struct keylife ignored;

	return keylife_parse(value, &ignored) < 0 ? "auto, no or a time of at least 1s" : NULL;
}

/* One word of plugin-allow: NAME, or NAME=VALUE. Where a path or a key is meant, it has to be said which. */
static bool allow_word_fine(const char *word, size_t n)
{
	size_t name = strcspn(word, "= ");
	bool value = name + 1 < n;

	if (name == 6 && !strncmp(word, "volume", name))
		return name == n || value;
	if (name == 6 && !strncmp(word, "source", name))
		return value && word[name + 1] == '/';
	if ((name == 3 && !strncmp(word, "key", name)) || (name == 9 && !strncmp(word, "lower-key", name)))
		return value;
	for (int i = 0; config_options[i].name; i++)
		if (strlen(config_options[i].name) == name && !strncmp(config_options[i].name, word, name))
			return name == n || value;
	return false;
}

static const char *check_plugin_allow(const char *value)
{
	while (*value) {
		size_t n = strcspn(value, " ");

		if (n && !allow_word_fine(value, n))
			return "words volume[=NAME], source=/DIRECTORY, key=SCHEME[:/DIRECTORY] and "
			       "OPTION[=VALUE]";
		value += n + (value[n] == ' ');
	}
	return NULL;
}

#define MEMBER(m) offsetof(struct config, m)
#define SECOND UINT64_C(1000)
#define HOUR (3600 * SECOND)

/* One row an option, in the order in which they are shown. clang-format would make it unreadable. */
/* clang-format off */
const struct config_option config_options[] = {
	{.name = "source", .type = CONFIG_PATH, .offset = MEMBER(source), .argument = "PATH",
	 .help = "directory that holds the volume"},
	{.name = "target", .type = CONFIG_PATH, .offset = MEMBER(target), .argument = "PATH",
	 .help = "mount point"},
	{.name = "lower", .type = CONFIG_WORD, .offset = MEMBER(lower), .fallback = "directory",
	 .words = lower_words, .argument = "LOWER", .help = "where the files live", .defaults_ok = true},
	{.name = "lower-key", .type = CONFIG_STRING, .offset = MEMBER(lower_key), .argument = "SCHEME:BODY",
	 .help = "where the lower's own key comes from"},
	{.name = "hide-lower", .type = CONFIG_BOOL, .offset = MEMBER(hide_lower), .fallback = "no",
	 .argument = "BOOL", .help = "no way to the files but through the mount", .defaults_ok = true},
	{.name = "subtree", .type = CONFIG_PATH, .offset = MEMBER(subtree), .argument = "PATH",
	 .help = "directory on the block device or AFS volume that source is"},
	{.name = "afs-servers", .type = CONFIG_STRING, .offset = MEMBER(afs_servers), .check = check_servers,
	 .argument = "IP[,IP...]", .help = "volume location servers of an AFS cell", .defaults_ok = true},
	{.name = "netns", .type = CONFIG_PATH, .offset = MEMBER(netns), .argument = "PATH",
	 .help = "network namespace that an AFS volume is reached in", .defaults_ok = true},
	{.name = "format", .type = CONFIG_WORD, .offset = MEMBER(format), .fallback = "gocryptfs",
	 .words = format_words, .argument = "FORMAT", .help = "how names and contents are stored",
	 .defaults_ok = true},
	{.name = "ephemeral", .type = CONFIG_BOOL, .offset = MEMBER(ephemeral), .fallback = "no",
	 .argument = "BOOL", .help = "a new volume with each mount, whose key ends with it"},
	{.name = "key", .type = CONFIG_KEY, .offset = MEMBER(keys), .argument = "SCHEME:BODY",
	 .help = "where the key comes from; several are tried in order"},
	{.name = "keyring", .type = CONFIG_STRING, .offset = MEMBER(keyring), .fallback = "none",
	 .check = check_keyring, .argument = "none|inherit|SERIAL",
	 .help = "keyring of the caller that the mount may search", .defaults_ok = true},
	{.name = "keyring-search", .type = CONFIG_WORD, .offset = MEMBER(keyring_search), .fallback = "last",
	 .words = search_words, .argument = "first|last",
	 .help = "search that keyring before or after the mount's own", .defaults_ok = true},
	{.name = "key-file-check", .type = CONFIG_BOOL, .offset = MEMBER(key_file_check), .fallback = "yes",
	 .argument = "BOOL", .help = "refuse key files that others can read", .defaults_ok = true},
	{.name = "key-timeout", .type = CONFIG_DURATION, .offset = MEMBER(key_timeout_ms), .fallback = "30s",
	 .min = 1, .max = HOUR, .argument = "TIME", .help = "how long one key source may take",
	 .defaults_ok = true},
	{.name = "refresh", .type = CONFIG_STRING, .offset = MEMBER(refresh), .fallback = "auto",
	 .check = check_refresh, .argument = "auto|no|TIME", .help = "when the source is asked for the key again",
	 .defaults_ok = true},
	{.name = "key-lifetime", .type = CONFIG_DURATION, .offset = MEMBER(key_lifetime_ms), .fallback = "0",
	 .max = 365 * 24 * HOUR, .argument = "TIME",
	 .help = "how long a key is good if its source does not say; 0: for ever", .defaults_ok = true},
	{.name = "on-expire", .type = CONFIG_WORD, .offset = MEMBER(on_expire), .fallback = "lock",
	 .words = expire_words, .argument = "lock|eio|keep", .help = "what becomes of a mount whose key has ended",
	 .defaults_ok = true},
	{.name = "scrypt-memory", .type = CONFIG_SIZE, .offset = MEMBER(scrypt_memory), .fallback = "1G",
	 .min = UINT64_C(1) << 20, .max = UINT64_C(1) << 40, .argument = "SIZE",
	 .help = "memory that opening a volume may take", .defaults_ok = true},
	{.name = "shared", .type = CONFIG_BOOL, .offset = MEMBER(shared), .fallback = "no", .argument = "BOOL",
	 .help = "allow other mounts of the same volume", .defaults_ok = true},
	{.name = "scope", .type = CONFIG_WORD, .offset = MEMBER(scope), .fallback = "mount",
	 .words = scope_words, .argument = "SCOPE", .help = "whether each container has a mount of its own",
	 .defaults_ok = true},
	{.name = "read-only", .type = CONFIG_BOOL, .offset = MEMBER(read_only), .fallback = "no",
	 .argument = "BOOL", .help = "mount read-only", .defaults_ok = true},
	/* No fallback: yes for root, no for others. */
	{.name = "allow-other", .type = CONFIG_BOOL, .offset = MEMBER(allow_other), .argument = "BOOL",
	 .help = "let other users in", .defaults_ok = true},
	{.name = "suid", .type = CONFIG_BOOL, .offset = MEMBER(suid), .fallback = "no", .argument = "BOOL",
	 .help = "honour set-user-ID and set-group-ID bits", .defaults_ok = true},
	{.name = "dev", .type = CONFIG_BOOL, .offset = MEMBER(dev), .fallback = "no", .argument = "BOOL",
	 .help = "honour device nodes", .defaults_ok = true},
	{.name = "exec", .type = CONFIG_BOOL, .offset = MEMBER(exec), .fallback = "yes", .argument = "BOOL",
	 .help = "allow programs to be run", .defaults_ok = true},
	{.name = "writeback", .type = CONFIG_BOOL, .offset = MEMBER(writeback), .fallback = "yes",
	 .argument = "BOOL", .help = "let the kernel collect writes", .defaults_ok = true},
	{.name = "passthrough", .type = CONFIG_WORD, .offset = MEMBER(passthrough), .fallback = "auto",
	 .words = auto_words, .argument = "auto|yes|no",
	 .help = "let the kernel read and write plain files itself", .defaults_ok = true},
	{.name = "attr-timeout", .type = CONFIG_DURATION, .offset = MEMBER(attr_timeout_ms), .fallback = "1s",
	 .max = 24 * HOUR, .argument = "TIME", .help = "how long the kernel keeps attributes",
	 .defaults_ok = true},
	{.name = "entry-timeout", .type = CONFIG_DURATION, .offset = MEMBER(entry_timeout_ms), .fallback = "1s",
	 .max = 24 * HOUR, .argument = "TIME", .help = "how long the kernel keeps names", .defaults_ok = true},
	{.name = "negative-timeout", .type = CONFIG_DURATION, .offset = MEMBER(negative_timeout_ms),
	 .fallback = "0", .max = 24 * HOUR, .argument = "TIME",
	 .help = "how long the kernel remembers that a name does not exist", .defaults_ok = true},
	{.name = "threads", .type = CONFIG_UINT, .offset = MEMBER(threads), .fallback = "0", .max = 64,
	 .argument = "N", .help = "threads that serve; 0: by the number of processors", .defaults_ok = true},
	{.name = "low-latency", .type = CONFIG_WORD, .offset = MEMBER(low_latency), .fallback = "auto",
	 .words = auto_words, .argument = "auto|yes|no",
	 .help = "keep processors from sleeping while requests stream in", .defaults_ok = true},
	{.name = "sandbox", .type = CONFIG_WORD, .offset = MEMBER(sandbox), .fallback = "auto",
	 .words = sandbox_words, .argument = "auto|strict|off", .help = "how the server is confined",
	 .defaults_ok = true},
	{.name = "owner", .type = CONFIG_STRING, .offset = MEMBER(owner), .argument = "USER",
	 .help = "who may control the mount besides root", .defaults_ok = true},
	{.name = "uid-map", .type = CONFIG_STRING, .offset = MEMBER(uid_map), .check = check_map,
	 .argument = "INSIDE:LOWER:COUNT...", .help = "user ids of the mount and those of the lower",
	 .defaults_ok = true},
	{.name = "gid-map", .type = CONFIG_STRING, .offset = MEMBER(gid_map), .check = check_map,
	 .argument = "INSIDE:LOWER:COUNT...", .help = "group ids of the mount and those of the lower",
	 .defaults_ok = true},
	{.name = "present-owner", .type = CONFIG_STRING, .offset = MEMBER(present_owner), .check = check_owner,
	 .argument = "UID[:GID]", .help = "show everything as belonging to one user", .defaults_ok = true},
	{.name = "idmap", .type = CONFIG_BOOL, .offset = MEMBER(idmap), .fallback = "no", .argument = "BOOL",
	 .help = "let the mount be idmapped", .defaults_ok = true},
	{.name = "log", .type = CONFIG_STRING, .offset = MEMBER(log), .fallback = "syslog", .check = check_log,
	 .argument = "syslog|stderr|PATH", .help = "where messages go", .defaults_ok = true},
	{.name = "log-level", .type = CONFIG_WORD, .offset = MEMBER(log_level), .fallback = "info",
	 .words = level_words, .argument = "LEVEL", .help = "least important message that is logged",
	 .defaults_ok = true},
	{.name = "max-mounts", .type = CONFIG_UINT, .offset = MEMBER(max_mounts), .fallback = "0",
	 .max = 1000000, .argument = "N", .help = "mounts that a user other than root may have; 0: no limit",
	 .defaults_ok = true, .system_only = true},
	{.name = "max-keys", .type = CONFIG_UINT, .offset = MEMBER(max_keys), .fallback = "0", .max = 1000000,
	 .argument = "N", .help = "how many of them may have a key at a time; 0: no limit", .defaults_ok = true,
	 .system_only = true},
	{.name = "plugin-allow", .type = CONFIG_STRING, .offset = MEMBER(plugin_allow), .fallback = "volume",
	 .check = check_plugin_allow, .argument = "WORD...",
	 .help = "what container engines may ask the volume plugin for", .defaults_ok = true, .global = true},
	{.name = "stop-timeout", .type = CONFIG_DURATION, .offset = MEMBER(stop_timeout_ms), .fallback = "10s",
	 .max = 24 * HOUR, .argument = "TIME", .help = "how long open files are served after a stop",
	 .defaults_ok = true},
	{.name = NULL},
};
/* clang-format on */

_Static_assert(LOG_LEVEL_ERROR == 0 && LOG_LEVEL_WARNING == 1 && LOG_LEVEL_INFO == 2 && LOG_LEVEL_DEBUG == 3,
	       "level_words");

/*
 * mount(8), "FILESYSTEM-INDEPENDENT MOUNT OPTIONS". Times of access are the lower's business: the FUSE mount
 * has no clock of its own, so asking for any kind of them is harmless. Booleans of config_options (suid,
 * nodev...) are not repeated here.
 */
const struct config_word config_words[] = {
	{"rw", CONFIG_WORD_RW},
	{"ro", CONFIG_WORD_RO},
	{"defaults", CONFIG_WORD_IGNORED},
	{"_netdev", CONFIG_WORD_IGNORED},
	{"nofail", CONFIG_WORD_IGNORED},
	{"auto", CONFIG_WORD_IGNORED},
	{"noauto", CONFIG_WORD_IGNORED},
	{"user", CONFIG_WORD_IGNORED},
	{"user=", CONFIG_WORD_IGNORED},
	{"nouser", CONFIG_WORD_IGNORED},
	{"users", CONFIG_WORD_IGNORED},
	{"nousers", CONFIG_WORD_IGNORED},
	{"owner", CONFIG_WORD_IGNORED}, /* owner=USER is an option of ours */
	{"noowner", CONFIG_WORD_IGNORED},
	{"group", CONFIG_WORD_IGNORED},
	{"nogroup", CONFIG_WORD_IGNORED},
	{"async", CONFIG_WORD_IGNORED},
	{"silent", CONFIG_WORD_IGNORED},
	{"loud", CONFIG_WORD_IGNORED},
	{"atime", CONFIG_WORD_IGNORED},
	{"noatime", CONFIG_WORD_IGNORED},
	{"diratime", CONFIG_WORD_IGNORED},
	{"nodiratime", CONFIG_WORD_IGNORED},
	{"relatime", CONFIG_WORD_IGNORED},
	{"norelatime", CONFIG_WORD_IGNORED},
	{"strictatime", CONFIG_WORD_IGNORED},
	{"nostrictatime", CONFIG_WORD_IGNORED},
	{"lazytime", CONFIG_WORD_IGNORED},
	{"nolazytime", CONFIG_WORD_IGNORED},
	{"iversion", CONFIG_WORD_IGNORED},
	{"noiversion", CONFIG_WORD_IGNORED},
	{"nomand", CONFIG_WORD_IGNORED},
	{"x-*", CONFIG_WORD_IGNORED},
	{"X-*", CONFIG_WORD_IGNORED},
	{"comment=", CONFIG_WORD_IGNORED},
	{"sync", CONFIG_WORD_REFUSED},
	{"dirsync", CONFIG_WORD_REFUSED},
	{"mand", CONFIG_WORD_REFUSED},
	{"nosymfollow", CONFIG_WORD_REFUSED},
	{"remount", CONFIG_WORD_UNSUPPORTED},
	{"bind", CONFIG_WORD_UNSUPPORTED},
	{"rbind", CONFIG_WORD_UNSUPPORTED},
	{"move", CONFIG_WORD_UNSUPPORTED},
	{NULL, CONFIG_WORD_IGNORED},
};

const struct config_word *config_word_find(const char *word, bool has_value)
{
	size_t length = strlen(word);

	for (const struct config_word *w = config_words; w->word; w++) {
		size_t n = strlen(w->word);
		char last = w->word[n - 1];

		if (last == '*'   ? !strncmp(word, w->word, n - 1)
		    : last == '=' ? has_value && length == n - 1 && !strncmp(word, w->word, n - 1)
				  : !has_value && !strcmp(word, w->word))
			return w;
	}
	return NULL;
}

const char *config_type_name(enum config_type type)
{
	static const char *const names[] = {
		[CONFIG_STRING] = "string", [CONFIG_PATH] = "path", [CONFIG_BOOL] = "bool",
		[CONFIG_DURATION] = "time", [CONFIG_SIZE] = "size", [CONFIG_UINT] = "number",
		[CONFIG_WORD] = "word",     [CONFIG_KEY] = "key",
	};

	return names[type];
}

int config_no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, EXIT_STATUS_FAILED, "out of memory");
}

int config_option_index(const char *name)
{
	for (int i = 0; config_options[i].name; i++)
		if (!strcmp(config_options[i].name, name))
			return i;
	return -1;
}

/* The member of option o; the table gives the type that belongs to it. */
static void *member(struct config *cfg, const struct config_option *o)
{
	return (char *)cfg + o->offset;
}

static int value_bad(const struct config_option *o, const char *value, const char *takes, struct error *err)
{
	return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "%s = \"%s\": must be %s", o->name, value, takes);
}

static int word_set(const struct config_option *o, const char *value, int *ret, struct error *err)
{
	char takes[256] = "";
	const char *near;

	for (int i = 0; o->words[i]; i++) {
		size_t used = strlen(takes);

		if (!strcmp(o->words[i], value)) {
			*ret = i;
			return 0;
		}
		snprintf(takes + used, sizeof(takes) - used, "%s%s",
			 !i                ? ""
			 : o->words[i + 1] ? ", "
					   : " or ",
			 o->words[i]);
	}
	near = nearest_word(value, o->words);
	if (near)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "%s = \"%s\": must be %s (did you mean \"%s\"?)", o->name, value, takes,
				 near);
	return value_bad(o, value, takes, err);
}

/* Durations are kept in milliseconds, sizes in bytes. */
static int number_parse(const struct config_option *o, const char *value, uint64_t *ret)
{
	switch (o->type) {
	case CONFIG_DURATION:
		return parse_duration_ms(value, ret);
	case CONFIG_SIZE:
		return parse_size(value, ret);
	default:
		return parse_u64(value, UINT64_MAX, ret);
	}
}

struct unit {
	uint64_t factor;
	const char *name;
};

/* The number in the largest unit that divides it; malloc'ed, NULL without memory. */
static char *number_text(const struct config_option *o, uint64_t number)
{
	static const struct unit times[] = {
		{24 * HOUR, "d"}, {HOUR, "h"}, {60 * SECOND, "m"}, {SECOND, "s"}, {1, "ms"}};
	static const struct unit sizes[] = {{1 << 30, "G"}, {1 << 20, "M"}, {1 << 10, "K"}, {1, ""}};
	static const struct unit plain = {1, ""};
	const struct unit *unit = o->type == CONFIG_DURATION ? times : sizes;
	char *text;

	if (!number || o->type == CONFIG_UINT)
		unit = &plain;
	while (number % unit->factor)
		unit++;
	return asprintf(&text, "%" PRIu64 "%s", number / unit->factor, unit->name) < 0 ? NULL : text;
}

static int number_bad(const struct config_option *o, const char *value, struct error *err)
{
	const char *shape = o->type == CONFIG_DURATION ? "a time like 30s, 5m or 250ms"
			    : o->type == CONFIG_SIZE   ? "a size like 4096, 64K, 512M or 1G"
						       : "a whole number";
	autofree char *min = number_text(o, o->min);
	autofree char *max = number_text(o, o->max);
	char takes[128];

	if (!min || !max)
		return config_no_memory(err);
	snprintf(takes, sizeof(takes), "%s, from %s to %s", shape, min, max);
	return value_bad(o, value, takes, err);
}

static int number_set(struct config *cfg, const struct config_option *o, const char *value, struct error *err)
{
	uint64_t number;
	int r = number_parse(o, value, &number);

	if (r < 0 || number < o->min || number > o->max)
		return number_bad(o, value, err);
	if (o->type == CONFIG_UINT)
		*(unsigned *)member(cfg, o) = (unsigned)number;
	else
		*(uint64_t *)member(cfg, o) = number;
	return 0;
}

static int string_set(struct config *cfg, const struct config_option *o, const char *value, struct error *err)
{
	char **to = member(cfg, o);
	const char *takes = o->check ? o->check(value) : NULL;
	char *copy;

	if (takes)
		return value_bad(o, value, takes, err);
	copy = strdup(value);
	if (!copy)
		return config_no_memory(err);
	free(*to);
	*to = copy;
	return 0;
}

static void keys_clear(struct config *cfg)
{
	for (size_t i = 0; i < cfg->n_keys; i++)
		free(cfg->keys[i]);
	cfg->n_keys = 0;
	cfg->keys[0] = NULL;
}

static int keys_add(struct config *cfg, const char *value, bool append, struct error *err)
{
	char *copy = strdup(value);
	char **keys = copy ? reallocarray(cfg->keys, cfg->n_keys + 2, sizeof(*keys)) : NULL;

	if (!keys) {
		free(copy);
		return config_no_memory(err);
	}
	cfg->keys = keys;
	if (!append)
		keys_clear(cfg);
	cfg->keys[cfg->n_keys++] = copy;
	cfg->keys[cfg->n_keys] = NULL;
	return 0;
}

static int value_parse(struct config *cfg, const struct config_option *o, const char *value, bool append,
		       struct error *err)
{
	switch (o->type) {
	case CONFIG_BOOL:
		return parse_bool(value, member(cfg, o)) < 0 ? value_bad(o, value, "yes or no", err) : 0;
	case CONFIG_WORD:
		return word_set(o, value, member(cfg, o), err);
	case CONFIG_DURATION:
	case CONFIG_SIZE:
	case CONFIG_UINT:
		return number_set(cfg, o, value, err);
	case CONFIG_KEY:
		return keys_add(cfg, value, append, err);
	case CONFIG_STRING:
	case CONFIG_PATH:
		break;
	}
	return string_set(cfg, o, value, err);
}

int config_value_set(struct config *cfg, int index, const char *value, const char *origin, bool append,
		     struct error *err)
{
	const struct config_option *o = &config_options[index];
	autofree char *from = origin ? strdup(origin) : NULL;
	char *old = cfg->origins[index].text;
	int r;

	if (origin && !from)
		return config_no_memory(err);
	if (!*value)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "%s needs a value (%s)", o->name,
				 o->argument);
	r = value_parse(cfg, o, value, append, err);
	if (r < 0)
		return r;
	cfg->origins[index].text = steal_ptr(&from);
	free(old);
	return 0;
}

int config_value_text(const struct config *cfg, int index, char **ret)
{
	const struct config_option *o = &config_options[index];
	const void *m = (const char *)cfg + o->offset;
	const char *text = NULL;
	char *copy;

	switch (o->type) {
	case CONFIG_BOOL:
		text = *(const bool *)m ? "yes" : "no";
		break;
	case CONFIG_WORD:
		text = o->words[*(const int *)m];
		break;
	case CONFIG_STRING:
	case CONFIG_PATH:
		text = *(char *const *)m;
		if (text)
			break;
		*ret = NULL;
		return 0;
	case CONFIG_DURATION:
	case CONFIG_SIZE:
	case CONFIG_UINT:
		copy = number_text(o, o->type == CONFIG_UINT ? *(const unsigned *)m : *(const uint64_t *)m);
		*ret = copy ? copy : *ret;
		return copy ? 0 : -ENOMEM;
	case CONFIG_KEY:
		return -EINVAL;
	}
	copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	*ret = copy;
	return 0;
}

int config_new(const char *name, uid_t uid, struct config **ret, struct error *err)
{
	autoconfig struct config *cfg = calloc(1, sizeof(*cfg));
	int r;

	if (cfg) {
		cfg->name = strdup(name);
		cfg->keys = calloc(1, sizeof(*cfg->keys));
		cfg->origins = calloc(ARRAY_SIZE(config_options), sizeof(*cfg->origins));
	}
	if (!cfg || !cfg->name || !cfg->keys || !cfg->origins)
		return config_no_memory(err);
	cfg->allow_other = uid == 0;
	for (int i = 0; config_options[i].name; i++) {
		r = config_options[i].fallback
			    ? config_value_set(cfg, i, config_options[i].fallback, NULL, false, err)
			    : 0;
		if (r < 0)
			return r;
	}
	*ret = steal_ptr(&cfg);
	return 0;
}

void config_free(struct config *cfg)
{
	if (!cfg)
		return;
	if (cfg->keys)
		keys_clear(cfg);
	free(cfg->keys);
	for (size_t i = 0; cfg->origins && config_options[i].name; i++) {
		const struct config_option *o = &config_options[i];

		free(cfg->origins[i].text);
		if (o->type == CONFIG_STRING || o->type == CONFIG_PATH)
			free(*(char **)member(cfg, o));
	}
	free(cfg->origins);
	free(cfg->name);
	free(cfg);
}
