/* Damaged vector files, and damaged indexes beside whole ones, through the public calls alone:
 * opened to read and to write, read, searched, walked, written to as a copy, checkpointed,
 * compacted, opened again. No crash, no endless loop, no answer that differs from the undamaged
 * file's and claims to be good; a flipped bit in one of the two headers changes nothing at all. */
#include "corrupt/corrupt.h"
#include "corrupt/reseal_vectors.h"
#include "faulty.h"
#include "vectors.h"

enum { DIM = 24, N = 500, K = 10, QUERIES = 5, PARTS_MAX = 32 };

typedef struct variant {
    const char *name;
    uint16_t metric, scalar;
    int kind; /* of the index beside it, -1 = none */
} variant;

static const variant variants[] = {
    {"l2 f32", PERI_METRIC_L2, PERI_SCALAR_F32, -1},
    {"cosine f16", PERI_METRIC_COSINE, PERI_SCALAR_F16, -1},
    {"ip i8 with hnsw", PERI_METRIC_IP, PERI_SCALAR_I8, KIND_HNSW},
    {"cosine f32 with flat", PERI_METRIC_COSINE, PERI_SCALAR_F32, KIND_FLAT},
};
enum { VARIANTS = sizeof variants / sizeof *variants };

typedef struct made {
    const variant *v;
    blob file, index;
    struct corrupt_part parts[PARTS_MAX];
    size_t n_parts;
    uint32_t flags;
    int index_is_damaged; /* the harness damages <path>.index */
} made;

static made files[VARIANTS];
static float *rows;
static peri_slice *keys;

/* ---- making ---- */

/* Headers, and each frame's head and payload. */
static void find_parts(made *m)
{
    const unsigned char *f = m->file.data;
    m->parts[m->n_parts++] = (struct corrupt_part){0, 256};
    m->parts[m->n_parts++] = (struct corrupt_part){4096, 256};
    for (uint64_t at = reseal_get(f + 120, 8); at; at = reseal_get(f + at + 32, 8)) {
        assert_true(m->n_parts + 2 <= PARTS_MAX);
        m->parts[m->n_parts++] = (struct corrupt_part){at, 128};
        m->parts[m->n_parts++] = (struct corrupt_part){at + 128, reseal_get(f + at + 56, 8) - 128};
    }
}

static void make_file(made *m)
{
    const char *path = scratch("made");
    peri_vectors *v = make_vectors(path, DIM, m->v->metric, m->v->scalar, NULL);
    assert_ok(peri_vectors_insert_batch(v, 300, keys, rows, 0, NULL));
    assert_ok(peri_vectors_checkpoint(v));
    for (size_t i = 5; i < 300; i += 13)
        assert_ok(peri_vectors_delete(v, keys[i]));
    for (size_t i = 2; i < 300; i += 17)
        assert_ok(peri_vectors_insert(v, keys[i], rows + (i + 100) * DIM, 0, NULL));
    if (m->v->kind >= 0)
        assert_ok(peri_vectors_build_index(
            v, make_index(m->v->kind, DIM, m->v->metric, m->v->scalar, NULL, NULL), NULL));
    else
        assert_ok(peri_vectors_checkpoint(v));
    assert_ok(peri_vectors_insert_batch(v, N - 300, keys + 300, rows + 300 * DIM, 0, NULL));
    assert_ok(peri_vectors_checkpoint(v));
    peri_vectors_close(v);
    m->file = blob_load(path);
    if (m->v->kind >= 0)
        m->index = blob_load(scratch("made.index"));
    find_parts(m);
}

/* ---- using ---- */

static void read_all(const peri_vectors *v, corrupt_use *use)
{
    float row[DIM];
    uint64_t id = 0, cursor = 0, n = 0;
    peri_buf key = {0};
    peri_vectors_view view;
    corrupt_answer(use, peri_vectors_len(v, &n), &n, sizeof n);
    for (size_t i = 0; i < N; i += 3) {
        peri_status status = peri_vectors_get(v, keys[i], row, &id);
        int absent = status == PERI_ERR_NOT_FOUND; /* an answer, and it had better be right */
        corrupt_answer(use, absent ? PERI_OK : status, row, absent ? 0 : sizeof row);
    }
    for (int i = 0; i < 64; i++) {
        peri_status status = peri_vectors_next(v, &cursor, &key, &id);
        corrupt_answer(use, status, key.data, status == PERI_OK ? key.size : 0);
    }
    peri_status status = peri_vectors_view_rows(v, 10, 200, &view);
    corrupt_answer(use, status, view.data, status == PERI_OK ? 200 * view.stride : 0);
    peri_vectors_release(&view);
    peri_buf_free(&key);
}

