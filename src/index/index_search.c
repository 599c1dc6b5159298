/* One query from the caller's floats to the caller's hits.
 *
 * The plan: with few allowed ids, measure just those; otherwise let the kind search, with the
 * filter inside; re-rank what it found by codes on the rows; make sure that each id still names
 * its slot; and where fewer than k came back though more may exist, scan exactly. So k hits come
 * whenever k exist. */
#define _GNU_SOURCE
#include "index/index.h"

#include <math.h>
#include <stdlib.h>

/* Below this many allowed rows, or this part of all, measuring each is cheaper than walking. */
enum { FEW_ALLOWED = 1024 };
#define SMALL_SHARE 0.02
/* A range search asks for this many first, and for more as long as all lie inside. */
enum { RANGE_FIRST = 64 };

peri_status pe_query_check(const peri_index *ix, const peri_query *q)
{
    return ix ? pe_query_check_fields(q) : pe_fail(PERI_ERR_ARG, "index is NULL");
}

peri_status pe_query_check_fields(const peri_query *q)
{
    if (!q)
        return pe_fail(PERI_ERR_ARG, "query is NULL");
    if (q->struct_size < sizeof *q)
        return pe_fail(PERI_ERR_ARG, "peri_query.struct_size is %u, expected %zu or more",
                       q->struct_size, sizeof *q);
    if (q->k == 0)
        return pe_fail(PERI_ERR_ARG, "k is 0, expected 1 or more");
    if (q->target_recall != 0 && !(q->target_recall >= 0.5f && q->target_recall <= 0.999f))
        return pe_fail(PERI_ERR_CONFIG, "target_recall is %g, expected 0.5 to 0.999",
                       (double)q->target_recall);
    if (q->has_max_distance && q->max_distance != q->max_distance)
        return pe_fail(PERI_ERR_CONFIG, "max_distance is NaN");
    return PERI_OK;
}

peri_status pe_index_effort(const peri_index *ix, const peri_query *q, uint32_t *effort)
{
    *effort = q->effort ? q->effort : ix->kind->effort ? ix->kind->effort(ix) : 0;
    if (q->target_recall == 0 || !(ix->kind->caps & PERI_CAP_EFFORT))
        return PERI_OK;
    const pe_curve *c = atomic_load_explicit(&ix->curve, memory_order_acquire);
    if (!c && pe_slots_live(&ix->slots) < PE_CURVE_ROWS) {
        *effort = PE_CURVE_ROWS; /* too few rows to measure: look at nearly all */
        return PERI_OK;
    }
    if (!c)
        return pe_fail(PERI_ERR_STATE,
                       "target_recall needs the curve that peri_index_maintain measures");
    *effort = pe_curve_effort(c, q->target_recall);
    return PERI_OK;
}

/* Measure candidates found by code again, on the rows, and sort them. */
static peri_status rerank(pe_search *s)
{
    pe_scratch *r = s->scratch;
    PE_TRY(pe_scratch_slots(r, s->n));
    for (size_t i = 0; i < s->n; i++) {
        r->slots[i] = r->cands[i].slot;
        PE_TRY(pe_index_touch(s->ix, r->slots[i]));
    }
    pe_view view = pe_rows_view(&s->ix->rows);
    pe_view_keys(&view, &s->query->row, r->slots, s->n, r->keys);
    for (size_t i = 0; i < s->n; i++)
        r->cands[i].d = r->keys[i];
    pe_cand_sort(r->cands, s->n);
    s->by_code = 0;
    return PERI_OK;
}

static int compare_ids(const void *a, const void *b, void *ctx)
{
    const pe_cand *x = a, *y = b;
    uint64_t i = pe_slots_id(ctx, x->slot), j = pe_slots_id(ctx, y->slot);
    return i < j ? -1 : i > j;
}

