/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "secret.h"
#include "unit.h"
#include "util.h"

/* Runs in a child, which may change its limits; returns its exit status. */
static int in_child(int (*run)(void *arg), void *arg)
{
	pid_t pid;
	int status;

	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(run(arg));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static struct secret *from_text(const char *text)
{
	struct secret *s = NULL;

	assert_int_equal(secret_new_from(text, strlen(text), &s), 0);
	return s;
}

static void new_is_zero_and_limited(void **state)
{
	struct secret *s = NULL;

	assert_int_equal(secret_new(SECRET_MAX + 1, &s), -EMSGSIZE);
	assert_null(s);
	assert_int_equal(secret_new(5000, &s), 0);
	assert_int_equal(secret_size(s), 5000);
	for (size_t i = 0; i < 5000; i++)
		assert_int_equal(secret_data(s)[i], 0);
	memset(secret_data(s), 7, 5000);
	secret_truncate(s, 10);
	assert_int_equal(secret_size(s), 10);
	assert_int_equal(secret_data(s)[9], 7);
	for (size_t i = 10; i < 5000; i++)
		assert_int_equal(secret_data(s)[i], 0);
	secret_free(s);
	secret_free(NULL);
	assert_int_equal(secret_new(SECRET_MAX, &s), 0);
	secret_free(s);
}

static void equality(void **state)
{
	struct secret *a = from_text("abc"), *b = from_text("abc"), *c = from_text("abd"),
		      *d = from_text("abcd");

	assert_true(secret_equal(a, b));
	assert_false(secret_equal(a, c));
	assert_false(secret_equal(a, d));
	secret_free(a);
	secret_free(b);
	secret_free(c);
	secret_free(d);
}

/* The marker is in no other memory: it is written through a volatile mask, byte by byte. */
enum { MARKER_SIZE = 32, MARKER_MASK = 0x5a };
static const uint8_t marker_masked[MARKER_SIZE] = "twelve large zebras jump quickly";

static void marker_put(uint8_t *to)
{
	volatile uint8_t mask = MARKER_MASK;

	for (size_t i = 0; i < MARKER_SIZE; i++)
		to[i] = marker_masked[i] ^ mask;
}

/* Looks with the mask, so that the marker is not made anywhere. */
static bool marker_at(const uint8_t *at)
{
	for (size_t i = 0; i < MARKER_SIZE; i++) {
		if ((at[i] ^ MARKER_MASK) != marker_masked[i])
			return false;
	}
	return true;
}

static size_t marker_count(int mem, uintptr_t start, uintptr_t end)
{
	static uint8_t page[4096];
	size_t found = 0;

	for (; start < end; start += sizeof(page)) {
		ssize_t n = pread(mem, page, sizeof(page), (off_t)start);

		for (ssize_t i = 0; i + MARKER_SIZE <= n; i++)
			found += marker_at(page + i);
	}
	memset(page, 0, sizeof(page));
	return found;
}

/* How often /proc/self/mem shows the marker. Large mappings are the sanitizers' and hold nothing of ours. */
static size_t marker_scan(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	size_t found = 0;
	char line[512];

	assert_non_null(maps);
	assert_true(mem >= 0);
	while (fgets(line, sizeof(line), maps)) {
		unsigned long start, end;
		char access[5];

		if (sscanf(line, "%lx-%lx %4s", &start, &end, access) == 3 && access[0] == 'r' &&
		    end - start < 64UL << 20)
			found += marker_count(mem, start, end);
	}
	fclose(maps);
	close(mem);
	return found;
}

static void memory_is_hidden(void **state)
{
	uint8_t *plain = malloc(MARKER_SIZE), *heap = secret_heap_alloc(MARKER_SIZE);
	struct secret *s = NULL;

	assert_int_equal(secret_new(MARKER_SIZE, &s), 0);
	assert_non_null(plain);
	assert_non_null(heap);
	marker_put(secret_data(s));
	marker_put(heap);
	if (strcmp(secret_protection(), "memfd_secret") != 0) {
		assert_null(getenv("CKRFS_MUST_WORK"));
		skip();
	}
	assert_int_equal(marker_scan(), 0);
	/* the search does find what is in ordinary memory */
	marker_put(plain);
	assert_int_equal(marker_scan(), 1);
	explicit_bzero(plain, MARKER_SIZE);
	free(plain);
	secret_heap_free(heap);
	secret_free(s);
}

/* memfd_secret gets ENOSYS, as on kernels without it. */
static int deny_memfd_secret(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_secret, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = ARRAY_SIZE(filter), .filter = filter};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* Exit status: 0 when protection is what arg says and memory works. */
static int uses_memory(void *arg)
{
	struct secret *s = NULL;
	uint8_t *large = secret_heap_alloc(8 << 20), *small = secret_heap_alloc(100);
	bool ok;

	if (secret_new(100, &s) < 0 || !large || !small)
		return 2;
	memset(large, 1, 8 << 20);
	memset(small, 1, 100);
	memset(secret_data(s), 1, 100);
	ok = !strcmp(secret_protection(), arg);
	secret_heap_free(large);
	secret_heap_free(small);
	secret_free(s);
	return ok ? 0 : 3;
}

static int falls_back_to_mlock(void *arg)
{
	return deny_memfd_secret() < 0 ? 1 : uses_memory(arg);
}

static int falls_back_to_plain(void *arg)
{
	struct rlimit none = {0, 0};

	if (setrlimit(RLIMIT_MEMLOCK, &none) < 0 || (geteuid() == 0 && setuid(65534) < 0))
		return 1;
	/* sanitizers make mlock() do nothing, and say that it worked */
	if (mlock(&none, sizeof(none)) == 0)
		arg = (char *)arg + strlen(arg) + 1;
	return uses_memory(arg);
}

static void fallbacks(void **state)
{
	char locked[] = "mlock", plain[] = "plain\0mlock";

	assert_int_equal(in_child(falls_back_to_mlock, locked), 0);
	assert_int_equal(in_child(falls_back_to_plain, plain), 0);
}

static int child_frees(void *arg)
{
	secret_free(arg);
	return 0;
}

static int child_sees(void *arg)
{
	const struct secret *s = arg;

	return memcmp(secret_data(s), "shared", 6) == 0 ? 0 : 1;
}

static int child_writes(void *arg)
{
	memcpy(secret_data(arg), "SHARED", 6);
	return 0;
}

/* Sanitizers make mlock(2) do nothing. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { LOCKS = 0 };
#else
enum { LOCKS = 1 };
#endif

/* Whether the page that holds at is locked and left out of core files. */
static bool is_kept_in(const void *at)
{
	FILE *maps = fopen("/proc/self/smaps", "re");
	char line[512];
	bool here = false, kept = false;
	unsigned long from, to;

	if (!maps)
		return false;
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			here = (uintptr_t)at >= from && (uintptr_t)at < to;
		else if (here && strncmp(line, "VmFlags:", 8) == 0)
			kept = (!LOCKS || strstr(line, " lo")) && strstr(line, " dd");
	}
	fclose(maps);
	return kept;
}

