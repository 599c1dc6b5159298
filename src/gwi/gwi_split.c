/* Keeping wells even: an overfull one is split by a local 2-means, a starved one's rows go to its
 * neighbours, an overfull group is split likewise (SPFresh's LIRE, Xu et al., SOSP 2023).
 *
 * Each is built beside what is published and then published with a new tree, which costs a copy of
 * some 16 bytes a well; with several dozen puts to a split that is little. */
#include "gwi/gwi.h"
#include "base/rng.h"
#include "cluster/kmeans.h"

#include <math.h>

enum { SPLIT_ROUNDS = 6, NEIGHBOURS = 6 };

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

/* ---- wells ----
 *
 * A split moves borders: rows of the old well may lie nearer to a neighbour now, and rows of
 * neighbours nearer to one of the two new attractors. Without looking at them recall fell by 0.06
 * when sift250k came sorted by cluster after training on its first tenth. */

/* The wells that a split concerns and all their rows. */
typedef struct scene {
    uint32_t n_wells; /* the one to split, then its neighbours */
    gwi_well *well[1 + NEIGHBOURS];
    gwi_well *made[2 + NEIGHBOURS]; /* the two sides, then the neighbours' heirs */
    uint32_t first[2 + NEIGHBOURS]; /* rows of well i: first[i] .. first[i + 1] */
    uint32_t count[2 + NEIGHBOURS]; /* rows that fall to made[i] */
    size_t n;
    uint32_t *slots, *to; /* of each row; the number of the made well */
    float *rows;          /* rotated */
} scene;

static peri_status set_scene(peri_index *ix, gwi_well *w, scene *sc)
{
    gwi *g = gwi_of(ix);
    const gwi_tree *t = gwi_tree_of(g);
    pe_cand near[1 + NEIGHBOURS];
    size_t width = g->bitcode.width;
    PE_TRY(pe_gwi_reserve_keys(ix, t->n_wells));
    size_t found = pe_gwi_nearest_wells(ix, t, gwi_centre(g, w->centre), 1 + NEIGHBOURS, near);
    sc->well[sc->n_wells++] = w;
    for (size_t i = 0; i < found && sc->n_wells < 1 + NEIGHBOURS; i++)
        if (t->well[near[i].slot] != w)
            sc->well[sc->n_wells++] = t->well[near[i].slot];
    for (uint32_t i = 0; i < sc->n_wells; i++) {
        sc->first[i] = (uint32_t)sc->n;
        sc->n += sc->well[i]->rows;
    }
    sc->first[sc->n_wells] = (uint32_t)sc->n;
    sc->slots = pe_alloc(&ix->host, sc->n * sizeof *sc->slots);
    sc->to = pe_alloc(&ix->host, sc->n * sizeof *sc->to);
    sc->rows = pe_alloc(&ix->host, sc->n * width * sizeof *sc->rows);
    if (!sc->slots || !sc->to || !sc->rows)
        return PERI_ERR_NOMEM;
    for (uint32_t i = 0; i < sc->n_wells; i++)
        pe_gwi_slots_of(g, sc->well[i], sc->slots + sc->first[i]);
    for (size_t i = 0; i < sc->n; i++)
        pe_gwi_rotated(ix, sc->slots[i], sc->rows + i * width, g->one_tmp);
    return PERI_OK;
}

static void clear_scene(peri_index *ix, scene *sc)
{
    size_t width = gwi_of(ix)->bitcode.width;
    pe_free(&ix->host, sc->slots, sc->n * sizeof *sc->slots);
    pe_free(&ix->host, sc->to, sc->n * sizeof *sc->to);
    pe_free(&ix->host, sc->rows, sc->n * width * sizeof *sc->rows);
}

/* Rows of the well to split go to the nearest of all; a neighbour's only to a new side. */
static void choose_sides(const gwi *g, scene *sc, const float *sides)
{
    uint32_t width = g->bitcode.width;
    float (*l2)(const void *, const void *, uint32_t) =
        g->bitcode.kernels->dist[PE_OP_L2][PE_ELEM_F32].one;
    memset(sc->count, 0, sizeof sc->count);
    for (uint32_t w = 0; w < sc->n_wells; w++)
        for (uint32_t i = sc->first[w]; i < sc->first[w + 1]; i++) {
            const float *row = sc->rows + (size_t)i * width;
            float best = l2(row, sides, width), other = l2(row, sides + width, width);
            uint32_t to = other < best;
            best = to ? other : best;
            for (uint32_t v = w ? w : 1; v < (w ? w + 1 : sc->n_wells); v++) {
                float d = l2(row, gwi_centre(g, sc->well[v]->centre), width);
                if (d <= best) {
                    best = d;
                    to = v + 1;
                }
            }
            sc->to[i] = to;
            sc->count[to]++;
        }
}

/* Does a neighbour keep just the rows that it has? */
static int unchanged(const scene *sc, uint32_t v)
{
    if (sc->count[v + 1] != sc->first[v + 1] - sc->first[v])
        return 0;
    for (uint32_t i = sc->first[v]; i < sc->first[v + 1]; i++)
        if (sc->to[i] != v + 1)
            return 0;
    return 1;
}

