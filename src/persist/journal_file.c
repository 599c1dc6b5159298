/* One file of a journal: making it, opening it, walking its records. */
#define _GNU_SOURCE
#include "base/checked.h"
#include "persist/journal_format.h"
#include "persist/journal_parts.h"

#include <fcntl.h>
#include <stdio.h>

/* A file gets blocks in steps that double with it: a small log stays small, a large one is
 * extended rarely. */
enum { STEP_LOW = 1 << 16, STEP_HIGH = 8 << 20, ZEROS = 1 << 16 };

peri_status pe_journal_path(const pe_journal *j, uint64_t number, const char *extension,
                            char **path, size_t *room)
{
    *room = strlen(j->dir) + 32;
    *path = pe_alloc(j->host, *room);
    if (!*path)
        return PERI_ERR_NOMEM;
    snprintf(*path, *room, "%s/%016llx.%s", j->dir, (unsigned long long)number, extension);
    return PERI_OK;
}

void pe_jfile_free(pe_jfile *f, pe_host *host)
{
    if (!f)
        return;
    if (f->map)
        pe_file_unmap(host->files, (void *)(uintptr_t)f->map, f->map_size);
    if (f->file.fd >= 0)
        pe_file_close(&f->file);
    pe_free(host, f->verified, f->n_verified * sizeof *f->verified);
    pe_free(host, f->path, f->path_room);
    pe_free(host, f, sizeof *f);
}

void pe_journal_free_file(void *owner, void *file, uint64_t host)
{
    (void)owner;
    pe_jfile *f = file;
    if (atomic_fetch_sub_explicit(&f->pins, 1, memory_order_acq_rel) == 1)
        pe_jfile_free(f, (pe_host *)(uintptr_t)host);
}

static peri_status new_file(pe_jfile **out, pe_journal *j, uint64_t number, uint64_t first)
{
    pe_jfile *f = pe_calloc(j->host, sizeof *f);
    if (!f)
        return PERI_ERR_NOMEM;
    f->file.fd = -1;
    f->number = number;
    f->first = first;
    atomic_init(&f->pins, 1);
    f->seed = pe_journal_file_seed(j->uuid, number);
    peri_status status = pe_journal_path(j, number, "pej", &f->path, &f->path_room);
    if (status != PERI_OK) {
        pe_jfile_free(f, j->host);
        return status;
    }
    *out = f;
    return PERI_OK;
}

static peri_status map_file(pe_jfile *f, pe_journal *j, uint64_t size)
{
    void *map = NULL;
    f->n_verified = (size_t)(size >> 16) / 64 + 1;
    f->verified = pe_calloc(j->host, f->n_verified * sizeof *f->verified);
    if (!f->verified)
        return PERI_ERR_NOMEM;
    f->map_size = pe_round_up((size_t)size, 4096);
    PE_TRY(pe_file_map_shared(&f->file, f->map_size, &map));
    f->map = map;
    return PERI_OK;
}

/* From PE_DURABLE_INTERVAL on the new blocks are written as zeros: blocks that were only allocated
 * are "unwritten", and turning them into written ones costs the file system a commit of its own
 * metadata in each fdatasync. */
peri_status pe_jfile_allocate(pe_journal *j, pe_jfile *f, uint64_t end)
{
    if (end <= f->allocated)
        return PERI_OK;
    uint64_t step = f->allocated < STEP_LOW ? STEP_LOW : f->allocated;
    step = step > STEP_HIGH ? STEP_HIGH : step;
    uint64_t to = (f->allocated + step > end ? f->allocated + step : end + 4095) & ~4095ull;
    if (to > f->map_size)
        to = f->map_size;
    PE_TRY(pe_file_allocate(&f->file, f->allocated, to - f->allocated));
    if (j->config.durability >= PE_DURABLE_INTERVAL) {
        unsigned char *zeros = pe_calloc(j->host, ZEROS);
        if (!zeros)
            return PERI_ERR_NOMEM;
        peri_status status = PERI_OK;
        for (uint64_t at = f->allocated; at < to && status == PERI_OK; at += ZEROS)
            status =
                pe_file_write(&f->file, zeros, to - at < ZEROS ? (size_t)(to - at) : ZEROS, at);
        pe_free(j->host, zeros, ZEROS);
        PE_TRY(status);
    }
    f->allocated = to;
    return PERI_OK;
}

static void build_header(const pe_jfile *f, const uint8_t uuid[16],
                         unsigned char h[PE_JOURNAL_HEADER])
{
    memset(h, 0, PE_JOURNAL_HEADER);
    memcpy(h, PE_JOURNAL_MAGIC, 8);
    pe_put_le32(h + 8, PE_SEGMENT_ORDER);
    pe_put_le16(h + 12, PE_JOURNAL_MAJOR);
    pe_put_le16(h + 14, PE_JOURNAL_MINOR);
    memcpy(h + 16, uuid, 16);
    pe_put_le64(h + 32, f->number);
    pe_put_le64(h + 40, f->first);
    pe_put_le64(h + 56, pe_segment_hash(h, 56, 0));
}

