/* SPDX-License-Identifier: MIT */
/* The format `gocryptfs`, its life: opening, the volume key. Byte compatible with gocryptfs v2 volumes. */
#include "format_gocryptfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "crypto.h"
#include "generation.h"
#include "store.h"
#include "util.h"

enum { TRIAL_DEPTH = 8, TRIAL_ENTRIES = 2000, TRIAL_REFUTED = 16 };

void gocryptfs_free(void *state)
{
	struct gocryptfs *g = state;

	if (!g)
		return;
	secret_free(g->master);
	gcfs_names_free(g->names);
	gcfs_content_free(g->content);
	gocryptfs_redo_free(&g->redo);
	cleanup_close(&g->ballast);
	pthread_mutex_destroy(&g->repair_lock);
	free(g);
}

struct gocryptfs *gocryptfs_new(const struct format_params *params)
{
	struct gocryptfs *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	g->ballast = -1;
	pthread_mutex_init(&g->repair_lock, NULL);
	gocryptfs_redo_init(&g->redo);
	g->root_fd = params->root_fd;
	g->scrypt_memory = params->scrypt_memory;
	g->may_repair = params->may_repair;
	return g;
}

/* The text of gocryptfs.conf, malloc'ed. */
static int read_config(int root_fd, char **ret_text, size_t *ret_size, struct error *err)
{
	autofree char *text = malloc(GCFS_CONFIG_MAX + 1);
	ssize_t n;

	if (!text)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot read " GCFS_CONF_FILE);
	n = store_read_file(root_fd, GCFS_CONF_FILE, text, GCFS_CONFIG_MAX + 1);
	if (n == -ENOENT) {
		error_set(err, -ENOENT, EXIT_STATUS_FAILED,
			  "not a gocryptfs volume: it has no " GCFS_CONF_FILE);
		error_hint(err, "ckrfs init DIRECTORY --key SCHEME:BODY");
		return -ENOENT;
	}
	if (n == -EINVAL || n == -ELOOP)
		return error_set(err, -EINVAL, EXIT_STATUS_FAILED, GCFS_CONF_FILE " is not a regular file");
	if (n < 0)
		return error_errno(err, (int)n, EXIT_STATUS_FAILED, "cannot read " GCFS_CONF_FILE);
	if (n > GCFS_CONFIG_MAX)
		return error_set(err, -EFBIG, EXIT_STATUS_FAILED, GCFS_CONF_FILE " is larger than %d bytes",
				 GCFS_CONFIG_MAX);
	*ret_text = steal_ptr(&text);
	*ret_size = (size_t)n;
	return 0;
}

/* A copy that rekey has not finished opens like a volume, and would be taken for one. */
static int check_finished(int root_fd, struct error *err)
{
	struct generation g;
	int r = generation_read(root_fd, &g);

	if (r == -ENOENT || (r == 0 && g.role == GENERATION_COMPLETE))
		return 0;
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot read %s", GENERATION_FILE);
	error_set(err, -EBUSY, EXIT_STATUS_FAILED,
		  g.role == GENERATION_UNFINISHED
			  ? "it is the unfinished copy that ckrfs rekey was making of another volume"
			  : "it is an old generation that ckrfs rekey was removing");
	error_hint(err, "ckrfs rekey VOLUME --key SPEC (or --abort VOLUME), without the .rekey");
	return -EBUSY;
}

static int gocryptfs_open(const struct format_params *params, void **ret_state, struct error *err)
{
	autofree char *text = NULL;
	struct gocryptfs *g;
	size_t size = 0;
	int r;

	r = read_config(params->root_fd, &text, &size, err);
	if (r == 0 && !params->unfinished)
		r = check_finished(params->root_fd, err);
	if (r < 0)
		return r;
	g = gocryptfs_new(params);
	if (!g)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot open the volume");
	r = gcfs_config_parse(text, size, &g->config, err);
	if (r < 0) {
		gocryptfs_free(g);
		return r;
	}
	*ret_state = g;
	return 0;
}

