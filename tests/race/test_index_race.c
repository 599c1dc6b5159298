/* Readers beside a writer: three threads search, filter, read rows and keys while one inserts,
 * replaces, removes, tidies up and saves. Every id that an answer names must have been there at
 * some moment of the call, its distance must be that of a row which the id had then, and a row that
 * is never touched must be found every time. Small, so that the thread sanitiser gets through it.
 *
 * Each id has a state of its own, which the writer moves on around each change: even = settled, odd
 * = a change is under way. A reader notes the states before the call and after it. */
#include "indexes.h"
#include "scratch.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { DIM = 16, STILL = 200, MOVING = 200, ALL = STILL + MOVING, READERS = 3, VERSIONS = 4 };

typedef struct arena {
    peri_index *ix;
    int keyed, steps;
    float *rows;                  /* of id i in version v: rows + (i * VERSIONS + v) * DIM */
    _Atomic uint32_t state[ALL];  /* counts changes; bit 0: one is under way */
    _Atomic int32_t version[ALL]; /* -1 = not there */
    _Atomic int done;
    _Atomic int failed;
    _Atomic uint64_t searches, missed_moving;
    char what[200];
} arena;

static void complain(arena *a, const char *what, uint64_t id, double x)
{
    if (atomic_exchange(&a->failed, 1) == 0)
        snprintf(a->what, sizeof a->what, "%s: id %llu, %g", what, (unsigned long long)id, x);
}

static const float *row_of(const arena *a, uint32_t id, int32_t version)
{
    return a->rows + ((size_t)id * VERSIONS + (size_t)version) * DIM;
}

static double distance(const float *x, const float *y)
{
    double s = 0;
    for (int i = 0; i < DIM; i++)
        s += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
    return sqrt(s);
}

/* What a reader saw of an id before its call. */
typedef struct glimpse {
    uint32_t state;
    int32_t version;
} glimpse;

static glimpse look(arena *a, uint32_t id)
{
    glimpse g;
    g.state = atomic_load(&a->state[id]);
    g.version = atomic_load(&a->version[id]);
    return g;
}

static uint32_t id_to_number(arena *a, uint64_t id)
{
    if (id >= ALL)
        complain(a, "an id that never was", id, 0);
    return id < ALL ? (uint32_t)id : 0;
}

/* Could this hit have been true during the call? */
static void check_hit(arena *a, const glimpse *before, const float *query, peri_hit hit)
{
    uint32_t id = id_to_number(a, hit.id);
    glimpse after = look(a, id);
    if (before[id].state == after.state && !(after.state & 1)) {
        if (after.version < 0)
            complain(a, "an id that was not there all the time", id, hit.distance);
        else if (fabs(distance(query, row_of(a, id, after.version)) - hit.distance) > 1e-3)
            complain(a, "a distance of no row that it had", id, hit.distance);
        return;
    }
    for (int32_t v = 0; v < VERSIONS; v++)
        if (fabs(distance(query, row_of(a, id, v)) - hit.distance) <= 1e-3)
            return;
    complain(a, "a distance of no row that it ever had", id, hit.distance);
}

static void check_hits(arena *a, const glimpse *before, const float *query, const peri_hit *hits,
                       size_t n, size_t k)
{
    atomic_fetch_add(&a->searches, 1);
    if (n > k)
        complain(a, "more hits than asked for", 0, (double)n);
    for (size_t i = 0; i < n; i++) {
        check_hit(a, before, query, hits[i]);
        for (size_t j = 0; j < i; j++)
            if (hits[j].id == hits[i].id)
                complain(a, "an id that stands twice", hits[i].id, 0);
        if (i && hits[i - 1].distance > hits[i].distance)
            complain(a, "hits out of order", hits[i].id, hits[i].distance);
    }
    /* There are always STILL rows at least. */
    if (n < k && n < STILL)
        complain(a, "too few hits", 0, (double)n);
}

static int keep_even(void *ctx, uint64_t id)
{
    (void)ctx;
    return id % 2 == 0;
}

typedef struct reader {
    arena *a;
    uint64_t seed;
} reader;

