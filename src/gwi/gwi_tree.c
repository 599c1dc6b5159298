/* The tree: making one, publishing it, the centres and wells that it names. */
#include "gwi/gwi.h"
#include "base/checked.h"

gwi_tree *pe_gwi_new_tree(pe_host *host, uint32_t groups, uint32_t wells)
{
    size_t n_groups = groups, n_wells = wells;
    size_t bytes = sizeof(gwi_tree) + n_wells * sizeof(gwi_well *) +
                   n_groups * sizeof(gwi_codes *) +
                   (n_groups * 3 + 1 + n_wells * 2) * sizeof(uint32_t);
    gwi_tree *t = pe_calloc(host, bytes);
    if (!t)
        return NULL;
    t->bytes = bytes;
    t->n_groups = groups;
    t->n_wells = wells;
    t->well = (gwi_well **)(void *)(t + 1);
    t->codes = (gwi_codes **)(void *)(t->well + n_wells);
    t->group = (uint32_t *)(void *)(t->codes + n_groups);
    t->first = t->group + n_groups;
    t->centre = t->first + n_groups + 1;
    t->group_norm = (float *)(void *)(t->centre + n_wells);
    t->norm = t->group_norm + n_groups;
    return t;
}

static int shares(const gwi_tree *t, const gwi_codes *codes)
{
    for (uint32_t i = 0; t && i < t->n_groups; i++)
        if (t->codes[i] == codes)
            return 1;
    return 0;
}

void pe_gwi_free_tree(pe_host *host, gwi_tree *t, const gwi_tree *kept)
{
    if (!t)
        return;
    for (uint32_t i = 0; i < t->n_groups; i++)
        if (t->codes[i] && !shares(kept, t->codes[i]))
            pe_free(host, t->codes[i], t->codes[i]->bytes);
    pe_free(host, t, t->bytes);
}

static gwi_codes *encode_group(peri_index *ix, const gwi_tree *t, uint32_t group)
{
    gwi *g = gwi_of(ix);
    uint32_t first = t->first[group], n = t->first[group + 1] - first;
    size_t stride = pe_gwi_code_stride(g), blocks = (n + PE_BLOCK_ROWS - 1) / PE_BLOCK_ROWS;
    size_t head = pe_round_up(sizeof(gwi_codes), PE_ALIGN), bytes = head + blocks * stride;
    gwi_codes *codes = pe_calloc(&ix->host, bytes);
    if (!codes)
        return NULL;
    codes->bytes = bytes;
    codes->block = (unsigned char *)codes + head;
    const float *centre = gwi_centre(g, t->group[group]);
    for (uint32_t i = 0; i < n; i++) {
        pe_bit_factors f = pe_bitcode_encode(&g->bitcode, gwi_centre(g, t->centre[first + i]),
                                             centre, g->one_symbols, g->one_room);
        pe_block_set(&g->bitcode, codes->block + i / PE_BLOCK_ROWS * stride, i % PE_BLOCK_ROWS,
                     g->one_symbols, f);
    }
    return codes;
}

peri_status pe_gwi_encode_groups(peri_index *ix, gwi_tree *t)
{
    for (uint32_t i = 0; i < t->n_groups; i++)
        if (!t->codes[i] && !(t->codes[i] = encode_group(ix, t, i)))
            return PERI_ERR_NOMEM;
    return PERI_OK;
}

uint32_t pe_gwi_group_of(const gwi_tree *t, uint32_t well)
{
    uint32_t low = 0, high = t->n_groups;
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (t->first[middle] <= well)
            low = middle;
        else
            high = middle;
    }
    return low;
}

gwi_tree *pe_gwi_tree_with(pe_host *host, const gwi_tree *old, uint32_t without, uint32_t group,
                           gwi_well *const *more, uint32_t n)
{
    uint32_t fewer = without != PE_NO_SLOT, at = 0;
    uint32_t from = fewer ? pe_gwi_group_of(old, without) : 0;
    /* A group that loses its only well goes with it. */
    int last = fewer && old->first[from + 1] - old->first[from] == 1 && !(n && group == from);
    gwi_tree *t = pe_gwi_new_tree(host, old->n_groups - (uint32_t)last, old->n_wells - fewer + n);
    if (!t)
        return NULL;
    uint32_t made = 0;
    for (uint32_t i = 0; i < old->n_groups; i++) {
        if (last && i == from)
            continue;
        t->group[made] = old->group[i];
        t->group_norm[made] = old->group_norm[i];
        int changed = (fewer && i == from) || (n && i == group);
        t->codes[made] = changed ? NULL : old->codes[i];
        t->first[made++] = at;
        for (uint32_t w = old->first[i]; w < old->first[i + 1]; w++)
            if (w != without)
                t->well[at++] = old->well[w]->heir ? old->well[w]->heir : old->well[w];
        for (uint32_t j = 0; i == group && j < n; j++)
            t->well[at++] = more[j];
    }
    t->first[made] = at;
    return t;
}

