/* Damaged files of peri_sparse, through the public calls alone: opened copied and mapped, searched
 * exactly and approximately, read, written to, saved, opened again. No crash, no endless loop, no
 * answer that differs from the undamaged file's and claims to be good. */
#include "base/rng.h"
#include "corrupt/corrupt.h"
#include "corrupt/reseal.h"
#include "faulty.h"
#include "perigee/sparse.h"
#include "scratch.h"

enum { N = 300, ENTRIES = 12, TERMS = 90, K = 8, QUERIES = 5 };

typedef struct variant {
    const char *name;
    uint32_t weights, config;
    int keyed, negative;
    uint32_t flags;
} variant;

typedef struct made {
    variant v;
    blob file;
} made;

static uint32_t terms[N + QUERIES][ENTRIES];
static float weights[N + QUERIES][ENTRIES];

static peri_sparse_row row_of(const variant *v, unsigned i, float out[ENTRIES])
{
    for (int j = 0; j < ENTRIES; j++)
        out[j] = v->negative && j % 4 == 0 ? -weights[i][j] : weights[i][j];
    return (peri_sparse_row){i % 50 ? ENTRIES : 0, terms[i], out};
}

static peri_slice key_of_row(unsigned i, char text[32])
{
    return (peri_slice){text, (size_t)snprintf(text, 32, "row number %u", i)};
}

static uint64_t id_of_row(unsigned i)
{
    return (uint64_t)(N - i) * 3;
}

static peri_status put_row(peri_sparse *sx, const variant *v, unsigned at, unsigned i)
{
    float w[ENTRIES];
    char text[32];
    peri_sparse_row row = row_of(v, i, w);
    if (v->keyed)
        return peri_sparse_put_keyed(sx, key_of_row(at, text), &row, 0, NULL);
    return peri_sparse_put(sx, id_of_row(at), &row, 0);
}

static peri_status remove_row(peri_sparse *sx, const variant *v, unsigned i)
{
    char text[32];
    return v->keyed ? peri_sparse_remove_keyed(sx, key_of_row(i, text))
                    : peri_sparse_remove(sx, id_of_row(i));
}

/* Two parts, one of them with dead rows: a file sealed twice. */
static blob make_file(const variant *v)
{
    const char *path = scratch("made");
    peri_sparse *sx;
    peri_sparse_config c;
    peri_sparse_config_init(&c);
    c.weights = v->weights;
    c.flags = v->config;
    assert_int_equal(peri_sparse_create(&sx, &c, NULL), PERI_OK);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(put_row(sx, v, i, i), PERI_OK);
        if (i == N / 2) {
            assert_int_equal(peri_sparse_save(sx, path, NULL), PERI_OK);
            peri_sparse_close(sx);
            assert_int_equal(peri_sparse_open(&sx, path, 0, NULL, NULL), PERI_OK);
        }
    }
    for (unsigned i = 3; i < N; i += 17)
        assert_int_equal(remove_row(sx, v, i), PERI_OK);
    assert_int_equal(peri_sparse_save(sx, path, NULL), PERI_OK);
    peri_sparse_close(sx);
    blob b = blob_load(path);
    unlink(path);
    return b;
}

/* ---- using them ---- */

static int only_even(void *ctx, uint64_t id)
{
    (void)ctx;
    return id % 2 == 0;
}

static void ask(const peri_sparse *sx, const variant *v, corrupt_use *use, const peri_query *q)
{
    for (unsigned i = 0; i < QUERIES; i++) {
        peri_hit hits[K];
        float w[ENTRIES];
        size_t n = 0;
        memset(hits, 0, sizeof hits);
        peri_sparse_row row = row_of(v, N + i, w);
        peri_status status = peri_sparse_search(sx, &row, q, hits, &n);
        corrupt_answer(use, status, hits, n * sizeof *hits);
    }
}

static void search_all_ways(const peri_sparse *sx, const variant *v, corrupt_use *use)
{
    peri_query q;
    peri_query_init(&q, K);
    ask(sx, v, use, &q);
    q.filter = only_even;
    ask(sx, v, use, &q);
    peri_query_init(&q, 3);
    q.max_distance = -1;
    q.has_max_distance = 1;
    ask(sx, v, use, &q);
    peri_query_init(&q, K);
    q.effort = 5;
    if (!v->config)
        ask(sx, v, use, &q);
}

