/* SPDX-License-Identifier: MIT */
/* The bytes as the specification of a key source. What is refused has words and the status of a mistake in
 * the configuration; nothing is asked. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "krb5_source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autofree char *spec = size ? strndup((const char *)data, size) : strdup("");
	struct error err = ERROR_NONE;
	struct krb5_source *src;
	int r;

	if (!spec)
		return 0;
	r = krb5_source_parse(spec, &src, &err);
	if (r == 0)
		krb5_source_free(src);
	else if (r != -ENOMEM && (r != -EINVAL || err.status != EXIT_STATUS_CONFIG || !err.text[0]))
		abort();
	return 0;
}
