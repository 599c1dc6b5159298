/* The handle: making, opening, closing, describing. */
#define _GNU_SOURCE
#include "mmap/vectors_parts.h"

#include <stdio.h>
#include <unistd.h>

static peri_status check_config(const peri_vectors_config *c)
{
    if (c && c->struct_size < sizeof *c)
        return pe_fail(PERI_ERR_ARG, "peri_vectors_config.struct_size is %u, expected %zu or more",
                       c->struct_size, sizeof *c);
    return PERI_OK;
}

static char *copy_path(pe_host *host, const char *path, const char *suffix, size_t *room)
{
    *room = strlen(path) + strlen(suffix) + 1;
    char *p = pe_alloc(host, *room);
    if (p)
        snprintf(p, *room, "%s%s", path, suffix);
    return p;
}

/* Also on failure *out is what there is to close, or NULL. */
static peri_status new_handle(peri_vectors **out, const char *path,
                              const peri_vectors_config *config, const peri_env *env)
{
    pe_host host;
    PE_TRY(pe_host_init(&host, env));
    peri_vectors *v = pe_calloc(&host, sizeof *v);
    if (!v)
        return PERI_ERR_NOMEM;
    v->host = host;
    v->owner = getpid();
    v->address_space = config ? config->address_space : 0;
    if (env) {
        v->env = *env;
        v->has_env = 1;
    }
    pthread_mutex_init(&v->write, NULL);
    pthread_mutex_init(&v->building, NULL);
    pe_epoch_init(&v->epoch, &v->host, v);
    v->path = copy_path(&v->host, path, "", &v->path_room);
    v->index_path = copy_path(&v->host, path, ".index", &v->index_path_room);
    v->temp_path = copy_path(&v->host, path, ".tmp", &v->temp_path_room);
    *out = v;
    return v->path && v->index_path && v->temp_path ? PERI_OK : PERI_ERR_NOMEM;
}

/* Scratch that readers left at their places; see vectors_search.c. */
static void free_scratches(peri_vectors *v, int forked)
{
    for (unsigned i = 0; i < PE_READERS; i++)
        if (!(forked && v->epoch.readers[i].taken))
            pe_vscratch_destroy(v->epoch.readers[i].scratch);
}

void peri_vectors_close(peri_vectors *v)
{
    if (!v)
        return;
    /* In a child of fork the memory of a write that was under way may be in any state: then the
     * mapping is all that is given back. */
    int forked = getpid() != v->owner;
    if (forked && pthread_mutex_trylock(&v->write) != 0) {
        pe_vgen *g = atomic_load_explicit(&v->gen, memory_order_relaxed);
        pe_vmap_unref(g ? pe_vgen_mapping(g) : NULL);
        return;
    }
    if (forked)
        pthread_mutex_unlock(&v->write);
    free_scratches(v, forked);
    pe_epoch_destroy(&v->epoch);
    pe_vindex_destroy(NULL, atomic_load_explicit(&v->index, memory_order_relaxed), 0);
    pe_vgen_destroy(NULL, atomic_load_explicit(&v->gen, memory_order_relaxed), 0);
    pe_lock_release(&v->lock, forked);
    pe_free(&v->host, v->path, v->path_room);
    pe_free(&v->host, v->index_path, v->index_path_room);
    pe_free(&v->host, v->temp_path, v->temp_path_room);
    pthread_mutex_destroy(&v->write);
    pthread_mutex_destroy(&v->building);
    pe_host host = v->host;
    pe_free(&host, v, sizeof *v);
}

/* ---- making ---- */

static peri_status create_file(peri_vectors *v, uint64_t expect_rows)
{
    uint8_t uuid[16];
    pe_vgen *g;
    uint64_t bytes = 0;
    PE_TRY(pe_segment_new_uuid(uuid));
    PE_TRY(pe_vgen_create(&g, v, 1, 0, uuid));
    atomic_store_explicit(&v->gen, g, memory_order_release);
    int renamed = 0;
    peri_status status = PERI_OK;
    if (expect_rows > PE_MAX_SLOTS || __builtin_mul_overflow(expect_rows, g->stride, &bytes))
        status = pe_fail(PERI_ERR_CONFIG, "expect_rows is %llu, expected at most %d",
                         (unsigned long long)expect_rows, PE_MAX_SLOTS);
    if (status == PERI_OK)
        status = pe_vgen_grow(g, bytes);
    if (status == PERI_OK)
        status = pe_vgen_name(g, v, &renamed);
    if (status != PERI_OK && !renamed)
        pe_file_unlink(v->host.files, v->temp_path);
    return status;
}

