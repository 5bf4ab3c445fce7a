/* SPDX-License-Identifier: MIT */
#include "quarantine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/xattr.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "jsontext.h"
#include "store.h"
#include "util.h"

enum { LOG_SIZE_MAX = 256 << 20, DEPTH_MAX = 4, ATTRIBUTE_MAX = 65536 };

struct quarantine {
	int root_fd, parent_fd; /* borrowed */
	int dir_fd, log_fd;     /* -1: not made yet */
	char *name, *where, *log;
	unsigned next; /* number of the next object */
};

/* ---- places ---- */

int quarantine_parent(int root_fd, const char *path, const char **ret_last)
{
	autofd int fd = store_open_dir(root_fd, ".");

	while (fd >= 0) {
		size_t n = strcspn(path, "/");
		char part[NAME_MAX + 1];
		int next;

		if (n == 0 || n > NAME_MAX)
			return -EINVAL;
		memcpy(part, path, n);
		part[n] = '\0';
		if (strcmp(part, ".") == 0 || strcmp(part, "..") == 0)
			return -EINVAL;
		if (!path[n])
			break;
		next = store_open_dir(fd, part);
		close(fd);
		fd = next;
		path += n + 1;
	}
	if (fd >= 0)
		*ret_last = path;
	return steal_fd(&fd);
}

/* Renames without replacing, also where the file system has no RENAME_NOREPLACE; then both places on disk. */
static int rename_safely(int from_fd, const char *from, int to_fd, const char *to)
{
	struct stat st;
	int r = store_rename(from_fd, from, to_fd, to, RENAME_NOREPLACE);

	if (r == -EINVAL || r == -ENOSYS) {
		r = store_stat(to_fd, to, &st);
		if (r == 0)
			return -EEXIST;
		r = r == -ENOENT ? store_rename(from_fd, from, to_fd, to, 0) : r;
	}
	if (r == 0)
		r = store_fsync(to_fd, false);
	if (r == 0)
		r = store_fsync(from_fd, false);
	return r;
}

/* ---- the log ---- */

int quarantine_new(int root_fd, int parent_fd, const char *name, const char *where, struct quarantine **ret)
{
	struct quarantine *q = calloc(1, sizeof(*q));

	if (!q)
		return -ENOMEM;
	q->root_fd = root_fd;
	q->parent_fd = parent_fd;
	q->dir_fd = q->log_fd = -1;
	q->name = strdup(name);
	q->where = strdup(where);
	if (!q->name || !q->where) {
		quarantine_free(q);
		return -ENOMEM;
	}
	*ret = q;
	return 0;
}

void quarantine_free(struct quarantine *q)
{
	if (!q)
		return;
	cleanup_close(&q->dir_fd);
	cleanup_close(&q->log_fd);
	free(q->name);
	free(q->where);
	free(q->log);
	free(q);
}

const char *quarantine_log(const struct quarantine *q)
{
	return q->log;
}

/* The directory and its log, on disk. */
static int make_place(struct quarantine *q)
{
	int r;

	if (q->log)
		return 0;
	r = store_mkdir(q->parent_fd, q->name, 0700);
	if (r < 0 && r != -EEXIST)
		return r;
	q->dir_fd = store_open_dir(q->parent_fd, q->name);
	if (q->dir_fd < 0)
		return q->dir_fd;
	q->log_fd = store_open(q->dir_fd, QUARANTINE_LOG, O_WRONLY | O_CREAT | O_EXCL | O_APPEND, 0600);
	if (q->log_fd < 0)
		return q->log_fd;
	r = store_fsync(q->dir_fd, false);
	if (r == 0)
		r = store_fsync(q->parent_fd, false);
	if (r == 0 && asprintf(&q->log, "%s/" QUARANTINE_LOG, q->where) < 0) {
		q->log = NULL;
		r = -ENOMEM;
	}
	return r;
}

