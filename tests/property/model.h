/* A model of an index: names with rows, and the exact answer to a query in double precision, with
 * the error that the library's arithmetic may make. */
#ifndef PE_MODEL_H
#define PE_MODEL_H

#include "indexes.h"

/* How values look: clusters of reals, bytes, a grid of few values with equal rows and ties, reals
 * far from zero with one large dimension. */
typedef enum model_data { DATA_REAL, DATA_BYTES, DATA_GRID, DATA_FAR, DATAS } model_data;

typedef struct model {
    peri_space space;
    model_data data;
    size_t cap, live;
    uint64_t *ids;
    unsigned char *here;
    float *rows;   /* as put */
    double *kept;  /* as kept; under cosine the direction */
    double *norms; /* of the kept */
    int keyed;
} model;

static inline void model_init(model *m, const peri_space *space, size_t cap, model_data data)
{
    memset(m, 0, sizeof *m);
    m->space = *space;
    m->data = data;
    m->cap = cap;
    m->ids = calloc(cap, sizeof *m->ids);
    m->here = calloc(cap, 1);
    m->rows = calloc(cap * space->dim, sizeof *m->rows);
    m->kept = calloc(cap * space->dim, sizeof *m->kept);
    m->norms = calloc(cap, sizeof *m->norms);
    assert_non_null(m->norms);
}

static inline void model_free(model *m)
{
    free(m->ids);
    free(m->here);
    free(m->rows);
    free(m->kept);
    free(m->norms);
    memset(m, 0, sizeof *m);
}

static inline void model_row(const model *m, pe_rng *r, float *row)
{
    uint32_t dim = m->space.dim;
    if (m->data == DATA_REAL || m->data == DATA_FAR)
        fill_rows(r, row, 1, dim);
    for (uint32_t i = 0; i < dim; i++) {
        if (m->data == DATA_BYTES)
            row[i] = (float)pe_rng_below(r, 256);
        else if (m->data == DATA_GRID)
            row[i] = (float)pe_rng_below(r, dim < 4 ? 12 : 2);
        else if (m->data == DATA_FAR)
            row[i] = i == dim / 2 ? 900 * row[i] : row[i] + 50;
    }
    if (m->data == DATA_GRID || m->data == DATA_BYTES) /* cosine takes no row of zeros */
        row[dim - 1] += row[dim - 1] == 0;
}

static inline double model_norm(const float *x, uint32_t dim)
{
    double s = 0;
    for (uint32_t i = 0; i < dim; i++)
        s += (double)x[i] * x[i];
    return sqrt(s);
}

