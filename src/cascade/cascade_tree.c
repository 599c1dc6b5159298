/* The tree of buckets: training, descent, splits, multi-probe. */
#include "base/checked.h"
#include "base/rng.h"
#include "cascade/cascade.h"

#include <math.h>
#include <stdlib.h>

enum {
    SAMPLE = 1024,  /* rows that the thresholds are medians of */
    FRONTIER = 256, /* branches that a search keeps for later */
};

typedef _Atomic uint32_t entry;

static entry *children(const cascade_tree *t, uint32_t node)
{
    return (entry *)pe_array_at(&t->nodes, node);
}
static entry *bucket(const cascade_tree *t, uint32_t n)
{
    return (entry *)pe_array_at(&t->buckets, n);
}
static uint32_t get(const entry *e)
{
    return atomic_load_explicit(e, memory_order_acquire);
}
static void set(entry *e, uint32_t value)
{
    atomic_store_explicit(e, value, memory_order_release);
}
static uint32_t *bits_of(const cascade_tree *t, uint32_t slot)
{
    return (uint32_t *)(void *)pe_array_at(&t->bits, slot);
}

static void clear_bucket(const cascade_tree *t, uint32_t n)
{
    for (uint32_t i = 0; i < t->capacity; i++)
        set(bucket(t, n) + i, PE_NIL);
}

peri_status pe_cascade_tree_init(peri_index *ix, uint32_t planes, uint32_t capacity,
                                 uint32_t probes)
{
    cascade_tree *t = &cascade_of(ix)->tree;
    uint32_t dim = ix->space.dim;
    pe_rng rng = {pe_mix64(cascade_of(ix)->graph.seed ^ 0x6c7368)};
    t->planes = planes;
    t->capacity = capacity;
    t->probes = probes;
    pe_array_init(&t->nodes, &ix->host, 2 * sizeof(entry));
    pe_array_init(&t->buckets, &ix->host, capacity * sizeof(entry));
    pe_array_init(&t->bits, &ix->host, sizeof(uint32_t));
    t->normals = pe_alloc(&ix->host, (size_t)planes * dim * sizeof *t->normals);
    t->thresholds = pe_calloc(&ix->host, planes * sizeof *t->thresholds);
    if (!t->normals || !t->thresholds)
        return PERI_ERR_NOMEM;
    for (size_t i = 0; i < (size_t)planes * dim; i++)
        t->normals[i] = pe_rng_next(&rng) >> 63 ? 1.0f : -1.0f;
    PE_TRY(pe_array_reserve(&t->buckets, &ix->epoch, 1, 1));
    clear_bucket(t, 0);
    t->n_buckets = 1;
    set(&t->root, CASCADE_BUCKET);
    return PERI_OK;
}

void pe_cascade_tree_destroy(peri_index *ix)
{
    cascade_tree *t = &cascade_of(ix)->tree;
    if (!t->planes)
        return;
    pe_free(&ix->host, t->normals, (size_t)t->planes * ix->space.dim * sizeof *t->normals);
    pe_free(&ix->host, t->thresholds, t->planes * sizeof *t->thresholds);
    pe_array_destroy(&t->nodes);
    pe_array_destroy(&t->buckets);
    pe_array_destroy(&t->bits);
}

/* Buckets fill to about two thirds; where rows crowd so that this does not do, some are not hung
 * in the tree (C1). */
peri_status pe_cascade_tree_reserve(peri_index *ix, size_t slots, int exact)
{
    cascade_tree *t = &cascade_of(ix)->tree;
    size_t buckets = 2 * slots / t->capacity + 2 * t->planes;
    PE_TRY(pe_array_reserve(&t->bits, &ix->epoch, slots, exact));
    PE_TRY(pe_array_reserve(&t->nodes, &ix->epoch, buckets, exact));
    return pe_array_reserve(&t->buckets, &ix->epoch, buckets, exact);
}

/* ---- hashing ---- */

