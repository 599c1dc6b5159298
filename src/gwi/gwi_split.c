/* Keeping wells even: an overfull one is split by a local 2-means, a starved one's rows go to its
 * neighbours, an overfull group is split likewise (SPFresh's LIRE, Xu et al., SOSP 2023).
 *
 * Each is built beside what is published and then published with a new tree, which costs a copy of
 * some 16 bytes a well; with several dozen puts to a split that is little. */
#include "gwi/gwi.h"
#include "base/rng.h"
#include "cluster/kmeans.h"

#include <math.h>

enum { SPLIT_ROUNDS = 6 };

/* ---- groups ---- */

typedef struct halves {
    float *rows, *centres; /* n x width; 2 x width */
    uint32_t *side;
    size_t n, width;
    uint32_t size[2];
} halves;

static peri_status new_halves(peri_index *ix, halves *h, size_t n)
{
    h->n = n;
    h->width = gwi_of(ix)->bitcode.width;
    h->rows = pe_alloc(&ix->host, n * h->width * sizeof *h->rows);
    h->centres = pe_alloc(&ix->host, 2 * h->width * sizeof *h->centres);
    h->side = pe_alloc(&ix->host, n * sizeof *h->side);
    return h->rows && h->centres && h->side ? PERI_OK : PERI_ERR_NOMEM;
}

static void free_halves(peri_index *ix, halves *h)
{
    pe_free(&ix->host, h->rows, h->n * h->width * sizeof *h->rows);
    pe_free(&ix->host, h->centres, 2 * h->width * sizeof *h->centres);
    pe_free(&ix->host, h->side, h->n * sizeof *h->side);
}

/* 2-means; what it divides too unevenly to be of use keeps size[..] as it came. */
static peri_status divide(peri_index *ix, halves *h, uint64_t seed)
{
    const gwi *g = gwi_of(ix);
    float norms[2];
    pe_kmeans in = {.host = &ix->host,
                    .kernels = g->bitcode.kernels,
                    .rows = h->rows,
                    .n = h->n,
                    .stride = h->width,
                    .dim = g->bitcode.width,
                    .k = 2,
                    .rounds = SPLIT_ROUNDS,
                    .seed = pe_mix64(g->seed ^ seed)};
    PE_TRY(pe_kmeans_run(&in, h->centres, norms, h->side, NULL, 1));
    h->size[0] = h->size[1] = 0;
    for (size_t i = 0; i < h->n; i++)
        h->size[h->side[i]]++;
    return PERI_OK;
}

static int too_uneven(const halves *h)
{
    size_t least = h->size[0] < h->size[1] ? h->size[0] : h->size[1];
    return least < 2 || least < h->n / 16;
}

static uint32_t most_wells_of_group(const gwi_tree *t)
{
    return 2 * (uint32_t)sqrt((double)t->n_wells) + 8;
}

/* The tree with the wells of a group shared out to two new ones at its place. */
static gwi_tree *tree_of_halves(pe_host *host, const gwi_tree *old, uint32_t group, const halves *h,
                                const uint32_t record[2], const float norm[2])
{
    gwi_tree *t = pe_gwi_new_tree(host, old->n_groups + 1, old->n_wells);
    uint32_t made = 0, at = 0;
    if (!t)
        return NULL;
    for (uint32_t i = 0; i < old->n_groups; i++) {
        uint32_t first = old->first[i];
        for (uint32_t side = 0; side < (i == group ? 2 : 1); side++) {
            t->group[made] = i == group ? record[side] : old->group[i];
            t->group_norm[made] = i == group ? norm[side] : old->group_norm[i];
            t->codes[made] = i == group ? NULL : old->codes[i];
            t->first[made++] = at;
            for (uint32_t w = first; w < old->first[i + 1]; w++)
                if (i != group || h->side[w - first] == side)
                    t->well[at++] = old->well[w];
        }
    }
    t->first[made] = at;
    return t;
}

/* Number a tree and make its codes; on failure it is freed and the published one numbered again. */
static peri_status encode(peri_index *ix, gwi_tree *t)
{
    const gwi_tree *old = gwi_tree_of(gwi_of(ix));
    pe_gwi_number(t);
    peri_status status = pe_gwi_encode_groups(ix, t);
    if (status == PERI_OK)
        return status;
    for (uint32_t i = 0; i < old->n_wells; i++)
        old->well[i]->index = i;
    pe_gwi_free_tree(&ix->host, t, old);
    return status;
}

static peri_status split_group_into(peri_index *ix, uint32_t group, halves *h)
{
    gwi *g = gwi_of(ix);
    const gwi_tree *old = gwi_tree_of(g);
    uint32_t first = old->first[group], record[2], former = old->group[group];
    float norm[2];
    for (size_t i = 0; i < h->n; i++)
        memcpy(h->rows + i * h->width, gwi_centre(g, old->centre[first + i]),
               h->width * sizeof *h->rows);
    PE_TRY(divide(ix, h, former));
    if (too_uneven(h))
        return PERI_OK;
    PE_TRY(pe_epoch_reserve(&ix->epoch, 8));
    PE_TRY(pe_gwi_new_centre(ix, h->centres, &record[0], &norm[0]));
    peri_status status = pe_gwi_new_centre(ix, h->centres + h->width, &record[1], &norm[1]);
    gwi_tree *t = NULL;
    if (status == PERI_OK) {
        t = tree_of_halves(&ix->host, old, group, h, record, norm);
        if (t && encode(ix, t) != PERI_OK)
            t = NULL;
        if (!t)
            pe_gwi_drop_centre(g, record[1]);
    }
    if (!t) {
        pe_gwi_drop_centre(g, record[0]);
        return PERI_ERR_NOMEM;
    }
    pe_gwi_publish(ix, t);
    pe_gwi_retire_centre(ix, former);
    return PERI_OK;
}

