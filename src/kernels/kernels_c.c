/* The reference level: plain C for any CPU, compiled at the platform's floor. It shares no code
 * with the SIMD levels, so that one's mistake cannot hide in the other. Eight partial sums, which
 * the compiler may put in whatever vectors the floor has; bounds: kernels.h, with n / 8. */
#include <math.h>

#include "kernels/kernels_level.h"

/* One element as f32. */

static inline uint32_t bits_of(float x)
{
    uint32_t b;
    memcpy(&b, &x, sizeof b);
    return b;
}

static inline float float_of(uint32_t b)
{
    float x;
    memcpy(&x, &b, sizeof x);
    return x;
}

/* Half to float without a branch on the common path: the exponent is moved up by a multiplication,
 * which also normalises denormals. Infinities and NaNs land on the largest exponent by hand. */
static inline float half_to_float(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t rest = (uint32_t)(h & 0x7fffu) << 13;
    uint32_t b = bits_of(float_of(rest) * 0x1p112f);
    if (rest >= 0x0f800000u) {
        b = rest | 0x7f800000u;
        if (b & 0x007fffffu)
            b |= 0x00400000u; /* quiet */
    }
    return float_of(b | sign);
}

static inline uint16_t float_to_half(float x)
{
    const uint32_t b = bits_of(x), abs = b & 0x7fffffffu, sign = b >> 16 & 0x8000u;
    if (abs > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (abs >> 13 & 0x3ffu));
    if (abs >= 0x477ff000u) /* 65,520 and more round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (abs < 0x38800000u) { /* denormal: adding 0.5 leaves its bits, rounded, at the end */
        const uint32_t d = bits_of(float_of(abs) + 0.5f) - 0x3f000000u;
        return (uint16_t)(sign | d);
    }
    const uint32_t rounded = abs - 0x38000000u + 0xfffu + (abs >> 13 & 1u);
    return (uint16_t)(sign | rounded >> 13);
}

static inline float bfloat_to_float(uint16_t h)
{
    return float_of((uint32_t)h << 16);
}

