/* Segment files: what is written comes back, and a new file replaces an old one at once. */
#define _GNU_SOURCE
#include "base/team.h"
#include "corrupt/reseal.h"
#include "unit/segment_files.h"

#include <fcntl.h>

static void read_all_sizes(const char *path, int map)
{
    pe_segr *r;
    unsigned char *buf = malloc(BIGGEST);
    assert_int_equal(pe_segr_open(&r, &host, path, map), PERI_OK);
    for (unsigned i = 0; i < N_SIZES; i++) {
        const pe_section *s = pe_segr_find(r, TAG(i));
        assert_non_null(s);
        assert_int_equal(s->size, sizes[i]);
        assert_int_equal(s->offset % (i % 2 ? 65536 : 64), 0);
        assert_int_equal(s->data != NULL, map != PE_SEGMENT_COPY);
        assert_int_equal(pe_segr_read(r, s, 0, buf, sizes[i]), PERI_OK);
        assert_memory_equal(buf, bytes + i, sizes[i]);
        assert_int_equal(pe_segr_verify(r, s), PERI_OK);
        if (s->data)
            assert_memory_equal(s->data, bytes + i, sizes[i]);
    }
    assert_null(pe_segr_find(r, PE_FOURCC('N', 'O', 'N', 'E')));
    pe_segr_close(r);
    free(buf);
}

static void sections_of_any_size_come_back_in_every_mode(void **state)
{
    (void)state;
    const char *path = scratch("all");
    for (uint64_t seed = 0; seed < 3; seed++) {
        write_all_sizes(path, seed);
        for (int map = PE_SEGMENT_COPY; map <= PE_SEGMENT_MAP_COW; map++)
            read_all_sizes(path, map);
    }
    unlink(path);
}

static void the_same_content_makes_the_same_file(void **state)
{
    (void)state;
    const char *one = scratch("one"), *two = scratch("two");
    write_all_sizes(one, 0);
    write_all_sizes(two, 5);
    blob a = blob_load(one), b = blob_load(two);
    assert_true(blob_same(a, b));
    reseal(b.data, b.size); /* the format's other implementation agrees on every sum */
    assert_true(blob_same(a, b));
    free(a.data);
    free(b.data);
    unlink(one);
    unlink(two);
}

static void the_id_comes_back_as_it_was_given(void **state)
{
    (void)state;
    const char *path = scratch("id");
    pe_segment_id id = test_id();
    pe_segw *w;
    pe_segr *r;
    id.compat = 1;
    id.ro_compat = 2;
    id.incompat = 0x80000000u;
    assert_int_equal(pe_segw_open(&w, &host, path, &id), PERI_OK);
    assert_int_equal(pe_segw_commit(w), PERI_OK); /* no section at all is legal */
    assert_int_equal(pe_segr_open(&r, &host, path, PE_SEGMENT_MAP), PERI_OK);
    const pe_segment_id *got = pe_segr_id(r);
    assert_int_equal(got->kind, id.kind);
    assert_int_equal(got->version_major, 2);
    assert_int_equal(got->version_minor, 3);
    assert_int_equal(got->generation, 77);
    assert_int_equal(got->compat, id.compat);
    assert_int_equal(got->ro_compat, id.ro_compat);
    assert_int_equal(got->incompat, id.incompat);
    assert_memory_equal(got->uuid, id.uuid, 16);
    assert_string_equal(pe_segr_path(r), path);
    assert_int_equal(pe_segr_size(r), 256);
    assert_int_equal(pe_segr_readonly(r), 0);
    pe_segr_close(r);
    unlink(path);
}

