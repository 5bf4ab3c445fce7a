/* SPDX-License-Identifier: MIT */
/* A check's walk through the directories: their IVs and names. */
#include "check_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "store.h"
#include "util.h"

enum { ENTRIES_ROOM = 32768 };

/* With fewer of them a bad name is damaged itself; with more, and hardly a good one, it is the IV's fault: a
 * wrong IV makes about one name in 256 look right. */
enum { WRONG_IV_BAD_MIN = 2, WRONG_IV_BAD_PER_GOOD = 16 };

#define OWN_PREFIX GCFS_LONG_PREFIX "ckrfs-"

/* One entry of a directory that is being read. */
struct entry {
	struct check_worker *w;
	struct check_node *dir;
	int dir_fd;
	const char *disk;
	unsigned char type; /* DT_*, known */
};

static bool has_prefix(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

static void report(const struct entry *e, enum finding_kind kind, const char *name)
{
	struct finding f = {.kind = kind};

	check_found(e->w->c, e->dir, e->disk, name, &f);
}

/* ---- opening ---- */

static int open_dir(int dir_fd, const char *name)
{
	int fd = store_open(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOATIME, 0);

	return fd == -EPERM ? store_open_dir(dir_fd, name) : fd;
}

/* From the nearest directory above it that is open, one component at a time: a path has no limit here. */
static int open_from_above(const struct check_node *node)
{
	size_t depth = 0;
	const struct check_node *top = node;
	autofree const char **names = NULL;
	autofd int fd = -1;

	for (; top->fd < 0; top = top->parent)
		depth++;
	names = reallocarray(NULL, depth, sizeof(*names));
	if (!names)
		return -ENOMEM;
	for (const struct check_node *n = node; n != top; n = n->parent)
		names[--depth] = n->disk;
	fd = open_dir(top->fd, names[0]);
	for (const struct check_node *n = node->parent; n != top && fd >= 0; n = n->parent) {
		int next = open_dir(fd, names[++depth]);

		close(fd);
		fd = next;
	}
	return steal_fd(&fd);
}

/* An fd of its own, to read entries from. */
static int open_node(const struct check_node *node)
{
	return node->fd >= 0 ? open_dir(node->fd, ".") : open_from_above(node);
}

/* Keeps it open for what is below, if there are not too many. */
static void keep_open(struct check *c, struct check_node *node, int fd)
{
	if (atomic_fetch_add(&c->open_dirs, 1) < atomic_load(&c->open_dirs_max))
		node->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (node->fd < 0)
		atomic_fetch_sub(&c->open_dirs, 1);
}

static struct check_job *job_new(struct check_node *node, int64_t position)
{
	struct check_job *job = calloc(1, sizeof(*job));

	if (job) {
		job->node = check_node_ref(node);
		job->position = position;
	}
	return job;
}

static struct check_node *node_new(struct check_node *parent, const char *disk, const char *name)
{
	struct check_node *node = calloc(1, sizeof(*node));

	if (!node)
		return NULL;
	node->fd = -1;
	node->disk = strdup(disk);
	node->name = name ? strdup(name) : NULL;
	if (!node->disk || (name && !node->name)) {
		free(node->disk);
		free(node->name);
		free(node);
		return NULL;
	}
	node->parent = parent ? check_node_ref(parent) : NULL;
	return node;
}

static void push_directory(struct check *c, struct check_node *parent, const char *disk, const char *name)
{
	struct check_node *node = node_new(parent, disk, name);
	struct check_job *job = node ? job_new(node, 0) : NULL;

	if (node && !job) {
		check_node_ref(node);
		check_node_unref(c, node);
	}
	check_push(c, job);
}

int check_walk_begin(struct check *c)
{
	struct check_node *node = node_new(NULL, ".", "");
	struct check_job *job = node ? job_new(node, 0) : NULL;

	if (!job)
		return -ENOMEM;
	/* Not counted: the root always stays open. */
	atomic_fetch_add(&c->open_dirs, 1);
	node->fd = store_open_dir(c->params.root_fd, ".");
	if (node->fd < 0) {
		int r = node->fd;

		check_node_unref(c, node);
		free(job);
		return r;
	}
	check_push(c, job);
	return 0;
}

/* ---- the IV ---- */

/* 0, -ENOENT, -EBADMSG: not what it must be; or why it cannot be read. */
static int read_iv(int dir_fd, uint8_t iv[GCFS_IV_SIZE])
{
	static const uint8_t zero[GCFS_IV_SIZE];
	uint8_t buf[GCFS_IV_SIZE + 1];
	ssize_t n = store_read_file(dir_fd, GCFS_DIRIV_FILE, buf, sizeof(buf));

	/* Not a regular file, a link, a socket, a device without a driver. */
	if (n == -EINVAL || n == -ELOOP || n == -ENXIO || n == -ENODEV)
		return -EBADMSG;
	if (n < 0)
		return (int)n;
	if (n != GCFS_IV_SIZE || memcmp(buf, zero, sizeof(zero)) == 0)
		return -EBADMSG;
	memcpy(iv, buf, GCFS_IV_SIZE);
	return 0;
}

/* Is the directory still where it was, and has it any link at all? */
static bool still_there(const struct check_node *node, int dir_fd)
{
	struct stat st, now;

	if (store_stat_fd(dir_fd, &st) < 0 || st.st_nlink == 0)
		return false;
	if (!node->parent || node->parent->fd < 0)
		return true;
	return store_stat(node->parent->fd, node->disk, &now) == 0 && now.st_ino == st.st_ino;
}

static void check_iv(struct check *c, struct check_node *node, int dir_fd)
{
	struct finding f = {.kind = FINDING_DIRIV_DAMAGED};
	int r;

	if (check_has(c, GCFS_PLAINTEXT_NAMES))
		return;
	if (!check_has(c, GCFS_DIRIV)) {
		node->iv_known = true;
		return;
	}
	do
		r = read_iv(dir_fd, node->iv);
	while (r < 0 && check_pause(c) && still_there(node, dir_fd) && read_iv(dir_fd, node->iv) != r);
	node->iv_known = r == 0;
	if (r == 0 || (c->params.live && !still_there(node, dir_fd)))
		return;
	if (r == -ENOENT)
		f.kind = FINDING_DIRIV_MISSING;
	if (r == -ENOENT || r == -EBADMSG)
		check_found(c, node, NULL, NULL, &f);
	else
		check_unreadable(c, node, NULL, NULL, r);
}

/* ---- names that do not decrypt: the name's fault, or the IV's? ---- */

static void report_bad_name(struct check *c, struct check_node *node, const char *disk)
{
	struct finding f = {.kind = FINDING_NAME};

	check_found(c, node, disk, NULL, &f);
}

static bool iv_looks_wrong(const struct check_node *node)
{
	return node->bad_names >= WRONG_IV_BAD_MIN &&
	       node->bad_names > WRONG_IV_BAD_PER_GOOD * atomic_load(&node->good_names);
}

/* check.lock is held. Returns whether findings have to follow. */
static bool judge(struct check_node *node)
{
	if (node->iv_wrong || node->iv_judged)
		return false;
	node->iv_wrong = iv_looks_wrong(node);
	node->iv_judged = !node->iv_wrong;
	return true;
}

static void tell(struct check *c, struct check_node *node)
{
	struct finding f = {.kind = FINDING_DIRIV_WRONG};

	if (node->iv_wrong)
		check_found(c, node, NULL, NULL, &f);
	else
		for (unsigned i = 0; i < node->n_suspects; i++)
			report_bad_name(c, node, node->suspects[i]);
}

void check_walk_judge(struct check *c, struct check_node *node)
{
	/* Nobody else has it any more. */
	if (node->n_suspects && !check_stopped(c) && judge(node))
		tell(c, node);
}

static void bad_name(const struct entry *e)
{
	struct check *c = e->w->c;
	struct check_node *node = e->dir;
	bool now = false, at_once = false;
	char *copy = strdup(e->disk);

	pthread_mutex_lock(&c->lock);
	node->bad_names++;
	if (node->iv_judged)
		at_once = true;
	else if (!node->iv_wrong && copy && node->n_suspects < CHECK_SUSPECTS_MAX)
		node->suspects[node->n_suspects++] = steal_ptr(&copy);
	if (node->n_suspects == CHECK_SUSPECTS_MAX)
		now = judge(node);
	pthread_mutex_unlock(&c->lock);
	free(copy);
	/* The suspects do not change once it is judged. */
	if (now)
		tell(c, node);
	if (at_once)
		report_bad_name(c, node, e->disk);
}

/* ---- one entry ---- */

static void check_object(const struct entry *e, const char *name)
{
	struct check *c = e->w->c;

	switch (e->type) {
	case DT_REG:
		check_regular(e->w, e->dir, e->dir_fd, e->disk, name);
		break;
	case DT_DIR:
		push_directory(c, e->dir, e->disk, name);
		break;
	case DT_LNK:
		check_symlink(e->w, e->dir, e->dir_fd, e->disk, name);
		break;
	default:
		atomic_fetch_add(&c->others, 1);
	}
}

/* Would it be the text of an encrypted name, going by its form? */
static bool looks_encrypted(const struct check *c, const char *disk)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	size_t size = strspn(disk, alphabet), pad = strspn(disk + size, "=");

	if (disk[size + pad] || (pad && check_has(c, GCFS_RAW64)))
		return false;
	return size / 4 * 3 + size % 4 * 3 / 4 >= GCFS_IV_SIZE && size * 3 / 4 % GCFS_IV_SIZE == 0;
}

