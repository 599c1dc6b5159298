/* Queries: from the caller's entries to the caller's hits.
 *
 * Exact: walk every part's lists, collect what may be among the k best, score it on its forward
 * rows. Approximate: walk only the heaviest entries of the query over only the heaviest entries of
 * the rows (SINDI's pruning), and score the best of what that finds. */
#define _GNU_SOURCE
#include "sparse/sparse.h"

#include <math.h>
#include <stdlib.h>

enum { RERANK_MORE = 20, RERANK_TIMES = 3, LIMIT_MIN = 1024 };

static peri_status check_query(const peri_sparse *sx, const peri_query *q)
{
    if (!sx || !q)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", sx ? "q" : "sx");
    if (q->struct_size < sizeof *q)
        return pe_fail(PERI_ERR_ARG, "peri_query.struct_size is %u, expected %zu or more",
                       q->struct_size, sizeof *q);
    if (q->k == 0)
        return pe_fail(PERI_ERR_ARG, "k is 0, expected 1 or more");
    if (q->target_recall != 0)
        return pe_fail(PERI_ERR_UNSUPPORTED,
                       "a sparse index has no target_recall: choose effort (0 = exact)");
    if (q->effort && !sx->payload.marked)
        return pe_fail(PERI_ERR_UNSUPPORTED,
                       "effort %u, but the index keeps no lists for approximate search", q->effort);
    if (q->has_max_distance && q->max_distance != q->max_distance)
        return pe_fail(PERI_ERR_CONFIG, "max_distance is NaN");
    return PERI_OK;
}

/* ---- scratch ---- */

void pe_sparse_free_scratch(void *scratch)
{
    pe_sparse_scratch *r = scratch;
    if (!r)
        return;
    pe_sparse_made_free(&r->query);
    pe_free(r->host, r->cut, r->cut_room * sizeof *r->cut);
    pe_free(r->host, r->dense, r->dense_room * sizeof *r->dense);
    pe_free(r->host, r->places, r->places_room * sizeof *r->places);
    pe_free(r->host, r->matches, r->matches_room * sizeof *r->matches);
    pe_free(r->host, r->terms, r->terms_room * sizeof *r->terms);
    pe_free(r->host, r->cells, r->cells_room * sizeof *r->cells);
    pe_free(r->host, r->windows, r->windows_room * sizeof *r->windows);
    pe_free(r->host, r->rest, r->rest_room * sizeof *r->rest);
    pe_free(r->host, r->best, r->best_room * sizeof *r->best);
    pe_free(r->host, r->cands, r->cands_room * sizeof *r->cands);
    pe_free(r->host, r->words, r->words_room * sizeof *r->words);
    pe_free(r->host, r->accepted, r->accepted_room * sizeof *r->accepted);
    pe_free(r->host, r, sizeof *r);
}

/* A place in the epoch, and its scratch. */
static peri_status enter(const peri_sparse *sx, pe_reader **place, pe_sparse_scratch **scratch)
{
    pe_host *host = (pe_host *)(uintptr_t)&sx->host;
    pe_reader *r = pe_epoch_enter(&sx->epoch);
    if (!r->scratch) {
        pe_sparse_scratch *s = pe_calloc(host, sizeof *s);
        if (!s) {
            pe_epoch_exit(r);
            return PERI_ERR_NOMEM;
        }
        s->host = s->query.host = host;
        r->scratch = s;
    }
    *scratch = r->scratch;
    peri_status status = pe_grow(host, &(*scratch)->matches, &(*scratch)->matches_room,
                                 PERI_SPARSE_MAX_ENTRIES + 1, sizeof *(*scratch)->matches);
    if (status != PERI_OK) {
        pe_epoch_exit(r);
        return status;
    }
    *place = r;
    return PERI_OK;
}

/* What the filter lets through, once for all queries of a call; NULL without a filter. */
static peri_status accept(const pe_snapshot *snapshot, const peri_query *q,
                          pe_sparse_scratch *scratch, const pe_accepted **out)
{
    const pe_allow allow = {q->allow, q->filter, q->filter_ctx};
    *out = NULL;
    if (!q->allow && !q->filter)
        return PERI_OK;
    PE_TRY(pe_grow(scratch->host, &scratch->accepted, &scratch->accepted_room,
                   snapshot->n_parts + 1, sizeof *scratch->accepted));
    PE_TRY(pe_snapshot_accept(snapshot, &allow, scratch->host, scratch->accepted, &scratch->words,
                              &scratch->words_room));
    *out = scratch->accepted;
    return PERI_OK;
}

/* ---- one query ---- */

