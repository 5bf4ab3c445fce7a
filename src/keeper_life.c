/* SPDX-License-Identifier: MIT */
#include "keeper_life.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "crypto.h"
#include "log.h"
#include "notify.h"
#include "util.h"

/*
 * How often a key is looked at that nobody tells about, or that the kernel does; how soon one that is missing
 * is looked for again, as it may just be being exchanged; how rarely and how often its times are looked at,
 * for which the kernel goes through all keys.
 */
enum {
	LOOK_MS = 500,
	LOOK_WATCHED_MS = 30000,
	LOOK_MISSING_MS = 200,
	TIMES_MIN_MS = 500,
	TIMES_MAX_MS = 10000
};
enum { LOCK_AGAIN_MS = 5000 };
/* How long before the end of a lower's key the mount is locked: a sixth of what it lives, at most this. */
enum { STORE_PART = 6, STORE_MS = 60000 };
/* timerfd_settime(2) takes no time that does not fit. */
#define TIMER_MAX_MS (UINT64_C(365) * 86400 * 1000)

static bool is_served(const struct keeper_life *l)
{
	return l->m->state == MOUNT_UNLOCKED || (l->m->state == MOUNT_LOCKED && l->waiting);
}

/* ---- when ---- */

static uint64_t sooner(uint64_t a, uint64_t b)
{
	return !a || (b && b < a) ? b : a;
}

static void arm(struct keeper_life *l)
{
	uint64_t now = boottime_ms();
	uint64_t at = sooner(sooner(l->look, l->lock_again), keylife_wake(&l->life));
	struct itimerspec t = {0};

	/* While something is under way there is nothing to be done; keeper_life_done() comes back. */
	if (at && l->source && is_served(l) && l->lock->step == KEEPER_LOCK_IDLE) {
		at = min_u64(max_u64(at, now + 1), now + TIMER_MAX_MS);
		t.it_value.tv_sec = (time_t)(at / 1000);
		t.it_value.tv_nsec = (long)(at % 1000) * 1000000;
	}
	timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &t, NULL);
}

/* ---- what is told ---- */

static void set_degraded(struct keeper_life *l, bool degraded)
{
	struct mount *m = l->m;

	if (m->state != MOUNT_UNLOCKED || m->degraded == degraded)
		return;
	m->degraded = degraded;
	m->since = time(NULL);
	if (degraded)
		notify_send("STATUS=mounted on %s, but: %s", m->config->target, l->last_error);
	else
		notify_send("STATUS=mounted on %s", m->config->target);
	log_msg(LOG_LEVEL_INFO, "\"%s\" is %s", m->config->name,
		degraded ? "degraded" : "no longer degraded");
}

static void note(struct keeper_life *l, const char *words)
{
	if (strcmp(l->last_error, words) != 0)
		log_msg(LOG_LEVEL_WARNING, "key of \"%s\": %s [CK110]", l->m->config->name, words);
	snprintf(l->last_error, sizeof(l->last_error), "%s", words);
}

static void trouble(struct keeper_life *l, const char *words)
{
	note(l, words);
	set_degraded(l, true);
}

static void failed(struct keeper_life *l, const char *words)
{
	uint32_t random = 0;

	l->failures++;
	crypto_random(&random, sizeof(random)); /* without, they only come together */
	keylife_failed(&l->life, boottime_ms(), random);
	trouble(l, words);
}

static void fine(struct keeper_life *l)
{
	l->last_error[0] = '\0';
	set_degraded(l, false);
}

/* ---- looking at the key ---- */

static bool same_sight(const struct keyring_sight *a, const struct keyring_sight *b)
{
	return a->serial == b->serial && crypto_equal(a->digest, b->digest, sizeof(a->digest));
}

static void watch(struct keeper_life *l)
{
	keyring_watch_close(&l->watch);
	/* Where it cannot be had, it is looked at more often. */
	keyring_watch_open(&l->m->ring, l->had.serial, &l->watch);
}

/* A manager who updates a key loses its timeout, and may not know: the life that the key had is given again.
 */
static void arm_again(struct keeper_life *l, uint64_t now)
{
	uint64_t span = l->life.span;
	int r = keyring_set_timeout(l->had.serial, span);

	if (r == 0) {
		keylife_given(&l->life, now, span, span);
		log_msg(LOG_LEVEL_INFO, "the key of \"%s\" was updated: its timeout is set again",
			l->m->config->name);
	} else {
		keylife_given(&l->life, now, KEYLIFE_FOREVER, KEYLIFE_FOREVER);
		log_msg(LOG_LEVEL_WARNING,
			"the key of \"%s\" was updated, and its timeout cannot be set again: %s [CK111]",
			l->m->config->name, strerror(-r));
	}
	fine(l);
}

