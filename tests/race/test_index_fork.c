/* A process that forks while threads read and write an index: in the child reads work, writes are
 * refused, close releases, and nothing waits for a thread that is not there. Each child has an
 * alarm. The moment of the fork is left to chance, so there are many. */
#include "indexes.h"
#include "scratch.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { DIM = 8, STILL = 300, MOVING = 300, FORKS = 60, LIMIT = 20 };

typedef struct scene {
    peri_index *ix;
    float *rows;
    _Atomic int done;
} scene;

static void *write_main(void *arg)
{
    scene *s = arg;
    pe_rng r = {5};
    for (uint32_t step = 0; !s->done; step++) {
        uint64_t id = STILL + pe_rng_below(&r, MOVING);
        if (step % 200 == 199)
            (void)peri_index_maintain(s->ix, NULL);
        else if (step % 5 == 4)
            (void)peri_index_remove(s->ix, id);
        else
            (void)peri_index_put(s->ix, id, s->rows + id * DIM, 0);
    }
    return NULL;
}

static void *read_main(void *arg)
{
    scene *s = arg;
    pe_rng r = {6};
    peri_hit hits[10];
    size_t n;
    while (!s->done) {
        peri_query q = query_of(1 + pe_rng_below(&r, 10));
        (void)peri_index_search(s->ix, s->rows + pe_rng_below(&r, STILL) * DIM, &q, hits, &n);
    }
    return NULL;
}

/* Exit codes of the child, so that a failure says what it was. */
enum {
    GOOD,
    BAD_SEARCH,
    BAD_MISSED,
    BAD_BATCH,
    BAD_GET,
    BAD_INFO,
    BAD_IDS,
    BAD_PUT,
    BAD_REMOVE,
    BAD_RESERVE,
    BAD_MAINTAIN,
    BAD_SAVE,
    BAD_FILE,
    BAD_NEW
};

static int is_graph(const scene *s)
{
    peri_index_info info;
    peri_index_info_init(&info);
    return peri_index_get_info(s->ix, &info) == PERI_OK && !(info.caps & PERI_CAP_EXACT);
}

static int child_reads(const scene *s)
{
    enum { N = 30 };
    peri_hit hits[N * 2];
    float row[DIM];
    size_t n, n_hits[N];
    peri_query q = query_of(1);
    int missed = 0;
    for (uint64_t id = 0; id < STILL; id += 7) {
        if (peri_index_search(s->ix, s->rows + id * DIM, &q, hits, &n) != PERI_OK || n != 1)
            return BAD_SEARCH;
        missed += hits[0].id != id;
        if (peri_index_get(s->ix, id, row) != PERI_OK ||
            memcmp(row, s->rows + id * DIM, sizeof row) != 0)
            return BAD_GET;
    }
    q = query_of(2);
    if (peri_index_search_many(s->ix, N, s->rows, &q, NULL, hits, n_hits) != PERI_OK)
        return BAD_BATCH;
    for (uint64_t i = 0; i < N; i++)
        if (n_hits[i] != 2)
            return BAD_BATCH;
        else
            missed += hits[i * 2].id != i;
    /* A list of links that was being rewritten stays half written here. */
    if (missed > (is_graph(s) ? 2 : 0))
        return BAD_MISSED;
    peri_index_info info;
    peri_index_info_init(&info);
    if (peri_index_get_info(s->ix, &info) != PERI_OK || info.rows < STILL)
        return BAD_INFO;
    if (peri_index_ids(s->ix, NULL, 0, &n) != PERI_OK || n < STILL)
        return BAD_IDS;
    return GOOD;
}

static int child_writes(const scene *s, const char *path)
{
    size_t n = 9;
    if (peri_index_put(s->ix, 1, s->rows, 0) != PERI_ERR_FORKED ||
        peri_index_put_many(s->ix, 2, NULL, s->rows, 0, NULL, &n) != PERI_ERR_FORKED || n != 0)
        return BAD_PUT;
    if (peri_index_remove(s->ix, 1) != PERI_ERR_FORKED)
        return BAD_REMOVE;
    if (peri_index_reserve(s->ix, 10000) != PERI_ERR_FORKED)
        return BAD_RESERVE;
    if (peri_index_maintain(s->ix, NULL) != PERI_ERR_FORKED)
        return BAD_MAINTAIN;
    /* Saving reads; but where a change was half done there is nothing whole to save. */
    peri_status status = peri_index_save(s->ix, path, NULL);
    if (status != PERI_OK && status != PERI_ERR_FORKED)
        return BAD_SAVE;
    if (status == PERI_OK) {
        peri_index *copy;
        uint64_t faults;
        if (peri_index_open(&copy, path, 0, NULL, NULL) != PERI_OK ||
            peri_index_check(copy, NULL, &faults) != PERI_OK || faults != 0)
            return BAD_FILE;
        peri_index_close(copy);
    }
    return GOOD;
}

