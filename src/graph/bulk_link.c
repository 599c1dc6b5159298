/* Reservoirs to lists: prune each, turn the links round, prune what both directions brought. */
#include "graph/bulk.h"

#include <stdlib.h>

enum { BATCH = 64 };

typedef struct linker {
    pe_bulk_run *r;
    size_t limit; /* nodes are below */
    uint32_t degree;
    pe_cand *out;    /* n x degree: chosen, with their keys */
    uint16_t *n_out; /* of each */
    pe_cand *in;     /* by node: in[in_at[node] .. in_at[node + 1]) lead to it */
    size_t *in_at;
    size_t n_in;
    _Atomic size_t next;
} linker;

/* What one worker prunes with. */
typedef struct tools {
    pe_pruner pruner;
    float *scratch;
    uint32_t chosen[PE_DEGREE_MAX], picked[PE_DEGREE_MAX + 1];
} tools;

static void tools_init(tools *t, const linker *l, unsigned worker)
{
    const pe_bulk *b = l->r->b;
    t->scratch = l->r->rooms[worker].block;
    t->pruner = (pe_pruner){b->rows, b->layer, b->view, b->alpha, t->scratch, t->chosen};
}

static void choose(linker *l, tools *t, size_t i)
{
    const pe_bulk *b = l->r->b;
    uint32_t ids[PE_RESERVOIR_ROOM], slots[PE_RESERVOIR_ROOM];
    float keys[PE_RESERVOIR_ROOM];
    pe_cand c[PE_RESERVOIR_ROOM];
    size_t n = pe_reservoir_ids(&l->r->reservoirs, i, ids);
    for (size_t j = 0; j < n; j++)
        slots[j] = pe_layer_slot(b->layer, b->nodes[ids[j]]);
    pe_point p = pe_view_point(b->rows, b->view, pe_layer_slot(b->layer, b->nodes[i]), t->scratch);
    pe_view_keys(b->view, &p, slots, n, keys);
    for (size_t j = 0; j < n; j++)
        c[j] = (pe_cand){keys[j], b->nodes[ids[j]]};
    pe_cand_sort(c, n);
    size_t kept = pe_prune(&t->pruner, c, n, l->degree, 0, t->picked), at = 0;
    pe_cand *out = l->out + i * l->degree;
    for (size_t j = 0; j < kept; j++) {
        while (c[at].slot != t->picked[j])
            at++;
        out[j] = c[at];
    }
    l->n_out[i] = (uint16_t)kept;
}

static void choose_worker(void *ctx, unsigned worker)
{
    linker *l = ctx;
    tools t;
    tools_init(&t, l, worker);
    for (;;) {
        size_t i = atomic_fetch_add(&l->next, BATCH);
        if (i >= l->r->b->n || pe_bulk_stop(l->r))
            return;
        size_t end = l->r->b->n - i < BATCH ? l->r->b->n : i + BATCH;
        pe_progress_add(l->r->progress, worker, end - i);
        for (; i < end; i++)
            choose(l, &t, i);
    }
}

/* In the order of their sources, whatever the team did. */
static peri_status turn_round(linker *l)
{
    const pe_bulk *b = l->r->b;
    for (size_t i = 0; i < b->n; i++)
        l->n_in += l->n_out[i];
    l->in = pe_alloc(l->r->host, l->n_in * sizeof *l->in);
    if (!l->in)
        return PERI_ERR_NOMEM;
    for (size_t i = 0; i < b->n; i++)
        for (size_t j = 0; j < l->n_out[i]; j++)
            l->in_at[l->out[i * l->degree + j].slot + 1]++;
    for (size_t node = 0; node < l->limit; node++)
        l->in_at[node + 1] += l->in_at[node];
    for (size_t i = 0; i < b->n; i++)
        for (size_t j = 0; j < l->n_out[i]; j++) {
            pe_cand c = l->out[i * l->degree + j];
            l->in[l->in_at[c.slot]++] = (pe_cand){c.d, b->nodes[i]};
        }
    for (size_t node = l->limit; node > 0; node--)
        l->in_at[node] = l->in_at[node - 1];
    l->in_at[0] = 0;
    return PERI_OK;
}