static void search_one(arena *a, pe_rng *r, const peri_idset *evens)
{
    peri_hit hits[10];
    glimpse before[ALL];
    size_t n = 0;
    peri_query q = query_of(10);
    uint32_t id = pe_rng_below(r, ALL), how = pe_rng_below(r, 4);
    int32_t version = id < STILL ? 0 : (int32_t)pe_rng_below(r, VERSIONS);
    const float *query = row_of(a, id, version);
    if (how == 1)
        q.filter = keep_even;
    if (how == 2)
        q.allow = evens;
    if (how == 3) {
        q.has_max_distance = 1;
        q.max_distance = 2;
    }
    for (uint32_t i = 0; i < ALL; i++)
        before[i] = look(a, i);
    if (peri_index_search(a->ix, query, &q, hits, &n) != PERI_OK) {
        complain(a, peri_error_detail(), id, 0);
        return;
    }
    check_hits(a, before, query, hits, n, how == 3 ? n : 10);
    for (size_t i = 0; i < n && (how == 1 || how == 2); i++)
        if (hits[i].id % 2)
            complain(a, "an id that the filter does not keep", hits[i].id, 0);
    /* A row that is always there is always found by itself. */
    int wanted = how == 0 || how == 3 || id % 2 == 0;
    if (id < STILL && wanted && (n == 0 || hits[0].distance > 1e-4f))
        complain(a, "a row that was never touched is not found", id, n ? hits[0].distance : -1.0);
    if (id >= STILL && wanted && before[id].version == version && !(before[id].state & 1) &&
        look(a, id).state == before[id].state && (n == 0 || hits[0].distance > 1e-4f))
        complain(a, "a row that was there all the time is not found", id,
                 n ? hits[0].distance : -1.0);
}

/* Where rows are only ever replaced, each id is there all the time, in one version or another: a
 * search for all of them finds each once. */
static void search_all(arena *a, pe_rng *r)
{
    peri_hit hits[ALL + 1];
    unsigned char seen[ALL] = {0};
    size_t n = 0;
    peri_query q = query_of(ALL + 1);
    const float *query = row_of(a, pe_rng_below(r, ALL), 0);
    if (peri_index_search(a->ix, query, &q, hits, &n) != PERI_OK)
        complain(a, peri_error_detail(), 0, 0);
    for (size_t i = 0; i < n; i++)
        seen[id_to_number(a, hits[i].id)]++;
    for (uint32_t id = 0; id < ALL; id++)
        if (seen[id] != 1)
            complain(a, "not once among all rows, but this often", id, seen[id]);
}

static void search_batch(arena *a, pe_rng *r)
{
    enum { N = 20, K = 3 };
    float rows[N * DIM];
    peri_hit hits[N * K];
    size_t n_hits[N];
    glimpse before[ALL];
    peri_query q = query_of(K);
    for (uint32_t i = 0; i < N; i++)
        memcpy(rows + i * DIM, row_of(a, pe_rng_below(r, STILL), 0), DIM * sizeof *rows);
    for (uint32_t i = 0; i < ALL; i++)
        before[i] = look(a, i);
    if (peri_index_search_many(a->ix, N, rows, &q, NULL, hits, n_hits) != PERI_OK) {
        complain(a, peri_error_detail(), 0, 0);
        return;
    }
    for (uint32_t i = 0; i < N; i++) {
        check_hits(a, before, rows + i * DIM, hits + i * K, n_hits[i], K);
        if (n_hits[i] == 0 || hits[i * K].distance > 1e-4f)
            complain(a, "a batch does not find a row that was never touched", i, 0);
    }
}

static peri_slice key_of(uint32_t number, char room[32])
{
    return (peri_slice){room, (size_t)snprintf(room, 32, "key of %u", number)};
}

/* Rows, keys, ids, info. In a keyed arena ids were given in the order of the numbers. */
static void read_one(arena *a, pe_rng *r)
{
    float row[DIM];
    uint32_t number = pe_rng_below(r, ALL);
    uint64_t id = number;
    char room[32];
    peri_buf buf = {0};
    glimpse before = look(a, number);
    peri_status status = PERI_OK;
    if (a->keyed) {
        peri_slice key = key_of(number, room);
        status = peri_index_id_of(a->ix, key, &id);
        if (status == PERI_OK && peri_index_key_of(a->ix, id, &buf) == PERI_OK &&
            (buf.size != key.size || memcmp(buf.data, key.data, key.size) != 0))
            complain(a, "an id with another key", id, 0);
        peri_buf_free(&buf);
    }
    if (status == PERI_OK)
        status = peri_index_get(a->ix, id, row);
    glimpse after = look(a, number);
    if (status != PERI_OK && status != PERI_ERR_NOT_FOUND)
        complain(a, peri_error_detail(), number, 0);
    if (status == PERI_OK) {
        int known = 0;
        for (int32_t v = 0; v < VERSIONS; v++)
            known |= memcmp(row, row_of(a, number, v), sizeof row) == 0;
        if (!known)
            complain(a, "a row that it never had", number, row[0]);
    }
    if (before.state == after.state && !(after.state & 1) &&
        (status == PERI_OK) != (after.version >= 0))
        complain(a, status == PERI_OK ? "read, though not there" : "there, though not read", number,
                 0);
}

