/* Random lives of indexes against a model: whatever is put, replaced, removed, saved, mapped and
 * tidied up, each answer must be one that the model allows, and after each step the index must be
 * whole. Runs are made of a seed: a failure prints the run, and
 *      PERIGEE_SEED=n  repeats that seed alone, PERIGEE_RUNS=n runs n times as many. */
#include "model.h"
#include "scratch.h"

#include <float.h>

enum { CAP = 1600, MOST_K = 64 };

typedef struct run {
    uint64_t seed;
    int kind, keyed, style, start, steps;
    uint16_t metric, scalar, codes;
    uint32_t dim;
    model_data data;
} run;

typedef struct life {
    run how;
    pe_rng rng;
    peri_index *ix;
    model m;
    int step;
    const char *doing;
    float *row;            /* room for one */
    uint64_t asked, found; /* recall of the graph, over the searches of default effort */
} life;

static life now; /* the one under way, for the report */

static uint32_t below(uint32_t n)
{
    return pe_rng_below(&now.rng, n);
}

static int report(void **state)
{
    (void)state;
    if (now.doing)
        print_error(
            "in the run of seed %llu: %s%s %s %s codes %u dim %u data %d ids %d, step %d of "
            "%d: %s\n",
            (unsigned long long)now.how.seed, kind_names[now.how.kind],
            now.how.keyed ? " keyed" : "", metric_names[now.how.metric],
            scalar_names[now.how.scalar], now.how.codes, now.how.dim, now.how.data, now.how.style,
            now.step, now.how.steps, now.doing);
    memset(&now, 0, sizeof now);
    return 0;
}

/* ---- names ---- */

static uint64_t id_of_name(size_t name)
{
    switch (now.how.style) {
    case 0:
        return name;
    case 1:
        return pe_mix64(name + 1);
    default:
        return UINT64_MAX - name;
    }
}

static peri_slice key_of_name(size_t name, char room[48])
{
    int n =
        snprintf(room, 48, "%.*s%zu", (int)(name % 30), "a key that goes on for a while/", name);
    return (peri_slice){room, (size_t)n};
}

static size_t any_live(void)
{
    if (!now.m.live)
        return SIZE_MAX;
    for (;;) {
        size_t name = below(CAP);
        if (now.m.here[name])
            return name;
    }
}

/* ---- answers ---- */

typedef struct truth {
    double d, low, high;
    size_t name;
} truth;

static int compare_truth(const void *a, const void *b)
{
    const truth *x = a, *y = b;
    return x->d < y->d ? -1 : x->d > y->d;
}

typedef struct asked {
    const float *row;
    peri_query q;
    const unsigned char *allowed; /* by name, NULL = all */
} asked;

static void print_hits(const peri_hit *hits, size_t n)
{
    for (size_t i = 0; i < n && i < 20; i++)
        print_error("  %zu: id %llu distance %.9g\n", i, (unsigned long long)hits[i].id,
                    (double)hits[i].distance);
}

#define expect(what)                                                                               \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            print_error("k %u, %zu live, %zu allowed, %zu hits\n", a->q.k, now.m.live, n_all, n);  \
            print_hits(hits, n);                                                                   \
            assert_true(what);                                                                     \
        }                                                                                          \
    } while (0)

