#include "graph/bulk.h"
#include "base/checked.h"
#include "base/rng.h"

enum { PROJECT_BLOCK = 256 };

static peri_status make_room(pe_bulk_run *r, pe_bulk_room *room)
{
    size_t most = r->most, near = most * r->b->near;
    size_t x = pe_round_up(most * r->dim, 16),
           block = pe_round_up(PE_BULK_BLOCK * (size_t)r->dim, 16);
    size_t dots = PE_BULK_BLOCK * most;
    room->bytes = (x + block + dots + 2 * most + 2 * near + most + 16) * sizeof(float);
    float *p = pe_alloc(r->host, room->bytes);
    if (!p)
        return PERI_ERR_NOMEM;
    room->x = p;
    room->block = room->x + x;
    room->dots = room->block + block;
    room->norms = room->dots + dots;
    room->bounds = room->norms + most;
    room->near = room->bounds + most;
    room->at = (uint32_t *)(void *)(room->near + near);
    room->below = room->at + near;
    return PERI_OK;
}

static peri_status make_rooms(pe_bulk_run *r)
{
    r->rooms = pe_calloc(r->host, (r->workers + 1) * sizeof *r->rooms);
    if (!r->rooms)
        return PERI_ERR_NOMEM;
    for (unsigned i = 0; i <= r->workers; i++)
        PE_TRY(make_room(r, &r->rooms[i]));
    return PERI_OK;
}

static void free_rooms(pe_bulk_run *r)
{
    if (!r->rooms)
        return;
    for (unsigned i = 0; i <= r->workers; i++)
        pe_free(r->host, r->rooms[i].x, r->rooms[i].bytes);
    pe_free(r->host, r->rooms, (r->workers + 1) * sizeof *r->rooms);
}

/* ---- projections ---- */

typedef struct project {
    pe_bulk_run *r;
    _Atomic size_t next;
} project;

static void project_worker(void *ctx, unsigned worker)
{
    project *p = ctx;
    pe_bulk_run *r = p->r;
    float *x = r->rooms[worker].block;
    for (;;) {
        size_t i = atomic_fetch_add(&p->next, PROJECT_BLOCK);
        if (i >= r->b->n || pe_bulk_stop(r))
            return;
        size_t end = r->b->n - i < PROJECT_BLOCK ? r->b->n : i + PROJECT_BLOCK;
        for (; i < end; i += PE_BULK_BLOCK) {
            size_t m = end - i < PE_BULK_BLOCK ? end - i : PE_BULK_BLOCK;
            for (size_t j = 0; j < m; j++)
                pe_bulk_row(r->b, (uint32_t)(i + j), x + j * r->dim);
            r->b->rows->kernels->tile_dot_f32(x, r->dim, m, r->planes, r->dim, PE_BULK_PLANES,
                                              r->dim, r->sides + i * PE_BULK_PLANES,
                                              PE_BULK_PLANES);
        }
    }
}

/* Hyperplanes of random signs: as good as normal ones where no dimension stands alone. */
static peri_status project_rows(pe_bulk_run *r)
{
    size_t planes = (size_t)PE_BULK_PLANES * r->dim;
    pe_rng rng = {r->b->seed};
    r->planes = pe_alloc(r->host, planes * sizeof *r->planes);
    r->sides = pe_alloc(r->host, r->b->n * PE_BULK_PLANES * sizeof *r->sides);
    if (!r->planes || !r->sides)
        return PERI_ERR_NOMEM;
    for (size_t i = 0; i < planes; i++)
        r->planes[i] = pe_rng_next(&rng) >> 63 ? 1.0f : -1.0f;
    project p = {.r = r};
    pe_team_run(r->workers, project_worker, &p);
    return PERI_OK;
}

static void free_run(pe_bulk_run *r)
{
    pe_reservoirs_destroy(&r->reservoirs);
    pe_free(r->host, r->planes, (size_t)PE_BULK_PLANES * r->dim * sizeof *r->planes);
    pe_free(r->host, r->sides, r->b->n * PE_BULK_PLANES * sizeof *r->sides);
    free_rooms(r);
}

static peri_status run(pe_bulk_run *r)
{
    const pe_bulk *b = r->b;
    PE_TRY(make_rooms(r));
    PE_TRY(project_rows(r));
    PE_TRY(pe_reservoirs_init(&r->reservoirs, r->host, b->n, b->room));
    pe_progress_phase(r->progress, "cells", b->n * (b->n > b->cell ? b->fanout : 1));
    PE_TRY(pe_bulk_carve(r));
    PE_TRY(pe_progress_end(r->progress));
    return pe_bulk_link(r);
}

peri_status pe_bulk_build(const pe_bulk *b, pe_progress *progress, unsigned workers)
{
    pe_bulk_run r = {
        .b = b,
        .host = b->rows->host,
        .dim = b->rows->space.dim,
        .most = (uint32_t)pe_round_up(b->cell > PE_BULK_LEADERS ? b->cell : PE_BULK_LEADERS, 64),
        .workers = workers,
        .progress = progress};
    peri_status status = run(&r);
    free_run(&r);
    return status;
}
