/* Inserting, updating, deleting.
 *
 * An insert checks and reserves everything, writes the rows where nobody looks, and then commits,
 * which cannot fail: keys change over one by one, each by one store, and the batch becomes visible
 * to searches by one store to the count. What an insert that failed has written lies above the
 * count and is written over by the next.
 *
 * How rows reach the file. Both ways lead to the same page of the page cache.
 *   pwrite, 256 KiB to 1 MiB at a time    7 to 9 GB/s from a source in the cache
 *   pwrite, 64 KiB; 8 MiB                 4 to 5.5; 4 to 5, the source no longer fits in the cache
 *   stores through the map                0.4 to 4: each new page is a fault, and cleared first
 * (ext4, Linux 6.18, one thread.) So a batch is checked and written by pieces of 1 MiB, each still
 * in the cache when it is copied: with keys and all it is as fast as, or faster than, a bare memcpy
 * into a fresh mapping (bench/mmap_bench.c). Rows that come one by one are stored through the map,
 * made ready ahead (pe_vgen_prepare), without a system call each. */
#include "base/checked.h"
#include "mmap/vectors_parts.h"

#include <unistd.h>

enum { GROUP = 32, BY_STORE = 4096 };

peri_status pe_vectors_begin_write(peri_vectors *v)
{
    if (!v)
        return pe_fail(PERI_ERR_ARG, "vectors is NULL");
    if (getpid() != v->owner)
        return pe_fail(PERI_ERR_FORKED, "vectors opened by process %d, written to by process %d",
                       (int)v->owner, (int)getpid());
    if (v->readonly)
        return pe_fail(PERI_ERR_STATE, "%s: opened read-only", v->path);
    if (atomic_load_explicit(&v->poisoned, memory_order_acquire))
        return pe_fail(PERI_ERR_POISONED, "%s: an fsync failed; reopen it", v->path);
    pthread_mutex_lock(&v->write);
    pe_epoch_reclaim(&v->epoch);
    return PERI_OK;
}

void pe_vectors_end_write(peri_vectors *v)
{
    pe_epoch_reclaim(&v->epoch);
    pthread_mutex_unlock(&v->write);
}

peri_status pe_vectors_check_key(peri_slice key, size_t at)
{
    if (!key.data || key.size < 1 || key.size > PERI_MAX_KEY_SIZE)
        return pe_fail(PERI_ERR_ARG, "key %zu has %zu bytes, expected 1 to %d", at,
                       key.data ? key.size : 0, PERI_MAX_KEY_SIZE);
    return PERI_OK;
}

typedef struct batch {
    peri_vectors *v;
    pe_vgen *g;
    size_t n;
    const peri_slice *keys;
    const float *rows;
    uint32_t flags, first; /* slot of row 0 */
    uint32_t *hashes;
} batch;

/* ---- checks ---- */

static peri_status check_keys(batch *b, size_t *bytes)
{
    *bytes = 0;
    for (size_t i = 0; i < b->n; i++) {
        PE_TRY(pe_vectors_check_key(b->keys[i], i));
        b->hashes[i] = pe_vkeys_hash(&b->g->keys, b->keys[i].data, b->keys[i].size);
        *bytes += PE_VKEY_HEAD + b->keys[i].size;
    }
    return PERI_OK;
}

static int same_key(const batch *b, size_t i, size_t j)
{
    return b->hashes[i] == b->hashes[j] && b->keys[i].size == b->keys[j].size &&
           memcmp(b->keys[i].data, b->keys[j].data, b->keys[i].size) == 0;
}

