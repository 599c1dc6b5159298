/* Values, views, histories, listings. */
#include "base/checked.h"
#include "history/series.h"
#include "log/log_parts.h"

peri_status peri_log_get(const peri_log *log, peri_slice key, uint64_t as_of, peri_atom *out,
                         peri_buf *buf)
{
    pe_log_read r;
    pe_version v;
    if (!out)
        return pe_fail(PERI_ERR_ARG, "out is NULL");
    PE_TRY(pe_log_read_begin(&r, log, as_of));
    peri_status status = pe_read_get(&r.read, key, &v);
    if (status == PERI_OK)
        status = pe_atom_of(&v, out, buf, 1);
    else if (status == PERI_ERR_NOT_FOUND)
        pe_fail(status, "the key of %zu bytes has no live value", key.size);
    pe_log_read_end(&r);
    return status;
}

peri_status peri_log_exists(const peri_log *log, peri_slice key, uint64_t as_of, int *exists)
{
    pe_log_read r;
    pe_version v;
    if (!exists)
        return pe_fail(PERI_ERR_ARG, "exists is NULL");
    PE_TRY(pe_log_read_begin(&r, log, as_of));
    peri_status status = pe_read_get(&r.read, key, &v);
    pe_log_read_end(&r);
    *exists = status == PERI_OK;
    return status == PERI_ERR_NOT_FOUND ? PERI_OK : status;
}

static peri_status typed(const peri_log *log, peri_slice key, uint32_t type, peri_atom *a)
{
    pe_log_read r;
    pe_version v;
    PE_TRY(pe_log_read_begin(&r, log, 0));
    peri_status status = pe_read_get(&r.read, key, &v);
    if (status == PERI_ERR_NOT_FOUND)
        pe_fail(status, "the key of %zu bytes has no live value", key.size);
    else if (status == PERI_OK && (v.tag & 15u) != type)
        status = pe_fail(PERI_ERR_STATE, "the value is of type %u, expected %u",
                         (v.tag & 15u) == PE_ATOM_NULL ? PERI_ATOM_NULL : v.tag & 15u, type);
    if (status == PERI_OK)
        status = pe_atom_of(&v, a, NULL, 0);
    pe_log_read_end(&r);
    return status;
}

peri_status peri_log_get_float(const peri_log *log, peri_slice key, double *out)
{
    peri_atom a;
    if (!out)
        return pe_fail(PERI_ERR_ARG, "out is NULL");
    PE_TRY(typed(log, key, PERI_ATOM_FLOAT, &a));
    *out = a.number;
    return PERI_OK;
}

peri_status peri_log_get_int(const peri_log *log, peri_slice key, int64_t *out)
{
    peri_atom a;
    if (!out)
        return pe_fail(PERI_ERR_ARG, "out is NULL");
    PE_TRY(typed(log, key, PERI_ATOM_INT, &a));
    *out = a.integer;
    return PERI_OK;
}

/* ---- views ---- */

static peri_status view_version(pe_log_read *r, pe_host *host, const pe_version *v,
                                peri_log_view *out)
{
    peri_buf buf = {0};
    peri_status status = pe_atom_of(v, &out->atom, &buf, 0);
    const void *data = out->atom.data;
    if (status == PERI_OK && out->atom.size && data == v->value)
        out->pin = pe_read_pin(&r->read, v);
    if (status == PERI_OK && out->atom.size && !out->pin) {
        void *copy = pe_alloc(host, out->atom.size);
        if (copy) {
            memcpy(copy, data, out->atom.size);
            out->atom.data = copy;
            out->room = out->atom.size;
            out->copied = 1;
        } else {
            status = PERI_ERR_NOMEM;
        }
    }
    if (status == PERI_OK && out->pin) {
        atomic_fetch_add(&r->state->pins, 1);
        out->state = r->state;
    }
    peri_buf_free(&buf);
    return status;
}

peri_status peri_log_view_get(const peri_log *log, peri_slice key, uint64_t as_of,
                              peri_log_view *out)
{
    pe_log_read r;
    pe_version v;
    if (!out)
        return pe_fail(PERI_ERR_ARG, "out is NULL");
    memset(out, 0, sizeof *out);
    PE_TRY(pe_log_read_begin(&r, log, as_of));
    peri_status status = pe_read_get(&r.read, key, &v);
    if (status == PERI_OK)
        status = view_version(&r, &((peri_log *)(uintptr_t)log)->host, &v, out);
    else if (status == PERI_ERR_NOT_FOUND)
        pe_fail(status, "the key of %zu bytes has no live value", key.size);
    pe_log_read_end(&r);
    return status;
}

