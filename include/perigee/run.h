/** @file run.h
 *  Experiments in a log: runs with parameters, metrics by step, artefacts, tags and a state.
 *
 *  A run is found by its id; those of an experiment by the experiment's name, in the order in which
 *  they were started; none of this looks at keys of other experiments. Names are 1 to 255 bytes,
 *  any bytes. Threads and errors as log.h. */
#ifndef PERI_RUN_H
#define PERI_RUN_H

#include "perigee/log.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    PERI_RUN_RUNNING = 0,
    PERI_RUN_COMPLETED = 1,
    PERI_RUN_FAILED = 2,
    PERI_RUN_KILLED = 3,
};

enum { PERI_RUN_ID = 33 }; /* bytes of an id: 32 hexadecimal digits and a NUL */

typedef struct peri_run_info {
    char id[PERI_RUN_ID];
    uint32_t state;   /* PERI_RUN_* */
    int64_t started;  /* microseconds since 1970 */
    int64_t finished; /* 0 while it runs */
} peri_run_info;

/** "running", ...; NULL for any other number. Since 0.1. */
PERI_API const char *peri_run_state_name(uint32_t state);

/** Start a run; its id goes to `id`. Since 0.1. */
PERI_API peri_status peri_run_start(peri_log *log, peri_slice experiment, const peri_slice *tags,
                                    size_t n_tags, char id[PERI_RUN_ID]);
/** The state goes from RUNNING to another one, once. Errors: ERR_NOT_FOUND, ERR_STATE (it has ended
 *  already), ERR_ARG. Since 0.1. */
PERI_API peri_status peri_run_finish(peri_log *log, const char *id, uint32_t state);

/* Errors of all that name a run: ERR_NOT_FOUND where there is none. */
PERI_API peri_status peri_run_tag(peri_log *log, const char *id, peri_slice tag);
/** Parameters are text; the last one set counts. */
PERI_API peri_status peri_run_param(peri_log *log, const char *id, peri_slice name,
                                    peri_slice value);
/** n metrics of one step, atomically. */
PERI_API peri_status peri_run_metrics(peri_log *log, const char *id, size_t n,
                                      const peri_slice *names, const double *values, int64_t step);
PERI_API peri_status peri_run_artifact(peri_log *log, const char *id, peri_slice name,
                                       peri_slice data);

PERI_API peri_status peri_run_get(const peri_log *log, const char *id, peri_run_info *out);
PERI_API peri_status peri_run_get_param(const peri_log *log, const char *id, peri_slice name,
                                        peri_buf *out);
/** The last value of a metric. */
PERI_API peri_status peri_run_get_metric(const peri_log *log, const char *id, peri_slice name,
                                         double *out);
/** All values of a metric in the order of logging, as doubles; *steps (may be NULL): an int64
 *  each. */
PERI_API peri_status peri_run_series(const peri_log *log, const char *id, peri_slice name,
                                     peri_buf *values, peri_buf *steps, size_t *n);
PERI_API peri_status peri_run_get_artifact(const peri_log *log, const char *id, peri_slice name,
                                           peri_buf *out);

/** What a run has: parameters with their text, metrics with their last value, tags, artefacts with
 *  their size as number. fn returns non-zero to stop. */
enum {
    PERI_RUN_PARAM = 1,
    PERI_RUN_METRIC = 2,
    PERI_RUN_TAG = 3,
    PERI_RUN_ARTIFACT = 4,
};
typedef int (*peri_run_item_fn)(void *ctx, uint32_t kind, peri_slice name, peri_slice text,
                                double number);
PERI_API peri_status peri_run_items(const peri_log *log, const char *id, uint32_t kind,
                                    peri_run_item_fn fn, void *ctx);

/** Which runs of an experiment, and in what order. */
typedef struct peri_run_query {
    uint32_t struct_size;
    uint32_t state;         /* 0 = any, else PERI_RUN_* + 1 */
    const peri_slice *tags; /* all of these */
    size_t n_tags;
    const peri_slice *param_names, *param_values; /* all of these, compared as text */
    size_t n_params;
    peri_slice sort_by; /* a metric's last value; runs without it come last. Empty = as started */
    uint32_t descending;
    uint32_t reserved;
    uint64_t limit; /* 0 = all */
} peri_run_query;

static inline void peri_run_query_init(peri_run_query *q)
{
    memset(q, 0, sizeof *q);
    q->struct_size = (uint32_t)sizeof *q;
}

typedef int (*peri_run_fn)(void *ctx, const peri_run_info *run);
/** query NULL = all, as started. Since 0.1. */
PERI_API peri_status peri_run_find(const peri_log *log, peri_slice experiment,
                                   const peri_run_query *query, peri_run_fn fn, void *ctx);

/** Names of experiments in order. */
typedef int (*peri_experiment_fn)(void *ctx, peri_slice experiment);
PERI_API peri_status peri_run_experiments(const peri_log *log, peri_experiment_fn fn, void *ctx);

/** Runs side by side: each parameter and metric that any of them has, with the text of each (data
 *  NULL where one lacks it; metrics as text of 17 digits and as numbers). */
typedef int (*peri_run_row_fn)(void *ctx, uint32_t kind, peri_slice name, const peri_slice *texts,
                               const double *numbers);
PERI_API peri_status peri_run_compare(const peri_log *log, const char *const *ids, size_t n,
                                      peri_run_row_fn fn, void *ctx);

#ifdef __cplusplus
}
#endif
#endif
