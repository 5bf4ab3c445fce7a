/* SPDX-License-Identifier: MIT */
/* Inodes with several names: about a hundred bytes each, found by the old inode number. */
#include <errno.h>
#include <stdlib.h>

#include "rekey_impl.h"

static size_t place_of(const struct link *table, size_t size, uint64_t ino)
{
	size_t i = (size_t)(ino * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (size - 1);

	while (table[i].old_ino && table[i].old_ino != ino)
		i = (i + 1) & (size - 1);
	return i;
}

struct link *links_find(const struct links *l, uint64_t old_ino)
{
	size_t i;

	if (!l->size)
		return NULL;
	i = place_of(l->table, l->size, old_ino);
	return l->table[i].old_ino ? &l->table[i] : NULL;
}

/* Never more than half full. */
static int grow(struct links *l)
{
	size_t size = l->size ? l->size * 2 : 256;
	struct link *table = calloc(size, sizeof(*table));

	if (!table)
		return -ENOMEM;
	for (size_t i = 0; i < l->size; i++)
		if (l->table[i].old_ino)
			table[place_of(table, size, l->table[i].old_ino)] = l->table[i];
	free(l->table);
	l->table = table;
	l->size = size;
	return 0;
}

int links_add(struct links *l, uint64_t old_ino, uint64_t new_ino, char *path)
{
	int r = (l->n + 1) * 2 > l->size ? grow(l) : 0;

	if (r < 0) {
		free(path);
		return r;
	}
	l->table[place_of(l->table, l->size, old_ino)] =
		(struct link){.old_ino = old_ino, .new_ino = new_ino, .seen = 1, .path = path};
	l->n++;
	return 0;
}

void links_free(struct links *l)
{
	for (size_t i = 0; i < l->size; i++)
		free(l->table[i].path);
	free(l->table);
	*l = (struct links){0};
}
