/** @file sparse.h
 *  Sparse vectors: `uint64_t` ids (or string keys) to rows of (term, weight), searched by inner
 *  product. What SPLADE and other learned sparse models, TF-IDF or any bag of features need.
 *
 *  Terms are any 32-bit numbers, weights any finite numbers from 2^-60 to 2^40 in size, of either
 *  sign. The score of a row is the sum of query weight x row weight over the terms that both have;
 * a row that shares no term with the query is no hit, whatever its score would be.
 *
 *  Hits are those of perigee/index.h: `distance` is *minus* the score (smaller is nearer, as with
 *  PERI_METRIC_IP), ties by smaller id. So `max_distance = -s` asks for scores of s or more, and
 *  the functions that fuse rankings take these hits as they take any.
 *
 *  Exact search (`effort` 0) is exact in this sense: the score is the sum in double of products of
 *  the query's weights and the weights as kept, in ascending order of terms, rounded once to float;
 *  the hits are the k best by it. They do not depend on the order of puts, on merges or threads.
 *
 *  Postings by windows of 8,192 documents (SINDI, Li et al., ICDE 2026, arXiv 2509.08395); what
 *  differs from there is told in docs/architecture.md.
 *
 *  Threads: a function that takes `const peri_sparse *` is a read; any number may run at once, also
 *  while one thread writes: each read sees the state between two writes. Writes are serialised
 *  inside. close must be the last use.
 *
 *  A program, complete (compiled and run by the tests):
 *  @code
 *      peri_sparse *sx; peri_query q; peri_hit hits[10]; size_t n;
 *      uint32_t terms[3] = {7, 1012, 30521};
 *      float weights[3] = {0.5f, 2.0f, 1.25f};
 *      peri_sparse_row row = {3, terms, weights};
 *      peri_sparse_create(&sx, NULL, NULL);
 *      peri_sparse_put(sx, 42, &row, 0);
 *      peri_query_init(&q, 10);
 *      peri_sparse_search(sx, &row, &q, hits, &n);
 *      peri_sparse_save(sx, "my.sparse", NULL);
 *      peri_sparse_close(sx);
 *  @endcode
 */
#ifndef PERI_SPARSE_H
#define PERI_SPARSE_H

#include "perigee/base.h"
#include "perigee/index.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct peri_sparse peri_sparse;

enum { PERI_SPARSE_MAX_ENTRIES = 65535 /* of a row or query, inclusive */ };

/** One row or query: n terms, each once, in any order, and their weights. A weight below 2^-60 in
 *  size counts as absent. n may be 0: such a row is kept and never found. */
typedef struct peri_sparse_row {
    size_t n;
    const uint32_t *terms;
    const float *weights;
} peri_sparse_row;

/** n rows one after another, as in the CSR format: row i has the entries offsets[i] to
 *  offsets[i + 1] - 1. */
typedef struct peri_sparse_rows {
    size_t n;
    const uint64_t *offsets; /* n + 1 */
    const uint32_t *terms;
    const float *weights;
} peri_sparse_rows;

/** NO_APPROXIMATE: keep no lists for approximate search, which take about a quarter of the exact
 *  ones' memory and build time; `effort` is then ERR_UNSUPPORTED. */
enum { PERI_SPARSE_NO_APPROXIMATE = 1u << 0 };

typedef struct peri_sparse_config {
    uint32_t struct_size;
    uint32_t flags; /* PERI_SPARSE_* */
    /** How weights are kept: PERI_SCALAR_F32 (0 = this), _F16, or _I8: 8 bits, in steps of the
     *  row's largest weight / 127. Search is exact with respect to what is kept. */
    uint32_t weights;
    /** Approximate search: of each row the heaviest entries that come to this part of its weight
     *  are in the lists it walks; 0 = 0.6, 0.1..1. */
    float keep;
} peri_sparse_config;

static inline void peri_sparse_config_init(peri_sparse_config *c)
{
    memset(c, 0, sizeof *c);
    c->struct_size = (uint32_t)sizeof *c;
}

/** config and env may be NULL. On failure *out is NULL.
 *  Errors: ERR_ARG, ERR_CONFIG (names the field, its range, the value), ERR_NOMEM. Since 0.1. */
