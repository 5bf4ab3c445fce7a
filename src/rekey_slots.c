/* SPDX-License-Identifier: MIT */
/* Further keys of the volume (slots): they wrap the old master key, and cannot be carried over. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "format_gocryptfs_keys.h"
#include "rekey_impl.h"

/* As many names as there is room for, and how many more there are. */
static void list_names(const struct gcfs_slots *slots, char ret[REKEY_SLOTS_ROOM])
{
	size_t used = 0;

	for (size_t i = 0; i < slots->n; i++) {
		const char *name = slots->slots[i].name;

		if (used + strlen(name) + sizeof(", , and 32 more") > REKEY_SLOTS_ROOM) {
			snprintf(ret + used, REKEY_SLOTS_ROOM - used, ", and %zu more", slots->n - i);
			return;
		}
		used += (size_t)sprintf(ret + used, "%s%s", i ? ", " : "", name);
	}
}

int rekey_slots_check(struct rekey *k, struct error *err)
{
	struct error unread = ERROR_NONE;
	struct gcfs_slots slots;
	int r = volume_keys_slots_of(k->old, &slots, &unread);

	if (r < 0)
		snprintf(k->slots, sizeof(k->slots), "whose names cannot be read");
	else if (slots.n == 0)
		return 0;
	else
		list_names(&slots, k->slots);
	if (k->params->drop_slots)
		return 0;
	error_set(err, -ENOTEMPTY, EXIT_STATUS_FAILED,
		  "the volume has further keys (slots) that cannot be carried over and would be lost: %s",
		  k->slots);
	error_hint(err, "ckrfs rekey %s --drop-slots ...   (and add them anew)", k->params->source);
	return -ENOTEMPTY;
}
