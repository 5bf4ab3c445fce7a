/* SPDX-License-Identifier: MIT */
#include "companion.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "version.h"

/* Also where the running program was replaced meanwhile: the directory stays. Somebody else's file is not
 * taken, as root may run a copy that lies in a directory for all. */
static bool find_beside(const char *name, char path[PATH_MAX])
{
	struct stat self, other;
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 1);
	char *slash;
	size_t room;

	if (n < 0 || stat("/proc/self/exe", &self) < 0)
		return false;
	path[n] = '\0';
	slash = strrchr(path, '/');
	if (!slash)
		return false;
	room = (size_t)(path + PATH_MAX - (slash + 1));
	return (size_t)snprintf(slash + 1, room, "%s", name) < room && stat(path, &other) == 0 &&
	       S_ISREG(other.st_mode) && other.st_uid == self.st_uid;
}

static int run_program(const char *name, const char *directory, const char *command, char *const *argv)
{
	struct error err = ERROR_NONE;
	char path[PATH_MAX];
	int r;

	if (!find_beside(name, path))
		snprintf(path, sizeof(path), "%s/%s", directory, name);
	execv(path, argv);
	r = -errno;
	if (r == -ENOENT)
		error_set(&err, r, EXIT_STATUS_UNSUPPORTED, "cannot run \"%s\": %s is not installed", command,
			  path);
	else
		error_errno(&err, r, EXIT_STATUS_FAILED, "cannot run \"%s\": cannot execute %s", command,
			    path);
	error_hint(&err, "man 8 ckrfs");
	return command_fail(&err);
}

int companion_run(const struct front *front, int argc, char **argv)
{
	return run_program("ckrfs-net", CKRFS_LIBEXECDIR, argv[0], front->argv);
}

int companion_run_ckrfs(char *const *argv)
{
	return run_program("ckrfs", CKRFS_SBINDIR, argv[1], argv);
}
