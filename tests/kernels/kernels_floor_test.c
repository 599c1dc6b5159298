/* A floor under the throughput of each level, as a multiple of the C level's in the same run. All
 * tests of equality pass when a SIMD level runs scalar code by mistake; this one does not. The
 * floors lie at about half of what Zen 5 measures, and the best of several tries counts, so that a
 * busy machine does not fail them. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/kernels.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITISED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITISED 1
#endif
#endif
#ifndef SANITISED
#define SANITISED 0
#endif

enum { DIM = 768, ROWS = 8, TRIES = 25, TURNS = 200 };

typedef struct level_floor {
    const char *level;
    double times_c[PE_OP_COUNT][PE_ELEM_COUNT]; /* `four`: f32, f16, bf16, i8, b1 */
    double tile;
} level_floor;

static const level_floor FLOORS[] = {
    {"avx2", {{1.3, 4, 1.3, 1.4, 1.8}, {1.3, 4, 1.3, 2, 1.8}}, 1.7},
    {"avx512", {{2.5, 8, 2, 2.2, 2}, {2, 8, 2, 3.5, 2}}, 3},
    {"avx512vnni", {{2.5, 8, 2, 2.5, 3}, {2, 8, 2, 6, 3}}, 3},
};

static unsigned char rows[ROWS * DIM * 4] __attribute__((aligned(64)));
static float query[DIM * 6] __attribute__((aligned(64)));
static float out[ROWS * 6];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double time_of_four(const pe_kernels *k, int op, int elem)
{
    static const size_t bits[] = {32, 16, 16, 8, 1};
    const size_t stride = DIM * bits[elem] / 8;
    const double begin = now();
    for (int t = 0; t < TURNS; t++) {
        for (size_t r = 0; r < ROWS; r += 4) {
            const void *four[4] = {rows + r * stride, rows + (r + 1) * stride,
                                   rows + (r + 2) * stride, rows + (r + 3) * stride};
            k->dist[op][elem].four(query, four, DIM, out + r);
        }
    }
    return now() - begin;
}

static double time_of_tile(const pe_kernels *k)
{
    const double begin = now();
    for (int t = 0; t < TURNS / 4; t++)
        k->tile_dot_f32(query, DIM, 6, (const float *)(const void *)rows, DIM, ROWS, DIM, out,
                        ROWS);
    return now() - begin;
}

/* How many times as fast as plain C, both at their best, taken in turns. */
static double times_c(const pe_kernels *k, const pe_kernels *c, int op, int elem)
{
    double best_k = 1e9, best_c = 1e9;
    for (int t = 0; t < TRIES; t++) {
        const double a = op < PE_OP_COUNT ? time_of_four(k, op, elem) : time_of_tile(k);
        const double b = op < PE_OP_COUNT ? time_of_four(c, op, elem) : time_of_tile(c);
        best_k = a < best_k ? a : best_k;
        best_c = b < best_c ? b : best_c;
    }
    return best_c / best_k;
}

static void the_level_is_well_above_plain_c(void **state)
{
    static const char *const ops[] = {"l2", "dot"};
    static const char *const elems[] = {"f32", "f16", "bf16", "i8", "b1"};
    const level_floor *floor = *state;
    const pe_kernels *k = pe_kernels_level(floor->level), *c = pe_kernels_level("c");
    if (!k || SANITISED)
        skip();
    int below = 0;
    for (int op = 0; op < PE_OP_COUNT; op++) {
        for (int elem = 0; elem < PE_ELEM_COUNT; elem++) {
            const double x = times_c(k, c, op, elem);
            printf("%s %s %s four: %.1fx C, at least %.1fx wanted\n", floor->level, ops[op],
                   elems[elem], x, floor->times_c[op][elem]);
            below += x < floor->times_c[op][elem];
        }
    }
    const double x = times_c(k, c, PE_OP_COUNT, 0);
    printf("%s tile_dot_f32: %.1fx C, at least %.1fx wanted\n", floor->level, x, floor->tile);
    below += x < floor->tile;
    assert_int_equal(below, 0);
}

int main(void)
{
    enum { COUNT = sizeof FLOORS / sizeof *FLOORS };
    struct CMUnitTest tests[COUNT];
    char names[COUNT][64];
    /* Small floats, whose halves are small as f16 and bf16 too: no denormals in any reading. */
    for (size_t i = 0; i < ROWS * DIM; i++)
        ((float *)(void *)rows)[i] = (float)((i * 2654435761u >> 7) % 2000 + 24) / 1024.0f;
    for (size_t i = 0; i < DIM * 6; i++)
        query[i] = (float)((i * 2246822519u >> 9) % 2000 + 24) / 1024.0f;
    for (size_t i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "%s is well above plain C", FLOORS[i].level);
        tests[i] = (struct CMUnitTest){names[i], the_level_is_well_above_plain_c, NULL, NULL,
                                       (void *)(uintptr_t)&FLOORS[i]};
    }
    return _cmocka_run_group_tests("kernels floor", tests, COUNT, NULL, NULL);
}
