/* SPDX-License-Identifier: MIT */
#include "generation.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "crypto.h"
#include "format_gocryptfs.h"
#include "store.h"
#include "util.h"

#define STATE_NEW GENERATION_FILE ".new.name"
#define CONF_NEW GCFS_CONF_FILE ".tmp"

enum { STATE_MAX = 1024, RAW_KEY_LOG_N = 10, LOG_N_MIN = 10, LOG_N_MAX = 28 };

static const char *const roles[] = {
	[GENERATION_UNFINISHED] = "unfinished",
	[GENERATION_COMPLETE] = "complete",
	[GENERATION_RETIRED] = "retired",
};

/* ---- the state file ---- */

int generation_read(int root_fd, struct generation *ret)
{
	struct generation g = {0};
	char text[STATE_MAX + 1], role[16], end;
	ssize_t n = store_read_file(root_fd, GENERATION_FILE, text, STATE_MAX);

	if (n == -ELOOP || n == -EINVAL)
		return -EBADMSG;
	if (n < 0)
		return (int)n;
	text[n] = '\0';
	if (sscanf(text, "ckrfs rekey 1\nrole %15s\nold %32s\nnew %32s\nconfig %64s%c", role, g.old_key,
		   g.new_key, g.old_config, &end) != 5 ||
	    end != '\n')
		return -EBADMSG;
	for (size_t i = 0; i < ARRAY_SIZE(roles); i++) {
		if (strcmp(role, roles[i]) != 0)
			continue;
		g.role = (enum generation_role)i;
		*ret = g;
		return 0;
	}
	return -EBADMSG;
}

/* The times of the directory are those of the volume's root: a state file must not change them. */
static void keep_times(int root_fd, const struct stat *st)
{
	store_utimens(root_fd, (const struct timespec[2]){st->st_atim, st->st_mtim});
}

int generation_write(int root_fd, const struct generation *g)
{
	char text[STATE_MAX];
	struct stat st;
	int n = snprintf(text, sizeof(text), "ckrfs rekey 1\nrole %s\nold %s\nnew %s\nconfig %s\n",
			 roles[g->role], g->old_key, g->new_key, g->old_config[0] ? g->old_config : "-");
	int r = store_stat_fd(root_fd, &st);

	if (r < 0)
		return r;
	r = store_unlink(root_fd, STATE_NEW); /* of a run that was killed */
	if (r == 0 || r == -ENOENT)
		r = store_write_file(root_fd, STATE_NEW, text, (size_t)n, 0600, true);
	if (r == 0)
		r = store_rename(root_fd, STATE_NEW, root_fd, GENERATION_FILE, 0);
	if (r == 0)
		keep_times(root_fd, &st);
	return r < 0 ? r : store_fsync(root_fd, false);
}

int generation_remove(int root_fd)
{
	struct stat st;
	int r = store_stat_fd(root_fd, &st);

	if (r == 0)
		r = store_unlink(root_fd, STATE_NEW);
	if (r == 0 || r == -ENOENT)
		r = store_unlink(root_fd, GENERATION_FILE);
	if (r == 0)
		keep_times(root_fd, &st);
	return r < 0 ? r : store_fsync(root_fd, false);
}

int generation_config_digest(int root_fd, char ret[65])
{
	autofree char *text = malloc(GCFS_CONFIG_MAX);
	uint8_t digest[32];
	ssize_t n;
	int r;

	if (!text)
		return -ENOMEM;
	n = store_read_file(root_fd, GCFS_CONF_FILE, text, GCFS_CONFIG_MAX);
	if (n < 0)
		return (int)n;
	r = sha256(text, (size_t)n, digest);
	if (r == 0)
		hex_encode(digest, sizeof(digest), ret);
	return r;
}

/* ---- a new generation ---- */

/* For a raw key: see gocryptfs_hex_passphrase(). A cost that init would not take is brought into its limits.
 */
static unsigned scrypt_cost(const struct gcfs_config *old, const struct key *key)
{
	unsigned log_n = 0;

	if (!key->passphrase)
		return RAW_KEY_LOG_N;
	while (log_n < LOG_N_MAX && UINT64_C(1) << (log_n + 1) <= old->scrypt_n)
		log_n++;
	return (unsigned)max_u64(log_n, LOG_N_MIN);
}

