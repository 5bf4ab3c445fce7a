/* SPDX-License-Identifier: MIT */
/*
 * The process that engines talk to: HTTP by libmicrohttpd and JSON, without a right of its own. One
 * connection is one request. What a client does or leaves undone costs at most one of CLIENTS_MAX places for
 * CLIENT_MS: where they are all taken, the oldest that has not said what it wants makes room.
 */
#include <errno.h>
#include <microhttpd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "log.h"
#include "sandbox.h"
#include "util.h"
#include "volume_plugin_impl.h"

enum {
	CLIENTS_MAX = 128,
	CLIENTS_HARD_MAX = 2 * CLIENTS_MAX, /* those who wait for an answer, too */
	CLIENT_MS = 5000,                   /* until the request is there, and for taking the answer */
	HEADERS_MAX = 8192,
};

struct exchange;

/* A connection, from its first byte on. */
struct client {
	struct client *next; /* the youngest first */
	struct front *front;
	struct MHD_Connection *connection;
	uint64_t since;
	struct exchange *exchange; /* NULL: no request yet */
};

struct exchange {
	struct client *client;
	uint64_t serial; /* 0: not asked of the plugin */
	bool too_long, waiting, answered;
	char *body;
	size_t used;
	struct plugin_request request;
	struct plugin_entry *entries; /* of a list, so far */
	size_t n_entries;
	unsigned status; /* of HTTP */
	char *text;
};

struct front {
	struct MHD_Daemon *http;
	int channel_fd;
	uint64_t serial;
	struct client *clients;
	size_t n_clients;
	bool stopping, failed;
};

/* ---- the channel ---- */

int front_receive(int fd, struct front_message *ret)
{
	ssize_t n;

	do
		n = recv(fd, ret, sizeof(*ret), MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n == 0)
		return 0;
	return n == (ssize_t)sizeof(*ret) ? 1 : -EBADMSG;
}

static void tell_plugin(struct front *f, const struct front_message *message)
{
	ssize_t n;

	do
		n = send(f->channel_fd, message, sizeof(*message), MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	f->failed |= n != (ssize_t)sizeof(*message);
}

/* ---- an exchange ---- */

static void exchange_free(struct exchange *e)
{
	if (!e)
		return;
	/* Somebody may have written a key into it. */
	if (e->body)
		explicit_bzero(e->body, PLUGIN_BODY_MAX);
	free(e->body);
	free(e->entries);
	free(e->text);
	free(e);
}

static void exchange_fail(struct exchange *e, unsigned status, const struct error *err)
{
	e->answered = true;
	e->status = status;
	if (plugin_message_format_error(err, &e->text) < 0)
		e->text = NULL;
}

static void exchange_done(struct exchange *e, const struct plugin_answer *answer)
{
	e->answered = true;
	e->status = MHD_HTTP_OK;
	if (plugin_message_format(&e->request, answer, e->entries, e->n_entries, &e->text) < 0)
		e->text = NULL;
}

static pid_t peer_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct ucred peer = {0};
	socklen_t size = sizeof(peer);

	return info && getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? peer.pid
												: 0;
}

static void exchange_ask(struct front *f, struct exchange *e)
{
	struct front_message message = {.kind = FRONT_REQUEST, .serial = ++f->serial};

	message.request = e->request;
	message.request.peer = peer_of(e->client->connection);
	e->serial = f->serial;
	tell_plugin(f, &message);
}

/* 0: it is to be asked of the plugin. */
static unsigned exchange_parse(struct exchange *e, const char *method, const char *path, struct error *err)
{
	enum plugin_command command;

	if (strcmp(method, MHD_HTTP_METHOD_POST) != 0) {
		error_set(err, -EINVAL, EXIT_STATUS_FAILED, "requests of this protocol are POST");
		return MHD_HTTP_METHOD_NOT_ALLOWED;
	}
	if (plugin_message_command(path, &command) < 0) {
		error_set(err, -ENOENT, EXIT_STATUS_FAILED,
			  "there is no such request: this is a volume plugin");
		return MHD_HTTP_NOT_FOUND;
	}
	if (e->too_long) {
		error_set(err, -EMSGSIZE, EXIT_STATUS_FAILED, "the request is longer than %d bytes",
			  PLUGIN_BODY_MAX);
		return MHD_HTTP_CONTENT_TOO_LARGE;
	}
	switch (plugin_message_parse(command, e->body, e->used, &e->request, err)) {
	case 0:
		return 0;
	case -EBADMSG:
		return MHD_HTTP_BAD_REQUEST;
	default:
		return MHD_HTTP_INTERNAL_SERVER_ERROR;
	}
}

static void exchange_begin(struct front *f, struct exchange *e, const char *method, const char *path)
{
	struct error err = ERROR_NONE;
	unsigned status = exchange_parse(e, method, path, &err);

	if (status)
		exchange_fail(e, status, &err);
	else if (e->request.command <= PLUGIN_CAPABILITIES)
		exchange_done(e, NULL);
	else
		exchange_ask(f, e);
}

