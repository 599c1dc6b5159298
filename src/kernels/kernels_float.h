/* The float kernels of a SIMD level: l2 and dot on f32, f16 and bf16 rows by the frame of
 * kernels_rows.h, cosine, and the tile, all from one vector type. Included once by each level,
 * which gives
 *     vf                                       VF_W floats
 *     vf_zero() vf_add(a, b) vf_sub(a, b)
 *     vf_fma(a, b, c)  vf_fnma(a, b, c)        a * b + c, -(a * b) + c, one rounding
 *     load_E(p, i)  tail_E(p, i, n)            E = f32, f16, bf16: elements i.. as f32; n of them
 *                                                and zeros, 0 < n < VF_W, nothing more read
 *     vf_sum(a)  vf_sum4(a[4], out)            the lanes' sums, in one and the same order
 *     VF_LONG VF_MEDIUM VF_PASS                PK_LONG, PK_MEDIUM, PK_PASS of the frame
 *     VF_TILE_Q                                queries of a tile of VF_TILE_Q x 4 accumulators
 */

PE_INLINE vf l2_part(vf a, vf q, vf r)
{
    const vf d = vf_sub(q, r);
    return vf_fma(d, d, a);
}

/* Minus the product: negation is exact, so this is bit for bit the negated sum, for nothing. */
PE_INLINE vf dot_part(vf a, vf q, vf r)
{
    return vf_fnma(q, r, a);
}

PE_PLAIN(l2_f32, vf, vf, vf, l2_part, f32, f32, vf, 32)
PE_PLAIN(l2_f16, vf, vf, vf, l2_part, f32, f16, vf, 16)
PE_PLAIN(l2_bf16, vf, vf, vf, l2_part, f32, bf16, vf, 16)
PE_PLAIN(dot_f32, vf, vf, vf, dot_part, f32, f32, vf, 32)
PE_PLAIN(dot_f16, vf, vf, vf, dot_part, f32, f16, vf, 16)
PE_PLAIN(dot_bf16, vf, vf, vf, dot_part, f32, bf16, vf, 16)

#define PK_W      VF_W
#define PK_LONG   VF_LONG
#define PK_MEDIUM VF_MEDIUM
#define PK_PASS   VF_PASS
#define PK_EXACT  0

#define PK(x) l2_f32_##x
#include "kernels/kernels_rows.h"
#define PK(x) l2_f16_##x
#include "kernels/kernels_rows.h"
#define PK(x) l2_bf16_##x
#include "kernels/kernels_rows.h"
#define PK(x) dot_f32_##x
#include "kernels/kernels_rows.h"
#define PK(x) dot_f16_##x
#include "kernels/kernels_rows.h"
#define PK(x) dot_bf16_##x
#include "kernels/kernels_rows.h"

#undef PK_W
#undef PK_LONG
#undef PK_MEDIUM
#undef PK_PASS
#undef PK_EXACT

/* Cosine: three sums in one pass, two chains each. The f32 result stands where both squared norms
 * are ordinary numbers; zero vectors, denormals and overflow go the slow way. */
PE_INLINE int cosine_safe(float qq, float rr)
{
    return qq > 1e-30f && qq < 1e30f && rr > 1e-30f && rr < 1e30f;
}

PE_INLINE float cosine_of(float dot, float qq, float rr)
{
    const float d = 1.0f - dot / (__builtin_sqrtf(qq) * __builtin_sqrtf(rr));
    return d < 0.0f ? 0.0f : d > 2.0f ? 2.0f : d;
}

typedef struct cosine_sums {
    vf qr, qq, rr;
} cosine_sums;

PE_INLINE void cosine_add(cosine_sums *s, vf q, vf r)
{
    s->qr = vf_fma(q, r, s->qr);
    s->qq = vf_fma(q, q, s->qq);
    s->rr = vf_fma(r, r, s->rr);
}

