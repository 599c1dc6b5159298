/** @file space.h
 *  What dense vectors are: their dimension, how they are compared, how they are kept. Every handle
 *  that holds vectors is made in one of these.
 */
#ifndef PERI_SPACE_H
#define PERI_SPACE_H

#include "perigee/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Distances are smaller = nearer for each metric: L2 is the Euclidean distance (not squared),
 *  IP is minus the dot product, COSINE is 1 - cos. */
enum { PERI_METRIC_L2 = 1, PERI_METRIC_IP = 2, PERI_METRIC_COSINE = 3 };

/** How rows are kept; input is always f32. F16 and BF16 round to nearest even and refuse values
 *  that overflow. I8 keeps 8 bits a dimension with an offset and a step per row (after LVQ,
 *  Aguerrebere et al., VLDB 2023). */
enum { PERI_SCALAR_F32 = 1, PERI_SCALAR_F16 = 2, PERI_SCALAR_BF16 = 3, PERI_SCALAR_I8 = 4 };

enum { PERI_MAX_DIM = 65535 };

/** What the vectors are. Written to the file; fixed afterwards. */
typedef struct peri_space {
    uint32_t struct_size;
    uint32_t dim;    /* 1..PERI_MAX_DIM */
    uint16_t metric; /* PERI_METRIC_*; 0 = L2 */
    uint16_t scalar; /* PERI_SCALAR_*; 0 = F32 */
} peri_space;

static inline void peri_space_init(peri_space *s, uint32_t dim, uint16_t metric)
{
    memset(s, 0, sizeof *s);
    s->struct_size = (uint32_t)sizeof *s;
    s->dim = dim;
    s->metric = metric;
}

#ifdef __cplusplus
}
#endif
#endif