/* One line, on disk when this returns. */
static int log_line(struct quarantine *q, struct json_object *o)
{
	const char *json =
		json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
	autofree char *line = NULL;
	int r, size;

	size = json ? asprintf(&line, "%s\n", json) : -1;
	if (size < 0) {
		line = NULL;
		return -ENOMEM;
	}
	r = write_full(q->log_fd, line, (size_t)size);
	return r < 0 ? r : store_fsync(q->log_fd, false);
}

static void add_path(struct json_object *o, const char *member, const char *path)
{
	autofree char *text = finding_escape(path);

	if (text)
		json_object_object_add(o, member, json_object_new_string(text));
}

/* A line for that, with the time; NULL when there is no memory. */
static struct json_object *new_line(const char *action, const char *path)
{
	struct json_object *o = json_object_new_object();
	struct tm tm;
	time_t now = time(NULL);
	char when[32] = "";

	if (!o)
		return NULL;
	if (gmtime_r(&now, &tm))
		strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
	json_object_object_add(o, "time", json_object_new_string(when));
	json_object_object_add(o, "action", json_object_new_string(action));
	add_path(o, "path", path);
	return o;
}

int quarantine_note(struct quarantine *q, const struct finding *f)
{
	autojson struct json_object *o = new_line("found", f->path);
	int r = make_place(q);

	if (r < 0 || !o)
		return r < 0 ? r : -ENOMEM;
	json_object_object_add(o, "kind", json_object_new_string(finding_word(f->kind)));
	json_object_object_add(o, "what", json_object_new_string(finding_what(f->kind)));
	if (f->blocks) {
		json_object_object_add(o, "first_block", json_object_new_uint64(f->first_block));
		json_object_object_add(o, "blocks", json_object_new_uint64(f->blocks));
	}
	return log_line(q, o);
}

int quarantine_move(struct quarantine *q, const char *path)
{
	autojson struct json_object *o = new_line("move", path);
	const char *last;
	char to[16];
	struct stat st;
	autofd int fd = quarantine_parent(q->root_fd, path, &last);
	int r = fd < 0 ? fd : store_stat(fd, last, &st);

	if (r == 0)
		r = make_place(q);
	if (r < 0 || !o)
		return r < 0 ? r : -ENOMEM;
	snprintf(to, sizeof(to), "%u", ++q->next);
	json_object_object_add(o, "to", json_object_new_string(to));
	if (S_ISREG(st.st_mode))
		json_object_object_add(o, "size", json_object_new_int64(st.st_size));
	r = log_line(q, o);
	return r < 0 ? r : rename_safely(fd, last, q->dir_fd, to);
}

int quarantine_rename(struct quarantine *q, const char *path, const char *new_path)
{
	autojson struct json_object *o = new_line("rename", path);
	const char *last, *new_last;
	autofd int fd = quarantine_parent(q->root_fd, path, &last);
	autofd int new_fd = quarantine_parent(q->root_fd, new_path, &new_last);
	int r = fd < 0 ? fd : new_fd < 0 ? new_fd : make_place(q);

	if (r < 0 || !o)
		return r < 0 ? r : -ENOMEM;
	add_path(o, "to", new_path);
	r = log_line(q, o);
	return r < 0 ? r : rename_safely(fd, last, new_fd, new_last);
}

int quarantine_create(struct quarantine *q, const char *path, const char *text)
{
	autojson struct json_object *o = new_line("create", path);
	const char *last;
	autofd int fd = quarantine_parent(q->root_fd, path, &last);
	int r = fd < 0 ? fd : make_place(q);

	if (r < 0 || !o)
		return r < 0 ? r : -ENOMEM;
	json_object_object_add(o, "text", json_object_new_string(text));
	r = log_line(q, o);
	if (r == 0)
		r = store_write_file(fd, last, text, strlen(text), 0444, true);
	return r < 0 ? r : store_fsync(fd, false);
}

