/* Power cuts at every call that a vector file's life makes on the disk, thousands of states: each
 * must open and hold exactly what the last acknowledged checkpoint held, or the one that was under
 * way. And the control: with one sync left out the harness finds lost rows. */
#include "corrupt/corrupt.h"
#include "powercut.h"
#include "vectors.h"

enum { DIM = 24, NAMES = 120, ROUNDS = 40 };

typedef struct names_state {
    uint32_t version[NAMES];
} names_state;

typedef struct world {
    powercut p;
    peri_env env;
    peri_vectors *v;
    const char *path, *index, *cut_path, *cut_index;
    names_state now, acked, flight; /* flight: what a checkpoint that is under way would make */
    int created;
    uint32_t versions;
    pe_rng rng;
    peri_slice *keys;
    uint64_t states, lost, per_cut, went_on;
    char first[512];
} world;

static void row_of(unsigned name, uint32_t version, float row[DIM])
{
    for (unsigned i = 0; i < DIM; i++)
        row[i] = (float)(name * 1000 + version) + (float)i / 32;
}

static int holds(const peri_vectors *v, const peri_slice *keys, const names_state *s)
{
    float want[DIM], got[DIM];
    for (unsigned i = 0; i < NAMES; i++) {
        peri_status status = peri_vectors_get(v, keys[i], got, NULL);
        if (status != (s->version[i] ? PERI_OK : PERI_ERR_NOT_FOUND))
            return 0;
        row_of(i, s->version[i], want);
        if (s->version[i] && memcmp(want, got, sizeof want) != 0)
            return 0;
    }
    return 1;
}

/* Opened as the next process would; now and then it is written to and cut off as well. */
static const char *verify(world *w)
{
    peri_vectors *v;
    uint64_t faults = 1;
    int write = w->states % 16 == 0;
    if (peri_vectors_open(&v, w->cut_path, write ? 0 : PERI_OPEN_READONLY, NULL, NULL) != PERI_OK)
        return peri_error_detail();
    const char *bad = NULL;
    if (!holds(v, w->keys, &w->acked) && !holds(v, w->keys, &w->flight))
        bad = "holds neither the last checkpoint nor the next";
    if (!bad && (peri_vectors_check(v, NULL, &faults) != PERI_OK || faults))
        bad = peri_error_detail();
    if (!bad && write) {
        float row[DIM];
        row_of(1, 7, row);
        names_state had = holds(v, w->keys, &w->acked) ? w->acked : w->flight;
        if (peri_vectors_insert(v, w->keys[1], row, 0, NULL) != PERI_OK ||
            peri_vectors_checkpoint(v) != PERI_OK)
            bad = peri_error_detail();
        had.version[1] = 7;
        peri_vectors_close(v);
        if (peri_vectors_open(&v, w->cut_path, 0, NULL, NULL) != PERI_OK)
            return peri_error_detail();
        if (!bad && !holds(v, w->keys, &had))
            bad = "does not hold what was written after recovery";
        w->went_on++;
    }
    peri_vectors_close(v);
    return bad;
}

static int put_state(world *w, const char *path, const char *to, int names, unsigned mood)
{
    unsigned char *data;
    size_t size;
    unlink(to);
    if (!powercut_rebuild(&w->p, path, names, mood, &w->rng, &data, &size))
        return 0;
    blob_save(to, data, size);
    free(data);
    return 1;
}

static void cut(powercut *p, const char *call)
{
    world *w = p->ctx;
    p->cut = NULL; /* opening the states is not part of the story */
    for (uint64_t i = 0; i < w->per_cut; i++) {
        unsigned mood = (unsigned)(i % 8);
        int names = powercut_names(p, &w->rng);
        const char *bad = NULL;
        int there = put_state(w, w->path, w->cut_path, names, mood);
        put_state(w, w->index, w->cut_index, names, mood);
        w->states++;
        if (there)
            bad = verify(w);
        else if (w->created)
            bad = "the file is gone";
        if (bad && w->lost++ == 0)
            snprintf(w->first, sizeof w->first, "state %llu, before %s: %s",
                     (unsigned long long)w->states, call, bad);
    }
    p->cut = cut;
}

