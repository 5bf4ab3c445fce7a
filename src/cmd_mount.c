/* SPDX-License-Identifier: MIT */
/* ckrfs mount, and mount.ckrfs for mount(8). */
#include <errno.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "command.h"
#include "config.h"
#include "fusemount.h"
#include "keeper.h"
#include "progress.h"
#include "util.h"

enum { WORDS_MAX = 64, TICK_MS = 1000, NAME_SIZE = 65 };

/* mount(8), "EXIT STATUS". */
enum { HELPER_USAGE = 1, HELPER_SYSTEM = 2, HELPER_FAILED = 32 };

/* One -o or --key, in the order of the command line. */
struct word {
	const char *option; /* NULL: a list behind -o, else a single option */
	const char *value;
};

struct mount_args {
	const char *config_file;
	const char *volume, *target; /* operands */
	char name[NAME_SIZE];        /* -o name= */
	bool foreground, verbose;
	struct word words[WORDS_MAX];
	size_t n_words;
};

static int add_word(struct mount_args *a, const char *option, const char *value, struct error *err)
{
	if (a->n_words == WORDS_MAX)
		return error_set(err, -E2BIG, EXIT_STATUS_USAGE, "more than %d options", WORDS_MAX);
	a->words[a->n_words++] = (struct word){option, value};
	return 0;
}

static int mount_args_set(void *ctx, const char *name, const char *value, struct error *err)
{
	struct mount_args *a = ctx;

	if (strcmp(name, "config") == 0)
		a->config_file = value;
	else if (strcmp(name, "options") == 0)
		return add_word(a, NULL, value, err);
	else if (strcmp(name, "key") == 0)
		return add_word(a, "key", value, err);
	else if (strcmp(name, "foreground") == 0)
		a->foreground = true;
	else if (strcmp(name, "verbose") == 0)
		a->verbose = true;
	return 0;
}

/* ---- the volume's values ---- */

/* Takes "name=NAME" out of a list of options: it names the mount, and is no value of the volume. */
static int take_name(char *list, char *name, struct error *err)
{
	for (char *word = list; *word;) {
		char *end = word;

		while (*end && *end != ',')
			end += *end == '\\' && end[1] ? 2 : 1;
		if (strncmp(word, "name=", 5) != 0) {
			word = *end ? end + 1 : end;
			continue;
		}
		snprintf(name, NAME_SIZE, "%.*s", (int)(end - word - 5), word + 5);
		if (end - word - 5 >= NAME_SIZE || !config_mount_name_valid(name))
			return error_set(
				err, -EINVAL, EXIT_STATUS_CONFIG,
				"-o: name \"%.*s\" is not 1 to 64 letters, digits, \".\", \"_\" or \"-\"",
				(int)(end - word - 5), word + 5);
		memmove(word, *end ? end + 1 : end, strlen(*end ? end + 1 : end) + 1);
	}
	return 0;
}

/* A name for a mount without one: /srv/web becomes srv-web. */
static void name_from_target(const char *target, char name[NAME_SIZE])
{
	size_t n = 0;

	while (*target == '/')
		target++;
	/* The end tells more than the beginning. */
	if (strlen(target) >= NAME_SIZE)
		target += strlen(target) - (NAME_SIZE - 1);
	for (; *target; target++) {
		char c = *target == '/' ? '-' : *target;
		bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			    c == '-' || c == '_' || c == '.';

		name[n] = fine && (n > 0 || (c != '.' && c != '-')) ? c : '_';
		n++;
	}
	snprintf(name + n, NAME_SIZE - n, "%s", n ? "" : "root");
}

static bool is_path(const char *operand)
{
	return strchr(operand, '/') || strcmp(operand, ".") == 0 || strcmp(operand, "..") == 0;
}

static int apply_words(struct config *cfg, struct mount_args *a, struct error *err)
{
	int r = 0;

	for (size_t i = 0; i < a->n_words && r == 0; i++) {
		const struct word *w = &a->words[i];
		char ignored[NAME_SIZE];
		autofree char *list = NULL;

		if (w->option) {
			r = config_set_option(cfg, w->option, w->value, "-o", err);
			continue;
		}
		list = strdup(w->value);
		if (!list)
			return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot read the options");
		r = take_name(list, ignored, err);
		if (r == 0)
			r = config_apply_options(cfg, list, "-o", err);
	}
	return r;
}