static void start(pe_sparse_search *s, size_t k)
{
    uint64_t live = s->snapshot->live;
    s->k = k < live ? k : (size_t)(live ? live : 1);
    s->n_best = s->n_cands = 0;
    s->limit = s->k * 8 > LIMIT_MIN ? s->k * 8 : LIMIT_MIN;
    s->bar = s->floor;
}

static int heavier(const void *a, const void *b)
{
    const pe_sparse_entry *x = a, *y = b;
    float i = fabsf(x->weight), j = fabsf(y->weight);
    if (i != j)
        return i > j ? -1 : 1;
    return x->term < y->term ? -1 : x->term > y->term;
}

static int ascending(const void *a, const void *b)
{
    const pe_sparse_entry *x = a, *y = b;
    return x->term < y->term ? -1 : x->term > y->term;
}

/* The `effort` heaviest entries of the query. */
static peri_status cut_query(pe_sparse_search *s, uint32_t effort, uint32_t *n)
{
    pe_sparse_scratch *r = s->scratch;
    *n = effort < s->n ? effort : s->n;
    PE_TRY(pe_grow(r->host, &r->cut, &r->cut_room, s->n + 1, sizeof *r->cut));
    if (s->n)
        memcpy(r->cut, s->query, s->n * sizeof *r->cut);
    if (*n == s->n)
        return PERI_OK;
    qsort(r->cut, s->n, sizeof *r->cut, heavier);
    qsort(r->cut, *n, sizeof *r->cut, ascending);
    return PERI_OK;
}

static int by_part(const void *a, const void *b)
{
    const pe_sparse_cand *x = a, *y = b;
    if (x->part != y->part)
        return x->part < y->part ? -1 : 1;
    return x->doc < y->doc ? -1 : x->doc > y->doc;
}

/* Give every candidate that still counts its score; the others leave. */
static peri_status score_candidates(pe_sparse_search *s)
{
    pe_sparse_cand *c = s->scratch->cands;
    size_t kept = 0, in = 0;
    for (size_t i = 0; i < s->n_cands; i++)
        if (c[i].high >= s->bar)
            c[in++] = c[i];
    if (in)
        qsort(c, in, sizeof *c, by_part);
    pe_forward_of f = {0};
    for (size_t i = 0; i < in; i++) {
        if (i == 0 || c[i].part != c[i - 1].part) {
            if (i)
                pe_sparse_end_part(s);
            PE_TRY(pe_sparse_begin_part(s, c[i].part, &f));
        }
        float score = c[i].low;
        if (!c[i].exact && !pe_sparse_score(s, &f, c[i].doc, &score))
            continue;
        pe_sparse_cand scored = c[i];
        scored.low = scored.high = score;
        scored.exact = 1;
        if (score >= s->floor)
            c[kept++] = scored;
    }
    if (in)
        pe_sparse_end_part(s);
    s->n_cands = kept;
    return PERI_OK;
}

static int nearest_first(const void *a, const void *b)
{
    const peri_hit *x = a, *y = b;
    if (x->distance != y->distance)
        return x->distance < y->distance ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static peri_status take_hits(pe_sparse_search *s, size_t k, peri_hit *hits, size_t *n_hits)
{
    pe_sparse_scratch *r = s->scratch;
    size_t n = s->n_cands;
    peri_hit *all = pe_alloc(r->host, n * sizeof *all);
    if (!all)
        return PERI_ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        const pe_sparse_cand *c = &r->cands[i];
        /* 0 - x: a score of 0 has the distance 0, not -0. */
        all[i] = (peri_hit){pe_part_id(&s->snapshot->parts[c->part], c->doc), 0 - c->low, 0};
    }
    qsort(all, n, sizeof *all, nearest_first);
    *n_hits = n < k ? n : k;
    memcpy(hits, all, *n_hits * sizeof *hits);
    pe_free(r->host, all, n * sizeof *all);
    return PERI_OK;
}

static peri_status search_exact(pe_sparse_search *s, const peri_query *q)
{
    start(s, q->k);
    for (uint32_t part = 0; part < s->snapshot->n_parts; part++)
        PE_TRY(pe_sparse_walk(s, part, PE_SET_ALL, s->query, s->n, 1));
    return score_candidates(s);
}

static peri_status search_approximate(pe_sparse_search *s, const peri_query *q)
{
    uint32_t n;
    float floor = s->floor;
    PE_TRY(cut_query(s, q->effort, &n));
    size_t pool = q->rerank ? q->rerank : (size_t)q->k * RERANK_TIMES + RERANK_MORE;
    s->floor = -INFINITY; /* what the cut lists say is too low */
    start(s, pool > q->k ? pool : q->k);
    for (uint32_t part = 0; part < s->snapshot->n_parts; part++)
        PE_TRY(pe_sparse_walk(s, part, PE_SET_MARKED, s->scratch->cut, n, 0));
    s->floor = floor;
    return score_candidates(s);
}

