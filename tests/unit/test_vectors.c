/* Vector files: what each verb does, and what it answers to bad input. */
#include "vectors.h"

#include <float.h>
#include <sys/wait.h>

enum { DIM = 24, ROWS = 3000 };

/* ---- life ---- */

static void assert_row(const peri_vectors *v, peri_slice key, const float *want, uint32_t dim,
                       float tolerance)
{
    float row[4096];
    assert_ok(peri_vectors_get(v, key, row, NULL));
    for (uint32_t i = 0; i < dim; i++)
        if (!(fabsf(row[i] - want[i]) <= tolerance * (1 + fabsf(want[i]))))
            fail_msg("value %u is %g, expected %g", i, (double)row[i], (double)want[i]);
}

static void rows_come_back_after_reopening(void **state)
{
    (void)state;
    static const uint16_t scalars[] = {PERI_SCALAR_F32, PERI_SCALAR_F16, PERI_SCALAR_BF16,
                                       PERI_SCALAR_I8};
    for (uint16_t metric = PERI_METRIC_L2; metric <= PERI_METRIC_COSINE; metric++)
        for (size_t s = 0; s < 4; s++) {
            const char *path = scratch("life.vectors");
            float tolerance = scalars[s] == PERI_SCALAR_F32   ? 1e-6f
                              : scalars[s] == PERI_SCALAR_F16 ? 2e-3f
                                                              : 4e-2f;
            float *rows = new_rows(7, ROWS, DIM);
            peri_slice *keys = number_keys("k", 0, ROWS);
            peri_vectors *v = make_vectors(path, DIM, metric, scalars[s], NULL);
            uint64_t first = 99, id;
            assert_ok(peri_vectors_insert_batch(v, ROWS - 7, keys, rows, 0, &first));
            assert_int_equal(first, 0);
            for (size_t i = ROWS - 7; i < ROWS; i++) {
                assert_ok(peri_vectors_insert(v, keys[i], rows + i * DIM, 0, &id));
                assert_int_equal(id, i);
            }
            assert_ok(peri_vectors_checkpoint(v));
            assert_vectors_valid(v);
            peri_vectors_close(v);
            for (uint32_t flags = 0; flags <= PERI_OPEN_READONLY; flags += PERI_OPEN_READONLY) {
                v = open_vectors(path, flags, NULL);
                assert_int_equal(vectors_info(v).rows, ROWS);
                for (size_t i = 0; i < ROWS; i++)
                    assert_row(v, keys[i], rows + i * DIM, DIM, tolerance);
                assert_vectors_valid(v);
                peri_vectors_close(v);
            }
            free_keys(keys);
            free(rows);
        }
}

static void what_was_not_checkpointed_is_gone_whole(void **state)
{
    (void)state;
    const char *path = scratch("unsaved.vectors");
    float *rows = new_rows(8, ROWS, DIM);
    peri_slice *keys = number_keys("k", 0, ROWS);
    peri_vectors *v = make_vectors(path, DIM, PERI_METRIC_L2, 0, NULL);
    assert_ok(peri_vectors_insert_batch(v, 1000, keys, rows, 0, NULL));
    assert_ok(peri_vectors_checkpoint(v));
    assert_ok(peri_vectors_checkpoint(v)); /* nothing new: nothing happens */
    assert_int_equal(vectors_info(v).checkpoint, 1);
    assert_ok(peri_vectors_insert_batch(v, 500, keys + 1000, rows + 1000 * DIM, 0, NULL));
    assert_ok(peri_vectors_delete(v, keys[3]));
    assert_ok(peri_vectors_update(v, keys[4], rows + 1700 * DIM, NULL));
    assert_int_equal(vectors_info(v).unsaved, 501);
    peri_vectors_close(v);
    v = open_vectors(path, 0, NULL);
    assert_int_equal(vectors_info(v).rows, 1000);
    assert_row(v, keys[3], rows + 3 * DIM, DIM, 0);
    assert_row(v, keys[4], rows + 4 * DIM, DIM, 0);
    assert_status(PERI_ERR_NOT_FOUND, peri_vectors_get(v, keys[1000], rows, NULL));
    /* Its place is used again. */
    assert_ok(peri_vectors_insert_batch(v, 9, keys + 2000, rows + 2000 * DIM, 0, NULL));
    assert_ok(peri_vectors_checkpoint(v));
    assert_row(v, keys[2008], rows + 2008 * DIM, DIM, 0);
    assert_vectors_valid(v);
    peri_vectors_close(v);
    free_keys(keys);
    free(rows);
}

