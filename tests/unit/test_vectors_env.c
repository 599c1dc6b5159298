/* Vector files in hard times: a full disk, little address space, no descriptors, no permission,
 * files that are replaced, and readers in other processes while one writes. */
#define _GNU_SOURCE
#include "vectors.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITISED 1 /* the shadow memory alone is beyond any limit of address space */
#endif

enum { DIM = 64, ROWS = 4000 };

/* A stretch of work in a process of its own; its exit status is the line that did not hold, 0 =
 * all. */
#define EXPECT(truth)                                                                              \
    do {                                                                                           \
        if (!(truth))                                                                              \
            return __LINE__ % 251 + 1;                                                             \
    } while (0)

static void in_child(int (*work)(const char *path), const char *path)
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(60);
        _exit(work(path));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("child: status %x (line %% 251 + 1 = %d)", status, WEXITSTATUS(status));
}

static int limit(int what, rlim_t n)
{
    struct rlimit l;
    if (getrlimit(what, &l) != 0)
        return -1;
    l.rlim_cur = n;
    return setrlimit(what, &l);
}

static int holds(const peri_vectors *v, const peri_slice *keys, const float *rows, size_t n)
{
    float row[DIM];
    uint64_t len;
    if (peri_vectors_len(v, &len) != PERI_OK || len != n)
        return 0;
    for (size_t i = 0; i < n; i += 37)
        if (peri_vectors_get(v, keys[i], row, NULL) != PERI_OK ||
            memcmp(row, rows + i * DIM, sizeof row) != 0)
            return 0;
    return 1;
}

static int fill_disk(const char *path)
{
    float *rows = new_rows(1, ROWS, DIM);
    peri_slice *keys = number_keys("k", 0, ROWS);
    peri_vectors *v = make_vectors(path, DIM, PERI_METRIC_L2, 0, NULL);
    signal(SIGXFSZ, SIG_IGN);
    EXPECT(peri_vectors_insert_batch(v, 1000, keys, rows, 0, NULL) == PERI_OK);
    EXPECT(peri_vectors_checkpoint(v) == PERI_OK);
    EXPECT(limit(RLIMIT_FSIZE, vectors_info(v).bytes_file + 4096) == 0);
    size_t in = 1000;
    peri_status status = PERI_OK;
    while (in < ROWS && (status = peri_vectors_insert_batch(v, 500, keys + in, rows + in * DIM, 0,
                                                            NULL)) == PERI_OK)
        in += 500;
    EXPECT(status == PERI_ERR_IO && strstr(peri_error_detail(), "allocate"));
    EXPECT(holds(v, keys, rows, in));
    EXPECT(limit(RLIMIT_FSIZE, vectors_info(v).bytes_file) == 0);
    if (in > 1000) {
        EXPECT(peri_vectors_checkpoint(v) == PERI_ERR_IO);
        EXPECT(!vectors_info(v).poisoned); /* nothing was synced in vain: it may be tried again */
    }
    EXPECT(peri_vectors_compact(v, NULL) == PERI_ERR_IO || in == 1000);
    EXPECT(limit(RLIMIT_FSIZE, RLIM_INFINITY) == 0);
    EXPECT(peri_vectors_insert_batch(v, ROWS - in, keys + in, rows + in * DIM, 0, NULL) == PERI_OK);
    EXPECT(peri_vectors_checkpoint(v) == PERI_OK);
    peri_vectors_close(v);
    EXPECT(peri_vectors_open(&v, path, 0, NULL, NULL) == PERI_OK);
    EXPECT(holds(v, keys, rows, ROWS));
    peri_vectors_close(v);
    return 0;
}

static void a_full_disk_is_an_error_and_nothing_is_lost(void **state)
{
    (void)state;
    in_child(fill_disk, scratch("full.vectors"));
}

