/* Rows into wells: one, or a batch by pieces whose rows a team routes and whose wells it fills. */
#include "gwi/gwi.h"

enum { TRAIN_CODES = 1024, LARGE = 16384 };

peri_status pe_gwi_before(peri_index *ix, const float *rows, size_t n, pe_progress *progress)
{
    gwi *g = gwi_of(ix);
    uint32_t count = pe_slots_count(&ix->slots);
    if (g->codes == PERI_CODES_8BIT && !pe_rows_codes(&ix->rows)) {
        if (n >= TRAIN_CODES)
            PE_TRY(pe_rows_train(&ix->rows, rows, n, count, progress));
        else if (count >= TRAIN_CODES)
            PE_TRY(pe_rows_train(&ix->rows, NULL, 0, count, progress));
    }
    uint64_t total = pe_slots_live(&ix->slots) + (uint64_t)n;
    if (gwi_tree_of(g) || total < g->train_rows)
        return PERI_OK;
    unsigned workers = n > 1 ? pe_task_threads(progress->task) : 1;
    return pe_gwi_train(ix, rows, n, total, progress, workers);
}

peri_status pe_gwi_reserve(peri_index *ix, size_t slots, size_t rows, int exact, unsigned workers)
{
    gwi *g = gwi_of(ix);
    const gwi_tree *t = gwi_tree_of(g);
    (void)workers;
    PE_TRY(pe_array_reserve(&g->where, &ix->epoch, slots, exact));
    if (!t)
        return PERI_OK;
    PE_TRY(pe_gwi_reserve_keys(ix, t->n_wells));
    return rows == 1 ? pe_gwi_reserve_blocks(ix, 2) : PERI_OK;
}

void *pe_gwi_room(peri_index *ix, int which, size_t bytes)
{
    gwi *g = gwi_of(ix);
    if (g->room_bytes[which] < bytes) {
        pe_free(&ix->host, g->room[which], g->room_bytes[which]);
        g->room[which] = pe_alloc(&ix->host, bytes);
        g->room_bytes[which] = g->room[which] ? bytes : 0;
    }
    return g->room[which];
}

void pe_gwi_free_rooms(peri_index *ix)
{
    gwi *g = gwi_of(ix);
    for (int i = 0; i < GWI_ROOMS; i++) {
        pe_free(&ix->host, g->room[i], g->room_bytes[i]);
        g->room[i] = NULL;
        g->room_bytes[i] = 0;
    }
}

static peri_status add_one(peri_index *ix, const gwi_tree *t, uint32_t slot)
{
    gwi *g = gwi_of(ix);
    gwi_append a;
    uint32_t block[2];
    const float *row = g->one_row;
    PE_TRY(pe_epoch_reserve(&ix->epoch, 8));
    PE_TRY(pe_gwi_reserve_keys(ix, t->n_wells));
    pe_gwi_rotated(ix, slot, g->one_row, g->one_tmp);
    gwi_well *w = pe_gwi_route_one(ix, t, row);
    PE_TRY(pe_gwi_prepare(ix, w, 1, block, &a));
    pe_gwi_fill(ix, &a, &slot, &row, g->one_symbols, g->one_room);
    pe_gwi_commit(ix, &a, &slot);
    return PERI_OK;
}

/* ---- a piece of a batch ---- */

typedef struct piece {
    peri_index *ix;
    const gwi_tree *t;
    const uint32_t *slots;
    uint32_t n;
    unsigned workers;
    float *rotated;
    uint32_t *well;  /* of each row, by index in the tree */
    uint32_t *first; /* n_wells + 2: rows by well */
    uint32_t *slot;  /* slots by well */
    const float **row;
    gwi_append *append; /* of the wells that get any, in order */
    uint32_t n_append;
    uint32_t *blocks; /* acquired by them */
    size_t n_blocks;
    uint8_t *room; /* symbols and levels, a worker */
    size_t room_bytes;
    _Atomic uint32_t next;
} piece;

