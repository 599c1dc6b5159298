/* Address space: extents of the file mapped side by side into a reserved range, so that row space
 * grows without moving. The file's size never shrinks, and space is taken on the disk before it is
 * mapped (posix_fallocate), so that a store cannot find the disk full, which would be SIGBUS. */
#include "base/checked.h"
#include "mmap/vectors_parts.h"

enum { EXTENT_MIN = PE_VBLOCK, DOUBLE_TO = 16 << 20, EXTENT_MAX = 256 << 20, AHEAD = 4 << 20 };
#define ADDRESS_SPACE ((uint64_t)1 << 40)

void pe_vmap_ref(pe_vmap *m)
{
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
}

void pe_vmap_unref(pe_vmap *m)
{
    if (!m || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
        return;
    pe_file_unmap(m->host.files, m->base, m->reserved);
    pe_host own = m->host;
    pe_free(&own, m, sizeof *m);
}

/* Reserve `want` bytes, or half as much again and again, but `need` at least. */
static peri_status new_map(pe_vmap **out, const pe_vgen *g, uint64_t want, uint64_t need)
{
    pe_host own = {.alloc = g->host->alloc,
                   .free = g->host->free,
                   .alloc_ctx = g->host->alloc_ctx,
                   .files = g->host->files};
    if (need > SIZE_MAX / 4)
        return pe_fail(PERI_ERR_NOMEM, "%s: %llu bytes of address space", g->file.path,
                       (unsigned long long)need);
    pe_vmap *m = pe_calloc(&own, sizeof *m);
    if (!m)
        return PERI_ERR_NOMEM;
    void *base = NULL;
    int rc = -1;
    for (want = want > need ? want : need; rc<0; want = want / 2> need ? want / 2 : need) {
        m->reserved = (size_t)want;
        rc = own.files->reserve(own.files->ctx, m->reserved, &base);
        if (rc < 0 && want == need)
            break;
    }
    if (rc < 0) {
        pe_free(&own, m, sizeof *m);
        return pe_fail_errno(-rc, "reserving address space", g->file.path);
    }
    m->host = own;
    m->base = base;
    m->writable = g->writable;
    atomic_store_explicit(&m->refs, 1, memory_order_relaxed);
    *out = m;
    return PERI_OK;
}

/* Map what extents there are beyond what the map has; neighbours in the file in one piece. */
static peri_status extend_map(const pe_vgen *g, pe_vmap *m)
{
    uint64_t begin = 0;
    for (size_t i = 0; i < g->n_extents;) {
        uint64_t offset = g->extents[i].offset, bytes = g->extents[i].bytes, skip = 0;
        for (i++; i < g->n_extents && g->extents[i].offset == offset + bytes; i++)
            bytes += g->extents[i].bytes;
        if (begin + bytes > m->mapped) {
            skip = m->mapped > begin ? m->mapped - begin : 0;
            PE_TRY(pe_file_map_at(&g->file, m->base + begin + skip, (size_t)(bytes - skip),
                                  offset + skip, m->writable));
            m->mapped = (size_t)(begin + bytes);
        }
        begin += bytes;
    }
    return PERI_OK;
}

/* A map of all extents, in a larger range when the former is too small. The former stays until the
 * generation ends: it shows the same pages, and an index may point into it. */
peri_status pe_vgen_map(pe_vgen *g)
{
    pe_vmap *m = pe_vgen_mapping(g), *fresh = NULL;
    uint64_t want = g->address_space ? g->address_space : ADDRESS_SPACE;
    if (g->room == 0)
        return PERI_OK;
    if (!m || m->reserved < g->room) {
        if (g->n_former == sizeof g->former / sizeof *g->former)
            return pe_fail(PERI_ERR_FULL, "%s: mapped %u times", g->file.path, g->n_former);
        PE_TRY(new_map(&fresh, g, m ? g->room * 2 : want, g->room));
    }
    size_t had = fresh ? 0 : m->mapped;
    peri_status status = extend_map(g, fresh ? fresh : m);
    if (status == PERI_OK)
        status = pe_array_lend((pe_array *)&g->rows.rows, g->epoch, (fresh ? fresh : m)->base,
                               (size_t)(g->room / g->stride));
    if (status != PERI_OK) {
        pe_vmap_unref(fresh);
        return status; /* pieces mapped too many are mapped again later */
    }
    if (fresh) {
        if (m)
            g->former[g->n_former++] = m;
        atomic_store_explicit(&g->map, fresh, memory_order_release);
    }
    atomic_fetch_add_explicit(&g->host->mapped, g->room - had, memory_order_relaxed);
    return PERI_OK;
}

peri_status pe_vgen_grow(pe_vgen *g, uint64_t bytes)
{
    if (bytes <= g->room)
        return PERI_OK;
    uint64_t more = bytes - g->room, end = pe_round_up(g->end, PE_VBLOCK);
    /* Space is taken for an eighth more than there is; small files double, because each time costs
     * a tenth of a millisecond. */
    uint64_t spare = g->room < DOUBLE_TO ? g->room : DOUBLE_TO;
    spare = spare > g->room / 8 ? spare : g->room / 8;
    spare = spare < EXTENT_MIN ? EXTENT_MIN : spare > EXTENT_MAX ? EXTENT_MAX : spare;
    more = pe_round_up(more > spare ? more : spare, PE_VBLOCK);
    PE_TRY(pe_grow(g->host, &g->extents, &g->extents_room, g->n_extents + 1, sizeof *g->extents));
    PE_TRY(pe_file_allocate(&g->file, end, more));
    g->extents[g->n_extents++] = (pe_vextent){end, more};
    g->room += more;
    peri_status status = pe_vgen_map(g);
    if (status != PERI_OK) { /* the file stays longer: the next extent lies there */
        g->n_extents--;
        g->room -= more;
        return status;
    }
    pe_vgen_set_end(g, end + more);
    return PERI_OK;
}

/* The file's offset of row space `at`, and how many bytes follow it there. */
static uint64_t locate(const pe_vgen *g, uint64_t at, uint64_t *left)
{
    uint64_t begin = 0;
    size_t i = 0;
    while (at - begin >= g->extents[i].bytes)
        begin += g->extents[i++].bytes;
    *left = begin + g->extents[i].bytes - at;
    return g->extents[i].offset + (at - begin);
}

peri_status pe_vgen_pwrite(const pe_vgen *g, const void *data, size_t n, uint64_t at)
{
    const unsigned char *p = data;
    while (n) {
        uint64_t left, offset = locate(g, at, &left);
        size_t part = left < n ? (size_t)left : n;
        PE_TRY(pe_file_write(&g->file, p, part, offset));
        p += part;
        at += part;
        n -= part;
    }
    return PERI_OK;
}

peri_status pe_vgen_pread(const pe_vgen *g, void *data, size_t n, uint64_t at)
{
    unsigned char *p = data;
    while (n) {
        uint64_t left, offset = locate(g, at, &left);
        size_t part = left < n ? (size_t)left : n;
        PE_TRY(pe_file_read(&g->file, p, part, offset));
        p += part;
        at += part;
        n -= part;
    }
    return PERI_OK;
}

/* A store to a page that is not in the page cache yet is a fault that finds, clears and enters one
 * page; zeros written ahead by large writes bring in many at once and leave a cheap fault. Rows of
 * 1,536 bytes put one by one: 800 ns each, 1,240 with MADV_POPULATE_WRITE instead, 1,700 with
 * neither. */
peri_status pe_vgen_prepare(pe_vgen *g, uint64_t end)
{
    uint64_t at = (uint64_t)pe_vgen_count(g) * g->stride;
    if (end <= g->prepared)
        return PERI_OK;
    if (!g->zeros && !(g->zeros = pe_calloc(g->host, PE_VZEROS)))
        return PERI_ERR_NOMEM;
    uint64_t to = pe_round_up(end, AHEAD);
    to = to < g->room ? to : g->room;
    for (at = at > g->prepared ? at : g->prepared; at < to;) {
        size_t n = to - at < PE_VZEROS ? (size_t)(to - at) : PE_VZEROS;
        PE_TRY(pe_vgen_pwrite(g, g->zeros, n, at));
        at += n;
    }
    g->prepared = to;
    return PERI_OK;
}
