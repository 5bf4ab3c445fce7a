/* SPDX-License-Identifier: MIT */
/* ckrfs oci-hook: called by container runtimes, with the container's state on standard input. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cleanup.h"
#include "command.h"
#include "log.h"
#include "oci_hook_impl.h"
#include "util.h"
#include "volume_plugin_impl.h"

/* How long poststop waits for a first process that its runtime has killed just before. */
enum { POSTSTOP_WAIT_MS = 5000, SHORT_ID = 12, LONG_ID = 64 };

struct hook {
	const char *config_file;
	struct oci_user user;
	struct oci_volumes volumes;
	struct config *configs[OCI_VOLUMES_MAX]; /* of the volumes; owned */
	struct oci_mounts mounts;
	char root[OCI_PATH_SIZE]; /* in the container's namespace, before it is the root */
	int pid_fd;
};

static struct hook *hook_new(const char *config_file)
{
	struct hook *h = calloc(1, sizeof(*h));

	if (h) {
		h->config_file = config_file;
		h->mounts = OCI_MOUNTS_NONE;
		h->pid_fd = -1;
	}
	return h;
}

static void hook_free(struct hook **h)
{
	for (size_t i = 0; *h && i < OCI_VOLUMES_MAX; i++)
		config_free((*h)->configs[i]);
	if (*h) {
		oci_mounts_close(&(*h)->mounts);
		cleanup_close(&(*h)->pid_fd);
	}
	free(*h);
}
#define autohook __attribute__((cleanup(hook_free)))

/* ---- the container's process ---- */

int oci_process_start(pid_t pid, uint64_t *ret)
{
	char path[64], text[1024], *field, *save = NULL;
	autofd int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read_full(fd, text, sizeof(text) - 1);
	if (n < 0)
		return -ESRCH;
	text[n] = '\0';
	/* proc_pid_stat(5): the name, in parentheses, may hold anything; state is field 3, starttime 22. */
	field = strrchr(text, ')');
	field = field ? strtok_r(field + 1, " ", &save) : NULL;
	if (!field || strchr("ZX", *field))
		return -ESRCH;
	for (int i = 3; i < 22 && field; i++)
		field = strtok_r(NULL, " ", &save);
	return field && parse_u64(field, UINT64_MAX, ret) == 0 ? 0 : -ESRCH;
}

bool oci_user_alive(const struct oci_user *user)
{
	uint64_t start;

	return user->pid > 0 && oci_process_start(user->pid, &start) == 0 && start == user->start;
}

static int open_process(struct hook *h, struct error *err)
{
	if (h->user.pid == 0)
		return error_set(err, -ESRCH, EXIT_STATUS_FAILED,
				 "the container's state has no pid: it has to have one in this phase");
	h->pid_fd = (int)syscall(SYS_pidfd_open, h->user.pid, 0);
	if (h->pid_fd < 0 || oci_process_start(h->user.pid, &h->user.start) < 0)
		return error_set(err, -ESRCH, EXIT_STATUS_FAILED, "the container's process %d has ended",
				 (int)h->user.pid);
	return 0;
}

/* ---- what comes in ---- */

/* One byte past the limit is read, so that the parser tells. */
static int read_document(int fd, size_t max, const char *what, char **ret, size_t *ret_size,
			 struct error *err)
{
	autofree char *text = malloc(max + 1);
	ssize_t n = text ? read_full(fd, text, max + 1) : -ENOMEM;

	if (n < 0)
		return error_errno(err, (int)n, EXIT_STATUS_FAILED, "cannot read %s", what);
	*ret = steal_ptr(&text);
	*ret_size = (size_t)n;
	return 0;
}

static int read_state(struct oci_state *ret, struct error *err)
{
	autofree char *text = NULL;
	size_t size = 0;
	int r = read_document(STDIN_FILENO, OCI_STATE_MAX, "the container's state", &text, &size, err);

	return r < 0 ? r : oci_state_parse(text, size, ret, err);
}

