/* SPDX-License-Identifier: MIT */
/*
 * Lock and unlock. A gate before all requests (fs_loop.c asks fs_lock_admit() for each) is shut, and the
 * kernel is made to forget what it was told: dirty pages come back as writes, pages go, mappings fault,
 * attributes and names are asked for anew, which is refused then.
 *
 * What the kernel answers without asking goes on: advisory locks, the size of a file that is open
 * (lseek(2) to its end) as long as attr-timeout has it, and what statx(2) gives with AT_STATX_DONT_SYNC.
 *
 * Facts of Linux 6.18: fuse_reverse_inval_inode() launders dirty pages, waiting for each, unmaps and drops
 * all, and invalidates attributes, so that a cached write(2) asks for them before it takes new data; an
 * answer that was on its way is no longer believed (attr_version).
 */
#include <errno.h>
#include <linux/fuse.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fs_impl.h"
#include "util.h"

/* linux/fuse.h of Debian 12 is older than these: Linux 6.16, 6.18. */
enum { NOTIFY_INC_EPOCH = 8, NOTIFY_PRUNE = 9 };
struct notify_prune {
	uint32_t count, padding;
	uint64_t spare;
};

/* Ids asked for at a time; what requests in flight get at least to end. */
enum { IDS = 512, DRAIN_MS = 5000 };

/* ---- which requests pass ---- */

/* What the kernel sets when it brings back the times that it kept for cached writes (fuse_flush_times()). */
enum { FLUSH_TIMES = FATTR_MTIME | FATTR_CTIME | FATTR_FH };

static const void *body_of(const struct fuse_buf *request, size_t size)
{
	const struct fuse_in_header *in = request->mem;

	return request->size >= sizeof(*in) + size ? in + 1 : NULL;
}

static bool is_cached_write(const struct fuse_buf *request)
{
	const struct fuse_in_header *in = request->mem;
	const struct fuse_write_in *write = body_of(request, sizeof(*write));

	return in->opcode == FUSE_WRITE && write && write->write_flags & FUSE_WRITE_CACHE;
}

static bool is_flush(const struct fuse_buf *request)
{
	const struct fuse_in_header *in = request->mem;
	const struct fuse_setattr_in *setattr = body_of(request, sizeof(*setattr));

	if (in->opcode == FUSE_SETATTR)
		return setattr && !(setattr->valid & ~(uint32_t)FLUSH_TIMES);
	return in->opcode == FUSE_FSYNC || in->opcode == FUSE_FSYNCDIR || is_cached_write(request);
}

/* What needs no key and tells nothing, but keeps the mount a mount: unmounting, df(1), the kernel's own
 * housekeeping. FLUSH of a lower that is not remote is never implemented, which is all it is told. */
static bool is_free(const struct fs *fs, const struct fuse_buf *request)
{
	const struct fuse_in_header *in = request->mem;

	switch (in->opcode) {
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
	case FUSE_NOTIFY_REPLY:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_INIT:
	case FUSE_DESTROY:
		return true;
	case FUSE_FLUSH:
		return !fs->p.lower_remote;
	default:
		return false;
	}
}

static bool is_about_root(const struct fuse_buf *request)
{
	const struct fuse_in_header *in = request->mem;

	return in->opcode == FUSE_STATFS || (in->opcode == FUSE_GETATTR && in->nodeid == FUSE_ROOT_ID);
}

static _Thread_local bool by_copy;

bool fs_lock_by_copy(void)
{
	return by_copy;
}

static void refuse(struct fs *fs, const struct fuse_buf *request)
{
	const struct fuse_in_header *in = request->mem;
	struct fuse_out_header out = {
		.len = sizeof(out), .error = -atomic_load(&fs->refusal), .unique = in->unique};
	struct iovec iov = {&out, sizeof(out)};

	/* The lock stores what was written, and counts what it cannot: closing a file is no error. */
	if (in->opcode == FUSE_FLUSH)
		out.error = 0;
	/* Interrupted or unmounted: nobody waits for it. */
	if (writev(fuse_session_fd(fs->session), &iov, 1) < 0)
		return;
}

bool fs_lock_admit(struct fs *fs, const struct fuse_buf *request, struct fs_passage *ret)
{
	bool about_root = is_about_root(request);

	*ret = (struct fs_passage){.free = is_free(fs, request) || (about_root && !fs->p.lower_let_go)};
	by_copy = false;
	if (ret->free)
		return true;
	/* Twice: it may have been shut since we looked. Most requests find it open, and nobody looks closer.
	 */
	for (int tries = 0; tries < 2; tries++) {
		ret->kind =
			gate_state(&fs->gate) != GATE_OPEN && is_flush(request) ? GATE_FLUSH : GATE_ORDINARY;
		if (!gate_enter(&fs->gate, ret->kind))
			continue;
		if (ret->kind == GATE_FLUSH && is_cached_write(request))
			atomic_fetch_add(&fs->flushes, 1);
		return true;
	}
	if (about_root) {
		by_copy = ret->free = true;
		return true;
	}
	if (is_cached_write(request))
		atomic_fetch_add(&fs->unflushed, 1);
	refuse(fs, request);
	return false;
}

void fs_lock_passed(struct fs *fs, const struct fs_passage *passage)
{
	if (!passage->free)
		gate_leave(&fs->gate, passage->kind);
}

/* ---- what the kernel is to forget ---- */

static int notify(struct fs *fs, int code, struct iovec *iov, int count)
{
	struct fuse_out_header out = {.error = code};

	iov[0] = (struct iovec){&out, sizeof(out)};
	for (int i = 0; i < count; i++)
		out.len += (uint32_t)iov[i].iov_len;
	return writev(fuse_session_fd(fs->session), iov, count) < 0 ? -errno : 0;
}

