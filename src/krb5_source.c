/* SPDX-License-Identifier: MIT */
#include "krb5_source.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "afs_token.h"
#include "cleanup.h"
#include "krb5_source_impl.h"
#include "program.h"
#include "util.h"
#include "version.h"

static const char scheme[] = "krb5:";

/* Ends with NULL for nearest_word(). */
static const char *const words[] = {"keytab", "principal", "ccache", NULL};

/* ---- the specification ---- */

static int find_word(const char *name, struct error *err)
{
	const char *near;

	for (int i = 0; i < KRB5_WORDS; i++)
		if (strcmp(name, words[i]) == 0)
			return i;
	near = nearest_word(name, words);
	if (near)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "krb5: has no \"%s\" (did you mean \"%s\"?)", name, near);
	return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "krb5: has no \"%s\"", name);
}

/* One NAME=VALUE up to a comma that no backslash precedes, unescaped in place; *text moves behind it. */
static char *next_pair(char **text)
{
	char *start = *text, *out = start, *in = start;

	for (; *in && *in != ','; in++) {
		if (*in == '\\' && (in[1] == ',' || in[1] == '\\'))
			in++;
		*out++ = *in;
	}
	*text = *in ? in + 1 : NULL;
	*out = '\0';
	return start;
}

static int take_pair(struct krb5_source *src, char *pair, struct error *err)
{
	char *equals = strchr(pair, '=');
	int word;

	if (!equals || !equals[1])
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "krb5: \"%s\" is not NAME=VALUE", pair);
	*equals = '\0';
	word = find_word(pair, err);
	if (word < 0)
		return word;
	if (src->value[word])
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "krb5: two times \"%s\"", pair);
	src->value[word] = strdup(equals + 1);
	return src->value[word] ? 0
				: error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot parse a key source");
}

/* Those that outlive the process that made them. */
static int check_cache(const char *name, struct error *err)
{
	static const char *const types[] = {"FILE:/", "DIR:/", "DIR::/", "KEYRING:", "KCM:", "/"};

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (strncmp(name, types[i], strlen(types[i])) == 0)
			return 0;
	return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
			 "krb5: ccache \"%s\" is not FILE:/path, DIR:/path, KEYRING:name, KCM:name or a path",
			 name);
}

static int check_words(const struct krb5_source *src, struct error *err)
{
	const char *keytab = src->value[KRB5_KEYTAB], *cache = src->value[KRB5_CCACHE];

	if (!keytab == !cache)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "krb5: needs a keytab or a ccache, and not both");
	if (cache && src->value[KRB5_PRINCIPAL])
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "krb5: the principal is the ccache's own");
	if (cache)
		return check_cache(cache, err);
	if (!src->value[KRB5_PRINCIPAL])
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "krb5: keytab needs a principal");
	if (keytab[0] != '/')
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "krb5: keytab \"%s\" is not an absolute path", keytab);
	return 0;
}

static int parse(struct krb5_source *src, const char *spec, struct error *err)
{
	autofree char *text = NULL;
	char *at;
	int r = 0;

	if (strncmp(spec, scheme, strlen(scheme)) != 0)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "a ticket comes from krb5:keytab=PATH,principal=NAME or krb5:ccache=NAME");
	src->spec = strdup(spec);
	text = strdup(spec + strlen(scheme));
	if (!src->spec || !text)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot parse a key source");
	for (at = text; r == 0 && at;)
		r = take_pair(src, next_pair(&at), err);
	return r < 0 ? r : check_words(src, err);
}

int krb5_source_parse(const char *spec, struct krb5_source **ret, struct error *err)
{
	struct krb5_source *src = calloc(1, sizeof(*src));
	int r = src ? parse(src, spec, err)
		    : error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot parse a key source");

	if (r < 0)
		krb5_source_free(src);
	else
		*ret = src;
	return r;
}

void krb5_source_free(struct krb5_source *src)
{
	for (int i = 0; src && i < KRB5_WORDS; i++)
		free(src->value[i]);
	if (src)
		free(src->spec);
	free(src);
}

/* ---- the program that asks ---- */

/* Between fork and exec. Its answer comes by the descriptor KRB5_ANSWER_FD, so does what keeps it from being
 * run. */
static void run_child(const struct krb5_source *src, const struct krb5_ask *ask, const char *path,
		      pid_t parent, int fd)
{
	struct krb5_answer answer = {.version = KRB5_ANSWER_VERSION};
	struct error err = ERROR_NONE;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_STATUS_FAILED);
	/* dup2(2) onto itself would leave it to be closed. */
	if (fd == KRB5_ANSWER_FD ? fcntl(fd, F_SETFD, 0) == 0 : dup2(fd, KRB5_ANSWER_FD) >= 0)
		execl(path, PROGRAM_NET, KRB5_ANSWER_COMMAND, src->spec, ask->cell,
		      ask->realm ? ask->realm : "", ask->check_files ? "check" : "", NULL);
	answer.code = errno == ENOENT
			      ? error_set(&err, -errno, EXIT_STATUS_UNSUPPORTED, "%s is not installed", path)
			      : error_errno(&err, -errno, EXIT_STATUS_FAILED, "cannot execute %s", path);
	answer.status = (uint32_t)err.status;
	snprintf(answer.text, sizeof(answer.text), "%s", err.text);
	_exit(send(fd, &answer, sizeof(answer), MSG_NOSIGNAL) < 0 ? EXIT_STATUS_FAILED : EXIT_STATUS_DONE);
}

