/* SPDX-License-Identifier: MIT */
/* Options from -o and the command line on top of the files, and what only makes sense once all is known. */
#include "cleanup.h"
#include "config_impl.h"
#include "util.h"
#include <errno.h>
#include <string.h>

/* The nearest name of an option, or of a word of mount(8) if words is set; NULL. */
static const char *option_nearest(const char *name, bool words)
{
	const char *list[256];
	size_t n = 0;

	for (int i = 0; config_options[i].name && n < ARRAY_SIZE(list) - 1; i++)
		list[n++] = config_options[i].name;
	for (int i = 0; words && config_words[i].word && n < ARRAY_SIZE(list) - 1; i++)
		if (!strpbrk(config_words[i].word, "=*"))
			list[n++] = config_words[i].word;
	list[n] = NULL;
	return nearest_word(name, list);
}

int config_option_unknown(const char *name, bool words, struct error *err)
{
	const char *near = option_nearest(name, words);

	if (near)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "unknown option \"%s\" (did you mean \"%s\"?)", name, near);
	return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "unknown option \"%s\"", name);
}

static int option_set(struct config *cfg, const char *name, const char *value, const char *origin,
		      struct error *err)
{
	int index = config_option_index(name);
	const char *from;

	if (index < 0)
		return config_option_unknown(name, true, err);
	if (config_options[index].system_only)
		return error_set(err, -EPERM, EXIT_STATUS_CONFIG, CONFIG_SYSTEM_ONLY, name);
	if (config_options[index].global)
		return error_set(err, -EPERM, EXIT_STATUS_CONFIG, CONFIG_GLOBAL, name);
	from = cfg->origins[index].text;
	return config_value_set(cfg, index, value, origin, from && !strcmp(from, origin), err);
}

int config_set_option(struct config *cfg, const char *name, const char *value, const char *origin,
		      struct error *err)
{
	int r = option_set(cfg, name, value, origin, err);

	if (r < 0)
		error_prefix(err, "%s", origin);
	return r;
}

static int word_apply(struct config *cfg, const struct config_word *w, const char *origin, struct error *err)
{
	const char *from;

	switch (w->kind) {
	case CONFIG_WORD_IGNORED:
		return 0;
	case CONFIG_WORD_RO:
		return option_set(cfg, "read-only", "yes", origin, err);
	case CONFIG_WORD_RW:
		from = cfg->origins[config_option_index("read-only")].text;
		return from && !strcmp(from, origin) ? option_set(cfg, "read-only", "no", origin, err) : 0;
	case CONFIG_WORD_REFUSED:
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "\"%s\" is not supported", w->word);
	case CONFIG_WORD_UNSUPPORTED:
		return error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED, "\"%s\" is not supported",
				 w->word);
	}
	return -EINVAL;
}

/* A word without "=": mount(8)'s, or NAME or noNAME of a boolean. */
static int flag_apply(struct config *cfg, const char *word, const char *origin, struct error *err)
{
	const struct config_word *w = config_word_find(word, false);
	int index = config_option_index(word);
	bool no = false;

	if (w)
		return word_apply(cfg, w, origin, err);
	if (index < 0 && !strncmp(word, "no", 2)) {
		index = config_option_index(word + 2);
		no = index >= 0 && config_options[index].type == CONFIG_BOOL;
		index = no ? index : -1;
	}
	if (index < 0)
		return config_option_unknown(word, true, err);
	if (config_options[index].type != CONFIG_BOOL)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "%s needs a value: %s=%s", word, word,
				 config_options[index].argument);
	return option_set(cfg, config_options[index].name, no ? "no" : "yes", origin, err);
}

/* Copies the text up to the next comma, "\," as ","; returns what follows that comma, or the end. */
static const char *word_split(const char *options, char *word)
{
	for (; *options && *options != ','; options++) {
		if (options[0] == '\\' && options[1] == ',')
			options++;
		*word++ = *options;
	}
	*word = '\0';
	return *options ? options + 1 : options;
}

static int pair_apply(struct config *cfg, const char *word, const char *value, const char *origin,
		      struct error *err)
{
	const struct config_word *w;

	if (config_option_index(word) >= 0)
		return option_set(cfg, word, value, origin, err);
	w = config_word_find(word, true);
	if (w)
		return word_apply(cfg, w, origin, err);
	if (config_word_find(word, false))
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "%s takes no value", word);
	return config_option_unknown(word, true, err);
}

int config_apply_options(struct config *cfg, const char *options, const char *origin, struct error *err)
{
	autofree char *word = malloc(strlen(options) + 1);
	int r = word ? 0 : config_no_memory(err);

	while (r == 0 && *options) {
		char *value;

		options = word_split(options, word);
		value = strchr(word, '=');
		if (value)
			*value++ = '\0';
		if (value)
			r = pair_apply(cfg, word, value, origin, err);
		else if (*word)
			r = flag_apply(cfg, word, origin, err);
	}
	if (r < 0 && word)
		error_prefix(err, "%s", origin);
	return r;
}

static int path_finish(char **path, struct error *err)
{
	autofree char *cwd = NULL;
	char *absolute;
	const char *rest = *path;

	if (!rest || *rest == '/')
		return 0;
	cwd = getcwd(NULL, 0);
	/* "(unreachable)/x": getcwd(3) */
	if (!cwd || *cwd != '/')
		return error_errno(err, cwd ? -ENOENT : -errno, EXIT_STATUS_FAILED,
				   "cannot tell the current directory of \"%s\"", rest);
	while (rest[0] == '.' && (rest[1] == '/' || !rest[1]))
		rest += 1 + strspn(rest + 1, "/");
	if (asprintf(&absolute, "%s%s%s", cwd, *rest && cwd[1] ? "/" : "", rest) < 0)
		return config_no_memory(err);
	free(*path);
	*path = absolute;
	return 0;
}

