/* Putting tensors, and getting them whole. */
#include "base/checked.h"
#include "log/log_tensor.h"
#include "persist/bytes.h"
#include "persist/segment.h"

#include <stdio.h>

enum { PREFIX_MAX = 60000, AT_ONCE = 64 << 20 };

size_t peri_tensor_element(uint32_t type)
{
    static const uint8_t sizes[] = {0, 4, 8, 4, 8};
    return type < sizeof sizes ? sizes[type] : 0;
}

static peri_status check_tensor(const peri_log *log, peri_slice prefix, const peri_tensor *t)
{
    if (!log || !t || !prefix.data || prefix.size == 0 || prefix.size > PREFIX_MAX)
        return pe_fail(PERI_ERR_ARG, "log, prefix (1 to %d bytes) or tensor is missing",
                       PREFIX_MAX);
    size_t size = peri_tensor_element(t->type);
    if (size == 0 || t->dims > PERI_TENSOR_DIMS)
        return pe_fail(PERI_ERR_ARG,
                       "tensor of type %u and %u dimensions, expected 1 to 4 and up "
                       "to %d",
                       t->type, t->dims, PERI_TENSOR_DIMS);
    for (uint32_t d = 0; d < t->dims; d++)
        if (pe_mul_size(size, (size_t)t->shape[d], &size))
            return pe_fail(PERI_ERR_ARG, "the shape overflows");
    if (size != t->size || (size && !t->data))
        return pe_fail(PERI_ERR_ARG, "the shape takes %zu bytes, %zu are given", size, t->size);
    return PERI_OK;
}

static void put_head(unsigned char b[PE_TENSOR_HEAD], const peri_tensor *t, uint64_t first,
                     uint64_t rows, uint64_t put, uint32_t chunk, uint32_t chunks)
{
    memset(b, 0, PE_TENSOR_HEAD);
    memcpy(b, "PTENSOR\1", 8);
    pe_put_le32(b + 8, t->type);
    pe_put_le32(b + 12, t->dims);
    for (uint32_t d = 0; d < t->dims; d++)
        pe_put_le64(b + 16 + 8 * d, t->shape[d]);
    pe_put_le64(b + 80, first);
    pe_put_le64(b + 88, rows);
    pe_put_le64(b + 96, put);
    pe_put_le32(b + 104, chunk);
    pe_put_le32(b + 108, chunks);
}

/* Writes of one put: some values that we build, some deletes. */
typedef struct putting {
    peri_log *log;
    unsigned char *value; /* the chunk being written, head and all */
    size_t value_room;
    char *key;
    size_t key_room;
    pe_key_list stale[2]; /* keys of the former tensor under this prefix: whole, chunks */
} putting;

/* The keys "<prefix>0000" and "<prefix>chunk_<digits>" that there are. */
static peri_status find_stale(putting *p, peri_slice prefix)
{
    static const char *const endings[] = {"0000", "chunk_*"};
    pe_host *host = &p->log->host;
    size_t room = prefix.size * 2 + 16, n = 0;
    char *glob = pe_alloc(host, room);
    if (!glob)
        return PERI_ERR_NOMEM;
    /* The prefix is text, not a pattern: what is special in it is quoted. */
    for (size_t i = 0; i < prefix.size; i++) {
        char c = ((const char *)prefix.data)[i];
        if (memchr("*?[\\", c, 4))
            glob[n++] = '\\';
        glob[n++] = c;
    }
    peri_status status = PERI_OK;
    for (size_t e = 0; e < 2 && status == PERI_OK; e++) {
        memcpy(glob + n, endings[e], strlen(endings[e]));
        status =
            pe_key_list_make(&p->stale[e], p->log, (peri_slice){glob, n + strlen(endings[e])}, 0);
    }
    pe_free(host, glob, room);
    return status;
}

static peri_slice key_of(putting *p, peri_slice prefix, int chunked, uint64_t chunk)
{
    memcpy(p->key, prefix.data, prefix.size);
    int n = snprintf(p->key + prefix.size, 32, chunked ? "chunk_%04llu" : "%04llu",
                     (unsigned long long)chunk);
    return (peri_slice){p->key, prefix.size + (size_t)n};
}

/* One chunk, and with the last one the deletes of what is no longer part of the tensor. */
static peri_status write_chunk(putting *p, peri_slice key, size_t size, int last, uint64_t chunks,
                               int chunked, size_t prefix_size)
{
    pe_host *host = &p->log->host;
    size_t room = (1 + p->stale[0].n + p->stale[1].n) * sizeof(pe_write), n = 1;
    pe_write *w = pe_alloc(host, room);
    if (!w)
        return PERI_ERR_NOMEM;
    w[0] = (pe_write){PE_OP_PUT, PE_ATOM_BYTES, 0, key, {p->value, size}};
    for (int e = 0; e < 2 && last; e++)
        for (size_t i = 0; i < p->stale[e].n; i++) {
            peri_slice k = p->stale[e].keys[i];
            uint64_t number = 0;
            for (size_t c = prefix_size + (e ? 6 : 0); c < k.size; c++)
                number = number * 10 + (uint64_t)(((const char *)k.data)[c] - '0');
            if (e != chunked || number >= chunks) /* else it has just been written anew */
                w[n++] = (pe_write){.kind = PE_OP_DELETE, .key = k};
        }
    peri_status status = pe_history_write(pe_log_history(p->log), w, n, 0, NULL, NULL);
    pe_free(host, w, room);
    return status;
}

