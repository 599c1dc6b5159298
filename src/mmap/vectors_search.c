/* Searching: the index for what it has taken in, an exact scan for the rest, merged.
 *
 * A search takes the count when it begins and sees the rows of that moment (V3). The index hears of
 * deaths only in maintain; until then its finds go through a filter, which is set only when it may
 * turn one away. Rows above the index's mark are measured one and all: what the index finds among
 * them, because maintain is at work, is left to the scan. */
#include "mmap/vectors_parts.h"

#include <math.h>

enum { BLOCK = 256, FEW_ALLOWED = 1024 };

/* Room that a reader keeps at its place in the epoch. */
typedef struct vscratch {
    pe_host *host;
    void *query;
    size_t query_room;
    pe_cand *cands;
    size_t cands_room;
    peri_hit *hits; /* what the index found */
    size_t hits_room;
} vscratch;

void pe_vscratch_destroy(void *scratch)
{
    vscratch *s = scratch;
    if (!s)
        return;
    pe_free(s->host, s->query, s->query_room);
    pe_free(s->host, s->cands, s->cands_room * sizeof *s->cands);
    pe_free(s->host, s->hits, s->hits_room * sizeof *s->hits);
    pe_free(s->host, s, sizeof *s);
}

static peri_status scratch_of(const peri_vectors *v, const pe_vreader *r, vscratch **out)
{
    vscratch *s = r->place->scratch;
    if (!s) {
        pe_host *host = (pe_host *)(uintptr_t)&v->host;
        size_t room = pe_rows_scratch(&v->space);
        s = pe_calloc(host, sizeof *s);
        void *query = s ? pe_alloc(host, room) : NULL;
        if (!query) {
            pe_free(host, s, sizeof *s);
            return PERI_ERR_NOMEM;
        }
        *s = (vscratch){.host = host, .query = query, .query_room = room};
        r->place->scratch = s;
    }
    *out = s;
    return PERI_OK;
}

typedef struct search {
    const pe_vgen *g;
    const peri_query *q;
    uint32_t count;
    vscratch *scratch;
    pe_prepared prepared;
    float max_key;
    pe_topk top;
} search;

static int allowed(const search *s, uint32_t slot)
{
    uint64_t id = s->g->id_base + slot;
    if (!pe_vgen_visible(s->g, slot, s->count))
        return 0;
    if (s->q->allow && !peri_idset_contains(s->q->allow, id))
        return 0;
    return !s->q->filter || s->q->filter(s->q->filter_ctx, id) != 0;
}

static void offer(search *s, float key, uint32_t slot)
{
    pe_cand c = {key, slot};
    if (key <= s->max_key && (s->top.n < s->top.k || pe_cand_before(c, s->top.heap[0])) &&
        allowed(s, slot))
        pe_topk_push(&s->top, c);
}

/* ---- exact ---- */

/* Rows [first, end), which lie side by side: one run of the kernel for each block. */
static peri_status scan(search *s, uint32_t first, uint32_t end)
{
    const pe_vgen *g = s->g;
    pe_view view = pe_rows_view(&g->rows);
    float keys[BLOCK];
    uint32_t slots[BLOCK];
    while (first < end) {
        uint32_t n = view.rows.mask + 1 - (first & view.rows.mask);
        n = n < BLOCK ? n : BLOCK;
        n = n < end - first ? n : end - first;
        PE_TRY(pe_vgen_verify(g, (uint64_t)first * g->stride, n * g->stride));
        view.dist.run(s->prepared.row.q, pe_rowview_at(&view.rows, first), view.rows.stride,
                      view.rows.dim, n, keys);
        if (view.form != PE_FORM_PLAIN) {
            for (uint32_t i = 0; i < n; i++)
                slots[i] = first + i;
            pe_view_correct(&view, &s->prepared.row, slots, n, keys);
        }
        float bound = pe_topk_bound(&s->top);
        for (uint32_t i = 0; i < n; i++)
            if (keys[i] <= bound) {
                offer(s, keys[i], first + i);
                bound = pe_topk_bound(&s->top);
            }
        first += n;
    }
    return PERI_OK;
}

