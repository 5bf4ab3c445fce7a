/* SPDX-License-Identifier: MIT */
/*
 * exec:PROGRAM ARGUMENT...: what the program writes to its standard output is the key. No shell. The program
 * starts with a fixed environment, an empty session keyring of its own, and no descriptor but the standard
 * ones; its messages go where ours go.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "cleanup.h"
#include "keyring.h"
#include "keysource_impl.h"
#include "util.h"

enum { EXEC_ENV_MAX = 6 };

/* Words in one allocation; argv points into text. */
struct words {
	char *text;
	char **argv;
	size_t n;
};

static void words_free(struct words *w)
{
	free(w->text);
	free(w->argv);
}

#define autowords __attribute__((cleanup(words_free)))

/* Copies one word from *in to *out, without its quotes, and terminates it. -EINVAL: a quote is not closed. */
static int words_copy_one(const char **in, char **out)
{
	const char *p = *in;
	char *q = *out, quote = '\0';

	for (; *p && (quote || !strchr(" \t", *p)); p++) {
		if (*p == '\\' && quote != '\'' && p[1])
			*q++ = *++p;
		else if (quote ? *p == quote : *p == '\'' || *p == '"')
			quote = quote ? '\0' : *p;
		else
			*q++ = *p;
	}
	*q++ = '\0';
	*in = p;
	*out = q;
	return quote ? -EINVAL : 0;
}

static int words_split(const char *body, struct words *ret)
{
	size_t length = strlen(body);
	autowords struct words w = {0};
	char *out;

	/* A word and the blank behind it are two bytes at least. */
	w.text = malloc(length + 1);
	w.argv = calloc(length / 2 + 2, sizeof(*w.argv));
	if (!w.text || !w.argv)
		return -ENOMEM;
	for (out = w.text;;) {
		int r;

		body += strspn(body, " \t");
		if (!*body)
			break;
		w.argv[w.n++] = out;
		r = words_copy_one(&body, &out);
		if (r < 0)
			return r;
	}
	*ret = w;
	w = (struct words){0};
	return 0;
}

static int exec_check(const struct keysource *src, struct error *err)
{
	autowords struct words w = {0};
	int r = words_split(src->body, &w);

	if (r == -EINVAL)
		return error_set(err, r, EXIT_STATUS_CONFIG, KEYSOURCE_NOT_COMMAND, src->spec);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot parse a key source");
	if (!w.n || w.argv[0][0] != '/')
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG, KEYSOURCE_NOT_ABSOLUTE, src->spec);
	return 0;
}

/* The environment of the program; what is allocated is freed with it. */
struct exec_env {
	char *allocated[2];
	char *list[EXEC_ENV_MAX];
};

static void exec_env_free(struct exec_env *e)
{
	free(e->allocated[0]);
	free(e->allocated[1]);
}

#define autoenv __attribute__((cleanup(exec_env_free)))

static int exec_env_fill(struct exec_env *e, const char *volume)
{
	static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	static char lang[] = "LANG=C.UTF-8", home[] = "HOME=/";
	const char *credentials = secure_getenv("CREDENTIALS_DIRECTORY");
	size_t n = 0;

	e->list[n++] = path;
	e->list[n++] = lang;
	e->list[n++] = home;
	if (volume && asprintf(&e->allocated[0], "CKRFS_VOLUME=%s", volume) < 0) {
		e->allocated[0] = NULL;
		return -ENOMEM;
	}
	if (credentials && asprintf(&e->allocated[1], "CREDENTIALS_DIRECTORY=%s", credentials) < 0) {
		e->allocated[1] = NULL;
		return -ENOMEM;
	}
	for (size_t i = 0; i < ARRAY_SIZE(e->allocated); i++) {
		if (e->allocated[i])
			e->list[n++] = e->allocated[i];
	}
	return 0;
}

struct exec_child {
	pid_t pid; /* and its process group */
	int out;   /* what it writes */
};

/* What the child needs, all made before the fork: only async-signal-safe calls follow there. */
struct exec_plan {
	char **argv, **env;
	int null, out, report;
};

static int exec_child_signals(void)
{
	static const int reset[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGPIPE, SIGALRM,
				    SIGTERM, SIGUSR1, SIGUSR2, SIGCHLD};
	sigset_t none;

	for (size_t i = 0; i < ARRAY_SIZE(reset); i++)
		signal(reset[i], SIG_DFL);
	sigemptyset(&none);
	return sigprocmask(SIG_SETMASK, &none, NULL);
}

