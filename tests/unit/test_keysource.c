/* SPDX-License-Identifier: MIT */
/* Every way in which a key source fails, with its words compared whole; real files, sockets, programs and
 * keys. */
#include <errno.h>
#include <fcntl.h>
#include <keyutils.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "keysource.h"
#include "scratch_dir.h"
#include "unit.h"
#include "util.h"

static struct scratch dir;
static struct keyring ring;
static struct keysource_env env = {
	.ring = &ring, .check_files = true, .timeout_ms = 2000, .volume = "photos"};

static int setup(void **state)
{
	env.uid = geteuid();
	return scratch_make(&dir) < 0 || keyring_open(&ring, 0, false, NULL) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	keyring_close(&ring);
	scratch_remove(&dir);
	return 0;
}

static void put_file(const char *name, mode_t mode, const char *text, size_t size)
{
	int fd = openat(dir.fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write_full(fd, text, size), 0);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

/* text with each "@" replaced by the scratch directory. */
static const char *expand(const char *text, char *out, size_t size)
{
	size_t used = 0;

	out[0] = '\0';
	for (; *text; text++) {
		if (*text == '@')
			used += (size_t)snprintf(out + used, size - used, "%s", dir.path);
		else
			used += (size_t)snprintf(out + used, size - used, "%c", *text);
		assert_true(used < size);
	}
	return out;
}

static struct keysource *parse(const char *spec)
{
	struct keysource *src = NULL;
	char full[3000];

	assert_int_equal(keysource_parse(expand(spec, full, sizeof(full)), &src, NULL), 0);
	assert_string_equal(keysource_spec(src), full);
	return src;
}

static void check_key(const char *spec, const char *bytes, size_t size, bool passphrase)
{
	struct keysource *src = parse(spec);
	struct error err = ERROR_NONE;
	struct key key = {0};

	if (keysource_read(src, &env, &key, &err) < 0)
		fail_msg("%s: %s", spec, err.text);
	assert_int_equal(secret_size(key.bytes), size);
	assert_memory_equal(secret_data(key.bytes), bytes, size);
	assert_int_equal(key.passphrase, passphrase);
	assert_string_equal(key.source, keysource_spec(src));
	key_wipe(&key);
	assert_null(key.bytes);
	key_wipe(&key);
	keysource_free(src);
}

static void check_failure(const char *spec, int code, const char *text, const char *hint)
{
	char want[3000], want_hint[3000];
	struct keysource *src = parse(spec);
	struct error err = ERROR_NONE;
	struct key key = {0};

	assert_int_equal(keysource_read(src, &env, &key, &err), code);
	assert_string_equal(err.text, expand(text, want, sizeof(want)));
	assert_string_equal(err.hint, expand(hint ? hint : "", want_hint, sizeof(want_hint)));
	assert_int_equal(err.status, EXIT_STATUS_NO_KEY);
	assert_int_equal(err.code, code);
	assert_null(key.bytes);
	keysource_free(src);
}

static void wrong_specifications(void **state)
{
	static const char long_path[] =
		"/0123456789012345678901234567890123456789012345678901234567890123456789"
		"0123456789012345678901234567890123456789";
	static const struct {
		const char *spec, *text;
	} cases[] = {
		{"hunter2", "a key source needs a scheme, as in file:/run/key"},
		{"", "a key source needs a scheme, as in file:/run/key"},
		{":x", "a key source needs a scheme, as in file:/run/key"},
		{"fil:/k", "unknown key source \"fil:\" (did you mean \"file:\"?)"},
		{"FILE:/k", "unknown key source \"FILE:\""},
		{"vault:/k", "unknown key source \"vault:\""},
		{"file:/k?fmt=hxe", "unknown key format \"hxe\""},
		{"file:/k?fmt=hx", "unknown key format \"hx\" (did you mean \"hex\"?)"},
		{"file:/k?fmt=", "unknown key format \"\""},
		{"file:k", "file:k does not name an absolute path"},
		{"file:", "file: does not name an absolute path"},
		{"unix:s", "unix:s does not name an absolute path"},
		{"exec:", "exec: does not name an absolute path"},
		{"exec:cat /k", "exec:cat /k does not name an absolute path"},
		{"exec:/bin/cat 'a", "exec:/bin/cat 'a has a quote that is not closed"},
		{"exec:/bin/cat \"a", "exec:/bin/cat \"a has a quote that is not closed"},
		{"fd:1", "fd:1 does not name a descriptor (0, or 3 and above)"},
		{"fd:2", "fd:2 does not name a descriptor (0, or 3 and above)"},
		{"fd:-1", "fd:-1 does not name a descriptor (0, or 3 and above)"},
		{"fd:x", "fd:x does not name a descriptor (0, or 3 and above)"},
		{"cred:", "cred: does not name a credential (a file name, without \"/\")"},
		{"cred:..", "cred:.. does not name a credential (a file name, without \"/\")"},
		{"cred:a/b", "cred:a/b does not name a credential (a file name, without \"/\")"},
		{"keyring:user", "keyring:user does not name a key as TYPE:DESCRIPTION"},
		{"keyring::x", "keyring::x does not name a key as TYPE:DESCRIPTION"},
		{"keyring:user:", "keyring:user: does not name a key as TYPE:DESCRIPTION"},
	};
	struct keysource *src = NULL;
	struct error err;
	char spec[200], want[300];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(keysource_parse(cases[i].spec, &src, &err), -EINVAL);
		assert_string_equal(err.text, cases[i].text);
		assert_int_equal(err.status, EXIT_STATUS_CONFIG);
	}
	snprintf(spec, sizeof(spec), "unix:%s", long_path);
	snprintf(want, sizeof(want), "%s is too long for the path of a socket", spec);
	assert_int_equal(keysource_parse(spec, &src, &err), -EINVAL);
	assert_string_equal(err.text, want);
	assert_null(src);
	keysource_free(NULL);
}