/* How far a point lies beyond each hyperplane. */
static void margins(const peri_index *ix, const float *x, float *out)
{
    const cascade_tree *t = &cascade_of(ix)->tree;
    uint32_t dim = ix->space.dim;
    ix->rows.kernels->dist[PE_OP_DOT][PE_ELEM_F32].run(x, t->normals, dim * sizeof *x, dim,
                                                       t->planes, out);
    for (uint32_t i = 0; i < t->planes; i++)
        out[i] = -out[i] - t->thresholds[i];
}

static uint32_t hash(const float *margin, uint32_t planes)
{
    uint32_t bits = 0;
    for (uint32_t i = 0; i < planes && i < CASCADE_PLANES; i++)
        bits |= (uint32_t)(margin[i] >= 0) << i;
    return bits;
}

static int compare_floats(const void *a, const void *b)
{
    float x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

/* Row i of n to learn from: one given, or that of a slot. 0 when there is none. */
static int sample_row(const peri_index *ix, const float *rows, size_t i, float *out)
{
    uint32_t dim = ix->space.dim;
    if (!rows) {
        pe_rows_get(&ix->rows, (uint32_t)i, out, 0);
        return !pe_slots_dead(&ix->slots, (uint32_t)i);
    }
    memcpy(out, rows + i * dim, dim * sizeof *out);
    if (ix->space.metric == PERI_METRIC_COSINE) {
        float norm;
        if (pe_rows_check(&ix->rows, out, "row", i, &norm) != PERI_OK)
            return 0;
        for (uint32_t d = 0; d < dim; d++)
            out[d] /= norm;
    }
    return 1;
}

peri_status pe_cascade_tree_train(peri_index *ix, const float *rows, size_t n)
{
    cascade_tree *t = &cascade_of(ix)->tree;
    uint32_t count = pe_slots_count(&ix->slots), dim = ix->space.dim;
    size_t m = n < SAMPLE ? n : SAMPLE, used = 0, bytes;
    if (pe_mul_size(m, (t->planes + dim) * sizeof(float), &bytes))
        return pe_fail(PERI_ERR_NOMEM, "a sample of %zu rows exceeds the address space", m);
    float *side = pe_alloc(&ix->host, bytes), *x = side + m * t->planes, margin[CASCADE_PLANES];
    if (!side)
        return PERI_ERR_NOMEM;
    for (size_t i = 0; i < m; i++) {
        if (!sample_row(ix, rows, n * i / m, x))
            continue;
        margins(ix, x, margin);
        for (uint32_t p = 0; p < t->planes; p++)
            side[p * m + used] = margin[p];
        used++;
    }
    for (uint32_t p = 0; p < t->planes && used; p++) {
        qsort(side + p * m, used, sizeof *side, compare_floats);
        t->thresholds[p] = side[p * m + used / 2];
    }
    atomic_store_explicit(&t->trained, 1, memory_order_release);
    for (uint32_t slot = 0; slot < count; slot++)
        if (!pe_slots_dead(&ix->slots, slot))
            pe_cascade_tree_add(ix, slot, x);
    pe_free(&ix->host, side, bytes);
    return PERI_OK;
}

/* ---- writing ---- */

/* The bucket that a hash leads to; *link leads to it, *depth planes were asked. */
static uint32_t descend(cascade_tree *t, uint32_t bits, entry **link, uint32_t *depth)
{
    *link = &t->root;
    *depth = 0;
    for (uint32_t at; !((at = get(*link)) & CASCADE_BUCKET); ++*depth)
        *link = children(t, at) + (bits >> *depth & 1);
    return get(*link) & ~CASCADE_BUCKET;
}

/* Part a full bucket by its next hyperplane: the rows beyond it go to a new one. */
static int split(cascade_tree *t, uint32_t full, entry *link, uint32_t depth)
{
    if (depth == t->planes || t->n_nodes == t->nodes.capacity ||
        t->n_buckets == t->buckets.capacity)
        return 0;
    uint32_t fresh = t->n_buckets++, node = t->n_nodes++, stay = 0, go = 0;
    entry *from = bucket(t, full), *to = bucket(t, fresh);
    clear_bucket(t, fresh);
    for (uint32_t i = 0; i < t->capacity; i++) {
        uint32_t slot = get(&from[i]);
        if (*bits_of(t, slot) >> depth & 1)
            set(&to[go++], slot);
        else
            set(&from[stay++], slot);
    }
    set(children(t, node), CASCADE_BUCKET | full);
    set(children(t, node) + 1, CASCADE_BUCKET | fresh);
    set(link, node);
    for (uint32_t i = stay; i < t->capacity; i++)
        set(&from[i], PE_NIL);
    return 1;
}

void pe_cascade_tree_add(peri_index *ix, uint32_t slot, float *scratch)
{
    cascade_tree *t = &cascade_of(ix)->tree;
    float margin[CASCADE_PLANES];
    entry *link;
    uint32_t depth, n;
    if (!atomic_load_explicit(&t->trained, memory_order_relaxed))
        return;
    pe_rows_get(&ix->rows, slot, scratch, 0);
    margins(ix, scratch, margin);
    uint32_t bits = *bits_of(t, slot) = hash(margin, t->planes);
    do {
        uint32_t leaf = descend(t, bits, &link, &depth);
        entry *slots = bucket(t, leaf);
        for (n = 0; n < t->capacity && get(&slots[n]) != PE_NIL; n++)
            ;
        if (n < t->capacity)
            set(&slots[n], slot);
        else if (!split(t, leaf, link, depth))
            return;
    } while (n == t->capacity);
}

void pe_cascade_tree_remove(peri_index *ix, uint32_t slot)
{
    cascade_tree *t = &cascade_of(ix)->tree;
    entry *link;
    uint32_t depth, n = 0, at = t->capacity;
    if (!atomic_load_explicit(&t->trained, memory_order_relaxed))
        return;
    entry *slots = bucket(t, descend(t, *bits_of(t, slot), &link, &depth));
    for (; n < t->capacity && get(&slots[n]) != PE_NIL; n++)
        at = get(&slots[n]) == slot ? n : at;
    if (at == t->capacity)
        return;
    set(&slots[at], get(&slots[n - 1]));
    set(&slots[n - 1], PE_NIL);
}

/* ---- reading ---- */

/* A branch not taken: what it costs to turn off there, and where it leads. */
typedef struct branch {
    float cost;
    uint32_t to, depth;
} branch;

static size_t take_bucket(const cascade_tree *t, uint32_t n, uint32_t limit, size_t most,
                          uint32_t *out)
{
    const entry *slots = bucket(t, n);
    size_t taken = 0;
    for (uint32_t i = 0; i < t->capacity && taken < most; i++) {
        uint32_t slot = get(&slots[i]);
        if (slot == PE_NIL)
            break;
        if (slot < limit)
            out[taken++] = slot;
    }
    return taken;
}

size_t pe_cascade_tree_seeds(const peri_index *ix, const float *point, uint32_t limit,
                             uint32_t *out)
{
    const cascade_tree *t = &cascade_of(ix)->tree;
    float margin[CASCADE_PLANES];
    branch later[FRONTIER];
    size_t n = 0, n_later = 1, each = (PE_GRAPH_SEEDS + t->probes - 1) / t->probes;
    if (!atomic_load_explicit(&t->trained, memory_order_acquire))
        return 0;
    margins(ix, point, margin);
    later[0] = (branch){0, get(&t->root), 0};
    for (uint32_t probe = 0; probe < t->probes && n_later && n < PE_GRAPH_SEEDS; probe++) {
        size_t best = 0;
        for (size_t i = 1; i < n_later; i++)
            best = later[i].cost < later[best].cost ? i : best;
        branch b = later[best];
        later[best] = later[--n_later];
        while (!(b.to & CASCADE_BUCKET) && b.depth < t->planes) {
            uint32_t side = margin[b.depth] >= 0;
            float turn = margin[b.depth] * margin[b.depth];
            if (n_later < FRONTIER)
                later[n_later++] =
                    (branch){b.cost + turn, get(children(t, b.to) + !side), b.depth + 1};
            b.to = get(children(t, b.to) + side);
            b.depth++;
        }
        if (!(b.to & CASCADE_BUCKET))
            continue; /* no tree is that deep (C3) */
        size_t most = PE_GRAPH_SEEDS - n < each ? PE_GRAPH_SEEDS - n : each;
        n += take_bucket(t, b.to & ~CASCADE_BUCKET, limit, most, out + n);
    }
    return n;
}
