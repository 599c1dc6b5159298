/* Batches of rows out of everything that matches, one chunk open at a time. */
#include "base/checked.h"
#include "log/log_tensor.h"

struct peri_tensor_stream {
    const peri_log *log;
    pe_host *host;
    pe_key_list keys;
    uint64_t as_of, batch;
    uint32_t type;
    size_t next; /* key */
    int open;    /* piece holds rows that were not given yet */
    uint64_t row;
    pe_piece piece, first;
    pe_chunk_order order;
    peri_buf buf;
};

peri_status peri_tensor_stream_open(peri_tensor_stream **out, const peri_log *log, peri_slice glob,
                                    uint64_t batch_rows, uint32_t type)
{
    peri_log_info info;
    if (!out || !log || !glob.data || batch_rows == 0 || (type && !peri_tensor_element(type)))
        return pe_fail(PERI_ERR_ARG, "out, log or glob is NULL, batch_rows 0, or type %u is none",
                       type);
    *out = NULL;
    peri_log_info_init(&info);
    PE_TRY(peri_log_get_info(log, &info));
    pe_host *host = &((peri_log *)(uintptr_t)log)->host;
    peri_tensor_stream *s = pe_calloc(host, sizeof *s);
    if (!s)
        return PERI_ERR_NOMEM;
    s->log = log;
    s->host = host;
    s->as_of = info.sequence;
    s->batch = batch_rows;
    s->type = type;
    peri_status status = pe_key_list_make(&s->keys, log, glob, s->as_of);
    if (status == PERI_OK && s->keys.n == 0)
        status = pe_fail(PERI_ERR_NOT_FOUND, "no key matches the glob");
    if (status != PERI_OK) {
        peri_tensor_stream_close(s);
        return status;
    }
    *out = s;
    return PERI_OK;
}

static peri_status open_next(peri_tensor_stream *s)
{
    PE_TRY(pe_piece_open(s->log, s->keys.keys[s->next], s->as_of, &s->piece));
    s->open = 1;
    s->row = 0;
    pe_piece *p = &s->piece;
    if (s->next++ == 0) {
        s->first = *p;
        if (!s->type)
            s->type = p->type;
    }
    int same = p->dims == s->first.dims && p->type == s->first.type;
    for (uint32_t d = 1; d < p->dims && same; d++)
        same = p->shape[d] == s->first.shape[d];
    return same ? pe_chunk_follows(&s->order, p)
                : pe_fail(PERI_ERR_STATE, "what matches is not of one type and shape");
}

static void close_piece(peri_tensor_stream *s)
{
    if (s->open)
        peri_log_view_release(s->log, &s->piece.view);
    s->open = 0;
}

peri_status peri_tensor_stream_next(peri_tensor_stream *s, peri_tensor *out)
{
    if (!s || !out)
        return pe_fail(PERI_ERR_ARG, "stream or out is NULL");
    memset(out, 0, sizeof *out);
    uint64_t rows = 0;
    size_t row = 0;
    while (rows < s->batch && (s->open || s->next < s->keys.n)) {
        if (!s->open)
            PE_TRY(open_next(s));
        uint64_t width = pe_piece_width(&s->piece), left = s->piece.rows - s->row;
        uint64_t n = left < s->batch - rows ? left : s->batch - rows;
        size_t need, from = peri_tensor_element(s->piece.type) * (size_t)width;
        row = peri_tensor_element(s->type) * (size_t)width;
        if (pe_mul_size(row, (size_t)(rows + n), &need))
            return pe_fail(PERI_ERR_NOMEM, "a batch of %llu rows overflows",
                           (unsigned long long)(rows + n));
        if (need > s->buf.capacity) { /* keeping what is there */
            peri_buf more = {0};
            PE_TRY(pe_buf_room(&more, need * 2 < s->batch * row ? need * 2 : need));
            if (rows)
                memcpy(more.data, s->buf.data, (size_t)rows * row);
            peri_buf_free(&s->buf);
            s->buf = more;
        }
        if (n)
            pe_tensor_convert(s->type, (char *)s->buf.data + rows * row, s->piece.type,
                              (const char *)s->piece.data + s->row * from, n * width);
        rows += n;
        s->row += n;
        if (s->row == s->piece.rows)
            close_piece(s);
    }
    if (s->next == s->keys.n && !s->open)
        PE_TRY(pe_chunk_follows(&s->order, NULL));
    out->type = s->type;
    out->dims = s->first.dims ? s->first.dims : 1;
    memcpy(out->shape, s->first.shape, sizeof out->shape);
    out->shape[0] = rows;
    out->data = rows ? s->buf.data : NULL;
    out->size = (size_t)rows * row;
    return PERI_OK;
}

void peri_tensor_stream_close(peri_tensor_stream *s)
{
    if (!s)
        return;
    close_piece(s);
    pe_key_list_free(&s->keys);
    peri_buf_free(&s->buf);
    pe_free(s->host, s, sizeof *s);
}