static const char *const lower_names[] = {[CONFIG_LOWER_DIRECTORY] = "directory",
					  [CONFIG_LOWER_FSCRYPT] = "fscrypt",
					  [CONFIG_LOWER_AFS] = "afs"};

/* Every key that is given has a use, and every lower with a key gets one. */
static int finish_keys(const struct config *cfg, struct error *err)
{
	bool plain = cfg->format == CONFIG_FORMAT_PLAIN, keyed = cfg->lower != CONFIG_LOWER_DIRECTORY;

	if (cfg->n_keys && plain && !keyed)
		return error_set(
			err, -EINVAL, EXIT_STATUS_CONFIG,
			"key sources are given but format \"plain\" on lower \"directory\" uses no key");
	if (cfg->lower_key && !keyed)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "lower-key is given but lower \"directory\" uses no key");
	if (cfg->lower_key && plain && cfg->n_keys)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "key and lower-key are given but format \"plain\" uses no key of its own");
	if (!cfg->lower_key && keyed && !plain)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "lower = %s needs lower-key: key is for the format \"gocryptfs\"",
				 lower_names[cfg->lower]);
	return 0;
}

static int wrong(struct error *err, const char *words)
{
	return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "%s", words);
}

bool config_is_afs_source(const char *source)
{
	const char *colon = strchr(source, ':');
	size_t length = strlen(source);

	return (source[0] == '%' || source[0] == '#') && colon && colon - source > 1 &&
	       colon - source <= 254 && colon[1] && strcspn(source, " \t\n/,\\") == length && length < 400;
}

/* Others change the volume too, the servers decide who may, and a token cannot be taken out of an open file
 * that is passed through. */
static int finish_afs(struct config *cfg, struct error *err)
{
	if (!config_is_afs_source(cfg->source))
		return wrong(err,
			     "source must be %CELL:VOLUME or #CELL:VOLUME with lower = afs; a directory of "
			     "the volume is named by subtree");
	if (cfg->hide_lower)
		return wrong(err, "hide-lower = yes: AFS is mounted for the volume alone anyway");
	if (cfg->passthrough == CONFIG_YES)
		return wrong(err, "passthrough = yes does not go with lower = afs");
	if (cfg->idmap)
		return wrong(
			err,
			"idmap = yes does not go with lower = afs: the servers know the token's user only");
	if (!cfg->n_keys && !cfg->lower_key)
		return wrong(err, "lower = afs needs a key, as key = krb5:keytab=FILE,principal=NAME");
	cfg->shared = true;
	cfg->writeback = false;
	return path_finish(&cfg->netns, err);
}

static int finish_others(const struct config *cfg, struct error *err)
{
	if (config_is_afs_source(cfg->source))
		return wrong(err, "source = %CELL:VOLUME goes with lower = afs only");
	if (cfg->subtree && !cfg->hide_lower)
		return wrong(err,
			     "subtree is given, but without hide-lower = yes no block device is mounted");
	return 0;
}

/* A volume that no other mount can open again. */
static int finish_ephemeral(const struct config *cfg, struct error *err)
{
	const char *why = NULL;

	if (!cfg->ephemeral)
		return 0;
	if (cfg->lower == CONFIG_LOWER_AFS)
		why = "it takes a directory of this machine, not lower = afs";
	else if (cfg->lower != CONFIG_LOWER_DIRECTORY)
		why = "lower = fscrypt has keys of its own";
	else if (cfg->format == CONFIG_FORMAT_PLAIN)
		why = "the format \"plain\" has no key that could be gone";
	else if (cfg->n_keys || cfg->lower_key)
		why = "its key is made when it is mounted, and no source (key, lower-key) can give it";
	else if (cfg->shared)
		why = "no other mount can share it (shared = yes)";
	else if (cfg->read_only)
		why = "it is empty at first, and read-only it would stay empty";
	else if (cfg->hide_lower || cfg->subtree)
		why = "it takes a directory, and there is nothing worth hiding (hide-lower, subtree)";
	return why ? error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "ephemeral = yes cannot be done: %s", why)
		   : 0;
}

int config_volume_finish(struct config *cfg, struct error *err)
{
	int r;

	if (!cfg->source)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "volume \"%s\" has no source", cfg->name);
	/* What fscrypt keeps is encrypted already, and AFS is for sharing. */
	if (cfg->lower != CONFIG_LOWER_DIRECTORY && strcmp(config_origin(cfg, "format"), "default") == 0)
		cfg->format = CONFIG_FORMAT_PLAIN;
	r = finish_ephemeral(cfg, err);
	if (r == 0)
		r = finish_keys(cfg, err);
	if (r == 0)
		r = cfg->lower == CONFIG_LOWER_AFS ? finish_afs(cfg, err) : finish_others(cfg, err);
	if (r == 0 && cfg->present_owner && (cfg->uid_map || cfg->gid_map))
		r = error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
			      "present-owner and uid-map or gid-map exclude each other: one shows all as "
			      "one user's, the others map each id");
	if (r == 0 && cfg->lower != CONFIG_LOWER_AFS)
		r = path_finish(&cfg->source, err);
	return r < 0 ? r : path_finish(&cfg->target, err);
}

const char *config_origin(const struct config *cfg, const char *option)
{
	const char *text = cfg->origins[config_option_index(option)].text;

	return text ? text : "default";
}
