/* SPDX-License-Identifier: MIT */
/*
 * What may block, in a child for each: reading the configuration, looking at paths, asking a keeper, mounting
 * and unmounting. The last two are `ckrfs mount` and `ckrfs umount` themselves, as everybody runs them:
 * nothing of what this executable links gets into a keeper. All end with the plugin (PR_SET_PDEATHSIG), and a
 * mount that was not reported to anybody undoes itself (keeper.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "control_client.h"
#include "mountinfo.h"
#include "self.h"
#include "util.h"
#include "volume_plugin_impl.h"

enum { ASK_MS = 2000 };

_Static_assert(2 * PLUGIN_OPTIONS_MAX + 16 <= SELF_ARGS_MAX, "the words of a mount fit");

/* What one child works with. */
struct task {
	const struct job_env *env;
	const struct plugin_volume *volume;
	struct config *config;
	char target[PLUGIN_TARGET_SIZE];
};

/* ---- looking ---- */

static int load(struct task *t, struct error *err)
{
	autoconfig_set struct config_set *set = NULL;
	int r = config_load(t->env->config_file, getuid(), &set, err);

	if (r == 0)
		r = policy_check(set, t->volume, &t->config, err);
	if (r < 0 || t->config->scope != CONFIG_SCOPE_CONTAINER)
		return r;
	/* An engine asks for one mount for all of its containers, and does not say which they are. */
	error_set(err, -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED,
		  "scope = container is not for volumes of engines, but for annotations of containers");
	error_hint(err, "man 8 ckrfs-oci-hook");
	return -EOPNOTSUPP;
}

/* How the mount is: 0 with its status; -ENOENT: there is none; -ESTALE: nobody serves it. */
static int look(const struct task *t, struct message_status *ret, struct error *err)
{
	struct message_request request = {.command = MESSAGE_STATUS};
	struct control_mount m = CONTROL_MOUNT_NONE;
	struct error ignored = ERROR_NONE;
	struct mountinfo info;
	int r = mountinfo_find(t->target, &info);

	if (r < 0 || strcmp(info.type, MOUNTINFO_TYPE) != 0)
		return r < 0 && r != -ENOENT
			       ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot read the mount table")
			       : -ENOENT;
	r = control_client_find(t->target, &m, &ignored);
	if (r == 0 && m.alive)
		r = control_client_ask(&m.runtime, m.name, &request, ASK_MS, ret, err);
	else if (r == 0 || r == -ENOENT || r == -EXDEV)
		r = -ESTALE;
	control_client_close(&m);
	if (r == -ECONNREFUSED || r == -ENOENT || r == -ECONNRESET)
		r = -ESTALE;
	return r == 0 && strcmp(ret->state, "failed") == 0 ? -ESTALE : r;
}

static void copy_text(char *to, size_t size, const char *from)
{
	printable_text(from, to, size);
}

static int do_look(struct task *t, struct job_result *ret)
{
	struct plugin_status *s = &ret->status;
	struct message_status status;
	int r = look(t, &status, &ret->error);

	ret->error = ERROR_NONE;
	if (r == 0) {
		copy_text(s->state, sizeof(s->state), status.state);
		copy_text(s->format, sizeof(s->format), status.format);
		copy_text(s->lower, sizeof(s->lower), status.lower);
		copy_text(s->last_error, sizeof(s->last_error), status.last_error);
		s->expires = status.expires;
		ret->mounted = true;
		return 0;
	}
	copy_text(s->state, sizeof(s->state),
		  r == -ENOENT   ? "not mounted"
		  : r == -ESTALE ? "dead"
				 : "silent");
	ret->mounted = r != -ENOENT;
	/* The configuration may have changed since it was created: told by Mount. */
	if (load(t, &ret->error) == 0) {
		copy_text(s->format, sizeof(s->format),
			  t->config->format == CONFIG_FORMAT_PLAIN ? "plain" : "gocryptfs");
		copy_text(s->lower, sizeof(s->lower),
			  t->config->lower == CONFIG_LOWER_FSCRYPT ? "fscrypt" : "directory");
	} else {
		copy_text(s->last_error, sizeof(s->last_error), ret->error.text);
		ret->error = ERROR_NONE;
	}
	return 0;
}

/* ---- mounting ---- */

static int unmount(const struct task *t, bool lazy, struct error *err)
{
	autoself struct self_args a = {.n = 0};
	char said[SELF_SAID_MAX];
	int status;

	self_add(&a, "umount");
	if (lazy)
		self_add(&a, "--lazy");
	self_add(&a, "--");
	self_add(&a, t->target);
	status = self_run(&a, said);
	if (status == EXIT_STATUS_DONE || status == EXIT_STATUS_NO_VOLUME)
		return 0;
	return self_error(status, said, "cannot unmount the volume", err);
}

/* NAME=VALUE as one word behind -o. */
static char *option_word(const struct plugin_option *o)
{
	char *word = malloc(sizeof(*o) + PLUGIN_VALUE_SIZE + 2), *to;

	if (!word)
		return NULL;
	to = word + sprintf(word, "%s=", o->name);
	for (const char *p = o->value; *p; p++) {
		if (*p == ',' || *p == '\\')
			*to++ = '\\';
		*to++ = *p;
	}
	*to = '\0';
	return word;
}

