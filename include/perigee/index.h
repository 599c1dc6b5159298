/** @file index.h
 *  Dense vector indexes: `uint64_t` ids (or string keys) to vectors of one dimension under one
 *  metric, behind one set of verbs. Kinds: `flat` (exact), `hnsw` and `cascade` (graphs), `gwi`
 *  (gravity wells: a partition).
 *
 *  Threads: a function that takes `const peri_index *` is a read; any number may run at once, also
 *  while one thread writes. Writes are serialised inside the handle. close must be the last use.
 *
 *  A program, complete (compiled and run as tests/docs):
 *  @code
 *      peri_space space; peri_index *ix; peri_query q; peri_hit hits[10]; size_t n;
 *      peri_space_init(&space, 384, PERI_METRIC_COSINE);
 *      peri_hnsw_create(&ix, &space, NULL, NULL);
 *      peri_index_put(ix, 42, vector, 0);
 *      peri_query_init(&q, 10);
 *      peri_index_search(ix, query, &q, hits, &n);
 *      peri_index_save(ix, "my.peri", NULL);
 *      peri_index_close(ix);
 *  @endcode
 */
#ifndef PERI_INDEX_H
#define PERI_INDEX_H

#include "perigee/base.h"
#include "perigee/space.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct peri_index peri_index;

/** What graph traversal reads: the rows themselves, or codes of 8 bits a dimension (one scale for
 *  the whole index) whose best candidates are re-ranked on the rows. AUTO takes codes for rows
 *  wider than 8 bits. */
enum { PERI_CODES_AUTO = 0, PERI_CODES_NONE = 1, PERI_CODES_8BIT = 2 };

/** How a graph takes in many rows at once. BULK: rows are carved into overlapping cells, near pairs
 *  found by matrix products and pruned for diversity (after PiPNN, arXiv 2602.21247); several times
 *  faster than SEARCH, which inserts row by row. BULK serves the first 2,048 rows or more that an
 *  empty index gets in one call; what comes later, fewer rows, and the metric IP go by SEARCH. AUTO
 *  is BULK. */
enum { PERI_BUILD_AUTO = 0, PERI_BUILD_SEARCH = 1, PERI_BUILD_BULK = 2 };

/** How a graph lies in memory. G: links, codes and rows apart. Q (after SymphonyQG, SIGMOD 2025):
 * each node also holds 1-bit codes of its neighbours relative to itself, dim / 8 bytes a link; a
 * search reads rows only of the nodes that it expands. Q serves the metrics l2 and cosine, degrees
 * that are multiples of 32, and takes no 8-bit codes; rows put one by one since the last maintain,
 * or since the last batch of 1,024 rows, are searched as by G without codes. AUTO is G. */
enum { PERI_LAYOUT_AUTO = 0, PERI_LAYOUT_G = 1, PERI_LAYOUT_Q = 2 };

enum { PERI_MAX_KEY_SIZE = 65535 };

/** Hierarchical navigable small world graph (Malkov and Yashunin, TPAMI 2020). */
typedef struct peri_hnsw_config {
    uint32_t struct_size;
    uint32_t m;               /* links per node above the dense layer; 0 = 16, 2..256 */
    uint32_t m_max;           /* links per node at the dense layer; 0 = 2 m, m..512 */
    uint32_t ef_construction; /* candidates kept while inserting; 0 = 200, 8..4096 */
    uint32_t ef_search;       /* default effort of a query; 0 = 100, 1..1,048,576 */
    uint16_t codes;           /* PERI_CODES_* */
    uint16_t layout;          /* PERI_LAYOUT_* */
    float alpha; /* diversity of links, 1 = strictest pruning; 0 = 1.0 to 1.2 by metric, 0.5..2 */
    uint32_t build; /* PERI_BUILD_* */
    uint64_t seed;  /* 0 = the fixed default; one-thread builds repeat bit for bit */
} peri_hnsw_config;

