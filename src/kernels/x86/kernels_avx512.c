/* AVX-512 (F, BW, VL, DQ) with FMA and F16C: 16 floats a step, tails by masked loads, which neither
 * read nor fault beyond the row. Bounds: kernels.h, with n / 16. I8 without VNNI: widened to 16
 * bits and multiplied in pairs to 32; differences up to 255 give pairs up to 130,050, whole sums up
 * to 4,261,413,375, which fit unsigned 32 bits, so wrapping additions are exact. */
#include "kernels/x86/kernels_avx512.h"

#define VF_W      16
#define VF_LONG   256
#define VF_MEDIUM 128
#define VF_PASS   4
#define VF_TILE_Q 6

typedef __m512 vf;

PE_INLINE vf vf_zero(void)
{
    return _mm512_setzero_ps();
}

PE_INLINE vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}

PE_INLINE vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}

PE_INLINE vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}

PE_INLINE vf vf_fnma(vf a, vf b, vf c)
{
    return _mm512_fnmadd_ps(a, b, c);
}

PE_INLINE vf load_f32(const void *p, size_t i)
{
    return _mm512_loadu_ps((const float *)p + i);
}

PE_INLINE vf tail_f32(const void *p, size_t i, size_t n)
{
    return _mm512_maskz_loadu_ps(low16(n), touched((const float *)p + i));
}

PE_INLINE __m256i load_16bit(const void *p, size_t i)
{
    return _mm256_loadu_si256((const void *)((const uint16_t *)p + i));
}

PE_INLINE __m256i tail_16bit(const void *p, size_t i, size_t n)
{
    return _mm256_maskz_loadu_epi16(low16(n), touched((const uint16_t *)p + i));
}

PE_INLINE vf from_bf16(__m256i x)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

PE_INLINE vf load_f16(const void *p, size_t i)
{
    return _mm512_cvtph_ps(load_16bit(p, i));
}

PE_INLINE vf tail_f16(const void *p, size_t i, size_t n)
{
    return _mm512_cvtph_ps(tail_16bit(p, i, n));
}

PE_INLINE vf load_bf16(const void *p, size_t i)
{
    return from_bf16(load_16bit(p, i));
}

PE_INLINE vf tail_bf16(const void *p, size_t i, size_t n)
{
    return from_bf16(tail_16bit(p, i, n));
}

/* Both sums add in this order: elements 0 and 2, 1 and 3 of each 128-bit lane, the two results,
 * then lanes 0 and 2, 1 and 3, and those. */
PE_INLINE float vf_sum(vf a)
{
    const __m512 pairs = _mm512_add_ps(a, _mm512_permute_ps(a, 0x4e));
    const __m512 lanes = _mm512_add_ps(pairs, _mm512_permute_ps(pairs, 0xb1));
    const __m256 half =
        _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps(lanes, 1));
    return _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

/* The transposed form: four vectors' sums for little more than the price of one. */
PE_INLINE void vf_sum4(const vf *a, float *out)
{
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a[0], a[1]), _mm512_unpackhi_ps(a[0], a[1]));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(a[2], a[3]), _mm512_unpackhi_ps(a[2], a[3]));
    const __m512 lanes =
        _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    const __m256 half =
        _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps(lanes, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

#include "kernels/kernels_float.h"

/* I8 and B1. */

PE_INLINE __m512i load_i8(const void *p, size_t i)
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)((const int8_t *)p + i)));
}

PE_INLINE __m512i tail_i8(const void *p, size_t i, size_t n)
{
    return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(low32(n), touched((const int8_t *)p + i)));
}

PE_INLINE __m512i l2_i8_part(__m512i a, __m512i q, __m512i r)
{
    const __m512i d = _mm512_sub_epi16(q, r);
    return _mm512_add_epi32(a, _mm512_madd_epi16(d, d));
}

PE_INLINE __m512i dot_i8_part(__m512i a, __m512i q, __m512i r)
{
    return _mm512_add_epi32(a, _mm512_madd_epi16(q, r));
}

PE_PLAIN(l2_i8, __m512i, __m512i, vi, l2_i8_part, i8, i8, l2, 8)
PE_PLAIN(dot_i8, __m512i, __m512i, vi, dot_i8_part, i8, i8, dot, 8)

PE_INLINE __m512i load_b1(const void *p, size_t i)
{
    return load_bytes(p, i / 8);
}

PE_INLINE __m512i tail_b1(const void *p, size_t i, size_t n)
{
    return tail_bytes(p, i / 8, n / 8);
}

/* Set bits of each byte by a table of sixteen, then summed by eights; the upper halves of the
 * 64-bit sums stay zero, so that 32-bit sums serve. */
