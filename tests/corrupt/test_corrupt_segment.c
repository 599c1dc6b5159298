/* Damaged segment files with rows and keys in them, opened in each mode. */
#include "base/rng.h"
#include "corrupt/corrupt.h"
#include "faulty.h"
#include "keys/keys.h"
#include "scratch.h"

#define KIND PE_FOURCC('T', 'E', 'S', 'T')
#define ROWS PE_FOURCC('R', 'O', 'W', 'S')

enum { N_KEYS = 200, ROW = 100, N_ROWS = 1500 };

static unsigned char *whole;
static size_t whole_size;

static size_t key_text(unsigned i, char key[64])
{
    return (size_t)sprintf(key, "%u is the key of row %.*s", i, (int)(i % 20),
                           "--------------------");
}

/* Rows one by one, lazily verified, then all keys both ways. */
static void use_rows(pe_segr *r, corrupt_use *use)
{
    const pe_section *s = pe_segr_find(r, ROWS);
    unsigned char row[ROW];
    if (!s || s->size != (uint64_t)N_ROWS * ROW) {
        corrupt_answer(use, PERI_ERR_CORRUPT, NULL, 0);
        return;
    }
    for (uint64_t i = 0; i < N_ROWS; i += 10) {
        peri_status status;
        if (s->data) {
            status = pe_segr_verify_range(r, s, i * ROW, ROW);
            corrupt_answer(use, status, s->data + i * ROW, ROW);
        } else {
            status = pe_segr_read(r, s, i * ROW, row, ROW);
            corrupt_answer(use, status, row, ROW);
        }
    }
    corrupt_answer(use, pe_segr_verify(r, s), NULL, 0);
}

static void use_keys(const pe_keys *k, corrupt_use *use)
{
    char text[64];
    uint64_t faults;
    peri_status status = pe_keys_check(k, &faults);
    corrupt_answer(use, status, &faults, sizeof faults);
    for (unsigned i = 0; i < N_KEYS; i += 5) {
        uint64_t id = 0;
        peri_slice key = {0};
        size_t n = key_text(i, text);
        int found = pe_keys_find(k, (peri_slice){text, n}, &id);
        corrupt_answer(use, found ? PERI_OK : PERI_ERR_NOT_FOUND, &id, sizeof id);
        found = pe_keys_key_of(k, i, &key);
        corrupt_answer(use, found ? PERI_OK : PERI_ERR_NOT_FOUND, key.data, key.size);
    }
}

static void use_segment(const char *path, corrupt_use *use, const void *arg)
{
    faulty f;
    pe_host host;
    pe_epoch *epoch = calloc(1, sizeof *epoch);
    pe_segr *r;
    pe_keys *k = NULL;
    faulty_init(&f, FAULTY_NOTHING, 0, 0);
    pe_host_init(&host, &f.env);
    pe_epoch_init(epoch, &host, NULL);
    peri_status status = pe_segr_open(&r, &host, path, *(const int *)arg);
    if (status == PERI_OK)
        status = pe_segr_expect(r, KIND, 1, 0);
    if (status == PERI_OK)
        status = pe_keys_open(&k, &host, epoch, r);
    if (status == PERI_OK) {
        use_rows(r, use);
        use_keys(k, use);
    } else {
        corrupt_answer(use, status, NULL, 0);
    }
    pe_keys_destroy(k);
    pe_segr_close(r);
    pe_epoch_destroy(epoch);
    free(epoch);
    corrupt_must(use, faulty_clean(&f));
}

static int make_whole(void **state)
{
    (void)state;
    const char *path = scratch("whole");
    pe_segment_id id = {.kind = KIND, .version_major = 1};
    pe_host host;
    static pe_epoch epoch;
    pe_segw *w;
    pe_keys *k;
    pe_rng rng = {5};
    char text[64];
    unsigned char *rows = malloc((size_t)N_ROWS * ROW);
    for (size_t i = 0; i < (size_t)N_ROWS * ROW; i++)
        rows[i] = (unsigned char)pe_rng_next(&rng);
    assert_int_equal(pe_host_init(&host, NULL), PERI_OK);
    pe_epoch_init(&epoch, &host, NULL);
    assert_int_equal(pe_keys_create(&k, &host, &epoch), PERI_OK);
    for (unsigned i = 0; i < N_KEYS; i++) {
        size_t n = key_text(i, text);
        assert_int_equal(pe_keys_reserve(k, 1, n), PERI_OK);
        pe_keys_set(k, (peri_slice){text, n}, i);
    }
    assert_int_equal(pe_keys_count(k), N_KEYS);
    assert_int_equal(pe_segw_open(&w, &host, path, &id), PERI_OK);
    assert_int_equal(pe_keys_save(k, w), PERI_OK);
    pe_segw_begin(w, ROWS, 1);
    pe_segw_put(w, rows, (size_t)N_ROWS * ROW);
    pe_segw_end(w);
    assert_int_equal(pe_segw_commit(w), PERI_OK);
    pe_keys_destroy(k);
    pe_epoch_destroy(&epoch);
    free(rows);
    blob b = blob_load(path);
    whole = b.data;
    whole_size = b.size;
    unlink(path);
    return 0;
}

static int drop_whole(void **state)
{
    free(whole);
    return scratch_remove(state);
}

static corrupt_result run(int map, int reseal, corrupt_kind kind, uint64_t count)
{
    static const char *const names[] = {"segment copied", "segment mapped", "segment mapped cow"};
    corrupt_plan plan = {.name = names[map],
                         .path = scratch("damaged"),
                         .file = whole,
                         .size = whole_size,
                         .use = use_segment,
                         .arg = &map,
                         .reseal = reseal,
                         .seed = 100 + (uint64_t)map};
    return corrupt_run(&plan, kind, count);
}

static void assert_refused(corrupt_result r)
{
    assert_int_equal(r.refused, r.tried);
    assert_int_equal(r.touched, 0);
}

static void every_bit_of_the_header_counts(void **state)
{
    (void)state;
    for (int map = 0; map < 3; map++)
        assert_refused(run(map, 0, CORRUPT_BITS, 0));
}

static void every_byte_counts(void **state)
{
    (void)state;
    for (int map = 0; map < 3; map++)
        assert_refused(run(map, 0, CORRUPT_BYTES, corrupt_scale(7000)));
}

static void every_shorter_file_is_refused(void **state)
{
    (void)state;
    for (int map = 0; map < 3; map++)
        assert_refused(run(map, 0, CORRUPT_CUTS, 64));
}

static void structure_holds_where_checksums_do_not_help(void **state)
{
    (void)state;
    for (int map = 0; map < 3; map++)
        for (int kind = CORRUPT_BYTES; kind <= CORRUPT_NUMBERS; kind++) {
            if (kind == CORRUPT_CUTS)
                continue;
            corrupt_result r = run(map, 1, (corrupt_kind)kind, corrupt_scale(4000));
            assert_int_equal(r.crashed + r.hung + r.touched, 0);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bit_of_the_header_counts),
        cmocka_unit_test(every_byte_counts),
        cmocka_unit_test(every_shorter_file_is_refused),
        cmocka_unit_test(structure_holds_where_checksums_do_not_help),
    };
    return cmocka_run_group_tests_name("corrupt: segment", tests, make_whole, drop_whole);
}
