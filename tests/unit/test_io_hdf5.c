/* HDF5 files of the kinds that others write, and of those that must be refused; made with libhdf5
 * itself. (Damaged files are left to the command's test: they may crash libhdf5.) */
#define _GNU_SOURCE
#include "io_files.h"

#include <hdf5.h>

enum { ROWS = 300, DIM = 20 };

static float values[ROWS * DIM];

typedef struct shape {
    hid_t type; /* in the file; floats are converted */
    int rank;
    hsize_t dims[3], chunk[3]; /* chunk[0] 0: contiguous */
    int deflate, shuffle;
} shape;

static hid_t new_file(const char *name)
{
    hid_t file = H5Fcreate(scratch(name), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

static void add(hid_t file, const char *name, const shape *s)
{
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(s->rank, s->dims, NULL);
    if (s->chunk[0])
        H5Pset_chunk(plist, s->rank, s->chunk);
    if (s->shuffle)
        H5Pset_shuffle(plist);
    if (s->deflate)
        H5Pset_deflate(plist, (unsigned)s->deflate);
    hid_t set = H5Dcreate2(file, name, s->type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    assert_true(set >= 0);
    assert_true(H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(set);
    H5Sclose(space);
    H5Pclose(plist);
}

static peri_status open_status(const char *spec)
{
    peri_matrix *m;
    peri_status status = peri_matrix_open(&m, io_spec(spec), NULL);
    peri_matrix_close(m);
    return status;
}

static void assert_values(const char *spec, uint32_t dim)
{
    static float back[ROWS * DIM];
    peri_matrix_info info;
    peri_matrix *m = io_open(io_spec(spec), &info);
    assert_int_equal(info.dim, dim);
    assert_int_equal(info.rows * dim, ROWS * DIM);
    assert_ok(peri_matrix_read(m, 0, (size_t)info.rows, back));
    assert_memory_equal(back, values, sizeof back);
    assert_ok(peri_matrix_read(m, info.rows / 3, 7, back));
    assert_memory_equal(back, values + info.rows / 3 * dim, 7 * dim * sizeof *back);
    peri_matrix_close(m);
}

static void chunks_filters_and_byte_orders_are_read(void **state)
{
    const struct {
        const char *name;
        shape shape;
    } sets[] = {
        {"plain", {H5T_IEEE_F32LE, 2, {ROWS, DIM}, {0}, 0, 0}},
        {"list", {H5T_STD_I64LE, 1, {ROWS * DIM}, {0}, 0, 0}},
        {"chunks", {H5T_IEEE_F32LE, 2, {ROWS, DIM}, {64, 7}, 0, 0}},
        {"larger", {H5T_IEEE_F32LE, 2, {ROWS, DIM}, {200, 20}, 0, 0}},
        {"deflate", {H5T_IEEE_F64LE, 2, {ROWS, DIM}, {100, 20}, 6, 1}},
        {"big", {H5T_IEEE_F32BE, 2, {ROWS, DIM}, {0}, 0, 0}},
        {"double_big", {H5T_IEEE_F64BE, 2, {ROWS, DIM}, {0}, 0, 0}},
        {"i16_big", {H5T_STD_I16BE, 2, {ROWS, DIM}, {0}, 0, 0}},
        {"u32_big", {H5T_STD_U32BE, 2, {ROWS, DIM}, {10, 10}, 1, 0}},
    };
    (void)state;
    hid_t file = new_file("kinds.h5");
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        add(file, sets[i].name, &sets[i].shape);
    H5Fclose(file);
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        char spec[64];
        snprintf(spec, sizeof spec, "kinds.h5:%s", sets[i].name);
        assert_values(spec, sets[i].shape.rank == 1 ? 1 : DIM);
    }
    assert_status(open_status("kinds.h5"), PERI_ERR_NOT_FOUND); /* no dataset train */
    assert_non_null(strstr(peri_error_detail(), "'train'"));
}

static void groups_and_links_within_the_file_are_followed(void **state)
{
    const shape plain = {H5T_IEEE_F32LE, 2, {ROWS, DIM}, {0}, 0, 0};
    (void)state;
    hid_t file = new_file("g.hdf5");
    hid_t group = H5Gcreate2(file, "g", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    add(group, "deep", &plain);
    H5Lcreate_soft("/g/deep", file, "soft", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_soft("/nowhere", file, "dangling", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_soft("/circle", file, "circle", H5P_DEFAULT, H5P_DEFAULT);
    H5Gclose(group);
    H5Fclose(file);
    assert_values("g.hdf5:g/deep", DIM);
    assert_values("g.hdf5:/g/deep", DIM);
    assert_values("g.hdf5:soft", DIM);
    assert_status(open_status("g.hdf5:g"), PERI_ERR_FORMAT);
    assert_status(open_status("g.hdf5:g/no"), PERI_ERR_NOT_FOUND);
    assert_status(open_status("g.hdf5:no/deep"), PERI_ERR_NOT_FOUND);
    assert_true(open_status("g.hdf5:dangling") != PERI_OK);
    assert_true(open_status("g.hdf5:circle") != PERI_OK);
    assert_true(open_status("g.hdf5:/") != PERI_OK);
}

static void what_leads_out_of_the_file_is_refused(void **state)
{
    const shape plain = {H5T_IEEE_F32LE, 2, {ROWS, DIM}, {0}, 0, 0};
    hsize_t dims[2] = {ROWS, DIM};
    (void)state;
    hid_t file = new_file("target.hdf5");
    add(file, "train", &plain);
    H5Fclose(file);
    file = new_file("out.hdf5");
    H5Lcreate_external(scratch("target.hdf5"), "/train", file, "link", H5P_DEFAULT, H5P_DEFAULT);
    hid_t space = H5Screate_simple(2, dims, NULL), plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(plist, "/etc/hostname", 0, sizeof values);
    hid_t set = H5Dcreate2(file, "raw", H5T_IEEE_F32LE, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    assert_true(set >= 0);
    H5Dclose(set);
    H5Pclose(plist);
    plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_virtual(plist, space, scratch("target.hdf5"), "/train", space);
    set = H5Dcreate2(file, "virtual", H5T_IEEE_F32LE, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    assert_true(set >= 0);
    H5Dclose(set);
    H5Pclose(plist);
    H5Sclose(space);
    H5Fclose(file);
    assert_values("target.hdf5", DIM);
    assert_status(open_status("out.hdf5:link"), PERI_ERR_UNSUPPORTED);
    assert_status(open_status("out.hdf5:raw"), PERI_ERR_UNSUPPORTED);
    assert_status(open_status("out.hdf5:virtual"), PERI_ERR_UNSUPPORTED);
}

static void add_empty(hid_t file, const char *name, hid_t type, int rank, const hsize_t *dims,
                      const hsize_t *chunk)
{
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    hid_t space = rank ? H5Screate_simple(rank, dims, NULL) : H5Screate(H5S_SCALAR);
    if (chunk)
        H5Pset_chunk(plist, rank, chunk);
    hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    assert_true(set >= 0);
    H5Dclose(set);
    H5Sclose(space);
    H5Pclose(plist);
}

static void shapes_and_types_that_are_no_matrix_are_refused(void **state)
{
    const hsize_t cube[] = {2, 2, 2}, some[] = {4, 4}, vast[] = {1ull << 40, 1000};
    const hsize_t wide[] = {1, 1ull << 40}, chunk[] = {10, 1000}, broad[] = {1, 1 << 20};
    const hsize_t flat[] = {4, 0}, fat[] = {4, 3000000}, fat_chunk[] = {4, 100};
    const hsize_t few[] = {10, 4}, big_chunk[] = {100000000, 4};
    (void)state;
    hid_t file = new_file("odd.hdf5");
    hid_t text = H5Tcopy(H5T_C_S1), pair = H5Tcreate(H5T_COMPOUND, 8), few_bits;
    H5Tinsert(pair, "a", 0, H5T_IEEE_F32LE);
    H5Tinsert(pair, "b", 4, H5T_STD_I32LE);
    few_bits = H5Tcopy(H5T_STD_I32LE);
    H5Tset_precision(few_bits, 12);
    add_empty(file, "scalar", H5T_IEEE_F32LE, 0, NULL, NULL);
    add_empty(file, "cube", H5T_IEEE_F32LE, 3, cube, NULL);
    add_empty(file, "text", text, 2, some, NULL);
    add_empty(file, "pair", pair, 2, some, NULL);
    add_empty(file, "few_bits", few_bits, 2, some, NULL);
    add_empty(file, "long_double", H5T_NATIVE_LDOUBLE, 2, some, NULL);
    add_empty(file, "vast", H5T_IEEE_F32LE, 2, vast, chunk);
    add_empty(file, "wide", H5T_IEEE_F32LE, 2, wide, broad);
    add_empty(file, "flat", H5T_IEEE_F32LE, 2, flat, NULL);
    add_empty(file, "fat", H5T_IEEE_F32LE, 2, fat, fat_chunk);
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    hsize_t most[] = {H5S_UNLIMITED, 4};
    hid_t space = H5Screate_simple(2, few, most);
    H5Pset_chunk(plist, 2, big_chunk);
    hid_t set = H5Dcreate2(file, "chunk", H5T_IEEE_F32LE, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    assert_true(set >= 0);
    H5Dclose(set);
    H5Sclose(space);
    H5Pclose(plist);
    H5Fclose(file);
    static const struct {
        const char *spec;
        peri_status status;
    } cases[] = {
        {"odd.hdf5:scalar", PERI_ERR_UNSUPPORTED},   {"odd.hdf5:cube", PERI_ERR_UNSUPPORTED},
        {"odd.hdf5:text", PERI_ERR_UNSUPPORTED},     {"odd.hdf5:pair", PERI_ERR_UNSUPPORTED},
        {"odd.hdf5:few_bits", PERI_ERR_UNSUPPORTED}, {"odd.hdf5:long_double", PERI_ERR_UNSUPPORTED},
        {"odd.hdf5:vast", PERI_ERR_CORRUPT},         {"odd.hdf5:wide", PERI_ERR_CORRUPT},
        {"odd.hdf5:flat", PERI_ERR_FORMAT},          {"odd.hdf5:fat", PERI_ERR_CORRUPT},
        {"odd.hdf5:chunk", PERI_ERR_CORRUPT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (open_status(cases[i].spec) != cases[i].status)
            fail_msg("%s: status %d, expected %d (%s)", cases[i].spec, open_status(cases[i].spec),
                     cases[i].status, peri_error_detail());
    H5Tclose(text);
    H5Tclose(pair);
    H5Tclose(few_bits);
}

static void the_distance_is_read_from_either_kind_of_string(void **state)
{
    static const char fixed[] = "euclidean";
    const char *variable = "angular";
    const int32_t number = 3;
    peri_matrix_info info;
    const shape plain = {H5T_IEEE_F32LE, 2, {ROWS, DIM}, {0}, 0, 0};
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        hid_t file = new_file("d.hdf5"), space = H5Screate(H5S_SCALAR);
        hid_t type = H5Tcopy(kind == 2 ? H5T_STD_I32LE : H5T_C_S1);
        if (kind < 2)
            H5Tset_size(type, kind ? H5T_VARIABLE : sizeof fixed - 1);
        if (kind == 0)
            H5Tset_strpad(type, H5T_STR_NULLPAD);
        hid_t attribute = H5Acreate2(file, "distance", type, space, H5P_DEFAULT, H5P_DEFAULT);
        const void *data[] = {fixed, &variable, &number};
        assert_true(H5Awrite(attribute, type, data[kind]) >= 0);
        H5Aclose(attribute);
        H5Tclose(type);
        H5Sclose(space);
        add(file, "train", &plain);
        H5Fclose(file);
        static const char *const expected[] = {"euclidean", "angular", ""};
        peri_matrix_close(io_open(scratch("d.hdf5"), &info));
        assert_string_equal(info.distance, expected[kind]);
    }
}

static void several_datasets_and_attributes_are_written(void **state)
{
    static const peri_matrix_attribute attributes[] = {{"licence", "CC BY 4.0"}, {"note", "é"}};
    static uint64_t ids[ROWS], back[ROWS];
    peri_matrix *m;
    peri_matrix_info info;
    peri_matrix_config config;
    (void)state;
    for (uint64_t i = 0; i < ROWS; i++)
        ids[i] = i * 1000003;
    peri_matrix_config_init(&config, DIM);
    config.distance = "angular";
    config.attributes = attributes;
    config.n_attributes = 2;
    config.deflate = 5;
    assert_ok(peri_matrix_create(&m, scratch("many.hdf5:rows"), &config, NULL));
    assert_ok(peri_matrix_write(m, ROWS, values));
    peri_matrix_config_init(&config, 1);
    assert_status(peri_matrix_next(m, &config), PERI_ERR_CONFIG);
    config.dataset = "rows";
    assert_status(peri_matrix_next(m, &config), PERI_ERR_EXISTS);
    config.dataset = "more/ids";
    config.element = PERI_ELEMENT_U64;
    config.rows = ROWS;
    assert_ok(peri_matrix_next(m, &config));
    assert_status(peri_matrix_commit(m), PERI_ERR_STATE);
    assert_ok(peri_matrix_write_ids(m, ROWS, ids));
    assert_ok(peri_matrix_commit(m));
    peri_matrix_close(m);
    assert_values("many.hdf5:rows", DIM);
    m = io_open(scratch("many.hdf5:more/ids"), &info);
    assert_string_equal(info.distance, "angular");
    assert_ok(peri_matrix_read_ids(m, 0, ROWS, back));
    assert_memory_equal(back, ids, sizeof ids);
    peri_matrix_close(m);
    hid_t file = H5Fopen(scratch("many.hdf5"), H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(H5Aexists(file, "licence") > 0 && H5Aexists(file, "note") > 0);
    H5Fclose(file);
}

static void equal_input_makes_equal_bytes(void **state)
{
    blob b[2];
    (void)state;
    for (int i = 0; i < 2; i++) {
        peri_matrix *m = io_create(scratch("same.hdf5"), DIM, PERI_ELEMENT_F16);
        assert_ok(peri_matrix_write(m, ROWS, values));
        assert_ok(peri_matrix_commit(m));
        peri_matrix_close(m);
        b[i] = blob_load(scratch("same.hdf5"));
        if (i == 0)
            sleep(1); /* a time stamp would count seconds */
    }
    assert_true(blob_same(b[0], b[1]));
    free(b[0].data);
    free(b[1].data);
}

static herr_t note(hid_t stack, void *data)
{
    (void)stack;
    ++*(int *)data;
    return 0;
}

static void the_host_programs_error_handler_is_left_alone(void **state)
{
    int told = 0;
    H5E_auto2_t handler;
    void *data;
    (void)state;
    blob_save(scratch("bad.hdf5"), "\x89HDF\r\n\x1a\n and nothing else", 26);
    H5Eset_auto2(H5E_DEFAULT, note, &told);
    assert_status(open_status("bad.hdf5"), PERI_ERR_FORMAT);
    assert_int_equal(told, 0);
    H5Eget_auto2(H5E_DEFAULT, &handler, &data);
    assert_true(handler == note && data == &told);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

int main(void)
{
    for (size_t i = 0; i < ROWS * DIM; i++)
        values[i] = (float)(i * 7 % 30011);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(chunks_filters_and_byte_orders_are_read, io_empty),
        cmocka_unit_test_teardown(groups_and_links_within_the_file_are_followed, io_empty),
        cmocka_unit_test_teardown(what_leads_out_of_the_file_is_refused, io_empty),
        cmocka_unit_test_teardown(shapes_and_types_that_are_no_matrix_are_refused, io_empty),
        cmocka_unit_test_teardown(the_distance_is_read_from_either_kind_of_string, io_empty),
        cmocka_unit_test_teardown(several_datasets_and_attributes_are_written, io_empty),
        cmocka_unit_test_teardown(equal_input_makes_equal_bytes, io_empty),
        cmocka_unit_test_teardown(the_host_programs_error_handler_is_left_alone, io_empty),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
