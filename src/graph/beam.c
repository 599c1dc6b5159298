/* Beam search over one layer.
 *
 * The pool is one sorted array, keys and nodes apart, not two heaps: at the sizes in use (up to a
 * few hundred) an insertion is a short memmove. Each step expands the nearest node that was not
 * expanded: a first pass collects its neighbours that were not seen, a second measures them
 * through one kernel call that prefetches every line it will need. Seen nodes are one bit each, so
 * that a million nodes fit the L2 cache; only the words that were set are cleared. */
#include "graph/pool.h"

#include <math.h>

enum { NEXT_ROOM = PE_DEGREE_MAX + 8 };

void pe_beam_init(pe_beam *b, pe_host *host)
{
    memset(b, 0, sizeof *b);
    b->host = host;
}

void pe_beam_destroy(pe_beam *b)
{
    pe_free(b->host, b->key, (b->ef_room + 1) * sizeof *b->key);
    pe_free(b->host, b->node, (b->ef_room + 1) * sizeof *b->node);
    pe_free(b->host, b->found, (b->found_room + 1) * sizeof *b->found);
    pe_free(b->host, b->seen, b->seen ? b->seen_words * sizeof *b->seen : 0);
    pe_free(b->host, b->touched, (b->seen_words + 1) * sizeof *b->touched);
    pe_free(b->host, b->next, NEXT_ROOM * sizeof *b->next);
    pe_free(b->host, b->slots, NEXT_ROOM * sizeof *b->slots);
    pe_free(b->host, b->out, NEXT_ROOM * sizeof *b->out);
    pe_free(b->host, b->luts, b->luts_room);
    pe_free(b->host, b->done, b->done_words * sizeof *b->done);
    memset(b, 0, sizeof *b);
}

static peri_status replace(pe_host *host, void *ptr_to_ptr, size_t had, size_t want)
{
    void *old, *fresh = pe_calloc(host, want);
    if (!fresh)
        return PERI_ERR_NOMEM;
    memcpy(&old, ptr_to_ptr, sizeof old);
    if (old)
        pe_free(host, old, had);
    memcpy(ptr_to_ptr, &fresh, sizeof fresh);
    return PERI_OK;
}

peri_status pe_beam_reserve(pe_beam *b, uint32_t limit, size_t ef, size_t want)
{
    size_t words = (size_t)limit / 64 + 1;
    if (!b->out)
        PE_TRY(replace(b->host, &b->out, 0, NEXT_ROOM * sizeof *b->out));
    if (!b->slots)
        PE_TRY(replace(b->host, &b->slots, 0, NEXT_ROOM * sizeof *b->slots));
    if (!b->next)
        PE_TRY(replace(b->host, &b->next, 0, NEXT_ROOM * sizeof *b->next));
    if (words > b->seen_words) {
        words += words / 8;
        size_t had = b->touched ? (b->seen_words + 1) * sizeof *b->touched : 0;
        PE_TRY(replace(b->host, &b->touched, had, (words + 1) * sizeof *b->touched));
        had = b->seen ? b->seen_words * sizeof *b->seen : 0;
        peri_status status = replace(b->host, &b->seen, had, words * sizeof *b->seen);
        if (status != PERI_OK) {
            pe_free(b->host, b->touched, (words + 1) * sizeof *b->touched);
            pe_free(b->host, b->seen, had);
            b->touched = NULL;
            b->seen = NULL;
            b->seen_words = 0;
            return status;
        }
        b->seen_words = words;
    }
    if (ef > b->ef_room) {
        size_t had = b->key ? (b->ef_room + 1) * sizeof *b->key : 0;
        size_t bytes = (ef + 1) * sizeof *b->key;
        PE_TRY(replace(b->host, &b->key, had, bytes));
        peri_status status = replace(b->host, &b->node, had, bytes);
        if (status != PERI_OK) {
            pe_free(b->host, b->key, bytes);
            pe_free(b->host, b->node, had);
            b->key = NULL;
            b->node = NULL;
            b->ef_room = 0;
            return status;
        }
        b->ef_room = ef;
    }
    if (want > b->found_room) {
        size_t had = b->found ? (b->found_room + 1) * sizeof *b->found : 0;
        PE_TRY(replace(b->host, &b->found, had, (want + 1) * sizeof *b->found));
        b->found_room = want;
    }
    return PERI_OK;
}

static void offer(pe_beam *b, const pe_beam_query *q, uint32_t slot, float key)
{
    pe_cand c = {key, slot};
    if (b->n_found == q->want && !pe_cand_before(c, b->found[q->want - 1]))
        return;
    if (!q->accept(q->accept_ctx, slot))
        return;
    size_t lo = 0, hi = b->n_found;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (pe_cand_before(b->found[mid], c))
            lo = mid + 1;
        else
            hi = mid;
    }
    size_t move = b->n_found - lo - (b->n_found == q->want);
    memmove(b->found + lo + 1, b->found + lo, move * sizeof *b->found);
    b->found[lo] = c;
    b->n_found += b->n_found < q->want;
}

