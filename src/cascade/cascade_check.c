/* The structural proof of C1 and C3, after that of the graph. */
#include "cascade/cascade.h"

/* Where the tree leads a hash. */
static uint32_t bucket_of(const cascade_tree *t, uint32_t bits)
{
    uint32_t to = atomic_load_explicit(&t->root, memory_order_relaxed);
    for (uint32_t depth = 0; !(to & CASCADE_BUCKET); depth++) {
        const _Atomic uint32_t *node = (const _Atomic uint32_t *)pe_array_at(&t->nodes, to);
        to = atomic_load_explicit(&node[bits >> depth & 1], memory_order_relaxed);
    }
    return to & ~CASCADE_BUCKET;
}

/* What a bucket holds is packed, and live rows in it are led to it. */
static uint64_t check_bucket(const peri_index *ix, uint32_t n)
{
    const cascade_tree *t = &cascade_of(ix)->tree;
    const _Atomic uint32_t *slots = (const _Atomic uint32_t *)pe_array_at(&t->buckets, n);
    uint32_t count = pe_slots_count(&ix->slots), end = 0;
    uint64_t faults = 0;
    for (uint32_t i = 0; i < t->capacity; i++) {
        uint32_t slot = atomic_load_explicit(&slots[i], memory_order_relaxed);
        end |= slot == PE_NIL;
        int wrong = end ? slot != PE_NIL : slot >= count;
        if (!end && !wrong && !pe_slots_dead(&ix->slots, slot))
            wrong = bucket_of(t, *(const uint32_t *)(const void *)pe_array_at(&t->bits, slot)) != n;
        if (wrong && faults++ == 0)
            pe_fail(PERI_ERR_CORRUPT, "bucket %u holds slot %u, of %u, at %u", n, slot, count, i);
    }
    return faults;
}

peri_status pe_cascade_check(const peri_index *ix, pe_progress *progress, uint64_t *faults)
{
    const cascade_tree *t = &cascade_of(ix)->tree;
    uint64_t of_tree = 0;
    PE_TRY(pe_graph_check(ix, progress, faults));
    for (uint32_t n = 0; n < t->n_buckets && *faults == 0; n++)
        of_tree += check_bucket(ix, n);
    *faults += of_tree;
    return PERI_OK;
}
