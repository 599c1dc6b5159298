/* A search from query to hits.
 *
 *   parse                  text_parse.c
 *   terms -> leaves        prefixes become the terms that begin so; each term is one leaf
 *   weigh                  live document frequencies, idf, one scale for all (text_weight.c)
 *   part by part           OR or AND of terms: text_scan.c; anything else: text_match.c
 *   best k                 by a heap of sums; ties by smaller id
 */
#include "text/text.h"
#include "base/rng.h"
#include "base/team.h"

#include <math.h>

/* ---- entering ---- */

static peri_status enter(const peri_text *ix, pe_reader **place, pe_text_scratch **scratch)
{
    pe_host *host = (pe_host *)(uintptr_t)&ix->host;
    pe_reader *r = pe_epoch_enter(&ix->epoch);
    pe_text_scratch *s = r->scratch;
    peri_status status = PERI_OK;
    if (!s) {
        s = pe_calloc(host, sizeof *s);
        if (s) {
            s->host = s->tree.host = host;
            status = pe_analyser_init(&s->analyser, &ix->how);
        } else {
            status = PERI_ERR_NOMEM;
        }
        if (status != PERI_OK) {
            pe_free(host, s, sizeof *s);
            pe_epoch_exit(r);
            return status;
        }
        r->scratch = s;
    }
    *place = r;
    *scratch = s;
    return PERI_OK;
}

static peri_status check_query(const peri_text *ix, const peri_text_query *q)
{
    if (!ix || !q)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", ix ? "q" : "index");
    if (q->struct_size < sizeof *q)
        return pe_fail(PERI_ERR_ARG, "peri_text_query.struct_size is %u, expected %zu or more",
                       q->struct_size, sizeof *q);
    if (q->k == 0)
        return pe_fail(PERI_ERR_ARG, "k is 0, expected 1 or more");
    if (q->syntax > PERI_SYNTAX_WORDS)
        return pe_fail(PERI_ERR_CONFIG, "syntax is %u, expected 0 (operators) or 1 (words)",
                       q->syntax);
    if (q->join > PERI_JOIN_AND)
        return pe_fail(PERI_ERR_CONFIG, "join is %u, expected 0 (or) or 1 (and)", q->join);
    return PERI_OK;
}

/* ---- leaves ---- */

static peri_status new_leaf(pe_text_scratch *s, uint32_t term, uint32_t count, uint32_t *out)
{
    PE_TRY(pe_grow(s->host, &s->leaves, &s->leaves_room, s->n_leaves + 1, sizeof *s->leaves));
    s->leaves[s->n_leaves] = (pe_leaf){.term = term, .count = count};
    *out = (uint32_t)s->n_leaves++;
    return PERI_OK;
}

static peri_status expand_to(pe_text_scratch *s, uint32_t leaf)
{
    PE_TRY(
        pe_grow(s->host, &s->expanded, &s->expanded_room, s->n_expanded + 1, sizeof *s->expanded));
    s->expanded[s->n_expanded++] = leaf;
    return PERI_OK;
}

/* A term that a prefix stands for may be a leaf already. */
typedef struct expansion {
    pe_text_scratch *s;
    uint32_t count;
} expansion;

static peri_status take_term(void *ctx, uint32_t term)
{
    expansion *x = ctx;
    pe_text_scratch *s = x->s;
    size_t at = (size_t)pe_mix64(term) & (s->by_term_size - 1);
    for (; s->by_term[at]; at = (at + 1) & (s->by_term_size - 1))
        if (s->leaves[s->by_term[at] - 1].term == term) {
            s->leaves[s->by_term[at] - 1].count += x->count;
            return expand_to(s, s->by_term[at] - 1);
        }
    if (s->n_leaves >= PERI_QUERY_TERMS)
        return pe_fail(PERI_ERR_ARG,
                       "with what its prefixes stand for the query has more than %d "
                       "terms",
                       PERI_QUERY_TERMS);
    uint32_t leaf = 0;
    PE_TRY(new_leaf(s, term, x->count, &leaf));
    s->by_term[at] = leaf + 1;
    return expand_to(s, leaf);
}