/* Measure nodes b->next[0..m) and offer them to the pool; returns the best position taken. */
static inline size_t measure(pe_beam *b, const pe_beam_query *q, size_t m, size_t best)
{
    const pe_layer *l = q->layer;
    const uint32_t *slots = b->next;
    if (l->head) {
        for (size_t i = 0; i < m; i++)
            b->slots[i] = pe_layer_slot(l, b->next[i]);
        slots = b->slots;
    }
    pe_view_keys(q->view, q->point, slots, m, b->out);
    b->visits += m;
    for (size_t i = 0; i < m; i++) {
        size_t at = pe_pool_insert(b, q->ef, b->out[i], b->next[i]);
        if (at == SIZE_MAX)
            continue;
        /* It may be expanded next, or soon: its list is a miss each time otherwise. */
        __builtin_prefetch(pe_layer_links(l, b->next[i]));
        __builtin_prefetch(pe_layer_links(l, b->next[i]) + 16);
        best = at < best ? at : best;
    }
    for (size_t i = 0; q->accept && i < m; i++)
        offer(b, q, slots[i], b->out[i]);
    return best;
}

/* A row equal to one of this key: no need to measure it. */
static size_t take_same(pe_beam *b, const pe_beam_query *q, uint32_t node, float key)
{
    if (node >= q->limit || !pe_pool_see(b, node))
        return SIZE_MAX;
    if (q->accept)
        offer(b, q, node, key);
    size_t at = pe_pool_insert(b, q->ef, key, node);
    b->n_same += at != SIZE_MAX;
    return at;
}

/* The copies of the nearest rows that the pool had no room for on the way: as many as are wanted.
 */
static void take_copies(pe_beam *b, const pe_beam_query *q)
{
    uint32_t list[PE_DEGREE_MAX + 1];
    size_t left = q->want;
    for (size_t i = 0; i < b->n && i < q->want && left; i++) {
        uint32_t node = b->node[i] & ~PE_EXPANDED;
        float key = b->key[i];
        for (size_t hops = 0; hops < 2 * q->want && left; hops++) {
            size_t n = pe_list_read(q->layer, node, list), j = 0;
            while (j < n && !(list[j] & PE_SAME))
                j++;
            if (j == n || (list[j] & ~PE_SAME) >= q->limit)
                break;
            node = list[j] & ~PE_SAME;
            left -= take_same(b, q, node, key) != SIZE_MAX;
        }
    }
}

/* Append the unseen neighbours of a node to b->next[m..); a row equal to this one needs no
 * measuring. */
static inline size_t expand(pe_beam *b, const pe_beam_query *q, uint32_t node, float key, size_t m,
                            size_t *best)
{
    const pe_layer *l = q->layer;
    const pe_link *links = pe_layer_links(l, node);
    for (uint32_t i = 0; i < l->degree; i++) {
        uint32_t to = pe_link_get(&links[i]);
        if (to & PE_SAME) {
            if (to == PE_NIL)
                break;
            /* Copies of one row could fill the pool, and nothing lies behind them. */
            if (b->n_same < q->ef / 2) {
                size_t at = take_same(b, q, to & ~PE_SAME, key);
                *best = at < *best ? at : *best;
            }
            continue;
        }
        if (to >= q->limit)
            continue;
        b->next[m] = to;
        m += pe_pool_see(b, to);
    }
    return m;
}

peri_status pe_beam_search(pe_beam *b, const pe_beam_query *q)
{
    PE_TRY(pe_beam_reserve(b, q->limit, q->ef, q->accept ? q->want : 0));
    b->n = b->n_found = b->n_same = 0;
    size_t m = 0;
    for (size_t i = 0; i < q->n_entries && m < PE_DEGREE_MAX; i++)
        if (q->entries[i] < q->limit && pe_pool_see(b, q->entries[i]))
            b->next[m++] = q->entries[i];
    measure(b, q, m, SIZE_MAX);
    for (size_t cur = 0; cur < b->n;) {
        if (q->slack > 0 && b->n == q->ef && b->key[cur] > q->slack * b->key[b->n - 1])
            break;
        size_t best = SIZE_MAX;
        uint32_t node = b->node[cur];
        float key = b->key[cur];
        b->node[cur] = node | PE_EXPANDED;
        while (++cur < b->n && (b->node[cur] & PE_EXPANDED))
            ;
        if (cur < b->n)
            __builtin_prefetch(pe_layer_links(q->layer, b->node[cur]));
        m = expand(b, q, node, key, 0, &best);
        if (m)
            best = measure(b, q, m, best);
        cur = best < cur ? best : cur;
        while (cur < b->n && (b->node[cur] & PE_EXPANDED))
            cur++;
    }
    if (b->n_same)
        take_copies(b, q);
    pe_pool_clear_seen(b);
    for (size_t i = 0; i < b->n; i++)
        b->node[i] &= ~PE_EXPANDED;
    return PERI_OK;
}

uint32_t pe_beam_greedy(pe_beam *b, const pe_layer *l, uint32_t slot_limit, const pe_view *view,
                        const pe_point *point, uint32_t node, float *key)
{
    uint32_t slots[PE_DEGREE_MAX + 1], links[PE_DEGREE_MAX + 1];
    float out[PE_DEGREE_MAX];
    for (;;) {
        size_t n = pe_layer_copy(l, node, links), m = 0;
        for (size_t i = 0; i < n; i++)
            if ((slots[m] = pe_layer_slot(l, links[i])) < slot_limit)
                links[m++] = links[i];
        pe_view_keys(view, point, slots, m, out);
        b->visits += m;
        uint32_t best = node;
        for (size_t i = 0; i < m; i++)
            if (out[i] < *key) {
                *key = out[i];
                best = links[i];
            }
        if (best == node)
            return node;
        node = best;
    }
}
