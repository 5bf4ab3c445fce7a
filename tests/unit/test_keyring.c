/* SPDX-License-Identifier: MIT */
/* Uses the kernel's keyrings for real. Each test starts in a session keyring of its own. */
#include <errno.h>
#include <keyutils.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "keyring.h"
#include "unit.h"
#include "util.h"

enum { UID_NOBODY = 65534, UID_QUOTA = 64321 };

static int session(void **state)
{
	return keyctl_join_session_keyring(NULL) < 0 ? -1 : 0;
}

static int32_t put(int32_t ring, const char *type, const char *desc, const char *payload)
{
	int32_t key = add_key(type, desc, payload, payload ? strlen(payload) : 0, ring);

	assert_true(key > 0);
	return key;
}

static int in_child(int (*run)(void *arg), void *arg)
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(run(arg));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void check_read(const struct keyring *ring, const char *type, const char *desc, const char *payload,
		       const char *where)
{
	struct secret *s = NULL;
	const char *found = "untouched";

	assert_int_equal(keyring_read(ring, type, desc, SECRET_MAX, &s, &found), 0);
	assert_int_equal(secret_size(s), strlen(payload));
	assert_memory_equal(secret_data(s), payload, strlen(payload));
	assert_string_equal(found, where);
	secret_free(s);
}

static void check_no_read(const struct keyring *ring, const char *type, const char *desc, int code)
{
	struct secret *s = NULL;
	const char *found = "untouched";

	assert_int_equal(keyring_read(ring, type, desc, SECRET_MAX, &s, &found), code);
	assert_null(s);
	assert_string_equal(found, "untouched");
}

struct stranger {
	int32_t ring, key;
};

/* Another process of the same user, in another session, can do nothing with either. Which call succeeded, or
 * 0. */
static int stranger_tries(void *arg)
{
	const struct stranger *s = arg;
	char buf[64];

	if (keyctl_join_session_keyring(NULL) < 0)
		return 1;
	if (keyctl_read(s->key, buf, sizeof(buf)) >= 0 || errno != EACCES)
		return 2;
	if (keyctl_search(s->ring, "user", "ckrfs-test", 0) >= 0 || errno != EACCES)
		return 3;
	if (keyctl_read(s->ring, buf, sizeof(buf)) >= 0 || errno != EACCES)
		return 4;
	if (keyctl_describe(s->ring, buf, sizeof(buf)) >= 0 || errno != EACCES)
		return 5;
	if (keyctl_link(s->ring, KEY_SPEC_SESSION_KEYRING) >= 0 || errno != EACCES)
		return 6;
	if (keyctl_setperm(s->ring, 0x3f3f3f3f) >= 0 || errno != EACCES)
		return 7;
	if (keyctl_revoke(s->ring) >= 0 || errno != EACCES)
		return 8;
	return keyctl_join_session_keyring("_ses") == s->ring ? 9 : 0;
}

static void only_possessors_reach_it(void **state)
{
	struct keyring ring = {0};
	struct stranger stranger;
	char description[100] = "", want[100];

	assert_int_equal(keyring_open(&ring, 0, false, NULL), 0);
	assert_int_equal(ring.manager, 0);
	assert_int_equal(keyctl_get_keyring_ID(KEY_SPEC_SESSION_KEYRING, 0), ring.mount);
	stranger.ring = ring.mount;
	stranger.key = put(ring.mount, "user", "ckrfs-test", "payload");
	keyctl_describe(ring.mount, description, sizeof(description));
	snprintf(want, sizeof(want), "keyring;%u;%u;3f000000;_ses", geteuid(), getegid());
	assert_string_equal(description, want);
	check_read(&ring, "user", "ckrfs-test", "payload", "mount");
	assert_int_equal(in_child(stranger_tries, &stranger), 0);
	keyring_close(&ring);
}

