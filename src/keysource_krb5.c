/* SPDX-License-Identifier: MIT */
/* krb5:keytab=PATH,principal=NAME and krb5:ccache=NAME: a token for the AFS cell that the volume lies in. */
#include <errno.h>

#include "keysource_impl.h"
#include "krb5_source.h"

static int krb5_check(const struct keysource *src, struct error *err)
{
	struct krb5_source *parsed;
	int r = krb5_source_parse(src->spec, &parsed, err);

	if (r == 0)
		krb5_source_free(parsed);
	return r;
}

static int krb5_read(const struct keysource *src, const struct keysource_env *env, struct secret **ret,
		     struct error *err)
{
	struct krb5_ask ask = {.cell = env->cell,
			       .realm = env->realm,
			       .check_files = env->check_files,
			       .timeout_ms = env->timeout_ms};
	struct afs_krb5_ticket ticket;
	struct krb5_source *parsed;
	int r;

	if (!env->cell)
		return error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED, KEYSOURCE_NO_CELL, src->spec);
	r = krb5_source_parse(src->spec, &parsed, err);
	if (r < 0)
		return r;
	r = krb5_source_ask(parsed, &ask, ret, &ticket, err);
	krb5_source_free(parsed);
	return r;
}

const struct keysource_ops keysource_krb5 = {
	.scheme = "krb5",
	.raw = true,
	.check = krb5_check,
	.read = krb5_read,
};
