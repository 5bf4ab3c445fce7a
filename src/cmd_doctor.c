/* SPDX-License-Identifier: MIT */
/* ckrfs doctor: what is wrong here, and the commands that mend it. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "command.h"
#include "doctor.h"

struct doctor_args {
	const char *file;
	bool json, all;
};

static int doctor_args_set(void *ctx, const char *name, const char *value, struct error *err)
{
	struct doctor_args *a = ctx;

	if (strcmp(name, "config") == 0)
		a->file = value;
	else if (strcmp(name, "json") == 0)
		a->json = true;
	else if (strcmp(name, "all") == 0)
		a->all = true;
	return 0;
}

/* name NULL: all volumes. */
static void configuration(struct diagnosis *d, const char *file, const char *name)
{
	autoconfig_set struct config_set *set = NULL;
	struct error err = ERROR_NONE;

	if (config_load(file, getuid(), &set, &err) < 0) {
		diagnosis_add_error(d, "config", &err);
		return;
	}
	diagnosis_add(d, "config", DIAGNOSIS_OK, 0, NULL, "%s is right", config_place(set));
	if (name)
		doctor_volume(d, set, name);
	for (const char *const *each = config_volumes(set); !name && *each; each++)
		doctor_volume(d, set, *each);
}

static void show_text(const struct diagnosis *d, bool all)
{
	size_t problems = diagnosis_count(d, DIAGNOSIS_PROBLEM), notes = diagnosis_count(d, DIAGNOSIS_NOTE);

	for (size_t i = 0; i < d->n; i++) {
		const struct diagnosis_finding *f = &d->items[i];

		if (f->level == DIAGNOSIS_OK && !all)
			continue;
		printf("%-8s%-18s%s%s\n", diagnosis_level_word(f->level), f->check,
		       strlen(f->check) < 18 ? "" : "  ", f->text);
		if (f->mend[0])
			printf("  try: %s\n", f->mend);
	}
	printf("%zu checks: %zu problem%s, %zu note%s\n", d->n, problems, problems == 1 ? "" : "s", notes,
	       notes == 1 ? "" : "s");
}

static int show(const struct diagnosis *d, const struct doctor_args *a, struct error *err)
{
	autofree char *text = NULL;
	int r = 0;

	if (a->json) {
		r = diagnosis_json(d, &text);
		if (r < 0)
			text = NULL;
		else
			fputs(text, stdout);
	} else {
		show_text(d, a->all);
	}
	if (r == 0 && fflush(stdout) == EOF)
		r = -errno;
	return r < 0 ? error_errno(err, r, EXIT_STATUS_FAILED, "cannot show what was found") : 0;
}

int cmd_doctor(const struct front *front, int argc, char **argv)
{
	const struct command *cmd = command_find("doctor");
	struct doctor_args a = {.file = front->config_file};
	struct diagnosis d = {0};
	struct error err = ERROR_NONE;
	int first, status, r = command_parse(cmd, argc, argv, doctor_args_set, &a, &first);

	if (r < 0)
		return r == -ECANCELED ? EXIT_STATUS_DONE : EXIT_STATUS_USAGE;
	if (argc - first > 1)
		return command_usage(cmd, "unexpected \"%s\"", argv[first + 1]);
	doctor_kernel(&d);
	doctor_system(&d);
	doctor_engine(&d);
	configuration(&d, a.file, first < argc ? argv[first] : NULL);
	r = show(&d, &a, &err);
	status = r < 0 ? command_fail(&err) : (int)diagnosis_status(&d);
	diagnosis_free(&d);
	return status;
}