static int make_master(const struct key *key, struct secret **ret_master, struct secret **ret_hex)
{
	int r;

	if (!key->passphrase) {
		r = secret_new_from(secret_data(key->bytes), secret_size(key->bytes), ret_master);
		return r < 0 ? r : gocryptfs_hex_passphrase(key->bytes, ret_hex);
	}
	r = secret_new(GCFS_MASTER_KEY_SIZE, ret_master);
	return r < 0 ? r : crypto_random(secret_data(*ret_master), GCFS_MASTER_KEY_SIZE);
}

static int make_config(const struct gcfs_config *old, const struct key *key, uint64_t scrypt_memory,
		       struct gcfs_config *ret, char ret_identifier[33], struct error *err)
{
	autosecret struct secret *master = NULL, *hex = NULL;
	struct gcfs_kind kind = {old->flags & ~(unsigned)GCFS_FIDO2, old->long_name_max};
	int r;

	if (!key->passphrase && secret_size(key->bytes) != GCFS_MASTER_KEY_SIZE)
		return error_set(err, -EINVAL, EXIT_STATUS_WRONG_KEY, "a master key has %d bytes, not %zu",
				 GCFS_MASTER_KEY_SIZE, secret_size(key->bytes));
	r = make_master(key, &master, &hex);
	if (r == 0)
		r = gcfs_key_identifier(master, ret_identifier);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot make a master key");
	return gcfs_config_create(&kind, key->passphrase ? key->bytes : hex, master, scrypt_cost(old, key),
				  scrypt_memory, ret, err);
}

/* What a run left that was killed before the configuration was there is replaced: nothing was copied yet. */
static int write_volume(int root_fd, const struct gcfs_config *config, const char *text, size_t size)
{
	uint8_t iv[GCFS_IV_SIZE];
	int r = crypto_random(iv, sizeof(iv));

	store_unlink(root_fd, GCFS_DIRIV_FILE);
	store_unlink(root_fd, CONF_NEW);
	if (r == 0 && config->flags & GCFS_DIRIV)
		r = store_write_file(root_fd, GCFS_DIRIV_FILE, iv, sizeof(iv), 0444, true);
	if (r == 0)
		r = store_write_file(root_fd, CONF_NEW, text, size, 0400, true);
	if (r == 0)
		r = store_rename(root_fd, CONF_NEW, root_fd, GCFS_CONF_FILE, 0);
	return r < 0 ? r : store_fsync(root_fd, false);
}

int generation_create(const struct format *old, int root_fd, const struct key *key, uint64_t scrypt_memory,
		      struct generation *g, struct error *err)
{
	const struct gocryptfs *from = gocryptfs_of(old);
	struct gcfs_config config = {0};
	struct generation made = *g;
	autofree char *text = NULL;
	size_t size;
	int r = make_config(&from->config, key, scrypt_memory, &config, made.new_key, err);

	if (r < 0)
		return r;
	r = gcfs_config_format(&config, &text, &size);
	if (r == 0)
		r = generation_write(root_fd, &made);
	if (r == 0)
		r = write_volume(root_fd, &config, text, size);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot write the new generation's files");
	*g = made;
	return 0;
}

/* ---- extended attributes ---- */

static bool in_clear(const char *name)
{
	return strcmp(name, "system.posix_acl_access") == 0 || strcmp(name, "system.posix_acl_default") == 0;
}

void generation_xattrs_free(struct generation_xattrs *x)
{
	for (size_t i = 0; i < x->n; i++) {
		free(x->list[i].name);
		free(x->list[i].value);
	}
	free(x->list);
	*x = (struct generation_xattrs){0};
}

static int compare_names(const void *a, const void *b)
{
	const struct generation_xattr *x = a, *y = b;

	return strcmp(x->name, y->name);
}

/* The value as it is on the lower, malloc'ed. Nobody changes it meanwhile: the volume is locked. */
static ssize_t read_raw(int fd, const char *disk, void **ret)
{
	ssize_t size = store_getxattr(fd, disk, NULL, 0), n;
	autofree void *buf = NULL;

	if (size < 0)
		return size;
	buf = malloc((size_t)size + 1);
	if (!buf)
		return -ENOMEM;
	n = store_getxattr(fd, disk, buf, (size_t)size);
	if (n >= 0)
		*ret = steal_ptr(&buf);
	return n;
}