static void update_delete_and_batches_with_twins(void **state)
{
    (void)state;
    const char *path = scratch("twins.vectors");
    float rows[4][2] = {{1, 2}, {3, 4}, {5, 6}, {7, 8}}, row[2];
    peri_slice keys[4] = {key_of_text("a"), key_of_text("b"), key_of_text("a"), key_of_text("c")};
    peri_vectors *v = make_vectors(path, 2, PERI_METRIC_L2, 0, NULL);
    uint64_t id, n;
    assert_status(PERI_ERR_EXISTS,
                  peri_vectors_insert_batch(v, 4, keys, rows[0], PERI_PUT_NEW, NULL));
    assert_detail("key 2 stands at 0");
    assert_ok(peri_vectors_len(v, &n));
    assert_int_equal(n, 0);
    assert_ok(peri_vectors_insert_batch(v, 4, keys, rows[0], 0, NULL));
    assert_ok(peri_vectors_len(v, &n));
    assert_int_equal(n, 3);
    assert_ok(peri_vectors_get(v, key_of_text("a"), row, &id));
    assert_true(row[0] == 5 && id == 2);
    assert_status(PERI_ERR_NOT_FOUND, peri_vectors_get_id(v, 0, row));
    assert_status(PERI_ERR_EXISTS, peri_vectors_insert(v, keys[1], rows[3], PERI_PUT_NEW, NULL));
    assert_status(PERI_ERR_NOT_FOUND, peri_vectors_update(v, key_of_text("z"), rows[0], NULL));
    assert_ok(peri_vectors_update(v, key_of_text("b"), rows[0], &id));
    assert_int_equal(id, 4);
    assert_ok(peri_vectors_checkpoint(v));
    assert_ok(peri_vectors_delete(v, key_of_text("a")));
    assert_status(PERI_ERR_NOT_FOUND, peri_vectors_delete(v, key_of_text("a")));
    assert_ok(peri_vectors_insert(v, key_of_text("a"), rows[3], PERI_PUT_NEW, &id));
    assert_vectors_valid(v);
    assert_ok(peri_vectors_checkpoint(v));
    peri_vectors_close(v);
    v = open_vectors(path, 0, NULL);
    assert_row(v, key_of_text("a"), rows[3], 2, 0);
    assert_row(v, key_of_text("b"), rows[0], 2, 0);
    assert_row(v, key_of_text("c"), rows[3], 2, 0);
    assert_vectors_valid(v);
    peri_vectors_close(v);
}

static void keys_are_walked_in_the_order_of_ids(void **state)
{
    (void)state;
    peri_vectors *v = make_vectors(scratch("walk.vectors"), 2, PERI_METRIC_L2, 0, NULL);
    float row[2] = {1, 1};
    char binary[] = {0, 1, (char)0xff, 0};
    peri_slice keys[] = {key_of_text("x"), {binary, 4}, key_of_text("y"), key_of_text("z")};
    peri_buf key = {0};
    uint64_t cursor = 0, id;
    for (int i = 0; i < 4; i++)
        assert_ok(peri_vectors_insert(v, keys[i], row, 0, NULL));
    assert_ok(peri_vectors_delete(v, keys[2]));
    for (int i = 0; i < 4; i++) {
        if (i == 2)
            continue;
        assert_ok(peri_vectors_next(v, &cursor, &key, &id));
        assert_int_equal(id, i);
        assert_int_equal(key.size, keys[i].size);
        assert_memory_equal(key.data, keys[i].data, key.size);
    }
    assert_status(PERI_ERR_NOT_FOUND, peri_vectors_next(v, &cursor, &key, &id));
    assert_ok(peri_vectors_key_of(v, 2, &key)); /* a deleted row still knows its key */
    assert_memory_equal(key.data, "y", 1);
    assert_status(PERI_ERR_NOT_FOUND, peri_vectors_key_of(v, 4, &key));
    peri_buf_free(&key);
    peri_vectors_close(v);
}

static void the_widest_rows_and_longest_keys_fit(void **state)
{
    (void)state;
    enum { WIDE = 65535, N = 40 };
    static char text[N][PERI_MAX_KEY_SIZE];
    static float row[WIDE];
    const char *path = scratch("wide.vectors");
    peri_slice keys[N];
    float *rows = calloc((size_t)N * WIDE, sizeof *rows);
    for (size_t i = 0; i < N; i++) {
        memset(text[i], (int)(i + 1), sizeof text[i]);
        keys[i] = (peri_slice){text[i], sizeof text[i]};
        rows[i * WIDE + i] = rows[(i + 1) * WIDE - 1] = (float)i + 1;
    }
    for (uint16_t metric = PERI_METRIC_L2; metric <= PERI_METRIC_COSINE; metric += 2) {
        peri_vectors *v = make_vectors(path, WIDE, metric, 0, NULL);
        assert_ok(peri_vectors_insert_batch(v, N - 1, keys, rows, 0, NULL));
        assert_ok(peri_vectors_insert(v, keys[N - 1], rows + (N - 1) * WIDE, 0, NULL));
        assert_ok(peri_vectors_checkpoint(v));
        peri_vectors_close(v);
        v = open_vectors(path, 0, NULL);
        for (size_t i = 0; i < N; i++) {
            assert_ok(peri_vectors_get(v, keys[i], row, NULL));
            assert_true(fabsf(row[i] - (float)i - 1) < 1e-4f && row[N + 1] == 0);
        }
        peri_query q = query_of(1);
        peri_hit hit;
        size_t n;
        assert_ok(peri_vectors_search(v, rows + 7 * WIDE, &q, &hit, &n));
        assert_int_equal(hit.id, 7);
        assert_vectors_valid(v);
        peri_vectors_close(v);
    }
    unlink(path);
    free(rows);
}

/* ---- growth and views ---- */