static inline uint16_t float_to_bfloat(float x)
{
    const uint32_t b = bits_of(x);
    if ((b & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((b | 0x400000u) >> 16);
    return (uint16_t)((b + 0x7fffu + (b >> 16 & 1u)) >> 16);
}

static inline float same(float x)
{
    return x;
}

/* One pair. Rows may begin anywhere, which the types say. */

typedef float loose_f32 __attribute__((aligned(1), may_alias));
typedef uint16_t loose_u16 __attribute__((aligned(1), may_alias));

enum { CHAINS = 8 };

static inline float sum_chains(const float *s)
{
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

#define L2_PART(q, r)  ((q) - (r)) * ((q) - (r))
#define DOT_PART(q, r) -((q) * (r))

#define FLOAT_ONE(name, type, as_float, PART)                                                      \
    static float name##_one(const void *query, const void *row, uint32_t dim)                      \
    {                                                                                              \
        const loose_f32 *q = query;                                                                \
        const type *r = row;                                                                       \
        float s[CHAINS] = {0};                                                                     \
        size_t i = 0;                                                                              \
        for (; i + CHAINS <= dim; i += CHAINS)                                                     \
            for (size_t c = 0; c < CHAINS; c++)                                                    \
                s[c] += PART(q[i + c], as_float(r[i + c]));                                        \
        for (size_t c = 0; i < dim; i++, c++)                                                      \
            s[c] += PART(q[i], as_float(r[i]));                                                    \
        return sum_chains(s);                                                                      \
    }

FLOAT_ONE(l2_f32, loose_f32, same, L2_PART)
FLOAT_ONE(l2_f16, loose_u16, half_to_float, L2_PART)
FLOAT_ONE(l2_bf16, loose_u16, bfloat_to_float, L2_PART)
FLOAT_ONE(dot_f32, loose_f32, same, DOT_PART)
FLOAT_ONE(dot_f16, loose_u16, half_to_float, DOT_PART)
FLOAT_ONE(dot_bf16, loose_u16, bfloat_to_float, DOT_PART)

/* 65,535 squares of up to 255^2 are below 2^32. */
static float l2_i8_one(const void *query, const void *row, uint32_t dim)
{
    const int8_t *q = query, *r = row;
    uint32_t sum = 0;
    for (size_t i = 0; i < dim; i++) {
        const int d = q[i] - r[i];
        sum += (uint32_t)(d * d);
    }
    return (float)sum;
}

static float dot_i8_one(const void *query, const void *row, uint32_t dim)
{
    const int8_t *q = query, *r = row;
    int32_t sum = 0;
    for (size_t i = 0; i < dim; i++)
        sum += q[i] * r[i];
    return (float)-sum;
}

static inline uint32_t count_bits(uint64_t x)
{
    x -= x >> 1 & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (uint32_t)(x * 0x0101010101010101u >> 56);
}

#define XOR(a, b) ((a) ^ (b))
#define AND(a, b) ((a) & (b))

#define BIT_COUNT(name, OP)                                                                        \
    static uint32_t name(const void *query, const void *row, uint32_t dim)                         \
    {                                                                                              \
        const unsigned char *q = query, *r = row;                                                  \
        const size_t bytes = dim / 8;                                                              \
        uint32_t sum = 0;                                                                          \
        size_t i = 0;                                                                              \
        for (; i + 8 <= bytes; i += 8) {                                                           \
            uint64_t a, b;                                                                         \
            memcpy(&a, q + i, 8);                                                                  \
            memcpy(&b, r + i, 8);                                                                  \
            sum += count_bits(OP(a, b));                                                           \
        }                                                                                          \
        for (; i < bytes; i++)                                                                     \
            sum += count_bits(OP((uint64_t)q[i], (uint64_t)r[i]));                                 \
        return sum;                                                                                \
    }

BIT_COUNT(bits_xor, XOR)
BIT_COUNT(bits_and, AND)

static float l2_b1_one(const void *query, const void *row, uint32_t dim)
{
    return (float)bits_xor(query, row, dim);
}

static float dot_b1_one(const void *query, const void *row, uint32_t dim)
{
    return (float)-(int32_t)bits_and(query, row, dim);
}

/* Four, by slot, in sequence. */

#define MANY(name, row_bytes)                                                                      \
    static void name##_four(const void *q, const void *const rows[4], uint32_t dim, float out[4])  \
    {                                                                                              \
        for (int i = 0; i < 4; i++)                                                                \
            out[i] = name##_one(q, rows[i], dim);                                                  \
    }                                                                                              \
    static void name##_ids(const void *q, const pe_rowview *v, const uint32_t *slots, size_t n,    \
                           float *out)                                                             \
    {                                                                                              \
        const pe_ahead ahead = pe_ahead_for(v, row_bytes(v->dim));                                 \
        for (size_t i = 0; i < n && i < ahead.rows; i++)                                           \
            pe_prefetch_row(pe_rowview_at(v, slots[i]), ahead.lines);                              \
        for (size_t i = 0; i < n; i++) {                                                           \
            if (i + ahead.rows < n)                                                                \
                pe_prefetch_row(pe_rowview_at(v, slots[i + ahead.rows]), ahead.lines);             \
            out[i] = name##_one(q, pe_rowview_at(v, slots[i]), v->dim);                            \
        }                                                                                          \
    }                                                                                              \
    static void name##_run(const void *q, const void *rows, size_t stride, uint32_t dim, size_t n, \
                           float *out)                                                             \
    {                                                                                              \
        for (size_t i = 0; i < n; i++)                                                             \
            out[i] = name##_one(q, (const unsigned char *)rows + i * stride, dim);                 \
    }

#define BYTES_4(dim) ((size_t)(dim)*4)
#define BYTES_2(dim) ((size_t)(dim)*2)
#define BYTES_1(dim) ((size_t)(dim))
#define BYTES_B(dim) ((size_t)(dim) / 8)

MANY(l2_f32, BYTES_4)
MANY(l2_f16, BYTES_2)
MANY(l2_bf16, BYTES_2)
MANY(l2_i8, BYTES_1)
MANY(l2_b1, BYTES_B)
MANY(dot_f32, BYTES_4)
MANY(dot_f16, BYTES_2)
MANY(dot_bf16, BYTES_2)
MANY(dot_i8, BYTES_1)
MANY(dot_b1, BYTES_B)

/* Cosine, in double: the products of floats are exact there and nothing leaves the range. */

float pe_cosine_of_sums(double qr, double qq, double rr)
{
    if (qq == 0.0 || rr == 0.0)
        return 1.0f;
    const double d = 1.0 - qr / (sqrt(qq) * sqrt(rr));
    return d < 0.0 ? 0.0f : d > 2.0 ? 2.0f : (float)d;
}

#define COSINE(elem, type, as_float)                                                               \
    float pe_cosine_rescue_##elem(const void *query, const void *row, uint32_t dim)                \
    {                                                                                              \
        const loose_f32 *q = query;                                                                \
        const type *r = row;                                                                       \
        double qr = 0, qq = 0, rr = 0;                                                             \
        for (size_t i = 0; i < dim; i++) {                                                         \
            const double a = (double)q[i], b = (double)as_float(r[i]);                             \
            qr += a * b;                                                                           \
            qq += a * a;                                                                           \
            rr += b * b;                                                                           \
        }                                                                                          \
        return pe_cosine_of_sums(qr, qq, rr);                                                      \
    }                                                                                              \
    static float cosine_##elem(const void *q, const void *row, uint32_t dim)                       \
    {                                                                                              \
        return pe_cosine_rescue_##elem(q, row, dim);                                               \
    }

COSINE(f32, loose_f32, same)
COSINE(f16, loose_u16, half_to_float)
COSINE(bf16, loose_u16, bfloat_to_float)

static float cosine_i8(const void *query, const void *row, uint32_t dim)
{
    const int8_t *q = query, *r = row;
    int32_t qr = 0, qq = 0, rr = 0; /* 65,535 products of up to 2^14 */
    for (size_t i = 0; i < dim; i++) {
        qr += q[i] * r[i];
        qq += q[i] * q[i];
        rr += r[i] * r[i];
    }
    return pe_cosine_of_sums((double)qr, (double)qq, (double)rr);
}

static float cosine_b1(const void *q, const void *row, uint32_t dim)
{
    return pe_cosine_of_sums((double)bits_and(q, row, dim), (double)bits_and(q, q, dim),
                             (double)bits_and(row, row, dim));
}

static void tile_dot_f32(const float *q, size_t q_stride, size_t nq, const float *rows,
                         size_t r_stride, size_t nr, uint32_t dim, float *out, size_t ld)
{
    for (size_t j = 0; j < nr; j++)
        for (size_t i = 0; i < nq; i++)
            out[i * ld + j] = dot_f32_one(q + i * q_stride, rows + j * r_stride, dim);
}

/* Conversions. */

static void f32_to_f16(const float *x, uint16_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = float_to_half(x[i]);
}

static void f16_to_f32(const uint16_t *x, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = half_to_float(x[i]);
}

static void f32_to_bf16(const float *x, uint16_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = float_to_bfloat(x[i]);
}

static void bf16_to_f32(const uint16_t *x, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = bfloat_to_float(x[i]);
}

/* The 8-bit quantiser. Rounding is to nearest even in every level: adding 1.5 * 2^23 leaves the
 * rounded value in the last bits (no roundf: it is a call into libm). */

static void encode_i8(const float *x, size_t n, float lo, float step, int8_t *out,
                      uint32_t *clipped, uint32_t *inexact)
{
    const float inverse = 1.0f / step;
    uint32_t nclipped = 0, ninexact = 0;
    for (size_t i = 0; i < n; i++) {
        const float t = (x[i] - lo) * inverse;
        nclipped += (uint32_t)(t < -0.5f) + (uint32_t)(t > 255.5f);
        const float above = t > 0.0f ? t : 0.0f, inside = above < 255.0f ? above : 255.0f;
        const int32_t level = (int32_t)(bits_of(inside + 0x1.8p23f) & 0xff);
        const float scaled = step * (float)level, back = lo + scaled;
        ninexact += bits_of(back) != bits_of(x[i]);
        out[i] = (int8_t)(level - 128);
    }
    *clipped = nclipped;
    *inexact = ninexact;
}

static void decode_i8(const int8_t *code, size_t n, float lo, float step, float *out)
{
    for (size_t i = 0; i < n; i++) {
        const float scaled = step * (float)(code[i] + 128);
        out[i] = lo + scaled;
    }
}

static int scan_f32(const float *x, size_t n, float *min, float *max)
{
    float low = INFINITY, high = -INFINITY;
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        bad |= (bits_of(x[i]) & 0x7f800000u) == 0x7f800000u;
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    *min = low + 0.0f;
    *max = high + 0.0f;
    return bad != 0;
}

static size_t near_f32(float *x, const float *norms, float norm, float bound, const float *bounds,
                       size_t n, uint32_t *out)
{
    size_t found = 0;
    for (size_t j = 0; j < n; j++) {
        const float d = norm + norms[j] + 2 * x[j];
        x[j] = d > 0 ? d : 0;
        out[found] = (uint32_t)j;
        found += (x[j] < bound) | (x[j] < bounds[j]);
    }
    return found;
}

/* Fast-scan. */

#define PV 4

static void scan_sums(const uint8_t *codes, const uint8_t *tables, size_t groups, uint32_t *out)
{
    memset(out, 0, 32 * sizeof *out);
    for (size_t g = 0; g < groups; g++, codes += 16, tables += 16)
        for (size_t j = 0; j < 16; j++) {
            out[j] += tables[codes[j] & 15];
            out[16 + j] += tables[codes[j] >> 4];
        }
}

#define pv_mask(v)                                                                                 \
    (((uint32_t)(v)[0] & 1) | ((uint32_t)(v)[1] & 2) | ((uint32_t)(v)[2] & 4) |                    \
     ((uint32_t)(v)[3] & 8))
#include "kernels/kernels_scan.h"

void pe_kernels_fill_c(pe_kernels *k)
{
    scan_fill(k);
    PE_FILL(k, PE_OP_L2, PE_ELEM_F32, l2_f32);
    PE_FILL(k, PE_OP_L2, PE_ELEM_F16, l2_f16);
    PE_FILL(k, PE_OP_L2, PE_ELEM_BF16, l2_bf16);
    PE_FILL(k, PE_OP_L2, PE_ELEM_I8, l2_i8);
    PE_FILL(k, PE_OP_L2, PE_ELEM_B1, l2_b1);
    PE_FILL(k, PE_OP_DOT, PE_ELEM_F32, dot_f32);
    PE_FILL(k, PE_OP_DOT, PE_ELEM_F16, dot_f16);
    PE_FILL(k, PE_OP_DOT, PE_ELEM_BF16, dot_bf16);
    PE_FILL(k, PE_OP_DOT, PE_ELEM_I8, dot_i8);
    PE_FILL(k, PE_OP_DOT, PE_ELEM_B1, dot_b1);
    k->cosine[PE_ELEM_F32] = cosine_f32;
    k->cosine[PE_ELEM_F16] = cosine_f16;
    k->cosine[PE_ELEM_BF16] = cosine_bf16;
    k->cosine[PE_ELEM_I8] = cosine_i8;
    k->cosine[PE_ELEM_B1] = cosine_b1;
    k->tile_dot_f32 = tile_dot_f32;
    k->f32_to_f16 = f32_to_f16;
    k->f16_to_f32 = f16_to_f32;
    k->f32_to_bf16 = f32_to_bf16;
    k->bf16_to_f32 = bf16_to_f32;
    k->encode_i8 = encode_i8;
    k->decode_i8 = decode_i8;
    k->scan_f32 = scan_f32;
    k->near_f32 = near_f32;
    k->level = "c";
}
