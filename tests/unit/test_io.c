/* What io/ writes it reads back: every format, every element type, the edges of each. */
#define _GNU_SOURCE
#include "io_files.h"

#include <float.h>
#include <math.h>

static const char *const flexible[] = {"a.hdf5", "a.npy"};

/* ---- round trips ---- */

/* 7 rows of `dim` small whole numbers, written in two goes, read whole and in part. */
static void round_trip(const char *name, uint32_t dim, uint16_t element)
{
    enum { ROWS = 7 };
    peri_matrix_info info;
    float *rows = malloc(ROWS * dim * sizeof *rows), *back = malloc(ROWS * dim * sizeof *back);
    assert_non_null(rows);
    assert_non_null(back);
    for (size_t i = 0; i < ROWS * dim; i++)
        rows[i] = (float)(i % 120);
    peri_matrix *m = io_create(scratch(name), dim, element);
    assert_ok(peri_matrix_write(m, 3, rows));
    assert_ok(peri_matrix_write(m, 0, NULL));
    assert_ok(peri_matrix_write(m, ROWS - 3, rows + 3 * (size_t)dim));
    assert_ok(peri_matrix_commit(m));
    peri_matrix_close(m);

    m = io_open(scratch(name), &info);
    assert_int_equal(info.rows, ROWS);
    assert_int_equal(info.dim, dim);
    if (element)
        assert_int_equal(info.element, element);
    assert_ok(peri_matrix_read(m, 0, ROWS, back));
    assert_memory_equal(back, rows, ROWS * dim * sizeof *rows);
    assert_ok(peri_matrix_read(m, 5, 2, back));
    assert_memory_equal(back, rows + 5 * (size_t)dim, 2 * dim * sizeof *rows);
    assert_ok(peri_matrix_read(m, ROWS, 0, back));
    assert_status(peri_matrix_read(m, 6, 2, back), PERI_ERR_ARG);
    assert_status(peri_matrix_read(m, UINT64_MAX, 2, back), PERI_ERR_ARG);
    peri_matrix_close(m);
    free(rows);
    free(back);
}

static void every_type_in_every_format_comes_back(void **state)
{
    (void)state;
    for (uint16_t element = PERI_ELEMENT_F16; element <= PERI_ELEMENT_U64; element++)
        for (size_t f = 0; f < 2; f++)
            round_trip(flexible[f], 5, element);
    round_trip("a.fvecs", 5, 0);
    round_trip("a.bvecs", 5, PERI_ELEMENT_U8);
    round_trip("a.ivecs", 1, 0);
    round_trip("a.FVECS", 1, 0);
    round_trip("a.h5", 1, 0);
}

static void rows_wider_than_a_block_come_back(void **state)
{
    (void)state;
    round_trip("wide.npy", 300000, PERI_ELEMENT_F32);
    round_trip("wide.hdf5", 300000, PERI_ELEMENT_F64);
    round_trip("wide.fvecs", 300000, 0);
}

static void many_blocks_come_back(void **state)
{
    static const char *const names[] = {"long.hdf5", "long.npy", "long.fvecs"};
    enum { ROWS = 50000, DIM = 17 };
    peri_matrix_info info;
    float *rows = malloc(sizeof(float) * ROWS * DIM), *back = malloc(sizeof(float) * ROWS * DIM);
    (void)state;
    for (size_t i = 0; i < (size_t)ROWS * DIM; i++)
        rows[i] = (float)i * 0.25f;
    for (size_t f = 0; f < 3; f++) {
        peri_matrix *m = io_create(scratch(names[f]), DIM, 0);
        assert_ok(peri_matrix_write(m, ROWS, rows));
        assert_ok(peri_matrix_commit(m));
        peri_matrix_close(m);
        m = io_open(scratch(names[f]), &info);
        assert_int_equal(info.rows, ROWS);
        assert_ok(peri_matrix_read(m, 1, ROWS - 1, back));
        assert_memory_equal(back, rows + DIM, sizeof(float) * (ROWS - 1) * DIM);
        peri_matrix_close(m);
    }
    free(rows);
    free(back);
}

