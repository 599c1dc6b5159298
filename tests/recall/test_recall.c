/* Recall@10 at each stage of an index's life, on real rows.
 *
 * SciFact's embeddings ship with the tree; the larger sets are used where PERIGEE_DATA names their
 * folder. A slice of each set is indexed, the exact answer is that of a flat index of the same
 * rows, and held-out queries ask. The floors are what the default effort reached when they were
 * written, less two points: a fall below is a fall in quality, not chance. */
#include "indexes.h"
#include "perigee/io.h"
#include "scratch.h"

enum { ROWS = 6000, QUERIES = 150, K = 10 };

typedef struct set {
    const char *file;
    float floor;    /* recall@10 at the default effort, at every stage */
    float floor_i8; /* the same with 8-bit rows */
    uint32_t dim;
    uint16_t metric;
    size_t n, n_queries;
    float *rows, *queries;
} set;

static set sets[] = {
    {.file = "scifact-minilm-384-angular.hdf5", .floor = 0.96f, .floor_i8 = 0.94f},
    {.file = "sift250k-128-euclidean.hdf5", .floor = 0.97f, .floor_i8 = 0.95f},
    {.file = "mnist-784-euclidean.hdf5", .floor = 0.97f, .floor_i8 = 0.97f},
    {.file = "w2v-imdb-100-angular.hdf5", .floor = 0.96f, .floor_i8 = 0.93f},
    {.file = "imdb-lsa-256-angular.hdf5", .floor = 0.88f, .floor_i8 = 0.86f},
};
enum { SETS = sizeof sets / sizeof *sets };

static float *load(const char *path, const char *dataset, size_t most, size_t *n, set *s)
{
    char name[1024];
    peri_matrix *m;
    peri_matrix_info info;
    snprintf(name, sizeof name, "%s:%s", path, dataset);
    if (peri_matrix_open(&m, name, NULL) != PERI_OK)
        return NULL;
    peri_matrix_info_init(&info);
    assert_ok(peri_matrix_get_info(m, &info));
    s->dim = info.dim;
    s->metric = strcmp(info.distance, "angular") == 0 ? PERI_METRIC_COSINE : PERI_METRIC_L2;
    *n = info.rows < most ? (size_t)info.rows : most;
    float *rows = malloc(*n * info.dim * sizeof *rows);
    assert_ok(peri_matrix_read(m, 0, *n, rows));
    peri_matrix_close(m);
    return rows;
}

static int load_sets(void **state)
{
    (void)state;
    const char *folders[] = {getenv("PERIGEE_SHIPPED"), getenv("PERIGEE_DATA")};
    for (size_t i = 0; i < SETS; i++) {
        for (size_t f = 0; f < 2 && !sets[i].rows; f++) {
            char path[900];
            if (!folders[f])
                continue;
            snprintf(path, sizeof path, "%s/%s", folders[f], sets[i].file);
            sets[i].rows = load(path, "train", ROWS, &sets[i].n, &sets[i]);
            if (sets[i].rows)
                sets[i].queries = load(path, "test", QUERIES, &sets[i].n_queries, &sets[i]);
        }
        if (!sets[i].rows)
            print_message("%s is not here: its rows are not tried\n", sets[i].file);
    }
    return 0;
}

static double recall(const peri_index *ix, const peri_index *exact, const set *s, peri_query q)
{
    peri_hit got[K], want[K];
    size_t n_got, n_want, found = 0, all = 0;
    peri_query plain = query_of(K);
    for (size_t i = 0; i < s->n_queries; i++) {
        const float *query = s->queries + i * s->dim;
        assert_ok(peri_index_search(exact, query, &plain, want, &n_want));
        assert_ok(peri_index_search(ix, query, &q, got, &n_got));
        assert_int_equal(n_got, n_want);
        for (size_t a = 0; a < n_got; a++)
            for (size_t b = 0; b < n_want; b++)
                found += got[a].id == want[b].id;
        all += n_want;
    }
    return (double)found / (double)all;
}

static void expect(const peri_index *ix, const peri_index *exact, const set *s, float least,
                   const char *stage)
{
    assert_index_valid(ix);
    double r = recall(ix, exact, s, query_of(K));
    print_message("%-36s %-28s %.4f\n", s->file, stage, r);
    if (r < (double)least) {
        print_error("%s, %s: recall %.4f, expected %.2f\n", s->file, stage, r, (double)least);
        fail();
    }
}

