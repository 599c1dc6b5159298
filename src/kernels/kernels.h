/* Distance, tile, conversion and quantisation kernels behind one table of function pointers.
 *
 * The table is filled with plain C and then overwritten, level by level, with what the CPU has
 * (kernels.c). An index asks for it once, when it is created, and copies the pointers it needs.
 *
 * Numbered promises; tests/kernels holds each of them:
 *
 * 1. Smaller is nearer. L2 is the *squared* distance, DOT is *minus* the dot product. For B1 rows
 *    (bits) L2 is the hamming distance and DOT is minus the count of bits set in both.
 * 2. Within one level `one`, `four`, `ids` and `run` give the same bits for the same pair, however
 *    the pairs are grouped. Across levels float results differ in their last bits; integer (I8,
 *    B1) results, encode, decode and conversions are the same bits everywhere.
 * 3. Nothing is read beyond the `dim` elements of a row or of a query. No alignment is assumed;
 *    64 bytes is fastest, and a row of a multiple of 64 bytes takes no tail.
 * 4. Numerics. f32, f16 and bf16 rows: products and sums in f32, fused where the level fuses. With
 *    s = the sum of |q[i] * r[i]| (DOT) or of (q[i] - r[i])^2 (L2), u = 2^-24 and n = dim:
 *        |result - exact| <= (n / 4 + 8) * u * s     (C: n / 8; AVX2: n / 8; AVX-512: n / 16)
 *    and n * 2^-149 more where products are denormal. A sum beyond FLT_MAX is an infinity (or a NaN
 *    where partial sums of both signs went beyond it).
 *    I8: exact in integers for the full range -128..127 up to 65,535 dimensions, rounded once to
 *    f32. B1: exact.
 * 5. scan32 is exact in integers and, like luts, levels, least, rotate and below32, gives the same
 * bits at every level: nothing in them fuses, and each sum is made in one order.
 * 6. Rows are finite: the border has refused NaN and infinity (scan_f32). With one the result is
 *    unspecified, but nothing traps and nothing else is read or written.
 */
#ifndef PE_KERNELS_H
#define PE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* What a stored row is made of. */
typedef enum { PE_ELEM_F32, PE_ELEM_F16, PE_ELEM_BF16, PE_ELEM_I8, PE_ELEM_B1 } pe_elem;
#define PE_ELEM_COUNT 5

typedef enum { PE_OP_L2, PE_OP_DOT } pe_op;
#define PE_OP_COUNT 2

/* Rows by slot: row r begins at chunks[r >> shift] + (size_t)(r & mask) * stride. */
typedef struct pe_rowview {
    const unsigned char *const *chunks;
    uint32_t shift, mask;
    size_t stride; /* bytes */
    uint32_t dim;  /* elements; bits for B1, a multiple of 8 */
} pe_rowview;

static inline const unsigned char *pe_rowview_at(const pe_rowview *v, uint32_t slot)
{
    return v->chunks[slot >> v->shift] + (size_t)(slot & v->mask) * v->stride;
}

/* The calls of one (op, element). The query is f32 for F32, F16 and BF16 rows, int8_t for I8 rows
 * and bytes for B1 rows. */
typedef struct pe_dist {
    float (*one)(const void *q, const void *row, uint32_t dim);
    void (*four)(const void *q, const void *const rows[4], uint32_t dim, float out[4]);
    /* Many by slot, with software prefetch: the call that graph search lives on. Any n; a few
     * dozen to a few hundred make the prefetch pay. */
    void (*ids)(const void *q, const pe_rowview *v, const uint32_t *slots, size_t n, float *out);
    /* Many in sequence, `stride` bytes apart. */
    void (*run)(const void *q, const void *rows, size_t stride, uint32_t dim, size_t n, float *out);
} pe_dist;

typedef float (*pe_cosine_fn)(const void *q, const void *row, uint32_t dim);

/* What below32 makes of sums: key = base + add[i] + scale[i] * (offset + step * sum[i]), and with
 * it a lower bound: (key - slack * error[i]) + blur * scale[i]. Scales are not positive. */
typedef struct pe_scan {
    float base, offset, step, slack, bound;
    const float *add, *scale, *error; /* 32 each */
    float blur;
} pe_scan;

