/* One cell: all pairs by tile products, each row's nearest offered both ways. */
#include "graph/bulk.h"

#include <math.h>

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

/* Row `self` of the cell met `other`: is it among its nearest so far? */
static void meet(pe_bulk_room *room, size_t k, size_t self, size_t other, float distance)
{
    float *near = room->near + self * k;
    uint32_t *at = room->at + self * k;
    size_t to = k - 1;
    if (!(distance < near[to]))
        return;
    for (; to > 0 && near[to - 1] > distance; to--) {
        near[to] = near[to - 1];
        at[to] = at[to - 1];
    }
    near[to] = distance;
    at[to] = (uint32_t)other;
    room->bounds[self] = near[k - 1];
}

/* Each pair once: the products of a block of rows with all rows behind them. */
static void meet_all(pe_bulk_run *r, pe_bulk_room *room, size_t m)
{
    const pe_kernels *kernels = r->b->rows->kernels;
    const size_t k = r->b->near, dim = r->dim, ld = r->most;
    for (size_t i = 0; i < m * k; i++)
        room->near[i] = INFINITY;
    for (size_t i = 0; i < m; i++)
        room->bounds[i] = INFINITY;
    for (size_t first = 0; first < m && !pe_bulk_stop(r); first += PE_BULK_BLOCK) {
        size_t n = m - first < PE_BULK_BLOCK ? m - first : PE_BULK_BLOCK;
        kernels->tile_dot_f32(room->x + first * dim, dim, n, room->x + first * dim, dim, m - first,
                              r->dim, room->dots, ld);
        for (size_t i = first; i < first + n; i++) {
            size_t next = i + 1, rest = m - next;
            float *x = room->dots + (i - first) * ld + (next - first);
            size_t found = kernels->near_f32(x, room->norms + next, room->norms[i], room->bounds[i],
                                             room->bounds + next, rest, room->below);
            for (size_t j = 0; j < found; j++) {
                size_t other = next + room->below[j];
                float distance = x[room->below[j]];
                meet(room, k, i, other, distance);
                meet(room, k, other, i, distance);
            }
        }
    }
}

/* What each row found goes both ways; a pair that found each other goes once. */
static void offer_all(pe_bulk_run *r, const pe_bulk_room *room, const uint32_t *rows, size_t m)
{
    const size_t k = r->b->near;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < k && room->near[i * k + j] < INFINITY; j++) {
            size_t other = room->at[i * k + j];
            float distance = room->near[i * k + j];
            if (other < i && distance < room->bounds[other])
                continue;
            offer(r, rows[i], rows[other], distance);
            offer(r, rows[other], rows[i], distance);
        }
}

void pe_bulk_leaf(pe_bulk_run *r, pe_bulk_room *room, const uint32_t *rows, size_t m)
{
    const pe_kernels *k = r->b->rows->kernels;
    const uint32_t dim = r->dim;
    for (size_t i = 0; i < m; i++) {
        float *x = room->x + i * dim;
        pe_bulk_row(r->b, rows[i], x);
        room->norms[i] = -k->dist[PE_OP_DOT][PE_ELEM_F32].one(x, x, dim);
    }
    meet_all(r, room, m);
    if (!pe_bulk_stop(r))
        offer_all(r, room, rows, m);
}
