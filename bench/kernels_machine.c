/* Yardsticks: FMA peak and read bandwidth by the widest vectors of the level under test. The loops
 * read with loads that feed one cheap operation each, so that nothing but the loads can bound them.
 */
#include "kernels_machine.h"

#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static volatile float sink;

/* Plain C, four floats a vector: what the compiler makes of the floor. */
typedef float four_floats __attribute__((vector_size(16)));

static void plain_fma(size_t n)
{
    four_floats a[12], x = {0.5f, 0.5f, 0.5f, 0.5f}, y = {0.25f, 0.25f, 0.25f, 0.25f};
    __asm__ volatile("" : "+m"(x), "+m"(y));
    for (int k = 0; k < 12; k++)
        a[k] = y;
    for (size_t i = 0; i < n; i++) {
#pragma GCC unroll 12
        for (int k = 0; k < 12; k++)
            a[k] = a[k] * x + y;
    }
    for (int k = 0; k < 12; k++)
        sink = a[k][0];
}

typedef unsigned four_words __attribute__((vector_size(16)));

static void plain_read(const void *buffer, size_t bytes, int ahead, int streams)
{
    four_words a[4] = {{0}};
    const size_t part = bytes / (size_t)streams / 64 * 64;
    for (size_t i = 0; i < part; i += 64) {
        for (int s = 0; s < streams; s++) {
            const char *p = (const char *)buffer + (size_t)s * part + i;
            if (ahead)
                __builtin_prefetch(p + ahead);
            const four_words *v = (const void *)p;
            a[0] |= v[0];
            a[1] |= v[1];
            a[2] |= v[2];
            a[3] |= v[3];
        }
    }
    sink = (float)(a[0] | a[1] | a[2] | a[3])[0];
}

static void (*fma_loop)(size_t n) = plain_fma;
static void (*read_loop)(const void *, size_t, int, int) = plain_read;
static double flops_per_turn = 12 * 4 * 2;

#if defined(__x86_64__)

__attribute__((target("avx2,fma"))) static void avx2_fma(size_t n)
{
    __m256 x = _mm256_set1_ps(0.5f), y = _mm256_set1_ps(0.25f), a[12];
    __asm__ volatile("" : "+x"(x), "+x"(y));
#pragma GCC unroll 12
    for (int k = 0; k < 12; k++)
        a[k] = y;
    for (size_t i = 0; i < n; i++) {
#pragma GCC unroll 12
        for (int k = 0; k < 12; k++) {
            a[k] = _mm256_fmadd_ps(a[k], x, y);
            __asm__ volatile("" : "+x"(a[k]));
        }
    }
#pragma GCC unroll 12
    for (int k = 0; k < 12; k++)
        sink = _mm256_cvtss_f32(a[k]);
}

__attribute__((target("avx2"))) static void avx2_read(const void *buffer, size_t bytes, int ahead,
                                                      int streams)
{
    __m256i a[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                    _mm256_setzero_si256()};
    const size_t part = bytes / (size_t)streams / 128 * 128;
    for (size_t i = 0; i < part; i += 128) {
        for (int s = 0; s < streams; s++) {
            const char *p = (const char *)buffer + (size_t)s * part + i;
            if (ahead) {
                __builtin_prefetch(p + ahead);
                __builtin_prefetch(p + ahead + 64);
            }
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++)
                a[k] = _mm256_or_si256(a[k], _mm256_loadu_si256((const void *)(p + 32 * k)));
        }
    }
    const __m256i all = _mm256_or_si256(_mm256_or_si256(a[0], a[1]), _mm256_or_si256(a[2], a[3]));
    sink = (float)_mm256_extract_epi32(all, 0);
}

__attribute__((target("avx512f"))) static void avx512_fma(size_t n)
{
    __m512 x = _mm512_set1_ps(0.5f), y = _mm512_set1_ps(0.25f), a[12];
    __asm__ volatile("" : "+v"(x), "+v"(y));
#pragma GCC unroll 12
    for (int k = 0; k < 12; k++)
        a[k] = y;
    for (size_t i = 0; i < n; i++) {
#pragma GCC unroll 12
        for (int k = 0; k < 12; k++) {
            a[k] = _mm512_fmadd_ps(a[k], x, y);
            __asm__ volatile("" : "+v"(a[k]));
        }
    }
#pragma GCC unroll 12
    for (int k = 0; k < 12; k++)
        sink = _mm512_cvtss_f32(a[k]);
}

__attribute__((target("avx512f"))) static void avx512_read(const void *buffer, size_t bytes,
                                                           int ahead, int streams)
{
    __m512i a[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                    _mm512_setzero_si512()};
    const size_t part = bytes / (size_t)streams / 256 * 256;
    for (size_t i = 0; i < part; i += 256) {
        for (int s = 0; s < streams; s++) {
            const char *p = (const char *)buffer + (size_t)s * part + i;
            if (ahead) {
#pragma GCC unroll 4
                for (int k = 0; k < 4; k++)
                    __builtin_prefetch(p + ahead + 64 * k);
            }
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++)
                a[k] = _mm512_or_si512(a[k], _mm512_loadu_si512(p + 64 * k));
        }
    }
    const __m512i all = _mm512_or_si512(_mm512_or_si512(a[0], a[1]), _mm512_or_si512(a[2], a[3]));
    sink = (float)_mm512_reduce_add_epi32(all);
}

#endif

const char *machine_use(const char *level)
{
#if defined(__x86_64__)
    if (strncmp(level, "avx512", 6) == 0) {
        fma_loop = avx512_fma;
        read_loop = avx512_read;
        flops_per_turn = 12 * 16 * 2;
        return "avx512";
    }
    if (strcmp(level, "avx2") == 0) {
        fma_loop = avx2_fma;
        read_loop = avx2_read;
        flops_per_turn = 12 * 8 * 2;
        return "avx2";
    }
#endif
    (void)level;
    return "plain";
}

double machine_fma(void)
{
    const size_t turns = 100000;
    const double start = bench_now();
    fma_loop(turns);
    return flops_per_turn * (double)turns / (bench_now() - start);
}

double machine_read(const void *buffer, size_t bytes, size_t passes, const char **way)
{
    static const struct {
        const char *name;
        int ahead, streams;
    } ways[] = {
        {"one stream", 0, 1},
        {"one stream, prefetch 2 KiB ahead", 2048, 1},
        {"one stream, prefetch 4 KiB ahead", 4096, 1},
        {"two streams", 0, 2},
        {"four streams", 0, 4},
        {"four streams, prefetch 1 KiB ahead", 1024, 4},
    };
    double best = 0;
    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
        read_loop(buffer, bytes < 65536 ? bytes : 65536, ways[w].ahead, ways[w].streams);
        const double start = bench_now();
        for (size_t p = 0; p < passes; p++)
            read_loop(buffer, bytes, ways[w].ahead, ways[w].streams);
        const double rate = (double)bytes * (double)passes / (bench_now() - start);
        if (rate > best) {
            best = rate;
            *way = ways[w].name;
        }
    }
    return best;
}