static void look_at_times(struct keeper_life *l, uint64_t now)
{
	uint64_t least, most, next;

	if (keyring_left(l->had.serial, &least, &most) < 0) {
		l->look_at_times = now + TIMES_MAX_MS;
		return;
	}
	switch (keylife_seen(&l->life, now, least, most)) {
	case KEYLIFE_MOVED:
		fine(l);
		break;
	case KEYLIFE_CLEARED:
		arm_again(l, now);
		break;
	case KEYLIFE_SAME:
		break;
	}
	next = l->life.expires > now ? (l->life.expires - now) / 8 : TIMES_MAX_MS;
	l->look_at_times = now + max_u64(TIMES_MIN_MS, min_u64(next, TIMES_MAX_MS));
}

/* The same contents in another key: it was exchanged, and lives as long as that one does. */
static void exchanged(struct keeper_life *l, const struct keyring_sight *sight, uint64_t now)
{
	l->had = *sight;
	watch(l);
	look_at_times(l, now);
}

/* ---- what follows ---- */

static void begin(struct keeper_life *l, enum message_command command)
{
	static const int refusals[] = {[CONFIG_EXPIRE_EIO] = EIO, [CONFIG_EXPIRE_LOCK] = ENOKEY};
	int r = keeper_lock_begin_automatic(l->lock, command,
					    command == MESSAGE_LOCK ? refusals[l->m->config->on_expire] : 0);

	if (r < 0)
		failed(l, strerror(-r));
}

static void lock_now(struct keeper_life *l)
{
	l->lock_again = 0;
	l->waiting = true;
	begin(l, MESSAGE_LOCK);
}

static void ended(struct keeper_life *l, const char *words)
{
	keylife_lost(&l->life, boottime_ms());
	note(l, words);
	if (l->m->config->on_expire == CONFIG_EXPIRE_KEEP)
		set_degraded(l, true);
	else
		lock_now(l);
}

/* Whoever exchanges a key may unlink it first. */
static void missing(struct keeper_life *l, const struct error *err, uint64_t now)
{
	if (l->missing || l->life.expired) {
		l->look = now + LOOK_MS;
		if (!l->life.expired)
			ended(l, err->text);
	} else {
		l->look = now + LOOK_MISSING_MS;
	}
	l->missing = true;
}

static void not_seen(struct keeper_life *l, int code, const struct error *err, uint64_t now)
{
	/* What comes next is something new. */
	l->tried = (struct keyring_sight){0};
	switch (code) {
	case -ENOKEY:
		missing(l, err, now);
		break;
	case -EKEYREVOKED:
	case -EKEYEXPIRED:
	case -EACCES:
		if (!l->life.expired)
			ended(l, err->text);
		break;
	default:
		trouble(l, err->text);
	}
}

/* The wrong key has gone again, and what the mount has is fine unless the next one is wrong too. */
static void put_right(struct keeper_life *l, uint64_t now)
{
	l->tried = (struct keyring_sight){0};
	l->look_at_times = 0;
	if (!l->life.told)
		keylife_given(&l->life, now, KEYLIFE_FOREVER, KEYLIFE_FOREVER);
	fine(l);
}

static void seen(struct keeper_life *l, const struct keyring_sight *sight, uint64_t now)
{
	l->missing = false;
	if (same_sight(sight, &l->tried))
		return;
	if (l->tried.serial && !l->life.expired)
		put_right(l, now);
	if (l->life.expired || !crypto_equal(sight->digest, l->had.digest, sizeof(sight->digest))) {
		l->tried = *sight;
		begin(l, l->m->state == MOUNT_LOCKED ? MESSAGE_UNLOCK : MESSAGE_REFRESH);
	} else if (sight->serial != l->had.serial) {
		exchanged(l, sight, now);
	} else if (now >= l->look_at_times) {
		look_at_times(l, now);
	}
}

static void look(struct keeper_life *l, uint64_t now)
{
	struct keysource_env env = mount_key_env(l->m);
	struct keyring_sight sight;
	struct error err = ERROR_NONE;
	int r = keysource_look(l->source, &env, &l->room, &sight, &err);

	l->look = now + (l->watch.fd < 0 ? LOOK_MS : LOOK_WATCHED_MS);
	if (r < 0)
		not_seen(l, r, &err, now);
	else
		seen(l, &sight, now);
}

