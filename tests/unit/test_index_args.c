/* What callers do wrong, and the ends of what is allowed: each is answered by the error that the
 * header names, says expected and actual, stores nothing and leaves the index whole. */
#include "indexes.h"
#include "scratch.h"

#include <float.h>
#include <sys/mman.h>

enum { DIM = 19 };

static peri_index *small(int kind)
{
    return make_index(kind, DIM, PERI_METRIC_L2, 0, NULL, NULL);
}

/* An index with rows 0..n-1 by id, and what they are. */
static peri_index *filled(int kind, size_t n, float **rows)
{
    peri_index *ix = small(kind);
    *rows = new_rows(7, n, DIM);
    assert_ok(peri_index_put_many(ix, n, NULL, *rows, 0, NULL, NULL));
    assert_index_valid(ix);
    return ix;
}

static void assert_row(const peri_index *ix, uint64_t id, const float *row)
{
    float got[DIM];
    assert_ok(peri_index_get(ix, id, got));
    assert_memory_equal(got, row, sizeof got);
}

static float bits_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static peri_slice text_key(const char *s)
{
    return (peri_slice){s, strlen(s)};
}

/* ---- making ---- */

static void constructors_refuse_what_they_cannot_make(void **state)
{
    (void)state;
    peri_index *ix = (peri_index *)(uintptr_t)1;
    peri_space space;
    peri_space_init(&space, DIM, 0);
    assert_status(PERI_ERR_ARG, peri_flat_create(NULL, &space, NULL));
    assert_status(PERI_ERR_ARG, peri_hnsw_create(NULL, &space, NULL, NULL));
    assert_status(PERI_ERR_ARG, peri_flat_create(&ix, NULL, NULL));
    assert_null(ix);
    static const struct {
        uint32_t size, dim;
        uint16_t metric, scalar;
        peri_status status;
        const char *detail;
    } bad[] = {
        {0, DIM, 1, 1, PERI_ERR_ARG, "struct_size is 0"},
        {sizeof(peri_space) - 1, DIM, 1, 1, PERI_ERR_ARG, "expected 12"},
        {sizeof(peri_space), 0, 1, 1, PERI_ERR_DIMENSION, "dimension is 0, expected 1 to 65535"},
        {sizeof(peri_space), 65536, 1, 1, PERI_ERR_DIMENSION, "dimension is 65536"},
        {sizeof(peri_space), UINT32_MAX, 1, 1, PERI_ERR_DIMENSION, "dimension is 4294967295"},
        {sizeof(peri_space), DIM, 4, 1, PERI_ERR_CONFIG, "metric is 4"},
        {sizeof(peri_space), DIM, 1, 5, PERI_ERR_CONFIG, "scalar is 5"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        peri_space s = {bad[i].size, bad[i].dim, bad[i].metric, bad[i].scalar};
        ix = (peri_index *)(uintptr_t)1;
        assert_status(bad[i].status, peri_flat_create(&ix, &s, NULL));
        assert_detail(bad[i].detail);
        assert_null(ix);
        ix = (peri_index *)(uintptr_t)1;
        assert_status(bad[i].status, peri_hnsw_create(&ix, &s, NULL, NULL));
        assert_null(ix);
    }
}

static void constructors_refuse_half_an_environment(void **state)
{
    (void)state;
    peri_index *ix;
    peri_space space;
    peri_env env;
    peri_space_init(&space, DIM, 0);
    peri_env_init(&env);
    env.struct_size--;
    assert_status(PERI_ERR_ARG, peri_flat_create(&ix, &space, &env));
    assert_detail("peri_env.struct_size");
    peri_env_init(&env);
    env.free = (void (*)(void *, void *, size_t))(uintptr_t)1;
    assert_status(PERI_ERR_ARG, peri_hnsw_create(&ix, &space, NULL, &env));
    assert_detail("come together");
    peri_files files = *peri_files_posix();
    files.struct_size = 8;
    peri_env_init(&env);
    env.files = &files;
    assert_status(PERI_ERR_ARG, peri_flat_create(&ix, &space, &env));
    assert_detail("peri_files.struct_size is 8");
}

static void the_graphs_configuration_is_checked_field_by_field(void **state)
{
    (void)state;
    peri_index *ix;
    peri_space space;
    peri_space_init(&space, DIM, 0);
    static const struct {
        size_t at;
        uint32_t low, high; /* the ends that are allowed */
        const char *name;
    } fields[] = {
        {offsetof(peri_hnsw_config, m), 2, 256, "m is"},
        {offsetof(peri_hnsw_config, m_max), 16, 512, "m_max is"},
        {offsetof(peri_hnsw_config, ef_construction), 8, 4096, "ef_construction is"},
        {offsetof(peri_hnsw_config, ef_search), 1, 1048576, "ef_search is"},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        for (int which = 0; which < 4; which++) {
            uint32_t value[] = {fields[i].low, fields[i].high, fields[i].low - 1,
                                fields[i].high + 1};
            peri_hnsw_config c;
            peri_hnsw_config_init(&c);
            if (value[which] == 0)
                continue; /* the default */
            memcpy((char *)&c + fields[i].at, &value[which], sizeof value[which]);
            if (which < 2) {
                assert_ok(peri_hnsw_create(&ix, &space, &c, NULL));
                peri_index_close(ix);
            } else {
                assert_status(PERI_ERR_CONFIG, peri_hnsw_create(&ix, &space, &c, NULL));
                assert_detail(fields[i].name);
                assert_null(ix);
            }
        }
    static const float alphas[] = {0.5f, 2.0f, 0.49f, 2.01f, -1.0f, NAN, INFINITY};
    for (size_t i = 0; i < sizeof alphas / sizeof *alphas; i++) {
        peri_hnsw_config c;
        peri_hnsw_config_init(&c);
        c.alpha = alphas[i];
        assert_status(i < 2 ? PERI_OK : PERI_ERR_CONFIG, peri_hnsw_create(&ix, &space, &c, NULL));
        peri_index_close(ix);
    }
    peri_hnsw_config c;
    peri_hnsw_config_init(&c);
    c.codes = 3;
    assert_status(PERI_ERR_CONFIG, peri_hnsw_create(&ix, &space, &c, NULL));
    c.codes = 0;
    c.struct_size = 4;
    assert_status(PERI_ERR_ARG, peri_hnsw_create(&ix, &space, &c, NULL));
    assert_detail("peri_hnsw_config.struct_size is 4");
}

static void zeros_mean_defaults_and_info_says_which(void **state)
{
    (void)state;
    peri_index *ix = make_index(KIND_HNSW, DIM, 0, 0, NULL, NULL);
    peri_index_info info = info_of(ix);
    assert_string_equal(info.kind, "hnsw");
    assert_int_equal(info.space.dim, DIM);
    assert_int_equal(info.space.metric, PERI_METRIC_L2);
    assert_int_equal(info.space.scalar, PERI_SCALAR_F32);
    assert_int_equal(info.links, 32);
    assert_int_equal(info.caps, PERI_CAP_EFFORT | PERI_CAP_CODES);
    assert_int_equal(info.rows + info.deleted + info.keyed + info.calibrated + info.next_id, 0);
    assert_true(info.bytes_heap > 0);
    assert_int_equal(info.bytes_mapped, 0);
    peri_index_close(ix);
    ix = small(KIND_FLAT);
    info = info_of(ix);
    assert_string_equal(info.kind, "flat");
    assert_int_equal(info.caps, PERI_CAP_EXACT);
    assert_int_equal(info.links, 0);
    peri_index_close(ix);
    peri_index_close(NULL);
}

/* ---- pointers, sizes, flags ---- */

static void null_pointers_are_refused_by_name(void **state)
{
    (void)state;
    float *rows, row[DIM] = {0};
    peri_hit hits[4];
    size_t n = 0;
    uint64_t id = 0;
    peri_buf buf = {0};
    peri_query q = query_of(4);
    peri_index_info info;
    peri_index_info_init(&info);
    peri_slice key = text_key("a");
    for (int kind = 0; kind < KINDS; kind++) {
        peri_index *ix = filled(kind, 40, &rows);
        assert_status(PERI_ERR_ARG, peri_index_put(NULL, 1, row, 0));
        assert_detail("index is NULL");
        assert_status(PERI_ERR_ARG, peri_index_put(ix, 1, NULL, 0));
        assert_detail("rows is NULL");
        assert_status(PERI_ERR_ARG, peri_index_put_many(NULL, 1, NULL, row, 0, NULL, &n));
        assert_status(PERI_ERR_ARG, peri_index_put_many(ix, 1, NULL, NULL, 0, NULL, &n));
        assert_status(PERI_ERR_ARG, peri_index_put_keyed(NULL, key, row, 0, &id));
        assert_status(PERI_ERR_ARG, peri_index_put_keyed(ix, key, NULL, 0, &id));
        assert_status(PERI_ERR_ARG, peri_index_put_many_keyed(ix, 1, NULL, row, 0, NULL, &n));
        assert_detail("keys is NULL");
        assert_status(PERI_ERR_ARG, peri_index_put_many_keyed(NULL, 1, &key, row, 0, NULL, &n));
        assert_status(PERI_ERR_ARG, peri_index_remove(NULL, 1));
        assert_status(PERI_ERR_ARG, peri_index_remove_keyed(NULL, key));
        assert_status(PERI_ERR_ARG, peri_index_get(NULL, 1, row));
        assert_status(PERI_ERR_ARG, peri_index_get(ix, 1, NULL));
        assert_status(PERI_ERR_ARG, peri_index_id_of(NULL, key, &id));
        assert_status(PERI_ERR_ARG, peri_index_id_of(ix, key, NULL));
        assert_status(PERI_ERR_ARG, peri_index_key_of(NULL, 1, &buf));
        assert_status(PERI_ERR_ARG, peri_index_key_of(ix, 1, NULL));
        assert_status(PERI_ERR_ARG, peri_index_reserve(NULL, 1));
        assert_status(PERI_ERR_ARG, peri_index_maintain(NULL, NULL));
        assert_status(PERI_ERR_ARG, peri_index_save(NULL, "x", NULL));
        assert_status(PERI_ERR_ARG, peri_index_save(ix, NULL, NULL));
        assert_status(PERI_ERR_ARG, peri_index_open(NULL, "x", 0, NULL, NULL));
        peri_index *none = ix;
        assert_status(PERI_ERR_ARG, peri_index_open(&none, NULL, 0, NULL, NULL));
        assert_status(PERI_ERR_ARG, peri_index_search(NULL, row, &q, hits, &n));
        assert_status(PERI_ERR_ARG, peri_index_search(ix, NULL, &q, hits, &n));
        assert_status(PERI_ERR_ARG, peri_index_search(ix, row, NULL, hits, &n));
        assert_status(PERI_ERR_ARG, peri_index_search(ix, row, &q, NULL, &n));
        assert_status(PERI_ERR_ARG, peri_index_search(ix, row, &q, hits, NULL));
        assert_status(PERI_ERR_ARG, peri_index_search_many(NULL, 1, row, &q, NULL, hits, &n));
        assert_status(PERI_ERR_ARG, peri_index_search_many(ix, 1, NULL, &q, NULL, hits, &n));
        assert_status(PERI_ERR_ARG, peri_index_search_many(ix, 1, row, NULL, NULL, hits, &n));
        assert_status(PERI_ERR_ARG, peri_index_search_many(ix, 1, row, &q, NULL, NULL, &n));
        assert_status(PERI_ERR_ARG, peri_index_search_many(ix, 1, row, &q, NULL, hits, NULL));
        assert_status(PERI_ERR_ARG, peri_index_get_info(NULL, &info));
        assert_status(PERI_ERR_ARG, peri_index_get_info(ix, NULL));
        assert_status(PERI_ERR_ARG, peri_index_ids(NULL, &id, 1, &n));
        assert_status(PERI_ERR_ARG, peri_index_ids(ix, NULL, 1, &n));
        assert_status(PERI_ERR_ARG, peri_index_ids(ix, &id, 1, NULL));
        assert_status(PERI_ERR_ARG, peri_index_check(NULL, NULL, &id));
        assert_status(PERI_ERR_ARG, peri_index_check(ix, NULL, NULL));
        assert_int_equal(info_of(ix).rows, 40);
        assert_int_equal(info_of(ix).keyed, 0);
        assert_index_valid(ix);
        peri_index_close(ix);
        free(rows);
    }
}

static void structs_of_no_known_size_are_refused(void **state)
{
    (void)state;
    float *rows;
    peri_hit hits[4];
    size_t n;
    uint64_t faults;
    peri_index *ix = filled(KIND_HNSW, 40, &rows);
    peri_query q = query_of(4);
    q.struct_size = 0;
    assert_status(PERI_ERR_ARG, peri_index_search(ix, rows, &q, hits, &n));
    assert_detail("peri_query.struct_size is 0, expected");
    assert_status(PERI_ERR_ARG, peri_index_search_many(ix, 1, rows, &q, NULL, hits, &n));
    q = query_of(4);
    peri_index_info info = {0};
    assert_status(PERI_ERR_ARG, peri_index_get_info(ix, &info));
    assert_detail("peri_index_info.struct_size");
    peri_task task = {0};
    assert_status(PERI_ERR_ARG, peri_index_put_many(ix, 1, NULL, rows, 0, &task, &n));
    assert_detail("peri_task.struct_size");
    assert_int_equal(n, 0);
    assert_status(PERI_ERR_ARG, peri_index_search_many(ix, 1, rows, &q, &task, hits, &n));
    assert_status(PERI_ERR_ARG, peri_index_save(ix, scratch("never"), &task));
    assert_status(PERI_ERR_ARG, peri_index_maintain(ix, &task));
    assert_status(PERI_ERR_ARG, peri_index_check(ix, &task, &faults));
    peri_index *other;
    assert_status(PERI_ERR_ARG, peri_index_open(&other, scratch("never"), 0, NULL, &task));
    assert_int_equal(scratch_count(), 0);
    /* Larger ones come from a newer caller: what is known of them is read. */
    struct {
        peri_query q;
        char more[32];
    } newer = {.q = query_of(4)};
    newer.q.struct_size = sizeof newer;
    assert_ok(peri_index_search(ix, rows, &newer.q, hits, &n));
    assert_int_equal(n, 4);
    assert_index_valid(ix);
    peri_index_close(ix);
    free(rows);
}

static void unknown_flags_are_refused(void **state)
{
    (void)state;
    float *rows;
    size_t n = 99;
    uint64_t id;
    peri_slice key = text_key("k");
    peri_index *ix = filled(KIND_FLAT, 5, &rows), *other;
    for (unsigned bit = 1; bit < 32; bit++) {
        uint32_t flag = (uint32_t)1 << bit;
        assert_status(PERI_ERR_ARG, peri_index_put(ix, 1, rows, flag));
        assert_detail("unknown put flags");
        assert_status(PERI_ERR_ARG, peri_index_put_many(ix, 1, NULL, rows, flag, NULL, &n));
        assert_int_equal(n, 0);
        n = 99;
        assert_status(PERI_ERR_ARG, peri_index_put_keyed(ix, key, rows, flag, &id));
        assert_status(PERI_ERR_ARG, peri_index_put_many_keyed(ix, 1, &key, rows, flag, NULL, &n));
        if (bit > 1)
            assert_status(PERI_ERR_ARG, peri_index_open(&other, scratch("x"), flag, NULL, NULL));
    }
    assert_int_equal(info_of(ix).rows, 5);
    peri_index_close(ix);
    free(rows);
}

static void more_rows_than_memory_can_address_are_refused(void **state)
{
    (void)state;
    float *rows;
    size_t n = 99;
    peri_index *ix = filled(KIND_HNSW, 5, &rows);
    assert_status(PERI_ERR_ARG, peri_index_put_many(ix, SIZE_MAX / DIM, NULL, rows, 0, NULL, &n));
    assert_detail("overflow");
    assert_int_equal(n, 0);
    assert_status(PERI_ERR_ARG, peri_index_put_many(ix, SIZE_MAX, NULL, rows, 0, NULL, &n));
    assert_status(PERI_ERR_FULL, peri_index_reserve(ix, SIZE_MAX));
    assert_status(PERI_ERR_FULL, peri_index_reserve(ix, (size_t)UINT32_MAX + 1));
    assert_detail("at most");
    assert_int_equal(info_of(ix).rows, 5);
    assert_index_valid(ix);
    assert_ok(peri_index_reserve(ix, 0));
    assert_ok(peri_index_reserve(ix, 3));
    assert_ok(peri_index_reserve(ix, 500));
    assert_index_valid(ix);
    peri_index_close(ix);
    free(rows);
}

/* ---- values ---- */

static void a_value_that_is_not_finite_is_refused_wherever_it_stands(void **state)
{
    (void)state;
    static const uint32_t bad[] = {0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000,
                                   0x7f800001, 0xffffffff, 0x7fffffff};
    static const uint32_t dims[] = {1, 2, 3, 7, 8, 17, 31, 64, 100, 131};
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
        uint32_t dim = dims[d];
        peri_hit hits[3];
        size_t n = 9, n_hits[3];
        float *rows = new_rows(3, 3, dim);
        peri_index *ix = make_index(d % KINDS, dim, (uint16_t)(1 + d % 3), 0, NULL, NULL);
        peri_query q = query_of(1);
        assert_ok(peri_index_put(ix, 5, rows, 0));
        for (uint32_t at = 0; at < dim; at++) {
            float good = rows[dim + at];
            char where[64];
            uint32_t which = bad[at % (sizeof bad / sizeof *bad)];
            rows[dim + at] = bits_float(dim < 8 ? bad[6] : which);
            snprintf(where, sizeof where, "row 1: value %u of %u", at, dim);
            assert_status(PERI_ERR_NONFINITE, peri_index_put(ix, 5, rows + dim, 0));
            assert_status(PERI_ERR_NONFINITE, peri_index_put(ix, 6, rows + dim, 0));
            n = 9;
            assert_status(PERI_ERR_NONFINITE, peri_index_put_many(ix, 3, NULL, rows, 0, NULL, &n));
            assert_detail(where);
            assert_int_equal(n, 0);
            assert_status(PERI_ERR_NONFINITE, peri_index_search(ix, rows + dim, &q, hits, &n));
            assert_status(PERI_ERR_NONFINITE,
                          peri_index_search_many(ix, 3, rows, &q, NULL, hits, n_hits));
            rows[dim + at] = good;
        }
        peri_index_info info = info_of(ix);
        assert_int_equal(info.rows, 1);
        assert_int_equal(info.next_id, 6);
        assert_index_valid(ix);
        peri_index_close(ix);
        free(rows);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        float one = bits_float(bad[i]);
        peri_index *ix = make_index(KIND_HNSW, 1, PERI_METRIC_L2, 0, NULL, NULL);
        assert_status(PERI_ERR_NONFINITE, peri_index_put(ix, 0, &one, 0));
        assert_status(PERI_ERR_NONFINITE, peri_index_put_keyed(ix, text_key("k"), &one, 0, NULL));
        assert_int_equal(info_of(ix).rows, 0);
        peri_index_close(ix);
    }
}

static void all_zeros_have_no_direction_under_cosine_only(void **state)
{
    (void)state;
    float zeros[DIM] = {0}, got[DIM];
    peri_hit hit;
    size_t n;
    peri_query q = query_of(1);
    for (int kind = 0; kind < KINDS; kind++)
        for (uint16_t metric = 1; metric <= 3; metric++)
            for (int sign = 0; sign < 2; sign++) {
                for (int i = 0; i < DIM; i++)
                    zeros[i] = sign ? -0.0f : 0.0f;
                peri_index *ix = make_index(kind, DIM, metric, 0, NULL, NULL);
                int refused = metric == PERI_METRIC_COSINE;
                peri_status want = refused ? PERI_ERR_NONFINITE : PERI_OK;
                assert_status(want, peri_index_put(ix, 1, zeros, 0));
                assert_status(want, peri_index_search(ix, zeros, &q, &hit, &n));
                if (refused) {
                    assert_detail("cosine");
                } else {
                    assert_int_equal(n, 1);
                    assert_true(hit.distance == 0);
                    assert_ok(peri_index_get(ix, 1, got));
                    assert_memory_equal(got, zeros, sizeof got); /* the sign of zero too */
                }
                assert_int_equal(info_of(ix).rows, refused ? 0 : 1);
                assert_index_valid(ix);
                peri_index_close(ix);
            }
}

/* Denormals are values like others, except that a norm of them has no accurate direction. */
static void denormals_are_kept(void **state)
{
    (void)state;
    float row[DIM] = {0}, got[DIM];
    row[3] = bits_float(1);
    row[4] = -FLT_MIN / 3;
    for (int kind = 0; kind < KINDS; kind++)
        for (uint16_t metric = 1; metric <= 2; metric++) {
            peri_index *ix = make_index(kind, DIM, metric, 0, NULL, NULL);
            assert_ok(peri_index_put(ix, 1, row, 0));
            assert_ok(peri_index_get(ix, 1, got));
            assert_memory_equal(got, row, sizeof got);
            peri_index_close(ix);
        }
    peri_index *ix = make_index(KIND_FLAT, DIM, PERI_METRIC_COSINE, 0, NULL, NULL);
    assert_status(PERI_ERR_NONFINITE, peri_index_put(ix, 1, row, 0));
    peri_index_close(ix);
}

static void values_that_overflow_the_kept_type_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint16_t scalar, metric;
        float value;
        peri_status status;
    } cases[] = {
        {PERI_SCALAR_F16, PERI_METRIC_L2, 65504.0f, PERI_OK},
        {PERI_SCALAR_F16, PERI_METRIC_L2, 65519.0f, PERI_OK}, /* rounds down */
        {PERI_SCALAR_F16, PERI_METRIC_L2, 65520.0f, PERI_ERR_NONFINITE},
        {PERI_SCALAR_F16, PERI_METRIC_IP, -65520.0f, PERI_ERR_NONFINITE},
        {PERI_SCALAR_F16, PERI_METRIC_COSINE, 65520.0f, PERI_OK}, /* its direction is kept */
        {PERI_SCALAR_BF16, PERI_METRIC_IP, 3.4e38f, PERI_ERR_NONFINITE},
        {PERI_SCALAR_BF16, PERI_METRIC_IP, 1e18f, PERI_OK},
        {PERI_SCALAR_F32, PERI_METRIC_L2, 1e18f, PERI_OK},
        {PERI_SCALAR_F32, PERI_METRIC_L2, 1e20f, PERI_ERR_NONFINITE}, /* its square overflows */
        {PERI_SCALAR_F32, PERI_METRIC_IP, -FLT_MAX, PERI_ERR_NONFINITE},
        {PERI_SCALAR_F32, PERI_METRIC_COSINE, 1e30f, PERI_OK},
        {PERI_SCALAR_F32, PERI_METRIC_COSINE, FLT_MAX, PERI_ERR_NONFINITE},
        {PERI_SCALAR_I8, PERI_METRIC_L2, 1e18f, PERI_OK},
        {PERI_SCALAR_I8, PERI_METRIC_L2, 1e20f, PERI_ERR_NONFINITE},
        {PERI_SCALAR_I8, PERI_METRIC_COSINE, FLT_MAX, PERI_ERR_NONFINITE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int kind = 0; kind < KINDS; kind++) {
            float row[2] = {cases[i].value, cases[i].value / 2}, got[2];
            peri_hit hit = {0};
            size_t n;
            peri_query q = query_of(1);
            peri_index *ix = make_index(kind, 2, cases[i].metric, cases[i].scalar, NULL, NULL);
            assert_status(cases[i].status, peri_index_put(ix, 1, row, 0));
            assert_int_equal(info_of(ix).rows, cases[i].status == PERI_OK);
            if (cases[i].status == PERI_OK) {
                assert_ok(peri_index_get(ix, 1, got));
                assert_true(fabsf(got[0] - row[0]) <= fabsf(row[0]) / 100);
                assert_ok(peri_index_search(ix, row, &q, &hit, &n));
                assert_int_equal(n, 1);
                assert_true(isfinite(hit.distance));
            }
            assert_index_valid(ix);
            peri_index_close(ix);
        }
}