/* With an offset below zero the kernel takes no lock and writes nothing back (fuse_reverse_inval_inode()). */
void fs_lock_forget_attributes(struct fs *fs, uint64_t id)
{
	struct fuse_notify_inval_inode_out inval = {.ino = id, .off = -1};
	struct iovec iov[2] = {[1] = {&inval, sizeof(inval)}};

	notify(fs, FUSE_NOTIFY_INVAL_INODE, iov, 2);
}

/* -ENOENT: the kernel has forgotten it already. */
static void forget_contents(struct fs *fs, uint64_t id)
{
	struct fuse_notify_inval_inode_out inval = {.ino = id};
	struct iovec iov[2] = {[1] = {&inval, sizeof(inval)}};

	notify(fs, FUSE_NOTIFY_INVAL_INODE, iov, 2);
}

/* Of all inodes that the kernel knows. -ETIMEDOUT */
static int forget_all_contents(struct fs *fs, uint64_t deadline)
{
	uint64_t ids[IDS];
	uint32_t at = 0;
	size_t n;

	while ((n = node_ids(fs->nodes, &at, ids, IDS)))
		for (size_t i = 0; i < n; i++) {
			if (monotonic_ms() > deadline)
				return -ETIMEDOUT;
			forget_contents(fs, ids[i]);
		}
	return 0;
}

/* Kernels that know neither ask again when entry-timeout is over. */
static void forget_all_names(struct fs *fs)
{
	struct notify_prune prune = {0};
	uint64_t ids[IDS];
	struct iovec iov[3];
	uint32_t at = 0;
	size_t n;

	notify(fs, NOTIFY_INC_EPOCH, iov, 1);
	while ((n = node_ids(fs->nodes, &at, ids, IDS))) {
		prune.count = (uint32_t)n;
		iov[1] = (struct iovec){&prune, sizeof(prune)};
		iov[2] = (struct iovec){ids, n * sizeof(ids[0])};
		if (notify(fs, NOTIFY_PRUNE, iov, 3) == -EINVAL)
			break;
	}
}

/* Until a pass brings back nothing. Whoever was let into a write(2) before goes on dirtying pages until it
 * ends. */
static int launder(struct fs *fs, uint64_t deadline)
{
	uint64_t before;
	int r;

	do {
		before = atomic_load(&fs->flushes);
		r = forget_all_contents(fs, deadline);
	} while (r == 0 && atomic_load(&fs->flushes) != before);
	return r;
}

/* ---- lock and unlock ---- */

static int still_busy(struct fs *fs, struct error *err)
{
	gate_set(&fs->gate, GATE_OPEN);
	return error_set(err, -ETIMEDOUT, EXIT_STATUS_FAILED,
			 "requests are still being answered (is the disk slow?); it is not locked");
}

int fs_lock_begin(struct fs *fs, int refusal, uint64_t timeout_ms, struct error *err)
{
	if (gate_state(&fs->gate) == GATE_SHUT)
		return 0;
	atomic_store(&fs->refusal, refusal);
	atomic_store(&fs->unflushed, 0);
	fs_lower_remember(fs);
	gate_set(&fs->gate, GATE_SHUTTING);
	if (gate_wait(&fs->gate, max_u64(timeout_ms, DRAIN_MS)) < 0)
		return still_busy(fs, err);
	if (node_any_passes(fs->nodes)) {
		gate_set(&fs->gate, GATE_OPEN);
		return error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED,
				 "files are open by kernel passthrough, and cannot be taken back");
	}
	return 0;
}

int fs_lock_finish(struct fs *fs, uint64_t timeout_ms, struct fs_lock_report *ret, struct error *err)
{
	uint64_t deadline = monotonic_ms() + timeout_ms;

	if (gate_state(&fs->gate) == GATE_SHUT)
		return 0;
	ret->timed_out = launder(fs, deadline) < 0;
	gate_set(&fs->gate, GATE_SHUT);
	if (gate_wait(&fs->gate, max_u64(timeout_ms, DRAIN_MS)) < 0)
		return still_busy(fs, err);
	/* Nothing is served any more, so that this ends: what is dirty now is refused, and counted. */
	forget_all_contents(fs, UINT64_MAX);
	forget_all_names(fs);
	fs_file_restore_times(fs);
	fs_ahead_drop_all(fs);
	fs_lower_sync(fs);
	fs_lower_let_go(fs);
	format_lock(fs->p.format);
	fs_loop_wipe(fs->loop);
	ret->unflushed = atomic_load(&fs->unflushed);
	return 0;
}

/* The format first: what it has on the lower is part of what is taken. */
static int take_all(struct fs *fs, const struct secret *key, int root_fd, struct error *err)
{
	int r = format_restart(fs->p.format, key, err);

	if (r < 0)
		return r;
	r = fs_lower_take(fs, root_fd);
	if (r < 0) {
		fs_lower_let_go(fs);
		format_lock(fs->p.format);
		return error_errno(err, r, EXIT_STATUS_FAILED, "files that are open cannot be opened again");
	}
	if (fs->p.lower_let_go)
		format_take(fs->p.format);
	return 0;
}

int fs_unlock(struct fs *fs, const struct secret *key, int root_fd, uint64_t *ret_late, struct error *err)
{
	int r;

	*ret_late = 0;
	if (gate_state(&fs->gate) != GATE_SHUT)
		return 0;
	r = take_all(fs, key, root_fd, err);
	if (r < 0)
		return r;
	*ret_late = atomic_load(&fs->unflushed);
	gate_set(&fs->gate, GATE_OPEN);
	return 0;
}
