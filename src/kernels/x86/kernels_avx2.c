/* AVX2 with FMA and F16C: 8 floats a step. Bounds: kernels.h, with n / 8. Sixteen registers hold
 * two rows of four accumulators at a time, so a group of four goes by in two passes. Tails: masked
 * loads for floats, loads put together from whole words within the row for the rest. I8 is widened
 * to 16 bits and multiplied in pairs to 32 (vpmaddubsw would saturate); wrapping sums are exact
 * since whole ones fit unsigned 32 bits, 65,535 * 255^2 the largest. */
#include <immintrin.h>

#include "kernels/kernels_level.h"

#define VF_W      8
#define VF_LONG   128
#define VF_MEDIUM 64
#define VF_PASS   2
#define VF_TILE_Q 3

typedef __m256 vf;

PE_INLINE vf vf_zero(void)
{
    return _mm256_setzero_ps();
}

PE_INLINE vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}

PE_INLINE vf vf_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}

PE_INLINE vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}

PE_INLINE vf vf_fnma(vf a, vf b, vf c)
{
    return _mm256_fnmadd_ps(a, b, c);
}

/* n of eight lanes set, from a window that slides over this. */
static const int32_t MASKS[16] = {-1, -1, -1, -1, -1, -1, -1, -1};

PE_INLINE __m256i low_lanes(size_t n)
{
    return _mm256_loadu_si256((const void *)(MASKS + 8 - n));
}

PE_INLINE __m128i part_of_16(const unsigned char *p, size_t n)
{
    const pe_part part = pe_part_of_16(p, n);
    return _mm_set_epi64x((long long)part.high, (long long)part.low);
}

PE_INLINE vf load_f32(const void *p, size_t i)
{
    return _mm256_loadu_ps((const float *)p + i);
}

PE_INLINE vf tail_f32(const void *p, size_t i, size_t n)
{
    return _mm256_maskload_ps((const float *)p + i, low_lanes(n));
}

PE_INLINE __m128i load_16bit(const void *p, size_t i)
{
    return _mm_loadu_si128((const void *)((const uint16_t *)p + i));
}

PE_INLINE __m128i tail_16bit(const void *p, size_t i, size_t n)
{
    return part_of_16((const unsigned char *)p + 2 * i, 2 * n);
}

PE_INLINE vf from_bf16(__m128i x)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}

PE_INLINE vf load_f16(const void *p, size_t i)
{
    return _mm256_cvtph_ps(load_16bit(p, i));
}

PE_INLINE vf tail_f16(const void *p, size_t i, size_t n)
{
    return _mm256_cvtph_ps(tail_16bit(p, i, n));
}

PE_INLINE vf load_bf16(const void *p, size_t i)
{
    return from_bf16(load_16bit(p, i));
}

PE_INLINE vf tail_bf16(const void *p, size_t i, size_t n)
{
    return from_bf16(tail_16bit(p, i, n));
}

/* Both sums add in this order: elements 0 and 2, 1 and 3 of each half, those, then the halves. */
PE_INLINE float vf_sum(vf a)
{
    const __m256 pairs = _mm256_add_ps(a, _mm256_permute_ps(a, 0x4e));
    const __m256 halves = _mm256_add_ps(pairs, _mm256_permute_ps(pairs, 0xb1));
    return _mm_cvtss_f32(
        _mm_add_ss(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1)));
}

PE_INLINE void vf_sum4(const vf *a, float *out)
{
    const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a[0], a[1]), _mm256_unpackhi_ps(a[0], a[1]));
    const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(a[2], a[3]), _mm256_unpackhi_ps(a[2], a[3]));
    const __m256 halves =
        _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    _mm_storeu_ps(out,
                  _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1)));
}

#include "kernels/kernels_float.h"

/* I8 and B1. */

PE_INLINE __m256i vi_zero(void)
{
    return _mm256_setzero_si256();
}

PE_INLINE __m256i vi_add(__m256i a, __m256i b)
{
    return _mm256_add_epi32(a, b);
}

PE_INLINE __m128i vi_sum4(const __m256i *a)
{
    const __m256i ab =
        _mm256_add_epi32(_mm256_unpacklo_epi32(a[0], a[1]), _mm256_unpackhi_epi32(a[0], a[1]));
    const __m256i cd =
        _mm256_add_epi32(_mm256_unpacklo_epi32(a[2], a[3]), _mm256_unpackhi_epi32(a[2], a[3]));
    const __m256i halves =
        _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
    return _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
}

