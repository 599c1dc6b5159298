/* Putting and removing.
 *
 * A put reserves everything first, then stores the rows in slots that no reader sees, links them,
 * and binds ids to slots one by one: the bind is the moment a row becomes visible and the row it
 * replaces hidden. A large batch goes in by parts, so that its rows are found while it runs. */
#define _GNU_SOURCE
#include "index/index.h"
#include "base/checked.h"

#include <stdlib.h>

enum { PART = 16384 };

typedef struct put {
    peri_index *ix;
    size_t n;
    const uint64_t *ids;    /* NULL: numbered from next_id */
    const peri_slice *keys; /* keyed put */
    const float *rows;
    uint32_t flags;
    pe_progress progress;
    unsigned workers;
    float *norms;
    uint32_t *slots;
    size_t part; /* room of slots */
    float *scratch;
    uint64_t *key_ids;
    pe_keys *key_set;   /* of a keyed put */
    pe_keys *fresh_set; /* the same, while no key of it is in: an index is keyed from then on */
} put;

static peri_status check_args(const peri_index *ix, size_t n, const float *rows, uint32_t flags)
{
    if (!ix || (n && !rows))
        return pe_fail(PERI_ERR_ARG, "%s is NULL", ix ? "rows" : "index");
    if (flags & ~(uint32_t)PERI_PUT_NEW)
        return pe_fail(PERI_ERR_ARG, "unknown put flags 0x%x", flags);
    size_t bytes;
    if (pe_mul_size(n, ix->space.dim, &bytes) || pe_mul_size(bytes, sizeof(float), &bytes))
        return pe_fail(PERI_ERR_ARG, "%zu rows of %u floats overflow", n, ix->space.dim);
    return PERI_OK;
}