/* ---- queries ---- */

static void query_fields_out_of_range_are_refused(void **state)
{
    (void)state;
    float *rows;
    peri_hit hits[4];
    size_t n;
    for (int kind = 0; kind < KINDS; kind++) {
        peri_index *ix = filled(kind, 40, &rows);
        peri_query q = query_of(0);
        assert_status(PERI_ERR_ARG, peri_index_search(ix, rows, &q, hits, &n));
        assert_detail("k is 0, expected 1 or more");
        static const float recalls[] = {0.49f, 1.0f, -1.0f, NAN, INFINITY};
        for (size_t i = 0; i < 5; i++) {
            q = query_of(4);
            q.target_recall = recalls[i];
            assert_status(PERI_ERR_CONFIG, peri_index_search(ix, rows, &q, hits, &n));
            assert_detail("target_recall is");
            assert_detail("0.5 to 0.999");
        }
        q = query_of(4);
        q.has_max_distance = 1;
        q.max_distance = NAN;
        assert_status(PERI_ERR_CONFIG, peri_index_search(ix, rows, &q, hits, &n));
        assert_detail("max_distance");
        q.has_max_distance = 0; /* then it does not count */
        assert_ok(peri_index_search(ix, rows, &q, hits, &n));
        q = query_of(4);
        q.effort = UINT32_MAX;
        q.rerank = UINT32_MAX;
        assert_ok(peri_index_search(ix, rows, &q, hits, &n));
        assert_int_equal(n, 4);
        assert_ok(peri_index_search_many(ix, 0, NULL, &q, NULL, NULL, NULL));
        peri_index_close(ix);
        free(rows);
    }
}

