/* Insertion: one row, or a batch by a team.
 *
 * Each worker takes the next row, finds its neighbours by beam search from the top, chooses among
 * them, writes its own list and then adds itself to theirs. Lists are guarded by striped spin
 * locks, one held at a time; layers above the dense one by a mutex, since one row in m meets them.
 */
#include "graph/graph_index.h"
#include "base/rng.h"

#include <math.h>

uint32_t pe_graph_level_of(const pe_graph *g, uint64_t draw)
{
    pe_rng r = {g->seed ^ pe_mix64(draw + 1)};
    uint32_t level = (uint32_t)(-log(pe_rng_unit(&r)) / log((double)g->m));
    return level > PE_GRAPH_TOP ? PE_GRAPH_TOP : level;
}

pe_view pe_graph_build_view(const peri_index *ix)
{
    const pe_codes *codes = pe_rows_codes(&ix->rows);
    return codes ? pe_rows_code_view(&ix->rows, codes) : pe_rows_view(&ix->rows);
}

pe_pruner pe_graph_pruner(const peri_index *ix, const pe_view *view, pe_graph_worker *w,
                          unsigned level)
{
    const pe_graph *g = pe_graph_of(ix);
    return (pe_pruner){&ix->rows,  &g->layer[level], view, pe_graph_alpha_key(g),
                       w->scratch, w->chosen};
}

static size_t worker_bytes(const peri_index *ix)
{
    return (size_t)ix->space.dim * sizeof(float);
}

void pe_graph_free_workers(peri_index *ix)
{
    pe_graph *g = pe_graph_of(ix);
    for (unsigned i = 0; i < g->n_workers; i++) {
        pe_graph_worker *w = &g->workers[i];
        pe_beam_destroy(&w->beam);
        pe_free(&ix->host, w->scratch, worker_bytes(ix));
        pe_free(&ix->host, w->row, worker_bytes(ix));
        pe_free(&ix->host, w->chosen, PE_DEGREE_MAX * sizeof *w->chosen);
        pe_free(&ix->host, w->cands, (g->ef_construction + 1) * sizeof *w->cands);
        pe_free(&ix->host, w->picked, PE_DEGREE_MAX * sizeof *w->picked);
    }
    pe_free(&ix->host, g->workers, g->n_workers * sizeof *g->workers);
    g->workers = NULL;
    g->n_workers = 0;
}

peri_status pe_graph_make_workers(peri_index *ix, unsigned n)
{
    pe_graph *g = pe_graph_of(ix);
    if (n <= g->n_workers)
        return PERI_OK;
    pe_graph_free_workers(ix);
    g->workers = pe_calloc(&ix->host, n * sizeof *g->workers);
    if (!g->workers)
        return PERI_ERR_NOMEM;
    g->n_workers = n;
    for (unsigned i = 0; i < n; i++) {
        pe_graph_worker *w = &g->workers[i];
        pe_beam_init(&w->beam, &ix->host);
        w->scratch = pe_alloc(&ix->host, worker_bytes(ix));
        w->row = pe_alloc(&ix->host, worker_bytes(ix));
        w->chosen = pe_alloc(&ix->host, PE_DEGREE_MAX * sizeof *w->chosen);
        w->cands = pe_alloc(&ix->host, (g->ef_construction + 1) * sizeof *w->cands);
        w->picked = pe_alloc(&ix->host, PE_DEGREE_MAX * sizeof *w->picked);
        if (!w->scratch || !w->row || !w->chosen || !w->cands || !w->picked) {
            pe_graph_free_workers(ix);
            return PERI_ERR_NOMEM;
        }
    }
    return PERI_OK;
}

peri_status pe_graph_reserve(peri_index *ix, size_t slots, size_t rows, int exact, unsigned workers)
{
    pe_graph *g = pe_graph_of(ix);
    size_t want[PE_GRAPH_LEVELS] = {0};
    PE_TRY(pe_graph_make_workers(ix, workers));
    PE_TRY(pe_layer_reserve(&g->layer[0], &ix->epoch, slots, exact));
    if (g->layout == PERI_LAYOUT_Q)
        PE_TRY(pe_quantised_reserve(&g->quantised, &ix->epoch, slots, exact));
    PE_TRY(pe_array_reserve(&g->gone, &ix->epoch, (slots + 63) / 64, exact));
    for (size_t i = 0; i < rows; i++)
        for (uint32_t l = pe_graph_level_of(g, g->drawn + i); l > 0; l--)
            want[l]++;
    for (unsigned l = 1; l < PE_GRAPH_LEVELS; l++)
        PE_TRY(pe_layer_reserve(&g->layer[l], &ix->epoch, g->layer[l].count + want[l], exact));
    for (unsigned i = 0; i < workers; i++)
        PE_TRY(pe_beam_reserve(&g->workers[i].beam, (uint32_t)g->layer[0].nodes.capacity,
                               g->ef_construction, 0));
    return PERI_OK;
}

