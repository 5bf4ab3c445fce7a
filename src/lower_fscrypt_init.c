/* SPDX-License-Identifier: MIT */
#include "lower_fscrypt.h"

#include <errno.h>
#include <sys/stat.h>

#include "lower_fscrypt_impl.h"

static int set_failed(int code, const char *directory, struct error *err)
{
	switch (code) {
	case -EEXIST:
		return error_set(err, code, EXIT_STATUS_FAILED, "%s is encrypted already", directory);
	case -ENOTEMPTY:
		return error_set(err, code, EXIT_STATUS_FAILED, "%s is not empty", directory);
	case -EINVAL:
		return error_set(err, code, EXIT_STATUS_UNSUPPORTED,
				 "the kernel does not have these modes together on the file system of %s",
				 directory);
	case -EPERM:
		return error_set(err, code, EXIT_STATUS_UNSUPPORTED,
				 "%s cannot be encrypted: it is the root of its file system", directory);
	default:
		return error_errno(err, code, EXIT_STATUS_FAILED, "cannot encrypt %s", directory);
	}
}

/* The kernel wants to have seen the key of a policy that it sets. */
static int init_in_turn(int fd, const struct key *key, struct fskey_policy *how, struct fscrypt_claim *claim)
{
	unsigned left;
	int r = fscrypt_claim_enter(claim);

	if (r == 0)
		r = fscrypt_kernel_add(fd, how, key->bytes, key->serial, claim);
	if (r == 0) {
		r = fskey_set_policy(fd, how);
		fscrypt_claim_drop(claim);
		fscrypt_kernel_remove(fd, how, claim, 0, &left);
	}
	fscrypt_claim_leave(claim);
	return r;
}

/* The key's identifier, before anything is done. */
static int identify(int fd, const struct key *key, struct fskey_policy *how)
{
	struct fskey_policy none = {.version = 2};
	int r;

	if (!key->serial)
		return fskey_identify(key->bytes, how);
	r = fscrypt_kernel_try(fd, key->serial, &none, how);
	if (r == -EKEYREJECTED)
		return 0;
	return r;
}

int lower_fscrypt_init(int dir_fd, const char *directory, const struct key *key, int claims_fd,
		       struct fskey_policy *how, struct error *err)
{
	struct fscrypt_claim claim = FSCRYPT_CLAIM_NONE;
	struct fskey_policy there, made = *how;
	struct stat st;
	int r = fskey_get_policy(dir_fd, &there);

	if (r == 0)
		return set_failed(-EEXIST, directory, err);
	if (r != -ENODATA)
		return fscrypt_kernel_no_policy(directory, dir_fd, r, err);
	r = identify(dir_fd, key, &made);
	/* identify() of a serial has taken the modes of none */
	made.version = 2;
	made.contents = how->contents;
	made.names = how->names;
	made.flags = how->flags;
	if (r == 0 && fstat(dir_fd, &st) < 0)
		r = -errno;
	if (r == 0)
		r = fscrypt_claim_open(claims_fd, st.st_dev, &made, true, &claim);
	if (r < 0)
		return fscrypt_kernel_key_failed(directory, r, err);
	r = init_in_turn(dir_fd, key, &made, &claim);
	fscrypt_claim_close(&claim);
	if (r < 0)
		return set_failed(r, directory, err);
	*how = made;
	return 0;
}