static int by_node(const void *a, const void *b)
{
    const pe_cand *x = a, *y = b;
    return (x->slot > y->slot) - (x->slot < y->slot);
}

/* The nearest candidates that pruning left out, while there is room. */
static size_t fill(const linker *l, uint32_t *picked, size_t n, size_t i)
{
    uint32_t ids[PE_RESERVOIR_ROOM];
    size_t m = n < l->degree ? pe_reservoir_sorted(&l->r->reservoirs, i, ids) : 0;
    for (size_t j = 0; j < m && n < l->degree; j++) {
        uint32_t node = l->r->b->nodes[ids[j]];
        size_t at = 0;
        while (at < n && picked[at] != node)
            at++;
        if (at == n)
            picked[n++] = node;
    }
    return n;
}

static void finish(linker *l, tools *t, pe_cand *c, size_t i)
{
    uint32_t node = l->r->b->nodes[i];
    size_t from = l->in_at[node], n_in = l->in_at[node + 1] - from, n = l->n_out[i], m = 0;
    /* A row that half the batch leads to keeps the nearest of them. */
    pe_cand *in = l->in + from;
    if (n_in > PE_DEGREE_MAX) {
        pe_cand_sort(in, n_in);
        n_in = PE_DEGREE_MAX;
    }
    memcpy(c, l->out + i * l->degree, n * sizeof *c);
    memcpy(c + n, in, n_in * sizeof *c);
    n += n_in;
    qsort(c, n, sizeof *c, by_node);
    for (size_t j = 0; j < n; j++) /* both directions give the same key */
        if (m == 0 || c[m - 1].slot != c[j].slot)
            c[m++] = c[j];
    pe_cand_sort(c, m);
    size_t kept = m;
    if (m > l->degree)
        kept = pe_prune(&t->pruner, c, m, l->degree, 0, t->picked);
    else
        for (size_t j = 0; j < m; j++)
            t->picked[j] = c[j].slot;
    if (l->r->b->fill)
        kept = fill(l, t->picked, kept, i);
    pe_list_write(l->r->b->layer, node, t->picked, kept);
}

static void finish_worker(void *ctx, unsigned worker)
{
    linker *l = ctx;
    tools t;
    pe_cand c[2 * PE_DEGREE_MAX];
    tools_init(&t, l, worker);
    for (;;) {
        size_t i = atomic_fetch_add(&l->next, BATCH);
        if (i >= l->r->b->n)
            return;
        size_t end = l->r->b->n - i < BATCH ? l->r->b->n : i + BATCH;
        for (; i < end; i++)
            finish(l, &t, c, i);
    }
}

static peri_status make(linker *l)
{
    const pe_bulk *b = l->r->b;
    l->limit = (size_t)b->nodes[b->n - 1] + 1;
    l->degree = b->layer->degree;
    l->out = pe_alloc(l->r->host, b->n * l->degree * sizeof *l->out);
    l->n_out = pe_alloc(l->r->host, b->n * sizeof *l->n_out);
    l->in_at = pe_calloc(l->r->host, (l->limit + 1) * sizeof *l->in_at);
    return l->out && l->n_out && l->in_at ? PERI_OK : PERI_ERR_NOMEM;
}

static void drop(linker *l)
{
    const pe_bulk *b = l->r->b;
    pe_free(l->r->host, l->out, b->n * l->degree * sizeof *l->out);
    pe_free(l->r->host, l->n_out, b->n * sizeof *l->n_out);
    pe_free(l->r->host, l->in_at, (l->limit + 1) * sizeof *l->in_at);
    pe_free(l->r->host, l->in, l->n_in * sizeof *l->in);
}

peri_status pe_bulk_link(pe_bulk_run *r)
{
    linker l = {.r = r};
    peri_status status = make(&l);
    if (status == PERI_OK) {
        pe_progress_phase(r->progress, "links", r->b->n);
        pe_team_run(r->workers, choose_worker, &l);
        if (!r->b->fill)
            pe_reservoirs_destroy(&r->reservoirs);
        status = pe_progress_end(r->progress);
    }
    if (status == PERI_OK)
        status = turn_round(&l);
    if (status == PERI_OK) {
        l.next = 0;
        pe_team_run(r->workers, finish_worker, &l);
    }
    drop(&l);
    return status;
}
