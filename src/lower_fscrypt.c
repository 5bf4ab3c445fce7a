/* SPDX-License-Identifier: MIT */
/*
 * The lower `fscrypt`: a directory that its file system encrypts, with a key that the kernel holds. The
 * kernel drops files when their key is removed, but for those that are in use: so nothing here keeps an fd of
 * an encrypted directory while the key is taken away; what is asked of the file system then is asked of the
 * nearest directory above that is not encrypted.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "lower_fscrypt_impl.h"
#include "store.h"
#include "util.h"

enum { DEPTH_MAX = 4096 };

struct fscrypt {
	struct fskey_policy policy;
	char key_text[33];
	int base_fd; /* nearest directory above that is not encrypted with this key, else the directory itself
		      */
	int top_fd;  /* root of the mount, O_PATH */
	uint64_t dev, ino;
	struct store_handle handle; /* size 0: cannot be opened by it */
	struct fscrypt_claim claim;
	bool claimed; /* where claims are not counted: the key is in the kernel */
};

/* ---- open ---- */

static int mount_id(int fd, uint64_t *ret)
{
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &st) < 0)
		return -errno;
	if (!(st.stx_mask & STATX_MNT_ID))
		return -EOPNOTSUPP;
	*ret = st.stx_mnt_id;
	return 0;
}

/* The parent in the same mount, O_PATH; -ENOENT at its root. */
static int parent_of(int fd)
{
	autofd int parent = openat(fd, "..", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	uint64_t here, there;
	struct stat a, b;
	int r;

	if (parent < 0)
		return -errno;
	r = mount_id(fd, &here);
	if (r == 0)
		r = mount_id(parent, &there);
	if (r < 0)
		return r;
	if (fstat(fd, &a) < 0 || fstat(parent, &b) < 0)
		return -errno;
	if (here != there || (a.st_ino == b.st_ino && a.st_dev == b.st_dev))
		return -ENOENT;
	return steal_fd(&parent);
}

/* An fd to ask the file system by that is not in use by being asked: -1 if it is encrypted too. */
static int as_base(const struct fscrypt *f, int fd)
{
	autofd int readable = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct fskey_policy policy;

	if (readable < 0 || (fskey_get_policy(readable, &policy) == 0 && fskey_same_key(&policy, &f->policy)))
		return -1;
	return steal_fd(&readable);
}

/* Walks up to the root of the mount: base_fd and top_fd. */
static int find_above(struct fscrypt *f, int fd)
{
	autofd int at = openat(fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (at < 0)
		return -errno;
	for (int depth = 0; depth < DEPTH_MAX; depth++) {
		int parent = parent_of(at);

		if (parent < 0)
			break;
		close(at);
		at = parent;
		if (f->base_fd < 0)
			f->base_fd = as_base(f, at);
	}
	f->top_fd = steal_fd(&at);
	/* Then it is in use as long as we are, and the kernel says so when the key is removed. */
	if (f->base_fd < 0)
		f->base_fd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return f->base_fd < 0 ? -errno : 0;
}

/* Only who may open handles has use for one. */
static void remember_handle(struct fscrypt *f, int fd)
{
	autofd int again = -1;

	if (store_handle(fd, "", &f->handle) < 0) {
		f->handle.size = 0;
		return;
	}
	again = store_open_handle(f->base_fd, &f->handle, O_PATH);
	if (again < 0)
		f->handle.size = 0;
}

static int claims_dir(const struct lower_params *params)
{
	return params->claims_fd > 0 ? params->claims_fd : -1;
}

/* What is to be known of the directory. */
static int look(struct lower *l, int fd, struct error *err)
{
	struct fscrypt *f = l->state;
	struct stat st;
	int r = fskey_get_policy(fd, &f->policy);

	if (r < 0)
		return fscrypt_kernel_no_policy(l->params.source, fd, r, err);
	fskey_id_text(&f->policy, f->key_text);
	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot open source %s",
				   l->params.source);
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	r = find_above(f, fd);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot look above source %s",
				   l->params.source);
	remember_handle(f, fd);
	return 0;
}

static int state_new(struct lower *l, struct error *err)
{
	struct fscrypt *f = calloc(1, sizeof(*f));

	if (!f)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot open source %s",
				   l->params.source);
	f->base_fd = f->top_fd = -1;
	f->claim = FSCRYPT_CLAIM_NONE;
	l->state = f;
	return 0;
}