/* The encrypted text of a directory entry, for what is an encrypted name at all. */
static bool entry_text(struct gcfs_names *names, int dir_fd, const char *disk,
		       char text[GCFS_NAME_TEXT_MAX + 1])
{
	char file[NAME_MAX + sizeof(GCFS_LONG_SUFFIX)];
	ssize_t n;

	switch (gcfs_name_kind(names, disk, true)) {
	case GCFS_NAME_ORDINARY:
		/* No encrypted name has a dot: gocryptfs.conf.tmp and what else lies about proves nothing. */
		if (strchr(disk, '.'))
			return false;
		snprintf(text, GCFS_NAME_TEXT_MAX + 1, "%s", disk);
		return true;
	case GCFS_NAME_LONG:
		snprintf(file, sizeof(file), "%s" GCFS_LONG_SUFFIX, disk);
		n = store_read_file(dir_fd, file, text, GCFS_NAME_TEXT_MAX);
		if (n <= 0)
			return false;
		text[n] = '\0';
		return true;
	default:
		return false;
	}
}

/*
 * What speaks for and against a master key. A wrong key makes about one name in 256 look right, so that names
 * alone prove little; a block or a link target that authenticates proves the key.
 */
struct trial {
	const struct gocryptfs *g;
	struct gcfs_names *names;
	struct gcfs_content *content;
	unsigned good_names, bad_names, refuted;
	unsigned entries_left;
	bool proved;
};

/* The first block of a file that has one; a hole is no witness. */
static void try_file(struct trial *t, int dir_fd, const char *disk)
{
	uint8_t buf[GCFS_HEADER + GCFS_BLOCK + GCFS_OVERHEAD_MAX], plain[GCFS_BLOCK + GCFS_OVERHEAD_MAX],
		id[GCFS_FILE_ID];
	size_t room = GCFS_HEADER + GCFS_BLOCK + gcfs_overhead(t->content), size;
	ssize_t n = store_read_file(dir_fd, disk, buf, room);
	uint64_t bad;
	bool zero = true;

	if (n <= (ssize_t)(GCFS_HEADER + gcfs_overhead(t->content)) || gcfs_header_parse(buf, id) < 0)
		return;
	for (ssize_t i = GCFS_HEADER; i < n && zero; i++)
		zero = buf[i] == 0;
	if (zero)
		return;
	if (gcfs_decrypt_blocks(t->content, id, 0, buf + GCFS_HEADER, (size_t)n - GCFS_HEADER, plain, &size,
				&bad) == 0)
		t->proved = true;
	else
		t->refuted++;
}

static void try_link(struct trial *t, int dir_fd, const char *disk)
{
	autofd int fd = store_open(dir_fd, disk, O_PATH, 0);
	autowiped char *target = NULL;
	char text[4097];
	ssize_t n = fd < 0 ? -1 : store_readlink(fd, text, sizeof(text) - 1);

	if (n <= 0 || gocryptfs_plain_names(t->g))
		return;
	text[n] = '\0';
	if (gcfs_symlink_decrypt(t->content, text, &target) == 0)
		t->proved = true;
	else
		t->refuted++;
}

static void try_directory(struct trial *t, int dir_fd, int depth);

static void try_entry(struct trial *t, int dir_fd, const uint8_t iv[GCFS_IV_SIZE], const char *disk,
		      int depth)
{
	char text[GCFS_NAME_TEXT_MAX + 1], name[NAME_MAX + 1];
	autofd int fd = -1;
	struct stat st;

	if (!entry_text(t->names, dir_fd, disk, text) || store_stat(dir_fd, disk, &st) < 0)
		return;
	if (gcfs_name_decrypt(t->names, iv, text, name) == 0)
		t->good_names++;
	else
		t->bad_names++;
	if (S_ISREG(st.st_mode)) {
		try_file(t, dir_fd, disk);
	} else if (S_ISLNK(st.st_mode)) {
		try_link(t, dir_fd, disk);
	} else if (S_ISDIR(st.st_mode) && depth < TRIAL_DEPTH) {
		fd = store_open_dir(dir_fd, disk);
		if (fd >= 0)
			try_directory(t, fd, depth + 1);
	}
}