/* Old and new row of an id may both have been found: one of them stays. */
static void drop_twins(pe_search *s)
{
    const pe_slots *slots = &s->ix->slots;
    pe_cand *c = s->scratch->cands;
    size_t kept = 0;
    qsort_r(c, s->n, sizeof *c, compare_ids, (void *)(uintptr_t)slots);
    for (size_t i = 0; i < s->n; i++)
        if (kept == 0 || pe_slots_id(slots, c[kept - 1].slot) != pe_slots_id(slots, c[i].slot))
            c[kept++] = c[i];
    s->n = kept;
    pe_cand_sort(c, kept);
}

/* An id may have moved to another slot, or gone, since its slot was found: measure the new one. */
static peri_status settle(pe_search *s)
{
    const pe_slots *slots = &s->ix->slots;
    pe_view view = pe_rows_view(&s->ix->rows);
    size_t kept = 0, had = s->n;
    int moved = 0;
    for (size_t i = 0; i < s->n; i++) {
        pe_cand c = s->scratch->cands[i];
        uint32_t now = pe_slots_find(slots, pe_slots_id(slots, c.slot));
        if (now == PE_NO_SLOT)
            continue;
        if (now != c.slot) {
            PE_TRY(pe_index_touch(s->ix, now));
            view =
                pe_rows_view(&s->ix->rows); /* it may lie in memory that is newer than the view */
            c = (pe_cand){pe_view_key(&view, &s->query->row, now), now};
            moved = 1;
        }
        s->scratch->cands[kept++] = c;
    }
    s->n = kept;
    if (moved)
        drop_twins(s);
    s->lost = s->n < had;
    return PERI_OK;
}

/* The allowed ids that are here, as slots; by measuring each of them. */
static peri_status search_allowed(pe_search *s, const peri_idset *allow)
{
    uint64_t id;
    size_t n = 0, cursor = 0, count = (size_t)peri_idset_count(allow);
    PE_TRY(pe_scratch_slots(s->scratch, count + 1));
    while (pe_idset_next(allow, &cursor, &id)) {
        uint32_t slot = pe_slots_find(&s->ix->slots, id);
        if (slot != PE_NO_SLOT) /* the view is taken after this: it holds them all */
            s->scratch->slots[n++] = slot;
    }
    return pe_exact_list(s, s->scratch->slots, n);
}

/* Candidates tie by slot, hits by id. */
static void order_ties(const pe_search *s)
{
    pe_cand *c = s->scratch->cands;
    for (size_t first = 0, end; first < s->n; first = end) {
        for (end = first + 1; end < s->n && c[end].d == c[first].d;)
            end++;
        if (end - first > 1)
            qsort_r(c + first, end - first, sizeof *c, compare_ids,
                    (void *)(uintptr_t)&s->ix->slots);
    }
}

static size_t hits_from(const pe_search *s, const peri_query *q, peri_hit *hits)
{
    size_t n = 0;
    order_ties(s);
    for (size_t i = 0; i < s->n && n < q->k; i++) {
        pe_cand c = s->scratch->cands[i];
        float distance = pe_rows_distance(&s->ix->space, c.d);
        if (q->has_max_distance && distance > q->max_distance)
            continue;
        hits[n++] = (peri_hit){pe_slots_id(&s->ix->slots, c.slot), distance, 0};
    }
    /* Keys that differ may give one distance. */
    for (size_t i = 1; i < n; i++) {
        peri_hit h = hits[i];
        size_t j = i;
        for (; j > 0 && (hits[j - 1].distance > h.distance ||
                         (hits[j - 1].distance == h.distance && hits[j - 1].id > h.id));
             j--)
            hits[j] = hits[j - 1];
        hits[j] = h;
    }
    return n;
}

/* Where rows and codes lie. A kind measures by what it saw when it began; a row that came meanwhile
 * may lie elsewhere, and keys of old memory are good enough to walk by, but are no distances. */
typedef struct places {
    const void *rows, *codes, *table;
} places;

static places places_of(const pe_search *s)
{
    const pe_rows *r = &s->ix->rows;
    const pe_codes *codes = pe_rows_codes(r);
    places p = {atomic_load_explicit(&r->rows.chunks, memory_order_acquire), codes, NULL};
    if (codes)
        p.table = atomic_load_explicit(&codes->array.chunks, memory_order_acquire);
    return p;
}

