/* SPDX-License-Identifier: MIT */
#include "secret.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cleanup.h"
#include "secret_impl.h"
#include "util.h"

struct secret {
	uint8_t *data;
	size_t size;
	size_t mapped;
	unsigned generation; /* of the process that made it */
};

const char *secret_protection(void)
{
	static const char *const names[] = {
		[SECRET_PAGES_UNKNOWN] = "plain",
		[SECRET_PAGES_SECRETMEM] = "memfd_secret",
		[SECRET_PAGES_LOCKED] = "mlock",
		[SECRET_PAGES_PLAIN] = "plain",
	};

	if (secret_pages_weakest() == SECRET_PAGES_UNKNOWN) {
		struct secret *probe;

		if (secret_new(1, &probe) == 0)
			secret_free(probe);
	}
	return names[secret_pages_weakest()];
}

/* Without the limit: a read asks for one byte more. */
static int secret_map(size_t size, struct secret **ret)
{
	struct secret *s = calloc(1, sizeof(*s));
	enum secret_pages kind;

	if (!s)
		return -ENOMEM;
	s->size = size;
	s->mapped = secret_pages_round(size);
	s->data = secret_pages_map(s->mapped, &kind);
	if (!s->data) {
		free(s);
		return -ENOMEM;
	}
	s->generation = secret_pages_generation();
	secret_pages_note(kind);
	*ret = s;
	return 0;
}

int secret_new(size_t size, struct secret **ret)
{
	assert(size > 0);
	return size > SECRET_MAX ? -EMSGSIZE : secret_map(size, ret);
}

int secret_new_from(const void *data, size_t size, struct secret **ret)
{
	struct secret *s;
	int r = secret_new(size, &s);

	if (r < 0)
		return r;
	memcpy(s->data, data, size);
	*ret = s;
	return 0;
}

void secret_free(struct secret *s)
{
	if (!s)
		return;
	if (s->generation == secret_pages_generation())
		explicit_bzero(s->data, s->mapped);
	munmap(s->data, s->mapped);
	free(s);
}

uint8_t *secret_data(const struct secret *s)
{
	return s->data;
}

size_t secret_size(const struct secret *s)
{
	return s->size;
}

void secret_truncate(struct secret *s, size_t size)
{
	assert(size > 0 && size <= s->size);
	explicit_bzero(s->data + size, s->size - size);
	s->size = size;
}

bool secret_equal(const struct secret *a, const struct secret *b)
{
	volatile uint8_t differ = 0;

	if (a->size != b->size)
		return false;
	for (size_t i = 0; i < a->size; i++)
		differ |= a->data[i] ^ b->data[i];
	return differ == 0;
}

/* Puts a larger one in the place of *s. */
static int secret_grow(struct secret **s, size_t size)
{
	struct secret *larger;
	int r = secret_map(size, &larger);

	if (r < 0)
		return r;
	memcpy(larger->data, (*s)->data, (*s)->size);
	secret_free(*s);
	*s = larger;
	return 0;
}

