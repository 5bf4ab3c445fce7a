/* SPDX-License-Identifier: MIT */
/* What keepers say of their mounts, for the commands that show it. Called by one thread, and makes some for
 * the time of the call; asks sockets, never the mounts themselves. */
#ifndef CKRFS_MOUNT_LIST_H
#define CKRFS_MOUNT_LIST_H

#include "error.h"
#include "message.h"
#include <stddef.h>

struct mount_list {
	struct message_status *items; /* owned, sorted by name */
	size_t n;
};

/* Every mount of the runtime directory that the caller may control. On failure ret is untouched. */
int mount_list_all(struct mount_list *ret, struct error *err);

/* One, by its name or target: 10 if it is not mounted. */
int mount_list_one(const char *what, struct mount_list *ret, struct error *err);

void mount_list_free(struct mount_list *list);

static inline void cleanup_mount_list(struct mount_list *list)
{
	mount_list_free(list);
}
#define automount_list __attribute__((cleanup(cleanup_mount_list)))

#endif
