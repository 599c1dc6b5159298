/* Segment files that are not whole, not ours or not honest are refused. */
#define _GNU_SOURCE
#include "corrupt/reseal.h"
#include "unit/segment_files.h"

#include <fcntl.h>

static void a_reader_refuses_other_kinds_newer_kinds_and_unknown_features(void **state)
{
    (void)state;
    const char *path = scratch("expect");
    pe_segr *r;
    write_small(path, 10);
    assert_int_equal(pe_segr_open(&r, &host, path, PE_SEGMENT_COPY), PERI_OK);
    assert_int_equal(pe_segr_expect(r, KIND, 2, 0), PERI_OK);
    assert_int_equal(pe_segr_expect(r, KIND, 9, 0), PERI_OK);
    assert_int_equal(pe_segr_expect(r, KIND, 1, 0), PERI_ERR_VERSION);
    assert_int_equal(pe_segr_expect(r, TAG(0), 2, 0), PERI_ERR_FORMAT);
    assert_non_null(strstr(peri_error_detail(), "TEST"));
    pe_segr_close(r);
    unlink(path);
}

static void every_flipped_bit_of_a_small_file_is_detected(void **state)
{
    (void)state;
    const char *path = scratch("flip");
    write_small(path, 300); /* pads before the tail */
    blob b = blob_load(path);
    int fd = open(path, O_RDWR);
    assert_int_equal(open_and_verify(path, PE_SEGMENT_COPY), PERI_OK);
    for (size_t bit = 0; bit < b.size * 8; bit++) {
        unsigned char c = (unsigned char)(b.data[bit / 8] ^ 1u << bit % 8);
        assert_int_equal(pwrite(fd, &c, 1, (off_t)(bit / 8)), 1);
        peri_status want = bit < 64 ? PERI_ERR_FORMAT : PERI_ERR_CORRUPT;
        assert_int_equal(open_and_verify(path, (int)(bit % 3)), want);
        assert_int_equal(pwrite(fd, b.data + bit / 8, 1, (off_t)(bit / 8)), 1);
    }
    assert_int_equal(open_and_verify(path, PE_SEGMENT_COPY), PERI_OK);
    close(fd);
    free(b.data);
    unlink(path);
}

static void every_other_length_of_a_small_file_is_refused(void **state)
{
    (void)state;
    const char *path = scratch("cut");
    write_small(path, 300);
    blob b = blob_load(path);
    b.data = realloc(b.data, b.size + 300);
    memset(b.data + b.size, 0, 300);
    for (size_t n = 0; n < b.size + 300; n++) {
        blob_save(path, b.data, n);
        peri_status want = n < 8 ? PERI_ERR_FORMAT : n == b.size ? PERI_OK : PERI_ERR_CORRUPT;
        assert_int_equal(open_and_verify(path, (int)(n % 3)), want);
    }
    free(b.data);
    unlink(path);
}

/* Change a field of the header or of the tail, make the checksums right, say what opening says. */
static peri_status open_changed(const char *path, size_t at, unsigned width, uint64_t value)
{
    const char *changed = scratch("changed");
    blob b = blob_load(path);
    reseal_put(b.data + at, value, width);
    reseal(b.data, b.size);
    blob_save(changed, b.data, b.size);
    free(b.data);
    peri_status status = open_and_verify(changed, PE_SEGMENT_MAP);
    assert_int_equal(open_and_verify(changed, PE_SEGMENT_COPY), status);
    unlink(changed);
    return status;
}

static void a_newer_file_is_refused_by_name(void **state)
{
    (void)state;
    const char *path = scratch("newer");
    write_small(path, 10);
    assert_int_equal(open_changed(path, 12, 2, 2), PERI_ERR_VERSION);
    assert_non_null(strstr(peri_error_detail(), "format version 2"));
    assert_int_equal(open_changed(path, 14, 2, 9), PERI_OK); /* minor */
    assert_int_equal(open_changed(path, 20, 4, 2), PERI_ERR_VERSION);
    assert_int_equal(open_changed(path, 40, 4, 4), PERI_ERR_VERSION);
    assert_non_null(strstr(peri_error_detail(), "0x4"));
    assert_int_equal(open_changed(path, 24, 4, 4), PERI_OK); /* compatible */
    assert_int_equal(open_changed(path, 8, 4, 0x04030201), PERI_ERR_FORMAT);
    assert_int_equal(open_changed(path, 136, 8, 1), PERI_OK); /* unused */
    unlink(path);
}

static void an_unknown_read_only_feature_lets_readers_in(void **state)
{
    (void)state;
    const char *path = scratch("ro");
    pe_segr *r;
    write_small(path, 10);
    blob b = blob_load(path);
    b.data[32] = 1;
    reseal(b.data, b.size);
    blob_save(path, b.data, b.size);
    assert_int_equal(pe_segr_open(&r, &host, path, PE_SEGMENT_MAP), PERI_OK);
    assert_int_equal(pe_segr_readonly(r), 1);
    pe_segr_close(r);
    free(b.data);
    unlink(path);
}

