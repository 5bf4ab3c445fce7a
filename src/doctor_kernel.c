/* SPDX-License-Identifier: MIT */
/* Each feature is tried, none is told from a version. */
#include "doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "fs_probe.h"
#include "util.h"

enum { NOTIFICATION_PIPE = O_EXCL };

static void fuse_device(struct diagnosis *d, int fd)
{
	if (fd >= 0)
		diagnosis_add(d, "fuse-device", DIAGNOSIS_OK, 0, NULL, "/dev/fuse can be opened");
	else if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
		diagnosis_add(d, "fuse-device", DIAGNOSIS_PROBLEM, EXIT_STATUS_UNSUPPORTED, "modprobe fuse",
			      "cannot open /dev/fuse: %s", strerror(errno));
	else
		diagnosis_add(d, "fuse-device", DIAGNOSIS_PROBLEM, EXIT_STATUS_UNSUPPORTED,
			      "chmod 666 /dev/fuse", "cannot open /dev/fuse: %s", strerror(errno));
}

static void openat2_call(struct diagnosis *d)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_MAGICLINKS};
	autofd int fd = (int)syscall(SYS_openat2, AT_FDCWD, "/", &how, sizeof(how));

	if (fd >= 0)
		diagnosis_add(d, "openat2", DIAGNOSIS_OK, 0, NULL, "openat2(2) works");
	else
		diagnosis_add(
			d, "openat2", DIAGNOSIS_PROBLEM, EXIT_STATUS_UNSUPPORTED, NULL,
			"openat2(2) fails: %s; it takes Linux 5.6, and a container's filter that knows it",
			strerror(errno));
}

static void secret_memory(struct diagnosis *d)
{
	int fd = -1;

#ifdef SYS_memfd_secret
	fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);
#endif
	if (fd >= 0)
		diagnosis_add(d, "memfd-secret", DIAGNOSIS_OK, 0, NULL,
			      "keys are in memory that not even root can read");
	else
		diagnosis_add(
			d, "memfd-secret", DIAGNOSIS_NOTE, 0, NULL,
			"memfd_secret(2) is missing: keys are in locked memory, which root can read; it may "
			"take secretmem.enable=1 on the kernel's command line");
	cleanup_close(&fd);
}

static void confinement(struct diagnosis *d)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	unsigned action = SECCOMP_RET_KILL_PROCESS;

	if (abi > 0)
		diagnosis_add(d, "landlock", DIAGNOSIS_OK, 0, NULL, "Landlock is there, ABI %ld", abi);
	else
		diagnosis_add(d, "landlock", DIAGNOSIS_NOTE, 0, NULL,
			      "Landlock is missing: servers are shut in without it; it may take landlock in "
			      "lsm= on "
			      "the kernel's command line");
	if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0)
		diagnosis_add(d, "seccomp", DIAGNOSIS_OK, 0, NULL, "seccomp filters work");
	else
		diagnosis_add(d, "seccomp", DIAGNOSIS_NOTE, 0, NULL,
			      "seccomp is missing: servers may use every system call");
}

static void key_watch(struct diagnosis *d)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC | NOTIFICATION_PIPE) < 0) {
		diagnosis_add(d, "watch-queue", DIAGNOSIS_NOTE, 0, NULL,
			      "the kernel has no watch_queue: keys in keyrings are looked at twice a second");
		return;
	}
	close(fds[0]);
	close(fds[1]);
	diagnosis_add(d, "watch-queue", DIAGNOSIS_OK, 0, NULL, "the kernel tells when keys change");
}

/* In a child: -errno, or enum fs_feature. */
static int probe_fuse(int fuse_fd)
{
	int status = 0;
	unsigned features = 0;
	pid_t pid = fork();

	if (pid == 0)
		_exit(fs_probe(fuse_fd, &features) < 0 ? 255 : (int)features);
	if (pid < 0)
		return -errno;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) < 255 ? WEXITSTATUS(status) : -EIO;
}

