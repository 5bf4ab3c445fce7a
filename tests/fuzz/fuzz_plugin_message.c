/* SPDX-License-Identifier: MIT */
/* The first byte says what the rest is: a request of an engine, or a file of the plugin's state. What parses
 * must be sound, keep no key without a scheme, and format and parse again to the same. */
#include <stdlib.h>
#include <string.h>

#include "plugin_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_volume(const struct plugin_volume *v)
{
	struct plugin_volume again;
	char *text;

	for (uint32_t i = 0; i < v->n_options; i++)
		if (plugin_looks_like_key(v->options[i].name, v->options[i].value))
			abort();
	if (plugin_volume_format(v, &text) < 0)
		return;
	if (plugin_volume_parse(text, strlen(text), &again) < 0 || strcmp(again.name, v->name) != 0 ||
	    again.created != v->created || !plugin_volume_same_options(&again, v))
		abort();
	free(text);
}

static void check_request(enum plugin_command command, const char *text, size_t size)
{
	static struct plugin_answer answer;
	struct plugin_request request;
	struct error err = ERROR_NONE;
	char *formatted;

	if (plugin_message_parse(command, text, size, &request, &err) < 0) {
		if (!*err.text)
			abort();
		return;
	}
	if (!plugin_message_sound(&request))
		abort();
	if (command == PLUGIN_CREATE)
		check_volume(&request.volume);
	if (plugin_message_format(&request, &answer, NULL, 0, &formatted) == 0)
		free(formatted);
}

static void check_count(const char *text, size_t size)
{
	struct plugin_count c, again;
	char *formatted;

	if (plugin_count_parse(text, size, &c) < 0 || plugin_count_format(&c, &formatted) < 0)
		return;
	if (plugin_count_parse(formatted, strlen(formatted), &again) < 0 || again.mounts != c.mounts ||
	    again.n_unanswered != c.n_unanswered)
		abort();
	free(formatted);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data + 1;
	struct plugin_volume v;

	if (size == 0)
		return 0;
	if (data[0] == 'v') {
		if (plugin_volume_parse(text, size - 1, &v) == 0)
			check_volume(&v);
	} else if (data[0] == 'c') {
		check_count(text, size - 1);
	} else {
		check_request((enum plugin_command)(data[0] % (PLUGIN_LIST + 1)), text, size - 1);
	}
	return 0;
}
