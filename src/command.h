/* SPDX-License-Identifier: MIT */
/*
 * The commands of ckrfs: one file each, one table (command.c) that names them. Dispatch, --help and
 * completion read the table; nothing repeats it.
 */
#ifndef CKRFS_COMMAND_H
#define CKRFS_COMMAND_H

#include "error.h"
#include <stdbool.h>

/* What stands before the command: `ckrfs [--config FILE] COMMAND ...`. */
struct front {
	const char *config_file; /* NULL: the default files */
	char **argv;             /* all of it, as the program was called */
};

struct command_option {
	const char *name;     /* long form, without "--" */
	char short_name;      /* 0: none */
	const char *argument; /* "FILE", "OPTIONS", ...; NULL: a flag; "[=TIME]": --name or --name=TIME */
	const char *help;     /* one line */
};

/* Is the word behind the option its argument? */
static inline bool command_option_takes(const struct command_option *o)
{
	return o->argument && o->argument[0] != '[';
}

struct command {
	const char *name;
	const char *args;                     /* "NAME [TARGET]" */
	const char *help;                     /* one line */
	const struct command_option *options; /* ends with a NULL name; may be NULL */
	/* argv[0] is the command's name. Prints its own errors; returns an exit status. */
	int (*run)(const struct front *front, int argc, char **argv);
	bool hidden; /* not in the overview (complete) */
};

/* In the order of use; ends with a NULL name. */
extern const struct command commands[];

/* The options that every command has besides its own (--config, --help): ends with a NULL name. */
extern const struct command_option command_common_options[];

/*
 * Parses the options of a command by its table with getopt_long: calls set for each. Operands stay behind
 * *ret_first. `--help` prints the command's help to stdout and returns -ECANCELED: the command then returns
 * 0. A wrong option is named, with the nearest right word, and points to --help: -EINVAL, and the command
 * returns EXIT_STATUS_USAGE.
 */
int command_parse(const struct command *cmd, int argc, char **argv,
		  int (*set)(void *ctx, const char *name, const char *value, struct error *err), void *ctx,
		  int *ret_first);

/* Takes what stands before the command: the index of the first word that is none of it. */
int command_front(int argc, char **argv, struct front *ret);

/* The entry of this table with that name; NULL. */
const struct command *command_find(const char *name);

/* Prints err to stderr and returns its exit status. */
int command_fail(const struct error *err);

/* Of a command for several mounts, behind each: that of the failures if they are the same and nothing
 * succeeded, else 3. done: mounts before this one. */
int command_join_status(int so_far, int status, size_t done);

/* Usage errors: "ckrfs: MESSAGE" and "try: ckrfs CMD --help"; returns EXIT_STATUS_USAGE. */
int command_usage(const struct command *cmd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

int cmd_check(const struct front *front, int argc, char **argv);
int cmd_complete(const struct front *front, int argc, char **argv);
int cmd_config(const struct front *front, int argc, char **argv);
int cmd_doctor(const struct front *front, int argc, char **argv);
int cmd_init(const struct front *front, int argc, char **argv);
int cmd_key(const struct front *front, int argc, char **argv);
int cmd_lock(const struct front *front, int argc, char **argv);
int cmd_metrics(const struct front *front, int argc, char **argv);
int cmd_mount(const struct front *front, int argc, char **argv);
int cmd_oci_hook(const struct front *front, int argc, char **argv);
int cmd_refresh(const struct front *front, int argc, char **argv);
int cmd_rekey(const struct front *front, int argc, char **argv);
int cmd_status(const struct front *front, int argc, char **argv);
int cmd_unlock(const struct front *front, int argc, char **argv);
int cmd_umount(const struct front *front, int argc, char **argv);

/* For who mounts it again, as a service manager does: the mount that a keeper that was killed has left on
 * that target, if there is one, is unmounted. The rest that it has left is for the keeper that follows. */
int umount_remains(const char *name, const char *target, struct error *err);

/* Those of ckrfs-net: in the table is companion_run(). */
int cmd_ticket(const struct front *front, int argc, char **argv);
int cmd_volume_plugin(const struct front *front, int argc, char **argv);

/* The mount(8) helpers, chosen by argv[0]; exit statuses are mount(8)'s. */
int cmd_mount_helper(int argc, char **argv);
int cmd_umount_helper(int argc, char **argv);

#endif