static peri_status check_rows(put *p)
{
    for (size_t i = 0; i < p->n; i++)
        PE_TRY(pe_rows_check(&p->ix->rows, p->rows + i * p->ix->space.dim, "row", i, &p->norms[i]));
    return PERI_OK;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

static peri_status check_new(const put *p)
{
    const pe_slots *s = &p->ix->slots;
    for (size_t i = 0; i < p->n; i++)
        if (pe_slots_find(s, p->ids[i]) != PE_NO_SLOT)
            return pe_fail(PERI_ERR_EXISTS, "id %llu is present", (unsigned long long)p->ids[i]);
    if (p->n < 2)
        return PERI_OK;
    uint64_t *sorted = pe_alloc(&p->ix->host, p->n * sizeof *sorted);
    if (!sorted)
        return PERI_ERR_NOMEM;
    memcpy(sorted, p->ids, p->n * sizeof *sorted);
    qsort(sorted, p->n, sizeof *sorted, compare_u64);
    peri_status status = PERI_OK;
    for (size_t i = 1; i < p->n && status == PERI_OK; i++)
        if (sorted[i] == sorted[i - 1])
            status = pe_fail(PERI_ERR_EXISTS, "id %llu stands twice in the batch",
                             (unsigned long long)sorted[i]);
    pe_free(&p->ix->host, sorted, p->n * sizeof *sorted);
    return status;
}

static peri_status reserve(peri_index *ix, size_t n, const uint64_t *ids, int exact,
                           unsigned workers)
{
    PE_TRY(pe_slots_reserve(&ix->slots, n, ids, exact));
    size_t have = pe_slots_free(&ix->slots);
    size_t slots = pe_slots_count(&ix->slots) + (n > have ? n - have : 0);
    PE_TRY(pe_rows_reserve(&ix->rows, slots, exact));
    if (ix->kind->reserve)
        PE_TRY(ix->kind->reserve(ix, slots, n, exact, workers));
    if (slots > atomic_load_explicit(&ix->slots.readable, memory_order_relaxed))
        atomic_store_explicit(&ix->slots.readable, (uint32_t)slots, memory_order_release);
    return PERI_OK;
}

/* The row of a slot is hidden: have its links replaced, then free it. */
static void retire_slot(peri_index *ix, uint32_t slot)
{
    if (ix->kind->removed)
        ix->kind->removed(ix, slot);
    else
        pe_slots_release(&ix->slots, slot);
}

/* How many rows these n may replace; each costs two retirements. */
static size_t most_replaced(const put *p, size_t first, size_t n)
{
    const uint64_t *ids = p->ids ? p->ids : p->key_ids;
    size_t present = 0;
    if (!ids)
        return 0;
    for (size_t i = first; i < first + n; i++) {
        if (i > first && ids[i] <= ids[i - 1])
            return n; /* not ascending: an id may stand twice */
        present += pe_slots_find(&p->ix->slots, ids[i]) != PE_NO_SLOT;
    }
    return present;
}

/* Rows [first, first + n) into slots, linked and bound. */
static peri_status put_part(put *p, size_t first, size_t n, size_t *done)
{
    peri_index *ix = p->ix;
    uint32_t next = pe_slots_count(&ix->slots), dim = ix->space.dim;
    PE_TRY(pe_epoch_hold(&ix->epoch, 2 * most_replaced(p, first, n) + 64));
    for (size_t i = 0; i < n; i++) {
        p->slots[i] = pe_slots_take(&ix->slots, &next);
        pe_rows_set(&ix->rows, p->slots[i], p->rows + (first + i) * dim, p->norms[first + i],
                    p->scratch);
    }
    size_t in = n;
    peri_status status = PERI_OK;
    if (ix->kind->insert)
        status = ix->kind->insert(ix, p->slots, n, &p->progress, p->workers, &in);
    else
        pe_progress_add(&p->progress, 0, n);
    for (size_t i = n; i > in; i--) {
        if (p->slots[i - 1] + 1 == next)
            next--;
        else
            pe_slots_untake(&ix->slots, p->slots[i - 1]);
    }
    pe_slots_publish(&ix->slots, next);
    if (p->fresh_set && in) {
        atomic_store_explicit(&ix->keys, p->fresh_set, memory_order_release);
        p->fresh_set = NULL;
    }
    for (size_t i = 0; i < in; i++) {
        size_t at = first + i;
        uint64_t id = p->ids ? p->ids[at] : p->key_ids ? p->key_ids[at] : ix->slots.next_id;
        uint32_t former = pe_slots_bind(&ix->slots, id, p->slots[i]);
        if (former != PE_NO_SLOT)
            retire_slot(ix, former);
        if (p->keys)
            pe_keys_set(p->key_set, p->keys[at], id);
    }
    *done += in;
    return status;
}

static peri_status put_all(put *p, size_t *done)
{
    peri_index *ix = p->ix;
    size_t part = p->n < PART ? p->n : PART;
    int whole = ix->kind->at_once && ix->kind->at_once(ix, p->n);
    if (whole)
        part = p->n;
    p->part = part;
    int bulk = p->n > 1;
    if (ix->kind->before)
        PE_TRY(ix->kind->before(ix, p->rows, p->n, &p->progress));
    p->slots = pe_alloc(&ix->host, part * sizeof *p->slots);
    p->scratch = pe_alloc(&ix->host, ix->space.dim * sizeof *p->scratch);
    if (!p->slots || !p->scratch)
        return PERI_ERR_NOMEM;
    PE_TRY(reserve(ix, p->n, p->ids ? p->ids : p->key_ids, bulk, p->workers));
    pe_progress_phase(&p->progress, "insert", p->n);
    for (size_t first = 0; first < p->n; first += part) {
        size_t n = p->n - first < part ? p->n - first : part, had = *done;
        PE_TRY(put_part(p, first, n, done));
        if (*done - had < n)
            break; /* cancelled */
    }
    PE_TRY(pe_progress_end(&p->progress));
    return whole && ix->kind->settled ? ix->kind->settled(ix, &p->progress, p->workers) : PERI_OK;
}

static int compare_keys(const void *a, const void *b, void *ctx)
{
    const peri_slice *keys = ctx;
    size_t i, j;
    memcpy(&i, a, sizeof i);
    memcpy(&j, b, sizeof j);
    size_t n = keys[i].size < keys[j].size ? keys[i].size : keys[j].size;
    int order = memcmp(keys[i].data, keys[j].data, n);
    if (order == 0)
        order = keys[i].size < keys[j].size ? -1 : keys[i].size > keys[j].size;
    return order ? order : i < j ? -1 : i > j;
}

/* The id of each key: its own when it is present, that of its first place in the batch when it
 * stands there twice, else a new one. */
static peri_status number_keys(put *p, const pe_keys *keys)
{
    peri_index *ix = p->ix;
    size_t *order = pe_alloc(&ix->host, p->n * sizeof *order);
    p->key_ids = pe_alloc(&ix->host, p->n * sizeof *p->key_ids);
    if (!order || !p->key_ids) {
        pe_free(&ix->host, order, p->n * sizeof *order);
        return PERI_ERR_NOMEM;
    }
    for (size_t i = 0; i < p->n; i++)
        order[i] = i;
    qsort_r(order, p->n, sizeof *order, compare_keys, (void *)(uintptr_t)p->keys);
    /* For now each entry names the first row with its key. */
    for (size_t i = 0, first = 0; i < p->n; i++) {
        const peri_slice *a = &p->keys[order[i]], *b = &p->keys[order[first]];
        if (a->size != b->size || memcmp(a->data, b->data, a->size) != 0)
            first = i;
        p->key_ids[order[i]] = order[first];
    }
    pe_free(&ix->host, order, p->n * sizeof *order);
    uint64_t next = ix->slots.next_id, had;
    for (size_t i = 0; i < p->n; i++) {
        size_t first = (size_t)p->key_ids[i];
        int present = pe_keys_find(keys, p->keys[i], &had);
        if ((p->flags & PERI_PUT_NEW) && (present || first != i))
            return pe_fail(PERI_ERR_EXISTS, "key %zu is present", i);
        p->key_ids[i] = first != i ? p->key_ids[first] : present ? had : next++;
    }
    return PERI_OK;
}

static peri_status prepare_keys(put *p)
{
    peri_index *ix = p->ix;
    size_t bytes = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (!p->keys[i].data || p->keys[i].size < 1 || p->keys[i].size > PERI_MAX_KEY_SIZE)
            return pe_fail(PERI_ERR_ARG, "key %zu has %zu bytes, expected 1 to %d", i,
                           p->keys[i].data ? p->keys[i].size : 0, PERI_MAX_KEY_SIZE);
        bytes += p->keys[i].size;
    }
    p->key_set = atomic_load_explicit(&ix->keys, memory_order_relaxed);
    if (!p->key_set) {
        if (pe_slots_count(&ix->slots))
            return pe_fail(PERI_ERR_STATE, "the index holds rows by id: it takes no keys");
        PE_TRY(pe_keys_create(&p->fresh_set, &ix->host, &ix->epoch));
        p->key_set = p->fresh_set;
    }
    PE_TRY(number_keys(p, p->key_set));
    return pe_keys_reserve(p->key_set, p->n, bytes);
}

