/* Search: which wells, then their blocks by fast-scan, then what may be among the nearest,
 * measured.
 *
 * Wells are taken nearest attractor first, `effort` of them at most. The keys estimated from a
 * well's codes go into a heap; a row whose lower bound lies below the heap's worst key is kept. In
 * the end those whose lower bound is still below it are measured on their 8-bit codes, all at once,
 * so that the prefetches overlap; what is measured is a few dozen of several thousand rows. (To
 * measure as the scan goes tightens the bound sooner, but measures three times as many.) */
#include "gwi/gwi.h"

#include <math.h>

/* Wells whose attractor is measured, for those to be scanned: half as many again, and some. */
#define MEASURED(probes) ((probes) + (probes) / 2 + 8)
/* Deviations that the bound allows an estimate to be off. */
#define SLACK 2.0f

typedef struct kept {
    float lower;
    uint32_t slot;
} kept;

/* A reader's own. */
typedef struct desk {
    pe_host *host;
    size_t width, groups; /* of the code */
    float *query, *tmp, *p;
    uint8_t *luts;
    pe_cand *order; /* wells, nearest first */
    size_t order_room;
    uint32_t *records; /* of centres that are measured, and their keys */
    float *keys;
    size_t records_room, keys_room;
    kept *found;
    size_t n_found, found_room;
    pe_cand *heap;
    size_t heap_room;
    uint64_t *marks;
    size_t marks_room;
} desk;

static void destroy_desk(void *kind)
{
    desk *d = kind;
    pe_host *host = d->host;
    pe_free(host, d->query, d->width * sizeof(float));
    pe_free(host, d->tmp, d->width * sizeof(float));
    pe_free(host, d->p, 4 * d->groups * sizeof(float));
    pe_free(host, d->luts, 16 * d->groups);
    pe_free(host, d->keys, d->keys_room * sizeof *d->keys);
    pe_free(host, d->records, d->records_room * sizeof *d->records);
    pe_free(host, d->order, d->order_room * sizeof *d->order);
    pe_free(host, d->found, d->found_room * sizeof *d->found);
    pe_free(host, d->heap, d->heap_room * sizeof *d->heap);
    pe_free(host, d->marks, d->marks_room * sizeof *d->marks);
    pe_free(host, d, sizeof *d);
}

static desk *desk_of(pe_scratch *s, const pe_bitcode *b)
{
    desk *d = s->kind;
    if (d)
        return d;
    d = pe_calloc(s->host, sizeof *d);
    if (!d)
        return NULL;
    d->host = s->host;
    d->width = b->width;
    d->groups = b->groups;
    d->query = pe_alloc(s->host, d->width * sizeof(float));
    d->tmp = pe_alloc(s->host, d->width * sizeof(float));
    d->p = pe_alloc(s->host, 4 * d->groups * sizeof(float));
    d->luts = pe_alloc(s->host, 16 * d->groups);
    if (!d->query || !d->tmp || !d->p || !d->luts) {
        destroy_desk(d);
        return NULL;
    }
    s->kind = d;
    s->kind_destroy = destroy_desk;
    return d;
}

typedef struct scan {
    pe_search *s;
    const gwi *g;
    const gwi_tree *t;
    desk *d;
    pe_bit_query query;
    pe_topk top; /* estimated keys */
    float most;  /* of a range search, as an estimate */
    float norm;  /* of the query, squared */
    float blur;  /* what the rounding of the tables may do to a dot product */
    const uint64_t *marks;
} scan;

/* ---- which wells ---- */

static void keys_of(const scan *c, const uint32_t *records, const float *norms, size_t n,
                    float *keys)
{
    const pe_bitcode *b = &c->g->bitcode;
    pe_rowview view = gwi_centre_view(c->g);
    b->kernels->dist[PE_OP_DOT][PE_ELEM_F32].ids(c->d->query, &view, records, n, keys);
    if (norms && !b->ip)
        for (size_t i = 0; i < n; i++)
            keys[i] = norms[i] + 2 * keys[i];
}

