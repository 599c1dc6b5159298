/* Saving and opening (docs/formats/sparse.md): one segment of kind 'SPRS' with the sections of
 * postings/, KEYS when keyed, and
 *
 *   META  32 bytes: u32 weights (PERI_SCALAR_*), u32 flags (PERI_SPARSE_*), f32 keep, u32 1 when
 *         keyed, u64 next id, u64 0 */
#include "persist/bytes.h"
#include "sparse/sparse.h"

#include <unistd.h>

enum { META_SIZE = 32, VERSION_MAJOR = 1, VERSION_MINOR = 0 };
#define KIND_SPARSE PE_FOURCC('S', 'P', 'R', 'S')
#define TAG_META    PE_FOURCC('M', 'E', 'T', 'A')

static void save_meta(const peri_sparse *sx, pe_segw *w)
{
    unsigned char b[META_SIZE] = {0};
    pe_put_le32(b, sx->weights);
    pe_put_le32(b + 4, sx->flags);
    memcpy(b + 8, &sx->keep, sizeof sx->keep);
    pe_put_le32(b + 12, atomic_load_explicit(&sx->keys, memory_order_relaxed) != NULL);
    pe_put_le64(b + 16, sx->next_id);
    pe_segw_begin(w, TAG_META, 0);
    pe_segw_put(w, b, sizeof b);
    pe_segw_end(w);
}

static peri_status save_sections(peri_sparse *sx, pe_segw *w, pe_progress *progress)
{
    const pe_keys *keys = atomic_load_explicit(&sx->keys, memory_order_relaxed);
    save_meta(sx, w);
    PE_TRY(pe_postings_save(&sx->postings, w));
    if (pe_progress_add(progress, 0, 1))
        return pe_progress_end(progress);
    if (keys)
        PE_TRY(pe_keys_save(keys, w));
    return pe_progress_end(progress);
}

static peri_status save_locked(peri_sparse *sx, const char *path, pe_progress *progress)
{
    pe_segw *w;
    pe_segment_id id = {.kind = KIND_SPARSE,
                        .version_major = VERSION_MAJOR,
                        .version_minor = VERSION_MINOR,
                        .generation = ++sx->generation};
    memcpy(id.uuid, sx->uuid, sizeof id.uuid);
    pe_progress_phase(progress, "save", 1);
    PE_TRY(pe_segw_open(&w, &sx->host, path, &id));
    peri_status status = save_sections(sx, w, progress);
    if (status == PERI_OK)
        return pe_segw_commit(w);
    pe_segw_abort(w);
    return status;
}

peri_status peri_sparse_save(const peri_sparse *sx, const char *path, const peri_task *task)
{
    pe_progress progress;
    if (!sx || !path)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", sx ? "path" : "sx");
    PE_TRY(pe_progress_init(&progress, task));
    PE_TRY(pe_sparse_lock(sx));
    peri_status status = save_locked((peri_sparse *)(uintptr_t)sx, path, &progress);
    pe_sparse_unlock(sx);
    return status;
}

/* ---- opening ---- */

static peri_status open_meta(peri_sparse *sx, pe_segr *r, int *keyed)
{
    unsigned char b[META_SIZE];
    peri_sparse_config c;
    const pe_section *s = pe_segr_find(r, TAG_META);
    if (!s || s->size != META_SIZE)
        return pe_fail(PERI_ERR_CORRUPT, "%s: no section 'META' of %d bytes", pe_segr_path(r),
                       META_SIZE);
    PE_TRY(pe_segr_read(r, s, 0, b, sizeof b));
    peri_sparse_config_init(&c);
    c.weights = pe_get_le32(b);
    c.flags = pe_get_le32(b + 4);
    memcpy(&c.keep, b + 8, sizeof c.keep);
    if (c.weights == 0 || !(c.keep > 0) || pe_get_le32(b + 12) > 1 || pe_get_le64(b + 24) != 0)
        return pe_segr_fault(r, s, 0, "weights %u, keep %g, keyed %u", c.weights, (double)c.keep,
                             pe_get_le32(b + 12));
    *keyed = (int)pe_get_le32(b + 12);
    sx->next_id = pe_get_le64(b + 16);
    peri_status status = pe_sparse_setup(sx, &c);
    return status == PERI_ERR_CONFIG ? pe_segr_fault(r, s, 0, "a configuration out of range")
                                     : status;
}