/* The source of a key that is looked at all the time is asked by looking: has its end moved? */
static void ask_by_looking(struct keeper_life *l, uint64_t now)
{
	char words[sizeof(l->last_error)];

	if (l->tried.serial) {
		/* Once more: it may have been the volume that failed. */
		l->tried = (struct keyring_sight){0};
		l->life.next = 0;
		l->look = now;
	} else if (l->life.expired) {
		l->life.next = 0; /* it will be seen when it is there */
	} else if (!l->life.told) {
		keylife_given(&l->life, now, KEYLIFE_FOREVER, KEYLIFE_FOREVER);
	} else {
		snprintf(words, sizeof(words), "%s has not been renewed, and will expire",
			 keysource_spec(l->source));
		failed(l, words);
	}
}

static void ask(struct keeper_life *l, uint64_t now)
{
	if (keysource_can_look(l->source))
		ask_by_looking(l, now);
	else
		begin(l, l->m->state == MOUNT_LOCKED ? MESSAGE_UNLOCK : MESSAGE_REFRESH);
}

static void expired(struct keeper_life *l, uint64_t now)
{
	char words[sizeof(l->last_error)];

	/* It may have been renewed at the last moment. */
	if (l->look) {
		l->look_at_times = 0;
		look(l, now);
	}
	if (l->lock->step != KEEPER_LOCK_IDLE || keylife_due(&l->life, now) != KEYLIFE_EXPIRED)
		return;
	snprintf(words, sizeof(words), "the key in %s has expired", keysource_spec(l->source));
	ended(l, words);
}

static void run(struct keeper_life *l, uint64_t now)
{
	if (l->look && now >= l->look)
		look(l, now);
	if (l->lock->step != KEEPER_LOCK_IDLE)
		return;
	if (l->lock_again && now >= l->lock_again) {
		lock_now(l);
		return;
	}
	switch (keylife_due(&l->life, now)) {
	case KEYLIFE_EXPIRED:
		expired(l, now);
		break;
	case KEYLIFE_ASK:
		ask(l, now);
		break;
	case KEYLIFE_NOTHING:
		break;
	}
}

void keeper_life_event(struct keeper_life *l)
{
	uint64_t ticks;

	if (read(l->timer_fd, &ticks, sizeof(ticks)) < 0 && errno != EAGAIN)
		return;
	if (l->watch.fd >= 0 && keyring_watch_read(&l->watch) && l->look) {
		l->look = 1;
		l->look_at_times = 0;
	}
	if (l->source && is_served(l) && l->lock->step == KEEPER_LOCK_IDLE)
		run(l, boottime_ms());
	arm(l);
}

/* ---- beginnings and ends ---- */

static void forget(struct keeper_life *l)
{
	keylife_over(&l->life);
	keyring_watch_close(&l->watch);
	explicit_bzero(&l->had, sizeof(l->had));
	explicit_bzero(&l->tried, sizeof(l->tried));
	secret_free(steal_ptr(&l->room));
	l->look = 0;
	l->lock_again = 0;
	l->missing = false;
	l->waiting = false;
}

/* A lower's key that ends by itself: until then what is dirty has to be stored. */
static uint64_t lower_life(const struct mount *m)
{
	uint64_t left = lower_key_left_ms(m->lower);

	if (left == KEYLIFE_FOREVER)
		return left;
	atomic_store(&m->stats->lower_expires, (int64_t)time(NULL) + (int64_t)(left / 1000));
	return left - min_u64(left / STORE_PART, STORE_MS);
}

/* Where the key comes from that has a life: of two, the lower's. */
static const char *followed(const struct mount *m)
{
	return lower_renews(m->lower) && m->config->lower_key ? m->config->lower_key : m->key_spec;
}

/* The mount has the key. */
static int given(struct keeper_life *l, struct error *err)
{
	uint64_t now = boottime_ms(), least = lower_life(l->m), most = least;
	const char *spec = followed(l->m);
	struct keysource_env env = mount_key_env(l->m);
	struct keysource *source = NULL;
	int r = spec ? keysource_parse(spec, &source, err) : 0;

	if (r < 0)
		return r;
	keysource_free(l->source);
	l->source = source;
	l->waiting = false;
	l->lock_again = 0;
	l->tried = (struct keyring_sight){0};
	fine(l);
	if (!source)
		return 0;
	if (keysource_can_look(source)) {
		l->look = now + LOOK_MS;
		if (keysource_look(source, &env, &l->room, &l->had, NULL) == 0) {
			watch(l);
			if (least == KEYLIFE_FOREVER)
				keyring_left(l->had.serial, &least, &most);
		}
	}
	keylife_given(&l->life, now, least, most);
	return 0;
}

