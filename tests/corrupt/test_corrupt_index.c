/* Damaged index files, through the public calls alone: opened copied and mapped, searched, read,
 * written to, saved, opened again. No crash, no endless loop, no answer that differs from the
 * undamaged file's and claims to be good. */
#include "base/rng.h"
#include "corrupt/corrupt.h"
#include "corrupt/reseal.h"
#include "faulty.h"
#include "perigee/index.h"
#include "scratch.h"

#include <math.h>

enum { DIM = 24, N = 400, K = 10, QUERIES = 6 };

/* What file, and how it is opened. */
typedef struct variant {
    const char *name;
    int kind, keyed;
    uint16_t metric, scalar, codes;
    uint32_t flags;
} variant;

typedef struct made {
    variant v;
    blob file;
} made;

static float rows[N][DIM], queries[QUERIES][DIM];

static void random_rows(float *out, size_t n, uint64_t seed)
{
    pe_rng rng = {seed};
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(pe_rng_unit(&rng) - 0.5) * 4;
}

static peri_slice key_of_row(unsigned i, char text[32])
{
    return (peri_slice){text, (size_t)snprintf(text, 32, "row number %u", i)};
}

/* Ids with gaps, out of order. */
static uint64_t id_of_row(unsigned i)
{
    return (uint64_t)(N - i) * 3 + (i % 5 == 0 ? (uint64_t)1 << 40 : 0);
}

/* ---- making files ---- */

static peri_status create(peri_index **ix, const variant *v, const peri_env *env)
{
    peri_space space;
    peri_space_init(&space, DIM, v->metric);
    space.scalar = v->scalar;
    if (v->kind == 0)
        return peri_flat_create(ix, &space, env);
    if (v->kind == 2) {
        peri_gwi_config wells;
        peri_gwi_config_init(&wells);
        wells.train_rows = 64;
        wells.codes = v->codes;
        return peri_gwi_create(ix, &space, &wells, env);
    }
    peri_hnsw_config config;
    peri_hnsw_config_init(&config);
    config.m = 5;
    config.ef_construction = 40;
    config.ef_search = 30;
    config.codes = v->codes;
    if (v->kind == 3) {
        peri_cascade_config cascade;
        peri_cascade_config_init(&cascade);
        cascade.degree = 10;
        cascade.num_hyperplanes = 6;
        cascade.bucket_capacity = 8;
        cascade.ef_search = 30;
        cascade.codes = v->codes;
        return peri_cascade_create(ix, &space, &cascade, env);
    }
    if (v->kind == 4) {
        config.m_max = 32;
        config.layout = PERI_LAYOUT_Q;
    }
    return peri_hnsw_create(ix, &space, &config, env);
}

static peri_status put_row(peri_index *ix, const variant *v, unsigned i, const float *row)
{
    char text[32];
    if (v->keyed)
        return peri_index_put_keyed(ix, key_of_row(i, text), row, 0, NULL);
    return peri_index_put(ix, id_of_row(i), row, 0);
}

static peri_status remove_row(peri_index *ix, const variant *v, unsigned i)
{
    char text[32];
    if (v->keyed)
        return peri_index_remove_keyed(ix, key_of_row(i, text));
    return peri_index_remove(ix, id_of_row(i));
}

static blob make_file(const variant *v)
{
    const char *path = scratch("made");
    peri_index *ix;
    assert_int_equal(create(&ix, v, NULL), PERI_OK);
    for (unsigned i = 0; i < N; i++)
        if (put_row(ix, v, i, rows[i]) != PERI_OK)
            fail_msg("%s", peri_error_detail());
    for (unsigned i = 3; i < N; i += 17)
        assert_int_equal(remove_row(ix, v, i), PERI_OK);
    for (unsigned i = 1; i < N; i += 29) /* replaced */
        assert_int_equal(put_row(ix, v, i, rows[(i + 7) % N]), PERI_OK);
    assert_int_equal(peri_index_maintain(ix, NULL), PERI_OK);
    assert_int_equal(peri_index_save(ix, path, NULL), PERI_OK);
    peri_index_close(ix);
    blob b = blob_load(path);
    unlink(path);
    return b;
}

