/* SPDX-License-Identifier: MIT */
/* plugin-allow: what whoever reaches the plugin's socket may have mounted. Nothing that a client wrote is in
 * an error here but names of volumes and of options. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "keysource.h"
#include "util.h"
#include "volume_plugin_impl.h"

/* A word of plugin-allow: NAME or NAME=VALUE. */
struct rule {
	char name[PLUGIN_OPTION_SIZE], value[PLUGIN_VALUE_SIZE];
	bool any; /* no value: any */
};

/* The next word; false at the end. What is too long to match anything is passed over. */
static bool rule_next(const char **text, struct rule *ret)
{
	for (;;) {
		size_t n, name;
		const char *word = *text + strspn(*text, " ");

		n = strcspn(word, " ");
		if (n == 0)
			return false;
		*text = word + n;
		name = (size_t)(strpbrk(word, "= ") ? strpbrk(word, "= ") - word : (ptrdiff_t)n);
		*ret = (struct rule){.any = name == n};
		if (name >= sizeof(ret->name) || n - name > sizeof(ret->value))
			continue;
		memcpy(ret->name, word, name);
		if (!ret->any)
			memcpy(ret->value, word + name + 1, n - name - 1);
		return true;
	}
}

static bool has_dots(const char *path)
{
	for (const char *p = path; (p = strchr(p, '/')); p++)
		if (strncmp(p, "/../", 4) == 0 || strcmp(p, "/..") == 0)
			return true;
	return false;
}

/* By its text alone: path is dir, or below it. */
static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	while (n > 1 && dir[n - 1] == '/')
		n--;
	if (n == 1)
		return path[0] == '/';
	return strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

/* By what it leads to: symbolic links must stay beneath. missing_ok: what is not there leads nowhere. */
static bool leads_below(const char *path, const char *dir, bool missing_ok)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
	autofd int dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC), fd = -1;
	const char *rest = path + strlen(dir);

	if (!is_below(path, dir) || has_dots(path))
		return false;
	if (dir_fd < 0)
		return missing_ok && errno == ENOENT;
	rest += strspn(rest, "/");
	fd = (int)syscall(SYS_openat2, dir_fd, *rest ? rest : ".", &how, sizeof(how));
	return fd >= 0 || (missing_ok && errno == ENOENT);
}

/* SCHEME, or SCHEME:/DIR with a path beneath it. */
static bool rule_has_key(const struct rule *rule, const char *spec)
{
	size_t scheme = strcspn(rule->value, ":");
	char path[PLUGIN_VALUE_SIZE], *parameter;
	const char *dir;

	if (strncmp(spec, rule->value, scheme) != 0 || spec[scheme] != ':')
		return false;
	if (!rule->value[scheme])
		return true;
	dir = rule->value + scheme + 1;
	if (dir[0] != '/')
		return strcmp(spec, rule->value) == 0;
	snprintf(path, sizeof(path), "%s", spec + scheme + 1);
	parameter = strrchr(path, '?');
	if (parameter && strncmp(parameter, "?fmt=", 5) == 0)
		*parameter = '\0';
	return leads_below(path, dir, true);
}

static bool is_key(const char *name)
{
	return strcmp(name, "key") == 0 || strcmp(name, "lower-key") == 0;
}

static bool rule_allows(const struct rule *rule, const struct plugin_option *o)
{
	if (strcmp(rule->name, o->name) != 0)
		return false;
	if (is_key(o->name))
		return !rule->any && strncmp(o->value, "fd:", 3) != 0 && rule_has_key(rule, o->value);
	if (strcmp(o->name, "source") == 0)
		return !rule->any && leads_below(o->value, rule->value, false);
	return rule->any || strcmp(rule->value, o->value) == 0;
}

static bool is_allowed(const char *rules, const struct plugin_option *o)
{
	struct rule rule;

	while (rule_next(&rules, &rule))
		if (rule_allows(&rule, o))
			return true;
	return false;
}

/* The words that are there for this option. */
static void allowed_words(const char *rules, const char *name, char *text, size_t size)
{
	struct rule rule;
	size_t used = 0;

	text[0] = '\0';
	while (rule_next(&rules, &rule))
		if (strcmp(rule.name, name) == 0 && used < size)
			used += (size_t)snprintf(text + used, size - used, "%s%s%s%s", used ? ", " : "",
						 rule.name, rule.any ? "" : "=", rule.value);
}

static int refuse(const char *rules, const struct plugin_option *o, const struct config_set *set,
		  struct error *err)
{
	char words[512];

