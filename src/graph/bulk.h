/* Build the lists of many nodes at once, without a search.
 *
 * After PiPNN (arXiv 2602.21247). Rows are carved into cells of a thousand or so around sampled
 * leaders, each row into the few cells of its nearest leaders; inside a cell all pairs are measured
 * by one tile product, and each row's nearest become candidates, both ways, in reservoirs of
 * bounded size (reservoir.h); at last each reservoir is pruned for diversity as an insertion's
 * candidates would be, the links are turned round, and what both directions brought together is
 * pruned once more.
 *
 * Products of tiles run at the peak of the arithmetic units where beam search waits for memory:
 * that is why this is several times faster than inserting.
 *
 * No step depends on the order in which a team works, so a build repeats bit for bit with any
 * number of threads. The lists do not promise that every node is reached; the caller sees to it. */
#ifndef PE_BULK_H
#define PE_BULK_H

#include "graph/graph.h"
#include "graph/reservoir.h"

enum { PE_BULK_PLANES = 16, PE_BULK_CELL = 1024, PE_BULK_LEADERS = 1000 };

typedef struct pe_bulk {
    const pe_rows *rows;
    const pe_layer *layer;
    const pe_view *view;   /* what pruning measures by */
    const uint32_t *nodes; /* of the layer, ascending, their lists empty; no two rows equal */
    size_t n;
    float alpha;     /* on keys, as pe_pruner's */
    uint32_t cell;   /* rows of a cell at most */
    uint32_t fanout; /* cells that a row goes to at the top */
    uint32_t near;   /* nearest of a cell that become candidates */
    uint32_t room;   /* candidates kept of a row */
    int fill;        /* give each node all the links that it has room for */
    uint64_t seed;
} pe_bulk;

/* Errors: ERR_NOMEM, ERR_CANCELLED; the lists are then all empty. */
peri_status pe_bulk_build(const pe_bulk *b, pe_progress *progress, unsigned workers);

/* ---- between the files of this builder ---- */

/* What one worker needs: a cell's rows and a block of their products. */
typedef struct pe_bulk_room {
    float *x;        /* cell or leaders x dim */
    float *norms;    /* squared, of these */
    float *bounds;   /* distance of each row's farthest candidate in the cell */
    float *near;     /* cell x near: its candidates' distances, rising */
    uint32_t *at;    /* and their places in the cell */
    uint32_t *below; /* what one row's distances are looked through for */
    float *block;    /* PE_BULK_BLOCK x dim: rows being assigned */
    float *dots;     /* PE_BULK_BLOCK x the larger of cell and leaders */
    size_t bytes;
} pe_bulk_room;
enum { PE_BULK_BLOCK = 64 };

typedef struct pe_bulk_run {
    const pe_bulk *b;
    pe_host *host;
    uint32_t dim, most; /* most: rows of the largest product */
    float *planes;      /* PE_BULK_PLANES x dim */
    float *sides;       /* n x PE_BULK_PLANES: projections */
    pe_reservoirs reservoirs;
    pe_locks locks;
    pe_bulk_room *rooms;
    unsigned workers;
    pe_progress *progress;
    pe_first_error error;
} pe_bulk_run;

/* Row i of the batch as floats. */
static inline void pe_bulk_row(const pe_bulk *b, uint32_t i, float *out)
{
    pe_rows_get(b->rows, pe_layer_slot(b->layer, b->nodes[i]), out, 0);
}
static inline int pe_bulk_stop(pe_bulk_run *r)
{
    return atomic_load_explicit(&r->progress->cancelled, memory_order_relaxed) ||
           atomic_load_explicit(&r->error.failed, memory_order_relaxed);
}

/* Carve the rows into cells and offer the near pairs of each cell. */
peri_status pe_bulk_carve(pe_bulk_run *r);
/* Offer the near pairs among m rows. */
void pe_bulk_leaf(pe_bulk_run *r, pe_bulk_room *room, const uint32_t *rows, size_t m);
/* Reservoirs to lists. */
peri_status pe_bulk_link(pe_bulk_run *r);

#endif
