/* The bottom of the house: statuses, sizes, the host seam, files, teams, random numbers. */
#define _GNU_SOURCE
#include "base/checked.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/team.h"
#include "faulty.h"
#include "scratch.h"

#include <fcntl.h>
#include <pthread.h>

/* ---- statuses ---- */

static void each_status_has_a_name_and_a_text(void **state)
{
    (void)state;
    static const int values[] = {
#define PERI_X(name, value, text) (value),
        PERI_STATUS_MAP(PERI_X)
#undef PERI_X
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        assert_true(strncmp(peri_status_name(values[i]), "PERI_", 5) == 0);
        assert_true(strlen(peri_strerror(values[i])) > 0);
        assert_true(values[i] <= 0);
        for (size_t j = 0; j < i; j++)
            assert_int_not_equal(values[i], values[j]);
    }
    assert_string_equal(peri_status_name(PERI_ERR_CORRUPT), "PERI_ERR_CORRUPT");
    assert_string_equal(peri_status_name(12345), "");
    assert_string_equal(peri_strerror(12345), "unknown status");
}

static void *other_thread(void *arg)
{
    char *out = arg;
    pe_fail(PERI_ERR_IO, "of the other thread");
    pe_detail_copy(out);
    return NULL;
}

static void the_detail_belongs_to_its_thread_and_is_cut_to_size(void **state)
{
    (void)state;
    char theirs[PE_DETAIL_SIZE], longer[2 * PE_DETAIL_SIZE];
    pthread_t thread;
    assert_int_equal(pe_fail(PERI_ERR_ARG, "k is %d", 0), PERI_ERR_ARG);
    assert_int_equal(pthread_create(&thread, NULL, other_thread, theirs), 0);
    pthread_join(thread, NULL);
    assert_string_equal(peri_error_detail(), "k is 0");
    assert_string_equal(theirs, "of the other thread");
    pe_detail_set(theirs);
    assert_string_equal(peri_error_detail(), "of the other thread");
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = 0;
    pe_fail(PERI_ERR_ARG, "%s", longer);
    assert_int_equal(strlen(peri_error_detail()), PE_DETAIL_SIZE - 1);
}

static void system_errors_become_statuses(void **state)
{
    (void)state;
    assert_int_equal(pe_fail_errno(ENOENT, "open", "x"), PERI_ERR_NOT_FOUND);
    assert_int_equal(pe_fail_errno(EEXIST, "open", "x"), PERI_ERR_EXISTS);
    assert_int_equal(pe_fail_errno(ENOMEM, "mmap", "x"), PERI_ERR_NOMEM);
    assert_int_equal(pe_fail_errno(ENOSPC, "write", "some path"), PERI_ERR_IO);
    assert_non_null(strstr(peri_error_detail(), "some path: write: No space left on device"));
}

/* ---- sizes ---- */

static void sizes_that_overflow_are_told(void **state)
{
    (void)state;
    size_t n;
    assert_int_equal(pe_mul_size(SIZE_MAX / 2, 2, &n), 0);
    assert_int_equal(pe_mul_size(SIZE_MAX / 2 + 1, 2, &n), 1);
    assert_int_equal(pe_add_size(SIZE_MAX, 0, &n), 0);
    assert_int_equal(pe_add_size(SIZE_MAX, 1, &n), 1);
    assert_int_equal(pe_round_up(0, 64), 0);
    assert_int_equal(pe_round_up(1, 64), 64);
    assert_int_equal(pe_round_up(64, 64), 64);
}

/* ---- host ---- */

static void the_host_counts_what_it_lends(void **state)
{
    (void)state;
    faulty f;
    pe_host host;
    faulty_init(&f, FAULTY_ALLOC, 4, 0);
    assert_int_equal(pe_host_init(&host, &f.env), PERI_OK);
    unsigned char *a = pe_calloc(&host, 1000);
    void *b = pe_alloc_aligned(&host, 3 * PE_HUGE, PE_HUGE), *c = pe_alloc(&host, 0);
    assert_non_null(a);
    assert_non_null(b);
    assert_non_null(c);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(a[i], 0);
    assert_int_equal((uintptr_t)a % PE_ALIGN, 0);
    assert_int_equal((uintptr_t)b % PE_HUGE, 0);
    assert_int_equal(atomic_load(&host.heap), 1000 + 3 * PE_HUGE);
    assert_null(pe_alloc(&host, 77)); /* the fourth */
    assert_non_null(strstr(peri_error_detail(), "77"));
    pe_free(&host, a, 1000);
    pe_free(&host, b, 3 * PE_HUGE);
    pe_free(&host, c, 0);
    pe_free(&host, NULL, 5);
    assert_int_equal(atomic_load(&host.heap), 0);
    assert_true(faulty_clean(&f));
}