/*
 * The same bytes as another text: base64 does not use all bits of the last letter, and readers that do not
 * mind take the name twice.
 */
static bool is_second_form(const struct entry *e)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	const struct check *c = e->w->c;
	size_t size = strcspn(e->disk, "=");
	char text[NAME_MAX + 1], name[NAME_MAX + 1];
	const char *last;

	if (size < 2)
		return false;
	snprintf(text, sizeof(text), "%s", e->disk);
	last = strchr(alphabet, text[size - 1]);
	if (!last)
		return false;
	/* 16 bytes leave 4 bits of the last letter unused, 32 bytes leave 2, 48 none. */
	text[size - 1] = alphabet[(last - alphabet) & (size % 4 == 2 ? 0x30 : size % 4 == 3 ? 0x3c : 0x3f)];
	return gcfs_name_decrypt(c->volume->names, e->dir->iv, text, name) == 0;
}

static void check_ordinary(const struct entry *e)
{
	struct check *c = e->w->c;
	char name[NAME_MAX + 1];

	if (!e->dir->iv_known) {
		if (looks_encrypted(c, e->disk))
			check_object(e, NULL);
		else
			report(e, FINDING_FOREIGN, NULL);
		return;
	}
	if (gcfs_name_decrypt(c->volume->names, e->dir->iv, e->disk, name) == 0) {
		atomic_fetch_add(&e->dir->good_names, 1);
		/* Written in full although it is too long: what looks for it by its hash does not find it. */
		if (gcfs_name_is_long(c->volume->names, e->disk))
			report(e, FINDING_DUPLICATE, name);
		check_object(e, name);
	} else if (is_second_form(e)) {
		report(e, FINDING_DUPLICATE, NULL);
	} else if (looks_encrypted(c, e->disk)) {
		bad_name(e);
		check_object(e, NULL);
	} else {
		report(e, FINDING_FOREIGN, NULL);
	}
}

