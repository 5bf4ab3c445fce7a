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

/* The whole value on the lower, malloc'ed: it may grow between the two questions. */
static ssize_t read_value(int fd, const char *disk, void **ret)
{
	for (;;) {
		ssize_t size = store_getxattr(fd, disk, NULL, 0), n;
		autofree void *buf = NULL;

		if (size < 0)
			return size;
		buf = malloc((size_t)size + 1);
		if (!buf)
			return -ENOMEM;
		n = store_getxattr(fd, disk, buf, (size_t)size);
		if (n == -ERANGE)
			continue;
		if (n >= 0)
			*ret = steal_ptr(&buf);
		return n;
	}
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
	autofree void *stored = NULL;
	autofree uint8_t *plain = NULL;
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
	n = read_value(fd, disk, &stored);
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

/* The names on the lower, one behind the other, malloc'ed. */
static ssize_t read_list(int fd, char **ret)
{
	for (;;) {
		ssize_t size = store_listxattr(fd, NULL, 0), n;
		autofree char *buf = NULL;

		if (size < 0)
			return size;
		buf = malloc((size_t)size + 1);
		if (!buf)
			return -ENOMEM;
		n = store_listxattr(fd, buf, (size_t)size);
		if (n == -ERANGE)
			continue;
		if (n >= 0)
			*ret = steal_ptr(&buf);
		return n;
	}
}

ssize_t gocryptfs_listxattr(struct format *f, int fd, char *buf, size_t size)
{
	struct gocryptfs *g = gocryptfs_of(f);
	autofree char *list = NULL;
	size_t used = 0;
	ssize_t n = read_list(fd, &list);

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
