/* SPDX-License-Identifier: MIT */
#include "sandbox.h"

#include <errno.h>
#include <linux/landlock.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "capability.h"
#include "cleanup.h"
#include "sandbox_impl.h"
#include "util.h"

int sandbox_no_core(unsigned *protections, struct error *err)
{
	struct rlimit none = {0, 0};

	if (setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot turn core files off");
	*protections |= SANDBOX_NO_CORE;
	return 0;
}

int sandbox_die_with(pid_t keeper, struct error *err)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot tie a process to its parent");
	if (getppid() != keeper)
		return error_set(err, -ESRCH, EXIT_STATUS_FAILED, "the parent of a process died");
	return 0;
}

/*
 * A root directory with nothing in it. /proc is the one directory that is there everywhere: what the server
 * needs of it is open. The old root is let go of; what the open fds name stays.
 */
int sandbox_empty_root(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("ckrfs", "/proc", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
		  "size=4k,nr_inodes=4,mode=555") < 0 ||
	    chdir("/proc") < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 ||
	    chdir("/") < 0 ||
	    mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
		  NULL) < 0)
		return -errno;
	return 0;
}

/*
 * The fs layer creates things as its callers by setfsuid(2), and needs its capabilities for that still:
 * SECBIT_NO_SETUID_FIXUP. Root without them gains nothing by exec: SECBIT_NOROOT.
 */
static int drop_capabilities(bool system_admin)
{
	if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_NOROOT |
					     SECBIT_NOROOT_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
					     SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED) < 0)
		return -errno;
	return capability_keep_for_serving(system_admin);
}

void sandbox_own_namespaces(unsigned *protections)
{
	if (unshare(CLONE_NEWIPC) == 0)
		*protections |= SANDBOX_PRIVATE_IPC;
	if (unshare(CLONE_NEWNET) == 0)
		*protections |= SANDBOX_PRIVATE_NET;
}

static int leave_host(bool system_admin, unsigned *protections, struct error *err)
{
	int r;

	sandbox_own_namespaces(protections);
	r = sandbox_empty_root();
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED,
				   "cannot give the server an empty root directory");
	*protections |= SANDBOX_EMPTY_ROOT;
	r = drop_capabilities(system_admin);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot drop the server's capabilities");
	*protections |= SANDBOX_CAPABILITIES;
	return 0;
}

/* ---- Landlock, landlock(7) ---- */

/* As of ABI 6; older kernels take its beginning. linux/landlock.h of the build machine may have less. */
struct ruleset {
	uint64_t handled_access_fs, handled_access_net, scoped;
};

enum { RULESET_SIZE_1 = 8, RULESET_SIZE_4 = 16, RULESET_SIZE_6 = 24 };

/* LANDLOCK_CREATE_RULESET_ERRATA of newer headers. */
enum { LANDLOCK_ASK_ERRATA = 1 << 1, LANDLOCK_ERRATUM_3 = 1 << 2 };

/* How many rights for files there are: bits 0 to n-1. */
static int landlock_file_rights(int abi)
{
	return abi >= 5 ? 16 : abi >= 3 ? 15 : abi >= 2 ? 14 : 13;
}

static int landlock_restrict(int abi, int root_fd)
{
	struct ruleset set = {.handled_access_fs = (1ull << landlock_file_rights(abi)) - 1,
			      .handled_access_net = 3, /* bind and connect, TCP */
			      .scoped = 3};            /* abstract unix sockets, signals */
	struct landlock_path_beneath_attr rule = {.allowed_access = set.handled_access_fs,
						  .parent_fd = root_fd};
	size_t size = abi >= 6 ? RULESET_SIZE_6 : abi >= 4 ? RULESET_SIZE_4 : RULESET_SIZE_1;
	autofd int fd = (int)syscall(SYS_landlock_create_ruleset, &set, size, 0);

	if (fd < 0 ||
	    (root_fd >= 0 && syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0) ||
	    syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		return -errno;
	return 0;
}

/*
 * Root opens files by handle, and a file that is not in the kernel's cache of names then has no path. Only
 * kernels with erratum 3 fixed look at the root of its mount instead; others refuse the access.
 */
static bool landlock_knows_handles(void)
{
	long errata = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_ASK_ERRATA);

	return errata > 0 && errata & LANDLOCK_ERRATUM_3;
}

