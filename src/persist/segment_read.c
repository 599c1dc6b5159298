/* Reading segment files: what the header and the table say is proved before it is used, blocks are
 * verified when they are needed. */
#define _GNU_SOURCE
#include "base/checked.h"
#include "base/file.h"
#include "persist/segment_format.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>

struct pe_segr {
    pe_host *host;
    pe_file file; /* closed again in the mapped modes */
    char *path;
    size_t path_room;
    uint64_t size;
    pe_segment_id id;
    uint64_t seed;
    int readonly;
    int map;
    unsigned char *base; /* of the mapping, size bytes */
    pe_section *sections;
    uint32_t n_sections;
    unsigned char *tail; /* as read; the sums are taken from it as they are needed */
    size_t tail_size;
    uint64_t tail_at;
    size_t n_blocks;
    _Atomic uint64_t *verified;
    unsigned char *cache; /* one block, for reads that take part of it */
    const pe_section *cache_section;
    uint64_t cache_block;
};

static peri_status damaged(const pe_segr *r, uint64_t offset, const char *what)
{
    return pe_fail(PERI_ERR_CORRUPT, "%s: at byte %llu: %s", r->path, (unsigned long long)offset,
                   what);
}

/* ---- opening ---- */

/* What the file is, told from damage: the first 256 bytes mean the same in every version. */
static peri_status check_header_bytes(const pe_segr *r, const unsigned char *h, size_t got)
{
    if (got < PE_SEGMENT_MAGIC_SIZE || memcmp(h, PE_SEGMENT_MAGIC, PE_SEGMENT_MAGIC_SIZE) != 0)
        return pe_fail(PERI_ERR_FORMAT, "%s: not a perigee file", r->path);
    if (got < PE_SEGMENT_HEADER)
        return damaged(r, got, "ends within the header");
    uint64_t sum = pe_segment_hash(h, PE_SEGMENT_HEADER_SUM, 0);
    if (sum != pe_get_le64(h + PE_SEGMENT_HEADER_SUM))
        return damaged(r, 0, "the header's checksum fails");
    if (pe_get_le32(h + 8) != PE_SEGMENT_ORDER)
        return pe_fail(PERI_ERR_FORMAT, "%s: written in another byte order", r->path);
    uint16_t major = pe_get_le16(h + 12);
    if (major != PE_SEGMENT_MAJOR || pe_get_le32(h + 20) != PE_SEGMENT_XXH3)
        return pe_fail(PERI_ERR_VERSION,
                       "%s: format version %u with checksum %u, this library reads %d with %d",
                       r->path, major, pe_get_le32(h + 20), PE_SEGMENT_MAJOR, PE_SEGMENT_XXH3);
    uint32_t incompat = pe_get_le32(h + 40); /* the container's half; it knows none */
    if (incompat)
        return pe_fail(PERI_ERR_VERSION, "%s: unknown incompatible feature bits 0x%x", r->path,
                       incompat);
    if (pe_get_le32(h + 16) != PE_SEGMENT_HEADER || pe_get_le32(h + 116) != PE_SEGMENT_BLOCK)
        return damaged(r, 16, "size of header or block is not that of this version");
    return PERI_OK;
}

static peri_status check_extent(pe_segr *r, const unsigned char *h)
{
    uint64_t length = pe_get_le64(h + 80), tail = pe_get_le64(h + 88), size = pe_get_le64(h + 96);
    if (length != r->size)
        return pe_fail(PERI_ERR_CORRUPT, "%s: %llu bytes long, the header says %llu", r->path,
                       (unsigned long long)r->size, (unsigned long long)length);
    if (tail % PE_SEGMENT_ALIGN || tail < PE_SEGMENT_HEADER || tail > length ||
        size != length - tail || size > SIZE_MAX)
        return damaged(r, 88, "the section table does not end the file");
    r->n_sections = pe_get_le32(h + 112);
    size_t table = (size_t)r->n_sections * PE_SEGMENT_ENTRY;
    if (r->n_sections > PE_SEGMENT_SECTIONS || table > size || (size - table) % 8)
        return damaged(r, 112, "the number of sections does not fit the table");
    r->tail_at = tail;
    r->tail_size = (size_t)size;
    r->n_blocks = (r->tail_size - table) / 8;
    return PERI_OK;
}

