/* SPDX-License-Identifier: MIT */
/*
 * The volumes that engines created, in /var/lib/ckrfs/volumes, and how often each is mounted, in
 * /run/ckrfs/plugin, which is empty after a boot as the mount table is. One file each, exchanged whole by
 * rename(2). What is read is checked, as somebody may have edited it, or put it back from elsewhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "log.h"
#include "runtime.h"
#include "util.h"
#include "volume_plugin_impl.h"

#define VOLUMES_DEFAULT "/var/lib/ckrfs/volumes"

/* ---- directories ---- */

static int check_private(int fd, const char *path, struct error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot look at %s", path);
	if ((st.st_uid == geteuid() || st.st_uid == 0) && !(st.st_mode & 022))
		return 0;
	error_set(err, -EPERM, EXIT_STATUS_CONFIG,
		  "%s can be written by others (uid %u, mode %04o): what is in there decides what is mounted",
		  path, (unsigned)st.st_uid, (unsigned)st.st_mode & 07777);
	error_hint(err, "chown root %s && chmod 700 %s", path, path);
	return -EPERM;
}

static int open_dir(const char *path, int *ret_fd, struct error *err)
{
	autofd int fd = -1;
	int r;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot make %s", path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot open %s", path);
	r = check_private(fd, path, err);
	if (r == 0)
		*ret_fd = steal_fd(&fd);
	return r;
}

/* Makes the directories above path that are missing. */
static void make_above(const char *path)
{
	char copy[PLUGIN_PATH_SIZE];

	snprintf(copy, sizeof(copy), "%s", path);
	for (char *p = copy + 1; (p = strchr(p, '/')); *p++ = '/') {
		*p = '\0';
		mkdir(copy, 0755); /* if it fails, so will what comes next */
	}
}

/* BASE/NAME, where base ends in "/mounts". */
static int beside(const struct runtime *rt, const char *name, char ret[PLUGIN_PATH_SIZE])
{
	size_t n = strlen(rt->path) - strlen("mounts");

	return snprintf(ret, PLUGIN_PATH_SIZE, "%.*s%s", (int)n, rt->path, name) < PLUGIN_PATH_SIZE
		       ? 0
		       : -ENAMETOOLONG;
}

static int open_runtime(struct plugin_store *s, struct error *err)
{
	struct runtime rt = RUNTIME_NONE;
	autofd int mounts_fd = -1;
	int r = runtime_open(true, &rt, err);

	if (r < 0)
		return r;
	if (beside(&rt, "plugin", s->counts_path) < 0 || beside(&rt, "volumes", s->mounts_path) < 0)
		r = error_set(err, -ENAMETOOLONG, EXIT_STATUS_CONFIG,
			      "the runtime directory has a long name");
	runtime_close(&rt);
	if (r == 0)
		r = open_dir(s->counts_path, &s->counts_fd, err);
	return r == 0 ? open_dir(s->mounts_path, &mounts_fd, err) : r;
}

int plugin_store_open(const char *volumes_path, struct plugin_store *ret, struct error *err)
{
	struct plugin_store s = {.volumes_fd = -1, .counts_fd = -1};
	int r;

	snprintf(s.volumes_path, sizeof(s.volumes_path), "%s", volumes_path ? volumes_path : VOLUMES_DEFAULT);
	make_above(s.volumes_path);
	r = open_dir(s.volumes_path, &s.volumes_fd, err);
	if (r == 0)
		r = open_runtime(&s, err);
	if (r < 0) {
		plugin_store_close(&s);
		return r;
	}
	*ret = s;
	return 0;
}

void plugin_store_close(struct plugin_store *s)
{
	cleanup_close(&s->volumes_fd);
	cleanup_close(&s->counts_fd);
	s->volumes_fd = s->counts_fd = -1;
}

/* ---- one file ---- */

/* "NAME.tmp" is no volume's file, though it could be a volume's name: volumes have "NAME.volume". */
static void file_name(const char *name, const char *suffix, char ret[PLUGIN_NAME_SIZE + 16])
{
	snprintf(ret, PLUGIN_NAME_SIZE + 16, "%s.%s", name, suffix);
}

static int write_file(int dir_fd, const char *name, const char *text)
{
	autofd int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	int r;

	if (fd < 0)
		return -errno;
	r = write_full(fd, text, strlen(text));
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	return r;
}