/* ---- using them ---- */

static void ask(const peri_index *ix, corrupt_use *use, const peri_query *q)
{
    for (unsigned i = 0; i < QUERIES; i++) {
        peri_hit hits[K];
        size_t n = 0;
        memset(hits, 0, sizeof hits);
        peri_status status = peri_index_search(ix, queries[i], q, hits, &n);
        corrupt_answer(use, status, hits, n * sizeof *hits);
    }
}

static int only_even(void *ctx, uint64_t id)
{
    (void)ctx;
    return id % 2 == 0;
}

static void search_all_ways(const peri_index *ix, corrupt_use *use)
{
    peri_query q;
    peri_query_init(&q, K);
    ask(ix, use, &q);
    q.effort = 200;
    ask(ix, use, &q);
    q.filter = only_even;
    ask(ix, use, &q);
    peri_query_init(&q, 3);
    q.max_distance = 4;
    q.has_max_distance = 1;
    ask(ix, use, &q);
    peri_hit hits[QUERIES * K];
    size_t n[QUERIES];
    memset(hits, 0, sizeof hits);
    peri_query_init(&q, K);
    peri_status status = peri_index_search_many(ix, QUERIES, queries[0], &q, NULL, hits, n);
    corrupt_answer(use, status, hits, sizeof hits);
}

static void read_rows(const peri_index *ix, const variant *v, corrupt_use *use)
{
    float row[DIM];
    uint64_t ids[N], id;
    size_t n = 0;
    char text[32];
    peri_buf key = {0};
    peri_status status = peri_index_ids(ix, ids, N, &n);
    corrupt_answer(use, status, ids, (n < N ? n : N) * sizeof *ids);
    for (unsigned i = 0; i < N; i += 23) {
        id = id_of_row(i);
        if (v->keyed) {
            id = 0;
            status = peri_index_id_of(ix, key_of_row(i, text), &id);
            corrupt_answer(use, i % 17 == 3 ? PERI_OK : status, &id, sizeof id);
            status = peri_index_key_of(ix, id, &key);
            corrupt_answer(use, i % 17 == 3 ? PERI_OK : status, key.data, key.size);
        }
        memset(row, 0, sizeof row);
        status = peri_index_get(ix, id, row);
        corrupt_answer(use, i % 17 == 3 ? PERI_OK : status, row, sizeof row);
    }
    peri_buf_free(&key);
}

static void prove(const peri_index *ix, corrupt_use *use)
{
    uint64_t faults = 0;
    peri_status status = peri_index_check(ix, NULL, &faults);
    corrupt_answer(use, status, &faults, sizeof faults);
    corrupt_must(use, !use->learning || faults == 0);
}

/* Write to it, save it, open what was saved. A refused write ends the use: later answers may
 * differ. */
static void live_on(peri_index *ix, const variant *v, const peri_env *env, corrupt_use *use)
{
    for (unsigned i = 0; i < 12; i++) {
        peri_status status =
            i % 3 ? put_row(ix, v, i % 2 ? N + i : i, rows[i + 50]) : remove_row(ix, v, i * 5 + 6);
        corrupt_answer(use, status, NULL, 0);
        if (status != PERI_OK)
            return;
    }
    search_all_ways(ix, use);
    prove(ix, use);
    const char *path = scratch("saved");
    peri_index *again = NULL;
    peri_status status = peri_index_save(ix, path, NULL);
    corrupt_answer(use, status, NULL, 0);
    if (status != PERI_OK)
        return;
    status = peri_index_open(&again, path, PERI_OPEN_MAP | PERI_OPEN_READONLY, env, NULL);
    corrupt_answer(use, status, NULL, 0);
    if (again)
        search_all_ways(again, use);
    peri_index_close(again);
    unlink(path);
}

