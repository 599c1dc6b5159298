/* What io/ must refuse, by the status and with the words that help: files byte by byte. */
#define _GNU_SOURCE
#include "io_files.h"

/* The file is refused, at opening or when its rows are read. */
static peri_status refusal(const char *path)
{
    peri_matrix *m;
    peri_matrix_info info;
    peri_status status = peri_matrix_open(&m, path, NULL);
    if (status != PERI_OK) {
        assert_null(m);
        return status;
    }
    peri_matrix_info_init(&info);
    assert_ok(peri_matrix_get_info(m, &info));
    float *rows = malloc((size_t)info.rows * info.dim * sizeof *rows + 1);
    assert_non_null(rows);
    status = peri_matrix_read(m, 0, (size_t)info.rows, rows);
    free(rows);
    peri_matrix_close(m);
    return status;
}

#define assert_refused(path, expected, word)                                                       \
    do {                                                                                           \
        assert_status(refusal(path), expected);                                                    \
        if (!strstr(peri_error_detail(), word))                                                    \
            fail_msg("'%s' does not say '%s'", peri_error_detail(), word);                         \
    } while (0)

static void what_is_no_regular_file_is_refused_at_once(void **state)
{
    static const char *const names[] = {"x.npy", "x.fvecs", "x.hdf5", "x.h5:test", "x"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s", scratch(names[i]));
        assert_refused(path, PERI_ERR_NOT_FOUND, scratch_dir);
        if (strchr(names[i], ':'))
            *strrchr(path, ':') = 0;
        assert_int_equal(mkfifo(path, 0600), 0);
        assert_refused(path, PERI_ERR_FORMAT, "not a regular file");
        assert_int_equal(unlink(path), 0);
        assert_int_equal(mkdir(path, 0700), 0);
        assert_refused(path, PERI_ERR_FORMAT, "not a regular file");
        assert_int_equal(rmdir(path), 0);
        assert_int_equal(symlink("/dev/zero", path), 0);
        assert_refused(path, PERI_ERR_FORMAT, "not a regular file");
        assert_int_equal(unlink(path), 0);
    }
}

static void short_files_are_refused_by_every_format(void **state)
{
    static const struct {
        const char *name;
        peri_status status;
    } cases[] = {{"s.npy", PERI_ERR_CORRUPT},   {"s.fvecs", PERI_ERR_CORRUPT},
                 {"s.bvecs", PERI_ERR_CORRUPT}, {"s.ivecs", PERI_ERR_CORRUPT},
                 {"s.hdf5", PERI_ERR_FORMAT},   {"s.txt", PERI_ERR_FORMAT}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        blob_save(scratch(cases[i].name), "", 0);
        assert_refused(scratch(cases[i].name), cases[i].status, cases[i].name);
        blob_save(scratch(cases[i].name), "\x93", 1);
        assert_refused(scratch(cases[i].name), cases[i].status, cases[i].name);
    }
}

static void content_tells_the_format_where_the_name_does_not(void **state)
{
    static const float two[] = {1, 2};
    peri_matrix_info info;
    (void)state;
    io_put_npy(scratch("matrix"), "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }",
               two, sizeof two);
    peri_matrix *m = io_open(scratch("matrix"), &info);
    assert_int_equal(info.format, PERI_FORMAT_NPY);
    peri_matrix_close(m);
    blob_save(scratch("matrix"), "what is this thing?", 19);
    assert_refused(scratch("matrix"), PERI_ERR_FORMAT, "neither extension nor content");
}

/* ---- npy ---- */