PERI_API peri_status peri_sparse_create(peri_sparse **out, const peri_sparse_config *config,
                                        const peri_env *env);

/** Open a saved one; flags: PERI_OPEN_*. MAP serves it from the mapping, also when it is written
 * to: what is put lies in the heap, and the file never changes. Everything is verified and proved
 *  before open returns.
 *  Errors: ERR_ARG, ERR_NOT_FOUND, ERR_IO, ERR_FORMAT, ERR_VERSION, ERR_CORRUPT (detail: file and
 *  place), ERR_NOMEM. A failed open leaves the file untouched. Since 0.1. */
PERI_API peri_status peri_sparse_open(peri_sparse **out, const char *path, uint32_t flags,
                                      const peri_env *env, const peri_task *task);

/** Write to `path` by temporary file, fsync and rename: after a crash at any moment the path holds
 *  the former file or the new one, whole. Blocks writers, not readers.
 *  Errors: ERR_ARG, ERR_IO, ERR_NOMEM, ERR_CANCELLED, ERR_FORKED. Since 0.1. */
PERI_API peri_status peri_sparse_save(const peri_sparse *sx, const char *path,
                                      const peri_task *task);

/** NULL is fine. No other call may be running. */
PERI_API void peri_sparse_close(peri_sparse *sx);

/** Insert a row, or replace that of an id. flags: PERI_PUT_NEW. Found by searches at once. Bounded
 *  work: at worst, once in 8,192 rows, up to 65,536 rows are merged.
 *  Errors: ERR_ARG (a term twice, too many entries), ERR_NONFINITE (a weight that is no number,
 *  infinite, above 2^40 or beyond what is kept), ERR_EXISTS, ERR_NOMEM, ERR_FORKED, ERR_STATE
 *  (read-only or keyed). Since 0.1. */
PERI_API peri_status peri_sparse_put(peri_sparse *sx, uint64_t id, const peri_sparse_row *row,
                                     uint32_t flags);

/** Many rows; [0, *n_done) are in, the rest are not; n_done may be NULL. ids may be NULL: numbered
 *  onwards from the highest id seen. An id that stands twice keeps its last row. Searches see them
 *  arrive in blocks of 65,536. Merging runs on task->threads. Errors: as put; all rows are checked
 *  before the first is stored. ERR_CANCELLED. Since 0.1. */
PERI_API peri_status peri_sparse_put_many(peri_sparse *sx, const uint64_t *ids,
                                          const peri_sparse_rows *rows, uint32_t flags,
                                          const peri_task *task, size_t *n_done);

/** Hide a row at once; its space comes back by merges. Errors: ERR_NOT_FOUND, ERR_NOMEM,
 * ERR_FORKED, ERR_STATE. Since 0.1. */
PERI_API peri_status peri_sparse_remove(peri_sparse *sx, uint64_t id);

/** The row of an id, as kept, terms ascending: up to `capacity` entries, and in *n how many there
 *  are. Errors: ERR_ARG, ERR_NOT_FOUND. Since 0.1. */
PERI_API peri_status peri_sparse_get(const peri_sparse *sx, uint64_t id, uint32_t *terms,
                                     float *weights, size_t capacity, size_t *n);

/** By string key (1..PERI_MAX_KEY_SIZE bytes, any bytes): keyed from the first keyed put on; the
 *  ids are assigned. *id (may be NULL) gets the id. Mixing with put by id: ERR_STATE. Since 0.1. */
PERI_API peri_status peri_sparse_put_keyed(peri_sparse *sx, peri_slice key,
                                           const peri_sparse_row *row, uint32_t flags,
                                           uint64_t *id);
PERI_API peri_status peri_sparse_put_many_keyed(peri_sparse *sx, const peri_slice *keys,
                                                const peri_sparse_rows *rows, uint32_t flags,
                                                const peri_task *task, size_t *n_done);
PERI_API peri_status peri_sparse_remove_keyed(peri_sparse *sx, peri_slice key);
/** Errors: ERR_ARG, ERR_NOT_FOUND. */
PERI_API peri_status peri_sparse_id_of(const peri_sparse *sx, peri_slice key, uint64_t *id);
/** The key of an id, copied into *key. Errors: ERR_ARG, ERR_NOT_FOUND, ERR_NOMEM. */
PERI_API peri_status peri_sparse_key_of(const peri_sparse *sx, uint64_t id, peri_buf *key);

