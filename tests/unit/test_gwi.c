/* Gravity wells: configurations, training, and what is particular to them among the verbs. */
#include "cluster/kmeans.h"
#include "indexes.h"

enum { DIM = 24 };

static peri_index *wells(const peri_gwi_config *config)
{
    peri_index *ix;
    peri_space space;
    peri_space_init(&space, DIM, PERI_METRIC_L2);
    assert_ok(peri_gwi_create(&ix, &space, config, NULL));
    return ix;
}

static peri_gwi_config config_of(void)
{
    peri_gwi_config c;
    peri_gwi_config_init(&c);
    return c;
}

static void a_configuration_out_of_range_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        size_t offset;
        uint32_t value;
        const char *name;
    } bad[] = {
        {offsetof(peri_gwi_config, branching), 1, "branching is 1"},
        {offsetof(peri_gwi_config, branching), 1025, "branching is 1025"},
        {offsetof(peri_gwi_config, levels), 17, "levels is 17"},
        {offsetof(peri_gwi_config, wells), 1, "wells is 1"},
        {offsetof(peri_gwi_config, wells), (1 << 20) + 1, "wells is 1048577"},
        {offsetof(peri_gwi_config, nprobe), (1 << 20) + 1, "nprobe is 1048577"},
        {offsetof(peri_gwi_config, rounds), 101, "rounds is 101"},
        {offsetof(peri_gwi_config, train_rows), 63, "train_rows is 63"},
    };
    peri_space space;
    peri_index *ix = NULL;
    peri_space_init(&space, DIM, PERI_METRIC_L2);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        peri_gwi_config c = config_of();
        memcpy((char *)&c + bad[i].offset, &bad[i].value, sizeof bad[i].value);
        assert_status(PERI_ERR_CONFIG, peri_gwi_create(&ix, &space, &c, NULL));
        assert_detail(bad[i].name);
        assert_null(ix);
    }
    peri_gwi_config c = config_of();
    c.bits = 3;
    assert_status(PERI_ERR_CONFIG, peri_gwi_create(&ix, &space, &c, NULL));
    assert_detail("bits is 3, expected 1, 2 or 4");
    c = config_of();
    c.codes = 3;
    assert_status(PERI_ERR_CONFIG, peri_gwi_create(&ix, &space, &c, NULL));
    c.struct_size = 8;
    assert_status(PERI_ERR_ARG, peri_gwi_create(&ix, &space, &c, NULL));
    assert_status(PERI_ERR_ARG, peri_gwi_create(NULL, &space, NULL, NULL));
}

static void branching_and_levels_say_how_many_wells(void **state)
{
    (void)state;
    enum { N = 6000 };
    float *rows = new_rows(3, N, DIM);
    peri_gwi_config c = config_of();
    c.branching = 6;
    c.levels = 2;
    peri_index *ix = wells(&c);
    assert_ok(peri_index_train(ix, N, rows, NULL));
    assert_in_range(info_of(ix).wells, 30, 42);
    peri_index_close(ix);
    free(rows);
}

static void training_is_by_a_sample_or_by_the_first_rows(void **state)
{
    (void)state;
    enum { N = 5000 };
    float *rows = new_rows(4, N, DIM);
    peri_index *ix = wells(NULL);
    assert_int_equal(info_of(ix).wells, 0);
    assert_status(PERI_ERR_ARG, peri_index_train(ix, 1, rows, NULL));
    assert_status(PERI_ERR_ARG, peri_index_train(ix, 10, NULL, NULL));
    float bad[2 * DIM] = {0};
    bad[DIM + 3] = NAN;
    assert_status(PERI_ERR_NONFINITE, peri_index_train(ix, 2, bad, NULL));
    assert_ok(peri_index_put(ix, 9, rows, 0)); /* it waits */
    assert_ok(peri_index_train(ix, N, rows, NULL));
    assert_true(info_of(ix).wells > 20);
    assert_true(info_of(ix).caps & PERI_CAP_TRAIN);
    assert_index_valid(ix);
    assert_status(PERI_ERR_STATE, peri_index_train(ix, N, rows, NULL));
    assert_ok(peri_index_put_many(ix, N, NULL, rows, 0, NULL, NULL));
    assert_int_equal(info_of(ix).rows, N + 1);
    assert_index_valid(ix);
    peri_index_close(ix);

    ix = wells(NULL); /* by itself, row by row */
    for (uint64_t i = 0; i < 4096; i++) {
        assert_int_equal(info_of(ix).wells, 0);
        assert_ok(peri_index_put(ix, i, rows + i * DIM, 0));
    }
    assert_true(info_of(ix).wells > 0);
    assert_index_valid(ix);
    peri_index_close(ix);

    ix = make_index(KIND_FLAT, DIM, PERI_METRIC_L2, 0, NULL, NULL);
    assert_status(PERI_ERR_UNSUPPORTED, peri_index_train(ix, N, rows, NULL));
    peri_index_close(ix);
    free(rows);
}

