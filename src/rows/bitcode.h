/* RaBitQ codes (Gao and Long, SIGMOD 2024; with more bits: SIGMOD 2025): 1, 2 or 4 bits a
 * dimension of a row's difference from a centre, and factors that make of them an unbiased
 * estimate of the key with a bound on its error.
 *
 * All of it lies in a rotated space: rows are padded with zeros to `width`, a multiple of 64, and
 * mixed by a random orthogonal transform, so that no dimension of a difference stands out. With
 * r = row - centre and its code w (a vector of small odd integers),
 *     r = a w - e,  a = r.r / r.w,  e orthogonal to r
 * so <q, r> ~ a <q, w>, and what it is off by, <q - centre, e>, is that of a direction which the
 * rotation made random: its deviation is |q - centre| |e| / sqrt(width - 1). <q, w> of 32 rows at a
 * time is what fast-scan computes, with one set of tables a query: they do not depend on the
 * centre, whose part is in the factors.
 *     L2   |q - row|^2 ~ |q - c|^2 + (r.r + 2 a <c, w>) - 2 a <q, w>
 *     IP    -<q, row>  ~   -<q, c>  + (a <c, w> - <c, r>) -  a <q, w>
 * The paper's codebook is the cube's corners; that q's tables are made once and not per centre is
 * what its library does too. Under cosine rows are directions and L2 orders them. */
#ifndef PE_BITCODE_H
#define PE_BITCODE_H

#include "base/host.h"
#include "kernels/kernels.h"
#include "perigee/space.h"

enum { PE_BLOCK_ROWS = 32, PE_ROTATE_PASSES = 2 };

/* How the codes of an index are made; the same for dimension, bits and seed. */
typedef struct pe_bitcode {
    pe_host *host;
    const pe_kernels *kernels;
    uint32_t dim, width;
    uint16_t bits; /* a dimension: 1, 2 or 4 */
    int ip;        /* keys are minus dot products */
    unsigned stages;
    size_t groups; /* symbols of a row */
    float *signs;
} pe_bitcode;

typedef struct pe_bit_factors {
    float add, scale, error;
} pe_bit_factors;

/* A query's tables. */
typedef struct pe_bit_query {
    uint8_t *luts;
    float offset, step;
} pe_bit_query;

peri_status pe_bitcode_init(pe_bitcode *b, pe_host *host, const peri_space *space, unsigned bits,
                            uint64_t seed);
void pe_bitcode_destroy(pe_bitcode *b);

/* row: dim floats; out, tmp: width floats. */
void pe_bitcode_rotate(const pe_bitcode *b, const float *row, float *out, float *tmp);

/* Of a rotated row relative to a rotated centre; symbols: groups bytes, room: width bytes. */
pe_bit_factors pe_bitcode_encode(const pe_bitcode *b, const float *row, const float *centre,
                                 uint8_t *symbols, uint8_t *room);

/* Tables of a rotated query: luts has 16 * groups bytes, p 4 * groups floats. */
pe_bit_query pe_bitcode_query(const pe_bitcode *b, const float *query, uint8_t *luts, float *p);

/* A block: the codes of 32 rows, and add, scale and error of each; lanes without a row are zero. */
static inline size_t pe_block_codes(const pe_bitcode *b)
{
    return b->groups * 16;
}
static inline float *pe_block_factors(const pe_bitcode *b, unsigned char *block)
{
    return (float *)(void *)(block + pe_block_codes(b));
}
static inline size_t pe_block_size(const pe_bitcode *b)
{
    return pe_block_codes(b) + 3 * PE_BLOCK_ROWS * sizeof(float);
}
void pe_block_set(const pe_bitcode *b, unsigned char *block, unsigned lane, const uint8_t *symbols,
                  pe_bit_factors f);
/* Copy one row's codes from block to block. */
void pe_block_move(const pe_bitcode *b, unsigned char *to, unsigned to_lane,
                   const unsigned char *from, unsigned from_lane);

#endif
