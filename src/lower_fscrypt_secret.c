/* SPDX-License-Identifier: MIT */
/* What the user gives is the policy's key itself, or what opens a protector of the fscrypt tool:
 * .fscrypt/policies/ID says which protectors wrap the key, .fscrypt/protectors/DESCRIPTOR what opens one. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "fscrypt_metadata.h"
#include "lower_fscrypt_impl.h"
#include "store.h"

/* A raw key of a protector has this size. Passphrases are tried on so many protectors, and with so much work
 * in all (KiB times passes: minutes), that a hostile file cannot keep us busy for days. */
enum { PROTECTOR_RAW_SIZE = 32, PASSPHRASE_TRIES = 16 };
#define ARGON2_WORK_MAX (UINT64_C(1) << 27)

struct search {
	int policies_fd, protectors_fd; /* directories, -1: none */
	const struct fskey_policy *policy;
	const struct key *key;
	uint64_t memory, work;
	unsigned tries;
	unsigned unusable; /* protectors that want another kind of key, or are elsewhere */
	bool too_large;    /* one takes more memory than there may be */
	bool damaged;
};

/* 1: it is; 0: not. */
static int is_policy_key(const struct fskey_policy *policy, const struct secret *key)
{
	struct fskey_policy other = {.version = policy->version};
	int r;

	if (secret_size(key) < FSKEY_MIN || secret_size(key) > FSKEY_MAX)
		return 0;
	r = fskey_identify(key, &other);
	return r < 0 ? r : fskey_same_key(policy, &other);
}

/* ---- files ---- */

/* A file of the metadata: bytes, or -errno. */
static ssize_t read_metadata(int dir_fd, const char *name, uint8_t buf[FSCRYPT_METADATA_MAX + 1])
{
	ssize_t n = dir_fd < 0 ? -ENOENT : store_read_file(dir_fd, name, buf, FSCRYPT_METADATA_MAX + 1);

	return n > FSCRYPT_METADATA_MAX ? -EBADMSG : n;
}

static int read_policy(const struct search *s, struct fscrypt_policy_data *ret)
{
	uint8_t buf[FSCRYPT_METADATA_MAX + 1];
	char id[33];
	ssize_t n;
	int r;

	fskey_id_text(s->policy, id);
	n = read_metadata(s->policies_fd, id, buf);
	if (n < 0)
		return (int)n;
	r = fscrypt_policy_parse(buf, (size_t)n, ret);
	return r == 0 && strcmp(ret->key_id, id) != 0 ? -EBADMSG : r;
}

static int read_protector(const struct search *s, const char *descriptor, struct fscrypt_protector *ret)
{
	uint8_t buf[FSCRYPT_METADATA_MAX + 1];
	ssize_t n = read_metadata(s->protectors_fd, descriptor, buf);
	int r;

	if (n < 0)
		return (int)n;
	r = fscrypt_protector_parse(buf, (size_t)n, ret);
	return r == 0 && strcmp(ret->descriptor, descriptor) != 0 ? -EBADMSG : r;
}

/* ---- protectors ---- */

static int stretch_passphrase(struct search *s, const struct fscrypt_protector *p, struct secret **ret)
{
	uint64_t work = (uint64_t)p->cost.time * p->cost.memory_kib;

	if (s->tries++ >= PASSPHRASE_TRIES || work > ARGON2_WORK_MAX - s->work)
		return -E2BIG;
	s->work += work;
	return argon2id_derive(s->key->bytes, p->salt, sizeof(p->salt), &p->cost, s->memory, ret);
}

/* The protector's key and with it the policy's. -EKEYREJECTED: not by what was given. */
static int try_protector(struct search *s, const struct fscrypt_wrapped_policy *w, struct secret **ret)
{
	autosecret struct secret *stretched = NULL, *protector_key = NULL, *found = NULL;
	const struct secret *wrapping = s->key->bytes;
	struct fscrypt_protector p;
	int r = read_protector(s, w->protector, &p);

	if (r < 0)
		return r;
	if ((p.source == FSCRYPT_SOURCE_RAW) == s->key->passphrase)
		return -ENOKEY;
	if (s->key->passphrase) {
		r = stretch_passphrase(s, &p, &stretched);
		wrapping = stretched;
	} else if (secret_size(wrapping) != PROTECTOR_RAW_SIZE) {
		r = -EKEYREJECTED;
	}
	if (r == 0)
		r = fscrypt_unwrap(wrapping, &p.key, &protector_key);
	if (r == 0)
		r = fscrypt_unwrap(protector_key, &w->key, &found);
	if (r == 0 && !(r = is_policy_key(s->policy, found)))
		r = -EBADMSG; /* well wrapped, but not what the directory is encrypted with */
	if (r < 0)
		return r;
	*ret = steal_ptr(&found);
	return 0;
}

