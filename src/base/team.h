/* A team of threads for one long call, and the progress of that call.
 *
 * Threads are made per call and joined before it returns: a bulk build or a batch search is long
 * against the 20 microseconds this costs, no thread outlives a call, a child of fork finds no
 * dead team to wait for, and a host's own OpenMP runtime is left alone. (OpenMP behind this
 * file would buy nothing and hang after fork.) */
#ifndef PE_TEAM_H
#define PE_TEAM_H

#include "base/status.h"
#include <stdatomic.h>

typedef void (*pe_team_fn)(void *ctx, unsigned worker);

enum { PE_TEAM_MAX = 256 };

/* Threads to use for an asked-for count: 0 = the cores this process may run on. */
unsigned pe_team_size(uint32_t asked);

/* Run fn(ctx, worker) on `threads` workers, worker 0 being the caller; returns when all are done.
 * Threads that cannot be made are done without: fn must share out its work dynamically. */
void pe_team_run(unsigned threads, pe_team_fn fn, void *ctx);

/* The first error among the workers of a team, with its detail, for the caller. */
typedef struct pe_first_error {
    _Atomic int failed; /* workers look at it and stop */
    _Atomic int taken;
    peri_status status;
    char detail[PE_DETAIL_SIZE];
} pe_first_error;
/* Keep status and this thread's detail unless another worker was first; PERI_OK is ignored. */
void pe_first_error_set(pe_first_error *e, peri_status status);
/* After the team: the error, its detail now this thread's. */
peri_status pe_first_error_get(const pe_first_error *e);

/* Progress of one call: any worker adds, worker 0 reports; a non-zero answer of the callback
 * sets `cancelled`, which workers look at. */
typedef struct pe_progress {
    const peri_task *task; /* may be NULL */
    const char *phase;
    uint64_t total;
    _Atomic uint64_t done;
    _Atomic int cancelled;
    uint64_t last_ns;
} pe_progress;

/* Checks the task: ERR_ARG on a struct of no known size. */
peri_status pe_progress_init(pe_progress *p, const peri_task *task);
void pe_progress_phase(pe_progress *p, const char *phase, uint64_t total);
/* Returns non-zero once cancelled. */
int pe_progress_add(pe_progress *p, unsigned worker, uint64_t n);
/* Report the end of a phase; ERR_CANCELLED once cancelled. */
peri_status pe_progress_end(pe_progress *p);
uint32_t pe_task_threads(const peri_task *task);

#endif
