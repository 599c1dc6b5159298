#include "rows/rows.h"
#include "base/checked.h"

#include <float.h>
#include <math.h>

typedef struct lvq_stats {
    float step, mid, sum, norm2;
} lvq_stats;

static size_t lvq_stats_at(uint32_t dim)
{
    return pe_round_up(dim, 4);
}

static size_t code_stride(uint32_t dim)
{
    return pe_round_up(dim, 64);
}

static pe_elem elem_of(uint16_t scalar)
{
    switch (scalar) {
    case PERI_SCALAR_F16:
        return PE_ELEM_F16;
    case PERI_SCALAR_BF16:
        return PE_ELEM_BF16;
    case PERI_SCALAR_I8:
        return PE_ELEM_I8;
    default:
        return PE_ELEM_F32;
    }
}

peri_status pe_space_check(const peri_space *in, peri_space *out)
{
    if (!in)
        return pe_fail(PERI_ERR_ARG, "space is NULL");
    if (in->struct_size < sizeof *in)
        return pe_fail(PERI_ERR_ARG, "peri_space.struct_size is %u, expected %zu or more",
                       in->struct_size, sizeof *in);
    *out = *in;
    out->struct_size = sizeof *out;
    if (in->dim < 1 || in->dim > PERI_MAX_DIM)
        return pe_fail(PERI_ERR_DIMENSION, "dimension is %u, expected 1 to %d", in->dim,
                       PERI_MAX_DIM);
    if (out->metric == 0)
        out->metric = PERI_METRIC_L2;
    if (out->scalar == 0)
        out->scalar = PERI_SCALAR_F32;
    if (out->metric > PERI_METRIC_COSINE)
        return pe_fail(PERI_ERR_CONFIG, "metric is %u, expected 1 (l2), 2 (ip) or 3 (cosine)",
                       in->metric);
    if (out->scalar > PERI_SCALAR_I8)
        return pe_fail(PERI_ERR_CONFIG,
                       "scalar is %u, expected 1 (f32), 2 (f16), 3 (bf16) or 4 (i8)", in->scalar);
    return PERI_OK;
}

size_t pe_rows_stride(const peri_space *space)
{
    switch (space->scalar) {
    case PERI_SCALAR_F16:
    case PERI_SCALAR_BF16:
        return (size_t)space->dim * 2;
    case PERI_SCALAR_I8:
        return lvq_stats_at(space->dim) + sizeof(lvq_stats);
    default:
        return (size_t)space->dim * 4;
    }
}

void pe_rows_init(pe_rows *r, pe_host *host, pe_epoch *epoch, const peri_space *space)
{
    memset(r, 0, sizeof *r);
    r->host = host;
    r->epoch = epoch;
    r->kernels = pe_kernels_get();
    r->space = *space;
    r->elem = elem_of(space->scalar);
    pe_array_init(&r->rows, host, pe_rows_stride(space));
    pe_array_init(&r->norms, host, sizeof(float));
}

static void destroy_codes(pe_host *host, pe_codes *c)
{
    if (!c)
        return;
    pe_array_destroy(&c->array);
    pe_free(host, c, sizeof *c);
}

void pe_rows_destroy(pe_rows *r)
{
    pe_array_destroy(&r->rows);
    pe_array_destroy(&r->norms);
    destroy_codes(r->host, atomic_load_explicit(&r->codes, memory_order_relaxed));
    atomic_store_explicit(&r->codes, NULL, memory_order_relaxed);
}

peri_status pe_rows_reserve(pe_rows *r, size_t n, int exact)
{
    pe_codes *codes = atomic_load_explicit(&r->codes, memory_order_relaxed);
    PE_TRY(pe_array_reserve(&r->rows, r->epoch, n, exact));
    if (r->space.metric == PERI_METRIC_COSINE)
        PE_TRY(pe_array_reserve(&r->norms, r->epoch, n, exact));
    if (codes)
        PE_TRY(pe_array_reserve(&codes->array, r->epoch, n, exact));
    return PERI_OK;
}

/* ---- checking and storing ---- */

/* Largest magnitude that rounds to a finite value of the scalar. */
static float scalar_limit(const peri_space *space)
{
    switch (space->scalar) {
    case PERI_SCALAR_F16:
        return 65519.99f;
    case PERI_SCALAR_BF16:
        return 3.3895e38f;
    default:
        return 3.4028235e38f;
    }
}

