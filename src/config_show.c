/* SPDX-License-Identifier: MIT */
/* `ckrfs config --show`. Values may be any bytes: neither the terminal nor a JSON parser gets to see odd
 * ones. */
#include "cleanup.h"
#include "config_impl.h"
#include <errno.h>

/* Length of the UTF-8 sequence at s, 0 if there is none (RFC 3629, table in section 4). */
static size_t utf8_length(const char *s)
{
	const unsigned char *u = (const unsigned char *)s;
	size_t n = u[0] < 0x80                   ? 1
		   : u[0] >= 0xC2 && u[0] < 0xE0 ? 2
		   : u[0] >= 0xE0 && u[0] < 0xF0 ? 3
		   : u[0] >= 0xF0 && u[0] < 0xF5 ? 4
						 : 0;

	for (size_t i = 1; i < n; i++)
		if ((u[i] & 0xC0) != 0x80)
			return 0;
	if ((u[0] == 0xE0 && u[1] < 0xA0) || (u[0] == 0xED && u[1] > 0x9F) || (u[0] == 0xF0 && u[1] < 0x90) ||
	    (u[0] == 0xF4 && u[1] > 0x8F))
		return 0;
	return n;
}

/* C0, DEL and, in UTF-8, C1: what a terminal may obey. */
static bool is_control(const char *s, size_t length)
{
	unsigned char c = (unsigned char)s[0], d = length == 2 ? (unsigned char)s[1] : 0xFF;

	return length == 1 ? c < 0x20 || c == 0x7F : c == 0xC2 && d < 0xA0;
}

static void show_json_string(FILE *to, const char *s)
{
	fputc('"', to);
	while (*s) {
		size_t n = utf8_length(s);

		if (!n)
			fputs("\\ufffd", to);
		else if (is_control(s, n))
			fprintf(to, "\\u%04x", (unsigned char)s[n - 1]);
		else if (*s == '"' || *s == '\\')
			fprintf(to, "\\%c", *s);
		else
			fwrite(s, n, 1, to);
		s += n ? n : 1;
	}
	fputc('"', to);
}

/* Returns how many columns, if every character takes one. */
static int show_plain_string(FILE *to, const char *s)
{
	int columns = 0;

	while (*s) {
		size_t n = utf8_length(s);

		if (!n || is_control(s, n)) {
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
		show_json_string(to, cfg->keys[i]);
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
		show_json_string(to, value);
	else
		fputs("null", to);
	fputs(", \"origin\": ", to);
	show_json_string(to, origin ? origin : "default");
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
		show_json_string(to, cfg->name);
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
