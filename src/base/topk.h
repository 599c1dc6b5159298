/* The k smallest of a stream of (distance, slot) pairs, ties by smaller slot: a max-heap in the
 * caller's array. pe_topk_shared lets several threads fill one: each keeps a pe_topk of its own,
 * reads the common bound without a lock and merges at the end. */
#ifndef PE_TOPK_H
#define PE_TOPK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pe_cand {
    float d;
    uint32_t slot;
} pe_cand;

static inline int pe_cand_before(pe_cand a, pe_cand b)
{
    return a.d < b.d || (a.d == b.d && a.slot < b.slot);
}

typedef struct pe_topk {
    pe_cand *heap;
    size_t n, k;
} pe_topk;

static inline void pe_topk_init(pe_topk *t, pe_cand *room, size_t k)
{
    t->heap = room;
    t->n = 0;
    t->k = k;
}

/* What a pair must be before to get in; all do while there is room. */
static inline float pe_topk_bound(const pe_topk *t)
{
    return t->n < t->k ? (float)(1.0f / 0.0f) : t->heap[0].d;
}

void pe_topk_push(pe_topk *t, pe_cand c);
/* Turn the heap into an array sorted nearest first. */
void pe_topk_sort(pe_topk *t);
/* Sort n pairs nearest first, in place. */
void pe_cand_sort(pe_cand *c, size_t n);

typedef struct pe_topk_shared {
    pthread_mutex_t lock;
    _Atomic float bound;
    pe_topk top;
} pe_topk_shared;

void pe_topk_shared_init(pe_topk_shared *s, pe_cand *room, size_t k);
void pe_topk_shared_destroy(pe_topk_shared *s);
/* Merge n pairs under the lock and tighten the common bound. */
void pe_topk_shared_merge(pe_topk_shared *s, const pe_cand *c, size_t n);
static inline float pe_topk_shared_bound(pe_topk_shared *s)
{
    return atomic_load_explicit(&s->bound, memory_order_relaxed);
}

#endif
