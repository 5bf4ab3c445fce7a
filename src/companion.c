/* SPDX-License-Identifier: MIT */
#include "companion.h"

#include <errno.h>
#include <unistd.h>

#include "program.h"
#include "version.h"

static int run_program(const char *name, const char *directory, const char *command, char *const *argv)
{
	struct error err = ERROR_NONE;
	char path[PATH_MAX];
	int r;

	program_path(name, directory, path);
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
	return run_program(PROGRAM_NET, CKRFS_LIBEXECDIR, argv[0], front->argv);
}

int companion_run_ckrfs(char *const *argv)
{
	return run_program("ckrfs", CKRFS_SBINDIR, argv[1], argv);
}