/* A child may have indexes of its own. */
static int child_begins_anew(const scene *s)
{
    peri_index *ix = NULL;
    peri_space space;
    peri_query q = query_of(1);
    peri_hit hit;
    size_t n;
    peri_space_init(&space, DIM, 0);
    if (peri_hnsw_create(&ix, &space, NULL, NULL) != PERI_OK ||
        peri_index_put_many(ix, 100, NULL, s->rows, 0, NULL, NULL) != PERI_OK ||
        peri_index_search(ix, s->rows, &q, &hit, &n) != PERI_OK || n != 1 || hit.id != 0)
        return BAD_NEW;
    peri_index_close(ix);
    return GOOD;
}

static int child_main(const scene *s, const char *path)
{
    alarm(LIMIT);
    int code = child_reads(s);
    if (code == GOOD)
        code = child_writes(s, path);
    if (code == GOOD)
        code = child_reads(s);
    if (code == GOOD)
        code = child_begins_anew(s);
    if (code != GOOD)
        fprintf(stderr, "in the child: %s\n", peri_error_detail());
    peri_index_close(s->ix);
    return code;
}

static void run_scene(int kind)
{
    scene s = {.rows = new_rows(2, STILL + MOVING, DIM)};
    pthread_t threads[3];
    const char *path = scratch("forked");
    s.ix = make_index(kind, DIM, PERI_METRIC_L2, 0, NULL, NULL);
    assert_ok(peri_index_put_many(s.ix, STILL, NULL, s.rows, 0, NULL, NULL));
    assert_int_equal(pthread_create(&threads[0], NULL, write_main, &s), 0);
    for (int i = 1; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_main, &s), 0);
    int bad = 0;
    for (int i = 0; i < FORKS && !bad; i++) {
        int status = 0;
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0)
            _exit(child_main(&s, path));
        assert_true(pid > 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        bad = !WIFEXITED(status) || WEXITSTATUS(status) != GOOD;
        if (bad && WIFSIGNALED(status))
            print_error("child %d: signal %d%s\n", i, WTERMSIG(status),
                        WTERMSIG(status) == SIGALRM ? " (it hung)" : "");
        else if (bad)
            print_error("child %d: exit code %d\n", i, WEXITSTATUS(status));
    }
    s.done = 1;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_false(bad);
    assert_index_valid(s.ix); /* the parent never noticed */
    peri_index_close(s.ix);
    free(s.rows);
}

static void a_forked_child_reads_a_flat_index_and_may_not_write(void **state)
{
    (void)state;
    run_scene(KIND_FLAT);
}

static void a_forked_child_reads_a_graph_and_may_not_write(void **state)
{
    (void)state;
    run_scene(KIND_HNSW);
}

/* Forked before anything else went on: all of this goes for a mapped file too, and what the child
 * does is not seen by the parent. */
static void a_forked_child_reads_a_mapped_file(void **state)
{
    (void)state;
    const char *path = scratch("mapped");
    scene s = {.rows = new_rows(2, STILL + MOVING, DIM)};
    peri_index *ix = make_index(KIND_HNSW, DIM, PERI_METRIC_L2, 0, NULL, NULL);
    assert_ok(peri_index_put_many(ix, STILL, NULL, s.rows, 0, NULL, NULL));
    assert_ok(peri_index_save(ix, path, NULL));
    peri_index_close(ix);
    for (uint32_t flags = 0; flags < 4; flags++) {
        int status = 0;
        assert_ok(peri_index_open(&s.ix, path, flags, NULL, NULL));
        pid_t pid = fork();
        if (pid == 0) {
            alarm(LIMIT);
            int code = child_reads(&s);
            if (code == GOOD && peri_index_put(s.ix, 1, s.rows, 0) == PERI_OK)
                code = BAD_PUT;
            peri_index_close(s.ix);
            _exit(code);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == GOOD);
        assert_int_equal(child_reads(&s), GOOD);
        assert_index_valid(s.ix);
        peri_index_close(s.ix);
    }
    free(s.rows);
}

int main(void)
{
#if defined(__SANITIZE_ADDRESS__)
    /* The address sanitiser's own allocator keeps its locks as they were when a thread forks: a
     * child that allocates may wait for ever. The other builds ask. */
    print_message("a child of fork cannot allocate under the address sanitiser: not asked\n");
    return 77;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_forked_child_reads_a_flat_index_and_may_not_write),
        cmocka_unit_test(a_forked_child_reads_a_graph_and_may_not_write),
        cmocka_unit_test(a_forked_child_reads_a_mapped_file),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
