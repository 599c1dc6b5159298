/* The graph under an index: what kind hnsw is, and what kind cascade stands on.
 *
 * A navigable small world graph, hierarchical (Malkov and Yashunin, TPAMI 2020) or of the dense
 * layer alone, with lists pruned by a slack alpha (Vamana), traversal on 8-bit codes and re-ranking
 * on rows, deletes that repair. Many rows put into an empty index are built in bulk (bulk.h), else
 * each is inserted by a search of its own.
 *
 * Invariants, beside those of graph.h:
 *  H1. Every live row is a node of the dense layer (or hangs in a chain of equal rows from one).
 *  H2. A node of layer L > 0 knows its slot and its node at layer L - 1 (layer 1: the slot).
 *  H3. A node is linked from the dense layer upwards: whoever meets it above finds it linked below.
 *  H4. The entry is a node of the top layer, stored after the arrays that hold it have grown.
 *  H5. A node above the dense layer whose slot is PE_NIL is spare: nothing links to it.
 *  H6. A dead slot is released only after a sweep over all layers that began after its removal
 *      found every link to it replaced.
 *
 * The draw of a row's level depends on the seed and on how many rows were inserted before it, so
 * that the space a batch needs in each layer is known before the team starts.
 */
#ifndef PE_GRAPH_INDEX_H
#define PE_GRAPH_INDEX_H

#include "graph/quantised.h"
#include "index/index.h"

enum { PE_GRAPH_LEVELS = 12, PE_GRAPH_TOP = PE_GRAPH_LEVELS - 1 };
#define PE_GRAPH_NO_ENTRY UINT64_MAX

/* What one worker of a build needs. */
typedef struct pe_graph_worker {
    pe_beam beam;
    float *scratch;   /* a row of floats, for the point searched for */
    float *row;       /* another */
    uint32_t *chosen; /* PE_DEGREE_MAX slots, for pruning */
    pe_cand *cands;   /* ef_construction candidates */
    uint32_t *picked; /* PE_DEGREE_MAX links of the dense layer */
} pe_graph_worker;

/* More entry points for a search of the dense layer from a point: fills `out` and returns how many,
 * at most PE_GRAPH_SEEDS. They may be any slots below `limit`. */
enum { PE_GRAPH_SEEDS = 32 };
typedef size_t (*pe_graph_seeds)(const peri_index *ix, const float *point, uint32_t limit,
                                 uint32_t *out);

typedef struct pe_graph {
    uint32_t m, m_max, ef_construction, ef_search;
    uint16_t codes;
    uint16_t layout;    /* PERI_LAYOUT_* */
    uint32_t one_layer; /* no layers above the dense one */
    float alpha;
    uint64_t seed;
    uint32_t build;       /* PERI_BUILD_* */
    uint32_t fanout;      /* of the bulk builder: cells that a row goes to */
    pe_graph_seeds seeds; /* NULL = none */
    pe_layer layer[PE_GRAPH_LEVELS];
    pe_quantised quantised; /* of the dense layer, where the layout is Q */
    _Atomic uint64_t entry; /* level << 32 | node */
    uint64_t drawn;         /* levels drawn so far */
    pe_locks locks;
    pthread_mutex_t upper; /* inserts into the layers above the dense one */
    pe_graph_worker *workers;
    unsigned n_workers;
    /* Removed slots: the first n_sweeping, sorted, are those that the sweep under way will free.
     * See graph_delete.c. */
    pe_array gone; /* one bit a slot */
    uint32_t *dead;
    size_t n_dead, dead_room, n_sweeping;
    int sweep_layer;   /* -1 = no sweep under way */
    int sweep_freeing; /* its second pass: give back nodes above the dense layer */
    uint32_t sweep_node;
    uint32_t *spare[PE_GRAPH_LEVELS]; /* nodes of upper layers to use again */
    size_t n_spare[PE_GRAPH_LEVELS], spare_room[PE_GRAPH_LEVELS];
} pe_graph;

static inline pe_graph *pe_graph_of(const peri_index *ix)
{
    return ix->self;
}
static inline uint64_t pe_graph_entry(const pe_graph *g)
{
    return atomic_load_explicit(&g->entry, memory_order_acquire);
}
static inline float pe_graph_alpha_key(const pe_graph *g)
{
    return g->alpha * g->alpha; /* keys are squared distances, or grow as they do */
}

/* The parts of a kind's init and open: the state of an empty graph; then, its fields set, checks
 * and room. Errors: ERR_CONFIG, ERR_NOMEM. */
