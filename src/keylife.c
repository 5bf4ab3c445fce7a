/* SPDX-License-Identifier: MIT */
#include "keylife.h"

#include <errno.h>
#include <string.h>

#include "util.h"

/* The first try again comes after BACKOFF_MIN_MS, each next one after twice as long. BACKOFF_LEAST_MS holds
 * when the key's life is nearly over. SLACK_MS: a source that counts in seconds is not exact. */
enum { BACKOFF_MIN_MS = 1000, BACKOFF_MAX_MS = 60000, BACKOFF_LEAST_MS = 250, SLACK_MS = 2000 };

int keylife_parse(const char *text, struct keylife *ret)
{
	uint64_t ms;

	if (strcmp(text, "no") == 0) {
		ret->refresh = KEYLIFE_NEVER;
	} else if (strcmp(text, "auto") == 0) {
		ret->refresh = KEYLIFE_AUTO;
	} else {
		if (parse_duration_ms(text, &ms) < 0 || ms < 1000 || ms > INT64_MAX / 1000)
			return -EINVAL;
		ret->refresh = KEYLIFE_EVERY;
		ret->every_ms = ms;
	}
	return 0;
}

/* now + ms, where both may be absurdly large; never 0. */
static uint64_t later(uint64_t now, uint64_t ms)
{
	return max_u64(ms > UINT64_MAX - now ? UINT64_MAX : now + ms, 1);
}

static uint64_t first_ask(const struct keylife *l, uint64_t now)
{
	switch (l->refresh) {
	case KEYLIFE_AUTO:
		return l->span ? later(now, l->span / 2) : 0;
	case KEYLIFE_EVERY:
		return later(now, !l->span || l->every_ms < l->span ? l->every_ms : l->span / 2);
	default:
		return 0;
	}
}

void keylife_given(struct keylife *l, uint64_t now, uint64_t min_ms, uint64_t max_ms)
{
	l->told = min_ms != KEYLIFE_FOREVER;
	if (!l->told && l->default_ms)
		min_ms = max_ms = l->default_ms;
	/* What has nothing left still has an end. */
	l->span = min_ms == KEYLIFE_FOREVER ? 0 : max_u64(min_ms, 1);
	l->expires = l->span ? later(now, min_ms) : 0;
	l->latest = l->span ? later(now, max_ms) : 0;
	l->next = first_ask(l, now);
	l->failures = 0;
	l->expired = false;
}

enum keylife_news keylife_seen(struct keylife *l, uint64_t now, uint64_t min_ms, uint64_t max_ms)
{
	uint64_t earliest = later(now, min_ms), latest = later(now, max_ms);

	if (min_ms == KEYLIFE_FOREVER)
		return l->expires && l->told ? KEYLIFE_CLEARED : KEYLIFE_SAME;
	if (!l->expires || !l->told || later(l->latest, SLACK_MS) < earliest ||
	    l->expires > later(latest, SLACK_MS)) {
		keylife_given(l, now, min_ms, max_ms);
		return KEYLIFE_MOVED;
	}
	/* It comes nearer, and is known better. */
	l->expires = max_u64(l->expires, earliest);
	l->latest = max_u64(min_u64(l->latest, latest), l->expires);
	return KEYLIFE_SAME;
}

static uint64_t backoff(const struct keylife *l, uint64_t now, uint32_t random)
{
	unsigned doublings = l->failures > 7 ? 6 : l->failures - 1;
	uint64_t delay = min_u64((uint64_t)BACKOFF_MIN_MS << doublings, BACKOFF_MAX_MS);

	if (!l->expired && l->expires > now)
		delay = min_u64(delay, max_u64((l->expires - now) / 4, BACKOFF_LEAST_MS));
	/* From three quarters to five. */
	return delay - delay / 4 + random % (delay / 2 + 1);
}

void keylife_failed(struct keylife *l, uint64_t now, uint32_t random)
{
	if (l->failures < UINT32_MAX)
		l->failures++;
	l->next = l->refresh == KEYLIFE_NEVER ? 0 : later(now, backoff(l, now, random));
}

void keylife_lost(struct keylife *l, uint64_t now)
{
	l->expired = true;
	l->next = l->refresh == KEYLIFE_NEVER ? 0 : later(now, BACKOFF_MIN_MS);
}

void keylife_over(struct keylife *l)
{
	l->expires = 0;
	l->latest = 0;
	l->next = 0;
	l->span = 0;
	l->failures = 0;
	l->expired = false;
}

enum keylife_due keylife_due(const struct keylife *l, uint64_t now)
{
	if (!l->expired && l->expires && now >= l->expires)
		return KEYLIFE_EXPIRED;
	return l->next && now >= l->next ? KEYLIFE_ASK : KEYLIFE_NOTHING;
}

uint64_t keylife_wake(const struct keylife *l)
{
	if (l->expired || !l->expires)
		return l->next;
	return l->next ? min_u64(l->next, l->expires) : l->expires;
}
