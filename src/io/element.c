#include "io/element.h"

#include <math.h>
#include <stdio.h>

static const struct {
    const char *name;
    unsigned char size, integer;
} elements[] = {
    [PERI_ELEMENT_F16] = {"f16", 2, 0}, [PERI_ELEMENT_F32] = {"f32", 4, 0},
    [PERI_ELEMENT_F64] = {"f64", 8, 0}, [PERI_ELEMENT_I8] = {"i8", 1, 1},
    [PERI_ELEMENT_U8] = {"u8", 1, 1},   [PERI_ELEMENT_I16] = {"i16", 2, 1},
    [PERI_ELEMENT_U16] = {"u16", 2, 1}, [PERI_ELEMENT_I32] = {"i32", 4, 1},
    [PERI_ELEMENT_U32] = {"u32", 4, 1}, [PERI_ELEMENT_I64] = {"i64", 8, 1},
    [PERI_ELEMENT_U64] = {"u64", 8, 1},
};

static int known(uint32_t element)
{
    return element >= PERI_ELEMENT_F16 && element <= PERI_ELEMENT_U64;
}

const char *peri_matrix_element_name(uint32_t element)
{
    return known(element) ? elements[element].name : "";
}

size_t pe_element_size(uint32_t element)
{
    return known(element) ? elements[element].size : 0;
}

int pe_element_is_integer(uint32_t element)
{
    return known(element) && elements[element].integer;
}

static float float_of_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static uint32_t bits_of_float(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
    if (exponent == 31)
        return float_of_bits(sign | 0x7f800000 | fraction << 13);
    if (exponent)
        return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
    float f = (float)fraction * 0x1p-24f; /* denormal halves are normal floats: exact */
    return sign ? -f : f;
}

/* To nearest even. Returns 0 when a finite value would become infinite. */
static int half_of_float(float f, uint16_t *h)
{
    uint32_t u = bits_of_float(f), sign = u >> 16 & 0x8000, rest = u & 0x7fffffff;
    if (rest >= 0x7f800000) { /* infinity, or NaN with the top of its payload */
        uint32_t payload = rest > 0x7f800000 ? (rest >> 13 & 0x3ff) | 0x200 : 0;
        *h = (uint16_t)(sign | 0x7c00 | payload);
        return 1;
    }
    if (rest >= 0x477ff000) /* 65520, half way from the largest half to the next power */
        return 0;
    if (rest < 0x38800000) { /* below the smallest normal half: let the FPU round at 2^-24 */
        float scaled = float_of_bits(rest) + 0.5f;
        *h = (uint16_t)(sign | (bits_of_float(scaled) - 0x3f000000));
        return 1;
    }
    rest += 0xfff + (rest >> 13 & 1);
    *h = (uint16_t)(sign | ((rest >> 13) - (112u << 10)));
    return 1;
}

/* ---- out of the file ---- */

/* 2^24 in magnitude is where f32 begins to leave integers out. The way back is taken in
 * double, which holds every f32, and by a range test first: casting 2^64 to an integer is
 * undefined. */
static int exact_signed(int64_t v, float *out)
{
    *out = (float)v;
    return *out < 0x1p63f && (int64_t)*out == v;
}

static int exact_unsigned(uint64_t v, float *out)
{
    *out = (float)v;
    return *out < 0x1p64f && (uint64_t)*out == v;
}

#define PE_FLOATS_FROM(type, convert)                                                              \
    for (size_t i = 0; i < n; i++) {                                                               \
        type v;                                                                                    \
        memcpy(&v, (const char *)in + i * sizeof v, sizeof v);                                     \
        if (!(convert))                                                                            \
            return i;                                                                              \
    }                                                                                              \
    return n

static size_t floats_from_f64(const void *in, size_t n, float *out)
{
    PE_FLOATS_FROM(double, (out[i] = (float)v, isfinite(out[i]) || !isfinite(v)));
}

static size_t floats_from_wide(uint32_t element, const void *in, size_t n, float *out)
{
    switch (element) {
    case PERI_ELEMENT_I32:
        PE_FLOATS_FROM(int32_t, exact_signed(v, &out[i]));
    case PERI_ELEMENT_U32:
        PE_FLOATS_FROM(uint32_t, exact_unsigned(v, &out[i]));
    case PERI_ELEMENT_I64:
        PE_FLOATS_FROM(int64_t, exact_signed(v, &out[i]));
    default:
        PE_FLOATS_FROM(uint64_t, exact_unsigned(v, &out[i]));
    }
}

size_t pe_element_to_float(uint32_t element, const void *in, size_t n, float *out)
{
    switch (element) {
    case PERI_ELEMENT_F32:
        memcpy(out, in, n * sizeof *out);
        return n;
    case PERI_ELEMENT_F16:
        PE_FLOATS_FROM(uint16_t, (out[i] = half_to_float(v), 1));
    case PERI_ELEMENT_F64:
        return floats_from_f64(in, n, out);
    case PERI_ELEMENT_I8:
        PE_FLOATS_FROM(int8_t, (out[i] = v, 1));
    case PERI_ELEMENT_U8:
        PE_FLOATS_FROM(uint8_t, (out[i] = v, 1));
    case PERI_ELEMENT_I16:
        PE_FLOATS_FROM(int16_t, (out[i] = v, 1));
    case PERI_ELEMENT_U16:
        PE_FLOATS_FROM(uint16_t, (out[i] = v, 1));
    default:
        return floats_from_wide(element, in, n, out);
    }
}

