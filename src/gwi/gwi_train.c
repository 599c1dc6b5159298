/* Training: a sample, upper attractors over all of it, then wells within the rows of each.
 *
 * With G groups of about G wells each both levels cost n G d instead of n G^2 d, and each k-means
 * is small enough for tiles from the second-level cache. 64 sample rows an attractor: 256 gained
 * 0.002 of recall on sift250k and took four times as long. */
#include "gwi/gwi.h"
#include "cluster/kmeans.h"

#include <math.h>

enum { ROWS_PER_WELL = 64, ROWS_PER_GROUP = 256, SAMPLE_BYTES = 128 << 20 };

typedef struct trainer {
    peri_index *ix;
    const float *rows; /* the caller's, as given */
    size_t n;
    uint32_t *waiting; /* slots that wait */
    size_t n_waiting;
    size_t n_sample;
    float *sample; /* rotated; once sorted by group */
    uint32_t *group;
    uint32_t groups, wells;
    float *tops, *top_norms;
    uint32_t *first;    /* sample rows of each group */
    uint32_t *children; /* wells of each group: children[g] .. children[g + 1] */
    float *centres, *norms;
    _Atomic size_t next;
    pe_first_error error;
    unsigned workers;
    pe_progress *progress;
} trainer;

/* ---- the sample ---- */

/* Row i of n_sample, spread evenly over those that wait and those given. */
static void sample_row(trainer *t, size_t i, float *out, float *tmp)
{
    const pe_bitcode *b = &gwi_of(t->ix)->bitcode;
    size_t total = t->n + t->n_waiting;
    size_t at = (size_t)((double)i * (double)total / (double)t->n_sample);
    if (at < t->n_waiting) {
        pe_gwi_rotated(t->ix, t->waiting[at], out, tmp);
        return;
    }
    at = at - t->n_waiting < t->n ? at - t->n_waiting : t->n - 1;
    const float *row = t->rows + at * b->dim;
    pe_bitcode_rotate(b, row, out, tmp);
    if (t->ix->space.metric != PERI_METRIC_COSINE)
        return;
    float dot = -b->kernels->dist[PE_OP_DOT][PE_ELEM_F32].one(out, out, b->width);
    float scale = dot > 0 ? 1 / sqrtf(dot) : 0;
    for (uint32_t d = 0; d < b->width; d++)
        out[d] *= scale;
}

static void sample_worker(void *ctx, unsigned worker)
{
    trainer *t = ctx;
    enum { UNIT = 256 };
    size_t width = gwi_of(t->ix)->bitcode.width;
    (void)worker;
    float *tmp = pe_alloc(&t->ix->host, width * sizeof *tmp);
    if (!tmp) {
        pe_first_error_set(&t->error, PERI_ERR_NOMEM);
        return;
    }
    for (;;) {
        size_t first = atomic_fetch_add(&t->next, UNIT);
        if (first >= t->n_sample)
            break;
        size_t end = first + UNIT < t->n_sample ? first + UNIT : t->n_sample;
        for (size_t i = first; i < end; i++)
            sample_row(t, i, t->sample + i * width, tmp);
    }
    pe_free(&t->ix->host, tmp, width * sizeof *tmp);
}

static peri_status team(trainer *t, pe_team_fn fn)
{
    atomic_store(&t->next, 0);
    pe_team_run(t->workers, fn, t);
    return pe_first_error_get(&t->error);
}

static peri_status take_sample(trainer *t)
{
    size_t width = gwi_of(t->ix)->bitcode.width, total = t->n + t->n_waiting;
    size_t most = SAMPLE_BYTES / (width * sizeof(float)), want = (size_t)t->wells * ROWS_PER_WELL;
    t->n_sample = want < most ? want : most;
    if (t->n_sample < t->wells)
        t->n_sample = t->wells;
    if (t->n_sample > total)
        t->n_sample = total;
    t->sample = pe_alloc(&t->ix->host, t->n_sample * width * sizeof(float));
    if (!t->sample)
        return PERI_ERR_NOMEM;
    return team(t, sample_worker);
}

