/* Writing runs. */
#include "log/log_run.h"
#include "persist/segment.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

const char *peri_run_state_name(uint32_t state)
{
    static const char *const names[] = {"running", "completed", "failed", "killed"};
    return state < 4 ? names[state] : NULL;
}

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

peri_status pe_run_key(pe_name_key *k, const char *id, const char *what, const peri_slice *name)
{
    if (!id || strlen(id) != PERI_RUN_ID - 1 || strspn(id, "0123456789abcdef") != PERI_RUN_ID - 1)
        return pe_fail(PERI_ERR_ARG, "'%.40s' is no id of a run: 32 hexadecimal digits",
                       id ? id : "NULL");
    char head[64];
    snprintf(head, sizeof head, "run/%s/%s", id, what);
    return pe_name_key_of(k, head, name, name != NULL);
}

static int info_text(char out[96], const peri_run_info *i)
{
    return snprintf(out, 96, "started %" PRId64 " finished %" PRId64 " state %u", i->started,
                    i->finished, i->state);
}

static peri_status put_info(peri_log_batch *b, const peri_run_info *info)
{
    pe_name_key k;
    char text[96];
    peri_atom a = pe_atom_text(text, (size_t)info_text(text, info));
    PE_TRY(pe_run_key(&k, info->id, "info", NULL));
    return peri_log_batch_put(b, pe_name_slice(&k), &a);
}

peri_status peri_run_get(const peri_log *log, const char *id, peri_run_info *out)
{
    pe_name_key k;
    peri_atom a;
    peri_buf buf = {0};
    char text[96] = {0};
    if (!log || !out)
        return pe_fail(PERI_ERR_ARG, "log or out is NULL");
    PE_TRY(pe_run_key(&k, id, "info", NULL));
    peri_status status = peri_log_get(log, pe_name_slice(&k), 0, &a, &buf);
    if (status == PERI_ERR_NOT_FOUND)
        return pe_fail(status, "no run %s", id);
    if (status == PERI_OK)
        memcpy(text, a.data, a.size < sizeof text ? a.size : 0);
    peri_buf_free(&buf);
    PE_TRY(status);
    memset(out, 0, sizeof *out);
    memcpy(out->id, id, PERI_RUN_ID);
    if (sscanf(text, "started %" SCNd64 " finished %" SCNd64 " state %u", &out->started,
               &out->finished, &out->state) != 3)
        return pe_fail(PERI_ERR_CORRUPT, "the info of run %s makes no sense", id);
    return PERI_OK;
}

static peri_status fill_start(peri_log_batch *b, peri_slice experiment, const peri_slice *tags,
                              size_t n_tags, const peri_run_info *info)
{
    pe_name_key k;
    peri_atom null = {0};
    PE_TRY(pe_name_key_of(&k, "experiments", &experiment, 1));
    PE_TRY(peri_log_batch_put(b, pe_name_slice(&k), &null));
    PE_TRY(pe_name_key_of(&k, "runs", &experiment, 1));
    pe_name_key_add(&k, "/%016llx%s", (unsigned long long)info->started, info->id);
    PE_TRY(peri_log_batch_put(b, pe_name_slice(&k), &null));
    for (size_t i = 0; i < n_tags; i++) {
        PE_TRY(pe_run_key(&k, info->id, "tag", &tags[i]));
        PE_TRY(peri_log_batch_put(b, pe_name_slice(&k), &null));
    }
    return put_info(b, info);
}

