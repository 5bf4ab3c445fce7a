/* SPDX-License-Identifier: MIT */
/*
 * What the schemes share: the table they are rows of, and all the words with which a key source fails. The
 * words are here so that one reads them at once; ckrfs.conf(5), "What a source says when it fails", repeats
 * them. Only keysource.c and keysource_*.c include it.
 */
#ifndef CKRFS_KEYSOURCE_IMPL_H
#define CKRFS_KEYSOURCE_IMPL_H

#include "keysource.h"

/* A specification that is wrong. */
#define KEYSOURCE_NO_SCHEME "a key source needs a scheme, as in file:/run/key"
#define KEYSOURCE_UNKNOWN_NEAR "unknown key source \"%s:\" (did you mean \"%s:\"?)"
#define KEYSOURCE_UNKNOWN "unknown key source \"%s:\""
#define KEYSOURCE_FORMAT_NEAR "unknown key format \"%s\" (did you mean \"%s\"?)"
#define KEYSOURCE_FORMAT "unknown key format \"%s\""
#define KEYSOURCE_NOT_ABSOLUTE "%s does not name an absolute path"
#define KEYSOURCE_NOT_DESCRIPTOR "%s does not name a descriptor (0, or 3 and above)"
#define KEYSOURCE_NOT_CREDENTIAL "%s does not name a credential (a file name, without \"/\")"
#define KEYSOURCE_NOT_KEY "%s does not name a key as TYPE:DESCRIPTION"
#define KEYSOURCE_NOT_SOCKET "%s is too long for the path of a socket"
#define KEYSOURCE_NOT_COMMAND "%s has a quote that is not closed"

/* No source at all, or none that served. */
#define KEYSOURCE_NONE "no key source configured"
#define KEYSOURCE_NONE_SERVED "no key source served (%zu tried)"

/* Any scheme. */
#define KEYSOURCE_CANNOT_READ "cannot read %s" /* and ": " and the words of the errno */
#define KEYSOURCE_EMPTY "%s is empty"
#define KEYSOURCE_FIRST_LINE_EMPTY "the first line of %s is empty"
#define KEYSOURCE_TOO_LONG "%s is longer than %d bytes"
#define KEYSOURCE_PASS_TOO_LONG "the passphrase in %s is longer than %d bytes"
#define KEYSOURCE_NOT_HEX "%s is not hexadecimal"
#define KEYSOURCE_NOT_BASE64 "%s is not base64"
#define KEYSOURCE_TIMEOUT_S "%s did not answer within %d s"
#define KEYSOURCE_TIMEOUT_MS "%s did not answer within %d ms"

/* keyring: */
#define KEYSOURCE_NO_KEY "no key in %s"
#define KEYSOURCE_NO_RING "%s needs a keyring, and this mount has none"
#define KEYSOURCE_KEY_DENIED "the key in %s does not grant Search"
#define KEYSOURCE_KEY_EXPIRED "the key in %s has expired"
#define KEYSOURCE_KEY_REVOKED "the key in %s was revoked"
#define KEYSOURCE_KEY_UNREADABLE "the key in %s is of a type that only the kernel can read"

/* file:, cred:, fd: */
#define KEYSOURCE_FILE_KIND "%s is a %s, not a file"
#define KEYSOURCE_FILE_READABLE "%s can be read by others (mode %04o)"
#define KEYSOURCE_FILE_OPEN "%s is open to others (mode %04o)"
#define KEYSOURCE_FILE_OWNER "%s belongs to uid %u, neither to root nor to uid %u"
#define KEYSOURCE_NO_CREDENTIALS "%s needs $CREDENTIALS_DIRECTORY, which is not set"
#define KEYSOURCE_FD_NOT_OPEN "%s was not handed over, or was read before"

/* unix: */
#define KEYSOURCE_CANNOT_CONNECT "cannot connect to %s" /* and the words of the errno */

/* exec: */
#define KEYSOURCE_CANNOT_RUN "cannot run %s" /* and the words of the errno */
#define KEYSOURCE_EXIT_STATUS "%s exited with status %d"
#define KEYSOURCE_KILLED "%s was killed by SIG%s"

/* krb5: */
#define KEYSOURCE_NO_CELL "%s gives tokens for AFS, and this volume does not lie there"

struct keysource_ops;

struct keysource {
	const struct keysource_ops *ops;
	char *spec; /* as it was written */
	char *body; /* without scheme and format */
	enum key_format format;
};

struct keysource_ops {
	const char *scheme;
	bool raw; /* what it gives is the key as it stands: it takes no ?fmt= */
	/* Whether the body has the right form. Fills err. Nothing is opened yet. */
	int (*check)(const struct keysource *src, struct error *err);
	/* What the source has, not decoded, at most SECRET_MAX bytes, within env->timeout_ms. Fills err. */
	int (*read)(const struct keysource *src, const struct keysource_env *env, struct secret **ret,
		    struct error *err);
	/* NULL: none of this scheme. 1 with *ret: it names a key that only the kernel reads; 0: it does not.
	 */
	int (*find_kernel_key)(const struct keysource *src, const struct keysource_env *env, int32_t *ret,
			       struct error *err);
	/* keysource_look(). NULL: it cannot be looked at. */
	int (*look)(const struct keysource *src, const struct keysource_env *env, struct secret **room,
		    struct keyring_sight *ret, struct error *err);
	/* keysource_probe(). NULL: it cannot be told. */
	int (*probe)(const struct keysource *src, const struct keysource_env *env, struct error *err);
};

extern const struct keysource_ops keysource_cred, keysource_exec, keysource_fd, keysource_file,
	keysource_keyring, keysource_krb5, keysource_unix;

/* secret_read() with words. */
int keysource_read_fd(const struct keysource *src, int fd, int timeout_ms, struct secret **ret,
		      struct error *err);

/* `cannot read SPEC: ...`, or the words that -ENODATA, -EMSGSIZE and -ETIMEDOUT have. Returns code. */
int keysource_error(const struct keysource *src, int code, int timeout_ms, struct error *err);

/* check() of the schemes whose body is a path. */
int keysource_check_path(const struct keysource *src, struct error *err);

#endif
