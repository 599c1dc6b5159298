#include "hnsw/hnsw.h"

static peri_status check_range(const char *field, uint32_t value, uint32_t low, uint32_t high)
{
    if (value < low || value > high)
        return pe_fail(PERI_ERR_CONFIG, "%s is %u, expected %u to %u", field, value, low, high);
    return PERI_OK;
}

/* Links that are more diverse than HNSW's own rule asks help where distances spread; under ip,
 * where keys may be negative, the slack has no meaning. */
static float default_alpha(const peri_space *space)
{
    return space->metric == PERI_METRIC_IP ? 1.0f : 1.05f;
}

static peri_status read_config(hnsw *h, const peri_space *space, const peri_hnsw_config *in)
{
    peri_hnsw_config c;
    peri_hnsw_config_init(&c);
    if (in) {
        if (in->struct_size < sizeof c)
            return pe_fail(PERI_ERR_ARG, "peri_hnsw_config.struct_size is %u, expected %zu or more",
                           in->struct_size, sizeof c);
        c = *in;
    }
    h->m = c.m ? c.m : 16;
    h->m_max = c.m_max ? c.m_max : 2 * h->m;
    h->ef_construction = c.ef_construction ? c.ef_construction : 200;
    h->ef_search = c.ef_search ? c.ef_search : 100;
    h->codes = c.codes;
    h->alpha = c.alpha != 0 ? c.alpha : default_alpha(space);
    h->seed = c.seed ? c.seed : 0x70657269676565u;
    PE_TRY(check_range("m", h->m, 2, 256));
    PE_TRY(check_range("m_max", h->m_max, h->m, PE_DEGREE_MAX));
    PE_TRY(check_range("ef_construction", h->ef_construction, 8, 4096));
    PE_TRY(check_range("ef_search", h->ef_search, 1, 1 << 20));
    PE_TRY(check_range("codes", h->codes, PERI_CODES_AUTO, PERI_CODES_8BIT));
    if (!(h->alpha >= 0.5f && h->alpha <= 2.0f))
        return pe_fail(PERI_ERR_CONFIG, "alpha is %g, expected 0.5 to 2", (double)h->alpha);
    if (space->metric == PERI_METRIC_IP)
        h->alpha = 1;
    if (h->codes == PERI_CODES_AUTO)
        h->codes = space->scalar == PERI_SCALAR_I8 ? PERI_CODES_NONE : PERI_CODES_8BIT;
    return PERI_OK;
}

static peri_status init(peri_index *ix, const void *config)
{
    hnsw *h = hnsw_of(ix);
    pthread_mutex_init(&h->upper, NULL);
    atomic_store_explicit(&h->entry, HNSW_NO_ENTRY, memory_order_relaxed);
    h->sweep_layer = -1;
    PE_TRY(read_config(h, &ix->space, config));
    pe_hnsw_init_layers(ix);
    return pe_hnsw_make_workers(ix, 1);
}

void pe_hnsw_init_layers(peri_index *ix)
{
    hnsw *h = hnsw_of(ix);
    pe_layer_init(&h->layer[0], &ix->host, h->m_max, 0);
    for (unsigned l = 1; l < HNSW_LEVELS; l++)
        pe_layer_init(&h->layer[l], &ix->host, h->m, PE_LAYER_HEAD);
    pe_array_init(&h->gone, &ix->host, sizeof(uint64_t));
}

static void destroy(peri_index *ix)
{
    hnsw *h = hnsw_of(ix);
    for (unsigned l = 0; l < HNSW_LEVELS; l++)
        if (h->layer[l].nodes.host)
            pe_layer_destroy(&h->layer[l]);
    pe_hnsw_free_workers(ix);
    if (h->gone.host)
        pe_array_destroy(&h->gone);
    for (unsigned l = 0; l < HNSW_LEVELS; l++)
        pe_free(&ix->host, h->spare[l], h->spare_room[l] * sizeof *h->spare[l]);
    pe_free(&ix->host, h->dead, h->dead_room * sizeof *h->dead);
    pthread_mutex_destroy(&h->upper);
}

static void info(const peri_index *ix, peri_index_info *out)
{
    out->links = hnsw_of(ix)->m_max;
}

static uint32_t effort(const peri_index *ix)
{
    return hnsw_of(ix)->ef_search;
}

const pe_kind pe_hnsw_kind = {
    .name = "hnsw",
    .tag = PE_FOURCC('H', 'N', 'S', 'W'),
    .caps = PERI_CAP_EFFORT | PERI_CAP_CODES,
    .self_size = sizeof(hnsw),
    .init = init,
    .destroy = destroy,
    .reserve = pe_hnsw_reserve,
    .before = pe_hnsw_before,
    .insert = pe_hnsw_insert,
    .removed = pe_hnsw_removed,
    .search = pe_hnsw_search,
    .maintain = pe_hnsw_maintain,
    .save = pe_hnsw_save,
    .open = pe_hnsw_open,
    .check = pe_hnsw_check,
    .info = info,
    .effort = effort,
};

peri_status peri_hnsw_create(peri_index **out, const peri_space *space,
                             const peri_hnsw_config *config, const peri_env *env)
{
    return pe_index_create(out, &pe_hnsw_kind, space, config, env);
}