static peri_status index_leaves(pe_text_scratch *s)
{
    enum { SIZE = 2 * PERI_QUERY_TERMS };
    if (!s->by_term) {
        s->by_term = pe_alloc(s->host, SIZE * sizeof *s->by_term);
        if (!s->by_term)
            return PERI_ERR_NOMEM;
        s->by_term_size = SIZE;
    }
    memset(s->by_term, 0, SIZE * sizeof *s->by_term);
    for (size_t i = 0; i < s->n_leaves; i++) {
        size_t at = (size_t)pe_mix64(s->leaves[i].term) & (SIZE - 1);
        while (s->by_term[at])
            at = (at + 1) & (SIZE - 1);
        s->by_term[at] = (uint32_t)i + 1;
    }
    return PERI_OK;
}

/* Words first: a leaf each. Then prefixes, which may share leaves with them. */
static peri_status make_leaves(const peri_text *ix, pe_text_scratch *s)
{
    const pe_tree *t = &s->tree;
    int prefixes = 0;
    uint64_t term;
    uint32_t leaf = 0;
    s->n_leaves = s->n_expanded = 0;
    PE_TRY(pe_grow(s->host, &s->spans, &s->spans_room, 2 * t->n_terms, sizeof *s->spans));
    for (size_t i = 0; i < t->n_terms; i++) {
        const pe_query_term *q = &t->terms[i];
        prefixes |= q->prefix != 0;
        s->spans[2 * i] = (uint32_t)s->n_expanded;
        if (!q->prefix &&
            pe_keys_find(ix->terms, (peri_slice){t->bytes + q->text, q->size}, &term)) {
            PE_TRY(new_leaf(s, (uint32_t)term, q->count, &leaf));
            PE_TRY(expand_to(s, leaf));
        }
        s->spans[2 * i + 1] = (uint32_t)s->n_expanded;
    }
    if (!prefixes)
        return PERI_OK;
    PE_TRY(index_leaves(s));
    for (size_t i = 0; i < t->n_terms; i++) {
        const pe_query_term *q = &t->terms[i];
        if (!q->prefix)
            continue;
        expansion x = {s, q->count};
        s->spans[2 * i] = (uint32_t)s->n_expanded;
        PE_TRY(pe_text_with_prefix(ix, t->bytes + q->text, q->size, take_term, &x));
        s->spans[2 * i + 1] = (uint32_t)s->n_expanded;
    }
    return PERI_OK;
}

/* ---- weights ---- */

/* Counting the live documents of a frequent term walks its whole list, which takes longer than the
 * search: what was counted is kept until other documents die. */
static uint32_t live_in_part(pe_text_scratch *s, const pe_part *part, uint32_t term,
                             const pe_list *list)
{
    enum { FEW = 256 }; /* are counted as fast as looked up */
    if (!part->dead || part->segment->active || list->n < FEW)
        return pe_list_live(part, list);
    if (!s->known && !(s->known = pe_calloc(s->host, PE_KNOWN_DFS * sizeof *s->known)))
        return pe_list_live(part, list);
    uint64_t serial = part->segment->serial;
    pe_known_df *k = &s->known[pe_mix64(serial << 32 ^ term) & (PE_KNOWN_DFS - 1)];
    if (k->serial != serial || k->edit != part->dead->edit || k->term != term)
        *k = (pe_known_df){serial, part->dead->edit, term, pe_list_live(part, list)};
    return k->live;
}

static void weigh(pe_find *f)
{
    pe_text_scratch *s = f->s;
    double total = 0, n = (double)f->snapshot->live;
    for (size_t i = 0; i < s->n_leaves; i++) {
        pe_leaf *l = &s->leaves[i];
        for (uint32_t p = 0; p < f->snapshot->n_parts; p++) {
            pe_list list;
            if (pe_list_open(&f->snapshot->parts[p], PE_SET_ALL, l->term, &list))
                l->df += live_in_part(s, &f->snapshot->parts[p], l->term, &list);
        }
        double df = l->df, idf = log(1 + (n - df + 0.5) / (df + 0.5));
        l->scale = l->df ? (float)(idf * l->count) : 0;
        total += (double)l->scale;
    }
    int exponent = 0;
    frexp(total, &exponent);
    f->shift = PE_SCORE_BITS - exponent;
    for (size_t i = 0; i < s->n_leaves; i++)
        s->leaves[i].scale = ldexpf(s->leaves[i].scale, f->shift);
    pe_weights_make(&s->weights, f->ix->k1, f->ix->b, f->snapshot);
}

