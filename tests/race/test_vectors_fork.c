/* A process that forks while threads read and write a vector file: in the child reads work, writes
 * are refused, close releases, nothing waits for a thread that is not there, and the parent's lock
 * stays where it is. The moment of the fork is left to chance, so there are many. */
#include "vectors.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { DIM = 8, STILL = 300, MOVING = 300, FORKS = 60, LIMIT = 20 };

typedef struct scene {
    peri_vectors *v;
    const char *path;
    float *rows;
    peri_slice *keys;
    peri_vectors_view view;
    _Atomic int done;
} scene;

static void *write_main(void *arg)
{
    scene *s = arg;
    pe_rng r = {5};
    for (uint32_t step = 0; !s->done; step++) {
        uint32_t at = STILL + pe_rng_below(&r, MOVING);
        if (step % 400 == 399)
            (void)peri_vectors_compact(s->v, NULL);
        else if (step % 100 == 99)
            (void)peri_vectors_checkpoint(s->v);
        else if (step % 5 == 4)
            (void)peri_vectors_delete(s->v, s->keys[at]);
        else
            (void)peri_vectors_insert(s->v, s->keys[at], s->rows + at * DIM, 0, NULL);
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
        (void)peri_vectors_search(s->v, s->rows + pe_rng_below(&r, STILL) * DIM, &q, hits, &n);
    }
    return NULL;
}

/* Exit codes of the child, so that a failure says what it was. */
enum { GOOD, BAD_GET, BAD_SEARCH, BAD_LEN, BAD_VIEW, BAD_WRITE, BAD_LOCK, BAD_READER };

static int child_reads(const scene *s)
{
    float row[DIM];
    peri_hit hit;
    peri_query q = query_of(1);
    size_t n;
    uint64_t len;
    for (size_t i = 0; i < STILL; i += 7) {
        if (peri_vectors_get(s->v, s->keys[i], row, NULL) != PERI_OK ||
            memcmp(row, s->rows + i * DIM, sizeof row) != 0)
            return BAD_GET;
        if (peri_vectors_search(s->v, s->rows + i * DIM, &q, &hit, &n) != PERI_OK || n != 1 ||
            hit.distance > 1e-3f)
            return BAD_SEARCH;
    }
    if (peri_vectors_len(s->v, &len) != PERI_OK || len < STILL)
        return BAD_LEN;
    return memcmp(s->view.data, s->rows, DIM * sizeof(float)) == 0 ? GOOD : BAD_VIEW;
}

static int child_main(scene *s)
{
    int bad = child_reads(s);
    uint64_t faults;
    peri_vectors *other;
    if (bad)
        return bad;
    if (peri_vectors_insert(s->v, s->keys[0], s->rows, 0, NULL) != PERI_ERR_FORKED ||
        peri_vectors_delete(s->v, s->keys[0]) != PERI_ERR_FORKED ||
        peri_vectors_checkpoint(s->v) != PERI_ERR_FORKED ||
        peri_vectors_compact(s->v, NULL) != PERI_ERR_FORKED ||
        peri_vectors_maintain(s->v, NULL) != PERI_ERR_FORKED ||
        peri_vectors_drop_index(s->v) != PERI_ERR_FORKED ||
        peri_vectors_check(s->v, NULL, &faults) != PERI_ERR_FORKED)
        return BAD_WRITE;
    peri_vectors_close(s->v);
    peri_vectors_release(&s->view);
    if (peri_vectors_open(&other, s->path, 0, NULL, NULL) != PERI_ERR_BUSY)
        return BAD_LOCK;
    if (peri_vectors_open(&other, s->path, PERI_OPEN_READONLY, NULL, NULL) != PERI_OK)
        return BAD_READER;
    peri_vectors_close(other);
    return GOOD;
}

static void a_child_reads_and_the_parent_goes_on(void **state)
{
    (void)state;
    scene s = {.path = scratch("fork.vectors"),
               .rows = new_rows(31, STILL + MOVING, DIM),
               .keys = number_keys("k", 0, STILL + MOVING)};
    pthread_t threads[2];
    s.v = make_vectors(s.path, DIM, PERI_METRIC_L2, 0, NULL);
    assert_ok(peri_vectors_insert_batch(s.v, STILL, s.keys, s.rows, 0, NULL));
    assert_ok(peri_vectors_checkpoint(s.v));
    assert_ok(peri_vectors_view_key(s.v, s.keys[0], &s.view));
    pthread_create(&threads[0], NULL, write_main, &s);
    pthread_create(&threads[1], NULL, read_main, &s);
    for (int i = 0; i < FORKS; i++) {
        int status;
        usleep(700);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            signal(SIGALRM, SIG_DFL);
            alarm(LIMIT);
            _exit(child_main(&s));
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != GOOD)
            fail_msg("child %d: status %x", i, status);
    }
    s.done = 1;
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    assert_int_equal(child_reads(&s), GOOD);
    assert_vectors_valid(s.v);
    peri_vectors_close(s.v);
    peri_vectors_release(&s.view);
    peri_vectors_close(open_vectors(s.path, 0, NULL)); /* nobody holds the lock */
    free_keys(s.keys);
    free(s.rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_reads_and_the_parent_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
