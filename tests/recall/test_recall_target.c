/* A query that asks for a recall gets it, on queries that the index never saw; and no more effort
 * is spent than the curve that maintain measured makes reasonable. */
#include "recall.h"
#include "scratch.h"

/* What a target is about is the rows as the index keeps them: what rounding them costs it cannot
 * know. */
static double recall_as_kept(const peri_index *ix, const dataset *d, const truth *t, float target)
{
    peri_hit *hits = malloc(d->n_queries * AT * sizeof *hits);
    size_t *n_hits = malloc(d->n_queries * sizeof *n_hits), found = 0;
    peri_query q = query_of(AT);
    q.target_recall = target;
    assert_ok(peri_index_search_many(ix, d->n_queries, d->queries, &q, NULL, hits, n_hits));
    for (size_t i = 0; i < d->n_queries; i++)
        for (size_t j = 0; j < n_hits[i]; j++)
            found += hits[i * AT + j].distance <= t->reach[i] + 1e-5f * fabsf(t->reach[i]);
    free(hits);
    free(n_hits);
    return (double)found / (double)(d->n_queries * AT);
}

static void check_targets(const dataset *d, uint16_t scalar)
{
    static const float targets[] = {0.9f, 0.95f, 0.99f};
    peri_task task = threads_task(2);
    peri_index *ix = make_index(KIND_HNSW, d->dim, d->metric, scalar, NULL, NULL), *copy;
    truth t = truth_as_kept(d, NULL, scalar);
    assert_ok(peri_index_put_many(ix, d->n_rows, NULL, d->rows, 0, &task, NULL));
    assert_ok(peri_index_maintain(ix, &task));
    assert_index_valid(ix);
    assert_int_equal(info_of(ix).calibrated, 1);
    /* The curve is saved. */
    assert_ok(peri_index_save(ix, scratch("curve"), NULL));
    assert_ok(
        peri_index_open(&copy, scratch("curve"), PERI_OPEN_MAP | PERI_OPEN_READONLY, NULL, NULL));
    assert_int_equal(info_of(copy).calibrated, 1);
    for (int i = 0; i < 3; i++) {
        char what[64];
        snprintf(what, sizeof what, "asked for %g, %s", (double)targets[i], scalar_names[scalar]);
        double got = recall_as_kept(ix, d, &t, targets[i]);
        assert_recall(what, got, targets[i] - 0.02);
        assert_true(fabs(recall_as_kept(copy, d, &t, targets[i]) - got) < 0.002);
    }
    peri_index_close(copy);
    peri_index_close(ix);
    free(t.reach);
}

static void check_real(const char *name, size_t rows)
{
    dataset d;
    if (!dataset_load(&d, name, rows, 500))
        skip();
    check_targets(&d, PERI_SCALAR_F32);
    check_targets(&d, PERI_SCALAR_I8);
    dataset_free(&d);
}

static void sift_gets_the_recall_it_asks_for(void **state)
{
    (void)state;
    check_real("sift250k-128-euclidean", 12000);
}

static void mnist_gets_the_recall_it_asks_for(void **state)
{
    (void)state;
    check_real("mnist-784-euclidean", 5000);
}

static void lsa_gets_the_recall_it_asks_for(void **state)
{
    (void)state;
    check_real("imdb-lsa-256-angular", 8000);
}

static void w2v_gets_the_recall_it_asks_for(void **state)
{
    (void)state;
    check_real("w2v-imdb-100-angular", 10000);
}

static void made_up_rows_get_the_recall_they_ask_for(void **state)
{
    (void)state;
    for (uint16_t metric = 1; metric <= 3; metric++) {
        dataset d;
        dataset_make(&d, metric, 32, 4000, 300);
        check_targets(&d, PERI_SCALAR_F16);
        dataset_free(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(made_up_rows_get_the_recall_they_ask_for),
        cmocka_unit_test(sift_gets_the_recall_it_asks_for),
        cmocka_unit_test(mnist_gets_the_recall_it_asks_for),
        cmocka_unit_test(lsa_gets_the_recall_it_asks_for),
        cmocka_unit_test(w2v_gets_the_recall_it_asks_for),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
