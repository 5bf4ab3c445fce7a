/* SPDX-License-Identifier: MIT */
/*
 * createRuntime hooks run in the runtime's namespaces, when the container's file systems are mounted below
 * its future root in its own mount namespace, and nothing of the container runs yet (OCI runtime
 * specification, "Lifecycle"). What is mounted there now is the container's, whatever propagation it has.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "mountinfo.h"
#include "oci_hook_impl.h"
#include "util.h"

#ifndef STATX_ATTR_MOUNT_ROOT
#define STATX_ATTR_MOUNT_ROOT 0x2000
#endif

/* What the child could not do. */
enum step { STEP_DONE, STEP_NAMESPACE, STEP_ROOT, STEP_NO_ROOT, STEP_PLACE, STEP_MOVE };

struct outcome {
	enum step step;
	int code;
};

/* The image may have symbolic links anywhere: they are taken as within root. */
static int open_inside(int root_fd, const char *path)
{
	struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	int fd = (int)syscall(SYS_openat2, root_fd, path, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

/* Opens the place, and makes the directories that are missing on the way. */
static int make_place(int root_fd, const char *path)
{
	char copy[OCI_PATH_SIZE];
	int fd = open_inside(root_fd, path);
	char *end = copy;

	if (fd != -ENOENT)
		return fd;
	snprintf(copy, sizeof(copy), "%s", path);
	fd = open_inside(root_fd, "/");
	while (fd >= 0 && *end) {
		autofd int parent = fd;
		char *name = end + 1, rest;

		end = name + strcspn(name, "/");
		rest = *end;
		*end = '\0';
		fd = open_inside(root_fd, copy);
		if (fd == -ENOENT)
			fd = mkdirat(parent, name, 0755) < 0 ? -errno : open_inside(root_fd, copy);
		*end = rest;
	}
	return fd;
}

static bool is_mount_root(int fd)
{
	struct statx st;

	return statx(fd, "", AT_EMPTY_PATH, 0, &st) == 0 && st.stx_attributes & STATX_ATTR_MOUNT_ROOT;
}

static struct outcome attach(int tree_fd, int pid_fd, const char *root, const char *path)
{
	autofd int root_fd = -1, place_fd = -1;

	if (setns(pid_fd, CLONE_NEWNS) < 0)
		return (struct outcome){STEP_NAMESPACE, -errno};
	root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root_fd < 0)
		return (struct outcome){STEP_ROOT, -errno};
	/* Runtimes bind the root onto itself: before that it is no container's yet. */
	if (!is_mount_root(root_fd))
		return (struct outcome){STEP_NO_ROOT, -EINVAL};
	place_fd = make_place(root_fd, path);
	if (place_fd < 0)
		return (struct outcome){STEP_PLACE, place_fd};
	if (move_mount(tree_fd, "", place_fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return (struct outcome){STEP_MOVE, -errno};
	return (struct outcome){STEP_DONE, 0};
}

/* In a child: a process does not come back from a mount namespace as it was. */
static struct outcome attach_in_child(int tree_fd, int pid_fd, const char *root, const char *path)
{
	struct outcome outcome = {STEP_NAMESPACE, -EIO};
	autofd int read_fd = -1;
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return (struct outcome){STEP_NAMESPACE, -errno};
	read_fd = fds[0];
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		outcome = attach(tree_fd, pid_fd, root, path);
		_exit(write_full(fds[1], &outcome, sizeof(outcome)) < 0);
	}
	close(fds[1]);
	if (pid < 0)
		return (struct outcome){STEP_NAMESPACE, -errno};
	if (read_full(read_fd, &outcome, sizeof(outcome)) != (ssize_t)sizeof(outcome))
		outcome = (struct outcome){STEP_NAMESPACE, -EIO};
	waitpid(pid, NULL, 0);
	return outcome;
}

/* ---- copies of mounts ---- */

struct search {
	const char *below;
	unsigned skip; /* so many of those that are found */
	unsigned parent;
	struct mountinfo found;
	bool any;
};

static bool compare_below(void *ctx, const struct mountinfo *m)
{
	struct search *s = ctx;
	size_t n = strlen(s->below);

	if (strncmp(m->target, s->below, n) != 0 || m->target[n] != '/' ||
	    strcmp(m->type, MOUNTINFO_TYPE) != 0)
		return true;
	if (s->skip > 0) {
		s->skip--;
		return true;
	}
	s->found = *m;
	s->any = true;
	return false;
}

static bool compare_parent(void *ctx, const struct mountinfo *m)
{
	struct search *s = ctx;

	s->any = m->id == s->parent && !m->shared;
	return m->id != s->parent;
}

/* Not where that would reach the mounts of other namespaces. */
static bool detach_copy(const struct mountinfo *m)
{
	struct search s = {.parent = m->parent};

	return mountinfo_each(compare_parent, &s) == 0 && s.any &&
	       umount2(m->target, MNT_DETACH | UMOUNT_NOFOLLOW) == 0;
}

static void forget(const char *below)
{
	for (unsigned kept = 0;;) {
		struct search s = {.below = below, .skip = kept};

		if (mountinfo_each(compare_below, &s) < 0 || !s.any)
			return;
		kept += !detach_copy(&s.found);
	}
}

void oci_forget(const struct oci_mounts *mounts, int pid_fd)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		if (setns(pid_fd, CLONE_NEWNS) == 0)
			forget(mounts->path);
		_exit(EXIT_STATUS_DONE);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

/* ---- the volume's mount ---- */

/* Only what the annotation asks for; nosuid and nodev are on the mount already. */
static int set_attributes(int tree_fd, const struct oci_volume *volume)
{
	struct mount_attr attr = {
		.attr_set = (volume->read_only ? MOUNT_ATTR_RDONLY : 0) |
			    (volume->no_exec ? MOUNT_ATTR_NOEXEC : 0),
		.propagation = MS_PRIVATE,
	};

	return mount_setattr(tree_fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0 ? -errno : 0;
}

int oci_attach(int tree_fd, int pid_fd, const char *root, const struct oci_volume *volume, struct error *err)
{
	struct outcome outcome;
	int r = set_attributes(tree_fd, volume);

	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot set the options of the mount");
	outcome = attach_in_child(tree_fd, pid_fd, root, volume->path);
	switch (outcome.step) {
	case STEP_DONE:
		return 0;
	case STEP_NAMESPACE:
		return error_errno(err, outcome.code, EXIT_STATUS_FAILED, "cannot enter its mount namespace");
	case STEP_ROOT:
		return error_errno(err, outcome.code, EXIT_STATUS_FAILED, "cannot open its root %s", root);
	case STEP_NO_ROOT:
		return error_set(err, outcome.code, EXIT_STATUS_UNSUPPORTED,
				 "its runtime has not mounted its root %s yet: this is not the moment of "
				 "createRuntime hooks",
				 root);
	case STEP_PLACE:
		if (outcome.code == -EEXIST)
			return error_set(err, outcome.code, EXIT_STATUS_FAILED,
					 "cannot make %s in it: a symbolic link on the way leads nowhere",
					 volume->path);
		return error_errno(err, outcome.code, EXIT_STATUS_FAILED, "cannot make %s in it",
				   volume->path);
	case STEP_MOVE:
		break;
	}
	return error_errno(err, outcome.code, EXIT_STATUS_FAILED, "cannot put the mount on %s in it",
			   volume->path);
}