static void search_order(void **state)
{
	for (int first = 0; first < 2; first++) {
		struct keyring ring = {0};

		assert_int_equal(session(NULL), 0);
		put(KEY_SPEC_SESSION_KEYRING, "user", "both", "manager's");
		put(KEY_SPEC_SESSION_KEYRING, "user", "only-manager", "m");
		assert_int_equal(keyring_open(&ring, KEYRING_INHERIT, first, NULL), 0);
		assert_true(ring.manager > 0 && ring.manager != ring.mount);
		put(ring.mount, "user", "both", "mount's");
		put(ring.mount, "user", "only-mount", "c");
		check_read(&ring, "user", "both", first ? "manager's" : "mount's",
			   first ? "manager" : "mount");
		check_read(&ring, "user", "only-manager", "m", "manager");
		check_read(&ring, "user", "only-mount", "c", "mount");
		check_no_read(&ring, "user", "neither", -ENOKEY);
		/* the manager updates its key: the mount sees that at once */
		put(ring.manager, "user", "only-manager", "newer");
		check_read(&ring, "user", "only-manager", "newer", "manager");
		keyring_close(&ring);
	}
}

static void clearing_keeps_the_manager(void **state)
{
	for (int with_manager = 0; with_manager < 2; with_manager++) {
		struct keyring ring = {0};

		assert_int_equal(session(NULL), 0);
		put(KEY_SPEC_SESSION_KEYRING, "user", "inside", "manager's");
		assert_int_equal(keyring_open(&ring, with_manager ? KEYRING_INHERIT : 0, false, NULL), 0);
		put(ring.mount, "user", "own", "mount's");
		for (int i = 0; i < 2; i++) {
			assert_int_equal(keyring_clear(&ring), 0);
			check_no_read(&ring, "user", "own", -ENOKEY);
			if (with_manager)
				check_read(&ring, "user", "inside", "manager's", "manager");
		}
		assert_int_equal(keyctl_search(KEY_SPEC_THREAD_KEYRING, "user", "inside", 0), -1);
		keyring_close(&ring);
	}
}

static void manager_by_serial(void **state)
{
	int32_t manager = put(KEY_SPEC_SESSION_KEYRING, "keyring", "ckrfs-test-manager", NULL);
	struct keyring ring = {0};

	put(KEY_SPEC_SESSION_KEYRING, "user", "beside", "not handed over");
	put(manager, "user", "inside", "handed over");
	assert_int_equal(keyring_open(&ring, manager, true, NULL), 0);
	assert_int_equal(ring.manager, manager);
	check_read(&ring, "user", "inside", "handed over", "manager");
	check_no_read(&ring, "user", "beside", -ENOKEY);
	/* no second way to it stays behind */
	assert_int_equal(keyctl_unlink(manager, ring.mount), 0);
	assert_int_equal(keyctl_search(KEY_SPEC_THREAD_KEYRING, "user", "inside", 0), -1);
	keyring_close(&ring);
}

static void check_open_fails(int32_t manager, int code, const char *fmt, bool hint)
{
	struct keyring ring = {.mount = 77};
	struct error err = ERROR_NONE;
	char want[200], want_hint[100] = "";
	int32_t before = keyctl_get_keyring_ID(KEY_SPEC_SESSION_KEYRING, 0);

	/* the formats are those of the table below */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(want, sizeof(want), fmt, manager, geteuid());
#pragma GCC diagnostic pop
	if (hint)
		snprintf(want_hint, sizeof(want_hint), "keyctl setperm %d 0x3f1b0000", manager);
	assert_int_equal(keyring_open(&ring, manager, false, &err), code);
	assert_string_equal(err.text, want);
	assert_string_equal(err.hint, want_hint);
	assert_int_equal(err.status, EXIT_STATUS_NO_KEY);
	assert_int_equal(ring.mount, 77);
	assert_int_equal(keyctl_get_keyring_ID(KEY_SPEC_SESSION_KEYRING, 0), before);
}

static void manager_refused(void **state)
{
	const unsigned others = KEY_POS_ALL & ~KEY_POS_SEARCH;
	int32_t ring = put(KEY_SPEC_SESSION_KEYRING, "keyring", "ckrfs-test-manager", NULL);
	int32_t key = put(KEY_SPEC_SESSION_KEYRING, "user", "ckrfs-test", "x"), gone;

	check_open_fails(key, -ENOTDIR, "key %d is not a keyring", false);
	assert_int_equal(keyctl_setperm(ring, KEY_POS_ALL & ~KEY_POS_LINK), 0);
	check_open_fails(ring, -EACCES, "keyring %d does not grant Link to uid %u", true);
	assert_int_equal(keyctl_setperm(ring, others | KEY_USR_LINK | KEY_USR_SETATTR), 0);
	check_open_fails(ring, -EACCES, "keyring %d does not grant Search to uid %u", true);
	/* the command of the hint helps */
	assert_int_equal(keyctl_setperm(ring, 0x3f1b0000), 0);
	assert_int_equal(keyctl_revoke(ring), 0);
	check_open_fails(ring, -EKEYREVOKED, "keyring %d was revoked", false);
	gone = put(KEY_SPEC_SESSION_KEYRING, "keyring", "ckrfs-test-gone", NULL);
	assert_int_equal(keyctl_set_timeout(gone, 1), 0);
	nanosleep(&(struct timespec){.tv_sec = 1, .tv_nsec = 300000000}, NULL);
	check_open_fails(gone, -EKEYEXPIRED, "keyring %d has expired", false);
	check_open_fails(1, -ENOKEY, "there is no keyring %d", false);
}

