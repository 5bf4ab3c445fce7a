/* SPDX-License-Identifier: MIT */
#include "util.h"

#include "cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { NEAREST_WORD_MAX = 64 };

ssize_t read_full(int fd, void *buf, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = read(fd, (char *)buf + done, size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int write_full(int fd, const void *buf, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = write(fd, (const char *)buf + done, size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		done += (size_t)n;
	}
	return 0;
}

ssize_t pread_full(int fd, void *buf, size_t size, off_t offset)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = pread(fd, (char *)buf + done, size - done, offset + (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int pwrite_full(int fd, const void *buf, size_t size, off_t offset)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = pwrite(fd, (const char *)buf + done, size - done, offset + (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		done += (size_t)n;
	}
	return 0;
}

/* 0-15, or -1. Not for key bytes. */
static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Digits of base at text; *ret_end is the first other character. -EINVAL: none there, -ERANGE: above
 * UINT64_MAX. */
static int parse_digits(const char *text, unsigned base, uint64_t *ret, const char **ret_end)
{
	const char *p = text;
	uint64_t n = 0;

	for (;; p++) {
		int digit = hex_digit(*p);

		if (digit < 0 || digit >= (int)base)
			break;
		if (__builtin_mul_overflow(n, base, &n) || __builtin_add_overflow(n, (uint64_t)digit, &n))
			return -ERANGE;
	}
	if (p == text)
		return -EINVAL;
	*ret = n;
	*ret_end = p;
	return 0;
}

int parse_u64(const char *text, uint64_t max, uint64_t *ret)
{
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	const char *end;
	uint64_t n;
	int r = parse_digits(hex ? text + 2 : text, hex ? 16 : 10, &n, &end);

	if (r < 0)
		return r;
	if (*end)
		return -EINVAL;
	if (n > max)
		return -ERANGE;
	*ret = n;
	return 0;
}

int parse_bool(const char *text, bool *ret)
{
	static const struct {
		const char *word;
		bool value;
	} words[] = {{"yes", true}, {"true", true},   {"on", true},   {"1", true},
		     {"no", false}, {"false", false}, {"off", false}, {"0", false}};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (!strcmp(text, words[i].word)) {
			*ret = words[i].value;
			return 0;
		}
	}
	return -EINVAL;
}

struct unit {
	const char *suffix;
	uint64_t factor;
};

static int parse_with_unit(const char *text, const struct unit *units, size_t n_units, uint64_t *ret)
{
	const char *end;
	uint64_t n;
	int r = parse_digits(text, 10, &n, &end);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n_units; i++) {
		if (strcmp(end, units[i].suffix) != 0)
			continue;
		if (__builtin_mul_overflow(n, units[i].factor, &n))
			return -ERANGE;
		*ret = n;
		return 0;
	}
	return -EINVAL;
}

int parse_duration_ms(const char *text, uint64_t *ret_ms)
{
	static const struct unit units[] = {{"", 1000},       {"ms", 1},      {"s", 1000},
					    {"m", 60 * 1000}, {"h", 3600000}, {"d", 86400000}};

	return parse_with_unit(text, units, ARRAY_SIZE(units), ret_ms);
}

int parse_size(const char *text, uint64_t *ret)
{
	static const struct unit units[] = {{"", 1}, {"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}};

	return parse_with_unit(text, units, ARRAY_SIZE(units), ret);
}

/* Levenshtein distance, one row at a time; both words are shorter than NEAREST_WORD_MAX. */
static size_t word_distance(const char *a, const char *b)
{
	size_t row[NEAREST_WORD_MAX], n = strlen(b);

	for (size_t j = 0; j <= n; j++)
		row[j] = j;
	for (size_t i = 0; a[i]; i++) {
		size_t diagonal = row[0];

		row[0] = i + 1;
		for (size_t j = 0; j < n; j++) {
			size_t best = diagonal + (a[i] != b[j]);

			diagonal = row[j + 1];
			best = min_u64(best, min_u64(row[j], row[j + 1]) + 1);
			row[j + 1] = best;
		}
	}
	return row[n];
}

const char *nearest_word(const char *word, const char *const *list)
{
	size_t length = strlen(word), best = max_u64(1, length / 3) + 1;
	const char *found = NULL;

	if (length >= NEAREST_WORD_MAX)
		return NULL;
	for (; *list; list++) {
		size_t distance;

		if (strlen(*list) >= NEAREST_WORD_MAX)
			continue;
		distance = word_distance(word, *list);
		if (distance < best) {
			best = distance;
			found = *list;
		}
	}
	return found;
}

/* Appends n bytes of src to dst, as they are or each as \xNN. False, with nothing written, when they do not
 * fit. */
static bool printable_append(const char *src, size_t n, bool escape, char *dst, size_t dst_size, size_t *used)
{
	size_t need = escape ? 4 * n : n;

	if (*used + need >= dst_size)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (escape)
			snprintf(dst + *used, dst_size - *used, "\\x%02x", (unsigned char)src[i]);
		else
			dst[*used] = src[i];
		*used += escape ? 4 : 1;
	}
	return true;
}

void printable(const char *src, char *dst, size_t dst_size)
{
	size_t used = 0;

	if (!dst_size)
		return;
	for (; *src; src++) {
		bool plain = *src >= ' ' && *src <= '~' && *src != '\\';

		if (!printable_append(src, 1, !plain, dst, dst_size, &used))
			break;
	}
	dst[used] = '\0';
}

size_t utf8_decode(const char *text, uint32_t *ret)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	const unsigned char *s = (const unsigned char *)text;
	size_t n = s[0] < 0x80                   ? 1
		   : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
		   : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
		   : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
						 : 0;
	uint32_t c = n > 1 ? s[0] & (0x7fU >> n) : s[0];

	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (!n || c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	*ret = c;
	return n;
}

/* C1 controls drive terminals; line separators and direction marks make one line look like another. */
static bool code_point_harmless(uint32_t c)
{
	return c >= 0xa0 && !(c >= 0x200b && c <= 0x200f) && !(c >= 0x2028 && c <= 0x202e) &&
	       !(c >= 0x2066 && c <= 0x2069) && c != 0xfeff;
}

void printable_text(const char *src, char *dst, size_t dst_size)
{
	size_t used = 0;

	if (!dst_size)
		return;
	while (*src) {
		bool plain = *src >= ' ' && *src <= '~';
		uint32_t c = 0;
		size_t n = 1;

		if (!plain) {
			n = utf8_decode(src, &c);
			plain = n && code_point_harmless(c);
			n = n ? n : 1;
		}
		if (!printable_append(src, n, !plain, dst, dst_size, &used))
			break;
		src += n;
	}
	dst[used] = '\0';
}

void print_json_string(FILE *to, const char *s)
{
	fputc('"', to);
	while (*s) {
		uint32_t c = 0;
		size_t n = utf8_decode(s, &c);

		if (!n)
			fputs("\\ufffd", to);
		else if (code_point_control(c))
			fprintf(to, "\\u%04" PRIx32, c);
		else if (c == '"' || c == '\\')
			fprintf(to, "\\%c", *s);
		else
			fwrite(s, n, 1, to);
		s += n ? n : 1;
	}
	fputc('"', to);
}

static const char base64_std[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char base64_url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

size_t base64_encode(enum base64_kind kind, const void *src, size_t n, char *dst)
{
	const char *alphabet = kind == BASE64_STD ? base64_std : base64_url;
	const uint8_t *s = src;
	size_t used = 0;

	for (size_t i = 0; i < n; i += 3) {
		size_t left = n - i;
		uint32_t v =
			(uint32_t)s[i] << 16 | (left > 1 ? s[i + 1] << 8 : 0) | (left > 2 ? s[i + 2] : 0);

		for (size_t j = 0; j < 4; j++) {
			if (j <= left)
				dst[used++] = alphabet[v >> (18 - 6 * j) & 0x3f];
			else if (kind != BASE64_URL_RAW)
				dst[used++] = '=';
		}
	}
	dst[used] = '\0';
	return used;
}

static int base64_digit(enum base64_kind kind, char c)
{
	const char *alphabet = kind == BASE64_STD ? base64_std : base64_url;
	const char *p = c ? strchr(alphabet, c) : NULL;

	return p ? (int)(p - alphabet) : -1;
}

/* Length of the text without its padding, or -EINVAL when the padding is not that of kind. */
static ssize_t base64_unpadded(enum base64_kind kind, const char *src, size_t n)
{
	size_t padding = 0;

	while (kind != BASE64_URL_RAW && padding < 2 && padding < n && src[n - 1 - padding] == '=')
		padding++;
	if (kind != BASE64_URL_RAW && n % 4)
		return -EINVAL;
	n -= padding;
	return n % 4 == 1 ? -EINVAL : (ssize_t)n;
}

ssize_t base64_decode(enum base64_kind kind, const char *src, size_t n, void *dst, size_t dst_size)
{
	ssize_t length = base64_unpadded(kind, src, n);
	uint32_t bits = 0, n_bits = 0;
	uint8_t *d = dst;
	size_t used = 0;

	if (length < 0)
		return length;
	for (size_t i = 0; i < (size_t)length; i++) {
		int digit = base64_digit(kind, src[i]);

		if (digit < 0)
			return -EINVAL;
		bits = (bits << 6 | (uint32_t)digit) & 0xfff;
		n_bits += 6;
		if (n_bits < 8)
			continue;
		n_bits -= 8;
		if (used == dst_size)
			return -ENOSPC;
		d[used++] = (uint8_t)(bits >> n_bits);
	}
	return bits & ((1U << n_bits) - 1) ? -EINVAL : (ssize_t)used;
}

void hex_encode(const void *src, size_t n, char *dst)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *s = src;

	for (size_t i = 0; i < n; i++) {
		dst[2 * i] = digits[s[i] >> 4];
		dst[2 * i + 1] = digits[s[i] & 15];
	}
	dst[2 * n] = '\0';
}

static uint64_t clock_ms(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t monotonic_ms(void)
{
	return clock_ms(CLOCK_MONOTONIC);
}

uint64_t boottime_ms(void)
{
	return clock_ms(CLOCK_BOOTTIME);
}

void local_time_text(int64_t seconds, char *dst, size_t dst_size)
{
	time_t when = (time_t)seconds;
	struct tm tm;

	/* No room, or a year that struct tm cannot hold. */
	if (!localtime_r(&when, &tm) || !strftime(dst, dst_size, "%Y-%m-%d %H:%M:%S %z", &tm))
		snprintf(dst, dst_size, "%" PRId64, seconds);
}

/* Not inlined: where the size asked for is known, a fortified bzero takes the rest of the block for overrun.
 */
void __attribute__((noinline)) free_wiped(void *p)
{
	if (p)
		explicit_bzero(p, malloc_usable_size(p));
	free(p);
}

bool namespace_is_partial(void)
{
	autofd int fd = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
	unsigned long inside, outside, count;
	char text[128];
	ssize_t n = fd < 0 ? -1 : read_full(fd, text, sizeof(text) - 1);

	if (n <= 0)
		return false;
	text[n] = '\0';
	return sscanf(text, "%lu %lu %lu", &inside, &outside, &count) == 3 && count < UINT32_MAX;
}
