/* SPDX-License-Identifier: MIT */
/* The program: finds the command, or the mount(8) helper that it was called as. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "command.h"
#include "util.h"
#include "version.h"

enum { COMMANDS_MAX = 32, NAME_WIDTH = 13 };

static const char examples[] = "\nexamples:\n"
			       "  ckrfs init /srv/web.cipher --key file:/root/web.pass\n"
			       "  ckrfs mount /srv/web.cipher /srv/web --key file:/root/web.pass\n"
			       "  ckrfs umount /srv/web\n"
			       "\nMore: man 8 ckrfs, man 5 ckrfs.conf, man 7 ckrfs-volumes\n";

static int help(void)
{
	printf("usage: ckrfs [--config FILE] COMMAND ...\n\n"
	       "Mounts encrypted volumes for containers, with keys that only the mount "
	       "holds.\n\ncommands:\n");
	for (const struct command *cmd = commands; cmd->name; cmd++)
		if (!cmd->hidden)
			printf("  %-*s %s\n", NAME_WIDTH, cmd->name, cmd->help);
	printf("\n`ckrfs` alone shows the status; `ckrfs COMMAND --help` the options of a command;\n"
	       "`ckrfs --version` the version.\n");
	fputs(examples, stdout);
	return EXIT_STATUS_DONE;
}

static int fail_usage(const char *what, const char *word, const char *near)
{
	struct error err = ERROR_NONE;

	if (near)
		error_set(&err, -EINVAL, EXIT_STATUS_USAGE, "%s \"%s\" (did you mean \"%s\"?)", what, word,
			  near);
	else
		error_set(&err, -EINVAL, EXIT_STATUS_USAGE, "%s \"%s\"", what, word);
	error_hint(&err, "ckrfs --help");
	return command_fail(&err);
}

static int unknown_command(const char *word)
{
	const char *names[COMMANDS_MAX + 1] = {0};
	size_t n = 0;

	for (const struct command *cmd = commands; cmd->name && n < COMMANDS_MAX; cmd++)
		if (!cmd->hidden)
			names[n++] = cmd->name;
	return fail_usage("unknown command", word, nearest_word(word, names));
}

static int run_command(const struct front *front, int argc, char **argv)
{
	static char status[] = "status";
	char *alone[] = {status, NULL};
	const struct command *cmd;

	if (argc == 0)
		return cmd_status(front, 1, alone);
	cmd = command_find(argv[0]);
	return cmd ? cmd->run(front, argc, argv) : unknown_command(argv[0]);
}

/* What stands before the command. */
static int run_front(int argc, char **argv)
{
	static const char *const words[] = {"--config", "--help", "--version", NULL};
	struct front front = {.program = "ckrfs"};
	int i = 1;

	for (; i < argc && argv[i][0] == '-'; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return help();
		if (strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-V") == 0) {
			puts("ckrfs " CKRFS_VERSION);
			return EXIT_STATUS_DONE;
		}
		if (strncmp(argv[i], "--config=", 9) == 0)
			front.config_file = argv[i] + 9;
		else if (strcmp(argv[i], "--config") == 0 && i + 1 < argc)
			front.config_file = argv[++i];
		else if (strcmp(argv[i], "--config") == 0)
			return fail_usage("a file is needed behind", argv[i], NULL);
		else
			return fail_usage("unknown option", argv[i], nearest_word(argv[i], words));
	}
	return run_command(&front, argc - i, argv + i);
}

int main(int argc, char **argv)
{
	char comm[16] = "";
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
	const char *name = argc > 0 ? slash ? slash + 1 : argv[0] : "";

	/* Run by /proc/self/exe, as the volume plugin does: a name that says something in audit lines. */
	if (prctl(PR_GET_NAME, comm) == 0 && strcmp(comm, "exe") == 0)
		prctl(PR_SET_NAME, "ckrfs");
	if (strcmp(name, "mount.ckrfs") == 0 || strcmp(name, "mount.fuse.ckrfs") == 0)
		return cmd_mount_helper(argc, argv);
	if (strcmp(name, "umount.ckrfs") == 0 || strcmp(name, "umount.fuse.ckrfs") == 0)
		return cmd_umount_helper(argc, argv);
	return run_front(argc, argv);
}
