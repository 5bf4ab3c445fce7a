/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "mountinfo.h"
#include "volume_plugin_impl.h"

void plugin_target(const struct plugin_store *s, const char *name, char ret[PLUGIN_TARGET_SIZE])
{
	snprintf(ret, PLUGIN_TARGET_SIZE, "%s/%s", s->mounts_path, name);
}

bool plugin_target_mounted(const struct plugin_store *s, const char *name)
{
	char target[PLUGIN_TARGET_SIZE];
	struct mountinfo info;

	plugin_target(s, name, target);
	return mountinfo_find(target, &info) == 0 && strcmp(info.type, MOUNTINFO_TYPE) == 0;
}

bool plugin_target_seen(const struct plugin_store *s, const char *name, pid_t peer)
{
	char target[PLUGIN_TARGET_SIZE], path[64];
	struct mountinfo ours, theirs;
	autofd int fd = -1;

	plugin_target(s, name, target);
	snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)peer);
	fd = peer > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0 || mountinfo_find(target, &ours) < 0)
		return true;
	return mountinfo_find_at(fd, target, &theirs) == 0 && theirs.major == ours.major &&
	       theirs.minor == ours.minor;
}
