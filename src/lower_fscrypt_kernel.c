/* SPDX-License-Identifier: MIT */
/* The lower `fscrypt`: what the kernel is asked to do with keys, and its errors in words. */
#include <errno.h>
#include <linux/magic.h>
#include <sys/fsuid.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "lower_fscrypt_impl.h"
#include "util.h"

enum { BUSY_STEP_NS = 20000000 };

/* Nobody's: to try a key as somebody whom nothing is taken from by removing it again. */
enum { TRIAL_UID = 0x7ffffffe };

/* ---- words ---- */

int fscrypt_kernel_no_policy(const char *source, int fd, int code, struct error *err)
{
	struct statfs st;

	switch (code) {
	case -ENODATA:
		error_set(err, code, EXIT_STATUS_FAILED, "source %s is not encrypted: it has no policy",
			  source);
		error_hint(err, "ckrfs init --lower fscrypt %s --key 'SPEC?fmt=raw'", source);
		return code;
	case -EOPNOTSUPP:
		error_set(err, code, EXIT_STATUS_UNSUPPORTED,
			  "the file system of source %s has no encrypt feature", source);
		if (fstatfs(fd, &st) == 0)
			error_hint(err, "%s -O encrypt \"$(findmnt -no SOURCE -T %s)\"",
				   (unsigned long)st.f_type == F2FS_SUPER_MAGIC ? "fsck.f2fs" : "tune2fs",
				   source);
		return code;
	case -ENOTTY:
		return error_set(err, code, EXIT_STATUS_UNSUPPORTED,
				 "the file system of source %s cannot encrypt, or the kernel was built "
				 "without fscrypt",
				 source);
	case -EINVAL:
		return error_set(err, code, EXIT_STATUS_UNSUPPORTED,
				 "source %s is encrypted by a policy of a version that is not known here",
				 source);
	default:
		return error_errno(err, code, EXIT_STATUS_FAILED, "cannot read the policy of source %s",
				   source);
	}
}

int fscrypt_kernel_key_failed(const char *source, int code, struct error *err)
{
	switch (code) {
	case -EACCES:
	case -EPERM:
		return error_set(err, code, EXIT_STATUS_UNSUPPORTED,
				 "source %s has a policy of version 1: only root can give its key to the "
				 "file system",
				 source);
	case -EDQUOT:
		return error_set(err, code, EXIT_STATUS_FAILED, "the key quota of uid %u is used up",
				 geteuid());
	case -EINVAL:
		return error_set(err, code, EXIT_STATUS_WRONG_KEY,
				 "the kernel does not take a key of this size for source %s", source);
	case -ETIMEDOUT:
		return error_set(err, code, EXIT_STATUS_BUSY,
				 "the key of source %s is being removed by another mount", source);
	default:
		return error_errno(err, code, EXIT_STATUS_FAILED,
				   "the kernel does not take the key of source %s", source);
	}
}

/* ---- the key goes in, and out ---- */

bool fscrypt_kernel_has(int fd, const struct fskey_policy *policy)
{
	enum fskey_state state;
	bool self;

	return fskey_status(fd, policy, &state, &self) == 0 && state == FSKEY_PRESENT &&
	       (self || policy->version == 1);
}

/* Acts for the file system as uid in this thread. False: cannot, nothing has changed. */
static bool act_as(uid_t uid)
{
	setfsuid(uid);
	return (uid_t)setfsuid((uid_t)-1) == uid;
}

int fscrypt_kernel_try(int fd, int32_t serial, const struct fskey_policy *policy, struct fskey_policy *given)
{
	uid_t self = geteuid();
	unsigned left;
	int r;

	*given = *policy;
	if (!act_as(TRIAL_UID)) {
		act_as(self);
		r = fskey_add_by_serial(fd, serial, given);
		if (r == 0 && !fskey_same_key(given, policy))
			fskey_remove(fd, given, &left);
	} else {
		r = fskey_add_by_serial(fd, serial, given);
		if (r == 0)
			fskey_remove(fd, given, &left);
		act_as(self);
	}
	return r < 0 || fskey_same_key(given, policy) ? r : -EKEYREJECTED;
}

/* The key that a serial stands for may have been exchanged since it was tried. */
static int add_serial(int fd, const struct fskey_policy *policy, int32_t serial)
{
	struct fskey_policy given = *policy;
	unsigned left;
	int r = fskey_add_by_serial(fd, serial, &given);

	if (r < 0 || fskey_same_key(&given, policy))
		return r;
	fskey_remove(fd, &given, &left);
	return -EKEYREJECTED;
}

int fscrypt_kernel_add(int fd, const struct fskey_policy *policy, const struct secret *secret, int32_t serial,
		       struct fscrypt_claim *claim)
{
	enum fscrypt_origin before = fscrypt_claim_origin(claim), origin = before;
	int r;

	/* What is there without anybody's claim was there before, unless a keeper that was killed left it.
	 * Written down first: we may be killed too. */
	if (!fscrypt_claim_others(claim))
		origin = fscrypt_kernel_has(fd, policy) && before != FSCRYPT_ORIGIN_OURS
				 ? FSCRYPT_ORIGIN_FOREIGN
				 : FSCRYPT_ORIGIN_OURS;
	fscrypt_claim_set_origin(claim, origin);
	r = fscrypt_claim_set(claim);
	if (r == 0)
		r = secret ? fskey_add(fd, policy, secret) : add_serial(fd, policy, serial);
	if (r < 0) {
		fscrypt_claim_drop(claim);
		fscrypt_claim_set_origin(claim, before);
	}
	return r;
}

static unsigned left_by(unsigned left)
{
	return (left & FSKEY_LEFT_BUSY ? LOWER_LEFT_BUSY : 0) |
	       (left & FSKEY_LEFT_USERS ? LOWER_LEFT_USERS : 0);
}

/* -ENOKEY and the like: somebody else was faster. */
static int remove_patiently(int fd, const struct fskey_policy *policy, uint64_t timeout_ms,
			    unsigned *ret_left)
{
	struct timespec step = {.tv_nsec = BUSY_STEP_NS};
	uint64_t end = monotonic_ms() + timeout_ms;
	unsigned left = 0;
	int r = fskey_remove(fd, policy, &left);

	while (r == 0 && left & FSKEY_LEFT_BUSY && monotonic_ms() < end) {
		nanosleep(&step, NULL);
		left = 0;
		r = fskey_remove(fd, policy, &left);
	}
	if (r == -EUSERS)
		left = FSKEY_LEFT_USERS;
	else if (r < 0 && r != -ENOKEY)
		return r;
	*ret_left = left_by(left);
	return 0;
}

int fscrypt_kernel_remove(int fd, const struct fskey_policy *policy, struct fscrypt_claim *claim,
			  uint64_t timeout_ms, unsigned *ret_left)
{
	enum fscrypt_origin origin = fscrypt_claim_origin(claim);
	int r = 0;

	if (fscrypt_claim_others(claim)) {
		*ret_left = LOWER_LEFT_MOUNTS;
		return 0;
	}
	if (origin == FSCRYPT_ORIGIN_FOREIGN)
		*ret_left = fscrypt_kernel_has(fd, policy) ? LOWER_LEFT_FOREIGN : 0;
	else
		r = remove_patiently(fd, policy, timeout_ms, ret_left);
	if (r == 0)
		fscrypt_claim_set_origin(claim, FSCRYPT_ORIGIN_NONE);
	return r;
}
