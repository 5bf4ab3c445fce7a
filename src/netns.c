/* SPDX-License-Identifier: MIT */
#include "netns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>

#include "cleanup.h"

int netns_open(const char *path, struct error *err)
{
	autofd int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return error_errno(err, -errno, errno == ENOENT ? EXIT_STATUS_NO_VOLUME : EXIT_STATUS_FAILED,
				   "cannot open network namespace %s", path);
	if (ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "netns %s is no network namespace", path);
	return steal_fd(&fd);
}

int netns_enter(int fd, int *ret_back)
{
	autofd int back = -1;

	*ret_back = -1;
	if (fd < 0)
		return 0;
	back = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (back < 0 || setns(fd, CLONE_NEWNET) < 0)
		return -errno;
	*ret_back = steal_fd(&back);
	return 0;
}

int netns_leave(int *back)
{
	int r = *back < 0 || setns(*back, CLONE_NEWNET) == 0 ? 0 : -errno;

	cleanup_close(back);
	*back = -1;
	return r;
}