static void target_recall_before_maintain_is_a_matter_of_state(void **state)
{
    (void)state;
    float *rows;
    peri_hit hits[4];
    size_t n;
    peri_query q = query_of(4);
    q.target_recall = 0.9f;
    peri_index *ix =
        filled(KIND_HNSW, 40, &rows); /* too few to measure: nearly all are looked at */
    assert_ok(peri_index_search(ix, rows, &q, hits, &n));
    assert_int_equal(n, 4);
    peri_index_close(ix);
    free(rows);
    ix = filled(KIND_HNSW, 1200, &rows);
    assert_status(PERI_ERR_STATE, peri_index_search(ix, rows, &q, hits, &n));
    assert_detail("maintain");
    assert_status(PERI_ERR_STATE, peri_index_search_many(ix, 1, rows, &q, NULL, hits, &n));
    assert_int_equal(info_of(ix).calibrated, 0);
    peri_index_close(ix);
    free(rows);
    ix = filled(KIND_FLAT, 40, &rows); /* exact: any recall is had */
    assert_ok(peri_index_search(ix, rows, &q, hits, &n));
    peri_index_close(ix);
    free(rows);
}

/* k beyond the rows gives fewer hits, never an error and never an allocation of size k. */
static void a_huge_k_gives_all_rows_and_costs_no_memory(void **state)
{
    (void)state;
    float *rows;
    size_t n = 0, room = (size_t)UINT32_MAX * sizeof(peri_hit);
    peri_hit *hits = mmap(NULL, room, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint32_t ks[] = {41, 1000, UINT32_MAX - 1, UINT32_MAX};
    if (hits == MAP_FAILED)
        skip();
    for (int kind = 0; kind < KINDS; kind++) {
        peri_index *ix = filled(kind, 40, &rows);
        for (size_t i = 0; i < 4; i++) {
            peri_query q = query_of(ks[i]);
            assert_ok(peri_index_search(ix, rows, &q, hits, &n));
            assert_int_equal(n, 40);
            q.has_max_distance = 1;
            q.max_distance = 1e9f;
            assert_ok(peri_index_search(ix, rows, &q, hits, &n));
            assert_int_equal(n, 40);
            assert_ok(peri_index_search_many(ix, 1, rows, &q, NULL, hits, &n));
            assert_int_equal(n, 40);
        }
        assert_true(info_of(ix).bytes_heap < 8 << 20);
        peri_index_close(ix);
        free(rows);
    }
    munmap(hits, room);
}

static void an_empty_index_and_one_emptied_answer_with_no_hits(void **state)
{
    (void)state;
    float *rows = new_rows(5, 60, DIM), got[DIM];
    peri_hit hits[4];
    uint64_t id;
    for (int kind = 0; kind < KINDS; kind++) {
        peri_index *ix = small(kind);
        for (int round = 0; round < 3; round++) {
            size_t n = 9, n_hits[2] = {9, 9};
            peri_query q = query_of(2);
            assert_ok(peri_index_search(ix, rows, &q, hits, &n));
            assert_int_equal(n, 0);
            assert_ok(peri_index_search_many(ix, 2, rows, &q, NULL, hits, n_hits));
            assert_int_equal(n_hits[0] + n_hits[1], 0);
            assert_ok(peri_index_ids(ix, NULL, 0, &n));
            assert_int_equal(n, 0);
            assert_status(PERI_ERR_NOT_FOUND, peri_index_get(ix, 3, got));
            assert_status(PERI_ERR_NOT_FOUND, peri_index_remove(ix, 3));
            assert_ok(peri_index_maintain(ix, NULL));
            assert_index_valid(ix);
            /* Saved and opened it is as empty. */
            assert_ok(peri_index_save(ix, scratch("empty"), NULL));
            for (uint32_t flags = 0; flags < 4; flags++) {
                peri_index *other;
                assert_ok(peri_index_open(&other, scratch("empty"), flags, NULL, NULL));
                assert_ok(peri_index_search(other, rows, &q, hits, &n));
                assert_int_equal(n, 0);
                assert_index_valid(other);
                if (!(flags & PERI_OPEN_READONLY)) {
                    assert_ok(peri_index_put(other, 3, rows, 0));
                    assert_ok(peri_index_search(other, rows, &q, hits, &n));
                    assert_int_equal(n, 1);
                    assert_index_valid(other);
                }
                peri_index_close(other);
            }
            for (id = 0; id < 60; id++)
                assert_ok(peri_index_put(ix, id, rows + id * DIM, 0));
            assert_index_valid(ix);
            for (id = 0; id < 60; id++) {
                assert_ok(peri_index_remove(ix, id));
                assert_index_valid(ix);
            }
            assert_int_equal(info_of(ix).rows, 0);
        }
        peri_index_close(ix);
    }
    free(rows);
}

/* ---- ids ---- */

static void the_ends_of_the_range_of_ids_are_ids(void **state)
{
    (void)state;
    static const uint64_t ends[] = {0, UINT64_MAX, UINT64_MAX - 1, (uint64_t)1 << 63, UINT32_MAX};
    float *rows = new_rows(5, 5, DIM);
    peri_hit hits[5];
    size_t n;
    for (int kind = 0; kind < KINDS; kind++)
        for (uint32_t flags = 0; flags < 4; flags++) {
            peri_index *ix = small(kind), *other;
            peri_query q = query_of(5);
            for (size_t i = 0; i < 5; i++)
                assert_ok(peri_index_put(ix, ends[i], rows + i * DIM, PERI_PUT_NEW));
            assert_index_valid(ix);
            assert_ok(peri_index_save(ix, scratch("ends"), NULL));
            assert_ok(peri_index_open(&other, scratch("ends"), flags, NULL, NULL));
            for (size_t i = 0; i < 5; i++) {
                assert_row(ix, ends[i], rows + i * DIM);
                assert_row(other, ends[i], rows + i * DIM);
                assert_ok(peri_index_search(other, rows + i * DIM, &q, hits, &n));
                assert_int_equal(n, 5);
                assert_true(hits[0].id == ends[i]);
            }
            assert_index_valid(other);
            peri_index_close(other);
            for (size_t i = 0; i < 5; i++)
                assert_ok(peri_index_remove(ix, ends[i]));
            assert_index_valid(ix);
            peri_index_close(ix);
        }
    free(rows);
}

static void numbering_goes_on_from_the_highest_id_and_never_wraps(void **state)
{
    (void)state;
    float *rows = new_rows(5, 4, DIM);
    size_t n = 9;
    for (int kind = 0; kind < KINDS; kind++) {
        peri_index *ix = small(kind);
        assert_ok(peri_index_put_many(ix, 2, NULL, rows, 0, NULL, &n));
        assert_int_equal(n, 2);
        assert_ok(peri_index_put(ix, 70, rows, 0));
        assert_ok(peri_index_remove(ix, 70)); /* seen is seen */
        assert_ok(peri_index_put_many(ix, 2, NULL, rows + 2 * DIM, PERI_PUT_NEW, NULL, NULL));
        assert_row(ix, 71, rows + 2 * DIM);
        assert_row(ix, 72, rows + 3 * DIM);
        assert_int_equal(info_of(ix).next_id, 73);
        assert_index_valid(ix);
        assert_ok(peri_index_put(ix, UINT64_MAX - 3, rows, 0));
        assert_ok(peri_index_put_many(ix, 2, NULL, rows, 0, NULL, &n));
        uint64_t rows_before = info_of(ix).rows;
        n = 9;
        assert_status(PERI_ERR_FULL, peri_index_put_many(ix, 2, NULL, rows, 0, NULL, &n));
        assert_int_equal(n, 0);
        assert_int_equal(info_of(ix).rows, rows_before);
        assert_index_valid(ix);
        peri_index_close(ix);
    }
    free(rows);
}

static void removing_what_is_not_there_is_not_found(void **state)
{
    (void)state;
    float *rows;
    for (int kind = 0; kind < KINDS; kind++) {
        peri_index *ix = filled(kind, 40, &rows);
        assert_status(PERI_ERR_NOT_FOUND, peri_index_remove(ix, 40));
        assert_detail("no id 40");
        assert_status(PERI_ERR_NOT_FOUND, peri_index_remove(ix, UINT64_MAX));
        assert_ok(peri_index_remove(ix, 7));
        assert_status(PERI_ERR_NOT_FOUND, peri_index_remove(ix, 7));
        assert_status(PERI_ERR_NOT_FOUND, peri_index_get(ix, 7, (float[DIM]){0}));
        assert_int_equal(info_of(ix).rows, 39);
        assert_index_valid(ix);
        assert_ok(peri_index_put(ix, 7, rows + 7 * DIM, PERI_PUT_NEW));
        assert_row(ix, 7, rows + 7 * DIM);
        assert_index_valid(ix);
        peri_index_close(ix);
        free(rows);
    }
}

static void put_new_stores_nothing_when_one_id_is_taken(void **state)
{
    (void)state;
    float *rows, *other = new_rows(9, 3, DIM);
    for (int kind = 0; kind < KINDS; kind++) {
        size_t n = 9;
        peri_index *ix = filled(kind, 40, &rows);
        uint64_t taken[] = {100, 101, 39}, twice[] = {100, 101, 100}, fresh[] = {100, 7, 101};
        assert_status(PERI_ERR_EXISTS, peri_index_put(ix, 39, other, PERI_PUT_NEW));
        assert_detail("id 39");
        assert_status(PERI_ERR_EXISTS,
                      peri_index_put_many(ix, 3, taken, other, PERI_PUT_NEW, NULL, &n));
        assert_detail("id 39");
        assert_int_equal(n, 0);
        assert_status(PERI_ERR_EXISTS,
                      peri_index_put_many(ix, 3, twice, other, PERI_PUT_NEW, NULL, &n));
        assert_detail("id 100 stands twice");
        assert_int_equal(info_of(ix).rows, 40);
        assert_int_equal(info_of(ix).next_id, 40);
        assert_row(ix, 39, rows + 39 * DIM);
        assert_ok(peri_index_remove(ix, 7));
        assert_ok(peri_index_put_many(ix, 3, fresh, other, PERI_PUT_NEW, NULL, &n));
        assert_int_equal(n, 3);
        assert_row(ix, 7, other + DIM);
        assert_index_valid(ix);
        peri_index_close(ix);
        free(rows);
    }
    free(other);
}

static void a_batch_keeps_the_last_row_of_an_id_that_stands_twice(void **state)
{
    (void)state;
    enum { N = 300 };
    float *rows = new_rows(9, N, DIM);
    uint64_t ids[N];
    for (int kind = 0; kind < KINDS; kind++) {
        peri_index *ix = small(kind);
        for (int round = 0; round < 3; round++) {
            size_t n;
            for (size_t i = 0; i < N; i++)
                ids[i] = i % 90 + (round == 2 ? 45 : 0);
            assert_ok(peri_index_put_many(ix, N, ids, rows, 0, NULL, &n));
            assert_int_equal(n, N);
            assert_index_valid(ix);
            for (size_t i = N - 90; i < N; i++)
                assert_row(ix, ids[i], rows + i * DIM);
        }
        assert_int_equal(info_of(ix).rows, 135);
        peri_index_close(ix);
    }
    free(rows);
}

static void an_empty_batch_is_no_batch(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        peri_index *ix = small(kind);
        size_t n = 9;
        assert_ok(peri_index_put_many(ix, 0, NULL, NULL, 0, NULL, &n));
        assert_int_equal(n, 0);
        n = 9;
        assert_ok(peri_index_put_many_keyed(ix, 0, NULL, NULL, 0, NULL, &n));
        assert_int_equal(n, 0);
        assert_int_equal(info_of(ix).keyed, 0);
        peri_index_close(ix);
    }
}

