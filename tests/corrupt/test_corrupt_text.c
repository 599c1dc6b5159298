/* Damaged files of text indexes, through the public calls alone: opened copied and mapped, searched
 * in every way, written to, saved, opened again. No crash, no endless loop, no answer that differs
 * from the undamaged file's and claims to be good. */
#include "corrupt/corrupt.h"
#include "corrupt/reseal.h"
#include "faulty.h"
#include "perigee/text.h"
#include "scratch.h"

enum { N = 220, K = 10 };

typedef struct variant {
    const char *name;
    uint32_t positions, keyed;
    const char *language;
    uint32_t flags;
} variant;

typedef struct made {
    variant v;
    blob file;
} made;

static peri_slice text_of(unsigned i, char text[200])
{
    int size = snprintf(text, 200, "the document of row%u speaks of w%u and w%u", i, i % 5, i % 13);
    for (unsigned w = 0; w < i % 9; w++)
        size += snprintf(text + size, 200 - (size_t)size, " w%u", (i * 7 + w * w) % 40);
    return (peri_slice){text, (size_t)size};
}

static peri_slice key_of(unsigned i, char text[32])
{
    return (peri_slice){text, (size_t)snprintf(text, 32, "document number %u", i)};
}

/* Ids with gaps, out of order. */
static uint64_t id_of(unsigned i)
{
    return (uint64_t)(N - i) * 3 + (i % 5 == 0 ? (uint64_t)1 << 40 : 0);
}

/* ---- making files ---- */

static peri_status put(peri_text *ix, const variant *v, unsigned i, unsigned text_number)
{
    char text[200], key[32];
    if (v->keyed)
        return peri_text_put_keyed(ix, key_of(i, key), text_of(text_number, text), 0);
    return peri_text_put(ix, id_of(i), text_of(text_number, text), 0);
}

static peri_status take_out(peri_text *ix, const variant *v, unsigned i)
{
    char key[32];
    return v->keyed ? peri_text_remove_keyed(ix, key_of(i, key)) : peri_text_remove(ix, id_of(i));
}

static blob make_file(const variant *v)
{
    const char *path = scratch("made");
    peri_slice stop[] = {peri_slice_of("the"), peri_slice_of("of")};
    peri_text_config c;
    peri_text *ix;
    peri_text_config_init(&c);
    c.positions = v->positions;
    c.language = v->language;
    c.stop = PERI_STOP_LIST;
    c.stop_words = stop;
    c.n_stop_words = 2;
    assert_int_equal(peri_text_create(&ix, &c, NULL), PERI_OK);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(put(ix, v, i, i), PERI_OK);
        if (i == N / 2)
            assert_int_equal(peri_text_maintain(ix, 1, NULL), PERI_OK);
    }
    for (unsigned i = 3; i < N; i += 17) /* dead bits in a sealed segment */
        assert_int_equal(take_out(ix, v, i), PERI_OK);
    assert_int_equal(peri_text_save(ix, path, NULL), PERI_OK);
    peri_text_close(ix);
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

static const char *const queries[] = {"document",         "w1 w2 w39",       "w1 AND w3",
                                      "row1* NOT w4",     "speaks -w2",      "row17 row18 OR w*",
                                      "\"w1 and w1\" w7", "\"speaks of w3\""};
enum { QUERIES = sizeof queries / sizeof *queries };

static void ask(const peri_text *ix, const variant *v, corrupt_use *use, const peri_text_query *q)
{
    for (unsigned i = 0; i < QUERIES - (v->positions ? 0 : 2); i++) {
        peri_scored hits[K];
        size_t n = 0;
        memset(hits, 0, sizeof hits);
        peri_status status = peri_text_search(ix, peri_slice_of(queries[i]), q, hits, &n);
        corrupt_answer(use, status, hits, n * sizeof *hits);
    }
}

static void search_all_ways(const peri_text *ix, const variant *v, corrupt_use *use)
{
    peri_text_query q;
    peri_text_query_init(&q, K);
    ask(ix, v, use, &q);
    q.filter = only_even;
    ask(ix, v, use, &q);
    q.join = PERI_JOIN_AND;
    ask(ix, v, use, &q);
    uint64_t ids[] = {id_of(0), id_of(3), id_of(9), 5};
    float scores[4] = {0};
    peri_status status = peri_text_score(ix, peri_slice_of("w1 w2"), &q, 4, ids, scores);
    corrupt_answer(use, status, scores, sizeof scores);
}

