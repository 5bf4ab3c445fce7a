/* SPDX-License-Identifier: MIT */
/*
 * What the files of `ckrfs oci-hook` share. A hook is one short process, with one thread, of the container's
 * runtime: it has `ckrfs mount` mount the volume (oci_hook_mounts.c), puts that mount into the container's
 * mount namespace (oci_hook_attach.c), and leaves a process behind that waits for the container's end, as a
 * runtime that was killed runs no further hook.
 */
#ifndef CKRFS_OCI_HOOK_IMPL_H
#define CKRFS_OCI_HOOK_IMPL_H

#include "config.h"
#include "oci_message.h"

/* ---- a container ---- */

/* One life of a container: an ID may be used again. */
struct oci_user {
	char id[OCI_ID_SIZE];
	pid_t pid;      /* of its first process; 0: not known */
	uint64_t start; /* when that one started, proc_pid_stat(5): pids are used again */
};

/* When the process of that pid started; -ESRCH: it has ended. */
int oci_process_start(pid_t pid, uint64_t *ret);
bool oci_user_alive(const struct oci_user *user);

/* ---- mounts for containers ---- */

/*
 * The directory oci of the runtime directory: in it, for each mount,
 *   NAME/mnt       where it is mounted, if it is mounted for containers only
 *   NAME/user.ID   a container that uses it
 * with flock(2) on NAME while that is changed. What ended without being said is found by its pid.
 */
struct oci_mounts {
	const char *config_file; /* borrowed; NULL: the default ones */
	int fd;
	char path[OCI_PATH_SIZE];
};

#define OCI_MOUNTS_NONE ((struct oci_mounts){.fd = -1})

/* Makes it where it is missing. */
int oci_mounts_open(const char *config_file, struct oci_mounts *ret, struct error *err);
void oci_mounts_close(struct oci_mounts *mounts);

/*
 * A detached mount of the volume for the container: *ret_tree_fd. Mounts it first if nobody has; if somebody
 * has, other than a hook, it is used and stays with him. cfg is the volume's. May take as long as its key
 * takes. On failure the container may have been noted: oci_mounts_release().
 */
int oci_mounts_take(const struct oci_mounts *mounts, const struct oci_user *user,
		    const struct oci_volume *volume, const struct config *cfg, int *ret_tree_fd,
		    struct error *err);

/*
 * The container uses nothing any more: what was mounted for it, and is used by no other, is unmounted. With
 * pid 0 whatever its life was, if it has ended. Tries all; the first error.
 */
int oci_mounts_release(const struct oci_mounts *mounts, const struct oci_user *user, struct error *err);

/* ---- the container's namespace ---- */

/*
 * The namespace was copied with the mounts for containers that were there, and has them until its root is
 * changed: they are taken out, as one that is being unmounted would be waited for while the container waits
 * for that. What cannot be taken out stays.
 */
void oci_forget(const struct oci_mounts *mounts, int pid_fd);

/*
 * Moves the detached mount to volume->path below root, as the process behind pid_fd sees it, before it has
 * made that its root directory. Nothing in there leads out of root; what is missing of the path is made.
 */
int oci_attach(int tree_fd, int pid_fd, const char *root, const struct oci_volume *volume, struct error *err);

#endif
