/* SPDX-License-Identifier: MIT */
#include "command.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "companion.h"
#include "util.h"

enum { OPTIONS_MAX = 24, HELP_COLUMN = 28 };

const struct command_option command_common_options[] = {
	{"config", 0, "FILE", "read this configuration file instead of the default ones"},
	{"help", 'h', NULL, "show this help"},
	{0},
};

static const struct command_option mount_options[] = {
	{"options", 'o', "OPTIONS", "options as in ckrfs.conf(5), and those of mount(8): -o ro,key=file:/k"},
	{"key", 'k', "SPEC", "where the key comes from, the same as -o key=SPEC"},
	{"foreground", 'f', NULL, "stay in the foreground, for systemd (Type=notify)"},
	{"verbose", 'v', NULL, "say what was done"},
	{0},
};

static const struct command_option umount_options[] = {
	{"lazy", 'l', NULL, "also when busy: open files are served for stop-timeout"},
	{"all", 'a', NULL, "unmount everything"},
	{0},
};

static const struct command_option lock_options[] = {
	{"timeout", 't', "TIME", "how long writing back may take; what is left is lost then; default 30s"},
	{"wait", 'w', NULL, "wait until everything is written back, however long that takes"},
	{"report", 'r', NULL, "list the processes that hold files there"},
	{"all", 'a', NULL, "lock everything"},
	{0},
};

static const struct command_option unlock_options[] = {
	{"key", 'k', "SPEC", "where the key comes from this time"},
	{0},
};

static const struct command_option status_options[] = {
	{"json", 'j', NULL, "as one JSON object"},
	{"names", 0, NULL, "only the names"},
	{"watch", 0, "[=TIME]", "again and again, default every 2s; those in trouble first"},
	{0},
};

static const struct command_option metrics_options[] = {
	{"output", 'o', "FILE",
	 "into this file, whole or not at all; for node_exporter's textfile collector"},
	{0},
};

static const struct command_option init_options[] = {
	{"key", 'k', "SPEC", "where the key comes from"},
	{"options", 'o', "OPTIONS", "options as in ckrfs.conf(5)"},
	{"cipher", 0, "CIPHER", "of contents: aes-gcm (default), aes-siv, xchacha"},
	{"names", 0, "HOW", "encrypted (default), deterministic, plaintext"},
	{"longname-max", 0, "N", "store encrypted names longer than N, 62 to 254, by hash; default 255"},
	{"scrypt-n", 0, "LOGN", "cost of a passphrase, 10 to 28; default 16 (10 for a key)"},
	{"lower", 0, "LOWER", "directory (default); fscrypt: the file system encrypts it"},
	{"contents", 0, "CIPHER", "fscrypt: aes-256-xts (default), aes-128-cbc, adiantum"},
	{"filenames", 0, "CIPHER", "fscrypt: aes-256-cts (default), aes-256-hctr2, aes-128-cts, adiantum"},
	{"padding", 0, "N", "fscrypt: names are padded to multiples of 4, 8, 16 or 32 (default) bytes"},
	{"iv", 0, "HOW", "fscrypt: per-file (default), direct-key, ino-lblk-64, ino-lblk-32"},
	{0},
};

static const struct command_option check_options[] = {
	{"key", 'k', "SPEC", "where the key comes from"},
	{"options", 'o', "OPTIONS", "options as in ckrfs.conf(5)"},
	{"online", 0, NULL, "check a mount, by its name or target, while it is in use"},
	{"repair", 0, NULL, "move what is damaged into a quarantine, and mend what is certain"},
	{"quarantine", 0, "DIRECTORY", "where the quarantine is made; on the volume's file system"},
	{"undo", 0, "LOG", "take back what a repair did, by its log"},
	{"json", 'j', NULL, "as one JSON object"},
	{0},
};

static const struct command_option key_options[] = {
	{"key", 'k', "SPEC", "where a key that opens the volume comes from"},
	{"new-key", 0, "SPEC", "change, add: where the new key comes from"},
	{"scrypt-n", 0, "LOGN", "change, add: cost of the new passphrase, 10 to 28"},
	{"options", 'o', "OPTIONS", "options as in ckrfs.conf(5)"},
	{"json", 'j', NULL, "list: as one JSON object"},
	{0},
};

static const struct command_option rekey_options[] = {
	{"key", 'k', "SPEC", "where the present key comes from"},
	{"new-key", 0, "SPEC", "what opens the volume afterwards; default: the same passphrase"},
	{"options", 'o', "OPTIONS", "options as in ckrfs.conf(5)"},
	{"keep-old", 0, NULL, "keep the old generation beside it, as VOLUME.old-DATE"},
	{"drop-slots", 0, NULL, "go on although further keys (slots) are lost"},
	{"abort", 0, NULL, "remove what an unfinished run has made"},
	{0},
};