static void npy_headers_that_are_none_are_refused(void **state)
{
    static const struct {
        const char *dictionary;
        peri_status status;
        const char *word;
    } cases[] = {
        {"", PERI_ERR_FORMAT, "plain array"},
        {"{", PERI_ERR_FORMAT, "plain array"},
        {"{}", PERI_ERR_FORMAT, "plain array"},
        {"{'descr': '<f4'}", PERI_ERR_FORMAT, "plain array"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)", PERI_ERR_FORMAT, "plain"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)} x", PERI_ERR_FORMAT, "plain"},
        {"{'descr': '<f4', 'fortran_order': Maybe, 'shape': (1, 2)}", PERI_ERR_FORMAT, "plain"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1 2)}", PERI_ERR_FORMAT, "plain"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2)}", PERI_ERR_FORMAT, "plain"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), 'more': 1}", PERI_ERR_FORMAT,
         "plain"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}", PERI_ERR_FORMAT,
         "plain"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999, 2)}",
         PERI_ERR_FORMAT, "plain"},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (1, 2)}", PERI_ERR_UNSUPPORTED, "'|O'"},
        {"{'descr': '|b1', 'fortran_order': False, 'shape': (1, 2)}", PERI_ERR_UNSUPPORTED, "b1"},
        {"{'descr': '<c16', 'fortran_order': False, 'shape': (1, 2)}", PERI_ERR_UNSUPPORTED, "c16"},
        {"{'descr': 'f4', 'fortran_order': False, 'shape': (1, 2)}", PERI_ERR_UNSUPPORTED, "f4"},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2)}", PERI_ERR_UNSUPPORTED,
         "C order"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': ()}", PERI_ERR_UNSUPPORTED,
         "0 dimensions"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 2)}", PERI_ERR_UNSUPPORTED,
         "3 dimensions"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3)}", PERI_ERR_CORRUPT, "8 bytes"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1)}", PERI_ERR_CORRUPT, "8 bytes"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808, 2)}",
         PERI_ERR_CORRUPT, "8 bytes"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387905, 2)}",
         PERI_ERR_CORRUPT, "8 bytes"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 2)}", PERI_ERR_CORRUPT, "8 bytes"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        io_put_npy(scratch("h.npy"), cases[i].dictionary, "12345678", 8);
        assert_refused(scratch("h.npy"), cases[i].status, cases[i].word);
    }
    io_put_npy(scratch("h.npy"), "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 2000000)}",
               "", 0);
    assert_refused(scratch("h.npy"), PERI_ERR_FORMAT, "dimension 2000000");
    io_put_npy(scratch("h.npy"), "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 0)}", "",
               0);
    assert_refused(scratch("h.npy"), PERI_ERR_FORMAT, "dimension 0");
}

static void npy_of_other_versions_is_told(void **state)
{
    (void)state;
    unsigned char file[64] = "\x93NUMPY\x04\x00";
    blob_save(scratch("v.npy"), file, sizeof file);
    assert_refused(scratch("v.npy"), PERI_ERR_VERSION, "version 4.0");
    memcpy(file, "\x93NUMPY\x02\x00\xff\xff\xff\xff", 12);
    blob_save(scratch("v.npy"), file, sizeof file);
    assert_refused(scratch("v.npy"), PERI_ERR_CORRUPT, "header of 4294967295 bytes");
    memcpy(file, "\x93NUMPX\x01\x00", 8);
    blob_save(scratch("v.npy"), file, sizeof file);
    assert_refused(scratch("v.npy"), PERI_ERR_FORMAT, "magic at offset 0");
}

/* A file cut anywhere, or one byte too long, never opens. */
static void every_truncation_is_refused(const char *name, const char *cut_name)
{
    float rows[6 * 3] = {1, 2, 3, 4};
    peri_matrix *m = io_create(scratch(name), 3, 0);
    assert_ok(peri_matrix_write(m, 6, rows));
    assert_ok(peri_matrix_commit(m));
    peri_matrix_close(m);
    blob b = blob_load(scratch(name)); /* a byte more than that is there, too */
    size_t n = b.size, record = 4 + 3 * 4;
    int vecs = strstr(name, "vecs") != NULL;
    for (size_t cut = 0; cut <= n + 1; cut++) {
        if (cut == n || (vecs && cut && cut % record == 0)) /* a vecs file of fewer whole rows */
            continue;
        blob_save(scratch(cut_name), b.data, cut);
        if (refusal(scratch(cut_name)) == PERI_OK)
            fail_msg("%s cut to %zu of %zu bytes opens", name, cut, n);
    }
    free(b.data);
}

static void truncated_files_are_refused(void **state)
{
    (void)state;
    every_truncation_is_refused("t.npy", "cut.npy");
    every_truncation_is_refused("t.fvecs", "cut.fvecs");
    every_truncation_is_refused("t.ivecs", "cut.ivecs");
}

/* ---- vecs ---- */

static void vecs_with_odd_dimensions_are_refused(void **state)
{
    int32_t rows[] = {2, 10, 11, 2, 20, 21, 3, 30, 31};
    (void)state;
    blob_save(scratch("v.ivecs"), rows, sizeof rows);
    assert_refused(scratch("v.ivecs"), PERI_ERR_CORRUPT, "dimension 3 at offset 24 (row 2)");
    rows[6] = -2;
    blob_save(scratch("v.ivecs"), rows, sizeof rows);
    assert_refused(scratch("v.ivecs"), PERI_ERR_CORRUPT, "dimension -2 at offset 24");
    static const int32_t first[] = {0, -1, INT32_MIN, INT32_MAX, 1 << 30, 3000000};
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) {
        rows[0] = first[i];
        blob_save(scratch("v.fvecs"), rows, sizeof rows);
        peri_status status = refusal(scratch("v.fvecs"));
        assert_true(status == PERI_ERR_FORMAT || status == PERI_ERR_CORRUPT);
    }
}

