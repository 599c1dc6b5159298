/* The handle: making, closing, entering, describing. */
#include "index/index.h"

#include <stdlib.h>
#include <unistd.h>

peri_status pe_index_new(peri_index **out, const peri_env *env)
{
    pe_host host;
    *out = NULL;
    PE_TRY(pe_host_init(&host, env));
    peri_index *ix = pe_calloc(&host, sizeof *ix);
    if (!ix)
        return PERI_ERR_NOMEM;
    ix->host = host;
    ix->owner = getpid();
    pthread_mutex_init(&ix->write, NULL);
    pe_epoch_init(&ix->epoch, &ix->host, ix);
    *out = ix;
    return PERI_OK;
}

peri_status pe_index_setup(peri_index *ix, const pe_kind *kind, const peri_space *space)
{
    PE_TRY(pe_space_check(space, &ix->space));
    pe_rows_init(&ix->rows, &ix->host, &ix->epoch, &ix->space);
    pe_slots_init(&ix->slots, &ix->host, &ix->epoch);
    ix->self = pe_calloc(&ix->host, kind->self_size);
    if (!ix->self)
        return PERI_ERR_NOMEM;
    ix->kind = kind; /* from here on close tears the kind's state down */
    return PERI_OK;
}

peri_status pe_index_create(peri_index **out, const pe_kind *kind, const peri_space *space,
                            const void *config, const peri_env *env)
{
    if (!out)
        return pe_fail(PERI_ERR_ARG, "out is NULL");
    peri_index *ix;
    *out = NULL;
    PE_TRY(pe_index_new(&ix, env));
    peri_status status = pe_index_setup(ix, kind, space);
    if (status == PERI_OK)
        status = pe_segment_new_uuid(ix->uuid);
    if (status == PERI_OK && kind->init)
        status = kind->init(ix, config);
    if (status != PERI_OK) {
        peri_index_close(ix);
        return status;
    }
    *out = ix;
    return PERI_OK;
}

static void destroy_scratch(pe_scratch *s)
{
    if (!s)
        return;
    if (s->kind)
        s->kind_destroy(s->kind);
    pe_free(s->host, s->query, s->query_room);
    pe_free(s->host, s->cands, s->cands_room * sizeof *s->cands);
    pe_free(s->host, s->slots, s->slots_room * sizeof *s->slots);
    pe_free(s->host, s->keys, s->slots_room * sizeof *s->keys);
    pe_free(s->host, s, sizeof *s);
}

void peri_index_close(peri_index *ix)
{
    if (!ix)
        return;
    /* In a child of fork the memory of a write that was under way may be in any state: then only
     * the mapping is given back. The same goes for readers that were inside. */
    int forked = getpid() != ix->owner;
    if (forked && pthread_mutex_trylock(&ix->write) != 0) {
        pe_segr_close(ix->file);
        return;
    }
    if (forked)
        pthread_mutex_unlock(&ix->write);
    for (unsigned i = 0; i < PE_READERS; i++)
        if (!(forked && ix->epoch.readers[i].taken))
            destroy_scratch(ix->epoch.readers[i].scratch);
    pe_epoch_destroy(&ix->epoch);
    if (ix->kind) {
        if (ix->kind->destroy)
            ix->kind->destroy(ix);
        pe_free(&ix->host, ix->self, ix->kind->self_size);
    }
    pe_keys *keys = atomic_load_explicit(&ix->keys, memory_order_relaxed);
    if (keys)
        pe_keys_destroy(keys);
    pe_curve *curve = atomic_load_explicit(&ix->curve, memory_order_relaxed);
    pe_free(&ix->host, curve, sizeof *curve);
    pe_rows_destroy(&ix->rows);
    pe_slots_destroy(&ix->slots);
    pe_segr_close(ix->file);
    pthread_mutex_destroy(&ix->write);
    pe_host host = ix->host;
    pe_free(&host, ix, sizeof *ix);
}

peri_status pe_index_begin_write(peri_index *ix)
{
    if (!ix)
        return pe_fail(PERI_ERR_ARG, "index is NULL");
    /* Before the lock: another thread of the parent may have held it when the process forked. */
    if (getpid() != ix->owner)
        return pe_fail(PERI_ERR_FORKED, "index made by process %d, written to by process %d",
                       (int)ix->owner, (int)getpid());
    if (ix->readonly)
        return pe_fail(PERI_ERR_STATE, "index was opened read-only");
    pthread_mutex_lock(&ix->write);
    pe_epoch_reclaim(&ix->epoch);
    return PERI_OK;
}

