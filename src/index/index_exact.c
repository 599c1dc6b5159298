/* Exact search on the rows: what flat is, what every kind falls back to, the oracle of the tests.
 */
#include "index/index.h"

#include <math.h>

enum { BLOCK = 256 };

int pe_accept_slot(const pe_accept *a, uint32_t slot)
{
    if (pe_slots_dead(a->slots, slot))
        return 0;
    if (!a->allow && !a->filter)
        return 1;
    uint64_t id = pe_slots_id(a->slots, slot);
    if (a->allow && !peri_idset_contains(a->allow, id))
        return 0;
    return !a->filter || a->filter(a->filter_ctx, id) != 0;
}

/* The k nearest, and the key at which some were turned away that tie with the last of them. */
typedef struct nearest {
    pe_topk top;
    float tied;
    int ties;
} nearest;

static void push(nearest *best, const pe_accept *accept, float max_key, float key, uint32_t slot)
{
    pe_topk *top = &best->top;
    pe_cand c = {key, slot};
    if (key > max_key)
        return;
    float worst = pe_topk_bound(top);
    int full = top->n == top->k;
    if (full && !pe_cand_before(c, top->heap[0])) {
        best->ties |= key == worst;
        best->tied = key == worst ? key : best->tied;
        return;
    }
    if (accept && !pe_accept_slot(accept, slot))
        return;
    pe_topk_push(top, c);
    if (full && top->heap[0].d == worst) { /* what had to go ties with what stayed */
        best->ties = 1;
        best->tied = worst;
    }
}

/* Of rows that tie for the last places those of the smallest ids are in, not those of the smallest
 * slots. Where both orders are one, or nothing ties, there is nothing to do; else the places of the
 * ties are filled anew by a heap with the largest id on top. */
static int ties_to_settle(const pe_search *s, const nearest *best)
{
    const pe_cand *cands = s->scratch->cands;
    return best->ties && s->n && cands[s->n - 1].d == best->tied &&
           !atomic_load_explicit(&s->ix->slots.direct, memory_order_acquire);
}

static void sink_id(const pe_slots *slots, pe_cand *heap, size_t n, size_t i)
{
    pe_cand c = heap[i];
    uint64_t id = pe_slots_id(slots, c.slot);
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        uint64_t child_id = pe_slots_id(slots, heap[child].slot);
        if (child + 1 < n && pe_slots_id(slots, heap[child + 1].slot) > child_id)
            child_id = pe_slots_id(slots, heap[++child].slot);
        if (child_id <= id)
            break;
        heap[i] = heap[child];
    }
    heap[i] = c;
}

/* The places of the ties, emptied. */
typedef struct tie_heap {
    const pe_search *s;
    pe_cand *heap;
    size_t n, room;
} tie_heap;

static tie_heap begin_ties(const pe_search *s, float tied)
{
    size_t first = s->n;
    while (first > 0 && s->scratch->cands[first - 1].d == tied)
        first--;
    return (tie_heap){s, s->scratch->cands + first, 0, s->n - first};
}

static void offer_tie(tie_heap *t, float key, uint32_t slot)
{
    const pe_slots *slots = &t->s->ix->slots;
    if (t->n == t->room && pe_slots_id(slots, slot) > pe_slots_id(slots, t->heap[0].slot))
        return;
    if (t->s->accept && !pe_accept_slot(t->s->accept, slot))
        return;
    if (t->n < t->room) {
        t->heap[t->n++] = (pe_cand){key, slot};
        for (size_t i = t->n / 2; t->n == t->room && i-- > 0;)
            sink_id(slots, t->heap, t->n, i);
        return;
    }
    t->heap[0] = (pe_cand){key, slot};
    sink_id(slots, t->heap, t->n, 0);
}

/* A row that was removed meanwhile leaves its place empty. */
static void end_ties(pe_search *s, const tie_heap *t)
{
    s->n -= t->room - t->n;
}