#define PE_COSINE(elem)                                                                            \
    static float cosine_##elem(const void *q, const void *row, uint32_t dim)                       \
    {                                                                                              \
        cosine_sums even = {vf_zero(), vf_zero(), vf_zero()}, odd = even;                          \
        size_t i = 0, n = dim;                                                                     \
        for (; i + 2 * VF_W <= n; i += 2 * VF_W) {                                                 \
            cosine_add(&even, load_f32(q, i), load_##elem(row, i));                                \
            cosine_add(&odd, load_f32(q, i + VF_W), load_##elem(row, i + VF_W));                   \
        }                                                                                          \
        if (i + VF_W <= n) {                                                                       \
            cosine_add(&even, load_f32(q, i), load_##elem(row, i));                                \
            i += VF_W;                                                                             \
        }                                                                                          \
        if (i < n)                                                                                 \
            cosine_add(&odd, tail_f32(q, i, n - i), tail_##elem(row, i, n - i));                   \
        const float qr = vf_sum(vf_add(even.qr, odd.qr)), qq = vf_sum(vf_add(even.qq, odd.qq)),    \
                    rr = vf_sum(vf_add(even.rr, odd.rr));                                          \
        return cosine_safe(qq, rr) ? cosine_of(qr, qq, rr) : pe_cosine_rescue_##elem(q, row, dim); \
    }

PE_COSINE(f32)
PE_COSINE(f16)
PE_COSINE(bf16)

/* The tile: VF_TILE_Q queries by 4 rows, one accumulator a pair, summed along the dimensions, so
 * that neither side is packed: (VF_TILE_Q + 4) loads feed 4 * VF_TILE_Q FMAs. A pair's result is
 * the same bits wherever in a tile it falls. Adds `n` dimensions to `out` where `more` is set. */
PE_INLINE void tile_block(const float *q, size_t q_stride, const int nq, const float *const *rows,
                          size_t nr, size_t n, int more, float *out, size_t ld)
{
    vf a[VF_TILE_Q][4];
    PE_UNROLL
    for (int k = 0; k < nq; k++) {
        PE_UNROLL
        for (int r = 0; r < 4; r++)
            a[k][r] = vf_zero();
    }
    size_t i = 0;
    for (; i + VF_W <= n; i += VF_W) {
        vf qv[VF_TILE_Q];
        PE_UNROLL
        for (int k = 0; k < nq; k++)
            qv[k] = load_f32(q + (size_t)k * q_stride, i);
        PE_UNROLL
        for (int r = 0; r < 4; r++) {
            const vf rv = load_f32(rows[r], i);
            PE_UNROLL
            for (int k = 0; k < nq; k++)
                a[k][r] = vf_fnma(qv[k], rv, a[k][r]);
        }
    }
    if (i < n) {
        PE_UNROLL
        for (int r = 0; r < 4; r++) {
            const vf rv = tail_f32(rows[r], i, n - i);
            PE_UNROLL
            for (int k = 0; k < nq; k++)
                a[k][r] = vf_fnma(tail_f32(q + (size_t)k * q_stride, i, n - i), rv, a[k][r]);
        }
    }
    PE_UNROLL
    for (int k = 0; k < nq; k++) {
        float sums[4], *o = out + (size_t)k * ld;
        if (nr == 4 && !more) {
            vf_sum4(a[k], o);
            continue;
        }
        vf_sum4(a[k], sums);
        for (size_t r = 0; r < nr; r++)
            o[r] = more ? o[r] + sums[r] : sums[r];
    }
}

/* One tile of up to VF_TILE_Q queries and 4 rows. Past the last row it stands in for the missing;
 * their sums are dropped. */
PE_INLINE void tile_edge(const float *q, size_t q_stride, size_t nq, const float *rows,
                         size_t r_stride, size_t nr, size_t n, int more, float *out, size_t ld)
{
    const float *const r4[4] = {rows, rows + (nr > 1 ? 1 : nr - 1) * r_stride,
                                rows + (nr > 2 ? 2 : nr - 1) * r_stride,
                                rows + (nr > 3 ? 3 : nr - 1) * r_stride};
    if (nq >= VF_TILE_Q) {
        tile_block(q, q_stride, VF_TILE_Q, r4, nr, n, more, out, ld);
        return;
    }
    switch (nq) {
#if VF_TILE_Q > 5
    case 5:
        tile_block(q, q_stride, 5, r4, nr, n, more, out, ld);
        break;
    case 4:
        tile_block(q, q_stride, 4, r4, nr, n, more, out, ld);
        break;
    case 3:
        tile_block(q, q_stride, 3, r4, nr, n, more, out, ld);
        break;
#endif
    case 2:
        tile_block(q, q_stride, 2, r4, nr, n, more, out, ld);
        break;
    default:
        tile_block(q, q_stride, 1, r4, nr, n, more, out, ld);
        break;
    }
}

/* Zen 5, one thread, GFLOP/s against OpenBLAS 0.3.21's SkylakeX sgemm: 784-d 130 : 59 for 10
 * queries, 191 : 162 for 60, 226 : 230 for 1,000. Prefetching the next rows changed nothing. */
enum {
    TILE_DIMS = 1024,            /* a tile's queries stay in the first cache: 1,536-d 160 -> 220 */
    TILE_ROW_BYTES = 384 * 1024, /* a block's rows in the second, while all queries pass */
};

static void tile_dot_f32(const float *q, size_t q_stride, size_t nq, const float *rows,
                         size_t r_stride, size_t nr, uint32_t dim, float *out, size_t ld)
{
    const size_t parts = ((size_t)dim + TILE_DIMS - 1) / TILE_DIMS;
    const size_t dims = ((size_t)dim / parts + VF_W - 1) / VF_W * VF_W;
    const size_t block = TILE_ROW_BYTES / (dims * sizeof(float)) / 4 * 4;
    for (size_t b = 0; b < nr; b += block) {
        const size_t end = nr - b < block ? nr : b + block;
        for (size_t d = 0; d < dim; d += dims) {
            const size_t n = dim - d < dims ? dim - d : dims;
            for (size_t k = 0; k < nq; k += VF_TILE_Q) {
                for (size_t r = b; r < end; r += 4)
                    tile_edge(q + k * q_stride + d, q_stride, nq - k, rows + r * r_stride + d,
                              r_stride, end - r < 4 ? end - r : 4, n, d > 0, out + k * ld + r, ld);
            }
        }
    }
}

/* Puts all of the above into the table. */
PE_INLINE void pe_float_fill(pe_kernels *k)
{
    PE_FILL(k, PE_OP_L2, PE_ELEM_F32, l2_f32);
    PE_FILL(k, PE_OP_L2, PE_ELEM_F16, l2_f16);
    PE_FILL(k, PE_OP_L2, PE_ELEM_BF16, l2_bf16);
    PE_FILL(k, PE_OP_DOT, PE_ELEM_F32, dot_f32);
    PE_FILL(k, PE_OP_DOT, PE_ELEM_F16, dot_f16);
    PE_FILL(k, PE_OP_DOT, PE_ELEM_BF16, dot_bf16);
    k->cosine[PE_ELEM_F32] = cosine_f32;
    k->cosine[PE_ELEM_F16] = cosine_f16;
    k->cosine[PE_ELEM_BF16] = cosine_bf16;
    k->tile_dot_f32 = tile_dot_f32;
}
