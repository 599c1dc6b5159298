/* A vector file against a list of names with rows: thousands of random operations, among them
 * closing with and without a checkpoint, compaction, index builds, and a second handle that only
 * reads. What the file says is compared with the list after each, and a file that was closed
 * without a checkpoint must be what the list was at the last one. */
#include "vectors.h"

enum { DIM = 6, NAMES = 240, STEPS = 700 };

typedef struct names_state {
    uint32_t version[NAMES]; /* 0 = not there; a row follows from name and version */
} names_state;

typedef struct world {
    const char *path;
    peri_space space;
    peri_vectors *v, *reader;
    names_state now, saved, seen; /* seen: by the reader */
    uint32_t versions;
    pe_rng rng;
    char names[NAMES][24];
    peri_slice keys[NAMES];
} world;

/* Small numbers, exact in every scalar, no two rows alike in direction. */
static void row_of(unsigned name, uint32_t version, float row[DIM])
{
    pe_rng r = {(uint64_t)name << 32 | version};
    for (unsigned i = 0; i < DIM; i++)
        row[i] = (float)pe_rng_below(&r, 17) - 8;
    row[name % DIM] += 20;
}

static double distance_of(const world *w, const float *a, const float *b)
{
    double dot = 0, aa = 0, bb = 0, l2 = 0;
    for (int i = 0; i < DIM; i++) {
        dot += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
        l2 += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    }
    return w->space.metric == PERI_METRIC_L2   ? sqrt(l2)
           : w->space.metric == PERI_METRIC_IP ? -dot
                                               : 1 - dot / sqrt(aa * bb);
}

static double tolerance(const world *w)
{
    return w->space.scalar == PERI_SCALAR_F32 ? 1e-4 : 2e-2;
}

