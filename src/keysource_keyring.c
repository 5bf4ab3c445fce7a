/* SPDX-License-Identifier: MIT */
/* keyring:TYPE:DESCRIPTION, in the mount's ring or the manager's. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "keyring.h"
#include "keysource_impl.h"

static int keyring_check(const struct keysource *src, struct error *err)
{
	const char *colon = strchr(src->body, ':');

	if (!colon || colon == src->body || !colon[1])
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, KEYSOURCE_NOT_KEY, src->spec);
	return 0;
}

static int keyring_error(const struct keysource *src, int code, struct error *err)
{
	const enum exit_status status = EXIT_STATUS_NO_KEY;

	switch (code) {
	case -ENOKEY:
		return error_set(err, code, status, KEYSOURCE_NO_KEY, src->spec);
	case -EACCES:
		return error_set(err, code, status, KEYSOURCE_KEY_DENIED, src->spec);
	case -EKEYEXPIRED:
		return error_set(err, code, status, KEYSOURCE_KEY_EXPIRED, src->spec);
	case -EKEYREVOKED:
		return error_set(err, code, status, KEYSOURCE_KEY_REVOKED, src->spec);
	case -EOPNOTSUPP:
		return error_set(err, code, status, KEYSOURCE_KEY_UNREADABLE, src->spec);
	default:
		return keysource_error(src, code, 0, err);
	}
}

/* *ret_type is the caller's to free; *ret_desc is a part of it. */
static int key_name(const struct keysource *src, const struct keysource_env *env, char **ret_type,
		    const char **ret_desc, struct error *err)
{
	char *type, *colon;

	if (!env->ring || !env->ring->mount)
		return error_set(err, -ENOKEY, EXIT_STATUS_NO_KEY, KEYSOURCE_NO_RING, src->spec);
	type = strdup(src->body);
	if (!type)
		return keysource_error(src, -ENOMEM, 0, err);
	colon = strchr(type, ':');
	*colon = '\0';
	*ret_type = type;
	*ret_desc = colon + 1;
	return 0;
}

static int keyring_source_read(const struct keysource *src, const struct keysource_env *env,
			       struct secret **ret, struct error *err)
{
	autofree char *type = NULL;
	const char *desc;
	int r = key_name(src, env, &type, &desc, err);

	if (r < 0)
		return r;
	r = keyring_read(env->ring, type, desc, SECRET_MAX, ret, NULL);
	return r < 0 ? keyring_error(src, r, err) : 0;
}

static int keyring_source_look(const struct keysource *src, const struct keysource_env *env,
			       struct secret **room, struct keyring_sight *ret, struct error *err)
{
	autofree char *type = NULL;
	const char *desc;
	int r = key_name(src, env, &type, &desc, err);

	if (r < 0)
		return r;
	r = keyring_look(env->ring, type, desc, room, ret);
	return r < 0 ? keyring_error(src, r, err) : 0;
}

static int keyring_source_find(const struct keysource *src, const struct keysource_env *env, int32_t *ret,
			       struct error *err)
{
	autofree char *type = NULL;
	const char *desc;
	int r = key_name(src, env, &type, &desc, err);

	if (r < 0 || strcmp(type, "fscrypt-provisioning") != 0)
		return r;
	r = keyring_find_serial(env->ring, type, desc, ret);
	return r < 0 ? keyring_error(src, r, err) : 1;
}

static int keyring_source_probe(const struct keysource *src, const struct keysource_env *env,
				struct error *err)
{
	autofree char *type = NULL;
	const char *desc;
	int32_t serial;
	int r = key_name(src, env, &type, &desc, err);

	if (r < 0)
		return r;
	r = keyring_find_serial(env->ring, type, desc, &serial);
	return r < 0 ? keyring_error(src, r, err) : 0;
}

const struct keysource_ops keysource_keyring = {
	.scheme = "keyring",
	.check = keyring_check,
	.read = keyring_source_read,
	.find_kernel_key = keyring_source_find,
	.look = keyring_source_look,
	.probe = keyring_source_probe,
};