static void blocks_are_verified_when_they_are_needed(void **state)
{
    (void)state;
    const char *path = scratch("lazy");
    unsigned char c, buf[100];
    write_all_sizes(path, 0);
    pe_segr *r;
    for (int map = PE_SEGMENT_COPY; map <= PE_SEGMENT_MAP_COW; map++) {
        int fd = open(path, O_RDWR);
        assert_int_equal(pe_segr_open(&r, &host, path, map), PERI_OK);
        const pe_section *s = pe_segr_find(r, TAG(7));
        off_t at = (off_t)s->offset + 3 * 65536 + 5;
        assert_int_equal(pe_segr_verify_range(r, s, 0, 1), PERI_OK);
        assert_int_equal(pread(fd, &c, 1, at), 1);
        c ^= 1;
        assert_int_equal(pwrite(fd, &c, 1, at), 1);
        assert_int_equal(pe_segr_verify_range(r, s, 0, 3 * 65536), PERI_OK);
        assert_int_equal(pe_segr_verify_range(r, s, 3 * 65536 - 1, 2), PERI_ERR_CORRUPT);
        assert_non_null(strstr(peri_error_detail(), "block 3"));
        assert_int_equal(pe_segr_verify_range(r, s, 4 * 65536 - 1, 1), PERI_ERR_CORRUPT);
        assert_int_equal(pe_segr_verify_range(r, s, 4 * 65536, s->size - 4 * 65536), PERI_OK);
        assert_int_equal(pe_segr_read(r, s, 3 * 65536 + 100, buf, 100), PERI_ERR_CORRUPT);
        assert_int_equal(pe_segr_read(r, s, 5 * 65536 + 100, buf, 100), PERI_OK);
        assert_memory_equal(buf, bytes + 7 + 5 * 65536 + 100, 100);
        assert_int_equal(pe_segr_verify(r, s), PERI_ERR_CORRUPT);
        c ^= 1;
        assert_int_equal(pwrite(fd, &c, 1, at), 1);
        assert_int_equal(pe_segr_verify(r, s), PERI_OK);
        pe_segr_close(r);
        close(fd);
    }
    unlink(path);
}

static void ranges_that_leave_a_section_are_errors(void **state)
{
    (void)state;
    const char *path = scratch("range");
    unsigned char buf[8];
    write_small(path, 300);
    for (int map = 0; map < 2; map++) {
        pe_segr *r;
        assert_int_equal(pe_segr_open(&r, &host, path, map), PERI_OK);
        const pe_section *s = pe_segr_find(r, TAG(0));
        assert_int_equal(pe_segr_verify(r, s), PERI_OK);
        assert_int_equal(pe_segr_verify_range(r, s, 0, 300), PERI_OK);
        assert_int_equal(pe_segr_verify_range(r, s, 300, 0), PERI_OK);
        assert_int_equal(pe_segr_verify_range(r, s, 0, 301), PERI_ERR_CORRUPT);
        assert_int_equal(pe_segr_verify_range(r, s, 300, 1), PERI_ERR_CORRUPT);
        assert_int_equal(pe_segr_verify_range(r, s, UINT64_MAX, 2), PERI_ERR_CORRUPT);
        assert_int_equal(pe_segr_verify_range(r, s, 2, UINT64_MAX), PERI_ERR_CORRUPT);
        assert_int_equal(pe_segr_read(r, s, 296, buf, 8), PERI_ERR_CORRUPT);
        assert_int_equal(pe_segr_read(r, s, 292, buf, 8), PERI_OK);
        assert_int_equal(pe_segr_fault(r, s, 7, "%d is odd", 3), PERI_ERR_CORRUPT);
        assert_non_null(strstr(peri_error_detail(), "'SECA' at byte 263: 3 is odd"));
        pe_segr_close(r);
    }
    unlink(path);
}

static void pieces_read_anywhere_are_right(void **state)
{
    (void)state;
    const char *path = scratch("pieces");
    unsigned char *buf = malloc(BIGGEST);
    pe_rng rng = {9};
    pe_segr *r;
    write_all_sizes(path, 0);
    assert_int_equal(pe_segr_open(&r, &host, path, PE_SEGMENT_COPY), PERI_OK);
    for (int i = 0; i < 500; i++) {
        unsigned which = pe_rng_below(&rng, N_SIZES);
        const pe_section *s = pe_segr_find(r, TAG(which));
        uint64_t at = pe_rng_below(&rng, (uint32_t)s->size + 1);
        size_t n = pe_rng_below(&rng, (uint32_t)(s->size - at) + 1);
        assert_int_equal(pe_segr_read(r, s, at, buf, n), PERI_OK);
        assert_memory_equal(buf, bytes + which + at, n);
    }
    pe_segr_close(r);
    free(buf);
    unlink(path);
}

static void a_copy_on_write_mapping_never_reaches_the_file(void **state)
{
    (void)state;
    const char *path = scratch("cow");
    pe_segr *r;
    write_all_sizes(path, 0);
    blob before = blob_load(path);
    assert_int_equal(pe_segr_open(&r, &host, path, PE_SEGMENT_MAP_COW), PERI_OK);
    const pe_section *s = pe_segr_find(r, TAG(7));
    assert_int_equal(pe_segr_verify_range(r, s, 70000, 10), PERI_OK);
    memset(s->data + 70000, 0xee, 10);
    assert_int_equal(pe_segr_verify(r, s), PERI_OK); /* a block is looked at once */
    pe_segr_close(r);
    blob after = blob_load(path);
    assert_true(blob_same(before, after));
    free(before.data);
    free(after.data);
    unlink(path);
}