static int compare(const void *a, const void *b)
{
    double x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

static void check_search(const world *w, const peri_vectors *v, const names_state *s, pe_rng *rng)
{
    double all[NAMES];
    float query[DIM], row[DIM];
    size_t n = 0, found;
    peri_hit hits[NAMES];
    peri_query q = query_of(1 + pe_rng_below(rng, 40));
    q.effort = 2000;
    row_of(pe_rng_below(rng, NAMES), pe_rng_below(rng, 1000), query);
    for (unsigned i = 0; i < NAMES; i++)
        if (s->version[i]) {
            row_of(i, s->version[i], row);
            all[n++] = distance_of(w, query, row);
        }
    qsort(all, n, sizeof *all, compare);
    assert_ok(peri_vectors_search(v, query, &q, hits, &found));
    assert_int_equal(found, n < q.k ? n : q.k);
    for (size_t i = 0; i < found; i++) {
        if (fabs(all[i] - (double)hits[i].distance) > tolerance(w) * (10 + fabs(all[i])))
            fail_msg("hit %zu of %zu is %g, expected %g", i, found, (double)hits[i].distance,
                     all[i]);
        for (size_t j = 0; j < i; j++)
            assert_true(hits[i].id != hits[j].id);
    }
}

static void check_state(world *w, const peri_vectors *v, const names_state *s)
{
    uint64_t n = 0, live = 0, cursor = 0, id;
    float want[DIM], got[DIM];
    peri_buf key = {0};
    for (unsigned i = 0; i < NAMES; i++) {
        peri_status status = peri_vectors_get(v, w->keys[i], got, &id);
        assert_int_equal(status, s->version[i] ? PERI_OK : PERI_ERR_NOT_FOUND);
        if (!s->version[i])
            continue;
        live++;
        row_of(i, s->version[i], want);
        for (int j = 0; j < DIM; j++)
            if (fabs((double)got[j] - want[j]) > tolerance(w) * 30)
                fail_msg("name %u version %u: %g, expected %g", i, s->version[i], (double)got[j],
                         (double)want[j]);
        assert_ok(peri_vectors_key_of(v, id, &key));
        assert_int_equal(key.size, w->keys[i].size);
        assert_memory_equal(key.data, w->keys[i].data, key.size);
    }
    assert_ok(peri_vectors_len(v, &n));
    assert_int_equal(n, live);
    for (n = 0; peri_vectors_next(v, &cursor, &key, &id) == PERI_OK; n++)
        assert_true(cursor == id + 1);
    assert_int_equal(n, live);
    peri_buf_free(&key);
}

static void put(world *w)
{
    float rows[12][DIM];
    peri_slice keys[12];
    size_t n = 1 + pe_rng_below(&w->rng, 12);
    names_state next = w->now;
    uint64_t first;
    for (size_t i = 0; i < n; i++) {
        unsigned name = pe_rng_below(&w->rng, NAMES);
        next.version[name] = ++w->versions;
        keys[i] = w->keys[name];
        row_of(name, w->versions, rows[i]);
    }
    if (pe_rng_below(&w->rng, 8) == 0) { /* one bad row: nothing of the batch is in */
        rows[n - 1][2] = NAN;
        assert_status(PERI_ERR_NONFINITE,
                      peri_vectors_insert_batch(w->v, n, keys, rows[0], 0, NULL));
        return;
    }
    assert_ok(peri_vectors_insert_batch(w->v, n, keys, rows[0], 0, &first));
    w->now = next;
}

static void put_one(world *w)
{
    unsigned name = pe_rng_below(&w->rng, NAMES);
    float row[DIM];
    row_of(name, ++w->versions, row);
    int there = w->now.version[name] != 0;
    peri_status status;
    if (pe_rng_below(&w->rng, 2))
        status = peri_vectors_update(w->v, w->keys[name], row, NULL);
    else
        status = peri_vectors_insert(w->v, w->keys[name], row, PERI_PUT_NEW, NULL) == PERI_OK
                     ? (there = !there, PERI_OK)
                     : (there = !there, PERI_ERR_NOT_FOUND);
    assert_int_equal(status, there ? PERI_OK : PERI_ERR_NOT_FOUND);
    if (there)
        w->now.version[name] = w->versions;
}

static void take_away(world *w)
{
    for (unsigned n = 1 + pe_rng_below(&w->rng, 10); n > 0; n--) {
        unsigned name = pe_rng_below(&w->rng, NAMES);
        assert_status(w->now.version[name] ? PERI_OK : PERI_ERR_NOT_FOUND,
                      peri_vectors_delete(w->v, w->keys[name]));
        w->now.version[name] = 0;
    }
}

static void change_index(world *w)
{
    int kind = (int)pe_rng_below(&w->rng, KINDS);
    switch (pe_rng_below(&w->rng, 4)) {
    case 0:
        assert_ok(peri_vectors_build_index(
            w->v, make_index(kind, DIM, w->space.metric, w->space.scalar, NULL, NULL), NULL));
        break;
    case 1:
        assert_ok(peri_vectors_drop_index(w->v));
        return;
    default:
        if (vectors_info(w->v).index_kind[0] == 0)
            return;
        assert_ok(peri_vectors_maintain(w->v, NULL));
    }
    w->saved = w->now; /* both end with a checkpoint */
}

static void reopen(world *w)
{
    if (pe_rng_below(&w->rng, 2)) {
        assert_ok(peri_vectors_checkpoint(w->v));
        w->saved = w->now;
    }
    peri_vectors_close(w->v);
    w->v = open_vectors(w->path, 0, NULL);
    assert_int_equal(vectors_info(w->v).index_dropped, 0);
    w->now = w->saved;
}

/* Without a close: what another process would find if this one were killed now. */
static void look_at_a_copy(world *w)
{
    const char *copy = scratch("copy.vectors");
    blob b = blob_load(w->path);
    blob_save(copy, b.data, b.size);
    free(b.data);
    peri_vectors *v = open_vectors(copy, 0, NULL);
    check_state(w, v, &w->saved);
    check_search(w, v, &w->saved, &w->rng);
    float row[DIM];
    row_of(3, 1, row);
    assert_ok(peri_vectors_insert(v, w->keys[3], row, 0, NULL)); /* over what was left behind */
    assert_ok(peri_vectors_checkpoint(v));
    assert_vectors_valid(v);
    peri_vectors_close(v);
}

static void refresh(world *w)
{
    if (!w->reader)
        w->reader = open_vectors(w->path, PERI_OPEN_READONLY, NULL);
    assert_ok(peri_vectors_refresh(w->reader, NULL));
    w->seen = w->saved;
}

static void step(world *w)
{
    unsigned dice = pe_rng_below(&w->rng, 100);
    if (dice < 40) {
        put(w);
    } else if (dice < 58) {
        put_one(w);
    } else if (dice < 72) {
        take_away(w);
    } else if (dice < 82) {
        assert_ok(peri_vectors_checkpoint(w->v));
        w->saved = w->now;
    } else if (dice < 88) {
        reopen(w);
    } else if (dice < 90) {
        look_at_a_copy(w);
    } else if (dice < 92) {
        change_index(w);
    } else if (dice < 94) {
        assert_ok(peri_vectors_compact(w->v, NULL));
        w->saved = w->now;
    } else {
        refresh(w);
    }
    check_state(w, w->v, &w->now);
    check_search(w, w->v, &w->now, &w->rng);
    if (w->reader) {
        check_state(w, w->reader, &w->seen);
        check_search(w, w->reader, &w->seen, &w->rng);
    }
    if (dice % 4 == 0)
        assert_vectors_valid(w->v);
}

static void live_through(uint16_t metric, uint16_t scalar, uint64_t seed)
{
    world w = {.path = scratch("model.vectors"), .rng = {seed}};
    w.space = space_of(DIM, metric, scalar);
    for (unsigned i = 0; i < NAMES; i++)
        w.keys[i] =
            (peri_slice){w.names[i], (size_t)snprintf(w.names[i], sizeof w.names[i], "%.*s%u",
                                                      (int)(i % 9), "longerkey", i)};
    w.v = make_vectors(w.path, DIM, metric, scalar, NULL);
    for (int i = 0; i < STEPS; i++)
        step(&w);
    peri_vectors_close(w.reader);
    peri_vectors_close(w.v);
    w.v = open_vectors(w.path, PERI_OPEN_READONLY, NULL);
    check_state(&w, w.v, &w.saved);
    assert_vectors_valid(w.v);
    peri_vectors_close(w.v);
}

static void l2_f32(void **state)
{
    (void)state;
    live_through(PERI_METRIC_L2, PERI_SCALAR_F32, 1);
}

static void ip_bf16(void **state)
{
    (void)state;
    live_through(PERI_METRIC_IP, PERI_SCALAR_BF16, 2);
}

static void cosine_f32(void **state)
{
    (void)state;
    live_through(PERI_METRIC_COSINE, PERI_SCALAR_F32, 3);
}

static void cosine_f16(void **state)
{
    (void)state;
    live_through(PERI_METRIC_COSINE, PERI_SCALAR_F16, 4);
}

static void l2_i8(void **state)
{
    (void)state;
    live_through(PERI_METRIC_L2, PERI_SCALAR_I8, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(l2_f32),     cmocka_unit_test(ip_bf16), cmocka_unit_test(cosine_f32),
        cmocka_unit_test(cosine_f16), cmocka_unit_test(l2_i8),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
