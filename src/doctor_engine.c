/* SPDX-License-Identifier: MIT */
#include "doctor.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cleanup.h"
#include "command.h"
#include "util.h"

#define DOCKER_SOCKET "/run/docker/plugins/ckrfs.sock"

/* 0, or why nobody answers there. */
static int try_socket(const char *path)
{
	autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (fd < 0)
		return -errno;
	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	return connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 && errno != EAGAIN ? -errno : 0;
}

/* What makes somebody answer there: with what is installed. */
static const char *start_plugin(void)
{
	static const char *const units[] = {"/etc/systemd/system/ckrfs-volume-plugin.socket",
					    "/lib/systemd/system/ckrfs-volume-plugin.socket",
					    "/usr/local/lib/systemd/system/ckrfs-volume-plugin.socket"};

	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (access(units[i], F_OK) == 0)
			return "systemctl start ckrfs-volume-plugin.socket";
	return command_find("volume-plugin") ? "ckrfs volume-plugin" : NULL;
}

static bool is_installed(const char *program)
{
	static const char *const places[] = {"/usr/bin", "/usr/local/bin", "/usr/sbin", "/bin"};
	char path[128];

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		snprintf(path, sizeof(path), "%s/%s", places[i], program);
		if (access(path, X_OK) == 0)
			return true;
	}
	return false;
}

/* `ckrfs = "/path"` of a containers.conf; false: it has none. */
static bool plugin_of(const char *conf, char ret_path[256])
{
	FILE *f = fopen(conf, "re");
	char line[512];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f))
		found = sscanf(line, " ckrfs = \"%255[^\"]\"", ret_path) == 1;
	if (f)
		fclose(f);
	return found;
}

static bool find_plugin(char ret_conf[512], char ret_path[256])
{
	static const char *const fixed[] = {"/etc/containers/containers.conf",
					    "/usr/share/containers/containers.conf"};
	static const char drop_ins[] = "/etc/containers/containers.conf.d";
	autodir DIR *dir = opendir(drop_ins);
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		snprintf(ret_conf, 512, "%s/%s", drop_ins, e->d_name);
		if (e->d_name[0] != '.' && plugin_of(ret_conf, ret_path))
			return true;
	}
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
		snprintf(ret_conf, 512, "%s", fixed[i]);
		if (plugin_of(ret_conf, ret_path))
			return true;
	}
	return false;
}

static void podman(struct diagnosis *d)
{
	char conf[512], path[256];
	int r;

	if (!is_installed("podman")) {
		diagnosis_add(d, "podman", DIAGNOSIS_OK, 0, NULL, "podman is not installed");
	} else if (!find_plugin(conf, path)) {
		diagnosis_add(
			d, "podman", DIAGNOSIS_OK, 0, NULL,
			"podman knows no volume plugin ckrfs; mounts are given to it as directories (-v)");
	} else if ((r = try_socket(path)) < 0) {
		diagnosis_add(d, "podman", DIAGNOSIS_PROBLEM, EXIT_STATUS_FAILED, start_plugin(),
			      "%s names a volume plugin ckrfs, but nobody answers at %s: %s", conf, path,
			      strerror(-r));
	} else {
		diagnosis_add(d, "podman", DIAGNOSIS_OK, 0, NULL, "the volume plugin answers at %s", path);
	}
}

static void docker(struct diagnosis *d)
{
	int r;

	if (access(DOCKER_SOCKET, F_OK) < 0) {
		diagnosis_add(d, "docker", DIAGNOSIS_OK, 0, NULL, "docker knows no volume plugin ckrfs");
		return;
	}
	r = try_socket(DOCKER_SOCKET);
	if (r < 0)
		diagnosis_add(d, "docker", DIAGNOSIS_PROBLEM, EXIT_STATUS_FAILED, start_plugin(),
			      "nobody answers at " DOCKER_SOCKET ": %s", strerror(-r));
	else
		diagnosis_add(d, "docker", DIAGNOSIS_OK, 0, NULL,
			      "the volume plugin answers at " DOCKER_SOCKET);
}

/* The program of a hook of ours: "path": "/usr/sbin/ckrfs". */
static bool hook_of(const char *file, char ret_path[256])
{
	FILE *f = fopen(file, "re");
	char text[4096];
	const char *at;
	size_t n;

	if (!f)
		return false;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	at = strstr(text, "\"path\"");
	return at && sscanf(at, "\"path\" : \"%255[^\"]\"", ret_path) == 1 && strstr(ret_path, "ckrfs");
}

static void hooks_in(struct diagnosis *d, const char *place)
{
	autodir DIR *dir = opendir(place);
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		char file[512], path[256];

		snprintf(file, sizeof(file), "%s/%s", place, e->d_name);
		if (e->d_name[0] == '.' || !hook_of(file, path))
			continue;
		if (access(path, X_OK) == 0)
			diagnosis_add(d, "oci-hook", DIAGNOSIS_OK, 0, NULL, "%s runs %s", file, path);
		else
			diagnosis_add(d, "oci-hook", DIAGNOSIS_PROBLEM, EXIT_STATUS_FAILED, NULL,
				      "%s names %s, which cannot be run: %s", file, path, strerror(errno));
	}
}

void doctor_engine(struct diagnosis *d)
{
	podman(d);
	docker(d);
	hooks_in(d, "/usr/share/containers/oci/hooks.d");
	hooks_in(d, "/etc/containers/oci/hooks.d");
}