static int replace_file(int dir_fd, const char *name, const char *suffix, const char *text)
{
	char file[PLUGIN_NAME_SIZE + 16], temporary[PLUGIN_NAME_SIZE + 16];
	int r;

	file_name(name, suffix, file);
	file_name(name, "tmp", temporary);
	r = write_file(dir_fd, temporary, text);
	if (r == 0 && renameat2(dir_fd, temporary, dir_fd, file, 0) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(dir_fd, temporary, 0);
	else if (fsync(dir_fd) < 0)
		r = -errno;
	return r;
}

static int read_file(int dir_fd, const char *file, char **ret_text, size_t *ret_size)
{
	autofd int fd = openat(dir_fd, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	autofree char *text = NULL;
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || (st.st_uid != geteuid() && st.st_uid != 0) || (st.st_mode & 022))
		return -EPERM;
	text = malloc(PLUGIN_RECORD_MAX + 1);
	n = text ? read_full(fd, text, PLUGIN_RECORD_MAX + 1) : -ENOMEM;
	if (n < 0)
		return (int)n;
	if (n > PLUGIN_RECORD_MAX)
		return -EFBIG;
	*ret_text = steal_ptr(&text);
	*ret_size = (size_t)n;
	return 0;
}

/* ---- all of them ---- */

/* The name in "NAME.volume"; false: another kind of file. */
static bool volume_of_file(const char *file, char name[PLUGIN_NAME_SIZE])
{
	const char *dot = strrchr(file, '.');
	size_t n = dot ? (size_t)(dot - file) : 0;

	if (!dot || strcmp(dot, ".volume") != 0 || n >= PLUGIN_NAME_SIZE)
		return false;
	memcpy(name, file, n);
	name[n] = '\0';
	return config_name_valid(name);
}

static int load_volume(const struct plugin_store *s, const char *file, const char *name,
		       struct plugin_volume *ret)
{
	autofree char *text = NULL;
	size_t size;
	int r = read_file(s->volumes_fd, file, &text, &size);

	if (r == 0)
		r = plugin_volume_parse(text, size, ret);
	return r == 0 && strcmp(ret->name, name) != 0 ? -EBADMSG : r;
}

static void load_count(const struct plugin_store *s, const char *name, struct plugin_count *ret)
{
	char file[PLUGIN_NAME_SIZE + 16];
	autofree char *text = NULL;
	size_t size;
	int r;

	*ret = (struct plugin_count){0};
	file_name(name, "count", file);
	r = read_file(s->counts_fd, file, &text, &size);
	if (r == 0)
		r = plugin_count_parse(text, size, ret);
	/* It may be mounted: with one mount too many it stays so until it is unmounted by hand. */
	if (r < 0 && r != -ENOENT) {
		log_msg(LOG_LEVEL_WARNING, "%s/%s is damaged (%s): taken as one mount [CK132]",
			s->counts_path, file, strerror(-r));
		ret->mounts = 1;
	}
}

static bool is_temporary(const char *file)
{
	const char *dot = strrchr(file, '.');

	return dot && strcmp(dot, ".tmp") == 0;
}

/* What a crash left half written. */
static void clean(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	autodir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir)
		cleanup_close(&fd);
	while (dir && (e = readdir(dir)))
		if (is_temporary(e->d_name))
			unlinkat(dir_fd, e->d_name, 0);
}

int plugin_store_load(const struct plugin_store *s,
		      int (*each)(void *ctx, const struct plugin_volume *v, const struct plugin_count *c),
		      void *ctx, struct error *err)
{
	int fd = openat(s->volumes_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	autodir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		r = -errno;
		cleanup_close(&fd);
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot read %s", s->volumes_path);
	}
	clean(s->volumes_fd);
	clean(s->counts_fd);
	while (r == 0 && (errno = 0, e = readdir(dir))) {
		char name[PLUGIN_NAME_SIZE];
		struct plugin_volume v;
		struct plugin_count c;
		int loaded;

		if (!volume_of_file(e->d_name, name))
			continue;
		loaded = load_volume(s, e->d_name, name, &v);
		if (loaded < 0) {
			log_msg(LOG_LEVEL_WARNING, "%s/%s is no volume of the plugin (%s): left out [CK133]",
				s->volumes_path, e->d_name, strerror(-loaded));
			continue;
		}
		load_count(s, name, &c);
		r = each(ctx, &v, &c);
	}
	if (r == 0 && errno)
		r = -errno;
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot read %s", s->volumes_path) : 0;
}

bool plugin_store_has_file(const struct plugin_store *s, const char *name)
{
	char file[PLUGIN_NAME_SIZE + 16];

	file_name(name, "volume", file);
	return faccessat(s->volumes_fd, file, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* ---- changing ---- */

int plugin_store_put_volume(const struct plugin_store *s, const struct plugin_volume *v, struct error *err)
{
	autofree char *text = NULL;
	int r = plugin_volume_format(v, &text);

	if (r == 0)
		r = replace_file(s->volumes_fd, v->name, "volume", text);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot write the volume to %s",
				   s->volumes_path)
		     : 0;
}

int plugin_store_remove_volume(const struct plugin_store *s, const char *name, struct error *err)
{
	char file[PLUGIN_NAME_SIZE + 16], mountpoint[PLUGIN_PATH_SIZE + PLUGIN_NAME_SIZE];

	file_name(name, "volume", file);
	if ((unlinkat(s->volumes_fd, file, 0) < 0 && errno != ENOENT) || fsync(s->volumes_fd) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot remove the volume from %s",
				   s->volumes_path);
	file_name(name, "count", file);
	unlinkat(s->counts_fd, file, 0);
	/* The mount point: it is empty, or it stays. */
	snprintf(mountpoint, sizeof(mountpoint), "%s/%s", s->mounts_path, name);
	rmdir(mountpoint);
	return 0;
}

int plugin_store_put_count(const struct plugin_store *s, const char *name, const struct plugin_count *c,
			   struct error *err)
{
	char file[PLUGIN_NAME_SIZE + 16];
	autofree char *text = NULL;
	int r;

	if (c->mounts == 0) {
		file_name(name, "count", file);
		r = unlinkat(s->counts_fd, file, 0) < 0 && errno != ENOENT ? -errno : 0;
	} else {
		r = plugin_count_format(c, &text);
		if (r == 0)
			r = replace_file(s->counts_fd, name, "count", text);
	}
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot write how often it is mounted to %s",
				   s->counts_path)
		     : 0;
}
