/* Recall by what is kept and what is walked on: rows of 32, 16 or 8 bits, codes or none, against
 * the exact answer on the rows as they were put. And what one thread builds it builds again, bit
 * for bit. */
#include "persist/segment.h"
#include "recall.h"
#include "scratch.h"

typedef struct due {
    uint16_t scalar, codes;
    double recall;
} due;

static void check_kept(const dataset *d, const due *dues, size_t n, uint32_t effort)
{
    truth t = truth_of(d, NULL);
    peri_task task = threads_task(2);
    for (size_t i = 0; i < n; i++) {
        char what[64];
        peri_hnsw_config config;
        peri_hnsw_config_init(&config);
        config.codes = dues[i].codes;
        peri_index *ix = make_index(KIND_HNSW, d->dim, d->metric, dues[i].scalar, &config, NULL);
        assert_ok(peri_index_put_many(ix, d->n_rows, NULL, d->rows, 0, &task, NULL));
        assert_index_valid(ix);
        snprintf(what, sizeof what, "%s rows, codes %u", scalar_names[dues[i].scalar],
                 info_of(ix).codes);
        assert_recall(what, recall_of(ix, d, &t, NULL, effort), dues[i].recall);
        peri_index_close(ix);
    }
    free(t.reach);
}

#define FORMS(f32, f32_codes, f16, f16_codes, bf16, bf16_codes, i8)                                \
    {                                                                                              \
        {PERI_SCALAR_F32, PERI_CODES_NONE, f32}, {PERI_SCALAR_F32, PERI_CODES_8BIT, f32_codes},    \
            {PERI_SCALAR_F16, PERI_CODES_NONE, f16},                                               \
            {PERI_SCALAR_F16, PERI_CODES_8BIT, f16_codes},                                         \
            {PERI_SCALAR_BF16, PERI_CODES_NONE, bf16},                                             \
            {PERI_SCALAR_BF16, PERI_CODES_8BIT, bf16_codes},                                       \
        {                                                                                          \
            PERI_SCALAR_I8, PERI_CODES_NONE, i8                                                    \
        }                                                                                          \
    }
enum { N_FORMS = 7 };

static void check_real(const char *name, size_t rows, uint32_t effort, const due *dues)
{
    dataset d;
    if (!dataset_load(&d, name, rows, 300))
        skip();
    check_kept(&d, dues, N_FORMS, effort);
    dataset_free(&d);
}

static void lsa_is_found_in_each_form(void **state)
{
    (void)state;
    static const due dues[N_FORMS] = FORMS(0.96, 0.96, 0.96, 0.96, 0.95, 0.95, 0.95);
    check_real("imdb-lsa-256-angular", 5000, 100, dues);
}

static void w2v_is_found_in_each_form(void **state)
{
    (void)state;
    static const due dues[N_FORMS] = FORMS(0.98, 0.98, 0.98, 0.98, 0.97, 0.97, 0.95);
    check_real("w2v-imdb-100-angular", 5000, 64, dues);
}

static void made_up_rows_are_found_in_each_form(void **state)
{
    (void)state;
    static const due dues[N_FORMS] = FORMS(0.98, 0.98, 0.98, 0.98, 0.97, 0.97, 0.95);
    for (uint16_t metric = 1; metric <= 3; metric++) {
        dataset d;
        dataset_make(&d, metric, 48, 3000, 200);
        check_kept(&d, dues, N_FORMS, 64);
        dataset_free(&d);
    }
}

/* ---- the same again ---- */

static const char *const sections[] = {"META", "IDS ", "DEAD", "ROWS", "NORM", "CODE",
                                       "HNSW", "LNK0", "LNKU", "CURV", "KEYS"};

/* Two files of the same content: all but uuid and checksums. */
static void assert_same_content(const char *a, const char *b)
{
    pe_host host;
    pe_segr *r[2];
    assert_ok(pe_host_init(&host, NULL));
    assert_ok(pe_segr_open(&r[0], &host, a, PE_SEGMENT_MAP));
    assert_ok(pe_segr_open(&r[1], &host, b, PE_SEGMENT_MAP));
    assert_int_equal(pe_segr_size(r[0]), pe_segr_size(r[1]));
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        const char *t = sections[i];
        uint32_t tag = PE_FOURCC(t[0], t[1], t[2], t[3]);
        const pe_section *x = pe_segr_find(r[0], tag), *y = pe_segr_find(r[1], tag);
        assert_int_equal(x == NULL, y == NULL);
        if (!x)
            continue;
        assert_ok(pe_segr_verify(r[0], x));
        assert_ok(pe_segr_verify(r[1], y));
        if (x->size != y->size || memcmp(x->data, y->data, x->size) != 0)
            print_error("section %s differs\n", t);
        assert_true(x->size == y->size && memcmp(x->data, y->data, x->size) == 0);
    }
    pe_segr_close(r[0]);
    pe_segr_close(r[1]);
}

/* A life by one thread: bulk, single puts, replacements, deletes, maintain. */
static void live_alone(const dataset *d, uint16_t scalar, const char *path)
{
    peri_index *ix = make_index(KIND_HNSW, d->dim, d->metric, scalar, NULL, NULL);
    size_t n = d->n_rows / 2;
    assert_ok(peri_index_put_many(ix, n, NULL, d->rows, 0, NULL, NULL));
    for (size_t i = n; i < d->n_rows; i++)
        assert_ok(peri_index_put(ix, i, d->rows + i * d->dim, 0));
    for (size_t i = 0; i < d->n_rows; i += 5)
        assert_ok(peri_index_remove(ix, i));
    for (size_t i = 1; i < d->n_rows; i += 7)
        assert_ok(peri_index_put(ix, i, d->rows + (d->n_rows - i) * d->dim, 0));
    assert_index_valid(ix);
    assert_ok(peri_index_maintain(ix, NULL));
    assert_index_valid(ix);
    assert_ok(peri_index_save(ix, path, NULL));
    peri_index_close(ix);
}

static void what_one_thread_builds_it_builds_again_bit_for_bit(void **state)
{
    (void)state;
    for (uint16_t metric = 1; metric <= 3; metric++) {
        dataset d;
        dataset_make(&d, metric, 24, 3000, 1);
        uint16_t scalar = (uint16_t)(metric == 3 ? PERI_SCALAR_I8 : metric);
        live_alone(&d, scalar, scratch("one"));
        live_alone(&d, scalar, scratch("other"));
        assert_same_content(scratch("one"), scratch("other"));
        dataset_free(&d);
    }
}

static void a_saved_file_saved_again_is_the_same(void **state)
{
    (void)state;
    dataset d;
    dataset_make(&d, PERI_METRIC_COSINE, 24, 2000, 1);
    live_alone(&d, PERI_SCALAR_F16, scratch("one"));
    for (uint32_t flags = 0; flags < 4; flags++) {
        peri_index *ix;
        assert_ok(peri_index_open(&ix, scratch("one"), flags, NULL, NULL));
        assert_ok(peri_index_save(ix, scratch("other"), NULL));
        peri_index_close(ix);
        assert_same_content(scratch("one"), scratch("other"));
    }
    dataset_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(made_up_rows_are_found_in_each_form),
        cmocka_unit_test(lsa_is_found_in_each_form),
        cmocka_unit_test(w2v_is_found_in_each_form),
        cmocka_unit_test(what_one_thread_builds_it_builds_again_bit_for_bit),
        cmocka_unit_test(a_saved_file_saved_again_is_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