static void schemes_are_listed(void **state)
{
	static const char *const want[] = {"keyring", "file", "fd", "cred", "unix", "exec", "krb5", NULL};
	const char *const *got = keysource_schemes();

	for (size_t i = 0; want[i]; i++)
		assert_string_equal(got[i], want[i]);
	assert_null(got[ARRAY_SIZE(want) - 1]);
}

static void formats(void **state)
{
	put_file("text", 0600, "3q2+7w==\nmore\n", 14);
	put_file("hex", 0600, "deadbeef\n", 9);
	put_file("b64", 0400, "3q2-7w\n", 7);
	put_file("a?fmt=hex", 0600, "question", 8);
	put_file("a?b", 0600, "mark", 4);
	check_key("file:@/text", "3q2+7w==", 8, true);
	check_key("file:@/text?fmt=pass", "3q2+7w==", 8, true);
	check_key("file:@/text?fmt=raw", "3q2+7w==\nmore\n", 14, false);
	check_key("file:@/hex?fmt=hex", "\xde\xad\xbe\xef", 4, false);
	check_key("file:@/b64?fmt=base64", "\xde\xad\xbe\xef", 4, false);
	check_key("file:@/a?fmt=hex?fmt=pass", "question", 8, true);
	check_key("file:@/a?b", "mark", 4, true);
	check_failure("file:@/text?fmt=hex", -EINVAL, "file:@/text?fmt=hex is not hexadecimal", NULL);
	check_failure("file:@/text?fmt=base64", -EINVAL, "file:@/text?fmt=base64 is not base64", NULL);
}

static void lengths(void **state)
{
	static char text[SECRET_MAX + 1];

	memset(text, 'p', sizeof(text));
	put_file("max", 0600, text, 2048);
	put_file("over", 0600, text, 2049);
	put_file("largest", 0600, text, SECRET_MAX);
	put_file("huge", 0600, text, SECRET_MAX + 1);
	put_file("empty", 0600, "", 0);
	put_file("line", 0600, "\nsecond", 7);
	check_key("file:@/max", text, 2048, true);
	check_key("file:@/over?fmt=raw", text, 2049, false);
	check_key("file:@/largest?fmt=raw", text, SECRET_MAX, false);
	check_failure("file:@/over", -EMSGSIZE, "the passphrase in file:@/over is longer than 2048 bytes",
		      NULL);
	check_failure("file:@/huge", -EMSGSIZE, "file:@/huge is longer than 1048576 bytes", NULL);
	check_failure("file:@/empty?fmt=raw", -ENODATA, "file:@/empty?fmt=raw is empty", NULL);
	check_failure("file:@/line", -ENODATA, "the first line of file:@/line is empty", NULL);
}

