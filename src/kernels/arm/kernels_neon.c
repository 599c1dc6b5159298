/* NEON, the floor of 64-bit Arm: 4 floats a step. Bounds: kernels.h, with n / 4. Tails are put
 * together from whole words within the row.
 * I8 is widened to 16 bits and multiplied to 32; wrapping sums are exact since whole ones fit
 * unsigned 32 bits, 65,535 * 255^2 the largest. */
#include "kernels/arm/kernels_neon.h"

#define VF_W      4
#define VF_LONG   64
#define VF_MEDIUM 32
#define VF_PASS   4
#define VF_TILE_Q 6

typedef float32x4_t vf;

PE_INLINE vf vf_zero(void)
{
    return vdupq_n_f32(0);
}

PE_INLINE vf vf_add(vf a, vf b)
{
    return vaddq_f32(a, b);
}

PE_INLINE vf vf_sub(vf a, vf b)
{
    return vsubq_f32(a, b);
}

PE_INLINE vf vf_fma(vf a, vf b, vf c)
{
    return vfmaq_f32(c, a, b);
}

PE_INLINE vf vf_fnma(vf a, vf b, vf c)
{
    return vfmsq_f32(c, a, b);
}

/* By bytes: a row of floats may begin anywhere. */
PE_INLINE vf load_f32(const void *p, size_t i)
{
    return vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)p + 4 * i));
}

PE_INLINE vf tail_f32(const void *p, size_t i, size_t n)
{
    return vreinterpretq_f32_u8(part_of_16((const uint8_t *)p + 4 * i, 4 * n));
}

PE_INLINE uint16x4_t load_16bit(const void *p, size_t i)
{
    return vreinterpret_u16_u8(vld1_u8((const uint8_t *)p + 2 * i));
}

PE_INLINE uint16x4_t tail_16bit(const void *p, size_t i, size_t n)
{
    return vcreate_u16(pe_part_of_16((const uint8_t *)p + 2 * i, 2 * n).low);
}

PE_INLINE vf from_f16(uint16x4_t x)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(x));
}

PE_INLINE vf from_bf16(uint16x4_t x)
{
    return vreinterpretq_f32_u32(vshll_n_u16(x, 16));
}

PE_INLINE vf load_f16(const void *p, size_t i)
{
    return from_f16(load_16bit(p, i));
}

PE_INLINE vf tail_f16(const void *p, size_t i, size_t n)
{
    return from_f16(tail_16bit(p, i, n));
}

PE_INLINE vf load_bf16(const void *p, size_t i)
{
    return from_bf16(load_16bit(p, i));
}

PE_INLINE vf tail_bf16(const void *p, size_t i, size_t n)
{
    return from_bf16(tail_16bit(p, i, n));
}

/* Both sums add in this order: lanes 0 and 1, 2 and 3, and those. */
PE_INLINE float vf_sum(vf a)
{
    const vf pairs = vpaddq_f32(a, a);
    return vgetq_lane_f32(vpaddq_f32(pairs, pairs), 0);
}

PE_INLINE void vf_sum4(const vf *a, float *out)
{
    vst1q_f32(out, vpaddq_f32(vpaddq_f32(a[0], a[1]), vpaddq_f32(a[2], a[3])));
}

#include "kernels/kernels_float.h"

/* I8 and B1. */

PE_INLINE uint32x4_t add_products(uint32x4_t a, int16x8_t x, int16x8_t y)
{
    int32x4_t s = vreinterpretq_s32_u32(a);
    s = vmlal_s16(s, vget_low_s16(x), vget_low_s16(y));
    return vreinterpretq_u32_s32(vmlal_high_s16(s, x, y));
}

PE_INLINE uint32x4_t l2_i8_part(uint32x4_t a, int8x16_t q, int8x16_t r)
{
    const int16x8_t low = vsubl_s8(vget_low_s8(q), vget_low_s8(r)), high = vsubl_high_s8(q, r);
    return add_products(add_products(a, low, low), high, high);
}