static enum MHD_Result exchange_send(struct exchange *e, struct MHD_Connection *connection)
{
	static char empty[] = "{\"Err\":\"ckrfs: out of memory\"}\n";
	const char *text = e->text ? e->text : empty;
	struct MHD_Response *response =
		MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
	enum MHD_Result r;

	if (!response)
		return MHD_NO;
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, PLUGIN_CONTENT_TYPE);
	/* One request a connection: then its age is the request's. */
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
	r = MHD_queue_response(connection, e->text ? e->status : MHD_HTTP_INTERNAL_SERVER_ERROR, response);
	MHD_destroy_response(response);
	return r;
}

static void exchange_take(struct exchange *e, const char *data, size_t size)
{
	if (!e->body)
		e->body = malloc(PLUGIN_BODY_MAX);
	if (!e->body || size > PLUGIN_BODY_MAX - e->used) {
		e->too_long = true;
		return;
	}
	memcpy(e->body + e->used, data, size);
	e->used += size;
}

/* ---- what libmicrohttpd calls ---- */

static struct client *client_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

static struct exchange *exchange_new(struct client *c)
{
	struct exchange *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->client = c;
	c->exchange = e;
	return e;
}

/* Called when the headers are there, for each part of the body, at its end, and after each resumption. */
static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *path,
				  const char *method, const char *version, const char *data, size_t *size,
				  void **ret_exchange)
{
	struct exchange *e = *ret_exchange;
	struct client *c = client_of(connection);

	if (!e) {
		/* Where two requests come in one connection, the second one is not heard. */
		*ret_exchange = c && !c->exchange ? exchange_new(c) : NULL;
		return *ret_exchange ? MHD_YES : MHD_NO;
	}
	if (*size > 0) {
		exchange_take(e, data, *size);
		*size = 0;
		return MHD_YES;
	}
	if (!e->answered && !e->serial)
		exchange_begin(ctx, e, method, path);
	if (e->answered)
		return exchange_send(e, connection);
	e->waiting = true;
	MHD_suspend_connection(connection);
	return MHD_YES;
}

static void on_completed(void *ctx, struct MHD_Connection *connection, void **exchange,
			 enum MHD_RequestTerminationCode why)
{
	struct exchange *e = *exchange;

	if (!e)
		return;
	if (e->serial) {
		struct front_message message = {.kind = FRONT_DELIVERED,
						.serial = e->serial,
						.done = why == MHD_REQUEST_TERMINATED_COMPLETED_OK};

		tell_plugin(ctx, &message);
	}
	e->client->exchange = NULL;
	exchange_free(e);
	*exchange = NULL;
}

static void client_hang_up(struct client *c)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(c->connection, MHD_CONNECTION_INFO_CONNECTION_FD);

	if (info)
		shutdown(info->connect_fd, SHUT_RDWR);
}

/* It has said what it wants, and the plugin has not answered. */
static bool client_waits(const struct client *c)
{
	return c->exchange && c->exchange->waiting;
}

static void make_room(struct front *f)
{
	struct client *oldest = NULL;

	for (struct client *c = f->clients; c; c = c->next)
		if (!client_waits(c))
			oldest = c;
	if (oldest)
		client_hang_up(oldest);
}

static void on_connection(void *ctx, struct MHD_Connection *connection, void **socket_context,
			  enum MHD_ConnectionNotificationCode what)
{
	struct front *f = ctx;
	struct client *c = *socket_context;

	if (what == MHD_CONNECTION_NOTIFY_STARTED) {
		c = calloc(1, sizeof(*c));
		if (!c)
			return; /* its request is refused */
		if (f->n_clients >= CLIENTS_MAX)
			make_room(f);
		*c = (struct client){
			.next = f->clients, .front = f, .connection = connection, .since = monotonic_ms()};
		f->clients = c;
		f->n_clients++;
		*socket_context = c;
		return;
	}
	for (struct client **at = &f->clients; c && *at; at = &(*at)->next)
		if (*at == c) {
			*at = c->next;
			f->n_clients--;
			break;
		}
	free(c);
	*socket_context = NULL;
}

static void __attribute__((format(printf, 2, 0))) on_log(void *ctx, const char *fmt, va_list args)
{
	char line[512];

	vsnprintf(line, sizeof(line), fmt, args);
	line[strcspn(line, "\n")] = '\0';
	log_msg(LOG_LEVEL_DEBUG, "http: %s", line);
}

/* ---- what the plugin says ---- */

static struct exchange *find_exchange(const struct front *f, uint64_t serial)
{
	for (struct client *c = f->clients; c; c = c->next)
		if (c->exchange && c->exchange->serial == serial)
			return c->exchange;
	return NULL;
}

