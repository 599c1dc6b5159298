/* Reading runs: single items by key, runs of an experiment by the list of its runs, so that nothing
 * here looks at what belongs to others. */
#include "log/log_run.h"

#include <stdio.h>

static peri_status get_item(const peri_log *log, const char *id, const char *what, peri_slice name,
                            peri_atom *a, peri_buf *buf)
{
    pe_name_key k;
    if (!log || !buf)
        return pe_fail(PERI_ERR_ARG, "log or out is NULL");
    PE_TRY(pe_run_key(&k, id, what, &name));
    return peri_log_get(log, pe_name_slice(&k), 0, a, buf);
}

peri_status peri_run_get_param(const peri_log *log, const char *id, peri_slice name, peri_buf *out)
{
    peri_atom a;
    return get_item(log, id, "param", name, &a, out);
}

peri_status peri_run_get_artifact(const peri_log *log, const char *id, peri_slice name,
                                  peri_buf *out)
{
    peri_atom a;
    return get_item(log, id, "artifact", name, &a, out);
}

peri_status peri_run_get_metric(const peri_log *log, const char *id, peri_slice name, double *out)
{
    pe_name_key k;
    if (!log || !out)
        return pe_fail(PERI_ERR_ARG, "log or out is NULL");
    PE_TRY(pe_run_key(&k, id, "metric", &name));
    return peri_log_get_float(log, pe_name_slice(&k), out);
}

peri_status peri_run_series(const peri_log *log, const char *id, peri_slice name, peri_buf *values,
                            peri_buf *steps, size_t *n)
{
    pe_name_key k;
    size_t n_steps;
    if (!log || !values || !n)
        return pe_fail(PERI_ERR_ARG, "log, values or n is NULL");
    PE_TRY(pe_run_key(&k, id, "metric", &name));
    PE_TRY(peri_log_series(log, pe_name_slice(&k), NULL, values, NULL, n));
    if (!steps)
        return PERI_OK;
    /* Written in the same batches, so there are as many; one that came between the two reads is cut
     * off. As doubles they are exact up to 2^53 steps. */
    PE_TRY(pe_run_key(&k, id, "step", &name));
    PE_TRY(peri_log_series(log, pe_name_slice(&k), NULL, steps, NULL, &n_steps));
    for (size_t i = 0; i < n_steps; i++) {
        double step;
        int64_t whole;
        memcpy(&step, (char *)steps->data + 8 * i, 8);
        whole = (int64_t)step;
        memcpy((char *)steps->data + 8 * i, &whole, 8);
    }
    if (n_steps < *n)
        return pe_fail(PERI_ERR_CORRUPT, "run %s: %zu steps for %zu values", id, n_steps, *n);
    steps->size = *n * 8;
    return PERI_OK;
}

/* ---- items ---- */

static const char *const kinds[] = {NULL, "param", "metric", "tag", "artifact"};

typedef struct items {
    uint32_t kind;
    size_t skip;
    peri_run_item_fn fn;
    void *ctx;
} items;

static int give_item(void *ctx, peri_slice key, const peri_atom *value)
{
    items *it = ctx;
    char name[PE_NAME_MAX + 1];
    peri_slice slice = {name, pe_name_part(key, it->skip, name)};
    peri_slice text = {it->kind == PERI_RUN_PARAM ? value->data : NULL,
                       it->kind == PERI_RUN_PARAM ? value->size : 0};
    double number = it->kind == PERI_RUN_METRIC     ? value->number
                    : it->kind == PERI_RUN_ARTIFACT ? (double)value->size
                                                    : 0;
    return it->fn(it->ctx, it->kind, slice, text, number);
}

peri_status peri_run_items(const peri_log *log, const char *id, uint32_t kind, peri_run_item_fn fn,
                           void *ctx)
{
    peri_log_select select;
    pe_name_key k;
    peri_run_info info;
    if (!log || !fn || kind < PERI_RUN_PARAM || kind > PERI_RUN_ARTIFACT)
        return pe_fail(PERI_ERR_ARG, "log or fn is NULL, or kind %u, expected 1 to 4", kind);
    PE_TRY(pe_run_key(&k, id, kinds[kind], NULL));
    PE_TRY(peri_run_get(log, id, &info));
    pe_name_key_add(&k, "/");
    items it = {kind, k.size, fn, ctx};
    peri_log_select_init(&select);
    select.prefix = pe_name_slice(&k);
    return peri_log_keys(log, &select, give_item, &it);
}

/* ---- queries ---- */

typedef struct found {
    peri_run_info info;
    double metric;
    int has_metric;
} found;

typedef struct query {
    const peri_log *log;
    pe_host *host;
    const peri_run_query *q;
    size_t skip; /* of a key in runs/ up to the start */
    found *runs;
    size_t n, room;
    peri_status status;
} query;

static int has_tags(query *q, const char *id)
{
    for (size_t i = 0; i < q->q->n_tags; i++) {
        pe_name_key k;
        int exists = 0;
        q->status = pe_run_key(&k, id, "tag", &q->q->tags[i]);
        if (q->status == PERI_OK)
            q->status = peri_log_exists(q->log, pe_name_slice(&k), 0, &exists);
        if (!exists)
            return 0;
    }
    return 1;
}

static int has_params(query *q, const char *id)
{
    peri_buf value = {0};
    int all = 1;
    for (size_t i = 0; i < q->q->n_params && all; i++) {
        const peri_slice *want = &q->q->param_values[i];
        peri_status status = peri_run_get_param(q->log, id, q->q->param_names[i], &value);
        all = status == PERI_OK && value.size == want->size &&
              (want->size == 0 || memcmp(value.data, want->data, want->size) == 0);
        if (status != PERI_OK && status != PERI_ERR_NOT_FOUND)
            q->status = status;
    }
    peri_buf_free(&value);
    return all;
}

