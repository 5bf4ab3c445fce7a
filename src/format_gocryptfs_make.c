/* SPDX-License-Identifier: MIT */
/* The format `gocryptfs`: making a new volume, with a key that opens it again or with none. */
#include "format_gocryptfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "crypto.h"
#include "store.h"

enum { RAW_KEY_LOG_N = 10, DEFAULT_LOG_N = 16 };

/* What an init that was interrupted leaves; without a config nothing can depend on it. */
static bool is_init_leftover(int root_fd, const char *disk)
{
	struct stat st;

	return (strcmp(disk, GCFS_DIRIV_FILE) == 0 || strcmp(disk, GCFS_CONF_FILE ".tmp") == 0) &&
	       store_stat(root_fd, disk, &st) == 0 && S_ISREG(st.st_mode);
}

static int check_empty(int root_fd, struct error *err)
{
	autodir DIR *dir = NULL;
	struct dirent *e;
	int fd = store_open_dir(root_fd, ".");

	if (fd < 0)
		return error_errno(err, fd, EXIT_STATUS_FAILED, "cannot open the directory");
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot read the directory");
	}
	errno = 0;
	while ((e = readdir(dir)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
		    !is_init_leftover(root_fd, e->d_name))
			return error_set(err, -ENOTEMPTY, EXIT_STATUS_FAILED,
					 "the directory is not empty: it has \"%s\"", e->d_name);
	if (errno)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot read the directory");
	return 0;
}

/* A volume made with a raw key: the key is the master key, and its 64 hexadecimal digits are the passphrase
 * of gocryptfs.conf, so that gocryptfs can open it too. Stretching adds nothing to 256 random bits: the
 * lowest cost is right. */
int gocryptfs_hex_passphrase(const struct secret *key, struct secret **ret)
{
	static const char digits[] = "0123456789abcdef";
	int r = secret_new(secret_size(key) * 2, ret);

	if (r < 0)
		return r;
	for (size_t i = 0; i < secret_size(key); i++) {
		secret_data(*ret)[2 * i] = (uint8_t)digits[secret_data(key)[i] >> 4];
		secret_data(*ret)[2 * i + 1] = (uint8_t)digits[secret_data(key)[i] & 15];
	}
	return 0;
}

/* The flags that gocryptfs sets for such a volume. */
static struct gcfs_kind choose_kind(const struct format_init_params *params)
{
	static const unsigned ciphers[] = {
		[FORMAT_CIPHER_AES_GCM] = GCFS_GCMIV128,
		[FORMAT_CIPHER_AES_SIV] = GCFS_GCMIV128 | GCFS_AESSIV,
		[FORMAT_CIPHER_XCHACHA] = GCFS_XCHACHA,
	};
	static const unsigned names[] = {
		[FORMAT_NAMES_ENCRYPTED] = GCFS_DIRIV | GCFS_EME_NAMES | GCFS_LONG_NAMES | GCFS_RAW64,
		[FORMAT_NAMES_DETERMINISTIC] = GCFS_EME_NAMES | GCFS_LONG_NAMES | GCFS_RAW64,
		[FORMAT_NAMES_PLAINTEXT] = GCFS_PLAINTEXT_NAMES,
	};

	return (struct gcfs_kind){
		.flags = GCFS_HKDF | ciphers[params->cipher] | names[params->names] |
			 (params->long_name_max ? GCFS_LONG_NAME_MAX : 0),
		.long_name_max = params->long_name_max,
	};
}

static int random_master(struct secret **ret)
{
	autosecret struct secret *master = NULL;
	int r = secret_new(GCFS_MASTER_KEY_SIZE, &master);

	if (r == 0)
		r = crypto_random(secret_data(master), GCFS_MASTER_KEY_SIZE);
	if (r == 0)
		*ret = steal_ptr(&master);
	return r;
}

static int make_config(const struct format_init_params *params, struct gcfs_config *ret_config,
		       struct error *err)
{
	autosecret struct secret *master = NULL, *hex = NULL;
	const struct key *key = params->key;
	const struct secret *passphrase = key->bytes;
	const struct gcfs_kind kind = choose_kind(params);
	unsigned log_n = params->log_n;
	int r;

