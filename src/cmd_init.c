/* SPDX-License-Identifier: MIT */
/* ckrfs init: makes a volume. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "cmd_init_fscrypt.h"
#include "command.h"
#include "config.h"
#include "mount.h"
#include "progress.h"
#include "store.h"
#include "util.h"
#include "volume_args.h"

enum {
	SCRYPT_N_MIN = 10,
	SCRYPT_N_MAX = 28,
	LONG_NAME_MIN = 62, /* the hash alone has 62 characters behind its prefix */
	LONG_NAME_MAX = 254,
};

static const char *const cipher_words[] = {
	[FORMAT_CIPHER_AES_GCM] = "aes-gcm",
	[FORMAT_CIPHER_AES_SIV] = "aes-siv",
	[FORMAT_CIPHER_XCHACHA] = "xchacha",
	NULL,
};

static const char *const names_words[] = {
	[FORMAT_NAMES_ENCRYPTED] = "encrypted",
	[FORMAT_NAMES_DETERMINISTIC] = "deterministic",
	[FORMAT_NAMES_PLAINTEXT] = "plaintext",
	NULL,
};

struct init_args {
	struct volume_args volume;
	struct format_init_params params; /* what the options say */
	struct init_fscrypt fscrypt;
	const char *lower;
};

static int set_number(const char *name, const char *value, unsigned min, unsigned max, unsigned *ret,
		      struct error *err)
{
	uint64_t n;

	if (parse_u64(value, max, &n) < 0 || n < min)
		return error_set(err, -EINVAL, EXIT_STATUS_USAGE, "--%s must be %u to %u, not \"%s\"", name,
				 min, max, value);
	*ret = (unsigned)n;
	return 0;
}

/* The place of value in words; -EINVAL */
static int set_word(const char *name, const char *value, const char *const *words, struct error *err)
{
	const char *near = nearest_word(value, words);

	for (int i = 0; words[i]; i++)
		if (strcmp(words[i], value) == 0)
			return i;
	if (near)
		return error_set(err, -EINVAL, EXIT_STATUS_USAGE,
				 "--%s has no value \"%s\" (did you mean %s?)", name, value, near);
	return error_set(err, -EINVAL, EXIT_STATUS_USAGE, "--%s must be %s, %s or %s, not \"%s\"", name,
			 words[0], words[1], words[2], value);
}

static int init_args_set(void *ctx, const char *name, const char *value, struct error *err)
{
	struct init_args *a = ctx;
	int word = init_fscrypt_set(&a->fscrypt, name, value, err);

	if (word)
		return word < 0 ? word : 0;
	if (strcmp(name, "lower") == 0)
		a->lower = value;
	else if (strcmp(name, "scrypt-n") == 0)
		return set_number(name, value, SCRYPT_N_MIN, SCRYPT_N_MAX, &a->params.log_n, err);
	else if (strcmp(name, "longname-max") == 0)
		return set_number(name, value, LONG_NAME_MIN, LONG_NAME_MAX, &a->params.long_name_max, err);
	else if (strcmp(name, "cipher") == 0 && (word = set_word(name, value, cipher_words, err)) >= 0)
		a->params.cipher = (enum format_cipher)word;
	else if (strcmp(name, "names") == 0 && (word = set_word(name, value, names_words, err)) >= 0)
		a->params.names = (enum format_names)word;
	return word < 0 ? word : volume_args_set(&a->volume, name, value, err);
}

/* Somebody's files must not be taken for a volume, or be hidden in one. */
static int check_empty(int fd, const char *directory, struct error *err)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	autodir DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;

	if (!dir)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot read %s", directory);
	while ((e = readdir(dir))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		/* An init that was interrupted; the format looks closer. */
		if (strcmp(e->d_name, "gocryptfs.diriv") == 0 || strcmp(e->d_name, "gocryptfs.conf.tmp") == 0)
			continue;
		if (strcmp(e->d_name, "gocryptfs.conf") == 0)
			return error_set(err, -EEXIST, EXIT_STATUS_FAILED,
					 "%s is a volume already: it is not empty", directory);
		return error_set(err, -ENOTEMPTY, EXIT_STATUS_FAILED, "%s is not empty", directory);
	}
	return 0;
}

static int open_directory(const char *directory, struct error *err)
{
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), code = -errno, r;

	if (fd < 0) {
		error_errno(err, code, EXIT_STATUS_FAILED, "cannot open %s", directory);
		if (code == -ENOENT)
			error_hint(err, "mkdir -p %s", directory);
		return code;
	}
	r = check_empty(fd, directory, err);
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

/* ---- making it ---- */

/* Shows that something goes on while format_init() stretches the passphrase. */
struct ticker {
	struct progress progress;
	_Atomic bool done;
};

static void *tick(void *arg)
{
	struct ticker *t = arg;
	struct timespec step = {.tv_nsec = 50000000};

	while (!atomic_load(&t->done)) {
		nanosleep(&step, NULL);
		progress_tick(&t->progress);
	}
	return NULL;
}

