#include "base/epoch.h"

#include <sched.h>

/* gcc warns that its thread sanitiser does not understand fences. It need not: what it looks at,
 * the stamps, are atomics that are stored and loaded in one order anyway. */
#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan"
#endif
static inline void full_fence(void)
{
    atomic_thread_fence(memory_order_seq_cst);
}

void pe_epoch_init(pe_epoch *e, pe_host *host, void *owner)
{
    memset(e, 0, sizeof *e);
    e->host = host;
    e->owner = owner;
    atomic_store_explicit(&e->now, 1, memory_order_relaxed);
}

static void give_back(pe_epoch *e, const pe_retired *r)
{
    if (r->fn)
        r->fn(e->owner, r->ptr, r->arg);
    else
        pe_free(e->host, r->ptr, r->arg);
}

void pe_epoch_destroy(pe_epoch *e)
{
    for (size_t i = 0; i < e->n_retired; i++)
        give_back(e, &e->retired[i]);
    pe_free(e->host, e->retired, e->room * sizeof *e->retired);
    e->retired = NULL;
    e->n_retired = e->room = 0;
}

pe_reader *pe_epoch_enter(const pe_epoch *shared)
{
    /* The places are the one part of a const handle that a read writes to. */
    pe_epoch *e = (pe_epoch *)(uintptr_t)shared;
    static _Thread_local unsigned start;
    for (;;) {
        for (unsigned i = 0; i < PE_READERS; i++) {
            pe_reader *r = &e->readers[(start + i) % PE_READERS];
            uint32_t idle = 0;
            if (atomic_load_explicit(&r->taken, memory_order_relaxed) == 0 &&
                atomic_compare_exchange_strong_explicit(&r->taken, &idle, 1, memory_order_acquire,
                                                        memory_order_relaxed)) {
                start = (start + i) % PE_READERS;
                atomic_exchange(&r->seen, atomic_load(&e->now));
                return r;
            }
        }
        sched_yield();
    }
}

void pe_epoch_exit(pe_reader *r)
{
    atomic_store_explicit(&r->seen, 0, memory_order_release);
    atomic_store_explicit(&r->taken, 0, memory_order_release);
}

peri_status pe_epoch_reserve(pe_epoch *e, size_t n)
{
    return pe_grow(e->host, &e->retired, &e->room, e->n_retired + e->held + n, sizeof *e->retired);
}

peri_status pe_epoch_hold(pe_epoch *e, size_t n)
{
    e->held = 0;
    PE_TRY(pe_epoch_reserve(e, n));
    e->held = n;
    return PERI_OK;
}

void pe_epoch_let_go(pe_epoch *e)
{
    e->held = 0;
}

void pe_epoch_retire(pe_epoch *e, pe_retire_fn fn, void *ptr, uint64_t arg)
{
    /* The epoch moves on with each retirement, so a reader that enters later is told apart. */
    uint64_t stamp = atomic_fetch_add(&e->now, 1);
    e->retired[e->n_retired++] = (pe_retired){stamp, fn, ptr, arg};
}

void pe_epoch_retire_memory(pe_epoch *e, void *ptr, size_t size)
{
    if (ptr)
        pe_epoch_retire(e, NULL, ptr, size);
}

void pe_epoch_again(pe_epoch *e, pe_retire_fn fn)
{
    e->again = fn;
}

void pe_epoch_wait(pe_epoch *e)
{
    uint64_t stamp = atomic_fetch_add(&e->now, 1);
    full_fence();
    for (unsigned i = 0; i < PE_READERS; i++)
        for (uint64_t seen; (seen = atomic_load(&e->readers[i].seen)) != 0 && seen <= stamp;)
            sched_yield();
}

/* The epoch in which the reader entered that is inside longest; UINT64_MAX when none is. */
static uint64_t oldest_reader(const pe_epoch *e)
{
    uint64_t oldest = UINT64_MAX;
    full_fence();
    for (unsigned i = 0; i < PE_READERS; i++) {
        uint64_t seen = atomic_load(&e->readers[i].seen);
        if (seen != 0 && seen < oldest)
            oldest = seen;
    }
    return oldest;
}

void pe_epoch_reclaim(pe_epoch *e)
{
    if (e->n_retired == 0)
        return;
    uint64_t oldest = oldest_reader(e);
    size_t kept = 0, n = e->n_retired;
    for (size_t i = 0; i < n; i++) {
        pe_retired r = e->retired[i];
        if (r.epoch < oldest) {
            e->again = NULL;
            give_back(e, &r);
            if (!e->again)
                continue;
            r.fn = e->again;
            r.epoch = atomic_fetch_add(&e->now, 1);
        }
        e->retired[kept++] = r; /* kept <= i: its own place is free at least */
    }
    e->n_retired = kept;
}
