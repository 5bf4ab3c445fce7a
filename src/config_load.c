/* SPDX-License-Identifier: MIT */
/*
 * Reads the files, each by an fd that was checked: what others can write is refused. Who can write the
 * configuration can decide what is mounted, and run programs with key = exec:.
 */
#include "cleanup.h"
#include "config_impl.h"
#include "util.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

enum { CONFIG_FILE_MAX = 1 << 20 };

/* Whose files are fine besides root's. */
struct safety {
	uid_t uid;
	uid_t unmapped; /* owner that files of root have in a user namespace without root; else uid */
};

static int safety_check(const struct safety *safe, int fd, const char *path, bool sticky_ok,
			struct error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, EXIT_STATUS_CONFIG, "cannot read %s", path);
	if (st.st_uid != 0 && st.st_uid != safe->uid && st.st_uid != safe->unmapped) {
		error_set(err, -EPERM, EXIT_STATUS_CONFIG, "%s belongs to uid %u, not to root or to uid %u",
			  path, (unsigned)st.st_uid, (unsigned)safe->uid);
		error_hint(err, "chown root %s", path);
		return -EPERM;
	}
	if ((st.st_mode & 022) && !(sticky_ok && (st.st_mode & S_ISVTX))) {
		error_set(err, -EPERM, EXIT_STATUS_CONFIG, "%s can be written by others (mode %04o)", path,
			  (unsigned)st.st_mode & 07777);
		error_hint(err, "chmod go-w %s", path);
		return -EPERM;
	}
	return 0;
}

/* The directory's real place, for words. */
static void directory_path(int fd, const char *fallback, char *path, size_t size)
{
	char link[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, size - 1);
	if (n > 0)
		path[n] = '\0';
	else
		snprintf(path, size, "%s", fallback);
}

/*
 * The directory and all above it. Goes up by "..", not by names: nobody can exchange what was checked. Above,
 * a sticky directory (/tmp) is fine: others cannot rename what is ours there.
 */
static int safety_check_way(const struct safety *safe, int dir, const char *path, struct error *err)
{
	autofd int fd = fcntl(dir, F_DUPFD_CLOEXEC, 0);
	char where[PATH_MAX];
	struct stat st, up;
	int r = fd < 0 ? error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot read %s", path)
		       : safety_check(safe, fd, path, false, err);

	while (r == 0) {
		autofd int parent = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);

		if (parent < 0 || fstat(fd, &st) < 0 || fstat(parent, &up) < 0)
			return error_errno(err, -errno, EXIT_STATUS_CONFIG, "cannot look above %s", path);
		if (st.st_dev == up.st_dev && st.st_ino == up.st_ino)
			break;
		directory_path(parent, path, where, sizeof(where));
		r = safety_check(safe, parent, where, true, err);
		close(fd);
		fd = steal_fd(&parent);
	}
	return r;
}

static int file_parse(struct config_set *set, int fd, const char *path, struct error *err)
{
	autofree char *text = malloc(CONFIG_FILE_MAX + 1);
	ssize_t n = text ? read_full(fd, text, CONFIG_FILE_MAX + 1) : -ENOMEM;

	if (n < 0)
		return error_errno(err, (int)n, EXIT_STATUS_CONFIG, "cannot read %s", path);
	if (n > CONFIG_FILE_MAX)
		return error_set(err, -EFBIG, EXIT_STATUS_CONFIG, "%s is larger than 1 MiB", path);
	return config_parse(set, path, text, (size_t)n, err);
}

/* -ENOENT if there is none; everything else has filled err. */
static int file_load(struct config_set *set, const struct safety *safe, int dir, const char *base,
		     const char *path, struct error *err)
{
	autofd int fd = openat(dir, base, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;
	int r;

	if (fd < 0 && errno == ENOENT)
		return error_set(err, -ENOENT, EXIT_STATUS_CONFIG, "%s does not exist", path);
	if (fd < 0 && errno == ELOOP)
		return error_set(err, -ELOOP, EXIT_STATUS_CONFIG, "%s is a symbolic link: not followed",
				 path);
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, -errno, EXIT_STATUS_CONFIG, "cannot read %s", path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "%s is not a regular file", path);
	r = safety_check(safe, fd, path, false, err);
	return r < 0 ? r : file_parse(set, fd, path, err);
}

static int conf_d_filter(const struct dirent *d)
{
	size_t n = strlen(d->d_name);

	return d->d_name[0] != '.' && n > 5 && !strcmp(d->d_name + n - 5, ".conf");
}

