/* The index beside the file: building it over the rows in place, taking in what came since, saving
 * it, opening it where it fits.
 *
 * It is derived data: the file is checkpointed before the index is given its name, and the index
 * says which checkpoint of which generation that was. At open it counts only if the file is that
 * generation, has that checkpoint, and it was this one: the checksum of its frame tells (a file put
 * back from an old copy and written to since has other frames under the same numbers). An index
 * that does not fit is left out, and said to be; nothing in it cannot be built again. */
#include "mmap/vectors_parts.h"
#include "persist/bytes.h"

/*   source  0 uuid (16)   16 generation   24 checkpoint   32 checksum of its frame   40 slots */
enum { SOURCE_GENERATION = 16, SOURCE_SEQUENCE = 24, SOURCE_SUM = 32, SOURCE_SLOTS = 40 };

static peri_status loan_touch(void *ctx, uint32_t slot)
{
    return pe_vgen_touch(ctx, slot);
}

static int is_alive(const pe_vgen *g, uint32_t slot)
{
    return atomic_load_explicit(pe_vgen_died(g, slot), memory_order_acquire) == 0;
}

static int loan_alive(void *ctx, uint32_t slot)
{
    const pe_vgen *g = ctx;
    return pe_vgen_visible(g, slot, g->taking);
}

static peri_status loan_fits(void *ctx, const unsigned char source[64], uint32_t slots)
{
    const pe_vgen *g = ctx;
    uint64_t sequence = pe_get_le64(source + SOURCE_SEQUENCE);
    uint64_t mark = pe_get_le64(source + SOURCE_SLOTS);
    if (memcmp(source, g->uuid, sizeof g->uuid) != 0 ||
        pe_get_le64(source + SOURCE_GENERATION) != g->generation)
        return pe_fail(PERI_ERR_STATE, "%s: the index is of another generation", g->file.path);
    if (pe_vgen_frame_sum(g, sequence) != pe_get_le64(source + SOURCE_SUM) || sequence == 0)
        return pe_fail(PERI_ERR_STATE, "%s: the index is of checkpoint %llu of another history",
                       g->file.path, (unsigned long long)sequence);
    if (mark > pe_vgen_count(g) || slots > mark)
        return pe_fail(PERI_ERR_CORRUPT, "%s: the index has %u of %u slots", g->file.path, slots,
                       pe_vgen_count(g));
    return PERI_OK;
}

static pe_loan loan_of(pe_vgen *g)
{
    return (pe_loan){
        .ctx = g, .rows = &g->rows, .touch = loan_touch, .alive = loan_alive, .fits = loan_fits};
}

void pe_vindex_destroy(void *owner, void *index, uint64_t arg)
{
    pe_vindex *x = index;
    (void)owner;
    (void)arg;
    if (!x)
        return;
    peri_index_close(x->ix);
    pe_free(x->host, x, sizeof *x);
}

void pe_vectors_put_index(peri_vectors *v, pe_vindex *fresh)
{
    pe_vindex *old = atomic_exchange(&v->index, fresh);
    if (old)
        pe_epoch_retire(&v->epoch, pe_vindex_destroy, old, 0);
}

/* Set the mark, and count the dead that the index does not know of. No writer is at work. */
static void set_mark(pe_vindex *x, uint32_t mark)
{
    uint32_t stale = 0, slots = pe_slots_count(&x->ix->slots);
    for (uint32_t slot = 0; slot < slots; slot++)
        stale += !is_alive(x->gen, slot) && !pe_slots_dead(&x->ix->slots, slot);
    atomic_store_explicit(&x->stale, stale, memory_order_release);
    atomic_store_explicit(&x->rows, mark, memory_order_release);
}

static pe_vindex *new_vindex(peri_vectors *v, pe_vgen *g, peri_index *ix)
{
    pe_vindex *x = pe_calloc(&v->host, sizeof *x);
    if (x)
        *x = (pe_vindex){.host = &v->host, .ix = ix, .gen = g};
    return x;
}

/* ---- opening ---- */

/* A graph without codes is walked on the rows, which search does not stop to verify. */
static peri_status verify_if_walked(const pe_vgen *g, const peri_index *ix)
{
    uint64_t bytes = (uint64_t)pe_slots_count(&ix->slots) * g->stride;
    if ((ix->kind->caps & PERI_CAP_EXACT) || pe_rows_codes(&ix->rows) || bytes == 0)
        return PERI_OK;
    return pe_vgen_verify(g, 0, bytes);
}

peri_status pe_vectors_open_index(peri_vectors *v)
{
    peri_index *ix = NULL;
    pe_vgen *g = atomic_load(&v->gen);
    pe_loan loan = loan_of(g);
    PE_TRY(pe_epoch_reserve(&v->epoch, 1));
    peri_status status =
        pe_index_open_borrowed(&ix, v->index_path, v->readonly, v->has_env ? &v->env : NULL, &loan);
    pe_vindex *x = NULL;
    if (status == PERI_OK)
        status = verify_if_walked(g, ix);
    if (status == PERI_OK && !(x = new_vindex(v, g, ix)))
        status = PERI_ERR_NOMEM;
    if (status != PERI_OK)
        peri_index_close(ix);
    else
        set_mark(x, (uint32_t)pe_get_le64(ix->loan.source + SOURCE_SLOTS));
    int dropped = status != PERI_OK && status != PERI_ERR_NOT_FOUND;
    if (status == PERI_ERR_NOMEM)
        return status;
    atomic_store_explicit(&v->index_dropped, dropped, memory_order_relaxed);
    pe_vectors_put_index(v, x);
    return PERI_OK;
}