void pe_index_end_write(peri_index *ix)
{
    pe_epoch_let_go(&ix->epoch);
    pe_epoch_reclaim(&ix->epoch);
    pe_host_unlimit(&ix->host);
    pthread_mutex_unlock(&ix->write);
}

peri_status pe_index_lock(const peri_index *ix)
{
    pthread_mutex_t *write = &((peri_index *)(uintptr_t)ix)->write;
    if (getpid() == ix->owner)
        pthread_mutex_lock(write);
    else if (pthread_mutex_trylock(write) != 0)
        return pe_fail(PERI_ERR_FORKED, "a write was under way when process %d forked",
                       (int)ix->owner);
    return PERI_OK;
}

void pe_index_unlock(const peri_index *ix)
{
    pthread_mutex_unlock(&((peri_index *)(uintptr_t)ix)->write);
}

peri_status pe_index_enter(const peri_index *ix, pe_reader **place, pe_scratch **scratch)
{
    pe_host *host = (pe_host *)(uintptr_t)&ix->host;
    pe_reader *r = pe_epoch_enter(&ix->epoch);
    pe_scratch *s = r->scratch;
    if (!s) {
        size_t room = pe_rows_scratch(&ix->space);
        s = pe_calloc(host, sizeof *s);
        void *query = s ? pe_alloc(host, room) : NULL;
        if (!query) {
            pe_free(host, s, sizeof *s);
            pe_epoch_exit(r);
            return PERI_ERR_NOMEM;
        }
        s->host = host;
        s->query = query;
        s->query_room = room;
        r->scratch = s;
    }
    *place = r;
    *scratch = s;
    return PERI_OK;
}

peri_status pe_scratch_cands(pe_scratch *s, size_t n)
{
    return pe_grow(s->host, &s->cands, &s->cands_room, n, sizeof *s->cands);
}

peri_status pe_scratch_slots(pe_scratch *s, size_t n)
{
    if (n <= s->slots_room)
        return PERI_OK;
    uint32_t *slots = pe_alloc(s->host, n * sizeof *slots);
    float *keys = slots ? pe_alloc(s->host, n * sizeof *keys) : NULL;
    if (!keys) {
        pe_free(s->host, slots, n * sizeof *slots);
        return PERI_ERR_NOMEM;
    }
    pe_free(s->host, s->slots, s->slots_room * sizeof *s->slots);
    pe_free(s->host, s->keys, s->slots_room * sizeof *s->keys);
    s->slots = slots;
    s->keys = keys;
    s->slots_room = n;
    return PERI_OK;
}