/* A group of its own, so that all of it can be killed; no way to the mount's keys or descriptors. */
static int exec_child_prepare(const struct exec_plan *plan)
{
	int r;

	/* A program that nobody waits for any more must not go on by itself. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return -errno;
	if (setpgid(0, 0) < 0)
		return -errno;
	r = keyring_leave();
	if (r < 0)
		return r;
	if (dup2(plan->null, STDIN_FILENO) < 0 || dup2(plan->out, STDOUT_FILENO) < 0)
		return -errno;
	if (close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC) < 0 || chdir("/") < 0)
		return -errno;
	return exec_child_signals() < 0 ? -errno : 0;
}

static void __attribute__((noreturn)) exec_child_run(const struct exec_plan *plan)
{
	int r = exec_child_prepare(plan);

	if (r == 0) {
		execve(plan->argv[0], plan->argv, plan->env);
		r = -errno;
	}
	write_full(plan->report, &r, sizeof(r));
	_exit(127);
}

/* Kills what is left of the group and takes the status. */
static void exec_kill(pid_t pid)
{
	kill(-pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* Moves *fd above the standard descriptors, where the child's dup2() would overwrite it or leave it
 * O_CLOEXEC. */
static int exec_move_up(int *fd)
{
	int high;

	if (*fd > STDERR_FILENO)
		return 0;
	high = fcntl(*fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (high < 0)
		return -errno;
	close(*fd);
	*fd = high;
	return 0;
}

/* Both stay -1, or the caller closes what is there. */
static int exec_pipe(int ends[2])
{
	int r;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	r = exec_move_up(&ends[0]);
	return r < 0 ? r : exec_move_up(&ends[1]);
}

/* Starts it; returns when the program runs, or with the errno that kept it from running. */
static int exec_start(const struct words *words, struct exec_env *env, struct exec_child *ret)
{
	autofd int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int out[2] = {-1, -1}, report[2] = {-1, -1}, failure = 0, r;
	struct exec_plan plan = {.argv = words->argv, .env = env->list};
	pid_t pid = -1;

	r = null < 0 ? -errno : exec_move_up(&null);
	if (r == 0)
		r = exec_pipe(out);
	if (r == 0)
		r = exec_pipe(report);
	if (r < 0)
		goto out;
	plan.null = null;
	plan.out = out[1];
	plan.report = report[1];
	pid = fork();
	if (pid == 0)
		exec_child_run(&plan);
	r = pid < 0 ? -errno : 0;
	close(report[1]);
	report[1] = -1;
	if (r == 0 && read_full(report[0], &failure, sizeof(failure)) == (ssize_t)sizeof(failure)) {
		exec_kill(pid);
		r = failure;
	}
	if (r == 0)
		*ret = (struct exec_child){.pid = pid, .out = steal_fd(&out[0])};
out:
	cleanup_close(&out[0]);
	cleanup_close(&out[1]);
	cleanup_close(&report[0]);
	cleanup_close(&report[1]);
	return r;
}

/* Waits for the end of the program itself; its standard output may be closed long before. */
static int exec_wait(pid_t pid, uint64_t deadline, int *ret_status)
{
	autofd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	int n;

	if (pidfd < 0)
		return -errno;
	do {
		uint64_t now = monotonic_ms();

		n = poll(&p, 1, !deadline ? -1 : deadline > now ? (int)(deadline - now) : 0);
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n < 0 ? -errno : -ETIMEDOUT;
	return waitpid(pid, ret_status, 0) < 0 ? -errno : 0;
}

static int exec_status_error(const struct keysource *src, int status, struct error *err)
{
	const char *name;

	if (!WIFSIGNALED(status))
		return error_set(err, -ENOKEY, EXIT_STATUS_NO_KEY, KEYSOURCE_EXIT_STATUS, src->spec,
				 WEXITSTATUS(status));
	name = sigabbrev_np(WTERMSIG(status));
	return error_set(err, -ENOKEY, EXIT_STATUS_NO_KEY, KEYSOURCE_KILLED, src->spec, name ? name : "RT");
}

/* The output of a program that failed is not a key, and its status says more than "empty" does. */
static int exec_finish(const struct keysource *src, const struct keysource_env *env, struct exec_child *child,
		       struct secret **ret, struct error *err)
{
	uint64_t deadline = env->timeout_ms < 0 ? 0 : monotonic_ms() + (uint64_t)env->timeout_ms;
	autosecret struct secret *text = NULL;
	int status = 0, r, w;

	r = secret_read(child->out, SECRET_MAX, env->timeout_ms, &text);
	w = r == 0 || r == -ENODATA ? exec_wait(child->pid, deadline, &status) : r;
	if (w < 0) {
		exec_kill(child->pid);
		return keysource_error(src, w, env->timeout_ms, err);
	}
	if (status)
		return exec_status_error(src, status, err);
	if (r < 0)
		return keysource_error(src, r, env->timeout_ms, err);
	*ret = steal_ptr(&text);
	return 0;
}

static int exec_read(const struct keysource *src, const struct keysource_env *env, struct secret **ret,
		     struct error *err)
{
	struct exec_child child = {.pid = -1, .out = -1};
	autowords struct words words = {0};
	autoenv struct exec_env environment = {0};
	int r = words_split(src->body, &words);

	if (r == 0)
		r = exec_env_fill(&environment, env->volume);
	if (r == 0)
		r = exec_start(&words, &environment, &child);
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_NO_KEY, KEYSOURCE_CANNOT_RUN, src->spec);
	r = exec_finish(src, env, &child, ret, err);
	close(child.out);
	return r;
}

static int exec_probe(const struct keysource *src, const struct keysource_env *env, struct error *err)
{
	autowords struct words w = {0};
	struct stat st;
	int r = words_split(src->body, &w);

	if (r == 0 && (stat(w.argv[0], &st) < 0 || faccessat(AT_FDCWD, w.argv[0], X_OK, AT_EACCESS) < 0))
		r = -errno;
	else if (r == 0 && !S_ISREG(st.st_mode))
		r = -EACCES;
	return r < 0 ? error_errno(err, r, EXIT_STATUS_NO_KEY, KEYSOURCE_CANNOT_RUN, src->spec) : 0;
}

const struct keysource_ops keysource_exec = {
	.scheme = "exec",
	.check = exec_check,
	.read = exec_read,
	.probe = exec_probe,
};