/* ---- the two levels ---- */

static pe_kmeans kmeans_of(const trainer *t, const float *rows, size_t n, uint32_t k, uint64_t seed)
{
    const gwi *g = gwi_of(t->ix);
    return (pe_kmeans){.host = &t->ix->host,
                       .kernels = g->bitcode.kernels,
                       .rows = rows,
                       .n = n,
                       .stride = g->bitcode.width,
                       .dim = g->bitcode.width,
                       .k = k,
                       .rounds = g->rounds,
                       .seed = g->seed ^ seed};
}

static void group_worker(void *ctx, unsigned worker)
{
    trainer *t = ctx;
    enum { UNIT = 1024 };
    const gwi *g = gwi_of(t->ix);
    size_t width = g->bitcode.width, bytes = (size_t)PE_KMEANS_TILE * t->groups * sizeof(float);
    (void)worker;
    float *dots = pe_alloc(&t->ix->host, bytes);
    if (!dots) {
        pe_first_error_set(&t->error, PERI_ERR_NOMEM);
        return;
    }
    for (;;) {
        size_t first = atomic_fetch_add(&t->next, UNIT);
        if (first >= t->n_sample)
            break;
        size_t n = t->n_sample - first < UNIT ? t->n_sample - first : UNIT;
        pe_kmeans_nearest(g->bitcode.kernels, t->sample + first * width, n, width, t->tops, width,
                          t->top_norms, t->groups, g->bitcode.width, dots, t->group + first, NULL);
    }
    pe_free(&t->ix->host, dots, bytes);
}

/* Upper attractors from a part of the sample; they are few, and that part is enough for them. */
static peri_status train_groups(trainer *t)
{
    size_t width = gwi_of(t->ix)->bitcode.width;
    size_t n = (size_t)t->groups * ROWS_PER_GROUP;
    n = n < t->n_sample ? n : t->n_sample;
    size_t step = t->n_sample / n;
    float *part = pe_alloc(&t->ix->host, n * width * sizeof *part);
    if (!part)
        return PERI_ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        memcpy(part + i * width, t->sample + i * step * width, width * sizeof *part);
    pe_kmeans in = kmeans_of(t, part, n, t->groups, 0);
    peri_status status =
        pe_kmeans_run(&in, t->tops, t->top_norms, t->group, t->progress, t->workers);
    pe_free(&t->ix->host, part, n * width * sizeof *part);
    PE_TRY(status);
    return team(t, group_worker);
}

/* Sample rows by group, and each group's share of the wells. */
static peri_status sort_sample(trainer *t)
{
    size_t width = gwi_of(t->ix)->bitcode.width, bytes = t->n_sample * width * sizeof(float);
    memset(t->first, 0, ((size_t)t->groups + 2) * sizeof *t->first);
    for (size_t i = 0; i < t->n_sample; i++)
        t->first[t->group[i] + 2]++;
    for (uint32_t g = 2; g < t->groups + 2; g++)
        t->first[g] += t->first[g - 1];
    float *sorted = pe_alloc(&t->ix->host, bytes);
    if (!sorted)
        return PERI_ERR_NOMEM;
    for (size_t i = 0; i < t->n_sample; i++)
        memcpy(sorted + (size_t)t->first[t->group[i] + 1]++ * width, t->sample + i * width,
               width * sizeof *sorted);
    pe_free(&t->ix->host, t->sample, bytes);
    t->sample = sorted;
    t->children[0] = 0;
    for (uint32_t g = 0; g < t->groups; g++) {
        uint32_t n = t->first[g + 1] - t->first[g];
        uint64_t share = ((uint64_t)n * t->wells + t->n_sample / 2) / t->n_sample;
        share = share < 1 ? 1 : share;
        t->children[g + 1] = t->children[g] + (uint32_t)(share < n ? share : n);
    }
    t->wells = t->children[t->groups];
    return PERI_OK;
}

