/* SPDX-License-Identifier: MIT */
/*
 * Where a Kerberos ticket for AFS comes from: `krb5:keytab=PATH,principal=NAME` or `krb5:ccache=NAME`, as in
 * ckrfs(8), "ticket". Life functions: one thread, may block up to the time limit.
 */
#ifndef CKRFS_KRB5_SOURCE_H
#define CKRFS_KRB5_SOURCE_H

#include "afs_krb5.h"
#include "error.h"
#include "secret.h"
#include <stdbool.h>

struct krb5_source;

/* -EINVAL (status 14) with the nearest right word; the specification is no secret. */
int krb5_source_parse(const char *spec, struct krb5_source **ret, struct error *err);
void krb5_source_free(struct krb5_source *src);

struct krb5_ask {
	const char *cell;
	const char *realm; /* NULL: the cell's name in capitals */
	bool check_files;  /* refuse a keytab that others can read */
	int timeout_ms;    /* for all of it; negative: as long as libkrb5 tries */
};

/*
 * Asks by another program (ckrfs-net), which takes libkrb5's copies of keys with it and is killed when the
 * time is over (-ETIMEDOUT, 13); -ENOENT, 15: it is not installed. *ret_payload belongs to the caller.
 * Otherwise the errors of afs_krb5_get(). A caller that has threads, or that waits for all its children
 * (waitpid(-1)), cannot use this.
 */
int krb5_source_ask(const struct krb5_source *src, const struct krb5_ask *ask, struct secret **ret_payload,
		    struct afs_krb5_ticket *ret, struct error *err);

#endif