PE_INLINE uint32x4_t dot_i8_part(uint32x4_t a, int8x16_t q, int8x16_t r)
{
    int32x4_t s = vreinterpretq_s32_u32(a);
    s = vpadalq_s16(s, vmull_s8(vget_low_s8(q), vget_low_s8(r)));
    return vreinterpretq_u32_s32(vpadalq_s16(s, vmull_high_s8(q, r)));
}

PE_PLAIN(l2_i8, int8x16_t, uint32x4_t, vi, l2_i8_part, i8, i8, l2, 8)
PE_PLAIN(dot_i8, int8x16_t, uint32x4_t, vi, dot_i8_part, i8, i8, dot, 8)

PE_INLINE uint8x16_t load_b1(const void *p, size_t i)
{
    return vld1q_u8((const uint8_t *)p + i / 8);
}

PE_INLINE uint8x16_t tail_b1(const void *p, size_t i, size_t n)
{
    return part_of_16((const uint8_t *)p + i / 8, n / 8);
}

PE_INLINE uint32x4_t add_bits(uint32x4_t a, uint8x16_t x)
{
    return vpadalq_u16(a, vpaddlq_u8(vcntq_u8(x)));
}

PE_INLINE uint32x4_t l2_b1_part(uint32x4_t a, uint8x16_t q, uint8x16_t r)
{
    return add_bits(a, veorq_u8(q, r));
}

PE_INLINE uint32x4_t dot_b1_part(uint32x4_t a, uint8x16_t q, uint8x16_t r)
{
    return add_bits(a, vandq_u8(q, r));
}

PE_PLAIN(l2_b1, uint8x16_t, uint32x4_t, vi, l2_b1_part, b1, b1, l2, 1)
PE_PLAIN(dot_b1, uint8x16_t, uint32x4_t, vi, dot_b1_part, b1, b1, dot, 1)

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

#define PK_W      128
#define PK_LONG   2048
#define PK_MEDIUM 512
#define PK(x)     l2_b1_##x
#include "kernels/kernels_rows.h"
#define PK(x) dot_b1_##x
#include "kernels/kernels_rows.h"

/* Sums of a pair for the cosine: products up to 2^14, 65,535 of them below 2^30. */
static float cosine_i8(const void *q, const void *row, uint32_t dim)
{
    uint32x4_t qr = vi_zero(), qq = vi_zero(), rr = vi_zero();
    for (size_t i = 0; i < dim; i += 16) {
        const size_t n = dim - i;
        const int8x16_t a = n < 16 ? tail_i8(q, i, n) : load_i8(q, i);
        const int8x16_t b = n < 16 ? tail_i8(row, i, n) : load_i8(row, i);
        qr = dot_i8_part(qr, a, b);
        qq = dot_i8_part(qq, a, a);
        rr = dot_i8_part(rr, b, b);
    }
    return pe_cosine_of_sums((double)(int32_t)vi_sum(qr), (double)vi_sum(qq), (double)vi_sum(rr));
}

static float cosine_b1(const void *q, const void *row, uint32_t dim)
{
    uint32x4_t qr = vi_zero(), qq = vi_zero(), rr = vi_zero();
    for (size_t i = 0; i < dim; i += 128) {
        const size_t n = dim - i;
        const uint8x16_t a = n < 128 ? tail_b1(q, i, n) : load_b1(q, i);
        const uint8x16_t b = n < 128 ? tail_b1(row, i, n) : load_b1(row, i);
        qr = dot_b1_part(qr, a, b);
        qq = add_bits(qq, a);
        rr = add_bits(rr, b);
    }
    return pe_cosine_of_sums((double)vi_sum(qr), (double)vi_sum(qq), (double)vi_sum(rr));
}

/* Conversions and the quantiser: whole vectors here, the last few elements through a buffer of one
 * vector, by the same code. */

