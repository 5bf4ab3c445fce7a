/* SPDX-License-Identifier: MIT */
/*
 * Sections and volumes out of the text of files. The INI library splits lines into name and value; section
 * headers, lengths and line numbers are kept here, because inih cuts long lines and long section names in
 * silence, joins indented lines to the ones before and, as Debian builds it, does not tell its handler the
 * line.
 */
#include "config.h"
#include "cleanup.h"
#include "config_impl.h"
#include "util.h"
#include <errno.h>
#include <ini.h>
#include <string.h>

enum {
	CONFIG_LINE_MAX = 4096,
	CONFIG_NAME_MAX = 64,
};

/* Debian's inih has its limit in a variable, upstream's only in the macro. */
extern int ini_max_line __attribute__((weak));

/* ---- the set ---- */

int config_set_new(uid_t uid, struct config_set **ret, struct error *err)
{
	autoconfig_set struct config_set *set = calloc(1, sizeof(*set));

	if (set)
		set->names = calloc(1, sizeof(*set->names));
	if (!set || !set->names)
		return config_no_memory(err);
	set->uid = uid;
	*ret = steal_ptr(&set);
	return 0;
}

static void section_free(struct config_section *s)
{
	for (size_t i = 0; i < s->n_entries; i++)
		free(s->entries[i].value);
	free(s->entries);
	free(s->volume);
	free(s->file);
}

void config_set_free(struct config_set *set)
{
	if (!set)
		return;
	for (size_t i = 0; i < set->n_sections; i++)
		section_free(&set->sections[i]);
	free(set->sections);
	config_set_free(set->limits);
	free(set->names);
	free(set->place);
	free(set);
}

const char *const *config_volumes(const struct config_set *set)
{
	return set->names;
}

/* volume NULL: the last [defaults]. */
static struct config_section *section_find(const struct config_set *set, const char *volume)
{
	for (size_t i = set->n_sections; i--;) {
		const char *name = set->sections[i].volume;

		if (volume ? name && !strcmp(name, volume) : !name)
			return &set->sections[i];
	}
	return NULL;
}

static int names_add(struct config_set *set, const char *name, struct error *err)
{
	const char **names;
	size_t n = 0, at = 0;

	while (set->names[n])
		n++;
	names = reallocarray(set->names, n + 2, sizeof(*names));
	if (!names)
		return config_no_memory(err);
	set->names = names;
	while (at < n && strcmp(names[at], name) < 0)
		at++;
	memmove(names + at + 1, names + at, (n + 1 - at) * sizeof(*names));
	names[at] = name;
	return 0;
}

/* Takes over volume, which may be NULL, also when it fails. */
static int section_add(struct config_set *set, char *volume, const char *file, unsigned line,
		       struct error *err)
{
	struct config_section s = {.volume = volume, .file = strdup(file), .line = line};
	struct config_section *sections;

	sections = s.file ? reallocarray(set->sections, set->n_sections + 1, sizeof(s)) : NULL;
	if (sections)
		set->sections = sections;
	if (!sections || (volume && names_add(set, volume, err) < 0)) {
		section_free(&s);
		return config_no_memory(err);
	}
	set->sections[set->n_sections++] = s;
	return 0;
}

/* ---- parsing one file ---- */

struct reader {
	struct config_set *set;
	const char *file;
	const char *text;
	size_t size, offset;
	unsigned line;          /* of the line that was handed out last */
	bool pending;           /* that line did not come back as name and value yet */
	bool in_section;        /* entries go to the set's last section */
	struct config *scratch; /* values are tried here, so that errors have a line */
	int result;
	struct error *err;
};

/* Remembers the first error, with its place before it. */
static void reader_fail(struct reader *rd, int r)
{
	error_prefix(rd->err, "%s:%u", rd->file, rd->line);
	rd->result = r;
}

#define reader_error(rd, ...) reader_fail(rd, error_set((rd)->err, -EINVAL, EXIT_STATUS_CONFIG, __VA_ARGS__))

bool config_name_valid(const char *name)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t n = strlen(name);

	return n && n <= CONFIG_NAME_MAX && name[0] != '.' && name[0] != '-' && strspn(name, allowed) == n;
}

bool config_mount_name_valid(const char *name)
{
	const char *at = strchr(name, '@');
	char copy[CONFIG_NAME_MAX + 1];
	size_t n = strlen(name);

	if (!at)
		return config_name_valid(name);
	if (n > CONFIG_NAME_MAX || !at[1])
		return false;
	/* With another letter instead of the one "@" it would be a name of a volume. */
	memcpy(copy, name, n + 1);
	copy[at - name] = '_';
	return at > name && config_name_valid(copy);
}

