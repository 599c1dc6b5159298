/* The curve behind target_recall: recall@10 by effort, measured on the index's own rows.
 *
 * A stored row as query would flatter: its links lead straight to its neighbours. So each sampled
 * row is moved in a random direction by one and a half times the distance to its tenth neighbour,
 * and the true answer is found exactly. (By half that distance the curve promised 0.06 too much on
 * SIFT and MNIST, by one 0.03.) */
#include "index/index.h"
#include "base/rng.h"

#include <math.h>

enum { AT = 10, REACH_EFFORT = 160 };

static const uint32_t efforts[PE_CURVE_MAX] = {16,  20,  24,  32,  40,  56,  80,   112,
                                               160, 224, 320, 448, 640, 960, 1440, 2160};

typedef struct run {
    peri_index *ix;
    uint32_t *slots;
    size_t n;
    float *room; /* two rows a worker */
    _Atomic size_t next;
    _Atomic uint64_t found[PE_CURVE_MAX];
    _Atomic uint64_t wanted;
    pe_first_error error;
    pe_progress *progress;
} run;

/* A query beside the row of a slot. */
static void beside(const peri_index *ix, uint32_t slot, float reach, float *query, float *noise)
{
    uint32_t dim = ix->space.dim;
    pe_rng rng = {pe_mix64(slot)};
    double norm2 = 0;
    for (uint32_t i = 0; i < dim; i++) {
        /* Near enough to normal: the sum of four uniform numbers. */
        double u = pe_rng_unit(&rng) + pe_rng_unit(&rng) + pe_rng_unit(&rng) + pe_rng_unit(&rng);
        noise[i] = (float)(u - 2);
        norm2 += (double)noise[i] * noise[i];
    }
    pe_rows_get(&ix->rows, slot, query, 0);
    float scale = norm2 > 0 ? reach / (float)sqrt(norm2) : 0;
    for (uint32_t i = 0; i < dim; i++)
        query[i] += scale * noise[i];
}

/* Distance over which to move a query: that of its farthest hit. */
static float neighbour_distance(const peri_index *ix, const peri_hit *hits, size_t n)
{
    if (n == 0)
        return 0;
    float d = hits[n - 1].distance;
    if (ix->space.metric == PERI_METRIC_COSINE)
        d = sqrtf(2 * (d > 0 ? d : 0));
    else if (ix->space.metric == PERI_METRIC_IP)
        d = fabsf(d - hits[0].distance) > 0 ? sqrtf(fabsf(d - hits[0].distance)) : 0;
    return 1.5f * d;
}

static peri_status exact(const peri_index *ix, pe_scratch *scratch, const float *row, uint64_t *ids,
                         size_t *n)
{
    float norm;
    pe_prepared prepared;
    pe_accept accept = {&ix->slots, NULL, NULL, NULL};
    PE_TRY(pe_rows_check(&ix->rows, row, "sample", 0, &norm));
    pe_rows_prepare(&ix->rows, row, norm, scratch->query, &prepared);
    PE_TRY(pe_scratch_cands(scratch, AT + 1));
    pe_search s = {.ix = ix,
                   .scratch = scratch,
                   .query = &prepared,
                   .want = AT,
                   .accept = &accept,
                   .share = 1,
                   .max_key = INFINITY};
    s.limit = pe_slots_count(&ix->slots);
    PE_TRY(pe_exact_search(&s));
    for (size_t i = 0; i < s.n; i++)
        ids[i] = pe_slots_id(&ix->slots, scratch->cands[i].slot);
    *n = s.n;
    return PERI_OK;
}

static peri_status measure(run *r, pe_scratch *scratch, uint32_t slot, float *query, float *noise)
{
    const peri_index *ix = r->ix;
    uint64_t truth[AT], found = 0;
    peri_hit hits[AT + 1];
    size_t n, n_hits;
    peri_query q;
    pe_rows_get(&ix->rows, slot, query, 0);
    /* How far the neighbours are need not be known exactly: the index itself can say. */
    peri_query_init(&q, AT + 1);
    PE_TRY(pe_index_search_inside(ix, scratch, query, &q, REACH_EFFORT, hits, &n_hits));
    beside(ix, slot, neighbour_distance(ix, hits, n_hits), query, noise);
    PE_TRY(exact(ix, scratch, query, truth, &n));
    q.k = AT;
    for (size_t e = 0; e < PE_CURVE_MAX; e++) {
        /* With more effort what was found would be found again. */
        if (found < n) {
            found = 0;
            PE_TRY(pe_index_search_inside(ix, scratch, query, &q, efforts[e], hits, &n_hits));
            for (size_t i = 0; i < n_hits; i++)
                for (size_t j = 0; j < n; j++)
                    found += hits[i].id == truth[j];
        }
        atomic_fetch_add(&r->found[e], found);
    }
    atomic_fetch_add(&r->wanted, n);
    return PERI_OK;
}

