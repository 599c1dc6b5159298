/* Integer helpers of both Arm levels. Sums are modulo 2^32 and so exact wherever the whole sum fits
 * 32 bits, whatever the lanes did on the way. */
#ifndef PE_KERNELS_NEON_H
#define PE_KERNELS_NEON_H

#include <arm_neon.h>

#include "kernels/kernels_level.h"

/* n bytes, fewer than 16, then zeros. */
PE_INLINE uint8x16_t part_of_16(const void *p, size_t n)
{
    const pe_part part = pe_part_of_16(p, n);
    return vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(part.low), vcreate_u64(part.high)));
}

PE_INLINE uint32x4_t vi_zero(void)
{
    return vdupq_n_u32(0);
}

PE_INLINE uint32x4_t vi_add(uint32x4_t a, uint32x4_t b)
{
    return vaddq_u32(a, b);
}

PE_INLINE uint32_t vi_sum(uint32x4_t a)
{
    return vaddvq_u32(a);
}

PE_INLINE uint32x4_t vi_sum4(const uint32x4_t *a)
{
    return vpaddq_u32(vpaddq_u32(a[0], a[1]), vpaddq_u32(a[2], a[3]));
}

/* The sums as results: a squared distance or a count is unsigned, a dot product signed and turned
 * round while an integer, so that zero stays +0. */
PE_INLINE float l2_sum(uint32x4_t a)
{
    return (float)vi_sum(a);
}

PE_INLINE void l2_sum4(const uint32x4_t *a, float *out)
{
    vst1q_f32(out, vcvtq_f32_u32(vi_sum4(a)));
}

PE_INLINE float dot_sum(uint32x4_t a)
{
    return (float)-(int32_t)vi_sum(a);
}

PE_INLINE void dot_sum4(const uint32x4_t *a, float *out)
{
    vst1q_f32(out, vcvtq_f32_s32(vnegq_s32(vreinterpretq_s32_u32(vi_sum4(a)))));
}

PE_INLINE int8x16_t load_i8(const void *p, size_t i)
{
    return vld1q_s8((const int8_t *)p + i);
}

PE_INLINE int8x16_t tail_i8(const void *p, size_t i, size_t n)
{
    return vreinterpretq_s8_u8(part_of_16((const int8_t *)p + i, n));
}

#endif