static void *reader_main(void *arg)
{
    reader *me = arg;
    arena *a = me->a;
    pe_rng r = {me->seed};
    peri_idset *evens = NULL;
    uint64_t ids[ALL];
    peri_index_info info;
    size_t n;
    peri_idset_create(&evens, NULL);
    for (uint64_t id = 0; id < ALL; id += 2)
        peri_idset_add(evens, 1, &id);
    while (!atomic_load(&a->done) && !atomic_load(&a->failed)) {
        uint32_t what = pe_rng_below(&r, 20);
        if (what < 14)
            search_one(a, &r, evens);
        else if (what < 15)
            search_batch(a, &r);
        else if (what < 16 && a->keyed)
            search_all(a, &r);
        else if (what < 19)
            read_one(a, &r);
        else {
            peri_index_info_init(&info);
            if (peri_index_get_info(a->ix, &info) != PERI_OK || info.rows < STILL)
                complain(a, "info of too few rows", 0, (double)info.rows);
            memset(ids, 0xff, sizeof ids);
            if (peri_index_ids(a->ix, ids, ALL, &n) != PERI_OK || n < STILL || n > ALL)
                complain(a, "ids of too few or too many rows", 0, (double)n);
            unsigned char seen[ALL] = {0};
            for (size_t i = 0; i < n && i < ALL; i++)
                if (ids[i] >= ALL || seen[ids[i]]++)
                    complain(a, "an id that stands twice among all", ids[i], 0);
            if (a->keyed && n != ALL)
                complain(a, "not all ids", 0, (double)n);
        }
    }
    peri_idset_close(evens);
    return NULL;
}

/* ---- the writer ---- */

static void begin_change(arena *a, uint32_t id)
{
    atomic_fetch_add(&a->state[id], 1);
}

static void end_change(arena *a, uint32_t id, int32_t version)
{
    atomic_store(&a->version[id], version);
    atomic_fetch_add(&a->state[id], 1);
}

/* For the writer: what fails is said and stops the arena; nothing is left running. */
static void need(arena *a, peri_status status, const char *what)
{
    char text[160];
    if (status == PERI_OK)
        return;
    snprintf(text, sizeof text, "%s: %.120s", what, peri_error_detail());
    complain(a, text, 0, status);
}

static void need_valid(arena *a, const peri_index *ix)
{
    uint64_t faults = 0;
    need(a, peri_index_check(ix, NULL, &faults), "check");
    if (faults)
        need(a, PERI_ERR_CORRUPT, "check");
}

static void put(arena *a, uint32_t id, int32_t version)
{
    char room[32];
    uint64_t got = id;
    begin_change(a, id);
    if (a->keyed)
        need(a, peri_index_put_keyed(a->ix, key_of(id, room), row_of(a, id, version), 0, &got),
             "put_keyed");
    else
        need(a, peri_index_put(a->ix, id, row_of(a, id, version), 0), "put");
    end_change(a, id, version);
    if (got != id)
        complain(a, "a key got another id", id, (double)got);
}

static void take_away(arena *a, uint32_t id)
{
    begin_change(a, id);
    need(a, peri_index_remove(a->ix, id), "remove");
    end_change(a, id, -1);
}

/* A keyed arena keeps its ids equal to its numbers by never removing a key. */
static void change_some(arena *a, pe_rng *r)
{
    uint32_t id = STILL + pe_rng_below(r, MOVING);
    int32_t now = atomic_load(&a->version[id]);
    if (now < 0 || a->keyed || pe_rng_below(r, 3))
        put(a, id, (int32_t)pe_rng_below(r, VERSIONS));
    else
        take_away(a, id);
}

