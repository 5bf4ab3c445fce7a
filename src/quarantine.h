/* SPDX-License-Identifier: MIT */
/*
 * Where `ckrfs check --repair` puts what is damaged: a directory on the volume's file system, with a file
 * `log`. Each line of the log is a JSON object that says what is about to be done, and is on disk before that
 * is done: a crash leaves either state, and quarantine_undo() goes back from both. docs/cli-abi.md has the
 * members. All by fd, one component at a time; the log comes from the volume's owner and is believed nothing.
 * One thread.
 */
#ifndef CKRFS_QUARANTINE_H
#define CKRFS_QUARANTINE_H

#include "finding.h"

#define QUARANTINE_LOG "log"

struct quarantine;

/*
 * The directory name in parent_fd is made when the first thing is put into it. where: its path, for messages.
 * root_fd: the volume; both fds must be of one mount, and are borrowed.
 */
int quarantine_new(int root_fd, int parent_fd, const char *name, const char *where, struct quarantine **ret);
void quarantine_free(struct quarantine *q);

/* Paths are in the volume, as on disk. Negative errno; -ENOENT and -EEXIST mean that nothing was done. */

/* Notes what was found, for who reads the log. */
int quarantine_note(struct quarantine *q, const struct finding *f);
/* An object of any kind into the quarantine. */
int quarantine_move(struct quarantine *q, const char *path);
/* From one place in the volume to another. */
int quarantine_rename(struct quarantine *q, const char *path, const char *new_path);
/* A new file with that text, mode 0444. */
int quarantine_create(struct quarantine *q, const char *path, const char *text);
/* An extended attribute; its value goes into the log. */
int quarantine_take_attribute(struct quarantine *q, const char *path, const char *attribute);

/* The log's path once there is one, else NULL. */
const char *quarantine_log(const struct quarantine *q);

/* The directory that path's last component is in: an fd, or negative errno; *ret_last points into path. */
int quarantine_parent(int root_fd, const char *path, const char **ret_last);

/*
 * Takes back all that the log in dir_fd tells, the last thing first; what was not done is passed over.
 * *ret_done and *ret_left: how many things were, and could not be, taken back; when none is left the log is
 * removed. 1 damaged or no log.
 */
int quarantine_undo(int root_fd, int dir_fd, const char *log, unsigned *ret_done, unsigned *ret_left,
		    struct error *err);

#endif