static void no_rows_are_a_matrix_where_the_format_can_say_so(void **state)
{
    (void)state;
    peri_matrix_info info;
    for (size_t f = 0; f < 2; f++) {
        peri_matrix *m = io_create(scratch(flexible[f]), 9, 0);
        assert_ok(peri_matrix_commit(m));
        peri_matrix_close(m);
        m = io_open(scratch(flexible[f]), &info);
        assert_int_equal(info.rows, 0);
        assert_int_equal(info.dim, 9);
        assert_ok(peri_matrix_read(m, 0, 0, NULL));
        peri_matrix_close(m);
    }
    peri_matrix *m = io_create(scratch("none.fvecs"), 9, 0);
    assert_status(peri_matrix_commit(m), PERI_ERR_STATE);
    peri_matrix_close(m);
}

static void ids_come_back(void **state)
{
    (void)state;
    peri_matrix_info info;
    const uint64_t ids[] = {0, 1, 1u << 30, INT64_MAX, PERI_NO_ID, 5};
    uint64_t back[6];
    for (size_t f = 0; f < 2; f++)
        for (uint16_t element = PERI_ELEMENT_I64; element <= PERI_ELEMENT_U64; element++) {
            peri_matrix *m = io_create(scratch(flexible[f]), 2, element);
            assert_ok(peri_matrix_write_ids(m, 3, ids));
            assert_ok(peri_matrix_commit(m));
            peri_matrix_close(m);
            m = io_open(scratch(flexible[f]), &info);
            assert_int_equal(info.integer, 1);
            assert_ok(peri_matrix_read_ids(m, 0, 3, back));
            assert_memory_equal(back, ids, sizeof ids);
            peri_matrix_close(m);
        }
    peri_matrix *m = io_create(scratch("i.ivecs"), 1, 0);
    assert_status(peri_matrix_write_ids(m, 6, ids), PERI_ERR_ARG); /* INT64_MAX */
    assert_ok(peri_matrix_write_ids(m, 3, ids));
    assert_ok(peri_matrix_write_ids(m, 2, ids + 4));
    assert_ok(peri_matrix_commit(m));
    peri_matrix_close(m);
    m = io_open(scratch("i.ivecs"), &info);
    assert_int_equal(info.rows, 5);
    assert_ok(peri_matrix_read_ids(m, 3, 2, back));
    assert_true(back[0] == PERI_NO_ID && back[1] == 5);
    peri_matrix_close(m);
}

/* ---- the edges of the types ---- */

static void every_half_comes_back_bit_for_bit(void **state)
{
    (void)state;
    enum { N = 65536 };
    static uint16_t halves[N];
    static float floats[N];
    peri_matrix_info info;
    for (size_t i = 0; i < N; i++)
        halves[i] = (uint16_t)i;
    io_put_npy(scratch("h.npy"), "{'descr': '<f2', 'fortran_order': False, 'shape': (256, 256)}",
               halves, sizeof halves);
    peri_matrix *m = io_open(scratch("h.npy"), &info);
    assert_ok(peri_matrix_read(m, 0, 256, floats));
    peri_matrix_close(m);
    assert_true(floats[0x3c00] == 1.0f && floats[0x0001] == 0x1p-24f && floats[0x7bff] == 65504.0f);
    assert_true(floats[0xfc00] == -INFINITY && signbit(floats[0x8000]) && isnan(floats[0x7e01]));
    m = io_create(scratch("h2.npy"), 256, PERI_ELEMENT_F16);
    assert_ok(peri_matrix_write(m, 256, floats));
    assert_ok(peri_matrix_commit(m));
    peri_matrix_close(m);
    blob b = blob_load(scratch("h2.npy"));
    assert_int_equal(b.size, 128 + sizeof halves);
    const uint16_t *back = (const uint16_t *)(const void *)(b.data + 128);
    for (size_t i = 0; i < N; i++) /* a signalling NaN comes back quiet */
        if (!isnan(floats[i]))
            assert_int_equal(back[i], halves[i]);
        else
            assert_true((back[i] & 0x7e00) == 0x7e00);
    free(b.data);
}

/* Writes one value; the status, and what came back. */
static peri_status one_value(uint16_t element, float value, float *back)
{
    peri_matrix_info info;
    peri_matrix *m = io_create(scratch("one.npy"), 1, element);
    peri_status status = peri_matrix_write(m, 1, &value);
    if (status == PERI_OK) {
        assert_ok(peri_matrix_commit(m));
        peri_matrix *r = io_open(scratch("one.npy"), &info);
        assert_ok(peri_matrix_read(r, 0, 1, back));
        peri_matrix_close(r);
    }
    peri_matrix_close(m);
    return status;
}

