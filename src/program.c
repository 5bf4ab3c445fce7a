/* SPDX-License-Identifier: MIT */
#include "program.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

void program_path(const char *name, const char *directory, char ret[PATH_MAX])
{
	if (!find_beside(name, ret))
		snprintf(ret, PATH_MAX, "%s/%s", directory, name);
}
