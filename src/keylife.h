/* SPDX-License-Identifier: MIT */
/*
 * The life of a key: when its source is to be asked again, when the key ends, and how often to try when the
 * source fails. Only arithmetic: times are milliseconds of a clock that never jumps and that counts while the
 * machine sleeps (boottime_ms()); nobody is asked, and nothing is done here. One thread.
 */
#ifndef CKRFS_KEYLIFE_H
#define CKRFS_KEYLIFE_H

#include <stdbool.h>
#include <stdint.h>

#define KEYLIFE_FOREVER UINT64_MAX

enum keylife_refresh {
	KEYLIFE_NEVER, /* ask nobody */
	KEYLIFE_AUTO,  /* at half of a life that has an end */
	KEYLIFE_EVERY, /* every_ms after the key was given, or at half of a shorter life */
};

struct keylife {
	enum keylife_refresh refresh;
	uint64_t every_ms;
	uint64_t default_ms; /* a life that the source does not limit; 0: has no end */
	/* What has become of it; 0: never. */
	uint64_t expires, next;
	uint64_t latest;   /* ... where expires is only the earliest that it can be */
	uint64_t span;     /* how long it was to live when that was learned; 0: for ever */
	unsigned failures; /* since the source gave the key last */
	bool told;         /* the end is the source's, not default_ms */
	bool expired;
};

/* "no", "auto" or a time of at least a second. -EINVAL */
int keylife_parse(const char *text, struct keylife *ret);

/* The source has given the key, which has between min_ms and max_ms left (KEYLIFE_FOREVER: it does not say).
 */
void keylife_given(struct keylife *l, uint64_t now, uint64_t min_ms, uint64_t max_ms);

/* Somebody looked at the key, and it has between min_ms and max_ms left: what does that tell? */
enum keylife_news {
	KEYLIFE_SAME,
	KEYLIFE_MOVED,   /* its end is another one now: as if it was given again */
	KEYLIFE_CLEARED, /* it had an end, and has none any more: nothing is changed, the caller decides */
};
enum keylife_news keylife_seen(struct keylife *l, uint64_t now, uint64_t min_ms, uint64_t max_ms);

/* The source did not give it. random spreads those who failed together. */
void keylife_failed(struct keylife *l, uint64_t now, uint32_t random);

/* The key has ended before its time (revoked), or at it. Its source is asked again, unless that is never. */
void keylife_lost(struct keylife *l, uint64_t now);

/* There is no key any more, and nobody wants it. */
void keylife_over(struct keylife *l);

/* What is to be done now; KEYLIFE_EXPIRED comes until keylife_lost() or a new life. */
enum keylife_due { KEYLIFE_NOTHING, KEYLIFE_ASK, KEYLIFE_EXPIRED };
enum keylife_due keylife_due(const struct keylife *l, uint64_t now);

/* When that will change, 0: never. */
uint64_t keylife_wake(const struct keylife *l);

#endif
