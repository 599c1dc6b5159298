/* What gravity wells find at each stage of their life, when the data shifts, and on rows that are
 * hard on them. */
#include "recall.h"
#include "scratch.h"

static peri_index *wells_of(const dataset *d, const peri_gwi_config *config)
{
    peri_index *ix;
    peri_space space;
    peri_space_init(&space, d->dim, d->metric);
    assert_ok(peri_gwi_create(&ix, &space, config, NULL));
    return ix;
}

static void put_rows(peri_index *ix, const dataset *d, size_t first, size_t n)
{
    uint64_t *ids = malloc((n + 1) * sizeof *ids);
    peri_task task = threads_task(2);
    for (size_t i = 0; i < n; i++)
        ids[i] = first + i;
    assert_ok(peri_index_put_many(ix, n, ids, d->rows + first * d->dim, 0, &task, NULL));
    free(ids);
}

/* ---- the stages of a life ---- */

static void check_stage(const peri_index *ix, const dataset *d, const unsigned char *here,
                        const char *what, uint32_t effort, double least)
{
    truth t = truth_of(d, here);
    assert_index_valid(ix);
    assert_recall(what, recall_of(ix, d, &t, here, effort), least);
    free(t.reach);
}

static void check_files(const peri_index *ix, const dataset *d, const unsigned char *here,
                        uint32_t effort, double least)
{
    const char *path = scratch("wells.peri");
    assert_ok(peri_index_save(ix, path, NULL));
    for (uint32_t flags = 0; flags < 4; flags++) {
        peri_index *copy;
        assert_ok(peri_index_open(&copy, path, flags, NULL, NULL));
        assert_int_equal(info_of(copy).wells, info_of(ix).wells);
        check_stage(copy, d, here, "a reload", effort, least);
        if (!(flags & PERI_OPEN_READONLY)) { /* it goes on living */
            assert_ok(peri_index_put(copy, 7, d->rows + 7 * d->dim, 0));
            assert_index_valid(copy);
        }
        peri_index_close(copy);
    }
}

static void a_life(const dataset *d, uint32_t effort, double least)
{
    peri_index *ix = wells_of(d, NULL);
    unsigned char *here = malloc(d->n_rows);
    memset(here, 1, d->n_rows);
    put_rows(ix, d, 0, d->n_rows);
    check_stage(ix, d, here, "the build", effort, least);
    for (size_t i = 0; i < d->n_rows; i += 2) {
        assert_ok(peri_index_remove(ix, i));
        here[i] = 0;
    }
    uint64_t heap = info_of(ix).bytes_heap;
    check_stage(ix, d, here, "deleting half", effort, least - 0.01);
    for (size_t i = 0; i < d->n_rows; i += 2) {
        assert_ok(peri_index_put(ix, i, d->rows + i * d->dim, PERI_PUT_NEW));
        here[i] = 1;
    }
    check_stage(ix, d, here, "putting it back", effort, least - 0.01);
    assert_true(info_of(ix).bytes_heap < heap + heap / 4); /* in the space of those removed */
    assert_ok(peri_index_maintain(ix, NULL));
    check_stage(ix, d, here, "maintain", effort, least - 0.01);
    check_files(ix, d, here, effort, least - 0.01);
    peri_index_close(ix);
    free(here);
}

static void recall_holds_through_a_life(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t effort;
        double least;
    } sets[] = {{"sift250k-128-euclidean", 48, 0.94},
                {"mnist-784-euclidean", 24, 0.95},
                {"imdb-lsa-256-angular", 96, 0.80},
                {"w2v-imdb-100-angular", 48, 0.85}};
    int any = 0;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        dataset d;
        if (!dataset_load(&d, sets[i].name, 20000, 200))
            continue;
        any = 1;
        a_life(&d, sets[i].effort, sets[i].least);
        dataset_free(&d);
    }
    for (uint16_t metric = 1; metric <= 3; metric++) {
        dataset d;
        dataset_make(&d, metric, 40, 8000, 100);
        a_life(&d, 48, 0.95);
        dataset_free(&d);
    }
    if (!any)
        skip();
}

/* ---- a shift ---- */

