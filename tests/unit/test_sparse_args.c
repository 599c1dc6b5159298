/* peri_sparse at its border: every argument that the header rules out is refused with a detail that
 * names it, and nothing is stored; the odd ones that it allows work. */
#include "property/sparse_model.h"
#include "scratch.h"

#include <float.h>

static peri_sparse *make(uint32_t weights)
{
    peri_sparse *sx;
    peri_sparse_config c;
    peri_sparse_config_init(&c);
    c.weights = weights;
    assert_ok(peri_sparse_create(&sx, &c, NULL));
    return sx;
}

static uint64_t rows_of(const peri_sparse *sx)
{
    peri_sparse_info info;
    peri_sparse_info_init(&info);
    assert_ok(peri_sparse_get_info(sx, &info));
    assert_sparse_valid(sx);
    return info.rows;
}

static float from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static void configs_out_of_range_are_named(void **state)
{
    (void)state;
    peri_sparse *sx = (void *)1;
    peri_sparse_config c;
    assert_status(PERI_ERR_ARG, peri_sparse_create(NULL, NULL, NULL));
    peri_sparse_config_init(&c);
    c.struct_size = 3;
    assert_status(PERI_ERR_ARG, peri_sparse_create(&sx, &c, NULL));
    assert_null(sx);
    assert_detail("struct_size");
    for (uint32_t weights = 3; weights < 8; weights += weights == 3 ? 2 : 1) {
        peri_sparse_config_init(&c);
        c.weights = weights;
        assert_status(PERI_ERR_CONFIG, peri_sparse_create(&sx, &c, NULL));
        assert_detail("weights");
    }
    static const float keeps[] = {0.09f, 1.01f, -1, NAN, INFINITY};
    for (size_t i = 0; i < 5; i++) {
        peri_sparse_config_init(&c);
        c.keep = keeps[i];
        assert_status(PERI_ERR_CONFIG, peri_sparse_create(&sx, &c, NULL));
        assert_detail("keep");
    }
    peri_sparse_config_init(&c);
    c.flags = 2;
    assert_status(PERI_ERR_CONFIG, peri_sparse_create(&sx, &c, NULL));
    assert_detail("0x2");
}

static void rows_that_make_no_sense_are_refused_and_nothing_is_stored(void **state)
{
    (void)state;
    peri_sparse *sx = make(0);
    uint32_t terms[] = {5, 9, 5};
    float weights[] = {1, 2, 3};
    peri_sparse_row row = {3, terms, weights};
    assert_status(PERI_ERR_ARG, peri_sparse_put(sx, 1, &row, 0));
    assert_detail("term 5 stands twice");
    assert_status(PERI_ERR_ARG, peri_sparse_put(sx, 1, NULL, 0));
    assert_status(PERI_ERR_ARG, peri_sparse_put(NULL, 1, &row, 0));
    row.n = 2;
    assert_status(PERI_ERR_ARG, peri_sparse_put(sx, 1, &row, 2));
    assert_detail("flags 0x2");
    row.terms = NULL;
    assert_status(PERI_ERR_ARG, peri_sparse_put(sx, 1, &row, 0));
    assert_detail("terms");
    row = (peri_sparse_row){2, terms, NULL};
    assert_status(PERI_ERR_ARG, peri_sparse_put(sx, 1, &row, 0));
    assert_detail("weights");
    row = (peri_sparse_row){PERI_SPARSE_MAX_ENTRIES + 1, terms, weights};
    assert_status(PERI_ERR_ARG, peri_sparse_put(sx, 1, &row, 0));
    assert_detail("65536");
    row = (peri_sparse_row){SIZE_MAX, terms, weights};
    assert_status(PERI_ERR_ARG, peri_sparse_put(sx, 1, &row, 0));
    static const uint32_t bad[] = {0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001,
                                   0xffc12345, 0x7f7fffff, 0x53800001};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        weights[1] = from_bits(bad[i]);
        row = (peri_sparse_row){2, terms, weights};
        assert_status(PERI_ERR_NONFINITE, peri_sparse_put(sx, 1, &row, 0));
        assert_detail("term 9");
    }
    assert_int_equal(rows_of(sx), 0);
    peri_sparse_close(sx);
    sx = make(PERI_SCALAR_F16);
    weights[1] = 65505;
    assert_status(PERI_ERR_NONFINITE, peri_sparse_put(sx, 1, &row, 0));
    weights[1] = 65504;
    assert_ok(peri_sparse_put(sx, 1, &row, 0));
    assert_int_equal(rows_of(sx), 1);
    peri_sparse_close(sx);
}

