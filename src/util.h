/* SPDX-License-Identifier: MIT */
/* Small things every layer needs. No state, no locks; all functions are thread-safe. */
#ifndef CKRFS_UTIL_H
#define CKRFS_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}
static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* Reads or writes all of size, going on after short transfers and EINTR. read_full returns the bytes
 * read, less than size only at the end of the file; write_full returns 0. Negative errno. */
ssize_t read_full(int fd, void *buf, size_t size);
int write_full(int fd, const void *buf, size_t size);
ssize_t pread_full(int fd, void *buf, size_t size, off_t offset);
int pwrite_full(int fd, const void *buf, size_t size, off_t offset);

/* Whole decimal or 0x number, nothing before or behind it. -EINVAL, -ERANGE. */
int parse_u64(const char *text, uint64_t max, uint64_t *ret);

/* "yes|true|on|1", "no|false|off|0". -EINVAL */
int parse_bool(const char *text, bool *ret);

/* Seconds: "30", "30s", "5m", "2h", "1d", "250ms" -> milliseconds. -EINVAL, -ERANGE */
int parse_duration_ms(const char *text, uint64_t *ret_ms);

/* Bytes: "4096", "64K", "512M", "1G" (powers of 1024). -EINVAL, -ERANGE */
int parse_size(const char *text, uint64_t *ret);

/*
 * The word of list that is nearest to word (Levenshtein distance at most a third of its length,
 * at least 1), or NULL: for "did you mean". list ends with NULL.
 */
const char *nearest_word(const char *word, const char *const *list);

/* src with every byte outside printable ASCII, and the backslash, as \xNN. Always terminated; cut to fit. */
void printable(const char *src, char *dst, size_t dst_size);

/* For messages: like printable(), but valid UTF-8 letters and the backslash stay as they are, so that doing
 * it twice changes nothing. Controls, invalid bytes and marks that turn the direction of text become \xNN. */
void printable_text(const char *src, char *dst, size_t dst_size);

/* The length of the UTF-8 sequence at text, which has not ended, and its code point: RFC 3629, shortest form,
 * no surrogates. 0: there is none. */
size_t utf8_decode(const char *text, uint32_t *ret);

/* C0, DEL and C1: what a terminal may obey. */
static inline bool code_point_control(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0);
}

/* s between quotes as JSON has it. Controls are \uNNNN, a byte that is not UTF-8 becomes U+FFFD. */
void print_json_string(FILE *to, const char *s);

/* Base64, standard (padded) and URL alphabet (padded or not). Encoders terminate dst, which must hold
 * base64_encoded_size(n). Decoders are strict: alphabet, padding, zero trailing bits; return the number
 * of bytes or -EINVAL, -ENOSPC (dst too small). Constant time is not needed: see secret.h for keys. */
enum base64_kind { BASE64_STD, BASE64_URL_PADDED, BASE64_URL_RAW };
static inline size_t base64_encoded_size(size_t n)
{
	return (n + 2) / 3 * 4 + 1;
}
size_t base64_encode(enum base64_kind kind, const void *src, size_t n, char *dst);
ssize_t base64_decode(enum base64_kind kind, const char *src, size_t n, void *dst, size_t dst_size);

/* Lower-case hex; dst holds 2n+1. */
void hex_encode(const void *src, size_t n, char *dst);

/* Is the user namespace one in which some users have no number? Their files then seem to belong to 65534, and
 * root is not the machine's. */
bool namespace_is_partial(void);

/* Milliseconds of CLOCK_MONOTONIC, and of CLOCK_BOOTTIME, which counts while the machine sleeps too. */
uint64_t monotonic_ms(void);
uint64_t boottime_ms(void);

/* Seconds since 1970 as "2026-01-31 23:59:00 +0100", by the local clock; the number itself where
 * that does not fit. */
void local_time_text(int64_t seconds, char *dst, size_t dst_size);

/* free(3) for plaintext: nothing of it stays behind in the heap. */
void free_wiped(void *p);
static inline void cleanup_free_wiped(void *p)
{
	free_wiped(*(void **)p);
}
#define autowiped __attribute__((cleanup(cleanup_free_wiped)))

#endif
