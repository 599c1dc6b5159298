/* An HNSW graph on disk, beside the sections of every index (index_file.c):
 *
 *   HNSW  offset size
 *         0      4  m              4   4  m_max        8   4  ef_construction  12  4  ef_search
 *         16     4  codes          20  4  alpha (f32)  24  8  seed             32  8  levels drawn
 *         40     8  entry: node | level << 32, all ones when empty
 *         48     48 nodes of layers 0..11, u32 each
 *         96     4  layout: 0 or 1 = G, 2 = Q           100  28 zero
 *   LNK0  m_max links (u32) a slot, mapped; graph.h says what a link is
 *   QCOD  layout Q: 1-bit codes of the links of a slot (quantised.h), mapped
 *   QFAC  their factors, mapped
 *   QFRE  one byte a slot: 1 = its codes are those of its links
 *   LNKU  layers 1, 2, ...: per node slot, node below and m links, all u32
 *
 * Checksums find damage; these rules hold for a file made to deceive as well: everything in LNKU
 * and the entry is checked when it is read, and LNK0 when the graph may be written to. A read-only
 * mapping is not read through for that: search skips a link that is out of bounds (G1). */
#include "graph/graph_index.h"
#include "base/checked.h"
#include "persist/bytes.h"

#define TAG_HNSW PE_FOURCC('H', 'N', 'S', 'W')
#define TAG_LNK0 PE_FOURCC('L', 'N', 'K', '0')
#define TAG_LNKU PE_FOURCC('L', 'N', 'K', 'U')
#define TAG_QCOD PE_FOURCC('Q', 'C', 'O', 'D')
#define TAG_QFAC PE_FOURCC('Q', 'F', 'A', 'C')
#define TAG_QFRE PE_FOURCC('Q', 'F', 'R', 'E')
enum { HEAD_SIZE = 128, COUNTS_AT = 48, LAYOUT_AT = 96 };

static uint32_t renumbered(const uint32_t *renumber, uint32_t slot)
{
    return renumber ? renumber[slot] : slot;
}

static void save_head(const peri_index *ix, pe_segw *w, const uint32_t *renumber, uint32_t count)
{
    const pe_graph *g = pe_graph_of(ix);
    uint8_t b[HEAD_SIZE] = {0};
    uint64_t entry = pe_graph_entry(g);
    pe_put_le32(b + 0, g->m);
    pe_put_le32(b + 4, g->m_max);
    pe_put_le32(b + 8, g->ef_construction);
    pe_put_le32(b + 12, g->ef_search);
    pe_put_le32(b + 16, g->codes);
    memcpy(b + 20, &g->alpha, sizeof g->alpha);
    pe_put_le64(b + 24, g->seed);
    pe_put_le64(b + 32, g->drawn);
    if (entry != PE_GRAPH_NO_ENTRY && entry >> 32 == 0)
        entry = renumbered(renumber, (uint32_t)entry);
    pe_put_le64(b + 40, entry);
    pe_put_le32(b + COUNTS_AT, count);
    for (unsigned l = 1; l < PE_GRAPH_LEVELS; l++)
        pe_put_le32(b + COUNTS_AT + 4 * l, g->layer[l].count);
    pe_put_le32(b + LAYOUT_AT, g->layout);
    pe_segw_begin(w, TAG_HNSW, 0);
    pe_segw_put(w, b, sizeof b);
    pe_segw_end(w);
}

/* Links of the dense layer name slots: these are renumbered with them. */
static void save_dense(const peri_index *ix, pe_segw *w, const uint32_t *renumber)
{
    const pe_graph *g = pe_graph_of(ix);
    uint32_t count = pe_slots_count(&ix->slots), out[PE_DEGREE_MAX];
    if (!renumber) {
        pe_index_save_array(w, TAG_LNK0, &g->layer[0].nodes, count, NULL);
        return;
    }
    pe_segw_begin(w, TAG_LNK0, 1);
    for (uint32_t slot = 0; slot < count; slot++) {
        if (renumber[slot] == PE_NO_SLOT)
            continue;
        const pe_link *links = pe_layer_links(&g->layer[0], slot);
        for (uint32_t i = 0; i < g->m_max; i++) {
            uint32_t link = pe_link_get(&links[i]);
            out[i] = link == PE_NIL ? link : renumber[link & ~PE_SAME] | (link & PE_SAME);
        }
        pe_segw_put(w, out, g->m_max * sizeof *out);
    }
    pe_segw_end(w);
}