/* ckrfs mount [--config FILE] [-o ...] -- SOURCE|NAME TARGET */
static void mount_arguments(const struct task *t, struct self_args *a)
{
	const char *source = plugin_volume_option(t->volume, "source");
	const struct plugin_option name = {.name = "name"};
	struct plugin_option named = name;

	self_add(a, "mount");
	if (t->env->config_file) {
		self_add(a, "--config");
		self_add(a, t->env->config_file);
	}
	for (uint32_t i = 0; i < t->volume->n_options; i++) {
		const struct plugin_option *o = &t->volume->options[i];

		if (strcmp(o->name, "volume") == 0 || strcmp(o->name, "source") == 0)
			continue;
		self_add(a, "-o");
		self_take(a, option_word(o));
	}
	if (source) {
		memcpy(named.value, t->volume->name, sizeof(t->volume->name));
		self_add(a, "-o");
		self_take(a, option_word(&named));
	}
	self_add(a, "--");
	self_add(a, source ? source : plugin_volume_option(t->volume, "volume"));
	self_add(a, t->target);
}

static int mount(const struct task *t, struct error *err)
{
	autoself struct self_args a = {.n = 0};
	char said[SELF_SAID_MAX];
	int status;

	if (mkdir(t->target, 0700) < 0 && errno != EEXIST && errno != ENOTCONN)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot make %s", t->target);
	mount_arguments(t, &a);
	status = self_run(&a, said);
	if (status == EXIT_STATUS_DONE)
		return 0;
	return self_error(status, said, "cannot mount the volume", err);
}

/* Mounted and served: good. A mount that died is taken away first. */
static int do_mount(struct task *t, struct job_result *ret)
{
	struct message_status status;
	int r = look(t, &status, &ret->error);

	if (r == 0 && strcmp(status.state, "locked") == 0) {
		error_set(&ret->error, -ENOKEY, EXIT_STATUS_NO_KEY, "\"%s\" is locked", status.name);
		error_hint(&ret->error, "ckrfs unlock %s", status.name);
		return -ENOKEY;
	}
	if (r == 0) {
		ret->mounted = true;
		return 0;
	}
	if (r != -ENOENT && r != -ESTALE)
		return r;
	if (r == -ESTALE) {
		r = unmount(t, true, &ret->error);
		if (r < 0)
			return r;
	}
	ret->error = ERROR_NONE;
	r = load(t, &ret->error);
	if (r == 0)
		r = mount(t, &ret->error);
	ret->mounted = r == 0;
	return r;
}

static int do_unmount(struct task *t, bool in_use, struct job_result *ret)
{
	struct message_status status;
	int r = look(t, &status, &ret->error);

	ret->error = ERROR_NONE;
	if (r == -ENOENT)
		return 0;
	ret->mounted = true;
	if (in_use && r == 0) {
		error_set(&ret->error, -EBUSY, EXIT_STATUS_BUSY,
			  "volume \"%s\" is mounted for a container engine", t->volume->name);
		error_hint(&ret->error, "ckrfs umount %s", t->target);
		return -EBUSY;
	}
	r = unmount(t, r == -ESTALE, &ret->error);
	ret->mounted = r < 0;
	return r;
}

/* ---- the child ---- */

static void do_job(enum job_kind kind, struct task *t, bool in_use, struct job_result *ret)
{
	int r = 0;

	switch (kind) {
	case JOB_CHECK:
		r = load(t, &ret->error);
		break;
	case JOB_MOUNT:
		r = do_mount(t, ret);
		break;
	case JOB_UNMOUNT:
	case JOB_REMOVE:
		r = do_unmount(t, in_use, ret);
		break;
	case JOB_LOOK:
		r = do_look(t, ret);
		break;
	}
	if (r < 0 && ret->error.code == 0)
		error_errno(&ret->error, r, EXIT_STATUS_FAILED, "cannot handle the volume");
	config_free(t->config);
}

static _Noreturn void child(enum job_kind kind, const struct job_env *env, const struct plugin_volume *v,
			    bool in_use, pid_t parent, int fd)
{
	struct task t = {.env = env, .volume = v};
	struct job_result result = {.error = ERROR_NONE};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_STATUS_FAILED);
	plugin_target(env->store, v->name, t.target);
	do_job(kind, &t, in_use, &result);
	_exit(write_full(fd, &result, sizeof(result)) < 0 ? EXIT_STATUS_FAILED : EXIT_STATUS_DONE);
}

/* A pipe takes a result at once, so that nobody need read until the child has ended. */
_Static_assert(sizeof(struct job_result) <= 4096, "PIPE_BUF");

int job_start(struct job *job, enum job_kind kind, const struct job_env *env, const struct plugin_volume *v,
	      bool in_use, struct error *err)
{
	pid_t self = getpid(), pid;
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot start a job");
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		child(kind, env, v, in_use, self, fds[1]);
	close(fds[1]);
	if (pid < 0) {
		close(fds[0]);
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot start a job");
	}
	*job = (struct job){.pid = pid, .fd = fds[0], .kind = kind};
	return 0;
}

void job_end(struct job *job, struct job_result *ret)
{
	fcntl(job->fd, F_SETFL, O_NONBLOCK);
	if (read_full(job->fd, ret, sizeof(*ret)) != (ssize_t)sizeof(*ret)) {
		*ret = (struct job_result){.error = ERROR_NONE};
		error_set(&ret->error, -EIO, EXIT_STATUS_FAILED, "the job was killed");
	}
	cleanup_close(&job->fd);
	*job = JOB_NONE;
}

void job_kill(struct job *job)
{
	if (job->pid > 0)
		kill(job->pid, SIGKILL);
}
