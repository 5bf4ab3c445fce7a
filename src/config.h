/* SPDX-License-Identifier: MIT */
/*
 * Configuration: ckrfs.conf(5). One table of options (config_options) drives the INI parser, -o words, the
 * documentation check, completion and `ckrfs config --show`. The only file that includes ini.h is config.c.
 * Life functions: one thread. A config holds no secret.
 */
#ifndef CKRFS_CONFIG_H
#define CKRFS_CONFIG_H

#include "error.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

enum config_lower { CONFIG_LOWER_DIRECTORY, CONFIG_LOWER_FSCRYPT, CONFIG_LOWER_AFS };
enum config_format { CONFIG_FORMAT_GOCRYPTFS, CONFIG_FORMAT_PLAIN };
enum config_sandbox { CONFIG_SANDBOX_AUTO, CONFIG_SANDBOX_STRICT, CONFIG_SANDBOX_OFF };
enum config_auto { CONFIG_AUTO, CONFIG_YES, CONFIG_NO };
enum config_search { CONFIG_SEARCH_FIRST, CONFIG_SEARCH_LAST };
enum config_scope { CONFIG_SCOPE_MOUNT, CONFIG_SCOPE_CONTAINER };
enum config_expire { CONFIG_EXPIRE_LOCK, CONFIG_EXPIRE_EIO, CONFIG_EXPIRE_KEEP };

/* One volume's effective values. Strings are owned by the config, NULL where unset and without default. */
struct config {
	char *name;        /* [volume NAME] */
	char *source;      /* absolute path after config_volume_finish(), or %CELL:VOLUME of AFS */
	char *target;      /* mount point, absolute, may be NULL */
	int lower;         /* enum config_lower */
	char *lower_key;   /* key source of the lower; NULL: with a format without key, those of keys */
	bool hide_lower;   /* the lower cannot be reached but through the mount */
	char *subtree;     /* directory on the block device or AFS volume that source is, NULL: its root */
	char *afs_servers; /* addresses, "," between them; NULL: found by the kernel */
	char *netns;       /* network namespace of an AFS volume, NULL: the caller's */
	int format;        /* enum config_format */
	char **keys;       /* key source specifications in order, NULL-terminated; never NULL */
	size_t n_keys;
	char *keyring;      /* "none", "inherit" or a serial, as text */
	int keyring_search; /* enum config_search */
	bool key_file_check;
	uint64_t key_timeout_ms;
	char *refresh;            /* keylife_parse() */
	uint64_t key_lifetime_ms; /* 0: as long as the source says */
	int on_expire;            /* enum config_expire */
	uint64_t scrypt_memory;   /* bytes that opening a volume may take */
	bool ephemeral;           /* a new volume with each mount, whose key is in the mount alone */
	bool shared;              /* another mount of the same volume is allowed */
	int scope;                /* enum config_scope */
	bool read_only;
	bool allow_other;     /* default: yes as root, no otherwise */
	bool suid, dev, exec; /* defaults no, no, yes */
	bool writeback;       /* FUSE writeback cache */
	uint64_t attr_timeout_ms, entry_timeout_ms, negative_timeout_ms;
	int low_latency;  /* enum config_auto */
	int passthrough;  /* enum config_auto */
	int sandbox;      /* enum config_sandbox */
	unsigned threads; /* 0: as many as processors, 2 at least, 8 at most */
	char *owner;      /* user name or uid that may control the mount besides root; NULL: who mounts */
	char *uid_map, *gid_map;       /* ranges of ids, idmap.h; NULL: as on the lower */
	char *present_owner;           /* "UID" or "UID:GID" that everything appears to belong to; NULL */
	bool idmap;                    /* the FUSE mount may be idmapped */
	char *log;                     /* "syslog", "stderr" or a path */
	int log_level;                 /* enum log_level */
	unsigned max_mounts, max_keys; /* of one user but root; 0: no limit */
	char *plugin_allow;            /* what the volume plugin lets engines ask for, ckrfs.conf(5) */
	uint64_t stop_timeout_ms;      /* how long open files are served after a stop while busy */
	struct config_origin *origins; /* one per option of the table: where the value came from */
};

enum config_type {
	CONFIG_STRING,
	CONFIG_PATH,
	CONFIG_BOOL,
	CONFIG_DURATION,
	CONFIG_SIZE,
	CONFIG_UINT,
	CONFIG_WORD,
	CONFIG_KEY, /* list of key source specifications */
};