static void use_open(peri_index *ix, const variant *v, const peri_env *env, corrupt_use *use)
{
    search_all_ways(ix, use);
    read_rows(ix, v, use);
    prove(ix, use);
    if (!(v->flags & PERI_OPEN_READONLY))
        live_on(ix, v, env, use);
}

static void use_index(const char *path, corrupt_use *use, const void *arg)
{
    const variant *v = &((const made *)arg)->v;
    faulty f;
    peri_index *ix = NULL;
    faulty_init(&f, FAULTY_NOTHING, 0, 0);
    peri_status status = peri_index_open(&ix, path, v->flags, &f.env, NULL);
    if (status == PERI_OK) {
        peri_index_info info;
        peri_index_info_init(&info);
        status = peri_index_get_info(ix, &info);
        uint64_t said[] = {info.rows, info.deleted, info.keyed, info.links, info.space.dim};
        corrupt_answer(use, status, said, sizeof said);
        /* Resealed, a file may be a sound one of another dimension: our vectors do not fit it. */
        if (info.space.dim == DIM)
            use_open(ix, v, &f.env, use);
    } else {
        corrupt_must(use, ix == NULL && peri_error_detail()[0] != 0);
        corrupt_answer(use, status, NULL, 0);
    }
    peri_index_close(ix);
    corrupt_must(use, faulty_clean(&f));
}

/* ---- the damages ---- */

static const uint32_t ways[] = {PERI_OPEN_READONLY, PERI_OPEN_MAP | PERI_OPEN_READONLY, 0,
                                PERI_OPEN_MAP};
static const char *const way_names[] = {"read-only", "mapped read-only", "writable",
                                        "mapped writable"};

static corrupt_result run(made *m, unsigned way, int reseal, corrupt_kind kind, uint64_t count)
{
    char name[100];
    m->v.flags = ways[way];
    snprintf(name, sizeof name, "%s, %s", m->v.name, way_names[way]);
    corrupt_plan plan = {.name = name,
                         .path = scratch("damaged"),
                         .file = m->file.data,
                         .size = m->file.size,
                         .use = use_index,
                         .arg = m,
                         .reseal = reseal,
                         .seed = 1000 + way};
    return corrupt_run(&plan, kind, count);
}

static made files[] = {
    {{"hnsw l2 f32 with codes", 1, 0, PERI_METRIC_L2, PERI_SCALAR_F32, PERI_CODES_8BIT, 0}, {0, 0}},
    {{"hnsw cosine f16 keyed", 1, 1, PERI_METRIC_COSINE, PERI_SCALAR_F16, PERI_CODES_8BIT, 0},
     {0, 0}},
    {{"hnsw ip i8", 1, 0, PERI_METRIC_IP, PERI_SCALAR_I8, PERI_CODES_AUTO, 0}, {0, 0}},
    {{"gwi l2 f32 with codes", 2, 0, PERI_METRIC_L2, PERI_SCALAR_F32, PERI_CODES_8BIT, 0}, {0, 0}},
    {{"gwi cosine bf16 keyed", 2, 1, PERI_METRIC_COSINE, PERI_SCALAR_BF16, PERI_CODES_NONE, 0},
     {0, 0}},
    {{"cascade l2 f32 with codes", 3, 0, PERI_METRIC_L2, PERI_SCALAR_F32, PERI_CODES_8BIT, 0},
     {0, 0}},
    {{"hnsw l2 f16 in layout Q", 4, 0, PERI_METRIC_L2, PERI_SCALAR_F16, PERI_CODES_AUTO, 0},
     {0, 0}},
    {{"flat l2 f32", 0, 0, PERI_METRIC_L2, PERI_SCALAR_F32, 0, 0}, {0, 0}},
    {{"flat cosine bf16 keyed", 0, 1, PERI_METRIC_COSINE, PERI_SCALAR_BF16, 0, 0}, {0, 0}},
};
enum { N_FILES = sizeof files / sizeof *files, N_WAYS = sizeof ways / sizeof *ways };

