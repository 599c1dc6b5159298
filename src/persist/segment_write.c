/* Writing segment files: blocks are hashed as they stream through, the tail and the header follow
 * when all sections are known. */
#define _GNU_SOURCE
#include "base/checked.h"
#include "base/file.h"
#include "persist/segment_format.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

/* Large puts go out in pieces of this size: the kernel then keeps the file in large pages, which
 * a mapped reader faults in faster, and a piece is still in the cache when it is copied. */
enum { PUT_AT_ONCE = 4 << 20 };

struct pe_segw {
    pe_host *host;
    pe_file file;
    char *path, *temp; /* each path_room bytes or temp_room */
    size_t path_room, temp_room;
    pe_segment_id id;
    uint64_t seed;      /* of the file */
    unsigned char *buf; /* the current block, as far as it has come */
    size_t fill;
    uint64_t at; /* where in the file buf will go */
    pe_section sections[PE_SEGMENT_SECTIONS];
    uint32_t n_sections;
    int in_section;
    uint64_t *sums;
    size_t n_sums, sums_room;
    peri_status status; /* the first error; it stays */
};

peri_status pe_segment_new_uuid(uint8_t uuid[16])
{
    if (getrandom(uuid, 16, 0) != 16)
        return pe_fail(PERI_ERR_IO, "the system gave no random bytes for a uuid");
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40);
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
    return PERI_OK;
}

static void free_writer(pe_segw *w)
{
    pe_host *host = w->host;
    pe_free(host, w->sums, w->sums_room * sizeof *w->sums);
    pe_free(host, w->buf, PE_SEGMENT_BLOCK);
    pe_free(host, w->temp, w->temp_room);
    pe_free(host, w->path, w->path_room);
    pe_free(host, w, sizeof *w);
}

/* The name is hidden and its base cut off at 200 bytes, so that a name at the file system's limit
 * can be saved under; O_EXCL and the counter keep writers apart. */
static peri_status create_temp(pe_segw *w)
{
    const char *slash = strrchr(w->path, '/');
    const char *base = slash ? slash + 1 : w->path;
    peri_status status = PERI_OK;
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(w->temp, w->temp_room, "%.*s.%.200s.%ld-%u.tmp", (int)(base - w->path), w->path,
                 base, (long)getpid(), i);
        status = pe_file_open(&w->file, w->host->files, w->temp, O_WRONLY | O_CREAT | O_EXCL);
        if (status != PERI_ERR_EXISTS)
            break;
    }
    return status;
}

peri_status pe_segw_open(pe_segw **out, pe_host *host, const char *path, const pe_segment_id *id)
{
    *out = NULL;
    size_t length = strlen(path);
    if (length == 0 || path[length - 1] == '/')
        return pe_fail(PERI_ERR_ARG, "'%s' names no file", path);
    pe_segw *w = pe_calloc(host, sizeof *w);
    if (!w)
        return PERI_ERR_NOMEM;
    w->host = host;
    w->file.fd = -1;
    w->id = *id;
    w->seed = pe_segment_file_seed(id);
    w->at = PE_SEGMENT_HEADER;
    w->path_room = length + 1;
    w->temp_room = length + 64;
    w->path = pe_alloc(host, w->path_room);
    w->temp = w->path ? pe_alloc(host, w->temp_room) : NULL;
    w->buf = w->temp ? pe_calloc(host, PE_SEGMENT_BLOCK) : NULL;
    if (!w->buf) {
        free_writer(w);
        return PERI_ERR_NOMEM;
    }
    memcpy(w->path, path, w->path_room);
    peri_status status = create_temp(w);
    if (status != PERI_OK) {
        free_writer(w);
        return status;
    }
    *out = w;
    return PERI_OK;
}

static peri_status stick(pe_segw *w, peri_status status)
{
    if (w->status == PERI_OK)
        w->status = status;
    return status;
}

static peri_status write_out(pe_segw *w, const void *data, size_t size)
{
    PE_TRY(stick(w, pe_file_write(&w->file, data, size, w->at)));
    w->at += size;
    return PERI_OK;
}

/* Zeros up to a multiple of align; buf is empty. They are written, not skipped: what the file holds
 * does not hang on how the file system fills holes. */