static inline float spread(const float *x, uint32_t dim)
{
    float lo = x[0], hi = x[0];
    for (uint32_t i = 0; i < dim; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    return hi - lo;
}

/* Is the row that came back the one that was put, up to the rounding of what is kept? */
static inline void assert_rounded(const model *m, const float *put, const float *got)
{
    uint32_t dim = m->space.dim;
    int cosine = m->space.metric == PERI_METRIC_COSINE;
    int whole = m->data == DATA_BYTES || m->data == DATA_GRID;
    double norm = cosine ? model_norm(put, dim) : 1, step = spread(put, dim) / 255.0;
    for (uint32_t i = 0; i < dim; i++) {
        double x = put[i], off = fabs(got[i] - x), room = cosine ? 4 * 0x1p-24 * fabs(x) : 0;
        if (m->space.scalar == PERI_SCALAR_F16)
            room += 0x1p-11 * fabs(x) + 0x1p-25 * norm;
        else if (m->space.scalar == PERI_SCALAR_BF16)
            room += 0x1p-8 * fabs(x) + 0x1p-130 * norm;
        else if (m->space.scalar == PERI_SCALAR_I8 && (cosine || !whole))
            room += 0.5005 * step + 2e-6 * fabs(x) + 1e-30;
        room *= 1 + 1e-6;
        if (off > room) {
            print_error("value %u: put %.9g, got %.9g, off by %g, at most %g\n", i, x, got[i], off,
                        room);
            fail();
        }
    }
}

/* Take note of a row that is in: read it back, compare, keep. */
static inline void model_put(model *m, const peri_index *ix, size_t name, uint64_t id,
                             const float *row)
{
    uint32_t dim = m->space.dim;
    float *got = malloc(dim * sizeof *got);
    double norm = 1, sum = 0;
    assert_ok(peri_index_get(ix, id, got));
    assert_rounded(m, row, got);
    /* The 8-bit form of a direction is brought back to norm 1. */
    if (m->space.metric == PERI_METRIC_COSINE)
        norm = model_norm(m->space.scalar == PERI_SCALAR_I8 ? got : row, dim);
    for (uint32_t i = 0; i < dim; i++) {
        double v = got[i] / norm;
        m->kept[name * dim + i] = v;
        sum += v * v;
    }
    m->norms[name] = sqrt(sum);
    memcpy(m->rows + name * dim, row, dim * sizeof *row);
    m->ids[name] = id;
    m->live += !m->here[name];
    m->here[name] = 1;
    free(got);
}

static inline void model_remove(model *m, size_t name)
{
    m->live -= m->here[name];
    m->here[name] = 0;
}

static inline size_t model_name(const model *m, uint64_t id)
{
    for (size_t i = 0; i < m->cap; i++)
        if (m->here[i] && m->ids[i] == id)
            return i;
    return SIZE_MAX;
}

/* The query as the library measures it. */
typedef struct model_query {
    double *q, norm;
    double blur; /* how far its 8-bit form may be from it */
} model_query;

static inline model_query model_ask(const model *m, const float *row)
{
    uint32_t dim = m->space.dim;
    model_query a = {.q = malloc(dim * sizeof(double))};
    assert_non_null(a.q);
    double norm = model_norm(row, dim), scale = m->space.metric == PERI_METRIC_COSINE ? norm : 1;
    for (uint32_t i = 0; i < dim; i++)
        a.q[i] = row[i] / scale;
    a.norm = norm / scale;
    if (m->space.scalar == PERI_SCALAR_I8)
        a.blur = 0.5005 * spread(row, dim) / 255 / scale * sqrt(dim);
    if (m->space.metric == PERI_METRIC_COSINE)
        a.blur *= 2; /* its form is brought back to norm 1, which at most doubles the distance */
    return a;
}

/* The exact distance of a name, and how far the library's may lie from it, on either side. */
static inline double model_distance(const model *m, const model_query *a, size_t name, double *low,
                                    double *high)
{
    uint32_t dim = m->space.dim;
    const double *x = m->kept + name * dim;
    double dot = 0, d2 = 0, sums = (dim / 8 + 16) * 2 * 0x1p-24, both = a->norm * m->norms[name];
    int coded = m->space.scalar == PERI_SCALAR_I8;
    for (uint32_t i = 0; i < dim; i++) {
        dot += a->q[i] * x[i];
        d2 += (a->q[i] - x[i]) * (a->q[i] - x[i]);
    }
    double squares = a->norm * a->norm + m->norms[name] * m->norms[name];
    if (m->space.metric == PERI_METRIC_L2) {
        double d = sqrt(d2), near = d > a->blur ? d - a->blur : 0, far = d + a->blur;
        double room = coded ? 64 * 0x1p-24 * squares : 0;
        near = near * near * (1 - sums) - room;
        far = far * far * (1 + sums) + room;
        *low = near > 0 ? sqrt(near) * (1 - 0x1p-22) : 0;
        *high = sqrt(far) * (1 + 0x1p-22) + 1e-19;
        return d;
    }
    double room = sums * both + a->blur * m->norms[name] + (coded ? 64 * 0x1p-24 * squares : 0);
    double d = -dot;
    if (m->space.metric == PERI_METRIC_COSINE) {
        d += 1;
        room += 8 * 0x1p-24;
    }
    *low = d - room - 1e-37;
    *high = d + room + 1e-37;
    if (m->space.metric == PERI_METRIC_COSINE) { /* rounding may make a row longer than one */
        *low = *low < 0 ? 0 : *low;
        *high = *high < 0 ? 0 : *high;
    }
    return d;
}

#endif
