/* Which well a row falls to: the nearest among those of the GWI_BEAM nearest groups.
 *
 * With one group instead of three 6 to 12 rows in a hundred miss the nearest attractor, with three
 * about one does; all wells would cost ten times as much. A batch goes by tiles: rows against all
 * groups, then for each group the rows that chose it against its wells. */
#include "gwi/gwi.h"

enum { UNIT = 2048, TILE = 64 };

peri_status pe_gwi_reserve_keys(peri_index *ix, size_t n)
{
    gwi *g = gwi_of(ix);
    return pe_grow(&ix->host, &g->one_keys, &g->one_keys_room, n, sizeof *g->one_keys);
}

static void keys_of(const gwi *g, const float *row, const uint32_t *records, const float *norms,
                    size_t n, float *keys)
{
    pe_rowview view = gwi_centre_view(g);
    g->bitcode.kernels->dist[PE_OP_DOT][PE_ELEM_F32].ids(row, &view, records, n, keys);
    for (size_t i = 0; i < n; i++)
        keys[i] = norms[i] + 2 * keys[i];
}

/* The GWI_BEAM smallest of n keys, smallest first; returns how many. */
static unsigned nearest_groups(const float *keys, uint32_t n, uint32_t out[GWI_BEAM])
{
    float best[GWI_BEAM];
    unsigned found = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (found == GWI_BEAM && !(keys[i] < best[GWI_BEAM - 1]))
            continue;
        unsigned at = found < GWI_BEAM ? found++ : GWI_BEAM - 1;
        for (; at > 0 && keys[i] < best[at - 1]; at--) {
            best[at] = best[at - 1];
            out[at] = out[at - 1];
        }
        best[at] = keys[i];
        out[at] = i;
    }
    return found;
}

static size_t most_wells(const gwi_tree *t)
{
    uint32_t most = t->n_groups;
    for (uint32_t i = 0; i < t->n_groups; i++)
        if (t->first[i + 1] - t->first[i] > most)
            most = t->first[i + 1] - t->first[i];
    return most;
}

/* one_keys has room for the groups and for the wells of the largest of them (pe_gwi_reserve). */
gwi_well *pe_gwi_route_one(peri_index *ix, const gwi_tree *t, const float *row)
{
    const gwi *g = gwi_of(ix);
    uint32_t group[GWI_BEAM], best = 0;
    float best_key = __builtin_inff();
    keys_of(g, row, t->group, t->group_norm, t->n_groups, g->one_keys);
    unsigned n = nearest_groups(g->one_keys, t->n_groups, group);
    for (unsigned i = 0; i < n; i++) {
        uint32_t first = t->first[group[i]], wells = t->first[group[i] + 1] - first;
        keys_of(g, row, t->centre + first, t->norm + first, wells, g->one_keys);
        for (uint32_t j = 0; j < wells; j++)
            if (g->one_keys[j] < best_key) {
                best_key = g->one_keys[j];
                best = first + j;
            }
    }
    return t->well[best];
}

size_t pe_gwi_nearest_wells(peri_index *ix, const gwi_tree *t, const float *row, size_t n,
                            pe_cand *out)
{
    const gwi *g = gwi_of(ix);
    uint32_t group[GWI_BEAM];
    pe_topk top;
    pe_topk_init(&top, out, n);
    keys_of(g, row, t->group, t->group_norm, t->n_groups, g->one_keys);
    unsigned groups = nearest_groups(g->one_keys, t->n_groups, group);
    for (unsigned i = 0; i < groups; i++) {
        uint32_t first = t->first[group[i]], wells = t->first[group[i] + 1] - first;
        keys_of(g, row, t->centre + first, t->norm + first, wells, g->one_keys);
        for (uint32_t j = 0; j < wells; j++)
            pe_topk_push(&top, (pe_cand){g->one_keys[j], first + j});
    }
    pe_topk_sort(&top);
    return top.n;
}

/* ---- a batch ---- */

typedef struct router {
    const peri_index *ix;
    const gwi_tree *t;
    const uint32_t *slots;
    size_t n;
    float *rotated;
    uint32_t *well;
    float *groups; /* the groups' centres, one after the other */
    size_t most;
    _Atomic size_t next;
    unsigned char *room; /* a worker's: see lay_out */
    size_t room_bytes;
} router;

/* What one worker needs. */
typedef struct desk {
    float *dots;      /* TILE x most */
    float *rows;      /* TILE x width */
    float *centres;   /* most x width */
    float *key;       /* a row's best so far */
    uint32_t *first;  /* n_groups + 2: pairs by group */
    uint32_t *chosen; /* GWI_BEAM groups a row */
    uint32_t *pairs;  /* rows, by group */
} desk;

static size_t lay_out(const router *r, unsigned char *at, desk *d)
{
    size_t width = gwi_of(r->ix)->bitcode.width, used = 0;
    struct part {
        void *out;
        size_t bytes;
    } parts[] = {
        {&d->dots, TILE * r->most * sizeof(float)},
        {&d->rows, TILE * width * sizeof(float)},
        {&d->centres, r->most * width * sizeof(float)},
        {&d->key, UNIT * sizeof(float)},
        {&d->first, ((size_t)r->t->n_groups + 2) * sizeof(uint32_t)},
        {&d->chosen, (size_t)UNIT * GWI_BEAM * sizeof(uint32_t)},
        {&d->pairs, (size_t)UNIT * GWI_BEAM * sizeof(uint32_t)},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        void *p = at ? at + used : NULL;
        memcpy(parts[i].out, &p, sizeof p);
        used += (parts[i].bytes + PE_ALIGN - 1) / PE_ALIGN * PE_ALIGN;
    }
    return used;
}