static void ids_fills_what_room_there_is_and_counts_all(void **state)
{
    (void)state;
    float *rows;
    uint64_t ids[50];
    size_t n;
    peri_index *ix = filled(KIND_HNSW, 40, &rows);
    assert_ok(peri_index_remove(ix, 3));
    memset(ids, 0xee, sizeof ids);
    assert_ok(peri_index_ids(ix, ids, 10, &n));
    assert_int_equal(n, 39);
    assert_true(ids[10] == 0xeeeeeeeeeeeeeeeeu);
    assert_ok(peri_index_ids(ix, ids, 50, &n));
    int seen[40] = {0};
    for (size_t i = 0; i < n; i++)
        seen[ids[i]]++;
    for (int i = 0; i < 40; i++)
        assert_int_equal(seen[i], i != 3);
    peri_index_close(ix);
    free(rows);
}

/* ---- keys ---- */

static void keys_are_one_to_65535_bytes_of_any_kind(void **state)
{
    (void)state;
    static char big[65536];
    float *rows = new_rows(2, 8, DIM), got[DIM];
    memset(big, 'x', sizeof big);
    const peri_slice keys[] = {{"a", 1},        {"a\0", 2},     {"a\0b", 3},  {"\0", 1},
                               {"\xff\xfe", 2}, {"../../x", 7}, {big, 65535}, {big, 65534}};
    for (int kind = 0; kind < KINDS; kind++) {
        peri_index *ix = small(kind), *other;
        uint64_t id, ids[8];
        size_t n;
        peri_buf buf = {0};
        assert_status(PERI_ERR_ARG, peri_index_put_keyed(ix, (peri_slice){"a", 0}, rows, 0, &id));
        assert_detail("0 bytes, expected 1 to 65535");
        assert_status(PERI_ERR_ARG, peri_index_put_keyed(ix, (peri_slice){NULL, 3}, rows, 0, &id));
        assert_status(PERI_ERR_ARG,
                      peri_index_put_keyed(ix, (peri_slice){big, 65536}, rows, 0, &id));
        assert_detail("65536 bytes");
        assert_status(PERI_ERR_ARG, peri_index_id_of(ix, (peri_slice){"a", 0}, &id));
        assert_status(PERI_ERR_ARG, peri_index_remove_keyed(ix, (peri_slice){big, 65536}));
        /* None of that made it a keyed index. */
        assert_int_equal(info_of(ix).keyed, 0);
        assert_ok(peri_index_put_many_keyed(ix, 8, keys, rows, PERI_PUT_NEW, NULL, &n));
        assert_int_equal(n, 8);
        assert_index_valid(ix);
        assert_ok(peri_index_save(ix, scratch("keys"), NULL));
        assert_ok(peri_index_open(&other, scratch("keys"), PERI_OPEN_MAP, NULL, NULL));
        for (size_t i = 0; i < 8; i++)
            for (int copy = 0; copy < 2; copy++) {
                const peri_index *of = copy ? other : ix;
                assert_ok(peri_index_id_of(of, keys[i], &ids[i]));
                for (size_t j = 0; j < i; j++)
                    assert_true(ids[i] != ids[j]);
                assert_ok(peri_index_key_of(of, ids[i], &buf));
                assert_int_equal(buf.size, keys[i].size);
                assert_memory_equal(buf.data, keys[i].data, buf.size);
                assert_ok(peri_index_get(of, ids[i], got));
                assert_memory_equal(got, rows + i * DIM, sizeof got);
            }
        assert_status(PERI_ERR_NOT_FOUND, peri_index_id_of(ix, text_key("b"), &id));
        assert_status(PERI_ERR_NOT_FOUND, peri_index_key_of(ix, 99, &buf));
        assert_ok(peri_index_remove_keyed(ix, keys[1]));
        assert_status(PERI_ERR_NOT_FOUND, peri_index_remove_keyed(ix, keys[1]));
        assert_status(PERI_ERR_NOT_FOUND, peri_index_id_of(ix, keys[1], &id));
        assert_status(PERI_ERR_NOT_FOUND, peri_index_key_of(ix, ids[1], &buf));
        assert_status(PERI_ERR_NOT_FOUND, peri_index_get(ix, ids[1], got));
        assert_ok(peri_index_id_of(ix, keys[0], &id));
        assert_index_valid(ix);
        peri_buf_free(&buf);
        peri_index_close(other);
        peri_index_close(ix);
    }
    free(rows);
}

