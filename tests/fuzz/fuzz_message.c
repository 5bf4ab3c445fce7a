/* SPDX-License-Identifier: MIT */
/* Control messages: whatever parses must format and parse again to the same; nothing else may do more than
 * fail. */
#include <stdlib.h>
#include <string.h>

#include "message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_request(const char *text, size_t size)
{
	struct message_request request, again;
	struct error err = ERROR_NONE;
	char *formatted;

	if (message_request_parse(text, size, &request, &err) < 0)
		return;
	if (message_request_format(&request, &formatted) < 0 ||
	    message_request_parse(formatted, strlen(formatted), &again, &err) < 0 ||
	    again.command != request.command || again.lazy != request.lazy)
		abort();
	free(formatted);
}

static void check_response(const char *text, size_t size)
{
	struct message_status status, again;
	struct error err = ERROR_NONE;
	char *formatted;

	memset(&status, 0, sizeof(status));
	memset(&again, 0, sizeof(again));
	if (message_response_parse(text, size, &status, &err) < 0)
		return;
	if (message_format_status(&status, &formatted) < 0 ||
	    message_response_parse(formatted, strlen(formatted), &again, &err) < 0)
		abort();
	free(formatted);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_request((const char *)data, size);
	check_response((const char *)data, size);
	return 0;
}
