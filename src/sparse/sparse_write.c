/* Putting, removing, keys, maintaining. */
#define _GNU_SOURCE
#include "sparse/sparse.h"

#include <stdlib.h>

typedef struct put {
    peri_sparse *sx;
    size_t n;
    const uint64_t *ids; /* NULL: numbered */
    const peri_sparse_rows *rows;
    const peri_slice *keys; /* NULL: by id */
    uint32_t flags;
    uint64_t *key_ids; /* the id of each key */
    pe_keys *key_set, *fresh_set;
    pe_sparse_made made;
    pe_progress progress;
    unsigned workers;
} put;

/* ---- checking ---- */

peri_status pe_sparse_check_rows(const peri_sparse_rows *rows, const char *what)
{
    if (!rows || (rows->n && !rows->offsets))
        return pe_fail(PERI_ERR_ARG, "%s is NULL", rows ? "offsets" : what);
    if (rows->n && rows->offsets[rows->n] != rows->offsets[0] && (!rows->terms || !rows->weights))
        return pe_fail(PERI_ERR_ARG, "%s is NULL", rows->terms ? "weights" : "terms");
    for (size_t i = 0; i < rows->n; i++)
        if (rows->offsets[i + 1] < rows->offsets[i] ||
            rows->offsets[i + 1] - rows->offsets[i] > PERI_SPARSE_MAX_ENTRIES)
            return pe_fail(PERI_ERR_ARG,
                           "offsets[%zu] is %llu, offsets[%zu] is %llu: expected 0 to %d more", i,
                           (unsigned long long)rows->offsets[i], i + 1,
                           (unsigned long long)rows->offsets[i + 1], PERI_SPARSE_MAX_ENTRIES);
    return PERI_OK;
}

static peri_status check_args(const peri_sparse *sx, const peri_sparse_rows *rows, uint32_t flags)
{
    if (!sx)
        return pe_fail(PERI_ERR_ARG, "sx is NULL");
    if (flags & ~(uint32_t)PERI_PUT_NEW)
        return pe_fail(PERI_ERR_ARG, "unknown put flags 0x%x", flags);
    return pe_sparse_check_rows(rows, "rows");
}

