/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "control_client.h"
#include "mountinfo.h"
#include "oci_hook_impl.h"
#include "self.h"
#include "util.h"

#define USER_PREFIX "user."

enum { ASK_MS = 5000, TARGET_SIZE = OCI_PATH_SIZE + OCI_NAME_SIZE + 8 };

/* One mount, with its directory locked. */
struct place {
	const struct oci_mounts *mounts;
	char name[OCI_NAME_SIZE];
	char target[TARGET_SIZE];
	int fd;
};

static void cleanup_place(struct place *p)
{
	cleanup_close(&p->fd);
}
#define autoplace __attribute__((cleanup(cleanup_place)))

/* ---- the directories ---- */

int oci_mounts_open(const char *config_file, struct oci_mounts *ret, struct error *err)
{
	struct runtime rt = RUNTIME_NONE;
	struct oci_mounts m = {.config_file = config_file, .fd = -1};
	int r = runtime_open(true, &rt, err), n;

	if (r < 0)
		return r;
	/* rt.path ends in "mounts". */
	n = snprintf(m.path, sizeof(m.path), "%.*soci", (int)(strlen(rt.path) - strlen("mounts")), rt.path);
	if (n >= (int)sizeof(m.path))
		r = -ENAMETOOLONG;
	else if (mkdirat(rt.mounts_fd, "../oci", 0700) < 0 && errno != EEXIST)
		r = -errno;
	else
		m.fd = openat(rt.mounts_fd, "../oci", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (r == 0 && m.fd < 0)
		r = -errno;
	runtime_close(&rt);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot open %s", m.path);
	*ret = m;
	return 0;
}

void oci_mounts_close(struct oci_mounts *mounts)
{
	cleanup_close(&mounts->fd);
	mounts->fd = -1;
}

/* Is the directory behind fd still the one of that name? Whoever had it locked before may have removed it. */
static bool is_still(const struct place *p, int fd)
{
	struct stat is, was;

	return fstat(fd, &was) == 0 && fstatat(p->mounts->fd, p->name, &is, AT_SYMLINK_NOFOLLOW) == 0 &&
	       is.st_dev == was.st_dev && is.st_ino == was.st_ino;
}

/* Waits for others. -ENOENT where it is not made. */
static int place_lock(const struct oci_mounts *mounts, const char *name, bool create, struct place *ret)
{
	struct place p = {.mounts = mounts, .fd = -1};

	snprintf(p.name, sizeof(p.name), "%s", name);
	snprintf(p.target, sizeof(p.target), "%s/%s/mnt", mounts->path, name);
	for (;;) {
		autofd int fd = -1;

		if (create && mkdirat(mounts->fd, name, 0700) < 0 && errno != EEXIST)
			return -errno;
		fd = openat(mounts->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT && create)
			continue; /* removed in between */
		if (fd < 0)
			return -errno;
		while (flock(fd, LOCK_EX) < 0)
			if (errno != EINTR)
				return -errno;
		if (!is_still(&p, fd))
			continue;
		p.fd = steal_fd(&fd);
		*ret = p;
		return 0;
	}
}

/* ---- users ---- */

static void user_file(const char *id, char name[OCI_ID_SIZE + 8])
{
	snprintf(name, OCI_ID_SIZE + 8, USER_PREFIX "%s", id);
}

static int user_write(const struct place *p, const struct oci_user *user)
{
	char name[OCI_ID_SIZE + 8], text[64];
	autofd int fd = -1;
	int n = snprintf(text, sizeof(text), "%d %llu\n", (int)user->pid, (unsigned long long)user->start);

	user_file(user->id, name);
	fd = openat(p->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : write_full(fd, text, (size_t)n);
}

/* -ENOENT: it is no user; -EBADMSG: who wrote it was killed meanwhile. */
static int user_read(const struct place *p, const char *id, struct oci_user *ret)
{
	struct oci_user user = {.pid = 0};
	char name[OCI_ID_SIZE + 8], text[64], *start;
	autofd int fd = -1;
	uint64_t pid;
	ssize_t n;

	user_file(id, name);
	fd = openat(p->fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read_full(fd, text, sizeof(text) - 1);
	if (n <= 0 || text[n - 1] != '\n')
		return -EBADMSG;
	text[n - 1] = '\0';
	start = strchr(text, ' ');
	if (!start)
		return -EBADMSG;
	*start++ = '\0';
	if (parse_u64(text, INT32_MAX, &pid) < 0 || parse_u64(start, UINT64_MAX, &user.start) < 0)
		return -EBADMSG;
	user.pid = (pid_t)pid;
	snprintf(user.id, sizeof(user.id), "%s", id);
	*ret = user;
	return 0;
}

static void user_remove(const struct place *p, const char *id)
{
	char name[OCI_ID_SIZE + 8];

	user_file(id, name);
	unlinkat(p->fd, name, 0);
}

/* How many but this one use it and have not ended? remove: instead takes out all, as nobody does. */
static unsigned users_others(const struct place *p, const char *except, bool remove)
{
	int fd = openat(p->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	autodir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct oci_user user;
	struct dirent *e;
	unsigned n = 0;

	if (!dir) {
		cleanup_close(&fd);
		return 1; /* rather mounted for nobody than unmounted for somebody */
	}
	while ((e = readdir(dir))) {
		const char *id = e->d_name + strlen(USER_PREFIX);

		if (strncmp(e->d_name, USER_PREFIX, strlen(USER_PREFIX)) != 0 || strlen(id) >= OCI_ID_SIZE)
			continue;
		if (remove)
			user_remove(p, id);
		else if (strcmp(id, except) != 0 && user_read(p, id, &user) == 0 && oci_user_alive(&user))
			n++;
	}
	return n;
}

/* ---- mounting ---- */

static int run_umount(const struct place *p, bool lazy, char said[SELF_SAID_MAX])
{
	autoself struct self_args a = {.n = 0};

	self_add(&a, "umount");
	if (lazy)
		self_add(&a, "--lazy");
	self_add(&a, "--");
	self_add(&a, p->target);
	return self_run(&a, said);
}

static int place_umount(const struct place *p, struct error *err)
{
	char said[SELF_SAID_MAX];
	int status = run_umount(p, false, said);

	/* Somebody of the host is in there, who cannot keep it from its end. */
	if (status == EXIT_STATUS_BUSY)
		status = run_umount(p, true, said);
	if (status == EXIT_STATUS_DONE || status == EXIT_STATUS_NO_VOLUME)
		return 0;
	return self_error(status, said, "cannot unmount the volume", err);
}

/* ckrfs mount [--config FILE] [-o name=MOUNT] [-o ro] -- VOLUME TARGET */
static int place_mount(const struct place *p, const struct oci_volume *volume, const struct config *cfg,
		       struct error *err)
{
	bool own = cfg->scope == CONFIG_SCOPE_CONTAINER;
	autoself struct self_args a = {.n = 0};
	char name[OCI_NAME_SIZE + 8], said[SELF_SAID_MAX];
	int status;

	if (mkdirat(p->fd, "mnt", 0700) < 0 && errno != EEXIST)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot make %s", p->target);
	snprintf(name, sizeof(name), "name=%s", p->name);
	self_add(&a, "mount");
	if (p->mounts->config_file) {
		self_add(&a, "--config");
		self_add(&a, p->mounts->config_file);
	}
	if (own) {
		self_add(&a, "-o");
		self_add(&a, name);
	}
	/* Several that only read go together; where the mount is shared, others may write. */
	if (own && volume->read_only) {
		self_add(&a, "-o");
		self_add(&a, "ro");
	}
	self_add(&a, "--");
	self_add(&a, volume->name);
	self_add(&a, p->target);
	status = self_run(&a, said);
	if (status == EXIT_STATUS_DONE)
		return 0;
	self_error(status, said, "cannot mount the volume", err);
	if (own && err->status == EXIT_STATUS_BUSY && !cfg->shared)
		error_hint(err, "ckrfs config --show %s    # several containers at once need shared = yes",
			   volume->name);
	return err->code;
}

/* Who has it mounted: *ret_target, empty if nobody has, or nobody serves it any more. */
static int place_look(const struct place *p, char ret_target[4096], struct error *err)
{
	struct message_request request = {.command = MESSAGE_STATUS};
	struct control_mount m = CONTROL_MOUNT_NONE;
	struct error local = ERROR_NONE;
	struct message_status status;
	int r = control_client_find(p->name, &m, &local);

	ret_target[0] = '\0';
	if (r == -ENOENT)
		return 0;
	if (r == 0 && m.alive)
		r = control_client_ask(&m.runtime, m.name, &request, ASK_MS, &status, &local);
	control_client_close(&m);
	if (r < 0 && r != -ECONNREFUSED && r != -ECONNRESET && r != -ENOENT) {
		*err = local;
		return r;
	}
	if (r < 0 || !m.alive || strcmp(status.state, "failed") == 0) {
		if (strcmp(m.record.target, p->target) == 0 || !m.record.target[0])
			return place_umount(p, err);
		error_set(err, -ESTALE, EXIT_STATUS_FAILED, "\"%s\" on %s is served by nobody any more",
			  p->name, m.record.target);
		error_hint(err, "ckrfs umount %s", p->name);
		return -ESTALE;
	}
	if (strcmp(status.state, "locked") == 0) {
		error_set(err, -ENOKEY, EXIT_STATUS_NO_KEY, "\"%s\" is locked", p->name);
		error_hint(err, "ckrfs unlock %s", p->name);
		return -ENOKEY;
	}
	memcpy(ret_target, status.target, sizeof(status.target));
	return 0;
}

/* Somebody else's mount: is it one that stays as long as he wants? */
static int check_other(const struct place *p, const char *target, struct error *err)
{
	size_t base = strlen(p->mounts->path) - strlen("oci");

	if (strncmp(target, p->mounts->path, base) != 0 || strncmp(target + base, "volumes/", 8) != 0)
		return 0;
	error_set(err, -EBUSY, EXIT_STATUS_BUSY,
		  "\"%s\" is mounted for the volume plugin, and will be unmounted with its last container",
		  p->name);
	error_hint(err, "ckrfs status %s", p->name);
	return -EBUSY;
}

static int clone_mount(const struct place *p, const char *target, int *ret_fd, struct error *err)
{
	int fd;

	/* Else it would be a clone of what is below, and files would be written there in clear. */
	if (!mountinfo_is_ours(target, p->name))
		return error_set(err, -EXDEV, EXIT_STATUS_FAILED,
				 "its runtime does not see the mount on %s: it has another mount namespace",
				 target);
	fd = open_tree(AT_FDCWD, target, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);
	if (fd < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot clone the mount on %s", target);
	*ret_fd = fd;
	return 0;
}

/* Noted before it is mounted: whatever ends this process, it will be unmounted. */
static int take_own(const struct place *p, const struct oci_user *user, const struct oci_volume *volume,
		    const struct config *cfg, bool mounted, int *ret_tree_fd, struct error *err)
{
	int r = user_write(p, user);

	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot write into %s", p->mounts->path);
	if (!mounted)
		r = place_mount(p, volume, cfg, err);
	return r < 0 ? r : clone_mount(p, p->target, ret_tree_fd, err);
}

int oci_mounts_take(const struct oci_mounts *mounts, const struct oci_user *user,
		    const struct oci_volume *volume, const struct config *cfg, int *ret_tree_fd,
		    struct error *err)
{
	autoplace struct place p = {.fd = -1};
	char name[OCI_NAME_SIZE], target[4096];
	int r = 0;

	snprintf(name, sizeof(name), "%s", volume->name);
	if (cfg->scope == CONFIG_SCOPE_CONTAINER)
		r = oci_mount_name(volume->name, user->id, name, err);
	if (r < 0)
		return r;
	r = place_lock(mounts, name, true, &p);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot lock %s/%s", mounts->path, name);
	r = place_look(&p, target, err);
	if (r == 0 && (!target[0] || strcmp(target, p.target) == 0))
		return take_own(&p, user, volume, cfg, target[0] != '\0', ret_tree_fd, err);
	if (r == 0)
		r = check_other(&p, target, err);
	if (r == 0)
		r = clone_mount(&p, target, ret_tree_fd, err);
	/* Nothing of ours is there. */
	unlinkat(mounts->fd, name, AT_REMOVEDIR);
	return r;
}

/* ---- the end ---- */

static int release_place(const struct oci_mounts *mounts, const char *name, const struct oci_user *user,
			 struct error *err)
{
	autoplace struct place p = {.fd = -1};
	struct oci_user noted;
	int r = place_lock(mounts, name, false, &p);

	if (r < 0)
		return r == -ENOENT ? 0 : error_errno(err, r, EXIT_STATUS_FAILED, "cannot lock %s", name);
	r = user_read(&p, user->id, &noted);
	/* The same ID has begun another life. */
	if (r == 0 && oci_user_alive(&noted) && (user->pid != noted.pid || user->start != noted.start))
		return 0;
	if (users_others(&p, user->id, false) > 0) {
		user_remove(&p, user->id);
		return 0;
	}
	/* Noted until it is done. */
	r = place_umount(&p, err);
	if (r == 0)
		users_others(&p, "", true);
	if (r == 0 && unlinkat(p.fd, "mnt", AT_REMOVEDIR) < 0 && errno != ENOENT)
		r = error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot remove %s", p.target);
	if (r == 0)
		unlinkat(mounts->fd, name, AT_REMOVEDIR);
	return r;
}

/* Does the container use it? Asked without the lock, which others may have for long. */
static bool is_user(const struct oci_mounts *mounts, const char *name, const char *id)
{
	char file[OCI_NAME_SIZE + OCI_ID_SIZE + 256];

	snprintf(file, sizeof(file), "%s/" USER_PREFIX "%s", name, id);
	return faccessat(mounts->fd, file, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int oci_mounts_release(const struct oci_mounts *mounts, const struct oci_user *user, struct error *err)
{
	int fd = openat(mounts->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), result = 0;
	autodir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		cleanup_close(&fd);
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot read %s", mounts->path);
	}
	while ((e = readdir(dir))) {
		struct error local = ERROR_NONE;
		int r = 0;

		if (config_mount_name_valid(e->d_name) && is_user(mounts, e->d_name, user->id))
			r = release_place(mounts, e->d_name, user, &local);
		if (r < 0 && result == 0) {
			result = r;
			*err = local;
		}
	}
	return result;
}
