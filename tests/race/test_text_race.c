/* Readers of a text index beside a writer that puts, replaces, removes, merges and saves; and a
 * process that forks meanwhile. Documents come in pairs, put in one batch, so that every snapshot
 * holds both halves of a pair or neither; documents that nobody touches are found every time.
 * Small, so that the thread sanitiser gets through it. */
#include "perigee/text.h"
#include "scratch.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { STILL = 100, PAIRS = 60, READERS = 3, FORKS = 15, K = 400 };

typedef struct arena {
    peri_text *ix;
    _Atomic unsigned steps;
    _Atomic int done, failed;
    _Atomic uint64_t searches;
    char what[200];
} arena;

static void complain(arena *a, const char *what)
{
    if (atomic_exchange(&a->failed, 1) == 0)
        snprintf(a->what, sizeof a->what, "%s", what);
}

static unsigned draw(uint64_t *state, unsigned n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((*state >> 33) * n >> 31);
}

static uint64_t half(unsigned pair, unsigned which)
{
    return STILL + 2 * pair + which;
}

/* A pair's documents have a word in common that changes with every version. */
static peri_status put_pair(peri_text *ix, unsigned pair, unsigned version)
{
    char text[2][120];
    peri_slice texts[2];
    uint64_t ids[2] = {half(pair, 0), half(pair, 1)};
    for (unsigned i = 0; i < 2; i++)
        texts[i] = (peri_slice){text[i], (size_t)snprintf(text[i], 120,
                                                          "pair pair%u version%u common words v%u",
                                                          pair, version, version % 50)};
    return peri_text_put_many(ix, 2, ids, texts, 0, NULL, NULL);
}

static void *write_main(void *arg)
{
    arena *a = arg;
    uint64_t state = 5;
    char path[64];
    snprintf(path, sizeof path, "%s", "race");
    for (unsigned step = 0; step < a->steps && !a->failed; step++) {
        unsigned pair = draw(&state, PAIRS);
        peri_status status = PERI_OK;
        if (step % 50 == 49)
            status = peri_text_maintain(a->ix, step % 100 == 99, NULL);
        else if (step % 120 == 70)
            status = peri_text_save(a->ix, scratch(path), NULL);
        else
            status = put_pair(a->ix, pair, step);
        if (status != PERI_OK)
            complain(a, peri_error_detail());
    }
    a->done = 1;
    return NULL;
}

static void check_pairs(arena *a, const peri_scored *hits, size_t n)
{
    unsigned seen[PAIRS] = {0}, still = 0;
    for (size_t i = 0; i < n; i++) {
        if (hits[i].id < STILL)
            still++;
        else if (hits[i].id < STILL + 2 * PAIRS)
            seen[(hits[i].id - STILL) / 2]++;
        else
            complain(a, "an id that never was");
        if (i && hits[i - 1].score < hits[i].score)
            complain(a, "hits out of order");
    }
    if (still != STILL)
        complain(a, "a document that nobody touched was missed");
    for (unsigned p = 0; p < PAIRS; p++)
        if (seen[p] == 1)
            complain(a, "half of a pair");
}

static void *read_main(void *arg)
{
    arena *a = arg;
    peri_scored hits[K];
    peri_text_query q;
    size_t n;
    static const char *const queries[] = {"common", "common AND words", "comm*", "\"common words\"",
                                          "common words version1"};
    for (unsigned i = 0; !a->done && !a->failed; i++) {
        peri_text_query_init(&q, K);
        if (peri_text_search(a->ix, peri_slice_of(queries[i % 5]), &q, hits, &n) != PERI_OK)
            complain(a, peri_error_detail());
        else
            check_pairs(a, hits, n);
        a->searches++;
    }
    return NULL;
}

static void fill(arena *a)
{
    peri_text_config c;
    peri_text_config_init(&c);
    c.positions = 1;
    assert_int_equal(peri_text_create(&a->ix, &c, NULL), PERI_OK);
    for (uint64_t id = 0; id < STILL; id++)
        assert_int_equal(peri_text_put(a->ix, id, peri_slice_of("some common words that stay"), 0),
                         PERI_OK);
}

static void readers_see_whole_batches_while_one_writes(void **state)
{
    (void)state;
    arena a = {.steps = 1500};
    pthread_t writer, readers[READERS];
    uint64_t faults;
    fill(&a);
    scratch("race");
    assert_int_equal(pthread_create(&writer, NULL, write_main, &a), 0);
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, read_main, &a), 0);
    pthread_join(writer, NULL);
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    if (a.failed)
        fail_msg("%s", a.what);
    assert_true(a.searches > 20);
    assert_int_equal(peri_text_check(a.ix, NULL, &faults), PERI_OK);
    assert_int_equal(faults, 0);
    peri_text_close(a.ix);
}

static int child(const arena *a)
{
    peri_scored hits[K];
    peri_text_query q;
    size_t n;
    peri_text_query_init(&q, K);
    if (peri_text_search(a->ix, peri_slice_of("common"), &q, hits, &n) != PERI_OK || n < STILL)
        return 1;
    if (peri_text_put(a->ix, 1, peri_slice_of("x"), 0) != PERI_ERR_FORKED ||
        peri_text_remove(a->ix, 1) != PERI_ERR_FORKED ||
        peri_text_maintain(a->ix, 1, NULL) != PERI_ERR_FORKED)
        return 2;
    peri_text_close(a->ix);
    return 0;
}

static void a_forked_child_reads_and_may_not_write(void **state)
{
    (void)state;
    arena a = {.steps = UINT32_MAX};
    pthread_t writer;
    fill(&a);
    scratch("race");
    assert_int_equal(pthread_create(&writer, NULL, write_main, &a), 0);
    for (unsigned i = 0; i < FORKS; i++) {
        int said;
        usleep(2000);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            alarm(20);
            _exit(child(&a));
        }
        assert_int_equal(waitpid(pid, &said, 0), pid);
        if (!WIFEXITED(said) || WEXITSTATUS(said) != 0)
            fail_msg("child %u: status 0x%x", i, said);
    }
    a.steps = 0;
    pthread_join(writer, NULL);
    if (a.failed)
        fail_msg("%s", a.what);
    peri_text_close(a.ix);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { FORK_IS_ASKED = 0 }; /* the sanitisers' own locks do not survive it */
#else
enum { FORK_IS_ASKED = 1 };
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_see_whole_batches_while_one_writes),
        cmocka_unit_test(a_forked_child_reads_and_may_not_write),
    };
    return _cmocka_run_group_tests("text race", tests, FORK_IS_ASKED ? 2 : 1, NULL, scratch_remove);
}