static peri_status row_of(put *p, size_t i, pe_doc *doc)
{
    uint64_t first = p->rows->offsets[i];
    size_t n = (size_t)(p->rows->offsets[i + 1] - first);
    const uint32_t *terms = n ? p->rows->terms + first : NULL;
    const float *weights = n ? p->rows->weights + first : NULL;
    if (doc)
        return pe_sparse_make_row(p->sx, terms, weights, n, i, &p->made, doc);
    return pe_sparse_check_row(p->sx, terms, weights, n, "row", i, &p->made);
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

/* No id may be present, none may stand twice. */
static peri_status check_new(put *p)
{
    const pe_snapshot *now = pe_postings_now(&p->sx->postings);
    uint32_t part, doc;
    for (size_t i = 0; i < p->n; i++)
        if (pe_snapshot_find(now, p->ids[i], &part, &doc))
            return pe_fail(PERI_ERR_EXISTS, "id %llu is present", (unsigned long long)p->ids[i]);
    uint64_t *sorted = pe_alloc(&p->sx->host, p->n * sizeof *sorted);
    if (!sorted)
        return PERI_ERR_NOMEM;
    memcpy(sorted, p->ids, p->n * sizeof *sorted);
    qsort(sorted, p->n, sizeof *sorted, compare_u64);
    peri_status status = PERI_OK;
    for (size_t i = 1; i < p->n && status == PERI_OK; i++)
        if (sorted[i] == sorted[i - 1])
            status = pe_fail(PERI_ERR_EXISTS, "id %llu stands twice among the rows",
                             (unsigned long long)sorted[i]);
    pe_free(&p->sx->host, sorted, p->n * sizeof *sorted);
    return status;
}

/* ---- keys ---- */

static int compare_slices(const peri_slice *a, const peri_slice *b)
{
    int order = memcmp(a->data, b->data, a->size < b->size ? a->size : b->size);
    return order ? order : a->size < b->size ? -1 : a->size > b->size;
}

static int compare_keys(const void *a, const void *b, void *ctx)
{
    const peri_slice *keys = ctx;
    size_t i, j;
    memcpy(&i, a, sizeof i);
    memcpy(&j, b, sizeof j);
    int order = compare_slices(&keys[i], &keys[j]);
    return order ? order : i < j ? -1 : i > j;
}

/* The id of each key: its own when it is present, that of its first place in the batch when it
 * stands there twice, else the next new one. */
static peri_status number_keys(put *p)
{
    pe_host *host = &p->sx->host;
    size_t *order = pe_alloc(host, p->n * sizeof *order);
    p->key_ids = pe_alloc(host, p->n * sizeof *p->key_ids);
    if (!order || !p->key_ids) {
        pe_free(host, order, p->n * sizeof *order);
        return PERI_ERR_NOMEM;
    }
    for (size_t i = 0; i < p->n; i++)
        order[i] = i;
    qsort_r(order, p->n, sizeof *order, compare_keys, (void *)(uintptr_t)p->keys);
    for (size_t i = 0, first = 0; i < p->n; i++) { /* for now: the first row with this key */
        if (compare_slices(&p->keys[order[i]], &p->keys[order[first]]) != 0)
            first = i;
        p->key_ids[order[i]] = order[first];
    }
    pe_free(host, order, p->n * sizeof *order);
    uint64_t next = p->sx->next_id, had;
    for (size_t i = 0; i < p->n; i++) {
        size_t first = (size_t)p->key_ids[i];
        int present = pe_keys_find(p->key_set, p->keys[i], &had);
        if ((p->flags & PERI_PUT_NEW) && (present || first != i))
            return pe_fail(PERI_ERR_EXISTS, "key %zu is present", i);
        p->key_ids[i] = first != i ? p->key_ids[first] : present ? had : next++;
    }
    return PERI_OK;
}

static peri_status prepare_keys(put *p)
{
    peri_sparse *sx = p->sx;
    size_t bytes = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (!p->keys[i].data || p->keys[i].size < 1 || p->keys[i].size > PERI_MAX_KEY_SIZE)
            return pe_fail(PERI_ERR_ARG, "key %zu has %zu bytes, expected 1 to %d", i,
                           p->keys[i].data ? p->keys[i].size : 0, PERI_MAX_KEY_SIZE);
        bytes += p->keys[i].size;
    }
    p->key_set = atomic_load_explicit(&sx->keys, memory_order_relaxed);
    if (!p->key_set) {
        if (sx->next_id)
            return pe_fail(PERI_ERR_STATE, "the index holds rows by id: it takes no keys");
        PE_TRY(pe_keys_create(&p->fresh_set, &sx->host, &sx->epoch));
        p->key_set = p->fresh_set;
    }
    PE_TRY(number_keys(p));
    return pe_keys_reserve(p->key_set, p->n, bytes);
}

/* ---- putting ---- */

static void count_id(peri_sparse *sx, uint64_t id)
{
    if (id >= sx->next_id)
        sx->next_id = id == UINT64_MAX ? id : id + 1;
}

/* Rows [first, first + n), published together. A key and its row become visible one after the
 * other: a reader that sees only one of them finds nothing by it. */
static peri_status put_part(put *p, size_t first, size_t n, size_t *done)
{
    peri_sparse *sx = p->sx;
    pe_edit e;
    peri_status status;
    PE_TRY(pe_edit_begin(&e, &sx->postings));
    size_t in = 0;
    int cancelled = 0;
    for (status = PERI_OK; in < n && !cancelled; in++) {
        size_t at = first + in;
        pe_doc doc;
        status = row_of(p, at, &doc);
        if (status != PERI_OK)
            break;
        doc.id = p->ids ? p->ids[at] : p->key_ids ? p->key_ids[at] : sx->next_id;
        status = pe_edit_put(&e, &doc);
        if (status != PERI_OK)
            break;
        count_id(sx, doc.id);
        cancelled = pe_progress_add(&p->progress, 0, 1);
    }
    pe_edit_commit(&e);
    if (p->fresh_set && in) {
        atomic_store_explicit(&sx->keys, p->fresh_set, memory_order_release);
        p->fresh_set = NULL;
    }
    for (size_t i = 0; i < in && p->keys; i++)
        pe_keys_set(p->key_set, p->keys[first + i], p->key_ids[first + i]);
    *done += in;
    return status;
}

static peri_status put_all(put *p, size_t *done)
{
    peri_sparse *sx = p->sx;
    pe_progress quiet;
    PE_TRY(pe_progress_init(&quiet, NULL));
    pe_progress_phase(&p->progress, "insert", p->n);
    for (size_t first = 0; first < p->n && !p->progress.cancelled; first += PE_MERGE_BOUNDED) {
        size_t n = p->n - first < PE_MERGE_BOUNDED ? p->n - first : PE_MERGE_BOUNDED;
        PE_TRY(put_part(p, first, n, done));
        /* Of a bulk call all merges that are due; of a single one those of bounded size. The rows
         * are in: merges that fail for want of memory are left to later calls. */
        pe_postings_tidy(&sx->postings, p->n < PE_WINDOW ? PE_MERGE_BOUNDED : UINT64_MAX, 0, &quiet,
                         p->workers);
    }
    return pe_progress_end(&p->progress);
}

