/* The journal's life and its writing end. */
#define _GNU_SOURCE
#include "persist/journal_format.h"
#include "persist/journal_parts.h"
#include "persist/segment.h"

#include <stdio.h>

enum { LOW_FILE = 1 << 16 };

void pe_journal_path_text(const pe_journal *j, const char *name, char *out, size_t room)
{
    snprintf(out, room, "%s/%s", j->dir, name);
}

static peri_status copy_dir(pe_journal *j, const char *dir)
{
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/')
        n--;
    if (n == 0 || n > 3800)
        return pe_fail(PERI_ERR_ARG, "the path has %zu bytes, expected 1 to 3800", n);
    j->dir_room = n + 1;
    j->dir = pe_alloc(j->host, j->dir_room);
    if (!j->dir)
        return PERI_ERR_NOMEM;
    memcpy(j->dir, dir, n);
    j->dir[n] = '\0';
    return PERI_OK;
}

/* A new directory, durable under its name before anything in it is acknowledged. */
static peri_status make_dir(pe_journal *j)
{
    peri_status status = pe_file_make_dir(j->host->files, j->dir);
    if (status == PERI_ERR_EXISTS)
        return PERI_OK;
    PE_TRY(status);
    return pe_file_sync_dir(j->host->files, j->dir);
}

static peri_status new_manifest(pe_journal *j)
{
    memset(&j->manifest, 0, sizeof j->manifest);
    j->is_new = 1;
    j->manifest.next_number = 1;
    PE_TRY(pe_segment_new_uuid(j->manifest.uuid));
    PE_TRY(pe_segment_new_uuid(j->manifest.history));
    memcpy(j->uuid, j->manifest.uuid, 16);
    memcpy(j->history, j->manifest.history, 16);
    return PERI_OK;
}

static peri_status read_manifest(pe_journal *j)
{
    char path[4096];
    pe_journal_path_text(j, "MANIFEST", path, sizeof path);
    peri_status status = pe_manifest_load(&j->manifest, j->host, path);
    if (status == PERI_OK) {
        memcpy(j->uuid, j->manifest.uuid, 16);
        memcpy(j->history, j->manifest.history, 16);
    }
    if (status != PERI_ERR_NOT_FOUND || j->config.readonly || !j->config.create)
        return status;
    if (j->lock.marked)
        return pe_fail(PERI_ERR_CORRUPT, "%s: is gone, though there once was one", path);
    return new_manifest(j);
}

peri_status pe_journal_open(pe_journal **out, pe_host *host, pe_epoch *epoch,
                            const pe_journal_config *config)
{
    *out = NULL;
    pe_journal *j = pe_calloc(host, sizeof *j);
    if (!j)
        return PERI_ERR_NOMEM;
    j->host = host;
    j->epoch = epoch;
    j->config = *config;
    if (j->config.file_size < LOW_FILE)
        j->config.file_size = LOW_FILE;
    pthread_mutex_init(&j->sync_lock, NULL);
    pthread_cond_init(&j->sync_done, NULL);
    char path[4096];
    peri_status status = copy_dir(j, config->dir);
    if (status == PERI_OK && !config->readonly && config->create)
        status = make_dir(j);
    if (status == PERI_OK && !config->readonly) {
        pe_journal_path_text(j, "LOCK", path, sizeof path);
        status = pe_lock_take(&j->lock, host, path);
    }
    if (status == PERI_OK)
        status = read_manifest(j);
    if (status != PERI_OK) {
        pe_journal_close(j, 0);
        return status;
    }
    *out = j;
    return PERI_OK;
}

peri_status pe_journal_start_writer(pe_journal *j)
{
    pe_jbuf *b = pe_alloc(j->host, sizeof *b);
    if (!b)
        return PERI_ERR_NOMEM;
    pe_jfile *f = pe_journal_active(j);
    b->journal = j;
    b->next_spare = NULL;
    atomic_init(&b->file, f);
    atomic_init(&b->start, atomic_load(&f->written));
    atomic_store(&j->buffer, b);
    if (j->config.durability == PE_DURABLE_INTERVAL)
        return pe_ticker_start(&j->ticker, j->config.interval_ms ? j->config.interval_ms : 1000,
                               pe_journal_background, j);
    return PERI_OK;
}

