/* The model registry. Keys, <name> escaped, <v> in 8 digits:
 *   models/<name>               the newest version (INT): what makes a version visible
 *   model/<name>/<v>/part_<p>   the model's bytes, 64 MiB a part
 *   model/<name>/<v>/info       TEXT: size, parts, time, SHA-256 in hexadecimal
 *   model/<name>/<v>/metadata   TEXT
 *   model/<name>/<v>/stage      INT
 *   model/<name>/production     INT: the newest version in Production, 0 = none
 */
#include "log/log_names.h"
#include "perigee/model.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <time.h>

enum { PART = 64 << 20, SHA = 32, VERSION_MAX = 99999999 };

const char *peri_stage_name(uint32_t stage)
{
    static const char *const names[] = {"Development", "Staging", "Production", "Archived"};
    return stage < 4 ? names[stage] : NULL;
}

static peri_status key_of(pe_name_key *k, peri_slice name, uint64_t version, const char *what)
{
    PE_TRY(pe_name_key_of(k, "model", &name, 1));
    pe_name_key_add(k, "/%08llu/%s", (unsigned long long)version, what);
    return PERI_OK;
}

static peri_status digest(const void *data, size_t size, char hex[65])
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (EVP_Digest(size ? data : "", size, sum, &n, EVP_sha256(), NULL) != 1 || n != SHA)
        return pe_fail(PERI_ERR_INTERNAL, "SHA-256 is not to be had");
    for (unsigned i = 0; i < SHA; i++)
        snprintf(hex + 2 * i, 3, "%02x", sum[i]);
    return PERI_OK;
}

static peri_status newest(const peri_log *log, peri_slice name, uint64_t *version)
{
    pe_name_key k;
    int64_t v;
    PE_TRY(pe_name_key_of(&k, "models", &name, 1));
    peri_status status = peri_log_get_int(log, pe_name_slice(&k), &v);
    if (status == PERI_ERR_NOT_FOUND)
        return pe_fail(status, "no model of that name");
    PE_TRY(status);
    *version = (uint64_t)v;
    return PERI_OK;
}

/* The info and how many parts; a version above the newest one is not there, whatever lies about. */
static peri_status read_info(const peri_log *log, peri_slice name, uint64_t version,
                             peri_model_info *out, uint64_t *parts)
{
    pe_name_key k;
    peri_atom a;
    peri_buf buf = {0};
    uint64_t last = 0;
    int64_t stage;
    PE_TRY(newest(log, name, &last));
    if (version == 0)
        version = last;
    if (version > last)
        return pe_fail(PERI_ERR_NOT_FOUND, "version %llu, the newest is %llu",
                       (unsigned long long)version, (unsigned long long)last);
    memset(out, 0, sizeof *out);
    out->version = version;
    PE_TRY(key_of(&k, name, version, "info"));
    peri_status status = peri_log_get(log, pe_name_slice(&k), 0, &a, &buf);
    char text[160] = {0};
    if (status == PERI_OK && (a.type != PERI_ATOM_TEXT || a.size >= sizeof text))
        status = pe_fail(PERI_ERR_CORRUPT, "the info of version %llu makes no sense",
                         (unsigned long long)version);
    if (status == PERI_OK) {
        memcpy(text, a.data, a.size);
        if (sscanf(text, "size %" SCNu64 " parts %" SCNu64 " time %" SCNd64 " sha256 %64s",
                   &out->size, parts, &out->time, out->sha256) != 4)
            status = pe_fail(PERI_ERR_CORRUPT, "the info of version %llu makes no sense",
                             (unsigned long long)version);
    }
    peri_buf_free(&buf);
    PE_TRY(status);
    PE_TRY(key_of(&k, name, version, "stage"));
    PE_TRY(peri_log_get_int(log, pe_name_slice(&k), &stage));
    out->stage = (uint32_t)stage;
    return PERI_OK;
}

static peri_status put_parts(peri_log *log, peri_slice name, uint64_t version, peri_slice data,
                             uint64_t *parts)
{
    *parts = 0;
    for (size_t at = 0; at < data.size; at += PART) {
        pe_name_key k;
        size_t n = data.size - at < PART ? data.size - at : PART;
        PE_TRY(key_of(&k, name, version, ""));
        pe_name_key_add(&k, "part_%06llu", (unsigned long long)(*parts)++);
        /* As it is, never compressed: models are random bits to a compressor. */
        pe_write w = {
            PE_OP_PUT, PE_ATOM_BYTES, 0, pe_name_slice(&k), {(const char *)data.data + at, n}};
        PE_TRY(pe_history_write(pe_log_history(log), &w, 1, 0, NULL, NULL));
    }
    return PERI_OK;
}