static const struct command_option ticket_options[] = {
	{"key", 'k', "SPEC", "krb5:keytab=PATH,principal=NAME or krb5:ccache=NAME"},
	{"realm", 0, "REALM", "of the cell's service; default: the cell's name in capitals"},
	{"timeout", 't', "TIME", "how long to wait for the KDC; default 30s"},
	{"json", 'j', NULL, "as one JSON object"},
	{0},
};

static const struct command_option volume_plugin_options[] = {
	{"socket", 's', "PATH", "where engines reach it; default /run/docker/plugins/ckrfs.sock"},
	{"group", 'g', "GROUP", "let this group use the socket, too"},
	{"state", 0, "DIR", "where volumes are kept; default /var/lib/ckrfs/volumes"},
	{"answer", 0, "TIME", "answer within this time; default 4s, as podman waits for 5"},
	{"linger", 0, "TIME", "how long a volume stays mounted for nobody; default 30s"},
	{"print-spec", 0, NULL, "print the file for /etc/docker/plugins"},
	{0},
};

static const struct command_option config_command_options[] = {
	{"show", 0, "NAME", "show the values of a volume, and where each comes from"},
	{"options", 'o', "OPTIONS", "apply these on top, as ckrfs mount -o does"},
	{"json", 'j', NULL, "show them as one JSON object"},
	{"list", 0, NULL, "list the names of the volumes"},
	{"check", 0, NULL, "check the configuration files"},
	{0},
};

static const struct command_option doctor_options[] = {
	{"all", 'a', NULL, "also what is fine"},
	{"json", 'j', NULL, "everything, as one JSON object"},
	{0},
};

const struct command commands[] = {
	{"init", "DIRECTORY --key SPEC", "make a new encrypted volume in an empty directory", init_options,
	 cmd_init, false},
	{"mount", "NAME [TARGET] | SOURCE TARGET", "mount a volume", mount_options, cmd_mount, false},
	{"key", "change | add | remove | list | verify VOLUME [KEYNAME]",
	 "change or list the keys of a volume", key_options, cmd_key, false},
	{"status", "[NAME | TARGET]", "show what is mounted", status_options, cmd_status, false},
	{"metrics", "[--output FILE]", "print counters of all mounts for Prometheus", metrics_options,
	 cmd_metrics, false},
	{"lock", "NAME | TARGET ...", "take the key from volumes that stay mounted", lock_options, cmd_lock,
	 false},
	{"unlock", "NAME | TARGET ...", "give it back: open files go on working", unlock_options, cmd_unlock,
	 false},
	{"refresh", "NAME | TARGET ...", "ask the source of a key again, now", NULL, cmd_refresh, false},
	{"umount", "NAME | TARGET ...", "unmount volumes; their keys are gone then", umount_options,
	 cmd_umount, false},
	{"check", "VOLUME | --online NAME", "look for damage in a volume, and repair it", check_options,
	 cmd_check, false},
	{"rekey", "VOLUME --key SPEC [--new-key SPEC]", "give a volume a new master key, by a new copy",
	 rekey_options, cmd_rekey, false},
	{"ticket", "CELL --key SPEC", "try to get a Kerberos ticket for an AFS cell, and tell what it is",
	 ticket_options, companion_run, false},
	{"volume-plugin", "[--socket PATH]", "serve volumes to Docker and Podman", volume_plugin_options,
	 companion_run, false},
	{"oci-hook", "createRuntime | poststop | precreate", "give volumes to a container, for its runtime",
	 NULL, cmd_oci_hook, false},
	{"config", "--show NAME | --list | --check", "show or check the configuration",
	 config_command_options, cmd_config, false},
	{"doctor", "[VOLUME]", "look for what keeps volumes from being mounted", doctor_options, cmd_doctor,
	 false},
	{"complete", "bash | zsh | fish", "print the completion of a shell", NULL, cmd_complete, true},
	{0},
};

int command_front(int argc, char **argv, struct front *ret)
{
	int i = 1;

	*ret = (struct front){.argv = argv};
	for (; i < argc; i++) {
		if (strncmp(argv[i], "--config=", 9) == 0)
			ret->config_file = argv[i] + 9;
		else if (strcmp(argv[i], "--config") == 0 && i + 1 < argc)
			ret->config_file = argv[++i];
		else
			break;
	}
	return i;
}

const struct command *command_find(const char *name)
{
	for (const struct command *cmd = commands; cmd->name; cmd++)
		if (strcmp(cmd->name, name) == 0)
			return cmd;
	return NULL;
}

int command_fail(const struct error *err)
{
	fflush(stdout);
	error_print(stderr, err);
	return err->status ? (int)err->status : EXIT_STATUS_FAILED;
}