void pe_gwi_number(gwi_tree *t)
{
    for (uint32_t i = 0; i < t->n_wells; i++) {
        t->well[i]->index = i;
        t->centre[i] = t->well[i]->centre;
        t->norm[i] = t->well[i]->norm;
    }
}

void pe_gwi_publish(peri_index *ix, gwi_tree *t)
{
    gwi *g = gwi_of(ix);
    gwi_tree *old = gwi_tree_of(g);
    pe_gwi_number(t);
    atomic_store_explicit(&g->tree, t, memory_order_release);
    for (uint32_t i = 0; old && i < old->n_groups; i++)
        if (!shares(t, old->codes[i]))
            pe_epoch_retire_memory(&ix->epoch, old->codes[i], old->codes[i]->bytes);
    if (old)
        pe_epoch_retire_memory(&ix->epoch, old, old->bytes);
}

static peri_status reserve_centre(peri_index *ix)
{
    gwi *g = gwi_of(ix);
    gwi_free *f = &g->free_centres;
    size_t had = g->by_centre_room;
    if (f->n == 0)
        PE_TRY(pe_array_reserve(&g->centres, &ix->epoch, (size_t)f->used + 1, 0));
    PE_TRY(pe_grow(&ix->host, &f->number, &f->room, (size_t)f->used + 1, sizeof *f->number));
    PE_TRY(pe_grow(&ix->host, &g->by_centre, &g->by_centre_room, (size_t)f->used + 1,
                   sizeof *g->by_centre));
    if (g->by_centre_room > had)
        memset(g->by_centre + had, 0, (g->by_centre_room - had) * sizeof *g->by_centre);
    return PERI_OK;
}

peri_status pe_gwi_new_centre(peri_index *ix, const float *centre, uint32_t *record, float *norm)
{
    gwi *g = gwi_of(ix);
    gwi_free *f = &g->free_centres;
    uint32_t width = g->bitcode.width;
    PE_TRY(reserve_centre(ix));
    *record = f->n ? f->number[--f->n] : f->used++;
    memcpy(pe_array_at(&g->centres, *record), centre, width * sizeof *centre);
    *norm = -g->bitcode.kernels->dist[PE_OP_DOT][PE_ELEM_F32].one(centre, centre, width);
    return PERI_OK;
}

void pe_gwi_drop_centre(gwi *g, uint32_t record)
{
    g->free_centres.number[g->free_centres.n++] = record; /* room for all was reserved */
    g->by_centre[record] = NULL;
}

static void give_back_centre(void *owner, void *ptr, uint64_t record)
{
    (void)ptr;
    pe_gwi_drop_centre(gwi_of(owner), (uint32_t)record);
}

void pe_gwi_retire_centre(peri_index *ix, uint32_t record)
{
    pe_epoch_retire(&ix->epoch, give_back_centre, NULL, record);
}

peri_status pe_gwi_new_well(peri_index *ix, const float *centre, gwi_well **out)
{
    gwi *g = gwi_of(ix);
    gwi_well *w = pe_calloc(&ix->host, sizeof *w);
    if (!w)
        return PERI_ERR_NOMEM;
    gwi_list *l = pe_gwi_new_list(&ix->host, 2);
    peri_status status = l ? pe_gwi_new_centre(ix, centre, &w->centre, &w->norm) : PERI_ERR_NOMEM;
    if (status != PERI_OK) {
        pe_gwi_free_list(ix, l, 0);
        pe_free(&ix->host, w, sizeof *w);
        return status;
    }
    atomic_store_explicit(&w->list, l, memory_order_relaxed);
    g->by_centre[w->centre] = w;
    *out = w;
    return PERI_OK;
}

void pe_gwi_drop_well(peri_index *ix, gwi_well *w)
{
    if (!w)
        return;
    pe_gwi_drop_centre(gwi_of(ix), w->centre);
    pe_gwi_free_list(ix, gwi_list_of(w), 1);
    pe_free(&ix->host, w, sizeof *w);
}

static void give_back_well(void *owner, void *ptr, uint64_t arg)
{
    (void)arg;
    pe_gwi_drop_well(owner, ptr);
}

void pe_gwi_retire_well(peri_index *ix, gwi_well *w)
{
    gwi_of(ix)->by_centre[w->centre] = NULL;
    pe_epoch_retire(&ix->epoch, give_back_well, w, 0);
}

void pe_gwi_rotated(const peri_index *ix, uint32_t slot, float *out, float *tmp)
{
    const pe_bitcode *b = &gwi_of(ix)->bitcode;
    pe_rows_get(&ix->rows, slot, out, 0);
    memset(out + b->dim, 0, (b->width - b->dim) * sizeof *out);
    b->kernels->rotate(out, b->width, PE_ROTATE_PASSES, b->stages, b->signs, tmp);
}
