/* SPDX-License-Identifier: MIT */
#include "afs_krb5.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <krb5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "afs_token.h"
#include "cleanup.h"
#include "util.h"

struct session {
	const struct afs_krb5_params *p;
	krb5_context ctx;
	krb5_ccache cache; /* in memory, ours */
	krb5_principal client;
	char from[AFS_KRB5_NAME]; /* the keytab or cache, for messages */
};

/* ---- words ---- */

static int config_error(const struct session *s, krb5_error_code code, struct error *err)
{
	const char *text = krb5_get_error_message(s->ctx, code);

	error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "Kerberos: %s", text);
	krb5_free_error_message(s->ctx, text);
	error_hint(err, "editor \"${KRB5_CONFIG:-/etc/krb5.conf}\"");
	return -EINVAL;
}

static int no_ticket(struct error *err, const char *hint, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int no_ticket(struct error *err, const char *hint, const char *fmt, ...)
{
	char text[sizeof(err->text)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	error_set(err, -ENOKEY, EXIT_STATUS_NO_KEY, "%s", text);
	if (hint)
		error_hint(err, "%s", hint);
	return -ENOKEY;
}

static int refused(const struct session *s, const char *who, struct error *err)
{
	if (!s->p->keytab)
		return no_ticket(err, NULL, "the KDC does not take the ticket in %s", s->from);
	error_set(err, -EKEYREJECTED, EXIT_STATUS_WRONG_KEY,
		  "the KDC does not take the key of %s in %s: it has another one by now", who, s->from);
	error_hint(err, "klist -ket %s", s->p->keytab);
	return -EKEYREJECTED;
}

/* who: the principal that was asked about. */
static int krb5_failed(const struct session *s, krb5_error_code code, const char *who, struct error *err)
{
	char hint[AFS_KRB5_NAME + 32];
	const char *text;

	switch (code) {
	case KRB5KDC_ERR_PREAUTH_FAILED:
	case KRB5KRB_AP_ERR_BAD_INTEGRITY:
		return refused(s, who, err);
	case KRB5KDC_ERR_C_PRINCIPAL_UNKNOWN:
		return no_ticket(err, NULL, "the KDC does not know the principal %s", who);
	case KRB5KDC_ERR_CLIENT_REVOKED:
	case KRB5KDC_ERR_KEY_EXP:
	case KRB5KDC_ERR_NAME_EXP:
		return no_ticket(err, NULL, "the principal %s is locked or has expired", who);
	case KRB5KRB_AP_ERR_SKEW:
	case KRB5_KDCREP_SKEW:
		return no_ticket(err, "timedatectl status",
				 "the clocks of this machine and of the KDC differ too much");
	case KRB5_KDC_UNREACH:
	case KRB5_REALM_CANT_RESOLVE:
		return no_ticket(err, NULL, "no KDC can be reached for %s", who);
	case KRB5_REALM_UNKNOWN:
	case KRB5_CONFIG_NODEFREALM:
	case KRB5_CONFIG_CANTOPEN:
	case KRB5_CONFIG_BADFORMAT:
		return config_error(s, code, err);
	case KRB5_KT_NOTFOUND:
		snprintf(hint, sizeof(hint), "klist -kt %s", s->p->keytab ? s->p->keytab : "");
		return no_ticket(err, hint, "%s has no key of %s", s->from, who);
	case KRB5_FCC_NOFILE:
	case KRB5_CC_NOTFOUND:
	case KRB5_CC_END:
		snprintf(hint, sizeof(hint), "kinit -c %s", s->p->ccache ? s->p->ccache : "");
		return no_ticket(err, s->p->ccache ? hint : NULL, "there is no ticket in %s", s->from);
	case KRB5KRB_AP_ERR_TKT_EXPIRED:
		snprintf(hint, sizeof(hint), "kinit -c %s", s->p->ccache ? s->p->ccache : "");
		return no_ticket(err, s->p->ccache ? hint : NULL, "the ticket in %s has expired", s->from);
	default:
		text = krb5_get_error_message(s->ctx, code);
		no_ticket(err, NULL, "no ticket for %s: %s", who, text);
		krb5_free_error_message(s->ctx, text);
		return -ENOKEY;
	}
}

static void name_of(const struct session *s, krb5_const_principal principal, char ret[AFS_KRB5_NAME])
{
	char *text = NULL;

	snprintf(ret, AFS_KRB5_NAME, "?");
	if (krb5_unparse_name(s->ctx, principal, &text) == 0)
		snprintf(ret, AFS_KRB5_NAME, "%s", text);
	krb5_free_unparsed_name(s->ctx, text);
}

/* ---- the initial ticket ---- */

/* *ret_fd stays open as long as libkrb5 reads it: the file that was looked at is the one that is read. */
static int open_keytab(const struct session *s, int *ret_fd, struct error *err)
{
	autofd int fd = open(s->p->keytab, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, -errno, EXIT_STATUS_NO_KEY, "cannot open %s", s->from);
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, EXIT_STATUS_NO_KEY, "%s is no file", s->from);
	if (s->p->check_files && st.st_mode & 077) {
		error_set(err, -EPERM, EXIT_STATUS_NO_KEY, "%s can be read by others (mode %04o)", s->from,
			  (unsigned)st.st_mode & 07777);
		error_hint(err, "chmod 600 %s", s->p->keytab);
		return -EPERM;
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

static krb5_error_code keep(struct session *s, krb5_creds *creds)
{
	krb5_error_code code = krb5_cc_initialize(s->ctx, s->cache, s->client);

	return code ? code : krb5_cc_store_cred(s->ctx, s->cache, creds);
}

static krb5_error_code ask_with_keytab(struct session *s, const char *name)
{
	krb5_keytab keytab = NULL;
	krb5_creds creds = {0};
	krb5_error_code code = krb5_kt_resolve(s->ctx, name, &keytab);

	if (!code)
		code = krb5_get_init_creds_keytab(s->ctx, &creds, s->client, keytab, 0, NULL, NULL);
	if (!code)
		code = keep(s, &creds);
	krb5_free_cred_contents(s->ctx, &creds);
	if (keytab)
		krb5_kt_close(s->ctx, keytab);
	return code;
}

static int from_keytab(struct session *s, struct error *err)
{
	char name[64];
	autofd int fd = -1;
	krb5_error_code code = krb5_parse_name(s->ctx, s->p->principal, &s->client);
	int r;

	if (code)
		return config_error(s, code, err);
	r = open_keytab(s, &fd, err);
	if (r < 0)
		return r;
	snprintf(name, sizeof(name), "FILE:/proc/self/fd/%d", fd);
	code = ask_with_keytab(s, name);
	return code ? krb5_failed(s, code, s->p->principal, err) : 0;
}

/* In the second half of its life? */
static bool ends_soon(const krb5_creds *creds)
{
	int64_t start = creds->times.starttime ? creds->times.starttime : creds->times.authtime;
	int64_t life = (int64_t)(uint32_t)creds->times.endtime - (uint32_t)start;

	return (int64_t)(uint32_t)creds->times.endtime - (int64_t)time(NULL) <= life / 2;
}

static krb5_error_code find_tgt(struct session *s, krb5_ccache theirs, krb5_creds *ret)
{
	krb5_creds wanted = {.client = s->client};
	krb5_error_code code =
		krb5_build_principal(s->ctx, &wanted.server, s->client->realm.length, s->client->realm.data,
				     KRB5_TGS_NAME, s->client->realm.data, (char *)NULL);

	if (!code)
		code = krb5_cc_retrieve_cred(s->ctx, theirs, 0, &wanted, ret);
	krb5_free_principal(s->ctx, wanted.server);
	return code;
}

/*
 * Only the initial ticket: with the service's ticket that aklog left there, each refresh would get that one
 * again, until it has ended. One that cannot be renewed is used as long as it lives.
 */
static krb5_error_code take_tgt(struct session *s, krb5_ccache theirs)
{
	krb5_creds tgt = {0}, fresh = {0};
	krb5_error_code code = find_tgt(s, theirs, &tgt);

	if (!code)
		code = keep(s, &tgt);
	if (!code && tgt.ticket_flags & TKT_FLG_RENEWABLE && ends_soon(&tgt) &&
	    krb5_get_renewed_creds(s->ctx, &fresh, s->client, s->cache, NULL) == 0)
		code = keep(s, &fresh);
	krb5_free_cred_contents(s->ctx, &fresh);
	krb5_free_cred_contents(s->ctx, &tgt);
	return code;
}

static int from_cache(struct session *s, struct error *err)
{
	krb5_ccache theirs = NULL;
	krb5_error_code code = krb5_cc_resolve(s->ctx, s->p->ccache, &theirs);

	if (!code)
		code = krb5_cc_get_principal(s->ctx, theirs, &s->client);
	if (!code)
		code = take_tgt(s, theirs);
	if (theirs)
		krb5_cc_close(s->ctx, theirs);
	return code ? krb5_failed(s, code, s->from, err) : 0;
}

/* ---- the service's ticket ---- */

static void realm_of(const struct session *s, char ret[AFS_KRB5_NAME])
{
	snprintf(ret, AFS_KRB5_NAME, "%s", s->p->realm ? s->p->realm : s->p->cell);
	for (char *c = ret; !s->p->realm && *c; c++)
		*c = (char)toupper((unsigned char)*c);
}

static krb5_error_code ask_for(struct session *s, const char *name, krb5_creds **ret)
{
	krb5_creds wanted = {.client = s->client};
	krb5_error_code code = krb5_parse_name(s->ctx, name, &wanted.server);

	if (!code)
		code = krb5_get_credentials(s->ctx, 0, s->cache, &wanted, ret);
	krb5_free_principal(s->ctx, wanted.server);
	return code;
}

static int get_service(struct session *s, krb5_creds **ret, struct error *err)
{
	char realm[AFS_KRB5_NAME], name[2 * AFS_KRB5_NAME + 8], other[AFS_KRB5_NAME + 8];
	krb5_error_code code;

	realm_of(s, realm);
	snprintf(name, sizeof(name), "afs/%s@%s", s->p->cell, realm);
	snprintf(other, sizeof(other), "afs@%s", realm);
	code = ask_for(s, name, ret);
	if (code == KRB5KDC_ERR_S_PRINCIPAL_UNKNOWN) {
		code = ask_for(s, other, ret);
		if (code == KRB5KDC_ERR_S_PRINCIPAL_UNKNOWN)
			return no_ticket(err, NULL, "the KDC knows neither %s nor %s", name, other);
	}
	/* A KDC takes a ticket some minutes after its end too, for clocks that differ. */
	if (!code && (int64_t)(uint32_t)(*ret)->times.endtime <= (int64_t)time(NULL))
		code = KRB5KRB_AP_ERR_TKT_EXPIRED;
	return code ? krb5_failed(s, code, name, err) : 0;
}

/* ---- what it is good for ---- */

static enum afs_key_kind kind_of(krb5_enctype enctype)
{
	switch (enctype) {
	case ENCTYPE_DES_CBC_CRC:
	case ENCTYPE_DES_CBC_MD4:
	case ENCTYPE_DES_CBC_MD5:
		return AFS_KEY_DES;
	case ENCTYPE_DES3_CBC_RAW:
	case ENCTYPE_DES3_CBC_SHA1:
		return AFS_KEY_DES3;
	default:
		return AFS_KEY_OTHER;
	}
}

static void enctype_name(krb5_enctype enctype, char *ret, size_t size)
{
	if (krb5_enctype_to_name(enctype, FALSE, ret, size) != 0)
		snprintf(ret, size, "%d", (int)enctype);
}

static int describe(const struct session *s, const krb5_creds *creds, struct afs_krb5_ticket *ret,
		    struct error *err)
{
	struct afs_krb5_ticket t = {
		.start = (int64_t)(uint32_t)(creds->times.starttime ? creds->times.starttime
								    : creds->times.authtime),
		.expires = (int64_t)(uint32_t)creds->times.endtime,
		.size = creds->ticket.length,
	};
	krb5_ticket *ticket;
	krb5_error_code code = krb5_decode_ticket(&creds->ticket, &ticket);

	if (code)
		return krb5_failed(s, code, "AFS", err);
	t.kvno = (uint32_t)ticket->enc_part.kvno;
	enctype_name(ticket->enc_part.enctype, t.ticket_enctype, sizeof(t.ticket_enctype));
	enctype_name(creds->keyblock.enctype, t.session_enctype, sizeof(t.session_enctype));
	name_of(s, creds->client, t.client);
	name_of(s, creds->server, t.service);
	krb5_free_ticket(s->ctx, ticket);
	*ret = t;
	return 0;
}

static int make_payload(const krb5_creds *creds, struct secret **ret, struct error *err)
{
	autosecret struct secret *kerberos = NULL, *session = NULL;
	int r = secret_new_from(creds->keyblock.contents, creds->keyblock.length, &kerberos);

	if (r == 0)
		r = afs_token_derive(kind_of(creds->keyblock.enctype), kerberos, &session);
	if (r == 0)
		r = afs_token_payload(session, creds->ticket.data, creds->ticket.length,
				      (int64_t)(uint32_t)creds->times.endtime, ret);
	if (r == -EMSGSIZE)
		return error_set(err, r, EXIT_STATUS_NO_KEY,
				 "the ticket is %u bytes long; AFS takes %d at most", creds->ticket.length,
				 AFS_TICKET_MAX);
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot make a token of the ticket") : 0;
}

static int session_begin(struct session *s, struct error *err)
{
	krb5_error_code code = krb5_init_context(&s->ctx);

	if (code)
		return config_error(s, code, err);
	if (s->p->keytab)
		snprintf(s->from, sizeof(s->from), "keytab %s", s->p->keytab);
	else
		snprintf(s->from, sizeof(s->from), "the credential cache %s", s->p->ccache);
	code = krb5_cc_new_unique(s->ctx, "MEMORY", NULL, &s->cache);
	return code ? krb5_failed(s, code, s->from, err) : 0;
}

static void session_end(struct session *s)
{
	if (!s->ctx)
		return;
	krb5_free_principal(s->ctx, s->client);
	if (s->cache)
		krb5_cc_destroy(s->ctx, s->cache);
	krb5_free_context(s->ctx);
}

int afs_krb5_get(const struct afs_krb5_params *params, struct secret **ret_payload,
		 struct afs_krb5_ticket *ret, struct error *err)
{
	struct session s = {.p = params};
	struct afs_krb5_ticket ticket;
	krb5_creds *creds = NULL;
	int r = session_begin(&s, err);

	if (r == 0)
		r = params->keytab ? from_keytab(&s, err) : from_cache(&s, err);
	if (r == 0)
		r = get_service(&s, &creds, err);
	if (r == 0)
		r = describe(&s, creds, &ticket, err);
	if (r == 0)
		r = make_payload(creds, ret_payload, err);
	if (r == 0)
		*ret = ticket;
	if (creds)
		krb5_free_creds(s.ctx, creds);
	session_end(&s);
	return r;
}