PE_INLINE __m512i count_bits(__m512i x)
{
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i table =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i low = _mm512_shuffle_epi8(table, _mm512_and_si512(x, nibble));
    const __m512i high =
        _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(x, 4), nibble));
    return _mm512_sad_epu8(_mm512_add_epi8(low, high), _mm512_setzero_si512());
}

PE_INLINE __m512i l2_b1_part(__m512i a, __m512i q, __m512i r)
{
    return _mm512_add_epi32(a, count_bits(_mm512_xor_si512(q, r)));
}

PE_INLINE __m512i dot_b1_part(__m512i a, __m512i q, __m512i r)
{
    return _mm512_add_epi32(a, count_bits(_mm512_and_si512(q, r)));
}

PE_PLAIN(l2_b1, __m512i, __m512i, vi, l2_b1_part, b1, b1, l2, 1)
PE_PLAIN(dot_b1, __m512i, __m512i, vi, dot_b1_part, b1, b1, dot, 1)

#define PK_PASS  4
#define PK_EXACT 1

#define PK_W      32
#define PK_LONG   256
#define PK_MEDIUM 128
#define PK(x)     l2_i8_##x
#include "kernels/kernels_rows.h"
#define PK(x) dot_i8_##x
#include "kernels/kernels_rows.h"
#undef PK_W
#undef PK_LONG
#undef PK_MEDIUM

#define PK_W      512
#define PK_LONG   8192
#define PK_MEDIUM 2048
#define PK(x)     l2_b1_##x
#include "kernels/kernels_rows.h"
#define PK(x) dot_b1_##x
#include "kernels/kernels_rows.h"

/* Sums of a pair for the cosine: products below 2^14, 65,535 of them below 2^31. */
static float cosine_i8(const void *q, const void *row, uint32_t dim)
{
    __m512i qr = vi_zero(), qq = vi_zero(), rr = vi_zero();
    for (size_t i = 0; i < dim; i += 32) {
        const size_t n = dim - i;
        const __m512i a = n < 32 ? tail_i8(q, i, n) : load_i8(q, i);
        const __m512i b = n < 32 ? tail_i8(row, i, n) : load_i8(row, i);
        qr = vi_add(qr, _mm512_madd_epi16(a, b));
        qq = vi_add(qq, _mm512_madd_epi16(a, a));
        rr = vi_add(rr, _mm512_madd_epi16(b, b));
    }
    return pe_cosine_of_sums((double)(int32_t)vi_sum(qr), (double)vi_sum(qq), (double)vi_sum(rr));
}

static float cosine_b1(const void *q, const void *row, uint32_t dim)
{
    __m512i qr = vi_zero(), qq = vi_zero(), rr = vi_zero();
    for (size_t i = 0, bytes = dim / 8; i < bytes; i += 64) {
        const size_t n = bytes - i;
        const __m512i a = n < 64 ? tail_bytes(q, i, n) : load_bytes(q, i);
        const __m512i b = n < 64 ? tail_bytes(row, i, n) : load_bytes(row, i);
        qr = vi_add(qr, count_bits(_mm512_and_si512(a, b)));
        qq = vi_add(qq, count_bits(a));
        rr = vi_add(rr, count_bits(b));
    }
    return pe_cosine_of_sums((double)vi_sum(qr), (double)vi_sum(qq), (double)vi_sum(rr));
}

/* Conversions. */

static void f32_to_f16(const float *x, uint16_t *out, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = n - i < 16 ? low16(n - i) : 0xffff;
        const __m256i h =
            _mm512_cvtps_ph(_mm512_maskz_loadu_ps(m, x + i), _MM_FROUND_TO_NEAREST_INT);
        _mm256_mask_storeu_epi16(out + i, m, h);
    }
}

static void f16_to_f32(const uint16_t *x, float *out, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = n - i < 16 ? low16(n - i) : 0xffff;
        _mm512_mask_storeu_ps(out + i, m, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, x + i)));
    }
}

/* On the bits: adding 0x7fff and the last bit kept rounds to nearest even; vcvtneps2bf16 would
 * flush denormals. */
static void f32_to_bf16(const float *x, uint16_t *out, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = n - i < 16 ? low16(n - i) : 0xffff;
        const __m512i b = _mm512_castps_si512(_mm512_maskz_loadu_ps(m, x + i));
        const __m512i last = _mm512_and_si512(_mm512_srli_epi32(b, 16), _mm512_set1_epi32(1));
        const __m512i rounded =
            _mm512_add_epi32(_mm512_add_epi32(b, _mm512_set1_epi32(0x7fff)), last);
        const __mmask16 nan = _mm512_cmpgt_epi32_mask(
            _mm512_and_si512(b, _mm512_set1_epi32(0x7fffffff)), _mm512_set1_epi32(0x7f800000));
        const __m512i quiet = _mm512_or_si512(b, _mm512_set1_epi32(0x400000));
        const __m512i bits = _mm512_mask_mov_epi32(rounded, nan, quiet);
        _mm256_mask_storeu_epi16(out + i, m, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
    }
}