static void put_by_key_replaces_keeps_the_id_and_refuses_new_where_present(void **state)
{
    (void)state;
    float *rows = new_rows(2, 4, DIM), got[DIM];
    for (int kind = 0; kind < KINDS; kind++) {
        peri_index *ix = small(kind);
        uint64_t first, id;
        size_t n = 9;
        assert_ok(peri_index_put_keyed(ix, text_key("one"), rows, PERI_PUT_NEW, &first));
        assert_ok(peri_index_put_keyed(ix, text_key("one"), rows + DIM, 0, &id));
        assert_true(id == first);
        assert_ok(peri_index_get(ix, id, got));
        assert_memory_equal(got, rows + DIM, sizeof got);
        assert_status(PERI_ERR_EXISTS,
                      peri_index_put_keyed(ix, text_key("one"), rows, PERI_PUT_NEW, &id));
        peri_slice batch[] = {text_key("two"), text_key("three"), text_key("one")};
        assert_status(PERI_ERR_EXISTS,
                      peri_index_put_many_keyed(ix, 3, batch, rows, PERI_PUT_NEW, NULL, &n));
        assert_int_equal(n, 0);
        peri_slice twice[] = {text_key("two"), text_key("three"), text_key("two")};
        assert_status(PERI_ERR_EXISTS,
                      peri_index_put_many_keyed(ix, 3, twice, rows, PERI_PUT_NEW, NULL, &n));
        assert_int_equal(info_of(ix).rows, 1);
        assert_status(PERI_ERR_NOT_FOUND, peri_index_id_of(ix, text_key("two"), &id));
        /* Without NEW the last row of a key counts. */
        assert_ok(peri_index_put_many_keyed(ix, 3, twice, rows, 0, NULL, &n));
        assert_int_equal(n, 3);
        assert_int_equal(info_of(ix).rows, 3);
        assert_ok(peri_index_id_of(ix, text_key("two"), &id));
        assert_ok(peri_index_get(ix, id, got));
        assert_memory_equal(got, rows + 2 * DIM, sizeof got);
        assert_index_valid(ix);
        peri_index_close(ix);
    }
    free(rows);
}

