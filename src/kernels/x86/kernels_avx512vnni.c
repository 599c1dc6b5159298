/* AVX-512 with VNNI and VPOPCNTDQ: I8 in four products an instruction, bits counted in hardware.
 * (vdpbf16ps is not used: it wants the query in bfloat16 too, flushes denormals and rounds
 * otherwise, and from memory bf16 rows are bound by bandwidth anyway.)
 *
 * vpdpbusd multiplies unsigned by signed bytes and adds four products to 32 bits, without
 * saturating on the way; sums are modulo 2^32 and exact since the whole fits. dot: the row is
 * biased to unsigned by XOR 0x80: sum (r + 128) q = sum r q + 128 sum q, and 128 sum q is worked
 * out once per call. l2:  e = |q - r| as an unsigned byte (max - min), up to 255, does not fit the
 * signed side, so e * (e - 128) goes to one sum and e * -128 to another: their difference is sum
 * e^2. */
#include "kernels/x86/kernels_avx512.h"

typedef __m512i l2_i8_query;
typedef char l2_i8_once;
typedef struct l2_i8_acc {
    __m512i a, b; /* sum e * (e - 128), sum e * -128 */
} l2_i8_acc;

PE_INLINE size_t l2_i8_bytes(uint32_t dim)
{
    return dim;
}

PE_INLINE char l2_i8_prepare(const void *q, uint32_t dim)
{
    (void)q;
    (void)dim;
    return 0;
}

PE_INLINE l2_i8_acc l2_i8_zero(void)
{
    const l2_i8_acc a = {vi_zero(), vi_zero()};
    return a;
}

PE_INLINE l2_i8_acc l2_i8_join(l2_i8_acc x, l2_i8_acc y)
{
    const l2_i8_acc a = {vi_add(x.a, y.a), vi_add(x.b, y.b)};
    return a;
}

PE_INLINE __m512i l2_i8_load(const void *q, size_t i)
{
    return load_bytes(q, i);
}

PE_INLINE __m512i l2_i8_load_tail(const void *q, size_t i, size_t n)
{
    return tail_bytes(q, i, n);
}

PE_INLINE l2_i8_acc l2_i8_part(l2_i8_acc s, __m512i q, __m512i r)
{
    const __m512i bias = _mm512_set1_epi8(-128);
    const __m512i e = _mm512_sub_epi8(_mm512_max_epi8(q, r), _mm512_min_epi8(q, r));
    s.a = _mm512_dpbusd_epi32(s.a, e, _mm512_xor_si512(e, bias));
    s.b = _mm512_dpbusd_epi32(s.b, e, bias);
    return s;
}

PE_INLINE l2_i8_acc l2_i8_step(l2_i8_acc s, __m512i q, const void *row, size_t i)
{
    return l2_i8_part(s, q, load_bytes(row, i));
}

PE_INLINE l2_i8_acc l2_i8_step_tail(l2_i8_acc s, __m512i q, const void *row, size_t i, size_t n)
{
    return l2_i8_part(s, q, tail_bytes(row, i, n));
}

PE_INLINE float l2_i8_finish(char once, l2_i8_acc s)
{
    (void)once;
    return l2_sum(_mm512_sub_epi32(s.a, s.b));
}

PE_INLINE void l2_i8_finish4(char once, const l2_i8_acc *s, float *out)
{
    (void)once;
    const __m512i a[4] = {_mm512_sub_epi32(s[0].a, s[0].b), _mm512_sub_epi32(s[1].a, s[1].b),
                          _mm512_sub_epi32(s[2].a, s[2].b), _mm512_sub_epi32(s[3].a, s[3].b)};
    l2_sum4(a, out);
}

typedef __m512i dot_i8_query;
typedef __m512i dot_i8_acc;
typedef int32_t dot_i8_once; /* 128 sum q: below 2^30 */

PE_INLINE size_t dot_i8_bytes(uint32_t dim)
{
    return dim;
}

