/* A growing array of fixed-size records in chunks that never move while a reader may look.
 *
 * Record r lies at chunks[r >> shift] + (r & mask) * stride. Full chunks hold up to 32 MiB, aligned
 * for huge pages. Only the last chunk may be shorter than that; it grows by copying into a
 * larger one, the old being retired by epoch: a published record's content is the same in both,
 * so a reader of the old one is right. The same goes for the chunk table.
 *
 * One writer at a time; readers take a view inside an epoch. Chunks may be borrowed from a
 * mapped file (not freed). */
#ifndef PE_ARRAY_H
#define PE_ARRAY_H

#include "base/epoch.h"

typedef struct pe_array {
    pe_host *host;
    size_t stride;
    uint32_t shift, mask;
    _Atomic(unsigned char **) chunks;
    size_t table_room; /* pointers that the table holds */
    size_t n_chunks;
    size_t n_borrowed; /* leading chunks that are somebody else's memory */
    size_t capacity;   /* records; the last chunk holds capacity - (n_chunks - 1 << shift) */
} pe_array;

void pe_array_init(pe_array *a, pe_host *host, size_t stride);
/* No reader may be inside. */
void pe_array_destroy(pe_array *a);

/* Room for `n` records in all; what is new is zeroed. exact: no spare room beyond n (the caller
 * knows how many there will be). On failure nothing changes. */
peri_status pe_array_reserve(pe_array *a, pe_epoch *e, size_t n, int exact);

/* Serve the first n records from `data`, which stays the caller's and lives as long as the
 * array. The array must be empty. The last part chunk is copied if `grow` is set, so that the
 * array can be extended. */
peri_status pe_array_borrow(pe_array *a, unsigned char *data, size_t n, int grow);

/* The same for memory that grows at its end: all n records, contiguous from `data` on, which may
 * have moved since the last call (readers keep the old view). Only for an array that never was
 * reserved. On failure nothing changes. */
peri_status pe_array_lend(pe_array *a, pe_epoch *e, unsigned char *data, size_t n);

static inline unsigned char *pe_array_at(const pe_array *a, size_t r)
{
    unsigned char **chunks = atomic_load_explicit(&a->chunks, memory_order_acquire);
    return chunks[r >> a->shift] + (r & a->mask) * a->stride;
}

/* Bytes held by chunks of its own. */
size_t pe_array_bytes(const pe_array *a);

#endif
