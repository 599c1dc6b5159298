/* An index over rows that somebody else keeps (a vector file, a store's segments).
 *
 * Slot and id of a row are its number with the lender. Rows are taken in from where the index
 * stands to a mark, by parts, as puts are (index_write.c); slots whose row is gone by then are
 * passed over for good. What the index holds is its own structure, the codes, a copy of the norms:
 * the lender's may move when they grow, and they are four bytes a row. */
#include "index/index.h"
#include "base/checked.h"

enum { PART = 16384, SAMPLE_ROWS = 16384 };

peri_status pe_index_borrow(peri_index *ix, const pe_loan *loan)
{
    const peri_space *a = &ix->space, *b = &loan->rows->space;
    if (pe_slots_count(&ix->slots) != 0 || ix->loan.rows || ix->file)
        return pe_fail(PERI_ERR_ARG, "the index is not empty");
    if (a->dim != b->dim)
        return pe_fail(PERI_ERR_DIMENSION, "the index has dimension %u, the rows have %u", a->dim,
                       b->dim);
    if (a->metric != b->metric || a->scalar != b->scalar)
        return pe_fail(PERI_ERR_CONFIG, "the index has metric %u and scalar %u, the rows %u and %u",
                       a->metric, a->scalar, b->metric, b->scalar);
    ix->loan = *loan;
    return PERI_OK;
}

peri_status pe_index_lend(peri_index *ix, uint32_t end)
{
    const pe_rows *from = ix->loan.rows;
    pe_rows *to = &ix->rows;
    if (end == 0)
        return PERI_OK;
    size_t first = to->rows.capacity < end ? to->rows.capacity : end;
    if (to->space.metric == PERI_METRIC_COSINE) {
        PE_TRY(pe_array_reserve(&to->norms, to->epoch, end, 1));
        for (size_t slot = first; slot < end; slot++)
            memcpy(pe_array_at(&to->norms, slot), pe_array_at(&from->norms, slot), sizeof(float));
    }
    return pe_array_lend(&to->rows, to->epoch, pe_array_at(&from->rows, 0), end);
}

/* What a kind is to learn from: the rows themselves where they are plain floats, else a part of
 * them made so. */
static peri_status learn(peri_index *ix, uint32_t first, uint32_t end, pe_progress *progress)
{
    const pe_rows *r = &ix->rows;
    size_t n = end - first, dim = ix->space.dim, take = n < SAMPLE_ROWS ? n : SAMPLE_ROWS;
    if (!ix->kind->before)
        return PERI_OK;
    if (r->elem == PE_ELEM_F32)
        return ix->kind->before(ix, (const float *)(const void *)pe_array_at(&r->rows, first), n,
                                progress);
    float *sample = pe_alloc(&ix->host, take * dim * sizeof *sample);
    if (!sample)
        return PERI_ERR_NOMEM;
    for (size_t i = 0; i < take; i++)
        pe_rows_get(r, first + (uint32_t)((uint64_t)i * n / take), sample + i * dim, 0);
    peri_status status = ix->kind->before(ix, sample, take, progress);
    pe_free(&ix->host, sample, take * dim * sizeof *sample);
    return status;
}

static peri_status reserve(peri_index *ix, uint32_t end, size_t rows, unsigned workers)
{
    pe_codes *codes = pe_rows_codes(&ix->rows);
    PE_TRY(pe_slots_reserve_to(&ix->slots, end));
    if (codes)
        PE_TRY(pe_array_reserve(&codes->array, &ix->epoch, end, 1));
    if (ix->kind->reserve)
        PE_TRY(ix->kind->reserve(ix, end, rows, 1, workers));
    if (end > atomic_load_explicit(&ix->slots.readable, memory_order_relaxed))
        atomic_store_explicit(&ix->slots.readable, end, memory_order_release);
    return PERI_OK;
}

/* The next rows that are alive, up to `part` of them, into `slots`; *next moves behind them. */
static size_t gather(const peri_index *ix, uint32_t *next, uint32_t end, size_t part,
                     uint32_t *slots)
{
    size_t n = 0;
    while (*next < end && n < part) {
        if (ix->loan.alive(ix->loan.ctx, *next))
            slots[n++] = *next;
        ++*next;
    }
    return n;
}

static peri_status take_part(peri_index *ix, const uint32_t *slots, size_t n, float *scratch,
                             pe_progress *progress, unsigned workers)
{
    size_t in = n;
    peri_status status = PERI_OK;
    uint32_t first = pe_slots_count(&ix->slots);
    PE_TRY(pe_epoch_reserve(&ix->epoch, 64));
    for (uint32_t slot = first; slot <= slots[n - 1]; slot++)
        pe_slots_claim(&ix->slots, slot);
    for (size_t i = 0; i < n; i++)
        pe_rows_set_code(&ix->rows, slots[i], scratch);
    if (ix->kind->insert)
        status = ix->kind->insert(ix, slots, n, progress, workers, &in);
    else
        pe_progress_add(progress, 0, n);
    if (in == 0)
        return status;
    pe_slots_publish(&ix->slots, slots[in - 1] + 1);
    for (size_t i = 0; i < in; i++) {
        for (; first < slots[i]; first++)
            pe_slots_untake(&ix->slots, first);
        pe_slots_bind(&ix->slots, slots[i], slots[i]);
        first = slots[i] + 1;
    }
    return status;
}

/* A kind that builds in bulk has all rows in one call, and is then asked to measure. */
static size_t part_of(const peri_index *ix, uint32_t end)
{
    size_t n = end - pe_slots_count(&ix->slots);
    return ix->kind->at_once && ix->kind->at_once(ix, n) ? n : PART;
}

static peri_status take_all(peri_index *ix, uint32_t end, pe_progress *progress, unsigned workers,
                            size_t part, uint32_t *slots, float *scratch)
{
    uint32_t first = pe_slots_count(&ix->slots), next = first;
    PE_TRY(pe_index_lend(ix, end));
    PE_TRY(learn(ix, first, end, progress));
    PE_TRY(reserve(ix, end, end - first, workers));
    pe_progress_phase(progress, "insert", end - first);
    while (next < end && !atomic_load_explicit(&progress->cancelled, memory_order_relaxed)) {
        size_t n = gather(ix, &next, end, part, slots);
        if (n)
            PE_TRY(take_part(ix, slots, n, scratch, progress, workers));
    }
    PE_TRY(pe_progress_end(progress));
    return part != PART && ix->kind->settled ? ix->kind->settled(ix, progress, workers) : PERI_OK;
}

peri_status pe_index_take(peri_index *ix, uint32_t end, const peri_task *task)
{
    pe_progress progress;
    PE_TRY(pe_progress_init(&progress, task));
    PE_TRY(pe_index_begin_write(ix));
    peri_status status = PERI_OK;
    if (end > pe_slots_count(&ix->slots)) {
        pe_host_limit(&ix->host, task);
        size_t part = part_of(ix, end);
        uint32_t *slots = pe_alloc(&ix->host, part * sizeof *slots);
        float *scratch = pe_alloc(&ix->host, ix->space.dim * sizeof *scratch);
        status = slots && scratch
                     ? take_all(ix, end, &progress, pe_task_threads(task), part, slots, scratch)
                     : PERI_ERR_NOMEM;
        pe_free(&ix->host, slots, part * sizeof *slots);
        pe_free(&ix->host, scratch, ix->space.dim * sizeof *scratch);
    }
    pe_index_end_write(ix);
    return status;
}