PE_INLINE int32_t dot_i8_prepare(const void *q, uint32_t dim)
{
    const __m512i by = _mm512_set1_epi8(-128);
    __m512i a = vi_zero(), b = vi_zero();
    size_t i = 0;
    for (; i + 128 <= dim; i += 128) {
        a = _mm512_dpbusd_epi32(a, by, load_bytes(q, i));
        b = _mm512_dpbusd_epi32(b, by, load_bytes(q, i + 64));
    }
    if (i + 64 <= dim) {
        a = _mm512_dpbusd_epi32(a, by, load_bytes(q, i));
        i += 64;
    }
    if (i < dim)
        b = _mm512_dpbusd_epi32(b, by, tail_bytes(q, i, dim - i));
    return (int32_t)vi_sum(vi_add(a, b));
}

PE_INLINE __m512i dot_i8_zero(void)
{
    return vi_zero();
}

PE_INLINE __m512i dot_i8_join(__m512i a, __m512i b)
{
    return vi_add(a, b);
}

PE_INLINE __m512i dot_i8_load(const void *q, size_t i)
{
    return load_bytes(q, i);
}

PE_INLINE __m512i dot_i8_load_tail(const void *q, size_t i, size_t n)
{
    return tail_bytes(q, i, n);
}

PE_INLINE __m512i dot_i8_part(__m512i a, __m512i q, __m512i r)
{
    return _mm512_dpbusd_epi32(a, _mm512_xor_si512(r, _mm512_set1_epi8(-128)), q);
}

PE_INLINE __m512i dot_i8_step(__m512i a, __m512i q, const void *row, size_t i)
{
    return dot_i8_part(a, q, load_bytes(row, i));
}

PE_INLINE __m512i dot_i8_step_tail(__m512i a, __m512i q, const void *row, size_t i, size_t n)
{
    return dot_i8_part(a, q, tail_bytes(row, i, n));
}

PE_INLINE float dot_i8_finish(int32_t once, __m512i a)
{
    return (float)(once - (int32_t)vi_sum(a));
}

PE_INLINE void dot_i8_finish4(int32_t once, const __m512i *a, float *out)
{
    _mm_storeu_ps(out, _mm_cvtepi32_ps(_mm_sub_epi32(_mm_set1_epi32(once), vi_sum4(a))));
}

/* 65,535 bits at most: 32-bit sums of the 64-bit counts serve. */
PE_INLINE __m512i load_b1(const void *p, size_t i)
{
    return load_bytes(p, i / 8);
}

PE_INLINE __m512i tail_b1(const void *p, size_t i, size_t n)
{
    return tail_bytes(p, i / 8, n / 8);
}

PE_INLINE __m512i l2_b1_part(__m512i a, __m512i q, __m512i r)
{
    return vi_add(a, _mm512_popcnt_epi64(_mm512_xor_si512(q, r)));
}

PE_INLINE __m512i dot_b1_part(__m512i a, __m512i q, __m512i r)
{
    return vi_add(a, _mm512_popcnt_epi64(_mm512_and_si512(q, r)));
}

PE_PLAIN(l2_b1, __m512i, __m512i, vi, l2_b1_part, b1, b1, l2, 1)
PE_PLAIN(dot_b1, __m512i, __m512i, vi, dot_b1_part, b1, b1, dot, 1)

#define PK_PASS  4
#define PK_EXACT 1

#define PK_W      64
#define PK_LONG   512
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

void pe_kernels_fill_avx512vnni(pe_kernels *k)
{
    PE_FILL(k, PE_OP_L2, PE_ELEM_I8, l2_i8);
    PE_FILL(k, PE_OP_DOT, PE_ELEM_I8, dot_i8);
    PE_FILL(k, PE_OP_L2, PE_ELEM_B1, l2_b1);
    PE_FILL(k, PE_OP_DOT, PE_ELEM_B1, dot_b1);
    k->level = "avx512vnni";
}