struct config_option {
	const char *name; /* as in the file and behind -o */
	enum config_type type;
	size_t offset;            /* of the member in struct config */
	const char *fallback;     /* the default as text, NULL: unset */
	const char *const *words; /* CONFIG_WORD: allowed words, NULL-terminated, index = value */
	uint64_t min, max;        /* numbers */
	const char *argument;     /* "PATH", "TIME", ... for help */
	const char *help;         /* one line */
	bool defaults_ok;         /* may stand in [defaults] */
	bool system_only;         /* ... of the default file, and nowhere else: users cannot change it */
	bool global;              /* ... and nowhere else: it is about no single volume */
	/* CONFIG_STRING: returns NULL, or what a value must be. May be NULL: any text. */
	const char *(*check)(const char *value);
};

/* The table; ends with a row whose name is NULL. */
extern const struct config_option config_options[];

/* "path", "bool", ...: what `ckrfs complete options` prints. */
const char *config_type_name(enum config_type type);

#define CONFIG_FILE_DEFAULT "/etc/ckrfs/ckrfs.conf"

struct config_set; /* all files, parsed */

/*
 * Reads file (NULL: uid's own, $XDG_CONFIG_HOME/ckrfs/ckrfs.conf or ~/.config/ckrfs/ckrfs.conf, if uid is not
 * the machine's root and that file or its conf.d is there; else the default file, which may be missing, and
 * the .conf files of its conf.d in alphabetical order; for another file the conf.d beside it). Every error
 * has file and line, and the nearest right word: status 14. A file, or a directory on the way to it as far as
 * conf.d, that is writable by others than root and uid is refused, as sudo and ssh do. What is
 * system_only comes from the default file all the same, unless uid is root.
 */
int config_load(const char *file, uid_t uid, struct config_set **ret, struct error *err);
void config_set_free(struct config_set *set);
/* The file that was read, or would have been if it were there; owned by the set. */
const char *config_place(const struct config_set *set);

/* NULL-terminated names of the volumes, sorted; owned by the set. */
const char *const *config_volumes(const struct config_set *set);

/* The volume's values: defaults of the table, [defaults], [volume NAME]. -ENOENT with status 10 and the
 * nearest name. */
int config_volume(const struct config_set *set, const char *name, struct config **ret, struct error *err);

/* 1 to 64 of [A-Za-z0-9._-], not starting with "." or "-": what [volume NAME] takes. */
bool config_name_valid(const char *name);

/* The name of a mount: such a name, or NAME@SUFFIX with letters, digits, ".", "_" and "-" behind the "@", at
 * most 64 in all. */
bool config_mount_name_valid(const char *name);

/* Values for a mount without a section: table and [defaults] only. */
int config_anonymous(const struct config_set *set, const char *name, struct config **ret, struct error *err);

/*
 * Applies "-o a=b,c,ro,noatime": comma-separated, "\," is a comma. Knows mount(8)'s own words (rw, ro, suid,
 * nosuid, dev, nodev, exec, noexec, defaults, _netdev, nofail, user, users, owner..., x-*, X-*, comment=):
 * see the table in config.c. Unknown: nearest word. origin: "-o", shown by --show. A key= in -o replaces the
 * section's list, further ones from the same origin append. mount(8) always passes rw: it takes back an ro of
 * the same origin, but does not override the section's read-only.
 */
int config_apply_options(struct config *cfg, const char *options, const char *origin, struct error *err);

/* One option by name, as from the command line. */
int config_set_option(struct config *cfg, const char *name, const char *value, const char *origin,
		      struct error *err);

/* What only makes sense once all is known: source present, paths absolute, contradictions (key on a plain
 * directory). Status 14. */
int config_volume_finish(struct config *cfg, struct error *err);
/* Who may do what is decided by the lower, not by modes and owners. */
static inline bool config_lower_decides(const struct config *cfg)
{
	return cfg->lower == CONFIG_LOWER_AFS;
}
/* Where an option's value came from: "FILE:LINE", "-o" or "default"; borrowed. */
const char *config_origin(const struct config *cfg, const char *option);

void config_free(struct config *cfg);

/* `ckrfs config --show`: NAME = VALUE   # where it came from. Or as one JSON object. No secrets: there are
 * none in it. */
int config_show(const struct config *cfg, FILE *to, bool json);

static inline void cleanup_config(struct config **c)
{
	config_free(*c);
}
static inline void cleanup_config_set(struct config_set **s)
{
	config_set_free(*s);
}
#define autoconfig __attribute__((cleanup(cleanup_config)))
#define autoconfig_set __attribute__((cleanup(cleanup_config_set)))

#endif
