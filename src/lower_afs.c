/* SPDX-License-Identifier: MIT */
/*
 * The lower `afs`: a volume of AFS, by the kernel's own client (kAFS). It is mounted without a place in any
 * namespace, by fsopen(2) and fsmount(2); what is asked of the servers is asked with the token in the mount's
 * ring. Linux Documentation/filesystems/afs.rst.
 *
 * The kernel shares superblocks among all mounts of a volume in a network namespace: what keeps others out is
 * that they have no token, and that this mount is nowhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "lower_impl.h"
#include "netns.h"
#include "util.h"

/* The payload of a token: Linux net/rxrpc/key.c, struct rxrpc_key_data_v1. */
struct rxrpc_v1 {
	uint32_t version;
	uint16_t security, ticket_length;
	uint32_t expiry, kvno;
	uint8_t session_key[8];
};
_Static_assert(sizeof(struct rxrpc_v1) == 24, "the ticket follows");
enum { VERSION_1 = 1, SECURITY_RXKAD = 2 };

/* What children of the keeper do is seen by the keeper: shared memory. */
struct token {
	struct keyring_token key;
	int64_t expires; /* seconds since 1970 */
};

struct afs {
	char cell[KEYRING_CELL_MAX + 1];
	int tree_fd; /* O_PATH: the volume's root or the subtree */
	struct token *token;
};

/* ---- open ---- */

