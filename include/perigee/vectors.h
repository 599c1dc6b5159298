/** @file vectors.h
 *  A memory-mapped vector file: string keys and rows of one stride, written at memory speed,
 * durable at each checkpoint, searched exactly or by an index that borrows its rows.
 *
 *  What is promised:
 *   - A row never moves and never changes while anyone may look: an update takes a new row, a
 *     deleted row keeps its bytes until compaction.
 *   - peri_vectors_checkpoint makes everything accepted before it durable against power loss.
 * Without a clean close the file opens at its last checkpoint (or at a later one that was under
 * way): nothing older is lost, nothing later is half there.
 *   - Damage is an error that names the file and the offset, never wrong numbers. Keys are checked
 *     when the file is opened, rows by blocks of 64 KiB when they are first read.
 *
 *  What is not: a file on a network file system, a file that another program shortens while it is
 *  open (the process dies of SIGBUS), writes through a handle used after fork.
 *
 *  Processes: one writer, any number of readers at the same time. A reader sees the checkpoint that
 *  was the last one when it opened the file, and later ones when it calls peri_vectors_refresh.
 *  The writer holds a lock on <path>.lock, a small file that stays.
 *
 *  Threads: a function that takes `const peri_vectors *` is a read; any number may run at once,
 * also while one thread writes. Writes are serialised inside. close must be the last use, except
 * for views, which may outlive it.
 *
 *  Ids: each row has an id, never given to another row. An update gives the key a new one, and so
 *  does compaction to every row; an id from before then names nothing.
 *
 *  @code
 *      peri_space space; peri_vectors *v; peri_query q; peri_hit hits[10]; size_t n;
 *      peri_space_init(&space, 384, PERI_METRIC_IP);
 *      peri_vectors_create(&v, "my.vectors", &space, NULL, NULL);
 *      peri_vectors_insert_batch(v, 1000, keys, rows, 0, NULL);
 *      peri_vectors_checkpoint(v);
 *      peri_query_init(&q, 10);
 *      peri_vectors_search(v, query, &q, hits, &n);
 *      peri_vectors_close(v);
 *  @endcode
 */
#ifndef PERI_VECTORS_H
#define PERI_VECTORS_H

#include "perigee/base.h"
#include "perigee/index.h"
#include "perigee/space.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct peri_vectors peri_vectors;

typedef struct peri_vectors_config {
    uint32_t struct_size;
    uint32_t reserved;
    uint64_t
        expect_rows; /* space on the disk is taken for so many rows at once; 0 = as they come */
    uint64_t address_space; /* bytes reserved for the file to grow into; 0 = 1 TiB. Beyond it, or
                             * where the process may not have that much, the file is mapped again
                             * as it grows: slower, no limit */
} peri_vectors_config;

static inline void peri_vectors_config_init(peri_vectors_config *c)
{
    memset(c, 0, sizeof *c);
    c->struct_size = (uint32_t)sizeof *c;
}

/** Make an empty file. config and env may be NULL. Under COSINE a row is kept as its direction, and
 *  its norm apart. env and what it points to must outlive the handle and its views.
 *  Errors: ERR_EXISTS (something stands at the path), ERR_BUSY, ERR_DIMENSION, ERR_CONFIG,
 *  ERR_NOT_FOUND (the directory), ERR_IO, ERR_NOMEM. On failure *out is NULL. Since 0.1. */
PERI_API peri_status peri_vectors_create(peri_vectors **out, const char *path,
                                         const peri_space *space, const peri_vectors_config *config,
                                         const peri_env *env);

/** Open a file; flags: 0 to write to it, or PERI_OPEN_READONLY. Only the header and the keys are
 *  read, and the index beside it if there is a valid one.
 *  Errors: ERR_NOT_FOUND, ERR_BUSY (another writer; the detail names its process), ERR_FORMAT,
 *  ERR_VERSION, ERR_CORRUPT, ERR_IO, ERR_NOMEM. A failed open leaves the file untouched. */
PERI_API peri_status peri_vectors_open(peri_vectors **out, const char *path, uint32_t flags,
                                       const peri_vectors_config *config, const peri_env *env);

/** NULL is fine. Does not checkpoint: what came after the last one may be lost. */
PERI_API void peri_vectors_close(peri_vectors *v);

