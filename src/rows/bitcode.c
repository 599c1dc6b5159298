#include "rows/bitcode.h"
#include "base/checked.h"
#include "base/rng.h"

#include <math.h>

peri_status pe_bitcode_init(pe_bitcode *b, pe_host *host, const peri_space *space, unsigned bits,
                            uint64_t seed)
{
    memset(b, 0, sizeof *b);
    b->host = host;
    b->kernels = pe_kernels_get();
    b->dim = space->dim;
    b->width = (uint32_t)pe_round_up(space->dim, 64);
    b->bits = (uint16_t)bits;
    b->ip = space->metric == PERI_METRIC_IP;
    b->groups = (size_t)b->width * bits / 4;
    while (b->width > 1u << b->stages) /* each value then depends on all */
        b->stages++;
    size_t n = (size_t)b->width * PE_ROTATE_PASSES;
    b->signs = pe_alloc(host, n * sizeof *b->signs);
    if (!b->signs)
        return PERI_ERR_NOMEM;
    float size = (float)pow(2, -0.5 * b->stages);
    pe_rng rng = {seed};
    for (size_t i = 0; i < n; i++)
        b->signs[i] = pe_rng_next(&rng) >> 63 ? size : -size;
    return PERI_OK;
}

void pe_bitcode_destroy(pe_bitcode *b)
{
    if (b->signs)
        pe_free(b->host, b->signs, (size_t)b->width * PE_ROTATE_PASSES * sizeof *b->signs);
    b->signs = NULL;
}

void pe_bitcode_rotate(const pe_bitcode *b, const float *row, float *out, float *tmp)
{
    memcpy(out, row, b->dim * sizeof *out);
    memset(out + b->dim, 0, (b->width - b->dim) * sizeof *out);
    b->kernels->rotate(out, b->width, PE_ROTATE_PASSES, b->stages, b->signs, tmp);
}

/* The step, in deviations of a value, at which evenly spaced levels lose least of a normal
 * distribution (Max, IRE Trans. Inf. Theory 1960): a rotated difference is nearly that. */
static float best_step(unsigned bits)
{
    return bits == 2 ? 0.9957f : 0.3352f;
}

/* Levels of 4 / bits dimensions, a byte each, as one symbol. */
static void pack(const pe_bitcode *b, const uint8_t *level, uint8_t *symbols)
{
    if (b->bits == 4) {
        memcpy(symbols, level, b->groups);
    } else if (b->bits == 2) {
        for (size_t g = 0; g < b->groups; g++)
            symbols[g] = (uint8_t)(level[2 * g] | level[2 * g + 1] << 2);
    } else {
        for (size_t g = 0; g < b->groups; g++, level += 4)
            symbols[g] = (uint8_t)(level[0] | level[1] << 1 | level[2] << 2 | level[3] << 3);
    }
}

pe_bit_factors pe_bitcode_encode(const pe_bitcode *b, const float *row, const float *centre,
                                 uint8_t *symbols, uint8_t *room)
{
    float sums[4], inverse = 0, top = 0;
    if (b->bits > 1) {
        float rr = b->kernels->dist[PE_OP_L2][PE_ELEM_F32].one(row, centre, b->width);
        float step = best_step(b->bits) * sqrtf(rr / (float)b->width);
        inverse = step > 1e-30f ? 1 / step : 0;
        top = b->bits == 2 ? 1 : 7;
    }
    b->kernels->levels(row, centre, b->width, inverse, top, room, sums);
    pack(b, room, symbols);
    float rr = sums[0], rw = sums[1], cw = sums[2], ww = sums[3];
    if (!(rw > 1e-30f)) /* the centre itself: its key is known without a code */
        return (pe_bit_factors){rr, 0, sqrtf(rr)};
    float a = rr / rw, ee = a * a * ww - rr;
    float error = ee > 0 ? sqrtf(ee / (float)(b->width - 1)) : 0;
    if (!b->ip)
        return (pe_bit_factors){rr + 2 * a * cw, -2 * a, 2 * error};
    float cr = b->kernels->dist[PE_OP_DOT][PE_ELEM_F32].one(centre, centre, b->width) -
               b->kernels->dist[PE_OP_DOT][PE_ELEM_F32].one(centre, row, b->width);
    return (pe_bit_factors){a * cw - cr, -a, error};
}

pe_bit_query pe_bitcode_query(const pe_bitcode *b, const float *query, uint8_t *luts, float *p)
{
    pe_bit_query q = {.luts = luts};
    const float *values = query;
    if (b->bits > 1) { /* bit i of a level weighs 2^i */
        for (size_t i = 0; i < b->width; i++)
            for (unsigned bit = 0; bit < b->bits; bit++)
                p[i * b->bits + bit] = query[i] * (float)(1u << bit);
        values = p;
    }
    b->kernels->luts(values, b->groups, luts, &q.offset, &q.step);
    return q;
}

void pe_block_set(const pe_bitcode *b, unsigned char *block, unsigned lane, const uint8_t *symbols,
                  pe_bit_factors f)
{
    unsigned char *at = block + lane % 16;
    float *factors = pe_block_factors(b, block) + lane;
    if (lane < 16)
        for (size_t g = 0; g < b->groups; g++)
            at[16 * g] = (unsigned char)((at[16 * g] & 0xf0) | symbols[g]);
    else
        for (size_t g = 0; g < b->groups; g++)
            at[16 * g] = (unsigned char)((at[16 * g] & 0x0f) | symbols[g] << 4);
    factors[0] = f.add;
    factors[PE_BLOCK_ROWS] = f.scale;
    factors[2 * PE_BLOCK_ROWS] = f.error;
}

void pe_block_move(const pe_bitcode *b, unsigned char *to, unsigned to_lane,
                   const unsigned char *from, unsigned from_lane)
{
    const unsigned down = from_lane < 16 ? 0 : 4, up = to_lane < 16 ? 0 : 4;
    const unsigned char keep = up ? 0x0f : 0xf0;
    unsigned char *out = to + to_lane % 16;
    const unsigned char *in = from + from_lane % 16;
    for (size_t g = 0; g < b->groups; g++)
        out[16 * g] = (unsigned char)((out[16 * g] & keep) | (in[16 * g] >> down & 15) << up);
    float *t = pe_block_factors(b, to) + to_lane;
    const float *f = (const float *)(const void *)(from + pe_block_codes(b)) + from_lane;
    for (unsigned i = 0; i < 3; i++)
        t[i * PE_BLOCK_ROWS] = f[i * PE_BLOCK_ROWS];
}
