/* SPDX-License-Identifier: MIT */
#include "keysource.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "keysource_impl.h"
#include "util.h"

enum { PASSPHRASE_MAX = 2048 /* gocryptfs's own limit */ };

static const struct keysource_ops *const schemes[] = {
	&keysource_keyring, &keysource_file, &keysource_fd,   &keysource_cred,
	&keysource_unix,    &keysource_exec, &keysource_krb5,
};

/* By enum key_format; ends with NULL for nearest_word(). */
static const char *const format_names[] = {"pass", "raw", "hex", "base64", NULL};

const char *const *keysource_schemes(void)
{
	static const char *names[ARRAY_SIZE(schemes) + 1];

	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
		names[i] = schemes[i]->scheme;
	return names;
}

static int parse_format(const char *word, enum key_format *ret_format, struct error *err)
{
	const char *near;

	for (size_t i = 0; format_names[i]; i++) {
		if (!strcmp(word, format_names[i])) {
			*ret_format = (enum key_format)i;
			return 0;
		}
	}
	near = nearest_word(word, format_names);
	if (near)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, KEYSOURCE_FORMAT_NEAR, word, near);
	return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, KEYSOURCE_FORMAT, word);
}

static int parse_scheme(const char *word, const struct keysource_ops **ret_ops, struct error *err)
{
	const char *near;

	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
		if (!strcmp(word, schemes[i]->scheme)) {
			*ret_ops = schemes[i];
			return 0;
		}
	}
	near = nearest_word(word, keysource_schemes());
	if (near)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, KEYSOURCE_UNKNOWN_NEAR, word, near);
	return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, KEYSOURCE_UNKNOWN, word);
}

/* The last "?fmt=" in text, or NULL: a path may have question marks of its own. */
static char *find_parameter(char *text)
{
	char *mark = strrchr(text, '?');

	return mark && !strncmp(mark, "?fmt=", 5) ? mark : NULL;
}

static int keysource_fill(struct keysource *src, const char *spec, struct error *err)
{
	autofree char *text = strdup(spec);
	char *colon, *parameter;
	int r;

	src->spec = strdup(spec);
	if (!text || !src->spec)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot parse a key source");
	/* The text is not shown: somebody may have written the key itself here. */
	colon = strchr(text, ':');
	if (!colon || colon == text)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, KEYSOURCE_NO_SCHEME);
	*colon = '\0';
	r = parse_scheme(text, &src->ops, err);
	if (r < 0)
		return r;
	if (src->ops->raw)
		src->format = KEY_FORMAT_RAW;
	parameter = src->ops->raw ? NULL : find_parameter(colon + 1);
	if (parameter) {
		r = parse_format(parameter + strlen("?fmt="), &src->format, err);
		if (r < 0)
			return r;
		*parameter = '\0';
	}
	src->body = strdup(colon + 1);
	if (!src->body)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot parse a key source");
	return src->ops->check(src, err);
}

int keysource_parse(const char *spec, struct keysource **ret, struct error *err)
{
	struct keysource *src = calloc(1, sizeof(*src));
	int r;

	if (!src)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot parse a key source");
	src->format = KEY_FORMAT_PASS;
	r = keysource_fill(src, spec, err);
	if (r < 0) {
		keysource_free(src);
		return r;
	}
	*ret = src;
	return 0;
}

void keysource_free(struct keysource *src)
{
	if (!src)
		return;
	free(src->spec);
	free(src->body);
	free(src);
}

const char *keysource_spec(const struct keysource *src)
{
	return src->spec;
}

int keysource_error(const struct keysource *src, int code, int timeout_ms, struct error *err)
{
	const enum exit_status status = EXIT_STATUS_NO_KEY;

	switch (code) {
	case -ENODATA:
		return error_set(err, code, status, KEYSOURCE_EMPTY, src->spec);
	case -EMSGSIZE:
		return error_set(err, code, status, KEYSOURCE_TOO_LONG, src->spec, SECRET_MAX);
	case -ETIMEDOUT:
		if (timeout_ms % 1000)
			return error_set(err, code, status, KEYSOURCE_TIMEOUT_MS, src->spec, timeout_ms);
		return error_set(err, code, status, KEYSOURCE_TIMEOUT_S, src->spec, timeout_ms / 1000);
	default:
		return error_errno(err, code, status, KEYSOURCE_CANNOT_READ, src->spec);
	}
}

int keysource_read_fd(const struct keysource *src, int fd, int timeout_ms, struct secret **ret,
		      struct error *err)
{
	int r = secret_read(fd, SECRET_MAX, timeout_ms, ret);

	return r < 0 ? keysource_error(src, r, timeout_ms, err) : 0;
}