static inline void peri_hnsw_config_init(peri_hnsw_config *c)
{
    memset(c, 0, sizeof *c);
    c->struct_size = (uint32_t)sizeof *c;
}

/** Cascade: hyperplane LSH, a tree of buckets, a sparse graph. Rows are built in bulk into a graph
 *  of one layer; an LSH forest gives searches their entry points. Faster to build than hnsw, and as
 *  good where a search's effort follows from the preset's recall.
 *
 *  Presets aim at recall@10: LARGE and SMALL 0.95, HIGH_RECALL 0.99, FAST_SEARCH 0.90; SMALL takes
 *  less memory. The effort that this needs is measured on the index's own rows, at the end of a
 *  build in bulk and by peri_index_maintain; before either a fixed one serves. */
enum {
    PERI_CASCADE_LARGE = 0,
    PERI_CASCADE_SMALL = 1,
    PERI_CASCADE_HIGH_RECALL = 2,
    PERI_CASCADE_FAST_SEARCH = 3
};
typedef struct peri_cascade_config {
    uint32_t struct_size;
    uint32_t preset;          /* PERI_CASCADE_* */
    uint32_t num_hyperplanes; /* bits of a row's hash; 0 = 16, 1..32 */
    uint32_t bucket_capacity; /* rows of a bucket before it splits; 0 = 128, 8..4096 */
    uint32_t nprobe;          /* buckets that a search takes entry points from; 0 = 8, 1..64 */
    uint32_t degree;          /* links per node; 0 = 32 (SMALL: 24), 2..512 */
    uint32_t ef_construction; /* candidates kept while inserting row by row; 0 = 200, 8..4096 */
    uint32_t ef_search;       /* default effort; 0 = from the recall aimed at, 1..1,048,576 */
    float target_recall;      /* recall aimed at; 0 = the preset's, 0.5..0.999 */
    float alpha;              /* diversity of links, as peri_hnsw_config's */
    uint16_t codes;           /* PERI_CODES_* */
    uint16_t layout;          /* PERI_LAYOUT_* */
    uint16_t reserved[2];
    uint64_t seed; /* 0 = the fixed default; builds in bulk repeat with any number of threads */
} peri_cascade_config;

static inline void peri_cascade_config_init(peri_cascade_config *c)
{
    memset(c, 0, sizeof *c);
    c->struct_size = (uint32_t)sizeof *c;
}

/** Gravity well index: rows fall into wells around trained attractors, a search scans the nearest
 *  wells. In the field's words an inverted file (IVF) under a tree of centroids, with RaBitQ codes
 *  (Gao and Long, SIGMOD 2024) scanned 32 rows at a time, and wells that split and merge (after
 *  SPFresh, Xu et al., SOSP 2023), so that it follows data that shifts. It builds some ten times
 *  faster than a graph and takes rows at a constant cost; a graph searches faster at recall 0.99.
 *
 *  It is trained by peri_index_train on a sample, or by itself on the first rows: when train_rows
 *  are there, or with the batch that brings them. Until then every search is exact. */
typedef struct peri_gwi_config {
    uint32_t struct_size;
    uint32_t branching; /* with levels: wells aimed at, branching^levels; either given, the other */
    uint32_t levels;    /* is 16 resp. 3; 2..1024 and 1..16. Both 0 = by `wells`. The tree itself
                         * always has two levels: deeper ones lose more rows to wrong turns than
                         * they save distances */
    uint32_t wells;     /* wells aimed at, 2..1,048,576; 0 = about 4 x the root of the rows, and
                         * growing with them */
    uint32_t nprobe;    /* default effort: wells a query scans; 0 = 32, 1..1,048,576 */
    uint32_t rounds;    /* of k-means; 0 = 10, 1..100 */
    uint32_t train_rows; /* rows at which it trains itself; 0 = 4096, 64..16,777,216 */
    uint16_t codes;      /* PERI_CODES_*: what candidates are measured on before re-ranking */
    uint16_t bits; /* a dimension in the wells, 1, 2 or 4; 0 = 2 up to 320 dimensions, else 1 */
    uint64_t seed; /* 0 = the fixed default; builds repeat, whatever the number of threads */
} peri_gwi_config;

