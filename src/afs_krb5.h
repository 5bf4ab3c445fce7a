/* SPDX-License-Identifier: MIT */
/*
 * A Kerberos ticket for AFS, by MIT's libkrb5; only afs_krb5.c includes krb5.h. Asks the KDC: may block as
 * long as libkrb5 does (krb5.conf(5), kdc_timeout), and leaves copies of keys in the library's ordinary
 * memory, which it zeroes when it frees them. So it is called in a child process that then ends
 * (krb5_source.c). What is in the caller's credential cache or keytab is only read: renewed tickets are
 * not written there.
 */
#ifndef CKRFS_AFS_KRB5_H
#define CKRFS_AFS_KRB5_H

#include "error.h"
#include "secret.h"
#include <stdbool.h>
#include <stdint.h>

enum { AFS_KRB5_NAME = 256 };

struct afs_krb5_params {
	const char *keytab, *principal; /* a path, and who it is; or */
	const char *ccache;             /* libkrb5's name: FILE:, DIR:, KEYRING:, KCM: */
	const char *cell;
	const char *realm; /* of the cell's service; NULL: the cell's name in capitals */
	bool check_files;  /* refuse a keytab that others can read */
};

/* What there is to tell of a ticket. Names are as libkrb5 writes them, cut to fit; times are seconds since
 * 1970. */
struct afs_krb5_ticket {
	char client[AFS_KRB5_NAME], service[AFS_KRB5_NAME];
	char session_enctype[64], ticket_enctype[64];
	uint32_t kvno; /* of the service's key */
	int64_t start, expires;
	size_t size; /* of the ticket, bytes */
};

/*
 * The service ticket afs/CELL@REALM, or afs@REALM where the KDC does not know that, as the payload of an
 * rxrpc key (afs_token.h). The initial ticket is taken with the keytab's key, or is that of the cache,
 * renewed if it can be and is in the second half of its life. The service's ticket is a new one at each call,
 * whatever the cache has. Status 12: the KDC does not take the key; 13: no ticket can be had; 14: krb5.conf
 * or the names.
 */
int afs_krb5_get(const struct afs_krb5_params *params, struct secret **ret_payload,
		 struct afs_krb5_ticket *ret, struct error *err);

#endif
