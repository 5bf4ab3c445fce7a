/* SPDX-License-Identifier: MIT */
#include "doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "mount.h"
#include "util.h"

/* What the child says of one source, in one write(2) of less than PIPE_BUF. */
struct answer {
	int result; /* of keysource_probe() */
	size_t index;
	struct error error;
};

static void source_directory(struct diagnosis *d, const struct config *cfg)
{
	char check[80], conf[4200], mend[512] = "";
	struct stat st;

	snprintf(check, sizeof(check), "source %s", cfg->name);
	if (stat(cfg->source, &st) < 0) {
		diagnosis_add(d, check, DIAGNOSIS_PROBLEM, EXIT_STATUS_NO_VOLUME, NULL, "cannot find %s: %s",
			      cfg->source, strerror(errno));
		return;
	}
	snprintf(conf, sizeof(conf), "%s/gocryptfs.conf", cfg->source);
	if (S_ISDIR(st.st_mode) && cfg->format == CONFIG_FORMAT_GOCRYPTFS && !cfg->ephemeral &&
	    cfg->lower == CONFIG_LOWER_DIRECTORY && access(conf, F_OK) < 0 && errno == ENOENT) {
		if (cfg->n_keys)
			snprintf(mend, sizeof(mend), "ckrfs init %s --key '%s'", cfg->source, cfg->keys[0]);
		diagnosis_add(d, check, DIAGNOSIS_PROBLEM, EXIT_STATUS_NO_VOLUME, mend,
			      "%s is no volume: it has no gocryptfs.conf", cfg->source);
		return;
	}
	diagnosis_add(d, check, DIAGNOSIS_OK, 0, NULL, "%s is there", cfg->source);
}

static void target_directory(struct diagnosis *d, const struct config *cfg)
{
	char check[80], mend[512];
	struct stat st;

	snprintf(check, sizeof(check), "target %s", cfg->name);
	if (!cfg->target) {
		diagnosis_add(d, check, DIAGNOSIS_OK, 0, NULL, "none is configured: name one when mounting");
	} else if (stat(cfg->target, &st) < 0 && errno == ENOENT) {
		snprintf(mend, sizeof(mend), "mkdir -p %s", cfg->target);
		diagnosis_add(d, check, DIAGNOSIS_PROBLEM, EXIT_STATUS_FAILED, mend, "%s does not exist",
			      cfg->target);
	} else if (stat(cfg->target, &st) < 0 && errno == ENOTCONN) {
		snprintf(mend, sizeof(mend), "ckrfs umount %s", cfg->target);
		diagnosis_add(d, check, DIAGNOSIS_PROBLEM, EXIT_STATUS_FAILED, mend,
			      "there is a dead mount on %s", cfg->target);
	} else {
		diagnosis_add(d, check, DIAGNOSIS_OK, 0, NULL, "%s is there", cfg->target);
	}
}

/* ---- key sources ---- */

static void tell(void *ctx, size_t index, int result, const struct error *err)
{
	struct answer a = {.result = result, .index = index, .error = *err};

	write_full(*(const int *)ctx, &a, sizeof(a));
}

/* Takes cfg over. */
static void probe_in_child(struct config *cfg, int fd)
{
	struct error err = ERROR_NONE;
	struct mount *m = NULL;
	int r = mount_new(cfg, getuid(), &m, &err);

	if (r == 0)
		r = mount_probe_sources(m, tell, &fd, &err);
	if (r < 0)
		tell(&fd, SIZE_MAX, r, &err);
	_exit(0);
}

static void add_source(struct diagnosis *d, const char *check, const char *spec, const struct answer *a,
		       bool other_serves)
{
	if (a->result == 1)
		diagnosis_add(d, check, DIAGNOSIS_NOTE, 0, NULL,
			      "whether %s serves cannot be told without taking the key", spec);
	else if (a->result == 0)
		diagnosis_add(d, check, DIAGNOSIS_OK, 0, NULL, "%s can be reached", spec);
	else if (other_serves)
		diagnosis_add(d, check, DIAGNOSIS_NOTE, 0, a->error.hint, "%s", a->error.text);
	else
		diagnosis_add_error(d, check, &a->error);
}

/* One source that serves is enough: then the errors of the others are notes. */
static void add_answers(struct diagnosis *d, const struct config *cfg, const struct answer *answers, size_t n)
{
	char check[80], lower_check[80];
	bool serves = false;

	snprintf(check, sizeof(check), "key %s", cfg->name);
	snprintf(lower_check, sizeof(lower_check), "lower-key %s", cfg->name);
	for (size_t i = 0; i < n; i++)
		serves = serves || (answers[i].result >= 0 && answers[i].index < cfg->n_keys);
	for (size_t i = 0; i < n; i++) {
		size_t index = answers[i].index;

		if (index == SIZE_MAX)
			diagnosis_add_error(d, check, &answers[i].error);
		else if (index >= cfg->n_keys)
			add_source(d, lower_check, cfg->lower_key, &answers[i], false);
		else
			add_source(d, check, cfg->keys[index], &answers[i], serves);
	}
}

static void read_answers(struct diagnosis *d, const struct config *cfg, int fd)
{
	autofree struct answer *answers = calloc(cfg->n_keys + 1, sizeof(*answers));
	size_t n = 0;

	while (answers && n < cfg->n_keys + (cfg->lower_key != NULL) &&
	       read_full(fd, &answers[n], sizeof(*answers)) == (ssize_t)sizeof(*answers))
		n++;
	if (n == 0)
		diagnosis_add(d, "key", DIAGNOSIS_PROBLEM, EXIT_STATUS_FAILED, NULL,
			      "cannot look at the key sources of \"%s\"", cfg->name);
	else
		add_answers(d, cfg, answers, n);
}

/* In a child: looking into a keyring takes one of its own. */
static void key_sources(struct diagnosis *d, struct config *cfg)
{
	int fds[2];
	pid_t pid;

	if ((!cfg->n_keys && !cfg->lower_key) || pipe2(fds, O_CLOEXEC) < 0)
		return;
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		probe_in_child(cfg, fds[1]);
	close(fds[1]);
	read_answers(d, cfg, fds[0]);
	close(fds[0]);
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

void doctor_volume(struct diagnosis *d, const struct config_set *set, const char *name)
{
	autoconfig struct config *cfg = NULL;
	struct error err = ERROR_NONE;
	char check[80];
	int r = config_volume(set, name, &cfg, &err);

	snprintf(check, sizeof(check), "volume %s", name);
	if (r == 0)
		r = config_volume_finish(cfg, &err);
	if (r < 0) {
		diagnosis_add_error(d, check, &err);
		return;
	}
	diagnosis_add(d, check, DIAGNOSIS_OK, 0, NULL, "its options are right");
	source_directory(d, cfg);
	target_directory(d, cfg);
	key_sources(d, cfg);
}
