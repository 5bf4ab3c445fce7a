/* SPDX-License-Identifier: MIT */
#include "cmd_init_fscrypt.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lower_fscrypt.h"
#include "util.h"

enum { PADDING_DEFAULT = 32, KEY_MIN = 32 };

static int set_word(const char *name, const char *value, const char *const *words, int *ret,
		    struct error *err)
{
	const char *near = nearest_word(value, words);
	char takes[128] = "";

	for (int i = 0; words[i]; i++) {
		size_t used = strlen(takes);

		if (strcmp(words[i], value) == 0) {
			*ret = i;
			return 1;
		}
		snprintf(takes + used, sizeof(takes) - used, "%s%s", i ? ", " : "", words[i]);
	}
	if (near)
		return error_set(err, -EINVAL, EXIT_STATUS_USAGE,
				 "--%s has no value \"%s\" (did you mean %s?)", name, value, near);
	return error_set(err, -EINVAL, EXIT_STATUS_USAGE, "--%s must be one of %s, not \"%s\"", name, takes,
			 value);
}

static int set_padding(const char *value, unsigned *ret, struct error *err)
{
	uint64_t n;

	if (parse_u64(value, 32, &n) < 0 || fskey_padding_flag((unsigned)n) < 0)
		return error_set(err, -EINVAL, EXIT_STATUS_USAGE,
				 "--padding must be 4, 8, 16 or 32, not \"%s\"", value);
	*ret = (unsigned)n;
	return 1;
}

int init_fscrypt_set(struct init_fscrypt *f, const char *name, const char *value, struct error *err)
{
	int r = 0;

	if (strcmp(name, "contents") == 0)
		r = set_word(name, value, fskey_contents_words, &f->contents, err);
	else if (strcmp(name, "filenames") == 0)
		r = set_word(name, value, fskey_names_words, &f->names, err);
	else if (strcmp(name, "iv") == 0)
		r = set_word(name, value, fskey_iv_words, &f->iv, err);
	else if (strcmp(name, "padding") == 0)
		r = set_padding(value, &f->padding, err);
	f->given |= r == 1;
	return r;
}

static int check_key(const struct key *key, const char *directory, struct error *err)
{
	if (key->serial)
		return 0;
	if (key->passphrase) {
		error_set(
			err, -EINVAL, EXIT_STATUS_USAGE,
			"the key of a directory that its file system encrypts is no passphrase, but %d to %d "
			"bytes (fmt=raw, hex or base64)",
			KEY_MIN, FSKEY_MAX);
		error_hint(err, "fscrypt encrypt %s   (sets up passphrases, which mount too)", directory);
		return -EINVAL;
	}
	if (secret_size(key->bytes) < KEY_MIN || secret_size(key->bytes) > FSKEY_MAX)
		return error_set(err, -EINVAL, EXIT_STATUS_NO_KEY,
				 "a key of %zu bytes cannot be used: 32 to %d are needed",
				 secret_size(key->bytes), FSKEY_MAX);
	return 0;
}

int init_fscrypt_make(struct mount *m, int fd, const struct init_fscrypt *f, const char *key_spec,
		      struct error *err)
{
	const char *source = m->config->source;
	struct fskey_policy how = {
		.version = 2,
		.contents = fskey_contents_modes[f->contents],
		.names = fskey_names_modes[f->names],
		.flags = (uint8_t)(fskey_iv_flags[f->iv] |
				   fskey_padding_flag(f->padding ? f->padding : PADDING_DEFAULT)),
	};
	char id[33];
	int r = mount_get_lower_key(m, err);

	if (r == 0)
		r = check_key(&m->key, source, err);
	if (r == 0)
		r = lower_fscrypt_init(fd, source, &m->key, m->keys_fd, &how, err);
	if (r < 0)
		return r;
	fskey_id_text(&how, id);
	printf("made %s a directory that its file system encrypts, with key %s\n", source, id);
	printf("mount it with: ckrfs mount %s TARGET -o lower=fscrypt --key '%s'\n", source,
	       key_spec ? key_spec : "SPEC");
	return 0;
}
