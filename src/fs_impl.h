/* SPDX-License-Identifier: MIT */
/* What the files of the fs layer share: fs.c (life, attributes), fs_dir.c, fs_file.c, fs_ids.c (whose things
 * are), fs_xattr.c, fs_lock.c, fs_loop.c (threads), fs_transport.c (the raw protocol where libfuse hides it),
 * fs_compat.c (requests that libfuse does not know), fs_passthrough.c. */
#ifndef CKRFS_FS_IMPL_H
#define CKRFS_FS_IMPL_H

#include <fuse_lowlevel.h>
#include <pthread.h>

#include "format.h"
#include "fs.h"
#include "gate.h"
#include "node.h"
#include "slots.h"

struct fs_loop;

struct fs {
	struct fs_params p;
	struct fuse_session *session;
	struct node_table *nodes;
	pthread_mutex_t handles_lock; /* guards handles, nothing else */
	struct slots handles;
	struct fs_loop *loop;
	struct gate gate;
	/* Requests that change something, or let the kernel do so: begun and ended; files that are open. */
	_Atomic uint64_t changes_begun, changes_ended, files_open;
	_Atomic int refusal;                 /* errno of requests that a shut gate does not let in */
	_Atomic uint64_t flushes, unflushed; /* cached writes since it was shutting: came, came to nothing */
	double attr_timeout, entry_timeout, negative_timeout; /* seconds, as libfuse has them */
	pthread_mutex_t root_lock;                            /* guards the two below, nothing else */
	struct stat root_stat;
	struct statvfs root_statvfs;
	bool writeback;             /* negotiated */
	bool keep_cache;            /* page cache outlives opens */
	unsigned passthrough_depth; /* 0: none */
	_Atomic bool passthrough;   /* negotiated */
	_Atomic unsigned backings;  /* files that the kernel has for that */
	uint32_t renewals;          /* fs_renew() */
	bool long_setxattr;         /* negotiated: FUSE_SETXATTR has flags */
	uid_t self_uid;
	gid_t self_gid;
};

/* The next answer of a directory stream, made before it was asked for (fs_readdir.c). */
struct fs_ahead {
	bool made;    /* what follows means something */
	bool done;    /* no more fits in, or there is no more */
	bool in_vain; /* one was dropped: no more of them */
	char *buf;
	size_t used;
	uint64_t offset;  /* cookie it begins at */
	uint64_t changes; /* how many there had been */
	uint64_t begun_ms;
};

/* What FUSE calls fh: an open file or directory. */
struct fs_handle {
	struct node *node;        /* a reference */
	struct format_file *file; /* files: the inode's, counted */
	int fd;                   /* directories: the stream */
	pthread_mutex_t lock;     /* directories: the stream's place and buffer */
	char *dents;              /* records read and not used up, from at to end */
	size_t at, end;
	uint64_t next; /* cookie of the record at `at` */
	struct fs_ahead ahead;
};

/* ---- fs.c ---- */

static inline struct fs *fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* An inode for the time of one request. */
struct fs_inode {
	struct node *node;
	struct node_fd fd; /* O_PATH */
};
int fs_inode_get(struct fs *fs, fuse_ino_t ino, struct fs_inode *ret);
void fs_inode_put(struct fs *fs, struct fs_inode *inode);

/* A directory with what its names need. */
struct fs_directory {
	struct fs_inode inode;
	uint8_t iv[16];
	struct format_dir dir;
};
int fs_directory_get(struct fs *fs, fuse_ino_t ino, struct fs_directory *ret);
void fs_directory_put(struct fs *fs, struct fs_directory *dir);

/* Looks a name up by how it stands on disk, and fills what the kernel is told. Counts a lookup: undo with
 * node_forget(). */
int fs_entry(struct fs *fs, const struct fs_directory *dir, const char *disk, struct fuse_entry_param *ret);
/* The same for what is open already; dir and disk NULL: it has no name. */
int fs_entry_fd(struct fs *fs, int fd, const struct fs_directory *dir, const char *disk,
		struct fuse_entry_param *ret);
/* Attributes as the volume has them; fd as in format_attr(), -1: opened when needed. */
void fs_attr(struct fs *fs, struct fs_inode *inode, struct stat *st);

/* Replies; errors are negative errno and counted. */
void fs_reply_err(fuse_req_t req, int r);
void fs_reply_entry(fuse_req_t req, int r, const struct fuse_entry_param *entry);

