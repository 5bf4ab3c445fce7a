/* SPDX-License-Identifier: MIT */
#include "diagnosis.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "util.h"

void diagnosis_add(struct diagnosis *d, const char *check, enum diagnosis_level level,
		   enum exit_status status, const char *mend, const char *fmt, ...)
{
	struct diagnosis_finding *more = reallocarray(d->items, d->n + 1, sizeof(*more)), *f;
	char text[sizeof(more->text)];
	va_list args;

	if (!more) {
		d->out_of_memory = true;
		return;
	}
	d->items = more;
	f = &more[d->n++];
	*f = (struct diagnosis_finding){.level = level, .status = status};
	va_start(args, fmt);
	if (vsnprintf(text, sizeof(text), fmt, args) < 0)
		text[0] = '\0';
	va_end(args);
	printable_text(check, f->check, sizeof(f->check));
	printable_text(text, f->text, sizeof(f->text));
	printable_text(mend ? mend : "", f->mend, sizeof(f->mend));
}

void diagnosis_add_error(struct diagnosis *d, const char *check, const struct error *err)
{
	diagnosis_add(d, check, DIAGNOSIS_PROBLEM, err->status ? err->status : EXIT_STATUS_FAILED, err->hint,
		      "%s", err->text);
}

const char *diagnosis_level_word(enum diagnosis_level level)
{
	static const char *const words[] = {
		[DIAGNOSIS_OK] = "ok", [DIAGNOSIS_NOTE] = "note", [DIAGNOSIS_PROBLEM] = "problem"};

	return words[level];
}

enum exit_status diagnosis_status(const struct diagnosis *d)
{
	enum exit_status status = d->out_of_memory ? EXIT_STATUS_FAILED : EXIT_STATUS_DONE;

	for (size_t i = 0; i < d->n; i++) {
		const struct diagnosis_finding *f = &d->items[i];

		if (f->level == DIAGNOSIS_PROBLEM)
			status = status == EXIT_STATUS_DONE || status == f->status ? f->status
										   : EXIT_STATUS_FAILED;
	}
	return status;
}

size_t diagnosis_count(const struct diagnosis *d, enum diagnosis_level level)
{
	size_t n = 0;

	for (size_t i = 0; i < d->n; i++)
		n += d->items[i].level == level;
	return n;
}

static struct json_object *finding_to_json(const struct diagnosis_finding *f)
{
	struct json_object *o = json_object_new_object();

	if (!o)
		return NULL;
	json_object_object_add(o, "check", json_object_new_string(f->check));
	json_object_object_add(o, "level", json_object_new_string(diagnosis_level_word(f->level)));
	json_object_object_add(o, "text", json_object_new_string(f->text));
	json_object_object_add(o, "try", json_object_new_string(f->mend));
	return o;
}

int diagnosis_json(const struct diagnosis *d, char **ret_text)
{
	struct json_object *o = json_object_new_object(), *list = json_object_new_array();
	const char *json;
	int r;

	for (size_t i = 0; list && i < d->n; i++)
		json_object_array_add(list, finding_to_json(&d->items[i]));
	if (o) {
		json_object_object_add(o, "problems",
				       json_object_new_uint64(diagnosis_count(d, DIAGNOSIS_PROBLEM)));
		json_object_object_add(o, "notes",
				       json_object_new_uint64(diagnosis_count(d, DIAGNOSIS_NOTE)));
		json_object_object_add(o, "findings", list);
	}
	json = o ? json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
							     JSON_C_TO_STRING_NOSLASHESCAPE)
		 : NULL;
	r = json && asprintf(ret_text, "%s\n", json) >= 0 ? 0 : -ENOMEM;
	json_object_put(o);
	return r;
}

void diagnosis_free(struct diagnosis *d)
{
	free(d->items);
	*d = (struct diagnosis){0};
}
