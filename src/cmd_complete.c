/* SPDX-License-Identifier: MIT */
/*
 * ckrfs complete: scripts for shells, written from the tables of commands and options. The scripts ask
 * `ckrfs config --list` and `ckrfs status --names` for volumes, with the --config that stands in the line.
 */
#include "command.h"
#include "config.h"
#include <errno.h>
#include <string.h>

/* What stands behind an option or as an operand, by its word in the tables. */
enum kind { KIND_OTHER = 0, KIND_NAME = 1, KIND_FILE = 2, KIND_OPTIONS = 4 };

static enum kind kind_of(const char *word, size_t n)
{
	static const struct {
		const char *word;
		enum kind kind;
	} kinds[] = {
		{"NAME", KIND_NAME},       {"FILE", KIND_FILE},
		{"PATH", KIND_FILE},       {"SOURCE", KIND_FILE},
		{"DIR", KIND_FILE},        {"TARGET", KIND_FILE},
		{"OPTIONS", KIND_OPTIONS}, {"VOLUME", KIND_NAME | KIND_FILE},
	};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (strlen(kinds[i].word) == n && !strncmp(kinds[i].word, word, n))
			return kinds[i].kind;
	return KIND_OTHER;
}

/* All kinds of operands in "NAME|SOURCE [TARGET]", but not what follows an option there. */
static unsigned kinds_in(const char *args)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ-abcdefghijklmnopqrstuvwxyz";
	unsigned kinds = 0;
	bool option = false;

	for (const char *p = args ? args : ""; *p;) {
		size_t n = strspn(p, letters);

		if (n && !option)
			kinds |= kind_of(p, n);
		if (n)
			option = *p == '-';
		else if (!strchr(" =", *p))
			option = false;
		p += n ? n : 1;
	}
	return kinds;
}

/* The words in small letters among the operands, such as actions: "change add". ret holds 128. */
static void words_in(const char *args, char *ret)
{
	static const char blank[] = " |[]";

	*ret = '\0';
	for (const char *p = args ? args : ""; *p; p += strspn(p, blank)) {
		size_t n = strcspn(p, blank);

		if (*p >= 'a' && *p <= 'z' && strlen(ret) + n + 2 <= 128)
			snprintf(ret + strlen(ret), n + 1 + (*ret != 0), "%s%.*s", *ret ? " " : "", (int)n,
				 p);
		p += n;
	}
}

static unsigned option_kind(const struct command_option *o)
{
	return o->argument ? kind_of(o->argument, strlen(o->argument)) : KIND_OTHER;
}

/* Calls print for the options of cmd (may be NULL) and for those that every command has. */
static void each_option(const struct command *cmd,
			void (*print)(const struct command *cmd, const struct command_option *o))
{
	for (const struct command_option *o = cmd ? cmd->options : NULL; o && o->name; o++)
		print(cmd, o);
	for (const struct command_option *o = command_common_options; o->name; o++)
		print(cmd, o);
}

/* Prints text with a backslash before each character of special, for the inside of single quotes: quote is
 * what the shell wants for a single quote there. */
static void print_quoted(const char *text, const char *special, const char *quote)
{
	for (; *text; text++) {
		if (*text == '\'') {
			fputs(quote, stdout);
			continue;
		}
		if (strchr(special, *text))
			putchar('\\');
		putchar(*text);
	}
}

/* The words that -o takes, each behind a blank: NAME= or, for booleans, NAME and noNAME. */
static void print_option_words(void)
{
	for (const struct config_option *o = config_options; o->name; o++)
		if (o->type == CONFIG_BOOL)
			printf(" %s no%s", o->name, o->name);
		else
			printf(" %s=", o->name);
	fputs(" ro rw", stdout);
}

/* ---- bash ---- */

