/* The life of a matrix being written: nothing stands under its name before commit, whatever fails,
 * and the former file stays. And forks and threads. */
#define _GNU_SOURCE
#include "io_files.h"

#include <errno.h>
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
        const char *path = io_path(names[i]);
        write_former(path);
        peri_matrix *m = io_create(path, 2, 0);
        assert_ok(peri_matrix_write(m, 3, rows));
        assert_former(path);
        assert_int_equal(io_count_files(), 2);
        peri_matrix_close(m);
        assert_int_equal(io_count_files(), 1);
        assert_former(path);
        m = io_create(path, 2, 0);
        assert_ok(peri_matrix_write(m, 3, rows));
        assert_ok(peri_matrix_commit(m));
        assert_int_equal(io_count_files(), 1);
        peri_matrix_close(m);
        assert_int_equal(io_count_files(), 1);
        io_empty_folder();
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
        peri_matrix *m = io_create(io_path(names[i]), 2, 0);
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
        m = io_open(io_path(names[i]), &info);
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
        assert_ok(peri_matrix_create(&m, io_path(names[i]), &config, NULL));
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
        peri_matrix *m = io_create(io_path(narrow[i]), 1, PERI_ELEMENT_U8);
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
            assert_int_equal(stat(io_path(narrow[i]), &st), 0);
            assert_int_equal(st.st_size, 3 * 5);
        }
        m = io_open(io_path(narrow[i]), &info);
        assert_int_equal(info.rows, 3);
        assert_ok(peri_matrix_read(m, 0, 3, back));
        assert_memory_equal(back, rows, sizeof back);
        peri_matrix_close(m);
    }
    free(many);
}

/* ---- failures of the machine ---- */

typedef struct faults {
    int left; /* calls until one fails; from then on all do */
    long held;
} faults;

static int fails(void *ctx)
{
    faults *f = ctx;
    return f->left-- <= 0;
}

static void *bad_alloc(void *ctx, size_t size, size_t align)
{
    void *p = NULL;
    if (fails(ctx) || posix_memalign(&p, align, size ? size : 1))
        return NULL;
    ((faults *)ctx)->held++;
    return p;
}

static void bad_free(void *ctx, void *p, size_t size)
{
    (void)size;
    ((faults *)ctx)->held--;
    free(p);
}

static int64_t bad_pwrite(void *ctx, int fd, const void *buf, size_t n, uint64_t offset)
{
    ssize_t put = fails(ctx) ? -1 : pwrite(fd, buf, n > 7 ? n / 2 : n, (off_t)offset);
    return put < 0 ? -ENOSPC : put;
}

static int bad_sync(void *ctx, int fd)
{
    (void)fd;
    return fails(ctx) ? -EIO : 0;
}

static int bad_rename(void *ctx, const char *from, const char *to)
{
    return fails(ctx) ? -EACCES : rename(from, to) ? -errno : 0;
}

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
    if (status != PERI_OK) {
        peri_status after = peri_matrix_write(m, 1, rows);
        assert_true(after == PERI_ERR_POISONED);
    }
    peri_matrix_close(m);
    return status;
}

static void every_call_that_fails_is_an_error_and_spoils_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < N_NAMES; i++) {
        int n = 0;
        for (;; n++) {
            faults f = {n, 0};
            peri_files files = *peri_files_posix();
            peri_env env;
            peri_env_init(&env);
            files.ctx = &f;
            files.pwrite = bad_pwrite;
            files.sync = bad_sync;
            files.rename = bad_rename;
            env.files = &files;
            env.alloc = bad_alloc;
            env.free = bad_free;
            env.alloc_ctx = &f;
            write_former(io_path(names[i]));
            peri_status status = write_all(io_path(names[i]), &env);
            assert_int_equal(f.held, 0);
            assert_int_equal(io_count_files(), 1);
            if (status == PERI_OK)
                break;
            assert_true(status == PERI_ERR_NOMEM || status == PERI_ERR_IO);
            assert_true(*peri_error_detail());
            assert_former(io_path(names[i]));
        }
        assert_true(n >= 4); /* two allocations, sync, rename; and the writes of our own formats */
        io_empty_folder();
    }
}

static void every_allocation_that_fails_while_opening_is_told(void **state)
{
    (void)state;
    for (int i = 0; i < N_NAMES; i++) {
        write_former(io_path(names[i]));
        peri_status status = PERI_ERR_NOMEM;
        for (int n = 0; status != PERI_OK; n++) {
            peri_matrix *m;
            faults f = {n, 0};
            peri_env env;
            peri_env_init(&env);
            env.alloc = bad_alloc;
            env.free = bad_free;
            env.alloc_ctx = &f;
            status = peri_matrix_open(&m, io_path(names[i]), &env);
            assert_true(status == PERI_OK || status == PERI_ERR_NOMEM);
            peri_matrix_close(m);
            assert_int_equal(f.held, 0);
        }
        io_empty_folder();
    }
}

/* ---- fork and threads ---- */

static void a_child_reads_on_but_does_not_write(void **state)
{
    (void)state;
    for (int i = 0; i < N_NAMES; i++) {
        peri_matrix_info info;
        float back[6];
        write_former(io_path("r.hdf5"));
        peri_matrix *reader = io_open(io_path("r.hdf5"), &info);
        peri_matrix *writer = io_create(io_path(names[i]), 2, 0);
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
        writer = io_open(io_path(names[i]), &info);
        assert_ok(peri_matrix_read(writer, 0, 3, back));
        assert_memory_equal(back, rows, sizeof back);
        peri_matrix_close(writer);
        io_empty_folder();
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
    snprintf(path, sizeof path, "%s", io_path("t.hdf5"));
    write_former(path);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_often, path), 0);
    for (int i = 0; i < 4; i++) {
        void *bad;
        pthread_join(threads[i], &bad);
        assert_null(bad);
    }
}

static int drop(void **state)
{
    (void)state;
    io_empty_folder();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(what_is_not_committed_vanishes_and_the_former_file_stays, drop),
        cmocka_unit_test_teardown(verbs_out_of_their_turn_are_refused, drop),
        cmocka_unit_test_teardown(announced_rows_are_held_to, drop),
        cmocka_unit_test_teardown(a_refused_write_leaves_the_matrix_as_it_was, drop),
        cmocka_unit_test_teardown(every_call_that_fails_is_an_error_and_spoils_nothing, drop),
        cmocka_unit_test_teardown(every_allocation_that_fails_while_opening_is_told, drop),
        cmocka_unit_test_teardown(a_child_reads_on_but_does_not_write, drop),
        cmocka_unit_test_teardown(threads_may_use_handles_of_their_own, drop),
    };
    return cmocka_run_group_tests(tests, io_make_folder, io_drop_folder);
}
