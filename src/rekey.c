/* SPDX-License-Identifier: MIT */
/*
 * The order of things, and what a run finds that was killed before. At each moment the name of the volume
 * stands for exactly one complete generation:
 *
 *	volume		beside it		what the next run does
 *	old		nothing, or empty	begins
 *	old		new, "unfinished"	goes on copying
 *	old		new, "complete"		compares again (the old one may have changed), exchanges
 *	new, "complete"	old			removes the old one (or gives it its last name)
 *	new, "complete"	old, "retired"		goes on removing
 *	new, "complete"	nothing			removes the state file
 *	old		"retired"		a copy that was given up: removes it, begins
 *
 * Anything else beside the volume is somebody's, and is not touched.
 */
#include "rekey.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "config.h"
#include "gcfs_config.h"
#include "rekey_impl.h"
#include "store.h"
#include "tree_remove.h"

enum { ROUNDS = 3 };

void rekey_count(struct rekey *k, uint64_t files, uint64_t bytes)
{
	k->files += files;
	k->bytes += bytes;
	if (k->params->progress)
		k->params->progress(k->params->progress_ctx, k->phase, k->files, k->bytes);
}

static void count_removed(void *ctx)
{
	rekey_count(ctx, 1, 0);
}

/* All but the state file. counted: as progress. */
static int remove_generation(struct rekey *k, int dir_fd, bool counted)
{
	struct tree_remove how = {
		.keep = GENERATION_FILE, .removed = counted ? count_removed : NULL, .ctx = k};

	return tree_remove_contents(dir_fd, &how);
}

static void note_damage(void *ctx, const char *what, const char *where)
{
	((struct rekey *)ctx)->old_damaged = true;
}

static void ignore_damage(void *ctx, const char *what, const char *where) {}

void rekey_free(struct rekey *k)
{
	if (!k)
		return;
	for (int i = 0; i < 2; i++) {
		free(k->io[i].plain);
		free(k->io[i].disk);
	}
	links_free(&k->links);
	format_free(k->old);
	format_free(k->fresh);
	cleanup_close(&k->old_root);
	cleanup_close(&k->new_root);
	lower_close(k->old_lower);
	lower_close(k->new_lower);
	place_close(&k->place);
	free(k);
}

static int new_rekey(const struct rekey_params *params, struct rekey **ret, struct error *err)
{
	struct rekey *k = calloc(1, sizeof(*k));
	bool room = k != NULL;

	for (int i = 0; room && i < 2; i++) {
		k->io[i].plain = malloc(FORMAT_IO_ROOM);
		k->io[i].disk = malloc(FORMAT_IO_ROOM);
		room = k->io[i].plain && k->io[i].disk;
	}
	if (!k)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot begin");
	k->params = params;
	k->place = PLACE_NONE;
	k->old_root = k->new_root = -1;
	k->err = err;
	*ret = k;
	return room ? 0 : error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot begin");
}

/* ---- what there is ---- */

/* Opens a directory under its lock. */
static int open_locked(struct rekey *k, const char *path, bool copying, struct lower **ret_lower, int *ret_fd,
		       struct error *err)
{
	struct lower_params params = {.kind = k->params->lower, .source = path, .copying = copying};
	int r = lower_open(&params, ret_lower, err);

	if (r < 0)
		return r;
	*ret_fd = store_open_dir(lower_root(*ret_lower), ".");
	return *ret_fd < 0 ? error_errno(err, *ret_fd, EXIT_STATUS_FAILED, "cannot open %s", path) : 0;
}

static int foreign(const struct rekey *k, struct error *err)
{
	return error_set(
		err, -EEXIST, EXIT_STATUS_FAILED,
		"%s/%s exists, and is nothing that rekey of this volume has made: give it another name",
		k->place.path, k->place.side);
}

