#include "graph/graph.h"

void pe_layer_init(pe_layer *l, pe_host *host, uint32_t degree, uint32_t head)
{
    memset(l, 0, sizeof *l);
    l->degree = degree;
    l->head = head;
    pe_array_init(&l->nodes, host, (size_t)(degree + head) * sizeof(pe_link));
}

void pe_layer_destroy(pe_layer *l)
{
    pe_array_destroy(&l->nodes);
}

peri_status pe_layer_reserve(pe_layer *l, pe_epoch *e, size_t n, int exact)
{
    size_t had = l->nodes.capacity;
    PE_TRY(pe_array_reserve(&l->nodes, e, n, exact));
    for (size_t i = had; i < l->nodes.capacity; i++)
        memset(pe_array_at(&l->nodes, i), 0xff, l->nodes.stride);
    return PERI_OK;
}

size_t pe_layer_copy(const pe_layer *l, uint32_t node, uint32_t *out)
{
    const pe_link *links = pe_layer_links(l, node);
    size_t n = 0;
    for (uint32_t i = 0; i < l->degree; i++) {
        uint32_t to = pe_link_get(&links[i]);
        if (to == PE_NIL)
            break;
        out[n++] = to & ~PE_SAME;
    }
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