static peri_status put_chunks(putting *p, peri_slice prefix, const peri_tensor *t, uint64_t rows,
                              int chunked)
{
    uint64_t all = t->dims ? t->shape[0] : 1, chunks = all ? (all + rows - 1) / rows : 1;
    size_t row = all ? t->size / (size_t)all : 0;
    uint8_t uuid[16];
    PE_TRY(pe_segment_new_uuid(uuid));
    for (uint64_t c = 0; c < chunks; c++) {
        uint64_t first = c * rows, n = all - first < rows ? all - first : rows;
        size_t size = (size_t)n * row;
        put_head(p->value, t, first, n, pe_get_le64(uuid), (uint32_t)c, (uint32_t)chunks);
        if (size)
            memcpy(p->value + PE_TENSOR_HEAD, (const char *)t->data + first * row, size);
        PE_TRY(write_chunk(p, key_of(p, prefix, chunked, c), PE_TENSOR_HEAD + size, c + 1 == chunks,
                           chunks, chunked, prefix.size));
    }
    return PERI_OK;
}

static peri_status put_tensor(peri_log *log, peri_slice prefix, const peri_tensor *t, uint64_t rows,
                              int chunked)
{
    uint64_t all = t->dims ? t->shape[0] : 1;
    size_t most = all ? t->size / (size_t)all * (size_t)(rows < all ? rows : all) : 0;
    if (most > PERI_LOG_VALUE_MAX - PE_TENSOR_HEAD)
        return pe_fail(PERI_ERR_FULL, "%zu bytes in one value, at most %d: put fewer rows a chunk",
                       most, PERI_LOG_VALUE_MAX - PE_TENSOR_HEAD);
    if (all / rows > UINT32_MAX / 2)
        return pe_fail(PERI_ERR_ARG, "%llu chunks are too many", (unsigned long long)(all / rows));
    putting p = {.log = log, .value_room = most + PE_TENSOR_HEAD, .key_room = prefix.size + 40};
    p.value = pe_alloc(&log->host, p.value_room);
    p.key = p.value ? pe_alloc(&log->host, p.key_room) : NULL;
    peri_status status = p.key ? find_stale(&p, prefix) : PERI_ERR_NOMEM;
    if (status == PERI_OK)
        status = put_chunks(&p, prefix, t, rows, chunked);
    pe_key_list_free(&p.stale[0]);
    pe_key_list_free(&p.stale[1]);
    pe_free(&log->host, p.key, p.key_room);
    pe_free(&log->host, p.value, p.value_room);
    return status;
}

peri_status peri_tensor_put(peri_log *log, peri_slice prefix, const peri_tensor *tensor)
{
    PE_TRY(check_tensor(log, prefix, tensor));
    return put_tensor(log, prefix, tensor, UINT64_MAX / 2, 0);
}

peri_status peri_tensor_put_chunked(peri_log *log, peri_slice prefix, const peri_tensor *tensor,
                                    uint64_t rows)
{
    PE_TRY(check_tensor(log, prefix, tensor));
    if (rows == 0)
        return pe_fail(PERI_ERR_ARG, "chunks of 0 rows, expected 1 or more");
    return put_tensor(log, prefix, tensor, rows < UINT64_MAX / 2 ? rows : UINT64_MAX / 2, 1);
}

/* ---- getting ---- */

typedef struct joined {
    const peri_log *log;
    uint64_t as_of;
    pe_piece *pieces;
    size_t n;
    peri_tensor out;
    uint64_t rows;
} joined;

static peri_status agree(joined *j, const pe_piece *p, size_t i)
{
    peri_tensor *o = &j->out;
    if (i == 0) {
        if (o->type == 0)
            o->type = p->type;
        o->dims = p->dims;
        memcpy(o->shape, p->shape, sizeof o->shape);
    }
    const pe_piece *first = &j->pieces[0];
    int same = p->dims == first->dims && p->type == first->type;
    for (uint32_t d = 1; d < p->dims && same; d++)
        same = p->shape[d] == first->shape[d];
    if (!same)
        return pe_fail(PERI_ERR_STATE, "what matches is not of one type and shape");
    j->rows += p->rows;
    return PERI_OK;
}