/* The directory beside the volume, locked; -ENOENT (err is not filled) when there is none. */
static int open_side(struct rekey *k, struct lower **ret_lower, int *ret_fd, struct error *err)
{
	char path[PATH_MAX];
	struct stat st;
	int r = store_stat(k->place.parent_fd, k->place.side, &st);

	if (r == -ENOENT)
		return r;
	if (r < 0 || !S_ISDIR(st.st_mode))
		return foreign(k, err);
	r = place_side_path(&k->place, path, err);
	if (r == 0)
		r = open_locked(k, path, false, ret_lower, ret_fd, err);
	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	return place_is(&k->place, k->place.side, *ret_fd) ? 0 : foreign(k, err);
}

static bool same_keys(const struct generation *a, const struct generation *b)
{
	return strcmp(a->old_key, b->old_key) == 0 && strcmp(a->new_key, b->new_key) == 0;
}

/* After the exchange: is what is beside the volume really its old generation? */
static int check_old(struct rekey *k, struct error *err)
{
	struct generation side;
	char digest[65];
	int r = generation_read(k->old_root, &side);

	if (r == 0 && side.role == GENERATION_RETIRED && same_keys(&side, &k->state))
		return 0;
	if (r != -ENOENT)
		return foreign(k, err);
	r = generation_config_digest(k->old_root, digest);
	return r < 0 || strcmp(digest, k->state.old_config) != 0 ? foreign(k, err) : 0;
}

/* It is only given its last name, and may be mounted: no lock. */
static int check_kept(struct rekey *k, struct error *err)
{
	struct generation side;

	k->old_root = store_open_dir(k->place.parent_fd, k->place.side);
	if (k->old_root < 0)
		return k->old_root == -ENOENT ? 0 : foreign(k, err);
	if (generation_read(k->old_root, &side) == 0)
		return error_set(err, -EEXIST, EXIT_STATUS_FAILED,
				 "the old generation is partly removed already, and cannot be kept");
	return check_old(k, err);
}

/* The volume is a new generation already. */
static int open_finished(struct rekey *k, struct error *err)
{
	int r;

	k->new_root = store_open_dir(k->place.parent_fd, k->place.base);
	if (k->new_root < 0)
		return error_errno(err, k->new_root, EXIT_STATUS_FAILED, "cannot open %s", k->params->source);
	if (k->params->keep_old)
		return check_kept(k, err);
	r = open_side(k, &k->old_lower, &k->old_root, err);
	if (r == -EBUSY)
		error_hint(err, "ckrfs umount the mount of the old generation, then rekey again");
	if (r == -ENOENT)
		return 0;
	return r < 0 ? r : check_old(k, err);
}

static int removal_failed(struct rekey *k, int code, struct error *err);
static int drop_side(struct rekey *k, struct lower *lower, int fd, struct error *err);

/*
 * Somebody else's directory is not written to: he could move things in it meanwhile. An unfinished copy is
 * its maker's; a complete one has the volume's owner already, and is made anew.
 */
static int check_owner(struct rekey *k, struct error *err)
{
	struct stat st;
	int r = store_stat_fd(k->new_root, &st);

	if (r == 0 && st.st_uid == geteuid()) {
		k->resumed = true;
		return 0;
	}
	if (r < 0 || k->state.role != GENERATION_COMPLETE)
		return foreign(k, err);
	k->state.role = GENERATION_RETIRED;
	r = generation_write(k->new_root, &k->state);
	if (r < 0)
		return removal_failed(k, r, err);
	return drop_side(k, steal_ptr(&k->new_lower), steal_fd(&k->new_root), err);
}

/* What an earlier run left beside the volume. */
static int open_unfinished(struct rekey *k, struct error *err)
{
	int r = open_side(k, &k->new_lower, &k->new_root, err);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = generation_read(k->new_root, &k->state);
	if (r == 0 && k->state.role == GENERATION_RETIRED) {
		r = drop_side(k, steal_ptr(&k->new_lower), steal_fd(&k->new_root), err);
		return r;
	}
	if (r == -ENOENT)
		return place_is_empty(k->new_root) == 1 ? 0 : foreign(k, err);
	if (r < 0)
		return foreign(k, err);
	return check_owner(k, err);
}