void peri_log_view_release(const peri_log *log, peri_log_view *view)
{
    if (!log || !view)
        return;
    peri_log *l = (peri_log *)(uintptr_t)log;
    if (view->pin) {
        pe_log_state *s = view->state;
        pe_history_unpin(s->history, view->pin);
        atomic_fetch_sub(&s->pins, 1);
    }
    if (view->copied)
        pe_free(&l->host, (void *)(uintptr_t)view->atom.data, view->room);
    memset(view, 0, sizeof *view);
}

/* ---- histories ---- */

static peri_status check_range(const peri_log_range *range, peri_log_range *out)
{
    peri_log_range_init(out);
    out->limit = UINT64_MAX;
    if (!range)
        return PERI_OK;
    if (range->struct_size < sizeof *range)
        return pe_fail(PERI_ERR_ARG, "peri_log_range.struct_size is %u, expected %zu or more",
                       range->struct_size, sizeof *range);
    *out = *range;
    if (out->limit == 0)
        out->limit = UINT64_MAX;
    return PERI_OK;
}

static int in_range(const peri_log_range *range, uint64_t as_of, uint64_t sequence, int64_t time)
{
    return sequence <= as_of && time >= range->time_from && time < range->time_to;
}

typedef struct walk {
    const peri_log_range *range;
    pe_read *read;
    peri_log_version_fn fn;
    void *ctx;
    peri_buf buf;
    uint64_t *columns; /* sequences, times, values of one block */
    uint64_t given;
    int stop;
} walk;

static peri_status give(walk *w, const pe_version *v)
{
    peri_atom a;
    if (!in_range(w->range, w->read->as_of, v->sequence, v->time))
        return PERI_OK;
    PE_TRY(pe_atom_of(v, &a, &w->buf, 0));
    w->stop = w->fn(w->ctx, &a) != 0 || ++w->given == w->range->limit;
    return PERI_OK;
}

static peri_status give_block(walk *w, const pe_version *block)
{
    size_t n = pe_series_count(block->value, block->size);
    uint64_t *times = w->columns + PE_SERIES_MAX, *values = times + PE_SERIES_MAX;
    PE_TRY(pe_series_unpack(block->value, block->size, w->columns, (int64_t *)times, values));
    for (size_t i = n; i-- > 0 && !w->stop;) {
        pe_version v = *block;
        v.kind = PE_OP_PUT;
        v.sequence = w->columns[i];
        v.time = (int64_t)times[i];
        v.value = (const unsigned char *)&values[i];
        v.size = 8;
        PE_TRY(give(w, &v));
    }
    return PERI_OK;
}

static peri_status walk_versions(walk *w, peri_slice key)
{
    pe_version v;
    peri_status status = pe_read_head(w->read, key, &v);
    if (status == PERI_ERR_NOT_FOUND)
        return pe_fail(status, "the key of %zu bytes has no history", key.size);
    for (; status == PERI_OK && !w->stop; status = pe_read_former(w->read, &v))
        if (v.kind == PE_OP_BLOCK)
            PE_TRY(give_block(w, &v));
        else
            PE_TRY(give(w, &v));
    return status == PERI_ERR_NOT_FOUND ? PERI_OK : status;
}

enum { COLUMNS = PE_SERIES_MAX * 3 * 8 };

peri_status peri_log_history(const peri_log *log, peri_slice key, const peri_log_range *range,
                             peri_log_version_fn fn, void *ctx)
{
    peri_log_range full;
    pe_log_read r;
    if (!fn)
        return pe_fail(PERI_ERR_ARG, "fn is NULL");
    PE_TRY(check_range(range, &full));
    PE_TRY(pe_log_read_begin(&r, log, full.as_of));
    pe_host *host = &((peri_log *)(uintptr_t)log)->host;
    walk w = {.range = &full, .read = &r.read, .fn = fn, .ctx = ctx};
    w.columns = pe_alloc(host, COLUMNS);
    peri_status status = w.columns ? walk_versions(&w, key) : PERI_ERR_NOMEM;
    pe_free(host, w.columns, COLUMNS);
    peri_buf_free(&w.buf);
    pe_log_read_end(&r);
    return status;
}

/* ---- series: filled from the end, since the chain goes backwards ---- */

typedef struct series {
    const peri_log_range *range;
    pe_read *read;
    double *values; /* room for `left` of them in front of what is filled */
    int64_t *times; /* or NULL */
    size_t left, given;
    uint64_t *columns;
} series;

static void put_number(series *s, uint64_t bits, int whole, int64_t time)
{
    double d;
    if (whole)
        d = (double)(int64_t)bits;
    else
        memcpy(&d, &bits, sizeof d);
    s->values[--s->left] = d;
    if (s->times)
        s->times[s->left] = time;
    s->given++;
}