static void bulks_are_checked_whole_before_the_first_row(void **state)
{
    (void)state;
    peri_sparse *sx = make(0);
    uint64_t offsets[] = {0, 2, 4}, ids[] = {7, 8}, twice[] = {7, 7};
    uint32_t terms[] = {1, 2, 3, 3};
    float weights[] = {1, 1, 1, 1};
    size_t done = 9;
    peri_sparse_rows rows = {2, offsets, terms, weights};
    assert_status(PERI_ERR_ARG, peri_sparse_put_many(sx, ids, &rows, 0, NULL, &done));
    assert_int_equal(done, 0);
    assert_detail("row 1");
    terms[3] = 4;
    assert_status(PERI_ERR_EXISTS,
                  peri_sparse_put_many(sx, twice, &rows, PERI_PUT_NEW, NULL, &done));
    assert_int_equal(rows_of(sx), 0);
    offsets[1] = 5;
    assert_status(PERI_ERR_ARG, peri_sparse_put_many(sx, ids, &rows, 0, NULL, &done));
    assert_detail("offsets[1]");
    offsets[1] = 2, offsets[2] = UINT64_MAX;
    assert_status(PERI_ERR_ARG, peri_sparse_put_many(sx, ids, &rows, 0, NULL, &done));
    offsets[2] = 4;
    assert_status(PERI_ERR_ARG, peri_sparse_put_many(sx, ids, NULL, 0, NULL, &done));
    assert_ok(peri_sparse_put_many(sx, twice, &rows, 0, NULL, &done));
    assert_int_equal(done, 2);
    assert_int_equal(rows_of(sx), 1);
    size_t n;
    uint32_t t[2];
    float w[2];
    assert_ok(peri_sparse_get(sx, 7, t, w, 2, &n)); /* the later one of the two */
    assert_true(n == 2 && t[0] == 3 && t[1] == 4);
    assert_status(PERI_ERR_EXISTS, peri_sparse_put_many(sx, ids, &rows, PERI_PUT_NEW, NULL, &done));
    assert_ok(peri_sparse_put_many(sx, NULL, &rows, 0, NULL, &done)); /* numbered: 8, 9 */
    assert_ok(peri_sparse_get(sx, 9, t, w, 0, &n));
    rows.n = 0;
    assert_ok(peri_sparse_put_many(sx, NULL, &rows, 0, NULL, &done));
    assert_int_equal(rows_of(sx), 3);
    peri_sparse_close(sx);
}

static void queries_out_of_range_are_named(void **state)
{
    (void)state;
    peri_sparse *sx = make(0);
    uint32_t terms[] = {1, 2};
    float weights[] = {1, 1};
    peri_sparse_row row = {2, terms, weights};
    peri_hit hits[4];
    size_t n;
    assert_ok(peri_sparse_put(sx, 0, &row, 0));
    peri_query q = query_of(0);
    assert_status(PERI_ERR_ARG, peri_sparse_search(sx, &row, &q, hits, &n));
    assert_detail("k is 0");
    q = query_of(4);
    q.struct_size = 8;
    assert_status(PERI_ERR_ARG, peri_sparse_search(sx, &row, &q, hits, &n));
    q = query_of(4);
    q.target_recall = 0.9f;
    assert_status(PERI_ERR_UNSUPPORTED, peri_sparse_search(sx, &row, &q, hits, &n));
    q = query_of(4);
    q.has_max_distance = 1;
    q.max_distance = NAN;
    assert_status(PERI_ERR_CONFIG, peri_sparse_search(sx, &row, &q, hits, &n));
    q = query_of(4);
    assert_status(PERI_ERR_ARG, peri_sparse_search(sx, NULL, &q, hits, &n));
    assert_status(PERI_ERR_ARG, peri_sparse_search(sx, &row, NULL, hits, &n));
    assert_status(PERI_ERR_ARG, peri_sparse_search(sx, &row, &q, NULL, &n));
    assert_status(PERI_ERR_ARG, peri_sparse_search(sx, &row, &q, hits, NULL));
    weights[1] = NAN;
    assert_status(PERI_ERR_NONFINITE, peri_sparse_search(sx, &row, &q, hits, &n));
    assert_detail("query 0");
    weights[1] = 1;
    terms[1] = 1;
    assert_status(PERI_ERR_ARG, peri_sparse_search(sx, &row, &q, hits, &n));
    peri_sparse_close(sx);
    peri_sparse_config c;
    peri_sparse_config_init(&c);
    c.flags = PERI_SPARSE_NO_APPROXIMATE;
    assert_ok(peri_sparse_create(&sx, &c, NULL));
    terms[1] = 2;
    q.effort = 3;
    assert_status(PERI_ERR_UNSUPPORTED, peri_sparse_search(sx, &row, &q, hits, &n));
    assert_detail("effort 3");
    peri_sparse_close(sx);
}

