/* SPDX-License-Identifier: MIT */
#include "cpu_latency.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>

#include "log.h"
#include "util.h"

/* Microseconds, as linux/pm_qos.h has them: PM_QOS_CPU_LATENCY_DEFAULT_VALUE is "no wish". */
enum { NONE_AT_ALL = 0, NO_WISH = 2000000000 };

int cpu_latency_open(void)
{
	int fd = open("/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static void ask(int fd, int32_t microseconds)
{
	int r = write_full(fd, &microseconds, sizeof(microseconds));

	if (r < 0)
		log_msg(LOG_LEVEL_DEBUG, "cannot set the latency of processors: errno %d", -r);
}

void cpu_latency_hold(int fd)
{
	ask(fd, NONE_AT_ALL);
}

void cpu_latency_release(int fd)
{
	ask(fd, NO_WISH);
}
