/* Atoms as the history's values, and back. */
#include "base/checked.h"
#include "log/log_parts.h"
#include "persist/bytes.h"

#include <lz4.h>
#include <zstd.h>

enum { HEAD = 4, ZSTD_LEVEL = 3 };

static uint8_t tag_of(uint32_t type)
{
    return (uint8_t)(type == PERI_ATOM_NULL ? PE_ATOM_NULL : type);
}

/* Room that holds the size and the compressed value; 0 = it does not shrink by an eighth. */
static size_t compress(uint32_t how, const peri_atom *a, unsigned char *room, size_t room_size)
{
    pe_put_le32(room, (uint32_t)a->size);
    size_t n = 0;
    if (how == PERI_COMPRESS_LZ4) {
        int got = LZ4_compress_default(a->data, (char *)room + HEAD, (int)a->size,
                                       (int)(room_size - HEAD));
        n = got > 0 ? (size_t)got : 0;
    } else {
        n = ZSTD_compress(room + HEAD, room_size - HEAD, a->data, a->size, ZSTD_LEVEL);
        n = ZSTD_isError(n) ? 0 : n;
    }
    return n && HEAD + n <= a->size - a->size / 8 ? HEAD + n : 0;
}

static peri_status check_data(const peri_atom *a)
{
    if (a->size > PERI_LOG_VALUE_MAX)
        return pe_fail(PERI_ERR_FULL, "a value of %zu bytes, expected up to %d", a->size,
                       PERI_LOG_VALUE_MAX);
    if (a->size && !a->data)
        return pe_fail(PERI_ERR_ARG, "a value of %zu bytes without data", a->size);
    if (a->type == PERI_ATOM_VECTOR && a->size % 4)
        return pe_fail(PERI_ERR_ARG, "a vector of %zu bytes, expected a multiple of 4", a->size);
    return PERI_OK;
}

peri_status pe_atom_pack(peri_log *log, const peri_atom *a, pe_packed *out)
{
    memset(out, 0, sizeof *out);
    if (!a || a->type > PERI_ATOM_VECTOR)
        return pe_fail(PERI_ERR_ARG, "atom type %u, expected 0 to %d", a ? a->type : 0,
                       PERI_ATOM_VECTOR);
    out->tag = tag_of(a->type);
    if (a->type == PERI_ATOM_FLOAT || a->type == PERI_ATOM_INT) {
        uint64_t bits = (uint64_t)a->integer;
        if (a->type == PERI_ATOM_FLOAT)
            memcpy(&bits, &a->number, sizeof bits);
        pe_put_le64(out->number, bits);
        out->value = (peri_slice){out->number, 8};
        return PERI_OK;
    }
    if (a->type == PERI_ATOM_NULL)
        return PERI_OK;
    PE_TRY(check_data(a));
    out->value = (peri_slice){a->data, a->size};
    uint32_t above = log->config.compress_above ? log->config.compress_above : 256;
    if (log->config.compression == PERI_COMPRESS_NONE || a->size < above)
        return PERI_OK;
    out->room_size = a->size;
    out->room = pe_alloc(&log->host, out->room_size);
    if (!out->room)
        return PERI_ERR_NOMEM;
    size_t n = compress(log->config.compression, a, out->room, out->room_size);
    if (n) {
        out->value = (peri_slice){out->room, n};
        out->tag |= (uint8_t)(log->config.compression << 4);
    }
    return PERI_OK;
}

void pe_atom_unpack_free(peri_log *log, pe_packed *p)
{
    pe_free(&log->host, p->room, p->room_size);
    p->room = NULL;
}

static peri_status decompress(const pe_version *v, peri_atom *out, peri_buf *buf)
{
    unsigned how = v->tag >> 4;
    size_t size = v->size >= HEAD ? pe_get_le32(v->value) : SIZE_MAX;
    /* LZ4 yields at most 255 bytes for one. */
    if (size > PERI_LOG_VALUE_MAX || (how == PERI_COMPRESS_LZ4 && size / 255 > v->size) ||
        how > PERI_COMPRESS_ZSTD || (out->type == PERI_ATOM_VECTOR && size % 4))
        return pe_fail(PERI_ERR_CORRUPT, "a compressed value makes no sense");
    PE_TRY(pe_buf_room(buf, size));
    size_t got;
    if (how == PERI_COMPRESS_LZ4) {
        int n = LZ4_decompress_safe((const char *)v->value + HEAD, buf->data, (int)(v->size - HEAD),
                                    (int)size);
        got = n < 0 ? SIZE_MAX : (size_t)n;
    } else {
        got = ZSTD_decompress(buf->data, size, v->value + HEAD, v->size - HEAD);
    }
    if (got != size)
        return pe_fail(PERI_ERR_CORRUPT, "a compressed value does not unpack");
    buf->size = size;
    out->data = buf->data;
    out->size = size;
    return PERI_OK;
}

peri_status pe_atom_of(const pe_version *v, peri_atom *out, peri_buf *buf, int copy)
{
    memset(out, 0, sizeof *out);
    out->sequence = v->sequence;
    out->time = v->time;
    if (v->kind == PE_OP_DELETE) {
        out->type = PERI_ATOM_DELETED;
        return PERI_OK;
    }
    unsigned type = v->tag & 15;
    if (type == PE_TAG_F64 || type == PE_TAG_I64) {
        if (v->size != 8 || v->tag > 15)
            return pe_fail(PERI_ERR_CORRUPT, "a number of %u bytes", v->size);
        uint64_t bits = pe_get_le64(v->value);
        out->type = type;
        if (type == PE_TAG_F64)
            memcpy(&out->number, &bits, sizeof bits);
        else
            out->integer = (int64_t)bits;
        return PERI_OK;
    }
    out->type = type == PE_ATOM_NULL ? PERI_ATOM_NULL : type;
    if (type < PE_ATOM_TEXT || type > PE_ATOM_NULL ||
        (v->tag <= 15 && type == PE_ATOM_VECTOR && v->size % 4))
        return pe_fail(PERI_ERR_CORRUPT, "a value of type %u with %u bytes", type, v->size);
    if (out->type == PERI_ATOM_NULL)
        return PERI_OK;
    if ((v->tag > 15 || copy) && !buf)
        return pe_fail(PERI_ERR_ARG, "a value of %u bytes and no buffer for it", v->size);
    if (v->tag > 15)
        return decompress(v, out, buf);
    out->data = v->value;
    out->size = v->size;
    if (copy) {
        PE_TRY(pe_buf_set(buf, v->value, v->size));
        out->data = buf->data;
    }
    return PERI_OK;
}
