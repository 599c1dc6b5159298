/* Reads: a place in the epoch, a view, a sequence. */
#include "history/history_parts.h"
#include "history/series.h"

/* Columns of one block: sequences, times, values. */
enum { UNPACK_BYTES = PE_SERIES_MAX * 3 * 8 };

static int held(const pe_history *history, uint64_t as_of)
{
    pe_history *h = (pe_history *)(uintptr_t)history;
    int found = 0;
    /* In a child of fork the lock may be held by a thread that is not there. */
    if (!pe_forked(&h->mark))
        pthread_mutex_lock(&h->snapshots_lock);
    else if (pthread_mutex_trylock(&h->snapshots_lock) != 0)
        return 0;
    for (size_t i = 0; i < h->n_snapshots; i++)
        found |= h->snapshots[i] == as_of;
    pthread_mutex_unlock(&h->snapshots_lock);
    return found;
}

peri_status pe_read_begin(pe_read *r, const pe_history *history, uint64_t as_of)
{
    pe_history *h = (pe_history *)(uintptr_t)history;
    memset(r, 0, sizeof *r);
    if (as_of && as_of < atomic_load_explicit(&h->horizon, memory_order_acquire) && !held(h, as_of))
        return pe_fail(PERI_ERR_STATE,
                       "as of sequence %llu: versions before %llu were given up by compaction",
                       (unsigned long long)as_of, (unsigned long long)atomic_load(&h->horizon));
    r->history = h;
    r->reader = pe_epoch_enter(&h->epoch);
    /* The view first: a compaction's view with a sequence from before it would miss versions. */
    r->view = atomic_load_explicit(&h->view, memory_order_acquire);
    uint64_t published = atomic_load_explicit(&h->published, memory_order_acquire);
    r->as_of = as_of && as_of < published ? as_of : published;
    return PERI_OK;
}

void pe_read_end(pe_read *r)
{
    if (!r->reader)
        return;
    pe_free(&((pe_history *)(uintptr_t)r->history)->host, r->unpack, UNPACK_BYTES);
    pe_epoch_exit(r->reader);
    r->reader = NULL;
}

peri_status pe_read_head(pe_read *r, peri_slice key, pe_version *out)
{
    pe_slot *slot;
    if (key.size == 0 || key.size > PE_KEY_MAX || !key.data)
        return pe_fail(PERI_ERR_ARG, "a key of %zu bytes, expected 1 to %d", key.size, PE_KEY_MAX);
    return pe_table_find(r->history, r->view, r->view->table, pe_history_hash(r->history, key), key,
                         1, &slot, out);
}

peri_status pe_read_former(pe_read *r, pe_version *v)
{
    return pe_view_former(r->history, r->view, v);
}

/* The newest version in a block that is not after as_of; ERR_NOT_FOUND when all are. */
static peri_status find_in_block(pe_read *r, pe_version *v)
{
    pe_history *h = (pe_history *)(uintptr_t)r->history;
    size_t n = pe_series_count(v->value, v->size);
    if (!r->unpack)
        r->unpack = pe_alloc(&h->host, UNPACK_BYTES);
    if (!r->unpack)
        return PERI_ERR_NOMEM;
    uint64_t *sequences = r->unpack, *values = r->unpack + 2 * PE_SERIES_MAX;
    int64_t *times = (int64_t *)(r->unpack + PE_SERIES_MAX);
    PE_TRY(pe_series_unpack(v->value, v->size, sequences, times, values));
    while (n > 0 && sequences[n - 1] > r->as_of)
        n--;
    if (n == 0)
        return PERI_ERR_NOT_FOUND;
    v->depth -= (uint32_t)(pe_series_count(v->value, v->size) - n);
    v->sequence = sequences[n - 1];
    v->time = times[n - 1];
    v->kind = PE_OP_PUT;
    v->value = (const unsigned char *)&values[n - 1];
    v->size = 8;
    return PERI_OK;
}

peri_status pe_read_version(pe_read *r, peri_slice key, pe_version *out)
{
    PE_TRY(pe_read_head(r, key, out));
    for (;;) {
        if (out->kind == PE_OP_BLOCK) {
            pe_version block = *out;
            peri_status status = find_in_block(r, out);
            if (status != PERI_ERR_NOT_FOUND)
                return status;
            *out = block;
        } else if (out->sequence <= r->as_of) {
            return PERI_OK;
        }
        PE_TRY(pe_read_former(r, out));
    }
}

