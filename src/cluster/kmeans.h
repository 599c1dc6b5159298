/* k-means (Lloyd) over rows in memory, by matrix tiles.
 *
 * A result depends on rows, k, rounds and seed alone, not on the number of workers: each centre's
 * rows are summed by one worker in the rows' order. Centres that end empty are moved next to those
 * with the most rows, so that the parts come out even. SuperKMeans (arXiv 2603.20009) prunes
 * distances by rotated parts; from below a thousand centres, which is all that a tree of centres
 * asks for at a time, it gains nothing over tiles. */
#ifndef PE_KMEANS_H
#define PE_KMEANS_H

#include "base/host.h"
#include "base/team.h"
#include "kernels/kernels.h"

typedef struct pe_kmeans {
    pe_host *host;
    const pe_kernels *kernels;
    const float *rows; /* n x stride floats, of which dim count */
    size_t n, stride;
    uint32_t dim, k; /* 1 <= k <= n */
    unsigned rounds;
    uint64_t seed;
} pe_kmeans;

/* centres: k x stride, written in their first dim floats; norms: k squared norms; nearest: n, each
 * row's centre. Errors: ERR_NOMEM, ERR_CANCELLED (what was written means nothing then). */
peri_status pe_kmeans_run(const pe_kmeans *in, float *centres, float *norms, uint32_t *nearest,
                          pe_progress *progress, unsigned workers);

/* One pass: the nearest of k centres for each row, and (if not NULL) its key, which is the squared
 * distance less the row's squared norm. dots: PE_KMEANS_TILE x k floats. */
enum { PE_KMEANS_TILE = 64 };
void pe_kmeans_nearest(const pe_kernels *kernels, const float *rows, size_t n, size_t stride,
                       const float *centres, size_t centre_stride, const float *norms, uint32_t k,
                       uint32_t dim, float *dots, uint32_t *nearest, float *keys);

#endif
