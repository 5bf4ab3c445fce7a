/* SPDX-License-Identifier: MIT */
#include "keyring.h"

#include <errno.h>
#include <keyutils.h>
#include <unistd.h>

#include "cleanup.h"
#include "keyring_impl.h"

/* Sizes of a key can change between asking and reading. */
enum { KEYRING_READ_TRIES = 8 };

static int32_t keyring_inherited(void)
{
	int32_t serial = (int32_t)keyctl_get_keyring_ID(KEY_SPEC_SESSION_KEYRING, 0);

	return serial < 0 ? -errno : serial;
}

/* The words for a manager's ring that cannot be used; need: the permission that the call wanted. */
static int manager_error(int code, int32_t serial, const char *need, struct error *err)
{
	switch (code) {
	case -EACCES:
		error_set(err, code, EXIT_STATUS_NO_KEY, "keyring %d does not grant %s to uid %u", serial,
			  need, geteuid());
		error_hint(err, "keyctl setperm %d 0x3f1b0000", serial);
		return code;
	case -ENOKEY:
		return error_set(err, code, EXIT_STATUS_NO_KEY, "there is no keyring %d", serial);
	case -EKEYREVOKED:
		return error_set(err, code, EXIT_STATUS_NO_KEY, "keyring %d was revoked", serial);
	case -EKEYEXPIRED:
		return error_set(err, code, EXIT_STATUS_NO_KEY, "keyring %d has expired", serial);
	case -ENOTDIR:
		return error_set(err, code, EXIT_STATUS_NO_KEY, "key %d is not a keyring", serial);
	case -EDQUOT:
		return error_set(err, code, EXIT_STATUS_FAILED, "the key quota of uid %u is used up",
				 geteuid());
	default:
		return error_errno(err, code, EXIT_STATUS_FAILED, "cannot use keyring %d", serial);
	}
}

/*
 * Links the manager's ring to the thread keyring, which survives the change of sessions: by its serial alone
 * it could not be linked afterwards. Then searches it for a key that nobody has, to learn whether that is
 * allowed.
 */
static int manager_hold(int32_t serial, struct error *err)
{
	int r;

	if (keyctl_link(serial, KEY_SPEC_THREAD_KEYRING) < 0)
		return manager_error(-errno, serial, "Link", err);
	if (keyctl_search(serial, "user", "ckrfs: is Search granted?", 0) >= 0 || errno == ENOKEY)
		return 0;
	r = manager_error(-errno, serial, "Search", err);
	keyctl_unlink(serial, KEY_SPEC_THREAD_KEYRING);
	return r;
}

static int mount_ring_error(int code, struct error *err)
{
	if (code == -EDQUOT)
		return error_set(err, code, EXIT_STATUS_FAILED, "the key quota of uid %u is used up",
				 geteuid());
	return error_errno(err, code, EXIT_STATUS_FAILED, "cannot make a session keyring");
}

/* By name would be a trap: whoever made a ring of that name first could read what is put there. */
static int mount_ring_join(int32_t *ret_serial, struct error *err)
{
	int32_t serial = (int32_t)keyctl_join_session_keyring(NULL);

	if (serial < 0)
		return mount_ring_error(-errno, err);
	if (keyctl_setperm(serial, KEY_POS_ALL) < 0)
		return mount_ring_error(-errno, err);
	*ret_serial = serial;
	return 0;
}

int keyring_open(struct keyring *ring, int32_t manager, bool manager_first, struct error *err)
{
	int32_t mount = 0;
	int r;

	if (manager == KEYRING_INHERIT) {
		manager = keyring_inherited();
		if (manager < 0)
			return error_errno(err, manager, EXIT_STATUS_NO_KEY,
					   "there is no session keyring to hand over");
	}
	if (manager) {
		r = manager_hold(manager, err);
		if (r < 0)
			return r;
	}
	r = mount_ring_join(&mount, err);
	if (r == 0 && manager && keyctl_link(manager, mount) < 0)
		r = manager_error(-errno, manager, "Link", err);
	if (manager)
		keyctl_unlink(manager, KEY_SPEC_THREAD_KEYRING);
	if (r < 0)
		return r;
	*ring = (struct keyring){.mount = mount, .manager = manager, .manager_first = manager_first};
	return 0;
}

int keyring_clear(const struct keyring *ring)
{
	int r;

	/* By its serial alone the manager's could not be linked again. */
	if (ring->manager && keyctl_link(ring->manager, KEY_SPEC_THREAD_KEYRING) < 0)
		return -errno;
	r = keyctl_clear(ring->mount) < 0 ? -errno : 0;
	if (ring->manager) {
		if (keyctl_link(ring->manager, ring->mount) < 0)
			r = -errno;
		keyctl_unlink(ring->manager, KEY_SPEC_THREAD_KEYRING);
	}
	return r;
}

void keyring_close(struct keyring *ring)
{
	if (!ring->mount)
		return;
	keyctl_clear(ring->mount);
	keyctl_revoke(ring->mount);
	*ring = (struct keyring){0};
}

int keyring_leave(void)
{
	return keyctl_join_session_keyring(NULL) < 0 ? -errno : 0;
}

static int32_t ring_search(int32_t ring, const char *type, const char *desc)
{
	int32_t key = (int32_t)keyctl_search(ring, type, desc, 0);

	return key < 0 ? -errno : key;
}

/* The key's serial; the mount's ring has the manager's nested in it, behind its own keys. */
int32_t keyring_find(const struct keyring *ring, const char *type, const char *desc)
{
	int32_t first = -ENOKEY, key;

	if (ring->manager && ring->manager_first) {
		first = ring_search(ring->manager, type, desc);
		if (first >= 0)
			return first;
	}
	key = ring_search(ring->mount, type, desc);
	return key == -ENOKEY ? first : key;
}

/* The kernel writes into the secret's pages; a NULL buffer asks for the size. */
static int key_read(int32_t key, size_t max, struct secret **ret)
{
	for (int i = 0; i < KEYRING_READ_TRIES; i++) {
		autosecret struct secret *s = NULL;
		long size = keyctl_read(key, NULL, 0), got;
		int r;

		if (size < 0)
			return -errno;
		if (size == 0)
			return -ENODATA;
		if ((size_t)size > max)
			return -EMSGSIZE;
		r = secret_new((size_t)size, &s);
		if (r < 0)
			return r;
		got = keyctl_read(key, (char *)secret_data(s), (size_t)size);
		if (got < 0)
			return -errno;
		if (got == 0 || got > size)
			continue;
		secret_truncate(s, (size_t)got);
		*ret = steal_ptr(&s);
		return 0;
	}
	return -EAGAIN;
}

int keyring_read(const struct keyring *ring, const char *type, const char *desc, size_t max,
		 struct secret **ret, const char **ret_where)
{
	int32_t key;
	int r;

	if (!ring->mount)
		return -ENOKEY;
	key = keyring_find(ring, type, desc);
	if (key < 0)
		return key;
	r = key_read(key, max, ret);
	if (r == 0 && ret_where)
		*ret_where =
			ring->manager && ring_search(ring->manager, type, desc) == key ? "manager" : "mount";
	return r;
}

int keyring_find_serial(const struct keyring *ring, const char *type, const char *desc, int32_t *ret_serial)
{
	int32_t key = ring->mount ? keyring_find(ring, type, desc) : -ENOKEY;

	if (key < 0)
		return key;
	*ret_serial = key;
	return 0;
}
