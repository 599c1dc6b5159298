/* Gravity wells on disk, beside the sections of every index (index_file.c):
 *
 *   GWI   offset size
 *         0      4  branching    4   4  levels       8   4  wells aimed at  12  4  nprobe
 *         16     4  rounds       20  4  train_rows   24  2  codes           26  2  bits
 *         28     4  groups       32  4  wells        36  4  blocks
 *         40     8  seed         48  8  rows that wells are sized for
 *         56     8  rows that the last training counted on
 *   TREE  first well of each group (u32), then per well {u32 blocks, u32 lanes in use}; absent, as
 *         are the next two, while there are no wells
 *   CENT  centres of the groups, then of the wells: width f32 each, rotated; mapped
 *   BLKS  blocks, well after well; mapped. rows/bitcode.h says what codes and factors are; then 32
 *         entries (u32): the row's slot, all ones where there is none; padded to 64 bytes
 *
 * Everything that is a number of something else is checked when it is read, entries included: each
 * live row lies in one lane. Codes, factors and centres may be anything: at worst they answer
 * badly. */
#include "gwi/gwi.h"
#include "persist/bytes.h"

#define TAG_GWI  PE_FOURCC('G', 'W', 'I', ' ')
#define TAG_TREE PE_FOURCC('T', 'R', 'E', 'E')
#define TAG_CENT PE_FOURCC('C', 'E', 'N', 'T')
#define TAG_BLKS PE_FOURCC('B', 'L', 'K', 'S')
enum { HEAD_SIZE = 64 };

typedef struct counts {
    uint32_t groups, wells, blocks;
} counts;

static counts count_parts(const gwi_tree *t)
{
    counts c = {0};
    if (!t)
        return c;
    c.groups = t->n_groups;
    c.wells = t->n_wells;
    for (uint32_t i = 0; i < t->n_wells; i++)
        c.blocks += atomic_load_explicit(&gwi_list_of(t->well[i])->n, memory_order_relaxed);
    return c;
}

static void save_head(const gwi *g, pe_segw *w, counts c)
{
    uint8_t b[HEAD_SIZE] = {0};
    pe_put_le32(b + 0, g->branching);
    pe_put_le32(b + 4, g->levels);
    pe_put_le32(b + 8, g->wells);
    pe_put_le32(b + 12, g->nprobe);
    pe_put_le32(b + 16, g->rounds);
    pe_put_le32(b + 20, g->train_rows);
    pe_put_le16(b + 24, g->codes);
    pe_put_le16(b + 26, g->bits);
    pe_put_le32(b + 28, c.groups);
    pe_put_le32(b + 32, c.wells);
    pe_put_le32(b + 36, c.blocks);
    pe_put_le64(b + 40, g->seed);
    pe_put_le64(b + 48, g->planned);
    pe_put_le64(b + 56, g->trained);
    pe_segw_begin(w, TAG_GWI, 0);
    pe_segw_put(w, b, sizeof b);
    pe_segw_end(w);
}

static void save_tree(const gwi *g, const gwi_tree *t, pe_segw *w)
{
    pe_segw_begin(w, TAG_TREE, 0);
    pe_segw_put(w, t->first, t->n_groups * sizeof *t->first);
    for (uint32_t i = 0; i < t->n_wells; i++) {
        uint32_t pair[2] = {atomic_load_explicit(&gwi_list_of(t->well[i])->n, memory_order_relaxed),
                            t->well[i]->lanes};
        pe_segw_put(w, pair, sizeof pair);
    }
    pe_segw_end(w);
    pe_segw_begin(w, TAG_CENT, 1);
    for (uint32_t i = 0; i < t->n_groups; i++)
        pe_segw_put(w, gwi_centre(g, t->group[i]), g->centres.stride);
    for (uint32_t i = 0; i < t->n_wells; i++)
        pe_segw_put(w, gwi_centre(g, t->centre[i]), g->centres.stride);
    pe_segw_end(w);
}

