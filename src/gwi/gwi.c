#include "gwi/gwi.h"
#include "base/checked.h"

#include <math.h>

static peri_status check_range(const char *field, uint32_t value, uint32_t low, uint32_t high)
{
    if (value < low || value > high)
        return pe_fail(PERI_ERR_CONFIG, "%s is %u, expected %u to %u", field, value, low, high);
    return PERI_OK;
}

/* branching^levels, as the number of wells aimed at. */
static peri_status read_shape(gwi *g)
{
    if (!g->branching && !g->levels)
        return PERI_OK;
    g->branching = g->branching ? g->branching : 16;
    g->levels = g->levels ? g->levels : 3;
    PE_TRY(check_range("branching", g->branching, 2, 1024));
    PE_TRY(check_range("levels", g->levels, 1, 16));
    uint64_t wells = 1;
    for (uint32_t l = 0; l < g->levels; l++)
        wells = wells * g->branching < GWI_MOST_WELLS ? wells * g->branching : GWI_MOST_WELLS;
    if (!g->wells)
        g->wells = (uint32_t)wells;
    return PERI_OK;
}

static peri_status read_config(gwi *g, const peri_space *space, const peri_gwi_config *in)
{
    peri_gwi_config c;
    peri_gwi_config_init(&c);
    if (in) {
        if (in->struct_size < sizeof c)
            return pe_fail(PERI_ERR_ARG, "peri_gwi_config.struct_size is %u, expected %zu or more",
                           in->struct_size, sizeof c);
        c = *in;
    }
    g->branching = c.branching;
    g->levels = c.levels;
    g->wells = c.wells;
    g->nprobe = c.nprobe ? c.nprobe : 32;
    g->rounds = c.rounds ? c.rounds : 10;
    g->train_rows = c.train_rows ? c.train_rows : 4096;
    g->codes = c.codes;
    g->bits = c.bits ? c.bits : space->dim <= 320 ? 2 : 1;
    g->seed = c.seed ? c.seed : 0x70657269676565u;
    PE_TRY(read_shape(g));
    if (g->wells)
        PE_TRY(check_range("wells", g->wells, 2, GWI_MOST_WELLS));
    PE_TRY(check_range("nprobe", g->nprobe, 1, 1 << 20));
    PE_TRY(check_range("rounds", g->rounds, 1, 100));
    PE_TRY(check_range("train_rows", g->train_rows, 64, 1 << 24));
    PE_TRY(check_range("codes", g->codes, PERI_CODES_AUTO, PERI_CODES_8BIT));
    if (g->bits != 1 && g->bits != 2 && g->bits != 4)
        return pe_fail(PERI_ERR_CONFIG, "bits is %u, expected 1, 2 or 4", g->bits);
    if (g->codes == PERI_CODES_AUTO)
        g->codes = space->scalar == PERI_SCALAR_I8 ? PERI_CODES_NONE : PERI_CODES_8BIT;
    return PERI_OK;
}

/* Four times the root of the rows: fewer make the scan longer, more the choice of wells, and wells
 * that fill less than a block and a half waste lanes. */
uint32_t pe_gwi_wells_for(const gwi *g, uint64_t rows)
{
    if (g->wells)
        return g->wells;
    double by_root = 4 * sqrt((double)rows), by_size = (double)rows / GWI_LEAST_ROWS;
    double wells = by_root < by_size ? by_root : by_size;
    return wells < 2 ? 2 : wells > GWI_MOST_WELLS ? GWI_MOST_WELLS : (uint32_t)wells;
}

static uint32_t mean_rows(const peri_index *ix)
{
    const gwi *g = gwi_of(ix);
    uint64_t live = pe_slots_live(&ix->slots), rows = live > g->planned ? live : g->planned;
    uint64_t mean = rows / pe_gwi_wells_for(g, rows);
    return mean < GWI_LEAST_ROWS ? GWI_LEAST_ROWS : mean > 1u << 30 ? 1u << 30 : (uint32_t)mean;
}

uint32_t pe_gwi_most_rows(const peri_index *ix)
{
    return mean_rows(ix) * 3 / 2;
}

uint32_t pe_gwi_least_rows(const peri_index *ix)
{
    return mean_rows(ix) / 8;
}