int command_join_status(int so_far, int status, size_t done)
{
	if (done == 0)
		return status;
	return so_far == status ? status : EXIT_STATUS_PARTLY;
}

int command_usage(const struct command *cmd, const char *fmt, ...)
{
	struct error err = ERROR_NONE;
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	error_set(&err, -EINVAL, EXIT_STATUS_USAGE, "%s", text);
	error_hint(&err, "ckrfs %s --help", cmd->name);
	return command_fail(&err);
}

/* ---- help ---- */

static void help_option(const struct command_option *o)
{
	char left[80];
	int n = snprintf(left, sizeof(left), "  %c%c%s --%s%s%s", o->short_name ? '-' : ' ',
			 o->short_name ? o->short_name : ' ', o->short_name ? "," : " ", o->name,
			 command_option_takes(o) ? " " : "", o->argument ? o->argument : "");

	printf("%s%*s  %s\n", left, n < HELP_COLUMN ? HELP_COLUMN - n : 0, "", o->help);
}

static void help_command(const struct command *cmd)
{
	printf("usage: ckrfs %s %s\n\n%c%s.\n\noptions:\n", cmd->name, cmd->args,
	       cmd->help[0] - ('a' - 'A') * (cmd->help[0] >= 'a' && cmd->help[0] <= 'z'), cmd->help + 1);
	for (const struct command_option *o = cmd->options; o && o->name; o++)
		help_option(o);
	for (const struct command_option *o = command_common_options; o->name; o++)
		help_option(o);
	printf("\nMore: man 8 ckrfs\n");
}

/* ---- options ---- */

/* One command's options and the common ones, as getopt_long(3) wants them. val is the index + 256. */
struct option_table {
	const struct command_option *rows[OPTIONS_MAX];
	struct option longs[OPTIONS_MAX + 1];
	const char *names[OPTIONS_MAX + 1];
	char shorts[3 * OPTIONS_MAX + 2];
	size_t n, n_shorts;
};

static void table_add(struct option_table *t, const struct command_option *o)
{
	for (; o && o->name && t->n < OPTIONS_MAX; o++, t->n++) {
		t->rows[t->n] = o;
		t->names[t->n] = o->name;
		t->longs[t->n] = (struct option){
			.name = o->name,
			.has_arg = command_option_takes(o) ? required_argument
				   : o->argument           ? optional_argument
							   : no_argument,
			.val = 256 + (int)t->n,
		};
		if (!o->short_name)
			continue;
		t->shorts[t->n_shorts++] = o->short_name;
		if (o->argument)
			t->shorts[t->n_shorts++] = ':';
	}
}

static const struct command_option *table_find(const struct option_table *t, int c)
{
	for (size_t i = 0; i < t->n; i++)
		if (c == 256 + (int)i || (c && c == t->rows[i]->short_name))
			return t->rows[i];
	return NULL;
}

static int wrong_option(const struct command *cmd, const struct option_table *t, int c, char **argv)
{
	const char *word = argv[optind - 1], *near;
	const struct command_option *o = table_find(t, optopt);
	char name[64];

	if (o && c == ':')
		return command_usage(cmd, "option --%s needs a value: %s", o->name, o->argument);
	if (o)
		return command_usage(cmd, "option --%s takes no value", o->name);
	if (optopt)
		return command_usage(cmd, "unknown option -%c", optopt);
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(word + 2, "="), word + 2);
	near = nearest_word(name, t->names);
	if (near)
		return command_usage(cmd, "unknown option --%s (did you mean --%s?)", name, near);
	return command_usage(cmd, "unknown option --%s", name);
}

int command_parse(const struct command *cmd, int argc, char **argv,
		  int (*set)(void *ctx, const char *name, const char *value, struct error *err), void *ctx,
		  int *ret_first)
{
	struct option_table t = {.shorts = ":", .n_shorts = 1};
	struct error err = ERROR_NONE;
	int c;

	table_add(&t, cmd->options);
	table_add(&t, command_common_options);
	optind = 0; /* starts anew, getopt(3) */
	opterr = 0;
	while ((c = getopt_long(argc, argv, t.shorts, t.longs, NULL)) != -1) {
		const struct command_option *o = c == '?' || c == ':' ? NULL : table_find(&t, c);

		if (!o) {
			wrong_option(cmd, &t, c, argv);
			return -EINVAL;
		}
		if (strcmp(o->name, "help") == 0) {
			help_command(cmd);
			return -ECANCELED;
		}
		if (set(ctx, o->name, optarg, &err) < 0) {
			command_usage(cmd, "%s", err.text);
			return -EINVAL;
		}
	}
	*ret_first = optind;
	return 0;
}