static void wells_worker(void *ctx, unsigned worker)
{
    trainer *t = ctx;
    size_t width = gwi_of(t->ix)->bitcode.width;
    (void)worker;
    while (!t->error.failed && !t->progress->cancelled) {
        size_t g = atomic_fetch_add(&t->next, 1);
        if (g >= t->groups)
            return;
        uint32_t at = t->children[g], k = t->children[g + 1] - at;
        size_t first = t->first[g], n = t->first[g + 1] - first;
        if (k == 0)
            continue;
        pe_kmeans in = kmeans_of(t, t->sample + first * width, n, k, g + 1);
        /* A row's well within its group takes the place of its group: both are known by now. */
        pe_first_error_set(&t->error, pe_kmeans_run(&in, t->centres + at * width, t->norms + at,
                                                    t->group + first, NULL, 1));
        pe_progress_add(t->progress, worker, n);
    }
}

static peri_status train_levels(trainer *t)
{
    pe_host *host = &t->ix->host;
    size_t width = gwi_of(t->ix)->bitcode.width;
    t->groups = (uint32_t)lround(sqrt((double)t->wells));
    t->groups = t->groups < 1 ? 1 : t->groups;
    size_t n_groups = t->groups;
    t->group = pe_alloc(host, t->n_sample * sizeof *t->group);
    t->tops = pe_alloc(host, n_groups * width * sizeof(float));
    t->top_norms = pe_alloc(host, n_groups * sizeof(float));
    t->first = pe_alloc(host, (n_groups + 2) * sizeof *t->first);
    t->children = pe_alloc(host, (n_groups + 1) * sizeof *t->children);
    if (!t->group || !t->tops || !t->top_norms || !t->first || !t->children)
        return PERI_ERR_NOMEM;
    PE_TRY(train_groups(t));
    PE_TRY(sort_sample(t));
    t->centres = pe_alloc(host, t->wells * width * sizeof(float));
    t->norms = pe_alloc(host, t->wells * sizeof(float));
    if (!t->centres || !t->norms)
        return PERI_ERR_NOMEM;
    PE_TRY(team(t, wells_worker));
    return pe_progress_end(t->progress);
}

static void free_trainer(trainer *t, uint32_t asked)
{
    pe_host *host = &t->ix->host;
    size_t width = gwi_of(t->ix)->bitcode.width, n_groups = t->groups;
    pe_free(host, t->waiting, asked * sizeof *t->waiting);
    pe_free(host, t->sample, t->n_sample * width * sizeof(float));
    pe_free(host, t->group, t->n_sample * sizeof *t->group);
    pe_free(host, t->tops, n_groups * width * sizeof(float));
    pe_free(host, t->top_norms, n_groups * sizeof(float));
    pe_free(host, t->first, (n_groups + 2) * sizeof *t->first);
    pe_free(host, t->children, (n_groups + 1) * sizeof *t->children);
    pe_free(host, t->centres, t->wells * width * sizeof(float));
    pe_free(host, t->norms, t->wells * sizeof(float));
}

/* ---- from centres to a tree ---- */

/* Groups that no sample row fell to are left out. */
static peri_status plant(trainer *t, gwi_tree **out)
{
    gwi *g = gwi_of(t->ix);
    size_t width = g->bitcode.width;
    uint32_t used = 0, made = 0;
    for (uint32_t i = 0; i < t->groups; i++)
        used += t->children[i + 1] > t->children[i];
    gwi_tree *tree = pe_gwi_new_tree(&t->ix->host, used, t->wells);
    if (!tree)
        return PERI_ERR_NOMEM;
    *out = tree;
    tree->n_groups = 0; /* so far: for who takes it down */
    for (uint32_t i = 0; i < t->groups; i++) {
        if (t->children[i + 1] == t->children[i])
            continue;
        PE_TRY(pe_gwi_new_centre(t->ix, t->tops + i * width, &tree->group[made],
                                 &tree->group_norm[made]));
        tree->first[made++] = t->children[i];
        tree->n_groups = made;
    }
    tree->first[made] = t->wells;
    for (uint32_t i = 0; i < t->wells; i++) {
        PE_TRY(pe_gwi_new_well(t->ix, t->centres + i * width, &tree->well[i]));
        tree->well[i]->index = i;
        tree->centre[i] = tree->well[i]->centre;
        tree->norm[i] = tree->well[i]->norm;
    }
    return PERI_OK;
}

