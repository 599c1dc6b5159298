/* Checkpoints: the frame, a sync, one header, a sync, the other header; see vectors_format.h. */
#include "base/checked.h"
#include "mmap/vectors_format.h"

pe_vheader pe_vgen_header(const pe_vgen *g)
{
    pe_vheader h = {.dim = g->rows.space.dim,
                    .metric = g->rows.space.metric,
                    .scalar = g->rows.space.scalar,
                    .generation = g->generation,
                    .id_base = g->id_base,
                    .keys = atomic_load_explicit(&g->keys.live, memory_order_relaxed)};
    memcpy(h.uuid, g->uuid, sizeof h.uuid);
    return h;
}

static uint64_t key_bytes(const pe_vgen *g, uint32_t count)
{
    uint64_t bytes = 0;
    for (uint32_t slot = g->saved; slot < count; slot++) {
        int dead = atomic_load_explicit(pe_vgen_died(g, slot), memory_order_relaxed) != 0;
        bytes += PE_VKEY_HEAD + (dead ? 0 : pe_vkeys_of(&g->keys, slot).size);
    }
    return bytes;
}

static peri_status fill_frame(const pe_vgen *g, const pe_vframe_head *f, uint32_t count,
                              unsigned char *p)
{
    for (size_t i = g->extents_saved; i < g->n_extents; i++, p += 16) {
        pe_put_le64(p, g->extents[i].offset);
        pe_put_le64(p + 8, g->extents[i].bytes);
    }
    PE_TRY(pe_vgen_sum_blocks(g, (uint64_t)g->saved * g->stride, (uint64_t)count * g->stride, p));
    p += f->n_blocks * 8;
    if (g->rows.space.metric == PERI_METRIC_COSINE)
        for (uint32_t slot = g->saved; slot < count; slot++, p += 4)
            memcpy(p, pe_array_at(&g->rows.norms, slot), 4);
    for (size_t i = 0; i < g->n_fallen; i++, p += 4)
        pe_put_le32(p, g->fallen[i]);
    for (uint32_t slot = g->saved; slot < count; slot++) {
        int dead = atomic_load_explicit(pe_vgen_died(g, slot), memory_order_relaxed) != 0;
        peri_slice key = pe_vkeys_of(&g->keys, slot);
        size_t size = dead ? 0 : key.size;
        pe_put_le16(p, (uint16_t)size);
        if (size)
            memcpy(p + PE_VKEY_HEAD, key.data, size);
        p += PE_VKEY_HEAD + size;
    }
    return PERI_OK;
}

static pe_vframe_head next_frame(const pe_vgen *g, uint32_t count)
{
    pe_vframe_head f = {.n_extents = (uint32_t)(g->n_extents - g->extents_saved),
                        .sequence = atomic_load(&g->sequence) + 1,
                        .first = g->saved,
                        .rows = count - g->saved,
                        .prev_at = g->frame_at,
                        .prev_size = g->frame_size,
                        .prev_sum = g->frame_sum,
                        .n_fallen = g->n_fallen,
                        .key_bytes = key_bytes(g, count)};
    f.n_blocks = pe_vgen_blocks((uint64_t)g->saved * g->stride, (uint64_t)count * g->stride);
    f.size = PE_VFRAME_HEAD + f.n_extents * 16ull + f.n_blocks * 8 + f.n_fallen * 4 + f.key_bytes;
    if (g->rows.space.metric == PERI_METRIC_COSINE)
        f.size += f.rows * 4;
    return f;
}

static peri_status write_frame(pe_vgen *g, pe_vframe_head *f, uint64_t at, uint32_t count)
{
    unsigned char *b =
        pe_alloc_aligned(g->host, (size_t)f->size, f->size >= PE_HUGE ? PE_HUGE : PE_ALIGN);
    if (!b)
        return PERI_ERR_NOMEM;
    peri_status status = fill_frame(g, f, count, b + PE_VFRAME_HEAD);
    if (status == PERI_OK) {
        uint64_t seed = pe_vframe_seed(g->seed, at);
        f->payload_sum =
            pe_segment_hash(b + PE_VFRAME_HEAD, (size_t)f->size - PE_VFRAME_HEAD, seed);
        pe_vframe_encode(f, b, seed);
        status = pe_file_allocate(&g->file, at, pe_round_up(f->size, PE_VFRAME_ALIGN));
    }
    if (status == PERI_OK)
        status = pe_file_write(&g->file, b, (size_t)f->size, at);
    pe_free(g->host, b, (size_t)f->size);
    return status;
}

static peri_status sync_file(const pe_vgen *g, int *poisoned)
{
    peri_status status = pe_file_sync(&g->file);
    *poisoned = status != PERI_OK;
    return status;
}

peri_status pe_vgen_checkpoint(pe_vgen *g, int *poisoned)
{
    uint32_t count = pe_vgen_count(g);
    *poisoned = 0;
    if (count == g->saved && g->n_fallen == 0)
        return PERI_OK;
    PE_TRY(pe_grow(g->host, &g->frames, &g->frames_room, g->n_frames + 1, sizeof *g->frames));
    pe_vframe_head f = next_frame(g, count);
    uint64_t at = pe_round_up(g->end, PE_VFRAME_ALIGN),
             end = at + pe_round_up(f.size, PE_VFRAME_ALIGN);
    PE_TRY(write_frame(g, &f, at, count));
    PE_TRY(sync_file(g, poisoned)); /* V4 */
    unsigned char b[PE_VHEADER];
    pe_vheader h = pe_vgen_header(g);
    h.sequence = f.sequence;
    h.slots = count;
    h.end = end;
    h.frame_at = at;
    h.frame_size = f.size;
    h.frame_sum = f.sum;
    pe_vheader_encode(&h, b);
    uint64_t side = f.sequence % 2 * PE_VHEADER_PAGE;
    peri_status status = pe_file_write(&g->file, b, sizeof b, side);
    *poisoned = status != PERI_OK; /* it may be there: its frame must not be written over */
    PE_TRY(status);
    PE_TRY(sync_file(g, poisoned));
    /* Done. What goes wrong with the copy leaves the file as good as before. */
    (void)pe_file_write(&g->file, b, sizeof b, PE_VHEADER_PAGE - side);
    pe_vgen_set_end(g, end);
    g->extents_saved = g->n_extents;
    g->n_fallen = 0;
    g->saved = count;
    g->frame_at = at;
    g->frame_size = f.size;
    g->frame_sum = f.sum;
    g->frames[g->n_frames++] = (pe_vframe){f.sequence, f.sum};
    atomic_store_explicit(&g->saved_count, count, memory_order_relaxed);
    atomic_store_explicit(&g->sequence, f.sequence, memory_order_release);
    return PERI_OK;
}
