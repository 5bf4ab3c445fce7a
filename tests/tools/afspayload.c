/* SPDX-License-Identifier: MIT */
/*
 * For test_krb5.py: what ckrfs makes of a ticket, and what a service reads in it.
 * usage: afspayload ask SPEC CELL FILE      the payload into FILE, then "ready"; lives on, without it, until
 * its input ends afspayload open FILE KEYTAB        of the ticket in such a file: CLIENT ENCTYPE SESSION-KEY,
 * by libkrb5 alone
 */
#include <fcntl.h>
#include <krb5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crypto.h"
#include "krb5_source.h"
#include "util.h"

enum { HEAD = 24 };

static int ask(const char *spec, const char *cell, const char *path)
{
	struct krb5_ask how = {.cell = cell, .timeout_ms = 20000};
	struct secret *payload = NULL;
	struct error err = ERROR_NONE;
	struct afs_krb5_ticket ticket;
	struct krb5_source *src;
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || crypto_init() < 0 || krb5_source_parse(spec, &src, &err) < 0 ||
	    krb5_source_ask(src, &how, &payload, &ticket, &err) < 0 ||
	    write_full(fd, secret_data(payload), secret_size(payload)) < 0) {
		error_print(stderr, &err);
		return 1;
	}
	secret_free(payload);
	krb5_source_free(src);
	close(fd);
	puts("ready");
	fflush(stdout);
	getchar();
	return 0;
}

static void die(krb5_context ctx, const char *what, krb5_error_code code)
{
	fprintf(stderr, "afspayload: %s: %s\n", what, krb5_get_error_message(ctx, code));
	exit(1);
}

static int open_ticket(const char *path, const char *keytab_path)
{
	static char buffer[16384];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read_full(fd, buffer, sizeof(buffer));
	krb5_data der = {.data = buffer + HEAD, .length = n < HEAD ? 0 : (unsigned)(n - HEAD)};
	krb5_context ctx;
	krb5_keytab keytab;
	krb5_ticket *ticket;
	krb5_error_code code;
	char *client;

	if (krb5_init_context(&ctx))
		return 1;
	code = krb5_decode_ticket(&der, &ticket);
	if (code)
		die(ctx, "ticket", code);
	code = krb5_kt_resolve(ctx, keytab_path, &keytab);
	if (!code)
		code = krb5_server_decrypt_ticket_keytab(ctx, keytab, ticket);
	if (!code)
		code = krb5_unparse_name(ctx, ticket->enc_part2->client, &client);
	if (code)
		die(ctx, keytab_path, code);
	printf("%s %d ", client, ticket->enc_part2->session->enctype);
	for (unsigned i = 0; i < ticket->enc_part2->session->length; i++)
		printf("%02x", ticket->enc_part2->session->contents[i]);
	putchar('\n');
	krb5_free_unparsed_name(ctx, client);
	krb5_free_ticket(ctx, ticket);
	krb5_kt_close(ctx, keytab);
	krb5_free_context(ctx);
	close(fd);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "ask") == 0)
		return ask(argv[2], argv[3], argv[4]);
	if (argc == 4 && strcmp(argv[1], "open") == 0)
		return open_ticket(argv[2], argv[3]);
	fputs("usage: afspayload ask SPEC CELL FILE | open FILE KEYTAB\n", stderr);
	return 2;
}
