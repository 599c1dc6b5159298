/* Exact search by scanning: no structure beside the rows. */
#ifndef PE_FLAT_H
#define PE_FLAT_H

#include "index/index.h"

extern const pe_kind pe_flat_kind;

/* Many queries by register tiles (flat_batch.c). ERR_UNSUPPORTED hands the batch back. */
peri_status pe_flat_search_many(const peri_index *ix, size_t n, const float *rows,
                                const peri_query *q, const peri_task *task, peri_hit *hits,
                                size_t *n_hits);

#endif
