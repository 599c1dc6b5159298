/* Batches that are large enough to train codes and to grow what is there by chunks, with every
 * allocation failing in turn: what is in is a prefix, all of it is found, nothing leaks, and the
 * same call goes through once there is memory. */
#include "faulty.h"
#include "indexes.h"
#include "scratch.h"

enum { DIM = 5, ROWS = 1150 };

typedef struct bench {
    faulty f;
    peri_index *ix;
    const float *rows;
} bench;

static void check_rows(const bench *b, size_t n)
{
    float got[DIM];
    assert_int_equal(info_of(b->ix).rows, n);
    assert_index_valid(b->ix);
    for (uint64_t id = 0; id < ROWS; id += 13)
        assert_status(id < n ? PERI_OK : PERI_ERR_NOT_FOUND, peri_index_get(b->ix, id, got));
}

static void quiet(faulty *f)
{
    f->what = FAULTY_NOTHING;
}

static void fail_at(faulty *f, uint64_t n, int sticky)
{
    f->what = FAULTY_ALLOC;
    f->n = n;
    f->sticky = sticky;
    f->calls = 0;
    f->fired = NULL;
}

static void end(bench *b)
{
    peri_index_close(b->ix);
    if (!faulty_clean(&b->f))
        print_error("left: %lld blocks of %lld bytes\n", (long long)b->f.blocks,
                    (long long)b->f.bytes);
    assert_true(faulty_clean(&b->f));
}

/* Step through all points of failure; returns how many there were. */
static uint64_t each_failure(int sticky, void (*one)(bench *b, uint64_t n, int sticky, int *fired),
                             bench *b, uint64_t step)
{
    int fired = 1;
    uint64_t n = 1;
    for (; fired; n += step) {
        faulty_init(&b->f, FAULTY_NOTHING, 0, 0);
        one(b, n, sticky, &fired);
        end(b);
    }
    return n;
}

static void one_batch(bench *b, uint64_t n, int sticky, int *fired)
{
    size_t done = 99;
    peri_hnsw_config config;
    peri_hnsw_config_init(&config);
    config.codes = PERI_CODES_8BIT;
    config.m = 5;
    config.ef_construction = 16;
    b->ix = make_index(KIND_HNSW, DIM, PERI_METRIC_COSINE, PERI_SCALAR_F16, &config, &b->f.env);
    assert_ok(peri_index_put_many(b->ix, 20, NULL, b->rows, 0, NULL, NULL));
    fail_at(&b->f, n, sticky);
    peri_status status =
        peri_index_put_many(b->ix, ROWS - 20, NULL, b->rows + 20 * DIM, 0, NULL, &done);
    *fired = b->f.fired != NULL;
    quiet(&b->f);
    if (status != PERI_OK)
        assert_int_equal(status, PERI_ERR_NOMEM);
    assert_true(status == PERI_OK || *fired);
    assert_true(done == ROWS - 20 || status != PERI_OK);
    check_rows(b, 20 + done);
    assert_ok(peri_index_put_many(b->ix, ROWS - 20 - done, NULL, b->rows + (20 + done) * DIM, 0,
                                  NULL, NULL));
    check_rows(b, ROWS);
}

static void a_batch_that_trains_codes_survives_every_failed_allocation(void **state)
{
    (void)state;
    float *rows = new_rows(8, ROWS, DIM);
    bench b = {.rows = rows};
    assert_true(each_failure(0, one_batch, &b, 1) > 20);
    assert_true(each_failure(1, one_batch, &b, 1) > 20);
    free(rows);
}

/* Codes that no longer fit the data, removed rows whose links are to be repaired, a curve to make.
 */
