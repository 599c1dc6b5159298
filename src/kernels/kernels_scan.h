/* Fast-scan and the random rotation at one level, included once by each (C too). The level gives
 *     PV               floats of a vector: 4, 8 or 16
 *     pv_mask(v)       bit i of the result: lane i of an integer vector is -1
 *     scan_sums(codes, luts, groups, out)       scan32, `out` 64-byte aligned
 * The rest is in the compiler's own vectors: no operation here fuses or depends on the width, so
 * all levels give the same bits. */

typedef float pv __attribute__((vector_size(PV * 4)));
typedef int32_t pvi __attribute__((vector_size(PV * 4)));
typedef uint8_t pvb __attribute__((vector_size(PV)));
/* In memory: at any alignment, and as what it is. */
typedef float pv_mem __attribute__((vector_size(PV * 4), aligned(4), may_alias));
typedef int32_t pvi_mem __attribute__((vector_size(PV * 4), aligned(4), may_alias));

PE_INLINE pv pv_load(const float *p)
{
    return (pv) * (const pv_mem *)(const void *)p;
}

PE_INLINE void pv_store(float *p, pv v)
{
    *(pv_mem *)(void *)p = (pv_mem)v;
}

PE_INLINE pv pv_all(float x)
{
    return x - (pv){0};
}

static void scan32(const uint8_t *codes, const uint8_t *luts, size_t groups, uint32_t out[32])
{
    _Alignas(64) uint32_t sums[32];
    scan_sums(codes, luts, groups, sums);
    memcpy(out, sums, sizeof sums);
}

static uint32_t below32(const uint8_t *codes, const uint8_t *luts, size_t groups,
                        const pe_scan *scan, float key[32])
{
    _Alignas(64) uint32_t sums[32];
    uint32_t below = 0;
    const pv base = pv_all(scan->base), offset = pv_all(scan->offset), step = pv_all(scan->step);
    const pv slack = pv_all(scan->slack), bound = pv_all(scan->bound);
    const pv blur = pv_all(scan->blur);
    scan_sums(codes, luts, groups, sums);
    PE_UNROLL
    for (size_t i = 0; i < 32; i += PV) {
        /* As signed: below 2^31, and the older levels convert no other. */
        const pvi sum = (pvi) * (const pvi_mem *)(const void *)(sums + i);
        const pv dot = offset + step * __builtin_convertvector(sum, pv);
        const pv scale = pv_load(scan->scale + i);
        const pv k = base + pv_load(scan->add + i) + scale * dot;
        pv_store(key + i, k);
        const pv lower = k - slack * pv_load(scan->error + i) + blur * scale;
        below |= pv_mask((pvi)(lower < bound)) << i;
    }
    return below;
}

/* +-1 by symbol, for each of the four bits. */
static const float LUT_SIGNS[4][16] = {
    {-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1},
    {-1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1},
    {-1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1},
    {-1, -1, -1, -1, -1, -1, -1, -1, 1, 1, 1, 1, 1, 1, 1, 1},
};

PE_INLINE float magnitude(float x)
{
    return x < 0 ? -x : x;
}

PE_INLINE float lut_reach(const float *p)
{
    return (magnitude(p[0]) + magnitude(p[1])) + (magnitude(p[2]) + magnitude(p[3]));
}

/* One step for all tables: that of the widest, -reach..reach in 255 steps. */
static void luts(const float *p, size_t groups, uint8_t *lut, float *offset, float *step)
{
    float widest = 0, sum = 0;
    for (size_t g = 0; g < groups; g++) {
        const float reach = lut_reach(p + 4 * g);
        widest = reach > widest ? reach : widest;
        sum -= reach;
    }
    const float size = widest * (2.0f / 255);
    const float inverse = size > 0x1p-120f ? 1 / size : 0;
    *offset = inverse > 0 ? sum : 0;
    *step = inverse > 0 ? size : 0;
    for (size_t g = 0; g < groups; g++, p += 4, lut += 16) {
        const pv reach = pv_all(lut_reach(p));
        PE_UNROLL
        for (size_t i = 0; i < 16; i += PV) {
            const pv low = p[0] * pv_load(LUT_SIGNS[0] + i) + p[1] * pv_load(LUT_SIGNS[1] + i);
            const pv high = p[2] * pv_load(LUT_SIGNS[2] + i) + p[3] * pv_load(LUT_SIGNS[3] + i);
            const pv level = (reach + (low + high)) * inverse + 0.5f;
            const pvb bytes = __builtin_convertvector(__builtin_convertvector(level, pvi), pvb);
            memcpy(lut + i, &bytes, PV);
        }
    }
}

