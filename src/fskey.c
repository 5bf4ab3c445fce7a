/* SPDX-License-Identifier: MIT */
#include "fskey.h"

#include <errno.h>
#include <linux/fscrypt.h>
#include <string.h>
#include <sys/ioctl.h>

#include "cleanup.h"
#include "crypto.h"
#include "crypto_wrap.h"
#include "util.h"

const char *const fskey_contents_words[] = {"aes-256-xts", "aes-128-cbc", "adiantum", NULL};
const uint8_t fskey_contents_modes[] = {FSCRYPT_MODE_AES_256_XTS, FSCRYPT_MODE_AES_128_CBC,
					FSCRYPT_MODE_ADIANTUM};
const char *const fskey_names_words[] = {"aes-256-cts", "aes-256-hctr2", "aes-128-cts", "adiantum", NULL};
const uint8_t fskey_names_modes[] = {FSCRYPT_MODE_AES_256_CTS, FSCRYPT_MODE_AES_256_HCTR2,
				     FSCRYPT_MODE_AES_128_CTS, FSCRYPT_MODE_ADIANTUM};
const char *const fskey_iv_words[] = {"per-file", "direct-key", "ino-lblk-64", "ino-lblk-32", NULL};
const uint8_t fskey_iv_flags[] = {0, FSCRYPT_POLICY_FLAG_DIRECT_KEY, FSCRYPT_POLICY_FLAG_IV_INO_LBLK_64,
				  FSCRYPT_POLICY_FLAG_IV_INO_LBLK_32};

int fskey_padding_flag(unsigned padding)
{
	static const unsigned paddings[] = {
		[FSCRYPT_POLICY_FLAGS_PAD_4] = 4,
		[FSCRYPT_POLICY_FLAGS_PAD_8] = 8,
		[FSCRYPT_POLICY_FLAGS_PAD_16] = 16,
		[FSCRYPT_POLICY_FLAGS_PAD_32] = 32,
	};

	for (size_t i = 0; i < ARRAY_SIZE(paddings); i++)
		if (paddings[i] == padding)
			return (int)i;
	return -EINVAL;
}

/* ---- what a key is called ---- */

size_t fskey_id_size(const struct fskey_policy *p)
{
	return p->version == 1 ? FSKEY_DESCRIPTOR_SIZE : FSKEY_IDENTIFIER_SIZE;
}

void fskey_id_text(const struct fskey_policy *p, char ret[33])
{
	hex_encode(p->id, fskey_id_size(p), ret);
}

bool fskey_same_key(const struct fskey_policy *a, const struct fskey_policy *b)
{
	return a->version == b->version && memcmp(a->id, b->id, fskey_id_size(a)) == 0;
}

/* fs/crypto/hkdf.c: "fscrypt\0" and the context HKDF_CONTEXT_KEY_IDENTIFIER. */
static int identifier(const struct secret *key, uint8_t ret[FSKEY_IDENTIFIER_SIZE])
{
	static const uint8_t info[] = {'f', 's', 'c', 'r', 'y', 'p', 't', 0, 1};
	autosecret struct secret *out = NULL;
	int r = hkdf_sha512(key, info, sizeof(info), FSKEY_IDENTIFIER_SIZE, &out);

	if (r == 0)
		memcpy(ret, secret_data(out), FSKEY_IDENTIFIER_SIZE);
	return r;
}

/* The kernel takes any eight bytes; e4crypt, fscrypt and fscryptctl take the beginning of SHA-512 of
 * SHA-512. */
static int descriptor(const struct secret *key, uint8_t ret[FSKEY_DESCRIPTOR_SIZE])
{
	autosecret struct secret *once = NULL, *twice = NULL;
	int r = sha512_secret(key, &once);

	if (r == 0)
		r = sha512_secret(once, &twice);
	if (r == 0)
		memcpy(ret, secret_data(twice), FSKEY_DESCRIPTOR_SIZE);
	return r;
}

int fskey_identify(const struct secret *key, struct fskey_policy *p)
{
	return p->version == 1 ? descriptor(key, p->id) : identifier(key, p->id);
}

static struct fscrypt_key_specifier specifier(const struct fskey_policy *p)
{
	struct fscrypt_key_specifier s = {.type = p->version == 1 ? FSCRYPT_KEY_SPEC_TYPE_DESCRIPTOR
								  : FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER};

	memcpy(p->version == 1 ? s.u.descriptor : s.u.identifier, p->id, fskey_id_size(p));
	return s;
}

/* ---- policies ---- */

