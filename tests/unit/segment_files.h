/* The segment files that the tests of segments make. */
#ifndef PE_SEGMENT_FILES_H
#define PE_SEGMENT_FILES_H

#include "base/host.h"
#include "base/rng.h"
#include "persist/segment.h"
#include "scratch.h"

#define KIND   PE_FOURCC('T', 'E', 'S', 'T')
#define TAG(i) PE_FOURCC('S', 'E', 'C', 'A' + (i))

static const size_t sizes[] = {0, 1, 63, 64, 65535, 65536, 65537, (1 << 20) + 3, 5 << 20, 17};
enum { N_SIZES = sizeof sizes / sizeof *sizes, BIGGEST = 5 << 20 };

static pe_host host;
static unsigned char *bytes; /* BIGGEST + 1 of noise; section i begins at byte i of it */

static inline int setup(void **state)
{
    (void)state;
    pe_rng rng = {1};
    assert_int_equal(pe_host_init(&host, NULL), PERI_OK);
    bytes = malloc(BIGGEST + N_SIZES + 8);
    for (size_t i = 0; i < BIGGEST + N_SIZES; i += 8) {
        uint64_t v = pe_rng_next(&rng);
        memcpy(bytes + i, &v, 8);
    }
    return 0;
}

static inline int teardown(void **state)
{
    free(bytes);
    assert_int_equal(atomic_load(&host.heap), 0);
    assert_int_equal(atomic_load(&host.mapped), 0);
    return scratch_remove(state);
}

static inline pe_segment_id test_id(void)
{
    pe_segment_id id = {.kind = KIND, .version_major = 2, .version_minor = 3, .generation = 77};
    memset(id.uuid, 0x5a, sizeof id.uuid);
    return id;
}

/* All sizes, every other section mapped, in pieces of random length. */
static inline void write_all_sizes(const char *path, uint64_t seed)
{
    pe_segment_id id = test_id();
    pe_segw *w;
    pe_rng rng = {seed};
    assert_int_equal(pe_segw_open(&w, &host, path, &id), PERI_OK);
    for (unsigned i = 0; i < N_SIZES; i++) {
        assert_int_equal(pe_segw_begin(w, TAG(i), i % 2), PERI_OK);
        for (size_t done = 0, part; done < sizes[i]; done += part) {
            uint32_t most = 1u << pe_rng_below(&rng, 23);
            part = seed ? 1 + pe_rng_below(&rng, most) : sizes[i];
            part = part < sizes[i] - done ? part : sizes[i] - done;
            assert_int_equal(pe_segw_put(w, bytes + i + done, part), PERI_OK);
        }
        assert_int_equal(pe_segw_end(w), PERI_OK);
    }
    assert_int_equal(pe_segw_commit(w), PERI_OK);
}

/* One section of `size` bytes, 64-byte aligned. */
static inline void write_small(const char *path, size_t size)
{
    pe_segment_id id = test_id();
    pe_segw *w;
    assert_int_equal(pe_segw_open(&w, &host, path, &id), PERI_OK);
    assert_int_equal(pe_segw_begin(w, TAG(0), 0), PERI_OK);
    assert_int_equal(pe_segw_put(w, bytes, size), PERI_OK);
    assert_int_equal(pe_segw_end(w), PERI_OK);
    assert_int_equal(pe_segw_commit(w), PERI_OK);
}

/* Open, verify and read everything; the first error. */
static inline peri_status open_and_verify(const char *path, int map)
{
    pe_segr *r;
    peri_status status = pe_segr_open(&r, &host, path, map);
    if (status != PERI_OK)
        return status;
    for (unsigned i = 0; i < N_SIZES && status == PERI_OK; i++) {
        const pe_section *s = pe_segr_find(r, TAG(i));
        if (s)
            status = pe_segr_verify(r, s);
    }
    pe_segr_close(r);
    return status;
}

#endif