static void worker_main(void *ctx, unsigned worker)
{
    run *r = ctx;
    uint32_t dim = r->ix->space.dim;
    float *query = r->room + (size_t)worker * 2 * dim;
    while (!r->error.failed) {
        size_t i = atomic_fetch_add(&r->next, 1);
        if (i >= r->n)
            return;
        pe_reader *place;
        pe_scratch *scratch;
        peri_status status = pe_index_enter(r->ix, &place, &scratch);
        if (status == PERI_OK) {
            status = measure(r, scratch, r->slots[i], query, query + dim);
            pe_epoch_exit(place);
        }
        /* A sample whose query is not to be had (it overflows, say) counts for nothing. */
        if (status == PERI_ERR_NOMEM || status == PERI_ERR_CORRUPT)
            pe_first_error_set(&r->error, status);
        if (pe_progress_add(r->progress, worker, 1))
            return;
    }
}

static peri_status publish(run *r)
{
    pe_curve *curve = pe_calloc(&r->ix->host, sizeof *curve);
    if (!curve)
        return PERI_ERR_NOMEM;
    float best = 0;
    for (size_t e = 0; e < PE_CURVE_MAX; e++) {
        float recall = (float)((double)r->found[e] / (double)r->wanted);
        best = recall > best ? recall : best; /* rises with effort but for noise */
        curve->effort[e] = efforts[e];
        curve->recall[e] = best;
        curve->n++;
    }
    pe_curve *old = atomic_exchange(&r->ix->curve, curve);
    if (old)
        pe_epoch_retire_memory(&r->ix->epoch, old, sizeof *old);
    return PERI_OK;
}

uint32_t pe_curve_effort(const pe_curve *c, float recall)
{
    uint32_t i = 0;
    while (i < c->n && c->recall[i] < recall)
        i++;
    if (i == c->n)
        return c->effort[c->n - 1] * 2; /* beyond what was measured */
    if (i == 0)
        return c->effort[0];
    double part = (recall - c->recall[i - 1]) / (c->recall[i] - c->recall[i - 1]);
    return c->effort[i - 1] + (uint32_t)ceil(part * (double)(c->effort[i] - c->effort[i - 1]));
}

peri_status pe_index_calibrate(peri_index *ix, size_t samples, pe_progress *progress,
                               unsigned workers)
{
    uint32_t count = pe_slots_count(&ix->slots), live = pe_slots_live(&ix->slots);
    uint32_t slots[PE_SAMPLES];
    size_t n = 0;
    if (live < PE_CURVE_ROWS)
        return PERI_OK; /* too few rows to tell: such an index is scanned in no time */
    PE_TRY(pe_epoch_reserve(&ix->epoch, 1));
    pe_rng rng = {0x5eed};
    for (size_t tries = 0; n < samples && tries < 64 * samples; tries++) {
        uint32_t slot = pe_rng_below(&rng, count);
        if (!pe_slots_dead(&ix->slots, slot))
            slots[n++] = slot;
    }
    size_t bytes = (size_t)workers * 2 * ix->space.dim * sizeof(float);
    run r = {.ix = ix, .slots = slots, .n = n, .progress = progress};
    r.room = pe_alloc(&ix->host, bytes);
    if (!r.room)
        return PERI_ERR_NOMEM;
    pe_progress_phase(progress, "calibrate", n);
    pe_team_run(workers, worker_main, &r);
    pe_free(&ix->host, r.room, bytes);
    PE_TRY(pe_first_error_get(&r.error));
    PE_TRY(pe_progress_end(progress));
    return r.wanted ? publish(&r) : PERI_OK;
}