static void odd_rows_and_ids_are_kept_and_found(void **state)
{
    (void)state;
    peri_sparse *sx = make(0);
    uint32_t terms[] = {UINT32_MAX, 0};
    float weights[] = {0x1p40f, -0x1p-60f};
    peri_sparse_row row = {2, terms, weights}, empty = {0, NULL, NULL};
    peri_query q = query_of(1000000000);
    peri_hit hits[4];
    size_t n;
    assert_ok(peri_sparse_search(sx, &row, &q, hits, &n)); /* of an empty index */
    assert_int_equal(n, 0);
    assert_ok(peri_sparse_put(sx, UINT64_MAX, &row, 0));
    assert_ok(peri_sparse_put(sx, 0, &empty, 0));
    assert_ok(peri_sparse_search(sx, &row, &q, hits, &n));
    assert_int_equal(n, 1);
    assert_true(hits[0].id == UINT64_MAX && hits[0].distance == -0x1p80f);
    assert_ok(peri_sparse_search(sx, &empty, &q, hits, &n));
    assert_int_equal(n, 0);
    /* Too small to count: as if it were not there. -0 and denormals too. */
    float tiny[] = {from_bits(0x80000000), 0x1p-61f};
    peri_sparse_row none = {2, terms, tiny};
    assert_ok(peri_sparse_search(sx, &none, &q, hits, &n));
    assert_int_equal(n, 0);
    assert_ok(peri_sparse_put(sx, 5, &none, 0));
    assert_ok(peri_sparse_get(sx, 5, NULL, NULL, 0, &n));
    assert_int_equal(n, 0);
    /* A score of 0, or below it, is a hit where terms are shared, and its distance is not -0. */
    float plus[] = {1, 1}, minus[] = {1, -1};
    uint32_t two[] = {3, 4};
    peri_sparse_row a = {2, two, plus}, b = {2, two, minus};
    assert_ok(peri_sparse_put(sx, 6, &a, 0));
    assert_ok(peri_sparse_search(sx, &b, &q, hits, &n));
    assert_int_equal(n, 1);
    assert_int_equal(hits[0].id, 6);
    uint32_t bits;
    memcpy(&bits, &hits[0].distance, sizeof bits);
    assert_int_equal(bits, 0);
    assert_int_equal(rows_of(sx), 4);
    for (int i = 0; i < 3; i++)
        assert_ok(peri_sparse_remove(sx, (const uint64_t[]){UINT64_MAX, 0, 5}[i]));
    assert_ok(peri_sparse_remove(sx, 6));
    assert_status(PERI_ERR_NOT_FOUND, peri_sparse_remove(sx, 6));
    assert_ok(peri_sparse_search(sx, &a, &q, hits, &n)); /* of a fully deleted one */
    assert_int_equal(n, 0);
    assert_ok(peri_sparse_compact(sx, NULL));
    assert_int_equal(rows_of(sx), 0);
    peri_sparse_close(sx);
}