/* Sums are kept in sixteen lanes at any width, and added in one order. */
enum { PV_SETS = 16 / PV };

PE_INLINE float lanes_sum(const pv *v)
{
    float lane[16];
    for (int i = 0; i < PV_SETS; i++)
        pv_store(lane + i * PV, v[i]);
    for (int width = 8; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            lane[i] += lane[i + width];
    return lane[0];
}

static void levels(const float *x, const float *centre, size_t n, float inverse, float top,
                   uint8_t *level, float sums[4])
{
    const float middle = 2 * top + 1;
    pv vv[PV_SETS] = {{0}}, vw[PV_SETS] = {{0}}, cw[PV_SETS] = {{0}}, ww[PV_SETS] = {{0}};
    for (size_t at = 0; at < n; at += 16) {
        PE_UNROLL
        for (int s = 0; s < PV_SETS; s++) {
            const size_t i = at + (size_t)s * PV;
            const pv c = pv_load(centre + i), v = pv_load(x + i) - c;
            const pvi negative = (pvi)(v < 0), size = (pvi)v & 0x7fffffff;
            const pv steps = (pv)size * inverse, tops = pv_all(top);
            const pvi over = (pvi)(steps > tops);
            const pv kept = (pv)(((pvi)steps & ~over) | ((pvi)tops & over));
            const pv u = 2 * __builtin_convertvector(__builtin_convertvector(kept, pvi), pv) + 1.0f;
            const pv w = (pv)((pvi)u ^ (negative & INT32_MIN));
            vv[s] += v * v;
            vw[s] += v * w;
            cw[s] += c * w;
            ww[s] += w * w;
            const pvb bytes =
                __builtin_convertvector(__builtin_convertvector((w + middle) * 0.5f, pvi), pvb);
            memcpy(level + i, &bytes, PV);
        }
    }
    sums[0] = lanes_sum(vv);
    sums[1] = lanes_sum(vw);
    sums[2] = lanes_sum(cw);
    sums[3] = lanes_sum(ww);
}

static uint32_t least(const float *dot, const float *norm, size_t n, float *key)
{
    float best = __builtin_inff();
    uint32_t at = 0;
    size_t i = 0;
    if (n >= PV) {
        pv low = pv_all(best);
        pvi where = {0}, here;
        for (int l = 0; l < PV; l++)
            here[l] = l;
        for (; i + PV <= n; i += PV, here += PV) {
            const pv k = pv_load(norm + i) + 2 * pv_load(dot + i);
            const pvi less = (pvi)(k < low);
            low = (pv)(((pvi)k & less) | ((pvi)low & ~less));
            where = (here & less) | (where & ~less);
        }
        for (int l = 0; l < PV; l++)
            if (low[l] < best || (low[l] == best && (uint32_t)where[l] < at)) {
                best = low[l];
                at = (uint32_t)where[l];
            }
    }
    for (; i < n; i++) {
        const float k = norm[i] + 2 * dot[i];
        if (k < best) {
            best = k;
            at = (uint32_t)i;
        }
    }
    *key = best;
    return at;
}

#if PV == 16
#define PV_LOW(a, b)                                                                               \
    __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define PV_HIGH(a, b)                                                                              \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif PV == 8
#define PV_LOW(a, b)  __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define PV_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define PV_LOW(a, b)  __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define PV_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

PE_INLINE void butterflies(const float *x, float *out, size_t n)
{
    for (size_t i = 0, half = n / 2; i < half; i += PV) {
        const pv a = pv_load(x + i), b = pv_load(x + half + i);
        const pv sum = a + b, difference = a - b;
        pv_store(out + 2 * i, PV_LOW(sum, difference));
        pv_store(out + 2 * i + PV, PV_HIGH(sum, difference));
    }
}

static void rotate(float *x, size_t n, unsigned passes, unsigned stages, const float *signs,
                   float *tmp)
{
    float *from = x, *to = tmp;
    for (unsigned pass = 0; pass < passes; pass++, signs += n) {
        for (size_t i = 0; i < n; i += PV)
            pv_store(from + i, pv_load(from + i) * pv_load(signs + i));
        for (unsigned stage = 0; stage < stages; stage++) {
            butterflies(from, to, n);
            float *swap = from;
            from = to;
            to = swap;
        }
    }
    if (from != x)
        memcpy(x, from, n * sizeof *x);
}

static void scan_fill(pe_kernels *k)
{
    k->scan32 = scan32;
    k->below32 = below32;
    k->luts = luts;
    k->levels = levels;
    k->least = least;
    k->rotate = rotate;
}
