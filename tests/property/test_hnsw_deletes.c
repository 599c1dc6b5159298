/* Deletes sweep the graph a few nodes at a time: whatever moment of a sweep is looked at, saved or
 * searched, the index is whole, and rows that are equal are found however many of them went. */
#include "indexes.h"
#include "scratch.h"

enum { DIM = 12 };

static void expect_finds(const peri_index *ix, const float *row, uint64_t id, const char *file,
                         int line)
{
    peri_hit hit;
    size_t n;
    peri_query q = query_of(1);
    assert_ok(peri_index_search(ix, row, &q, &hit, &n));
    if (n == 1 && hit.distance <= 1e-6f)
        return;
    print_error("row %llu is not found: nearest is %llu at %g\n", (unsigned long long)id,
                n ? (unsigned long long)hit.id : 0, n ? (double)hit.distance : -1.0);
    _fail(file, line);
}
#define assert_finds(ix, row, id) expect_finds((ix), (row), (id), __FILE__, __LINE__)

static void a_file_saved_at_any_moment_of_a_sweep_opens(void **state)
{
    (void)state;
    enum { N = 600 };
    const char *path = scratch("sweep");
    float *rows = new_rows(3, N, DIM);
    peri_hnsw_config config;
    peri_hnsw_config_init(&config);
    config.m = 2; /* half of the rows are in layers above */
    peri_index *ix = make_index(KIND_HNSW, DIM, PERI_METRIC_L2, 0, &config, NULL);
    assert_ok(peri_index_put_many(ix, N, NULL, rows, 0, NULL, NULL));
    pe_rng r = {8};
    for (int step = 0; step < 260; step++) {
        uint64_t id = pe_rng_below(&r, N);
        if (step % 3 == 2)
            assert_ok(peri_index_put(ix, id, rows + id * DIM, 0));
        else
            (void)peri_index_remove(ix, id);
        assert_index_valid(ix);
        assert_ok(peri_index_save(ix, path, NULL));
        peri_index *other;
        uint32_t flags = (uint32_t)step % 4;
        assert_ok(peri_index_open(&other, path, flags, NULL, NULL));
        assert_int_equal(info_of(other).rows, info_of(ix).rows);
        assert_index_valid(other);
        peri_index_close(other);
    }
    peri_index_close(ix);
    free(rows);
}

static void every_row_can_go_and_come_back(void **state)
{
    (void)state;
    enum { N = 1500 };
    float *rows = new_rows(4, N, DIM);
    uint64_t order[N];
    pe_rng r = {5};
    for (uint16_t codes = PERI_CODES_NONE; codes <= PERI_CODES_8BIT; codes++) {
        peri_hnsw_config config;
        peri_hnsw_config_init(&config);
        config.codes = codes;
        peri_index *ix = make_index(KIND_HNSW, DIM, PERI_METRIC_COSINE, 0, &config, NULL);
        assert_ok(peri_index_put_many(ix, N, NULL, rows, 0, NULL, NULL));
        for (int round = 0; round < 2; round++) {
            for (uint64_t i = 0; i < N; i++)
                order[i] = i;
            for (uint32_t i = N - 1; i > 0; i--) {
                uint32_t j = pe_rng_below(&r, i + 1);
                uint64_t swap = order[i];
                order[i] = order[j];
                order[j] = swap;
            }
            for (int i = 0; i < N; i++) {
                assert_ok(peri_index_remove(ix, order[i]));
                if (i % 50 == 0 || i > N - 20)
                    assert_index_valid(ix);
                if (i < N - 1)
                    assert_finds(ix, rows + order[i + 1] * DIM, order[i + 1]);
            }
            assert_int_equal(info_of(ix).rows, 0);
            for (int i = 0; i < N; i++) {
                assert_ok(peri_index_put(ix, order[i], rows + order[i] * DIM, PERI_PUT_NEW));
                if (i % 50 == 0)
                    assert_index_valid(ix);
            }
            assert_index_valid(ix);
            for (int i = 0; i < N; i++)
                assert_finds(ix, rows + (size_t)i * DIM, (uint64_t)i);
        }
        peri_index_close(ix);
    }
    free(rows);
}