static void rows_do_not_move_while_the_file_grows(void **state)
{
    (void)state;
    enum { N = 40000, WIDE = 96 };
    peri_vectors_config config;
    peri_vectors_config_init(&config);
    for (int small = 0; small < 2; small++) {
        const char *path = scratch("grow.vectors");
        float *rows = new_rows(9, 1000, WIDE);
        peri_slice *keys = number_keys("key-", 0, N);
        peri_space space = space_of(WIDE, PERI_METRIC_IP, 0);
        peri_vectors *v;
        peri_vectors_view view;
        unlink(path);
        config.address_space = small ? 1 : 0; /* then it is mapped again as it grows */
        assert_ok(peri_vectors_create(&v, path, &space, &config, NULL));
        assert_ok(peri_vectors_insert_batch(v, 1000, keys, rows, 0, NULL));
        assert_ok(peri_vectors_view_rows(v, 0, 1000, &view));
        for (size_t i = 1000; i < N; i += 1000) {
            assert_ok(peri_vectors_insert_batch(v, 1000, keys + i, rows, 0, NULL));
            if (i % 7000 == 0)
                assert_ok(peri_vectors_checkpoint(v));
        }
        assert_memory_equal(view.data, rows, 1000 * WIDE * sizeof(float));
        for (size_t i = 0; i < N; i += 997)
            assert_row(v, keys[i], rows + i % 1000 * WIDE, WIDE, 0);
        assert_vectors_valid(v);
        assert_ok(peri_vectors_checkpoint(v));
        assert_int_equal(vectors_info(v).views, small ? 0 : 1);
        peri_vectors_close(v);
        assert_memory_equal(view.data, rows, 1000 * WIDE * sizeof(float)); /* outlives it */
        peri_vectors_release(&view);
        peri_vectors_release(&view);
        v = open_vectors(path, PERI_OPEN_READONLY, NULL);
        for (size_t i = 0; i < N; i += 997)
            assert_row(v, keys[i], rows + i % 1000 * WIDE, WIDE, 0);
        peri_vectors_close(v);
        unlink(path);
        free_keys(keys);
        free(rows);
    }
}

static void a_view_keeps_what_was_updated_deleted_and_compacted(void **state)
{
    (void)state;
    const char *path = scratch("view.vectors");
    float *rows = new_rows(3, 100, DIM);
    peri_slice *keys = number_keys("k", 0, 100);
    peri_vectors *v = make_vectors(path, DIM, PERI_METRIC_COSINE, 0, NULL);
    peri_vectors_view one, two, none;
    assert_ok(peri_vectors_insert_batch(v, 100, keys, rows, 0, NULL));
    assert_ok(peri_vectors_view_key(v, keys[5], &one));
    assert_ok(peri_vectors_view_key(v, keys[6], &two));
    assert_ok(peri_vectors_update(v, keys[5], rows, NULL));
    assert_ok(peri_vectors_delete(v, keys[6]));
    assert_status(PERI_ERR_NOT_FOUND, peri_vectors_view_key(v, keys[6], &none));
    assert_ok(peri_vectors_compact(v, NULL));
    const float *x = one.data;
    for (int i = 0; i < DIM; i++)
        assert_true(fabsf(x[i] * one.norm - rows[5 * DIM + i]) < 1e-4f);
    assert_row(v, keys[5], rows, DIM, 1e-5f);
    peri_vectors_release(&one);
    peri_vectors_release(&two);
    peri_vectors_release(NULL);
    peri_vectors_close(v);
    free_keys(keys);
    free(rows);
}

/* ---- search ---- */

/* All distances in double precision, sorted: the oracle. */
typedef struct near {
    uint64_t id;
    double d;
} near;

static int compare_near(const void *a, const void *b)
{
    const near *x = a, *y = b;
    return x->d != y->d ? x->d < y->d ? -1 : 1 : x->id < y->id ? -1 : x->id > y->id;
}

static double distance(const float *a, const float *b, uint32_t dim, int metric)
{
    double dot = 0, aa = 0, bb = 0, l2 = 0;
    for (uint32_t i = 0; i < dim; i++) {
        dot += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
        l2 += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    }
    return metric == PERI_METRIC_L2   ? sqrt(l2)
           : metric == PERI_METRIC_IP ? -dot
                                      : 1 - dot / sqrt(aa * bb);
}

static void assert_exact(const peri_vectors *v, const peri_slice *keys, const float *rows, size_t n,
                         const float *query, const peri_query *q)
{
    int metric = vectors_info(v).space.metric;
    near *all = malloc(n * sizeof *all);
    peri_hit *hits = malloc(q->k * sizeof *hits);
    size_t live = 0, found;
    float row[DIM];
    for (size_t i = 0; i < n; i++) {
        uint64_t id;
        if (peri_vectors_get(v, keys[i], row, &id) != PERI_OK)
            continue;
        if (q->allow && !peri_idset_contains(q->allow, id))
            continue;
        double d = distance(query, rows + i * DIM, DIM, metric);
        if (!q->has_max_distance || d <= (double)q->max_distance)
            all[live++] = (near){id, d};
    }
    qsort(all, live, sizeof *all, compare_near);
    assert_ok(peri_vectors_search(v, query, q, hits, &found));
    assert_int_equal(found, live < q->k ? live : q->k);
    for (size_t i = 0; i < found; i++) {
        if (fabs(all[i].d - (double)hits[i].distance) > 1e-3 * (1 + fabs(all[i].d)))
            fail_msg("hit %zu is %g, expected %g", i, (double)hits[i].distance, all[i].d);
        assert_true(i == 0 || hits[i - 1].distance < hits[i].distance ||
                    (hits[i - 1].distance == hits[i].distance && hits[i - 1].id < hits[i].id));
    }
    free(all);
    free(hits);
}