static void values_round_or_are_refused_at_the_edges(void **state)
{
    (void)state;
    static const struct {
        uint16_t element;
        float in, out; /* out NAN: refused */
    } cases[] = {
        {PERI_ELEMENT_F16, 65504, 65504},
        {PERI_ELEMENT_F16, 65519.996f, 65504},
        {PERI_ELEMENT_F16, 65520, NAN},
        {PERI_ELEMENT_F16, -FLT_MAX, NAN},
        {PERI_ELEMENT_F16, INFINITY, INFINITY},
        {PERI_ELEMENT_F16, 0x1p-25f, 0}, /* half way: to even */
        {PERI_ELEMENT_F16, 0x1.8p-24f, 0x1p-23f},
        {PERI_ELEMENT_F16, 0x1.000002p-25f, 0x1p-24f},
        {PERI_ELEMENT_F16, FLT_TRUE_MIN, 0},
        {PERI_ELEMENT_F16, 0x1.ffcp-15f, 0x1p-14f}, /* half way below the smallest normal */
        {PERI_ELEMENT_F16, 1.00048828125f, 1},
        {PERI_ELEMENT_F16, 1.00146484375f, 1.001953125f},
        {PERI_ELEMENT_F32, FLT_MAX, FLT_MAX},
        {PERI_ELEMENT_F32, FLT_TRUE_MIN, FLT_TRUE_MIN},
        {PERI_ELEMENT_F64, -FLT_MAX, -FLT_MAX},
        {PERI_ELEMENT_I8, 127, 127},
        {PERI_ELEMENT_I8, 128, NAN},
        {PERI_ELEMENT_I8, -128, -128},
        {PERI_ELEMENT_I8, -129, NAN},
        {PERI_ELEMENT_I8, 0.5f, NAN},
        {PERI_ELEMENT_U8, 255, 255},
        {PERI_ELEMENT_U8, 256, NAN},
        {PERI_ELEMENT_U8, -1, NAN},
        {PERI_ELEMENT_I16, -32768, -32768},
        {PERI_ELEMENT_U16, 65535, 65535},
        {PERI_ELEMENT_I32, -0x1p31f, -0x1p31f},
        {PERI_ELEMENT_I32, 0x1p31f, NAN},
        {PERI_ELEMENT_U32, 0x1p32f, NAN},
        {PERI_ELEMENT_I64, 0x1p62f, 0x1p62f},
        {PERI_ELEMENT_I64, 0x1p63f, NAN},
        {PERI_ELEMENT_U64, 0x1p63f, 0x1p63f},
        {PERI_ELEMENT_U64, 0x1p64f, NAN},
        {PERI_ELEMENT_U64, NAN, NAN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float back = 0;
        peri_status status = one_value(cases[i].element, cases[i].in, &back);
        if (isnan(cases[i].out))
            assert_status(status, PERI_ERR_ARG);
        else if (status != PERI_OK || back != cases[i].out)
            fail_msg("%s of %a: status %d, came back as %a",
                     peri_matrix_element_name(cases[i].element), (double)cases[i].in, status,
                     (double)back);
    }
}

static void values_that_f32_cannot_hold_are_refused(void **state)
{
    (void)state;
    static const double wide[] = {1.0, 1e39}, nan_inf[] = {NAN, -INFINITY}, tiny[] = {1e-300, 1};
    static const int64_t whole[] = {16777216, 16777217}, top[] = {INT64_MIN, INT64_MAX};
    static const uint64_t utop[] = {0, UINT64_MAX};
    static const struct {
        const char *dictionary;
        const void *data;
        peri_status status;
    } cases[] = {
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (1, 2), }", wide, PERI_ERR_FORMAT},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (1, 2), }", nan_inf, PERI_OK},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (1, 2), }", tiny, PERI_OK},
        {"{'descr': '<i8', 'fortran_order': False, 'shape': (1, 2), }", whole, PERI_ERR_FORMAT},
        {"{'descr': '<i8', 'fortran_order': False, 'shape': (1, 2), }", top, PERI_ERR_FORMAT},
        {"{'descr': '<u8', 'fortran_order': False, 'shape': (1, 2), }", utop, PERI_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        peri_matrix_info info;
        float back[2];
        io_put_npy(scratch("v.npy"), cases[i].dictionary, cases[i].data, 16);
        peri_matrix *m = io_open(scratch("v.npy"), &info);
        assert_status(peri_matrix_read(m, 0, 1, back), cases[i].status);
        if (cases[i].status != PERI_OK)
            assert_non_null(strstr(peri_error_detail(), "row 0, column 1"));
        peri_matrix_close(m);
    }
}