PE_INLINE uint32_t vi_sum(__m256i a)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(s);
}

PE_INLINE float l2_sum(__m256i a)
{
    return (float)vi_sum(a);
}

PE_INLINE void l2_sum4(const __m256i *a, float *out)
{
    uint32_t sums[4];
    _mm_storeu_si128((void *)sums, vi_sum4(a));
    for (int i = 0; i < 4; i++)
        out[i] = (float)sums[i];
}

PE_INLINE float dot_sum(__m256i a)
{
    return (float)-(int32_t)vi_sum(a);
}

PE_INLINE void dot_sum4(const __m256i *a, float *out)
{
    _mm_storeu_ps(out, _mm_cvtepi32_ps(_mm_sub_epi32(_mm_setzero_si128(), vi_sum4(a))));
}

PE_INLINE __m256i load_i8(const void *p, size_t i)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)((const int8_t *)p + i)));
}

PE_INLINE __m256i tail_i8(const void *p, size_t i, size_t n)
{
    return _mm256_cvtepi8_epi16(part_of_16((const unsigned char *)p + i, n));
}

PE_INLINE __m256i l2_i8_part(__m256i a, __m256i q, __m256i r)
{
    const __m256i d = _mm256_sub_epi16(q, r);
    return vi_add(a, _mm256_madd_epi16(d, d));
}

PE_INLINE __m256i dot_i8_part(__m256i a, __m256i q, __m256i r)
{
    return vi_add(a, _mm256_madd_epi16(q, r));
}

PE_PLAIN(l2_i8, __m256i, __m256i, vi, l2_i8_part, i8, i8, l2, 8)
PE_PLAIN(dot_i8, __m256i, __m256i, vi, dot_i8_part, i8, i8, dot, 8)

PE_INLINE __m256i load_b1(const void *p, size_t i)
{
    return _mm256_loadu_si256((const void *)((const unsigned char *)p + i / 8));
}

PE_INLINE __m256i tail_b1(const void *p, size_t i, size_t n)
{
    const unsigned char *b = (const unsigned char *)p + i / 8;
    n /= 8;
    if (n < 16)
        return _mm256_zextsi128_si256(part_of_16(b, n));
    return _mm256_set_m128i(part_of_16(b + 16, n - 16), _mm_loadu_si128((const void *)b));
}

/* Set bits of each byte by a table of sixteen, then summed by eights; the upper halves of the
 * 64-bit sums stay zero, so that 32-bit sums serve. */
PE_INLINE __m256i count_bits(__m256i x)
{
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i table =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(x, nibble));
    const __m256i high =
        _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble));
    return _mm256_sad_epu8(_mm256_add_epi8(low, high), _mm256_setzero_si256());
}

PE_INLINE __m256i l2_b1_part(__m256i a, __m256i q, __m256i r)
{
    return vi_add(a, count_bits(_mm256_xor_si256(q, r)));
}

PE_INLINE __m256i dot_b1_part(__m256i a, __m256i q, __m256i r)
{
    return vi_add(a, count_bits(_mm256_and_si256(q, r)));
}

PE_PLAIN(l2_b1, __m256i, __m256i, vi, l2_b1_part, b1, b1, l2, 1)
PE_PLAIN(dot_b1, __m256i, __m256i, vi, dot_b1_part, b1, b1, dot, 1)

#define PK_PASS  4
#define PK_EXACT 1

#define PK_W      16
#define PK_LONG   128
#define PK_MEDIUM 64
#define PK(x)     l2_i8_##x
#include "kernels/kernels_rows.h"
#define PK(x) dot_i8_##x
#include "kernels/kernels_rows.h"
#undef PK_W
#undef PK_LONG
#undef PK_MEDIUM

#define PK_W      256
#define PK_LONG   4096
#define PK_MEDIUM 1024
#define PK(x)     l2_b1_##x
#include "kernels/kernels_rows.h"
#define PK(x) dot_b1_##x
#include "kernels/kernels_rows.h"