/* 1: the list goes on. */
static int take_entries(struct exchange *e, const struct plugin_answer *answer)
{
	struct plugin_entry *more =
		reallocarray(e->entries, e->n_entries + answer->n_entries + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	e->entries = more;
	memcpy(more + e->n_entries, answer->entries, answer->n_entries * sizeof(*more));
	e->n_entries += answer->n_entries;
	e->request.from = (uint32_t)e->n_entries;
	return answer->more;
}

static void take_answer(struct front *f, const struct front_message *message)
{
	struct exchange *e = find_exchange(f, message->serial);
	const struct plugin_answer *answer = &message->answer;
	struct front_message next = {.kind = FRONT_DELIVERED, .serial = message->serial, .done = true};
	int r = 0;

	if (!e) /* cannot be: what is suspended stays */
		return;
	if (e->request.command == PLUGIN_LIST && answer->error.code == 0)
		r = take_entries(e, answer);
	if (r == 1) {
		tell_plugin(f, &next);
		exchange_ask(f, e);
		return;
	}
	if (answer->error.code < 0)
		exchange_fail(e, MHD_HTTP_INTERNAL_SERVER_ERROR, &answer->error);
	else
		exchange_done(e, answer);
	e->waiting = false;
	e->client->since = monotonic_ms();
	MHD_resume_connection(e->client->connection);
}

static void on_channel(struct front *f)
{
	static struct front_message message;
	int r;

	while ((r = front_receive(f->channel_fd, &message)) == 1) {
		if (message.kind == FRONT_ANSWER)
			take_answer(f, &message);
		if (message.kind == FRONT_STOP && !f->stopping) {
			MHD_socket fd = MHD_quiesce_daemon(f->http);

			f->stopping = true;
			if (fd != MHD_INVALID_SOCKET)
				close(fd);
		}
	}
	if (r != -EAGAIN)
		f->failed = true; /* the plugin has ended */
}

/* ---- the loop ---- */

/* Cuts off who takes too long; milliseconds until the next one, -1: nobody. */
static int cut_off(struct front *f)
{
	uint64_t now = monotonic_ms();
	int least = -1;

	for (struct client *c = f->clients; c; c = c->next) {
		uint64_t end = c->since + CLIENT_MS;

		if (client_waits(c))
			continue;
		if (end <= now) {
			client_hang_up(c);
			end = now + CLIENT_MS;
		}
		if (least < 0 || end - now < (uint64_t)least)
			least = (int)(end - now);
	}
	return least;
}

static int loop(struct front *f)
{
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(f->http, MHD_DAEMON_INFO_EPOLL_FD);

	while (!f->failed && !(f->stopping && f->n_clients == 0)) {
		struct pollfd fds[2] = {{.fd = info->epoll_fd, .events = POLLIN},
					{.fd = f->channel_fd, .events = POLLIN}};
		MHD_UNSIGNED_LONG_LONG wanted;
		int timeout;

		MHD_run(f->http);
		timeout = cut_off(f);
		if (MHD_get_timeout(f->http, &wanted) == MHD_YES &&
		    (timeout < 0 || wanted < (MHD_UNSIGNED_LONG_LONG)timeout))
			timeout = (int)wanted;
		if (f->stopping && f->n_clients == 0)
			break;
		if (poll(fds, 2, timeout) < 0 && errno != EINTR)
			return -errno;
		if (fds[1].revents)
			on_channel(f);
	}
	return f->failed ? -EPIPE : 0;
}

static int start(struct front *f, int listen_fd, struct error *err)
{
	f->http = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, f,
		MHD_OPTION_EXTERNAL_LOGGER, on_log, f, MHD_OPTION_LISTEN_SOCKET, listen_fd,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned)CLIENTS_HARD_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
		(unsigned)(CLIENT_MS / 1000), MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADERS_MAX,
		MHD_OPTION_NOTIFY_COMPLETED, on_completed, f, MHD_OPTION_NOTIFY_CONNECTION, on_connection, f,
		MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
	return f->http ? 0 : error_set(err, -EIO, EXIT_STATUS_FAILED, "cannot serve HTTP");
}

/* What the libraries open once is opened before there is nothing left to open. */
static void warm_up(void)
{
	static const char body[] = "{\"Name\":\"a\",\"Opts\":{}}";
	struct plugin_request request;

	(void)plugin_message_parse(PLUGIN_CREATE, body, strlen(body), &request, NULL);
}

int front_main(int listen_fd, int channel_fd, pid_t parent)
{
	struct front f = {.channel_fd = channel_fd};
	struct error err = ERROR_NONE;
	unsigned protections = 0;
	char words[256];
	int r;

	warm_up();
	r = start(&f, listen_fd, &err);
	if (r == 0)
		r = sandbox_front(parent, &protections, &err);
	if (r == 0) {
		sandbox_words(protections, words, sizeof(words));
		log_msg(LOG_LEVEL_INFO, "requests are read by process %d: %s", (int)getpid(), words);
		r = loop(&f);
	} else {
		log_error(&err);
	}
	if (f.http)
		MHD_stop_daemon(f.http);
	return r < 0 ? EXIT_STATUS_FAILED : EXIT_STATUS_DONE;
}