static void reader_volume(struct reader *rd, const char *name)
{
	const struct config_section *other = section_find(rd->set, name);
	char *volume;

	if (!config_name_valid(name)) {
		reader_error(rd,
			     "bad volume name \"%s\": 1 to %d letters, digits, \".\", \"_\" and \"-\", the "
			     "first not \".\" or \"-\"",
			     name, CONFIG_NAME_MAX);
		return;
	}
	if (other) {
		reader_error(rd, "volume \"%s\" is already in %s:%u", name, other->file, other->line);
		return;
	}
	volume = strdup(name);
	if (!volume || section_add(rd->set, volume, rd->file, rd->line, rd->err) < 0)
		reader_fail(rd, config_no_memory(rd->err));
}

static void reader_defaults(struct reader *rd)
{
	const struct config_section *other = section_find(rd->set, NULL);

	if (other && !strcmp(other->file, rd->file))
		reader_error(rd, "[defaults] is already in line %u", other->line);
	else if (section_add(rd->set, NULL, rd->file, rd->line, rd->err) < 0)
		reader_fail(rd, config_no_memory(rd->err));
}

/* "[defaults]" or "[volume NAME]", a comment may follow. line is changed. */
static void reader_section(struct reader *rd, char *line)
{
	static const char blank[] = " \t\r";
	char *end = strchr(line, ']');
	char *kind, *name;

	if (!end || (end[1 + strspn(end + 1, blank)] && !strchr("#;", end[1 + strspn(end + 1, blank)]))) {
		reader_error(rd, "a section is written [defaults] or [volume NAME], alone in its line");
		return;
	}
	*end = '\0';
	kind = line + 1 + strspn(line + 1, blank);
	name = kind + strcspn(kind, blank);
	if (*name)
		*name++ = '\0';
	name += strspn(name, blank);
	for (end = name + strlen(name); end > name && strchr(blank, end[-1]); end--)
		end[-1] = '\0';
	rd->in_section = true;
	if (!strcmp(kind, "volume"))
		reader_volume(rd, name);
	else if (!strcmp(kind, "defaults") && !*name)
		reader_defaults(rd);
	else
		reader_error(rd, "unknown section [%s%s%s]: there are [defaults] and [volume NAME]", kind,
			     *name ? " " : "", name);
}

/* Copies the next line without blanks before it into str, which holds size bytes. False at the end. */
static bool reader_next(struct reader *rd, char *str, size_t size)
{
	const char *start = rd->text + rd->offset;
	size_t rest = rd->size - rd->offset;
	const char *end = memchr(start, '\n', rest);
	size_t n = end ? (size_t)(end - start) : rest;

	if (!rest || rd->result < 0)
		return false;
	rd->offset += n + !!end;
	rd->line++;
	/* inih wants room for "\r\n" and the terminator */
	if (n + 3 > size) {
		reader_error(rd, "the line is longer than %zu bytes", size - 3);
		return false;
	}
	if (memchr(start, '\0', n)) {
		reader_error(rd, "the line holds a NUL byte");
		return false;
	}
	/* with no blank in front, no line continues the one before */
	while (n && strchr(" \t\r\v\f", *start)) {
		start++;
		n--;
	}
	memcpy(str, start, n);
	str[n] = '\0';
	return true;
}

static void reader_settle(struct reader *rd)
{
	if (rd->pending && !rd->result)
		reader_error(rd, "expected NAME = VALUE, a section or a comment");
	rd->pending = false;
}

/* ini_reader: gives inih only lines that should be name and value. */
static char *reader_line(char *str, int size, void *stream)
{
	struct reader *rd = stream;

	reader_settle(rd);
	while (reader_next(rd, str, (size_t)size)) {
		if (*str == '[') {
			reader_section(rd, str);
		} else if (*str && !strchr("#;", *str)) {
			rd->pending = true;
			return str;
		}
	}
	return NULL;
}

static const struct config_entry *entry_find(const struct config_section *s, int index)
{
	for (size_t i = 0; i < s->n_entries; i++)
		if (s->entries[i].index == index)
			return &s->entries[i];
	return NULL;
}

static int entry_check(struct reader *rd, const struct config_section *s, int index, const char *value)
{
	const struct config_option *o = &config_options[index];
	const struct config_entry *other = entry_find(s, index);

	if (o->system_only && (s->volume || !rd->set->system))
		return error_set(rd->err, -EPERM, EXIT_STATUS_CONFIG, CONFIG_SYSTEM_ONLY, o->name);
	if (o->global && s->volume)
		return error_set(rd->err, -EPERM, EXIT_STATUS_CONFIG, CONFIG_GLOBAL, o->name);
	if (!s->volume && !o->defaults_ok)
		return error_set(rd->err, -EINVAL, EXIT_STATUS_CONFIG,
				 "%s belongs to one volume and cannot stand in [defaults]", o->name);
	if (other && o->type != CONFIG_KEY)
		return error_set(rd->err, -EINVAL, EXIT_STATUS_CONFIG, "%s is already set in line %u",
				 o->name, other->line);
	if (*value && *value != '/' && o->type == CONFIG_PATH && !config_is_afs_source(value))
		return error_set(rd->err, -EINVAL, EXIT_STATUS_CONFIG,
				 "%s = \"%s\": must be an absolute path", o->name, value);
	return config_value_set(rd->scratch, index, value, NULL, false, rd->err);
}

