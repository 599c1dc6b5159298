/* The n-th allocation or call on files fails, once and from then on, in short workloads of a log:
 * no leak, no crash, nothing accepted that is lost, nothing lost that was accepted, and after
 * the fault is gone the log is sound. Short transfers and interrupted calls change nothing. */
#include "faulty.h"
#include "histories.h"
#include "perigee/model.h"
#include "perigee/tensor.h"

typedef struct outcome {
    int accepted; /* puts that returned OK */
    int deleted;
} outcome;

static peri_status open_with(peri_log **log, const char *dir, const peri_env *env)
{
    peri_log_config c;
    peri_log_config_init(&c);
    c.file_size = 1 << 16;
    c.flags = PERI_LOG_SERIES;
    c.compression = PERI_COMPRESS_LZ4;
    return peri_log_open(log, dir, &c, env);
}

enum { PUTS = 60, SIZE = 3000 };

static void key_of(int i, char key[32])
{
    sprintf(key, "key %d", i % 20);
}

/* Puts over several files, a compaction among them; counts what was accepted and stops at the
 * first refusal. */
static peri_status work(const char *dir, const peri_env *env, outcome *o)
{
    peri_log *log;
    peri_status status = open_with(&log, dir, env);
    if (status != PERI_OK)
        return status;
    char value[SIZE];
    for (int i = 0; i < PUTS && status == PERI_OK; i++) {
        char key[32];
        key_of(i, key);
        for (int k = 0; k < SIZE; k++)
            value[k] = (char)(pe_mix64((uint64_t)(i * SIZE + k)));
        peri_atom a = {.type = PERI_ATOM_BYTES, .data = value, .size = SIZE};
        if (i % 3 == 2)
            a = (peri_atom){.type = PERI_ATOM_FLOAT, .number = i};
        status = peri_log_put(log, peri_cstr(key), &a, NULL);
        o->accepted += status == PERI_OK;
        if (status == PERI_OK && i == 40)
            status = peri_log_compact(log, NULL, NULL);
    }
    if (status == PERI_OK) {
        status = peri_log_delete(log, peri_cstr("key 0"));
        o->deleted = status == PERI_OK;
    }
    peri_log_close(log);
    return status;
}

static int count_key(void *ctx, peri_slice key, const peri_atom *a)
{
    (void)key;
    (void)a;
    ++*(int *)ctx;
    return 0;
}

/* Without faults: what was accepted is there; one write more may be, since the failing call may
 * have been the last thing before success. */
static void assert_kept(const char *dir, const outcome *o)
{
    peri_log *log;
    uint64_t faults;
    peri_log_info info;
    if (open_with(&log, dir, NULL) != PERI_OK)
        fail_msg("%s", peri_error_detail());
    assert_int_equal(peri_log_check(log, &faults), PERI_OK);
    assert_int_equal(faults, 0);
    peri_log_info_init(&info);
    peri_log_get_info(log, &info);
    uint64_t done = (uint64_t)(o->accepted + o->deleted);
    if (info.sequence < done || info.sequence > done + 1)
        fail_msg("%d puts were accepted, the log ends at %llu", o->accepted,
                 (unsigned long long)info.sequence);
    assert_int_equal(peri_log_put_int(log, peri_cstr("after"), 1), PERI_OK);
    peri_log_close(log);
}

static void run_points(faulty_what what, int sticky, int error)
{
    const char *dir = scratch("fault");
    uint64_t points = 0;
    for (uint64_t n = 1;; n++) {
        faulty f;
        outcome o = {0};
        dir_remove(dir);
        faulty_init(&f, what, n, sticky);
        f.error = error;
        peri_status status = work(dir, &f.env, &o);
        if (!f.fired) {
            assert_int_equal(status, PERI_OK);
            break;
        }
        if (!faulty_clean(&f))
            fail_msg("point %llu (%s): %lld blocks, %lld fds, %lld maps, %llu wrong sizes",
                     (unsigned long long)n, f.fired, (long long)f.blocks, (long long)f.fds,
                     (long long)f.maps, (unsigned long long)f.wrong_sizes);
        if (access(dir, F_OK) == 0)
            assert_kept(dir, &o);
        points++;
    }
    print_message("%llu points\n", (unsigned long long)points);
    assert_true(points > 100);
    dir_remove(dir);
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    run_points(FAULTY_ALLOC, 0, 0);
    run_points(FAULTY_ALLOC, 1, 0);
}

static void test_every_call_on_files_may_fail(void **state)
{
    (void)state;
    run_points(FAULTY_FILES, 0, EIO);
    run_points(FAULTY_FILES, 1, EIO);
    run_points(FAULTY_FILES, 0, ENOSPC);
}

