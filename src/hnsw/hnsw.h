/* Hierarchical navigable small world graph (Malkov and Yashunin, TPAMI 2020), with lists pruned by
 * a slack alpha (Vamana), traversal on 8-bit codes and re-ranking on rows, deletes that repair.
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
#ifndef PE_HNSW_H
#define PE_HNSW_H

#include "graph/graph.h"
#include "index/index.h"

enum { HNSW_LEVELS = 12, HNSW_TOP_LEVEL = HNSW_LEVELS - 1 };
#define HNSW_NO_ENTRY UINT64_MAX

/* What one worker of a build needs. */
typedef struct hnsw_worker {
    pe_beam beam;
    float *scratch;   /* a row of floats */
    uint32_t *chosen; /* PE_DEGREE_MAX slots, for pruning */
    pe_cand *cands;   /* ef_construction candidates */
    uint32_t *picked; /* PE_DEGREE_MAX links of the dense layer */
} hnsw_worker;

typedef struct hnsw {
    uint32_t m, m_max, ef_construction, ef_search;
    uint16_t codes;
    float alpha;
    uint64_t seed;
    pe_layer layer[HNSW_LEVELS];
    _Atomic uint64_t entry; /* level << 32 | node */
    uint64_t drawn;         /* levels drawn so far */
    pe_locks locks;
    pthread_mutex_t upper; /* inserts into the layers above the dense one */
    hnsw_worker *workers;
    unsigned n_workers;
    /* Removed slots: the first n_sweeping, sorted, are those that the sweep under way will free.
     * See hnsw_delete.c. */
    pe_array gone; /* one bit a slot */
    uint32_t *dead;
    size_t n_dead, dead_room, n_sweeping;
    int sweep_layer;   /* -1 = no sweep under way */
    int sweep_freeing; /* its second pass: give back nodes above the dense layer */
    uint32_t sweep_node;
    uint32_t *spare[HNSW_LEVELS]; /* nodes of upper layers to use again */
    size_t n_spare[HNSW_LEVELS], spare_room[HNSW_LEVELS];
} hnsw;

extern const pe_kind pe_hnsw_kind;

static inline hnsw *hnsw_of(const peri_index *ix)
{
    return ix->self;
}
static inline uint64_t hnsw_entry(const hnsw *h)
{
    return atomic_load_explicit(&h->entry, memory_order_acquire);
}
static inline float hnsw_alpha_key(const hnsw *h)
{
    return h->alpha * h->alpha; /* keys are squared distances, or grow as they do */
}

void pe_hnsw_init_layers(peri_index *ix);

/* Was this slot removed, and not used again since? Unlike the slot directory's hidden bit this is
 * not set for the rows of a batch that is being inserted. For the writer. */
static inline int hnsw_is_gone(const hnsw *h, uint32_t slot)
{
    return (int)(*(const uint64_t *)(const void *)pe_array_at(&h->gone, slot / 64) >> slot % 64 &
                 1);
}
void pe_hnsw_set_gone(hnsw *h, uint32_t slot, int gone);

/* The view that builds traverse: codes where there are any. */
pe_view pe_hnsw_build_view(const peri_index *ix);
pe_pruner pe_hnsw_pruner(const peri_index *ix, const pe_view *view, hnsw_worker *w, unsigned level);
uint32_t pe_hnsw_level_of(const hnsw *h, uint64_t draw);
peri_status pe_hnsw_make_workers(peri_index *ix, unsigned n);
void pe_hnsw_free_workers(peri_index *ix);

/* Search the dense layer with the effort of a build; what is found lies in w->beam. */
void pe_hnsw_find(peri_index *ix, hnsw_worker *w, const pe_view *view, const pe_point *p);
/* Search for the neighbours of a slot that is no node yet, or has no link left, and link it into
 * the dense layer. Returns 0 when it was hung in a chain of equal rows. */
int pe_hnsw_link_dense(peri_index *ix, hnsw_worker *w, const pe_view *view, const pe_point *p,
                       uint32_t slot);
/* Mark what the dense layer reaches from the entry: one bit a slot, room given. */
peri_status pe_hnsw_reach(const peri_index *ix, uint32_t count, uint64_t *reached);
/* A row just hung in a chain may lead to a removed one: pass over it. */
void pe_hnsw_mend_chain(peri_index *ix, uint32_t node);
/* Make a node near `slot` that is reached from the entry lead to it. */
void pe_hnsw_link_back(peri_index *ix, uint32_t slot);
/* Do so for every node below `count` that no list leads to. */
void pe_hnsw_link_orphans(peri_index *ix, uint32_t count);
/* Link nodes below `count` that a walk from the entry does not reach to where a search for them
 * ends, until there are none. Errors: ERR_NOMEM. */
peri_status pe_hnsw_connect(peri_index *ix, uint32_t count);

/* Descend from the top to `level`; returns the node there, its key in *key. */
uint32_t pe_hnsw_descend(const hnsw *h, pe_beam *b, const pe_view *view, const pe_point *p,
                         uint32_t slot_limit, uint64_t entry, unsigned level, float *key);

peri_status pe_hnsw_before(peri_index *ix, const float *rows, size_t n, pe_progress *progress);
peri_status pe_hnsw_reserve(peri_index *ix, size_t slots, size_t rows, int exact, unsigned workers);
peri_status pe_hnsw_insert(peri_index *ix, const uint32_t *slots, size_t n, pe_progress *progress,
                           unsigned workers, size_t *done);
void pe_hnsw_removed(peri_index *ix, uint32_t slot);
peri_status pe_hnsw_search(pe_search *s);
peri_status pe_hnsw_maintain(peri_index *ix, pe_progress *progress, unsigned workers);
peri_status pe_hnsw_save(const peri_index *ix, pe_segw *w, const uint32_t *renumber,
                         uint32_t count);
peri_status pe_hnsw_open(peri_index *ix, pe_segr *r, int map, int writable);
peri_status pe_hnsw_check(const peri_index *ix, pe_progress *progress, uint64_t *faults);

#endif