static int state_new(struct lower *l)
{
	const char *cell = l->params.source + 1, *colon = strchr(cell, ':');
	struct afs *a = calloc(1, sizeof(*a));
	void *p;

	if (!a)
		return -ENOMEM;
	a->tree_fd = -1;
	l->state = a;
	p = mmap(NULL, sizeof(*a->token), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	a->token = p;
	/* config_options.c has looked at the source. */
	snprintf(a->cell, sizeof(a->cell), "%.*s", (int)(colon ? colon - cell : 0), cell);
	return 0;
}

/* One that the kernel knows already keeps the servers that it has. */
static int register_cell(const struct lower *l, struct error *err)
{
	const struct afs *a = l->state;
	autofd int fd = -1;
	autofree char *line = NULL;
	int n;

	if (!l->params.servers)
		return 0;
	fd = open("/proc/net/afs/cells", O_WRONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : asprintf(&line, "add %s %s", a->cell, l->params.servers);
	if (n < 0)
		return error_errno(err, fd < 0 ? -errno : -ENOMEM, EXIT_STATUS_FAILED,
				   "cannot tell the kernel of cell %s", a->cell);
	if (write(fd, line, (size_t)n) < 0 && errno != EEXIST)
		return error_errno(err, -errno, EXIT_STATUS_FAILED,
				   "the kernel does not take afs-servers = %s for cell %s", l->params.servers,
				   a->cell);
	return 0;
}

static int no_client(int code, struct error *err)
{
	if (code == -EPERM)
		return error_set(err, code, EXIT_STATUS_UNSUPPORTED,
				 "only root of the machine mounts AFS, not in a user namespace");
	if (code != -ENODEV)
		return error_errno(err, code, EXIT_STATUS_FAILED, "cannot mount AFS");
	error_set(err, code, EXIT_STATUS_UNSUPPORTED,
		  "this kernel has no client for AFS (CONFIG_AFS_FS, the module kafs)");
	error_hint(err, "modprobe kafs");
	return code;
}

static int not_mounted(const struct lower *l, int code, struct error *err)
{
	const struct afs *a = l->state;
	const char *source = l->params.source;

	switch (code) {
	case -ENOMEDIUM:
		return error_set(err, code, EXIT_STATUS_NO_VOLUME, "source %s: cell %s has no such volume",
				 source, a->cell);
	case -EDESTADDRREQ:
	case -ENOKEY:
	case -ENODATA:
	case -ENOPKG:
	case -EAGAIN:
		error_set(err, code, EXIT_STATUS_NO_VOLUME,
			  "source %s: no servers are known for cell %s (DNS does not tell the kernel)",
			  source, a->cell);
		error_hint(err, "ckrfs mount ... -o afs-servers=ADDRESS");
		return code;
	case -EHOSTUNREACH:
	case -ENETUNREACH:
	case -EHOSTDOWN:
	case -ECONNREFUSED:
	case -ETIMEDOUT:
	case -ETIME:
		return error_errno(err, code, EXIT_STATUS_FAILED,
				   "source %s: the volume location servers of cell %s do not answer", source,
				   a->cell);
	case -EPERM:
		return no_client(code, err);
	default:
		return error_errno(err, code, EXIT_STATUS_FAILED, "cannot mount source %s", source);
	}
}

/* In the right network namespace, without a token: an fd of the mount, O_PATH. */
static int mount_volume(const struct lower *l, struct error *err)
{
	autofd int fs = fsopen("afs", FSOPEN_CLOEXEC);
	int fd, r;

	if (fs < 0)
		return no_client(-errno, err);
	r = register_cell(l, err);
	if (r < 0)
		return r;
	if (fsconfig(fs, FSCONFIG_SET_STRING, "source", l->params.source, 0) < 0 ||
	    (l->params.read_only && fsconfig(fs, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0) ||
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return not_mounted(l, -errno, err);
	fd = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
	return fd < 0 ? not_mounted(l, -errno, err) : fd;
}

/* The number stays: it is known in many places. */
static int take_root(struct lower *l)
{
	const struct afs *a = l->state;

	l->root_fd = fcntl(a->tree_fd, F_DUPFD_CLOEXEC, 0);
	return l->root_fd < 0 ? -errno : 0;
}

static int no_namespace(int code, struct error *err)
{
	return error_errno(err, code, EXIT_STATUS_FAILED, "cannot change the network namespace");
}

static int afs_open(struct lower *l, struct error *err)
{
	int back, r = state_new(l), left;
	struct afs *a = l->state;

	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot open source %s", l->params.source);
	r = netns_enter(l->params.netns_fd, &back);
	if (r < 0)
		return no_namespace(r, err);
	r = l->mount_fd = mount_volume(l, err);
	left = netns_leave(&back);
	if (r >= 0 && left < 0)
		return no_namespace(left, err);
	if (r < 0)
		return r;
	l->private_mount = true;
	if (l->params.subtree)
		return 0; /* which cannot be looked up without a token */
	a->tree_fd = fcntl(l->mount_fd, F_DUPFD_CLOEXEC, 0);
	r = a->tree_fd < 0 ? -errno : take_root(l);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot open source %s", l->params.source) : 0;
}

/* ---- the token ---- */

/* Looks at what a key source gave: when does it end? */
static int token_check(const struct lower *l, const struct key *key, int64_t *ret_expires, struct error *err)
{
	const struct afs *a = l->state;
	struct rxrpc_v1 head = {0};
	size_t size = key->bytes ? secret_size(key->bytes) : 0;

	if (size > sizeof(head))
		memcpy(&head, secret_data(key->bytes), sizeof(head));
	explicit_bzero(head.session_key, sizeof(head.session_key));
	if (head.version != VERSION_1 || head.security != SECURITY_RXKAD ||
	    size != sizeof(head) + head.ticket_length)
		return error_set(err, -EINVAL, EXIT_STATUS_WRONG_KEY,
				 "%s gives no token for AFS (krb5: does)", key->source);
	if ((int64_t)head.expiry <= (int64_t)time(NULL))
		return error_set(err, -EKEYEXPIRED, EXIT_STATUS_NO_KEY, "the ticket of %s has expired",
				 key->source);
	if (a->token->key.serial && (int64_t)head.expiry <= a->token->expires)
		return error_set(err, -EKEYEXPIRED, EXIT_STATUS_NO_KEY,
				 "%s still gives a ticket that ends when the one in use does", key->source);
	*ret_expires = head.expiry;
	return 0;
}

static int token_add(const struct lower *l, const struct key *key, struct error *err)
{
	struct afs *a = l->state;
	int back, left, r = netns_enter(l->params.netns_fd, &back);

	if (r < 0)
		return no_namespace(r, err);
	r = keyring_add_rxrpc(l->params.ring, a->cell, key->bytes, &a->token->key);
	left = netns_leave(&back);
	if (left < 0)
		return no_namespace(left, err);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "the kernel does not take the token of %s",
				   key->source)
		     : 0;
}

static int refused(const struct lower *l, const char *source, int code, struct error *err)
{
	switch (code) {
	case -EACCES:
		return error_set(err, code, EXIT_STATUS_FAILED,
				 "source %s: the principal of %s may not read it (the ACL of the directory "
				 "decides)",
				 l->params.source, source);
	case -EKEYREJECTED:
	case -EKEYEXPIRED:
	case -EKEYREVOKED:
	case -ENOKEY:
		return error_set(err, code, EXIT_STATUS_WRONG_KEY,
				 "source %s: the server refuses the ticket of %s: %s (another key version of "
				 "the cell's principal, or the clocks differ)",
				 l->params.source, source, strerror(-code));
	case -ENOENT:
	case -ENOTDIR:
		return error_set(err, code, EXIT_STATUS_NO_VOLUME, "source %s has no directory %s",
				 l->params.source, l->params.subtree ? l->params.subtree : "/");
	default:
		return error_errno(err, code, EXIT_STATUS_FAILED, "cannot read source %s", l->params.source);
	}
}

/* Opened for reading, so that the server is asked with the new token. */
static int probe(struct lower *l)
{
	struct afs *a = l->state;
	struct open_how how = {
		.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_NO_MAGICLINKS | RESOLVE_IN_ROOT,
	};
	const char *path = a->tree_fd < 0 ? l->params.subtree : ".";
	autofd int fd =
		(int)syscall(SYS_openat2, a->tree_fd < 0 ? l->mount_fd : a->tree_fd, path, &how, sizeof(how));
	char names[1024];

	if (fd < 0 || syscall(SYS_getdents64, fd, names, sizeof(names)) < 0)
		return -errno;
	if (a->tree_fd >= 0)
		return 0;
	a->tree_fd = openat(fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return a->tree_fd < 0 ? -errno : take_root(l);
}

static int afs_unlock(struct lower *l, const struct key *key, struct error *err)
{
	struct afs *a = l->state;
	int64_t expires = 0;
	int r = token_check(l, key, &expires, err);

	if (r == 0)
		r = token_add(l, key, err);
	if (r < 0)
		return r;
	r = probe(l);
	if (r < 0) {
		keyring_undo_rxrpc(l->params.ring, &a->token->key);
		return refused(l, key->source, r, err);
	}
	a->token->expires = expires;
	return 0;
}

static int afs_renewed(struct lower *l, bool good)
{
	struct afs *a = l->state;

	return good ? keyring_settle_rxrpc(l->params.ring, &a->token->key) : 0;
}

static uint64_t afs_key_left_ms(const struct lower *l)
{
	const struct afs *a = l->state;
	struct timespec now;
	int64_t left;

	if (!a->token->key.serial)
		return UINT64_MAX;
	clock_gettime(CLOCK_REALTIME, &now);
	left = (a->token->expires - (int64_t)now.tv_sec) * 1000 - now.tv_nsec / 1000000;
	return left < 0 ? 0 : (uint64_t)left;
}

static const char *afs_cell(const struct lower *l)
{
	const struct afs *a = l->state;

	return a->cell;
}

/* ---- lock ---- */

static int afs_lock(struct lower *l, uint64_t timeout_ms, unsigned *ret_left, struct error *err)
{
	struct afs *a = l->state;
	int r = a->token ? keyring_revoke_rxrpc(l->params.ring, &a->token->key) : 0;

	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot revoke the token of cell %s", a->cell)
		     : 0;
}

/* What is mounted stays so: nobody reaches it, and mounting it again could wait for servers. */
static int afs_take(struct lower *l, struct error *err)
{
	int r = take_root(l);

	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot open source %s", l->params.source) : 0;
}

/* What could not be stored goes with the inodes, before somebody tries to store it without a token. */
static void afs_unmount(struct lower *l)
{
	struct afs *a = l->state;

	lower_let_go(l);
	cleanup_close(&a->tree_fd);
	cleanup_close(&l->mount_fd);
	a->tree_fd = l->mount_fd = -1;
}

static void afs_close(struct lower *l)
{
	struct afs *a = l->state;

	if (!a)
		return;
	cleanup_close(&a->tree_fd);
	if (a->token)
		munmap(a->token, sizeof(*a->token));
	free(a);
}

const struct lower_ops lower_afs_ops = {
	.name = "afs",
	.open = afs_open,
	.unlock = afs_unlock,
	.renewed = afs_renewed,
	.key_left_ms = afs_key_left_ms,
	.cell = afs_cell,
	.unmount = afs_unmount,
	.lock = afs_lock,
	.take = afs_take,
	.close = afs_close,
};
