/* Taking rows out. A removed row's lane is cleared at once, so nothing refers to its slot but
 * readers that are inside. A well with many gaps is copied without them; one with few rows left is
 * given up and its rows go where they would fall without it. */
#include "gwi/gwi.h"

enum { GAPS = 32, MORE = 16 /* rows a well on which a tree can be trained */ };

/* Wells that its rows fall to in a tree without it; they are added before that tree is published,
 * so a reader of either finds every row. */
static peri_status move_rows(peri_index *ix, gwi_well *w, const gwi_tree *t, uint32_t *slots)
{
    gwi *g = gwi_of(ix);
    uint32_t n = pe_gwi_slots_of(g, w, slots);
    size_t done = 0;
    peri_status status = pe_gwi_add(ix, t, slots, n, 1, &done);
    if (status == PERI_OK)
        return PERI_OK;
    /* Those that are moved already stand in both: take them out of where they went. */
    for (size_t i = 0; i < done; i++) {
        uint32_t where = atomic_load_explicit(gwi_where(g, slots[i]), memory_order_relaxed);
        pe_gwi_clear_lane(g, g->by_centre[where - 1], slots[i]);
        atomic_store_explicit(gwi_where(g, slots[i]), w->centre + 1, memory_order_relaxed);
    }
    return status;
}

peri_status pe_gwi_merge(peri_index *ix, gwi_well *w)
{
    gwi *g = gwi_of(ix);
    const gwi_tree *old = gwi_tree_of(g);
    uint32_t n = w->rows, group = pe_gwi_group_of(old, w->index);
    uint32_t record = old->group[group];
    if (old->n_wells < 2)
        return PERI_OK;
    int last = old->first[group + 1] - old->first[group] == 1;
    PE_TRY(pe_epoch_reserve(&ix->epoch, 2 * (size_t)n + 16));
    uint32_t *slots = pe_alloc(&ix->host, n * sizeof *slots);
    gwi_tree *t = slots ? pe_gwi_tree_with(&ix->host, old, w->index, 0, NULL, 0) : NULL;
    if (!t) {
        pe_free(&ix->host, slots, n * sizeof *slots);
        return PERI_ERR_NOMEM;
    }
    pe_gwi_number(t);
    peri_status status = pe_gwi_encode_groups(ix, t);
    if (status == PERI_OK)
        status = move_rows(ix, w, t, slots);
    pe_free(&ix->host, slots, n * sizeof *slots);
    if (status != PERI_OK) {
        for (uint32_t i = 0; i < old->n_wells; i++)
            old->well[i]->index = i;
        pe_gwi_free_tree(&ix->host, t, old);
        return status;
    }
    pe_gwi_publish(ix, t);
    pe_gwi_retire_well(ix, w);
    if (last)
        pe_gwi_retire_centre(ix, record);
    return PERI_OK;
}

void pe_gwi_removed(peri_index *ix, uint32_t slot)
{
    gwi *g = gwi_of(ix);
    uint32_t where = atomic_load_explicit(gwi_where(g, slot), memory_order_relaxed);
    if (where) {
        gwi_well *w = g->by_centre[where - 1];
        pe_gwi_clear_lane(g, w, slot);
        atomic_store_explicit(gwi_where(g, slot), 0, memory_order_relaxed);
        pe_slots_release(&ix->slots, slot);
        /* Neither is needed for the removal: without memory they wait for the next one. */
        if (w->rows < pe_gwi_least_rows(ix))
            pe_gwi_merge(ix, w);
        else if (w->lanes - w->rows > GAPS + w->rows / 4)
            pe_gwi_compact(ix, w);
    } else {
        pe_slots_release(&ix->slots, slot);
    }
}

/* ---- maintain ---- */

/* One well after the other, by record: splits and merges make others. */
static peri_status even_out(peri_index *ix, pe_progress *progress)
{
    gwi *g = gwi_of(ix);
    pe_progress_phase(progress, "wells", g->free_centres.used);
    for (uint32_t record = 0; record < g->free_centres.used; record++) {
        gwi_well *w = g->by_centre[record];
        if (w && w->rows < pe_gwi_least_rows(ix))
            PE_TRY(pe_gwi_merge(ix, w));
        else if (w && w->rows > pe_gwi_most_rows(ix) && w->rows >= w->stable)
            PE_TRY(pe_gwi_split(ix, w));
        else if (w)
            PE_TRY(pe_gwi_compact(ix, w));
        pe_epoch_reclaim(&ix->epoch);
        if (pe_progress_add(progress, 0, 1))
            break;
    }
    return pe_progress_end(progress);
}

static peri_status retrain_codes(peri_index *ix, pe_progress *progress)
{
    const pe_codes *codes = pe_rows_codes(&ix->rows);
    uint32_t live = pe_slots_live(&ix->slots);
    if (!codes || atomic_load(&codes->clipped) * 100 <= live)
        return PERI_OK;
    return pe_rows_train(&ix->rows, NULL, 0, pe_slots_count(&ix->slots), progress);
}

peri_status pe_gwi_maintain(peri_index *ix, pe_progress *progress, unsigned workers)
{
    gwi *g = gwi_of(ix);
    uint32_t live = pe_slots_live(&ix->slots);
    const gwi_tree *t = gwi_tree_of(g);
    PE_TRY(retrain_codes(ix, progress));
    /* Splits keep recall within 0.02 of a fresh tree's when the data shifts; once as many rows came
     * again as it was made for, a fresh one is worth its second. */
    if (t ? live / 2 >= g->trained && live >= MORE * t->n_wells : live >= g->train_rows)
        return pe_gwi_train(ix, NULL, 0, live, progress, workers);
    g->planned = live; /* what there is counts now, not what once was expected */
    pe_gwi_free_rooms(ix);
    return t ? even_out(ix, progress) : PERI_OK;
}
