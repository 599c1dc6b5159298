/* Rows and their codes, by slot.
 *
 * A slot number names one row for as long as it is used: its row, norm and code are written once,
 * before the slot is published, and never change until the slot is given back (an update takes a
 * new slot). So readers need no lock: they take a pe_view inside an epoch.
 *
 * A row is kept as the space's scalar:
 *   f32, f16, bf16   dim elements; under cosine the direction (norm 1), the norm kept apart
 *   i8               dim signed codes, padded to 4, then {step, mid, sum, norm2} as f32, where the
 *                    row is mid + step * code, sum its sum and norm2 its squared norm. Offset and
 *                    step are the row's own (after LVQ, Aguerrebere et al., VLDB 2023), so nothing
 *                    is trained; a row of integers spanning at most 255 is kept without loss.
 * A code is 8 bits a dimension with one offset and step for all rows, padded with zeros to 64 bytes
 * so that its kernel has no tail; it is what traversal reads. Under IP the range is symmetric, so
 * that the dot product of codes is that of rows up to a factor; otherwise codes are compared by
 * L2, which orders unit vectors as cosine does.
 */
#ifndef PE_ROWS_H
#define PE_ROWS_H

#include "base/array.h"
#include "kernels/kernels.h"
#include "base/team.h"
#include "perigee/space.h"

/* The 8-bit scalar quantiser of the codes. */
typedef struct pe_quantiser {
    float lo, step;
} pe_quantiser;

/* What distances are computed from: rows or codes, at one moment. Valid inside the epoch. */
typedef enum { PE_FORM_PLAIN, PE_FORM_LVQ_L2, PE_FORM_LVQ_DOT } pe_form;
typedef struct pe_view {
    pe_dist dist;
    pe_rowview rows;
    pe_form form;
    pe_elem elem;
    float offset; /* added to a key makes it a non-negative distance (cosine on rows: 1) */
    int squared;  /* keys grow with the square of the distance */
} pe_view;

/* A point to measure from: a query, or a stored row. */
typedef struct pe_point {
    const void *q;               /* in the form that view->dist takes */
    float step, mid, sum, norm2; /* of an i8 row or query */
    float code_sum;              /* sum of its signed codes */
} pe_point;

typedef struct pe_codes {
    pe_array array;
    pe_quantiser q;
    _Atomic uint64_t clipped; /* rows cut off by the range */
    _Atomic uint64_t inexact; /* rows that their code does not give back bit for bit */
} pe_codes;

/* A checked query in every form that the index may need, in room of pe_rows_scratch bytes. */
typedef struct pe_prepared {
    const float *x; /* the query; under cosine its direction */
    pe_point row, code;
    const pe_codes *codes; /* those that `code` is for; NULL when there are none or the query lies
                            * outside of their range */
    int code_exact;        /* codes lose nothing, neither of rows nor of the query */
} pe_prepared;

typedef struct pe_rows {
    pe_host *host;
    pe_epoch *epoch;
    const pe_kernels *kernels;
    peri_space space;
    pe_elem elem;
    pe_array rows;
    pe_array norms;            /* f32 a row, under cosine only */
    _Atomic(pe_codes *) codes; /* NULL until trained */
} pe_rows;

/* A caller's space, with its defaults filled in. */
peri_status pe_space_check(const peri_space *in, peri_space *out);

void pe_rows_init(pe_rows *r, pe_host *host, pe_epoch *epoch, const peri_space *space);
void pe_rows_destroy(pe_rows *r);
peri_status pe_rows_reserve(pe_rows *r, size_t n, int exact);

/* Bytes of one stored row. */
size_t pe_rows_stride(const peri_space *space);

/* Check one input row: finite, representable, not zero under cosine. `what` and `at` name it in the
 * detail ("row 17"). *norm gets its norm under cosine, else 1. */
peri_status pe_rows_check(const pe_rows *r, const float *row, const char *what, size_t at,
                          float *norm);
/* Store a checked row (and its code, once trained) in a slot that no reader can see. */
void pe_rows_set(pe_rows *r, uint32_t slot, const float *row, float norm, float *scratch);
/* The code of a row that is there already (a borrowed one). */
void pe_rows_set_code(pe_rows *r, uint32_t slot, float *scratch);
/* The stored row as floats: under cosine direction times norm when `scaled`, else the direction. */
void pe_rows_get(const pe_rows *r, uint32_t slot, float *out, int scaled);

/* Views to measure by: the rows, or codes (pe_rows_codes: NULL when there are none). */
pe_view pe_rows_view(const pe_rows *r);
pe_view pe_rows_code_view(const pe_rows *r, const pe_codes *codes);
static inline pe_codes *pe_rows_codes(const pe_rows *r)
{
    return atomic_load_explicit(&r->codes, memory_order_acquire);
}

/* Bytes of scratch that pe_rows_prepare and pe_rows_point fill: 64-byte aligned. */
size_t pe_rows_scratch(const peri_space *space);
/* A query to prepare: checked, divided by `norm` under cosine. */
void pe_rows_prepare(const pe_rows *r, const float *query, float norm, void *scratch,
                     pe_prepared *out);
/* A stored row as a point to measure from under the view; scratch only used for f16 and bf16. */
pe_point pe_view_point(const pe_rows *r, const pe_view *v, uint32_t slot, void *scratch);

/* Keys of many slots: smaller is nearer. L2 squared, or minus the dot product. */
void pe_view_correct(const pe_view *v, const pe_point *p, const uint32_t *slots, size_t n,
                     float *out);
static inline void pe_view_keys(const pe_view *v, const pe_point *p, const uint32_t *slots,
                                size_t n, float *out)
{
    v->dist.ids(p->q, &v->rows, slots, n, out);
    if (v->form != PE_FORM_PLAIN)
        pe_view_correct(v, p, slots, n, out);
}
static inline float pe_view_key(const pe_view *v, const pe_point *p, uint32_t slot)
{
    float key;
    pe_view_keys(v, p, &slot, 1, &key);
    return key;
}

/* The caller's distance for a key of the row view. */
float pe_rows_distance(const peri_space *space, float key);
/* A key that is no smaller than that of any row within a distance, and hardly larger. */
float pe_rows_key_of(const peri_space *space, float distance);

/* Codes: train on the rows of the given slots, or on raw input rows (under cosine divided by their
 * norms), encode every slot below `count`, publish. The former codes are retired. */
peri_status pe_rows_train(pe_rows *r, const float *sample, size_t n_sample, size_t count,
                          pe_progress *progress);
/* A quantiser for a sample of values, by least squared error: see quantise.c. */
pe_quantiser pe_quantiser_fit(const float *values, size_t n, int symmetric);

/* Key of rows = key of codes x this, under L2 and IP. */
static inline float pe_codes_scale(const pe_codes *c)
{
    return c->q.step * c->q.step;
}

#endif