/* Thousands of equal rows tie at every score: the smallest ids win, whatever the windows. */
static void ties_go_to_the_smaller_ids(void **state)
{
    (void)state;
    enum { EQUAL = 20000 };
    peri_sparse *sx = make(0);
    uint64_t *offsets = malloc((EQUAL + 1) * sizeof *offsets), *ids = malloc(EQUAL * sizeof *ids);
    uint32_t *terms = malloc(EQUAL * sizeof *terms);
    float *weights = malloc(EQUAL * sizeof *weights);
    for (uint32_t i = 0; i < EQUAL; i++) {
        offsets[i] = i;
        ids[i] = EQUAL - i;
        terms[i] = 3;
        weights[i] = 0.7f;
    }
    offsets[EQUAL] = EQUAL;
    peri_sparse_rows rows = {EQUAL, offsets, terms, weights};
    peri_hit hits[10];
    size_t n;
    peri_query q = query_of(10);
    peri_sparse_row row = {1, terms, weights};
    assert_ok(peri_sparse_put_many(sx, ids, &rows, 0, NULL, NULL));
    assert_ok(peri_sparse_search(sx, &row, &q, hits, &n));
    assert_int_equal(n, 10);
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(hits[i].id, i + 1);
    peri_sparse_close(sx);
    free(offsets), free(ids), free(terms), free(weights);
}

static void keys_and_ids_do_not_mix(void **state)
{
    (void)state;
    peri_sparse *sx = make(0);
    uint32_t term = 1;
    float weight = 1;
    peri_sparse_row row = {1, &term, &weight};
    char big[65536];
    memset(big, 'k', sizeof big);
    const peri_slice keys[] = {{"a\0b", 3}, {big, 65535}, {big, 65536}, {"", 0}, {NULL, 3}};
    uint64_t id;
    assert_ok(peri_sparse_put_keyed(sx, keys[0], &row, 0, &id));
    assert_ok(peri_sparse_put_keyed(sx, keys[1], &row, PERI_PUT_NEW, &id));
    assert_status(PERI_ERR_EXISTS, peri_sparse_put_keyed(sx, keys[1], &row, PERI_PUT_NEW, &id));
    for (int i = 2; i < 5; i++) {
        assert_status(PERI_ERR_ARG, peri_sparse_put_keyed(sx, keys[i], &row, 0, &id));
        assert_status(PERI_ERR_ARG, peri_sparse_remove_keyed(sx, keys[i]));
        assert_status(PERI_ERR_ARG, peri_sparse_id_of(sx, keys[i], &id));
    }
    assert_status(PERI_ERR_STATE, peri_sparse_put(sx, 1, &row, 0));
    assert_status(PERI_ERR_STATE, peri_sparse_remove(sx, 1));
    assert_int_equal(rows_of(sx), 2);
    peri_sparse_close(sx);
    sx = make(0);
    assert_ok(peri_sparse_put(sx, 1, &row, 0));
    assert_status(PERI_ERR_STATE, peri_sparse_put_keyed(sx, keys[0], &row, 0, &id));
    assert_status(PERI_ERR_NOT_FOUND, peri_sparse_remove_keyed(sx, keys[0]));
    assert_status(PERI_ERR_NOT_FOUND, peri_sparse_id_of(sx, keys[0], &id));
    peri_sparse_close(sx);
}

static void files_that_are_none_are_refused_by_name(void **state)
{
    (void)state;
    peri_sparse *sx;
    peri_index *ix = make_index(KIND_FLAT, 4, PERI_METRIC_L2, 0, NULL, NULL);
    const char *path = scratch("other");
    float row[4] = {1, 2, 3, 4};
    assert_ok(peri_index_put(ix, 1, row, 0));
    assert_ok(peri_index_save(ix, path, NULL));
    peri_index_close(ix);
    assert_status(PERI_ERR_FORMAT, peri_sparse_open(&sx, path, 0, NULL, NULL));
    assert_null(sx);
    sx = make(0);
    assert_ok(peri_sparse_save(sx, path, NULL)); /* an empty one is legal */
    peri_sparse_close(sx);
    assert_status(PERI_ERR_FORMAT, peri_index_open(&ix, path, 0, NULL, NULL));
    assert_status(PERI_ERR_ARG, peri_sparse_open(&sx, path, 8, NULL, NULL));
    assert_status(PERI_ERR_NOT_FOUND, peri_sparse_open(&sx, scratch("none"), 0, NULL, NULL));
    assert_ok(peri_sparse_open(&sx, path, PERI_OPEN_READONLY | PERI_OPEN_MAP, NULL, NULL));
    peri_sparse_row empty = {0, NULL, NULL};
    assert_status(PERI_ERR_STATE, peri_sparse_put(sx, 1, &empty, 0));
    assert_status(PERI_ERR_STATE, peri_sparse_compact(sx, NULL));
    assert_int_equal(rows_of(sx), 0);
    peri_sparse_close(sx);
    peri_sparse_close(NULL);
}