static int still(const pe_search *s, const places *before)
{
    places now = places_of(s);
    return now.rows == before->rows && now.codes == before->codes && now.table == before->table;
}

/* Let the kind search; where a radius is full of rows, search wider until it is not. */
static peri_status search_kind(pe_search *s, const peri_query *q)
{
    for (;;) {
        places before = places_of(s);
        PE_TRY(s->ix->kind->search(s));
        const pe_codes *codes = s->query->codes;
        int same = still(s, &before);
        if (s->by_code && same && s->query->code_exact &&
            atomic_load_explicit(&codes->inexact, memory_order_acquire) == 0) {
            float scale = pe_codes_scale(codes);
            for (size_t i = 0; i < s->n; i++)
                s->scratch->cands[i].d *= scale;
            s->by_code = 0;
        }
        if (s->by_code || !same)
            PE_TRY(rerank(s));
        PE_TRY(settle(s));
        int full = s->n > 0 && s->n >= s->want && s->scratch->cands[s->n - 1].d <= s->max_key;
        if (!q->has_max_distance || !full || s->want >= q->k)
            return PERI_OK;
        s->want = s->want * 2 < q->k ? s->want * 2 : q->k;
        s->effort = s->effort * 2;
        PE_TRY(pe_scratch_cands(s->scratch, s->want));
    }
}

/* Every row is looked at; what a writer takes away meanwhile is made up for by asking for more. */
static peri_status search_all(pe_search *s, const peri_query *q)
{
    enum { TRIES = 8, MORE = 16 };
    size_t want = q->k;
    for (int try = 0; try < TRIES; try++) {
        s->want = want < s->limit ? want : s->limit;
        PE_TRY(pe_scratch_cands(s->scratch, s->want + 1));
        PE_TRY(pe_exact_search(s));
        size_t found = s->n;
        PE_TRY(settle(s));
        if (s->n >= q->k || found < s->want || s->want == s->limit)
            break;
        want += found - s->n + MORE;
    }
    return PERI_OK;
}

/* Candidates to ask a kind for. */
static size_t wanted(const peri_index *ix, const pe_prepared *p, const peri_query *q,
                     uint32_t limit, uint32_t effort)
{
    size_t want = q->k;
    if (p->codes && !p->code_exact) {
        size_t deep = q->rerank ? q->rerank : (size_t)q->k * 2 + 8;
        if (!q->rerank && deep > effort && effort >= q->k)
            deep = effort;
        want = deep > want ? deep : want;
    }
    /* Rows replaced while the search runs leave gaps. */
    if (atomic_load_explicit(&ix->slots.churned, memory_order_acquire))
        want += 4;
    return want > limit ? limit : want;
}

peri_status pe_index_search_inside(const peri_index *ix, pe_scratch *scratch, const float *row,
                                   const peri_query *q, uint32_t effort, peri_hit *hits,
                                   size_t *n_hits)
{
    float norm;
    pe_prepared prepared;
    *n_hits = 0;
    PE_TRY(pe_rows_check(&ix->rows, row, "query", 0, &norm));
    uint32_t live = pe_slots_live(&ix->slots);
    if (live == 0)
        return PERI_OK;
    pe_accept accept = {&ix->slots, q->allow, q->filter, q->filter_ctx};
    int filtered = q->allow || q->filter;
    pe_search s = {.ix = ix, .scratch = scratch, .query = &prepared, .effort = effort, .share = 1};
    s.limit = atomic_load_explicit(&ix->slots.readable, memory_order_acquire);
    s.max_key = q->has_max_distance ? pe_rows_key_of(&ix->space, q->max_distance) : INFINITY;
    int hidden = pe_slots_count(&ix->slots) != live ||
                 atomic_load_explicit(&ix->slots.churned, memory_order_acquire);
    s.accept = filtered || hidden ? &accept : NULL;
    pe_rows_prepare(&ix->rows, row, norm, scratch->query, &prepared);
    s.want = wanted(ix, &prepared, q, s.limit, effort);
    if (q->has_max_distance && s.want > effort && s.want > RANGE_FIRST)
        s.want = effort > RANGE_FIRST ? effort : RANGE_FIRST; /* k is only the room for hits */
    PE_TRY(pe_scratch_cands(scratch, s.want + 1));

    if (q->allow) {
        uint64_t allowed = peri_idset_count(q->allow);
        s.share = (double)allowed / (double)live;
        if (allowed <= FEW_ALLOWED || s.share <= SMALL_SHARE) {
            PE_TRY(search_allowed(&s, q->allow));
            *n_hits = hits_from(&s, q, hits);
            return PERI_OK;
        }
    }
    /* Asked for a good part of all rows, a scan is the shorter way. */
    PE_TRY(s.want * 4 >= live ? search_all(&s, q) : search_kind(&s, q));
    *n_hits = hits_from(&s, q, hits);
    size_t possible = filtered ? q->k : q->k < live ? q->k : live;
    int exact = (ix->kind->caps & PERI_CAP_EXACT) != 0;
    if (*n_hits < possible && (exact ? s.lost : filtered || !q->has_max_distance)) {
        s.accept = &accept;
        PE_TRY(search_all(&s, q));
        *n_hits = hits_from(&s, q, hits);
    }
    return PERI_OK;
}

