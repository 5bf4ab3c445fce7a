/* SPDX-License-Identifier: MIT */
/*
 * The FUSE protocol where the distribution's libfuse is older than the kernel: one place that sees raw
 * requests and replies. libfuse 3.14 neither negotiates FUSE_HANDLE_KILLPRIV_V2 nor passes its flags on.
 * linux/fuse.h has the layout of all messages.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fs_impl.h"

/* Bytes of a read or write from which on answering takes longer than waking another thread. */
enum { LARGE = 32768 };

/* linux/fuse.h of Debian 12 is older than these: fuse_init_out of protocol 7.40 has max_stack_depth behind
 * flags2, and fuse_open_out has backing_id at its end. */
enum { INIT_FLAGS2_PASSTHROUGH = 1 << 5, OPEN_PASSTHROUGH = 1 << 7 };
#define INIT_OUT_STACK_DEPTH (offsetof(struct fuse_init_out, flags2) + 4)

/* For the answer that this thread is about to send. */
static _Thread_local int32_t next_backing;

_Static_assert(offsetof(struct fuse_read_in, size) == offsetof(struct fuse_write_in, size),
	       "see fs_transport_is_large()");

/* libfuse replies to INIT with the header and fuse_init_out in two parts (fuse_lowlevel.c, send_reply_ok()).
 */
static bool is_init_reply(const struct fuse_in_header *request, const struct iovec *iov, int count)
{
	const struct fuse_out_header *out = iov[0].iov_base;

	return request && request->opcode == FUSE_INIT && count == 2 && iov[0].iov_len == sizeof(*out) &&
	       out->unique == request->unique && out->error == 0 &&
	       iov[1].iov_len >= FUSE_COMPAT_22_INIT_OUT_SIZE;
}

/* The message as the kernel sent it, if it has at least size bytes behind the header. */
static const void *request_body(uint32_t opcode, size_t size)
{
	const struct fuse_buf *buf = fs_loop_request();
	const struct fuse_in_header *in = buf ? buf->mem : NULL;

	if (!in || in->opcode != opcode || buf->size < sizeof(*in) + size)
		return NULL;
	return in + 1;
}

static uint32_t request_flags2(void)
{
	const struct fuse_init_in *in = request_body(FUSE_INIT, sizeof(*in));

	return in ? in->flags2 : 0;
}

/* FUSE_ALLOW_IDMAP of newer headers, Linux 6.12: bit 40 of both words. */
enum { ALLOW_IDMAP_2 = 1 << (40 - 32) };

/* The mount may be idmapped from here on. The kernel takes it only with default_permissions. */
static int allow_idmap(const struct fuse_init_in *in, struct fuse_init_out *out, size_t out_size)
{
	if (!in || !(in->flags & FUSE_INIT_EXT) || !(in->flags2 & ALLOW_IDMAP_2) || out_size < sizeof(*out))
		return -EOPNOTSUPP;
	out->flags |= FUSE_INIT_EXT;
	out->flags2 |= ALLOW_IDMAP_2;
	return 0;
}

/* What libfuse does not ask for, but the kernel offers and we do. -EOPNOTSUPP: the kernel does not offer what
 * was asked for. */
static int extend_init(struct fs *fs, const struct iovec *iov)
{
	const struct fuse_init_in *whole = request_body(FUSE_INIT, sizeof(*whole));
	const struct fuse_init_in *in = request_body(FUSE_INIT, offsetof(struct fuse_init_in, flags2));
	struct fuse_init_out *out = iov[1].iov_base;
	uint32_t depth = 0;

	if (in && in->flags & FUSE_HANDLE_KILLPRIV_V2)
		out->flags |= FUSE_HANDLE_KILLPRIV_V2;
	fs->long_setxattr = in && in->flags & FUSE_SETXATTR_EXT;
	if (fs->long_setxattr)
		out->flags |= FUSE_SETXATTR_EXT;
	if (iov[1].iov_len >= INIT_OUT_STACK_DEPTH + sizeof(depth)) {
		depth = fs_passthrough_offered(fs, in && in->flags & FUSE_INIT_EXT &&
							   request_flags2() & INIT_FLAGS2_PASSTHROUGH);
		memcpy((char *)out + INIT_OUT_STACK_DEPTH, &depth, sizeof(depth));
	}
	if (depth) {
		out->flags |= FUSE_INIT_EXT;
		out->flags2 |= INIT_FLAGS2_PASSTHROUGH;
	}
	return fs->p.idmapped ? allow_idmap(whole, out, iov[1].iov_len) : 0;
}

