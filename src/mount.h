/* SPDX-License-Identifier: MIT */
/*
 * The spine: one struct mount holds what belongs to one mount; nothing reaches it through a global. mount.c
 * takes a mount through its life in one order (mount_start) and back in the opposite one (mount_free);
 * keeper.c runs the event loop around it; server.c is the process that answers FUSE requests.
 */
#ifndef CKRFS_MOUNT_H
#define CKRFS_MOUNT_H

#include "config.h"
#include "ephemeral.h"
#include "error.h"
#include "format.h"
#include "fs.h"
#include "fusemount.h"
#include "keyring.h"
#include "keysource.h"
#include "lower.h"
#include "message.h"
#include "runtime.h"
#include "sandbox.h"
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum mount_state {
	MOUNT_STARTING,
	MOUNT_UNLOCKED, /* serving */
	MOUNT_LOCKED,   /* without a key: callers get ENOKEY until `ckrfs unlock` */
	MOUNT_STOPPING, /* unmounted, what is still open is served */
	MOUNT_FAILED,   /* the server died: callers get ENOTCONN until `ckrfs umount` */
};

struct mount {
	struct config *config; /* owned */
	uid_t owner;           /* may control the mount besides root */
	struct runtime runtime;
	struct claim claim; /* of the name, in the runtime directory */
	struct keyring ring;
	struct keysource **keysources; /* owned, config->n_keys of them */
	char *key_spec;                /* owned: of the source that served; NULL: none */
	struct key key;                /* bytes NULL once the format has them; key.source stays for status */
	int keys_fd;                   /* directory in the runtime directory, see lower.h; -1: not open */
	int netns_fd;                  /* of the lower, -1: the keeper's own */
	struct ephemeral place;        /* of an ephemeral volume */
	struct lower *lower;
	struct format *format;   /* NULL in the keeper once the server has started */
	struct secret *key_room; /* shared with the server: a key on its way to it, else zeros */
	char key_identifier[64];
	struct fs_stats *stats; /* shared memory */
	struct fusemount
		fuse; /* fuse.fuse_fd is the keeper's copy; closing all ends every request with ENOTCONN */
	pid_t keeper_pid;   /* who runs mount_start() */
	pid_t server_pid;   /* 0: none */
	int server_channel; /* SOCK_SEQPACKET to the server */
	enum mount_state state;
	bool degraded;        /* MOUNT_UNLOCKED, but the key's source fails */
	int64_t since;        /* seconds since 1970 when it got into its state */
	unsigned protections; /* enum sandbox_protection, of both processes */
	unsigned features;    /* enum server_feature */
	char secret_memory[16];
};

/* Takes cfg, whose target is canonical (fusemount_check_target). */
int mount_new(struct config *cfg, uid_t owner, struct mount **ret, struct error *err);

/*
 * Everything up to a server that answers, in the keeper's process, before it has threads. stage is told what
 * may take long, before it begins. On failure all is undone but what mount_free() frees.
 */
int mount_start(struct mount *m, void (*stage)(void *ctx, const char *what), void *ctx, struct error *err);

/* Only the key, into m->key: for making a volume. The same process state as for mount_start() is needed. */
int mount_get_key(struct mount *m, struct error *err);
/* The same with the lower's key: for making a directory that its file system encrypts. */
int mount_get_lower_key(struct mount *m, struct error *err);
/* After that: one key more, from a source that is not the volume's. The bytes are the caller's. */
int mount_get_other_key(struct mount *m, const char *spec, struct key *ret_key, struct error *err);

/* keysource_probe() of each configured source, which said is told with its index and result; the lower's key,
 * if it has a source of its own, comes last. The same process state as for mount_start() is needed. */
int mount_probe_sources(struct mount *m,
			void (*said)(void *ctx, size_t index, int result, const struct error *err), void *ctx,
			struct error *err);

/* What its key sources may use. */
struct keysource_env mount_key_env(const struct mount *m);

/*
 * Opens m->lower and m->format with its key, ready for use in this process, without mounting: for checking a
 * volume. change: nobody else may have it open; otherwise only those are in the way that are not shared.
 * *ret_live: others may be changing it. stage as for mount_start(). 11 with what helps when it is mounted.
 */
int mount_open_volume(struct mount *m, bool change, void (*stage)(void *ctx, const char *what), void *ctx,
		      bool *ret_live, struct error *err);

/*
 * Reads the key again, from spec or (NULL) the configured sources, checks that it opens the volume, and
 * leaves it in m->key_room; m->key.source and m->key.index say where it came from. 12 when it is another key
 * than the mount had. May block: called in a child of the keeper.
 */
int mount_read_key_again(struct mount *m, const char *spec, struct error *err);

/* The source that has served is spec. -ENOMEM */
int mount_remember_source(struct mount *m, const char *spec);

/* No request is answered any more: those that wait fail with ENOTCONN. The server is killed if it still
 * lives; the mount itself stays. */
void mount_cut(struct mount *m);

/* The reverse of mount_start(); unmounts (lazily) what is still mounted. */
void mount_stop(struct mount *m);
void mount_free(struct mount *m);

/* The signals that the keeper's loop takes; mount_start() blocks them before there is something to undo. */
void mount_signals(sigset_t *ret);

/* As its configuration says. */
enum sandbox_level mount_sandbox_level(const struct mount *m);

void mount_status(const struct mount *m, struct message_status *ret);

#endif