static int open_volume(struct rekey *k, struct error *err)
{
	/* As a mount would: the log that a killed one left is played back before anything is copied. */
	struct format_params format = {
		.kind = k->params->format, .scrypt_memory = k->params->scrypt_memory, .may_repair = true};
	int r = open_locked(k, k->params->source, true, &k->old_lower, &k->old_root, err);

	if (r == -EBUSY) {
		error_set(err, r, EXIT_STATUS_BUSY,
			  "%s is in use by another mount that is not read-only, or by another rekey",
			  k->params->source);
		error_hint(err, "ckrfs status");
	}
	if (r < 0)
		return r;
	if (!place_is(&k->place, k->place.base, k->old_root))
		return error_set(err, -EBUSY, EXIT_STATUS_BUSY, "%s was just replaced", k->params->source);
	format.root_fd = k->old_root;
	r = format_open(&format, &k->old, err);
	if (r == 0)
		r = rekey_slots_check(k, err);
	return r < 0 ? r : open_unfinished(k, err);
}

static int open_steps(struct rekey *k, struct error *err)
{
	autofd int fd = -1;
	int r;

	if (k->params->format != CONFIG_FORMAT_GOCRYPTFS)
		return error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED,
				 "only volumes in the gocryptfs format have a master key");
	r = place_open(k->params->source, &k->place, err);
	if (r < 0)
		return r;
	fd = store_open_dir(k->place.parent_fd, k->place.base);
	if (fd < 0)
		return error_errno(err, fd, EXIT_STATUS_FAILED, "cannot open %s", k->params->source);
	r = generation_read(fd, &k->state);
	k->needs_keys = r < 0 || k->state.role != GENERATION_COMPLETE;
	return k->needs_keys ? open_volume(k, err) : open_finished(k, err);
}

int rekey_open(const struct rekey_params *params, struct rekey **ret, struct error *err)
{
	struct rekey *k = NULL;
	int r = new_rekey(params, &k, err);

	if (r == 0)
		r = open_steps(k, err);
	if (r < 0)
		rekey_free(k);
	else
		*ret = k;
	return r;
}

bool rekey_needs_keys(const struct rekey *k)
{
	return k->needs_keys;
}

/* ---- keys ---- */

/* Opens what is being made, under its key. Takes the key's bytes. */
static int open_fresh(struct rekey *k, struct key *key, struct error *err)
{
	struct format_params format = {
		.kind = k->params->format,
		.root_fd = k->new_root,
		.scrypt_memory = k->params->scrypt_memory,
		.unfinished = true,
	};
	int r = format_open(&format, &k->fresh, err);

	if (r == 0)
		r = format_unlock(k->fresh, key, err);
	if (r < 0)
		return error_prefix(err, "new generation %s", k->place.side);
	if (strcmp(format_key_identifier(k->fresh), k->state.new_key) == 0)
		return 0;
	error_set(err, -EKEYREJECTED, EXIT_STATUS_WRONG_KEY,
		  "an earlier run with another new key has begun: take that one again, or give it up");
	error_hint(err, "ckrfs rekey --abort %s", k->params->source);
	return -EKEYREJECTED;
}

static int make_side(struct rekey *k, struct error *err)
{
	int r = store_mkdir(k->place.parent_fd, k->place.side, 0700);

	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot make %s/%s", k->place.path,
				   k->place.side);
	r = open_side(k, &k->new_lower, &k->new_root, err);
	if (r == 0)
		r = place_check_exchange(k->new_root, err);
	if (r < 0)
		store_rmdir(k->place.parent_fd, k->place.side);
	return r;
}

static int begin(struct rekey *k, const struct key *key, struct error *err)
{
	struct stat st;
	int r = k->new_root < 0 ? make_side(k, err) : place_check_exchange(k->new_root, err);

	k->state = (struct generation){.role = GENERATION_UNFINISHED, .old_config = "-"};
	snprintf(k->state.old_key, sizeof(k->state.old_key), "%s", format_key_identifier(k->old));
	if (r < 0)
		return r;
	r = generation_create(k->old, k->new_root, key, k->params->scrypt_memory, &k->state, err);
	/* Nothing is kept that only says "no space". */
	if (r < 0 && store_stat(k->new_root, "gocryptfs.conf", &st) == -ENOENT &&
	    remove_generation(k, k->new_root, false) == 0) {
		generation_remove(k->new_root);
		store_rmdir(k->place.parent_fd, k->place.side);
	}
	return r;
}