peri_status pe_gwi_setup(peri_index *ix)
{
    gwi *g = gwi_of(ix);
    PE_TRY(pe_bitcode_init(&g->bitcode, &ix->host, &ix->space, g->bits, g->seed));
    const pe_bitcode *b = &g->bitcode;
    g->entries_at = pe_block_size(b);
    pe_array_init(&g->blocks, &ix->host,
                  pe_round_up(g->entries_at + PE_BLOCK_ROWS * sizeof(uint32_t), PE_ALIGN));
    pe_array_init(&g->centres, &ix->host, b->width * sizeof(float));
    pe_array_init(&g->where, &ix->host, sizeof(uint32_t));
    g->ready = 1;
    g->one_row = pe_alloc(&ix->host, b->width * sizeof(float));
    g->one_tmp = pe_alloc(&ix->host, b->width * sizeof(float));
    g->one_symbols = pe_alloc(&ix->host, b->groups);
    g->one_room = pe_alloc(&ix->host, b->width);
    return g->one_row && g->one_tmp && g->one_symbols && g->one_room ? PERI_OK : PERI_ERR_NOMEM;
}

static peri_status init(peri_index *ix, const void *config)
{
    PE_TRY(read_config(gwi_of(ix), &ix->space, config));
    return pe_gwi_setup(ix);
}

static void destroy(peri_index *ix)
{
    gwi *g = gwi_of(ix);
    if (!g->ready)
        return;
    gwi_tree *t = gwi_tree_of(g);
    for (uint32_t i = 0; t && i < t->n_wells; i++)
        if (t->well[i]) {
            pe_gwi_free_list(ix, gwi_list_of(t->well[i]), 0);
            pe_free(&ix->host, t->well[i], sizeof *t->well[i]);
        }
    pe_gwi_free_tree(&ix->host, t, NULL);
    pe_array_destroy(&g->blocks);
    pe_array_destroy(&g->centres);
    pe_array_destroy(&g->where);
    pe_free(&ix->host, g->free_blocks.number, g->free_blocks.room * sizeof *g->free_blocks.number);
    pe_free(&ix->host, g->free_centres.number,
            g->free_centres.room * sizeof *g->free_centres.number);
    pe_free(&ix->host, g->by_centre, g->by_centre_room * sizeof *g->by_centre);
    pe_free(&ix->host, g->one_row, g->bitcode.width * sizeof(float));
    pe_free(&ix->host, g->one_tmp, g->bitcode.width * sizeof(float));
    pe_free(&ix->host, g->one_symbols, g->bitcode.groups);
    pe_free(&ix->host, g->one_room, g->bitcode.width);
    pe_free(&ix->host, g->one_keys, g->one_keys_room * sizeof *g->one_keys);
    pe_gwi_free_rooms(ix);
    pe_bitcode_destroy(&g->bitcode);
}

static void info(const peri_index *ix, peri_index_info *out)
{
    pe_reader *place = pe_epoch_enter(&ix->epoch);
    const gwi_tree *t = gwi_tree_of(gwi_of(ix));
    out->wells = t ? t->n_wells : 0;
    out->well_bits = gwi_of(ix)->bits;
    pe_epoch_exit(place);
}

static uint32_t effort(const peri_index *ix)
{
    return gwi_of(ix)->nprobe;
}

static peri_status train(peri_index *ix, const float *rows, size_t n, pe_progress *progress,
                         unsigned workers)
{
    gwi *g = gwi_of(ix);
    if (gwi_tree_of(g))
        return pe_fail(PERI_ERR_STATE, "the index is trained, with %u wells",
                       gwi_tree_of(g)->n_wells);
    if (n < 2)
        return pe_fail(PERI_ERR_ARG, "%zu rows to train on, expected 2 or more", n);
    uint64_t live = pe_slots_live(&ix->slots);
    return pe_gwi_train(ix, rows, n, live > n ? live : n, progress, workers);
}

const pe_kind pe_gwi_kind = {
    .name = "gwi",
    .tag = PE_FOURCC('G', 'W', 'I', ' '),
    .caps = PERI_CAP_EFFORT | PERI_CAP_CODES | PERI_CAP_TRAIN,
    .self_size = sizeof(gwi),
    .init = init,
    .destroy = destroy,
    .reserve = pe_gwi_reserve,
    .before = pe_gwi_before,
    .train = train,
    .insert = pe_gwi_insert,
    .removed = pe_gwi_removed,
    .search = pe_gwi_search,
    .maintain = pe_gwi_maintain,
    .save = pe_gwi_save,
    .open = pe_gwi_open,
    .check = pe_gwi_check,
    .info = info,
    .effort = effort,
};

peri_status peri_gwi_create(peri_index **out, const peri_space *space,
                            const peri_gwi_config *config, const peri_env *env)
{
    return pe_index_create(out, &pe_gwi_kind, space, config, env);
}