enum { TRAIN_ROWS = 1024, CONNECT_ROWS = 1024 };

/* Codes are trained when a batch comes that can teach them, or once enough rows came one by one;
 * until then traversal reads the rows. */
peri_status pe_graph_before(peri_index *ix, const float *rows, size_t n, pe_progress *progress)
{
    pe_graph *g = pe_graph_of(ix);
    if (g->codes == PERI_CODES_NONE || atomic_load(&ix->rows.codes))
        return PERI_OK;
    uint32_t count = pe_slots_count(&ix->slots);
    if (n >= TRAIN_ROWS)
        return pe_rows_train(&ix->rows, rows, n, count, progress);
    if (count >= TRAIN_ROWS)
        return pe_rows_train(&ix->rows, NULL, 0, count, progress);
    return PERI_OK;
}

uint32_t pe_graph_descend(const pe_graph *g, pe_beam *b, const pe_view *view, const pe_point *p,
                          uint32_t slot_limit, uint64_t entry, unsigned level, float *key)
{
    uint32_t node = (uint32_t)entry;
    unsigned at = (unsigned)(entry >> 32);
    *key = pe_view_key(view, p, pe_layer_slot(&g->layer[at], node));
    for (; at > level; at--) {
        node = pe_beam_greedy(b, &g->layer[at], slot_limit, view, p, node, key);
        node = pe_layer_down(&g->layer[at], node);
    }
    return node;
}

/* ---- one row ---- */

/* Copy the pool out as candidates, without the row itself and hidden ones: nothing new links to a
 * row that is waiting to be freed. Rows of this very batch are hidden too, but new. */
static size_t take_candidates(const peri_index *ix, pe_graph_worker *w, const pe_layer *l,
                              uint32_t self)
{
    const pe_graph *g = pe_graph_of(ix);
    size_t n = 0;
    for (size_t i = 0; i < w->beam.n; i++) {
        uint32_t node = w->beam.node[i];
        if (node != self && !(g->n_dead && pe_graph_is_gone(g, pe_layer_slot(l, node))))
            w->cands[n++] = (pe_cand){w->beam.key[i], node};
    }
    return n;
}

/* A node whose row equals this one, bit for bit, among the nearest; PE_NIL when none. */
static uint32_t find_same(const peri_index *ix, const pe_graph_worker *w, uint32_t slot, size_t n)
{
    const unsigned char *row = pe_array_at(&ix->rows.rows, slot);
    for (size_t i = 0; i < n && i < 4; i++)
        if (memcmp(row, pe_array_at(&ix->rows.rows, w->cands[i].slot), ix->rows.rows.stride) == 0)
            return w->cands[i].slot;
    return PE_NIL;
}

/* Write a new node's own list; others may have linked to it by now and added themselves. */
static void write_links(const pe_pruner *p, pe_locks *locks, uint32_t node, const uint32_t *picked,
                        size_t n)
{
    uint32_t list[PE_DEGREE_MAX + 1], had[PE_DEGREE_MAX + 1];
    pe_lock(locks, node);
    size_t n_had = pe_list_read(p->layer, node, had), used = n;
    memcpy(list, picked, n * sizeof *list);
    for (size_t i = 0; i < n_had; i++) {
        size_t j = 0;
        while (j < n && picked[j] != (had[i] & ~PE_SAME))
            j++;
        if (used < p->layer->degree && j == n)
            list[used++] = had[i];
        else if (had[i] & PE_SAME) /* a chain stays, whatever else has to go */
            list[j < n ? j : used - 1] = had[i];
    }
    pe_list_write(p->layer, node, list, used);
    pe_unlock(locks, node);
}