static void an_environment_that_is_half_there_is_refused(void **state)
{
    (void)state;
    faulty f;
    pe_host host;
    faulty_init(&f, FAULTY_NOTHING, 0, 0);
    f.env.free = NULL;
    assert_int_equal(pe_host_init(&host, &f.env), PERI_ERR_ARG);
    faulty_init(&f, FAULTY_NOTHING, 0, 0);
    f.env.struct_size = 4;
    assert_int_equal(pe_host_init(&host, &f.env), PERI_ERR_ARG);
    faulty_init(&f, FAULTY_NOTHING, 0, 0);
    f.files.struct_size = 0;
    assert_int_equal(pe_host_init(&host, &f.env), PERI_ERR_ARG);
}

static void growing_keeps_what_was_there_or_changes_nothing(void **state)
{
    (void)state;
    faulty f;
    pe_host host;
    uint32_t *p = NULL;
    size_t room = 0;
    faulty_init(&f, FAULTY_ALLOC, 6, 0);
    pe_host_init(&host, &f.env);
    for (uint32_t i = 0; i < 10000; i++) {
        peri_status status = pe_grow(&host, &p, &room, i + 1, sizeof *p);
        if (status != PERI_OK) {
            assert_int_equal(status, PERI_ERR_NOMEM);
            assert_int_equal(room, i); /* full, as before */
            assert_int_equal(pe_grow(&host, &p, &room, i + 1, sizeof *p), PERI_OK);
        }
        p[i] = i;
    }
    assert_non_null(f.fired);
    for (uint32_t i = 0; i < 10000; i++)
        assert_int_equal(p[i], i);
    uint32_t *before = p;
    assert_int_equal(pe_grow(&host, &p, &room, SIZE_MAX / 2, sizeof *p), PERI_ERR_NOMEM);
    assert_ptr_equal(p, before);
    pe_free(&host, p, room * sizeof *p);
    assert_true(faulty_clean(&f));
}

static void a_buffer_is_reused_and_freed(void **state)
{
    (void)state;
    peri_buf b = {0};
    assert_int_equal(pe_buf_set(&b, "", 0), PERI_OK);
    assert_int_equal(pe_buf_set(&b, "hello", 5), PERI_OK);
    assert_memory_equal(b.data, "hello", 5);
    void *data = b.data;
    assert_int_equal(pe_buf_set(&b, "hi", 2), PERI_OK);
    assert_ptr_equal(b.data, data);
    assert_int_equal(b.size, 2);
    peri_buf_free(&b);
    assert_null(b.data);
    peri_buf_free(&b);
    peri_buf_free(NULL);
}

/* ---- files ---- */

