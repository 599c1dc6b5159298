/* The harness must be able to fail. A toy kind of file is read by readers with one planted fault
 * each, and each fault must be found; the sound reader of the same file must come out clean. */
#define _GNU_SOURCE
#include "base/host.h"
#include "corrupt/corrupt.h"
#include "persist/bytes.h"
#include "persist/segment.h"
#include "scratch.h"

#include <fcntl.h>
#include <signal.h>

/* A list in a section, chained by numbers: entries of {next (4), value (4)}, the chain starts at 0
 * and ends at the entry that names itself. */
#define TOY PE_FOURCC('T', 'O', 'Y', 'S')

enum { ENTRIES = 2000, ENTRY = 8 };

typedef enum fault {
    SOUND,
    NO_CHECKSUM,     /* looks at the bytes without verifying them */
    NO_BOUND,        /* follows a number without asking whether it lies in the section */
    NO_END,          /* follows the chain without counting the steps */
    WRITES_THE_FILE, /* marks the file it opens */
    LEAKS,
} fault;

static unsigned char *toy;
static size_t toy_size;

/* The sum of the values along the chain. */
static peri_status walk(pe_segr *r, const pe_section *s, fault f, uint64_t *sum)
{
    uint64_t at = 0, n = s->size / ENTRY;
    *sum = 0;
    for (uint64_t steps = 0;; steps++) {
        if (f != NO_BOUND && at >= n)
            return pe_segr_fault(r, s, 0, "entry %llu of %llu", (unsigned long long)at,
                                 (unsigned long long)n);
        if (f != NO_END && steps > n)
            return pe_segr_fault(r, s, 0, "the chain has no end");
        const unsigned char *entry = s->data + at * ENTRY;
        *sum += pe_get_le32(entry + 4) * (steps + 1);
        if (pe_get_le32(entry) == at)
            return PERI_OK;
        at = pe_get_le32(entry);
    }
}

static void use_toy(const char *path, corrupt_use *use, const void *arg)
{
    fault f = *(const fault *)arg;
    pe_host host;
    pe_segr *r;
    uint64_t sum = 0;
    pe_host_init(&host, NULL);
    peri_status status = pe_segr_open(&r, &host, path, PE_SEGMENT_MAP);
    if (status != PERI_OK) {
        corrupt_answer(use, status, NULL, 0);
        return;
    }
    if (f == WRITES_THE_FILE) {
        int fd = open(path, O_WRONLY);
        if (fd >= 0 && pwrite(fd, "!", 1, 200) == 1)
            close(fd);
    }
    const pe_section *s = pe_segr_find(r, TOY);
    if (!s)
        status = PERI_ERR_CORRUPT;
    if (status == PERI_OK && f != NO_CHECKSUM)
        status = pe_segr_verify(r, s);
    if (status == PERI_OK)
        status = walk(r, s, f, &sum);
    corrupt_answer(use, status, &sum, sizeof sum);
    if (f != LEAKS || use->learning || status == PERI_OK)
        pe_segr_close(r);
    corrupt_must(use, atomic_load(&host.heap) == 0 && atomic_load(&host.mapped) == 0);
}

static int make_toy(void **state)
{
    (void)state;
    const char *path = scratch("toy");
    pe_segment_id id = {.kind = TOY, .version_major = 1};
    pe_host host;
    pe_segw *w;
    unsigned char *list = malloc(ENTRIES * ENTRY);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        pe_put_le32(list + (size_t)i * ENTRY, i + 1 < ENTRIES ? i + 1 : i);
        pe_put_le32(list + (size_t)i * ENTRY + 4, i * 2654435761u);
    }
    assert_int_equal(pe_host_init(&host, NULL), PERI_OK);
    assert_int_equal(pe_segw_open(&w, &host, path, &id), PERI_OK);
    pe_segw_begin(w, TOY, 0);
    pe_segw_put(w, list, ENTRIES * ENTRY);
    pe_segw_end(w);
    assert_int_equal(pe_segw_commit(w), PERI_OK);
    free(list);
    blob b = blob_load(path);
    toy = b.data;
    toy_size = b.size;
    unlink(path);
    return 0;
}

static int drop_toy(void **state)
{
    free(toy);
    return scratch_remove(state);
}

static corrupt_result run(fault f, int reseal, corrupt_kind kind, uint64_t count)
{
    static const char *const names[] = {"control: sound",    "control: no checksum",
                                        "control: no bound", "control: no end",
                                        "control: writes",   "control: leaks"};
    corrupt_plan plan = {.name = names[f],
                         .path = scratch("damaged"),
                         .file = toy,
                         .size = toy_size,
                         .use = use_toy,
                         .arg = &f,
                         .reseal = reseal,
                         .seed = 11,
                         .seconds = 1,
                         .stop_after = 3};
    return corrupt_run(&plan, kind, count);
}

static void a_sound_reader_comes_out_clean(void **state)
{
    (void)state;
    corrupt_result r = run(SOUND, 0, CORRUPT_BYTES, 3000);
    assert_int_equal(r.tried, 3000);
    assert_int_equal(r.refused, 3000); /* there is no byte that does not count */
    r = run(SOUND, 1, CORRUPT_NUMBERS, 3000);
    assert_int_equal(r.crashed + r.hung + r.touched, 0);
    assert_true(r.wrong > 0); /* good checksums over other numbers: who wrote them meant them */
    r = run(SOUND, 0, CORRUPT_BITS, 0);
    assert_int_equal(r.refused, 2048);
    r = run(SOUND, 0, CORRUPT_CUTS, 64);
    assert_int_equal(r.refused, r.tried);
}

static void wrong_answers_are_seen(void **state)
{
    (void)state;
    corrupt_result r = run(NO_CHECKSUM, 0, CORRUPT_BYTES, 1000);
    assert_true(r.wrong > 100);
}

static void a_missing_bound_check_is_seen(void **state)
{
    (void)state;
    corrupt_result r = run(NO_BOUND, 1, CORRUPT_NUMBERS, 2000);
    assert_true(r.crashed > 0);
}

static void an_endless_loop_is_seen(void **state)
{
    (void)state;
    corrupt_result r = run(NO_END, 1, CORRUPT_NUMBERS, 2000);
    assert_true(r.hung > 0);
}

static void a_file_that_is_written_to_is_seen(void **state)
{
    (void)state;
    /* Only what opens is written to; damage behind the header's reach that one opening misses. */
    corrupt_result r = run(WRITES_THE_FILE, 0, CORRUPT_BYTES, 100);
    assert_true(r.touched > 0);
}

static void a_leak_is_seen(void **state)
{
    (void)state;
    corrupt_result r = run(LEAKS, 0, CORRUPT_BYTES, 100);
    assert_true(r.wrong > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_reader_comes_out_clean),
        cmocka_unit_test(wrong_answers_are_seen),
        cmocka_unit_test(a_missing_bound_check_is_seen),
        cmocka_unit_test(an_endless_loop_is_seen),
        cmocka_unit_test(a_file_that_is_written_to_is_seen),
        cmocka_unit_test(a_leak_is_seen),
    };
    return cmocka_run_group_tests_name("corrupt: the harness itself", tests, make_toy, drop_toy);
}