/* Link a node into its layer: its own list first, then the way back. */
static void link_node(const pe_pruner *p, pe_locks *locks, uint32_t node, const pe_cand *cands,
                      size_t n_cands, const uint32_t *picked, size_t n)
{
    write_links(p, locks, node, picked, n);
    for (size_t i = 0, c = 0; i < n; i++) {
        while (c < n_cands && cands[c].slot != picked[i])
            c++;
        pe_link_add(p, locks, picked[i], node, cands[c].d);
    }
    /* Its neighbours may all have pruned it away again: one of them must keep it (G4). */
    int kept = pe_layer_into(p->layer, node) > 0;
    for (size_t i = 0; i < n && !kept; i++)
        kept = pe_link_force(p->layer, locks, picked[i], node, 0);
    for (size_t i = 0; i < n && !kept; i++)
        kept = pe_link_force(p->layer, locks, picked[i], node, 1);
}

/* The layers above the dense one, under their mutex: search downwards, link upwards. */
static void insert_upper(peri_index *ix, pe_graph_worker *w, const pe_view *view, const pe_point *p,
                         uint32_t slot, uint32_t level)
{
    pe_graph *g = pe_graph_of(ix);
    uint64_t entry = pe_graph_entry(g);
    uint32_t limit = atomic_load_explicit(&ix->slots.readable, memory_order_acquire);
    uint32_t down = slot;
    for (uint32_t l = 1; l <= level; l++) {
        pe_layer *layer = &g->layer[l];
        int fresh = g->n_spare[l] == 0;
        uint32_t node = fresh ? layer->count : g->spare[l][--g->n_spare[l]];
        if (!fresh)
            pe_layer_clear(layer, node);
        pe_link *words = (pe_link *)pe_array_at(&layer->nodes, node);
        pe_link_set(&words[0], slot);
        pe_link_set(&words[1], down);
        if (entry != PE_GRAPH_NO_ENTRY && l <= entry >> 32) {
            float key;
            uint32_t from = pe_graph_descend(g, &w->beam, view, p, limit, entry, l, &key);
            pe_beam_query q = {.layer = layer,
                               .limit = layer->count,
                               .view = view,
                               .point = p,
                               .ef = g->ef_construction / 2 + 1,
                               .entries = &from,
                               .n_entries = 1};
            /* Room was reserved for a larger layer. */
            (void)pe_beam_search(&w->beam, &q);
            pe_pruner prune = pe_graph_pruner(ix, view, w, l);
            size_t n = take_candidates(ix, w, layer, node);
            size_t kept = pe_prune(&prune, w->cands, n, g->m, 0, w->picked);
            if (fresh)
                atomic_store_explicit(&layer->count, node + 1, memory_order_release);
            link_node(&prune, &g->locks, node, w->cands, n, w->picked, kept);
        } else if (fresh) {
            atomic_store_explicit(&layer->count, node + 1, memory_order_release);
        }
        down = node;
    }
    if (entry == PE_GRAPH_NO_ENTRY || level > entry >> 32)
        atomic_store_explicit(&g->entry, (uint64_t)level << 32 | down, memory_order_release);
}

void pe_graph_find(peri_index *ix, pe_graph_worker *w, const pe_view *view, const pe_point *p,
                   uint32_t slot)
{
    pe_graph *g = pe_graph_of(ix);
    uint32_t limit = atomic_load_explicit(&ix->slots.readable, memory_order_acquire);
    uint32_t from[1 + PE_GRAPH_SEEDS];
    size_t n = 1;
    float key;
    from[0] = pe_graph_descend(g, &w->beam, view, p, limit, pe_graph_entry(g), 0, &key);
    if (g->seeds) {
        pe_rows_get(&ix->rows, slot, w->row, 0);
        n += g->seeds(ix, w->row, limit, from + 1);
    }
    pe_beam_query q = {.layer = &g->layer[0],
                       .limit = limit,
                       .view = view,
                       .point = p,
                       .ef = g->ef_construction,
                       .entries = from,
                       .n_entries = n};
    (void)pe_beam_search(&w->beam, &q); /* room was reserved: it cannot fail */
}

int pe_graph_link_dense(peri_index *ix, pe_graph_worker *w, const pe_view *view, const pe_point *p,
                        uint32_t slot)
{
    pe_graph *g = pe_graph_of(ix);
    pe_graph_find(ix, w, view, p, slot);
    size_t n = take_candidates(ix, w, &g->layer[0], slot);
    uint32_t same = find_same(ix, w, slot, n);
    if (same != PE_NIL) {
        pe_link_same(&g->layer[0], &g->locks, same, slot);
        if (g->n_dead)
            pe_graph_mend_chain(ix, slot);
        return 0;
    }
    pe_pruner prune = pe_graph_pruner(ix, view, w, 0);
    size_t kept = pe_prune(&prune, w->cands, n, g->m_max, 0, w->picked);
    link_node(&prune, &g->locks, slot, w->cands, n, w->picked, kept);
    return 1;
}

