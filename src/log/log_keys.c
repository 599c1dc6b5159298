/* Listings of keys and of changes. */
#include "log/log_parts.h"

typedef struct listing {
    const peri_log_select *select;
    peri_log_key_fn fn;
    void *ctx;
    peri_buf buf;
    uint64_t given;
} listing;

/* The scan's own way to end: no error comes of it. */
enum { ENDED = 1 };

static peri_status give(void *ctx, const pe_version *v)
{
    listing *l = ctx;
    peri_atom a;
    if (l->select && l->select->glob.data && !pe_glob_match(l->select->glob, v->key))
        return PERI_OK;
    PE_TRY(pe_atom_of(v, &a, &l->buf, 0));
    l->given++;
    int stop = l->fn(l->ctx, v->key, &a) != 0;
    return stop || (l->select && l->given == l->select->limit) ? (peri_status)ENDED : PERI_OK;
}

static int starts(peri_slice text, peri_slice with)
{
    return with.size == 0 ||
           (text.size >= with.size && memcmp(text.data, with.data, with.size) == 0);
}

peri_status peri_log_keys(const peri_log *log, const peri_log_select *select, peri_log_key_fn fn,
                          void *ctx)
{
    pe_log_read r;
    listing l = {.select = select, .fn = fn, .ctx = ctx};
    peri_slice prefix = {NULL, 0}, after = {NULL, 0};
    if (!fn)
        return pe_fail(PERI_ERR_ARG, "fn is NULL");
    if (select) {
        if (select->struct_size < sizeof *select)
            return pe_fail(PERI_ERR_ARG, "peri_log_select.struct_size is %u, expected %zu or more",
                           select->struct_size, sizeof *select);
        prefix = select->prefix;
        after = select->after;
        if (!prefix.data)
            prefix.size = 0;
        if (select->glob.data) {
            peri_slice fixed = {select->glob.data, pe_glob_prefix(select->glob)};
            if (starts(fixed, prefix))
                prefix = fixed;
            else if (!starts(prefix, fixed))
                return PERI_OK; /* no key begins with both */
        }
        if (after.data && after.size > PERI_LOG_KEY_MAX)
            return pe_fail(PERI_ERR_ARG, "after has %zu bytes, a key has up to %d", after.size,
                           PERI_LOG_KEY_MAX);
    }
    PE_TRY(pe_log_read_begin(&r, log, select ? select->as_of : 0));
    peri_status status = pe_read_scan(&r.read, prefix.size ? prefix : (peri_slice){"", 0}, after,
                                      select && select->deleted, give, &l);
    pe_log_read_end(&r);
    peri_buf_free(&l.buf);
    return status == (peri_status)ENDED ? PERI_OK : status;
}

peri_status peri_log_changes(const peri_log *log, uint64_t since, peri_log_key_fn fn, void *ctx)
{
    pe_log_read r;
    listing l = {.fn = fn, .ctx = ctx};
    if (!fn)
        return pe_fail(PERI_ERR_ARG, "fn is NULL");
    PE_TRY(pe_log_read_begin(&r, log, 0));
    peri_status status = pe_read_changes(&r.read, since, give, &l);
    pe_log_read_end(&r);
    peri_buf_free(&l.buf);
    return status == (peri_status)ENDED ? PERI_OK : status;
}
