#include "graph/graph_index.h"

static peri_status check_range(const char *field, uint32_t value, uint32_t low, uint32_t high)
{
    if (value < low || value > high)
        return pe_fail(PERI_ERR_CONFIG, "%s is %u, expected %u to %u", field, value, low, high);
    return PERI_OK;
}

static peri_status check_layout(peri_index *ix)
{
    pe_graph *g = pe_graph_of(ix);
    PE_TRY(check_range("layout", g->layout, PERI_LAYOUT_AUTO, PERI_LAYOUT_Q));
    if (g->layout == PERI_LAYOUT_AUTO)
        g->layout = PERI_LAYOUT_G;
    if (g->layout == PERI_LAYOUT_G)
        return PERI_OK;
    if (ix->space.metric == PERI_METRIC_IP)
        return pe_fail(PERI_ERR_CONFIG, "layout Q serves the metrics l2 and cosine, not ip");
    if (g->m_max % PE_BLOCK_ROWS)
        return pe_fail(PERI_ERR_CONFIG,
                       "layout Q scans links by %d: %u at the dense layer is no multiple of that",
                       PE_BLOCK_ROWS, g->m_max);
    if (g->codes == PERI_CODES_8BIT)
        return pe_fail(PERI_ERR_CONFIG,
                       "layout Q has codes of its own, 8-bit ones are for layout G");
    g->codes = PERI_CODES_NONE;
    return PERI_OK;
}

void pe_graph_start(pe_graph *g)
{
    pthread_mutex_init(&g->upper, NULL);
    atomic_store_explicit(&g->entry, PE_GRAPH_NO_ENTRY, memory_order_relaxed);
    g->sweep_layer = -1;
}

peri_status pe_graph_setup(peri_index *ix)
{
    pe_graph *g = pe_graph_of(ix);
    PE_TRY(check_range("m", g->m, 2, 256));
    PE_TRY(check_range("m_max", g->m_max, g->m, PE_DEGREE_MAX));
    PE_TRY(check_range("ef_construction", g->ef_construction, 8, 4096));
    PE_TRY(check_range("ef_search", g->ef_search, 1, 1 << 20));
    PE_TRY(check_range("codes", g->codes, PERI_CODES_AUTO, PERI_CODES_8BIT));
    PE_TRY(check_range("build", g->build, PERI_BUILD_AUTO, PERI_BUILD_BULK));
    if (!(g->alpha >= 0.5f && g->alpha <= 2.0f))
        return pe_fail(PERI_ERR_CONFIG, "alpha is %g, expected 0.5 to 2", (double)g->alpha);
    if (ix->space.metric == PERI_METRIC_IP)
        g->alpha = 1;
    PE_TRY(check_layout(ix));
    if (g->codes == PERI_CODES_AUTO)
        g->codes = ix->space.scalar == PERI_SCALAR_I8 ? PERI_CODES_NONE : PERI_CODES_8BIT;
    PE_TRY(pe_graph_init_layers(ix));
    return pe_graph_make_workers(ix, 1);
}

peri_status pe_graph_init_layers(peri_index *ix)
{
    pe_graph *g = pe_graph_of(ix);
    pe_layer_init(&g->layer[0], &ix->host, g->m_max, 0);
    for (unsigned l = 1; l < PE_GRAPH_LEVELS; l++)
        pe_layer_init(&g->layer[l], &ix->host, g->m, PE_LAYER_HEAD);
    pe_array_init(&g->gone, &ix->host, sizeof(uint64_t));
    if (g->layout != PERI_LAYOUT_Q)
        return PERI_OK;
    PE_TRY(pe_quantised_init(&g->quantised, &ix->host, &ix->space, g->m_max, g->seed));
    g->layer[0].fresh = &g->quantised.fresh;
    return PERI_OK;
}

peri_status pe_graph_refresh(peri_index *ix, uint32_t count, pe_progress *progress,
                             unsigned workers)
{
    pe_graph *g = pe_graph_of(ix);
    if (g->layout != PERI_LAYOUT_Q)
        return PERI_OK;
    return pe_quantised_refresh(&g->quantised, &ix->rows, &g->layer[0], &ix->epoch, count, progress,
                                workers);
}

void pe_graph_destroy(peri_index *ix)
{
    pe_graph *g = pe_graph_of(ix);
    for (unsigned l = 0; l < PE_GRAPH_LEVELS; l++)
        if (g->layer[l].nodes.host)
            pe_layer_destroy(&g->layer[l]);
    pe_quantised_destroy(&g->quantised);
    pe_graph_free_workers(ix);
    if (g->gone.host)
        pe_array_destroy(&g->gone);
    for (unsigned l = 0; l < PE_GRAPH_LEVELS; l++)
        pe_free(&ix->host, g->spare[l], g->spare_room[l] * sizeof *g->spare[l]);
    pe_free(&ix->host, g->dead, g->dead_room * sizeof *g->dead);
    pthread_mutex_destroy(&g->upper);
}

void pe_graph_info(const peri_index *ix, peri_index_info *out)
{
    out->links = pe_graph_of(ix)->m_max;
}

uint32_t pe_graph_effort(const peri_index *ix)
{
    return pe_graph_of(ix)->ef_search;
}
