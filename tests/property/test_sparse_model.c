/* peri_sparse against a plain table through random lives: rows put one by one and in bulk,
 * replaced, removed, maintained, compacted, saved and opened, by id and by key; after each stretch
 * exact answers are those of the table bit for bit, with filters, bounds and every k, and
 * approximate ones have true distances. */
#include "property/sparse_model.h"
#include "scratch.h"

enum { IDS = 30000, VOCABULARY = 2000 };

typedef struct world {
    peri_sparse *sx;
    sparse_doc *docs;
    pe_rng r;
    int negative, keyed;
    uint32_t weights;
} world;

static uint64_t spread_id(size_t i)
{
    return (uint64_t)i * 0x9e3779b97f4a7c15u;
}

static void make(world *w, uint32_t weights, int negative, uint64_t seed)
{
    peri_sparse_config c;
    peri_sparse_config_init(&c);
    c.weights = weights;
    memset(w, 0, sizeof *w);
    w->negative = negative;
    w->weights = weights;
    w->r.state = seed;
    w->docs = calloc(IDS, sizeof *w->docs);
    assert_non_null(w->docs);
    assert_ok(peri_sparse_create(&w->sx, &c, NULL));
}

static void destroy(world *w)
{
    peri_sparse_close(w->sx);
    free(w->docs);
}

/* The model holds what is kept, once a row is in. */
static void settle(world *w, size_t i)
{
    if (w->weights > PERI_SCALAR_F32)
        take_back(w->sx, spread_id(i), &w->docs[i]);
}

static void put_bulk(world *w, size_t n)
{
    uint64_t *ids = malloc(n * sizeof *ids), *offsets = malloc((n + 1) * sizeof *offsets);
    uint32_t *terms = malloc(n * ROW_MAX * sizeof *terms);
    float *weights = malloc(n * ROW_MAX * sizeof *weights);
    size_t *which = malloc(n * sizeof *which), at = 0, done;
    for (size_t i = 0; i < n; i++) {
        which[i] = pe_rng_below(&w->r, IDS);
        sparse_doc *d = &w->docs[which[i]];
        random_doc(&w->r, VOCABULARY, w->negative, d);
        ids[i] = spread_id(which[i]);
        offsets[i] = at;
        memcpy(terms + at, d->terms, d->n * sizeof *terms);
        memcpy(weights + at, d->weights, d->n * sizeof *weights);
        at += d->n;
    }
    offsets[n] = at;
    peri_sparse_rows rows = {n, offsets, terms, weights};
    peri_task task = threads_task(2);
    assert_ok(peri_sparse_put_many(w->sx, ids, &rows, 0, &task, &done));
    assert_int_equal(done, n);
    for (size_t i = 0; i < n; i++)
        settle(w, which[i]);
    free(ids), free(offsets), free(terms), free(weights), free(which);
}

static void change(world *w, size_t n)
{
    while (n--) {
        size_t i = pe_rng_below(&w->r, IDS);
        sparse_doc *d = &w->docs[i];
        if (d->live && pe_rng_below(&w->r, 2)) {
            assert_ok(peri_sparse_remove(w->sx, spread_id(i)));
            d->live = 0;
            continue;
        }
        random_doc(&w->r, VOCABULARY, w->negative, d);
        peri_sparse_row row = row_of_doc(d);
        assert_ok(peri_sparse_put(w->sx, spread_id(i), &row, 0));
        settle(w, i);
    }
}

/* ---- asking ---- */

static int keeps_thirds(void *ctx, uint64_t id)
{
    (void)ctx;
    return id % 3 == 0;
}