static void insert_one(peri_index *ix, pe_graph_worker *w, uint32_t slot, uint32_t level)
{
    pe_graph *g = pe_graph_of(ix);
    pe_view view = pe_graph_build_view(ix);
    float *row = w->scratch;
    pe_point p = pe_view_point(&ix->rows, &view, slot, row);
    uint64_t entry = pe_graph_entry(g);
    if (entry == PE_GRAPH_NO_ENTRY) {
        pthread_mutex_lock(&g->upper);
        entry = pe_graph_entry(g);
        if (entry == PE_GRAPH_NO_ENTRY)
            insert_upper(ix, w, &view, &p, slot, level);
        pthread_mutex_unlock(&g->upper);
        if (entry == PE_GRAPH_NO_ENTRY)
            return;
    }
    if (pe_graph_link_dense(ix, w, &view, &p, slot) == 0)
        return; /* reached through the row that it equals */
    if (level > 0) {
        pthread_mutex_lock(&g->upper);
        insert_upper(ix, w, &view, &p, slot, level);
        pthread_mutex_unlock(&g->upper);
    }
}

/* ---- a batch ---- */

typedef struct batch {
    peri_index *ix;
    const uint32_t *slots;
    size_t n;
    _Atomic size_t next, finished;
    uint64_t first_draw;
    pe_progress *progress;
} batch;

static void insert_worker(void *ctx, unsigned worker)
{
    batch *b = ctx;
    pe_graph *g = pe_graph_of(b->ix);
    while (!atomic_load_explicit(&b->progress->cancelled, memory_order_relaxed)) {
        size_t i = atomic_fetch_add(&b->next, 1);
        if (i >= b->n)
            return;
        insert_one(b->ix, &g->workers[worker], b->slots[i],
                   pe_graph_level_of(g, b->first_draw + i));
        atomic_fetch_add(&b->finished, 1);
        pe_progress_add(b->progress, worker, 1);
    }
}

peri_status pe_graph_insert(peri_index *ix, const uint32_t *slots, size_t n, pe_progress *progress,
                            unsigned workers, size_t *done)
{
    pe_graph *g = pe_graph_of(ix);
    batch b = {ix, slots, n, 0, 0, g->drawn, progress};
    uint32_t count = pe_slots_count(&ix->slots);
    for (size_t i = 0; i < n; i++) {
        for (; count < slots[i]; count++) { /* passed over: no node, nobody may link to it */
            pe_layer_clear(&g->layer[0], count);
            pe_graph_set_gone(g, count, 1);
        }
        pe_layer_clear(&g->layer[0], slots[i]);
        pe_graph_set_gone(g, slots[i], 0);
        count = slots[i] >= count ? slots[i] + 1 : count;
    }
    if (n == 1)
        workers = 1;
    peri_status status = PERI_ERR_NOMEM;
    if (pe_graph_at_once(ix, n)) {
        status = pe_graph_insert_bulk(ix, slots, n, progress, workers);
        if (status == PERI_OK)
            b.finished = n;
        else if (status != PERI_ERR_NOMEM)
            b.next = n;
    }
    /* Without the room for a build at once the rows go in one by one. */
    if (status == PERI_ERR_NOMEM)
        pe_team_run(workers, insert_worker, &b);
    /* Rows are taken in order and each one taken is finished: what is in is a prefix. */
    *done = b.finished;
    g->drawn += *done;
    for (size_t i = *done; i < n; i++)
        pe_graph_set_gone(g, slots[i], 1); /* they are no nodes: nobody may link to them */
    /* Two workers may each have dropped what they took to be one of two links to a row. */
    if (workers > 1)
        pe_graph_link_orphans(ix, count);
    /* A batch that makes up a good part of the index pays for a look at all of it. */
    if (*done == n && n >= CONNECT_ROWS && n >= count / 8)
        PE_TRY(pe_graph_connect(ix, count));
    return n >= CONNECT_ROWS ? pe_graph_refresh(ix, count, progress, workers) : PERI_OK;
}