/** Put one row under a key (1..PERI_MAX_KEY_SIZE bytes, any bytes), instead of the one it had.
 *  flags: PERI_PUT_NEW makes a key that is present ERR_EXISTS. *id (may be NULL) gets the row's id.
 *  Rows put one by one are stored through the mapping, without a system call each.
 *  Errors: ERR_NONFINITE, ERR_ARG (key), ERR_EXISTS, ERR_FULL (2,147,483,632 rows, deleted ones
 *  included), ERR_IO (the disk is full, say), ERR_NOMEM, ERR_STATE (read-only), ERR_FORKED,
 *  ERR_POISONED. */
PERI_API peri_status peri_vectors_insert(peri_vectors *v, peri_slice key, const float *row,
                                         uint32_t flags, uint64_t *id);

/** n rows (n x dim), all or none. A key that stands twice keeps its last row (with PERI_PUT_NEW:
 *  ERR_EXISTS). *first_id (may be NULL) gets the id of row 0; the others follow it. A search sees
 *  all of the batch or nothing of it. Errors as insert. */
PERI_API peri_status peri_vectors_insert_batch(peri_vectors *v, size_t n, const peri_slice *keys,
                                               const float *rows, uint32_t flags,
                                               uint64_t *first_id);

/** Replace the row of a key that is present. Errors: ERR_NOT_FOUND, else as insert. */
PERI_API peri_status peri_vectors_update(peri_vectors *v, peri_slice key, const float *row,
                                         uint64_t *id);

/** Hide a key's row at once. Its space comes back with compaction. Errors: ERR_NOT_FOUND,
 * ERR_STATE, ERR_FORKED, ERR_POISONED, ERR_NOMEM. */
PERI_API peri_status peri_vectors_delete(peri_vectors *v, peri_slice key);

/** Make everything accepted so far durable; returns when it is. Readers of other processes find it
 *  from then on. Errors: ERR_IO; when it was the fsync that failed the handle is poisoned: reads go
 *  on, writes are ERR_POISONED, and the file opens at the former checkpoint or at this one. */
PERI_API peri_status peri_vectors_checkpoint(peri_vectors *v);

/** A reader: see the last checkpoint there is. *changed (may be NULL) gets 1 if that is another
 *  than before. Errors: as open; what the handle saw before stays. */
PERI_API peri_status peri_vectors_refresh(peri_vectors *v, int *changed);

/** Copy a row out, as floats (dim of them): rounded to the scalar; under COSINE direction x norm.
 *  *id may be NULL. Errors: ERR_NOT_FOUND, ERR_CORRUPT. */
PERI_API peri_status peri_vectors_get(const peri_vectors *v, peri_slice key, float *row,
                                      uint64_t *id);
/** The same by id. Errors: ERR_NOT_FOUND also when the row was replaced or deleted. */
PERI_API peri_status peri_vectors_get_id(const peri_vectors *v, uint64_t id, float *row);

/** The key under which a row was put, of a deleted or replaced row as well until compaction or the
 *  next open. Errors: ERR_NOT_FOUND, ERR_NOMEM. */
PERI_API peri_status peri_vectors_key_of(const peri_vectors *v, uint64_t id, peri_buf *key);

/** A row, or many in sequence, in place. What it points to stays as it is until the view is
 * released, whatever happens to the key, the file or the handle. */
typedef struct peri_vectors_view {
    const void *data; /* rows in the file's scalar; under COSINE directions */
    size_t stride;    /* bytes from row to row */
    uint64_t n;       /* rows */
    uint64_t id;      /* of the first; the others follow */
    float norm;       /* of a single row under COSINE, else 1 */
    uint32_t reserved;
    void *hold; /* the library's */
} peri_vectors_view;

/** See a key's row in place. Errors: ERR_NOT_FOUND, ERR_CORRUPT. */
PERI_API peri_status peri_vectors_view_key(const peri_vectors *v, peri_slice key,
                                           peri_vectors_view *view);
/** See n rows from an id on in place, deleted and replaced ones among them (peri_vectors_next knows
 *  which). Errors: ERR_NOT_FOUND (not all are rows of this file), ERR_CORRUPT. */
PERI_API peri_status peri_vectors_view_rows(const peri_vectors *v, uint64_t id, uint64_t n,
                                            peri_vectors_view *view);
/** Let go of it, before or after close. NULL and all zeros are fine. */
PERI_API void peri_vectors_release(peri_vectors_view *view);

/** The next key at or after id *cursor (start from 0), in the order of ids; *cursor moves behind
 * it. Errors: ERR_NOT_FOUND (there is no other), ERR_NOMEM. */
