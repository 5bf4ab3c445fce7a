/* SPDX-License-Identifier: MIT */
/*
 * Key sources: `SCHEME:BODY[?fmt=raw|hex|base64|pass]` -> secret. ckrfs.conf(5), "KEY SOURCES".
 * Life functions only: called by the keeper's single thread, may block up to the time limit.
 * Every scheme is a row of the table in keysource.c and a file keysource_SCHEME.c; it is reached only through
 * the functions here.
 */
#ifndef CKRFS_KEYSOURCE_H
#define CKRFS_KEYSOURCE_H

#include "error.h"
#include "keyring.h"
#include "secret.h"
#include <stdbool.h>
#include <sys/types.h>

enum key_format { KEY_FORMAT_PASS, KEY_FORMAT_RAW, KEY_FORMAT_HEX, KEY_FORMAT_BASE64 };

/* A key as a format or lower wants it: is it a passphrase to be stretched, or the key itself? */
struct key {
	struct secret *bytes;
	bool passphrase;
	int32_t serial;   /* of a key that only the kernel reads; bytes is NULL then */
	size_t index;     /* which of several sources served */
	char source[256]; /* the specification that served, printable, for `status`; holds no secret */
};

struct keysource;

/* What the sources may use; all borrowed, must outlive the calls. */
struct keysource_env {
	const struct keyring *ring;
	bool check_files;   /* key-file-check: refuse key files that others can read */
	bool kernel_keys;   /* keyring:fscrypt-provisioning:DESC gives the serial (fskey.h) */
	int timeout_ms;     /* key-timeout, for each source */
	const char *volume; /* volume's name, sent to unix: sockets' audit line; may be NULL */
	uid_t uid;          /* who mounts: owner that a key file may have besides root */
	const char *cell;   /* that the volume lies in, for krb5: sources; NULL: not in AFS */
	const char *realm;  /* of that cell; NULL: its name in capitals */
};

/* Parses a specification. -EINVAL with the nearest right word. The spec is no secret. */
int keysource_parse(const char *spec, struct keysource **ret, struct error *err);
void keysource_free(struct keysource *src);
const char *keysource_spec(const struct keysource *src);

/* Asks one source. ret_key->bytes (NULL with a serial) belongs to the caller. The error's status is
 * EXIT_STATUS_NO_KEY, its words are the ones in ckrfs.conf(5), "What a source says when it fails". */
int keysource_read(const struct keysource *src, const struct keysource_env *env, struct key *ret_key,
		   struct error *err);

/* keyring_look() for a source that is a key of the kernel. -EOPNOTSUPP: another one; else the errors and
 * words of keysource_read(). Never blocks. */
int keysource_look(const struct keysource *src, const struct keysource_env *env, struct secret **room,
		   struct keyring_sight *ret, struct error *err);
bool keysource_can_look(const struct keysource *src);

/*
 * Could it be asked, as far as that can be told without taking the key? 0: yes; 1: it cannot be told; else
 * the errors and words of keysource_read(). A file is not opened, a socket not connected to, a program not
 * run, of a key of the kernel only the serial is looked up.
 */
int keysource_probe(const struct keysource *src, const struct keysource_env *env, struct error *err);

/* Asks them in order; the first that gives a key serves. If none does: the only error, or
 * `no key source served (N tried): FIRST; SECOND; ...`, status 13. n == 0: `no key source configured`. */
int keysource_read_first(struct keysource *const *srcs, size_t n, const struct keysource_env *env,
			 struct key *ret_key, struct error *err);

/* Wipes and releases the key's bytes, which may be NULL; source stays. */
void key_wipe(struct key *key);

/* NULL-terminated list of scheme names, from the table, for help and completion. */
const char *const *keysource_schemes(void);

#endif
