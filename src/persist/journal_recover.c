/* What a journal's files hold after whatever happened: the valid prefix, and a verdict on what
 * follows it. A record that is missing although something says that it was durable is damage and
 * is refused; all else behind the prefix is a torn tail and is left where it lies. */
#define _GNU_SOURCE
#include "persist/journal_format.h"
#include "persist/journal_parts.h"
#include "persist/segment.h"

#include <stdio.h>

typedef struct walk {
    pe_journal *j;
    pe_journal_apply apply;
    void *ctx;
    uint64_t last;   /* sequence that the prefix ends with */
    size_t at_file;  /* where it ends */
    uint64_t at;     /* and at which byte */
    uint64_t marked; /* highest watermark seen anywhere */
    uint64_t torn;   /* bytes behind the prefix that hold something */
} walk;

/* What may be looked at of a file: no more than there is. */
static peri_status readable(pe_journal *j, size_t i, uint64_t *limit)
{
    pe_jfile *f = j->files[i];
    if (f->sealed) {
        *limit = j->manifest.files[i].length;
        return PERI_OK;
    }
    PE_TRY(pe_file_size(&f->file, limit));
    if (*limit > f->map_size)
        *limit = f->map_size;
    return PERI_OK;
}

static peri_status walk_files(walk *w, const pe_journal_place *from)
{
    pe_journal *j = w->j;
    for (size_t i = 0; i < j->n_files; i++) {
        pe_jfile *f = j->files[i];
        const pe_manifest_file *e = &j->manifest.files[i];
        uint64_t limit, offset = PE_JOURNAL_HEADER, sequence = f->first;
        PE_TRY(readable(j, i, &limit));
        if (f->number < from->number && f->sealed) {
            w->last = e->last;
            continue;
        }
        if (f->number == from->number) {
            offset = from->offset;
            sequence = from->sequence + 1;
            if (offset < PE_JOURNAL_HEADER || offset > limit || offset % 8 || sequence < f->first)
                return pe_fail(PERI_ERR_CORRUPT, "%s: recovery cannot begin at byte %llu", f->path,
                               (unsigned long long)offset);
            atomic_store_explicit(&f->written, offset, memory_order_release);
        }
        PE_TRY(pe_journal_scan(f, offset, sequence, limit, w->apply, w->ctx, &w->at, &w->last,
                               &w->marked));
        w->at_file = i;
        if (f->sealed && (w->at != limit || w->last != e->last))
            break;
    }
    return PERI_OK;
}

/* Everything behind the prefix: what is not zero is torn; what still has a good header tells what
 * was durable when it was written. Headers stand at multiples of 8. */
static peri_status walk_rest(walk *w)
{
    pe_journal *j = w->j;
    for (size_t i = w->at_file; i < j->n_files; i++) {
        pe_jfile *f = j->files[i];
        uint64_t limit, from = i == w->at_file ? w->at : PE_JOURNAL_HEADER, end = from;
        PE_TRY(readable(j, i, &limit));
        for (uint64_t at = from; at + 8 <= limit; at += 8) {
            pe_jheader h;
            if (pe_get_le64(f->map + at) == 0)
                continue;
            if (limit - at >= PE_JOURNAL_RECORD &&
                pe_journal_get_header(f->map + at, f->seed, at, &h)) {
                if (h.synced > w->marked)
                    w->marked = h.synced;
                /* The marker at the very end of the prefix is no debris. */
                if (at == from && h.type == PE_JOURNAL_SYNCED && h.sequence == w->last) {
                    at += PE_JOURNAL_RECORD - 8;
                    continue;
                }
            }
            end = at + 8;
        }
        w->torn += end - from;
    }
    return PERI_OK;
}

static peri_status judge(walk *w)
{
    pe_journal *j = w->j;
    uint64_t durable = w->marked > j->manifest.synced ? w->marked : j->manifest.synced;
    for (size_t i = 0; i < j->n_files; i++)
        if (j->manifest.files[i].flags & PE_MANIFEST_SYNCED && j->manifest.files[i].last > durable)
            durable = j->manifest.files[i].last;
    j->report = (pe_journal_report){.last = w->last, .torn_bytes = w->torn};
    if (durable <= w->last)
        return PERI_OK;
    j->report.lost_from = w->last + 1;
    j->report.lost_to = durable;
    if (j->config.accept_loss)
        return PERI_OK;
    return pe_fail(PERI_ERR_CORRUPT,
                   "%s: damaged at byte %llu: sequences %llu to %llu were durable and are lost "
                   "there; repair with loss accepted keeps what comes before",
                   j->files[w->at_file]->path, (unsigned long long)w->at,
                   (unsigned long long)j->report.lost_from, (unsigned long long)j->report.lost_to);
}

/* ---- a writer goes on ---- */

/* The prefix becomes durable before anything is built on it. */
static peri_status sync_prefix(walk *w)
{
    pe_journal *j = w->j;
    if (w->last > j->manifest.synced)
        for (size_t i = 0; i <= w->at_file && i < j->n_files; i++)
            if (!(j->manifest.files[i].flags & PE_MANIFEST_SYNCED))
                PE_TRY(pe_file_datasync(&j->files[i]->file));
    return PERI_OK;
}