#define BY_FOURS(in_type, out_type, call)                                                          \
    size_t i = 0;                                                                                  \
    for (; i + 4 <= n; i += 4)                                                                     \
        call(x + i, out + i);                                                                      \
    if (i < n) {                                                                                   \
        in_type in4[4] = {0};                                                                      \
        out_type out4[4];                                                                          \
        memcpy(in4, x + i, (n - i) * sizeof *in4);                                                 \
        call(in4, out4);                                                                           \
        memcpy(out + i, out4, (n - i) * sizeof *out4);                                             \
    }

PE_INLINE void f32_to_f16_4(const float *x, uint16_t *out)
{
    vst1_u16(out, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x))));
}

static void f32_to_f16(const float *x, uint16_t *out,
                       size_t n){BY_FOURS(float, uint16_t, f32_to_f16_4)}

PE_INLINE void f16_to_f32_4(const uint16_t *x, float *out)
{
    vst1q_f32(out, from_f16(vld1_u16(x)));
}

static void f16_to_f32(const uint16_t *x, float *out,
                       size_t n){BY_FOURS(uint16_t, float, f16_to_f32_4)}

/* On the bits: adding 0x7fff and the last bit kept rounds to nearest even. */
PE_INLINE void f32_to_bf16_4(const float *x, uint16_t *out)
{
    const float32x4_t v = vld1q_f32(x);
    const uint32x4_t b = vreinterpretq_u32_f32(v);
    const uint32x4_t last = vandq_u32(vshrq_n_u32(b, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(vaddq_u32(b, vdupq_n_u32(0x7fff)), last);
    const uint32x4_t number = vceqq_f32(v, v), quiet = vorrq_u32(b, vdupq_n_u32(0x400000));
    vst1_u16(out, vshrn_n_u32(vbslq_u32(number, rounded, quiet), 16));
}

static void f32_to_bf16(const float *x, uint16_t *out,
                        size_t n){BY_FOURS(float, uint16_t, f32_to_bf16_4)}

PE_INLINE void bf16_to_f32_4(const uint16_t *x, float *out)
{
    vst1q_f32(out, from_bf16(vld1_u16(x)));
}

static void bf16_to_f32(const uint16_t *x, float *out, size_t n)
{
    BY_FOURS(uint16_t, float, bf16_to_f32_4)
}

typedef struct quantiser {
    float32x4_t lo, step, inverse;
    uint32_t clipped, inexact;
} quantiser;

/* The counts take the first `valid` of four lanes. */
PE_INLINE void encode_4(quantiser *z, const float *x, int8_t *out, size_t valid)
{
    static const uint32_t LANES[4] = {0, 1, 2, 3};
    const uint32x4_t count =
        vandq_u32(vcltq_u32(vld1q_u32(LANES), vdupq_n_u32((uint32_t)valid)), vdupq_n_u32(1));
    const float32x4_t v = vld1q_f32(x);
    const float32x4_t t = vmulq_f32(vsubq_f32(v, z->lo), z->inverse);
    const uint32x4_t outside =
        vorrq_u32(vcltq_f32(t, vdupq_n_f32(-0.5f)), vcgtq_f32(t, vdupq_n_f32(255.5f)));
    const float32x4_t inside = vminnmq_f32(vmaxnmq_f32(t, vdupq_n_f32(0)), vdupq_n_f32(255));
    const int32x4_t code = vcvtnq_s32_f32(inside);
    const float32x4_t back = vaddq_f32(z->lo, vmulq_f32(z->step, vcvtq_f32_s32(code)));
    const uint32x4_t same = vceqq_u32(vreinterpretq_u32_f32(back), vreinterpretq_u32_f32(v));
    z->clipped += vaddvq_u32(vandq_u32(outside, count));
    z->inexact += vaddvq_u32(vbicq_u32(count, same));
    int32_t biased[4];
    vst1q_s32(biased, vsubq_s32(code, vdupq_n_s32(128)));
    for (int i = 0; i < 4; i++)
        out[i] = (int8_t)biased[i];
}

static void encode_i8(const float *x, size_t n, float lo, float step, int8_t *out,
                      uint32_t *clipped, uint32_t *inexact)
{
    quantiser z = {vdupq_n_f32(lo), vdupq_n_f32(step), vdupq_n_f32(1.0f / step), 0, 0};
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        encode_4(&z, x + i, out + i, 4);
    if (i < n) {
        float in4[4] = {0};
        int8_t out4[4];
        memcpy(in4, x + i, (n - i) * sizeof *in4);
        encode_4(&z, in4, out4, n - i);
        memcpy(out + i, out4, n - i);
    }
    *clipped = z.clipped;
    *inexact = z.inexact;
}

static int scan_f32(const float *x, size_t n, float *min, float *max)
{
    const uint32x4_t exponent = vdupq_n_u32(0x7f800000);
    float32x4_t low = vdupq_n_f32(__builtin_inff()), high = vdupq_n_f32(-__builtin_inff());
    uint32x4_t bad = vdupq_n_u32(0);
    for (size_t i = 0; i < n; i += 4) {
        float last[4] = {x[i], x[i], x[i], x[i]}; /* the rest of the last four is no news */
        if (n - i < 4)
            memcpy(last, x + i, (n - i) * sizeof *last);
        const float32x4_t v = vld1q_f32(n - i < 4 ? last : x + i);
        const uint32x4_t e = vandq_u32(vreinterpretq_u32_f32(v), exponent);
        bad = vorrq_u32(bad, vceqq_u32(e, exponent));
        low = vminq_f32(low, v);
        high = vmaxq_f32(high, v);
    }
    *min = vminvq_f32(low) + 0.0f;
    *max = vmaxvq_f32(high) + 0.0f;
    return vmaxvq_u32(bad) != 0;
}

/* Fast-scan: a group an instruction, its bytes widened into sums of 16 bits. */

PE_INLINE void flush_sums(uint16x8_t sum, uint32_t *out)
{
    vst1q_u32(out, vaddw_u16(vld1q_u32(out), vget_low_u16(sum)));
    vst1q_u32(out + 4, vaddw_high_u16(vld1q_u32(out + 4), sum));
}

PE_INLINE void scan_sums(const uint8_t *codes, const uint8_t *tables, size_t groups, uint32_t *out)
{
    enum { FLUSH = 256 }; /* times 255 is just below 2^16 */
    memset(out, 0, 32 * sizeof *out);
    while (groups > 0) {
        const size_t n = groups < FLUSH ? groups : FLUSH;
        uint16x8_t sum[4] = {vdupq_n_u16(0), vdupq_n_u16(0), vdupq_n_u16(0), vdupq_n_u16(0)};
        for (size_t g = 0; g < n; g++, codes += 16, tables += 16) {
            const uint8x16_t c = vld1q_u8(codes), t = vld1q_u8(tables);
            const uint8x16_t x = vqtbl1q_u8(t, vandq_u8(c, vdupq_n_u8(15)));
            const uint8x16_t y = vqtbl1q_u8(t, vshrq_n_u8(c, 4));
            sum[0] = vaddw_u8(sum[0], vget_low_u8(x));
            sum[1] = vaddw_high_u8(sum[1], x);
            sum[2] = vaddw_u8(sum[2], vget_low_u8(y));
            sum[3] = vaddw_high_u8(sum[3], y);
        }
        for (int i = 0; i < 4; i++)
            flush_sums(sum[i], out + 8 * i);
        groups -= n;
    }
}

PE_INLINE uint32_t pv_mask_of(uint32x4_t v)
{
    static const uint32_t BITS[4] = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(v, vld1q_u32(BITS)));
}

#define PV         4
#define pv_mask(v) pv_mask_of((uint32x4_t)(v))
#include "kernels/kernels_scan.h"

/* decode_i8 stays with the C level: the compiler vectorises it for the floor, which is NEON. */
void pe_kernels_fill_neon(pe_kernels *k)
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
    k->scan_f32 = scan_f32;
    k->level = "neon";
}