/* Is this an answer that the model allows? */
static void check_answer(const asked *a, const peri_hit *hits, size_t n)
{
    const model *m = &now.m;
    truth *all = malloc((m->cap + 1) * sizeof *all);
    size_t n_all = 0, sure = 0, possible = 0;
    model_query mq = model_ask(m, a->row);
    double radius = a->q.has_max_distance ? (double)a->q.max_distance : INFINITY;
    int exact = now.how.kind == KIND_FLAT;
    for (size_t name = 0; name < m->cap; name++) {
        if (!m->here[name] || (a->allowed && !a->allowed[name]))
            continue;
        truth t = {.name = name};
        t.d = model_distance(m, &mq, name, &t.low, &t.high);
        sure += t.high <= radius;
        possible += t.low <= radius;
        all[n_all++] = t;
    }
    qsort(all, n_all, sizeof *all, compare_truth);
    size_t k = a->q.k;
    expect(n <= k);
    expect(n <= possible);
    /* A radius without a filter is the one question that a graph may answer in part. */
    if (exact || !a->q.has_max_distance || a->allowed)
        expect(n >= (sure < k ? sure : k));
    for (size_t i = 0; i < n; i++) {
        size_t name = model_name(m, hits[i].id), j = 0;
        expect(name != SIZE_MAX);
        expect(!a->allowed || a->allowed[name]);
        expect(hits[i].distance <= radius);
        while (j < n_all && all[j].name != name)
            j++;
        expect(j < n_all);
        if (!(hits[i].distance >= all[j].low && hits[i].distance <= all[j].high))
            print_error("hit %zu of name %zu: %.9g not within %.9g..%.9g\n", i, name,
                        (double)hits[i].distance, all[j].low, all[j].high);
        expect(hits[i].distance >= all[j].low && hits[i].distance <= all[j].high);
        if (i) {
            expect(hits[i - 1].distance <= hits[i].distance);
            expect(hits[i - 1].distance < hits[i].distance || hits[i - 1].id < hits[i].id);
        }
        for (size_t l = 0; l < i; l++)
            expect(hits[l].id != hits[i].id);
        /* The i-th hit of an exact search is as near as the i-th nearest row. */
        if (exact && !(hits[i].distance <= all[i].high))
            print_error("hit %zu is %.9g, the true one %.9g..%.9g\n", i, (double)hits[i].distance,
                        all[i].low, all[i].high);
        expect(!exact || hits[i].distance <= all[i].high);
    }
    if (!a->q.has_max_distance && a->q.effort == 0)
        for (size_t i = 0; i < k && i < n_all; i++) {
            now.asked++;
            now.found += i < n && hits[i].distance <= all[i].high;
        }
    free(mq.q);
    free(all);
}

static void any_query(float *row)
{
    size_t name = below(3) == 0 ? any_live() : SIZE_MAX;
    if (name == SIZE_MAX)
        model_row(&now.m, &now.rng, row);
    else
        memcpy(row, now.m.rows + name * now.how.dim, now.how.dim * sizeof *row);
}

static peri_query any_asked(void)
{
    static const uint32_t ks[] = {1, 2, 10, 33, MOST_K};
    peri_query q = query_of(ks[below(5)]);
    if (below(4) == 0)
        q.effort = 1 + below(300);
    if (below(4) == 0)
        q.rerank = 1 + below(300);
    return q;
}

static void ask(const peri_index *ix, asked *a)
{
    peri_hit hits[MOST_K + 1];
    size_t n = 99;
    memset(hits, 0xee, sizeof hits);
    assert_ok(peri_index_search(ix, a->row, &a->q, hits, &n));
    check_answer(a, hits, n);
    assert_true(hits[a->q.k].id == 0xeeeeeeeeeeeeeeeeu); /* nothing beyond k was touched */
    /* The first k of more are the k of fewer: no tie is broken one way here and another there. */
    if (now.how.kind == KIND_FLAT && a->q.k > 3 && n > 3) {
        peri_hit fewer[3];
        size_t n_fewer;
        peri_query q = a->q;
        q.k = 3;
        assert_ok(peri_index_search(ix, a->row, &q, fewer, &n_fewer));
        assert_int_equal(n_fewer, 3);
        for (int i = 0; i < 3; i++) {
            assert_true(fewer[i].distance == hits[i].distance);
            /* Under cosine lengths beyond one are rounded to distance 0: those tie by chance. */
            assert_true(fewer[i].id == hits[i].id || now.how.metric == PERI_METRIC_COSINE);
        }
    }
}

static void search(const peri_index *ix)
{
    asked a = {now.row, any_asked(), NULL};
    now.doing = "search";
    any_query(now.row);
    ask(ix, &a);
}

static void search_self(const peri_index *ix)
{
    peri_hit hit;
    size_t n, name = any_live();
    double low, high;
    peri_query q = query_of(1);
    /* Far rows of few bits lie in one code by the dozen. */
    q.rerank = now.how.codes == PERI_CODES_8BIT ? 64 : 0;
    now.doing = "search for a row that is here";
    if (name == SIZE_MAX || now.how.metric == PERI_METRIC_IP)
        return;
    const float *row = now.m.rows + name * now.how.dim;
    model_query mq = model_ask(&now.m, row);
    model_distance(&now.m, &mq, name, &low, &high);
    free(mq.q);
    assert_ok(peri_index_search(ix, row, &q, &hit, &n));
    assert_int_equal(n, 1);
    if (!(hit.distance <= high))
        print_error("nearest is id %llu at %.9g, itself id %llu at most %.9g\n",
                    (unsigned long long)hit.id, (double)hit.distance,
                    (unsigned long long)now.m.ids[name], high);
    assert_true(hit.distance <= high);
}

