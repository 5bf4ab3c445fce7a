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
static int extend_init(const struct fs *fs, const struct iovec *iov)
{
	const struct fuse_init_in *whole = request_body(FUSE_INIT, sizeof(*whole));
	const struct fuse_init_in *in = request_body(FUSE_INIT, offsetof(struct fuse_init_in, flags2));
	struct fuse_init_out *out = iov[1].iov_base;

	if (in && in->flags & FUSE_HANDLE_KILLPRIV_V2)
		out->flags |= FUSE_HANDLE_KILLPRIV_V2;
	return fs->p.idmapped ? allow_idmap(whole, out, iov[1].iov_len) : 0;
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
	n = writev(fd, iov, count);
	if (n >= 0 && init && r == 0 && fs->p.ready)
		fs->p.ready(fs->p.ready_ctx);
	return n;
}

static ssize_t transport_read(int fd, void *buf, size_t size, void *userdata)
{
	return read(fd, buf, size);
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