	allowed_words(rules, o->name, words, sizeof(words));
	if (*words)
		error_set(err, -EPERM, EXIT_STATUS_CONFIG,
			  "this value of %s is not allowed: plugin-allow in %s has %s", o->name,
			  config_place(set), words);
	else
		error_set(err, -EPERM, EXIT_STATUS_CONFIG,
			  "option %s is not allowed: plugin-allow in %s has no such word", o->name,
			  config_place(set));
	error_hint(err, "man 5 ckrfs.conf");
	return -EPERM;
}

/* What is wrong with a key source is not said with its text: that may be a key after all. */
static int check_key(const struct plugin_option *o, struct error *err)
{
	struct keysource *src = NULL;
	int r;

	r = keysource_parse(o->value, &src, NULL);
	keysource_free(src);
	if (r == 0)
		return 0;
	error_set(err, r, EXIT_STATUS_CONFIG, "%s does not name where a key is, as SCHEME:PLACE", o->name);
	error_hint(err, "-o %s=file:/PATH/OF/THE/KEY", o->name);
	return r;
}

static int set_option(struct config *cfg, const struct plugin_option *o, struct error *err)
{
	int r;

	if (strcmp(o->name, "volume") == 0)
		return 0;
	r = is_key(o->name) ? check_key(o, err) : 0;
	if (r == 0 && strcmp(o->name, "source") == 0 && o->value[0] != '/')
		r = error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "source is not an absolute path");
	return r < 0 ? r : config_set_option(cfg, o->name, o->value, "the volume's options", err);
}

static int base_config(const struct config_set *set, const struct plugin_volume *v, struct config **ret,
		       struct error *err)
{
	const char *volume = plugin_volume_option(v, "volume"), *source = plugin_volume_option(v, "source");

	if (volume && source)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "options volume and source exclude each other");
	if (!volume && !source) {
		error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "an option volume or source is needed");
		error_hint(err, "-o volume=NAME");
		return -EINVAL;
	}
	if (source) {
		for (const char *const *name = config_volumes(set); *name; name++)
			if (strcmp(*name, v->name) == 0)
				return error_set(err, -EEXIST, EXIT_STATUS_CONFIG,
						 "\"%s\" is a volume of %s: another one needs another name",
						 v->name, config_place(set));
		return config_anonymous(set, v->name, ret, err);
	}
	for (const char *const *name = config_volumes(set); *name; name++)
		if (strcmp(*name, volume) == 0)
			return config_volume(set, volume, ret, err);
	/* The name is not repeated if it is not the volume's own: it may be anything. */
	error_set(err, -ENOENT, EXIT_STATUS_NO_VOLUME, "%s%s%s in %s",
		  strcmp(volume, v->name) == 0 ? "there is no volume \""
					       : "option volume names none of those",
		  strcmp(volume, v->name) == 0 ? volume : "", strcmp(volume, v->name) == 0 ? "\"" : "",
		  config_place(set));
	error_hint(err, "ckrfs config --list");
	return -ENOENT;
}

int policy_check(const struct config_set *set, const struct plugin_volume *v, struct config **ret,
		 struct error *err)
{
	autoconfig struct config *cfg = NULL, *defaults = NULL;
	int r = config_anonymous(set, v->name, &defaults, err);

	if (r == 0)
		r = base_config(set, v, &cfg, err);
	for (uint32_t i = 0; r == 0 && i < v->n_options; i++) {
		const struct plugin_option *o = &v->options[i];

		/* A form that is wrong is told before a value that is not allowed. */
		r = set_option(cfg, o, err);
		if (r == 0 && !is_allowed(defaults->plugin_allow, o))
			r = refuse(defaults->plugin_allow, o, set, err);
	}
	if (r == 0)
		r = config_volume_finish(cfg, err);
	if (r == 0)
		*ret = steal_ptr(&cfg);
	return r;
}

static bool scheme_known(const char *value)
{
	for (const char *const *s = keysource_schemes(); *s; s++)
		if (strncmp(*s, value, strlen(*s)) == 0 && strchr(":", value[strlen(*s)]))
			return strcmp(*s, "fd") != 0;
	return false;
}

int policy_check_rules(const struct config_set *set, struct error *err)
{
	autoconfig struct config *cfg = NULL;
	const char *rules;
	struct rule rule;
	int r = config_anonymous(set, "plugin", &cfg, err);

	if (r < 0)
		return r;
	rules = cfg->plugin_allow;
	while (rule_next(&rules, &rule))
		if (is_key(rule.name) && !scheme_known(rule.value))
			return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
					 "%s: plugin-allow: %s=%s does not name a key source that can be "
					 "allowed",
					 config_origin(cfg, "plugin-allow"), rule.name, rule.value);
	return 0;
}