/* Waits for fd until deadline (0: for ever). */
static int secret_wait(int fd, uint64_t deadline)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	for (;;) {
		uint64_t now = monotonic_ms();
		int wait = -1, n;

		if (deadline)
			wait = deadline > now ? (int)(deadline - now) : 0;
		n = poll(&p, 1, wait);
		if (n > 0)
			return p.revents & POLLNVAL ? -EBADF : 0;
		if (n == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

int secret_read(int fd, size_t max, int timeout_ms, struct secret **ret)
{
	uint64_t deadline = timeout_ms < 0 ? 0 : monotonic_ms() + (uint64_t)timeout_ms;
	autosecret struct secret *s = NULL;
	size_t used = 0;
	int r;

	assert(max > 0 && max <= SECRET_MAX);
	r = secret_map(min_u64(max + 1, secret_pages_round(1)), &s);
	while (r == 0) {
		ssize_t n;

		if (used > max)
			return -EMSGSIZE;
		if (used == s->size && (r = secret_grow(&s, min_u64(max + 1, 2 * used))) < 0)
			break;
		r = secret_wait(fd, deadline);
		if (r < 0)
			break;
		n = read(fd, s->data + used, s->size - used);
		if (n == 0)
			break;
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		used += n > 0 ? (size_t)n : 0;
	}
	if (r < 0)
		return r;
	if (!used)
		return -ENODATA;
	secret_truncate(s, used);
	*ret = steal_ptr(&s);
	return 0;
}

/* All ones where lo <= c <= hi, else zero, without a branch. All three are below 256. */
static uint32_t mask_range(uint32_t c, uint32_t lo, uint32_t hi)
{
	return 0U - (((lo - 1 - c) & (c - hi - 1)) >> 31);
}

/* Only how long the text is decides here, which is no secret. */
static size_t text_length(const struct secret *text)
{
	size_t n = text->size;

	while (n && strchr(" \t\r\n", text->data[n - 1]) && text->data[n - 1])
		n--;
	return n;
}

/* The value of a digit; *bad collects ones where it is none. */
static uint32_t hex_value(uint32_t c, uint32_t *bad)
{
	uint32_t digit = mask_range(c, '0', '9'), lower = mask_range(c, 'a', 'f'),
		 upper = mask_range(c, 'A', 'F');

	*bad |= ~(digit | lower | upper);
	return (digit & (c - '0')) | (lower & (c - 'a' + 10)) | (upper & (c - 'A' + 10));
}

int secret_from_hex(const struct secret *text, struct secret **ret)
{
	autosecret struct secret *s = NULL;
	size_t n = text_length(text);
	uint32_t bad = 0;
	int r;

	if (!n || n % 2)
		return -EINVAL;
	r = secret_new(n / 2, &s);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i += 2)
		s->data[i / 2] =
			(uint8_t)(hex_value(text->data[i], &bad) << 4 | hex_value(text->data[i + 1], &bad));
	if (bad)
		return -EINVAL;
	*ret = steal_ptr(&s);
	return 0;
}

struct base64_seen {
	uint32_t bad, std, url; /* ones where a byte was no digit, one of the standard, of the URL alphabet */
};

static uint32_t base64_value(uint32_t c, struct base64_seen *seen)
{
	uint32_t upper = mask_range(c, 'A', 'Z'), lower = mask_range(c, 'a', 'z'),
		 digit = mask_range(c, '0', '9');
	uint32_t plus = mask_range(c, '+', '+'), slash = mask_range(c, '/', '/');
	uint32_t minus = mask_range(c, '-', '-'), under = mask_range(c, '_', '_');

	seen->std |= plus | slash;
	seen->url |= minus | under;
	seen->bad |= ~(upper | lower | digit | plus | slash | minus | under);
	return (upper & (c - 'A')) | (lower & (c - 'a' + 26)) | (digit & (c - '0' + 52)) |
	       ((plus | minus) & 62) | ((slash | under) & 63);
}

/* Length without the padding; -EINVAL when it cannot be that of base64. */
static ssize_t base64_text_length(const struct secret *text)
{
	size_t n = text_length(text), padded = n;

	while (n && padded - n < 2 && text->data[n - 1] == '=')
		n--;
	if (!n || n % 4 == 1 || (padded != n && padded % 4))
		return -EINVAL;
	return (ssize_t)n;
}

int secret_from_base64(const struct secret *text, struct secret **ret)
{
	autosecret struct secret *s = NULL;
	struct base64_seen seen = {0};
	ssize_t n = base64_text_length(text);
	uint32_t bits = 0, n_bits = 0;
	size_t used = 0;
	int r;

	if (n < 0)
		return (int)n;
	r = secret_new((size_t)n * 3 / 4, &s);
	if (r < 0)
		return r;
	for (size_t i = 0; i < (size_t)n; i++) {
		bits = (bits << 6 | base64_value(text->data[i], &seen)) & 0xfff;
		n_bits += 6;
		if (n_bits >= 8) {
			n_bits -= 8;
			s->data[used++] = (uint8_t)(bits >> n_bits);
		}
	}
	seen.bad |= (seen.std & seen.url) | (bits & ((1U << n_bits) - 1));
	if (seen.bad)
		return -EINVAL;
	*ret = steal_ptr(&s);
	return 0;
}

int secret_first_line(const struct secret *text, struct secret **ret)
{
	const uint8_t *end = memchr(text->data, '\n', text->size);
	size_t n = end ? (size_t)(end - text->data) : text->size;

	return n ? secret_new_from(text->data, n, ret) : -ENODATA;
}
