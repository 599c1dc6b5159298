/* Many rows put into an empty index: built at once (bulk.h), layer by layer.
 *
 * Rows equal bit for bit would fill each other's lists: one of them is built, the others hang in
 * its chain, as when they are inserted one by one. */
#include "graph/bulk.h"
#include "graph/graph_index.h"

#include <stdlib.h>
#include <xxhash.h>

enum {
    BULK_ROWS = 2048, /* with fewer nothing is gained */
    NEAR = 8,
    NEAR_ABOVE = 32, /* the layers above are small, and have few links to be reached by */
    ROOM = 64,
    SAMPLE = 1024, /* rows among which the entry is chosen */
};

size_t pe_graph_at_once(const peri_index *ix, size_t n)
{
    const pe_graph *g = pe_graph_of(ix);
    /* By inner product the near rows of a row are not what a search for it has to find: cells of
     * near rows would not do. */
    if (ix->space.metric == PERI_METRIC_IP || g->build == PERI_BUILD_SEARCH)
        return 0;
    for (unsigned l = 1; l < PE_GRAPH_LEVELS; l++)
        if (g->layer[l].count)
            return 0; /* nodes of rows removed since */
    return n >= BULK_ROWS && pe_graph_entry(g) == PE_GRAPH_NO_ENTRY && g->n_dead == 0 ? n : 0;
}

/* ---- equal rows ---- */

typedef struct hashed {
    uint64_t hash;
    uint32_t at; /* in the batch */
} hashed;

static int by_hash(const void *a, const void *b)
{
    const hashed *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return x->at < y->at ? -1 : 1;
}

typedef struct batch {
    peri_index *ix;
    const uint32_t *slots;
    size_t n;
    uint32_t *nodes; /* of the layer being built; at first the rows that differ, ascending */
    size_t n_nodes;
    uint32_t *draws; /* which draw of a level is theirs */
    uint32_t *same;  /* of each row of the batch: the slot that it equals, or PE_NIL */
} batch;

static const unsigned char *row_of(const batch *b, size_t i)
{
    return pe_array_at(&b->ix->rows.rows, b->slots[i]);
}