/* Put the k nearest of n first, in no order (Hoare's selection). */
static void select_nearest(pe_cand *c, size_t n, size_t k)
{
    size_t low = 0, high = n;
    while (high - low > 1 && k > low && k < high) {
        float pivot = c[low + (high - low) / 2].d;
        size_t i = low, j = high - 1;
        for (;;) {
            while (c[i].d < pivot)
                i++;
            while (c[j].d > pivot)
                j--;
            if (i >= j)
                break;
            pe_cand swap = c[i];
            c[i++] = c[j];
            c[j--] = swap;
        }
        size_t middle = c[i].d < pivot ? i + 1 : i;
        if (k <= middle && middle < high)
            high = middle;
        else if (k > middle && middle > low)
            low = middle;
        else
            return; /* what is left is equal, or no number */
    }
}

static void sort_nearest(pe_cand *c, size_t n)
{
    enum { SHORT = 96 };
    if (n > SHORT) {
        pe_cand_sort(c, n);
        return;
    }
    for (size_t i = 1; i < n; i++) {
        pe_cand x = c[i];
        size_t j = i;
        for (; j > 0 && x.d < c[j - 1].d; j--)
            c[j] = c[j - 1];
        c[j] = x;
    }
}

/* Wells by their codes: those that may be among the `want` nearest so far, two times `want` at
 * most, of which the nearer half stays when there are as many. */
typedef struct chooser {
    pe_cand *cand;
    size_t n, want;
    float bound;
} chooser;

static void choose_in_group(const scan *c, chooser *w, uint32_t group, float key)
{
    const gwi *g = c->g;
    const pe_bitcode *b = &g->bitcode;
    const gwi_tree *t = c->t;
    uint32_t first = t->first[group], n = t->first[group + 1] - first;
    float keys[PE_BLOCK_ROWS];
    pe_scan how = {
        .base = b->ip ? key : c->norm + key, .offset = c->query.offset, .step = c->query.step};
    const unsigned char *block = t->codes[group]->block;
    for (uint32_t at = 0; at < n; at += PE_BLOCK_ROWS, block += pe_gwi_code_stride(g)) {
        how.add = (const float *)(const void *)(block + pe_block_codes(b));
        how.scale = how.add + PE_BLOCK_ROWS;
        how.error = how.scale + PE_BLOCK_ROWS;
        how.bound = w->bound;
        uint32_t below = b->kernels->below32(block, c->query.luts, b->groups, &how, keys);
        if (n - at < PE_BLOCK_ROWS)
            below &= (1u << (n - at)) - 1;
        for (; below; below &= below - 1) {
            unsigned lane = (unsigned)__builtin_ctz(below);
            w->cand[w->n++] = (pe_cand){keys[lane], first + at + lane};
        }
        if (w->n >= 2 * w->want) {
            select_nearest(w->cand, w->n, w->want);
            w->n = w->want;
            w->bound = w->cand[0].d;
            for (size_t i = 1; i < w->n; i++)
                w->bound = w->cand[i].d > w->bound ? w->cand[i].d : w->bound;
        }
    }
}

/* Keys of wells that were chosen by code, measured. */
static void measure_wells(const scan *c, pe_cand *wells, size_t n)
{
    desk *d = c->d;
    for (size_t i = 0; i < n; i++)
        d->records[i] = c->t->centre[wells[i].slot];
    keys_of(c, d->records, NULL, n, d->keys);
    for (size_t i = 0; i < n; i++)
        wells[i].d = c->g->bitcode.ip ? d->keys[i] : c->t->norm[wells[i].slot] + 2 * d->keys[i];
}

/* The `probes` nearest wells in d->order, nearest first. Every group is looked at: near the edge of
 * one, its neighbours' wells are as near as its own (four groups alone cost 0.02 of recall). */
