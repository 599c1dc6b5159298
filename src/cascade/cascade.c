#include "cascade/cascade.h"

/* What a preset fixes. Recall is what an index aims at by the curve that it measures on its own
 * rows when it is built in bulk, and by maintain; until then `effort` serves. */
typedef struct cascade_preset {
    uint32_t degree, fanout, effort, least; /* least: effort, whatever the curve says */
    float alpha, recall;
} cascade_preset;

static const cascade_preset presets[] = {
    [PERI_CASCADE_LARGE] = {32, 3, 100, 24, 1.05f, 0.96f},
    [PERI_CASCADE_SMALL] = {24, 4, 100, 24, 1.05f, 0.96f},
    [PERI_CASCADE_HIGH_RECALL] = {32, 6, 400, 48, 1.05f, 0.993f},
    [PERI_CASCADE_FAST_SEARCH] = {32, 3, 40, 12, 1.05f, 0.92f},
};

enum { TRAIN_ROWS = 1024, SAMPLES = 64 };

uint32_t pe_cascade_fanout(uint32_t preset)
{
    return presets[preset].fanout;
}

static peri_status read_config(peri_cascade_config *c, const void *config)
{
    peri_cascade_config_init(c);
    if (!config)
        return PERI_OK;
    const peri_cascade_config *in = config;
    if (in->struct_size < sizeof *c)
        return pe_fail(PERI_ERR_ARG, "peri_cascade_config.struct_size is %u, expected %zu or more",
                       in->struct_size, sizeof *c);
    *c = *in;
    if (c->preset > CASCADE_TOP_PRESET)
        return pe_fail(PERI_ERR_CONFIG, "preset is %u, expected 0 to %d", c->preset,
                       CASCADE_TOP_PRESET);
    if (c->num_hyperplanes > CASCADE_PLANES)
        return pe_fail(PERI_ERR_CONFIG, "num_hyperplanes is %u, expected 1 to %d, or 0",
                       c->num_hyperplanes, CASCADE_PLANES);
    if (c->bucket_capacity && (c->bucket_capacity < 8 || c->bucket_capacity > 4096))
        return pe_fail(PERI_ERR_CONFIG, "bucket_capacity is %u, expected 8 to 4096, or 0",
                       c->bucket_capacity);
    if (c->nprobe > CASCADE_PROBES)
        return pe_fail(PERI_ERR_CONFIG, "nprobe is %u, expected 1 to %d, or 0", c->nprobe,
                       CASCADE_PROBES);
    if (c->target_recall != 0 && !(c->target_recall >= 0.5f && c->target_recall <= 0.999f))
        return pe_fail(PERI_ERR_CONFIG, "target_recall is %g, expected 0.5 to 0.999, or 0",
                       (double)c->target_recall);
    return PERI_OK;
}

static peri_status init(peri_index *ix, const void *config)
{
    cascade *s = cascade_of(ix);
    pe_graph *g = &s->graph;
    peri_cascade_config c;
    pe_graph_start(g);
    PE_TRY(read_config(&c, config));
    const cascade_preset *p = &presets[c.preset];
    g->m_max = c.degree ? c.degree : p->degree;
    g->m = g->m_max < 256 ? g->m_max : 256;
    g->ef_construction = c.ef_construction ? c.ef_construction : 200;
    g->ef_search = c.ef_search ? c.ef_search : p->effort;
    g->codes = c.codes;
    g->layout = c.layout;
    g->one_layer = 1;
    g->fanout = p->fanout;
    g->alpha = c.alpha != 0 ? c.alpha : p->alpha;
    g->seed = c.seed ? c.seed : 0x63617363616465u;
    g->seeds = pe_cascade_tree_seeds;
    s->preset = c.preset;
    s->target_recall = c.target_recall != 0 ? c.target_recall : p->recall;
    s->fixed_effort = c.ef_search != 0;
    PE_TRY(pe_graph_setup(ix));
    return pe_cascade_tree_init(ix, c.num_hyperplanes ? c.num_hyperplanes : 16,
                                c.bucket_capacity ? c.bucket_capacity : 128,
                                c.nprobe ? c.nprobe : 8);
}

static void destroy(peri_index *ix)
{
    pe_cascade_tree_destroy(ix);
    pe_graph_destroy(ix);
}

static peri_status reserve(peri_index *ix, size_t slots, size_t rows, int exact, unsigned workers)
{
    PE_TRY(pe_cascade_tree_reserve(ix, slots, exact));
    return pe_graph_reserve(ix, slots, rows, exact, workers);
}

static peri_status before(peri_index *ix, const float *rows, size_t n, pe_progress *progress)
{
    uint32_t count = pe_slots_count(&ix->slots);
    PE_TRY(pe_graph_before(ix, rows, n, progress));
    if (atomic_load_explicit(&cascade_of(ix)->tree.trained, memory_order_relaxed))
        return PERI_OK;
    if (n >= TRAIN_ROWS)
        return pe_cascade_tree_train(ix, rows, n);
    return count >= TRAIN_ROWS ? pe_cascade_tree_train(ix, NULL, count) : PERI_OK;
}

static peri_status insert(peri_index *ix, const uint32_t *slots, size_t n, pe_progress *progress,
                          unsigned workers, size_t *done)
{
    peri_status status = pe_graph_insert(ix, slots, n, progress, workers, done);
    float *scratch = pe_graph_of(ix)->workers[0].scratch;
    for (size_t i = 0; i < *done; i++)
        pe_cascade_tree_add(ix, slots[i], scratch);
    return status;
}

static void removed(peri_index *ix, uint32_t slot)
{
    pe_cascade_tree_remove(ix, slot);
    pe_graph_removed(ix, slot);
}

/* Built in bulk: how far to search for the preset's recall depends on the rows. */
static peri_status settled(peri_index *ix, pe_progress *progress, unsigned workers)
{
    return cascade_of(ix)->fixed_effort ? PERI_OK
                                        : pe_index_calibrate(ix, SAMPLES, progress, workers);
}

/* Where a sample of rows is found with very little effort, queries from elsewhere may take more. */
static uint32_t effort(const peri_index *ix)
{
    const cascade *s = cascade_of(ix);
    const pe_curve *curve = atomic_load_explicit(&ix->curve, memory_order_acquire);
    if (s->fixed_effort || !curve)
        return s->graph.ef_search;
    uint32_t measured = pe_curve_effort(curve, s->target_recall);
    return measured > presets[s->preset].least ? measured : presets[s->preset].least;
}

const pe_kind pe_cascade_kind = {
    .name = "cascade",
    .tag = PE_FOURCC('C', 'A', 'S', 'C'),
    .caps = PERI_CAP_EFFORT | PERI_CAP_CODES,
    .self_size = sizeof(cascade),
    .init = init,
    .destroy = destroy,
    .reserve = reserve,
    .before = before,
    .at_once = pe_graph_at_once,
    .insert = insert,
    .settled = settled,
    .removed = removed,
    .search = pe_graph_search,
    .maintain = pe_graph_maintain,
    .save = pe_cascade_save,
    .open = pe_cascade_open,
    .check = pe_cascade_check,
    .info = pe_graph_info,
    .effort = effort,
};

peri_status peri_cascade_create(peri_index **out, const peri_space *space,
                                const peri_cascade_config *config, const peri_env *env)
{
    return pe_index_create(out, &pe_cascade_kind, space, config, env);
}