static const char bash_head[] =
	"# bash completion of ckrfs, made by `ckrfs complete bash`\n"
	"_ckrfs_words()\n"
	"{\n"
	"\tlocal IFS=$' \\t\\n'\n"
	"\tCOMPREPLY+=($(compgen -W \"$1\" -- \"$cur\"))\n"
	"}\n"
	"_ckrfs_files()\n"
	"{\n"
	"\tlocal IFS=$'\\n'\n"
	"\tcompopt -o filenames 2>/dev/null\n"
	"\tCOMPREPLY+=($(compgen -f -- \"$cur\"))\n"
	"}\n"
	"_ckrfs_volumes()\n"
	"{\n"
	"\tlocal name\n"
	"\twhile IFS= read -r name; do\n"
	"\t\t[[ $name == \"$cur\"* ]] && printf -v name %q \"$name\" && COMPREPLY+=(\"$name\")\n"
	"\tdone < <({ \"$program\" \"${config[@]}\" config --list; \"$program\" status --names; } "
	"2>/dev/null </dev/null | sort -u)\n"
	"}\n"
	"_ckrfs_options()\n"
	"{\n"
	"\tlocal done= last=$cur\n"
	"\t[[ $cur == *,* ]] && done=${cur%,*}, last=${cur##*,}\n"
	"\tcompopt -o nospace 2>/dev/null\n"
	"\tCOMPREPLY+=($(compgen -P \"$done\" -W \"$option_words\" -- \"$last\"))\n"
	"}\n"
	"_ckrfs()\n"
	"{\n"
	"\tlocal program=$1 cur=${COMP_WORDS[COMP_CWORD]} prev= command= i\n"
	"\tlocal -a config=()\n";

static const char bash_words[] = "\t((COMP_CWORD > 0)) && prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
				 "\tif [[ $cur == = ]]; then\n"
				 "\t\tcur=\n"
				 "\telif [[ $prev == = ]] && ((COMP_CWORD > 1)); then\n"
				 "\t\tprev=${COMP_WORDS[COMP_CWORD - 2]}\n"
				 "\tfi\n"
				 "\tCOMPREPLY=()\n"
				 "\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
				 "\t\tcase ${COMP_WORDS[i]} in\n"
				 "\t\t--config)\n"
				 "\t\t\t[[ ${COMP_WORDS[i + 1]} == = ]] && ((i++))\n"
				 "\t\t\t((++i < COMP_CWORD)) && config=(--config \"${COMP_WORDS[i]}\") ;;\n"
				 "\t\t-* | =) ;;\n"
				 "\t\t*) [[ -z $command ]] && command=${COMP_WORDS[i]} ;;\n"
				 "\t\tesac\n"
				 "\tdone\n";

static void bash_kinds(unsigned kinds)
{
	if (kinds & KIND_NAME)
		fputs(" _ckrfs_volumes;", stdout);
	if (kinds & KIND_FILE)
		fputs(" _ckrfs_files;", stdout);
	if (kinds & KIND_OPTIONS)
		fputs(" _ckrfs_options;", stdout);
}

static void bash_argument(const struct command *cmd, const struct command_option *o)
{
	const char *name = cmd ? cmd->name : "";

	if (!command_option_takes(o))
		return;
	printf("\t\"%s --%s\"", name, o->name);
	if (o->short_name)
		printf(" | \"%s -%c\"", name, o->short_name);
	putchar(')');
	bash_kinds(option_kind(o));
	fputs(" return ;;\n", stdout);
}

static void bash_option(const struct command *cmd, const struct command_option *o)
{
	printf(" --%s", o->name);
	if (o->short_name)
		printf(" -%c", o->short_name);
}

static void bash_operands(const struct command *cmd)
{
	char words[128];

	printf("\t%s)", cmd->name);
	fputs(" if [[ $cur == -* ]]; then _ckrfs_words \"", stdout);
	each_option(cmd, bash_option);
	fputs("\"; else :;", stdout);
	words_in(cmd->args, words);
	if (*words)
		printf(" _ckrfs_words \"%s\";", words);
	bash_kinds(kinds_in(cmd->args));
	fputs(" fi ;;\n", stdout);
}

static void complete_bash(void)
{
	fputs(bash_head, stdout);
	fputs("\tlocal option_words='", stdout);
	print_option_words();
	fputs("'\n", stdout);
	fputs(bash_words, stdout);
	fputs("\tcase \"$command $prev\" in\n", stdout);
	each_option(NULL, bash_argument);
	for (const struct command *cmd = commands; cmd->name; cmd++)
		each_option(cmd, bash_argument);
	fputs("\tesac\n\tcase $command in\n\t'') _ckrfs_words \"", stdout);
	each_option(NULL, bash_option);
	for (const struct command *cmd = commands; cmd->name; cmd++)
		if (!cmd->hidden)
			printf(" %s", cmd->name);
	fputs("\" ;;\n", stdout);
	for (const struct command *cmd = commands; cmd->name; cmd++)
		bash_operands(cmd);
	fputs("\tesac\n}\ncomplete -F _ckrfs ckrfs\n", stdout);
}