/* The answer to OPEN or CREATE ends with fuse_open_out. */
static void extend_open(const struct iovec *iov, int count)
{
	const struct fuse_out_header *header = iov[0].iov_base;
	int32_t backing = next_backing;
	struct fuse_open_out *out;

	next_backing = 0;
	if (!backing || header->error || count != 2 || iov[1].iov_len < sizeof(*out))
		return;
	out = (void *)((char *)iov[1].iov_base + iov[1].iov_len - sizeof(*out));
	out->open_flags |= OPEN_PASSTHROUGH;
	out->padding = (uint32_t)backing;
}

static void init_done(struct fs *fs)
{
	fs_passthrough_probe(fs);
	if (fs->p.passthrough_needed && !fs->passthrough)
		fs_loop_fail(fs->loop, -EOPNOTSUPP);
	else if (fs->p.ready)
		fs->p.ready(fs->p.ready_ctx);
}

static ssize_t transport_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	struct fs *fs = userdata;
	const struct fuse_buf *buf = fs_loop_request();
	bool init = is_init_reply(buf ? buf->mem : NULL, iov, count);
	int r = init ? extend_init(fs, iov) : 0;
	ssize_t n;

	if (r < 0)
		fs_loop_fail(fs->loop, r);
	if (!init)
		extend_open(iov, count);
	n = fs_compat_reply(fd, iov, count);
	if (n >= 0 && init && r == 0)
		init_done(fs);
	return n;
}

static ssize_t transport_read(int fd, void *buf, size_t size, void *userdata)
{
	ssize_t n = read(fd, buf, size);

	return n > 0 ? (ssize_t)fs_compat_request(userdata, buf, (size_t)n) : n;
}

void fs_transport_set_backing(int32_t backing)
{
	next_backing = backing;
}

int fs_transport_attach(struct fs *fs, int fuse_fd)
{
	static const struct fuse_custom_io io = {
		.writev = transport_writev,
		.read = transport_read,
	};

	return fuse_session_custom_io(fs->session, &io, fuse_fd);
}

bool fs_transport_is_cached_write(void)
{
	const struct fuse_write_in *write = request_body(FUSE_WRITE, sizeof(*write));

	return write && write->write_flags & FUSE_WRITE_CACHE;
}

bool fs_transport_is_large(const struct fuse_buf *request)
{
	const struct fuse_in_header *in = request->mem;
	const struct fuse_read_in *read =
		(const void *)(in + 1); /* fuse_write_in has its size at the same place */

	switch (in->opcode) {
	case FUSE_READ:
	case FUSE_WRITE:
		return read->size >= LARGE;
	case FUSE_FSYNC:
	case FUSE_FALLOCATE:
		return true;
	default:
		return false;
	}
}

bool fs_transport_kills_suidgid(void)
{
	const struct fuse_write_in *write = request_body(FUSE_WRITE, sizeof(*write));
	const struct fuse_setattr_in *setattr = request_body(FUSE_SETATTR, sizeof(*setattr));
	const struct fuse_open_in *open = request_body(FUSE_OPEN, sizeof(*open));
	const struct fuse_create_in *create = request_body(FUSE_CREATE, sizeof(*create));

	return (write && write->write_flags & FUSE_WRITE_KILL_SUIDGID) ||
	       (setattr && setattr->valid & FATTR_KILL_SUIDGID) ||
	       (open && open->open_flags & FUSE_OPEN_KILL_SUIDGID) ||
	       (create && create->open_flags & FUSE_OPEN_KILL_SUIDGID);
}