peri_status pe_read_get(pe_read *r, peri_slice key, pe_version *out)
{
    PE_TRY(pe_read_version(r, key, out));
    return out->kind == PE_OP_DELETE ? PERI_ERR_NOT_FOUND : PERI_OK;
}

/* ---- pins ---- */

/* Bit 0 of a pin tells a base from a journal file. */
void *pe_read_pin(pe_read *r, const pe_version *v)
{
    uint64_t number = v->place >> PE_PLACE_BITS;
    pe_base *base = r->view->base;
    if (base && base->number == number) {
        atomic_fetch_add_explicit(&base->pins, 1, memory_order_relaxed);
        return (void *)((uintptr_t)base | 1);
    }
    pe_jfile *f = pe_view_file(r->view, number);
    if (!f || v->value < f->map || v->value >= f->map + f->map_size)
        return NULL;
    atomic_fetch_add_explicit(&f->pins, 1, memory_order_relaxed);
    return f;
}

void pe_history_unpin(pe_history *h, void *pin)
{
    uint64_t host = (uint64_t)(uintptr_t)&h->host;
    if ((uintptr_t)pin & 1)
        pe_base_unpin(NULL, (void *)((uintptr_t)pin & ~(uintptr_t)1), host);
    else if (pin)
        pe_journal_free_file(NULL, pin, host);
}

/* ---- changes ---- */

static peri_status give_batch(pe_read *r, const unsigned char *payload, uint64_t size,
                              const pe_jfile *f, uint64_t offset, pe_scan_fn fn, void *ctx)
{
    for (uint64_t at = 0, step; at < size; at += step) {
        pe_version v;
        if (!pe_op_get(payload + at, size - at, &v, &step))
            return pe_fail(PERI_ERR_CORRUPT, "%s: at byte %llu: no version is here", f->path,
                           (unsigned long long)(offset + at));
        v.place = pe_place(f->number, offset + at);
        (void)r;
        PE_TRY(fn(ctx, &v));
    }
    return PERI_OK;
}

static peri_status give_file(pe_read *r, pe_jfile *f, uint64_t since, pe_scan_fn fn, void *ctx)
{
    uint64_t sequence = f->first;
    for (uint64_t at = PE_JOURNAL_HEADER; sequence <= r->as_of; sequence++) {
        pe_jheader h;
        uint64_t room;
        const unsigned char *b = pe_journal_bytes(r->history->journal, f, at, &room);
        if (!b || room < PE_JOURNAL_RECORD)
            return PERI_OK; /* goes on in the next file */
        if (!pe_journal_get_header(b, f->seed, at, &h) || h.sequence != sequence ||
            pe_journal_extent(h.size) > room)
            return pe_fail(PERI_ERR_CORRUPT, "%s: at byte %llu: record %llu is damaged", f->path,
                           (unsigned long long)at, (unsigned long long)sequence);
        if (sequence > since) {
            if (!pe_journal_payload_good(b, f->seed, at, &h))
                return pe_fail(PERI_ERR_CORRUPT, "%s: at byte %llu: record %llu is damaged",
                               f->path, (unsigned long long)at, (unsigned long long)sequence);
            PE_TRY(
                give_batch(r, b + PE_JOURNAL_RECORD, h.size, f, at + PE_JOURNAL_RECORD, fn, ctx));
        }
        at += pe_journal_extent(h.size);
    }
    return PERI_OK;
}

peri_status pe_read_changes(pe_read *r, uint64_t since, pe_scan_fn fn, void *ctx)
{
    const pe_files *files = r->view->files;
    size_t n = pe_files_count(files);
    if (n && since + 1 < pe_files_at(files, 0)->first)
        return pe_fail(PERI_ERR_STATE,
                       "changes since sequence %llu: those before %llu are compacted",
                       (unsigned long long)since, (unsigned long long)pe_files_at(files, 0)->first);
    for (size_t i = 0; i < n; i++)
        if (i + 1 == n || pe_files_at(files, i + 1)->first > since + 1)
            PE_TRY(give_file(r, pe_files_at(files, i), since, fn, ctx));
    return PERI_OK;
}
