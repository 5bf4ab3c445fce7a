/* SPDX-License-Identifier: MIT */
#include "fusemount.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "mountinfo.h"
#include "util.h"

#define FUSERMOUNT "fusermount3"

static int target_busy(const char *target, const struct mountinfo *m, struct error *err)
{
	error_set(err, -EBUSY, EXIT_STATUS_BUSY, "\"%s\" is already mounted on %s", m->source, target);
	error_hint(err, "ckrfs umount %s", m->source);
	return -EBUSY;
}

static bool find_ours(const char *target, struct mountinfo *ret)
{
	return mountinfo_find(target, ret) == 0 && strcmp(ret->type, MOUNTINFO_TYPE) == 0;
}

int fusemount_check_target(const char *target, char ret_canonical[4096], struct error *err)
{
	struct mountinfo m;
	char path[4096];
	struct stat st;
	int code;

	if (!realpath(target, path)) {
		code = -errno;
		/* A dead mount answers nothing else. */
		if (code == -ENOTCONN && find_ours(target, &m))
			return target_busy(target, &m, err);
		error_errno(err, code, EXIT_STATUS_FAILED, "cannot use target %s", target);
		if (code == -ENOENT)
			error_hint(err, "mkdir -p %s", target);
		return code;
	}
	/* Asked before stat(2), which a dead mount may not answer. */
	if (find_ours(path, &m))
		return target_busy(path, &m, err);
	if (stat(path, &st) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot use target %s", target);
	if (!S_ISDIR(st.st_mode))
		return error_errno(err, -ENOTDIR, EXIT_STATUS_FAILED, "cannot use target %s", target);
	strcpy(ret_canonical, path);
	return 0;
}

/* ---- as root ---- */

static unsigned long mount_flags(const struct config *cfg)
{
	return (cfg->suid ? 0 : MS_NOSUID) | (cfg->dev ? 0 : MS_NODEV) | (cfg->exec ? 0 : MS_NOEXEC) |
	       (cfg->read_only ? MS_RDONLY : 0);
}

static int mount_as_root(const struct config *cfg, struct fusemount *m, struct error *err)
{
	autofd int target_fd = -1;
	char options[256], path[64];
	struct stat st;

	m->fuse_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (m->fuse_fd < 0) {
		int code = -errno;

		error_errno(err, code, EXIT_STATUS_UNSUPPORTED, "cannot open /dev/fuse");
		error_hint(err, "modprobe fuse");
		return code;
	}
	/* By fd, so that what was checked is what is mounted on. */
	target_fd = open(cfg->target, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (target_fd < 0 || fstat(target_fd, &st) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot use target %s", cfg->target);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", target_fd);
	snprintf(options, sizeof(options), "fd=%d,rootmode=%o,user_id=%u,group_id=%u%s%s", m->fuse_fd,
		 (unsigned)st.st_mode & S_IFMT, (unsigned)geteuid(), (unsigned)getegid(),
		 config_lower_decides(cfg) ? "" : ",default_permissions",
		 cfg->allow_other ? ",allow_other" : "");
	if (mount(cfg->name, path, MOUNTINFO_TYPE, mount_flags(cfg), options) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot mount on %s", cfg->target);
	return 0;
}

/* ---- by fusermount3, for everybody else ---- */

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return status;
}

/* Runs fusermount3 with what argv says; sock is where it sends the fd; -1: none, and its words go nowhere.
 * Returns its exit status or a negative errno. */
static int run_fusermount(char *const argv[], int sock)
{
	char comm[32];
	int status;
	pid_t pid;

	snprintf(comm, sizeof(comm), "%d", sock);
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		sigset_t none;

		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		if (sock >= 0) {
			fcntl(sock, F_SETFD, 0);
			setenv("_FUSE_COMMFD", comm, 1);
		} else {
			int null = open("/dev/null", O_RDWR);

			dup2(null, STDERR_FILENO);
		}
		execvp(argv[0], argv);
		_exit(127);
	}
	status = wait_for(pid);
	if (status < 0)
		return status;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -EIO;
}

static int receive_fd(int sock)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.room,
			     .msg_controllen = sizeof(control.room)};
	struct cmsghdr *c;
	ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	int fd;

	if (n < 0)
		return -errno;
	c = CMSG_FIRSTHDR(&msg);
	if (!c || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int)))
		return -EPROTO;
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