static peri_status read_header(pe_segr *r)
{
    unsigned char h[PE_SEGMENT_HEADER] = {0};
    size_t got = r->size < sizeof h ? (size_t)r->size : sizeof h;
    PE_TRY(pe_file_read(&r->file, h, got, 0));
    PE_TRY(check_header_bytes(r, h, got));
    PE_TRY(check_extent(r, h));
    r->readonly = pe_get_le32(h + 32) != 0;
    r->id.compat = pe_get_le32(h + 28);
    r->id.ro_compat = pe_get_le32(h + 36);
    r->id.incompat = pe_get_le32(h + 44);
    r->id.kind = pe_get_le32(h + 48);
    r->id.version_major = pe_get_le16(h + 52);
    r->id.version_minor = pe_get_le16(h + 54);
    memcpy(r->id.uuid, h + 56, 16);
    r->id.generation = pe_get_le64(h + 72);
    r->seed = pe_segment_file_seed(&r->id);
    r->tail = pe_alloc(r->host, r->tail_size);
    if (!r->tail)
        return PERI_ERR_NOMEM;
    PE_TRY(pe_file_read(&r->file, r->tail, r->tail_size, r->tail_at));
    uint64_t sum = pe_segment_hash(r->tail, r->tail_size, pe_segment_tail_seed(r->seed));
    if (sum != pe_get_le64(h + 104))
        return damaged(r, r->tail_at, "the section table's checksum fails");
    return PERI_OK;
}

/* One entry, given where the former section ended and how many blocks came before. Each section
 * has exactly one place where it may lie, so nothing overlaps and nothing is left out. */
static peri_status read_entry(pe_segr *r, uint32_t i, uint64_t *end, uint64_t *blocks)
{
    const unsigned char *p = r->tail + (size_t)i * PE_SEGMENT_ENTRY;
    uint64_t at = r->tail_at + (uint64_t)i * PE_SEGMENT_ENTRY;
    pe_section *s = &r->sections[i];
    s->tag = pe_get_le32(p);
    s->flags = pe_get_le32(p + 4);
    s->offset = pe_get_le64(p + 8);
    s->size = pe_get_le64(p + 16);
    if (s->flags & ~(uint32_t)PE_SECTION_MAPPED)
        return damaged(r, at + 4, "unknown section flags");
    uint64_t gap = -*end & (pe_segment_alignment(s->flags) - 1);
    if (gap > r->tail_at - *end || s->offset != *end + gap)
        return damaged(r, at + 8, "a section is not where it must be");
    if (s->size > r->tail_at - s->offset)
        return damaged(r, at + 16, "a section is longer than the file");
    uint64_t n = pe_segment_blocks(s->size);
    if (pe_get_le64(p + 24) != *blocks || n > r->n_blocks - *blocks)
        return damaged(r, at + 24, "the number of block sums is wrong");
    for (uint32_t j = 0; j < i; j++)
        if (r->sections[j].tag == s->tag)
            return damaged(r, at, "a section stands twice in the table");
    s->first_block = (size_t)*blocks;
    s->verified = r->verified;
    *blocks += n;
    *end = s->offset + s->size;
    return PERI_OK;
}

/* The bytes between sections: zero, and fewer than an alignment. */
static peri_status check_gap(pe_segr *r, uint64_t from, uint64_t to)
{
    size_t n = (size_t)(to - from);
    if (n == 0)
        return PERI_OK;
    PE_TRY(pe_file_read(&r->file, r->cache, n, from));
    if (r->cache[0] != 0 || memcmp(r->cache, r->cache + 1, n - 1) != 0)
        return damaged(r, from, "bytes between sections are not zero");
    return PERI_OK;
}

