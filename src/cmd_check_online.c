/* SPDX-License-Identifier: MIT */
/* ckrfs check --online: the mount's server checks, and tells what it finds through a pipe. */
#include "cmd_check_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cleanup.h"
#include "control_client.h"

/* A line of the server. -EBADMSG */
static int take_line(const char *line, size_t size, struct check_output *o, struct finding_summary *summary)
{
	struct finding f = {.kind = FINDING_KINDS};
	int r = finding_parse(line, size, &f, summary);

	if (r == 0) {
		check_output_finding(o, &f);
		finding_wipe(&f);
	} else if (r == 1) {
		pthread_mutex_lock(&o->lock);
		progress_count(&o->progress, summary->files, summary->bytes);
		progress_tick(&o->progress);
		pthread_mutex_unlock(&o->lock);
	}
	return r;
}

/* Until the server closes the pipe; the last summary is the result. */
static int take_lines(int fd, struct check_output *o, struct finding_summary *ret, struct error *err)
{
	FILE *in = fdopen(fd, "r");
	autofree char *line = NULL;
	size_t room = 0;
	ssize_t n;
	int r = 0;

	if (!in) {
		close(fd);
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot read what the server finds");
	}
	while (r >= 0 && (n = getline(&line, &room, in)) > 0)
		if (line[n - 1] == '\n')
			r = take_line(line, (size_t)n, o, ret);
	fclose(in);
	if (r < 0)
		return error_set(err, r, EXIT_STATUS_FAILED, "what the server says is not understood");
	if (!ret->complete)
		return error_set(err, -ECONNRESET, EXIT_STATUS_FAILED,
				 "the check ended early: the mount is gone, or its log says why");
	return 0;
}

static int check_mount(const struct control_mount *mount, const struct check_args *a, struct error *err)
{
	struct check_output o = {.json = a->json};
	struct finding_summary summary = {.complete = false};
	autofd int in = -1, out = -1;
	int fds[2], r;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot make a pipe");
	in = fds[0];
	out = fds[1];
	r = control_client_check(&mount->runtime, mount->name, out, err);
	cleanup_close(&out);
	out = -1;
	if (r < 0)
		return r;
	check_output_start(&o);
	check_output_stage(&o, "checking");
	check_output_begin(&o, mount->record.source);
	r = take_lines(steal_fd(&in), &o, &summary, err);
	check_output_stop(&o);
	if (r == 0)
		r = check_output_end(&o, &summary, err);
	if (r < 0)
		return r;
	return summary.damages ? EXIT_STATUS_DAMAGED : EXIT_STATUS_DONE;
}

int check_online(const struct check_args *a, const char *operand, struct error *err)
{
	struct control_mount mount = CONTROL_MOUNT_NONE;
	int r = control_client_find(operand, &mount, err);

	if (r < 0)
		return r;
	if (mount.runtime.mounts_fd < 0 || !mount.alive)
		r = error_set(err, -ENOTCONN, EXIT_STATUS_NO_VOLUME,
			      "the keeper of \"%s\" is not to be found", mount.name);
	else
		r = check_mount(&mount, a, err);
	control_client_close(&mount);
	return r < 0 ? error_prefix(err, "cannot check \"%s\"", operand) : r;
}
