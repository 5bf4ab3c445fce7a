/* SPDX-License-Identifier: MIT */
/* The plugin's state as text, and the forms of what is in it. */
#include "cleanup.h"
#include "config.h"
#include "plugin_message.h"
#include "plugin_message_impl.h"
#include "util.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define VOLUME_HEAD "ckrfs plugin volume 1"
#define COUNT_HEAD "ckrfs plugin count 1"

/* ---- forms ---- */

bool plugin_text_fine(const char *text)
{
	char shown[4 * PLUGIN_PATH_SIZE];

	printable_text(text, shown, sizeof(shown));
	return strcmp(shown, text) == 0;
}

bool plugin_id_valid(const char *id)
{
	for (; *id; id++)
		if (*id <= ' ' || *id > '~')
			return false;
	return true;
}

/* Where messages go and where it is mounted is not for whoever may create volumes. */
bool plugin_option_known(const char *name)
{
	static const char *const never[] = {"target", "log", "log-level", "owner", "plugin-allow"};

	if (strcmp(name, "volume") == 0)
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(never); i++)
		if (strcmp(name, never[i]) == 0)
			return false;
	for (const struct config_option *o = config_options; o->name; o++)
		if (strcmp(name, o->name) == 0)
			return !o->system_only && strlen(name) < PLUGIN_OPTION_SIZE;
	return false;
}

static bool is_hex(const char *s, size_t n)
{
	return n > 0 && strspn(s, "0123456789abcdefABCDEF") >= n;
}

static int kind_of_character(char c)
{
	return c >= '0' && c <= '9' ? 1 : c >= 'a' && c <= 'z' ? 2 : c >= 'A' && c <= 'Z' ? 3 : 0;
}

/* Random bytes as base64 go from small to capital letters and digits all the time; words seldom do. */
static bool is_base64(const char *s, size_t n)
{
	size_t changes = 0;

	for (size_t i = 0; i < n; i++) {
		int kind = kind_of_character(s[i]), last = i ? kind_of_character(s[i - 1]) : 0;

		if (!kind && !strchr("+/=-_", s[i]))
			return false;
		changes += kind && last && kind != last;
	}
	return changes >= n / 4;
}

enum { HEX_KEY_MIN = 32, BASE64_KEY_MIN = 22 };

bool plugin_looks_like_key(const char *name, const char *value)
{
	bool of_key = strcmp(name, "key") == 0 || strcmp(name, "lower-key") == 0;
	const char *colon = strchr(value, ':'), *body = colon ? strrchr(value, ':') + 1 : value;
	size_t n = strcspn(body, "?");

	/* What is no volume of the configuration is never kept. */
	if (strcmp(name, "volume") == 0)
		return false;
	/* Where a scheme belongs, whatever has none was meant to be the key. */
	if (of_key && !colon)
		return true;
	if (body[0] == '/')
		return false;
	return (n >= HEX_KEY_MIN && is_hex(body, n)) || (n >= BASE64_KEY_MIN && is_base64(body, n));
}

const char *plugin_volume_option(const struct plugin_volume *v, const char *name)
{
	for (uint32_t i = 0; i < v->n_options; i++)
		if (strcmp(v->options[i].name, name) == 0)
			return v->options[i].value;
	return NULL;
}

bool plugin_volume_same_options(const struct plugin_volume *a, const struct plugin_volume *b)
{
	if (a->n_options != b->n_options)
		return false;
	for (uint32_t i = 0; i < a->n_options; i++)
		if (strcmp(a->options[i].name, b->options[i].name) != 0 ||
		    strcmp(a->options[i].value, b->options[i].value) != 0)
			return false;
	return true;
}

static bool ends(const char *text, size_t size)
{
	return memchr(text, '\0', size);
}

/* One option as it may stand behind those before it. */
static bool option_sound(const struct plugin_volume *v, uint32_t i)
{
	const struct plugin_option *o = &v->options[i];

	return ends(o->name, sizeof(o->name)) && ends(o->value, sizeof(o->value)) &&
	       plugin_option_known(o->name) && plugin_text_fine(o->value) &&
	       !plugin_looks_like_key(o->name, o->value) &&
	       (i == 0 || strcmp(v->options[i - 1].name, o->name) < 0);
}

static bool volume_sound(const struct plugin_volume *v)
{
	if (!ends(v->name, sizeof(v->name)) || !config_name_valid(v->name) ||
	    v->n_options > PLUGIN_OPTIONS_MAX)
		return false;
	for (uint32_t i = 0; i < v->n_options; i++)
		if (!option_sound(v, i))
			return false;
	return true;
}

bool plugin_message_sound(const struct plugin_request *request)
{
	if ((unsigned)request->command > PLUGIN_LIST || !ends(request->id, sizeof(request->id)) ||
	    !plugin_id_valid(request->id))
		return false;
	return request->command <= PLUGIN_CAPABILITIES || request->command == PLUGIN_LIST ||
	       volume_sound(&request->volume);
}

/* ---- lines ---- */

struct lines {
	char *next;
	char *text; /* owned */
};

static void lines_free(struct lines *l)
{
	free(l->text);
}
#define autolines __attribute__((cleanup(lines_free)))