static peri_status split_group(peri_index *ix, uint32_t group)
{
    const gwi_tree *t = gwi_tree_of(gwi_of(ix));
    halves h = {0};
    peri_status status = new_halves(ix, &h, t->first[group + 1] - t->first[group]);
    if (status == PERI_OK)
        status = split_group_into(ix, group, &h);
    free_halves(ix, &h);
    return status;
}

/* ---- wells ---- */

/* Rows of one side into its new well, which nobody else knows. */
static peri_status fill_side(peri_index *ix, gwi_well *w, const halves *h, const uint32_t *slots,
                             uint32_t side)
{
    gwi *g = gwi_of(ix);
    uint32_t n = h->size[side], blocks = pe_gwi_blocks_for(w, n), at = 0;
    size_t room = n * (sizeof(uint32_t) + sizeof(float *)) + blocks * sizeof(uint32_t);
    unsigned char *memory = pe_alloc(&ix->host, room);
    if (!memory)
        return PERI_ERR_NOMEM;
    const float **row = (const float **)(void *)memory;
    uint32_t *slot = (uint32_t *)(void *)(row + n), *block = slot + n;
    for (size_t i = 0; i < h->n; i++)
        if (h->side[i] == side) {
            row[at] = h->rows + i * h->width;
            slot[at++] = slots[i];
        }
    gwi_append a;
    peri_status status = pe_gwi_prepare(ix, w, n, block, &a);
    if (status == PERI_OK) {
        pe_gwi_fill(ix, &a, slot, row, g->one_symbols, g->one_room);
        pe_gwi_commit(ix, &a, slot);
    }
    pe_free(&ix->host, memory, room);
    return status;
}

static void set_where(const gwi *g, const gwi_well *w, const uint32_t *slots, size_t n)
{
    for (size_t i = 0; i < n; i++)
        atomic_store_explicit(gwi_where(g, slots[i]), w->centre + 1, memory_order_relaxed);
}

static peri_status split_into(peri_index *ix, gwi_well *w, halves *h, uint32_t *slots)
{
    gwi *g = gwi_of(ix);
    const gwi_tree *old = gwi_tree_of(g);
    gwi_well *side[2] = {NULL, NULL};
    pe_gwi_slots_of(g, w, slots);
    for (size_t i = 0; i < h->n; i++)
        pe_gwi_rotated(ix, slots[i], h->rows + i * h->width, g->one_tmp);
    PE_TRY(divide(ix, h, w->centre));
    if (too_uneven(h)) {
        w->stable = 2 * w->rows;
        return PERI_OK;
    }
    PE_TRY(pe_epoch_reserve(&ix->epoch, 16));
    gwi_tree *t = NULL;
    peri_status status = PERI_OK;
    for (uint32_t s = 0; s < 2 && status == PERI_OK; s++) {
        status = pe_gwi_new_well(ix, h->centres + s * h->width, &side[s]);
        if (status == PERI_OK)
            status = fill_side(ix, side[s], h, slots, s);
    }
    if (status == PERI_OK)
        t = pe_gwi_tree_with(&ix->host, old, w->index, pe_gwi_group_of(old, w->index), side, 2);
    if (t && encode(ix, t) != PERI_OK)
        t = NULL;
    if (!t) {
        set_where(g, w, slots, h->n);
        pe_gwi_drop_well(ix, side[0]);
        pe_gwi_drop_well(ix, side[1]);
        return PERI_ERR_NOMEM;
    }
    pe_gwi_publish(ix, t);
    pe_gwi_retire_well(ix, w);
    return PERI_OK;
}

peri_status pe_gwi_split(peri_index *ix, gwi_well *w)
{
    halves h = {0};
    uint32_t n = w->rows;
    uint32_t *slots = pe_alloc(&ix->host, n * sizeof *slots);
    peri_status status = slots ? new_halves(ix, &h, n) : PERI_ERR_NOMEM;
    if (status == PERI_OK) {
        uint32_t group = pe_gwi_group_of(gwi_tree_of(gwi_of(ix)), w->index);
        status = split_into(ix, w, &h, slots);
        const gwi_tree *t = gwi_tree_of(gwi_of(ix));
        if (status == PERI_OK && t->first[group + 1] - t->first[group] > most_wells_of_group(t))
            status = split_group(ix, group);
    }
    free_halves(ix, &h);
    pe_free(&ix->host, slots, n * sizeof *slots);
    return status;
}

void pe_gwi_settle(peri_index *ix, gwi_well *w)
{
    if (w->rows > pe_gwi_most_rows(ix) && w->rows >= w->stable)
        pe_gwi_split(ix, w); /* what fails for want of memory is tried again at the next put */
}
