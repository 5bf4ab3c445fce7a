/* SPDX-License-Identifier: MIT */
/* keyring.h: what becomes of a key that somebody else owns. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <keyutils.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cleanup.h"
#include "crypto.h"
#include "keyring.h"
#include "keyring_impl.h"
#include "util.h"

/* linux/watch_queue.h cannot be included beside fcntl.h. The numbers are those of Linux 5.8. */
enum { NOTIFICATION_PIPE = O_EXCL, WATCH_QUEUE_SIZE = 16, WATCH_ID_RING = 1, WATCH_ID_KEY = 2 };
#define WATCH_SET_SIZE _IO('W', 0x60)

enum { SALT_SIZE = 32, ROOM_MIN = 4096, ROOM_MAX = 128 << 10, RING_KEYS_MAX = 4096 };

/* ---- looking ---- */

/* Room for contents of that size behind the salt. A new one has a new salt. */
static int room_for(size_t size, struct secret **room)
{
	autosecret struct secret *fresh = NULL;
	size_t wanted = ROOM_MIN;
	int r;

	while (wanted < size + SALT_SIZE)
		wanted *= 2;
	if (wanted > ROOM_MAX)
		return -EKEYREJECTED;
	if (*room && secret_size(*room) >= wanted)
		return 0;
	r = secret_new(wanted, &fresh);
	if (r == 0)
		r = *room ? 0 : crypto_random(secret_data(fresh), SALT_SIZE);
	if (r < 0)
		return r;
	if (*room)
		memcpy(secret_data(fresh), secret_data(*room), SALT_SIZE);
	secret_free(*room);
	*room = steal_ptr(&fresh);
	return 0;
}

static int read_digest(int32_t key, struct secret **room, uint8_t ret[32])
{
	size_t used = SALT_SIZE;
	int r = room_for(0, room);

	while (r == 0) {
		size_t free = secret_size(*room) - SALT_SIZE;
		long size = keyctl_read(key, (char *)secret_data(*room) + SALT_SIZE, free);

		if (size < 0)
			return -errno;
		used = SALT_SIZE + min_u64((uint64_t)size, free);
		if ((size_t)size <= free)
			break;
		r = room_for((size_t)size, room);
	}
	if (r == 0)
		r = sha256_secret(*room, used, ret);
	explicit_bzero(secret_data(*room) + SALT_SIZE, used - SALT_SIZE);
	return r;
}

int keyring_look(const struct keyring *ring, const char *type, const char *desc, struct secret **room,
		 struct keyring_sight *ret)
{
	struct keyring_sight sight = {.serial = ring->mount ? keyring_find(ring, type, desc) : -ENOKEY};
	int r = sight.serial < 0 ? sight.serial : read_digest(sight.serial, room, sight.digest);

	/* Of one that only the kernel reads there is its serial, and its time. */
	if (r == -EOPNOTSUPP)
		r = 0;
	if (r == 0)
		*ret = sight;
	return r;
}

/* ---- its life ---- */

/* The fourth column of /proc/keys: "perm", "expd", or a number of whole units, rounded down. */
static int parse_left(const char *text, uint64_t *ret_min_ms, uint64_t *ret_max_ms)
{
	static const struct {
		char letter;
		uint64_t seconds;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 604800}};
	uint64_t n;
	char letter;

	if (strcmp(text, "perm") == 0) {
		*ret_min_ms = *ret_max_ms = UINT64_MAX;
		return 0;
	}
	if (strcmp(text, "expd") == 0) {
		*ret_min_ms = *ret_max_ms = 0;
		return 0;
	}
	if (sscanf(text, "%" SCNu64 "%c", &n, &letter) != 2 || n > UINT32_MAX)
		return -EBADMSG;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (units[i].letter == letter) {
			*ret_min_ms = n * units[i].seconds * 1000;
			*ret_max_ms = (n + 1) * units[i].seconds * 1000;
			return 0;
		}
	return -EBADMSG;
}

static void close_file(FILE **f)
{
	if (*f)
		fclose(*f);
}

int keyring_left(int32_t key, uint64_t *ret_min_ms, uint64_t *ret_max_ms)
{
	__attribute__((cleanup(close_file))) FILE *f = fopen("/proc/keys", "re");
	autofree char *line = NULL;
	size_t room = 0;

	if (!f)
		return -errno;
	while (getline(&line, &room, f) > 0) {
		unsigned serial;
		char left[16];

		if (sscanf(line, "%x %*s %*s %15s", &serial, left) == 2 && (int32_t)serial == key)
			return parse_left(left, ret_min_ms, ret_max_ms);
	}
	return ferror(f) ? -EIO : -ENOENT;
}

int keyring_set_timeout(int32_t key, uint64_t ms)
{
	uint64_t seconds = min_u64((ms + 999) / 1000, INT32_MAX);

	return keyctl_set_timeout(key, (unsigned)seconds) < 0 ? -errno : 0;
}

/* ---- watching ---- */

/* What is deeper down can leave without a notification of the ring. */
static bool is_linked(int32_t ring, int32_t key)
{
	autofree int32_t *keys = malloc(RING_KEYS_MAX * sizeof(*keys));
	long size = keys ? keyctl_read(ring, (char *)keys, RING_KEYS_MAX * sizeof(*keys)) : -1;

	for (long i = 0; i < (long)min_u64(size < 0 ? 0 : (uint64_t)size / sizeof(*keys), RING_KEYS_MAX); i++)
		if (keys[i] == key)
			return true;
	return false;
}

int keyring_watch_open(const struct keyring *ring, int32_t key, struct keyring_watch *ret)
{
	struct keyring_watch watch = KEYRING_WATCH_NONE;
	int fds[2], r = 0;

	if (!ring->manager || !is_linked(ring->manager, key))
		return -EOPNOTSUPP;
	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK | NOTIFICATION_PIPE) < 0)
		return -errno;
	watch = (struct keyring_watch){fds[0], fds[1]};
	if (ioctl(watch.fd, WATCH_SET_SIZE, WATCH_QUEUE_SIZE) < 0 ||
	    keyctl_watch_key(ring->manager, watch.fd, WATCH_ID_RING) < 0 ||
	    keyctl_watch_key(key, watch.fd, WATCH_ID_KEY) < 0)
		r = -errno;
	if (r < 0)
		keyring_watch_close(&watch);
	else
		*ret = watch;
	return r;
}

/* What it was does not matter: who is woken looks. */
bool keyring_watch_read(const struct keyring_watch *watch)
{
	bool any = false;
	char buf[1024];

	while (read(watch->fd, buf, sizeof(buf)) > 0)
		any = true;
	return any;
}

void keyring_watch_close(struct keyring_watch *watch)
{
	cleanup_close(&watch->fd);
	cleanup_close(&watch->other_fd);
	*watch = KEYRING_WATCH_NONE;
}