/* ---- arguments ---- */

static void arguments_that_make_no_sense_are_refused(void **state)
{
    peri_matrix *m;
    peri_matrix_config config;
    char path[6000];
    (void)state;
    assert_status(peri_matrix_open(NULL, "x.npy", NULL), PERI_ERR_ARG);
    assert_status(peri_matrix_open(&m, NULL, NULL), PERI_ERR_ARG);
    assert_status(peri_matrix_open(&m, "", NULL), PERI_ERR_ARG);
    assert_status(peri_matrix_open(&m, "a.hdf5:", NULL), PERI_ERR_ARG);
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = 0;
    assert_status(peri_matrix_open(&m, path, NULL), PERI_ERR_ARG);
    memcpy(path, "a.hdf5:", 7);
    assert_status(peri_matrix_open(&m, path, NULL), PERI_ERR_ARG);
    assert_status(peri_matrix_get_info(NULL, NULL), PERI_ERR_ARG);
    assert_status(peri_matrix_read(NULL, 0, 0, NULL), PERI_ERR_ARG);
    assert_status(peri_matrix_write(NULL, 0, NULL), PERI_ERR_ARG);
    assert_status(peri_matrix_commit(NULL), PERI_ERR_ARG);
    peri_matrix_close(NULL);

    memset(&config, 0, sizeof config);
    assert_status(peri_matrix_create(&m, scratch("c.npy"), NULL, NULL), PERI_ERR_ARG);
    assert_status(peri_matrix_create(&m, scratch("c.npy"), &config, NULL), PERI_ERR_ARG);
    peri_matrix_config_init(&config, 0);
    assert_status(peri_matrix_create(&m, scratch("c.npy"), &config, NULL), PERI_ERR_DIMENSION);
    config.dim = PERI_MATRIX_MAX_DIM + 1;
    assert_status(peri_matrix_create(&m, scratch("c.npy"), &config, NULL), PERI_ERR_DIMENSION);
    config.dim = 4;
    assert_status(peri_matrix_create(&m, scratch("c.txt"), &config, NULL), PERI_ERR_CONFIG);
    config.element = 12;
    assert_status(peri_matrix_create(&m, scratch("c.npy"), &config, NULL), PERI_ERR_CONFIG);
    config.element = PERI_ELEMENT_F16;
    assert_status(peri_matrix_create(&m, scratch("c.fvecs"), &config, NULL), PERI_ERR_CONFIG);
    config.format = 6;
    assert_status(peri_matrix_create(&m, scratch("c.npy"), &config, NULL), PERI_ERR_CONFIG);
    config.format = 0;
    config.deflate = 10;
    assert_status(peri_matrix_create(&m, scratch("c.hdf5"), &config, NULL), PERI_ERR_CONFIG);
    config.deflate = 0;
    config.n_attributes = 1;
    assert_status(peri_matrix_create(&m, scratch("c.hdf5"), &config, NULL), PERI_ERR_ARG);
    config.n_attributes = 0;
    config.rows = UINT64_MAX;
    assert_status(peri_matrix_create(&m, scratch("c.hdf5"), &config, NULL), PERI_ERR_CONFIG);
    config.rows = 0;
    assert_status(peri_matrix_create(&m, "/nowhere/c.npy", &config, NULL), PERI_ERR_NOT_FOUND);
    assert_status(peri_matrix_create(&m, scratch_dir, &config, NULL), PERI_ERR_CONFIG);
    config.format = PERI_FORMAT_NPY;
    assert_status(peri_matrix_create(&m, scratch_dir, &config, NULL), PERI_ERR_FORMAT);
    assert_status(peri_matrix_create(&m, "/dev/null", &config, NULL), PERI_ERR_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(what_is_no_regular_file_is_refused_at_once, io_empty),
        cmocka_unit_test_teardown(short_files_are_refused_by_every_format, io_empty),
        cmocka_unit_test_teardown(content_tells_the_format_where_the_name_does_not, io_empty),
        cmocka_unit_test_teardown(npy_headers_that_are_none_are_refused, io_empty),
        cmocka_unit_test_teardown(npy_of_other_versions_is_told, io_empty),
        cmocka_unit_test_teardown(truncated_files_are_refused, io_empty),
        cmocka_unit_test_teardown(vecs_with_odd_dimensions_are_refused, io_empty),
        cmocka_unit_test_teardown(arguments_that_make_no_sense_are_refused, io_empty),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