static void search_is_exact_with_and_without_an_index(void **state)
{
    (void)state;
    for (uint16_t metric = PERI_METRIC_L2; metric <= PERI_METRIC_COSINE; metric++)
        for (int kind = -1; kind < KINDS; kind++) {
            const char *path = scratch("search.vectors");
            float *rows = new_rows(11, ROWS, DIM);
            peri_slice *keys = number_keys("k", 0, ROWS);
            peri_vectors *v = make_vectors(path, DIM, metric, 0, NULL);
            peri_query q = query_of(10);
            q.effort = ROWS; /* so that hnsw is exact too */
            assert_ok(peri_vectors_insert_batch(v, 2000, keys, rows, 0, NULL));
            for (size_t i = 0; i < 2000; i += 5)
                assert_ok(peri_vectors_delete(v, keys[i]));
            if (kind >= 0)
                assert_ok(peri_vectors_build_index(v, make_index(kind, DIM, metric, 0, NULL, NULL),
                                                   NULL));
            for (int step = 0; step < 5; step++) {
                for (size_t i = 0; i < 8; i++)
                    assert_exact(v, keys, rows, ROWS, rows + (i * 331 + 7) * DIM, &q);
                assert_vectors_valid(v);
                if (step == 0) { /* rows that the index does not know, and some it knows too well */
                    assert_ok(
                        peri_vectors_insert_batch(v, 500, keys + 2000, rows + 2000 * DIM, 0, NULL));
                    for (size_t i = 1; i < 2000; i += 7)
                        peri_vectors_delete(v, keys[i]);
                } else if (step == 1) {
                    for (size_t i = 2; i < 300; i++)
                        assert_ok(peri_vectors_insert(v, keys[i], rows + i * DIM, 0, NULL));
                } else if (step == 2) {
                    assert_ok(peri_vectors_maintain(v, NULL));
                    assert_int_equal(vectors_info(v).indexed, kind < 0 ? 0 : vectors_info(v).slots);
                } else if (step == 3) {
                    if (kind < 0)
                        assert_ok(peri_vectors_checkpoint(v));
                    peri_vectors_close(v);
                    v = open_vectors(path, kind & 1 ? PERI_OPEN_READONLY : 0, NULL);
                    assert_int_equal(vectors_info(v).index_dropped, 0);
                    assert_int_equal(vectors_info(v).indexed, kind < 0 ? 0 : vectors_info(v).slots);
                }
            }
            peri_idset *set;
            assert_ok(peri_idset_create(&set, NULL));
            for (uint64_t id = 1500; id < 2300; id++)
                assert_ok(peri_idset_add(set, 1, &id));
            q.allow = set;
            assert_exact(v, keys, rows, ROWS, rows, &q);
            for (uint64_t id = 300; id < 1500; id++) /* many enough to go through the index */
                assert_ok(peri_idset_add(set, 1, &id));
            assert_exact(v, keys, rows, ROWS, rows, &q);
            peri_idset_close(set);
            q = query_of(ROWS * 2);
            assert_exact(v, keys, rows, ROWS, rows, &q);
            q.has_max_distance = 1;
            q.max_distance = metric == PERI_METRIC_L2 ? 4 : metric == PERI_METRIC_IP ? -10 : 0.5f;
            q.effort = ROWS;
            assert_exact(v, keys, rows, ROWS, rows + 3 * DIM, &q);
            peri_vectors_close(v);
            free_keys(keys);
            free(rows);
        }
}

static void search_many_answers_as_search_does(void **state)
{
    (void)state;
    float *rows = new_rows(4, ROWS, DIM);
    peri_slice *keys = number_keys("k", 0, ROWS);
    peri_vectors *v = make_vectors(scratch("many.vectors"), DIM, PERI_METRIC_L2, 0, NULL);
    peri_query q = query_of(5);
    peri_task task = threads_task(3);
    static peri_hit hits[50 * 5], one[5];
    size_t n[50], m;
    assert_ok(peri_vectors_insert_batch(v, ROWS, keys, rows, 0, NULL));
    assert_ok(peri_vectors_search_many(v, 50, rows, &q, &task, hits, n));
    for (size_t i = 0; i < 50; i++) {
        assert_ok(peri_vectors_search(v, rows + i * DIM, &q, one, &m));
        assert_int_equal(n[i], m);
        assert_memory_equal(hits + i * 5, one, m * sizeof *one);
    }
    assert_ok(peri_vectors_search_many(v, 0, NULL, &q, &task, NULL, NULL));
    peri_vectors_close(v);
    free_keys(keys);
    free(rows);
}

/* ---- compaction, index files ---- */