/* Is what an earlier run left a copy of this volume? */
static int check_resumed(struct rekey *k, struct error *err)
{
	struct stat st;

	if (strcmp(k->state.old_key, format_key_identifier(k->old)) != 0)
		return foreign(k, err);
	/* Killed before there was a configuration: as if it had not begun. */
	if (store_stat(k->new_root, "gocryptfs.conf", &st) == -ENOENT)
		k->resumed = false;
	return place_check_exchange(k->new_root, err);
}

static int start_formats(struct rekey *k, struct error *err)
{
	int r = format_start(k->old, note_damage, k, err);

	return r < 0 ? r : format_start(k->fresh, ignore_damage, NULL, err);
}

static int check_new_key(struct rekey *k, const struct key *fresh, struct error *err)
{
	char identifier[33];
	int r;

	if (fresh->passphrase || secret_size(fresh->bytes) != GCFS_MASTER_KEY_SIZE)
		return 0;
	r = gcfs_key_identifier(fresh->bytes, identifier);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot compute the key identifier");
	if (strcmp(identifier, format_key_identifier(k->old)) != 0)
		return 0;
	return error_set(err, -EINVAL, EXIT_STATUS_FAILED,
			 "the new key is the master key that the volume has");
}

/* The passphrase stays: the new generation gets a copy. */
static int same_passphrase(const struct key *old, struct key *fresh, struct error *err)
{
	int r;

	if (!old->passphrase) {
		error_set(err, -EINVAL, EXIT_STATUS_USAGE,
			  "the key is the master key itself, and a new one must be given");
		error_hint(err, "ckrfs rekey VOLUME --key SPEC --new-key SPEC");
		return -EINVAL;
	}
	r = secret_new_from(secret_data(old->bytes), secret_size(old->bytes), &fresh->bytes);
	fresh->passphrase = true;
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot keep the key") : 0;
}

int rekey_unlock(struct rekey *k, struct key *old, struct key *fresh, struct error *err)
{
	int r = fresh->bytes ? 0 : same_passphrase(old, fresh, err);

	k->err = err;
	if (r == 0)
		r = format_unlock(k->old, old, err);
	if (r == 0)
		r = check_new_key(k, fresh, err);
	if (r == 0 && k->resumed)
		r = check_resumed(k, err);
	if (r == 0 && !k->resumed)
		r = begin(k, fresh, err);
	if (r == 0)
		r = open_fresh(k, fresh, err);
	return r < 0 ? r : start_formats(k, err);
}

/* ---- removing ---- */

static int removal_failed(struct rekey *k, int code, struct error *err)
{
	return error_errno(err, code, EXIT_STATUS_FAILED, "cannot remove %s/%s", k->place.path,
			   k->place.side);
}

/*
 * Removes a generation that is marked as retired. Its configuration goes first: from then on nobody takes it
 * for a volume, and the old master key is nowhere.
 */
static int remove_retired(struct rekey *k, int fd)
{
	int r = store_unlink(fd, "gocryptfs.conf");

	if (r == 0 || r == -ENOENT)
		r = store_fsync(fd, false);
	if (r == 0)
		r = remove_generation(k, fd, true);
	if (r == 0)
		r = store_unlink(fd, GENERATION_FILE);
	if (r == 0)
		r = store_rmdir(k->place.parent_fd, k->place.side);
	return r < 0 ? r : store_fsync(k->place.parent_fd, false);
}

/* Takes lower and fd. */
static int drop_side(struct rekey *k, struct lower *lower, int fd, struct error *err)
{
	int r;

	k->phase = REKEY_REMOVING;
	k->files = k->bytes = 0;
	r = place_is(&k->place, k->place.side, fd) ? remove_retired(k, fd) : -ESTALE;
	close(fd);
	lower_close(lower);
	return r < 0 ? removal_failed(k, r, err) : 0;
}