static void sort_by_well(piece *p)
{
    uint32_t wells = p->t->n_wells;
    size_t width = gwi_of(p->ix)->bitcode.width;
    memset(p->first, 0, ((size_t)wells + 2) * sizeof *p->first);
    for (uint32_t i = 0; i < p->n; i++)
        p->first[p->well[i] + 2]++;
    for (uint32_t w = 2; w < wells + 2; w++)
        p->first[w] += p->first[w - 1];
    for (uint32_t i = 0; i < p->n; i++) {
        uint32_t at = p->first[p->well[i] + 1]++;
        p->slot[at] = p->slots[i];
        p->row[at] = p->rotated + i * width;
    }
}

/* Acquire what every well needs. */
static peri_status prepare_wells(piece *p)
{
    uint32_t touched = 0, used = 0;
    size_t blocks = 0;
    for (uint32_t w = 0; w < p->t->n_wells; w++) {
        uint32_t n = p->first[w + 1] - p->first[w];
        touched += n > 0;
        blocks += n ? pe_gwi_blocks_for(p->t->well[w], n) : 0;
    }
    PE_TRY(pe_epoch_reserve(&p->ix->epoch, 2 * (size_t)touched + 64));
    PE_TRY(pe_gwi_reserve_blocks(p->ix, blocks));
    p->append = pe_alloc(&p->ix->host, touched * sizeof *p->append);
    p->blocks = pe_alloc(&p->ix->host, blocks * sizeof *p->blocks);
    if (!p->append || !p->blocks) {
        pe_free(&p->ix->host, p->append, touched * sizeof *p->append);
        pe_free(&p->ix->host, p->blocks, blocks * sizeof *p->blocks);
        p->append = NULL;
        p->blocks = NULL;
        return PERI_ERR_NOMEM;
    }
    p->n_append = touched;
    p->n_blocks = blocks;
    peri_status status = PERI_OK;
    uint32_t made = 0;
    for (uint32_t w = 0; w < p->t->n_wells && status == PERI_OK; w++) {
        uint32_t n = p->first[w + 1] - p->first[w];
        if (n == 0)
            continue;
        status = pe_gwi_prepare(p->ix, p->t->well[w], n, p->blocks + used, &p->append[made]);
        if (status == PERI_OK)
            used += p->append[made++].n_blocks;
    }
    for (uint32_t i = 0; i < made && status != PERI_OK; i++)
        pe_gwi_abandon(p->ix, &p->append[i]);
    return status;
}

static void fill_worker(void *ctx, unsigned worker)
{
    piece *p = ctx;
    enum { UNIT = 8 };
    const gwi *g = gwi_of(p->ix);
    uint8_t *symbols = p->room + worker * p->room_bytes, *room = symbols + g->bitcode.groups;
    for (;;) {
        uint32_t i = atomic_fetch_add(&p->next, UNIT), end = i + UNIT;
        if (i >= p->n_append)
            return;
        for (end = end < p->n_append ? end : p->n_append; i < end; i++) {
            const gwi_append *a = &p->append[i];
            uint32_t at = p->first[a->well->index];
            pe_gwi_fill(p->ix, a, p->slot + at, p->row + at, symbols, room);
        }
    }
}

static peri_status run_piece(piece *p)
{
    PE_TRY(pe_gwi_route(p->ix, p->t, p->slots, p->n, p->rotated, p->well, p->workers));
    sort_by_well(p);
    PE_TRY(prepare_wells(p));
    atomic_store(&p->next, 0);
    pe_team_run(p->n_append > 16 ? p->workers : 1, fill_worker, p);
    for (uint32_t i = 0; i < p->n_append; i++)
        pe_gwi_commit(p->ix, &p->append[i], p->slot + p->first[p->append[i].well->index]);
    return PERI_OK;
}

