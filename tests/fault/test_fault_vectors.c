/* A vector file's whole life with the n-th allocation, or the n-th call on files, failing, once and
 * from then on, until none is left to fail. Whatever fails: nothing leaks, the handle holds what it
 * held before the call, the file opens and holds what the last checkpoint held (or, when it was a
 * checkpoint that failed, what that one would have held). */
#include "faulty.h"
#include "vectors.h"

#include <fcntl.h>

enum { DIM = 40, ROWS = 300, EXTRA = 4, STEPS = 15 };

typedef struct life {
    faulty f;
    peri_vectors *v;
    const char *path;
    const float *rows;
    peri_slice *keys;
    unsigned char now[ROWS + EXTRA], saved[ROWS + EXTRA], maybe[ROWS + EXTRA];
    int may_be; /* the file may hold `maybe` as well */
    uint16_t metric;
} life;

static peri_status insert(life *l, size_t first, size_t n)
{
    peri_status status =
        n == 1
            ? peri_vectors_insert(l->v, l->keys[first], l->rows + first * DIM, 0, NULL)
            : peri_vectors_insert_batch(l->v, n, l->keys + first, l->rows + first * DIM, 0, NULL);
    if (status == PERI_OK)
        memset(l->now + first, 1, n);
    return status;
}

static peri_status take(life *l, size_t at)
{
    peri_status status = peri_vectors_delete(l->v, l->keys[at]);
    if (status == PERI_OK)
        l->now[at] = 0;
    return status;
}

/* A call that ends with a checkpoint. */
static peri_status saves(life *l, peri_status status)
{
    memcpy(l->maybe, l->now, sizeof l->now);
    if (status == PERI_OK)
        memcpy(l->saved, l->now, sizeof l->now);
    l->may_be = status != PERI_OK;
    return status;
}

static peri_status build(life *l, int kind)
{
    peri_index *ix = NULL;
    peri_space space = space_of(DIM, l->metric, 0);
    peri_hnsw_config config;
    peri_hnsw_config_init(&config);
    config.m = 4;
    config.ef_construction = 12;
    peri_status status = kind == KIND_FLAT ? peri_flat_create(&ix, &space, &l->f.env)
                                           : peri_hnsw_create(&ix, &space, &config, &l->f.env);
    return status == PERI_OK ? saves(l, peri_vectors_build_index(l->v, ix, NULL)) : status;
}

static peri_status search(const life *l)
{
    peri_query q = query_of(5);
    peri_hit hits[5];
    size_t n;
    return peri_vectors_search(l->v, l->rows, &q, hits, &n);
}

static peri_status reopen(life *l)
{
    peri_vectors_close(l->v);
    l->v = NULL;
    memcpy(l->now, l->saved, sizeof l->now);
    return peri_vectors_open(&l->v, l->path, 0, NULL, &l->f.env);
}

static peri_status step(life *l, int number)
{
    peri_space space = space_of(DIM, l->metric, 0);
    switch (number) {
    case 0:
        return peri_vectors_create(&l->v, l->path, &space, NULL, &l->f.env);
    case 1:
        return insert(l, 0, 180);
    case 2:
        return saves(l, peri_vectors_checkpoint(l->v));
    case 3:
        return insert(l, 180, 1);
    case 4:
        return take(l, 17);
    case 5:
        return build(l, KIND_HNSW);
    case 6:
        return search(l);
    case 7:
        return insert(l, 100, 120); /* old keys among them */
    case 8:
        return take(l, 110);
    case 9:
        return saves(l, peri_vectors_maintain(l->v, NULL));
    case 10:
        return reopen(l);
    case 11:
        return search(l);
    case 12:
        return insert(l, 220, 60);
    case 13:
        return saves(l, peri_vectors_compact(l->v, NULL));
    default:
        return build(l, KIND_FLAT);
    }
}

static int holds(const peri_vectors *v, const life *l, const unsigned char *want)
{
    float row[DIM];
    for (size_t i = 0; i < ROWS; i++) {
        peri_status status = peri_vectors_get(v, l->keys[i], row, NULL);
        if (status != (want[i] ? PERI_OK : PERI_ERR_NOT_FOUND))
            return 0;
        for (int j = 0; status == PERI_OK && j < DIM; j++)
            if (fabsf(row[j] - l->rows[i * DIM + (size_t)j]) > 1e-3f)
                return 0;
    }
    return 1;
}

static void check_handle(const life *l)
{
    assert_true(holds(l->v, l, l->now));
    assert_ok(search(l));
    if (!vectors_info(l->v).poisoned)
        assert_vectors_valid(l->v);
}

static void check_file(const life *l, int created)
{
    peri_vectors *v;
    peri_status status = peri_vectors_open(&v, l->path, 0, NULL, NULL);
    if (!created && status == PERI_ERR_NOT_FOUND)
        return;
    assert_ok(status);
    assert_true(holds(v, l, l->saved) || (l->may_be && holds(v, l, l->maybe)));
    assert_vectors_valid(v);
    assert_ok(peri_vectors_insert(v, l->keys[ROWS + 1], l->rows, 0, NULL)); /* and goes on */
    assert_ok(peri_vectors_checkpoint(v));
    peri_vectors_close(v);
}

