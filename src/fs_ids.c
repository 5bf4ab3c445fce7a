/* SPDX-License-Identifier: MIT */
/* The fs layer: whose things are. Ids of the lower are shown by the mount's map, or all as one owner's. */
#include <errno.h>
#include <linux/xattr.h>
#include <string.h>

#include "fs_impl.h"
#include "store.h"

void fs_ids_show(const struct fs *fs, struct stat *st)
{
	if (fs->p.one_owner) {
		st->st_uid = fs->p.owner_uid;
		st->st_gid = fs->p.owner_gid;
		return;
	}
	st->st_uid = idmap_inside(fs->p.uid_map, st->st_uid);
	st->st_gid = idmap_inside(fs->p.gid_map, st->st_gid);
}

/* One id as the lower has it. The kernel refuses what has no counterpart with EOVERFLOW in an idmapped mount
 * (notify_change()). */
static int lower_id(const struct idmap *map, bool set, uint32_t id, uint32_t *ret)
{
	*ret = set ? idmap_lower(map, id) : IDMAP_NONE;
	return set && *ret == IDMAP_NONE ? -EOVERFLOW : 0;
}

int fs_ids_chown(const struct fs *fs, int fd, const struct stat *attr, bool set_uid, bool set_gid)
{
	uid_t uid;
	gid_t gid;
	int r;

	if (fs->p.one_owner) {
		if ((set_uid && attr->st_uid != fs->p.owner_uid) ||
		    (set_gid && attr->st_gid != fs->p.owner_gid))
			return -EPERM;
		/* The owner stays; what chown(2) clears is cleared by the lower. */
		return store_chown(fd, (uid_t)-1, (gid_t)-1);
	}
	r = lower_id(fs->p.uid_map, set_uid, attr->st_uid, &uid);
	if (r == 0)
		r = lower_id(fs->p.gid_map, set_gid, attr->st_gid, &gid);
	return r < 0 ? r : store_chown(fd, uid, gid);
}

int fs_ids_act(const struct fs *fs, uid_t uid, gid_t gid, mode_t mask)
{
	/* In a mount that may be idmapped the kernel tells who only to requests that create (fuse.h,
	 * FUSE_INVALID_UIDGID). */
	if (!fs->p.act_as_caller || uid == IDMAP_NONE || gid == IDMAP_NONE)
		return store_act_as(fs->self_uid, fs->self_gid, mask);
	uid = idmap_lower(fs->p.uid_map, uid);
	gid = idmap_lower(fs->p.gid_map, gid);
	if (uid == IDMAP_NONE || gid == IDMAP_NONE)
		return -EOVERFLOW; /* as the kernel, fsuidgid_has_mapping() */
	return store_act_as(uid, gid, mask);
}

bool fs_ids_in_xattr(const struct fs *fs, const char *name)
{
	return (fs->p.uid_map || fs->p.gid_map) && (strcmp(name, XATTR_NAME_POSIX_ACL_ACCESS) == 0 ||
						    strcmp(name, XATTR_NAME_POSIX_ACL_DEFAULT) == 0);
}
