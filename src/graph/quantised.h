/* Layout Q: beside each node of the dense layer the 1-bit codes of its neighbours relative to it.
 *
 * After SymphonyQG (Gou et al., SIGMOD 2025) and NGT-QG: a node is the centre that its neighbours'
 * RaBitQ codes are made for (rows/bitcode.h), so that one fast-scan of 32 codes estimates all its
 * neighbours' distances from a query, and the rows themselves are read only where a node is
 * expanded, which gives its exact distance. Where that paper keeps rows of f32, three f32 factors
 * a neighbour and a power of two of dimensions, here rows stay what the index keeps (bf16, say),
 * factors take three bytes, and widths are multiples of 64 without a limit.
 *
 * Invariants:
 *  Q1. A node's codes are those of its list where `fresh` says so; whoever writes the list clears
 *      `fresh` before, and a search then measures the neighbours' rows instead.
 *  Q2. Codes are rewritten, and `fresh` set, only after all readers have left that were inside when
 *      the list was written: nobody reads codes that change. */
#ifndef PE_QUANTISED_H
#define PE_QUANTISED_H

#include "graph/graph.h"
#include "rows/bitcode.h"

/* Of one block of 32 links: what scales are multiples of, their sums as bfloat16, their scales. */
typedef struct pe_qfactors {
    float unit;
    uint16_t add[PE_BLOCK_ROWS];
    uint8_t scale[PE_BLOCK_ROWS];
} pe_qfactors;

typedef struct pe_quantised {
    pe_bitcode bitcode;
    uint32_t blocks; /* of 32 links, a node; 0 = this layout is off */
    pe_array codes;
    pe_array factors;
    pe_array fresh; /* one byte a node */
} pe_quantised;

/* degree: a multiple of 32. Errors: ERR_NOMEM. */
peri_status pe_quantised_init(pe_quantised *q, pe_host *host, const peri_space *space,
                              uint32_t degree, uint64_t seed);
void pe_quantised_destroy(pe_quantised *q);
peri_status pe_quantised_reserve(pe_quantised *q, pe_epoch *e, size_t n, int exact);

static inline int pe_quantised_fresh(const pe_quantised *q, uint32_t node)
{
    return atomic_load_explicit((_Atomic uint8_t *)pe_array_at(&q->fresh, node),
                                memory_order_acquire);
}

/* Make the codes of all nodes below n that are not fresh, once the readers inside have left (Q2).
 * Errors: ERR_NOMEM, ERR_CANCELLED. */
peri_status pe_quantised_refresh(pe_quantised *q, const pe_rows *rows, const pe_layer *layer,
                                 pe_epoch *e, uint32_t n, pe_progress *progress, unsigned workers);
/* The same for one node into room given, to compare. */
typedef struct pe_qroom {
    float *row, *rotated, *centre, *tmp;
    uint8_t *symbols, *levels;
    unsigned char *block;
    size_t bytes;
} pe_qroom;
peri_status pe_qroom_init(pe_qroom *r, pe_host *host, const pe_quantised *q);
void pe_qroom_destroy(pe_qroom *r, pe_host *host);
void pe_quantised_encode(const pe_quantised *q, const pe_rows *rows, const pe_layer *layer,
                         uint32_t node, pe_qroom *room, unsigned char *codes, pe_qfactors *factors);

/* Beam search on it: afterwards b->found holds up to q->want accepted slots by exact row keys,
 * sorted. q->view is that of the rows, q->ef the pool; `query` is the point as floats. Only where
 * rows are compared by L2 or cosine. Errors: ERR_NOMEM. */
peri_status pe_quantised_search(pe_beam *b, const pe_quantised *g, const pe_beam_query *q,
                                const float *query);

#endif