static peri_status pad(pe_segw *w, size_t align)
{
    size_t gap = (size_t)(-w->at & (align - 1));
    memset(w->buf, 0, gap);
    return gap ? write_out(w, w->buf, gap) : PERI_OK;
}

/* Hash and write whole blocks; the last one of a section may be short. */
static peri_status put_blocks(pe_segw *w, const unsigned char *data, size_t size)
{
    const pe_section *s = &w->sections[w->n_sections - 1];
    size_t n = (size_t)pe_segment_blocks(size);
    PE_TRY(stick(w, pe_grow(w->host, &w->sums, &w->sums_room, w->n_sums + n, sizeof *w->sums)));
    for (size_t done = 0; done < size; done += PE_SEGMENT_BLOCK) {
        size_t part = size - done < PE_SEGMENT_BLOCK ? size - done : PE_SEGMENT_BLOCK;
        uint64_t seed = pe_segment_block_seed(w->seed, s->tag, w->n_sums - s->first_block);
        w->sums[w->n_sums++] = pe_segment_hash(data + done, part, seed);
    }
    return write_out(w, data, size);
}

peri_status pe_segw_begin(pe_segw *w, uint32_t tag, int mapped)
{
    if (w->status != PERI_OK)
        return w->status;
    if (w->in_section || w->n_sections == PE_SEGMENT_SECTIONS)
        return stick(w, pe_fail(PERI_ERR_INTERNAL, "section '%s': %s", pe_tag_name(tag).text,
                                w->in_section ? "one is still open" : "too many in one file"));
    for (uint32_t i = 0; i < w->n_sections; i++)
        if (w->sections[i].tag == tag)
            return stick(w, pe_fail(PERI_ERR_INTERNAL, "section '%s' is written twice",
                                    pe_tag_name(tag).text));
    uint32_t flags = mapped ? PE_SECTION_MAPPED : 0;
    PE_TRY(pad(w, pe_segment_alignment(flags)));
    w->sections[w->n_sections++] =
        (pe_section){.tag = tag, .flags = flags, .offset = w->at, .first_block = w->n_sums};
    w->in_section = 1;
    return PERI_OK;
}

peri_status pe_segw_put(pe_segw *w, const void *data, size_t size)
{
    if (w->status != PERI_OK)
        return w->status;
    if (!w->in_section)
        return stick(w, pe_fail(PERI_ERR_INTERNAL, "bytes outside a section"));
    const unsigned char *from = data;
    w->sections[w->n_sections - 1].size += size;
    while (size > 0) {
        size_t take = w->fill ? PE_SEGMENT_BLOCK - w->fill : PUT_AT_ONCE;
        if (w->fill == 0 && size >= PE_SEGMENT_BLOCK) { /* whole blocks: no copy */
            take = size < take ? size & ~(size_t)(PE_SEGMENT_BLOCK - 1) : take;
            PE_TRY(put_blocks(w, from, take));
        } else {
            take = take < size ? take : size;
            memcpy(w->buf + w->fill, from, take);
            w->fill += take;
            if (w->fill == PE_SEGMENT_BLOCK) {
                w->fill = 0;
                PE_TRY(put_blocks(w, w->buf, PE_SEGMENT_BLOCK));
            }
        }
        from += take;
        size -= take;
    }
    return PERI_OK;
}

peri_status pe_segw_end(pe_segw *w)
{
    if (w->status != PERI_OK)
        return w->status;
    if (!w->in_section)
        return stick(w, pe_fail(PERI_ERR_INTERNAL, "no section is open"));
    size_t rest = w->fill;
    w->fill = 0;
    w->in_section = 0;
    return rest ? put_blocks(w, w->buf, rest) : PERI_OK;
}

static void encode_tail(const pe_segw *w, unsigned char *p)
{
    for (uint32_t i = 0; i < w->n_sections; i++, p += PE_SEGMENT_ENTRY) {
        const pe_section *s = &w->sections[i];
        pe_put_le32(p, s->tag);
        pe_put_le32(p + 4, s->flags);
        pe_put_le64(p + 8, s->offset);
        pe_put_le64(p + 16, s->size);
        pe_put_le64(p + 24, s->first_block);
    }
    for (size_t i = 0; i < w->n_sums; i++, p += 8)
        pe_put_le64(p, w->sums[i]);
}