peri_status pe_rows_check(const pe_rows *r, const float *row, const char *what, size_t at,
                          float *norm)
{
    float min, max;
    uint32_t dim = r->space.dim;
    *norm = 1;
    if (r->kernels->scan_f32(row, dim, &min, &max) != 0) {
        uint32_t i = 0, bits = 0;
        for (; i < dim; i++) {
            memcpy(&bits, &row[i], sizeof bits);
            if ((bits & 0x7f800000u) == 0x7f800000u)
                break;
        }
        return pe_fail(PERI_ERR_NONFINITE, "%s %zu: value %u of %u is not finite", what, at, i,
                       dim);
    }
    double norm2 = 0;
    if (r->space.metric == PERI_METRIC_COSINE || max > 1e16f || min < -1e16f) {
        for (uint32_t i = 0; i < dim; i++)
            norm2 += (double)row[i] * row[i];
    }
    if (r->space.metric == PERI_METRIC_COSINE) {
        if (norm2 == 0)
            return pe_fail(PERI_ERR_NONFINITE, "%s %zu: all zeros have no direction under cosine",
                           what, at);
        double n = sqrt(norm2);
        if (n > 3.4e38 || n < 1e-37)
            return pe_fail(PERI_ERR_NONFINITE, "%s %zu: its norm %g is beyond the range of f32",
                           what, at, n);
        *norm = (float)n;
        return PERI_OK;
    }
    /* Differences double the norm: a quarter of the range keeps every squared distance finite. */
    if (norm2 > 3.4e38 / 4)
        return pe_fail(PERI_ERR_NONFINITE, "%s %zu: its squared norm %g overflows f32", what, at,
                       norm2);
    float limit = scalar_limit(&r->space);
    if (max > limit || min < -limit)
        return pe_fail(PERI_ERR_NONFINITE, "%s %zu: value %g overflows the kept scalar", what, at,
                       (double)(max > limit ? max : min));
    return PERI_OK;
}

/* The offset and step of one row: exact where it holds integers spanning at most 255. */
static void lvq_fit(const pe_rows *r, const float *x, float *lo, float *step)
{
    uint32_t dim = r->space.dim;
    float min, max;
    r->kernels->scan_f32(x, dim, &min, &max);
    *lo = min;
    if (max - min <= 255 && min >= -16777216 && max <= 16777216) {
        uint32_t i = 0;
        while (i < dim && x[i] == (float)(int32_t)x[i])
            i++;
        if (i == dim) {
            /* Codes around zero: the terms of a distance are then no larger than it is. (Rows of 0
             * and 1 with codes of -128 and -127 came out 1.4 from themselves at 1,536 dimensions.)
             */
            *lo = min - floorf((255 - (max - min)) / 2);
            *step = 1;
            return;
        }
    }
    float span = max / 255 - min / 255;
    *step = span > 1e-30f ? span : 1e-30f;
}

static void lvq_stats_of(const int8_t *codes, uint32_t dim, float lo, float step, lvq_stats *s,
                         float *code_sum)
{
    double mid = (double)lo + 128.0 * step, norm2 = 0;
    int64_t sum = 0;
    for (uint32_t i = 0; i < dim; i++) {
        double x = mid + (double)step * codes[i];
        sum += codes[i];
        norm2 += x * x;
    }
    s->step = step;
    s->mid = (float)mid;
    s->sum = (float)((double)dim * mid + (double)step * (double)sum);
    s->norm2 = (float)norm2;
    *code_sum = (float)sum;
}

/* Returns by what the form was divided: its norm under cosine, else 1. */
static float lvq_encode(const pe_rows *r, const float *x, int8_t *codes, lvq_stats *s,
                        float *code_sum)
{
    float lo, step;
    uint32_t clipped, inexact;
    lvq_fit(r, x, &lo, &step);
    r->kernels->encode_i8(x, r->space.dim, lo, step, codes, &clipped, &inexact);
    lvq_stats_of(codes, r->space.dim, lo, step, s, code_sum);
    if (r->space.metric != PERI_METRIC_COSINE || !(s->norm2 > 0))
        return 1;
    /* A direction has norm 1, and so has its 8-bit form: among near neighbours what rounding does
     * to the norm is most of its error (recall@10 on w2v-imdb-100: 0.96 instead of 0.91). */
    float length = sqrtf(s->norm2);
    *s = (lvq_stats){s->step / length, s->mid / length, s->sum / length, 1};
    return length;
}

static void set_code(const pe_rows *r, pe_codes *c, uint32_t slot, const float *x)
{
    uint32_t clipped, inexact;
    unsigned char *code = pe_array_at(&c->array, slot);
    r->kernels->encode_i8(x, r->space.dim, c->q.lo, c->q.step, (int8_t *)code, &clipped, &inexact);
    memset(code + r->space.dim, 0, c->array.stride - r->space.dim);
    if (clipped)
        atomic_fetch_add_explicit(&c->clipped, 1, memory_order_relaxed);
    if (inexact)
        atomic_fetch_add_explicit(&c->inexact, 1, memory_order_relaxed);
}

