/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>

#include "volume_plugin_impl.h"

uint32_t tally_users(const struct tally *t)
{
	return t->count.mounts - t->n_stale;
}

static void unanswered_remove(struct tally *t, uint32_t i)
{
	struct plugin_count *c = &t->count;

	c->n_unanswered--;
	memmove(c->unanswered[i], c->unanswered[i + 1], (c->n_unanswered - i) * sizeof(*c->unanswered));
	if (i < t->n_stale)
		t->n_stale--;
}

/* In that part of the list; -1 */
static int unanswered_find(const struct tally *t, uint32_t from, uint32_t to, const char *id)
{
	for (uint32_t i = from; i < to; i++)
		if (strcmp(t->count.unanswered[i], id) == 0)
			return (int)i;
	return -1;
}

void tally_mount(struct tally *t, const char *id)
{
	struct plugin_count *c = &t->count;
	int stale = unanswered_find(t, 0, t->n_stale, id);

	if (stale >= 0)
		unanswered_remove(t, (uint32_t)stale);
	else
		c->mounts++;
	if (c->n_unanswered < PLUGIN_UNANSWERED_MAX)
		snprintf(c->unanswered[c->n_unanswered++], PLUGIN_ID_SIZE, "%s", id);
}

void tally_delivered(struct tally *t, const char *id, bool done)
{
	int i = unanswered_find(t, t->n_stale, t->count.n_unanswered, id);

	if (i >= 0)
		unanswered_remove(t, (uint32_t)i);
	if (!done && t->count.mounts > t->count.n_unanswered)
		t->count.mounts--;
}

void tally_unmount(struct tally *t, const char *id)
{
	struct plugin_count *c = &t->count;
	int stale = unanswered_find(t, 0, t->n_stale, id);

	if (c->mounts == 0)
		return;
	c->mounts--;
	if (stale >= 0)
		unanswered_remove(t, (uint32_t)stale);
	while (c->n_unanswered > c->mounts)
		unanswered_remove(t, 0);
}

bool tally_forget(struct tally *t)
{
	bool any = t->n_stale > 0;

	while (t->n_stale > 0) {
		unanswered_remove(t, 0);
		t->count.mounts--;
	}
	return any;
}