static void test_short_and_interrupted_calls_change_nothing(void **state)
{
    (void)state;
    const char *dir = scratch("fault");
    faulty f;
    outcome o = {0};
    dir_remove(dir);
    faulty_init(&f, FAULTY_NOTHING, 0, 0);
    f.short_io = 1000;
    f.interrupts = 1;
    assert_int_equal(work(dir, &f.env, &o), PERI_OK);
    assert_true(faulty_clean(&f));
    assert_int_equal(o.accepted, PUTS);
    assert_kept(dir, &o);
    dir_remove(dir);
}

/* After a failed fsync: reads go on, writes say why they do not. */
static void test_a_failed_fsync_poisons_the_log(void **state)
{
    (void)state;
    const char *dir = scratch("fault");
    int seen = 0;
    for (uint64_t n = 1; n < 200; n++) {
        faulty f;
        peri_log *log;
        int64_t v;
        dir_remove(dir);
        faulty_init(&f, FAULTY_FILES, UINT64_MAX, 0);
        assert_int_equal(open_with(&log, dir, &f.env), PERI_OK);
        assert_int_equal(peri_log_put_int(log, peri_cstr("k"), 1), PERI_OK);
        f.n = f.calls + n;
        peri_status status = peri_log_put_int(log, peri_cstr("k"), 2);
        if (f.fired && strcmp(f.fired, "datasync") == 0) {
            assert_int_equal(status, PERI_ERR_IO);
            assert_int_equal(peri_log_put_int(log, peri_cstr("k"), 3), PERI_ERR_POISONED);
            assert_int_equal(peri_log_sync(log), PERI_ERR_POISONED);
            assert_int_equal(peri_log_get_int(log, peri_cstr("k"), &v), PERI_OK);
            seen++;
        }
        peri_log_close(log);
        assert_true(faulty_clean(&f));
        if (!f.fired)
            break;
    }
    assert_int_equal(seen, 1);
    dir_remove(dir);
}

/* Reading and the layers on top, every allocation and every call. */
static peri_status read_work(const char *dir, const peri_env *env)
{
    peri_log *log;
    peri_log_config c;
    peri_buf b = {0}, m = {0};
    peri_tensor t;
    peri_model_info info;
    size_t n;
    int keys = 0;
    peri_log_config_init(&c);
    c.flags = PERI_LOG_READONLY;
    peri_status status = peri_log_open(&log, dir, &c, env);
    if (status != PERI_OK)
        return status;
    status = peri_log_keys(log, NULL, count_key, &keys);
    if (status == PERI_OK)
        status = peri_log_series(log, peri_cstr("series"), NULL, &b, &m, &n);
    if (status == PERI_OK)
        status = peri_tensor_get(log, peri_cstr("t/*"), PERI_TENSOR_F64, &t, &b);
    if (status == PERI_OK)
        status = peri_model_load(log, peri_cstr("m"), 0, &b, &m, &info);
    if (status == PERI_OK)
        status = peri_log_refresh(log);
    peri_buf_free(&b);
    peri_buf_free(&m);
    peri_log_close(log);
    return status;
}

static void test_reads_fail_cleanly(void **state)
{
    (void)state;
    const char *dir = scratch("fault");
    peri_log *log;
    float rows[60] = {1};
    peri_tensor t = {
        .type = PERI_TENSOR_F32, .dims = 2, .shape = {20, 3}, .data = rows, .size = 240};
    dir_remove(dir);
    assert_int_equal(open_with(&log, dir, NULL), PERI_OK);
    for (int i = 0; i < 100; i++)
        assert_int_equal(peri_log_put_float(log, peri_cstr("series"), i), PERI_OK);
    assert_int_equal(peri_log_compact(log, NULL, NULL), PERI_OK);
    assert_int_equal(peri_tensor_put_chunked(log, peri_cstr("t/"), &t, 7), PERI_OK);
    assert_int_equal(peri_model_save(log, peri_cstr("m"), peri_cstr("abc"), peri_cstr("{}"), NULL),
                     PERI_OK);
    peri_log_close(log);
    for (int what = FAULTY_ALLOC; what <= FAULTY_FILES; what++)
        for (int sticky = 0; sticky < 2; sticky++)
            for (uint64_t n = 1;; n++) {
                faulty f;
                faulty_init(&f, (faulty_what)what, n, sticky);
                peri_status status = read_work(dir, &f.env);
                assert_true(faulty_clean(&f));
                if (!f.fired) {
                    assert_int_equal(status, PERI_OK);
                    break;
                }
            }
    dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_every_call_on_files_may_fail),
        cmocka_unit_test(test_short_and_interrupted_calls_change_nothing),
        cmocka_unit_test(test_a_failed_fsync_poisons_the_log),
        cmocka_unit_test(test_reads_fail_cleanly),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
