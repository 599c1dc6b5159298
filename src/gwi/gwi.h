/* Gravity wells: a partition index. In the field's words an inverted file (IVF) whose coarse
 * quantiser is a tree of two levels, whose lists hold RaBitQ codes in fast-scan blocks, and whose
 * lists split and merge (SPFresh, Xu et al., SOSP 2023) so that it never freezes. An *attractor* is
 * a centroid; a *well* the rows that fell to one; a *group* the wells under one upper attractor.
 *
 * Until it is trained the rows wait and a search measures them all; training takes a sample, the
 * caller's or the first rows.
 *
 * Invariants:
 *  W1. Once there is a tree, each row that is not removed has one lane in the blocks of one well,
 *      the one that where[slot] names; no removed row has any.
 *  W2. A published tree never changes. A split, a merge or a regrouping publishes another one; what
 *      it no longer names is retired, and freed when no reader is left that may hold it.
 *  W3. The codes and factors of a block never change once a list names it. Rows are added to a
 *      part-filled block by a copy of it that takes its place with one store. What does change is a
 *      lane's entry, from a slot to PE_NO_SLOT, when its row is removed.
 *  W4. All blocks of a list but the last have 32 lanes in use (removed ones included).
 *  W5. Centres are rotated (rows/bitcode.h); a centre's record is not changed while a tree or a
 *      well names it.
 * So a reader loads the tree once and needs no lock; it sees a row that is moved meanwhile where it
 * was, where it is, or in both places, never in neither.
 *
 * Everything is done by the one writer, but for the routing and encoding of a batch, which its team
 * shares: by rows, then by wells, so the result does not depend on the number of workers. */
#ifndef PE_GWI_H
#define PE_GWI_H

#include "index/index.h"
#include "rows/bitcode.h"

enum {
    GWI_BEAM = 4,        /* groups whose wells a row is measured against */
    GWI_LEAST_ROWS = 48, /* rows of a well that are worth one */
    GWI_MOST_WELLS = 1 << 20,
    GWI_PIECE_BYTES = 16 << 20, /* of rotated rows at a time, in a batch */
};

enum { GWI_ROOM_ROWS, GWI_ROOM_ROUTE, GWI_ROOMS };

typedef struct gwi_list {
    uint32_t room;
    _Atomic uint32_t n;
    _Atomic uint32_t block[];
} gwi_list;

typedef struct gwi_well {
    uint32_t centre; /* its record; the number by which where[] names the well */
    float norm;      /* squared, of the centre */
    _Atomic(gwi_list *) list;
    /* The writer's: */
    uint32_t rows;         /* lanes whose row is not removed */
    uint32_t lanes;        /* in use */
    uint32_t stable;       /* not to be split below this many rows: it could not be divided */
    uint32_t index;        /* its place in the tree */
    struct gwi_well *heir; /* takes its place in the tree under way; else NULL */
} gwi_well;

/* The centres of a group's wells as codes relative to the group's own: blocks as in a well, lane
 * for lane in the order of the wells. A query ranks thousands of wells by these and measures a few
 * dozen. One allocation of `bytes`. */
typedef struct gwi_codes {
    size_t bytes;
    unsigned char *block; /* pe_gwi_code_stride apart */
} gwi_codes;

/* One allocation of `bytes`, and the codes, which trees share for groups that they have in common.
 */
typedef struct gwi_tree {
    size_t bytes;
    uint32_t n_groups, n_wells;
    uint32_t *group;   /* centre record of each upper attractor */
    float *group_norm; /* its squared norm */
    uint32_t *first;   /* wells of group g: first[g] .. first[g + 1] */
    uint32_t *centre;  /* of each well, and its squared norm: as in the well itself */
    float *norm;
    gwi_well **well;
    gwi_codes **codes; /* of each group */
} gwi_tree;

/* A stack of numbers free to be used again. */
typedef struct gwi_free {
    uint32_t *number;
    size_t n, room;
    uint32_t used; /* numbers handed out ever */
} gwi_free;

typedef struct gwi {
    uint32_t branching, levels, wells, nprobe, rounds, train_rows;
    uint16_t codes, bits;
    uint64_t seed;
    int ready; /* bitcode and arrays are there to be destroyed */
    pe_bitcode bitcode;
    pe_array blocks;  /* codes, factors, then 32 entries */
    pe_array centres; /* width floats */
    pe_array where;   /* u32 a slot: centre record of its well, plus 1; 0 = none */
    gwi_free free_blocks, free_centres;
    gwi_well **by_centre; /* the well of a centre record, or NULL */
    size_t by_centre_room;
    _Atomic(gwi_tree *) tree; /* NULL until trained */
    uint64_t planned;         /* rows that wells are sized for, at least */
    uint64_t trained;         /* rows that the last training counted on */
    size_t entries_at;        /* in a block */
    /* For one row at a time: rotated row, room to rotate in, symbols, levels. */
    float *one_row, *one_tmp;
    uint8_t *one_symbols, *one_room;
    float *one_keys;
    size_t one_keys_room;
    /* Kept from piece to piece of a large batch: pages that go back and come again are cleared each
     * time, which was a third of an insert. */
    void *room[GWI_ROOMS];
    size_t room_bytes[GWI_ROOMS];
} gwi;