static inline void peri_gwi_config_init(peri_gwi_config *c)
{
    memset(c, 0, sizeof *c);
    c->struct_size = (uint32_t)sizeof *c;
}

/* Constructors: one per kind, typed. config and env may be NULL. On failure *out is NULL and
 * nothing is left behind.
 * Errors: ERR_ARG (NULL), ERR_DIMENSION, ERR_CONFIG (names the field, its range, the value),
 * ERR_NOMEM. Since 0.1. */

/** Exact search by scanning. */
PERI_API peri_status peri_flat_create(peri_index **out, const peri_space *space,
                                      const peri_env *env);
PERI_API peri_status peri_hnsw_create(peri_index **out, const peri_space *space,
                                      const peri_hnsw_config *config, const peri_env *env);
PERI_API peri_status peri_cascade_create(peri_index **out, const peri_space *space,
                                         const peri_cascade_config *config, const peri_env *env);

PERI_API peri_status peri_gwi_create(peri_index **out, const peri_space *space,
                                     const peri_gwi_config *config, const peri_env *env);

/** MAP: serve the file from a mapping instead of a copy. Without READONLY the mapping is
 *  copy-on-write: the index may be written to and then saved whole; the file itself never
 *  changes under it. Checksums: everything that search traverses is verified before open
 *  returns; rows that only re-ranking reads are verified block by block when first read. */
enum { PERI_OPEN_READONLY = 1u << 0, PERI_OPEN_MAP = 1u << 1 };

/** Open a saved index of any kind.
 *  Errors: ERR_NOT_FOUND, ERR_IO, ERR_FORMAT (not such a file), ERR_VERSION (a newer one),
 *  ERR_CORRUPT (detail: file and offset), ERR_NOMEM. A failed open leaves the file untouched. */
PERI_API peri_status peri_index_open(peri_index **out, const char *path, uint32_t flags,
                                     const peri_env *env, const peri_task *task);

/** Write the index to `path` by temporary file, fsync and rename: after a crash at any moment the
 *  path holds the former file or the new one, whole. Blocks writers, not readers.
 *  Errors: ERR_IO, ERR_NOMEM, ERR_CANCELLED, ERR_FORKED (in a child of fork, when a write was under
 *  way at that moment). */
PERI_API peri_status peri_index_save(const peri_index *ix, const char *path, const peri_task *task);

/** NULL is fine. No other call may be running. */
PERI_API void peri_index_close(peri_index *ix);

/** Train a kind that needs it (PERI_CAP_TRAIN) on a sample, n x dim: rows like those to come, 64 or
 *  more a well. The sample is not stored. Rows that are already in wait until then and count as
 * part of the sample. Errors: ERR_UNSUPPORTED, ERR_STATE (trained already, read-only), ERR_ARG
 * (fewer than 2 rows), ERR_NONFINITE, ERR_NOMEM, ERR_CANCELLED, ERR_FORKED. Since 0.1. */
PERI_API peri_status peri_index_train(peri_index *ix, size_t n, const float *rows,
                                      const peri_task *task);

/** NEW: an id or key that is present is ERR_EXISTS instead of being replaced. */
enum { PERI_PUT_NEW = 1u << 0 };

/** Room for `rows` rows in all, so that the puts up to there allocate nothing big. */
PERI_API peri_status peri_index_reserve(peri_index *ix, size_t rows);