static int fscrypt_open(struct lower *l, struct error *err)
{
	struct fscrypt *f;
	int r = state_new(l, err);

	if (r == 0)
		r = lower_directory_open(l, err);
	if (r == 0)
		r = look(l, l->lock_fd, err);
	if (r < 0)
		return r;
	f = l->state;
	r = fscrypt_claim_open(claims_dir(&l->params), f->dev, &f->policy, true, &f->claim);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot write to the runtime directory") : 0;
}

static const char *fscrypt_key_identifier(const struct lower *l)
{
	const struct fscrypt *f = l->state;

	return f->key_text;
}

/* ---- the key goes in ---- */

static int check_serial(const struct lower *l, int32_t serial, struct error *err)
{
	const struct fscrypt *f = l->state;
	struct fskey_policy given;
	char text[33];
	int r;

	if (f->policy.version == 1)
		return error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED,
				 "source %s has a policy of version 1: whether a key that only the kernel "
				 "reads is the right one cannot be known",
				 l->params.source);
	r = fscrypt_kernel_try(f->base_fd, serial, &f->policy, &given);
	if (r == -EKEYREJECTED) {
		fskey_id_text(&given, text);
		return error_set(err, r, EXIT_STATUS_WRONG_KEY,
				 "wrong key: source %s is encrypted with key %s, not with %s",
				 l->params.source, f->key_text, text);
	}
	return r < 0 ? fscrypt_kernel_key_failed(l->params.source, r, err) : 0;
}

static int add_in_turn(const struct lower *l, const struct secret *secret, int32_t serial, struct error *err)
{
	struct fscrypt *f = l->state;
	int r = fscrypt_claim_enter(&f->claim);

	if (r == 0)
		r = fscrypt_kernel_add(f->base_fd, &f->policy, secret, serial, &f->claim);
	fscrypt_claim_leave(&f->claim);
	return r < 0 ? fscrypt_kernel_key_failed(l->params.source, r, err) : 0;
}

static int fscrypt_unlock(struct lower *l, const struct key *key, struct error *err)
{
	struct fscrypt *f = l->state;
	autosecret struct secret *secret = NULL;
	int r = key->serial ? check_serial(l, key->serial, err)
			    : fscrypt_secret_find(f->top_fd, &f->policy, key, l->params.memory,
						  l->params.source, &secret, err);

	if (r == 0)
		r = add_in_turn(l, secret, key->serial, err);
	f->claimed |= r == 0;
	return r;
}

/* ---- the key comes out ---- */

static int fscrypt_lock(struct lower *l, uint64_t timeout_ms, unsigned *ret_left, struct error *err)
{
	struct fscrypt *f = l->state;
	int r;

	/* A child may have given the key: the claim knows. */
	if (f->claim.fd < 0 && !f->claimed)
		return 0;
	r = fscrypt_claim_enter(&f->claim);
	if (r == 0) {
		fscrypt_claim_drop(&f->claim);
		if (f->claim.fd < 0 || fscrypt_claim_origin(&f->claim) != FSCRYPT_ORIGIN_NONE)
			r = fscrypt_kernel_remove(f->base_fd, &f->policy, &f->claim, timeout_ms, ret_left);
	}
	fscrypt_claim_leave(&f->claim);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED,
				   "cannot take the key of source %s from the kernel", l->params.source);
	f->claimed = false;
	return 0;
}

/* Is there something left to do? Nobody may have given the key again since. */
static bool is_leaving(const struct fscrypt *f)
{
	enum fskey_state state;
	bool self;

	return !fscrypt_claim_others(&f->claim) && fscrypt_claim_origin(&f->claim) == FSCRYPT_ORIGIN_NONE &&
	       fskey_status(f->base_fd, &f->policy, &state, &self) == 0 && state == FSKEY_LEAVING;
}

/* 1: again. */
static int linger_once(struct fscrypt *f)
{
	unsigned left;
	int r = fscrypt_claim_enter(&f->claim);

	if (r == 0)
		r = is_leaving(f) && fskey_remove(f->base_fd, &f->policy, &left) == 0 &&
		    left & FSKEY_LEFT_BUSY;
	fscrypt_claim_leave(&f->claim);
	return r;
}