/* With PERI_PUT_NEW: no key is there, none stands twice. */
static peri_status check_new(const batch *b)
{
    size_t capacity = 4;
    for (size_t i = 0; i < b->n; i++)
        if (pe_vkeys_find(&b->g->keys, b->keys[i], b->hashes[i]) != PE_NO_SLOT)
            return pe_fail(PERI_ERR_EXISTS, "key %zu is present", i);
    if (b->n == 1)
        return PERI_OK;
    while (capacity < b->n * 2)
        capacity *= 2;
    uint32_t *seen = pe_calloc(b->g->host, capacity * sizeof *seen);
    if (!seen)
        return PERI_ERR_NOMEM;
    peri_status status = PERI_OK;
    for (size_t i = 0; i < b->n && status == PERI_OK; i++) {
        size_t at = b->hashes[i] & (capacity - 1);
        while (seen[at] && !same_key(b, seen[at] - 1, i))
            at = (at + 1) & (capacity - 1);
        if (seen[at])
            status = pe_fail(PERI_ERR_EXISTS, "key %zu stands at %u in the batch as well", i,
                             seen[at] - 1);
        seen[at] = (uint32_t)i + 1;
    }
    pe_free(b->g->host, seen, capacity * sizeof *seen);
    return status;
}

static peri_status reserve(batch *b, size_t key_bytes)
{
    pe_vgen *g = b->g;
    uint32_t count = pe_vgen_count(g);
    size_t slots = count + b->n, alive = (size_t)atomic_load(&g->keys.live);
    if (b->n > (size_t)PE_MAX_SLOTS - count)
        return pe_fail(PERI_ERR_FULL, "%s: %u rows and %zu more, at most %d are possible",
                       g->file.path, count, b->n, PE_MAX_SLOTS);
    b->first = count;
    PE_TRY(pe_vkeys_reserve(&g->keys, slots, b->n, key_bytes));
    PE_TRY(pe_array_reserve(&g->died, g->epoch, slots, 0));
    if (g->rows.space.metric == PERI_METRIC_COSINE)
        PE_TRY(pe_array_reserve(&g->rows.norms, g->epoch, slots, 0));
    PE_TRY(pe_grow(g->host, &g->fallen, &g->fallen_room,
                   g->n_fallen + (b->n < alive ? b->n : alive), sizeof *g->fallen));
    return pe_vgen_grow(g, slots * g->stride);
}

/* ---- rows ---- */

/* f32 under l2 and ip: the caller's rows are what is kept. */
static peri_status write_plain(const batch *b)
{
    pe_vgen *g = b->g;
    size_t piece = PE_VPIECE / g->stride + 1, dim = g->rows.space.dim;
    float norm;
    for (size_t first = 0; first < b->n; first += piece) {
        size_t m = b->n - first < piece ? b->n - first : piece;
        for (size_t i = first; i < first + m; i++)
            PE_TRY(pe_rows_check(&g->rows, b->rows + i * dim, "row", i, &norm));
        PE_TRY(pe_vgen_pwrite(g, b->rows + first * dim, m * g->stride,
                              (uint64_t)(b->first + first) * g->stride));
    }
    return PERI_OK;
}

/* Everything else is put into its form in rows of the heap, piece by piece. */
static peri_status write_formed(const batch *b, pe_rows *stage, float *scratch)
{
    pe_vgen *g = b->g;
    size_t piece = PE_VPIECE / g->stride + 1, dim = g->rows.space.dim;
    PE_TRY(pe_rows_reserve(stage, b->n < piece ? b->n : piece, 1));
    for (size_t first = 0; first < b->n; first += piece) {
        size_t m = b->n - first < piece ? b->n - first : piece;
        for (size_t i = 0; i < m; i++) {
            const float *row = b->rows + (first + i) * dim;
            float norm;
            PE_TRY(pe_rows_check(&g->rows, row, "row", first + i, &norm));
            pe_rows_set(stage, (uint32_t)i, row, norm, scratch);
        }
        PE_TRY(pe_vgen_pwrite(g, pe_array_at(&stage->rows, 0), m * g->stride,
                              (uint64_t)(b->first + first) * g->stride));
        for (size_t i = 0; i < m && stage->norms.capacity; i++)
            memcpy(pe_array_at(&g->rows.norms, b->first + first + i), pe_array_at(&stage->norms, i),
                   sizeof(float));
    }
    return PERI_OK;
}

