/* Readers beside a writer: three threads search, filter and read rows while one puts, replaces,
 * removes, merges, compacts and saves. Each answer must be one that the index had between two
 * writes: the writer moves pairs of rows in one batch, so whoever sees one half of a pair without
 * the other saw a state that never was. Small, so that the thread sanitiser gets through it. */
#include "property/sparse_model.h"
#include "scratch.h"

#include <pthread.h>
#include <stdatomic.h>

enum { PAIRS = 300, READERS = 3, FILL = 9000 };

typedef struct shared {
    peri_sparse *sx;
    _Atomic int done, failed;
    _Atomic uint64_t searches;
    char what[160];
} shared;

static void complain(shared *s, const char *what, uint64_t a, uint64_t b)
{
    if (atomic_exchange(&s->failed, 1) == 0)
        snprintf(s->what, sizeof s->what, "%s: %llu, %llu", what, (unsigned long long)a,
                 (unsigned long long)b);
}

/* Rows 2p and 2p + 1 of version v have the terms p and 5000 + v % 7; both are always of the same
 * version. Ids from 1,000,000 on are put once and stay. */
static void pair_rows(uint32_t p, uint32_t v, uint32_t *terms, float *weights)
{
    for (int half = 0; half < 2; half++) {
        terms[2 * half] = p;
        terms[2 * half + 1] = 5000 + v % 7;
        weights[2 * half] = 10; /* heavy enough to be in the lists of approximate search */
        weights[2 * half + 1] = 1 + (float)(v % 5);
    }
}

static void put_pair(shared *s, uint32_t p, uint32_t v)
{
    uint64_t ids[2] = {2 * p, 2 * p + 1}, offsets[3] = {0, 2, 4};
    uint32_t terms[4];
    float weights[4];
    pair_rows(p, v, terms, weights);
    peri_sparse_rows rows = {2, offsets, terms, weights};
    if (peri_sparse_put_many(s->sx, ids, &rows, 0, NULL, NULL) != PERI_OK)
        complain(s, "put", p, v);
}

static int allow_pairs(void *ctx, uint64_t id)
{
    (void)ctx;
    return id < 2 * PAIRS;
}

static void read_pair(shared *s, uint32_t p, uint32_t effort)
{
    uint32_t terms[8] = {p};
    float weights[8] = {1};
    peri_hit hits[16];
    size_t n;
    for (uint32_t i = 1; i < 8; i++) {
        terms[i] = 5000 + i - 1;
        weights[i] = 0.0001f;
    }
    peri_sparse_row row = {8, terms, weights};
    peri_query q = query_of(2);
    q.filter = allow_pairs;
    q.effort = effort;
    if (peri_sparse_search(s->sx, &row, &q, hits, &n) != PERI_OK)
        complain(s, peri_error_detail(), p, 0);
    else if (n != 2 || hits[0].id != 2 * p || hits[1].id != 2 * p + 1)
        complain(s, "a pair is not there", p, n);
    else if (hits[0].distance != hits[1].distance)
        complain(s, "halves of two versions", p, n);
    atomic_fetch_add(&s->searches, 1);
}

static void *reader(void *ctx)
{
    shared *s = ctx;
    pe_rng r = {(uint64_t)(uintptr_t)&r};
    while (!atomic_load(&s->done) && !atomic_load(&s->failed)) {
        uint32_t p = pe_rng_below(&r, PAIRS), terms[4];
        float weights[4];
        size_t n;
        read_pair(s, p, pe_rng_below(&r, 2) ? 8 : 0);
        if (peri_sparse_get(s->sx, 2 * p, terms, weights, 4, &n) != PERI_OK || n != 2 ||
            terms[0] != p)
            complain(s, "a row that is there is not got", p, n);
        peri_sparse_info info;
        peri_sparse_info_init(&info);
        if (peri_sparse_get_info(s->sx, &info) != PERI_OK || info.rows < 2 * PAIRS)
            complain(s, "rows", info.rows, 0);
    }
    return NULL;
}

static void write_all(shared *s)
{
    static uint64_t offsets[FILL + 1];
    static uint32_t terms[FILL];
    static float weights[FILL];
    pe_rng r = {8};
    for (uint32_t i = 0; i < FILL; i++) {
        offsets[i + 1] = i + 1;
        terms[i] = 6000 + i % 50;
        weights[i] = 1;
    }
    peri_sparse_rows rows = {FILL, offsets, terms, weights};
    uint64_t ids[FILL];
    for (uint32_t round = 0; round < 4 && !s->failed; round++) {
        for (uint32_t v = 0; v < 900 && !s->failed; v++)
            put_pair(s, pe_rng_below(&r, PAIRS), round * 900 + v);
        for (uint32_t i = 0; i < FILL; i++)
            ids[i] = 1000000 + i;
        assert_ok(peri_sparse_put_many(s->sx, ids, &rows, 0, NULL, NULL));
        for (uint32_t i = 0; i < FILL; i += 3)
            assert_ok(peri_sparse_remove(s->sx, 1000000 + i));
        assert_ok(peri_sparse_save(s->sx, scratch("race"), NULL));
        peri_task task = threads_task(2);
        assert_ok(round % 2 ? peri_sparse_compact(s->sx, &task)
                            : peri_sparse_maintain(s->sx, &task));
        assert_sparse_valid(s->sx);
    }
}

static void readers_see_states_between_writes(void **state)
{
    (void)state;
    static shared s;
    pthread_t threads[READERS];
    assert_ok(peri_sparse_create(&s.sx, NULL, NULL));
    for (uint32_t p = 0; p < PAIRS; p++)
        put_pair(&s, p, 0);
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reader, &s), 0);
    write_all(&s);
    atomic_store(&s.done, 1);
    for (int i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    if (s.failed)
        fail_msg("%s", s.what);
    assert_true(s.searches > 100);
    peri_sparse_close(s.sx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_see_states_between_writes),
    };
    return cmocka_run_group_tests_name("race: sparse", tests, NULL, scratch_remove);
}