static peri_status save_blocks(const peri_index *ix, const gwi_tree *t, pe_segw *w,
                               const uint32_t *renumber)
{
    const gwi *g = gwi_of(ix);
    pe_host *host = (pe_host *)(uintptr_t)&ix->host;
    unsigned char *copy = pe_calloc(host, g->blocks.stride);
    uint32_t out[PE_BLOCK_ROWS];
    if (!copy)
        return PERI_ERR_NOMEM;
    pe_segw_begin(w, TAG_BLKS, 1);
    for (uint32_t i = 0; i < t->n_wells; i++) {
        const gwi_list *l = gwi_list_of(t->well[i]);
        for (uint32_t j = 0; j < atomic_load_explicit(&l->n, memory_order_relaxed); j++) {
            unsigned char *block =
                pe_array_at(&g->blocks, atomic_load_explicit(&l->block[j], memory_order_relaxed));
            for (unsigned lane = 0; lane < PE_BLOCK_ROWS; lane++) {
                uint32_t slot =
                    atomic_load_explicit(&gwi_entries(g, block)[lane], memory_order_relaxed);
                out[lane] = renumber && slot != PE_NO_SLOT ? renumber[slot] : slot;
            }
            memcpy(copy, block, g->entries_at);
            memcpy(copy + g->entries_at, out, sizeof out);
            pe_segw_put(w, copy, g->blocks.stride);
        }
    }
    pe_segw_end(w);
    pe_free(host, copy, g->blocks.stride);
    return PERI_OK;
}

peri_status pe_gwi_save(const peri_index *ix, pe_segw *w, const uint32_t *renumber, uint32_t count)
{
    const gwi *g = gwi_of(ix);
    const gwi_tree *t = gwi_tree_of(g);
    (void)count;
    save_head(g, w, count_parts(t));
    if (!t)
        return PERI_OK;
    save_tree(g, t, w);
    return save_blocks(ix, t, w, renumber); /* errors of the writer stick, commit reports them */
}

/* ---- opening ---- */

static peri_status check_config(const gwi *g, pe_segr *r, const pe_section *s)
{
    if (g->wells != 0 && (g->wells < 2 || g->wells > GWI_MOST_WELLS))
        return pe_segr_fault(r, s, 8, "wells is %u", g->wells);
    if (g->nprobe < 1 || g->nprobe > 1 << 20)
        return pe_segr_fault(r, s, 12, "nprobe is %u", g->nprobe);
    if (g->rounds < 1 || g->rounds > 100)
        return pe_segr_fault(r, s, 16, "rounds is %u", g->rounds);
    if (g->train_rows < 64 || g->train_rows > 1 << 24)
        return pe_segr_fault(r, s, 20, "train_rows is %u", g->train_rows);
    if (g->codes != PERI_CODES_NONE && g->codes != PERI_CODES_8BIT)
        return pe_segr_fault(r, s, 24, "codes is %u", g->codes);
    if (g->bits != 1 && g->bits != 2 && g->bits != 4)
        return pe_segr_fault(r, s, 26, "bits is %u", g->bits);
    return PERI_OK;
}

static peri_status read_head(peri_index *ix, pe_segr *r, counts *c)
{
    gwi *g = gwi_of(ix);
    uint8_t b[HEAD_SIZE];
    const pe_section *s = NULL;
    PE_TRY(pe_index_section(r, TAG_GWI, HEAD_SIZE, &s));
    PE_TRY(pe_segr_read(r, s, 0, b, sizeof b));
    g->branching = pe_get_le32(b + 0);
    g->levels = pe_get_le32(b + 4);
    g->wells = pe_get_le32(b + 8);
    g->nprobe = pe_get_le32(b + 12);
    g->rounds = pe_get_le32(b + 16);
    g->train_rows = pe_get_le32(b + 20);
    g->codes = pe_get_le16(b + 24);
    g->bits = pe_get_le16(b + 26);
    c->groups = pe_get_le32(b + 28);
    c->wells = pe_get_le32(b + 32);
    c->blocks = pe_get_le32(b + 36);
    g->seed = pe_get_le64(b + 40);
    g->planned = pe_get_le64(b + 48);
    g->trained = pe_get_le64(b + 56);
    PE_TRY(check_config(g, r, s));
    if (c->groups > c->wells || !c->groups != !c->wells || c->wells > UINT32_MAX / 4 ||
        c->blocks == UINT32_MAX)
        return pe_segr_fault(r, s, 28, "%u groups of %u wells with %u blocks", c->groups, c->wells,
                             c->blocks);
    return PERI_OK;
}