/** Insert one row, or replace the row of an id. `row` is dim floats. Under COSINE the index keeps
 *  the direction and the norm apart.
 *  Errors: ERR_NONFINITE (NaN, infinity; zero vector under cosine; a value or squared norm that
 *  overflows the kept type), ERR_EXISTS, ERR_FULL, ERR_NOMEM, ERR_FORKED, ERR_STATE (read-only or
 *  keyed). */
PERI_API peri_status peri_index_put(peri_index *ix, uint64_t id, const float *row, uint32_t flags);

/** n rows, `rows` is n x dim. Rows [0, *n_done) are in, the rest are not; n_done may be NULL. ids
 *  may be NULL: the index then numbers the rows onwards from the highest id it has seen. An id
 *  that stands twice in `ids` keeps its last row. Parallel by task->threads.
 *  Errors: as put; all rows are checked before the first is stored. ERR_CANCELLED. */
PERI_API peri_status peri_index_put_many(peri_index *ix, size_t n, const uint64_t *ids,
                                         const float *rows, uint32_t flags, const peri_task *task,
                                         size_t *n_done);

/** Hide a row at once; its links are repaired and its space reused by later removes, puts and
 *  maintain. Errors: ERR_NOT_FOUND, ERR_FORKED, ERR_STATE. */
PERI_API peri_status peri_index_remove(peri_index *ix, uint64_t id);

/** Copy a row out (dim floats), as kept: rounded to the scalar; under COSINE direction x norm.
 *  Errors: ERR_NOT_FOUND, ERR_CORRUPT (mapped file). */
PERI_API peri_status peri_index_get(const peri_index *ix, uint64_t id, float *row);

/** By string key (1..PERI_MAX_KEY_SIZE bytes, any bytes): an index is keyed from its first keyed
 *  put on, and assigns the ids. *id (may be NULL) gets the id. Mixing with put by id: ERR_STATE. */
PERI_API peri_status peri_index_put_keyed(peri_index *ix, peri_slice key, const float *row,
                                          uint32_t flags, uint64_t *id);
PERI_API peri_status peri_index_put_many_keyed(peri_index *ix, size_t n, const peri_slice *keys,
                                               const float *rows, uint32_t flags,
                                               const peri_task *task, size_t *n_done);
PERI_API peri_status peri_index_remove_keyed(peri_index *ix, peri_slice key);
/** The id of a key. Errors: ERR_NOT_FOUND. */
PERI_API peri_status peri_index_id_of(const peri_index *ix, peri_slice key, uint64_t *id);
/** The key of an id, copied into *key. Errors: ERR_NOT_FOUND, ERR_NOMEM. */
PERI_API peri_status peri_index_key_of(const peri_index *ix, uint64_t id, peri_buf *key);

/** All the work that put and remove never do: train codes afresh where the data has drifted, repair
 *  links to removed rows and give their space back, repair unreachable rows, split and merge wells
 *  that are due, measure the curve that target_recall reads. Cancelling leaves a valid index. */
PERI_API peri_status peri_index_maintain(peri_index *ix, const peri_task *task);

typedef struct peri_hit {
    uint64_t id;
    float distance; /* smaller is nearer, whatever the metric */
    uint32_t reserved;
} peri_hit;

/** Non-zero keeps the id; called from the searching thread; must not call into the index. A
 *  peri_idset is much faster. */
typedef int (*peri_filter_fn)(void *ctx, uint64_t id);

/** What varies from search to search. */
typedef struct peri_query {
    uint32_t struct_size;
    uint32_t k;                /* hits wanted at most, 1 or more */
    uint32_t effort;           /* hnsw, cascade: ef; gwi: wells. 0 = the index's default */
    uint32_t rerank;           /* candidates re-ranked on stored rows; 0 = the index's default */
    float target_recall;       /* 0 = use effort; else the index picks the effort, 0.5..0.999 */
    float max_distance;        /* range search: only hits at most this far; see has_max_distance */
    uint32_t has_max_distance; /* non-zero: max_distance counts */
    uint32_t reserved;
    const peri_idset *allow; /* only these ids; NULL = all */
    peri_filter_fn filter;   /* only ids that it keeps; NULL = all; both may be given */
    void *filter_ctx;
} peri_query;