static void bf16_to_f32(const uint16_t *x, float *out, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = n - i < 16 ? low16(n - i) : 0xffff;
        _mm512_mask_storeu_ps(out + i, m, from_bf16(_mm256_maskz_loadu_epi16(m, x + i)));
    }
}

static void encode_i8(const float *x, size_t n, float lo, float step, int8_t *out,
                      uint32_t *clipped, uint32_t *inexact)
{
    const __m512 vlo = _mm512_set1_ps(lo), vstep = _mm512_set1_ps(step);
    const __m512 inverse = _mm512_set1_ps(1.0f / step);
    uint32_t nclipped = 0, ninexact = 0;
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = n - i < 16 ? low16(n - i) : 0xffff;
        const __m512 v = _mm512_maskz_loadu_ps(m, x + i);
        const __m512 t = _mm512_mul_ps(_mm512_sub_ps(v, vlo), inverse);
        const __mmask16 out_of_range =
            _mm512_mask_cmp_ps_mask(m, t, _mm512_set1_ps(-0.5f), _CMP_LT_OQ) |
            _mm512_mask_cmp_ps_mask(m, t, _mm512_set1_ps(255.5f), _CMP_GT_OQ);
        const __m512 inside =
            _mm512_min_ps(_mm512_max_ps(t, _mm512_setzero_ps()), _mm512_set1_ps(255.0f));
        const __m512i code = _mm512_cvtps_epi32(inside);
        const __m512 back = _mm512_add_ps(vlo, _mm512_mul_ps(vstep, _mm512_cvtepi32_ps(code)));
        const __mmask16 differ =
            _mm512_mask_cmpneq_epi32_mask(m, _mm512_castps_si512(back), _mm512_castps_si512(v));
        nclipped += (uint32_t)__builtin_popcount(out_of_range);
        ninexact += (uint32_t)__builtin_popcount(differ);
        const __m512i biased = _mm512_sub_epi32(code, _mm512_set1_epi32(128));
        _mm_mask_storeu_epi8(out + i, m, _mm512_cvtepi32_epi8(biased));
    }
    *clipped = nclipped;
    *inexact = ninexact;
}

static void decode_i8(const int8_t *code, size_t n, float lo, float step, float *out)
{
    const __m512 vlo = _mm512_set1_ps(lo), vstep = _mm512_set1_ps(step);
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = n - i < 16 ? low16(n - i) : 0xffff;
        const __m512i c = _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(m, code + i));
        const __m512 level = _mm512_cvtepi32_ps(_mm512_add_epi32(c, _mm512_set1_epi32(128)));
        _mm512_mask_storeu_ps(out + i, m, _mm512_add_ps(vlo, _mm512_mul_ps(vstep, level)));
    }
}

static int scan_f32(const float *x, size_t n, float *min, float *max)
{
    const __m512i exponent = _mm512_set1_epi32(0x7f800000);
    __m512 low = _mm512_set1_ps(__builtin_inff()), high = _mm512_set1_ps(-__builtin_inff());
    __mmask16 bad = 0;
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = n - i < 16 ? low16(n - i) : 0xffff;
        const __m512 v = _mm512_maskz_loadu_ps(m, x + i);
        const __m512i e = _mm512_and_si512(_mm512_castps_si512(v), exponent);
        bad |= _mm512_cmpeq_epi32_mask(e, exponent);
        low = _mm512_mask_min_ps(low, m, low, v);
        high = _mm512_mask_max_ps(high, m, high, v);
    }
    *min = _mm512_reduce_min_ps(low) + 0.0f;
    *max = _mm512_reduce_max_ps(high) + 0.0f;
    return bad != 0;
}