static void compare_one(world *w, uint32_t k, int filter, int bounded)
{
    sparse_doc query;
    peri_query q = query_of(k);
    peri_idset *allow = NULL;
    unsigned char *allowed = calloc(IDS, 1);
    size_t n, m;
    peri_hit *got = calloc(k, sizeof *got), *want = calloc(IDS, sizeof *want);
    random_doc(&w->r, VOCABULARY, w->negative, &query);
    memset(allowed, 1, IDS);
    if (filter & 1) {
        uint32_t share = pe_rng_below(&w->r, 2) ? 200 : 2;
        assert_ok(peri_idset_create(&allow, NULL));
        for (size_t i = 0; i < IDS; i++) {
            uint64_t id = spread_id(i);
            allowed[i] = pe_rng_below(&w->r, share) == 0;
            if (allowed[i])
                assert_ok(peri_idset_add(allow, 1, &id));
        }
        q.allow = allow;
    }
    if (filter & 2) {
        q.filter = keeps_thirds;
        for (size_t i = 0; i < IDS; i++)
            allowed[i] &= spread_id(i) % 3 == 0;
    }
    if (bounded) {
        q.has_max_distance = 1;
        q.max_distance = pe_rng_below(&w->r, 4) ? -(float)pe_rng_below(&w->r, 12) : 1;
    }
    peri_sparse_row row = row_of_doc(&query);
    assert_ok(peri_sparse_search(w->sx, &row, &q, got, &n));
    m = model_search(w->docs, IDS, spread_id, allowed, &query, k,
                     bounded ? q.max_distance : INFINITY, want);
    assert_same_hits(got, n, want, m);
    q.effort = 1 + pe_rng_below(&w->r, ROW_MAX);
    assert_ok(peri_sparse_search(w->sx, &row, &q, got, &n));
    assert_true(n <= m);
    m = model_search(w->docs, IDS, spread_id, allowed, &query, IDS,
                     bounded ? q.max_distance : INFINITY, want);
    for (size_t i = 0; i < n; i++) { /* each approximate hit is one of all that there are */
        size_t j = 0;
        while (j < m && want[j].id != got[i].id)
            j++;
        assert_true(j < m && want[j].distance == got[i].distance);
        assert_true(i == 0 || model_hit_order(&got[i - 1], &got[i]) < 0);
    }
    peri_idset_close(allow);
    free(allowed), free(got), free(want);
}

static void compare(world *w)
{
    static const uint32_t ks[] = {1, 10, 10, 100, 40000};
    assert_sparse_valid(w->sx);
    uint64_t live = 0;
    for (size_t i = 0; i < IDS; i++)
        live += (uint64_t)w->docs[i].live;
    peri_sparse_info info;
    peri_sparse_info_init(&info);
    assert_ok(peri_sparse_get_info(w->sx, &info));
    assert_int_equal(info.rows, live);
    for (int round = 0; round < 16; round++)
        compare_one(w, ks[pe_rng_below(&w->r, 5)], round % 4, round % 5 == 0);
    for (int i = 0; i < 50; i++) {
        size_t at = pe_rng_below(&w->r, IDS);
        sparse_doc d;
        if (w->docs[at].live) {
            take_back(w->sx, spread_id(at), &d);
            assert_int_equal(d.n, w->docs[at].n);
            assert_memory_equal(d.terms, w->docs[at].terms, d.n * sizeof *d.terms);
            assert_memory_equal(d.weights, w->docs[at].weights, d.n * sizeof *d.weights);
        } else {
            size_t n;
            assert_status(PERI_ERR_NOT_FOUND,
                          peri_sparse_get(w->sx, spread_id(at), NULL, NULL, 0, &n));
            assert_status(PERI_ERR_NOT_FOUND, peri_sparse_remove(w->sx, spread_id(at)));
        }
    }
}

static void reopen(world *w, uint32_t flags)
{
    const char *path = scratch("model.sparse");
    assert_ok(peri_sparse_save(w->sx, path, NULL));
    peri_sparse_close(w->sx);
    assert_ok(peri_sparse_open(&w->sx, path, flags, NULL, NULL));
}

static void live_a_life(uint32_t weights, int negative)
{
    world w;
    make(&w, weights, negative, 100 + weights * 2 + (uint32_t)negative);
    compare(&w);
    change(&w, 500);
    compare(&w);
    put_bulk(&w, 20000);
    compare(&w);
    change(&w, 9000);
    compare(&w);
    reopen(&w, PERI_OPEN_MAP);
    compare(&w);
    change(&w, 3000);
    compare(&w);
    assert_ok(peri_sparse_maintain(w.sx, NULL));
    compare(&w);
    put_bulk(&w, 30000);
    reopen(&w, 0);
    compare(&w);
    peri_task task = threads_task(2);
    assert_ok(peri_sparse_compact(w.sx, &task));
    compare(&w);
    peri_sparse_info info;
    peri_sparse_info_init(&info);
    assert_ok(peri_sparse_get_info(w.sx, &info));
    assert_int_equal(info.deleted, 0);
    assert_int_equal(info.segments, 1);
    destroy(&w);
}

static void f32_rows_are_found_as_in_the_model(void **state)
{
    (void)state;
    live_a_life(PERI_SCALAR_F32, 0);
}

static void rows_with_negative_weights_are_found_as_in_the_model(void **state)
{
    (void)state;
    live_a_life(PERI_SCALAR_F32, 1);
}

static void f16_rows_are_found_as_in_the_model(void **state)
{
    (void)state;
    live_a_life(PERI_SCALAR_F16, 0);
}

static void i8_rows_are_found_as_in_the_model(void **state)
{
    (void)state;
    live_a_life(PERI_SCALAR_I8, 1);
}

/* Half of the rows gone and compacted: as if they had never been there, byte for byte of the
 * answers and within a tenth in memory. */