static peri_status check_all(put *p)
{
    peri_sparse *sx = p->sx;
    int keyed = atomic_load_explicit(&sx->keys, memory_order_relaxed) != NULL;
    if (keyed && !p->keys)
        return pe_fail(PERI_ERR_STATE, "the index is keyed: put by key");
    if (!p->ids && p->n > UINT64_MAX - sx->next_id)
        return pe_fail(PERI_ERR_FULL, "%zu rows to number from id %llu", p->n,
                       (unsigned long long)sx->next_id);
    for (size_t i = 0; i < p->n && p->n > 1; i++)
        PE_TRY(row_of(p, i, NULL));
    if (p->keys)
        return prepare_keys(p);
    return (p->flags & PERI_PUT_NEW) && p->ids ? check_new(p) : PERI_OK;
}

static peri_status run_put(put *p, const peri_task *task, size_t *n_done)
{
    size_t done = 0;
    peri_sparse *sx = p->sx;
    p->n = p->rows->n;
    if (p->n == 0)
        return PERI_OK;
    PE_TRY(pe_progress_init(&p->progress, task));
    p->workers = p->n > 1 ? pe_task_threads(task) : 1;
    PE_TRY(pe_sparse_begin_write(sx));
    pe_host_limit(&sx->host, task);
    p->made.host = &sx->host;
    peri_status status = check_all(p);
    if (status == PERI_OK)
        status = put_all(p, &done);
    pe_sparse_made_free(&p->made);
    pe_free(&sx->host, p->key_ids, p->key_ids ? p->n * sizeof *p->key_ids : 0);
    pe_keys_destroy(p->fresh_set);
    pe_sparse_end_write(sx);
    if (n_done)
        *n_done = done;
    return status;
}

/* One row as rows; offsets is the caller's room. */
static peri_status one_row(const peri_sparse_row *row, uint64_t offsets[2], peri_sparse_rows *rows)
{
    if (!row)
        return pe_fail(PERI_ERR_ARG, "row is NULL");
    if (row->n > PERI_SPARSE_MAX_ENTRIES)
        return pe_fail(PERI_ERR_ARG, "row has %zu entries, at most %d are possible", row->n,
                       PERI_SPARSE_MAX_ENTRIES);
    offsets[0] = 0;
    offsets[1] = row->n;
    *rows = (peri_sparse_rows){1, offsets, row->terms, row->weights};
    return PERI_OK;
}

peri_status peri_sparse_put(peri_sparse *sx, uint64_t id, const peri_sparse_row *row,
                            uint32_t flags)
{
    uint64_t offsets[2];
    peri_sparse_rows rows;
    PE_TRY(one_row(row, offsets, &rows));
    PE_TRY(check_args(sx, &rows, flags));
    put p = {.sx = sx, .ids = &id, .rows = &rows, .flags = flags};
    return run_put(&p, NULL, NULL);
}

peri_status peri_sparse_put_many(peri_sparse *sx, const uint64_t *ids, const peri_sparse_rows *rows,
                                 uint32_t flags, const peri_task *task, size_t *n_done)
{
    if (n_done)
        *n_done = 0;
    PE_TRY(check_args(sx, rows, flags));
    put p = {.sx = sx, .ids = ids, .rows = rows, .flags = flags};
    return run_put(&p, task, n_done);
}

peri_status peri_sparse_put_keyed(peri_sparse *sx, peri_slice key, const peri_sparse_row *row,
                                  uint32_t flags, uint64_t *id)
{
    uint64_t offsets[2];
    peri_sparse_rows rows;
    PE_TRY(one_row(row, offsets, &rows));
    PE_TRY(check_args(sx, &rows, flags));
    put p = {.sx = sx, .keys = &key, .rows = &rows, .flags = flags};
    PE_TRY(run_put(&p, NULL, NULL));
    return id ? peri_sparse_id_of(sx, key, id) : PERI_OK;
}

