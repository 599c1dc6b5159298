/* Ground truth: the true neighbours of each query, from a file or found by an exact scan. */
#ifndef CLI_TRUTH_H
#define CLI_TRUTH_H

#include "progress.h"

typedef struct truth {
    size_t n, width;  /* queries; neighbours of each, nearest first */
    uint64_t *ids;    /* n x width; PERI_NO_ID where there are fewer */
    float *distances; /* n x width, or NULL: then ties at the edge count as misses */
    const char *from; /* for people: where it comes from */
} truth;

/* From `path` (may be NULL), else from the datasets of the HDF5 file `data`, else computed for the
 * n queries by scanning the rows of `index`. CLI_OK or CLI_ERROR, said. */
int truth_find(truth *t, const char *path, const char *data, const peri_index *index,
               const float *queries, size_t n, size_t k, progress *bar);
void truth_free(truth *t);

/* The part of the true k nearest of query i that is among the hits, 0 to 1. Rows as far as the
 * k-th count as well as it does. */
double truth_recall(const truth *t, size_t i, size_t k, const peri_hit *hits, size_t n_hits);

#endif