typedef struct shared_verify {
    pe_segr *r;
    const pe_section *s;
    _Atomic int bad;
} shared_verify;

static void verify_some(void *ctx, unsigned worker)
{
    shared_verify *v = ctx;
    pe_rng rng = {worker};
    for (int i = 0; i < 20000; i++) {
        uint64_t at = pe_rng_below(&rng, (uint32_t)v->s->size - 3000);
        if (pe_segr_verify_range(v->r, v->s, at, 3000) != PERI_OK)
            atomic_store(&v->bad, 1);
        if (memcmp(v->s->data + at, bytes + 8 + at, 3000) != 0)
            atomic_store(&v->bad, 1);
    }
}

static void threads_verify_the_same_blocks_at_once(void **state)
{
    (void)state;
    const char *path = scratch("threads");
    shared_verify v = {0};
    write_all_sizes(path, 0);
    assert_int_equal(pe_segr_open(&v.r, &host, path, PE_SEGMENT_MAP), PERI_OK);
    v.s = pe_segr_find(v.r, TAG(8));
    pe_team_run(4, verify_some, &v);
    assert_int_equal(atomic_load(&v.bad), 0);
    pe_segr_close(v.r);
    unlink(path);
}

static void a_new_file_is_seen_only_when_it_is_whole(void **state)
{
    (void)state;
    const char *path = scratch("replace");
    pe_segment_id id = test_id();
    pe_segw *w;
    write_small(path, 10);
    blob before = blob_load(path);
    assert_int_equal(pe_segw_open(&w, &host, path, &id), PERI_OK);
    assert_int_equal(scratch_count(), 2);
    assert_int_equal(pe_segw_begin(w, TAG(0), 1), PERI_OK);
    assert_int_equal(pe_segw_put(w, bytes, BIGGEST), PERI_OK);
    blob during = blob_load(path);
    assert_true(blob_same(before, during));
    pe_segw_abort(w);
    pe_segw_abort(NULL);
    assert_int_equal(scratch_count(), 1);
    blob after = blob_load(path);
    assert_true(blob_same(before, after));
    free(before.data);
    free(during.data);
    free(after.data);
    unlink(path);
}

static void writers_of_one_path_do_not_meet(void **state)
{
    (void)state;
    const char *path = scratch("both");
    pe_segment_id id = test_id();
    pe_segw *one, *two;
    assert_int_equal(pe_segw_open(&one, &host, path, &id), PERI_OK);
    assert_int_equal(pe_segw_open(&two, &host, path, &id), PERI_OK);
    assert_int_equal(pe_segw_commit(one), PERI_OK);
    assert_int_equal(pe_segw_commit(two), PERI_OK);
    assert_int_equal(open_and_verify(path, PE_SEGMENT_MAP), PERI_OK);
    assert_int_equal(scratch_count(), 1);
    unlink(path);
}

static void names_as_long_as_the_file_system_takes_are_fine(void **state)
{
    (void)state;
    char name[256];
    memset(name, 'n', 255);
    name[255] = 0;
    write_small(scratch(name), 10);
    assert_int_equal(open_and_verify(scratch(name), PE_SEGMENT_MAP), PERI_OK);
    unlink(scratch(name));
    assert_int_equal(chdir(scratch("")), 0);
    write_small("bare", 10); /* no directory in the path */
    assert_int_equal(open_and_verify("bare", PE_SEGMENT_MAP), PERI_OK);
    unlink("bare");
    assert_int_equal(scratch_count(), 0);
}

static void a_path_that_cannot_be_written_is_an_error(void **state)
{
    (void)state;
    pe_segment_id id = test_id();
    pe_segw *w;
    assert_int_equal(pe_segw_open(&w, &host, "", &id), PERI_ERR_ARG);
    assert_int_equal(pe_segw_open(&w, &host, "dir/", &id), PERI_ERR_ARG);
    assert_int_equal(pe_segw_open(&w, &host, scratch("no/such/dir"), &id), PERI_ERR_NOT_FOUND);
    assert_null(w);
    assert_int_equal(mkdir(scratch("dir"), 0700), 0);
    assert_int_equal(pe_segw_open(&w, &host, scratch("dir"), &id), PERI_OK);
    assert_int_equal(pe_segw_commit(w), PERI_ERR_IO); /* a directory is not replaced */
    assert_int_equal(scratch_count(), 1);
    rmdir(scratch("dir"));
}