static int too_late(const struct krb5_ask *ask, struct error *err)
{
	return error_set(err, -ETIMEDOUT, EXIT_STATUS_NO_KEY, "the KDC did not answer within %d.%03d s",
			 ask->timeout_ms / 1000, ask->timeout_ms % 1000);
}

/* The texts of the other program end somewhere. */
static void close_texts(struct krb5_answer *a)
{
	char *const texts[] = {a->text,          a->hint, a->client, a->service, a->session_enctype,
			       a->ticket_enctype};
	const size_t sizes[] = {sizeof(a->text),
				sizeof(a->hint),
				sizeof(a->client),
				sizeof(a->service),
				sizeof(a->session_enctype),
				sizeof(a->ticket_enctype)};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		texts[i][sizes[i] - 1] = '\0';
}

static int receive(int fd, struct krb5_answer *ret, struct secret *room, struct error *err)
{
	struct iovec iov[] = {{ret, sizeof(*ret)}, {secret_data(room), secret_size(room)}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = ARRAY_SIZE(iov)};
	ssize_t n = recvmsg(fd, &msg, 0);

	if (n <= 0)
		return error_set(err, -EIO, EXIT_STATUS_FAILED, "the process that asks for a ticket died");
	if (n < (ssize_t)sizeof(*ret) || msg.msg_flags & MSG_TRUNC || ret->version != KRB5_ANSWER_VERSION ||
	    (ret->code == 0 && ret->payload_size != (size_t)n - sizeof(*ret)) || ret->code > 0)
		return error_set(err, -EPROTO, EXIT_STATUS_FAILED, "%s is of another version of ckrfs",
				 PROGRAM_NET);
	close_texts(ret);
	if (ret->code == 0)
		return 0;
	if (err) {
		error_set(err, ret->code, (enum exit_status)ret->status, "%s", ret->text);
		if (ret->hint[0])
			error_hint(err, "%s", ret->hint);
	}
	return ret->code;
}

static int wait_for(int fd, const struct krb5_ask *ask, struct krb5_answer *ret, struct secret *room,
		    struct error *err)
{
	uint64_t end = monotonic_ms() + (ask->timeout_ms < 0 ? 0 : (uint64_t)ask->timeout_ms);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int n;

	do {
		uint64_t now = monotonic_ms();

		n = poll(&p, 1, ask->timeout_ms < 0 ? -1 : end > now ? (int)(end - now) : 0);
	} while (n < 0 && errno == EINTR);
	return n == 0 ? too_late(ask, err) : receive(fd, ret, room, err);
}

static int ask_child(const struct krb5_source *src, const struct krb5_ask *ask, struct secret *room,
		     struct krb5_answer *ret, struct error *err)
{
	char path[PATH_MAX];
	pid_t parent = getpid(), pid;
	int sv[2], r;

	program_path(PROGRAM_NET, CKRFS_LIBEXECDIR, path);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot ask for a ticket");
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		run_child(src, ask, path, parent, sv[1]);
	r = pid < 0 ? -errno : 0;
	close(sv[1]);
	if (r == 0) {
		r = wait_for(sv[0], ask, ret, room, err);
		kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	} else {
		error_errno(err, r, EXIT_STATUS_FAILED, "cannot ask for a ticket");
	}
	close(sv[0]);
	return r;
}

static void tell(const struct krb5_answer *a, struct afs_krb5_ticket *ret)
{
	*ret = (struct afs_krb5_ticket){
		.kvno = a->kvno, .start = a->start, .expires = a->expires, .size = a->ticket_size};
	memcpy(ret->client, a->client, sizeof(ret->client));
	memcpy(ret->service, a->service, sizeof(ret->service));
	memcpy(ret->session_enctype, a->session_enctype, sizeof(ret->session_enctype));
	memcpy(ret->ticket_enctype, a->ticket_enctype, sizeof(ret->ticket_enctype));
}

int krb5_source_ask(const struct krb5_source *src, const struct krb5_ask *ask, struct secret **ret_payload,
		    struct afs_krb5_ticket *ret, struct error *err)
{
	autosecret struct secret *room = NULL;
	struct krb5_answer answer = {0};
	int r = secret_new(AFS_PAYLOAD_HEAD + AFS_TICKET_MAX, &room);

	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot get memory for a ticket");
	r = ask_child(src, ask, room, &answer, err);
	if (r < 0)
		return r;
	secret_truncate(room, answer.payload_size);
	*ret_payload = steal_ptr(&room);
	tell(&answer, ret);
	return 0;
}
