/* SPDX-License-Identifier: MIT */
/*
 * Requests that newer kernels send and libfuse 3.14 does not know: each is turned into the one it does know
 * that is nearest, and what was different is kept with the thread until it has answered. FUSE_TMPFILE is a
 * FUSE_CREATE without a name, FUSE_STATX a FUSE_GETATTR with one time more in the answer, and the longer
 * FUSE_SETXATTR has two words more.
 */
#include <linux/fuse.h>
#include <string.h>
#include <sys/uio.h>

#include "fs_impl.h"
#include "store.h"

/* linux/fuse.h of Debian 12 has 7.38; these came with 7.39. */
enum { OP_TMPFILE = 51, OP_STATX = 52 };

enum { MASK_BASIC = 0x7ff, MASK_BTIME = 0x800 };

struct sx_time {
	int64_t seconds;
	uint32_t nanoseconds;
	int32_t reserved;
};

struct statx_out {
	uint64_t valid;
	uint32_t valid_nsec, flags;
	uint64_t spare[2];
	uint32_t mask, blksize;
	uint64_t attributes;
	uint32_t nlink, uid, gid;
	uint16_t mode, spare0;
	uint64_t ino, size, blocks, attributes_mask;
	struct sx_time atime, btime, ctime, mtime;
	uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
	uint64_t spare2[14];
};
_Static_assert(sizeof(struct statx_out) == 32 + 256, "struct fuse_statx_out");

static _Thread_local struct {
	uint32_t opcode; /* as the kernel sent it */
	uint32_t setxattr_flags;
	bool born_known;
	struct timespec born;
} request;

/* Takes the two words out that libfuse does not know. */
static size_t shorten_setxattr(struct fuse_in_header *in, size_t size)
{
	struct fuse_setxattr_in *arg = (void *)(in + 1);
	uint8_t *extra = (uint8_t *)arg + FUSE_COMPAT_SETXATTR_IN_SIZE;
	size_t cut = sizeof(*arg) - FUSE_COMPAT_SETXATTR_IN_SIZE;

	if (size < sizeof(*in) + sizeof(*arg))
		return size;
	request.setxattr_flags = arg->setxattr_flags;
	memmove(extra, extra + cut, size - sizeof(*in) - sizeof(*arg));
	in->len -= (uint32_t)cut;
	return size - cut;
}

size_t fs_compat_request(const struct fs *fs, void *buf, size_t size)
{
	struct fuse_in_header *in = buf;

	request.opcode = 0;
	if (size < sizeof(*in))
		return size;
	request.opcode = in->opcode;
	request.setxattr_flags = 0;
	request.born_known = false;
	if (in->opcode == OP_TMPFILE)
		in->opcode = FUSE_CREATE;
	else if (in->opcode == OP_STATX) /* struct fuse_statx_in begins as struct fuse_getattr_in */
		in->opcode = FUSE_GETATTR;
	else if (in->opcode == FUSE_SETXATTR && fs->long_setxattr)
		return shorten_setxattr(in, size);
	return size;
}

bool fs_compat_is_tmpfile(void)
{
	return request.opcode == OP_TMPFILE;
}

bool fs_compat_kills_sgid(void)
{
	return request.opcode == FUSE_SETXATTR && request.setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID;
}

void fs_compat_take_birth(int fd)
{
	if (request.opcode == OP_STATX)
		request.born_known = store_birth(fd, &request.born) == 0;
}

static void fill_statx(const struct fuse_attr_out *in, struct statx_out *out)
{
	const struct fuse_attr *a = &in->attr;

	*out = (struct statx_out){
		.valid = in->attr_valid,
		.valid_nsec = in->attr_valid_nsec,
		.mask = MASK_BASIC | (request.born_known ? MASK_BTIME : 0),
		.blksize = a->blksize,
		.nlink = a->nlink,
		.uid = a->uid,
		.gid = a->gid,
		.mode = (uint16_t)a->mode,
		.ino = a->ino,
		.size = a->size,
		.blocks = a->blocks,
		.atime = {(int64_t)a->atime, a->atimensec, 0},
		.ctime = {(int64_t)a->ctime, a->ctimensec, 0},
		.mtime = {(int64_t)a->mtime, a->mtimensec, 0},
		/* The kernel's encoding of device numbers in 32 bits. */
		.rdev_major = (a->rdev & 0xfff00) >> 8,
		.rdev_minor = (a->rdev & 0xff) | (a->rdev >> 12 & 0xfff00),
	};
	if (request.born_known)
		out->btime = (struct sx_time){request.born.tv_sec, (uint32_t)request.born.tv_nsec, 0};
}

ssize_t fs_compat_reply(int fd, struct iovec *iov, int count)
{
	struct fuse_out_header *head = iov[0].iov_base;
	struct statx_out out;

	if (request.opcode == OP_STATX && count == 2 && head->unique && !head->error &&
	    iov[1].iov_len >= sizeof(struct fuse_attr_out)) {
		fill_statx(iov[1].iov_base, &out);
		iov[1] = (struct iovec){&out, sizeof(out)};
		head->len = (uint32_t)(sizeof(*head) + sizeof(out));
	}
	return writev(fd, iov, count);
}
