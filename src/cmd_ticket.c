/* SPDX-License-Identifier: MIT */
/* ckrfs ticket: can a ticket for an AFS cell be had, and what kind of ticket is it? Shows no key. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "crypto.h"
#include "krb5_source.h"
#include "util.h"

enum { TIMEOUT_MS = 30000, TIMEOUT_MAX_MS = 3600000, CELL_MAX = 253 };

struct ticket_args {
	const char *spec, *realm;
	uint64_t timeout_ms;
	bool json;
};

static int ticket_args_set(void *ctx, const char *name, const char *value, struct error *err)
{
	struct ticket_args *a = ctx;

	if (strcmp(name, "json") == 0) {
		a->json = true;
	} else if (strcmp(name, "realm") == 0) {
		a->realm = value;
	} else if (strcmp(name, "timeout") == 0) {
		if (parse_duration_ms(value, &a->timeout_ms) < 0 || !a->timeout_ms ||
		    a->timeout_ms > TIMEOUT_MAX_MS)
			return error_set(err, -EINVAL, EXIT_STATUS_USAGE,
					 "--timeout %s is not a time such as 30s", value);
	} else if (a->spec) {
		return error_set(err, -EINVAL, EXIT_STATUS_USAGE, "two times --key");
	} else {
		a->spec = value;
	}
	return 0;
}

/* RFC 1035 names, as cells have; nothing else gets into a principal. */
static bool is_domain(const char *name)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-");

	return n > 0 && !name[n] && n <= CELL_MAX && name[0] != '.' && name[0] != '-';
}

/* ---- what is shown ---- */

static void show_text(const struct afs_krb5_ticket *t)
{
	char client[4 * AFS_KRB5_NAME], service[4 * AFS_KRB5_NAME], start[64], expires[64];

	printable_text(t->client, client, sizeof(client));
	printable_text(t->service, service, sizeof(service));
	local_time_text(t->start, start, sizeof(start));
	local_time_text(t->expires, expires, sizeof(expires));
	printf("client:         %s\nservice:        %s\nsession key:    %s\n", client, service,
	       t->session_enctype);
	printf("ticket:         %s, key version %" PRIu32 ", %zu bytes\n", t->ticket_enctype, t->kvno,
	       t->size);
	printf("valid from:     %s\nexpires:        %s\n", start, expires);
}

static void show_json(const struct afs_krb5_ticket *t)
{
	printf("{\"client\": ");
	print_json_string(stdout, t->client);
	printf(", \"service\": ");
	print_json_string(stdout, t->service);
	printf(", \"session_enctype\": \"%s\", \"ticket_enctype\": \"%s\", \"kvno\": %" PRIu32
	       ", \"start\": %" PRId64 ", \"expires\": %" PRId64 ", \"size\": %zu}\n",
	       t->session_enctype, t->ticket_enctype, t->kvno, t->start, t->expires, t->size);
}

/* ---- the command ---- */

static int ask(const struct ticket_args *a, const char *cell, struct error *err)
{
	struct krb5_ask how = {
		.cell = cell, .realm = a->realm, .check_files = true, .timeout_ms = TIMEOUT_MS};
	autosecret struct secret *payload = NULL;
	struct krb5_source *src = NULL;
	struct afs_krb5_ticket ticket;
	int r = crypto_init();

	if (r < 0)
		return error_errno(err, r, EXIT_STATUS_FAILED, "cannot set up the cryptography");
	if (a->timeout_ms)
		how.timeout_ms = (int)a->timeout_ms;
	r = krb5_source_parse(a->spec, &src, err);
	if (r == 0)
		r = krb5_source_ask(src, &how, &payload, &ticket, err);
	krb5_source_free(src);
	if (r < 0)
		return r;
	if (a->json)
		show_json(&ticket);
	else
		show_text(&ticket);
	return fflush(stdout) == EOF
		       ? error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot write to standard output")
		       : 0;
}

int cmd_ticket(const struct front *front, int argc, char **argv)
{
	const struct command *cmd = command_find("ticket");
	struct ticket_args a = {0};
	struct error err = ERROR_NONE;
	int first, r = command_parse(cmd, argc, argv, ticket_args_set, &a, &first);

	if (r < 0)
		return r == -ECANCELED ? EXIT_STATUS_DONE : EXIT_STATUS_USAGE;
	if (argc - first != 1)
		return command_usage(cmd, "one cell is needed, as example.org");
	if (!a.spec)
		return command_usage(cmd,
				     "--key is needed: krb5:keytab=PATH,principal=NAME or krb5:ccache=NAME");
	if (!is_domain(argv[first]))
		return command_usage(cmd, "\"%s\" is not the name of a cell", argv[first]);
	if (a.realm && !is_domain(a.realm))
		return command_usage(cmd, "\"%s\" is not the name of a realm", a.realm);
	r = ask(&a, argv[first], &err);
	if (r < 0)
		error_prefix(&err, "no ticket for the cell \"%s\"", argv[first]);
	return r < 0 ? command_fail(&err) : EXIT_STATUS_DONE;
}