/* An fd of the object; reading its attributes takes no more than O_PATH. */
static int open_object(int root_fd, const char *path)
{
	const char *last;
	autofd int fd = -1;

	if (strcmp(path, ".") == 0)
		return store_open(root_fd, ".", O_PATH, 0);
	fd = quarantine_parent(root_fd, path, &last);
	return fd < 0 ? fd : store_open(fd, last, O_PATH, 0);
}

int quarantine_take_attribute(struct quarantine *q, const char *path, const char *attribute)
{
	autojson struct json_object *o = new_line("attribute", path);
	autofree uint8_t *value = malloc(ATTRIBUTE_MAX);
	autofree char *text = malloc(base64_encoded_size(ATTRIBUTE_MAX));
	autofd int fd = open_object(q->root_fd, path);
	ssize_t n;
	int r;

	if (fd < 0 || !value || !text || !o)
		return fd < 0 ? fd : -ENOMEM;
	n = store_getxattr(fd, attribute, value, ATTRIBUTE_MAX);
	r = n < 0 ? (int)n : make_place(q);
	if (r < 0)
		return r;
	base64_encode(BASE64_STD, value, (size_t)n, text);
	add_path(o, "attribute", attribute);
	json_object_object_add(o, "value", json_object_new_string(text));
	r = log_line(q, o);
	return r < 0 ? r : store_removexattr(fd, attribute);
}

/* ---- the way back ---- */

/* One line of a log that somebody else may have written. */
struct record {
	const char *action;
	char *path, *to;
	const char *text, *value;
	char *attribute;
};

static const char *text_of(struct json_object *o, const char *member)
{
	struct json_object *value;

	if (!json_object_object_get_ex(o, member, &value) || !json_object_is_type(value, json_type_string))
		return NULL;
	return json_object_get_string(value);
}

static char *path_of(struct json_object *o, const char *member)
{
	const char *text = text_of(o, member);

	return text ? finding_unescape(text) : NULL;
}

static int undo_move(int root_fd, int dir_fd, const struct record *rec)
{
	struct stat st;
	const char *last;
	autofd int fd = -1;

	if (!rec->to || !*rec->to || rec->to[strspn(rec->to, "0123456789")])
		return -EBADMSG;
	if (store_stat(dir_fd, rec->to, &st) == -ENOENT)
		return 1;
	fd = quarantine_parent(root_fd, rec->path, &last);
	return fd < 0 ? fd : rename_safely(dir_fd, rec->to, fd, last);
}

static int undo_rename(int root_fd, const struct record *rec)
{
	const char *last, *to_last;
	autofd int fd = quarantine_parent(root_fd, rec->path, &last);
	autofd int to_fd = rec->to ? quarantine_parent(root_fd, rec->to, &to_last) : -EBADMSG;
	struct stat st;

	if (fd < 0 || to_fd < 0)
		return fd < 0 ? fd : to_fd;
	if (store_stat(fd, last, &st) == 0)
		return 1;
	return rename_safely(to_fd, to_last, fd, last);
}

/* Only what is still as it was made. */
static int undo_create(int root_fd, const struct record *rec)
{
	const char *last;
	autofd int fd = quarantine_parent(root_fd, rec->path, &last);
	char text[1024];
	ssize_t n;
	int r;

	if (fd < 0 || !rec->text)
		return fd < 0 ? fd : -EBADMSG;
	n = store_read_file(fd, last, text, sizeof(text));
	if (n == -ENOENT)
		return 1;
	if (n < 0 || (size_t)n != strlen(rec->text) || memcmp(text, rec->text, (size_t)n) != 0)
		return n < 0 ? (int)n : -EEXIST;
	r = store_unlink(fd, last);
	return r < 0 ? r : store_fsync(fd, false);
}