static peri_status open_pieces(joined *j, const pe_key_list *keys)
{
    pe_chunk_order order = {0};
    for (size_t i = 0; i < keys->n; i++) {
        PE_TRY(pe_piece_open(j->log, keys->keys[i], j->as_of, &j->pieces[i]));
        j->n++;
        PE_TRY(agree(j, &j->pieces[i], i));
        PE_TRY(pe_chunk_follows(&order, &j->pieces[i]));
    }
    return pe_chunk_follows(&order, NULL);
}

static peri_status join(joined *j, peri_buf *buf)
{
    peri_tensor *o = &j->out;
    uint64_t width = pe_piece_width(&j->pieces[0]);
    size_t element = peri_tensor_element(o->type), count, at = 0;
    if (pe_mul_size((size_t)j->rows, (size_t)width, &count) ||
        pe_mul_size(count, element, &o->size))
        return pe_fail(PERI_ERR_NOMEM, "%llu rows overflow", (unsigned long long)j->rows);
    PE_TRY(pe_buf_room(buf, o->size));
    for (size_t i = 0; i < j->n; i++) {
        const pe_piece *p = &j->pieces[i];
        uint64_t n = p->rows * width;
        pe_tensor_convert(o->type, (char *)buf->data + at, p->type, p->data, n);
        at += (size_t)n * element;
    }
    if (o->dims == 0 && j->rows != 1)
        o->dims = 1;
    if (o->dims)
        o->shape[0] = j->rows;
    buf->size = o->size;
    o->data = buf->data;
    return PERI_OK;
}

static peri_status sequence_of(const peri_log *log, uint64_t *sequence)
{
    peri_log_info info;
    peri_log_info_init(&info);
    PE_TRY(peri_log_get_info(log, &info));
    *sequence = info.sequence;
    return PERI_OK;
}

peri_status peri_tensor_get(const peri_log *log, peri_slice glob, uint32_t type, peri_tensor *out,
                            peri_buf *buf)
{
    if (!log || !glob.data || !out || !buf || (type && !peri_tensor_element(type)))
        return pe_fail(PERI_ERR_ARG, "log, glob, out or buf is NULL, or type %u is none", type);
    pe_key_list keys;
    joined j = {.log = log, .out.type = type};
    pe_host *host = &((peri_log *)(uintptr_t)log)->host;
    PE_TRY(sequence_of(log, &j.as_of));
    PE_TRY(pe_key_list_make(&keys, log, glob, j.as_of));
    size_t bytes = keys.n * sizeof *j.pieces;
    peri_status status = keys.n ? PERI_OK : pe_fail(PERI_ERR_NOT_FOUND, "no key matches the glob");
    if (status == PERI_OK) {
        j.pieces = pe_calloc(host, bytes);
        status = j.pieces ? open_pieces(&j, &keys) : PERI_ERR_NOMEM;
    }
    if (status == PERI_OK)
        status = join(&j, buf);
    for (size_t i = 0; i < j.n; i++)
        peri_log_view_release(log, &j.pieces[i].view);
    pe_free(host, j.pieces, bytes);
    pe_key_list_free(&keys);
    if (status == PERI_OK)
        *out = j.out;
    return status;
}

peri_status peri_tensor_map(const peri_log *log, peri_slice prefix, peri_tensor_view *out)
{
    if (!log || !out || !prefix.data || prefix.size == 0 || prefix.size > PREFIX_MAX)
        return pe_fail(PERI_ERR_ARG, "log, prefix (1 to %d bytes) or out is missing", PREFIX_MAX);
    pe_host *host = &((peri_log *)(uintptr_t)log)->host;
    size_t room = prefix.size + 4;
    char *key = pe_alloc(host, room);
    if (!key)
        return PERI_ERR_NOMEM;
    pe_piece *p = pe_calloc(host, sizeof *p);
    memset(out, 0, sizeof *out);
    memcpy(key, prefix.data, prefix.size);
    memcpy(key + prefix.size, "0000", 4);
    peri_status status = p ? pe_piece_open(log, (peri_slice){key, room}, 0, p) : PERI_ERR_NOMEM;
    pe_free(host, key, room);
    if (status == PERI_OK && (!p->is_tensor || p->chunks != 1)) {
        peri_log_view_release(log, &p->view);
        status = pe_fail(PERI_ERR_STATE, "the value is not a whole tensor");
    }
    if (status == PERI_OK) {
        out->view = p->view;
        out->tensor =
            (peri_tensor){.type = p->type, .dims = p->dims, .data = p->data, .size = p->size};
        memcpy(out->tensor.shape, p->shape, sizeof p->shape);
    }
    pe_free(host, p, sizeof *p);
    return status;
}

void peri_tensor_unmap(const peri_log *log, peri_tensor_view *view)
{
    if (!view)
        return;
    peri_log_view_release(log, &view->view);
    memset(view, 0, sizeof *view);
}