/* One query by a reader that is inside, its arguments checked but for the row. */
static peri_status search_inside(const peri_sparse *sx, const pe_snapshot *snapshot,
                                 const pe_accepted *accepted, pe_sparse_scratch *scratch,
                                 const peri_sparse_row *row, size_t number, const peri_query *q,
                                 peri_hit *hits, size_t *n_hits)
{
    pe_sparse_search s = {.sx = sx, .snapshot = snapshot, .accepted = accepted};
    *n_hits = 0;
    PE_TRY(pe_sparse_check_row(sx, row->terms, row->weights, row->n, "query", number,
                               &scratch->query));
    if (snapshot->live == 0)
        return PERI_OK;
    s.scratch = scratch;
    s.query = scratch->query.entries;
    s.n = scratch->query.n;
    s.floor = q->has_max_distance ? -q->max_distance : -INFINITY;
    PE_TRY(q->effort ? search_approximate(&s, q) : search_exact(&s, q));
    return take_hits(&s, q->k, hits, n_hits);
}

peri_status peri_sparse_search(const peri_sparse *sx, const peri_sparse_row *query,
                               const peri_query *q, peri_hit *hits, size_t *n_hits)
{
    pe_reader *place;
    pe_sparse_scratch *scratch;
    const pe_accepted *accepted;
    PE_TRY(check_query(sx, q));
    if (!query || !hits || !n_hits)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", !query ? "query" : !hits ? "hits" : "n_hits");
    PE_TRY(enter(sx, &place, &scratch));
    const pe_snapshot *now = pe_postings_now(&sx->postings);
    peri_status status = accept(now, q, scratch, &accepted);
    if (status == PERI_OK)
        status = search_inside(sx, now, accepted, scratch, query, 0, q, hits, n_hits);
    pe_epoch_exit(place);
    return status;
}

/* ---- many ---- */

typedef struct many {
    const peri_sparse *sx;
    const pe_snapshot *snapshot;
    const pe_accepted *accepted;
    const peri_sparse_rows *rows;
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
    pe_reader *place;
    pe_sparse_scratch *scratch;
    peri_status status = enter(m->sx, &place, &scratch);
    if (status != PERI_OK) {
        pe_first_error_set(&m->error, status);
        return;
    }
    while (status == PERI_OK && !m->error.failed) {
        size_t i = atomic_fetch_add(&m->next, 1);
        if (i >= m->rows->n)
            break;
        uint64_t first = m->rows->offsets[i];
        const peri_sparse_row row = {(size_t)(m->rows->offsets[i + 1] - first),
                                     m->rows->terms + first, m->rows->weights + first};
        status = search_inside(m->sx, m->snapshot, m->accepted, scratch, &row, i, m->q,
                               m->hits + i * m->q->k, &m->n_hits[i]);
        if (pe_progress_add(&m->progress, worker, 1))
            break;
    }
    pe_epoch_exit(place);
    pe_first_error_set(&m->error, status);
}

peri_status peri_sparse_search_many(const peri_sparse *sx, const peri_sparse_rows *queries,
                                    const peri_query *q, const peri_task *task, peri_hit *hits,
                                    size_t *n_hits)
{
    many m = {.sx = sx, .rows = queries, .q = q, .hits = hits, .n_hits = n_hits};
    pe_reader *place;
    pe_sparse_scratch *scratch;
    PE_TRY(check_query(sx, q));
    PE_TRY(pe_sparse_check_rows(queries, "queries"));
    if (queries->n && (!hits || !n_hits))
        return pe_fail(PERI_ERR_ARG, "%s is NULL", hits ? "n_hits" : "hits");
    PE_TRY(pe_progress_init(&m.progress, task));
    PE_TRY(enter(sx, &place, &scratch)); /* holds the snapshot and the filter's answer */
    m.snapshot = pe_postings_now(&sx->postings);
    peri_status status = accept(m.snapshot, q, scratch, &m.accepted);
    if (status == PERI_OK) {
        unsigned threads = pe_task_threads(task);
        size_t most = queries->n ? queries->n : 1;
        pe_progress_phase(&m.progress, "search", queries->n);
        pe_team_run(threads < most ? threads : (unsigned)most, many_worker, &m);
        status = pe_first_error_get(&m.error);
        if (status == PERI_OK)
            status = pe_progress_end(&m.progress);
    }
    pe_epoch_exit(place);
    return status;
}