static int by_number(const void *a, const void *b)
{
    uint32_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

static peri_status find_equal(batch *b)
{
    size_t stride = b->ix->rows.rows.stride;
    hashed *h = pe_alloc(&b->ix->host, b->n * sizeof *h);
    if (!h)
        return PERI_ERR_NOMEM;
    for (size_t i = 0; i < b->n; i++)
        h[i] = (hashed){XXH3_64bits(row_of(b, i), stride), (uint32_t)i};
    qsort(h, b->n, sizeof *h, by_hash);
    for (size_t i = 0, first = 0; i < b->n; i++) {
        /* Only the first of a hash is compared with: what a collision hides costs a few links. */
        first = h[i].hash == h[first].hash ? first : i;
        int same = i != first && memcmp(row_of(b, h[i].at), row_of(b, h[first].at), stride) == 0;
        b->same[h[i].at] = same ? b->slots[h[first].at] : PE_NIL;
    }
    pe_free(&b->ix->host, h, b->n * sizeof *h);
    for (size_t i = 0; i < b->n; i++)
        if (b->same[i] == PE_NIL)
            b->nodes[b->n_nodes++] = b->slots[i];
    qsort(b->nodes, b->n_nodes, sizeof *b->nodes, by_number);
    for (size_t i = 0; i < b->n_nodes; i++)
        b->draws[i] = (uint32_t)i;
    return PERI_OK;
}

/* ---- layers ---- */

static peri_status build_layer(batch *b, unsigned level, pe_progress *progress, unsigned workers)
{
    const pe_graph *g = pe_graph_of(b->ix);
    pe_view view = pe_graph_build_view(b->ix);
    pe_bulk k = {.rows = &b->ix->rows,
                 .layer = &g->layer[level],
                 .view = &view,
                 .nodes = b->nodes,
                 .n = b->n_nodes,
                 .alpha = pe_graph_alpha_key(g),
                 .cell = PE_BULK_CELL,
                 .fanout = g->fanout,
                 .near = level ? NEAR_ABOVE : NEAR,
                 .room = ROOM,
                 .fill = level == 0 && g->layout == PERI_LAYOUT_Q,
                 .seed = g->seed + level};
    return pe_bulk_build(&k, progress, workers);
}

/* Nodes of the layer above, for those of b->nodes that were drawn so high; their numbers then
 * stand in b->nodes. */
static void raise_nodes(batch *b, unsigned level)
{
    pe_graph *g = pe_graph_of(b->ix);
    pe_layer *layer = &g->layer[level];
    size_t n = 0;
    for (size_t i = 0; i < b->n_nodes; i++) {
        uint32_t down = b->nodes[i], slot = pe_layer_slot(&g->layer[level - 1], down);
        if (pe_graph_level_of(g, g->drawn + b->draws[i]) < level)
            continue;
        uint32_t node = layer->count;
        pe_link *words = (pe_link *)pe_array_at(&layer->nodes, node);
        pe_link_set(&words[0], slot);
        pe_link_set(&words[1], down);
        atomic_store_explicit(&layer->count, node + 1, memory_order_release);
        b->draws[n] = b->draws[i];
        b->nodes[n++] = node;
    }
    b->n_nodes = n;
}

/* The row nearest to the mean of a sample: where searches of a single layer begin. */
static peri_status middle(const batch *b, uint32_t *node)
{
    const peri_index *ix = b->ix;
    uint32_t dim = ix->space.dim;
    size_t n = b->n_nodes < SAMPLE ? b->n_nodes : SAMPLE;
    float *x = pe_calloc(&b->ix->host, 2 * dim * sizeof *x), *mean = x + dim, least = 0;
    if (!x)
        return PERI_ERR_NOMEM;
    const pe_kernels *k = ix->rows.kernels;
    for (size_t i = 0; i < n; i++) {
        pe_rows_get(&ix->rows, b->nodes[b->n_nodes * i / n], x, 0);
        for (uint32_t d = 0; d < dim; d++)
            mean[d] += x[d] / (float)n;
    }
    *node = b->nodes[0];
    for (size_t i = 0; i < n; i++) {
        uint32_t slot = b->nodes[b->n_nodes * i / n];
        pe_rows_get(&ix->rows, slot, x, 0);
        float d = k->dist[PE_OP_L2][PE_ELEM_F32].one(mean, x, dim);
        if (i == 0 || d < least) {
            least = d;
            *node = slot;
        }
    }
    pe_free(&b->ix->host, x, 2 * dim * sizeof *x);
    return PERI_OK;
}

/* Back to an empty index: nothing leads into the lists any more. */
static void undo(batch *b)
{
    pe_graph *g = pe_graph_of(b->ix);
    for (unsigned l = 1; l < PE_GRAPH_LEVELS; l++) {
        for (uint32_t node = 0; node < g->layer[l].count; node++)
            memset(pe_array_at(&g->layer[l].nodes, node), 0xff, g->layer[l].nodes.stride);
        atomic_store_explicit(&g->layer[l].count, 0, memory_order_release);
    }
    for (size_t i = 0; i < b->n; i++)
        pe_layer_clear(&g->layer[0], b->slots[i]);
}

static peri_status build_layers(batch *b, pe_progress *progress, unsigned workers, uint64_t *entry)
{
    pe_graph *g = pe_graph_of(b->ix);
    uint32_t node;
    unsigned level = 0;
    PE_TRY(find_equal(b));
    PE_TRY(middle(b, &node));
    PE_TRY(build_layer(b, 0, progress, workers));
    while (!g->one_layer && ++level < PE_GRAPH_LEVELS) {
        raise_nodes(b, level);
        if (b->n_nodes == 0)
            break;
        node = b->nodes[0];
        PE_TRY(build_layer(b, level, progress, workers));
        *entry = (uint64_t)level << 32 | node;
    }
    if (*entry == PE_GRAPH_NO_ENTRY)
        *entry = node;
    return PERI_OK;
}

peri_status pe_graph_insert_bulk(peri_index *ix, const uint32_t *slots, size_t n,
                                 pe_progress *progress, unsigned workers)
{
    pe_graph *g = pe_graph_of(ix);
    batch b = {.ix = ix, .slots = slots, .n = n};
    uint64_t entry = PE_GRAPH_NO_ENTRY;
    b.nodes = pe_alloc(&ix->host, n * sizeof *b.nodes);
    b.draws = pe_alloc(&ix->host, n * sizeof *b.draws);
    b.same = pe_alloc(&ix->host, n * sizeof *b.same);
    peri_status status = b.nodes && b.draws && b.same ? PERI_OK : PERI_ERR_NOMEM;
    if (status == PERI_OK)
        status = build_layers(&b, progress, workers, &entry);
    if (status == PERI_OK) {
        atomic_store_explicit(&g->entry, entry, memory_order_release);
        for (size_t i = 0; i < n; i++)
            if (b.same[i] != PE_NIL)
                pe_link_same(&g->layer[0], &g->locks, b.same[i], slots[i]);
    } else {
        undo(&b);
    }
    pe_free(&ix->host, b.nodes, n * sizeof *b.nodes);
    pe_free(&ix->host, b.draws, n * sizeof *b.draws);
    pe_free(&ix->host, b.same, n * sizeof *b.same);
    return status;
}
