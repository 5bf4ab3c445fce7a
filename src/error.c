/* SPDX-License-Identifier: MIT */
#include "error.h"

#include <errno.h>
#include <string.h>

#include "util.h"

/* Longer than the texts by one UTF-8 character: where vsnprintf cuts one in two is behind what is kept. */
enum { ERROR_RAW_MAX = sizeof(((struct error *)0)->text) + 8 };

static void error_vformat(char *dst, size_t dst_size, const char *fmt, va_list args)
	__attribute__((format(printf, 3, 0)));

static void error_vformat(char *dst, size_t dst_size, const char *fmt, va_list args)
{
	char raw[ERROR_RAW_MAX];

	if (vsnprintf(raw, sizeof(raw), fmt, args) < 0)
		raw[0] = '\0';
	printable_text(raw, dst, dst_size);
}

static void error_append(char *dst, size_t dst_size, const char *more)
{
	size_t used = strlen(dst);

	printable_text(more, dst + used, dst_size - used);
}

int error_set(struct error *err, int code, enum exit_status status, const char *fmt, ...)
{
	va_list args;

	if (!err)
		return code;
	*err = (struct error){.code = code, .status = status};
	va_start(args, fmt);
	error_vformat(err->text, sizeof(err->text), fmt, args);
	va_end(args);
	return code;
}

int error_errno(struct error *err, int code, enum exit_status status, const char *fmt, ...)
{
	va_list args;

	if (!err)
		return code;
	*err = (struct error){.code = code, .status = status};
	va_start(args, fmt);
	error_vformat(err->text, sizeof(err->text), fmt, args);
	va_end(args);
	error_append(err->text, sizeof(err->text), ": ");
	error_append(err->text, sizeof(err->text), strerror(-code));
	return code;
}

int error_prefix(struct error *err, const char *fmt, ...)
{
	char old[sizeof(err->text)];
	va_list args;

	if (!err)
		return -EIO;
	memcpy(old, err->text, sizeof(old));
	va_start(args, fmt);
	error_vformat(err->text, sizeof(err->text), fmt, args);
	va_end(args);
	error_append(err->text, sizeof(err->text), ": ");
	error_append(err->text, sizeof(err->text), old);
	return err->code;
}

void error_hint(struct error *err, const char *fmt, ...)
{
	va_list args;

	if (!err)
		return;
	va_start(args, fmt);
	error_vformat(err->hint, sizeof(err->hint), fmt, args);
	va_end(args);
}

void error_print(FILE *to, const struct error *err)
{
	fprintf(to, "ckrfs: %s\n", err->text[0] ? err->text : strerror(-err->code));
	if (err->hint[0])
		fprintf(to, "  try: %s\n", err->hint);
}
