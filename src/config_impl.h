/* SPDX-License-Identifier: MIT */
/*
 * What config.c and config_table.c share: values by option, origins, mount(8)'s words. For these two files,
 * their unit tests and fuzzer only.
 */
#ifndef CKRFS_CONFIG_IMPL_H
#define CKRFS_CONFIG_IMPL_H

#include "config.h"

/* Where an option's value came from: "FILE:LINE", "-o"; text NULL: the default. */
struct config_origin {
	char *text;
};

struct config_entry {
	int index; /* in config_options */
	char *value;
	unsigned line;
};

struct config_section {
	char *volume; /* NULL: [defaults] */
	char *file;
	unsigned line;
	struct config_entry *entries;
	size_t n_entries;
};

struct config_set {
	uid_t uid;
	bool system;                     /* these are the default files */
	struct config_set *limits;       /* what the default files say, where these are others; may be NULL */
	struct config_section *sections; /* in the order of the files */
	size_t n_sections;
	const char **names; /* of the volumes, sorted, NULL-terminated */
	char *place;        /* the main file, for messages; may be NULL */
};

/* What to do with a word behind -o that is mount(8)'s, not ours. */
enum config_word_kind {
	CONFIG_WORD_IGNORED,     /* matters to mount(8) alone, or holds anyway */
	CONFIG_WORD_RO,          /* read-only = yes */
	CONFIG_WORD_RW,          /* takes back an ro of the same origin */
	CONFIG_WORD_REFUSED,     /* would promise what the mount does not do: status 14 */
	CONFIG_WORD_UNSUPPORTED, /* another operation than mounting: status 15 */
};

struct config_word {
	const char *word; /* with a last '*': every word that starts so; with a last '=': a value follows */
	enum config_word_kind kind;
};

/* Ends with a row whose word is NULL. */
extern const struct config_word config_words[];

#define CONFIG_GLOBAL "%s can stand only in [defaults]"
#define CONFIG_SYSTEM_ONLY "%s can stand only in [defaults] of " CONFIG_FILE_DEFAULT

/* Index in config_options, or -1. */
int config_option_index(const char *name);

/* The row for word, without its "=VALUE" (has_value tells if there was one), or NULL. */
const struct config_word *config_word_find(const char *word, bool has_value);

/* All values at their defaults; allow-other as for uid. */
int config_new(const char *name, uid_t uid, struct config **ret, struct error *err);

/*
 * Sets the option of that index from text. append: for key sources, behind those that are there. The error
 * says which option and what it takes, not where it stood.
 */
int config_value_set(struct config *cfg, int index, const char *value, const char *origin, bool append,
		     struct error *err);

/* The value as the file would have it; *ret is NULL where unset. Not for CONFIG_KEY. -ENOMEM */
int config_value_text(const struct config *cfg, int index, char **ret);

int config_no_memory(struct error *err);

/* `unknown option "sourc" (did you mean "source"?)`; words: mount(8)'s are right too. */
int config_option_unknown(const char *name, bool words, struct error *err);

/* Parses text (any bytes) as the file of that name into set. */
int config_parse(struct config_set *set, const char *file, const char *text, size_t size, struct error *err);
int config_set_new(uid_t uid, struct config_set **ret, struct error *err);

/* "%CELL:VOLUME" or "#CELL:VOLUME" as the kernel takes it, each of them one word? config_options.c */
bool config_is_afs_source(const char *source);

#endif
