/* SPDX-License-Identifier: MIT */
/*
 * The lower `fscrypt`: a directory that its file system encrypts, with a key that the kernel holds. The
 * kernel drops files when their key is removed, but for those that are in use: so nothing here keeps an fd of
 * an encrypted directory while the key is taken away; what is asked of the file system then is asked of the
 * nearest directory above that is not encrypted.
 */
#include "lower_fscrypt.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "lower_fscrypt_impl.h"
#include "store.h"
#include "util.h"

enum { BUSY_STEP_NS = 20000000, DEPTH_MAX = 4096 };

/* Nobody's: to try a key as somebody whom nothing is taken from by removing it again. */
enum { TRIAL_UID = 0x7ffffffe };

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

/* ---- words ---- */

static int no_policy(const struct lower *l, int fd, int code, struct error *err)
{
	const char *source = l->params.source;
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

static int key_failed(const struct lower *l, int code, struct error *err)
{
	const char *source = l->params.source;

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
		return no_policy(l, fd, r, err);
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

/* Has this user given the key to the kernel already? */
static bool is_there(int fd, const struct fskey_policy *policy)
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

/*
 * What key a serial stands for only the kernel can tell, by taking it. As another user, so that taking it
 * back does not take away what was there before. 0, -EKEYREJECTED with what it is in given.
 */
static int try_serial(int fd, int32_t serial, const struct fskey_policy *policy, struct fskey_policy *given)
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
	r = try_serial(f->base_fd, serial, &f->policy, &given);
	if (r == -EKEYREJECTED) {
		fskey_id_text(&given, text);
		return error_set(err, r, EXIT_STATUS_WRONG_KEY,
				 "wrong key: source %s is encrypted with key %s, not with %s",
				 l->params.source, f->key_text, text);
	}
	return r < 0 ? key_failed(l, r, err) : 0;
}

/* Adds it in our turn; secret NULL: by serial. */
static int add(int fd, struct fskey_policy *policy, const struct secret *secret, int32_t serial,
	       struct fscrypt_claim *claim)
{
	enum fscrypt_origin before = fscrypt_claim_origin(claim), origin = before;
	int r;

	/* What is there without anybody's claim was there before, unless a keeper that was killed left it.
	 * Written down first: we may be killed too. */
	if (!fscrypt_claim_others(claim))
		origin = is_there(fd, policy) && before != FSCRYPT_ORIGIN_OURS ? FSCRYPT_ORIGIN_FOREIGN
									       : FSCRYPT_ORIGIN_OURS;
	fscrypt_claim_set_origin(claim, origin);
	r = fscrypt_claim_set(claim);
	if (r == 0)
		r = secret ? fskey_add(fd, policy, secret) : fskey_add_by_serial(fd, serial, policy);
	if (r < 0) {
		fscrypt_claim_drop(claim);
		fscrypt_claim_set_origin(claim, before);
	}
	return r;
}

static int add_in_turn(const struct lower *l, const struct secret *secret, int32_t serial, struct error *err)
{
	struct fscrypt *f = l->state;
	int r = fscrypt_claim_enter(&f->claim);

	if (r == 0)
		r = add(f->base_fd, &f->policy, secret, serial, &f->claim);
	fscrypt_claim_leave(&f->claim);
	return r < 0 ? key_failed(l, r, err) : 0;
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

/* In our turn, without a claim of our own. */
static int remove_if_last(int fd, const struct fskey_policy *policy, struct fscrypt_claim *claim,
			  uint64_t timeout_ms, unsigned *ret_left)
{
	enum fscrypt_origin origin = fscrypt_claim_origin(claim);
	int r = 0;

	if (fscrypt_claim_others(claim)) {
		*ret_left = LOWER_LEFT_MOUNTS;
		return 0;
	}
	if (origin == FSCRYPT_ORIGIN_FOREIGN)
		*ret_left = is_there(fd, policy) ? LOWER_LEFT_FOREIGN : 0;
	else
		r = remove_patiently(fd, policy, timeout_ms, ret_left);
	if (r == 0)
		fscrypt_claim_set_origin(claim, FSCRYPT_ORIGIN_NONE);
	return r;
}

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
			r = remove_if_last(f->base_fd, &f->policy, &f->claim, timeout_ms, ret_left);
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
		r = remove_if_last(f->base_fd, &f->policy, &f->claim, timeout_ms, ret_left);
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

/* ---- making one ---- */

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
		r = add(fd, how, key->bytes, key->serial, claim);
	if (r == 0) {
		r = fskey_set_policy(fd, how);
		fscrypt_claim_drop(claim);
		remove_if_last(fd, how, claim, 0, &left);
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
	r = try_serial(fd, key->serial, &none, how);
	if (r == -EKEYREJECTED)
		return 0;
	return r;
}

int lower_fscrypt_init(int dir_fd, const char *directory, const struct key *key, int claims_fd,
		       struct fskey_policy *how, struct error *err)
{
	struct lower l = {.params.source = directory};
	struct fscrypt_claim claim = FSCRYPT_CLAIM_NONE;
	struct fskey_policy there, made = *how;
	struct stat st;
	int r = fskey_get_policy(dir_fd, &there);

	if (r == 0)
		return set_failed(-EEXIST, directory, err);
	if (r != -ENODATA)
		return no_policy(&l, dir_fd, r, err);
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
		return key_failed(&l, r, err);
	r = init_in_turn(dir_fd, key, &made, &claim);
	fscrypt_claim_close(&claim);
	if (r < 0)
		return set_failed(r, directory, err);
	*how = made;
	return 0;
}
