/* SPDX-License-Identifier: MIT */
#include "check_repair.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "format_gocryptfs.h"
#include "store.h"
#include "util.h"

enum { FINDINGS_MAX = 100000, TEXTS_MAX = 100000 };

#define QUARANTINE_PREFIX GCFS_LONG_PREFIX "ckrfs-quarantine-"

struct item {
	struct finding found;
	bool done;
	enum check_action action;
};

struct check_repair {
	const struct gocryptfs *volume;
	int root_fd;
	struct quarantine *quarantine;
	struct item *items; /* sorted by path once it runs */
	size_t n, room;
	uint64_t too_many; /* damages that were not remembered */
	char **texts;      /* of .name files that belong to no object, or to the wrong one */
	size_t n_texts;
	struct error *err;
};

const char *check_action_word(enum check_action action)
{
	static const char *const words[] = {
		[CHECK_LEFT] = "left",         [CHECK_MOVED] = "moved",     [CHECK_PUT_BACK] = "put-back",
		[CHECK_RESTORED] = "restored", [CHECK_REMOVED] = "removed",
	};

	return words[action];
}

bool check_repair_hidden(const struct format *format)
{
	return !(gocryptfs_of(format)->config.flags & GCFS_PLAINTEXT_NAMES);
}

int check_repair_new(struct format *format, int root_fd, struct quarantine *q, struct check_repair **ret)
{
	struct check_repair *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->volume = gocryptfs_of(format);
	r->root_fd = root_fd;
	r->quarantine = q;
	*ret = r;
	return 0;
}

void check_repair_free(struct check_repair *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->n; i++)
		finding_wipe(&r->items[i].found);
	for (size_t i = 0; i < r->n_texts; i++)
		free(r->texts[i]);
	free(r->items);
	free(r->texts);
	free(r);
}