void pe_graph_start(pe_graph *g);
peri_status pe_graph_setup(peri_index *ix);
peri_status pe_graph_init_layers(peri_index *ix);

/* Was this slot removed, and not used again since? Unlike the slot directory's hidden bit this is
 * not set for the rows of a batch that is being inserted. For the writer. */
static inline int pe_graph_is_gone(const pe_graph *g, uint32_t slot)
{
    return (int)(*(const uint64_t *)(const void *)pe_array_at(&g->gone, slot / 64) >> slot % 64 &
                 1);
}
void pe_graph_set_gone(pe_graph *g, uint32_t slot, int gone);

/* The view that builds traverse: codes where there are any. */
pe_view pe_graph_build_view(const peri_index *ix);
pe_pruner pe_graph_pruner(const peri_index *ix, const pe_view *view, pe_graph_worker *w,
                          unsigned level);
uint32_t pe_graph_level_of(const pe_graph *g, uint64_t draw);
peri_status pe_graph_make_workers(peri_index *ix, unsigned n);
void pe_graph_free_workers(peri_index *ix);

/* Search the dense layer for `slot`, which is `p`, with the effort of a build; what is found lies
 * in w->beam. */
void pe_graph_find(peri_index *ix, pe_graph_worker *w, const pe_view *view, const pe_point *p,
                   uint32_t slot);
/* Search for the neighbours of a slot that is no node yet, or has no link left, and link it into
 * the dense layer. Returns 0 when it was hung in a chain of equal rows. */
int pe_graph_link_dense(peri_index *ix, pe_graph_worker *w, const pe_view *view, const pe_point *p,
                        uint32_t slot);
/* Mark what the dense layer reaches from the entry: one bit a slot, room given. */
peri_status pe_graph_reach(const peri_index *ix, uint32_t count, uint64_t *reached);
/* A row just hung in a chain may lead to a removed one: pass over it. */
void pe_graph_mend_chain(peri_index *ix, uint32_t node);
/* Make a node near `slot` that is reached from the entry lead to it. */
void pe_graph_link_back(peri_index *ix, uint32_t slot);
/* Do so for every node below `count` that no list leads to. */
void pe_graph_link_orphans(peri_index *ix, uint32_t count);
/* Link nodes below `count` that a walk from the entry does not reach to where a search for them
 * ends, until there are none. Errors: ERR_NOMEM. */
peri_status pe_graph_connect(peri_index *ix, uint32_t count);

/* Build all n rows into a graph that is empty, lists cleared. Equal rows hang in chains; some nodes
 * may not be reached yet. Errors: ERR_NOMEM, ERR_CANCELLED: the graph is then empty as before. */
peri_status pe_graph_insert_bulk(peri_index *ix, const uint32_t *slots, size_t n,
                                 pe_progress *progress, unsigned workers);

/* Descend from the top to `level`; returns the node there, its key in *key. */
uint32_t pe_graph_descend(const pe_graph *g, pe_beam *b, const pe_view *view, const pe_point *p,
                          uint32_t slot_limit, uint64_t entry, unsigned level, float *key);

/* The functions of a kind's table. */
void pe_graph_destroy(peri_index *ix);
/* Make the codes of layout Q where lists changed. Errors: ERR_NOMEM, ERR_CANCELLED. */
peri_status pe_graph_refresh(peri_index *ix, uint32_t count, pe_progress *progress,
                             unsigned workers);
peri_status pe_graph_before(peri_index *ix, const float *rows, size_t n, pe_progress *progress);
peri_status pe_graph_reserve(peri_index *ix, size_t slots, size_t rows, int exact,
                             unsigned workers);
size_t pe_graph_at_once(const peri_index *ix, size_t n);
peri_status pe_graph_insert(peri_index *ix, const uint32_t *slots, size_t n, pe_progress *progress,
                            unsigned workers, size_t *done);
void pe_graph_removed(peri_index *ix, uint32_t slot);
peri_status pe_graph_search(pe_search *s);
peri_status pe_graph_maintain(peri_index *ix, pe_progress *progress, unsigned workers);
peri_status pe_graph_save(const peri_index *ix, pe_segw *w, const uint32_t *renumber,
                          uint32_t count);
peri_status pe_graph_open(peri_index *ix, pe_segr *r, int map, int writable);
void pe_graph_info(const peri_index *ix, peri_index_info *out);
uint32_t pe_graph_effort(const peri_index *ix);
peri_status pe_graph_check(const peri_index *ix, pe_progress *progress, uint64_t *faults);

#endif
