/* The handle: making, closing, locking, describing, proving. */
#include "sparse/sparse.h"

#include <unistd.h>

/* ---- making ---- */

peri_status pe_sparse_new(peri_sparse **out, const peri_env *env)
{
    pe_host host;
    *out = NULL;
    PE_TRY(pe_host_init(&host, env));
    peri_sparse *sx = pe_calloc(&host, sizeof *sx);
    if (!sx)
        return PERI_ERR_NOMEM;
    sx->host = host;
    sx->owner = getpid();
    sx->kernels = pe_kernels_get();
    pthread_mutex_init(&sx->write, NULL);
    pe_epoch_init(&sx->epoch, &sx->host, sx);
    *out = sx;
    return PERI_OK;
}

static peri_status check_config(const peri_sparse_config *in, peri_sparse_config *out)
{
    peri_sparse_config_init(out);
    if (in) {
        if (in->struct_size < sizeof *in)
            return pe_fail(PERI_ERR_ARG,
                           "peri_sparse_config.struct_size is %u, expected %zu or more",
                           in->struct_size, sizeof *in);
        *out = *in;
    }
    if (out->weights == 0)
        out->weights = PERI_SCALAR_F32;
    if (out->keep == 0)
        out->keep = 0.6f;
    if (out->flags & ~(uint32_t)PERI_SPARSE_NO_APPROXIMATE)
        return pe_fail(PERI_ERR_CONFIG, "unknown flags 0x%x", out->flags);
    if (out->weights > PERI_SCALAR_I8 || out->weights == PERI_SCALAR_BF16)
        return pe_fail(PERI_ERR_CONFIG, "weights is %u, expected 1 (f32), 2 (f16) or 4 (i8)",
                       out->weights);
    if (!(out->keep >= 0.1f && out->keep <= 1))
        return pe_fail(PERI_ERR_CONFIG, "keep is %g, expected 0.1 to 1", (double)out->keep);
    return PERI_OK;
}

peri_status pe_sparse_setup(peri_sparse *sx, const peri_sparse_config *config)
{
    peri_sparse_config c;
    PE_TRY(check_config(config, &c));
    sx->flags = c.flags;
    sx->weights = c.weights;
    sx->keep = c.keep;
    sx->payload = (pe_payload){.marked = !(c.flags & PERI_SPARSE_NO_APPROXIMATE),
                               .merge = pe_sparse_merge,
                               .check = pe_sparse_prove};
    return pe_postings_init(&sx->postings, &sx->host, &sx->epoch, &sx->payload);
}

peri_status peri_sparse_create(peri_sparse **out, const peri_sparse_config *config,
                               const peri_env *env)
{
    peri_sparse *sx;
    if (!out)
        return pe_fail(PERI_ERR_ARG, "out is NULL");
    *out = NULL;
    PE_TRY(pe_sparse_new(&sx, env));
    peri_status status = pe_sparse_setup(sx, config);
    if (status == PERI_OK)
        status = pe_segment_new_uuid(sx->uuid);
    if (status != PERI_OK) {
        peri_sparse_close(sx);
        return status;
    }
    *out = sx;
    return PERI_OK;
}

void peri_sparse_close(peri_sparse *sx)
{
    if (!sx)
        return;
    /* In a child of fork the memory of a write that was under way may be in any state: then only
     * the mapping is given back. The same goes for readers that were inside. */
    int forked = getpid() != sx->owner;
    if (forked && pthread_mutex_trylock(&sx->write) != 0) {
        pe_segr_close(sx->file);
        return;
    }
    if (forked)
        pthread_mutex_unlock(&sx->write);
    for (unsigned i = 0; i < PE_READERS; i++)
        if (!(forked && sx->epoch.readers[i].taken))
            pe_sparse_free_scratch(sx->epoch.readers[i].scratch);
    pe_epoch_destroy(&sx->epoch);
    pe_postings_destroy(&sx->postings);
    pe_keys_destroy(atomic_load_explicit(&sx->keys, memory_order_relaxed));
    pe_segr_close(sx->file);
    pthread_mutex_destroy(&sx->write);
    pe_host host = sx->host;
    pe_free(&host, sx, sizeof *sx);
}

/* ---- locking ---- */

peri_status pe_sparse_begin_write(peri_sparse *sx)
{
    if (!sx)
        return pe_fail(PERI_ERR_ARG, "sx is NULL");
    /* Before the lock: another thread of the parent may have held it when the process forked. */
    if (getpid() != sx->owner)
        return pe_fail(PERI_ERR_FORKED, "index made by process %d, written to by process %d",
                       (int)sx->owner, (int)getpid());
    if (sx->readonly)
        return pe_fail(PERI_ERR_STATE, "index was opened read-only");
    pthread_mutex_lock(&sx->write);
    pe_epoch_reclaim(&sx->epoch);
    return PERI_OK;
}

void pe_sparse_end_write(peri_sparse *sx)
{
    pe_epoch_reclaim(&sx->epoch);
    pe_host_unlimit(&sx->host);
    pthread_mutex_unlock(&sx->write);
}

peri_status pe_sparse_lock(const peri_sparse *sx)
{
    pthread_mutex_t *write = &((peri_sparse *)(uintptr_t)sx)->write;
    if (getpid() == sx->owner)
        pthread_mutex_lock(write);
    else if (pthread_mutex_trylock(write) != 0)
        return pe_fail(PERI_ERR_FORKED, "a write was under way when process %d forked",
                       (int)sx->owner);
    return PERI_OK;
}

void pe_sparse_unlock(const peri_sparse *sx)
{
    pthread_mutex_unlock(&((peri_sparse *)(uintptr_t)sx)->write);
}

