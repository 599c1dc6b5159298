/* String keys: both ways, through moves, removes, compaction, files, and under readers. */
#include "base/rng.h"
#include "base/team.h"
#include "corrupt/reseal.h"
#include "keys/keys.h"
#include "scratch.h"

static pe_host host;
static pe_epoch epoch;

static int setup(void **state)
{
    (void)state;
    assert_int_equal(pe_host_init(&host, NULL), PERI_OK);
    pe_epoch_init(&epoch, &host, NULL);
    return 0;
}

static int teardown(void **state)
{
    pe_epoch_destroy(&epoch);
    assert_int_equal(atomic_load(&host.heap), 0);
    return scratch_remove(state);
}

static pe_keys *new_keys(void)
{
    pe_keys *k;
    assert_int_equal(pe_keys_create(&k, &host, &epoch), PERI_OK);
    return k;
}

static void assert_keys_valid(const pe_keys *k)
{
    uint64_t faults;
    assert_int_equal(pe_keys_check(k, &faults), PERI_OK);
    if (faults)
        fail_msg("%llu faults: %s", (unsigned long long)faults, peri_error_detail());
}

static void set(pe_keys *k, const void *key, size_t size, uint64_t id)
{
    assert_int_equal(pe_keys_reserve(k, 1, size), PERI_OK);
    pe_keys_set(k, (peri_slice){key, size}, id);
}

static void assert_has(const pe_keys *k, const void *key, size_t size, uint64_t id)
{
    uint64_t got = ~id;
    peri_slice back = {0};
    assert_true(pe_keys_find(k, (peri_slice){key, size}, &got));
    assert_int_equal(got, id);
    assert_true(pe_keys_key_of(k, id, &back));
    assert_int_equal(back.size, size);
    assert_memory_equal(back.data, key, size);
}

static void assert_lacks(const pe_keys *k, const void *key, size_t size)
{
    uint64_t id;
    assert_false(pe_keys_find(k, (peri_slice){key, size}, &id));
}

static void a_key_finds_its_id_and_the_id_its_key(void **state)
{
    (void)state;
    pe_keys *k = new_keys();
    peri_slice back;
    assert_lacks(k, "a", 1);
    assert_false(pe_keys_key_of(k, 0, &back));
    set(k, "a", 1, 0);
    set(k, "b", 1, UINT64_MAX);
    set(k, "ab", 2, 5);
    assert_has(k, "a", 1, 0);
    assert_has(k, "b", 1, UINT64_MAX);
    assert_has(k, "ab", 2, 5);
    assert_lacks(k, "abc", 3);
    assert_lacks(k, "", 0);
    assert_int_equal(pe_keys_count(k), 3);
    assert_keys_valid(k);
    pe_keys_destroy(k);
    pe_keys_destroy(NULL);
}

static void keys_are_any_bytes_of_any_length(void **state)
{
    (void)state;
    pe_keys *k = new_keys();
    unsigned char *big = malloc(PE_KEY_SIZE_MAX + 1);
    for (size_t i = 0; i <= PE_KEY_SIZE_MAX; i++)
        big[i] = (unsigned char)(i * 31 >> 3);
    set(k, "\0", 1, 1);
    set(k, "\0\0", 2, 2);
    set(k, "\xff\xfe\n", 3, 3);
    for (unsigned i = 0; i < 40; i++) /* more than two chunks of the arena, each with a gap */
        set(k, big, PE_KEY_SIZE_MAX - i, 100 + i);
    assert_has(k, "\0", 1, 1);
    assert_has(k, "\0\0", 2, 2);
    assert_has(k, "\xff\xfe\n", 3, 3);
    for (unsigned i = 0; i < 40; i++)
        assert_has(k, big, PE_KEY_SIZE_MAX - i, 100 + i);
    assert_lacks(k, big, PE_KEY_SIZE_MAX + 1);
    assert_keys_valid(k);
    free(big);
    pe_keys_destroy(k);
}