/* Numbering goes on above every id. */
static peri_status check_next_id(const peri_sparse *sx, const pe_segr *r)
{
    const pe_snapshot *s = pe_postings_now(&sx->postings);
    for (uint32_t i = 0; i < s->n_parts; i++)
        for (uint32_t doc = 0; doc < s->parts[i].docs; doc++) {
            uint64_t id = pe_part_id(&s->parts[i], doc);
            if (id >= sx->next_id && id != UINT64_MAX)
                return pe_fail(PERI_ERR_CORRUPT, "%s: id %llu is not below the next one, %llu",
                               pe_segr_path(r), (unsigned long long)id,
                               (unsigned long long)sx->next_id);
        }
    return PERI_OK;
}

static peri_status open_keys(peri_sparse *sx, pe_segr *r)
{
    pe_keys *keys;
    uint64_t faults;
    PE_TRY(pe_keys_open(&keys, &sx->host, &sx->epoch, r));
    atomic_store_explicit(&sx->keys, keys, memory_order_release);
    PE_TRY(pe_sparse_prove_keys(sx, &faults));
    if (faults)
        return pe_fail(PERI_ERR_CORRUPT, "%s: keys and rows are not one to one", pe_segr_path(r));
    return PERI_OK;
}

static peri_status open_file(peri_sparse *sx, int map)
{
    pe_segr *r = sx->file;
    int keyed = 0;
    PE_TRY(pe_segr_expect(r, KIND_SPARSE, VERSION_MAJOR, 0));
    const pe_segment_id *id = pe_segr_id(r);
    memcpy(sx->uuid, id->uuid, sizeof sx->uuid);
    sx->generation = id->generation;
    PE_TRY(open_meta(sx, r, &keyed));
    PE_TRY(pe_postings_open(&sx->postings, r, map));
    PE_TRY(check_next_id(sx, r));
    if (!keyed && pe_segr_find(r, PE_KEYS_SECTION))
        return pe_fail(PERI_ERR_CORRUPT, "%s: keys in an index that is not keyed", pe_segr_path(r));
    return keyed ? open_keys(sx, r) : PERI_OK;
}

peri_status peri_sparse_open(peri_sparse **out, const char *path, uint32_t flags,
                             const peri_env *env, const peri_task *task)
{
    pe_progress progress;
    peri_sparse *sx;
    if (!out || !path)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", out ? "path" : "out");
    *out = NULL;
    if (flags & ~(uint32_t)(PERI_OPEN_READONLY | PERI_OPEN_MAP))
        return pe_fail(PERI_ERR_ARG, "unknown open flags 0x%x", flags);
    PE_TRY(pe_progress_init(&progress, task));
    int map = (flags & PERI_OPEN_MAP) != 0;
    PE_TRY(pe_sparse_new(&sx, env));
    pe_host_limit(&sx->host, task);
    peri_status status =
        pe_segr_open(&sx->file, &sx->host, path, map ? PE_SEGMENT_MAP : PE_SEGMENT_COPY);
    if (status == PERI_OK)
        status = open_file(sx, map);
    if (status != PERI_OK) {
        peri_sparse_close(sx);
        return status;
    }
    pe_host_unlimit(&sx->host);
    /* What this library does not know about, it must not write anew. */
    sx->readonly = (flags & PERI_OPEN_READONLY) || pe_segr_readonly(sx->file);
    if (!map) {
        pe_segr_close(sx->file);
        sx->file = NULL;
    }
    *out = sx;
    return PERI_OK;
}
