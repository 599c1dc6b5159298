/* The handle's life. A read-only handle that refreshes across a compaction opens the directory anew
 * and swaps the whole state; reads that began in the old one end there. */
#include "log/log_parts.h"

static pe_history_config history_config(const peri_log *log, int accept_loss)
{
    const peri_log_config *c = &log->config;
    return (pe_history_config){.dir = log->path,
                               .readonly = (c->flags & PERI_LOG_READONLY) != 0,
                               .create = !(c->flags & (PERI_LOG_READONLY | PERI_LOG_EXISTING)),
                               .accept_loss = accept_loss,
                               .durability = c->durability ? c->durability : PERI_DURABLE_COMMIT,
                               .interval_ms = c->interval_ms,
                               .file_size = c->file_size,
                               .compress = (c->flags & PERI_LOG_SERIES) != 0};
}

static peri_status check_config(const peri_log_config *c)
{
    if (c->struct_size < sizeof *c)
        return pe_fail(PERI_ERR_ARG, "peri_log_config.struct_size is %u, expected %zu or more",
                       c->struct_size, sizeof *c);
    if (c->flags & ~(uint32_t)(PERI_LOG_READONLY | PERI_LOG_EXISTING | PERI_LOG_SERIES))
        return pe_fail(PERI_ERR_CONFIG, "flags 0x%x, known are 0x7", c->flags);
    if (c->durability > PERI_DURABLE_COMMIT)
        return pe_fail(PERI_ERR_CONFIG, "durability %u, expected 0 to 4", c->durability);
    if (c->compression > PERI_COMPRESS_ZSTD)
        return pe_fail(PERI_ERR_CONFIG, "compression %u, expected 0 to 2", c->compression);
    if (c->file_size && (c->file_size < 1 << 16 || c->file_size > (uint64_t)1 << 38))
        return pe_fail(PERI_ERR_CONFIG, "file_size %llu, expected 64 KiB to 256 GiB",
                       (unsigned long long)c->file_size);
    return PERI_OK;
}

static peri_status open_state(peri_log *log, int accept_loss, pe_log_state **out)
{
    pe_history_config c = history_config(log, accept_loss);
    pe_log_state *s = pe_calloc(&log->host, sizeof *s);
    if (!s)
        return PERI_ERR_NOMEM;
    /* A reader may meet a writer's compaction half way: then it reads the manifest again. */
    peri_status status = PERI_ERR_NOT_FOUND;
    for (int tries = 0; tries < 5 && status == PERI_ERR_NOT_FOUND; tries++) {
        status = pe_history_open(&s->history, log->has_env ? &log->env : NULL, &c);
        if (!c.readonly)
            break;
    }
    if (status != PERI_OK) {
        pe_free(&log->host, s, sizeof *s);
        return status;
    }
    *out = s;
    return PERI_OK;
}

static peri_status open_log(peri_log **out, const char *path, const peri_log_config *config,
                            const peri_env *env, int accept_loss)
{
    pe_host host;
    pe_log_state *state;
    PE_TRY(pe_host_init(&host, env));
    peri_log *log = pe_calloc(&host, sizeof *log);
    if (!log)
        return PERI_ERR_NOMEM;
    log->host = host;
    peri_log_config_init(&log->config);
    if (config)
        log->config = *config;
    log->has_env = env != NULL;
    if (env)
        log->env = *env;
    pe_epoch_init(&log->epoch, &log->host, log);
    pthread_mutex_init(&log->refresh, NULL);
    log->path_room = strlen(path) + 1;
    log->path = pe_alloc(&log->host, log->path_room);
    peri_status status = log->path ? PERI_OK : PERI_ERR_NOMEM;
    if (status == PERI_OK) {
        memcpy(log->path, path, log->path_room);
        status = open_state(log, accept_loss, &state);
    }
    if (status != PERI_OK) {
        char detail[PE_DETAIL_SIZE];
        pe_detail_copy(detail);
        peri_log_close(log);
        pe_detail_set(detail);
        return status;
    }
    atomic_store(&log->state, state);
    *out = log;
    return PERI_OK;
}

peri_status peri_log_open(peri_log **out, const char *path, const peri_log_config *config,
                          const peri_env *env)
{
    if (!out)
        return pe_fail(PERI_ERR_ARG, "out is NULL");
    *out = NULL;
    if (!path)
        return pe_fail(PERI_ERR_ARG, "path is NULL");
    if (config)
        PE_TRY(check_config(config));
    return open_log(out, path, config, env, 0);
}

peri_status peri_log_repair(const char *path, const peri_env *env, uint64_t *lost_from,
                            uint64_t *lost_to)
{
    peri_log *log;
    peri_log_config config;
    peri_log_info info;
    if (!path)
        return pe_fail(PERI_ERR_ARG, "path is NULL");
    peri_log_config_init(&config);
    config.flags = PERI_LOG_EXISTING;
    PE_TRY(open_log(&log, path, &config, env, 1));
    peri_log_info_init(&info);
    peri_status status = peri_log_get_info(log, &info);
    peri_log_close(log);
    if (lost_from)
        *lost_from = info.lost_from;
    if (lost_to)
        *lost_to = info.lost_to;
    return status;
}

static void free_state(void *owner, void *ptr, uint64_t arg)
{
    peri_log *log = owner;
    pe_log_state *s = ptr;
    (void)arg;
    if (atomic_load(&s->pins) != 0) {
        pe_epoch_again(&log->epoch, free_state);
        return;
    }
    pe_history_close(s->history);
    pe_free(&log->host, s, sizeof *s);
}

