/* Power cuts in a history's work, thousands of states: nothing that was promised durable is lost,
 * nothing is altered or invented, a batch is there whole or not at all. The same harness finds the
 * planted bugs: calls that should make something durable and do not.
 *
 * PERIGEE_PROVE in the environment multiplies the number of states. */
#include "corrupt/corrupt.h"
#include "crash/power.h"
#include "histories.h"

enum { BATCHES = 260, KEYS = 12, STATES = 4000, STATES_PLANTED = 1500 };

/* What is recorded lies on a memory file system where there is one: states are written by the
 * thousand. */
static const char *fast_dir(const char *name)
{
    static int tried;
    if (!tried++ && !getenv("TMPDIR") && access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    return scratch(name);
}

/* Batch i: the counter, its twin, and one key of KEYS, whose values all tell i. */
static peri_status write_batch(pe_history *h, uint64_t i, int level, uint64_t *sequence)
{
    char key[32], value[1600];
    size_t size = 20 + (size_t)(pe_mix64(i) % (i % 10 == 0 ? 1500 : 200));
    memset(value, 'a' + (int)(i % 26), size);
    snprintf(value, 20, "%llu ", (unsigned long long)i);
    snprintf(key, sizeof key, "key %d", (int)(i % KEYS));
    pe_write w[3] = {
        {PE_OP_PUT, 3, (int64_t)i, text("counter"), {value, 20}},
        {PE_OP_PUT, 3, (int64_t)i, {key, strlen(key)}, {value, size}},
        {PE_OP_PUT, 3, (int64_t)i, text("twin"), {value, 20}},
    };
    return pe_history_write(h, w, 3, level, sequence, NULL);
}

static pe_history_config config_of(const char *dir)
{
    return (pe_history_config){.dir = dir,
                               .create = 1,
                               .durability = PE_DURABLE_COMMIT,
                               .file_size = 1 << 16,
                               .hint_bytes = 20000};
}

/* The workload; sequence i is batch i. */
static void record(power *p, const char *dir, power_bug bug)
{
    pe_history *h;
    pe_history_config c = config_of(dir);
    pe_rng rng = {77};
    dir_remove(dir);
    mkdir(dir, 0777);
    power_start(p, dir, bug);
    assert_int_equal(pe_history_open(&h, &p->env, &c), PERI_OK);
    for (uint64_t i = 1; i <= BATCHES; i++) {
        uint64_t sequence;
        int level = 1 + (int)pe_rng_below(&rng, 4);
        assert_int_equal(write_batch(h, i, level, &sequence), PERI_OK);
        assert_int_equal(sequence, i);
        if (level == PE_DURABLE_COMMIT)
            power_ack(p, i);
        if (i == 90 || i == 200) { /* in the middle of a file, and of a hint's life */
            pe_retention keep = {.keep = i == 90 ? 0 : 2};
            assert_int_equal(pe_history_compact(h, &keep, NULL), PERI_OK);
        }
        if (i % 70 == 60) {
            assert_int_equal(pe_history_save_hint(h), PERI_OK);
            pe_history_close(h);
            power_ack(p, i);
            assert_int_equal(pe_history_open(&h, &p->env, &c), PERI_OK);
        }
    }
    pe_history_close(h);
    power_ack(p, BATCHES);
}

static int number_of(pe_history *h, const char *key, uint64_t *out)
{
    pe_read r;
    pe_version v;
    if (pe_read_begin(&r, h, 0) != PERI_OK)
        return 0;
    peri_status status = pe_read_get(&r, text(key), &v);
    *out = status == PERI_OK ? strtoull((const char *)v.value, NULL, 10) : 0;
    pe_read_end(&r);
    return status == PERI_OK || status == PERI_ERR_NOT_FOUND;
}

typedef enum verdict { GOOD, REFUSED, LOST, WRONG } verdict;

/* Open what is there, hold it against the batches, go on writing, open again. */
static verdict look(const char *dir, uint64_t acked, uint64_t issued)
{
    pe_history *h;
    pe_history_config c = config_of(dir);
    uint64_t n = 0, twin = 0, faults = 0;
    if (pe_history_open(&h, NULL, &c) != PERI_OK)
        return REFUSED;
    verdict v = GOOD;
    if (!number_of(h, "counter", &n) || !number_of(h, "twin", &twin) || n != twin || n > issued)
        v = WRONG;
    else if (n < acked)
        v = LOST;
    for (uint64_t k = 0; k < KEYS && v == GOOD; k++) {
        char key[32];
        uint64_t got, want = n - (n + KEYS - k) % KEYS; /* the last batch up to n of this key */
        snprintf(key, sizeof key, "key %d", (int)k);
        if (n < KEYS && k > n)
            want = 0;
        if (!number_of(h, key, &got) || got != (want > n ? 0 : want))
            v = WRONG;
    }
    if (v == GOOD && (pe_history_check(h, &faults) != PERI_OK || faults))
        v = WRONG;
    uint64_t sequence = 0, again = 0;
    if (v == GOOD &&
        (write_batch(h, n + 1, PE_DURABLE_COMMIT, &sequence) != PERI_OK || sequence != n + 1))
        v = WRONG;
    pe_history_close(h);
    if (v == GOOD) {
        if (pe_history_open(&h, NULL, &c) != PERI_OK)
            return REFUSED;
        if (!number_of(h, "counter", &again) || again != n + 1)
            v = WRONG;
        pe_history_close(h);
    }
    return v;
}

/* A second cut while the first one's state is recovered. */
static verdict look_twice(const char *dir, const char *second, uint64_t acked, uint64_t issued,
                          pe_rng *rng)
{
    power p;
    pe_history *h;
    pe_history_config c = config_of(dir);
    power_start(&p, dir, POWER_SOUND);
    /* What lies there was durable: it is noted as written and synced. */
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] == '.' && !strstr(e->d_name, ".tmp"))
            continue;
        blob b = blob_load(path);
        int fd = p.files.open(&p, path, 0, 0);
        power_event *w;
        p.files.sync(&p, fd);
        w = &p.events[p.n - 1];
        w->kind = POWER_WRITE;
        w->size = b.size;
        w->data = b.data;
        p.files.sync(&p, fd);
        p.files.close(&p, fd);
    }
    closedir(d);
    char inside[PATH_MAX];
    snprintf(inside, sizeof inside, "%s/x", dir);
    p.files.sync_dir(&p, inside);
    size_t before = p.n;
    peri_status status = pe_history_open(&h, &p.env, &c);
    if (status == PERI_OK)
        pe_history_close(h);
    size_t at = before + pe_rng_below(rng, (uint32_t)(p.n - before) + 1);
    power_cut(&p, at, rng, second);
    power_free(&p);
    return status == PERI_OK ? look(second, acked, issued) : REFUSED;
}