static peri_status add_piece(peri_index *ix, const gwi_tree *t, const uint32_t *slots, uint32_t n,
                             unsigned workers)
{
    gwi *g = gwi_of(ix);
    pe_host *host = &ix->host;
    piece p = {.ix = ix, .t = t, .slots = slots, .n = n, .workers = workers};
    size_t rotated = (size_t)n * g->bitcode.width * sizeof(float);
    size_t first = ((size_t)t->n_wells + 2) * sizeof *p.first;
    p.room_bytes = g->bitcode.groups + g->bitcode.width;
    p.rotated = pe_gwi_room(ix, GWI_ROOM_ROWS, rotated);
    p.well = pe_alloc(host, n * sizeof *p.well);
    p.first = pe_alloc(host, first);
    p.slot = pe_alloc(host, n * sizeof *p.slot);
    p.row = pe_alloc(host, n * sizeof *p.row);
    p.room = pe_alloc(host, workers * p.room_bytes);
    peri_status status = PERI_ERR_NOMEM;
    if (p.rotated && p.well && p.first && p.slot && p.row && p.room)
        status = run_piece(&p);
    pe_free(host, p.well, n * sizeof *p.well);
    pe_free(host, p.first, first);
    pe_free(host, p.slot, n * sizeof *p.slot);
    pe_free(host, p.row, n * sizeof *p.row);
    pe_free(host, p.room, workers * p.room_bytes);
    pe_free(host, p.append, p.n_append * sizeof *p.append);
    pe_free(host, p.blocks, p.n_blocks * sizeof *p.blocks);
    return status;
}

static size_t piece_rows(const gwi *g)
{
    size_t rows = GWI_PIECE_BYTES / (g->bitcode.width * sizeof(float));
    return rows < 256 ? 256 : rows;
}

peri_status pe_gwi_add(peri_index *ix, const gwi_tree *t, const uint32_t *slots, size_t n,
                       unsigned workers, size_t *done)
{
    enum { FEW = 8 }; /* a piece has to be set up */
    size_t most = piece_rows(gwi_of(ix));
    for (*done = 0; *done < n && n <= FEW; ++*done)
        PE_TRY(add_one(ix, t, slots[*done]));
    while (*done < n) {
        size_t m = n - *done < most ? n - *done : most;
        PE_TRY(add_piece(ix, t, slots + *done, (uint32_t)m, workers));
        *done += m;
    }
    return PERI_OK;
}

/* The wells of rows just put, which may be overfull. */
static void settle(peri_index *ix, const uint32_t *slots, size_t n)
{
    gwi *g = gwi_of(ix);
    uint32_t most = pe_gwi_most_rows(ix);
    for (size_t i = 0; i < n; i++) {
        uint32_t where = atomic_load_explicit(gwi_where(g, slots[i]), memory_order_relaxed);
        gwi_well *w = where ? g->by_centre[where - 1] : NULL;
        if (w && w->rows > most)
            pe_gwi_settle(ix, w);
    }
}

peri_status pe_gwi_insert(peri_index *ix, const uint32_t *slots, size_t n, pe_progress *progress,
                          unsigned workers, size_t *done)
{
    gwi *g = gwi_of(ix);
    size_t most = piece_rows(g);
    *done = 0;
    if (!gwi_tree_of(g)) { /* they wait */
        for (size_t i = 0; i < n; i++)
            atomic_store_explicit(gwi_where(g, slots[i]), 0, memory_order_relaxed);
        *done = n;
        pe_progress_add(progress, 0, n);
        return PERI_OK;
    }
    peri_status status = PERI_OK;
    while (status == PERI_OK && *done < n &&
           !atomic_load_explicit(&progress->cancelled, memory_order_relaxed)) {
        size_t m = n - *done < most ? n - *done : most, in = 0;
        pe_epoch_reclaim(&ix->epoch);
        const gwi_tree *t = gwi_tree_of(g);
        status = pe_gwi_add(ix, t, slots + *done, m, workers, &in);
        settle(ix, slots + *done, in);
        *done += in;
        pe_progress_add(progress, 0, in);
    }
    if (n < LARGE) /* else more is to come, mostly */
        pe_gwi_free_rooms(ix);
    return status;
}