typedef struct stopper {
    int calls, stop_at;
} stopper;

static int stop(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    stopper *s = ctx;
    assert_true(done <= total && phase[0]);
    return ++s->calls >= s->stop_at;
}

static void a_cancelled_call_leaves_a_whole_index(void **state)
{
    (void)state;
    enum { MANY = 40000 };
    uint64_t *offsets = malloc((MANY + 1) * sizeof *offsets);
    uint32_t *terms = malloc(MANY * sizeof *terms);
    float *weights = malloc(MANY * sizeof *weights);
    for (uint32_t i = 0; i <= MANY; i++)
        offsets[i] = i;
    for (uint32_t i = 0; i < MANY; i++) {
        terms[i] = i % 100;
        weights[i] = 1;
    }
    for (int at = 1; at < 5; at++) {
        peri_sparse *sx = make(0);
        peri_sparse_rows rows = {MANY, offsets, terms, weights};
        stopper s = {0, at};
        size_t done;
        peri_task task;
        peri_task_init(&task);
        task.progress = stop;
        task.progress_ctx = &s;
        peri_status status = peri_sparse_put_many(sx, NULL, &rows, 0, &task, &done);
        assert_true(status == PERI_ERR_CANCELLED || (status == PERI_OK && done == MANY));
        assert_int_equal(rows_of(sx), done);
        s.calls = 0;
        status = peri_sparse_compact(sx, &task);
        assert_true(status == PERI_ERR_CANCELLED || status == PERI_OK);
        assert_int_equal(rows_of(sx), done);
        peri_sparse_close(sx);
    }
    free(offsets), free(terms), free(weights);
}

/* The same rows in another order of puts, with other merges, one thread or two: the same answers,
 * and the same bytes from the same calls. */
static void builds_repeat_bit_for_bit(void **state)
{
    (void)state;
    enum { MANY = 40000 };
    blob files[2];
    for (int round = 0; round < 2; round++) {
        pe_rng r = {4};
        peri_sparse *sx = make(0);
        const char *path = scratch("again");
        uint64_t *offsets = calloc(MANY + 1, sizeof *offsets);
        uint32_t *terms = malloc(MANY * ROW_MAX * sizeof *terms);
        float *weights = malloc(MANY * ROW_MAX * sizeof *weights);
        for (size_t i = 0; i < MANY; i++) {
            sparse_doc d;
            random_doc(&r, 3000, 0, &d);
            memcpy(terms + offsets[i], d.terms, d.n * sizeof *terms);
            memcpy(weights + offsets[i], d.weights, d.n * sizeof *weights);
            offsets[i + 1] = offsets[i] + d.n;
        }
        peri_sparse_rows rows = {MANY, offsets, terms, weights};
        peri_task task = threads_task(round ? 2 : 1);
        assert_ok(peri_sparse_put_many(sx, NULL, &rows, 0, &task, NULL));
        assert_ok(peri_sparse_compact(sx, &task));
        assert_ok(peri_sparse_save(sx, path, NULL));
        files[round] = blob_load(path);
        peri_sparse_close(sx);
        free(offsets), free(terms), free(weights);
    }
    /* Behind the header, which holds a uuid, and but for the checksums at the end, seeded by it. */
    assert_int_equal(files[0].size, files[1].size);
    assert_memory_equal(files[0].data + 256, files[1].data + 256, files[0].size - 256 - 65536);
    free(files[0].data), free(files[1].data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configs_out_of_range_are_named),
        cmocka_unit_test(rows_that_make_no_sense_are_refused_and_nothing_is_stored),
        cmocka_unit_test(bulks_are_checked_whole_before_the_first_row),
        cmocka_unit_test(queries_out_of_range_are_named),
        cmocka_unit_test(odd_rows_and_ids_are_kept_and_found),
        cmocka_unit_test(ties_go_to_the_smaller_ids),
        cmocka_unit_test(keys_and_ids_do_not_mix),
        cmocka_unit_test(files_that_are_none_are_refused_by_name),
        cmocka_unit_test(a_cancelled_call_leaves_a_whole_index),
        cmocka_unit_test(builds_repeat_bit_for_bit),
    };
    return cmocka_run_group_tests_name("unit: sparse", tests, NULL, scratch_remove);
}