static peri_status read_table(pe_segr *r)
{
    uint64_t end = PE_SEGMENT_HEADER, blocks = 0;
    size_t words = r->n_blocks / 64 + 1;
    r->sections = pe_calloc(r->host, r->n_sections * sizeof *r->sections);
    r->verified = pe_calloc(r->host, words * sizeof *r->verified);
    r->cache = pe_alloc(r->host, PE_SEGMENT_BLOCK);
    if (!r->sections || !r->verified || !r->cache)
        return PERI_ERR_NOMEM;
    for (uint32_t i = 0; i < r->n_sections; i++) {
        uint64_t before = end;
        PE_TRY(read_entry(r, i, &end, &blocks));
        PE_TRY(check_gap(r, before, r->sections[i].offset));
    }
    if (blocks != r->n_blocks)
        return damaged(r, r->tail_at, "block sums are left over");
    if (r->tail_at - end >= PE_SEGMENT_ALIGN)
        return damaged(r, end, "bytes that belong to no section");
    return check_gap(r, end, r->tail_at);
}

static peri_status map_file(pe_segr *r)
{
    void *base;
    if (r->size > SIZE_MAX)
        return pe_fail(PERI_ERR_NOMEM, "%s: too long to map", r->path);
    PE_TRY(pe_file_map(&r->file, (size_t)r->size, r->map == PE_SEGMENT_MAP_COW, &base));
    r->base = base;
    atomic_fetch_add_explicit(&r->host->mapped, r->size, memory_order_relaxed);
    for (uint32_t i = 0; i < r->n_sections; i++)
        r->sections[i].data = r->base + r->sections[i].offset;
    pe_free(r->host, r->cache, PE_SEGMENT_BLOCK);
    r->cache = NULL;
    return pe_file_close(&r->file);
}

peri_status pe_segr_open(pe_segr **out, pe_host *host, const char *path, int map)
{
    *out = NULL;
    pe_segr *r = pe_calloc(host, sizeof *r);
    if (!r)
        return PERI_ERR_NOMEM;
    r->host = host;
    r->file.fd = -1;
    r->map = map;
    r->path_room = strlen(path) + 1;
    r->path = pe_alloc(host, r->path_room);
    peri_status status = r->path ? PERI_OK : PERI_ERR_NOMEM;
    if (status == PERI_OK) {
        memcpy(r->path, path, r->path_room);
        /* O_NONBLOCK: a FIFO must be refused, not waited for. */
        status = pe_file_open(&r->file, host->files, r->path, O_RDONLY | O_NONBLOCK);
    }
    if (status == PERI_OK)
        status = pe_file_size(&r->file, &r->size);
    if (status == PERI_OK)
        status = read_header(r);
    if (status == PERI_OK)
        status = read_table(r);
    if (status == PERI_OK && map != PE_SEGMENT_COPY)
        status = map_file(r);
    if (status != PERI_OK) {
        pe_segr_close(r);
        return status;
    }
    *out = r;
    return PERI_OK;
}

void pe_segr_close(pe_segr *r)
{
    if (!r)
        return;
    pe_host *host = r->host;
    if (r->base) {
        pe_file_unmap(host->files, r->base, (size_t)r->size);
        atomic_fetch_sub_explicit(&host->mapped, r->size, memory_order_relaxed);
    }
    if (r->file.fd >= 0)
        host->files->close(host->files->ctx, r->file.fd);
    pe_free(host, r->cache, PE_SEGMENT_BLOCK);
    pe_free(host, r->verified, (r->n_blocks / 64 + 1) * sizeof *r->verified);
    pe_free(host, r->sections, r->n_sections * sizeof *r->sections);
    pe_free(host, r->tail, r->tail_size);
    pe_free(host, r->path, r->path_room);
    pe_free(host, r, sizeof *r);
}