void pe_journal_finish(pe_journal *j)
{
    int led;
    if (!atomic_load(&j->buffer))
        return;
    if (pe_journal_flush(j) == PERI_OK && j->config.durability >= PE_DURABLE_INTERVAL &&
        pe_journal_wait(j, atomic_load(&j->written), &led) == PERI_OK) {
        pe_journal_mark(j);
        /* What is durable now is told twice: a file cut off at the end of a record looks whole. */
        if (atomic_load(&j->synced) > j->manifest.synced)
            (void)pe_journal_commit(j, j->manifest.owner, 0, NULL, 0);
    }
}

/* Nobody is inside any more. */
static void free_dropped(pe_journal *j)
{
    while (j->n_dropped)
        pe_journal_free_file(NULL, j->dropped[--j->n_dropped], (uint64_t)(uintptr_t)j->host);
}

void pe_journal_retire_dropped(pe_journal *j)
{
    while (j->n_dropped)
        pe_epoch_retire(j->epoch, pe_journal_free_file, j->dropped[--j->n_dropped],
                        (uint64_t)(uintptr_t)j->host);
}

void pe_journal_close(pe_journal *j, int forked)
{
    if (!j)
        return;
    pe_host *host = j->host;
    pe_ticker_stop(&j->ticker, forked);
    for (size_t i = 0; i < j->n_files; i++)
        pe_journal_free_file(NULL, j->files[i], (uint64_t)(uintptr_t)host);
    free_dropped(j);
    pe_free(host, j->dropped, j->dropped_room * sizeof *j->dropped);
    pe_free(host, j->files, j->files_room * sizeof *j->files);
    pe_free(host, atomic_load(&j->buffer), sizeof(pe_jbuf));
    while (j->spare) {
        pe_jbuf *b = j->spare;
        j->spare = b->next_spare;
        pe_free(host, b, sizeof *b);
    }
    pe_free(host, j->big, j->big_size);
    pe_manifest_free(&j->manifest, host);
    pe_lock_release(&j->lock, forked);
    pe_free(host, j->dir, j->dir_room);
    if (!forked) {
        pthread_cond_destroy(&j->sync_done);
        pthread_mutex_destroy(&j->sync_lock);
    }
    pe_free(host, j, sizeof *j);
}

/* ---- the buffer ---- */

static void spare_buffer(void *owner, void *ptr, uint64_t arg)
{
    (void)owner;
    (void)arg;
    pe_jbuf *b = ptr;
    b->next_spare = b->journal->spare;
    b->journal->spare = b;
}

/* A buffer that readers may be looking at is not written over: another takes its place. */
static peri_status reserve_swap(pe_journal *j)
{
    if (!j->exposed)
        return PERI_OK;
    pe_epoch_reclaim(j->epoch);
    PE_TRY(pe_epoch_reserve(j->epoch, 1));
    if (j->spare)
        return PERI_OK;
    pe_jbuf *b = pe_alloc(j->host, sizeof *b);
    if (!b)
        return PERI_ERR_NOMEM;
    b->journal = j;
    b->next_spare = NULL;
    j->spare = b;
    return PERI_OK;
}

static void empty_buffer(pe_journal *j, pe_jfile *file, uint64_t start)
{
    pe_jbuf *b = atomic_load_explicit(&j->buffer, memory_order_relaxed);
    if (j->exposed) {
        pe_jbuf *fresh = j->spare;
        j->spare = fresh->next_spare;
        atomic_store_explicit(&fresh->file, file, memory_order_relaxed);
        atomic_store_explicit(&fresh->start, start, memory_order_release);
        atomic_store_explicit(&j->buffer, fresh, memory_order_release);
        pe_epoch_retire(j->epoch, spare_buffer, b, 0);
    } else {
        atomic_store_explicit(&b->file, file, memory_order_relaxed);
        atomic_store_explicit(&b->start, start, memory_order_release);
    }
    j->fill = 0;
    j->exposed = 0;
}