static void a_key_that_is_set_again_moves_to_the_new_id(void **state)
{
    (void)state;
    pe_keys *k = new_keys();
    peri_slice back;
    for (uint64_t id = 0; id < 5000; id++) {
        set(k, "only", 4, id);
        assert_has(k, "only", 4, id);
        assert_false(id > 0 && pe_keys_key_of(k, id - 1, &back));
        pe_epoch_reclaim(&epoch);
    }
    set(k, "only", 4, 4999); /* the same id again */
    set(k, "other", 5, 0);   /* an id that was given up */
    assert_has(k, "other", 5, 0);
    assert_has(k, "only", 4, 4999);
    assert_int_equal(pe_keys_count(k), 2);
    assert_true(atomic_load(&host.heap) < 16384); /* moving leaves nothing behind */
    assert_keys_valid(k);
    pe_keys_destroy(k);
}

/* An oracle that cannot be wrong: one place per possible key. */
enum { MODEL = 3000 };

typedef struct model {
    uint64_t id[MODEL]; /* 0 = absent */
    uint64_t next;
    size_t count;
} model;

static size_t model_key(uint32_t i, char key[64])
{
    size_t n = (size_t)sprintf(key, "key %u", i * 2654435761u);
    while (i % 7 == 0 && n < 50) /* some are longer */
        key[n++] = '.';
    return n;
}

static void model_step(pe_keys *k, model *m, pe_rng *rng)
{
    uint32_t i = pe_rng_below(rng, MODEL);
    char key[64];
    size_t n = model_key(i, key);
    if (pe_rng_below(rng, 100) < 55) {
        m->count += m->id[i] == 0;
        m->id[i] = m->next += 1 + pe_rng_below(rng, 3);
        set(k, key, n, m->id[i]);
    } else {
        int was = m->id[i] != 0;
        m->count -= (size_t)was;
        m->id[i] = 0;
        assert_int_equal(pe_keys_remove(k, (peri_slice){key, n}), was);
    }
}

static void assert_matches(const pe_keys *k, const model *m)
{
    for (uint32_t i = 0; i < MODEL; i++) {
        char key[64];
        size_t n = model_key(i, key);
        if (m->id[i])
            assert_has(k, key, n, m->id[i]);
        else
            assert_lacks(k, key, n);
    }
    assert_int_equal(pe_keys_count(k), m->count);
    assert_keys_valid(k);
}

static void a_long_random_life_matches_a_simple_oracle(void **state)
{
    (void)state;
    pe_keys *k = new_keys();
    model *m = calloc(1, sizeof *m);
    pe_rng rng = {42};
    for (int step = 1; step <= 200000; step++) {
        model_step(k, m, &rng);
        if (step % 5000 == 0) {
            pe_epoch_reclaim(&epoch);
            assert_matches(k, m);
        }
        if (step % 50000 == 0) {
            assert_int_equal(pe_keys_compact(k), PERI_OK);
            assert_matches(k, m);
        }
    }
    free(m);
    pe_keys_destroy(k);
}

static void removing_most_keys_gives_their_space_back(void **state)
{
    (void)state;
    enum { N = 100000 };
    pe_keys *k = new_keys();
    char key[32];
    for (uint64_t i = 0; i < N; i++)
        set(k, key, (size_t)sprintf(key, "document %llu", (unsigned long long)i), i);
    pe_epoch_reclaim(&epoch);
    uint64_t full = atomic_load(&host.heap);
    for (uint64_t i = 0; i < N; i++)
        if (i % 100)
            assert_true(pe_keys_remove(
                k,
                (peri_slice){key, (size_t)sprintf(key, "document %llu", (unsigned long long)i)}));
    pe_epoch_reclaim(&epoch);
    assert_true(atomic_load(&host.heap) < full / 10);
    assert_int_equal(pe_keys_count(k), N / 100);
    for (uint64_t i = 0; i < N; i += 100)
        assert_has(k, key, (size_t)sprintf(key, "document %llu", (unsigned long long)i), i);
    assert_keys_valid(k);
    pe_keys_destroy(k);
}