/* All of a block, straight to where it belongs. */
static peri_status put_block_whole(series *s, const pe_version *v, size_t n)
{
    uint64_t *to = (uint64_t *)(void *)(s->values + s->left - n);
    PE_TRY(pe_series_unpack(v->value, v->size, NULL, s->times ? s->times + s->left - n : NULL, to));
    s->left -= n;
    s->given += n;
    return PERI_OK;
}

static peri_status put_block(series *s, const pe_version *v)
{
    size_t n = pe_series_count(v->value, v->size);
    int every = s->range->time_from == INT64_MIN && s->range->time_to == INT64_MAX &&
                v->sequence <= s->read->as_of && v->tag == PE_TAG_F64;
    if (n > s->left)
        return pe_fail(PERI_ERR_CORRUPT, "a block of %zu versions where %zu are left", n, s->left);
    if (every && n <= s->range->limit - s->given)
        return put_block_whole(s, v, n);
    uint64_t *times = s->columns + PE_SERIES_MAX, *values = times + PE_SERIES_MAX;
    PE_TRY(pe_series_unpack(v->value, v->size, s->columns, (int64_t *)times, values));
    for (size_t i = n; i-- > 0 && s->given < s->range->limit;)
        if (in_range(s->range, s->read->as_of, s->columns[i], (int64_t)times[i]))
            put_number(s, values[i], v->tag == PE_TAG_I64, (int64_t)times[i]);
    return PERI_OK;
}

static peri_status fill(series *s, pe_version v)
{
    peri_status status = PERI_OK;
    for (; status == PERI_OK && s->given < s->range->limit; status = pe_read_former(s->read, &v)) {
        unsigned type = v.tag & 15;
        if (v.kind == PE_OP_BLOCK) {
            PE_TRY(put_block(s, &v));
        } else if (v.kind == PE_OP_PUT && (type == PE_TAG_F64 || type == PE_TAG_I64) &&
                   in_range(s->range, s->read->as_of, v.sequence, v.time)) {
            peri_atom a;
            PE_TRY(pe_atom_of(&v, &a, NULL, 0));
            if (s->left == 0)
                return pe_fail(PERI_ERR_CORRUPT, "a key has more versions than it says");
            uint64_t bits = (uint64_t)a.integer;
            if (type == PE_TAG_F64)
                memcpy(&bits, &a.number, sizeof bits);
            put_number(s, bits, type == PE_TAG_I64, v.time);
        }
    }
    return status == PERI_ERR_NOT_FOUND ? PERI_OK : status;
}

static peri_status collect(series *s, peri_slice key, peri_buf *values, peri_buf *times)
{
    pe_version v;
    size_t bytes;
    peri_status status = pe_read_head(s->read, key, &v);
    if (status == PERI_ERR_NOT_FOUND)
        return pe_fail(status, "the key of %zu bytes has no history", key.size);
    PE_TRY(status);
    if (pe_mul_size(v.depth, sizeof(double), &bytes))
        return pe_fail(PERI_ERR_NOMEM, "%u versions overflow", v.depth);
    PE_TRY(pe_buf_room(values, bytes));
    if (times)
        PE_TRY(pe_buf_room(times, bytes));
    s->values = values->data;
    s->times = times ? times->data : NULL;
    s->left = v.depth;
    PE_TRY(fill(s, v));
    if (s->left && s->given) {
        memmove(s->values, s->values + s->left, s->given * sizeof(double));
        if (s->times)
            memmove(s->times, s->times + s->left, s->given * sizeof(int64_t));
    }
    values->size = s->given * sizeof(double);
    if (times)
        times->size = s->given * sizeof(int64_t);
    return PERI_OK;
}

peri_status peri_log_series(const peri_log *log, peri_slice key, const peri_log_range *range,
                            peri_buf *values, peri_buf *times, size_t *n)
{
    peri_log_range full;
    pe_log_read r;
    if (!values || !n)
        return pe_fail(PERI_ERR_ARG, "values or n is NULL");
    *n = 0;
    PE_TRY(check_range(range, &full));
    PE_TRY(pe_log_read_begin(&r, log, full.as_of));
    pe_host *host = &((peri_log *)(uintptr_t)log)->host;
    series s = {.range = &full, .read = &r.read};
    s.columns = pe_alloc(host, COLUMNS);
    peri_status status = s.columns ? collect(&s, key, values, times) : PERI_ERR_NOMEM;
    pe_free(host, s.columns, COLUMNS);
    pe_log_read_end(&r);
    *n = status == PERI_OK ? s.given : 0;
    return status;
}