peri_status peri_index_search(const peri_index *ix, const float *row, const peri_query *q,
                              peri_hit *hits, size_t *n_hits)
{
    pe_reader *place;
    pe_scratch *scratch;
    uint32_t effort;
    PE_TRY(pe_query_check(ix, q));
    if (!row || !hits || !n_hits)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", !row ? "row" : !hits ? "hits" : "n_hits");
    PE_TRY(pe_index_enter(ix, &place, &scratch));
    peri_status status = pe_index_effort(ix, q, &effort);
    if (status == PERI_OK)
        status = pe_index_search_inside(ix, scratch, row, q, effort, hits, n_hits);
    pe_epoch_exit(place);
    return status;
}

typedef struct many {
    const peri_index *ix;
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
    enum { BATCH = 16 };
    pe_reader *place = NULL;
    pe_scratch *scratch;
    uint32_t effort;
    peri_status status = PERI_OK;
    while (status == PERI_OK && !m->error.failed) {
        size_t first = atomic_fetch_add(&m->next, BATCH);
        if (first >= m->n)
            break;
        size_t end = first + BATCH < m->n ? first + BATCH : m->n;
        /* Leave and enter again now and then, so that a writer can reclaim. */
        status = pe_index_enter(m->ix, &place, &scratch);
        if (status != PERI_OK)
            break;
        status = pe_index_effort(m->ix, m->q, &effort);
        for (size_t i = first; i < end && status == PERI_OK; i++)
            status = pe_index_search_inside(m->ix, scratch, m->rows + i * m->ix->space.dim, m->q,
                                            effort, m->hits + i * m->q->k, &m->n_hits[i]);
        pe_epoch_exit(place);
        if (pe_progress_add(&m->progress, worker, end - first))
            break;
    }
    pe_first_error_set(&m->error, status);
}

peri_status peri_index_search_many(const peri_index *ix, size_t n, const float *rows,
                                   const peri_query *q, const peri_task *task, peri_hit *hits,
                                   size_t *n_hits)
{
    many m = {.ix = ix, .n = n, .rows = rows, .q = q, .hits = hits, .n_hits = n_hits};
    PE_TRY(pe_query_check(ix, q));
    if (n && (!rows || !hits || !n_hits))
        return pe_fail(PERI_ERR_ARG, "%s is NULL", !rows ? "rows" : !hits ? "hits" : "n_hits");
    PE_TRY(pe_progress_init(&m.progress, task));
    if (ix->kind->search_many) {
        peri_status status = ix->kind->search_many(ix, n, rows, q, task, hits, n_hits);
        if (status != PERI_ERR_UNSUPPORTED)
            return status;
    }
    pe_progress_phase(&m.progress, "search", n);
    unsigned threads = pe_task_threads(task);
    pe_team_run(threads < n ? threads : (unsigned)(n ? n : 1), many_worker, &m);
    PE_TRY(pe_first_error_get(&m.error));
    return pe_progress_end(&m.progress);
}
