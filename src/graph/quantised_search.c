/* Beam search by estimates.
 *
 * The pool holds estimates; a node that is expanded gets its exact distance, for the answer and as
 * the base of its neighbours' estimates. A node that an estimate kept out of the pool may come in
 * by that of another list, and one that waits there moves up by a better one. (SymphonyQG lets it
 * stand there several times. That fills small pools with copies, and a search for ten rows with a
 * pool of ten then ends with fewer.) */
#include "base/checked.h"
#include "graph/pool.h"
#include "graph/quantised.h"

#include <math.h>

static const float no_error[PE_BLOCK_ROWS];

typedef struct qsearch {
    pe_beam *b;
    const pe_quantised *g;
    const pe_beam_query *q;
    pe_bit_query tables;
    pe_topk top;
    int dot; /* row keys are minus dot products of unit vectors */
} qsearch;

/* Of a row key: its squared distance. */
static inline float squared(const qsearch *s, float key)
{
    float d = s->dot ? 2 + 2 * key : key;
    return d > 0 ? d : 0;
}

static peri_status prepare(qsearch *s, const float *query)
{
    const pe_bitcode *c = &s->g->bitcode;
    pe_beam *b = s->b;
    size_t luts = 16 * c->groups, want = luts + 2 * c->width * sizeof(float);
    if (b->luts_room < want) {
        pe_free(b->host, b->luts, b->luts_room);
        b->luts_room = 0;
        b->luts = pe_alloc(b->host, want);
        if (!b->luts)
            return PERI_ERR_NOMEM;
        b->luts_room = want;
    }
    if (b->done_words < b->seen_words) {
        pe_free(b->host, b->done, b->done_words * sizeof *b->done);
        b->done_words = 0;
        b->done = pe_calloc(b->host, b->seen_words * sizeof *b->done);
        if (!b->done)
            return PERI_ERR_NOMEM;
        b->done_words = b->seen_words;
    }
    float *rotated = (float *)(void *)(b->luts + luts);
    pe_bitcode_rotate(c, query, rotated, rotated + c->width);
    s->tables = pe_bitcode_query(c, rotated, b->luts, NULL);
    return PERI_OK;
}

static inline void prefetch(const qsearch *s, uint32_t node)
{
    const char *links = (const char *)pe_layer_links(s->q->layer, node);
    const char *codes = (const char *)pe_array_at(&s->g->codes, node);
    const char *factors = (const char *)pe_array_at(&s->g->factors, node);
    const char *row = (const char *)pe_rowview_at(&s->q->view->rows, node);
    size_t row_size = s->q->view->rows.stride < 512 ? s->q->view->rows.stride : 512;
    __builtin_prefetch(links);
    __builtin_prefetch(links + 64);
    __builtin_prefetch(factors);
    __builtin_prefetch(factors + 64);
    for (size_t i = 0; i < row_size; i += 64)
        __builtin_prefetch(row + i);
    for (size_t i = 0; i < 512; i += 64)
        __builtin_prefetch(codes + i);
}

/* A node that waits in the pool by a worse estimate is taken out; 0 when there is none. */
static int drop_worse(pe_beam *b, uint32_t node, float estimate)
{
    uint32_t at =
        0; /* of the node, counted from 1: no way out of the middle, this runs as vectors */
    for (uint32_t i = 0; i < (uint32_t)b->n; i++)
        at |= b->node[i] == node ? i + 1 : 0;
    if (at == 0 || b->key[at - 1] <= estimate)
        return 0;
    memmove(b->key + at - 1, b->key + at, (b->n - at) * sizeof *b->key);
    memmove(b->node + at - 1, b->node + at, (b->n - at) * sizeof *b->node);
    b->n--;
    return 1;
}

static inline size_t take(qsearch *s, uint32_t to, float estimate)
{
    pe_beam *b = s->b;
    if (to >= s->q->limit)
        return SIZE_MAX;
    uint64_t bit = (uint64_t)1 << (to % 64);
    if ((b->done[to / 64] & bit) || ((b->seen[to / 64] & bit) && !drop_worse(b, to, estimate)))
        return SIZE_MAX;
    size_t at = pe_pool_insert(b, s->q->ef, estimate, to);
    if (at != SIZE_MAX)
        pe_pool_see(b, to);
    return at;
}