static void ids_and_keys_do_not_mix(void **state)
{
    (void)state;
    float *rows = new_rows(2, 4, DIM);
    for (int kind = 0; kind < KINDS; kind++) {
        peri_index *by_id = small(kind), *by_key = small(kind);
        uint64_t id;
        size_t n = 9;
        peri_slice key = text_key("k");
        assert_ok(peri_index_put(by_id, 1, rows, 0));
        assert_ok(peri_index_put_keyed(by_key, key, rows, 0, &id));
        assert_status(PERI_ERR_STATE, peri_index_put_keyed(by_id, key, rows, 0, &id));
        assert_status(PERI_ERR_STATE, peri_index_put_many_keyed(by_id, 1, &key, rows, 0, NULL, &n));
        assert_int_equal(n, 0);
        assert_status(PERI_ERR_NOT_FOUND, peri_index_remove_keyed(by_id, key));
        assert_status(PERI_ERR_NOT_FOUND, peri_index_id_of(by_id, key, &id));
        assert_status(PERI_ERR_NOT_FOUND, peri_index_key_of(by_id, 1, &(peri_buf){0}));
        assert_status(PERI_ERR_STATE, peri_index_put(by_key, 1, rows, 0));
        assert_status(PERI_ERR_STATE, peri_index_put_many(by_key, 2, NULL, rows, 0, NULL, &n));
        assert_int_equal(n, 0);
        assert_status(PERI_ERR_STATE, peri_index_remove(by_key, 0));
        assert_detail("key");
        assert_int_equal(info_of(by_id).rows, 1);
        assert_int_equal(info_of(by_id).keyed, 0);
        assert_int_equal(info_of(by_key).rows, 1);
        assert_int_equal(info_of(by_key).keyed, 1);
        assert_index_valid(by_id);
        assert_index_valid(by_key);
        peri_index_close(by_id);
        peri_index_close(by_key);
    }
    free(rows);
}