static void one_maintain(bench *b, uint64_t n, int sticky, int *fired)
{
    peri_hnsw_config config;
    peri_hnsw_config_init(&config);
    config.codes = PERI_CODES_8BIT;
    config.m = 5;
    config.ef_construction = 16;
    b->ix = make_index(KIND_HNSW, DIM, PERI_METRIC_L2, 0, &config, &b->f.env);
    assert_ok(peri_index_put_many(b->ix, ROWS, NULL, b->rows, 0, NULL, NULL));
    for (uint64_t id = 0; id < 40; id++) {
        float far[DIM];
        for (int i = 0; i < DIM; i++)
            far[i] = 50 * b->rows[id * DIM + (uint64_t)i];
        assert_ok(peri_index_put(b->ix, id, far, 0));
    }
    for (uint64_t id = 1; id < 60; id += 7)
        assert_ok(peri_index_remove(b->ix, id));
    peri_index_info before = info_of(b->ix);
    fail_at(&b->f, n, sticky);
    peri_status status = peri_index_maintain(b->ix, NULL);
    *fired = b->f.fired != NULL;
    quiet(&b->f);
    if (status != PERI_OK)
        assert_int_equal(status, PERI_ERR_NOMEM);
    assert_index_valid(b->ix);
    assert_int_equal(info_of(b->ix).rows, before.rows);
    assert_ok(peri_index_maintain(b->ix, NULL));
    assert_index_valid(b->ix);
    peri_index_info info = info_of(b->ix);
    assert_int_equal(info.rows, before.rows);
    assert_int_equal(info.deleted, 0);
    assert_int_equal(info.calibrated, 1);
    assert_true(info.clipped <= before.clipped);
}

static void maintain_of_many_rows_survives_failed_allocations(void **state)
{
    (void)state;
    float *rows = new_rows(8, ROWS, DIM);
    bench b = {.rows = rows};
    assert_true(each_failure(0, one_maintain, &b, 1) > 5);
    assert_true(each_failure(1, one_maintain, &b, 2) > 5);
    free(rows);
}

/* Saving an index with holes numbers its slots anew; opening it, each way, fails at each point. */
static void one_round_trip(bench *b, uint64_t n, int sticky, int *fired)
{
    const char *path = scratch("trip");
    float got[DIM];
    b->ix = make_index(KIND_HNSW, DIM, PERI_METRIC_COSINE, PERI_SCALAR_I8, NULL, &b->f.env);
    assert_ok(peri_index_put_many(b->ix, 300, NULL, b->rows, 0, NULL, NULL));
    for (uint64_t id = 0; id < 100; id++)
        assert_ok(peri_index_remove(b->ix, id));
    *fired = 0;
    for (uint32_t flags = 0; flags < 5; flags++) {
        peri_index *copy = NULL;
        if (flags < 4)
            assert_ok(peri_index_save(b->ix, path, NULL));
        fail_at(&b->f, n, sticky);
        peri_status status = flags < 4 ? peri_index_open(&copy, path, flags, &b->f.env, NULL)
                                       : peri_index_save(b->ix, path, NULL);
        *fired |= b->f.fired != NULL;
        quiet(&b->f);
        assert_true(status == PERI_OK || status == PERI_ERR_NOMEM);
        if (flags < 4)
            assert_true((copy != NULL) == (status == PERI_OK));
        if (copy) {
            assert_index_valid(copy);
            assert_ok(peri_index_get(copy, 250, got));
        }
        peri_index_close(copy);
        assert_index_valid(b->ix);
    }
    assert_int_equal(scratch_count(), 1);
}

static void saving_and_opening_with_holes_survives_failed_allocations(void **state)
{
    (void)state;
    float *rows = new_rows(8, ROWS, DIM);
    bench b = {.rows = rows};
    assert_true(each_failure(0, one_round_trip, &b, 1) > 10);
    assert_true(each_failure(1, one_round_trip, &b, 3) > 10);
    free(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_that_trains_codes_survives_every_failed_allocation),
        cmocka_unit_test(maintain_of_many_rows_survives_failed_allocations),
        cmocka_unit_test(saving_and_opening_with_holes_survives_failed_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
