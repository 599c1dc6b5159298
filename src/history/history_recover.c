/* Taking records in: when a history is opened, and when a reader catches up. */
#include "history/history_parts.h"

peri_status pe_table_apply(pe_history *h, const pe_view *v, pe_table *t, const pe_version *op,
                           uint64_t *keys, uint64_t *live, int *is_new)
{
    pe_slot *slot;
    pe_version newest;
    uint64_t hash = pe_history_hash(h, op->key);
    peri_status status = pe_table_find(h, v, t, hash, op->key, 0, &slot, &newest);
    *is_new = status == PERI_ERR_NOT_FOUND;
    if (status != PERI_OK && !*is_new)
        return status;
    if (!*is_new && newest.sequence == op->sequence && newest.place >= op->place)
        return PERI_OK; /* taken in already */
    if (*is_new)
        atomic_store_explicit(&slot->hash, hash, memory_order_relaxed);
    atomic_store_explicit(&slot->place, op->place, memory_order_release);
    int was_live = !*is_new && newest.kind != PE_OP_DELETE;
    *keys += (uint64_t)*is_new;
    *live += (uint64_t)(op->kind == PE_OP_PUT) - (uint64_t)was_live;
    return PERI_OK;
}

peri_status pe_history_apply(void *history, const pe_jrecord *r)
{
    pe_history *h = history;
    if (!pe_view_file(atomic_load(&h->view), r->file->number))
        PE_TRY(pe_files_extend(h));
    uint64_t keys = 0, live = 0;
    for (uint64_t at = 0, step; at < r->size; at += step) {
        pe_version op;
        int is_new;
        if (!pe_op_get(r->payload + at, r->size - at, &op, &step) || op.sequence != r->sequence ||
            op.kind == PE_OP_BLOCK)
            return pe_fail(PERI_ERR_CORRUPT, "%s: at byte %llu: no version of record %llu is here",
                           r->file->path, (unsigned long long)(r->offset + at),
                           (unsigned long long)r->sequence);
        op.place = pe_place(r->file->number, r->offset + at);
        PE_TRY(pe_history_reserve_keys(h, keys + 1));
        PE_TRY(pe_order_reserve(h, 1));
        pe_view *v = atomic_load_explicit(&h->view, memory_order_relaxed);
        PE_TRY(pe_table_apply(h, v, v->table, &op, &keys, &live, &is_new));
        if (is_new)
            pe_order_add(h, op.place);
    }
    atomic_fetch_add_explicit(&h->keys, keys, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->live, live, memory_order_relaxed);
    atomic_store_explicit(&h->published, r->sequence, memory_order_release);
    h->scanned++;
    h->journal_bytes += pe_journal_extent(r->size);
    return PERI_OK;
}

peri_status pe_history_refresh(pe_history *h)
{
    if (!h->config.readonly)
        return PERI_OK;
    pthread_mutex_lock(&h->write);
    peri_status status = pe_journal_refresh(h->journal, pe_history_apply, h);
    pe_epoch_reclaim(&h->epoch);
    pthread_mutex_unlock(&h->write);
    return status;
}
