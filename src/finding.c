/* SPDX-License-Identifier: MIT */
#include "finding.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "jsontext.h"
#include "util.h"

enum { DEPTH_MAX = 4, LINE_MAX_SIZE = 64 << 20 };

static const struct {
	const char *word, *what, *meaning;
} kinds[FINDING_KINDS] = {
	[FINDING_DIRIV_MISSING] = {"diriv-missing", "the directory has no gocryptfs.diriv",
				   "the directory cannot be opened, nothing below it can be reached"},
	[FINDING_DIRIV_DAMAGED] =
		{"diriv-damaged",
		 "gocryptfs.diriv of the directory is not a file of 16 bytes that are not all zero",
		 "the directory cannot be opened, nothing below it can be reached"},
	[FINDING_DIRIV_WRONG] = {"diriv-wrong",
				 "no name decrypts: gocryptfs.diriv is that of another directory, or damaged",
				 "the directory looks empty; its files are whole, but their names are lost"},
	[FINDING_NAME] = {"name", "the name does not decrypt",
			  "the entry is hidden; what is in it may be whole, but its name is lost"},
	[FINDING_NAME_MISSING] = {"name-missing", "the .name file of a long name is missing",
				  "the entry is hidden in listings; who knows its name still reaches it"},
	[FINDING_NAME_DAMAGED] = {"name-damaged", "the .name file of a long name is damaged",
				  "the entry is hidden in listings; who knows its name still reaches it"},
	[FINDING_DUPLICATE] = {"duplicate", "a second form of a name, which no gocryptfs writes",
			       "the entry is hidden, or shows twice; somebody made it by hand"},
	[FINDING_FOREIGN] = {"foreign", "not part of the volume", "the entry is hidden; it is not encrypted"},
	[FINDING_HEADER] = {"header", "the header of the file is damaged",
			    "nothing of the file can be read: its blocks are bound to the header"},
	[FINDING_BLOCKS] = {"blocks", "parts of the file do not authenticate",
			    "these parts of the file cannot be read, the others can"},
	[FINDING_CUT] = {"cut", "the file ends inside a block",
			 "the end of the file is lost; how much there was cannot be known"},
	[FINDING_SYMLINK] = {"symlink", "the target of the symbolic link does not decrypt",
			     "the link leads nowhere, its target is lost"},
	[FINDING_XATTR] = {"xattr", "an extended attribute does not decrypt",
			   "the attribute cannot be read; the file itself is not touched by it"},
	[FINDING_UNREADABLE] = {"unreadable", "cannot be read from the disk, and was not checked",
				"the disk may be failing, or permissions are missing"},
	[FINDING_ORPHAN_NAME] = {"orphan-name", "a .name file without its object, as a crash leaves it",
				 "harmless"},
	[FINDING_PARKED_DIRIV] =
		{"parked-diriv", "the rest of an interrupted removal of a directory",
		 "harmless, unless a directory beside it has no gocryptfs.diriv: this may be it"},
	[FINDING_UNFINISHED_DIRECTORY] = {"unfinished-directory",
					  "the rest of an interrupted making of a directory", "harmless"},
	[FINDING_UNFINISHED_CONFIG] =
		{"unfinished-config", "the rest of an interrupted change of passphrase",
		 "harmless, but gocryptfs cannot change the passphrase before it is gone"},
	[FINDING_REDO_LOG] =
		{"redo-log",
		 "the volume was not unmounted, and has a log of blocks that were being rewritten",
		 "mounting the volume, or a repair, plays it back; damaged blocks may be good then"},
	[FINDING_HEADER_ONLY] = {"header-only", "the file has a header, or a part of one, and no contents",
				 "it reads as empty; a crash leaves such files, and so does cutting one"},
};

bool finding_is_note(const struct finding *f)
{
	return f->kind >= FINDING_ORPHAN_NAME;
}

const char *finding_word(enum finding_kind kind)
{
	return kinds[kind].word;
}

const char *finding_what(enum finding_kind kind)
{
	return kinds[kind].what;
}

