/* The table: C fills it, each level that the CPU has overwrites what it does better. To add a
 * level: a file that fills, a line in LEVELS, its test of the CPU, its flags in meson.build. */
#include <pthread.h>
#include <stdlib.h>

#include "kernels/kernels_level.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

typedef struct level {
    const char *name;
    void (*fill)(pe_kernels *k);
    int (*cpu_has)(void);
} level;

static int always(void)
{
    return 1;
}

#if defined(__x86_64__)

/* The bits of cpuid that tell of an instruction set say nothing of whether the system saves its
 * registers; xgetbv does. */
static uint64_t saved_registers(void)
{
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (uint64_t)d << 32 | a;
}

enum { SAVED_YMM = 0x6, SAVED_ZMM = 0xe6 };

static int cpu_has_avx2(void)
{
    uint32_t a, b, c, d;
    if ((saved_registers() & SAVED_YMM) != SAVED_YMM || !__get_cpuid(1, &a, &b, &c, &d))
        return 0;
    const uint32_t first = bit_FMA | bit_F16C;
    if ((c & first) != first || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    return (b & bit_AVX2) != 0;
}

static int cpu_has_avx512(void)
{
    uint32_t a, b, c, d;
    if (!cpu_has_avx2() || (saved_registers() & SAVED_ZMM) != SAVED_ZMM ||
        !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    const uint32_t all = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    return (b & all) == all;
}

static int cpu_has_avx512vnni(void)
{
    uint32_t a, b, c, d;
    if (!cpu_has_avx512() || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    const uint32_t all = bit_AVX512VNNI | bit_AVX512VPOPCNTDQ;
    return (c & all) == all;
}

#elif defined(__aarch64__)

static int cpu_has_neon_dot(void)
{
    enum { HAS_ASIMDDP = 1 << 20 };
    return (getauxval(AT_HWCAP) & HAS_ASIMDDP) != 0;
}

#endif

/* Lowest first; each stands on those before it. */
static const level LEVELS[] = {
    {"c", pe_kernels_fill_c, always},
#if defined(__x86_64__)
    {"avx2", pe_kernels_fill_avx2, cpu_has_avx2},
    {"avx512", pe_kernels_fill_avx512, cpu_has_avx512},
    {"avx512vnni", pe_kernels_fill_avx512vnni, cpu_has_avx512vnni},
#elif defined(__aarch64__)
    {"neon", pe_kernels_fill_neon, always},
    {"neon-dot", pe_kernels_fill_neon_dot, cpu_has_neon_dot},
#endif
};
enum { LEVEL_COUNT = sizeof LEVELS / sizeof LEVELS[0] };

/* One table for each level as the cap; those above what the CPU has stay empty. */
static pe_kernels tables[LEVEL_COUNT];
static const pe_kernels *chosen;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static size_t level_index(const char *name)
{
    size_t i = 0;
    while (i < LEVEL_COUNT && strcmp(LEVELS[i].name, name) != 0)
        i++;
    return i;
}

static void fill_tables(void)
{
    size_t best = 0;
    for (size_t i = 0; i < LEVEL_COUNT && LEVELS[i].cpu_has(); i++) {
        if (i > 0)
            tables[i] = tables[i - 1];
        LEVELS[i].fill(&tables[i]);
        best = i;
    }
    const char *mask = getenv("PERI_CPU");
    const size_t cap = mask ? level_index(mask) : LEVEL_COUNT;
    chosen = &tables[cap < best ? cap : best];
}

const pe_kernels *pe_kernels_get(void)
{
    pthread_once(&once, fill_tables);
    return chosen;
}

const pe_kernels *pe_kernels_level(const char *name)
{
    pthread_once(&once, fill_tables);
    const size_t i = level_index(name);
    return i < LEVEL_COUNT && tables[i].level ? &tables[i] : NULL;
}

const char *pe_kernels_level_name(size_t i)
{
    return i < LEVEL_COUNT ? LEVELS[i].name : NULL;
}