/* Until the key is proved, enough speaks against it, or enough was looked at. */
static void try_directory(struct trial *t, int dir_fd, int depth)
{
	autodir DIR *dir = NULL;
	uint8_t iv[GCFS_IV_SIZE];
	struct dirent *e;
	const char *why;
	int fd;

	if (gocryptfs_read_iv(t->g, dir_fd, iv, &why) < 0)
		return;
	fd = store_open_dir(dir_fd, ".");
	if (fd < 0)
		return;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return;
	}
	while (!t->proved && t->refuted < TRIAL_REFUTED && t->entries_left && (e = readdir(dir))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		t->entries_left--;
		try_entry(t, dir_fd, iv, e->d_name, depth);
	}
}

/*
 * A master key that is given itself cannot be checked against the config, whose tag belongs to the
 * passphrase. Without this check files would be written that nobody else can read. An empty volume takes any
 * key, unless proof is asked for.
 */
static int check_master(struct gocryptfs *g, const struct secret *master, bool proof, struct error *err)
{
	struct trial t = {.g = g, .entries_left = TRIAL_ENTRIES};
	uint8_t iv[GCFS_IV_SIZE];
	const char *why;
	int r = gocryptfs_read_iv(g, g->root_fd, iv, &why);

	if (r < 0)
		return error_set(err, r, EXIT_STATUS_FAILED, "the volume's root directory is damaged: %s",
				 why);
	r = gcfs_names_new(master, g->config.flags, g->config.long_name_max, &t.names);
	if (r == 0)
		r = gcfs_content_new(master, g->config.flags, &t.content);
	if (r < 0)
		error_errno(err, r, EXIT_STATUS_FAILED, "cannot check the master key");
	else
		try_directory(&t, g->root_fd, 0);
	if (r == 0 && !t.proved && (proof || t.refuted || t.bad_names > t.good_names))
		r = error_set(err, -EKEYREJECTED, EXIT_STATUS_WRONG_KEY,
			      "wrong key: it decrypts none of the volume's files");
	gcfs_names_free(t.names);
	gcfs_content_free(t.content);
	return r;
}

static int wants_fido2(struct error *err)
{
	error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED,
		  "volume uses the feature flag \"FIDO2\": its key is the hmac-secret of a token, not a "
		  "passphrase, and must come as ?fmt=raw, hex or base64 from a program that asks the token "
		  "(ckrfs-volumes(7), FIDO2)");
	error_hint(err, "key = exec:/path/to/program ARGS?fmt=base64");
	return -EOPNOTSUPP;
}

/* What the token gives opens the config. So that files are not lost with the token, the master key itself is
 * taken too, where it is certain that it is the one. */
static int unlock_fido2(struct gocryptfs *g, struct key *key, struct secret **ret_master, struct error *err)
{
	struct error unsure = ERROR_NONE;
	int r;

	if (key->passphrase)
		return wants_fido2(err);
	if (secret_size(key->bytes) < GCFS_FIDO2_SECRET_MIN || secret_size(key->bytes) > GCFS_PASSPHRASE_MAX)
		return error_set(err, -EKEYREJECTED, EXIT_STATUS_WRONG_KEY,
				 "wrong key: an hmac-secret has %d bytes or more, not %zu",
				 GCFS_FIDO2_SECRET_MIN, secret_size(key->bytes));
	r = gcfs_config_unwrap(&g->config, key->bytes, g->scrypt_memory, ret_master, err);
	if (r == -EKEYREJECTED && secret_size(key->bytes) == GCFS_MASTER_KEY_SIZE &&
	    check_master(g, key->bytes, true, &unsure) == 0) {
		*ret_master = steal_ptr(&key->bytes);
		r = 0;
	}
	return r;
}

