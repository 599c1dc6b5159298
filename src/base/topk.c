#include "base/topk.h"

#include <stdlib.h>

static void sift_down(pe_cand *h, size_t n, size_t i)
{
    pe_cand c = h[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && pe_cand_before(h[child], h[child + 1]))
            child++;
        if (!pe_cand_before(c, h[child]))
            break;
        h[i] = h[child];
        i = child;
    }
    h[i] = c;
}

void pe_topk_push(pe_topk *t, pe_cand c)
{
    if (t->n < t->k) {
        size_t i = t->n++;
        while (i > 0 && pe_cand_before(t->heap[(i - 1) / 2], c)) {
            t->heap[i] = t->heap[(i - 1) / 2];
            i = (i - 1) / 2;
        }
        t->heap[i] = c;
    } else if (t->k > 0 && pe_cand_before(c, t->heap[0])) {
        t->heap[0] = c;
        sift_down(t->heap, t->n, 0);
    }
}

void pe_topk_sort(pe_topk *t)
{
    for (size_t n = t->n; n > 1; n--) {
        pe_cand last = t->heap[n - 1];
        t->heap[n - 1] = t->heap[0];
        t->heap[0] = last;
        sift_down(t->heap, n - 1, 0);
    }
}

static int compare(const void *a, const void *b)
{
    const pe_cand *x = a, *y = b;
    return pe_cand_before(*x, *y) ? -1 : pe_cand_before(*y, *x);
}

void pe_cand_sort(pe_cand *c, size_t n)
{
    qsort(c, n, sizeof *c, compare);
}

void pe_topk_shared_init(pe_topk_shared *s, pe_cand *room, size_t k)
{
    pthread_mutex_init(&s->lock, NULL);
    pe_topk_init(&s->top, room, k);
    atomic_store_explicit(&s->bound, pe_topk_bound(&s->top), memory_order_relaxed);
}

void pe_topk_shared_destroy(pe_topk_shared *s)
{
    pthread_mutex_destroy(&s->lock);
}

void pe_topk_shared_merge(pe_topk_shared *s, const pe_cand *c, size_t n)
{
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < n; i++)
        pe_topk_push(&s->top, c[i]);
    atomic_store_explicit(&s->bound, pe_topk_bound(&s->top), memory_order_relaxed);
    pthread_mutex_unlock(&s->lock);
}