static void search_all(const peri_vectors *v, corrupt_use *use)
{
    peri_query q = query_of(K);
    q.effort = 2000;
    for (size_t i = 0; i < QUERIES; i++) {
        peri_hit hits[K];
        uint64_t ids[K];
        size_t n = 0;
        peri_status status = peri_vectors_search(v, rows + i * 31 * DIM, &q, hits, &n);
        for (size_t j = 0; j < n; j++)
            ids[j] = hits[j].id;
        corrupt_answer(use, status, ids, n * sizeof *ids);
    }
}

/* On a copy: a file is not to change because it is looked at. Returns whether it went through. */
static void live_on(const char *path, const made *m, const peri_env *env, corrupt_use *use)
{
    const char *copy = scratch("copy");
    peri_vectors *v = NULL;
    blob b = blob_load(path);
    blob_save(copy, b.data, b.size);
    free(b.data);
    peri_status status = peri_vectors_open(&v, copy, 0, NULL, env);
    if (status == PERI_OK)
        status = peri_vectors_insert_batch(v, 40, keys + 100, rows, 0, NULL);
    if (status == PERI_OK)
        status = peri_vectors_delete(v, keys[101]);
    if (status == PERI_OK)
        status = peri_vectors_checkpoint(v);
    if (status == PERI_OK && m->v->kind == KIND_FLAT)
        status = peri_vectors_build_index(
            v, make_index(KIND_FLAT, DIM, m->v->metric, m->v->scalar, NULL, NULL), NULL);
    if (status == PERI_OK)
        status = peri_vectors_compact(v, NULL);
    peri_vectors_close(v);
    v = NULL;
    if (status == PERI_OK)
        status = peri_vectors_open(&v, copy, 0, NULL, env);
    corrupt_answer(use, status, NULL, 0);
    if (status == PERI_OK)
        search_all(v, use);
    peri_vectors_close(v);
}

static void use_file(const char *path, corrupt_use *use, const void *arg)
{
    const made *m = arg;
    char main_path[PATH_MAX];
    faulty f;
    peri_vectors *v = NULL;
    faulty_init(&f, FAULTY_NOTHING, 0, 0);
    snprintf(main_path, sizeof main_path, "%s", path);
    if (m->index_is_damaged)
        main_path[strlen(main_path) - strlen(".index")] = 0;
    peri_status status = peri_vectors_open(&v, main_path, m->flags, NULL, &f.env);
    if (status == PERI_OK) {
        peri_vectors_info info = vectors_info(v);
        uint64_t said[] = {info.rows, info.slots, info.checkpoint, info.space.dim};
        corrupt_answer(use, PERI_OK, said, sizeof said);
        /* Resealed, a file may be a sound one of another dimension: our vectors do not fit it. */
        if (info.space.dim == DIM) {
            read_all(v, use);
            search_all(v, use);
            uint64_t faults = 0;
            status = peri_vectors_check(v, NULL, &faults);
            if (!m->index_is_damaged)
                corrupt_answer(use, faults ? PERI_ERR_CORRUPT : status, NULL, 0);
        }
    } else {
        corrupt_must(use, v == NULL && peri_error_detail()[0] != 0);
        corrupt_answer(use, status, NULL, 0);
    }
    int fits = v && vectors_info(v).space.dim == DIM;
    peri_vectors_close(v);
    if (fits && m->flags == 0) {
        use->step = 1000; /* its steps have numbers of their own, however many came before */
        live_on(main_path, m, &f.env, use);
    }
    corrupt_must(use, faulty_clean(&f));
}

/* ---- the damages ---- */

static corrupt_result run(made *m, uint32_t flags, int reseal, corrupt_kind kind, uint64_t count,
                          size_t from_part)
{
    char name[100];
    m->flags = flags;
    m->index_is_damaged = 0;
    snprintf(name, sizeof name, "vectors %s, %s", m->v->name, flags ? "read-only" : "writable");
    if (m->index.size)
        blob_save(scratch("damaged.index"), m->index.data, m->index.size);
    else
        unlink(scratch("damaged.index"));
    corrupt_plan plan = {.name = name,
                         .path = scratch("damaged"),
                         .file = m->file.data,
                         .size = m->file.size,
                         .use = use_file,
                         .arg = m,
                         .reseal = reseal,
                         .reseal_with = reseal_vectors,
                         .parts = m->parts + from_part,
                         .n_parts = m->n_parts - from_part,
                         .seed = 2000 + flags};
    return corrupt_run(&plan, kind, count);
}