/* Every retirement of a batch has its place, those of the wells and those of the rows replaced. */
static void a_large_batch_may_replace_all_rows(void **state)
{
    (void)state;
    enum { N = 20000 };
    float *rows = new_rows(5, N, DIM), *others = new_rows(6, N, DIM);
    uint64_t *ids = malloc(N * sizeof *ids);
    for (uint64_t i = 0; i < N; i++)
        ids[i] = i;
    peri_index *ix = wells(NULL);
    assert_ok(peri_index_put_many(ix, N, ids, rows, 0, NULL, NULL));
    assert_ok(peri_index_put_many(ix, N, ids, others, 0, NULL, NULL));
    assert_int_equal(info_of(ix).rows, N);
    assert_index_valid(ix);
    peri_query q = query_of(1);
    peri_hit hit;
    size_t n;
    for (uint64_t i = 0; i < N; i += 501) {
        assert_ok(peri_index_search(ix, others + i * DIM, &q, &hit, &n));
        assert_true(n == 1 && hit.id == i);
    }
    peri_index_close(ix);
    free(rows);
    free(others);
    free(ids);
}

static void the_number_of_threads_changes_nothing(void **state)
{
    (void)state;
    enum { N = 12000, K = 20 };
    float *rows = new_rows(7, N, DIM);
    peri_index *one = wells(NULL), *three = wells(NULL);
    peri_task task = threads_task(3);
    assert_ok(peri_index_put_many(one, N, NULL, rows, 0, NULL, NULL));
    assert_ok(peri_index_put_many(three, N, NULL, rows, 0, &task, NULL));
    assert_int_equal(info_of(one).wells, info_of(three).wells);
    peri_query q = query_of(K);
    q.effort = 3;
    for (size_t i = 0; i < N; i += 300) {
        peri_hit a[K], b[K];
        size_t na, nb;
        assert_ok(peri_index_search(one, rows + i * DIM, &q, a, &na));
        assert_ok(peri_index_search(three, rows + i * DIM, &q, b, &nb));
        assert_int_equal(na, nb);
        assert_memory_equal(a, b, na * sizeof *a);
    }
    peri_index_close(one);
    peri_index_close(three);
    free(rows);
}

static void wells_that_lose_their_rows_are_given_up(void **state)
{
    (void)state;
    enum { N = 10000 };
    float *rows = new_rows(8, N, DIM);
    peri_index *ix = wells(NULL);
    assert_ok(peri_index_put_many(ix, N, NULL, rows, 0, NULL, NULL));
    uint32_t before = info_of(ix).wells;
    for (uint64_t i = 0; i < N; i++)
        if (i % 50)
            assert_ok(peri_index_remove(ix, i));
    assert_index_valid(ix);
    assert_ok(peri_index_maintain(ix, NULL));
    assert_index_valid(ix);
    assert_true(info_of(ix).wells < before / 2);
    for (uint64_t i = 0; i < N; i += 50)
        assert_ok(peri_index_remove(ix, i));
    assert_index_valid(ix);
    assert_int_equal(info_of(ix).rows, 0);
    assert_ok(peri_index_put_many(ix, N, NULL, rows, 0, NULL, NULL));
    assert_index_valid(ix);
    peri_index_close(ix);
    free(rows);
}