static void search_many(const peri_index *ix)
{
    enum { N = 24 };
    uint32_t dim = now.how.dim;
    float *rows = malloc((size_t)N * dim * sizeof *rows);
    peri_hit *hits = malloc((size_t)N * MOST_K * sizeof *hits);
    size_t n_hits[N];
    peri_query q = any_asked();
    peri_task task = threads_task(1 + below(2));
    now.doing = "search_many";
    for (size_t i = 0; i < N; i++)
        any_query(rows + i * dim);
    assert_ok(peri_index_search_many(ix, N, rows, &q, below(2) ? &task : NULL, hits, n_hits));
    for (size_t i = 0; i < N; i++) {
        asked a = {rows + i * dim, q, NULL};
        check_answer(&a, hits + i * q.k, n_hits[i]);
    }
    free(rows);
    free(hits);
}

static void search_range(const peri_index *ix)
{
    asked a = {now.row, any_asked(), NULL};
    peri_hit hits[MOST_K];
    size_t n;
    now.doing = "range search";
    any_query(now.row);
    assert_ok(peri_index_search(ix, now.row, &a.q, hits, &n));
    a.q.has_max_distance = 1;
    if (n == 0) {
        a.q.max_distance = 1;
        ask(ix, &a);
        return;
    }
    /* The distance of a hit as the radius takes that hit in. */
    size_t at = below((uint32_t)n), n_in;
    peri_hit in[MOST_K];
    a.q.max_distance = hits[at].distance;
    ask(ix, &a);
    assert_ok(peri_index_search(ix, now.row, &a.q, in, &n_in));
    if (now.how.kind == KIND_FLAT)
        assert_true(n_in >= at + 1);
    a.q.max_distance = hits[at].distance * (below(2) ? 1.5f : 0.5f);
    ask(ix, &a);
    a.q.max_distance = below(2) ? INFINITY : -FLT_MAX;
    ask(ix, &a);
}

static int keep(void *ctx, uint64_t id)
{
    const unsigned char *allowed = ctx;
    size_t name = model_name(&now.m, id);
    return name != SIZE_MAX && allowed[name];
}

static void search_filtered(const peri_index *ix)
{
    unsigned char *set = calloc(CAP, 1), *fn = calloc(CAP, 1), *both = calloc(CAP, 1);
    uint32_t one_in[] = {1, 2, 10, 100, 100000};
    uint32_t of_set = one_in[below(5)], of_fn = one_in[below(5)];
    int with_set = below(3) != 0, with_fn = !with_set || below(3) == 0;
    peri_idset *ids = NULL;
    asked a = {now.row, any_asked(), both};
    now.doing = "filtered search";
    any_query(now.row);
    assert_ok(peri_idset_create(&ids, NULL));
    for (size_t name = 0; name < CAP; name++) {
        set[name] = below(of_set) == 0;
        fn[name] = below(of_fn) == 0;
        uint64_t id = now.m.here[name] ? now.m.ids[name] : UINT64_MAX / 2 - name;
        if (with_set && set[name])
            assert_ok(peri_idset_add(ids, 1, &id));
        both[name] = (!with_set || set[name]) && (!with_fn || fn[name]);
    }
    if (with_set)
        a.q.allow = ids;
    if (with_fn) {
        a.q.filter = keep;
        a.q.filter_ctx = fn;
    }
    ask(ix, &a);
    if (below(2)) {
        a.q.has_max_distance = 1;
        a.q.max_distance = (float)pe_rng_unit(&now.rng) * (now.how.metric == 1 ? 20.0f : 1.0f);
        ask(ix, &a);
    }
    peri_idset_close(ids);
    free(set);
    free(fn);
    free(both);
}

/* ---- everything there is ---- */