static int is_signed(uint32_t element)
{
    return element == PERI_ELEMENT_I8 || element == PERI_ELEMENT_I16 ||
           element == PERI_ELEMENT_I32 || element == PERI_ELEMENT_I64;
}

/* Integer i, a signed one extended to 64 bits. */
static uint64_t integer_at(uint32_t element, const void *in, size_t i)
{
    size_t size = elements[element].size, shift = 64 - 8 * size;
    uint64_t u = 0;
    memcpy(&u, (const char *)in + i * size, size);
    return is_signed(element) ? (uint64_t)((int64_t)(u << shift) >> shift) : u;
}

size_t pe_element_to_ids(uint32_t element, const void *in, size_t n, uint64_t *out)
{
    if (!pe_element_is_integer(element))
        return 0;
    for (size_t i = 0; i < n; i++) {
        out[i] = integer_at(element, in, i);
        if (is_signed(element) && (int64_t)out[i] < -1)
            return i;
    }
    return n;
}

/* ---- into the file ---- */

/* limit is the first power of two beyond the type's largest value, so that the comparison is exact
 * in f32. */
#define PE_INTS_OF_FLOATS(type, low, limit)                                                        \
    for (size_t i = 0; i < n; i++) {                                                               \
        if (!(in[i] >= (low) && in[i] < (limit)) || in[i] != truncf(in[i]))                        \
            return i;                                                                              \
        type v = (type)in[i];                                                                      \
        memcpy((char *)out + i * sizeof v, &v, sizeof v);                                          \
    }                                                                                              \
    return n

static size_t ints_of_floats(uint32_t element, const float *in, size_t n, void *out)
{
    switch (element) {
    case PERI_ELEMENT_I8:
        PE_INTS_OF_FLOATS(int8_t, -0x1p7f, 0x1p7f);
    case PERI_ELEMENT_U8:
        PE_INTS_OF_FLOATS(uint8_t, 0.0f, 0x1p8f);
    case PERI_ELEMENT_I16:
        PE_INTS_OF_FLOATS(int16_t, -0x1p15f, 0x1p15f);
    case PERI_ELEMENT_U16:
        PE_INTS_OF_FLOATS(uint16_t, 0.0f, 0x1p16f);
    case PERI_ELEMENT_I32:
        PE_INTS_OF_FLOATS(int32_t, -0x1p31f, 0x1p31f);
    case PERI_ELEMENT_U32:
        PE_INTS_OF_FLOATS(uint32_t, 0.0f, 0x1p32f);
    case PERI_ELEMENT_I64:
        PE_INTS_OF_FLOATS(int64_t, -0x1p63f, 0x1p63f);
    case PERI_ELEMENT_U64:
        PE_INTS_OF_FLOATS(uint64_t, 0.0f, 0x1p64f);
    default:
        return 0;
    }
}

size_t pe_element_from_float(uint32_t element, const float *in, size_t n, void *out)
{
    switch (element) {
    case PERI_ELEMENT_F32:
        memcpy(out, in, n * sizeof *in);
        return n;
    case PERI_ELEMENT_F16:
        for (size_t i = 0; i < n; i++) {
            uint16_t h;
            if (!half_of_float(in[i], &h))
                return i;
            memcpy((char *)out + i * sizeof h, &h, sizeof h);
        }
        return n;
    case PERI_ELEMENT_F64:
        for (size_t i = 0; i < n; i++) {
            double d = in[i];
            memcpy((char *)out + i * sizeof d, &d, sizeof d);
        }
        return n;
    default:
        return ints_of_floats(element, in, n, out);
    }
}

/* A signed type has -1 for PERI_NO_ID; in an unsigned one that value is an id like any other and
 * fits only where 64 bits are. */
size_t pe_element_from_ids(uint32_t element, const uint64_t *in, size_t n, void *out)
{
    size_t size = pe_element_size(element);
    int sign = is_signed(element);
    if (!pe_element_is_integer(element))
        return 0;
    uint64_t top = UINT64_MAX >> (64 - 8 * size + (sign ? 1 : 0));
    for (size_t i = 0; i < n; i++) {
        if (in[i] > top && !(sign && in[i] == PERI_NO_ID))
            return i;
        memcpy((char *)out + i * size, &in[i], size); /* little-endian: the low bytes */
    }
    return n;
}

void pe_element_print(uint32_t element, const void *in, size_t i, char out[32])
{
    const char *at = (const char *)in + i * pe_element_size(element);
    float f;
    double d;
    if (element == PERI_ELEMENT_F64) {
        memcpy(&d, at, sizeof d);
        snprintf(out, 32, "%.9g", d);
    } else if (!pe_element_is_integer(element)) {
        pe_element_to_float(element, at, 1, &f);
        snprintf(out, 32, "%.9g", (double)f);
    } else if (is_signed(element)) {
        snprintf(out, 32, "%lld", (long long)integer_at(element, in, i));
    } else {
        snprintf(out, 32, "%llu", (unsigned long long)integer_at(element, in, i));
    }
}

void pe_element_swap(size_t size, void *data, size_t n)
{
    char *p = data;
    for (size_t i = 0; i < n; i++, p += size)
        for (size_t a = 0, b = size - 1; a < b; a++, b--) {
            char t = p[a];
            p[a] = p[b];
            p[b] = t;
        }
}
