/* NEON with the dot product (armv8.2-a+dotprod): I8 sixteen products at a time, exact. For L2 the
 * difference's magnitude, up to 255, is an unsigned byte, and udot squares it as it is. */
#include "kernels/arm/kernels_neon.h"

PE_INLINE uint32x4_t l2_i8_part(uint32x4_t a, int8x16_t q, int8x16_t r)
{
    const uint8x16_t e = vreinterpretq_u8_s8(vabdq_s8(q, r));
    return vdotq_u32(a, e, e);
}

PE_INLINE uint32x4_t dot_i8_part(uint32x4_t a, int8x16_t q, int8x16_t r)
{
    return vreinterpretq_u32_s32(vdotq_s32(vreinterpretq_s32_u32(a), q, r));
}

PE_PLAIN(l2_i8, int8x16_t, uint32x4_t, vi, l2_i8_part, i8, i8, l2, 8)
PE_PLAIN(dot_i8, int8x16_t, uint32x4_t, vi, dot_i8_part, i8, i8, dot, 8)

#define PK_PASS   4
#define PK_EXACT  1
#define PK_W      16
#define PK_LONG   128
#define PK_MEDIUM 64
#define PK(x)     l2_i8_##x
#include "kernels/kernels_rows.h"
#define PK(x) dot_i8_##x
#include "kernels/kernels_rows.h"

void pe_kernels_fill_neon_dot(pe_kernels *k)
{
    PE_FILL(k, PE_OP_L2, PE_ELEM_I8, l2_i8);
    PE_FILL(k, PE_OP_DOT, PE_ELEM_I8, dot_i8);
    k->level = "neon-dot";
}
