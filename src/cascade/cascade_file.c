/* A cascade index on disk, beside the sections of the graph (graph_file.c):
 *
 *   CASC  offset size
 *         0      4  hyperplanes   4   4  bucket capacity   8   4  buckets that a query probes
 *         12     4  preset        16  4  recall aimed at (f32)
 *         20     4  1 = the caller set ef_search, 2 = the thresholds are trained
 *         24     4  nodes of the tree      28  4  buckets
 *         32     4  root: the top bit marks a bucket       36  28  zero
 *         64     thresholds, f32 a hyperplane; their normals follow from the graph's seed
 *   TREE  nodes: two children each, u32, the top bit marks a bucket
 *   BUCK  buckets: capacity slots each, u32, packed at the front, all ones = none; mapped
 *   BITS  the hash of a slot, u32; mapped
 *
 * The tree is checked when it is read (C3), buckets when they are (C1). */
#include "cascade/cascade.h"
#include "persist/bytes.h"

#include <math.h>

#define TAG_CASC PE_FOURCC('C', 'A', 'S', 'C')
#define TAG_TREE PE_FOURCC('T', 'R', 'E', 'E')
#define TAG_BUCK PE_FOURCC('B', 'U', 'C', 'K')
#define TAG_BITS PE_FOURCC('B', 'I', 'T', 'S')
enum { HEAD_SIZE = 64, FIXED_EFFORT = 1, TRAINED = 2 };

static void save_head(const cascade *s, pe_segw *w)
{
    const cascade_tree *t = &s->tree;
    uint8_t b[HEAD_SIZE] = {0};
    pe_put_le32(b + 0, t->planes);
    pe_put_le32(b + 4, t->capacity);
    pe_put_le32(b + 8, t->probes);
    pe_put_le32(b + 12, s->preset);
    memcpy(b + 16, &s->target_recall, sizeof s->target_recall);
    pe_put_le32(b + 20, (s->fixed_effort ? FIXED_EFFORT : 0u) | (t->trained ? TRAINED : 0u));
    pe_put_le32(b + 24, t->n_nodes);
    pe_put_le32(b + 28, t->n_buckets);
    pe_put_le32(b + 32, t->root);
    pe_segw_begin(w, TAG_CASC, 0);
    pe_segw_put(w, b, sizeof b);
    pe_segw_put(w, t->thresholds, t->planes * sizeof *t->thresholds);
    pe_segw_end(w);
}

static void save_buckets(const cascade_tree *t, pe_segw *w, const uint32_t *renumber)
{
    pe_segw_begin(w, TAG_BUCK, 1);
    for (uint32_t n = 0; n < t->n_buckets; n++) {
        const _Atomic uint32_t *from = (const _Atomic uint32_t *)pe_array_at(&t->buckets, n);
        uint32_t kept = 0, out = PE_NIL;
        for (uint32_t i = 0; i < t->capacity; i++) {
            uint32_t slot = atomic_load_explicit(&from[i], memory_order_relaxed);
            if (slot == PE_NIL)
                break;
            slot = renumber ? renumber[slot] : slot;
            if (slot == PE_NO_SLOT)
                continue;
            pe_segw_put(w, &slot, sizeof slot);
            kept++;
        }
        for (; kept < t->capacity; kept++)
            pe_segw_put(w, &out, sizeof out);
    }
    pe_segw_end(w);
}

peri_status pe_cascade_save(const peri_index *ix, pe_segw *w, const uint32_t *renumber,
                            uint32_t count)
{
    const cascade *s = cascade_of(ix);
    PE_TRY(pe_graph_save(ix, w, renumber, count));
    save_head(s, w);
    pe_index_save_array(w, TAG_TREE, &s->tree.nodes, s->tree.n_nodes, NULL);
    save_buckets(&s->tree, w, renumber);
    pe_index_save_array(w, TAG_BITS, &s->tree.bits, pe_slots_count(&ix->slots), renumber);
    return PERI_OK; /* errors stick to the writer, commit reports them */
}

