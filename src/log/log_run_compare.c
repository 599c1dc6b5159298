/* Runs side by side: the names that any of them has, in order, and what each has under them. */
#include "log/log_run.h"

#include <stdio.h>

typedef struct name {
    uint32_t kind;
    uint32_t size;
    char text[PE_NAME_MAX + 1];
} name;

typedef struct comparison {
    const peri_log *log;
    pe_host *host;
    name *names;
    size_t n, room;
    peri_status status;
} comparison;

static int compare_name(const name *a, const name *b)
{
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    int c = memcmp(a->text, b->text, a->size < b->size ? a->size : b->size);
    return c ? c : (a->size > b->size) - (a->size < b->size);
}

/* Each run gives its names in order: they are put where they belong, once. */
static int take_name(void *ctx, uint32_t kind, peri_slice text, peri_slice value, double number)
{
    comparison *c = ctx;
    name fresh = {kind, (uint32_t)text.size, {0}};
    (void)value;
    (void)number;
    memcpy(fresh.text, text.data, text.size);
    size_t low = 0, high = c->n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        int order = compare_name(&c->names[mid], &fresh);
        if (order == 0)
            return 0;
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    c->status = pe_grow(c->host, &c->names, &c->room, c->n + 1, sizeof *c->names);
    if (c->status != PERI_OK)
        return 1;
    memmove(c->names + low + 1, c->names + low, (c->n++ - low) * sizeof *c->names);
    c->names[low] = fresh;
    return 0;
}

static peri_status give_row(comparison *c, const name *row, const char *const *ids, size_t n,
                            peri_buf *bufs, peri_slice *texts, double *numbers, peri_run_row_fn fn,
                            void *ctx, int *stop)
{
    peri_slice which = {row->text, row->size};
    for (size_t i = 0; i < n; i++) {
        char number[32];
        texts[i] = (peri_slice){NULL, 0};
        numbers[i] = 0;
        peri_status status;
        if (row->kind == PERI_RUN_PARAM) {
            status = peri_run_get_param(c->log, ids[i], which, &bufs[i]);
        } else {
            status = peri_run_get_metric(c->log, ids[i], which, &numbers[i]);
            int size = snprintf(number, sizeof number, "%.17g", numbers[i]);
            if (status == PERI_OK)
                status = pe_buf_set(&bufs[i], number, (size_t)size);
        }
        if (status == PERI_OK)
            texts[i] = (peri_slice){bufs[i].data, bufs[i].size};
        else if (status != PERI_ERR_NOT_FOUND)
            return status;
    }
    *stop = fn(ctx, row->kind, which, texts, numbers) != 0;
    return PERI_OK;
}

static peri_status gather(comparison *c, const char *const *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (uint32_t kind = PERI_RUN_PARAM; kind <= PERI_RUN_METRIC; kind++) {
            PE_TRY(peri_run_items(c->log, ids[i], kind, take_name, c));
            PE_TRY(c->status);
        }
    return PERI_OK;
}

peri_status peri_run_compare(const peri_log *log, const char *const *ids, size_t n,
                             peri_run_row_fn fn, void *ctx)
{
    if (!log || !fn || n == 0 || !ids || n > 100000)
        return pe_fail(PERI_ERR_ARG, "log, ids or fn is NULL, or %zu runs, expected 1 to 100,000",
                       n);
    comparison c = {.log = log, .host = &((peri_log *)(uintptr_t)log)->host};
    size_t each = sizeof(peri_buf) + sizeof(peri_slice) + sizeof(double);
    peri_buf *bufs = pe_calloc(c.host, n * each);
    if (!bufs)
        return PERI_ERR_NOMEM;
    peri_slice *texts = (peri_slice *)(void *)(bufs + n);
    double *numbers = (double *)(void *)(texts + n);
    peri_status status = gather(&c, ids, n);
    int stop = 0;
    for (size_t i = 0; i < c.n && status == PERI_OK && !stop; i++)
        status = give_row(&c, &c.names[i], ids, n, bufs, texts, numbers, fn, ctx, &stop);
    for (size_t i = 0; i < n; i++)
        peri_buf_free(&bufs[i]);
    pe_free(c.host, bufs, n * each);
    pe_free(c.host, c.names, c.room * sizeof *c.names);
    return status;
}
