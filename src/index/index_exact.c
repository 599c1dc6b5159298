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

static void push(pe_topk *top, const pe_accept *accept, float max_key, float key, uint32_t slot)
{
    pe_cand c = {key, slot};
    if (key > max_key || (top->n == top->k && !pe_cand_before(c, top->heap[0])))
        return;
    if (!accept || pe_accept_slot(accept, slot))
        pe_topk_push(top, c);
}

peri_status pe_exact_list(pe_search *s, const uint32_t *slots, size_t n)
{
    const peri_index *ix = s->ix;
    pe_view view = pe_rows_view(&ix->rows);
    pe_topk top;
    float keys[BLOCK];
    pe_topk_init(&top, s->scratch->cands, s->want);
    for (size_t first = 0; first < n; first += BLOCK) {
        size_t m = n - first < BLOCK ? n - first : BLOCK;
        if (ix->mapped_rows)
            for (size_t i = 0; i < m; i++)
                PE_TRY(pe_index_touch(ix, slots[first + i]));
        pe_view_keys(&view, &s->query->row, slots + first, m, keys);
        for (size_t i = 0; i < m; i++)
            push(&top, s->accept, s->max_key, keys[i], slots[first + i]);
    }
    pe_topk_sort(&top);
    s->n = top.n;
    s->by_code = 0;
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

peri_status pe_exact_search(pe_search *s)
{
    const peri_index *ix = s->ix;
    pe_view view = pe_rows_view(&ix->rows);
    uint32_t count = pe_slots_count(&ix->slots);
    pe_topk top;
    float keys[BLOCK];
    if (count > s->limit)
        count = s->limit;
    pe_topk_init(&top, s->scratch->cands, s->want);
    for (uint32_t slot = 0; slot < count;) {
        uint32_t in_chunk = view.rows.mask + 1 - (slot & view.rows.mask);
        uint32_t n = count - slot < BLOCK ? count - slot : BLOCK;
        n = n < in_chunk ? n : in_chunk;
        if (ix->mapped_rows)
            for (uint32_t i = 0; i < n; i++)
                PE_TRY(pe_index_touch(ix, slot + i));
        keys_of_run(&view, &s->query->row, slot, n, keys);
        float bound = pe_topk_bound(&top);
        for (uint32_t i = 0; i < n; i++)
            if (keys[i] <= bound) {
                push(&top, s->accept, s->max_key, keys[i], slot + i);
                bound = pe_topk_bound(&top);
            }
        slot += n;
    }
    pe_topk_sort(&top);
    s->n = top.n;
    s->by_code = 0;
    return PERI_OK;
}