static void put_rows(peri_index *ix, const set *s, size_t first, size_t n, uint32_t threads)
{
    peri_task task = threads_task(threads);
    uint64_t *ids = malloc(n * sizeof *ids);
    for (size_t i = 0; i < n; i++)
        ids[i] = first + i;
    assert_ok(peri_index_put_many(ix, n, ids, s->rows + first * s->dim, 0, &task, NULL));
    free(ids);
}

static void recall_holds_from_build_through_deletes_and_reload(void **state)
{
    (void)state;
    for (size_t i = 0; i < SETS; i++) {
        const set *s = &sets[i];
        if (!s->rows)
            continue;
        peri_index *ix = make_index(KIND_HNSW, s->dim, s->metric, 0, NULL, NULL);
        peri_index *exact = make_index(KIND_FLAT, s->dim, s->metric, 0, NULL, NULL);
        put_rows(ix, s, 0, s->n, 2);
        put_rows(exact, s, 0, s->n, 1);
        expect(ix, exact, s, s->floor, "built by two threads");
        uint64_t before = info_of(ix).bytes_heap;
        for (size_t id = 0; id < s->n; id += 2) {
            assert_ok(peri_index_remove(ix, id));
            assert_ok(peri_index_remove(exact, id));
        }
        expect(ix, exact, s, s->floor, "half of it deleted");
        for (size_t id = 0; id < s->n; id += 2) {
            assert_ok(peri_index_put(ix, id, s->rows + id * s->dim, 0));
            assert_ok(peri_index_put(exact, id, s->rows + id * s->dim, 0));
        }
        expect(ix, exact, s, s->floor, "put back one by one");
        assert_true(info_of(ix).bytes_heap <= before + before / 5);
        const char *path = scratch("recall");
        assert_ok(peri_index_save(ix, path, NULL));
        peri_index_close(ix);
        for (uint32_t map = 0; map < 2; map++) {
            assert_ok(peri_index_open(&ix, path, map ? PERI_OPEN_MAP : 0, NULL, NULL));
            expect(ix, exact, s, s->floor, map ? "opened mapped" : "opened copied");
            peri_index_close(ix);
        }
        peri_index_close(exact);
    }
}

/* A tenth removed and other rows put in its place, five times: no worse than built at once. */
static void recall_survives_churn(void **state)
{
    (void)state;
    for (size_t i = 0; i < SETS; i++) {
        const set *s = &sets[i];
        if (!s->rows)
            continue;
        size_t tenth = s->n / 15, live = s->n - 5 * tenth;
        peri_index *ix = make_index(KIND_HNSW, s->dim, s->metric, 0, NULL, NULL);
        peri_index *exact = make_index(KIND_FLAT, s->dim, s->metric, 0, NULL, NULL);
        peri_index *fresh = make_index(KIND_HNSW, s->dim, s->metric, 0, NULL, NULL);
        put_rows(ix, s, 0, live, 2);
        put_rows(exact, s, 0, live, 1);
        for (size_t turn = 0; turn < 5; turn++)
            for (size_t j = turn * tenth; j < (turn + 1) * tenth; j++) {
                size_t in = live + j;
                assert_ok(peri_index_remove(ix, j));
                assert_ok(peri_index_remove(exact, j));
                assert_ok(peri_index_put(ix, in, s->rows + in * s->dim, 0));
                assert_ok(peri_index_put(exact, in, s->rows + in * s->dim, 0));
            }
        put_rows(fresh, s, 5 * tenth, s->n - 5 * tenth, 1);
        double r = recall(fresh, exact, s, query_of(K));
        expect(ix, exact, s, (float)r - 0.02f, "after five turns of churn");
        peri_index_close(ix);
        peri_index_close(exact);
        peri_index_close(fresh);
    }
}

