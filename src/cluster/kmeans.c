#include "cluster/kmeans.h"
#include "base/rng.h"

void pe_kmeans_nearest(const pe_kernels *kernels, const float *rows, size_t n, size_t stride,
                       const float *centres, size_t centre_stride, const float *norms, uint32_t k,
                       uint32_t dim, float *dots, uint32_t *nearest, float *keys)
{
    float key;
    for (size_t first = 0; first < n; first += PE_KMEANS_TILE) {
        size_t m = n - first < PE_KMEANS_TILE ? n - first : PE_KMEANS_TILE;
        kernels->tile_dot_f32(rows + first * stride, stride, m, centres, centre_stride, k, dim,
                              dots, k);
        for (size_t i = 0; i < m; i++) {
            nearest[first + i] = kernels->least(dots + i * k, norms, k, &key);
            if (keys)
                keys[first + i] = key;
        }
    }
}

typedef struct run {
    const pe_kmeans *in;
    float *centres, *norms;
    uint32_t *nearest;
    float *dots;             /* a tile a worker */
    double *sums;            /* dim a worker */
    uint32_t *first, *order; /* rows by centre: order[first[c]..first[c + 1]) */
    _Atomic size_t next;
    unsigned workers;
    pe_progress *progress;
} run;

enum { PIECE = 16 * PE_KMEANS_TILE };

static void assign_worker(void *ctx, unsigned worker)
{
    run *r = ctx;
    const pe_kmeans *in = r->in;
    float *dots = r->dots + (size_t)worker * PE_KMEANS_TILE * in->k;
    for (;;) {
        size_t first = atomic_fetch_add(&r->next, PIECE);
        if (first >= in->n)
            return;
        size_t n = in->n - first < PIECE ? in->n - first : PIECE;
        pe_kmeans_nearest(in->kernels, in->rows + first * in->stride, n, in->stride, r->centres,
                          in->stride, r->norms, in->k, in->dim, dots, r->nearest + first, NULL);
    }
}

/* Counting sort of the rows by centre. */
static void sort_by_centre(run *r)
{
    uint32_t k = r->in->k;
    memset(r->first, 0, (k + 2) * sizeof *r->first);
    for (size_t i = 0; i < r->in->n; i++)
        r->first[r->nearest[i] + 2]++;
    for (uint32_t c = 2; c < k + 2; c++)
        r->first[c] += r->first[c - 1];
    for (size_t i = 0; i < r->in->n; i++)
        r->order[r->first[r->nearest[i] + 1]++] = (uint32_t)i;
}

static void set_norm(run *r, uint32_t c)
{
    const float *x = r->centres + (size_t)c * r->in->stride;
    r->norms[c] = -r->in->kernels->dist[PE_OP_DOT][PE_ELEM_F32].one(x, x, r->in->dim);
}

static void mean_worker(void *ctx, unsigned worker)
{
    run *r = ctx;
    const pe_kmeans *in = r->in;
    double *sum = r->sums + (size_t)worker * in->dim;
    for (;;) {
        size_t c = atomic_fetch_add(&r->next, 1);
        if (c >= in->k)
            return;
        uint32_t n = r->first[c + 1] - r->first[c];
        if (n == 0)
            continue;
        memset(sum, 0, in->dim * sizeof *sum);
        for (uint32_t i = r->first[c]; i < r->first[c + 1]; i++) {
            const float *x = in->rows + (size_t)r->order[i] * in->stride;
            for (uint32_t d = 0; d < in->dim; d++)
                sum[d] += (double)x[d];
        }
        float *centre = r->centres + c * in->stride;
        for (uint32_t d = 0; d < in->dim; d++)
            centre[d] = (float)(sum[d] / n);
        set_norm(r, (uint32_t)c);
    }
}

static uint32_t largest(const uint32_t *size, uint32_t k)
{
    uint32_t best = 0;
    for (uint32_t c = 1; c < k; c++)
        if (size[c] > size[best])
            best = c;
    return best;
}