static peri_status choose_wells(scan *c, size_t probes, size_t *n)
{
    const gwi_tree *t = c->t;
    desk *d = c->d;
    chooser w = {.want = MEASURED(probes), .bound = __builtin_inff()};
    size_t most = 2 * w.want + PE_BLOCK_ROWS, keys = w.want > t->n_groups ? w.want : t->n_groups;
    PE_TRY(pe_grow(d->host, &d->keys, &d->keys_room, keys, sizeof *d->keys));
    PE_TRY(pe_grow(d->host, &d->records, &d->records_room, keys, sizeof *d->records));
    PE_TRY(pe_grow(d->host, &d->order, &d->order_room, most + t->n_groups, sizeof *d->order));
    pe_cand *groups = d->order + most;
    w.cand = d->order;
    keys_of(c, t->group, t->group_norm, t->n_groups, d->keys);
    for (uint32_t i = 0; i < t->n_groups; i++)
        groups[i] = (pe_cand){d->keys[i], i};
    sort_nearest(groups, t->n_groups);
    for (uint32_t i = 0; i < t->n_groups; i++)
        choose_in_group(c, &w, groups[i].slot, groups[i].d);
    if (w.n > w.want) {
        select_nearest(w.cand, w.n, w.want);
        w.n = w.want;
    }
    measure_wells(c, w.cand, w.n);
    *n = w.n < probes ? w.n : probes;
    select_nearest(w.cand, w.n, *n);
    sort_nearest(w.cand, *n);
    return PERI_OK;
}

/* ---- one well ---- */

static float worst_key(const scan *c)
{
    float bound = pe_topk_bound(&c->top);
    return bound < c->most ? bound : c->most;
}

static peri_status keep_rows(scan *c, uint32_t below, const _Atomic uint32_t *entry,
                             const float *key, const pe_scan *how)
{
    desk *d = c->d;
    PE_TRY(
        pe_grow(d->host, &d->found, &d->found_room, d->n_found + PE_BLOCK_ROWS, sizeof *d->found));
    for (; below; below &= below - 1) {
        unsigned lane = (unsigned)__builtin_ctz(below);
        uint32_t slot = atomic_load_explicit(&entry[lane], memory_order_relaxed);
        if (slot >= c->s->limit || (c->s->accept && !pe_accept_slot(c->s->accept, slot)))
            continue;
        d->found[d->n_found++] =
            (kept){key[lane] - how->slack * how->error[lane] + how->blur * how->scale[lane], slot};
        if (key[lane] < pe_topk_bound(&c->top))
            pe_topk_push(&c->top, (pe_cand){key[lane], slot});
    }
    return PERI_OK;
}

static void prefetch_block(const gwi *g, const unsigned char *block)
{
    size_t lines = g->blocks.stride / 64;
    for (size_t i = 0; i < lines && i < 24; i++)
        __builtin_prefetch(block + 64 * i, 0, 3);
}

/* What the scan of the wells to come will read, each a step further than the last time: its record,
 * its list, its first block. These are three misses one after the other otherwise, and were a
 * quarter of a search. */
static void prefetch_wells(const scan *c, const pe_cand *next, size_t n)
{
    const gwi *g = c->g;
    if (n > 5)
        __builtin_prefetch(c->t->well[next[5].slot], 0, 3);
    if (n > 3)
        __builtin_prefetch(gwi_list_of(c->t->well[next[3].slot]), 0, 3);
    if (n > 1) {
        const gwi_list *l = gwi_list_of(c->t->well[next[1].slot]);
        if (atomic_load_explicit(&l->n, memory_order_acquire))
            prefetch_block(g, pe_array_at(&g->blocks, atomic_load_explicit(&l->block[0],
                                                                           memory_order_acquire)));
    }
}

static peri_status scan_well(scan *c, pe_cand at)
{
    const gwi *g = c->g;
    const pe_bitcode *b = &g->bitcode;
    const gwi_well *w = c->t->well[at.slot];
    const gwi_list *l = gwi_list_of(w);
    uint32_t n = atomic_load_explicit(&l->n, memory_order_acquire);
    float apart2 = b->ip ? c->norm + w->norm + 2 * at.d : c->norm + at.d;
    apart2 = apart2 > 0 ? apart2 : 0;
    float key[PE_BLOCK_ROWS];
    pe_scan how = {.base = b->ip ? at.d : apart2,
                   .offset = c->query.offset,
                   .step = c->query.step,
                   .slack = SLACK * sqrtf(apart2),
                   .blur = c->blur};
    for (uint32_t i = 0; i < n; i++) {
        unsigned char *block =
            pe_array_at(&g->blocks, atomic_load_explicit(&l->block[i], memory_order_acquire));
        if (i + 1 < n)
            prefetch_block(g, pe_array_at(&g->blocks, atomic_load_explicit(&l->block[i + 1],
                                                                           memory_order_acquire)));
        how.add = pe_block_factors(b, block);
        how.scale = how.add + PE_BLOCK_ROWS;
        how.error = how.scale + PE_BLOCK_ROWS;
        how.bound = worst_key(c);
        uint32_t below = b->kernels->below32(block, c->query.luts, b->groups, &how, key);
        if (below)
            PE_TRY(keep_rows(c, below, gwi_entries(g, block), key, &how));
    }
    return PERI_OK;
}

