/* SPDX-License-Identifier: MIT */
#include "progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "util.h"

void progress_begin(struct progress *p, const char *what)
{
	progress_end(p);
	*p = (struct progress){.start = monotonic_ms(), .terminal = isatty(STDERR_FILENO)};
	snprintf(p->what, sizeof(p->what), "%s", what);
}

void progress_tick(struct progress *p)
{
	uint64_t seconds = (monotonic_ms() - p->start) / 1000;

	if (!p->terminal || !p->what[0] || seconds == 0)
		return;
	fprintf(stderr, "\r\033[Kckrfs: %s ... %s%u s", p->what, p->detail, (unsigned)seconds);
	fflush(stderr);
	p->shown = true;
}

void progress_bytes(uint64_t bytes, char *text, size_t size)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	size_t unit = 0;

	for (; value >= 1024 && unit + 1 < ARRAY_SIZE(units); unit++)
		value /= 1024;
	snprintf(text, size, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

void progress_count(struct progress *p, uint64_t files, uint64_t bytes)
{
	char size[32];

	progress_bytes(bytes, size, sizeof(size));
	snprintf(p->detail, sizeof(p->detail), "%" PRIu64 " files, %s, ", files, size);
}

void progress_hide(struct progress *p)
{
	progress_end(p);
}

void progress_end(struct progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
}
