/* Rows that repeat, as real data has them: every row finds itself, or one equal to it, and what is
 * not equal is found as if nothing repeated. */
#include "recall.h"

/* A part of the rows become copies of other rows. */
static void repeat(dataset *d, double part, size_t of)
{
    pe_rng r = {3};
    for (size_t i = of; i < d->n_rows; i++)
        if (pe_rng_unit(&r) < part)
            memcpy(d->rows + i * d->dim, d->rows + pe_rng_below(&r, (uint32_t)of) * d->dim,
                   d->dim * sizeof *d->rows);
}

static peri_index *build(const dataset *d, int bulk)
{
    peri_index *ix = make_index(KIND_HNSW, d->dim, d->metric, 0, NULL, NULL);
    peri_task task = threads_task(2);
    if (bulk)
        assert_ok(peri_index_put_many(ix, d->n_rows, NULL, d->rows, 0, &task, NULL));
    for (size_t i = 0; i < d->n_rows && !bulk; i++)
        assert_ok(peri_index_put(ix, i, d->rows + i * d->dim, 0));
    assert_index_valid(ix);
    return ix;
}

/* Rows that do not find themselves at the default effort, of every `step`-th. */
static size_t count_lost(const peri_index *ix, const dataset *d, size_t step)
{
    size_t lost = 0, n;
    peri_query q = query_of(1);
    peri_hit hit;
    for (size_t i = 0; i < d->n_rows; i += step) {
        assert_ok(peri_index_search(ix, d->rows + i * d->dim, &q, &hit, &n));
        assert_int_equal(n, 1);
        double apart = row_distance(d, d->rows + i * d->dim, d->rows + (size_t)hit.id * d->dim);
        lost += apart > 1e-6;
    }
    return lost;
}

static void check_repeats(dataset *d, double least, size_t may_miss)
{
    for (int bulk = 0; bulk < 2; bulk++) {
        peri_index *ix = build(d, bulk);
        truth t = truth_of(d, NULL);
        size_t lost = count_lost(ix, d, 1);
        if (lost > may_miss)
            print_error("%zu of %zu rows do not find themselves\n", lost, d->n_rows);
        assert_true(lost <= may_miss);
        assert_recall(bulk ? "repeats, bulk" : "repeats, one by one", recall_of(ix, d, &t, NULL, 0),
                      least);
        free(t.reach);
        peri_index_close(ix);
    }
}

static void rows_are_found_when_a_third_are_copies(void **state)
{
    (void)state;
    dataset d;
    for (uint16_t metric = 1; metric <= 3; metric += 2) {
        dataset_make(&d, metric, 24, 5000, 200);
        repeat(&d, 0.3, 2000);
        check_repeats(&d, 0.99, 0);
        dataset_free(&d);
    }
    if (dataset_load(&d, "w2v-imdb-100-angular", 4000, 200)) {
        repeat(&d, 0.3, 1500);
        /* Of words a few in a thousand are nobody's neighbours, copies or none. */
        check_repeats(&d, 0.97, d.n_rows / 250);
        dataset_free(&d);
    }
}

static void rows_are_found_beside_one_that_stands_two_thousand_times(void **state)
{
    (void)state;
    dataset d;
    dataset_make(&d, PERI_METRIC_L2, 24, 5000, 200);
    for (size_t i = 3000; i < d.n_rows; i++)
        memcpy(d.rows + i * d.dim, d.rows, d.dim * sizeof *d.rows);
    check_repeats(&d, 0.98, 2);
    dataset_free(&d);
}

static void all_rows_equal_are_all_found(void **state)
{
    (void)state;
    enum { N = 3000 };
    dataset d;
    dataset_make(&d, PERI_METRIC_COSINE, 24, N, 1);
    for (size_t i = 1; i < N; i++)
        memcpy(d.rows + i * d.dim, d.rows, d.dim * sizeof *d.rows);
    peri_hit *hits = malloc(N * sizeof *hits);
    for (int bulk = 0; bulk < 2; bulk++) {
        peri_index *ix = build(&d, bulk);
        for (uint32_t k = 1; k <= N; k = k * 7 < N ? k * 7 : k == N ? N + 1 : N) {
            peri_query q = query_of(k);
            size_t n;
            assert_ok(peri_index_search(ix, d.rows, &q, hits, &n));
            assert_int_equal(n, k);
            for (size_t i = 0; i < n; i++) {
                assert_true(hits[i].distance <= 1e-6f);
                assert_true(i == 0 || hits[i - 1].id < hits[i].id);
            }
        }
        peri_index_close(ix);
    }
    free(hits);
    dataset_free(&d);
}

static void ten_rows_a_thousand_times_each_are_all_found(void **state)
{
    (void)state;
    enum { KINDS_OF_ROWS = 10, COPIES = 1000, N = KINDS_OF_ROWS * COPIES, K = 50 };
    dataset d;
    for (uint16_t metric = 1; metric <= 3; metric += 2)
        for (int bulk = 0; bulk < 2; bulk++) {
            dataset_make(&d, metric, 24, N, 1);
            for (size_t i = KINDS_OF_ROWS; i < N; i++)
                memcpy(d.rows + i * d.dim, d.rows + i % KINDS_OF_ROWS * d.dim,
                       d.dim * sizeof *d.rows);
            peri_index *ix = build(&d, bulk);
            for (size_t kind = 0; kind < KINDS_OF_ROWS; kind++) {
                peri_hit hits[K];
                peri_query q = query_of(K);
                size_t n;
                assert_ok(peri_index_search(ix, d.rows + kind * d.dim, &q, hits, &n));
                assert_int_equal(n, K);
                for (size_t i = 0; i < K; i++)
                    assert_int_equal(hits[i].id % KINDS_OF_ROWS, kind);
            }
            peri_index_close(ix);
            dataset_free(&d);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_found_when_a_third_are_copies),
        cmocka_unit_test(rows_are_found_beside_one_that_stands_two_thousand_times),
        cmocka_unit_test(all_rows_equal_are_all_found),
        cmocka_unit_test(ten_rows_a_thousand_times_each_are_all_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
