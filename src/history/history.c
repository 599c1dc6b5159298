/* Opening, closing, views. */
#include "history/history_parts.h"

enum {
    FILE_SIZE = 128 << 20,
    HINT_BYTES = 4 << 20, /* less is read in no time */
};

/* ---- views ---- */

static void free_view(void *owner, void *view, uint64_t host)
{
    (void)owner;
    pe_free((pe_host *)(uintptr_t)host, view, sizeof(pe_view));
}

void pe_files_free(void *owner, void *files, uint64_t host)
{
    pe_files *f = files;
    (void)owner;
    if (!f)
        return;
    pe_array_destroy(&f->list);
    pe_free((pe_host *)(uintptr_t)host, f, sizeof *f);
}

static peri_status add_files(pe_history *h, pe_files *f, uint64_t from)
{
    const pe_journal *j = h->journal;
    size_t n = atomic_load(&f->n);
    PE_TRY(pe_array_reserve(&f->list, &h->epoch, n + j->n_files, 0));
    for (size_t i = 0; i < j->n_files; i++)
        if (j->files[i]->number >= from) {
            memcpy(pe_array_at(&f->list, n), &j->files[i], sizeof j->files[i]);
            atomic_store_explicit(&f->n, ++n, memory_order_release);
        }
    return PERI_OK;
}

peri_status pe_files_create(pe_history *h, uint64_t from, pe_files **out)
{
    pe_files *f = pe_calloc(&h->host, sizeof *f);
    if (!f)
        return PERI_ERR_NOMEM;
    pe_array_init(&f->list, &h->host, sizeof(pe_jfile *));
    peri_status status = add_files(h, f, from);
    if (status != PERI_OK) {
        pe_files_free(NULL, f, (uint64_t)(uintptr_t)&h->host);
        return status;
    }
    *out = f;
    return PERI_OK;
}

peri_status pe_files_extend(pe_history *h)
{
    pe_files *f = atomic_load_explicit(&h->view, memory_order_relaxed)->files;
    size_t n = pe_files_count(f);
    PE_TRY(add_files(h, f, n ? pe_files_at(f, n - 1)->number + 1 : 0));
    h->files_version = h->journal->files_version;
    return PERI_OK;
}

peri_status pe_view_create(pe_history *h, pe_table *table, pe_base *base, pe_files *files,
                           pe_view **out)
{
    pe_view *v = pe_alloc(&h->host, sizeof *v);
    if (!v)
        return PERI_ERR_NOMEM;
    *v = (pe_view){table, base, files};
    *out = v;
    return PERI_OK;
}

void pe_view_publish(pe_history *h, pe_view *v)
{
    pe_view *old = atomic_load_explicit(&h->view, memory_order_relaxed);
    h->files_version = h->journal->files_version;
    atomic_store_explicit(&h->view, v, memory_order_release);
    if (old)
        pe_epoch_retire(&h->epoch, free_view, old, (uint64_t)(uintptr_t)&h->host);
}

/* ---- life ---- */

peri_status pe_history_writable(const pe_history *h)
{
    if (h->config.readonly)
        return pe_fail(PERI_ERR_STATE, "%s: opened for reading only", h->journal->dir);
    if (pe_forked(&h->mark))
        return pe_fail(PERI_ERR_FORKED, "%s: opened by process %ld, written to in a child of it",
                       h->journal->dir, h->mark.pid);
    return PERI_OK;
}

/* The journal's files as they are, while nobody reads yet. */
static peri_status list_files(pe_history *h)
{
    pe_files *f = atomic_load_explicit(&h->view, memory_order_relaxed)->files;
    atomic_store_explicit(&f->n, 0, memory_order_relaxed);
    PE_TRY(add_files(h, f, 0));
    h->files_version = h->journal->files_version;
    return PERI_OK;
}

static peri_status open_parts(pe_history *h)
{
    pe_journal_place from = {0};
    pe_table *table = NULL;
    pe_base *base = NULL;
    pe_view *v;
    pe_journal_config jc = {.dir = h->config.dir,
                            .readonly = h->config.readonly,
                            .create = h->config.create,
                            .accept_loss = h->config.accept_loss,
                            .durability = h->config.durability,
                            .interval_ms = h->config.interval_ms,
                            .file_size = h->config.file_size};
    PE_TRY(pe_journal_open(&h->journal, &h->host, &h->epoch, &jc));
    h->config.dir = h->journal->dir;
    h->key_seed = pe_journal_file_seed(h->journal->uuid, 0);
    uint64_t number = h->journal->manifest.owner[PE_OWNER_BASE];
    if (number)
        PE_TRY(pe_base_open(&base, h, number));
    pe_files *files = NULL;
    peri_status status = pe_hint_load(h, base, &table, &from);
    if (status == PERI_OK)
        status = pe_files_create(h, 0, &files);
    if (status == PERI_OK)
        status = pe_view_create(h, table, base, files, &v);
    if (status != PERI_OK) {
        pe_files_free(NULL, files, (uint64_t)(uintptr_t)&h->host);
        pe_table_free(table, &h->host);
        if (base)
            pe_base_unpin(NULL, base, (uint64_t)(uintptr_t)&h->host);
        return status;
    }
    pe_view_publish(h, v);
    atomic_store(&h->horizon, base ? base->horizon : 0);
    atomic_store(&h->published, from.sequence);
    status = pe_journal_recover(h->journal, &from, pe_history_apply, h);
    /* Recovery may have put files behind the valid prefix aside: the list is made anew. */
    return status == PERI_OK ? list_files(h) : status;
}

