/* SPDX-License-Identifier: MIT */
/*
 * The only place where key bytes live. A secret has pages of its own from memfd_secret(2) where the
 * kernel has it (not even root reads those through /proc/PID/mem, process_vm_readv(2) or a core file;
 * they are never swapped); otherwise mlocked pages with MADV_DONTDUMP. Wiped on free.
 *
 * Across fork() the pages stay shared: parent and child see the same bytes. Only the process that made
 * a secret wipes it; secret_free() in a child merely unmaps it there.
 *
 * The secret heap gives a library (OpenSSL) memory of the same kind for its own copies of keys: see
 * crypto.c. After fork the child has a heap of its own; what it inherited stays readable, and is
 * never given out again by the child.
 *
 * Thread-safe, except that one secret must not be freed while another thread uses it.
 */
#ifndef CKRFS_SECRET_H
#define CKRFS_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct secret;

enum { SECRET_MAX = 1 << 20 }; /* no key source hands over more; larger asks are -EMSGSIZE */

/* A secret of size zero bytes, size > 0. -ENOMEM, -EMSGSIZE */
int secret_new(size_t size, struct secret **ret);

/* A secret with a copy of data; the caller wipes its own copy (explicit_bzero). */
int secret_new_from(const void *data, size_t size, struct secret **ret);

/* Wipes and releases; NULL is fine. */
void secret_free(struct secret *s);

/* The bytes, valid until secret_free(). Do not copy them anywhere but into another secret. */
uint8_t *secret_data(const struct secret *s);
size_t secret_size(const struct secret *s);

/* Makes it shorter; the bytes cut off are wiped. size > 0 and not above the present size (asserted). */
void secret_truncate(struct secret *s, size_t size);

/* Constant time in the contents; lengths are not secret. */
bool secret_equal(const struct secret *a, const struct secret *b);

/*
 * Reads a key from fd with read(2) until end of file, into a secret: at most max bytes (max <= SECRET_MAX),
 * one more is asked for to tell "too long" (-EMSGSIZE) from "fits". Empty input is -ENODATA. Waits at most
 * timeout_ms in all (-ETIMEDOUT); negative waits for ever. The fd's own O_NONBLOCK does not matter.
 */
int secret_read(int fd, size_t max, int timeout_ms, struct secret **ret);

/* Decoders from text in a secret to bytes in a new one, without tables indexed by key bytes. Blanks and line
 * ends at the end of the text are ignored. -EINVAL: not of that form. */
int secret_from_hex(const struct secret *text, struct secret **ret);
int secret_from_base64(const struct secret *text,
		       struct secret **ret); /* standard or URL alphabet, padding optional */

/* The first line, without '\n' (a '\r' stays, as gocryptfs has it). -ENODATA when it is empty. */
int secret_first_line(const struct secret *text, struct secret **ret);

/* How secrets of this process are kept: "memfd_secret", "mlock" or "plain" (neither could be had). */
const char *secret_protection(void);

/* Memory of the same kind for libraries: 16-byte aligned, wiped when freed or moved. NULL when there is none.
 */
void *secret_heap_alloc(size_t size);
void *secret_heap_realloc(void *p, size_t size);
void secret_heap_free(void *p);
bool secret_heap_owns(const void *p);

/*
 * Libraries also have keys on the stack for a moment. Locks the next SECRET_STACK bytes below the caller's
 * frame and leaves them out of core files, once for each place of a thread's stack: call it in the function
 * that is about to call the library. Best effort, as above.
 */
enum { SECRET_STACK = 32 << 10 };
void secret_stack(void);
/* Afterwards: overwrites them. */
void secret_stack_wipe(void);

static inline void cleanup_secret(struct secret **s)
{
	secret_free(*s);
}
#define autosecret __attribute__((cleanup(cleanup_secret)))

#endif