peri_status peri_run_start(peri_log *log, peri_slice experiment, const peri_slice *tags,
                           size_t n_tags, char id[PERI_RUN_ID])
{
    peri_log_batch *b;
    peri_run_info info = {0};
    uint8_t uuid[16];
    if (!log || !id || (n_tags && !tags))
        return pe_fail(PERI_ERR_ARG, "log, id or tags is NULL");
    PE_TRY(pe_segment_new_uuid(uuid));
    for (unsigned i = 0; i < 16; i++)
        snprintf(info.id + 2 * i, 3, "%02x", uuid[i]);
    info.started = now_us();
    PE_TRY(peri_log_batch_create(&b, log));
    peri_status status = fill_start(b, experiment, tags, n_tags, &info);
    if (status == PERI_OK)
        status = peri_log_batch_commit(b, 0, NULL);
    peri_log_batch_close(b);
    if (status == PERI_OK)
        memcpy(id, info.id, PERI_RUN_ID);
    return status;
}

peri_status peri_run_finish(peri_log *log, const char *id, uint32_t state)
{
    peri_run_info info;
    peri_log_batch *b;
    if (!log || state < PERI_RUN_COMPLETED || state > PERI_RUN_KILLED)
        return pe_fail(PERI_ERR_ARG, "log is NULL or state %u, expected 1 to 3", state);
    PE_TRY(peri_run_get(log, id, &info));
    if (info.state != PERI_RUN_RUNNING)
        return pe_fail(PERI_ERR_STATE, "run %s has ended: %s", id, peri_run_state_name(info.state));
    info.state = state;
    info.finished = now_us();
    PE_TRY(peri_log_batch_create(&b, log));
    peri_status status = put_info(b, &info);
    if (status == PERI_OK)
        status = peri_log_batch_commit(b, 0, NULL);
    peri_log_batch_close(b);
    return status;
}

static peri_status put_item(peri_log *log, const char *id, const char *what, peri_slice name,
                            const peri_atom *value)
{
    pe_name_key k;
    peri_run_info info;
    if (!log || (value->size && !value->data))
        return pe_fail(PERI_ERR_ARG, "log or value is NULL");
    PE_TRY(pe_run_key(&k, id, what, &name));
    PE_TRY(peri_run_get(log, id, &info));
    return peri_log_put(log, pe_name_slice(&k), value, NULL);
}

peri_status peri_run_tag(peri_log *log, const char *id, peri_slice tag)
{
    peri_atom null = {0};
    return put_item(log, id, "tag", tag, &null);
}

peri_status peri_run_param(peri_log *log, const char *id, peri_slice name, peri_slice value)
{
    peri_atom a = pe_atom_text(value.data, value.size);
    return put_item(log, id, "param", name, &a);
}

peri_status peri_run_artifact(peri_log *log, const char *id, peri_slice name, peri_slice data)
{
    peri_atom a = {.type = PERI_ATOM_BYTES, .data = data.data, .size = data.size};
    return put_item(log, id, "artifact", name, &a);
}

static peri_status add_metrics(peri_log_batch *b, const char *id, size_t n, const peri_slice *names,
                               const double *values, int64_t step)
{
    for (size_t i = 0; i < n; i++) {
        pe_name_key k;
        peri_atom value = {.type = PERI_ATOM_FLOAT, .number = values[i]}, at = pe_atom_int(step);
        PE_TRY(pe_run_key(&k, id, "metric", &names[i]));
        PE_TRY(peri_log_batch_put(b, pe_name_slice(&k), &value));
        PE_TRY(pe_run_key(&k, id, "step", &names[i]));
        PE_TRY(peri_log_batch_put(b, pe_name_slice(&k), &at));
    }
    return PERI_OK;
}

peri_status peri_run_metrics(peri_log *log, const char *id, size_t n, const peri_slice *names,
                             const double *values, int64_t step)
{
    peri_log_batch *b;
    peri_run_info info;
    if (!log || (n && (!names || !values)))
        return pe_fail(PERI_ERR_ARG, "log, names or values is NULL");
    PE_TRY(peri_run_get(log, id, &info));
    PE_TRY(peri_log_batch_create(&b, log));
    peri_status status = add_metrics(b, id, n, names, values, step);
    if (status == PERI_OK)
        status = peri_log_batch_commit(b, 0, NULL);
    peri_log_batch_close(b);
    return status;
}