static void compaction_gives_space_back_and_renames_ids(void **state)
{
    (void)state;
    const char *path = scratch("compact.vectors");
    float *rows = new_rows(5, ROWS, 256), row[256];
    peri_slice *keys = number_keys("k", 0, ROWS);
    peri_vectors *v = make_vectors(path, 256, PERI_METRIC_IP, 0, NULL);
    uint64_t id;
    assert_ok(peri_vectors_insert_batch(v, ROWS, keys, rows, 0, NULL));
    assert_ok(peri_vectors_build_index(v, make_index(KIND_FLAT, 256, PERI_METRIC_IP, 0, NULL, NULL),
                                       NULL));
    for (size_t i = 0; i < ROWS; i += 2)
        assert_ok(peri_vectors_delete(v, keys[i]));
    uint64_t before = vectors_info(v).bytes_file;
    assert_ok(peri_vectors_compact(v, NULL));
    peri_vectors_info info = vectors_info(v);
    assert_true(info.bytes_file < before * 6 / 10);
    assert_int_equal(info.generation, 2);
    assert_int_equal(info.slots, ROWS / 2);
    assert_int_equal(info.indexed, 0);
    assert_ok(peri_vectors_get(v, keys[1], row, &id));
    assert_int_equal(id, ROWS);
    assert_status(PERI_ERR_NOT_FOUND, peri_vectors_get_id(v, 1, row));
    assert_memory_equal(row, rows + 256, sizeof row);
    assert_vectors_valid(v);
    assert_ok(peri_vectors_build_index(v, make_index(KIND_FLAT, 256, PERI_METRIC_IP, 0, NULL, NULL),
                                       NULL));
    peri_query q = query_of(1);
    peri_hit hit;
    size_t n;
    for (int reopen = 0; reopen < 2; reopen++) {
        float big[256];
        for (int i = 0; i < 256; i++)
            big[i] = rows[7 * 256 + i] * 1000;
        assert_ok(peri_vectors_search(v, big, &q, &hit, &n));
        assert_true(n == 1 && hit.id >= ROWS);
        peri_vectors_close(v);
        v = open_vectors(path, 0, NULL);
        assert_int_equal(vectors_info(v).indexed, ROWS / 2);
    }
    peri_vectors_close(v);
    free_keys(keys);
    free(rows);
}

static void an_index_of_another_history_is_left_out(void **state)
{
    (void)state;
    const char *path = scratch("history.vectors"), *index = scratch("history.vectors.index");
    float *rows = new_rows(6, 400, DIM);
    peri_slice *keys = number_keys("k", 0, 400);
    peri_vectors *v = make_vectors(path, DIM, PERI_METRIC_L2, 0, NULL);
    assert_ok(peri_vectors_insert_batch(v, 100, keys, rows, 0, NULL));
    assert_ok(peri_vectors_checkpoint(v));
    blob old = blob_load(path);
    assert_ok(peri_vectors_insert_batch(v, 100, keys + 100, rows + 100 * DIM, 0, NULL));
    assert_ok(peri_vectors_build_index(v, make_index(KIND_FLAT, DIM, PERI_METRIC_L2, 0, NULL, NULL),
                                       NULL));
    peri_vectors_close(v);
    blob_save(path, old.data, old.size); /* the file of yesterday under the index of today */
    v = open_vectors(path, 0, NULL);
    assert_int_equal(vectors_info(v).index_dropped, 1);
    assert_int_equal(vectors_info(v).indexed, 0);
    assert_ok(peri_vectors_insert_batch(v, 200, keys + 200, rows + 200 * DIM, 0, NULL));
    assert_ok(peri_vectors_checkpoint(v)); /* as many checkpoints as the index knows, but others */
    peri_vectors_close(v);
    v = open_vectors(path, 0, NULL);
    assert_int_equal(vectors_info(v).index_dropped, 1);
    peri_index *alone;
    assert_status(PERI_ERR_STATE, peri_index_open(&alone, index, 0, NULL, NULL));
    assert_ok(peri_vectors_drop_index(v));
    assert_int_equal(access(index, F_OK), -1);
    peri_vectors_close(v);
    free(old.data);
    free_keys(keys);
    free(rows);
}

/* ---- processes ---- */

static void a_second_writer_is_told_who_the_first_is(void **state)
{
    (void)state;
    const char *path = scratch("lock.vectors");
    peri_vectors *v = make_vectors(path, 2, PERI_METRIC_L2, 0, NULL), *w;
    char text[64];
    snprintf(text, sizeof text, "process %ld", (long)getpid());
    assert_status(PERI_ERR_BUSY, peri_vectors_open(&w, path, 0, NULL, NULL));
    assert_detail(text);
    assert_null(w);
    assert_ok(peri_vectors_open(&w, path, PERI_OPEN_READONLY, NULL, NULL));
    peri_vectors_close(v);
    assert_ok(peri_vectors_open(&v, path, 0, NULL, NULL)); /* the reader does not mind */
    peri_vectors_close(v);
    peri_vectors_close(w);
}

