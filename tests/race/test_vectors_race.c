/* Readers of a vector file while one thread writes, checkpoints, compacts and builds indexes.
 *
 * The writer replaces the rows of all keys again and again, each time in one batch whose rows carry
 * its number. So a search for all of them must bring each key once, and all with one number: that
 * of the batch before the search began or of a later one. A row read by key or by id must be whole,
 * its view must stay as it was, and what a reader has seen once never goes back. */
#include "vectors.h"

#include <pthread.h>
#include <stdatomic.h>

enum { DIM = 16, NAMES = 150, READERS = 4, BATCHES = 120 };

typedef struct scene {
    peri_vectors *v;
    peri_slice *keys;
    _Atomic uint32_t batch; /* the last that was accepted */
    _Atomic int done;
    _Atomic uint64_t searches, reads, views;
} scene;

static void row_of(uint32_t name, uint32_t batch, float row[DIM])
{
    row[0] = (float)batch;
    row[1] = (float)name;
    for (unsigned i = 2; i < DIM; i++)
        row[i] = (float)(name * i + batch);
}

static int row_is_whole(const float *row)
{
    float want[DIM];
    row_of((uint32_t)row[1], (uint32_t)row[0], want);
    return memcmp(want, row, sizeof want) == 0;
}

static void insert_all(scene *s, uint32_t batch)
{
    static float rows[NAMES][DIM];
    for (uint32_t i = 0; i < NAMES; i++)
        row_of(i, batch, rows[i]);
    assert_ok(peri_vectors_insert_batch(s->v, NAMES, s->keys, rows[0], 0, NULL));
    s->batch = batch;
}

static void check_search(scene *s)
{
    peri_hit hits[NAMES + 8];
    float query[DIM] = {1};
    peri_query q = query_of(NAMES + 8);
    size_t n;
    uint32_t before = s->batch;
    assert_ok(peri_vectors_search(s->v, query, &q, hits, &n));
    uint32_t after = s->batch + 1;
    assert_int_equal(n, NAMES);
    for (size_t i = 0; i < n; i++) {
        assert_true(hits[i].distance == hits[0].distance);
        assert_true(i == 0 || hits[i].id > hits[i - 1].id);
    }
    assert_true(-hits[0].distance >= (float)before && -hits[0].distance <= (float)after);
    s->searches++;
}

static void check_reads(scene *s, pe_rng *rng)
{
    float row[DIM];
    uint64_t id;
    peri_buf key = {0};
    uint32_t name = pe_rng_below(rng, NAMES), before = s->batch;
    assert_ok(peri_vectors_get(s->v, s->keys[name], row, &id));
    assert_true(row_is_whole(row) && row[1] == (float)name && row[0] >= (float)before);
    peri_status status = peri_vectors_get_id(s->v, id, row);
    assert_true(status == PERI_ERR_NOT_FOUND || (status == PERI_OK && row_is_whole(row)));
    status = peri_vectors_key_of(s->v, id, &key);
    assert_true(
        status == PERI_ERR_NOT_FOUND ||
        (key.size == s->keys[name].size && memcmp(key.data, s->keys[name].data, key.size) == 0));
    peri_buf_free(&key);
    s->reads++;
}

static void check_views(scene *s, pe_rng *rng, peri_vectors_view held[8], float copies[8][DIM])
{
    uint32_t name = pe_rng_below(rng, NAMES), at = pe_rng_below(rng, 8);
    if (held[at].data)
        assert_memory_equal(held[at].data, copies[at], sizeof copies[at]);
    peri_vectors_release(&held[at]);
    assert_ok(peri_vectors_view_key(s->v, s->keys[name], &held[at]));
    assert_true(row_is_whole(held[at].data));
    memcpy(copies[at], held[at].data, sizeof copies[at]);
    s->views++;
}

static void *read_main(void *arg)
{
    scene *s = arg;
    pe_rng rng = {(uint64_t)(uintptr_t)&rng};
    peri_vectors_view held[8] = {{0}};
    float copies[8][DIM];
    while (!s->done) {
        check_search(s);
        for (int i = 0; i < 20; i++)
            check_reads(s, &rng);
        check_views(s, &rng, held, copies);
        uint64_t cursor = 0, n;
        peri_buf key = {0};
        (void)peri_vectors_next(s->v, &cursor, &key, &n);
        peri_buf_free(&key);
        assert_ok(peri_vectors_len(s->v, &n));
        assert_int_equal(n, NAMES);
        (void)vectors_info(s->v);
    }
    for (int i = 0; i < 8; i++)
        peri_vectors_release(&held[i]);
    return NULL;
}

