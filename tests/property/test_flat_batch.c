/* A batch of queries on a flat index goes by register tiles that choose candidates; the answers
 * must be those of the plain scan, bit for bit: also where rows tie, cancel or are gone. */
#include "model.h"

typedef struct batch {
    uint32_t dim, k;
    size_t n_rows, n_queries;
    uint16_t metric;
    model_data data;
    int holes, sparse_ids;
} batch;

static void check_batch(const batch *b, uint64_t seed)
{
    model m;
    pe_rng r = {seed};
    peri_space space;
    peri_space_init(&space, b->dim, b->metric);
    model_init(&m, &space, 1, b->data);
    peri_index *ix = make_index(KIND_FLAT, b->dim, b->metric, 0, NULL, NULL);
    float *rows = malloc(b->n_rows * b->dim * sizeof *rows);
    float *queries = malloc(b->n_queries * b->dim * sizeof *queries);
    peri_hit *many = malloc(b->n_queries * b->k * sizeof *many), *one = malloc(b->k * sizeof *one);
    size_t *n_many = malloc(b->n_queries * sizeof *n_many), n_one;
    uint64_t *ids = malloc(b->n_rows * sizeof *ids);
    for (size_t i = 0; i < b->n_rows; i++) {
        model_row(&m, &r, rows + i * b->dim);
        ids[i] = b->sparse_ids ? pe_mix64(i + 1) : i;
    }
    for (size_t i = 0; i < b->n_queries; i++) {
        if (i % 5 == 0) /* a stored row */
            memcpy(queries + i * b->dim,
                   rows + pe_rng_below(&r, (uint32_t)b->n_rows) * (size_t)b->dim,
                   b->dim * sizeof *rows);
        else
            model_row(&m, &r, queries + i * b->dim);
    }
    assert_ok(peri_index_put_many(ix, b->n_rows, ids, rows, 0, NULL, NULL));
    for (size_t i = 0; i < b->n_rows && b->holes; i += 3)
        assert_ok(peri_index_remove(ix, ids[i]));
    assert_index_valid(ix);
    peri_query q = query_of(b->k);
    for (uint32_t threads = 1; threads <= 2; threads++) {
        peri_task task = threads_task(threads);
        assert_ok(peri_index_search_many(ix, b->n_queries, queries, &q, &task, many, n_many));
        for (size_t i = 0; i < b->n_queries; i++) {
            assert_ok(peri_index_search(ix, queries + i * b->dim, &q, one, &n_one));
            int same = n_one == n_many[i];
            for (size_t j = 0; same && j < n_one; j++)
                same = one[j].id == many[i * b->k + j].id &&
                       memcmp(&one[j].distance, &many[i * b->k + j].distance, 4) == 0;
            if (same)
                continue;
            print_error("%s dim %u k %u data %d seed %llu, query %zu: %zu hits, one by one %zu\n",
                        metric_names[b->metric], b->dim, b->k, b->data, (unsigned long long)seed, i,
                        n_many[i], n_one);
            for (size_t j = 0; j < n_one && j < n_many[i]; j++)
                if (one[j].id != many[i * b->k + j].id ||
                    one[j].distance != many[i * b->k + j].distance)
                    print_error("  %zu: id %llu %.9g, one by one %llu %.9g\n", j,
                                (unsigned long long)many[i * b->k + j].id,
                                (double)many[i * b->k + j].distance, (unsigned long long)one[j].id,
                                (double)one[j].distance);
            fail();
        }
    }
    peri_index_close(ix);
    model_free(&m);
    free(rows);
    free(queries);
    free(many);
    free(one);
    free(n_many);
    free(ids);
}

static void tiles_answer_as_the_scan_does(void **state)
{
    (void)state;
    static const uint32_t dims[] = {17, 96, 100, 384, 784, 1536};
    static const uint32_t ks[] = {1, 10, 100, 256};
    uint64_t seed = 1;
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
        for (uint16_t metric = 1; metric <= 3; metric++)
            for (int data = 0; data < DATAS; data++, seed++) {
                batch b = {.dim = dims[d], .metric = metric, .data = (model_data)data};
                b.n_queries = 140 * 1024 / dims[d] + 3; /* just enough for tiles to be taken */
                b.n_rows = 80 + 977 % dims[d] + seed * 7 % 300;
                b.k = ks[seed % 4];
                b.holes = seed % 2 == 0;
                b.sparse_ids = seed % 3 == 0;
                check_batch(&b, seed);
            }
}

/* Every row the same but for its last bits, far from zero: where |q|^2 + |x|^2 - 2 <q, x> knows
 * nothing any more. */
static void tiles_do_not_lose_digits(void **state)
{
    (void)state;
    enum { DIM = 512, ROWS = 300, QUERIES = 300, K = 5 };
    peri_hit *many = malloc(QUERIES * K * sizeof *many), one[K];
    size_t n_many[QUERIES], n_one;
    float *rows = malloc((size_t)ROWS * DIM * sizeof *rows);
    pe_rng r = {4};
    for (size_t i = 0; i < (size_t)ROWS * DIM; i++)
        rows[i] = 1000 + 0.001f * normal(&r);
    for (uint16_t metric = 1; metric <= 3; metric++) {
        peri_index *ix = make_index(KIND_FLAT, DIM, metric, 0, NULL, NULL);
        peri_query q = query_of(K);
        assert_ok(peri_index_put_many(ix, ROWS, NULL, rows, 0, NULL, NULL));
        assert_ok(peri_index_search_many(ix, QUERIES, rows, &q, NULL, many, n_many));
        for (size_t i = 0; i < QUERIES; i++) {
            assert_ok(peri_index_search(ix, rows + i * DIM, &q, one, &n_one));
            assert_int_equal(n_many[i], K);
            assert_memory_equal(one, many + i * K, sizeof one);
            if (metric == PERI_METRIC_L2) {
                assert_true(one[0].id == i && one[0].distance == 0);
            }
        }
        peri_index_close(ix);
    }
    free(rows);
    free(many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiles_answer_as_the_scan_does),
        cmocka_unit_test(tiles_do_not_lose_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
