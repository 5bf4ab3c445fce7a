/* SPDX-License-Identifier: MIT */
/*
 * Looks for byte strings in the memory of processes (through /proc/PID/mem, as root would) or in files.
 * usage: memscan PATTERNS PID...       all mappings that are readable, argv and environment among them
 *        memscan PATTERNS -f FILE...   core files, logs
 * PATTERNS is a file of lines in hex, so that no pattern stands in anybody's argv. Prints one line a hit, and
 * for each process `PID scanned BYTES hidden BYTES`, hidden being mapped pages that not even root can read
 * (memfd_secret). Exit status 1 when something was found, 2 when it could not look.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATTERNS_MAX = 64, PATTERN_MAX = 512, CHUNK = 1 << 20, PAGE = 4096 };

/* An unpopulated reservation, such as a sanitizer's shadow: zeros, and too large to read. */
static const uint64_t region_max = UINT64_C(8) << 30;

struct pattern {
	uint8_t bytes[PATTERN_MAX];
	size_t size;
};

struct scan {
	struct pattern patterns[PATTERNS_MAX];
	size_t n, longest;
	uint8_t *window; /* the end of what was read before, then a chunk */
	size_t kept;
	uint64_t hits, scanned, hidden;
};

static void die(const char *what)
{
	fprintf(stderr, "memscan: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void pattern_add(struct scan *s, const char *hex)
{
	struct pattern *p = &s->patterns[s->n];

	if (s->n == PATTERNS_MAX) {
		errno = E2BIG;
		die("patterns");
	}
	for (p->size = 0;
	     p->size < PATTERN_MAX && sscanf(hex + 2 * p->size, "%2hhx", &p->bytes[p->size]) == 1;)
		p->size++;
	if (p->size < 8) {
		errno = EINVAL;
		die("a pattern needs 8 bytes at least, or everything is a hit");
	}
	if (p->size > s->longest)
		s->longest = p->size;
	s->n++;
}

static void patterns_load(struct scan *s, const char *path)
{
	char line[2 * PATTERN_MAX + 2];
	FILE *f = fopen(path, "re");

	if (!f)
		die(path);
	while (fgets(line, sizeof(line), f))
		if (line[0] != '\n')
			pattern_add(s, line);
	fclose(f);
}

/* size bytes were read behind the kept ones; position is where the first of them comes from. */
static void window_search(struct scan *s, size_t size, const char *name, uint64_t position)
{
	size_t have = s->kept + size;

	for (size_t i = 0; i < s->n; i++) {
		const uint8_t *at = s->window;
		size_t left = have;

		while ((at = memmem(at, left, s->patterns[i].bytes, s->patterns[i].size))) {
			printf("%s: pattern %zu at 0x%" PRIx64 "\n", name, i,
			       position - s->kept + (uint64_t)(at - s->window));
			s->hits++;
			at++;
			left = have - (size_t)(at - s->window);
		}
	}
	s->scanned += size;
	s->kept = have < s->longest - 1 ? have : s->longest - 1;
	memmove(s->window, s->window + have - s->kept, s->kept);
}

static void region_scan(struct scan *s, int fd, const char *name, uint64_t start, uint64_t end)
{
	s->kept = 0;
	while (start < end) {
		size_t want = end - start < CHUNK ? (size_t)(end - start) : CHUNK;
		ssize_t got = pread(fd, s->window + s->kept, want, (off_t)start);

		if (got <= 0 && want > PAGE)
			got = pread(fd, s->window + s->kept, PAGE, (off_t)start);
		if (got <= 0) {
			s->hidden += PAGE;
			s->kept = 0;
			start += PAGE;
			continue;
		}
		window_search(s, (size_t)got, name, start);
		start += (uint64_t)got;
	}
}

static void process_scan(struct scan *s, const char *pid)
{
	char path[64], line[4608], access[8];
	uint64_t start, end;
	FILE *maps;
	int fd;

	s->scanned = s->hidden = 0;
	snprintf(path, sizeof(path), "/proc/%s/mem", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%s/maps", pid);
	maps = fopen(path, "re");
	if (fd < 0 || !maps)
		die(path);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s", &start, &end, access) != 3 ||
		    access[0] != 'r' || strstr(line, "[vvar") || strstr(line, "[vsyscall]") ||
		    end - start > region_max)
			continue;
		region_scan(s, fd, pid, start, end);
	}
	fclose(maps);
	close(fd);
	printf("%s scanned %" PRIu64 " hidden %" PRIu64 "\n", pid, s->scanned, s->hidden);
}

static void file_scan(struct scan *s, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);

	if (size < 0)
		die(path);
	region_scan(s, fd, path, 0, (uint64_t)size);
	close(fd);
}

int main(int argc, char **argv)
{
	struct scan *s = calloc(1, sizeof(*s));
	int files = argc > 2 && strcmp(argv[2], "-f") == 0;

	if (argc < 3 + files) {
		fputs("usage: memscan PATTERNS PID... | memscan PATTERNS -f FILE...\n", stderr);
		return 2;
	}
	if (!s)
		die("memory");
	patterns_load(s, argv[1]);
	s->window = malloc(CHUNK + PATTERN_MAX);
	if (!s->window || s->n == 0)
		die("patterns");
	for (int i = 2 + files; i < argc; i++) {
		if (files)
			file_scan(s, argv[i]);
		else
			process_scan(s, argv[i]);
	}
	return s->hits ? 1 : 0;
}