/* `copies` rows each of `kinds` rows, in turn. */
static void check_copies(size_t kinds, size_t copies, int bulk, uint16_t metric, uint16_t codes)
{
    size_t n = kinds * copies;
    float *few = new_rows(6, kinds, DIM), *rows = malloc(n * DIM * sizeof *rows);
    unsigned char *here = malloc(n);
    peri_hnsw_config config;
    peri_hnsw_config_init(&config);
    config.codes = codes;
    peri_index *ix = make_index(KIND_HNSW, DIM, metric, 0, &config, NULL);
    pe_rng r = {kinds};
    for (size_t i = 0; i < n; i++) {
        memcpy(rows + i * DIM, few + i % kinds * DIM, DIM * sizeof *rows);
        if (!bulk)
            assert_ok(peri_index_put(ix, i, rows + i * DIM, 0));
    }
    if (bulk)
        assert_ok(peri_index_put_many(ix, n, NULL, rows, 0, NULL, NULL));
    memset(here, 1, n);
    assert_index_valid(ix);
    /* Take away at random until few are left; at each tenth every kind that has a row is found, and
     * as many copies of it as are asked for. */
    for (size_t left = n; left > 3;) {
        size_t stop = left - left / 10 - 1;
        while (left > stop) {
            uint32_t i = pe_rng_below(&r, (uint32_t)n);
            if (!here[i])
                continue;
            here[i] = 0;
            left--;
            assert_ok(peri_index_remove(ix, i));
        }
        assert_index_valid(ix);
        for (size_t kind = 0; kind < kinds; kind++) {
            size_t there = 0, got, same = 0;
            for (size_t i = kind; i < n; i += kinds)
                there += here[i];
            if (!there)
                continue;
            peri_query q = query_of(10);
            peri_hit hits[10];
            assert_ok(peri_index_search(ix, few + kind * DIM, &q, hits, &got));
            for (size_t i = 0; i < got; i++)
                same += hits[i].distance <= 1e-6f;
            size_t want = there < 10 ? there : 10;
            if (same < want)
                print_error("%zu of %zu x %zu left, kind %zu: %zu of %zu copies found\n", left,
                            kinds, copies, kind, same, want);
            assert_true(same == want);
        }
    }
    peri_index_close(ix);
    free(few);
    free(rows);
    free(here);
}

static void copies_are_found_when_all_rows_are_equal(void **state)
{
    (void)state;
    for (int bulk = 0; bulk < 2; bulk++)
        for (uint16_t codes = PERI_CODES_NONE; codes <= PERI_CODES_8BIT; codes++)
            check_copies(1, 2000, bulk, PERI_METRIC_L2, codes);
}

static void copies_are_found_when_ten_rows_stand_a_thousand_times_each(void **state)
{
    (void)state;
    for (int bulk = 0; bulk < 2; bulk++)
        check_copies(10, 1000, bulk, bulk ? PERI_METRIC_COSINE : PERI_METRIC_L2, 0);
}

static void copies_are_found_when_rows_stand_in_pairs(void **state)
{
    (void)state;
    for (int bulk = 0; bulk < 2; bulk++)
        check_copies(1000, 2, bulk, PERI_METRIC_L2, PERI_CODES_NONE);
    check_copies(300, 6, 1, PERI_METRIC_COSINE, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_saved_at_any_moment_of_a_sweep_opens),
        cmocka_unit_test(every_row_can_go_and_come_back),
        cmocka_unit_test(copies_are_found_when_all_rows_are_equal),
        cmocka_unit_test(copies_are_found_when_ten_rows_stand_a_thousand_times_each),
        cmocka_unit_test(copies_are_found_when_rows_stand_in_pairs),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
