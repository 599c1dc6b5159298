/* kill -9 at a random moment, many times: a child writes to a history and tells each accepted batch
 * through a pipe; what it told is there afterwards, whole, and nothing that it did not write.
 * The control: at the level `memory` the same loop does lose what was accepted. */
#include "corrupt/corrupt.h"
#include "histories.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

enum { KILLS = 300, KEYS = 16 };

static peri_status write_batch(pe_history *h, uint64_t i, int level)
{
    char key[32], value[700];
    size_t size = 20 + (size_t)(pe_mix64(i) % 600);
    memset(value, 'a' + (int)(i % 26), sizeof value);
    snprintf(value, 20, "%llu ", (unsigned long long)i);
    snprintf(key, sizeof key, "key %d", (int)(i % KEYS));
    pe_write w[2] = {{PE_OP_PUT, 3, 1, text("counter"), {value, 20}},
                     {PE_OP_PUT, 3, 1, {key, strlen(key)}, {value, size}}};
    return pe_history_write(h, w, 2, level, NULL, NULL);
}

static pe_history_config config_of(const char *dir, uint32_t level)
{
    return (pe_history_config){
        .dir = dir, .create = 1, .durability = level, .file_size = 1 << 17, .hint_bytes = 50000};
}

static uint64_t number_of(pe_history *h, const char *key)
{
    pe_read r;
    pe_version v;
    assert_int_equal(pe_read_begin(&r, h, 0), PERI_OK);
    peri_status status = pe_read_get(&r, text(key), &v);
    uint64_t n = status == PERI_OK ? strtoull((const char *)v.value, NULL, 10) : 0;
    assert_true(status == PERI_OK || status == PERI_ERR_NOT_FOUND);
    pe_read_end(&r);
    return n;
}

/* The child: goes on from what it finds, until it is killed. */
static void write_until_killed(const char *dir, uint32_t level, int pipe_end)
{
    pe_history *h;
    pe_history_config c = config_of(dir, level);
    if (pe_history_open(&h, NULL, &c) != PERI_OK)
        _exit(2);
    uint64_t n = number_of(h, "counter");
    for (;;) {
        if (write_batch(h, ++n, 0) != PERI_OK)
            _exit(3);
        if (write(pipe_end, &n, sizeof n) != sizeof n)
            _exit(4);
        pe_retention keep = {.keep = n % 200 == 100 ? 1 : 0};
        if (n % 100 == 0 && pe_history_compact(h, &keep, NULL) != PERI_OK)
            _exit(5);
    }
}

/* One life; returns what it told last. */
static uint64_t one_life(const char *dir, uint32_t level, pe_rng *rng)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        write_until_killed(dir, level, ends[1]);
    }
    close(ends[1]);
    uint64_t told = 0, n;
    /* Killed after a number of batches and then some, so that death may come anywhere. */
    uint32_t batches = pe_rng_below(rng, 60);
    for (uint32_t i = 0; i < batches && read(ends[0], &n, sizeof n) == sizeof n; i++)
        told = n;
    struct timespec wait = {0, (long)pe_rng_below(rng, 400000)};
    nanosleep(&wait, NULL);
    kill(child, SIGKILL);
    while (read(ends[0], &n, sizeof n) == sizeof n)
        told = n;
    close(ends[0]);
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how)); /* it died of nothing else */
    return told;
}

static uint64_t run(uint32_t level, uint64_t kills)
{
    const char *dir = scratch(level == PE_DURABLE_MEMORY ? "kill-memory" : "kill");
    pe_rng rng = {level};
    uint64_t lost = 0;
    dir_remove(dir);
    for (uint64_t i = 0; i < kills; i++) {
        uint64_t told = one_life(dir, level, &rng), n;
        pe_history *h;
        pe_history_config c = config_of(dir, level);
        assert_int_equal(pe_history_open(&h, NULL, &c), PERI_OK);
        n = number_of(h, "counter");
        lost += n < told;
        assert_true(n <= told + 1 || told == 0);
        for (uint64_t k = 0; k < KEYS && n > KEYS; k++) { /* whole batches only */
            char key[32];
            snprintf(key, sizeof key, "key %d", (int)((n - k) % KEYS));
            assert_int_equal(number_of(h, key), n - k);
        }
        if (i % 16 == 0)
            assert_history_sound(h);
        pe_history_close(h);
    }
    dir_remove(dir);
    return lost;
}

static void test_kill_9_loses_nothing_that_was_accepted(void **state)
{
    (void)state;
    uint64_t kills = corrupt_scale(KILLS);
    uint64_t lost = run(PE_DURABLE_PROCESS, kills) + run(PE_DURABLE_COMMIT, kills / 4);
    print_message("%llu kills, %llu lost something\n", (unsigned long long)(kills + kills / 4),
                  (unsigned long long)lost);
    assert_int_equal(lost, 0);
}

static void test_the_harness_sees_what_memory_loses(void **state)
{
    (void)state;
    uint64_t lost = run(PE_DURABLE_MEMORY, 20);
    print_message("in memory only: %llu of 20 lost something\n", (unsigned long long)lost);
    assert_true(lost > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kill_9_loses_nothing_that_was_accepted),
        cmocka_unit_test(test_the_harness_sees_what_memory_loses),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