extern const pe_kind pe_gwi_kind;

static inline gwi *gwi_of(const peri_index *ix)
{
    return ix->self;
}
static inline gwi_tree *gwi_tree_of(const gwi *g)
{
    return atomic_load_explicit(&g->tree, memory_order_acquire);
}
static inline const float *gwi_centre(const gwi *g, uint32_t record)
{
    return (const float *)(const void *)pe_array_at(&g->centres, record);
}
static inline pe_rowview gwi_centre_view(const gwi *g)
{
    return (pe_rowview){(const unsigned char *const *)atomic_load_explicit(&g->centres.chunks,
                                                                           memory_order_acquire),
                        g->centres.shift, g->centres.mask, g->centres.stride, g->bitcode.width};
}
static inline _Atomic uint32_t *gwi_entries(const gwi *g, unsigned char *block)
{
    return (_Atomic uint32_t *)(void *)(block + g->entries_at);
}
static inline _Atomic uint32_t *gwi_where(const gwi *g, uint32_t slot)
{
    return (_Atomic uint32_t *)(void *)pe_array_at(&g->where, slot);
}
static inline gwi_list *gwi_list_of(const gwi_well *w)
{
    return atomic_load_explicit(&w->list, memory_order_acquire);
}

/* ---- gwi.c: sizes ---- */

/* Wells aimed at for so many rows. */
uint32_t pe_gwi_wells_for(const gwi *g, uint64_t rows);
/* Rows above which a well is split, below which it is merged. */
uint32_t pe_gwi_most_rows(const peri_index *ix);
uint32_t pe_gwi_least_rows(const peri_index *ix);
/* Bit code, arrays and the scratch of one row; after config and space are known. */
peri_status pe_gwi_setup(peri_index *ix);

/* ---- gwi_tree.c ---- */

gwi_tree *pe_gwi_new_tree(pe_host *host, uint32_t groups, uint32_t wells);
/* Free a tree that no reader has, with the codes that `kept` (may be NULL) does not share. */
void pe_gwi_free_tree(pe_host *host, gwi_tree *t, const gwi_tree *kept);
/* Make the codes of groups that have none; the tree is numbered. Errors: ERR_NOMEM. */
peri_status pe_gwi_encode_groups(peri_index *ix, gwi_tree *t);
/* Bytes from one block of centres' codes to the next. */
static inline size_t pe_gwi_code_stride(const gwi *g)
{
    return (g->entries_at + PE_ALIGN - 1) / PE_ALIGN * PE_ALIGN;
}
/* The group of a well. */
uint32_t pe_gwi_group_of(const gwi_tree *t, uint32_t well);
/* `old` without one well (PE_NO_SLOT: none), with `n` more in a group and heirs in the place of the
 * wells that have one; a group that is left without wells goes. NULL: no memory. */
gwi_tree *pe_gwi_tree_with(pe_host *host, const gwi_tree *old, uint32_t without, uint32_t group,
                           gwi_well *const *more, uint32_t n);
/* Tell the wells of a tree their places in it, and it their centres and norms. */
void pe_gwi_number(gwi_tree *t);
/* Make it the tree; the former one is retired with the codes that went out of use (room for four
 * retirements is reserved). */
void pe_gwi_publish(peri_index *ix, gwi_tree *t);
/* A new well around a centre that lies in a fresh record; it has no list yet. Errors: ERR_NOMEM. */
peri_status pe_gwi_new_well(peri_index *ix, const float *centre, gwi_well **out);
/* A record for a centre (copied). */
peri_status pe_gwi_new_centre(peri_index *ix, const float *centre, uint32_t *record, float *norm);
void pe_gwi_drop_centre(gwi *g, uint32_t record);
/* When readers may use it; room for one retirement is reserved. */
void pe_gwi_retire_centre(peri_index *ix, uint32_t record);
/* Undo new_well; or, when readers may know it, retire it with list, blocks and centre (room for one
 * retirement is reserved). */
void pe_gwi_drop_well(peri_index *ix, gwi_well *w);
void pe_gwi_retire_well(peri_index *ix, gwi_well *w);
/* The well nearest to a rotated row; uses the one-row scratch. */
gwi_well *pe_gwi_route_one(peri_index *ix, const gwi_tree *t, const float *row);
/* The `n` wells nearest to a rotated point, nearest first, into out; returns how many. */
size_t pe_gwi_nearest_wells(peri_index *ix, const gwi_tree *t, const float *row, size_t n,
                            pe_cand *out);