static void a_reader_sees_checkpoints_when_it_asks(void **state)
{
    (void)state;
    const char *path = scratch("refresh.vectors");
    float *rows = new_rows(2, 600, DIM), row[DIM];
    peri_slice *keys = number_keys("k", 0, 600);
    peri_vectors *v = make_vectors(path, DIM, PERI_METRIC_COSINE, 0, NULL);
    peri_vectors *r = open_vectors(path, PERI_OPEN_READONLY, NULL);
    int changed;
    assert_ok(peri_vectors_refresh(r, &changed));
    assert_int_equal(changed, 0);
    for (size_t i = 0; i < 600; i += 100) {
        assert_ok(peri_vectors_insert_batch(v, 100, keys + i, rows + i * DIM, 0, NULL));
        if (i)
            assert_ok(peri_vectors_delete(v, keys[i - 50]));
        assert_ok(peri_vectors_refresh(r, &changed));
        assert_int_equal(changed, 0);
        assert_ok(peri_vectors_checkpoint(v));
        if (i == 300)
            assert_ok(peri_vectors_compact(v, NULL));
        if (i == 400)
            assert_ok(peri_vectors_build_index(
                v, make_index(KIND_HNSW, DIM, PERI_METRIC_COSINE, 0, NULL, NULL), NULL));
        assert_status(PERI_ERR_NOT_FOUND, peri_vectors_get(r, keys[i], row, NULL));
        assert_ok(peri_vectors_refresh(r, &changed));
        assert_int_equal(changed, 1);
        assert_int_equal(vectors_info(r).rows, vectors_info(v).rows);
        assert_int_equal(vectors_info(r).indexed, i >= 400 ? vectors_info(v).indexed : 0);
        for (size_t j = 0; j < i + 100; j++)
            if (i && j % 100 == 50 && j < i)
                assert_status(PERI_ERR_NOT_FOUND, peri_vectors_get(r, keys[j], row, NULL));
            else
                assert_row(r, keys[j], rows + j * DIM, DIM, 1e-5f);
        assert_vectors_valid(r);
    }
    assert_status(PERI_ERR_STATE, peri_vectors_refresh(v, &changed));
    assert_status(PERI_ERR_STATE, peri_vectors_insert(r, keys[0], rows, 0, NULL));
    assert_status(PERI_ERR_STATE, peri_vectors_checkpoint(r));
    assert_status(PERI_ERR_STATE, peri_vectors_compact(r, NULL));
    assert_status(PERI_ERR_STATE, peri_vectors_maintain(r, NULL));
    peri_vectors_close(r);
    peri_vectors_close(v);
    free_keys(keys);
    free(rows);
}

/* ---- bad input ---- */

