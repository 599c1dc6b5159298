/* Making and opening a generation, and following what checkpoints add to it. A frame is taken in
 * the same way when a file is opened and when a reader refreshes while searches run: what can fail
 * for want of memory first, then keys, then one store to the count. */
#define _GNU_SOURCE
#include "base/checked.h"
#include "mmap/vectors_format.h"

#include <fcntl.h>
#include <float.h>
#include <stdio.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rows and norms are kept as they lie");

/* The newer of the two. A writer never changes both at one moment, but a reader may look at one
 * while it is written and at the other just when that is: it looks again. */
static peri_status read_header(const pe_file *f, pe_vheader *h)
{
    unsigned char b[PE_VHEADER];
    peri_status status = PERI_OK;
    for (int look = 0; look < 8; look++) {
        pe_vheader side;
        int found = 0;
        for (int i = 0; i < 2; i++) {
            PE_TRY(pe_file_read(f, b, sizeof b, (uint64_t)i * PE_VHEADER_PAGE));
            peri_status one = pe_vheader_decode(f->path, b, &side);
            if (one == PERI_OK && (!found || side.sequence > h->sequence)) {
                *h = side;
                found = 1;
            } else if (one == PERI_ERR_VERSION) {
                return one;
            } else if (one != PERI_OK) {
                status = i && status == PERI_ERR_CORRUPT ? status : one;
            }
        }
        if (found)
            return PERI_OK;
    }
    return status;
}

/* ---- taking a frame in: at open, and when a reader refreshes ---- */

static peri_status take_extents(pe_vgen *g, uint64_t at, const pe_vframe_head *f,
                                const unsigned char *p, uint64_t end)
{
    size_t had = g->n_extents;
    uint64_t room = g->room;
    PE_TRY(pe_grow(g->host, &g->extents, &g->extents_room, had + f->n_extents, sizeof *g->extents));
    for (uint32_t i = 0; i < f->n_extents; i++, p += 16) {
        pe_vextent e = {pe_get_le64(p), pe_get_le64(p + 8)};
        if (e.offset < PE_VFIRST_BYTE || e.offset % PE_VBLOCK || e.bytes % PE_VBLOCK ||
            e.bytes == 0 || e.offset > end || e.bytes > end - e.offset)
            return pe_vframe_fault(g, at, "an extent lies outside of the file");
        g->extents[had + i] = e;
        room += e.bytes;
    }
    if ((f->first + f->rows) * g->stride > room)
        return pe_vframe_fault(g, at, "more rows than extents have room for");
    g->n_extents = had + f->n_extents;
    peri_status status = PERI_OK;
    uint64_t before = g->room;
    g->room = room;
    if (room != before)
        status = pe_vgen_map(g);
    if (status != PERI_OK) {
        g->n_extents = had;
        g->room = before;
        return status;
    }
    g->extents_saved = g->n_extents;
    return PERI_OK;
}

/* Slots that died. Readers of the former count still see them. */
static peri_status take_fallen(pe_vgen *g, uint64_t at, const pe_vframe_head *f,
                               const unsigned char *p)
{
    uint32_t died = (uint32_t)(f->first + f->rows);
    for (uint64_t i = 0; i < f->n_fallen; i++, p += 4) {
        uint32_t slot = pe_get_le32(p);
        if (slot >= f->first || atomic_load_explicit(pe_vgen_died(g, slot), memory_order_relaxed))
            return pe_vframe_fault(g, at, "a slot died that was not alive");
        peri_slice key = pe_vkeys_of(&g->keys, slot);
        pe_vkeys_remove(&g->keys, key, pe_vkeys_hash(&g->keys, key.data, key.size));
        atomic_store_explicit(pe_vgen_died(g, slot), died, memory_order_release);
    }
    return PERI_OK;
}

/* Keys by groups, whose places in the table are fetched while the group is still being read, as in
 * keys_file.c: a chain of misses becomes one. */
enum { GROUP = 32 };