static int find_name(struct mount_args *a, struct error *err)
{
	for (size_t i = 0; i < a->n_words; i++) {
		autofree char *list = a->words[i].option ? NULL : strdup(a->words[i].value);
		int r = list ? take_name(list, a->name, err) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

/* SOURCE TARGET: the values are those of [defaults] and the command line. */
static int path_config(const struct config_set *set, struct mount_args *a, struct config **ret,
		       struct error *err)
{
	autoconfig struct config *cfg = NULL;
	char target[4096] = "";
	int r;

	if (!a->target)
		return error_set(err, -EINVAL, EXIT_STATUS_USAGE, "a target is needed to mount %s",
				 a->volume);
	if (!a->name[0]) {
		if (!realpath(a->target, target))
			snprintf(target, sizeof(target), "%s", a->target);
		name_from_target(target, a->name);
	}
	r = config_anonymous(set, a->name, &cfg, err);
	if (r == 0)
		r = config_set_option(cfg, "source", a->volume, "the command line", err);
	if (r == 0)
		*ret = steal_ptr(&cfg);
	return r;
}

/* A mount of a volume of the configuration with another name than the volume's: a second one, of a container.
 */
static int rename_mount(struct config *cfg, const char *name, struct error *err)
{
	char *copy = strdup(name);

	if (!copy)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot mount \"%s\"", cfg->name);
	free(cfg->name);
	cfg->name = copy;
	return 0;
}

static int build_config(struct mount_args *a, struct config **ret, struct error *err)
{
	autoconfig_set struct config_set *set = NULL;
	autoconfig struct config *cfg = NULL;
	int r = config_load(a->config_file, getuid(), &set, err);

	if (r == 0)
		r = find_name(a, err);
	if (r == 0)
		r = is_path(a->volume) ? path_config(set, a, &cfg, err)
				       : config_volume(set, a->volume, &cfg, err);
	if (r == 0 && a->name[0])
		r = rename_mount(cfg, a->name, err);
	if (r == 0 && a->target)
		r = config_set_option(cfg, "target", a->target, "the command line", err);
	if (r == 0)
		r = apply_words(cfg, a, err);
	if (r == 0)
		r = config_volume_finish(cfg, err);
	if (r == 0 && !cfg->target)
		r = error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
			      "volume \"%s\" has no target: name one behind it, or in its section",
			      cfg->name);
	if (r == 0)
		*ret = steal_ptr(&cfg);
	return r;
}

static int canonical_target(struct config *cfg, struct error *err)
{
	char target[4096], *copy;
	int r = fusemount_check_target(cfg->target, target, err);

	if (r < 0)
		return error_prefix(err, "cannot mount \"%s\"", cfg->name);
	copy = strdup(target);
	if (!copy)
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot mount \"%s\"", cfg->name);
	free(cfg->target);
	cfg->target = copy;
	return 0;
}

static int find_owner(const struct config *cfg, uid_t *ret, struct error *err)
{
	const struct passwd *user;
	uint64_t number;

	if (!cfg->owner) {
		*ret = getuid();
		return 0;
	}
	if (parse_u64(cfg->owner, UINT32_MAX - 1, &number) == 0) {
		*ret = (uid_t)number;
		return 0;
	}
	user = getpwnam(cfg->owner);
	if (!user)
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "cannot mount \"%s\": owner \"%s\" is no user here", cfg->name, cfg->owner);
	*ret = user->pw_uid;
	return 0;
}

/* ---- mounting ---- */

static int wait_for_keeper(int fd, struct error *err)
{
	struct progress progress = {0};
	char stage[KEEPER_STAGE_MAX];

	for (;;) {
		switch (keeper_wait(fd, TICK_MS, stage, err)) {
		case KEEPER_QUIET:
			progress_tick(&progress);
			break;
		case KEEPER_STAGE:
			progress_begin(&progress, stage);
			break;
		case KEEPER_DONE:
			progress_end(&progress);
			return 0;
		case KEEPER_FAILED:
			progress_end(&progress);
			return err->code;
		}
	}
}