static void a_keyed_put_that_fails_does_not_make_an_index_keyed(void **state)
{
    (void)state;
    float *rows = new_rows(2, 4, DIM), bad[DIM] = {0};
    bad[1] = NAN;
    for (int kind = 0; kind < KINDS; kind++) {
        peri_index *ix = small(kind);
        peri_slice twice[] = {text_key("k"), text_key("k")},
                   ok_then_bad[] = {text_key("k"), {"", 0}};
        size_t n;
        assert_status(PERI_ERR_NONFINITE, peri_index_put_keyed(ix, twice[0], bad, 0, NULL));
        assert_status(PERI_ERR_ARG,
                      peri_index_put_many_keyed(ix, 2, ok_then_bad, rows, 0, NULL, &n));
        assert_status(PERI_ERR_EXISTS,
                      peri_index_put_many_keyed(ix, 2, twice, rows, PERI_PUT_NEW, NULL, &n));
        assert_int_equal(info_of(ix).keyed, 0);
        assert_ok(peri_index_put(ix, 1, rows, 0));
        assert_index_valid(ix);
        peri_index_close(ix);
    }
    free(rows);
}

/* ---- tasks ---- */

typedef struct cancel {
    int after; /* calls to let pass */
    int calls;
    char last[32];
} cancel;

static int cancel_after(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    cancel *c = ctx;
    assert_non_null(phase);
    (void)done;
    (void)total;
    snprintf(c->last, sizeof c->last, "%s", phase);
    return c->calls++ >= c->after;
}

static peri_task cancelling(cancel *c, int after, uint32_t threads)
{
    peri_task task = threads_task(threads);
    *c = (cancel){.after = after};
    task.progress = cancel_after;
    task.progress_ctx = c;
    return task;
}

static void a_cancelled_batch_keeps_a_prefix(void **state)
{
    (void)state;
    enum { N = 30000, SMALL_DIM = 8 };
    float *rows = new_rows(21, N, SMALL_DIM), got[SMALL_DIM];
    for (uint32_t threads = 1; threads <= 2; threads++) {
        size_t done = 0;
        cancel c;
        peri_task task = cancelling(&c, 0, threads);
        peri_hnsw_config config;
        peri_hnsw_config_init(&config);
        config.codes = PERI_CODES_NONE;
        config.build = PERI_BUILD_SEARCH; /* in bulk it is all or nothing */
        peri_index *ix = make_index(KIND_HNSW, SMALL_DIM, PERI_METRIC_L2, 0, &config, NULL);
        assert_status(PERI_ERR_CANCELLED, peri_index_put_many(ix, N, NULL, rows, 0, &task, &done));
        assert_detail("insert");
        assert_true(done > 0 && done < N);
        assert_int_equal(info_of(ix).rows, done);
        assert_index_valid(ix);
        for (size_t i = 0; i < N; i += i < done - 2 || i > done + 2 ? 997 : 1) {
            peri_status status = peri_index_get(ix, i, got);
            assert_int_equal(status, i < done ? PERI_OK : PERI_ERR_NOT_FOUND);
            if (i < done)
                assert_memory_equal(got, rows + i * SMALL_DIM, sizeof got);
        }
        /* The rest goes in later as if nothing had been. */
        size_t more = N - done < 2000 ? N - done : 2000, n;
        assert_ok(peri_index_put_many(ix, more, NULL, rows + done * SMALL_DIM, 0, NULL, &n));
        assert_int_equal(n, more);
        assert_int_equal(info_of(ix).rows, done + more);
        assert_int_equal(info_of(ix).next_id, done + more);
        assert_index_valid(ix);
        peri_index_close(ix);
    }
    free(rows);
}

static void cancelling_leaves_index_and_file_as_they_were(void **state)
{
    (void)state;
    enum { N = 3000 };
    const char *path = scratch("cancel");
    float *rows;
    cancel c;
    peri_hit *hits = malloc(N * sizeof *hits);
    size_t *n_hits = malloc(N * sizeof *n_hits);
    peri_index *ix = filled(KIND_HNSW, N, &rows);
    assert_ok(peri_index_save(ix, path, NULL));
    blob before = blob_load(path);
    size_t names = scratch_count();
    for (uint64_t id = 0; id < N; id += 3)
        assert_ok(peri_index_remove(ix, id));
    assert_index_valid(ix);
    peri_query q = query_of(1);
    int finished = 0;
    for (int after = 0; after < 20 && !finished; after++) {
        peri_task task = cancelling(&c, after, 1);
        peri_status status = peri_index_save(ix, path, &task);
        if ((finished = status == PERI_OK))
            break;
        assert_status(PERI_ERR_CANCELLED, status);
        assert_detail("save");
        blob now = blob_load(path);
        assert_true(blob_same(before, now));
        free(now.data);
        assert_int_equal(scratch_count(), names);
    }
    assert_true(finished);
    peri_task task = cancelling(&c, 0, 1);
    uint64_t faults;
    assert_status(PERI_ERR_CANCELLED, peri_index_search_many(ix, N, rows, &q, &task, hits, n_hits));
    task = cancelling(&c, 0, 1);
    assert_status(PERI_ERR_CANCELLED, peri_index_check(ix, &task, &faults));
    for (int after = 0; after < 20; after++) {
        task = cancelling(&c, after, 1);
        peri_status status = peri_index_maintain(ix, &task);
        assert_index_valid(ix);
        if (status == PERI_OK)
            break;
        assert_status(PERI_ERR_CANCELLED, status);
    }
    assert_int_equal(info_of(ix).rows, N - N / 3);
    assert_int_equal(info_of(ix).deleted, 0);
    free(before.data);
    peri_index_close(ix);
    free(rows);
    free(hits);
    free(n_hits);
}

/* ---- files ---- */