static uint64_t end_of(const pe_journal *j)
{
    pe_jbuf *b = atomic_load_explicit(&((pe_journal *)(uintptr_t)j)->buffer, memory_order_relaxed);
    return atomic_load_explicit(&b->start, memory_order_relaxed) + j->fill;
}

/* Write `fill` bytes of the buffer, which hold all records up to `last`. */
static peri_status write_buffer(pe_journal *j, size_t fill, uint64_t last)
{
    pe_jfile *f = pe_journal_active(j);
    pe_jbuf *b = atomic_load_explicit(&j->buffer, memory_order_relaxed);
    uint64_t start = atomic_load_explicit(&b->start, memory_order_relaxed);
    PE_TRY(reserve_swap(j));
    PE_TRY(pe_file_write(&f->file, b->data, fill, start));
    atomic_store_explicit(&f->written, start + fill, memory_order_release);
    atomic_store_explicit(&j->written, last, memory_order_release);
    empty_buffer(j, f, start + fill);
    return PERI_OK;
}

peri_status pe_journal_flush(pe_journal *j)
{
    return j->fill ? write_buffer(j, j->fill, j->next_sequence - 1) : PERI_OK;
}

/* ---- appending ---- */

peri_status pe_journal_reserve(pe_journal *j, uint64_t size, unsigned char **payload,
                               uint64_t *offset, pe_jfile **file)
{
    if (atomic_load_explicit(&j->poisoned, memory_order_relaxed))
        return pe_journal_poison(j, PERI_OK);
    if (size > PE_JOURNAL_MAX)
        return pe_fail(PERI_ERR_FULL, "a batch of %llu bytes, at most %d fit",
                       (unsigned long long)size, PE_JOURNAL_MAX);
    uint64_t extent = pe_journal_extent(size);
    /* Room for a marker behind it, always. */
    if (end_of(j) + extent + PE_JOURNAL_RECORD > pe_journal_active(j)->map_size)
        PE_TRY(pe_journal_rotate(j, extent));
    pe_jfile *f = pe_journal_active(j);
    PE_TRY(pe_jfile_allocate(j, f, end_of(j) + extent + PE_JOURNAL_RECORD));
    if (j->big) {
        pe_free(j->host, j->big, j->big_size);
        j->big = NULL;
    }
    if (extent > PE_JOURNAL_BUFFER - j->fill)
        PE_TRY(pe_journal_flush(j));
    pe_jbuf *b = atomic_load_explicit(&j->buffer, memory_order_relaxed);
    unsigned char *at = b->data + j->fill;
    if (extent > PE_JOURNAL_BUFFER) {
        j->big_size = (size_t)extent;
        j->big = at = pe_alloc(j->host, j->big_size);
        if (!at)
            return PERI_ERR_NOMEM;
    }
    *payload = at + PE_JOURNAL_RECORD;
    *offset = end_of(j) + PE_JOURNAL_RECORD;
    *file = f;
    return PERI_OK;
}

static peri_status append_big(pe_journal *j, uint64_t extent)
{
    pe_jfile *f = pe_journal_active(j);
    uint64_t start = end_of(j);
    PE_TRY(reserve_swap(j));
    PE_TRY(pe_file_write(&f->file, j->big, (size_t)extent, start));
    atomic_store_explicit(&f->written, start + extent, memory_order_release);
    atomic_store_explicit(&j->written, j->next_sequence, memory_order_release);
    empty_buffer(j, f, start + extent);
    return PERI_OK;
}