static int compare_floats(const void *a, const void *b)
{
    const float *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* Rows by their distance from one of them, nearest first: the first tenth is a corner. */
static void sort_by_region(dataset *d)
{
    size_t size = (d->dim + 1) * sizeof(float);
    float *keyed = malloc(d->n_rows * size);
    for (size_t i = 0; i < d->n_rows; i++) {
        float *at = keyed + i * (d->dim + 1);
        memcpy(at + 1, d->rows + i * d->dim, d->dim * sizeof(float));
        at[0] = (float)row_distance(d, d->rows, d->rows + i * d->dim);
    }
    qsort(keyed, d->n_rows, size, compare_floats);
    for (size_t i = 0; i < d->n_rows; i++)
        memcpy(d->rows + i * d->dim, keyed + i * (d->dim + 1) + 1, d->dim * sizeof(float));
    free(keyed);
}

/* Recall when `scanned` rows are looked at, whatever the number of wells. */
static double recall_at(const peri_index *ix, const dataset *d, const truth *t, size_t scanned)
{
    size_t effort = scanned * info_of(ix).wells / d->n_rows;
    return recall_of(ix, d, t, NULL, (uint32_t)(effort ? effort : 1));
}

static void recall_holds_when_the_data_shifts(void **state)
{
    (void)state;
    enum { SCANNED = 3000 };
    dataset set, *d = &set;
    if (!dataset_load(d, "sift250k-128-euclidean", 40000, 300))
        dataset_make(d, PERI_METRIC_L2, 64, 40000, 300);
    sort_by_region(d);
    truth t = truth_of(d, NULL);
    peri_index *at_once = wells_of(d, NULL), *shifted = wells_of(d, NULL);
    put_rows(at_once, d, 0, d->n_rows);
    assert_ok(peri_index_train(shifted, d->n_rows / 10, d->rows, NULL));
    put_rows(shifted, d, 0, d->n_rows / 10);
    assert_true(info_of(shifted).wells > 0);
    for (size_t i = d->n_rows / 10; i < d->n_rows; i += 1000)
        put_rows(shifted, d, i, 1000);
    double whole = recall_at(at_once, d, &t, SCANNED);
    assert_index_valid(shifted);
    assert_recall("built at once", whole, 0.9);
    assert_recall("ten times grown", recall_at(shifted, d, &t, SCANNED), whole - 0.03);
    assert_ok(peri_index_maintain(shifted, NULL));
    assert_index_valid(shifted);
    assert_recall("then maintained", recall_at(shifted, d, &t, SCANNED), whole - 0.01);
    peri_index_close(at_once);
    peri_index_close(shifted);
    free(t.reach);
    dataset_free(d);
}

/* ---- hard rows ---- */

static void each_is_found(const peri_index *ix, const dataset *d, size_t step)
{
    peri_query q = query_of(1);
    peri_hit hit;
    size_t n;
    for (size_t i = 0; i < d->n_rows; i += step) {
        assert_ok(peri_index_search(ix, d->rows + i * d->dim, &q, &hit, &n));
        assert_int_equal(n, 1);
        double there = row_distance(d, d->rows + i * d->dim, d->rows + hit.id * d->dim);
        assert_true(there <= 1e-3);
    }
}

static void hard_rows(dataset *d, const char *what)
{
    peri_gwi_config config;
    peri_gwi_config_init(&config);
    config.codes = PERI_CODES_NONE; /* of one scale: too coarse for clusters far apart */
    peri_index *ix = wells_of(d, &config);
    put_rows(ix, d, 0, d->n_rows / 2);
    for (size_t i = d->n_rows / 2; i < d->n_rows; i++)
        assert_ok(peri_index_put(ix, i, d->rows + i * d->dim, 0));
    print_message("  %s: %u wells\n", what, info_of(ix).wells);
    assert_index_valid(ix);
    each_is_found(ix, d, 97);
    for (size_t i = 0; i < d->n_rows; i += 3)
        assert_ok(peri_index_remove(ix, i));
    assert_ok(peri_index_maintain(ix, NULL));
    assert_index_valid(ix);
    peri_query q = query_of(50);
    peri_hit hits[50];
    size_t n;
    assert_ok(peri_index_search(ix, d->rows, &q, hits, &n));
    assert_int_equal(n, 50);
    for (size_t i = 0; i < n; i++)
        assert_true(hits[i].id % 3 != 0);
    peri_index_close(ix);
}

static void equal_and_doubled_rows_and_two_clusters_do_no_harm(void **state)
{
    (void)state;
    enum { N = 9000 };
    dataset d;
    dataset_make(&d, PERI_METRIC_L2, 32, N, 1);
    for (size_t i = 1; i < N; i++)
        memcpy(d.rows + i * d.dim, d.rows, d.dim * sizeof(float));
    hard_rows(&d, "equal rows");
    dataset_free(&d);
    dataset_make(&d, PERI_METRIC_L2, 32, N, 1);
    for (size_t i = 0; i < N; i++)
        memcpy(d.rows + i * d.dim, d.rows + i % 100 * d.dim, d.dim * sizeof(float));
    hard_rows(&d, "a hundred rows ninety times");
    dataset_free(&d);
    dataset_make(&d, PERI_METRIC_L2, 32, N, 1);
    for (size_t i = 0; i < N * (size_t)d.dim; i++)
        d.rows[i] += i / d.dim % 2 ? 100.0f : 0;
    hard_rows(&d, "two clusters");
    dataset_free(&d);
    dataset_make(&d, PERI_METRIC_COSINE, 1, N, 1); /* directions: two in all */
    hard_rows(&d, "one dimension under cosine");
    dataset_free(&d);
}

static void wide_rows_are_found(void **state)
{
    (void)state;
    dataset set, *d = &set;
    dataset_make(d, PERI_METRIC_L2, 4096, 1500, 20);
    peri_gwi_config config;
    peri_gwi_config_init(&config);
    config.train_rows = 500;
    truth t = truth_of(d, NULL);
    for (uint16_t bits = 1; bits <= 4; bits *= 2) {
        config.bits = bits;
        peri_index *ix = wells_of(d, &config);
        put_rows(ix, d, 0, d->n_rows);
        assert_index_valid(ix);
        assert_true(info_of(ix).wells > 1);
        assert_recall("4,096 dimensions", recall_of(ix, d, &t, NULL, 32), 0.95);
        peri_index_close(ix);
    }
    free(t.reach);
    dataset_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recall_holds_through_a_life),
        cmocka_unit_test(recall_holds_when_the_data_shifts),
        cmocka_unit_test(equal_and_doubled_rows_and_two_clusters_do_no_harm),
        cmocka_unit_test(wide_rows_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