__attribute__((noinline)) static int callee(bool deep)
{
	char frame[20 << 10];

	explicit_bzero(frame, sizeof(frame));
	return is_kept_in(frame) + (deep ? callee(false) : 0);
}

static int stack_is_kept_in(void *arg)
{
	secret_stack();
	if (callee(false) != 1)
		return 1;
	/* From further down the stack: the rest is locked then, not before. */
	return callee(true) == 2 ? 2 : 0;
}

static void *thread_stack(void *arg)
{
	return stack_is_kept_in(NULL) == 0 ? arg : NULL;
}

static void stacks_are_hidden(void **state)
{
	pthread_t thread;
	void *done = NULL;

	if (strcmp(secret_protection(), "plain") == 0)
		skip();
	assert_int_equal(in_child(stack_is_kept_in, NULL), 0);
	assert_int_equal(pthread_create(&thread, NULL, thread_stack, &done), 0);
	assert_int_equal(pthread_join(thread, &done), 0);
	assert_non_null(done);
}

static void fork_shares_and_only_the_maker_wipes(void **state)
{
	struct secret *s = from_text("shared");

	assert_int_equal(in_child(child_sees, s), 0);
	assert_int_equal(in_child(child_frees, s), 0);
	assert_memory_equal(secret_data(s), "shared", 6);
	assert_int_equal(in_child(child_writes, s), 0);
	assert_memory_equal(secret_data(s), "SHARED", 6);
	secret_free(s);
}

