/* Group commit: whoever finds no fsync under way makes one for all that has been written by then;
 * the others wait for it, and the first of those it did not cover makes the next. No timer: with
 * 16 writers each fsync covers what the others wrote while the former one ran. */
#include "persist/journal_parts.h"

peri_status pe_journal_poison(pe_journal *j, peri_status status)
{
    if (status != PERI_OK) {
        atomic_store(&j->poisoned, 1);
        return status;
    }
    return pe_fail(PERI_ERR_POISONED,
                   "%s: an fsync failed earlier; records up to %llu are durable, open it anew",
                   j->dir, (unsigned long long)atomic_load(&j->synced));
}

/* The files are all there when `target` is read: a file enters the list before its first record is
 * written. */
static peri_status sync_files(pe_journal *j, pe_jfile *const *files, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        atomic_fetch_add(&j->n_syncs, 1);
        PE_TRY(pe_file_datasync(&files[i]->file));
    }
    return PERI_OK;
}

/* Files before the last are full: once durable they are never written to again. */
static void forget_sealed(pe_journal *j, pe_jfile *const *files, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++)
        for (size_t u = 0; u < j->n_unsynced; u++)
            if (j->unsynced[u] == files[i]) {
                memmove(j->unsynced + u, j->unsynced + u + 1,
                        (--j->n_unsynced - u) * sizeof *j->unsynced);
                pe_file_close(&files[i]->file);
                break;
            }
}

static peri_status lead(pe_journal *j)
{
    pe_jfile *files[PE_JOURNAL_UNSYNCED];
    uint64_t target = atomic_load_explicit(&j->written, memory_order_acquire);
    size_t n = j->n_unsynced;
    memcpy(files, j->unsynced, n * sizeof *files);
    j->syncing = 1;
    pthread_mutex_unlock(&j->sync_lock);
    peri_status status = sync_files(j, files, n);
    pthread_mutex_lock(&j->sync_lock);
    j->syncing = 0;
    if (status == PERI_OK) {
        if (target > atomic_load(&j->synced))
            atomic_store_explicit(&j->synced, target, memory_order_release);
        forget_sealed(j, files, n);
    } else {
        pe_journal_poison(j, status);
    }
    pthread_cond_broadcast(&j->sync_done);
    return status;
}

peri_status pe_journal_wait(pe_journal *j, uint64_t sequence, int *led)
{
    peri_status status = PERI_OK;
    *led = 0;
    if (atomic_load_explicit(&j->synced, memory_order_acquire) >= sequence)
        return PERI_OK;
    pthread_mutex_lock(&j->sync_lock);
    while (atomic_load(&j->synced) < sequence && status == PERI_OK) {
        if (atomic_load(&j->poisoned)) {
            status = pe_journal_poison(j, PERI_OK);
        } else if (j->syncing) {
            pthread_cond_wait(&j->sync_done, &j->sync_lock);
        } else {
            *led = 1;
            status = lead(j);
        }
    }
    pthread_mutex_unlock(&j->sync_lock);
    return status;
}

void pe_journal_background(void *journal)
{
    pe_journal *j = journal;
    int led;
    /* A failure poisons the journal; the next write says so. */
    (void)pe_journal_wait(j, atomic_load_explicit(&j->written, memory_order_acquire), &led);
}