static int try_protectors(struct search *s, const struct fscrypt_policy_data *data, struct secret **ret)
{
	for (size_t i = 0; i < data->n; i++) {
		int r = try_protector(s, &data->keys[i], ret);

		if (r == 0)
			return 0;
		if (r == -ENOKEY || r == -ENOENT)
			s->unusable++;
		else if (r == -ENOMEM || r == -E2BIG)
			s->too_large = true;
		else if (r == -EBADMSG || r == -EINVAL)
			s->damaged = true;
		else if (r != -EKEYREJECTED)
			return r;
	}
	return -EKEYREJECTED;
}

/* ---- why not ---- */

static int no_metadata(const struct search *s, const char *source, struct error *err)
{
	char id[33];

	fskey_id_text(s->policy, id);
	error_set(err, -ENOENT, EXIT_STATUS_WRONG_KEY,
		  "source %s has no passphrase: there is no .fscrypt/policies/%s in the root of its file "
		  "system",
		  source, id);
	error_hint(err, "ckrfs mount %s TARGET --key 'file:PATH?fmt=raw'", source);
	return -ENOENT;
}

static int wrong_raw_key(const struct search *s, const char *source, struct error *err)
{
	struct fskey_policy given = {.version = s->policy->version};
	char id[33], given_id[33] = "?";

	fskey_id_text(s->policy, id);
	if (fskey_identify(s->key->bytes, &given) == 0)
		fskey_id_text(&given, given_id);
	return error_set(err, -EKEYREJECTED, EXIT_STATUS_WRONG_KEY,
			 "wrong key: source %s is encrypted with key %s, not with %s", source, id, given_id);
}

static int wrong(const struct search *s, size_t protectors, const char *source, struct error *err)
{
	if (s->too_large) {
		error_set(
			err, -ENOMEM, EXIT_STATUS_FAILED,
			"a protector of source %s takes more memory or time than is allowed (scrypt-memory)",
			source);
		return -ENOMEM;
	}
	if (s->damaged)
		return error_set(err, -EBADMSG, EXIT_STATUS_FAILED,
				 "the metadata of source %s in .fscrypt is damaged", source);
	if (!s->key->passphrase)
		return wrong_raw_key(s, source, err);
	if (s->unusable == protectors)
		return error_set(err, -EKEYREJECTED, EXIT_STATUS_WRONG_KEY,
				 "source %s has no protector with a passphrase on its own file system",
				 source);
	return error_set(err, -EKEYREJECTED, EXIT_STATUS_WRONG_KEY,
			 "wrong passphrase: no protector of source %s opens with it", source);
}

static int search_metadata(struct search *s, const char *source, struct secret **ret, struct error *err)
{
	autofree struct fscrypt_policy_data *data = calloc(1, sizeof(*data));
	int r = data ? read_policy(s, data) : -ENOMEM;

	if (r == -ENOENT || r == -ELOOP || r == -ENOTDIR)
		return s->key->passphrase ? no_metadata(s, source, err) : wrong_raw_key(s, source, err);
	if (r == -EBADMSG || r == -E2BIG || r == -EINVAL) {
		s->damaged = true;
		return wrong(s, 0, source, err);
	}
	if (r == 0)
		r = try_protectors(s, data, ret);
	if (r == -EKEYREJECTED)
		return wrong(s, data->n, source, err);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot find the key of source %s", source)
		     : 0;
}

static int open_below(int dir_fd, const char *name)
{
	return dir_fd < 0 ? -ENOENT : store_open_dir(dir_fd, name);
}

int fscrypt_secret_find(int top_fd, const struct fskey_policy *policy, const struct key *key, uint64_t memory,
			const char *source, struct secret **ret, struct error *err)
{
	int r = key->passphrase ? 0 : is_policy_key(policy, key->bytes);
	autofd int base = -1, policies = -1, protectors = -1;
	struct search s = {.policy = policy, .key = key, .memory = memory};

	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot compute the key's identifier");
	if (r == 1) {
		r = secret_new_from(secret_data(key->bytes), secret_size(key->bytes), ret);
		return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot get memory for a key") : 0;
	}
	base = open_below(top_fd, ".fscrypt");
	policies = open_below(base, "policies");
	protectors = open_below(base, "protectors");
	s.policies_fd = policies;
	s.protectors_fd = protectors;
	return search_metadata(&s, source, ret, err);
}