/* ---- zsh ---- */

static const char zsh_head[] =
	"#compdef ckrfs\n"
	"# zsh completion of ckrfs, made by `ckrfs complete zsh`\n"
	"_ckrfs_volumes()\n"
	"{\n"
	"\tlocal -a names\n"
	"\tnames=(${(f)\"$({ $_ckrfs_program $_ckrfs_config config --list; $_ckrfs_program status --names; } "
	"2>/dev/null </dev/null)\"})\n"
	"\tcompadd -a names\n"
	"}\n"
	"_ckrfs_options()\n"
	"{\n"
	"\tlocal -a words\n"
	"\twords=(";

/* _arguments reads ':' and brackets. */
static void zsh_quoted(const char *text)
{
	print_quoted(text, "[]:\\", "'\\''");
}

static void zsh_action(unsigned kinds)
{
	static const char *const actions[] = {
		[KIND_OTHER] = " ",
		[KIND_NAME] = "_ckrfs_volumes",
		[KIND_FILE] = "_files",
		[KIND_NAME | KIND_FILE] =
			" _alternative \"volumes:volume:_ckrfs_volumes\" \"files:file:_files\"",
		[KIND_OPTIONS] = "_ckrfs_options",
	};

	fputs(actions[kinds & KIND_OPTIONS ? KIND_OPTIONS : kinds], stdout);
}

static void zsh_spec(const struct command_option *o, char short_name)
{
	if (short_name)
		printf(" \\\n\t\t'-%c", short_name);
	else
		printf(" \\\n\t\t'--%s%s", o->name, command_option_takes(o) ? "=" : "");
	putchar('[');
	zsh_quoted(o->help);
	putchar(']');
	if (command_option_takes(o)) {
		putchar(':');
		zsh_quoted(o->argument);
		putchar(':');
		zsh_action(option_kind(o));
	}
	putchar('\'');
}

static void zsh_option(const struct command *cmd, const struct command_option *o)
{
	zsh_spec(o, 0);
	if (o->short_name)
		zsh_spec(o, o->short_name);
}

static void zsh_commands(void)
{
	fputs("_ckrfs_commands()\n{\n\tlocal -a list\n\tlist=(\n", stdout);
	for (const struct command *cmd = commands; cmd->name; cmd++) {
		if (cmd->hidden)
			continue;
		printf("\t\t'%s:", cmd->name);
		print_quoted(cmd->help, ":\\", "'\\''");
		fputs("'\n", stdout);
	}
	fputs("\t)\n\t_describe command list\n}\n", stdout);
}

static void complete_zsh(void)
{
	fputs(zsh_head, stdout);
	print_option_words();
	fputs(")\n\tcompset -P '*,'\n\tcompadd -S '' -a words\n}\n", stdout);
	zsh_commands();
	fputs("_ckrfs()\n{\n\tlocal context state state_descr line _ckrfs_program=$words[1]\n"
	      "\tlocal -a _ckrfs_config\n\ttypeset -A opt_args\n\t_arguments -C",
	      stdout);
	each_option(NULL, zsh_option);
	fputs(" \\\n\t\t'1:command:_ckrfs_commands' '*::argument:->argument'\n"
	      "\t[[ -n $opt_args[--config] ]] && _ckrfs_config=(--config $opt_args[--config])\n"
	      "\t[[ $state == argument ]] || return\n\tcase $line[1] in\n",
	      stdout);
	for (const struct command *cmd = commands; cmd->name; cmd++) {
		char words[128];

		printf("\t%s) _arguments", cmd->name);
		each_option(cmd, zsh_option);
		words_in(cmd->args, words);
		if (*words)
			printf(" \\\n\t\t'1:word:(%s)'", words);
		if (kinds_in(cmd->args)) {
			fputs(" \\\n\t\t'*:argument:", stdout);
			zsh_action(kinds_in(cmd->args));
			putchar('\'');
		}
		fputs(" ;;\n", stdout);
	}
	fputs("\tesac\n}\n"
	      "if [[ $funcstack[1] == _ckrfs ]]; then\n\t_ckrfs \"$@\"\nelse\n\tcompdef _ckrfs ckrfs\nfi\n",
	      stdout);
}