static int retire_old(struct rekey *k, struct error *err)
{
	struct generation g = k->state;
	int r;

	g.role = GENERATION_RETIRED;
	/* Owner and mode may shut out who is not root; it is nobody's any more. */
	store_chmod(k->old_root, 0700);
	r = place_is(&k->place, k->place.side, k->old_root) ? generation_write(k->old_root, &g) : -ESTALE;
	if (r < 0)
		return removal_failed(k, r, err);
	return drop_side(k, steal_ptr(&k->old_lower), steal_fd(&k->old_root), err);
}

static int rename_old(struct rekey *k, struct rekey_result *result, struct error *err)
{
	time_t now = time(NULL);
	struct stat st;
	char date[32];
	struct tm tm;
	int r;

	if (store_stat(k->place.parent_fd, k->place.side, &st) == -ENOENT)
		return 0;
	gmtime_r(&now, &tm);
	strftime(date, sizeof(date), "%Y%m%dT%H%M%SZ", &tm);
	if (snprintf(result->kept, sizeof(result->kept), "%s.old-%s", k->place.base, date) > NAME_MAX)
		return error_set(err, -ENAMETOOLONG, EXIT_STATUS_FAILED,
				 "the name of the old generation is too long");
	r = store_rename(k->place.parent_fd, k->place.side, k->place.parent_fd, result->kept,
			 RENAME_NOREPLACE);
	if (r == 0)
		r = store_fsync(k->place.parent_fd, false);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot rename %s to %s", k->place.side,
				   result->kept)
		     : 0;
}

/* After the exchange: the old generation goes, and then nothing tells any more that there was one. */
static int finish(struct rekey *k, struct rekey_result *result, struct error *err)
{
	int r = 0;

	lower_close(steal_ptr(&k->new_lower)); /* the volume can be mounted again */
	if (k->params->keep_old)
		r = rename_old(k, result, err);
	else if (k->old_lower && lower_lock_alone(k->old_lower) == -EBUSY) {
		/* Read-only mounts go on with what they have. */
		snprintf(result->kept, sizeof(result->kept), "%s", k->place.side);
		result->in_use = true;
		return 0;
	} else if (k->old_root >= 0)
		r = retire_old(k, err);
	if (r < 0)
		return r;
	r = generation_remove(k->new_root);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot remove the state file") : 0;
}

/* ---- the way there ---- */

/* Copies until comparing finds no difference: a copy may be bad that was made before the power failed. */
static int copy_and_compare(struct rekey *k, struct error *err)
{
	for (int round = 0; round < ROUNDS; round++) {
		int r = copy_tree(k);

		if (r == 0)
			r = store_syncfs(k->new_root);
		if (r == 0)
			r = verify_tree(k);
		if (r < 0)
			return err->code < 0
				       ? r
				       : error_errno(err, r, EXIT_STATUS_FAILED, "cannot write the copy");
		if (k->mismatches == 0)
			return 0;
		k->resumed = true;
	}
	return error_set(
		err, -EIO, EXIT_STATUS_FAILED,
		"copies were not what they are copied from, %d times: is the disk or the memory bad?",
		ROUNDS);
}

static int check_links(struct rekey *k, struct error *err)
{
	for (size_t i = 0; i < k->links.size; i++) {
		const struct link *l = &k->links.table[i];

		/* The old inode may have names outside of the volume as well; the new one may not. */
		if (!l->old_ino || l->seen == l->names)
			continue;
		error_set(err, -EIO, EXIT_STATUS_FAILED, "hard links of the copy are not what they were");
		error_hint(err, "ckrfs rekey --abort %s   (and begin anew)", k->params->source);
		return -EIO;
	}
	return 0;
}