const char *finding_meaning(enum finding_kind kind)
{
	return kinds[kind].meaning;
}

/* ---- copies ---- */

static int copy_text(const char *text, const char **ret)
{
	*ret = text ? strdup(text) : NULL;
	return text && !*ret ? -ENOMEM : 0;
}

int finding_copy(const struct finding *f, struct finding *ret)
{
	struct finding copy = *f;
	int r = 0;

	r |= copy_text(f->path, &copy.path);
	r |= copy_text(f->name, &copy.name);
	r |= copy_text(f->attribute, &copy.attribute);
	r |= copy_text(f->text, &copy.text);
	if (r < 0) {
		finding_wipe(&copy);
		return -ENOMEM;
	}
	*ret = copy;
	return 0;
}

/* finding_copy() and finding_parse() own what they point to, const or not. */
static void free_text(const char *text)
{
	free((void *)(uintptr_t)text);
}

void finding_wipe(struct finding *f)
{
	free_text(f->path);
	free_text(f->name);
	free_text(f->attribute);
	free_text(f->text);
	*f = (struct finding){.kind = f->kind};
}

/* ---- bytes as text ---- */

char *finding_escape(const char *path)
{
	size_t size = 4 * strlen(path) + 1;
	char *text = malloc(size);

	if (text)
		printable(path, text, size);
	return text;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

char *finding_unescape(const char *text)
{
	char *path = malloc(strlen(text) + 1), *out = path;

	if (!path)
		return NULL;
	while (*text) {
		int high, low;

		if (*text != '\\') {
			*out++ = *text++;
			continue;
		}
		high = text[1] == 'x' && text[2] ? hex_digit(text[2]) : -1;
		low = high >= 0 && text[3] ? hex_digit(text[3]) : -1;
		if (low < 0 || (high | low) == 0) {
			free(path);
			return NULL;
		}
		*out++ = (char)(high << 4 | low);
		text += 4;
	}
	*out = '\0';
	return path;
}

/* For people, valid UTF-8. */
static char *readable(const char *name)
{
	size_t size = 4 * strlen(name) + 1;
	char *text = malloc(size);

	if (text)
		printable_text(name, text, size);
	return text;
}

/* ---- JSON ---- */

static int line_of(struct json_object *o, char **ret_line)
{
	const char *json =
		o ? json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)
		  : NULL;

	return json && asprintf(ret_line, "%s\n", json) >= 0 ? 0 : -ENOMEM;
}

char *finding_quote(const char *text)
{
	autofree char *shown = readable(text);
	autojson struct json_object *o = shown ? json_object_new_string(shown) : NULL;

	return o ? strdup(json_object_to_json_string_ext(o, JSON_C_TO_STRING_NOSLASHESCAPE)) : NULL;
}

static void add_text(struct json_object *o, const char *member, const char *text)
{
	json_object_object_add(o, member, json_object_new_string(text));
}

int finding_format(const struct finding *f, char **ret_line)
{
	autojson struct json_object *o = json_object_new_object();
	autofree char *path = finding_escape(f->path), *name = readable(f->name), *attribute = NULL;

	if (f->attribute)
		attribute = finding_escape(f->attribute);
	if (!o || !path || !name || (f->attribute && !attribute))
		return -ENOMEM;
	add_text(o, "kind", finding_word(f->kind));
	add_text(o, "severity", finding_is_note(f) ? "note" : "damage");
	add_text(o, "path", path);
	add_text(o, "name", name);
	json_object_object_add(o, "name_complete", json_object_new_boolean(f->name_complete));
	if (attribute)
		add_text(o, "attribute", attribute);
	if (f->blocks) {
		json_object_object_add(o, "first_block", json_object_new_uint64(f->first_block));
		json_object_object_add(o, "blocks", json_object_new_uint64(f->blocks));
	}
	if (f->code)
		json_object_object_add(o, "code", json_object_new_int(f->code));
	add_text(o, "what", finding_what(f->kind));
	add_text(o, "meaning", finding_meaning(f->kind));
	return line_of(o, ret_line);
}

