/* What the graph indexes share: layers of adjacency lists, beam search, pruning, linking.
 *
 * A layer is an array of nodes of fixed degree. At the dense layer a node's number is its slot; in
 * the layers above a node starts with two words more, its slot and its number one layer down.
 * Links are packed at the front, PE_NIL ends them. A link with PE_SAME set leads to a row equal to
 * this one, bit for bit: rows that repeat hang in a chain from one of them, because a list full of
 * copies would lead nowhere else.
 *
 * Invariants:
 *  G1. A link is below the layer's count once the writer is done; a reader that meets one at or
 *      above the count that it started with skips it.
 *  G2. Links are relaxed atomics; a list is rewritten link by link, so a reader may see a mix of
 *      the old list and the new: each link is valid on its own.
 *  G3. A node's row is written before any link to it is stored (release), and a reader loads links
 *      with acquire.
 *  G4. Where a layer counts how many lists lead to a node (`into`), no list drops a link to a node
 *      that only it leads to, except one whose own node goes.
 *  G5. While a team inserts, a list is written only under its stripe's lock; readers take none.
 */
#ifndef PE_GRAPH_H
#define PE_GRAPH_H

#include "base/topk.h"
#include "rows/rows.h"

#define PE_NIL  UINT32_MAX
#define PE_SAME 0x80000000u

enum { PE_DEGREE_MAX = 512, PE_LAYER_HEAD = 2, PE_LOCKS = 4096 };

typedef _Atomic uint32_t pe_link;

typedef struct pe_layer {
    pe_array nodes;
    uint32_t degree; /* most links of a node */
    uint32_t head;   /* words before the links: 0, or PE_LAYER_HEAD above the dense layer */
    _Atomic uint32_t count;
    pe_array into; /* dense layer: lists that lead to each node, one byte, 255 = 255 or more */
    const pe_array *fresh; /* NULL, or one byte a node, cleared before its list is written */
} pe_layer;

void pe_layer_init(pe_layer *l, pe_host *host, uint32_t degree, uint32_t head);
void pe_layer_destroy(pe_layer *l);
/* Room for n nodes in all; the lists of new ones are empty. */
peri_status pe_layer_reserve(pe_layer *l, pe_epoch *e, size_t n, int exact);

static inline pe_link *pe_layer_links(const pe_layer *l, uint32_t node)
{
    return (pe_link *)pe_array_at(&l->nodes, node) + l->head;
}
static inline uint32_t pe_link_get(const pe_link *link)
{
    return atomic_load_explicit(link, memory_order_acquire);
}
static inline void pe_link_set(pe_link *link, uint32_t to)
{
    atomic_store_explicit(link, to, memory_order_release);
}
/* Slot and node below, of a node above the dense layer. */
static inline uint32_t pe_layer_slot(const pe_layer *l, uint32_t node)
{
    return l->head ? pe_link_get((pe_link *)pe_array_at(&l->nodes, node)) : node;
}
static inline uint32_t pe_layer_down(const pe_layer *l, uint32_t node)
{
    return pe_link_get((pe_link *)pe_array_at(&l->nodes, node) + 1);
}
/* How many lists lead to a node; many, where that is not counted. */
static inline unsigned pe_layer_into(const pe_layer *l, uint32_t node)
{
    if (l->head)
        return 255;
    return atomic_load_explicit((_Atomic uint8_t *)pe_array_at(&l->into, node),
                                memory_order_relaxed);
}
/* Count all links afresh, after loading. */
void pe_layer_count_into(pe_layer *l, uint32_t nodes);
/* Write a whole list, marks included; n up to the degree. The node's lock is held, or no team runs.
 */
void pe_list_write(const pe_layer *l, uint32_t node, const uint32_t *links, size_t n);
/* Make a node anew: no links, and nothing leads to it (a count that had reached 255 would say so
 * for ever). */
void pe_layer_clear(const pe_layer *l, uint32_t node);
/* Copy a list as it is, marks included. */
size_t pe_list_read(const pe_layer *l, uint32_t node, uint32_t *out);
/* Copy a node's links out without its chain mark; returns how many. */
size_t pe_layer_copy(const pe_layer *l, uint32_t node, uint32_t *out);

