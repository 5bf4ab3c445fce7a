/* SPDX-License-Identifier: MIT */
#include "progress.h"

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
	fprintf(stderr, "\r\033[Kckrfs: %s ... %u s", p->what, (unsigned)seconds);
	fflush(stderr);
	p->shown = true;
}

void progress_end(struct progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
}