static int undo_attribute(int root_fd, const struct record *rec)
{
	static const char prefix[] = "user.gocryptfs.";
	autofree uint8_t *value = malloc(ATTRIBUTE_MAX);
	autofd int fd = open_object(root_fd, rec->path);
	ssize_t n;
	int r;

	if (fd < 0 || !value)
		return fd < 0 ? fd : -ENOMEM;
	if (!rec->value || !rec->attribute || strncmp(rec->attribute, prefix, strlen(prefix)) != 0)
		return -EBADMSG;
	n = base64_decode(BASE64_STD, rec->value, strlen(rec->value), value, ATTRIBUTE_MAX);
	if (n < 0)
		return -EBADMSG;
	r = store_setxattr(fd, rec->attribute, value, (size_t)n, XATTR_CREATE);
	return r == -EEXIST ? 1 : r;
}

/* 0; 1: it was not done at all; negative errno. */
static int undo_record(int root_fd, int dir_fd, const struct record *rec)
{
	if (!rec->action || !rec->path)
		return -EBADMSG;
	if (strcmp(rec->action, "found") == 0)
		return 1;
	if (strcmp(rec->action, "move") == 0)
		return undo_move(root_fd, dir_fd, rec);
	if (strcmp(rec->action, "rename") == 0)
		return undo_rename(root_fd, rec);
	if (strcmp(rec->action, "create") == 0)
		return undo_create(root_fd, rec);
	if (strcmp(rec->action, "attribute") == 0)
		return undo_attribute(root_fd, rec);
	return -EBADMSG;
}

static int undo_line(int root_fd, int dir_fd, const char *line, size_t size, unsigned *done)
{
	struct json_tokener *tok = json_tokener_new_ex(DEPTH_MAX);
	autojson struct json_object *o = tok ? json_tokener_parse_ex(tok, line, (int)size) : NULL;
	struct record rec;
	int r;

	if (tok)
		json_tokener_free(tok);
	if (!json_object_is_type(o, json_type_object))
		return -EBADMSG;
	rec = (struct record){
		.action = text_of(o, "action"),
		.path = path_of(o, "path"),
		.to = path_of(o, "to"),
		.text = text_of(o, "text"),
		.value = text_of(o, "value"),
		.attribute = path_of(o, "attribute"),
	};
	r = undo_record(root_fd, dir_fd, &rec);
	if (r == 0)
		++*done;
	free(rec.path);
	free(rec.to);
	free(rec.attribute);
	return r;
}

/* The lines from the last to the first. What a crash cut off in the middle was not done. */
static void undo_lines(int root_fd, int dir_fd, const char *log, size_t size, unsigned *done, unsigned *left)
{
	while (size > 0) {
		const char *before = size > 1 ? memrchr(log, '\n', size - 1) : NULL;
		size_t start = before ? (size_t)(before + 1 - log) : 0;

		if (log[size - 1] == '\n' && undo_line(root_fd, dir_fd, log + start, size - start, done) < 0)
			++*left;
		size = start;
	}
}

int quarantine_undo(int root_fd, int dir_fd, const char *log, unsigned *ret_done, unsigned *ret_left,
		    struct error *err)
{
	autofree char *text = NULL;
	unsigned done = 0, left = 0;
	struct stat st;
	ssize_t n = store_stat(dir_fd, log, &st);

	if (n == 0 && (!S_ISREG(st.st_mode) || st.st_size > LOG_SIZE_MAX))
		n = -EINVAL;
	if (n == 0) {
		text = malloc((size_t)st.st_size + 1);
		n = text ? store_read_file(dir_fd, log, text, (size_t)st.st_size) : -ENOMEM;
	}
	if (n < 0)
		return error_errno(err, (int)n, EXIT_STATUS_FAILED, "cannot read the log");
	if (n == 0 || !text || text[0] != '{')
		return error_set(err, -EBADMSG, EXIT_STATUS_FAILED, "this is not the log of a repair");
	undo_lines(root_fd, dir_fd, text, (size_t)n, &done, &left);
	if (!left)
		store_unlink(dir_fd, log);
	*ret_done = done;
	*ret_left = left;
	return 0;
}
