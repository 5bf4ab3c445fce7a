/* SPDX-License-Identifier: MIT */
/* The program ckrfs-net: the commands that ckrfs hands over, companion.h. Nobody but ckrfs calls it. */
#include <errno.h>
#include <string.h>

#include "command.h"
#include "krb5_answer.h"
#include "krb5_source_impl.h"
#include "util.h"

static const struct {
	const char *name;
	int (*run)(const struct front *front, int argc, char **argv);
} commands_here[] = {
	{"ticket", cmd_ticket},
	{"volume-plugin", cmd_volume_plugin},
};

int main(int argc, char **argv)
{
	struct error err = ERROR_NONE;
	struct front front;
	int first = command_front(argc, argv, &front);
	const char *name = first < argc ? argv[first] : "";

	if (strcmp(name, KRB5_ANSWER_COMMAND) == 0)
		return krb5_answer(argc - first, argv + first);
	for (size_t i = 0; i < ARRAY_SIZE(commands_here); i++)
		if (strcmp(commands_here[i].name, name) == 0)
			return commands_here[i].run(&front, argc - first, argv + first);
	error_set(&err, -EINVAL, EXIT_STATUS_USAGE, "ckrfs-net has no command \"%s\"", name);
	error_hint(&err, "ckrfs --help");
	return command_fail(&err);
}