/* Sums of a pair for the cosine: products up to 2^14, 65,535 of them below 2^30. */
static float cosine_i8(const void *q, const void *row, uint32_t dim)
{
    __m256i qr = vi_zero(), qq = vi_zero(), rr = vi_zero();
    for (size_t i = 0; i < dim; i += 16) {
        const size_t n = dim - i;
        const __m256i a = n < 16 ? tail_i8(q, i, n) : load_i8(q, i);
        const __m256i b = n < 16 ? tail_i8(row, i, n) : load_i8(row, i);
        qr = dot_i8_part(qr, a, b);
        qq = dot_i8_part(qq, a, a);
        rr = dot_i8_part(rr, b, b);
    }
    return pe_cosine_of_sums((double)(int32_t)vi_sum(qr), (double)vi_sum(qq), (double)vi_sum(rr));
}

static float cosine_b1(const void *q, const void *row, uint32_t dim)
{
    __m256i qr = vi_zero(), qq = vi_zero(), rr = vi_zero();
    for (size_t i = 0; i < dim; i += 256) {
        const size_t n = dim - i;
        const __m256i a = n < 256 ? tail_b1(q, i, n) : load_b1(q, i);
        const __m256i b = n < 256 ? tail_b1(row, i, n) : load_b1(row, i);
        qr = dot_b1_part(qr, a, b);
        qq = dot_b1_part(qq, a, a);
        rr = dot_b1_part(rr, b, b);
    }
    return pe_cosine_of_sums((double)vi_sum(qr), (double)vi_sum(qq), (double)vi_sum(rr));
}

/* Conversions and the quantiser: whole vectors here, the last few elements through a buffer of one
 * vector, by the same code. */

#define BY_EIGHTS(in_type, out_type, call)                                                         \
    size_t i = 0;                                                                                  \
    for (; i + 8 <= n; i += 8)                                                                     \
        call(x + i, out + i);                                                                      \
    if (i < n) {                                                                                   \
        in_type in8[8] = {0};                                                                      \
        out_type out8[8];                                                                          \
        memcpy(in8, x + i, (n - i) * sizeof *in8);                                                 \
        call(in8, out8);                                                                           \
        memcpy(out + i, out8, (n - i) * sizeof *out8);                                             \
    }

PE_INLINE void f32_to_f16_8(const float *x, uint16_t *out)
{
    _mm_storeu_si128((void *)out, _mm256_cvtps_ph(_mm256_loadu_ps(x), _MM_FROUND_TO_NEAREST_INT));
}

static void f32_to_f16(const float *x, uint16_t *out,
                       size_t n){BY_EIGHTS(float, uint16_t, f32_to_f16_8)}

PE_INLINE void f16_to_f32_8(const uint16_t *x, float *out)
{
    _mm256_storeu_ps(out, _mm256_cvtph_ps(_mm_loadu_si128((const void *)x)));
}

static void f16_to_f32(const uint16_t *x, float *out,
                       size_t n){BY_EIGHTS(uint16_t, float, f16_to_f32_8)}