/* ---- the best ---- */

static int worse(pe_best a, pe_best b)
{
    return a.score < b.score || (a.score == b.score && a.id > b.id);
}

static void sift_down(pe_best *heap, size_t n, size_t i)
{
    pe_best moved = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && worse(heap[child + 1], heap[child]))
            child++;
        if (!worse(heap[child], moved))
            break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

void pe_find_push(pe_find *f, int32_t score, uint32_t doc)
{
    pe_best *heap = f->s->heap, b = {score, pe_part_id(f->part, doc)};
    if (f->n < f->k) {
        size_t i = f->n++;
        for (; i > 0 && worse(b, heap[(i - 1) / 2]); i = (i - 1) / 2)
            heap[i] = heap[(i - 1) / 2];
        heap[i] = b;
    } else if (worse(heap[0], b)) {
        heap[0] = b;
        sift_down(heap, f->n, 0);
    }
    if (f->n == f->k)
        f->need = heap[0].score + f->ascending;
}

static size_t unload(pe_find *f, peri_scored *hits)
{
    pe_best *heap = f->s->heap;
    for (size_t n = f->n; n > 0; n--) {
        hits[n - 1] = (peri_scored){heap[0].id, ldexpf((float)heap[0].score, -f->shift), 0};
        heap[0] = heap[n - 1];
        sift_down(heap, n - 1, 0);
    }
    return f->n;
}

/* ---- parts and windows ---- */

int pe_find_barred(const pe_find *f, uint32_t window)
{
    if (!f->accepted)
        return 0;
    const uint64_t *bits = f->accepted + (size_t)window * PE_PAGE_WORDS;
    uint64_t any = 0;
    for (unsigned i = 0; i < PE_PAGE_WORDS; i++)
        any |= bits[i];
    return any == 0;
}

/* Open the leaves; how many that count for the score are there. */
static size_t open_part(pe_find *f, uint32_t at, uint64_t *largest)
{
    pe_text_scratch *s = f->s;
    size_t scored = 0;
    f->part = &f->snapshot->parts[at];
    f->accepted = s->accepted[at].bits;
    f->classes = f->part->segment->columns[PE_COL_CLASSES].data;
    const uint64_t *ids = f->part->segment->columns[PE_COL_IDS].data;
    int run = !f->part->segment->active && !f->part->segment->map;
    f->ascending = run && (at == 0 || ids[0] > *largest);
    *largest = f->ascending ? ids[0] + f->part->docs - 1 : UINT64_MAX;
    if (f->n == f->k)
        f->need = s->heap[0].score + f->ascending;
    for (size_t i = 0; i < s->n_leaves; i++) {
        pe_leaf *l = &s->leaves[i];
        l->at.run = l->at.first = 0;
        l->opened = l->df && pe_list_open(f->part, PE_SET_ALL, l->term, &l->at.list);
        scored += l->opened && l->count;
    }
    return scored;
}

uint32_t pe_find_window(pe_find *f, uint32_t window, int64_t *bound)
{
    pe_text_scratch *s = f->s;
    uint32_t n = 0;
    *bound = 0;
    for (size_t i = 0; i < s->n_leaves; i++) {
        pe_leaf *l = &s->leaves[i];
        l->n = l->opened ? pe_cursor_seek(&l->at, window) : 0;
        if (l->n == 0)
            continue;
        l->seen = 0;
        l->bound = 0;
        if (l->count) {
            float most = pe_run_bound(&s->weights, f->part, &l->at.list, l->at.run);
            l->bound = pe_part_of_score(l->scale, most) + 1;
        }
        *bound += l->bound;
        s->order[n++] = (uint32_t)i;
    }
    return n;
}

/* ---- searching ---- */

typedef enum shape { SHAPE_ANY, SHAPE_ALL, SHAPE_TREE } shape;

static shape shape_of(const pe_tree *t)
{
    const pe_node *root = &t->nodes[t->root];
    if (root->kind == PE_NODE_TERM || root->kind == PE_NODE_PREFIX)
        return SHAPE_ANY;
    if (root->kind != PE_NODE_OR && root->kind != PE_NODE_AND)
        return SHAPE_TREE;
    for (uint32_t c = root->child; c != PE_NO_NODE; c = t->nodes[c].next)
        if (t->nodes[c].kind != PE_NODE_TERM &&
            !(root->kind == PE_NODE_OR && t->nodes[c].kind == PE_NODE_PREFIX))
            return SHAPE_TREE;
    return root->kind == PE_NODE_OR ? SHAPE_ANY : SHAPE_ALL;
}