/* What the kernel does not have is left out. */
int sandbox_landlock(int root_fd, unsigned *protections)
{
	int abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	int r;

	if (abi < 1)
		return 0;
	r = landlock_restrict(abi, root_fd);
	if (r == 0)
		*protections |= SANDBOX_LANDLOCK;
	return r;
}

static int landlock_enter(const struct sandbox_params *p, unsigned *protections)
{
	if (p->root_let_go || (geteuid() == 0 && !(p->root_private && landlock_knows_handles())))
		return 0;
	return sandbox_landlock(p->root_fd, protections);
}

static const char *const words[] = {"no-core",     "no-new-privs", "capabilities",        "empty-root",
				    "private-ipc", "private-net",  "dies-with-keeper",    "private-lower",
				    "landlock",    "seccomp",      "keeper-capabilities", "keeper-seccomp"};

enum { OF_KEEPER = SANDBOX_KEEPER_CAPABILITIES | SANDBOX_KEEPER_SECCOMP, OF_SERVER = (1 << 10) - 1 };

/* Names what strict misses. */
static int check_strict(unsigned wanted, unsigned protections, struct error *err)
{
	unsigned missing = wanted & ~protections;
	char text[256];

	if (!missing)
		return 0;
	sandbox_words(missing, text, sizeof(text));
	error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED, "sandbox = strict cannot be done: no %s", text);
	error_hint(err, "ckrfs mount -o sandbox=auto ...");
	return -EOPNOTSUPP;
}

/* r: of entering the filter. */
static int seccomp_entered(int r, enum sandbox_protection bit, unsigned *protections, struct error *err)
{
	if (r == -EINVAL)
		return 0;
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot confine the %s by seccomp",
				   bit == SANDBOX_SECCOMP ? "server" : "keeper");
	*protections |= bit;
	return 0;
}

static int confine(const struct sandbox_params *p, unsigned *protections, struct error *err)
{
	int r;

	if (geteuid() == 0) {
		r = leave_host(p->system_admin, protections, err);
		if (r < 0)
			return r;
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot set no_new_privs");
	*protections |= SANDBOX_NO_NEW_PRIVS;
	if (p->root_private)
		*protections |= SANDBOX_PRIVATE_LOWER;
	r = landlock_enter(p, protections);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot confine the server by Landlock") : 0;
}

int sandbox_enter(const struct sandbox_params *p, unsigned *protections, struct error *err)
{
	int r = sandbox_die_with(p->keeper, err);

	if (r < 0)
		return r;
	*protections |= SANDBOX_DIES_WITH_KEEPER;
	return p->level == SANDBOX_OFF ? 0 : confine(p, protections, err);
}

int sandbox_close(const struct sandbox_params *p, unsigned *protections, struct error *err)
{
	int r;

	if (p->level == SANDBOX_OFF)
		return 0;
	/* Everything that takes new system calls is done. */
	r = seccomp_entered(sandbox_seccomp_server(), SANDBOX_SECCOMP, protections, err);
	return r == 0 && p->level == SANDBOX_STRICT ? check_strict(OF_SERVER, *protections, err) : r;
}

int sandbox_keeper(enum sandbox_level level, bool by_helper, unsigned *protections, struct error *err)
{
	int r = 0;

	if (level == SANDBOX_OFF)
		return 0;
	if (!by_helper && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot set no_new_privs");
	if (!by_helper)
		r = seccomp_entered(sandbox_seccomp_keeper(), SANDBOX_KEEPER_SECCOMP, protections, err);
	if (r < 0)
		return r;
	if (geteuid() == 0) {
		r = capability_keep_for_keeping();
		if (r < 0)
			return error_errno(err, r, EXIT_STATUS_FAILED,
					   "cannot drop the keeper's capabilities");
		*protections |= SANDBOX_KEEPER_CAPABILITIES;
	}
	return level == SANDBOX_STRICT ? check_strict(OF_KEEPER, *protections, err) : 0;
}

void sandbox_words(unsigned protections, char *text, size_t size)
{
	size_t used = 0;

	text[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (protections & 1u << i && used < size)
			used += (size_t)snprintf(text + used, size - used, "%s%s", used ? " " : "", words[i]);
}