/* ---- opening ---- */

typedef struct head {
    uint32_t planes, capacity, probes, flags, nodes, buckets, root;
} head;

static peri_status read_head(peri_index *ix, pe_segr *r, head *h, const pe_section **section)
{
    cascade *s = cascade_of(ix);
    uint8_t b[HEAD_SIZE];
    const pe_section *at = pe_segr_find(r, TAG_CASC);
    if (!at || at->size < HEAD_SIZE)
        return pe_index_section(r, TAG_CASC, HEAD_SIZE, section);
    PE_TRY(pe_segr_read(r, at, 0, b, sizeof b));
    *h = (head){pe_get_le32(b + 0),  pe_get_le32(b + 4),  pe_get_le32(b + 8), pe_get_le32(b + 20),
                pe_get_le32(b + 24), pe_get_le32(b + 28), pe_get_le32(b + 32)};
    s->preset = pe_get_le32(b + 12);
    memcpy(&s->target_recall, b + 16, sizeof s->target_recall);
    if (h->planes < 1 || h->planes > CASCADE_PLANES)
        return pe_segr_fault(r, at, 0, "%u hyperplanes", h->planes);
    if (h->capacity < 8 || h->capacity > 4096)
        return pe_segr_fault(r, at, 4, "bucket capacity %u", h->capacity);
    if (h->probes < 1 || h->probes > CASCADE_PROBES)
        return pe_segr_fault(r, at, 8, "%u probes", h->probes);
    if (s->preset > CASCADE_TOP_PRESET)
        return pe_segr_fault(r, at, 12, "preset %u", s->preset);
    if (!(s->target_recall >= 0.5f && s->target_recall <= 0.999f))
        return pe_segr_fault(r, at, 16, "target recall %g", (double)s->target_recall);
    if (h->flags & ~(uint32_t)(FIXED_EFFORT | TRAINED))
        return pe_segr_fault(r, at, 20, "flags 0x%x", h->flags);
    /* A binary tree has one bucket more than nodes; numbers of both stay below the mark. */
    if (h->nodes >= CASCADE_BUCKET - 1 || h->buckets != h->nodes + 1)
        return pe_segr_fault(r, at, 24, "%u nodes and %u buckets", h->nodes, h->buckets);
    return pe_index_section(r, TAG_CASC, HEAD_SIZE + (uint64_t)h->planes * sizeof(float), section);
}

/* C3, counted: each node and each bucket below the root hangs from one place. */
static peri_status check_tree(peri_index *ix, pe_segr *r)
{
    const cascade_tree *t = &cascade_of(ix)->tree;
    const pe_section *s = pe_segr_find(r, TAG_TREE);
    uint64_t words = ((uint64_t)t->n_nodes + t->n_buckets) / 64 + 1;
    uint64_t *seen = pe_calloc(&ix->host, words * sizeof *seen);
    uint8_t *depth = pe_calloc(&ix->host, (size_t)t->n_nodes + 1);
    peri_status status = seen && depth ? PERI_OK : PERI_ERR_NOMEM;
    for (uint64_t i = 0; i <= 2 * (uint64_t)t->n_nodes && status == PERI_OK; i++) {
        /* Entry 0 is the root, which lies in another section. */
        uint32_t parent = i ? (uint32_t)((i - 1) / 2) : PE_NIL;
        const _Atomic uint32_t *node =
            i ? (const _Atomic uint32_t *)pe_array_at(&t->nodes, parent) + (i - 1) % 2 : &t->root;
        uint32_t to = atomic_load_explicit(node, memory_order_relaxed), n = to & ~CASCADE_BUCKET;
        int is_bucket = (to & CASCADE_BUCKET) != 0;
        uint64_t bit = is_bucket ? (uint64_t)t->n_nodes + n : n;
        if (n >= (is_bucket ? t->n_buckets : t->n_nodes) || (!is_bucket && i && n <= parent) ||
            (seen[bit / 64] >> bit % 64 & 1) ||
            (!is_bucket && i && depth[parent] + 1u >= t->planes)) {
            status = pe_segr_fault(r, s, i ? 4 * (i - 1) : 0, "child 0x%x of node %u", to, parent);
            break;
        }
        seen[bit / 64] |= (uint64_t)1 << bit % 64;
        if (!is_bucket && i)
            depth[n] = (uint8_t)(depth[parent] + 1);
    }
    pe_free(&ix->host, seen, words * sizeof *seen);
    pe_free(&ix->host, depth, (size_t)t->n_nodes + 1);
    return status;
}