static void save_upper(const peri_index *ix, pe_segw *w, const uint32_t *renumber)
{
    const pe_graph *g = pe_graph_of(ix);
    uint32_t out[PE_DEGREE_MAX + PE_LAYER_HEAD];
    pe_segw_begin(w, TAG_LNKU, 0);
    for (unsigned l = 1; l < PE_GRAPH_LEVELS; l++)
        for (uint32_t node = 0; node < g->layer[l].count; node++) {
            const pe_link *words = (const pe_link *)pe_array_at(&g->layer[l].nodes, node);
            for (uint32_t i = 0; i < g->m + PE_LAYER_HEAD; i++)
                out[i] = pe_link_get(&words[i]);
            if (out[0] != PE_NIL) {
                out[0] = renumbered(renumber, out[0]);
                if (l == 1)
                    out[1] = out[0];
            }
            pe_segw_put(w, out, (g->m + PE_LAYER_HEAD) * sizeof *out);
        }
    pe_segw_end(w);
}

static void save_quantised(const peri_index *ix, pe_segw *w, const uint32_t *renumber)
{
    const pe_quantised *q = &pe_graph_of(ix)->quantised;
    uint32_t slots = pe_slots_count(&ix->slots);
    if (!q->blocks)
        return;
    pe_index_save_array(w, TAG_QCOD, &q->codes, slots, renumber);
    pe_index_save_array(w, TAG_QFAC, &q->factors, slots, renumber);
    pe_index_save_array(w, TAG_QFRE, &q->fresh, slots, renumber);
}

peri_status pe_graph_save(const peri_index *ix, pe_segw *w, const uint32_t *renumber,
                          uint32_t count)
{
    save_head(ix, w, renumber, count);
    save_dense(ix, w, renumber);
    save_upper(ix, w, renumber);
    save_quantised(ix, w, renumber);
    return PERI_OK; /* errors stick to the writer, commit reports them */
}

/* ---- opening ---- */

static peri_status read_head(peri_index *ix, pe_segr *r, uint32_t counts[PE_GRAPH_LEVELS])
{
    pe_graph *g = pe_graph_of(ix);
    uint8_t b[HEAD_SIZE];
    const pe_section *s = NULL;
    PE_TRY(pe_index_section(r, TAG_HNSW, HEAD_SIZE, &s));
    PE_TRY(pe_segr_read(r, s, 0, b, sizeof b));
    g->m = pe_get_le32(b + 0);
    g->m_max = pe_get_le32(b + 4);
    g->ef_construction = pe_get_le32(b + 8);
    g->ef_search = pe_get_le32(b + 12);
    uint32_t codes = pe_get_le32(b + 16);
    memcpy(&g->alpha, b + 20, sizeof g->alpha);
    g->seed = pe_get_le64(b + 24);
    g->drawn = pe_get_le64(b + 32);
    uint64_t entry = pe_get_le64(b + 40);
    if (g->m < 2 || g->m > 256 || g->m_max < g->m || g->m_max > PE_DEGREE_MAX)
        return pe_segr_fault(r, s, 0, "m is %u and m_max %u", g->m, g->m_max);
    if (g->ef_construction < 8 || g->ef_construction > 4096)
        return pe_segr_fault(r, s, 8, "ef_construction is %u", g->ef_construction);
    if (g->ef_search < 1 || g->ef_search > 1 << 20)
        return pe_segr_fault(r, s, 12, "ef_search is %u", g->ef_search);
    if (codes != PERI_CODES_NONE && codes != PERI_CODES_8BIT)
        return pe_segr_fault(r, s, 16, "codes is %u", codes);
    g->codes = (uint16_t)codes;
    uint32_t layout = pe_get_le32(b + LAYOUT_AT);
    if (layout > PERI_LAYOUT_Q || (layout == PERI_LAYOUT_Q && (g->m_max % PE_BLOCK_ROWS ||
                                                               ix->space.metric == PERI_METRIC_IP ||
                                                               codes != PERI_CODES_NONE)))
        return pe_segr_fault(r, s, LAYOUT_AT, "layout %u", layout);
    g->layout = layout == PERI_LAYOUT_Q ? PERI_LAYOUT_Q : PERI_LAYOUT_G;
    if (!(g->alpha >= 0.5f && g->alpha <= 2.0f))
        return pe_segr_fault(r, s, 20, "alpha is %g", (double)g->alpha);
    for (unsigned l = 0; l < PE_GRAPH_LEVELS; l++)
        counts[l] = pe_get_le32(b + COUNTS_AT + 4 * l);
    if (counts[0] != pe_slots_count(&ix->slots))
        return pe_segr_fault(r, s, COUNTS_AT, "%u nodes for %u slots", counts[0],
                             pe_slots_count(&ix->slots));
    int empty = entry == PE_GRAPH_NO_ENTRY;
    if (empty ? pe_slots_live(&ix->slots) != 0
              : entry >> 32 >= PE_GRAPH_LEVELS || (uint32_t)entry >= counts[entry >> 32])
        return pe_segr_fault(r, s, 40, "entry 0x%llx", (unsigned long long)entry);
    atomic_store_explicit(&g->entry, entry, memory_order_release);
    return PERI_OK;
}