static void what_is_reserved_needs_no_memory(void **state)
{
    (void)state;
    enum { N = 5000 };
    pe_keys *k = new_keys();
    static char keys[N][600];
    size_t total = 0;
    for (unsigned i = 0; i < N; i++)
        total += 1 + i % 600;
    assert_int_equal(pe_keys_reserve(k, N, total), PERI_OK);
    uint64_t before = atomic_load(&host.heap);
    for (unsigned i = 0; i < N; i++) {
        memset(keys[i], 'x', sizeof keys[i]);
        memcpy(keys[i], &i, i % 600 < 4 ? i % 600 : 4);
        /* Short ones collide with each other: then they are moves, which need no more. */
        pe_keys_set(k, (peri_slice){keys[i], 1 + i % 600}, i);
    }
    assert_int_equal(atomic_load(&host.heap), before);
    assert_keys_valid(k);
    assert_int_equal(pe_keys_reserve(k, SIZE_MAX / 2, 1), PERI_ERR_NOMEM);
    assert_int_equal(pe_keys_reserve(k, 1, SIZE_MAX - 5), PERI_ERR_NOMEM);
    assert_int_equal(pe_keys_reserve(k, (size_t)1 << 52, 1), PERI_ERR_NOMEM);
    pe_keys_destroy(k);
}

/* ---- files ---- */

static void save(const pe_keys *k, const char *path)
{
    pe_segment_id id = {.kind = PE_FOURCC('T', 'E', 'S', 'T'), .version_major = 1};
    pe_segw *w;
    assert_int_equal(pe_segw_open(&w, &host, path, &id), PERI_OK);
    if (k)
        assert_int_equal(pe_keys_save(k, w), PERI_OK);
    assert_int_equal(pe_segw_commit(w), PERI_OK);
}

static peri_status load(pe_keys **k, const char *path, int map)
{
    pe_segr *r;
    assert_int_equal(pe_segr_open(&r, &host, path, map), PERI_OK);
    peri_status status = pe_keys_open(k, &host, &epoch, r);
    pe_segr_close(r);
    return status;
}

static void keys_come_back_from_a_file_and_live_on(void **state)
{
    (void)state;
    const char *path = scratch("keys"), *again = scratch("again");
    pe_keys *k = new_keys(), *back;
    model *m = calloc(1, sizeof *m);
    pe_rng rng = {7};
    for (int step = 0; step < 20000; step++)
        model_step(k, m, &rng);
    save(k, path);
    for (int map = 0; map < 3; map++) {
        assert_int_equal(load(&back, path, map), PERI_OK);
        assert_matches(back, m);
        save(back, again);
        blob a = blob_load(path), b = blob_load(again);
        assert_true(blob_same(a, b)); /* the order is kept */
        free(a.data);
        free(b.data);
        model *later = malloc(sizeof *later);
        *later = *m;
        for (int step = 0; step < 5000; step++)
            model_step(back, later, &rng);
        assert_matches(back, later);
        free(later);
        pe_keys_destroy(back);
    }
    free(m);
    pe_keys_destroy(k);
    unlink(path);
    unlink(again);
}

static void no_keys_and_no_section_are_both_empty(void **state)
{
    (void)state;
    const char *path = scratch("empty");
    pe_keys *k = new_keys(), *back;
    for (int with = 0; with < 2; with++) {
        save(with ? k : NULL, path);
        assert_int_equal(load(&back, path, PE_SEGMENT_MAP), PERI_OK);
        assert_int_equal(pe_keys_count(back), 0);
        set(back, "a", 1, 1);
        assert_has(back, "a", 1, 1);
        pe_keys_destroy(back);
    }
    pe_keys_destroy(k);
    unlink(path);
}

/* The section's bytes with right checksums but wrong content. */
static void a_section_that_makes_no_sense_is_refused(void **state)
{
    (void)state;
    const char *path = scratch("bad");
    pe_keys *k = new_keys(), *back;
    set(k, "one", 3, 1);
    set(k, "two", 3, 2);
    save(k, path);
    blob b = blob_load(path);
    enum { AT = 256 }; /* the first section, 64-byte aligned: 16 + (10 + 3) + (10 + 3) bytes */
    const struct {
        size_t at;
        unsigned width;
        uint64_t value;
    } lies[] = {
        {0, 8, 1},  {0, 8, 3},  {0, 8, UINT64_MAX}, {0, 8, (uint64_t)1 << 60},
        {8, 8, 5},  {8, 8, 7},  {8, 8, UINT64_MAX}, {24, 2, 0},
        {24, 2, 2}, {24, 2, 4}, {24, 2, 65535},     {37, 2, 2},
        {37, 2, 4}, {29, 8, 1}, {39, 3, 0x656e6f},
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        blob c = {malloc(b.size), b.size};
        memcpy(c.data, b.data, b.size);
        reseal_put(c.data + AT + lies[i].at, lies[i].value, lies[i].width);
        reseal(c.data, c.size);
        blob_save(path, c.data, c.size);
        free(c.data);
        for (int map = 0; map < 2; map++)
            if (load(&back, path, map) != PERI_ERR_CORRUPT || back)
                fail_msg("lie %zu is believed", i);
    }
    free(b.data);
    pe_keys_destroy(k);
    unlink(path);
}