static int entry_add(struct reader *rd, const char *name, const char *value)
{
	struct config_section *s = &rd->set->sections[rd->set->n_sections - 1];
	int index = config_option_index(name);
	struct config_entry *entries;
	autofree char *copy = strdup(value);
	int r;

	if (index < 0)
		return config_option_unknown(name, false, rd->err);
	r = entry_check(rd, s, index, value);
	if (r < 0)
		return r;
	entries = copy ? reallocarray(s->entries, s->n_entries + 1, sizeof(*entries)) : NULL;
	if (!entries)
		return config_no_memory(rd->err);
	s->entries = entries;
	s->entries[s->n_entries++] =
		(struct config_entry){.index = index, .value = steal_ptr(&copy), .line = rd->line};
	return 0;
}

/* ini_handler. The section is what reader_section() made last: inih would cut its name at 49 bytes. */
#if INI_HANDLER_LINENO
static int reader_entry(void *user, const char *section, const char *name, const char *value, int line)
#else
static int reader_entry(void *user, const char *section, const char *name, const char *value)
#endif
{
	struct reader *rd = user;
	int r;

	rd->pending = false;
	if (rd->result < 0)
		return 0;
	if (!rd->in_section) {
		reader_error(rd, "an option before the first section");
		return 0;
	}
	r = entry_add(rd, name, value ? value : "");
	if (r < 0)
		reader_fail(rd, r);
	return r == 0;
}

int config_parse(struct config_set *set, const char *file, const char *text, size_t size, struct error *err)
{
	static const char bom[] = "\xEF\xBB\xBF";
	struct error ignored = ERROR_NONE;
	autoconfig struct config *scratch = NULL;
	struct reader rd = {
		.set = set, .file = file, .text = text, .size = size, .err = err ? err : &ignored};
	int r = config_new("scratch", set->uid, &scratch, err);

	if (r < 0)
		return r;
	rd.scratch = scratch;
	if (size >= 3 && !memcmp(text, bom, 3))
		rd.offset = 3;
	if (&ini_max_line && ini_max_line < CONFIG_LINE_MAX + 3)
		ini_max_line = CONFIG_LINE_MAX + 3;
	r = ini_parse_stream(reader_line, &rd, reader_entry, &rd);
	reader_settle(&rd);
	if (rd.result < 0)
		return rd.result;
	if (r == -2)
		return config_no_memory(err);
	/* Whatever inih objects to has left pending set or made the handler fail. */
	return r ? error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "%s: cannot be parsed", file) : 0;
}

/* ---- volumes ---- */

static int section_apply(const struct config_section *s, struct config *cfg, struct error *err)
{
	for (size_t i = 0; i < s->n_entries; i++) {
		const struct config_entry *e = &s->entries[i];
		autofree char *origin = NULL;
		int r;

		if (asprintf(&origin, "%s:%u", s->file, e->line) < 0) {
			origin = NULL;
			return config_no_memory(err);
		}
		r = config_value_set(cfg, e->index, e->value, origin, entry_find(s, e->index) != e, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Those of the default files that a set of other files cannot have. */
static int limits_apply(const struct config_set *limits, struct config *cfg, struct error *err)
{
	autoconfig struct config *other = NULL;
	int r = config_anonymous(limits, cfg->name, &other, err);

	if (r < 0)
		return r;
	cfg->max_mounts = other->max_mounts;
	cfg->max_keys = other->max_keys;
	return 0;
}

int config_anonymous(const struct config_set *set, const char *name, struct config **ret, struct error *err)
{
	autoconfig struct config *cfg = NULL;
	int r = config_new(name, set->uid, &cfg, err);

	if (r == 0 && set->limits)
		r = limits_apply(set->limits, cfg, err);
	for (size_t i = 0; r == 0 && i < set->n_sections; i++)
		if (!set->sections[i].volume)
			r = section_apply(&set->sections[i], cfg, err);
	if (r < 0)
		return r;
	*ret = steal_ptr(&cfg);
	return 0;
}

static int volume_missing(const struct config_set *set, const char *name, struct error *err)
{
	const char *near = nearest_word(name, set->names);
	const char *place = set->place ? set->place : CONFIG_FILE_DEFAULT;

	if (near)
		return error_set(err, -ENOENT, EXIT_STATUS_NO_VOLUME,
				 "no volume \"%s\" in %s (did you mean \"%s\"?)", name, place, near);
	return error_set(err, -ENOENT, EXIT_STATUS_NO_VOLUME, "no volume \"%s\" in %s", name, place);
}

int config_volume(const struct config_set *set, const char *name, struct config **ret, struct error *err)
{
	const struct config_section *s = section_find(set, name);
	autoconfig struct config *cfg = NULL;
	int r;

	if (!s)
		return volume_missing(set, name, err);
	r = config_anonymous(set, name, &cfg, err);
	if (r == 0)
		r = section_apply(s, cfg, err);
	if (r < 0)
		return r;
	*ret = steal_ptr(&cfg);
	return 0;
}
