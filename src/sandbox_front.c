/* SPDX-License-Identifier: MIT */
#include "sandbox.h"

#include <errno.h>
#include <grp.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "capability.h"
#include "sandbox_impl.h"
#include "util.h"

enum { NOBODY = 65534 };

static int become_nobody(void)
{
	return setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
			       setresuid(NOBODY, NOBODY, NOBODY) < 0
		       ? -errno
		       : 0;
}

static int leave_host(unsigned *protections, struct error *err)
{
	/* In a user namespace nobody may have no number: root without capabilities has to do there. */
	bool partial = namespace_is_partial();
	int r;

	sandbox_own_namespaces(protections);
	r = sandbox_empty_root();
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED,
				   "cannot give a process an empty root directory");
	*protections |= SANDBOX_EMPTY_ROOT;
	r = capability_bound_none();
	if (r == 0 && !partial)
		r = become_nobody();
	if (r == 0)
		r = capability_drop_all();
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot drop the rights of a process");
	*protections |= SANDBOX_CAPABILITIES;
	return 0;
}

int sandbox_front(pid_t parent, unsigned *protections, struct error *err)
{
	int r = 0;

	if (geteuid() == 0)
		r = leave_host(protections, err);
	/* Both are undone by new ids, and so come after them. */
	if (r == 0)
		r = sandbox_no_core(protections, err);
	if (r == 0)
		r = sandbox_die_with(parent, err);
	if (r < 0)
		return r;
	*protections |= SANDBOX_DIES_WITH_KEEPER;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot set no_new_privs");
	*protections |= SANDBOX_NO_NEW_PRIVS;
	r = sandbox_landlock(-1, protections);
	if (r == 0)
		r = sandbox_seccomp_front();
	if (r < 0 && r != -EINVAL)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot confine a process");
	if (r == 0)
		*protections |= SANDBOX_SECCOMP;
	return 0;
}