/* This thread acts for the caller of req when it creates things, until fs_act_done(). */
int fs_act(fuse_req_t req);
void fs_act_done(void);

/* Clears set-user-ID and set-group-ID as a write by somebody without CAP_FSETID does (inode(7)), and has the
 * kernel forget them, which would show them until attr-timeout: answers to writes have no attributes. */
int fs_kill_suidgid(struct fs *fs, uint64_t id, struct format_file *file);
/* The same for requests in which the kernel cannot say whether to: done unless root asks. */
int fs_kill_suidgid_for(fuse_req_t req, uint64_t id, struct format_file *file);

int fs_handle_new(struct fs *fs, struct node *node, struct fs_handle **ret, uint64_t *ret_id);
struct fs_handle *fs_handle_get(struct fs *fs, uint64_t id);
struct fs_handle *fs_handle_remove(struct fs *fs, uint64_t id);
/* Frees the handle with its references; removed from the table already. */
void fs_handle_free(struct fs *fs, struct fs_handle *h);

/* ---- fs_readdir.c ---- */

/* Around the answer to a request. False: it changes nothing, and fs_change_end() does not follow. */
bool fs_change_begin(struct fs *fs, const struct fuse_buf *request);
void fs_change_end(struct fs *fs);
/* Forgets the answer that was made ahead. The handle's lock is held, or nobody else has it. */
void fs_ahead_drop(struct fs *fs, struct fs_handle *h);
/* For all streams, when plaintext has to go. The gate is shut. */
void fs_ahead_drop_all(struct fs *fs);

/* ---- fs_file.c ---- */

/* The open file of an inode, opened if it is not; counted. */
int fs_file_get(struct fs *fs, struct node *node, bool writable, struct format_file **ret);
/* Gives the inode a file just created, or, if it has one, counts that and closes fd. */
int fs_file_adopt(struct fs *fs, struct node *node, int fd, struct format_file **ret);
void fs_file_put(struct fs *fs, struct node *node);
/* Which cached writes go on before the time of the inode is set, and that it was set, by the kernel to mtime:
 * what was kept of it for later no longer counts, but that writes have gone on meanwhile, so that mtime does.
 */
struct fs_write_mark {
	bool writing;
	uint16_t begun;
};
struct fs_write_mark fs_file_write_mark(struct fs *fs, struct node *node);
void fs_file_mtime_told(struct fs *fs, struct node *node, struct fs_write_mark mark,
			const struct timespec *mtime);
/* The kernel will write no more for now: sets all times again that cached writes have moved. */
void fs_file_restore_times(struct fs *fs);
/* The file if it is open now, counted; NULL. */
struct format_file *fs_file_if_open(struct fs *fs, struct node *node);

/* ---- fs_ids.c ---- */

/* Attributes of the lower become what the mount shows. */
void fs_ids_show(const struct fs *fs, struct stat *st);
/* chown(2) by ids of the mount: -EOVERFLOW for those that the lower has none for, -EPERM if all belong to
 * one. */
int fs_ids_chown(const struct fs *fs, int fd, const struct stat *attr, bool set_uid, bool set_gid);
/* store_act_as() for a caller of the mount. -EOVERFLOW */
int fs_ids_act(const struct fs *fs, uid_t uid, gid_t gid, mode_t mask);
/* Does the attribute hold ids that are to be mapped (idmap_acl_show(), idmap_acl_set())? */
bool fs_ids_in_xattr(const struct fs *fs, const char *name);

/* ---- fs_loop.c ---- */

int fs_loop_new(struct fs *fs, unsigned threads, struct fs_loop **ret);
void fs_loop_free(struct fs_loop *loop);
int fs_loop_run(struct fs_loop *loop);
void fs_loop_stop(struct fs_loop *loop);
/* The same, with what fs_serve() is to return. */
void fs_loop_fail(struct fs_loop *loop, int result);
/* Room for the request that this thread answers; NULL when out of memory. */
struct format_io *fs_loop_io(void);
/* Does a request wait to be read? */
bool fs_loop_is_asked(struct fs_loop *loop);
/* The request as the kernel sent it. */
const struct fuse_buf *fs_loop_request(void);

/* All threads that serve wipe what is left of requests; waits for it. Nothing may be in flight but what
 * fs_lock_admit() lets pass a shut gate. */