/* The bundle is the runtime's word; what is in it is not followed out of it. */
static int open_config(const char *bundle)
{
	struct open_how how = {.flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
	autofd int dir = open(bundle, O_PATH | O_DIRECTORY | O_CLOEXEC), fd = -1;
	struct stat st;

	if (dir < 0)
		return -errno;
	fd = (int)syscall(SYS_openat2, dir, "config.json", &how, sizeof(how));
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	return S_ISREG(st.st_mode) ? steal_fd(&fd) : -EINVAL;
}

static int read_config(const char *bundle, struct oci_config *ret, struct error *err)
{
	autofd int fd = open_config(bundle);
	autofree char *text = NULL;
	size_t size = 0;
	int r;

	if (fd < 0)
		return error_errno(err, fd, EXIT_STATUS_FAILED, "cannot read %s/config.json", bundle);
	r = read_document(fd, OCI_CONFIG_MAX, "the container's config.json", &text, &size, err);
	return r < 0 ? r : oci_config_parse(text, size, ret, err);
}

/* Annotations are those of the state; where an old runtime leaves them out, those of the bundle. */
static int read_container(struct hook *h, struct error *err)
{
	autofree struct oci_state *state = calloc(1, sizeof(*state));
	autofree struct oci_config *config = calloc(1, sizeof(*config));
	int r, n;

	if (!state || !config)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot read the container's state");
	r = read_state(state, err);
	if (r == 0)
		r = read_config(state->bundle, config, err);
	if (r < 0)
		return r;
	h->volumes = state->has_annotations ? state->volumes : config->volumes;
	h->user.pid = state->pid;
	memcpy(h->user.id, state->id, sizeof(state->id));
	if (config->root[0] == '/')
		n = snprintf(h->root, sizeof(h->root), "%s", config->root);
	else
		n = snprintf(h->root, sizeof(h->root), "%s/%s", state->bundle, config->root);
	return n < (int)sizeof(h->root) ? 0
					: error_set(err, -ENAMETOOLONG, EXIT_STATUS_FAILED,
						    "the container's root has a long path");
}

/* ---- what is allowed ---- */

/* As for who asks the volume plugin for that volume: docs/threat-model.md. */
static int check_volume(const struct config_set *set, const struct oci_volume *volume, struct config **ret,
			struct error *err)
{
	struct plugin_volume *asked = calloc(1, sizeof(*asked));
	int r;

	if (!asked)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot look for it");
	memcpy(asked->name, volume->name, sizeof(asked->name));
	asked->n_options = 1;
	strcpy(asked->options[0].name, "volume");
	memcpy(asked->options[0].value, volume->name, sizeof(volume->name));
	r = policy_check(set, asked, ret, err);
	free(asked);
	return r;
}

static int volume_failed(const struct hook *h, const struct oci_volume *volume, struct error *err)
{
	const char *id = h->user.id;

	if (!*id)
		return error_prefix(err, "cannot give volume \"%s\" to the container", volume->name);
	return error_prefix(err, "cannot give volume \"%s\" to container %.*s", volume->name,
			    strlen(id) == LONG_ID ? SHORT_ID : (int)strlen(id), id);
}

/* All, before anything is mounted for one of them. */
static int check_volumes(struct hook *h, struct error *err)
{
	autoconfig_set struct config_set *set = NULL;
	int r = config_load(h->config_file, getuid(), &set, err);

	if (r == 0)
		r = policy_check_rules(set, err);
	for (uint32_t i = 0; r == 0 && i < h->volumes.n; i++) {
		const struct oci_volume *volume = &h->volumes.list[i];

		r = check_volume(set, volume, &h->configs[i], err);
		if (r < 0)
			return volume_failed(h, volume, err);
	}
	return r;
}

/* ---- the end of the container ---- */

/* What a runtime reads of a hook's outputs ends when nobody has them open any more. */
static void leave_runtime(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = STDIN_FILENO; null >= 0 && fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	if (null > STDERR_FILENO)
		close(null);
	setsid();
	if (chdir("/") < 0)
		_exit(EXIT_STATUS_FAILED);
	prctl(PR_SET_NAME, "ckrfs-oci-watch");
}

/* The runtime says by poststop that a container has ended, unless it is killed itself. */
static _Noreturn void watch(const struct hook *h)
{
	struct pollfd fd = {.fd = h->pid_fd, .events = POLLIN};
	struct error err = ERROR_NONE;
	int r;

	leave_runtime();
	while (poll(&fd, 1, -1) < 0 && errno == EINTR)
		;
	r = oci_mounts_release(&h->mounts, &h->user, &err);
	if (r < 0)
		log_error(&err);
	_exit(r < 0 ? EXIT_STATUS_FAILED : EXIT_STATUS_DONE);
}

static int start_watcher(const struct hook *h, struct error *err)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0)
		watch(h);
	if (pid > 0)
		return 0;
	return error_errno(err, -errno, EXIT_STATUS_FAILED,
			   "cannot start what waits for the container's end");
}

/* ---- the phases ---- */

static int give_volumes(struct hook *h, struct error *err)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < h->volumes.n; i++) {
		const struct oci_volume *volume = &h->volumes.list[i];
		autofd int tree_fd = -1;

		r = oci_mounts_take(&h->mounts, &h->user, volume, h->configs[i], &tree_fd, err);
		if (r == 0)
			r = oci_attach(tree_fd, h->pid_fd, h->root, volume, err);
		if (r < 0)
			return volume_failed(h, volume, err);
		log_msg(LOG_LEVEL_INFO, "volume \"%s\" is on %s in container %s", volume->name, volume->path,
			h->user.id);
	}
	return r;
}

static int do_create(struct hook *h, struct error *err)
{
	struct error late = ERROR_NONE;
	int r = read_container(h, err);

	if (r < 0 || h->volumes.n == 0)
		return r;
	r = check_volumes(h, err);
	if (r == 0)
		r = open_process(h, err);
	if (r == 0)
		r = oci_mounts_open(h->config_file, &h->mounts, err);
	if (r == 0)
		r = start_watcher(h, err);
	if (r < 0)
		return r;
	oci_forget(&h->mounts, h->pid_fd);
	r = give_volumes(h, err);
	/* The watcher will try again, when the runtime has ended the container. */
	if (r < 0 && oci_mounts_release(&h->mounts, &h->user, &late) < 0)
		log_error(&late);
	return r;
}

