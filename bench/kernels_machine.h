/* What the machine can do, measured: the yardsticks that kernels_bench.c holds the kernels against.
 */
#ifndef PE_BENCH_KERNELS_MACHINE_H
#define PE_BENCH_KERNELS_MACHINE_H

#include <stddef.h>

/* Seconds of this thread's processor time: what other processes take of the core does not count. */
double bench_now(void);

/* Names of the vectors used: "avx512", "avx2" or "plain"; chosen by the level under test. */
const char *machine_use(const char *level);

/* f32 operations a second, two to an FMA, from registers alone. */
double machine_fma(void);

/* Bytes a second read from a buffer in sequence, `passes` times over: the best of several ways of
 * reading it (one, two or four streams, with prefetch ahead). *way names the best. */
double machine_read(const void *buffer, size_t bytes, size_t passes, const char **way);

#endif