static void ids_below_minus_one_and_floats_are_no_ids(void **state)
{
    (void)state;
    static const int8_t ids[] = {-1, 3, -2};
    static const float floats[] = {1, 2, 3};
    peri_matrix_info info;
    uint64_t back[3];
    io_put_npy(scratch("i.npy"), "{'descr': '|i1', 'fortran_order': False, 'shape': (3,), }", ids,
               3);
    peri_matrix *m = io_open(scratch("i.npy"), &info);
    assert_ok(peri_matrix_read_ids(m, 0, 2, back));
    assert_true(back[0] == PERI_NO_ID && back[1] == 3);
    assert_status(peri_matrix_read_ids(m, 0, 3, back), PERI_ERR_FORMAT);
    assert_non_null(strstr(peri_error_detail(), "row 2, column 0 is -2"));
    peri_matrix_close(m);
    io_put_npy(scratch("f.npy"), "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }",
               floats, 12);
    m = io_open(scratch("f.npy"), &info);
    assert_status(peri_matrix_read_ids(m, 0, 1, back), PERI_ERR_FORMAT);
    peri_matrix_close(m);
}

static void big_endian_is_read(void **state)
{
    (void)state;
    static const unsigned char f4[] = {0x3f, 0x80, 0, 0}, i2[] = {0xff, 0xfe, 0x01, 0x02},
                               f8[] = {0xc0, 0, 0, 0, 0, 0, 0, 0};
    peri_matrix_info info;
    float back[2];
    io_put_npy(scratch("b.npy"), "{'descr': '>f4', 'fortran_order': False, 'shape': (1, 1)}", f4,
               4);
    peri_matrix *m = io_open(scratch("b.npy"), &info);
    assert_ok(peri_matrix_read(m, 0, 1, back));
    assert_true(back[0] == 1.0f);
    peri_matrix_close(m);
    io_put_npy(scratch("b.npy"), "{'descr': '>i2', 'fortran_order': False, 'shape': (1, 2)}", i2,
               4);
    m = io_open(scratch("b.npy"), &info);
    assert_ok(peri_matrix_read(m, 0, 1, back));
    assert_true(back[0] == -2.0f && back[1] == 258.0f);
    peri_matrix_close(m);
    io_put_npy(scratch("b.npy"), "{'descr': '>f8', 'fortran_order': False, 'shape': (1,)}", f8, 8);
    m = io_open(scratch("b.npy"), &info);
    assert_ok(peri_matrix_read(m, 0, 1, back));
    assert_true(back[0] == -2.0f);
    peri_matrix_close(m);
}

static void names_are_those_of_the_field(void **state)
{
    (void)state;
    assert_string_equal(peri_matrix_element_name(PERI_ELEMENT_F16), "f16");
    assert_string_equal(peri_matrix_element_name(PERI_ELEMENT_U64), "u64");
    assert_string_equal(peri_matrix_element_name(0), "");
    assert_string_equal(peri_matrix_element_name(UINT32_MAX), "");
    assert_string_equal(peri_matrix_format_name(PERI_FORMAT_IVECS), "ivecs");
    assert_string_equal(peri_matrix_format_name(6), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_those_of_the_field),
        cmocka_unit_test(every_type_in_every_format_comes_back),
        cmocka_unit_test(rows_wider_than_a_block_come_back),
        cmocka_unit_test(many_blocks_come_back),
        cmocka_unit_test(no_rows_are_a_matrix_where_the_format_can_say_so),
        cmocka_unit_test(ids_come_back),
        cmocka_unit_test(every_half_comes_back_bit_for_bit),
        cmocka_unit_test(values_round_or_are_refused_at_the_edges),
        cmocka_unit_test(values_that_f32_cannot_hold_are_refused),
        cmocka_unit_test(ids_below_minus_one_and_floats_are_no_ids),
        cmocka_unit_test(big_endian_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