static peri_status take_keys(pe_vgen *g, uint64_t at, const pe_vframe_head *f,
                             const unsigned char *p)
{
    const unsigned char *stop = p + f->key_bytes, *keys[GROUP];
    uint32_t hashes[GROUP], slots[GROUP], slot = (uint32_t)f->first, n = 0;
    uint32_t end = (uint32_t)(f->first + f->rows);
    while (slot < end || n) {
        if (slot < end && n < GROUP) {
            size_t size = stop - p >= PE_VKEY_HEAD ? pe_get_le16(p) : SIZE_MAX;
            if (size == SIZE_MAX || size > (size_t)(stop - p) - PE_VKEY_HEAD)
                return pe_vframe_fault(g, at, "a key leaves it");
            if (size == 0) {
                atomic_store_explicit(pe_vgen_died(g, slot), end, memory_order_relaxed);
            } else {
                keys[n] = p;
                slots[n] = slot;
                hashes[n] = pe_vkeys_hash(&g->keys, p + PE_VKEY_HEAD, size);
                pe_vkeys_prefetch(&g->keys, hashes[n++]);
            }
            p += PE_VKEY_HEAD + size;
            slot++;
            continue;
        }
        for (uint32_t i = 0; i < n; i++)
            if (!pe_vkeys_adopt(&g->keys, keys[i], hashes[i], slots[i]))
                return pe_vframe_fault(g, at, "a key stands twice");
        n = 0;
    }
    return p == stop ? PERI_OK : pe_vframe_fault(g, at, "bytes behind the last key");
}

static peri_status take_norms(pe_vgen *g, uint64_t at, const pe_vframe_head *f,
                              const unsigned char *p)
{
    for (uint64_t i = 0; i < f->rows; i++, p += 4) {
        float norm;
        memcpy(&norm, p, sizeof norm);
        if (!(norm > 0 && norm <= FLT_MAX))
            return pe_vframe_fault(g, at, "a norm is no norm");
        memcpy(pe_array_at(&g->rows.norms, (size_t)(f->first + i)), p, sizeof norm);
    }
    return PERI_OK;
}

/* What the frame says, published: first what can fail for want of memory. */
static peri_status take_frame(pe_vgen *g, uint64_t at, const pe_vframe_head *f, uint64_t end)
{
    size_t size = (size_t)(f->size - PE_VFRAME_HEAD), slots = (size_t)(f->first + f->rows);
    uint64_t row_begin = f->first * g->stride, row_end = slots * g->stride;
    if (f->first != pe_vgen_count(g) || f->sequence != atomic_load(&g->sequence) + 1)
        return pe_vframe_fault(g, at, "does not follow the one before");
    PE_TRY(pe_grow(g->host, &g->frames, &g->frames_room, g->n_frames + 1, sizeof *g->frames));
    int norms = g->rows.space.metric == PERI_METRIC_COSINE;
    PE_TRY(pe_vkeys_reserve(&g->keys, slots, (size_t)f->rows, 0));
    PE_TRY(pe_array_reserve(&g->died, g->epoch, slots, 0));
    if (norms)
        PE_TRY(pe_array_reserve(&g->rows.norms, g->epoch, slots, 0));
    PE_TRY(pe_vgen_reserve_blocks(g, row_begin, row_end));
    unsigned char *p = pe_vkeys_chunk(&g->keys, size);
    if (!p)
        return PERI_ERR_NOMEM;
    PE_TRY(pe_file_read(&g->file, p, size, at + PE_VFRAME_HEAD));
    if (pe_segment_hash(p, size, pe_vframe_seed(g->seed, at)) != f->payload_sum)
        return pe_vframe_fault(g, at, "checksum of its content");
    PE_TRY(take_extents(g, at, f, p, end));
    const unsigned char *sums = p + f->n_extents * 16ull, *more = sums + f->n_blocks * 8;
    if (norms)
        PE_TRY(take_norms(g, at, f, more));
    more += norms ? f->rows * 4 : 0;
    PE_TRY(take_fallen(g, at, f, more));
    PE_TRY(take_keys(g, at, f, more + f->n_fallen * 4));
    pe_vgen_add_blocks(g, row_begin, row_end, sums);
    atomic_store_explicit(&g->trusted, row_end, memory_order_release);
    atomic_store_explicit(&g->count, (uint32_t)slots, memory_order_release);
    atomic_store_explicit(&g->sequence, f->sequence, memory_order_release);
    atomic_store_explicit(&g->saved_count, (uint32_t)slots, memory_order_relaxed);
    g->saved = (uint32_t)slots;
    g->frames[g->n_frames++] = (pe_vframe){f->sequence, f->sum};
    g->frame_at = at;
    g->frame_size = f->size;
    g->frame_sum = f->sum;
    return PERI_OK;
}

typedef struct chain_link {
    uint64_t at;
    pe_vframe_head f;
} chain_link;

