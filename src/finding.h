/* SPDX-License-Identifier: MIT */
/*
 * What a check of a volume finds: the kinds, the words for them, and their form as JSON, which `ckrfs check
 * --json` prints and which passes from a server to `ckrfs check --online`. docs/cli-abi.md has the members.
 * No file access.
 */
#ifndef CKRFS_FINDING_H
#define CKRFS_FINDING_H

#include "error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum finding_kind {
	/* damage */
	FINDING_DIRIV_MISSING,
	FINDING_DIRIV_DAMAGED,
	FINDING_DIRIV_WRONG,
	FINDING_NAME,
	FINDING_NAME_MISSING,
	FINDING_NAME_DAMAGED,
	FINDING_DUPLICATE,
	FINDING_FOREIGN,
	FINDING_HEADER,
	FINDING_BLOCKS,
	FINDING_CUT,
	FINDING_SYMLINK,
	FINDING_XATTR,
	FINDING_UNREADABLE,
	/* notes: what a crash leaves, harmless */
	FINDING_ORPHAN_NAME,
	FINDING_PARKED_DIRIV,
	FINDING_UNFINISHED_DIRECTORY,
	FINDING_UNFINISHED_CONFIG,
	FINDING_REDO_LOG,
	FINDING_HEADER_ONLY,
	FINDING_KINDS,
};

struct finding {
	enum finding_kind kind;
	const char *path;      /* in the volume's directory, as on disk; "." is the directory itself */
	const char *name;      /* decrypted; what cannot be decrypted stands as it is on disk, in <> */
	bool name_complete;    /* nothing in it stands in <> */
	const char *attribute; /* FINDING_XATTR: as on disk; else NULL */
	uint64_t first_block,
		blocks; /* damaged blocks of 4096 bytes, counted from 0; blocks 0: does not apply */
	int code;       /* FINDING_UNREADABLE: negative errno */
	const char *
		text; /* of a .name file, where it could be read; for repair only, not in the JSON; or NULL */
};

/* What was looked at, and how it ended. */
struct finding_summary {
	uint64_t files, directories, links, others, bytes; /* bytes: of ciphertext that was read */
	uint64_t damages, notes;
	bool complete; /* false: stopped before the end */
};

bool finding_is_note(const struct finding *f);
/* "blocks", "diriv-missing", ... */
const char *finding_word(enum finding_kind kind);
/* What is wrong, and what that means to the user: one line each. */
const char *finding_what(enum finding_kind kind);
const char *finding_meaning(enum finding_kind kind);

/* A deep copy, and its end. -ENOMEM */
int finding_copy(const struct finding *f, struct finding *ret);
void finding_wipe(struct finding *f);

/* One line of JSON with its newline, malloc'ed. -ENOMEM */
int finding_format(const struct finding *f, char **ret_line);
int finding_summary_format(const struct finding_summary *s, char **ret_line);

/* What stands in one line of a server: 0 a finding (finding_wipe() it), 1 the summary, -EBADMSG. */
int finding_parse(const char *line, size_t size, struct finding *ret, struct finding_summary *ret_summary);

/* text as a JSON string, malloc'ed; NULL when out of memory. */
char *finding_quote(const char *text);

/* path with every byte outside printable ASCII, and the backslash, as \xNN, and back; malloc'ed, NULL when
 * out of memory or (back) malformed. */
char *finding_escape(const char *path);
char *finding_unescape(const char *text);

#endif