PERI_API peri_status peri_vectors_next(const peri_vectors *v, uint64_t *cursor, peri_buf *key,
                                       uint64_t *id);

/** How many keys there are. */
PERI_API peri_status peri_vectors_len(const peri_vectors *v, uint64_t *n);

/** The k nearest rows to `row` (dim floats) under the space's metric: peri_index_search's query and
 *  hits, by row id. Exact without an index; with one, rows that it has not taken in yet are
 * measured exactly beside it. Errors: as peri_index_search. */
PERI_API peri_status peri_vectors_search(const peri_vectors *v, const float *row,
                                         const peri_query *q, peri_hit *hits, size_t *n_hits);

/** n queries (n x dim); hits is n x q->k, n_hits is n long. Parallel by task->threads. */
PERI_API peri_status peri_vectors_search_many(const peri_vectors *v, size_t n, const float *rows,
                                              const peri_query *q, const peri_task *task,
                                              peri_hit *hits, size_t *n_hits);

/** Build an index over all rows there are, into `empty`: an index of any kind, made by its
 *  constructor in the same space, with nothing in it. It borrows the rows, so it holds only its own
 *  structure and codes. Then a checkpoint, and the index is saved as <path>.index. Inserts, deletes
 *  and searches go on meanwhile. `empty` belongs to the library from this call on, also when it
 *  fails. A former index is replaced.
 *  Errors: ERR_ARG (not empty), ERR_DIMENSION, ERR_CONFIG (another metric or scalar), ERR_CORRUPT,
 *  ERR_NOMEM, ERR_IO, ERR_CANCELLED, ERR_STATE, ERR_FORKED, ERR_POISONED. */
PERI_API peri_status peri_vectors_build_index(peri_vectors *v, peri_index *empty,
                                              const peri_task *task);

/** Take rows that came since into the index, deleted ones out of it, do its own maintenance
 *  (peri_index_maintain), save it. Without an index there is nothing to do. Errors: as build_index.
 */
PERI_API peri_status peri_vectors_maintain(peri_vectors *v, const peri_task *task);

/** Forget the index and remove its file. */
PERI_API peri_status peri_vectors_drop_index(peri_vectors *v);

/** Write the rows that are left to a new file that takes this one's place, in one step: it is the
 *  only way to give space back. Ends with a checkpoint. Ids change; the index is dropped. Reads go
 *  on meanwhile, writes wait. Errors: ERR_IO, ERR_NOMEM, ERR_CORRUPT (a row's block),
 * ERR_CANCELLED, ERR_STATE, ERR_FORKED, ERR_POISONED. After a failure the file is as it was. */
PERI_API peri_status peri_vectors_compact(peri_vectors *v, const peri_task *task);

typedef struct peri_vectors_info {
    uint32_t struct_size;
    uint32_t readonly;
    peri_space space;
    uint8_t uuid[16];       /* of the file, kept by compaction */
    uint64_t generation;    /* 1, and one more with each compaction */
    uint64_t checkpoint;    /* number of the last one */
    uint64_t rows;          /* keys */
    uint64_t slots;         /* rows in the file, deleted and replaced ones included */
    uint64_t unsaved;       /* rows put since the last checkpoint */
    uint64_t bytes_file;    /* space taken on the disk, spare room included */
    uint64_t bytes_heap;    /* allocated by this handle, the index's own included */
    uint64_t bytes_mapped;  /* of files */
    uint64_t views;         /* not released yet */
    uint64_t indexed;       /* rows that the index has taken in */
    char index_kind[16];    /* "" without an index */
    uint32_t index_dropped; /* 1 = there was an index file that did not fit the file, at open */
    uint32_t poisoned;
} peri_vectors_info;

static inline void peri_vectors_info_init(peri_vectors_info *i)
{
    memset(i, 0, sizeof *i);
    i->struct_size = (uint32_t)sizeof *i;
}

PERI_API peri_status peri_vectors_get_info(const peri_vectors *v, peri_vectors_info *info);

/** What is known of the index. Errors: ERR_NOT_FOUND (there is none). */
PERI_API peri_status peri_vectors_index_info(const peri_vectors *v, peri_index_info *info);

/** Full proof: every block's checksum, every key, the index. *n_faults counts what is wrong, the
 *  detail names the first. Blocks writers. Errors: ERR_NOMEM, ERR_CANCELLED; faults are no error.
 */
PERI_API peri_status peri_vectors_check(const peri_vectors *v, const peri_task *task,
                                        uint64_t *n_faults);

#ifdef __cplusplus
}
#endif
#endif