/* What makes the version visible, at once. */
static peri_status publish(peri_log *log, peri_slice name, peri_slice metadata,
                           const peri_model_info *info, uint64_t parts)
{
    peri_log_batch *b;
    pe_name_key k;
    char text[160];
    int n =
        snprintf(text, sizeof text, "size %" PRIu64 " parts %" PRIu64 " time %" PRId64 " sha256 %s",
                 info->size, parts, info->time, info->sha256);
    peri_atom about = pe_atom_text(text, (size_t)n),
              more = pe_atom_text(metadata.data, metadata.size);
    peri_atom stage = pe_atom_int(PERI_STAGE_DEVELOPMENT),
              version = pe_atom_int((int64_t)info->version);
    PE_TRY(peri_log_batch_create(&b, log));
    peri_status status = key_of(&k, name, info->version, "info");
    if (status == PERI_OK)
        status = peri_log_batch_put(b, pe_name_slice(&k), &about);
    if (status == PERI_OK)
        status = key_of(&k, name, info->version, "metadata");
    if (status == PERI_OK)
        status = peri_log_batch_put(b, pe_name_slice(&k), &more);
    if (status == PERI_OK)
        status = key_of(&k, name, info->version, "stage");
    if (status == PERI_OK)
        status = peri_log_batch_put(b, pe_name_slice(&k), &stage);
    if (status == PERI_OK)
        status = pe_name_key_of(&k, "models", &name, 1);
    if (status == PERI_OK)
        status = peri_log_batch_put(b, pe_name_slice(&k), &version);
    if (status == PERI_OK)
        status = peri_log_batch_commit(b, 0, NULL);
    peri_log_batch_close(b);
    return status;
}

peri_status peri_model_save(peri_log *log, peri_slice name, peri_slice data, peri_slice metadata,
                            peri_model_info *out)
{
    peri_model_info info = {0};
    struct timespec now;
    uint64_t last = 0, parts;
    if (!log || (data.size && !data.data) || (metadata.size && !metadata.data))
        return pe_fail(PERI_ERR_ARG, "log, data or metadata is NULL");
    peri_status status = newest(log, name, &last);
    if (status != PERI_OK && status != PERI_ERR_NOT_FOUND)
        return status;
    if (last == VERSION_MAX)
        return pe_fail(PERI_ERR_FULL, "%d versions of one model", VERSION_MAX);
    clock_gettime(CLOCK_REALTIME, &now);
    info.version = last + 1;
    info.size = data.size;
    info.time = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
    PE_TRY(digest(data.data, data.size, info.sha256));
    PE_TRY(put_parts(log, name, info.version, data, &parts));
    PE_TRY(publish(log, name, metadata, &info, parts));
    if (out)
        *out = info;
    return PERI_OK;
}

/* ---- loading ---- */

static peri_status read_parts(const peri_log *log, peri_slice name, const peri_model_info *info,
                              uint64_t parts, peri_buf *data)
{
    size_t at = 0;
    PE_TRY(pe_buf_room(data, (size_t)info->size));
    for (uint64_t p = 0; p < parts; p++) {
        pe_name_key k;
        peri_log_view v;
        PE_TRY(key_of(&k, name, info->version, ""));
        pe_name_key_add(&k, "part_%06llu", (unsigned long long)p);
        PE_TRY(peri_log_view_get(log, pe_name_slice(&k), 0, &v));
        int fits = v.atom.size <= info->size - at;
        if (fits && v.atom.size)
            memcpy((char *)data->data + at, v.atom.data, v.atom.size);
        at += fits ? v.atom.size : 0;
        peri_log_view_release(log, &v);
        if (!fits)
            break;
    }
    data->size = at;
    return PERI_OK;
}

peri_status peri_model_load(const peri_log *log, peri_slice name, uint64_t version, peri_buf *data,
                            peri_buf *metadata, peri_model_info *out)
{
    peri_model_info info;
    uint64_t parts;
    char sum[65];
    peri_atom a;
    pe_name_key k;
    if (!log || !data)
        return pe_fail(PERI_ERR_ARG, "log or data is NULL");
    PE_TRY(read_info(log, name, version, &info, &parts));
    peri_status status = read_parts(log, name, &info, parts, data);
    if (status == PERI_OK)
        status = digest(data->data, data->size, sum);
    if (status == PERI_OK && (data->size != info.size || strcmp(sum, info.sha256) != 0))
        status =
            pe_fail(PERI_ERR_CORRUPT, "version %llu: its SHA-256 is %.16s..., expected %.16s...",
                    (unsigned long long)info.version, sum, info.sha256);
    if (status == PERI_OK && metadata) {
        status = key_of(&k, name, info.version, "metadata");
        if (status == PERI_OK)
            status = peri_log_get(log, pe_name_slice(&k), 0, &a, metadata);
    }
    if (status != PERI_OK)
        data->size = 0;
    else if (out)
        *out = info;
    return status;
}