/* 1: it is not the volume's. */
static int read_one(struct format *f, int fd, const char *disk, struct generation_xattr *ret)
{
	struct gocryptfs *g = gocryptfs_of(f);
	char name[GCFS_XATTR_NAME_MAX + 1];
	autofree void *raw = NULL;
	uint8_t *plain = NULL;
	ssize_t n;
	int r = 0;

	if (!in_clear(disk) && strncmp(disk, GCFS_XATTR_PREFIX, strlen(GCFS_XATTR_PREFIX)) != 0)
		return 1;
	n = read_raw(fd, disk, &raw);
	if (n < 0)
		return (int)n;
	snprintf(name, sizeof(name), "%s", disk);
	ret->size = (size_t)n;
	if (!in_clear(disk)) {
		r = gcfs_xattr_name_decrypt(g->names, disk, name);
		if (r == 0)
			r = gcfs_value_decrypt(g->content, raw, (size_t)n, &plain, &ret->size);
	}
	if (r < 0)
		return r == -EBADMSG ? -EIO : r;
	ret->name = strdup(name);
	ret->value = in_clear(disk) ? steal_ptr(&raw) : plain;
	return ret->name ? 0 : -ENOMEM;
}

int generation_xattrs_read(struct format *f, int fd, struct generation_xattrs *ret)
{
	struct generation_xattrs x = {0};
	ssize_t size = store_listxattr(fd, NULL, 0);
	autofree char *names = NULL;
	int r = 0;

	*ret = x;
	if (size <= 0)
		return size == -EOPNOTSUPP ? 0 : (int)size;
	names = malloc((size_t)size);
	x.list = calloc((size_t)size / 2 + 1, sizeof(*x.list));
	if (!names || !x.list) {
		free(x.list);
		return -ENOMEM;
	}
	size = store_listxattr(fd, names, (size_t)size);
	for (const char *at = names; r >= 0 && at < names + size; at += strlen(at) + 1) {
		r = read_one(f, fd, at, &x.list[x.n]);
		x.n += r != 1; /* also what is half made, for the release */
	}
	if (size < 0 || r < 0) {
		generation_xattrs_free(&x);
		return size < 0 ? (int)size : r;
	}
	qsort(x.list, x.n, sizeof(*x.list), compare_names);
	*ret = x;
	return 0;
}

static bool same_xattr(const struct generation_xattr *a, const struct generation_xattr *b)
{
	return strcmp(a->name, b->name) == 0 && a->size == b->size &&
	       (a->size == 0 || memcmp(a->value, b->value, a->size) == 0);
}

bool generation_xattrs_equal(const struct generation_xattrs *a, const struct generation_xattrs *b)
{
	bool same = a->n == b->n;

	for (size_t i = 0; same && i < a->n; i++)
		same = same_xattr(&a->list[i], &b->list[i]);
	return same;
}

static const struct generation_xattr *find(const struct generation_xattrs *x, const char *name)
{
	const struct generation_xattr key = {.name = (char *)(uintptr_t)name};

	return x->n ? bsearch(&key, x->list, x->n, sizeof(key), compare_names) : NULL;
}

static int write_one(struct gocryptfs *g, int fd, const struct generation_xattr *x)
{
	char disk[GCFS_XATTR_NAME_MAX + 1];
	autofree uint8_t *stored = NULL;
	size_t size;
	int r;

	if (in_clear(x->name))
		return store_setxattr(fd, x->name, x->value, x->size, 0);
	r = gcfs_xattr_name_encrypt(g->names, x->name, disk);
	if (r == 0)
		r = gcfs_value_encrypt(g->content, x->value, x->size, &stored, &size);
	return r < 0 ? r : store_setxattr(fd, disk, stored, size, 0);
}

static int remove_one(struct gocryptfs *g, int fd, const struct generation_xattr *x)
{
	char disk[GCFS_XATTR_NAME_MAX + 1];
	int r;

	if (in_clear(x->name))
		return store_removexattr(fd, x->name);
	r = gcfs_xattr_name_encrypt(g->names, x->name, disk);
	return r < 0 ? r : store_removexattr(fd, disk);
}

int generation_xattrs_write(struct format *f, int fd, const struct generation_xattrs *have,
			    const struct generation_xattrs *want)
{
	struct gocryptfs *g = gocryptfs_of(f);
	int r = 0;

	for (size_t i = 0; r == 0 && i < have->n; i++)
		if (!find(want, have->list[i].name))
			r = remove_one(g, fd, &have->list[i]);
	for (size_t i = 0; r == 0 && i < want->n; i++) {
		const struct generation_xattr *there = find(have, want->list[i].name);

		if (!there || !same_xattr(there, &want->list[i]))
			r = write_one(g, fd, &want->list[i]);
	}
	return r;
}