void peri_log_close(peri_log *log)
{
    if (!log)
        return;
    pe_log_state *s = atomic_load(&log->state);
    pe_host host = log->host;
    if (s) {
        atomic_store(&s->pins, 0);
        free_state(log, s, 0);
    }
    pe_epoch_destroy(&log->epoch);
    pe_free(&log->host, log->path, log->path_room);
    pthread_mutex_destroy(&log->refresh);
    pe_free(&host, log, sizeof *log);
}

pe_history *pe_log_history(const peri_log *log)
{
    return atomic_load_explicit(&((peri_log *)(uintptr_t)log)->state, memory_order_acquire)
        ->history;
}

peri_status peri_log_refresh(peri_log *log)
{
    pe_log_state *fresh;
    if (!log)
        return pe_fail(PERI_ERR_ARG, "log is NULL");
    if (!(log->config.flags & PERI_LOG_READONLY))
        return PERI_OK;
    pthread_mutex_lock(&log->refresh);
    pe_epoch_reclaim(&log->epoch);
    peri_status status = pe_history_refresh(pe_log_history(log));
    if (status == PERI_ERR_STATE) {
        status = pe_epoch_reserve(&log->epoch, 1);
        if (status == PERI_OK)
            status = open_state(log, 0, &fresh);
        if (status == PERI_OK) {
            pe_log_state *old = atomic_exchange(&log->state, fresh);
            pe_epoch_retire(&log->epoch, free_state, old, 0);
            pe_epoch_reclaim(&log->epoch);
        }
    }
    pthread_mutex_unlock(&log->refresh);
    return status;
}

/* ---- reads ---- */

/* A writer's state is one for life: it needs no place in the epoch of states. */
peri_status pe_log_read_begin(pe_log_read *r, const peri_log *log, uint64_t as_of)
{
    if (!log)
        return pe_fail(PERI_ERR_ARG, "log is NULL");
    peri_log *l = (peri_log *)(uintptr_t)log;
    r->reader = l->config.flags & PERI_LOG_READONLY ? pe_epoch_enter(&l->epoch) : NULL;
    r->state = atomic_load_explicit(&l->state, memory_order_acquire);
    peri_status status = pe_read_begin(&r->read, r->state->history, as_of);
    if (status != PERI_OK && r->reader)
        pe_epoch_exit(r->reader);
    return status;
}

void pe_log_read_end(pe_log_read *r)
{
    pe_read_end(&r->read);
    if (r->reader)
        pe_epoch_exit(r->reader);
}

/* ---- care ---- */

peri_status peri_log_get_info(const peri_log *log, peri_log_info *out)
{
    pe_history_info h;
    if (!log || !out)
        return pe_fail(PERI_ERR_ARG, "log or out is NULL");
    if (out->struct_size < sizeof *out)
        return pe_fail(PERI_ERR_ARG, "peri_log_info.struct_size is %u, expected %zu or more",
                       out->struct_size, sizeof *out);
    peri_log *l = (peri_log *)(uintptr_t)log;
    pe_reader *reader = pe_epoch_enter(&l->epoch);
    pe_history_get_info(pe_log_history(log), &h);
    pe_epoch_exit(reader);
    uint32_t size = out->struct_size;
    memset(out, 0, sizeof *out);
    out->struct_size = size;
    out->durability = log->config.durability ? log->config.durability : PERI_DURABLE_COMMIT;
    out->sequence = h.sequence;
    out->synced = h.synced;
    out->keys = h.live;
    out->all_keys = h.keys;
    out->oldest = h.horizon;
    out->files = h.files;
    out->file_bytes = h.file_bytes;
    out->syncs = h.syncs;
    out->torn_bytes = h.report.torn_bytes;
    out->lost_from = h.report.lost_from;
    out->lost_to = h.report.lost_to;
    out->scanned = h.scanned;
    out->heap = h.heap + atomic_load(&l->host.heap);
    memcpy(out->uuid, h.uuid, 16);
    memcpy(out->history, h.history, 16);
    return PERI_OK;
}

static peri_status writer(const peri_log *log)
{
    return log ? PERI_OK : pe_fail(PERI_ERR_ARG, "log is NULL");
}

peri_status peri_log_sync(peri_log *log)
{
    PE_TRY(writer(log));
    return pe_history_sync(pe_log_history(log));
}

peri_status peri_log_check(peri_log *log, uint64_t *faults)
{
    PE_TRY(writer(log));
    if (!faults)
        return pe_fail(PERI_ERR_ARG, "faults is NULL");
    return pe_history_check(pe_log_history(log), faults);
}

peri_status peri_log_snapshot(peri_log *log, uint64_t *sequence)
{
    PE_TRY(writer(log));
    if (!sequence)
        return pe_fail(PERI_ERR_ARG, "sequence is NULL");
    return pe_history_snapshot(pe_log_history(log), sequence);
}

peri_status peri_log_release(peri_log *log, uint64_t sequence)
{
    PE_TRY(writer(log));
    return pe_history_release(pe_log_history(log), sequence);
}

peri_status peri_log_save_hint(peri_log *log)
{
    PE_TRY(writer(log));
    return pe_history_save_hint(pe_log_history(log));
}

peri_status peri_log_compact(peri_log *log, const peri_log_retention *retention,
                             const peri_task *task)
{
    PE_TRY(writer(log));
    if (retention && retention->struct_size < sizeof *retention)
        return pe_fail(PERI_ERR_ARG, "peri_log_retention.struct_size is %u, expected %zu or more",
                       retention->struct_size, sizeof *retention);
    pe_retention keep = {0};
    if (retention)
        keep = (pe_retention){retention->keep, retention->keep_since, (int)retention->keep_deleted};
    return pe_history_compact(pe_log_history(log), &keep, task);
}