peri_status peri_model_get_info(const peri_log *log, peri_slice name, uint64_t version,
                                peri_model_info *out)
{
    uint64_t parts;
    if (!log || !out)
        return pe_fail(PERI_ERR_ARG, "log or out is NULL");
    return read_info(log, name, version, out, &parts);
}

/* ---- stages ---- */

peri_status peri_model_production(const peri_log *log, peri_slice name, peri_model_info *out)
{
    pe_name_key k;
    int64_t version = 0;
    if (!log || !out)
        return pe_fail(PERI_ERR_ARG, "log or out is NULL");
    PE_TRY(pe_name_key_of(&k, "model", &name, 1));
    pe_name_key_add(&k, "/production");
    peri_status status = peri_log_get_int(log, pe_name_slice(&k), &version);
    if (status == PERI_ERR_NOT_FOUND || (status == PERI_OK && version == 0))
        return pe_fail(PERI_ERR_NOT_FOUND, "no version is in Production");
    PE_TRY(status);
    return peri_model_get_info(log, name, (uint64_t)version, out);
}

/* The newest version in Production once `changed` is in `stage`. */
static peri_status find_production(const peri_log *log, peri_slice name, uint64_t changed,
                                   uint32_t stage, uint64_t *out)
{
    uint64_t last = 0;
    PE_TRY(newest(log, name, &last));
    *out = 0;
    for (uint64_t v = last; v > 0; v--) {
        pe_name_key k;
        int64_t s = stage;
        PE_TRY(key_of(&k, name, v, "stage"));
        if (v != changed)
            PE_TRY(peri_log_get_int(log, pe_name_slice(&k), &s));
        if (s == PERI_STAGE_PRODUCTION) {
            *out = v;
            return PERI_OK;
        }
    }
    return PERI_OK;
}

peri_status peri_model_set_stage(peri_log *log, peri_slice name, uint64_t version, uint32_t stage)
{
    peri_model_info info;
    peri_log_batch *b;
    pe_name_key k;
    uint64_t production;
    if (!log || stage > PERI_STAGE_ARCHIVED)
        return pe_fail(PERI_ERR_ARG, "log is NULL or stage %u, expected 0 to 3", stage);
    PE_TRY(peri_model_get_info(log, name, version, &info));
    PE_TRY(find_production(log, name, info.version, stage, &production));
    PE_TRY(peri_log_batch_create(&b, log));
    peri_atom to = pe_atom_int(stage), newest_one = pe_atom_int((int64_t)production);
    peri_status status = key_of(&k, name, info.version, "stage");
    if (status == PERI_OK)
        status = peri_log_batch_put(b, pe_name_slice(&k), &to);
    if (status == PERI_OK)
        status = pe_name_key_of(&k, "model", &name, 1);
    if (status == PERI_OK) {
        pe_name_key_add(&k, "/production");
        status = peri_log_batch_put(b, pe_name_slice(&k), &newest_one);
    }
    if (status == PERI_OK)
        status = peri_log_batch_commit(b, 0, NULL);
    peri_log_batch_close(b);
    return status;
}

/* ---- listings ---- */

peri_status peri_model_versions(const peri_log *log, peri_slice name, peri_model_fn fn, void *ctx)
{
    uint64_t last = 0;
    if (!log || !fn)
        return pe_fail(PERI_ERR_ARG, "log or fn is NULL");
    PE_TRY(newest(log, name, &last));
    for (uint64_t v = 1; v <= last; v++) {
        peri_model_info info;
        PE_TRY(peri_model_get_info(log, name, v, &info));
        if (fn(ctx, name, &info))
            break;
    }
    return PERI_OK;
}

typedef struct naming {
    const peri_log *log;
    peri_model_fn fn;
    void *ctx;
    peri_status status;
} naming;

static int give_name(void *ctx, peri_slice key, const peri_atom *value)
{
    naming *n = ctx;
    char name[PE_NAME_MAX + 1];
    peri_model_info info;
    (void)value;
    peri_slice slice = {name, pe_name_part(key, strlen("models/"), name)};
    n->status = peri_model_get_info(n->log, slice, 0, &info);
    return n->status != PERI_OK || n->fn(n->ctx, slice, &info);
}

peri_status peri_model_names(const peri_log *log, peri_model_fn fn, void *ctx)
{
    peri_log_select select;
    naming n = {log, fn, ctx, PERI_OK};
    if (!log || !fn)
        return pe_fail(PERI_ERR_ARG, "log or fn is NULL");
    peri_log_select_init(&select);
    select.prefix = peri_cstr("models/");
    PE_TRY(peri_log_keys(log, &select, give_name, &n));
    return n.status;
}
