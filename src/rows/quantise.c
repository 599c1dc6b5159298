/* Training of the 8-bit codes.
 *
 * One offset and step for all dimensions (so that distances of codes need no per-row data and a
 * code of 128 dimensions is two cache lines). The range is the one of least squared error on a
 * sample of values: a narrower range has finer steps and cuts more off. Values that are integers
 * spanning at most 255 are kept without loss, which images and SIFT descriptors are. */
#include "rows/rows.h"
#include "base/checked.h"
#include "base/rng.h"

#include <math.h>
#include <stdlib.h>

static int all_integers(const float *v, size_t n, float min, float max)
{
    if (max - min > 255 || min < -1e6f || max > 1e6f)
        return 0;
    for (size_t i = 0; i < n; i++)
        if (v[i] != (float)(int32_t)v[i])
            return 0;
    return 1;
}

static double squared_error(const float *v, size_t n, float lo, float hi)
{
    double step = ((double)hi - lo) / 255, error = 0;
    for (size_t i = 0; i < n; i++) {
        double off = v[i] < lo ? (double)lo - v[i] : v[i] > hi ? (double)v[i] - hi : 0;
        error += off > 0 ? off * off : step * step / 12;
    }
    return error;
}

pe_quantiser pe_quantiser_fit(const float *values, size_t n, int symmetric)
{
    float min = 0, max = 0;
    for (size_t i = 0; i < n; i++) {
        min = i == 0 || values[i] < min ? values[i] : min;
        max = i == 0 || values[i] > max ? values[i] : max;
    }
    if (symmetric) {
        float reach = -min > max ? -min : max;
        if (reach <= 127 && all_integers(values, n, min, max))
            return (pe_quantiser){-128, 1};
        min = -reach;
        max = reach;
    } else if (all_integers(values, n, min, max)) {
        /* Leave what room there is on both sides; counts and pixels start at 0. */
        float lo = min >= 0 && max <= 255 ? 0 : floorf(min - (255 - (max - min)) / 2);
        return (pe_quantiser){lo, 1};
    }
    if (!(max > min))
        return (pe_quantiser){symmetric ? -128 : min - 1, symmetric ? 1 : 1.0f / 64};
    float mid = symmetric ? 0 : (min + max) / 2, best_half = (max - min) / 2;
    double best = INFINITY;
    for (float part = 1.0f; part > 0.1f; part *= 0.93f) {
        float half = (max - min) / 2 * part;
        double error = squared_error(values, n, mid - half, mid + half);
        if (error < best) {
            best = error;
            best_half = half;
        }
    }
    /* Later rows reach a little further than the sample. */
    best_half *= 1.03f;
    float step = 2 * best_half / 255;
    if (step < 1e-30f)
        step = 1e-30f;
    return (pe_quantiser){symmetric ? -128 * step : mid - best_half, step};
}

typedef struct encoder {
    const pe_rows *rows;
    pe_codes *codes;
    size_t count;
    _Atomic size_t next;
    pe_progress *progress;
    float **scratch;
} encoder;

enum { ENCODE_BATCH = 256 };

static void encode_worker(void *ctx, unsigned worker)
{
    encoder *e = ctx;
    float *x = e->scratch[worker];
    uint32_t dim = e->rows->space.dim;
    for (;;) {
        size_t first = atomic_fetch_add(&e->next, ENCODE_BATCH);
        if (first >= e->count)
            return;
        size_t end = first + ENCODE_BATCH < e->count ? first + ENCODE_BATCH : e->count;
        for (size_t s = first; s < end; s++) {
            uint32_t clipped, inexact;
            unsigned char *code = pe_array_at(&e->codes->array, s);
            pe_rows_get(e->rows, (uint32_t)s, x, 0);
            e->rows->kernels->encode_i8(x, dim, e->codes->q.lo, e->codes->q.step, (int8_t *)code,
                                        &clipped, &inexact);
            memset(code + dim, 0, e->codes->array.stride - dim);
            atomic_fetch_add_explicit(&e->codes->clipped, clipped != 0, memory_order_relaxed);
            atomic_fetch_add_explicit(&e->codes->inexact, inexact != 0, memory_order_relaxed);
        }
        if (pe_progress_add(e->progress, worker, end - first))
            return;
    }
}