/* ---- long names ---- */

struct text_file {
	char name[NAME_MAX + sizeof(GCFS_LONG_SUFFIX)];
	char text[GCFS_NAME_TEXT_MAX + 1];
};

/* 0 and the text; -ENOENT; -EBADMSG: damaged for certain; or why it cannot be read. */
static int read_text(const struct entry *e, struct text_file *t)
{
	char buf[GCFS_NAME_TEXT_MAX + 1];
	ssize_t n;

	t->text[0] = '\0';
	snprintf(t->name, sizeof(t->name), "%s" GCFS_LONG_SUFFIX, e->disk);
	n = store_read_file(e->dir_fd, t->name, buf, sizeof(buf));
	if (n == -EINVAL || n == -ELOOP || n == -ENXIO || n == -ENODEV || n == 0)
		return -EBADMSG;
	if (n < 0)
		return (int)n;
	if (n > GCFS_NAME_TEXT_MAX || memchr(buf, '\0', (size_t)n))
		return -EBADMSG;
	memcpy(t->text, buf, (size_t)n);
	t->text[n] = '\0';
	return 0;
}

/* 0: it is the text that the hash in the object's name was made of. */
static int check_text(const struct entry *e, struct text_file *t)
{
	char disk[NAME_MAX + 1];
	int r = read_text(e, t);

	if (r == 0)
		r = gcfs_name_hash(e->w->c->volume->names, t->text, disk);
	if (r == 0 && strcmp(disk, e->disk) != 0)
		r = -EBADMSG;
	return r;
}