static inline void peri_query_init(peri_query *q, uint32_t k)
{
    memset(q, 0, sizeof *q);
    q->struct_size = (uint32_t)sizeof *q;
    q->k = k;
}

/** Find the k rows nearest to `row` (dim floats).
 *
 *  hits has room for q->k; nearest first, ties by smaller id. *n_hits is less than k only when
 *  fewer rows are live or allowed. With max_distance an exact kind returns the nearest k of all
 * rows inside; hnsw widens its search as long as it keeps finding rows inside, and may miss some,
 * as it may in any search. Threads: any number at once, also during put. Since 0.1. Errors: ERR_ARG
 * (k is 0), ERR_CONFIG (a field out of range), ERR_NONFINITE, ERR_NOMEM, ERR_STATE (target_recall
 * before maintain measured the curve), ERR_CORRUPT (mapped file). */
PERI_API peri_status peri_index_search(const peri_index *ix, const float *row, const peri_query *q,
                                       peri_hit *hits, size_t *n_hits);

/** n queries (n x dim); hits is n x q->k, n_hits is n long. On an error no result counts. */
PERI_API peri_status peri_index_search_many(const peri_index *ix, size_t n, const float *rows,
                                            const peri_query *q, const peri_task *task,
                                            peri_hit *hits, size_t *n_hits);

/** What a kind can do; a verb it lacks returns ERR_UNSUPPORTED. */
enum {
    PERI_CAP_EXACT = 1u << 0,  /* every answer is exact */
    PERI_CAP_EFFORT = 1u << 1, /* effort and target_recall count */
    PERI_CAP_CODES = 1u << 2,  /* keeps codes beside rows */
    PERI_CAP_TRAIN = 1u << 3,  /* peri_index_train */
};

typedef struct peri_index_info {
    uint32_t struct_size;
    uint32_t caps; /* PERI_CAP_* */
    char kind[16];
    peri_space space;
    uint32_t keyed;        /* 1 = ids come from string keys */
    uint32_t codes;        /* PERI_CODES_* in effect */
    uint32_t calibrated;   /* 1 = the curve of target_recall was measured */
    uint32_t links;        /* graph kinds: links per node at the dense layer */
    uint64_t rows;         /* live */
    uint64_t deleted;      /* removed, space not yet given back */
    uint64_t bytes_heap;   /* allocated by this handle */
    uint64_t bytes_mapped; /* of files */
    uint64_t clipped;      /* rows whose codes were cut off by the trained range */
    uint64_t next_id;      /* the id that put_many without ids would take next */
    uint32_t wells;        /* gwi: 0 until it is trained */
    uint32_t well_bits;    /* gwi: bits a dimension in the wells */
} peri_index_info;

static inline void peri_index_info_init(peri_index_info *i)
{
    memset(i, 0, sizeof *i);
    i->struct_size = (uint32_t)sizeof *i;
}

/** Fill *info; struct_size must be set (peri_index_info_init). */
PERI_API peri_status peri_index_get_info(const peri_index *ix, peri_index_info *info);

/** The ids of all live rows, each once, in no set order: up to `capacity` into ids, and in *n how
 *  many there are in all. Errors: ERR_NOMEM. */
PERI_API peri_status peri_index_ids(const peri_index *ix, uint64_t *ids, size_t capacity,
                                    size_t *n);

/** Full structural proof. *n_faults counts what is wrong; the detail names the first. Blocks
 *  writers. Errors: ERR_NOMEM, ERR_CANCELLED, ERR_FORKED as save; faults are not an error. */
PERI_API peri_status peri_index_check(const peri_index *ix, const peri_task *task,
                                      uint64_t *n_faults);

#ifdef __cplusplus
}
#endif
#endif