peri_status pe_exact_list(pe_search *s, const uint32_t *slots, size_t n)
{
    const peri_index *ix = s->ix;
    pe_view view = pe_rows_view(&ix->rows);
    nearest best = {.ties = 0};
    float keys[BLOCK];
    pe_topk_init(&best.top, s->scratch->cands, s->want);
    for (size_t first = 0; first < n; first += BLOCK) {
        size_t m = n - first < BLOCK ? n - first : BLOCK;
        if (pe_index_lazy(ix))
            for (size_t i = 0; i < m; i++)
                PE_TRY(pe_index_touch(ix, slots[first + i]));
        pe_view_keys(&view, &s->query->row, slots + first, m, keys);
        for (size_t i = 0; i < m; i++)
            push(&best, s->accept, s->max_key, keys[i], slots[first + i]);
    }
    pe_topk_sort(&best.top);
    s->n = best.top.n;
    s->by_code = 0;
    if (!ties_to_settle(s, &best))
        return PERI_OK;
    tie_heap ties = begin_ties(s, best.tied);
    for (size_t first = 0; first < n; first += BLOCK) {
        size_t m = n - first < BLOCK ? n - first : BLOCK;
        pe_view_keys(&view, &s->query->row, slots + first, m, keys);
        for (size_t i = 0; i < m; i++)
            if (keys[i] == best.tied)
                offer_tie(&ties, keys[i], slots[first + i]);
    }
    end_ties(s, &ties);
    return PERI_OK;
}

/* Keys of `n` slots in a row, which lie in one chunk. */
static void keys_of_run(const pe_view *v, const pe_point *p, uint32_t slot, size_t n, float *keys)
{
    v->dist.run(p->q, pe_rowview_at(&v->rows, slot), v->rows.stride, v->rows.dim, n, keys);
    if (v->form != PE_FORM_PLAIN) {
        uint32_t slots[BLOCK];
        for (size_t i = 0; i < n; i++)
            slots[i] = slot + (uint32_t)i;
        pe_view_correct(v, p, slots, n, keys);
    }
}

/* The live ones of the next slots below `count`, with their keys. */
typedef struct run {
    uint32_t first, n; /* slots passed */
    uint32_t live;     /* of them: keys[0..live) */
    int whole;         /* all are: those of first, first + 1, ... */
    uint32_t slots[BLOCK];
    float keys[BLOCK];
} run;

static inline uint32_t run_slot(const run *r, uint32_t i)
{
    return r->whole ? r->first + i : r->slots[i];
}

static peri_status next_run(const pe_search *s, uint32_t count, run *r)
{
    const pe_slots *slots = &s->ix->slots;
    const pe_array *rows = &s->ix->rows.rows;
    uint32_t first = r->first + r->n, in_chunk = rows->mask + 1 - (first & rows->mask);
    uint32_t n = count - first < BLOCK ? count - first : BLOCK;
    r->first = first;
    r->n = n < in_chunk ? n : in_chunk;
    r->live = r->n;
    r->whole = pe_slots_all_live(slots, first, r->n);
    if (!r->whole) {
        r->live = 0;
        for (uint32_t i = first; i < first + r->n; i++)
            if (!pe_slots_dead(slots, i))
                r->slots[r->live++] = i;
    }
    for (uint32_t i = 0; pe_index_lazy(s->ix) && i < r->live; i++)
        PE_TRY(pe_index_touch(s->ix, run_slot(r, i)));
    /* A slot that was free when the scan began may hold a row by now, in memory that an older view
     * does not know. */
    pe_view view = pe_rows_view(&s->ix->rows);
    if (r->whole)
        keys_of_run(&view, &s->query->row, first, r->n, r->keys);
    else if (r->live)
        pe_view_keys(&view, &s->query->row, r->slots, r->live, r->keys);
    return PERI_OK;
}

peri_status pe_exact_search(pe_search *s)
{
    const peri_index *ix = s->ix;
    uint32_t count = pe_slots_count(&ix->slots);
    nearest best = {.ties = 0};
    run r = {0};
    if (count > s->limit)
        count = s->limit;
    pe_topk_init(&best.top, s->scratch->cands, s->want);
    while (r.first + r.n < count) {
        PE_TRY(next_run(s, count, &r));
        float bound = pe_topk_bound(&best.top);
        for (uint32_t i = 0; i < r.live; i++)
            if (r.keys[i] <= bound) {
                push(&best, s->accept, s->max_key, r.keys[i], run_slot(&r, i));
                bound = pe_topk_bound(&best.top);
            }
    }
    pe_topk_sort(&best.top);
    s->n = best.top.n;
    s->by_code = 0;
    if (!ties_to_settle(s, &best))
        return PERI_OK;
    tie_heap ties = begin_ties(s, best.tied);
    r = (run){0};
    while (r.first + r.n < count) {
        PE_TRY(next_run(s, count, &r));
        for (uint32_t i = 0; i < r.live; i++)
            if (r.keys[i] == best.tied)
                offer_tie(&ties, r.keys[i], run_slot(&r, i));
    }
    end_ties(s, &ties);
    return PERI_OK;
}