int fskey_get_policy(int fd, struct fskey_policy *ret)
{
	struct fscrypt_get_policy_ex_arg arg = {.policy_size = sizeof(arg.policy)};
	struct fskey_policy p = {0};

	if (ioctl(fd, FS_IOC_GET_ENCRYPTION_POLICY_EX, &arg) < 0)
		return -errno;
	if (arg.policy.version == FSCRYPT_POLICY_V1) {
		p = (struct fskey_policy){1,
					  arg.policy.v1.contents_encryption_mode,
					  arg.policy.v1.filenames_encryption_mode,
					  arg.policy.v1.flags,
					  {0}};
		memcpy(p.id, arg.policy.v1.master_key_descriptor, FSKEY_DESCRIPTOR_SIZE);
	} else if (arg.policy.version == FSCRYPT_POLICY_V2) {
		p = (struct fskey_policy){2,
					  arg.policy.v2.contents_encryption_mode,
					  arg.policy.v2.filenames_encryption_mode,
					  arg.policy.v2.flags,
					  {0}};
		memcpy(p.id, arg.policy.v2.master_key_identifier, FSKEY_IDENTIFIER_SIZE);
	} else {
		return -EINVAL;
	}
	*ret = p;
	return 0;
}

int fskey_set_policy(int fd, const struct fskey_policy *p)
{
	struct fscrypt_policy_v2 v2 = {
		.version = FSCRYPT_POLICY_V2,
		.contents_encryption_mode = p->contents,
		.filenames_encryption_mode = p->names,
		.flags = p->flags,
	};

	memcpy(v2.master_key_identifier, p->id, FSKEY_IDENTIFIER_SIZE);
	return ioctl(fd, FS_IOC_SET_ENCRYPTION_POLICY, &v2) < 0 ? -errno : 0;
}

/* ---- keys ---- */

int fskey_add(int fd, const struct fskey_policy *p, const struct secret *key)
{
	autosecret struct secret *room = NULL;
	struct fscrypt_add_key_arg arg = {.key_spec = specifier(p), .raw_size = (uint32_t)secret_size(key)};
	int r;

	if (secret_size(key) < FSKEY_MIN || secret_size(key) > FSKEY_MAX)
		return -EINVAL;
	/* The argument holds the key: it is a secret itself. */
	r = secret_new(sizeof(arg) + secret_size(key), &room);
	if (r < 0)
		return r;
	memcpy(secret_data(room), &arg, sizeof(arg));
	memcpy(secret_data(room) + sizeof(arg), secret_data(key), secret_size(key));
	return ioctl(fd, FS_IOC_ADD_ENCRYPTION_KEY, secret_data(room)) < 0 ? -errno : 0;
}

int fskey_add_by_serial(int fd, int32_t serial, struct fskey_policy *p)
{
	struct fscrypt_add_key_arg arg = {.key_spec = specifier(p), .key_id = (uint32_t)serial};

	if (ioctl(fd, FS_IOC_ADD_ENCRYPTION_KEY, &arg) < 0)
		return -errno;
	if (p->version == 2)
		memcpy(p->id, arg.key_spec.u.identifier, FSKEY_IDENTIFIER_SIZE);
	return 0;
}

int fskey_remove(int fd, const struct fskey_policy *p, unsigned *ret_left)
{
	struct fscrypt_remove_key_arg arg = {.key_spec = specifier(p)};

	if (ioctl(fd, FS_IOC_REMOVE_ENCRYPTION_KEY, &arg) < 0)
		return -errno;
	*ret_left = (arg.removal_status_flags & FSCRYPT_KEY_REMOVAL_STATUS_FLAG_FILES_BUSY ? FSKEY_LEFT_BUSY
											   : 0) |
		    (arg.removal_status_flags & FSCRYPT_KEY_REMOVAL_STATUS_FLAG_OTHER_USERS ? FSKEY_LEFT_USERS
											    : 0);
	return 0;
}

int fskey_status(int fd, const struct fskey_policy *p, enum fskey_state *ret, bool *ret_self)
{
	struct fscrypt_get_key_status_arg arg = {.key_spec = specifier(p)};

	if (ioctl(fd, FS_IOC_GET_ENCRYPTION_KEY_STATUS, &arg) < 0)
		return -errno;
	*ret = arg.status == FSCRYPT_KEY_STATUS_PRESENT                ? FSKEY_PRESENT
	       : arg.status == FSCRYPT_KEY_STATUS_INCOMPLETELY_REMOVED ? FSKEY_LEAVING
								       : FSKEY_ABSENT;
	*ret_self = arg.status_flags & FSCRYPT_KEY_STATUS_FLAG_ADDED_BY_SELF;
	return 0;
}