static void change(world *w)
{
    float rows[10][DIM];
    peri_slice keys[10];
    size_t n = 1 + pe_rng_below(&w->rng, 10);
    for (size_t i = 0; i < n; i++) {
        unsigned name = pe_rng_below(&w->rng, NAMES);
        w->now.version[name] = ++w->versions;
        row_of(name, w->versions, rows[i]);
        keys[i] = w->keys[name];
    }
    assert_ok(peri_vectors_insert_batch(w->v, n, keys, rows[0], 0, NULL));
    for (unsigned i = pe_rng_below(&w->rng, 4); i > 0; i--) {
        unsigned name = pe_rng_below(&w->rng, NAMES);
        if (w->now.version[name])
            assert_ok(peri_vectors_delete(w->v, w->keys[name]));
        w->now.version[name] = 0;
    }
}

static void acknowledge(world *w, peri_status status)
{
    assert_ok(status);
    w->acked = w->flight = w->now;
}

static void begin(world *w)
{
    w->flight = w->now;
    w->p.syncs = 0;
}

static void live(world *w)
{
    peri_space space = space_of(DIM, PERI_METRIC_L2, 0);
    unlink(w->path);
    assert_ok(peri_vectors_create(&w->v, w->path, &space, NULL, &w->env));
    w->created = 1;
    for (int round = 0; round < ROUNDS; round++) {
        for (unsigned i = 1 + pe_rng_below(&w->rng, 3); i > 0; i--)
            change(w);
        if (round % 10 == 9) { /* with changes that no checkpoint has seen */
            begin(w);
            acknowledge(w, peri_vectors_compact(w->v, NULL));
        } else if (round % 10 == 6) {
            begin(w);
            peri_index *ix = make_index(KIND_FLAT, DIM, PERI_METRIC_L2, 0, NULL, NULL);
            acknowledge(w, peri_vectors_build_index(w->v, ix, NULL));
        } else if (round % 10 == 3) { /* no clean end: the file goes on from the last checkpoint */
            peri_vectors_close(w->v);
            w->now = w->acked;
            assert_ok(peri_vectors_open(&w->v, w->path, 0, NULL, &w->env));
        } else {
            begin(w);
            acknowledge(w, peri_vectors_checkpoint(w->v));
        }
    }
    peri_vectors_close(w->v);
}

static void run(world *w, int forget, uint64_t seed, uint64_t per_cut)
{
    memset(w, 0, sizeof *w);
    powercut_init(&w->p);
    w->p.ctx = w;
    w->p.cut = cut;
    w->p.forget = forget;
    peri_env_init(&w->env);
    w->env.files = &w->p.files;
    w->path = scratch("power.vectors");
    w->index = scratch("power.vectors.index");
    w->cut_path = scratch("cut.vectors");
    w->cut_index = scratch("cut.vectors.index");
    w->rng.state = seed;
    w->per_cut = per_cut;
    w->keys = number_keys("name-", 0, NAMES);
    unlink(w->index);
    live(w);
    free_keys(w->keys);
    powercut_free(&w->p);
    print_message("%llu states, %llu written to afterwards, %llu lost%s%s\n",
                  (unsigned long long)w->states, (unsigned long long)w->went_on,
                  (unsigned long long)w->lost, w->lost ? "; first: " : "", w->first);
}

static void no_power_cut_loses_a_checkpoint(void **state)
{
    (void)state;
    world *w = malloc(sizeof *w);
    uint64_t runs = corrupt_scale(3), states = 0;
    for (uint64_t seed = 1; seed <= runs; seed++) {
        run(w, 0, seed, 8);
        if (w->lost)
            fail_msg("seed %llu: %s", (unsigned long long)seed, w->first);
        states += w->states;
    }
    assert_true(states >= runs * 1000);
    free(w);
}

static void a_sync_left_out_is_noticed(void **state)
{
    (void)state;
    static const int forget[] = {FORGET_FIRST_SYNC, FORGET_OTHER_SYNC, FORGET_DIR_SYNC};
    world *w = malloc(sizeof *w);
    for (size_t i = 0; i < 3; i++) {
        run(w, forget[i], 5, 3);
        assert_true(w->lost > 0);
    }
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_power_cut_loses_a_checkpoint),
        cmocka_unit_test(a_sync_left_out_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