/* ---- the summary ---- */

#define COUNT(member)                                                                                        \
	{                                                                                                    \
#member, offsetof(struct finding_summary, member)                                            \
	}

static const struct {
	const char *name;
	size_t offset;
} counts[] = {COUNT(files), COUNT(directories), COUNT(links), COUNT(others),
	      COUNT(bytes), COUNT(damages),     COUNT(notes)};

int finding_summary_format(const struct finding_summary *s, char **ret_line)
{
	autojson struct json_object *o = json_object_new_object();

	for (size_t i = 0; o && i < ARRAY_SIZE(counts); i++) {
		const uint64_t *value = (const void *)((const char *)s + counts[i].offset);

		json_object_object_add(o, counts[i].name, json_object_new_uint64(*value));
	}
	if (o)
		json_object_object_add(o, "complete", json_object_new_boolean(s->complete));
	return line_of(o, ret_line);
}

static int summary_from_json(struct json_object *o, struct finding_summary *ret)
{
	struct finding_summary s = {.complete = false};
	struct json_object *value;

	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		if (!json_object_object_get_ex(o, counts[i].name, &value) ||
		    !json_object_is_type(value, json_type_int))
			return -EBADMSG;
		*(uint64_t *)(void *)((char *)&s + counts[i].offset) = json_object_get_uint64(value);
	}
	if (json_object_object_get_ex(o, "complete", &value))
		s.complete = json_object_get_boolean(value);
	*ret = s;
	return 0;
}

/* ---- reading a line ---- */

static const char *text_of(struct json_object *o, const char *member)
{
	struct json_object *value;

	if (!json_object_object_get_ex(o, member, &value) || !json_object_is_type(value, json_type_string))
		return NULL;
	return json_object_get_string(value);
}

static uint64_t count_of(struct json_object *o, const char *member)
{
	struct json_object *value;

	return json_object_object_get_ex(o, member, &value) ? json_object_get_uint64(value) : 0;
}

static int kind_of(const char *word, enum finding_kind *ret)
{
	for (int i = 0; word && i < FINDING_KINDS; i++)
		if (strcmp(kinds[i].word, word) == 0) {
			*ret = (enum finding_kind)i;
			return 0;
		}
	return -EBADMSG;
}

static int finding_from_json(struct json_object *o, struct finding *ret)
{
	const char *path = text_of(o, "path"), *name = text_of(o, "name"),
		   *attribute = text_of(o, "attribute");
	struct finding f = {.first_block = count_of(o, "first_block"), .blocks = count_of(o, "blocks")};
	struct json_object *value;

	if (!path || !name || kind_of(text_of(o, "kind"), &f.kind) < 0)
		return -EBADMSG;
	if (!f.blocks)
		f.first_block = 0;
	if (json_object_object_get_ex(o, "name_complete", &value))
		f.name_complete = json_object_get_boolean(value);
	if (json_object_object_get_ex(o, "code", &value))
		f.code = json_object_get_int(value);
	f.path = finding_unescape(path);
	f.name = strdup(name);
	f.attribute = attribute ? finding_unescape(attribute) : NULL;
	if (!f.path || !f.name || (attribute && !f.attribute)) {
		finding_wipe(&f);
		return -EBADMSG;
	}
	*ret = f;
	return 0;
}

int finding_parse(const char *line, size_t size, struct finding *ret, struct finding_summary *ret_summary)
{
	struct json_tokener *tok = json_tokener_new_ex(DEPTH_MAX);
	autojson struct json_object *o = NULL;
	struct json_object *unused;

	if (!tok)
		return -ENOMEM;
	if (size < LINE_MAX_SIZE)
		o = json_tokener_parse_ex(tok, line, (int)size);
	json_tokener_free(tok);
	if (!json_object_is_type(o, json_type_object))
		return -EBADMSG;
	if (json_object_object_get_ex(o, "kind", &unused))
		return finding_from_json(o, ret);
	return summary_from_json(o, ret_summary) < 0 ? -EBADMSG : 1;
}