/* ---- describing ---- */

peri_status peri_sparse_get_info(const peri_sparse *sx, peri_sparse_info *info)
{
    pe_postings_info p;
    if (!sx || !info)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", sx ? "info" : "sx");
    if (info->struct_size < sizeof *info)
        return pe_fail(PERI_ERR_ARG, "peri_sparse_info.struct_size is %u, expected %zu or more",
                       info->struct_size, sizeof *info);
    uint32_t size = info->struct_size;
    memset(info, 0, sizeof *info);
    pe_reader *place = pe_epoch_enter(&sx->epoch);
    pe_snapshot_describe(pe_postings_now(&sx->postings), &p);
    pe_epoch_exit(place);
    info->struct_size = size;
    info->weights = sx->weights;
    info->flags = sx->flags;
    info->keep = sx->keep;
    info->keyed = atomic_load_explicit(&sx->keys, memory_order_acquire) != NULL;
    info->segments = p.segments;
    info->rows = p.live;
    info->deleted = p.deleted;
    info->active = p.active;
    info->postings = p.postings;
    info->approximate_postings = p.marked;
    info->bytes_sealed = p.bytes;
    info->bytes_heap = atomic_load_explicit(&sx->host.heap, memory_order_relaxed);
    info->bytes_mapped = atomic_load_explicit(&sx->host.mapped, memory_order_relaxed);
    info->next_id = atomic_load_explicit(&sx->next_id, memory_order_relaxed);
    return PERI_OK;
}

peri_status peri_sparse_ids(const peri_sparse *sx, uint64_t *ids, size_t capacity, size_t *n)
{
    if (!sx || !n || (capacity && !ids))
        return pe_fail(PERI_ERR_ARG, "%s is NULL", !sx ? "sx" : !n ? "n" : "ids");
    pe_reader *place = pe_epoch_enter(&sx->epoch);
    const pe_snapshot *s = pe_postings_now(&sx->postings);
    size_t found = 0;
    for (uint32_t i = 0; i < s->n_parts; i++)
        for (uint32_t doc = 0; doc < s->parts[i].docs; doc++) {
            if (!pe_part_alive(&s->parts[i], doc))
                continue;
            if (found < capacity)
                ids[found] = pe_part_id(&s->parts[i], doc);
            found++;
        }
    pe_epoch_exit(place);
    *n = found;
    return PERI_OK;
}

peri_status peri_sparse_get(const peri_sparse *sx, uint64_t id, uint32_t *terms, float *weights,
                            size_t capacity, size_t *n)
{
    uint32_t part, doc;
    if (!sx || !n || (capacity && (!terms || !weights)))
        return pe_fail(PERI_ERR_ARG, "%s is NULL",
                       !sx      ? "sx"
                       : !n     ? "n"
                       : !terms ? "terms"
                                : "weights");
    pe_reader *place = pe_epoch_enter(&sx->epoch);
    const pe_snapshot *s = pe_postings_now(&sx->postings);
    int found = pe_snapshot_find(s, id, &part, &doc);
    if (found) {
        pe_forward_of f;
        pe_forward_open(sx, &s->parts[part], &f);
        pe_forward row = pe_forward_at(&f, doc);
        for (uint32_t i = 0; i < row.n && i < capacity; i++) {
            terms[i] = pe_forward_term(&row, i);
            weights[i] = pe_forward_weight(sx, &row, i);
        }
        *n = row.n;
    }
    pe_epoch_exit(place);
    return found ? PERI_OK : pe_fail(PERI_ERR_NOT_FOUND, "no id %llu", (unsigned long long)id);
}

/* ---- proof ---- */

/* Rows and keys are one to one: as many of each, and a key for each row. */
static uint64_t keys_faults(const peri_sparse *sx, const pe_keys *keys)
{
    const pe_snapshot *s = pe_postings_now(&sx->postings);
    uint64_t faults = 0;
    peri_slice key;
    if (pe_keys_count(keys) != s->live)
        faults += pe_fail(PERI_ERR_CORRUPT, "%zu keys for %llu rows", pe_keys_count(keys),
                          (unsigned long long)s->live) != PERI_OK;
    for (uint32_t i = 0; i < s->n_parts; i++)
        for (uint32_t doc = 0; doc < s->parts[i].docs; doc++) {
            uint64_t id = pe_part_id(&s->parts[i], doc);
            if (pe_part_alive(&s->parts[i], doc) && !pe_keys_key_of(keys, id, &key) &&
                faults++ == 0)
                pe_fail(PERI_ERR_CORRUPT, "the row of id %llu has no key", (unsigned long long)id);
        }
    return faults;
}

peri_status pe_sparse_prove_keys(const peri_sparse *sx, uint64_t *n_faults)
{
    const pe_keys *keys = atomic_load_explicit(&sx->keys, memory_order_acquire);
    uint64_t faults = 0;
    *n_faults = 0;
    if (!keys)
        return PERI_OK;
    PE_TRY(pe_keys_check(keys, &faults));
    *n_faults = faults + keys_faults(sx, keys);
    return PERI_OK;
}

peri_status peri_sparse_check(const peri_sparse *sx, const peri_task *task, uint64_t *n_faults)
{
    pe_progress progress;
    uint64_t key_faults = 0;
    if (!sx || !n_faults)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", sx ? "n_faults" : "sx");
    PE_TRY(pe_progress_init(&progress, task));
    PE_TRY(pe_sparse_lock(sx));
    peri_status status = pe_postings_check(&sx->postings, &progress, n_faults);
    if (status == PERI_OK)
        status = pe_sparse_prove_keys(sx, &key_faults);
    *n_faults += key_faults;
    pe_sparse_unlock(sx);
    return status;
}