/* Rows lie where the published tree has them, or wait. */
static void restore_where(peri_index *ix)
{
    gwi *g = gwi_of(ix);
    const gwi_tree *t = gwi_tree_of(g);
    for (uint32_t slot = 0, n = pe_slots_count(&ix->slots); slot < n; slot++)
        atomic_store_explicit(gwi_where(g, slot), 0, memory_order_relaxed);
    for (uint32_t i = 0; t && i < t->n_wells; i++)
        pe_gwi_claim(g, t->well[i]);
}

static void fell(peri_index *ix, gwi_tree *tree)
{
    gwi *g = gwi_of(ix);
    if (!tree)
        return;
    for (uint32_t i = 0; i < tree->n_wells; i++)
        pe_gwi_drop_well(ix, tree->well[i]);
    for (uint32_t i = 0; i < tree->n_groups; i++)
        pe_gwi_drop_centre(g, tree->group[i]);
    pe_gwi_free_tree(&ix->host, tree, NULL);
    restore_where(ix);
}

static peri_status grow_tree(trainer *t, gwi_tree **tree)
{
    PE_TRY(take_sample(t));
    PE_TRY(train_levels(t));
    PE_TRY(plant(t, tree));
    PE_TRY(pe_gwi_encode_groups(t->ix, *tree));
    size_t done = 0;
    PE_TRY(pe_gwi_add(t->ix, *tree, t->waiting, t->n_waiting, t->workers, &done));
    const gwi_tree *old = gwi_tree_of(gwi_of(t->ix));
    size_t gone = old ? (size_t)old->n_wells + 2 * (size_t)old->n_groups : 0;
    return pe_epoch_reserve(&t->ix->epoch, gone + 4);
}

/* The tree that a new one took the place of; it is retired itself already, its wells are not. */
static void retire_wells(peri_index *ix, const gwi_tree *old)
{
    for (uint32_t i = 0; old && i < old->n_wells; i++)
        pe_gwi_retire_well(ix, old->well[i]);
    for (uint32_t i = 0; old && i < old->n_groups; i++)
        pe_gwi_retire_centre(ix, old->group[i]);
}

static void settle_all(peri_index *ix)
{
    gwi *g = gwi_of(ix);
    for (uint32_t record = 0; record < g->by_centre_room; record++)
        if (g->by_centre[record])
            pe_gwi_settle(ix, g->by_centre[record]);
}

peri_status pe_gwi_train(peri_index *ix, const float *rows, size_t n, uint64_t planned,
                         pe_progress *progress, unsigned workers)
{
    gwi *g = gwi_of(ix);
    uint32_t count = pe_slots_count(&ix->slots);
    trainer t = {.ix = ix, .rows = rows, .n = n, .workers = workers, .progress = progress};
    t.waiting = pe_alloc(&ix->host, count * sizeof *t.waiting);
    if (!t.waiting)
        return PERI_ERR_NOMEM;
    for (uint32_t slot = 0; slot < count; slot++)
        if (!pe_slots_hidden(&ix->slots, slot))
            t.waiting[t.n_waiting++] = slot;
    uint32_t wells = pe_gwi_wells_for(g, planned);
    t.wells = n + t.n_waiting < wells ? (uint32_t)(n + t.n_waiting) : wells;
    gwi_tree *tree = NULL;
    pe_progress_phase(progress, "train", (uint64_t)t.wells * ROWS_PER_WELL);
    peri_status status = pe_array_reserve(&g->where, &ix->epoch, count, 0);
    if (status == PERI_OK)
        status = grow_tree(&t, &tree);
    free_trainer(&t, count);
    pe_gwi_free_rooms(ix);
    if (status != PERI_OK) {
        fell(ix, tree);
        return status;
    }
    const gwi_tree *old = gwi_tree_of(g);
    g->planned = g->trained = planned;
    pe_gwi_publish(ix, tree);
    retire_wells(ix, old);
    settle_all(ix);
    return PERI_OK;
}