static void change_many(arena *a, pe_rng *r)
{
    enum { N = 40 };
    uint64_t ids[N];
    int32_t versions[N];
    float rows[N * DIM];
    peri_task task = threads_task(2);
    uint32_t first = STILL + pe_rng_below(r, MOVING - N);
    for (uint32_t i = 0; i < N; i++) {
        ids[i] = first + i;
        versions[i] = (int32_t)pe_rng_below(r, VERSIONS);
        memcpy(rows + i * DIM, row_of(a, first + i, versions[i]), DIM * sizeof *rows);
        begin_change(a, first + i);
    }
    need(a, peri_index_put_many(a->ix, N, ids, rows, 0, &task, NULL), "put_many");
    for (uint32_t i = 0; i < N; i++)
        end_change(a, first + i, versions[i]);
}

static void run_arena(int kind, int keyed, uint16_t scalar, uint16_t codes, int steps)
{
    arena *a = calloc(1, sizeof *a);
    pthread_t threads[READERS];
    reader readers[READERS];
    pe_rng r = {99 + (uint64_t)kind};
    peri_hnsw_config config;
    assert_non_null(a);
    peri_hnsw_config_init(&config);
    config.codes = codes;
    config.m = 6;
    config.ef_construction = 60;
    a->keyed = keyed;
    a->steps = steps;
    a->rows = new_rows(12, (size_t)ALL * VERSIONS, DIM);
    /* Whole numbers, so that each kept form gives the distances exactly. */
    for (size_t i = 0; i < (size_t)ALL * VERSIONS * DIM; i++)
        a->rows[i] = (float)(int)(20 * a->rows[i]); /* and no zero is negative */
    a->ix = make_index(kind, DIM, PERI_METRIC_L2, scalar, &config, NULL);
    for (uint32_t id = 0; id < ALL; id++)
        put(a, id, 0);
    for (uint64_t i = 0; i < READERS; i++) {
        readers[i] = (reader){a, 1000 + i};
        assert_int_equal(pthread_create(&threads[i], NULL, reader_main, &readers[i]), 0);
    }
    for (int step = 0; step < steps && !atomic_load(&a->failed); step++) {
        change_some(a, &r);
        if (step % 50 == 17 && !keyed)
            change_many(a, &r);
        if (step % 150 == 60)
            need(a, peri_index_maintain(a->ix, NULL), "maintain");
        if (step % 100 == 90) {
            peri_index *copy = NULL;
            need(a, peri_index_save(a->ix, scratch("race"), NULL), "save");
            need(a, peri_index_open(&copy, scratch("race"), PERI_OPEN_MAP, NULL, NULL), "open");
            if (copy)
                need_valid(a, copy);
            peri_index_close(copy);
        }
        if (step % 25 == 0)
            need_valid(a, a->ix);
    }
    while (atomic_load(&a->searches) <= 50 && !atomic_load(&a->failed))
        sched_yield(); /* a busy machine may have let no reader in yet */
    atomic_store(&a->done, 1);
    for (int i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    if (a->failed)
        print_error("%s\n", a->what);
    assert_false(a->failed);
    assert_true(a->searches > 50);
    assert_index_valid(a->ix);
    peri_index_close(a->ix);
    free(a->rows);
    free(a);
}

static void readers_of_a_flat_index_see_what_was_there(void **state)
{
    (void)state;
    run_arena(KIND_FLAT, 0, PERI_SCALAR_F32, 0, 600);
    run_arena(KIND_FLAT, 0, PERI_SCALAR_I8, 0, 300);
}

static void readers_of_a_graph_see_what_was_there(void **state)
{
    (void)state;
    run_arena(KIND_HNSW, 0, PERI_SCALAR_F32, PERI_CODES_NONE, 600);
    run_arena(KIND_HNSW, 0, PERI_SCALAR_F16, PERI_CODES_8BIT, 300);
    run_arena(KIND_CASCADE, 0, PERI_SCALAR_F16, PERI_CODES_8BIT, 300);
    run_arena(KIND_Q, 0, PERI_SCALAR_F16, PERI_CODES_AUTO, 300);
}

static void readers_of_gravity_wells_see_what_was_there(void **state)
{
    (void)state;
    run_arena(KIND_GWI, 0, PERI_SCALAR_F32, PERI_CODES_NONE, 600);
    run_arena(KIND_GWI, 0, PERI_SCALAR_F16, PERI_CODES_8BIT, 300);
}

static void readers_of_a_keyed_index_see_what_was_there(void **state)
{
    (void)state;
    run_arena(KIND_HNSW, 1, PERI_SCALAR_F32, 0, 400);
    run_arena(KIND_FLAT, 1, PERI_SCALAR_F32, 0, 400);
}

/* ---- searches while the index grows from nothing, codes are trained and arrays move ---- */

typedef struct growth {
    peri_index *ix;
    const float *rows;
    _Atomic size_t in; /* rows that are in for sure */
    _Atomic int done, failed;
} growth;

static void *growth_reader(void *arg)
{
    growth *g = arg;
    pe_rng r = {(uint64_t)(uintptr_t)&r};
    peri_hit hits[3];
    size_t n;
    peri_query q = query_of(3);
    while (!atomic_load(&g->done) && !atomic_load(&g->failed)) {
        size_t in = atomic_load(&g->in);
        if (in == 0)
            continue;
        uint32_t id = pe_rng_below(&r, (uint32_t)in);
        if (peri_index_search(g->ix, g->rows + (size_t)id * DIM, &q, hits, &n) != PERI_OK ||
            n == 0 || hits[0].distance > 1e-3f)
            atomic_store(&g->failed, 1);
    }
    return NULL;
}

static void rows_are_found_while_the_index_grows(void **state)
{
    (void)state;
    enum { N = 4000, STEP = 400 };
    float *rows = new_rows(31, N, DIM);
    for (int kind = 0; kind < KINDS; kind++) {
        peri_hnsw_config config;
        peri_hnsw_config_init(&config); /* its defaults; but wells are trained early */
        growth g = {.ix = make_index(kind, DIM, PERI_METRIC_L2, 0, &config, NULL), .rows = rows};
        pthread_t threads[2];
        peri_task task = threads_task(2);
        for (int i = 0; i < 2; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, growth_reader, &g), 0);
        size_t in = 0;
        while (in < N && !g.failed) {
            if (in < 1000 && in % 200 < 100) {
                assert_ok(peri_index_put(g.ix, in, rows + in * DIM, 0));
                in++;
            } else {
                size_t n = in + STEP < N ? STEP : N - in;
                n = in < 1000 ? 100 : n;
                assert_ok(peri_index_put_many(g.ix, n, NULL, rows + in * DIM, 0, &task, NULL));
                in += n;
            }
            atomic_store(&g.in, in);
        }
        atomic_store(&g.done, 1);
        for (int i = 0; i < 2; i++)
            pthread_join(threads[i], NULL);
        assert_false(g.failed);
        assert_int_equal(info_of(g.ix).rows, N);
        assert_index_valid(g.ix);
        peri_index_close(g.ix);
    }
    free(rows);
}