peri_status pe_jfile_create(pe_jfile **out, pe_journal *j, uint64_t number, uint64_t first,
                            uint64_t map_size)
{
    pe_jfile *f;
    unsigned char header[PE_JOURNAL_HEADER];
    PE_TRY(new_file(&f, j, number, first));
    /* Left behind by a process that died before a manifest named it. */
    pe_file_unlink(j->host->files, f->path);
    peri_status status = pe_file_open(&f->file, j->host->files, f->path, O_RDWR | O_CREAT | O_EXCL);
    int made = status == PERI_OK;
    if (status == PERI_OK)
        status = map_file(f, j, map_size);
    build_header(f, j->uuid, header);
    if (status == PERI_OK)
        status = pe_jfile_allocate(j, f, PE_JOURNAL_HEADER);
    if (status == PERI_OK)
        status = pe_file_write(&f->file, header, sizeof header, 0);
    if (status == PERI_OK)
        status = pe_file_sync(&f->file);
    if (status == PERI_OK)
        status = pe_file_sync_dir(j->host->files, f->path);
    if (status != PERI_OK) {
        if (made)
            pe_file_unlink(j->host->files, f->path);
        pe_jfile_free(f, j->host);
        return status;
    }
    atomic_store_explicit(&f->written, PE_JOURNAL_HEADER, memory_order_release);
    *out = f;
    return PERI_OK;
}

static peri_status check_header(const pe_jfile *f, const pe_manifest_file *entry,
                                const unsigned char *h, const uint8_t uuid[16])
{
    unsigned char want[PE_JOURNAL_HEADER];
    if (memcmp(h, PE_JOURNAL_MAGIC, 8) != 0)
        return pe_fail(PERI_ERR_FORMAT, "%s: not a journal file", f->path);
    if (pe_segment_hash(h, 56, 0) != pe_get_le64(h + 56))
        return pe_fail(PERI_ERR_CORRUPT, "%s: at byte 0: the header's checksum fails", f->path);
    if (pe_get_le16(h + 12) != PE_JOURNAL_MAJOR)
        return pe_fail(PERI_ERR_VERSION, "%s: journal format %u, this library reads %d", f->path,
                       pe_get_le16(h + 12), PE_JOURNAL_MAJOR);
    build_header(f, uuid, want);
    if (memcmp(h + 16, want + 16, 16) != 0 || pe_get_le64(h + 32) != entry->number ||
        pe_get_le64(h + 40) != entry->first)
        return pe_fail(PERI_ERR_CORRUPT, "%s: this file belongs elsewhere", f->path);
    return PERI_OK;
}

peri_status pe_jfile_open(pe_jfile **out, pe_journal *j, const pe_manifest_file *entry)
{
    pe_jfile *f;
    uint64_t size = 0;
    unsigned char header[PE_JOURNAL_HEADER];
    int writer = !j->config.readonly;
    f = NULL;
    PE_TRY(new_file(&f, j, entry->number, entry->first));
    f->sealed = (entry->flags & PE_MANIFEST_SEALED) != 0;
    peri_status status =
        pe_file_open(&f->file, j->host->files, f->path, writer ? O_RDWR : O_RDONLY);
    if (status == PERI_ERR_NOT_FOUND && writer)
        status = pe_fail(PERI_ERR_CORRUPT, "%s: listed in the manifest, but gone", f->path);
    if (status == PERI_OK)
        status = pe_file_size(&f->file, &size);
    if (status == PERI_OK && size < PE_JOURNAL_HEADER)
        status = pe_fail(PERI_ERR_CORRUPT, "%s: %llu bytes, ends within the header", f->path,
                         (unsigned long long)size);
    if (status == PERI_OK && f->sealed && (entry->length > size || entry->length < 64))
        status = pe_fail(PERI_ERR_CORRUPT, "%s: %llu bytes, the manifest says %llu", f->path,
                         (unsigned long long)size, (unsigned long long)entry->length);
    if (status == PERI_OK)
        status = pe_file_read(&f->file, header, sizeof header, 0);
    if (status == PERI_OK)
        status = check_header(f, entry, header, j->uuid);
    if (status == PERI_OK) {
        uint64_t room = f->sealed ? entry->length : j->config.file_size;
        status = map_file(f, j, room > size || f->sealed ? room : size);
    }
    if (status != PERI_OK) {
        pe_jfile_free(f, j->host);
        return status;
    }
    f->allocated = size;
    atomic_store_explicit(&f->written, f->sealed ? entry->length : PE_JOURNAL_HEADER,
                          memory_order_release);
    *out = f;
    return PERI_OK;
}

peri_status pe_journal_scan(pe_jfile *f, uint64_t offset, uint64_t sequence, uint64_t limit,
                            pe_journal_apply apply, void *ctx, uint64_t *end, uint64_t *last,
                            uint64_t *marked)
{
    *end = offset;
    *last = sequence - 1;
    while (*end <= limit && limit - *end >= PE_JOURNAL_RECORD) {
        const unsigned char *b = f->map + *end;
        pe_jheader h;
        if (!pe_journal_get_header(b, f->seed, *end, &h))
            break;
        if (h.type == PE_JOURNAL_SYNCED) {
            if (h.sequence == *last && h.synced > *marked)
                *marked = h.synced;
            break; /* the end for now: the next record takes its place */
        }
        uint64_t extent = pe_journal_extent(h.size);
        if (h.sequence != *last + 1 || h.size > PE_JOURNAL_MAX || extent > limit - *end ||
            !pe_journal_payload_good(b, f->seed, *end, &h))
            break;
        if (h.synced > *marked)
            *marked = h.synced;
        atomic_store_explicit(&f->written, *end + extent, memory_order_release);
        pe_jrecord r = {b + PE_JOURNAL_RECORD, h.size, h.sequence, f, *end + PE_JOURNAL_RECORD};
        PE_TRY(apply(ctx, &r));
        *last = h.sequence;
        *end += extent;
    }
    return PERI_OK;
}