typedef struct pe_kernels {
    const char *level; /* "c", "avx2", "avx512", "avx512vnni", "neon", "neon-dot" */

    pe_dist dist[PE_OP_COUNT][PE_ELEM_COUNT];

    /* 1 - cos of one pair in one pass, within 0..2; 1 where either is a zero vector. Norms that
     * leave the range of f32 are done again in double. */
    pe_cosine_fn cosine[PE_ELEM_COUNT];

    /* Minus the dot product of each of nq queries with each of nr rows, f32, by register tiles:
     * out[i * ld + j]; strides in elements. No packing, no threads. Sums are grouped otherwise than
     * in `dist`, so the last bits differ (same bound). */
    void (*tile_dot_f32)(const float *q, size_t q_stride, size_t nq, const float *rows,
                         size_t r_stride, size_t nr, uint32_t dim, float *out, size_t ld);

    /* The squared distances of one row to n others from their products, as tile_dot_f32 gives them,
     * and which of them matter:
     *     x[j] = max(norm + norms[j] + 2 * x[j], 0)
     * in place; the j with x[j] < bound or x[j] < bounds[j] go to out (room for n + 16), ascending;
     * returns how many. The same bits at every level. */
    size_t (*near_f32)(float *x, const float *norms, float norm, float bound, const float *bounds,
                       size_t n, uint32_t *out);

    /* Fast-scan (Andre et al., VLDB 2015): 32 rows of 4-bit symbols against tables of 16 bytes that
     * lie in registers. A group of codes is 16 bytes: byte j holds the symbol of row j in its low
     * half and that of row 16 + j in its high half. A group of luts is the 16 bytes that its
     * symbols stand for.
     *     out[i] = sum over groups g of luts[16 g + symbol(i, g)]
     * Any number of groups up to 2^24; the 16-bit sums that the kernels keep are flushed every 256
     * groups, so dimensions do not end at 1,024. */
    void (*scan32)(const uint8_t *codes, const uint8_t *luts, size_t groups, uint32_t out[32]);
    /* The same, and of the sums what pe_scan says: key[i], and the mask of rows whose lower bound
     * is below `bound`. */
    uint32_t (*below32)(const uint8_t *codes, const uint8_t *luts, size_t groups,
                        const pe_scan *scan, float key[32]);
    /* Tables for symbols whose bit b of group g stands for +p[4 g + b] when set, -p[4 g + b] when
     * not:
     *     sum over g of the p of a row's symbols ~ *offset + *step * (sum of its luts)
     * each table off by at most half of *step. p finite; all zeros give step 0. */
    void (*luts)(const float *p, size_t groups, uint8_t *luts, float *offset, float *step);

    /* Symbols of a vector's difference from a centre, v = x - centre, n a multiple of 64: each
     * value as sign and magnitude u = 2 min(trunc(|v| * inverse), top) + 1, written as level[i] =
     * (w + 2 top + 1) / 2 with w = +-u. sums: v.v, v.w, centre.w, w.w. */
    void (*levels)(const float *x, const float *centre, size_t n, float inverse, float top,
                   uint8_t *level, float sums[4]);
    /* The smallest of norm[i] + 2 dot[i], n > 0, and the first place where it stands. */
    uint32_t (*least)(const float *dot, const float *norm, size_t n, float *key);

    /* An orthogonal transform that mixes all of x (n a multiple of 64): `passes` times, each value
     * times its sign of that pass (n floats, +-s), then `stages` butterflies of x[i] and x[i + n/2]
     * to places 2i and 2i + 1 (the fast Hadamard transform in its form of constant geometry, Pease
     * 1968, which unlike the usual one serves any even n). Norms are kept when s = 2^(-stages/2).
     * tmp: n floats. */
    void (*rotate)(float *x, size_t n, unsigned passes, unsigned stages, const float *signs,
                   float *tmp);

    /* IEEE half and bfloat16; to nearest even; overflow to infinity, denormals kept, NaN quieted.
     */
    void (*f32_to_f16)(const float *x, uint16_t *out, size_t n);
    void (*f16_to_f32)(const uint16_t *x, float *out, size_t n);
    void (*f32_to_bf16)(const float *x, uint16_t *out, size_t n);
    void (*bf16_to_f32)(const uint16_t *x, float *out, size_t n);

    /* 8-bit scalar quantiser, lo finite, step > 0 finite and 1/step finite:
     *     level = (x - lo) * (1 / step);  out = round-to-even(clamp(level, 0, 255)) - 128
     * *clipped counts levels below -0.5 or above 255.5; *inexact counts values that decode_i8 does
     * not give back bit for bit. Both are set, not added to; pads nothing. */
    void (*encode_i8)(const float *x, size_t n, float lo, float step, int8_t *out,
                      uint32_t *clipped, uint32_t *inexact);
    /* x = lo + step * (code + 128), two roundings, never fused. */
    void (*decode_i8)(const int8_t *code, size_t n, float lo, float step, float *out);

    /* Smallest and largest value and whether all are finite, tested on the bits. Returns 0 when
     * they are, else non-zero with *min and *max unspecified. n = 0: 0, +infinity, -infinity. A
     * zero comes back as +0. */
    int (*scan_f32)(const float *x, size_t n, float *min, float *max);
} pe_kernels;

/* The best level this CPU has, or the level named by the environment variable PERI_CPU where that
 * is lower (an unknown name masks nothing). Filled once, at the first call; any thread. */
const pe_kernels *pe_kernels_get(void);

/* The table capped at a named level, for tests and the benchmark; NULL where this build or this CPU
 * lacks it. PERI_CPU does not apply. */
const pe_kernels *pe_kernels_level(const char *name);

/* The i-th level of this build, lowest first, NULL after the last; the CPU may lack it. */
const char *pe_kernels_level_name(size_t i);

#endif