static void read_ids(const peri_text *ix, const variant *v, corrupt_use *use)
{
    uint64_t ids[N], id;
    size_t n = 0;
    char text[32];
    peri_buf key = {0};
    peri_status status = peri_text_ids(ix, ids, N, &n);
    corrupt_answer(use, status, ids, (n < N ? n : N) * sizeof *ids);
    for (unsigned i = 0; v->keyed && i < N; i += 23) {
        id = 0;
        status = peri_text_id_of(ix, key_of(i, text), &id);
        corrupt_answer(use, i % 17 == 3 ? PERI_OK : status, &id, sizeof id);
        status = peri_text_key_of(ix, id, &key);
        corrupt_answer(use, i % 17 == 3 ? PERI_OK : status, key.data, key.size);
    }
    peri_buf_free(&key);
}

static void prove(const peri_text *ix, corrupt_use *use)
{
    uint64_t faults = 0;
    peri_status status = peri_text_check(ix, NULL, &faults);
    corrupt_answer(use, status, &faults, sizeof faults);
    corrupt_must(use, !use->learning || faults == 0);
}

/* Write to it, save it, open what was saved. A refused write ends the use. */
static void live_on(peri_text *ix, const variant *v, const peri_env *env, corrupt_use *use)
{
    for (unsigned i = 0; i < 12; i++) {
        peri_status status =
            i % 3 ? put(ix, v, i % 2 ? N + i : i, i + 50) : take_out(ix, v, i * 5 + 6);
        corrupt_answer(use, status, NULL, 0);
        if (status != PERI_OK)
            return;
    }
    peri_status status = peri_text_maintain(ix, 1, NULL);
    corrupt_answer(use, status, NULL, 0);
    if (status != PERI_OK)
        return;
    search_all_ways(ix, v, use);
    prove(ix, use);
    const char *path = scratch("saved");
    peri_text *again = NULL;
    status = peri_text_save(ix, path, NULL);
    corrupt_answer(use, status, NULL, 0);
    if (status != PERI_OK)
        return;
    status = peri_text_open(&again, path, PERI_OPEN_MAP | PERI_OPEN_READONLY, env, NULL);
    corrupt_answer(use, status, NULL, 0);
    if (again)
        search_all_ways(again, v, use);
    peri_text_close(again);
    unlink(path);
}

static void use_text(const char *path, corrupt_use *use, const void *arg)
{
    const variant *v = &((const made *)arg)->v;
    faulty f;
    peri_text *ix = NULL;
    faulty_init(&f, FAULTY_NOTHING, 0, 0);
    peri_status status = peri_text_open(&ix, path, v->flags, &f.env, NULL);
    if (status == PERI_OK) {
        peri_text_info info;
        peri_text_info_init(&info);
        status = peri_text_get_info(ix, &info);
        uint64_t said[] = {info.documents, info.deleted, info.keyed, info.terms, info.length};
        corrupt_answer(use, status, said, sizeof said);
        search_all_ways(ix, v, use);
        read_ids(ix, v, use);
        prove(ix, use);
        if (!(v->flags & PERI_OPEN_READONLY))
            live_on(ix, v, &f.env, use);
    } else {
        corrupt_must(use, ix == NULL && peri_error_detail()[0] != 0);
        corrupt_answer(use, status, NULL, 0);
    }
    peri_text_close(ix);
    corrupt_must(use, faulty_clean(&f));
}

/* ---- the damages ---- */

static const uint32_t ways[] = {PERI_OPEN_READONLY, PERI_OPEN_MAP | PERI_OPEN_READONLY, 0,
                                PERI_OPEN_MAP};
static const char *const way_names[] = {"read-only", "mapped read-only", "writable",
                                        "mapped writable"};

static made files[] = {
    {{"text with positions, keyed, english", 1, 1, "english", 0}, {0, 0}},
    {{"text", 0, 0, NULL, 0}, {0, 0}},
};
enum { N_FILES = sizeof files / sizeof *files, N_WAYS = sizeof ways / sizeof *ways };

static corrupt_result run(made *m, unsigned way, int reseal, corrupt_kind kind, uint64_t count)
{
    char name[100];
    m->v.flags = ways[way];
    snprintf(name, sizeof name, "%s, %s", m->v.name, way_names[way]);
    corrupt_plan plan = {.name = name,
                         .path = scratch("damaged"),
                         .file = m->file.data,
                         .size = m->file.size,
                         .use = use_text,
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
            uint64_t n = corrupt_scale(way < 2 ? 4000 : 1500);
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
            corrupt_result r = run(&files[i], way, 0, CORRUPT_CUTS, 1024);
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

static int setup(void **state)
{
    (void)state;
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
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
