/* SPDX-License-Identifier: MIT */
/*
 * The bytes as a file, and as -o words over each of its volumes. Besides what the sanitizers see: values that
 * were taken must give themselves again when they are written out and set once more.
 */
#include "cleanup.h"
#include "config_impl.h"
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(struct config *cfg)
{
	for (int i = 0; config_options[i].name; i++) {
		autofree char *text = NULL, *again = NULL;

		if (config_options[i].type == CONFIG_KEY || config_value_text(cfg, i, &text) < 0 || !text)
			continue;
		if (config_value_set(cfg, i, text, "again", false, NULL) < 0)
			abort();
		if (config_value_text(cfg, i, &again) < 0 || !again || strcmp(text, again))
			abort();
	}
}

static void show(const struct config *cfg)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return;
	for (int json = 0; json < 2; json++)
		if (config_show(cfg, f, json) < 0)
			abort();
	fclose(f);
	free(text);
}

static void use(struct config *cfg, const char *options)
{
	struct error err = ERROR_NONE;

	show(cfg);
	round_trip(cfg);
	if (config_apply_options(cfg, options, "-o", &err) < 0 && !err.code)
		abort();
	if (config_volume_finish(cfg, &err) == 0 && cfg->source[0] != '/')
		abort();
	show(cfg);
	round_trip(cfg);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autofree char *text = size ? strndup((const char *)data, size) : strdup("");
	autoconfig_set struct config_set *set = NULL;
	autoconfig struct config *anonymous = NULL;
	struct error err = ERROR_NONE;

	if (!text || config_set_new(1000, &set, &err) < 0)
		return 0;
	if (config_parse(set, "f", (const char *)data, size, &err) < 0) {
		if (!err.code || strncmp(err.text, "f:", 2))
			abort();
	}
	for (const char *const *name = config_volumes(set); *name; name++) {
		autoconfig struct config *cfg = NULL;

		if (!config_name_valid(*name) || config_volume(set, *name, &cfg, &err) < 0)
			abort();
		use(cfg, text);
	}
	if (config_anonymous(set, "x", &anonymous, &err) == 0)
		use(anonymous, text);
	return 0;
}
