/* The life of a matrix being written: nothing stands under its name before commit, whatever fails,
 * and the former file stays. And forks and threads. */
#define _GNU_SOURCE
#include "faulty.h"
#include "io_files.h"

#include <pthread.h>
#include <sys/wait.h>

static const char *const names[] = {"w.npy", "w.fvecs", "w.hdf5"};
enum { N_NAMES = 3 };

static const float rows[] = {1, 2, 3, 4, 5, 6};

static void write_former(const char *path)
{
    peri_matrix *m = io_create(path, 1, 0);
    assert_ok(peri_matrix_write(m, 1, rows + 5));
    assert_ok(peri_matrix_commit(m));
    peri_matrix_close(m);
}

/* The file is the one of write_former. */
static void assert_former(const char *path)
{
    peri_matrix_info info;
    float value = 0;
    peri_matrix *m = io_open(path, &info);
    assert_true(info.rows == 1 && info.dim == 1);
    assert_ok(peri_matrix_read(m, 0, 1, &value));
    assert_true(value == 6);
    peri_matrix_close(m);
}

static void what_is_not_committed_vanishes_and_the_former_file_stays(void **state)
{
    (void)state;
    for (int i = 0; i < N_NAMES; i++) {
        const char *path = scratch(names[i]);
        write_former(path);
        peri_matrix *m = io_create(path, 2, 0);
        assert_ok(peri_matrix_write(m, 3, rows));
        assert_former(path);
        assert_int_equal(scratch_count(), 2);
        peri_matrix_close(m);
        assert_int_equal(scratch_count(), 1);
        assert_former(path);
        m = io_create(path, 2, 0);
        assert_ok(peri_matrix_write(m, 3, rows));
        assert_ok(peri_matrix_commit(m));
        assert_int_equal(scratch_count(), 1);
        peri_matrix_close(m);
        assert_int_equal(scratch_count(), 1);
        io_empty(NULL);
    }
}

static void verbs_out_of_their_turn_are_refused(void **state)
{
    (void)state;
    for (int i = 0; i < N_NAMES; i++) {
        peri_matrix_info info;
        float back[6];
        uint64_t ids[2] = {0};
        peri_matrix_config config;
        peri_matrix_config_init(&config, 2);
        peri_matrix *m = io_create(scratch(names[i]), 2, 0);
        assert_status(peri_matrix_read(m, 0, 1, back), PERI_ERR_STATE);
        assert_status(peri_matrix_write(m, 1, NULL), PERI_ERR_ARG);
        assert_status(peri_matrix_write_ids(m, 1, ids), PERI_ERR_ARG);
        if (i < 2)
            assert_status(peri_matrix_next(m, &config), PERI_ERR_UNSUPPORTED);
        assert_ok(peri_matrix_write(m, 1, rows));
        assert_ok(peri_matrix_commit(m));
        assert_status(peri_matrix_write(m, 1, rows), PERI_ERR_STATE);
        assert_status(peri_matrix_commit(m), PERI_ERR_STATE);
        peri_matrix_close(m);
        m = io_open(scratch(names[i]), &info);
        assert_status(peri_matrix_write(m, 1, rows), PERI_ERR_STATE);
        assert_status(peri_matrix_commit(m), PERI_ERR_STATE);
        info.struct_size = 8;
        assert_status(peri_matrix_get_info(m, &info), PERI_ERR_ARG);
        peri_matrix_close(m);
    }
}

static void announced_rows_are_held_to(void **state)
{
    (void)state;
    for (int i = 0; i < N_NAMES; i++) {
        peri_matrix *m;
        peri_matrix_config config;
        peri_matrix_config_init(&config, 2);
        config.rows = 3;
        assert_ok(peri_matrix_create(&m, scratch(names[i]), &config, NULL));
        assert_ok(peri_matrix_write(m, 2, rows));
        assert_status(peri_matrix_commit(m), PERI_ERR_STATE);
        assert_status(peri_matrix_write(m, 2, rows), PERI_ERR_FULL);
        assert_ok(peri_matrix_write(m, 1, rows + 4));
        assert_ok(peri_matrix_commit(m));
        peri_matrix_close(m);
    }
}