/* The tree and its wells, with lists of blocks that follow each other. Whatever fails, close takes
 * down what the tree names. */
static peri_status read_tree(peri_index *ix, pe_segr *r, counts c, gwi_tree *t)
{
    gwi *g = gwi_of(ix);
    const pe_section *s = NULL;
    uint64_t at = (uint64_t)c.groups * 4;
    uint32_t next = 0, pair[2];
    PE_TRY(pe_index_section(r, TAG_TREE, at + (uint64_t)c.wells * 8, &s));
    PE_TRY(pe_segr_read(r, s, 0, t->first, (size_t)at));
    t->first[c.groups] = c.wells;
    for (uint32_t i = 0; i < c.groups; i++)
        if (t->first[i] >= t->first[i + 1] || (i == 0 && t->first[0] != 0))
            return pe_segr_fault(r, s, (uint64_t)i * 4, "group %u begins at well %u", i,
                                 t->first[i]);
    for (uint32_t i = 0; i < c.wells; i++, at += sizeof pair) {
        PE_TRY(pe_segr_read(r, s, at, pair, sizeof pair));
        if (pair[0] > c.blocks - next ||
            pair[0] != ((uint64_t)pair[1] + PE_BLOCK_ROWS - 1) / PE_BLOCK_ROWS)
            return pe_segr_fault(r, s, at, "well %u has %u lanes in %u blocks of the %u left", i,
                                 pair[1], pair[0], c.blocks - next);
        gwi_well *w = pe_calloc(&ix->host, sizeof *w);
        if (!w)
            return PERI_ERR_NOMEM;
        t->well[i] = w;
        w->centre = c.groups + i;
        w->lanes = pair[1];
        g->by_centre[w->centre] = w;
        gwi_list *l = pe_gwi_new_list(&ix->host, pair[0] + 1);
        if (!l)
            return PERI_ERR_NOMEM;
        atomic_store_explicit(&w->list, l, memory_order_relaxed);
        for (uint32_t j = 0; j < pair[0]; j++)
            atomic_store_explicit(&l->block[j], next++, memory_order_relaxed);
        atomic_store_explicit(&l->n, pair[0], memory_order_relaxed);
    }
    if (next != c.blocks)
        return pe_segr_fault(r, s, at, "wells have %u of %u blocks", next, c.blocks);
    return PERI_OK;
}

static float norm_of(const gwi *g, uint32_t record)
{
    const float *x = gwi_centre(g, record);
    return -g->bitcode.kernels->dist[PE_OP_DOT][PE_ELEM_F32].one(x, x, g->bitcode.width);
}

