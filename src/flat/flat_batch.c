/* Many queries at once: the dot products of a block of queries with a block of rows by register
 * tiles, which runs near the peak of the arithmetic units instead of at the memory's pace.
 *
 * L2 comes from |q|^2 + |x|^2 - 2 <q, x>, which loses digits where both are large and near. So the
 * tiles only choose candidates, a few more than asked for; these are measured again one by one,
 * and a query whose last exact hit is not clear of what was left out, by the error that the
 * formula can have made, is answered by the plain scan. The answers are those of the scan. */
#include "flat/flat.h"
#include "base/checked.h"

#include <math.h>

enum {
    ROWS_BLOCK = 256,
    QUERY_BLOCK = 64,
    EXTRA = 12,         /* candidates beyond k */
    LEAST_QUERIES = 16, /* fewer do not fill the tiles */
    MOST_K = 256,
};

typedef struct tiles {
    const peri_index *ix;
    size_t n;
    const float *rows;
    const peri_query *q;
    peri_hit *hits;
    size_t *n_hits;
    pe_progress progress;
    _Atomic size_t next;
    pe_first_error error;
} tiles;

/* What one worker needs for a block of queries. */
typedef struct room {
    float *queries; /* QUERY_BLOCK rows, unit length under cosine */
    float *dots;    /* QUERY_BLOCK x ROWS_BLOCK */
    float *norms;   /* squared, of a block of rows */
    float *q_norms;
    pe_cand *cands; /* QUERY_BLOCK heaps */
    size_t bytes;
} room;

static peri_status make_room(room *r, pe_host *host, uint32_t dim, size_t keep)
{
    size_t queries = pe_round_up((size_t)QUERY_BLOCK * dim * 4, 64);
    size_t dots = (size_t)QUERY_BLOCK * ROWS_BLOCK * 4;
    size_t cands = pe_round_up(QUERY_BLOCK * keep * sizeof(pe_cand), 64);
    r->bytes = queries + dots + cands + (ROWS_BLOCK + QUERY_BLOCK) * 4;
    unsigned char *p = pe_alloc(host, r->bytes);
    if (!p)
        return PERI_ERR_NOMEM;
    r->queries = (float *)(void *)p;
    r->dots = (float *)(void *)(p + queries);
    r->cands = (pe_cand *)(void *)(p + queries + dots);
    r->norms = (float *)(void *)(p + queries + dots + cands);
    r->q_norms = r->norms + ROWS_BLOCK;
    return PERI_OK;
}

static float dot_self(const pe_rows *rows, const float *x, uint32_t dim)
{
    return -rows->kernels->dist[PE_OP_DOT][PE_ELEM_F32].one(x, x, dim);
}

/* Offer one block of keys to the heaps. */
static void offer(const tiles *t, room *r, pe_topk *tops, size_t n, uint32_t first, uint32_t m)
{
    int l2 = t->ix->space.metric == PERI_METRIC_L2;
    for (size_t i = 0; i < n; i++) {
        float *keys = r->dots + i * ROWS_BLOCK, bound = pe_topk_bound(&tops[i]);
        if (l2)
            for (uint32_t j = 0; j < m; j++)
                keys[j] = r->norms[j] + 2 * keys[j]; /* the kernel gives minus the product */
        for (uint32_t j = 0; j < m; j++)
            if (keys[j] < bound && !pe_slots_dead(&t->ix->slots, first + j)) {
                pe_topk_push(&tops[i], (pe_cand){keys[j], first + j});
                bound = pe_topk_bound(&tops[i]);
            }
    }
}

/* The first live slots from *first on, of n; *first moves past the dead before them. */
static uint32_t live_run(const pe_slots *s, uint32_t *first, uint32_t n)
{
    if (pe_slots_all_live(s, *first, n))
        return n;
    uint32_t end = *first + n;
    while (*first < end && pe_slots_dead(s, *first))
        ++*first;
    uint32_t live = 0;
    while (*first + live < end && !pe_slots_dead(s, *first + live))
        live++;
    return live;
}

static peri_status scan(const tiles *t, room *r, pe_topk *tops, size_t n, float *largest)
{
    const pe_rows *rows = &t->ix->rows;
    uint32_t dim = t->ix->space.dim, count = pe_slots_count(&t->ix->slots);
    pe_view view = pe_rows_view(rows); /* after the count: it covers all below */
    int bounded = t->ix->space.metric != PERI_METRIC_COSINE; /* norms differ */
    for (uint32_t first = 0; first < count;) {
        uint32_t in_chunk = view.rows.mask + 1 - (first & view.rows.mask);
        uint32_t m = count - first < ROWS_BLOCK ? count - first : ROWS_BLOCK;
        m = m < in_chunk ? m : in_chunk;
        m = live_run(&t->ix->slots, &first, m);
        if (m == 0)
            continue;
        for (uint32_t j = 0; t->ix->mapped_rows && j < m; j++)
            PE_TRY(pe_index_touch(t->ix, first + j));
        const float *x = (const float *)(const void *)pe_rowview_at(&view.rows, first);
        rows->kernels->tile_dot_f32(r->queries, dim, n, x, dim, m, dim, r->dots, ROWS_BLOCK);
        for (uint32_t j = 0; bounded && j < m; j++) {
            r->norms[j] = dot_self(rows, x + (size_t)j * dim, dim);
            *largest = r->norms[j] > *largest ? r->norms[j] : *largest;
        }
        offer(t, r, tops, n, first, m);
        first += m;
    }
    return PERI_OK;
}