static int compare_ids(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void check_all(const peri_index *ix)
{
    const model *m = &now.m;
    uint32_t dim = now.how.dim;
    uint64_t *ids = calloc(CAP + 1, sizeof *ids);
    size_t n, n_want = 0;
    peri_buf buf = {0};
    now.doing = "reading everything";
    assert_index_valid(ix);
    peri_index_info info = info_of(ix);
    assert_int_equal(info.rows, m->live);
    assert_int_equal(info.space.dim, dim);
    assert_int_equal(info.space.metric, now.how.metric);
    assert_int_equal(info.space.scalar, now.how.scalar);
    assert_ok(peri_index_ids(ix, ids, CAP, &n));
    assert_int_equal(n, m->live);
    qsort(ids, n, sizeof *ids, compare_ids);
    for (size_t i = 1; i < n; i++)
        assert_true(ids[i - 1] < ids[i]);
    for (size_t name = 0; name < CAP; name++) {
        char room[48];
        uint64_t id = 0;
        if (!m->here[name]) {
            if (now.how.keyed)
                assert_status(PERI_ERR_NOT_FOUND,
                              peri_index_id_of(ix, key_of_name(name, room), &id));
            else
                assert_status(PERI_ERR_NOT_FOUND, peri_index_get(ix, id_of_name(name), now.row));
            continue;
        }
        n_want++;
        assert_non_null(bsearch(&m->ids[name], ids, n, sizeof *ids, compare_ids));
        assert_ok(peri_index_get(ix, m->ids[name], now.row));
        assert_rounded(m, m->rows + name * dim, now.row);
        if (now.how.keyed) {
            peri_slice key = key_of_name(name, room);
            assert_ok(peri_index_id_of(ix, key, &id));
            assert_true(id == m->ids[name]);
            assert_ok(peri_index_key_of(ix, id, &buf));
            assert_int_equal(buf.size, key.size);
            assert_memory_equal(buf.data, key.data, key.size);
        }
    }
    assert_int_equal(n_want, m->live);
    peri_buf_free(&buf);
    free(ids);
}

/* ---- changes ---- */

static void put_one(void)
{
    size_t name = below(4) == 0 ? any_live() : below(CAP);
    char room[48];
    if (name == SIZE_MAX)
        name = below(CAP);
    uint64_t id = id_of_name(name);
    uint32_t flags = below(4) == 0 ? PERI_PUT_NEW : 0;
    peri_status want = flags && now.m.here[name] ? PERI_ERR_EXISTS : PERI_OK;
    now.doing = "put";
    model_row(&now.m, &now.rng, now.row);
    if (now.how.keyed)
        assert_status(want,
                      peri_index_put_keyed(now.ix, key_of_name(name, room), now.row, flags, &id));
    else
        assert_status(want, peri_index_put(now.ix, id, now.row, flags));
    if (want == PERI_OK) {
        if (now.how.keyed && now.m.here[name])
            assert_true(id == now.m.ids[name]);
        model_put(&now.m, now.ix, name, id, now.row);
    }
}

static void put_batch(size_t n)
{
    uint32_t dim = now.how.dim;
    float *rows = malloc((n * dim + 1) * sizeof *rows);
    size_t *names = malloc((n + 1) * sizeof *names), done = 99;
    uint64_t *ids = malloc((n + 1) * sizeof *ids);
    peri_slice *keys = malloc((n + 1) * sizeof *keys);
    char(*room)[48] = malloc((n + 1) * sizeof *room);
    peri_task task = threads_task(1 + below(2));
    uint32_t flags = below(4) == 0 ? PERI_PUT_NEW : 0;
    int taken = 0;
    now.doing = "put_many";
    uint32_t range = below(3) == 0 ? (uint32_t)n / 2 + 1 : CAP; /* many stand twice */
    for (size_t i = 0; i < n; i++) {
        names[i] = n > CAP / 2 ? i : below(range < CAP ? range : CAP);
        ids[i] = id_of_name(names[i]);
        keys[i] = key_of_name(names[i], room[i]);
        model_row(&now.m, &now.rng, rows + i * dim);
        taken |= now.m.here[names[i]];
        for (size_t j = 0; j < i && n <= CAP / 2; j++)
            taken |= names[j] == names[i];
    }
    peri_status want = flags && taken ? PERI_ERR_EXISTS : PERI_OK;
    const peri_task *with = below(2) ? &task : NULL;
    if (now.how.keyed)
        assert_status(want, peri_index_put_many_keyed(now.ix, n, keys, rows, flags, with, &done));
    else
        assert_status(want, peri_index_put_many(now.ix, n, ids, rows, flags, with, &done));
    assert_int_equal(done, want == PERI_OK ? n : 0);
    for (size_t i = 0; i < n && want == PERI_OK; i++) {
        int last = 1;
        for (size_t j = i + 1; j < n && n <= CAP / 2; j++)
            last &= names[j] != names[i];
        if (now.how.keyed)
            assert_ok(peri_index_id_of(now.ix, keys[i], &ids[i]));
        if (last)
            model_put(&now.m, now.ix, names[i], ids[i], rows + i * dim);
    }
    free(rows);
    free(names);
    free(ids);
    free(keys);
    free(room);
}

static void remove_one(void)
{
    size_t name = below(8) == 0 ? below(CAP) : any_live();
    char room[48];
    now.doing = "remove";
    if (name == SIZE_MAX)
        name = below(CAP);
    peri_status want = now.m.here[name] ? PERI_OK : PERI_ERR_NOT_FOUND;
    if (now.how.keyed)
        assert_status(want, peri_index_remove_keyed(now.ix, key_of_name(name, room)));
    else
        assert_status(want, peri_index_remove(now.ix, id_of_name(name)));
    model_remove(&now.m, name);
}

static void remove_some(void)
{
    uint32_t most = 1 + below(5) * 20;
    for (uint32_t i = 0; i < most && now.m.live; i++) {
        remove_one();
        if (i % 16 == 0)
            assert_index_valid(now.ix);
    }
}

static void save_and_open(void)
{
    const char *path = scratch("life.peri");
    now.doing = "save and open";
    peri_index *other;
    assert_ok(peri_index_save(now.ix, path, NULL));
    assert_index_valid(now.ix);
    uint32_t flags = below(4);
    assert_ok(peri_index_open(&other, path, flags, NULL, NULL));
    now.doing = flags & PERI_OPEN_MAP ? "a mapped copy" : "an opened copy";
    search(other);
    search_filtered(other);
    search_many(other);
    check_all(other);
    if (flags & PERI_OPEN_READONLY) {
        assert_status(PERI_ERR_STATE, peri_index_maintain(other, NULL));
        peri_index_close(other);
        return;
    }
    peri_index_close(now.ix); /* life goes on in the copy */
    now.ix = other;
}

static void maintain(void)
{
    now.doing = "maintain";
    peri_task task = threads_task(1 + below(2));
    assert_ok(peri_index_maintain(now.ix, below(2) ? &task : NULL));
    assert_int_equal(info_of(now.ix).deleted, 0);
}

static void step(void)
{
    uint32_t what = below(100);
    if (what < 34)
        put_one();
    else if (what < 40)
        put_batch(below(30));
    else if (what < 56)
        remove_one();
    else if (what < 58)
        remove_some();
    else if (what < 70)
        search(now.ix);
    else if (what < 76)
        search_self(now.ix);
    else if (what < 79)
        search_many(now.ix);
    else if (what < 84)
        search_range(now.ix);
    else if (what < 91)
        search_filtered(now.ix);
    else if (what < 94)
        save_and_open();
    else if (what < 96)
        maintain();
    else if (what < 97)
        assert_ok(peri_index_reserve(now.ix, below(2 * CAP)));
    else
        check_all(now.ix);
    assert_index_valid(now.ix);
}

static void live(run how)
{
    memset(&now, 0, sizeof now);
    now.how = how;
    now.rng = (pe_rng){how.seed};
    now.doing = "making";
    peri_hnsw_config config;
    peri_hnsw_config_init(&config);
    config.codes = how.codes;
    config.m = below(2) ? 0 : 4 + below(20);
    config.ef_construction = below(2) ? 0 : 8 + below(100);
    now.row = malloc(how.dim * sizeof *now.row);
    now.ix = make_index(how.kind, how.dim, how.metric, how.scalar, &config, NULL);
    peri_space space = info_of(now.ix).space;
    model_init(&now.m, &space, CAP, how.data);
    if (how.start)
        put_batch((size_t)how.start);
    assert_index_valid(now.ix);
    for (now.step = 0; now.step < how.steps; now.step++)
        step();
    check_all(now.ix);
    now.doing = "the end";
    /* A graph of so few rows misses next to nothing. Codes of one scale for all dimensions know
     * little of rows with one large one, and dot products make hubs of long rows. */
    int plain = config.m == 0 && config.ef_construction == 0 && how.data != DATA_FAR &&
                how.metric != PERI_METRIC_IP;
    double least = plain ? 0.95 : 0;
    if (how.kind != KIND_FLAT && now.asked > 200) {
        double recall = (double)now.found / (double)now.asked;
        if (recall < least)
            print_error("recall %g, at least %g is due\n", recall, least);
        assert_true(recall >= least);
    }
    peri_index_close(now.ix);
    model_free(&now.m);
    free(now.row);
    memset(&now, 0, sizeof now);
}

/* ---- which lives ---- */

static unsigned long from_environment(const char *name, unsigned long otherwise)
{
    const char *text = getenv(name);
    return text ? strtoul(text, NULL, 10) : otherwise;
}

/* A run of a seed, the rest by chance within what is asked for. */
static run choose(uint64_t seed, int kind, uint16_t metric, uint16_t scalar, uint16_t codes)
{
    static const uint32_t dims[] = {1, 2, 3, 17, 64, 100};
    pe_rng r = {seed * 77 + 5};
    run how = {.seed = seed, .kind = kind, .metric = metric, .scalar = scalar, .codes = codes};
    how.dim = dims[pe_rng_below(&r, 6)];
    how.keyed = pe_rng_below(&r, 4) == 0;
    how.style = (int)pe_rng_below(&r, 3);
    how.data = (model_data)pe_rng_below(&r, DATAS);
    how.start = (int)pe_rng_below(&r, 3) * 60;
    how.steps = 120;
    if (codes == PERI_CODES_8BIT && pe_rng_below(&r, 3)) {
        how.start = 1100 + (int)pe_rng_below(&r, 100); /* enough to train codes on */
        how.steps = 60;
    }
    return how;
}

static void lives(int kind, uint16_t codes, uint32_t dim, int steps)
{
    unsigned long only = from_environment("PERIGEE_SEED", 0);
    unsigned long runs = dim ? 1 : 3 * from_environment("PERIGEE_RUNS", 1);
    for (uint16_t metric = 1; metric <= 3; metric++)
        for (uint16_t scalar = 1; scalar <= 4; scalar++)
            for (unsigned long i = 0; i < runs; i++) {
                uint64_t seed = ((uint64_t)kind * 100000 + codes * 10000u + metric * 1000u +
                                 scalar * 100u + dim * 1000000ul) +
                                7 * i;
                if (only && only != seed)
                    continue;
                run how = choose(seed, kind, metric, scalar, codes);
                if (dim) {
                    how.dim = dim;
                    how.start = 0;
                }
                if (steps)
                    how.steps = steps;
                live(how);
            }
}

static void flat_lives_as_the_model_says(void **state)
{
    (void)state;
    lives(KIND_FLAT, 0, 0, 0);
}

static void hnsw_on_rows_lives_as_the_model_says(void **state)
{
    (void)state;
    lives(KIND_HNSW, PERI_CODES_NONE, 0, 0);
}

static void hnsw_on_codes_lives_as_the_model_says(void **state)
{
    (void)state;
    lives(KIND_HNSW, PERI_CODES_8BIT, 0, 0);
}

static void gravity_wells_live_as_the_model_says(void **state)
{
    (void)state;
    lives(KIND_GWI, PERI_CODES_NONE, 0, 0);
    lives(KIND_GWI, PERI_CODES_8BIT, 0, 0);
}

static void cascade_lives_as_the_model_says(void **state)
{
    (void)state;
    lives(KIND_CASCADE, PERI_CODES_NONE, 0, 0);
    lives(KIND_CASCADE, PERI_CODES_8BIT, 0, 0);
}

static void layout_q_lives_as_the_model_says(void **state)
{
    (void)state;
    lives(KIND_Q, PERI_CODES_NONE, 0, 0);
}

static void wide_rows_live_as_the_model_says(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        lives(kind, 0, 384, 40);
        lives(kind, 0, 1536, 20);
    }
}

static void the_widest_rows_live_as_the_model_says(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++)
        for (uint16_t metric = 1; metric <= 3; metric++) {
            run how = choose((uint64_t)kind * 10 + metric, kind, metric,
                             (uint16_t)(1 + (metric + kind) % 4), 0);
            how.dim = PERI_MAX_DIM;
            how.start = 0;
            how.steps = 14;
            live(how);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(flat_lives_as_the_model_says, report),
        cmocka_unit_test_teardown(hnsw_on_rows_lives_as_the_model_says, report),
        cmocka_unit_test_teardown(hnsw_on_codes_lives_as_the_model_says, report),
        cmocka_unit_test_teardown(gravity_wells_live_as_the_model_says, report),
        cmocka_unit_test_teardown(cascade_lives_as_the_model_says, report),
        cmocka_unit_test_teardown(layout_q_lives_as_the_model_says, report),
        cmocka_unit_test_teardown(wide_rows_live_as_the_model_says, report),
        cmocka_unit_test_teardown(the_widest_rows_live_as_the_model_says, report),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