/* A pipe that holds text; its writing end is closed. */
static int pipe_with(const char *text, size_t n)
{
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(write_full(ends[1], text, n), 0);
	close(ends[1]);
	return ends[0];
}

static void read_limits(void **state)
{
	static const struct {
		size_t size, max;
		int result;
	} cases[] = {
		{0, 10, -ENODATA},      {1, 10, 0},      {10, 10, 0},     {11, 10, -EMSGSIZE},
		{4095, 9999, 0},        {4096, 9999, 0}, {4097, 9999, 0}, {4097, 4096, -EMSGSIZE},
		{60000, SECRET_MAX, 0},
	};
	static char text[60000];

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i * 31 + i / 256);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int fd = pipe_with(text, cases[i].size);
		struct secret *s = NULL;

		assert_int_equal(secret_read(fd, cases[i].max, 1000, &s), cases[i].result);
		close(fd);
		if (cases[i].result < 0) {
			assert_null(s);
			continue;
		}
		assert_int_equal(secret_size(s), cases[i].size);
		assert_memory_equal(secret_data(s), text, cases[i].size);
		secret_free(s);
	}
}

static void read_largest(void **state)
{
	struct secret *s = NULL;
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC), file = memfd_create("largest", MFD_CLOEXEC);

	assert_int_equal(secret_read(fd, SECRET_MAX, 1000, &s), -EMSGSIZE);
	assert_int_equal(ftruncate(file, SECRET_MAX), 0);
	assert_int_equal(secret_read(file, SECRET_MAX, 1000, &s), 0);
	assert_int_equal(secret_size(s), SECRET_MAX);
	secret_free(s);
	close(fd);
	close(file);
	assert_int_equal(secret_read(fd, 10, 1000, &s), -EBADF);
}

static void read_waits_but_not_longer(void **state)
{
	struct secret *s = NULL;
	int ends[2];
	uint64_t start = monotonic_ms();
	pid_t pid;

	assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(secret_read(ends[0], 10, 50, &s), -ETIMEDOUT);
	assert_in_range(monotonic_ms() - start, 49, 5000);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct timespec pause = {.tv_nsec = 50000000};

		nanosleep(&pause, NULL);
		_exit(write_full(ends[1], "late", 4) < 0);
	}
	close(ends[1]);
	assert_int_equal(secret_read(ends[0], 10, -1, &s), 0);
	assert_int_equal(secret_size(s), 4);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	secret_free(s);
	close(ends[0]);
}

struct decoding {
	const char *text;
	int result;
	const char *bytes;
	size_t size;
};

static void check_decoding(int (*decode)(const struct secret *text, struct secret **ret),
			   const struct decoding *c)
{
	struct secret *text = from_text(c->text), *s = NULL;

	assert_int_equal(decode(text, &s), c->result);
	if (c->result == 0) {
		assert_int_equal(secret_size(s), c->size);
		assert_memory_equal(secret_data(s), c->bytes, c->size);
	} else {
		assert_null(s);
	}
	secret_free(text);
	secret_free(s);
}

