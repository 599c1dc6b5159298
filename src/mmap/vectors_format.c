/* Headers and heads of frames, to bytes and back; the layout is in vectors_format.h. */
#include "mmap/vectors_format.h"

#include <stdio.h>

#define MAGIC     "\x89PRV\r\n\x1a\n"
#define ORDER     0x01020304u
#define FRAME_TAG PE_FOURCC('V', 'F', 'R', 'M')
enum { MAJOR = 1, HEADER_SUM = 248, FRAME_SUM = 120 };

static uint64_t header_seed(void)
{
    return PE_FOURCC('V', 'H', 'D', 'R');
}

uint64_t pe_vframe_seed(uint64_t file_seed, uint64_t at)
{
    return pe_mix64(pe_mix64(file_seed ^ FRAME_TAG) + at);
}

uint64_t pe_vfile_seed(const uint8_t uuid[16], uint64_t generation)
{
    pe_segment_id id = {.generation = generation};
    memcpy(id.uuid, uuid, sizeof id.uuid);
    return pe_segment_file_seed(&id);
}

void pe_vheader_encode(const pe_vheader *h, unsigned char b[PE_VHEADER])
{
    const uint64_t numbers[] = {h->generation, h->sequence, h->id_base,    h->slots,    h->keys,
                                h->end,        h->frame_at, h->frame_size, h->frame_sum};
    memset(b, 0, PE_VHEADER);
    memcpy(b, MAGIC, 8);
    pe_put_le32(b + 8, ORDER);
    pe_put_le16(b + 12, MAJOR);
    pe_put_le32(b + 16, PE_VHEADER);
    pe_put_le32(b + 20, PE_SEGMENT_XXH3);
    pe_put_le32(b + 48, h->dim);
    pe_put_le16(b + 52, h->metric);
    pe_put_le16(b + 54, h->scalar);
    memcpy(b + 56, h->uuid, 16);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        pe_put_le64(b + 72 + 8 * i, numbers[i]);
    snprintf((char *)b + 144, 16, "%d.%d.%d", PERI_VERSION_MAJOR, PERI_VERSION_MINOR,
             PERI_VERSION_PATCH);
    pe_put_le64(b + HEADER_SUM, pe_segment_hash(b, HEADER_SUM, header_seed()));
}

peri_status pe_vheader_decode(const char *path, const unsigned char b[PE_VHEADER], pe_vheader *h)
{
    if (memcmp(b, MAGIC, 8) != 0)
        return pe_fail(PERI_ERR_FORMAT, "%s: not a vector file", path);
    if (pe_get_le64(b + HEADER_SUM) != pe_segment_hash(b, HEADER_SUM, header_seed()))
        return pe_fail(PERI_ERR_CORRUPT, "%s: the header's checksum is wrong", path);
    if (pe_get_le32(b + 8) != ORDER || pe_get_le16(b + 12) > MAJOR ||
        pe_get_le32(b + 20) != PE_SEGMENT_XXH3 || pe_get_le64(b + 40) != 0)
        return pe_fail(PERI_ERR_VERSION, "%s: version %u.%u with features 0x%llx, written by %.15s",
                       path, pe_get_le16(b + 12), pe_get_le16(b + 14),
                       (unsigned long long)pe_get_le64(b + 40), (const char *)b + 144);
    h->ro_compat = pe_get_le64(b + 32);
    h->dim = pe_get_le32(b + 48);
    h->metric = pe_get_le16(b + 52);
    h->scalar = pe_get_le16(b + 54);
    memcpy(h->uuid, b + 56, 16);
    uint64_t *const numbers[] = {&h->generation, &h->sequence,   &h->id_base,
                                 &h->slots,      &h->keys,       &h->end,
                                 &h->frame_at,   &h->frame_size, &h->frame_sum};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        *numbers[i] = pe_get_le64(b + 72 + 8 * i);
    if (h->dim < 1 || h->dim > PERI_MAX_DIM || h->metric < PERI_METRIC_L2 ||
        h->metric > PERI_METRIC_COSINE || h->scalar < PERI_SCALAR_F32 ||
        h->scalar > PERI_SCALAR_I8 || h->slots > PE_MAX_SLOTS || h->keys > h->slots ||
        h->id_base > UINT64_MAX / 2 || (h->frame_at == 0) != (h->sequence == 0))
        return pe_fail(PERI_ERR_CORRUPT, "%s: the header contradicts itself", path);
    return PERI_OK;
}