/* Not alphasort(): that depends on the locale. */
static int conf_d_order(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int conf_d_load(struct config_set *set, const struct safety *safe, int parent, const char *parent_path,
		       struct error *err)
{
	autofd int dir = openat(parent, "conf.d", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	autofree char *path = NULL;
	struct dirent **list = NULL;
	int n, r;

	if (dir < 0 && errno == ENOENT)
		return 0;
	if (asprintf(&path, "%s/conf.d", parent_path) < 0) {
		path = NULL;
		return config_no_memory(err);
	}
	if (dir < 0)
		return error_errno(err, -errno, EXIT_STATUS_CONFIG, "cannot read %s", path);
	r = safety_check(safe, dir, path, false, err);
	if (r < 0)
		return r;
	n = scandirat(dir, ".", &list, conf_d_filter, conf_d_order);
	if (n < 0)
		return error_errno(err, -errno, EXIT_STATUS_CONFIG, "cannot read %s", path);
	for (int i = 0; i < n; i++) {
		autofree char *file = NULL;

		if (r == 0 && asprintf(&file, "%s/%s", path, list[i]->d_name) < 0) {
			file = NULL;
			r = config_no_memory(err);
		}
		if (r == 0)
			r = file_load(set, safe, dir, list[i]->d_name, file, err);
		free(list[i]);
	}
	free(list);
	return r;
}

/* The main file and its conf.d. optional: neither need exist. */
static int set_load(struct config_set *set, const struct safety *safe, const char *path, bool optional,
		    struct error *err)
{
	const char *slash = strrchr(path, '/');
	autofree char *dir_path = !slash ? strdup(".") : strndup(path, slash > path ? slash - path : 1);
	autofd int dir = dir_path ? open(dir_path, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	int r;

	if (!dir_path)
		return config_no_memory(err);
	if (dir < 0 && errno == ENOENT && optional)
		return 0;
	if (dir < 0)
		return error_errno(err, -errno, EXIT_STATUS_CONFIG, "cannot read %s", path);
	r = safety_check_way(safe, dir, dir_path, err);
	if (r == 0)
		r = file_load(set, safe, dir, slash ? slash + 1 : path, path, err);
	if (r == -ENOENT && optional)
		r = 0;
	return r < 0 ? r : conf_d_load(set, safe, dir, dir_path, err);
}

/* Does the directory hold anything to read? */
static bool has_config(const char *dir_path)
{
	autofd int dir = open(dir_path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	return dir >= 0 && (faccessat(dir, "ckrfs.conf", F_OK, AT_SYMLINK_NOFOLLOW) == 0 ||
			    faccessat(dir, "conf.d", F_OK, AT_SYMLINK_NOFOLLOW) == 0);
}

/* The file when none is named; malloc'ed, NULL without memory. */
static char *default_place(uid_t uid)
{
	const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	autofree char *dir = NULL;
	char *path;
	int n = 0;

	if (uid == 0 && !namespace_is_partial())
		return strdup(CONFIG_FILE_DEFAULT);
	if (xdg && *xdg == '/')
		n = asprintf(&dir, "%s/ckrfs", xdg);
	else if (home && *home == '/')
		n = asprintf(&dir, "%s/.config/ckrfs", home);
	if (n <= 0) {
		dir = NULL;
		return n < 0 ? NULL : strdup(CONFIG_FILE_DEFAULT);
	}
	if (!has_config(dir))
		return strdup(CONFIG_FILE_DEFAULT);
	return asprintf(&path, "%s/ckrfs.conf", dir) < 0 ? NULL : path;
}

const char *config_place(const struct config_set *set)
{
	return set->place;
}

/* missing_ok: it need not be there. */
static int load_one(const char *path, bool missing_ok, uid_t uid, struct config_set **ret, struct error *err)
{
	autoconfig_set struct config_set *set = NULL;
	struct safety safe = {.uid = uid, .unmapped = namespace_is_partial() ? 65534 : uid};
	struct error local = ERROR_NONE;
	int r = config_set_new(uid, &set, err);

	if (r < 0)
		return r;
	set->system = strcmp(path, CONFIG_FILE_DEFAULT) == 0;
	set->place = strdup(path);
	if (!set->place)
		return config_no_memory(err);
	r = set_load(set, &safe, path, missing_ok, &local);
	if (r < 0) {
		if (err)
			*err = local;
		return r;
	}
	*ret = steal_ptr(&set);
	return 0;
}

/* Who may not read the default files is not told what they say. */
static int load_limits(uid_t uid, struct config_set **ret, struct error *err)
{
	struct error local = ERROR_NONE;
	int r = load_one(CONFIG_FILE_DEFAULT, true, uid, ret, &local);

	if (r == -EACCES)
		return 0;
	if (r < 0 && err)
		*err = local;
	return r;
}

int config_load(const char *file, uid_t uid, struct config_set **ret, struct error *err)
{
	autoconfig_set struct config_set *set = NULL;
	autofree char *path = file ? strdup(file) : default_place(uid);
	int r = path ? load_one(path, !file, uid, &set, err) : config_no_memory(err);

	if (r == 0 && uid != 0 && !set->system)
		r = load_limits(uid, &set->limits, err);
	if (r == 0)
		*ret = steal_ptr(&set);
	return r;
}
