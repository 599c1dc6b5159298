/* The order of rows in large segments: rows about the same things side by side.
 *
 * What a window may be passed over for is the largest weight that each term has in it. In the order
 * of arrival every window has a heavy row for every term; with similar rows together most windows
 * have none, and both exact and approximate search leave most of them out. (Block-max indexes live
 * by such an order: Mackenzie et al., "Efficient document-at-a-time and score-at-a-time query
 * evaluation for learned sparse representations", TOIS 2022, take recursive graph bisection, which
 * costs minutes where this takes seconds.)
 *
 * Rows evenly spaced through the segment are centroids; each row joins the centroid that its
 * heaviest entries have the largest product with (as Seismic, Bruch et al., SIGIR 2024, makes its
 * blocks), found by an inverted index of the centroids, scaled to length 1 so that long ones do not
 * take all. Centroids in turn join some of their own, which puts neighbouring groups together. */
#include "sparse/sparse.h"

#include <math.h>
#include <stdlib.h>

enum {
    GROUP_ROWS = 256, /* rows of a centroid on average */
    GROUPS_MAX = 4096,
    GROUP_GROUPS = 16, /* centroids of one of the second level */
    HEAVY = 15,        /* entries of a row that choose its centroid */
    ROWS_AT_ONCE = 1024,
};

typedef struct entry {
    uint32_t term, group;
    float weight;
} entry;

/* Centroids by term. */
typedef struct groups {
    pe_host *host;
    uint32_t n;
    entry *entries; /* by term once made */
    size_t n_entries, room;
    uint32_t *terms, *first; /* n_terms of them, and one more place */
    uint32_t n_terms;
    size_t terms_room;
} groups;

static void free_groups(groups *g)
{
    pe_free(g->host, g->entries, g->room * sizeof *g->entries);
    pe_free(g->host, g->terms, g->terms_room * sizeof *g->terms);
    pe_free(g->host, g->first, g->terms_room * sizeof *g->first);
}

static peri_status add_centroid(groups *g, const peri_sparse *sx, const pe_forward *row,
                                uint32_t group)
{
    double norm = 0;
    PE_TRY(pe_grow(g->host, &g->entries, &g->room, g->n_entries + row->n, sizeof *g->entries));
    for (uint32_t i = 0; i < row->n; i++) {
        double w = pe_forward_weight(sx, row, i);
        norm += w * w;
    }
    for (uint32_t i = 0; i < row->n; i++)
        g->entries[g->n_entries++] = (entry){pe_forward_term(row, i), group,
                                             (float)(pe_forward_weight(sx, row, i) / sqrt(norm))};
    return PERI_OK;
}

static int by_term(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->term != y->term)
        return x->term < y->term ? -1 : 1;
    return x->group < y->group ? -1 : x->group > y->group;
}

static peri_status index_groups(groups *g)
{
    if (g->n_entries)
        qsort(g->entries, g->n_entries, sizeof *g->entries, by_term);
    g->n_terms = 0;
    for (size_t i = 0; i < g->n_entries; i++)
        g->n_terms += i == 0 || g->entries[i].term != g->entries[i - 1].term;
    g->terms_room = g->n_terms + 1u;
    g->terms = pe_alloc(g->host, g->terms_room * sizeof *g->terms);
    g->first = pe_alloc(g->host, g->terms_room * sizeof *g->first);
    if (!g->terms || !g->first)
        return PERI_ERR_NOMEM;
    uint32_t t = 0;
    for (size_t i = 0; i < g->n_entries; i++)
        if (i == 0 || g->entries[i].term != g->entries[i - 1].term) {
            g->terms[t] = g->entries[i].term;
            g->first[t++] = (uint32_t)i;
        }
    g->first[t] = (uint32_t)g->n_entries;
    return PERI_OK;
}

static uint32_t find_term(const groups *g, uint32_t term)
{
    uint32_t low = 0, n = g->n_terms;
    while (n > 1) {
        uint32_t half = n / 2;
        low = g->terms[low + half] <= term ? low + half : low;
        n -= half;
    }
    return n && g->terms[low] == term ? low : UINT32_MAX;
}