static void write_on(scene *s)
{
    for (uint32_t batch = 2; batch <= BATCHES; batch++) {
        insert_all(s, batch);
        if (batch % 3 == 0)
            assert_ok(peri_vectors_checkpoint(s->v));
        if (batch % 20 == 7)
            assert_ok(peri_vectors_build_index(
                s->v, make_index(batch % 40 > 20, DIM, PERI_METRIC_IP, 0, NULL, NULL), NULL));
        if (batch % 20 == 13)
            assert_ok(peri_vectors_maintain(s->v, NULL));
        if (batch % 20 == 19)
            assert_ok(peri_vectors_compact(s->v, NULL));
        if (batch % 10 == 1)
            assert_vectors_valid(s->v);
    }
}

static void readers_see_whole_batches_while_one_writes(void **state)
{
    (void)state;
    scene s = {.keys = number_keys("name", 0, NAMES)};
    pthread_t readers[READERS];
    peri_vectors_config config;
    peri_vectors_config_init(&config);
    for (int small = 0; small < 2; small++) {
        const char *path = scratch("race.vectors");
        peri_space space = space_of(DIM, PERI_METRIC_IP, 0);
        unlink(path);
        config.address_space = small ? 1 : 0; /* remapped as it grows */
        assert_ok(peri_vectors_create(&s.v, path, &space, &config, NULL));
        s.done = 0;
        insert_all(&s, 1);
        for (int i = 0; i < READERS; i++)
            assert_int_equal(pthread_create(&readers[i], NULL, read_main, &s), 0);
        write_on(&s);
        s.done = 1;
        for (int i = 0; i < READERS; i++)
            pthread_join(readers[i], NULL);
        peri_vectors_close(s.v);
    }
    print_message("%llu searches, %llu reads, %llu views\n", (unsigned long long)s.searches,
                  (unsigned long long)s.reads, (unsigned long long)s.views);
    free_keys(s.keys);
}

/* Several threads insert keys of their own one by one, others read through a handle that refreshes.
 */
typedef struct inserter {
    scene *s;
    unsigned number;
} inserter;

enum { EACH = 300 };

static void *insert_main(void *arg)
{
    inserter *me = arg;
    float row[DIM];
    for (uint32_t i = 0; i < EACH; i++) {
        uint32_t name = me->number * EACH + i;
        row_of(name, 1, row);
        assert_ok(peri_vectors_insert(me->s->v, me->s->keys[name], row, PERI_PUT_NEW, NULL));
        if (i % 50 == 49)
            assert_ok(peri_vectors_checkpoint(me->s->v));
    }
    return NULL;
}

static void *refresh_main(void *arg)
{
    scene *s = arg;
    uint64_t seen = 0, n;
    float row[DIM];
    while (!s->done) {
        assert_ok(peri_vectors_refresh(s->v, NULL));
        assert_ok(peri_vectors_len(s->v, &n));
        assert_true(n >= seen);
        seen = n;
        for (uint32_t i = 0; i < 3 * EACH; i += 17)
            if (peri_vectors_get(s->v, s->keys[i], row, NULL) == PERI_OK)
                assert_true(row_is_whole(row));
    }
    return NULL;
}

static void *look_main(void *arg)
{
    scene *s = arg;
    float query[DIM] = {1}, row[DIM];
    peri_query q = query_of(40);
    peri_hit hits[40];
    size_t n;
    while (!s->done) {
        assert_ok(peri_vectors_search(s->v, query, &q, hits, &n));
        for (size_t i = 0; i < n; i++) {
            assert_ok(peri_vectors_get_id(s->v, hits[i].id, row));
            assert_true(row_is_whole(row));
        }
    }
    return NULL;
}

static void writers_take_turns_and_a_reader_follows(void **state)
{
    (void)state;
    const char *path = scratch("turns.vectors");
    scene s = {.keys = number_keys("name", 0, 3 * EACH)}, r = {.keys = s.keys};
    inserter in[3];
    pthread_t writers[3], refresher, lookers[2];
    s.v = make_vectors(path, DIM, PERI_METRIC_IP, 0, NULL);
    r.v = open_vectors(path, PERI_OPEN_READONLY, NULL);
    pthread_create(&refresher, NULL, refresh_main, &r);
    for (int i = 0; i < 2; i++)
        pthread_create(&lookers[i], NULL, look_main, &r);
    for (unsigned i = 0; i < 3; i++) {
        in[i] = (inserter){&s, i};
        pthread_create(&writers[i], NULL, insert_main, &in[i]);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(writers[i], NULL);
    r.done = 1;
    pthread_join(refresher, NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(lookers[i], NULL);
    uint64_t n;
    assert_ok(peri_vectors_refresh(r.v, NULL));
    assert_ok(peri_vectors_len(r.v, &n));
    assert_int_equal(n, 3 * EACH);
    assert_vectors_valid(s.v);
    peri_vectors_close(r.v);
    peri_vectors_close(s.v);
    free_keys(s.keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_see_whole_batches_while_one_writes),
        cmocka_unit_test(writers_take_turns_and_a_reader_follows),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