static void fuse_features(struct diagnosis *d, int fuse_fd)
{
	static const struct {
		unsigned bit;
		const char *check, *there, *missing;
	} features[] = {
		{FS_FEATURE_PASSTHROUGH, "fuse-passthrough",
		 "the kernel reads and writes files of plain volumes itself",
		 "no FUSE passthrough: reads and writes of plain volumes go through the server"},
		{FS_FEATURE_IDMAP, "fuse-idmap", "mounts can be idmapped (idmap = yes)",
		 "FUSE mounts cannot be idmapped: idmap = yes does not work, uid-map and gid-map do"},
	};
	int found = probe_fuse(fuse_fd);

	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		bool there = found >= 0 && (unsigned)found & features[i].bit;

		if (found < 0)
			diagnosis_add(d, features[i].check, DIAGNOSIS_NOTE, 0, NULL,
				      "not known: only root can ask the kernel for it");
		else
			diagnosis_add(d, features[i].check, there ? DIAGNOSIS_OK : DIAGNOSIS_NOTE, 0, NULL,
				      "%s", there ? features[i].there : features[i].missing);
	}
}

/* A line of the file that has the word at its end, behind a blank or alone. */
static bool file_has_line(const char *path, const char *word)
{
	FILE *f = fopen(path, "re");
	char line[256];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		char *last;

		line[strcspn(line, "\n")] = '\0';
		last = strpbrk(line, " \t");
		found = strcmp(last ? last + strspn(last, " \t") : line, word) == 0;
	}
	if (f)
		fclose(f);
	return found;
}

static bool module_exists(const char *module)
{
	struct utsname u;
	char path[512], line[512], name[64];
	bool found = false;
	FILE *f;

	uname(&u);
	snprintf(path, sizeof(path), "/lib/modules/%s/modules.dep", u.release);
	snprintf(name, sizeof(name), "/%s.ko", module);
	f = fopen(path, "re");
	while (f && !found && fgets(line, sizeof(line), f)) {
		line[strcspn(line, ":")] = '\0';
		found = strstr(line, name) != NULL;
	}
	if (f)
		fclose(f);
	return found;
}

static void file_systems(struct diagnosis *d)
{
	static const struct {
		const char *type, *module, *mend;
	} types[] = {
		{"afs", "kafs", "modprobe kafs"},
		{"cifs", "cifs", "modprobe cifs"},
		{"nfs4", "nfsv4", "modprobe nfsv4"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		char check[32];

		snprintf(check, sizeof(check), "module-%s", types[i].module);
		if (file_has_line("/proc/filesystems", types[i].type))
			diagnosis_add(d, check, DIAGNOSIS_OK, 0, NULL, "the kernel has %s", types[i].type);
		else if (module_exists(types[i].module))
			diagnosis_add(d, check, DIAGNOSIS_OK, 0, types[i].mend,
				      "%s is not loaded, but its module is there", types[i].type);
		else
			diagnosis_add(d, check, DIAGNOSIS_NOTE, 0, NULL,
				      "the kernel has no %s: no volume can lie there", types[i].type);
	}
}

static void fscrypt(struct diagnosis *d)
{
	static const char *const marks[] = {"/sys/fs/ext4/features/encryption",
					    "/sys/fs/f2fs/features/encryption"};

	for (size_t i = 0; i < ARRAY_SIZE(marks); i++)
		if (access(marks[i], F_OK) == 0) {
			diagnosis_add(d, "fscrypt", DIAGNOSIS_OK, 0, NULL,
				      "the kernel encrypts directories of ext4 or f2fs (lower = fscrypt)");
			return;
		}
	diagnosis_add(d, "fscrypt", DIAGNOSIS_NOTE, 0, NULL,
		      "neither ext4 nor f2fs offers encryption here: lower = fscrypt does not work on them");
}

void doctor_kernel(struct diagnosis *d)
{
	autofd int fuse_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	fuse_device(d, fuse_fd);
	openat2_call(d);
	secret_memory(d);
	confinement(d);
	if (fuse_fd >= 0)
		fuse_features(d, fuse_fd);
	key_watch(d);
	fscrypt(d);
	file_systems(d);
}