/* On the bits: adding 0x7fff and the last bit kept rounds to nearest even. */
PE_INLINE void f32_to_bf16_8(const float *x, uint16_t *out)
{
    const __m256i b = _mm256_loadu_si256((const void *)x);
    const __m256i last = _mm256_and_si256(_mm256_srli_epi32(b, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(b, _mm256_set1_epi32(0x7fff)), last);
    const __m256i nan = _mm256_cmpgt_epi32(_mm256_and_si256(b, _mm256_set1_epi32(0x7fffffff)),
                                           _mm256_set1_epi32(0x7f800000));
    const __m256i quiet = _mm256_or_si256(b, _mm256_set1_epi32(0x400000));
    const __m256i bits = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    _mm_storeu_si128((void *)out, _mm_packus_epi32(_mm256_castsi256_si128(bits),
                                                   _mm256_extracti128_si256(bits, 1)));
}

static void f32_to_bf16(const float *x, uint16_t *out,
                        size_t n){BY_EIGHTS(float, uint16_t, f32_to_bf16_8)}

PE_INLINE void bf16_to_f32_8(const uint16_t *x, float *out)
{
    _mm256_storeu_ps(out, from_bf16(_mm_loadu_si128((const void *)x)));
}

static void bf16_to_f32(const uint16_t *x, float *out, size_t n)
{
    BY_EIGHTS(uint16_t, float, bf16_to_f32_8)
}

typedef struct quantiser {
    __m256 lo, step, inverse;
    uint32_t clipped, inexact;
} quantiser;

/* The counts take the first `valid` of eight lanes. */
PE_INLINE void encode_8(quantiser *z, const float *x, int8_t *out, uint32_t valid)
{
    const __m256 v = _mm256_loadu_ps(x);
    const __m256 t = _mm256_mul_ps(_mm256_sub_ps(v, z->lo), z->inverse);
    const __m256 outside = _mm256_or_ps(_mm256_cmp_ps(t, _mm256_set1_ps(-0.5f), _CMP_LT_OQ),
                                        _mm256_cmp_ps(t, _mm256_set1_ps(255.5f), _CMP_GT_OQ));
    const __m256 inside =
        _mm256_min_ps(_mm256_max_ps(t, _mm256_setzero_ps()), _mm256_set1_ps(255.0f));
    const __m256i code = _mm256_cvtps_epi32(inside);
    const __m256 back = _mm256_add_ps(z->lo, _mm256_mul_ps(z->step, _mm256_cvtepi32_ps(code)));
    const __m256i same = _mm256_cmpeq_epi32(_mm256_castps_si256(back), _mm256_castps_si256(v));
    z->clipped += (uint32_t)__builtin_popcount((uint32_t)_mm256_movemask_ps(outside) & valid);
    z->inexact += (uint32_t)__builtin_popcount(
        ~(uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(same)) & valid);
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
    const __m128i bytes = _mm_packus_epi16(words, words);
    _mm_storel_epi64((void *)out, _mm_xor_si128(bytes, _mm_set1_epi8(-128)));
}

static void encode_i8(const float *x, size_t n, float lo, float step, int8_t *out,
                      uint32_t *clipped, uint32_t *inexact)
{
    quantiser z = {_mm256_set1_ps(lo), _mm256_set1_ps(step), _mm256_set1_ps(1.0f / step), 0, 0};
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        encode_8(&z, x + i, out + i, 0xff);
    if (i < n) {
        float in8[8] = {0};
        int8_t out8[8];
        memcpy(in8, x + i, (n - i) * sizeof *in8);
        encode_8(&z, in8, out8, (1u << (n - i)) - 1);
        memcpy(out + i, out8, n - i);
    }
    *clipped = z.clipped;
    *inexact = z.inexact;
}

static void decode_i8(const int8_t *code, size_t n, float lo, float step, float *out)
{
    const __m256 vlo = _mm256_set1_ps(lo), vstep = _mm256_set1_ps(step);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i c = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(code + i)));
        const __m256 level = _mm256_cvtepi32_ps(_mm256_add_epi32(c, _mm256_set1_epi32(128)));
        _mm256_storeu_ps(out + i, _mm256_add_ps(vlo, _mm256_mul_ps(vstep, level)));
    }
    for (; i < n; i++) {
        const float scaled = step * (float)(code[i] + 128);
        out[i] = lo + scaled;
    }
}

static int scan_f32(const float *x, size_t n, float *min, float *max)
{
    const __m256i exponent = _mm256_set1_epi32(0x7f800000);
    __m256 low = _mm256_set1_ps(__builtin_inff()), high = _mm256_set1_ps(-__builtin_inff());
    __m256i bad = _mm256_setzero_si256();
    for (size_t i = 0; i < n; i += 8) {
        const __m256i lanes = low_lanes(n - i < 8 ? n - i : 8);
        const __m256 v = _mm256_maskload_ps(x + i, lanes), m = _mm256_castsi256_ps(lanes);
        const __m256i e = _mm256_and_si256(_mm256_castps_si256(v), exponent);
        bad = _mm256_or_si256(bad, _mm256_cmpeq_epi32(e, exponent));
        low = _mm256_min_ps(low, _mm256_blendv_ps(low, v, m));
        high = _mm256_max_ps(high, _mm256_blendv_ps(high, v, m));
    }
    float lows[8], highs[8];
    _mm256_storeu_ps(lows, low);
    _mm256_storeu_ps(highs, high);
    for (int i = 1; i < 8; i++) {
        lows[0] = lows[i] < lows[0] ? lows[i] : lows[0];
        highs[0] = highs[i] > highs[0] ? highs[i] : highs[0];
    }
    *min = lows[0] + 0.0f;
    *max = highs[0] + 0.0f;
    return !_mm256_testz_si256(bad, bad);
}