void pe_vframe_encode(pe_vframe_head *f, unsigned char b[PE_VFRAME_HEAD], uint64_t seed)
{
    memset(b, 0, PE_VFRAME_HEAD);
    pe_put_le32(b, FRAME_TAG);
    pe_put_le32(b + 4, f->n_extents);
    const uint64_t numbers[] = {f->sequence,  f->first,     f->rows,       f->prev_at,
                                f->prev_size, f->prev_sum,  f->size,       f->n_blocks,
                                f->n_fallen,  f->key_bytes, f->payload_sum};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        pe_put_le64(b + 8 + 8 * i, numbers[i]);
    f->sum = pe_segment_hash(b, FRAME_SUM, seed);
    pe_put_le64(b + FRAME_SUM, f->sum);
}

peri_status pe_vframe_fault(const pe_vgen *g, uint64_t at, const char *what)
{
    return pe_fail(PERI_ERR_CORRUPT, "%s: frame at byte %llu: %s", g->file.path,
                   (unsigned long long)at, what);
}

peri_status pe_vframe_read(const pe_vgen *g, uint64_t at, uint64_t size, uint64_t sum, uint64_t end,
                           pe_vframe_head *f)
{
    unsigned char b[PE_VFRAME_HEAD];
    if (at < PE_VFIRST_BYTE || at % PE_VFRAME_ALIGN || at > end || size < PE_VFRAME_HEAD ||
        size > end - at)
        return pe_vframe_fault(g, at, "lies outside of the file");
    PE_TRY(pe_file_read(&g->file, b, sizeof b, at));
    f->sum = pe_get_le64(b + FRAME_SUM);
    if (pe_get_le32(b) != FRAME_TAG || f->sum != sum ||
        f->sum != pe_segment_hash(b, FRAME_SUM, pe_vframe_seed(g->seed, at)))
        return pe_vframe_fault(g, at, "checksum");
    f->n_extents = pe_get_le32(b + 4);
    uint64_t *const numbers[] = {&f->sequence,  &f->first,     &f->rows,       &f->prev_at,
                                 &f->prev_size, &f->prev_sum,  &f->size,       &f->n_blocks,
                                 &f->n_fallen,  &f->key_bytes, &f->payload_sum};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        *numbers[i] = pe_get_le64(b + 8 + 8 * i);
    uint64_t left = size - PE_VFRAME_HEAD,
             norm = g->rows.space.metric == PERI_METRIC_COSINE ? 4 : 0;
    if (f->size != size || f->rows > left / (PE_VKEY_HEAD + norm) || f->n_fallen > left / 4 ||
        f->n_blocks > left / 8 || f->n_extents > left / 16 || f->key_bytes > left ||
        f->n_extents * 16ull + f->n_blocks * 8 + f->rows * norm + f->n_fallen * 4 + f->key_bytes !=
            left)
        return pe_vframe_fault(g, at, "its parts do not make up its length");
    if (f->first > PE_MAX_SLOTS || f->rows > PE_MAX_SLOTS - f->first || f->n_fallen > f->first ||
        f->n_blocks != pe_vgen_blocks(f->first * g->stride, (f->first + f->rows) * g->stride) ||
        (f->prev_at == 0) != (f->first == 0 && f->sequence == 1) || f->prev_at >= at)
        return pe_vframe_fault(g, at, "it contradicts itself");
    return PERI_OK;
}