static void bad_arguments_are_refused(void **state)
{
    (void)state;
    const char *path = scratch("bad.vectors");
    peri_vectors *v = NULL, *w;
    peri_space space = space_of(4, PERI_METRIC_COSINE, 0), odd = space;
    peri_vectors_config config;
    float row[4] = {1, 2, 3, 4};
    peri_slice key = key_of_text("k");
    peri_query q = query_of(3);
    peri_hit hits[3];
    size_t n;
    uint64_t n64, faults;
    peri_vectors_config_init(&config);
    assert_status(PERI_ERR_ARG, peri_vectors_create(NULL, path, &space, NULL, NULL));
    assert_status(PERI_ERR_ARG, peri_vectors_create(&v, NULL, &space, NULL, NULL));
    assert_status(PERI_ERR_ARG, peri_vectors_create(&v, "", &space, NULL, NULL));
    assert_status(PERI_ERR_ARG, peri_vectors_create(&v, path, NULL, NULL, NULL));
    odd.dim = 0;
    assert_status(PERI_ERR_DIMENSION, peri_vectors_create(&v, path, &odd, NULL, NULL));
    odd.dim = 65536;
    assert_status(PERI_ERR_DIMENSION, peri_vectors_create(&v, path, &odd, NULL, NULL));
    odd = space;
    odd.metric = 4;
    assert_status(PERI_ERR_CONFIG, peri_vectors_create(&v, path, &odd, NULL, NULL));
    config.expect_rows = UINT64_MAX;
    assert_status(PERI_ERR_CONFIG, peri_vectors_create(&v, path, &space, &config, NULL));
    config.struct_size = 3;
    assert_status(PERI_ERR_ARG, peri_vectors_create(&v, path, &space, &config, NULL));
    assert_status(PERI_ERR_NOT_FOUND,
                  peri_vectors_create(&v, scratch("no/such/dir"), &space, NULL, NULL));
    assert_int_equal(access(path, F_OK), -1);
    v = make_vectors(path, 4, PERI_METRIC_COSINE, 0, NULL);
    assert_status(PERI_ERR_BUSY, peri_vectors_create(&w, path, &space, NULL, NULL));
    peri_vectors_close(v);
    assert_status(PERI_ERR_EXISTS, peri_vectors_create(&w, path, &space, NULL, NULL));
    v = open_vectors(path, 0, NULL);

    static char long_key[PERI_MAX_KEY_SIZE + 1];
    peri_slice bad_keys[] = {{NULL, 3}, {"", 0}, {long_key, sizeof long_key}};
    for (int i = 0; i < 3; i++) {
        assert_status(PERI_ERR_ARG, peri_vectors_insert(v, bad_keys[i], row, 0, NULL));
        assert_status(PERI_ERR_ARG, peri_vectors_get(v, bad_keys[i], row, NULL));
        assert_status(PERI_ERR_ARG, peri_vectors_delete(v, bad_keys[i]));
    }
    assert_ok(peri_vectors_insert(v, (peri_slice){long_key, PERI_MAX_KEY_SIZE}, row, 0, NULL));
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        float x[8] = {1, 2, 3, 4, 1, 2, bad[i], 4};
        peri_slice two[2] = {key, key_of_text("l")};
        assert_status(PERI_ERR_NONFINITE, peri_vectors_insert(v, key, x + 4, 0, NULL));
        assert_status(PERI_ERR_NONFINITE, peri_vectors_insert_batch(v, 2, two, x, 0, NULL));
        assert_detail("row 1");
        assert_status(PERI_ERR_NONFINITE, peri_vectors_search(v, x + 4, &q, hits, &n));
    }
    float zero[4] = {0}, huge[4] = {FLT_MAX, FLT_MAX, 0, 0};
    assert_status(PERI_ERR_NONFINITE, peri_vectors_insert(v, key, zero, 0, NULL));
    assert_status(PERI_ERR_NONFINITE, peri_vectors_insert(v, key, huge, 0, NULL));
    assert_status(PERI_ERR_ARG, peri_vectors_insert(v, key, NULL, 0, NULL));
    assert_status(PERI_ERR_ARG, peri_vectors_insert(v, key, row, 2, NULL));
    assert_status(PERI_ERR_ARG, peri_vectors_insert_batch(v, SIZE_MAX / 8, &key, row, 0, NULL));
    assert_status(PERI_ERR_ARG, peri_vectors_insert_batch(v, 1, NULL, row, 0, NULL));
    assert_ok(peri_vectors_insert_batch(v, 0, NULL, NULL, 0, NULL));
    assert_status(PERI_ERR_ARG, peri_vectors_insert(NULL, key, row, 0, NULL));
    q.k = 0;
    assert_status(PERI_ERR_ARG, peri_vectors_search(v, row, &q, hits, &n));
    q.k = UINT32_MAX; /* no allocation of that size */
    assert_ok(peri_vectors_search(v, row, &q, hits, &n));
    assert_int_equal(n, 1);
    assert_status(PERI_ERR_ARG, peri_vectors_search(v, NULL, &q, hits, &n));
    assert_status(PERI_ERR_ARG, peri_vectors_search(v, row, NULL, hits, &n));
    assert_status(PERI_ERR_ARG, peri_vectors_build_index(v, NULL, NULL));
    assert_status(PERI_ERR_DIMENSION,
                  peri_vectors_build_index(
                      v, make_index(KIND_FLAT, 5, PERI_METRIC_COSINE, 0, NULL, NULL), NULL));
    assert_status(
        PERI_ERR_CONFIG,
        peri_vectors_build_index(v, make_index(KIND_FLAT, 4, PERI_METRIC_L2, 0, NULL, NULL), NULL));
    peri_index *full = make_index(KIND_FLAT, 4, PERI_METRIC_COSINE, 0, NULL, NULL);
    assert_ok(peri_index_put(full, 0, row, 0));
    assert_status(PERI_ERR_ARG, peri_vectors_build_index(v, full, NULL));
    peri_vectors_info info = {.struct_size = 8};
    assert_status(PERI_ERR_ARG, peri_vectors_get_info(v, &info));
    assert_status(PERI_ERR_ARG, peri_vectors_len(NULL, &n64));
    assert_status(PERI_ERR_ARG, peri_vectors_check(NULL, NULL, &faults));
    peri_vectors_view view;
    assert_status(PERI_ERR_NOT_FOUND, peri_vectors_view_rows(v, 0, 2, &view));
    assert_status(PERI_ERR_NOT_FOUND, peri_vectors_view_rows(v, 0, 0, &view));
    assert_status(PERI_ERR_NOT_FOUND, peri_vectors_view_rows(v, 1, UINT64_MAX, &view));
    assert_status(PERI_ERR_NOT_FOUND, peri_vectors_get_id(v, UINT64_MAX, row));
    assert_vectors_valid(v);
    peri_vectors_close(v);
    peri_vectors_close(NULL);
}

static void an_empty_file_answers(void **state)
{
    (void)state;
    const char *path = scratch("empty.vectors");
    peri_vectors *v = make_vectors(path, 4, PERI_METRIC_L2, 0, NULL);
    float row[4] = {1, 2, 3, 4};
    peri_query q = query_of(3);
    peri_hit hits[3];
    for (int reopen = 0; reopen < 2; reopen++) {
        size_t n = 9;
        assert_ok(peri_vectors_search(v, row, &q, hits, &n));
        assert_int_equal(n, 0);
        assert_ok(peri_vectors_checkpoint(v));
        assert_ok(peri_vectors_maintain(v, NULL));
        assert_ok(peri_vectors_build_index(v, make_index(KIND_HNSW, 4, 0, 0, NULL, NULL), NULL));
        assert_ok(peri_vectors_compact(v, NULL));
        assert_vectors_valid(v);
        peri_vectors_close(v);
        v = open_vectors(path, 0, NULL);
    }
    /* Everything deleted. */
    assert_ok(peri_vectors_insert(v, key_of_text("a"), row, 0, NULL));
    assert_ok(peri_vectors_checkpoint(v));
    assert_ok(peri_vectors_build_index(v, make_index(KIND_HNSW, 4, 0, 0, NULL, NULL), NULL));
    assert_ok(peri_vectors_delete(v, key_of_text("a")));
    size_t n = 9;
    assert_ok(peri_vectors_search(v, row, &q, hits, &n));
    assert_int_equal(n, 0);
    assert_ok(peri_vectors_maintain(v, NULL));
    assert_ok(peri_vectors_compact(v, NULL));
    assert_vectors_valid(v);
    peri_vectors_close(v);
    v = open_vectors(path, PERI_OPEN_READONLY, NULL);
    assert_ok(peri_vectors_search(v, row, &q, hits, &n));
    assert_int_equal(n, 0);
    peri_vectors_close(v);
}

