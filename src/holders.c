/* SPDX-License-Identifier: MIT */
#include "holders.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "mountinfo.h"
#include "util.h"

enum { HOLDERS_MAX = 10 };

struct hunt {
	FILE *to;
	const char *target;
	unsigned major, minor;
	unsigned found;
	const char *pid;
	char command[32];
	int proc_fd; /* of this process */
};

static void print_one(struct hunt *h, const char *what, const char *path)
{
	char shown[1024];

	if (h->found++ >= HOLDERS_MAX)
		return;
	printable_text(path, shown, sizeof(shown));
	if (h->pid)
		fprintf(h->to, "  held by: %s (%s) %s %s\n", h->pid, h->command, what, shown);
	else
		fprintf(h->to, "  held by: %s %s\n", what, shown);
}

/* Is what the link names on the mount? An empty mask and DONT_SYNC: FUSE answers from what the kernel knows.
 */
static bool link_is_there(const struct hunt *h, int dir_fd, const char *link)
{
	struct statx st;

	return statx(dir_fd, link, AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, 0, &st) == 0 &&
	       st.stx_dev_major == h->major && st.stx_dev_minor == h->minor;
}

static bool try_link(struct hunt *h, int dir_fd, const char *link, const char *what)
{
	char path[4096];
	ssize_t n;

	if (!link_is_there(h, dir_fd, link))
		return false;
	n = readlinkat(dir_fd, link, path, sizeof(path) - 1);
	path[n > 0 ? n : 0] = '\0';
	print_one(h, what, path);
	return true;
}

static bool try_fds(struct hunt *h)
{
	int fd = openat(h->proc_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	autodir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	bool any = false;

	while (dir && (e = readdir(dir)))
		if (isdigit((unsigned char)e->d_name[0]))
			any |= try_link(h, dirfd(dir), e->d_name, "file");
	return any;
}

/* Mapped files that are not open: libraries, mmap(2) after close(2). */
static void try_maps(struct hunt *h)
{
	int fd = openat(h->proc_fd, "maps", O_RDONLY | O_CLOEXEC);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	autofree char *line = NULL;
	char last[4096] = "";
	size_t room = 0;

	while (f && getline(&line, &room, f) > 0) {
		unsigned major, minor;
		int at = 0;

		if (sscanf(line, "%*s %*s %*s %x:%x %*s %n", &major, &minor, &at) < 2 || major != h->major ||
		    minor != h->minor || at == 0)
			continue;
		line[strcspn(line, "\n")] = '\0';
		if (strcmp(last, line + at) == 0)
			continue;
		snprintf(last, sizeof(last), "%s", line + at);
		print_one(h, "map", last);
	}
	if (f)
		fclose(f);
	else
		cleanup_close(&fd);
}

static void try_process(struct hunt *h, int proc, const char *pid)
{
	autofd int fd = openat(proc, pid, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	autofd int comm = fd < 0 ? -1 : openat(fd, "comm", O_RDONLY | O_CLOEXEC);
	ssize_t n = comm < 0 ? -1 : read(comm, h->command, sizeof(h->command) - 1);

	if (n < 0)
		return;
	h->command[n] = '\0';
	h->command[strcspn(h->command, "\n")] = '\0';
	h->pid = pid;
	h->proc_fd = fd;
	try_link(h, fd, "cwd", "directory");
	try_link(h, fd, "root", "root");
	try_link(h, fd, "exe", "program");
	if (!try_fds(h))
		try_maps(h);
}

/* Something mounted below keeps the mount busy without any process. */
static bool try_mount(void *ctx, const struct mountinfo *m)
{
	struct hunt *h = ctx;
	size_t n = strlen(h->target);

	if (strncmp(m->target, h->target, n) == 0 && m->target[n] == '/')
		print_one(h, "mount", m->target);
	return true;
}

void holders_print(FILE *to, const char *target)
{
	struct hunt h = {.to = to, .target = target};
	autodir DIR *proc = opendir("/proc");
	struct mountinfo info;
	struct dirent *e;

	if (!proc || mountinfo_find(target, &info) < 0)
		return;
	h.major = info.major;
	h.minor = info.minor;
	mountinfo_each(try_mount, &h);
	while ((e = readdir(proc)))
		if (isdigit((unsigned char)e->d_name[0]))
			try_process(&h, dirfd(proc), e->d_name);
	if (h.found > HOLDERS_MAX)
		fprintf(to, "  and %u more\n", h.found - HOLDERS_MAX);
}