/* Seal the file that the prefix ends in, drop those behind it, begin a new one. */
static peri_status start_behind(walk *w)
{
    pe_journal *j = w->j;
    pe_manifest next;
    pe_jfile *f;
    PE_TRY(pe_grow(j->host, &j->files, &j->files_room, j->n_files + 1, sizeof *j->files));
    PE_TRY(pe_manifest_copy(&next, j->host, &j->manifest));
    uint64_t number = next.next_number++;
    size_t n_keep = j->n_files ? w->at_file + 1 : 0;
    peri_status status =
        pe_grow(j->host, &next.gone, &next.gone_room, j->n_files + 1, sizeof *next.gone);
    if (status == PERI_OK)
        status = pe_jfile_create(&f, j, number, w->last + 1, j->config.file_size);
    if (status != PERI_OK) {
        pe_manifest_free(&next, j->host);
        return status;
    }
    next.n_gone = 0;
    for (size_t i = n_keep; i < j->n_files; i++)
        next.gone[next.n_gone++] = next.files[i].number;
    next.n_files = n_keep;
    for (size_t i = 0; i < n_keep; i++)
        next.files[i].flags |= PE_MANIFEST_SEALED | PE_MANIFEST_SYNCED;
    if (n_keep) {
        next.files[n_keep - 1].length = w->at;
        next.files[n_keep - 1].last = w->last;
    }
    next.files[next.n_files++] = (pe_manifest_file){number, w->last + 1, w->last, 0, 0};
    next.synced = w->last;
    if (j->report.lost_from)
        status = pe_segment_new_uuid(next.history);
    if (status == PERI_OK)
        status = pe_journal_save_manifest(j, &next);
    if (status != PERI_OK) {
        if (!atomic_load(&j->poisoned))
            pe_file_unlink(j->host->files, f->path);
        pe_jfile_free(f, j->host);
        pe_manifest_free(&next, j->host);
        return status;
    }
    while (j->n_files > n_keep)
        pe_jfile_free(j->files[--j->n_files], j->host);
    for (size_t i = 0; i < j->n_files; i++) {
        j->files[i]->sealed = 1;
        pe_file_close(&j->files[i]->file);
    }
    memcpy(j->history, j->manifest.history, 16);
    j->files[j->n_files++] = f;
    pe_journal_remove_gone(j);
    return PERI_OK;
}

static peri_status resume_writing(walk *w)
{
    pe_journal *j = w->j;
    int clean = j->n_files > 0 && w->at_file + 1 == j->n_files && w->torn == 0 &&
                j->report.lost_from == 0 &&
                w->at + PE_JOURNAL_RECORD <= pe_journal_active(j)->map_size;
    PE_TRY(sync_prefix(w));
    if (clean) {
        pe_journal_remove_gone(j); /* left by a process that died before it could */
        /* Full files before the last are durable now. */
        for (size_t i = 0; i + 1 < j->n_files; i++)
            pe_file_close(&j->files[i]->file);
    } else {
        PE_TRY(start_behind(w));
    }
    j->unsynced[j->n_unsynced++] = pe_journal_active(j);
    j->next_sequence = w->last + 1;
    atomic_store(&j->written, w->last);
    atomic_store(&j->synced, w->last);
    return pe_journal_start_writer(j);
}

static peri_status open_files(pe_journal *j)
{
    PE_TRY(pe_grow(j->host, &j->files, &j->files_room, j->manifest.n_files + 1, sizeof *j->files));
    for (size_t i = 0; i < j->manifest.n_files; i++) {
        PE_TRY(pe_jfile_open(&j->files[i], j, &j->manifest.files[i]));
        j->n_files++;
    }
    return PERI_OK;
}

peri_status pe_journal_recover(pe_journal *j, const pe_journal_place *from, pe_journal_apply apply,
                               void *ctx)
{
    walk w = {.j = j, .apply = apply, .ctx = ctx, .last = from->sequence};
    PE_TRY(open_files(j));
    if (j->n_files == 0)
        return j->is_new ? resume_writing(&w)
                         : pe_fail(PERI_ERR_CORRUPT, "%s: the manifest lists no file", j->dir);
    PE_TRY(walk_files(&w, from));
    PE_TRY(walk_rest(&w));
    PE_TRY(judge(&w));
    j->end = (pe_journal_place){j->files[w.at_file]->number, w.at, w.last};
    if (j->config.readonly) {
        j->next_sequence = w.last + 1;
        atomic_store(&j->written, w.last);
        return PERI_OK;
    }
    return resume_writing(&w);
}

/* ---- a reader catches up ---- */

peri_status pe_journal_refresh(pe_journal *j, pe_journal_apply apply, void *ctx)
{
    char path[4096];
    pe_manifest now;
    pe_journal_path_text(j, "MANIFEST", path, sizeof path);
    PE_TRY(pe_manifest_load(&now, j->host, path));
    int same = now.generation == j->manifest.generation;
    pe_manifest_free(&now, j->host);
    if (!same)
        return pe_fail(PERI_ERR_STATE, "%s: its files have changed", j->dir);
    size_t i = j->n_files - 1;
    if (j->files[i]->number != j->end.number)
        return pe_fail(PERI_ERR_STATE, "%s: the prefix ended before its last file", j->dir);
    uint64_t limit, marked = 0;
    PE_TRY(readable(j, i, &limit));
    PE_TRY(pe_journal_scan(j->files[i], j->end.offset, j->end.sequence + 1, limit, apply, ctx,
                           &j->end.offset, &j->end.sequence, &marked));
    j->next_sequence = j->end.sequence + 1;
    atomic_store(&j->written, j->end.sequence);
    return PERI_OK;
}