/* Its Search was withdrawn while mounted: that is not "no such key". */
static void manager_closes_up(void **state)
{
	int32_t manager = put(KEY_SPEC_SESSION_KEYRING, "keyring", "ckrfs-test-manager", NULL);
	struct keyring ring = {0};

	put(manager, "user", "inside", "x");
	assert_int_equal(keyring_open(&ring, manager, true, NULL), 0);
	assert_int_equal(keyctl_setperm(manager, KEY_USR_ALL & ~KEY_USR_SEARCH), 0);
	check_no_read(&ring, "user", "inside", -EACCES);
	keyring_close(&ring);
}

static void states_of_a_key(void **state)
{
	struct keyring ring = {0};
	struct secret *s = NULL;
	int32_t key;

	assert_int_equal(keyring_open(&ring, 0, false, NULL), 0);
	key = put(ring.mount, "user", "expired", "x");
	assert_int_equal(keyctl_set_timeout(key, 1), 0);
	key = put(ring.mount, "user", "revoked", "x");
	assert_int_equal(keyctl_revoke(key), 0);
	check_no_read(&ring, "user", "revoked", -EKEYREVOKED);
	key = put(ring.mount, "user", "unlinked", "x");
	assert_int_equal(keyctl_unlink(key, ring.mount), 0);
	check_no_read(&ring, "user", "unlinked", -ENOKEY);
	key = put(ring.mount, "user", "denied", "x");
	assert_int_equal(keyctl_setperm(key, KEY_POS_ALL & ~KEY_POS_SEARCH), 0);
	check_no_read(&ring, "user", "denied", -EACCES);
	put(ring.mount, "logon", "ckrfs:logon", "x");
	check_no_read(&ring, "logon", "ckrfs:logon", -EOPNOTSUPP);
	check_no_read(&ring, "nosuchtype", "x", -ENOKEY);
	put(ring.mount, "user", "long", "12345");
	assert_int_equal(keyring_read(&ring, "user", "long", 4, &s, NULL), -EMSGSIZE);
	assert_int_equal(keyring_read(&ring, "user", "long", 5, &s, NULL), 0);
	secret_free(s);
	nanosleep(&(struct timespec){.tv_sec = 1, .tv_nsec = 300000000}, NULL);
	check_no_read(&ring, "user", "expired", -EKEYEXPIRED);
	keyring_close(&ring);
}

/* The digest is the same for the same contents, and for nothing else; contents do not stay. */
static void looking(void **state)
{
	static char large[32000], other[] = "other contents";
	struct keyring ring = {0};
	struct keyring_sight first, sight, untouched = {.serial = 7};
	struct secret *room = NULL;
	int32_t key;

	assert_int_equal(keyring_open(&ring, 0, false, NULL), 0);
	assert_int_equal(keyring_look(&ring, "user", "looked-at", &room, &untouched), -ENOKEY);
	assert_int_equal(untouched.serial, 7);
	key = put(ring.mount, "user", "looked-at", "contents");
	assert_int_equal(keyring_look(&ring, "user", "looked-at", &room, &first), 0);
	assert_int_equal(first.serial, key);
	assert_null(memmem(secret_data(room), secret_size(room), "contents", 8));
	assert_int_equal(keyring_look(&ring, "user", "looked-at", &room, &sight), 0);
	assert_memory_equal(&first, &sight, sizeof(first));
	put(ring.mount, "user", "looked-at", other);
	assert_int_equal(keyring_look(&ring, "user", "looked-at", &room, &sight), 0);
	assert_int_equal(sight.serial, key);
	assert_memory_not_equal(first.digest, sight.digest, sizeof(first.digest));
	/* It grows, and what it was before is still known. */
	memset(large, 'x', sizeof(large));
	assert_int_equal(add_key("user", "looked-at", large, sizeof(large), ring.mount), key);
	assert_int_equal(keyring_look(&ring, "user", "looked-at", &room, &sight), 0);
	assert_null(memmem(secret_data(room), secret_size(room), "xxxxxxxx", 8));
	put(ring.mount, "user", "looked-at", "contents");
	assert_int_equal(keyring_look(&ring, "user", "looked-at", &room, &sight), 0);
	assert_memory_equal(&first, &sight, sizeof(first));
	/* With another salt it is another one: it tells nothing to who has only the digest. */
	secret_free(room);
	room = NULL;
	assert_int_equal(keyring_look(&ring, "user", "looked-at", &room, &sight), 0);
	assert_memory_not_equal(first.digest, sight.digest, sizeof(first.digest));
	assert_int_equal(keyctl_revoke(key), 0);
	assert_int_equal(keyring_look(&ring, "user", "looked-at", &room, &sight), -EKEYREVOKED);
	secret_free(room);
	keyring_close(&ring);
}