static void free_put(put *p)
{
    pe_host *host = &p->ix->host;
    pe_free(host, p->norms, p->n * sizeof *p->norms);
    pe_free(host, p->slots, p->part * sizeof *p->slots);
    pe_free(host, p->scratch, p->ix->space.dim * sizeof *p->scratch);
    pe_free(host, p->key_ids, p->n * sizeof *p->key_ids);
    pe_keys_destroy(p->fresh_set);
}

static peri_status run_put(put *p, const peri_task *task, size_t *n_done)
{
    size_t done = 0;
    peri_index *ix = p->ix;
    if (p->n == 0)
        return PERI_OK;
    PE_TRY(pe_progress_init(&p->progress, task));
    p->workers = p->n > 1 ? pe_task_threads(task) : 1;
    PE_TRY(pe_index_begin_write(ix));
    pe_host_limit(&ix->host, task);
    peri_status status = PERI_OK;
    int keyed = atomic_load_explicit(&ix->keys, memory_order_relaxed) != NULL;
    if (keyed && !p->keys)
        status = pe_fail(PERI_ERR_STATE, "the index is keyed: put by key");
    else if (!p->ids && p->n > UINT64_MAX - ix->slots.next_id)
        status = pe_fail(PERI_ERR_FULL, "%zu rows to number from id %llu", p->n,
                         (unsigned long long)ix->slots.next_id);
    if (status == PERI_OK && !(p->norms = pe_alloc(&ix->host, p->n * sizeof *p->norms)))
        status = PERI_ERR_NOMEM;
    if (status == PERI_OK)
        status = check_rows(p);
    if (status == PERI_OK && p->keys)
        status = prepare_keys(p);
    else if (status == PERI_OK && (p->flags & PERI_PUT_NEW) && p->ids)
        status = check_new(p);
    if (status == PERI_OK)
        status = put_all(p, &done);
    free_put(p);
    pe_index_end_write(ix);
    if (n_done)
        *n_done = done;
    return status;
}