static int little_space(const char *path)
{
    float *rows = new_rows(1, ROWS, DIM);
    peri_slice *keys = number_keys("k", 0, ROWS);
    EXPECT(limit(RLIMIT_AS, (rlim_t)300 << 20) == 0);
    peri_vectors *v = make_vectors(path, DIM, PERI_METRIC_L2, 0, NULL);
    for (size_t i = 0; i < ROWS; i += 100)
        EXPECT(peri_vectors_insert_batch(v, 100, keys + i, rows + i * DIM, 0, NULL) == PERI_OK);
    EXPECT(peri_vectors_checkpoint(v) == PERI_OK);
    EXPECT(holds(v, keys, rows, ROWS));
    peri_vectors_close(v);
    EXPECT(peri_vectors_open(&v, path, PERI_OPEN_READONLY, NULL, NULL) == PERI_OK);
    EXPECT(holds(v, keys, rows, ROWS));
    peri_vectors_close(v);
    return 0;
}

static void little_address_space_is_enough(void **state)
{
    (void)state;
#ifdef SANITISED
    (void)little_space; /* the sanitiser's shadow needs address space by the terabyte */
#else
    in_child(little_space, scratch("space.vectors"));
#endif
}

static int no_descriptors(const char *path)
{
    peri_vectors *v = make_vectors(path, DIM, PERI_METRIC_L2, 0, NULL), *w;
    int last = dup(0);
    EXPECT(last > 0 && close(last) == 0);
    for (rlim_t n = (rlim_t)last; n < (rlim_t)last + 2; n++) {
        EXPECT(limit(RLIMIT_NOFILE, n) == 0);
        EXPECT(peri_vectors_open(&w, path, PERI_OPEN_READONLY, NULL, NULL) ==
               (n == (rlim_t)last ? PERI_ERR_IO : PERI_OK));
        peri_vectors_close(w);
    }
    peri_vectors_close(v);
    return 0;
}

static void without_descriptors_open_says_so(void **state)
{
    (void)state;
    in_child(no_descriptors, scratch("nofile.vectors"));
}

static int no_permission(const char *path)
{
    peri_vectors *v;
    peri_space space = space_of(DIM, PERI_METRIC_L2, 0);
    peri_vectors_close(make_vectors(path, DIM, PERI_METRIC_L2, 0, NULL));
    EXPECT(chmod(path, 0) == 0 && chmod(scratch_dir, 0777) == 0);
    if (getuid() == 0)
        EXPECT(setresuid(65534, 65534, 65534) == 0);
    EXPECT(peri_vectors_open(&v, path, PERI_OPEN_READONLY, NULL, NULL) == PERI_ERR_IO);
    EXPECT(strstr(peri_error_detail(), "ermission"));
    EXPECT(peri_vectors_create(&v, "/proc/no.vectors", &space, NULL, NULL) != PERI_OK);
    return 0;
}

static void without_permission_open_says_so(void **state)
{
    (void)state;
    in_child(no_permission, scratch("denied.vectors"));
}

/* A stranger's file takes the path: a reader sees the other file, or says why not. */
static void a_replaced_file_is_noticed(void **state)
{
    (void)state;
    const char *path = scratch("replaced.vectors"), *other = scratch("other.vectors");
    float row[DIM] = {1};
    peri_vectors *v = make_vectors(path, DIM, PERI_METRIC_L2, 0, NULL);
    assert_ok(peri_vectors_insert(v, key_of_text("old"), row, 0, NULL));
    assert_ok(peri_vectors_checkpoint(v));
    peri_vectors *r = open_vectors(path, PERI_OPEN_READONLY, NULL), *w;
    w = make_vectors(other, DIM, PERI_METRIC_L2, 0, NULL);
    assert_ok(peri_vectors_insert(w, key_of_text("new"), row, 0, NULL));
    assert_ok(peri_vectors_checkpoint(w));
    peri_vectors_close(w);
    assert_int_equal(rename(other, path), 0);
    int changed = 0;
    assert_ok(peri_vectors_get(r, key_of_text("old"), row, NULL));
    assert_ok(peri_vectors_refresh(r, &changed));
    assert_int_equal(changed, 1);
    assert_ok(peri_vectors_get(r, key_of_text("new"), row, NULL));
    assert_status(PERI_ERR_NOT_FOUND, peri_vectors_get(r, key_of_text("old"), row, NULL));
    /* Another space, no file at all, damage: what was seen stays. */
    w = make_vectors(other, DIM + 1, PERI_METRIC_L2, 0, NULL);
    peri_vectors_close(w);
    assert_int_equal(rename(other, path), 0);
    assert_status(PERI_ERR_STATE, peri_vectors_refresh(r, &changed));
    blob_save(path, "nonsense", 8);
    assert_true(peri_vectors_refresh(r, &changed) != PERI_OK);
    unlink(path);
    assert_status(PERI_ERR_NOT_FOUND, peri_vectors_refresh(r, &changed));
    assert_ok(peri_vectors_get(r, key_of_text("new"), row, NULL));
    peri_vectors_close(r);
    peri_vectors_close(v);
}

