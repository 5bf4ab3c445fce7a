/* SPDX-License-Identifier: MIT */
/*
 * From a Kerberos 5 ticket for AFS to what the kernel's AFS client takes: the payload of a key of type
 * "rxrpc". Pure: nothing is asked and nothing installed here (afs_krb5.h gets the ticket). One thread.
 *
 * Sources: rxkad-kdf of draft-kaduk-afs3-rxkad-k5-kdf-00 for the session key; the Linux kernel's
 * Documentation/networking/rxrpc.rst and include/keys/rxrpc-type.h for the payload.
 */
#ifndef CKRFS_AFS_TOKEN_H
#define CKRFS_AFS_TOKEN_H

#include "secret.h"
#include <stdint.h>

enum { AFS_SESSION_KEY_SIZE = 8, AFS_TICKET_MAX = 12000, AFS_PAYLOAD_HEAD = 24 };

/* What kind of Kerberos key it is: RFC 3961, section 8; RFC 6649 for what is not used any more. */
enum afs_key_kind {
	AFS_KEY_DES,   /* 8 bytes, taken as they are */
	AFS_KEY_DES3,  /* 24 bytes */
	AFS_KEY_OTHER, /* any other enctype */
};

/*
 * The DES key that rxkad uses, from the Kerberos session key. -EINVAL: a size that the kind does not have;
 * -EDOM: no derived key is a good one (will not happen); -ENOMEM.
 */
int afs_token_derive(enum afs_key_kind kind, const struct secret *key, struct secret **ret);

/*
 * The payload, in the byte order of the machine. session_key: 8 bytes; ticket: DER, as the KDC gave it;
 * expires: seconds since 1970, UTC. -EMSGSIZE: a ticket longer than AFS_TICKET_MAX; -ERANGE: a time that does
 * not fit 32 bits.
 */
int afs_token_payload(const struct secret *session_key, const void *ticket, size_t size, int64_t expires,
		      struct secret **ret);

#endif
