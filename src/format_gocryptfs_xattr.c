/* SPDX-License-Identifier: MIT */
/* The format `gocryptfs`: extended attributes. All are stored as user.gocryptfs.*, except ACLs, which the
 * kernel must be able to read. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "format_gocryptfs.h"
#include "store.h"
#include "util.h"

static bool in_clear(const char *name)
{
	return strcmp(name, "system.posix_acl_access") == 0 || strcmp(name, "system.posix_acl_default") == 0;
}

/* File capabilities mean nothing in a mount that is nosuid, and asking for them at each write costs as much
 * as the write: as gocryptfs has it without -suid. */
static bool refused(const char *name)
{
	return strcmp(name, "security.capability") == 0;
}

/* What namespaces there are, and that a name has to follow (xattr(7)): on the lower all of them are one. */
static int check_name(const char *name)
{
	static const char *const prefixes[] = {"user.", "trusted.", "security."};

	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
			return name[strlen(prefixes[i])] ? 0 : -EINVAL;
	return -EOPNOTSUPP;
}

/* Copies to a caller's buffer under xattr(7)'s rules. */
static ssize_t hand_over(const void *value, size_t n, void *buf, size_t size)
{
	if (size == 0)
		return (ssize_t)n;
	if (n > size)
		return -ERANGE;
	memcpy(buf, value, n);
	return (ssize_t)n;
}

ssize_t gocryptfs_getxattr(struct format *f, int fd, const char *name, void *buf, size_t size)
{
	struct gocryptfs *g = gocryptfs_of(f);
	char disk[GCFS_XATTR_NAME_MAX + 1];
	autofree char *stored = NULL;
	autowiped uint8_t *plain = NULL;
	size_t plain_size;
	ssize_t n;
	int r;

	if (in_clear(name))
		return store_getxattr(fd, name, buf, size);
	if (refused(name))
		return -EOPNOTSUPP;
	r = gcfs_xattr_name_encrypt(g->names, name, disk);
	if (r < 0)
		return r;
	n = store_read_xattr(fd, disk, &stored);
	if (n < 0)
		return n;
	r = gcfs_value_decrypt(g->content, stored, (size_t)n, &plain, &plain_size);
	if (r == -EBADMSG) {
		format_report(f, fd, NULL, "the value of an extended attribute is damaged");
		return -EIO;
	}
	return r < 0 ? r : hand_over(plain, plain_size, buf, size);
}

int gocryptfs_setxattr(struct format *f, int fd, const char *name, const void *value, size_t size, int flags)
{
	struct gocryptfs *g = gocryptfs_of(f);
	char disk[GCFS_XATTR_NAME_MAX + 1];
	autofree uint8_t *stored = NULL;
	size_t stored_size;
	int r;

	if (in_clear(name))
		return store_setxattr(fd, name, value, size, flags);
	if (refused(name))
		return -EOPNOTSUPP;
	r = check_name(name);
	if (r == 0)
		r = gcfs_xattr_name_encrypt(g->names, name, disk);
	if (r == 0)
		r = gcfs_value_encrypt(g->content, value, size, &stored, &stored_size);
	return r < 0 ? r : store_setxattr(fd, disk, stored, stored_size, flags);
}

int gocryptfs_removexattr(struct format *f, int fd, const char *name)
{
	char disk[GCFS_XATTR_NAME_MAX + 1];
	int r;

	if (in_clear(name))
		return store_removexattr(fd, name);
	if (refused(name))
		return -EOPNOTSUPP;
	r = gcfs_xattr_name_encrypt(gocryptfs_of(f)->names, name, disk);
	return r < 0 ? r : store_removexattr(fd, disk);
}

ssize_t gocryptfs_listxattr(struct format *f, int fd, char *buf, size_t size)
{
	struct gocryptfs *g = gocryptfs_of(f);
	autofree char *list = NULL;
	size_t used = 0;
	ssize_t n = store_read_xattr(fd, NULL, &list);

	if (n < 0)
		return n;
	for (const char *disk = list; disk < list + n; disk += strlen(disk) + 1) {
		char plain[GCFS_XATTR_NAME_MAX + 1];
		const char *name = plain;
		size_t length;

		if (in_clear(disk))
			name = disk;
		else if (strncmp(disk, GCFS_XATTR_PREFIX, strlen(GCFS_XATTR_PREFIX)) != 0)
			continue;
		else if (gcfs_xattr_name_decrypt(g->names, disk, plain) < 0) {
			format_report(f, fd, disk,
				      "the name of an extended attribute cannot be decrypted; it is hidden");
			continue;
		}
		length = strlen(name) + 1;
		if (size && used + length > size)
			return -ERANGE;
		if (size)
			memcpy(buf + used, name, length);
		used += length;
	}
	return (ssize_t)used;
}