static int mount_by_helper(const struct config *cfg, struct fusemount *m, struct error *err)
{
	char program[] = FUSERMOUNT, dash_o[] = "-o", end[] = "--", options[256], target[4096];
	char *argv[] = {program, dash_o, options, end, target, NULL};
	int sv[2], r;

	snprintf(options, sizeof(options), "fsname=%s,subtype=ckrfs,default_permissions%s%s%s", cfg->name,
		 cfg->allow_other ? ",allow_other" : "", cfg->read_only ? ",ro" : "",
		 cfg->exec ? "" : ",noexec");
	snprintf(target, sizeof(target), "%s", cfg->target);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot mount on %s", cfg->target);
	r = run_fusermount(argv, sv[0]);
	close(sv[0]);
	if (r == 0)
		m->fuse_fd = receive_fd(sv[1]);
	close(sv[1]);
	if (r == 127)
		return error_set(err, -ENOENT, EXIT_STATUS_UNSUPPORTED,
				 "cannot mount on %s: " FUSERMOUNT
				 " is not installed, and only root mounts without",
				 cfg->target);
	if (r != 0 || m->fuse_fd < 0)
		return error_set(err, -EPERM, EXIT_STATUS_FAILED,
				 "cannot mount on %s: " FUSERMOUNT " refused, see above", cfg->target);
	m->by_helper = true;
	return 0;
}

int fusemount_mount(const struct config *cfg, struct fusemount *ret, struct error *err)
{
	struct fusemount m = FUSEMOUNT_NONE;
	struct mountinfo info;
	int r;

	snprintf(m.target, sizeof(m.target), "%s", cfg->target);
	snprintf(m.name, sizeof(m.name), "%s", cfg->name);
	r = geteuid() == 0 ? mount_as_root(cfg, &m, err) : mount_by_helper(cfg, &m, err);
	if (r < 0) {
		fusemount_close(&m);
		return r;
	}
	m.mountinfo_fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	if (m.mountinfo_fd < 0) {
		r = error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot read the table of mounts");
		fusemount_unmount(&m, true);
		fusemount_close(&m);
		return r;
	}
	if (mountinfo_find(m.target, &info) == 0) {
		m.dev_major = info.major;
		m.dev_minor = info.minor;
	}
	*ret = m;
	return 0;
}

void fusemount_close(struct fusemount *m)
{
	cleanup_close(&m->fuse_fd);
	cleanup_close(&m->namespace_fd);
	cleanup_close(&m->mountinfo_fd);
	m->fuse_fd = m->namespace_fd = m->mountinfo_fd = -1;
}

bool fusemount_is_there(const struct fusemount *m)
{
	struct mountinfo info;

	return mountinfo_find_at(m->mountinfo_fd, m->target, &info) == 0 &&
	       strcmp(info.type, MOUNTINFO_TYPE) == 0 && strcmp(info.source, m->name) == 0 &&
	       info.major == m->dev_major && info.minor == m->dev_minor;
}

bool fusemount_is_anywhere(const struct fusemount *m)
{
	return mountinfo_has_device(m->mountinfo_fd, m->dev_major, m->dev_minor);
}

struct others {
	char (*targets)[4096];
	size_t n;
	bool failed;
};

static bool collect_ours(void *ctx, const struct mountinfo *m)
{
	struct others *o = ctx;
	char(*more)[4096];

	if (strcmp(m->type, MOUNTINFO_TYPE) != 0)
		return true;
	more = reallocarray(o->targets, o->n + 1, sizeof(*more));
	o->failed = !more;
	if (!more)
		return false;
	o->targets = more;
	strcpy(o->targets[o->n++], m->target);
	return true;
}