static void given_again(struct keeper_life *l)
{
	struct error err = ERROR_NONE;

	if (given(l, &err) < 0)
		trouble(l, err.text);
}

static void renewed(struct keeper_life *l, enum message_command command)
{
	l->refreshes += l->lock->automatic || command == MESSAGE_REFRESH;
	given_again(l);
}

int keeper_life_open(struct keeper_life *l, struct mount *m, struct keeper_lock *lock, struct error *err)
{
	int r;

	l->m = m;
	l->lock = lock;
	l->life.default_ms = m->config->key_lifetime_ms;
	l->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (l->timer_fd < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot make a timer");
	r = keylife_parse(m->config->refresh, &l->life); /* config_table.c has checked it */
	if (r == 0)
		r = given(l, err);
	arm(l);
	return r;
}

void keeper_life_close(struct keeper_life *l)
{
	forget(l);
	cleanup_close(&l->timer_fd);
	l->timer_fd = -1;
	keysource_free(steal_ptr(&l->source));
}

void keeper_life_hold(struct keeper_life *l)
{
	forget(l);
	l->last_error[0] = '\0';
	arm(l);
}

static void lock_done(struct keeper_life *l, const struct error *err)
{
	if (l->m->state == MOUNT_LOCKED) {
		if (!l->lock->automatic)
			l->last_error[0] = '\0';
		if (!l->lock->automatic || l->life.refresh == KEYLIFE_NEVER)
			forget(l);
		if (l->waiting)
			notify_send("STATUS=locked: %s", l->last_error);
		/* From what is kept of the key one could tell whether a guess is right. */
		explicit_bzero(l->had.digest, sizeof(l->had.digest));
	} else if (l->lock->automatic && err->code < 0) {
		l->lock_again = boottime_ms() + LOCK_AGAIN_MS;
		l->waiting = false;
		trouble(l, err->text);
	}
}

/* What is there instead of the key that the mount has is another key, and a wrong one: the manager has taken
 * the right one away. An update of the same key may be a slip. */
static bool is_taken_away(const struct keeper_life *l, const struct error *err)
{
	return err->status == EXIT_STATUS_WRONG_KEY && !l->life.expired && l->tried.serial &&
	       l->tried.serial != l->had.serial;
}

static void taken_away(struct keeper_life *l, const struct error *err)
{
	keylife_lost(&l->life, boottime_ms());
	note(l, err->text);
	if (l->m->config->on_expire == CONFIG_EXPIRE_KEEP)
		set_degraded(l, true);
	else
		l->lock_again = boottime_ms(); /* whoever tells us has not ended yet */
}

void keeper_life_done(struct keeper_life *l, enum message_command command, const struct error *err)
{
	if (command == MESSAGE_LOCK)
		lock_done(l, err);
	else if (err->code == 0)
		renewed(l, command);
	else if (command == MESSAGE_REFRESH && is_taken_away(l, err))
		taken_away(l, err);
	else if (err->code != -ECANCELED && (l->lock->automatic || command == MESSAGE_REFRESH))
		failed(l, err->text);
	l->look = l->look ? boottime_ms() + LOOK_MISSING_MS : 0;
	arm(l);
}

/* Seconds since 1970, by milliseconds: whoever asks twice is told the same. */
static int64_t real_time(uint64_t at, uint64_t now)
{
	return at ? ((int64_t)realtime_ms() + (int64_t)at - (int64_t)now) / 1000 : 0;
}

void keeper_life_look(struct keeper_life *l)
{
	if (!l->look || !is_served(l) || l->lock->step != KEEPER_LOCK_IDLE)
		return;
	l->look_at_times = 0;
	look(l, boottime_ms());
	arm(l);
}

void keeper_life_status(const struct keeper_life *l, struct message_status *s)
{
	uint64_t now = boottime_ms();

	s->expires = real_time(l->life.expires, now);
	s->next_refresh = real_time(l->life.next, now);
	s->refreshes = l->refreshes;
	s->refresh_failures = l->failures;
	snprintf(s->last_error, sizeof(s->last_error), "%s", l->last_error);
	snprintf(s->key_watch, sizeof(s->key_watch), "%s",
		 !l->look          ? "-"
		 : l->watch.fd < 0 ? "poll"
				   : "kernel");
}