static void every_bit_of_the_header_counts(void **state)
{
    (void)state;
    for (unsigned i = 0; i < N_FILES; i++)
        for (unsigned way = 0; way < 2; way++) {
            corrupt_result r = run(&files[i], way, 0, CORRUPT_BITS, 0);
            assert_int_equal(r.refused, 2048);
        }
}

static void changed_bytes_never_give_a_wrong_answer(void **state)
{
    (void)state;
    for (unsigned i = 0; i < N_FILES; i++)
        for (unsigned way = 0; way < N_WAYS; way++) {
            uint64_t n = corrupt_scale(way < 2 ? 5000 : 1500);
            corrupt_result r = run(&files[i], way, 0, CORRUPT_BYTES, n);
            assert_int_equal(r.wrong + r.crashed + r.hung + r.touched, 0);
            assert_int_equal(r.tried, n);
        }
}

static void every_shorter_file_is_refused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < N_FILES; i++)
        for (unsigned way = 0; way < 2; way++) {
            corrupt_result r = run(&files[i], way, 0, CORRUPT_CUTS, 64);
            assert_int_equal(r.refused, r.tried);
        }
}

/* Whoever makes the checksums right can make answers wrong, but not the process crash or hang. */
static void structure_holds_where_checksums_do_not_help(void **state)
{
    (void)state;
    uint64_t bad = 0;
    for (unsigned i = 0; i < N_FILES; i++)
        for (unsigned way = 0; way < N_WAYS; way++) {
            uint64_t n = corrupt_scale(way < 2 ? 2000 : 1000);
            corrupt_result r = run(&files[i], way, 1, CORRUPT_BYTES, n);
            bad += r.crashed + r.hung + r.touched;
            r = run(&files[i], way, 1, CORRUPT_NUMBERS, n);
            bad += r.crashed + r.hung + r.touched;
        }
    assert_int_equal(bad, 0);
}

/* The offset of a section of a whole file. */
static uint64_t section_at(const blob *b, const char *tag)
{
    const unsigned char *entry = b->data + reseal_get(b->data + 88, 8);
    for (uint64_t i = 0; i < reseal_get(b->data + 112, 4); i++, entry += 32)
        if (memcmp(entry, tag, 4) == 0)
            return reseal_get(entry + 8, 8);
    fail_msg("no section %s", tag);
    return 0;
}

static void a_key_of_a_row_that_is_not_there_is_refused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < N_FILES; i++) {
        const char *path = scratch("stray");
        blob b = {malloc(files[i].file.size), files[i].file.size};
        if (files[i].v.keyed) {
            memcpy(b.data, files[i].file.data, b.size);
            reseal_put(b.data + section_at(&b, "KEYS") + 16, 1u << 30, 8); /* the first key's id */
            reseal(b.data, b.size);
            blob_save(path, b.data, b.size);
            for (unsigned way = 0; way < N_WAYS; way++) {
                peri_index *ix;
                assert_int_equal(peri_index_open(&ix, path, ways[way], NULL, NULL),
                                 PERI_ERR_CORRUPT);
                assert_non_null(strstr(peri_error_detail(), "one to one"));
            }
            unlink(path);
        }
        free(b.data);
    }
}

static int setup(void **state)
{
    (void)state;
    random_rows(rows[0], (size_t)N * DIM, 1);
    random_rows(queries[0], (size_t)QUERIES * DIM, 2);
    for (unsigned i = 0; i < N_FILES; i++)
        files[i].file = make_file(&files[i].v);
    return 0;
}

static int teardown(void **state)
{
    for (unsigned i = 0; i < N_FILES; i++)
        free(files[i].file.data);
    return scratch_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bit_of_the_header_counts),
        cmocka_unit_test(changed_bytes_never_give_a_wrong_answer),
        cmocka_unit_test(every_shorter_file_is_refused),
        cmocka_unit_test(structure_holds_where_checksums_do_not_help),
        cmocka_unit_test(a_key_of_a_row_that_is_not_there_is_refused),
    };
    return cmocka_run_group_tests_name("corrupt: index", tests, setup, teardown);
}