static int unlock_master(struct gocryptfs *g, struct key *key, struct secret **ret_master, struct error *err)
{
	int r;

	if (secret_size(key->bytes) != GCFS_MASTER_KEY_SIZE)
		return error_set(
			err, -EKEYREJECTED, EXIT_STATUS_WRONG_KEY,
			"wrong key: a master key has %d bytes, not %zu (a passphrase needs ?fmt=pass)",
			GCFS_MASTER_KEY_SIZE, secret_size(key->bytes));
	r = check_master(g, key->bytes, false, err);
	if (r == 0)
		*ret_master = steal_ptr(&key->bytes);
	return r;
}

static int unlock_without_slots(struct gocryptfs *g, struct key *key, struct secret **ret_master,
				struct error *err)
{
	if (g->config.flags & GCFS_FIDO2)
		return unlock_fido2(g, key, ret_master, err);
	if (key->passphrase)
		return gcfs_config_unwrap(&g->config, key->bytes, g->scrypt_memory, ret_master, err);
	return unlock_master(g, key, ret_master, err);
}

/* A passphrase is most likely the config's own, as a token's secret is; of other keys the slots can tell for
 * certain whether it is theirs. */
static int unlock_by_any(struct gocryptfs *g, struct key *key, struct secret **ret_master, struct error *err)
{
	bool config_first = key->passphrase == !(g->config.flags & GCFS_FIDO2);
	int r = config_first ? unlock_without_slots(g, key, ret_master, err) : -EKEYREJECTED, slots;

	g->slot[0] = '\0';
	if (r != -EKEYREJECTED)
		return r;
	slots = gocryptfs_unlock_slots(g, key, ret_master, err);
	if (slots == -ENOKEY) /* the config's words stay */
		return config_first ? r : unlock_without_slots(g, key, ret_master, err);
	/* Slots that another master key came with must not be believed either. */
	return slots == 0 ? check_master(g, *ret_master, false, err) : slots;
}

static int gocryptfs_unlock(void *state, struct key *key, struct error *err)
{
	struct gocryptfs *g = state;
	autosecret struct secret *master = NULL;
	int r = unlock_by_any(g, key, &master, err);

	secret_free(steal_ptr(&key->bytes));
	if (r < 0)
		return r;
	r = gcfs_key_identifier(master, g->identifier);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot compute the key identifier");
	secret_free(g->master);
	g->master = steal_ptr(&master);
	return 0;
}

static int gocryptfs_no_source(const void *state, struct error *err)
{
	const struct gocryptfs *g = state;

	return g->config.flags & GCFS_FIDO2 ? wants_fido2(err) : 0;
}

static const char *gocryptfs_key_identifier(const void *state)
{
	const struct gocryptfs *g = state;

	return g->identifier[0] ? g->identifier : "-";
}

/* The working keys; the volume key is forgotten. */
static int derive_keys(struct gocryptfs *g, struct error *err)
{
	int r = gcfs_names_new(g->master, g->config.flags, g->config.long_name_max, &g->names);

	if (r == 0)
		r = gcfs_content_new(g->master, g->config.flags, &g->content);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot derive the volume's keys");
	secret_free(steal_ptr(&g->master));
	return 0;
}

/* With names in clear the log would be seen. */
static int start_log(struct gocryptfs *g, struct error *err)
{
	int r = 0;

	if (g->may_repair && !(g->config.flags & GCFS_PLAINTEXT_NAMES))
		r = gocryptfs_redo_start(&g->redo, g->root_fd, g->content);
	if (r < 0) {
		error_errno(err, r, EXIT_STATUS_FAILED,
			    "what a killed mount left half written cannot be completed");
		error_hint(err, "ckrfs mount -o ro ...");
	}
	return r;
}