/* The heaviest entries of a row, in no order. */
static uint32_t heaviest(const peri_sparse *sx, const pe_forward *row, uint32_t *out)
{
    float size[HEAVY];
    uint32_t n = 0, least = 0;
    for (uint32_t i = 0; i < row->n; i++) {
        float w = fabsf(pe_forward_weight(sx, row, i));
        if (n < HEAVY) {
            size[n] = w;
            out[n++] = i;
        } else if (w > size[least]) {
            size[least] = w;
            out[least] = i;
        } else {
            continue;
        }
        for (uint32_t j = least = 0; j < n; j++)
            least = size[j] < size[least] ? j : least;
    }
    return n;
}

/* The group of a row; g->n for one that shares no term with any. scores: g->n of them. */
static uint32_t group_of(const groups *g, const peri_sparse *sx, const pe_forward *row,
                         float *scores)
{
    uint32_t heavy[HEAVY], n = heaviest(sx, row, heavy), best = g->n;
    float most = 0;
    memset(scores, 0, g->n * sizeof *scores);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t t = find_term(g, pe_forward_term(row, heavy[i]));
        float w = pe_forward_weight(sx, row, heavy[i]);
        for (uint32_t j = t == UINT32_MAX ? 0 : g->first[t]; t != UINT32_MAX && j < g->first[t + 1];
             j++)
            scores[g->entries[j].group] += w * g->entries[j].weight;
    }
    for (uint32_t i = 0; i < g->n; i++)
        if (scores[i] > most) {
            most = scores[i];
            best = i;
        }
    return best;
}

/* ---- the rows of a merge ---- */

typedef struct order {
    const peri_sparse *sx;
    const pe_part *in;
    uint32_t n_in, docs;
    uint32_t *const *map;
    groups groups, above;
    uint32_t *group; /* of each number */
    uint32_t *rank;  /* of each group */
    unsigned workers;
    _Atomic uint64_t next; /* part << 32 | document */
    pe_first_error error;
} order;

static uint32_t centroid_number(const order *o, uint32_t group)
{
    return (uint32_t)((uint64_t)group * o->docs / o->groups.n);
}

/* Numbers ascend along the parts, so the centroids come up one after the other. */
static peri_status pick_centroids(order *o)
{
    uint32_t group = 0;
    for (uint32_t i = 0; i < o->n_in; i++) {
        pe_forward_of f;
        pe_forward_open(o->sx, &o->in[i], &f);
        for (uint32_t doc = 0; doc < o->in[i].docs && group < o->groups.n; doc++) {
            if (o->map[i][doc] != centroid_number(o, group))
                continue;
            pe_forward row = pe_forward_at(&f, doc);
            PE_TRY(add_centroid(&o->groups, o->sx, &row, group));
            if (group % GROUP_GROUPS == 0)
                PE_TRY(add_centroid(&o->above, o->sx, &row, group / GROUP_GROUPS));
            group++;
        }
    }
    PE_TRY(index_groups(&o->groups));
    return index_groups(&o->above);
}

static void group_rows(order *o, const pe_forward_of *f, uint32_t part, uint32_t first,
                       uint32_t end, float *scores)
{
    for (uint32_t doc = first; doc < end; doc++) {
        uint32_t number = o->map[part][doc];
        if (number == UINT32_MAX)
            continue;
        pe_forward row = pe_forward_at(f, doc);
        o->group[number] = group_of(&o->groups, o->sx, &row, scores);
    }
}

static void group_worker(void *ctx, unsigned worker)
{
    order *o = ctx;
    uint64_t block = 0;
    float *scores = pe_alloc(o->groups.host, (o->groups.n + 1u) * sizeof *scores);
    (void)worker;
    if (!scores) {
        pe_first_error_set(&o->error, PERI_ERR_NOMEM);
        return;
    }
    uint64_t mine = atomic_fetch_add(&o->next, 1);
    for (uint32_t i = 0; i < o->n_in; i++) {
        pe_forward_of f;
        pe_forward_open(o->sx, &o->in[i], &f);
        for (uint32_t first = 0; first < o->in[i].docs; first += ROWS_AT_ONCE, block++) {
            if (block != mine)
                continue;
            uint32_t end =
                o->in[i].docs - first < ROWS_AT_ONCE ? o->in[i].docs : first + ROWS_AT_ONCE;
            group_rows(o, &f, i, first, end, scores);
            mine = atomic_fetch_add(&o->next, 1);
        }
    }
    pe_free(o->groups.host, scores, (o->groups.n + 1u) * sizeof *scores);
}