peri_status pe_history_open(pe_history **out, const peri_env *env, const pe_history_config *config)
{
    pe_host host;
    *out = NULL;
    PE_TRY(pe_host_init(&host, env));
    pe_history *h = pe_calloc(&host, sizeof *h);
    if (!h)
        return PERI_ERR_NOMEM;
    h->host = host;
    h->config = *config;
    if (!h->config.file_size)
        h->config.file_size = FILE_SIZE;
    if (!h->config.hint_bytes)
        h->config.hint_bytes = HINT_BYTES;
    if (!h->config.durability)
        h->config.durability = PE_DURABLE_COMMIT;
    pe_forkmark_make(&h->mark);
    pe_epoch_init(&h->epoch, &h->host, h);
    pthread_mutex_init(&h->write, NULL);
    pthread_mutex_init(&h->care, NULL);
    pthread_mutex_init(&h->order, NULL);
    pthread_mutex_init(&h->snapshots_lock, NULL);
    pe_array_init(&h->recent, &h->host, sizeof(uint64_t));
    peri_status status = open_parts(h);
    if (status != PERI_OK) {
        char detail[PE_DETAIL_SIZE];
        pe_detail_copy(detail);
        h->config.readonly = 1; /* nothing to finish */
        pe_history_close(h);
        pe_detail_set(detail);
        return status;
    }
    *out = h;
    return PERI_OK;
}

void pe_history_close(pe_history *h)
{
    if (!h)
        return;
    int forked = pe_forked(&h->mark);
    if (!h->config.readonly && !forked) {
        (void)pe_history_save_hint(h);
        pe_journal_finish(h->journal);
    }
    pe_host host = h->host;
    pe_view *v = atomic_load(&h->view);
    pe_order_reset(h);
    pe_array_destroy(&h->recent);
    pe_epoch_destroy(&h->epoch);
    pe_free(&h->host, h->pending, h->pending_room);
    pe_free(&h->host, h->twins, h->twins_room * sizeof *h->twins);
    if (v) {
        pe_table_free(v->table, &h->host);
        if (v->base)
            pe_base_unpin(NULL, v->base, (uint64_t)(uintptr_t)&h->host);
        pe_files_free(NULL, v->files, (uint64_t)(uintptr_t)&h->host);
        pe_free(&h->host, v, sizeof *v);
    }
    pe_journal_close(h->journal, forked);
    if (!forked) {
        pthread_mutex_destroy(&h->snapshots_lock);
        pthread_mutex_destroy(&h->order);
        pthread_mutex_destroy(&h->care);
        pthread_mutex_destroy(&h->write);
    }
    pe_forkmark_free(&h->mark);
    pe_free(&host, h, sizeof *h);
}

peri_status pe_history_sync(pe_history *h)
{
    int led;
    PE_TRY(pe_history_writable(h));
    pthread_mutex_lock(&h->write);
    peri_status status = pe_journal_flush(h->journal);
    uint64_t last = h->journal->next_sequence - 1;
    pthread_mutex_unlock(&h->write);
    if (status == PERI_OK)
        status = pe_journal_wait(h->journal, last, &led);
    if (status == PERI_OK && pthread_mutex_trylock(&h->write) == 0) {
        pe_journal_mark(h->journal);
        pthread_mutex_unlock(&h->write);
    }
    return status;
}

void pe_history_get_info(const pe_history *history, pe_history_info *out)
{
    pe_history *h = (pe_history *)(uintptr_t)history;
    pe_reader *reader = pe_epoch_enter(&h->epoch);
    const pe_view *v = atomic_load_explicit(&h->view, memory_order_acquire);
    memset(out, 0, sizeof *out);
    memcpy(out->uuid, h->journal->uuid, 16);
    memcpy(out->history, h->journal->history, 16);
    out->sequence = atomic_load(&h->published);
    out->synced = atomic_load(&h->journal->synced);
    out->keys = atomic_load(&h->keys);
    out->live = atomic_load(&h->live);
    out->horizon = atomic_load(&h->horizon);
    size_t n_files = pe_files_count(v->files);
    out->files = n_files + (v->base != NULL);
    for (size_t i = 0; i < n_files; i++)
        out->file_bytes += atomic_load(&pe_files_at(v->files, i)->written);
    if (v->base)
        out->file_bytes += pe_segr_size(v->base->segment);
    out->syncs = atomic_load(&h->journal->n_syncs);
    out->scanned = h->scanned;
    out->report = h->journal->report;
    out->heap = atomic_load(&h->host.heap);
    pe_epoch_exit(reader);
}

/* ---- snapshots ---- */

peri_status pe_history_snapshot(pe_history *h, uint64_t *sequence)
{
    peri_status status = PERI_OK;
    pthread_mutex_lock(&h->snapshots_lock);
    if (h->n_snapshots == PE_SNAPSHOTS)
        status = pe_fail(PERI_ERR_FULL, "%d snapshots are held already", PE_SNAPSHOTS);
    else
        h->snapshots[h->n_snapshots++] = *sequence = atomic_load(&h->published);
    pthread_mutex_unlock(&h->snapshots_lock);
    return status;
}

peri_status pe_history_release(pe_history *h, uint64_t sequence)
{
    peri_status status = pe_fail(PERI_ERR_NOT_FOUND, "no snapshot of sequence %llu is held",
                                 (unsigned long long)sequence);
    pthread_mutex_lock(&h->snapshots_lock);
    for (size_t i = 0; i < h->n_snapshots && status != PERI_OK; i++)
        if (h->snapshots[i] == sequence) {
            h->snapshots[i] = h->snapshots[--h->n_snapshots];
            status = PERI_OK;
        }
    pthread_mutex_unlock(&h->snapshots_lock);
    return status;
}
