/* SPDX-License-Identifier: MIT */
/*
 * No lock: the target is set before there are threads, and each line goes out with one write(2), which
 * O_APPEND files and pipes (up to PIPE_BUF) take as a whole.
 */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "util.h"

enum log_target { LOG_TARGET_STDERR, LOG_TARGET_SYSLOG, LOG_TARGET_FILE, LOG_TARGET_SINK };
enum { LOG_LINE_MAX = 1000 };

static struct {
	enum log_target target;
	enum log_level level;
	int fd;
	void (*sink)(void *ctx, enum log_level level, const char *line);
	void *sink_ctx;
} state = {.target = LOG_TARGET_STDERR, .level = LOG_LEVEL_INFO, .fd = -1};

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};

int log_level_parse(const char *word, enum log_level *ret_level)
{
	for (size_t i = 0; i < ARRAY_SIZE(level_names); i++) {
		if (!strcmp(word, level_names[i])) {
			*ret_level = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

const char *log_level_name(enum log_level level)
{
	return (size_t)level < ARRAY_SIZE(level_names) ? level_names[level] : "error";
}

static int log_open_file(const char *path, struct error *err)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, 0600);

	if (fd < 0)
		return error_errno(err, -errno, EXIT_STATUS_FAILED, "cannot open the log %s", path);
	return fd;
}

int log_open(const char *target, enum log_level level, struct error *err)
{
	enum log_target kind = LOG_TARGET_FILE;
	int fd = -1;

	if (!strcmp(target, "stderr"))
		kind = LOG_TARGET_STDERR;
	else if (!strcmp(target, "syslog"))
		kind = LOG_TARGET_SYSLOG;
	else if (target[0] != '/')
		return error_set(err, -EINVAL, EXIT_STATUS_CONFIG,
				 "log \"%s\" is neither stderr nor syslog nor an absolute path", target);
	if (kind == LOG_TARGET_FILE) {
		fd = log_open_file(target, err);
		if (fd < 0)
			return fd;
	}
	log_close();
	if (kind == LOG_TARGET_SYSLOG)
		openlog("ckrfs", LOG_PID | LOG_NDELAY, LOG_DAEMON);
	state.target = kind;
	state.level = level;
	state.fd = fd;
	return 0;
}

void log_set_sink(void (*sink)(void *ctx, enum log_level level, const char *line), void *ctx)
{
	log_close();
	state.sink = sink;
	state.sink_ctx = ctx;
	state.target = sink ? LOG_TARGET_SINK : LOG_TARGET_STDERR;
}

static void log_to_file(enum log_level level, const char *line)
{
	char out[LOG_LINE_MAX + 80], when[32];
	struct timespec now;
	struct tm tm;
	int n;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
	n = snprintf(out, sizeof(out), "%s.%03ldZ %s %d: %s\n", when, now.tv_nsec / 1000000,
		     log_level_name(level), (int)getpid(), line);
	write_full(state.fd, out, (size_t)n);
}

static void log_to_stderr(const char *line)
{
	char out[LOG_LINE_MAX + 16];
	int n = snprintf(out, sizeof(out), "ckrfs: %s\n", line);

	write_full(STDERR_FILENO, out, (size_t)n);
}

static void log_line(enum log_level level, const char *line)
{
	static const int priorities[] = {
		[LOG_LEVEL_ERROR] = LOG_ERR,
		[LOG_LEVEL_WARNING] = LOG_WARNING,
		[LOG_LEVEL_INFO] = LOG_INFO,
		[LOG_LEVEL_DEBUG] = LOG_DEBUG,
	};

	switch (state.target) {
	case LOG_TARGET_SINK:
		state.sink(state.sink_ctx, level, line);
		break;
	case LOG_TARGET_SYSLOG:
		syslog(priorities[level], "%s", line);
		break;
	case LOG_TARGET_FILE:
		log_to_file(level, line);
		break;
	case LOG_TARGET_STDERR:
		log_to_stderr(line);
		break;
	}
}

void log_msg(enum log_level level, const char *fmt, ...)
{
	char raw[LOG_LINE_MAX + 8], line[LOG_LINE_MAX + 1];
	int saved = errno;
	va_list args;

	if (level > state.level || (size_t)level >= ARRAY_SIZE(level_names))
		return;
	va_start(args, fmt);
	if (vsnprintf(raw, sizeof(raw), fmt, args) < 0)
		raw[0] = '\0';
	va_end(args);
	printable_text(raw, line, sizeof(line));
	log_line(level, line);
	errno = saved;
}

void log_audit(const char *fmt, ...)
{
	char raw[LOG_LINE_MAX + 8] = "audit: ", line[LOG_LINE_MAX + 1];
	size_t used = strlen(raw);
	int saved = errno;
	va_list args;

	va_start(args, fmt);
	if (vsnprintf(raw + used, sizeof(raw) - used, fmt, args) < 0)
		raw[used] = '\0';
	va_end(args);
	printable_text(raw, line, sizeof(line));
	if (state.target == LOG_TARGET_SYSLOG)
		syslog(LOG_AUTHPRIV | LOG_NOTICE, "%s", line);
	else
		log_line(LOG_LEVEL_INFO, line);
	errno = saved;
}

void log_error(const struct error *err)
{
	const char *text = err->text[0] ? err->text : strerror(-err->code);

	if (err->hint[0])
		log_msg(LOG_LEVEL_ERROR, "%s (try: %s) [CK100]", text, err->hint);
	else
		log_msg(LOG_LEVEL_ERROR, "%s [CK100]", text);
}

void log_close(void)
{
	if (state.target == LOG_TARGET_SYSLOG)
		closelog();
	if (state.fd >= 0)
		close(state.fd);
	state.fd = -1;
	state.target = LOG_TARGET_STDERR;
	state.sink = NULL;
	state.sink_ctx = NULL;
}