/* Groups by the group above that their centroid joins. */
static peri_status rank_groups(order *o)
{
    uint32_t n = o->groups.n, next = 0;
    size_t bytes = (o->above.n + 1u) * sizeof(float);
    float *scores = pe_alloc(o->groups.host, bytes);
    uint32_t *above = pe_alloc(o->groups.host, n * sizeof *above);
    uint32_t group = 0;
    if (!scores || !above) {
        pe_free(o->groups.host, scores, bytes);
        pe_free(o->groups.host, above, n * sizeof *above);
        return PERI_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < o->n_in; i++) {
        pe_forward_of f;
        pe_forward_open(o->sx, &o->in[i], &f);
        for (uint32_t doc = 0; doc < o->in[i].docs && group < n; doc++)
            if (o->map[i][doc] == centroid_number(o, group)) {
                pe_forward row = pe_forward_at(&f, doc);
                above[group++] = group_of(&o->above, o->sx, &row, scores);
            }
    }
    for (uint32_t a = 0; a <= o->above.n; a++)
        for (uint32_t g = 0; g < n; g++)
            if (above[g] == a)
                o->rank[g] = next++;
    o->rank[n] = n; /* rows of no group come last */
    pe_free(o->groups.host, scores, bytes);
    pe_free(o->groups.host, above, n * sizeof *above);
    return PERI_OK;
}

/* Rows of one group keep the order that they had. */
static peri_status place_rows(order *o, uint32_t *place)
{
    size_t bytes = (o->groups.n + 2u) * sizeof(uint32_t);
    uint32_t *first = pe_calloc(o->groups.host, bytes);
    if (!first)
        return PERI_ERR_NOMEM;
    for (uint32_t i = 0; i < o->docs; i++)
        first[o->rank[o->group[i]] + 1]++;
    for (uint32_t g = 0; g <= o->groups.n; g++)
        first[g + 1] += first[g];
    for (uint32_t i = 0; i < o->docs; i++)
        place[i] = first[o->rank[o->group[i]]]++;
    pe_free(o->groups.host, first, bytes);
    return PERI_OK;
}

peri_status pe_sparse_order(pe_postings *p, const pe_part *in, uint32_t n, uint32_t *const *map,
                            uint32_t docs, uint32_t *place, unsigned workers)
{
    order o = {.sx = pe_sparse_of(p), .in = in, .n_in = n, .docs = docs, .map = map};
    uint32_t n_groups = docs / GROUP_ROWS < GROUPS_MAX ? docs / GROUP_ROWS : GROUPS_MAX;
    o.groups = (groups){.host = p->host, .n = n_groups};
    o.above = (groups){.host = p->host, .n = (n_groups + GROUP_GROUPS - 1) / GROUP_GROUPS};
    o.group = pe_alloc(p->host, docs * sizeof *o.group);
    o.rank = pe_alloc(p->host, (n_groups + 1u) * sizeof *o.rank);
    peri_status status = o.group && o.rank ? pick_centroids(&o) : PERI_ERR_NOMEM;
    if (status == PERI_OK) {
        pe_team_run(workers ? workers : 1, group_worker, &o);
        status = pe_first_error_get(&o.error);
    }
    if (status == PERI_OK)
        status = rank_groups(&o);
    if (status == PERI_OK)
        status = place_rows(&o, place);
    free_groups(&o.groups);
    free_groups(&o.above);
    pe_free(p->host, o.group, docs * sizeof *o.group);
    pe_free(p->host, o.rank, (n_groups + 1u) * sizeof *o.rank);
    return status;
}
