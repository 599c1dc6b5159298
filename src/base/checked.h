/* Sizes that come from files or callers go through these: 0 on success, 1 on overflow. */
#ifndef PE_CHECKED_H
#define PE_CHECKED_H

#include <stddef.h>
#include <stdint.h>

static inline int pe_mul_size(size_t a, size_t b, size_t *out)
{
    return __builtin_mul_overflow(a, b, out);
}

static inline int pe_add_size(size_t a, size_t b, size_t *out)
{
    return __builtin_add_overflow(a, b, out);
}

static inline size_t pe_round_up(size_t n, size_t align) /* align: a power of two */
{
    return (n + align - 1) & ~(align - 1);
}

#endif