/* Rows that fall to one well into it; nobody else knows it yet. */
static peri_status fill_made(peri_index *ix, const scene *sc, uint32_t which)
{
    gwi *g = gwi_of(ix);
    gwi_well *w = sc->made[which];
    uint32_t n = sc->count[which], blocks = pe_gwi_blocks_for(w, n), at = 0;
    size_t room = n * (sizeof(uint32_t) + sizeof(float *)) + blocks * sizeof(uint32_t);
    unsigned char *memory = pe_alloc(&ix->host, room);
    if (!memory)
        return PERI_ERR_NOMEM;
    const float **row = (const float **)(void *)memory;
    uint32_t *slot = (uint32_t *)(void *)(row + n), *block = slot + n;
    for (size_t i = 0; i < sc->n; i++)
        if (sc->to[i] == which) {
            row[at] = sc->rows + i * g->bitcode.width;
            slot[at++] = sc->slots[i];
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

static peri_status make_wells(peri_index *ix, scene *sc, const float *sides)
{
    gwi *g = gwi_of(ix);
    uint32_t width = g->bitcode.width;
    for (uint32_t i = 0; i < sc->n_wells + 1; i++) {
        if (i > 1 && unchanged(sc, i - 1))
            continue;
        /* The record may move when its array grows: a copy. */
        memcpy(g->one_row, i < 2 ? sides + i * width : gwi_centre(g, sc->well[i - 1]->centre),
               width * sizeof(float));
        PE_TRY(pe_gwi_new_well(ix, g->one_row, &sc->made[i]));
        PE_TRY(fill_made(ix, sc, i));
        if (i > 1) {
            sc->made[i]->stable = sc->well[i - 1]->stable;
            sc->well[i - 1]->heir = sc->made[i];
        }
    }
    return PERI_OK;
}

/* Nothing has happened. */
static void undo(peri_index *ix, scene *sc)
{
    gwi *g = gwi_of(ix);
    for (uint32_t w = 0; w < sc->n_wells; w++) {
        sc->well[w]->heir = NULL;
        for (uint32_t i = sc->first[w]; i < sc->first[w + 1]; i++)
            atomic_store_explicit(gwi_where(g, sc->slots[i]), sc->well[w]->centre + 1,
                                  memory_order_relaxed);
    }
    for (uint32_t i = 0; i < sc->n_wells + 1; i++)
        pe_gwi_drop_well(ix, sc->made[i]);
}

static peri_status replace_wells(peri_index *ix, scene *sc, const float *sides)
{
    gwi *g = gwi_of(ix);
    const gwi_tree *old = gwi_tree_of(g);
    uint32_t index = sc->well[0]->index;
    PE_TRY(pe_epoch_reserve(&ix->epoch, 64));
    peri_status status = make_wells(ix, sc, sides);
    gwi_tree *t = NULL;
    if (status == PERI_OK)
        t = pe_gwi_tree_with(&ix->host, old, index, pe_gwi_group_of(old, index), sc->made, 2);
    if (t && encode(ix, t) != PERI_OK)
        t = NULL;
    if (!t || pe_epoch_reserve(&ix->epoch, 16 + NEIGHBOURS) != PERI_OK) {
        if (t) {
            for (uint32_t i = 0; i < old->n_wells; i++)
                old->well[i]->index = i;
            pe_gwi_free_tree(&ix->host, t, old);
        }
        undo(ix, sc);
        return PERI_ERR_NOMEM;
    }
    pe_gwi_publish(ix, t);
    for (uint32_t v = 0; v < sc->n_wells; v++)
        if (v == 0 || sc->well[v]->heir)
            pe_gwi_retire_well(ix, sc->well[v]);
    return PERI_OK;
}

static peri_status split_well(peri_index *ix, gwi_well *w, scene *sc, halves *h)
{
    PE_TRY(set_scene(ix, w, sc));
    memcpy(h->rows, sc->rows, h->n * h->width * sizeof *h->rows);
    PE_TRY(divide(ix, h, w->centre));
    if (!too_uneven(h))
        choose_sides(gwi_of(ix), sc, h->centres);
    if (too_uneven(h) || sc->count[0] == 0 || sc->count[1] == 0) {
        w->stable = 2 * w->rows;
        return PERI_OK;
    }
    return replace_wells(ix, sc, h->centres);
}

peri_status pe_gwi_split(peri_index *ix, gwi_well *w)
{
    halves h = {0};
    scene sc = {0};
    uint32_t group = pe_gwi_group_of(gwi_tree_of(gwi_of(ix)), w->index);
    peri_status status = new_halves(ix, &h, w->rows);
    if (status == PERI_OK)
        status = split_well(ix, w, &sc, &h);
    clear_scene(ix, &sc);
    free_halves(ix, &h);
    const gwi_tree *t = gwi_tree_of(gwi_of(ix));
    if (status == PERI_OK && t->first[group + 1] - t->first[group] > most_wells_of_group(t))
        status = split_group(ix, group);
    return status;
}

void pe_gwi_settle(peri_index *ix, gwi_well *w)
{
    if (w->rows > pe_gwi_most_rows(ix) && w->rows >= w->stable)
        pe_gwi_split(ix, w); /* what fails for want of memory is tried again at the next put */
}