/* Room in one_keys for the keys of n centres. */
peri_status pe_gwi_reserve_keys(peri_index *ix, size_t n);
/* By a team: the stored rows of n slots, rotated (n x width), and the well of each, by its index in
 * the tree. Errors: ERR_NOMEM. */
peri_status pe_gwi_route(peri_index *ix, const gwi_tree *t, const uint32_t *slots, size_t n,
                         float *rotated, uint32_t *well, unsigned workers);
/* The stored row of a slot, rotated; tmp: width floats. */
void pe_gwi_rotated(const peri_index *ix, uint32_t slot, float *out, float *tmp);

/* ---- gwi_well.c ---- */

/* What a group of rows adds to a well: everything acquired by prepare, so that fill (any thread)
 * and commit cannot fail. */
typedef struct gwi_append {
    gwi_well *well;
    uint32_t n, n_blocks; /* rows; blocks acquired, the first a copy of the last one when `copy` */
    int copy;
    uint32_t former; /* the block that is copied */
    uint32_t *block; /* the caller's, room for pe_gwi_blocks_for */
    gwi_list *grown; /* a longer list, or NULL */
} gwi_append;

/* Blocks that may be acquired without failing. */
peri_status pe_gwi_reserve_blocks(peri_index *ix, size_t n);
uint32_t pe_gwi_take_block(gwi *g);
/* Prepare to add n rows. On failure nothing is held. */
uint32_t pe_gwi_blocks_for(const gwi_well *w, uint32_t n);
peri_status pe_gwi_prepare(peri_index *ix, gwi_well *w, uint32_t n, uint32_t *blocks,
                           gwi_append *a);
/* Write the codes of rows[i] (rotated) for slots[i]. symbols, room: of one worker. */
void pe_gwi_fill(const peri_index *ix, const gwi_append *a, const uint32_t *slots,
                 const float *const *rows, uint8_t *symbols, uint8_t *room);
/* Publish (room for two retirements is reserved), set where[]. */
void pe_gwi_commit(peri_index *ix, gwi_append *a, const uint32_t *slots);
/* Give back what prepare acquired. */
void pe_gwi_abandon(peri_index *ix, gwi_append *a);
/* Clear the lane of a slot; 0 when the well has none. */
int pe_gwi_clear_lane(const gwi *g, gwi_well *w, uint32_t slot);
/* The slots of a well's rows; room for w->rows. Returns how many. */
uint32_t pe_gwi_slots_of(const gwi *g, const gwi_well *w, uint32_t *slots);
/* Set where[] of its rows. */
void pe_gwi_claim(const gwi *g, const gwi_well *w);
/* Close the gaps of removed rows. Errors: ERR_NOMEM (nothing changed). */
peri_status pe_gwi_compact(peri_index *ix, gwi_well *w);
/* Give the blocks of a list back at once (no reader has it). */
void pe_gwi_free_list(peri_index *ix, gwi_list *l, int with_blocks);
gwi_list *pe_gwi_new_list(pe_host *host, uint32_t room);

/* Memory of at least so many bytes that is the caller's until it asks again; NULL: none left. */
void *pe_gwi_room(peri_index *ix, int which, size_t bytes);
void pe_gwi_free_rooms(peri_index *ix);

/* ---- phases ---- */

/* Make a tree for `planned` rows from a sample of the n rows given and of the rows that are in, put
 * these into its wells and publish it; a former tree goes with its wells. */
peri_status pe_gwi_train(peri_index *ix, const float *rows, size_t n, uint64_t planned,
                         pe_progress *progress, unsigned workers);
/* Add rows to the wells of a tree, published or not; *done tells the prefix that is in. */
peri_status pe_gwi_add(peri_index *ix, const gwi_tree *t, const uint32_t *slots, size_t n,
                       unsigned workers, size_t *done);
peri_status pe_gwi_before(peri_index *ix, const float *rows, size_t n, pe_progress *progress);
peri_status pe_gwi_reserve(peri_index *ix, size_t slots, size_t rows, int exact, unsigned workers);
peri_status pe_gwi_insert(peri_index *ix, const uint32_t *slots, size_t n, pe_progress *progress,
                          unsigned workers, size_t *done);
/* Split a well that is overfull, regroup; a failure leaves it as it is. */
void pe_gwi_settle(peri_index *ix, gwi_well *w);
peri_status pe_gwi_split(peri_index *ix, gwi_well *w);
peri_status pe_gwi_merge(peri_index *ix, gwi_well *w);
void pe_gwi_removed(peri_index *ix, uint32_t slot);
peri_status pe_gwi_search(pe_search *s);
peri_status pe_gwi_maintain(peri_index *ix, pe_progress *progress, unsigned workers);
peri_status pe_gwi_save(const peri_index *ix, pe_segw *w, const uint32_t *renumber, uint32_t count);
peri_status pe_gwi_open(peri_index *ix, pe_segr *r, int map, int writable);
peri_status pe_gwi_check(const peri_index *ix, pe_progress *progress, uint64_t *faults);

#endif
