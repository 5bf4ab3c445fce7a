/* SPDX-License-Identifier: MIT */
#include "capability.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t bit(int capability)
{
	return 1ull << capability;
}

static int get(struct __user_cap_header_struct *head, struct __user_cap_data_struct data[2])
{
	*head = (struct __user_cap_header_struct){.version = _LINUX_CAPABILITY_VERSION_3};
	return syscall(SYS_capget, head, data) < 0 ? -errno : 0;
}

static int set(struct __user_cap_header_struct *head, struct __user_cap_data_struct data[2])
{
	return syscall(SYS_capset, head, data) < 0 ? -errno : 0;
}

static int keep_only(uint64_t keep)
{
	struct __user_cap_header_struct head;
	struct __user_cap_data_struct data[2];
	int r;

	for (int c = 0; prctl(PR_CAPBSET_READ, c) >= 0; c++)
		if ((c >= 64 || !(keep & bit(c))) && prctl(PR_CAPBSET_DROP, c) < 0)
			return -errno;
	r = get(&head, data);
	if (r < 0)
		return r;
	for (int i = 0; i < 2; i++) {
		/* A manager may have fewer itself. */
		data[i].permitted &= (uint32_t)(keep >> 32 * i);
		data[i].effective = data[i].permitted;
		data[i].inheritable = 0;
	}
	return set(&head, data);
}

int capability_keep_for_serving(bool system_admin)
{
	return keep_only(bit(CAP_CHOWN) | bit(CAP_DAC_OVERRIDE) | bit(CAP_DAC_READ_SEARCH) | bit(CAP_FOWNER) |
			 bit(CAP_FSETID) | bit(CAP_SETUID) | bit(CAP_SETGID) | bit(CAP_MKNOD) |
			 bit(CAP_SETFCAP) | bit(CAP_LINUX_IMMUTABLE) |
			 (system_admin ? bit(CAP_SYS_ADMIN) : 0));
}

int capability_keep_for_keeping(void)
{
	return keep_only(bit(CAP_SYS_ADMIN) | bit(CAP_SYS_CHROOT) | bit(CAP_DAC_OVERRIDE) |
			 bit(CAP_DAC_READ_SEARCH) | bit(CAP_CHOWN) | bit(CAP_FOWNER) | bit(CAP_KILL) |
			 bit(CAP_SETUID) | bit(CAP_SETGID) | bit(CAP_SETPCAP) | bit(CAP_IPC_LOCK));
}

int capability_bound_none(void)
{
	for (int c = 0; prctl(PR_CAPBSET_READ, c) >= 0; c++)
		if (prctl(PR_CAPBSET_DROP, c) < 0)
			return -errno;
	return 0;
}

int capability_drop_all(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}};

	return set(&head, data);
}

int capability_fsetid(bool on)
{
	struct __user_cap_header_struct head;
	struct __user_cap_data_struct data[2];
	int r = get(&head, data);

	if (r < 0)
		return r;
	if (on)
		data[0].effective |= data[0].permitted & (uint32_t)bit(CAP_FSETID);
	else
		data[0].effective &= ~(uint32_t)bit(CAP_FSETID);
	return set(&head, data);
}