static void time_left(void **state)
{
	static const struct {
		unsigned seconds;
		uint64_t min, max; /* seconds */
	} cases[] = {{50, 49, 51},
		     {150, 120, 180},
		     {7300, 7200, 10800},
		     {200000, 172800, 259200},
		     {1300000, 1209600, 1814400}};
	struct keyring ring = {0};
	uint64_t min = 0, max = 0;
	int32_t key;

	assert_int_equal(keyring_open(&ring, 0, false, NULL), 0);
	key = put(ring.mount, "user", "timed", "x");
	assert_int_equal(keyring_left(key, &min, &max), 0);
	assert_true(min == UINT64_MAX && max == UINT64_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(keyring_set_timeout(key, cases[i].seconds * UINT64_C(1000)), 0);
		assert_int_equal(keyring_left(key, &min, &max), 0);
		assert_in_range(min, cases[i].min * 1000, cases[i].seconds * 1000);
		assert_in_range(max, cases[i].seconds * 1000 - 1000, cases[i].max * 1000);
	}
	/* Not less than was asked for. */
	assert_int_equal(keyring_set_timeout(key, 1), 0);
	assert_int_equal(keyring_left(key, &min, &max), 0);
	assert_int_equal(min, 1000);
	assert_int_equal(keyctl_setperm(key, KEY_POS_SEARCH), 0);
	assert_int_equal(keyring_left(key, &min, &max), -ENOENT);
	assert_int_equal(keyring_set_timeout(key, 1000), -EACCES);
	keyring_close(&ring);
}

/* Only what is linked into the manager's ring itself is watched; it is all closed where it cannot be. */
static void watching(void **state)
{
	struct keyring ring = {0};
	struct keyring_watch watch = KEYRING_WATCH_NONE;
	int32_t key = put(KEY_SPEC_SESSION_KEYRING, "user", "watched", "x"), own;
	int before = dup(0), after, r;

	assert_int_equal(keyring_open(&ring, KEYRING_INHERIT, true, NULL), 0);
	own = put(ring.mount, "user", "own", "x");
	assert_int_equal(keyring_watch_open(&ring, own, &watch), -EOPNOTSUPP);
	r = keyring_watch_open(&ring, key, &watch);
	if (r == 0) {
		struct pollfd p = {.fd = watch.fd, .events = POLLIN};

		assert_int_equal(poll(&p, 1, 0), 0);
		assert_int_equal(keyctl_update(key, "y", 1), 0);
		assert_int_equal(poll(&p, 1, 10000), 1);
		assert_true(keyring_watch_read(&watch));
		assert_int_equal(poll(&p, 1, 0), 0);
	}
	keyring_watch_close(&watch);
	assert_int_equal(watch.fd, -1);
	after = dup(0);
	assert_int_equal(after, before + 1);
	close(before);
	close(after);
	keyring_close(&ring);
}

