/* SPDX-License-Identifier: MIT */
/*
 * The volume plugin protocol of Docker, version 1 (docs.docker.com, "Docker volume plugins"), as JSON and as
 * structs of a fixed size: the process that reads HTTP and JSON hands these to the one that mounts. Buffers
 * in, structs out, and back; no socket here. Any bytes may come.
 *
 * No text or name that a client sent is in an error unless it has the form of a volume's name or is an option
 * of ckrfs.conf(5): people mistake options for a place to write a key into.
 */
#ifndef CKRFS_PLUGIN_MESSAGE_H
#define CKRFS_PLUGIN_MESSAGE_H

#include "error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PLUGIN_BODY_MAX = 16384,
	PLUGIN_NAME_SIZE =
		65, /* of a volume, as config_name_valid() has it; with the NUL, as all sizes here */
	PLUGIN_ID_SIZE = 129,
	PLUGIN_OPTIONS_MAX = 16,
	PLUGIN_OPTION_SIZE = 32,
	PLUGIN_VALUE_SIZE = 512,
	PLUGIN_PATH_SIZE = 4096,
	PLUGIN_PAGE = 32, /* volumes of a list in one answer */
};

#define PLUGIN_CONTENT_TYPE "application/vnd.docker.plugins.v1.1+json"

enum plugin_command {
	PLUGIN_ACTIVATE,
	PLUGIN_CAPABILITIES,
	PLUGIN_CREATE,
	PLUGIN_REMOVE,
	PLUGIN_MOUNT,
	PLUGIN_UNMOUNT,
	PLUGIN_PATH,
	PLUGIN_GET,
	PLUGIN_LIST,
};

struct plugin_option {
	char name[PLUGIN_OPTION_SIZE], value[PLUGIN_VALUE_SIZE];
};

/* A volume as it was created: references only. */
struct plugin_volume {
	char name[PLUGIN_NAME_SIZE];
	int64_t created; /* seconds since 1970 */
	uint32_t n_options;
	struct plugin_option options[PLUGIN_OPTIONS_MAX]; /* sorted by name, each once */
};

struct plugin_request {
	enum plugin_command command;
	char id[PLUGIN_ID_SIZE]; /* of Mount and Unmount, may be empty */
	uint32_t from;           /* List: number of the first volume that is asked for */
	int32_t peer;            /* pid of who asks; 0: in no pid namespace that we see */
	struct plugin_volume volume;
};

/* What Get tells of a volume's mount. */
struct plugin_status {
	char state[16], format[16], lower[16];
	char last_error[256];
	int64_t expires; /* when the key ends, seconds since 1970; 0: not known */
	uint32_t mounts; /* how many times it is mounted for an engine */
};

struct plugin_entry {
	char name[PLUGIN_NAME_SIZE];
	bool mounted;
};

struct plugin_answer {
	struct error error; /* code 0: done */
	char mountpoint[PLUGIN_PATH_SIZE +
			PLUGIN_NAME_SIZE]; /* Mount, Path, Get; List: the directory of all; empty: none */
	int64_t created;                   /* Get */
	struct plugin_status status;       /* Get */
	uint32_t n_entries;                /* List */
	bool more;                         /* List: there are more behind these */
	struct plugin_entry entries[PLUGIN_PAGE];
};

/* "/VolumeDriver.Mount" and the like. -ENOENT */
int plugin_message_command(const char *path, enum plugin_command *ret);

/* The body of a request. -EBADMSG and the like, with words. buf needs no NUL. */
int plugin_message_parse(enum plugin_command command, const char *buf, size_t size,
			 struct plugin_request *ret, struct error *err);

/* May this request have come from plugin_message_parse()? Every string ends, every number is in bounds. */
bool plugin_message_sound(const struct plugin_request *request);

/* The body of the answer, malloc'ed. entries: of all the answers to a List; else NULL. -ENOMEM */
int plugin_message_format(const struct plugin_request *request, const struct plugin_answer *answer,
			  const struct plugin_entry *entries, size_t n_entries, char **ret_text);

/* {"Err": "..."} with both lines of the error. -ENOMEM */
int plugin_message_format_error(const struct error *err, char **ret_text);

/* The value of an option, or NULL. */
const char *plugin_volume_option(const struct plugin_volume *v, const char *name);
bool plugin_volume_same_options(const struct plugin_volume *a, const struct plugin_volume *b);

/* A value that is more likely a key or a passphrase than a reference to one. */
bool plugin_looks_like_key(const char *name, const char *value);

/*
 * A volume as a file of the plugin's state, and the count of its mounts: lines of text that end with "end".
 * -EBADMSG for anything that was not made by the functions beside.
 */
int plugin_volume_parse(const char *buf, size_t size, struct plugin_volume *ret);
int plugin_volume_format(const struct plugin_volume *v, char **ret_text);

enum { PLUGIN_UNANSWERED_MAX = 64, PLUGIN_RECORD_MAX = 65536 };

struct plugin_count {
	uint32_t mounts; /* Mounts that were done, without the Unmounts */
	/* Those among them whose answer has not arrived yet: the engine will ask again, with the same ID. */
	uint32_t n_unanswered;
	char unanswered[PLUGIN_UNANSWERED_MAX][PLUGIN_ID_SIZE];
};
int plugin_count_parse(const char *buf, size_t size, struct plugin_count *ret);
int plugin_count_format(const struct plugin_count *c, char **ret_text);

#endif