static size_t near_f32(float *x, const float *norms, float norm, float bound, const float *bounds,
                       size_t n, uint32_t *out)
{
    const __m512 own = _mm512_set1_ps(norm), least = _mm512_set1_ps(bound);
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    size_t found = 0;
    for (size_t j = 0; j < n; j += 16) {
        const __mmask16 m = n - j < 16 ? low16(n - j) : 0xffff;
        const __m512 dot = _mm512_maskz_loadu_ps(m, x + j);
        const __m512 sum = _mm512_add_ps(own, _mm512_maskz_loadu_ps(m, norms + j));
        const __m512 d =
            _mm512_max_ps(_mm512_add_ps(sum, _mm512_add_ps(dot, dot)), _mm512_setzero_ps());
        _mm512_mask_storeu_ps(x + j, m, d);
        const __m512 theirs = _mm512_max_ps(least, _mm512_maskz_loadu_ps(m, bounds + j));
        const __mmask16 in = _mm512_mask_cmp_ps_mask(m, d, theirs, _CMP_LT_OQ);
        if (!in)
            continue;
        /* To memory by way of a register: compressing stores are slow on some CPUs. */
        _mm512_storeu_si512(
            out + found,
            _mm512_maskz_compress_epi32(in, _mm512_add_epi32(lanes, _mm512_set1_epi32((int)j))));
        found += (size_t)__builtin_popcount(in);
    }
    return found;
}

/* Fast-scan: four groups an instruction. Bytes are summed as 16-bit lanes without being spread
 * out: one sum takes odd bytes alone, the other even bytes plus 256 times the odd ones, which are
 * taken off at the end. */

PE_INLINE __m128i fold_lanes(__m512i a)
{
    const __m256i half =
        _mm256_add_epi16(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
    return _mm_add_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* Sums of 16 rows in order, as 32 bits. */
PE_INLINE __m512i unmix(__m512i mixed, __m512i odd)
{
    const __m128i o = fold_lanes(odd);
    const __m128i e = _mm_sub_epi16(fold_lanes(mixed), _mm_slli_epi16(o, 8));
    return _mm512_cvtepu16_epi32(
        _mm256_set_m128i(_mm_unpackhi_epi16(e, o), _mm_unpacklo_epi16(e, o)));
}

PE_INLINE void scan_sums(const uint8_t *codes, const uint8_t *tables, size_t groups, uint32_t *out)
{
    enum { FLUSH = 256 }; /* times 255 is just below 2^16 */
    const __m512i low = _mm512_set1_epi8(15);
    __m512i first = vi_zero(), last = vi_zero();
    while (groups > 0) {
        const size_t bytes = 16 * (groups < FLUSH ? groups : FLUSH);
        __m512i a = vi_zero(), a_odd = vi_zero(), b = vi_zero(), b_odd = vi_zero();
        for (size_t i = 0; i < bytes; i += 64) {
            /* A table of zeros makes the groups beyond the end count nothing. */
            const size_t n = bytes - i;
            const __m512i c = n < 64 ? tail_bytes(codes, i, n) : load_bytes(codes, i);
            const __m512i t = n < 64 ? tail_bytes(tables, i, n) : load_bytes(tables, i);
            const __m512i x = _mm512_shuffle_epi8(t, _mm512_and_si512(c, low));
            const __m512i y =
                _mm512_shuffle_epi8(t, _mm512_and_si512(_mm512_srli_epi16(c, 4), low));
            a = _mm512_add_epi16(a, x);
            a_odd = _mm512_add_epi16(a_odd, _mm512_srli_epi16(x, 8));
            b = _mm512_add_epi16(b, y);
            b_odd = _mm512_add_epi16(b_odd, _mm512_srli_epi16(y, 8));
        }
        first = vi_add(first, unmix(a, a_odd));
        last = vi_add(last, unmix(b, b_odd));
        codes += bytes;
        tables += bytes;
        groups -= bytes / 16;
    }
    _mm512_store_si512(out, first);
    _mm512_store_si512(out + 16, last);
}

#define PV         16
#define pv_mask(v) ((uint32_t)_mm512_movepi32_mask((__m512i)(v)))
#include "kernels/kernels_scan.h"

void pe_kernels_fill_avx512(pe_kernels *k)
{
    scan_fill(k);
    pe_float_fill(k);
    PE_FILL(k, PE_OP_L2, PE_ELEM_I8, l2_i8);
    PE_FILL(k, PE_OP_DOT, PE_ELEM_I8, dot_i8);
    PE_FILL(k, PE_OP_L2, PE_ELEM_B1, l2_b1);
    PE_FILL(k, PE_OP_DOT, PE_ELEM_B1, dot_b1);
    k->cosine[PE_ELEM_I8] = cosine_i8;
    k->cosine[PE_ELEM_B1] = cosine_b1;
    k->f32_to_f16 = f32_to_f16;
    k->f16_to_f32 = f16_to_f32;
    k->f32_to_bf16 = f32_to_bf16;
    k->bf16_to_f32 = bf16_to_f32;
    k->encode_i8 = encode_i8;
    k->decode_i8 = decode_i8;
    k->scan_f32 = scan_f32;
    k->near_f32 = near_f32;
    k->level = "avx512";
}