static peri_status find_parts(pe_find *f, shape how)
{
    pe_text_scratch *s = f->s;
    uint64_t largest = 0;
    for (uint32_t p = 0; p < f->snapshot->n_parts; p++) {
        if (s->accepted[p].count == 0)
            continue;
        size_t there = open_part(f, p, &largest);
        if (how == SHAPE_TREE)
            PE_TRY(pe_match_part(f));
        else if (how == SHAPE_ANY && there)
            pe_scan_any(f);
        else if (how == SHAPE_ALL && there == s->n_leaves)
            pe_scan_all(f);
    }
    return PERI_OK;
}

/* The query as weighed leaves; *empty: no document can match. */
static peri_status plan(pe_find *f, peri_slice query, const peri_text_query *q, int *empty)
{
    pe_text_scratch *s = f->s;
    PE_TRY(pe_tree_parse(&s->tree, &s->analyser, query, q->syntax, q->join));
    *empty = s->tree.root == PE_NO_NODE || f->snapshot->live == 0;
    if (*empty)
        return PERI_OK;
    PE_TRY(make_leaves(f->ix, s));
    weigh(f);
    return PERI_OK;
}

/* Which documents may answer. Queries of one batch share it, as long as they see the same snapshot.
 */
static peri_status accept(pe_find *f, const peri_text_query *q)
{
    pe_text_scratch *s = f->s;
    pe_allow allow = {q->allow, q->filter, q->filter_ctx};
    if (s->accepted_for == f->snapshot->version)
        return PERI_OK;
    s->accepted_for = 0;
    PE_TRY(pe_grow(s->host, &s->accepted, &s->accepted_room, f->snapshot->n_parts,
                   sizeof *s->accepted));
    PE_TRY(
        pe_snapshot_accept(f->snapshot, &allow, s->host, s->accepted, &s->words, &s->words_room));
    s->accepted_for = f->snapshot->version;
    return PERI_OK;
}

static peri_status search_inside(const peri_text *ix, pe_text_scratch *s, peri_slice query,
                                 const peri_text_query *q, peri_scored *hits, size_t *n_hits)
{
    pe_find f = {.ix = ix, .s = s, .need = 1};
    int empty;
    *n_hits = 0;
    f.snapshot = pe_postings_now(&ix->postings);
    PE_TRY(plan(&f, query, q, &empty));
    if (empty)
        return PERI_OK;
    shape how = shape_of(&s->tree);
    if (how == SHAPE_TREE)
        PE_TRY(pe_match_prepare(&f));
    if (s->n_leaves == 0 || (how == SHAPE_ALL && s->n_leaves < s->tree.n_terms))
        return PERI_OK;
    f.k = q->k < f.snapshot->live ? q->k : (size_t)f.snapshot->live;
    PE_TRY(pe_grow(s->host, &s->heap, &s->heap_room, f.k, sizeof *s->heap));
    PE_TRY(pe_grow(s->host, &s->order, &s->order_room, s->n_leaves, sizeof *s->order));
    PE_TRY(accept(&f, q));
    PE_TRY(find_parts(&f, how));
    *n_hits = unload(&f, hits);
    return PERI_OK;
}

static peri_status check_slice(peri_slice query)
{
    enum { QUERY_MOST = 1 << 30 };
    if (query.size && !query.data)
        return pe_fail(PERI_ERR_ARG, "query is NULL");
    if (query.size >= QUERY_MOST)
        return pe_fail(PERI_ERR_ARG, "the query has %zu bytes, expected less than %d", query.size,
                       QUERY_MOST);
    return PERI_OK;
}

peri_status peri_text_search(const peri_text *ix, peri_slice query, const peri_text_query *q,
                             peri_scored *hits, size_t *n_hits)
{
    pe_reader *place;
    pe_text_scratch *s;
    PE_TRY(check_query(ix, q));
    PE_TRY(check_slice(query));
    if (!hits || !n_hits)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", hits ? "n_hits" : "hits");
    PE_TRY(enter(ix, &place, &s));
    s->accepted_for = 0;
    peri_status status = search_inside(ix, s, query, q, hits, n_hits);
    pe_epoch_exit(place);
    return status;
}

