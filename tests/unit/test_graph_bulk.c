/* Graphs built in bulk: the same whatever the threads, all or nothing, equal rows, tight memory;
 * and the reservoirs under it, whose content must not depend on the order of what they are offered.
 */
#include "graph/reservoir.h"
#include "indexes.h"
#include "scratch.h"

enum { DIM = 24, N = 6000, K = 10, QUERIES = 100 };

static const int kinds[] = {KIND_HNSW, KIND_CASCADE, KIND_Q};

static void put_all(peri_index *ix, const float *rows, uint32_t threads)
{
    peri_task task = threads_task(threads);
    assert_ok(peri_index_put_many(ix, N, NULL, rows, 0, &task, NULL));
    assert_index_valid(ix);
}

static void the_number_of_threads_does_not_change_a_graph(void **state)
{
    (void)state;
    float *rows = new_rows(41, N, DIM), *queries = new_rows(42, QUERIES, DIM);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        peri_index *one = make_index(kinds[i], DIM, PERI_METRIC_L2, 0, NULL, NULL);
        peri_index *three = make_index(kinds[i], DIM, PERI_METRIC_L2, 0, NULL, NULL);
        put_all(one, rows, 1);
        put_all(three, rows, 3);
        peri_query q = query_of(K);
        q.effort = 10; /* with little effort any other link would show */
        for (size_t j = 0; j < QUERIES; j++) {
            peri_hit a[K], b[K];
            size_t n_a, n_b;
            assert_ok(peri_index_search(one, queries + j * DIM, &q, a, &n_a));
            assert_ok(peri_index_search(three, queries + j * DIM, &q, b, &n_b));
            assert_int_equal(n_a, n_b);
            for (size_t k = 0; k < n_a; k++)
                assert_true(a[k].id == b[k].id && a[k].distance == b[k].distance);
        }
        peri_index_close(one);
        peri_index_close(three);
    }
    free(rows);
    free(queries);
}

static int stop(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    return strcmp(phase, ctx) == 0;
}

static void a_stopped_build_leaves_an_empty_index_that_takes_rows(void **state)
{
    (void)state;
    static const char *const phases[] = {"cells", "links"};
    float *rows = new_rows(43, N, DIM);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        for (size_t p = 0; p < 2; p++) {
            peri_index *ix = make_index(kinds[i], DIM, PERI_METRIC_COSINE, 0, NULL, NULL);
            peri_task task = threads_task(2);
            size_t done = 99;
            task.progress = stop;
            task.progress_ctx = (void *)(uintptr_t)phases[p];
            assert_status(PERI_ERR_CANCELLED,
                          peri_index_put_many(ix, N, NULL, rows, 0, &task, &done));
            assert_int_equal(done, 0);
            assert_int_equal(info_of(ix).rows, 0);
            assert_index_valid(ix);
            put_all(ix, rows, 2);
            assert_int_equal(info_of(ix).rows, N);
            peri_index_close(ix);
        }
    free(rows);
}

static void without_room_for_a_build_rows_go_in_one_by_one(void **state)
{
    (void)state;
    float *rows = new_rows(44, N, DIM);
    peri_index *ix = make_index(KIND_HNSW, DIM, PERI_METRIC_L2, 0, NULL, NULL);
    peri_task task = threads_task(1);
    /* The rows and their links take some 360 bytes each; reservoirs would take 520 more. */
    task.memory_limit = (uint64_t)N * 600;
    assert_ok(peri_index_put_many(ix, N, NULL, rows, 0, &task, NULL));
    assert_int_equal(info_of(ix).rows, N);
    assert_index_valid(ix);
    peri_index_close(ix);
    free(rows);
}

static void equal_rows_are_all_found(void **state)
{
    (void)state;
    enum { COPIES = 40 };
    float *rows = new_rows(45, N, DIM);
    for (size_t i = 0; i < N; i++) /* the first hundred, again and again */
        if (i % 100 && i / 100 < COPIES)
            memcpy(rows + i * DIM, rows + i % 100 * DIM, DIM * sizeof *rows);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        peri_index *ix = make_index(kinds[i], DIM, PERI_METRIC_L2, 0, NULL, NULL);
        put_all(ix, rows, 2);
        for (size_t row = 1; row < 100; row += 7) {
            peri_hit hits[COPIES];
            size_t n;
            peri_query q = query_of(COPIES);
            q.effort = 200;
            assert_ok(peri_index_search(ix, rows + row * DIM, &q, hits, &n));
            assert_int_equal(n, COPIES);
            for (size_t j = 0; j < n; j++)
                assert_int_equal(hits[j].id % 100, row);
        }
        peri_index_close(ix);
    }
    free(rows);
}

static void rows_all_alike_make_a_graph(void **state)
{
    (void)state;
    float *rows = calloc(N * DIM, sizeof *rows);
    for (size_t i = 0; i < N; i++) {
        rows[i * DIM] = 1;
        rows[i * DIM + 1] = i % 2 ? 1 : 1 + 1e-6f; /* two clusters that no leader tells apart */
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        peri_index *ix = make_index(kinds[i], DIM, PERI_METRIC_L2, 0, NULL, NULL);
        put_all(ix, rows, 2);
        peri_hit hits[K];
        size_t n;
        peri_query q = query_of(K);
        assert_ok(peri_index_search(ix, rows, &q, hits, &n));
        assert_int_equal(n, K);
        assert_true(hits[0].distance == 0);
        peri_index_close(ix);
    }
    free(rows);
}