static void closing(void **state)
{
	int32_t manager = put(KEY_SPEC_SESSION_KEYRING, "keyring", "ckrfs-test-manager", NULL), key;
	struct keyring ring = {0};
	char buf[8];

	assert_int_equal(keyctl_link(manager, KEY_SPEC_PROCESS_KEYRING), 0);
	put(manager, "user", "inside", "stays");
	assert_int_equal(keyring_open(&ring, manager, false, NULL), 0);
	key = put(ring.mount, "user", "own", "goes");
	keyring_close(&ring);
	assert_int_equal(ring.mount, 0);
	assert_true(keyctl_read(key, buf, sizeof(buf)) < 0);
	assert_true(keyctl_search(KEY_SPEC_SESSION_KEYRING, "user", "own", 0) < 0);
	assert_int_equal(errno, EKEYREVOKED);
	assert_true(keyctl_search(manager, "user", "inside", 0) > 0);
	check_no_read(&ring, "user", "own", -ENOKEY);
	keyring_close(&ring);
	keyctl_unlink(manager, KEY_SPEC_PROCESS_KEYRING);
}

static int child_keeps(void *arg)
{
	struct secret *s = NULL;

	return keyring_read(arg, "user", "own", SECRET_MAX, &s, NULL) == 0 ? 0 : 1;
}

static int child_leaves(void *arg)
{
	struct secret *s = NULL;

	if (keyring_leave() < 0)
		return 1;
	if (keyctl_search(KEY_SPEC_SESSION_KEYRING, "user", "own", 0) >= 0 || errno != ENOKEY)
		return 2;
	return keyring_read(arg, "user", "own", SECRET_MAX, &s, NULL) == -EACCES ? 0 : 3;
}

static void forked_children(void **state)
{
	struct keyring ring = {0};

	assert_int_equal(keyring_open(&ring, 0, false, NULL), 0);
	put(ring.mount, "user", "own", "x");
	assert_int_equal(in_child(child_keeps, &ring), 0);
	assert_int_equal(in_child(child_leaves, &ring), 0);
	keyring_close(&ring);
}

static int unprivileged(void *arg)
{
	struct keyring ring = {0};
	struct secret *s = NULL;

	if (setuid(UID_NOBODY) < 0 || keyctl_join_session_keyring(NULL) < 0)
		return 1;
	if (add_key("user", "ckrfs-test", "abc", 3, KEY_SPEC_SESSION_KEYRING) < 0)
		return 2;
	if (keyring_open(&ring, KEYRING_INHERIT, true, NULL) < 0)
		return 3;
	if (keyring_read(&ring, "user", "ckrfs-test", 100, &s, NULL) < 0 || secret_size(s) != 3)
		return 4;
	secret_free(s);
	keyring_close(&ring);
	return 0;
}

static int quota_used_up(void *arg)
{
	struct keyring ring = {0};
	struct error err = ERROR_NONE;
	char desc[32], want[100];

	if (setuid(UID_QUOTA) < 0 || keyctl_join_session_keyring(NULL) < 0)
		return 1;
	for (int i = 0; i < 1000; i++) {
		snprintf(desc, sizeof(desc), "ckrfs-test-%d", i);
		if (add_key("user", desc, "x", 1, KEY_SPEC_SESSION_KEYRING) < 0)
			break;
	}
	for (int i = 0; i < 100 && keyring_open(&ring, 0, false, &err) == 0; i++)
		;
	snprintf(want, sizeof(want), "the key quota of uid %d is used up", UID_QUOTA);
	return err.code == -EDQUOT && !strcmp(err.text, want) ? 0 : 2;
}

static void without_privileges(void **state)
{
	if (geteuid() != 0) {
		assert_null(getenv("CKRFS_MUST_WORK"));
		skip();
	}
	assert_int_equal(in_child(unprivileged, NULL), 0);
	assert_int_equal(in_child(quota_used_up, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(only_possessors_reach_it, session),
		cmocka_unit_test_setup(search_order, session),
		cmocka_unit_test_setup(manager_by_serial, session),
		cmocka_unit_test_setup(clearing_keeps_the_manager, session),
		cmocka_unit_test_setup(manager_refused, session),
		cmocka_unit_test_setup(manager_closes_up, session),
		cmocka_unit_test_setup(states_of_a_key, session),
		cmocka_unit_test_setup(looking, session),
		cmocka_unit_test_setup(time_left, session),
		cmocka_unit_test_setup(watching, session),
		cmocka_unit_test_setup(closing, session),
		cmocka_unit_test_setup(forked_children, session),
		cmocka_unit_test_setup(without_privileges, session),
	};

	return cmocka_run_group_tests_name("keyring", tests, NULL, NULL);
}