static void a_table_that_lies_is_refused_though_its_checksums_hold(void **state)
{
    (void)state;
    const char *path = scratch("lies");
    pe_segment_id id = test_id();
    pe_segw *w;
    assert_int_equal(pe_segw_open(&w, &host, path, &id), PERI_OK);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(pe_segw_begin(w, TAG(i), 0), PERI_OK);
        assert_int_equal(pe_segw_put(w, bytes, 100), PERI_OK);
        assert_int_equal(pe_segw_end(w), PERI_OK);
    }
    assert_int_equal(pe_segw_commit(w), PERI_OK);
    blob b = blob_load(path);
    size_t tail = (size_t)reseal_get(b.data + 88, 8);
    assert_int_equal(tail, 512); /* 256 + 100 -> 384 + 100 -> 512 */
    const struct {
        size_t at;
        unsigned width;
        uint64_t value;
    } lies[] = {
        {16, 4, 512},
        {116, 4, 4096}, /* sizes of header and block */
        {80, 8, b.size + 1},
        {80, 8, UINT64_MAX}, /* the file's length */
        {88, 8, tail + 8},
        {88, 8, tail - 64}, /* where the tail is */
        {88, 8, UINT64_MAX},
        {88, 8, 0},
        {96, 8, 0},
        {96, 8, UINT64_MAX},
        {112, 4, 0},
        {112, 4, 1},
        {112, 4, 3},
        {112, 4, UINT32_MAX},
        {112, 4, 257},
        {tail, 4, TAG(1)}, /* the same tag twice */
        {tail + 4, 4, 1},
        {tail + 4, 4, 2}, /* flags: not aligned; unknown */
        {tail + 8, 8, 320},
        {tail + 8, 8, 0}, /* a section moved */
        {tail + 40, 8, 256},
        {tail + 40, 8, 448}, /* overlapping the first; leaving a hole */
        {tail + 40, 8, UINT64_MAX - 63},
        {tail + 16, 8, 200},
        {tail + 16, 8, 20},
        {tail + 16, 8, UINT64_MAX},
        {tail + 48, 8, 129},
        {tail + 48, 8, 20},
        {tail + 48, 8, (uint64_t)1 << 63},
        {tail + 24, 8, 1},
        {tail + 56, 8, 0},
        {tail + 56, 8, 2},
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++)
        if (open_changed(path, lies[i].at, lies[i].width, lies[i].value) != PERI_ERR_CORRUPT)
            fail_msg("lie %zu is believed", i);
    free(b.data);
    unlink(path);
}

static void bytes_between_sections_must_be_zero(void **state)
{
    (void)state;
    const char *path = scratch("pads");
    write_all_sizes(path, 0);
    blob b = blob_load(path);
    unsigned n = 0;
    for (size_t at = 256 + 1; at < 65536; at += 9973, n++) /* before the first mapped section */
        assert_int_equal(open_changed(path, at, 1, 1), PERI_ERR_CORRUPT);
    assert_int_equal(open_changed(path, (size_t)reseal_get(b.data + 88, 8) - 1, 1, 0x80),
                     PERI_ERR_CORRUPT);
    free(b.data);
    unlink(path);
}

static void what_is_no_segment_is_refused_and_no_fifo_waited_for(void **state)
{
    (void)state;
    pe_segr *r;
    const char *path = scratch("other");
    assert_int_equal(pe_segr_open(&r, &host, path, 1), PERI_ERR_NOT_FOUND);
    assert_non_null(strstr(peri_error_detail(), path));
    assert_null(r);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(pe_segr_open(&r, &host, path, 1), PERI_ERR_FORMAT);
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(pe_segr_open(&r, &host, path, 1), PERI_ERR_FORMAT);
    rmdir(path);
    assert_int_equal(pe_segr_open(&r, &host, "/dev/zero", 1), PERI_ERR_FORMAT);
    blob_save(path, bytes, 5000);
    assert_int_equal(pe_segr_open(&r, &host, path, 1), PERI_ERR_FORMAT);
    blob_save(path, "", 0);
    assert_int_equal(pe_segr_open(&r, &host, path, 0), PERI_ERR_FORMAT);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_refuses_other_kinds_newer_kinds_and_unknown_features),
        cmocka_unit_test(every_flipped_bit_of_a_small_file_is_detected),
        cmocka_unit_test(every_other_length_of_a_small_file_is_refused),
        cmocka_unit_test(a_newer_file_is_refused_by_name),
        cmocka_unit_test(an_unknown_read_only_feature_lets_readers_in),
        cmocka_unit_test(a_table_that_lies_is_refused_though_its_checksums_hold),
        cmocka_unit_test(bytes_between_sections_must_be_zero),
        cmocka_unit_test(what_is_no_segment_is_refused_and_no_fifo_waited_for),
    };
    return cmocka_run_group_tests_name("segment, refused", tests, setup, teardown);
}