int check_repair_add(struct check_repair *r, const struct finding *f)
{
	if (r->n == FINDINGS_MAX) {
		r->too_many += !finding_is_note(f);
		return -ENOSPC;
	}
	if (r->n == r->room) {
		size_t room = r->room ? 2 * r->room : 64;
		struct item *more = reallocarray(r->items, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		r->items = more;
		r->room = room;
	}
	r->items[r->n] = (struct item){.done = false};
	if (finding_copy(f, &r->items[r->n].found) < 0)
		return -ENOMEM;
	r->n++;
	return 0;
}

/* Things are done to an item once. */
static void settle(struct check_repair *r, struct item *it, int result, enum check_action action)
{
	it->done = true;
	it->action = result < 0 ? CHECK_LEFT : action;
	if (result < 0 && r->err->code == 0)
		error_errno(r->err, result, EXIT_STATUS_FAILED, "cannot repair \"%s\"", it->found.path);
}

/* The path without its last component, "" for one in the root: its length. */
static size_t parent_length(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? (size_t)(slash - path) : 0;
}

static bool same_parent(const char *a, const char *b)
{
	size_t n = parent_length(a);

	return n == parent_length(b) && strncmp(a, b, n) == 0;
}

static bool is_inside(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

static int open_dir_at(const struct check_repair *r, const char *path)
{
	const char *last;
	autofd int fd = quarantine_parent(r->root_fd, path, &last);

	return fd < 0 ? fd : store_open_dir(fd, last);
}

/* Calls fn for each entry of a directory until it returns not 0, which is returned then. Takes the fd. */
static int each_entry(int dir_fd, int (*fn)(void *ctx, int dir_fd, const char *disk), void *ctx)
{
	autodir DIR *dir = dir_fd < 0 ? NULL : fdopendir(dir_fd);
	struct dirent *e;
	int r = 0;

	if (!dir) {
		cleanup_close(&dir_fd);
		return dir_fd < 0 ? dir_fd : -ENOMEM;
	}
	errno = 0;
	while (r == 0 && (e = readdir(dir)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = fn(ctx, dirfd(dir), e->d_name);
	return r == 0 ? -errno : r;
}

/* ---- IVs of interrupted removals ---- */

struct fit {
	const struct check_repair *r;
	uint8_t iv[GCFS_IV_SIZE];
};

/* 1: a name that does not decrypt under this IV. */
static int try_name(void *ctx, int dir_fd, const char *disk)
{
	const struct fit *fit = ctx;
	struct gcfs_names *names = fit->r->volume->names;
	char file[NAME_MAX + sizeof(GCFS_LONG_SUFFIX)], text[GCFS_NAME_TEXT_MAX + 1], name[NAME_MAX + 1];
	ssize_t n;

	switch (gcfs_name_kind(names, disk, false)) {
	case GCFS_NAME_ORDINARY:
		return gcfs_name_decrypt(names, fit->iv, disk, name) < 0;
	case GCFS_NAME_LONG:
		snprintf(file, sizeof(file), "%s" GCFS_LONG_SUFFIX, disk);
		n = store_read_file(dir_fd, file, text, sizeof(text) - 1);
		if (n <= 0)
			return 1;
		text[n] = '\0';
		return gcfs_name_decrypt(names, fit->iv, text, name) < 0;
	default:
		return 0;
	}
}

/* Does a directory without an IV have that one? An empty one may have any. */
static bool iv_fits(const struct check_repair *r, const char *parked, const char *dir)
{
	struct fit fit = {.r = r};
	uint8_t buf[GCFS_IV_SIZE + 1];
	const char *last;
	autofd int fd = quarantine_parent(r->root_fd, parked, &last);

	if (fd < 0 || store_read_file(fd, last, buf, sizeof(buf)) != GCFS_IV_SIZE)
		return false;
	memcpy(fit.iv, buf, GCFS_IV_SIZE);
	return each_entry(open_dir_at(r, dir), try_name, &fit) == 0;
}

static int put_back(struct check_repair *r, const char *parked, const char *dir)
{
	autofree char *path = NULL;

	if (asprintf(&path, "%s/" GCFS_DIRIV_FILE, dir) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	return quarantine_rename(r->quarantine, parked, path);
}

/* The directories without an IV beside path: how many, and one of them. */
static size_t without_iv(struct check_repair *r, const char *path, struct item **ret)
{
	size_t n = 0;

	for (size_t i = 0; i < r->n; i++) {
		struct item *it = &r->items[i];

		if (it->found.kind != FINDING_DIRIV_MISSING || it->done || strcmp(it->found.path, ".") == 0 ||
		    !same_parent(it->found.path, path))
			continue;
		*ret = it;
		n++;
	}
	return n;
}

static void repair_parked(struct check_repair *r)
{
	for (size_t i = 0; i < r->n; i++) {
		struct item *it = &r->items[i], *dir = NULL;
		int result;

		if (it->found.kind != FINDING_PARKED_DIRIV || without_iv(r, it->found.path, &dir) != 1 ||
		    !iv_fits(r, it->found.path, dir->found.path))
			continue;
		result = put_back(r, it->found.path, dir->found.path);
		settle(r, it, result, CHECK_PUT_BACK);
		settle(r, dir, result, CHECK_PUT_BACK);
	}
}

/* ---- texts of long names ---- */

static int keep_text(struct check_repair *r, const char *text)
{
	char **more = reallocarray(r->texts, r->n_texts + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	r->texts = more;
	r->texts[r->n_texts] = strdup(text);
	if (!r->texts[r->n_texts])
		return -ENOMEM;
	r->n_texts++;
	return 0;
}

/* An object in an earlier quarantine that may be a .name file. */
static int keep_quarantined(void *ctx, int dir_fd, const char *disk)
{
	struct check_repair *r = ctx;
	char text[GCFS_NAME_TEXT_MAX + 2];
	ssize_t n = store_read_file(dir_fd, disk, text, sizeof(text) - 1);

	if (n <= 0 || n > GCFS_NAME_TEXT_MAX || memchr(text, '\0', (size_t)n) || r->n_texts >= TEXTS_MAX)
		return 0;
	text[n] = '\0';
	return keep_text(r, text);
}

static int look_into_quarantine(void *ctx, int dir_fd, const char *disk)
{
	int r;

	if (strncmp(disk, QUARANTINE_PREFIX, strlen(QUARANTINE_PREFIX)) != 0)
		return 0;
	r = each_entry(store_open_dir(dir_fd, disk), keep_quarantined, ctx);
	return r == -ENOMEM ? r : 0;
}

static int gather_texts(struct check_repair *r)
{
	int result = 0;

	for (size_t i = 0; i < r->n && result == 0; i++)
		if (r->items[i].found.text)
			result = keep_text(r, r->items[i].found.text);
	return result == 0 ? each_entry(store_open_dir(r->root_fd, "."), look_into_quarantine, r) : result;
}

/* The text that an object's name is the hash of, NULL: not known. disk_size: the name's length. */
static const char *find_text(const struct check_repair *r, const char *disk, size_t disk_size)
{
	char hash[NAME_MAX + 1];

	for (size_t i = 0; i < r->n_texts; i++)
		if (gcfs_name_hash(r->volume->names, r->texts[i], hash) == 0 && strlen(hash) == disk_size &&
		    strncmp(hash, disk, disk_size) == 0)
			return r->texts[i];
	return NULL;
}

/* A .name file that is wrong goes; it is written anew if its text turned up elsewhere: only one text has that
 * hash. */
static void repair_name(struct check_repair *r, struct item *it)
{
	bool missing = it->found.kind == FINDING_NAME_MISSING;
	const char *path = it->found.path;
	size_t dir = parent_length(path), start = dir + (dir > 0);
	size_t size = strlen(path) - start - (missing ? 0 : strlen(GCFS_LONG_SUFFIX));
	const char *text = find_text(r, path + start, size);
	autofree char *file = NULL;
	int result = missing ? 0 : quarantine_move(r->quarantine, path);

	if (result == -ENOENT) { /* its object took it along */
		settle(r, it, 0, CHECK_MOVED);
		return;
	}
	if (result < 0 || !text) {
		settle(r, it, result, missing ? CHECK_LEFT : CHECK_MOVED);
		return;
	}
	if (asprintf(&file, "%s%s", path, missing ? GCFS_LONG_SUFFIX : "") < 0) {
		file = NULL;
		result = -ENOMEM;
	} else {
		result = quarantine_create(r->quarantine, file, text);
	}
	settle(r, it, result, CHECK_RESTORED);
}

/* ---- moving ---- */

static const char *last_component(const char *path)
{
	size_t dir = parent_length(path);

	return path + dir + (dir > 0);
}

/* A long-named object takes its .name file along. */
static int move_object(struct check_repair *r, const char *path)
{
	autofree char *file = NULL;
	int result = quarantine_move(r->quarantine, path);

	if (result < 0 || r->volume->config.flags & GCFS_PLAINTEXT_NAMES ||
	    gcfs_name_kind(r->volume->names, last_component(path), false) != GCFS_NAME_LONG)
		return result;
	if (asprintf(&file, "%s" GCFS_LONG_SUFFIX, path) < 0) {
		file = NULL;
		return -ENOMEM;
	}
	result = quarantine_move(r->quarantine, file);
	return result == -ENOENT ? 0 : result;
}

static int not_diriv(void *ctx, int dir_fd, const char *disk)
{
	return strcmp(disk, GCFS_DIRIV_FILE) != 0;
}

/* Only one that has nothing but its IV, or not even that. */
static void repair_unfinished(struct check_repair *r, struct item *it)
{
	if (each_entry(open_dir_at(r, it->found.path), not_diriv, NULL) == 0)
		settle(r, it, quarantine_move(r->quarantine, it->found.path), CHECK_MOVED);
	else
		settle(r, it, 0, CHECK_LEFT);
}

/* An IV that lies beside a directory without one belongs to it, perhaps: both are left for a person. */
static bool is_doubtful(struct check_repair *r, const struct item *it)
{
	struct item *dir;

	if (it->found.kind == FINDING_PARKED_DIRIV)
		return without_iv(r, it->found.path, &dir) > 0;
	if (it->found.kind != FINDING_DIRIV_MISSING)
		return false;
	for (size_t i = 0; i < r->n; i++)
		if (r->items[i].found.kind == FINDING_PARKED_DIRIV && !r->items[i].done &&
		    same_parent(r->items[i].found.path, it->found.path))
			return true;
	return false;
}

static void repair_item(struct check_repair *r, struct item *it)
{
	const char *path = it->found.path;

	switch (it->found.kind) {
	case FINDING_NAME_MISSING:
	case FINDING_NAME_DAMAGED:
		repair_name(r, it);
		return;
	case FINDING_XATTR:
		settle(r, it, quarantine_take_attribute(r->quarantine, path, it->found.attribute),
		       CHECK_REMOVED);
		return;
	case FINDING_UNFINISHED_DIRECTORY:
		repair_unfinished(r, it);
		return;
	case FINDING_UNREADABLE:
	case FINDING_HEADER_ONLY:
	case FINDING_REDO_LOG:
		settle(r, it, 0, CHECK_LEFT);
		return;
	default:
		/* The root cannot be moved away. */
		if (strcmp(path, ".") == 0)
			settle(r, it, 0, CHECK_LEFT);
		else
			settle(r, it, move_object(r, path), CHECK_MOVED);
	}
}

/* Does anything happen to it at all? Then the log is to say why. */
static bool is_touched(const struct finding *f)
{
	return f->kind != FINDING_UNREADABLE && f->kind != FINDING_HEADER_ONLY &&
	       f->kind != FINDING_REDO_LOG && f->kind != FINDING_NAME_MISSING &&
	       f->kind != FINDING_UNFINISHED_DIRECTORY;
}

static void repair_items(struct check_repair *r)
{
	const char *moved = NULL;

	for (size_t i = 0; i < r->n; i++) {
		struct item *it = &r->items[i];
		int noted = 0;

		if (it->done)
			continue;
		if (moved && is_inside(it->found.path, moved)) {
			settle(r, it, 0, CHECK_MOVED);
			continue;
		}
		if (is_doubtful(r, it)) {
			it->action = CHECK_LEFT;
			continue;
		}
		if (is_touched(&it->found) && strcmp(it->found.path, ".") != 0)
			noted = quarantine_note(r->quarantine, &it->found);
		if (noted < 0)
			settle(r, it, noted, CHECK_LEFT);
		else
			repair_item(r, it);
		if (it->action == CHECK_MOVED)
			moved = it->found.path;
	}
}

/* What moves the whole object comes before what changes a part of it. */
static int rank(const struct item *it)
{
	return it->found.kind == FINDING_NAME_MISSING ? FINDING_KINDS : (int)it->found.kind;
}

static int item_order(const void *a, const void *b)
{
	const struct item *x = a, *y = b;
	const unsigned char *p = (const void *)x->found.path, *q = (const void *)y->found.path;

	/* A directory, then what is below it, then its next sibling: the slash sorts first. */
	while (*p && *p == *q)
		p++, q++;
	if (*p != *q)
		return (*p == '/' ? 1 : *p ? *p + 1 : 0) - (*q == '/' ? 1 : *q ? *q + 1 : 0);
	return rank(x) - rank(y);
}

void check_repair_run(struct check_repair *r,
		      void (*said)(void *ctx, const struct finding *f, enum check_action action), void *ctx,
		      uint64_t *ret_done, uint64_t *ret_left, struct error *err)
{
	uint64_t done = 0, left = r->too_many;
	int result;

	*err = ERROR_NONE;
	r->err = err;
	if (r->n)
		qsort(r->items, r->n, sizeof(*r->items), item_order);
	result = r->n ? gather_texts(r) : 0;
	if (result < 0) {
		error_errno(err, result, EXIT_STATUS_FAILED, "cannot repair the volume");
	} else {
		repair_parked(r);
		repair_items(r);
	}
	for (size_t i = 0; i < r->n; i++) {
		const struct item *it = &r->items[i];

		said(ctx, &it->found, it->action);
		if (it->action != CHECK_LEFT)
			done++;
		else
			left += !finding_is_note(&it->found);
	}
	*ret_done = done;
	*ret_left = left;
}