/* Centres as a run of floats: in place where their records follow each other in one chunk. */
static const float *run_of(const gwi *g, const uint32_t *records, size_t n, float *room)
{
    size_t in_row = 1, width = g->bitcode.width;
    while (in_row < n && records[in_row] == records[0] + in_row)
        in_row++;
    if (in_row == n && (records[0] & g->centres.mask) + n <= (size_t)g->centres.mask + 1)
        return gwi_centre(g, records[0]);
    for (size_t i = 0; i < n; i++)
        memcpy(room + i * width, gwi_centre(g, records[i]), width * sizeof *room);
    return room;
}

static void choose_groups(const router *r, const desk *d, const float *rows, size_t n)
{
    const gwi *g = gwi_of(r->ix);
    uint32_t width = g->bitcode.width, groups = r->t->n_groups;
    for (size_t first = 0; first < n; first += TILE) {
        size_t m = n - first < TILE ? n - first : TILE;
        g->bitcode.kernels->tile_dot_f32(rows + first * width, width, m, r->groups, width, groups,
                                         width, d->dots, groups);
        for (size_t i = 0; i < m; i++) {
            float *keys = d->dots + i * groups;
            uint32_t *chosen = d->chosen + (first + i) * GWI_BEAM;
            for (uint32_t j = 0; j < groups; j++)
                keys[j] = r->t->group_norm[j] + 2 * keys[j];
            unsigned found = nearest_groups(keys, groups, chosen);
            for (; found < GWI_BEAM; found++)
                chosen[found] = PE_NO_SLOT;
        }
    }
}

/* Rows of the unit by chosen group: pairs[first[g] .. first[g + 1]). */
static void sort_pairs(const router *r, const desk *d, size_t n)
{
    uint32_t groups = r->t->n_groups;
    memset(d->first, 0, (groups + 2) * sizeof *d->first);
    for (size_t i = 0; i < n * GWI_BEAM; i++)
        if (d->chosen[i] != PE_NO_SLOT)
            d->first[d->chosen[i] + 2]++;
    for (uint32_t j = 2; j < groups + 2; j++)
        d->first[j] += d->first[j - 1];
    for (size_t i = 0; i < n * GWI_BEAM; i++)
        if (d->chosen[i] != PE_NO_SLOT)
            d->pairs[d->first[d->chosen[i] + 1]++] = (uint32_t)(i / GWI_BEAM);
}

static void choose_wells(const router *r, const desk *d, const float *rows, uint32_t *well,
                         uint32_t group)
{
    const gwi *g = gwi_of(r->ix);
    const gwi_tree *t = r->t;
    uint32_t width = g->bitcode.width, from = t->first[group], wells = t->first[group + 1] - from;
    const uint32_t *pairs = d->pairs + d->first[group];
    size_t n = d->first[group + 1] - d->first[group];
    const float *centres = n ? run_of(g, t->centre + from, wells, d->centres) : NULL;
    for (size_t first = 0; first < n; first += TILE) {
        size_t m = n - first < TILE ? n - first : TILE;
        for (size_t i = 0; i < m; i++)
            memcpy(d->rows + i * width, rows + (size_t)pairs[first + i] * width,
                   width * sizeof *rows);
        g->bitcode.kernels->tile_dot_f32(d->rows, width, m, centres, width, wells, width, d->dots,
                                         wells);
        for (size_t i = 0; i < m; i++) {
            float key;
            uint32_t row = pairs[first + i];
            uint32_t best =
                g->bitcode.kernels->least(d->dots + i * wells, t->norm + from, wells, &key);
            if (key < d->key[row]) {
                d->key[row] = key;
                well[row] = from + best;
            }
        }
    }
}

static void route_worker(void *ctx, unsigned worker)
{
    router *r = ctx;
    desk d;
    size_t width = gwi_of(r->ix)->bitcode.width;
    lay_out(r, r->room + worker * r->room_bytes, &d);
    for (;;) {
        size_t first = atomic_fetch_add(&r->next, UNIT);
        if (first >= r->n)
            return;
        size_t n = r->n - first < UNIT ? r->n - first : UNIT;
        float *rows = r->rotated + first * width;
        for (size_t i = 0; i < n; i++) {
            pe_gwi_rotated(r->ix, r->slots[first + i], rows + i * width, d.rows);
            d.key[i] = __builtin_inff();
            r->well[first + i] = 0;
        }
        choose_groups(r, &d, rows, n);
        sort_pairs(r, &d, n);
        for (uint32_t group = 0; group < r->t->n_groups; group++)
            choose_wells(r, &d, rows, r->well + first, group);
    }
}

peri_status pe_gwi_route(peri_index *ix, const gwi_tree *t, const uint32_t *slots, size_t n,
                         float *rotated, uint32_t *well, unsigned workers)
{
    const gwi *g = gwi_of(ix);
    desk d;
    router r = {.ix = ix, .t = t, .slots = slots, .n = n, .rotated = rotated, .well = well};
    size_t groups = (size_t)t->n_groups * g->bitcode.width * sizeof(float);
    if (n <= UNIT)
        workers = 1;
    r.most = most_wells(t);
    r.room_bytes = lay_out(&r, NULL, &d);
    r.room = pe_gwi_room(ix, GWI_ROOM_ROUTE, workers * r.room_bytes);
    r.groups = pe_alloc(&ix->host, groups);
    peri_status status = r.room && r.groups ? PERI_OK : PERI_ERR_NOMEM;
    if (status == PERI_OK) {
        for (uint32_t i = 0; i < t->n_groups; i++)
            memcpy(r.groups + (size_t)i * g->bitcode.width, gwi_centre(g, t->group[i]),
                   g->centres.stride);
        pe_team_run(workers, route_worker, &r);
    }
    pe_free(&ix->host, r.groups, groups);
    return status;
}
