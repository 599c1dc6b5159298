/* Randomised ball carving: cells around sampled leaders, cut again while they are too large.
 *
 * At the top each row goes to its `fanout` nearest leaders, so that rows on both sides of a border
 * meet in some cell; below, to the nearest one. The leaders of the top are a cell of their own:
 * it gives the graph its long links. */
#include "graph/bulk.h"
#include "base/rng.h"

#include <math.h>

enum { MOST_FANOUT = 16 };

/* Rows sorted by cell: cell c holds rows[at[c] .. at[c + 1]). */
typedef struct cells {
    uint32_t *rows;
    size_t *at;
    size_t n, n_rows;
} cells;

static void free_cells(pe_host *host, cells *c)
{
    pe_free(host, c->rows, c->n_rows * sizeof *c->rows);
    pe_free(host, c->at, (c->n + 1) * sizeof *c->at);
}

/* One row of each of n equal shares of m rows. */
static void sample(const uint32_t *rows, size_t m, size_t n, uint64_t seed, uint32_t *out)
{
    pe_rng rng = {seed};
    for (size_t i = 0; i < n; i++) {
        size_t from = m * i / n, to = m * (i + 1) / n;
        size_t at = from + pe_rng_below(&rng, (uint32_t)(to - from));
        out[i] = rows ? rows[at] : (uint32_t)at;
    }
}

static size_t leaders_for(const pe_bulk_run *r, size_t m, unsigned fanout)
{
    size_t n = m * fanout / (r->b->cell / 2) + 2;
    return n > PE_BULK_LEADERS ? PE_BULK_LEADERS : n;
}

static void load_leaders(const pe_bulk_run *r, pe_bulk_room *room, const uint32_t *leaders,
                         size_t n)
{
    const pe_kernels *k = r->b->rows->kernels;
    for (size_t i = 0; i < n; i++) {
        float *x = room->x + i * r->dim;
        pe_bulk_row(r->b, leaders[i], x);
        room->norms[i] = -k->dist[PE_OP_DOT][PE_ELEM_F32].one(x, x, r->dim);
    }
}

/* The nearest leaders of up to PE_BULK_BLOCK rows: out[i * fanout ..). */
static void assign_block(const pe_bulk_run *r, const pe_bulk_room *leaders, pe_bulk_room *room,
                         size_t n_leaders, const uint32_t *rows, size_t m, unsigned fanout,
                         uint32_t *out)
{
    for (size_t i = 0; i < m; i++)
        pe_bulk_row(r->b, rows[i], room->block + i * r->dim);
    r->b->rows->kernels->tile_dot_f32(room->block, r->dim, m, leaders->x, r->dim, n_leaders, r->dim,
                                      room->dots, r->most);
    for (size_t i = 0; i < m; i++) {
        const float *dots = room->dots + i * r->most;
        float near[MOST_FANOUT];
        uint32_t *at = out + i * fanout;
        for (unsigned f = 0; f < fanout; f++) {
            near[f] = INFINITY;
            at[f] = 0;
        }
        for (size_t j = 0; j < n_leaders; j++) {
            float key = leaders->norms[j] + 2 * dots[j];
            if (!(key < near[fanout - 1]))
                continue;
            unsigned to = fanout - 1;
            for (; to > 0 && near[to - 1] > key; to--) {
                near[to] = near[to - 1];
                at[to] = at[to - 1];
            }
            near[to] = key;
            at[to] = (uint32_t)j;
        }
    }
}

/* Sort m rows by the `fanout` cells given of each. */
static peri_status make_cells(pe_host *host, cells *c, size_t n, const uint32_t *rows, size_t m,
                              unsigned fanout, const uint32_t *assigned)
{
    c->n = n;
    c->n_rows = m * fanout;
    c->rows = pe_alloc(host, c->n_rows * sizeof *c->rows);
    c->at = pe_calloc(host, (n + 1) * sizeof *c->at);
    if (!c->rows || !c->at) {
        free_cells(host, c);
        return PERI_ERR_NOMEM;
    }
    for (size_t i = 0; i < c->n_rows; i++)
        c->at[assigned[i]]++;
    size_t sum = 0;
    for (size_t i = 0; i <= n; i++) {
        size_t of = c->at[i];
        c->at[i] = sum;
        sum += of;
    }
    for (size_t i = 0; i < c->n_rows; i++)
        c->rows[c->at[assigned[i]]++] = rows ? rows[i / fanout] : (uint32_t)(i / fanout);
    for (size_t i = n; i > 0; i--)
        c->at[i] = c->at[i - 1];
    c->at[0] = 0;
    return PERI_OK;
}

/* ---- below the top: one worker a cell ---- */

static peri_status cut_cell(pe_bulk_run *r, pe_bulk_room *room, const uint32_t *rows, size_t m,
                            uint64_t seed);