peri_status peri_index_put(peri_index *ix, uint64_t id, const float *row, uint32_t flags)
{
    PE_TRY(check_args(ix, 1, row, flags));
    put p = {.ix = ix, .n = 1, .ids = &id, .rows = row, .flags = flags};
    return run_put(&p, NULL, NULL);
}

peri_status peri_index_put_many(peri_index *ix, size_t n, const uint64_t *ids, const float *rows,
                                uint32_t flags, const peri_task *task, size_t *n_done)
{
    if (n_done)
        *n_done = 0;
    PE_TRY(check_args(ix, n, rows, flags));
    put p = {.ix = ix, .n = n, .ids = ids, .rows = rows, .flags = flags};
    return run_put(&p, task, n_done);
}

peri_status peri_index_put_keyed(peri_index *ix, peri_slice key, const float *row, uint32_t flags,
                                 uint64_t *id)
{
    PE_TRY(check_args(ix, 1, row, flags));
    put p = {.ix = ix, .n = 1, .keys = &key, .rows = row, .flags = flags};
    PE_TRY(run_put(&p, NULL, NULL));
    return id ? peri_index_id_of(ix, key, id) : PERI_OK;
}

peri_status peri_index_put_many_keyed(peri_index *ix, size_t n, const peri_slice *keys,
                                      const float *rows, uint32_t flags, const peri_task *task,
                                      size_t *n_done)
{
    if (n_done)
        *n_done = 0;
    PE_TRY(check_args(ix, n, rows, flags));
    if (n && !keys)
        return pe_fail(PERI_ERR_ARG, "keys is NULL");
    put p = {.ix = ix, .n = n, .keys = keys, .rows = rows, .flags = flags};
    return run_put(&p, task, n_done);
}

peri_status peri_index_reserve(peri_index *ix, size_t rows)
{
    PE_TRY(pe_index_begin_write(ix));
    size_t have = pe_slots_count(&ix->slots);
    peri_status status = PERI_OK;
    if (rows > PE_MAX_SLOTS)
        status = pe_fail(PERI_ERR_FULL, "%zu rows, at most %d are possible", rows, PE_MAX_SLOTS);
    else if (rows > have)
        status = reserve(ix, rows - have, NULL, 1, 1);
    pe_index_end_write(ix);
    return status;
}

static peri_status remove_id(peri_index *ix, uint64_t id)
{
    PE_TRY(pe_epoch_hold(&ix->epoch, 64));
    uint32_t slot = pe_slots_unbind(&ix->slots, id);
    if (slot == PE_NO_SLOT)
        return pe_fail(PERI_ERR_NOT_FOUND, "no id %llu", (unsigned long long)id);
    retire_slot(ix, slot);
    return PERI_OK;
}

peri_status peri_index_remove(peri_index *ix, uint64_t id)
{
    PE_TRY(pe_index_begin_write(ix));
    peri_status status = atomic_load_explicit(&ix->keys, memory_order_relaxed)
                             ? pe_fail(PERI_ERR_STATE, "the index is keyed: remove by key")
                             : remove_id(ix, id);
    pe_index_end_write(ix);
    return status;
}

static peri_status check_key(peri_slice key)
{
    if (!key.data || key.size < 1 || key.size > PERI_MAX_KEY_SIZE)
        return pe_fail(PERI_ERR_ARG, "key has %zu bytes, expected 1 to %d", key.data ? key.size : 0,
                       PERI_MAX_KEY_SIZE);
    return PERI_OK;
}