/* Neighbours by their codes; `base` is the exact squared distance of the node. */
static size_t scan(qsearch *s, uint32_t node, float base, const uint32_t *links, size_t n)
{
    const pe_bitcode *c = &s->g->bitcode;
    const pe_qfactors *f = (const pe_qfactors *)(const void *)pe_array_at(&s->g->factors, node);
    const unsigned char *codes = pe_array_at(&s->g->codes, node);
    float add[PE_BLOCK_ROWS], scale[PE_BLOCK_ROWS], key[PE_BLOCK_ROWS];
    size_t best = SIZE_MAX;
    for (size_t first = 0; first < n; first += PE_BLOCK_ROWS, f++, codes += pe_block_codes(c)) {
        c->kernels->bf16_to_f32(f->add, add, PE_BLOCK_ROWS);
        for (unsigned i = 0; i < PE_BLOCK_ROWS; i++)
            scale[i] = -f->unit * (float)f->scale[i];
        pe_scan how = {.base = base,
                       .offset = s->tables.offset,
                       .step = s->tables.step,
                       .bound = s->b->n == s->q->ef ? s->b->key[s->q->ef - 1] : INFINITY,
                       .add = add,
                       .scale = scale,
                       .error = no_error};
        uint32_t below = c->kernels->below32(codes, s->tables.luts, c->groups, &how, key);
        if (n - first < PE_BLOCK_ROWS)
            below &= (1u << (n - first)) - 1;
        for (; below; below &= below - 1) {
            unsigned i = (unsigned)__builtin_ctz(below);
            if (links[first + i] & PE_SAME)
                continue;
            size_t at = take(s, links[first + i], key[i]);
            best = at < best ? at : best;
        }
    }
    return best;
}

/* Neighbours of a node whose codes are not those of its list: by their rows. */
static size_t measure(qsearch *s, const uint32_t *links, size_t n)
{
    pe_beam *b = s->b;
    size_t m = 0, best = SIZE_MAX;
    for (size_t i = 0; i < n; i++)
        if (!(links[i] & PE_SAME) && links[i] < s->q->limit)
            b->next[m++] = links[i];
    pe_view_keys(s->q->view, s->q->point, b->next, m, b->out);
    b->visits += m;
    for (size_t i = 0; i < m; i++) {
        size_t at = take(s, b->next[i], squared(s, b->out[i]));
        best = at < best ? at : best;
    }
    return best;
}

/* The exact distance of a node, then its neighbours; the best place that one of them took. */
static size_t expand(qsearch *s, uint32_t node)
{
    pe_beam *b = s->b;
    uint32_t links[PE_DEGREE_MAX + 1];
    float key = pe_view_key(s->q->view, s->q->point, node), base = squared(s, key);
    b->visits++;
    if (!s->q->accept || s->q->accept(s->q->accept_ctx, node))
        pe_topk_push(&s->top, (pe_cand){key, node});
    size_t n = pe_list_read(s->q->layer, node, links), best = SIZE_MAX;
    /* Equal rows hang in chains: their distance is this one's. */
    for (size_t i = n; i-- > 0 && b->n_same < s->q->ef / 2;)
        if (links[i] & PE_SAME) {
            size_t at = take(s, links[i] & ~PE_SAME, base);
            b->n_same += at != SIZE_MAX;
            best = at < best ? at : best;
        }
    size_t of_list =
        pe_quantised_fresh(s->g, node) ? scan(s, node, base, links, n) : measure(s, links, n);
    return of_list < best ? of_list : best;
}

peri_status pe_quantised_search(pe_beam *b, const pe_quantised *g, const pe_beam_query *q,
                                const float *query)
{
    qsearch s = {b, g, q, .dot = q->view->offset > 0};
    PE_TRY(pe_beam_reserve(b, q->limit, q->ef, q->want));
    PE_TRY(prepare(&s, query));
    pe_topk_init(&s.top, b->found, q->want);
    b->n = b->n_same = 0;
    size_t m = 0;
    for (size_t i = 0; i < q->n_entries && m < PE_DEGREE_MAX; i++)
        if (q->entries[i] < q->limit)
            b->next[m++] = q->entries[i];
    pe_view_keys(q->view, q->point, b->next, m, b->out);
    for (size_t i = 0; i < m; i++)
        take(&s, b->next[i], squared(&s, b->out[i]));
    for (size_t cur = 0; cur < b->n;) {
        uint32_t node = b->node[cur];
        b->node[cur] = node | PE_EXPANDED;
        b->done[node / 64] |= (uint64_t)1 << (node % 64);
        size_t best = expand(&s, node);
        cur = best < cur ? best : cur;
        while (cur < b->n && (b->node[cur] & PE_EXPANDED))
            cur++;
        if (cur < b->n)
            prefetch(&s, b->node[cur]);
    }
    for (size_t i = 0; i < b->n_touched; i++)
        b->done[b->touched[i]] = 0;
    pe_topk_sort(&s.top);
    b->n_found = s.top.n;
    pe_pool_clear_seen(b);
    return PERI_OK;
}