/* Few allowed ids: measure just those. */
static peri_status scan_allowed(search *s)
{
    const pe_vgen *g = s->g;
    pe_view view = pe_rows_view(&g->rows);
    size_t cursor = 0;
    uint64_t id;
    while (pe_idset_next(s->q->allow, &cursor, &id)) {
        if (id < g->id_base || id - g->id_base >= s->count)
            continue;
        uint32_t slot = (uint32_t)(id - g->id_base);
        PE_TRY(pe_vgen_touch(g, slot));
        offer(s, pe_view_key(&view, &s->prepared.row, slot), slot);
    }
    return PERI_OK;
}

/* ---- hits ---- */

static int hit_before(const peri_hit *a, const peri_hit *b)
{
    return a->distance < b->distance || (a->distance == b->distance && a->id < b->id);
}

/* By distance, then by id: keys that differ may give one distance, so the order of the heap is
 * right but for a few neighbours. */
static size_t hits_from_top(search *s, peri_hit *hits)
{
    size_t n = 0;
    pe_topk_sort(&s->top);
    for (size_t i = 0; i < s->top.n; i++) {
        pe_cand c = s->top.heap[i];
        peri_hit h = {s->g->id_base + c.slot, pe_rows_distance(&s->g->rows.space, c.d), 0};
        if (s->q->has_max_distance && h.distance > s->q->max_distance)
            continue;
        size_t at = n++;
        for (; at > 0 && hit_before(&h, &hits[at - 1]); at--)
            hits[at] = hits[at - 1];
        hits[at] = h;
    }
    return n;
}

/* The n hits there are and m of the index, which are as well sorted. From the back, in place. */
static size_t merge_hits(peri_hit *hits, size_t n, const peri_hit *more, size_t m, size_t k)
{
    size_t a = 0, b = 0, kept = n + m < k ? n + m : k;
    while (a + b < kept) /* how many of each are in */
        if (b == m || (a < n && hit_before(&hits[a], &more[b])))
            a++;
        else
            b++;
    for (size_t to = kept; b > 0; to--)
        if (a > 0 && hit_before(&more[b - 1], &hits[a - 1]))
            hits[to - 1] = hits[--a];
        else
            hits[to - 1] = more[--b];
    return kept;
}

/* ---- with an index ---- */

static int keep(void *ctx, uint64_t slot)
{
    const search *s = ctx;
    return slot < s->count && allowed(s, (uint32_t)slot);
}

/* The index knows slots, not ids. Of what it finds, what lies below the mark counts. */
static peri_status ask_index(search *s, const pe_vindex *x, uint32_t mark, const float *row,
                             size_t *n)
{
    peri_query q = *s->q;
    peri_hit *hits = s->scratch->hits;
    size_t found, kept = 0;
    q.k = (uint32_t)s->top.k;
    int stale = atomic_load_explicit(&x->stale, memory_order_acquire) != 0;
    int moved = s->g->id_base != 0 && (q.allow || q.filter);
    if (stale || moved || atomic_load_explicit(&x->rows, memory_order_acquire) > s->count) {
        q.allow = NULL;
        q.filter = keep;
        q.filter_ctx = s;
    }
    PE_TRY(peri_index_search(x->ix, row, &q, hits, &found));
    for (size_t i = 0; i < found; i++)
        if (hits[i].id < mark) {
            hits[kept] = hits[i];
            hits[kept++].id += s->g->id_base;
        }
    *n = kept;
    return PERI_OK;
}

