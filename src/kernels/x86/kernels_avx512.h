/* Integer helpers of both AVX-512 levels. Sums are modulo 2^32 and so exact wherever the whole sum
 * fits 32 bits, whatever the lanes did on the way. */
#ifndef PE_KERNELS_AVX512_H
#define PE_KERNELS_AVX512_H

#include <immintrin.h>

#include "kernels/kernels_level.h"

PE_INLINE __mmask16 low16(size_t n)
{
    return (__mmask16)((1u << n) - 1);
}

PE_INLINE __mmask32 low32(size_t n)
{
    return (__mmask32)((UINT64_C(1) << n) - 1);
}

PE_INLINE __mmask64 low64(size_t n)
{
    return (__mmask64)((UINT64_C(1) << n) - 1);
}

PE_INLINE __m512i load_bytes(const void *p, size_t i)
{
    return _mm512_loadu_si512((const unsigned char *)p + i);
}

/* The hardware prefetchers do not learn from masked loads: rows of 72 bytes 128 apart came from
 * memory at a fifth of the speed. So each tail is touched by a plain load too. */
PE_INLINE const void *touched(const void *p)
{
    (void)*(const volatile unsigned char *)p;
    return p;
}

/* n bytes, fewer than 64 but not none, then zeros. */
PE_INLINE __m512i tail_bytes(const void *p, size_t i, size_t n)
{
    return _mm512_maskz_loadu_epi8(low64(n), touched((const unsigned char *)p + i));
}

PE_INLINE __m512i vi_zero(void)
{
    return _mm512_setzero_si512();
}

PE_INLINE __m512i vi_add(__m512i a, __m512i b)
{
    return _mm512_add_epi32(a, b);
}

PE_INLINE uint32_t vi_sum(__m512i a)
{
    const __m256i half =
        _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti32x8_epi32(a, 1));
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e)); /* not reduce_add, which adds as signed */
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(s);
}

/* Four vectors' sums of sixteen 32-bit lanes each, transposed into one. */
PE_INLINE __m128i vi_sum4(const __m512i *a)
{
    const __m512i ab =
        _mm512_add_epi32(_mm512_unpacklo_epi32(a[0], a[1]), _mm512_unpackhi_epi32(a[0], a[1]));
    const __m512i cd =
        _mm512_add_epi32(_mm512_unpacklo_epi32(a[2], a[3]), _mm512_unpackhi_epi32(a[2], a[3]));
    const __m512i lanes =
        _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    const __m256i half =
        _mm256_add_epi32(_mm512_castsi512_si256(lanes), _mm512_extracti32x8_epi32(lanes, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* The sums as results: a squared distance or a count is unsigned, a dot product signed and turned
 * round while an integer: gcc 12 makes -x of 0.0f - (float)n, so that zero would come out as -0. */
PE_INLINE float l2_sum(__m512i a)
{
    return (float)vi_sum(a);
}

PE_INLINE void l2_sum4(const __m512i *a, float *out)
{
    _mm_storeu_ps(out, _mm_cvtepu32_ps(vi_sum4(a)));
}

PE_INLINE float dot_sum(__m512i a)
{
    return (float)-(int32_t)vi_sum(a);
}

PE_INLINE void dot_sum4(const __m512i *a, float *out)
{
    _mm_storeu_ps(out, _mm_cvtepi32_ps(_mm_sub_epi32(_mm_setzero_si128(), vi_sum4(a))));
}

#endif