static int compare_fds(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* The claim of this process is the file alone. */
static void fscrypt_linger(struct lower *l)
{
	struct fscrypt *f = l->state;
	int keep[] = {STDERR_FILENO, f->base_fd, f->claim.fd, f->claim.dir_fd};
	struct timespec step = {.tv_sec = 1};

	if (f->claim.fd < 0)
		return;
	qsort(keep, ARRAY_SIZE(keep), sizeof(keep[0]), compare_fds);
	for (size_t i = 0; i < ARRAY_SIZE(keep); i++) {
		unsigned last = i + 1 < ARRAY_SIZE(keep) ? (unsigned)keep[i + 1] - 1 : ~0U;

		if ((unsigned)keep[i] + 1 <= last)
			close_range((unsigned)keep[i] + 1, last, 0);
	}
	while (linger_once(f) == 1)
		nanosleep(&step, NULL);
	fscrypt_claim_close(&f->claim);
}

/* ---- in between ---- */

/* By its handle: the names above may be locked too. */
static int find_again(const struct lower *l, struct error *err)
{
	const struct fscrypt *f = l->state;
	autofd int fd = -1;
	struct stat st;

	if (f->handle.size)
		fd = store_open_handle(f->base_fd, &f->handle, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		fd = lower_directory_find(l, err);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0 || st.st_dev != f->dev || st.st_ino != f->ino)
		return error_set(err, -ESTALE, EXIT_STATUS_FAILED, "source %s is not what it was",
				 l->params.source);
	return steal_fd(&fd);
}

static int fscrypt_take(struct lower *l, struct error *err)
{
	int fd = find_again(l, err);

	return fd < 0 ? fd : lower_directory_adopt(l, fd, err);
}

static void fscrypt_close(struct lower *l)
{
	struct fscrypt *f = l->state;

	if (!f)
		return;
	fscrypt_claim_close(&f->claim);
	cleanup_close(&f->base_fd);
	cleanup_close(&f->top_fd);
	free(f);
}

/* ---- what others have left ---- */

static int clean(struct lower *l, uint64_t timeout_ms, unsigned *ret_left)
{
	struct fscrypt *f = l->state;
	enum fskey_state state;
	bool self, ours;
	int r = fscrypt_claim_open(claims_dir(&l->params), f->dev, &f->policy, false, &f->claim);

	if (r < 0 && r != -ENOENT)
		return r;
	r = fscrypt_claim_enter(&f->claim);
	if (r < 0)
		return r;
	ours = fscrypt_claim_origin(&f->claim) == FSCRYPT_ORIGIN_OURS;
	r = fskey_status(f->base_fd, &f->policy, &state, &self);
	if (r == 0 && (ours || state == FSKEY_LEAVING))
		r = fscrypt_kernel_remove(f->base_fd, &f->policy, &f->claim, timeout_ms, ret_left);
	fscrypt_claim_leave(&f->claim);
	return r;
}

static int fscrypt_clean(const struct lower_params *params, uint64_t timeout_ms, unsigned *ret_left)
{
	struct lower l = {.params = *params, .root_fd = -1, .lock_fd = -1, .mount_fd = -1};
	struct stat st;
	autofd int fd = -1;
	int r = 0;

	/* A file system that was mounted by the keeper alone is gone with it, and its keys are. */
	if (stat(params->source, &st) == 0 && S_ISBLK(st.st_mode)) {
		if (claims_dir(params) >= 0)
			fscrypt_claim_sweep(params->claims_fd, st.st_rdev);
		return 0;
	}
	fd = lower_directory_find(&l, NULL);
	if (fd < 0 || state_new(&l, NULL) < 0)
		return fd < 0 ? fd : -ENOMEM;
	r = look(&l, fd, NULL);
	cleanup_close(&fd);
	fd = -1;
	if (r == 0)
		r = clean(&l, timeout_ms, ret_left);
	fscrypt_close(&l);
	return r;
}

const struct lower_ops lower_fscrypt_ops = {
	.name = "fscrypt",
	.open = fscrypt_open,
	.lock_alone = lower_directory_lock_alone,
	.key_identifier = fscrypt_key_identifier,
	.unlock = fscrypt_unlock,
	.lock = fscrypt_lock,
	.linger = fscrypt_linger,
	.take = fscrypt_take,
	.clean = fscrypt_clean,
	.close = fscrypt_close,
};