/* The frames behind what the generation knows, from the last one back, then taken in in order. */
static peri_status take_chain(pe_vgen *g, const pe_vheader *h)
{
    chain_link *chain = NULL;
    size_t n = 0, room = 0;
    uint64_t at = h->frame_at, size = h->frame_size, sum = h->frame_sum, known = g->frame_at;
    uint64_t rows = 0;
    peri_status status = PERI_OK;
    while (status == PERI_OK && at != known) {
        status = pe_grow(g->host, &chain, &room, n + 1, sizeof *chain);
        if (status == PERI_OK)
            status = pe_vframe_read(g, at, size, sum, h->end, &chain[n].f);
        if (status != PERI_OK)
            break;
        chain[n].at = at;
        at = chain[n].f.prev_at;
        size = chain[n].f.prev_size;
        sum = chain[n].f.prev_sum;
        rows += chain[n++].f.rows;
    }
    if (status == PERI_OK && known && sum != g->frame_sum && n)
        status = pe_vframe_fault(g, known, "another history than the one that was read");
    if (status == PERI_OK && pe_vgen_count(g) + rows != h->slots)
        status = pe_fail(PERI_ERR_CORRUPT, "%s: the header says %llu slots, its frames %llu",
                         g->file.path, (unsigned long long)h->slots,
                         (unsigned long long)(pe_vgen_count(g) + rows));
    if (status == PERI_OK) /* one table for all */
        status = pe_vkeys_reserve(&g->keys, (size_t)h->slots, (size_t)rows, 0);
    for (size_t i = n; i-- > 0 && status == PERI_OK;)
        status = take_frame(g, chain[i].at, &chain[i].f, h->end);
    pe_free(g->host, chain, room * sizeof *chain);
    PE_TRY(status);
    pe_vgen_set_end(g, h->end);
    if (pe_vgen_count(g) != h->slots || atomic_load(&g->sequence) != h->sequence ||
        atomic_load(&g->keys.live) != h->keys)
        return pe_fail(PERI_ERR_CORRUPT,
                       "%s: the header says %llu slots, %llu keys, checkpoint %llu; its frames %u, "
                       "%llu, %llu",
                       g->file.path, (unsigned long long)h->slots, (unsigned long long)h->keys,
                       (unsigned long long)h->sequence, pe_vgen_count(g),
                       (unsigned long long)atomic_load(&g->keys.live),
                       (unsigned long long)atomic_load(&g->sequence));
    return PERI_OK;
}

/* ---- opening and making ---- */

static peri_status new_gen(pe_vgen **out, peri_vectors *v, int writable)
{
    pe_vgen *g = pe_calloc(&v->host, sizeof *g);
    if (!g)
        return PERI_ERR_NOMEM;
    g->host = &v->host;
    g->epoch = &v->epoch;
    g->file = (pe_file){.files = v->host.files, .path = v->path, .fd = -1};
    g->writable = writable;
    g->address_space = v->address_space;
    pe_array_init(&g->died, g->host, sizeof(uint32_t));
    pe_array_init(&g->blocks, g->host, sizeof(pe_vblock));
    pe_array_init(&g->passed, g->host, sizeof(uint64_t));
    pe_vkeys_init(&g->keys, g->host, g->epoch);
    *out = g;
    return PERI_OK;
}

void pe_vgen_destroy(void *owner, void *gen, uint64_t arg)
{
    pe_vgen *g = gen;
    (void)owner;
    (void)arg;
    if (!g)
        return;
    pe_vmap *m = pe_vgen_mapping(g);
    for (unsigned i = 0; i <= g->n_former; i++) {
        pe_vmap *one = i < g->n_former ? g->former[i] : m;
        if (one)
            atomic_fetch_sub_explicit(&g->host->mapped, one->mapped, memory_order_relaxed);
        pe_vmap_unref(one);
    }
    if (g->rows.host)
        pe_rows_destroy(&g->rows);
    pe_array_destroy(&g->died);
    pe_array_destroy(&g->blocks);
    pe_array_destroy(&g->passed);
    pe_vkeys_destroy(&g->keys);
    pe_free(g->host, g->extents, g->extents_room * sizeof *g->extents);
    pe_free(g->host, g->fallen, g->fallen_room * sizeof *g->fallen);
    pe_free(g->host, g->frames, g->frames_room * sizeof *g->frames);
    pe_free(g->host, g->zeros, PE_VZEROS);
    (void)pe_file_close(&g->file);
    pe_free(g->host, g, sizeof *g);
}

static void set_space(pe_vgen *g, const peri_space *space, const uint8_t uuid[16],
                      uint64_t generation, uint64_t id_base)
{
    pe_rows_init(&g->rows, g->host, g->epoch, space);
    g->stride = pe_rows_stride(space);
    memcpy(g->uuid, uuid, sizeof g->uuid);
    g->generation = generation;
    g->id_base = id_base;
    g->seed = pe_vfile_seed(uuid, generation);
}