/* Where each row lies, from the lanes; each must name a live row that no other names. */
static peri_status read_lanes(peri_index *ix, pe_segr *r, const gwi_tree *t)
{
    gwi *g = gwi_of(ix);
    const pe_section *s = pe_segr_find(r, TAG_BLKS);
    uint32_t count = pe_slots_count(&ix->slots), placed = 0;
    for (uint32_t i = 0; i < t->n_wells; i++) {
        gwi_well *w = t->well[i];
        const gwi_list *l = gwi_list_of(w);
        for (uint32_t j = 0; j < w->lanes || j % PE_BLOCK_ROWS; j++) {
            uint32_t block =
                atomic_load_explicit(&l->block[j / PE_BLOCK_ROWS], memory_order_relaxed);
            uint32_t slot = atomic_load_explicit(
                &gwi_entries(g, pe_array_at(&g->blocks, block))[j % PE_BLOCK_ROWS],
                memory_order_relaxed);
            if (slot == PE_NO_SLOT)
                continue;
            if (slot >= count || j >= w->lanes || pe_slots_dead(&ix->slots, slot) ||
                atomic_load_explicit(gwi_where(g, slot), memory_order_relaxed))
                return pe_segr_fault(r, s, (uint64_t)block * g->blocks.stride + g->entries_at,
                                     "lane %u of well %u names slot %u, of %u", j, i, slot, count);
            atomic_store_explicit(gwi_where(g, slot), w->centre + 1, memory_order_relaxed);
            w->rows++;
            placed++;
        }
    }
    if (placed != pe_slots_live(&ix->slots))
        return pe_segr_fault(r, s, 0, "%u of %u rows lie in a well", placed,
                             pe_slots_live(&ix->slots));
    return PERI_OK;
}

static peri_status read_wells(peri_index *ix, pe_segr *r, counts c, gwi_tree *t, int map,
                              int writable)
{
    gwi *g = gwi_of(ix);
    uint32_t centres = c.groups + c.wells;
    const pe_section *s = NULL;
    /* The sizes of what is in the file bound every count. */
    PE_TRY(pe_index_section(r, TAG_CENT, (uint64_t)centres * g->centres.stride, &s));
    PE_TRY(pe_grow(&ix->host, &g->by_centre, &g->by_centre_room, centres, sizeof *g->by_centre));
    memset(g->by_centre, 0, g->by_centre_room * sizeof *g->by_centre);
    PE_TRY(pe_grow(&ix->host, &g->free_centres.number, &g->free_centres.room, centres,
                   sizeof *g->free_centres.number));
    g->free_centres.used = centres;
    PE_TRY(read_tree(ix, r, c, t));
    PE_TRY(pe_index_load_array(ix, r, TAG_CENT, &g->centres, centres, map, writable, 0));
    PE_TRY(pe_index_load_array(ix, r, TAG_BLKS, &g->blocks, c.blocks, map, writable, 0));
    PE_TRY(pe_grow(&ix->host, &g->free_blocks.number, &g->free_blocks.room, c.blocks,
                   sizeof *g->free_blocks.number));
    g->free_blocks.used = c.blocks;
    for (uint32_t i = 0; i < c.groups; i++) {
        t->group[i] = i;
        t->group_norm[i] = norm_of(g, i);
    }
    for (uint32_t i = 0; i < c.wells; i++)
        t->well[i]->norm = norm_of(g, c.groups + i);
    pe_gwi_number(t);
    PE_TRY(pe_gwi_encode_groups(ix, t));
    return read_lanes(ix, r, t);
}

peri_status pe_gwi_open(peri_index *ix, pe_segr *r, int map, int writable)
{
    gwi *g = gwi_of(ix);
    counts c;
    const pe_section *s = NULL;
    PE_TRY(read_head(ix, r, &c));
    PE_TRY(pe_gwi_setup(ix));
    PE_TRY(pe_array_reserve(&g->where, &ix->epoch, pe_slots_count(&ix->slots), 1));
    if (c.wells) {
        PE_TRY(pe_index_section(r, TAG_TREE, (uint64_t)c.groups * 4 + (uint64_t)c.wells * 8, &s));
        gwi_tree *t = pe_gwi_new_tree(&ix->host, c.groups, c.wells);
        if (!t)
            return PERI_ERR_NOMEM;
        atomic_store_explicit(&g->tree, t, memory_order_release);
        PE_TRY(read_wells(ix, r, c, t, map, writable));
    } else if (c.blocks) {
        return pe_fail(PERI_ERR_CORRUPT, "%s: %u blocks without wells", pe_segr_path(r), c.blocks);
    }
    return writable ? pe_index_free_dead(ix) : PERI_OK;
}
