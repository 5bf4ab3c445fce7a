/* SPDX-License-Identifier: MIT */
/*
 * Between the two halves of a krb5: source: krb5_source.c, which has no libkrb5, runs ckrfs-net, and there
 * krb5_answer.c asks. A mount may be older than the ckrfs-net that it runs, so this stays as it is; what
 * changes gets another command and another version.
 */
#ifndef CKRFS_KRB5_SOURCE_IMPL_H
#define CKRFS_KRB5_SOURCE_IMPL_H

#include "krb5_source.h"
#include <stdint.h>

enum { KRB5_KEYTAB, KRB5_PRINCIPAL, KRB5_CCACHE, KRB5_WORDS };

struct krb5_source {
	char *spec;              /* owned */
	char *value[KRB5_WORDS]; /* owned; NULL: not given */
};

/* ckrfs-net krb5-answer SPEC CELL REALM|"" check|"": one packet to a socket, this and the payload. */
#define KRB5_ANSWER_COMMAND "krb5-answer"
enum { KRB5_ANSWER_FD = 3, KRB5_ANSWER_VERSION = 1 };

struct krb5_answer {
	uint32_t version;
	int32_t code; /* 0, or as in struct error: negative errno, exit status, texts */
	uint32_t status;
	uint32_t payload_size;
	char text[1024], hint[512];
	/* struct afs_krb5_ticket */
	char client[256], service[256], session_enctype[64], ticket_enctype[64];
	int64_t start, expires;
	uint32_t kvno, ticket_size;
};
_Static_assert(sizeof(struct krb5_answer) == 16 + 1024 + 512 + 640 + 24, "it stays");

#endif