peri_status peri_index_get_info(const peri_index *ix, peri_index_info *info)
{
    if (!ix || !info)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", ix ? "info" : "index");
    if (info->struct_size < sizeof *info)
        return pe_fail(PERI_ERR_ARG, "peri_index_info.struct_size is %u, expected %zu or more",
                       info->struct_size, sizeof *info);
    uint32_t size = info->struct_size;
    memset(info, 0, sizeof *info);
    info->struct_size = size;
    info->caps = ix->kind->caps;
    strncpy(info->kind, ix->kind->name, sizeof info->kind - 1);
    info->space = ix->space;
    info->keyed = atomic_load_explicit(&ix->keys, memory_order_acquire) != NULL;
    const pe_codes *codes = pe_rows_codes(&ix->rows);
    info->codes = codes ? PERI_CODES_8BIT : PERI_CODES_NONE;
    info->clipped = codes ? atomic_load_explicit(&codes->clipped, memory_order_relaxed) : 0;
    info->calibrated = atomic_load_explicit(&ix->curve, memory_order_acquire) != NULL;
    info->rows = pe_slots_live(&ix->slots);
    info->bytes_heap = atomic_load_explicit(&ix->host.heap, memory_order_relaxed);
    info->bytes_mapped = atomic_load_explicit(&ix->host.mapped, memory_order_relaxed);
    info->next_id = atomic_load_explicit(&ix->slots.next_id, memory_order_relaxed);
    uint32_t count = pe_slots_count(&ix->slots);
    uint32_t unused =
        (uint32_t)info->rows + atomic_load_explicit(&ix->slots.spare, memory_order_relaxed);
    info->deleted = count > unused ? count - unused : 0;
    if (ix->kind->info)
        ix->kind->info(ix, info);
    return PERI_OK;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

/* Ids of the slots below `count` that are not hidden, those in the course of being replaced as
 * well: an id may stand twice then. */
static size_t collect_ids(const pe_slots *s, uint32_t count, uint64_t *ids, size_t capacity)
{
    size_t found = 0;
    for (uint32_t slot = 0; slot < count; slot++) {
        if (pe_slots_dead(s, slot))
            continue;
        uint64_t id = pe_slots_id(s, slot);
        if (pe_slots_find(s, id) == PE_NO_SLOT)
            continue;
        if (found < capacity)
            ids[found] = id;
        found++;
    }
    return found;
}

/* Rows may have been replaced: sort out who stands twice. */
static peri_status ids_once(const peri_index *ix, uint64_t *ids, size_t capacity, size_t *n)
{
    pe_host *host = (pe_host *)(uintptr_t)&ix->host;
    uint32_t count = pe_slots_count(&ix->slots);
    uint64_t *all = pe_alloc(host, count * sizeof *all);
    if (!all)
        return PERI_ERR_NOMEM;
    size_t found = collect_ids(&ix->slots, count, all, count);
    qsort(all, found, sizeof *all, compare_u64);
    *n = 0;
    for (size_t i = 0; i < found; i++) {
        if (i && all[i] == all[i - 1])
            continue;
        if (*n < capacity)
            ids[*n] = all[i];
        ++*n;
    }
    pe_free(host, all, count * sizeof *all);
    return PERI_OK;
}

uint64_t pe_index_keys_faults(const peri_index *ix)
{
    const pe_keys *keys = atomic_load_explicit(&ix->keys, memory_order_acquire);
    uint64_t faults = 0;
    peri_slice key;
    if (!keys)
        return 0;
    /* A key has one id and an id one key (keys/ proves that): with as many keys as rows and a key
     * for each row, no key is left for a row that is not there. */
    if (pe_keys_count(keys) != pe_slots_live(&ix->slots))
        faults += pe_fail(PERI_ERR_CORRUPT, "%zu keys for %u rows", pe_keys_count(keys),
                          pe_slots_live(&ix->slots)) != PERI_OK;
    for (uint32_t slot = 0, n = pe_slots_count(&ix->slots); slot < n; slot++)
        if (!pe_slots_hidden(&ix->slots, slot) &&
            !pe_keys_key_of(keys, pe_slots_id(&ix->slots, slot), &key) && faults++ == 0)
            pe_fail(PERI_ERR_CORRUPT, "the row of id %llu has no key",
                    (unsigned long long)pe_slots_id(&ix->slots, slot));
    return faults;
}

peri_status peri_index_ids(const peri_index *ix, uint64_t *ids, size_t capacity, size_t *n)
{
    if (!ix || !n || (capacity && !ids))
        return pe_fail(PERI_ERR_ARG, "%s is NULL", !ix ? "index" : !n ? "n" : "ids");
    pe_reader *place = pe_epoch_enter(&ix->epoch);
    peri_status status = PERI_OK;
    if (atomic_load_explicit(&ix->slots.direct, memory_order_acquire) && !ix->slots.churned)
        *n = collect_ids(&ix->slots, pe_slots_count(&ix->slots), ids, capacity);
    else
        status = ids_once(ix, ids, capacity, n);
    pe_epoch_exit(place);
    return status;
}

peri_status peri_index_check(const peri_index *ix, const peri_task *task, uint64_t *n_faults)
{
    if (!ix || !n_faults)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", ix ? "n_faults" : "index");
    pe_progress progress;
    PE_TRY(pe_progress_init(&progress, task));
    PE_TRY(pe_index_lock(ix));
    /* What was replaced is hidden now, if no reader is in. */
    pe_epoch_reclaim(&((peri_index *)(uintptr_t)ix)->epoch);
    uint64_t faults = pe_slots_check(&ix->slots);
    const pe_keys *keys = atomic_load_explicit(&ix->keys, memory_order_acquire);
    uint64_t key_faults = 0;
    peri_status status = keys ? pe_keys_check(keys, &key_faults) : PERI_OK;
    faults += key_faults + pe_index_keys_faults(ix);
    if (status == PERI_OK && ix->file && ix->mapped_rows)
        status = pe_segr_verify(ix->file, ix->mapped_rows);
    if (status == PERI_ERR_CORRUPT) {
        faults++;
        status = PERI_OK;
    }
    if (status == PERI_OK) {
        pe_progress_phase(&progress, "check", pe_slots_count(&ix->slots));
        if (ix->kind->check)
            status = ix->kind->check(ix, &progress, &faults);
        if (status == PERI_OK)
            status = pe_progress_end(&progress);
    }
    pe_index_unlock(ix);
    *n_faults = faults;
    return status;
}
