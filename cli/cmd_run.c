#include "actions.h"
#include "table.h"

#include <stdio.h>
#include <stdlib.h>

static uint64_t limit;
static const char *sort_by, *state_word;
static int descending;

static int failed(peri_status status)
{
    return cli_failed("no runs", status, NULL);
}

typedef struct listing {
    table t;
    const peri_log *log;
} listing;

static int add_run(void *ctx, const peri_run_info *run)
{
    listing *l = ctx;
    char time[32];
    double metric;
    table_put(&l->t, "%s", run->id);
    table_put(&l->t, "%s", peri_run_state_name(run->state) ? peri_run_state_name(run->state) : "?");
    table_time(run->started, time);
    table_put(&l->t, "%s", time);
    if (run->finished)
        table_put(&l->t, "%.1f s", (double)(run->finished - run->started) * 1e-6);
    else
        table_put(&l->t, "-");
    if (sort_by && peri_run_get_metric(l->log, run->id, peri_cstr(sort_by), &metric) == PERI_OK)
        table_put(&l->t, "%.6g", metric);
    else if (sort_by)
        table_put(&l->t, "-");
    return 0;
}

static int add_experiment(void *ctx, peri_slice name)
{
    table_put_bytes(ctx, name.data, name.size);
    return 0;
}

static int list_experiments(peri_log *log)
{
    static const char *const heads[] = {"experiment"};
    table t;
    table_begin(&t, 1, heads);
    peri_status status = peri_run_experiments(log, add_experiment, &t);
    int code = table_end(&t);
    return status == PERI_OK ? code : failed(status);
}

static int run_list(peri_log *log, const char **operands, int n)
{
    const char *heads[] = {"run", "state", "started (UTC)", ">took", ""};
    char last[64];
    peri_run_query q;
    listing l = {.log = log};
    if (n == 0)
        return list_experiments(log);
    peri_run_query_init(&q);
    q.limit = limit;
    q.descending = (uint32_t)descending;
    if (sort_by) {
        q.sort_by = peri_cstr(sort_by);
        snprintf(last, sizeof last, ">%s", sort_by);
        heads[4] = last;
    }
    for (uint32_t s = 0; state_word && peri_run_state_name(s); s++)
        if (strcmp(state_word, peri_run_state_name(s)) == 0)
            q.state = s + 1;
    if (state_word && !q.state)
        return cli_usage("run", "'%s' is none of running, completed, failed, killed", state_word);
    table_begin(&l.t, sort_by ? 5 : 4, heads);
    peri_status status = peri_run_find(log, peri_cstr(operands[0]), &q, add_run, &l);
    int code = table_end(&l.t);
    return status == PERI_OK ? code : failed(status);
}

static int add_item(void *ctx, uint32_t kind, peri_slice name, peri_slice text, double number)
{
    static const char *const kinds[] = {"", "parameter", "metric", "tag", "artefact"};
    table *t = ctx;
    table_put(t, "%s", kinds[kind]);
    table_put_bytes(t, name.data, name.size);
    if (kind == PERI_RUN_PARAM)
        table_put_bytes(t, text.data, text.size);
    else if (kind == PERI_RUN_METRIC)
        table_put(t, "%.6g", number);
    else if (kind == PERI_RUN_ARTIFACT)
        table_put(t, "%.0f bytes", number);
    else
        table_put(t, "%s", "");
    return 0;
}

static int run_show(peri_log *log, const char **operands, int n)
{
    static const char *const heads[] = {"what", "name", "value"};
    table t;
    (void)n;
    peri_status status = PERI_OK;
    table_begin(&t, 3, heads);
    for (uint32_t kind = PERI_RUN_PARAM; kind <= PERI_RUN_ARTIFACT && status == PERI_OK; kind++)
        status = peri_run_items(log, operands[0], kind, add_item, &t);
    if (status != PERI_OK) {
        t.failed = t.rows == 0;
        return failed(status);
    }
    return table_end(&t);
}

typedef struct comparison {
    table t;
    size_t n;
} comparison;

static int add_row(void *ctx, uint32_t kind, peri_slice name, const peri_slice *texts,
                   const double *numbers)
{
    comparison *c = ctx;
    table_put_bytes(&c->t, name.data, name.size);
    for (size_t i = 0; i < c->n; i++)
        if (!texts[i].data)
            table_put(&c->t, "-");
        else if (kind == PERI_RUN_METRIC)
            table_put(&c->t, "%.6g", numbers[i]);
        else
            table_put_bytes(&c->t, texts[i].data, texts[i].size);
    return 0;
}

static int run_compare(peri_log *log, const char **operands, int n)
{
    const char *heads[TABLE_COLUMNS] = {"name"};
    char ids[TABLE_COLUMNS][10];
    comparison c = {.n = (size_t)n};
    for (int i = 0; i < n; i++) {
        snprintf(ids[i], sizeof ids[i], ">%.8s", operands[i]);
        heads[i + 1] = ids[i];
    }
    table_begin(&c.t, (size_t)n + 1, heads);
    peri_status status = peri_run_compare(log, operands, (size_t)n, add_row, &c);
    if (status != PERI_OK)
        return failed(status);
    return table_end(&c.t);
}

int cmd_run(int argc, char **argv)
{
    static const action actions[] = {
        {"list", "DIRECTORY [EXPERIMENT]", "list experiments, or the runs of one", 1, 2, 0, 0,
         run_list},
        {"show", "DIRECTORY ID", "what a run has", 2, 2, 0, 0, run_show},
        {"compare", "DIRECTORY ID ID ...", "runs side by side", 3, TABLE_COLUMNS, 0, 0,
         run_compare},
    };
    const arg_option options[] = {
        {0, "limit", "N", "list: so many at most", ARG_COUNT, &limit, 1, 1e15, NULL},
        {0, "state", "STATE", "list: running, completed, failed or killed", ARG_TEXT, &state_word,
         0, 0, NULL},
        {0, "sort", "METRIC", "list: by the last value of a metric", ARG_TEXT, &sort_by, 0, 0,
         NULL},
        {0, "descending", NULL, "list: the other way round", ARG_FLAG, &descending, 0, 0, NULL},
    };
    return actions_run("run", "Experiments in a log.", actions, sizeof actions / sizeof *actions,
                       options, sizeof options / sizeof *options, argc, argv);
}