static void file_kinds(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/socket", dir.path);
	assert_int_equal(bind(s, (struct sockaddr *)&addr, sizeof(addr)), 0);
	close(s);
	put_file("target", 0600, "key", 3);
	assert_int_equal(symlinkat("target", dir.fd, "link"), 0);
	check_key("file:@/link", "key", 3, true);
	check_failure("file:@/none", -ENOENT, "cannot read file:@/none: No such file or directory", NULL);
	check_failure("file:@", -EINVAL, "file:@ is a directory, not a file", NULL);
	check_failure("file:@/socket", -EINVAL, "file:@/socket is a socket, not a file", NULL);
	check_failure("file:/dev/zero", -EINVAL, "file:/dev/zero is a device, not a file", NULL);
}

static void file_modes(void **state)
{
	static const struct {
		mode_t mode;
		const char *text;
	} cases[] = {
		{0644, "file:@/mode can be read by others (mode 0644)"},
		{0640, "file:@/mode can be read by others (mode 0640)"},
		{0604, "file:@/mode can be read by others (mode 0604)"},
		{0620, "file:@/mode is open to others (mode 0620)"},
		{0601, "file:@/mode is open to others (mode 0601)"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		put_file("mode", cases[i].mode, "key", 3);
		check_failure("file:@/mode", -EPERM, cases[i].text, "chmod 600 @/mode");
	}
	env.check_files = false;
	check_key("file:@/mode", "key", 3, true);
	env.check_files = true;
	put_file("a b", 0644, "key", 3);
	check_failure("file:@/a b", -EPERM, "file:@/a b can be read by others (mode 0644)", NULL);
}

static void file_owner(void **state)
{
	if (geteuid() != 0) {
		assert_null(getenv("CKRFS_MUST_WORK"));
		skip();
	}
	put_file("owned", 0600, "key", 3);
	assert_int_equal(fchownat(dir.fd, "owned", 1234, 1234, 0), 0);
	check_failure("file:@/owned", -EPERM,
		      "file:@/owned belongs to uid 1234, neither to root nor to uid 0", NULL);
	env.uid = 1234;
	check_key("file:@/owned", "key", 3, true);
	env.uid = 0;
}

/* Writes size bytes of text into a FIFO or a descriptor, from another process. */
static pid_t feed(const char *fifo, const char *text)
{
	pid_t pid = fork();
	int fd;

	assert_true(pid >= 0);
	if (pid > 0)
		return pid;
	fd = openat(dir.fd, fifo, O_WRONLY | O_CLOEXEC);
	_exit(fd < 0 || write_full(fd, text, strlen(text)) < 0);
}

static void fifos_do_not_hang(void **state)
{
	pid_t pid;

	assert_int_equal(mkfifoat(dir.fd, "fifo", 0600), 0);
	env.timeout_ms = 100;
	check_failure("file:@/fifo", -ETIMEDOUT, "file:@/fifo did not answer within 100 ms", NULL);
	env.timeout_ms = 1000;
	check_failure("file:@/fifo", -ETIMEDOUT, "file:@/fifo did not answer within 1 s", NULL);
	env.timeout_ms = 2000;
	pid = feed("fifo", "through a fifo");
	check_key("file:@/fifo", "through a fifo", 14, true);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void credentials(void **state)
{
	unsetenv("CREDENTIALS_DIRECTORY");
	check_failure("cred:c", -ENOENT, "cred:c needs $CREDENTIALS_DIRECTORY, which is not set", NULL);
	setenv("CREDENTIALS_DIRECTORY", dir.path, 1);
	check_failure("cred:c", -ENOENT, "cannot read cred:c: No such file or directory", NULL);
	put_file("c", 0444, "credential", 10);
	check_key("cred:c", "credential", 10, true);
	assert_int_equal(mkdirat(dir.fd, "d", 0700), 0);
	assert_int_equal(mkfifoat(dir.fd, "f", 0600), 0);
	check_failure("cred:d", -EINVAL, "cred:d is a directory, not a file", NULL);
	check_failure("cred:f", -EINVAL, "cred:f is a FIFO, not a file", NULL);
	unsetenv("CREDENTIALS_DIRECTORY");
}

static void descriptors_serve_once(void **state)
{
	char spec[32], text[100];
	int ends[2], saved;

	assert_int_equal(pipe(ends), 0); /* inherited ones are not O_CLOEXEC */
	assert_int_equal(write_full(ends[1], "from fd", 7), 0);
	close(ends[1]);
	snprintf(spec, sizeof(spec), "fd:%d", ends[0]);
	snprintf(text, sizeof(text), "fd:%d was not handed over, or was read before", ends[0]);
	check_key(spec, "from fd", 7, true);
	assert_int_equal(fcntl(ends[0], F_GETFD), -1);
	check_failure(spec, -EBADF, text, NULL);
	/* the number again, for one of our own: it is not read */
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(write_full(ends[1], "not a key", 9), 0);
	close(ends[1]);
	snprintf(spec, sizeof(spec), "fd:%d", ends[0]);
	snprintf(text, sizeof(text), "fd:%d was not handed over, or was read before", ends[0]);
	check_failure(spec, -EBADF, text, NULL);
	close(ends[0]);
	/* standard input stays a descriptor */
	saved = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
	put_file("stdin", 0600, "from stdin", 10);
	ends[0] = openat(dir.fd, "stdin", O_RDONLY | O_CLOEXEC);
	assert_int_equal(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
	close(ends[0]);
	check_key("fd:0", "from stdin", 10, true);
	check_failure("fd:0", -ENODATA, "fd:0 is empty", NULL);
	if (saved >= 0)
		dup2(saved, STDIN_FILENO);
	close(saved);
}

static void keys_in_rings(void **state)
{
	struct keyring none = {0};
	int32_t key = add_key("user", "photos", "pass\n", 5, ring.mount);

	assert_true(key > 0);
	check_key("keyring:user:photos", "pass", 4, true);
	assert_true(add_key("user", "a:b", "x", 1, ring.mount) > 0);
	check_key("keyring:user:a:b?fmt=raw", "x", 1, false);
	check_failure("keyring:user:none", -ENOKEY, "no key in keyring:user:none", NULL);
	assert_int_equal(keyctl_setperm(key, KEY_POS_ALL & ~KEY_POS_SEARCH), 0);
	check_failure("keyring:user:photos", -EACCES, "the key in keyring:user:photos does not grant Search",
		      NULL);
	key = add_key("user", "old", "x", 1, ring.mount);
	assert_int_equal(keyctl_set_timeout(key, 1), 0);
	key = add_key("user", "revoked", "x", 1, ring.mount);
	assert_int_equal(keyctl_revoke(key), 0);
	check_failure("keyring:user:revoked", -EKEYREVOKED, "the key in keyring:user:revoked was revoked",
		      NULL);
	assert_true(add_key("logon", "a:b", "x", 1, ring.mount) > 0);
	check_failure("keyring:logon:a:b", -EOPNOTSUPP,
		      "the key in keyring:logon:a:b is of a type that only the kernel can read", NULL);
	nanosleep(&(struct timespec){.tv_sec = 1, .tv_nsec = 300000000}, NULL);
	check_failure("keyring:user:old", -EKEYEXPIRED, "the key in keyring:user:old has expired", NULL);
	env.ring = NULL;
	check_failure("keyring:user:photos", -ENOKEY,
		      "keyring:user:photos needs a keyring, and this mount has none", NULL);
	env.ring = &none;
	check_failure("keyring:user:photos", -ENOKEY,
		      "keyring:user:photos needs a keyring, and this mount has none", NULL);
	env.ring = &ring;
}

static int listen_at(const char *name, int backlog)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s", dir.path, name);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, backlog), 0);
	return fd;
}

/* Answers with the name of who asks, from behind the random part. */
static void serve_name(int listener)
{
	struct sockaddr_un peer = {0};
	socklen_t size = sizeof(peer);
	int fd = accept4(listener, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC);
	const char *name = peer.sun_path + 1;
	size_t n = size - offsetof(struct sockaddr_un, sun_path) - 1;

	if (fd < 0 || peer.sun_path[0] || n < 16 || strspn(name, "0123456789abcdef") != 16)
		_exit(1);
	_exit(write_full(fd, name + 16, n - 16) < 0);
}

static void sockets(void **state)
{
	int listener = listen_at("answers", 5), quiet = listen_at("quiet", 0),
	    closed = listen_at("closed", 1), status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		serve_name(listener);
	check_key("unix:@/answers", "/ckrfs/photos", 13, true);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(closed);
	check_failure("unix:@/closed", -ECONNREFUSED, "cannot connect to unix:@/closed: Connection refused",
		      NULL);
	check_failure("unix:@/none", -ENOENT, "cannot connect to unix:@/none: No such file or directory",
		      NULL);
	env.timeout_ms = 200;
	/* the first waits for bytes, later ones for room in the backlog */
	for (int i = 0; i < 3; i++)
		check_failure("unix:@/quiet", -ETIMEDOUT, "unix:@/quiet did not answer within 200 ms", NULL);
	env.timeout_ms = 2000;
	close(quiet);
	close(listener);
}

static void programs(void **state)
{
	static const char want_env[] = "CKRFS_VOLUME=photos\nHOME=/\nLANG=C.UTF-8\n"
				       "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n";

	check_key("exec:/bin/echo a  'b  c' \"d'e\" f\\ g '' h", "a b  c d'e f g  h", 17, true);
	check_key("exec:/usr/bin/printf %s '\\\\' \"\\\"\"", "\\\\\"", 3, true);
	setenv("CKRFS_TEST_UNWANTED", "x", 1);
	check_key("exec:/bin/sh -c 'env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD= | sort'?fmt=raw",
		  want_env, sizeof(want_env) - 1, false);
	unsetenv("CKRFS_TEST_UNWANTED");
	/* nothing on standard input, no other descriptor, not in our directory */
	check_key("exec:/bin/sh -c 'cat; pwd'", "/", 1, true);
	check_failure("exec:/bin/false", -ENOKEY, "exec:/bin/false exited with status 1", NULL);
	check_failure("exec:/bin/sh -c 'echo key; exit 7'", -ENOKEY,
		      "exec:/bin/sh -c 'echo key; exit 7' exited with status 7", NULL);
	check_failure("exec:/bin/sh -c 'kill -SEGV $$'", -ENOKEY,
		      "exec:/bin/sh -c 'kill -SEGV $$' was killed by SIGSEGV", NULL);
	check_failure("exec:/bin/true", -ENODATA, "exec:/bin/true is empty", NULL);
	check_failure("exec:/none", -ENOENT, "cannot run exec:/none: No such file or directory", NULL);
	put_file("script", 0600, "#!/bin/sh\n", 10);
	check_failure("exec:@/script", -EACCES, "cannot run exec:@/script: Permission denied", NULL);
	check_failure("exec:/bin/cat /dev/zero", -EMSGSIZE,
		      "exec:/bin/cat /dev/zero is longer than 1048576 bytes", NULL);
}

/* What the program may not have: our descriptors and the mount's ring. */
static void programs_are_cut_off(void **state)
{
	int leak = open("/dev/null", O_RDONLY); /* not O_CLOEXEC: as inherited */

	assert_true(leak > 2);
	/* The fourth is the directory that ls reads. */
	check_key("exec:/bin/ls -1 /proc/self/fd?fmt=raw", "0\n1\n2\n3\n", 8, false);
	close(leak);
	assert_true(add_key("user", "inside", "x", 1, ring.mount) > 0);
	if (access("/bin/keyctl", X_OK) < 0) {
		assert_null(getenv("CKRFS_MUST_WORK"));
		skip();
	}
	check_failure("exec:/bin/keyctl search -3 user inside", -ENOKEY,
		      "exec:/bin/keyctl search -3 user inside exited with status 1", NULL);
}

/* The whole group goes, also when the program's own child holds the pipe. */
static void programs_that_hang(void **state)
{
	uint64_t start = monotonic_ms();
	char pid_text[32] = "", path[100];
	int fd;

	env.timeout_ms = 300;
	check_failure("exec:/bin/sh -c 'sleep 60 & echo $! > @/pid; wait'", -ETIMEDOUT,
		      "exec:/bin/sh -c 'sleep 60 & echo $! > @/pid; wait' did not answer within 300 ms",
		      NULL);
	check_failure("exec:/bin/sh -c 'echo key; exec >&-; sleep 60'", -ETIMEDOUT,
		      "exec:/bin/sh -c 'echo key; exec >&-; sleep 60' did not answer within 300 ms", NULL);
	env.timeout_ms = 2000;
	assert_in_range(monotonic_ms() - start, 590, 10000);
	snprintf(path, sizeof(path), "%s/pid", dir.path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(read_full(fd, pid_text, sizeof(pid_text) - 1) > 1);
	close(fd);
	pid_text[strcspn(pid_text, "\n")] = '\0';
	snprintf(path, sizeof(path), "/proc/%s/cmdline", pid_text);
	for (int i = 0; i < 50; i++) {
		char name[8] = "";

		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || read_full(fd, name, sizeof(name)) <= 0) {
			close(fd);
			return; /* gone, or a zombie that init has not taken yet */
		}
		close(fd);
		nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	}
	fail_msg("process %s is still there", pid_text);
}

static void several_sources(void **state)
{
	struct keysource *srcs[3] = {parse("keyring:user:absent"), parse("file:@/closed-file"),
				     parse("file:@/third")};
	struct error err = ERROR_NONE;
	struct key key = {0};
	char want[600], text[600];

	put_file("closed-file", 0644, "key", 3);
	assert_int_equal(keysource_read_first(NULL, 0, &env, &key, &err), -ENOKEY);
	assert_string_equal(err.text, "no key source configured");
	assert_int_equal(err.status, EXIT_STATUS_NO_KEY);
	assert_int_equal(keysource_read_first(srcs, 1, &env, &key, &err), -ENOKEY);
	assert_string_equal(err.text, "no key in keyring:user:absent");
	assert_int_equal(keysource_read_first(srcs, 3, &env, &key, &err), -ENOKEY);
	snprintf(text, sizeof(text), "%s",
		 "no key source served (3 tried): no key in keyring:user:absent; file:@/closed-file can be "
		 "read by "
		 "others (mode 0644); cannot read file:@/third: No such file or directory");
	assert_string_equal(err.text, expand(text, want, sizeof(want)));
	assert_string_equal(err.hint, expand("chmod 600 @/closed-file", want, sizeof(want)));
	assert_int_equal(err.status, EXIT_STATUS_NO_KEY);
	assert_int_equal(keysource_read_first(srcs, 3, &env, &key, NULL), -ENOKEY);
	put_file("third", 0600, "third", 5);
	assert_int_equal(keysource_read_first(srcs, 3, &env, &key, &err), 0);
	assert_int_equal(secret_size(key.bytes), 5);
	assert_string_equal(key.source, keysource_spec(srcs[2]));
	key_wipe(&key);
	for (size_t i = 0; i < 3; i++)
		keysource_free(srcs[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wrong_specifications),
		cmocka_unit_test(schemes_are_listed),
		cmocka_unit_test(formats),
		cmocka_unit_test(lengths),
		cmocka_unit_test(file_kinds),
		cmocka_unit_test(file_modes),
		cmocka_unit_test(file_owner),
		cmocka_unit_test(fifos_do_not_hang),
		cmocka_unit_test(credentials),
		cmocka_unit_test(descriptors_serve_once),
		cmocka_unit_test(keys_in_rings),
		cmocka_unit_test(sockets),
		cmocka_unit_test(programs),
		cmocka_unit_test(programs_are_cut_off),
		cmocka_unit_test(programs_that_hang),
		cmocka_unit_test(several_sources),
	};

	return cmocka_run_group_tests_name("keysource", tests, setup, teardown);
}