static void read_rows(const peri_sparse *sx, const variant *v, corrupt_use *use)
{
    uint64_t ids[N], id;
    uint32_t t[ENTRIES];
    float w[ENTRIES];
    size_t n = 0;
    char text[32];
    peri_status status = peri_sparse_ids(sx, ids, N, &n);
    corrupt_answer(use, status, ids, (n < N ? n : N) * sizeof *ids);
    for (unsigned i = 0; i < N; i += 23) {
        id = id_of_row(i);
        if (v->keyed) {
            id = 0;
            status = peri_sparse_id_of(sx, key_of_row(i, text), &id);
            corrupt_answer(use, i % 17 == 3 ? PERI_OK : status, &id, sizeof id);
        }
        memset(t, 0, sizeof t);
        memset(w, 0, sizeof w);
        status = peri_sparse_get(sx, id, t, w, ENTRIES, &n);
        corrupt_answer(use, i % 17 == 3 ? PERI_OK : status, w, sizeof w);
    }
}

static void prove(const peri_sparse *sx, corrupt_use *use)
{
    uint64_t faults = 0;
    peri_status status = peri_sparse_check(sx, NULL, &faults);
    corrupt_answer(use, status, &faults, sizeof faults);
    corrupt_must(use, !use->learning || faults == 0);
}

static void live_on(peri_sparse *sx, const variant *v, const peri_env *env, corrupt_use *use)
{
    for (unsigned i = 0; i < 12; i++) {
        peri_status status =
            i % 3 ? put_row(sx, v, i % 2 ? i : i + 40, i + 50) : remove_row(sx, v, i * 5 + 6);
        corrupt_answer(use, status, NULL, 0);
        if (status != PERI_OK)
            return;
    }
    corrupt_answer(use, peri_sparse_compact(sx, NULL), NULL, 0);
    search_all_ways(sx, v, use);
    prove(sx, use);
    const char *path = scratch("saved");
    peri_sparse *again = NULL;
    peri_status status = peri_sparse_save(sx, path, NULL);
    corrupt_answer(use, status, NULL, 0);
    if (status != PERI_OK)
        return;
    status = peri_sparse_open(&again, path, PERI_OPEN_MAP | PERI_OPEN_READONLY, env, NULL);
    corrupt_answer(use, status, NULL, 0);
    if (again)
        search_all_ways(again, v, use);
    peri_sparse_close(again);
    unlink(path);
}

static void use_sparse(const char *path, corrupt_use *use, const void *arg)
{
    const variant *v = &((const made *)arg)->v;
    faulty f;
    peri_sparse *sx = NULL;
    faulty_init(&f, FAULTY_NOTHING, 0, 0);
    peri_status status = peri_sparse_open(&sx, path, v->flags, &f.env, NULL);
    if (status == PERI_OK) {
        search_all_ways(sx, v, use);
        read_rows(sx, v, use);
        prove(sx, use);
        if (!(v->flags & PERI_OPEN_READONLY))
            live_on(sx, v, &f.env, use);
    } else {
        corrupt_must(use, sx == NULL && peri_error_detail()[0] != 0);
        corrupt_answer(use, status, NULL, 0);
    }
    peri_sparse_close(sx);
    corrupt_must(use, faulty_clean(&f));
}

/* ---- the damages ---- */

static const uint32_t ways[] = {PERI_OPEN_READONLY, PERI_OPEN_MAP | PERI_OPEN_READONLY, 0,
                                PERI_OPEN_MAP};
static const char *const way_names[] = {"read-only", "mapped read-only", "writable",
                                        "mapped writable"};
enum { N_WAYS = sizeof ways / sizeof *ways };

static made files[] = {
    {{"sparse f32", PERI_SCALAR_F32, 0, 0, 1, 0}, {0, 0}},
    {{"sparse f16 keyed", PERI_SCALAR_F16, 0, 1, 0, 0}, {0, 0}},
    {{"sparse i8 exact", PERI_SCALAR_I8, PERI_SPARSE_NO_APPROXIMATE, 0, 0, 0}, {0, 0}},
};
enum { N_FILES = sizeof files / sizeof *files };