	if (key->passphrase) {
		r = random_master(&master);
	} else if (secret_size(key->bytes) != GCFS_MASTER_KEY_SIZE) {
		return error_set(err, -EINVAL, EXIT_STATUS_WRONG_KEY, "a master key has %d bytes, not %zu",
				 GCFS_MASTER_KEY_SIZE, secret_size(key->bytes));
	} else {
		r = secret_new_from(secret_data(key->bytes), GCFS_MASTER_KEY_SIZE, &master);
		if (r == 0)
			r = gocryptfs_hex_passphrase(key->bytes, &hex);
		passphrase = hex;
	}
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot make a master key");
	if (!log_n)
		log_n = key->passphrase ? DEFAULT_LOG_N : RAW_KEY_LOG_N;
	return gcfs_config_create(&kind, passphrase, master, log_n, params->scrypt_memory, ret_config, err);
}

/* iv NULL: none is wanted. */
static int write_files(int root_fd, const uint8_t *iv, const char *text, size_t size)
{
	int r = iv ? store_write_file(root_fd, GCFS_DIRIV_FILE, iv, GCFS_IV_SIZE, 0444, true) : 0;

	if (r == 0)
		r = store_write_file(root_fd, GCFS_CONF_FILE ".tmp", text, size, 0400, true);
	if (r == 0)
		r = store_fsync(root_fd, false);
	if (r == 0)
		r = store_rename(root_fd, GCFS_CONF_FILE ".tmp", root_fd, GCFS_CONF_FILE, 0);
	return r == 0 ? store_fsync(root_fd, false) : r;
}

/* All is on disk, the config under another name, before the config gets its own: a volume is there whole or
 * not at all. */
static int write_volume(int root_fd, bool has_iv, const char *text, size_t size, struct error *err)
{
	uint8_t iv[GCFS_IV_SIZE] = {0};
	int r = crypto_random(iv, sizeof(iv));

	if (r == 0) {
		store_unlink(root_fd, GCFS_CONF_FILE ".tmp");
		store_unlink(root_fd, GCFS_DIRIV_FILE);
		r = write_files(root_fd, has_iv ? iv : NULL, text, size);
	}
	if (r < 0) {
		store_unlink(root_fd, GCFS_CONF_FILE);
		store_unlink(root_fd, GCFS_CONF_FILE ".tmp");
		store_unlink(root_fd, GCFS_DIRIV_FILE);
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot write the volume's files");
	}
	return 0;
}

int gocryptfs_init(const struct format_init_params *params, struct error *err)
{
	autofree char *text = NULL;
	autofd int fd = -1;
	struct gcfs_config config = {0};
	size_t size;
	int r = check_empty(params->root_fd, err);

	if (r < 0)
		return r;
	fd = store_open_dir(params->root_fd, ".");
	if (fd < 0)
		return error_errno(err, fd, EXIT_STATUS_FAILED, "cannot open the directory");
	r = make_config(params, &config, err);
	if (r < 0)
		return r;
	r = gcfs_config_format(&config, &text, &size);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot write " GCFS_CONF_FILE);
	return write_volume(fd, config.flags & GCFS_DIRIV, text, size, err);
}

/* No gocryptfs.conf: there is nothing that could be in it. */
static int make_unwritten(struct gocryptfs *g)
{
	const struct gcfs_kind kind = GCFS_KIND_DEFAULT;
	uint8_t iv[GCFS_IV_SIZE];
	int r = random_master(&g->master);

	g->config.flags = kind.flags;
	if (r == 0)
		r = gcfs_key_identifier(g->master, g->identifier);
	if (r == 0)
		r = crypto_random(iv, sizeof(iv));
	return r < 0 ? r : gocryptfs_write_iv(g->root_fd, iv);
}

int gocryptfs_make(const struct format_params *params, void **ret_state, struct error *err)
{
	struct gocryptfs *g = gocryptfs_new(params);
	int r = g ? make_unwritten(g) : -ENOMEM;

	if (r < 0) {
		gocryptfs_free(g);
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot make a volume");
	}
	*ret_state = g;
	return 0;
}
