/* SPDX-License-Identifier: MIT */
/* The pages under secrets (secret.c) and their heap (secret_heap.c): made by secret_pages.c. Any thread. */
#ifndef CKRFS_SECRET_IMPL_H
#define CKRFS_SECRET_IMPL_H

#include <stddef.h>

/* Kept in the order of strength: the weakest so far is reported. */
enum secret_pages { SECRET_PAGES_UNKNOWN, SECRET_PAGES_SECRETMEM, SECRET_PAGES_LOCKED, SECRET_PAGES_PLAIN };

size_t secret_pages_round(size_t size);

/* Zeroed pages, to be given back by munmap(2); size is a multiple of the page size. Shared in each case, so
 * that a fork never copies them. NULL: no memory. */
void *secret_pages_map(size_t size, enum secret_pages *ret_kind);

/* Keys will be in pages of that kind. */
void secret_pages_note(enum secret_pages kind);
enum secret_pages secret_pages_weakest(void);

/* Differs between a process and its children, for what was made after the first call. */
unsigned secret_pages_generation(void);

#endif
