/* SPDX-License-Identifier: MIT */
/* `ckrfs config --show`. Values may be any bytes: neither the terminal nor a JSON parser gets to see odd
 * ones. */
#include "cleanup.h"
#include "config_impl.h"
#include "util.h"
#include <errno.h>

/* Returns how many columns, if every character takes one. */
static int show_plain_string(FILE *to, const char *s)
{
	int columns = 0;

	while (*s) {
		uint32_t c = 0;
		size_t n = utf8_decode(s, &c);

		if (!n || code_point_control(c)) {
			n = n ? n : 1;
			for (size_t i = 0; i < n; i++)
				columns += fprintf(to, "\\x%02X", (unsigned char)s[i]);
		} else {
			fwrite(s, n, 1, to);
			columns++;
		}
		s += n;
	}
	return columns;
}

static void show_line(FILE *to, const char *name, const char *value, const char *origin)
{
	int columns;

	fprintf(to, "%-16s = ", name);
	columns = show_plain_string(to, value ? value : "-");
	fprintf(to, "%*s# %s\n", columns < 24 ? 26 - columns : 2, "", origin ? origin : "default");
}

static void show_json_keys(FILE *to, const struct config *cfg)
{
	fputc('[', to);
	for (size_t i = 0; i < cfg->n_keys; i++) {
		fputs(i ? ", " : "", to);
		print_json_string(to, cfg->keys[i]);
	}
	fputc(']', to);
}

static void show_json_option(FILE *to, const struct config *cfg, int index, const char *value)
{
	const struct config_option *o = &config_options[index];
	const char *origin = cfg->origins[index].text;

	fprintf(to, "%s\n\t\t\"%s\": {\"value\": ", index ? "," : "", o->name);
	if (o->type == CONFIG_KEY)
		show_json_keys(to, cfg);
	else if (value)
		print_json_string(to, value);
	else
		fputs("null", to);
	fputs(", \"origin\": ", to);
	print_json_string(to, origin ? origin : "default");
	fputc('}', to);
}

static void show_option(FILE *to, const struct config *cfg, int index, const char *value)
{
	const struct config_option *o = &config_options[index];
	const char *origin = cfg->origins[index].text;

	if (o->type != CONFIG_KEY || !cfg->n_keys)
		show_line(to, o->name, value, origin);
	else
		for (size_t i = 0; i < cfg->n_keys; i++)
			show_line(to, o->name, cfg->keys[i], origin);
}

int config_show(const struct config *cfg, FILE *to, bool json)
{
	if (json) {
		fputs("{\n\t\"volume\": ", to);
		print_json_string(to, cfg->name);
		fputs(",\n\t\"options\": {", to);
	}
	for (int i = 0; config_options[i].name; i++) {
		autofree char *value = NULL;

		if (config_options[i].type != CONFIG_KEY && config_value_text(cfg, i, &value) < 0)
			return -ENOMEM;
		if (json)
			show_json_option(to, cfg, i, value);
		else
			show_option(to, cfg, i, value);
	}
	if (json)
		fputs("\n\t}\n}\n", to);
	return ferror(to) ? -EIO : 0;
}
