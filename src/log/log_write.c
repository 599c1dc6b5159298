/* Puts, deletes, batches. */
#include "base/checked.h"
#include "log/log_parts.h"

peri_status peri_log_put(peri_log *log, peri_slice key, const peri_atom *value, uint64_t *sequence)
{
    pe_packed p;
    if (!log)
        return pe_fail(PERI_ERR_ARG, "log is NULL");
    PE_TRY(pe_atom_pack(log, value, &p));
    pe_write w = {PE_OP_PUT, p.tag, value->time, key, p.value};
    peri_status status = pe_history_write(pe_log_history(log), &w, 1, 0, sequence, NULL);
    pe_atom_unpack_free(log, &p);
    return status;
}

peri_status peri_log_delete(peri_log *log, peri_slice key)
{
    size_t done;
    if (!log)
        return pe_fail(PERI_ERR_ARG, "log is NULL");
    pe_write w = {.kind = PE_OP_DELETE, .key = key};
    PE_TRY(pe_history_write(pe_log_history(log), &w, 1, 0, NULL, &done));
    return done ? PERI_OK
                : pe_fail(PERI_ERR_NOT_FOUND, "the key of %zu bytes has no live value", key.size);
}

/* ---- batches ---- */

/* Keys and values lie one behind the other in `bytes`, so writes hold offsets until the commit. */
typedef struct planned {
    size_t key, key_size, value, value_size;
    int64_t time;
    int kind;
    uint8_t tag;
} planned;

struct peri_log_batch {
    peri_log *log;
    planned *planned;
    size_t n, room;
    unsigned char *bytes;
    size_t used, bytes_room;
    pe_write *writes;
    size_t writes_room;
};

peri_status peri_log_batch_create(peri_log_batch **out, peri_log *log)
{
    if (!out || !log)
        return pe_fail(PERI_ERR_ARG, "out or log is NULL");
    *out = pe_calloc(&log->host, sizeof **out);
    if (!*out)
        return PERI_ERR_NOMEM;
    (*out)->log = log;
    return PERI_OK;
}

static peri_status add(peri_log_batch *b, int kind, uint8_t tag, int64_t time, peri_slice key,
                       peri_slice value)
{
    pe_host *host = &b->log->host;
    size_t need;
    if (key.size == 0 || key.size > PERI_LOG_KEY_MAX || !key.data)
        return pe_fail(PERI_ERR_ARG, "a key of %zu bytes, expected 1 to %d", key.size,
                       PERI_LOG_KEY_MAX);
    if (pe_add_size(b->used, key.size, &need) || pe_add_size(need, value.size, &need))
        return pe_fail(PERI_ERR_FULL, "the batch overflows");
    PE_TRY(pe_grow(host, &b->planned, &b->room, b->n + 1, sizeof *b->planned));
    PE_TRY(pe_grow(host, &b->writes, &b->writes_room, b->n + 1, sizeof *b->writes));
    PE_TRY(pe_grow(host, &b->bytes, &b->bytes_room, need + 1, 1));
    b->planned[b->n++] =
        (planned){b->used, key.size, b->used + key.size, value.size, time, kind, tag};
    memcpy(b->bytes + b->used, key.data, key.size);
    if (value.size)
        memcpy(b->bytes + b->used + key.size, value.data, value.size);
    b->used = need;
    return PERI_OK;
}

peri_status peri_log_batch_put(peri_log_batch *b, peri_slice key, const peri_atom *value)
{
    pe_packed p;
    if (!b)
        return pe_fail(PERI_ERR_ARG, "batch is NULL");
    PE_TRY(pe_atom_pack(b->log, value, &p));
    peri_status status = add(b, PE_OP_PUT, p.tag, value->time, key, p.value);
    pe_atom_unpack_free(b->log, &p);
    return status;
}

peri_status peri_log_batch_delete(peri_log_batch *b, peri_slice key)
{
    if (!b)
        return pe_fail(PERI_ERR_ARG, "batch is NULL");
    return add(b, PE_OP_DELETE, 0, 0, key, (peri_slice){NULL, 0});
}

size_t peri_log_batch_count(const peri_log_batch *b)
{
    return b ? b->n : 0;
}

void peri_log_batch_clear(peri_log_batch *b)
{
    if (b)
        b->n = b->used = 0;
}

peri_status peri_log_batch_commit(peri_log_batch *b, uint32_t durability, uint64_t *sequence)
{
    if (!b)
        return pe_fail(PERI_ERR_ARG, "batch is NULL");
    if (durability > PERI_DURABLE_COMMIT)
        return pe_fail(PERI_ERR_ARG, "durability %u, expected 0 to 4", durability);
    if (sequence)
        *sequence = 0;
    if (b->n == 0)
        return PERI_OK;
    for (size_t i = 0; i < b->n; i++) {
        const planned *p = &b->planned[i];
        b->writes[i] = (pe_write){p->kind,
                                  p->tag,
                                  p->time,
                                  {b->bytes + p->key, p->key_size},
                                  {b->bytes + p->value, p->value_size}};
    }
    PE_TRY(
        pe_history_write(pe_log_history(b->log), b->writes, b->n, (int)durability, sequence, NULL));
    peri_log_batch_clear(b);
    return PERI_OK;
}

void peri_log_batch_close(peri_log_batch *b)
{
    if (!b)
        return;
    pe_host *host = &b->log->host;
    pe_free(host, b->planned, b->room * sizeof *b->planned);
    pe_free(host, b->writes, b->writes_room * sizeof *b->writes);
    pe_free(host, b->bytes, b->bytes_room);
    pe_free(host, b, sizeof *b);
}
