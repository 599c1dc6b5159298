/* A bar on the terminal for a long call, and the way by which Ctrl-C stops that call. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include "cli.h"

typedef struct progress {
    int show;          /* stderr is a terminal and nobody asked for quiet */
    const char *label; /* stands for the phase where it is not NULL */
    uint64_t before;   /* done by calls before this one... */
    uint64_t total;    /* ...out of so many in all; 0 = as the call itself says */
    double start, last;
} progress;

void progress_init(progress *p, int quiet);
/* A task that shows and cancels through p. */
void progress_task(progress *p, peri_task *task, unsigned threads);
/* Start a stretch of work under a label, of a known total (or 0). */
void progress_begin(progress *p, const char *label, uint64_t total);
/* The callback itself, also for loops of the command's own: non-zero means stop. */
int progress_update(void *p, const char *phase, uint64_t done, uint64_t total);
/* Wipe the bar off. */
void progress_clear(progress *p);

#endif
