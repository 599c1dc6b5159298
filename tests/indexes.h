/* What the tests of indexes share: making them, rows for them, and the question whether one is
 * whole, to be asked after every mutation. */
#ifndef PE_INDEXES_H
#define PE_INDEXES_H

#include "base/rng.h"
#include "perigee/index.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- statuses, with the detail when one is not what it should be ---- */

static inline void expect_status(peri_status got, peri_status want, const char *call,
                                 const char *file, int line)
{
    if (got == want)
        return;
    print_error("%s is %s, expected %s: %s\n", call, peri_status_name(got), peri_status_name(want),
                peri_error_detail());
    _fail(file, line);
}
#define assert_status(want, call) expect_status((call), (want), #call, __FILE__, __LINE__)
#define assert_ok(call)           assert_status(PERI_OK, call)
/* The detail of the last error says this. */
#define assert_detail(text)                                                                        \
    do {                                                                                           \
        if (!strstr(peri_error_detail(), (text))) {                                                \
            print_error("the detail \"%s\" does not say \"%s\"\n", peri_error_detail(), (text));   \
            fail();                                                                                \
        }                                                                                          \
    } while (0)

static inline void expect_valid(const peri_index *ix, const char *file, int line)
{
    uint64_t faults = 0;
    peri_status status = peri_index_check(ix, NULL, &faults);
    if (status == PERI_OK && faults == 0)
        return;
    print_error("check is %s with %llu faults: %s\n", peri_status_name(status),
                (unsigned long long)faults, peri_error_detail());
    _fail(file, line);
}
#define assert_index_valid(ix) expect_valid((ix), __FILE__, __LINE__)

/* ---- making ---- */

/* KIND_Q is hnsw in layout Q; by ip, which that layout does not serve, in layout G. */
enum { KIND_FLAT, KIND_HNSW, KIND_GWI, KIND_CASCADE, KIND_Q, KINDS };

static const char *const kind_names[] = {"flat", "hnsw", "gwi", "cascade", "hnsw"};

static const char *const metric_names[] = {"", "l2", "ip", "cosine"};
static const char *const scalar_names[] = {"", "f32", "f16", "bf16", "i8"};

/* What an hnsw config says, as far as it goes for cascade. */
static inline peri_cascade_config as_cascade(const peri_hnsw_config *from)
{
    peri_cascade_config c;
    peri_cascade_config_init(&c);
    c.num_hyperplanes = 8;
    c.bucket_capacity = 16; /* so that few rows make a tree */
    if (from) {
        c.degree = from->m_max ? from->m_max : 2 * from->m;
        c.ef_construction = from->ef_construction;
        c.ef_search = from->ef_search;
        c.codes = from->codes;
        c.alpha = from->alpha;
        c.seed = from->seed;
    }
    return c;
}

static inline peri_index *make_index(int kind, uint32_t dim, uint16_t metric, uint16_t scalar,
                                     const peri_hnsw_config *config, const peri_env *env)
{
    peri_index *ix = NULL;
    peri_space space;
    peri_space_init(&space, dim, metric);
    space.scalar = scalar;
    peri_cascade_config cascade = as_cascade(config);
    peri_hnsw_config quantised;
    peri_hnsw_config_init(&quantised);
    if (config)
        quantised = *config;
    if (metric != PERI_METRIC_IP) {
        quantised.layout = PERI_LAYOUT_Q;
        quantised.m_max = quantised.m > 32 ? 64 : 32;
        quantised.codes = PERI_CODES_AUTO;
    }
    peri_gwi_config wells;
    peri_gwi_config_init(&wells);
    if (config) { /* small, so that a few rows are enough to train, split and merge */
        wells.codes = config->codes;
        wells.train_rows = 64;
        wells.nprobe = config->ef_search;
    }
    if (kind == KIND_FLAT)
        assert_ok(peri_flat_create(&ix, &space, env));
    else if (kind == KIND_GWI)
        assert_ok(peri_gwi_create(&ix, &space, &wells, env));
    else if (kind == KIND_HNSW)
        assert_ok(peri_hnsw_create(&ix, &space, config, env));
    else if (kind == KIND_Q)
        assert_ok(peri_hnsw_create(&ix, &space, &quantised, env));
    else
        assert_ok(peri_cascade_create(&ix, &space, &cascade, env));
    assert_non_null(ix);
    return ix;
}

static inline peri_index_info info_of(const peri_index *ix)
{
    peri_index_info info;
    peri_index_info_init(&info);
    assert_ok(peri_index_get_info(ix, &info));
    return info;
}

static inline peri_task threads_task(uint32_t threads)
{
    peri_task task;
    peri_task_init(&task);
    task.threads = threads;
    return task;
}

static inline peri_query query_of(uint32_t k)
{
    peri_query q;
    peri_query_init(&q, k);
    return q;
}

/* ---- rows ---- */

static inline float normal(pe_rng *r)
{
    return (float)(sqrt(-2 * log(pe_rng_unit(r))) * cos(6.283185307179586 * pe_rng_unit(r)));
}

/* Rows around a few centres, as real ones are: a row is centre + noise. */
static inline void fill_rows(pe_rng *r, float *rows, size_t n, uint32_t dim)
{
    enum { CENTRES = 32 };
    for (size_t i = 0; i < n; i++) {
        pe_rng centre = {1000 + pe_rng_below(r, CENTRES)};
        for (uint32_t j = 0; j < dim; j++)
            rows[i * dim + j] = normal(&centre) + 0.5f * normal(r);
    }
}

static inline float *new_rows(uint64_t seed, size_t n, uint32_t dim)
{
    pe_rng r = {seed};
    float *rows = malloc(n * dim * sizeof *rows + 1);
    assert_non_null(rows);
    fill_rows(&r, rows, n, dim);
    return rows;
}

#endif
