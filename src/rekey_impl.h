/* SPDX-License-Identifier: MIT */
/* What the files of rekey share: rekey.c (the order of things), _place.c (the two directories beside each
 * other), _walk.c (both trees in step), _copy.c, _verify.c, _links.c (hard links). */
#ifndef CKRFS_REKEY_IMPL_H
#define CKRFS_REKEY_IMPL_H

#include "format.h"
#include "generation.h"
#include "lower.h"
#include "rekey.h"
#include <limits.h>
#include <sys/stat.h>

/* ---- rekey_place.c: the volume, and the directory beside it ---- */

struct place {
	int parent_fd;
	char path[PATH_MAX]; /* of the parent */
	char base[NAME_MAX + 1], side[NAME_MAX + 1];
};
#define PLACE_NONE ((struct place){.parent_fd = -1})

/* Fails for what cannot be renamed: a mount point. */
int place_open(const char *source, struct place *ret, struct error *err);
void place_close(struct place *p);
int place_side_path(const struct place *p, char ret[PATH_MAX], struct error *err);
/* Is the directory fd what the parent has under that name? */
bool place_is(const struct place *p, const char *name, int fd);
/* Can directories change places there? Tries it in dir_fd. */
int place_check_exchange(int dir_fd, struct error *err);
/* The volume and its neighbour change places, for good. */
int place_exchange(const struct place *p, struct error *err);
/* Nothing in it but what generation_write() may have left? 1 yes, 0 no. */
int place_is_empty(int dir_fd);

/* ---- rekey_slots.c ---- */

/* Fills k->slots. Refuses, naming them, unless they may be lost. */
int rekey_slots_check(struct rekey *k, struct error *err);

/* ---- rekey_links.c: inodes with several names ---- */

struct link {
	uint64_t old_ino, new_ino;
	uint64_t seen;  /* names met so far */
	uint64_t names; /* that the new inode has; set when comparing */
	char *path;     /* of the first one in the new generation, as on disk */
};
struct links {
	struct link *table; /* open addressing; old_ino 0: free */
	size_t n, size;
};
struct link *links_find(const struct links *l, uint64_t old_ino);
/* Takes path. */
int links_add(struct links *l, uint64_t old_ino, uint64_t new_ino, char *path);
void links_free(struct links *l);

/* ---- the whole ---- */

struct rekey {
	const struct rekey_params *params;
	struct place place;
	struct lower *old_lower, *new_lower;
	int old_root, new_root; /* readable */
	struct format *old, *fresh;
	bool old_damaged; /* the format reported something since this was reset */
	struct generation state;
	bool resumed; /* the new generation has something of an earlier run */
	bool needs_keys;
	char slots[REKEY_SLOTS_ROOM]; /* that are lost, in words; rekey_slots_check() */
	struct format_io io[2];
	struct links links;
	enum rekey_phase phase;
	uint64_t files, bytes, mismatches;
	struct error *err; /* of the running call */
};

void rekey_count(struct rekey *k, uint64_t files, uint64_t bytes);

/* ---- rekey_walk.c ---- */

struct walk_dir {
	struct walk_dir *up;
	int old_fd, new_fd;
	uint8_t old_iv[16], new_iv[16];
	struct stat st; /* of the old one */
	char name[NAME_MAX + 1], new_disk[NAME_MAX + 1];
	ssize_t at, n; /* in entries */
	_Alignas(8) char entries[4096];
};

struct walk_entry {
	struct walk_dir *dir;
	char name[NAME_MAX + 1];
	const char *old_disk;
	struct format_name new_name;
	int old_fd;     /* O_PATH; for directories readable */
	struct stat st; /* of old_fd, with the volume's size */
};

struct walk_ops {
	int (*file)(struct rekey *k, const struct walk_entry *e); /* whatever is no directory */
	/* The new directory's fd; -ENOENT: do not go into it. */
	int (*enter)(struct rekey *k, const struct walk_entry *e);
	int (*leave)(struct rekey *k, const struct walk_dir *d);
};

/* Both trees from their roots, each directory after its contents. Fills k->err. */
int walk(struct rekey *k, const struct walk_ops *ops);

/* The directory as format.h wants it, on either side. */
struct format_dir walk_old(const struct walk_dir *d);
struct format_dir walk_new(const struct walk_dir *d);

/* Fills k->err unless it is: `cannot VERB "PATH": reason`. Returns code. */
int walk_fail(struct rekey *k, const struct walk_dir *d, const char *name, const char *verb, int code);

/* Calls found for each entry of the new directory that the old one does not have: raw name. */
int walk_extras(struct rekey *k, const struct walk_dir *d,
		int (*found)(struct rekey *k, const struct walk_dir *d, const char *disk));

/* ---- rekey_copy.c, rekey_verify.c ---- */

int copy_tree(struct rekey *k);
/* Mode, owner, attributes, times of st and old_fd for what new_fd is. */
int copy_metadata(struct rekey *k, int old_fd, const struct stat *st, int new_fd);
/* k->mismatches: what was not the same, and is gone from the new generation, so that copying makes it again.
 */
int verify_tree(struct rekey *k);

/* Opens a regular file for reading; -ESTALE when it is not the one that was looked at. */
int copy_open_old(struct rekey *k, const struct walk_entry *e, struct format_file **ret);
/* Where data goes on at or behind offset: UINT64_MAX for nowhere. */
int copy_next_data(struct format *f, struct format_file *file, uint64_t offset, uint64_t *ret);
/* Has the new directory the entry under its whole name? A long one could be without its text. */
bool copy_has_name(struct rekey *k, const struct walk_entry *e);
/* Do type, mode, owner, device, size and time agree? new_st: with the volume's size. */
bool copy_same_stat(const struct stat *old_st, const struct stat *new_st);

#endif