/* Few bytes: checked first, then stored through the map. */
static peri_status store_rows(const batch *b, float *scratch)
{
    pe_vgen *g = b->g;
    size_t dim = g->rows.space.dim;
    float norm;
    for (size_t i = 0; i < b->n; i++)
        PE_TRY(pe_rows_check(&g->rows, b->rows + i * dim, "row", i, &norm));
    PE_TRY(pe_vgen_prepare(g, (uint64_t)(b->first + b->n) * g->stride));
    for (size_t i = 0; i < b->n; i++) {
        PE_TRY(pe_rows_check(&g->rows, b->rows + i * dim, "row", i, &norm));
        pe_rows_set(&g->rows, b->first + (uint32_t)i, b->rows + i * dim, norm, scratch);
    }
    return PERI_OK;
}

static peri_status write_rows(const batch *b)
{
    pe_vgen *g = b->g;
    size_t room = g->rows.space.dim * sizeof(float);
    int few = b->n == 1 || b->n * g->stride < BY_STORE;
    int plain = g->rows.elem == PE_ELEM_F32 && g->rows.space.metric != PERI_METRIC_COSINE;
    if (plain)
        return few ? store_rows(b, NULL) : write_plain(b);
    float *scratch = pe_alloc(g->host, room);
    if (!scratch)
        return PERI_ERR_NOMEM;
    peri_status status;
    if (few) {
        status = store_rows(b, scratch);
    } else {
        pe_rows stage;
        pe_rows_init(&stage, g->host, g->epoch, &g->rows.space);
        status = write_formed(b, &stage, scratch);
        pe_rows_destroy(&stage);
    }
    pe_free(g->host, scratch, room);
    return status;
}

/* ---- commit ---- */

void pe_vectors_kill(peri_vectors *v, pe_vgen *g, uint32_t slot, uint32_t count)
{
    atomic_store_explicit(pe_vgen_died(g, slot), count, memory_order_release);
    if (slot < g->saved)
        g->fallen[g->n_fallen++] = slot;
    pe_vindex *x = atomic_load_explicit(&v->index, memory_order_relaxed);
    if (x && slot < atomic_load_explicit(&x->rows, memory_order_relaxed))
        atomic_fetch_add_explicit(&x->stale, 1, memory_order_release);
}

static void commit(const batch *b)
{
    pe_vgen *g = b->g;
    uint32_t count = b->first + (uint32_t)b->n;
    for (size_t first = 0; first < b->n; first += GROUP) {
        size_t stop = b->n - first < GROUP ? b->n : first + GROUP;
        for (size_t i = first; i < stop; i++)
            pe_vkeys_prefetch(&g->keys, b->hashes[i]);
        for (size_t i = first; i < stop; i++) {
            uint32_t slot = b->first + (uint32_t)i;
            uint32_t former = pe_vkeys_set(&g->keys, b->keys[i], b->hashes[i], slot);
            if (former != PE_NO_SLOT)
                pe_vectors_kill(b->v, g, former, count);
        }
    }
    atomic_store_explicit(&g->count, count, memory_order_release);
}

static peri_status insert_hashed(batch *b)
{
    size_t key_bytes;
    PE_TRY(check_keys(b, &key_bytes));
    if (b->flags & PERI_PUT_NEW)
        PE_TRY(check_new(b));
    PE_TRY(reserve(b, key_bytes));
    PE_TRY(write_rows(b));
    commit(b);
    return PERI_OK;
}

/* Within begin and end of a write. */
static peri_status insert(peri_vectors *v, size_t n, const peri_slice *keys, const float *rows,
                          uint32_t flags, uint64_t *first_id)
{
    pe_vgen *g = atomic_load_explicit(&v->gen, memory_order_relaxed);
    batch b = {.v = v, .g = g, .n = n, .keys = keys, .rows = rows, .flags = flags};
    uint32_t one;
    b.hashes = n == 1 ? &one : pe_alloc(g->host, n * sizeof *b.hashes);
    if (!b.hashes)
        return PERI_ERR_NOMEM;
    peri_status status = insert_hashed(&b);
    if (n > 1)
        pe_free(g->host, b.hashes, n * sizeof *b.hashes);
    if (status == PERI_OK && first_id)
        *first_id = g->id_base + b.first;
    return status;
}

