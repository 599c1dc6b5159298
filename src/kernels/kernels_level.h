/* What the levels share: how each one fills the table, and small helpers. Not for other folders. */
#ifndef PE_KERNELS_LEVEL_H
#define PE_KERNELS_LEVEL_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"

/* Each overwrites what it does better than the levels before it. */
void pe_kernels_fill_c(pe_kernels *k);
void pe_kernels_fill_avx2(pe_kernels *k);
void pe_kernels_fill_avx512(pe_kernels *k);
void pe_kernels_fill_avx512vnni(pe_kernels *k);
void pe_kernels_fill_neon(pe_kernels *k);
void pe_kernels_fill_neon_dot(pe_kernels *k);

/* 1 - cos in double, scaled against overflow and underflow: for pairs whose f32 norms are zero,
 * very large or very small. The SIMD levels call it on that rare path only. */
float pe_cosine_rescue_f32(const void *q, const void *row, uint32_t dim);
float pe_cosine_rescue_f16(const void *q, const void *row, uint32_t dim);
float pe_cosine_rescue_bf16(const void *q, const void *row, uint32_t dim);

/* The same from sums that are exact: squared norms qq and rr, either may be 0. */
float pe_cosine_of_sums(double qr, double qq, double rr);

#define PE_INLINE static inline __attribute__((always_inline))

#if defined(__clang__)
#define PE_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PE_UNROLL _Pragma("GCC unroll 16")
#endif

/* Enters the four calls that kernels_rows.h made under a name into the table. */
#define PE_FILL(k, op, elem, name)                                                                 \
    (k)->dist[op][elem] = (pe_dist)                                                                \
    {                                                                                              \
        name##_one, name##_four, name##_ids, name##_run                                            \
    }

/* What kernels_rows.h asks for, for a kernel of the plain sort: nothing worked out once per query,
 * and part_(acc, q, r) adding what a loaded step of query and row contribute. query_, acc_    their
 * vector types ops_            ops__zero(), ops__add(a, b) on accumulators q_, r_ load_X(p, i) and
 * tail_X(p, i, n) of query and row result_         result__sum(a), result__sum4(a, out): the lanes'
 * sums as results bits_           of an element of the row */
#define PE_PLAIN(name, query_, acc_, ops_, part_, q_, r_, result_, bits_)                          \
    typedef query_ name##_query;                                                                   \
    typedef acc_ name##_acc;                                                                       \
    typedef char name##_once;                                                                      \
    PE_INLINE size_t name##_bytes(uint32_t dim)                                                    \
    {                                                                                              \
        return (size_t)dim * (bits_) / 8;                                                          \
    }                                                                                              \
    PE_INLINE char name##_prepare(const void *q, uint32_t dim)                                     \
    {                                                                                              \
        (void)q;                                                                                   \
        (void)dim;                                                                                 \
        return 0;                                                                                  \
    }                                                                                              \
    PE_INLINE acc_ name##_zero(void)                                                               \
    {                                                                                              \
        return ops_##_zero();                                                                      \
    }                                                                                              \
    PE_INLINE acc_ name##_join(acc_ a, acc_ b)                                                     \
    {                                                                                              \
        return ops_##_add(a, b);                                                                   \
    }                                                                                              \
    PE_INLINE query_ name##_load(const void *q, size_t i)                                          \
    {                                                                                              \
        return load_##q_(q, i);                                                                    \
    }                                                                                              \
    PE_INLINE query_ name##_load_tail(const void *q, size_t i, size_t n)                           \
    {                                                                                              \
        return tail_##q_(q, i, n);                                                                 \
    }                                                                                              \
    PE_INLINE acc_ name##_step(acc_ a, query_ q, const void *row, size_t i)                        \
    {                                                                                              \
        return part_(a, q, load_##r_(row, i));                                                     \
    }                                                                                              \
    PE_INLINE acc_ name##_step_tail(acc_ a, query_ q, const void *row, size_t i, size_t n)         \
    {                                                                                              \
        return part_(a, q, tail_##r_(row, i, n));                                                  \
    }                                                                                              \
    PE_INLINE float name##_finish(char once, acc_ a)                                               \
    {                                                                                              \
        (void)once;                                                                                \
        return result_##_sum(a);                                                                   \
    }                                                                                              \
    PE_INLINE void name##_finish4(char once, const acc_ *a, float *out)                            \
    {                                                                                              \
        (void)once;                                                                                \
        result_##_sum4(a, out);                                                                    \
    }

enum { PE_LINE = 64 };

/* n bytes, fewer than 16, and zeros, put together from whole words within them: for tails where
 * there are no masked loads. Little-endian, as all levels but C are. */
typedef struct pe_part {
    uint64_t low, high;
} pe_part;

PE_INLINE pe_part pe_part_of_16(const unsigned char *p, size_t n)
{
    pe_part part = {0, 0};
    if (n >= 8) {
        memcpy(&part.low, p, 8);
        if (n > 8) { /* the last eight bytes, those before the ninth shifted out */
            memcpy(&part.high, p + n - 8, 8);
            part.high >>= 8 * (16 - n);
        }
    } else if (n >= 4) {
        uint32_t first, last;
        memcpy(&first, p, 4);
        memcpy(&last, p + n - 4, 4);
        part.low = first | (uint64_t)last << 8 * (n - 4);
    } else if (n > 0) {
        part.low = p[0] | (uint64_t)p[n / 2] << 8 * (n / 2) | (uint64_t)p[n - 1] << 8 * (n - 1);
    }
    return part;
}

/* How many rows ahead, and how many lines of each, `ids` prefetches. Measured on Zen 5 (rows in 512
 * MiB, batches of 32): all lines up to 24, which takes 768-d i8 from 95 to 53 ns a row; beyond that
 * the fill buffers are full and the hardware streamer does better from the first two (784-d f32:
 * 125 without, 151 with all, 113 with two). Small rows want more of them in flight (128-d i8: 27
 * without, 18 with 8 ahead, 14 with 16). */
typedef struct pe_ahead {
    size_t rows, lines;
} pe_ahead;

PE_INLINE pe_ahead pe_ahead_for(const pe_rowview *v, size_t row_bytes)
{
    size_t lines = (row_bytes + PE_LINE - 1) / PE_LINE;
    if (v->stride % PE_LINE != 0)
        lines += 1; /* most rows begin inside a line and end one further */
    pe_ahead a = {lines <= 4 ? 16 : lines <= 16 ? 8 : 4, lines <= 24 ? lines : 2};
    return a;
}

PE_INLINE void pe_prefetch_row(const unsigned char *row, size_t lines)
{
    for (size_t i = 0; i < lines; i++) {
        __builtin_prefetch(row + i * PE_LINE, 0, 3);
        /* gcc 12 may fold such a loop to its first prefetch; a fence for the compiler alone, which
         * emits nothing, keeps them all. tests/kernels/check_objects.py counts them. */
        atomic_signal_fence(memory_order_seq_cst);
    }
}

#endif
