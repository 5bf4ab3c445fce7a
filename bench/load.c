/* SPDX-License-Identifier: MIT */
/*
 * Workloads for bench/run, in C so that the load itself costs little beside the file system under test.
 * usage: load WORKLOAD DIR COUNT. Prints the seconds of the timed part; what prepares it is not timed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, CHUNK = 1 << 20, PER_DIR = 500 };

static uint8_t buffer[CHUNK];

static void die(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static uint64_t random_next(void)
{
	static uint64_t state = 0x9e3779b97f4a7c15;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static int open_at(const char *dir, const char *name, int flags)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, flags | O_CLOEXEC, 0644);
	if (fd < 0)
		die(path);
	return fd;
}

static void write_all(int fd, size_t size, off_t offset)
{
	if (pwrite(fd, buffer, size, offset) != (ssize_t)size)
		die("write");
}

static void read_all(int fd, size_t size, off_t offset)
{
	if (pread(fd, buffer, size, offset) != (ssize_t)size)
		die("read");
}

/* What was written is on the backing store, so that a writeback cache cannot hide work. */
static double end_write(int fd, double start)
{
	if (fsync(fd) < 0)
		die("fsync");
	if (close(fd) < 0)
		die("close");
	return now() - start;
}

/* count MiB into a new file */
static double seq_write(const char *dir, long count)
{
	double start = now();
	int fd = open_at(dir, "seq", O_WRONLY | O_CREAT | O_TRUNC);

	for (long i = 0; i < count; i++)
		write_all(fd, CHUNK, (off_t)i * CHUNK);
	return end_write(fd, start);
}

/* Opens the file "seq" with none of its pages in the cache of the file system it is seen through. */
static int open_cold(const char *dir)
{
	int fd = open_at(dir, "seq", O_RDONLY);

	if (posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
		die("fadvise");
	return fd;
}

static double seq_read(const char *dir, long count)
{
	int fd = open_cold(dir);
	double start = now();

	for (long i = 0; i < count; i++)
		read_all(fd, CHUNK, (off_t)i * CHUNK);
	start = now() - start;
	close(fd);
	return start;
}

static off_t blocks_of(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || st.st_size < BLOCK)
		die("fstat");
	return st.st_size / BLOCK;
}

static double random_read(const char *dir, long count)
{
	int fd = open_cold(dir);
	uint64_t blocks = (uint64_t)blocks_of(fd);
	double start;

	if (posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM) != 0)
		die("fadvise");
	start = now();
	for (long i = 0; i < count; i++)
		read_all(fd, BLOCK, (off_t)(random_next() % blocks) * BLOCK);
	start = now() - start;
	close(fd);
	return start;
}

static double random_write(const char *dir, long count)
{
	int fd = open_at(dir, "seq", O_RDWR);
	uint64_t blocks = (uint64_t)blocks_of(fd);
	double start = now();

	for (long i = 0; i < count; i++)
		write_all(fd, BLOCK, (off_t)(random_next() % blocks) * BLOCK);
	return end_write(fd, start);
}

/* Maps the file "seq" of count MiB and reads all of it. */
static double mmap_read(const char *dir, long count)
{
	int fd = open_cold(dir);
	size_t size = (size_t)count * CHUNK;
	double start = now();
	const uint8_t *p = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	volatile uint8_t sum = 0;

	if (p == MAP_FAILED)
		die("mmap");
	for (size_t i = 0; i < size; i += BLOCK)
		sum ^= p[i];
	start = now() - start;
	munmap((void *)(uintptr_t)p, size);
	close(fd);
	return start;
}

/* count blocks anywhere in the file "seq", through a mapping. */
static double mmap_write(const char *dir, long count)
{
	int fd = open_at(dir, "seq", O_RDWR);
	uint64_t blocks = (uint64_t)blocks_of(fd);
	double start = now();
	uint8_t *p = mmap(NULL, blocks * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		die("mmap");
	for (long i = 0; i < count; i++)
		memcpy(p + random_next() % blocks * BLOCK, buffer, BLOCK);
	if (msync(p, blocks * BLOCK, MS_SYNC) < 0)
		die("msync");
	start = now() - start;
	munmap(p, blocks * BLOCK);
	close(fd);
	return start;
}

static void file_name(char *path, size_t size, const char *dir, long i)
{
	snprintf(path, size, "%s/d%03ld/f%06ld", dir, i / PER_DIR, i);
}

/* count files of one block, PER_DIR in a directory */
static double create(const char *dir, long count)
{
	char path[4096];
	double start = now();

	for (long i = 0; i < count; i++) {
		int fd;

		if (i % PER_DIR == 0) {
			snprintf(path, sizeof(path), "%s/d%03ld", dir, i / PER_DIR);
			if (mkdir(path, 0755) < 0)
				die(path);
		}
		file_name(path, sizeof(path), dir, i);
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		if (fd < 0)
			die(path);
		write_all(fd, BLOCK, 0);
		if (close(fd) < 0)
			die("close");
	}
	return now() - start;
}

static void open_read_pass(const char *dir, long count)
{
	char path[4096];

	for (long i = 0; i < count; i++) {
		int fd;

		file_name(path, sizeof(path), dir, i);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			die(path);
		read_all(fd, BLOCK, 0);
		close(fd);
	}
}

/* The second pass is timed: names and attributes are known by then. */
static double open_read(const char *dir, long count)
{
	double start;

	open_read_pass(dir, count);
	start = now();
	open_read_pass(dir, count);
	return now() - start;
}

/* Attributes of all files, whose names are known by then. */
static double stat_all(const char *dir, long count)
{
	double start = 0;
	char path[4096];
	struct stat st;

	for (int pass = 0; pass < 2; pass++) {
		start = now();
		for (long i = 0; i < count; i++) {
			file_name(path, sizeof(path), dir, i);
			if (stat(path, &st) < 0)
				die(path);
		}
	}
	return now() - start;
}

static long walk_fd(int fd)
{
	DIR *d = fdopendir(fd);
	struct dirent *e;
	struct stat st;
	long n = 0;

	if (!d)
		die("opendir");
	while ((e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			die(e->d_name);
		n++;
		if (S_ISDIR(st.st_mode)) {
			int sub = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

			if (sub < 0)
				die(e->d_name);
			n += walk_fd(sub);
		}
	}
	closedir(d);
	return n;
}

/* Every name and its attributes; fails when there are fewer than count. */
static double walk(const char *dir, long count)
{
	double start = now();
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		die(dir);
	errno = 0;
	if (walk_fd(fd) < count)
		die("fewer files than there should be");
	return now() - start;
}

static const struct workload {
	const char *name;
	double (*run)(const char *dir, long count);
} workloads[] = {
	{"seq-write", seq_write},     {"seq-read", seq_read},
	{"random-read", random_read}, {"random-write", random_write},
	{"mmap-read", mmap_read},     {"mmap-write", mmap_write},
	{"create", create},           {"stat", stat_all},
	{"open-read", open_read},     {"walk", walk},
};

int main(int argc, char **argv)
{
	if (argc != 4) {
		fputs("usage: load WORKLOAD DIR COUNT\n", stderr);
		return 2;
	}
	for (size_t i = 0; i < CHUNK; i++)
		buffer[i] = (uint8_t)random_next();
	for (size_t i = 0; i < sizeof(workloads) / sizeof(workloads[0]); i++) {
		if (strcmp(argv[1], workloads[i].name) == 0) {
			printf("%.6f\n", workloads[i].run(argv[2], strtol(argv[3], NULL, 10)));
			return 0;
		}
	}
	fprintf(stderr, "load: no workload %s\n", argv[1]);
	return 2;
}
