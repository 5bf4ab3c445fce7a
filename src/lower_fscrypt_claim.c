/* SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "lower_fscrypt_impl.h"
#include "util.h"

/* What the bytes of the file stand for. */
enum { BYTE_TURN, BYTE_CLAIM, BYTE_OPEN };

/* A turn may wait for the disk: removing a key writes back what is dirty. */
enum { TURN_MS = 60000, TURN_STEP_NS = 10000000 };

static int lock_byte(int fd, int byte, short type)
{
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	return fcntl(fd, F_OFD_SETLK, &l) < 0 ? -errno : 0;
}

static bool locked_by_others(int fd, int byte)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	return fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

static void name_prefix(uint64_t dev, char *name, size_t size)
{
	snprintf(name, size, "%u:%u-", major(dev), minor(dev));
}

/* The file of that name, which nobody has removed in between, marked as open. */
static int open_file(int dir_fd, const char *name, bool create)
{
	for (;;) {
		autofd int fd =
			openat(dir_fd, name, O_RDWR | (create ? O_CREAT : 0) | O_CLOEXEC | O_NOFOLLOW, 0600);
		struct stat st;
		int r;

		if (fd < 0)
			return -errno;
		r = lock_byte(fd, BYTE_OPEN, F_RDLCK);
		/* Who removes it has all of it for a moment. */
		if (r < 0 && r != -EAGAIN && r != -EACCES)
			return r;
		if (fstat(fd, &st) < 0)
			return -errno;
		if (r == 0 && st.st_nlink > 0)
			return steal_fd(&fd);
	}
}

int fscrypt_claim_open(int dir_fd, uint64_t dev, const struct fskey_policy *policy, bool create,
		       struct fscrypt_claim *ret)
{
	struct fscrypt_claim c = FSCRYPT_CLAIM_NONE;
	size_t n;

	if (dir_fd < 0) {
		*ret = c;
		return 0;
	}
	c.dir_fd = dir_fd;
	name_prefix(dev, c.name, sizeof(c.name) - 33);
	n = strlen(c.name);
	fskey_id_text(policy, c.name + n);
	c.fd = open_file(dir_fd, c.name, create);
	if (c.fd < 0)
		return c.fd;
	*ret = c;
	return 0;
}

int fscrypt_claim_enter(struct fscrypt_claim *c)
{
	struct timespec step = {.tv_nsec = TURN_STEP_NS};
	uint64_t end = monotonic_ms() + TURN_MS;
	int r = 0;

	if (c->fd < 0)
		return 0;
	while ((r = lock_byte(c->fd, BYTE_TURN, F_WRLCK)) == -EAGAIN || r == -EACCES) {
		if (monotonic_ms() > end)
			return -ETIMEDOUT;
		nanosleep(&step, NULL);
	}
	return r;
}

void fscrypt_claim_leave(struct fscrypt_claim *c)
{
	if (c->fd >= 0)
		lock_byte(c->fd, BYTE_TURN, F_UNLCK);
}

int fscrypt_claim_set(struct fscrypt_claim *c)
{
	return c->fd < 0 ? 0 : lock_byte(c->fd, BYTE_CLAIM, F_RDLCK);
}

void fscrypt_claim_drop(struct fscrypt_claim *c)
{
	if (c->fd >= 0)
		lock_byte(c->fd, BYTE_CLAIM, F_UNLCK);
}

bool fscrypt_claim_others(const struct fscrypt_claim *c)
{
	return c->fd >= 0 && locked_by_others(c->fd, BYTE_CLAIM);
}

/* The file's one byte. */
static const char origins[] = {
	[FSCRYPT_ORIGIN_OURS] = 'o',
	[FSCRYPT_ORIGIN_FOREIGN] = 'f',
};

enum fscrypt_origin fscrypt_claim_origin(const struct fscrypt_claim *c)
{
	char byte;

	if (c->fd < 0 || pread(c->fd, &byte, 1, 0) != 1)
		return FSCRYPT_ORIGIN_NONE;
	return byte == origins[FSCRYPT_ORIGIN_FOREIGN] ? FSCRYPT_ORIGIN_FOREIGN : FSCRYPT_ORIGIN_OURS;
}

void fscrypt_claim_set_origin(struct fscrypt_claim *c, enum fscrypt_origin origin)
{
	/* Where this fails, the key is taken for ours: it is removed rather than forgotten. */
	if (c->fd >= 0 && (ftruncate(c->fd, 0) < 0 ||
			   (origin != FSCRYPT_ORIGIN_NONE && pwrite(c->fd, &origins[origin], 1, 0) != 1)))
		return;
}

void fscrypt_claim_close(struct fscrypt_claim *c)
{
	if (c->fd < 0)
		return;
	/* The last one who has it open, and no key left behind. */
	if (lock_byte(c->fd, BYTE_OPEN, F_WRLCK) == 0 && fscrypt_claim_origin(c) == FSCRYPT_ORIGIN_NONE)
		unlinkat(c->dir_fd, c->name, 0);
	close(c->fd);
	*c = FSCRYPT_CLAIM_NONE;
}

void fscrypt_claim_sweep(int dir_fd, uint64_t dev)
{
	int copy = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	autodir DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	char prefix[32];
	struct dirent *e;

	name_prefix(dev, prefix, sizeof(prefix));
	while (dir && (e = readdir(dir))) {
		autofd int fd = -1;

		if (strncmp(e->d_name, prefix, strlen(prefix)) != 0)
			continue;
		fd = openat(dir_fd, e->d_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
		if (fd >= 0 && lock_byte(fd, BYTE_OPEN, F_WRLCK) == 0)
			unlinkat(dir_fd, e->d_name, 0);
	}
	if (!dir && copy >= 0)
		close(copy);
}