/** The k rows of the highest scores. hits has room for q->k; *n_hits is less than k only when fewer
 *  rows share a term with the query and are allowed.
 *
 *  Of the query struct count k, max_distance, allow and filter (which skip windows without an
 *  allowed row), effort and rerank; target_recall is ERR_UNSUPPORTED.
 *
 *  effort 0 is exact. Else search is approximate: the `effort` heaviest entries of the query are
 *  walked over the heaviest entries of the rows, and the best `rerank` rows (0 = 3 k + 20) are
 * scored in full. On rows like SPLADE's (45 entries a query) effort 15 with 60 rows finds about
 * 0.95 of the ten best, 36 with 100 about 0.99.
 *
 *  Errors: ERR_ARG (k is 0, a term twice), ERR_CONFIG, ERR_NONFINITE, ERR_NOMEM. Since 0.1. */
PERI_API peri_status peri_sparse_search(const peri_sparse *sx, const peri_sparse_row *query,
                                        const peri_query *q, peri_hit *hits, size_t *n_hits);

/** Many queries on task->threads; hits is n x q->k, n_hits is n long. All of them see the same
 *  state. On an error no result counts. Since 0.1. */
PERI_API peri_status peri_sparse_search_many(const peri_sparse *sx, const peri_sparse_rows *queries,
                                             const peri_query *q, const peri_task *task,
                                             peri_hit *hits, size_t *n_hits);

/** Merge what is due whatever its size, give back the space of removed rows where they are a
 *  quarter of a segment or more, and that of keys. Errors: ERR_NOMEM, ERR_CANCELLED (what is done
 *  stays), ERR_FORKED, ERR_STATE. Since 0.1. */
PERI_API peri_status peri_sparse_maintain(peri_sparse *sx, const peri_task *task);

/** Make one segment of all live rows: no space of removed ones is left, and searches are at their
 *  fastest. Needs as much memory again while it runs. Errors: as maintain. Since 0.1. */
PERI_API peri_status peri_sparse_compact(peri_sparse *sx, const peri_task *task);

typedef struct peri_sparse_info {
    uint32_t struct_size;
    uint32_t weights;  /* PERI_SCALAR_* */
    uint32_t flags;    /* PERI_SPARSE_* of the config */
    float keep;        /* of the config */
    uint32_t keyed;    /* 1 = ids come from string keys */
    uint32_t segments; /* searched one after another */
    uint64_t rows;     /* live */
    uint64_t deleted;  /* removed, space not yet given back */
    uint64_t active;   /* rows in the segment that is being filled */
    uint64_t postings; /* of the exact lists, those of sealed segments */
    uint64_t approximate_postings;
    uint64_t bytes_sealed; /* of lists and rows in sealed segments, in heap or mapped */
    uint64_t bytes_heap;   /* allocated by this handle */
    uint64_t bytes_mapped; /* of files */
    uint64_t next_id;      /* the id that put_many without ids would take next */
} peri_sparse_info;

static inline void peri_sparse_info_init(peri_sparse_info *i)
{
    memset(i, 0, sizeof *i);
    i->struct_size = (uint32_t)sizeof *i;
}

/** Fill *info; struct_size must be set. Since 0.1. */
PERI_API peri_status peri_sparse_get_info(const peri_sparse *sx, peri_sparse_info *info);

/** The ids of all live rows, each once, in no set order: up to `capacity` into ids, and in *n how
 *  many there are in all. Since 0.1. */
PERI_API peri_status peri_sparse_ids(const peri_sparse *sx, uint64_t *ids, size_t capacity,
                                     size_t *n);

/** Full structural proof. *n_faults counts what is wrong; the detail names the first. Blocks
 *  writers. Errors: ERR_NOMEM, ERR_CANCELLED, ERR_FORKED; faults are not an error. Since 0.1. */
PERI_API peri_status peri_sparse_check(const peri_sparse *sx, const peri_task *task,
                                       uint64_t *n_faults);

#ifdef __cplusplus
}
#endif
#endif