static corrupt_result run(made *m, unsigned way, int reseal, corrupt_kind kind, uint64_t count)
{
    char name[100];
    m->v.flags = ways[way];
    snprintf(name, sizeof name, "%s, %s", m->v.name, way_names[way]);
    corrupt_plan plan = {.name = name,
                         .path = scratch("damaged"),
                         .file = m->file.data,
                         .size = m->file.size,
                         .use = use_sparse,
                         .arg = m,
                         .reseal = reseal,
                         .seed = 2000 + way};
    return corrupt_run(&plan, kind, count);
}

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
            uint64_t n = corrupt_scale(way < 2 ? 1500 : 500);
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
            corrupt_result r = run(&files[i], way, 0, CORRUPT_CUTS, 2048);
            assert_int_equal(r.refused, r.tried);
        }
}

/* Whoever makes the checksums right can make answers wrong, but not the process crash or hang. The
 * sections are aligned to 64 KiB and mostly empty, so damage goes to the bytes that are not zero.
 */
static void structure_holds_where_checksums_do_not_help(void **state)
{
    (void)state;
    uint64_t bad = 0;
    for (unsigned i = 0; i < N_FILES; i++)
        for (unsigned way = 0; way < N_WAYS; way++) {
            uint64_t n = corrupt_scale(way < 2 ? 2500 : 1000);
            corrupt_result r = run(&files[i], way, 1, CORRUPT_BYTES, n);
            bad += r.crashed + r.hung + r.touched;
            r = run(&files[i], way, 1, CORRUPT_NUMBERS, n);
            bad += r.crashed + r.hung + r.touched;
        }
    assert_int_equal(bad, 0);
}

/* Each section by itself, so that the small ones are not missed. */
static void each_section_is_proved(void **state)
{
    (void)state;
    uint64_t bad = 0, sections = 0, refused = 0;
    for (unsigned i = 0; i < N_FILES; i++) {
        const unsigned char *file = files[i].file.data;
        const unsigned char *entry = file + reseal_get(file + 88, 8);
        for (uint64_t s = 0; s < reseal_get(file + 112, 4); s++, entry += 32) {
            char name[100];
            files[i].v.flags = s % 2 ? PERI_OPEN_MAP | PERI_OPEN_READONLY : 0;
            snprintf(name, sizeof name, "%s, section %.4s", files[i].v.name, (const char *)entry);
            corrupt_plan plan = {.name = name,
                                 .path = scratch("damaged"),
                                 .file = file,
                                 .size = files[i].file.size,
                                 .use = use_sparse,
                                 .arg = &files[i],
                                 .reseal = 1,
                                 .seed = 3000 + s};
            const struct corrupt_part section = {reseal_get(entry + 8, 8),
                                                 reseal_get(entry + 16, 8)};
            plan.parts = &section;
            plan.n_parts = 1;
            corrupt_result r = corrupt_run(&plan, CORRUPT_BYTES, corrupt_scale(200));
            bad += r.crashed + r.hung + r.touched;
            refused += r.refused;
            r = corrupt_run(&plan, CORRUPT_NUMBERS, corrupt_scale(200));
            bad += r.crashed + r.hung + r.touched;
            refused += r.refused;
            sections++;
        }
    }
    assert_int_equal(bad, 0);
    assert_true(sections >= 40 && refused > sections * 40);
}

static int setup(void **state)
{
    (void)state;
    pe_rng r = {11};
    for (unsigned i = 0; i < N + QUERIES; i++) {
        uint32_t term = 0;
        for (int j = 0; j < ENTRIES; j++) {
            terms[i][j] = term += 1 + pe_rng_below(&r, TERMS / ENTRIES);
            weights[i][j] = (float)(1 + pe_rng_below(&r, 400)) / 100;
        }
    }
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
        cmocka_unit_test(each_section_is_proved),
    };
    return cmocka_run_group_tests_name("corrupt: sparse", tests, setup, teardown);
}