/* A value deep in a large write is refused: rows that went before it must not count. */
static void a_refused_write_leaves_the_matrix_as_it_was(void **state)
{
    enum { N = 300000 };
    static const char *const narrow[] = {"n.npy", "n.bvecs", "n.hdf5"};
    float *many = calloc(N, sizeof *many);
    (void)state;
    for (int i = 0; i < N_NAMES; i++) {
        peri_matrix_info info;
        float back[3];
        peri_matrix *m = io_create(scratch(narrow[i]), 1, PERI_ELEMENT_U8);
        assert_ok(peri_matrix_write(m, 2, rows));
        many[N - 1] = 256;
        many[0] = 99;
        assert_status(peri_matrix_write(m, N, many), PERI_ERR_ARG);
        assert_non_null(strstr(peri_error_detail(), "row 300001, column 0 is 256"));
        assert_ok(peri_matrix_write(m, 1, rows + 2));
        assert_ok(peri_matrix_commit(m));
        peri_matrix_close(m);
        if (i == 1) { /* what was written beyond would stay in the file */
            struct stat st;
            assert_int_equal(stat(scratch(narrow[i]), &st), 0);
            assert_int_equal(st.st_size, 3 * 5);
        }
        m = io_open(scratch(narrow[i]), &info);
        assert_int_equal(info.rows, 3);
        assert_ok(peri_matrix_read(m, 0, 3, back));
        assert_memory_equal(back, rows, sizeof back);
        peri_matrix_close(m);
    }
    free(many);
}

/* ---- failures of the machine ---- */

/* Create, write twice, commit, close: the first failure. */
static peri_status write_all(const char *path, const peri_env *env)
{
    peri_matrix *m;
    peri_matrix_config config;
    peri_matrix_config_init(&config, 2);
    peri_status status = peri_matrix_create(&m, path, &config, env);
    if (status != PERI_OK)
        return status;
    status = peri_matrix_write(m, 2, rows);
    if (status == PERI_OK)
        status = peri_matrix_write(m, 1, rows + 4);
    if (status == PERI_OK)
        status = peri_matrix_commit(m);
    if (status != PERI_OK)
        assert_int_equal(peri_matrix_write(m, 1, rows), PERI_ERR_POISONED);
    peri_matrix_close(m);
    return status;
}

/* The file was replaced before the last step failed: it is the new one. */
static void assert_new(const char *path)
{
    peri_matrix_info info;
    float back[6];
    peri_matrix *m = io_open(path, &info);
    assert_true(info.rows == 3 && info.dim == 2);
    assert_ok(peri_matrix_read(m, 0, 3, back));
    assert_memory_equal(back, rows, sizeof back);
    peri_matrix_close(m);
}

static void fail_each(const char *path, faulty_what what, int sticky, uint64_t least)
{
    uint64_t n = 1;
    for (int fired = 1; fired; n++) {
        faulty f;
        faulty_init(&f, what, n, sticky);
        f.short_io = strstr(path, ".hdf5") ? 4096 : 5;
        f.interrupts = what == FAULTY_ALLOC;
        write_former(path);
        peri_status status = write_all(path, &f.env);
        fired = f.fired != NULL;
        assert_true(faulty_clean(&f));
        assert_int_equal(scratch_count(), 1);
        if (!fired) {
            assert_ok(status);
        } else {
            assert_true(status == PERI_ERR_NOMEM || status == PERI_ERR_IO);
            assert_true(*peri_error_detail());
        }
        if (!fired || strcmp(f.fired, "sync_dir") == 0)
            assert_new(path);
        else
            assert_former(path);
    }
    assert_true(n > least);
    io_empty(NULL);
}

static void every_call_that_fails_is_an_error_and_spoils_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < N_NAMES; i++)
        for (int sticky = 0; sticky < 2; sticky++) {
            fail_each(scratch(names[i]), FAULTY_ALLOC, sticky, 2);
            /* three calls on the former file, open, sync, close, rename, sync_dir, and the
             * writes of our own formats */
            fail_each(scratch(names[i]), FAULTY_FILES, sticky, 8);
        }
}