/* Returns whether anything was there to fail. */
static int live(life *l, faulty_what what, uint64_t n, int sticky)
{
    peri_status status = PERI_OK;
    int i = 0;
    memset(l->now, 0, sizeof l->now);
    memset(l->saved, 0, sizeof l->saved);
    l->may_be = 0;
    l->v = NULL;
    unlink(l->path);
    unlink(scratch("fault.vectors.index"));
    faulty_init(&l->f, what, n, sticky);
    for (; i < STEPS && status == PERI_OK; i++)
        status = step(l, i);
    int fired = l->f.fired != NULL;
    if (status != PERI_OK && !fired)
        fail_msg("step %d: %s: %s", i - 1, peri_status_name(status), peri_error_detail());
    l->f.what = FAULTY_NOTHING;
    if (l->v)
        check_handle(l);
    peri_vectors_close(l->v);
    if (!faulty_clean(&l->f))
        fail_msg("%s %llu in step %d left %lld blocks of %lld bytes, %lld files, %lld maps",
                 l->f.fired ? l->f.fired : "-", (unsigned long long)n, i - 1,
                 (long long)l->f.blocks, (long long)l->f.bytes, (long long)l->f.fds,
                 (long long)l->f.maps);
    check_file(l, i > 1);
    assert_true(scratch_count() <= 3); /* file, lock, index: nothing half made is left */
    return fired;
}

static void run(faulty_what what, uint16_t metric, uint64_t least)
{
    life *l = calloc(1, sizeof *l);
    uint64_t points = 0;
    l->path = scratch("fault.vectors");
    l->metric = metric;
    l->rows = new_rows(21, ROWS + EXTRA, DIM);
    l->keys = number_keys("key", 0, ROWS + EXTRA);
    for (int sticky = 0; sticky < 2; sticky++)
        for (uint64_t n = 1; live(l, what, n, sticky); n++)
            points++;
    print_message("%llu points of failure\n", (unsigned long long)points);
    assert_true(points > least);
    free_keys(l->keys);
    free((void *)(uintptr_t)l->rows);
    free(l);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    run(FAULTY_ALLOC, PERI_METRIC_COSINE, 150);
}

static void every_call_on_files_may_fail(void **state)
{
    (void)state;
    run(FAULTY_FILES, PERI_METRIC_L2, 80);
}

static void short_and_interrupted_transfers_change_nothing(void **state)
{
    (void)state;
    life *l = calloc(1, sizeof *l);
    l->path = scratch("fault.vectors");
    l->metric = PERI_METRIC_COSINE;
    l->rows = new_rows(21, ROWS + EXTRA, DIM);
    l->keys = number_keys("key", 0, ROWS + EXTRA);
    unlink(l->path);
    faulty_init(&l->f, FAULTY_NOTHING, 0, 0);
    l->f.short_io = 1000;
    l->f.interrupts = 1;
    for (int i = 0; i < STEPS; i++)
        assert_ok(step(l, i));
    check_handle(l);
    peri_vectors_close(l->v);
    assert_true(faulty_clean(&l->f));
    check_file(l, 1);
    free_keys(l->keys);
    free((void *)(uintptr_t)l->rows);
    free(l);
}

/* A failed fsync is never tried again: reads go on, writes say why they stopped. */
static void a_failed_fsync_poisons_the_handle(void **state)
{
    (void)state;
    const char *path = scratch("poison.vectors");
    faulty f;
    float row[2] = {1, 2};
    for (uint64_t n = 1; n <= 2; n++) {
        unlink(path);
        faulty_init(&f, FAULTY_NOTHING, 0, 0);
        peri_vectors *v = make_vectors(path, 2, PERI_METRIC_L2, 0, &f.env);
        assert_ok(peri_vectors_insert(v, key_of_text("a"), row, 0, NULL));
        /* allocate, pwrite, sync, pwrite, sync */
        f.what = FAULTY_FILES;
        f.n = f.calls + (n == 1 ? 4 : 6);
        peri_status status = peri_vectors_checkpoint(v);
        if (status == PERI_OK || strcmp(f.fired, "sync") != 0)
            fail_msg("call %llu was %s", (unsigned long long)f.n, f.fired ? f.fired : "none");
        assert_int_equal(status, PERI_ERR_IO);
        f.what = FAULTY_NOTHING;
        assert_int_equal(vectors_info(v).poisoned, 1);
        assert_status(PERI_ERR_POISONED, peri_vectors_insert(v, key_of_text("b"), row, 0, NULL));
        assert_status(PERI_ERR_POISONED, peri_vectors_checkpoint(v));
        assert_ok(peri_vectors_get(v, key_of_text("a"), row, NULL));
        peri_vectors_close(v);
        assert_true(faulty_clean(&f));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(every_call_on_files_may_fail),
        cmocka_unit_test(short_and_interrupted_transfers_change_nothing),
        cmocka_unit_test(a_failed_fsync_poisons_the_handle),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