static bool entry_gone(const struct entry *e)
{
	struct stat st;

	return store_stat(e->dir_fd, e->disk, &st) == -ENOENT;
}

static void report_text(const struct entry *e, const struct text_file *t, int r)
{
	struct finding f = {.kind = FINDING_NAME_DAMAGED, .text = t->text[0] ? t->text : NULL};

	if (r == -ENOENT)
		report(e, FINDING_NAME_MISSING, NULL);
	else if (r == -EBADMSG)
		check_found(e->w->c, e->dir, t->name, NULL, &f);
	else
		check_unreadable(e->w->c, e->dir, t->name, NULL, r);
}

static void check_long(const struct entry *e)
{
	struct check *c = e->w->c;
	const char *known = NULL;
	char name[NAME_MAX + 1];
	struct text_file t;
	int r = check_text(e, &t);

	if (r < 0 && check_pause(c))
		r = check_text(e, &t);
	if (r < 0 && c->params.live && entry_gone(e))
		return;
	if (r < 0) {
		report_text(e, &t, r);
	} else if (e->dir->iv_known) {
		if (gcfs_name_decrypt(c->volume->names, e->dir->iv, t.text, name) == 0) {
			atomic_fetch_add(&e->dir->good_names, 1);
			known = name;
			/* Looked for by its short form, which may be there too. */
			if (!gcfs_name_is_long(c->volume->names, t.text))
				report(e, FINDING_DUPLICATE, name);
		} else {
			bad_name(e);
		}
	}
	check_object(e, known);
}

/* What an interrupted operation left; false: this is nothing of that kind. */
static bool check_leftover(const struct entry *e)
{
	enum gocryptfs_leftover kind = gocryptfs_leftover_kind(e->disk);
	bool redo = kind == GOCRYPTFS_LEFTOVER_REDO;

	if (kind == GOCRYPTFS_LEFTOVER_NONE || (redo && e->dir->parent))
		return false;
	/* A mount that is served has all of them, for a moment, and its log as long as it lasts. */
	if (e->w->c->params.live && (redo || !check_pause(e->w->c) || entry_gone(e)))
		return true;
	if (redo && e->type == DT_REG)
		report(e, FINDING_REDO_LOG, NULL);
	else if (kind == GOCRYPTFS_LEFTOVER_PARKED && e->type == DT_REG)
		report(e, FINDING_PARKED_DIRIV, NULL);
	else if (!redo && kind != GOCRYPTFS_LEFTOVER_PARKED && e->type == DT_DIR)
		report(e, FINDING_UNFINISHED_DIRECTORY, NULL);
	else
		report(e, FINDING_FOREIGN, NULL);
	return true;
}

/* A .name file is looked at with its object; without one it is a leftover. */
static void check_long_text(const struct entry *e)
{
	char object[NAME_MAX + 1], buf[GCFS_NAME_TEXT_MAX + 1];
	struct finding f = {.kind = FINDING_ORPHAN_NAME};
	struct stat st;
	ssize_t n;

	if (!e->dir->parent && has_prefix(e->disk, OWN_PREFIX))
		return;
	if (check_leftover(e))
		return;
	snprintf(object, sizeof(object), "%.*s", (int)(strlen(e->disk) - strlen(GCFS_LONG_SUFFIX)), e->disk);
	if (store_stat(e->dir_fd, object, &st) != -ENOENT)
		return;
	if (e->w->c->params.live &&
	    (!check_pause(e->w->c) || entry_gone(e) || store_stat(e->dir_fd, object, &st) != -ENOENT))
		return;
	if (e->type != DT_REG) {
		report(e, FINDING_FOREIGN, NULL);
		return;
	}
	n = store_read_file(e->dir_fd, e->disk, buf, sizeof(buf) - 1);
	if (n > 0 && !memchr(buf, '\0', (size_t)n)) {
		buf[n] = '\0';
		f.text = buf;
	}
	check_found(e->w->c, e->dir, e->disk, NULL, &f);
}