peri_status pe_journal_append(pe_journal *j, uint64_t size, int durability, uint64_t *sequence)
{
    pe_jbuf *b = atomic_load_explicit(&j->buffer, memory_order_relaxed);
    uint64_t extent = pe_journal_extent(size);
    unsigned char *at = j->big ? j->big : b->data + j->fill;
    /* The padding is part of what the checksum covers. */
    memset(at + PE_JOURNAL_RECORD + size, 0, (size_t)(extent - PE_JOURNAL_RECORD - size));
    pe_jheader h = {PE_JOURNAL_BATCH, (uint32_t)size, j->next_sequence,
                    atomic_load_explicit(&j->synced, memory_order_acquire), 0};
    pe_journal_put_header(at, pe_journal_active(j)->seed, end_of(j), &h);
    if (j->big) {
        PE_TRY(append_big(j, extent));
        pe_free(j->host, j->big, j->big_size);
        j->big = NULL;
    } else if (durability == PE_DURABLE_MEMORY) {
        j->fill += (size_t)extent;
        j->exposed = 1;
    } else {
        PE_TRY(write_buffer(j, j->fill + (size_t)extent, j->next_sequence));
    }
    *sequence = j->next_sequence++;
    return PERI_OK;
}

void pe_journal_mark(pe_journal *j)
{
    unsigned char b[PE_JOURNAL_RECORD];
    uint64_t synced = atomic_load_explicit(&j->synced, memory_order_acquire);
    if (j->fill || synced + 1 != j->next_sequence || synced == 0)
        return; /* the next record will say it */
    pe_jfile *f = pe_journal_active(j);
    pe_jheader h = {PE_JOURNAL_SYNCED, 0, synced, synced, 0};
    pe_journal_put_header(b, f->seed, end_of(j), &h);
    if (pe_jfile_allocate(j, f, end_of(j) + sizeof b) == PERI_OK)
        (void)pe_file_write(&f->file, b, sizeof b, end_of(j));
}

/* ---- the set of files ---- */

uint64_t pe_journal_new_number(pe_journal *j)
{
    return j->manifest.next_number++;
}

peri_status pe_journal_save_manifest(pe_journal *j, pe_manifest *next)
{
    char path[4096];
    int renamed;
    pe_journal_path_text(j, "MANIFEST", path, sizeof path);
    peri_status status = pe_manifest_save(next, j->host, path, &renamed);
    if (status != PERI_OK) {
        if (renamed)
            pe_journal_poison(j, status);
        return status;
    }
    pe_manifest former = j->manifest;
    j->manifest = *next;
    memset(next, 0, sizeof *next);
    pe_manifest_free(&former, j->host);
    j->is_new = 0;
    pe_lock_mark(&j->lock);
    return PERI_OK;
}

/* The new file is in the manifest before it takes a record; the old one need not be durable yet,
 * since recovery reads on from file to file until the first record that is missing. */
peri_status pe_journal_rotate(pe_journal *j, uint64_t size)
{
    pe_manifest next;
    pe_jfile *f, *old = pe_journal_active(j);
    uint64_t last = j->next_sequence - 1, room = size + PE_JOURNAL_HEADER + PE_JOURNAL_RECORD;
    int led;
    PE_TRY(pe_journal_flush(j));
    pthread_mutex_lock(&j->sync_lock);
    int full = j->n_unsynced == PE_JOURNAL_UNSYNCED;
    pthread_mutex_unlock(&j->sync_lock);
    if (full)
        PE_TRY(pe_journal_wait(j, last, &led));
    PE_TRY(reserve_swap(j));
    PE_TRY(pe_grow(j->host, &j->files, &j->files_room, j->n_files + 1, sizeof *j->files));
    PE_TRY(pe_manifest_copy(&next, j->host, &j->manifest));
    uint64_t number = next.next_number++;
    peri_status status = pe_jfile_create(&f, j, number, last + 1,
                                         room > j->config.file_size ? room : j->config.file_size);
    if (status == PERI_OK) {
        pe_manifest_file *e = &next.files[next.n_files - 1];
        e->flags |= PE_MANIFEST_SEALED;
        e->length = atomic_load(&old->written);
        e->last = last;
        next.files[next.n_files++] = (pe_manifest_file){number, last + 1, last, 0, 0};
        next.n_gone = 0;
        next.synced = atomic_load(&j->synced);
        status = pe_journal_save_manifest(j, &next);
        if (status != PERI_OK) {
            /* Its name stays if the new manifest may stand. */
            if (!atomic_load(&j->poisoned))
                pe_file_unlink(j->host->files, f->path);
            pe_jfile_free(f, j->host);
        }
    }
    if (status != PERI_OK) {
        pe_manifest_free(&next, j->host);
        return status;
    }
    old->sealed = 1;
    j->files[j->n_files++] = f;
    j->files_version++;
    pthread_mutex_lock(&j->sync_lock);
    j->unsynced[j->n_unsynced++] = f;
    pthread_mutex_unlock(&j->sync_lock);
    empty_buffer(j, f, PE_JOURNAL_HEADER);
    return PERI_OK;
}

