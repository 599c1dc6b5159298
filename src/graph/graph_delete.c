/* Deletes: hide at once, then repair, prove, free, a little at a time.
 *
 * A removed row is hidden by the handle before this file hears of it; its node goes on guiding
 * searches. Every removal then moves a sweep over all lists along by SWEEP_STEP nodes. The sweep
 * replaces each link to a removed slot by the best of what that slot linked to (FreshDiskANN's
 * rule, Singh et al., 2021). When it has passed over every list that existed when it began, the
 * slots that were removed before it began have no link left: that is the proof, and only then are
 * they freed. (Redis and pgvector scan for the same proof in one stop; by steps no call is long,
 * and at most one row in SWEEP_STEP / 2 waits to be freed.)
 *
 * Layers are swept from the top down, then a second pass over the upper ones, which are small,
 * makes spare the nodes of the slots about to be freed. */
#include "graph/graph_index.h"
#include "base/rng.h"

#include <stdlib.h>

enum { SWEEP_STEP = 48, CANDIDATES = 320 };

void pe_graph_set_gone(pe_graph *g, uint32_t slot, int gone)
{
    uint64_t *word = (uint64_t *)(void *)pe_array_at(&g->gone, slot / 64);
    uint64_t bit = (uint64_t)1 << slot % 64;
    *word = gone ? *word | bit : *word & ~bit;
}