/* A copy in which each line ends; the text must end with a newline. */
static int lines_open(const char *buf, size_t size, struct lines *ret)
{
	if (size == 0 || size > PLUGIN_RECORD_MAX || memchr(buf, '\0', size) || buf[size - 1] != '\n')
		return -EBADMSG;
	ret->text = strndup(buf, size);
	ret->next = ret->text;
	return ret->text ? 0 : -ENOMEM;
}

/* The next line, or NULL. */
static char *lines_next(struct lines *l)
{
	char *line = l->next, *end = line ? strchr(line, '\n') : NULL;

	if (!end)
		return NULL;
	*end = '\0';
	l->next = end + 1;
	return line;
}

/* What follows the word in that line; NULL: another word. */
static char *behind(char *line, const char *word)
{
	size_t n = strlen(word);

	return line && strncmp(line, word, n) == 0 && line[n] == ' ' ? line + n + 1 : NULL;
}

static bool is_end(const struct lines *l, const char *line)
{
	return line && strcmp(line, "end") == 0 && *l->next == '\0';
}

static int copy(char *to, size_t size, const char *from)
{
	if (!from || strlen(from) >= size)
		return -EBADMSG;
	memcpy(to, from, strlen(from) + 1);
	return 0;
}

/* Of what open_memstream(3) was writing. */
static int end_text(FILE *f, char **ret_text)
{
	fputs("end\n", f);
	if (fclose(f) == 0)
		return 0;
	free(*ret_text);
	return -ENOMEM;
}

/* ---- a volume ---- */

static int parse_option_line(char *text, struct plugin_volume *v)
{
	struct plugin_option *o = &v->options[v->n_options];
	char *value = strchr(text, '=');

	if (!value || v->n_options == PLUGIN_OPTIONS_MAX)
		return -EBADMSG;
	*value++ = '\0';
	if (copy(o->name, sizeof(o->name), text) < 0 || copy(o->value, sizeof(o->value), value) < 0)
		return -EBADMSG;
	v->n_options++;
	return 0;
}

int plugin_volume_parse(const char *buf, size_t size, struct plugin_volume *ret)
{
	autolines struct lines l = {0};
	struct plugin_volume v = {0};
	uint64_t created;
	char *line, *text;
	int r = lines_open(buf, size, &l);

	if (r < 0)
		return r;
	line = lines_next(&l);
	if (!line || strcmp(line, VOLUME_HEAD) != 0 ||
	    copy(v.name, sizeof(v.name), behind(lines_next(&l), "name")) < 0)
		return -EBADMSG;
	text = behind(lines_next(&l), "created");
	if (!text || parse_u64(text, INT64_MAX, &created) < 0)
		return -EBADMSG;
	v.created = (int64_t)created;
	while ((text = behind(line = lines_next(&l), "option")))
		if (parse_option_line(text, &v) < 0)
			return -EBADMSG;
	if (!is_end(&l, line) || !volume_sound(&v))
		return -EBADMSG;
	*ret = v;
	return 0;
}

int plugin_volume_format(const struct plugin_volume *v, char **ret_text)
{
	size_t size;
	FILE *f = open_memstream(ret_text, &size);

	if (!f)
		return -ENOMEM;
	fprintf(f, VOLUME_HEAD "\nname %s\ncreated %" PRId64 "\n", v->name, v->created);
	for (uint32_t i = 0; i < v->n_options; i++)
		fprintf(f, "option %s=%s\n", v->options[i].name, v->options[i].value);
	return end_text(f, ret_text);
}

/* ---- a count ---- */

int plugin_count_parse(const char *buf, size_t size, struct plugin_count *ret)
{
	autolines struct lines l = {0};
	struct plugin_count c = {0};
	uint64_t mounts;
	char *line, *text;
	int r = lines_open(buf, size, &l);

	if (r < 0)
		return r;
	line = lines_next(&l);
	if (!line || strcmp(line, COUNT_HEAD) != 0)
		return -EBADMSG;
	text = behind(lines_next(&l), "mounts");
	if (!text || parse_u64(text, UINT32_MAX, &mounts) < 0)
		return -EBADMSG;
	c.mounts = (uint32_t)mounts;
	while ((text = behind(line = lines_next(&l), "unanswered"))) {
		if (c.n_unanswered == PLUGIN_UNANSWERED_MAX || !plugin_id_valid(text) ||
		    copy(c.unanswered[c.n_unanswered++], PLUGIN_ID_SIZE, text) < 0)
			return -EBADMSG;
	}
	if (!is_end(&l, line) || c.n_unanswered > c.mounts)
		return -EBADMSG;
	*ret = c;
	return 0;
}

int plugin_count_format(const struct plugin_count *c, char **ret_text)
{
	size_t size;
	FILE *f = open_memstream(ret_text, &size);

	if (!f)
		return -ENOMEM;
	fprintf(f, COUNT_HEAD "\nmounts %" PRIu32 "\n", c->mounts);
	for (uint32_t i = 0; i < c->n_unanswered; i++)
		fprintf(f, "unanswered %s\n", c->unanswered[i]);
	return end_text(f, ret_text);
}