/* With the lock held nobody else makes one here. */
static peri_status check_absent(const peri_vectors *v)
{
    pe_file f;
    peri_status status = pe_file_open(&f, v->host.files, v->path, 0);
    if (status == PERI_ERR_NOT_FOUND)
        return PERI_OK;
    if (status != PERI_OK)
        return status;
    (void)pe_file_close(&f);
    return pe_fail(PERI_ERR_EXISTS, "%s: something stands there", v->path);
}

/* <path>.lock: a lock on the file itself would be lost when a new generation takes its name. */
static peri_status take_lock(peri_vectors *v)
{
    size_t room = strlen(v->path) + sizeof ".lock";
    char *path = pe_alloc(&v->host, room);
    if (!path)
        return PERI_ERR_NOMEM;
    snprintf(path, room, "%s.lock", v->path);
    peri_status status = pe_lock_take(&v->lock, &v->host, path);
    pe_free(&v->host, path, room);
    return status;
}

peri_status peri_vectors_create(peri_vectors **out, const char *path, const peri_space *space,
                                const peri_vectors_config *config, const peri_env *env)
{
    peri_vectors *v = NULL;
    if (!out || !path || !*path)
        return pe_fail(PERI_ERR_ARG, "%s", out ? "path is NULL or empty" : "out is NULL");
    *out = NULL;
    PE_TRY(check_config(config));
    peri_status status = new_handle(&v, path, config, env);
    if (status == PERI_OK)
        status = pe_space_check(space, &v->space);
    if (status == PERI_OK)
        status = take_lock(v);
    if (status == PERI_OK)
        status = check_absent(v);
    if (status == PERI_OK)
        status = create_file(v, config ? config->expect_rows : 0);
    if (status != PERI_OK) {
        peri_vectors_close(v);
        return status;
    }
    *out = v;
    return PERI_OK;
}

/* ---- opening ---- */

static peri_status open_file(peri_vectors *v)
{
    pe_vgen *g;
    PE_TRY(pe_vgen_open(&g, v, !v->readonly));
    atomic_store_explicit(&v->gen, g, memory_order_release);
    v->space = g->rows.space;
    return pe_vectors_open_index(v);
}

peri_status peri_vectors_open(peri_vectors **out, const char *path, uint32_t flags,
                              const peri_vectors_config *config, const peri_env *env)
{
    peri_vectors *v = NULL;
    if (!out || !path || !*path)
        return pe_fail(PERI_ERR_ARG, "%s", out ? "path is NULL or empty" : "out is NULL");
    *out = NULL;
    if (flags & ~(uint32_t)PERI_OPEN_READONLY)
        return pe_fail(PERI_ERR_ARG, "unknown open flags 0x%x", flags);
    PE_TRY(check_config(config));
    peri_status status = new_handle(&v, path, config, env);
    if (status != PERI_OK) {
        peri_vectors_close(v);
        return status;
    }
    v->readonly = (flags & PERI_OPEN_READONLY) != 0;
    pe_file f; /* before the lock: a path that holds no file gets no lock file either */
    status = pe_file_open(&f, v->host.files, path, 0);
    if (status == PERI_OK)
        status = pe_file_close(&f);
    if (status == PERI_OK && !v->readonly) {
        status = take_lock(v);
        if (status == PERI_OK)
            pe_file_unlink(v->host.files, v->temp_path); /* of a compaction that was killed */
    }
    if (status == PERI_OK)
        status = open_file(v);
    if (status != PERI_OK) {
        peri_vectors_close(v);
        return status;
    }
    *out = v;
    return PERI_OK;
}

/* Another file, or one that could not be followed step by step: loaded whole, in place of the old.
 */
static peri_status reopen(peri_vectors *v)
{
    pe_vgen *fresh;
    PE_TRY(pe_vgen_open(&fresh, v, 0));
    peri_status status = pe_epoch_reserve(&v->epoch, 2);
    if (status != PERI_OK) {
        pe_vgen_destroy(NULL, fresh, 0);
        return status;
    }
    if (memcmp(&fresh->rows.space, &v->space, sizeof v->space) != 0) {
        pe_vgen_destroy(NULL, fresh, 0);
        return pe_fail(PERI_ERR_STATE, "%s: replaced by a file of another space; open it anew",
                       v->path);
    }
    pe_vectors_put_index(v, NULL);
    pe_vgen *old = atomic_exchange(&v->gen, fresh);
    pe_epoch_retire(&v->epoch, pe_vgen_destroy, old, 0);
    return PERI_OK;
}