/* Only a removed node, which nothing leads to, may lead to a spare one. */
static int leads_nowhere(const peri_index *ix, unsigned l, uint32_t node, uint32_t to)
{
    const pe_layer *layer = &pe_graph_of(ix)->layer[l];
    return pe_layer_slot(layer, to) == PE_NIL &&
           !pe_slots_dead(&ix->slots, pe_layer_slot(layer, node));
}

/* Every number of the layers above the dense one, against the others. */
static peri_status check_upper(const peri_index *ix, pe_segr *r, const pe_section *s)
{
    const pe_graph *g = pe_graph_of(ix);
    uint64_t at = 0;
    for (unsigned l = 1; l < PE_GRAPH_LEVELS; l++)
        for (uint32_t node = 0; node < g->layer[l].count; node++, at += g->layer[l].nodes.stride) {
            const pe_link *links = pe_layer_links(&g->layer[l], node);
            uint32_t slot = pe_layer_slot(&g->layer[l], node);
            uint32_t down = pe_layer_down(&g->layer[l], node);
            int spare = slot == PE_NIL;
            if (!spare && slot >= pe_slots_count(&ix->slots))
                return pe_segr_fault(r, s, at, "layer %u node %u has slot %u", l, node, slot);
            if (!spare && (l == 1 ? down != slot
                                  : down >= g->layer[l - 1].count ||
                                        pe_layer_slot(&g->layer[l - 1], down) != slot))
                return pe_segr_fault(r, s, at + 4, "layer %u node %u leads down to %u", l, node,
                                     down);
            int end = 0;
            for (uint32_t i = 0; !spare && i < g->m; i++) {
                uint32_t to = pe_link_get(&links[i]);
                end |= to == PE_NIL;
                if (end ? to != PE_NIL : to >= g->layer[l].count || leads_nowhere(ix, l, node, to))
                    return pe_segr_fault(r, s, at + 8 + 4 * i, "layer %u node %u links to %u", l,
                                         node, to);
            }
        }
    uint64_t entry = pe_graph_entry(g);
    if (entry != PE_GRAPH_NO_ENTRY &&
        pe_layer_slot(&g->layer[entry >> 32], (uint32_t)entry) == PE_NIL)
        return pe_segr_fault(r, s, 0, "the entry is a spare node");
    return PERI_OK;
}

static peri_status load_upper(peri_index *ix, pe_segr *r, const uint32_t counts[PE_GRAPH_LEVELS])
{
    pe_graph *g = pe_graph_of(ix);
    uint64_t nodes = 0, at = 0;
    size_t stride = g->layer[1].nodes.stride;
    const pe_section *s = NULL;
    for (unsigned l = 1; l < PE_GRAPH_LEVELS; l++)
        nodes += counts[l];
    PE_TRY(pe_index_section(r, TAG_LNKU, nodes * stride, &s)); /* bounds every count */
    for (unsigned l = 1; l < PE_GRAPH_LEVELS; l++) {
        PE_TRY(pe_layer_reserve(&g->layer[l], &ix->epoch, counts[l], 1));
        for (uint32_t node = 0; node < counts[l]; node++, at += stride)
            PE_TRY(pe_segr_read(r, s, at, pe_array_at(&g->layer[l].nodes, node), stride));
        atomic_store_explicit(&g->layer[l].count, counts[l], memory_order_release);
    }
    return check_upper(ix, r, s);
}