/* A centre without rows takes half of the largest one's: it is put in the place of one of its rows
 * and the next round shares them out. */
static void move_empty(run *r, pe_rng *rng, uint32_t *size)
{
    const pe_kmeans *in = r->in;
    for (uint32_t c = 0; c < in->k; c++)
        size[c] = r->first[c + 1] - r->first[c];
    for (uint32_t c = 0; c < in->k; c++) {
        if (r->first[c + 1] > r->first[c])
            continue;
        uint32_t from = largest(size, in->k);
        if (size[from] < 2)
            return;
        uint32_t row =
            r->order[r->first[from] + pe_rng_below(rng, r->first[from + 1] - r->first[from])];
        memcpy(r->centres + (size_t)c * in->stride, in->rows + (size_t)row * in->stride,
               in->dim * sizeof(float));
        set_norm(r, c);
        size[from] -= size[from] / 2; /* c itself has no row that it could give */
    }
}

/* k rows drawn without putting back (Floyd would need a set; this walks once). */
static void draw_centres(run *r, pe_rng *rng)
{
    const pe_kmeans *in = r->in;
    uint32_t c = 0;
    for (size_t i = 0; i < in->n && c < in->k; i++) {
        size_t left = in->n - i, want = in->k - c;
        if (pe_rng_unit(rng) * (double)left > (double)want)
            continue;
        memcpy(r->centres + (size_t)c * in->stride, in->rows + i * in->stride,
               in->dim * sizeof(float));
        set_norm(r, c++);
    }
    while (c < in->k) { /* rounding may leave the last few short */
        memcpy(r->centres + (size_t)c * in->stride,
               in->rows + (size_t)pe_rng_below(rng, (uint32_t)in->n) * in->stride,
               in->dim * sizeof(float));
        set_norm(r, c++);
    }
}

static void pass(run *r, pe_team_fn fn)
{
    atomic_store(&r->next, 0);
    pe_team_run(r->workers, fn, r);
}

static peri_status run_rounds(run *r)
{
    const pe_kmeans *in = r->in;
    pe_rng rng = {in->seed};
    uint32_t *size = pe_alloc(in->host, in->k * sizeof *size);
    if (!size)
        return PERI_ERR_NOMEM;
    draw_centres(r, &rng);
    int cancelled = 0;
    for (unsigned round = 0; round < in->rounds && !cancelled; round++) {
        pass(r, assign_worker);
        sort_by_centre(r);
        pass(r, mean_worker);
        if (round + 1 < in->rounds)
            move_empty(r, &rng, size);
        cancelled = r->progress ? pe_progress_add(r->progress, 0, in->n) : 0;
    }
    pass(r, assign_worker);
    pe_free(in->host, size, in->k * sizeof *size);
    return cancelled ? pe_progress_end(r->progress) : PERI_OK;
}

peri_status pe_kmeans_run(const pe_kmeans *in, float *centres, float *norms, uint32_t *nearest,
                          pe_progress *progress, unsigned workers)
{
    if (in->n < PIECE)
        workers = 1;
    run r = {.in = in,
             .centres = centres,
             .norms = norms,
             .nearest = nearest,
             .workers = workers,
             .progress = progress};
    size_t dots = (size_t)workers * PE_KMEANS_TILE * in->k * sizeof *r.dots;
    size_t sums = (size_t)workers * in->dim * sizeof *r.sums;
    size_t first = ((size_t)in->k + 2) * sizeof *r.first, order = in->n * sizeof *r.order;
    r.dots = pe_alloc(in->host, dots);
    r.sums = pe_alloc(in->host, sums);
    r.first = pe_alloc(in->host, first);
    r.order = pe_alloc(in->host, order);
    peri_status status = PERI_ERR_NOMEM;
    if (r.dots && r.sums && r.first && r.order)
        status = run_rounds(&r);
    pe_free(in->host, r.dots, dots);
    pe_free(in->host, r.sums, sums);
    pe_free(in->host, r.first, first);
    pe_free(in->host, r.order, order);
    return status;
}