static int mount_in_background(struct config *cfg, uid_t owner, bool verbose, struct error *err)
{
	autofree char *name = strdup(cfg->name), *target = strdup(cfg->target);
	autofd int fd = -1;
	struct stat st;
	int r;

	if (!name || !target) {
		config_free(cfg);
		return error_errno(err, -ENOMEM, EXIT_STATUS_FAILED, "cannot mount");
	}
	r = keeper_spawn(cfg, owner, &fd, err);
	if (r == 0)
		r = wait_for_keeper(fd, err);
	if (r < 0)
		return r;
	/* EACCES: it is another user's (owner =), or the volume's root lets nobody in. */
	if (stat(target, &st) < 0 && errno != EACCES)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot mount \"%s\": %s does not answer",
				   name, target);
	if (verbose)
		printf("%s: mounted on %s\n", name, target);
	return 0;
}

/* Who starts it in the foreground starts it again when it was killed: the target is to be as it was. */
static int make_ready(const struct mount_args *a, struct config *cfg, struct error *err)
{
	int r = a->foreground ? umount_remains(cfg->name, cfg->target, err) : 0;

	return r < 0 ? r : canonical_target(cfg, err);
}

static int mount_volume(struct mount_args *a, struct error *err)
{
	struct config *cfg = NULL;
	uid_t owner = 0;
	int r = build_config(a, &cfg, err);

	if (r < 0)
		return r;
	r = make_ready(a, cfg, err);
	if (r == 0)
		r = find_owner(cfg, &owner, err);
	if (r < 0) {
		config_free(cfg);
		return r;
	}
	return a->foreground ? keeper_run(cfg, owner, err) : mount_in_background(cfg, owner, a->verbose, err);
}

int cmd_mount(const struct front *front, int argc, char **argv)
{
	const struct command *cmd = command_find("mount");
	struct mount_args a = {.config_file = front->config_file};
	struct error err = ERROR_NONE;
	int first, r;

	r = command_parse(cmd, argc, argv, mount_args_set, &a, &first);
	if (r < 0)
		return r == -ECANCELED ? EXIT_STATUS_DONE : EXIT_STATUS_USAGE;
	if (first == argc)
		return command_usage(cmd, "which volume? A name or a source directory is needed");
	if (argc - first > 2)
		return command_usage(cmd, "unexpected \"%s\"", argv[first + 2]);
	a.volume = argv[first];
	a.target = argv[first + 1];
	r = mount_volume(&a, &err);
	return r < 0 ? command_fail(&err) : r;
}

/* ---- mount.ckrfs SOURCE TARGET [-sfnv] [-o OPTIONS] ---- */

static int helper_usage(const char *what)
{
	fprintf(stderr, "mount.ckrfs: %s\n  try: mount -t ckrfs NAME TARGET\n", what);
	return HELPER_USAGE;
}

static int helper_status(const struct error *err)
{
	command_fail(err);
	switch (err->status) {
	case EXIT_STATUS_USAGE:
	case EXIT_STATUS_CONFIG:
		return HELPER_USAGE;
	default:
		return err->code == -ENOMEM ? HELPER_SYSTEM : HELPER_FAILED;
	}
}

int cmd_mount_helper(int argc, char **argv)
{
	struct mount_args a = {0};
	struct error err = ERROR_NONE;
	bool fake = false;
	int c;

	optind = 1;
	opterr = 0;
	while ((c = getopt(argc, argv, "sfnvo:t:N:")) != -1) {
		if (c == 'f')
			fake = true;
		else if (c == 'v')
			a.verbose = true;
		else if (c == 'o' && add_word(&a, NULL, optarg, &err) < 0)
			return helper_status(&err);
		else if (c == '?')
			return helper_usage("unknown option");
	}
	if (argc - optind != 2)
		return helper_usage("a source and a target are needed");
	a.volume = argv[optind];
	a.target = argv[optind + 1];
	if (fake)
		return 0;
	return mount_volume(&a, &err) < 0 ? helper_status(&err) : 0;
}
