/* SPDX-License-Identifier: MIT */
/* The program: finds the command, or the mount(8) helper that it was called as. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

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

	if (argc <= 0)
		return cmd_status(front, 1, alone);
	cmd = command_find(argv[0]);
	return cmd ? cmd->run(front, argc, argv) : unknown_command(argv[0]);
}

/* With what stands before the command. */
static int run_front(int argc, char **argv)
{
	static const char *const words[] = {"--config", "--help", "--version", NULL};
	struct front front;
	int i = command_front(argc, argv, &front);
	const char *word = i < argc ? argv[i] : "";

	if (word[0] != '-')
		return run_command(&front, argc - i, argv + i);
	if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
		return help();
	if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
		puts("ckrfs " CKRFS_VERSION);
		return EXIT_STATUS_DONE;
	}
	if (strcmp(word, "--config") == 0)
		return fail_usage("a file is needed behind", word, NULL);
	return fail_usage("unknown option", word, nearest_word(word, words));
}

int main(int argc, char **argv)
{
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
	const char *name = argc > 0 ? slash ? slash + 1 : argv[0] : "";

	if (strcmp(name, "mount.ckrfs") == 0 || strcmp(name, "mount.fuse.ckrfs") == 0)
		return cmd_mount_helper(argc, argv);
	if (strcmp(name, "umount.ckrfs") == 0 || strcmp(name, "umount.fuse.ckrfs") == 0)
		return cmd_umount_helper(argc, argv);
	return run_front(argc, argv);
}