void fs_loop_wipe(struct fs_loop *loop);

/* ---- fs_lock.c ---- */

/* How a request has passed the gate. */
struct fs_passage {
	bool free; /* it did not have to */
	enum gate_kind kind;
};

/* May it be answered? Then fs_lock_passed() follows; else it has been refused already. */
bool fs_lock_admit(struct fs *fs, const struct fuse_buf *request, struct fs_passage *ret);
void fs_lock_passed(struct fs *fs, const struct fs_passage *passage);
/* The kernel asks for them anew. Also in the middle of a request for that inode. */
void fs_lock_forget_attributes(struct fs *fs, uint64_t id);

/* Is the request that this thread answers one about the root of a locked lower? */
bool fs_lock_by_copy(void);

/* ---- fs_lower.c ---- */

/* Before the gate is shut. */
void fs_lower_remember(struct fs *fs);
void fs_lower_root_stat(struct fs *fs, struct stat *ret);
void fs_lower_root_statvfs(struct fs *fs, struct statvfs *ret);
/* While the gate is shut and drained. Nothing for a lower without a key. */
void fs_lower_let_go(struct fs *fs);
/* Stores what was written to files that are open; how many of them could not be. */
uint64_t fs_lower_sync(struct fs *fs);
/* Of an error of the lower: is it the key's fault? */
int fs_lower_errno(const struct fs *fs, int r);
/* root_fd stays the caller's. */
int fs_lower_take(struct fs *fs, int root_fd);

/* ---- fs_transport.c ---- */

/* Attaches the session to the device. */
int fs_transport_attach(struct fs *fs, int fuse_fd);
/* Did the kernel ask in this request to clear suid and sgid (write, truncate, open with O_TRUNC)? */
bool fs_transport_kills_suidgid(void);
/* Is the request a write of the kernel's writeback cache? */
bool fs_transport_is_cached_write(void);
/* Does answering it take so long that what waits behind it should not? */
bool fs_transport_is_large(const struct fuse_buf *request);

/* The answer to the OPEN or CREATE that this thread is about to send makes the file one that is passed
 * through. */
void fs_transport_set_backing(int32_t backing);

/* ---- fs_passthrough.c ---- */

/* Whether and how it may be used, as far as is known without the kernel. */
void fs_passthrough_init(struct fs *fs);
/* At INIT: the stack depth to ask for, 0: none. */
unsigned fs_passthrough_offered(struct fs *fs, bool by_kernel);
/* After INIT: may we? */
void fs_passthrough_probe(struct fs *fs);
/* The backing id of an open inode, 0: it is served by reads and writes. */
int32_t fs_passthrough_backing(struct fs *fs, struct node *node, struct format_file *file);
/* The inode is not open, and its file in the lower must not be either. */
void fs_passthrough_let_go(struct fs *fs, struct node *node);
/* Has the kernel any backing file? */
bool fs_passthrough_any(const struct fs *fs);
/* The inode has lost its last name: its file must not outlive its last open. */
void fs_passthrough_unlinked(struct fs *fs, struct node *node);
/* For node_table_new(): the inode goes. */
void fs_passthrough_forget(void *ctx, struct node *node);

/* ---- fs_compat.c: all concern the request that this thread has read and not yet answered ---- */

struct iovec;
/* Makes of the message something that libfuse knows; its new size. */
size_t fs_compat_request(const struct fs *fs, void *buf, size_t size);
/* Sends libfuse's answer in the form that the kernel asked for. */
ssize_t fs_compat_reply(int fd, struct iovec *iov, int count);
/* Is the file to be created one without a name (O_TMPFILE)? */
bool fs_compat_is_tmpfile(void);
/* Does setting this ACL clear the set-group-ID bit, as chmod(2) by somebody who is not in the group does? */
bool fs_compat_kills_sgid(void);
/* Adds the time of birth of the lower's inode to the answer, if it was asked for. */
void fs_compat_take_birth(int fd);

/* ---- operations ---- */

void fs_dir_operations(struct fuse_lowlevel_ops *ops);
void fs_readdir_operations(struct fuse_lowlevel_ops *ops);
void fs_file_operations(struct fuse_lowlevel_ops *ops);
void fs_xattr_operations(struct fuse_lowlevel_ops *ops);

#endif