static void after_deleting_half_and_compacting_it_is_a_fresh_build(void **state)
{
    (void)state;
    world w, fresh;
    make(&w, PERI_SCALAR_F32, 0, 5);
    make(&fresh, PERI_SCALAR_F32, 0, 5);
    put_bulk(&w, 30000);
    for (size_t i = 0; i < IDS; i++) {
        if (!w.docs[i].live)
            continue;
        if (i % 2) {
            assert_ok(peri_sparse_remove(w.sx, spread_id(i)));
            w.docs[i].live = 0;
        } else {
            peri_sparse_row row = row_of_doc(&w.docs[i]);
            assert_ok(peri_sparse_put(fresh.sx, spread_id(i), &row, PERI_PUT_NEW));
        }
    }
    assert_ok(peri_sparse_compact(w.sx, NULL));
    assert_ok(peri_sparse_compact(fresh.sx, NULL));
    compare(&w);
    peri_sparse_info a, b;
    peri_sparse_info_init(&a);
    peri_sparse_info_init(&b);
    assert_ok(peri_sparse_get_info(w.sx, &a));
    assert_ok(peri_sparse_get_info(fresh.sx, &b));
    assert_int_equal(a.postings, b.postings);
    assert_int_equal(a.approximate_postings, b.approximate_postings);
    assert_true(a.bytes_sealed <= b.bytes_sealed + b.bytes_sealed / 50);
    for (int i = 0; i < 20; i++) {
        sparse_doc query;
        peri_hit x[10], y[10];
        size_t n, m;
        peri_query q = query_of(10);
        random_doc(&w.r, VOCABULARY, 0, &query);
        peri_sparse_row row = row_of_doc(&query);
        assert_ok(peri_sparse_search(w.sx, &row, &q, x, &n));
        assert_ok(peri_sparse_search(fresh.sx, &row, &q, y, &m));
        assert_same_hits(x, n, y, m);
    }
    destroy(&w);
    destroy(&fresh);
}

/* Rows under string keys, some of them twice in a batch. */
static void keys_name_rows_through_a_whole_life(void **state)
{
    (void)state;
    enum { KEYS = 500, ROUNDS = 4000 };
    peri_sparse *sx;
    sparse_doc *docs = calloc(KEYS, sizeof *docs);
    pe_rng r = {77};
    char name[32];
    uint64_t id;
    assert_ok(peri_sparse_create(&sx, NULL, NULL));
    for (int i = 0; i < ROUNDS; i++) {
        uint32_t at = pe_rng_below(&r, KEYS);
        peri_slice key = {name, (size_t)snprintf(name, sizeof name, "key-%u", at)};
        if (docs[at].live && pe_rng_below(&r, 3) == 0) {
            assert_ok(peri_sparse_remove_keyed(sx, key));
            docs[at].live = 0;
            assert_status(PERI_ERR_NOT_FOUND, peri_sparse_id_of(sx, key, &id));
        } else {
            random_doc(&r, VOCABULARY, 0, &docs[at]);
            peri_sparse_row row = row_of_doc(&docs[at]);
            assert_ok(peri_sparse_put_keyed(sx, key, &row, 0, &id));
        }
        if (i == ROUNDS / 2) {
            const char *path = scratch("keys.sparse");
            assert_ok(peri_sparse_save(sx, path, NULL));
            peri_sparse_close(sx);
            assert_ok(peri_sparse_open(&sx, path, PERI_OPEN_MAP, NULL, NULL));
        }
    }
    assert_sparse_valid(sx);
    peri_buf back = {0};
    for (uint32_t at = 0; at < KEYS; at++) {
        peri_slice key = {name, (size_t)snprintf(name, sizeof name, "key-%u", at)};
        peri_status status = peri_sparse_id_of(sx, key, &id);
        assert_int_equal(status, docs[at].live ? PERI_OK : PERI_ERR_NOT_FOUND);
        if (!docs[at].live)
            continue;
        sparse_doc d;
        take_back(sx, id, &d);
        assert_int_equal(d.n, docs[at].n);
        assert_ok(peri_sparse_key_of(sx, id, &back));
        assert_int_equal(back.size, key.size);
        assert_memory_equal(back.data, name, key.size);
    }
    peri_buf_free(&back);
    peri_sparse_close(sx);
    free(docs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32_rows_are_found_as_in_the_model),
        cmocka_unit_test(rows_with_negative_weights_are_found_as_in_the_model),
        cmocka_unit_test(f16_rows_are_found_as_in_the_model),
        cmocka_unit_test(i8_rows_are_found_as_in_the_model),
        cmocka_unit_test(after_deleting_half_and_compacting_it_is_a_fresh_build),
        cmocka_unit_test(keys_name_rows_through_a_whole_life),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
