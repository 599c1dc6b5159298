/* One cell: all pairs by tile products, each row's nearest offered both ways. */
#include "graph/bulk.h"

#include <math.h>

enum { MOST_NEAR = 64, LANES = 16 };

/* Bit b: does `to` lie on the far side of `from` along hyperplane b? */
static inline uint16_t direction(const float *from, const float *to)
{
    uint32_t hash = 0;
    for (unsigned b = 0; b < PE_BULK_PLANES; b++)
        hash |= (uint32_t)(to[b] >= from[b]) << b;
    return (uint16_t)hash;
}

static void offer(pe_bulk_run *r, uint32_t to, uint32_t from, float distance)
{
    const float *a = r->sides + (size_t)to * PE_BULK_PLANES;
    const float *b = r->sides + (size_t)from * PE_BULK_PLANES;
    uint16_t hash = direction(a, b);
    pe_lock(&r->locks, to);
    pe_reservoir_offer(&r->reservoirs, to, from, hash, distance);
    pe_unlock(&r->locks, to);
}

/* The `k` smallest keys of n, sorted; n is padded to LANES with infinities. Most lanes hold nothing
 * near, which one comparison of their minimum tells. */
static size_t nearest(const float *keys, size_t n, size_t k, float *near, uint32_t *at)
{
    size_t have = 0;
    float bound = INFINITY;
    for (size_t i = 0; i < n; i += LANES) {
        float least = keys[i];
        for (size_t j = 1; j < LANES; j++)
            least = keys[i + j] < least ? keys[i + j] : least;
        if (!(least < bound))
            continue;
        for (size_t j = i; j < i + LANES; j++) {
            if (!(keys[j] < bound))
                continue;
            size_t to = have < k ? have++ : k - 1;
            for (; to > 0 && near[to - 1] > keys[j]; to--) {
                near[to] = near[to - 1];
                at[to] = at[to - 1];
            }
            near[to] = keys[j];
            at[to] = (uint32_t)j;
            bound = have == k ? near[k - 1] : INFINITY;
        }
    }
    return have;
}

static void offer_row(pe_bulk_run *r, const uint32_t *rows, size_t m, size_t self, float *keys,
                      const float *norms)
{
    float near[MOST_NEAR];
    uint32_t at[MOST_NEAR];
    size_t padded = (m + LANES - 1) / LANES * LANES;
    for (size_t j = 0; j < m; j++)
        keys[j] = norms[j] + 2 * keys[j]; /* the tile gives minus the product */
    for (size_t j = m; j < padded; j++)
        keys[j] = INFINITY;
    keys[self] = INFINITY;
    size_t n = nearest(keys, padded, r->b->near, near, at);
    for (size_t i = 0; i < n; i++) {
        float distance = near[i] + norms[self];
        distance = distance > 0 ? distance : 0;
        offer(r, rows[self], rows[at[i]], distance);
        offer(r, rows[at[i]], rows[self], distance);
    }
}

void pe_bulk_leaf(pe_bulk_run *r, pe_bulk_room *room, const uint32_t *rows, size_t m)
{
    const pe_kernels *k = r->b->rows->kernels;
    const uint32_t dim = r->dim;
    const size_t ld = r->most;
    for (size_t i = 0; i < m; i++) {
        float *x = room->x + i * dim;
        pe_bulk_row(r->b, rows[i], x);
        room->norms[i] = -k->dist[PE_OP_DOT][PE_ELEM_F32].one(x, x, dim);
    }
    for (size_t i = 0; i < m && !pe_bulk_stop(r); i += PE_BULK_BLOCK) {
        size_t n = m - i < PE_BULK_BLOCK ? m - i : PE_BULK_BLOCK;
        k->tile_dot_f32(room->x + i * dim, dim, n, room->x, dim, m, dim, room->dots, ld);
        for (size_t j = 0; j < n; j++)
            offer_row(r, rows, m, i + j, room->dots + j * ld, room->norms);
    }
}