static void every_failure_while_reading_is_told(void **state)
{
    (void)state;
    for (int i = 0; i < N_NAMES; i++)
        for (int what = FAULTY_ALLOC; what <= FAULTY_FILES; what++) {
            write_former(scratch(names[i]));
            for (uint64_t n = 1, fired = 1; fired; n++) {
                peri_matrix *m;
                float value;
                faulty f;
                faulty_init(&f, (faulty_what)what, n, 0);
                peri_status status = peri_matrix_open(&m, scratch(names[i]), &f.env);
                if (status == PERI_OK)
                    status = peri_matrix_read(m, 0, 1, &value);
                peri_matrix_close(m);
                fired = f.fired != NULL;
                if (fired && strcmp(f.fired, "close") != 0)
                    assert_true(status == PERI_ERR_NOMEM || status == PERI_ERR_IO);
                else
                    assert_ok(status);
                assert_true(faulty_clean(&f));
            }
            io_empty(NULL);
        }
}

/* ---- fork and threads ---- */

static void a_child_reads_on_but_does_not_write(void **state)
{
    (void)state;
    for (int i = 0; i < N_NAMES; i++) {
        peri_matrix_info info;
        float back[6];
        write_former(scratch("r.hdf5"));
        peri_matrix *reader = io_open(scratch("r.hdf5"), &info);
        peri_matrix *writer = io_create(scratch(names[i]), 2, 0);
        assert_ok(peri_matrix_write(writer, 1, rows));
        pid_t child = fork();
        if (child == 0) {
            int bad = peri_matrix_read(reader, 0, 1, back) != PERI_OK || back[0] != 6;
            bad |= (peri_matrix_write(writer, 1, rows) != PERI_ERR_FORKED) << 1;
            bad |= (peri_matrix_commit(writer) != PERI_ERR_FORKED) << 2;
            peri_matrix_close(writer);
            peri_matrix_close(reader);
            _exit(bad);
        }
        int how;
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_true(WIFEXITED(how));
        assert_int_equal(WEXITSTATUS(how), 0);
        assert_ok(peri_matrix_write(writer, 2, rows + 2));
        assert_ok(peri_matrix_commit(writer));
        peri_matrix_close(writer);
        peri_matrix_close(reader);
        writer = io_open(scratch(names[i]), &info);
        assert_ok(peri_matrix_read(writer, 0, 3, back));
        assert_memory_equal(back, rows, sizeof back);
        peri_matrix_close(writer);
        io_empty(NULL);
    }
}

static void *read_often(void *path)
{
    for (int i = 0; i < 50; i++) {
        peri_matrix *m;
        float value = 0;
        if (peri_matrix_open(&m, path, NULL) != PERI_OK ||
            peri_matrix_read(m, 0, 1, &value) != PERI_OK || value != 6)
            return path;
        peri_matrix_close(m);
    }
    return NULL;
}

static void threads_may_use_handles_of_their_own(void **state)
{
    pthread_t threads[4];
    char path[512];
    (void)state;
    snprintf(path, sizeof path, "%s", scratch("t.hdf5"));
    write_former(path);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_often, path), 0);
    for (int i = 0; i < 4; i++) {
        void *bad;
        pthread_join(threads[i], &bad);
        assert_null(bad);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(what_is_not_committed_vanishes_and_the_former_file_stays,
                                  io_empty),
        cmocka_unit_test_teardown(verbs_out_of_their_turn_are_refused, io_empty),
        cmocka_unit_test_teardown(announced_rows_are_held_to, io_empty),
        cmocka_unit_test_teardown(a_refused_write_leaves_the_matrix_as_it_was, io_empty),
        cmocka_unit_test_teardown(every_call_that_fails_is_an_error_and_spoils_nothing, io_empty),
        cmocka_unit_test_teardown(every_failure_while_reading_is_told, io_empty),
        cmocka_unit_test_teardown(a_child_reads_on_but_does_not_write, io_empty),
        cmocka_unit_test_teardown(threads_may_use_handles_of_their_own, io_empty),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
