/* A child writes to a vector file and acknowledges each checkpoint through a pipe; it is killed at
 * a random moment; the file must open and hold exactly what its last checkpoint held: that which
 * was acknowledged last, or one more. The next child goes on from there. */
#include "corrupt/corrupt.h"
#include "vectors.h"

#include <signal.h>
#include <sys/wait.h>

enum { DIM = 32, NAMES = 200 };

typedef struct names_state {
    uint32_t version[NAMES];
} names_state;

static const char *path;
static peri_slice *keys;

static void row_of(unsigned name, uint32_t version, float row[DIM])
{
    for (unsigned i = 0; i < DIM; i++)
        row[i] = (float)(name * 4096 + version % 4096) + (float)i / 64;
}

/* What the step changes follows from its number alone. */
static void plan(uint32_t number, names_state *s, unsigned names[16], int *n)
{
    pe_rng rng = {number};
    *n = 1 + (int)pe_rng_below(&rng, 15);
    for (int i = 0; i < *n; i++) {
        names[i] = pe_rng_below(&rng, NAMES);
        s->version[names[i]] = pe_rng_below(&rng, 5) ? number : 0;
    }
}

static int step(peri_vectors *v, uint32_t number, names_state *s)
{
    unsigned names[16];
    int n;
    float row[DIM];
    plan(number, s, names, &n);
    for (int i = 0; i < n; i++) {
        uint32_t version = s->version[names[i]];
        row_of(names[i], version, row);
        peri_status status = version ? peri_vectors_insert(v, keys[names[i]], row, 0, NULL)
                                     : peri_vectors_delete(v, keys[names[i]]);
        if (status != PERI_OK && !(status == PERI_ERR_NOT_FOUND && !version))
            return 0;
    }
    for (int i = 0; i < DIM; i++)
        row[i] = (float)number;
    if (peri_vectors_insert(v, key_of_text("clock"), row, 0, NULL) != PERI_OK)
        return 0;
    if (number % 16 == 0)
        return peri_vectors_compact(v, NULL) == PERI_OK;
    if (number % 16 == 8) {
        peri_index *ix;
        peri_space space = space_of(DIM, PERI_METRIC_L2, 0);
        return peri_flat_create(&ix, &space, NULL) == PERI_OK &&
               peri_vectors_build_index(v, ix, NULL) == PERI_OK;
    }
    return peri_vectors_checkpoint(v) == PERI_OK;
}

static void child(uint32_t number, names_state s, int pipe_end)
{
    peri_vectors *v;
    if (peri_vectors_open(&v, path, 0, NULL, NULL) != PERI_OK)
        _exit(3);
    for (;;) {
        if (!step(v, ++number, &s))
            _exit(4);
        if (write(pipe_end, &number, sizeof number) != sizeof number)
            _exit(5);
    }
}

static uint32_t clock_of(const peri_vectors *v)
{
    float row[DIM];
    peri_status status = peri_vectors_get(v, key_of_text("clock"), row, NULL);
    return status == PERI_OK ? (uint32_t)row[0] : 0;
}

static void assert_holds(const peri_vectors *v, const names_state *s)
{
    float want[DIM], got[DIM];
    for (unsigned i = 0; i < NAMES; i++) {
        assert_status(s->version[i] ? PERI_OK : PERI_ERR_NOT_FOUND,
                      peri_vectors_get(v, keys[i], got, NULL));
        row_of(i, s->version[i], want);
        if (s->version[i])
            assert_memory_equal(want, got, sizeof want);
    }
}

static void a_killed_writer_loses_nothing_that_was_acknowledged(void **state)
{
    (void)state;
    names_state s = {{0}};
    uint32_t number = 0, acked = 0, said;
    uint64_t rounds = corrupt_scale(120), more = 0;
    pe_rng rng = {77};
    path = scratch("kill.vectors");
    keys = number_keys("n", 0, NAMES);
    peri_vectors_close(make_vectors(path, DIM, PERI_METRIC_L2, 0, NULL));
    for (uint64_t round = 0; round < rounds; round++) {
        int ends[2], status, n;
        unsigned names[16];
        assert_int_equal(pipe(ends), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            child(number, s, ends[1]);
        close(ends[1]);
        usleep(pe_rng_below(&rng, 12000));
        kill(pid, SIGKILL);
        while (read(ends[0], &said, sizeof said) == sizeof said)
            acked = said;
        close(ends[0]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFSIGNALED(status))
            fail_msg("the child ended by itself with %d", WEXITSTATUS(status));
        peri_vectors *v = open_vectors(path, 0, NULL); /* the lock died with the child */
        uint32_t now = clock_of(v);
        if (now < acked || now > acked + 1)
            fail_msg("round %llu: the clock is %u, acknowledged was %u", (unsigned long long)round,
                     now, acked);
        more += now > acked;
        while (number < now)
            plan(++number, &s, names, &n);
        assert_holds(v, &s);
        assert_vectors_valid(v);
        peri_vectors_close(v);
        acked = now;
    }
    print_message("%llu kills, %u checkpoints, %llu that were done but not yet acknowledged\n",
                  (unsigned long long)rounds, number, (unsigned long long)more);
    assert_true(number > rounds / 4);
    free_keys(keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_writer_loses_nothing_that_was_acknowledged),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