/* Whether a search may return a slot. */
typedef int (*pe_accept_fn)(const void *ctx, uint32_t slot);

/* Room for one search or one insertion, kept by a thread and used again. */
typedef struct pe_beam {
    pe_host *host;
    size_t ef_room;
    float *key;     /* the pool, nearest first */
    uint32_t *node; /* its nodes; PE_EXPANDED marks those whose links were followed */
    size_t n;
    pe_cand *found; /* accepted slots when there is a filter */
    size_t n_found, found_room;
    uint64_t *seen; /* one bit a node */
    size_t seen_words;
    uint32_t *touched; /* words of `seen` to clear, unless too many */
    size_t n_touched;
    uint32_t *next; /* neighbours to measure */
    uint32_t *slots;
    float *out;
    size_t n_same;       /* of the pool, rows taken because they equal another */
    uint64_t visits;     /* keys computed */
    unsigned char *luts; /* what pe_quantised_search makes of a query */
    size_t luts_room;
    uint64_t *done; /* one bit a node that it expanded */
    size_t done_words;
} pe_beam;

#define PE_EXPANDED 0x80000000u

void pe_beam_init(pe_beam *b, pe_host *host);
void pe_beam_destroy(pe_beam *b);

typedef struct pe_beam_query {
    const pe_layer *layer;
    uint32_t limit; /* nodes at or above are not looked at; the view covers all below */
    const pe_view *view;
    const pe_point *point;
    size_t ef;   /* pool */
    float slack; /* stop once the next candidate's key is beyond this times the ef-th; 0 = off */
    pe_accept_fn accept; /* NULL = all */
    const void *accept_ctx;
    size_t want; /* results asked for: accepted slots to keep, copies to look for */
    const uint32_t *entries;
    size_t n_entries;
} pe_beam_query;

/* Room for searches of up to `ef` over `limit` nodes that then cannot fail; want > 0 with accept.
 */
peri_status pe_beam_reserve(pe_beam *b, uint32_t limit, size_t ef, size_t want);

/* Beam search: afterwards b->key and b->node hold up to ef nearest nodes seen, and with a filter
 * b->found the nearest accepted, sorted. Errors: ERR_NOMEM. */
peri_status pe_beam_search(pe_beam *b, const pe_beam_query *q);
/* Greedy walk to a local minimum from `node`: the descent through the upper layers. */
uint32_t pe_beam_greedy(pe_beam *b, const pe_layer *l, uint32_t slot_limit, const pe_view *view,
                        const pe_point *point, uint32_t node, float *key);

/* Choose up to `degree` of the candidates (sorted, nearest first; nodes of the layer) such that
 * none is nearer to a chosen one than to the point, by the factor alpha (the relative
 * neighbourhood rule of HNSW with the slack of Vamana, Jayaram Subramanya et al., NeurIPS 2019). */
typedef struct pe_pruner {
    const pe_rows *rows;
    const pe_layer *layer;
    const pe_view *view;
    float alpha; /* on keys: squared where keys are */
    float *scratch;
    uint32_t *chosen_slots;
} pe_pruner;
/* `chosen` nodes stand in out already. Returns the count with them. */
size_t pe_prune(const pe_pruner *p, const pe_cand *sorted, size_t n, size_t degree, size_t chosen,
                uint32_t *out);

/* Striped spin locks for a team. */
typedef struct pe_locks {
    _Atomic uint8_t lock[PE_LOCKS];
} pe_locks;
void pe_lock(pe_locks *l, uint32_t node);
void pe_unlock(pe_locks *l, uint32_t node);

/* Put `to` at the end of the list, unpruned; where there is no room, with `replace`, instead of the
 * farthest link whose node others lead to as well. Returns 1 when the link stands there afterwards.
 */
int pe_link_force(const pe_layer *l, pe_locks *locks, uint32_t node, uint32_t to, int replace);

/* Give `node` the link `to`, pruning its list when full. */
void pe_link_add(const pe_pruner *p, pe_locks *locks, uint32_t node, uint32_t to, float key);

/* Hang `to`, whose row equals that of `node`, in the chain of `node`; its own list is empty. */
void pe_link_same(const pe_layer *l, pe_locks *locks, uint32_t node, uint32_t to);

#endif
