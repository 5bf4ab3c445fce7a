/* SPDX-License-Identifier: MIT */
/* A block device as source: its file system is mounted for this process alone. fsopen(2), fsmount(2). */
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "lower_impl.h"

/* Those on block devices that can encrypt come first; the kernel has no other way to ask than to try. */
static const char *const types[] = {"ext4", "f2fs", "xfs", "btrfs", NULL};

/* An fd of the mount; -EINVAL: not that type. */
static int mount_as(const char *type, const char *device, bool read_only)
{
	autofd int fs = fsopen(type, FSOPEN_CLOEXEC);
	int fd;

	if (fs < 0)
		return errno == ENODEV ? -EINVAL : -errno;
	if (fsconfig(fs, FSCONFIG_SET_STRING, "source", device, 0) < 0 ||
	    (read_only && fsconfig(fs, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0) ||
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	fd = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
	return fd < 0 ? -errno : fd;
}

int lower_device_mount(const char *device, bool read_only, struct error *err)
{
	struct stat st;
	int r = -EINVAL;

	if (stat(device, &st) < 0)
		return error_errno(err, -errno, errno == ENOENT ? EXIT_STATUS_NO_VOLUME : EXIT_STATUS_FAILED,
				   "cannot use source %s", device);
	if (!S_ISBLK(st.st_mode))
		return error_errno(err, -ENOTBLK, EXIT_STATUS_FAILED, "cannot mount source %s", device);
	for (const char *const *type = types; r == -EINVAL && *type; type++)
		r = mount_as(*type, device, read_only);
	/* Read-only beside one that may write, or the other way round. */
	if (r == -EBUSY)
		return error_set(err, r, EXIT_STATUS_BUSY,
				 "source %s is mounted already, and read-only = %s does not go with that",
				 device, read_only ? "yes" : "no");
	if (r == -EINVAL)
		return error_set(err, r, EXIT_STATUS_FAILED,
				 "there is no file system on source %s that can be mounted here", device);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot mount source %s", device) : r;
}
