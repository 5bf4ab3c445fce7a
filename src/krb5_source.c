/* SPDX-License-Identifier: MIT */
#include "krb5_source.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "afs_token.h"
#include "cleanup.h"
#include "util.h"

static const char scheme[] = "krb5:";

enum { WORD_KEYTAB, WORD_PRINCIPAL, WORD_CCACHE, WORDS };

/* Ends with NULL for nearest_word(). */
static const char *const words[] = {"keytab", "principal", "ccache", NULL};

struct krb5_source {
	char *value[WORDS]; /* owned; NULL: not given */
};

/* What the child tells; the payload is in shared memory. */
struct report {
	struct error error;
	struct afs_krb5_ticket ticket;
	size_t size;
};

/* ---- the specification ---- */

static int find_word(const char *name, struct error *err)
{
	const char *near;

	for (int i = 0; i < WORDS; i++)
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
	const char *keytab = src->value[WORD_KEYTAB], *cache = src->value[WORD_CCACHE];

	if (!keytab == !cache)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "krb5: needs a keytab or a ccache, and not both");
	if (cache && src->value[WORD_PRINCIPAL])
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, "krb5: the principal is the ccache's own");
	if (cache)
		return check_cache(cache, err);
	if (!src->value[WORD_PRINCIPAL])
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
	text = strdup(spec + strlen(scheme));
	if (!text)
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
	for (int i = 0; src && i < WORDS; i++)
		free(src->value[i]);
	free(src);
}

/* ---- the child ---- */

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

static void run_child(const struct krb5_source *src, const struct krb5_ask *ask, struct secret *room,
		      pid_t parent, int fd)
{
	struct afs_krb5_params params = {
		.keytab = src->value[WORD_KEYTAB],
		.principal = src->value[WORD_PRINCIPAL],
		.ccache = src->value[WORD_CCACHE],
		.cell = ask->cell,
		.realm = ask->realm,
		.check_files = ask->check_files,
	};
	struct secret *payload = NULL;
	struct report report = {0};

	prctl(PR_SET_NAME, "ckrfs-krb5");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_STATUS_FAILED);
	shut_memory();
	if (afs_krb5_get(&params, &payload, &report.ticket, &report.error) == 0) {
		report.size = secret_size(payload);
		memcpy(secret_data(room), secret_data(payload), report.size);
		secret_free(payload);
	}
	_exit(send(fd, &report, sizeof(report), MSG_NOSIGNAL) < 0 ? EXIT_STATUS_FAILED : EXIT_STATUS_DONE);
}

static int too_late(const struct krb5_ask *ask, struct error *err)
{
	return error_set(err, -ETIMEDOUT, EXIT_STATUS_NO_KEY, "the KDC did not answer within %d.%03d s",
			 ask->timeout_ms / 1000, ask->timeout_ms % 1000);
}

static int wait_for(int fd, const struct krb5_ask *ask, struct report *ret, struct error *err)
{
	uint64_t end = monotonic_ms() + (ask->timeout_ms < 0 ? 0 : (uint64_t)ask->timeout_ms);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int n;

	do {
		uint64_t now = monotonic_ms();

		n = poll(&p, 1, ask->timeout_ms < 0 ? -1 : end > now ? (int)(end - now) : 0);
	} while (n < 0 && errno == EINTR);
	if (n == 0)
		return too_late(ask, err);
	if (n < 0 || recv(fd, ret, sizeof(*ret), 0) != (ssize_t)sizeof(*ret))
		return error_set(err, -EIO, EXIT_STATUS_FAILED, "the process that asks for a ticket died");
	if (ret->error.code < 0 && err)
		*err = ret->error;
	return ret->error.code;
}

static int ask_child(const struct krb5_source *src, const struct krb5_ask *ask, struct secret *room,
		     struct report *ret, struct error *err)
{
	pid_t parent = getpid(), pid;
	int sv[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot ask for a ticket");
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		run_child(src, ask, room, parent, sv[1]);
	r = pid < 0 ? -errno : 0;
	close(sv[1]);
	if (r == 0) {
		r = wait_for(sv[0], ask, ret, err);
		kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	} else {
		error_errno(err, r, EXIT_STATUS_FAILED, "cannot ask for a ticket");
	}
	close(sv[0]);
	return r;
}

int krb5_source_ask(const struct krb5_source *src, const struct krb5_ask *ask, struct secret **ret_payload,
		    struct afs_krb5_ticket *ret, struct error *err)
{
	autosecret struct secret *room = NULL;
	struct report report = {0};
	int r = secret_new(AFS_PAYLOAD_HEAD + AFS_TICKET_MAX, &room);

	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot get memory for a ticket");
	r = ask_child(src, ask, room, &report, err);
	if (r < 0)
		return r;
	secret_truncate(room, report.size);
	*ret_payload = steal_ptr(&room);
	*ret = report.ticket;
	return 0;
}