static int take_run(void *ctx, peri_slice key, const peri_atom *value)
{
    query *q = ctx;
    found f = {0};
    char id[PERI_RUN_ID] = {0};
    (void)value;
    if (key.size != q->skip + 16 + PERI_RUN_ID - 1)
        return 0;
    memcpy(id, (const char *)key.data + q->skip + 16, PERI_RUN_ID - 1);
    q->status = peri_run_get(q->log, id, &f.info);
    if (q->status != PERI_OK)
        return 1;
    if (q->q && ((q->q->state && f.info.state + 1 != q->q->state) || !has_tags(q, id) ||
                 !has_params(q, id)))
        return q->status != PERI_OK;
    if (q->q && q->q->sort_by.size) {
        peri_status status = peri_run_get_metric(q->log, id, q->q->sort_by, &f.metric);
        f.has_metric = status == PERI_OK && f.metric == f.metric;
        if (status != PERI_OK && status != PERI_ERR_NOT_FOUND)
            q->status = status;
    }
    if (q->status == PERI_OK)
        q->status = pe_grow(q->host, &q->runs, &q->room, q->n + 1, sizeof *q->runs);
    if (q->status != PERI_OK)
        return 1;
    q->runs[q->n++] = f;
    return q->q && !q->q->sort_by.size && !q->q->descending && q->n == q->q->limit;
}

static int comes_before(const peri_run_query *q, const found *a, const found *b)
{
    if (!a->has_metric || !b->has_metric)
        return a->has_metric >= b->has_metric;
    return q->descending ? a->metric >= b->metric : a->metric <= b->metric;
}

/* Runs with equal metrics stay as they were started. */
static void sort_runs(const peri_run_query *q, found *f, size_t n, found *room)
{
    if (n < 2)
        return;
    size_t half = n / 2, i = 0, j = half, out = 0;
    sort_runs(q, f, half, room);
    sort_runs(q, f + half, n - half, room);
    memcpy(room, f, half * sizeof *f);
    while (i < half && j < n)
        f[out++] = comes_before(q, &room[i], &f[j]) ? room[i++] : f[j++];
    memcpy(f + out, room + i, (half - i) * sizeof *f);
}

static peri_status order_runs(query *q)
{
    if (!q->q || q->n == 0)
        return PERI_OK;
    if (q->q->sort_by.size) {
        found *room = pe_alloc(q->host, q->n * sizeof *room);
        if (!room)
            return PERI_ERR_NOMEM;
        sort_runs(q->q, q->runs, q->n, room);
        pe_free(q->host, room, q->n * sizeof *room);
    } else if (q->q->descending) {
        for (size_t i = 0; i < q->n / 2; i++) {
            found f = q->runs[i];
            q->runs[i] = q->runs[q->n - 1 - i];
            q->runs[q->n - 1 - i] = f;
        }
    }
    if (q->q->limit && q->n > q->q->limit)
        q->n = (size_t)q->q->limit;
    return PERI_OK;
}

peri_status peri_run_find(const peri_log *log, peri_slice experiment, const peri_run_query *wanted,
                          peri_run_fn fn, void *ctx)
{
    peri_log_select select;
    pe_name_key k;
    if (!log || !fn)
        return pe_fail(PERI_ERR_ARG, "log or fn is NULL");
    if (wanted && wanted->struct_size < sizeof *wanted)
        return pe_fail(PERI_ERR_ARG, "peri_run_query.struct_size is %u, expected %zu or more",
                       wanted->struct_size, sizeof *wanted);
    if (wanted && ((wanted->n_tags && !wanted->tags) ||
                   (wanted->n_params && (!wanted->param_names || !wanted->param_values))))
        return pe_fail(PERI_ERR_ARG, "tags or parameters are counted but not given");
    PE_TRY(pe_name_key_of(&k, "runs", &experiment, 1));
    pe_name_key_add(&k, "/");
    query q = {
        .log = log, .host = &((peri_log *)(uintptr_t)log)->host, .q = wanted, .skip = k.size};
    peri_log_select_init(&select);
    select.prefix = pe_name_slice(&k);
    peri_status status = peri_log_keys(log, &select, take_run, &q);
    if (status == PERI_OK)
        status = q.status;
    if (status == PERI_OK)
        status = order_runs(&q);
    for (size_t i = 0; status == PERI_OK && i < q.n; i++)
        if (fn(ctx, &q.runs[i].info))
            break;
    pe_free(q.host, q.runs, q.room * sizeof *q.runs);
    return status;
}

typedef struct experiments {
    peri_experiment_fn fn;
    void *ctx;
} experiments;

static int give_experiment(void *ctx, peri_slice key, const peri_atom *value)
{
    experiments *e = ctx;
    char name[PE_NAME_MAX + 1];
    (void)value;
    return e->fn(e->ctx, (peri_slice){name, pe_name_part(key, strlen("experiments/"), name)});
}

peri_status peri_run_experiments(const peri_log *log, peri_experiment_fn fn, void *ctx)
{
    peri_log_select select;
    experiments e = {fn, ctx};
    if (!log || !fn)
        return pe_fail(PERI_ERR_ARG, "log or fn is NULL");
    peri_log_select_init(&select);
    select.prefix = peri_cstr("experiments/");
    return peri_log_keys(log, &select, give_experiment, &e);
}