/* ---- looking ---- */

peri_status pe_segr_expect(const pe_segr *r, uint32_t kind, uint16_t version_major, uint32_t known)
{
    const pe_segment_id *id = &r->id;
    if (id->kind != kind)
        return pe_fail(PERI_ERR_FORMAT, "%s: a file of kind '%s', expected '%s'", r->path,
                       pe_tag_name(id->kind).text, pe_tag_name(kind).text);
    if (id->version_major > version_major)
        return pe_fail(PERI_ERR_VERSION, "%s: kind '%s' version %u.%u, this library reads up to %u",
                       r->path, pe_tag_name(kind).text, id->version_major, id->version_minor,
                       version_major);
    if (id->incompat & ~known)
        return pe_fail(PERI_ERR_VERSION, "%s: unknown incompatible feature bits 0x%x of kind '%s'",
                       r->path, id->incompat & ~known, pe_tag_name(kind).text);
    return PERI_OK;
}

const pe_segment_id *pe_segr_id(const pe_segr *r)
{
    return &r->id;
}

const char *pe_segr_path(const pe_segr *r)
{
    return r->path;
}

uint64_t pe_segr_size(const pe_segr *r)
{
    return r->size;
}

int pe_segr_readonly(const pe_segr *r)
{
    return r->readonly;
}

const pe_section *pe_segr_find(const pe_segr *r, uint32_t tag)
{
    for (uint32_t i = 0; i < r->n_sections; i++)
        if (r->sections[i].tag == tag)
            return &r->sections[i];
    return NULL;
}

