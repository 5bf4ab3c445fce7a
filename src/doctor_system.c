/* SPDX-License-Identifier: MIT */
#include "doctor.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mount_list.h"
#include "runtime.h"

#define FUSE_CONF "/etc/fuse.conf"

/* fusermount3(1) knows the word alone in a line. */
static bool users_may_share(void)
{
	FILE *f = fopen(FUSE_CONF, "re");
	char line[256];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		char *word = line + strspn(line, " \t");

		word[strcspn(word, " \t\n#")] = '\0';
		found = strcmp(word, "user_allow_other") == 0;
	}
	if (f)
		fclose(f);
	return found;
}

static void user_mounts(struct diagnosis *d)
{
	static const char *const places[] = {"/usr/bin/fusermount3", "/bin/fusermount3"};
	struct stat st;

	if (stat(places[0], &st) < 0 && stat(places[1], &st) < 0)
		diagnosis_add(d, "fusermount", DIAGNOSIS_NOTE, 0, "apt-get install fuse3",
			      "there is no fusermount3(1): only root can mount");
	else if (!(st.st_mode & S_ISUID) || st.st_uid != 0)
		diagnosis_add(d, "fusermount", DIAGNOSIS_NOTE, 0, "chmod u+s /usr/bin/fusermount3",
			      "fusermount3(1) is not set-user-ID root: only root can mount");
	else
		diagnosis_add(d, "fusermount", DIAGNOSIS_OK, 0, NULL, "users can mount, with fusermount3(1)");
	if (users_may_share())
		diagnosis_add(d, "fuse-conf", DIAGNOSIS_OK, 0, NULL,
			      "users may let others into their mounts (allow-other)");
	else
		diagnosis_add(d, "fuse-conf", DIAGNOSIS_NOTE, 0, "echo user_allow_other >> " FUSE_CONF,
			      "users cannot let others into their mounts (allow-other)");
}

static void runtime_directory(struct diagnosis *d)
{
	struct runtime rt = RUNTIME_NONE;
	struct error err = ERROR_NONE;
	int r = runtime_open(false, &rt, &err);

	if (r == 0)
		diagnosis_add(d, "runtime", DIAGNOSIS_OK, 0, NULL, "the runtime directory is fine: %s",
			      rt.path);
	else if (r == -ENOENT)
		diagnosis_add(d, "runtime", DIAGNOSIS_OK, 0, NULL, "nothing has been mounted yet");
	else
		diagnosis_add_error(d, "runtime", &err);
	runtime_close(&rt);
}

static void one_mount(struct diagnosis *d, const struct message_status *s)
{
	char check[80], mend[128];

	snprintf(check, sizeof(check), "mount %s", s->name);
	if (strcmp(s->state, "dead") == 0 || strcmp(s->state, "failed") == 0) {
		snprintf(mend, sizeof(mend), "ckrfs umount %s", s->name);
		diagnosis_add(d, check, DIAGNOSIS_PROBLEM, EXIT_STATUS_FAILED, mend,
			      "nobody serves %s: its %s died", s->target,
			      strcmp(s->state, "dead") == 0 ? "keeper" : "server");
	} else if (strcmp(s->state, "silent") == 0) {
		snprintf(mend, sizeof(mend), "cat /proc/%d/stack", (int)s->keeper_pid);
		diagnosis_add(d, check, DIAGNOSIS_PROBLEM, EXIT_STATUS_FAILED, mend,
			      "its keeper does not answer");
	} else if (strcmp(s->state, "degraded") == 0) {
		snprintf(mend, sizeof(mend), "ckrfs refresh %s", s->name);
		diagnosis_add(d, check, DIAGNOSIS_PROBLEM, EXIT_STATUS_NO_KEY, mend, "%s", s->last_error);
	} else if (s->damages) {
		snprintf(mend, sizeof(mend), "ckrfs check --online %s", s->name);
		diagnosis_add(d, check, DIAGNOSIS_PROBLEM, EXIT_STATUS_DAMAGED, mend,
			      "damage was found while files were read");
	} else if (s->missing[0]) {
		diagnosis_add(d, check, DIAGNOSIS_NOTE, 0, NULL, "%s, without: %s", s->state, s->missing);
	} else {
		diagnosis_add(d, check, DIAGNOSIS_OK, 0, NULL, "%s", s->state);
	}
}

static void mounts(struct diagnosis *d)
{
	automount_list struct mount_list list = {0};

	/* What is wrong with the runtime directory has been told. */
	if (mount_list_all(&list, NULL) < 0)
		return;
	for (size_t i = 0; i < list.n; i++)
		one_mount(d, &list.items[i]);
}

void doctor_system(struct diagnosis *d)
{
	user_mounts(d);
	runtime_directory(d);
	mounts(d);
}