static void normalise(const float *x, uint32_t dim, float norm, float *out)
{
    double inv = 1.0 / norm;
    for (uint32_t i = 0; i < dim; i++)
        out[i] = (float)(x[i] * inv);
}

void pe_rows_set(pe_rows *r, uint32_t slot, const float *row, float norm, float *scratch)
{
    uint32_t dim = r->space.dim;
    unsigned char *at = pe_array_at(&r->rows, slot);
    if (r->space.metric == PERI_METRIC_COSINE) {
        normalise(row, dim, norm, scratch);
        row = scratch;
    }
    switch (r->elem) {
    case PE_ELEM_F16:
        r->kernels->f32_to_f16(row, (uint16_t *)at, dim);
        break;
    case PE_ELEM_BF16:
        r->kernels->f32_to_bf16(row, (uint16_t *)at, dim);
        break;
    case PE_ELEM_I8: {
        lvq_stats s;
        float code_sum;
        norm *=
            lvq_encode(r, row, (int8_t *)at, &s, &code_sum); /* get gives back what was rounded */
        memset(at + dim, 0, lvq_stats_at(dim) - dim);
        memcpy(at + lvq_stats_at(dim), &s, sizeof s);
        break;
    }
    default:
        memcpy(at, row, (size_t)dim * sizeof *row);
    }
    if (r->space.metric == PERI_METRIC_COSINE)
        memcpy(pe_array_at(&r->norms, slot), &norm, sizeof norm);
    pe_codes *codes = atomic_load_explicit(&r->codes, memory_order_relaxed);
    if (codes)
        set_code(r, codes, slot, row);
}

/* The row as kept (under cosine its direction), as floats. */
static void direction(const pe_rows *r, uint32_t slot, float *out)
{
    uint32_t dim = r->space.dim;
    const unsigned char *at = pe_array_at(&r->rows, slot);
    switch (r->elem) {
    case PE_ELEM_F16:
        r->kernels->f16_to_f32((const uint16_t *)at, out, dim);
        break;
    case PE_ELEM_BF16:
        r->kernels->bf16_to_f32((const uint16_t *)at, out, dim);
        break;
    case PE_ELEM_I8: {
        lvq_stats s;
        memcpy(&s, at + lvq_stats_at(dim), sizeof s);
        for (uint32_t i = 0; i < dim; i++)
            out[i] = s.mid + s.step * (float)(int8_t)at[i];
        break;
    }
    default:
        memcpy(out, at, (size_t)dim * sizeof *out);
    }
}

void pe_rows_set_code(pe_rows *r, uint32_t slot, float *scratch)
{
    pe_codes *codes = atomic_load_explicit(&r->codes, memory_order_relaxed);
    if (!codes)
        return;
    direction(r, slot, scratch);
    set_code(r, codes, slot, scratch);
}

void pe_rows_get(const pe_rows *r, uint32_t slot, float *out, int scaled)
{
    direction(r, slot, out);
    if (scaled && r->space.metric == PERI_METRIC_COSINE) {
        float norm;
        memcpy(&norm, pe_array_at(&r->norms, slot), sizeof norm);
        for (uint32_t i = 0; i < r->space.dim; i++)
            out[i] *= norm;
    }
}

/* ---- views and points ---- */

static pe_rowview array_view(const pe_array *a, uint32_t dim)
{
    return (pe_rowview){
        (const unsigned char *const *)atomic_load_explicit(&a->chunks, memory_order_acquire),
        a->shift, a->mask, a->stride, dim};
}

pe_view pe_rows_view(const pe_rows *r)
{
    int l2 = r->space.metric == PERI_METRIC_L2;
    pe_view v = {.rows = array_view(&r->rows, r->space.dim), .elem = r->elem, .squared = 1};
    v.offset = r->space.metric == PERI_METRIC_COSINE ? 1 : 0;
    if (r->elem == PE_ELEM_I8) {
        v.form = l2 ? PE_FORM_LVQ_L2 : PE_FORM_LVQ_DOT;
        v.dist = r->kernels->dist[PE_OP_DOT][PE_ELEM_I8];
    } else {
        v.dist = r->kernels->dist[l2 ? PE_OP_L2 : PE_OP_DOT][r->elem];
    }
    return v;
}