/* A writer goes on where the buckets end: what it reads there must be slots, packed. */
static peri_status check_buckets(const peri_index *ix, pe_segr *r)
{
    const cascade_tree *t = &cascade_of(ix)->tree;
    const pe_section *s = pe_segr_find(r, TAG_BUCK);
    uint32_t count = pe_slots_count(&ix->slots);
    for (uint32_t n = 0; n < t->n_buckets; n++) {
        const _Atomic uint32_t *slots = (const _Atomic uint32_t *)pe_array_at(&t->buckets, n);
        int end = 0;
        for (uint32_t i = 0; i < t->capacity; i++) {
            uint32_t slot = atomic_load_explicit(&slots[i], memory_order_relaxed);
            end |= slot == PE_NIL;
            if (end ? slot != PE_NIL : slot >= count)
                return pe_segr_fault(r, s, ((uint64_t)n * t->capacity + i) * 4,
                                     "bucket %u holds %u of %u", n, slot, count);
        }
    }
    return PERI_OK;
}

static peri_status load_tree(peri_index *ix, pe_segr *r, const head *h, const pe_section *section,
                             int map, int writable)
{
    cascade_tree *t = &cascade_of(ix)->tree;
    uint32_t count = pe_slots_count(&ix->slots);
    PE_TRY(pe_cascade_tree_init(ix, h->planes, h->capacity, h->probes));
    PE_TRY(pe_segr_read(r, section, HEAD_SIZE, t->thresholds, h->planes * sizeof(float)));
    for (uint32_t i = 0; i < h->planes; i++)
        if (!isfinite(t->thresholds[i]))
            return pe_segr_fault(r, section, HEAD_SIZE + 4 * (uint64_t)i, "threshold %u", i);
    /* Sections bound the counts before anything is made of them. */
    PE_TRY(pe_index_load_array(ix, r, TAG_TREE, &t->nodes, h->nodes, 0, writable, 0));
    pe_array_destroy(&t->buckets); /* the empty tree's one bucket */
    pe_array_init(&t->buckets, &ix->host, h->capacity * sizeof(uint32_t));
    PE_TRY(pe_index_load_array(ix, r, TAG_BUCK, &t->buckets, h->buckets, map, writable, 0));
    PE_TRY(pe_index_load_array(ix, r, TAG_BITS, &t->bits, count, map, writable, 0));
    t->n_nodes = h->nodes;
    t->n_buckets = h->buckets;
    atomic_store_explicit(&t->root, h->root, memory_order_relaxed);
    atomic_store_explicit(&t->trained, (h->flags & TRAINED) != 0, memory_order_release);
    PE_TRY(check_tree(ix, r));
    return writable ? check_buckets(ix, r) : PERI_OK;
}

peri_status pe_cascade_open(peri_index *ix, pe_segr *r, int map, int writable)
{
    cascade *s = cascade_of(ix);
    head h = {0};
    const pe_section *section = NULL;
    pe_graph_start(&s->graph);
    s->graph.one_layer = 1;
    s->graph.seeds = pe_cascade_tree_seeds;
    PE_TRY(pe_graph_open(ix, r, map, writable));
    PE_TRY(read_head(ix, r, &h, &section));
    s->graph.fanout = pe_cascade_fanout(s->preset);
    s->fixed_effort = (h.flags & FIXED_EFFORT) != 0;
    return load_tree(ix, r, &h, section, map, writable);
}