static peri_status carve_cell(pe_bulk_run *r, pe_bulk_room *room, const uint32_t *rows, size_t m,
                              uint64_t seed)
{
    uint32_t leaders[PE_BULK_LEADERS];
    size_t n = leaders_for(r, m, 1);
    cells c = {0};
    uint32_t *assigned = pe_alloc(r->host, m * sizeof *assigned);
    if (!assigned)
        return PERI_ERR_NOMEM;
    sample(rows, m, n, seed, leaders);
    load_leaders(r, room, leaders, n);
    for (size_t i = 0; i < m && !pe_bulk_stop(r); i += PE_BULK_BLOCK) {
        size_t k = m - i < PE_BULK_BLOCK ? m - i : PE_BULK_BLOCK;
        assign_block(r, room, room, n, rows + i, k, 1, assigned + i);
    }
    peri_status status = make_cells(r->host, &c, n, rows, m, 1, assigned);
    pe_free(r->host, assigned, m * sizeof *assigned);
    for (size_t i = 0; i < c.n && status == PERI_OK && !pe_bulk_stop(r); i++) {
        size_t size = c.at[i + 1] - c.at[i];
        if (size < m) {
            status = cut_cell(r, room, c.rows + c.at[i], size, pe_mix64(seed + i + 1));
            continue;
        }
        /* All rows alike to the leaders: cut anywhere. */
        for (size_t j = 0; j < size; j += r->b->cell)
            pe_bulk_leaf(r, room, c.rows + j, size - j < r->b->cell ? size - j : r->b->cell);
    }
    free_cells(r->host, &c);
    return status;
}

static peri_status cut_cell(pe_bulk_run *r, pe_bulk_room *room, const uint32_t *rows, size_t m,
                            uint64_t seed)
{
    if (m > r->b->cell)
        return carve_cell(r, room, rows, m, seed);
    pe_bulk_leaf(r, room, rows, m);
    return PERI_OK;
}

/* ---- the top: the whole team ---- */

typedef struct top {
    pe_bulk_run *r;
    const pe_bulk_room *leaders;
    size_t n_leaders;
    uint32_t *assigned;
    cells cells;
    uint64_t seed;
    _Atomic size_t next;
} top;

static void assign_worker(void *ctx, unsigned worker)
{
    top *t = ctx;
    pe_bulk_run *r = t->r;
    uint32_t rows[PE_BULK_BLOCK];
    for (;;) {
        size_t i = atomic_fetch_add(&t->next, PE_BULK_BLOCK);
        if (i >= r->b->n || pe_bulk_stop(r))
            return;
        size_t k = r->b->n - i < PE_BULK_BLOCK ? r->b->n - i : PE_BULK_BLOCK;
        for (size_t j = 0; j < k; j++)
            rows[j] = (uint32_t)(i + j);
        assign_block(r, t->leaders, &r->rooms[worker], t->n_leaders, rows, k, r->b->fanout,
                     t->assigned + i * r->b->fanout);
    }
}

static void cells_worker(void *ctx, unsigned worker)
{
    top *t = ctx;
    pe_bulk_run *r = t->r;
    for (;;) {
        size_t i = atomic_fetch_add(&t->next, 1);
        if (i >= t->cells.n || pe_bulk_stop(r))
            return;
        size_t at = t->cells.at[i], m = t->cells.at[i + 1] - at;
        pe_first_error_set(&r->error, cut_cell(r, &r->rooms[worker], t->cells.rows + at, m,
                                               pe_mix64(t->seed + i + 1)));
        pe_progress_add(r->progress, worker, m);
    }
}

static peri_status carve_top(pe_bulk_run *r, top *t, const uint32_t *leaders)
{
    size_t assigned = r->b->n * r->b->fanout;
    t->assigned = pe_alloc(r->host, assigned * sizeof *t->assigned);
    if (!t->assigned)
        return PERI_ERR_NOMEM;
    pe_team_run(r->workers, assign_worker, t);
    peri_status status = PERI_OK;
    if (!pe_bulk_stop(r))
        status =
            make_cells(r->host, &t->cells, t->n_leaders, NULL, r->b->n, r->b->fanout, t->assigned);
    pe_free(r->host, t->assigned, assigned * sizeof *t->assigned);
    if (status != PERI_OK || pe_bulk_stop(r))
        return status;
    pe_bulk_leaf(r, &r->rooms[0], leaders, t->n_leaders);
    t->next = 0;
    pe_team_run(r->workers, cells_worker, t);
    free_cells(r->host, &t->cells);
    return pe_first_error_get(&r->error);
}

peri_status pe_bulk_carve(pe_bulk_run *r)
{
    const pe_bulk *b = r->b;
    uint32_t leaders[PE_BULK_LEADERS];
    top t = {.r = r, .seed = b->seed};
    if (b->n <= b->cell) {
        uint32_t rows[PE_BULK_CELL];
        for (size_t i = 0; i < b->n; i++)
            rows[i] = (uint32_t)i;
        pe_bulk_leaf(r, &r->rooms[0], rows, b->n);
        return PERI_OK;
    }
    /* The leaders keep a room of their own while the team assigns. */
    t.n_leaders = leaders_for(r, b->n, b->fanout);
    t.leaders = &r->rooms[r->workers];
    sample(NULL, b->n, t.n_leaders, b->seed, leaders);
    load_leaders(r, &r->rooms[r->workers], leaders, t.n_leaders);
    return carve_top(r, &t, leaders);
}