static int stop_at_once(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    (void)phase;
    (void)done;
    (void)total;
    ++*(int *)ctx;
    return 1;
}

static void a_cancelled_training_leaves_the_rows_waiting(void **state)
{
    (void)state;
    enum { N = 6000 };
    float *rows = new_rows(9, N, DIM);
    peri_index *ix = wells(NULL);
    int asked = 0;
    peri_task task = threads_task(2);
    task.progress = stop_at_once;
    task.progress_ctx = &asked;
    assert_ok(peri_index_put_many(ix, 1000, NULL, rows, 0, NULL, NULL));
    assert_status(PERI_ERR_CANCELLED, peri_index_train(ix, N, rows, &task));
    assert_true(asked > 0);
    assert_int_equal(info_of(ix).wells, 0);
    assert_index_valid(ix);
    assert_ok(peri_index_train(ix, N, rows, NULL));
    assert_index_valid(ix);
    peri_index_close(ix);
    free(rows);
}

/* ---- k-means itself ---- */

static void k_means_finds_separate_clusters_for_any_team(void **state)
{
    (void)state;
    enum { N = 5000, K = 12, D = 8 };
    pe_host host;
    float *rows = malloc(N * D * sizeof *rows), centres[2][K * D], norms[2][K];
    uint32_t *nearest[2];
    assert_ok(pe_host_init(&host, NULL));
    pe_rng r = {11};
    for (size_t i = 0; i < N * (size_t)D; i++)
        rows[i] = (i / D % K == i % D ? 10 : i / D % K >= D ? 20 : 0) + (float)pe_rng_unit(&r);
    for (unsigned t = 0; t < 2; t++) {
        nearest[t] = malloc(N * sizeof *nearest[t]);
        pe_kmeans in = {&host, pe_kernels_get(), rows, N, D, D, K, 15, 3};
        assert_ok(pe_kmeans_run(&in, centres[t], norms[t], nearest[t], NULL, 1 + 2 * t));
    }
    assert_memory_equal(centres[0], centres[1], sizeof centres[0]);
    assert_memory_equal(nearest[0], nearest[1], N * sizeof *nearest[0]);
    double error = 0;
    for (size_t i = 0; i < N; i++)
        for (uint32_t j = 0; j < D; j++) {
            double off = rows[i * D + j] - centres[0][nearest[0][i] * D + j];
            error += off * off;
        }
    assert_true(error / (N * D) < 4); /* the rows' own variance is 85 */
    for (unsigned t = 0; t < 2; t++)
        free(nearest[t]);
    free(rows);
    assert_int_equal(host.heap, 0);
}

static void k_means_of_few_distinct_rows_ends(void **state)
{
    (void)state;
    enum { N = 300, K = 40, D = 3 };
    pe_host host;
    float rows[N * D], centres[K * D], norms[K];
    uint32_t nearest[N];
    assert_ok(pe_host_init(&host, NULL));
    for (size_t i = 0; i < N * D; i++)
        rows[i] = (float)(i / D % 5);
    pe_kmeans in = {&host, pe_kernels_get(), rows, N, D, D, K, 10, 1};
    assert_ok(pe_kmeans_run(&in, centres, norms, nearest, NULL, 1));
    for (size_t i = 0; i < N; i++)
        assert_true(nearest[i] < K);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_configuration_out_of_range_is_refused_by_name),
        cmocka_unit_test(branching_and_levels_say_how_many_wells),
        cmocka_unit_test(training_is_by_a_sample_or_by_the_first_rows),
        cmocka_unit_test(a_large_batch_may_replace_all_rows),
        cmocka_unit_test(the_number_of_threads_changes_nothing),
        cmocka_unit_test(wells_that_lose_their_rows_are_given_up),
        cmocka_unit_test(a_cancelled_training_leaves_the_rows_waiting),
        cmocka_unit_test(k_means_finds_separate_clusters_for_any_team),
        cmocka_unit_test(k_means_of_few_distinct_rows_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
