/* Seeded pseudo-random numbers and integer mixing (SplitMix64, Steele et al., OOPSLA 2014). */
#ifndef PE_RNG_H
#define PE_RNG_H

#include <stdint.h>

static inline uint64_t pe_mix64(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

typedef struct pe_rng {
    uint64_t state;
} pe_rng;

static inline uint64_t pe_rng_next(pe_rng *r)
{
    r->state += 0x9e3779b97f4a7c15u;
    return pe_mix64(r->state);
}

/* Uniform in [0, n), n > 0; the bias of 2^-32 n is of no account for sampling. */
static inline uint32_t pe_rng_below(pe_rng *r, uint32_t n)
{
    return (uint32_t)((pe_rng_next(r) >> 32) * n >> 32);
}

/* Uniform in (0, 1]. */
static inline double pe_rng_unit(pe_rng *r)
{
    return (double)((pe_rng_next(r) >> 11) + 1) * 0x1p-53;
}

#endif