static peri_status check_dense(const peri_index *ix, pe_segr *r)
{
    const pe_graph *g = pe_graph_of(ix);
    uint32_t count = pe_slots_count(&ix->slots);
    for (uint32_t slot = 0; slot < count; slot++) {
        const pe_link *links = pe_layer_links(&g->layer[0], slot);
        int end = 0;
        for (uint32_t i = 0; i < g->m_max; i++) {
            uint32_t to = pe_link_get(&links[i]);
            end |= to == PE_NIL;
            /* What lies behind the end would come alive when the list grows over it. */
            if (end ? to != PE_NIL : (to & ~PE_SAME) >= count)
                return pe_segr_fault(r, pe_segr_find(r, TAG_LNK0),
                                     (uint64_t)slot * g->layer[0].nodes.stride + 4 * i,
                                     "slot %u links to %u of %u", slot, to & ~PE_SAME, count);
        }
    }
    return PERI_OK;
}

/* Hidden rows wait for a sweep again, spare nodes to be used; a level's draws go on. */
static peri_status load_writer_state(peri_index *ix)
{
    pe_graph *g = pe_graph_of(ix);
    uint32_t count = pe_slots_count(&ix->slots);
    PE_TRY(pe_array_reserve(&g->gone, &ix->epoch, ((size_t)count + 63) / 64, 1));
    for (uint32_t slot = 0; slot < count; slot++) {
        if (!pe_slots_dead(&ix->slots, slot))
            continue;
        PE_TRY(pe_grow(&ix->host, &g->dead, &g->dead_room, g->n_dead + 1, sizeof *g->dead));
        g->dead[g->n_dead++] = slot;
        pe_graph_set_gone(g, slot, 1);
    }
    for (unsigned l = 1; l < PE_GRAPH_LEVELS; l++)
        for (uint32_t node = 0; node < g->layer[l].count; node++) {
            if (pe_layer_slot(&g->layer[l], node) != PE_NIL)
                continue;
            PE_TRY(pe_grow(&ix->host, &g->spare[l], &g->spare_room[l], g->n_spare[l] + 1,
                           sizeof *g->spare[l]));
            g->spare[l][g->n_spare[l]++] = node;
        }
    return pe_graph_make_workers(ix, 1);
}

static peri_status load_quantised(peri_index *ix, pe_segr *r, uint32_t count, int map, int writable)
{
    pe_quantised *q = &pe_graph_of(ix)->quantised;
    if (!q->blocks)
        return PERI_OK;
    PE_TRY(pe_index_load_array(ix, r, TAG_QCOD, &q->codes, count, map, writable, 0));
    PE_TRY(pe_index_load_array(ix, r, TAG_QFAC, &q->factors, count, map, writable, 0));
    return pe_index_load_array(ix, r, TAG_QFRE, &q->fresh, count, map, writable, 0);
}

peri_status pe_graph_open(peri_index *ix, pe_segr *r, int map, int writable)
{
    pe_graph *g = pe_graph_of(ix);
    uint32_t counts[PE_GRAPH_LEVELS];
    PE_TRY(read_head(ix, r, counts));
    PE_TRY(pe_graph_init_layers(ix));
    PE_TRY(pe_index_load_array(ix, r, TAG_LNK0, &g->layer[0].nodes, counts[0], map, writable, 0));
    PE_TRY(load_upper(ix, r, counts));
    PE_TRY(load_quantised(ix, r, counts[0], map, writable));
    if (!writable)
        return PERI_OK;
    PE_TRY(check_dense(ix, r));
    PE_TRY(pe_array_reserve(&g->layer[0].into, &ix->epoch, counts[0], 1));
    pe_layer_count_into(&g->layer[0], counts[0]);
    return load_writer_state(ix);
}