static void reading_past_the_end_names_the_offset(void **state)
{
    (void)state;
    pe_file f;
    char buf[100];
    uint64_t size;
    const char *path = scratch("short");
    blob_save(path, "0123456789", 10);
    assert_int_equal(pe_file_open(&f, peri_files_posix(), path, O_RDONLY), PERI_OK);
    assert_int_equal(pe_file_size(&f, &size), PERI_OK);
    assert_int_equal(size, 10);
    assert_int_equal(pe_file_read(&f, buf, 4, 6), PERI_OK);
    assert_memory_equal(buf, "6789", 4);
    assert_int_equal(pe_file_read(&f, buf, 5, 6), PERI_ERR_CORRUPT);
    assert_non_null(strstr(peri_error_detail(), "offset 10"));
    assert_int_equal(fcntl(f.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(pe_file_close(&f), PERI_OK);
    assert_int_equal(pe_file_close(&f), PERI_OK); /* again is nothing */
    unlink(path);
    assert_int_equal(pe_file_open(&f, peri_files_posix(), path, O_RDONLY), PERI_ERR_NOT_FOUND);
    assert_int_equal(f.fd, -1);
}

static void transfers_go_on_where_the_system_stopped(void **state)
{
    (void)state;
    faulty fault;
    pe_file f;
    char out[1000], in[1000];
    const char *path = scratch("pieces");
    for (size_t i = 0; i < sizeof out; i++)
        out[i] = (char)i;
    faulty_init(&fault, FAULTY_NOTHING, 0, 0);
    fault.short_io = 7;
    fault.interrupts = 1;
    assert_int_equal(pe_file_open(&f, &fault.files, path, O_RDWR | O_CREAT), PERI_OK);
    assert_int_equal(pe_file_write(&f, out, sizeof out, 3), PERI_OK);
    assert_int_equal(pe_file_read(&f, in, sizeof in, 3), PERI_OK);
    assert_memory_equal(out, in, sizeof in);
    assert_int_equal(pe_file_close(&f), PERI_OK);
    assert_true(faulty_clean(&fault));
    unlink(path);
}

/* ---- teams ---- */

static void count_worker(void *ctx, unsigned worker)
{
    atomic_fetch_add((_Atomic uint64_t *)ctx, (uint64_t)1 << (8 * (worker < 8 ? worker : 7)));
}

static void each_worker_runs_once(void **state)
{
    (void)state;
    _Atomic uint64_t ran = 0;
    pe_team_run(1, count_worker, &ran);
    assert_int_equal(atomic_load(&ran), 1);
    atomic_store(&ran, 0);
    pe_team_run(4, count_worker, &ran);
    assert_int_equal(atomic_load(&ran), 0x01010101);
    assert_true(pe_team_size(0) >= 1);
    assert_int_equal(pe_team_size(3), 3);
    assert_int_equal(pe_team_size(1000000), PE_TEAM_MAX);
    assert_int_equal(pe_task_threads(NULL), 1);
}

typedef struct watched {
    pe_progress progress;
    _Atomic uint64_t worked;
} watched;

static int stop_at_once(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    assert_string_equal(phase, "work");
    ++*(int *)ctx;
    return 1;
}

static void work_until_cancelled(void *ctx, unsigned worker)
{
    watched *w = ctx;
    while (!pe_progress_add(&w->progress, worker, 1))
        if (atomic_fetch_add(&w->worked, 1) > 2000000000u)
            return; /* nobody said stop */
}

static void a_cancelled_call_stops_all_its_workers(void **state)
{
    (void)state;
    watched w = {0};
    peri_task task;
    int asked = 0;
    peri_task_init(&task);
    task.progress = stop_at_once;
    task.progress_ctx = &asked;
    assert_int_equal(pe_progress_init(&w.progress, &task), PERI_OK);
    pe_progress_phase(&w.progress, "work", 100);
    pe_team_run(3, work_until_cancelled, &w);
    assert_int_equal(pe_progress_end(&w.progress), PERI_ERR_CANCELLED);
    assert_true(asked >= 1);
    assert_int_equal(pe_progress_init(&w.progress, NULL), PERI_OK);
    assert_int_equal(pe_progress_add(&w.progress, 0, 1), 0);
    assert_int_equal(pe_progress_end(&w.progress), PERI_OK);
    task.struct_size = 3;
    assert_int_equal(pe_progress_init(&w.progress, &task), PERI_ERR_ARG);
}

static void random_numbers_repeat_and_stay_in_range(void **state)
{
    (void)state;
    pe_rng a = {1}, b = {1};
    uint32_t seen = 0;
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(pe_rng_next(&a), pe_rng_next(&b));
        uint32_t x = pe_rng_below(&a, 7);
        assert_int_equal(x, pe_rng_below(&b, 7));
        assert_true(x < 7);
        seen |= 1u << x;
        double u = pe_rng_unit(&a);
        assert_true(u > 0 && u <= 1);
        pe_rng_unit(&b);
    }
    assert_int_equal(seen, 0x7f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_status_has_a_name_and_a_text),
        cmocka_unit_test(the_detail_belongs_to_its_thread_and_is_cut_to_size),
        cmocka_unit_test(system_errors_become_statuses),
        cmocka_unit_test(sizes_that_overflow_are_told),
        cmocka_unit_test(the_host_counts_what_it_lends),
        cmocka_unit_test(an_environment_that_is_half_there_is_refused),
        cmocka_unit_test(growing_keeps_what_was_there_or_changes_nothing),
        cmocka_unit_test(a_buffer_is_reused_and_freed),
        cmocka_unit_test(reading_past_the_end_names_the_offset),
        cmocka_unit_test(transfers_go_on_where_the_system_stopped),
        cmocka_unit_test(each_worker_runs_once),
        cmocka_unit_test(a_cancelled_call_stops_all_its_workers),
        cmocka_unit_test(random_numbers_repeat_and_stay_in_range),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, scratch_remove);
}
