/* Compaction: the live rows, in order, into a new generation that takes the path's name.
 *
 * The new file is complete and durable before the rename, so the path holds the old generation or
 * the new one at every moment. The old file's pages live on as long as a reader, a view or another
 * process has them mapped. Once renamed there is no way back: a failure to sync the directory
 * poisons the handle, because the new generation is what a writer must go on with and it is open
 * whether a power cut would bring back the old one. */
#include "mmap/vectors_parts.h"

typedef struct copier {
    const pe_vgen *from;
    pe_vgen *to;
    unsigned char *buf;
    size_t room, fill; /* rows */
    uint32_t done;     /* rows of `to` that are written or in the buffer */
} copier;

static peri_status flush(copier *c)
{
    size_t stride = c->to->stride;
    uint64_t at = (uint64_t)(c->done - c->fill) * stride;
    if (c->fill)
        PE_TRY(pe_vgen_pwrite(c->to, c->buf, c->fill * stride, at));
    c->fill = 0;
    return PERI_OK;
}

static peri_status copy_row(copier *c, uint32_t slot)
{
    pe_vgen *to = c->to;
    size_t stride = to->stride;
    PE_TRY(pe_vgen_touch(c->from, slot));
    memcpy(c->buf + c->fill * stride, pe_vgen_row(c->from, slot), stride);
    if (to->rows.space.metric == PERI_METRIC_COSINE)
        memcpy(pe_array_at(&to->rows.norms, c->done), pe_array_at(&c->from->rows.norms, slot),
               sizeof(float));
    peri_slice key = pe_vkeys_of(&c->from->keys, slot);
    pe_vkeys_set(&to->keys, key, pe_vkeys_hash(&to->keys, key.data, key.size), c->done);
    c->done++;
    return ++c->fill == c->room ? flush(c) : PERI_OK;
}

static int is_alive(const pe_vgen *g, uint32_t slot)
{
    return atomic_load_explicit(pe_vgen_died(g, slot), memory_order_relaxed) == 0;
}

static peri_status reserve(copier *c, uint32_t count)
{
    size_t rows = 0, key_bytes = 0;
    for (uint32_t slot = 0; slot < count; slot++)
        if (is_alive(c->from, slot)) {
            rows++;
            key_bytes += PE_VKEY_HEAD + pe_vkeys_of(&c->from->keys, slot).size;
        }
    PE_TRY(pe_vkeys_reserve(&c->to->keys, rows, rows, key_bytes));
    PE_TRY(pe_array_reserve(&c->to->died, c->to->epoch, rows, 1));
    if (c->to->rows.space.metric == PERI_METRIC_COSINE)
        PE_TRY(pe_array_reserve(&c->to->rows.norms, c->to->epoch, rows, 1));
    return pe_vgen_grow(c->to, (uint64_t)rows * c->to->stride);
}

static peri_status copy_rows(copier *c, pe_progress *progress)
{
    uint32_t count = pe_vgen_count(c->from);
    PE_TRY(reserve(c, count));
    pe_progress_phase(progress, "compact", count);
    for (uint32_t slot = 0; slot < count; slot++) {
        if (is_alive(c->from, slot))
            PE_TRY(copy_row(c, slot));
        if (pe_progress_add(progress, 0, 1))
            break;
    }
    PE_TRY(flush(c));
    atomic_store_explicit(&c->to->count, c->done, memory_order_release);
    return pe_progress_end(progress);
}

static peri_status fill(const pe_vgen *from, pe_vgen *to, pe_progress *progress)
{
    int poisoned;
    copier c = {.from = from, .to = to, .room = PE_VPIECE / to->stride + 1};
    size_t bytes = c.room * to->stride;
    c.buf = pe_alloc(to->host, bytes);
    if (!c.buf)
        return PERI_ERR_NOMEM;
    peri_status status = copy_rows(&c, progress);
    pe_free(to->host, c.buf, bytes);
    return status == PERI_OK ? pe_vgen_checkpoint(to, &poisoned) : status;
}

static peri_status compact(peri_vectors *v, pe_progress *progress)
{
    pe_vgen *old = atomic_load(&v->gen), *fresh;
    int renamed = 0;
    PE_TRY(pe_epoch_reserve(&v->epoch, 2));
    PE_TRY(pe_vgen_create(&fresh, v, old->generation + 1, old->id_base + pe_vgen_count(old),
                          old->uuid));
    peri_status status = fill(old, fresh, progress);
    if (status == PERI_OK)
        status = pe_epoch_reserve(&v->epoch, 2); /* filling may have used what there was */
    if (status == PERI_OK)
        status = pe_vgen_name(fresh, v, &renamed);
    if (!renamed) {
        pe_file_unlink(v->host.files, v->temp_path);
        pe_vgen_destroy(NULL, fresh, 0);
        return status;
    }
    if (status != PERI_OK)
        atomic_store_explicit(&v->poisoned, 1, memory_order_release);
    pe_vectors_put_index(v, NULL);
    pe_file_unlink(v->host.files, v->index_path);
    atomic_store_explicit(&v->gen, fresh, memory_order_release);
    pe_epoch_retire(&v->epoch, pe_vgen_destroy, old, 0);
    return status;
}

peri_status peri_vectors_compact(peri_vectors *v, const peri_task *task)
{
    pe_progress progress;
    PE_TRY(pe_progress_init(&progress, task));
    PE_TRY(pe_vectors_begin_write(v)); /* before a lock that a parent's thread may hold for ever */
    pe_vectors_end_write(v);
    pthread_mutex_lock(&v->building);
    peri_status status = pe_vectors_begin_write(v);
    if (status == PERI_OK) {
        status = compact(v, &progress);
        pe_vectors_end_write(v);
    }
    pthread_mutex_unlock(&v->building);
    return status;
}