static peri_status check_args(const peri_vectors *v, size_t n, const peri_slice *keys,
                              const float *rows, uint32_t flags)
{
    size_t bytes;
    if (!v || (n && (!keys || !rows)))
        return pe_fail(PERI_ERR_ARG, "%s is NULL", !v ? "vectors" : !keys ? "keys" : "rows");
    if (flags & ~(uint32_t)PERI_PUT_NEW)
        return pe_fail(PERI_ERR_ARG, "unknown put flags 0x%x", flags);
    if (pe_mul_size(n, v->space.dim, &bytes) || pe_mul_size(bytes, sizeof(float), &bytes) ||
        bytes > SIZE_MAX / 4)
        return pe_fail(PERI_ERR_ARG, "%zu rows of %u floats overflow", n, v->space.dim);
    return PERI_OK;
}

peri_status peri_vectors_insert_batch(peri_vectors *v, size_t n, const peri_slice *keys,
                                      const float *rows, uint32_t flags, uint64_t *first_id)
{
    PE_TRY(check_args(v, n, keys, rows, flags));
    PE_TRY(pe_vectors_begin_write(v));
    peri_status status = n ? insert(v, n, keys, rows, flags, first_id) : PERI_OK;
    pe_vectors_end_write(v);
    return status;
}

peri_status peri_vectors_insert(peri_vectors *v, peri_slice key, const float *row, uint32_t flags,
                                uint64_t *id)
{
    return peri_vectors_insert_batch(v, 1, &key, row, flags, id);
}

static peri_status find_slot(const pe_vgen *g, peri_slice key, uint32_t *slot, uint32_t *hash)
{
    PE_TRY(pe_vectors_check_key(key, 0));
    *hash = pe_vkeys_hash(&g->keys, key.data, key.size);
    *slot = pe_vkeys_find(&g->keys, key, *hash);
    return *slot == PE_NO_SLOT ? pe_fail(PERI_ERR_NOT_FOUND, "no such key") : PERI_OK;
}

peri_status peri_vectors_update(peri_vectors *v, peri_slice key, const float *row, uint64_t *id)
{
    uint32_t slot = 0, hash = 0;
    PE_TRY(check_args(v, 1, &key, row, 0));
    PE_TRY(pe_vectors_begin_write(v));
    peri_status status = find_slot(atomic_load(&v->gen), key, &slot, &hash);
    if (status == PERI_OK)
        status = insert(v, 1, &key, row, 0, id);
    pe_vectors_end_write(v);
    return status;
}

peri_status peri_vectors_delete(peri_vectors *v, peri_slice key)
{
    uint32_t slot = 0, hash = 0;
    PE_TRY(pe_vectors_begin_write(v));
    pe_vgen *g = atomic_load_explicit(&v->gen, memory_order_relaxed);
    peri_status status = find_slot(g, key, &slot, &hash);
    if (status == PERI_OK)
        status = pe_grow(g->host, &g->fallen, &g->fallen_room, g->n_fallen + 1, sizeof *g->fallen);
    if (status == PERI_OK) {
        pe_vkeys_remove(&g->keys, key, hash);
        pe_vectors_kill(v, g, slot, pe_vgen_count(g));
    }
    pe_vectors_end_write(v);
    return status;
}

peri_status peri_vectors_checkpoint(peri_vectors *v)
{
    int poisoned;
    PE_TRY(pe_vectors_begin_write(v));
    peri_status status = pe_vgen_checkpoint(atomic_load(&v->gen), &poisoned);
    if (poisoned)
        atomic_store_explicit(&v->poisoned, 1, memory_order_release);
    pe_vectors_end_write(v);
    return status;
}