static size_t near_f32(float *x, const float *norms, float norm, float bound, const float *bounds,
                       size_t n, uint32_t *out)
{
    const __m256 own = _mm256_set1_ps(norm), least = _mm256_set1_ps(bound);
    size_t found = 0;
    for (size_t j = 0; j < n; j += 8) {
        const __m256i lanes = low_lanes(n - j < 8 ? n - j : 8);
        const __m256 dot = _mm256_maskload_ps(x + j, lanes);
        const __m256 sum = _mm256_add_ps(own, _mm256_maskload_ps(norms + j, lanes));
        const __m256 d =
            _mm256_max_ps(_mm256_add_ps(sum, _mm256_add_ps(dot, dot)), _mm256_setzero_ps());
        _mm256_maskstore_ps(x + j, lanes, d);
        const __m256 theirs = _mm256_max_ps(least, _mm256_maskload_ps(bounds + j, lanes));
        const __m256 in =
            _mm256_and_ps(_mm256_cmp_ps(d, theirs, _CMP_LT_OQ), _mm256_castsi256_ps(lanes));
        for (unsigned bits = (unsigned)_mm256_movemask_ps(in); bits; bits &= bits - 1)
            out[found++] = (uint32_t)j + (uint32_t)__builtin_ctz(bits);
    }
    return found;
}

/* Fast-scan: two groups an instruction; see kernels_avx512.c for how bytes are summed. */

PE_INLINE void unmix(__m256i mixed, __m256i odd, __m256i total[2])
{
    const __m128i m =
        _mm_add_epi16(_mm256_castsi256_si128(mixed), _mm256_extracti128_si256(mixed, 1));
    const __m128i o = _mm_add_epi16(_mm256_castsi256_si128(odd), _mm256_extracti128_si256(odd, 1));
    const __m128i e = _mm_sub_epi16(m, _mm_slli_epi16(o, 8));
    total[0] = _mm256_add_epi32(total[0], _mm256_cvtepu16_epi32(_mm_unpacklo_epi16(e, o)));
    total[1] = _mm256_add_epi32(total[1], _mm256_cvtepu16_epi32(_mm_unpackhi_epi16(e, o)));
}

PE_INLINE __m256i two_groups(const uint8_t *p, size_t bytes)
{
    if (bytes >= 32)
        return _mm256_loadu_si256((const void *)p);
    return _mm256_zextsi128_si256(_mm_loadu_si128((const void *)p));
}

PE_INLINE void scan_sums(const uint8_t *codes, const uint8_t *tables, size_t groups, uint32_t *out)
{
    enum { FLUSH = 256 }; /* times 255 is just below 2^16 */
    const __m256i low = _mm256_set1_epi8(15), none = _mm256_setzero_si256();
    __m256i total[4] = {none, none, none, none};
    while (groups > 0) {
        const size_t bytes = 16 * (groups < FLUSH ? groups : FLUSH);
        __m256i a = none, a_odd = none, b = none, b_odd = none;
        for (size_t i = 0; i < bytes; i += 32) {
            const __m256i c = two_groups(codes + i, bytes - i);
            const __m256i t = two_groups(tables + i, bytes - i);
            const __m256i x = _mm256_shuffle_epi8(t, _mm256_and_si256(c, low));
            const __m256i y =
                _mm256_shuffle_epi8(t, _mm256_and_si256(_mm256_srli_epi16(c, 4), low));
            a = _mm256_add_epi16(a, x);
            a_odd = _mm256_add_epi16(a_odd, _mm256_srli_epi16(x, 8));
            b = _mm256_add_epi16(b, y);
            b_odd = _mm256_add_epi16(b_odd, _mm256_srli_epi16(y, 8));
        }
        unmix(a, a_odd, total);
        unmix(b, b_odd, total + 2);
        codes += bytes;
        tables += bytes;
        groups -= bytes / 16;
    }
    for (int i = 0; i < 4; i++)
        _mm256_store_si256((void *)(out + 8 * i), total[i]);
}

#define PV         8
#define pv_mask(v) ((uint32_t)_mm256_movemask_ps((__m256)(v)))
#include "kernels/kernels_scan.h"

void pe_kernels_fill_avx2(pe_kernels *k)
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
    k->level = "avx2";
}
