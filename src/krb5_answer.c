/* SPDX-License-Identifier: MIT */
#include "krb5_answer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "crypto.h"
#include "krb5_source_impl.h"
#include "util.h"

/* What libkrb5 has of keys for that moment is neither swapped nor dumped. Best effort: a user's limit may be
 * too low, and then nothing could be allocated any more. */
static void shut_memory(void)
{
	struct rlimit none = {0, 0}, lock;

	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0);
	if (geteuid() == 0 || (getrlimit(RLIMIT_MEMLOCK, &lock) == 0 && lock.rlim_cur == RLIM_INFINITY))
		mlockall(MCL_CURRENT | MCL_FUTURE);
}

static int get(char **argv, struct secret **ret_payload, struct afs_krb5_ticket *ret, struct error *err)
{
	struct afs_krb5_params params = {
		.cell = argv[2],
		.realm = argv[3][0] ? argv[3] : NULL,
		.check_files = strcmp(argv[4], "check") == 0,
	};
	struct krb5_source *src;
	int r = crypto_init();

	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot set up the cryptography");
	r = krb5_source_parse(argv[1], &src, err);
	if (r < 0)
		return r;
	params.keytab = src->value[KRB5_KEYTAB];
	params.principal = src->value[KRB5_PRINCIPAL];
	params.ccache = src->value[KRB5_CCACHE];
	r = afs_krb5_get(&params, ret_payload, ret, err);
	krb5_source_free(src);
	return r;
}

static void fill(struct krb5_answer *a, const struct error *err, const struct afs_krb5_ticket *t)
{
	*a = (struct krb5_answer){
		.version = KRB5_ANSWER_VERSION,
		.code = err->code,
		.status = (uint32_t)err->status,
		.start = t->start,
		.expires = t->expires,
		.kvno = t->kvno,
		.ticket_size = (uint32_t)t->size,
	};
	memcpy(a->text, err->text, sizeof(a->text));
	memcpy(a->hint, err->hint, sizeof(a->hint));
	memcpy(a->client, t->client, sizeof(a->client));
	memcpy(a->service, t->service, sizeof(a->service));
	memcpy(a->session_enctype, t->session_enctype, sizeof(a->session_enctype));
	memcpy(a->ticket_enctype, t->ticket_enctype, sizeof(a->ticket_enctype));
}

int krb5_answer(int argc, char **argv)
{
	struct afs_krb5_ticket ticket = {0};
	autosecret struct secret *payload = NULL;
	struct error err = ERROR_NONE;
	struct krb5_answer answer;
	struct iovec iov[2] = {{&answer, sizeof(answer)}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 1};

	if (argc != 5)
		return EXIT_STATUS_USAGE;
	prctl(PR_SET_NAME, "ckrfs-krb5");
	shut_memory();
	if (get(argv, &payload, &ticket, &err) == 0) {
		iov[1] = (struct iovec){secret_data(payload), secret_size(payload)};
		msg.msg_iovlen = 2;
	}
	fill(&answer, &err, &ticket);
	answer.payload_size = (uint32_t)iov[1].iov_len;
	return sendmsg(KRB5_ANSWER_FD, &msg, MSG_NOSIGNAL) < 0 ? EXIT_STATUS_FAILED : EXIT_STATUS_DONE;
}