static void two_threads_build_what_one_would(void **state)
{
    (void)state;
    enum { N = 3000 };
    float *rows = new_rows(32, N, DIM);
    peri_hit hit;
    size_t n, done;
    peri_query q = query_of(1);
    peri_task task = threads_task(2);
    for (uint16_t codes = PERI_CODES_NONE; codes <= PERI_CODES_8BIT; codes++) {
        peri_hnsw_config config;
        peri_hnsw_config_init(&config);
        config.codes = codes;
        config.ef_construction = 60;
        peri_index *ix = make_index(KIND_HNSW, DIM, PERI_METRIC_COSINE, 0, &config, NULL);
        assert_ok(peri_index_put_many(ix, N, NULL, rows, 0, &task, &done));
        assert_int_equal(done, N);
        assert_index_valid(ix);
        for (uint64_t id = 0; id < N; id += 7) {
            assert_ok(peri_index_search(ix, rows + id * DIM, &q, &hit, &n));
            assert_true(n == 1 && hit.id == id);
        }
        peri_index_close(ix);
    }
    free(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_of_a_flat_index_see_what_was_there),
        cmocka_unit_test(readers_of_a_graph_see_what_was_there),
        cmocka_unit_test(readers_of_gravity_wells_see_what_was_there),
        cmocka_unit_test(readers_of_a_keyed_index_see_what_was_there),
        cmocka_unit_test(rows_are_found_while_the_index_grows),
        cmocka_unit_test(two_threads_build_what_one_would),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