static void a_flipped_bit_in_one_header_costs_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < VARIANTS; i++)
        for (size_t side = 0; side < 2; side++) {
            corrupt_result r = run(&files[i], PERI_OPEN_READONLY, 0, CORRUPT_BITS, 0, side);
            assert_int_equal(r.same, 2048);
        }
}

static void every_bit_of_a_frame_head_counts(void **state)
{
    (void)state;
    for (size_t i = 0; i < VARIANTS; i++)
        for (size_t part = 2; part < files[i].n_parts; part += 2) {
            corrupt_result r = run(&files[i], PERI_OPEN_READONLY, 0, CORRUPT_BITS, 0, part);
            assert_int_equal(r.refused, 1024);
        }
}

static void changed_bytes_never_give_a_wrong_answer(void **state)
{
    (void)state;
    for (size_t i = 0; i < VARIANTS; i++)
        for (uint32_t flags = 0; flags <= PERI_OPEN_READONLY; flags += PERI_OPEN_READONLY) {
            uint64_t n = corrupt_scale(flags ? 2500 : 700);
            corrupt_result r = run(&files[i], flags, 0, CORRUPT_BYTES, n, 0);
            assert_int_equal(r.wrong + r.crashed + r.hung + r.touched, 0);
            assert_int_equal(r.tried, n);
            assert_true(r.refused > n / 4);
        }
}

static void every_shorter_file_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < VARIANTS; i++) {
        corrupt_result r = run(&files[i], PERI_OPEN_READONLY, 0, CORRUPT_CUTS, 512, 0);
        assert_int_equal(r.refused, r.tried);
    }
}

static void structure_holds_where_checksums_do_not_help(void **state)
{
    (void)state;
    uint64_t bad = 0, opened = 0;
    for (size_t i = 0; i < VARIANTS; i++)
        for (uint32_t flags = 0; flags <= PERI_OPEN_READONLY; flags += PERI_OPEN_READONLY) {
            uint64_t n = corrupt_scale(flags ? 1500 : 500);
            corrupt_result r = run(&files[i], flags, 1, CORRUPT_BYTES, n, 0);
            bad += r.crashed + r.hung + r.touched;
            opened += r.same + r.wrong;
            r = run(&files[i], flags, 1, CORRUPT_NUMBERS, n, 0);
            bad += r.crashed + r.hung + r.touched;
        }
    assert_int_equal(bad, 0);
    assert_true(opened > 100); /* resealing works: not all are refused by checksums */
}

/* The index is derived: damage to it is never seen in an answer. */
static void a_damaged_index_is_left_out(void **state)
{
    (void)state;
    for (size_t i = 0; i < VARIANTS; i++)
        for (int reseal = 0; reseal < 2 && files[i].index.size; reseal++) {
            made *m = &files[i];
            uint64_t n = corrupt_scale(1000);
            m->flags = PERI_OPEN_READONLY;
            m->index_is_damaged = 1;
            blob_save(scratch("beside"), m->file.data, m->file.size);
            corrupt_plan plan = {.name = m->v->name,
                                 .path = scratch("beside.index"),
                                 .file = m->index.data,
                                 .size = m->index.size,
                                 .use = use_file,
                                 .arg = m,
                                 .reseal = reseal,
                                 .seed = 3000};
            corrupt_result r = corrupt_run(&plan, CORRUPT_BYTES, n);
            assert_int_equal(r.crashed + r.hung + r.touched, 0);
            if (!reseal)
                assert_int_equal(r.same, n);
        }
}

static int setup(void **state)
{
    (void)state;
    rows = new_rows(51, N, DIM);
    keys = number_keys("the key of row ", 0, N);
    for (size_t i = 0; i < VARIANTS; i++) {
        files[i].v = &variants[i];
        make_file(&files[i]);
    }
    return 0;
}

static int teardown(void **state)
{
    for (size_t i = 0; i < VARIANTS; i++) {
        free(files[i].file.data);
        free(files[i].index.data);
    }
    free(rows);
    free_keys(keys);
    return scratch_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flipped_bit_in_one_header_costs_nothing),
        cmocka_unit_test(every_bit_of_a_frame_head_counts),
        cmocka_unit_test(changed_bytes_never_give_a_wrong_answer),
        cmocka_unit_test(every_shorter_file_is_refused),
        cmocka_unit_test(structure_holds_where_checksums_do_not_help),
        cmocka_unit_test(a_damaged_index_is_left_out),
    };
    return cmocka_run_group_tests_name("corrupt: vectors", tests, setup, teardown);
}