/* ---- readers beside a writer ---- */

enum { SHARED = 64, ROUNDS = 60000 };

typedef struct shared {
    pe_keys *k;
    _Atomic uint64_t low[SHARED]; /* ids below are history for that key */
    _Atomic int stop, bad;
    _Atomic uint64_t reads;
} shared;

static size_t shared_key(unsigned i, char key[32])
{
    return (size_t)sprintf(key, "shared key %u", i);
}

/* Ids are i + SHARED * version: each names its key, and versions only grow. */
static void read_one(shared *s, unsigned i)
{
    char key[32];
    peri_slice back;
    uint64_t id, low = atomic_load(&s->low[i]);
    size_t n = shared_key(i, key);
    pe_reader *reader = pe_epoch_enter(&epoch);
    if (pe_keys_find(s->k, (peri_slice){key, n}, &id)) {
        if (id % SHARED != i || id < low)
            atomic_store(&s->bad, 1);
        if (pe_keys_key_of(s->k, id, &back) && (back.size != n || memcmp(back.data, key, n) != 0))
            atomic_store(&s->bad, 2);
    } else if (i % 2 == 0) { /* the even ones are never removed */
        atomic_store(&s->bad, 3);
    }
    pe_epoch_exit(reader);
}

static void write_some(shared *s)
{
    pe_rng rng = {3};
    char key[32];
    for (uint64_t round = 1; round < ROUNDS; round++) {
        unsigned i = pe_rng_below(&rng, SHARED);
        size_t n = shared_key(i, key);
        uint64_t id = i + SHARED * round;
        if (i % 2 && round % 3 == 0) {
            pe_keys_remove(s->k, (peri_slice){key, n});
        } else if (pe_keys_reserve(s->k, 1, n) == PERI_OK) {
            pe_keys_set(s->k, (peri_slice){key, n}, id);
            atomic_store(&s->low[i], id);
        }
        if (round % 501 == 0 && pe_keys_compact(s->k) != PERI_OK)
            atomic_store(&s->bad, 4);
        pe_epoch_reclaim(&epoch);
    }
    atomic_store(&s->stop, 1);
}

static void reader_or_writer(void *ctx, unsigned worker)
{
    shared *s = ctx;
    pe_rng rng = {worker};
    if (worker == 0) {
        write_some(s);
        return;
    }
    while (!atomic_load(&s->stop)) {
        read_one(s, pe_rng_below(&rng, SHARED));
        atomic_fetch_add(&s->reads, 1);
    }
}

static void readers_see_each_change_at_one_moment(void **state)
{
    (void)state;
    shared *s = calloc(1, sizeof *s);
    char key[32];
    s->k = new_keys();
    for (unsigned i = 0; i < SHARED; i++)
        set(s->k, key, shared_key(i, key), i);
    pe_team_run(3, reader_or_writer, s);
    assert_int_equal(atomic_load(&s->bad), 0);
    assert_true(atomic_load(&s->reads) > 1000);
    assert_keys_valid(s->k);
    pe_keys_destroy(s->k);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_finds_its_id_and_the_id_its_key),
        cmocka_unit_test(keys_are_any_bytes_of_any_length),
        cmocka_unit_test(a_key_that_is_set_again_moves_to_the_new_id),
        cmocka_unit_test(a_long_random_life_matches_a_simple_oracle),
        cmocka_unit_test(removing_most_keys_gives_their_space_back),
        cmocka_unit_test(what_is_reserved_needs_no_memory),
        cmocka_unit_test(keys_come_back_from_a_file_and_live_on),
        cmocka_unit_test(no_keys_and_no_section_are_both_empty),
        cmocka_unit_test(a_section_that_makes_no_sense_is_refused),
        cmocka_unit_test(readers_see_each_change_at_one_moment),
    };
    return cmocka_run_group_tests_name("keys", tests, setup, teardown);
}