peri_status peri_index_remove_keyed(peri_index *ix, peri_slice key)
{
    PE_TRY(check_key(key));
    PE_TRY(pe_index_begin_write(ix));
    pe_keys *keys = atomic_load_explicit(&ix->keys, memory_order_relaxed);
    uint64_t id;
    peri_status status = PERI_OK;
    if (!keys || !pe_keys_find(keys, key, &id))
        status = pe_fail(PERI_ERR_NOT_FOUND, "no such key");
    if (status == PERI_OK)
        status = remove_id(ix, id);
    if (status == PERI_OK)
        pe_keys_remove(keys, key);
    pe_index_end_write(ix);
    return status;
}

peri_status peri_index_id_of(const peri_index *ix, peri_slice key, uint64_t *id)
{
    if (!ix || !id)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", ix ? "id" : "index");
    PE_TRY(check_key(key));
    pe_reader *place = pe_epoch_enter(&ix->epoch);
    const pe_keys *keys = atomic_load_explicit(&ix->keys, memory_order_acquire);
    int found = keys && pe_keys_find(keys, key, id);
    pe_epoch_exit(place);
    return found ? PERI_OK : pe_fail(PERI_ERR_NOT_FOUND, "no such key");
}

peri_status peri_index_key_of(const peri_index *ix, uint64_t id, peri_buf *key)
{
    if (!ix || !key)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", ix ? "key" : "index");
    pe_reader *place = pe_epoch_enter(&ix->epoch);
    const pe_keys *keys = atomic_load_explicit(&ix->keys, memory_order_acquire);
    peri_slice found;
    peri_status status =
        keys && pe_keys_key_of(keys, id, &found)
            ? pe_buf_set(key, found.data, found.size)
            : pe_fail(PERI_ERR_NOT_FOUND, "no key for id %llu", (unsigned long long)id);
    pe_epoch_exit(place);
    return status;
}

peri_status peri_index_get(const peri_index *ix, uint64_t id, float *row)
{
    if (!ix || !row)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", ix ? "row" : "index");
    pe_reader *place = pe_epoch_enter(&ix->epoch);
    uint32_t slot = pe_slots_find(&ix->slots, id);
    peri_status status = slot == PE_NO_SLOT
                             ? pe_fail(PERI_ERR_NOT_FOUND, "no id %llu", (unsigned long long)id)
                             : pe_index_touch(ix, slot);
    if (status == PERI_OK)
        pe_rows_get(&ix->rows, slot, row, 1);
    pe_epoch_exit(place);
    return status;
}

static peri_status train_locked(peri_index *ix, size_t n, const float *rows, const peri_task *task,
                                pe_progress *progress)
{
    float norm;
    for (size_t i = 0; i < n; i++)
        PE_TRY(pe_rows_check(&ix->rows, rows + i * ix->space.dim, "row", i, &norm));
    return ix->kind->train(ix, rows, n, progress, pe_task_threads(task));
}

peri_status peri_index_train(peri_index *ix, size_t n, const float *rows, const peri_task *task)
{
    pe_progress progress;
    PE_TRY(check_args(ix, n, rows, 0));
    PE_TRY(pe_progress_init(&progress, task));
    if (!ix->kind->train)
        return pe_fail(PERI_ERR_UNSUPPORTED, "kind %s needs no training", ix->kind->name);
    PE_TRY(pe_index_begin_write(ix));
    pe_host_limit(&ix->host, task);
    peri_status status = train_locked(ix, n, rows, task, &progress);
    pe_index_end_write(ix);
    return status;
}

peri_status peri_index_maintain(peri_index *ix, const peri_task *task)
{
    pe_progress progress;
    PE_TRY(pe_progress_init(&progress, task));
    PE_TRY(pe_index_begin_write(ix));
    pe_host_limit(&ix->host, task);
    unsigned workers = pe_task_threads(task);
    peri_status status = PERI_OK;
    if (ix->kind->maintain)
        status = ix->kind->maintain(ix, &progress, workers);
    pe_keys *keys = atomic_load_explicit(&ix->keys, memory_order_relaxed);
    if (status == PERI_OK && keys)
        status = pe_keys_compact(keys);
    pe_epoch_reclaim(&ix->epoch);
    if (status == PERI_OK && (ix->kind->caps & PERI_CAP_EFFORT))
        status = pe_index_calibrate(ix, PE_SAMPLES, &progress, workers);
    pe_index_end_write(ix);
    return status;
}