static int make_volume(const struct format_init_params *params, struct error *err)
{
	struct ticker ticker = {0};
	pthread_t thread;
	bool running;
	int r;

	progress_begin(&ticker.progress, "making the volume (scrypt)");
	running = pthread_create(&thread, NULL, tick, &ticker) == 0;
	r = format_init(params, err);
	atomic_store(&ticker.done, true);
	if (running)
		pthread_join(thread, NULL);
	progress_end(&ticker.progress);
	return r;
}

static void say_done(const struct config *cfg, const struct init_args *a)
{
	printf("made a gocryptfs volume in %s\n", cfg->source);
	printf("mount it with: ckrfs mount %s TARGET --key '%s'\n", cfg->source,
	       a->volume.n_keys ? a->volume.keys[0] : "SPEC");
}

static int init_volume(struct mount *m, const struct init_args *a, struct error *err)
{
	const struct config *cfg = m->config;
	autofd int fd = open_directory(cfg->source, err);
	struct format_init_params params = a->params;
	int r;

	if (fd < 0)
		return fd;
	r = store_init_proc();
	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot open /proc/self/fd");
	if (cfg->lower == CONFIG_LOWER_FSCRYPT)
		return init_fscrypt_make(m, fd, &a->fscrypt, a->volume.n_keys ? a->volume.keys[0] : NULL,
					 err);
	r = mount_get_key(m, err);
	params.kind = cfg->format;
	params.root_fd = fd;
	params.key = &m->key;
	params.scrypt_memory = cfg->scrypt_memory;
	if (r == 0)
		r = make_volume(&params, err);
	if (r == 0)
		say_done(cfg, a);
	return r;
}

/* --lower is -o lower=, in front of the others. */
static int init_config(const struct init_args *a, const char *directory, struct config **ret,
		       struct error *err)
{
	struct volume_args volume = a->volume;
	autofree char *options = NULL;

	if (a->lower && asprintf(&options, "lower=%s%s%s", a->lower, volume.options ? "," : "",
				 volume.options ? volume.options : "") < 0) {
		options = NULL;
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot read the options");
	}
	if (options)
		volume.options = options;
	return volume_args_config(&volume, "init", directory, VOLUME_DIRECTORY, ret, err);
}

/* Each lower and format has options of its own. */
static int check_args(const struct init_args *a, const struct config *cfg, struct error *err)
{
	const struct format_init_params *p = &a->params;
	bool gocryptfs = p->cipher || p->names || p->long_name_max || p->log_n;

	if (cfg->lower == CONFIG_LOWER_FSCRYPT && cfg->format != CONFIG_FORMAT_PLAIN)
		return error_set(
			err, -EINVAL, EXIT_STATUS_USAGE,
			"make the directory first (--lower fscrypt), then the volume in a mount of it");
	if (cfg->lower == CONFIG_LOWER_FSCRYPT && gocryptfs)
		return error_set(err, -EINVAL, EXIT_STATUS_USAGE,
				 "--cipher, --names, --longname-max and --scrypt-n are about gocryptfs, not "
				 "--lower fscrypt");
	if (cfg->lower != CONFIG_LOWER_FSCRYPT && a->fscrypt.given)
		return error_set(err, -EINVAL, EXIT_STATUS_USAGE,
				 "--contents, --filenames, --padding and --iv are about --lower fscrypt");
	return 0;
}

static int run_init(const struct init_args *a, const char *directory, struct error *err)
{
	struct config *cfg = NULL;
	struct mount *m = NULL;
	int r = init_config(a, directory, &cfg, err);

	if (r == 0 && (r = check_args(a, cfg, err)) < 0)
		config_free(cfg);
	if (r == 0)
		r = mount_new(cfg, getuid(), &m, err);
	if (r < 0)
		return r;
	r = init_volume(m, a, err);
	if (r < 0)
		error_prefix(err, "cannot make a volume");
	mount_stop(m);
	mount_free(m);
	return r;
}

int cmd_init(const struct front *front, int argc, char **argv)
{
	const struct command *cmd = command_find("init");
	struct init_args a = {.volume.config_file = front->config_file};
	struct error err = ERROR_NONE;
	int first, r = command_parse(cmd, argc, argv, init_args_set, &a, &first);

	if (r < 0)
		return r == -ECANCELED ? EXIT_STATUS_DONE : EXIT_STATUS_USAGE;
	if (argc - first != 1)
		return command_usage(cmd, "one directory is needed");
	if (a.params.names == FORMAT_NAMES_PLAINTEXT && a.params.long_name_max)
		return command_usage(cmd, "--longname-max is about encrypted names: there are none with "
					  "--names plaintext");
	return run_init(&a, argv[first], &err) < 0 ? command_fail(&err) : EXIT_STATUS_DONE;
}