/* ---- building and keeping up ---- */

static peri_status begin_build(peri_vectors *v)
{
    PE_TRY(pe_vectors_begin_write(v)); /* may it be written to at all? */
    pe_vectors_end_write(v);
    pthread_mutex_lock(&v->building);
    return PERI_OK;
}

static peri_status save_index(peri_vectors *v, pe_vindex *x, const peri_task *task)
{
    const pe_vgen *g = x->gen;
    unsigned char *source = x->ix->loan.source;
    PE_TRY(peri_vectors_checkpoint(v));
    PE_TRY(pe_vectors_begin_write(v)); /* the frames of another thread's checkpoint */
    uint64_t sequence = atomic_load(&g->sequence);
    memcpy(source, g->uuid, sizeof g->uuid);
    pe_put_le64(source + SOURCE_GENERATION, g->generation);
    pe_put_le64(source + SOURCE_SEQUENCE, sequence);
    pe_put_le64(source + SOURCE_SUM, pe_vgen_frame_sum(g, sequence));
    pe_put_le64(source + SOURCE_SLOTS, atomic_load(&x->rows));
    pe_vectors_end_write(v);
    return peri_index_save(x->ix, v->index_path, task);
}

/* What a reader of `mark` or more sees, goes in; the caller has seen to it that there are no
 * others. */
static peri_status take_rows(pe_vgen *g, peri_index *ix, uint32_t mark, const peri_task *task)
{
    g->taking = mark;
    if (mark)
        PE_TRY(pe_vgen_verify(g, 0, (uint64_t)mark * g->stride));
    return pe_index_take(ix, mark, task);
}

static peri_status build(peri_vectors *v, peri_index **empty, const peri_task *task)
{
    pe_vgen *g = atomic_load(&v->gen);
    uint32_t mark = pe_vgen_count(g);
    pe_loan loan = loan_of(g);
    PE_TRY(pe_index_borrow(*empty, &loan));
    PE_TRY(take_rows(g, *empty, mark, task));
    pe_vindex *x = new_vindex(v, g, *empty);
    if (!x)
        return PERI_ERR_NOMEM;
    *empty = NULL;
    peri_status status = pe_vectors_begin_write(v);
    if (status != PERI_OK) {
        pe_vindex_destroy(NULL, x, 0);
        return status;
    }
    status = pe_epoch_reserve(&v->epoch, 1);
    if (status == PERI_OK) {
        set_mark(x, mark);
        pe_vectors_put_index(v, x);
        atomic_store_explicit(&v->index_dropped, 0, memory_order_relaxed);
    } else {
        pe_vindex_destroy(NULL, x, 0);
    }
    pe_vectors_end_write(v);
    return status == PERI_OK ? save_index(v, x, task) : status;
}

peri_status peri_vectors_build_index(peri_vectors *v, peri_index *empty, const peri_task *task)
{
    if (!empty)
        return pe_fail(PERI_ERR_ARG, "empty is NULL");
    peri_status status = begin_build(v);
    if (status == PERI_OK) {
        status = build(v, &empty, task);
        pthread_mutex_unlock(&v->building);
    }
    peri_index_close(empty);
    return status;
}

static peri_status forget_dead(pe_vindex *x, uint32_t mark)
{
    uint32_t slots = pe_slots_count(&x->ix->slots);
    for (uint32_t slot = 0; slot < slots; slot++)
        if (!pe_vgen_visible(x->gen, slot, mark) && !pe_slots_dead(&x->ix->slots, slot))
            PE_TRY(peri_index_remove(x->ix, slot));
    return PERI_OK;
}

static peri_status keep_up(peri_vectors *v, pe_vindex *x, const peri_task *task)
{
    pe_vgen *g = atomic_load(&v->gen);
    uint32_t mark = pe_vgen_count(g);
    /* The index changes in place. A search that began with a lower count may still look for rows
     * that have died since: it must not find them gone, nor above its mark. */
    pe_epoch_wait(&v->epoch);
    PE_TRY(take_rows(g, x->ix, mark, task));
    PE_TRY(forget_dead(x, mark));
    PE_TRY(pe_vectors_begin_write(v));
    set_mark(x, mark);
    pe_vectors_end_write(v);
    PE_TRY(peri_index_maintain(x->ix, task));
    return save_index(v, x, task);
}

peri_status peri_vectors_maintain(peri_vectors *v, const peri_task *task)
{
    PE_TRY(begin_build(v));
    pe_vindex *x = atomic_load(&v->index);
    peri_status status = x ? keep_up(v, x, task) : PERI_OK;
    pthread_mutex_unlock(&v->building);
    return status;
}

peri_status peri_vectors_drop_index(peri_vectors *v)
{
    PE_TRY(begin_build(v));
    peri_status status = pe_vectors_begin_write(v);
    if (status == PERI_OK) {
        status = pe_epoch_reserve(&v->epoch, 1);
        if (status == PERI_OK) {
            pe_vectors_put_index(v, NULL);
            pe_file_unlink(v->host.files, v->index_path);
        }
        pe_vectors_end_write(v);
    }
    pthread_mutex_unlock(&v->building);
    return status;
}
