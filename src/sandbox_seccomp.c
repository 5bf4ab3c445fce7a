/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include "sandbox_impl.h"
#include "seccomp_filter.h"
#include "util.h"

static int install(struct sock_filter *filter, size_t n)
{
	struct sock_fprog program = {.len = (unsigned short)n, .filter = filter};

	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0 ? -errno : 0;
}

int sandbox_seccomp_server(void)
{
	return install(filter_server, ARRAY_SIZE(filter_server));
}

int sandbox_seccomp_keeper(void)
{
	return install(filter_keeper, ARRAY_SIZE(filter_keeper));
}

int sandbox_seccomp_front(void)
{
	return install(filter_front, ARRAY_SIZE(filter_front));
}
