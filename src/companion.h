/* SPDX-License-Identifier: MIT */
/*
 * ckrfs is two executables. What takes libmicrohttpd or libkrb5 is in ckrfs-net: to load them takes longer
 * than all else that happens before main(), and every mount would wait for it. A command of ckrfs-net is run
 * by `ckrfs COMMAND` like any other: ckrfs becomes ckrfs-net, with the same arguments, environment, open
 * files and process id. Each finds the other in its own directory, if it is there and the same user's, as in
 * a build directory; else where it was configured to be installed.
 */
#ifndef CKRFS_COMPANION_H
#define CKRFS_COMPANION_H

#include "command.h"

/* struct command's run for the commands of ckrfs-net. Returns if that cannot be executed: says so, and gives
 * the exit status; 15 where it is not installed. */
int companion_run(const struct front *front, int argc, char **argv);

/* For ckrfs-net: becomes `ckrfs` with these arguments; argv[1] is the command. Returns as companion_run()
 * does. */
int companion_run_ckrfs(char *const *argv);

#endif
