/* SPDX-License-Identifier: MIT */
#include "self.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "companion.h"

static _Noreturn void exec_ckrfs(char *const *argv, pid_t parent, int said_fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_PID");
	/* Who has died before that sends nothing. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent && null >= 0 &&
	    dup2(null, STDIN_FILENO) >= 0 && dup2(said_fd, STDOUT_FILENO) >= 0 &&
	    dup2(said_fd, STDERR_FILENO) >= 0)
		_exit(companion_run_ckrfs(argv));
	_exit(EXIT_STATUS_FAILED);
}

/* Until the process ends, which its keeper, with the same stderr, may not do. */
static void read_said(int fd, int pid_fd, char said[SELF_SAID_MAX])
{
	struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = pid_fd, .events = POLLIN}};
	size_t used = 0;

	for (;;) {
		char rest[512];
		ssize_t n = read(fd, used + 1 < SELF_SAID_MAX ? said + used : rest,
				 used + 1 < SELF_SAID_MAX ? SELF_SAID_MAX - 1 - used : sizeof(rest));

		if (n > 0 && used + 1 < SELF_SAID_MAX)
			used += (size_t)n;
		else if (n == 0)
			fds[0].fd = -1;
		if (n > 0)
			continue;
		if (fds[1].revents)
			break;
		poll(fds, 2, -1);
	}
	said[used] = '\0';
}

void self_take(struct self_args *a, char *word)
{
	if (word && a->n < SELF_ARGS_MAX) {
		a->list[++a->n] = word;
		return;
	}
	free(word);
	a->failed = true;
}

void self_add(struct self_args *a, const char *word)
{
	self_take(a, strdup(word));
}

void self_args_free(struct self_args *a)
{
	for (size_t i = 1; i <= a->n; i++)
		free(a->list[i]);
}

int self_run(struct self_args *a, char said[SELF_SAID_MAX])
{
	static char program[] = "ckrfs";
	autofd int pid_fd = -1, said_fd = -1;
	pid_t parent = getpid(), pid;
	int fds[2], status;

	if (a->failed)
		return -ENOMEM;
	a->list[0] = program;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	said_fd = fds[0];
	fcntl(said_fd, F_SETFL, O_NONBLOCK);
	pid = fork();
	if (pid == 0)
		exec_ckrfs(a->list, parent, fds[1]);
	close(fds[1]);
	if (pid < 0)
		return -errno;
	pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pid_fd < 0)
		return -errno;
	read_said(said_fd, pid_fd, said);
	if (waitpid(pid, &status, 0) < 0)
		return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -EIO;
}

/* Adds lines, of who holds a busy mount, or of fusermount3(1), behind the error's own. */
static void add_lines(struct error *err, const char *lines, size_t n)
{
	size_t used = strlen(err->text);

	while (n > 0 && lines[n - 1] == '\n')
		n--;
	if (n > 0)
		snprintf(err->text + used, sizeof(err->text) - used, "\n%.*s", (int)n, lines);
}

/* [lines of others] "ckrfs: TEXT\n" [more lines] "  try: HINT\n". */
int self_error(int status, const char *said, const char *fallback, struct error *err)
{
	const char *text = strncmp(said, "ckrfs: ", 7) == 0 ? said : strstr(said, "\nckrfs: "), *rest, *hint;
	size_t before;

	if (status < 0)
		return error_errno(err, status, EXIT_STATUS_FAILED, "%s", fallback);
	if (!text)
		return error_set(err, -EIO, (enum exit_status)status, "%s: exit status %d", fallback, status);
	before = (size_t)(text - said);
	text += text[0] == '\n' ? 8 : 7;
	rest = text + strcspn(text, "\n");
	hint = strstr(rest, "\n  try: ");
	error_set(err, -EIO, (enum exit_status)status, "%.*s", (int)(rest - text), text);
	add_lines(err, said, before);
	if (*rest)
		add_lines(err, rest + 1, hint ? (size_t)(hint - rest) : strlen(rest + 1));
	if (hint)
		error_hint(err, "%.*s", (int)strcspn(hint + 8, "\n"), hint + 8);
	return -EIO;
}