static void what_is_no_vector_file_is_refused(void **state)
{
    (void)state;
    const char *path = scratch("strange");
    peri_vectors *v;
    char zeros[70000] = {0};
    assert_status(PERI_ERR_NOT_FOUND, peri_vectors_open(&v, scratch("nothing"), 0, NULL, NULL));
    assert_int_equal(access(scratch("nothing.lock"), F_OK), -1);
    static const size_t sizes[] = {0, 1, 255, 8191, 8192, 70000};
    for (size_t i = 0; i < 6; i++) {
        blob_save(path, zeros, sizes[i]);
        assert_status(PERI_ERR_FORMAT, peri_vectors_open(&v, path, 0, NULL, NULL));
        assert_status(PERI_ERR_FORMAT, peri_vectors_open(&v, path, PERI_OPEN_READONLY, NULL, NULL));
    }
    assert_true(peri_vectors_open(&v, scratch_dir, 0, NULL, NULL) != PERI_OK);
    assert_status(PERI_ERR_FORMAT,
                  peri_vectors_open(&v, "/dev/zero", PERI_OPEN_READONLY, NULL, NULL));
    peri_index *ix = make_index(KIND_FLAT, 4, PERI_METRIC_L2, 0, NULL, NULL);
    float row[4] = {1, 2, 3, 4};
    assert_ok(peri_index_put(ix, 0, row, 0));
    assert_ok(peri_index_save(ix, path, NULL));
    peri_index_close(ix);
    assert_status(PERI_ERR_FORMAT, peri_vectors_open(&v, path, 0, NULL, NULL));
    /* And an index with rows of its own is not taken for the index beside a file. */
    v = make_vectors(scratch("own.vectors"), 4, PERI_METRIC_L2, 0, NULL);
    peri_vectors_close(v);
    assert_int_equal(rename(path, scratch("own.vectors.index")), 0);
    v = open_vectors(scratch("own.vectors"), 0, NULL);
    assert_int_equal(vectors_info(v).index_dropped, 1);
    peri_vectors_close(v);
}

static int cancel(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    (void)ctx;
    (void)phase;
    return done < total ? 0 : 1;
}

static void a_cancelled_compaction_or_build_changes_nothing(void **state)
{
    (void)state;
    const char *path = scratch("cancel.vectors");
    float *rows = new_rows(5, 500, DIM);
    peri_slice *keys = number_keys("k", 0, 500);
    peri_vectors *v = make_vectors(path, DIM, PERI_METRIC_L2, 0, NULL);
    peri_task task = threads_task(1);
    task.progress = cancel;
    assert_ok(peri_vectors_insert_batch(v, 500, keys, rows, 0, NULL));
    assert_status(PERI_ERR_CANCELLED, peri_vectors_compact(v, &task));
    assert_status(PERI_ERR_CANCELLED,
                  peri_vectors_build_index(
                      v, make_index(KIND_HNSW, DIM, PERI_METRIC_L2, 0, NULL, NULL), &task));
    assert_int_equal(vectors_info(v).generation, 1);
    assert_int_equal(vectors_info(v).indexed, 0);
    assert_vectors_valid(v);
    peri_vectors_close(v);
    free_keys(keys);
    free(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_come_back_after_reopening),
        cmocka_unit_test(what_was_not_checkpointed_is_gone_whole),
        cmocka_unit_test(update_delete_and_batches_with_twins),
        cmocka_unit_test(keys_are_walked_in_the_order_of_ids),
        cmocka_unit_test(the_widest_rows_and_longest_keys_fit),
        cmocka_unit_test(rows_do_not_move_while_the_file_grows),
        cmocka_unit_test(a_view_keeps_what_was_updated_deleted_and_compacted),
        cmocka_unit_test(search_is_exact_with_and_without_an_index),
        cmocka_unit_test(search_many_answers_as_search_does),
        cmocka_unit_test(compaction_gives_space_back_and_renames_ids),
        cmocka_unit_test(an_index_of_another_history_is_left_out),
        cmocka_unit_test(a_second_writer_is_told_who_the_first_is),
        cmocka_unit_test(a_reader_sees_checkpoints_when_it_asks),
        cmocka_unit_test(bad_arguments_are_refused),
        cmocka_unit_test(an_empty_file_answers),
        cmocka_unit_test(what_is_no_vector_file_is_refused),
        cmocka_unit_test(a_cancelled_compaction_or_build_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