/* Our copies of ckrfs mounts, this one and others, would keep them and their keys alive after everybody else
 * has let them go: where mounts do not propagate, for as long as we live. */
static int let_go_of_mounts(void)
{
	struct others o = {0};
	int r = mountinfo_each(collect_ours, &o);

	while (r == 0 && o.n)
		umount2(o.targets[--o.n],
			MNT_DETACH | UMOUNT_NOFOLLOW); /* -EINVAL: the one above took it along */
	free(o.targets);
	return o.failed ? -ENOMEM : r;
}

int fusemount_leave_namespace(struct fusemount *m, struct error *err)
{
	int r;

	if (geteuid() != 0)
		return 0;
	m->namespace_fd = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	if (m->namespace_fd < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot open the mount namespace");
	/* A slave: nothing gets out; but what others unmount goes away here too, and is not kept in use. */
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot make a private mount namespace");
	r = let_go_of_mounts();
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED,
				   "cannot let go of mounts in a private namespace")
		     : 0;
}

/* ---- unmounting ---- */

int fusemount_unmount_path(const char *target, const char *name, bool lazy)
{
	char program[] = FUSERMOUNT, u[] = "-u", z[] = "-uz", end[] = "--", path[4096];
	char *argv[] = {program, lazy ? z : u, end, path, NULL};
	int r;

	if (!mountinfo_is_ours(target, name))
		return -EINVAL;
	if (geteuid() == 0)
		return umount2(target, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) < 0 ? -errno : 0;
	snprintf(path, sizeof(path), "%s", target);
	r = run_fusermount(argv, -1);
	if (r <= 0)
		return r;
	return r == 127 ? -ENOENT : mountinfo_is_ours(target, name) ? -EBUSY : -EINVAL;
}

/* setns(2) would take the keeper out of its own namespace, so that only its children do this. It refuses who
 * shares his working directory with another thread, as a sanitizer's. */
static int enter_namespace(const struct fusemount *m)
{
	if (m->namespace_fd >= 0 && (unshare(CLONE_FS) < 0 || setns(m->namespace_fd, CLONE_NEWNS) < 0))
		return -errno;
	return 0;
}

int fusemount_open_root(const struct fusemount *m)
{
	struct stat st;
	int fd, r = enter_namespace(m);

	if (r < 0)
		return r;
	fd = open(m->target, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) == 0 && major(st.st_dev) == m->dev_major && minor(st.st_dev) == m->dev_minor)
		return fd;
	close(fd);
	return -EINVAL;
}

int fusemount_unmount_begin(const struct fusemount *m, bool lazy, pid_t *ret_pid)
{
	pid_t pid = fork();
	int r;

	if (pid < 0)
		return -errno;
	if (pid > 0) {
		*ret_pid = pid;
		return 0;
	}
	/* EINVAL is what says that nothing is mounted: not to be mixed up with it. */
	r = enter_namespace(m);
	if (r < 0)
		_exit(r == -EINVAL ? EPERM : -r);
	_exit(-fusemount_unmount_path(m->target, m->name, lazy));
}

int fusemount_unmount_result(int wait_status)
{
	return WIFEXITED(wait_status) ? -WEXITSTATUS(wait_status) : -EIO;
}

int fusemount_unmount(const struct fusemount *m, bool lazy)
{
	pid_t pid;
	int r = fusemount_unmount_begin(m, lazy, &pid);

	if (r < 0)
		return r;
	r = wait_for(pid);
	return r < 0 ? r : fusemount_unmount_result(r);
}

void fusemount_read_ahead(const struct fusemount *m, unsigned kib)
{
	autofd int fd = -1;
	char path[96], text[16];
	int n;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", m->dev_major, m->dev_minor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = snprintf(text, sizeof(text), "%u", kib);
	/* Only a matter of speed. */
	if (write_full(fd, text, (size_t)n) < 0)
		return;
}