/* ---- what they hold ---- */

/* The found rows whose bound still allows them, measured; the best `want` into scratch->cands. */
static peri_status measure(scan *c)
{
    pe_search *s = c->s;
    pe_scratch *r = s->scratch;
    desk *d = c->d;
    float bound = worst_key(c);
    size_t n = 0;
    PE_TRY(pe_scratch_slots(r, d->n_found));
    for (size_t i = 0; i < d->n_found; i++)
        if (d->found[i].lower <= bound)
            r->slots[n++] = d->found[i].slot;
    s->by_code = s->query->codes != NULL;
    pe_view view =
        s->by_code ? pe_rows_code_view(&s->ix->rows, s->query->codes) : pe_rows_view(&s->ix->rows);
    if (!s->by_code && s->ix->mapped_rows)
        for (size_t i = 0; i < n; i++)
            PE_TRY(pe_index_touch(s->ix, r->slots[i]));
    pe_view_keys(&view, s->by_code ? &s->query->code : &s->query->row, r->slots, n, r->keys);
    pe_topk best;
    pe_topk_init(&best, r->cands, s->want);
    for (size_t i = 0; i < n; i++)
        if (r->keys[i] <= pe_topk_bound(&best))
            pe_topk_push(&best, (pe_cand){r->keys[i], r->slots[i]});
    pe_topk_sort(&best);
    /* A row that is being moved may have been met twice; equal pairs lie side by side. */
    s->n = 0;
    for (size_t i = 0; i < best.n; i++)
        if (s->n == 0 || r->cands[s->n - 1].slot != r->cands[i].slot)
            r->cands[s->n++] = r->cands[i];
    return PERI_OK;
}

/* With a filter `effort` wells' worth of allowed rows are wanted. */
static size_t probes_of(const pe_search *s, const gwi_tree *t)
{
    double probes = s->effort;
    if (s->accept && s->share < 1)
        probes /= s->share > 1e-6 ? s->share : 1e-6;
    return probes < t->n_wells ? (size_t)probes + (probes < 1) : t->n_wells;
}

static float as_estimate(const peri_index *ix, float key)
{
    return ix->space.metric == PERI_METRIC_COSINE ? 2 + 2 * key : key;
}

peri_status pe_gwi_search(pe_search *s)
{
    const gwi *g = gwi_of(s->ix);
    const pe_bitcode *b = &g->bitcode;
    const gwi_tree *t = gwi_tree_of(g);
    s->n = 0;
    if (!t)
        return pe_exact_search(s);
    desk *d = desk_of(s->scratch, b);
    if (!d)
        return PERI_ERR_NOMEM;
    scan c = {.s = s, .g = g, .t = t, .d = d, .most = as_estimate(s->ix, s->max_key)};
    /* What pe_rows_prepare left first in its room is the query as floats. */
    pe_bitcode_rotate(b, s->scratch->query, d->query, d->tmp);
    c.norm = -b->kernels->dist[PE_OP_DOT][PE_ELEM_F32].one(d->query, d->query, b->width);
    c.query = pe_bitcode_query(b, d->query, d->luts, d->p);
    /* Each table is off by an even distribution one step wide. Little, unless rows lie close
     * together and far from the origin. */
    c.blur = SLACK * c.query.step * sqrtf((float)b->groups / 12);
    size_t n = 0;
    PE_TRY(choose_wells(&c, probes_of(s, t), &n));
    PE_TRY(pe_grow(d->host, &d->heap, &d->heap_room, s->want, sizeof *d->heap));
    pe_topk_init(&c.top, d->heap, s->want);
    d->n_found = 0;
    for (size_t i = 0; i < n; i++) {
        prefetch_wells(&c, d->order + i, n - i);
        PE_TRY(scan_well(&c, d->order[i]));
    }
    return measure(&c);
}