/* ---- readers in other processes ---- */

enum { NAMES = 100, READERS = 3, BATCHES = 150 };

static peri_slice *names;

static void insert_all(peri_vectors *v, uint32_t batch)
{
    static float rows[NAMES][DIM];
    for (int i = 0; i < NAMES; i++)
        for (int j = 0; j < DIM; j++)
            rows[i][j] = (float)(batch * 8 + (uint32_t)i % 8 + (uint32_t)j);
    assert_ok(peri_vectors_insert_batch(v, NAMES, names, rows[0], 0, NULL));
}

/* Every checkpoint holds one batch: so does whatever a reader sees, and never an older one again.
 */
static int read_along(const char *path)
{
    peri_vectors *v;
    float row[DIM], query[DIM] = {1};
    peri_query q = query_of(NAMES + 5);
    peri_hit hits[NAMES + 5];
    uint32_t seen = 0;
    size_t n;
    EXPECT(peri_vectors_open(&v, path, PERI_OPEN_READONLY, NULL, NULL) == PERI_OK);
    while (seen < BATCHES) {
        EXPECT(peri_vectors_refresh(v, NULL) == PERI_OK);
        uint32_t first = 0;
        for (uint32_t i = 0; i < NAMES; i++) {
            EXPECT(peri_vectors_get(v, names[i], row, NULL) == PERI_OK);
            uint32_t batch = (uint32_t)row[0] / 8;
            first = i ? first : batch;
            EXPECT(batch == first && row[DIM - 1] == row[0] + DIM - 1);
        }
        EXPECT(first >= seen);
        seen = first;
        EXPECT(peri_vectors_search(v, query, &q, hits, &n) == PERI_OK && n == NAMES);
    }
    peri_vectors_close(v);
    return 0;
}

static void readers_in_other_processes_see_whole_checkpoints(void **state)
{
    (void)state;
    const char *path = scratch("along.vectors");
    pid_t readers[READERS];
    names = number_keys("name", 0, NAMES);
    peri_vectors *v = make_vectors(path, DIM, PERI_METRIC_IP, 0, NULL);
    insert_all(v, 1);
    assert_ok(peri_vectors_checkpoint(v));
    for (int i = 0; i < READERS; i++) {
        readers[i] = fork();
        assert_true(readers[i] >= 0);
        if (readers[i] == 0) {
            alarm(60);
            _exit(read_along(path));
        }
    }
    for (uint32_t batch = 2; batch <= BATCHES; batch++) {
        insert_all(v, batch);
        if (batch % 40 == 0)
            assert_ok(peri_vectors_compact(v, NULL));
        else
            assert_ok(peri_vectors_checkpoint(v));
        if (batch % 50 == 25)
            assert_ok(peri_vectors_build_index(
                v, make_index(KIND_FLAT, DIM, PERI_METRIC_IP, 0, NULL, NULL), NULL));
    }
    for (int i = 0; i < READERS; i++) {
        int status;
        assert_int_equal(waitpid(readers[i], &status, 0), readers[i]);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            fail_msg("reader %d: status %x", i, status);
    }
    peri_vectors_close(v);
    free_keys(names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_disk_is_an_error_and_nothing_is_lost),
        cmocka_unit_test(little_address_space_is_enough),
        cmocka_unit_test(without_descriptors_open_says_so),
        cmocka_unit_test(without_permission_open_says_so),
        cmocka_unit_test(a_replaced_file_is_noticed),
        cmocka_unit_test(readers_in_other_processes_see_whole_checkpoints),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