static int gocryptfs_start(struct format *f, struct error *err)
{
	struct gocryptfs *g = gocryptfs_of(f);
	int r = derive_keys(g, err);

	if (r < 0)
		return r;
	g->moves_blocks = !store_overwrites(g->root_fd);
	return start_log(g, err);
}

/* The redo log goes on: it holds nothing but ciphertext. */
static void gocryptfs_lock(struct format *f)
{
	struct gocryptfs *g = gocryptfs_of(f);

	gcfs_names_free(steal_ptr(&g->names));
	gcfs_content_free(steal_ptr(&g->content));
}

/* What the log protects is on disk then. */
static void gocryptfs_let_go(struct format *f)
{
	struct gocryptfs *g = gocryptfs_of(f);

	gocryptfs_ballast_drop(g, g->root_fd);
	store_syncfs(g->root_fd);
	gocryptfs_redo_free(&g->redo);
	memset(&g->redo, 0, sizeof(g->redo));
	gocryptfs_redo_init(&g->redo);
}

static void gocryptfs_take(struct format *f)
{
	struct error none = ERROR_NONE;

	/* The log went with gocryptfs_let_go(): nothing is played back that could fail. */
	start_log(gocryptfs_of(f), &none);
}

_Static_assert((int)FORMAT_KEY_SIZE == (int)GCFS_MASTER_KEY_SIZE, "the room holds a master key");

static void gocryptfs_hand_over(const void *state, struct secret *room)
{
	const struct gocryptfs *g = state;

	memcpy(secret_data(room), secret_data(g->master), FORMAT_KEY_SIZE);
}

static int gocryptfs_restart(struct format *f, const struct secret *room, struct error *err)
{
	struct gocryptfs *g = gocryptfs_of(f);
	char identifier[sizeof(g->identifier)];
	int r = gcfs_key_identifier(room, identifier);

	if (r == 0 && strcmp(identifier, g->identifier) != 0)
		return error_set(err, -EKEYREJECTED, EXIT_STATUS_WRONG_KEY,
				 "wrong key: it is that of another volume");
	if (r == 0)
		r = secret_new_from(secret_data(room), FORMAT_KEY_SIZE, &g->master);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot take the key");
	r = derive_keys(g, err);
	if (r < 0) {
		secret_free(steal_ptr(&g->master));
		gocryptfs_lock(f);
	}
	return r;
}

const struct format_ops format_gocryptfs_ops = {
	.name = "gocryptfs",
	.needs_key = true,
	.owns_content = true,
	.open = gocryptfs_open,
	.unlock = gocryptfs_unlock,
	.start = gocryptfs_start,
	.lock = gocryptfs_lock,
	.hand_over = gocryptfs_hand_over,
	.restart = gocryptfs_restart,
	.let_go = gocryptfs_let_go,
	.take = gocryptfs_take,
	.free = gocryptfs_free,
	.no_source = gocryptfs_no_source,
	.init = gocryptfs_init,
	.make = gocryptfs_make,
	.key_identifier = gocryptfs_key_identifier,
	.dir_iv = gocryptfs_dir_iv,
	.name_encode = gocryptfs_name_encode,
	.name_decode = gocryptfs_name_decode,
	.attr = gocryptfs_attr,
	.create = gocryptfs_create,
	.mknod = gocryptfs_mknod,
	.mkdir = gocryptfs_mkdir,
	.symlink = gocryptfs_symlink,
	.link = gocryptfs_link,
	.unlink = gocryptfs_unlink,
	.rmdir = gocryptfs_rmdir,
	.rename = gocryptfs_rename,
	.readlink = gocryptfs_readlink,
	.read = gocryptfs_read,
	.write = gocryptfs_write,
	.truncate = gocryptfs_truncate,
	.fallocate = gocryptfs_fallocate,
	.fsync = gocryptfs_fsync,
	.seek = gocryptfs_seek,
	.getxattr = gocryptfs_getxattr,
	.listxattr = gocryptfs_listxattr,
	.setxattr = gocryptfs_setxattr,
	.removexattr = gocryptfs_removexattr,
};