static void hex(void **state)
{
	static const struct decoding cases[] = {
		{"00ff7Fa0", 0, "\x00\xff\x7f\xa0", 4},
		{"09afAF\r\n \t", 0, "\x09\xaf\xaf", 3},
		{"0", -EINVAL, NULL, 0},
		{"\n", -EINVAL, NULL, 0},
		{" 00", -EINVAL, NULL, 0},
		{"0g", -EINVAL, NULL, 0},
		{"0x00", -EINVAL, NULL, 0},
		{"00 00", -EINVAL, NULL, 0},
		{"0\xff", -EINVAL, NULL, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_decoding(secret_from_hex, &cases[i]);
}

static void base64(void **state)
{
	static const struct decoding cases[] = {
		{"Zg==", 0, "f", 1},
		{"Zg", 0, "f", 1},
		{"Zm8=\n", 0, "fo", 2},
		{"Zm9vYmFy", 0, "foobar", 6},
		{"+//+", 0, "\xfb\xff\xfe", 3},
		{"-__-", 0, "\xfb\xff\xfe", 3},
		{"+__-", -EINVAL, NULL, 0},
		{"Zh==", -EINVAL, NULL, 0},
		{"Zg=", -EINVAL, NULL, 0},
		{"Z", -EINVAL, NULL, 0},
		{"====", -EINVAL, NULL, 0},
		{"Zm9=", -EINVAL, NULL, 0},
		{"\n", -EINVAL, NULL, 0},
		{"Zm 9", -EINVAL, NULL, 0},
		{"Zm9v\nZg==", -EINVAL, NULL, 0},
		{"Zm9\xff", -EINVAL, NULL, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_decoding(secret_from_base64, &cases[i]);
}

/* Each byte on its own against the C library and the table in util.c: the arithmetic has no table. */
static void digits_agree_with_tables(void **state)
{
	for (int c = 1; c < 256; c++) {
		char two[3] = {'0', (char)c, '\0'}, four[5] = {'A', 'A', 'A', (char)c, '\0'}, bytes[3];
		struct secret *text = from_text(two), *s = NULL;
		bool digit = c < 128 && strchr("0123456789abcdefABCDEF", c);

		if (!strchr(" \t\r\n", c)) {
			assert_int_equal(secret_from_hex(text, &s), digit ? 0 : -EINVAL);
			assert_true(!s || secret_data(s)[0] == (uint8_t)strtoul(two, NULL, 16));
		}
		secret_free(s);
		secret_free(text);
		s = NULL;
		text = from_text(four);
		if (base64_decode(BASE64_STD, four, 4, bytes, 3) == 3 ||
		    base64_decode(BASE64_URL_RAW, four, 4, bytes, 3) == 3) {
			assert_int_equal(secret_from_base64(text, &s), 0);
			assert_true(secret_size(s) == 3 || c == '=');
			assert_memory_equal(secret_data(s), bytes, secret_size(s));
		} else if (c != '=' && !strchr(" \t\r\n", c)) {
			assert_int_equal(secret_from_base64(text, &s), -EINVAL);
		}
		secret_free(s);
		secret_free(text);
	}
}

static void first_line(void **state)
{
	static const struct decoding cases[] = {
		{"one", 0, "one", 3},       {"one\n", 0, "one", 3},     {"one\ntwo\n", 0, "one", 3},
		{"one\r\n", 0, "one\r", 4}, {" one \n", 0, " one ", 5}, {"\ntwo", -ENODATA, NULL, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_decoding(secret_first_line, &cases[i]);
}

static void heap_gives_aligned_and_wiped(void **state)
{
	static const size_t sizes[] = {1,    16,    17,    32,    33,     100,    1000,
				       4096, 65535, 65536, 65537, 300000, 5 << 20};
	uint8_t *p[ARRAY_SIZE(sizes)];

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		p[i] = secret_heap_alloc(sizes[i]);
		assert_non_null(p[i]);
		assert_int_equal((uintptr_t)p[i] % 16, 0);
		assert_true(secret_heap_owns(p[i]) && secret_heap_owns(p[i] + sizes[i] - 1));
		memset(p[i], (int)i + 1, sizes[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (size_t j = 0; j < sizes[i]; j++)
			assert_true(p[i][j] == i + 1);
		secret_heap_free(p[i]);
		if (sizes[i] > 65536) {
			assert_false(secret_heap_owns(p[i]));
			continue;
		}
		for (size_t j = 0; j < sizes[i]; j++)
			assert_true(p[i][j] == 0);
	}
	assert_null(secret_heap_alloc(0));
	assert_null(secret_heap_alloc(SIZE_MAX));
	secret_heap_free(NULL);
}

static void heap_knows_its_own(void **state)
{
	void *foreign = malloc(100), *own = secret_heap_alloc(100);
	void *mapped = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int on_stack;

	assert_true(secret_heap_owns(own));
	assert_false(secret_heap_owns(NULL));
	assert_false(secret_heap_owns(foreign));
	assert_false(secret_heap_owns(&on_stack));
	assert_false(secret_heap_owns(mapped));
	assert_false(secret_heap_owns((void *)UINTPTR_MAX));
	free(foreign);
	secret_heap_free(own);
	munmap(mapped, 4096);
}

static void heap_resizes(void **state)
{
	uint8_t *p = secret_heap_realloc(NULL, 10), *q;

	assert_non_null(p);
	memcpy(p, "0123456789", 10);
	assert_ptr_equal(secret_heap_realloc(p, 5), p);
	assert_memory_equal(p, "01234\0\0\0\0\0", 10);
	q = secret_heap_realloc(p, 100000);
	assert_non_null(q);
	assert_memory_equal(q, "01234", 5);
	for (size_t i = 0; i < 10; i++)
		assert_int_equal(p[i], 0); /* the old place, not given out again yet */
	p = secret_heap_realloc(q, 900000);
	assert_non_null(p);
	assert_memory_equal(p, "01234", 5);
	assert_null(secret_heap_realloc(p, 0));
	assert_false(secret_heap_owns(p));
}

struct inherited {
	uint8_t *small, *large;
};

static int child_uses_heap(void *arg)
{
	const struct inherited *in = arg;
	uint8_t *own[200], *moved;

	if (!secret_heap_owns(in->small) || !secret_heap_owns(in->large))
		return 1;
	moved = secret_heap_realloc(in->small, 200);
	if (!moved || moved == in->small || memcmp(moved, "small", 6) != 0)
		return 2;
	memset(moved, 0xee, 200);
	secret_heap_free(in->small);
	secret_heap_free(in->large);
	for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
		own[i] = secret_heap_alloc(3000);
		if (!own[i])
			return 3;
		memset(own[i], 0xee, 3000);
	}
	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		secret_heap_free(own[i]);
	return memcmp(in->small, "small", 6) == 0 && memcmp(in->large, "large", 6) == 0 ? 0 : 4;
}

static void heap_of_a_child_is_its_own(void **state)
{
	struct inherited in = {.small = secret_heap_alloc(200), .large = secret_heap_alloc(200000)};
	uint8_t *freed = secret_heap_alloc(3000), *again;

	memcpy(in.small, "small", 6);
	memcpy(in.large, "large", 6);
	secret_heap_free(freed); /* on a free list: the child must not take it from there */
	assert_int_equal(in_child(child_uses_heap, &in), 0);
	assert_string_equal((char *)in.small, "small");
	assert_string_equal((char *)in.large, "large");
	again = secret_heap_alloc(3000);
	assert_ptr_equal(again, freed);
	for (size_t i = 0; i < 3000; i++)
		assert_int_equal(again[i], 0);
	secret_heap_free(again);
	secret_heap_free(in.small);
	secret_heap_free(in.large);
}

static void *heap_worker(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	uint8_t *p[64] = {0};
	size_t sizes[64] = {0};

	for (int i = 0; i < 20000; i++) {
		size_t slot = (size_t)rand_r(&seed) % 64;

		for (size_t j = 0; p[slot] && j < sizes[slot]; j += 97) {
			if (p[slot][j] != (uint8_t)(slot + (uintptr_t)arg))
				return arg;
		}
		secret_heap_free(p[slot]);
		sizes[slot] = 1 + (size_t)rand_r(&seed) % 3000;
		p[slot] = secret_heap_alloc(sizes[slot]);
		if (!p[slot])
			return arg;
		memset(p[slot], (int)(slot + (uintptr_t)arg), sizes[slot]);
	}
	for (size_t i = 0; i < 64; i++)
		secret_heap_free(p[i]);
	return NULL;
}

static void heap_in_threads(void **state)
{
	pthread_t threads[4];
	void *said;

	for (uintptr_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, heap_worker, (void *)(i * 64 + 1)), 0);
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads[i], &said), 0);
		assert_null(said);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(new_is_zero_and_limited),
		cmocka_unit_test(equality),
		cmocka_unit_test(memory_is_hidden),
		cmocka_unit_test(stacks_are_hidden),
		cmocka_unit_test(fallbacks),
		cmocka_unit_test(fork_shares_and_only_the_maker_wipes),
		cmocka_unit_test(read_limits),
		cmocka_unit_test(read_largest),
		cmocka_unit_test(read_waits_but_not_longer),
		cmocka_unit_test(hex),
		cmocka_unit_test(base64),
		cmocka_unit_test(digits_agree_with_tables),
		cmocka_unit_test(first_line),
		cmocka_unit_test(heap_gives_aligned_and_wiped),
		cmocka_unit_test(heap_knows_its_own),
		cmocka_unit_test(heap_resizes),
		cmocka_unit_test(heap_of_a_child_is_its_own),
		cmocka_unit_test(heap_in_threads),
	};

	return cmocka_run_group_tests_name("secret", tests, NULL, NULL);
}