/* ---- reservoirs ---- */

typedef struct offer {
    uint32_t id;
    uint16_t hash;
    float distance;
} offer;

static int by_number(const void *a, const void *b)
{
    uint32_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static void a_reservoir_does_not_depend_on_the_order_of_offers(void **state)
{
    (void)state;
    enum { OFFERS = 400, ROOM = 16, ORDERS = 50 };
    offer offers[OFFERS];
    uint32_t want[PE_RESERVOIR_ROOM], got[PE_RESERVOIR_ROOM];
    pe_host host;
    size_t n_want = 0;
    pe_rng rng = {9};
    assert_ok(pe_host_init(&host, NULL));
    for (uint32_t i = 0; i < OFFERS; i++) /* few hashes and distances, so that ties abound */
        offers[i] = (offer){i, (uint16_t)pe_rng_below(&rng, 40), (float)pe_rng_below(&rng, 30)};
    for (int order = 0; order < ORDERS; order++) {
        pe_reservoirs r;
        assert_ok(pe_reservoirs_init(&r, &host, 1, ROOM));
        for (uint32_t i = OFFERS; i > 1; i--) {
            uint32_t j = pe_rng_below(&rng, i);
            offer o = offers[i - 1];
            offers[i - 1] = offers[j];
            offers[j] = o;
        }
        for (uint32_t i = 0; i < OFFERS; i++)
            pe_reservoir_offer(&r, 0, offers[i].id, offers[i].hash, offers[i].distance);
        size_t n = pe_reservoir_ids(&r, 0, got);
        qsort(got, n, sizeof *got, by_number);
        if (order == 0) {
            n_want = n;
            memcpy(want, got, sizeof got);
            assert_int_equal(n, ROOM);
        }
        assert_int_equal(n, n_want);
        assert_memory_equal(got, want, n * sizeof *got);
        pe_reservoirs_destroy(&r);
    }
    assert_int_equal(host.heap, 0);
}

static void layout_q_refuses_what_it_does_not_serve(void **state)
{
    (void)state;
    peri_index *ix;
    peri_space space;
    peri_hnsw_config c;
    peri_hnsw_config_init(&c);
    c.layout = PERI_LAYOUT_Q;
    peri_space_init(&space, DIM, PERI_METRIC_IP);
    assert_status(PERI_ERR_CONFIG, peri_hnsw_create(&ix, &space, &c, NULL));
    assert_detail("not ip");
    peri_space_init(&space, DIM, PERI_METRIC_L2);
    c.m = 12;
    assert_status(PERI_ERR_CONFIG, peri_hnsw_create(&ix, &space, &c, NULL));
    assert_detail("multiple");
    c.m = 16;
    c.codes = PERI_CODES_8BIT;
    assert_status(PERI_ERR_CONFIG, peri_hnsw_create(&ix, &space, &c, NULL));
    c.layout = 3;
    assert_status(PERI_ERR_CONFIG, peri_hnsw_create(&ix, &space, &c, NULL));
    assert_detail("layout is 3");
}

static void cascade_names_the_field_that_is_out_of_range(void **state)
{
    (void)state;
    peri_index *ix;
    peri_space space;
    peri_space_init(&space, DIM, PERI_METRIC_L2);
    for (int field = 0; field < 6; field++) {
        static const char *const names[] = {"preset", "num_hyperplanes", "bucket_capacity",
                                            "nprobe", "target_recall",   "struct_size"};
        peri_cascade_config c;
        peri_cascade_config_init(&c);
        c.preset = field == 0 ? 4 : 0;
        c.num_hyperplanes = field == 1 ? 33 : 0;
        c.bucket_capacity = field == 2 ? 7 : 0;
        c.nprobe = field == 3 ? 65 : 0;
        c.target_recall = field == 4 ? 1 : 0;
        c.struct_size = field == 5 ? 4 : c.struct_size;
        assert_status(field == 5 ? PERI_ERR_ARG : PERI_ERR_CONFIG,
                      peri_cascade_create(&ix, &space, &c, NULL));
        assert_detail(names[field]);
        assert_null(ix);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_number_of_threads_does_not_change_a_graph),
        cmocka_unit_test(a_stopped_build_leaves_an_empty_index_that_takes_rows),
        cmocka_unit_test(without_room_for_a_build_rows_go_in_one_by_one),
        cmocka_unit_test(equal_rows_are_all_found),
        cmocka_unit_test(rows_all_alike_make_a_graph),
        cmocka_unit_test(a_reservoir_does_not_depend_on_the_order_of_offers),
        cmocka_unit_test(layout_q_refuses_what_it_does_not_serve),
        cmocka_unit_test(cascade_names_the_field_that_is_out_of_range),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