/* The new root becomes like the old one; then it says that all is there. */
static int complete(struct rekey *k, struct error *err)
{
	struct stat st;
	int r = store_stat_fd(k->old_root, &st);

	if (r == 0)
		r = copy_metadata(k, k->old_root, &st, k->new_root);
	if (r == 0)
		r = generation_config_digest(k->old_root, k->state.old_config);
	if (r == 0)
		r = store_syncfs(k->new_root);
	k->state.role = GENERATION_COMPLETE;
	if (r == 0)
		r = generation_write(k->new_root, &k->state);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot complete the new generation") : 0;
}

static int exchange(struct rekey *k, struct error *err)
{
	if (!place_is(&k->place, k->place.base, k->old_root) ||
	    !place_is(&k->place, k->place.side, k->new_root))
		return error_set(err, -ESTALE, EXIT_STATUS_FAILED, "%s or %s was moved meanwhile",
				 k->place.base, k->place.side);
	return place_exchange(&k->place, err);
}

/* An earlier run may have been killed when it had all, and its root has its owner already: nobody comes in
 * while something is changed. */
static int reopen(struct rekey *k, struct error *err)
{
	int r = 0;

	if (k->state.role == GENERATION_UNFINISHED)
		return 0;
	k->state.role = GENERATION_UNFINISHED;
	r = store_chmod(k->new_root, 0700);
	if (r == 0)
		r = generation_write(k->new_root, &k->state);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot write the state file") : 0;
}

int rekey_run(struct rekey *k, struct rekey_result *ret, struct error *err)
{
	struct rekey_result result = {.resumed = k->resumed || !k->needs_keys};
	int r = 0;

	k->err = err;
	if (k->needs_keys) {
		r = reopen(k, err);
		if (r == 0)
			r = copy_and_compare(k, err);
		if (r == 0)
			r = check_links(k, err);
		result.files = k->files;
		result.bytes = k->bytes;
		if (r == 0)
			r = complete(k, err);
		if (r == 0)
			r = exchange(k, err);
	}
	memcpy(result.dropped, k->slots, sizeof(result.dropped));
	memcpy(result.old_key, k->state.old_key, sizeof(result.old_key));
	memcpy(result.new_key, k->state.new_key, sizeof(result.new_key));
	if (r == 0)
		r = finish(k, &result, err);
	if (r == 0)
		*ret = result;
	return r;
}

/* ---- giving up ---- */

static int nothing_to_abort(struct rekey *k, struct error *err)
{
	return error_set(err, -ENOENT, EXIT_STATUS_NO_VOLUME, "%s/%s is no unfinished rekey of this volume",
			 k->place.path, k->place.side);
}

static int abort_steps(struct rekey *k, struct error *err)
{
	autofd int fd = -1;
	struct generation volume;
	struct stat st;
	int r = place_open(k->params->source, &k->place, err);

	if (r < 0)
		return r;
	fd = store_open_dir(k->place.parent_fd, k->place.base);
	if (fd < 0 || store_stat(fd, "gocryptfs.conf", &st) < 0)
		return error_set(err, -ENOENT, EXIT_STATUS_FAILED, "%s is not a gocryptfs volume",
				 k->params->source);
	if (generation_read(fd, &volume) != -ENOENT) {
		error_set(err, -EBUSY, EXIT_STATUS_FAILED,
			  "the volume has its new key already: only the old generation is left to remove");
		error_hint(err, "ckrfs rekey %s", k->params->source);
		return -EBUSY;
	}
	r = open_side(k, &k->new_lower, &k->new_root, err);
	if (r < 0)
		return r == -ENOENT ? nothing_to_abort(k, err) : r;
	if (generation_read(k->new_root, &k->state) < 0)
		return nothing_to_abort(k, err);
	k->state.role = GENERATION_RETIRED;
	store_chmod(k->new_root, 0700);
	r = generation_write(k->new_root, &k->state);
	if (r < 0)
		return removal_failed(k, r, err);
	return drop_side(k, steal_ptr(&k->new_lower), steal_fd(&k->new_root), err);
}

int rekey_abort(const struct rekey_params *params, struct error *err)
{
	struct rekey *k = NULL;
	int r = new_rekey(params, &k, err);

	if (r == 0)
		r = abort_steps(k, err);
	rekey_free(k);
	return r;
}