void pe_journal_remove_gone(pe_journal *j)
{
    static const char *const extensions[] = {"pej", "peb", "peh"};
    for (size_t i = 0; i < j->manifest.n_gone; i++)
        for (size_t e = 0; e < 3; e++) {
            char *path;
            size_t room;
            if (pe_journal_path(j, j->manifest.gone[i], extensions[e], &path, &room) != PERI_OK)
                return; /* a later open tries again */
            pe_file_unlink(j->host->files, path);
            pe_free(j->host, path, room);
        }
}

static peri_status commit_manifest(pe_journal *j, const uint64_t owner[PE_MANIFEST_OWNER],
                                   size_t n_drop, const uint64_t *gone, size_t n_gone)
{
    pe_manifest next;
    PE_TRY(pe_manifest_copy(&next, j->host, &j->manifest));
    peri_status status =
        pe_grow(j->host, &next.gone, &next.gone_room, n_drop + n_gone + 1, sizeof *next.gone);
    if (status == PERI_OK) {
        memcpy(next.owner, owner, sizeof next.owner);
        next.n_gone = 0;
        for (size_t i = 0; i < n_drop; i++)
            next.gone[next.n_gone++] = next.files[i].number;
        for (size_t i = 0; i < n_gone; i++)
            next.gone[next.n_gone++] = gone[i];
        next.n_files -= n_drop;
        memmove(next.files, next.files + n_drop, next.n_files * sizeof *next.files);
        next.synced = atomic_load(&j->synced);
        status = pe_journal_save_manifest(j, &next);
    }
    if (status != PERI_OK)
        pe_manifest_free(&next, j->host);
    return status;
}

peri_status pe_journal_commit(pe_journal *j, const uint64_t owner[PE_MANIFEST_OWNER],
                              uint64_t keep_from, const uint64_t *gone, size_t n_gone)
{
    size_t n_drop = 0;
    while (n_drop + 1 < j->n_files && j->files[n_drop]->number < keep_from)
        n_drop++;
    PE_TRY(
        pe_grow(j->host, &j->dropped, &j->dropped_room, j->n_dropped + n_drop, sizeof *j->dropped));
    PE_TRY(commit_manifest(j, owner, n_drop, gone, n_gone));
    pthread_mutex_lock(&j->sync_lock);
    while (j->syncing) /* it may hold one of the files */
        pthread_cond_wait(&j->sync_done, &j->sync_lock);
    for (size_t i = 0; i < n_drop; i++)
        for (size_t u = 0; u < j->n_unsynced; u++)
            if (j->unsynced[u] == j->files[i])
                j->unsynced[u--] = j->unsynced[--j->n_unsynced];
    pthread_mutex_unlock(&j->sync_lock);
    for (size_t i = 0; i < n_drop; i++)
        j->dropped[j->n_dropped++] = j->files[i];
    j->n_files -= n_drop;
    memmove(j->files, j->files + n_drop, j->n_files * sizeof *j->files);
    j->files_version += n_drop != 0;
    pe_journal_remove_gone(j);
    return PERI_OK;
}