static peri_status search_inside(const peri_vectors *v, const pe_vreader *r, const pe_vindex *x,
                                 const float *row, const peri_query *q, peri_hit *hits,
                                 size_t *n_hits)
{
    float norm;
    search s = {.g = r->gen, .q = q, .count = r->count, .max_key = INFINITY};
    PE_TRY(scratch_of(v, r, &s.scratch));
    PE_TRY(pe_rows_check(&s.g->rows, row, "query", 0, &norm));
    size_t k = q->k < r->count ? q->k : r->count, found = 0;
    if (k == 0)
        return PERI_OK;
    PE_TRY(pe_grow(s.scratch->host, &s.scratch->cands, &s.scratch->cands_room, k,
                   sizeof *s.scratch->cands));
    if (q->has_max_distance)
        s.max_key = pe_rows_key_of(&v->space, q->max_distance);
    pe_topk_init(&s.top, s.scratch->cands, k);
    pe_rows_prepare(&s.g->rows, row, norm, s.scratch->query, &s.prepared);
    if (q->allow && peri_idset_count(q->allow) <= FEW_ALLOWED) {
        PE_TRY(scan_allowed(&s));
        *n_hits = hits_from_top(&s, hits);
        return PERI_OK;
    }
    uint32_t mark = x ? atomic_load_explicit(&x->rows, memory_order_acquire) : 0;
    mark = mark < r->count ? mark : r->count;
    if (mark) {
        PE_TRY(pe_grow(s.scratch->host, &s.scratch->hits, &s.scratch->hits_room, k,
                       sizeof *s.scratch->hits));
        PE_TRY(ask_index(&s, x, mark, row, &found));
    }
    PE_TRY(scan(&s, mark, r->count));
    *n_hits = merge_hits(hits, hits_from_top(&s, hits), s.scratch->hits, found, q->k);
    return PERI_OK;
}

static peri_status check_query(const float *row, const peri_query *q, const peri_hit *hits,
                               const size_t *n_hits)
{
    PE_TRY(pe_query_check_fields(q));
    if (!row || !hits || !n_hits)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", !row ? "row" : !hits ? "hits" : "n_hits");
    return PERI_OK;
}

peri_status peri_vectors_search(const peri_vectors *v, const float *row, const peri_query *q,
                                peri_hit *hits, size_t *n_hits)
{
    if (!v)
        return pe_fail(PERI_ERR_ARG, "vectors is NULL");
    PE_TRY(check_query(row, q, hits, n_hits));
    *n_hits = 0;
    pe_vreader r = {.place = pe_epoch_enter(&v->epoch)};
    /* Index, then generation, then count: the index is taken away before its generation is. */
    const pe_vindex *x = atomic_load_explicit(&v->index, memory_order_acquire);
    r.gen = atomic_load_explicit(&v->gen, memory_order_acquire);
    r.count = pe_vgen_count(r.gen);
    if (x && x->gen != r.gen)
        x = NULL;
    peri_status status = search_inside(v, &r, x, row, q, hits, n_hits);
    pe_vectors_leave(&r);
    return status;
}

/* ---- many ---- */

typedef struct many {
    const peri_vectors *v;
    size_t n;
    const float *rows;
    const peri_query *q;
    peri_hit *hits;
    size_t *n_hits;
    pe_progress progress;
    _Atomic size_t next;
    pe_first_error error;
} many;

static void many_worker(void *ctx, unsigned worker)
{
    many *m = ctx;
    peri_status status = PERI_OK;
    while (status == PERI_OK && !atomic_load_explicit(&m->error.failed, memory_order_relaxed)) {
        size_t i = atomic_fetch_add_explicit(&m->next, 1, memory_order_relaxed);
        if (i >= m->n)
            break;
        status = peri_vectors_search(m->v, m->rows + i * m->v->space.dim, m->q,
                                     m->hits + i * m->q->k, &m->n_hits[i]);
        if (pe_progress_add(&m->progress, worker, 1))
            break;
    }
    pe_first_error_set(&m->error, status);
}

peri_status peri_vectors_search_many(const peri_vectors *v, size_t n, const float *rows,
                                     const peri_query *q, const peri_task *task, peri_hit *hits,
                                     size_t *n_hits)
{
    many m = {.v = v, .n = n, .rows = rows, .q = q, .hits = hits, .n_hits = n_hits};
    if (!v)
        return pe_fail(PERI_ERR_ARG, "vectors is NULL");
    PE_TRY(n ? check_query(rows, q, hits, n_hits) : pe_query_check_fields(q));
    PE_TRY(pe_progress_init(&m.progress, task));
    pe_progress_phase(&m.progress, "search", n);
    unsigned threads = pe_task_threads(task);
    pe_team_run(threads < n ? threads : (unsigned)(n ? n : 1), many_worker, &m);
    PE_TRY(pe_first_error_get(&m.error));
    return pe_progress_end(&m.progress);
}