/* Measure a query's candidates exactly; 0 when what was left out might belong among the k. */
static int settle(const tiles *t, pe_topk *top, const float *query, float q_norm, float largest,
                  size_t at)
{
    const peri_index *ix = t->ix;
    pe_view view = pe_rows_view(&ix->rows);
    uint32_t slots[MOST_K + EXTRA], dim = ix->space.dim;
    float keys[MOST_K + EXTRA];
    size_t k = t->q->k;
    int full = top->n == top->k;
    float worst = full ? top->heap[0].d : INFINITY;
    for (size_t i = 0; i < top->n; i++)
        slots[i] = top->heap[i].slot;
    view.dist.ids(query, &view.rows, slots, top->n, keys);
    for (size_t i = 0; i < top->n; i++)
        top->heap[i] = (pe_cand){keys[i], slots[i]};
    pe_cand_sort(top->heap, top->n);
    /* Ties go by id: where that is not the order of slots, the plain scan knows how. */
    if (full && top->heap[k - 1].d == top->heap[k].d &&
        !atomic_load_explicit(&ix->slots.direct, memory_order_acquire))
        return 0;
    size_t n = top->n < k ? top->n : k;
    if (full) {
        /* Both sums err by at most about dim / 8 units in the last place of |q| |x|. */
        float scale =
            ix->space.metric == PERI_METRIC_L2 ? q_norm + largest : sqrtf(q_norm * largest);
        float error = 2 * ((float)dim / 8 + 16) * 0x1p-24f * scale;
        float left_out = worst + (ix->space.metric == PERI_METRIC_L2 ? q_norm : 0) - error;
        if (!(top->heap[n - 1].d < left_out))
            return 0;
    }
    peri_hit *hits = t->hits + at * k;
    for (size_t i = 0; i < n; i++) {
        uint64_t id = pe_slots_id(&ix->slots, top->heap[i].slot);
        if (pe_slots_find(&ix->slots, id) != top->heap[i].slot)
            return 0; /* moved meanwhile: the plain scan sorts it out */
        peri_hit h = {id, pe_rows_distance(&ix->space, top->heap[i].d), 0};
        size_t j = i;
        for (; j > 0 && (hits[j - 1].distance > h.distance ||
                         (hits[j - 1].distance == h.distance && hits[j - 1].id > h.id));
             j--)
            hits[j] = hits[j - 1];
        hits[j] = h;
    }
    t->n_hits[at] = n;
    return 1;
}

static peri_status answer_block(const tiles *t, room *r, pe_scratch *scratch, size_t first,
                                size_t n)
{
    const peri_index *ix = t->ix;
    uint32_t dim = ix->space.dim;
    size_t keep = t->q->k + EXTRA;
    pe_topk tops[QUERY_BLOCK];
    float largest = ix->space.metric == PERI_METRIC_COSINE ? 1.001f : 0;
    for (size_t i = 0; i < n; i++) {
        const float *query = t->rows + (first + i) * dim;
        float norm;
        pe_prepared prepared;
        PE_TRY(pe_rows_check(&ix->rows, query, "query", first + i, &norm));
        pe_rows_prepare(&ix->rows, query, norm, scratch->query, &prepared);
        memcpy(r->queries + i * dim, prepared.row.q, (size_t)dim * sizeof(float));
        r->q_norms[i] = dot_self(&ix->rows, r->queries + i * dim, dim);
        pe_topk_init(&tops[i], r->cands + i * keep, keep);
    }
    PE_TRY(scan(t, r, tops, n, &largest));
    for (size_t i = 0; i < n; i++)
        if (!settle(t, &tops[i], r->queries + i * dim, r->q_norms[i], largest, first + i))
            PE_TRY(pe_index_search_inside(ix, scratch, t->rows + (first + i) * dim, t->q, 0,
                                          t->hits + (first + i) * t->q->k, &t->n_hits[first + i]));
    return PERI_OK;
}

static void worker_main(void *ctx, unsigned worker)
{
    tiles *t = ctx;
    room r;
    pe_host *host = (pe_host *)(uintptr_t)&t->ix->host;
    peri_status status = make_room(&r, host, t->ix->space.dim, t->q->k + EXTRA);
    int have_room = status == PERI_OK;
    while (status == PERI_OK && !t->error.failed) {
        size_t first = atomic_fetch_add(&t->next, QUERY_BLOCK);
        if (first >= t->n)
            break;
        size_t n = t->n - first < QUERY_BLOCK ? t->n - first : QUERY_BLOCK;
        pe_reader *place;
        pe_scratch *scratch;
        status = pe_index_enter(t->ix, &place, &scratch);
        if (status != PERI_OK)
            break;
        status = answer_block(t, &r, scratch, first, n);
        pe_epoch_exit(place);
        if (pe_progress_add(&t->progress, worker, n))
            break;
    }
    if (have_room)
        pe_free(host, r.queries, r.bytes);
    pe_first_error_set(&t->error, status);
}

peri_status pe_flat_search_many(const peri_index *ix, size_t n, const float *rows,
                                const peri_query *q, const peri_task *task, peri_hit *hits,
                                size_t *n_hits)
{
    if (ix->rows.elem != PE_ELEM_F32 || q->allow || q->filter || q->has_max_distance ||
        q->k > MOST_K || n < LEAST_QUERIES)
        return PERI_ERR_UNSUPPORTED;
    tiles t = {.ix = ix, .n = n, .rows = rows, .q = q, .hits = hits, .n_hits = n_hits};
    PE_TRY(pe_progress_init(&t.progress, task));
    pe_progress_phase(&t.progress, "search", n);
    pe_team_run(pe_task_threads(task), worker_main, &t);
    PE_TRY(pe_first_error_get(&t.error));
    return pe_progress_end(&t.progress);
}