static void encode_header(const pe_segw *w, unsigned char *p, uint64_t tail, size_t tail_size,
                          uint64_t tail_sum)
{
    memset(p, 0, PE_SEGMENT_HEADER);
    memcpy(p, PE_SEGMENT_MAGIC, PE_SEGMENT_MAGIC_SIZE);
    pe_put_le32(p + 8, PE_SEGMENT_ORDER);
    pe_put_le16(p + 12, PE_SEGMENT_MAJOR);
    pe_put_le16(p + 14, PE_SEGMENT_MINOR);
    pe_put_le32(p + 16, PE_SEGMENT_HEADER);
    pe_put_le32(p + 20, PE_SEGMENT_XXH3);
    pe_put_le64(p + 24, (uint64_t)w->id.compat << 32);
    pe_put_le64(p + 32, (uint64_t)w->id.ro_compat << 32);
    pe_put_le64(p + 40, (uint64_t)w->id.incompat << 32);
    pe_put_le32(p + 48, w->id.kind);
    pe_put_le16(p + 52, w->id.version_major);
    pe_put_le16(p + 54, w->id.version_minor);
    memcpy(p + 56, w->id.uuid, 16);
    pe_put_le64(p + 72, w->id.generation);
    pe_put_le64(p + 80, tail + tail_size);
    pe_put_le64(p + 88, tail);
    pe_put_le64(p + 96, tail_size);
    pe_put_le64(p + 104, tail_sum);
    pe_put_le32(p + 112, w->n_sections);
    pe_put_le32(p + 116, PE_SEGMENT_BLOCK);
    snprintf((char *)p + 120, 16, "%d.%d.%d", PERI_VERSION_MAJOR, PERI_VERSION_MINOR,
             PERI_VERSION_PATCH);
    pe_put_le64(p + PE_SEGMENT_HEADER_SUM, pe_segment_hash(p, PE_SEGMENT_HEADER_SUM, 0));
}

static peri_status write_tail_and_header(pe_segw *w)
{
    size_t size = (size_t)w->n_sections * PE_SEGMENT_ENTRY + w->n_sums * 8;
    PE_TRY(pad(w, PE_SEGMENT_ALIGN));
    unsigned char *tail = pe_alloc(w->host, size);
    if (!tail)
        return PERI_ERR_NOMEM;
    encode_tail(w, tail);
    uint64_t sum = pe_segment_hash(tail, size, pe_segment_tail_seed(w->seed));
    encode_header(w, w->buf, w->at, size, sum);
    peri_status status = pe_file_write(&w->file, tail, size, w->at);
    pe_free(w->host, tail, size);
    PE_TRY(status);
    return pe_file_write(&w->file, w->buf, PE_SEGMENT_HEADER, 0);
}

/* All up to the rename: what fails here leaves nothing behind. A failed fsync is not tried again:
 * the kernel has marked the pages clean by then. */
static peri_status finish(pe_segw *w)
{
    PE_TRY(w->status);
    if (w->in_section)
        return pe_fail(PERI_ERR_INTERNAL, "section '%s' is still open at commit",
                       pe_tag_name(w->sections[w->n_sections - 1].tag).text);
    PE_TRY(write_tail_and_header(w));
    PE_TRY(pe_file_sync(&w->file));
    PE_TRY(pe_file_close(&w->file));
    return pe_file_rename(w->host->files, w->temp, w->path);
}

peri_status pe_segw_commit(pe_segw *w)
{
    peri_status status = finish(w);
    if (status != PERI_OK) {
        pe_segw_abort(w);
        return status;
    }
    status = pe_file_sync_dir(w->host->files, w->path);
    free_writer(w);
    return status;
}

void pe_segw_abort(pe_segw *w)
{
    if (!w)
        return;
    char detail[PE_DETAIL_SIZE]; /* of the error that brought us here: closing must not hide it */
    pe_detail_copy(detail);
    (void)pe_file_close(&w->file);
    pe_file_unlink(w->host->files, w->temp);
    pe_detail_set(detail);
    free_writer(w);
}