static peri_status write_headers(pe_vgen *g)
{
    unsigned char page[2 * PE_VHEADER_PAGE] = {0};
    pe_vheader h = pe_vgen_header(g);
    h.end = PE_VFIRST_BYTE;
    pe_vheader_encode(&h, page);
    memcpy(page + PE_VHEADER_PAGE, page, PE_VHEADER);
    PE_TRY(pe_file_allocate(&g->file, 0, PE_VFIRST_BYTE));
    PE_TRY(pe_file_write(&g->file, page, sizeof page, 0));
    pe_vgen_set_end(g, PE_VFIRST_BYTE);
    return pe_file_sync(&g->file);
}

static peri_status create_temp(pe_vgen *g, const peri_vectors *v)
{
    /* With the lock held, what stands there was left by a writer that died. */
    PE_TRY(pe_file_open(&g->file, v->host.files, v->temp_path, O_RDWR | O_CREAT | O_TRUNC));
    g->file.path = v->path;
    peri_status status = write_headers(g);
    if (status != PERI_OK)
        pe_file_unlink(v->host.files, v->temp_path);
    return status;
}

peri_status pe_vgen_create(pe_vgen **out, peri_vectors *v, uint64_t generation, uint64_t id_base,
                           const uint8_t uuid[16])
{
    pe_vgen *g;
    PE_TRY(new_gen(&g, v, 1));
    set_space(g, &v->space, uuid, generation, id_base);
    peri_status status = create_temp(g, v);
    if (status != PERI_OK) {
        pe_vgen_destroy(NULL, g, 0);
        return status;
    }
    *out = g;
    return PERI_OK;
}

peri_status pe_vgen_name(const pe_vgen *g, const peri_vectors *v, int *renamed)
{
    *renamed = 0;
    PE_TRY(pe_file_sync(&g->file));
    PE_TRY(pe_file_rename(v->host.files, v->temp_path, v->path));
    *renamed = 1;
    return pe_file_sync_dir(v->host.files, v->path);
}

static peri_status load(pe_vgen *g, const char *path)
{
    pe_vheader h;
    uint64_t size;
    PE_TRY(pe_file_open(&g->file, g->host->files, path, g->writable ? O_RDWR : O_RDONLY));
    PE_TRY(pe_file_size(&g->file, &size));
    if (size < 2 * PE_VHEADER_PAGE)
        return pe_fail(PERI_ERR_FORMAT, "%s: %llu bytes are no vector file", path,
                       (unsigned long long)size);
    PE_TRY(read_header(&g->file, &h));
    if (g->writable && h.ro_compat)
        return pe_fail(PERI_ERR_VERSION, "%s: features 0x%llx of a newer version: readable only",
                       path, (unsigned long long)h.ro_compat);
    if (h.end > size || h.end < PE_VFIRST_BYTE)
        return pe_fail(PERI_ERR_CORRUPT, "%s: %llu bytes, the header says %llu", path,
                       (unsigned long long)size, (unsigned long long)h.end);
    peri_space space;
    peri_space_init(&space, h.dim, h.metric);
    space.scalar = h.scalar;
    set_space(g, &space, h.uuid, h.generation, h.id_base);
    return take_chain(g, &h);
}

peri_status pe_vgen_open(pe_vgen **out, peri_vectors *v, int writable)
{
    pe_vgen *g;
    PE_TRY(new_gen(&g, v, writable));
    peri_status status = load(g, v->path);
    if (status != PERI_OK) {
        pe_vgen_destroy(NULL, g, 0);
        return status;
    }
    *out = g;
    return PERI_OK;
}

peri_status pe_vgen_refresh(pe_vgen *g, const char *path, int *changed)
{
    pe_vheader h;
    pe_file f;
    *changed = 0;
    PE_TRY(pe_file_open(&f, g->host->files, path, O_RDONLY));
    peri_status status = read_header(&f, &h);
    (void)pe_file_close(&f);
    PE_TRY(status);
    if (memcmp(h.uuid, g->uuid, sizeof g->uuid) != 0 || h.generation != g->generation ||
        h.sequence < atomic_load(&g->sequence)) {
        *changed = 2;
        return PERI_OK;
    }
    if (h.sequence == atomic_load(&g->sequence))
        return PERI_OK;
    *changed = 1;
    return take_chain(g, &h);
}

uint64_t pe_vgen_frame_sum(const pe_vgen *g, uint64_t sequence)
{
    return sequence >= 1 && sequence <= g->n_frames ? g->frames[sequence - 1].sum : 0;
}
