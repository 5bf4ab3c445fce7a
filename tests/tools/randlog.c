/* SPDX-License-Identifier: MIT */
/* Preloaded into ckrfs by test_ephemeral.py: each random key of 32 bytes is also written to
 * $CKRFS_TEST_RANDOM, as otherwise nobody could know what to look for. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { KEY_SIZE = 32 };

int RAND_bytes(unsigned char *buf, int n);
int RAND_bytes(unsigned char *buf, int n)
{
	int (*real)(unsigned char *, int) = (int (*)(unsigned char *, int))dlsym(RTLD_NEXT, "RAND_bytes");
	const char *path = getenv("CKRFS_TEST_RANDOM");
	int r = real ? real(buf, n) : 0, fd;

	if (r != 1 || n != KEY_SIZE || !path)
		return r;
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, buf, KEY_SIZE) != KEY_SIZE)
		abort();
	close(fd);
	return r;
}