peri_status pe_segr_fault(const pe_segr *r, const pe_section *s, uint64_t offset,
                          const char *format, ...)
{
    char why[PE_DETAIL_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    return pe_fail(PERI_ERR_CORRUPT, "%s: section '%s' at byte %llu: %s", r->path,
                   pe_tag_name(s->tag).text, (unsigned long long)(s->offset + offset), why);
}

/* ---- verifying and reading ---- */

static size_t block_size(const pe_section *s, uint64_t block)
{
    uint64_t left = s->size - (block << PE_SEGMENT_BLOCK_SHIFT);
    return left < PE_SEGMENT_BLOCK ? (size_t)left : PE_SEGMENT_BLOCK;
}

static int block_matches(const pe_segr *r, const pe_section *s, uint64_t block,
                         const unsigned char *bytes)
{
    const unsigned char *sums = r->tail + (size_t)r->n_sections * PE_SEGMENT_ENTRY;
    uint64_t seed = pe_segment_block_seed(r->seed, s->tag, block);
    uint64_t sum = pe_segment_hash(bytes, block_size(s, block), seed);
    return sum == pe_get_le64(sums + (s->first_block + (size_t)block) * 8);
}

/* Verify one block whose bytes are at hand.
 *
 * In a copy-on-write mapping a writer verifies a block before it changes it; a reader that began to
 * hash the block before that may see the change. The writer's bit is set before its change, so the
 * bit, looked at after the hash, tells such a mismatch from damage. Both are read-modify-writes: a
 * fence would do, but ThreadSanitizer knows none. */
static peri_status verify_block(const pe_segr *r, const pe_section *s, uint64_t block,
                                const unsigned char *bytes)
{
    size_t bit = s->first_block + (size_t)block;
    uint64_t mask = (uint64_t)1 << (bit % 64);
    if (block_matches(r, s, block, bytes)) {
        atomic_fetch_or(&s->verified[bit / 64], mask);
        return PERI_OK;
    }
    if (r->map == PE_SEGMENT_MAP_COW && (atomic_fetch_or(&s->verified[bit / 64], 0) & mask))
        return PERI_OK;
    return pe_segr_fault(r, s, block << PE_SEGMENT_BLOCK_SHIFT, "the checksum of block %llu fails",
                         (unsigned long long)block);
}

/* COPY mode: bring one block into the cache, verified. */
static peri_status load_block(pe_segr *r, const pe_section *s, uint64_t block)
{
    if (r->cache_section == s && r->cache_block == block)
        return PERI_OK;
    r->cache_section = NULL;
    PE_TRY(pe_file_read(&r->file, r->cache, block_size(s, block),
                        s->offset + (block << PE_SEGMENT_BLOCK_SHIFT)));
    PE_TRY(verify_block(r, s, block, r->cache));
    r->cache_section = s;
    r->cache_block = block;
    return PERI_OK;
}

static peri_status check_range(const pe_segr *r, const pe_section *s, uint64_t offset,
                               uint64_t size)
{
    if (offset > s->size || size > s->size - offset)
        return pe_segr_fault(r, s, s->size, "ends before byte %llu + %llu of it",
                             (unsigned long long)offset, (unsigned long long)size);
    return PERI_OK;
}

peri_status pe_segr_verify_more(pe_segr *r, const pe_section *s, uint64_t offset, uint64_t size)
{
    PE_TRY(check_range(r, s, offset, size));
    if (size == 0)
        return PERI_OK;
    uint64_t last = (offset + size - 1) >> PE_SEGMENT_BLOCK_SHIFT;
    for (uint64_t b = offset >> PE_SEGMENT_BLOCK_SHIFT; b <= last; b++) {
        if (pe_section_block_verified(s, b))
            continue;
        if (s->data)
            PE_TRY(verify_block(r, s, b, s->data + (b << PE_SEGMENT_BLOCK_SHIFT)));
        else
            PE_TRY(load_block(r, s, b));
    }
    return PERI_OK;
}

peri_status pe_segr_verify(pe_segr *r, const pe_section *s)
{
    return pe_segr_verify_more(r, s, 0, s->size);
}

/* COPY mode: whole blocks go straight to the caller's memory and are verified there. */
static peri_status read_whole(pe_segr *r, const pe_section *s, uint64_t block, unsigned char *to,
                              size_t blocks)
{
    uint64_t at = s->offset + (block << PE_SEGMENT_BLOCK_SHIFT);
    PE_TRY(pe_file_read(&r->file, to, blocks << PE_SEGMENT_BLOCK_SHIFT, at));
    for (size_t i = 0; i < blocks; i++)
        PE_TRY(verify_block(r, s, block + i, to + (i << PE_SEGMENT_BLOCK_SHIFT)));
    return PERI_OK;
}

peri_status pe_segr_read(pe_segr *r, const pe_section *s, uint64_t offset, void *buf, size_t size)
{
    enum { AT_ONCE = 16 }; /* blocks: 1 MiB is still in the cache when it is hashed */
    unsigned char *to = buf;
    PE_TRY(check_range(r, s, offset, size));
    if (s->data) {
        PE_TRY(pe_segr_verify_range(r, s, offset, size));
        if (size)
            memcpy(to, s->data + offset, size);
        return PERI_OK;
    }
    while (size > 0) {
        uint64_t block = offset >> PE_SEGMENT_BLOCK_SHIFT;
        size_t inside = (size_t)(offset & (PE_SEGMENT_BLOCK - 1)), take;
        if (inside == 0 && size >= PE_SEGMENT_BLOCK) {
            size_t whole = size >> PE_SEGMENT_BLOCK_SHIFT;
            whole = whole < AT_ONCE ? whole : AT_ONCE;
            take = whole << PE_SEGMENT_BLOCK_SHIFT;
            PE_TRY(read_whole(r, s, block, to, whole));
        } else {
            PE_TRY(load_block(r, s, block));
            take = PE_SEGMENT_BLOCK - inside;
            take = take < size ? take : size;
            memcpy(to, r->cache + inside, take);
        }
        to += take;
        offset += take;
        size -= take;
    }
    return PERI_OK;
}