static void narrow_rows_lose_little(void **state)
{
    (void)state;
    for (size_t i = 0; i < SETS; i++) {
        const set *s = &sets[i];
        if (!s->rows)
            continue;
        peri_index *exact = make_index(KIND_FLAT, s->dim, s->metric, 0, NULL, NULL);
        put_rows(exact, s, 0, s->n / 2, 1);
        for (uint16_t scalar = PERI_SCALAR_F16; scalar <= PERI_SCALAR_I8; scalar++) {
            peri_index *ix = make_index(KIND_HNSW, s->dim, s->metric, scalar, NULL, NULL);
            put_rows(ix, s, 0, s->n / 2, 2);
            expect(ix, exact, s, s->floor_i8, scalar_names[scalar]);
            peri_index_close(ix);
        }
        peri_hnsw_config config;
        peri_hnsw_config_init(&config);
        config.codes = PERI_CODES_NONE;
        peri_index *ix = make_index(KIND_HNSW, s->dim, s->metric, 0, &config, NULL);
        put_rows(ix, s, 0, s->n / 2, 2);
        expect(ix, exact, s, s->floor, "f32 without codes");
        peri_index_close(ix);
        peri_index_close(exact);
    }
}

static void a_target_recall_is_reached(void **state)
{
    (void)state;
    const float targets[] = {0.9f, 0.95f, 0.99f};
    for (size_t i = 0; i < SETS; i++) {
        const set *s = &sets[i];
        if (!s->rows)
            continue;
        peri_index *ix = make_index(KIND_HNSW, s->dim, s->metric, 0, NULL, NULL);
        peri_index *exact = make_index(KIND_FLAT, s->dim, s->metric, 0, NULL, NULL);
        put_rows(ix, s, 0, s->n, 2);
        put_rows(exact, s, 0, s->n, 1);
        assert_ok(peri_index_maintain(ix, NULL));
        assert_int_equal(info_of(ix).calibrated, 1);
        for (size_t t = 0; t < 3; t++) {
            peri_query q = query_of(K);
            q.target_recall = targets[t];
            double r = recall(ix, exact, s, q);
            print_message("%-36s target %.2f gives %.4f\n", s->file, (double)targets[t], r);
            assert_true(r >= (double)targets[t] - 0.03);
        }
        peri_index_close(ix);
        peri_index_close(exact);
    }
}

/* A filter of any width gives as many hits as there are, at the recall of an open search. */
static void filters_keep_recall(void **state)
{
    (void)state;
    for (size_t i = 0; i < SETS; i++) {
        const set *s = &sets[i];
        if (!s->rows)
            continue;
        peri_index *ix = make_index(KIND_HNSW, s->dim, s->metric, 0, NULL, NULL);
        peri_index *exact = make_index(KIND_FLAT, s->dim, s->metric, 0, NULL, NULL);
        put_rows(ix, s, 0, s->n, 2);
        put_rows(exact, s, 0, s->n, 1);
        for (size_t every = 2; every <= 1000; every *= every == 2 ? 5 : 10) {
            peri_idset *allow;
            peri_hit got[K], want[K];
            size_t n_got, n_want, found = 0, all = 0;
            assert_ok(peri_idset_create(&allow, NULL));
            for (uint64_t id = 0; id < s->n; id += every)
                assert_ok(peri_idset_add(allow, 1, &id));
            peri_query q = query_of(K);
            q.allow = allow;
            for (size_t j = 0; j < s->n_queries; j++) {
                const float *query = s->queries + j * s->dim;
                assert_ok(peri_index_search(exact, query, &q, want, &n_want));
                assert_ok(peri_index_search(ix, query, &q, got, &n_got));
                assert_int_equal(n_got, n_want);
                for (size_t a = 0; a < n_got; a++)
                    for (size_t b = 0; b < n_want; b++)
                        found += got[a].id == want[b].id;
                all += n_want;
            }
            double r = (double)found / (double)all;
            print_message("%-36s one in %-4zu allowed %.4f\n", s->file, every, r);
            assert_true(r >= (double)s->floor);
            peri_idset_close(allow);
        }
        peri_index_close(ix);
        peri_index_close(exact);
    }
}

static int free_sets(void **state)
{
    for (size_t i = 0; i < SETS; i++) {
        free(sets[i].rows);
        free(sets[i].queries);
    }
    return scratch_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recall_holds_from_build_through_deletes_and_reload),
        cmocka_unit_test(recall_survives_churn),
        cmocka_unit_test(narrow_rows_lose_little),
        cmocka_unit_test(a_target_recall_is_reached),
        cmocka_unit_test(filters_keep_recall),
    };
    return cmocka_run_group_tests(tests, load_sets, free_sets);
}