int keysource_check_path(const struct keysource *src, struct error *err)
{
	if (src->body[0] != '/')
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, KEYSOURCE_NOT_ABSOLUTE, src->spec);
	return 0;
}

static int decode_passphrase(const struct keysource *src, const struct secret *text, struct secret **ret,
			     struct error *err)
{
	autosecret struct secret *line = NULL;
	int r = secret_first_line(text, &line);

	if (r == -ENODATA)
		return error_set(err, r, EXIT_STATUS_NO_KEY, KEYSOURCE_FIRST_LINE_EMPTY, src->spec);
	if (r < 0)
		return keysource_error(src, r, 0, err);
	if (secret_size(line) > PASSPHRASE_MAX)
		return error_set(err, -EMSGSIZE, EXIT_STATUS_NO_KEY, KEYSOURCE_PASS_TOO_LONG, src->spec,
				 PASSPHRASE_MAX);
	*ret = steal_ptr(&line);
	return 0;
}

/* Takes *text over where it is the key as it stands. */
static int keysource_decode(const struct keysource *src, struct secret **text, struct secret **ret,
			    struct error *err)
{
	int r = 0;

	switch (src->format) {
	case KEY_FORMAT_PASS:
		return decode_passphrase(src, *text, ret, err);
	case KEY_FORMAT_RAW:
		*ret = steal_ptr(text);
		return 0;
	case KEY_FORMAT_HEX:
		r = secret_from_hex(*text, ret);
		if (r == -EINVAL)
			return error_set(err, r, EXIT_STATUS_NO_KEY, KEYSOURCE_NOT_HEX, src->spec);
		break;
	case KEY_FORMAT_BASE64:
		r = secret_from_base64(*text, ret);
		if (r == -EINVAL)
			return error_set(err, r, EXIT_STATUS_NO_KEY, KEYSOURCE_NOT_BASE64, src->spec);
		break;
	}
	return r < 0 ? keysource_error(src, r, 0, err) : 0;
}

int keysource_read(const struct keysource *src, const struct keysource_env *env, struct key *ret_key,
		   struct error *err)
{
	autosecret struct secret *text = NULL;
	struct secret *bytes = NULL;
	int32_t serial;
	int r = env->kernel_keys && src->ops->find_kernel_key
			? src->ops->find_kernel_key(src, env, &serial, err)
			: 0;

	if (r == 1) {
		*ret_key = (struct key){.serial = serial};
		printable_text(src->spec, ret_key->source, sizeof(ret_key->source));
		return 0;
	}
	if (r == 0)
		r = src->ops->read(src, env, &text, err);
	if (r < 0)
		return r;
	r = keysource_decode(src, &text, &bytes, err);
	if (r < 0)
		return r;
	*ret_key = (struct key){.bytes = bytes, .passphrase = src->format == KEY_FORMAT_PASS};
	printable_text(src->spec, ret_key->source, sizeof(ret_key->source));
	return 0;
}

bool keysource_can_look(const struct keysource *src)
{
	return src->ops->look;
}

int keysource_look(const struct keysource *src, const struct keysource_env *env, struct secret **room,
		   struct keyring_sight *ret, struct error *err)
{
	return src->ops->look ? src->ops->look(src, env, room, ret, err) : -EOPNOTSUPP;
}

int keysource_probe(const struct keysource *src, const struct keysource_env *env, struct error *err)
{
	return src->ops->probe ? src->ops->probe(src, env, err) : 1;
}

/* Adds what a source said to what those before it said; the first code and the first hint are kept. */
static void keysource_collect(struct error *all, const struct error *one, size_t index)
{
	size_t used = strlen(all->text);

	if (index == 0) {
		all->code = one->code;
		all->status = one->status;
	}
	snprintf(all->text + used, sizeof(all->text) - used, "%s%s", index ? "; " : ": ", one->text);
	if (!all->hint[0])
		memcpy(all->hint, one->hint, sizeof(all->hint));
}

int keysource_read_first(struct keysource *const *srcs, size_t n, const struct keysource_env *env,
			 struct key *ret_key, struct error *err)
{
	struct error all = ERROR_NONE, one = ERROR_NONE;

	if (n == 0)
		return error_set(err, -ENOKEY, EXIT_STATUS_NO_KEY, KEYSOURCE_NONE);
	snprintf(all.text, sizeof(all.text), KEYSOURCE_NONE_SERVED, n);
	for (size_t i = 0; i < n; i++) {
		one = ERROR_NONE;
		if (keysource_read(srcs[i], env, ret_key, &one) == 0) {
			ret_key->index = i;
			return 0;
		}
		keysource_collect(&all, &one, i);
	}
	if (err)
		*err = n == 1 ? one : all;
	return n == 1 ? one.code : all.code;
}

void key_wipe(struct key *key)
{
	secret_free(key->bytes);
	key->bytes = NULL;
}
