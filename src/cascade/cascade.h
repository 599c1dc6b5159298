/* Cascade: hyperplane LSH, a tree of buckets, a sparse graph.
 *
 * The graph is that of graph/, of one layer, built in bulk from cells of near rows: this is what
 * answers. The hash of a row is one bit a hyperplane (Charikar, STOC 2002); buckets are the leaves
 * of a binary tree over these bits, split where they overflow, in the order of the hyperplanes (an
 * LSH forest of one tree: Bawa et al., WWW 2005). A query takes rows of the buckets nearest to it
 * by margin (multi-probe: Lv et al., VLDB 2007) as its entry points into the graph, so that it
 * begins close by, whatever the clusters.
 *
 * Invariants:
 *  C1. A bucket holds slots, packed at the front, PE_NIL ends them. It is a hint: it may name any
 *      slot below the count, and a row that its full bucket has no room for is found by the graph.
 *  C2. Buckets and children are relaxed atomics; the writer rewrites them under readers, who may
 *      see a mix: each entry is valid on its own.
 *  C3. A child is a number above its parent's, or a bucket; each hangs from one node; no node has
 *      as many above it as there are hyperplanes. */
#ifndef PE_CASCADE_H
#define PE_CASCADE_H

#include "graph/graph_index.h"

enum { CASCADE_PLANES = 32, CASCADE_PROBES = 64, CASCADE_TOP_PRESET = PERI_CASCADE_FAST_SEARCH };

typedef struct cascade_tree {
    uint32_t planes, capacity, probes;
    float *normals;    /* planes x dim, from the seed */
    float *thresholds; /* one a plane: the medians of a sample */
    _Atomic int trained;
    _Atomic uint32_t root; /* CASCADE_BUCKET | bucket, or a node */
    pe_array nodes;        /* two children each */
    pe_array buckets;      /* capacity slots each */
    uint32_t n_nodes, n_buckets;
    pe_array bits; /* u32 a slot: its hash */
} cascade_tree;

#define CASCADE_BUCKET 0x80000000u

typedef struct cascade {
    pe_graph graph; /* first: the functions of graph/ see a pe_graph */
    uint32_t preset;
    float target_recall;
    int fixed_effort; /* the caller set ef_search */
    cascade_tree tree;
} cascade;

extern const pe_kind pe_cascade_kind;

static inline cascade *cascade_of(const peri_index *ix)
{
    return ix->self;
}

/* Cells that a row goes to when built in bulk. */
uint32_t pe_cascade_fanout(uint32_t preset);

/* Room for the fields given; the tree is one empty bucket. Errors: ERR_CONFIG, ERR_NOMEM. */
peri_status pe_cascade_tree_init(peri_index *ix, uint32_t planes, uint32_t capacity,
                                 uint32_t probes);
void pe_cascade_tree_destroy(peri_index *ix);
peri_status pe_cascade_tree_reserve(peri_index *ix, size_t slots, int exact);
/* Thresholds from rows given, or from rows of the index, which are then hung in the tree. */
peri_status pe_cascade_tree_train(peri_index *ix, const float *rows, size_t n);
void pe_cascade_tree_add(peri_index *ix, uint32_t slot, float *scratch);
void pe_cascade_tree_remove(peri_index *ix, uint32_t slot);
size_t pe_cascade_tree_seeds(const peri_index *ix, const float *point, uint32_t limit,
                             uint32_t *out);

peri_status pe_cascade_save(const peri_index *ix, pe_segw *w, const uint32_t *renumber,
                            uint32_t count);
peri_status pe_cascade_open(peri_index *ix, pe_segr *r, int map, int writable);
peri_status pe_cascade_check(const peri_index *ix, pe_progress *progress, uint64_t *faults);

#endif