typedef struct tally {
    uint64_t tried, bad[4];
} tally;

static tally run(power_bug bug, uint64_t states, int complain)
{
    const char *dir = fast_dir("recorded"), *state = fast_dir("state"),
               *second = fast_dir("second");
    static const char *const words[] = {"good", "refused", "lost", "wrong"};
    power p;
    tally t = {0};
    pe_rng rng = {99};
    record(&p, dir, bug);
    for (; t.tried < states; t.tried++) {
        size_t at = pe_rng_below(&rng, (uint32_t)p.n + 1);
        pe_rng before = rng;
        uint64_t acked = power_cut(&p, at, &rng, state);
        verdict v = t.tried % 8 ? look(state, acked, BATCHES)
                                : look_twice(state, second, acked, BATCHES, &rng);
        t.bad[v]++;
        if (v != GOOD && complain && t.bad[0] + 20 > t.tried)
            print_message("cut at %zu of %zu, rng %llx, acked %llu: %s: %s\n", at, p.n,
                          (unsigned long long)before.state, (unsigned long long)acked, words[v],
                          peri_error_detail());
    }
    power_free(&p);
    dir_remove(dir);
    dir_remove(state);
    dir_remove(second);
    return t;
}

static void test_a_power_cut_loses_nothing_that_was_promised(void **state)
{
    (void)state;
    tally t = run(POWER_SOUND, corrupt_scale(STATES), 1);
    print_message("%llu states: %llu refused, %llu lost, %llu wrong\n", (unsigned long long)t.tried,
                  (unsigned long long)t.bad[REFUSED], (unsigned long long)t.bad[LOST],
                  (unsigned long long)t.bad[WRONG]);
    assert_int_equal(t.bad[REFUSED] + t.bad[LOST] + t.bad[WRONG], 0);
}

static void test_the_harness_finds_planted_bugs(void **state)
{
    (void)state;
    static const power_bug bugs[] = {POWER_NO_DATASYNC, POWER_NO_SYNC, POWER_NO_SYNC_DIR};
    static const char *const names[] = {"no fdatasync", "no fsync", "no fsync of the directory"};
    for (size_t i = 0; i < 3; i++) {
        tally t = run(bugs[i], STATES_PLANTED, 0);
        uint64_t found = t.bad[REFUSED] + t.bad[LOST] + t.bad[WRONG];
        print_message("%s: %llu of %llu states show it\n", names[i], (unsigned long long)found,
                      (unsigned long long)t.tried);
        assert_true(found > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_power_cut_loses_nothing_that_was_promised),
        cmocka_unit_test(test_the_harness_finds_planted_bugs),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