/* ---- many ---- */

typedef struct many {
    const peri_text *ix;
    size_t n;
    const peri_slice *queries;
    const peri_text_query *q;
    peri_scored *hits;
    size_t *n_hits;
    pe_progress progress;
    _Atomic size_t next;
    pe_first_error error;
} many;

static void many_worker(void *ctx, unsigned worker)
{
    many *m = ctx;
    enum { AT_ONCE = 16 };
    peri_status status = PERI_OK;
    while (status == PERI_OK && !m->error.failed) {
        pe_reader *place;
        pe_text_scratch *s;
        size_t first = atomic_fetch_add(&m->next, AT_ONCE);
        if (first >= m->n)
            break;
        size_t end = m->n - first < AT_ONCE ? m->n : first + AT_ONCE;
        /* Leave and enter again now and then, so that a writer can reclaim. */
        status = enter(m->ix, &place, &s);
        if (status != PERI_OK)
            break;
        s->accepted_for = 0;
        for (size_t i = first; i < end && status == PERI_OK; i++)
            status =
                search_inside(m->ix, s, m->queries[i], m->q, m->hits + i * m->q->k, &m->n_hits[i]);
        pe_epoch_exit(place);
        if (pe_progress_add(&m->progress, worker, end - first))
            break;
    }
    pe_first_error_set(&m->error, status);
}

peri_status peri_text_search_many(const peri_text *ix, size_t n, const peri_slice *queries,
                                  const peri_text_query *q, const peri_task *task,
                                  peri_scored *hits, size_t *n_hits)
{
    many m = {.ix = ix, .n = n, .queries = queries, .q = q, .hits = hits, .n_hits = n_hits};
    PE_TRY(check_query(ix, q));
    if (n && (!queries || !hits || !n_hits))
        return pe_fail(PERI_ERR_ARG, "%s is NULL",
                       !queries ? "queries"
                       : !hits  ? "hits"
                                : "n_hits");
    for (size_t i = 0; i < n; i++)
        PE_TRY(check_slice(queries[i]));
    PE_TRY(pe_progress_init(&m.progress, task));
    pe_progress_phase(&m.progress, "search", n);
    unsigned threads = pe_task_threads(task);
    pe_team_run(threads < n ? threads : (unsigned)(n ? n : 1), many_worker, &m);
    PE_TRY(pe_first_error_get(&m.error));
    return pe_progress_end(&m.progress);
}

/* ---- scores of given documents ---- */

static float score_of(pe_find *f, uint64_t id)
{
    uint32_t part, doc, posting;
    if (!pe_snapshot_find(f->snapshot, id, &part, &doc))
        return NAN;
    int32_t sum = 0;
    f->part = &f->snapshot->parts[part];
    f->classes = f->part->segment->columns[PE_COL_CLASSES].data;
    for (size_t i = 0; i < f->s->n_leaves; i++) {
        pe_leaf *l = &f->s->leaves[i];
        if (l->count && l->df && pe_list_open(f->part, PE_SET_ALL, l->term, &l->at.list) &&
            pe_list_find(&l->at.list, doc, &posting))
            sum += pe_find_part(f, l, posting, doc);
    }
    return ldexpf((float)sum, -f->shift);
}

peri_status peri_text_score(const peri_text *ix, peri_slice query, const peri_text_query *q,
                            size_t n, const uint64_t *ids, float *scores)
{
    pe_reader *place;
    pe_find f = {.ix = ix};
    int empty = 0;
    PE_TRY(check_query(ix, q));
    PE_TRY(check_slice(query));
    if (n && (!ids || !scores))
        return pe_fail(PERI_ERR_ARG, "%s is NULL", ids ? "scores" : "ids");
    PE_TRY(enter(ix, &place, &f.s));
    f.snapshot = pe_postings_now(&ix->postings);
    peri_status status = plan(&f, query, q, &empty);
    if (empty)
        f.s->n_leaves = 0;
    for (size_t i = 0; i < n && status == PERI_OK; i++)
        scores[i] = score_of(&f, ids[i]);
    pe_epoch_exit(place);
    return status;
}