static void a_read_only_index_refuses_every_write(void **state)
{
    (void)state;
    float *rows;
    peri_hit hits[4];
    size_t n = 9;
    for (int kind = 0; kind < KINDS; kind++)
        for (int keyed = 0; keyed < 2; keyed++)
            for (uint32_t map = 0; map <= PERI_OPEN_MAP; map += PERI_OPEN_MAP) {
                peri_index *ix, *source = keyed ? small(kind) : filled(kind, 40, &rows);
                peri_slice key = text_key("k");
                peri_query q = query_of(1);
                if (keyed) {
                    rows = new_rows(7, 40, DIM);
                    assert_ok(peri_index_put_keyed(source, key, rows, 0, NULL));
                }
                assert_ok(peri_index_save(source, scratch("ro"), NULL));
                blob before = blob_load(scratch("ro"));
                assert_ok(
                    peri_index_open(&ix, scratch("ro"), PERI_OPEN_READONLY | map, NULL, NULL));
                assert_status(PERI_ERR_STATE, peri_index_put(ix, 99, rows, 0));
                assert_detail("read-only");
                assert_status(PERI_ERR_STATE, peri_index_put_many(ix, 2, NULL, rows, 0, NULL, &n));
                assert_int_equal(n, 0);
                assert_status(PERI_ERR_STATE, peri_index_put_keyed(ix, key, rows, 0, NULL));
                assert_status(PERI_ERR_STATE, peri_index_remove(ix, 0));
                assert_status(PERI_ERR_STATE, peri_index_remove_keyed(ix, key));
                assert_status(PERI_ERR_STATE, peri_index_reserve(ix, 100));
                assert_status(PERI_ERR_STATE, peri_index_maintain(ix, NULL));
                assert_ok(peri_index_search(ix, rows, &q, hits, &n));
                assert_int_equal(n, 1);
                assert_int_equal(hits[0].id, 0);
                assert_index_valid(ix);
                assert_ok(peri_index_save(ix, scratch("ro2"), NULL)); /* a read, as const says */
                assert_int_equal(info_of(ix).bytes_mapped > 0, map != 0);
                peri_index_close(ix);
                blob after = blob_load(scratch("ro"));
                assert_true(blob_same(before, after));
                free(before.data);
                free(after.data);
                peri_index_close(source);
                free(rows);
            }
}

static void what_is_no_index_is_refused_by_the_right_name(void **state)
{
    (void)state;
    peri_index *ix;
    float *rows;
    const char *path = scratch("bad");
    peri_index *good = filled(KIND_FLAT, 5, &rows);
    size_t names = scratch_count() + 1;
    assert_status(PERI_ERR_NOT_FOUND, peri_index_open(&ix, path, 0, NULL, NULL));
    assert_detail(path);
    assert_null(ix);
    for (uint32_t flags = 0; flags < 4; flags++) {
        static const char text[] =
            "this is no index, but is long enough to hold a header of one. "
            "It goes on for a while, so that nothing is read beyond it. ....";
        size_t sizes[] = {0, 1, 7, 64, sizeof text};
        for (size_t i = 0; i < 5; i++) {
            blob_save(path, text, sizes[i]);
            assert_status(PERI_ERR_FORMAT, peri_index_open(&ix, path, flags, NULL, NULL));
            assert_detail(path);
            assert_null(ix);
        }
        assert_status(PERI_ERR_FORMAT, peri_index_open(&ix, scratch_dir, flags, NULL, NULL));
        assert_null(ix);
    }
    /* Nor is one written where nothing can be. */
    char nowhere[PATH_MAX];
    snprintf(nowhere, sizeof nowhere, "%s/no/such/place", scratch_dir);
    peri_status status = peri_index_save(good, nowhere, NULL);
    assert_true(status == PERI_ERR_IO || status == PERI_ERR_NOT_FOUND);
    assert_detail("no/such");
    status = peri_index_save(good, scratch_dir, NULL);
    assert_true(status != PERI_OK);
    assert_index_valid(good);
    assert_int_equal(scratch_count(), names);
    peri_index_close(good);
    free(rows);
}

static void a_success_leaves_the_detail_alone(void **state)
{
    (void)state;
    float *rows, got[DIM];
    peri_hit hits[4];
    size_t n;
    char before[512];
    for (int kind = 0; kind < KINDS; kind++) {
        peri_index *ix = filled(kind, 2000, &rows), *other;
        peri_query q = query_of(4);
        assert_status(PERI_ERR_NOT_FOUND, peri_index_remove(ix, 12345678));
        snprintf(before, sizeof before, "%s", peri_error_detail());
        assert_detail("12345678");
        assert_ok(peri_index_search(ix, rows, &q, hits, &n));
        assert_ok(peri_index_put(ix, 50, rows, 0));
        assert_ok(peri_index_put(ix, 5000, rows, PERI_PUT_NEW));
        assert_ok(peri_index_remove(ix, 5000));
        assert_ok(peri_index_get(ix, 50, got));
        assert_ok(peri_index_maintain(ix, NULL));
        assert_ok(peri_index_save(ix, scratch("bad"), NULL));
        assert_ok(peri_index_open(&other, scratch("bad"), PERI_OPEN_MAP, NULL, NULL));
        assert_ok(peri_index_ids(other, NULL, 0, &n));
        assert_index_valid(other);
        peri_index_close(other);
        assert_string_equal(peri_error_detail(), before);
        peri_index_close(ix);
        free(rows);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constructors_refuse_what_they_cannot_make),
        cmocka_unit_test(constructors_refuse_half_an_environment),
        cmocka_unit_test(the_graphs_configuration_is_checked_field_by_field),
        cmocka_unit_test(zeros_mean_defaults_and_info_says_which),
        cmocka_unit_test(null_pointers_are_refused_by_name),
        cmocka_unit_test(structs_of_no_known_size_are_refused),
        cmocka_unit_test(unknown_flags_are_refused),
        cmocka_unit_test(more_rows_than_memory_can_address_are_refused),
        cmocka_unit_test(a_value_that_is_not_finite_is_refused_wherever_it_stands),
        cmocka_unit_test(all_zeros_have_no_direction_under_cosine_only),
        cmocka_unit_test(denormals_are_kept),
        cmocka_unit_test(values_that_overflow_the_kept_type_are_refused),
        cmocka_unit_test(query_fields_out_of_range_are_refused),
        cmocka_unit_test(target_recall_before_maintain_is_a_matter_of_state),
        cmocka_unit_test(a_huge_k_gives_all_rows_and_costs_no_memory),
        cmocka_unit_test(an_empty_index_and_one_emptied_answer_with_no_hits),
        cmocka_unit_test(the_ends_of_the_range_of_ids_are_ids),
        cmocka_unit_test(numbering_goes_on_from_the_highest_id_and_never_wraps),
        cmocka_unit_test(removing_what_is_not_there_is_not_found),
        cmocka_unit_test(put_new_stores_nothing_when_one_id_is_taken),
        cmocka_unit_test(a_batch_keeps_the_last_row_of_an_id_that_stands_twice),
        cmocka_unit_test(an_empty_batch_is_no_batch),
        cmocka_unit_test(ids_fills_what_room_there_is_and_counts_all),
        cmocka_unit_test(keys_are_one_to_65535_bytes_of_any_kind),
        cmocka_unit_test(put_by_key_replaces_keeps_the_id_and_refuses_new_where_present),
        cmocka_unit_test(ids_and_keys_do_not_mix),
        cmocka_unit_test(a_keyed_put_that_fails_does_not_make_an_index_keyed),
        cmocka_unit_test(a_cancelled_batch_keeps_a_prefix),
        cmocka_unit_test(cancelling_leaves_index_and_file_as_they_were),
        cmocka_unit_test(a_read_only_index_refuses_every_write),
        cmocka_unit_test(what_is_no_index_is_refused_by_the_right_name),
        cmocka_unit_test(a_success_leaves_the_detail_alone),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