/* What the root of a volume may have besides, and no other directory. */
static bool check_root_entry(const struct entry *e)
{
	if (e->dir->parent)
		return false;
	if (strcmp(e->disk, GCFS_CONF_FILE ".tmp") == 0 && e->type == DT_REG)
		report(e, FINDING_UNFINISHED_CONFIG, NULL);
	else if (strcmp(e->disk, GCFS_CONF_FILE) != 0 && strcmp(e->disk, GCFS_CONF_FILE ".bak") != 0 &&
		 !(strcmp(e->disk, "lost+found") == 0 && e->type == DT_DIR))
		return false;
	return true;
}

static void check_entry(const struct entry *e)
{
	struct check *c = e->w->c;

	if (check_root_entry(e))
		return;
	if (check_has(c, GCFS_PLAINTEXT_NAMES)) {
		check_object(e, e->disk);
		return;
	}
	switch (gcfs_name_kind(c->volume->names, e->disk, !e->dir->parent)) {
	case GCFS_NAME_ORDINARY:
		check_ordinary(e);
		break;
	case GCFS_NAME_LONG:
		check_long(e);
		break;
	case GCFS_NAME_LONG_TEXT:
		check_long_text(e);
		break;
	case GCFS_NAME_INTERNAL:
		check_leftover(e);
		break;
	}
}

/* ---- reading directories ---- */

static bool entry_type(struct entry *e, unsigned char type)
{
	struct stat st;
	int r;

	e->type = type;
	if (type != DT_UNKNOWN)
		return true;
	r = store_stat(e->dir_fd, e->disk, &st);
	if (r < 0)
		check_unreadable(e->w->c, e->dir, e->disk, NULL, r);
	else
		e->type = IFTODT(st.st_mode);
	return r == 0;
}

/* size bytes of what getdents64(2) gave. */
static void check_entries(struct check_worker *w, struct check_node *node, int dir_fd, size_t size)
{
	struct entry e = {.w = w, .dir = node, .dir_fd = dir_fd};

	for (size_t at = 0; at < size && !check_stopped(w->c);) {
		const struct dirent64 *d = (const void *)(w->entries + at);

		at += d->d_reclen;
		e.disk = d->d_name;
		if (strcmp(e.disk, ".") == 0 || strcmp(e.disk, "..") == 0)
			continue;
		if (entry_type(&e, d->d_type))
			check_entry(&e);
	}
}

/* Where the last of these entries ends. */
static int64_t last_position(const char *entries, size_t size)
{
	int64_t position = 0;

	for (size_t at = 0; at < size;) {
		const struct dirent64 *d = (const void *)(entries + at);

		at += d->d_reclen;
		position = d->d_off;
	}
	return position;
}

/*
 * While there is much to read, the rest of the directory becomes a job of its own before these entries are
 * looked at: other threads go on with it, and as it lies below what these entries add, the queue stays short.
 */
static void read_entries(struct check_worker *w, struct check_node *node, int dir_fd)
{
	ssize_t n;

	while ((n = store_getdents(dir_fd, w->entries, ENTRIES_ROOM)) > 0) {
		bool much = n > ENTRIES_ROOM / 2;

		if (much)
			check_push(w->c, job_new(node, last_position(w->entries, (size_t)n)));
		check_entries(w, node, dir_fd, (size_t)n);
		if (much || check_stopped(w->c))
			return;
	}
	if (n < 0)
		check_unreadable(w->c, node, NULL, NULL, (int)n);
}

void check_walk_job(struct check_worker *w, struct check_job *job)
{
	struct check_node *node = job->node;
	autofd int fd = open_node(node);
	uint64_t unused;

	if (fd < 0) {
		check_unreadable(w->c, node, NULL, NULL, fd);
		return;
	}
	if (job->position == 0) {
		atomic_fetch_add(&w->c->directories, 1);
		if (node->fd < 0)
			keep_open(w->c, node, fd);
		check_iv(w->c, node, fd);
		check_xattrs(w, node, fd, NULL, NULL);
	} else if (store_seek(fd, (uint64_t)job->position, SEEK_SET, &unused) < 0) {
		check_unreadable(w->c, node, NULL, NULL, -EIO);
		return;
	}
	read_entries(w, node, fd);
}
