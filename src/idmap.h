/* SPDX-License-Identifier: MIT */
/*
 * Maps of user or group ids: ranges of the mount and of the lower. What no range covers has no counterpart,
 * as in an idmapped mount (user_namespaces(7), mount_setattr(2)). A map does not change after
 * idmap_parse(): any thread may ask it. A map that is NULL changes nothing.
 */
#ifndef CKRFS_IDMAP_H
#define CKRFS_IDMAP_H

#include <stddef.h>
#include <stdint.h>

/* The kernel takes no more in /proc/PID/uid_map. */
enum { IDMAP_RANGES_MAX = 340 };

/* No id. As the owner of an inode it is one that nobody is: the kernel shows its overflow id (65534), refuses
 * writes, and gives nobody an owner's rights. */
#define IDMAP_NONE UINT32_MAX
/* What the kernel shows for it, /proc/sys/kernel/overflowuid. */
#define IDMAP_OVERFLOW UINT32_C(65534)

struct idmap;

/*
 * "INSIDE:LOWER:COUNT", several with blanks or commas between. -ENOMEM; -EINVAL with *ret_takes (may be NULL)
 * what it must be, in words that go behind "must be".
 */
int idmap_parse(const char *text, struct idmap **ret, const char **ret_takes);
void idmap_free(struct idmap *m);

/* The id that the mount shows for one of the lower, and the other way; IDMAP_NONE. */
uint32_t idmap_inside(const struct idmap *m, uint32_t lower);
uint32_t idmap_lower(const struct idmap *m, uint32_t inside);

/* "UID" or "UID:GID"; without a gid it is the uid's number. -EINVAL */
int idmap_parse_owner(const char *text, uint32_t *ret_uid, uint32_t *ret_gid);

/*
 * POSIX ACLs as system.posix_acl_* holds them (linux/posix_acl_xattr.h), in place. What is no ACL of a known
 * version stays as it is.
 *
 * Shown: an entry without a counterpart is one of IDMAP_OVERFLOW without any right, so that who happens to be
 * that user gains nothing. Set: -EINVAL for an id without a counterpart, as the kernel does
 * (posix_acl_valid()).
 */
void idmap_acl_show(const struct idmap *uids, const struct idmap *gids, void *acl, size_t size);
int idmap_acl_set(const struct idmap *uids, const struct idmap *gids, void *acl, size_t size);

#endif