/* Runtimes kill, and run this hook, and wait for the end in any order. */
static void wait_for_end(pid_t pid)
{
	struct pollfd fd = {.events = POLLIN};
	autofd int pid_fd = pid ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

	fd.fd = pid_fd;
	if (pid_fd >= 0)
		poll(&fd, 1, POSTSTOP_WAIT_MS);
}

static int do_poststop(struct hook *h, struct error *err)
{
	autofree struct oci_state *state = calloc(1, sizeof(*state));
	int r = state ? read_state(state, err)
		      : error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot read the container's state");

	if (r == 0)
		r = oci_mounts_open(h->config_file, &h->mounts, err);
	if (r < 0)
		return r;
	memcpy(h->user.id, state->id, sizeof(state->id));
	wait_for_end(state->pid);
	return oci_mounts_release(&h->mounts, &h->user, err);
}

/* Podman's own phase: gets config.json, and gives it back. Nothing is mounted, as the container has no ID
 * yet; but here podman's user still sees what is wrong. */
static int do_precreate(struct hook *h, struct error *err)
{
	autofree struct oci_config *config = calloc(1, sizeof(*config));
	autofree char *text = NULL;
	size_t size = 0;
	int r = config ? read_document(STDIN_FILENO, OCI_CONFIG_MAX, "the container's config.json", &text,
				       &size, err)
		       : error_errno(err, -ENOMEM, EXIT_STATUS_FAILED,
				     "cannot read the container's config.json");

	if (r == 0)
		r = oci_config_parse(text, size, config, err);
	if (r < 0)
		return r;
	h->volumes = config->volumes;
	if (h->volumes.n)
		r = check_volumes(h, err);
	if (r == 0)
		r = write_full(STDOUT_FILENO, text, size);
	return r < 0 && !err->code
		       ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot write the container's config.json")
		       : r;
}

static const struct phase {
	const char *name;
	int (*run)(struct hook *h, struct error *err);
} phases[] = {
	{"createRuntime", do_create},
	{"prestart", do_create}, /* the same moment, in runtimes of before 2020 */
	{"poststop", do_poststop},
	{"precreate", do_precreate},
};

static const struct phase *find_phase(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(phases); i++)
		if (strcmp(phases[i].name, name) == 0)
			return &phases[i];
	return NULL;
}

/* ---- errors ---- */

/* crun and podman run hooks with their outputs at /dev/null: then it is told where they tell theirs. */
static void tell_parent(const struct error *err)
{
	autofd int parent = -1;
	struct stat st;
	FILE *to;
	int fd;

	if (fstat(STDERR_FILENO, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
		return;
	parent = (int)syscall(SYS_pidfd_open, getppid(), 0);
	fd = parent < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, parent, STDERR_FILENO, 0);
	to = fd < 0 ? NULL : fdopen(fd, "w");
	if (!to) {
		cleanup_close(&fd);
		return;
	}
	error_print(to, err);
	fclose(to);
}

/* Where the mounts of this configuration log, or the system's log if that cannot be read. */
static void open_log(const char *config_file)
{
	autoconfig_set struct config_set *set = NULL;
	autoconfig struct config *cfg = NULL;

	if (config_load(config_file, getuid(), &set, NULL) < 0 ||
	    config_anonymous(set, "oci-hook", &cfg, NULL) < 0 ||
	    log_open(cfg->log, (enum log_level)cfg->log_level, NULL) < 0)
		log_open("syslog", LOG_LEVEL_INFO, NULL);
}

static int args_set(void *ctx, const char *name, const char *value, struct error *err)
{
	const char **config_file = ctx;

	(void)err;
	if (strcmp(name, "config") == 0)
		*config_file = value;
	return 0;
}

int cmd_oci_hook(const struct front *front, int argc, char **argv)
{
	const struct command *cmd = command_find("oci-hook");
	const char *config_file = front->config_file;
	struct error err = ERROR_NONE;
	const struct phase *phase;
	autohook struct hook *h = NULL;
	int first, r = command_parse(cmd, argc, argv, args_set, &config_file, &first);

	if (r < 0)
		return r == -ECANCELED ? EXIT_STATUS_DONE : EXIT_STATUS_USAGE;
	if (argc - first != 1)
		return command_usage(cmd, "one phase is needed");
	phase = find_phase(argv[first]);
	if (!phase)
		return command_usage(cmd, "unknown phase \"%s\"", argv[first]);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL); /* whatever the runtime has: children are waited for */
	/* What a runtime has left open would stay so for as long as the mount. */
	close_range(STDERR_FILENO + 1, ~0U, 0);
	open_log(config_file);
	h = hook_new(config_file);
	r = h ? phase->run(h, &err) : error_errno(&err, -ENOMEM, EXIT_STATUS_FAILED, "cannot run the hook");
	if (r == 0)
		return EXIT_STATUS_DONE;
	log_error(&err);
	tell_parent(&err);
	return command_fail(&err);
}