peri_status peri_sparse_put_many_keyed(peri_sparse *sx, const peri_slice *keys,
                                       const peri_sparse_rows *rows, uint32_t flags,
                                       const peri_task *task, size_t *n_done)
{
    if (n_done)
        *n_done = 0;
    PE_TRY(check_args(sx, rows, flags));
    if (rows->n && !keys)
        return pe_fail(PERI_ERR_ARG, "keys is NULL");
    put p = {.sx = sx, .keys = keys, .rows = rows, .flags = flags};
    return run_put(&p, task, n_done);
}

/* ---- removing ---- */

static peri_status remove_id(peri_sparse *sx, uint64_t id)
{
    pe_edit e;
    PE_TRY(pe_edit_begin(&e, &sx->postings));
    peri_status status = pe_edit_remove(&e, id);
    pe_edit_commit(&e);
    if (status == PERI_OK) /* upkeep of bounded size; see put_all */
        pe_postings_tidy(&sx->postings, PE_MERGE_BOUNDED, 0, NULL, 1);
    return status;
}

peri_status peri_sparse_remove(peri_sparse *sx, uint64_t id)
{
    PE_TRY(pe_sparse_begin_write(sx));
    peri_status status = atomic_load_explicit(&sx->keys, memory_order_relaxed)
                             ? pe_fail(PERI_ERR_STATE, "the index is keyed: remove by key")
                             : remove_id(sx, id);
    pe_sparse_end_write(sx);
    return status;
}

static peri_status check_key(peri_slice key)
{
    if (!key.data || key.size < 1 || key.size > PERI_MAX_KEY_SIZE)
        return pe_fail(PERI_ERR_ARG, "key has %zu bytes, expected 1 to %d", key.data ? key.size : 0,
                       PERI_MAX_KEY_SIZE);
    return PERI_OK;
}

peri_status peri_sparse_remove_keyed(peri_sparse *sx, peri_slice key)
{
    PE_TRY(check_key(key));
    PE_TRY(pe_sparse_begin_write(sx));
    pe_keys *keys = atomic_load_explicit(&sx->keys, memory_order_relaxed);
    uint64_t id;
    peri_status status = PERI_OK;
    if (!keys || !pe_keys_find(keys, key, &id))
        status = pe_fail(PERI_ERR_NOT_FOUND, "no such key");
    if (status == PERI_OK)
        status = remove_id(sx, id);
    if (status == PERI_OK)
        pe_keys_remove(keys, key);
    pe_sparse_end_write(sx);
    return status;
}

peri_status peri_sparse_id_of(const peri_sparse *sx, peri_slice key, uint64_t *id)
{
    if (!sx || !id)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", sx ? "id" : "sx");
    PE_TRY(check_key(key));
    pe_reader *place = pe_epoch_enter(&sx->epoch);
    const pe_keys *keys = atomic_load_explicit(&sx->keys, memory_order_acquire);
    int found = keys && pe_keys_find(keys, key, id);
    pe_epoch_exit(place);
    return found ? PERI_OK : pe_fail(PERI_ERR_NOT_FOUND, "no such key");
}

peri_status peri_sparse_key_of(const peri_sparse *sx, uint64_t id, peri_buf *key)
{
    if (!sx || !key)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", sx ? "key" : "sx");
    pe_reader *place = pe_epoch_enter(&sx->epoch);
    const pe_keys *keys = atomic_load_explicit(&sx->keys, memory_order_acquire);
    peri_slice found;
    peri_status status =
        keys && pe_keys_key_of(keys, id, &found)
            ? pe_buf_set(key, found.data, found.size)
            : pe_fail(PERI_ERR_NOT_FOUND, "no key for id %llu", (unsigned long long)id);
    pe_epoch_exit(place);
    return status;
}

/* ---- maintaining ---- */

static peri_status maintain(peri_sparse *sx, int all, const peri_task *task)
{
    pe_progress progress;
    PE_TRY(pe_progress_init(&progress, task));
    PE_TRY(pe_sparse_begin_write(sx));
    pe_host_limit(&sx->host, task);
    peri_status status =
        pe_postings_tidy(&sx->postings, UINT64_MAX, all, &progress, pe_task_threads(task));
    pe_keys *keys = atomic_load_explicit(&sx->keys, memory_order_relaxed);
    if (status == PERI_OK && keys)
        status = pe_keys_compact(keys);
    pe_sparse_end_write(sx);
    return status;
}

peri_status peri_sparse_maintain(peri_sparse *sx, const peri_task *task)
{
    return maintain(sx, 0, task);
}

peri_status peri_sparse_compact(peri_sparse *sx, const peri_task *task)
{
    return maintain(sx, 1, task);
}