/* ---- fish ---- */

static const char fish_head[] =
	"# fish completion of ckrfs, made by `ckrfs complete fish`\n"
	"function __ckrfs_volumes\n"
	"\tset -l line (commandline -opc)\n"
	"\tset -l config\n"
	"\tset -l at (contains -i -- --config $line); and set config --config $line[(math $at + 1)]\n"
	"\tbegin\n"
	"\t\t$line[1] $config config --list\n"
	"\t\t$line[1] status --names\n"
	"\tend 2>/dev/null </dev/null | sort -u\n"
	"end\n"
	"function __ckrfs_options\n"
	"\tset -l before (string match -r '^.*,' -- (commandline -ct))\n"
	"\tfor word in";

static void fish_quoted(const char *text)
{
	print_quoted(text, "\\", "\\'");
}

static void fish_condition(const struct command *cmd)
{
	if (cmd)
		printf("complete -c ckrfs -n '__fish_seen_subcommand_from %s'", cmd->name);
	else
		fputs("complete -c ckrfs -n __fish_use_subcommand", stdout);
}

static void fish_kinds(unsigned kinds)
{
	if (kinds & KIND_FILE)
		fputs(" -F", stdout);
	if (kinds & KIND_NAME)
		fputs(" -a '(__ckrfs_volumes)'", stdout);
	if (kinds & KIND_OPTIONS)
		fputs(" -a '(__ckrfs_options)'", stdout);
}

static void fish_option(const struct command *cmd, const struct command_option *o)
{
	fish_condition(cmd);
	printf(" -l %s", o->name);
	if (o->short_name)
		printf(" -s %c", o->short_name);
	if (command_option_takes(o))
		fputs(option_kind(o) & KIND_FILE ? " -r" : " -x", stdout);
	fish_kinds(option_kind(o));
	fputs(" -d '", stdout);
	fish_quoted(o->help);
	fputs("'\n", stdout);
}

static void complete_fish(void)
{
	fputs(fish_head, stdout);
	print_option_words();
	fputs("\n\t\techo $before$word\n\tend\nend\ncomplete -c ckrfs -f\n", stdout);
	each_option(NULL, fish_option);
	for (const struct command *cmd = commands; cmd->name; cmd++) {
		char words[128];

		if (!cmd->hidden) {
			fish_condition(NULL);
			printf(" -a %s -d '", cmd->name);
			fish_quoted(cmd->help);
			fputs("'\n", stdout);
		}
		each_option(cmd, fish_option);
		words_in(cmd->args, words);
		if (*words) {
			fish_condition(cmd);
			printf(" -a '%s'\n", words);
		}
		if (kinds_in(cmd->args)) {
			fish_condition(cmd);
			fish_kinds(kinds_in(cmd->args));
			putchar('\n');
		}
	}
}

/* ---- lists ---- */

static void complete_options(void)
{
	for (const struct config_option *o = config_options; o->name; o++)
		printf("%s\t%s\t%s\n", o->name, config_type_name(o->type), o->fallback ? o->fallback : "-");
}

static void complete_commands(void)
{
	for (const struct command *cmd = commands; cmd->name; cmd++)
		if (!cmd->hidden)
			printf("%s\t%s\n", cmd->name, cmd->help);
}

static int no_option(void *ctx, const char *name, const char *value, struct error *err)
{
	/* --config may stand before any command; nothing here reads a file */
	return 0;
}

int cmd_complete(const struct front *front, int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*print)(void);
	} kinds[] = {
		{"bash", complete_bash},       {"zsh", complete_zsh},           {"fish", complete_fish},
		{"options", complete_options}, {"commands", complete_commands},
	};
	const struct command *cmd = command_find("complete");
	int first, r = command_parse(cmd, argc, argv, no_option, NULL, &first);

	if (r < 0)
		return r == -ECANCELED ? EXIT_STATUS_DONE : EXIT_STATUS_USAGE;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds) && argc - first == 1; i++) {
		if (strcmp(kinds[i].name, argv[first]) != 0)
			continue;
		kinds[i].print();
		return fflush(stdout) == EOF ? EXIT_STATUS_FAILED : EXIT_STATUS_DONE;
	}
	return command_usage(cmd, "one of bash, zsh, fish, options and commands is needed");
}