static void retire_codes(void *owner, void *ptr, uint64_t arg)
{
    (void)owner;
    (void)arg;
    pe_codes *c = ptr;
    pe_host *host = c->array.host;
    pe_array_destroy(&c->array);
    pe_free(host, c, sizeof *c);
}

enum { SAMPLE_VALUES = 1 << 18 };

/* Values of up to SAMPLE_VALUES / dim sample rows, under cosine divided by their norms. */
static float *sample_values(const pe_rows *r, const float *sample, size_t n_sample, size_t count,
                            size_t *n_values)
{
    uint32_t dim = r->space.dim;
    size_t from = sample ? n_sample : count;
    size_t rows = SAMPLE_VALUES / dim + 64;
    if (rows > from)
        rows = from;
    float *values = pe_alloc(r->host, rows * dim * sizeof *values);
    if (!values)
        return NULL;
    for (size_t i = 0; i < rows; i++) {
        size_t at = (size_t)((double)i * (double)from / (double)rows);
        float *out = values + i * dim;
        if (!sample) {
            pe_rows_get(r, (uint32_t)at, out, 0);
            continue;
        }
        memcpy(out, sample + at * dim, dim * sizeof *out);
        if (r->space.metric == PERI_METRIC_COSINE) {
            double norm2 = 0;
            for (uint32_t j = 0; j < dim; j++)
                norm2 += (double)out[j] * out[j];
            double inv = norm2 > 0 ? 1 / sqrt(norm2) : 0;
            for (uint32_t j = 0; j < dim; j++)
                out[j] = (float)(out[j] * inv);
        }
    }
    *n_values = rows * dim;
    return values;
}

peri_status pe_rows_train(pe_rows *r, const float *sample, size_t n_sample, size_t count,
                          pe_progress *progress)
{
    if (count == 0 && n_sample == 0)
        return PERI_OK;
    size_t n_values = 0, dim = r->space.dim, codes_stride = pe_round_up(dim, 64);
    float *values = sample_values(r, sample, n_sample, count, &n_values);
    if (!values)
        return PERI_ERR_NOMEM;
    pe_quantiser q = pe_quantiser_fit(values, n_values, r->space.metric == PERI_METRIC_IP);
    pe_free(r->host, values, n_values * sizeof *values);

    unsigned threads = progress->task ? pe_task_threads(progress->task) : 1;
    float *scratch[PE_TEAM_MAX] = {0};
    peri_status status = pe_epoch_reserve(r->epoch, 1);
    pe_codes *codes = pe_calloc(r->host, sizeof *codes);
    if (!codes)
        status = PERI_ERR_NOMEM;
    if (status == PERI_OK) {
        pe_array_init(&codes->array, r->host, codes_stride);
        codes->q = q;
        status = pe_array_reserve(&codes->array, r->epoch, r->rows.capacity, 1);
    }
    for (unsigned t = 0; t < threads && status == PERI_OK; t++)
        if (!(scratch[t] = pe_alloc(r->host, dim * sizeof(float))))
            status = PERI_ERR_NOMEM;
    if (status == PERI_OK) {
        encoder e = {r, codes, count, 0, progress, scratch};
        pe_progress_phase(progress, "encode", count);
        pe_team_run(threads, encode_worker, &e);
        status = pe_progress_end(progress);
    }
    for (unsigned t = 0; t < threads; t++)
        pe_free(r->host, scratch[t], dim * sizeof(float));
    if (status != PERI_OK) {
        if (codes)
            retire_codes(NULL, codes, 0);
        return status;
    }
    pe_codes *old = atomic_exchange_explicit(&r->codes, codes, memory_order_acq_rel);
    if (old)
        pe_epoch_retire(r->epoch, retire_codes, old, 0);
    return PERI_OK;
}
