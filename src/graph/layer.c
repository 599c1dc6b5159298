#include "graph/graph.h"

void pe_layer_init(pe_layer *l, pe_host *host, uint32_t degree, uint32_t head)
{
    memset(l, 0, sizeof *l);
    l->degree = degree;
    l->head = head;
    pe_array_init(&l->nodes, host, (size_t)(degree + head) * sizeof(pe_link));
    pe_array_init(&l->into, host, 1);
}

void pe_layer_destroy(pe_layer *l)
{
    pe_array_destroy(&l->nodes);
    pe_array_destroy(&l->into);
}

peri_status pe_layer_reserve(pe_layer *l, pe_epoch *e, size_t n, int exact)
{
    size_t had = l->nodes.capacity;
    if (!l->head)
        PE_TRY(pe_array_reserve(&l->into, e, n, exact));
    PE_TRY(pe_array_reserve(&l->nodes, e, n, exact));
    for (size_t i = had; i < l->nodes.capacity; i++)
        memset(pe_array_at(&l->nodes, i), 0xff, l->nodes.stride);
    return PERI_OK;
}

static void into_add(const pe_layer *l, uint32_t node)
{
    _Atomic uint8_t *n = (_Atomic uint8_t *)pe_array_at(&l->into, node);
    uint8_t had = atomic_load_explicit(n, memory_order_relaxed);
    while (had < 255 &&
           !atomic_compare_exchange_weak_explicit(n, &had, (uint8_t)(had + 1), memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
}

/* A count that reached 255 stays there: what is known of it is "many". */
static void into_drop(const pe_layer *l, uint32_t node)
{
    _Atomic uint8_t *n = (_Atomic uint8_t *)pe_array_at(&l->into, node);
    uint8_t had = atomic_load_explicit(n, memory_order_relaxed);
    while (had > 0 && had < 255 &&
           !atomic_compare_exchange_weak_explicit(n, &had, (uint8_t)(had - 1), memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
}

void pe_layer_count_into(pe_layer *l, uint32_t nodes)
{
    uint32_t links[PE_DEGREE_MAX + 1];
    for (uint32_t node = 0; node < nodes; node++)
        *pe_array_at(&l->into, node) = 0;
    for (uint32_t node = 0; node < nodes; node++) {
        size_t n = pe_layer_copy(l, node, links);
        for (size_t i = 0; i < n; i++)
            if (links[i] < nodes)
                into_add(l, links[i]);
    }
}

size_t pe_list_read(const pe_layer *l, uint32_t node, uint32_t *out)
{
    const pe_link *links = pe_layer_links(l, node);
    size_t n = 0;
    while (n < l->degree && (out[n] = pe_link_get(&links[n])) != PE_NIL)
        n++;
    return n;
}

void pe_list_write(const pe_layer *l, uint32_t node, const uint32_t *links, size_t n)
{
    uint32_t old[PE_DEGREE_MAX + 1];
    pe_link *to = pe_layer_links(l, node);
    size_t had = pe_list_read(l, node, old);
    if (l->fresh)
        atomic_store_explicit((_Atomic uint8_t *)pe_array_at(l->fresh, node), 0,
                              memory_order_release);
    for (size_t i = 0; i < n; i++) {
        if (!l->head)
            into_add(l, links[i] & ~PE_SAME);
        pe_link_set(&to[i], links[i]);
    }
    for (size_t i = n; i < had; i++)
        pe_link_set(&to[i], PE_NIL);
    for (size_t i = 0; i < had && !l->head; i++)
        into_drop(l, old[i] & ~PE_SAME);
}

void pe_layer_clear(const pe_layer *l, uint32_t node)
{
    pe_list_write(l, node, NULL, 0);
    if (!l->head)
        atomic_store_explicit((_Atomic uint8_t *)pe_array_at(&l->into, node), 0,
                              memory_order_relaxed);
}

size_t pe_layer_copy(const pe_layer *l, uint32_t node, uint32_t *out)
{
    size_t n = pe_list_read(l, node, out);
    for (size_t i = 0; i < n; i++)
        out[i] &= ~PE_SAME;
    return n;
}

void pe_lock(pe_locks *l, uint32_t node)
{
    _Atomic uint8_t *lock = &l->lock[(node * 0x9e3779b1u) >> 20];
    while (atomic_exchange_explicit(lock, 1, memory_order_acquire))
        while (atomic_load_explicit(lock, memory_order_relaxed)) {
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
}

void pe_unlock(pe_locks *l, uint32_t node)
{
    atomic_store_explicit(&l->lock[(node * 0x9e3779b1u) >> 20], 0, memory_order_release);
}