pe_view pe_rows_code_view(const pe_rows *r, const pe_codes *codes)
{
    pe_op op = r->space.metric == PERI_METRIC_IP ? PE_OP_DOT : PE_OP_L2;
    return (pe_view){.rows = array_view(&codes->array, (uint32_t)codes->array.stride),
                     .dist = r->kernels->dist[op][PE_ELEM_I8],
                     .elem = PE_ELEM_I8,
                     .squared = 1};
}

size_t pe_rows_scratch(const peri_space *space)
{
    /* One row of floats, its i8 form, its code. */
    return pe_round_up((size_t)space->dim * sizeof(float), 64) + 2 * code_stride(space->dim);
}

void pe_rows_prepare(const pe_rows *r, const float *query, float norm, void *scratch,
                     pe_prepared *out)
{
    uint32_t dim = r->space.dim;
    float *x = scratch;
    int8_t *i8 = (int8_t *)scratch + pe_round_up((size_t)dim * sizeof(float), 64);
    int8_t *code = i8 + code_stride(dim);
    memset(out, 0, sizeof *out);
    if (r->space.metric == PERI_METRIC_COSINE)
        normalise(query, dim, norm, x);
    else
        memcpy(x, query, (size_t)dim * sizeof *x);
    out->x = x;
    out->row.q = x;
    if (r->elem == PE_ELEM_I8) {
        lvq_stats s;
        lvq_encode(r, x, i8, &s, &out->row.code_sum);
        out->row = (pe_point){i8, s.step, s.mid, s.sum, s.norm2, out->row.code_sum};
    }
    const pe_codes *c = pe_rows_codes(r);
    if (!c)
        return;
    uint32_t clipped, inexact;
    r->kernels->encode_i8(x, dim, c->q.lo, c->q.step, code, &clipped, &inexact);
    memset(code + dim, 0, code_stride(dim) - dim);
    /* A query that sticks out of the trained range in more than a few dimensions is measured on
     * the rows instead. */
    if (clipped > dim / 16)
        return;
    out->code.q = code;
    out->codes = c;
    out->code_exact = inexact == 0 && r->space.metric != PERI_METRIC_COSINE &&
                      atomic_load_explicit(&c->inexact, memory_order_relaxed) == 0;
}

pe_point pe_view_point(const pe_rows *r, const pe_view *v, uint32_t slot, void *scratch)
{
    const unsigned char *at = pe_rowview_at(&v->rows, slot);
    pe_point p = {.q = at};
    if (v->form != PE_FORM_PLAIN) {
        lvq_stats s;
        memcpy(&s, at + lvq_stats_at(v->rows.dim), sizeof s);
        p.step = s.step;
        p.mid = s.mid;
        p.sum = s.sum;
        p.norm2 = s.norm2;
        p.code_sum = s.step > 0 ? (s.sum - (float)v->rows.dim * s.mid) / s.step : 0;
    } else if (v->elem == PE_ELEM_F16 || v->elem == PE_ELEM_BF16) {
        direction(r, slot, scratch);
        p.q = scratch;
    }
    return p;
}

/* Keys of i8 rows from minus the dot product of their codes: with q = mq + sq * a and
 * x = mx + sx * b, <q, x> = mq * sum(x) + sq * (mx * sum(a) + sx * <a, b>). */
void pe_view_correct(const pe_view *v, const pe_point *p, const uint32_t *slots, size_t n,
                     float *out)
{
    size_t at = lvq_stats_at(v->rows.dim);
    for (size_t i = 0; i < n; i++) {
        lvq_stats s;
        memcpy(&s, pe_rowview_at(&v->rows, slots[i]) + at, sizeof s);
        float dot = p->mid * s.sum + p->step * (s.mid * p->code_sum - s.step * out[i]);
        if (v->form == PE_FORM_LVQ_DOT) {
            out[i] = -dot;
        } else {
            float d = p->norm2 + s.norm2 - 2 * dot;
            out[i] = d > 0 ? d : 0;
        }
    }
}

float pe_rows_distance(const peri_space *space, float key)
{
    switch (space->metric) {
    case PERI_METRIC_L2:
        return sqrtf(key > 0 ? key : 0);
    case PERI_METRIC_COSINE:
        return key < -1 ? 0 : 1 + key;
    default:
        return key;
    }
}

float pe_rows_key_of(const peri_space *space, float distance)
{
    /* A root or a sum that was rounded must not shut out the very key it came from. */
    switch (space->metric) {
    case PERI_METRIC_L2:
        return distance < 0 ? -1 : distance * distance * (1 + 0x1p-21f) + FLT_MIN;
    case PERI_METRIC_COSINE:
        return distance - 1 + 0x1p-22f;
    default:
        return distance;
    }
}
