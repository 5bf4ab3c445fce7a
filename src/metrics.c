/* SPDX-License-Identifier: MIT */
#include "metrics.h"

#include <inttypes.h>
#include <string.h>

#include "util.h"
#include "version.h"

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_LEFT };

/* One member of a status each. */
static const struct metric {
	const char *name, *help;
	enum metric_kind kind; /* METRIC_LEFT: a time, told as what is left of it too */
	size_t offset;
} metrics[] = {
	{"ckrfs_requests_total", "Requests of the kernel that were served.", METRIC_COUNTER,
	 offsetof(struct message_status, requests)},
	{"ckrfs_read_bytes_total", "Bytes of plaintext read by the kernel.", METRIC_COUNTER,
	 offsetof(struct message_status, read_bytes)},
	{"ckrfs_written_bytes_total", "Bytes of plaintext written by the kernel.", METRIC_COUNTER,
	 offsetof(struct message_status, written_bytes)},
	{"ckrfs_errors_total", "Requests answered with an input/output error.", METRIC_COUNTER,
	 offsetof(struct message_status, errors)},
	{"ckrfs_damages_total", "Places found damaged, up to 4096.", METRIC_COUNTER,
	 offsetof(struct message_status, damages)},
	{"ckrfs_key_refreshes_total", "How often the key was had again from its source.", METRIC_COUNTER,
	 offsetof(struct message_status, refreshes)},
	{"ckrfs_key_refresh_failures_total", "How often that failed.", METRIC_COUNTER,
	 offsetof(struct message_status, refresh_failures)},
	{"ckrfs_mount_since_timestamp_seconds", "When the mount got into its state.", METRIC_GAUGE,
	 offsetof(struct message_status, since)},
	{"ckrfs_key_expiry_timestamp_seconds", "When the key ends or has ended.", METRIC_GAUGE,
	 offsetof(struct message_status, expires)},
	{"ckrfs_key_expires_in_seconds", "Time until the key ends; not below 0.", METRIC_LEFT,
	 offsetof(struct message_status, expires)},
};

static const char *const states[] = {"unlocked", "degraded", "locked", "stopping", "failed",
				     "dead",     "starting", "silent", "unknown"};

/* The value of a label. */
static void put_escaped(const char *text, FILE *to)
{
	for (; *text; text++) {
		if (*text == '\n')
			fputs("\\n", to);
		else if (*text == '\\' || *text == '"')
			fprintf(to, "\\%c", *text);
		else
			putc(*text, to);
	}
}

/* NAME{name="MOUNT" and what the caller puts behind it. */
static void put_begin(const char *metric, const struct message_status *s, FILE *to)
{
	char name[sizeof(s->name) * 4];

	printable_text(s->name, name, sizeof(name));
	fprintf(to, "%s{name=\"", metric);
	put_escaped(name, to);
	putc('"', to);
}

static void put_head(const char *metric, const char *help, const char *type, FILE *to)
{
	fprintf(to, "# HELP %s %s\n# TYPE %s %s\n", metric, help, metric, type);
}

/* Has its keeper answered? Otherwise nothing is known but the state. */
static bool has_answered(const struct message_status *s)
{
	return *s->format != '\0';
}

static void put_states(const struct message_status *list, size_t n, FILE *to)
{
	put_head("ckrfs_mount_state", "1 for the state that the mount is in, 0 for the others.", "gauge", to);
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < ARRAY_SIZE(states); k++) {
			put_begin("ckrfs_mount_state", &list[i], to);
			fprintf(to, ",state=\"%s\"} %d\n", states[k], strcmp(states[k], list[i].state) == 0);
		}
}

static void put_infos(const struct message_status *list, size_t n, FILE *to)
{
	put_head("ckrfs_mount_info", "Always 1; how the volume is kept.", "gauge", to);
	for (size_t i = 0; i < n; i++) {
		if (!has_answered(&list[i]))
			continue;
		put_begin("ckrfs_mount_info", &list[i], to);
		fputs(",format=\"", to);
		put_escaped(list[i].format, to);
		fputs("\",lower=\"", to);
		put_escaped(list[i].lower, to);
		fprintf(to, "\",read_only=\"%d\"} 1\n", list[i].read_only);
	}
}

static void put_metric(const struct metric *m, const struct message_status *list, size_t n, int64_t now,
		       FILE *to)
{
	put_head(m->name, m->help, m->kind == METRIC_COUNTER ? "counter" : "gauge", to);
	for (size_t i = 0; i < n; i++) {
		const void *at = (const char *)&list[i] + m->offset;
		uint64_t count = *(const uint64_t *)at;
		int64_t when = *(const int64_t *)at;

		/* A time of 0 is not known. */
		if (!has_answered(&list[i]) || (m->kind != METRIC_COUNTER && when <= 0))
			continue;
		put_begin(m->name, &list[i], to);
		if (m->kind == METRIC_COUNTER)
			fprintf(to, "} %" PRIu64 "\n", count);
		else if (m->kind == METRIC_GAUGE)
			fprintf(to, "} %" PRId64 "\n", when);
		else
			fprintf(to, "} %" PRId64 "\n", when > now ? when - now : 0);
	}
}

static void put_latency(const struct message_status *s, FILE *to)
{
	uint64_t sum = 0;

	for (int i = 0; i < LATENCY_BUCKETS; i++) {
		sum += s->latency[i];
		put_begin("ckrfs_request_duration_seconds_bucket", s, to);
		if (i < LATENCY_BUCKETS - 1)
			fprintf(to, ",le=\"%g\"} %" PRIu64 "\n", (double)latency_bounds_ns[i] / 1e9, sum);
		else
			fprintf(to, ",le=\"+Inf\"} %" PRIu64 "\n", sum);
	}
	put_begin("ckrfs_request_duration_seconds_sum", s, to);
	fprintf(to, "} %" PRIu64 ".%09" PRIu64 "\n", s->latency_ns / 1000000000, s->latency_ns % 1000000000);
	put_begin("ckrfs_request_duration_seconds_count", s, to);
	fprintf(to, "} %" PRIu64 "\n", sum);
}

void metrics_write(const struct message_status *list, size_t n, int64_t now, FILE *to)
{
	put_head("ckrfs_build_info", "Always 1; the version of ckrfs that wrote this.", "gauge", to);
	fputs("ckrfs_build_info{version=\"" CKRFS_VERSION "\"} 1\n", to);
	put_head("ckrfs_mounts", "Mounts that are told of.", "gauge", to);
	fprintf(to, "ckrfs_mounts %zu\n", n);
	put_states(list, n, to);
	put_infos(list, n, to);
	for (size_t i = 0; i < ARRAY_SIZE(metrics); i++)
		put_metric(&metrics[i], list, n, now, to);
	put_head("ckrfs_request_duration_seconds", "Time from reading a request to having answered it.",
		 "histogram", to);
	for (size_t i = 0; i < n; i++)
		if (has_answered(&list[i]))
			put_latency(&list[i], to);
}
