/* SPDX-License-Identifier: MIT */
/*
 * The redo log of the format `gocryptfs`: blocks that are about to be rewritten in place. A block is good
 * only as a whole, and neither the page cache (when the server is killed) nor a disk (when the power fails)
 * writes it as a whole: without the log, old data are lost with the new. docs/crash-safety.md says what it
 * guarantees.
 *
 * The log is a file in the volume's root that gocryptfs does not see. It appears with the first write, for
 * notes of what is appended; room for blocks is made in it, and synced, with the first rewrite of data that
 * are there already. It goes with the mount; what a crash leaves is played back by the next mount. A record
 * is believed only where the block on disk does not authenticate and the record's does, under the file's ID:
 * it can bring back nothing but a block that was written there.
 */
#ifndef CKRFS_FORMAT_GOCRYPTFS_REDO_H
#define CKRFS_FORMAT_GOCRYPTFS_REDO_H

#include "format_impl.h"
#include "gcfs_content.h"

struct gocryptfs_redo {
	int fd;       /* the log, -1 until it is needed */
	int root_fd;  /* borrowed; -1: this mount has no log */
	bool useless; /* it could not be made */
	_Atomic bool takes_blocks,
		no_room; /* there is room for blocks in it, or could not be made; _begin() */
	/* Records are added by whoever shares it, and the log begins anew for whoever has it alone. */
	pthread_rwlock_t lock;
	pthread_mutex_t create_lock; /* fd while it is made, and the syncer's sleep */
	pthread_cond_t wake;
	pthread_t syncer;
	bool has_syncer, stop;
	_Atomic uint64_t end;           /* where the next record goes */
	_Atomic uint64_t added, synced; /* records that must be on disk in time, and those that are */
	_Atomic uint64_t serial;
	uint64_t generation;
};

/* One write of a file. */
struct gocryptfs_redo_write {
	uint64_t ino;
	const uint8_t *id;
	uint64_t first;    /* block that it begins with */
	uint64_t old_size; /* ciphertext bytes the file had */
	const uint8_t *blocks;
	size_t size; /* of those blocks that are there already; 0: it only appends, or cuts */
	bool shrink; /* the file ends behind them afterwards */
};

void gocryptfs_redo_init(struct gocryptfs_redo *redo);
/* Removes the log, too: nothing is under way any more. */
void gocryptfs_redo_free(struct gocryptfs_redo *redo);

/*
 * Plays back what is there, and makes the log ready for a mount. Once, before the first request. When
 * something cannot be played back (a file that does not open or cannot be written, a full disk), the log
 * stays for the next time, and its error is returned.
 */
int gocryptfs_redo_start(struct gocryptfs_redo *redo, int root_fd, struct gcfs_content *content);

/* To be followed by the write itself and by _end(). No failure stops the write: there is no protection then.
 * 2 system calls. */
void gocryptfs_redo_begin(struct gocryptfs_redo *redo, const struct gocryptfs_redo_write *w);
void gocryptfs_redo_end(struct gocryptfs_redo *redo);

/* What was begun is on disk in the log, notes excepted: before the lower is asked to write the blocks
 * themselves. No system call when there is nothing new. */
int gocryptfs_redo_sync(struct gocryptfs_redo *redo);

#endif