static peri_status refresh(peri_vectors *v, int *changed)
{
    pe_vgen *g = atomic_load(&v->gen);
    peri_status status = pe_vgen_refresh(g, v->path, changed);
    if (*changed == 2 || status == PERI_ERR_CORRUPT)
        status = reopen(v);
    PE_TRY(status);
    return *changed ? pe_vectors_open_index(v) : PERI_OK;
}

peri_status peri_vectors_refresh(peri_vectors *v, int *changed)
{
    int news = 0;
    if (!v)
        return pe_fail(PERI_ERR_ARG, "vectors is NULL");
    if (!v->readonly)
        return pe_fail(PERI_ERR_STATE, "%s: a writer sees everything", v->path);
    if (getpid() != v->owner)
        return pe_fail(PERI_ERR_FORKED, "vectors opened by process %d, refreshed by process %d",
                       (int)v->owner, (int)getpid());
    pthread_mutex_lock(&v->building);
    pthread_mutex_lock(&v->write);
    pe_epoch_reclaim(&v->epoch);
    peri_status status = refresh(v, &news);
    pe_vectors_end_write(v);
    pthread_mutex_unlock(&v->building);
    if (changed)
        *changed = news != 0;
    return status;
}

/* ---- describing ---- */

peri_status peri_vectors_len(const peri_vectors *v, uint64_t *n)
{
    if (!v || !n)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", v ? "n" : "vectors");
    pe_vreader r = pe_vectors_enter(v);
    *n = atomic_load_explicit(&r.gen->keys.live, memory_order_acquire);
    pe_vectors_leave(&r);
    return PERI_OK;
}

peri_status peri_vectors_index_info(const peri_vectors *v, peri_index_info *info)
{
    if (!v || !info)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", v ? "info" : "vectors");
    pe_vreader r = pe_vectors_enter(v);
    const pe_vindex *x = atomic_load_explicit(&v->index, memory_order_acquire);
    peri_status status =
        x ? peri_index_get_info(x->ix, info) : pe_fail(PERI_ERR_NOT_FOUND, "%s: no index", v->path);
    pe_vectors_leave(&r);
    return status;
}

peri_status peri_vectors_get_info(const peri_vectors *v, peri_vectors_info *info)
{
    if (!v || !info)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", v ? "info" : "vectors");
    if (info->struct_size < sizeof *info)
        return pe_fail(PERI_ERR_ARG, "peri_vectors_info.struct_size is %u, expected %zu or more",
                       info->struct_size, sizeof *info);
    uint32_t size = info->struct_size;
    pe_vreader r = pe_vectors_enter(v);
    const pe_vgen *g = r.gen;
    memset(info, 0, sizeof *info);
    info->struct_size = size;
    info->readonly = (uint32_t)v->readonly;
    info->space = v->space;
    memcpy(info->uuid, g->uuid, sizeof info->uuid);
    info->generation = g->generation;
    info->checkpoint = atomic_load_explicit(&g->sequence, memory_order_acquire);
    info->rows = atomic_load_explicit(&g->keys.live, memory_order_relaxed);
    info->slots = r.count;
    uint32_t saved = atomic_load_explicit(&g->saved_count, memory_order_relaxed);
    info->unsaved = r.count > saved ? r.count - saved : 0;
    info->bytes_file = atomic_load_explicit(&g->file_bytes, memory_order_relaxed);
    info->bytes_heap = atomic_load_explicit(&v->host.heap, memory_order_relaxed);
    info->bytes_mapped = atomic_load_explicit(&v->host.mapped, memory_order_relaxed);
    const pe_vmap *m = pe_vgen_mapping(g);
    info->views = m ? atomic_load_explicit(&m->refs, memory_order_relaxed) - 1 : 0;
    info->poisoned = (uint32_t)atomic_load_explicit(&v->poisoned, memory_order_relaxed);
    info->index_dropped = (uint32_t)atomic_load_explicit(&v->index_dropped, memory_order_relaxed);
    const pe_vindex *x = atomic_load_explicit(&v->index, memory_order_acquire);
    peri_index_info ixinfo;
    peri_index_info_init(&ixinfo);
    if (x && peri_index_get_info(x->ix, &ixinfo) == PERI_OK) {
        info->indexed = atomic_load_explicit(&x->rows, memory_order_acquire);
        memcpy(info->index_kind, ixinfo.kind, sizeof info->index_kind);
        info->bytes_heap += ixinfo.bytes_heap;
        info->bytes_mapped += ixinfo.bytes_mapped;
    }
    pe_vectors_leave(&r);
    return PERI_OK;
}
