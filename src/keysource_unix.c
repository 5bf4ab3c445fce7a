/* SPDX-License-Identifier: MIT */
/* unix:PATH, as crypttab(5) has it: connect to a stream socket; the key is what comes until end of file. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "cleanup.h"
#include "keysource_impl.h"
#include "util.h"

static int unix_check(const struct keysource *src, struct error *err)
{
	int r = keysource_check_path(src, err);

	if (r < 0)
		return r;
	if (strlen(src->body) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, KEYSOURCE_NOT_SOCKET, src->spec);
	return 0;
}

/* An abstract address `RANDOM/ckrfs/VOLUME`: the server reads there who asks (crypttab(5), "AF_UNIX KEY
 * FILES"). */
static int unix_bind(int fd, const char *volume)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	uint64_t random;
	int n;

	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return -EIO;
	n = snprintf(addr.sun_path + 1, sizeof(addr.sun_path) - 1, "%016" PRIx64 "/ckrfs/%s", random,
		     volume ? volume : "");
	n = (int)min_u64((uint64_t)n, sizeof(addr.sun_path) - 2);
	if (bind(fd, (struct sockaddr *)&addr,
		 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) < 0)
		return -errno;
	return 0;
}

/* The time limit of connecting is the one of sending: unix(7) blocks while the server's backlog is full. */
static int unix_limit(int fd, int timeout_ms)
{
	struct timeval limit = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};

	if (timeout_ms < 0)
		return 0;
	if (timeout_ms == 0)
		limit.tv_usec = 1; /* 0 would be for ever */
	return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0 ? -errno : 0;
}

static int unix_connect(const struct keysource *src, const struct keysource_env *env)
{
	autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int r;

	if (fd < 0)
		return -errno;
	r = unix_bind(fd, env->volume);
	if (r == 0)
		r = unix_limit(fd, env->timeout_ms);
	if (r < 0)
		return r;
	memcpy(addr.sun_path, src->body, strlen(src->body) + 1);
	while (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		if (errno != EINTR)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
	}
	return steal_fd(&fd);
}

static int unix_read(const struct keysource *src, const struct keysource_env *env, struct secret **ret,
		     struct error *err)
{
	uint64_t start = monotonic_ms();
	autofd int fd = unix_connect(src, env);
	int left = env->timeout_ms, r;

	if (fd == -ETIMEDOUT)
		return keysource_error(src, fd, env->timeout_ms, err);
	if (fd < 0)
		return error_errno(err, fd, EXIT_STATUS_NO_KEY, KEYSOURCE_CANNOT_CONNECT, src->spec);
	if (left > 0)
		left -= (int)min_u64(monotonic_ms() - start, (uint64_t)left);
	r = secret_read(fd, SECRET_MAX, left, ret);
	return r < 0 ? keysource_error(src, r, env->timeout_ms, err) : 0;
}

/* Not connected to: that is what asks for the key. */
static int unix_probe(const struct keysource *src, const struct keysource_env *env, struct error *err)
{
	struct stat st;

	if (stat(src->body, &st) < 0 || faccessat(AT_FDCWD, src->body, W_OK, AT_EACCESS) < 0)
		return error_errno(err, -errno, EXIT_STATUS_NO_KEY, KEYSOURCE_CANNOT_CONNECT, src->spec);
	if (!S_ISSOCK(st.st_mode))
		return error_errno(err, -ENOTSOCK, EXIT_STATUS_NO_KEY, KEYSOURCE_CANNOT_CONNECT, src->spec);
	return 0;
}

const struct keysource_ops keysource_unix = {
	.scheme = "unix",
	.check = unix_check,
	.read = unix_read,
	.probe = unix_probe,
};
