/* SPDX-License-Identifier: MIT */
/*
 * Tokens of AFS in the mount's ring. The key type has no update: add_key(2) replaces the link to the old key,
 * which then cannot be revoked any more, as nobody possesses it. So the old one is parked in a ring below the
 * mount's, where a search comes last.
 */
#include <errno.h>
#include <keyutils.h>
#include <stdio.h>

#include "keyring.h"

static const char parked[] = "ckrfs-parked";

static int park(const struct keyring *ring, int32_t old, int32_t *ret_park)
{
	int32_t serial = (int32_t)add_key("keyring", parked, NULL, 0, ring->mount);

	if (serial < 0)
		return -errno;
	if (keyctl_setperm(serial, KEY_POS_ALL) < 0 || keyctl_link(old, serial) < 0)
		return -errno;
	*ret_park = serial;
	return 0;
}

int keyring_add_rxrpc(const struct keyring *ring, const char *cell, const struct secret *payload,
		      struct keyring_token *token)
{
	struct keyring_token next = {.old = token->serial};
	char desc[KEYRING_CELL_MAX + sizeof("afs@")];
	int r = next.old ? park(ring, next.old, &next.park) : 0;

	if (r < 0)
		return r;
	snprintf(desc, sizeof(desc), "afs@%s", cell);
	next.serial =
		(int32_t)add_key("rxrpc", desc, secret_data(payload), secret_size(payload), ring->mount);
	if (next.serial < 0)
		return -errno;
	if (keyctl_setperm(next.serial, KEY_POS_ALL) < 0) {
		r = -errno;
		keyctl_revoke(next.serial);
		return r;
	}
	*token = next;
	return 0;
}

static int revoke(int32_t serial)
{
	if (serial <= 0 || keyctl_revoke(serial) == 0 || errno == EKEYREVOKED || errno == EKEYEXPIRED)
		return 0;
	return -errno;
}

static void unpark(const struct keyring *ring, struct keyring_token *token)
{
	if (token->park)
		keyctl_unlink(token->park, ring->mount);
	token->park = token->old = 0;
}

int keyring_settle_rxrpc(const struct keyring *ring, struct keyring_token *token)
{
	int r = revoke(token->old);

	unpark(ring, token);
	return r;
}

int keyring_undo_rxrpc(const struct keyring *ring, struct keyring_token *token)
{
	int r = revoke(token->serial);

	/* Of the same type and description: its link replaces that of the other. */
	if (token->old && keyctl_link(token->old, ring->mount) < 0)
		r = -errno;
	token->serial = token->old;
	unpark(ring, token);
	return r;
}

int keyring_revoke_rxrpc(const struct keyring *ring, struct keyring_token *token)
{
	int old = revoke(token->old), r = revoke(token->serial);

	unpark(ring, token);
	token->serial = 0;
	return r < 0 ? r : old;
}
