#include "hnsw/hnsw.h"

/* Links that are more diverse than HNSW's own rule asks help where distances spread; under ip,
 * where keys may be negative, the slack has no meaning. */
static float default_alpha(const peri_space *space)
{
    return space->metric == PERI_METRIC_IP ? 1.0f : 1.05f;
}

/* Cells that a row goes to when built in bulk: at 6 recall is that of insertion by search with
 * ef_construction 200 or above it (docs/benchmarks.md). */
enum { FANOUT = 6 };

static peri_status init(peri_index *ix, const void *config)
{
    pe_graph *g = pe_graph_of(ix);
    pe_graph_start(g);
    peri_hnsw_config c;
    peri_hnsw_config_init(&c);
    if (config) {
        const peri_hnsw_config *in = config;
        if (in->struct_size < sizeof c)
            return pe_fail(PERI_ERR_ARG, "peri_hnsw_config.struct_size is %u, expected %zu or more",
                           in->struct_size, sizeof c);
        c = *in;
    }
    g->m = c.m ? c.m : 16;
    g->m_max = c.m_max ? c.m_max : 2 * g->m;
    g->ef_construction = c.ef_construction ? c.ef_construction : 200;
    g->ef_search = c.ef_search ? c.ef_search : 100;
    g->codes = c.codes;
    g->build = c.build;
    g->layout = c.layout;
    g->fanout = FANOUT;
    g->alpha = c.alpha != 0 ? c.alpha : default_alpha(&ix->space);
    g->seed = c.seed ? c.seed : 0x70657269676565u;
    return pe_graph_setup(ix);
}

static peri_status open_file(peri_index *ix, pe_segr *r, int map, int writable)
{
    pe_graph *g = pe_graph_of(ix);
    pe_graph_start(g);
    g->fanout = FANOUT;
    return pe_graph_open(ix, r, map, writable);
}

const pe_kind pe_hnsw_kind = {
    .name = "hnsw",
    .tag = PE_FOURCC('H', 'N', 'S', 'W'),
    .caps = PERI_CAP_EFFORT | PERI_CAP_CODES,
    .self_size = sizeof(pe_graph),
    .init = init,
    .destroy = pe_graph_destroy,
    .reserve = pe_graph_reserve,
    .before = pe_graph_before,
    .at_once = pe_graph_at_once,
    .insert = pe_graph_insert,
    .removed = pe_graph_removed,
    .search = pe_graph_search,
    .maintain = pe_graph_maintain,
    .save = pe_graph_save,
    .open = open_file,
    .check = pe_graph_check,
    .info = pe_graph_info,
    .effort = pe_graph_effort,
};

peri_status peri_hnsw_create(peri_index **out, const peri_space *space,
                             const peri_hnsw_config *config, const peri_env *env)
{
    return pe_index_create(out, &pe_hnsw_kind, space, config, env);
}