static int compare_slots(const void *a, const void *b)
{
    uint32_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

/* Will this sweep free the slot? */
static int to_be_freed(const pe_graph *g, uint32_t slot)
{
    return pe_graph_is_gone(g, slot) &&
           bsearch(&slot, g->dead, g->n_sweeping, sizeof slot, compare_slots) != NULL;
}

/* ---- one list ---- */

typedef struct repair {
    peri_index *ix;
    pe_graph *g;
    pe_graph_worker *w;
    pe_view view;
    pe_pruner prune;
    const pe_layer *layer;
    uint32_t node;
    uint32_t cand[CANDIDATES];
    size_t n;
    int lost_twin; /* a removed row equal to this one may have been its only way in */
} repair;

static int gone(const repair *r, uint32_t node)
{
    return pe_graph_is_gone(r->g, pe_layer_slot(r->layer, node));
}

static void add_candidate(repair *r, uint32_t node)
{
    if (node == r->node || gone(r, node) || r->n == CANDIDATES)
        return;
    for (size_t i = 0; i < r->n; i++)
        if (r->cand[i] == node)
            return;
    r->cand[r->n++] = node;
}

/* The first live row in the chain of equal rows behind `node`: its heir when it goes. */
static uint32_t heir_of(const peri_index *ix, uint32_t node)
{
    const pe_graph *g = pe_graph_of(ix);
    uint32_t list[PE_DEGREE_MAX + 1], slots = pe_slots_count(&ix->slots);
    for (uint32_t hops = 0; hops < slots; hops++) {
        size_t n = pe_list_read(&g->layer[0], node, list), i = 0;
        while (i < n && !(list[i] & PE_SAME))
            i++;
        if (i == n)
            return PE_NIL;
        node = list[i] & ~PE_SAME;
        if (!pe_graph_is_gone(g, node))
            return node;
    }
    return PE_NIL;
}

void pe_graph_mend_chain(peri_index *ix, uint32_t node)
{
    pe_graph *g = pe_graph_of(ix);
    uint32_t list[PE_DEGREE_MAX + 1];
    pe_lock(&g->locks, node);
    size_t n = pe_list_read(&g->layer[0], node, list), i = 0;
    while (i < n && !((list[i] & PE_SAME) && pe_graph_is_gone(g, list[i] & ~PE_SAME)))
        i++;
    if (i < n) {
        uint32_t next = heir_of(ix, node);
        if (next != PE_NIL && next != node)
            list[i] = next | PE_SAME;
        else
            list[i] = list[--n];
        pe_list_write(&g->layer[0], node, list, n);
    }
    pe_unlock(&g->locks, node);
}

/* The rows of two nodes of the dense layer are the same. */
static int equal_rows(const repair *r, uint32_t a, uint32_t b)
{
    const pe_array *rows = &r->ix->rows.rows;
    return memcmp(pe_array_at(rows, a), pe_array_at(rows, b), rows->stride) == 0;
}

/* The place of `node`, which went and whose row is this one's, is now this one's: take all that it
 * led to, and all that the equal row led to from which it hung, where that went too. */
static void inherit(repair *r, uint32_t node)
{
    enum { HOPS = 256 };
    uint32_t list[PE_DEGREE_MAX + 1];
    for (int hop = 0; hop < HOPS && node != PE_NIL; hop++) {
        size_t n = pe_list_read(r->layer, node, list);
        node = PE_NIL;
        for (size_t i = 0; i < n; i++) {
            uint32_t to = list[i] & ~PE_SAME;
            add_candidate(r, to);
            if (!gone(r, to) || (list[i] & PE_SAME))
                continue;
            if (equal_rows(r, to, r->node))
                node = to;
            else if ((to = heir_of(r->ix, to)) != PE_NIL)
                add_candidate(r, to);
        }
    }
    r->lost_twin = 1;
}

/* What may stand in for a removed link of this list. */
static void collect_behind(repair *r, uint32_t link, uint32_t *same)
{
    uint32_t theirs[PE_DEGREE_MAX + 1], other = link & ~PE_SAME;
    int dense = !r->layer->head;
    uint32_t heir = dense ? heir_of(r->ix, other) : PE_NIL;
    if (link & PE_SAME) { /* the chain closes over those that went */
        *same = heir == r->node ? PE_NIL : heir;
        return;
    }
    if (heir != PE_NIL)
        add_candidate(r, heir);
    if (dense && equal_rows(r, other, r->node)) {
        /* Of the rows that hang from one that went its heir alone takes its place among the
         * others; the rest hang from the heir. */
        if (heir == PE_NIL || heir == r->node)
            inherit(r, other);
        return;
    }
    size_t m = pe_layer_copy(r->layer, other, theirs);
    for (size_t j = 0; j < m; j++)
        add_candidate(r, theirs[j]);
}

/* What a list may lead to instead: its live links, which come first, and those of its removed ones.
 * Returns the number of removed links. */
static size_t collect(repair *r, uint32_t *same)
{
    uint32_t list[PE_DEGREE_MAX + 1];
    size_t n = pe_list_read(r->layer, r->node, list), removed = 0;
    *same = PE_NIL;
    for (size_t i = 0; i < n; i++) {
        if (gone(r, list[i] & ~PE_SAME))
            removed++;
        else if (list[i] & PE_SAME)
            *same = list[i] & ~PE_SAME;
        else
            add_candidate(r, list[i]);
    }
    for (size_t i = 0; i < n && removed; i++)
        if (gone(r, list[i] & ~PE_SAME))
            collect_behind(r, list[i], same);
    /* The next of the chain may also be a neighbour's neighbour: one link is enough. */
    for (size_t i = 0; i < r->n; i++)
        if (r->cand[i] == *same) {
            memmove(&r->cand[i], &r->cand[i + 1], (--r->n - i) * sizeof *r->cand);
            break;
        }
    return removed;
}

/* All that this list led to is gone: find its place again from the entry. A removed row that waits
 * for the next sweep leads nowhere for the rest of its days; the last of all has no entry. */
static void relink(repair *r, const pe_point *p)
{
    pe_list_write(r->layer, r->node, NULL, 0);
    if (!r->layer->head && !gone(r, r->node))
        (void)pe_graph_link_dense(r->ix, r->w, &r->view, p, r->node);
}

static void repair_list(repair *r, uint32_t node)
{
    uint32_t slots[CANDIDATES], picked[PE_DEGREE_MAX + 1], same;
    float keys[CANDIDATES];
    pe_cand cands[CANDIDATES];
    r->node = node;
    r->n = 0;
    r->lost_twin = 0;
    if (collect(r, &same) == 0)
        return;
    pe_point from =
        pe_view_point(&r->ix->rows, &r->view, pe_layer_slot(r->layer, node), r->w->scratch);
    if (r->n == 0 && same == PE_NIL) {
        relink(r, &from);
        return;
    }
    for (size_t i = 0; i < r->n; i++)
        slots[i] = pe_layer_slot(r->layer, r->cand[i]);
    pe_view_keys(&r->view, &from, slots, r->n, keys);
    size_t degree = r->layer->degree - (same != PE_NIL);
    size_t n = 0, rest = 0;
    for (size_t i = 0; i < r->n; i++) {
        /* What few lists lead to comes first: G4. Links of its own stand first, and fit. */
        if (n < degree && pe_layer_into(r->layer, r->cand[i]) <= 1)
            picked[n++] = r->cand[i];
        else
            cands[rest++] = (pe_cand){keys[i], r->cand[i]};
    }
    pe_cand_sort(cands, rest);
    n = pe_prune(&r->prune, cands, rest, degree, n, picked);
    if (same != PE_NIL)
        picked[n++] = same | PE_SAME;
    pe_list_write(r->layer, node, picked, n);
    for (size_t i = 0; r->lost_twin && !gone(r, node) && i < r->n; i++)
        for (size_t j = 0; j < n; j++)
            if (picked[j] == r->cand[i])
                pe_link_add(&r->prune, &r->g->locks, picked[j], node, keys[i]);
}

/* ---- the sweep ---- */

/* The entry must not be a node about to go: take a live one as high up as there is. */
static void move_entry(const peri_index *ix, pe_graph *g)
{
    uint64_t entry = pe_graph_entry(g);
    if (entry == PE_GRAPH_NO_ENTRY ||
        !pe_graph_is_gone(g, pe_layer_slot(&g->layer[entry >> 32], (uint32_t)entry)))
        return;
    for (unsigned l = (unsigned)(entry >> 32) + 1; l-- > 0;) {
        uint32_t count = l ? g->layer[l].count : pe_slots_count(&ix->slots);
        for (uint32_t node = 0; node < count; node++) {
            uint32_t slot = pe_layer_slot(&g->layer[l], node);
            if (slot == PE_NIL || pe_graph_is_gone(g, slot))
                continue;
            atomic_store_explicit(&g->entry, (uint64_t)l << 32 | node, memory_order_release);
            return;
        }
    }
    atomic_store_explicit(&g->entry, PE_GRAPH_NO_ENTRY, memory_order_release);
}

static uint32_t layer_nodes(const peri_index *ix, const pe_graph *g, int layer)
{
    return layer ? g->layer[layer].count : pe_slots_count(&ix->slots);
}

static void begin_sweep(pe_graph *g)
{
    g->n_sweeping = g->n_dead;
    qsort(g->dead, g->n_sweeping, sizeof *g->dead, compare_slots);
    g->sweep_layer = PE_GRAPH_TOP;
    g->sweep_node = 0;
    g->sweep_freeing = 0;
}

/* A live node that only the slot about to be freed leads to is linked from elsewhere. */
static void keep_reached(peri_index *ix, uint32_t slot)
{
    pe_graph *g = pe_graph_of(ix);
    uint32_t links[PE_DEGREE_MAX + 1];
    size_t n = pe_layer_copy(&g->layer[0], slot, links);
    for (size_t i = 0; i < n; i++)
        if (pe_layer_into(&g->layer[0], links[i]) <= 1 && !pe_graph_is_gone(g, links[i]))
            pe_graph_link_back(ix, links[i]);
}

/* Every list was seen: free what this sweep was for. On failure it stays for the next. */
static peri_status end_sweep(peri_index *ix, pe_graph *g)
{
    g->sweep_layer = -1;
    PE_TRY(pe_epoch_reserve(&ix->epoch, g->n_sweeping));
    for (size_t i = 0; i < g->n_sweeping; i++) {
        keep_reached(ix, g->dead[i]);
        pe_list_write(&g->layer[0], g->dead[i], NULL, 0);
        pe_slots_release(&ix->slots, g->dead[i]);
    }
    g->n_dead -= g->n_sweeping;
    memmove(g->dead, g->dead + g->n_sweeping, g->n_dead * sizeof *g->dead);
    g->n_sweeping = 0;
    return PERI_OK;
}

static void visit(repair *r, uint32_t node)
{
    pe_graph *g = r->g;
    int l = g->sweep_layer;
    uint32_t slot = pe_layer_slot(r->layer, node);
    if (slot == PE_NIL)
        return;
    if (!g->sweep_freeing) {
        /* Above the dense layer the nodes about to go must not lead to one another either: the
         * second pass makes them spare one by one, and no list leads to a spare node, ever. */
        if (r->layer->head || !to_be_freed(g, slot))
            repair_list(r, node);
    } else if (to_be_freed(g, slot)) {
        /* The slot is freed whatever happens, so the node must forget it; without memory to note
         * the node as spare it lies idle until the index is saved and opened again. */
        pe_link_set((pe_link *)(void *)pe_array_at(&r->layer->nodes, node), PE_NIL);
        if (pe_grow(&r->ix->host, &g->spare[l], &g->spare_room[l], g->n_spare[l] + 1,
                    sizeof *g->spare[l]) == PERI_OK)
            g->spare[l][g->n_spare[l]++] = node;
    }
}

/* Move the sweep along by `budget` nodes. */
static void sweep(peri_index *ix, size_t budget)
{
    pe_graph *g = pe_graph_of(ix);
    repair r = {.ix = ix, .g = g, .w = &g->workers[0], .view = pe_graph_build_view(ix)};
    while (budget > 0) {
        if (g->sweep_layer < 0) {
            if (g->n_dead == 0)
                return;
            begin_sweep(g);
        }
        r.layer = &g->layer[g->sweep_layer];
        r.prune = pe_graph_pruner(ix, &r.view, r.w, (unsigned)g->sweep_layer);
        uint32_t count = layer_nodes(ix, g, g->sweep_layer);
        while (budget > 0 && g->sweep_node < count) {
            visit(&r, g->sweep_node++);
            budget--;
        }
        if (g->sweep_node < count)
            return;
        g->sweep_node = 0;
        if (g->sweep_layer > g->sweep_freeing) {
            g->sweep_layer--;
        } else if (!g->sweep_freeing) {
            g->sweep_freeing = 1;
            g->sweep_layer = PE_GRAPH_TOP;
        } else if (end_sweep(ix, g) != PERI_OK) {
            return;
        }
    }
}

void pe_graph_removed(peri_index *ix, uint32_t slot)
{
    pe_graph *g = pe_graph_of(ix);
    pe_graph_set_gone(g, slot, 1);
    /* Without memory for the list the slot waits until the index is saved and opened again. */
    if (pe_grow(&ix->host, &g->dead, &g->dead_room, g->n_dead + 1, sizeof *g->dead) == PERI_OK)
        g->dead[g->n_dead++] = slot;
    move_entry(ix, g);
    sweep(ix, SWEEP_STEP);
}

/* ---- maintain ---- */

static peri_status finish_sweeps(peri_index *ix, pe_progress *progress)
{
    pe_graph *g = pe_graph_of(ix);
    enum { BATCH = 4096 };
    pe_progress_phase(progress, "repair links", g->n_dead);
    while (g->n_dead) {
        size_t had = g->n_dead;
        sweep(ix, BATCH);
        pe_epoch_reclaim(&ix->epoch);
        if (pe_progress_add(progress, 0, had - g->n_dead))
            break;
    }
    return pe_progress_end(progress);
}

/* Codes whose range has cut off more than one row in a hundred are trained again. */
static peri_status retrain(peri_index *ix, pe_progress *progress)
{
    const pe_codes *codes = pe_rows_codes(&ix->rows);
    uint32_t live = pe_slots_live(&ix->slots);
    if (!codes || atomic_load(&codes->clipped) * 100 <= live)
        return PERI_OK;
    return pe_rows_train(&ix->rows, NULL, 0, pe_slots_count(&ix->slots), progress);
}

peri_status pe_graph_maintain(peri_index *ix, pe_progress *progress, unsigned workers)
{
    uint32_t count = pe_slots_count(&ix->slots);
    PE_TRY(finish_sweeps(ix, progress));
    PE_TRY(retrain(ix, progress));
    PE_TRY(pe_graph_connect(ix, count));
    return pe_graph_refresh(ix, count, progress, workers);
}