static void a_mistake_of_the_writer_sticks_to_the_file(void **state)
{
    (void)state;
    const char *path = scratch("mistake");
    pe_segment_id id = test_id();
    for (int mistake = 0; mistake < 5; mistake++) {
        pe_segw *w;
        assert_int_equal(pe_segw_open(&w, &host, path, &id), PERI_OK);
        if (mistake == 0)
            assert_int_equal(pe_segw_put(w, "x", 1), PERI_ERR_INTERNAL);
        if (mistake == 1)
            assert_int_equal(pe_segw_end(w), PERI_ERR_INTERNAL);
        if (mistake >= 2)
            assert_int_equal(pe_segw_begin(w, TAG(0), 0), PERI_OK);
        if (mistake == 2)
            assert_int_equal(pe_segw_begin(w, TAG(1), 0), PERI_ERR_INTERNAL);
        if (mistake == 3) {
            assert_int_equal(pe_segw_end(w), PERI_OK);
            assert_int_equal(pe_segw_begin(w, TAG(0), 0), PERI_ERR_INTERNAL);
        }
        if (mistake < 4) {
            assert_int_equal(pe_segw_put(w, "x", 1), PERI_ERR_INTERNAL);
            assert_int_equal(pe_segw_begin(w, TAG(2), 0), PERI_ERR_INTERNAL);
            assert_int_equal(pe_segw_end(w), PERI_ERR_INTERNAL);
        }
        assert_int_equal(pe_segw_commit(w), PERI_ERR_INTERNAL); /* 4: a section is still open */
        assert_int_equal(scratch_count(), 0);
    }
}

static void a_file_holds_as_many_sections_as_promised(void **state)
{
    (void)state;
    const char *path = scratch("many");
    pe_segment_id id = test_id();
    for (uint32_t n = PE_SEGMENT_SECTIONS; n <= PE_SEGMENT_SECTIONS + 1; n++) {
        pe_segw *w;
        assert_int_equal(pe_segw_open(&w, &host, path, &id), PERI_OK);
        for (uint32_t i = 0; i < n; i++) {
            pe_segw_begin(w, i, 0);
            pe_segw_put(w, &i, sizeof i);
            pe_segw_end(w);
        }
        peri_status want = n > PE_SEGMENT_SECTIONS ? PERI_ERR_INTERNAL : PERI_OK;
        assert_int_equal(pe_segw_commit(w), want);
    }
    assert_int_equal(open_and_verify(path, PE_SEGMENT_MAP), PERI_OK);
    unlink(path);
}

static void uuids_differ(void **state)
{
    (void)state;
    uint8_t a[16], b[16];
    assert_int_equal(pe_segment_new_uuid(a), PERI_OK);
    assert_int_equal(pe_segment_new_uuid(b), PERI_OK);
    assert_memory_not_equal(a, b, 16);
    assert_int_equal(a[6] >> 4, 4);
    assert_int_equal(a[8] >> 6, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sections_of_any_size_come_back_in_every_mode),
        cmocka_unit_test(the_same_content_makes_the_same_file),
        cmocka_unit_test(the_id_comes_back_as_it_was_given),
        cmocka_unit_test(blocks_are_verified_when_they_are_needed),
        cmocka_unit_test(ranges_that_leave_a_section_are_errors),
        cmocka_unit_test(pieces_read_anywhere_are_right),
        cmocka_unit_test(a_copy_on_write_mapping_never_reaches_the_file),
        cmocka_unit_test(threads_verify_the_same_blocks_at_once),
        cmocka_unit_test(a_new_file_is_seen_only_when_it_is_whole),
        cmocka_unit_test(writers_of_one_path_do_not_meet),
        cmocka_unit_test(names_as_long_as_the_file_system_takes_are_fine),
        cmocka_unit_test(a_path_that_cannot_be_written_is_an_error),
        cmocka_unit_test(a_mistake_of_the_writer_sticks_to_the_file),
        cmocka_unit_test(a_file_holds_as_many_sections_as_promised),
        cmocka_unit_test(uuids_differ),
    };
    return cmocka_run_group_tests_name("segment", tests, setup, teardown);
}
