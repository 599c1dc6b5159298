#include "graph/quantised.h"
#include "base/checked.h"

#include <math.h>

peri_status pe_quantised_init(pe_quantised *q, pe_host *host, const peri_space *space,
                              uint32_t degree, uint64_t seed)
{
    q->blocks = degree / PE_BLOCK_ROWS;
    PE_TRY(pe_bitcode_init(&q->bitcode, host, space, 1, seed));
    pe_array_init(&q->codes, host, q->blocks * pe_block_codes(&q->bitcode));
    pe_array_init(&q->factors, host, q->blocks * sizeof(pe_qfactors));
    pe_array_init(&q->fresh, host, 1);
    return PERI_OK;
}

void pe_quantised_destroy(pe_quantised *q)
{
    if (!q->blocks)
        return;
    pe_bitcode_destroy(&q->bitcode);
    if (!q->fresh.host)
        return;
    pe_array_destroy(&q->codes);
    pe_array_destroy(&q->factors);
    pe_array_destroy(&q->fresh);
}

peri_status pe_quantised_reserve(pe_quantised *q, pe_epoch *e, size_t n, int exact)
{
    PE_TRY(pe_array_reserve(&q->codes, e, n, exact));
    PE_TRY(pe_array_reserve(&q->factors, e, n, exact));
    return pe_array_reserve(&q->fresh, e, n, exact);
}

/* ---- codes of one node ---- */

peri_status pe_qroom_init(pe_qroom *r, pe_host *host, const pe_quantised *q)
{
    const pe_bitcode *b = &q->bitcode;
    size_t width = b->width, floats = 3 * width + pe_round_up(b->dim, 16);
    size_t block = pe_round_up(pe_block_size(b), 64), groups = pe_round_up(b->groups, 64);
    r->bytes = floats * sizeof(float) + block + groups + width;
    unsigned char *p = pe_alloc(host, r->bytes);
    if (!p)
        return PERI_ERR_NOMEM;
    r->block = p;
    r->rotated = (float *)(void *)(p + block);
    r->centre = r->rotated + width;
    r->tmp = r->centre + width;
    r->row = r->tmp + width;
    r->symbols = (uint8_t *)(r->row + pe_round_up(b->dim, 16));
    r->levels = r->symbols + groups;
    return PERI_OK;
}

void pe_qroom_destroy(pe_qroom *r, pe_host *host)
{
    pe_free(host, r->block, r->bytes);
}

/* Three bytes a neighbour: what they lose is a tenth of what one bit a dimension does. */
static void compact(const pe_quantised *q, const float *factors, pe_qfactors *out)
{
    float most = 0;
    q->bitcode.kernels->f32_to_bf16(factors, out->add, PE_BLOCK_ROWS);
    for (unsigned i = 0; i < PE_BLOCK_ROWS; i++)
        most = fmaxf(most, -factors[PE_BLOCK_ROWS + i]);
    out->unit = most / 255;
    for (unsigned i = 0; i < PE_BLOCK_ROWS; i++)
        out->scale[i] =
            most > 0 ? (uint8_t)(-factors[PE_BLOCK_ROWS + i] / out->unit + 0.5f) : (uint8_t)0;
}

void pe_quantised_encode(const pe_quantised *q, const pe_rows *rows, const pe_layer *layer,
                         uint32_t node, pe_qroom *room, unsigned char *codes, pe_qfactors *factors)
{
    const pe_bitcode *b = &q->bitcode;
    uint32_t links[PE_DEGREE_MAX + 1];
    size_t n = pe_layer_copy(layer, node, links);
    pe_rows_get(rows, node, room->row, 0);
    pe_bitcode_rotate(b, room->row, room->centre, room->tmp);
    for (uint32_t block = 0; block < q->blocks; block++) {
        memset(room->block, 0, pe_block_size(b));
        for (uint32_t lane = 0; lane < PE_BLOCK_ROWS; lane++) {
            size_t i = block * (size_t)PE_BLOCK_ROWS + lane;
            if (i >= n)
                break;
            pe_rows_get(rows, links[i], room->row, 0);
            pe_bitcode_rotate(b, room->row, room->rotated, room->tmp);
            pe_block_set(
                b, room->block, lane, room->symbols,
                pe_bitcode_encode(b, room->rotated, room->centre, room->symbols, room->levels));
        }
        memcpy(codes + block * pe_block_codes(b), room->block, pe_block_codes(b));
        compact(q, pe_block_factors(b, room->block), &factors[block]);
    }
}

/* ---- all that are not fresh ---- */

typedef struct refresh {
    pe_quantised *q;
    const pe_rows *rows;
    const pe_layer *layer;
    uint32_t n;
    _Atomic uint32_t next;
    pe_progress *progress;
    pe_first_error error;
} refresh;

enum { BATCH = 64 };

static void refresh_worker(void *ctx, unsigned worker)
{
    refresh *r = ctx;
    pe_host *host = r->rows->host;
    pe_qroom room;
    peri_status status = pe_qroom_init(&room, host, r->q);
    pe_first_error_set(&r->error, status);
    if (status != PERI_OK)
        return;
    for (;;) {
        uint32_t node = atomic_fetch_add(&r->next, BATCH);
        if (node >= r->n || atomic_load_explicit(&r->error.failed, memory_order_relaxed) ||
            pe_progress_add(r->progress, worker, node < r->n ? BATCH : 0))
            break;
        uint32_t end = r->n - node < BATCH ? r->n : node + BATCH;
        for (; node < end; node++) {
            if (pe_quantised_fresh(r->q, node))
                continue;
            pe_quantised_encode(r->q, r->rows, r->layer, node, &room,
                                pe_array_at(&r->q->codes, node),
                                (pe_qfactors *)(void *)pe_array_at(&r->q->factors, node));
            atomic_store_explicit((_Atomic uint8_t *)pe_array_at(&r->q->fresh, node), 1,
                                  memory_order_release);
        }
    }
    pe_qroom_destroy(&room, host);
}

peri_status pe_quantised_refresh(pe_quantised *q, const pe_rows *rows, const pe_layer *layer,
                                 pe_epoch *e, uint32_t n, pe_progress *progress, unsigned workers)
{
    refresh r = {.q = q, .rows = rows, .layer = layer, .n = n, .progress = progress};
    pe_epoch_wait(e);
    pe_progress_phase(progress, "codes", n);
    pe_team_run(workers, refresh_worker, &r);
    PE_TRY(pe_first_error_get(&r.error));
    return pe_progress_end(progress);
}
